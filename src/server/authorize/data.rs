//! Rights to topics: Produce, Fetch, ListOffsets, Metadata, OffsetForLeaderEpoch, DeleteRecords,
//! DescribeTopicPartitions, DescribeCluster.

use std::collections::BTreeSet;

use super::super::api_cluster::is_nonsense;
use super::super::dispatch::Caller;
use super::{Gate, Verdict};
use crate::broker::security::{Operation, ResourceType};
use crate::broker::txn::{is_transactional, stumbles};
use crate::record::TopicId;
use crate::wire::*;

const DENIED: i16 = error_code::TOPIC_AUTHORIZATION_FAILED;

/// The name that a request means by a name or an id; an id that nothing has means nothing.
fn meant(caller: &Caller, name: &str, id: TopicId) -> Option<String> {
    if id.is_nil() { Some(name.to_owned()) } else { Some(caller.peer.broker.topic_by_id(id)?.name().as_str().to_owned()) }
}

/// Whether something may be done to what a Produce or Fetch request means. What does not exist is judged by who serves the request.
fn may(caller: &Caller, operation: Operation, name: &str, id: TopicId) -> bool {
    /// From this version of either on topics have ids in place of names.
    const HAS_IDS: i16 = 13;
    let is_nothing = id.is_nil() && caller.version() >= HAS_IDS;
    is_nothing || meant(caller, name, id).is_none_or(|name| caller.gate.topic(operation, &name))
}

pub(super) fn produce(caller: &Caller, mut request: ProduceRequest) -> Verdict {
    let transaction = request.transactional_id.as_deref();
    let refused = |topic: ProduceTopic, code: i16| ProduceTopicResponse {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|p| ProducePartitionResponse { index: p.index, error_code: code, ..Default::default() })
            .collect(),
    };
    let all = || request.topics.iter().flat_map(|topic| &topic.partitions).filter_map(|partition| partition.records.as_ref());
    // Of no right, since the request is refused whole.
    if stumbles(all()) {
        return Verdict::whole(request);
    }
    let may_transact = || transaction.is_some_and(|id| caller.gate.transaction(Operation::Write, id));
    if all().any(|records| is_transactional(records)) && !may_transact() {
        let code = error_code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        let responses = request.topics.into_iter().map(|topic| refused(topic, code)).collect();
        return Verdict::refused(ProduceResponse { responses, ..Default::default() });
    }
    let (allowed, denied): (Vec<_>, Vec<_>) =
        request.topics.into_iter().partition(|topic| may(caller, Operation::Write, &topic.name, topic.topic_id));
    request.topics = allowed;
    let denied: Vec<_> = denied.into_iter().map(|topic| refused(topic, DENIED)).collect();
    if denied.is_empty() {
        return Verdict::whole(request);
    }
    if request.topics.is_empty() {
        return Verdict::refused(ProduceResponse { responses: denied, ..Default::default() });
    }
    Verdict::finished(request, |response| {
        if let Response::Produce(response) = response {
            response.responses.extend(denied);
        }
    })
}

pub(super) fn fetch(caller: &Caller, mut request: FetchRequest) -> Verdict {
    let refused = |topic: FetchTopic| FetchTopicResponse {
        topic: topic.topic,
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|p| FetchPartitionResponse {
                partition_index: p.partition,
                error_code: DENIED,
                high_watermark: -1,
                aborted_transactions: Some(Vec::new()),
                ..Default::default()
            })
            .collect(),
    };
    // Whoever claims to be another broker needs the right to be one.
    let is_broker = request.replica_id >= 0;
    let may_follow = !is_broker || caller.gate.cluster(Operation::ClusterAction);
    let (allowed, denied): (Vec<_>, Vec<_>) = request
        .topics
        .into_iter()
        .partition(|topic| may_follow && (is_broker || may(caller, Operation::Read, &topic.topic, topic.topic_id)));
    request.topics = allowed;
    let denied: Vec<_> = denied.into_iter().map(refused).collect();
    if denied.is_empty() {
        return Verdict::whole(request);
    }
    if request.topics.is_empty() && request.session_epoch <= 0 {
        return Verdict::refused(FetchResponse { responses: denied, ..Default::default() });
    }
    Verdict::finished(request, |response| {
        if let Response::Fetch(response) = response {
            response.responses.extend(denied);
        }
    })
}

