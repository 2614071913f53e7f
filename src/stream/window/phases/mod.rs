//! The windowed aggregate in two phases, for groups whose rows lie in several partitions.
//!
//! [`WindowCollect`] takes the rows of one partition and hands over what it has gathered, its *parts*, once its own watermark closes the first
//! window they count in: they are written to the query's own topic, each group to the partition of its key (`record`).
//! [`WindowCombine`] takes the parts of all partitions for the groups of one partition of that topic, and fires a window once every upstream
//! task has said (its *mark*) that nothing more comes for it. Always: a part is an entry of [`super::WindowAggregate`], frozen, and what is
//! merged in what order is what that operator merges over all partitions; so the rows of a key are the same, floats included.

mod collect;
mod combine;
mod record;
#[cfg(test)]
mod tests;

pub use collect::WindowCollect;
pub use combine::WindowCombine;
pub(in crate::stream) use record::{TO, VALUE, mark};
