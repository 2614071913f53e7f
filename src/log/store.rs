//! The log as its callers see it, and what its two threads share.
//!
//! Always: an append group is handed over whole, under one lock, so that the order of [`Log::submit`] is the order in the
//! WAL and of visibility. Handing over never waits; [`Log::room`] is where a caller waits for the disk.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::disk::{Disk, DiskFile};
use super::partition::{Inner, PartitionConfig, PartitionLog};
use super::retention::RetentionLimits;
use super::segment::Segment;
use super::{LogError, PartitionKey, materialise, recovery, wal};
use crate::record::{Batch, Offset, TopicName};
use crate::time::Timestamp;

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
    /// Segments are written when so many bytes are not yet in one.
    pub write_behind_bytes: usize,
    /// Writes are refused while the disk has less than this free.
    pub min_free_bytes: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            wal_segment_bytes: 64 << 20,
            wal_max_bytes: 256 << 20,
            cache_bytes: 128 << 20,
            max_pending_bytes: 128 << 20,
            write_behind_bytes: 16 << 20,
            min_free_bytes: 256 << 20,
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
pub struct Submitted(oneshot::Receiver<Result<(), String>>);

impl Future for Submitted {
    type Output = Result<(), LogError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|done| match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(LogError::Failed(why)),
            Err(_) => Err(LogError::Closed),
        })
    }
}

/// What waits for the WAL thread.
pub(super) enum Queued {
    /// A group.
    Group { appends: Vec<Append>, done: oneshot::Sender<Result<(), String>>, permit: Permit },
    /// A start that moves.
    Start { key: PartitionKey, to: Offset, done: oneshot::Sender<Result<(), String>> },
}

#[derive(Default)]
pub(super) struct Queue {
    pub items: Vec<Queued>,
    pub closing: bool,
}

/// What waits for the materialising thread.
#[derive(Default)]
pub(super) struct Work {
    /// Partitions with batches that are in no segment yet.
    pub dirty: BTreeSet<PartitionKey>,
    /// How many bytes those are.
    pub bytes: usize,
    /// WAL bytes since it was last cut.
    pub wal_bytes: u64,
    /// Write everything now: the cache is over its budget.
    pub urgent: bool,
    pub closing: bool,
}

/// Batches in memory, oldest first over all partitions.
#[derive(Default)]
pub(super) struct Cache {
    pub order: VecDeque<(Weak<PartitionLog>, usize)>,
    pub bytes: usize,
}

/// Open files, so that a read does not open one each time; a few hundred, however many partitions there are.
#[derive(Default)]
pub(super) struct Files {
    open: Mutex<OpenFiles>,
}

/// By path: the file and when it was last used; and a count of uses, which is the time.
type OpenFiles = (HashMap<String, (Arc<dyn DiskFile>, u64)>, u64);

impl Files {
    const MOST: usize = 512;

    pub(super) fn open(&self, disk: &dyn Disk, path: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        let mut open = self.open.lock();
        open.1 += 1;
        let now = open.1;
        if let Some((file, used)) = open.0.get_mut(path) {
            *used = now;
            return Ok(Arc::clone(file));
        }
        if open.0.len() >= Self::MOST {
            let mut ages: Vec<u64> = open.0.values().map(|(_, used)| *used).collect();
            ages.sort_unstable();
            let old = ages[Self::MOST / 4];
            open.0.retain(|_, (_, used)| *used > old);
        }
        let file = disk.open(path, false)?;
        open.0.insert(path.to_owned(), (Arc::clone(&file), now));
        Ok(file)
    }

    pub(super) fn forget(&self, path: &str) {
        self.open.lock().0.remove(path);
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

/// What callers and threads share.
pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub config: LogConfig,
    pub files: Files,
    pub partitions: RwLock<HashMap<PartitionKey, Arc<PartitionLog>>>,
    pub queue: Mutex<Queue>,
    pub queue_wake: Condvar,
    pub work: Mutex<Work>,
    pub work_wake: Condvar,
    pub work_done: Condvar,
    pub cache: Mutex<Cache>,
    pub failed: watch::Sender<Option<String>>,
    /// The WAL file that is written to.
    pub wal_file: AtomicU64,
    pub groups: AtomicU64,
    pub syncs: AtomicU64,
    pub sync_times: Mutex<Vec<Duration>>,
    pub queued_bytes: AtomicU64,
    free: Mutex<(Instant, u64)>,
}

impl Shared {
    pub(super) fn new(disk: Arc<dyn Disk>, config: LogConfig) -> Result<Self, LogError> {
        let free = disk.free_bytes().map_err(LogError::io("ask for free space"))?;
        Ok(Self {
            disk,
            config,
            files: Files::default(),
            partitions: RwLock::default(),
            queue: Mutex::default(),
            queue_wake: Condvar::new(),
            work: Mutex::default(),
            work_wake: Condvar::new(),
            work_done: Condvar::new(),
            cache: Mutex::default(),
            failed: watch::Sender::new(None),
            wal_file: AtomicU64::new(0),
            groups: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            sync_times: Mutex::default(),
            queued_bytes: AtomicU64::new(0),
            free: Mutex::new((Instant::now(), free)),
        })
    }

