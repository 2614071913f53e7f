//! Partitions that are shown before they are synced: what a process death and a power cut leave of them.

use std::time::Duration;

use super::*;

/// Partition 0 waits for the disk, 1 does not, 2 and 3 do not for long.
fn of(log: &Log, n: i32) -> Arc<PartitionLog> {
    let durability =
        [Durability::Sync, Durability::Os, Durability::Interval(Duration::ZERO), Durability::Interval(Duration::MAX)][n as usize];
    log.create(key(n), &TopicName::new("t").expect("valid"), PartitionConfig { durability, ..config() }).expect("created")
}

fn hand(log: &Log, parts: &[i32], value: u64) -> Result<Submitted, LogError> {
    let appends = parts.iter().map(|n| {
        let to = of(log, *n);
        Append { batch: batch_of(&[value], to.end()), to, received: Timestamp(0) }
    });
    log.submit(AppendGroup { appends: appends.collect() }, block(log.room(100)))
}

fn all(log: &Log) -> Vec<Vec<u64>> {
    (0..4)
        .map(|n| {
            of(log, n);
            values(log, n)
        })
        .collect()
}

/// What the partitions hold after the first `n` groups.
fn after(handed: &[Vec<i32>], n: usize) -> Vec<Vec<u64>> {
    let mut held = vec![Vec::new(); 4];
    for (value, parts) in handed[..n].iter().enumerate() {
        parts.iter().for_each(|p| held[*p as usize].push(value as u64));
    }
    held
}

#[test]
fn who_allows_it_is_answered_and_shown_before_the_sync_and_in_order() {
    let disk = SimDisk::new(1 << 40);
    let mut still = Still::open(&disk, LogConfig { wal_segment_bytes: 1 << 20, ..small() }).expect("opens");
    let syncs = disk.syncs();
    let mut first = hand(&still.log, &[1], 0).expect("taken");
    still.commit();
    assert!(acknowledged(&mut first) && disk.syncs() == syncs, "shown without a sync");
    assert_eq!(values(&still.log, 1), [0]);
    // One that waits holds back what is behind it in the same partition, and nothing else.
    disk.fail_sync_at(disk.syncs() + 1);
    let mut mixed = hand(&still.log, &[0, 1], 1).expect("taken");
    let mut behind = hand(&still.log, &[1], 2).expect("taken");
    let mut other = hand(&still.log, &[2], 3).expect("taken");
    still.commit();
    assert!(!acknowledged(&mut mixed) && !acknowledged(&mut behind) && acknowledged(&mut other));
    assert_eq!((values(&still.log, 0), values(&still.log, 1), values(&still.log, 2)), (vec![], vec![0], vec![3]));
    assert!(still.log.shared.failure().is_some());
}

#[test]
fn an_interval_brings_a_sync_and_the_systems_own_time_does_not() {
    let disk = SimDisk::new(1 << 40);
    let mut still = Still::open(&disk, LogConfig { wal_segment_bytes: 1 << 20, ..small() }).expect("opens");
    for n in [1, 3] {
        drop(hand(&still.log, &[n], 0).expect("taken"));
        assert_eq!((still.commit(), still.commit()), (Step::Done, Step::Idle), "{n}");
    }
    let syncs = disk.syncs();
    drop(hand(&still.log, &[2], 0).expect("taken"));
    // At once where it is due, and not only when nothing more comes.
    assert_eq!((still.commit(), still.commit()), (Step::Done, Step::Idle));
    assert_eq!(disk.syncs(), syncs + 1);
    let still = Still::open(&disk.crash(|_| 0), small()).expect("opens");
    assert_eq!(all(&still.log), [vec![], vec![0], vec![0], vec![0]], "the sync brought all that was before it");
}

