//! The tasks of an aggregate's first phase among themselves: how far each has come, and how far an idle one may follow.
//!
//! Each task writes how it stands ([`PartsSink`]): with the end up to which it has handed everything over to the partitions of the query's own
//! topic, and, where clocks matter, with that and whether it is idle to a topic that the others read ([`Peers`]). Always: what a task has
//! handed over it has said behind it, in the same commit or a later one; so the next phase waits for nobody's word but these. A task whose
//! partition is idle does not leave the minimum: it follows the active ones and closes for itself what they have closed, which is a decision in its
//! commit. What its partition brings for that afterwards is late here, where its rows are. An active task looks at nobody.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;
use serde::{Deserialize, Serialize};

use super::element::{FailedRow, Rows};
use super::operator::StreamError;
use super::sink::{Outputs, Sink, Standing};
use super::window::{TO, VALUE, WindowRule, mark};
use crate::bus::{Bus, BusError, Reader};
use crate::record::{Offset, PartitionId, TopicName, TopicPartition};
use crate::time::Timestamp;

/// The most that is read at once.
const READ_BYTES: usize = 1 << 20;

/// Where the tasks of a first phase tell each other how they stand.
#[derive(Clone, Debug)]
pub struct PeersSpec {
    /// The partition they write to and read.
    pub place: TopicPartition,
    /// Which of them this is.
    pub me: i32,
    /// How many there are.
    pub count: i32,
}

/// How a task stands, as it tells the others: in ends of windows, so that it need not be said with every row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// How far its own rows have come.
    own: i64,
    /// How far it has handed over.
    handed: i64,
    /// Whether its partition is idle.
    idle: bool,
}

/// Writes the parts that a task hands over, and how it stands.
pub struct PartsSink {
    topic: TopicName,
    partitions: i32,
    peers: Option<TopicPartition>,
    me: i32,
    rule: WindowRule,
    handed: i64,
    told: Option<Told>,
}

impl PartsSink {
    /// For the parts of upstream task `me`, which go to so many partitions of `topic`; its peers, where it has any to tell, read `peers`.
    #[must_use]
    pub const fn new(topic: TopicName, partitions: i32, me: i32, peers: Option<TopicPartition>, rule: WindowRule) -> Self {
        Self { topic, partitions, peers, me, rule, handed: i64::MIN, told: None }
    }

    fn place(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), PartitionId(partition))
    }
}

impl Sink for PartsSink {
    fn rows(&mut self, rows: &Rows, now: Timestamp, out: &mut Outputs) -> Result<Vec<FailedRow>, StreamError> {
        let misfit = || StreamError::Limit("what is handed over has a partition and bytes".to_owned());
        let to = rows.batch.columns().get(TO).and_then(|to| to.as_primitive_opt::<Int32Type>()).ok_or_else(misfit)?;
        let bytes = rows.batch.columns().get(VALUE).and_then(|bytes| bytes.as_binary_opt::<i32>()).ok_or_else(misfit)?;
        for row in 0..rows.len() {
            out.push(&self.place(to.value(row)), now.0, None, Some(bytes.value(row)), &[]);
        }
        Ok(Vec::new())
    }

    fn stands(&mut self, at: Standing, now: Timestamp, out: &mut Outputs) {
        let told = Told { own: self.rule.last_closed(at.own.0), handed: self.rule.last_closed(at.told.0), idle: at.is_idle };
        if told.handed > self.handed {
            self.handed = told.handed;
            let said = mark(self.me, told.handed);
            (0..self.partitions).for_each(|partition| out.push(&self.place(partition), now.0, None, Some(&said), &[]));
        }
        if let Some(peers) = self.peers.as_ref().filter(|_| self.told != Some(told)) {
            self.told = Some(told);
            let value = serde_json::to_vec(&told).expect("plain data");
            out.push(peers, now.0, Some(self.me.to_string().as_bytes()), Some(&value), &[]);
        }
    }
}

/// How the other tasks stand, as far as it was read.
pub(super) struct Peers {
    spec: PeersSpec,
    reader: Option<Box<dyn Reader>>,
    position: Offset,
    /// The last word of each, and where it stands.
    known: BTreeMap<i32, (Told, Offset)>,
    /// How far this one could have followed since its partition is idle, by what was read since.
    could: i64,
}

impl Peers {
    pub(super) const fn new(spec: PeersSpec) -> Self {
        Self { spec, reader: None, position: Offset::ZERO, known: BTreeMap::new(), could: i64::MIN }
    }

    /// The partition that they write to, and from where on it has not been read.
    pub(super) const fn place(&self) -> (&TopicPartition, Offset) {
        (&self.spec.place, self.position)
    }

