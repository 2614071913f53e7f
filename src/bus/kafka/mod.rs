//! Apache Kafka behind the seam: [`KafkaBus`], through librdkafka.
//!
//! # How a commit is a transaction
//!
//! A [`Commit`] (outputs, and in the task's checkpoint partition its positions, what the clock decided, parts of its state) goes
//! out in **one Kafka transaction**: readers at `read_committed` see all of it or nothing. Positions lie in the commit record,
//! so nothing is sent to a consumer group (`sendOffsetsToTransaction`), and a restart knows its place by reading its own
//! checkpoint partition back.
//!
//! A transaction costs the cluster some ten appends whatever is in it, so tasks share them: there are lanes, each a transactional
//! producer on a thread of its own (`lane`), and what the tasks of a lane hand over while a transaction is on its way
//! rides on the next one together, as appends share a sync in the embedded log. A task's lane is its index modulo `lane::MOST`, for good:
//! the tasks over partition 3 of whatever share one, so that a process decodes what it reads once.
//!
//! What a task may repeat (delivery at least once) is not kept for its transaction: it goes out at once through a producer without
//! one (`ahead`), and the next commit of the task waits until the brokers have it.
//!
//! # Several processes, and who is fenced how
//!
//! - *Who runs what*: the lanes are the partitions of topic `<application id>.lanes`, which a consumer group shares out among the
//!   processes (`group`); there are as many as the widest query has tasks. A task's place is its lane's.
//! - *An older holder of a lane*, in whatever process, dead, slow or woken after others have taken its work over: the lane's
//!   transactional id is `<application id>-<lane>`, and nobody counts as its holder before it has taken that over (`InitProducerId` raises
//!   the producer's epoch, ends what the older holder had begun, and waits until the markers of its last transaction are written).
//!   Whatever the older one still sends is refused by the brokers. So where the group's opinion lags, tasks may begin late, and never
//!   write twice. A process that hears so leaves the lane alone until its session would have ended: by then it knows from the group.
//! - *After any such doubt* (also where a transaction's outcome is not known) nobody holds the lane's tasks any more: each is restored
//!   from its checkpoint, for another process may have taken it further.
//! - *A process of the same name* (`kafka.process`, by default kept in the data directory): each says in topic `<application id>.processes`
//!   that it has started, before it joins (`namesake`); the older one gives up for good ([`Bus::failed`]). That the group fences a static member
//!   says nothing: where brokers fail it does so to a process that is alone, which looks there, and joins again.
//! - *An older committer of a task in this process*: each task has a holder number, checked by its lane; what the older one handed
//!   over before is written first.
//! - *Reads after a take-over*: the answer to `EndTxn` comes before the markers reach the partitions. So
//!   [`Bus::committer`] completes only when the last commit of the older holder can be read.
//! - *The catalogue* is written under the id `<application id>-catalog`, which whoever changes it takes over first: between that and
//!   its write nobody else can have written ([`Company::catalogue`]). Topic `<application id>.processes` says by which catalogue each
//!   lane's holder acts (`roster`), so that what is dropped is deleted once nobody runs it any more.
//! - *Appends* outside of any task go out under `<application id>-<process>`.
//!
//! # What happens on an error
//!
//! | class (librdkafka) | what is done | what the task hears |
//! |---|---|---|
//! | retriable (no broker, time-out, not leader) | asked again, for `lane::PATIENCE` | nothing, if it ends well |
//! | abortable (a record too large, no such topic, no right to write) | aborted; where commits rode together each is tried again alone, so that only the faulty one fails | the reason; it is restarted from its checkpoint |
//! | outcome not known in time | the producer is dropped; the next one of the same transactional id ends the transaction, one way or the other | `Retriable`: it restarts and reads from its checkpoint what became of it |
//! | fenced: another process has taken the lane over, or the coordinator gave up on a transaction while this process stood still | the lane's tasks end; it is taken over again after a session's time if the group still gives it to this process | `Fenced`: it waits for its turn |
//! | fatal otherwise (no right to the transactional id) | a new producer | the reason |
//!
//! # Topics
//!
//! Names stay as they are, but for the engine's own books (`__catalog`, `__checkpoint.*`, ..): these get the application id in front
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

mod ahead;
mod cluster;
mod ends;
mod error;
mod group;
mod lane;
mod namesake;
pub mod properties;
mod reader;
mod roster;
mod sending;
mod settings;
mod shares;
#[cfg(test)]
pub(super) mod tests;
mod transaction;

pub use ends::bounds_of;
pub use settings::{COMMON_PROPERTIES, KafkaTerms, is_property, is_secret, refused_property};

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use self::ahead::{Ahead, OnTheWay};
use self::cluster::Cluster;
use self::group::Group;
use self::lane::{Lane, Lanes, MOST, Which};
use self::reader::Readers;
use self::roster::Roster;
use self::sending::Parcel;
use self::shares::Shares;
use super::{
    Bus, BusError, BusFuture, Commit, Committer, Company, CompanyFuture, FailedFuture, Reader, Shift, TaskId, TopicBatch, TopicSpec,
    Whereabouts, checkpoint_topic,
};
use crate::record::{Offset, PartitionId, TopicName, TopicPartition};

