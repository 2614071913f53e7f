//! Rights of administrators: CreateTopics, DeleteTopics, CreatePartitions, DescribeConfigs, AlterConfigs,
//! IncrementalAlterConfigs, ListConfigResources, DescribeLogDirs, AlterReplicaLogDirs, ElectLeaders,
//! AlterPartitionReassignments, ListPartitionReassignments.

use std::collections::BTreeMap;

use super::super::api_configs::this_node;
use super::super::dispatch::Caller;
use super::data::may_create_topic;
use super::{Gate, Verdict, refusal};
use crate::broker::security::{Operation, ResourceType};
use crate::wire::*;

const DENIED: i16 = error_code::CLUSTER_AUTHORIZATION_FAILED;
const TOPIC_DENIED: i16 = error_code::TOPIC_AUTHORIZATION_FAILED;

/// How often each name comes. What comes twice is refused as a whole by who serves the request.
fn counts<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

fn once(counts: &BTreeMap<String, usize>, name: &str) -> bool {
    counts.get(name).is_none_or(|n| *n == 1)
}

pub(super) fn create_topics(caller: &Caller, mut request: CreateTopicsRequest) -> Verdict {
    let gate = caller.gate.clone();
    let named = counts(request.topics.iter().map(|topic| topic.name.as_str()));
    let (allowed, denied): (Vec<_>, Vec<_>) =
        request.topics.into_iter().partition(|topic| !once(&named, &topic.name) || may_create_topic(&gate, &topic.name));
    request.topics = allowed;
    let refused = |topic: CreatableTopic| CreatableTopicResult {
        name: topic.name,
        error_code: TOPIC_DENIED,
        error_message: refusal(),
        configs: Some(Vec::new()),
        ..Default::default()
    };
    let denied: Vec<_> = denied.into_iter().map(refused).collect();
    Verdict::finished(request, move |response| {
        let Response::CreateTopics(response) = response else { return };
        for topic in response.topics.iter_mut().filter(|topic| topic.error_code == error_code::NONE) {
            if !gate.sees(Operation::DescribeConfigs, ResourceType::Topic, &topic.name) {
                topic.topic_config_error_code = TOPIC_DENIED;
                (topic.num_partitions, topic.replication_factor, topic.configs) = (-1, -1, Some(Vec::new()));
            }
        }
        response.topics.extend(denied);
    })
}

pub(super) fn delete_topics(caller: &Caller, mut request: DeleteTopicsRequest) -> Verdict {
    let broker = &caller.peer.broker;
    let gate = &caller.gate;
    // In Kafka, who may delete in the cluster may delete every topic.
    if gate.sees(Operation::Delete, ResourceType::Cluster, crate::broker::security::CLUSTER) {
        return Verdict::whole(request);
    }
    let mut denied = Vec::new();
    let mut refuse = |name: Option<String>, topic_id| {
        denied.push(DeletableTopicResult { name, topic_id, error_code: TOPIC_DENIED, error_message: refusal() });
    };
    if caller.version() < 6 {
        let named = counts(request.topic_names.iter().map(String::as_str));
        request.topic_names.retain(|name| {
            let may = !once(&named, name) || (gate.topic(Operation::Describe, name) && gate.topic(Operation::Delete, name));
            if !may {
                refuse(Some(name.clone()), Default::default());
            }
            may
        });
    } else {
        let name = |one: &DeleteTopicState| match &one.name {
            Some(name) => Some(name.clone()),
            None => Some(broker.topic_by_id(one.topic_id)?.name().as_str().to_owned()),
        };
        let names: Vec<_> = request.topics.iter().filter_map(name).collect();
        let named = counts(names.iter().map(String::as_str));
        request.topics.retain(|one| {
            let is_nonsense = one.name.is_some() != one.topic_id.is_nil();
            let Some(called) = name(one).filter(|called| !is_nonsense && once(&named, called)) else { return true };
            if !gate.topic(Operation::Describe, &called) {
                // Its name, or its id, is told as it was asked, and not the other.
                refuse(one.name.clone(), one.topic_id);
                return false;
            }
            let may = gate.topic(Operation::Delete, &called);
            if !may {
                let topic_id = broker.topic_named(&called).map(|topic| topic.id());
                refuse(Some(called), topic_id.unwrap_or_default());
            }
            may
        });
    }
    Verdict::finished(request, |response| {
        if let Response::DeleteTopics(response) = response {
            response.responses.extend(denied);
        }
    })
}

