//! The WAL thread: takes what is queued, writes it, syncs once, makes it visible, tells everyone.
//!
//! Always: whatever was queued while a sync ran rides on the next one, so the cost of durability is shared by all who
//! wait and does not grow with the number of partitions. All of a sync's groups become visible in one moment, and before anyone is
//! woken; but groups whose partitions all allow it become visible once they are written, and are synced later ([`Durability`]).
//! Where there is no room on the disk, what was taken in is held, in its order, until there is some.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::cache::evict;
use super::materialise::is_due;
use super::partition::Durability;
use super::shared::{Queued, Shared, Step, Trouble, tell};
use super::wal::{Writer, size};
use super::{LogError, PartitionKey};

/// About so much is written between two syncs, at most: what comes behind it is not kept waiting for too much.
const SYNC_BYTES: u64 = 8 << 20;
/// How long it is until a full disk is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// The thread's state. Driven step by step by the tests.
pub(super) struct Committer {
    writer: Writer,
    /// What did not fit onto the disk.
    held: Vec<Queued>,
    /// When what was shown ahead of its sync must be synced; `None` where nothing was that must.
    sync_by: Option<Instant>,
    /// Whether something was shown ahead of its sync.
    is_ahead: bool,
}

impl Committer {
    pub(super) const fn new(writer: Writer) -> Self {
        Self { writer, held: Vec::new(), sync_by: None, is_ahead: false }
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
                Step::Idle if queue.closing && queue.items.is_empty() && !self.is_ahead => break,
                Step::Idle => {
                    if queue.items.is_empty() && !queue.closing {
                        match self.sync_by {
                            Some(at) => drop(shared.queue_wake.wait_until(&mut queue, at)),
                            None => shared.queue_wake.wait(&mut queue),
                        }
                    }
                    continue;
                }
            }
            drop(queue);
            wait_for_segments(shared);
        }
        let state = shared.guard.state(shared.disk.as_ref());
        for item in self.held {
            tell(item, || shared.guard.refusal(state));
        }
        shared.abandon();
    }

    /// Writes, syncs, publishes what is queued, as far as it fits into one sync.
    pub(super) fn step(&mut self, shared: &Shared) -> Step {
        let mut items = std::mem::take(&mut self.held);
        let mut closing = false;
        if items.is_empty() {
            let mut queue = shared.queue.lock();
            items = take(&mut queue.items);
            closing = queue.closing;
        }
        if let Some(why) = shared.failure() {
            self.is_ahead = false;
            let is_idle = items.is_empty();
            items.into_iter().for_each(|item| tell(item, || LogError::Failed(why.clone())));
            return if is_idle { Step::Idle } else { Step::Done };
        }
        if items.is_empty() {
            let is_due = self.is_ahead && (closing || self.is_due());
            return if is_due { self.sync(shared, Vec::new(), 0) } else { Step::Idle };
        }
        match self.writer.write(shared, &items) {
            Ok(written) => {
                let (ahead, behind) = may_go_ahead(items);
                if !ahead.is_empty() {
                    self.show_ahead(shared, ahead, behind.is_empty().then_some(written.sequence));
                }
                // What was written is counted once.
                shared.work.lock().wal_bytes += written.bytes;
                // Also where more comes without a pause.
                let step = if behind.is_empty() && !self.is_due() { Step::Done } else { self.sync(shared, behind, written.sequence) };
                self.writer.look_ahead(shared);
                step
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
                // What was shown waits for no room.
                if self.is_due() {
                    self.sync(shared, Vec::new(), 0);
                }
                Step::Held
            }
            Err(Trouble::Final(error)) => fail(shared, items, &error),
        }
    }

    /// Whether something was shown so long ago that it must be synced.
    fn is_due(&self) -> bool {
        self.is_ahead && self.sync_by.is_some_and(|by| by <= Instant::now())
    }

    /// Publishes what need not wait for its sync. `upto` is the last entry where nothing waits before it.
    fn show_ahead(&mut self, shared: &Shared, items: Vec<Queued>, upto: Option<u64>) {
        let sync = self.writer.show_unsynced(shared);
        self.is_ahead = true;
        for item in &items {
            if let Queued::Group { durability: Durability::Interval(span), .. } = item {
                // A span beyond all clocks is none.
                let by = Instant::now().checked_add(*span);
                self.sync_by = by.into_iter().chain(self.sync_by).min();
            }
        }
        publish(shared, items, sync, upto);
    }

    /// Syncs, and publishes what waited for it.
    fn sync(&mut self, shared: &Shared, items: Vec<Queued>, sequence: u64) -> Step {
        match self.writer.sync(shared) {
            Ok(sync) => {
                (self.is_ahead, self.sync_by) = (false, None);
                if !items.is_empty() {
                    publish(shared, items, sync, Some(sequence));
                }
                Step::Done
            }
            Err(trouble) => fail(shared, items, &trouble.into_error()),
        }
    }
}

/// What a failed sync left on the disk nobody knows: nothing may be promised on top of it.
fn fail(shared: &Shared, items: Vec<Queued>, error: &LogError) -> Step {
    let why = error.to_string();
    shared.fail(why.clone());
    items.into_iter().for_each(|item| tell(item, || LogError::Failed(why.clone())));
    Step::Done
}

/// Parts what may be shown before its sync from what may not: groups of partitions that allow it, unless something waits that one of
/// these partitions has before. Both stay in order.
fn may_go_ahead(items: Vec<Queued>) -> (Vec<Queued>, Vec<Queued>) {
    let may = |item: &Queued| matches!(item, Queued::Group { durability, .. } if *durability != Durability::Sync);
    if !items.iter().any(may) {
        return (Vec::new(), items);
    }
    let mut waiting: BTreeSet<PartitionKey> = BTreeSet::new();
    items.into_iter().partition(|item| {
        let keys: Vec<PartitionKey> = match item {
            Queued::Group { appends, .. } => appends.iter().map(|append| append.to.key()).collect(),
            Queued::Start { partition, .. } => vec![partition.key()],
            Queued::Remove { key } => vec![*key],
        };
        let goes = may(item) && !keys.iter().any(|key| waiting.contains(key));
        if !goes {
            waiting.extend(keys);
        }
        goes
    })
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

/// Makes items visible, all in one moment, and tells whoever waits. `sequence` is the last entry where all before it are published too.
fn publish(shared: &Shared, items: Vec<Queued>, sync: u64, sequence: Option<u64>) {
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
    if let Some(sequence) = sequence {
        shared.published_sync.store(sync, Ordering::Release);
        shared.published.store(sequence, Ordering::Release);
    }
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
