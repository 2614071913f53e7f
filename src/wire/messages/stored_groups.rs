//! What a consumer group of KIP-848 leaves in `__consumer_offsets`: the values of Kafka's record types 3, 5, 6,
//! 7, 8 and 16. Their keys are plain and written by the broker.

use bytes::Bytes;

use crate::record::TopicId;

messages! {
    /// Type 3: a group.
    ConsumerGroupMetadataValue {
        epoch: i32 [0..],
        // Of the topics it reads: their names, ids and partition counts.
        @0 metadata_hash: i64 [0..],
    }

    /// Type 5: what a member says of itself.
    ConsumerGroupMemberMetadataValue {
        instance_id: Option<String> [0..] null [0..],
        rack_id: Option<String> [0..] null [0..],
        client_id: String [0..],
        client_host: String [0..],
        subscribed_topic_names: Vec<String> [0..],
        subscribed_topic_regex: Option<String> [0..] null [0..],
        rebalance_timeout_ms: i32 [0..] = -1,
        server_assignor: Option<String> [0..] null [0..],
        @0 classic_member_metadata: Option<ClassicMemberMetadata> [0..] null [0..],
    }

    /// What a member that speaks the classic protocol said when it joined.
    ClassicMemberMetadata {
        session_timeout_ms: i32 [0..],
        supported_protocols: Vec<ClassicProtocol> [0..],
    }

    /// An assignor such a member speaks.
    ClassicProtocol {
        name: String [0..],
        metadata: Bytes [0..],
    }

    /// Type 6: up to which epoch of the group it was assigned.
    ConsumerGroupTargetAssignmentMetadataValue {
        assignment_epoch: i32 [0..],
        @0 assignment_timestamp: i64 [0..],
    }

    /// Type 7: what a member should have in the end.
    ConsumerGroupTargetAssignmentMemberValue {
        topic_partitions: Vec<StoredTopicPartitions> [0..],
    }

    /// Partitions of a topic.
    StoredTopicPartitions {
        topic_id: TopicId [0..],
        partitions: Vec<i32> [0..],
    }

    /// Type 8: what a member has now.
    ConsumerGroupCurrentMemberAssignmentValue {
        member_epoch: i32 [0..],
        previous_member_epoch: i32 [0..],
        state: i8 [0..],
        assigned_partitions: Vec<OwnedTopicPartitions> [0..],
        partitions_pending_revocation: Vec<OwnedTopicPartitions> [0..],
    }

    /// Partitions of a topic that a member has.
    OwnedTopicPartitions {
        topic_id: TopicId [0..],
        partitions: Vec<i32> [0..],
        // Since which epoch it has each of them.
        @0 assignment_epochs: Option<Vec<i32>> [0..] null [0..],
    }

    /// Type 16: the topics a regular expression stands for.
    ConsumerGroupRegularExpressionValue {
        topics: Vec<String> [0..],
        version: i64 [0..],
        timestamp: i64 [0..],
    }
}

nullable! { ClassicMemberMetadata }
