//! What a running task shows of itself: counters, those of its operators, where its time goes, and where each of its input
//! partitions stands.
//!
//! Written by the task alone, read by `SHOW QUERIES`, `/metrics` and the page at any time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::operator_stats::{OperatorFigures, OperatorStats};
use super::time_spent::{Doing, TimeShares, TimeSpent};
use crate::metrics::{DurationCounts, Durations};
use crate::record::{Offset, PartitionId};
use crate::time::Timestamp;

/// Where one input partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputProgress {
    /// The place of its source in the query.
    pub source: usize,
    /// The partition.
    pub partition: PartitionId,
    /// The next offset to read, as committed.
    pub position: Offset,
    /// Its watermark.
    pub watermark: Timestamp,
    /// Whether it has left the merged minimum.
    pub idle: bool,
}

/// Counters of one task.
#[derive(Debug, Default)]
pub struct TaskStats {
    rows_in: AtomicU64,
    rows_out: AtomicU64,
    late: AtomicU64,
    failed: AtomicU64,
    ahead: AtomicU64,
    commits: AtomicU64,
    snapshots: AtomicU64,
    state_bytes: AtomicU64,
    spilled_bytes: AtomicU64,
    refill: Mutex<Refill>,
    inputs: Mutex<BTreeMap<i32, InputProgress>>,
    commit_times: Durations,
    /// By place in the chain, each with its name.
    operators: Mutex<Vec<(String, Arc<OperatorStats>)>>,
    time: Mutex<TimeSpent>,
}

/// How far a task has come that makes its state again from its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refill {
    /// Whether it is at it.
    pub goes_on: bool,
    /// Records read again.
    pub read: u64,
    /// Of how many.
    pub records: u64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Rows read.
    pub rows_in: u64,
    /// Rows written.
    pub rows_out: u64,
    /// Rows that went aside as late.
    pub late: u64,
    /// Rows whose expression failed.
    pub failed: u64,
    /// Rows that were ahead of the clock and did not move the watermark.
    pub ahead: u64,
    /// Commits.
    pub commits: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// About how many bytes of state it holds in memory.
    pub state_bytes: u64,
    /// How many of it lie on the disk.
    pub spilled_bytes: u64,
}

impl TaskCounts {
    /// Takes in those of another task.
    pub fn add(&mut self, other: &Self) {
        self.rows_in += other.rows_in;
        self.rows_out += other.rows_out;
        self.late += other.late;
        self.failed += other.failed;
        self.ahead += other.ahead;
        self.commits += other.commits;
        self.snapshots += other.snapshots;
        self.state_bytes += other.state_bytes;
        self.spilled_bytes += other.spilled_bytes;
    }
}

impl Refill {
    /// Takes in that of another task.
    pub fn add(&mut self, other: Self) {
        self.goes_on |= other.goes_on;
        self.read += other.read;
        self.records += other.records;
    }
}

impl TaskStats {
    /// Rows were read, `ahead` of them ahead of the clock.
    pub fn took(&self, rows: u64, ahead: u64) {
        self.rows_in.fetch_add(rows, Ordering::Relaxed);
        self.ahead.fetch_add(ahead, Ordering::Relaxed);
    }

    /// Rows came out.
    pub fn gave(&self, rows: u64, late: u64, failed: u64) {
        self.rows_out.fetch_add(rows, Ordering::Relaxed);
        self.late.fetch_add(late, Ordering::Relaxed);
        self.failed.fetch_add(failed, Ordering::Relaxed);
    }

    /// A commit is durable, after so long.
    pub fn committed(&self, after: Duration) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.commit_times.observe(after);
    }

    /// A snapshot is durable.
    pub fn snapshot(&self) {
        self.snapshots.fetch_add(1, Ordering::Relaxed);
    }

    /// The state was weighed.
    pub fn holds(&self, state_bytes: u64, spilled_bytes: u64) {
        self.state_bytes.store(state_bytes, Ordering::Relaxed);
        self.spilled_bytes.store(spilled_bytes, Ordering::Relaxed);
    }

    /// The state is made again from so many records.
    pub fn refills(&self, records: u64) {
        *self.refill.lock() = Refill { goes_on: true, read: 0, records };
    }

    /// Some of them have been read.
    pub fn refill(&self, records: i64) {
        self.refill.lock().read += records.max(0) as u64;
    }

    /// It is made.
    pub fn refilled(&self) {
        self.refill.lock().goes_on = false;
    }

    /// Whether the state was made again, and how far that has come.
    #[must_use]
    pub fn refill_progress(&self) -> Refill {
        *self.refill.lock()
    }

    /// From now on the task does this.
    pub fn turn(&self, to: Doing) {
        let work = || self.operators.lock().iter().map(|(_, operator)| operator.busy_nanos()).collect();
        self.time.lock().turn(to, Instant::now(), work);
    }

    /// The counters of operators of these names, by their place in the chain: those that there are, where a task is tried again.
    pub(super) fn name_operators(&self, names: Vec<String>) -> Vec<Arc<OperatorStats>> {
        let mut operators = self.operators.lock();
        if !operators.iter().map(|(name, _)| name).eq(&names) {
            *operators = names.into_iter().map(|name| (name, Arc::default())).collect();
        }
        operators.iter().map(|(_, operator)| Arc::clone(operator)).collect()
    }

    /// What each operator has done and holds, in the order of the chain, and where the task's time goes.
    #[must_use]
    pub fn figures(&self) -> (Vec<OperatorFigures>, TimeShares) {
        let operators = self.operators.lock().clone();
        let work: Vec<u64> = operators.iter().map(|(_, operator)| operator.busy_nanos()).collect();
        let (shares, of_operators) = self.time.lock().shares(Instant::now(), &work);
        let figures = operators.iter().zip(of_operators).map(|((name, operator), share)| operator.figures(name, share));
        (figures.collect(), shares)
    }

    /// How long commits took.
    #[must_use]
    pub fn commit_times(&self) -> DurationCounts {
        self.commit_times.counts()
    }

    /// Where an input stands now, by its number.
    pub fn progress(&self, input: i32, at: InputProgress) {
        self.inputs.lock().insert(input, at);
    }

    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> TaskCounts {
        let get = |of: &AtomicU64| of.load(Ordering::Relaxed);
        TaskCounts {
            rows_in: get(&self.rows_in),
            rows_out: get(&self.rows_out),
            late: get(&self.late),
            failed: get(&self.failed),
            ahead: get(&self.ahead),
            commits: get(&self.commits),
            snapshots: get(&self.snapshots),
            state_bytes: get(&self.state_bytes),
            spilled_bytes: get(&self.spilled_bytes),
        }
    }

    /// Where each input stands, in order.
    #[must_use]
    pub fn inputs(&self) -> Vec<InputProgress> {
        self.inputs.lock().values().copied().collect()
    }
}
