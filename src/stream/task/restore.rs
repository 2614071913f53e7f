//! How a task comes back: from its checkpoint, or, where that was written by another plan, from its input.
//!
//! A checkpoint that fits gives the state, and the commits behind it are repeated. One of another plan (the query was
//! replaced, or another version of the program plans it in another way) gives only where it stood: positions,
//! watermarks, which partitions were idle. The state is then made again: the input is read once more from where the
//! query began up to there, and what comes out is thrown away, since the plan before has written what it had
//! to say. Always: either way the state is that of a task which had read its input up to the last commit.

use std::collections::BTreeMap;

use super::{StartAt, Task, start_of, tell_time};
use crate::record::{Offset, TopicName};
use crate::stream::checkpoint::{CommitRecord, Manifest, PartitionMark, Restored, moved};
use crate::stream::element::Output;
use crate::stream::heard::{self, Heard};
use crate::stream::operator::StreamError;
use crate::stream::source::{AheadJudge, AheadRows, FAR_AHEAD_MS};
use crate::time::Timestamp;

/// Rows may be this much newer than the watermark that holds when they come: as far ahead of the clock as they may be to
/// count at all, and as much again for the delay of the watermark.
const SLACK_MS: i64 = 2 * FAR_AHEAD_MS;

impl Task {
    /// Sets every input to where a task without a checkpoint begins.
    pub(super) async fn begin(&mut self) -> Result<(), StreamError> {
        for input in &mut self.inputs {
            let start = self.spec.sources[input.source].start;
            input.position = start_of(self.bus.as_ref(), input.feed.partition(), start).await?;
            input.began = input.position;
            input.heard = Heard::from(input.position.0);
        }
        Ok(())
    }

    /// The topics of its sources, in order.
    fn topics(&self) -> Vec<TopicName> {
        self.spec.sources.iter().map(|source| source.letters.source.clone()).collect()
    }

    /// How the task stands now, for a snapshot.
    pub(super) fn manifest(&mut self) -> Manifest {
        let topics = self.topics();
        let marks = self.inputs.iter_mut().map(|input| {
            let (position, watermark) = (input.position.0, input.stamper.watermark().0);
            input.milestones.note(position, watermark);
            let milestones = input.milestones.clone();
            (input.number, PartitionMark { position, watermark, idle: input.idle, began: Some(input.began.0), milestones })
        });
        Manifest {
            epoch: self.epoch,
            fingerprint: self.spec.fingerprint.clone(),
            partitions: marks.collect(),
            topics: topics.iter().map(ToString::to_string).collect(),
            merged: self.merged.0,
            origin: self.spec.origin.as_ref().map(|origin| origin.mark.clone()),
            parts: 0,
            crc: 0,
        }
    }

    /// Goes on from what a checkpoint says; `anew` where that is not the task's own: its own had come to this epoch.
    pub(super) async fn restore(&mut self, mut restored: Restored, anew: Option<u64>) -> Result<(), StreamError> {
        let fits = self.stand_at(&mut restored).await?;
        // What its own checkpoint holds from before counts no more, once a snapshot of a later epoch stands behind it.
        self.epoch = self.epoch.max(anew.unwrap_or(0));
        for input in &self.inputs {
            let bounds = self.bus.bounds(input.feed.partition()).await?;
            if input.position < bounds.start {
                let why = format!(
                    "its input {} begins at offset {} by now, and it stood at {}",
                    input.feed.partition(),
                    bounds.start,
                    input.position
                );
                return Err(StreamError::Restore { operator: self.spec.id.to_string(), why });
            }
        }
        self.count();
        self.weigh()?;
        // A fresh snapshot, so that the pins on the input and the checkpoint's length are right from the start.
        if !restored.commits.is_empty() || restored.snapshot.is_none() || !fits || anew.is_some() {
            self.snapshot().await?;
        } else {
            self.pin();
        }
        if self.spec.every.is_none() && self.chain.has_changes() {
            // It ended between two commits that belong together, or its results are others by now.
            self.uncommitted_since = Some(std::time::Instant::now());
        }
        self.note_progress();
        Ok(())
    }

