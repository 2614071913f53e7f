//! What a savepoint keeps of a task, and how a task begins from one.
//!
//! A savepoint lies in a topic of its own, one partition a task, each of which holds what a checkpoint holds behind its last
//! snapshot: the whole state at one commit, with the positions, watermarks and milestones that belong to it, and nothing behind it. It is
//! made of the task's checkpoint without the task's help, wherever that runs and whether it runs or not: the newest snapshot is read,
//! and the commits behind it are repeated as a restart would. Always: what is kept of a task is its state at one of its commits. A
//! task that begins from a savepoint says so in every snapshot from the first one on, by the mark of the statement that told it to:
//! before that snapshot is whole a restart begins from the savepoint once more, behind it never again. Called by `sql`'s engine.

use std::sync::Arc;

use super::handover::stood;
use super::{Task, TaskSpec, checkpoint_place};
use crate::bus::{Bus, BusError, TaskId, TopicBatch, checkpoint_topic};
use crate::record::{BatchBuilder, PartitionId, TopicName, TopicPartition};
use crate::stream::chain::Chain;
use crate::stream::checkpoint::{self, KeyAndValue, Manifest, PART_BYTES, Restored};
use crate::stream::element::{FailedRow, Rows};
use crate::stream::inputs::{partition_of, source_of};
use crate::stream::operator::{StateReader, StateWriter, StreamError};
use crate::stream::sink::{Outputs, Sink};
use crate::stream::snapshot::SnapshotRecords;
use crate::stream::spill::SpillSpace;
use crate::stream::stats::TaskStats;
use crate::time::{Clock, Timestamp};

/// The savepoint that a query's tasks begin from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// What people call it.
    pub name: String,
    /// Whose checkpoint its topic is.
    pub owner: String,
    /// How many tasks it holds.
    pub tasks: i32,
    /// Whether the task of a number goes on with the task of that number; else each begins where all of them stood together.
    pub is_cut_alike: bool,
    /// Tells this beginning from every other one.
    pub mark: String,
}

impl Origin {
    /// What a task begins from; nothing for one whose partition has come since.
    pub(super) async fn read(&self, bus: &dyn Bus, task: &TaskId, space: Option<&SpillSpace>) -> Result<Restored, StreamError> {
        let gone = |error: StreamError| match error {
            StreamError::Bus(BusError::NoSuchTopic(_) | BusError::NoSuchPartition(_)) => {
                let why = format!("savepoint \"{}\", which it begins from, is gone", self.name);
                StreamError::Restore { operator: task.to_string(), why }
            }
            error => error,
        };
        if !self.is_cut_alike {
            let stood = stood(bus, &self.owner, self.tasks).await.map_err(gone)?;
            return Ok(Restored { snapshot: stood.map(|manifest| (manifest, StateReader::default())), commits: Vec::new() });
        }
        if task.index >= self.tasks {
            return Ok(Restored::default());
        }
        let place = TopicPartition::new(checkpoint_topic(&self.owner), PartitionId(task.index));
        let restored = checkpoint::read(bus, &place, space).await.map_err(gone)?;
        if restored.snapshot.is_none() {
            let why = format!("savepoint \"{}\", which it begins from, does not hold it", self.name);
            return Err(StreamError::Restore { operator: task.to_string(), why });
        }
        Ok(restored)
    }
}

/// Where a task stood in one of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedInput {
    /// The topic.
    pub topic: String,
    /// The partition of it.
    pub partition: i32,
    /// The next offset it had to read.
    pub position: i64,
    /// Its watermark, in milliseconds.
    pub watermark: i64,
}

/// The state of one task at one of its commits.
#[derive(Debug)]
pub struct Saved {
    /// Tells the state of its plan from another's.
    pub fingerprint: String,
    /// Where it stood.
    pub inputs: Vec<SavedInput>,
    /// How many bytes its records have.
    pub bytes: u64,
    records: Vec<KeyAndValue>,
}

