//! A lane: one transactional producer on a thread of its own, which carries the commits of its tasks.
//!
//! Owns the producer and who holds each of its tasks; notes how far each task's checkpoint reaches. Always: a commit is in one
//! transaction, whole, and answered once that has ended; what waits meanwhile rides on the next one together; orders are
//! taken as they come, so that a claim stands behind what the older holder handed over. A producer stands once its transactional id
//! has been taken over; where that is done again, whatever the reason, another process may have written in between: nobody holds a
//! task any more then, and each is restored from its checkpoint. Called by [`super::KafkaBus`] and the group's thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer};
use tokio::sync::{oneshot, watch};

use super::error::{said, told, told_code};
use super::sending::{Parcel, Pauses, STEP};
use super::settings::KafkaTerms;
use super::shares::Shares;
use super::transaction::{Deliveries, Ends, Landed, Rider, abort, end, landed, send_all, settle};
use crate::bus::{BusError, TaskId};
use crate::record::{Offset, TopicPartition};

/// How many lanes an application has at most, and so among how many processes its tasks are shared. Which lane a task takes
/// follows from it: it never changes.
pub(super) const MOST: i32 = 16;
/// How long the right to the catalogue counts as taken, while nobody else has taken it.
const SITTING: Duration = Duration::from_secs(300);
/// A lane's id that could not be taken over is tried again after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a transaction is asked about before its outcome counts as not known.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Commits ride together up to about this much.
const TOGETHER_BYTES: usize = 32 << 20;

/// Where a lane's answer goes.
type Reply<T> = oneshot::Sender<Result<T, BusError>>;
/// The offset behind the last record that this process has committed to each checkpoint.
pub(super) type Checkpoints = Arc<Mutex<HashMap<TopicPartition, Offset>>>;

/// Which lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Which {
    /// That of the tasks of an index, held by one process after another.
    Shared(i32),
    /// This process's, for what belongs to no task.
    Own,
    /// That of changes of the catalogue, which each process takes for one change.
    Catalogue,
}

impl Which {
    /// The lane of a task: tasks that read partitions of the same number run side by side, so that each is decoded once.
    pub(super) const fn of_task(index: i32) -> i32 {
        index.rem_euclid(MOST)
    }

    fn transactional_id(self, terms: &KafkaTerms) -> String {
        match self {
            Self::Shared(number) => format!("{}-{number}", terms.application_id),
            Self::Own => format!("{}-{}", terms.application_id, terms.process),
            Self::Catalogue => format!("{}-catalog", terms.application_id),
        }
    }
}

enum Order {
    /// Take the id over, which ends what whoever had it has begun. The taking has a number; 0 where the lane is not shared.
    Take(u64),
    /// What was taken over up to this number is another process's from now on.
    Release(u64),
    /// From now on only this holder's commits are taken.
    Claim(TaskId, u64, Reply<()>),
    /// Write.
    Carry(Rider),
}

/// The lanes of a process, each begun when it is first needed.
pub(super) struct Lanes {
    pub(super) terms: Arc<KafkaTerms>,
    pub(super) shares: Arc<Shares>,
    /// Where it is told that another process has taken over for good.
    supersede: Arc<watch::Sender<Option<String>>>,
    pub(super) checkpoints: Checkpoints,
    all: Mutex<HashMap<Which, Lane>>,
}

impl Lanes {
    pub(super) fn new(terms: Arc<KafkaTerms>, shares: Arc<Shares>, supersede: Arc<watch::Sender<Option<String>>>) -> Self {
        Self { terms, shares, supersede, checkpoints: Checkpoints::default(), all: Mutex::default() }
    }

    /// A newer process of this one's name has come: this one writes nothing more.
    pub(super) fn give_way(&self) {
        let (id, process) = (&self.terms.application_id, &self.terms.process);
        self.close(format!(
            "another process with the same name \"{process}\" runs under application id \"{id}\" since, and has taken over: this one \
             writes nothing any more. Processes that are to share the work need data directories, or names (kafka.process), of their own"
        ));
    }

