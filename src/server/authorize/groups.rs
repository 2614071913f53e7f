//! Rights to groups: OffsetCommit, OffsetFetch, FindCoordinator, JoinGroup, Heartbeat, LeaveGroup, SyncGroup,
//! DescribeGroups, ListGroups, DeleteGroups, OffsetDelete, ConsumerGroupHeartbeat, ConsumerGroupDescribe.

use super::super::dispatch::Caller;
use super::{Verdict, refusal};
use crate::broker::security::{CLUSTER, Operation, ResourceType};
use crate::wire::*;

const DENIED: i16 = error_code::GROUP_AUTHORIZATION_FAILED;
const TOPIC_DENIED: i16 = error_code::TOPIC_AUTHORIZATION_FAILED;

pub(super) fn offset_commit(caller: &Caller, mut request: OffsetCommitRequest) -> Verdict {
    let refused = |topic: OffsetCommitRequestTopic, error_code: i16| OffsetCommitResponseTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|p| OffsetCommitResponsePartition { partition_index: p.partition_index, error_code })
            .collect(),
    };
    if !caller.gate.group(Operation::Read, &request.group_id) {
        let topics = request.topics.into_iter().map(|topic| refused(topic, DENIED)).collect();
        return Verdict::refused(OffsetCommitResponse { topics, ..Default::default() });
    }
    let (allowed, denied): (Vec<_>, Vec<_>) = request
        .topics
        .into_iter()
        // An id that names no topic is told to be unknown.
        .partition(|topic| (topic.name.is_empty() && !topic.topic_id.is_nil()) || caller.gate.topic(Operation::Read, &topic.name));
    request.topics = allowed;
    let denied: Vec<_> = denied.into_iter().map(|topic| refused(topic, TOPIC_DENIED)).collect();
    if request.topics.is_empty() && !denied.is_empty() {
        // The group is not asked where there is nothing to commit.
        return Verdict::refused(OffsetCommitResponse { topics: denied, ..Default::default() });
    }
    Verdict::finished(request, |response| {
        if let Response::OffsetCommit(response) = response {
            response.topics.extend(denied);
        }
    })
}

/// The topics of one group that may not be seen, as they are answered.
fn hidden(caller: &Caller, topics: &mut Option<Vec<OffsetFetchRequestTopic>>) -> Vec<OffsetFetchResponseTopic> {
    let Some(asked) = topics.take() else { return Vec::new() };
    let (allowed, denied): (Vec<_>, Vec<_>) = asked
        .into_iter()
        .partition(|topic| (topic.name.is_empty() && !topic.topic_id.is_nil()) || caller.gate.topic(Operation::Describe, &topic.name));
    *topics = Some(allowed);
    let refused = |topic: OffsetFetchRequestTopic| OffsetFetchResponseTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic
            .partition_indexes
            .iter()
            .map(|partition_index| OffsetFetchResponsePartition {
                partition_index: *partition_index,
                metadata: Some(String::new()),
                error_code: TOPIC_DENIED,
                ..Default::default()
            })
            .collect(),
    };
    denied.into_iter().map(refused).collect()
}