fn check_lives(seed: u64) {
    let mut chance = Chance(seed);
    let mut disk = SimDisk::new(1 << 40);
    let mut handed: Vec<Vec<i32>> = Vec::new();
    for life in 0..6 {
        let note = format!("seed {seed}, life {life}");
        // What was answered, and what of it must survive a power cut.
        let (mut told, mut safe) = (handed.len(), handed.len());
        if chance.below(4) > 0 {
            disk.cut_power_at(disk.changes() + chance.below(120) + 1);
        }
        let mut live = || -> Result<(), LogError> {
            let mut still = Still::open(&disk, small())?;
            let mut waiting: Vec<(usize, bool, Submitted)> = Vec::new();
            for _ in 0..chance.below(40) + 5 {
                match chance.below(9) {
                    0..5 => {
                        let mut parts: Vec<i32> = (0..4).filter(|_| chance.below(3) == 0).collect();
                        if parts.is_empty() {
                            parts.push(1);
                        }
                        handed.push(parts.clone());
                        let submitted = hand(&still.log, &parts, handed.len() as u64 - 1)?;
                        waiting.push((handed.len(), parts.contains(&0), submitted));
                    }
                    5..8 => {
                        still.commit();
                    }
                    _ => {
                        still.log.shared.work.lock().urgent |= chance.below(2) == 0;
                        still.log.shared.work.lock().cut |= chance.below(3) == 0;
                        still.materialise();
                    }
                }
                waiting.retain_mut(|(n, is_synced, submitted)| {
                    let answered = acknowledged(submitted);
                    if answered {
                        told = told.max(*n);
                        safe = if *is_synced { safe.max(*n) } else { safe };
                    }
                    !answered
                });
                if let Some(why) = still.log.shared.failure() {
                    return Err(LogError::Failed(why));
                }
            }
            if chance.below(3) == 0 {
                still.close();
                if still.log.shared.failure().is_none() {
                    (told, safe) = (handed.len(), handed.len());
                }
            }
            Ok(())
        };
        let ended = live();
        assert!(!matches!(ended, Err(LogError::Corrupt { .. })), "{note}: {ended:?}");
        let (found, least) = match chance.below(3) {
            // The process alone: what it was answered it has, whatever lies between.
            0 => (disk.kill(), safe),
            1 => (disk.crash(|_| 0), safe),
            _ => (disk.crash(|n| chance.below(n)), safe),
        };
        let mut still = Still::open(&found, small()).unwrap_or_else(|e| panic!("{note}: {e}"));
        let there = all(&still.log);
        let n = (least..=handed.len()).rev().find(|n| after(&handed, *n) == there);
        let n = n.unwrap_or_else(|| panic!("{note}: {there:?} is no first part of {handed:?}, {told} answered, {safe} safe"));
        handed.truncate(n);
        still.settle();
        assert_eq!(all(&still.log), after(&handed, n), "{note}, from segments");
        drop(still);
        // What a recovery showed is safe.
        disk = found.crash(|_| 0);
        let still = Still::open(&disk, small()).unwrap_or_else(|e| panic!("{note}, again: {e}"));
        assert_eq!(all(&still.log), after(&handed, n), "{note}, again");
        drop(still);
        disk = disk.crash(|_| 0);
    }
}

#[test]
fn a_power_cut_leaves_a_first_part_with_all_that_was_synced_and_no_group_half() {
    (0..seeds(1500) / 10).for_each(check_lives);
}

#[test]
fn the_death_of_the_process_loses_nothing_that_was_answered() {
    for seed in 0..100 {
        let mut chance = Chance(seed);
        let disk = SimDisk::new(1 << 40);
        let mut still = Still::open(&disk, small()).expect("opens");
        let mut answered = 0;
        for i in 0..chance.below(60) {
            let mut submitted = hand(&still.log, &[chance.below(3) as i32 + 1], i).expect("taken");
            if chance.below(3) > 0 {
                while still.commit() == Step::Done {}
                answered = i + 1;
                assert!(acknowledged(&mut submitted));
            }
            if chance.below(4) == 0 {
                still.materialise();
            }
        }
        let still = Still::open(&disk.kill(), small()).expect("opens");
        let found: u64 = all(&still.log).iter().map(|values| values.len() as u64).sum();
        assert!(found >= answered, "seed {seed}: {found} of {answered}");
    }
}

#[test]
fn threads_sync_in_the_end_what_they_showed_ahead() {
    let disk = SimDisk::new(1 << 40);
    let log = open(&disk, small()).expect("opens");
    for i in 0..50 {
        block(hand(&log, &[1, 3], i).expect("taken")).expect("answered");
    }
    log.close().expect("closes");
    let still = Still::open(&disk.crash(|_| 0), small()).expect("opens");
    assert_eq!((values(&still.log, 1).len(), values(&still.log, 3).len()), (50, 50));
}
