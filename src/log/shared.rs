//! What the log's callers and its two threads share.
//!
//! Locks are taken in this order, and most are held alone: queue; cache; a partition's `inner`; gate. None of these is held while
//! something is read, written or synced. Those of the WAL's files are, `ahead` before `spares`: so that no two threads make, take
//! or delete the same file.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use super::cache::{Cache, Files, LoadedIndexes};
use super::disk::{Disk, DiskFile, is_full, is_out_of_files};
use super::guard::Guard;
use super::partition::{Durability, PartitionLog};
use super::segment::Segment;
use super::store::{Append, LogConfig, Permit};
use super::wal::WalFile;
use super::{LogError, PartitionKey};
use crate::record::Offset;

/// How whoever waits for the WAL is told.
pub(super) type Done = oneshot::Sender<Result<(), LogError>>;

/// What waits for the WAL thread.
pub(super) enum Queued {
    /// A group.
    Group { appends: Vec<Append>, durability: Durability, done: Done, permit: Permit },
    /// A start that moves. Nobody waits where there is no room for it to become durable.
    Start { partition: Arc<PartitionLog>, to: Offset, done: Option<Done> },
    /// A partition that is gone.
    Remove { key: PartitionKey },
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
    /// Write everything now: the cache is over its budget, or something is old.
    pub urgent: bool,
    /// Write a checkpoint: there are files that only the last one still names.
    pub cut: bool,
    /// Make the WAL file with this number ahead of its use.
    pub prepare: Option<u64>,
    /// WAL files that were taken over from before the start, and where their entries end: the room behind is given back.
    pub trim: Vec<(String, u64)>,
    pub closing: bool,
}

/// Why something on the disk was not done.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is no room, or one more file cannot be opened now. It can be tried again.
    NoRoom(LogError),
    /// Anything else: nothing can be promised any more.
    Final(LogError),
}

impl Trouble {
    /// The trouble of trying `what`.
    pub(super) fn of(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| {
            let passes = is_full(&error) || is_out_of_files(&error);
            let error = LogError::io(what)(error);
            if passes { Self::NoRoom(error) } else { Self::Final(error) }
        }
    }

    /// The trouble of a sync: whatever the reason, what it covered may or may not be there. But a folder that could not even be opened
    /// was not synced, and can be later.
    pub(super) fn of_sync(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| {
            let passes = is_out_of_files(&error);
            let error = LogError::io(what)(error);
            if passes { Self::NoRoom(error) } else { Self::Final(error) }
        }
    }

    /// What is said of it.
    pub(super) fn into_error(self) -> LogError {
        match self {
            Self::NoRoom(error) | Self::Final(error) => error,
        }
    }
}

/// What one step of a thread came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There was nothing to do.
    Idle,
    /// Something was done.
    Done,
    /// There is no room on the disk; the same must be tried again.
    Held,
}

/// See the module.
pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub config: LogConfig,
    pub guard: Guard,
    pub files: Files,
    pub indexes: Mutex<LoadedIndexes>,
    pub partitions: RwLock<HashMap<PartitionKey, Arc<PartitionLog>>>,
    pub queue: Mutex<Queue>,
    pub queue_wake: Condvar,
    pub work: Mutex<Work>,
    pub work_wake: Condvar,
    pub work_done: Condvar,
    pub cache: Mutex<Cache>,
    /// Held for writing while the ends of all partitions of a sync move: who reads an end sees all of them moved or none.
    pub gate: RwLock<()>,
    pub failed: watch::Sender<Option<String>>,
    /// The WAL file that is written to.
    pub wal_file: AtomicU64,
    /// The last entry that is durable and visible.
    pub published: AtomicU64,
    /// The sync that made it so.
    pub published_sync: AtomicU64,
    /// The WAL file in which something was shown that is not synced, and its path.
    pub unsynced: Mutex<Option<(Arc<dyn DiskFile>, String)>>,
    /// The next WAL file, made ahead.
    pub ahead: Mutex<Option<WalFile>>,
    /// Numbers of WAL files that nothing needs any more, to be used again.
    pub spares: Mutex<Vec<u64>>,
    pub groups: AtomicU64,
    pub syncs: AtomicU64,
    pub sync_times: Mutex<Vec<Duration>>,
    pub queued_bytes: AtomicU64,
    /// What compaction has replaced, with its folder; the files go when no checkpoint names them any more, or with their records.
    pub replaced: Mutex<Vec<(String, Segment)>>,
    /// Held while a partition is compacted: one at a time.
    pub compacting: Mutex<()>,
    /// Long work in the background is to end.
    pub ending: AtomicBool,
}

