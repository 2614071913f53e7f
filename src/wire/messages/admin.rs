//! Topics made, removed and widened; settings read and changed: CreateTopics, DeleteTopics, CreatePartitions,
//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs, ListConfigResources.

use crate::record::TopicId;

messages! {
    /// Asks to make topics.
    CreateTopicsRequest {
        topics: Vec<CreatableTopic> [0..],
        timeout_ms: i32 [0..] = 60_000,
        validate_only: bool [1..],
    }

    /// A topic to make.
    CreatableTopic {
        name: String [0..],
        /// -1 takes the broker's default.
        num_partitions: i32 [0..],
        /// -1 takes the broker's default.
        replication_factor: i16 [0..],
        assignments: Vec<CreatableReplicaAssignment> [0..],
        configs: Vec<CreatableTopicConfig> [0..],
    }

    /// Where the replicas of one partition should lie.
    CreatableReplicaAssignment {
        partition_index: i32 [0..],
        broker_ids: Vec<i32> [0..],
    }

    /// A setting of a topic to make.
    CreatableTopicConfig {
        name: String [0..],
        value: Option<String> [0..] null [0..],
    }

    /// Which topics were made.
    CreateTopicsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<CreatableTopicResult> [0..],
    }

    /// Whether one topic was made, and how.
    CreatableTopicResult {
        name: String [0..],
        topic_id: TopicId [7..],
        error_code: i16 [0..],
        error_message: Option<String> [1..] null [0..],
        num_partitions: i32 [5..] = -1,
        replication_factor: i16 [5..] = -1,
        configs: Option<Vec<CreatableTopicConfigs>> [5..] null [5..],
        @0 topic_config_error_code: i16 [5..],
    }

    /// A setting of a topic that was made.
    CreatableTopicConfigs {
        name: String [5..],
        value: Option<String> [5..] null [5..],
        read_only: bool [5..],
        config_source: i8 [5..] = -1,
        is_sensitive: bool [5..],
    }
}

messages! {
    /// Asks to remove topics: by name to version 5, by name or id from version 6.
    DeleteTopicsRequest {
        topics: Vec<DeleteTopicState> [6..],
        topic_names: Vec<String> [0..=5],
        timeout_ms: i32 [0..],
    }

    /// A topic to remove, by name or by id.
    DeleteTopicState {
        name: Option<String> [6..] null [6..],
        topic_id: TopicId [6..],
    }

    /// Which topics are gone.
    DeleteTopicsResponse {
        throttle_time_ms: i32 [1..],
        responses: Vec<DeletableTopicResult> [0..],
    }

    /// Whether one topic is gone.
    DeletableTopicResult {
        /// Written as empty where it is `None` before version 6.
        name: Option<String> [0..] null [6..],
        topic_id: TopicId [6..],
        error_code: i16 [0..],
        error_message: Option<String> [5..] null [5..],
    }
}

messages! {
    /// Asks to add partitions to topics.
    CreatePartitionsRequest {
        topics: Vec<CreatePartitionsTopic> [0..],
        timeout_ms: i32 [0..],
        validate_only: bool [0..],
    }

    /// A topic to widen.
    CreatePartitionsTopic {
        name: String [0..],
        /// Partitions it shall have in all.
        count: i32 [0..],
        /// `None` lets the broker choose.
        assignments: Option<Vec<CreatePartitionsAssignment>> [0..] null [0..],
    }

    /// Where the replicas of one new partition should lie.
    CreatePartitionsAssignment {
        broker_ids: Vec<i32> [0..],
    }

    /// Which topics were widened.
    CreatePartitionsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<CreatePartitionsTopicResult> [0..],
    }

    /// Whether one topic was widened.
    CreatePartitionsTopicResult {
        name: String [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
    }
}

messages! {
    /// Asks for settings.
    DescribeConfigsRequest {
        resources: Vec<DescribeConfigsResource> [0..],
        include_synonyms: bool [1..],
        include_documentation: bool [3..],
    }

    /// What to tell the settings of.
    DescribeConfigsResource {
        /// 2 a topic, 4 a broker, 8 its loggers, 16 client metrics, 32 a group.
        resource_type: i8 [0..],
        resource_name: String [0..],
        /// `None` asks for all.
        configuration_keys: Option<Vec<String>> [0..] null [0..],
    }

    /// Settings.
    DescribeConfigsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<DescribeConfigsResult> [0..],
    }

    /// The settings of one topic or broker.
    DescribeConfigsResult {
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        resource_type: i8 [0..],
        resource_name: String [0..],
        configs: Vec<DescribeConfigsResourceResult> [0..],
    }

    /// One setting.
    DescribeConfigsResourceResult {
        name: String [0..],
        value: Option<String> [0..] null [0..],
        read_only: bool [0..],
        /// 1 set on the topic, 2 on the broker, 3 for all brokers, 4 at the broker's start, 5 by default, 8 on the group.
        config_source: i8 [1..] = -1,
        is_sensitive: bool [0..],
        synonyms: Vec<DescribeConfigsSynonym> [1..],
        /// 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9 password.
        config_type: i8 [3..],
        documentation: Option<String> [3..] null [3..],
    }

    /// Where a setting's value would come from, were it not set nearer.
    DescribeConfigsSynonym {
        name: String [1..],
        value: Option<String> [1..] null [1..],
        source: i8 [1..],
    }
}

messages! {
    /// Asks to replace all settings of topics and brokers.
    AlterConfigsRequest {
        resources: Vec<AlterConfigsResource> [0..],
        validate_only: bool [0..],
    }

    /// What to replace the settings of.
    AlterConfigsResource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        configs: Vec<AlterableConfig> [0..],
    }

    /// One setting from now on.
    AlterableConfig {
        name: String [0..],
        value: Option<String> [0..] null [0..],
    }

    /// What became of the settings.
    AlterConfigsResponse {
        throttle_time_ms: i32 [0..],
        responses: Vec<AlterConfigsResourceResponse> [0..],
    }

    /// What became of the settings of one topic or broker.
    AlterConfigsResourceResponse {
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        resource_type: i8 [0..],
        resource_name: String [0..],
    }
}

messages! {
    /// Asks to change single settings of topics, brokers and groups.
    IncrementalAlterConfigsRequest {
        resources: Vec<IncrementalAlterConfigsResource> [0..],
        validate_only: bool [0..],
    }

    /// What to change the settings of.
    IncrementalAlterConfigsResource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        configs: Vec<IncrementalAlterableConfig> [0..],
    }

    /// One setting and what to do to it.
    IncrementalAlterableConfig {
        name: String [0..],
        /// 0 set, 1 take away, 2 append to a list, 3 subtract from a list.
        config_operation: i8 [0..],
        value: Option<String> [0..] null [0..],
    }

    /// What became of the changes.
    IncrementalAlterConfigsResponse {
        throttle_time_ms: i32 [0..],
        responses: Vec<AlterConfigsResourceResponse> [0..],
    }
}

messages! {
    /// Asks what has settings of its own.
    ListConfigResourcesRequest {
        /// Empty asks for every kind.
        resource_types: Vec<i8> [1..],
    }

    /// What has settings of its own.
    ListConfigResourcesResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        config_resources: Vec<ConfigResource> [0..],
    }

    /// A topic, broker or group.
    ConfigResource {
        resource_name: String [0..],
        resource_type: i8 [1..] = 16,
    }
}
