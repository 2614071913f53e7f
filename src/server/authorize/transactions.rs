//! Rights to transactions and producers: InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, TxnOffsetCommit,
//! WriteTxnMarkers, DescribeProducers, DescribeTransactions, ListTransactions.

use super::super::dispatch::Caller;
use super::{Verdict, refusal};
use crate::broker::security::{CLUSTER, Operation, ResourceType};
use crate::record::{PartitionId, TopicName, TopicPartition};
use crate::wire::*;

const DENIED: i16 = error_code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
const TOPIC_DENIED: i16 = error_code::TOPIC_AUTHORIZATION_FAILED;
const GROUP_DENIED: i16 = error_code::GROUP_AUTHORIZATION_FAILED;
const CLUSTER_DENIED: i16 = error_code::CLUSTER_AUTHORIZATION_FAILED;

pub(super) fn init_producer_id(caller: &Caller, request: InitProducerIdRequest) -> Verdict {
    let gate = &caller.gate;
    let error_code = match &request.transactional_id {
        Some(id) if !gate.transaction(Operation::Write, id) => DENIED,
        Some(_) => return Verdict::whole(request),
        // Whoever may write anywhere may write with a sequence.
        None if gate.sees(Operation::IdempotentWrite, ResourceType::Cluster, CLUSTER) || gate.writes_somewhere() => {
            return Verdict::whole(request);
        }
        None if gate.cluster(Operation::IdempotentWrite) => return Verdict::whole(request),
        None => CLUSTER_DENIED,
    };
    Verdict::refused(InitProducerIdResponse { error_code, ..Default::default() })
}

pub(super) fn add_partitions(caller: &Caller, request: AddPartitionsToTxnRequest) -> Verdict {
    let told = |code: &dyn Fn(&str, i32) -> i16| {
        let topic = |topic: &AddPartitionsToTxnTopic| AddPartitionsToTxnTopicResult {
            name: topic.name.clone(),
            results_by_partition: topic
                .partitions
                .iter()
                .map(|p| AddPartitionsToTxnPartitionResult { partition_index: *p, partition_error_code: code(&topic.name, *p) })
                .collect(),
        };
        let results_by_topic = request.topics.iter().map(topic).collect();
        Verdict::refused(AddPartitionsToTxnResponse { results_by_topic, ..Default::default() })
    };
    if !caller.gate.transaction(Operation::Write, &request.transactional_id) {
        return told(&|_, _| DENIED);
    }
    let denied: Vec<&str> =
        request.topics.iter().map(|topic| topic.name.as_str()).filter(|name| !caller.gate.topic(Operation::Write, name)).collect();
    if denied.is_empty() {
        return Verdict::whole(request);
    }
    // All of them or none: what would have been taken is told that it was not tried.
    told(&|name, partition| {
        if denied.contains(&name) {
            return TOPIC_DENIED;
        }
        match TopicName::new(name) {
            Ok(topic) if topic.is_written_by_node_alone() => TOPIC_DENIED,
            Ok(topic) if caller.peer.broker.partition(&TopicPartition::new(topic.clone(), PartitionId(partition))).is_some() => {
                error_code::OPERATION_NOT_ATTEMPTED
            }
            _ => error_code::UNKNOWN_TOPIC_OR_PARTITION,
        }
    })
}

pub(super) fn add_offsets(caller: &Caller, request: AddOffsetsToTxnRequest) -> Verdict {
    let error_code = if !caller.gate.transaction(Operation::Write, &request.transactional_id) {
        DENIED
    } else if !caller.gate.group(Operation::Read, &request.group_id) {
        GROUP_DENIED
    } else {
        return Verdict::whole(request);
    };
    Verdict::refused(AddOffsetsToTxnResponse { error_code, ..Default::default() })
}

pub(super) fn end(caller: &Caller, request: EndTxnRequest) -> Verdict {
    if caller.gate.transaction(Operation::Write, &request.transactional_id) {
        return Verdict::whole(request);
    }
    Verdict::refused(EndTxnResponse { error_code: DENIED, ..Default::default() })
}

