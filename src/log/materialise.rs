//! The second thread: batches into segments, segments onto the disk, the WAL cut behind them.
//!
//! Always: a WAL file goes only when everything in it is in segments that are synced, and the checkpoint that says so is
//! durable. Nothing runs while nothing is due: an idle log costs nothing. Where there is no room, it waits and tries again: the
//! WAL has everything.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::cache::evict;
use super::checkpoint::{Checkpoint, StoredPartition};
use super::disk::{Disk, DiskFile};
use super::index::SegmentIndex;
use super::partition::{Inner, PartitionLog, TailBatch};
use super::segment::{Head, Segment, Stored, make_index};
use super::shared::{Shared, Step, Trouble, Work};
use super::{LogError, PartitionKey, wal};
use crate::record::{Offset, TopicName};

/// Where the partitions' folders lie.
pub(super) const DIR: &str = "partitions";
/// A folder that is being deleted ends so.
pub(super) const GONE: &str = ".gone";
/// Segments are written when so many bytes wait, or so many for each partition that has some.
const STEP_BYTES: usize = 2 << 20;
const STEP_BYTES_EACH: usize = 64 << 10;
/// Each time so much of a segment was written, the disk is told to begin with it.
const FLUSH_BYTES: u64 = 1 << 20;
/// One write to a segment takes about so much.
const WRITE_BYTES: usize = 8 << 20;
/// With more files than this to sync, the file system is told to write all it has first.
const MANY_FILES: usize = 64;
/// The index of a smaller segment that is still written to is not worth its files: it is made again in a moment.
const INDEXED_BYTES: u64 = 256 << 10;
/// Of a topic's name, so much is in its folders' names.
const NAME_BYTES: usize = 150;
/// How long it is until a full disk is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Whether there is enough to do.
pub(super) fn is_due(shared: &Shared, work: &Work) -> bool {
    // Small steps, so that the WAL's syncs do not queue behind a heap of writes; but not a small write for each of a thousand files.
    let spread = work.dirty.len().saturating_mul(STEP_BYTES_EACH);
    let step = if spread > STEP_BYTES { spread } else { STEP_BYTES };
    let enough = work.bytes >= step || work.bytes >= shared.config.write_behind_bytes;
    let full = enough || work.wal_bytes >= shared.config.wal_max_bytes;
    full || work.closing || work.urgent || work.cut || work.prepare.is_some() || !work.trim.is_empty()
}

/// The thread's state. Driven step by step by the tests.
#[derive(Default)]
pub(super) struct Materialiser {
    /// The last checkpoint is written.
    pub closed: bool,
}

impl Materialiser {
    /// The thread's life.
    pub(super) fn run(mut self, shared: &Shared) {
        while !self.closed && shared.failure().is_none() {
            let step = self.step(shared);
            let mut work = shared.work.lock();
            match step {
                Step::Done => {}
                Step::Held if work.closing => {
                    tracing::warn!("there is no room to finish the segments: the next start replays the WAL");
                    return;
                }
                Step::Held => {
                    shared.work_wake.wait_for(&mut work, TRY_AGAIN);
                    drop(work);
                    shared.guard.state(shared.disk.as_ref());
                }
                Step::Idle => {
                    if !is_due(shared, &work) && shared.failure().is_none() {
                        shared.work_wake.wait(&mut work);
                    }
                }
            }
        }
    }

    /// Does what is due.
    pub(super) fn step(&mut self, shared: &Shared) -> Step {
        let (dirty, bytes, cut, closing) = {
            let mut work = shared.work.lock();
            if !is_due(shared, &work) || self.closed {
                return Step::Idle;
            }
            if let Some(number) = work.prepare.take() {
                drop(work);
                wal::make_ahead(shared, number);
                return Step::Done;
            }
            if !work.trim.is_empty() {
                let rest = std::mem::take(&mut work.trim);
                drop(work);
                wal::trim(shared, &rest);
                return Step::Done;
            }
            work.urgent = false;
            let cut = work.wal_bytes >= shared.config.wal_max_bytes || std::mem::take(&mut work.cut);
            (std::mem::take(&mut work.dirty), work.bytes, cut, work.closing)
        };
        let written = write(shared, &dirty).map(|()| {
            let mut work = shared.work.lock();
            work.bytes = work.bytes.saturating_sub(bytes);
            drop(work);
            // Memory and whoever waits for it do not wait for the syncs of a checkpoint too.
            evict(shared);
            shared.work_done.notify_all();
        });
        let done = written.and_then(|()| if cut || closing { checkpoint(shared, closing) } else { Ok(()) });
        match done {
            Ok(()) => {
                self.closed = closing;
                evict(shared);
                shared.work_done.notify_all();
                Step::Done
            }
            Err(Trouble::NoRoom(error)) => {
                shared.guard.run_out(shared.disk.as_ref(), &error.to_string());
                let mut work = shared.work.lock();
                work.dirty.extend(dirty);
                // It is due until it is done.
                work.urgent = true;
                work.cut |= cut;
                Step::Held
            }
            Err(Trouble::Final(error)) => {
                // The WAL still has everything; but it can never be cut again.
                shared.fail(error.to_string());
                Step::Done
            }
        }
    }
}

