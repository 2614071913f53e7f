//! What one partition remembers of its idempotent and transactional producers: [`Producers`].
//!
//! Pure: batches and times come in, verdicts come out. Always: per producer the last five batches, in order,
//! of one epoch, and where its open transaction begins; what `judge` accepts and `advance` takes is what the
//! log holds, in its order. A repeated batch is found among the five and answered with the offset it got the
//! first time. A marker ends the transaction of its producer and brings its epoch. The rules are Kafka's
//! (`ProducerAppendInfo`, `ProducerStateEntry`), but for one: a batch of an aborted transaction is never taken for
//! one that is repeated. Called by `Partition` under its lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::verification::{Asked, Verifications};
use crate::log::LastOfProducer;
use crate::record::{Batch, BatchHeader, ControlMarker, Offset};
use crate::time::Timestamp;
use crate::wire::error_code;

/// Batches remembered per producer: as many as a client may have in flight.
const REMEMBERED: usize = 5;

/// Stands for the first sequence number of an aborted batch. A client that had no answer when it aborted may give the same
/// numbers to the next transaction's records; taken for repeated they would be acknowledged and not be there (Kafka
/// does so). Out of order the client notices, and begins a new epoch.
const ABORTED: i32 = -1;

/// What is to be done with a producer's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Append it.
    Append,
    /// It is in the log already: from the first offset to the last.
    Duplicate {
        /// The offset it got the first time.
        base: Offset,
        /// Its last offset.
        last: Offset,
    },
    /// Kafka's error.
    Refuse(i16),
}

/// One batch that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// [`ABORTED`] where its transaction was: no batch repeats it any more.
    first_sequence: i32,
    last_sequence: i32,
    base: Offset,
    last: Offset,
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    seen: VecDeque<Seen>,
    last_write: Timestamp,
    /// The greatest timestamp of its last batch or marker, by the batch.
    last_timestamp: i64,
    /// Where its open transaction begins.
    open: Option<Offset>,
    /// Of its last marker, or -1.
    coordinator_epoch: i32,
}

impl Producer {
    fn new(epoch: i16, now: Timestamp) -> Self {
        Self { epoch, seen: VecDeque::new(), last_write: now, last_timestamp: -1, open: None, coordinator_epoch: -1 }
    }
}

/// What a batch of markers says: how its producer's transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMarker {
    /// Whether the records count.
    pub committed: bool,
    /// The epoch of the coordinator that wrote it.
    pub coordinator_epoch: i32,
}

impl EndMarker {
    /// Reads a batch's marker. `None` where it holds none, or one of another kind.
    #[must_use]
    pub fn of(batch: &Batch) -> Option<Self> {
        if !batch.header().is_control() || !batch.header().has_producer() {
            return None;
        }
        let records = batch.records().ok()?;
        let record = records.iter().next()?.ok()?;
        let committed = match ControlMarker::read(record.key)? {
            ControlMarker::Commit => true,
            ControlMarker::Abort => false,
            ControlMarker::Other(_) => return None,
        };
        let epoch = record.value.and_then(|value| value.get(2..)).and_then(|rest| rest.first_chunk::<4>());
        Some(Self { committed, coordinator_epoch: epoch.map_or(0, |epoch| i32::from_be_bytes(*epoch)) })
    }
}

/// What a batch did to its producer's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    None,
    /// It is the transaction's first in the partition.
    Began(Offset),
    /// It is a marker, at `last`, and the transaction began at `first`.
    Ended {
        /// Whose.
        producer_id: i64,
        /// Its first record.
        first: Offset,
        /// The marker.
        last: Offset,
        /// Whether the records count.
        committed: bool,
    },
}

/// One producer, for whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescribedProducer {
    /// Who.
    pub producer_id: i64,
    /// In which life.
    pub epoch: i16,
    /// The sequence number of its last record, or -1.
    pub last_sequence: i32,
    /// The time of its last batch, or -1.
    pub last_timestamp: i64,
    /// The epoch of whoever wrote its last marker, or -1.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins.
    pub open: Option<Offset>,
}

/// The idempotent producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: BTreeMap<i64, Producer>,
    /// Transactions that are to begin here.
    asked: Verifications,
}

/// The sequence number `delta` records after `first`. After the greatest comes 0.
#[must_use]
pub const fn sequence_after(first: i32, delta: i32) -> i32 {
    ((first as i64 + delta as i64) % (i32::MAX as i64 + 1)) as i32
}

