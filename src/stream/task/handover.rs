//! Tasks that are cut in another way than those before them: one over all partitions after one for each, or the
//! other way round. None of the states fits; what is handed on is where each partition stood.

use super::checkpoint_place;
use crate::bus::{Bus, Commit, TaskId, checkpoint_topic};
use crate::record::{BatchBuilder, PartitionId, TopicPartition};
use crate::stream::checkpoint::{self, Manifest};
use crate::stream::operator::{StateWriter, StreamError};
use crate::stream::snapshot::SnapshotRecords;

/// Lets every task of `to` begin where the tasks of `from`, so many, stood: each reads its input again up to there. Nothing is
/// taken from `from`; doing it twice does no harm as long as none of `to` has been opened.
pub async fn hand_over(bus: &dyn Bus, from: &str, count: i32, to: &[TaskId], now: i64) -> Result<(), StreamError> {
    let Some(stood) = stood(bus, from, count).await? else { return Ok(()) };
    for task in to {
        let mut checkpoint = BatchBuilder::new();
        for record in SnapshotRecords::new(stood.clone(), StateWriter::default()) {
            let (key, value) = record?;
            checkpoint.push(now, Some(key), Some(&value), &[]);
        }
        bus.committer(task).await?.commit(Commit { outputs: Vec::new(), checkpoint: Some(checkpoint) }).await?;
        tracing::info!(task = %task, place = %checkpoint_place(task), "begins where the tasks before it stood");
    }
    Ok(())
}

/// Where the tasks of an owner, so many, stand together, in a form that is no plan's.
pub(super) async fn stood(bus: &dyn Bus, from: &str, count: i32) -> Result<Option<Manifest>, StreamError> {
    let mut stood: Option<Manifest> = None;
    for index in 0..count {
        let place = TopicPartition::new(checkpoint_topic(from), PartitionId(index));
        let Some(one) = checkpoint::read(bus, &place, None).await?.stood() else { continue };
        match &mut stood {
            None => stood = Some(one),
            Some(all) => {
                all.epoch = all.epoch.max(one.epoch);
                all.partitions.extend(one.partitions);
                if all.origin != one.origin {
                    all.origin = None;
                }
            }
        }
    }
    Ok(stood)
}
