//! Windows over event time: which windows a row lies in, aggregates over them, and the window function
//! without an aggregate. `phases` has the aggregate cut in two, for groups whose rows lie in several partitions.

mod aggregate;
mod assign;
mod entry;
mod expand;
mod pane;
mod phases;
mod shared;
#[cfg(test)]
mod spill_tests;
mod split;
mod statistics;
#[cfg(test)]
mod tests;

pub use aggregate::{WindowAggregate, WindowAggregateSpec, WindowColumn};
pub(super) use aggregate::{as_type, ints, ints_of, ints_of_column};
pub use assign::WindowRule;
pub use expand::{ExpandColumn, WindowExpand};
pub(super) use pane::{Finished, Frozen, Live, Maker};
pub(super) use phases::{TO, VALUE, mark};
pub use phases::{WindowCollect, WindowCombine};
#[cfg(test)]
pub(super) use shared::Names;
pub(super) use shared::{Grouping, grouping};
pub use statistics::{Statistic, Statistics};
