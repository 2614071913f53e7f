//! The power goes, or the process dies, at every operation that changes the disk; what is found after is compared with a plain model.

use std::collections::BTreeMap;

use super::*;

const PARTITIONS: i32 = 4;

/// Something that was handed to the log, in order.
#[derive(Clone, Debug)]
enum Handed {
    Group(BTreeMap<i32, Vec<u64>>),
    Start(i32, i64),
}

/// What was handed over, and how much of it was acknowledged.
#[derive(Clone, Default)]
struct Model {
    handed: Vec<Handed>,
    acknowledged: usize,
}

/// What a log should hold after some of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    all: BTreeMap<i32, Vec<u64>>,
    starts: BTreeMap<i32, i64>,
}

impl Model {
    fn after(&self, n: usize) -> State {
        let mut state = State::default();
        for handed in &self.handed[..n] {
            match handed {
                Handed::Group(parts) => parts.iter().for_each(|(n, values)| state.all.entry(*n).or_default().extend(values)),
                Handed::Start(n, to) => {
                    state.starts.insert(*n, *to);
                }
            }
        }
        state
    }

    /// Finds how much of what was handed over is there: a first part, with all that was acknowledged and nothing half. Forgets the rest.
    fn check(&mut self, log: &Log, note: &str) {
        let found: Vec<(i64, Vec<u64>)> = (0..PARTITIONS).map(|n| (partition(log, n).start().0, values(log, n))).collect();
        let fits = |n: usize| {
            let state = self.after(n);
            (0..PARTITIONS).all(|p| {
                let all = state.all.get(&p).cloned().unwrap_or_default();
                let start = state.starts.get(&p).copied().unwrap_or(0);
                let (found_start, found) = &found[p as usize];
                *found_start == start && partition(log, p).end().0 == all.len() as i64 && *found == all[start as usize..]
            })
        };
        let n = (self.acknowledged..=self.handed.len()).rev().find(|n| fits(*n));
        let n = n.unwrap_or_else(|| {
            let ends: Vec<usize> = found.iter().map(|(start, values)| *start as usize + values.len()).collect();
            let safe = self.after(self.acknowledged);
            let expected: Vec<_> = (0..PARTITIONS).map(|p| (safe.starts.get(&p), safe.all.get(&p).map(Vec::len))).collect();
            panic!("{note}: what was found is no first part of what was handed over, or not all that was acknowledged: ends {ends:?}, acknowledged {expected:?}")
        });
        self.handed.truncate(n);
        self.acknowledged = n;
    }
}

/// One life of a log: random work until it is done or the power goes. The same chance, the same work.
fn live(disk: &SimDisk, chance: &mut Chance, model: &mut Model, number: &mut u64) -> Result<(), LogError> {
    let mut still = Still::open(disk, small())?;
    let mut waiting: Vec<(usize, Submitted)> = Vec::new();
    for _ in 0..chance.below(30) + 2 {
        match chance.below(12) {
            0..6 => {
                let mut parts = BTreeMap::new();
                for _ in 0..chance.below(3) + 1 {
                    let count = chance.below(6) + 1;
                    let values: Vec<u64> = (0..count).map(|i| *number + i).collect();
                    *number += count;
                    parts.insert(chance.below(PARTITIONS as u64) as i32, values);
                }
                let list: Vec<(i32, Vec<u64>)> = parts.clone().into_iter().collect();
                model.handed.push(Handed::Group(parts));
                waiting.push((model.handed.len(), submit(&still.log, &list)?));
            }
            6..9 => {
                still.commit();
            }
            9..11 => {
                still.log.shared.work.lock().urgent |= chance.below(2) == 0;
                still.materialise();
            }
            _ => {
                still.commit();
                while still.commit() == Step::Done {}
                let n = chance.below(PARTITIONS as u64) as i32;
                let (start, end) = (partition(&still.log, n).start().0, partition(&still.log, n).durable_end().0);
                let to = start + chance.below((end - start + 1) as u64) as i64;
                if to > start && chance.below(2) == 0 {
                    model.handed.push(Handed::Start(n, to));
                    still.advance_start(n, Offset(to))?;
                    model.acknowledged = model.handed.len();
                } else if to > start {
                    // Whoever deletes is told, and takes its time.
                    model.handed.push(Handed::Start(n, to));
                    let told = still.log.shared.queue_start(&partition(&still.log, n), Offset(to))?;
                    still.commit();
                    if told.is_some_and(|told| matches!(block(told), Ok(Ok(())))) {
                        model.acknowledged = model.handed.len();
                    }
                }
            }
        }
        for (n, submitted) in &mut waiting {
            if *n > model.acknowledged && acknowledged(submitted) {
                model.acknowledged = *n;
            }
        }
        if let Some(why) = still.log.shared.failure() {
            return Err(LogError::Failed(why));
        }
        // What is visible is as good as acknowledged: a reader has seen it.
        let visible: i64 = (0..PARTITIONS).map(|n| partition(&still.log, n).durable_end().0).sum();
        let safe: i64 = model.after(model.acknowledged).all.values().map(|all| all.len() as i64).sum();
        assert!(visible <= safe, "something is visible that nobody was promised");
    }
    if chance.below(3) == 0 {
        still.close();
        if still.log.shared.failure().is_none() {
            model.acknowledged = model.handed.len();
        }
    }
    Ok(())
}

