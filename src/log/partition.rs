//! One partition's log: a run of segments, and the tail of batches still in memory.
//!
//! Owns what is known of one partition. Always: `start <= durable_end <= end`; no record below `durable_end` is lost
//! by a crash; the tail holds every batch that is not yet in a segment, and the newest ones besides. Written by the
//! WAL thread (publish) and the materialising thread (segments), read by everyone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::segment::{self, Segment};
use super::store::Shared;
use super::{LogError, PartitionKey};
use crate::record::{Batch, BatchError, Offset, TopicName};
use crate::time::Timestamp;

/// How a partition's segments are cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionConfig {
    /// A segment is closed at about this size.
    pub segment_bytes: u64,
    /// A segment is closed when its first record was received so long ago, in milliseconds.
    pub segment_ms: i64,
}

impl Default for PartitionConfig {
    fn default() -> Self {
        Self { segment_bytes: 1 << 30, segment_ms: 7 * 86_400_000 }
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
    pub removed: bool,
}

/// One partition.
pub struct PartitionLog {
    key: PartitionKey,
    pub(super) shared: Arc<Shared>,
    pub(super) inner: Mutex<Inner>,
    end: AtomicI64,
    durable: watch::Sender<Offset>,
    durable_end: AtomicI64,
    start: AtomicI64,
    size: AtomicU64,
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
    pub(super) fn new(key: PartitionKey, shared: Arc<Shared>, inner: Inner) -> Self {
        let start = inner.start;
        let next = inner.segments.last().map_or(start, |s| s.next).max(start);
        let size = inner.segments.iter().map(|s| s.length).sum();
        Self {
            key,
            shared,
            inner: Mutex::new(inner),
            end: AtomicI64::new(next.0),
            durable: watch::Sender::new(next),
            durable_end: AtomicI64::new(next.0),
            start: AtomicI64::new(start.0),
            size: AtomicU64::new(size),
        }
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

    /// The offset behind the last durable record: what readers may see.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
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

    /// Whether it belongs to one of the node's own topics.
    pub(super) fn is_internal(&self) -> bool {
        self.inner.lock().name.as_ref().is_some_and(TopicName::is_internal)
    }

    pub(super) fn reserve(&self, end: Offset) {
        self.end.store(end.0, Ordering::Release);
    }

    /// A durable batch becomes readable; nobody is woken yet.
    pub(super) fn publish(&self, batch: Batch, received: Timestamp) {
        let next = batch.next_offset();
        self.size.fetch_add(batch.len_bytes() as u64, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        inner.tail.push_back(TailBatch { batch, received });
        inner.unwritten += 1;
        drop(inner);
        self.end.fetch_max(next.0, Ordering::AcqRel);
        self.durable_end.store(next.0, Ordering::Release);
    }

    /// Tells those who wait.
    pub(super) fn wake(&self) {
        let end = self.durable_end();
        self.durable.send_if_modified(|known| std::mem::replace(known, end) != end);
    }

    pub(super) fn shrink(&self, bytes: u64) {
        self.size.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn set_start(&self, inner: &mut Inner, to: Offset) {
        inner.start = inner.start.max(to);
        self.start.store(inner.start.0, Ordering::Release);
        // A start behind everything (a trimmed partition whose files are gone) moves the ends too.
        if self.end().0 < to.0 {
            self.end.store(to.0, Ordering::Release);
        }
        if self.durable_end().0 < to.0 {
            self.durable_end.store(to.0, Ordering::Release);
        }
    }

    /// Whether a read from `from` on needs no disk.
    #[must_use]
    pub fn read_is_cached(&self, from: Offset) -> bool {
        let inner = self.inner.lock();
        from >= self.durable_end() || inner.tail.front().is_some_and(|first| first.batch.base_offset() <= from)
    }

    /// Whole batches from the one that holds `from` on, up to about `max_bytes` and at least one. At the durable end there is nothing.
    pub fn read(&self, from: Offset, max_bytes: usize) -> Result<Fetched, LogError> {
        let inner = self.inner.lock();
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
        let at = inner.segments.partition_point(|s| s.base <= from).saturating_sub(1);
        let found = inner.segments[at.min(inner.segments.len())..].iter().find(|s| s.next > from);
        let (Some(segment), Some(dir)) = (found.cloned(), inner.dir.clone()) else {
            // A gap (compacted, or cut off) before what is in memory.
            let next = inner.tail.front().map_or(visible, |first| first.batch.base_offset());
            return Ok(from_tail(&inner, next, visible, max_bytes));
        };
        drop(inner);
        self.read_segment(&dir, &segment, from, max_bytes)
    }

    fn read_segment(&self, dir: &str, segment: &Segment, from: Offset, max_bytes: usize) -> Result<Fetched, LogError> {
        let stem = Segment::stem(dir, segment.base);
        let place = format!("{stem}.log");
        let index = self.index_of(&stem, segment)?;
        let pos = index.before_offset(segment.base, from);
        let opened = self.shared.files.open(self.shared.disk.as_ref(), &place);
        let file = match opened {
            Ok(file) => file,
            // Retention was quicker: say what is there now.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.start() > from => {
                return Err(LogError::OutOfRange { asked: from, start: self.start(), end: self.durable_end() });
            }
            Err(e) => return Err(LogError::io(format!("open {place}"))(e)),
        };
        let (bytes, next) = segment::read(file.as_ref(), &place, pos, segment.length, from, max_bytes)?;
        let chunks = if bytes.is_empty() { Vec::new() } else { vec![bytes] };
        // The segment ends with a gap: whoever reads goes on behind it.
        let next = if chunks.is_empty() { segment.next } else { next };
        Ok(Fetched { chunks, next, cached: Vec::new() })
    }

    /// A segment's index, read or made again where it was not needed before.
    fn index_of(&self, stem: &str, segment: &Segment) -> Result<Arc<super::index::SegmentIndex>, LogError> {
        if let Some(index) = &segment.index {
            return Ok(Arc::clone(index));
        }
        let disk = self.shared.disk.as_ref();
        let index = match super::index::SegmentIndex::load(disk, stem, segment.length) {
            Some(index) => Arc::new(index),
            None => segment::walk(disk, stem, segment.base, segment.length, segment.first_received)?.index.unwrap_or_default(),
        };
        let mut inner = self.inner.lock();
        if let Some(here) = inner.segments.iter_mut().find(|s| s.base == segment.base)
            && here.length == segment.length
        {
            here.index = Some(Arc::clone(&index));
        }
        Ok(index)
    }

    /// The first record whose timestamp is at or after `timestamp`, and that timestamp.
    pub fn offset_at(&self, timestamp: i64) -> Result<Option<(Offset, i64)>, LogError> {
        let (candidates, tail, start) = {
            let inner = self.inner.lock();
            let dir = inner.dir.clone().unwrap_or_default();
            let candidates: Vec<(String, Segment)> =
                inner.segments.iter().filter(|s| s.max_timestamp >= timestamp).map(|s| (dir.clone(), s.clone())).collect();
            let written = inner.tail.len() - inner.unwritten;
            let tail: Vec<Batch> = inner.tail.iter().skip(written).map(|t| t.batch.clone()).collect();
            (candidates, tail, inner.start)
        };
        for (dir, segment) in &candidates {
            let stem = Segment::stem(dir, segment.base);
            let place = format!("{stem}.log");
            let file = self.shared.files.open(self.shared.disk.as_ref(), &place).map_err(LogError::io(format!("open {place}")))?;
            let mut pos = self.index_of(&stem, segment)?.before_time(timestamp);
            while pos < segment.length {
                let (bytes, _) = segment::read(file.as_ref(), &place, pos, segment.length, Offset(i64::MIN), 256 * 1024)?;
                if bytes.is_empty() {
                    break;
                }
                pos += bytes.len() as u64;
                let mut raw = bytes;
                while let Some(batch) = Batch::split(&mut raw).map_err(LogError::batch(place.clone()))? {
                    if let Some(found) = first_at(&batch, timestamp, start, &place)? {
                        return Ok(Some(found));
                    }
                }
            }
        }
        for batch in &tail {
            if let Some(found) = first_at(batch, timestamp, start, "memory")? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The record with the largest timestamp (the first such), and that timestamp.
    pub fn max_timestamp(&self) -> Result<Option<(Offset, i64)>, LogError> {
        let largest = {
            let inner = self.inner.lock();
            let stored = inner.segments.iter().map(|s| s.max_timestamp).max();
            let memory = inner.tail.iter().map(|t| t.batch.max_timestamp()).max();
            stored.max(memory)
        };
        match largest {
            Some(at) if at > i64::MIN => self.offset_at(at),
            _ => Ok(None),
        }
    }

    /// Lets records below `to` go, durably: the start is moved at once, whole segments below it are deleted.
    pub fn advance_start(&self, to: Offset) -> Result<(), LogError> {
        let to = to.min(self.durable_end());
        if to <= self.start() {
            return Ok(());
        }
        self.shared.move_start(self, to)
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

/// The first record of a batch at or after a time, at or behind `start`.
fn first_at(batch: &Batch, timestamp: i64, start: Offset, place: &str) -> Result<Option<(Offset, i64)>, LogError> {
    if batch.max_timestamp() < timestamp || batch.next_offset() <= start {
        return Ok(None);
    }
    let records = batch.records().map_err(LogError::batch(place.to_owned()))?;
    for record in records.iter() {
        let record = record.map_err(LogError::batch(place.to_owned()))?;
        if record.timestamp >= timestamp && record.offset >= start {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}
