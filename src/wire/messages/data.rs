//! Records in and out: Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, DeleteRecords, InitProducerId.

use bytes::Bytes;

use crate::record::TopicId;
use crate::wire::value::RecordsOut;

messages! {
    /// Asks to append record batches to partitions.
    ProduceRequest {
        transactional_id: Option<String> [3..] null [3..],
        /// 0 wants no response, 1 and -1 want the data stored first.
        acks: i16 [0..],
        timeout_ms: i32 [0..],
        /// Kafka calls it `topic_data`.
        topics: Vec<ProduceTopic> [0..],
    }

    /// The batches for one topic.
    ProduceTopic {
        name: String [0..=12],
        topic_id: TopicId [13..],
        /// Kafka calls it `partition_data`.
        partitions: Vec<ProducePartition> [0..],
    }

    /// The batches for one partition.
    ProducePartition {
        index: i32 [0..],
        /// A slice of the frame, not copied and not looked into.
        records: Option<Bytes> [0..] null [0..],
    }

    /// Where the batches of a Produce request went, or why not.
    ProduceResponse {
        responses: Vec<ProduceTopicResponse> [0..],
        throttle_time_ms: i32 [1..],
        @0 node_endpoints: Vec<NodeEndpoint> [10..],
    }

    /// What became of the batches for one topic.
    ProduceTopicResponse {
        name: String [0..=12],
        topic_id: TopicId [13..],
        /// Kafka calls it `partition_responses`.
        partitions: Vec<ProducePartitionResponse> [0..],
    }

    /// What became of the batches for one partition.
    ProducePartitionResponse {
        index: i32 [0..],
        error_code: i16 [0..],
        /// The offset of the first record, -1 with an error.
        base_offset: i64 [0..] = -1,
        /// The broker's time where the topic is stamped by it, else -1.
        log_append_time_ms: i64 [2..] = -1,
        log_start_offset: i64 [5..] = -1,
        record_errors: Vec<BatchIndexError> [8..],
        error_message: Option<String> [8..] null [8..],
        @0 current_leader: LeaderIdAndEpoch [10..],
    }

    /// A record that made its batch be refused.
    BatchIndexError {
        batch_index: i32 [8..],
        /// Kafka calls it `batch_index_error_message`.
        message: Option<String> [8..] null [8..],
    }

    /// Who leads a partition, told with the errors that say it is someone else.
    LeaderIdAndEpoch {
        leader_id: i32 [0..] = -1,
        leader_epoch: i32 [0..] = -1,
    }

    /// How to reach a leader that a response names.
    NodeEndpoint {
        node_id: i32 [0..],
        host: String [0..],
        port: i32 [0..],
        rack: Option<String> [0..] null [0..],
    }
}

messages! {
    /// Asks for records from given offsets on, waiting for them if need be.
    FetchRequest {
        /// -1 for a consumer.
        replica_id: i32 [0..=14] = -1,
        max_wait_ms: i32 [0..],
        min_bytes: i32 [0..],
        max_bytes: i32 [3..] = i32::MAX,
        /// 0 reads everything, 1 only what is committed.
        isolation_level: i8 [4..],
        session_id: i32 [7..],
        session_epoch: i32 [7..] = -1,
        topics: Vec<FetchTopic> [0..],
        forgotten_topics_data: Vec<ForgottenTopic> [7..],
        rack_id: String [11..],
        @0 cluster_id: Option<String> [12..] null [12..],
    }

    /// What to fetch of one topic.
    FetchTopic {
        topic: String [0..=12],
        topic_id: TopicId [13..],
        partitions: Vec<FetchPartition> [0..],
    }

    /// What to fetch of one partition.
    FetchPartition {
        partition: i32 [0..],
        current_leader_epoch: i32 [9..] = -1,
        fetch_offset: i64 [0..],
        last_fetched_epoch: i32 [12..] = -1,
        log_start_offset: i64 [5..] = -1,
        partition_max_bytes: i32 [0..],
    }

    /// Partitions that leave a fetch session.
    ForgottenTopic {
        topic: String [7..=12],
        topic_id: TopicId [13..],
        partitions: Vec<i32> [7..],
    }

    /// Records, partition by partition.
    FetchResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [7..],
        /// 0: no session is kept.
        session_id: i32 [7..],
        responses: Vec<FetchTopicResponse> [0..],
    }

    /// What was fetched of one topic.
    FetchTopicResponse {
        topic: String [0..=12],
        topic_id: TopicId [13..],
        partitions: Vec<FetchPartitionResponse> [0..],
    }

    /// What was fetched of one partition.
    FetchPartitionResponse {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        high_watermark: i64 [0..],
        last_stable_offset: i64 [4..] = -1,
        log_start_offset: i64 [5..] = -1,
        /// `None` where the request reads uncommitted records.
        aborted_transactions: Option<Vec<AbortedTransaction>> [4..] null [4..],
        preferred_read_replica: i32 [11..] = -1,
        /// Whole batches, shared with the log.
        records: RecordsOut [0..],
        @0 diverging_epoch: DivergingEpoch [12..],
        @1 current_leader: LeaderIdAndEpoch [12..],
        @2 snapshot_id: SnapshotId [12..],
    }

    /// A transaction whose records a read_committed consumer must skip.
    AbortedTransaction {
        producer_id: i64 [4..],
        first_offset: i64 [4..],
    }

    /// The largest epoch, and its end, at which a follower's log still agrees with the leader's.
    DivergingEpoch {
        epoch: i32 [12..] = -1,
        end_offset: i64 [12..] = -1,
    }

    /// A snapshot to start from, for replicas of the metadata log.
    SnapshotId {
        end_offset: i64 [0..] = -1,
        epoch: i32 [0..] = -1,
    }
}

