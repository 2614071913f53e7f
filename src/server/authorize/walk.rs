//! One request of every API that is served, about topics, groups and transactional ids `a` and `b`: what the tests of
//! rights walk through. A new API does not compile here before it has its request.

use bytes::Bytes;

use crate::wire::*;

/// Names that requests ask for: of `a` there may be rights, of `b` there are none.
const BOTH: [&str; 2] = ["a", "b"];

fn both<T>(make: impl Fn(&str) -> T) -> Vec<T> {
    BOTH.iter().map(|name| make(name)).collect()
}

fn text(name: &str) -> String {
    name.to_owned()
}

/// A request of an API as it is asked in this version.
pub(super) fn request(key: ApiKey, version: i16) -> Request {
    match key {
        ApiKey::Produce => ProduceRequest {
            acks: 1,
            timeout_ms: 1000,
            topics: both(|name| ProduceTopic {
                name: text(name),
                partitions: vec![ProducePartition { index: 0, records: Some(Bytes::new()) }],
                ..Default::default()
            }),
            ..Default::default()
        }
        .into(),
        ApiKey::Fetch => FetchRequest {
            topics: both(|name| FetchTopic {
                topic: text(name),
                partitions: vec![FetchPartition { partition_max_bytes: 100, ..Default::default() }],
                ..Default::default()
            }),
            ..Default::default()
        }
        .into(),
        ApiKey::ListOffsets => ListOffsetsRequest {
            topics: both(|name| ListOffsetsTopic {
                name: text(name),
                partitions: vec![ListOffsetsPartition { timestamp: -1, ..Default::default() }],
            }),
            ..Default::default()
        }
        .into(),
        ApiKey::Metadata => MetadataRequest {
            topics: Some(both(|name| MetadataRequestTopic { name: Some(text(name)), ..Default::default() })),
            allow_auto_topic_creation: false,
            include_cluster_authorized_operations: true,
            include_topic_authorized_operations: true,
        }
        .into(),
        ApiKey::OffsetCommit => OffsetCommitRequest {
            group_id: text("a"),
            topics: both(|name| OffsetCommitRequestTopic {
                name: text(name),
                partitions: vec![OffsetCommitRequestPartition::default()],
                ..Default::default()
            }),
            ..Default::default()
        }
        .into(),
        ApiKey::OffsetFetch => {
            let topics = Some(both(|name| OffsetFetchRequestTopic { name: text(name), partition_indexes: vec![0], ..Default::default() }));
            let groups = both(|name| OffsetFetchRequestGroup { group_id: text(name), topics: topics.clone(), ..Default::default() });
            let groups = if version < 8 { Vec::new() } else { groups };
            OffsetFetchRequest { group_id: text("a"), topics, groups, ..Default::default() }.into()
        }
        ApiKey::FindCoordinator => FindCoordinatorRequest { key: text("b"), coordinator_keys: both(text), ..Default::default() }.into(),
        ApiKey::JoinGroup => JoinGroupRequest {
            group_id: text("b"),
            session_timeout_ms: 10_000,
            protocol_type: text("consumer"),
            protocols: vec![JoinGroupRequestProtocol { name: text("range"), metadata: Bytes::new() }],
            ..Default::default()
        }
        .into(),
        ApiKey::Heartbeat => HeartbeatRequest { group_id: text("b"), ..Default::default() }.into(),
        ApiKey::LeaveGroup => LeaveGroupRequest { group_id: text("b"), ..Default::default() }.into(),
        ApiKey::SyncGroup => SyncGroupRequest { group_id: text("b"), ..Default::default() }.into(),
        ApiKey::DescribeGroups => DescribeGroupsRequest { groups: both(text), include_authorized_operations: true }.into(),
        ApiKey::ListGroups => ListGroupsRequest::default().into(),
        ApiKey::SaslHandshake => SaslHandshakeRequest { mechanism: text("PLAIN") }.into(),
        ApiKey::ApiVersions => ApiVersionsRequest { client_software_name: text("walk"), client_software_version: text("1") }.into(),
        ApiKey::CreateTopics => CreateTopicsRequest {
            topics: vec![CreatableTopic { name: text("c"), num_partitions: 1, replication_factor: 1, ..Default::default() }],
            validate_only: true,
            ..Default::default()
        }
        .into(),
        ApiKey::DeleteTopics => DeleteTopicsRequest {
            topics: both(|name| DeleteTopicState { name: Some(text(name)), ..Default::default() }),
            topic_names: both(text),
            timeout_ms: 1000,
        }
        .into(),
        ApiKey::DeleteRecords => DeleteRecordsRequest {
            topics: both(|name| DeleteRecordsTopic { name: text(name), partitions: vec![DeleteRecordsPartition::default()] }),
            timeout_ms: 1000,
        }
        .into(),
        ApiKey::InitProducerId => InitProducerIdRequest { transaction_timeout_ms: 1000, ..Default::default() }.into(),
        ApiKey::OffsetForLeaderEpoch => OffsetForLeaderEpochRequest {
            topics: both(|name| OffsetForLeaderTopic { topic: text(name), partitions: vec![OffsetForLeaderPartition::default()] }),
            replica_id: -1,
        }
        .into(),
        ApiKey::AddPartitionsToTxn => AddPartitionsToTxnRequest {
            transactional_id: text("a"),
            topics: both(|name| AddPartitionsToTxnTopic { name: text(name), partitions: vec![0] }),
            ..Default::default()
        }
        .into(),
        ApiKey::AddOffsetsToTxn => AddOffsetsToTxnRequest { transactional_id: text("a"), group_id: text("b"), ..Default::default() }.into(),
        ApiKey::EndTxn => EndTxnRequest { transactional_id: text("b"), ..Default::default() }.into(),
        ApiKey::WriteTxnMarkers => WriteTxnMarkersRequest {
            markers: vec![WritableTxnMarker {
                producer_id: 1,
                topics: both(|name| WritableTxnMarkerTopic { name: text(name), partition_indexes: vec![0] }),
                ..Default::default()
            }],
        }
        .into(),
        ApiKey::TxnOffsetCommit => TxnOffsetCommitRequest {
            transactional_id: text("a"),
            group_id: text("b"),
            topics: both(|name| TxnOffsetCommitRequestTopic {
                name: text(name),
                partitions: vec![TxnOffsetCommitRequestPartition::default()],
            }),
            ..Default::default()
        }
        .into(),
        ApiKey::DescribeAcls => {
            DescribeAclsRequest { resource_type_filter: 1, pattern_type_filter: 1, operation: 1, permission_type: 1, ..Default::default() }
                .into()
        }
        ApiKey::CreateAcls => CreateAclsRequest {
            creations: vec![AclCreation {
                resource_type: 2,
                resource_name: text("a"),
                resource_pattern_type: 3,
                principal: text("User:mallory"),
                host: text("*"),
                operation: 2,
                permission_type: 3,
            }],
        }
        .into(),
        ApiKey::DeleteAcls => DeleteAclsRequest {
            filters: vec![DeleteAclsFilter {
                resource_type_filter: 1,
                pattern_type_filter: 1,
                operation: 1,
                permission_type: 1,
                ..Default::default()
            }],
        }
        .into(),
        ApiKey::DescribeConfigs => DescribeConfigsRequest {
            resources: [(2, "b"), (4, "0"), (32, "b")]
                .map(|(resource_type, name)| DescribeConfigsResource { resource_type, resource_name: text(name), ..Default::default() })
                .into(),
            ..Default::default()
        }
        .into(),
        ApiKey::AlterConfigs => AlterConfigsRequest {
            resources: [(2, "b"), (4, "0"), (32, "b")]
                .map(|(resource_type, name)| AlterConfigsResource { resource_type, resource_name: text(name), ..Default::default() })
                .into(),
            validate_only: true,
        }
        .into(),
        ApiKey::IncrementalAlterConfigs => IncrementalAlterConfigsRequest {
            resources: [(2, "b"), (4, "0"), (32, "b")]
                .map(|(resource_type, name)| IncrementalAlterConfigsResource {
                    resource_type,
                    resource_name: text(name),
                    ..Default::default()
                })
                .into(),
            validate_only: true,
        }
        .into(),
        ApiKey::AlterReplicaLogDirs => AlterReplicaLogDirsRequest {
            dirs: vec![AlterReplicaLogDir {
                path: text("/"),
                topics: both(|name| AlterReplicaLogDirTopic { name: text(name), partitions: vec![0] }),
            }],
        }
        .into(),
        ApiKey::DescribeLogDirs => DescribeLogDirsRequest::default().into(),
        ApiKey::SaslAuthenticate => SaslAuthenticateRequest { auth_bytes: Bytes::from_static(b"\0mallory\0m") }.into(),
        ApiKey::CreatePartitions => CreatePartitionsRequest {
            topics: both(|name| CreatePartitionsTopic { name: text(name), count: 2, ..Default::default() }),
            validate_only: true,
            ..Default::default()
        }
        .into(),
        ApiKey::DeleteGroups => DeleteGroupsRequest { groups_names: both(text) }.into(),
        ApiKey::OffsetDelete => OffsetDeleteRequest {
            group_id: text("a"),
            topics: both(|name| OffsetDeleteRequestTopic { name: text(name), partitions: vec![OffsetDeleteRequestPartition::default()] }),
        }
        .into(),
        ApiKey::ConsumerGroupHeartbeat => ConsumerGroupHeartbeatRequest {
            group_id: text("a"),
            member_id: text("AAAAAAAAAAAAAAAAAAAAAQ"),
            rebalance_timeout_ms: 10_000,
            subscribed_topic_names: Some(both(text)),
            topic_partitions: Some(Vec::new()),
            ..Default::default()
        }
        .into(),
        ApiKey::ConsumerGroupDescribe => ConsumerGroupDescribeRequest { group_ids: both(text), include_authorized_operations: true }.into(),
        ApiKey::ElectLeaders => ElectLeadersRequest {
            topic_partitions: Some(both(|name| ElectLeadersTopic { topic: text(name), partitions: vec![0] })),
            ..Default::default()
        }
        .into(),
        ApiKey::AlterPartitionReassignments => AlterPartitionReassignmentsRequest {
            topics: both(|name| ReassignableTopic {
                name: text(name),
                partitions: vec![ReassignablePartition { partition_index: 0, replicas: None }],
            }),
            ..Default::default()
        }
        .into(),
        ApiKey::ListPartitionReassignments => ListPartitionReassignmentsRequest::default().into(),
        ApiKey::DescribeClientQuotas => DescribeClientQuotasRequest::default().into(),
        ApiKey::AlterClientQuotas => AlterClientQuotasRequest {
            entries: vec![AlterQuotasEntry {
                entity: vec![QuotasEntity { entity_type: text("user"), entity_name: Some(text("mallory")) }],
                ops: vec![QuotasOperation { key: text("producer_byte_rate"), value: 5.0, remove: false }],
            }],
            validate_only: true,
        }
        .into(),
        ApiKey::DescribeUserScramCredentials => DescribeUserScramCredentialsRequest { users: None }.into(),
        ApiKey::AlterUserScramCredentials => AlterUserScramCredentialsRequest {
            deletions: vec![ScramCredentialDeletion { name: text("nobody"), mechanism: 1 }],
            upsertions: Vec::new(),
        }
        .into(),
        ApiKey::DescribeQuorum => DescribeQuorumRequest::default().into(),
        ApiKey::DescribeCluster => DescribeClusterRequest { include_cluster_authorized_operations: true, ..Default::default() }.into(),
        ApiKey::DescribeProducers => {
            DescribeProducersRequest { topics: both(|name| DescribeProducersTopicRequest { name: text(name), partition_indexes: vec![0] }) }
                .into()
        }
        ApiKey::DescribeTransactions => DescribeTransactionsRequest { transactional_ids: both(text) }.into(),
        ApiKey::ListTransactions => ListTransactionsRequest::default().into(),
        ApiKey::ListConfigResources => ListConfigResourcesRequest::default().into(),
        ApiKey::DescribeTopicPartitions => {
            DescribeTopicPartitionsRequest { topics: both(|name| DescribeTopicPartitionsTopic { name: text(name) }), ..Default::default() }
                .into()
        }
    }
}