pub(super) fn create_partitions(caller: &Caller, mut request: CreatePartitionsRequest) -> Verdict {
    let named = counts(request.topics.iter().map(|topic| topic.name.as_str()));
    let (allowed, denied): (Vec<_>, Vec<_>) =
        request.topics.into_iter().partition(|topic| !once(&named, &topic.name) || caller.gate.topic(Operation::Alter, &topic.name));
    request.topics = allowed;
    let refused =
        |topic: CreatePartitionsTopic| CreatePartitionsTopicResult { name: topic.name, error_code: TOPIC_DENIED, error_message: refusal() };
    let denied: Vec<_> = denied.into_iter().map(refused).collect();
    Verdict::finished(request, |response| {
        if let Response::CreatePartitions(response) = response {
            response.results.extend(denied);
        }
    })
}

/// Kafka's error for who may not look at, or change, the settings of something. What is no resource is judged by who
/// serves the request.
fn configs(gate: &Gate, operation: Operation, resource_type: i8, name: &str) -> Result<(), i16> {
    const TOPIC: i8 = 2;
    const GROUP: i8 = 32;
    const OF_THE_CLUSTER: [i8; 3] = [4, 8, 16];
    let (may, denied) = match resource_type {
        TOPIC => (gate.topic(operation, name), TOPIC_DENIED),
        GROUP => (gate.group(operation, name), error_code::GROUP_AUTHORIZATION_FAILED),
        other if OF_THE_CLUSTER.contains(&other) => (gate.cluster(operation), DENIED),
        _ => return Ok(()),
    };
    if may { Ok(()) } else { Err(denied) }
}

pub(super) fn describe_configs(caller: &Caller, mut request: DescribeConfigsRequest) -> Verdict {
    // One of a kind that does not exist spoils the whole request, before anybody's rights are looked at.
    const KINDS: [i8; 5] = [2, 4, 8, 16, 32];
    if request.resources.iter().any(|one| !KINDS.contains(&one.resource_type)) {
        return Verdict::whole(request);
    }
    let mut denied = Vec::new();
    request.resources.retain(|one| {
        let may = configs(&caller.gate, Operation::DescribeConfigs, one.resource_type, &one.resource_name);
        if let Err(error_code) = may {
            denied.push(DescribeConfigsResult {
                error_code,
                error_message: refusal(),
                resource_type: one.resource_type,
                resource_name: one.resource_name.clone(),
                ..Default::default()
            });
        }
        may.is_ok()
    });
    Verdict::finished(request, |response| {
        if let Response::DescribeConfigs(response) = response {
            response.results.extend(denied);
        }
    })
}

/// What is wrong with a request for a broker goes before whether its sender has the right to change one.
fn alter_refused(caller: &Caller, resource_type: i8, resource_name: &str) -> Option<AlterConfigsResourceResponse> {
    const OF_ONE_BROKER: [i8; 2] = [4, 8];
    if OF_ONE_BROKER.contains(&resource_type) && !resource_name.is_empty() && this_node(caller, resource_name).is_err() {
        return None;
    }
    let error_code = configs(&caller.gate, Operation::AlterConfigs, resource_type, resource_name).err()?;
    Some(AlterConfigsResourceResponse { error_code, error_message: refusal(), resource_type, resource_name: resource_name.to_owned() })
}

pub(super) fn alter_configs(caller: &Caller, mut request: AlterConfigsRequest) -> Verdict {
    let mut denied = Vec::new();
    request.resources.retain(|one| {
        let is_whole = one.configs.iter().all(|config| config.value.is_some());
        let refused = if is_whole { alter_refused(caller, one.resource_type, &one.resource_name) } else { None };
        let may = refused.is_none();
        denied.extend(refused);
        may
    });
    Verdict::finished(request, |response| {
        if let Response::AlterConfigs(response) = response {
            response.responses.extend(denied);
        }
    })
}