    /// Nothing is written any more, for this reason.
    pub(super) fn close(&self, reason: String) {
        self.supersede.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(reason);
            first
        });
    }

    /// Whether this process writes nothing any more.
    pub(super) fn are_superseded(&self) -> bool {
        self.supersede.borrow().is_some()
    }

    /// The way to a lane.
    pub(super) fn get(&self, which: Which) -> Result<Lane, BusError> {
        let mut all = self.all.lock();
        if let Some(lane) = all.get(&which) {
            return Ok(lane.clone());
        }
        let (orders, taken) = channel();
        let worker = Worker {
            which,
            terms: Arc::clone(&self.terms),
            shares: Arc::clone(&self.shares),
            supersede: Arc::clone(&self.supersede),
            producer: None,
            stood: None,
            turn: 0,
            holders: HashMap::new(),
            checkpoints: Arc::clone(&self.checkpoints),
            next_mark: 0,
        };
        let name = match which {
            Which::Shared(number) => format!("vitalsql-kafka-{number}"),
            Which::Own => "vitalsql-kafka".to_owned(),
            Which::Catalogue => "vitalsql-cat".to_owned(),
        };
        let thread = std::thread::Builder::new().name(name);
        thread.spawn(move || worker.run(&taken)).map_err(|e| BusError::Closed(format!("could not start a thread: {e}")))?;
        let lane = Lane { orders };
        all.insert(which, lane.clone());
        Ok(lane)
    }

    /// Has a lane that was assigned take its id over.
    pub(super) fn take_over(&self, number: i32, turn: u64) {
        if let Err(error) = self.take(Which::Shared(number), turn) {
            tracing::error!(lane = number, %error, "could not begin a lane");
            self.shares.lose(number, turn, AGAIN);
        }
    }

    /// Has this process's own lane take its id over: what an older self of it has begun is ended then.
    pub(super) fn take_own(&self) -> Result<(), BusError> {
        self.take(Which::Own, 0)
    }

    fn take(&self, which: Which, turn: u64) -> Result<(), BusError> {
        // A thread ends with its last way in, which is held here.
        self.get(which).map(|lane| drop(lane.orders.send(Order::Take(turn))))
    }

    /// Has a lane that was revoked write nothing more by what it has taken over up to `turn`.
    pub(super) fn release(&self, number: i32, turn: u64) {
        if let Some(lane) = self.all.lock().get(&Which::Shared(number)) {
            drop(lane.orders.send(Order::Release(turn)));
        }
    }
}

/// The way to a lane. Its thread ends when all ways to it are gone.
#[derive(Clone)]
pub(super) struct Lane {
    orders: Sender<Order>,
}

