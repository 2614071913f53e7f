//! What the clock decides of a task, and nobody else: that a partition is idle, that a window has waited long enough.
//!
//! Always: a decision stands at the beginning of a commit, and what follows from it in the same one, so that a restart repeats it where it
//! fell. What steps the operators from outside is noted in the same way.

use std::time::{Duration, Instant};

use super::{Task, WEIGH_RATIO};
use crate::stream::checkpoint::Decision;
use crate::stream::element::Output;
use crate::stream::inputs::Input;
use crate::stream::operator::StreamError;
use crate::time::Timestamp;

impl Task {
    /// How long until the clock may have something to decide, or a commit is due.
    pub(super) fn next_timer(&self) -> Option<Duration> {
        let now = self.clock.now();
        let commit = self.uncommitted_since.map(|since| self.spec.pace.commit_interval.saturating_sub(since.elapsed()));
        let merged = self.merges() || self.peers.is_some();
        let quiet = self.inputs.iter().filter_map(|input| {
            let since = input.quiet?.since;
            let left = |after: Duration| {
                let left_ms = since.plus(after.as_millis() as i64).since(now).max(0);
                self.clock.real(Duration::from_millis(left_ms as u64))
            };
            let idle = self.spec.sources[input.source].idle_timeout.filter(|_| merged && !input.idle).map(left);
            let timeout = self.spec.timeout.map(|after| {
                // Past the timeout itself, look again each second: a window's end may pass meanwhile.
                let wait = left(after);
                if wait.is_zero() { self.clock.real(Duration::from_secs(1)).min(Duration::from_secs(1)) } else { wait }
            });
            idle.into_iter().chain(timeout).min()
        });
        let telling = self.spec.every.filter(|_| self.chain.has_changes()).map(|every| {
            let left_ms = self.told_at.plus(every.as_millis() as i64).since(now).max(0);
            self.clock.real(Duration::from_millis(left_ms as u64))
        });
        let (at, took, changed) = self.weighed;
        let weighing = changed.then(|| (took * WEIGH_RATIO).saturating_sub(at.elapsed()));
        commit.into_iter().chain(quiet).chain(telling).chain(weighing).min().map(|wait| wait.max(Duration::from_millis(1)))
    }

    /// Asks the clock whether a quiet partition is idle, or a window has waited long enough.
    pub(super) async fn clock_decides(&mut self) -> Result<(), StreamError> {
        let now = self.clock.now();
        if self.bus.trouble().is_some() {
            // What cannot be read is not read to its end: its silence begins when it can be.
            for quiet in self.inputs.iter_mut().filter_map(|input| input.quiet.as_mut()) {
                quiet.since = now;
            }
            return Ok(());
        }
        let mut decisions = Vec::new();
        let waited = |input: &Input, after: Option<Duration>| {
            after.zip(input.quiet).is_some_and(|(after, quiet)| quiet.upto.since(quiet.since) >= after.as_millis() as i64)
        };
        let is_silent = self.inputs.iter().any(|i| waited(i, self.spec.timeout));
        let is_idle = |input: &Input| input.idle || waited(input, self.spec.sources[input.source].idle_timeout);
        let mut follow = None;
        if let Some(peers) = self.peers.as_mut().filter(|_| is_silent || self.inputs.iter().all(is_idle)) {
            let was_idle = self.inputs.iter().all(|input| input.idle);
            let to = peers.follow(self.bus.as_ref(), self.inputs[0].stamper.watermark(), was_idle).await?;
            follow = Some(to).filter(|to| self.inputs.iter().all(is_idle) && *to > self.merged);
        }
        let due = if is_silent { self.chain.due(now).max(self.peers.as_ref().and_then(|peers| peers.latest(now))) } else { None };
        for input in &self.inputs {
            if let Some(to) = due
                && waited(input, self.spec.timeout)
                && to > input.stamper.watermark()
                && to.0 > input.timed_out_to
            {
                decisions.push(Decision::Timeout { partition: input.number, to: to.0 });
            }
            if (self.merges() || self.peers.is_some()) && !input.idle && waited(input, self.spec.sources[input.source].idle_timeout) {
                decisions.push(Decision::Idle { partition: input.number });
            }
        }
        decisions.extend(follow.map(|to| Decision::Follow { to: to.0 }));
        if decisions.is_empty() {
            return Ok(());
        }
        // A decision stands at the beginning of a commit: what was read before it goes first.
        self.commit().await?;
        for decision in decisions {
            let out = self.decide(&decision)?;
            self.pending.decisions.push(decision);
            self.put(out, None)?;
        }
        self.uncommitted_since.get_or_insert_with(Instant::now);
        self.commit().await
    }

    pub(super) async fn external(&mut self, body: String) -> Result<(), StreamError> {
        self.commit().await?;
        let decision = Decision::External { body, at: self.clock.now().0 };
        let out = self.decide(&decision)?;
        self.pending.decisions.push(decision);
        self.put(out, None)?;
        self.uncommitted_since.get_or_insert_with(Instant::now);
        self.commit().await
    }

    pub(super) fn decide(&mut self, decision: &Decision) -> Result<Output, StreamError> {
        let mut out = Output::default();
        match decision {
            Decision::Idle { partition } => {
                for input in self.inputs.iter_mut().filter(|i| i.number == *partition) {
                    input.idle = true;
                }
            }
            Decision::Timeout { partition, to } => {
                for input in self.inputs.iter_mut().filter(|i| i.number == *partition) {
                    input.stamper.raise(Timestamp(*to));
                    input.timed_out_to = *to;
                }
                self.carry_watermark(&mut out)?;
            }
            Decision::Follow { to } => self.tell(Timestamp(*to), &mut out)?,
            Decision::External { body, at } => self.chain.external(body, Timestamp(*at), &mut out)?,
        }
        Ok(out)
    }
}
