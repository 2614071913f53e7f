//! What the node tells about itself: ApiVersions, Metadata, DescribeCluster; and InitProducerId.

use std::sync::Arc;

use super::dispatch::Caller;
use crate::broker::{BrokerError, LEADER_EPOCH, NewTopic, Topic};
use crate::record::TopicName;
use crate::wire::{
    ApiVersionsRequest, ApiVersionsResponse, DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse, InitProducerIdRequest,
    InitProducerIdResponse, MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    api_versions as served, error_code,
};

/// Everything a topic's administrator may do: read, write, create, delete, alter, describe, and describe and
/// alter settings. Nobody is told less: there are no access rules yet.
const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// Everything a cluster's administrator may do: create, alter, describe, cluster actions, describe and alter
/// settings, idempotent writes.
const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

pub(super) fn api_versions(caller: &mut Caller, request: ApiVersionsRequest) -> ApiVersionsResponse {
    if caller.version() >= 3 {
        if !is_software_name(&request.client_software_name) || !is_software_name(&request.client_software_version) {
            return ApiVersionsResponse { error_code: error_code::INVALID_REQUEST, ..Default::default() };
        }
        caller.software = Some((request.client_software_name, request.client_software_version));
    }
    ApiVersionsResponse { api_keys: served(), ..Default::default() }
}

/// Kafka's rule: letters, digits, `-` and `.`, a letter or digit at both ends.
fn is_software_name(text: &str) -> bool {
    let ends = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let bytes = text.as_bytes();
    bytes.len() <= 256
        && ends(bytes.first().copied())
        && ends(bytes.last().copied())
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.'))
}

pub(super) async fn metadata(caller: &Caller, request: MetadataRequest) -> MetadataResponse {
    let peer = &caller.peer;
    let version = caller.version();
    // In version 0 an empty list means all; later it means none, and null means all.
    let asked = request.topics.filter(|topics| version > 0 || !topics.is_empty());
    let operations = if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { i32::MIN };
    let node = peer.broker.config().node_id;
    let mut topics = Vec::new();
    match asked {
        None => topics.extend(peer.broker.topics().iter().map(|topic| describe_topic(topic, node, operations))),
        Some(asked) => {
            for one in asked {
                let found = match &one.name {
                    Some(name) => by_name(caller, name, request.allow_auto_topic_creation).await,
                    None => peer.broker.topic_by_id(one.topic_id).ok_or(error_code::UNKNOWN_TOPIC_ID),
                };
                topics.push(match found {
                    Ok(topic) => describe_topic(&topic, node, operations),
                    Err(error_code) => MetadataResponseTopic {
                        error_code,
                        topic_id: one.topic_id,
                        topic_authorized_operations: if one.name.is_some() { operations } else { i32::MIN },
                        name: one.name,
                        ..Default::default()
                    },
                });
            }
        }
    }
    MetadataResponse {
        brokers: vec![MetadataResponseBroker { node_id: node, host: peer.host(), port: peer.port(), rack: None }],
        cluster_id: Some(peer.broker.cluster_id().to_owned()),
        controller_id: node,
        topics,
        cluster_authorized_operations: if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { i32::MIN },
        ..Default::default()
    }
}

/// The topic, made where it may be.
async fn by_name(caller: &Caller, name: &str, may_create: bool) -> Result<Arc<Topic>, i16> {
    let broker = &caller.peer.broker;
    let name = TopicName::new(name).map_err(|_| error_code::INVALID_TOPIC_EXCEPTION)?;
    if let Some(topic) = broker.topic(&name) {
        return Ok(topic);
    }
    if !may_create || !broker.config().auto_create_topics {
        return Err(error_code::UNKNOWN_TOPIC_OR_PARTITION);
    }
    if name.is_internal() {
        return Err(error_code::INVALID_TOPIC_EXCEPTION);
    }
    match broker.create_topic(NewTopic::named(name)).await {
        Ok(topic) => Ok(topic),
        // Another client named it first.
        Err(BrokerError::TopicExists(name)) => broker.topic(&name).ok_or(error_code::UNKNOWN_TOPIC_OR_PARTITION),
        Err(error) => {
            tracing::warn!(%error, "could not make a topic that a client named");
            // Invalid as it stands, so that no client asks for ever.
            Err(if matches!(error, BrokerError::InvalidPartitions(_)) { error_code::INVALID_PARTITIONS } else { error.code() })
        }
    }
}

fn describe_topic(topic: &Topic, node: i32, operations: i32) -> MetadataResponseTopic {
    let partition = |partition_index| MetadataResponsePartition {
        partition_index,
        leader_id: node,
        leader_epoch: LEADER_EPOCH,
        replica_nodes: vec![node],
        isr_nodes: vec![node],
        ..Default::default()
    };
    MetadataResponseTopic {
        error_code: error_code::NONE,
        name: Some(topic.name().as_str().to_owned()),
        topic_id: topic.id(),
        is_internal: topic.name().is_internal(),
        partitions: (0..topic.partition_count()).map(partition).collect(),
        topic_authorized_operations: operations,
    }
}

pub(super) fn describe_cluster(caller: &Caller, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    const BROKERS: i8 = 1;
    const CONTROLLERS: i8 = 2;
    let peer = &caller.peer;
    let node = peer.broker.config().node_id;
    if request.endpoint_type != BROKERS {
        let mismatched = request.endpoint_type == CONTROLLERS;
        return DescribeClusterResponse {
            error_code: if mismatched { error_code::MISMATCHED_ENDPOINT_TYPE } else { error_code::UNSUPPORTED_ENDPOINT_TYPE },
            error_message: Some("this listener tells brokers, there are no others".to_owned()),
            ..Default::default()
        };
    }
    DescribeClusterResponse {
        cluster_id: peer.broker.cluster_id().to_owned(),
        controller_id: node,
        brokers: vec![DescribeClusterBroker { broker_id: node, host: peer.host(), port: peer.port(), rack: None, is_fenced: false }],
        cluster_authorized_operations: if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { i32::MIN },
        ..Default::default()
    }
}

/// A producer without a transaction always gets a fresh id, as in Kafka: what it held before does not matter,
/// its epoch begins at 0 again under the new id.
pub(super) async fn init_producer_id(caller: &Caller, request: &InitProducerIdRequest) -> InitProducerIdResponse {
    let refused = |error_code| InitProducerIdResponse { error_code, ..Default::default() };
    if request.transactional_id.is_some() {
        return refused(error_code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    }
    if (request.producer_id == -1) != (request.producer_epoch == -1) {
        return refused(error_code::INVALID_REQUEST);
    }
    match caller.peer.broker.new_producer_id().await {
        Ok(producer_id) => InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() },
        Err(error) => {
            tracing::warn!(%error, "could not give a producer its identity");
            refused(error_code::COORDINATOR_NOT_AVAILABLE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_clients_software_follows_kafkas_rule() {
        for good in ["librdkafka", "a", "apache-kafka-java", "4.0.0", "1"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".", "a b", "a\n", "ä", &"a".repeat(257)] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
