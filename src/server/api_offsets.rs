//! Where groups have come to: OffsetCommit, OffsetFetch, OffsetDelete.

use std::collections::{BTreeMap, BTreeSet};

use super::dispatch::Caller;
use crate::broker::group::{CommitOffset, CommitRequest, Committed, GroupId};
use crate::record::{Offset, PartitionId, TopicId, TopicName, TopicPartition};
use crate::wire::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic, OffsetDeleteRequest,
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic, OffsetFetchRequest, OffsetFetchRequestGroup,
    OffsetFetchRequestTopic, OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
    Request, error_code,
};

/// From this version on topics are named by their ids.
const BY_ID: i16 = 10;

/// Puts the names of topics into requests that name them by their ids, so that from here on both are alike. A topic
/// that is not there keeps its empty name.
pub(super) fn name_topics(caller: &Caller, mut request: Request) -> Request {
    if caller.version() < BY_ID {
        return request;
    }
    let name = |name: &mut String, id: TopicId| {
        *name = caller.peer.broker.topic_by_id(id).map(|topic| topic.name().as_str().to_owned()).unwrap_or_default();
    };
    match &mut request {
        Request::OffsetCommit(request) => request.topics.iter_mut().for_each(|topic| name(&mut topic.name, topic.topic_id)),
        Request::OffsetFetch(request) => {
            let topics = request.groups.iter_mut().filter_map(|group| group.topics.as_mut()).flatten();
            topics.for_each(|topic| name(&mut topic.name, topic.topic_id));
        }
        _ => {}
    }
    request
}

/// What is said of a topic that is not there.
fn unknown_topic(caller: &Caller) -> i16 {
    if caller.version() < BY_ID { error_code::UNKNOWN_TOPIC_OR_PARTITION } else { error_code::UNKNOWN_TOPIC_ID }
}

pub(super) async fn commit(caller: &Caller, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let broker = &caller.peer.broker;
    let mut offsets = Vec::new();
    let (mut known, mut answers) = (Vec::new(), Vec::new());
    for topic in request.topics {
        let Some(there) = broker.topic_named(&topic.name) else {
            let indexes = topic.partitions.iter().map(|p| p.partition_index).collect();
            answers.push(committed(topic.name, topic.topic_id, indexes, |_| unknown_topic(caller)));
            continue;
        };
        let mut indexes = Vec::with_capacity(topic.partitions.len());
        let mut missing = Vec::new();
        for one in topic.partitions {
            if there.partition(PartitionId(one.partition_index)).is_none() {
                missing.push(one.partition_index);
                continue;
            }
            indexes.push(one.partition_index);
            offsets.push(CommitOffset {
                of: TopicPartition::new(there.name().clone(), PartitionId(one.partition_index)),
                offset: Offset(one.committed_offset),
                leader_epoch: one.committed_leader_epoch,
                metadata: one.committed_metadata,
            });
        }
        if !missing.is_empty() {
            answers.push(committed(topic.name.clone(), topic.topic_id, missing, |_| error_code::UNKNOWN_TOPIC_OR_PARTITION));
        }
        if !indexes.is_empty() {
            known.push((topic.name, topic.topic_id, indexes));
        }
    }
    if known.is_empty() {
        // The group is not asked where there is nothing to commit.
        return OffsetCommitResponse { topics: answers, ..Default::default() };
    }
    let outcome = match GroupId::new(&request.group_id) {
        None => Err(error_code::INVALID_GROUP_ID),
        Some(id) => {
            let request = CommitRequest {
                member_id: request.member_id,
                instance_id: request.group_instance_id,
                generation: request.generation_id_or_member_epoch,
                knows_epochs: caller.version() >= 9,
                retention_ms: Some(request.retention_time_ms).filter(|ms| *ms >= 0),
                offsets,
            };
            broker.groups().commit(&id, request).await
        }
    };
    let errors: Result<BTreeMap<TopicPartition, i16>, i16> = outcome.map(|all| all.into_iter().collect());
    for (name, id, indexes) in known {
        let topic = TopicName::new(&name).ok();
        let error = |index| match (&errors, &topic) {
            (Err(code), _) => *code,
            (Ok(errors), Some(topic)) => {
                errors.get(&TopicPartition::new(topic.clone(), PartitionId(index))).copied().unwrap_or(error_code::NONE)
            }
            (Ok(_), None) => unknown_topic(caller),
        };
        let mut told = committed(name, id, indexes, error);
        // What of the same topic was refused before stands in the same place.
        match answers.iter_mut().find(|answer| answer.name == told.name) {
            Some(answer) => answer.partitions.append(&mut told.partitions),
            None => answers.push(told),
        }
    }
    OffsetCommitResponse { topics: answers, ..Default::default() }
}

fn committed(name: String, topic_id: TopicId, indexes: Vec<i32>, error: impl Fn(i32) -> i16) -> OffsetCommitResponseTopic {
    let partitions = indexes
        .into_iter()
        .map(|partition_index| OffsetCommitResponsePartition { partition_index, error_code: error(partition_index) })
        .collect();
    OffsetCommitResponseTopic { name, topic_id, partitions }
}

pub(super) fn fetch(caller: &Caller, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let stable = request.require_stable;
    if caller.version() >= 8 {
        let groups = request.groups.into_iter().map(|group| fetch_group(caller, group, stable)).collect();
        return OffsetFetchResponse { groups, ..Default::default() };
    }
    let group = OffsetFetchRequestGroup { group_id: request.group_id, topics: request.topics, ..Default::default() };
    let answer = fetch_group(caller, group, stable);
    OffsetFetchResponse { topics: answer.topics, error_code: answer.error_code, ..Default::default() }
}

