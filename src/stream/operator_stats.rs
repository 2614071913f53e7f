//! What one operator of a task has done and holds: counters that are written once a batch, never once a row.
//!
//! Always: one task writes them, anybody reads them. They outlive the operator, which is made anew when its task is
//! tried again. Written by `chain` and `task`, kept by `stats`.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::element::Output;
use super::operator::StreamError;
use crate::time::Timestamp;

/// Counters of one operator.
#[derive(Debug)]
pub struct OperatorStats {
    rows_in: AtomicU64,
    rows_out: AtomicU64,
    late: AtomicU64,
    failed: AtomicU64,
    busy_nanos: AtomicU64,
    state_bytes: AtomicU64,
    spilled_bytes: AtomicU64,
    most_bytes: AtomicU64,
    watermark: AtomicI64,
}

impl Default for OperatorStats {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            rows_in: zero(),
            rows_out: zero(),
            late: zero(),
            failed: zero(),
            busy_nanos: zero(),
            state_bytes: zero(),
            spilled_bytes: zero(),
            most_bytes: zero(),
            watermark: AtomicI64::new(Timestamp::MIN.0),
        }
    }
}

/// What an operator has done and holds, over one task or over all tasks of a query.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorFigures {
    /// Its place in the chain and its kind, as in `1-window`: never anything that a statement or a row says.
    pub name: String,
    /// Rows it has taken.
    pub rows_in: u64,
    /// Rows it has handed on.
    pub rows_out: u64,
    /// Rows it has put aside because they were late.
    pub late: u64,
    /// Rows that failed in it.
    pub failed: u64,
    /// How long it has worked.
    pub busy: Duration,
    /// Which share of its tasks' time it has worked of late, from 0 to 1.
    pub busy_share: f64,
    /// About how many bytes of state it holds in memory.
    pub state_bytes: u64,
    /// How many of it lie on the disk.
    pub spilled_bytes: u64,
    /// How many it held at most, as far as it was looked at.
    pub most_bytes: u64,
    /// The watermarks of the task that is furthest behind and of the one that is furthest ahead; `None` before the first.
    pub watermark: Option<(Timestamp, Timestamp)>,
}

