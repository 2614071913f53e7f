//! The one seam between the engine and a log: [`Bus`].
//!
//! The engine reads committed records through a [`Reader`] and writes through a [`Committer`], whose
//! every commit (outputs, positions, state) is all or nothing; outputs that may be repeated can be handed over ahead of it. `embedded` is the node's own broker, `kafka` an Apache
//! Kafka cluster. Nothing above this room knows which log it runs on; what both keep is in `contract`.

mod company;
#[cfg(test)]
mod contract;
mod embedded;
pub mod kafka;

pub use company::{Company, CompanyFuture, Shift, Whereabouts, attend, shift};
pub use embedded::EmbeddedBus;
pub use kafka::{KafkaBus, KafkaTerms};

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use crate::record::{Batch, BatchBuilder, Offset, PartitionId, TopicName, TopicPartition};

/// A boxed future, which keeps the traits of this room usable as `dyn`.
pub type BusFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BusError>> + Send + 'a>>;
/// Completes with the reason when a log has failed for good.
pub type FailedFuture<'a> = Pin<Box<dyn Future<Output = String> + Send + 'a>>;

/// What a log can answer that is not data. The variants say what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no such topic, or no such partition in it.
    #[error("there is no partition {0}")]
    NoSuchPartition(TopicPartition),
    /// There is no such topic.
    #[error("there is no topic \"{0}\"")]
    NoSuchTopic(TopicName),
    /// The wanted records are gone or not yet there.
    #[error("offset {asked} of {partition} is outside {}..{}", range.start, range.end)]
    OutOfRange {
        /// Whose records were asked for.
        partition: TopicPartition,
        /// From where.
        asked: Offset,
        /// What is there.
        range: Range<Offset>,
    },
    /// Another holder has taken over this task; this one must stop.
    #[error("task {0} is fenced: another holder has taken it over")]
    Fenced(TaskId),
    /// The log cannot take the write now, though it may later (a full disk, a quota).
    #[error("the log cannot take the write now: {0}")]
    Retriable(String),
    /// The log is closing or has failed; the task must stop.
    #[error("the log is closed: {0}")]
    Closed(String),
    /// The request was wrong in itself (a name, a config).
    #[error("{0}")]
    Invalid(String),
    /// What is stored cannot be read back.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
}

/// Names one task: a query (or view, alert, intake) and which of its tasks. Also names the place of its
/// checkpoint: partition `index` of topic `__checkpoint.<owner>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// What the task belongs to, as `query.spo2_1m`, `alert.spo2_low`, `intake.vitals`.
    pub owner: Arc<str>,
    /// Which task of it: the input partition it reads, or 0 where one task reads all.
    pub index: i32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.index)
    }
}

/// What a topic that the engine makes should look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicSpec {
    /// How many partitions.
    pub partitions: i32,
    /// Kafka topic configs, as `retention.ms`.
    pub configs: BTreeMap<String, String>,
}

/// The log under the engine.
pub trait Bus: Send + Sync {
    /// How many partitions a topic has; `None` where there is no such topic.
    fn partitions<'a>(&'a self, topic: &'a TopicName) -> BusFuture<'a, Option<i32>>;
    /// Makes the topic where it does not exist; where it does, leaves it as it is. Answers its partition count.
    fn ensure_topic<'a>(&'a self, topic: &'a TopicName, spec: &'a TopicSpec) -> BusFuture<'a, i32>;
    /// Removes a topic and what it holds; no error where it does not exist.
    fn delete_topic<'a>(&'a self, topic: &'a TopicName) -> BusFuture<'a, ()>;
    /// The first offset that is there and the first that is not yet there (committed data only).
    fn bounds<'a>(&'a self, of: &'a TopicPartition) -> BusFuture<'a, Range<Offset>>;
    /// The first offset whose record timestamp (milliseconds) is at or after `at`; `None` where there is none.
    fn offset_at<'a>(&'a self, of: &'a TopicPartition, at: i64) -> BusFuture<'a, Option<Offset>>;
    /// Opens a partition for reading from `from` on. Committed data only.
    fn open<'a>(&'a self, of: &'a TopicPartition, from: Offset) -> BusFuture<'a, Box<dyn Reader>>;
    /// Completes once committed data at or after `from` is there; on a log outside the process also now and then without any, so
    /// that the caller looks again. Cancel-safe, and free of timers.
    fn wait<'a>(&'a self, of: &'a TopicPartition, from: Offset) -> BusFuture<'a, ()>;
    /// Takes over the writing side of a task and fences any older holder of it. When it completes, everything that the older
    /// holder has committed can be read.
    fn committer<'a>(&'a self, task: &'a TaskId) -> BusFuture<'a, Box<dyn Committer>>;
    /// Appends records outside any task, all or none, durable and readable when this returns (INSERT INTO .. VALUES, the catalogue).
    fn append<'a>(&'a self, outputs: Vec<TopicBatch>) -> BusFuture<'a, ()>;
    /// Lets records below `before` go; where the log cannot do so just now, they stay until it is asked the next time. Used for topics
    /// of the engine's own (checkpoints).
    fn trim<'a>(&'a self, of: &'a TopicPartition, before: Offset) -> BusFuture<'a, ()>;
    /// While a running task may still need records from `from` on, retention leaves them, where it listens to us (Kafka's does
    /// not). `None` lets go.
    fn pin(&self, task: &TaskId, of: &TopicPartition, from: Option<Offset>);
    /// The processes that share the log and the work over it; none where a process has it to itself.
    fn company(&self) -> Option<&dyn Company> {
        None
    }
    /// Why the log cannot be used just now, where that is known; it may end by itself.
    fn trouble(&self) -> Option<String> {
        None
    }
    /// Completes with the reason when nothing will ever be written through this bus again.
    fn failed(&self) -> FailedFuture<'_> {
        Box::pin(std::future::pending())
    }
}

