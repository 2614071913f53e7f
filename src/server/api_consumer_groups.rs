//! Groups of KIP-848: ConsumerGroupHeartbeat, ConsumerGroupDescribe.

use super::dispatch::Caller;
use crate::broker::group::{Beat, BeatRefusal, DescribedConsumer, DescribedConsumerMember as Member, GroupId, OwnedPartitions};
use crate::wire::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    DescribedAssignment, DescribedConsumerGroup, DescribedConsumerMember, DescribedTopicPartitions, MemberAssignment,
    MemberTopicPartitions, error_code,
};

/// Everything a group's administrator may do: read, delete, describe, and describe and alter settings.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;
/// How a member is told which protocol it speaks.
const CLASSIC: i8 = 0;
const CONSUMER: i8 = 1;

pub(super) async fn heartbeat(caller: &Caller, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
    let refused =
        |BeatRefusal { code, why }| ConsumerGroupHeartbeatResponse { error_code: code, error_message: Some(why), ..Default::default() };
    let fits = |text: &Option<String>| text.as_deref().is_none_or(|text| i16::try_from(text.len()).is_ok());
    if !fits(&request.instance_id) || !fits(&request.subscribed_topic_regex) {
        return refused(BeatRefusal { code: error_code::INVALID_REQUEST, why: "a text is too long".to_owned() });
    }
    let owned = |all: Vec<MemberTopicPartitions>| {
        let mut owned = OwnedPartitions::new();
        for of in all {
            owned.entry(of.topic_id).or_default().extend(of.partitions);
        }
        owned
    };
    let beat = Beat {
        member_id: request.member_id,
        epoch: request.member_epoch,
        instance_id: request.instance_id,
        rack_id: request.rack_id,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        names: request.subscribed_topic_names,
        pattern: request.subscribed_topic_regex,
        assignor: request.server_assignor,
        owned: request.topic_partitions.map(owned),
        client_id: caller.header.client_id.clone().unwrap_or_default(),
        client_host: format!("/{}", caller.peer.remote.ip().to_canonical()),
        makes_own_id: caller.version() >= 1,
        nonce: uuid::Uuid::new_v4().to_string(),
    };
    let done = match GroupId::new(&request.group_id).filter(|_| !request.group_id.is_empty()) {
        Some(id) => caller.peer.broker.groups().consumer_heartbeat(&id, &beat).await,
        // What is wrong with the member is told first.
        None => {
            beat.check().and_then(|()| Err(BeatRefusal { code: error_code::INVALID_REQUEST, why: "GroupId can't be empty.".to_owned() }))
        }
    };
    match done {
        Err(refusal) => refused(refusal),
        Ok(reply) => ConsumerGroupHeartbeatResponse {
            member_id: Some(reply.member_id),
            member_epoch: reply.epoch,
            heartbeat_interval_ms: reply.interval_ms,
            assignment: reply.assignment.map(|assignment| MemberAssignment {
                topic_partitions: assignment
                    .into_iter()
                    .map(|(topic_id, partitions)| MemberTopicPartitions { topic_id, partitions })
                    .collect(),
            }),
            ..Default::default()
        },
    }
}

pub(super) fn describe(caller: &Caller, request: ConsumerGroupDescribeRequest) -> ConsumerGroupDescribeResponse {
    let authorized_operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { i32::MIN };
    let groups = caller.peer.broker.groups();
    let one = |group_id: String| {
        let refused = |error_code, why: Option<String>| DescribedConsumerGroup {
            error_code,
            error_message: why,
            group_id: group_id.clone(),
            ..Default::default()
        };
        let Some(id) = GroupId::new(&group_id).filter(|_| !group_id.is_empty()) else {
            return refused(error_code::INVALID_GROUP_ID, None);
        };
        match groups.describe_consumer(&id) {
            Some(group) => DescribedConsumerGroup { group_id, authorized_operations, ..described(caller, group) },
            None if groups.describe(&id).is_some() => {
                refused(error_code::GROUP_ID_NOT_FOUND, Some(format!("Group {group_id} is not a consumer group.")))
            }
            None => refused(error_code::GROUP_ID_NOT_FOUND, Some(format!("Group {group_id} not found."))),
        }
    };
    ConsumerGroupDescribeResponse { groups: request.group_ids.into_iter().map(one).collect(), ..Default::default() }
}

fn described(caller: &Caller, group: DescribedConsumer) -> DescribedConsumerGroup {
    let assignment = |of: OwnedPartitions| DescribedAssignment {
        topic_partitions: of
            .into_iter()
            .filter_map(|(topic_id, partitions)| {
                let topic = caller.peer.broker.topic_by_id(topic_id)?;
                Some(DescribedTopicPartitions { topic_id, topic_name: topic.name().as_str().to_owned(), partitions })
            })
            .collect(),
    };
    let member = |member: Member| DescribedConsumerMember {
        member_id: member.member_id,
        instance_id: member.instance_id,
        rack_id: member.rack_id,
        member_epoch: member.epoch,
        client_id: member.client_id,
        client_host: member.client_host,
        subscribed_topic_names: member.names,
        // Kafka tells no pattern as an empty one.
        subscribed_topic_regex: Some(member.pattern.unwrap_or_default()),
        assignment: assignment(member.assigned),
        target_assignment: assignment(member.target),
        member_type: if member.is_classic { CLASSIC } else { CONSUMER },
    };
    DescribedConsumerGroup {
        group_state: group.state.to_string(),
        group_epoch: group.epoch,
        assignment_epoch: group.target_epoch,
        assignor_name: group.assignor,
        members: group.members.into_iter().map(member).collect(),
        ..Default::default()
    }
}