messages! {
    /// Asks for the offset at a time, or at an end.
    ListOffsetsRequest {
        /// -1 for a consumer.
        replica_id: i32 [0..] = -1,
        isolation_level: i8 [2..],
        topics: Vec<ListOffsetsTopic> [0..],
        timeout_ms: i32 [10..],
    }

    /// What is asked of one topic.
    ListOffsetsTopic {
        name: String [0..],
        partitions: Vec<ListOffsetsPartition> [0..],
    }

    /// What is asked of one partition.
    ListOffsetsPartition {
        partition_index: i32 [0..],
        current_leader_epoch: i32 [4..] = -1,
        /// Milliseconds, or -1 latest, -2 earliest, -3 the record of the largest timestamp, -4, -5 and -6 about tiered storage.
        timestamp: i64 [0..],
    }

    /// Offsets by time.
    ListOffsetsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<ListOffsetsTopicResponse> [0..],
    }

    /// What was found in one topic.
    ListOffsetsTopicResponse {
        name: String [0..],
        partitions: Vec<ListOffsetsPartitionResponse> [0..],
    }

    /// What was found in one partition.
    ListOffsetsPartitionResponse {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        /// The found record's timestamp, -1 where none was found.
        timestamp: i64 [1..] = -1,
        /// The found record's offset, -1 where none was found.
        offset: i64 [1..] = -1,
        leader_epoch: i32 [4..] = -1,
    }
}

messages! {
    /// Asks where leader epochs ended, to find out whether a log was cut.
    OffsetForLeaderEpochRequest {
        /// -1 for a consumer, -2 where the version does not say.
        replica_id: i32 [3..] = -2,
        topics: Vec<OffsetForLeaderTopic> [0..],
    }

    /// What is asked of one topic.
    OffsetForLeaderTopic {
        topic: String [0..],
        partitions: Vec<OffsetForLeaderPartition> [0..],
    }

    /// What is asked of one partition.
    OffsetForLeaderPartition {
        partition: i32 [0..],
        current_leader_epoch: i32 [2..] = -1,
        leader_epoch: i32 [0..],
    }

    /// Where leader epochs ended.
    OffsetForLeaderEpochResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<OffsetForLeaderTopicResult> [0..],
    }

    /// Where the epochs of one topic ended.
    OffsetForLeaderTopicResult {
        topic: String [0..],
        partitions: Vec<EpochEndOffset> [0..],
    }

    /// Where the epoch of one partition ended.
    EpochEndOffset {
        error_code: i16 [0..],
        partition: i32 [0..],
        leader_epoch: i32 [1..] = -1,
        end_offset: i64 [0..] = -1,
    }
}

messages! {
    /// Asks to move the start of partitions forward.
    DeleteRecordsRequest {
        topics: Vec<DeleteRecordsTopic> [0..],
        timeout_ms: i32 [0..],
    }

    /// What to delete of one topic.
    DeleteRecordsTopic {
        name: String [0..],
        partitions: Vec<DeleteRecordsPartition> [0..],
    }

    /// What to delete of one partition.
    DeleteRecordsPartition {
        partition_index: i32 [0..],
        /// The new start; -1 means everything that is visible.
        offset: i64 [0..],
    }

    /// Where partitions begin now.
    DeleteRecordsResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DeleteRecordsTopicResult> [0..],
    }

    /// Where the partitions of one topic begin now.
    DeleteRecordsTopicResult {
        name: String [0..],
        partitions: Vec<DeleteRecordsPartitionResult> [0..],
    }

    /// Where one partition begins now.
    DeleteRecordsPartitionResult {
        partition_index: i32 [0..],
        low_watermark: i64 [0..],
        error_code: i16 [0..],
    }
}

messages! {
    /// Asks for the identity of an idempotent or transactional producer.
    InitProducerIdRequest {
        transactional_id: Option<String> [0..] null [0..],
        transaction_timeout_ms: i32 [0..],
        /// The id held so far, to raise its epoch; -1 for a new one.
        producer_id: i64 [3..] = -1,
        producer_epoch: i16 [3..] = -1,
    }

    /// A producer's identity.
    InitProducerIdResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        producer_id: i64 [0..] = -1,
        producer_epoch: i16 [0..] = -1,
    }
}
