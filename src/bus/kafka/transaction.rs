//! What goes into a transaction, and how one is written and ended.
//!
//! Plain steps over a producer, each bounded by a deadline. Always: the offset of a checkpoint's first record, and of an append's last ones,
//! is known once its transaction has ended well. Called by [`super::lane`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::util::IntoOpaque;
use tokio::sync::oneshot;

use super::error::is_missing;
use super::settings::Context;
use crate::bus::{BusError, TaskId};
use crate::record::{Batch, BatchError, Offset, RecordRef, TopicPartition};

/// How long one request to the transaction's coordinator may take before it is asked again.
pub(super) const STEP: Duration = Duration::from_secs(5);

/// Offsets behind what was written.
pub(super) type Ends = Vec<(TopicPartition, Offset)>;

/// Records for one partition, as the cluster knows it.
pub(super) struct Parcel {
    /// The topic's name on the cluster.
    pub(super) topic: String,
    /// Where to, in the engine's words.
    pub(super) to: TopicPartition,
    /// What.
    pub(super) batch: Batch,
}

/// One commit, or one append.
pub(super) struct Rider {
    /// Whose commit it is; nobody's where it is an append.
    pub(super) who: Option<(TaskId, u64)>,
    pub(super) outputs: Vec<Parcel>,
    pub(super) checkpoint: Option<Parcel>,
    pub(super) done: oneshot::Sender<Result<Landed, BusError>>,
}

/// Where a rider's records have landed.
#[derive(Debug, Default)]
pub(super) struct Landed {
    /// The first record of the checkpoint, and the offset behind its last.
    pub(super) checkpoint: Option<(Offset, Offset)>,
    /// The ends of what else was written; for an append only.
    pub(super) ends: Ends,
}

impl Rider {
    pub(super) fn bytes(&self) -> usize {
        self.outputs.iter().chain(&self.checkpoint).map(|parcel| parcel.batch.len_bytes()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.outputs.is_empty() && self.checkpoint.is_none()
    }
}

/// Queues everything of a rider. Which records' offsets are wanted is told by their marks: of a checkpoint the first, of an append's
/// parcels the last.
pub(super) fn send_all(producer: &BaseProducer<Deliveries>, rider: &Rider, mark: &mut usize, deadline: Instant) -> Result<(), KafkaError> {
    let unreadable = |_: BatchError| KafkaError::MessageProduction(Code::BadMessage);
    for (parcel, of_checkpoint) in rider.outputs.iter().map(|p| (p, false)).chain(rider.checkpoint.iter().map(|p| (p, true))) {
        let records = parcel.batch.records().map_err(unreadable)?;
        let last = parcel.batch.header().count - 1;
        *mark += 1;
        for (index, record) in records.iter().enumerate() {
            let record = record.map_err(unreadable)?;
            let wanted = if of_checkpoint { index == 0 } else { index as i32 == last };
            send(producer, parcel, &record, if wanted { *mark } else { 0 }, deadline)?;
        }
    }
    Ok(())
}

fn send(
    producer: &BaseProducer<Deliveries>,
    parcel: &Parcel,
    record: &RecordRef<'_>,
    mark: usize,
    deadline: Instant,
) -> Result<(), KafkaError> {
    let mut one: BaseRecord<'_, [u8], [u8], usize> = record_of(parcel, record, mark)?;
    let mut until = None;
    loop {
        match producer.send(one) {
            Ok(()) => return Ok(()),
            // The topic may have grown, and the client not have heard of it.
            Err((error, back)) if is_missing(&error) => {
                if until.is_none() && is_there(producer, parcel) {
                    until = Some(Instant::now() + STEP);
                }
                if until.is_none_or(|until| Instant::now() >= until) {
                    return Err(error);
                }
                producer.poll(Duration::from_millis(1));
                one = back;
            }
            Err((KafkaError::MessageProduction(Code::QueueFull), back)) if Instant::now() < deadline => {
                producer.poll(Duration::from_millis(1));
                one = back;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// A record as librdkafka takes it; `mark` comes back with its delivery.
pub(super) fn record_of<'a, M: IntoOpaque>(
    parcel: &'a Parcel,
    record: &RecordRef<'a>,
    mark: M,
) -> Result<BaseRecord<'a, [u8], [u8], M>, KafkaError> {
    let mut one: BaseRecord<'_, [u8], [u8], M> =
        BaseRecord::with_opaque_to(&parcel.topic, mark).partition(parcel.to.partition.0).timestamp(record.timestamp);
    one.key = record.key;
    one.payload = record.value;
    let mut headers = record.headers().peekable();
    if headers.peek().is_some() {
        let mut all = OwnedHeaders::new();
        for header in headers {
            let (key, value) = header.map_err(|_| KafkaError::MessageProduction(Code::BadMessage))?;
            all = all.insert(Header { key: &String::from_utf8_lossy(key), value });
        }
        one.headers = Some(all);
    }
    Ok(one)
}

/// Whether the cluster has the partition; asking makes the client know it too.
fn is_there(producer: &BaseProducer<Deliveries>, parcel: &Parcel) -> bool {
    let known = producer.client().fetch_metadata(Some(&parcel.topic), STEP);
    known.is_ok_and(|known| {
        let mut topics = known.topics().iter().filter(|topic| topic.name() == parcel.topic);
        topics.any(|topic| topic.partitions().len() as i32 > parcel.to.partition.0)
    })
}

/// Waits until every record queued is acknowledged, or given up. librdkafka's own flush sleeps in steps that are longer than a commit takes.
pub(super) fn settle(producer: &BaseProducer<Deliveries>, deadline: Instant) -> Result<(), KafkaError> {
    while producer.in_flight_count() > 0 {
        if Instant::now() >= deadline {
            return Err(KafkaError::Flush(Code::OperationTimedOut));
        }
        producer.poll(Duration::from_millis(1));
    }
    Ok(())
}

/// Ends the transaction for good; asks again where the coordinator does not answer.
pub(super) fn end(producer: &BaseProducer<Deliveries>, deadline: Instant) -> Result<(), KafkaError> {
    loop {
        match producer.commit_transaction(STEP) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !error.txn_requires_abort() && Instant::now() < deadline => {}
            Err(KafkaError::Flush(_)) if Instant::now() < deadline => {}
            ended => return ended,
        }
    }
}

/// Ends the transaction as if it had never been.
pub(super) fn abort(producer: &BaseProducer<Deliveries>, deadline: Instant) -> Result<(), KafkaError> {
    // Where the time for the commit is spent, the abort still gets some.
    let deadline = deadline.max(Instant::now() + STEP);
    loop {
        // What was still queued is told as undelivered, and someone has to listen for the abort to go on: short steps.
        match producer.abort_transaction(Duration::from_millis(200)) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                producer.poll(Duration::from_millis(5));
            }
            ended => return ended,
        }
    }
}

