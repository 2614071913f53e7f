//! The two phases of an aggregate whose groups lie in several partitions, as tasks.
//!
//! The first reads a partition of the query's stream and hands over parts; the second reads a partition of the query's own topic, in which those lie.
//! That topic is for these tasks alone: what stands in a snapshot of its reader is let go of. Always: neither's state is made again from its
//! input as other tasks' is, since half of it has been handed over to the other; a plan with another state begins anew.

use super::{Task, checkpoint_place};
use crate::bus::{Bus, TaskId};
use crate::stream::checkpoint;
use crate::stream::operator::StreamError;
use crate::stream::peers::{Peers, PeersSpec};
use crate::stream::sink::Standing;
use crate::time::Timestamp;

/// Which phase a task is.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Rows to parts; with whoever it follows while its partition is idle, where clocks matter.
    First(Option<PeersSpec>),
    /// Parts to results.
    Second,
}

impl Phase {
    pub(super) fn peers(&self) -> Option<Peers> {
        match self {
            Self::First(peers) => peers.clone().map(Peers::new),
            Self::Second => None,
        }
    }
}

impl Task {
    /// How far it has come.
    pub(super) fn standing(&self) -> Standing {
        let marks = self.inputs.iter().map(|input| input.stamper.watermark());
        Standing { own: marks.min().unwrap_or(Timestamp::MIN), told: self.merged, is_idle: self.inputs.iter().all(|input| input.idle) }
    }

    /// Lets go of what no restart needs of a topic that nobody else reads.
    pub(super) async fn let_go(&mut self) -> Result<(), StreamError> {
        if matches!(self.spec.phase, Some(Phase::Second)) {
            for input in &self.inputs {
                self.bus.trim(input.feed.partition(), input.position).await?;
            }
        }
        let Standing { own, is_idle, .. } = self.standing();
        if let Some(peers) = self.peers.as_mut().filter(|peers| peers.tidies()) {
            peers.follow(self.bus.as_ref(), own, is_idle).await?;
            if let Some(needed) = peers.needed() {
                self.bus.trim(peers.place().0, needed).await?;
            }
        }
        Ok(())
    }

    /// A state in two halves is not made again.
    pub(super) fn check_plan(&self, fits: bool) -> Result<(), StreamError> {
        if fits || self.spec.phase.is_none() {
            return Ok(());
        }
        let why = "it was made by another plan, and half of it lies in the query's own topic; DROP the query and CREATE it again";
        Err(StreamError::Restore { operator: self.spec.id.to_string(), why: why.to_owned() })
    }
}

/// The plan that has made a task's checkpoint, where it has one.
pub async fn plan_of(bus: &dyn Bus, task: &TaskId) -> Result<Option<String>, StreamError> {
    let restored = checkpoint::read(bus, &checkpoint_place(task), None).await?;
    Ok(restored.snapshot.map(|(manifest, _)| manifest.fingerprint))
}