/// The disk as the next process finds it.
fn found(disk: &SimDisk, chance: &mut Chance) -> SimDisk {
    match chance.below(4) {
        0 => disk.crash(|_| 0),
        1 => disk.kill(),
        _ => disk.crash(|n| chance.below(n)),
    }
}

/// Lives of a log one after the other, the power cut in each after a random number of operations; after each, all is checked.
fn check_lives(seed: u64) {
    let mut chance = Chance(seed);
    let mut disk = SimDisk::new(1 << 40);
    let (mut model, mut number) = (Model::default(), 0);
    for life in 0..6 {
        let note = format!("seed {seed}, life {life}");
        if chance.below(4) > 0 {
            disk.cut_power_at(disk.changes() + chance.below(150) + 1);
        }
        let ended = live(&disk, &mut chance, &mut model, &mut number);
        assert!(!matches!(ended, Err(LogError::Corrupt { .. })), "{note}: {ended:?}");
        disk = found(&disk, &mut chance);
        let still = Still::open(&disk, small()).unwrap_or_else(|e| panic!("{note}: {e}"));
        model.check(&still.log, &note);
        drop(still);
        // Dead again, at once: what a recovery showed must be safe.
        disk = found(&disk, &mut chance);
        let mut still = Still::open(&disk, small()).unwrap_or_else(|e| panic!("{note}, again: {e}"));
        model.acknowledged = model.handed.len();
        model.check(&still.log, &format!("{note}, again"));
        still.settle();
        model.check(&still.log, &format!("{note}, from segments"));
    }
}

#[test]
fn what_was_acknowledged_is_there_after_any_crash_and_no_group_is_half_there() {
    (0..seeds(1500) / 10).for_each(check_lives);
}

#[test]
fn a_crash_at_every_single_operation_of_a_life_loses_nothing() {
    for seed in 0..5 {
        let mut operations = None;
        for cut in 1.. {
            if operations.is_some_and(|n| cut > n) {
                break;
            }
            let mut chance = Chance(seed);
            let disk = SimDisk::new(1 << 40);
            let (mut model, mut number) = (Model::default(), 0);
            if operations.is_some() {
                disk.cut_power_at(cut);
            }
            // Two lives, so that a recovery is among the operations.
            for _ in 0..2 {
                if live(&disk, &mut chance, &mut model, &mut number).is_err() {
                    break;
                }
                // What was never written is forgotten.
                let Ok(still) = Still::open(&disk, small()) else { break };
                model.check(&still.log, "between lives");
            }
            if operations.is_none() {
                operations = Some(disk.changes());
                continue;
            }
            for lost in [true, false] {
                let mut draw = Chance(cut);
                let after = disk.crash(|n| if lost { 0 } else { draw.below(n) });
                let note = format!("seed {seed}, cut at {cut}");
                let still = Still::open(&after, small()).unwrap_or_else(|e| panic!("{note}: {e}"));
                model.clone().check(&still.log, &note);
            }
        }
    }
}

#[test]
fn a_removed_partition_does_not_come_back_and_takes_nothing_with_it() {
    for cut in 1..400 {
        let disk = SimDisk::new(1 << 40);
        disk.cut_power_at(cut);
        let run = || -> Result<bool, LogError> {
            let mut still = Still::open(&disk, small())?;
            for i in 0..30 {
                drop(submit(&still.log, &[(0, vec![i]), (1, vec![i])])?);
                still.commit();
                still.materialise();
            }
            still.settle();
            still.log.remove(key(0))?;
            assert!(matches!(partition(&still.log, 1).read(Offset(0), 100), Ok(_) | Err(LogError::Io { .. })));
            drop(submit(&still.log, &[(1, vec![30])])?);
            let removed = still.commit() == Step::Done && still.log.shared.failure().is_none();
            still.close();
            Ok(removed)
        };
        let removed = run().unwrap_or(false);
        let mut draw = Chance(cut);
        for lost in [true, false] {
            let after = disk.crash(|n| if lost { 0 } else { draw.below(n) });
            let still = Still::open(&after, small()).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
            if removed {
                assert_eq!(still.log.get(key(0)).map(|p| p.end()), None, "cut at {cut}");
                assert!(!after.list("partitions").expect("listed").iter().any(|name| name.starts_with("t-0.")), "cut at {cut}");
            }
            still.log.remove(key(0)).expect("removed again");
            let there = values(&still.log, 1);
            assert_eq!(there, (0..there.len() as u64).collect::<Vec<u64>>(), "cut at {cut}");
            assert!(!removed || there.len() == 31);
        }
    }
}

#[test]
fn all_of_a_group_is_visible_in_one_moment() {
    let disk = SimDisk::new(1 << 40);
    let log = Arc::new(open(&disk, small()).expect("opens"));
    let (one, other) = (partition(&log, 0), partition(&log, 1));
    let reader = std::thread::spawn(move || {
        let mut seen = Offset(0);
        while seen < Offset(2000) {
            seen = one.durable_end();
            assert!(other.durable_end() >= seen, "the first partition shows what the other does not");
        }
    });
    for i in 0..2000 {
        block(submit(&log, &[(0, vec![i]), (1, vec![i])]).expect("taken")).expect("durable");
    }
    reader.join().expect("saw no group by halves");
}
