//! Apache Kafka behind the seam: [`KafkaBus`], through librdkafka.
//!
//! # How a commit is a transaction
//!
//! A [`Commit`] (outputs, and in the task's checkpoint partition its positions, what the clock decided, parts of its state) goes
//! out in **one Kafka transaction**: readers at `read_committed` see all of it or nothing. Positions lie in the commit record,
//! so nothing is sent to a consumer group (`sendOffsetsToTransaction`), and a restart knows its place by reading its own
//! checkpoint partition back.
//!
//! A transaction costs the cluster some ten appends whatever is in it, so tasks share them: there are `LANES` transactional
//! producers, each on a thread of its own (`lane`), and what the tasks of a lane hand over while a transaction is on its way
//! rides on the next one together, as appends share a sync in the embedded log. A task keeps its lane, which follows from its name.
//!
//! # Who is fenced, and how
//!
//! - *An older process with the same application id*: the lanes' transactional ids are `<application id>-<lane>`, their number
//!   never changes, and opening the bus takes all of them over before anything is read (`InitProducerId` raises the producer's
//!   epoch, ends what the older process had begun, and waits until the markers of its last transaction are written). Whatever the
//!   older process still sends is refused by the brokers; it looks at topic `<application id>.claims`, finds that the last to
//!   open was another, and gives up for good ([`Bus::failed`]) instead of taking the lanes back.
//! - *An older committer of a task in this process*: each task has a holder number, checked by its lane; what the older one handed
//!   over before is written first.
//! - *Reads after a take-over*: the answer to `EndTxn` comes before the markers reach the partitions. So
//!   [`Bus::committer`] completes only when the last commit of the older holder can be read.
//!
//! # What happens on an error
//!
//! | class (librdkafka) | what is done | what the task hears |
//! |---|---|---|
//! | retriable (no broker, time-out, not leader) | asked again, for `lane::PATIENCE` | nothing, if it ends well |
//! | abortable (a record too large, no such topic, no right to write) | aborted; where commits rode together each is tried again alone, so that only the faulty one fails | the reason; it is restarted from its checkpoint |
//! | outcome not known in time | the producer is dropped; the next one of the same transactional id ends the transaction, one way or the other | `Retriable`: it restarts and reads from its checkpoint what became of it |
//! | fatal, and the last claim is ours (the coordinator gave up on a transaction while this process stood still) | a new producer | `Retriable`, as above |
//! | fatal, and the last claim is another's | nothing is written any more | `Closed`, and the node stops |
//! | fatal otherwise (no right to the transactional id) | a new producer at the next commit | the reason |
//!
//! # Topics
//!
//! Names stay as they are, but for the engine's own books (`__catalog`, `__checkpoint.*`): these get the application id in front
//! (`<application id>.catalog`), so that two applications share a cluster. What is made has the cluster's own replication factor
//! unless the settings say another. Kafka counts retention from records' timestamps: a topic made here that keeps its records for a while
//! has `LogAppendTime`, so that a replayed recording is not deleted at once; one that keeps them for good takes times ahead of the
//! broker's clock (`message.timestamp.after.max.ms`). Topics that others made are left as they are. Retention does not wait for us: a pin
//! does nothing here, and a query whose input is gone when it comes back is FAILED and says so.
//!
//! # Reading
//!
//! Consumers without a group (partitions are assigned, never subscribed to; the group id is only a name that librdkafka wants):
//! one holds each partition at most once, further readers of it get the next. A partition has a queue of its own, drained
//! without waiting into one record batch: one copy a record, out of librdkafka's memory, which cannot be lent out for longer than
//! the consumer lives. Until what was there at the opening is read, a poll waits for it; later, "the end" is what has
//! arrived. While no broker answers ([`Bus::trouble`]) nobody takes the silence for an end: the clock decides nothing then. A batch that
//! fails its checksum, or that librdkafka cannot unpack, ends the reading instead of being passed over.
//!
//! # Several processes (not yet)
//!
//! The seam is ready for them: a task's name says its partition, [`Bus::committer`] is where a task is taken over, and all that a
//! lane needs beyond is the metadata of the consumer group, handed to `send_offsets_to_transaction` in each
//! transaction so that the group's generation fences (KIP-447). Lanes are then named after the process, no longer after the
//! application alone; a task's take-over waits for the stable end of its checkpoint, as it does now.

mod cluster;
mod error;
mod lane;
pub mod properties;
mod reader;
mod settings;
#[cfg(test)]
pub(super) mod tests;
mod transaction;

pub use settings::{COMMON_PROPERTIES, KafkaTerms, is_property, is_secret, refused_property};

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use self::cluster::Cluster;
use self::lane::{Checkpoints, Lane};
use self::reader::Readers;
use self::transaction::Parcel;
use super::{Bus, BusError, BusFuture, Commit, Committer, FailedFuture, Reader, TaskId, TopicBatch, TopicSpec, checkpoint_topic, murmur2};
use crate::record::{Offset, PartitionId, TopicName, TopicPartition};

