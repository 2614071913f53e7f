//! What tools ask about producers and transactions, and how they end one that hangs: DescribeProducers,
//! DescribeTransactions, ListTransactions, WriteTxnMarkers.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use super::dispatch::Caller;
use crate::broker::DescribedProducer;
use crate::broker::txn::{Identity, Transaction, TxnState};
use crate::record::{PartitionId, TopicName, TopicPartition};
use crate::wire::{
    DescribeProducersPartitionResponse, DescribeProducersProducerState, DescribeProducersRequest, DescribeProducersResponse,
    DescribeProducersTopicResponse, DescribeTransactionsRequest, DescribeTransactionsResponse, DescribeTransactionsTopicData,
    DescribeTransactionsTransactionState, ListTransactionsRequest, ListTransactionsResponse, ListTransactionsTransactionState,
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopic, WritableTxnMarkerTopicResult,
    WriteTxnMarkersRequest, WriteTxnMarkersResponse, error_code,
};

/// The most memory a pattern of a client may take.
const PATTERN_BYTES: usize = 1 << 20;

/// Who writes to partitions with a sequence.
pub(super) async fn describe_producers(caller: &Caller, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = TopicName::new(&topic.name);
        let known = caller.peer.broker.topic_named(&topic.name).is_some();
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for partition_index in topic.partition_indexes {
            if let Err(why) = &name {
                let error_message = Some(why.to_string());
                let error_code = error_code::INVALID_TOPIC_EXCEPTION;
                partitions.push(DescribeProducersPartitionResponse { partition_index, error_code, error_message, ..Default::default() });
                continue;
            }
            let found = caller.peer.broker.describe_producers(&topic.name, partition_index).await;
            partitions.push(match found {
                Ok(producers) => DescribeProducersPartitionResponse {
                    partition_index,
                    active_producers: producers.into_iter().map(producer_state).collect(),
                    ..Default::default()
                },
                // Kafka explains only a topic that is missing.
                Err(code) if !known => {
                    let error_message = Some("there is no such topic".to_owned());
                    DescribeProducersPartitionResponse { partition_index, error_code: code, error_message, ..Default::default() }
                }
                Err(code) => DescribeProducersPartitionResponse { partition_index, error_code: code, ..Default::default() },
            });
        }
        topics.push(DescribeProducersTopicResponse { name: topic.name, partitions });
    }
    DescribeProducersResponse { topics, ..Default::default() }
}

fn producer_state(one: DescribedProducer) -> DescribeProducersProducerState {
    DescribeProducersProducerState {
        producer_id: one.producer_id,
        producer_epoch: i32::from(one.epoch),
        last_sequence: one.last_sequence,
        last_timestamp: one.last_timestamp,
        coordinator_epoch: one.coordinator_epoch,
        current_txn_start_offset: one.open.map_or(-1, |at| at.0),
    }
}

/// What transactional ids are doing.
pub(super) fn describe_transactions(caller: &Caller, request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let one = |id: String| {
        let found = if id.is_empty() { Err(error_code::INVALID_REQUEST) } else { Ok(caller.peer.broker.transactions().describe(&id)) };
        match found {
            Ok(Some(transaction)) => described(id, &transaction),
            Ok(None) => refused(id, error_code::TRANSACTIONAL_ID_NOT_FOUND),
            Err(code) => refused(id, code),
        }
    };
    DescribeTransactionsResponse { transaction_states: request.transactional_ids.into_iter().map(one).collect(), ..Default::default() }
}

fn refused(transactional_id: String, error_code: i16) -> DescribeTransactionsTransactionState {
    DescribeTransactionsTransactionState { error_code, transactional_id, ..Default::default() }
}

fn described(transactional_id: String, transaction: &Transaction) -> DescribeTransactionsTransactionState {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for of in &transaction.partitions {
        topics.entry(of.topic.as_str()).or_default().push(of.partition.0);
    }
    let topic = |(topic, partitions): (&str, Vec<i32>)| DescribeTransactionsTopicData { topic: topic.to_owned(), partitions };
    DescribeTransactionsTransactionState {
        error_code: error_code::NONE,
        transactional_id,
        transaction_state: transaction.state.name().to_owned(),
        transaction_timeout_ms: transaction.timeout_ms,
        transaction_start_time_ms: transaction.started_at,
        producer_id: transaction.producer.id,
        producer_epoch: transaction.producer.epoch,
        topics: topics.into_iter().map(topic).collect(),
    }
}

