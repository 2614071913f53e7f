//! The task: a state machine over its input partitions, run in rounds.
//!
//! A round takes what each input partition has, stamps it with time, carries it through the operators and
//! the sink, and, when there is something to say or enough time has passed, commits: outputs, positions
//! and what the clock decided, in one append group. Always: what a task has committed is a function of
//! its input up to the committed positions and of the decisions noted in its commits, so that a restart
//! (newest snapshot, then commit by commit, outputs suppressed) stands exactly where the last commit did.
//! Started and watched over by `sql`'s engine.

mod ahead;
mod handover;
mod phase;
mod restore;
mod savepoint;

pub use ahead::Delivery;
pub use handover::hand_over;
pub use phase::{Phase, plan_of};
pub use savepoint::{Origin, Saved, SavedInput, has_begun, save};

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::budget::{Share, StateBudget};
use super::chain::Chain;
use super::checkpoint::{self, CommitRecord, Decision};
use super::element::Output;
use super::feed::{Chunk, Following};
use super::heard;
use super::inputs::{Input, SourceSpec, inputs_of, source_of};
use super::letters;
use super::operator::{Scope, StateWriter, StreamError};
use super::operator_stats::OperatorStats;
use super::peers::Peers;
use super::sink::{Outputs, Sink};
use super::snapshot::SnapshotRecords;
use super::source::{AheadJudge, AheadRows, Piece};
use super::stats::{InputProgress, TaskStats};
use super::time_spent::Doing;
use crate::bus::{Bus, Commit, Committer, TaskId, checkpoint_topic};
use crate::record::{BatchBuilder, Offset, PartitionId, TopicPartition};
use crate::time::{Clock, Timestamp};

/// One commit holds at most about this much output; a round that has made more is cut here.
const COMMIT_BYTES: usize = 16 << 20;
/// While a task catches up, its results wait for company until they have this many bytes.
const CATCH_UP_BYTES: usize = 4 << 20;
/// What is held is found by looking through it: after a look, so many times its length goes by before the next one.
const WEIGH_RATIO: u32 = 50;

/// Where a task without a checkpoint begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// The first record that is there.
    Earliest,
    /// Behind the last record that is there.
    Latest,
    /// The first record whose timestamp is at or after this.
    At(Timestamp),
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A commit without output waits this long for company, and one with output while more input lies ready.
    pub commit_interval: Duration,
    /// A snapshot is taken after this much input ..
    pub snapshot_bytes: usize,
    /// .. or after this long, if anything was read.
    pub snapshot_interval: Duration,
    /// How it reads what other tasks read too.
    pub following: Following,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_millis(100),
            snapshot_bytes: 64 << 20,
            snapshot_interval: Duration::from_secs(30),
            following: Following::Together,
        }
    }
}

/// All that a task is made of.
pub struct TaskSpec {
    /// Its name, and the place of its checkpoint.
    pub id: TaskId,
    /// What it reads: one source, or those of a join from left to right.
    pub sources: Vec<SourceSpec>,
    /// One partition (of each source), or all of them merged.
    pub scope: Scope,
    /// The query's TIMEOUT.
    pub timeout: Option<Duration>,
    /// How often results that are kept up to date are told; with every commit where nothing is said.
    pub every: Option<Duration>,
    /// Tells this plan's state from another's: where a checkpoint has another one, the state is made again from the input.
    pub fingerprint: String,
    /// How long things take.
    pub pace: Pace,
    /// How often a result may be written.
    pub delivery: Delivery,
    /// What the query's tasks may hold together.
    pub budget: Arc<StateBudget>,
    /// The savepoint it begins from, unless it has done so before.
    pub origin: Option<Origin>,
    /// Which phase of an aggregate it is, where that has two.
    pub phase: Option<Phase>,
}

/// What a running task is told.
pub enum Control {
    /// Steps the operators from outside; answered once it is committed.
    External {
        /// In the operator's own terms.
        body: String,
        /// Told the outcome.
        done: oneshot::Sender<Result<(), StreamError>>,
    },
    /// Commit, take a snapshot, and end.
    Stop,
}

