//! The node's durable log: one write-ahead log for all partitions, and the segments behind it.
//!
//! Every write is an [`AppendGroup`]: batches for one or more partitions that become durable and visible
//! together, or not at all. One thread writes and syncs the WAL (`wal`), and whoever waits meanwhile rides on
//! the next sync; a second thread (`materialise`) writes the same bytes to the partitions' segments, syncs
//! those now and then, and lets old WAL files go. Always: nothing is visible before it is durable, but in partitions that ask for it
//! ([`Durability`]); a group is never half there after a crash; and the order of [`Log::submit`] is the order of everything.
//! A failed sync is final for the process. Called by `broker`, which gives the batches their offsets.

mod backup;
mod buffers;
mod cache;
mod checkpoint;
mod clean;
mod commit;
mod compact;
mod disk;
mod doctor;
mod entry;
mod guard;
mod index;
mod lookup;
mod materialise;
mod overlay;
mod partition;
mod rebuild;
mod recovery;
mod retention;
mod segment;
mod shared;
mod sim_disk;
mod store;
#[cfg(test)]
mod tests;
mod wal;

pub use backup::{BackedUp, backup, restore};
pub use compact::{Compacted, CompactionRules, LastOfProducer};
pub use disk::{Disk, DiskFile, RealDisk};
pub use doctor::{Examined, Finding, Remedy, examine, mend};
pub use guard::DiskState;
pub use partition::{Durability, Fetched, PartitionConfig, PartitionLog};
pub use retention::RetentionLimits;
pub use sim_disk::SimDisk;
pub use store::{Append, AppendGroup, Log, LogConfig, LogStats, Permit, Submitted};
#[cfg(test)]
pub(crate) use tests::Hands;

use crate::record::{BatchError, Offset, PartitionId, TopicId};

/// Which partition, by the identity of its topic: a topic made anew under an old name is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// The topic.
    pub topic: TopicId,
    /// The partition within it.
    pub partition: PartitionId,
}

/// Why the log did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Ask again from inside the range.
    #[error("offset {asked} is outside {start}..{end}")]
    OutOfRange {
        /// What was asked for.
        asked: Offset,
        /// The first offset there is.
        start: Offset,
        /// The first offset that is not yet there.
        end: Offset,
    },
    /// The disk is nearly full; writes are refused, reads go on. May be tried again.
    #[error("the disk has {free} bytes left and {needed} must stay free: delete records or topics, or give it more room")]
    DiskFull {
        /// How many bytes are free.
        free: u64,
        /// How many must stay free.
        needed: u64,
    },
    /// The disk may only be read; reads go on. May be tried again.
    #[error("the disk may only be read: see why the system made it so, and make it writable again")]
    ReadOnly,
    /// This process, or the machine, has as many files open as it may; what is open is served. May be tried again.
    #[error("no more files can be opened: raise the limit of open files (ulimit -n, LimitNOFILE), or have fewer connections")]
    TooManyFiles,
    /// A write or sync failed; what it covered may or may not be there. Nothing is acknowledged any more.
    #[error("the log has failed and takes no more writes: {0}")]
    Failed(String),
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
    /// The system said no to a read or a file operation.
    #[error("could not {what}: {why}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        why: String,
    },
    /// What was read is not what was written. Trying again cannot help.
    #[error("{place} is corrupt: {why}")]
    Corrupt {
        /// Which file, and where in it.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A batch does not follow the one before it: a mistake of the caller.
    #[error("a batch for offset {base} was appended where {expected} is next")]
    OutOfOrder {
        /// The batch's offset.
        base: Offset,
        /// What should come.
        expected: Offset,
    },
    /// The partition was removed.
    #[error("partition {} of topic {} was removed", .0.partition, .0.topic)]
    Removed(PartitionKey),
    /// A group is larger than an entry of the WAL can be.
    #[error("the group has {bytes} bytes and may have {most}")]
    TooLarge {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        most: usize,
    },
    /// The data directory was written by a version that is not this one.
    #[error(
        "the data directory has format {found}, and this version reads {known}; start the version that wrote it, or use another directory"
    )]
    Format {
        /// What the directory says.
        found: String,
        /// What we read.
        known: &'static str,
    },
}

impl LogError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::ReadOnly | Self::TooManyFiles)
    }

    /// Whether no later write can succeed.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Closed)
    }

    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, why: error.to_string() }
    }

    fn batch(place: String) -> impl FnOnce(BatchError) -> Self {
        move |error| Self::Corrupt { place, why: error.to_string() }
    }
}