pub(super) fn landed(rider: &Rider, first_mark: usize, offsets: &Deliveries) -> Landed {
    let mut landed = Landed::default();
    let mut mark = first_mark;
    for parcel in &rider.outputs {
        if rider.who.is_none()
            && let Some(last) = offsets.of(mark)
        {
            landed.ends.push((parcel.to.clone(), last.plus(1)));
        }
        mark += 1;
    }
    if let Some(parcel) = &rider.checkpoint {
        // Its partition is written by this task alone: the records of a transaction lie side by side.
        landed.checkpoint = offsets.of(mark).map(|first| (first, first.plus(i64::from(parcel.batch.header().count))));
    }
    landed
}

/// What became of a producer's records: the offsets of those that are marked, and what failed first.
#[derive(Default)]
pub(super) struct Deliveries {
    context: Context,
    offsets: Mutex<HashMap<usize, i64>>,
    failure: Mutex<Option<(String, Code)>>,
}

impl Deliveries {
    pub(super) fn clear(&self) {
        self.offsets.lock().clear();
        *self.failure.lock() = None;
    }

    fn of(&self, mark: usize) -> Option<Offset> {
        self.offsets.lock().get(&mark).map(|offset| Offset(*offset))
    }

    /// The topic and the reason of the first record that was not delivered.
    pub(super) fn first_failure(&self) -> Option<(String, Code)> {
        self.failure.lock().clone()
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What ends a producer is told by its lane, in the engine's words.
        let level = if ["TXNERR", "FATAL"].contains(&facility) { RDKafkaLogLevel::Debug } else { level };
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: usize) {
        match result {
            Ok(message) if mark != 0 => {
                self.offsets.lock().insert(mark, message.offset());
            }
            Ok(_) => {}
            Err((error, message)) => {
                // What an abort sweeps out has failed through another.
                if let Some(code) = error.rdkafka_error_code().filter(|code| !matches!(code, Code::PurgeQueue | Code::PurgeInflight)) {
                    self.failure.lock().get_or_insert_with(|| (message.topic().to_owned(), code));
                }
            }
        }
    }
}