    pub(super) fn partition(&self, key: PartitionKey) -> Option<Arc<PartitionLog>> {
        self.partitions.read().get(&key).cloned()
    }

    /// A failure after which nothing can be promised any more.
    pub(super) fn fail(&self, why: String) {
        tracing::error!(reason = %why, "the log has failed: nothing is acknowledged any more");
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(why);
            first
        });
        self.queue_wake.notify_all();
        self.work_wake.notify_all();
        self.work_done.notify_all();
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// Free bytes, looked at no more than a few times a second.
    pub(super) fn free_bytes(&self) -> u64 {
        let mut free = self.free.lock();
        if free.0.elapsed() > Duration::from_millis(200)
            && let Ok(now) = self.disk.free_bytes()
        {
            *free = (Instant::now(), now);
        }
        free.1
    }

    /// Moves a partition's start, durably, and deletes the segments below it. Blocks for one sync.
    pub(super) fn move_start(&self, partition: &PartitionLog, to: Offset) -> Result<(), LogError> {
        let (done, told) = oneshot::channel();
        {
            let mut queue = self.queue.lock();
            if queue.closing {
                return Err(LogError::Closed);
            }
            if let Some(why) = self.failure() {
                return Err(LogError::Failed(why));
            }
            queue.items.push(Queued::Start { key: partition.key(), to, done });
        }
        self.queue_wake.notify_one();
        told.blocking_recv().map_err(|_| LogError::Closed)?.map_err(LogError::Failed)?;
        self.drop_below(partition, to)
    }

    /// Forgets and deletes what lies wholly below a start that is already durable.
    pub(super) fn drop_below(&self, partition: &PartitionLog, to: Offset) -> Result<(), LogError> {
        let (dir, gone) = {
            let mut inner = partition.inner.lock();
            partition.set_start(&mut inner, to);
            let whole = inner.segments.iter().take(inner.segments.len().saturating_sub(1)).take_while(|s| s.next <= to).count();
            let gone: Vec<Segment> = inner.segments.drain(..whole).collect();
            (inner.dir.clone(), gone)
        };
        let Some(dir) = dir else { return Ok(()) };
        for segment in &gone {
            partition.shrink(segment.length);
            let stem = Segment::stem(&dir, segment.base);
            for ending in ["log", "index", "timeindex"] {
                let path = format!("{stem}.{ending}");
                self.files.forget(&path);
                self.disk.remove_file(&path).map_err(LogError::io(format!("delete {path}")))?;
            }
        }
        Ok(())
    }
}

/// The node's log.
pub struct Log {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Room is counted in units of so many bytes.
const ROOM_UNIT: usize = 1024;

impl Log {
    /// Opens what is on the disk, replays the WAL, and starts the two threads.
    pub fn open(disk: Arc<dyn Disk>, config: LogConfig) -> Result<Self, LogError> {
        let units = (config.max_pending_bytes / ROOM_UNIT).clamp(1, Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared::new(disk, config)?);
        let writer = recovery::recover(&shared)?;
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(LogError::io("start a thread"))
        };
        let (for_wal, for_segments) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            spawn("vitalsql-wal", Box::new(move || wal::run(&for_wal, writer)))?,
            spawn("vitalsql-segments", Box::new(move || materialise::run(&for_segments)))?,
        ];
        Ok(Self { shared, room: Arc::new(Semaphore::new(units)), threads: Mutex::new(threads) })
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
    pub fn create(&self, key: PartitionKey, name: &TopicName, config: PartitionConfig) -> Result<Arc<PartitionLog>, LogError> {
        let mut partitions = self.shared.partitions.write();
        let partition =
            partitions.entry(key).or_insert_with(|| Arc::new(PartitionLog::new(key, Arc::clone(&self.shared), Inner::default())));
        let mut inner = partition.inner.lock();
        inner.name = Some(name.clone());
        inner.config = config;
        drop(inner);
        Ok(Arc::clone(partition))
    }

