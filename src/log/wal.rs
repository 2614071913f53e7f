//! The WAL thread: takes what is queued, writes it, syncs once, makes it visible, tells everyone.
//!
//! Always: whatever was queued while a sync ran rides on the next one, so the cost of durability is shared by all who
//! wait and does not grow with the number of partitions. All of a sync's groups are readable before anyone is woken.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::oneshot;

use super::LogError;
use super::disk::DiskFile;
use super::entry::Encoded;
use super::store::{Append, Queued, Shared};

/// Where WAL files lie.
pub(super) const DIR: &str = "wal";
/// At most about so much is written between two syncs.
const SYNC_BYTES: usize = 32 << 20;
/// How many sync times are kept for whoever looks.
const KEPT_TIMES: usize = 4096;

/// The path of a WAL file.
pub(super) fn path(number: u64) -> String {
    format!("{DIR}/{number:020}.wal")
}

/// The number that a file's name says.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".wal").filter(|stem| stem.len() == 20)?.parse().ok()
}

/// The writing end of the WAL.
pub(super) struct Writer {
    number: u64,
    file: Arc<dyn DiskFile>,
    pos: u64,
    /// The next file, made ahead so that a change of files does not stall anyone.
    next: Option<Arc<dyn DiskFile>>,
    sync: u64,
    sequence: u64,
}

impl Writer {
    /// A writer that begins a file of its own, behind what recovery found.
    pub(super) fn begin(shared: &Shared, number: u64, sync: u64, sequence: u64) -> Result<Self, LogError> {
        shared.disk.make_dir(DIR).map_err(LogError::io("make the WAL's folder"))?;
        let file = make(shared, number)?;
        shared.wal_file.store(number, Ordering::Release);
        Ok(Self { number, file, pos: 0, next: None, sync, sequence })
    }

    fn write(&mut self, shared: &Shared, batch: &[Queued]) -> Result<u64, LogError> {
        self.sync += 1;
        let encoded: Vec<Encoded> = batch
            .iter()
            .map(|item| {
                self.sequence += 1;
                match item {
                    Queued::Group { appends, .. } => Encoded::group(self.sync, self.sequence, appends),
                    Queued::Start { key, to, .. } => Encoded::start(self.sync, self.sequence, *key, *to),
                }
            })
            .collect();
        let mut pieces: Vec<IoSlice<'_>> = Vec::new();
        const NONE: &[Append] = &[];
        for (item, encoded) in batch.iter().zip(&encoded) {
            let appends = if let Queued::Group { appends, .. } = item { appends.as_slice() } else { NONE };
            encoded.pieces(appends, &mut pieces);
        }
        let bytes: u64 = pieces.iter().map(|p| p.len() as u64).sum();
        if self.pos > 0 && self.pos + bytes > shared.config.wal_segment_bytes {
            self.turn(shared)?;
        }
        self.file.write_at(&pieces, self.pos).map_err(LogError::io("write the WAL"))?;
        let begun = Instant::now();
        self.file.sync().map_err(LogError::io("sync the WAL"))?;
        let mut times = shared.sync_times.lock();
        if times.len() < KEPT_TIMES {
            times.push(begun.elapsed());
        }
        drop(times);
        self.pos += bytes;
        Ok(bytes)
    }

    /// On to the next file.
    fn turn(&mut self, shared: &Shared) -> Result<(), LogError> {
        let next = match self.next.take() {
            Some(next) => next,
            None => make(shared, self.number + 1)?,
        };
        self.number += 1;
        self.file = next;
        self.pos = 0;
        shared.wal_file.store(self.number, Ordering::Release);
        Ok(())
    }

    /// Makes the next file while nobody waits for it.
    fn prepare(&mut self, shared: &Shared) {
        if self.next.is_none() && self.pos > shared.config.wal_segment_bytes / 2 {
            // If it cannot be made now, `turn` says so when it matters.
            self.next = make(shared, self.number + 1).ok();
        }
    }
}