impl Producers {
    /// A batch asks to be in its producer's transaction here: where that is not open yet, it would be the first.
    pub fn ask(&mut self, asked: Asked, now: Timestamp) {
        let is_open = |producer: &Producer| producer.open.is_some() && producer.epoch == asked.epoch;
        if !self.by_id.get(&asked.producer_id).is_some_and(is_open) {
            self.asked.note(asked, now);
        }
    }

    /// Whether the batch may be appended. Changes nothing. That a transaction may write here is its
    /// coordinator's to say.
    #[must_use]
    pub fn judge(&self, batch: &BatchHeader) -> Verdict {
        let known = self.by_id.get(&batch.producer_id);
        let leaves_out = !batch.is_control() && self.asked.leaves_out(batch, known.is_some());
        // A producer we do not know may else begin anywhere: its history may have expired.
        let Some(producer) = known else {
            return if leaves_out { Verdict::Refuse(error_code::OUT_OF_ORDER_SEQUENCE_NUMBER) } else { Verdict::Append };
        };
        if batch.producer_epoch < producer.epoch {
            return Verdict::Refuse(error_code::INVALID_PRODUCER_EPOCH);
        }
        if batch.is_control() {
            return Verdict::Append;
        }
        if batch.producer_epoch > producer.epoch {
            return match batch.base_sequence {
                0 if !leaves_out => producer.in_its_transaction(batch),
                _ => Verdict::Refuse(error_code::OUT_OF_ORDER_SEQUENCE_NUMBER),
            };
        }
        let last_sequence = sequence_after(batch.base_sequence, batch.last_offset_delta);
        let same = |seen: &&Seen| seen.first_sequence == batch.base_sequence && seen.last_sequence == last_sequence;
        if let Some(seen) = producer.seen.iter().find(same) {
            return Verdict::Duplicate { base: seen.base, last: seen.last };
        }
        // Whom only a marker made known has written nothing in this epoch.
        let expected = producer.seen.back().map_or(0, |seen| sequence_after(seen.last_sequence, 1));
        if leaves_out || expected != batch.base_sequence {
            return Verdict::Refuse(error_code::OUT_OF_ORDER_SEQUENCE_NUMBER);
        }
        producer.in_its_transaction(batch)
    }

    /// Whether the batch would be the first of its producer's transaction here.
    #[must_use]
    pub fn begins(&self, batch: &BatchHeader) -> bool {
        is_data_of_a_transaction(batch) && self.open(batch.producer_id).is_none()
    }

    /// Where a producer's open transaction begins.
    #[must_use]
    pub fn open(&self, producer_id: i64) -> Option<Offset> {
        self.by_id.get(&producer_id)?.open
    }

    /// Where each open transaction begins.
    pub fn all_open(&self) -> impl Iterator<Item = Offset> {
        self.by_id.values().filter_map(|producer| producer.open)
    }

