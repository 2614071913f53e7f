//! What lies where on the disk: DescribeLogDirs and AlterReplicaLogDirs. There is one log directory, the node's own.
//!
//! Always: sizes are those of the batches a partition holds; what is free is told as the disk guard sees it.
//! Called by `dispatch`.

use std::collections::{BTreeMap, BTreeSet};

use super::dispatch::Caller;
use crate::broker::Partition;
use crate::record::PartitionId;
use crate::wire::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse,
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic, error_code,
};

fn described(partition: &Partition) -> DescribeLogDirsPartition {
    DescribeLogDirsPartition {
        partition_index: partition.of().partition.0,
        partition_size: size(partition.log().size_bytes()),
        offset_lag: 0,
        is_future_key: false,
    }
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(super) fn describe(caller: &Caller, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let broker = &caller.peer.broker;
    let mut topics: BTreeMap<String, BTreeMap<i32, DescribeLogDirsPartition>> = BTreeMap::new();
    match request.topics {
        None => {
            for topic in broker.topics() {
                let all = topic.partitions().iter().map(|p| (p.of().partition.0, described(p))).collect();
                topics.insert(topic.name().as_str().to_owned(), all);
            }
        }
        Some(asked) => {
            for one in asked {
                let Some(topic) = broker.topic_named(&one.topic) else { continue };
                let found = one.partitions.iter().filter_map(|n| Some((*n, described(&*topic.partition(PartitionId(*n))?))));
                topics.entry(one.topic).or_default().extend(found);
            }
        }
    }
    let volume = broker.volume();
    let result = DescribeLogDirsResult {
        log_dir: volume.place,
        topics: topics
            .into_iter()
            .filter(|(_, partitions)| !partitions.is_empty())
            .map(|(name, partitions)| DescribeLogDirsTopic { name, partitions: partitions.into_values().collect() })
            .collect(),
        // -1 says that it is not known.
        total_bytes: volume.total_bytes.map_or(-1, size),
        usable_bytes: size(volume.free_bytes),
        ..Default::default()
    };
    DescribeLogDirsResponse { results: vec![result], ..Default::default() }
}

/// Whether the folder that Kafka would move a partition through had a name that is too long for a file system:
/// `topic-partition.<32 digits>-future`.
fn is_too_long(topic: &str, partition: i32) -> bool {
    topic.len() + partition.to_string().len() + "-.".len() + 32 + "-future".len() > 255
}

pub(super) fn alter(caller: &Caller, request: AlterReplicaLogDirsRequest) -> AlterReplicaLogDirsResponse {
    let broker = &caller.peer.broker;
    let ours = broker.volume().place;
    // Where a partition is named for several directories, the last one holds.
    let mut wanted: BTreeMap<(String, i32), bool> = BTreeMap::new();
    for dir in request.dirs {
        for topic in dir.topics {
            for partition in topic.partitions {
                wanted.insert((topic.name.clone(), partition), dir.path == ours);
            }
        }
    }
    let names: BTreeSet<String> = wanted.keys().map(|(name, _)| name.clone()).collect();
    let judge = |name: &str, partition: i32, is_ours: bool| match broker.topic_named(name).and_then(|t| t.partition(PartitionId(partition)))
    {
        _ if is_too_long(name, partition) => error_code::INVALID_TOPIC_EXCEPTION,
        _ if !is_ours => error_code::LOG_DIR_NOT_FOUND,
        None => error_code::UNKNOWN_TOPIC_OR_PARTITION,
        Some(_) => error_code::NONE,
    };
    let results = names
        .into_iter()
        .map(|topic_name| {
            let partitions = wanted
                .range((topic_name.clone(), i32::MIN)..=(topic_name.clone(), i32::MAX))
                .map(|((name, partition), is_ours)| AlterReplicaLogDirPartitionResult {
                    partition_index: *partition,
                    error_code: judge(name, *partition, *is_ours),
                })
                .collect();
            AlterReplicaLogDirTopicResult { topic_name, partitions }
        })
        .collect();
    AlterReplicaLogDirsResponse { results, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_with_a_very_long_name_cannot_move() {
        assert!(!is_too_long(&"x".repeat(213), 0));
        assert!(is_too_long(&"x".repeat(214), 0));
        assert!(is_too_long(&"x".repeat(213), 10));
    }
}
