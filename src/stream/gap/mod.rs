//! GAP_FILL: rows where a key sent none, at a fixed distance behind the one before.

mod kept;
mod operator;
#[cfg(test)]
mod tests;

pub use operator::{GapColumn, GapFill, GapSpec};