impl Shared {
    pub(super) fn new(disk: Arc<dyn Disk>, config: LogConfig) -> Result<Self, LogError> {
        let guard = Guard::new(disk.as_ref(), &config)?;
        Ok(Self {
            disk,
            config,
            guard,
            files: Files::default(),
            indexes: Mutex::default(),
            partitions: RwLock::default(),
            queue: Mutex::default(),
            queue_wake: Condvar::new(),
            work: Mutex::default(),
            work_wake: Condvar::new(),
            work_done: Condvar::new(),
            cache: Mutex::default(),
            gate: RwLock::new(()),
            failed: watch::Sender::new(None),
            wal_file: AtomicU64::new(0),
            published: AtomicU64::new(0),
            published_sync: AtomicU64::new(0),
            unsynced: Mutex::default(),
            ahead: Mutex::default(),
            spares: Mutex::default(),
            groups: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            sync_times: Mutex::default(),
            queued_bytes: AtomicU64::new(0),
            replaced: Mutex::default(),
            compacting: Mutex::default(),
            ending: AtomicBool::new(false),
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

    /// Puts something into the WAL's queue, unless the log takes no more. `admit` is asked under the same lock.
    pub(super) fn enqueue(&self, admit: impl FnOnce() -> Result<Queued, LogError>) -> Result<(), LogError> {
        let mut queue = self.queue.lock();
        if queue.closing {
            return Err(LogError::Closed);
        }
        if let Some(why) = self.failure() {
            return Err(LogError::Failed(why));
        }
        queue.items.push(admit()?);
        drop(queue);
        self.queue_wake.notify_one();
        Ok(())
    }

    /// Queues a start that moves. `None` where it cannot become durable for want of room: deleting makes room, and must not wait for it.
    pub(super) fn queue_start(
        &self,
        partition: &Arc<PartitionLog>,
        to: Offset,
    ) -> Result<Option<oneshot::Receiver<Result<(), LogError>>>, LogError> {
        let (done, told) = oneshot::channel();
        let waits = !self.guard.ran_out();
        self.enqueue(|| Ok(Queued::Start { partition: Arc::clone(partition), to, done: waits.then_some(done) }))?;
        Ok(waits.then_some(told))
    }

    /// Moves a partition's start, durably, and deletes the segments below it. Blocks for one sync.
    pub(super) fn move_start(&self, partition: &Arc<PartitionLog>, to: Offset) -> Result<(), LogError> {
        if let Some(told) = self.queue_start(partition, to)? {
            told.blocking_recv().map_err(|_| LogError::Closed)??;
        }
        self.drop_below(partition, to)
    }

    /// Forgets and deletes what lies wholly below a start.
    pub(super) fn drop_below(&self, partition: &PartitionLog, to: Offset) -> Result<(), LogError> {
        let (dir, gone) = {
            let mut inner = partition.inner.lock();
            partition.set_start(&mut inner, to);
            let whole = inner.segments.iter().take(inner.segments.len().saturating_sub(1)).take_while(|s| s.next <= to).count();
            let gone: Vec<Segment> = inner.segments.drain(..whole).collect();
            (inner.dir.clone(), gone)
        };
        let Some(dir) = dir.filter(|_| !gone.is_empty()) else { return Ok(()) };
        partition.shrink(gone.iter().map(|segment| segment.length).sum());
        // From the front, with what the last checkpoint may still name: a file that is missing behind one that is there is a loss.
        let mut files: Vec<Segment> = gone;
        self.replaced.lock().retain(|(of, segment)| {
            let goes = *of == dir && segment.next <= to;
            files.extend(goes.then(|| segment.clone()));
            !goes
        });
        files.sort_by_key(|segment| segment.base);
        for segment in &files {
            segment.delete(self, &dir)?;
        }
        match self.disk.sync_dir(&dir) {
            Err(error) if !partition.is_removed() => Err(LogError::io(format!("sync {dir}"))(error)),
            _ => Ok(()),
        }
    }

    /// Tells everybody who waits that nothing will come. Called when the WAL thread is no more.
    pub(super) fn abandon(&self) {
        let items = std::mem::take(&mut self.queue.lock().items);
        let why = self.failure();
        for item in items {
            tell(item, || why.clone().map_or(LogError::Closed, LogError::Failed));
        }
    }

    pub(super) fn note_sync(&self, took: Duration) {
        /// How many sync times are kept for whoever looks.
        const KEPT: usize = 4096;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let mut times = self.sync_times.lock();
        if times.len() < KEPT {
            times.push(took);
        }
    }
}

/// Tells whoever waits for an item that it was not done.
pub(super) fn tell(item: Queued, why: impl FnOnce() -> LogError) {
    match item {
        // Whoever asked may have gone.
        Queued::Group { done, permit, .. } => {
            drop(permit);
            let _ = done.send(Err(why()));
        }
        Queued::Start { done: Some(done), .. } => {
            let _ = done.send(Err(why()));
        }
        Queued::Start { .. } | Queued::Remove { .. } => {}
    }
}
