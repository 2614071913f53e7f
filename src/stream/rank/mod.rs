//! ROW_NUMBER in any order, within partitions that come to an end: Top-N of a window, the last row of an instant.

mod operator;
mod store;
#[cfg(test)]
mod tests;

pub use operator::{Rank, RankOrder, RankSpec};
pub(super) use store::{Spot, Store};
