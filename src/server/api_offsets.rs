//! Where groups have come to: OffsetCommit, OffsetFetch.

use std::collections::BTreeMap;

use super::dispatch::Caller;
use crate::broker::group::{CommitOffset, CommitRequest, Committed, GroupId};
use crate::record::{Offset, PartitionId, TopicName, TopicPartition};
use crate::wire::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic, OffsetFetchRequest,
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponseTopic, error_code,
};

pub(super) async fn commit(caller: &Caller, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let broker = &caller.peer.broker;
    let asked: Vec<(String, Vec<i32>)> =
        request.topics.iter().map(|t| (t.name.clone(), t.partitions.iter().map(|p| p.partition_index).collect())).collect();
    let mut offsets = Vec::new();
    for topic in request.topics {
        let Ok(name) = TopicName::new(&topic.name) else { continue };
        for one in topic.partitions {
            let of = TopicPartition::new(name.clone(), PartitionId(one.partition_index));
            // What does not exist is refused below.
            if broker.partition(&of).is_some() {
                offsets.push(CommitOffset {
                    of,
                    offset: Offset(one.committed_offset),
                    leader_epoch: one.committed_leader_epoch,
                    metadata: one.committed_metadata,
                });
            }
        }
    }
    let committed = match GroupId::new(&request.group_id) {
        None => Err(error_code::INVALID_GROUP_ID),
        Some(id) => {
            let request = CommitRequest {
                member_id: request.member_id,
                instance_id: request.group_instance_id,
                generation: request.generation_id_or_member_epoch,
                retention_ms: Some(request.retention_time_ms).filter(|ms| *ms >= 0),
                offsets,
            };
            broker.groups().commit(&id, request).await
        }
    };
    let errors: Result<BTreeMap<(String, i32), i16>, i16> =
        committed.map(|all| all.into_iter().map(|(of, code)| ((of.topic.as_str().to_owned(), of.partition.0), code)).collect());
    let topic = |(name, partitions): (String, Vec<i32>)| {
        let partition = |partition_index| {
            let error_code = match &errors {
                Err(code) => *code,
                Ok(errors) => errors.get(&(name.clone(), partition_index)).copied().unwrap_or(error_code::UNKNOWN_TOPIC_OR_PARTITION),
            };
            OffsetCommitResponsePartition { partition_index, error_code }
        };
        OffsetCommitResponseTopic { partitions: partitions.into_iter().map(partition).collect(), name }
    };
    OffsetCommitResponse { topics: asked.into_iter().map(topic).collect(), ..Default::default() }
}

pub(super) fn fetch(caller: &Caller, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if caller.version() >= 8 {
        let groups = request.groups.into_iter().map(|group| fetch_group(caller, group)).collect();
        return OffsetFetchResponse { groups, ..Default::default() };
    }
    let group = OffsetFetchRequestGroup { group_id: request.group_id, topics: request.topics, ..Default::default() };
    let answer = fetch_group(caller, group);
    OffsetFetchResponse { topics: answer.topics, error_code: answer.error_code, ..Default::default() }
}

fn fetch_group(caller: &Caller, request: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let groups = caller.peer.broker.groups();
    let Some(id) = GroupId::new(&request.group_id) else {
        return OffsetFetchResponseGroup { group_id: request.group_id, error_code: error_code::INVALID_GROUP_ID, ..Default::default() };
    };
    let topics = match request.topics {
        Some(asked) => asked.into_iter().map(|topic| fetch_topic(caller, &id, topic)).collect(),
        None => {
            let mut topics: BTreeMap<TopicName, Vec<OffsetFetchResponsePartition>> = BTreeMap::new();
            for (of, committed) in groups.all_committed(&id) {
                topics.entry(of.topic).or_default().push(position(of.partition.0, Some(committed)));
            }
            let topic = |(name, partitions): (TopicName, _)| OffsetFetchResponseTopic { name: name.as_str().to_owned(), partitions };
            topics.into_iter().map(topic).collect()
        }
    };
    OffsetFetchResponseGroup { group_id: request.group_id, topics, error_code: error_code::NONE }
}

fn fetch_topic(caller: &Caller, id: &GroupId, topic: OffsetFetchRequestTopic) -> OffsetFetchResponseTopic {
    let name = TopicName::new(&topic.name).ok();
    let committed = |partition: i32| {
        let of = TopicPartition::new(name.clone()?, PartitionId(partition));
        caller.peer.broker.groups().committed(id, &of)
    };
    let partitions = topic.partition_indexes.into_iter().map(|p| position(p, committed(p))).collect();
    OffsetFetchResponseTopic { name: topic.name, partitions }
}

fn position(partition_index: i32, committed: Option<Committed>) -> OffsetFetchResponsePartition {
    let empty = || OffsetFetchResponsePartition { partition_index, metadata: Some(String::new()), ..Default::default() };
    committed.map_or_else(empty, |c| OffsetFetchResponsePartition {
        partition_index,
        committed_offset: c.offset.0,
        committed_leader_epoch: c.leader_epoch,
        metadata: Some(c.metadata),
        error_code: error_code::NONE,
    })
}
