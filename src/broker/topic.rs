//! One topic and its partitions, as everyone in the node sees them: [`Topic`], [`Partition`].
//!
//! Owns the lock under which a partition's offsets are given and its producers judged. Always: batches
//! reach the log in the order in which they got their offsets; a partition that was deleted takes none.
//! The producers are read back from a snapshot and the log behind it when the first idempotent batch comes,
//! so that opening a node costs nothing per partition. Made by `catalogue`, used by `append` and readers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::BrokerError;
use super::producers::{DescribedProducer, EndMarker, Producers, Step};
use super::topic_config::TopicConfig;
use super::txn::{Aborted, Stability};
use super::verification::Asked;
use crate::log::{LastOfProducer, LogError, PartitionKey, PartitionLog};
use crate::record::{Batch, Offset, PartitionId, TopicId, TopicName, TopicPartition};
use crate::time::Timestamp;

/// Bytes read at once while the producers are read back.
const SCAN_BYTES: usize = 4 << 20;

/// One topic.
pub struct Topic {
    name: TopicName,
    id: TopicId,
    config: RwLock<Arc<TopicConfig>>,
    partitions: RwLock<Arc<[Arc<Partition>]>>,
    /// What came in and went out, for `/metrics`.
    pub traffic: Traffic,
}

/// Totals since the node started.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Records appended.
    pub records_in: AtomicU64,
    /// Bytes of batches appended.
    pub bytes_in: AtomicU64,
    /// Bytes of batches handed to clients.
    pub bytes_out: AtomicU64,
}

impl Topic {
    pub(super) fn new(name: TopicName, id: TopicId, config: TopicConfig, partitions: Vec<Arc<Partition>>) -> Self {
        Self { name, id, config: RwLock::new(Arc::new(config)), partitions: RwLock::new(partitions.into()), traffic: Traffic::default() }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &TopicName {
        &self.name
    }

    /// Its identity, which a topic of the same name made later does not share.
    #[must_use]
    pub const fn id(&self) -> TopicId {
        self.id
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.config.read())
    }

    pub(super) fn set_config(&self, config: TopicConfig) {
        *self.config.write() = Arc::new(config);
    }

