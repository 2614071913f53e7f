//! Who keeps the cluster's metadata: DescribeQuorum.
//!
//! This node keeps it alone, in its own log; there is no topic of it to read. What is asked is answered as by a
//! quorum of one that is never behind. Called by `dispatch`.

use super::dispatch::Caller;
use crate::wire::{
    DescribeQuorumListener, DescribeQuorumNode, DescribeQuorumPartitionData, DescribeQuorumReplica, DescribeQuorumRequest,
    DescribeQuorumResponse, DescribeQuorumTopicData, error_code,
};

/// Kafka's name for the topic of metadata, which has one partition.
const METADATA: &str = "__cluster_metadata";

pub(super) fn describe(caller: &Caller, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let peer = &caller.peer;
    let node = peer.broker.config().node_id;
    let this = || DescribeQuorumReplica { replica_id: node, ..Default::default() };
    let one = |topic: &str, partition_index: i32| {
        if topic == METADATA && partition_index == 0 {
            return DescribeQuorumPartitionData { leader_id: node, current_voters: vec![this()], ..Default::default() };
        }
        let error_code = error_code::UNKNOWN_TOPIC_OR_PARTITION;
        DescribeQuorumPartitionData {
            partition_index,
            error_code,
            leader_id: -1,
            leader_epoch: -1,
            high_watermark: -1,
            ..Default::default()
        }
    };
    let topics = request
        .topics
        .into_iter()
        .map(|topic| DescribeQuorumTopicData {
            partitions: topic.partitions.iter().map(|partition| one(&topic.topic_name, partition.partition_index)).collect(),
            topic_name: topic.topic_name,
        })
        .collect();
    let listener =
        DescribeQuorumListener { name: "CONTROLLER".to_owned(), host: peer.host(), port: u16::try_from(peer.port()).unwrap_or_default() };
    let nodes = vec![DescribeQuorumNode { node_id: node, listeners: vec![listener] }];
    DescribeQuorumResponse { topics, nodes, ..Default::default() }
}
