//! When each key was heard, when it fell silent, and when it came back: pure steps over time.
//!
//! A key's readings that lie at most one interval apart are one *presence*. A presence ends in a silence,
//! which is told when the watermark has passed `last + interval` (passed, not reached: a reading exactly one
//! interval later still belongs). Always: silences are told in order of that time, those of the same time
//! in order of the key.
//!
//! Over one partition every step happens at a row's own mark: a silence that the mark has passed is told
//! before the row is looked at, a reading that can still change something is taken (one is late when even the
//! silence after itself has been passed), and a return is told at once. Over merged partitions what may
//! happen when is a matter of chance, so there only readings that are not older than their own partition's
//! mark are taken, and a return too waits for the watermark to pass it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::stream::NO_TIME;
use crate::stream::keyed::KeyTable;

/// A silent key is remembered for so long, in event time; if it comes back later than that, it is as new.
const REMEMBERED_MS: i64 = 30 * 86_400_000;

/// Something to tell about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The key, encoded.
    pub key: Arc<[u8]>,
    /// The last reading before the silence; for a return the reading that ended it.
    pub last: i64,
    /// When the key counted as absent.
    pub since: i64,
    /// The time of what is told.
    pub at: i64,
    /// What no later row will be older than.
    pub mark: i64,
    /// True for a silence, false for a return.
    pub absent: bool,
}

/// One key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Presence {
    /// The presences whose silence has not been told: first and last reading, in order.
    pub open: Vec<(i64, i64)>,
    /// The last reading before a silence that has been told and not been ended.
    pub silent: Option<i64>,
    /// When this key is to be looked at next.
    due: Option<i64>,
}

/// All keys.
#[derive(Debug)]
pub(super) struct Presences {
    interval: i64,
    returns: bool,
    merged: bool,
    pub table: KeyTable,
    keys: Vec<Presence>,
    queue: BTreeSet<(i64, u32)>,
    told: Vec<(i64, Told)>,
}

impl Presences {
    pub(super) fn new(interval: i64, returns: bool, merged: bool) -> Self {
        let table = KeyTable::default();
        Self { interval, returns, merged, table, keys: Vec::new(), queue: BTreeSet::new(), told: Vec::new() }
    }

    /// A reading of a key, the mark just before it. `false` where it is late.
    pub(super) fn reading(&mut self, key: &[u8], at: i64, mark: i64) -> bool {
        if !self.merged {
            self.pass(mark);
        }
        let reach = if self.merged { at } else { at.saturating_add(self.interval) };
        if at == NO_TIME || mark > reach {
            return false;
        }
        let (slot, new) = self.table.slot(key);
        if new {
            if self.keys.len() <= slot as usize {
                self.keys.resize(slot as usize + 1, Presence::default());
            }
            self.keys[slot as usize] = Presence::default();
        }
        let presence = &mut self.keys[slot as usize];
        insert(&mut presence.open, at, self.interval);
        if !self.merged
            && let Some(last) = presence.silent.take()
        {
            let key = Arc::clone(self.table.key(slot).expect("the slot was just given"));
            let since = last.saturating_add(self.interval);
            // A reading may come late enough to be older than the silence it ends; the return is still after it.
            let told = Told { key, last: at, since, at: at.max(since.saturating_add(1)), mark, absent: false };
            self.told.push((mark, told));
        }
        self.schedule(slot);
        true
    }

    /// Time has come this far: tells every silence (and over merged partitions every return) that it has passed.
    pub(super) fn pass(&mut self, mark: i64) {
        let from = self.told.len();
        while let Some((due, slot)) = self.queue.first().copied().filter(|(due, _)| *due < mark) {
            self.queue.remove(&(due, slot));
            self.keys[slot as usize].due = None;
            match self.next_of(slot) {
                Some(next) if next == due => self.step(slot, due),
                _ => self.schedule(slot),
            }
        }
        // Slots are numbers of chance; keys are not. What belongs to one key stays in its order.
        self.told[from..].sort_by(|(at, a), (bt, b)| (at, &a.key).cmp(&(bt, &b.key)));
    }