/// One thread writes, so that nothing need be locked on the way.
fn add(to: &AtomicU64, more: u64) {
    if more > 0 {
        to.store(to.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }
}

impl OperatorStats {
    /// Does a step of the operator's, and counts what it takes and makes.
    pub(super) fn step<T>(
        &self,
        rows: usize,
        made: &mut Output,
        step: impl FnOnce(&mut Output) -> Result<T, StreamError>,
    ) -> Result<T, StreamError> {
        let (before, aside, failed) = (made.rows.len(), made.aside.len(), made.failed.len());
        let begun = Instant::now();
        let answer = step(made)?;
        self.worked(begun.elapsed());
        add(&self.rows_in, rows as u64);
        add(&self.rows_out, made.rows[before..].iter().map(|rows| rows.len() as u64).sum());
        add(&self.late, (made.aside.len() - aside) as u64);
        add(&self.failed, (made.failed.len() - failed) as u64);
        Ok(answer)
    }

    /// Rows came in, and so many of them went on, late and failed.
    pub(super) fn count(&self, rows_in: u64, rows_out: u64, late: u64, failed: u64) {
        add(&self.rows_in, rows_in);
        add(&self.rows_out, rows_out);
        add(&self.late, late);
        add(&self.failed, failed);
    }

    /// It has worked for so long.
    pub(super) fn worked(&self, took: Duration) {
        add(&self.busy_nanos, took.as_nanos() as u64);
    }

    /// Its time has come this far.
    pub(super) fn at(&self, watermark: Timestamp) {
        self.watermark.store(watermark.0, Ordering::Relaxed);
    }

    /// It holds so many bytes in memory, and so many on the disk.
    pub(super) fn holds(&self, bytes: usize, spilled: u64) {
        self.spilled_bytes.store(spilled, Ordering::Relaxed);
        self.state_bytes.store(bytes as u64, Ordering::Relaxed);
        self.most_bytes.fetch_max(bytes as u64, Ordering::Relaxed);
    }

    /// For how long it has worked, in nanoseconds.
    pub(super) fn busy_nanos(&self) -> u64 {
        self.busy_nanos.load(Ordering::Relaxed)
    }

    /// The counters now.
    pub(super) fn figures(&self, name: &str, busy_share: f64) -> OperatorFigures {
        let get = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let at = Timestamp(self.watermark.load(Ordering::Relaxed));
        OperatorFigures {
            name: name.to_owned(),
            rows_in: get(&self.rows_in),
            rows_out: get(&self.rows_out),
            late: get(&self.late),
            failed: get(&self.failed),
            busy: Duration::from_nanos(get(&self.busy_nanos)),
            busy_share,
            state_bytes: get(&self.state_bytes),
            spilled_bytes: get(&self.spilled_bytes),
            most_bytes: get(&self.most_bytes),
            watermark: (at > Timestamp::MIN).then_some((at, at)),
        }
    }
}

impl OperatorFigures {
    /// Takes in the same operator of another task: counts and bytes are added, of watermarks the least and the greatest hold.
    /// The shares are added too: whoever knows the number of tasks divides them.
    pub fn add(&mut self, other: &Self) {
        self.rows_in += other.rows_in;
        self.rows_out += other.rows_out;
        self.late += other.late;
        self.failed += other.failed;
        self.busy += other.busy;
        self.busy_share += other.busy_share;
        self.state_bytes += other.state_bytes;
        self.spilled_bytes += other.spilled_bytes;
        self.most_bytes += other.most_bytes;
        self.watermark = match (self.watermark, other.watermark) {
            (Some(own), Some(others)) => Some((own.0.min(others.0), own.1.max(others.1))),
            (own, others) => own.or(others),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::PartitionId;
    use crate::stream::element::{Aside, AsideRow, FailedRow, Rows};

    fn rows(len: usize) -> Rows {
        use crate::stream::doubles::{Partition, readings};
        Partition::new(0, 0, &readings(1, len, 2, 0)).rows().clone()
    }

    #[test]
    fn a_step_counts_what_it_adds_and_not_what_was_there() {
        let stats = OperatorStats::default();
        let mut made = Output::default();
        made.rows.push(rows(3));
        let aside = || AsideRow { partition: PartitionId(0), offset: 1, why: Aside::Late };
        made.aside.push(aside());
        let step = |made: &mut Output| {
            made.rows.push(rows(2));
            made.aside.push(aside());
            made.aside.push(aside());
            made.failed.push(FailedRow { partition: PartitionId(0), offset: 2, reason: String::new(), row: None });
            Ok(7)
        };
        assert_eq!(stats.step(5, &mut made, step).unwrap(), 7);
        let found = stats.figures("1-window", 0.0);
        assert_eq!((found.rows_in, found.rows_out, found.late, found.failed), (5, 2, 2, 1));
        assert!(found.busy > Duration::ZERO);
        assert_eq!(found.watermark, None);
    }

    #[test]
    fn of_several_tasks_counts_are_added_and_watermarks_are_a_range() {
        let one = |rows: u64, bytes: usize, at: i64| {
            let stats = OperatorStats::default();
            stats.count(rows, rows, 1, 0);
            stats.holds(bytes, bytes as u64 / 10);
            stats.at(Timestamp(at));
            stats.figures("1-window", 0.25)
        };
        let mut all = one(5, 100, 30);
        all.add(&one(6, 50, 10));
        all.add(&OperatorStats::default().figures("1-window", 0.0));
        assert_eq!((all.rows_in, all.late, all.state_bytes, all.spilled_bytes, all.busy_share), (11, 2, 150, 15, 0.5));
        assert_eq!(all.watermark, Some((Timestamp(10), Timestamp(30))));
    }
}
