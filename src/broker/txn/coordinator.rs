//! The thin shell around the transactions: [`Transactions`]. It holds the locks, stores what the machine decides, and
//! calls it when a transaction's time is over.
//!
//! Always: of one transactional id one thing at a time is done, to its end, also where the caller goes away; what is
//! answered is durable; a batch of a transaction is handed to the log while the transaction is known to be open
//! (`Transactions::verified`), so a marker has nothing of its transaction behind it. Locks are taken in this order: an
//! id's, its transaction's, the groups', the journals', the partitions'. Transactions time out by the time that
//! passes ([`Clock::steady`]), not by the node's clock, which a demonstration may run faster and which may be set by
//! hours. Called by `Broker` and `server`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;

use super::machine::{Ending, Identity, Init, Transaction, TxnState};
use super::stored;
use crate::broker::alarms::Alarms;
use crate::broker::catalogue::Catalogue;
use crate::broker::coordinator::Coordinator;
use crate::broker::error::BrokerError;
use crate::broker::group::{GroupId, TxnCommitRequest};
use crate::broker::journal::{Journal, size};
use crate::broker::producer_ids::ProducerIds;
use crate::log::{Log, LogError, PartitionKey};
use crate::record::{PartitionId, TopicId, TopicName, TopicPartition};
use crate::time::{Clock, Timestamp};
use crate::wire::error_code;

/// The topic whose partition stands in a transaction for the offsets it commits.
const OFFSETS: &str = "__consumer_offsets";

/// What an operator may set about transactions. The defaults are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnConfig {
    /// The longest time a producer may ask for (`transaction.max.timeout.ms`).
    pub max_timeout_ms: i32,
    /// How long an id that nobody uses is remembered (`transactional.id.expiration.ms`).
    pub expiration_ms: i64,
}

impl Default for TxnConfig {
    fn default() -> Self {
        Self { max_timeout_ms: 15 * 60 * 1_000, expiration_ms: 7 * 24 * 60 * 60 * 1_000 }
    }
}

/// One transactional id, for whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTransaction {
    /// The id.
    pub id: String,
    /// What it is doing.
    pub transaction: Transaction,
}

/// All transactional ids of the node.
pub struct Transactions {
    pub(super) config: TxnConfig,
    pub(super) clock: Clock,
    /// By which transactions time out.
    steady: Clock,
    pub(super) log: Arc<Log>,
    pub(super) journal: Arc<Journal>,
    pub(super) aborted: Arc<Journal>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) groups: Arc<Coordinator>,
    producer_ids: Arc<ProducerIds>,
    pub(super) cells: Mutex<BTreeMap<String, Arc<Cell>>>,
    /// When which id wants to be called, the earliest first.
    pub(super) alarms: Alarms<String>,
}

/// One transactional id.
pub(super) struct Cell {
    pub(super) id: String,
    /// Held while something is done, until it is durable.
    pub(super) busy: tokio::sync::Mutex<()>,
    pub(super) inner: Mutex<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    /// What it is; nothing where it was never stored, or is no longer.
    pub(super) transaction: Option<Transaction>,
    pub(super) alarm: Option<Timestamp>,
    /// It is no longer in the map: look it up again.
    pub(super) dropped: bool,
}

/// What the node's other parts lend to the transactions.
pub(in crate::broker) struct Parts {
    pub(in crate::broker) log: Arc<Log>,
    pub(in crate::broker) catalogue: Arc<Catalogue>,
    pub(in crate::broker) groups: Arc<Coordinator>,
    pub(in crate::broker) producer_ids: Arc<ProducerIds>,
    /// The node's clock, which stamps records.
    pub(in crate::broker) clock: Clock,
}

fn storage(what: &'static str) -> impl Fn(LogError) -> i16 {
    move |error| {
        tracing::warn!(%error, "{what} could not be stored");
        error_code::COORDINATOR_NOT_AVAILABLE
    }
}

/// Lets something be done to its end even where whoever asked goes away.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = Result<T, i16>> + Send + 'static) -> Result<T, i16> {
    // The task is gone only when the node stops.
    tokio::spawn(work).await.unwrap_or(Err(error_code::COORDINATOR_NOT_AVAILABLE))
}