/// A task with its state, its place in the input, and its way out.
pub struct Task {
    spec: TaskSpec,
    bus: Arc<dyn Bus>,
    clock: Clock,
    chain: Chain,
    sink: Box<dyn Sink>,
    stats: Arc<TaskStats>,
    /// `None` for a watcher (`EMIT CHANGES`), which leaves no trace.
    committer: Option<Box<dyn Committer>>,
    inputs: Vec<Input>,
    merged: Timestamp,
    epoch: u64,
    outputs: Outputs,
    pending: CommitRecord,
    uncommitted_since: Option<Instant>,
    /// Whether the last look left input lying.
    is_behind: bool,
    /// When results that are kept up to date were last told.
    told_at: Timestamp,
    since_snapshot: usize,
    snapshot_at: Instant,
    /// The counters of its way out.
    sink_stats: Arc<OperatorStats>,
    /// Its part of what the query may hold.
    share: Share,
    /// When its state was last weighed, how long that took, and whether it may have changed since.
    weighed: (Instant, Duration, bool),
    /// Whether it then held more than it may until what had just been worked on went to the disk.
    pressed: bool,
    /// The tasks beside it that it follows while its partition is idle.
    peers: Option<Peers>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stats.turn(Doing::Idle);
    }
}

impl Task {
    /// Takes over the task, restores it, and replays what it had committed since its last snapshot.
    pub async fn open(
        spec: TaskSpec,
        chain: Chain,
        sink: Box<dyn Sink>,
        bus: Arc<dyn Bus>,
        clock: Clock,
        stats: Arc<TaskStats>,
    ) -> Result<Self, StreamError> {
        let committer = bus.committer(&spec.id).await?;
        let mut restored = checkpoint::read(bus.as_ref(), &checkpoint_place(&spec.id), spec.budget.space()).await?;
        let mut anew = None;
        if let Some(origin) = spec.origin.as_ref().filter(|origin| !restored.has_begun_from(&origin.mark)) {
            anew = Some(restored.epoch());
            restored = origin.read(bus.as_ref(), &spec.id, spec.budget.space()).await?;
        }
        let mut task = Self::new(spec, chain, sink, bus, clock, stats, Some(committer));
        task.restore(restored, anew).await?;
        Ok(task)
    }

    /// A task that keeps no checkpoint and writes nothing: it shows rows to whoever watches.
    pub async fn watch(
        spec: TaskSpec,
        chain: Chain,
        sink: Box<dyn Sink>,
        bus: Arc<dyn Bus>,
        clock: Clock,
        stats: Arc<TaskStats>,
    ) -> Result<Self, StreamError> {
        let mut task = Self::new(spec, chain, sink, bus, clock, stats, None);
        task.begin().await?;
        task.count();
        Ok(task)
    }

    fn new(
        spec: TaskSpec,
        chain: Chain,
        sink: Box<dyn Sink>,
        bus: Arc<dyn Bus>,
        clock: Clock,
        stats: Arc<TaskStats>,
        committer: Option<Box<dyn Committer>>,
    ) -> Self {
        let inputs = inputs_of(&spec.sources, spec.pace.following);
        let told_at = clock.now();
        let share = Share::new(&spec.budget);
        let peers = spec.phase.as_ref().and_then(Phase::peers);
        stats.turn(Doing::Busy);
        Self {
            spec,
            bus,
            clock,
            chain,
            sink,
            stats,
            committer,
            inputs,
            merged: Timestamp::MIN,
            epoch: 0,
            outputs: Outputs::default(),
            pending: CommitRecord::default(),
            uncommitted_since: None,
            is_behind: false,
            told_at,
            since_snapshot: 0,
            snapshot_at: Instant::now(),
            sink_stats: Arc::default(),
            share,
            weighed: (Instant::now(), Duration::ZERO, true),
            pressed: false,
            peers,
        }
    }

    /// From now on what the operators do is counted. What a replay repeated has been counted when it was first done.
    fn count(&mut self) {
        self.sink_stats = self.chain.count_in(&self.stats, Some("sink")).expect("there are counters for the sink");
    }

