//! What the broker tells about itself: ApiVersions, Metadata, DescribeCluster, DescribeTopicPartitions.

use crate::record::TopicId;

messages! {
    /// Asks which APIs are served.
    ApiVersionsRequest {
        client_software_name: String [3..],
        client_software_version: String [3..],
    }

    /// Which APIs are served.
    ApiVersionsResponse {
        error_code: i16 [0..],
        api_keys: Vec<ApiVersion> [0..],
        throttle_time_ms: i32 [1..],
        @0 supported_features: Vec<SupportedFeatureKey> [3..],
        @1 finalized_features_epoch: i64 [3..] = -1,
        @2 finalized_features: Vec<FinalizedFeatureKey> [3..],
        @3 zk_migration_ready: bool [3..],
    }

    /// The versions in which one API is served.
    ApiVersion {
        api_key: i16 [0..],
        min_version: i16 [0..],
        max_version: i16 [0..],
    }

    /// The levels of a feature that the broker could run at.
    SupportedFeatureKey {
        name: String [3..],
        min_version: i16 [3..],
        max_version: i16 [3..],
    }

    /// The levels of a feature that the cluster runs at.
    FinalizedFeatureKey {
        name: String [3..],
        max_version_level: i16 [3..],
        min_version_level: i16 [3..],
    }
}

messages! {
    /// Asks about topics, their partitions and leaders.
    MetadataRequest {
        /// `None`, from version 1, asks for all topics; in version 0 an empty list does.
        topics: Option<Vec<MetadataRequestTopic>> [0..] null [1..],
        allow_auto_topic_creation: bool [4..] = true,
        include_cluster_authorized_operations: bool [8..=10],
        include_topic_authorized_operations: bool [8..],
    }

    /// A topic that is asked about, by name or, from version 10, by id.
    MetadataRequestTopic {
        topic_id: TopicId [10..],
        name: Option<String> [0..] null [10..],
    }

    /// Topics, their partitions and leaders.
    MetadataResponse {
        throttle_time_ms: i32 [3..],
        brokers: Vec<MetadataResponseBroker> [0..],
        cluster_id: Option<String> [2..] null [2..],
        controller_id: i32 [1..] = -1,
        topics: Vec<MetadataResponseTopic> [0..],
        cluster_authorized_operations: i32 [8..=10] = i32::MIN,
        error_code: i16 [13..],
    }

    /// A broker and how to reach it.
    MetadataResponseBroker {
        node_id: i32 [0..],
        host: String [0..],
        port: i32 [0..],
        rack: Option<String> [1..] null [1..],
    }

    /// A topic.
    MetadataResponseTopic {
        error_code: i16 [0..],
        /// Written as empty where it is `None` before version 12.
        name: Option<String> [0..] null [12..],
        topic_id: TopicId [10..],
        is_internal: bool [1..],
        partitions: Vec<MetadataResponsePartition> [0..],
        topic_authorized_operations: i32 [8..] = i32::MIN,
    }

    /// A partition and who holds it.
    MetadataResponsePartition {
        error_code: i16 [0..],
        partition_index: i32 [0..],
        leader_id: i32 [0..],
        leader_epoch: i32 [7..] = -1,
        replica_nodes: Vec<i32> [0..],
        isr_nodes: Vec<i32> [0..],
        offline_replicas: Vec<i32> [5..],
    }
}

messages! {
    /// Asks about the brokers of the cluster.
    DescribeClusterRequest {
        include_cluster_authorized_operations: bool [0..],
        /// 1 brokers, 2 controllers.
        endpoint_type: i8 [1..] = 1,
        include_fenced_brokers: bool [2..],
    }

    /// The brokers of the cluster.
    DescribeClusterResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        endpoint_type: i8 [1..] = 1,
        cluster_id: String [0..],
        controller_id: i32 [0..] = -1,
        brokers: Vec<DescribeClusterBroker> [0..],
        cluster_authorized_operations: i32 [0..] = i32::MIN,
    }

    /// One broker.
    DescribeClusterBroker {
        broker_id: i32 [0..],
        host: String [0..],
        port: i32 [0..],
        rack: Option<String> [0..] null [0..],
        is_fenced: bool [2..],
    }
}

messages! {
    /// Asks about the partitions of topics, a page at a time.
    DescribeTopicPartitionsRequest {
        /// None asks for all topics.
        topics: Vec<DescribeTopicPartitionsTopic> [0..],
        response_partition_limit: i32 [0..] = 2_000,
        /// Where the last page ended.
        cursor: Option<PartitionCursor> [0..] null [0..],
    }

    /// A topic that is asked about.
    DescribeTopicPartitionsTopic {
        name: String [0..],
    }

    /// The first partition of a page.
    PartitionCursor {
        topic_name: String [0..],
        partition_index: i32 [0..],
    }

    /// A page of partitions.
    DescribeTopicPartitionsResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DescribeTopicPartitionsTopicResult> [0..],
        /// Where the next page begins, if there is one.
        next_cursor: Option<PartitionCursor> [0..] null [0..],
    }

    /// A topic and those of its partitions that fit the page.
    DescribeTopicPartitionsTopicResult {
        error_code: i16 [0..],
        name: Option<String> [0..] null [0..],
        topic_id: TopicId [0..],
        is_internal: bool [0..],
        partitions: Vec<DescribeTopicPartitionsPartition> [0..],
        topic_authorized_operations: i32 [0..] = i32::MIN,
    }

    /// A partition and who holds it.
    DescribeTopicPartitionsPartition {
        error_code: i16 [0..],
        partition_index: i32 [0..],
        leader_id: i32 [0..],
        leader_epoch: i32 [0..] = -1,
        replica_nodes: Vec<i32> [0..],
        isr_nodes: Vec<i32> [0..],
        eligible_leader_replicas: Option<Vec<i32>> [0..] null [0..],
        last_known_elr: Option<Vec<i32>> [0..] null [0..],
        offline_replicas: Vec<i32> [0..],
    }
}

nullable! { PartitionCursor }
