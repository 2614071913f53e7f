//! Produce, in two steps: place the batches, then wait for the disk.

use crate::broker::{Broker, Incoming, ProduceTerms, Produced};
use crate::record::TopicId;
use crate::wire::{BatchIndexError, ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopicResponse};

/// From this version on the request may carry zstd.
const KNOWS_ZSTD: i16 = 7;
/// From this version on the client knows that a transaction can only be aborted.
const KNOWS_ABORTABLE: i16 = 11;
/// From this version on each transaction has an epoch of its own.
const BUMPS_EPOCH: i16 = 12;
/// From this version on topics have ids in place of names.
const HAS_IDS: i16 = 13;

/// A Produce request whose batches have their place, with what its answer needs.
pub(super) struct Acknowledgement {
    /// The topics of the request, and which partitions of each.
    asked: Vec<(String, TopicId, Vec<i32>)>,
    produced: Produced,
}

/// Gives the batches their place. In the order of the requests of a connection.
pub(super) async fn produce(broker: &Broker, request: ProduceRequest, version: i16) -> Acknowledgement {
    let terms = ProduceTerms {
        acks: request.acks,
        knows_abortable: version >= KNOWS_ABORTABLE,
        knows_zstd: version >= KNOWS_ZSTD,
        bumps_epoch: version >= BUMPS_EPOCH,
    };
    let asked = request.topics.iter().map(|t| (t.name.clone(), t.topic_id, t.partitions.iter().map(|p| p.index).collect())).collect();
    let incoming = request
        .topics
        .into_iter()
        .flat_map(|topic| {
            let name = topic.name;
            let topic_id = (version >= HAS_IDS).then_some(topic.topic_id);
            topic.partitions.into_iter().map(move |p| Incoming { topic: name.clone(), topic_id, partition: p.index, records: p.records })
        })
        .collect();
    Acknowledgement { asked, produced: broker.produce(terms, request.transactional_id.as_deref(), incoming).await }
}

impl Acknowledgement {
    /// Why a batch was refused, if one was: all that a request without acknowledgement can be told by is the
    /// closing of its connection.
    pub(super) fn refused(&self) -> Option<String> {
        self.produced.first_refusal().map(|refusal| refusal.message.clone())
    }

    /// The answer, when the batches are durable.
    pub(super) async fn response(self) -> ProduceResponse {
        let mut outcomes = self.produced.durable().await.into_iter();
        let mut answer = |index: i32| match outcomes.next().expect("every batch has its outcome") {
            Ok(placed) => ProducePartitionResponse {
                index,
                base_offset: placed.base.0,
                log_append_time_ms: placed.append_time.map_or(-1, |at| at.0),
                log_start_offset: placed.log_start.0,
                ..Default::default()
            },
            Err(refusal) => ProducePartitionResponse {
                index,
                error_code: refusal.code,
                log_start_offset: refusal.log_start.map_or(-1, |at| at.0),
                record_errors: refusal
                    .records
                    .iter()
                    .map(|at| BatchIndexError { batch_index: *at, message: Some(refusal.message.clone()) })
                    .collect(),
                error_message: Some(refusal.message),
                ..Default::default()
            },
        };
        let responses = self
            .asked
            .into_iter()
            .map(|(name, topic_id, partitions)| ProduceTopicResponse {
                name,
                topic_id,
                partitions: partitions.into_iter().map(&mut answer).collect(),
            })
            .collect();
        ProduceResponse { responses, ..Default::default() }
    }
}