pub(super) fn list_offsets(caller: &Caller, mut request: ListOffsetsRequest) -> Verdict {
    let (allowed, denied): (Vec<_>, Vec<_>) =
        request.topics.into_iter().partition(|topic| caller.gate.topic(Operation::Describe, &topic.name));
    request.topics = allowed;
    let refused = |topic: ListOffsetsTopic| ListOffsetsTopicResponse {
        name: topic.name,
        partitions: topic
            .partitions
            .iter()
            .map(|p| ListOffsetsPartitionResponse { partition_index: p.partition_index, error_code: DENIED, ..Default::default() })
            .collect(),
    };
    let denied: Vec<_> = denied.into_iter().map(refused).collect();
    Verdict::finished(request, |response| {
        if let Response::ListOffsets(response) = response {
            response.topics.extend(denied);
        }
    })
}

pub(super) fn metadata(caller: &Caller, mut request: MetadataRequest) -> Verdict {
    let gate = caller.gate.clone();
    let version = caller.version();
    let (of_topics, of_cluster) = (request.include_topic_authorized_operations, request.include_cluster_authorized_operations);
    let finish = move |response: &mut Response, denied: Vec<MetadataResponseTopic>, none: bool| {
        let Response::Metadata(response) = response else { return };
        if none {
            response.topics.clear();
        }
        response.topics.retain(|topic| {
            let seen = |name: &String| gate.sees(Operation::Describe, ResourceType::Topic, name);
            topic.error_code != error_code::NONE || topic.name.as_ref().is_none_or(seen)
        });
        if of_topics {
            for topic in &mut response.topics {
                let name = topic.name.as_deref().unwrap_or_default();
                topic.topic_authorized_operations = if topic.error_code == error_code::NONE {
                    gate.operations(ResourceType::Topic, name)
                } else {
                    topic.topic_authorized_operations
                };
            }
        }
        if of_cluster {
            response.cluster_authorized_operations = gate.cluster_operations();
        }
        response.topics.extend(denied);
    };
    // In version 0 an empty list means all.
    let Some(mut asked) = request.topics.take().filter(|topics| version > 0 || !topics.is_empty()) else {
        return Verdict::finished(request, move |response| finish(response, Vec::new(), false));
    };
    if is_nonsense(&asked, version) {
        return Verdict::whole(MetadataRequest { topics: Some(asked), ..request });
    }
    // Beside ids names do not count.
    if asked.iter().any(|one| !one.topic_id.is_nil()) {
        asked.retain(|one| !one.topic_id.is_nil());
    }
    let (allowed, denied): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|one| may_be_told(caller, one, request.allow_auto_topic_creation));
    // An id is no secret; the name it stands for is.
    let by_id = |id: TopicId| MetadataResponseTopic { error_code: DENIED, topic_id: id, ..Default::default() };
    let by_name = |name| MetadataResponseTopic { error_code: DENIED, name, ..Default::default() };
    let mut told = BTreeSet::new();
    let denied: Vec<_> = denied
        .into_iter()
        .filter(|one| told.insert((one.name.clone(), one.topic_id)))
        .map(|one| if one.topic_id.is_nil() { by_name(one.name) } else { by_id(one.topic_id) })
        .collect();
    let none = allowed.is_empty();
    request.topics = Some(allowed);
    Verdict::finished(request, move |response| finish(response, denied, none))
}

/// Whether a client may be told of a topic it asks for, or make it by asking.
fn may_be_told(caller: &Caller, asked: &MetadataRequestTopic, may_create: bool) -> bool {
    let gate = &caller.gate;
    let broker = &caller.peer.broker;
    let name = meant(caller, asked.name.as_deref().unwrap_or_default(), asked.topic_id);
    // What is asked for by an id that nothing has is judged by who serves the request.
    let Some(name) = name else { return true };
    if !gate.topic(Operation::Describe, &name) {
        return false;
    }
    let creates = asked.topic_id.is_nil() && may_create && broker.config().auto_create_topics && broker.topic_named(&name).is_none();
    !creates || may_create_topic(gate, &name)
}

/// Topics are made by those who may make any, or this one.
pub(super) fn may_create_topic(gate: &Gate, name: &str) -> bool {
    use crate::broker::security::CLUSTER;
    gate.sees(Operation::Create, ResourceType::Cluster, CLUSTER) || gate.topic(Operation::Create, name)
}

pub(super) fn offset_for_leader_epoch(caller: &Caller, mut request: OffsetForLeaderEpochRequest) -> Verdict {
    if caller.gate.sees(Operation::ClusterAction, ResourceType::Cluster, crate::broker::security::CLUSTER) {
        return Verdict::whole(request);
    }
    let (allowed, denied): (Vec<_>, Vec<_>) =
        request.topics.into_iter().partition(|topic| caller.gate.topic(Operation::Describe, &topic.topic));
    request.topics = allowed;
    let refused = |topic: OffsetForLeaderTopic| OffsetForLeaderTopicResult {
        topic: topic.topic,
        partitions: topic
            .partitions
            .iter()
            .map(|p| EpochEndOffset { error_code: DENIED, partition: p.partition, ..Default::default() })
            .collect(),
    };
    let denied: Vec<_> = denied.into_iter().map(refused).collect();
    Verdict::finished(request, |response| {
        if let Response::OffsetForLeaderEpoch(response) = response {
            response.topics.extend(denied);
        }
    })
}

