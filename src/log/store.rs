//! The log as its callers see it.
//!
//! Always: an append group is handed over whole, under one lock, so that the order of [`Log::submit`] is the order in the
//! WAL and of visibility. Handing over never waits; [`Log::room`] is where a caller waits for the disk.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::commit::Committer;
use super::disk::Disk;
use super::entry::MAX_GROUP_BYTES;
use super::guard::DiskState;
use super::materialise::{self, Materialiser};
use super::partition::{Durability, Inner, PartitionConfig, PartitionLog};
use super::retention::RetentionLimits;
use super::shared::{Queued, Shared};
use super::{LogError, PartitionKey, recovery};
use crate::record::{Batch, HEADER_BYTES, Offset, TopicName};
use crate::time::{Ages, Timestamp};

/// How the log is run.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Room taken for one WAL file ahead of its use.
    pub wal_segment_bytes: u64,
    /// The segments are synced and the WAL is cut when it holds this much.
    pub wal_max_bytes: u64,
    /// Recent batches kept in memory for readers, over all partitions.
    pub cache_bytes: usize,
    /// Bytes that may wait for the disk.
    pub max_pending_bytes: usize,
    /// Segments are written when so many bytes are not yet in one, at the latest.
    pub write_behind_bytes: usize,
    /// Writes are refused while the disk has less than this free.
    pub min_free_bytes: u64,
    /// Room held by a file that is given up when the disk is full all the same.
    pub ballast_bytes: u64,
    /// Memory for the keys of one pass of a compaction; a log with more keys takes more passes.
    pub compaction_bytes: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            wal_segment_bytes: 64 << 20,
            wal_max_bytes: 128 << 20,
            cache_bytes: 32 << 20,
            max_pending_bytes: 128 << 20,
            write_behind_bytes: 16 << 20,
            min_free_bytes: 256 << 20,
            ballast_bytes: 32 << 20,
            compaction_bytes: 32 << 20,
        }
    }
}

/// One batch for one partition. Its offset is given: the partition's [`PartitionLog::end`], or behind the batch before it.
#[derive(Clone)]
pub struct Append {
    /// Where to.
    pub to: Arc<PartitionLog>,
    /// What.
    pub batch: Batch,
    /// When it came, by the node's clock: what retention counts from.
    pub received: Timestamp,
}

/// Batches that become durable and visible together, or not at all.
pub struct AppendGroup {
    /// The batches; those of one partition in order.
    pub appends: Vec<Append>,
}

/// Room for bytes on their way to the disk, given back when they are durable.
pub struct Permit(#[allow(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

/// Completes when a group is durable and visible.
#[must_use = "the group is not durable before this completes"]
pub struct Submitted(oneshot::Receiver<Result<(), LogError>>);

impl Future for Submitted {
    type Output = Result<(), LogError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|done| match done {
            Ok(outcome) => outcome,
            Err(_) => Err(LogError::Closed),
        })
    }
}

/// How the log has been doing.
#[derive(Clone, Debug, Default)]
pub struct LogStats {
    /// Append groups made durable.
    pub groups: u64,
    /// Syncs of the WAL.
    pub syncs: u64,
    /// How long the syncs since the last look took.
    pub recent_syncs: Vec<Duration>,
    /// Bytes not yet durable, or not yet in a segment.
    pub pending_bytes: u64,
    /// Free bytes on the disk, as last looked at.
    pub free_bytes: u64,
}

/// The node's log.
pub struct Log {
    pub(super) shared: Arc<Shared>,
    room: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Room is counted in units of so many bytes.
const ROOM_UNIT: usize = 1024;

impl Log {
    /// Opens what is on the disk, replays the WAL, and starts the two threads.
    pub fn open(disk: Arc<dyn Disk>, config: LogConfig) -> Result<Self, LogError> {
        let (log, committer, materialiser) = Self::open_still(disk, config)?;
        let shared = &log.shared;
        let spawn = |name: &str, body: Box<dyn FnOnce(&Shared) + Send>| {
            let lasts = Lasts(Arc::clone(shared));
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(move || body(&lasts.0)).map_err(LogError::io("start a thread"))
        };
        let threads = vec![
            spawn("vitalsql-wal", Box::new(move |shared| committer.run(shared)))?,
            spawn("vitalsql-segments", Box::new(move |shared| materialiser.run(shared)))?,
        ];
        *log.threads.lock() = threads;
        Ok(log)
    }