    /// Takes over a batch that is in the log from `base` on, with what its marker says where it is one.
    pub fn advance(&mut self, batch: &BatchHeader, marker: Option<EndMarker>, base: Offset, now: Timestamp) -> Step {
        if !batch.has_producer() || (batch.base_sequence < 0 && marker.is_none()) {
            return Step::None;
        }
        self.asked.written(batch, marker.is_some());
        let producer = self.by_id.entry(batch.producer_id).or_insert_with(|| Producer::new(batch.producer_epoch, now));
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.seen.clear();
        }
        producer.last_write = now;
        producer.last_timestamp = batch.max_timestamp;
        if let Some(marker) = marker {
            producer.coordinator_epoch = marker.coordinator_epoch;
            let open = producer.open.take();
            if let (Some(first), false) = (open, marker.committed) {
                producer.seen.iter_mut().filter(|seen| seen.base >= first).for_each(|seen| seen.first_sequence = ABORTED);
            }
            return match open {
                Some(first) => Step::Ended { producer_id: batch.producer_id, first, last: base, committed: marker.committed },
                None => Step::None,
            };
        }
        if producer.seen.len() == REMEMBERED {
            producer.seen.pop_front();
        }
        producer.seen.push_back(Seen {
            first_sequence: batch.base_sequence,
            last_sequence: sequence_after(batch.base_sequence, batch.last_offset_delta),
            base,
            last: base.plus(i64::from(batch.last_offset_delta)),
        });
        if is_data_of_a_transaction(batch) && producer.open.is_none() {
            producer.open = Some(base);
            return Step::Began(base);
        }
        Step::None
    }

    /// The last batch of each, for compaction.
    pub fn lasts(&self) -> impl Iterator<Item = (i64, LastOfProducer)> {
        let last = |producer: &Producer| LastOfProducer { epoch: producer.epoch, last_data: producer.seen.back().map(|seen| seen.last) };
        self.by_id.iter().map(move |(id, producer)| (*id, last(producer)))
    }

    /// Forgets whoever wrote nothing since `before` and has no transaction open.
    pub fn expire(&mut self, before: Timestamp) {
        self.asked.expire(before);
        self.by_id.retain(|_, producer| producer.open.is_some() || producer.last_write >= before);
    }

    /// Forgets which transactions are open: the markers may be among what was deleted.
    pub fn forget_open(&mut self) {
        self.by_id.values_mut().for_each(|producer| producer.open = None);
    }

    /// Forgets all but these: of the others it is not known what they have last written.
    pub fn keep_only(&mut self, known: &BTreeSet<i64>) {
        self.by_id.retain(|id, _| known.contains(id));
    }

    /// Every producer, for whoever asks.
    pub fn describe(&self) -> impl Iterator<Item = DescribedProducer> {
        self.by_id.iter().map(|(id, producer)| DescribedProducer {
            producer_id: *id,
            epoch: producer.epoch,
            last_sequence: producer.seen.back().map_or(-1, |seen| seen.last_sequence),
            last_timestamp: producer.last_timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            open: producer.open,
        })
    }

    /// As bytes, for the snapshot that spares the next start reading the log.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![FORM];
        for (id, producer) in &self.by_id {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&producer.epoch.to_be_bytes());
            out.extend_from_slice(&producer.last_write.0.to_be_bytes());
            out.extend_from_slice(&producer.last_timestamp.to_be_bytes());
            out.extend_from_slice(&producer.open.map_or(-1, |at| at.0).to_be_bytes());
            out.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
            out.push(producer.seen.len() as u8);
            for seen in &producer.seen {
                out.extend_from_slice(&seen.first_sequence.to_be_bytes());
                out.extend_from_slice(&seen.last_sequence.to_be_bytes());
                out.extend_from_slice(&seen.base.0.to_be_bytes());
                out.extend_from_slice(&seen.last.0.to_be_bytes());
            }
        }
        out
    }

    /// Reads [`Producers::to_bytes`] back; `None` where the bytes are not that.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&FORM, mut rest) = bytes.split_first()? else { return None };
        let mut by_id = BTreeMap::new();
        while !rest.is_empty() {
            let id = i64::from_be_bytes(take(&mut rest)?);
            let epoch = i16::from_be_bytes(take(&mut rest)?);
            let last_write = Timestamp(i64::from_be_bytes(take(&mut rest)?));
            let last_timestamp = i64::from_be_bytes(take(&mut rest)?);
            let open = Some(Offset(i64::from_be_bytes(take(&mut rest)?))).filter(|at| at.0 >= 0);
            let coordinator_epoch = i32::from_be_bytes(take(&mut rest)?);
            let [count] = take::<1>(&mut rest)?;
            let mut seen = VecDeque::with_capacity(REMEMBERED);
            for _ in 0..count {
                let first_sequence = i32::from_be_bytes(take(&mut rest)?);
                let last_sequence = i32::from_be_bytes(take(&mut rest)?);
                let base = Offset(i64::from_be_bytes(take(&mut rest)?));
                let last = Offset(i64::from_be_bytes(take(&mut rest)?));
                seen.push_back(Seen { first_sequence, last_sequence, base, last });
            }
            by_id.insert(id, Producer { epoch, seen, last_write, last_timestamp, open, coordinator_epoch });
        }
        Some(Self { by_id, asked: Verifications::default() })
    }
}

impl Producer {
    /// The last of Kafka's checks: while a transaction is open here, its producer writes nothing outside of it.
    const fn in_its_transaction(&self, batch: &BatchHeader) -> Verdict {
        if self.open.is_some() && !batch.is_transactional() {
            return Verdict::Refuse(error_code::INVALID_TXN_STATE);
        }
        Verdict::Append
    }
}

const fn is_data_of_a_transaction(batch: &BatchHeader) -> bool {
    batch.is_transactional() && !batch.is_control() && batch.has_producer()
}