pub(super) fn offset_fetch(caller: &Caller, mut request: OffsetFetchRequest) -> Verdict {
    let gate = caller.gate.clone();
    let is_seen = move |topic: &OffsetFetchResponseTopic| {
        (topic.name.is_empty() && !topic.topic_id.is_nil()) || gate.sees(Operation::Describe, ResourceType::Topic, &topic.name)
    };
    if caller.version() < 8 {
        if !caller.gate.group(Operation::Describe, &request.group_id) {
            let refused = |topic: OffsetFetchRequestTopic| OffsetFetchResponseTopic {
                name: topic.name,
                partitions: topic
                    .partition_indexes
                    .iter()
                    .map(|partition_index| OffsetFetchResponsePartition {
                        partition_index: *partition_index,
                        metadata: Some(String::new()),
                        error_code: DENIED,
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            };
            // Before version 2 there is no place for an error but at each partition.
            let topics = if caller.version() < 2 { request.topics.unwrap_or_default() } else { Vec::new() };
            let topics = topics.into_iter().map(refused).collect();
            return Verdict::refused(OffsetFetchResponse { topics, error_code: DENIED, ..Default::default() });
        }
        let denied = hidden(caller, &mut request.topics);
        return Verdict::finished(request, move |response| {
            if let Response::OffsetFetch(response) = response {
                response.topics.retain(is_seen);
                if response.error_code == error_code::NONE {
                    response.topics.extend(denied);
                }
            }
        });
    }
    let mut denied_groups = Vec::new();
    let mut denied = Vec::new();
    let mut allowed = Vec::with_capacity(request.groups.len());
    for mut group in request.groups {
        if caller.gate.group(Operation::Describe, &group.group_id) {
            denied.push(hidden(caller, &mut group.topics));
            allowed.push(group);
        } else {
            denied_groups.push(OffsetFetchResponseGroup { group_id: group.group_id, error_code: DENIED, ..Default::default() });
        }
    }
    request.groups = allowed;
    Verdict::finished(request, move |response| {
        let Response::OffsetFetch(response) = response else { return };
        for (group, denied) in response.groups.iter_mut().zip(denied) {
            group.topics.retain(&is_seen);
            if group.error_code == error_code::NONE {
                group.topics.extend(denied);
            }
        }
        response.groups.extend(denied_groups);
    })
}

pub(super) fn find_coordinator(caller: &Caller, mut request: FindCoordinatorRequest) -> Verdict {
    const TRANSACTION: i8 = 1;
    const GROUP: i8 = 0;
    let may = |key: &str| match request.key_type {
        GROUP => caller.gate.group(Operation::Describe, key).then_some(()).ok_or(DENIED),
        TRANSACTION => {
            let denied = error_code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
            caller.gate.transaction(Operation::Describe, key).then_some(()).ok_or(denied)
        }
        _ => Ok(()),
    };
    if caller.version() < 4 {
        return match may(&request.key) {
            Ok(()) => Verdict::whole(request),
            Err(error_code) => Verdict::refused(FindCoordinatorResponse {
                error_code,
                error_message: refusal(),
                node_id: -1,
                port: -1,
                ..Default::default()
            }),
        };
    }
    let mut denied = Vec::new();
    let mut allowed = Vec::with_capacity(request.coordinator_keys.len());
    for key in std::mem::take(&mut request.coordinator_keys) {
        match may(&key) {
            Ok(()) => allowed.push(key),
            Err(error_code) => {
                denied.push(Coordinator { key, node_id: -1, port: -1, error_code, error_message: refusal(), ..Default::default() });
            }
        }
    }
    request.coordinator_keys = allowed;
    Verdict::finished(request, |response| {
        if let Response::FindCoordinator(response) = response {
            response.coordinators.extend(denied);
        }
    })
}

pub(super) fn join(caller: &Caller, request: JoinGroupRequest) -> Verdict {
    if caller.gate.group(Operation::Read, &request.group_id) {
        return Verdict::whole(request);
    }
    let protocol_name = (caller.version() < 7).then(String::new);
    Verdict::refused(JoinGroupResponse { error_code: DENIED, protocol_name, ..Default::default() })
}

pub(super) fn heartbeat(caller: &Caller, request: HeartbeatRequest) -> Verdict {
    if caller.gate.group(Operation::Read, &request.group_id) {
        return Verdict::whole(request);
    }
    Verdict::refused(HeartbeatResponse { error_code: DENIED, ..Default::default() })
}

pub(super) fn leave(caller: &Caller, request: LeaveGroupRequest) -> Verdict {
    if caller.gate.group(Operation::Read, &request.group_id) {
        return Verdict::whole(request);
    }
    Verdict::refused(LeaveGroupResponse { error_code: DENIED, ..Default::default() })
}

pub(super) fn sync(caller: &Caller, request: SyncGroupRequest) -> Verdict {
    // A request that lacks what its version demands is told that, whoever sends it.
    const DEMANDS_PROTOCOL: i16 = 5;
    let is_whole = caller.version() < DEMANDS_PROTOCOL || (request.protocol_type.is_some() && request.protocol_name.is_some());
    if !is_whole || caller.gate.group(Operation::Read, &request.group_id) {
        return Verdict::whole(request);
    }
    Verdict::refused(SyncGroupResponse { error_code: DENIED, ..Default::default() })
}

pub(super) fn describe(caller: &Caller, mut request: DescribeGroupsRequest) -> Verdict {
    let gate = caller.gate.clone();
    let wanted = request.include_authorized_operations;
    let (allowed, denied): (Vec<_>, Vec<_>) = request.groups.into_iter().partition(|group| gate.group(Operation::Describe, group));
    request.groups = allowed;
    let denied: Vec<_> = denied.into_iter().map(|group_id| DescribedGroup { error_code: DENIED, group_id, ..Default::default() }).collect();
    Verdict::finished(request, move |response| {
        let Response::DescribeGroups(response) = response else { return };
        if wanted {
            for group in response.groups.iter_mut().filter(|group| group.error_code == error_code::NONE) {
                group.authorized_operations = gate.operations(ResourceType::Group, &group.group_id);
            }
        }
        response.groups.extend(denied);
    })
}

/// Whoever may describe the cluster sees all groups, others those they may describe.
pub(super) fn list(caller: &Caller, request: ListGroupsRequest) -> Verdict {
    let gate = caller.gate.clone();
    if gate.sees(Operation::Describe, ResourceType::Cluster, CLUSTER) {
        return Verdict::whole(request);
    }
    Verdict::finished(request, move |response| {
        if let Response::ListGroups(response) = response {
            response.groups.retain(|group| gate.sees(Operation::Describe, ResourceType::Group, &group.group_id));
        }
    })
}

pub(super) fn delete(caller: &Caller, mut request: DeleteGroupsRequest) -> Verdict {
    let (allowed, denied): (Vec<_>, Vec<_>) =
        request.groups_names.into_iter().partition(|group| caller.gate.group(Operation::Delete, group));
    request.groups_names = allowed;
    let denied: Vec<_> = denied.into_iter().map(|group_id| DeletableGroupResult { group_id, error_code: DENIED }).collect();
    Verdict::finished(request, |response| {
        if let Response::DeleteGroups(response) = response {
            response.results.extend(denied);
        }
    })
}

/// Deleting offsets needs the group's right to be deleted, and the right to read their topics.
pub(super) fn delete_offsets(caller: &Caller, mut request: OffsetDeleteRequest) -> Verdict {
    if !caller.gate.group(Operation::Delete, &request.group_id) {
        return Verdict::refused(OffsetDeleteResponse { error_code: DENIED, ..Default::default() });
    }
    let (allowed, denied): (Vec<_>, Vec<_>) = request.topics.into_iter().partition(|topic| caller.gate.topic(Operation::Read, &topic.name));
    request.topics = allowed;
    let refused = |topic: OffsetDeleteRequestTopic| OffsetDeleteResponseTopic {
        name: topic.name,
        partitions: topic
            .partitions
            .iter()
            .map(|p| OffsetDeleteResponsePartition { partition_index: p.partition_index, error_code: TOPIC_DENIED })
            .collect(),
    };
    let denied: Vec<_> = denied.into_iter().map(refused).collect();
    Verdict::finished(request, |response| {
        if let Response::OffsetDelete(response) = response
            && response.error_code == error_code::NONE
        {
            response.topics.extend(denied);
        }
    })
}

/// A heartbeat needs the right to read the group, and to see the topics it names.
pub(super) fn consumer_heartbeat(caller: &Caller, request: ConsumerGroupHeartbeatRequest) -> Verdict {
    let refused =
        |error_code| Verdict::refused(ConsumerGroupHeartbeatResponse { error_code, error_message: refusal(), ..Default::default() });
    if !caller.gate.group(Operation::Read, &request.group_id) {
        return refused(DENIED);
    }
    let names = request.subscribed_topic_names.iter().flatten();
    if !names.into_iter().all(|name| caller.gate.topic(Operation::Describe, name)) {
        return refused(TOPIC_DENIED);
    }
    Verdict::whole(request)
}

/// A group is described to who may describe it, and every topic that its members have or are to have.
pub(super) fn consumer_describe(caller: &Caller, mut request: ConsumerGroupDescribeRequest) -> Verdict {
    let gate = caller.gate.clone();
    let wanted = request.include_authorized_operations;
    let (allowed, denied): (Vec<_>, Vec<_>) = request.group_ids.into_iter().partition(|group| gate.group(Operation::Describe, group));
    request.group_ids = allowed;
    let denied = denied.into_iter().map(|group_id| DescribedConsumerGroup {
        error_code: DENIED,
        error_message: refusal(),
        group_id,
        ..Default::default()
    });
    let denied: Vec<_> = denied.collect();
    Verdict::finished(request, move |response| {
        let Response::ConsumerGroupDescribe(response) = response else { return };
        for group in response.groups.iter_mut().filter(|group| group.error_code == error_code::NONE) {
            let topics = group.members.iter().flat_map(|member| {
                let assigned = member.assignment.topic_partitions.iter().chain(&member.target_assignment.topic_partitions);
                assigned.map(|of| &of.topic_name)
            });
            if topics.into_iter().all(|topic| gate.sees(Operation::Describe, ResourceType::Topic, topic)) {
                if wanted {
                    group.authorized_operations = gate.operations(ResourceType::Group, &group.group_id);
                }
                continue;
            }
            *group = DescribedConsumerGroup {
                error_code: TOPIC_DENIED,
                error_message: Some("The group has described topic(s) that the client is not authorized to describe.".to_owned()),
                group_id: std::mem::take(&mut group.group_id),
                ..Default::default()
            };
        }
        response.groups.extend(denied);
    })
}
