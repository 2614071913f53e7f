//! What a task's checkpoint partition holds, and how it is read back.
//!
//! Three kinds of record, told apart by their key: a *commit* (epoch, positions, what the clock decided),
//! a *part* of a snapshot (at most [`PART_BYTES`] of the state), and a snapshot's *manifest*, which alone
//! makes its parts valid. Always: a task's state is the newest snapshot with a manifest, and then every
//! commit behind it, replayed. A snapshot without its manifest (a crash between them) counts for nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::inputs::renumbered;
use super::operator::{StateReader, StreamError};
use super::snapshot::Gathered;
use super::source::AheadRows;
use super::spill::SpillSpace;
use crate::bus::{Bus, BusError};
use crate::record::{BatchBuilder, Offset, TopicName, TopicPartition};

/// The largest part of a snapshot.
pub const PART_BYTES: usize = 512 * 1024;

const KEY_COMMIT: &[u8] = b"commit";
pub(super) const KEY_PART: &[u8] = b"part";
pub(super) const KEY_MANIFEST: &[u8] = b"manifest";

/// One thing the clock, or a person, decided. Written into the commit where it fell, so that a restart
/// repeats it instead of asking the clock again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Decision {
    /// The input leaves the minimum.
    Idle {
        /// Which, by the input's number.
        partition: i32,
    },
    /// The input's watermark moves to `to` although it brought no row.
    Timeout {
        /// Which, by the input's number.
        partition: i32,
        /// Where to, in milliseconds.
        to: i64,
    },
    /// The input is idle, and what its peers have closed is closed for it too. Its own watermark stays.
    Follow {
        /// Up to where, in milliseconds.
        to: i64,
    },
    /// Something from outside that steps an operator: an acknowledgement.
    External {
        /// What it is, in the operator's own terms.
        body: String,
        /// When, by the node's clock.
        at: i64,
    },
}

/// One commit of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// Counts up by one a commit.
    pub epoch: u64,
    /// The next offset to read, by the input's number (see `inputs`).
    pub positions: BTreeMap<i32, i64>,
    /// Decided before the commit's rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
    /// Rows of this commit that were ahead of the clock and what the clock said, by input.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ahead: BTreeMap<i32, Vec<(i64, i64)>>,
    /// Rows of this commit that were far ahead of the clock, by input.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub far: BTreeMap<i32, Vec<i64>>,
    /// Whether it told what had changed of results that are kept up to date, behind its rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
}

impl CommitRecord {
    /// Whether the clock, or a person, has had a say in it.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        !(self.decisions.is_empty() && self.ahead.is_empty() && self.far.is_empty())
    }

    /// Notes the clock's word on an input's rows.
    pub fn note_ahead(&mut self, input: i32, rows: &AheadRows) {
        if !rows.ahead.is_empty() {
            self.ahead.entry(input).or_default().extend(rows.ahead.iter().map(|(offset, clock)| (*offset, *clock)));
        }
        if !rows.far.is_empty() {
            self.far.entry(input).or_default().extend(&rows.far);
        }
    }

    /// Numbers its inputs by where their sources stand now.
    pub fn move_to(&mut self, places: &[Option<usize>]) {
        self.positions = moved(std::mem::take(&mut self.positions), places);
        self.ahead = moved(std::mem::take(&mut self.ahead), places);
        self.far = moved(std::mem::take(&mut self.far), places);
        self.decisions.retain_mut(|decision| match decision {
            Decision::Idle { partition } | Decision::Timeout { partition, .. } => renumbered(*partition, places).is_some_and(|number| {
                *partition = number;
                true
            }),
            Decision::Follow { .. } | Decision::External { .. } => true,
        });
    }

    /// The clock's word on an input's rows, as it was noted.
    #[must_use]
    pub fn ahead_of(&self, input: i32) -> AheadRows {
        AheadRows {
            ahead: self.ahead.get(&input).into_iter().flatten().copied().collect(),
            far: self.far.get(&input).into_iter().flatten().copied().collect(),
        }
    }
}

/// How one partition stood when a snapshot was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionMark {
    /// The next offset to read.
    pub position: i64,
    /// Its watermark in milliseconds.
    pub watermark: i64,
    /// Whether it had left the minimum.
    pub idle: bool,
    /// Where the query began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<i64>,
    /// Where it stood before.
    #[serde(default)]
    pub milestones: Milestones,
}

/// Some offsets of a partition, and its watermark before each: by them the records are found that a time needs. Always in
/// order, the watermarks at least [`MILESTONE_MS`] apart, and no more than [`MILESTONES`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestones(Vec<(i64, i64)>);

