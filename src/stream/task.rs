//! The task: a state machine over its input partitions, run in rounds.
//!
//! A round takes what each input partition has, stamps it with time, carries it through the operators and
//! the sink, and, when there is something to say or enough time has passed, commits: outputs, positions
//! and what the clock decided, in one append group. Always: what a task has committed is a function of
//! its input up to the committed positions and of the decisions noted in its commits, so that a restart
//! (newest snapshot, then commit by commit, outputs suppressed) stands exactly where the last commit did.
//! Started and watched over by `sql`'s engine.

mod ahead;
mod clock;
mod commit;
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
use super::checkpoint::{self, CommitRecord};
use super::element::Output;
use super::feed::{Chunk, Following};
use super::inputs::{Input, SourceSpec, inputs_of, source_of};
use super::letters;
use super::operator::{Scope, StreamError};
use super::operator_stats::OperatorStats;
use super::peers::Peers;
use super::sink::{Outputs, Sink};
use super::source::{AheadJudge, AheadRows, Piece};
use super::stats::{InputProgress, TaskStats};
use super::time_spent::Doing;
use crate::bus::{Bus, Committer, TaskId, checkpoint_topic};
use crate::record::{Offset, PartitionId, TopicPartition};
use crate::time::{Clock, Timestamp};

/// One commit holds at most about this much output; a round that has made more is cut here.
const COMMIT_BYTES: usize = 16 << 20;
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