pub(super) fn delete_records(caller: &Caller, mut request: DeleteRecordsRequest) -> Verdict {
    let (allowed, denied): (Vec<_>, Vec<_>) =
        request.topics.into_iter().partition(|topic| caller.gate.topic(Operation::Delete, &topic.name));
    request.topics = allowed;
    let refused = |topic: DeleteRecordsTopic| DeleteRecordsTopicResult {
        name: topic.name,
        partitions: topic
            .partitions
            .iter()
            .map(|p| DeleteRecordsPartitionResult { partition_index: p.partition_index, low_watermark: -1, error_code: DENIED })
            .collect(),
    };
    let denied: Vec<_> = denied.into_iter().map(refused).collect();
    Verdict::finished(request, |response| {
        if let Response::DeleteRecords(response) = response {
            response.topics.extend(denied);
        }
    })
}

pub(super) fn describe_topic_partitions(caller: &Caller, mut request: DescribeTopicPartitionsRequest) -> Verdict {
    let gate = caller.gate.clone();
    let mut denied = Vec::new();
    let all = request.topics.is_empty();
    if all {
        // A page is cut by who serves the request, so it is asked for what may be seen, by name.
        let topics = caller.peer.broker.topics();
        let seen =
            topics.iter().map(|topic| topic.name().as_str()).filter(|name| gate.sees(Operation::Describe, ResourceType::Topic, name));
        request.topics = seen.map(|name| DescribeTopicPartitionsTopic { name: name.to_owned() }).collect();
    } else {
        // A cursor that leads nowhere is refused before anyone asks for rights, by who serves the request.
        let leads_nowhere =
            |cursor: &PartitionCursor| cursor.partition_index < 0 || !request.topics.iter().any(|topic| topic.name == cursor.topic_name);
        if request.cursor.as_ref().is_some_and(leads_nowhere) {
            return Verdict::whole(request);
        }
        // On later pages what lies before the cursor was told already.
        let from = request.cursor.as_ref().map_or("", |cursor| cursor.topic_name.as_str());
        let (allowed, not): (Vec<_>, Vec<_>) = request
            .topics
            .into_iter()
            .filter(|topic| topic.name.as_str() >= from)
            .partition(|topic| caller.gate.topic(Operation::Describe, &topic.name));
        request.topics = allowed;
        let names: BTreeSet<String> = not.into_iter().map(|topic| topic.name).collect();
        denied.extend(names.into_iter().map(|name| DescribeTopicPartitionsTopicResult {
            error_code: DENIED,
            name: Some(name),
            ..Default::default()
        }));
    }
    // A cursor may point at what is not there any more, or may not be seen: the next page begins behind it.
    if let Some(cursor) = &mut request.cursor
        && !request.topics.iter().any(|topic| topic.name == cursor.topic_name)
        && let Some(next) = request.topics.iter().map(|topic| &topic.name).filter(|name| **name > cursor.topic_name).min()
    {
        (cursor.topic_name, cursor.partition_index) = (next.clone(), 0);
    }
    if request.topics.is_empty() {
        return Verdict::refused(DescribeTopicPartitionsResponse { topics: denied, ..Default::default() });
    }
    Verdict::finished(request, move |response| {
        let Response::DescribeTopicPartitions(response) = response else { return };
        // A cursor that leads nowhere refuses the whole request, which then says nothing of rights.
        for topic in response.topics.iter_mut().filter(|topic| topic.error_code != error_code::INVALID_REQUEST) {
            topic.topic_authorized_operations = gate.operations(ResourceType::Topic, topic.name.as_deref().unwrap_or_default());
        }
        response.topics.extend(denied);
    })
}

/// Everyone may ask; what they may do is told as it is.
pub(super) fn describe_cluster(caller: &Caller, request: DescribeClusterRequest) -> Verdict {
    let gate = caller.gate.clone();
    let wanted = request.include_cluster_authorized_operations;
    Verdict::finished(request, move |response| {
        if let Response::DescribeCluster(response) = response
            && wanted
            && response.error_code == error_code::NONE
        {
            response.cluster_authorized_operations = gate.cluster_operations();
        }
    })
}