impl Lane {
    async fn order<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, BusError> {
        let (reply, answer) = oneshot::channel();
        let gone = || BusError::Closed("the connection to the Kafka cluster is closed".to_owned());
        self.orders.send(order(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
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
    /// Another process has taken the id over. The producer is gone.
    Fenced,
}

/// What runs on the lane's thread.
struct Worker {
    which: Which,
    terms: Arc<KafkaTerms>,
    shares: Arc<Shares>,
    supersede: Arc<watch::Sender<Option<String>>>,
    producer: Option<BaseProducer<Deliveries>>,
    /// When it took the id over.
    stood: Option<Instant>,
    /// By which taking a shared lane is held.
    turn: u64,
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
                Order::Take(turn) => self.take(turn),
                Order::Release(upto) if self.turn <= upto => self.fall(),
                // It has come back since.
                Order::Release(_) => {}
                Order::Claim(task, number, reply) => {
                    // Nobody waits where the opening was given up.
                    let _ = reply.send(self.claim(task, number));
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

    /// Takes the id of an assigned lane over.
    fn take(&mut self, turn: u64) {
        let Which::Shared(number) = self.which else {
            if let Err(error) = self.stand() {
                // It is tried again with the first write.
                tracing::debug!(%error, "could not take a transactional id over");
            }
            return;
        };
        if !self.shares.wants(number, turn) {
            return;
        }
        self.fall();
        self.turn = turn;
        match self.stand() {
            // It was revoked meanwhile.
            Ok(()) if !self.shares.hold(number, turn) => self.fall(),
            Ok(()) => {}
            Err(error) => {
                self.shares.note_trouble(error.to_string());
                self.shares.lose(number, turn, AGAIN);
            }
        }
    }

    fn claim(&mut self, task: TaskId, number: u64) -> Result<(), BusError> {
        self.not_superseded()?;
        if self.which == Which::Catalogue {
            // Where it is still ours nobody else has written since; where it is not, the write is refused and the next claim takes it. A producer
            // that has not been used for long may be unknown to the cluster by then.
            if self.stood.is_none_or(|since| since.elapsed() > SITTING) {
                self.fall();
            }
            self.stand()?;
        }
        let holder = self.holders.entry(task.clone()).or_default();
        if self.producer.is_none() || *holder > number {
            return Err(BusError::Fenced(task));
        }
        *holder = number;
        Ok(())
    }

    /// Nobody holds a task, and nothing can be written.
    fn fall(&mut self) {
        self.producer = None;
        self.holders.clear();
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
                    let landed = alone.map(|mut landed| landed.pop().unwrap_or_default()).map_err(|failure| failure.told(&rider));
                    self.answer(rider, landed);
                }
            }
            Err(failure) => {
                for rider in aboard {
                    let error = failure.told(&rider);
                    self.answer(rider, Err(error));
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

    fn not_superseded(&self) -> Result<(), BusError> {
        self.supersede.borrow().clone().map_or(Ok(()), |reason| Err(BusError::Closed(reason)))
    }

    /// The producer stands: nobody else can write under its id, and no transaction of it is open.
    fn stand(&mut self) -> Result<(), BusError> {
        self.not_superseded()?;
        if self.producer.is_some() {
            return Ok(());
        }
        let id = self.which.transactional_id(&self.terms);
        let made = self.terms.transactional(&id).create_with_context::<_, BaseProducer<Deliveries>>(Deliveries::default());
        let producer = made.map_err(|e| told("could not make a Kafka client", &e))?;
        // A client that knows no broker yet when it looks for its coordinator looks again half a second later: it gets to know one first. Where it
        // does not, the next step says why.
        drop(producer.client().fetch_metadata(Some(&format!("{}.lanes", self.terms.application_id)), STEP));
        let (begun, mut pauses) = (Instant::now(), Pauses::default());
        loop {
            match producer.init_transactions(STEP) {
                Ok(()) => break,
                Err(KafkaError::Transaction(error)) if error.is_retriable() && begun.elapsed() < PATIENCE => pauses.listen(&producer),
                Err(error) => return Err(told(&format!("could not take over transactional id {id}"), &error)),
            }
        }
        tracing::debug!(id, ms = begun.elapsed().as_millis() as u64, "took a transactional id over");
        if let Which::Shared(number) = self.which {
            // The markers of everything before are written by now, and a topic may be another one of the same name.
            self.checkpoints.lock().retain(|of, _| Which::of_task(of.partition.0) != number);
        }
        self.producer = Some(producer);
        self.stood = Some(Instant::now());
        Ok(())
    }

    /// One transaction with everything of these riders, from its beginning to its end.
    fn transaction(&mut self, riders: &[Rider]) -> Result<Vec<Landed>, Failure> {
        self.not_superseded().map_err(Failure::Gone)?;
        if self.which == Which::Own {
            self.stand().map_err(Failure::Gone)?;
        }
        let Some(producer) = self.producer.as_ref() else { return Err(Failure::Fenced) };
        producer.context().clear();
        let deadline = Instant::now() + PATIENCE;
        let written = producer.begin_transaction().and_then(|()| send_all(producer, riders, &mut self.next_mark, deadline));
        let ended = written.and_then(|marks| {
            settle(producer, deadline)?;
            end(producer, deadline).map(|()| marks)
        });
        match ended {
            Ok(marks) => {
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
            return self.fatal(code, &why);
        }
        let abortable = match error {
            KafkaError::Transaction(error) => error.txn_requires_abort(),
            KafkaError::MessageProduction(_) => true,
            _ => false,
        };
        if !abortable {
            // The next producer of this id ends it, and asks the coordinator how.
            let why = format!("could not commit: {}. Whether it counts is read from the checkpoint", said(error));
            return self.gone(BusError::Retriable(why));
        }
        if let Err(error) = abort(&producer, deadline) {
            if let Some((code, why)) = producer.client().fatal_error() {
                return self.fatal(code, &why);
            }
            return self.gone(told("could not abort a transaction", &error));
        }
        self.producer = Some(producer);
        Failure::Aborted(match culprit {
            Some((topic, code)) => told_code(&format!("could not write to topic {topic}"), Some(code), &code.to_string()),
            None => told("could not commit", error),
        })
    }

    /// The producer can never write again. Was it another process, or did the coordinator lose patience with us? The one cannot be told
    /// from the other. If it was another one, the group will tell us that the lane is its own; until then we leave it alone.
    fn fatal(&mut self, code: Code, why: &str) -> Failure {
        if !matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) {
            return self.gone(told_code("could not commit", Some(code), why));
        }
        if self.which == Which::Catalogue {
            tracing::debug!(why, "another process has taken the right to the catalogue");
        } else {
            tracing::warn!(lane = ?self.which, why, "another process has taken a lane over, or the coordinator did not wait for this one");
        }
        self.fall();
        if let Which::Shared(number) = self.which {
            self.shares.lose(number, self.turn, self.terms.session_timeout);
        }
        Failure::Fenced
    }

    /// The producer is given up; a new one takes over from it.
    fn gone(&mut self, error: BusError) -> Failure {
        self.fall();
        if let Which::Shared(number) = self.which {
            self.shares.lose(number, self.turn, Duration::ZERO);
        }
        Failure::Gone(error)
    }
}

impl Failure {
    /// What a rider hears of it.
    fn told(&self, rider: &Rider) -> BusError {
        match (self, &rider.who) {
            (Self::Fenced, Some((task, _))) => BusError::Fenced(task.clone()),
            (Self::Fenced, None) => {
                BusError::Retriable("could not write in time, and the coordinator has ended the transaction".to_owned())
            }
            (Self::Aborted(error) | Self::Gone(error), _) => again(error),
        }
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
