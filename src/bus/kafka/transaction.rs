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
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use tokio::sync::oneshot;

use super::sending::{Load, Parcel, Pauses, STEP, send, unreadable};
use super::settings::Context;
use crate::bus::{BusError, TaskId};
use crate::record::{Offset, TopicPartition};

/// Offsets behind what was written.
pub(super) type Ends = Vec<(TopicPartition, Offset)>;

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

/// What of a parcel is not sent yet.
struct Rest<'a> {
    parcel: &'a Parcel,
    /// How many of its records are.
    sent: usize,
    /// The record whose offset is wanted.
    wanted: usize,
    /// The mark it gets.
    mark: usize,
}

/// Sends everything of these riders, all but the last of each partition also acknowledged, and tells the first mark of each. Which records'
/// offsets are wanted is told by their marks: of a checkpoint the first, of an append's parcels the last.
pub(super) fn send_all(
    producer: &BaseProducer<Deliveries>,
    riders: &[Rider],
    mark: &mut usize,
    deadline: Instant,
) -> Result<Vec<usize>, KafkaError> {
    let (mut firsts, mut left) = (Vec::with_capacity(riders.len()), Vec::new());
    for rider in riders {
        firsts.push(*mark + 1);
        for (parcel, of_checkpoint) in rider.outputs.iter().map(|p| (p, false)).chain(rider.checkpoint.iter().map(|p| (p, true))) {
            *mark += 1;
            let wanted = if of_checkpoint { 0 } else { parcel.batch.header().count as usize - 1 };
            left.push(Rest { parcel, sent: 0, wanted, mark: *mark });
        }
    }
    loop {
        left = send_what_fits(producer, left, deadline)?;
        if left.is_empty() {
            return Ok(firsts);
        }
        settle(producer, deadline)?;
    }
}

/// Sends of each partition what goes into one request, in order; what does not comes back.
fn send_what_fits<'a>(producer: &BaseProducer<Deliveries>, parcels: Vec<Rest<'a>>, deadline: Instant) -> Result<Vec<Rest<'a>>, KafkaError> {
    let mut loads: HashMap<&TopicPartition, Load> = HashMap::with_capacity(parcels.len());
    let mut left = Vec::new();
    for mut rest in parcels {
        let load = loads.entry(&rest.parcel.to).or_default();
        if !load.is_full() {
            let records = rest.parcel.batch.records().map_err(unreadable)?;
            for record in records.iter().skip(rest.sent) {
                let record = record.map_err(unreadable)?;
                if !load.takes(&record) {
                    break;
                }
                let mark = if rest.sent == rest.wanted { rest.mark } else { 0 };
                send(producer, rest.parcel, &record, mark, deadline)?;
                rest.sent += 1;
            }
        }
        if load.is_full() {
            left.push(rest);
        }
    }
    Ok(left)
}

/// Waits until every record queued is acknowledged, or given up. librdkafka's own flush sleeps in steps that are longer than a commit takes.
pub(super) fn settle(producer: &BaseProducer<Deliveries>, deadline: Instant) -> Result<(), KafkaError> {
    let mut pauses = Pauses::default();
    while producer.in_flight_count() > 0 {
        if Instant::now() >= deadline {
            return Err(KafkaError::Flush(Code::OperationTimedOut));
        }
        pauses.listen(producer);
    }
    Ok(())
}

/// Ends the transaction for good; asks again where the coordinator does not answer.
pub(super) fn end(producer: &BaseProducer<Deliveries>, deadline: Instant) -> Result<(), KafkaError> {
    let mut pauses = Pauses::default();
    loop {
        match producer.commit_transaction(STEP) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !error.txn_requires_abort() && Instant::now() < deadline => {}
            Err(KafkaError::Flush(_)) if Instant::now() < deadline => {}
            ended => return ended,
        }
        pauses.listen(producer);
    }
}

/// Ends the transaction as if it had never been.
pub(super) fn abort(producer: &BaseProducer<Deliveries>, deadline: Instant) -> Result<(), KafkaError> {
    // Where the time for the commit is spent, the abort still gets some.
    let deadline = deadline.max(Instant::now() + STEP);
    let mut pauses = Pauses::default();
    loop {
        // What was still queued is told as undelivered, and someone has to listen for the abort to go on: short steps.
        match producer.abort_transaction(Duration::from_millis(200)) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                pauses.listen(producer);
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
