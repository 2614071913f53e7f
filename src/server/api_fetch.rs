//! Fetch. No sessions are kept (KIP-227 allows it): every request names all its partitions.

use std::time::Duration;

use super::dispatch::Caller;
use crate::broker::{FetchPart, FetchSpec};
use crate::wire::{FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopicResponse, RecordsOut, error_code};

/// From this version on the response may carry zstd.
const KNOWS_ZSTD: i16 = 10;

pub(super) async fn fetch(caller: &Caller, request: FetchRequest) -> FetchResponse {
    // Epoch 0 asks for a session and gets none; a later one claims to be in one.
    if request.session_epoch > 0 {
        return FetchResponse { error_code: error_code::FETCH_SESSION_ID_NOT_FOUND, ..Default::default() };
    }
    let natural = |n: i32| usize::try_from(n).unwrap_or_default();
    let read_committed = request.isolation_level == 1;
    let asked: Vec<(String, Vec<i32>)> =
        request.topics.iter().map(|t| (t.topic.clone(), t.partitions.iter().map(|p| p.partition).collect())).collect();
    let parts = request
        .topics
        .into_iter()
        .flat_map(|topic| {
            let name = topic.topic;
            topic.partitions.into_iter().map(move |p| FetchPart {
                topic: name.clone(),
                partition: p.partition,
                offset: p.fetch_offset,
                max_bytes: natural(p.partition_max_bytes),
                leader_epoch: p.current_leader_epoch,
            })
        })
        .collect();
    let spec = FetchSpec {
        parts,
        max_bytes: natural(request.max_bytes),
        min_bytes: natural(request.min_bytes),
        max_wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or_default()),
        knows_zstd: caller.version() >= KNOWS_ZSTD,
    };
    let mut fetched = caller.peer.broker.fetch(&spec).await.into_iter();
    let mut answer = |partition_index: i32| {
        let part = fetched.next().expect("every partition asked for is answered");
        FetchPartitionResponse {
            partition_index,
            error_code: part.error,
            high_watermark: part.high_watermark,
            // No transaction is ever open.
            last_stable_offset: part.high_watermark,
            log_start_offset: part.log_start,
            aborted_transactions: read_committed.then(Vec::new),
            records: RecordsOut(part.records),
            ..Default::default()
        }
    };
    let responses = asked
        .into_iter()
        .map(|(topic, partitions)| FetchTopicResponse { topic, partitions: partitions.into_iter().map(&mut answer).collect() })
        .collect();
    FetchResponse { responses, ..Default::default() }
}
