//! The second thread: batches into segments, segments onto the disk, the WAL cut behind them.
//!
//! Always: a WAL file goes only when everything in it is in segments that are synced, and the checkpoint that says so is
//! durable. Nothing runs while nothing is due: an idle log costs nothing.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::partition::{PartitionLog, TailBatch};
use super::recovery::{Checkpoint, StoredPartition};
use super::segment::Segment;
use super::store::{Shared, Work};
use super::{LogError, PartitionKey, wal};
use crate::record::TopicName;

/// Where the partitions' folders lie.
pub(super) const DIR: &str = "partitions";
/// One write to a segment takes about so much.
const WRITE_BYTES: usize = 8 << 20;
/// Of a topic's name, so much is in its folders' names.
const NAME_BYTES: usize = 150;

/// Whether there is enough to do.
pub(super) fn is_due(shared: &Shared, work: &Work) -> bool {
    work.closing || work.urgent || work.bytes >= shared.config.write_behind_bytes || work.wal_bytes >= shared.config.wal_max_bytes
}

/// The thread's life.
pub(super) fn run(shared: &Shared) {
    loop {
        let (dirty, bytes, cut, closing) = {
            let mut work = shared.work.lock();
            while !is_due(shared, &work) && shared.failure().is_none() {
                shared.work_wake.wait(&mut work);
            }
            work.urgent = false;
            let cut = work.wal_bytes >= shared.config.wal_max_bytes;
            (std::mem::take(&mut work.dirty), work.bytes, cut, work.closing)
        };
        if shared.failure().is_some() {
            return;
        }
        let done = write(shared, &dirty).and_then(|()| if cut || closing { checkpoint(shared, closing) } else { Ok(()) });
        if let Err(error) = done {
            // The WAL still has everything; but it can never be cut again, and reads would miss what is evicted.
            shared.fail(error.to_string());
            return;
        }
        {
            let mut work = shared.work.lock();
            work.bytes = work.bytes.saturating_sub(bytes);
        }
        evict(shared);
        shared.work_done.notify_all();
        if closing {
            return;
        }
    }
}

/// Writes what these partitions have in memory into their segments.
pub(super) fn write(shared: &Shared, dirty: &BTreeSet<PartitionKey>) -> Result<(), LogError> {
    for key in dirty {
        if let Some(partition) = shared.partition(*key) {
            while write_some(shared, &partition)? {}
        }
    }
    Ok(())
}

