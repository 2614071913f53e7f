//! One partition's log: a run of segments, and the tail of batches still in memory.
//!
//! Owns what is known of one partition. Always: `start <= durable_end <= end`; no record below `durable_end` is lost
//! by a crash; the tail holds every batch that is not yet in a segment, and the newest ones besides. Written by the
//! WAL thread (keep, show) and the materialising thread (segments), read by everyone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::index::SegmentIndex;
use super::segment::{Segment, Stored, make_index};
use super::shared::Shared;
use super::{LogError, PartitionKey};
use crate::record::{Batch, BatchError, Offset, TopicName};
use crate::time::Timestamp;

/// One read answers at most about so much, whatever is asked for.
const READ_BYTES: usize = 16 << 20;

/// When what was written is acknowledged and visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it is durable.
    #[default]
    Sync,
    /// When the system has it: the death of the process loses nothing, a power cut up to so much time.
    Interval(Duration),
    /// When the system has it, which brings it to the disk in its own time, or with what is synced later.
    Os,
}

impl Durability {
    /// As one number, which rises with what may be lost.
    const fn pack(self) -> u64 {
        match self {
            Self::Sync => 0,
            Self::Interval(span) => {
                let ms = span.as_millis();
                if ms < u64::MAX as u128 - 1 { 1 + ms as u64 } else { u64::MAX }
            }
            Self::Os => u64::MAX,
        }
    }

    const fn unpack(packed: u64) -> Self {
        match packed {
            0 => Self::Sync,
            u64::MAX => Self::Os,
            more => Self::Interval(Duration::from_millis(more - 1)),
        }
    }

    /// The stricter of two.
    pub(super) fn stricter(self, other: Self) -> Self {
        Self::unpack(self.pack().min(other.pack()))
    }
}

/// How a partition's segments are cut, and when its records are acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionConfig {
    /// A segment is closed at about this size.
    pub segment_bytes: u64,
    /// A segment is closed when its first record was received so long ago, in milliseconds.
    pub segment_ms: i64,
    /// When records are acknowledged and visible.
    pub durability: Durability,
}

impl Default for PartitionConfig {
    fn default() -> Self {
        Self { segment_bytes: 1 << 30, segment_ms: 7 * 86_400_000, durability: Durability::Sync }
    }
}

/// A batch in memory.
#[derive(Clone, Debug)]
pub(super) struct TailBatch {
    pub batch: Batch,
    pub received: Timestamp,
}

#[derive(Default)]
pub(super) struct Inner {
    /// The topic's name, for the folder's; `None` while only the WAL knows the partition.
    pub name: Option<TopicName>,
    /// Its folder, once there is one.
    pub dir: Option<String>,
    pub config: PartitionConfig,
    /// In order; the last one is written to.
    pub segments: Vec<Segment>,
    pub tail: VecDeque<TailBatch>,
    /// How many batches at the tail's end are not yet in a segment.
    pub unwritten: usize,
    pub start: Offset,
    /// Up to here no key comes twice: what compaction begins behind.
    pub clean_to: Offset,
}

/// One partition.
pub struct PartitionLog {
    key: PartitionKey,
    me: Weak<Self>,
    pub(super) shared: Arc<Shared>,
    pub(super) inner: Mutex<Inner>,
    end: AtomicI64,
    durable: watch::Sender<Offset>,
    durable_end: AtomicI64,
    start: AtomicI64,
    size: AtomicU64,
    durability: AtomicU64,
    removed: AtomicBool,
}

/// What a read found: whole batches.
#[derive(Debug)]
pub struct Fetched {
    /// The batches' bytes, in order: shared memory where they were in memory.
    pub chunks: Vec<Bytes>,
    /// The offset behind the last one.
    pub next: Offset,
    cached: Vec<Batch>,
}

impl Fetched {
    /// The batches. Those that came from the disk are checked here.
    pub fn batches(&self) -> impl Iterator<Item = Result<Batch, BatchError>> + '_ {
        // What came from the disk is one run of bytes.
        let mut raw = if self.cached.is_empty() { self.chunks.first().cloned().unwrap_or_default() } else { Bytes::new() };
        let stored = std::iter::from_fn(move || match Batch::split(&mut raw) {
            Ok(found) => found.map(Ok),
            Err(error) => {
                raw = Bytes::new();
                Some(Err(error))
            }
        });
        self.cached.iter().cloned().map(Ok).chain(stored)
    }
}

impl PartitionLog {
    pub(super) fn new(key: PartitionKey, shared: Arc<Shared>, inner: Inner) -> Arc<Self> {
        let start = inner.start;
        let next = inner.segments.last().map_or(start, |s| s.next).max(start);
        let size = inner.segments.iter().map(|s| s.length).sum();
        Arc::new_cyclic(|me| Self {
            key,
            me: Weak::clone(me),
            shared,
            inner: Mutex::new(inner),
            end: AtomicI64::new(next.0),
            durable: watch::Sender::new(next),
            durable_end: AtomicI64::new(next.0),
            start: AtomicI64::new(start.0),
            size: AtomicU64::new(size),
            durability: AtomicU64::new(Durability::Sync.pack()),
            removed: AtomicBool::new(false),
        })
    }

