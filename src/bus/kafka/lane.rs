//! A lane: one transactional producer on a thread of its own, which carries the commits of its tasks.
//!
//! Owns the producer and who holds each of its tasks; notes how far each task's checkpoint reaches. Always: a commit is in one
//! transaction, whole, and answered once that has ended; what waits meanwhile rides on the next one together; orders are
//! taken as they come, so that a claim stands behind what the older holder handed over. A commit whose outcome is not known ends
//! the producer: whoever comes next begins behind the end of that transaction. Called by [`super::KafkaBus`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer};
use tokio::sync::{oneshot, watch};

use super::cluster::Claim;
use super::error::{said, told, told_code};
use super::settings::KafkaTerms;
use super::transaction::{Deliveries, Ends, Landed, Parcel, Rider, STEP, abort, end, landed, send_all, settle};
use crate::bus::{BusError, TaskId};
use crate::record::{Offset, TopicPartition};

/// How long a transaction is asked about before its outcome counts as not known.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Commits ride together up to about this much.
const TOGETHER_BYTES: usize = 32 << 20;

/// Where a lane's answer goes.
type Reply<T> = oneshot::Sender<Result<T, BusError>>;
/// The offset behind the last record that this process has committed to each checkpoint.
pub(super) type Checkpoints = Arc<Mutex<HashMap<TopicPartition, Offset>>>;

enum Order {
    /// Answer once the producer stands.
    Ready(Reply<()>),
    /// From now on only this holder's commits are taken.
    Claim(TaskId, u64, Reply<()>),
    /// Write.
    Carry(Rider),
}

/// The way to a lane. Its thread ends when all ways to it are gone.
#[derive(Clone)]
pub(super) struct Lane {
    orders: Sender<Order>,
}

impl Lane {
    /// Starts the lane's thread, which begins by taking over its transactional id.
    pub(super) fn start(
        number: usize,
        terms: Arc<KafkaTerms>,
        claim: Arc<Claim>,
        supersede: Arc<watch::Sender<Option<String>>>,
        checkpoints: Checkpoints,
    ) -> Result<Self, BusError> {
        let (orders, taken) = channel();
        let worker =
            Worker { number, terms, claim, supersede, producer: None, stood: false, holders: HashMap::new(), checkpoints, next_mark: 0 };
        let thread = std::thread::Builder::new().name(format!("vitalsql-kafka-{number}"));
        thread.spawn(move || worker.run(&taken)).map_err(|e| BusError::Closed(format!("could not start a thread: {e}")))?;
        Ok(Self { orders })
    }