/// How long whoever wants to write for a task waits until its lane is held.
const LANE_PATIENCE: Duration = Duration::from_secs(60);

/// Who holds each task: the number of its committer.
type Holders = Arc<Mutex<BTreeMap<TaskId, u64>>>;

/// The bus over an Apache Kafka cluster.
pub struct KafkaBus {
    cluster: Arc<Cluster>,
    readers: Arc<Readers>,
    lanes: Arc<Lanes>,
    ahead: Arc<Ahead>,
    shares: Arc<Shares>,
    group: Group,
    roster: Roster,
    /// The topic whose partitions are the lanes, and how many it has.
    lane_topic: TopicName,
    width: AtomicI32,
    /// Where steps from outside go.
    steps: TopicName,
    holders: Holders,
    superseded: watch::Receiver<Option<String>>,
}

impl KafkaBus {
    /// Connects, and joins the processes that run under this application id. What is this process's to run is told by its [`Company`].
    pub async fn open(terms: KafkaTerms) -> Result<Self, BusError> {
        terms.check()?;
        let terms = Arc::new(terms);
        let readers = Arc::new(Readers::new(&terms)?);
        let cluster = Arc::new(Cluster::connect(Arc::clone(&terms), Arc::clone(&readers)).await?);
        let own = |part: &str| {
            let name = format!("{}.{part}", terms.application_id);
            TopicName::new(&name).map_err(|e| BusError::Invalid(format!("topic {name}: {e}")))
        };
        let (lane_topic, steps) = (own("lanes")?, own("steps")?);
        let spec = TopicSpec { partitions: terms.lanes.clamp(1, MOST), configs: BTreeMap::new() };
        let width = cluster.ensure(&lane_topic, &spec).await?;
        let (supersede, superseded) = watch::channel(None);
        let (supersede, shares) = (Arc::new(supersede), Arc::new(Shares::default()));
        let lanes = Arc::new(Lanes::new(Arc::clone(&terms), Arc::clone(&shares), supersede));
        lanes.take_own()?;
        let roster = Roster::open(&cluster, &readers, &lanes).await?;
        let group = Group::join(&cluster, &lane_topic, width, &lanes, roster.namesakes())?;
        let width = AtomicI32::new(width);
        let ahead = Arc::new(Ahead::new(terms));
        Ok(Self {
            cluster,
            readers,
            lanes,
            ahead,
            shares,
            group,
            roster,
            lane_topic,
            width,
            steps,
            holders: Holders::default(),
            superseded,
        })
    }

    /// Sees that there are so many lanes.
    async fn widen(&self, tasks: i32) -> Result<(), BusError> {
        let wanted = tasks.min(MOST);
        if self.width.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        let there = self.cluster.partitions(&self.lane_topic).await?.unwrap_or(0);
        if there < wanted {
            self.cluster.widen(&self.lane_topic, wanted).await?;
        }
        self.width.fetch_max(wanted.max(there), Ordering::AcqRel);
        Ok(())
    }

    /// The next number of a task's holder, in this process.
    fn number(&self, task: &TaskId) -> u64 {
        let mut holders = self.holders.lock();
        let current = holders.entry(task.clone()).or_default();
        *current += 1;
        *current
    }