impl Saved {
    /// Writes it to an empty place, durable when this returns.
    pub async fn write(self, bus: &dyn Bus, to: &TopicPartition, now: i64) -> Result<(), BusError> {
        let mut batch = BatchBuilder::new();
        for (key, value) in self.records {
            // A part must not push a batch over the limit of a record batch.
            if !batch.is_empty() && batch.size() + value.len() > PART_BYTES + 64 * 1024 {
                bus.append(vec![TopicBatch { to: to.clone(), records: std::mem::take(&mut batch) }]).await?;
            }
            batch.push(now, Some(key), Some(&value), &[]);
        }
        bus.append(vec![TopicBatch { to: to.clone(), records: batch }]).await
    }
}

/// The state of a task at its last commit; nothing is written, and whoever runs the task does not notice. An error that is the log's
/// may come of a snapshot that was taken meanwhile: whoever asks again gets that one.
pub async fn save(spec: TaskSpec, chain: Chain, bus: Arc<dyn Bus>, clock: Clock) -> Result<Saved, StreamError> {
    let mut restored = checkpoint::read(bus.as_ref(), &checkpoint_place(&spec.id), spec.budget.space()).await?;
    let Some((manifest, _)) = &restored.snapshot else {
        return Err(StreamError::Limit(format!("task {} has not begun yet", spec.id)));
    };
    let topics: Vec<TopicName> = spec.sources.iter().map(|source| source.letters.source.clone()).collect();
    if manifest.fingerprint != spec.fingerprint || !manifest.reads(&topics) {
        return Err(StreamError::Limit(format!("task {} still has the state of the plan before", spec.id)));
    }
    if let Some(origin) = spec.origin.as_ref().filter(|origin| !restored.has_begun_from(&origin.mark)) {
        return Err(StreamError::Limit(format!("task {} has not begun from savepoint \"{}\" yet", spec.id, origin.name)));
    }
    if restored.commits.is_empty() {
        let (manifest, state) = restored.snapshot.take().expect("it was found just now");
        return saved(manifest, StateWriter { parts: state.parts }, &topics);
    }
    let mut task = Task::new(spec, chain, Box::new(Nowhere), bus, clock, Arc::new(TaskStats::default()), None);
    task.stand_at(&mut restored).await?;
    let state = task.state()?;
    saved(task.manifest(), state, &topics)
}

fn saved(manifest: Manifest, state: StateWriter, topics: &[TopicName]) -> Result<Saved, StreamError> {
    // A checkpoint that is older than that does not say its topics: they are what the query reads.
    let topics = topics.iter().map(ToString::to_string).collect();
    let manifest = Manifest { origin: None, topics, ..manifest };
    let inputs = manifest.partitions.iter().map(|(number, mark)| {
        let number = PartitionId(*number);
        let topic = manifest.topics.get(source_of(number)).cloned().unwrap_or_default();
        SavedInput { topic, partition: partition_of(number).0, position: mark.position, watermark: mark.watermark }
    });
    let (inputs, fingerprint) = (inputs.collect(), manifest.fingerprint.clone());
    let records = SnapshotRecords::new(manifest, state).collect::<Result<Vec<_>, _>>()?;
    let bytes = records.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
    Ok(Saved { fingerprint, inputs, bytes, records })
}

/// Whether a task has begun from the savepoint that goes by this mark.
pub async fn has_begun(bus: &dyn Bus, task: &TaskId, mark: &str) -> Result<bool, StreamError> {
    Ok(checkpoint::read(bus, &checkpoint_place(task), None).await?.has_begun_from(mark))
}

/// Where results go that have been written before.
struct Nowhere;

impl Sink for Nowhere {
    fn rows(&mut self, _: &Rows, _: Timestamp, _: &mut Outputs) -> Result<Vec<FailedRow>, StreamError> {
        Ok(Vec::new())
    }
}