    async fn order<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, BusError> {
        let (reply, answer) = oneshot::channel();
        let gone = || BusError::Closed("the connection to the Kafka cluster is closed".to_owned());
        self.orders.send(order(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Completes once nobody else can write under the lane's transactional id.
    pub(super) async fn ready(&self) -> Result<(), BusError> {
        self.order(Order::Ready).await
    }

    /// Hands a task to a new holder, behind everything that the older one has handed over.
    pub(super) async fn claim(&self, task: &TaskId, number: u64) -> Result<(), BusError> {
        self.order(|reply| Order::Claim(task.clone(), number, reply)).await
    }

    /// Writes a commit. Answers the offset of the first checkpoint record.
    pub(super) async fn commit(
        &self,
        task: &TaskId,
        number: u64,
        outputs: Vec<Parcel>,
        checkpoint: Option<Parcel>,
    ) -> Result<Option<Offset>, BusError> {
        let who = Some((task.clone(), number));
        let landed = self.order(|done| Order::Carry(Rider { who, outputs, checkpoint, done })).await?;
        Ok(landed.checkpoint.map(|(first, _)| first))
    }

    /// Writes records that belong to no task. Answers the offsets behind them.
    pub(super) async fn append(&self, outputs: Vec<Parcel>) -> Result<Ends, BusError> {
        let landed = self.order(|done| Order::Carry(Rider { who: None, outputs, checkpoint: None, done })).await?;
        Ok(landed.ends)
    }
}

/// What a transaction came to that did not come to its end.
enum Failure {
    /// Nothing of it counts, and it may be the fault of one of several riders.
    Aborted(BusError),
    /// It may count or not; or it cannot be begun. The producer is gone.
    Gone(BusError),
}

impl Failure {
    fn into_error(self) -> BusError {
        match self {
            Self::Aborted(error) | Self::Gone(error) => error,
        }
    }
}

/// What runs on the lane's thread.
struct Worker {
    number: usize,
    terms: Arc<KafkaTerms>,
    claim: Arc<Claim>,
    /// Where it is told that another process has taken over.
    supersede: Arc<watch::Sender<Option<String>>>,
    producer: Option<BaseProducer<Deliveries>>,
    /// Whether it has had a producer before.
    stood: bool,
    holders: HashMap<TaskId, u64>,
    checkpoints: Checkpoints,
    /// The number of the next record whose offset is wanted.
    next_mark: usize,
}

impl Worker {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut next = None;
        while let Some(order) = next.take().or_else(|| orders.recv().ok()) {
            match order {
                Order::Ready(reply) => {
                    // Nobody waits where the opening was given up.
                    let _ = reply.send(self.stand().map_err(Failure::into_error));
                }
                Order::Claim(task, number, reply) => {
                    // A transaction whose outcome is not known is ended before the task is handed on.
                    let stands = self.stand().map_err(Failure::into_error);
                    let claimed = stands.and_then(|()| {
                        let holder = self.holders.entry(task.clone()).or_default();
                        if *holder > number {
                            return Err(BusError::Fenced(task.clone()));
                        }
                        *holder = number;
                        Ok(())
                    });
                    // Nobody waits where the opening was given up.
                    let _ = reply.send(claimed);
                }
                Order::Carry(first) => {
                    let mut bytes = first.bytes();
                    let mut riders = vec![first];
                    while bytes < TOGETHER_BYTES
                        && let Ok(order) = orders.try_recv()
                    {
                        match order {
                            Order::Carry(rider) => {
                                bytes += rider.bytes();
                                riders.push(rider);
                            }
                            other => {
                                next = Some(other);
                                break;
                            }
                        }
                    }
                    self.carry(riders);
                }
            }
        }
    }

    /// Writes commits together; where that fails through one of them, each alone.
    fn carry(&mut self, riders: Vec<Rider>) {
        let mut aboard = Vec::with_capacity(riders.len());
        for rider in riders {
            match &rider.who {
                Some((task, number)) if self.holders.get(task) != Some(number) => {
                    let _ = rider.done.send(Err(BusError::Fenced(task.clone())));
                }
                _ if rider.is_empty() => {
                    let _ = rider.done.send(Ok(Landed::default()));
                }
                _ => aboard.push(rider),
            }
        }
        if aboard.is_empty() {
            return;
        }
        match self.transaction(&aboard) {
            Ok(landed) => {
                for (rider, landed) in aboard.into_iter().zip(landed) {
                    self.answer(rider, Ok(landed));
                }
            }
            Err(Failure::Aborted(_)) if aboard.len() > 1 => {
                for rider in aboard {
                    let alone = self.transaction(std::slice::from_ref(&rider));
                    let landed = alone.map(|mut landed| landed.pop().unwrap_or_default()).map_err(Failure::into_error);
                    self.answer(rider, landed);
                }
            }
            Err(failure) => {
                let error = failure.into_error();
                for rider in aboard {
                    self.answer(rider, Err(again(&error)));
                }
            }
        }
    }

    fn answer(&self, rider: Rider, landed: Result<Landed, BusError>) {
        if let (Ok(landed), Some(parcel)) = (&landed, &rider.checkpoint)
            && let Some((_, end)) = landed.checkpoint
        {
            self.checkpoints.lock().insert(parcel.to.clone(), end);
        }
        // A task that has been ended meanwhile does not hear it; its commit stands.
        let _ = rider.done.send(landed);
    }

    /// The producer stands: nobody else can write under its id, and no transaction of it is open.
    fn stand(&mut self) -> Result<(), Failure> {
        if let Some(reason) = self.supersede.borrow().clone() {
            return Err(Failure::Gone(BusError::Closed(reason)));
        }
        if self.producer.is_some() {
            return Ok(());
        }
        // To stand again is to take over again: not from whoever has opened the application since.
        if self.stood {
            self.still_ours().map_err(Failure::Gone)?;
        }
        let config = self.terms.transactional(self.number);
        let made = config.create_with_context::<_, BaseProducer<Deliveries>>(Deliveries::default());
        let producer = made.map_err(|e| Failure::Gone(told("could not make a Kafka client", &e)))?;
        let begun = Instant::now();
        loop {
            match producer.init_transactions(STEP) {
                Ok(()) => break,
                Err(KafkaError::Transaction(error)) if error.is_retriable() && begun.elapsed() < PATIENCE => producer.poll(Duration::ZERO),
                Err(error) => {
                    let what = format!("could not take over transactional id {}-{}", self.terms.application_id, self.number);
                    return Err(Failure::Gone(told(&what, &error)));
                }
            }
        }
        self.producer = Some(producer);
        self.stood = true;
        Ok(())
    }

    /// One transaction with everything of these riders, from its beginning to its end.
    fn transaction(&mut self, riders: &[Rider]) -> Result<Vec<Landed>, Failure> {
        self.stand()?;
        let mut marks = Vec::with_capacity(riders.len());
        let producer = self.producer.as_ref().expect("it stands");
        producer.context().clear();
        let deadline = Instant::now() + PATIENCE;
        let mut written = producer.begin_transaction();
        for rider in riders {
            if written.is_err() {
                break;
            }
            let first = self.next_mark + 1;
            written = send_all(producer, rider, &mut self.next_mark, deadline);
            marks.push(first);
        }
        let ended = written.and_then(|()| {
            settle(producer, deadline)?;
            end(producer, deadline)
        });
        match ended {
            Ok(()) => {
                let offsets = producer.context();
                Ok(riders.iter().zip(marks).map(|(rider, mark)| landed(rider, mark, offsets)).collect())
            }
            Err(error) => Err(self.failed(&error, deadline)),
        }
    }

    /// What to do about a transaction that has not come to its end.
    fn failed(&mut self, error: &KafkaError, deadline: Instant) -> Failure {
        let Some(producer) = self.producer.take() else {
            return Failure::Gone(told("could not commit", error));
        };
        let culprit = producer.context().first_failure();
        if let Some((code, why)) = producer.client().fatal_error() {
            drop(producer);
            return Failure::Gone(self.fatal(code, &why));
        }
        let abortable = match error {
            KafkaError::Transaction(error) => error.txn_requires_abort(),
            KafkaError::MessageProduction(_) => true,
            _ => false,
        };
        if !abortable {
            // The next producer of this id ends it, and asks the coordinator how.
            drop(producer);
            let why = format!("could not commit: {}. Whether it counts is read from the checkpoint", said(error));
            return Failure::Gone(BusError::Retriable(why));
        }
        if let Err(error) = abort(&producer, deadline) {
            if let Some((code, why)) = producer.client().fatal_error() {
                drop(producer);
                return Failure::Gone(self.fatal(code, &why));
            }
            tracing::warn!(lane = self.number, reason = %said(&error), "could not abort a transaction; a new producer will end it");
            drop(producer);
        } else {
            self.producer = Some(producer);
        }
        Failure::Aborted(match culprit {
            Some((topic, code)) => told_code(&format!("could not write to topic {topic}"), Some(code), &code.to_string()),
            None => told("could not commit", error),
        })
    }

    /// The producer can never write again. Was it another process, or did the coordinator lose patience with us?
    fn fatal(&self, code: Code, why: &str) -> BusError {
        if !matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) {
            return told_code("could not commit", Some(code), why);
        }
        match self.still_ours() {
            Ok(()) => BusError::Retriable(format!("could not commit in time, and the coordinator has ended the transaction: {why}")),
            Err(error) => error,
        }
    }

    /// Looks whether another process has taken over; then this one never writes again.
    fn still_ours(&self) -> Result<(), BusError> {
        if !self.claim.is_anothers()? {
            return Ok(());
        }
        let reason = self.claim.lost();
        self.supersede.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert_with(|| reason.clone());
            first
        });
        Err(BusError::Closed(reason))
    }
}

/// The same error for another rider.
fn again(error: &BusError) -> BusError {
    match error {
        BusError::Retriable(why) => BusError::Retriable(why.clone()),
        BusError::Invalid(why) => BusError::Invalid(why.clone()),
        BusError::Closed(why) => BusError::Closed(why.clone()),
        other => BusError::Closed(other.to_string()),
    }
}
