//! A stream's intake: judges each of its records once, and alone writes its dead letters.
//!
//! One intake task a partition, running while anything reads the stream. Always: a dead letter and the
//! position behind the record it is about are in one commit, so each bad record is written once, whatever
//! happens in between. Queries skip the same records without a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::checkpoint::{self, CommitRecord};
use super::feed::Feed;
use super::letters::{self, LetterBox};
use super::operator::StreamError;
use super::sink::Outputs;
use super::task::{StartAt, checkpoint_place, start_of};
use crate::bus::{Bus, BusError, Commit, Committer, TaskId, attend};
use crate::record::{BatchBuilder, Offset};
use crate::time::Clock;

/// A position without dead letters is written at most this often: what was judged since is judged again
/// after a crash, with the same result.
const POSITION_INTERVAL: Duration = Duration::from_secs(5);
/// How long it waits before it asks a schema registry again that did not answer.
const REGISTRY_WAIT: Duration = Duration::from_secs(1);
/// The checkpoint is cut back after so many commits.
const TRIM_COMMITS: u64 = 64;

/// What happens to a record that is no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadRecords {
    /// Counted, and left where it is.
    Skip,
    /// Copied to this topic, with the reason.
    DeadLetter(LetterBox),
}

/// Judges one partition of one stream.
pub struct Intake {
    /// Its name, and the place of its checkpoint.
    pub id: TaskId,
    /// The stream, for the header.
    pub stream: String,
    /// The partition.
    pub feed: Arc<Feed>,
    /// What happens to bad records.
    pub bad: BadRecords,
    /// How many records were bad, for `/metrics`.
    pub count: Arc<AtomicU64>,
    /// The log.
    pub bus: Arc<dyn Bus>,
    /// The time dead letters carry.
    pub clock: Clock,
}

impl Intake {
    /// Runs until told to stop, whenever the partition is this process's to judge.
    pub async fn attend(self, stop: watch::Receiver<bool>) -> Result<(), StreamError> {
        let passes = |error: &StreamError| matches!(error, StreamError::Bus(BusError::Retriable(_)));
        attend(self.bus.as_ref(), &self.id, stop, |stop| self.run(stop), passes).await
    }

    /// Runs until told to stop.
    async fn run(&self, mut stop: watch::Receiver<bool>) -> Result<(), StreamError> {
        let mut committer = self.bus.committer(&self.id).await?;
        let restored = checkpoint::read(self.bus.as_ref(), &checkpoint_place(&self.id), None).await?;
        let partition = self.feed.partition().clone();
        let mut position = match restored.commits.last().and_then(|c| c.positions.get(&partition.partition.0)) {
            Some(at) => Offset(*at).max(self.bus.bounds(&partition).await?.start),
            None => start_of(self.bus.as_ref(), &partition, StartAt::Earliest).await?,
        };
        let mut epoch = restored.epoch();
        let (mut written, mut written_at) = (position, Instant::now());
        let mut out = Outputs::default();
        loop {
            let chunk = match self.feed.poll_ahead(position).await {
                Ok(chunk) => chunk,
                Err(StreamError::Bus(BusError::OutOfRange { range, .. })) if range.start > position => {
                    // Retention went past what was not yet judged: nothing reads it any more either.
                    position = range.start;
                    continue;
                }
                Err(StreamError::Registry(error)) => {
                    tracing::warn!(task = %self.id, %error, "an intake waits for its schema registry");
                    tokio::select! {
                        () = tokio::time::sleep(REGISTRY_WAIT) => {}
                        changed = stop.changed() => if changed.is_err() { return Ok(()) },
                    }
                    if *stop.borrow() {
                        return Ok(());
                    }
                    continue;
                }
                Err(error) => {
                    if matches!(error, StreamError::BadRecord { .. }) {
                        self.count.fetch_add(1, Ordering::Relaxed);
                    }
                    return Err(error);
                }
            };
            if let Some(chunk) = &chunk {
                let fresh = chunk.bad.iter().filter(|bad| bad.offset >= position).count();
                if fresh > 0 {
                    self.count.fetch_add(fresh as u64, Ordering::Relaxed);
                    if let BadRecords::DeadLetter(to) = &self.bad {
                        letters::write_bad(&self.stream, &partition, to, chunk, position, self.clock.now(), &mut out);
                    }
                }
                position = chunk.next;
            }
            let stopping = *stop.borrow();
            let due = position > written && (stopping || written_at.elapsed() >= POSITION_INTERVAL);
            if !out.is_empty() || due {
                epoch += 1;
                self.commit(committer.as_mut(), epoch, position, &mut out).await?;
                (written, written_at) = (position, Instant::now());
            }
            if stopping {
                return Ok(());
            }
            if chunk.is_some() {
                continue;
            }
            let later = async {
                if position > written {
                    tokio::time::sleep(POSITION_INTERVAL.saturating_sub(written_at.elapsed())).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                waited = self.bus.wait(&partition, position) => waited?,
                changed = stop.changed() => if changed.is_err() { return Ok(()) },
                () = later => {}
            }
        }
    }

    async fn commit(&self, committer: &mut dyn Committer, epoch: u64, position: Offset, out: &mut Outputs) -> Result<(), StreamError> {
        let positions = [(self.feed.partition().partition.0, position.0)].into();
        let record = CommitRecord { epoch, positions, ..CommitRecord::default() };
        let mut checkpoint = BatchBuilder::new();
        checkpoint::put_commit(&mut checkpoint, self.clock.now().0, &record);
        let at = committer.commit(Commit { outputs: out.take(), checkpoint: Some(checkpoint) }).await?;
        if epoch.is_multiple_of(TRIM_COMMITS)
            && let Some(at) = at
        {
            self.bus.trim(&checkpoint_place(&self.id), at).await?;
        }
        Ok(())
    }
}
