//! Who leads partitions and holds them: ElectLeaders, AlterPartitionReassignments, ListPartitionReassignments.
//!
//! This node leads and holds every partition, so there is never anything to elect or to move; what is asked is
//! answered as one Kafka broker would answer it. Called by `dispatch`.

use super::api_topics::check_replicas;
use super::dispatch::Caller;
use crate::record::PartitionId;
use crate::wire::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ElectLeadersPartitionResult, ElectLeadersRequest,
    ElectLeadersResponse, ListPartitionReassignmentsResponse, ReassignablePartition, ReassignablePartitionResponse,
    ReassignableTopicResponse, ReplicaElectionResult, error_code,
};

/// Whether there is such a partition: Kafka's error and what is missing.
fn find(caller: &Caller, topic: &str, partition: i32) -> Result<(), (i16, String)> {
    let unknown = error_code::UNKNOWN_TOPIC_OR_PARTITION;
    let found = caller.peer.broker.topic_named(topic).ok_or_else(|| (unknown, format!("there is no topic \"{topic}\"")))?;
    found.partition(PartitionId(partition)).map(drop).ok_or_else(|| (unknown, format!("topic \"{topic}\" has no partition {partition}")))
}

pub(super) fn elect_leaders(caller: &Caller, request: ElectLeadersRequest) -> ElectLeadersResponse {
    const KINDS: std::ops::RangeInclusive<i8> = 0..=1;
    // Before version 1 there is one kind, the preferred replica.
    let known = caller.version() == 0 || KINDS.contains(&request.election_type);
    let judge = |topic: &str, partition: i32| {
        if !known {
            return (error_code::INVALID_REQUEST, format!("there is no election of type {}", request.election_type));
        }
        match find(caller, topic, partition) {
            Ok(()) => (error_code::ELECTION_NOT_NEEDED, "this node leads the partition, and no other could".to_owned()),
            Err(unknown) => unknown,
        }
    };
    let replica_election_results = match request.topic_partitions {
        // Of all partitions only those that were elected are told.
        None if known => {
            let name = |topic: &std::sync::Arc<crate::broker::Topic>| topic.name().as_str().to_owned();
            let all = caller.peer.broker.topics();
            all.iter().map(|topic| ReplicaElectionResult { topic: name(topic), partition_result: Vec::new() }).collect()
        }
        None => Vec::new(),
        Some(topics) => topics
            .into_iter()
            .map(|asked| {
                let one = |partition_id: i32| {
                    let (error_code, why) = judge(&asked.topic, partition_id);
                    ElectLeadersPartitionResult { partition_id, error_code, error_message: Some(why) }
                };
                let partition_result = asked.partitions.iter().copied().map(one).collect();
                ReplicaElectionResult { topic: asked.topic, partition_result }
            })
            .collect(),
    };
    let error_code = if known { error_code::NONE } else { error_code::INVALID_REQUEST };
    ElectLeadersResponse { error_code, replica_election_results, ..Default::default() }
}

pub(super) fn reassign(caller: &Caller, request: AlterPartitionReassignmentsRequest) -> AlterPartitionReassignmentsResponse {
    let node = caller.peer.broker.config().node_id;
    let judge = |topic: &str, wanted: &ReassignablePartition| {
        find(caller, topic, wanted.partition_index)?;
        match &wanted.replicas {
            Some(replicas) => check_replicas(replicas, node),
            None => Err((error_code::NO_REASSIGNMENT_IN_PROGRESS, "the partition is not being moved".to_owned())),
        }
    };
    let none_asked = request.topics.is_empty();
    let responses = request
        .topics
        .into_iter()
        .map(|topic| {
            let one = |wanted: &ReassignablePartition| {
                let (error_code, error_message) = match judge(&topic.name, wanted) {
                    Ok(()) => (error_code::NONE, None),
                    Err((code, why)) => (code, Some(why)),
                };
                ReassignablePartitionResponse { partition_index: wanted.partition_index, error_code, error_message }
            };
            let partitions = topic.partitions.iter().map(one).collect();
            ReassignableTopicResponse { name: topic.name, partitions }
        })
        .collect();
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        // Kafka's answer to nothing.
        error_message: none_asked.then(String::new),
        responses,
        ..Default::default()
    }
}

/// Nothing is ever being moved.
pub(super) fn reassignments() -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}
