//! Outputs that go ahead of their commit: one producer without transactions on a thread of its own, which the tasks of a process share.
//!
//! A task whose outputs may be repeated does not keep them for its next transaction: they are sent at once, and its next commit is begun
//! only when the brokers have acknowledged them. Always: outputs of one committer reach a partition in the order in which they were
//! handed over, without a gap (a record that cannot be written ends the producer, and what stands behind it is not written either);
//! where one is not written, no later commit of that committer is. What waits for one partition does not wait for another.
//! Called by [`super::KafkaBus`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use tokio::sync::Notify;

use super::error::told_code;
use super::lane::PATIENCE;
use super::sending::{Load, Parcel, Pauses, hear, send, unreadable};
use super::settings::{Context, KafkaTerms};
use crate::bus::BusError;
use crate::record::TopicPartition;

/// About so much of one committer is on its way to the brokers at a time.
const MOST_BYTES: usize = 32 << 20;
/// A producer that has nothing to do is asked this often whether it has anything to tell.
const IDLE: Duration = Duration::from_secs(1);

/// The way to the producer's thread, which is begun when it is first needed.
pub(super) struct Ahead {
    terms: Arc<KafkaTerms>,
    orders: Mutex<Option<Sender<Handing>>>,
}

/// What a committer hands over.
struct Handing {
    parcel: Parcel,
    way: Arc<OnTheWay>,
}

impl Ahead {
    pub(super) fn new(terms: Arc<KafkaTerms>) -> Self {
        Self { terms, orders: Mutex::default() }
    }

    /// Sends them. Waits only where too much is on its way already.
    pub(super) async fn hand_over(&self, parcels: Vec<Parcel>, way: &Arc<OnTheWay>) -> Result<(), BusError> {
        way.until(|standing| standing.bytes < MOST_BYTES).await?;
        let orders = self.orders()?;
        for parcel in parcels {
            way.goes(parcel.batch.len_bytes());
            if orders.send(Handing { parcel, way: Arc::clone(way) }).is_err() {
                // The next hand-over begins another.
                self.orders.lock().take();
                return Err(BusError::Retriable("the thread that writes results has ended".to_owned()));
            }
        }
        Ok(())
    }

    fn orders(&self) -> Result<Sender<Handing>, BusError> {
        let mut known = self.orders.lock();
        if let Some(orders) = &*known {
            return Ok(orders.clone());
        }
        let (orders, taken) = channel();
        let worker = Worker { terms: Arc::clone(&self.terms), producer: None, lines: HashMap::new() };
        let begun = std::thread::Builder::new().name("vitalsql-ahead".to_owned()).spawn(move || worker.run(&taken));
        begun.map_err(|e| BusError::Retriable(format!("could not start a thread: {e}")))?;
        Ok(known.insert(orders).clone())
    }
}

/// What one committer has handed over and nobody has acknowledged yet.
#[derive(Default)]
pub(super) struct OnTheWay {
    standing: Mutex<Standing>,
    changed: Notify,
}

#[derive(Default)]
struct Standing {
    parcels: usize,
    bytes: usize,
    /// The first that could not be written.
    failure: Option<Failure>,
}

/// Which topic could not be written to, and why.
struct Failure {
    topic: String,
    code: Option<Code>,
    why: String,
}

impl OnTheWay {
    fn goes(&self, bytes: usize) {
        let mut standing = self.standing.lock();
        standing.parcels += 1;
        standing.bytes += bytes;
    }

    fn arrives(&self, bytes: usize) {
        let mut standing = self.standing.lock();
        standing.parcels -= 1;
        standing.bytes -= bytes;
        drop(standing);
        self.changed.notify_waiters();
    }

    fn fails(&self, failure: Failure) {
        self.standing.lock().failure.get_or_insert(failure);
        self.changed.notify_waiters();
    }

    fn has_failed(&self) -> bool {
        self.standing.lock().failure.is_some()
    }

    /// Completes when everything that was handed over is in the log.
    pub(super) async fn settled(&self) -> Result<(), BusError> {
        self.until(|standing| standing.parcels == 0).await
    }