/// How many transactional producers an application has. Part of how an older process is fenced: it never changes.
const LANES: usize = 4;
/// How long a take-over waits until what was committed can be read.
const VISIBLE_PATIENCE: Duration = Duration::from_secs(60);

/// The bus over an Apache Kafka cluster.
pub struct KafkaBus {
    cluster: Arc<Cluster>,
    readers: Arc<Readers>,
    lanes: Vec<Lane>,
    /// Who holds each task: the number of its committer.
    holders: Mutex<BTreeMap<TaskId, u64>>,
    /// How far each checkpoint must be readable before its task is handed on.
    checkpoints: Checkpoints,
    superseded: watch::Receiver<Option<String>>,
}

impl KafkaBus {
    /// Connects, takes over from whoever ran under this application id, and answers when that one can write nothing any more.
    pub async fn open(terms: KafkaTerms) -> Result<Self, BusError> {
        terms.check()?;
        let terms = Arc::new(terms);
        let readers = Arc::new(Readers::new(&terms)?);
        let cluster = Arc::new(Cluster::connect(Arc::clone(&terms), Arc::clone(&readers)).await?);
        let (supersede, superseded) = watch::channel(None);
        let (supersede, claim) = (Arc::new(supersede), Arc::new(cluster.claim().await?));
        let checkpoints = Checkpoints::default();
        let mut lanes = Vec::with_capacity(LANES);
        for number in 0..LANES {
            let (terms, claim, supersede) = (Arc::clone(&terms), Arc::clone(&claim), Arc::clone(&supersede));
            lanes.push(Lane::start(number, terms, claim, supersede, Arc::clone(&checkpoints))?);
        }
        // All of them, before anything is read: what the older process had begun is ended, one way or the other.
        futures::future::try_join_all(lanes.iter().map(Lane::ready)).await?;
        Ok(Self { cluster, readers, lanes, holders: Mutex::default(), checkpoints, superseded })
    }

    /// The lane that a task's commits take: always the same.
    fn lane(&self, task: &str) -> &Lane {
        &self.lanes[murmur2(task.as_bytes()) as usize % LANES]
    }

    /// Waits until everything below `end` can be read.
    async fn visible(&self, of: &TopicPartition, end: Offset) -> Result<(), BusError> {
        let begun = Instant::now();
        let mut wait = Duration::from_millis(1);
        loop {
            let there = self.cluster.bounds(of).await?.end;
            if there >= end {
                return Ok(());
            }
            if begun.elapsed() > VISIBLE_PATIENCE {
                let why = format!("what was committed to {of} below offset {end} cannot be read yet: a transaction before it is open");
                return Err(BusError::Retriable(why));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(100));
        }
    }

    /// Makes the topic of a task's checkpoint where it is not there, wide enough for the task.
    async fn checkpoint(&self, task: &TaskId) -> Result<TopicPartition, BusError> {
        let topic = checkpoint_topic(&task.owner);
        let count = task.index.checked_add(1).filter(|n| *n > 0).ok_or_else(|| BusError::Invalid(format!("task {task} has no place")))?;
        let configs = [("retention.ms", "-1"), ("segment.bytes", "16777216")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        if self.cluster.ensure(&topic, &TopicSpec { partitions: count, configs: configs.into() }).await? < count {
            self.cluster.widen(&topic, count).await?;
        }
        Ok(TopicPartition::new(topic, PartitionId(task.index)))
    }

    /// The first record at or behind `at`. Kafka's own answer may be a transaction's marker, whose time is the broker's clock.
    async fn time_at(&self, of: &TopicPartition, at: i64) -> Result<Option<Offset>, BusError> {
        let Some(first) = self.cluster.offset_at(of, at).await? else { return Ok(None) };
        let end = self.cluster.bounds(of).await?.end;
        let mut reader = self.readers.open_unseen(&self.cluster, of, first).await?;
        while reader.position() < end {
            let from = reader.position();
            let batches = reader.poll(1 << 20).await?;
            if batches.is_empty() && reader.position() == from {
                break;
            }
            for batch in batches {
                let records = batch.records().map_err(|e| BusError::Corrupt(e.to_string()))?;
                if let Some(found) = records.iter().map_while(Result::ok).find(|record| record.timestamp >= at) {
                    return Ok(Some(found.offset));
                }
            }
        }
        Ok(None)
    }

    fn parcels(&self, outputs: Vec<TopicBatch>) -> Vec<Parcel> {
        let full = outputs.into_iter().filter(|one| !one.records.is_empty());
        full.map(|one| Parcel { topic: self.cluster.name(&one.to.topic), to: one.to, batch: one.records.finish() }).collect()
    }
}

impl Bus for KafkaBus {
    fn partitions<'a>(&'a self, topic: &'a TopicName) -> BusFuture<'a, Option<i32>> {
        Box::pin(self.cluster.partitions(topic))
    }

