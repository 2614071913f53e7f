//! Transactions: AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, TxnOffsetCommit, WriteTxnMarkers, and what tools ask about
//! them: DescribeProducers, DescribeTransactions, ListTransactions.

messages! {
    /// Asks to take partitions into a transaction. Versions from 4 on, with many transactions, are for brokers.
    AddPartitionsToTxnRequest {
        /// Kafka calls it `v3_and_below_transactional_id`, and so with the next three.
        transactional_id: String [0..=3],
        producer_id: i64 [0..=3],
        producer_epoch: i16 [0..=3],
        topics: Vec<AddPartitionsToTxnTopic> [0..=3],
    }

    /// The partitions of one topic to take in.
    AddPartitionsToTxnTopic {
        name: String [0..],
        partitions: Vec<i32> [0..],
    }

    /// Which partitions are in the transaction.
    AddPartitionsToTxnResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [4..],
        /// Kafka calls it `results_by_topic_v3_and_below`.
        results_by_topic: Vec<AddPartitionsToTxnTopicResult> [0..=3],
    }

    /// Which partitions of one topic are in the transaction.
    AddPartitionsToTxnTopicResult {
        name: String [0..],
        results_by_partition: Vec<AddPartitionsToTxnPartitionResult> [0..],
    }

    /// Whether one partition is in the transaction.
    AddPartitionsToTxnPartitionResult {
        partition_index: i32 [0..],
        partition_error_code: i16 [0..],
    }
}

messages! {
    /// Asks to take a group's offsets into a transaction.
    AddOffsetsToTxnRequest {
        transactional_id: String [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        group_id: String [0..],
    }

    /// Whether the group's offsets are in the transaction.
    AddOffsetsToTxnResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
    }
}

messages! {
    /// Asks to end a transaction.
    EndTxnRequest {
        transactional_id: String [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        /// Whether its records shall count.
        committed: bool [0..],
    }

    /// Whether the transaction ended so.
    EndTxnResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        producer_id: i64 [5..] = -1,
        producer_epoch: i16 [5..] = -1,
    }
}

messages! {
    /// Asks to store a group's positions when a transaction commits.
    TxnOffsetCommitRequest {
        transactional_id: String [0..],
        group_id: String [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        generation_id: i32 [3..] = -1,
        member_id: String [3..],
        group_instance_id: Option<String> [3..] null [3..],
        topics: Vec<TxnOffsetCommitRequestTopic> [0..],
    }

    /// The positions in one topic.
    TxnOffsetCommitRequestTopic {
        name: String [0..],
        partitions: Vec<TxnOffsetCommitRequestPartition> [0..],
    }

    /// The position in one partition.
    TxnOffsetCommitRequestPartition {
        partition_index: i32 [0..],
        committed_offset: i64 [0..],
        committed_leader_epoch: i32 [2..] = -1,
        committed_metadata: Option<String> [0..] null [0..],
    }

    /// Which positions wait for the transaction.
    TxnOffsetCommitResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<TxnOffsetCommitResponseTopic> [0..],
    }

    /// Which positions of one topic wait for the transaction.
    TxnOffsetCommitResponseTopic {
        name: String [0..],
        partitions: Vec<TxnOffsetCommitResponsePartition> [0..],
    }

    /// Whether one position waits for the transaction.
    TxnOffsetCommitResponsePartition {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}

messages! {
    /// Asks who writes to partitions with a sequence.
    DescribeProducersRequest {
        topics: Vec<DescribeProducersTopicRequest> [0..],
    }

    /// Partitions of one topic.
    DescribeProducersTopicRequest {
        name: String [0..],
        partition_indexes: Vec<i32> [0..],
    }

    /// Who writes to partitions with a sequence.
    DescribeProducersResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DescribeProducersTopicResponse> [0..],
    }

    /// The producers of one topic's partitions.
    DescribeProducersTopicResponse {
        name: String [0..],
        partitions: Vec<DescribeProducersPartitionResponse> [0..],
    }

    /// The producers of one partition.
    DescribeProducersPartitionResponse {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        active_producers: Vec<DescribeProducersProducerState> [0..],
    }

    /// One producer.
    DescribeProducersProducerState {
        producer_id: i64 [0..],
        producer_epoch: i32 [0..],
        last_sequence: i32 [0..] = -1,
        last_timestamp: i64 [0..] = -1,
        coordinator_epoch: i32 [0..],
        /// Where its open transaction begins in the partition, or -1.
        current_txn_start_offset: i64 [0..] = -1,
    }
}

messages! {
    /// Asks about transactional ids.
    DescribeTransactionsRequest {
        transactional_ids: Vec<String> [0..],
    }

    /// What transactional ids are doing.
    DescribeTransactionsResponse {
        throttle_time_ms: i32 [0..],
        transaction_states: Vec<DescribeTransactionsTransactionState> [0..],
    }

    /// What one transactional id is doing.
    DescribeTransactionsTransactionState {
        error_code: i16 [0..],
        transactional_id: String [0..],
        transaction_state: String [0..],
        transaction_timeout_ms: i32 [0..],
        transaction_start_time_ms: i64 [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        topics: Vec<DescribeTransactionsTopicData> [0..],
    }

    /// Partitions of one topic in a transaction.
    DescribeTransactionsTopicData {
        topic: String [0..],
        partitions: Vec<i32> [0..],
    }
}

messages! {
    /// Asks for transactional ids.
    ListTransactionsRequest {
        state_filters: Vec<String> [0..],
        producer_id_filters: Vec<i64> [0..],
        /// Only transactions that have been open for longer, in milliseconds; -1 for all.
        duration_filter: i64 [1..] = -1,
        transactional_id_pattern: Option<String> [2..] null [2..],
    }

    /// Transactional ids.
    ListTransactionsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        /// States that were asked for and that there are not.
        unknown_state_filters: Vec<String> [0..],
        transaction_states: Vec<ListTransactionsTransactionState> [0..],
    }

    /// One transactional id.
    ListTransactionsTransactionState {
        transactional_id: String [0..],
        producer_id: i64 [0..],
        transaction_state: String [0..],
    }
}

messages! {
    /// Asks to end what producers have open in partitions, past their transactions' coordinator: how tools end a transaction that hangs.
    WriteTxnMarkersRequest {
        markers: Vec<WritableTxnMarker> [0..],
    }

    /// What to end for one producer.
    WritableTxnMarker {
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        /// Whether the records shall count.
        transaction_result: bool [0..],
        topics: Vec<WritableTxnMarkerTopic> [0..],
        coordinator_epoch: i32 [0..],
    }

    /// Partitions of one topic.
    WritableTxnMarkerTopic {
        name: String [0..],
        partition_indexes: Vec<i32> [0..],
    }

    /// What was ended.
    WriteTxnMarkersResponse {
        markers: Vec<WritableTxnMarkerResult> [0..],
    }

    /// What was ended for one producer.
    WritableTxnMarkerResult {
        producer_id: i64 [0..],
        topics: Vec<WritableTxnMarkerTopicResult> [0..],
    }

    /// What was ended in one topic.
    WritableTxnMarkerTopicResult {
        name: String [0..],
        partitions: Vec<WritableTxnMarkerPartitionResult> [0..],
    }

    /// Whether it was ended in one partition.
    WritableTxnMarkerPartitionResult {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}