    /// Which partition.
    #[must_use]
    pub const fn key(&self) -> PartitionKey {
        self.key
    }

    /// The first offset there is.
    #[must_use]
    pub fn start(&self) -> Offset {
        Offset(self.start.load(Ordering::Acquire))
    }

    /// The next offset to give, behind everything that was submitted.
    #[must_use]
    pub fn end(&self) -> Offset {
        Offset(self.end.load(Ordering::Acquire))
    }

    /// The offset behind the last durable record: what readers may see. Of a partition whose durability is not
    /// [`Durability::Sync`], the offset behind the last one that was written.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
        // Not between the moves of two partitions of one group.
        let _none_moves = self.shared.gate.read();
        Offset(self.durable_end.load(Ordering::Acquire))
    }

    /// How many bytes of batches it holds.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Hears of every move of the durable end.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Offset> {
        self.durable.subscribe()
    }

    /// Itself, shared; `None` where nobody holds it any more.
    pub(super) fn me(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    pub(super) fn reserve(&self, end: Offset) {
        self.end.store(end.0, Ordering::Release);
    }

    pub(super) fn configure(&self, inner: &mut Inner, config: PartitionConfig) {
        self.durability.store(config.durability.pack(), Ordering::Release);
        inner.config = config;
    }

    /// When its records are acknowledged.
    pub(super) fn durability(&self) -> Durability {
        Durability::unpack(self.durability.load(Ordering::Acquire))
    }

    /// Whether it belongs to one of the node's own topics.
    pub(super) fn is_internal(&self) -> bool {
        self.inner.lock().name.as_ref().is_some_and(TopicName::is_internal)
    }

    /// Whether it was removed: then it takes nothing and holds nothing.
    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    pub(super) fn mark_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// Keeps a batch that may be shown, and is not visible yet. Answers whether there is still somebody to keep it for.
    pub(super) fn keep(&self, batch: Batch, received: Timestamp) -> bool {
        let mut inner = self.inner.lock();
        if self.is_removed() {
            return false;
        }
        self.size.fetch_add(batch.len_bytes() as u64, Ordering::Relaxed);
        inner.tail.push_back(TailBatch { batch, received });
        inner.unwritten += 1;
        true
    }

    /// Makes what was kept visible; nobody is woken yet. Called with the gate held, or before anyone else knows the partition.
    pub(super) fn show(&self, end: Offset) {
        self.end.fetch_max(end.0, Ordering::AcqRel);
        self.durable_end.store(end.0, Ordering::Release);
    }

    /// Tells those who wait.
    pub(super) fn wake(&self) {
        let end = self.durable_end();
        self.durable.send_if_modified(|known| std::mem::replace(known, end) != end);
    }

    pub(super) fn shrink(&self, bytes: u64) {
        self.size.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn grow(&self, bytes: u64) {
        self.size.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn set_start(&self, inner: &mut Inner, to: Offset) {
        inner.start = inner.start.max(to);
        self.start.store(inner.start.0, Ordering::Release);
        // A start behind everything (a trimmed partition whose files are gone) moves the ends too.
        self.end.fetch_max(inner.start.0, Ordering::AcqRel);
        self.durable_end.fetch_max(inner.start.0, Ordering::AcqRel);
    }

    /// Whether a read from `from` on needs no disk.
    #[must_use]
    pub fn read_is_cached(&self, from: Offset) -> bool {
        let inner = self.inner.lock();
        from >= self.durable_end() || inner.tail.front().is_some_and(|first| first.batch.base_offset() <= from)
    }

    /// Whole batches from the one that holds `from` on, up to about `max_bytes` and at least one. At the durable end there is nothing.
    pub fn read(&self, from: Offset, max_bytes: usize) -> Result<Fetched, LogError> {
        let max_bytes = max_bytes.min(READ_BYTES);
        let inner = self.inner.lock();
        if self.is_removed() {
            return Err(LogError::Removed(self.key));
        }
        let visible = self.durable_end();
        if from < inner.start || from > visible {
            return Err(LogError::OutOfRange { asked: from, start: inner.start, end: visible });
        }
        if from == visible {
            return Ok(Fetched { chunks: Vec::new(), next: from, cached: Vec::new() });
        }
        if inner.tail.front().is_some_and(|first| first.batch.base_offset() <= from) {
            return Ok(from_tail(&inner, from, visible, max_bytes));
        }
        let at = inner.segments.partition_point(|s| s.next <= from);
        let (Some(segment), Some(dir)) = (inner.segments.get(at).cloned(), inner.dir.clone()) else {
            // A gap (compacted, or cut off) before what is in memory.
            let next = inner.tail.front().map_or(visible, |first| first.batch.base_offset());
            return Ok(from_tail(&inner, next, visible, max_bytes));
        };
        drop(inner);
        match self.read_segment(&dir, &segment, from, max_bytes) {
            // Retention was quicker: say what is there now.
            Err(_) if self.is_removed() => Err(LogError::Removed(self.key)),
            Err(_) if self.start() > from => Err(LogError::OutOfRange { asked: from, start: self.start(), end: self.durable_end() }),
            // Compaction was quicker: what took its place has the same.
            Err(_) if self.is_replaced(&segment) => self.read(from, max_bytes),
            other => other,
        }
    }

    /// Whether compaction or retention has put another file, or none, in the place of this one.
    pub(super) fn is_replaced(&self, segment: &Segment) -> bool {
        !self.inner.lock().segments.iter().any(|here| here.is_file_of(segment))
    }

    fn read_segment(&self, dir: &str, segment: &Segment, from: Offset, max_bytes: usize) -> Result<Fetched, LogError> {
        let path = segment.path(dir);
        let file = self.shared.files.open(self.shared.disk.as_ref(), &path, false).map_err(LogError::io(format!("open {path}")))?;
        let stored = Stored { file: file.as_ref(), path: &path, segment };
        let near = self.index_of(dir, segment, true)?.before_offset(segment.base, from);
        let found = match stored.read(near, from, max_bytes)? {
            Some(found) => found,
            None => {
                tracing::warn!(path, "an index does not fit its segment and is made again");
                let near = self.index_of(dir, segment, false)?.before_offset(segment.base, from);
                stored
                    .read(near, from, max_bytes)?
                    .ok_or_else(|| LogError::Corrupt { place: path.clone(), why: "its batches are out of order".to_owned() })?
            }
        };
        let (bytes, next) = found;
        let chunks = if bytes.is_empty() { Vec::new() } else { vec![bytes] };
        // The segment ends with a gap: whoever reads goes on behind it.
        let next = if chunks.is_empty() { segment.next } else { next };
        Ok(Fetched { chunks, next, cached: Vec::new() })
    }

    /// A segment's index; read, or made again, where it is not in memory. Where what is on the disk has proven wrong, `trust` is false.
    pub(super) fn index_of(&self, dir: &str, segment: &Segment, trust: bool) -> Result<Arc<SegmentIndex>, LogError> {
        if let Some(index) = segment.index.as_ref().filter(|_| trust) {
            return Ok(Arc::clone(index));
        }
        let disk = self.shared.disk.as_ref();
        let path = segment.path(dir);
        let file = self.shared.files.open(disk, &path, false).map_err(LogError::io(format!("open {path}")))?;
        let stored = Stored { file: file.as_ref(), path: &path, segment };
        let index = Arc::new(make_index(disk, &segment.stem(dir), &stored, segment.base, trust)?);
        let mut inner = self.inner.lock();
        // The segment may have grown meanwhile: an index of its first part is right, if sparse.
        if let Some(here) = inner.segments.iter_mut().find(|s| s.is_file_of(segment))
            && (here.index.is_none() || !trust)
        {
            here.index = Some(Arc::clone(&index));
            drop(inner);
            let gone = self.shared.indexes.lock().note(&self.me, segment.base, index.bytes());
            for (partition, base) in gone {
                let Some(partition) = partition.upgrade() else { continue };
                let mut inner = partition.inner.lock();
                if let Some((_, closed)) = inner.segments.split_last_mut()
                    && let Some(segment) = closed.iter_mut().find(|s| s.base == base)
                {
                    segment.index = None;
                }
            }
        }
        Ok(index)
    }

    /// Lets records below `to` go, durably: the start is moved, whole segments below it are deleted. Blocks for a sync.
    pub fn advance_start(&self, to: Offset) -> Result<(), LogError> {
        let to = to.min(self.durable_end());
        if to <= self.start() {
            return Ok(());
        }
        let me = self.me.upgrade().expect("whoever calls holds it");
        self.shared.move_start(&me, to)
    }
}

fn from_tail(inner: &Inner, from: Offset, visible: Offset, max_bytes: usize) -> Fetched {
    let first = inner.tail.partition_point(|t| t.batch.next_offset() <= from);
    let mut fetched = Fetched { chunks: Vec::new(), next: from, cached: Vec::new() };
    let mut bytes = 0;
    for tail in inner.tail.iter().skip(first) {
        let size = tail.batch.len_bytes();
        if tail.batch.next_offset() > visible || (!fetched.cached.is_empty() && bytes + size > max_bytes) {
            break;
        }
        bytes += size;
        tail.batch.push_to(&mut fetched.chunks);
        fetched.next = tail.batch.next_offset();
        fetched.cached.push(tail.batch.clone());
    }
    fetched
}
