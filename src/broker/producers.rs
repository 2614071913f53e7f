//! What one partition remembers of its idempotent producers: [`Producers`].
//!
//! Pure: batches and times come in, verdicts come out. Always: per producer the last five batches, in order,
//! of one epoch; what `judge` accepts and `advance` takes is what the log holds, in its order. A repeated
//! batch is found among the five and answered with the offset it got the first time. The rules are Kafka's
//! (`ProducerAppendInfo`, `ProducerStateEntry`). Called by `Partition` under its lock.

use std::collections::{BTreeMap, VecDeque};

use crate::record::{BatchHeader, Offset};
use crate::time::Timestamp;
use crate::wire::error_code;

/// Batches remembered per producer: as many as a client may have in flight.
const REMEMBERED: usize = 5;

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
}

/// The idempotent producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: BTreeMap<i64, Producer>,
}

/// The sequence number `delta` records after `first`. After the greatest comes 0.
#[must_use]
pub const fn sequence_after(first: i32, delta: i32) -> i32 {
    ((first as i64 + delta as i64) % (i32::MAX as i64 + 1)) as i32
}

impl Producers {
    /// Whether the batch may be appended. Changes nothing.
    #[must_use]
    pub fn judge(&self, batch: &BatchHeader) -> Verdict {
        // A producer we do not know may begin anywhere: its history may have expired.
        let Some(producer) = self.by_id.get(&batch.producer_id) else { return Verdict::Append };
        if batch.producer_epoch < producer.epoch {
            return Verdict::Refuse(error_code::INVALID_PRODUCER_EPOCH);
        }
        if batch.producer_epoch > producer.epoch {
            return if batch.base_sequence == 0 { Verdict::Append } else { Verdict::Refuse(error_code::OUT_OF_ORDER_SEQUENCE_NUMBER) };
        }
        let last_sequence = sequence_after(batch.base_sequence, batch.last_offset_delta);
        let same = |seen: &&Seen| seen.first_sequence == batch.base_sequence && seen.last_sequence == last_sequence;
        if let Some(seen) = producer.seen.iter().find(same) {
            return Verdict::Duplicate { base: seen.base, last: seen.last };
        }
        match producer.seen.back() {
            Some(seen) if sequence_after(seen.last_sequence, 1) != batch.base_sequence => {
                Verdict::Refuse(error_code::OUT_OF_ORDER_SEQUENCE_NUMBER)
            }
            _ => Verdict::Append,
        }
    }

    /// Takes over a batch that is in the log from `base` on.
    pub fn advance(&mut self, batch: &BatchHeader, base: Offset, now: Timestamp) {
        if !batch.has_producer() || batch.base_sequence < 0 {
            return;
        }
        let fresh = || Producer { epoch: batch.producer_epoch, seen: VecDeque::with_capacity(REMEMBERED), last_write: now };
        let producer = self.by_id.entry(batch.producer_id).or_insert_with(fresh);
        if producer.epoch != batch.producer_epoch {
            *producer = fresh();
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
        producer.last_write = now;
    }

    /// Forgets whoever wrote nothing since `before`.
    pub fn expire(&mut self, before: Timestamp) {
        self.by_id.retain(|_, producer| producer.last_write >= before);
    }

    /// As bytes, for the snapshot that spares the next start reading the log.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![FORM];
        for (id, producer) in &self.by_id {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&producer.epoch.to_be_bytes());
            out.extend_from_slice(&producer.last_write.0.to_be_bytes());
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
            let [count] = take::<1>(&mut rest)?;
            let mut seen = VecDeque::with_capacity(REMEMBERED);
            for _ in 0..count {
                let first_sequence = i32::from_be_bytes(take(&mut rest)?);
                let last_sequence = i32::from_be_bytes(take(&mut rest)?);
                let base = Offset(i64::from_be_bytes(take(&mut rest)?));
                let last = Offset(i64::from_be_bytes(take(&mut rest)?));
                seen.push_back(Seen { first_sequence, last_sequence, base, last });
            }
            by_id.insert(id, Producer { epoch, seen, last_write });
        }
        Some(Self { by_id })
    }
}

/// The first byte of a snapshot, raised when its form changes.
const FORM: u8 = 1;

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
        let mut builder = BatchBuilder::new().with_producer(7, epoch, first);
        for _ in 0..count {
            builder.push(0, None, Some(b"x"), &[]);
        }
        *builder.finish().header()
    }

    /// Plays `epoch/first+count` batches and tells what becomes of each.
    fn play(script: &str) -> String {
        let mut producers = Producers::default();
        let mut end = Offset::ZERO;
        let mut told = Vec::new();
        for step in script.split_whitespace() {
            let (epoch, rest) = step.split_once('/').unwrap();
            let (first, count) = rest.split_once('+').unwrap();
            let header = batch(epoch.parse().unwrap(), first.parse().unwrap(), count.parse().unwrap());
            told.push(match producers.judge(&header) {
                Verdict::Append => {
                    producers.advance(&header, end, Timestamp(0));
                    let at = end;
                    end = end.plus(i64::from(header.count));
                    format!("@{at}")
                }
                Verdict::Duplicate { base, last } => format!("dup@{base}..{last}"),
                Verdict::Refuse(code) => error_code::name(code).to_owned(),
            });
        }
        assert_eq!(Producers::from_bytes(&producers.to_bytes()), Some(producers));
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
    fn a_producer_that_was_silent_too_long_is_forgotten() {
        let mut producers = Producers::default();
        producers.advance(&batch(0, 0, 1), Offset(0), Timestamp(10));
        producers.expire(Timestamp(10));
        assert_eq!(producers.by_id.len(), 1);
        producers.expire(Timestamp(11));
        assert!(producers.by_id.is_empty());
    }

    #[test]
    fn a_damaged_snapshot_is_no_snapshot() {
        let mut producers = Producers::default();
        producers.advance(&batch(0, 0, 1), Offset(0), Timestamp(10));
        let bytes = producers.to_bytes();
        for cut in 0..bytes.len() {
            let read = Producers::from_bytes(&bytes[..cut]);
            assert!(read.is_none() || read.is_some_and(|p| p.by_id.is_empty()), "{cut}");
        }
    }
}