/// Where a transaction's offsets stand among its partitions.
#[must_use]
pub fn place_of_offsets() -> TopicPartition {
    TopicPartition::new(TopicName::new(OFFSETS).expect("internal names are valid"), PartitionId(0))
}

impl Transactions {
    /// Reads all transactional ids back, and tells the partitions what was aborted and what is open. Blocks.
    pub(in crate::broker) fn open(parts: Parts, ids: [TopicId; 2], config: TxnConfig) -> Result<Self, BrokerError> {
        let mut transactions: BTreeMap<String, Transaction> = BTreeMap::new();
        let mut unreadable = 0_u64;
        let journal = Journal::open(&parts.log, "__transaction_state", ids[0], parts.clock, |_, key, value| {
            let Some(id) = key.and_then(stored::read_key) else {
                unreadable += 1;
                return;
            };
            match value.map(stored::read_value) {
                None => drop(transactions.remove(&id)),
                Some(Some(transaction)) => drop(transactions.insert(id, transaction)),
                Some(None) => unreadable += 1,
            }
        })?;
        if unreadable > 0 {
            // Opening without them would leave transactions open that nobody can end.
            let why = format!("{unreadable} records are of a form this version does not know");
            return Err(BrokerError::Internal { topic: "__transaction_state", why });
        }
        let mut all_aborted = BTreeMap::new();
        let mut doubtful = 0_u64;
        let aborted = Journal::open(&parts.log, "__aborted_transactions", ids[1], parts.clock, |_, key, value| {
            let Some(key) = key else { return };
            match value.map(|value| stored::read_aborted(key, value)) {
                None => drop(all_aborted.remove(key)),
                Some(Some(one)) => drop(all_aborted.insert(key.to_vec(), one)),
                Some(None) => doubtful += 1,
            }
        })?;
        let me = Self {
            config,
            clock: parts.clock,
            steady: parts.clock.steady(),
            log: parts.log,
            journal,
            aborted,
            catalogue: parts.catalogue,
            groups: parts.groups,
            producer_ids: parts.producer_ids,
            cells: Mutex::default(),
            alarms: Alarms::default(),
        };
        for (of, one) in all_aborted.into_values() {
            if let Some(partition) = me.partition_by_key(of) {
                partition.stability().restore_aborted(one);
            }
        }
        if doubtful > 0 {
            tracing::warn!(records = doubtful, "the index of aborted transactions cannot be read and is made again from the log");
            me.catalogue.topics().iter().flat_map(|t| t.partitions().to_vec()).for_each(|partition| partition.doubt());
        }
        for (id, transaction) in transactions {
            for place in &transaction.partitions {
                if let Some(partition) = me.partition(place) {
                    partition.expect_open();
                }
            }
            let cell = Arc::new(Cell::new(id.clone(), Some(transaction)));
            me.arrange(&cell, &mut cell.inner.lock());
            me.cells.lock().insert(id, cell);
        }
        Ok(me)
    }

    pub(in crate::broker) fn journals(&self) -> [&Arc<Journal>; 2] {
        [&self.journal, &self.aborted]
    }

    pub(super) fn partition(&self, of: &TopicPartition) -> Option<Arc<crate::broker::topic::Partition>> {
        self.catalogue.topic(of.topic.as_str())?.partition(of.partition)
    }

    fn partition_by_key(&self, of: PartitionKey) -> Option<Arc<crate::broker::topic::Partition>> {
        self.catalogue.topic_by_id(of.topic)?.partition(of.partition)
    }

