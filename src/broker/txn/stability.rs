//! How far a partition's records are decided: [`Stability`]. Its last stable offset, and which transactions were aborted.
//!
//! Always: a record below the last stable offset belongs to no transaction, or to one that is over and whose
//! marker is durable; the first record of a transaction is known here before anybody can see it. A partition
//! in which no transaction is open costs its readers one atomic load. Written by `append` under the partition's
//! lock, read by everyone who reads what is committed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;

use crate::log::PartitionLog;
use crate::record::{BatchHeader, Offset};

/// Says that nothing is undecided.
const DECIDED: i64 = i64::MAX;

/// A transaction that was aborted, in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// Whose.
    pub producer_id: i64,
    /// Its first record.
    pub first: Offset,
    /// Its marker.
    pub last: Offset,
    /// Below this everything was decided when the marker was written: a transaction whose marker lies behind
    /// this one begins here or later.
    pub stable: Offset,
}

/// How far one partition is decided.
#[derive(Debug)]
pub struct Stability {
    /// Where the first undecided transaction begins, at the latest; [`DECIDED`] where there is none.
    first: AtomicI64,
    /// The open transactions were not read back yet.
    unread: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Where each open transaction begins.
    open: BTreeSet<Offset>,
    /// From where to where those reach whose marker may not be durable yet.
    ending: VecDeque<(Offset, Offset)>,
    /// By the place of their markers.
    aborted: VecDeque<Aborted>,
}

impl Default for Stability {
    fn default() -> Self {
        Self { first: AtomicI64::new(DECIDED), unread: AtomicBool::new(false), inner: Mutex::default() }
    }
}

impl Inner {
    fn first(&self) -> Option<Offset> {
        let ending = self.ending.iter().map(|(first, _)| *first).min();
        self.open.first().copied().into_iter().chain(ending).min()
    }

    /// Below this everything is decided, once everything that was handed over is durable.
    fn decided_below(&self, end: Offset) -> Offset {
        self.open.first().map_or(end, |first| (*first).min(end))
    }

    fn keep(&mut self, aborted: Aborted) {
        let at = self.aborted.partition_point(|one| one.last < aborted.last);
        if self.aborted.get(at).is_none_or(|one| one.last != aborted.last) {
            self.aborted.insert(at, aborted);
        }
    }
}

impl Stability {
    /// A transaction will begin here. Before its first batch is handed to the log.
    pub fn begin(&self, first: Offset) {
        let mut inner = self.inner.lock();
        inner.open.insert(first);
        self.publish(&inner);
    }

    /// The log did not take that batch.
    pub fn undo(&self, first: Offset) {
        let mut inner = self.inner.lock();
        inner.open.remove(&first);
        self.publish(&inner);
    }

    /// The marker of the transaction that began at `first` lies at `last`, on its way to the disk.
    pub fn end(&self, producer_id: i64, first: Offset, last: Offset, committed: bool) {
        let mut inner = self.inner.lock();
        inner.open.remove(&first);
        inner.ending.push_back((first, last));
        if !committed {
            let stable = inner.decided_below(last.plus(1));
            inner.keep(Aborted { producer_id, first, last, stable });
        }
        self.publish(&inner);
    }

    /// What the index of [`Stability::end`] will hold of an abort: below what everything is decided then.
    pub fn stable_after(&self, first: Offset, last: Offset) -> Offset {
        let inner = self.inner.lock();
        inner.open.iter().find(|open| **open != first).map_or(last.plus(1), |open| (*open).min(last.plus(1)))
    }

    /// Which transactions are open is to be read back first: until then nothing is stable.
    pub fn unread(&self) {
        self.unread.store(true, Ordering::Release);
        self.first.store(0, Ordering::Release);
    }

    /// Whether that was not done yet.
    pub fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Acquire)
    }

    /// The open transactions, as they were read back.
    pub fn restore(&self, open: impl Iterator<Item = Offset>) {
        let mut inner = self.inner.lock();
        inner.open = open.collect();
        self.unread.store(false, Ordering::Release);
        self.publish(&inner);
    }

    /// An aborted transaction that is on record, or was found in the log again.
    pub fn restore_aborted(&self, aborted: Aborted) {
        self.inner.lock().keep(aborted);
    }

    fn publish(&self, inner: &Inner) {
        let first = if self.is_unread() { 0 } else { inner.first().map_or(DECIDED, |first| first.0) };
        self.first.store(first, Ordering::Release);
    }

    /// The end of what is visible, and of what is visible and decided.
    pub fn bounds(&self, log: &PartitionLog) -> (Offset, Offset) {
        self.bounds_of(|| log.durable_end(), || log.start())
    }

    fn bounds_of(&self, durable_end: impl Fn() -> Offset, start: impl Fn() -> Offset) -> (Offset, Offset) {
        // In this order: a transaction is known here before its first batch is durable.
        let visible = durable_end();
        if self.first.load(Ordering::Acquire) == DECIDED {
            return (visible, visible);
        }
        let mut inner = self.inner.lock();
        let visible = durable_end();
        inner.ending.retain(|(_, last)| *last >= visible);
        self.publish(&inner);
        // Records that were deleted are decided.
        let stable = Offset(self.first.load(Ordering::Acquire)).min(visible).max(start()).min(visible);
        (visible, stable)
    }

    /// The aborted transactions that have records between the two offsets, below the last stable one.
    pub fn aborted_between(&self, from: Offset, to: Offset) -> Vec<Aborted> {
        let inner = self.inner.lock();
        let at = inner.aborted.partition_point(|one| one.last < from);
        let mut found = Vec::new();
        for one in inner.aborted.iter().skip(at) {
            if one.first < to {
                found.push(*one);
            }
            // What was aborted later began behind what was decided then.
            if one.stable >= to {
                break;
            }
        }
        found
    }

    /// Forgets the aborted transactions whose markers lie at these offsets, of which nothing is left.
    pub fn forget_at(&self, markers: &[Offset]) {
        self.inner.lock().aborted.retain(|one| !markers.contains(&one.last));
    }

    /// Forgets aborted transactions that lie wholly below the partition's start. Answers their markers' places.
    pub fn forget_below(&self, start: Offset) -> Vec<Offset> {
        let mut inner = self.inner.lock();
        let gone = inner.aborted.partition_point(|one| one.last < start);
        inner.aborted.drain(..gone).map(|one| one.last).collect()
    }
}