    fn committer_of(&self, lane: Lane, task: TaskId, number: u64, checkpoint: TopicPartition) -> KafkaCommitter {
        KafkaCommitter {
            lane,
            cluster: Arc::clone(&self.cluster),
            ahead: Arc::clone(&self.ahead),
            way: Arc::default(),
            shares: Arc::clone(&self.shares),
            holders: Arc::clone(&self.holders),
            task,
            number,
            topic: self.cluster.name(&checkpoint.topic),
            checkpoint,
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
                return Err(BusError::Retriable(format!("{of} ends at offset {from}, and it said {end}")));
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
}

/// Outputs as the cluster knows their topics.
fn parcels(cluster: &Cluster, outputs: Vec<TopicBatch>) -> Vec<Parcel> {
    let full = outputs.into_iter().filter(|one| !one.records.is_empty());
    full.map(|one| Parcel { topic: cluster.name(&one.to.topic), to: one.to, batch: one.records.finish() }).collect()
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
            self.forget(topic);
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
            self.widen(task.index.saturating_add(1)).await?;
            let number = Which::of_task(task.index);
            let held = tokio::time::timeout(LANE_PATIENCE, self.shares.shift(number)).await;
            // Held while it is claimed; whoever runs the task has a shift of its own.
            let _shift = held.map_err(|_| BusError::Retriable(format!("task {task} is another process's to run")))?;
            let checkpoint = self.checkpoint(task).await?;
            let (lane, number) = (self.lanes.get(Which::Shared(number))?, self.number(task));
            // Behind what the older holder handed over, and not before that can be read.
            lane.claim(task, number).await?;
            let end = self.lanes.checkpoints.lock().get(&checkpoint).copied();
            if let Some(end) = end {
                self.cluster.visible(&checkpoint, end).await?;
            }
            Ok(Box::new(self.committer_of(lane, task.clone(), number, checkpoint)) as Box<dyn Committer>)
        })
    }

    fn append<'a>(&'a self, outputs: Vec<TopicBatch>) -> BusFuture<'a, ()> {
        Box::pin(async move {
            let parcels = parcels(&self.cluster, outputs);
            if parcels.is_empty() {
                return Ok(());
            }
            // A transaction of its own, all or none; then until whoever reads next sees it.
            let ends = self.lanes.get(Which::Own)?.append(parcels).await?;
            for (of, end) in ends {
                self.cluster.visible(&of, end).await?;
            }
            Ok(())
        })
    }

    fn trim<'a>(&'a self, of: &'a TopicPartition, before: Offset) -> BusFuture<'a, ()> {
        Box::pin(self.cluster.trim(of, before))
    }

    /// Does nothing: Kafka's retention waits for nobody.
    fn pin(&self, _task: &TaskId, _of: &TopicPartition, _from: Option<Offset>) {}

    fn company(&self) -> Option<&dyn Company> {
        Some(self)
    }

    fn trouble(&self) -> Option<String> {
        self.superseded.borrow().clone().or_else(|| self.shares.trouble()).or_else(|| self.readers.trouble())
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

impl Company for KafkaBus {
    fn shift<'a>(&'a self, task: &'a TaskId) -> CompanyFuture<'a, Shift> {
        Box::pin(self.shares.shift(Which::of_task(task.index)))
    }

    fn make_room(&self, tasks: i32) -> BusFuture<'_, ()> {
        Box::pin(self.widen(tasks))
    }

    fn whereabouts(&self, task: &TaskId) -> Whereabouts {
        self.roster.whereabouts(Which::of_task(task.index))
    }

    fn catalogue(&self) -> BusFuture<'_, Box<dyn Committer>> {
        Box::pin(async move {
            let task = TaskId { owner: "catalog".into(), index: 0 };
            let (lane, number) = (self.lanes.get(Which::Catalogue)?, self.number(&task));
            lane.claim(&task, number).await?;
            // It writes no checkpoint.
            let checkpoint = TopicPartition::new(checkpoint_topic(&task.owner), PartitionId(0));
            Ok(Box::new(self.committer_of(lane, task, number, checkpoint)) as Box<dyn Committer>)
        })
    }

    fn has_followed(&self, upto: Offset) {
        self.roster.has_followed(upto);
    }

    fn all_followed(&self, upto: Offset, patience: Duration) -> BusFuture<'_, ()> {
        Box::pin(async move {
            let width = self.cluster.partitions(&self.lane_topic).await?.unwrap_or(0);
            self.roster.all_followed(width, upto, patience).await
        })
    }

    fn forget(&self, topic: &TopicName) {
        // What comes under the same name later has offsets of its own.
        self.lanes.checkpoints.lock().retain(|of, _| of.topic != *topic);
    }

    fn steps(&self) -> &TopicName {
        &self.steps
    }

    fn leave(&self) -> CompanyFuture<'_, ()> {
        Box::pin(self.group.leave())
    }

    fn abandon(&self) {
        self.group.abandon();
    }
}

/// The writing side of one task.
struct KafkaCommitter {
    lane: Lane,
    cluster: Arc<Cluster>,
    ahead: Arc<Ahead>,
    /// What has gone ahead since the last commit.
    way: Arc<OnTheWay>,
    shares: Arc<Shares>,
    holders: Holders,
    task: TaskId,
    number: u64,
    checkpoint: TopicPartition,
    /// The checkpoint's topic as the cluster knows it.
    topic: String,
}

impl Committer for KafkaCommitter {
    /// Sent at once, outside of any transaction. A process that does not know yet that it has lost the lane may so write what the next
    /// holder writes too: no more than what comes until its next commit, which is refused.
    fn hand_over<'a>(&'a mut self, outputs: Vec<TopicBatch>) -> BusFuture<'a, ()> {
        Box::pin(async move {
            let is_holder = self.holders.lock().get(&self.task) == Some(&self.number);
            if !is_holder || !self.shares.holds(Which::of_task(self.task.index)) {
                return Err(BusError::Fenced(self.task.clone()));
            }
            self.ahead.hand_over(parcels(&self.cluster, outputs), &self.way).await
        })
    }

    fn commit<'a>(&'a mut self, commit: Commit) -> BusFuture<'a, Option<Offset>> {
        Box::pin(async move {
            self.way.settled().await?;
            let outputs = parcels(&self.cluster, commit.outputs);
            let checkpoint = commit.checkpoint.filter(|records| !records.is_empty());
            let checkpoint =
                checkpoint.map(|records| Parcel { topic: self.topic.clone(), to: self.checkpoint.clone(), batch: records.finish() });
            self.lane.commit(&self.task, self.number, outputs, checkpoint).await
        })
    }
}