pub(super) fn commit_offsets(caller: &Caller, mut request: TxnOffsetCommitRequest) -> Verdict {
    let refused = |topic: TxnOffsetCommitRequestTopic, error_code: i16| TxnOffsetCommitResponseTopic {
        name: topic.name,
        partitions: topic
            .partitions
            .iter()
            .map(|p| TxnOffsetCommitResponsePartition { partition_index: p.partition_index, error_code })
            .collect(),
    };
    let whole = if !caller.gate.transaction(Operation::Write, &request.transactional_id) {
        Some(DENIED)
    } else if !caller.gate.group(Operation::Read, &request.group_id) {
        Some(GROUP_DENIED)
    } else {
        None
    };
    if let Some(code) = whole {
        let topics = request.topics.into_iter().map(|topic| refused(topic, code)).collect();
        return Verdict::refused(TxnOffsetCommitResponse { topics, ..Default::default() });
    }
    let (allowed, denied): (Vec<_>, Vec<_>) = request.topics.into_iter().partition(|topic| caller.gate.topic(Operation::Read, &topic.name));
    request.topics = allowed;
    let denied: Vec<_> = denied.into_iter().map(|topic| refused(topic, TOPIC_DENIED)).collect();
    if request.topics.is_empty() && !denied.is_empty() {
        return Verdict::refused(TxnOffsetCommitResponse { topics: denied, ..Default::default() });
    }
    Verdict::finished(request, |response| {
        if let Response::TxnOffsetCommit(response) = response {
            response.topics.extend(denied);
        }
    })
}

pub(super) fn write_markers(caller: &Caller, request: WriteTxnMarkersRequest) -> Verdict {
    let gate = &caller.gate;
    if gate.sees(Operation::Alter, ResourceType::Cluster, CLUSTER) || gate.cluster(Operation::ClusterAction) {
        return Verdict::whole(request);
    }
    let topic = |topic: WritableTxnMarkerTopic| WritableTxnMarkerTopicResult {
        name: topic.name,
        partitions: topic
            .partition_indexes
            .iter()
            .map(|p| WritableTxnMarkerPartitionResult { partition_index: *p, error_code: CLUSTER_DENIED })
            .collect(),
    };
    let marker = |marker: WritableTxnMarker| WritableTxnMarkerResult {
        producer_id: marker.producer_id,
        topics: marker.topics.into_iter().map(topic).collect(),
    };
    Verdict::refused(WriteTxnMarkersResponse { markers: request.markers.into_iter().map(marker).collect() })
}

pub(super) fn describe_producers(caller: &Caller, mut request: DescribeProducersRequest) -> Verdict {
    // A name that no topic can have is told to be such, whoever asks.
    let may = |name: &str| TopicName::new(name).is_err() || caller.gate.topic(Operation::Read, name);
    let (allowed, denied): (Vec<_>, Vec<_>) = request.topics.into_iter().partition(|topic| may(&topic.name));
    request.topics = allowed;
    let refused = |topic: DescribeProducersTopicRequest| DescribeProducersTopicResponse {
        name: topic.name,
        partitions: topic
            .partition_indexes
            .iter()
            .map(|p| DescribeProducersPartitionResponse {
                partition_index: *p,
                error_code: TOPIC_DENIED,
                error_message: refusal(),
                ..Default::default()
            })
            .collect(),
    };
    let denied: Vec<_> = denied.into_iter().map(refused).collect();
    Verdict::finished(request, |response| {
        if let Response::DescribeProducers(response) = response {
            response.topics.extend(denied);
        }
    })
}

pub(super) fn describe(caller: &Caller, mut request: DescribeTransactionsRequest) -> Verdict {
    let gate = caller.gate.clone();
    let (allowed, denied): (Vec<_>, Vec<_>) =
        request.transactional_ids.into_iter().partition(|id| gate.transaction(Operation::Describe, id));
    request.transactional_ids = allowed;
    let refused = |transactional_id| DescribeTransactionsTransactionState { error_code: DENIED, transactional_id, ..Default::default() };
    let denied: Vec<_> = denied.into_iter().map(refused).collect();
    Verdict::finished(request, move |response| {
        let Response::DescribeTransactions(response) = response else { return };
        for transaction in &mut response.transaction_states {
            transaction.topics.retain(|topic| gate.sees(Operation::Describe, ResourceType::Topic, &topic.topic));
        }
        response.transaction_states.extend(denied);
    })
}

pub(super) fn list(caller: &Caller, request: ListTransactionsRequest) -> Verdict {
    let gate = caller.gate.clone();
    Verdict::finished(request, move |response| {
        if let Response::ListTransactions(response) = response {
            response.transaction_states.retain(|one| gate.sees(Operation::Describe, ResourceType::TransactionalId, &one.transactional_id));
        }
    })
}