/// Whether a batch is of one of these aborted transactions.
#[must_use]
pub fn is_aborted(batch: &BatchHeader, aborted: &[Aborted]) -> bool {
    let base = Offset(batch.base_offset);
    let of = |one: &Aborted| one.producer_id == batch.producer_id && one.first <= base && base < one.last;
    batch.is_transactional() && !batch.is_control() && aborted.iter().any(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, ControlMarker};

    /// What is stable where the log is durable up to `visible` and begins at `start`.
    fn stable(of: &Stability, visible: i64, start: i64) -> i64 {
        let (end, stable) = of.bounds_of(|| Offset(visible), || Offset(start));
        assert_eq!(end, Offset(visible));
        stable.0
    }

    #[test]
    fn what_is_stable_ends_where_the_first_undecided_transaction_begins() {
        let of = Stability::default();
        assert_eq!(stable(&of, 9, 0), 9);
        of.begin(Offset(4));
        of.begin(Offset(7));
        assert_eq!((stable(&of, 9, 0), stable(&of, 3, 0)), (4, 3));
        of.end(1, Offset(4), Offset(9), true);
        assert_eq!(stable(&of, 9, 0), 4, "the marker is not durable yet");
        assert_eq!(stable(&of, 10, 0), 7);
        of.undo(Offset(7));
        assert_eq!(stable(&of, 10, 0), 10);
    }

    #[test]
    fn deleted_records_are_decided() {
        let of = Stability::default();
        of.begin(Offset(4));
        assert_eq!(stable(&of, 9, 6), 6);
    }

    #[test]
    fn nothing_is_stable_before_the_open_transactions_are_known() {
        let of = Stability::default();
        of.unread();
        assert_eq!((of.is_unread(), stable(&of, 9, 2)), (true, 2));
        of.restore([Offset(5)].into_iter());
        assert_eq!((of.is_unread(), stable(&of, 9, 2)), (false, 5));
    }

    fn aborted(of: &Stability, from: i64, to: i64) -> Vec<(i64, i64)> {
        of.aborted_between(Offset(from), Offset(to)).iter().map(|one| (one.producer_id, one.first.0)).collect()
    }

    #[test]
    fn aborted_transactions_are_found_by_what_they_overlap() {
        let of = Stability::default();
        for (first, last, id) in [(0, 9, 1), (2, 5, 2), (11, 20, 3), (13, 15, 4)] {
            of.begin(Offset(first));
            assert!(of.stable_after(Offset(first), Offset(last)) <= Offset(last + 1));
            if id != 1 && id != 3 {
                of.end(id, Offset(first), Offset(last), false);
            }
            if id == 2 {
                of.end(1, Offset(0), Offset(9), false);
            }
        }
        of.end(3, Offset(11), Offset(20), false);
        assert_eq!(aborted(&of, 0, 10), [(2, 2), (1, 0)]);
        assert_eq!(aborted(&of, 6, 10), [(1, 0)]);
        assert_eq!(aborted(&of, 10, 11), []);
        assert_eq!(aborted(&of, 12, 13), [(3, 11)]);
        assert_eq!(aborted(&of, 0, 99), [(2, 2), (1, 0), (4, 13), (3, 11)]);
        assert_eq!(of.forget_below(Offset(10)), [Offset(5), Offset(9)]);
        assert_eq!(aborted(&of, 0, 99), [(4, 13), (3, 11)]);
    }

    #[test]
    fn an_aborted_transaction_that_is_told_twice_is_kept_once() {
        let of = Stability::default();
        let one = Aborted { producer_id: 1, first: Offset(3), last: Offset(5), stable: Offset(6) };
        of.restore_aborted(one);
        of.restore_aborted(one);
        assert_eq!(of.aborted_between(Offset(0), Offset(9)), [one]);
    }

    #[test]
    fn only_records_of_the_aborted_transaction_itself_are_skipped() {
        let all = [Aborted { producer_id: 7, first: Offset(10), last: Offset(12), stable: Offset(13) }];
        let header = |id: i64, base: i64, transactional: bool| {
            let mut builder = BatchBuilder::new().with_producer(id, 0, 0);
            builder.push(0, None, None, &[]);
            let builder = if transactional { builder.transactional() } else { builder };
            *builder.finish().with_base(Offset(base), 0).header()
        };
        let told: Vec<bool> = [(7, 9, true), (7, 10, true), (8, 11, true), (7, 11, false), (7, 13, true)]
            .into_iter()
            .map(|(id, base, transactional)| is_aborted(&header(id, base, transactional), &all))
            .collect();
        assert_eq!(told, [false, true, false, false, false]);
        let marker = ControlMarker::Abort.batch(0, 7, 0, 0).with_base(Offset(11), 0);
        assert!(!is_aborted(marker.header(), &all));
    }
}