    /// Its partitions, by number.
    #[must_use]
    pub fn partitions(&self) -> Arc<[Arc<Partition>]> {
        Arc::clone(&self.partitions.read())
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.partitions.read().get(usize::try_from(id.0).ok()?).cloned()
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partition_count(&self) -> i32 {
        self.partitions.read().len() as i32
    }

    pub(super) fn widen(&self, more: Vec<Arc<Partition>>) {
        let mut partitions = self.partitions.write();
        *partitions = partitions.iter().cloned().chain(more).collect();
    }

    pub(super) fn came_in(&self, batch: &Batch) {
        self.traffic.records_in.fetch_add(batch.header().count.max(0) as u64, Ordering::Relaxed);
        self.traffic.bytes_in.fetch_add(batch.len_bytes() as u64, Ordering::Relaxed);
    }
}

/// One partition.
pub struct Partition {
    of: TopicPartition,
    log: Arc<PartitionLog>,
    state: Mutex<State>,
    /// One reader of the producers at a time.
    loading: tokio::sync::Mutex<()>,
    gone: CancellationToken,
    failed: watch::Receiver<Option<String>>,
    /// Bytes appended since the last snapshot of the producers.
    since_snapshot: AtomicU64,
    /// How far its transactions are decided.
    stability: Stability,
}

/// What the partition's lock protects.
pub(super) struct State {
    pub(super) producers: Memory,
    pub(super) deleted: bool,
}

/// The producers, or where they are to be read.
pub(super) enum Memory {
    /// They are here.
    Loaded(Producers),
    /// They are these, and what the log holds between the two offsets.
    Stored { snapshot: Producers, from: Offset, to: Offset },
}

impl Partition {
    /// A partition whose producers were as `snapshot` says when the log had come to `from`.
    /// `failed` tells when the log is of no more use.
    pub(super) fn new(
        of: TopicPartition,
        log: Arc<PartitionLog>,
        failed: watch::Receiver<Option<String>>,
        snapshot: Producers,
        from: Offset,
    ) -> Self {
        let to = log.end();
        // A snapshot beyond the end of the log is of something that was not acknowledged.
        let stability = Stability::default();
        let producers = if from >= to {
            stability.restore(snapshot.all_open());
            Memory::Loaded(snapshot)
        } else {
            Memory::Stored { snapshot, from, to }
        };
        Self {
            of,
            log,
            state: Mutex::new(State { producers, deleted: false }),
            loading: tokio::sync::Mutex::new(()),
            gone: CancellationToken::new(),
            failed,
            since_snapshot: AtomicU64::new(0),
            stability,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn of(&self) -> &TopicPartition {
        &self.of
    }

    /// Its place in the log.
    #[must_use]
    pub fn key(&self) -> PartitionKey {
        self.log.key()
    }

    /// Its records.
    #[must_use]
    pub const fn log(&self) -> &Arc<PartitionLog> {
        &self.log
    }

    /// Completes when the topic is deleted.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Whether the topic is deleted.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Completes when records below `end` are visible and decided, with `true`; or with `false` as
    /// [`Partition::visible`].
    pub async fn decided(&self, end: Offset) -> bool {
        // A transaction is decided by a marker, which moves the end of what is visible.
        let mut behind = end;
        while self.visible(behind).await {
            let (visible, decided) = self.bounds();
            if decided >= end {
                return true;
            }
            behind = visible.plus(1);
        }
        false
    }

    /// Completes when everything that was submitted before the call is durable and visible, or never will be.
    pub async fn settled(&self) {
        let end = self.log.end();
        self.visible(end).await;
    }

    /// Completes when records below `end` are visible, with `true`; or with `false` when they never will be: the
    /// topic is gone, or the log has failed.
    pub async fn visible(&self, end: Offset) -> bool {
        let mut durable = self.log.watch();
        let mut failed = self.failed.clone();
        tokio::select! {
            biased;
            reached = durable.wait_for(|at| *at >= end) => reached.is_ok(),
            () = self.gone.cancelled() => false,
            _ = failed.wait_for(Option::is_some) => false,
        }
    }

    /// How far its transactions are decided.
    pub(super) const fn stability(&self) -> &Stability {
        &self.stability
    }

    /// The end of what is visible, and of what is visible and decided: no record below the second belongs to an
    /// open transaction. [`Partition::read_back`] comes first after a start.
    #[must_use]
    pub fn bounds(&self) -> (Offset, Offset) {
        self.stability.bounds(&self.log)
    }

    /// The aborted transactions that have records between two offsets. What is asked about lies below the last
    /// stable offset.
    #[must_use]
    pub fn aborted_between(&self, from: Offset, to: Offset) -> Vec<Aborted> {
        self.stability.aborted_between(from, to)
    }

    /// A transaction was open here when the node stopped: where it begins is to be read back before anything is
    /// handed out as committed.
    pub(super) fn expect_open(&self) {
        if matches!(self.state.lock().producers, Memory::Stored { .. }) {
            self.stability.unread();
        }
    }

    /// What is on record of aborted transactions is not to be trusted: it is read back from the log.
    pub(super) fn doubt(&self) {
        let (from, to) = (self.log.start(), self.log.end());
        if from < to {
            self.state.lock().producers = Memory::Stored { snapshot: Producers::default(), from, to };
            self.stability.unread();
        }
    }

    /// Reads back what a crash left to be read before it is known what is committed. Mostly there is nothing.
    pub async fn read_back(self: &Arc<Self>, now: Timestamp) -> Result<(), BrokerError> {
        if self.stability.is_unread() { self.load_producers(now).await } else { Ok(()) }
    }

    /// Its producers, as far as they were read back.
    pub(super) fn describe_producers(&self) -> Vec<DescribedProducer> {
        match &self.state.lock().producers {
            Memory::Loaded(producers) => producers.describe().collect(),
            Memory::Stored { .. } => Vec::new(),
        }
    }

    /// What each producer that may still write has last written, as far as they were read back: what compaction keeps of them.
    pub(super) fn last_of_producers(&self) -> BTreeMap<i64, LastOfProducer> {
        match &self.state.lock().producers {
            Memory::Loaded(producers) => producers.lasts().collect(),
            Memory::Stored { .. } => BTreeMap::new(),
        }
    }

    pub(super) const fn state(&self) -> &Mutex<State> {
        &self.state
    }

    pub(super) fn delete(&self) {
        self.state.lock().deleted = true;
        self.gone.cancel();
    }

    pub(super) fn appended(&self, bytes: usize) {
        self.since_snapshot.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Reads the producers back where that was not done yet.
    pub(super) async fn load_producers(self: &Arc<Self>, now: Timestamp) -> Result<(), BrokerError> {
        let stored = |state: &State| match &state.producers {
            Memory::Loaded(_) => None,
            Memory::Stored { snapshot, from, to } => Some((snapshot.clone(), *from, *to)),
        };
        if stored(&self.state.lock()).is_none() {
            return Ok(());
        }
        let _one = self.loading.lock().await;
        let Some((snapshot, from, to)) = stored(&self.state.lock()) else { return Ok(()) };
        let log = Arc::clone(&self.log);
        let scan = tokio::task::spawn_blocking(move || scan(&log, snapshot, from, to, now));
        let Scanned { producers, bytes, aborted } =
            scan.await.map_err(|e| BrokerError::InvalidRequest(format!("reading producers back was stopped: {e}")))??;
        self.since_snapshot.fetch_add(bytes, Ordering::Relaxed);
        aborted.into_iter().for_each(|one| self.stability.restore_aborted(one));
        // Nobody appends an idempotent batch or a marker before this, so nothing between `to` and now can be missing.
        let mut state = self.state.lock();
        self.stability.restore(producers.all_open());
        state.producers = Memory::Loaded(producers);
        Ok(())
    }

    /// The producers for a snapshot, up to where they hold, and the bytes that were appended since the last one, where these are more
    /// than `bytes`.
    pub(super) fn snapshot_if_due(&self, bytes: u64) -> Option<(Producers, Offset, usize)> {
        if self.since_snapshot.load(Ordering::Relaxed) <= bytes {
            return None;
        }
        let state = self.state.lock();
        let Memory::Loaded(producers) = &state.producers else { return None };
        let since = self.since_snapshot.swap(0, Ordering::Relaxed);
        Some((producers.clone(), self.log.end(), usize::try_from(since).unwrap_or(usize::MAX)))
    }

    /// A batch asks to be in its producer's transaction here. [`Partition::load_producers`] comes first.
    pub(super) fn ask(&self, asked: Asked, now: Timestamp) {
        if let Memory::Loaded(producers) = &mut self.state.lock().producers {
            producers.ask(asked, now);
        }
    }

    /// Forgets producers that wrote nothing since `before`.
    pub(super) fn expire_producers(&self, before: Timestamp) {
        if let Memory::Loaded(producers) = &mut self.state.lock().producers {
            producers.expire(before);
        }
    }
}

/// What the log tells of its producers.
struct Scanned {
    producers: Producers,
    bytes: u64,
    /// They are on record too; what is told twice is kept once.
    aborted: Vec<Aborted>,
}

fn scan(log: &PartitionLog, mut producers: Producers, from: Offset, to: Offset, now: Timestamp) -> Result<Scanned, LogError> {
    let (mut bytes, mut aborted) = (0, Vec::new());
    let start = log.start();
    let mut read = BTreeSet::new();
    let is_cut = start > from;
    if is_cut {
        // A transaction of which something is left begins, for whoever reads here, with the first record of it that is.
        producers.forget_open();
    }
    let mut at = from.max(start);
    while at < to {
        let fetched = log.read(at, SCAN_BYTES)?;
        if fetched.next <= at {
            break;
        }
        for batch in fetched.batches() {
            let batch = batch.map_err(|e| LogError::Corrupt { place: "a batch of a producer".to_owned(), why: e.to_string() })?;
            // What begins below the start counts as far as it lies behind.
            if batch.last_offset() >= at && batch.base_offset() < to {
                if !batch.header().is_control() {
                    read.insert(batch.header().producer_id);
                }
                let step = producers.advance(batch.header(), EndMarker::of(&batch), batch.base_offset(), now);
                if let Step::Ended { producer_id, first, last, committed: false } = step {
                    let stable = producers.all_open().min().map_or(last.plus(1), |open| open.min(last.plus(1)));
                    aborted.push(Aborted { producer_id, first, last, stable });
                }
                bytes += batch.len_bytes() as u64;
            }
        }
        at = fetched.next;
    }
    if is_cut {
        // What was deleted since the snapshot cannot be read any more. Whoever has no record behind it has none here, also no open
        // transaction, and may go on with any sequence: an old one, or a marker alone, would refuse what comes next.
        producers.keep_only(&read);
    }
    Ok(Scanned { producers, bytes, aborted })
}
