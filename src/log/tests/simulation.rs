//! The whole log over a hostile disk, against a plain model, life after life.
//!
//! Every seed is one story: groups over partitions of every durability, transactions, an idempotent producer, deletion marks, trims,
//! compactions, copies; and meanwhile the power goes or the process dies at any operation, writes are torn and lost in any order, syncs
//! fail, the disk fills up, may only be read, or no more files can be opened. After each life what is found must be a first part of what
//! was handed over, with all that was promised, no group half, every record where it was. `SEEDS=10000` runs so many stories,
//! `SEED=7` that one alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::record::ControlMarker;

/// Partitions by what they promise: each of the durability modes, and two that are compacted.
const DURABILITY: [Durability; 5] =
    [Durability::Sync, Durability::Os, Durability::Interval(Duration::ZERO), Durability::Sync, Durability::Os];
const COMPACTED: i32 = 3;
const PARTITIONS: i32 = DURABILITY.len() as i32;
/// Who writes with a sequence; all others write transactions.
const IDEMPOTENT: i64 = 9;
const DELETE_RETENTION_MS: i64 = 15;

/// What one offset of a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Record { key: u8, value: Option<u64>, producer: i64 },
    Marker { producer: i64, commits: bool },
}

#[derive(Clone, Debug)]
enum Handed {
    Group(BTreeMap<i32, Vec<Item>>),
    Start(i32, i64),
}

#[derive(Clone, Default)]
struct Model {
    handed: Vec<Handed>,
    /// So many must be there when the process dies, and so many when the power goes.
    told: usize,
    safe: usize,
    /// When a compaction may first have passed over an offset.
    passed: BTreeMap<(i32, i64), i64>,
    /// The last compaction.
    compacted_at: i64,
}

/// A partition as it should be.
#[derive(Default)]
struct Part {
    all: Vec<Item>,
    start: i64,
}

impl Part {
    /// Of each offset whether it counts for who reads what is committed, whether it is decided, and the marker that did it.
    fn decided(&self) -> Vec<(bool, Option<usize>)> {
        let mut status = vec![(true, None); self.all.len()];
        let mut open: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (at, item) in self.all.iter().enumerate() {
            match item {
                Item::Record { producer, .. } if *producer >= 0 && *producer != IDEMPOTENT => open.entry(*producer).or_default().push(at),
                Item::Record { .. } => {}
                Item::Marker { producer, commits } => {
                    status[at] = (false, None);
                    open.remove(producer).into_iter().flatten().for_each(|of| status[of] = (*commits, Some(at)));
                }
            }
        }
        open.into_values().flatten().for_each(|of| status[of] = (false, None));
        status
    }

    /// The first offset below `visible` that is not decided by what lies there.
    fn stable(&self, visible: i64) -> i64 {
        let seen = Self { all: self.all[..visible as usize].to_vec(), start: 0 };
        let status = seen.decided();
        let is_open = |at: &usize| matches!(seen.all[*at], Item::Record { .. }) && status[*at] == (false, None);
        (0..seen.all.len()).find(is_open).map_or(visible, |at| at as i64)
    }

    fn last_of(&self, producer: i64, visible: i64) -> Option<i64> {
        let is_of = |item: &Item| matches!(item, Item::Record { producer: of, .. } if *of == producer);
        self.all[..visible as usize].iter().rposition(is_of).map(|at| at as i64)
    }
}

impl Model {
    fn after(&self, n: usize) -> Vec<Part> {
        let mut parts: Vec<Part> = (0..PARTITIONS).map(|_| Part::default()).collect();
        for handed in &self.handed[..n] {
            match handed {
                Handed::Group(items) => items.iter().for_each(|(p, items)| parts[*p as usize].all.extend(items)),
                Handed::Start(p, to) => parts[*p as usize].start = *to,
            }
        }
        parts
    }

