//! Fetch. No sessions are kept (KIP-227 allows it): every request names all its partitions.

use std::time::Duration;

use super::dispatch::Caller;
use crate::broker::{FetchPart, FetchSpec, Isolation};
use crate::record::{Offset, TopicId};
use crate::wire::{
    AbortedTransaction, DivergingEpoch, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopicResponse, RecordsOut, error_code,
};

/// From this version on the response may carry zstd.
const KNOWS_ZSTD: i16 = 10;

/// From this version on topics have ids in place of names.
const HAS_IDS: i16 = 13;

/// What Kafka's number for it means.
pub(super) const fn isolation(level: i8) -> Isolation {
    if level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted }
}

fn aborted((producer_id, first): (i64, Offset)) -> AbortedTransaction {
    AbortedTransaction { producer_id, first_offset: first.0 }
}

pub(super) async fn fetch(caller: &Caller, request: FetchRequest) -> FetchResponse {
    // Epoch 0 asks for a session and gets none; a later one claims to be in one.
    if request.session_epoch > 0 {
        return FetchResponse { error_code: error_code::FETCH_SESSION_ID_NOT_FOUND, ..Default::default() };
    }
    let natural = |n: i32| usize::try_from(n).unwrap_or_default();
    let isolation = isolation(request.isolation_level);
    let has_ids = caller.version() >= HAS_IDS;
    let asked: Vec<(String, TopicId, Vec<i32>)> =
        request.topics.iter().map(|t| (t.topic.clone(), t.topic_id, t.partitions.iter().map(|p| p.partition).collect())).collect();
    let parts = request
        .topics
        .into_iter()
        .flat_map(|topic| {
            let name = topic.topic;
            let topic_id = has_ids.then_some(topic.topic_id);
            topic.partitions.into_iter().map(move |p| FetchPart {
                topic: name.clone(),
                topic_id,
                partition: p.partition,
                offset: p.fetch_offset,
                max_bytes: natural(p.partition_max_bytes),
                leader_epoch: p.current_leader_epoch,
                last_fetched_epoch: p.last_fetched_epoch,
            })
        })
        .collect();
    let spec = FetchSpec {
        parts,
        max_bytes: natural(request.max_bytes),
        min_bytes: natural(request.min_bytes),
        max_wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or_default()),
        knows_zstd: caller.version() >= KNOWS_ZSTD,
        isolation,
    };
    let mut fetched = caller.peer.broker.fetch(&spec).await.into_iter();
    let mut answer = |partition_index: i32| {
        let part = fetched.next().expect("every partition asked for is answered");
        FetchPartitionResponse {
            partition_index,
            error_code: part.error,
            high_watermark: part.high_watermark,
            last_stable_offset: part.last_stable,
            log_start_offset: part.log_start,
            aborted_transactions: match part.error {
                error_code::NONE if part.diverging.is_none() => {
                    (isolation == Isolation::ReadCommitted).then(|| part.aborted.into_iter().map(aborted).collect())
                }
                // Kafka fills in an answer of its own for what is not there, and reads for everything else.
                error_code::UNKNOWN_TOPIC_OR_PARTITION | error_code::UNKNOWN_TOPIC_ID => Some(Vec::new()),
                _ => None,
            },
            diverging_epoch: part
                .diverging
                .map_or_else(DivergingEpoch::default, |(epoch, end_offset)| DivergingEpoch { epoch, end_offset }),
            records: RecordsOut(part.records),
            ..Default::default()
        }
    };
    let responses = asked
        .into_iter()
        .map(|(topic, topic_id, partitions)| FetchTopicResponse {
            topic,
            topic_id,
            partitions: partitions.into_iter().map(&mut answer).collect(),
        })
        .collect();
    FetchResponse { responses, ..Default::default() }
}