/// The first byte of a snapshot, raised when its form changes.
const FORM: u8 = 2;

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BatchBuilder;

    fn batch(epoch: i16, first: i32, count: i32) -> BatchHeader {
        header(BatchBuilder::new().with_producer(7, epoch, first), count)
    }

    fn header(mut builder: BatchBuilder, count: i32) -> BatchHeader {
        for _ in 0..count {
            builder.push(0, None, Some(b"x"), &[]);
        }
        *builder.finish().header()
    }

    /// Plays `epoch/first+count` batches and tells what becomes of each; one with a `t` in front is of a transaction,
    /// `epoch/commit` and `epoch/abort` are markers, and with `ask` in front it only asks to be in one.
    fn play(script: &str) -> String {
        let mut producers = Producers::default();
        let mut end = Offset::ZERO;
        let mut told = Vec::new();
        for step in script.split_whitespace() {
            if let Some((epoch, sequence)) = step.strip_prefix("ask").and_then(|rest| rest.split_once('/')) {
                let (epoch, sequence) = (epoch.parse().unwrap(), sequence.parse().unwrap());
                producers.ask(Asked { producer_id: 7, epoch, sequence, bumps_epoch: false }, Timestamp(0));
                continue;
            }
            let (transactional, step) = step.strip_prefix('t').map_or((false, step), |rest| (true, rest));
            let (epoch, rest) = step.split_once('/').unwrap();
            let epoch = epoch.parse().unwrap();
            let (header, marker) = match rest.split_once('+') {
                Some((first, count)) => {
                    let builder = BatchBuilder::new().with_producer(7, epoch, first.parse().unwrap());
                    let builder = if transactional { builder.transactional() } else { builder };
                    (header(builder, count.parse().unwrap()), None)
                }
                None => {
                    let kind = if rest == "commit" { ControlMarker::Commit } else { ControlMarker::Abort };
                    let batch = kind.batch(0, 7, epoch, 3);
                    (*batch.header(), EndMarker::of(&batch))
                }
            };
            told.push(match producers.judge(&header) {
                Verdict::Append => {
                    let step = producers.advance(&header, marker, end, Timestamp(0));
                    let at = end;
                    end = end.plus(i64::from(header.count));
                    match step {
                        Step::None => format!("@{at}"),
                        Step::Began(first) => format!("@{first}:began"),
                        Step::Ended { first, last, .. } => format!("@{last}:ended-from-{first}"),
                    }
                }
                Verdict::Duplicate { base, last } => format!("dup@{base}..{last}"),
                Verdict::Refuse(code) => error_code::name(code).to_owned(),
            });
        }
        assert_eq!(Producers::from_bytes(&producers.to_bytes()).map(|read| read.by_id), Some(producers.by_id));
        told.join(" ")
    }

    #[test]
    fn batches_in_sequence_are_appended_and_repeats_are_recognised() {
        assert_eq!(play("0/0+3 0/3+1 0/4+2"), "@0 @3 @4");
        assert_eq!(play("0/0+3 0/3+1 0/0+3 0/3+1 0/4+1"), "@0 @3 dup@0..2 dup@3..3 @4");
    }

    #[test]
    fn a_gap_or_a_step_back_is_out_of_order() {
        assert_eq!(play("0/0+1 0/2+1"), "@0 OUT_OF_ORDER_SEQUENCE_NUMBER");
        assert_eq!(play("0/0+4 0/0+2"), "@0 OUT_OF_ORDER_SEQUENCE_NUMBER");
    }

    #[test]
    fn only_the_last_five_batches_are_recognised() {
        let six = "0/0+1 0/1+1 0/2+1 0/3+1 0/4+1 0/5+1";
        assert_eq!(play(&format!("{six} 0/1+1")), "@0 @1 @2 @3 @4 @5 dup@1..1");
        assert_eq!(play(&format!("{six} 0/0+1")), "@0 @1 @2 @3 @4 @5 OUT_OF_ORDER_SEQUENCE_NUMBER");
    }

    #[test]
    fn an_unknown_producer_may_begin_anywhere_but_a_new_epoch_begins_at_zero() {
        assert_eq!(play("0/90+1 0/91+1"), "@0 @1");
        assert_eq!(play("0/0+1 1/1+1 1/0+1 1/1+1"), "@0 OUT_OF_ORDER_SEQUENCE_NUMBER @1 @2");
        assert_eq!(play("3/0+1 2/0+1"), "@0 INVALID_PRODUCER_EPOCH");
    }

    #[test]
    fn sequence_numbers_wrap_to_zero() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(play("0/2147483646+3 0/1+1"), "@0 @3");
        assert_eq!(play("0/2147483647+1 0/0+1"), "@0 @1");
    }

    #[test]
    fn a_transaction_is_open_from_its_first_batch_to_its_marker() {
        assert_eq!(play("t0/0+2 t0/2+1 0/commit t0/3+1 0/abort"), "@0:began @2 @3:ended-from-0 @4:began @5:ended-from-4");
        assert_eq!(play("0/commit 0/abort"), "@0 @1");
    }

    #[test]
    fn while_a_transaction_is_open_its_producer_writes_nothing_else() {
        assert_eq!(play("t0/0+1 0/1+1 0/commit 0/1+1"), "@0:began INVALID_TXN_STATE @1:ended-from-0 @2");
        assert_eq!(play("t0/0+1 t0/0+1"), "@0:began dup@0..0");
    }

    #[test]
    fn a_batch_that_may_yet_be_the_first_of_its_transaction_is_not_left_out() {
        let refused = "OUT_OF_ORDER_SEQUENCE_NUMBER";
        assert_eq!(play("ask0/3 t0/4+1 0/4+1 t0/3+1 t0/4+1"), format!("{refused} {refused} @0:began @1"));
        assert_eq!(play("0/0+1 ask0/1 t0/0+1 ask0/0 0/1+1 0/commit 0/1+1"), format!("@0 dup@0..0 {refused} @1 @2"));
        assert_eq!(play("0/0+1 ask1/-1 1/0+1 1/abort 1/0+1"), format!("@0 {refused} @1 @2"));
        // What is open needs no asking.
        assert_eq!(play("t0/0+1 ask0/0 t0/1+1"), "@0:began @1");
        assert_eq!(play("t0/0+1 ask1/0 t0/1+1"), format!("@0:began {refused}"));
    }

    #[test]
    fn a_batch_numbered_like_one_of_an_aborted_transaction_is_not_taken_for_it() {
        let refused = "@0:began @1:ended-from-0 OUT_OF_ORDER_SEQUENCE_NUMBER @2:began";
        assert_eq!(play("t0/0+1 0/abort t0/0+1 t0/1+1"), refused);
        assert_eq!(
            play("t0/0+1 0/commit t0/0+1 t0/1+1 0/abort t0/0+1"),
            "@0:began @1:ended-from-0 dup@0..0 @2:began @3:ended-from-2 dup@0..0"
        );
    }

    #[test]
    fn a_marker_of_a_new_epoch_fences_the_old_one_and_begins_its_sequence_at_zero() {
        let fenced = "@0:began @1:ended-from-0 INVALID_PRODUCER_EPOCH OUT_OF_ORDER_SEQUENCE_NUMBER @2:began";
        assert_eq!(play("t0/0+1 1/abort t0/1+1 t1/1+1 t1/0+1"), fenced);
        assert_eq!(play("0/commit t0/4+1 t0/0+1"), "@0 OUT_OF_ORDER_SEQUENCE_NUMBER @1:began");
        assert_eq!(play("t2/0+1 1/abort"), "@0:began INVALID_PRODUCER_EPOCH");
    }

    #[test]
    fn a_producer_with_an_open_transaction_is_not_forgotten() {
        let mut producers = Producers::default();
        producers.advance(&header(BatchBuilder::new().with_producer(7, 0, 0).transactional(), 1), None, Offset(4), Timestamp(10));
        producers.expire(Timestamp(11));
        assert_eq!((producers.open(7), producers.all_open().collect::<Vec<_>>()), (Some(Offset(4)), vec![Offset(4)]));
        let told: Vec<_> = producers.describe().collect();
        assert_eq!((told[0].last_sequence, told[0].last_timestamp, told[0].coordinator_epoch), (0, 0, -1));
    }

    #[test]
    fn a_producer_that_was_silent_too_long_is_forgotten() {
        let mut producers = Producers::default();
        producers.advance(&batch(0, 0, 1), None, Offset(0), Timestamp(10));
        producers.expire(Timestamp(10));
        assert_eq!(producers.by_id.len(), 1);
        producers.expire(Timestamp(11));
        assert!(producers.by_id.is_empty());
    }

    #[test]
    fn a_damaged_snapshot_is_no_snapshot() {
        let mut producers = Producers::default();
        producers.advance(&batch(0, 0, 1), None, Offset(0), Timestamp(10));
        let bytes = producers.to_bytes();
        for cut in 0..bytes.len() {
            let read = Producers::from_bytes(&bytes[..cut]);
            assert!(read.is_none() || read.is_some_and(|p| p.by_id.is_empty()), "{cut}");
        }
    }
}
