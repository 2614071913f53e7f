//! What lies where on the disk: DescribeLogDirs, AlterReplicaLogDirs.

messages! {
    /// Asks what lies in the log directories.
    DescribeLogDirsRequest {
        /// `None` asks for every partition.
        topics: Option<Vec<DescribableLogDirTopic>> [0..] null [0..],
    }

    /// The partitions of one topic that are asked about.
    DescribableLogDirTopic {
        topic: String [0..],
        partitions: Vec<i32> [0..],
    }

    /// What lies in the log directories.
    DescribeLogDirsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [3..],
        results: Vec<DescribeLogDirsResult> [0..],
    }

    /// One log directory.
    DescribeLogDirsResult {
        error_code: i16 [0..],
        log_dir: String [0..],
        topics: Vec<DescribeLogDirsTopic> [0..],
        /// Of the whole volume.
        total_bytes: i64 [4..] = -1,
        usable_bytes: i64 [4..] = -1,
        /// Whether new partitions are kept out of it.
        is_cordoned: bool [5..],
    }

    /// What a log directory holds of one topic.
    DescribeLogDirsTopic {
        name: String [0..],
        partitions: Vec<DescribeLogDirsPartition> [0..],
    }

    /// What a log directory holds of one partition.
    DescribeLogDirsPartition {
        partition_index: i32 [0..],
        partition_size: i64 [0..],
        /// How far a copy is behind.
        offset_lag: i64 [0..],
        /// Whether it is a copy that will replace the one in another directory.
        is_future_key: bool [0..],
    }
}

messages! {
    /// Asks to keep partitions in other log directories.
    AlterReplicaLogDirsRequest {
        dirs: Vec<AlterReplicaLogDir> [0..],
    }

    /// What to keep in one log directory.
    AlterReplicaLogDir {
        path: String [0..],
        topics: Vec<AlterReplicaLogDirTopic> [0..],
    }

    /// What to keep there of one topic.
    AlterReplicaLogDirTopic {
        name: String [0..],
        partitions: Vec<i32> [0..],
    }

    /// What became of the moves.
    AlterReplicaLogDirsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<AlterReplicaLogDirTopicResult> [0..],
    }

    /// What became of the moves of one topic.
    AlterReplicaLogDirTopicResult {
        topic_name: String [0..],
        partitions: Vec<AlterReplicaLogDirPartitionResult> [0..],
    }

    /// What became of the move of one partition.
    AlterReplicaLogDirPartitionResult {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}