/// Reads one partition forward.
pub trait Reader: Send {
    /// The whole batches that are there now from the position on, up to about `max_bytes` (at least one
    /// batch where there is one), and moves past them. Empty where the end is reached: never before everything that was
    /// there when the reader was opened has been read. The first batch may
    /// begin before the position: records below [`Reader::position`]-at-call are the caller's to skip.
    fn poll<'a>(&'a mut self, max_bytes: usize) -> BusFuture<'a, Vec<Batch>>;
    /// The offset the next poll begins at.
    fn position(&self) -> Offset;
}

/// Records for one partition of one topic.
#[derive(Debug)]
pub struct TopicBatch {
    /// Where to.
    pub to: TopicPartition,
    /// What. At most `max.message.bytes` of the topic, which the caller's cutting into batches respects.
    pub records: BatchBuilder,
}

/// One commit of a task: all of it becomes durable and visible together, or none.
#[derive(Debug, Default)]
pub struct Commit {
    /// Result rows, dead letters, late rows, alerts.
    pub outputs: Vec<TopicBatch>,
    /// Records for the task's own checkpoint partition: positions, clock decisions, state.
    pub checkpoint: Option<BatchBuilder>,
}

/// The writing side of one task.
pub trait Committer: Send {
    /// Writes outputs ahead of the commit that carries the positions they came from: readers see them as soon as the log
    /// has them, and this returns before that. Always: they stand in the order in which they were handed over, before the outputs of
    /// the next commit, and once that is durable they are. After a crash before it they may be there, and are made again. After an
    /// error the committer is of no use.
    fn hand_over<'a>(&'a mut self, outputs: Vec<TopicBatch>) -> BusFuture<'a, ()>;
    /// Writes one commit, durable when this returns; readers see it then or (where markers follow a transaction) a moment later.
    /// Returns the offset of the commit's first checkpoint record, if it had any. After an error the committer is of
    /// no use: what became of the commit is read from the checkpoint, by whoever takes the task over.
    fn commit<'a>(&'a mut self, commit: Commit) -> BusFuture<'a, Option<Offset>>;
}

/// The topic that holds the checkpoints of an owner's tasks.
#[must_use]
pub fn checkpoint_topic(owner: &str) -> TopicName {
    TopicName::new(&format!("__checkpoint.{owner}")).expect("owners are made of checked names")
}

/// Which partition of `count` a key belongs to: Kafka's murmur2, as the Java client places it.
#[must_use]
pub fn partition_for_key(key: &[u8], count: i32) -> PartitionId {
    PartitionId((murmur2(key) & 0x7fff_ffff) as i32 % count.max(1))
}

/// The 32-bit murmur2 that Kafka's clients use for placing keys.
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if rest.len() == 3 {
        hash ^= u32::from(rest[2]) << 16;
    }
    if rest.len() >= 2 {
        hash ^= u32::from(rest[1]) << 8;
    }
    if let Some(first) = rest.first() {
        hash ^= u32::from(*first);
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `org.apache.kafka.common.utils.Utils.murmur2`, from Kafka's own unit test.
    #[test]
    fn murmur2_is_kafkas() {
        assert_eq!(murmur2(b"21") as i32, -973_932_308);
        assert_eq!(murmur2(b"foobar") as i32, -790_332_482);
        assert_eq!(murmur2(b"a-little-bit-long-string") as i32, -985_981_536);
        assert_eq!(murmur2(b"a-little-bit-longer-string") as i32, -1_486_304_829);
        assert_eq!(murmur2(b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8") as i32, -58_897_971);
        assert_eq!(murmur2(b"abc") as i32, 479_470_107);
    }
}