    /// Stands where the last commit of a checkpoint was, with the state as of then. Answers whether the state was this plan's.
    pub(super) async fn stand_at(&mut self, restored: &mut Restored) -> Result<bool, StreamError> {
        self.begin().await?;
        self.epoch = restored.epoch();
        let topics = self.topics();
        let mut fits = true;
        if let Some((manifest, state)) = &mut restored.snapshot {
            fits = manifest.fingerprint == self.spec.fingerprint && manifest.reads(&topics);
            self.check_plan(fits)?;
            let mut heard = heard::take(state)?;
            if let Some(places) = manifest.moved(&topics) {
                manifest.move_to(&places);
                heard = moved(heard, &places);
                restored.commits.iter_mut().for_each(|commit| commit.move_to(&places));
            }
            self.stand(manifest, &topics, heard).await?;
            if fits {
                self.chain.restore(state)?;
                // The operators have what they need of it.
                state.parts.clear();
                self.merged = Timestamp(manifest.merged);
            } else {
                self.chain.restore_kept(state)?;
                self.refill(manifest).await?;
            }
        }
        for commit in &restored.commits {
            self.replay(commit, fits).await?;
        }
        // What the replay made had already been written.
        let _ = self.outputs.take();
        self.pending = CommitRecord::default();
        self.uncommitted_since = None;
        Ok(fits)
    }

    /// Sets every input to where a checkpoint says that it stood.
    async fn stand(&mut self, stood: &Manifest, topics: &[TopicName], mut heard: BTreeMap<i32, Heard>) -> Result<(), StreamError> {
        for input in &mut self.inputs {
            if let Some(mark) = stood.partitions.get(&input.number) {
                input.idle = mark.idle;
                input.stamper.raise(Timestamp(mark.watermark));
                input.position = Offset(mark.position);
                input.began = mark.began.map_or(Offset::ZERO, Offset);
                input.milestones = mark.milestones.clone();
                // Of a checkpoint that does not say it nothing is known of what was read before.
                input.heard = heard.remove(&input.number).unwrap_or_else(|| Heard::from(mark.position));
            } else if stood.topics.is_empty() || stood.topics.iter().any(|topic| *topic == topics[input.source].as_ref()) {
                // The topic has grown since: the new partition is read from its beginning.
                input.position = start_of(self.bus.as_ref(), input.feed.partition(), StartAt::Earliest).await?;
                input.began = input.position;
                input.heard = Heard::from(input.position.0);
            }
        }
        Ok(())
    }

    /// Makes the state again from the input up to where it stands; nothing is written, and what
    /// outlives a plan is left alone.
    async fn refill(&mut self, stood: &Manifest) -> Result<(), StreamError> {
        let marks: Vec<Option<PartitionMark>> = self.inputs.iter().map(|input| stood.partitions.get(&input.number).cloned()).collect();
        let reach = self.chain.reach_ms();
        if reach == Some(0) {
            // No rows are remembered.
            return Ok(());
        }
        let mut records = 0;
        for (input, mark) in self.inputs.iter_mut().zip(&marks) {
            let Some(mark) = mark else { continue };
            let bounds = self.bus.bounds(input.feed.partition()).await?;
            let is_table = self.spec.sources[input.source].is_table;
            let needed = reach
                .filter(|_| !is_table)
                .and_then(|reach| mark.milestones.before(mark.watermark.saturating_sub(reach).saturating_sub(SLACK_MS)));
            let (from, watermark) = needed.unwrap_or((input.began.0, Timestamp::MIN.0));
            input.position = Offset(from).max(input.began).max(bounds.start).min(Offset(mark.position));
            input.stamper.stand(Timestamp(watermark));
            records += mark.position - input.position.0;
        }
        tracing::info!(task = %self.spec.id, records, "another plan than before: its state is made again from its input");
        self.stats.refills(records.max(0) as u64);
        self.chain.hold_kept(true);
        loop {
            let mut moved = false;
            for (index, mark) in marks.iter().enumerate() {
                if let Some(mark) = mark {
                    moved |= self.refill_from(index, mark).await?;
                }
            }
            let out = self.advance_merged()?;
            self.discard(out)?;
            self.weighed.2 = true;
            self.weigh()?;
            if !moved {
                break;
            }
            // A long one can be stopped, and others get their turn.
            tokio::task::yield_now().await;
        }
        let mut out = Output::default();
        for (input, mark) in self.inputs.iter_mut().zip(&marks) {
            if let Some(mark) = mark {
                input.stamper.bound(Timestamp::MAX);
                input.stamper.raise(Timestamp(mark.watermark));
                input.idle = mark.idle;
            }
        }
        self.carry_watermark(&mut out)?;
        self.discard(out)?;
        let out = self.advance_merged()?;
        self.discard(out)?;
        self.chain.hold_kept(false);
        self.stats.refilled();
        Ok(())
    }