    /// Looks how much the operators hold, if it is time to; what is too much in memory goes to the disk, as far as it is cold and
    /// there is room. An error where the query holds more than it may.
    fn weigh(&mut self) -> Result<(), StreamError> {
        self.share.check()?;
        let (at, took, changed) = self.weighed;
        if !changed || at.elapsed() < took * WEIGH_RATIO {
            return Ok(());
        }
        let begun = Instant::now();
        let mut weight = self.chain.weigh();
        let mut took = begun.elapsed();
        let mut pressed = false;
        if let Some((want, space)) = self.share.excess(weight.bytes as u64) {
            let mut freed = self.chain.spill(want, &space)?;
            weight = self.chain.weigh();
            pressed = self.share.is_too_much(weight.bytes as u64);
            if pressed && !self.pressed {
                // Very much has come at once, all of it worked on since it was last asked: by now it is not. Where that is so time
                // after time, what is worked on does not fit.
                freed += self.chain.spill(want, &space)?;
                weight = self.chain.weigh();
            }
            if freed == 0 {
                // It is looked for in vain no more often than it is weighed.
                took = begun.elapsed();
            }
            self.share.eased(weight.bytes as u64);
        }
        self.pressed = pressed;
        self.weighed = (Instant::now(), took, false);
        self.stats.holds(weight.bytes as u64, weight.spilled);
        let name = || format!("{}-{}", weight.place, self.chain.names()[weight.place]);
        self.share.holds(weight.bytes as u64, &name, weight.most as u64)
    }

    /// Runs until told to stop, until the log closes, or until something fails.
    pub async fn run(mut self, mut control: mpsc::Receiver<Control>) -> Result<(), StreamError> {
        loop {
            self.stats.turn(Doing::Busy);
            let moved = self.round().await?;
            self.stats.turn(Doing::Backpressured);
            self.sink.flush().await?;
            self.stats.turn(Doing::Busy);
            self.go_ahead().await?;
            if self.must_commit() {
                self.commit().await?;
            }
            if self.snapshot_due() {
                self.snapshot().await?;
            }
            self.weigh()?;
            if !moved {
                self.stats.turn(Doing::Idle);
            }
            tokio::select! {
                biased;
                told = control.recv() => match told {
                    Some(Control::External { body, done }) => {
                        let outcome = self.external(body).await;
                        let failed = outcome.is_err();
                        let _ = done.send(outcome);
                        if failed {
                            return Err(StreamError::Limit("a step from outside failed".to_owned()));
                        }
                    }
                    Some(Control::Stop) | None => return self.stop().await,
                },
                () = std::future::ready(()), if moved => {}
                waited = self.something_to_do() => waited?,
            }
        }
    }

    async fn stop(mut self) -> Result<(), StreamError> {
        if self.committer.is_some() {
            self.commit().await?;
            self.snapshot().await?;
        }
        Ok(())
    }

    /// Completes when an input has more, or a clock decision or a commit is due.
    async fn something_to_do(&mut self) -> Result<(), StreamError> {
        let timer: Pin<Box<dyn Future<Output = ()> + Send>> = match self.next_timer() {
            Some(after) => Box::pin(tokio::time::sleep(after)),
            None => Box::pin(std::future::pending()),
        };
        // By reference to the bus and the inputs alone: operators and sinks need not be shared between threads.
        let (bus, inputs) = (&self.bus, &self.inputs);
        let mut waits: FuturesUnordered<_> = inputs.iter().map(|i| bus.wait(i.feed.partition(), i.position)).collect();
        if let Some(peers) = self.peers.as_ref().filter(|_| inputs.iter().all(|i| i.idle)) {
            let (place, from) = peers.place();
            waits.push(bus.wait(place, from));
        }
        tokio::select! {
            Some(first) = waits.next() => first.map_err(StreamError::from),
            () = timer => Ok(()),
            () = self.share.found_full() => self.share.check(),
        }
    }