/// Writes a run of batches of one partition; answers whether there is more.
fn write_some(shared: &Shared, partition: &PartitionLog) -> Result<bool, LogError> {
    let (dir, batches, mut segment, fresh) = {
        let mut inner = partition.inner.lock();
        if inner.unwritten == 0 || inner.removed {
            return Ok(false);
        }
        let dir = match &inner.dir {
            Some(dir) => dir.clone(),
            None => {
                let dir = folder(inner.name.as_ref(), partition.key());
                shared.disk.remove_dir(&dir).map_err(LogError::io(format!("clear {dir}")))?;
                shared.disk.make_dir(&dir).map_err(LogError::io(format!("make {dir}")))?;
                inner.dir = Some(dir.clone());
                dir
            }
        };
        let first = inner.tail.len() - inner.unwritten;
        let base = inner.tail[first].batch.base_offset();
        let received = inner.tail[first].received;
        let (limit, segment_ms) = (inner.config.segment_bytes, inner.config.segment_ms);
        let full = |s: &Segment| s.length > 0 && (s.length >= limit || received.0.saturating_sub(s.first_received) > segment_ms);
        let fresh = inner.segments.last().is_none_or(full);
        if fresh {
            if let Some(last) = inner.segments.last()
                && let Some(index) = &last.index
                && let Err(error) = index.save(shared.disk.as_ref(), &Segment::stem(&dir, last.base))
            {
                tracing::debug!(%error, "an index was not written; it will be made again");
            }
            inner.segments.push(Segment::new(base));
        }
        let segment = inner.segments.last().expect("there is one now").clone();
        let mut room = limit.saturating_sub(segment.length).max(1) as usize;
        let mut batches: Vec<TailBatch> = Vec::new();
        let mut bytes = 0;
        for tail in inner.tail.iter().skip(first) {
            let size = tail.batch.len_bytes();
            if !batches.is_empty() && (size > room || bytes + size > WRITE_BYTES) {
                break;
            }
            room = room.saturating_sub(size);
            bytes += size;
            batches.push(tail.clone());
        }
        (dir, batches, segment, fresh)
    };
    let place = format!("{}.log", Segment::stem(&dir, segment.base));
    if fresh {
        shared.files.forget(&place);
        shared.disk.open(&place, true).map_err(LogError::io(format!("make {place}")))?;
    }
    let file = shared.files.open(shared.disk.as_ref(), &place).map_err(LogError::io(format!("open {place}")))?;
    if file.length().map_err(LogError::io(format!("read {place}")))? != segment.length {
        // Bytes of before a crash, which the WAL has replaced.
        file.truncate(segment.length).map_err(LogError::io(format!("cut {place}")))?;
    }
    let pieces: Vec<IoSlice<'_>> = batches.iter().flat_map(|t| t.batch.chunks()).map(IoSlice::new).collect();
    file.write_at(&pieces, segment.length).map_err(LogError::io(format!("write {place}")))?;
    let written = batches.len();
    for tail in &batches {
        segment.grew(&tail.batch, tail.received.0);
    }
    let mut inner = partition.inner.lock();
    if inner.removed {
        return Ok(false);
    }
    inner.unwritten -= written;
    if let Some(last) = inner.segments.last_mut().filter(|s| s.base == segment.base) {
        *last = segment;
    }
    Ok(inner.unwritten > 0)
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

/// Syncs what was written, says so durably, and lets WAL files go that nothing needs any more.
pub(super) fn checkpoint(shared: &Shared, closing: bool) -> Result<(), LogError> {
    // Everything in files before this one has been published before we look at the partitions.
    let current = shared.wal_file.load(Ordering::Acquire);
    let wal_bytes = shared.work.lock().wal_bytes;
    let partitions: Vec<Arc<PartitionLog>> = shared.partitions.read().values().cloned().collect();
    let mut stored = Vec::new();
    for partition in &partitions {
        while write_some(shared, partition)? {}
        let (dir, dirty) = {
            let mut inner = partition.inner.lock();
            let dirty: Vec<Segment> = inner.segments.iter().filter(|s| s.dirty && s.length > 0).cloned().collect();
            for segment in &mut inner.segments {
                segment.dirty = false;
            }
            (inner.dir.clone(), dirty)
        };
        if let Some(dir) = dir.filter(|_| !dirty.is_empty()) {
            for segment in dirty {
                let place = format!("{}.log", Segment::stem(&dir, segment.base));
                let file = match shared.files.open(shared.disk.as_ref(), &place) {
                    Ok(file) => file,
                    // Deleted meanwhile, by retention or with its topic.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(LogError::io(format!("open {place}"))(e)),
                };
                file.sync().map_err(LogError::io(format!("sync {place}")))?;
            }
            if let Err(error) = shared.disk.sync_dir(&dir)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(LogError::io(format!("sync {dir}"))(error));
            }
        }
        let inner = partition.inner.lock();
        if inner.removed {
            continue;
        }
        let segments = inner.segments.iter().filter(|s| !s.dirty).cloned().collect();
        stored.push(StoredPartition { key: partition.key(), dir: inner.dir.clone(), start: inner.start, segments });
    }
    shared.disk.make_dir(DIR).and_then(|()| shared.disk.sync_dir(DIR)).map_err(LogError::io("sync the partitions' folder"))?;
    // A closed log needs nothing of its WAL; a running one goes on writing to the current file.
    let wal_from = if closing { current + 1 } else { current };
    Checkpoint { wal_from, partitions: stored }.save(shared.disk.as_ref())?;
    for name in shared.disk.list(wal::DIR).map_err(LogError::io("list the WAL"))? {
        if wal::number_of(&name).is_some_and(|n| n < wal_from) {
            let path = format!("{}/{name}", wal::DIR);
            shared.disk.remove_file(&path).map_err(LogError::io(format!("delete {path}")))?;
        }
    }
    let mut work = shared.work.lock();
    work.wal_bytes = work.wal_bytes.saturating_sub(wal_bytes);
    Ok(())
}

/// Lets the oldest batches in memory go while there are more than the budget allows. What is not yet in a segment stays, and hurries
/// the writing.
pub(super) fn evict(shared: &Shared) {
    let mut cache = shared.cache.lock();
    while cache.bytes > shared.config.cache_bytes {
        let Some((partition, size)) = cache.order.front() else { break };
        let size = *size;
        if let Some(partition) = partition.upgrade() {
            let mut inner = partition.inner.lock();
            if !inner.tail.is_empty() && inner.unwritten == inner.tail.len() {
                drop(inner);
                drop(cache);
                let mut work = shared.work.lock();
                work.urgent = true;
                shared.work_wake.notify_one();
                return;
            }
            inner.tail.pop_front();
        }
        cache.order.pop_front();
        cache.bytes = cache.bytes.saturating_sub(size);
    }
}