    /// Reads what is there, and answers how far this task may follow if its partition, whose own rows have come to `own`, is idle. Where it
    /// has been idle since this was last asked, also how far it could have followed meanwhile.
    pub(super) async fn follow(&mut self, bus: &dyn Bus, own: Timestamp, was_idle: bool) -> Result<Timestamp, StreamError> {
        if !was_idle {
            self.could = i64::MIN;
        }
        let (mut reader, meanwhile) = match self.reader.take() {
            Some(reader) => (reader, was_idle),
            // What they said long ago says nothing of now before all of it is read.
            None => (open(bus, &self.spec.place).await?, false),
        };
        loop {
            let from = reader.position();
            let batches = match reader.poll(READ_BYTES).await {
                // What stood there has been said anew further behind.
                Err(BusError::OutOfRange { .. }) => {
                    reader = open(bus, &self.spec.place).await?;
                    continue;
                }
                batches => batches?,
            };
            if batches.is_empty() && reader.position() == from {
                break;
            }
            for batch in batches.iter().filter(|batch| !batch.header().is_control()) {
                let corrupt = |why: String| BusError::Corrupt(why);
                for record in batch.records().map_err(|e| corrupt(e.to_string()))?.iter() {
                    let record = record.map_err(|e| corrupt(e.to_string()))?;
                    if record.offset >= from {
                        self.note(record.key, record.value, record.offset);
                        self.could = self.could.max(if meanwhile { self.least(own.0) } else { i64::MIN });
                    }
                }
            }
        }
        self.position = reader.position();
        self.reader = Some(reader);
        Ok(Timestamp(self.could.max(self.least(own.0))))
    }

    /// Whether it is this task that lets go of what nobody needs.
    pub(super) const fn tidies(&self) -> bool {
        self.spec.me == 0
    }

    /// The first record that somebody may need: before it each has said something newer.
    pub(super) fn needed(&self) -> Option<Offset> {
        let all = (0..self.spec.count).map(|task| self.known.get(&task).map(|(_, at)| *at));
        all.collect::<Option<Vec<Offset>>>()?.into_iter().min()
    }

    /// The latest end, no later than `now`, that the rows of another one have come to.
    pub(super) fn latest(&self, now: Timestamp) -> Option<Timestamp> {
        let others = self.known.iter().filter(|(task, _)| **task != self.spec.me).map(|(_, (told, _))| told.own);
        others.filter(|end| *end > i64::MIN && *end <= now.0).max().map(Timestamp)
    }

    fn note(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, at: Offset) {
        let task = key.and_then(|key| std::str::from_utf8(key).ok()).and_then(|key| key.parse().ok());
        let told = value.and_then(|value| serde_json::from_slice(value).ok());
        if let (Some(task), Some(told)) = (task, told) {
            self.known.insert(task, (told, at));
        }
    }

    /// The minimum over the active ones; where none is, over all whose rows have begun, as for one task that merges them. One that has not been
    /// heard of counts as active.
    fn least(&self, own: i64) -> i64 {
        let others = || (0..self.spec.count).filter(|task| *task != self.spec.me).map(|task| self.known.get(&task).map(|(told, _)| told));
        if others().any(|told| told.is_none()) {
            return i64::MIN;
        }
        let active = others().flatten().filter(|told| !told.idle).map(|told| told.own).min();
        active.unwrap_or_else(|| {
            let begun = others().flatten().map(|told| told.handed).chain([own]).filter(|at| *at > i64::MIN);
            begun.min().unwrap_or(i64::MIN)
        })
    }
}

/// A reader from the first record that is there.
async fn open(bus: &dyn Bus, place: &TopicPartition) -> Result<Box<dyn Reader>, StreamError> {
    loop {
        let from = bus.bounds(place).await?.start;
        match bus.open(place, from).await {
            // Let go of between the two: there is a later beginning.
            Err(BusError::OutOfRange { .. }) => {}
            opened => return Ok(opened?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TopicName;

    fn peers(told: &[(i32, i64, i64, bool)], count: i32) -> Peers {
        let place = TopicPartition::new(TopicName::new("m").unwrap(), PartitionId(0));
        let mut peers = Peers::new(PeersSpec { place, me: 0, count });
        for (task, own, handed, idle) in told {
            peers.known.insert(*task, (Told { own: *own, handed: *handed, idle: *idle }, Offset(10 + i64::from(*task))));
        }
        peers
    }

    #[test]
    fn an_idle_task_follows_the_least_of_the_active_ones_and_waits_for_who_has_not_been_heard_of() {
        let none = i64::MIN;
        for (told, count, least) in [
            (vec![(1, 100, 100, false), (2, 80, 80, false)], 3, 80),
            (vec![(1, 100, 100, false), (2, 40, 90, true)], 3, 100),
            (vec![(1, 100, 100, false)], 3, none),
            (vec![(1, none, none, false), (2, 80, 80, false)], 3, none),
            // All are idle: how far they have come together.
            (vec![(1, 100, 100, true), (2, 40, 90, true)], 3, 60),
            (vec![(1, 50, 50, true), (2, none, none, true)], 3, 50),
            (Vec::new(), 1, 60),
        ] {
            assert_eq!(peers(&told, count).least(60), least, "{told:?} of {count}");
        }
        assert_eq!(peers(&[(1, none, none, true)], 2).least(none), none);
        let others = peers(&[(0, 70, 70, false), (1, 50, 50, true), (2, 90, 90, false), (3, none, none, false)], 4);
        let latest = [40, 50, 89, 90, 200].map(|now| others.latest(Timestamp(now)).map(|at| at.0));
        assert_eq!(latest, [None, Some(50), Some(50), Some(90), Some(90)], "its own word is no other's");
        assert_eq!((others.needed(), peers(&[(1, 5, 5, false)], 2).needed()), (Some(Offset(10)), None));
    }
}
