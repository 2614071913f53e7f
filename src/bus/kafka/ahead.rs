//! Outputs that go ahead of their commit: one producer without transactions, which the tasks of a process share.
//!
//! A task whose outputs may be repeated does not keep them for its next transaction: they are sent at once, and its next commit is begun
//! only when the brokers have acknowledged them. Always: outputs of one committer reach a partition in the order in which they were
//! handed over, without a gap (a record that cannot be written ends the producer, and what stands behind it is not written either);
//! where one is not written, no later commit of that committer is. Called by [`super::KafkaBus`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;

use super::error::{told, told_code};
use super::lane::PATIENCE;
use super::settings::{Context, KafkaTerms};
use super::transaction::{Parcel, record_of};
use crate::bus::BusError;
use crate::record::{BatchError, RecordRef};

/// About so much of one committer is on its way to the brokers at a time.
const MOST_BYTES: usize = 32 << 20;
/// How long it is until a full queue is tried again.
const AGAIN: Duration = Duration::from_millis(1);

/// The producer, made when it is first needed, and anew when it can write nothing more.
pub(super) struct Ahead {
    terms: Arc<KafkaTerms>,
    producer: Mutex<Option<Arc<ThreadedProducer<Handed>>>>,
}

/// What one committer has handed over and nobody has acknowledged yet.
#[derive(Default)]
pub(super) struct OnTheWay {
    standing: Mutex<Standing>,
    changed: Notify,
}

#[derive(Default)]
struct Standing {
    records: usize,
    bytes: usize,
    /// The first that could not be written: its topic, and why.
    failure: Option<(String, Code)>,
}

impl Ahead {
    pub(super) fn new(terms: Arc<KafkaTerms>) -> Self {
        Self { terms, producer: Mutex::default() }
    }

    fn producer(&self) -> Result<Arc<ThreadedProducer<Handed>>, BusError> {
        let mut producer = self.producer.lock();
        if let Some(there) = producer.as_ref().filter(|there| there.client().fatal_error().is_none()) {
            return Ok(Arc::clone(there));
        }
        let made = self.terms.ahead().create_with_context(Handed::default());
        let made = Arc::new(made.map_err(|e| told("could not make a producer", &e))?);
        *producer = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Sends them. Waits only where too much is on its way already.
    pub(super) async fn hand_over(&self, parcels: &[Parcel], way: &Arc<OnTheWay>) -> Result<(), BusError> {
        way.until(|standing| standing.bytes < MOST_BYTES).await?;
        let producer = self.producer()?;
        let unreadable = |e: BatchError| BusError::Corrupt(e.to_string());
        for parcel in parcels {
            for record in &parcel.batch.records().map_err(unreadable)? {
                send(&producer, parcel, &record.map_err(unreadable)?, way).await?;
            }
        }
        Ok(())
    }
}

async fn send(producer: &ThreadedProducer<Handed>, parcel: &Parcel, record: &RecordRef<'_>, way: &Arc<OnTheWay>) -> Result<(), BusError> {
    let failed = |e: &KafkaError| told(&format!("could not write to topic {}", parcel.topic), e);
    let mut one: BaseRecord<'_, [u8], [u8], Arc<OnTheWay>> = record_of(parcel, record, Arc::clone(way)).map_err(|e| failed(&e))?;
    let bytes = size(record.key, record.value);
    way.goes(bytes);
    let begun = Instant::now();
    loop {
        match producer.send(one) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(Code::QueueFull), back)) if begun.elapsed() < PATIENCE => one = back,
            Err((error, _)) => {
                way.arrives(bytes, None);
                return Err(failed(&error));
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn size(key: Option<&[u8]>, value: Option<&[u8]>) -> usize {
    key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)
}

impl OnTheWay {
    fn goes(&self, bytes: usize) {
        let mut standing = self.standing.lock();
        standing.records += 1;
        standing.bytes += bytes;
    }

    fn arrives(&self, bytes: usize, failure: Option<(String, Code)>) {
        let mut standing = self.standing.lock();
        standing.records -= 1;
        standing.bytes -= bytes;
        if standing.failure.is_none() {
            standing.failure = failure;
        }
        drop(standing);
        self.changed.notify_waiters();
    }

    /// Completes when everything that was handed over is in the log.
    pub(super) async fn settled(&self) -> Result<(), BusError> {
        self.until(|standing| standing.records == 0).await
    }

    async fn until(&self, is: impl Fn(&Standing) -> bool) -> Result<(), BusError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let changed = self.changed.notified();
            {
                let standing = self.standing.lock();
                if let Some((topic, code)) = &standing.failure {
                    return Err(told_code(&format!("could not write to topic {topic}"), Some(*code), &code.to_string()));
                }
                if is(&standing) {
                    return Ok(());
                }
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                let why = format!("results were not acknowledged within {} s", PATIENCE.as_secs());
                return Err(BusError::Retriable(why));
            }
        }
    }
}

/// Hears what became of each record.
#[derive(Default)]
pub(super) struct Handed {
    context: Context,
}

impl ClientContext for Handed {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for Handed {
    type DeliveryOpaque = Arc<OnTheWay>;

    fn delivery(&self, result: &DeliveryResult<'_>, way: Arc<OnTheWay>) {
        match result {
            Ok(message) => way.arrives(size(message.key(), message.payload()), None),
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                way.arrives(size(message.key(), message.payload()), Some((message.topic().to_owned(), code)));
            }
        }
    }
}