/// Makes the next WAL file if it is wanted: the WAL must not wait behind long work.
fn serve_wal(shared: &Shared) {
    let wanted = shared.work.lock().prepare.take();
    if let Some(number) = wanted {
        wal::make_ahead(shared, number);
    }
}

/// Writes what these partitions have in memory into their segments.
fn write(shared: &Shared, dirty: &BTreeSet<PartitionKey>) -> Result<(), Trouble> {
    for key in dirty {
        if let Some(partition) = shared.partition(*key) {
            write_all(shared, &partition)?;
        }
    }
    Ok(())
}

fn write_all(shared: &Shared, partition: &PartitionLog) -> Result<(), Trouble> {
    loop {
        serve_wal(shared);
        match write_some(shared, partition) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            // Its folder went while we wrote.
            Err(_) if partition.is_removed() => return Ok(()),
            Err(trouble) => return Err(trouble),
        }
    }
}

/// An index that a closed segment leaves behind, to be written under this stem.
pub(super) struct Closed(Option<(String, Arc<SegmentIndex>)>);

impl Closed {
    /// Writes it. If that fails, it is made again when it is needed.
    pub(super) fn save(self, disk: &dyn Disk) {
        if let Some((stem, index)) = self.0
            && let Err(error) = index.save(disk, &stem)
        {
            tracing::debug!(stem, %error, "an index was not written; it will be made again");
        }
    }
}

/// Begins a new last segment, whose file is made with its first batch.
pub(super) fn roll(inner: &mut Inner, base: Offset) -> Closed {
    if inner.segments.last().is_some_and(|last| last.length == 0 && last.version == 0) {
        // It has no file yet, and comes to nothing.
        inner.segments.pop();
    }
    let dir = inner.dir.as_deref().unwrap_or_default();
    let closed = inner.segments.last_mut().and_then(|last| Some((last.stem(dir), last.index.take()?)));
    inner.segments.push(Segment::new(base));
    Closed(closed)
}

/// A run of batches to be written to a segment.
struct Run {
    dir: String,
    batches: Vec<TailBatch>,
    segment: Segment,
    closed: Closed,
}

/// Writes a run of batches of one partition; answers whether there is more.
fn write_some(shared: &Shared, partition: &PartitionLog) -> Result<bool, Trouble> {
    let Some(Run { dir, batches, mut segment, closed }) = next_run(shared, partition)? else { return Ok(false) };
    let disk = shared.disk.as_ref();
    closed.save(disk);
    let path = segment.path(&dir);
    let is_new = segment.length == 0;
    if is_new {
        shared.files.forget(&path);
    }
    let file = shared.files.open(disk, &path, is_new).map_err(Trouble::of(format!("make {path}")))?;
    let there = file.length().map_err(Trouble::of(format!("read {path}")))?;
    if there < segment.length {
        let why = format!("it has {there} bytes and should have {}", segment.length);
        return Err(Trouble::Final(LogError::Corrupt { place: path, why }));
    }
    if std::mem::take(&mut segment.taken_over) && !is_new {
        match take_over(disk, &dir, file.as_ref(), &segment) {
            Ok(index) => segment.index = Some(index),
            Err(error) => {
                tracing::error!(%error, "a segment is not what was written: it stays as it is, and what comes goes into a new one");
                leave(shared, partition, &segment);
                return Ok(true);
            }
        }
    }
    if there > segment.length {
        // Bytes of before a crash, which the WAL has replaced, or of a write that found no room.
        file.truncate(segment.length).map_err(Trouble::of(format!("cut {path}")))?;
    }
    let pieces: Vec<IoSlice<'_>> = batches.iter().flat_map(|t| t.batch.chunks()).map(IoSlice::new).collect();
    file.write_at(&pieces, segment.length).map_err(Trouble::of(format!("write {path}")))?;
    // Partitions that grow alike do not come to it all at once.
    let turn = u64::from(partition.key().partition.0.unsigned_abs().wrapping_mul(0x9e37_79b1)) % FLUSH_BYTES;
    let flushes = (segment.length + turn) / FLUSH_BYTES;
    for tail in &batches {
        segment.grew(Head::of(&tail.batch), tail.received.0);
    }
    if (segment.length + turn) / FLUSH_BYTES > flushes {
        file.flush_soon(segment.flushed, segment.length - segment.flushed);
        segment.flushed = segment.length;
    }
    let mut inner = partition.inner.lock();
    if partition.is_removed() {
        return Ok(false);
    }
    inner.unwritten -= batches.len();
    if let Some(last) = inner.segments.last_mut().filter(|s| s.base == segment.base) {
        // Someone may have made its index while we wrote.
        segment.index = segment.index.or_else(|| last.index.take());
        *last = segment;
    }
    Ok(inner.unwritten > 0)
}

