//! ListOffsets, OffsetForLeaderEpoch, DeleteRecords: where things lie in partitions.

use std::collections::BTreeSet;

use super::api_fetch;
use super::dispatch::Caller;
use crate::broker::Isolation;
use crate::wire::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult, EpochEndOffset,
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult, error_code,
};

/// The version in which Kafka gave a special timestamp its meaning.
const fn oldest_version(timestamp: i64) -> i16 {
    match timestamp {
        -3 => 7,
        -4 => 8,
        -5 => 9,
        -6 => 11,
        at if at < -6 => i16::MAX,
        _ => 0,
    }
}

/// Only a consumer can ask for what is committed. Whoever says to be a replica, or -2 for a tool, is told where the log ends.
const fn isolation(replica_id: i32, level: i8) -> Isolation {
    const CONSUMER: i32 = -1;
    if replica_id == CONSUMER { api_fetch::isolation(level) } else { Isolation::ReadUncommitted }
}

pub(super) async fn list_offsets(caller: &Caller, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let broker = &caller.peer.broker;
    let isolation = isolation(request.replica_id, request.isolation_level);
    let mut seen = BTreeSet::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for one in topic.partitions {
            let found = if caller.version() < oldest_version(one.timestamp) {
                Err(error_code::UNSUPPORTED_VERSION)
            } else if seen.insert((topic.name.clone(), one.partition_index)) {
                broker.list_offset(&topic.name, one.partition_index, one.current_leader_epoch, one.timestamp, isolation).await
            } else {
                Err(error_code::INVALID_REQUEST)
            };
            let partition_index = one.partition_index;
            partitions.push(match found {
                Ok(found) => ListOffsetsPartitionResponse {
                    partition_index,
                    timestamp: found.timestamp,
                    offset: found.offset,
                    leader_epoch: found.leader_epoch,
                    ..Default::default()
                },
                Err(error_code) => ListOffsetsPartitionResponse { partition_index, error_code, ..Default::default() },
            });
        }
        topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
    }
    ListOffsetsResponse { topics, ..Default::default() }
}

pub(super) fn offset_for_leader_epoch(caller: &Caller, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let broker = &caller.peer.broker;
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let name = topic.topic;
            let end = |one: crate::wire::OffsetForLeaderPartition| {
                let partition = one.partition;
                match broker.end_of_epoch(&name, partition, one.current_leader_epoch, one.leader_epoch) {
                    Ok((leader_epoch, end_offset)) => EpochEndOffset { error_code: error_code::NONE, partition, leader_epoch, end_offset },
                    Err(error_code) => EpochEndOffset { error_code, partition, ..Default::default() },
                }
            };
            let partitions = topic.partitions.into_iter().map(end).collect();
            OffsetForLeaderTopicResult { topic: name, partitions }
        })
        .collect();
    OffsetForLeaderEpochResponse { topics, ..Default::default() }
}

pub(super) async fn delete_records(caller: &Caller, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for one in topic.partitions {
            let partition_index = one.partition_index;
            partitions.push(match caller.peer.broker.delete_records(&topic.name, partition_index, one.offset).await {
                Ok(low_watermark) => DeleteRecordsPartitionResult { partition_index, low_watermark, error_code: error_code::NONE },
                Err(error_code) => DeleteRecordsPartitionResult { partition_index, low_watermark: -1, error_code },
            });
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    DeleteRecordsResponse { topics, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_consumer_can_ask_for_what_is_committed() {
        let of = |replica_id| [0, 1, 7].map(|level| isolation(replica_id, level));
        assert_eq!(of(-1), [Isolation::ReadUncommitted, Isolation::ReadCommitted, Isolation::ReadUncommitted]);
        for replica_id in [-2, 0, 5] {
            assert_eq!(of(replica_id), [Isolation::ReadUncommitted; 3], "{replica_id}");
        }
    }
}
