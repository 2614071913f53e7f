//! The WAL thread: takes what is queued, writes it, syncs once, makes it visible, tells everyone.
//!
//! Always: whatever was queued while a sync ran rides on the next one, so the cost of durability is shared by all who
//! wait and does not grow with the number of partitions. All of a sync's groups become visible in one moment, and before anyone is
//! woken. Where there is no room on the disk, what was taken in is held, in its order, until there is some.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::LogError;
use super::cache::evict;
use super::materialise::is_due;
use super::shared::{Queued, Shared, Step, Trouble, tell};
use super::wal::{Writer, Written, size};

/// About so much is written between two syncs, at most: what comes behind it is not kept waiting for too much.
const SYNC_BYTES: u64 = 8 << 20;
/// How long it is until a full disk is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// The thread's state. Driven step by step by the tests.
pub(super) struct Committer {
    writer: Writer,
    /// What did not fit onto the disk.
    held: Vec<Queued>,
}

impl Committer {
    pub(super) const fn new(writer: Writer) -> Self {
        Self { writer, held: Vec::new() }
    }

    /// The thread's life.
    pub(super) fn run(mut self, shared: &Shared) {
        loop {
            let step = self.step(shared);
            let mut queue = shared.queue.lock();
            match step {
                Step::Done => {}
                Step::Held if queue.closing => break,
                Step::Held => {
                    shared.queue_wake.wait_for(&mut queue, TRY_AGAIN);
                    drop(queue);
                    // Looks whether there is room again.
                    shared.guard.state(shared.disk.as_ref());
                    continue;
                }
                Step::Idle if queue.closing && queue.items.is_empty() => break,
                Step::Idle => {
                    if queue.items.is_empty() {
                        shared.queue_wake.wait(&mut queue);
                    }
                    continue;
                }
            }
            drop(queue);
            wait_for_segments(shared);
        }
        let state = shared.guard.state(shared.disk.as_ref());
        for item in self.held {
            tell(item, || LogError::DiskFull { free: state.free_bytes, needed: state.needed_bytes });
        }
        shared.abandon();
    }

    /// Writes, syncs, publishes what is queued, as far as it fits into one sync.
    pub(super) fn step(&mut self, shared: &Shared) -> Step {
        let mut items = std::mem::take(&mut self.held);
        if items.is_empty() {
            items = take(&mut shared.queue.lock().items);
        }
        if items.is_empty() {
            return Step::Idle;
        }
        if let Some(why) = shared.failure() {
            items.into_iter().for_each(|item| tell(item, || LogError::Failed(why.clone())));
            return Step::Done;
        }
        match self.writer.write(shared, &items) {
            Ok(written) => {
                publish(shared, items, written);
                self.writer.look_ahead(shared);
                Step::Done
            }
            Err(Trouble::NoRoom(what)) => {
                shared.guard.run_out(shared.disk.as_ref(), &what.to_string());
                // Deleting makes room: whoever does must not wait for some.
                let mut queue = shared.queue.lock();
                for item in items.iter_mut().chain(&mut queue.items) {
                    if let Queued::Start { done, .. } = item
                        && let Some(done) = done.take()
                    {
                        let _ = done.send(Ok(()));
                    }
                }
                drop(queue);
                self.held = items;
                Step::Held
            }
            Err(Trouble::Final(error)) => {
                // What a failed sync left on the disk nobody knows: nothing may be promised on top of it.
                let why = error.to_string();
                shared.fail(why.clone());
                items.into_iter().for_each(|item| tell(item, || LogError::Failed(why.clone())));
                Step::Done
            }
        }
    }
}

/// Takes from the front what fits into one sync, at least one item.
fn take(items: &mut Vec<Queued>) -> Vec<Queued> {
    let mut bytes = 0;
    let fits = items.iter().take_while(|item| {
        let before = bytes;
        bytes += size(item);
        before == 0 || bytes <= SYNC_BYTES
    });
    let n = fits.count();
    let rest = items.split_off(n);
    std::mem::replace(items, rest)
}

fn publish(shared: &Shared, items: Vec<Queued>, written: Written) {
    let mut ends = BTreeMap::new();
    let mut bytes = 0;
    let mut groups = 0;
    let mut cache = shared.cache.lock();
    for item in &items {
        match item {
            Queued::Group { appends, .. } => {
                groups += 1;
                for append in appends {
                    let size = append.batch.len_bytes();
                    bytes += size;
                    if append.to.keep(append.batch.clone(), append.received) {
                        cache.note(&append.to, size);
                        ends.insert(append.to.key(), (Arc::clone(&append.to), append.batch.next_offset()));
                    }
                }
            }
            Queued::Start { partition, to, .. } => partition.set_start(&mut partition.inner.lock(), *to),
            Queued::Remove { .. } => {}
        }
    }
    drop(cache);
    {
        let _none_looks = shared.gate.write();
        for (partition, end) in ends.values() {
            partition.show(*end);
        }
    }
    shared.published_sync.store(written.sync, Ordering::Release);
    shared.published.store(written.sequence, Ordering::Release);
    for (partition, _) in ends.values() {
        partition.wake();
    }
    for item in items {
        match item {
            Queued::Group { done, permit, .. } => {
                drop(permit);
                // Whoever asked may have gone.
                let _ = done.send(Ok(()));
            }
            Queued::Start { done: Some(done), .. } => {
                let _ = done.send(Ok(()));
            }
            Queued::Start { .. } | Queued::Remove { .. } => {}
        }
    }
    shared.groups.fetch_add(groups, Ordering::Relaxed);
    shared.queued_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    evict(shared);
    let mut work = shared.work.lock();
    work.dirty.extend(ends.into_keys());
    work.bytes += bytes;
    work.wal_bytes += written.bytes;
    if is_due(shared, &work) {
        shared.work_wake.notify_one();
    }
}

/// Where the segments fall too far behind, the WAL waits: memory is not without bounds. Not while the disk is full: then nothing
/// new comes, and deleting must get through.
fn wait_for_segments(shared: &Shared) {
    let most = shared.config.max_pending_bytes.max(shared.config.write_behind_bytes).saturating_mul(2);
    let mut work = shared.work.lock();
    while work.bytes > most && !work.closing && shared.failure().is_none() && !shared.guard.ran_out() {
        shared.work_done.wait_for(&mut work, TRY_AGAIN);
    }
}