pub(super) fn incremental_alter_configs(caller: &Caller, mut request: IncrementalAlterConfigsRequest) -> Verdict {
    let mut denied = Vec::new();
    request.resources.retain(|one| {
        const REMOVE: i8 = 1;
        let is_whole = one.configs.iter().all(|config| config.value.is_some() || config.config_operation == REMOVE);
        let refused = if is_whole { alter_refused(caller, one.resource_type, &one.resource_name) } else { None };
        let may = refused.is_none();
        denied.extend(refused);
        may
    });
    Verdict::finished(request, |response| {
        if let Response::IncrementalAlterConfigs(response) = response {
            response.responses.extend(denied);
        }
    })
}

pub(super) fn list_config_resources(caller: &Caller, request: ListConfigResourcesRequest) -> Verdict {
    if caller.gate.cluster(Operation::DescribeConfigs) {
        return Verdict::whole(request);
    }
    Verdict::refused(ListConfigResourcesResponse { error_code: DENIED, ..Default::default() })
}

pub(super) fn describe_quorum(caller: &Caller, request: DescribeQuorumRequest) -> Verdict {
    if caller.gate.cluster(Operation::Describe) {
        return Verdict::whole(request);
    }
    Verdict::refused(DescribeQuorumResponse { error_code: DENIED, error_message: refusal(), ..Default::default() })
}

pub(super) fn describe_log_dirs(caller: &Caller, request: DescribeLogDirsRequest) -> Verdict {
    if caller.gate.cluster(Operation::Describe) {
        return Verdict::whole(request);
    }
    Verdict::refused(DescribeLogDirsResponse { error_code: DENIED, ..Default::default() })
}

pub(super) fn alter_replica_log_dirs(caller: &Caller, request: AlterReplicaLogDirsRequest) -> Verdict {
    if caller.gate.cluster(Operation::Alter) {
        return Verdict::whole(request);
    }
    let mut topics: BTreeMap<String, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for topic in request.dirs.into_iter().flat_map(|dir| dir.topics) {
        let refused = |p: &i32| AlterReplicaLogDirPartitionResult { partition_index: *p, error_code: DENIED };
        topics.entry(topic.name).or_default().extend(topic.partitions.iter().map(refused));
    }
    let results = topics.into_iter().map(|(topic_name, partitions)| AlterReplicaLogDirTopicResult { topic_name, partitions }).collect();
    Verdict::refused(AlterReplicaLogDirsResponse { results, ..Default::default() })
}

pub(super) fn elect_leaders(caller: &Caller, request: ElectLeadersRequest) -> Verdict {
    if caller.gate.cluster(Operation::Alter) {
        return Verdict::whole(request);
    }
    let topic = |asked: ElectLeadersTopic| ReplicaElectionResult {
        topic: asked.topic,
        partition_result: asked
            .partitions
            .iter()
            .map(|p| ElectLeadersPartitionResult { partition_id: *p, error_code: DENIED, error_message: refusal() })
            .collect(),
    };
    let replica_election_results = request.topic_partitions.unwrap_or_default().into_iter().map(topic).collect();
    Verdict::refused(ElectLeadersResponse { error_code: DENIED, replica_election_results, ..Default::default() })
}

pub(super) fn alter_reassignments(caller: &Caller, request: AlterPartitionReassignmentsRequest) -> Verdict {
    if caller.gate.cluster(Operation::Alter) {
        return Verdict::whole(request);
    }
    let topic = |topic: ReassignableTopic| ReassignableTopicResponse {
        name: topic.name,
        partitions: topic
            .partitions
            .iter()
            .map(|p| ReassignablePartitionResponse { partition_index: p.partition_index, error_code: DENIED, error_message: refusal() })
            .collect(),
    };
    let responses = request.topics.into_iter().map(topic).collect();
    Verdict::refused(AlterPartitionReassignmentsResponse { error_code: DENIED, error_message: refusal(), responses, ..Default::default() })
}

pub(super) fn list_reassignments(caller: &Caller, request: ListPartitionReassignmentsRequest) -> Verdict {
    if caller.gate.cluster(Operation::Describe) {
        return Verdict::whole(request);
    }
    Verdict::refused(ListPartitionReassignmentsResponse { error_code: DENIED, error_message: refusal(), ..Default::default() })
}
