//! `ABSENT(PARTITION BY k, ts, interval)`: one row for every silence of a key, and if asked for one when it
//! comes back.

mod operator;
mod presence;
#[cfg(test)]
mod tests;

pub use operator::{Absent, AbsentColumn, AbsentSpec};