    /// Removes a partition and what it holds.
    pub fn remove(&self, key: PartitionKey) -> Result<(), LogError> {
        let Some(partition) = self.shared.partitions.write().remove(&key) else { return Ok(()) };
        let dir = {
            let mut inner = partition.inner.lock();
            inner.removed = true;
            inner.tail.clear();
            inner.unwritten = 0;
            let dir = inner.dir.take();
            for segment in inner.segments.drain(..) {
                if let Some(dir) = &dir {
                    self.shared.files.forget(&format!("{}.log", Segment::stem(dir, segment.base)));
                }
            }
            dir
        };
        match dir {
            Some(dir) => self.shared.disk.remove_dir(&dir).map_err(LogError::io(format!("delete {dir}"))),
            None => Ok(()),
        }
    }

    /// Waits until the disk has kept up so far that `bytes` more may be handed over.
    pub async fn room(&self, bytes: usize) -> Permit {
        let most = self.shared.config.max_pending_bytes / ROOM_UNIT;
        let units = (bytes / ROOM_UNIT + 1).clamp(1, most.max(1));
        let permit = Arc::clone(&self.room).acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)).await;
        Permit(permit.ok())
    }

    /// Hands a group over. Never waits; the answer completes when the group is durable and visible.
    pub fn submit(&self, group: AppendGroup, permit: Permit) -> Result<Submitted, LogError> {
        let free = self.shared.free_bytes();
        let needed = self.shared.config.min_free_bytes;
        // What the node keeps about itself (deleting a topic, a group's position) may use the reserve: it is what makes room.
        let is_bookkeeping = || group.appends.iter().all(|append| append.to.is_internal());
        if free < needed && (free < needed / 4 || !is_bookkeeping()) {
            return Err(LogError::DiskFull { free, needed });
        }
        let (done, submitted) = oneshot::channel();
        let bytes: usize = group.appends.iter().map(|a| a.batch.len_bytes()).sum();
        {
            let mut queue = self.shared.queue.lock();
            if queue.closing {
                return Err(LogError::Closed);
            }
            if let Some(why) = self.shared.failure() {
                return Err(LogError::Failed(why));
            }
            // Checked for all before any is reserved: a refused group leaves no trace.
            let mut ends: HashMap<PartitionKey, Offset> = HashMap::new();
            for append in &group.appends {
                let expected = *ends.entry(append.to.key()).or_insert_with(|| append.to.end());
                if append.batch.base_offset() != expected {
                    return Err(LogError::OutOfOrder { base: append.batch.base_offset(), expected });
                }
                ends.insert(append.to.key(), append.batch.next_offset());
            }
            for append in &group.appends {
                append.to.reserve(append.batch.next_offset());
            }
            queue.items.push(Queued::Group { appends: group.appends, done, permit });
        }
        self.shared.queued_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.shared.queue_wake.notify_one();
        Ok(Submitted(submitted))
    }

    /// Applies retention to every partition; answers how many bytes went.
    pub fn enforce_retention(&self, now: Timestamp, limits: impl Fn(PartitionKey) -> RetentionLimits) -> Result<u64, LogError> {
        let partitions: Vec<Arc<PartitionLog>> = self.shared.partitions.read().values().cloned().collect();
        let mut gone = 0;
        for partition in partitions {
            gone += partition.enforce(now, &limits(partition.key()))?;
        }
        Ok(gone)
    }

    /// Hears why the log has failed, once it has.
    #[must_use]
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.failed.subscribe()
    }

    /// How it has been doing; the times of recent syncs are handed out once.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats {
            groups: self.shared.groups.load(Ordering::Relaxed),
            syncs: self.shared.syncs.load(Ordering::Relaxed),
            recent_syncs: std::mem::take(&mut *self.shared.sync_times.lock()),
            pending_bytes: self.shared.queued_bytes.load(Ordering::Relaxed) + self.shared.work.lock().bytes as u64,
            free_bytes: self.shared.free_bytes(),
        }
    }

    /// Makes what was handed over durable, writes the segments, cuts the WAL, and ends the threads.
    pub fn close(&self) -> Result<(), LogError> {
        self.shared.queue.lock().closing = true;
        self.shared.queue_wake.notify_all();
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
    }
}
