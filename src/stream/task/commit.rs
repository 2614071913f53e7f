//! What a task writes down: commits, and now and then its whole state.
//!
//! Always: outputs, positions and what the clock decided stand in one commit, together or not at all; a snapshot says what a task remembered
//! at one of its commits, and what it replaces is let go of once it is whole.

use std::time::{Duration, Instant};

use super::{Task, checkpoint_place};
use crate::bus::Commit;
use crate::record::BatchBuilder;
use crate::stream::checkpoint;
use crate::stream::element::Output;
use crate::stream::heard;
use crate::stream::operator::{StateWriter, StreamError};
use crate::stream::sink::Outputs;
use crate::stream::snapshot::SnapshotRecords;
use crate::stream::time_spent::Doing;

/// While a task catches up, its results wait for company until they have this many bytes.
const CATCH_UP_BYTES: usize = 4 << 20;

impl Task {
    /// Whether results that are kept up to date have changed, and it is time to tell.
    fn is_to_tell(&self) -> bool {
        let is_time = |every: Duration| self.clock.now().since(self.told_at) >= every.as_millis() as i64;
        self.chain.has_changes() && self.spec.every.is_none_or(is_time)
    }

    pub(super) fn must_commit(&self) -> bool {
        if self.spec.every.is_some() && self.is_to_tell() {
            return true;
        }
        let Some(since) = self.uncommitted_since else { return false };
        since.elapsed() >= self.spec.pace.commit_interval || may_leave(&self.outputs, self.is_behind)
    }

    /// Writes what is pending: outputs, positions, decisions, together or not at all. What has changed and is more than one
    /// commit should hold goes in several.
    pub(super) async fn commit(&mut self) -> Result<(), StreamError> {
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

    pub(super) fn snapshot_due(&self) -> bool {
        self.committer.is_some()
            && self.uncommitted_since.is_none()
            && self.since_snapshot > 0
            && (self.since_snapshot >= self.spec.pace.snapshot_bytes || self.snapshot_at.elapsed() >= self.spec.pace.snapshot_interval)
    }

    /// Writes the whole state, and lets go of what it replaces.
    pub(super) async fn snapshot(&mut self) -> Result<(), StreamError> {
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
    pub(super) fn state(&mut self) -> Result<StateWriter, StreamError> {
        let mut state = StateWriter::default();
        self.chain.save(&mut state)?;
        heard::save(self.inputs.iter().map(|input| (input.number, &input.heard)), &mut state)?;
        Ok(state)
    }

    /// The input from here on is needed until the next snapshot.
    pub(super) fn pin(&self) {
        for input in &self.inputs {
            // A partition may be read twice, as the two sides of a join.
            let same = self.inputs.iter().filter(|other| other.feed.partition() == input.feed.partition());
            self.bus.pin(&self.spec.id, input.feed.partition(), same.map(|input| input.position).min());
        }
    }
}

/// Whether results are written at once: those of a task that keeps up are, those of one that catches up wait until there are many.
/// Where a commit falls changes nothing of what is in them.
fn may_leave(outputs: &Outputs, is_behind: bool) -> bool {
    !outputs.is_empty() && (!is_behind || outputs.bytes() >= CATCH_UP_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{PartitionId, TopicName, TopicPartition};

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