    /// The time by which transactions time out.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.steady.now()
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Cell>> {
        self.cells.lock().get(id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Cell>> {
        self.cells.lock().values().cloned().collect()
    }

    /// Arranges the id's next call.
    pub(super) fn arrange(&self, cell: &Cell, inner: &mut Inner) {
        if let Some(next) = inner.transaction.as_ref().and_then(Transaction::deadline) {
            // The time itself still belongs to the transaction.
            self.call_at(cell, inner, next.plus(1));
        }
    }

    pub(super) fn call_at(&self, cell: &Cell, inner: &mut Inner, next: Timestamp) {
        self.alarms.set(&cell.id, &mut inner.alarm, next);
    }

    /// A producer announces itself under a transactional id; completes with who it is from now on. `believed` is who
    /// it was, where it says so.
    pub async fn init(self: &Arc<Self>, id: &str, timeout_ms: i32, believed: Option<Identity>) -> Result<Identity, i16> {
        if id.is_empty() {
            return Err(error_code::INVALID_REQUEST);
        }
        if timeout_ms <= 0 || timeout_ms > self.config.max_timeout_ms {
            return Err(error_code::INVALID_TRANSACTION_TIMEOUT);
        }
        let (me, id) = (Arc::clone(self), id.to_owned());
        to_the_end(async move { me.init_to_the_end(&id, timeout_ms, believed).await }).await
    }

    async fn init_to_the_end(&self, id: &str, timeout_ms: i32, believed: Option<Identity>) -> Result<Identity, i16> {
        loop {
            let cell = Arc::clone(self.cells.lock().entry(id.to_owned()).or_insert_with(|| Arc::new(Cell::new(id.to_owned(), None))));
            let _one = cell.busy.lock().await;
            if cell.inner.lock().dropped {
                continue;
            }
            let result = self.init_in(&cell, timeout_ms, believed).await;
            let mut inner = cell.inner.lock();
            if inner.transaction.is_none() {
                // Nothing came of it.
                inner.dropped = true;
                self.cells.lock().remove(id);
            }
            return result;
        }
    }

    async fn init_in(&self, cell: &Cell, timeout_ms: i32, believed: Option<Identity>) -> Result<Identity, i16> {
        let stored = cell.inner.lock().transaction.clone();
        let current = match stored {
            Some(transaction) => transaction,
            None => Transaction::new(self.fresh_id().await?, timeout_ms, self.now()),
        };
        let mut fresh = None;
        loop {
            match current.init(self.now(), timeout_ms, believed, fresh)? {
                Init::NeedsId => fresh = Some(self.fresh_id().await?),
                Init::Take(after) => {
                    let producer = after.producer;
                    self.store(cell, after).await?;
                    return Ok(producer);
                }
                Init::Fence(ending) => {
                    self.conclude(cell, ending).await?;
                    return Err(error_code::CONCURRENT_TRANSACTIONS);
                }
            }
        }
    }

    async fn fresh_id(&self) -> Result<i64, i16> {
        self.producer_ids.next().await.map_err(|error| {
            tracing::warn!(%error, "could not give a producer its identity");
            error_code::COORDINATOR_NOT_AVAILABLE
        })
    }

    /// Stores what an id is from now on.
    async fn store(&self, cell: &Cell, after: Transaction) -> Result<(), i16> {
        let entries = [(stored::key(&cell.id), Some(stored::value(&after)))];
        let permit = self.journal.room(size(&entries)).await;
        let submitted = {
            let mut inner = cell.inner.lock();
            let (_, submitted) = self.journal.submit(&entries, permit).map_err(storage("a transaction"))?;
            inner.transaction = Some(after);
            self.arrange(cell, &mut inner);
            submitted
        };
        submitted.await.map_err(storage("a transaction"))
    }

    /// Does something with an id there is, one thing at a time.
    async fn within<T, F>(
        self: &Arc<Self>,
        id: &str,
        work: impl FnOnce(Arc<Self>, Arc<Cell>, Transaction) -> F + Send + 'static,
    ) -> Result<T, i16>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, i16>> + Send,
    {
        if id.is_empty() {
            return Err(error_code::INVALID_REQUEST);
        }
        let cell = self.find(id).ok_or(error_code::INVALID_PRODUCER_ID_MAPPING)?;
        let me = Arc::clone(self);
        to_the_end(async move {
            let _one = cell.busy.lock().await;
            let transaction = cell.inner.lock().transaction.clone().ok_or(error_code::INVALID_PRODUCER_ID_MAPPING)?;
            work(me, Arc::clone(&cell), transaction).await
        })
        .await
    }

    /// A producer's transaction is to write to partitions, which exist. Durable when this returns.
    pub async fn add(self: &Arc<Self>, id: &str, producer: Identity, partitions: BTreeSet<TopicPartition>) -> Result<(), i16> {
        self.within(id, move |me, cell, transaction| async move {
            match transaction.add(me.now(), producer, &partitions)? {
                None => Ok(()),
                Some(after) => me.store(&cell, after).await,
            }
        })
        .await
    }

    /// A producer's transaction is to commit a group's offsets.
    pub async fn add_offsets(self: &Arc<Self>, id: &str, producer: Identity) -> Result<(), i16> {
        self.add(id, producer, [place_of_offsets()].into()).await
    }

    /// Keeps a group's offsets until the producer's transaction ends. Answers each one's error, or one for all.
    pub async fn commit_offsets(
        self: &Arc<Self>,
        id: &str,
        producer: Identity,
        group: GroupId,
        request: TxnCommitRequest,
    ) -> Result<Vec<(TopicPartition, i16)>, i16> {
        self.within(id, move |me, _, transaction| async move {
            transaction.verify(producer, &place_of_offsets())?;
            me.groups.txn_offset_commit(&group, &request).await
        })
        .await
    }

    /// A producer ends its transaction; it is over, and what it wrote visible or void, when this returns.
    pub async fn end(self: &Arc<Self>, id: &str, producer: Identity, committed: bool) -> Result<(), i16> {
        self.within(id, move |me, cell, transaction| async move {
            match transaction.end(me.now(), producer, committed)? {
                None => Ok(()),
                Some(ending) => me.conclude(&cell, ending).await,
            }
        })
        .await
    }

    /// Ends a transaction. Called by whoever holds `busy`, so that nothing of it changes meanwhile.
    pub(super) async fn conclude(&self, cell: &Cell, ending: Ending) -> Result<(), i16> {
        let permit = self.prepare(&ending).await?;
        let (submitted, offsets) = {
            let mut inner = cell.inner.lock();
            let submitted = self.submit_ending(&cell.id, &ending, permit).map_err(storage("the end of a transaction"))?;
            inner.transaction = Some(ending.after);
            submitted
        };
        submitted.await.map_err(storage("the end of a transaction"))?;
        self.groups.txn_ended(offsets);
        Ok(())
    }

    /// Whether a transaction may write to partitions, each by itself; `then` is called with that while it stays
    /// true, and hands what may be written to the log.
    pub fn verified<R>(
        &self,
        id: &str,
        producer: Identity,
        partitions: &[TopicPartition],
        then: impl FnOnce(Vec<Result<(), i16>>) -> R,
    ) -> R {
        let refuse = |code| partitions.iter().map(|_| Err(code)).collect();
        if id.is_empty() {
            return then(refuse(error_code::INVALID_REQUEST));
        }
        let Some(cell) = self.find(id) else { return then(refuse(error_code::INVALID_PRODUCER_ID_MAPPING)) };
        let inner = cell.inner.lock();
        let verdicts = match &inner.transaction {
            None => refuse(error_code::INVALID_PRODUCER_ID_MAPPING),
            Some(transaction) => partitions.iter().map(|of| transaction.verify(producer, of)).collect(),
        };
        then(verdicts)
    }

    /// What an id is doing; `None` where there is no such id.
    #[must_use]
    pub fn describe(&self, id: &str) -> Option<Transaction> {
        self.find(id)?.inner.lock().transaction.clone()
    }

    /// All ids, by name.
    #[must_use]
    pub fn list(&self) -> Vec<ListedTransaction> {
        let listed = |cell: &Arc<Cell>| {
            let transaction = cell.inner.lock().transaction.clone()?;
            Some(ListedTransaction { id: cell.id.clone(), transaction })
        };
        self.all().iter().filter_map(listed).collect()
    }
}

impl Cell {
    fn new(id: String, transaction: Option<Transaction>) -> Self {
        let inner = Inner { transaction, ..Inner::default() };
        Self { id, busy: tokio::sync::Mutex::new(()), inner: Mutex::new(inner) }
    }
}

impl ListedTransaction {
    /// How long its transaction has been open at `now`, as Kafka counts it: where none ever was, for ever.
    #[must_use]
    pub const fn open_for_ms(&self, now: Timestamp) -> i64 {
        now.0.saturating_sub(self.transaction.started_at)
    }

    /// Whether it is in one of these states, by Kafka's names.
    #[must_use]
    pub fn is_in(&self, states: &[TxnState]) -> bool {
        states.contains(&self.transaction.state)
    }
}