    /// Finds how much of what was handed over is there, and forgets the rest.
    fn check(&mut self, log: &Log, least: usize, note: &str) {
        let found: Vec<Found> = (0..PARTITIONS).map(|p| Found::of(log, p, note)).collect();
        let mut why = String::new();
        let n = (least..=self.handed.len()).rev().find(|n| {
            let parts = self.after(*n);
            let wrong = parts.iter().zip(&found).enumerate().find_map(|(p, (part, found))| self.differs(p as i32, part, found));
            wrong.map(|wrong| why = format!("with the first {n}: {wrong}")).is_none()
        });
        let n =
            n.unwrap_or_else(|| panic!("{note}: no first part with the first {least} of {} is what was found; {why}", self.handed.len()));
        self.handed.truncate(n);
        (self.told, self.safe) = (n, n);
    }

    /// What is wrong with a partition, if anything is.
    fn differs(&self, p: i32, part: &Part, found: &Found) -> Option<String> {
        let (all, start) = (&part.all, part.start);
        if (found.start, found.end) != (start, all.len() as i64) {
            return Some(format!("partition {p} is {}..{} and should be {start}..{}", found.start, found.end, all.len()));
        }
        if let Some((at, item)) = found.items.iter().find(|(at, item)| all[*at as usize] != *item) {
            return Some(format!("partition {p} has {item:?} at {at} and should have {:?}", all[*at as usize]));
        }
        if p < COMPACTED {
            let (has, should) = (found.items.len(), all.len() - start as usize);
            return (has != should).then(|| format!("partition {p} has {has} records and should have {should}"));
        }
        let there: BTreeSet<i64> = found.items.iter().map(|(at, _)| *at).collect();
        let status = part.decided();
        let fold = |offsets: &mut dyn Iterator<Item = i64>| {
            let mut state = BTreeMap::new();
            for at in offsets.filter(|at| status[*at as usize].0) {
                if let Item::Record { key, value, .. } = all[at as usize] {
                    state.insert(key, value);
                }
            }
            state.retain(|_, value| value.is_some());
            state
        };
        if fold(&mut there.iter().copied()) != fold(&mut (start..all.len() as i64)) {
            return Some(format!("partition {p}: what holds for each key is another; of {all:?} there are {there:?}"));
        }
        let lost = there.iter().filter_map(|at| status[*at as usize].1).find(|marker| !there.contains(&(*marker as i64)));
        if let Some(marker) = lost {
            return Some(format!("partition {p} has records of a transaction without its marker at {marker}"));
        }
        let last = part.last_of(IDEMPOTENT, all.len() as i64).filter(|at| *at >= start);
        if last.is_some() && last != found.last_idempotent {
            return Some(format!("partition {p} has lost the last sequence of its producer, at {last:?}: {:?}", found.last_idempotent));
        }
        // Who reads from the beginning in time hears of every deletion.
        let mut latest = BTreeMap::new();
        for at in (start..all.len() as i64).filter(|at| status[*at as usize].0) {
            if let Item::Record { key, value, .. } = all[at as usize] {
                latest.insert(key, (at, value));
            }
        }
        let is_due = |at: i64| self.passed.get(&(p, at)).is_none_or(|passed| self.compacted_at < passed + DELETE_RETENTION_MS);
        let gone = latest.values().find(|(at, value)| value.is_none() && is_due(*at) && !there.contains(at));
        gone.map(|(at, _)| format!("partition {p} has lost a deletion mark at {at} before its time"))
    }
}

/// A partition as it is.
struct Found {
    start: i64,
    end: i64,
    items: Vec<(i64, Item)>,
    last_idempotent: Option<i64>,
}

impl Found {
    fn of(log: &Log, p: i32, note: &str) -> Self {
        let one = part_of(log, p);
        let (mut items, mut last_idempotent): (Vec<(i64, Item)>, _) = (Vec::new(), None);
        let mut at = one.start();
        while at < one.durable_end() {
            let fetched = one.read(at, 400).unwrap_or_else(|e| panic!("{note}: partition {p} at {at}: {e}"));
            for batch in fetched.batches() {
                let batch = batch.unwrap_or_else(|e| panic!("{note}: partition {p} at {at}: {e}"));
                let header = *batch.header();
                if header.producer_id == IDEMPOTENT {
                    last_idempotent = Some(batch.last_offset().0);
                }
                for record in &batch.records().expect("records") {
                    let record = record.expect("a record");
                    if record.offset < at {
                        continue;
                    }
                    assert!(items.last().is_none_or(|(last, _)| *last < record.offset.0), "{note}: offsets go forward");
                    let item = if header.is_control() {
                        let commits = ControlMarker::read(record.key) == Some(ControlMarker::Commit);
                        Item::Marker { producer: header.producer_id, commits }
                    } else {
                        let value = record.value.map(|v| String::from_utf8_lossy(v).parse().expect("a number"));
                        Item::Record { key: record.key.expect("a key")[0], value, producer: header.producer_id }
                    };
                    items.push((record.offset.0, item));
                }
            }
            assert!(fetched.next > at, "{note}: reading moves on");
            at = fetched.next;
        }
        Self { start: one.start().0, end: one.end().0, items, last_idempotent }
    }
}

