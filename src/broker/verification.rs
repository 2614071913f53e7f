//! With which sequence number a producer has asked to begin a transaction in one partition: [`Verifications`].
//!
//! Pure: what is asked and what is written come in, yes or no comes out. A batch that would be the first of its transaction in the
//! partition is noted before the coordinator is asked whether it may be written, and the note lasts until a batch of the
//! transaction, or a marker, is in the log. So long nothing with a higher sequence number is written: of several batches on
//! their way the first may have been refused, and a client that sends it again finds its place still free. The rules
//! are Kafka's (`VerificationStateEntry`). Forgotten when the node stops. Used by `Producers`.

use std::collections::BTreeMap;

use crate::record::BatchHeader;
use crate::time::Timestamp;

/// A batch that asks to be the first of its transaction in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whose.
    pub producer_id: i64,
    /// In which life.
    pub epoch: i16,
    /// Its first sequence number.
    pub sequence: i32,
    /// Whether the request is for transactions each of which has an epoch of its own.
    pub bumps_epoch: bool,
}

/// One producer's note: the lowest of the sequence numbers in its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lowest {
    epoch: i16,
    sequence: i32,
    bumps_epoch: bool,
    since: Timestamp,
}

/// What the producers of one partition have asked for and not yet written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verifications {
    by_id: BTreeMap<i64, Lowest>,
}

impl Verifications {
    /// Notes a batch. A new epoch forgets the old one.
    pub fn note(&mut self, asked: Asked, now: Timestamp) {
        let Asked { producer_id, epoch, sequence, bumps_epoch } = asked;
        let one = self.by_id.entry(producer_id).or_insert(Lowest { epoch, sequence, bumps_epoch, since: now });
        if epoch > one.epoch || epoch == one.epoch && sequence < one.sequence {
            (one.epoch, one.sequence) = (epoch, sequence);
        }
    }

    /// Whether a batch would leave one before it out. `known` says that the partition knows its producer; where each
    /// transaction has an epoch of its own, one that is not known begins at 0.
    #[must_use]
    pub fn leaves_out(&self, batch: &BatchHeader, known: bool) -> bool {
        let Some(one) = self.by_id.get(&batch.producer_id) else { return false };
        batch.base_sequence > one.sequence || one.bumps_epoch && !known && batch.base_sequence != 0
    }

    /// A batch, or where `is_marker` a marker, is in the log. Where each transaction has an epoch of its own, the marker of the
    /// epoch that is noted is an old one's.
    pub fn written(&mut self, batch: &BatchHeader, is_marker: bool) {
        let stays = |one: &Lowest| one.bumps_epoch && is_marker && one.epoch == batch.producer_epoch;
        if batch.is_transactional() && !self.by_id.get(&batch.producer_id).is_some_and(stays) {
            self.by_id.remove(&batch.producer_id);
        }
    }

    /// Forgets what was asked before `before`.
    pub fn expire(&mut self, before: Timestamp) {
        self.by_id.retain(|_, one| one.since >= before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, ControlMarker};

    fn asked(epoch: i16, sequence: i32, bumps_epoch: bool) -> Asked {
        Asked { producer_id: 7, epoch, sequence, bumps_epoch }
    }

    fn batch(epoch: i16, sequence: i32, transactional: bool) -> BatchHeader {
        let mut builder = BatchBuilder::new().with_producer(7, epoch, sequence);
        builder.push(0, None, Some(b"x"), &[]);
        let builder = if transactional { builder.transactional() } else { builder };
        *builder.finish().header()
    }

    /// Which of the sequence numbers 0 to 4 would leave a batch out.
    fn left_out(all: &Verifications, known: bool) -> Vec<i32> {
        (0..5).filter(|sequence| all.leaves_out(&batch(0, *sequence, true), known)).collect()
    }

    #[test]
    fn nothing_above_the_lowest_number_asked_for_is_written_until_the_transaction_has_begun() {
        let mut all = Verifications::default();
        assert!(left_out(&all, false).is_empty());
        for (epoch, sequence, expected) in [(1, 3, &[4][..]), (1, 2, &[3, 4]), (1, 4, &[3, 4]), (0, 0, &[3, 4]), (2, 3, &[4])] {
            all.note(asked(epoch, sequence, false), Timestamp(0));
            assert_eq!(left_out(&all, false), expected, "{epoch}/{sequence}");
        }
        all.written(&batch(2, 0, false), false);
        assert_eq!(left_out(&all, true), [4]);
        all.written(&batch(2, 0, true), false);
        assert!(left_out(&all, true).is_empty());
    }

    #[test]
    fn a_producer_with_an_epoch_for_each_transaction_begins_at_zero_where_it_is_not_known() {
        let mut all = Verifications::default();
        all.note(asked(1, 3, true), Timestamp(0));
        assert_eq!((left_out(&all, false), left_out(&all, true)), (vec![1, 2, 3, 4], vec![4]));
    }

    #[test]
    fn a_marker_ends_what_was_asked_for_unless_it_is_of_the_transaction_before() {
        let marker = |epoch| *ControlMarker::Abort.batch(0, 7, epoch, 0).header();
        for (epoch, bumps_epoch, expected) in [(1, false, &[][..]), (1, true, &[4]), (2, true, &[])] {
            let mut all = Verifications::default();
            all.note(asked(1, 3, bumps_epoch), Timestamp(0));
            all.written(&marker(epoch), true);
            assert_eq!(left_out(&all, true), expected, "{epoch} {bumps_epoch}");
        }
    }

    #[test]
    fn what_was_asked_long_ago_is_forgotten() {
        let mut all = Verifications::default();
        all.note(asked(0, 0, false), Timestamp(10));
        all.note(asked(0, 0, false), Timestamp(20));
        all.expire(Timestamp(10));
        assert_eq!(left_out(&all, true), [1, 2, 3, 4]);
        all.expire(Timestamp(11));
        assert!(left_out(&all, true).is_empty());
    }
}