/// Looks at the end of a segment of before the start, before more is written to it: behind damage, or in another's file, it could not be
/// found again. The start itself looks at no segment, so that it takes as long as the WAL; this is done once for each that is written
/// to, and gives its index.
fn take_over(disk: &dyn Disk, dir: &str, file: &dyn DiskFile, segment: &Segment) -> Result<Arc<SegmentIndex>, LogError> {
    let path = segment.path(dir);
    let stored = Stored { file, path: &path, segment };
    let made = || make_index(disk, &segment.stem(dir), &stored, segment.base, true).map(Arc::new);
    let index = segment.index.clone().map_or_else(made, Ok)?;
    stored.check_places(index.last(segment.base))?;
    Ok(index)
}

/// Closes a segment, which is the last one, as it is.
fn leave(shared: &Shared, partition: &PartitionLog, segment: &Segment) {
    let mut inner = partition.inner.lock();
    if inner.segments.last().is_some_and(|last| last.is_file_of(segment)) {
        let closed = roll(&mut inner, segment.next);
        drop(inner);
        closed.save(shared.disk.as_ref());
    }
}

/// What is to be written next, and where.
fn next_run(shared: &Shared, partition: &PartitionLog) -> Result<Option<Run>, Trouble> {
    let needs_folder = {
        let inner = partition.inner.lock();
        if inner.unwritten == 0 || partition.is_removed() {
            return Ok(None);
        }
        inner.dir.is_none().then(|| folder(inner.name.as_ref(), partition.key()))
    };
    if let Some(dir) = &needs_folder {
        // What a crash may have left of it, the WAL has.
        shared.disk.remove_dir(dir).map_err(Trouble::of(format!("clear {dir}")))?;
        shared.disk.make_dir(dir).map_err(Trouble::of(format!("make {dir}")))?;
    }
    let mut inner = partition.inner.lock();
    if partition.is_removed() {
        drop(inner);
        // It went while we made its folder.
        return needs_folder
            .map_or(Ok(None), |dir| shared.disk.remove_dir(&dir).map(|()| None).map_err(Trouble::of(format!("delete {dir}"))));
    }
    let dir = inner.dir.get_or_insert_with(|| needs_folder.unwrap_or_default()).clone();
    let first = inner.tail.len() - inner.unwritten;
    let base = inner.tail[first].batch.base_offset();
    let received = inner.tail[first].received;
    let (limit, segment_ms) = (inner.config.segment_bytes, inner.config.segment_ms);
    let is_full = |s: &Segment| s.length > 0 && (s.length >= limit || received.0.saturating_sub(s.first_received) > segment_ms);
    // Nor is a gap made in one, and what was compacted is named by its end.
    let is_closed = |s: &Segment| is_full(s) || s.next != base || s.version > 0;
    let closed = if inner.segments.last().is_none_or(is_closed) { roll(&mut inner, base) } else { Closed(None) };
    let segment = inner.segments.last().expect("there is one now").clone();
    let room = usize::try_from(limit.saturating_sub(segment.length)).unwrap_or(usize::MAX).clamp(1, WRITE_BYTES);
    let mut bytes = 0;
    let mut batches: Vec<TailBatch> = Vec::new();
    for tail in inner.tail.iter().skip(first) {
        let size = tail.batch.len_bytes();
        if !batches.is_empty() && bytes + size > room {
            break;
        }
        bytes += size;
        batches.push(tail.clone());
    }
    Ok(Some(Run { dir, batches, segment, closed }))
}

