//! Who leads partitions and which brokers hold them: ElectLeaders, AlterPartitionReassignments,
//! ListPartitionReassignments.

messages! {
    /// Asks to elect leaders.
    ElectLeadersRequest {
        /// 0 the preferred replica, 1 any.
        election_type: i8 [1..],
        /// `None` asks for every partition.
        topic_partitions: Option<Vec<ElectLeadersTopic>> [0..] null [0..],
        timeout_ms: i32 [0..] = 60_000,
    }

    /// The partitions of one topic.
    ElectLeadersTopic {
        topic: String [0..],
        partitions: Vec<i32> [0..],
    }

    /// What became of the elections.
    ElectLeadersResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [1..],
        replica_election_results: Vec<ReplicaElectionResult> [0..],
    }

    /// What became of the elections of one topic.
    ReplicaElectionResult {
        topic: String [0..],
        partition_result: Vec<ElectLeadersPartitionResult> [0..],
    }

    /// What became of one election.
    ElectLeadersPartitionResult {
        partition_id: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
    }
}

messages! {
    /// Asks to have partitions held by other brokers.
    AlterPartitionReassignmentsRequest {
        timeout_ms: i32 [0..] = 60_000,
        allow_replication_factor_change: bool [1..] = true,
        topics: Vec<ReassignableTopic> [0..],
    }

    /// The partitions of one topic to move.
    ReassignableTopic {
        name: String [0..],
        partitions: Vec<ReassignablePartition> [0..],
    }

    /// Who shall hold one partition.
    ReassignablePartition {
        partition_index: i32 [0..],
        /// `None` ends a move that is under way.
        replicas: Option<Vec<i32>> [0..] null [0..],
    }

    /// What became of the moves.
    AlterPartitionReassignmentsResponse {
        throttle_time_ms: i32 [0..],
        allow_replication_factor_change: bool [1..] = true,
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        responses: Vec<ReassignableTopicResponse> [0..],
    }

    /// What became of the moves of one topic.
    ReassignableTopicResponse {
        name: String [0..],
        partitions: Vec<ReassignablePartitionResponse> [0..],
    }

    /// What became of one move.
    ReassignablePartitionResponse {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
    }
}

messages! {
    /// Asks which partitions are being moved.
    ListPartitionReassignmentsRequest {
        timeout_ms: i32 [0..] = 60_000,
        /// `None` asks for every partition.
        topics: Option<Vec<ListPartitionReassignmentsTopics>> [0..] null [0..],
    }

    /// The partitions of one topic that are asked about.
    ListPartitionReassignmentsTopics {
        name: String [0..],
        partition_indexes: Vec<i32> [0..],
    }

    /// Which partitions are being moved.
    ListPartitionReassignmentsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] null [0..],
        topics: Vec<OngoingTopicReassignment> [0..],
    }

    /// The partitions of one topic that are being moved.
    OngoingTopicReassignment {
        name: String [0..],
        partitions: Vec<OngoingPartitionReassignment> [0..],
    }

    /// A partition that is being moved.
    OngoingPartitionReassignment {
        partition_index: i32 [0..],
        replicas: Vec<i32> [0..],
        adding_replicas: Vec<i32> [0..],
        removing_replicas: Vec<i32> [0..],
    }
}