    /// As [`open`](Self::open), without threads: what they would do is done step by step.
    pub(super) fn open_still(disk: Arc<dyn Disk>, config: LogConfig) -> Result<(Self, Committer, Materialiser), LogError> {
        let units = (config.max_pending_bytes / ROOM_UNIT).clamp(1, Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared::new(disk, config)?);
        let writer = recovery::recover(&shared)?;
        shared.guard.arm(shared.disk.as_ref());
        let log = Self { shared, room: Arc::new(Semaphore::new(units)), threads: Mutex::default() };
        Ok((log, Committer::new(writer), Materialiser::default()))
    }

    /// The partitions there are.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionKey> {
        let mut keys: Vec<PartitionKey> = self.shared.partitions.read().keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    /// One partition, if it is there.
    #[must_use]
    pub fn get(&self, key: PartitionKey) -> Option<Arc<PartitionLog>> {
        self.shared.partition(key)
    }

    /// Makes a partition, or gives the one that is there its name and settings. Costs nothing on the disk before the first record.
    /// A key that was removed must not come again: topics made anew have new ids.
    pub fn create(&self, key: PartitionKey, name: &TopicName, config: PartitionConfig) -> Result<Arc<PartitionLog>, LogError> {
        let mut partitions = self.shared.partitions.write();
        let partition = partitions.entry(key).or_insert_with(|| PartitionLog::new(key, Arc::clone(&self.shared), Inner::default()));
        let mut inner = partition.inner.lock();
        inner.name = Some(name.clone());
        partition.configure(&mut inner, config);
        drop(inner);
        Ok(Arc::clone(partition))
    }

    /// Changes how a partition's segments are cut.
    pub fn set_config(&self, key: PartitionKey, config: PartitionConfig) {
        if let Some(partition) = self.get(key) {
            partition.configure(&mut partition.inner.lock(), config);
        }
    }

    /// Removes a partition and what it holds, at once: this makes room, and must not wait for any. The WAL hears of it, so that it is
    /// not there again after a crash.
    pub fn remove(&self, key: PartitionKey) -> Result<(), LogError> {
        let Some(partition) = self.shared.partitions.write().remove(&key) else { return Ok(()) };
        let told = self.shared.enqueue(|| {
            partition.mark_removed();
            Ok(Queued::Remove { key })
        });
        if let Err(error) = told {
            // The files go all the same; whoever owns the topic removes it again at the next start.
            partition.mark_removed();
            tracing::debug!(%error, "the WAL was not told of a removal");
        }
        let dir = {
            let mut inner = partition.inner.lock();
            inner.tail.clear();
            inner.unwritten = 0;
            let dir = inner.dir.take();
            let segments = std::mem::take(&mut inner.segments);
            dir.inspect(|dir| segments.iter().for_each(|segment| self.shared.files.forget(&segment.path(dir))))
        };
        self.shared.cache.lock().forget(&partition);
        partition.wake();
        dir.map_or(Ok(()), |dir| materialise::delete_folder(self.shared.disk.as_ref(), &dir))
    }