fn part_of(log: &Log, p: i32) -> Arc<PartitionLog> {
    // What is compacted is in segments of few batches, so that there is much to compact.
    let segment_bytes = if p < COMPACTED { 900 } else { 220 };
    let config = PartitionConfig { durability: DURABILITY[p as usize], segment_ms: 300, segment_bytes };
    log.create(key(p), &TopicName::new("t").expect("valid"), config).expect("created")
}

fn batch(items: &[Item], base: Offset) -> Batch {
    let producer = match items.first().expect("not empty") {
        Item::Marker { producer, commits } => {
            let marker = if *commits { ControlMarker::Commit } else { ControlMarker::Abort };
            return marker.batch(0, *producer, 0, 0).with_base(base, 0);
        }
        Item::Record { producer, .. } => *producer,
    };
    let mut builder = BatchBuilder::new();
    if producer == IDEMPOTENT {
        builder = builder.with_producer(producer, 0, 0);
    } else if producer >= 0 {
        builder = builder.with_producer(producer, 0, 0).transactional();
    }
    for item in items {
        let Item::Record { key, value, .. } = item else { continue };
        let value = value.map(|value| format!("{value:020}"));
        builder.push(0, Some(&[*key]), value.as_ref().map(String::as_bytes), &[]);
    }
    builder.finish().with_base(base, 0)
}

/// What is handed to one partition: records of one producer, or the marker that ends its transaction.
fn some_items(chance: &mut Chance, p: i32, number: &mut u64) -> Vec<Item> {
    let producer = if p < COMPACTED { -1 } else { [-1, -1, -1, IDEMPOTENT, 7, 8][chance.below(6) as usize] };
    if producer >= 0 && producer != IDEMPOTENT && chance.below(3) == 0 {
        return vec![Item::Marker { producer, commits: chance.below(2) == 0 }];
    }
    let count = chance.below(4) + 1;
    let item = |_| {
        *number += 1;
        let value = (p < COMPACTED || chance.below(4) > 0).then_some(*number);
        Item::Record { key: chance.below(7) as u8, value, producer }
    };
    (0..count).map(item).collect()
}

/// A life: its log, and what waits for an answer.
struct Life<'a> {
    disk: &'a SimDisk,
    note: &'a str,
    still: Still,
    waiting: Vec<(usize, bool, Submitted)>,
    /// For how many steps the disk takes nothing more.
    trouble: u64,
    now: &'a mut i64,
}

