//! SESSION windows: a key's rows that follow one another closely enough.

mod aggregate;
mod cold;
#[cfg(test)]
mod cold_tests;
mod slots;
#[cfg(test)]
mod tests;

pub use aggregate::{SessionAggregate, SessionSpec};