    fn ensure_topic<'a>(&'a self, topic: &'a TopicName, spec: &'a TopicSpec) -> BusFuture<'a, i32> {
        Box::pin(self.cluster.ensure(topic, spec))
    }

    fn delete_topic<'a>(&'a self, topic: &'a TopicName) -> BusFuture<'a, ()> {
        Box::pin(async move {
            self.cluster.delete(topic).await?;
            // What comes under the same name later has offsets of its own.
            self.checkpoints.lock().retain(|of, _| of.topic != *topic);
            Ok(())
        })
    }

    fn bounds<'a>(&'a self, of: &'a TopicPartition) -> BusFuture<'a, Range<Offset>> {
        Box::pin(self.cluster.bounds(of))
    }

    fn offset_at<'a>(&'a self, of: &'a TopicPartition, at: i64) -> BusFuture<'a, Option<Offset>> {
        Box::pin(self.time_at(of, at))
    }

    fn open<'a>(&'a self, of: &'a TopicPartition, from: Offset) -> BusFuture<'a, Box<dyn Reader>> {
        Box::pin(async move { Ok(Box::new(self.readers.open(&self.cluster, of, from).await?) as Box<dyn Reader>) })
    }

    fn wait<'a>(&'a self, of: &'a TopicPartition, from: Offset) -> BusFuture<'a, ()> {
        Box::pin(self.readers.wait(&self.cluster, of, from))
    }

    fn committer<'a>(&'a self, task: &'a TaskId) -> BusFuture<'a, Box<dyn Committer>> {
        Box::pin(async move {
            let checkpoint = self.checkpoint(task).await?;
            let number = {
                let mut holders = self.holders.lock();
                let current = holders.entry(task.clone()).or_default();
                *current += 1;
                *current
            };
            let lane = self.lane(&task.to_string());
            // Behind what the older holder handed over, and not before that can be read.
            lane.claim(task, number).await?;
            let end = self.checkpoints.lock().get(&checkpoint).copied();
            if let Some(end) = end {
                self.visible(&checkpoint, end).await?;
            }
            let topic = self.cluster.name(&checkpoint.topic);
            let committer =
                KafkaCommitter { lane: lane.clone(), cluster: Arc::clone(&self.cluster), task: task.clone(), number, checkpoint, topic };
            Ok(Box::new(committer) as Box<dyn Committer>)
        })
    }

    fn append<'a>(&'a self, outputs: Vec<TopicBatch>) -> BusFuture<'a, ()> {
        Box::pin(async move {
            let parcels = self.parcels(outputs);
            let Some(first) = parcels.first() else { return Ok(()) };
            // A transaction of its own, so that an older process cannot write either; then until whoever reads next sees it.
            let lane = self.lane(&first.topic);
            let ends = lane.append(parcels).await?;
            for (of, end) in ends {
                self.visible(&of, end).await?;
            }
            Ok(())
        })
    }

    fn trim<'a>(&'a self, of: &'a TopicPartition, before: Offset) -> BusFuture<'a, ()> {
        Box::pin(self.cluster.trim(of, before))
    }

    /// Does nothing: Kafka's retention waits for nobody.
    fn pin(&self, _task: &TaskId, _of: &TopicPartition, _from: Option<Offset>) {}

    fn trouble(&self) -> Option<String> {
        self.superseded.borrow().clone().or_else(|| self.readers.trouble())
    }

    fn failed(&self) -> FailedFuture<'_> {
        let mut superseded = self.superseded.clone();
        Box::pin(async move {
            let reason = superseded.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
            match reason {
                Some(reason) => reason,
                // The lanes are gone, and with them whoever could tell.
                None => std::future::pending().await,
            }
        })
    }
}

/// The writing side of one task.
struct KafkaCommitter {
    lane: Lane,
    cluster: Arc<Cluster>,
    task: TaskId,
    number: u64,
    checkpoint: TopicPartition,
    /// The checkpoint's topic as the cluster knows it.
    topic: String,
}

impl Committer for KafkaCommitter {
    fn commit<'a>(&'a mut self, commit: Commit) -> BusFuture<'a, Option<Offset>> {
        Box::pin(async move {
            let full = commit.outputs.into_iter().filter(|one| !one.records.is_empty());
            let outputs = full.map(|one| Parcel { topic: self.cluster.name(&one.to.topic), to: one.to, batch: one.records.finish() });
            let checkpoint = commit.checkpoint.filter(|records| !records.is_empty());
            let checkpoint =
                checkpoint.map(|records| Parcel { topic: self.topic.clone(), to: self.checkpoint.clone(), batch: records.finish() });
            self.lane.commit(&self.task, self.number, outputs.collect(), checkpoint).await
        })
    }
}