fn make(shared: &Shared, number: u64) -> Result<Arc<dyn DiskFile>, LogError> {
    let path = path(number);
    let disk = shared.disk.as_ref();
    let file = disk.open(&path, true).map_err(LogError::io(format!("make {path}")))?;
    file.truncate(0).map_err(LogError::io(format!("make {path}")))?;
    // Without room ahead the file grows as it is written: slower, and no less safe.
    if let Err(error) = file.reserve(shared.config.wal_segment_bytes) {
        tracing::warn!(%error, "could not reserve room for the WAL");
        file.truncate(0).map_err(LogError::io(format!("make {path}")))?;
    }
    file.sync().map_err(LogError::io(format!("sync {path}")))?;
    disk.sync_dir(DIR).map_err(LogError::io("sync the WAL's folder"))?;
    Ok(file)
}

/// The thread's life.
pub(super) fn run(shared: &Shared, mut writer: Writer) {
    loop {
        let batch = {
            let mut queue = shared.queue.lock();
            while queue.items.is_empty() && !queue.closing && shared.failure().is_none() {
                shared.queue_wake.wait(&mut queue);
            }
            if queue.items.is_empty() {
                return;
            }
            take(&mut queue.items)
        };
        step(shared, &mut writer, batch);
        writer.prepare(shared);
        wait_for_segments(shared);
    }
}

/// Takes from the front what fits into one sync.
fn take(items: &mut Vec<Queued>) -> Vec<Queued> {
    let mut bytes = 0;
    let fits = items.iter().take_while(|item| {
        let before = bytes;
        if let Queued::Group { appends, .. } = item {
            bytes += appends.iter().map(|a| a.batch.len_bytes()).sum::<usize>();
        }
        before < SYNC_BYTES
    });
    let n = fits.count();
    let rest = items.split_off(n);
    std::mem::replace(items, rest)
}

/// Writes, syncs, publishes. Also driven directly by the tests.
pub(super) fn step(shared: &Shared, writer: &mut Writer, batch: Vec<Queued>) {
    if let Some(why) = shared.failure() {
        for item in batch {
            tell(item, Err(why.clone()));
        }
        return;
    }
    match writer.write(shared, &batch) {
        Ok(bytes) => publish(shared, batch, bytes),
        Err(error) => {
            // What a failed sync left on the disk nobody knows: nothing may be promised on top of it.
            let why = error.to_string();
            shared.fail(why.clone());
            for item in batch {
                tell(item, Err(why.clone()));
            }
        }
    }
}

fn tell(item: Queued, outcome: Result<(), String>) {
    let done: oneshot::Sender<_> = match item {
        Queued::Group { done, permit, .. } => {
            drop(permit);
            done
        }
        Queued::Start { done, .. } => done,
    };
    // Whoever asked may have gone.
    let _ = done.send(outcome);
}

fn publish(shared: &Shared, batch: Vec<Queued>, wal_bytes: u64) {
    let mut touched = Vec::new();
    let mut bytes = 0;
    let mut groups = 0;
    {
        let mut cache = shared.cache.lock();
        for item in &batch {
            let Queued::Group { appends, .. } = item else { continue };
            groups += 1;
            for append in appends {
                let size = append.batch.len_bytes();
                bytes += size;
                append.to.publish(append.batch.clone(), append.received);
                cache.order.push_back((Arc::downgrade(&append.to), size));
                cache.bytes += size;
                touched.push(Arc::clone(&append.to));
            }
        }
    }
    touched.sort_by_key(|p| p.key());
    touched.dedup_by_key(|p| p.key());
    let keys: BTreeSet<_> = touched.iter().map(|p| p.key()).collect();
    for partition in &touched {
        partition.wake();
    }
    for item in batch {
        tell(item, Ok(()));
    }
    shared.groups.fetch_add(groups, Ordering::Relaxed);
    shared.syncs.fetch_add(1, Ordering::Relaxed);
    shared.queued_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    super::materialise::evict(shared);
    let mut work = shared.work.lock();
    work.dirty.extend(keys);
    work.bytes += bytes;
    work.wal_bytes += wal_bytes;
    if super::materialise::is_due(shared, &work) {
        shared.work_wake.notify_one();
    }
}

/// Where the segments fall too far behind, the WAL waits: memory is not without bounds.
fn wait_for_segments(shared: &Shared) {
    let mut work = shared.work.lock();
    while work.bytes > shared.config.max_pending_bytes.max(shared.config.write_behind_bytes) * 2
        && !work.closing
        && shared.failure().is_none()
    {
        shared.work_done.wait(&mut work);
    }
}