    async fn until(&self, is: impl Fn(&Standing) -> bool) -> Result<(), BusError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let changed = self.changed.notified();
            {
                let standing = self.standing.lock();
                if let Some(Failure { topic, code, why }) = &standing.failure {
                    return Err(told_code(&format!("could not write to topic {topic}"), *code, why));
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

/// The thread with the producer, which is made when it is first needed, and anew when it can write nothing more.
struct Worker {
    terms: Arc<KafkaTerms>,
    producer: Option<BaseProducer<Handed>>,
    /// The partitions for which there is something to send or to hear of.
    lines: HashMap<TopicPartition, Line>,
}

/// What goes to one partition, one load after another.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Sending>,
    /// How many records are with the producer.
    sent: Arc<AtomicUsize>,
}

/// A parcel, as far as it is sent.
struct Sending {
    parcel: Parcel,
    sent: usize,
    flight: Arc<Flight>,
}

/// What is still to be heard of a parcel.
struct Flight {
    way: Arc<OnTheWay>,
    topic: String,
    bytes: usize,
    /// How many of its records nobody has told of.
    left: AtomicUsize,
    /// How many records of its partition are with the producer.
    line: Arc<AtomicUsize>,
}

impl Worker {
    fn run(mut self, orders: &Receiver<Handing>) {
        let mut pauses = Pauses::default();
        loop {
            let heard = self.producer.as_ref().is_some_and(hear);
            self.go_on();
            let pause = if self.lines.is_empty() { IDLE } else { pauses.next(heard) };
            match orders.recv_timeout(pause) {
                Ok(handing) => {
                    self.add(handing);
                    orders.try_iter().for_each(|handing| self.add(handing));
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The bus is gone, and all who could wait for this.
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn add(&mut self, Handing { parcel, way }: Handing) {
        let line = self.lines.entry(parcel.to.clone()).or_default();
        let flight = Flight {
            way,
            topic: parcel.topic.clone(),
            bytes: parcel.batch.len_bytes(),
            left: AtomicUsize::new(parcel.batch.header().count as usize),
            line: Arc::clone(&line.sent),
        };
        line.waiting.push_back(Sending { parcel, sent: 0, flight: Arc::new(flight) });
    }

    /// Sends the next load to every partition whose last one is acknowledged.
    fn go_on(&mut self) {
        self.lines.retain(|_, line| !line.is_clear() || !line.waiting.is_empty());
        if self.lines.is_empty() {
            return;
        }
        if self.producer.as_ref().is_some_and(|it| it.client().fatal_error().is_some()) {
            // What it still has is told as undelivered first.
            if !self.lines.values().all(Line::is_clear) {
                return;
            }
            self.producer = None;
        }
        if self.producer.is_none() {
            match self.terms.ahead().create_with_context(Handed::default()) {
                Ok(made) => self.producer = Some(made),
                Err(error) => {
                    let all = self.lines.values_mut().flat_map(|line| line.waiting.drain(..));
                    all.for_each(|sending| sending.give_up(Some(&error)));
                }
            }
        }
        if let Some(producer) = &self.producer {
            self.lines.values_mut().filter(|line| line.is_clear()).for_each(|line| line.send(producer));
        }
    }
}

impl Line {
    fn is_clear(&self) -> bool {
        self.sent.load(Ordering::Relaxed) == 0
    }

    fn send(&mut self, producer: &BaseProducer<Handed>) {
        let mut load = Load::default();
        while let Some(mut first) = self.waiting.pop_front() {
            if first.flight.way.has_failed() {
                first.give_up(None);
                continue;
            }
            match first.send(producer, &mut load) {
                Ok(()) if load.is_full() => return self.waiting.push_front(first),
                Ok(()) => {}
                Err(error) => first.give_up(Some(&error)),
            }
        }
    }
}

impl Sending {
    /// Sends of it what goes into the load.
    fn send(&mut self, producer: &BaseProducer<Handed>, load: &mut Load) -> Result<(), KafkaError> {
        let deadline = Instant::now() + PATIENCE;
        for record in self.parcel.batch.records().map_err(unreadable)?.iter().skip(self.sent) {
            let record = record.map_err(unreadable)?;
            if !load.takes(&record) {
                break;
            }
            send(producer, &self.parcel, &record, Arc::clone(&self.flight), deadline)?;
            self.flight.line.fetch_add(1, Ordering::Relaxed);
            self.sent += 1;
        }
        Ok(())
    }

    /// Nothing more of it is sent.
    fn give_up(self, why: Option<&KafkaError>) {
        if let Some(error) = why {
            self.flight.fails(error);
        }
        let unsent = self.parcel.batch.header().count as usize - self.sent;
        self.flight.arrives(unsent);
    }
}

impl Flight {
    fn arrives(&self, records: usize) {
        if self.left.fetch_sub(records, Ordering::Relaxed) == records {
            self.way.arrives(self.bytes);
        }
    }

    fn fails(&self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        let why = code.map_or_else(|| error.to_string(), |code| code.to_string());
        self.way.fails(Failure { topic: self.topic.clone(), code, why });
    }
}

/// Hears what became of each record.
#[derive(Default)]
struct Handed {
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
    type DeliveryOpaque = Arc<Flight>;

    fn delivery(&self, result: &DeliveryResult<'_>, flight: Arc<Flight>) {
        if let Err((error, _)) = result {
            flight.fails(error);
        }
        flight.line.fetch_sub(1, Ordering::Relaxed);
        flight.arrives(1);
    }
}