    /// How long until the clock may have something to decide, or a commit is due.
    fn next_timer(&self) -> Option<Duration> {
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

    /// One look at every input. Answers whether any had something.
    async fn round(&mut self) -> Result<bool, StreamError> {
        let mut moved = false;
        self.is_behind = false;
        for index in 0..self.inputs.len() {
            let position = self.inputs[index].position;
            let (begun, now) = (Instant::now(), self.clock.now());
            match self.inputs[index].feed.poll(position).await? {
                Some(chunk) => {
                    moved = true;
                    self.is_behind |= chunk.is_full();
                    self.take(index, &chunk, begun)?;
                    self.weigh()?;
                }
                None => self.inputs[index].is_quiet(now),
            }
            if self.outputs.bytes() >= COMMIT_BYTES {
                self.commit().await?;
            }
        }
        self.clock_decides().await?;
        Ok(moved)
    }

    /// Takes what a chunk has at and behind the position; `begun` is when it was asked for.
    fn take(&mut self, index: usize, chunk: &Arc<Chunk>, begun: Instant) -> Result<(), StreamError> {
        let mut out = Output::default();
        let mut ahead = AheadRows::default();
        let now = self.clock.now();
        let pieces = self.stamp(index, chunk, chunk.next, AheadJudge::Clock(now, &mut ahead), &mut out)?;
        let input = &mut self.inputs[index];
        input.position = chunk.next;
        let tells = tell_time(&pieces);
        input.idle &= !tells;
        // What tells no time (rows ahead of the clock, records that are no rows) does not keep the clock from deciding.
        if tells {
            input.quiet = None;
        } else {
            input.is_quiet(now);
        }
        let number = input.number;
        input.heard.note(&ahead);
        self.pending.note_ahead(number, &ahead);
        let rows = pieces.iter().map(|piece| if let Piece::Rows(rows) = piece { rows.len() } else { 0 }).sum::<usize>();
        self.stats.took(rows as u64, ahead.ahead.len() as u64);
        self.chain.note_read(self.inputs[index].source, rows, out.aside.len(), begun.elapsed());
        self.weighed.2 = true;
        self.since_snapshot += chunk.raw_bytes();
        self.uncommitted_since.get_or_insert_with(Instant::now);
        self.carry(index, &pieces, &mut out)?;
        self.put(out, Some((index, chunk)))
    }

    /// Whether time comes from several inputs.
    fn merges(&self) -> bool {
        self.spec.scope == Scope::Merged || self.inputs.len() > 1
    }

    /// What a chunk says from an input's position up to `upto`, stamped; of a table its deletions too.
    fn stamp(
        &mut self,
        index: usize,
        chunk: &Chunk,
        upto: Offset,
        judge: AheadJudge<'_>,
        out: &mut Output,
    ) -> Result<Vec<Piece>, StreamError> {
        let input = &mut self.inputs[index];
        if self.spec.sources[input.source].is_table {
            return input.stamper.stamp_pieces(chunk, input.position, upto, judge, &mut out.aside);
        }
        Ok(vec![Piece::Rows(input.stamper.stamp(chunk, input.position, upto, judge, &mut out.aside)?)])
    }

    /// What an input says through the operators; with one input, its watermark behind it.
    fn carry(&mut self, index: usize, pieces: &[Piece], out: &mut Output) -> Result<(), StreamError> {
        for piece in pieces {
            self.chain.piece_of(self.inputs[index].source, piece, out)?;
        }
        self.carry_watermark(out)
    }

    /// With several partitions: the minimum over the active ones, never back.
    fn advance_merged(&mut self) -> Result<Output, StreamError> {
        let mut out = Output::default();
        if !self.merges() {
            return Ok(out);
        }
        let marks = |idle: bool| self.inputs.iter().filter(move |i| i.idle == idle).map(|i| i.stamper.watermark());
        let least = marks(false).min().or_else(|| marks(true).filter(|at| *at > Timestamp::MIN).min());
        if let Some(at) = least {
            self.tell(at, &mut out)?;
        }
        Ok(out)
    }

    /// What came out of the operators, on its way to the log.
    fn put(&mut self, out: Output, from: Option<(usize, &Arc<Chunk>)>) -> Result<(), StreamError> {
        let now = self.clock.now();
        let mut failed = out.failed;
        let (mut rows_out, failed_before) = (0, failed.len());
        if !out.rows.is_empty() {
            let begun = Instant::now();
            for rows in &out.rows {
                rows_out += rows.len() as u64;
                failed.extend(self.sink.rows(rows, now, &mut self.outputs)?);
            }
            let not_written = (failed.len() - failed_before) as u64;
            self.sink_stats.count(rows_out, rows_out.saturating_sub(not_written), 0, not_written);
            self.sink_stats.worked(begun.elapsed());
        }
        self.stats.gave(rows_out, out.aside.len() as u64, failed.len() as u64);
        if !out.aside.is_empty() || !failed.is_empty() {
            let (sources, outputs) = (&self.spec.sources, &mut self.outputs);
            if let Some((input, chunk)) = from {
                let letters = &sources[self.inputs[input].source].letters;
                letters::write(letters, &out.aside, &failed, Some(chunk.as_ref()), now, outputs);
            } else {
                // Rows that have waited say themselves of which source they are; results are of none.
                let letters = |number| &sources.get(source_of(number)).unwrap_or(&sources[0]).letters;
                for rows in out.aside.chunk_by(|a, b| source_of(a.partition) == source_of(b.partition)) {
                    letters::write(letters(rows[0].partition), rows, &[], None, now, outputs);
                }
                for rows in failed.chunk_by(|a, b| source_of(a.partition) == source_of(b.partition)) {
                    letters::write(letters(rows[0].partition), &[], rows, None, now, outputs);
                }
            }
        }
        if rows_out > 0 {
            self.uncommitted_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Asks the clock whether a quiet partition is idle, or a window has waited long enough.
    async fn clock_decides(&mut self) -> Result<(), StreamError> {
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

    async fn external(&mut self, body: String) -> Result<(), StreamError> {
        self.commit().await?;
        let decision = Decision::External { body, at: self.clock.now().0 };
        let out = self.decide(&decision)?;
        self.pending.decisions.push(decision);
        self.put(out, None)?;
        self.uncommitted_since.get_or_insert_with(Instant::now);
        self.commit().await
    }

    fn decide(&mut self, decision: &Decision) -> Result<Output, StreamError> {
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

    fn carry_watermark(&mut self, out: &mut Output) -> Result<(), StreamError> {
        if self.merges() { Ok(()) } else { self.tell(self.inputs[0].stamper.watermark(), out) }
    }

    /// Tells the operators a watermark, never back.
    fn tell(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        if at > self.merged {
            self.merged = at;
            self.weighed.2 = true;
            self.chain.watermark(at, out)?;
        }
        Ok(())
    }

    /// Whether results that are kept up to date have changed, and it is time to tell.
    fn is_to_tell(&self) -> bool {
        let is_time = |every: Duration| self.clock.now().since(self.told_at) >= every.as_millis() as i64;
        self.chain.has_changes() && self.spec.every.is_none_or(is_time)
    }

    fn must_commit(&self) -> bool {
        if self.spec.every.is_some() && self.is_to_tell() {
            return true;
        }
        let Some(since) = self.uncommitted_since else { return false };
        since.elapsed() >= self.spec.pace.commit_interval || may_leave(&self.outputs, self.is_behind)
    }

    /// Writes what is pending: outputs, positions, decisions, together or not at all. What has changed and is more than one
    /// commit should hold goes in several.
    async fn commit(&mut self) -> Result<(), StreamError> {
        let mut has_more = self.spec.every.is_some() && self.is_to_tell();
        while has_more || self.uncommitted_since.is_some() {
            has_more = self.commit_once(has_more).await?;
        }
        self.note_progress();
        Ok(())
    }

    /// One commit, which tells what has changed where that is due, or where an earlier one has begun to. Answers whether
    /// there is more to tell.
    async fn commit_once(&mut self, goes_on: bool) -> Result<bool, StreamError> {
        let out = self.advance_merged()?;
        self.put(out, None)?;
        let mut has_more = false;
        if goes_on || self.is_to_tell() {
            let mut out = Output::default();
            has_more = self.chain.flush(&mut out)?;
            self.put(out, None)?;
            self.pending.told = true;
            self.told_at = self.clock.now();
        }
        let standing = self.standing();
        self.sink.stands(standing, self.clock.now(), &mut self.outputs);
        let outputs = self.outputs.take();
        self.uncommitted_since = None;
        self.epoch += 1;
        let mut record = std::mem::take(&mut self.pending);
        record.epoch = self.epoch;
        record.positions = self.inputs.iter().map(|i| (i.number, i.position.0)).collect();
        if let Some(committer) = &mut self.committer {
            let mut checkpoint = BatchBuilder::new();
            checkpoint::put_commit(&mut checkpoint, self.clock.now().0, &record);
            let begun = Instant::now();
            self.stats.turn(Doing::Backpressured);
            committer.commit(Commit { outputs, checkpoint: Some(checkpoint) }).await?;
            self.stats.turn(Doing::Busy);
            self.stats.committed(begun.elapsed());
        }
        Ok(has_more)
    }

    fn snapshot_due(&self) -> bool {
        self.committer.is_some()
            && self.uncommitted_since.is_none()
            && self.since_snapshot > 0
            && (self.since_snapshot >= self.spec.pace.snapshot_bytes || self.snapshot_at.elapsed() >= self.spec.pace.snapshot_interval)
    }

    /// Writes the whole state, and lets go of what it replaces.
    async fn snapshot(&mut self) -> Result<(), StreamError> {
        let state = self.state()?;
        let manifest = self.manifest();
        // What lies on the disk is brought part by part while they are written.
        let records = SnapshotRecords::new(manifest, state);
        let Some(committer) = &mut self.committer else { return Ok(()) };
        self.stats.turn(Doing::Backpressured);
        let at = self.clock.now().0;
        let mut first = None;
        let mut checkpoint = BatchBuilder::new();
        for record in records {
            let (key, value) = record?;
            // A part must not push a batch over the limit of a record batch.
            if !checkpoint.is_empty() && checkpoint.size() + value.len() > checkpoint::PART_BYTES + 64 * 1024 {
                let full = std::mem::take(&mut checkpoint);
                let start = committer.commit(Commit { outputs: Vec::new(), checkpoint: Some(full) }).await?;
                first = first.or(start);
            }
            checkpoint.push(at, Some(key), Some(&value), &[]);
        }
        let start = committer.commit(Commit { outputs: Vec::new(), checkpoint: Some(checkpoint) }).await?;
        if let Some(first) = first.or(start) {
            self.bus.trim(&checkpoint_place(&self.spec.id), first).await?;
        }
        self.since_snapshot = 0;
        self.snapshot_at = Instant::now();
        self.pin();
        self.let_go().await?;
        self.stats.turn(Doing::Busy);
        self.stats.snapshot();
        Ok(())
    }

    /// All that the task remembers.
    fn state(&mut self) -> Result<StateWriter, StreamError> {
        let mut state = StateWriter::default();
        self.chain.save(&mut state)?;
        heard::save(self.inputs.iter().map(|input| (input.number, &input.heard)), &mut state)?;
        Ok(state)
    }

    /// The input from here on is needed until the next snapshot.
    fn pin(&self) {
        for input in &self.inputs {
            // A partition may be read twice, as the two sides of a join.
            let same = self.inputs.iter().filter(|other| other.feed.partition() == input.feed.partition());
            self.bus.pin(&self.spec.id, input.feed.partition(), same.map(|input| input.position).min());
        }
    }

    fn note_progress(&self) {
        for input in &self.inputs {
            let (source, partition, position, idle) = (input.source, input.partition, input.position, input.idle);
            self.stats.progress(input.number, InputProgress { source, partition, position, watermark: input.stamper.watermark(), idle });
        }
        for source in 0..self.spec.sources.len() {
            let marks = self.inputs.iter().filter(|input| input.source == source).map(|input| input.stamper.watermark());
            self.chain.source_stats(source).at(marks.min().unwrap_or(Timestamp::MIN));
        }
        self.sink_stats.at(self.merged);
    }
}

/// Whether results are written at once: those of a task that keeps up are, those of one that catches up wait until there are many.
/// Where a commit falls changes nothing of what is in them.
fn may_leave(outputs: &Outputs, is_behind: bool) -> bool {
    !outputs.is_empty() && (!is_behind || outputs.bytes() >= CATCH_UP_BYTES)
}

fn tell_time(pieces: &[Piece]) -> bool {
    pieces.iter().any(|piece| matches!(piece, Piece::Rows(rows) if rows.tell_time()))
}

/// The partition of the checkpoint topic that belongs to a task.
#[must_use]
pub fn checkpoint_place(id: &TaskId) -> TopicPartition {
    TopicPartition::new(checkpoint_topic(&id.owner), PartitionId(id.index))
}

/// Where a partition is entered by a task that has no checkpoint.
pub async fn start_of(bus: &dyn Bus, of: &TopicPartition, start: StartAt) -> Result<Offset, StreamError> {
    let bounds = bus.bounds(of).await?;
    Ok(match start {
        StartAt::Earliest => bounds.start,
        StartAt::Latest => bounds.end,
        StartAt::At(at) => bus.offset_at(of, at.0).await?.unwrap_or(bounds.end),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TopicName;

    #[test]
    fn results_leave_at_once_unless_the_task_catches_up_and_they_are_few() {
        let to = TopicPartition::new(TopicName::new("o").unwrap(), PartitionId(0));
        let outputs = |bytes: usize| {
            let mut outputs = Outputs::default();
            (0..bytes / 1024).for_each(|_| outputs.push(&to, 0, None, Some(&[7; 1024]), &[]));
            outputs
        };
        for (bytes, is_behind, leave) in [
            (0, false, false),
            (0, true, false),
            (1024, false, true),
            (1024, true, false),
            (CATCH_UP_BYTES / 2, true, false),
            (CATCH_UP_BYTES, false, true),
            (CATCH_UP_BYTES, true, true),
        ] {
            assert_eq!(may_leave(&outputs(bytes), is_behind), leave, "{bytes} bytes, behind: {is_behind}");
        }
    }
}