/// The folder of a partition: its topic's name for people, its identity for us.
fn folder(name: Option<&TopicName>, key: PartitionKey) -> String {
    let name = name.map_or("unnamed", TopicName::as_str);
    let id = key.topic.0.iter().fold(String::with_capacity(32), |mut hex, byte| {
        use std::fmt::Write;
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    format!("{DIR}/{}-{}.{id}", &name[..name.len().min(NAME_BYTES)], key.partition)
}

/// Deletes a partition's folder so that a crash leaves it whole, or as one that is being deleted.
pub(super) fn delete_folder(disk: &dyn Disk, dir: &str) -> Result<(), LogError> {
    let gone = format!("{dir}{GONE}");
    match disk.rename(dir, &gone) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(LogError::io(format!("delete {dir}"))(e)),
    }
    disk.remove_dir(&gone).and_then(|()| disk.sync_dir(DIR)).map_err(LogError::io(format!("delete {dir}")))
}

/// Syncs what was written, says so durably, and lets WAL files go that nothing needs any more.
pub(super) fn checkpoint(shared: &Shared, closing: bool) -> Result<(), Trouble> {
    // Everything in files before this one, and all entries up to this one, has been kept by its partition before we look at them.
    let current = shared.wal_file.load(Ordering::Acquire);
    let sequence = shared.published.load(Ordering::Acquire);
    let sync = shared.published_sync.load(Ordering::Acquire);
    let wal_bytes = shared.work.lock().wal_bytes;
    // Replaced before we look: what we write down does not name them any more.
    let replaced = shared.replaced.lock().clone();
    if closing && !replaced.is_empty() {
        // A closed log is believed without a look: it leaves nothing lying.
        checkpoint(shared, false)?;
        return checkpoint(shared, true);
    }
    write_checkpoint(shared, closing, &Seen { current, sequence, sync })?;
    for (dir, segment) in &replaced {
        shared.replaced.lock().retain(|(of, other)| of != dir || !other.is_file_of(segment));
        if let Err(error) = segment.delete(shared, dir) {
            tracing::warn!(dir, base = %segment.base, %error, "a file that was compacted stays until the next start");
        }
    }
    let mut work = shared.work.lock();
    work.wal_bytes = work.wal_bytes.saturating_sub(wal_bytes);
    Ok(())
}

/// How far the WAL had come when a checkpoint began.
struct Seen {
    current: u64,
    sequence: u64,
    sync: u64,
}

fn write_checkpoint(shared: &Shared, closing: bool, seen: &Seen) -> Result<(), Trouble> {
    let Seen { current, sequence, sync } = *seen;
    let mut partitions: Vec<Arc<PartitionLog>> = shared.partitions.read().values().cloned().collect();
    partitions.sort_by_key(|partition| partition.key());
    let mut stored = Vec::new();
    let mut dirty = 0;
    for partition in &partitions {
        write_all(shared, partition)?;
        dirty += partition.inner.lock().segments.iter().filter(|segment| segment.dirty).count();
    }
    if dirty > MANY_FILES {
        serve_wal(shared);
        shared.disk.flush_all();
    }
    for partition in &partitions {
        write_all(shared, partition)?;
        match sync_partition(shared, partition) {
            Err(_) if partition.is_removed() => {}
            other => other?,
        }
        let inner = partition.inner.lock();
        if !partition.is_removed() {
            stored.push(StoredPartition {
                key: partition.key(),
                dir: inner.dir.clone(),
                start: inner.start,
                clean_to: inner.clean_to,
                segments: inner.segments.clone(),
            });
        }
    }
    shared.disk.make_dir(DIR).map_err(Trouble::of("make the partitions' folder"))?;
    shared.disk.sync_dir(DIR).map_err(Trouble::of_sync("sync the partitions' folder"))?;
    // What a partition shows ahead of its sync may be in segments by now: not without the rest of its group.
    let unsynced = shared.unsynced.lock().clone();
    if let Some((file, path)) = unsynced {
        file.sync().map_err(Trouble::of_sync(format!("sync {path}")))?;
    }
    // A closed log needs nothing of its WAL; a running one goes on writing to the current file.
    let wal_from = if closing { current + 1 } else { current };
    Checkpoint { wal_from, sequence, sync, clean: closing, rebuilt: false, partitions: stored }.save(shared.disk.as_ref())?;
    wal::release(shared, wal_from, !closing)
}

/// Syncs a partition's segments that were written to, and their folder.
fn sync_partition(shared: &Shared, partition: &PartitionLog) -> Result<(), Trouble> {
    let (dir, dirty) = {
        let inner = partition.inner.lock();
        let dirty: Vec<Segment> = inner.segments.iter().filter(|s| s.dirty).cloned().collect();
        (inner.dir.clone(), dirty)
    };
    let Some(dir) = dir.filter(|_| !dirty.is_empty()) else { return Ok(()) };
    let disk = shared.disk.as_ref();
    for segment in &dirty {
        serve_wal(shared);
        let path = segment.path(&dir);
        match shared.files.open(disk, &path, false) {
            Ok(file) => file.sync().map_err(Trouble::of_sync(format!("sync {path}")))?,
            // Deleted meanwhile, by retention.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Trouble::of(format!("open {path}"))(e)),
        }
        if let Some(index) = segment.index.as_ref().filter(|_| segment.length >= INDEXED_BYTES) {
            Closed(Some((segment.stem(&dir), Arc::clone(index)))).save(disk);
        }
    }
    disk.sync_dir(&dir).map_err(Trouble::of_sync(format!("sync {dir}")))?;
    let mut inner = partition.inner.lock();
    for segment in &mut inner.segments {
        segment.dirty &= !dirty.iter().any(|synced| synced.base == segment.base && synced.length == segment.length);
    }
    Ok(())
}
