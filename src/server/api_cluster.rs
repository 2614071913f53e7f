//! What the node tells about itself: ApiVersions, Metadata, DescribeCluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::dispatch::Caller;
use crate::broker::{BrokerError, LEADER_EPOCH, NewTopic, Topic};
use crate::record::{TopicId, TopicName};
use crate::wire::{
    ApiVersionsRequest, ApiVersionsResponse, DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse, FinalizedFeatureKey,
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    SupportedFeatureKey, api_versions as served, error_code,
};

/// Everything a topic's administrator may do: read, write, create, delete, alter, describe, and describe and
/// alter settings. Nobody is told less: there are no access rules yet.
pub(super) const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
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
    // Kafka's name for "groups of KIP-848 are served". Transactions stay at their first version: there is no line.
    let name = || "group.version".to_owned();
    ApiVersionsResponse {
        api_keys: served(),
        supported_features: vec![SupportedFeatureKey { name: name(), min_version: 0, max_version: 1 }],
        finalized_features_epoch: 0,
        finalized_features: vec![FinalizedFeatureKey { name: name(), max_version_level: 1, min_version_level: 1 }],
        ..Default::default()
    }
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
    let topics = match asked {
        None => peer.broker.topics().iter().map(|topic| describe_topic(topic, node, operations)).collect(),
        Some(asked) => match lookups(asked, version) {
            // Kafka tells nothing at all beside it.
            Lookups::Nonsense(topics) => return MetadataResponse { topics, ..Default::default() },
            Lookups::Ids(ids) => ids
                .into_iter()
                .map(|id| match peer.broker.topic_by_id(id) {
                    Some(topic) => describe_topic(&topic, node, operations),
                    None => MetadataResponseTopic { error_code: error_code::UNKNOWN_TOPIC_ID, topic_id: id, ..Default::default() },
                })
                .collect(),
            Lookups::Names(names) => {
                let mut topics = Vec::with_capacity(names.len());
                for name in names {
                    topics.push(match by_name(caller, &name, request.allow_auto_topic_creation).await {
                        Ok(topic) => describe_topic(&topic, node, operations),
                        Err(error_code) => MetadataResponseTopic {
                            error_code,
                            name: Some(name),
                            topic_authorized_operations: operations,
                            ..Default::default()
                        },
                    });
                }
                topics
            }
        },
    };
    MetadataResponse {
        brokers: vec![MetadataResponseBroker { node_id: node, host: peer.host(), port: peer.port(), rack: None }],
        cluster_id: Some(peer.broker.cluster_id().to_owned()),
        controller_id: node,
        topics,
        cluster_authorized_operations: if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { i32::MIN },
        ..Default::default()
    }
}

/// What topics are asked for by.
#[derive(Debug, PartialEq)]
enum Lookups {
    Names(BTreeSet<String>),
    Ids(BTreeSet<TopicId>),
    /// The request asks by something it cannot: what it is told.
    Nonsense(Vec<MetadataResponseTopic>),
}

/// Whether a Metadata request asks by something it cannot: in Kafka that goes before rights.
pub(super) fn is_nonsense(asked: &[MetadataRequestTopic], version: i16) -> bool {
    const LOOKS_UP_IDS: i16 = 12;
    let with_ids = version >= LOOKS_UP_IDS;
    asked
        .iter()
        .any(|one| if with_ids { one.name.is_none() && one.topic_id.is_nil() } else { one.name.is_none() || !one.topic_id.is_nil() })
}

/// Kafka's rules: what is named twice is told once; ids are for version 12 on, and where there is one, the names do
/// not count.
fn lookups(asked: Vec<MetadataRequestTopic>, version: i16) -> Lookups {
    if is_nonsense(&asked, version) {
        let refused = |one: MetadataRequestTopic| MetadataResponseTopic {
            error_code: error_code::INVALID_REQUEST,
            name: Some(one.name.unwrap_or_default()),
            topic_id: one.topic_id,
            ..Default::default()
        };
        return Lookups::Nonsense(asked.into_iter().map(refused).collect());
    }
    let ids: BTreeSet<_> = asked.iter().map(|one| one.topic_id).filter(|id| !id.is_nil()).collect();
    if ids.is_empty() { Lookups::Names(asked.into_iter().filter_map(|one| one.name).collect()) } else { Lookups::Ids(ids) }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: Option<&str>, id: u8) -> MetadataRequestTopic {
        MetadataRequestTopic { topic_id: TopicId([id; 16]), name: name.map(str::to_owned) }
    }

    #[test]
    fn topics_are_looked_up_by_name_or_by_id_each_once() {
        let names = |names: &[&str]| Lookups::Names(names.iter().map(|n| (*n).to_owned()).collect());
        let ids = |ids: &[u8]| Lookups::Ids(ids.iter().map(|id| TopicId([*id; 16])).collect());
        assert_eq!(lookups(vec![topic(Some("b"), 0), topic(Some("a"), 0), topic(Some("b"), 0)], 12), names(&["a", "b"]));
        assert_eq!(lookups(vec![topic(None, 2), topic(None, 2), topic(Some("a"), 1)], 12), ids(&[1, 2]));
        assert_eq!(lookups(vec![topic(None, 2), topic(Some("b"), 0)], 12), ids(&[2]), "where there is an id, names do not count");
        assert_eq!(lookups(vec![topic(Some("a"), 0)], 11), names(&["a"]));
        for (nonsense, version) in [(topic(None, 0), 12), (topic(None, 2), 11), (topic(Some("a"), 2), 10), (topic(None, 0), 10)] {
            assert!(matches!(lookups(vec![topic(Some("a"), 0), nonsense], version), Lookups::Nonsense(all) if all.len() == 2));
        }
    }

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