    /// The next of one input's records, up to where it stood. Answers whether there were any.
    async fn refill_from(&mut self, index: usize, mark: &PartitionMark) -> Result<bool, StreamError> {
        let (from, to) = (self.inputs[index].position, Offset(mark.position));
        if from >= to {
            return Ok(false);
        }
        let chunk = self.inputs[index].feed.poll(from).await?;
        let Some(chunk) = chunk else {
            // Retention or a new topic of the same name has taken what was there.
            self.inputs[index].position = to;
            return Ok(false);
        };
        // How far the watermark had come by then is known here and there. What would take it further had been ahead of the clock: it must
        // not close a window now whose result nobody has written, nor make the rows behind it late.
        let known = mark.milestones.behind(from.0).filter(|(at, _)| *at < to.0);
        let (until, most) = known.map_or((to, mark.watermark), |(at, watermark)| (Offset(at), watermark));
        let most = if most == i64::MIN { Timestamp::MAX } else { Timestamp(most) };
        self.inputs[index].stamper.bound(most);
        // What did not move the watermark then, since it was ahead of the clock, does not now: what the clock said is known of the last rows,
        // and of those before it is taken to have said what it would say of them where the query stood.
        let heard = std::mem::take(&mut self.inputs[index].heard);
        let is_known = from.0 >= heard.since();
        let until = if is_known { until } else { until.min(Offset(heard.since())) };
        let upto = chunk.next.min(until);
        let (mut out, mut ignored) = (Output::default(), AheadRows::default());
        let judge = match mark.watermark {
            _ if is_known => AheadJudge::Recorded(heard.rows()),
            i64::MIN => AheadJudge::Nobody,
            at => AheadJudge::Clock(Timestamp(at), &mut ignored),
        };
        let pieces = self.stamp(index, &chunk, upto, judge, &mut out)?;
        self.inputs[index].heard = heard;
        self.stats.refill(upto.0 - from.0);
        self.inputs[index].position = upto;
        self.carry(index, &pieces, &mut out)?;
        self.discard(out)?;
        Ok(true)
    }

    /// Repeats one commit of an earlier run: its decisions, then its rows. What comes out is thrown away; results that are kept
    /// up to date, where they were another plan's, have still to be told.
    async fn replay(&mut self, commit: &CommitRecord, fits: bool) -> Result<(), StreamError> {
        for decision in &commit.decisions {
            let out = self.decide(decision)?;
            self.discard(out)?;
        }
        for index in 0..self.inputs.len() {
            let number = self.inputs[index].number;
            let Some(to) = commit.positions.get(&number).map(|to| Offset(*to)) else { continue };
            let ahead = commit.ahead_of(number);
            while self.inputs[index].position < to {
                let from = self.inputs[index].position;
                let Some(chunk) = self.inputs[index].feed.poll(from).await? else {
                    let why = format!("its input {} is gone from offset {from}", self.inputs[index].feed.partition());
                    return Err(StreamError::Restore { operator: self.spec.id.to_string(), why });
                };
                let mut out = Output::default();
                let upto = chunk.next.min(to);
                let pieces = self.stamp(index, &chunk, upto, AheadJudge::Recorded(&ahead), &mut out)?;
                self.inputs[index].heard.note(&ahead);
                self.inputs[index].idle &= !tell_time(&pieces);
                self.inputs[index].position = upto;
                self.carry(index, &pieces, &mut out)?;
                self.discard(out)?;
                self.weighed.2 = true;
                self.weigh()?;
            }
        }
        let mut out = self.advance_merged()?;
        if commit.told && fits {
            self.chain.flush(&mut out)?;
        }
        self.discard(out)?;
        self.epoch = commit.epoch;
        Ok(())
    }

    fn discard(&mut self, out: Output) -> Result<(), StreamError> {
        // The sink sees the rows too: a sink may carry state of its own. What it made is dropped.
        for rows in out.rows {
            self.sink.rows(&rows, Timestamp(0), &mut self.outputs)?;
        }
        let _ = self.outputs.take();
        Ok(())
    }
}