    /// Waits until the disk has kept up so far that `bytes` more may be handed over. Where the disk is full there is nothing to wait
    /// for: [`submit`](Self::submit) then says so.
    pub async fn room(&self, bytes: usize) -> Permit {
        let most = self.shared.config.max_pending_bytes / ROOM_UNIT;
        let units = (bytes / ROOM_UNIT + 1).clamp(1, most.max(1));
        let room = Arc::clone(&self.room).acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX));
        tokio::select! {
            biased;
            permit = room => Permit(permit.ok()),
            () = self.shared.guard.running_out() => Permit(None),
        }
    }

    /// Hands a group over. Never waits; the answer completes when the group is durable and visible.
    pub fn submit(&self, group: AppendGroup, permit: Permit) -> Result<Submitted, LogError> {
        self.shared.guard.check(self.shared.disk.as_ref(), || group.appends.iter().all(|append| append.to.is_internal()))?;
        let bytes: usize = group.appends.iter().map(|a| a.batch.len_bytes()).sum();
        if bytes > MAX_GROUP_BYTES || group.appends.len() > MAX_GROUP_BYTES / HEADER_BYTES {
            return Err(LogError::TooLarge { bytes, most: MAX_GROUP_BYTES });
        }
        let (done, submitted) = oneshot::channel();
        self.shared.enqueue(|| {
            // Checked for all before any is reserved: a refused group leaves no trace.
            let mut ends: HashMap<PartitionKey, Offset> = HashMap::new();
            for append in &group.appends {
                if append.to.is_removed() {
                    return Err(LogError::Removed(append.to.key()));
                }
                let expected = *ends.entry(append.to.key()).or_insert_with(|| append.to.end());
                if append.batch.base_offset() != expected {
                    return Err(LogError::OutOfOrder { base: append.batch.base_offset(), expected });
                }
                ends.insert(append.to.key(), append.batch.next_offset());
            }
            for append in &group.appends {
                append.to.reserve(append.batch.next_offset());
            }
            self.shared.queued_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            // Together or not at all: as safe as the one that must be safest.
            let durability = group.appends.iter().map(|append| append.to.durability()).reduce(Durability::stricter).unwrap_or_default();
            Ok(Queued::Group { appends: group.appends, durability, done, permit })
        })?;
        Ok(Submitted(submitted))
    }

    /// Applies retention to every partition; answers how many bytes went. Blocks.
    pub fn enforce_retention(&self, ages: &Ages, limits: impl Fn(PartitionKey) -> RetentionLimits) -> Result<u64, LogError> {
        let mut partitions: Vec<Arc<PartitionLog>> = self.shared.partitions.read().values().cloned().collect();
        // In order, so that the same chance gives the same run.
        partitions.sort_unstable_by_key(|partition| partition.key());
        let mut gone = 0;
        for partition in partitions {
            gone += partition.enforce(ages, &limits(partition.key()))?;
        }
        Ok(gone)
    }

    /// The latest time at which something was received that is there.
    #[must_use]
    pub fn latest_received(&self) -> Option<Timestamp> {
        let partitions = self.shared.partitions.read();
        let of = |partition: &Arc<PartitionLog>| {
            let inner = partition.inner.lock();
            let stored = inner.segments.iter().filter(|segment| segment.length > 0).map(|segment| Timestamp(segment.last_received));
            stored.chain(inner.tail.iter().map(|tail| tail.received)).max()
        };
        partitions.values().filter_map(of).max()
    }

    /// Hears why the log has failed, once it has.
    #[must_use]
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.failed.subscribe()
    }

    /// The room on the disk, and whether writes are taken.
    #[must_use]
    pub fn disk_state(&self) -> DiskState {
        self.shared.guard.state(self.shared.disk.as_ref())
    }

    /// Why writes are refused now, where they are: each of the reasons passes.
    #[must_use]
    pub fn refuses(&self) -> Option<LogError> {
        let state = self.disk_state();
        (!state.takes_writes()).then(|| self.shared.guard.refusal(state))
    }

    /// Where the log's files are, and the bytes of the whole volume, where the system tells.
    #[must_use]
    pub fn volume(&self) -> (String, Option<u64>) {
        (self.shared.disk.place(), self.shared.disk.total_bytes().ok())
    }

    /// How it has been doing; the times of recent syncs are handed out once.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats {
            groups: self.shared.groups.load(Ordering::Relaxed),
            syncs: self.shared.syncs.load(Ordering::Relaxed),
            recent_syncs: std::mem::take(&mut *self.shared.sync_times.lock()),
            pending_bytes: self.shared.queued_bytes.load(Ordering::Relaxed) + self.shared.work.lock().bytes as u64,
            free_bytes: self.disk_state().free_bytes,
        }
    }

    /// Lets a compaction that runs end at its next batch, and leave things as they were; none begins any more.
    pub fn end_compaction(&self) {
        self.shared.ending.store(true, Ordering::Release);
    }

    /// Completes when nothing can be written for now: what was handed over waits, and may wait for long.
    pub async fn running_out(&self) {
        self.shared.guard.running_out().await;
    }

    /// Takes nothing more. What waits for a disk that takes nothing is refused.
    pub fn end_writes(&self) {
        self.shared.queue.lock().closing = true;
        self.shared.queue_wake.notify_all();
    }

    /// Makes what was handed over durable, writes the segments, cuts the WAL, and ends the threads. Blocks.
    pub fn close(&self) -> Result<(), LogError> {
        self.end_compaction();
        drop(self.shared.compacting.lock());
        self.end_writes();
        let mut threads = std::mem::take(&mut *self.threads.lock());
        // The WAL thread first: what it makes durable is the other's work.
        for (i, thread) in threads.drain(..).enumerate() {
            if i == 1 {
                self.shared.work.lock().closing = true;
                self.shared.work_wake.notify_all();
            }
            if thread.join().is_err() {
                return Err(LogError::Failed("a thread of the log panicked".to_owned()));
            }
        }
        // The partitions know what they share with us: letting them go here lets the disk go too.
        self.shared.partitions.write().clear();
        match self.shared.failure() {
            Some(why) => Err(LogError::Failed(why)),
            None => Ok(()),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if !self.threads.lock().is_empty()
            && let Err(error) = self.close()
        {
            tracing::error!(%error, "could not close the log");
        }
        // Also where there were no threads to end.
        self.shared.partitions.write().clear();
    }
}

/// Held by a thread: where it ends by a panic, the log has failed and nobody waits for it in vain.
struct Lasts(Arc<Shared>);

impl Drop for Lasts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("a thread of the log panicked".to_owned());
            self.0.abandon();
        }
    }
}