impl Life<'_> {
    fn hand(&mut self, chance: &mut Chance, model: &mut Model, number: &mut u64) -> Result<(), LogError> {
        let mut parts = BTreeMap::new();
        for _ in 0..chance.below(3) + 1 {
            let p = chance.below(PARTITIONS as u64) as i32;
            parts.insert(p, some_items(chance, p, number));
        }
        let log = &self.still.log;
        let appends = parts.iter().map(|(p, items)| {
            let to = part_of(log, *p);
            Append { batch: batch(items, to.end()), to, received: Timestamp(*self.now) }
        });
        let group = AppendGroup { appends: appends.collect() };
        let is_synced = parts.keys().any(|p| DURABILITY[*p as usize] == Durability::Sync);
        match log.submit(group, block(log.room(100))) {
            Ok(submitted) => {
                model.handed.push(Handed::Group(parts));
                self.waiting.push((model.handed.len(), is_synced, submitted));
                Ok(())
            }
            Err(error) if error.is_retriable() && self.trouble > 0 => Ok(()),
            Err(error) if error.is_retriable() => {
                assert!(self.disk.list("").is_err(), "{}: refused without a reason: {error}", self.note);
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    fn compact(&mut self, chance: &mut Chance, model: &mut Model) -> Result<(), LogError> {
        let p = COMPACTED + chance.below(2) as i32;
        let one = part_of(&self.still.log, p);
        let part = model.after(model.handed.len()).swap_remove(p as usize);
        let visible = one.durable_end().0;
        for at in 0..visible {
            model.passed.entry((p, at)).or_insert(*self.now);
        }
        model.compacted_at = *self.now;
        let last = part.last_of(IDEMPOTENT, visible);
        let rules = CompactionRules {
            upper: Offset(part.stable(visible)),
            delete_retention_ms: DELETE_RETENTION_MS,
            min_lag_ms: chance.below(2) as i64 * 20,
            max_lag_ms: i64::MAX,
            min_dirty_ratio: 0.0,
            producers: last.map(|at| (IDEMPOTENT, LastOfProducer { epoch: 0, last_data: Some(Offset(at)) })).into_iter().collect(),
        };
        match one.compact(Timestamp(*self.now), &rules, |_| Ok(())) {
            Err(LogError::Io { .. }) if self.trouble > 0 => Ok(()),
            Err(error) if error.is_retriable() && self.trouble > 0 => Ok(()),
            other => other.map(drop),
        }
    }

    fn trim(&mut self, chance: &mut Chance, model: &mut Model) -> Result<(), LogError> {
        while self.still.commit() == Step::Done {}
        self.listen(model);
        let p = chance.below(PARTITIONS as u64) as i32;
        let one = part_of(&self.still.log, p);
        let (start, end) = (one.start().0, one.durable_end().0);
        let mut to = start + chance.below((end - start) as u64 / 2 + 2) as i64;
        if chance.below(2) == 0 {
            // As retention does: whole segments, after the last one was closed where it is old.
            let limits = RetentionLimits { retention_bytes: Some(chance.below(1500)), ..RetentionLimits::default() };
            one.enforce(&Ages::at(Timestamp(*self.now)), &RetentionLimits::default())?;
            let inner = one.inner.lock();
            let gone = retention::expired(&inner.segments, &Ages::at(Timestamp(*self.now)), &limits);
            to = inner.segments.get(gone).map_or(start, |segment| segment.base.0);
        }
        if to > start && to <= end {
            model.handed.push(Handed::Start(p, to));
            self.still.advance_start(p, Offset(to))?;
            (model.told, model.safe) = (model.handed.len(), model.handed.len());
        }
        Ok(())
    }

    /// The disk takes nothing for a while, or takes everything again.
    fn change_weather(&mut self, chance: &mut Chance) {
        self.clear_up();
        match chance.below(4) {
            0 => self.disk.set_out_of_files(true),
            1 => self.disk.set_room(Some(chance.below(3000))),
            2 => self.disk.set_read_only(true),
            _ => return,
        }
        self.trouble = chance.below(6) + 1;
    }

    fn clear_up(&mut self) {
        self.disk.set_out_of_files(false);
        self.disk.set_room(None);
        self.disk.set_read_only(false);
        if std::mem::take(&mut self.trouble) > 0 {
            self.still.log.shared.guard.forget_look();
            let _ = self.still.log.disk_state();
        }
    }

    fn listen(&mut self, model: &mut Model) {
        self.waiting.retain_mut(|(n, is_synced, submitted)| {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let answer = std::pin::Pin::new(submitted).poll(&mut context);
            if matches!(answer, std::task::Poll::Ready(Ok(()))) {
                model.told = model.told.max(*n);
                model.safe = if *is_synced { model.safe.max(*n) } else { model.safe };
            }
            answer.is_pending()
        });
    }

    fn run(&mut self, chance: &mut Chance, model: &mut Model, number: &mut u64) -> Result<(), LogError> {
        for _ in 0..chance.below(40) + 5 {
            *self.now += chance.below(8) as i64;
            match chance.below(32) {
                0..12 => self.hand(chance, model, number)?,
                12..18 => {
                    self.still.commit();
                }
                18..24 => {
                    let mut work = self.still.log.shared.work.lock();
                    work.urgent |= chance.below(2) == 0;
                    work.cut |= chance.below(6) == 0;
                    drop(work);
                    self.still.materialise();
                }
                24..28 => self.compact(chance, model)?,
                28 | 29 if self.trouble == 0 => self.trim(chance, model)?,
                30 if self.trouble == 0 && chance.below(3) == 0 => self.copy(model)?,
                31 => self.change_weather(chance),
                _ => {}
            }
            if self.trouble > 0 {
                self.trouble -= 1;
                if self.trouble == 0 {
                    self.trouble = 1;
                    self.clear_up();
                }
            }
            self.listen(model);
            if let Some(why) = self.still.log.shared.failure() {
                return Err(LogError::Failed(why));
            }
        }
        self.clear_up();
        if chance.below(3) == 0 {
            self.still.close();
            if self.still.log.shared.failure().is_none() {
                (model.told, model.safe) = (model.handed.len(), model.handed.len());
            }
        }
        Ok(())
    }

    /// A copy of the running log has all that was told.
    fn copy(&self, model: &Model) -> Result<(), LogError> {
        let (copy, back) = (SimDisk::new(1 << 40), SimDisk::new(1 << 40));
        backup(self.disk, &copy)?;
        let copy: Arc<dyn Disk> = Arc::new(copy.crash(|_| 0));
        restore(&copy, &back).unwrap_or_else(|e| panic!("{}: restored: {e}", self.note));
        let still = Still::open(&back, small()).unwrap_or_else(|e| panic!("{}: a copy opens: {e}", self.note));
        model.clone().check(&still.log, model.told, &format!("{}, a copy", self.note));
        Ok(())
    }
}

fn check_story(seed: u64) {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut disk = SimDisk::new(1 << 40);
    let (mut model, mut number, mut now) = (Model::default(), 0, 0);
    for life in 0..3 {
        let note = format!("seed {seed}, life {life}");
        let fate = chance.below(8);
        match fate {
            0 | 1 => {}
            2 => disk.fail_sync_at(disk.syncs() + chance.below(25) + 1),
            _ => disk.cut_power_at(disk.changes() + chance.below(220) + 1),
        }
        let ended = Still::open(&disk, small()).and_then(|still| {
            let mut life = Life { disk: &disk, note: &note, still, waiting: Vec::new(), trouble: 0, now: &mut now };
            let ended = life.run(&mut chance, &mut model, &mut number);
            life.listen(&mut model);
            ended
        });
        disk.set_room(None);
        disk.set_out_of_files(false);
        disk.set_read_only(false);
        let may_fail = fate == 2 || disk.list("").is_err();
        assert!(ended.is_ok() || may_fail, "{note}: it has failed where the disk only took nothing for a while: {ended:?}");
        assert!(!matches!(ended, Err(LogError::Corrupt { .. } | LogError::OutOfOrder { .. })), "{note}: {ended:?}");
        let (after, least) = match chance.below(4) {
            // The process alone: what was told is there, whatever lies between.
            0 => (disk.kill(), model.told),
            1 => (disk.crash(|_| 0), model.safe),
            _ => (disk.crash(|n| chance.below(n)), model.safe),
        };
        let mut still = Still::open(&after, small()).unwrap_or_else(|e| panic!("{note}: {e}"));
        model.check(&still.log, least, &note);
        if chance.below(2) == 0 {
            still.settle();
            model.check(&still.log, model.told, &format!("{note}, from segments"));
        }
        drop(still);
        // Dead again, at once: what a recovery showed is safe.
        disk = after.crash(|n| if seed.is_multiple_of(2) { 0 } else { chance.below(n) });
        if chance.below(8) == 0 {
            let examined = examine(&(Arc::new(disk.clone()) as Arc<dyn Disk>)).unwrap_or_else(|e| panic!("{note}: {e}"));
            assert!(examined.worst().is_none_or(|worst| worst == Remedy::Start), "{note}: {:?}", examined.findings);
        }
    }
    let still = Still::open(&disk, small()).unwrap_or_else(|e| panic!("seed {seed}, at the end: {e}"));
    model.check(&still.log, model.told, &format!("seed {seed}, at the end"));
}

#[test]
fn whatever_the_disk_does_what_was_promised_is_there_and_nothing_else() {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|n| n.parse().ok()) {
        return check_story(seed);
    }
    (0..seeds(500)).for_each(check_story);
}
