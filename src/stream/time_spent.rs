//! What a task spends its time on: work, waiting for input, waiting for its way out.
//!
//! Totals since the start for whoever computes rates, and shares of the last seconds for whoever looks once. Always: one
//! of the three at any time, so that the shares are one in sum. Written by the task when it changes from one to
//! another, kept by `stats`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It works.
    Busy,
    /// It waits for input, or for the clock.
    Idle,
    /// It waits for a commit to be durable, or for a slow reader of its results.
    Backpressured,
}

/// How long a task, or all tasks of a query, have done each, and which share of the last seconds that was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TimeShares {
    /// How many tasks.
    pub tasks: u32,
    /// Worked, in seconds since the start.
    pub busy: f64,
    /// Waited for input.
    pub idle: f64,
    /// Waited for the way out.
    pub backpressured: f64,
    /// The shares of the last five to ten seconds, each from 0 to 1; of several tasks their mean.
    pub recent: [f64; 3],
}

impl TimeShares {
    /// Takes in another task's.
    pub fn add(&mut self, other: &Self) {
        let (own, others) = (f64::from(self.tasks), f64::from(other.tasks));
        self.tasks += other.tasks;
        self.busy += other.busy;
        self.idle += other.idle;
        self.backpressured += other.backpressured;
        if other.tasks > 0 {
            for (share, more) in self.recent.iter_mut().zip(other.recent) {
                *share = share.mul_add(own, more * others) / (own + others);
            }
        }
    }
}

/// How long "of late" is at least.
const RECENT: Duration = Duration::from_secs(5);

/// The totals at a moment: of the task, and the work of each operator in nanoseconds.
#[derive(Debug)]
struct Mark {
    at: Instant,
    spent: [Duration; 3],
    operators: Vec<u64>,
}

/// Where the time of one task went.
#[derive(Debug)]
pub(super) struct TimeSpent {
    doing: Doing,
    since: Instant,
    spent: [Duration; 3],
    /// One or two, the older one at the front: what was of late is counted from there.
    marks: VecDeque<Mark>,
}

impl Default for TimeSpent {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl TimeSpent {
    fn new(now: Instant) -> Self {
        let marks = VecDeque::from([Mark { at: now, spent: [Duration::ZERO; 3], operators: Vec::new() }]);
        Self { doing: Doing::Idle, since: now, spent: [Duration::ZERO; 3], marks }
    }

    /// From now on the task does this. `operators` is asked now and then for the work of each operator so far.
    pub(super) fn turn(&mut self, to: Doing, now: Instant, operators: impl FnOnce() -> Vec<u64>) {
        self.spent[self.doing as usize] += now.saturating_duration_since(self.since);
        (self.doing, self.since) = (to, now);
        if self.marks.back().is_none_or(|mark| now.saturating_duration_since(mark.at) >= RECENT) {
            self.marks.push_back(Mark { at: now, spent: self.spent, operators: operators() });
            if self.marks.len() > 2 {
                self.marks.pop_front();
            }
        }
    }

    /// The totals and shares now, and the share of late of each operator.
    pub(super) fn shares(&self, now: Instant, operators: &[u64]) -> (TimeShares, Vec<f64>) {
        let mut spent = self.spent;
        spent[self.doing as usize] += now.saturating_duration_since(self.since);
        let from = self.marks.front();
        let whole = from.map_or(Duration::ZERO, |mark| now.saturating_duration_since(mark.at)).as_secs_f64();
        let share = |seconds: f64| if whole > 0.0 { (seconds / whole).clamp(0.0, 1.0) } else { 0.0 };
        let before = |place: usize| from.map_or(Duration::ZERO, |mark| mark.spent[place]);
        let recent = [0, 1, 2].map(|place| share(spent[place].saturating_sub(before(place)).as_secs_f64()));
        let worked = |(place, nanos): (usize, &u64)| {
            let before = from.and_then(|mark| mark.operators.get(place)).copied().unwrap_or(0);
            share(nanos.saturating_sub(before) as f64 / 1e9)
        };
        let [busy, idle, backpressured] = spent.map(|spent| spent.as_secs_f64());
        (TimeShares { tasks: 1, busy, idle, backpressured, recent }, operators.iter().enumerate().map(worked).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_of_the_last_seconds_and_the_totals_of_all() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut time = TimeSpent::new(begin);
        time.turn(Doing::Busy, at(1000), Vec::new);
        let (shares, _) = time.shares(at(2000), &[]);
        assert_eq!((shares.busy, shares.idle, shares.recent), (1.0, 1.0, [0.5, 0.5, 0.0]));
        // A minute of idleness, then work and waiting for a commit in equal parts.
        time.turn(Doing::Idle, at(2000), Vec::new);
        let mut now = 62_000;
        for round in 0..40 {
            time.turn(Doing::Busy, at(now), || vec![250 * 1_000_000 * round]);
            time.turn(Doing::Backpressured, at(now + 250), || vec![250 * 1_000_000 * round]);
            now += 500;
        }
        let (shares, operators) = time.shares(at(now), &[250 * 1_000_000 * 40]);
        assert_eq!(shares.recent, [0.5, 0.0, 0.5]);
        assert_eq!((shares.busy, shares.idle, shares.backpressured), (11.0, 61.0, 10.0));
        assert!((operators[0] - 0.5).abs() < 0.05, "{operators:?}");
        let sum = shares.busy + shares.idle + shares.backpressured;
        assert_eq!(sum, now as f64 / 1000.0, "it always does one of the three");
    }

    #[test]
    fn of_several_tasks_the_totals_are_added_and_the_shares_are_their_mean() {
        let one = |recent: [f64; 3]| TimeShares { tasks: 1, busy: 1.0, idle: 2.0, backpressured: 0.5, recent };
        let mut all = TimeShares::default();
        for recent in [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]] {
            all.add(&one(recent));
        }
        assert_eq!(all, TimeShares { tasks: 4, busy: 4.0, idle: 8.0, backpressured: 2.0, recent: [0.5, 0.5, 0.0] });
    }
}