/// How much event time lies between two milestones at least.
const MILESTONE_MS: i64 = 60_000;
/// How many there are at most; of more the older ones become fewer.
const MILESTONES: usize = 128;

impl Milestones {
    /// The partition stands at an offset with a watermark.
    pub fn note(&mut self, position: i64, watermark: i64) {
        let last = self.0.last().map_or(i64::MIN, |(_, at)| *at);
        if watermark == i64::MIN || watermark.saturating_sub(last) < MILESTONE_MS {
            return;
        }
        self.0.push((position, watermark));
        if self.0.len() > MILESTONES {
            let mut place = 0;
            self.0.retain(|_| {
                place += 1;
                place > MILESTONES / 2 || place % 2 == 1
            });
        }
    }

    /// The last one whose watermark is at most `at`: offset and watermark.
    #[must_use]
    pub fn before(&self, at: i64) -> Option<(i64, i64)> {
        self.0.iter().rev().find(|(_, watermark)| *watermark <= at).copied()
    }

    /// The first one behind an offset: offset and watermark.
    #[must_use]
    pub fn behind(&self, position: i64) -> Option<(i64, i64)> {
        self.0.iter().find(|(at, _)| *at > position).copied()
    }
}

/// What makes a snapshot valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The epoch the snapshot stands for: commits up to it are in it.
    pub epoch: u64,
    /// Tells one plan's state from another's.
    pub fingerprint: String,
    /// Each input, by its number.
    pub partitions: BTreeMap<i32, PartitionMark>,
    /// The topic of each source, in order.
    #[serde(default)]
    pub topics: Vec<String>,
    /// The merged watermark, in milliseconds.
    pub merged: i64,
    /// The savepoint that the task has begun from, in the words of who let it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// How many parts.
    pub parts: usize,
    /// The state's checksum, over all parts in order.
    pub crc: u32,
}

impl Manifest {
    /// Whether its sources are these topics, or it does not say.
    #[must_use]
    pub fn reads(&self, topics: &[TopicName]) -> bool {
        self.topics.is_empty() || self.topics.iter().map(String::as_str).eq(topics.iter().map(AsRef::as_ref))
    }

    /// Where each of its sources stands among those of another plan: the first that reads a topic is the first that reads it
    /// there, and so on. `None` where they are the same.
    #[must_use]
    pub fn moved(&self, topics: &[TopicName]) -> Option<Vec<Option<usize>>> {
        if self.reads(topics) {
            return None;
        }
        let mut taken = vec![false; topics.len()];
        let place = |topic: &String| {
            let free = (0..topics.len()).find(|at| !taken[*at] && topics[*at].as_ref() == topic.as_str())?;
            taken[free] = true;
            Some(free)
        };
        Some(self.topics.iter().map(place).collect())
    }

    /// Numbers its inputs by where their sources stand now; those of sources that are no longer read are gone.
    pub fn move_to(&mut self, places: &[Option<usize>]) {
        self.partitions = moved(std::mem::take(&mut self.partitions), places);
    }
}

/// Values by an input's number, under the number that its source gives it now.
pub(super) fn moved<V>(of: BTreeMap<i32, V>, places: &[Option<usize>]) -> BTreeMap<i32, V> {
    of.into_iter().filter_map(|(number, value)| Some((renumbered(number, places)?, value))).collect()
}

/// What a task resumes from.
#[derive(Debug, Default)]
pub struct Restored {
    /// The newest valid snapshot.
    pub snapshot: Option<(Manifest, StateReader)>,
    /// The commits behind it, in order.
    pub commits: Vec<CommitRecord>,
}

impl Restored {
    /// Where the task stood, in a form that is no plan's: with it the state is made again.
    #[must_use]
    pub fn stood(self) -> Option<Manifest> {
        let epoch = self.epoch();
        let (mut manifest, _) = self.snapshot?;
        for commit in &self.commits {
            for (number, position) in &commit.positions {
                let mark = manifest.partitions.entry(*number).or_default();
                // It has moved since the snapshot, and how far its time has is in its rows.
                *mark = PartitionMark { position: *position, watermark: i64::MIN, idle: false, ..mark.clone() };
            }
        }
        Some(Manifest { epoch, fingerprint: String::new(), merged: i64::MIN, ..manifest })
    }

    /// Whether the task has begun from the savepoint that goes by this mark.
    #[must_use]
    pub fn has_begun_from(&self, mark: &str) -> bool {
        self.snapshot.as_ref().is_some_and(|(manifest, _)| manifest.origin.as_deref() == Some(mark))
    }

