//! State that is not needed soon, on the disk instead of in memory.
//!
//! Owns [`SpillSpace`], the room on the disk that the queries of a node share, and [`Parked`], a batch that lies in it. A task
//! lends the room to its operators (`Operator::spill`) once its query holds more in memory than it should; they put there what they
//! need last and take it back when it is needed: windows whole panes, interval joins blocks of rows, sessions and groups their keys
//! (`keyed::ColdKeys`). Always: no checkpoint needs a file of this room, what an earlier process left
//! is deleted, and a file lives as long as its [`Parked`] does. What does not come back as it was written (its length and its
//! checksum say so) is an error that ends the task, which goes on from its last commit; what there is no room for stays in memory.
//!
//! Files are written and read where the operator works, without a sync: they go through the system's cache, and nothing has to outlive
//! the process.

mod disk;
pub(super) mod parked;
mod space;
#[cfg(test)]
pub(in crate::stream) mod tests;

pub use disk::{SpillDisk, SpillFolder};
pub use parked::Parked;
pub use space::{SpillSpace, Spilling};