/// The transactional ids there are.
pub(super) fn list_transactions(caller: &Caller, request: &ListTransactionsRequest) -> ListTransactionsResponse {
    let now = caller.peer.broker.transactions().now();
    let pattern = match request.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty()).map(whole_id) {
        None => None,
        Some(Ok(pattern)) => Some(pattern),
        Some(Err(_)) => return ListTransactionsResponse { error_code: error_code::INVALID_REGULAR_EXPRESSION, ..Default::default() },
    };
    let states = &request.state_filters;
    let (known, unknown): (Vec<&String>, Vec<&String>) = states.iter().partition(|state| TxnState::NAMES.contains(&state.as_str()));
    let transaction_states = caller
        .peer
        .broker
        .transactions()
        .list()
        .into_iter()
        .filter(|one| request.producer_id_filters.is_empty() || request.producer_id_filters.contains(&one.transaction.producer.id))
        .filter(|one| states.is_empty() || known.iter().any(|state| *state == one.transaction.state.name()))
        .filter(|one| pattern.as_ref().is_none_or(|pattern| pattern.is_match(&one.id)))
        .filter(|one| request.duration_filter < 0 || one.open_for_ms(now) > request.duration_filter)
        .map(|one| ListTransactionsTransactionState {
            transactional_id: one.id,
            producer_id: one.transaction.producer.id,
            transaction_state: one.transaction.state.name().to_owned(),
        })
        .collect();
    ListTransactionsResponse { unknown_state_filters: unknown.into_iter().cloned().collect(), transaction_states, ..Default::default() }
}

/// A pattern that the whole of an id must match.
fn whole_id(pattern: &str) -> Result<Regex, regex::Error> {
    // Checked by itself first: brackets that only fit together with ours would be another pattern.
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build()?;
    RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(PATTERN_BYTES).build()
}

/// Ends what producers have open in partitions, past their coordinator.
pub(super) async fn write_markers(caller: &Caller, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let mut markers = Vec::with_capacity(request.markers.len());
    for mut marker in request.markers {
        let mut topics = Vec::with_capacity(marker.topics.len());
        for topic in std::mem::take(&mut marker.topics) {
            topics.push(write_topic(caller, &marker, topic).await);
        }
        markers.push(WritableTxnMarkerResult { producer_id: marker.producer_id, topics });
    }
    WriteTxnMarkersResponse { markers }
}

async fn write_topic(caller: &Caller, marker: &WritableTxnMarker, topic: WritableTxnMarkerTopic) -> WritableTxnMarkerTopicResult {
    let producer = Identity { id: marker.producer_id, epoch: marker.producer_epoch };
    let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
    for partition_index in topic.partition_indexes {
        let error_code = match TopicName::new(&topic.name) {
            Ok(name) => {
                let of = TopicPartition::new(name, PartitionId(partition_index));
                let transactions = caller.peer.broker.transactions();
                transactions.write_marker(&of, producer, marker.transaction_result, marker.coordinator_epoch).await
            }
            Err(_) => error_code::UNKNOWN_TOPIC_OR_PARTITION,
        };
        partitions.push(WritableTxnMarkerPartitionResult { partition_index, error_code });
    }
    WritableTxnMarkerTopicResult { name: topic.name, partitions }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_of_whole_ids() {
        assert!(whole_id("orders-.*").is_ok_and(|p| p.is_match("orders-1") && !p.is_match("my-orders-1")));
        assert!(whole_id("a|b").is_ok_and(|p| p.is_match("b") && !p.is_match("ab")));
        for bad in ["(", "a)|(b", "[", "(?:(?:a{1000}){1000}){1000}"] {
            assert!(whole_id(bad).is_err(), "{bad}");
        }
    }
}