    /// The epoch of the last commit.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        let snapshot = self.snapshot.as_ref().map_or(0, |(manifest, _)| manifest.epoch);
        self.commits.last().map_or(snapshot, |commit| commit.epoch)
    }
}

/// Writes a commit record.
pub fn put_commit(into: &mut BatchBuilder, at: i64, commit: &CommitRecord) {
    let value = serde_json::to_vec(commit).expect("a commit record is plain data");
    into.push(at, Some(KEY_COMMIT), Some(&value), &[]);
}

/// A checkpoint record on its way out.
pub type KeyAndValue = (&'static [u8], Vec<u8>);

/// How often what is read may be let go of meanwhile: a task that runs does so with each snapshot.
const MOST_AGAIN: usize = 20;

/// Reads a task's checkpoint partition from its start, also while the task runs. Parts of the state that lay on the disk are put into
/// `space` again.
pub async fn read(bus: &dyn Bus, of: &TopicPartition, space: Option<&SpillSpace>) -> Result<Restored, StreamError> {
    let mut again = 0;
    loop {
        match read_once(bus, of, space).await {
            // Let go of since its beginning was asked for: there is a later one.
            Err(StreamError::Bus(BusError::OutOfRange { .. })) if again < MOST_AGAIN => again += 1,
            done => return done,
        }
    }
}

async fn read_once(bus: &dyn Bus, of: &TopicPartition, space: Option<&SpillSpace>) -> Result<Restored, StreamError> {
    let bounds = bus.bounds(of).await?;
    let mut restored = Restored::default();
    let mut parts = Gathered::default();
    let mut reader = bus.open(of, bounds.start).await?;
    while reader.position() < bounds.end {
        let from = reader.position();
        let batches = reader.poll(8 << 20).await?;
        if batches.is_empty() && reader.position() == from {
            return Err(BusError::Retriable(format!("{of} ends at offset {from}, and it said {}", bounds.end)).into());
        }
        for batch in batches {
            let records = batch.records().map_err(|e| corrupt(&e.to_string()))?;
            for record in records.iter() {
                let record = record.map_err(|e| corrupt(&e.to_string()))?;
                if record.offset < from {
                    continue;
                }
                let value = record.value.unwrap_or_default();
                match record.key {
                    Some(KEY_COMMIT) => restored.commits.push(serde_json::from_slice(value).map_err(|e| corrupt(&e.to_string()))?),
                    Some(KEY_PART) => parts.push(value, space),
                    Some(KEY_MANIFEST) => take_snapshot(&mut restored, value, &mut parts, space)?,
                    _ => {}
                }
            }
        }
    }
    if bounds.start > Offset::ZERO && restored.snapshot.is_none() && restored.commits.is_empty() {
        // It is let go of up to its last snapshot and no further. To begin anew would be to write everything a second time.
        return Err(BusError::Retriable(format!("{of} holds no snapshot from offset {} on, where its last one began", bounds.start)).into());
    }
    Ok(restored)
}

/// A manifest makes the parts just before it valid; parts of a snapshot that was cut short lie before those.
fn take_snapshot(restored: &mut Restored, value: &[u8], parts: &mut Gathered, space: Option<&SpillSpace>) -> Result<(), StreamError> {
    let manifest: Manifest = serde_json::from_slice(value).map_err(|e| corrupt(&e.to_string()))?;
    if parts.len() < manifest.parts {
        // Its parts were trimmed away or cut short: the one before it, with the commits since, still stands.
        parts.clear();
        return Ok(());
    }
    let state = parts.take(manifest.parts, manifest.crc, space)?;
    restored.commits.retain(|commit| commit.epoch > manifest.epoch);
    restored.snapshot = Some((manifest, state));
    Ok(())
}

pub(super) fn corrupt(why: &str) -> StreamError {
    StreamError::Bus(BusError::Corrupt(format!("checkpoint: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::TestDisk;
    use crate::bus::{EmbeddedBus, TopicBatch, TopicSpec};
    use crate::record::PartitionId;

    #[tokio::test]
    async fn a_checkpoint_that_has_lost_its_snapshot_is_an_error_and_no_beginning() {
        let bus = EmbeddedBus::new(TestDisk::default().broker().await);
        let place = TopicPartition::new(TopicName::new("__checkpoint.query.q").unwrap(), PartitionId(0));
        bus.ensure_topic(&place.topic, &TopicSpec { partitions: 1, ..TopicSpec::default() }).await.unwrap();
        assert_eq!(read(&bus, &place, None).await.unwrap().epoch(), 0);
        let mut records = BatchBuilder::new();
        put_commit(&mut records, 0, &CommitRecord { epoch: 7, ..CommitRecord::default() });
        bus.append(vec![TopicBatch { to: place.clone(), records }]).await.unwrap();
        assert_eq!(read(&bus, &place, None).await.unwrap().epoch(), 7);
        let end = bus.bounds(&place).await.unwrap().end;
        bus.trim(&place, end).await.unwrap();
        let error = read(&bus, &place, None).await.map(drop).unwrap_err().to_string();
        assert!(error.contains("__checkpoint.query.q") && error.contains("holds no snapshot from offset 1 on"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_checkpoint_is_read_while_its_task_writes_it_and_lets_go_of_what_it_replaces() {
        let bus = std::sync::Arc::new(EmbeddedBus::new(TestDisk::default().broker().await));
        let place = TopicPartition::new(TopicName::new("__checkpoint.query.q").unwrap(), PartitionId(0));
        bus.ensure_topic(&place.topic, &TopicSpec { partitions: 1, ..TopicSpec::default() }).await.unwrap();
        let writer = tokio::spawn({
            let (bus, place) = (std::sync::Arc::clone(&bus), place.clone());
            async move {
                for epoch in 1..=300 {
                    let mut records = BatchBuilder::new();
                    put_commit(&mut records, 0, &CommitRecord { epoch, ..CommitRecord::default() });
                    bus.append(vec![TopicBatch { to: place.clone(), records }]).await.unwrap();
                    bus.trim(&place, Offset(epoch as i64 - 1)).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut last = 0;
        while last < 300 {
            let epoch = read(bus.as_ref(), &place, None).await.unwrap().epoch();
            assert!(epoch >= last, "{epoch} after {last}");
            last = epoch;
        }
        writer.await.unwrap();
    }

    #[test]
    fn milestones_are_few_however_long_it_runs_and_the_last_ones_lie_close() {
        let mut milestones = Milestones::default();
        milestones.note(0, i64::MIN);
        assert_eq!(milestones.before(i64::MAX), None);
        for step in 0..100_000 {
            milestones.note(step, step * 60_000);
        }
        assert!(milestones.0.len() <= MILESTONES && milestones.0.is_sorted());
        let now = 99_999 * 60_000;
        let (position, watermark) = milestones.before(now - 3_600_000).unwrap();
        assert_eq!(position * 60_000, watermark);
        assert!(now - 3_600_000 - watermark < 2 * MILESTONE_MS, "{watermark}");
        assert_eq!(milestones.before(-1), None);
        let (behind, watermark) = milestones.behind(position).unwrap();
        assert!(
            behind > position && watermark == behind * 60_000 && milestones.before(watermark - 1) == Some((position, position * 60_000))
        );
        assert_eq!(milestones.behind(i64::MAX), None);
    }

    #[test]
    fn inputs_are_found_again_by_their_topics_where_the_sources_stand_elsewhere() {
        let topics = |names: &[&str]| names.iter().map(|name| TopicName::new(name).unwrap()).collect::<Vec<_>>();
        let mark = |position| PartitionMark { position, ..PartitionMark::default() };
        let second = 1 << 20;
        let mut manifest = Manifest {
            epoch: 3,
            fingerprint: String::new(),
            partitions: BTreeMap::from([(0, mark(10)), (1, mark(11)), (second, mark(20)), (2 * second + 1, mark(31))]),
            topics: vec!["a".to_owned(), "b".to_owned(), "a".to_owned()],
            merged: 0,
            origin: None,
            parts: 0,
            crc: 0,
        };
        assert_eq!(manifest.moved(&topics(&["a", "b", "a"])), None);
        let places = manifest.moved(&topics(&["c", "a", "a"])).unwrap();
        assert_eq!(places, [Some(1), None, Some(2)]);
        let mut commit = CommitRecord {
            positions: BTreeMap::from([(0, 12), (second, 21)]),
            decisions: vec![Decision::Idle { partition: 1 }, Decision::Timeout { partition: second, to: 5 }],
            ..CommitRecord::default()
        };
        commit.move_to(&places);
        manifest.move_to(&places);
        let positions: Vec<(i32, i64)> = manifest.partitions.iter().map(|(number, mark)| (*number, mark.position)).collect();
        assert_eq!(positions, [(second, 10), (second + 1, 11), (2 * second + 1, 31)]);
        assert_eq!(commit.positions, BTreeMap::from([(second, 12)]));
        assert_eq!(commit.decisions, [Decision::Idle { partition: second + 1 }]);
    }
}
