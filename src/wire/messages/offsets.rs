//! A group's positions: OffsetCommit, OffsetFetch and OffsetDelete.

use crate::record::TopicId;

messages! {
    /// Asks to store a group's positions.
    OffsetCommitRequest {
        group_id: String [0..],
        /// -1 for a consumer that is in no generation.
        generation_id_or_member_epoch: i32 [1..] = -1,
        member_id: String [1..],
        group_instance_id: Option<String> [7..] null [7..],
        retention_time_ms: i64 [2..=4] = -1,
        topics: Vec<OffsetCommitRequestTopic> [0..],
    }

    /// Positions in one topic.
    OffsetCommitRequestTopic {
        name: String [0..=9],
        topic_id: TopicId [10..],
        partitions: Vec<OffsetCommitRequestPartition> [0..],
    }

    /// The position in one partition.
    OffsetCommitRequestPartition {
        partition_index: i32 [0..],
        committed_offset: i64 [0..],
        committed_leader_epoch: i32 [6..] = -1,
        committed_metadata: Option<String> [0..] null [0..],
    }

    /// Which positions were stored.
    OffsetCommitResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetCommitResponseTopic> [0..],
    }

    /// Which positions of one topic were stored.
    OffsetCommitResponseTopic {
        name: String [0..=9],
        topic_id: TopicId [10..],
        partitions: Vec<OffsetCommitResponsePartition> [0..],
    }

    /// Whether the position in one partition was stored.
    OffsetCommitResponsePartition {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}

messages! {
    /// Asks for the positions of a group, or of several from version 8.
    OffsetFetchRequest {
        group_id: String [0..=7],
        /// `None`, from version 2, asks for all topics.
        topics: Option<Vec<OffsetFetchRequestTopic>> [0..=7] null [2..],
        groups: Vec<OffsetFetchRequestGroup> [8..],
        require_stable: bool [7..],
    }

    /// What is asked about one group.
    OffsetFetchRequestGroup {
        group_id: String [8..],
        member_id: Option<String> [9..] null [9..],
        member_epoch: i32 [9..] = -1,
        /// `None` asks for all topics.
        topics: Option<Vec<OffsetFetchRequestTopic>> [8..] null [8..],
    }

    /// What is asked about one topic.
    OffsetFetchRequestTopic {
        name: String [0..=9],
        topic_id: TopicId [10..],
        partition_indexes: Vec<i32> [0..],
    }

    /// The positions of a group, or of several from version 8.
    OffsetFetchResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetFetchResponseTopic> [0..=7],
        error_code: i16 [2..=7],
        groups: Vec<OffsetFetchResponseGroup> [8..],
    }

    /// The positions of one group.
    OffsetFetchResponseGroup {
        group_id: String [8..],
        topics: Vec<OffsetFetchResponseTopic> [8..],
        error_code: i16 [8..],
    }

    /// The positions in one topic.
    OffsetFetchResponseTopic {
        name: String [0..=9],
        topic_id: TopicId [10..],
        partitions: Vec<OffsetFetchResponsePartition> [0..],
    }

    /// The position in one partition.
    OffsetFetchResponsePartition {
        partition_index: i32 [0..],
        /// -1 where none was stored.
        committed_offset: i64 [0..] = -1,
        committed_leader_epoch: i32 [5..] = -1,
        metadata: Option<String> [0..] null [0..],
        error_code: i16 [0..],
    }
}

messages! {
    /// Asks to remove positions.
    OffsetDeleteRequest {
        group_id: String [0..],
        topics: Vec<OffsetDeleteRequestTopic> [0..],
    }

    /// Positions in one topic to remove.
    OffsetDeleteRequestTopic {
        name: String [0..],
        partitions: Vec<OffsetDeleteRequestPartition> [0..],
    }

    /// The position in one partition to remove.
    OffsetDeleteRequestPartition {
        partition_index: i32 [0..],
    }

    /// Which positions are gone.
    OffsetDeleteResponse {
        error_code: i16 [0..],
        throttle_time_ms: i32 [0..],
        topics: Vec<OffsetDeleteResponseTopic> [0..],
    }

    /// Which positions in one topic are gone.
    OffsetDeleteResponseTopic {
        name: String [0..],
        partitions: Vec<OffsetDeleteResponsePartition> [0..],
    }

    /// Whether the position in one partition is gone.
    OffsetDeleteResponsePartition {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}
