//! DescribeTopicPartitions: topics and their partitions, a page at a time.
//!
//! Always: topics come in the order of their names, a page holds at least one partition, and where it ends before the
//! last partition its cursor says where the next one begins. Called by `dispatch`.

use std::collections::BTreeSet;

use super::api_cluster::TOPIC_OPERATIONS;
use super::dispatch::Caller;
use crate::broker::LEADER_EPOCH;
use crate::record::TopicName;
use crate::wire::{
    DescribeTopicPartitionsPartition, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, DescribeTopicPartitionsTopicResult,
    PartitionCursor, error_code,
};

/// Partitions of one page (Kafka's `max.request.partition.size.limit`).
const MAX_PAGE: i32 = 2_000;

/// What of a topic goes onto the page: partitions from `first` on, as many as `left`; and where to go on.
fn cut(first: i32, count: i32, left: i32) -> (std::ops::Range<i32>, Option<i32>) {
    let first = first.min(count);
    let end = count.min(first.saturating_add(left));
    (first..end, (end < count).then_some(end))
}

pub(super) fn describe(caller: &Caller, request: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let broker = &caller.peer.broker;
    let all = request.topics.is_empty();
    let names: BTreeSet<String> = if all {
        broker.topics().iter().map(|topic| topic.name().as_str().to_owned()).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.clone()).collect()
    };
    let cursor = request.cursor;
    if let Some(cursor) = &cursor
        && ((!all && !names.contains(&cursor.topic_name)) || cursor.partition_index < 0)
    {
        let refused = |name| DescribeTopicPartitionsTopicResult { error_code: error_code::INVALID_REQUEST, name, ..Default::default() };
        let topics = request.topics.into_iter().map(|topic| refused(Some(topic.name))).collect();
        return DescribeTopicPartitionsResponse { topics, ..Default::default() };
    }
    let (from, first_of_cursor) = cursor.map_or((String::new(), 0), |c| (c.topic_name, c.partition_index));
    let mut left = request.response_partition_limit.clamp(1, MAX_PAGE);
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut names = names.range(from.clone()..).peekable();
    while let Some(name) = names.next() {
        let first = if *name == from { first_of_cursor } else { 0 };
        let Some(topic) = broker.topic_named(name) else {
            if !all {
                let known = TopicName::new(name).is_ok();
                let error_code = if known { error_code::UNKNOWN_TOPIC_OR_PARTITION } else { error_code::INVALID_TOPIC_EXCEPTION };
                response.topics.push(DescribeTopicPartitionsTopicResult {
                    error_code,
                    name: Some(name.clone()),
                    topic_authorized_operations: TOPIC_OPERATIONS,
                    ..Default::default()
                });
            }
            continue;
        };
        let (page, next) = cut(first, topic.partition_count(), left);
        left -= page.end - page.start;
        let node = broker.config().node_id;
        let partition = |partition_index| DescribeTopicPartitionsPartition {
            partition_index,
            leader_id: node,
            leader_epoch: LEADER_EPOCH,
            replica_nodes: vec![node],
            isr_nodes: vec![node],
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            ..Default::default()
        };
        response.topics.push(DescribeTopicPartitionsTopicResult {
            error_code: error_code::NONE,
            name: Some(name.clone()),
            topic_id: topic.id(),
            is_internal: topic.name().is_internal(),
            partitions: page.map(partition).collect(),
            topic_authorized_operations: TOPIC_OPERATIONS,
        });
        let goes_on = next.map(|partition_index| PartitionCursor { topic_name: name.clone(), partition_index });
        let page_is_full =
            || names.peek().filter(|_| left == 0).map(|next| PartitionCursor { topic_name: (*next).clone(), partition_index: 0 });
        response.next_cursor = goes_on.or_else(page_is_full);
        if response.next_cursor.is_some() {
            break;
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_where_it_is_full_and_the_next_begins_there() {
        assert_eq!(cut(0, 3, 10), (0..3, None));
        assert_eq!(cut(0, 3, 3), (0..3, None));
        assert_eq!(cut(0, 3, 2), (0..2, Some(2)));
        assert_eq!(cut(2, 3, 2), (2..3, None));
        assert_eq!(cut(3, 3, 2), (3..3, None));
        assert_eq!(cut(i32::MAX, 3, 2), (3..3, None));
        assert_eq!(cut(1, i32::MAX, i32::MAX), (1..i32::MAX, None));
    }
}