fn fetch_group(caller: &Caller, request: OffsetFetchRequestGroup, stable: bool) -> OffsetFetchResponseGroup {
    let groups = caller.peer.broker.groups();
    let refused = |group_id, error_code| OffsetFetchResponseGroup { group_id, error_code, ..Default::default() };
    let Some(id) = GroupId::new(&request.group_id) else { return refused(request.group_id, error_code::INVALID_GROUP_ID) };
    if let Err(code) = groups.check_fetch(&id, request.member_id.as_deref(), request.member_epoch) {
        return refused(request.group_id, code);
    }
    let topics = match request.topics {
        Some(asked) => asked.into_iter().map(|topic| fetch_topic(caller, &id, topic, stable)).collect(),
        None => {
            let mut topics: BTreeMap<TopicName, Vec<OffsetFetchResponsePartition>> = BTreeMap::new();
            for (of, committed) in groups.all_committed(&id) {
                let unstable = stable && groups.is_unstable(&id, &of);
                topics.entry(of.topic).or_default().push(position(of.partition.0, Some(committed), unstable));
            }
            let topic = |(name, partitions): (TopicName, _)| {
                let topic_id = caller.peer.broker.topic(&name).map(|topic| topic.id());
                // By its id a topic that is gone cannot be told.
                let topic_id = if caller.version() < BY_ID { topic_id.unwrap_or_default() } else { topic_id? };
                Some(OffsetFetchResponseTopic { name: name.as_str().to_owned(), topic_id, partitions })
            };
            topics.into_iter().filter_map(topic).collect()
        }
    };
    OffsetFetchResponseGroup { group_id: request.group_id, topics, error_code: error_code::NONE }
}

fn fetch_topic(caller: &Caller, id: &GroupId, topic: OffsetFetchRequestTopic, stable: bool) -> OffsetFetchResponseTopic {
    let groups = caller.peer.broker.groups();
    let name = TopicName::new(&topic.name).ok();
    let unknown = caller.version() >= BY_ID && name.is_none();
    let one = |index: i32| {
        let of = name.clone().map(|name| TopicPartition::new(name, PartitionId(index)));
        let unstable = stable && of.as_ref().is_some_and(|of| groups.is_unstable(id, of));
        let mut one = position(index, of.and_then(|of| groups.committed(id, &of)), unstable);
        if unknown {
            one.error_code = error_code::UNKNOWN_TOPIC_ID;
        }
        one
    };
    let partitions = topic.partition_indexes.into_iter().map(one).collect();
    OffsetFetchResponseTopic { name: topic.name, topic_id: topic.topic_id, partitions }
}

/// A position as it is told; one that a transaction may still change is not.
fn position(partition_index: i32, committed: Option<Committed>, unstable: bool) -> OffsetFetchResponsePartition {
    let empty = OffsetFetchResponsePartition { partition_index, metadata: Some(String::new()), ..Default::default() };
    match committed {
        _ if unstable => OffsetFetchResponsePartition { error_code: error_code::UNSTABLE_OFFSET_COMMIT, ..empty },
        None => empty,
        Some(c) => OffsetFetchResponsePartition {
            committed_offset: c.offset.0,
            committed_leader_epoch: c.leader_epoch,
            metadata: Some(c.metadata),
            ..empty
        },
    }
}

pub(super) async fn delete(caller: &Caller, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let broker = &caller.peer.broker;
    let refused = |error_code| OffsetDeleteResponse { error_code, ..Default::default() };
    let Some(id) = GroupId::new(&request.group_id).filter(|_| !request.group_id.is_empty()) else {
        return refused(error_code::INVALID_GROUP_ID);
    };
    let mut asked = Vec::new();
    let mut seen = BTreeSet::new();
    let (mut known, mut topics) = (Vec::new(), Vec::new());
    // A topic that is named twice is one.
    for topic in request.topics.into_iter().filter(|topic| seen.insert(topic.name.clone())) {
        let indexes: Vec<i32> = topic.partitions.iter().map(|one| one.partition_index).collect();
        let Some(there) = broker.topic_named(&topic.name) else {
            let answer =
                |partition_index| OffsetDeleteResponsePartition { partition_index, error_code: error_code::UNKNOWN_TOPIC_OR_PARTITION };
            topics.push(OffsetDeleteResponseTopic { name: topic.name, partitions: indexes.into_iter().map(answer).collect() });
            continue;
        };
        let (there_too, missing): (Vec<i32>, Vec<i32>) =
            indexes.into_iter().partition(|index| there.partition(PartitionId(*index)).is_some());
        asked.extend(there_too.iter().map(|index| TopicPartition::new(there.name().clone(), PartitionId(*index))));
        known.push((topic.name, there_too, missing));
    }
    match broker.groups().delete_offsets(&id, &asked).await {
        Err(code) => refused(code),
        Ok(errors) => {
            let mut errors = errors.into_iter();
            for (name, indexes, missing) in known {
                let unknown = |partition_index| (partition_index, error_code::UNKNOWN_TOPIC_OR_PARTITION);
                let answers: Vec<(i32, i16)> = missing
                    .into_iter()
                    .map(unknown)
                    .chain(indexes.into_iter().map(|index| (index, errors.next().unwrap_or(error_code::NONE))))
                    .collect();
                let answer = |(partition_index, error_code)| OffsetDeleteResponsePartition { partition_index, error_code };
                topics.push(OffsetDeleteResponseTopic { name, partitions: answers.into_iter().map(answer).collect() });
            }
            OffsetDeleteResponse { topics, ..Default::default() }
        }
    }
}