    /// What has been told since the last call, in order.
    pub(super) fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told).into_iter().map(|(_, told)| told).collect()
    }

    /// When something happens to this key next, if nothing is heard of it.
    fn next_of(&self, slot: u32) -> Option<i64> {
        let presence = &self.keys[slot as usize];
        match (presence.silent, presence.open.first()) {
            (Some(_), Some((first, _))) => Some(*first),
            (None, Some((_, last))) => Some(last.saturating_add(self.interval)),
            (Some(last), None) => Some(last.saturating_add(REMEMBERED_MS.max(self.interval))),
            (None, None) => None,
        }
    }

    fn schedule(&mut self, slot: u32) {
        let Some(next) = self.next_of(slot) else { return };
        let presence = &mut self.keys[slot as usize];
        // A look that comes too early costs little and is put off then; readings mostly move it back.
        if presence.due.is_some_and(|due| due <= next) {
            return;
        }
        if let Some(due) = presence.due.replace(next) {
            self.queue.remove(&(due, slot));
        }
        self.queue.insert((next, slot));
    }

    /// What happens to a key at the time it was scheduled for.
    fn step(&mut self, slot: u32, due: i64) {
        let key = Arc::clone(self.table.key(slot).expect("only keys in use are scheduled"));
        let presence = &mut self.keys[slot as usize];
        match presence.silent {
            Some(last) if presence.open.is_empty() => {
                debug_assert!(last < due);
                presence.silent = None;
            }
            Some(last) => {
                presence.silent = None;
                let first = presence.open[0].0;
                if first.saturating_sub(last) <= REMEMBERED_MS {
                    let since = last.saturating_add(self.interval);
                    self.told.push((due, Told { key, last: first, since, at: first, mark: due, absent: false }));
                }
            }
            None => {
                let (_, last) = presence.open.remove(0);
                self.told.push((due, Told { key: Arc::clone(&key), last, since: due, at: due, mark: due, absent: true }));
                match presence.open.first() {
                    // Over one partition the reading that ends the silence is known, and told at once.
                    Some((first, _)) if self.returns && !self.merged => {
                        let told = Told { key, last: *first, since: due, at: *first, mark: due, absent: false };
                        self.told.push((due, told));
                    }
                    _ if self.returns => presence.silent = Some(last),
                    _ => {}
                }
            }
        }
        let presence = &self.keys[slot as usize];
        if presence.open.is_empty() && presence.silent.is_none() {
            self.table.drop_slot(slot);
        } else {
            self.schedule(slot);
        }
    }

    /// The latest time at or before `limit` at which something is told if nothing is heard.
    pub(super) fn latest(&self, limit: i64) -> Option<i64> {
        let of = |slot: u32| {
            let presence = &self.keys[slot as usize];
            let silences = presence.open.iter().map(|(_, last)| last.saturating_add(self.interval));
            let back = presence.open.first().filter(|_| self.merged && presence.silent.is_some()).map(|(first, _)| *first);
            silences.chain(back).filter(|at| *at <= limit).max()
        };
        self.table.in_use().into_iter().filter_map(of).max()
    }

    /// The keys in use, in order of slot.
    pub(super) fn saved(&self) -> Vec<(u32, &Presence)> {
        self.table.in_use().into_iter().map(|slot| (slot, &self.keys[slot as usize])).collect()
    }

    /// Takes back a key. `false` where it is there already.
    pub(super) fn put_back(&mut self, key: &[u8], open: Vec<(i64, i64)>, silent: Option<i64>) -> bool {
        let (slot, new) = self.table.slot(key);
        if self.keys.len() <= slot as usize {
            self.keys.resize(slot as usize + 1, Presence::default());
        }
        self.keys[slot as usize] = Presence { open, silent, due: None };
        self.schedule(slot);
        new
    }

    pub(super) fn bytes(&self) -> usize {
        let open: usize = self.keys.iter().map(|presence| presence.open.capacity() * 16).sum();
        self.table.bytes() + self.keys.len() * size_of::<Presence>() + open + self.queue.len() * 32
    }
}

/// Adds a reading: to the presences it touches, or as one of its own.
fn insert(open: &mut Vec<(i64, i64)>, at: i64, interval: i64) {
    // The usual case: a newer reading of the newest presence.
    if let Some((first, last)) = open.last_mut()
        && *first <= at
        && at.saturating_sub(*last) <= interval
    {
        *last = at.max(*last);
        return;
    }
    let from = open.partition_point(|(_, last)| last.saturating_add(interval) < at);
    let to = open.partition_point(|(first, _)| first.saturating_sub(interval) <= at);
    if from >= to {
        open.insert(from, (at, at));
        return;
    }
    let merged = (open[from].0.min(at), open[to - 1].1.max(at));
    open.splice(from..to, [merged]);
}
