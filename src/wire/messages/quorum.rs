//! Who keeps the cluster's metadata: DescribeQuorum.

use crate::record::TopicId;

messages! {
    /// Asks who keeps the log of metadata, and how far each copy is.
    DescribeQuorumRequest {
        topics: Vec<DescribeQuorumTopic> [0..],
    }

    /// The partitions of one topic that are asked about.
    DescribeQuorumTopic {
        topic_name: String [0..],
        partitions: Vec<DescribeQuorumPartition> [0..],
    }

    /// A partition that is asked about.
    DescribeQuorumPartition {
        partition_index: i32 [0..],
    }

    /// Who keeps the log of metadata.
    DescribeQuorumResponse {
        error_code: i16 [0..],
        error_message: Option<String> [2..] null [2..],
        topics: Vec<DescribeQuorumTopicData> [0..],
        nodes: Vec<DescribeQuorumNode> [2..],
    }

    /// What is known of one topic's partitions.
    DescribeQuorumTopicData {
        topic_name: String [0..],
        partitions: Vec<DescribeQuorumPartitionData> [0..],
    }

    /// What is known of one partition.
    DescribeQuorumPartitionData {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [2..] null [2..],
        /// -1 where nobody leads.
        leader_id: i32 [0..],
        leader_epoch: i32 [0..],
        high_watermark: i64 [0..],
        current_voters: Vec<DescribeQuorumReplica> [0..],
        observers: Vec<DescribeQuorumReplica> [0..],
    }

    /// One copy.
    DescribeQuorumReplica {
        replica_id: i32 [0..],
        /// Of the directory it is in; nil where the node does not say.
        replica_directory_id: TopicId [2..],
        log_end_offset: i64 [0..],
        /// -1 where it is not known.
        last_fetch_timestamp: i64 [1..] = -1,
        /// -1 where it is not known.
        last_caught_up_timestamp: i64 [1..] = -1,
    }

    /// One of those that keep it.
    DescribeQuorumNode {
        node_id: i32 [2..],
        listeners: Vec<DescribeQuorumListener> [2..],
    }

    /// Where it listens.
    DescribeQuorumListener {
        name: String [2..],
        host: String [2..],
        port: u16 [2..],
    }
}
