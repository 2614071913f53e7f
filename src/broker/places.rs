//! Where things lie in a partition: offsets by time and by end, the end of a leader epoch, and moving the start.
//!
//! Called by `server` for ListOffsets, OffsetForLeaderEpoch and DeleteRecords. What has to read the disk does
//! so on a thread of its own.

use std::sync::Arc;

use super::Broker;
use super::append::LEADER_EPOCH;
use super::error::log_code;
use super::fetch::{Isolation, check_epoch};
use super::producers::DescribedProducer;
use super::topic::Partition;
use crate::log::{LogError, PartitionLog};
use crate::record::{Offset, PartitionId};
use crate::wire::error_code;

/// ListOffsets' special timestamps, as Kafka numbers them.
mod special {
    pub(super) const LATEST: i64 = -1;
    pub(super) const EARLIEST: i64 = -2;
    pub(super) const MAX_TIMESTAMP: i64 = -3;
    pub(super) const EARLIEST_LOCAL: i64 = -4;
    pub(super) const LATEST_TIERED: i64 = -5;
    pub(super) const EARLIEST_PENDING_UPLOAD: i64 = -6;
}

/// A place that ListOffsets found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// The found record's time, or -1.
    pub timestamp: i64,
    /// Its offset, or -1 where there is none.
    pub offset: i64,
    /// Its leader's epoch, or -1.
    pub leader_epoch: i32,
}

impl FoundOffset {
    const NOTHING: Self = Self { timestamp: -1, offset: -1, leader_epoch: -1 };

    const fn end(offset: Offset) -> Self {
        Self { timestamp: -1, offset: offset.0, leader_epoch: LEADER_EPOCH }
    }
}

impl Broker {
    fn place(&self, topic: &str, partition: i32, leader_epoch: i32) -> Result<Arc<Partition>, i16> {
        let unknown = error_code::UNKNOWN_TOPIC_OR_PARTITION;
        let found = self.topic_named(topic).ok_or(unknown)?.partition(PartitionId(partition)).ok_or(unknown)?;
        check_epoch(leader_epoch)?;
        Ok(found)
    }

    /// The first record at or after a time, or what one of Kafka's special times asks for. Whoever reads what is
    /// committed is told of nothing beyond the last stable offset.
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: i32,
        leader_epoch: i32,
        timestamp: i64,
        isolation: Isolation,
    ) -> Result<FoundOffset, i16> {
        let partition = self.place(topic, partition, leader_epoch)?;
        partition.read_back(self.clock().now()).await.map_err(|error| error.code())?;
        let log = partition.log();
        let (visible, stable) = partition.bounds();
        let end = match isolation {
            Isolation::ReadUncommitted => visible,
            Isolation::ReadCommitted => stable,
        };
        let within = |record: Option<(Offset, i64)>| found(record.filter(|(offset, _)| *offset < end));
        match timestamp {
            special::LATEST => Ok(FoundOffset::end(end)),
            special::EARLIEST | special::EARLIEST_LOCAL => Ok(FoundOffset::end(log.start())),
            // Nothing is tiered.
            special::LATEST_TIERED | special::EARLIEST_PENDING_UPLOAD => Ok(FoundOffset::NOTHING),
            special::MAX_TIMESTAMP => Ok(within(on_a_thread(log, PartitionLog::max_timestamp).await?)),
            at if at >= 0 => Ok(within(on_a_thread(log, move |log| log.offset_at(at)).await?)),
            _ => Err(error_code::UNSUPPORTED_VERSION),
        }
    }

    /// Who writes to a partition with a sequence.
    pub async fn describe_producers(&self, topic: &str, partition: i32) -> Result<Vec<DescribedProducer>, i16> {
        let partition = self.place(topic, partition, -1)?;
        partition.load_producers(self.clock().now()).await.map_err(|error| error.code())?;
        Ok(partition.describe_producers())
    }

    /// Where a leader epoch ended: the epoch and the offset behind it.
    pub fn end_of_epoch(&self, topic: &str, partition: i32, current: i32, asked: i32) -> Result<(i32, i64), i16> {
        let partition = self.place(topic, partition, current)?;
        if asked == LEADER_EPOCH {
            return Ok((LEADER_EPOCH, partition.log().durable_end().0));
        }
        // Before the first epoch there was nothing: whoever asks begins where the log does.
        if asked < -1 {
            return Ok((asked, partition.log().start().0));
        }
        Ok((-1, -1))
    }

    /// Deletes records below `before` (-1: all that are visible). Answers where the partition begins now.
    pub async fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<i64, i16> {
        let partition = self.place(topic, partition, -1)?;
        if partition.of().topic.is_written_by_node_alone() {
            return Err(error_code::TOPIC_AUTHORIZATION_FAILED);
        }
        // A topic with neither policy keeps its records until somebody deletes them.
        if self.catalogue().topic(topic).map(|t| t.config().cleanup).is_some_and(|policy| policy.compact && !policy.delete) {
            return Err(error_code::POLICY_VIOLATION);
        }
        let log = partition.log();
        let visible = log.durable_end();
        let to = if before == -1 { visible } else { Offset(before) };
        if to.0 < 0 || to > visible {
            return Err(error_code::OFFSET_OUT_OF_RANGE);
        }
        if to > log.start() {
            on_a_thread(log, move |log| log.advance_start(to)).await?;
        }
        Ok(log.start().0)
    }
}

fn found(record: Option<(Offset, i64)>) -> FoundOffset {
    record.map_or(FoundOffset::NOTHING, |(offset, timestamp)| FoundOffset { timestamp, offset: offset.0, leader_epoch: LEADER_EPOCH })
}

async fn on_a_thread<T: Send + 'static>(
    log: &Arc<PartitionLog>,
    work: impl FnOnce(&PartitionLog) -> Result<T, LogError> + Send + 'static,
) -> Result<T, i16> {
    let log = Arc::clone(log);
    let done = tokio::task::spawn_blocking(move || work(&log)).await;
    // The thread is gone only when the node stops.
    done.map_err(|_| error_code::NOT_LEADER_OR_FOLLOWER)?.map_err(|e| log_code(&e))
}
