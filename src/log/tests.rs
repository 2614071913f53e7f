//! The log against a plain model: crashes at random moments, torn writes, failing syncs, a full disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::record::{BatchBuilder, TopicName};
use crate::time::Timestamp;

/// A small generator: the same seed, the same run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }
}

fn key(n: i32) -> PartitionKey {
    PartitionKey { topic: TopicId([7; 16]), partition: PartitionId(n) }
}

fn small() -> LogConfig {
    LogConfig {
        wal_segment_bytes: 4096,
        wal_max_bytes: 8192,
        cache_bytes: 2048,
        write_behind_bytes: 1024,
        max_pending_bytes: 1 << 20,
        min_free_bytes: 0,
    }
}

fn open(disk: &SimDisk, config: LogConfig) -> Result<Log, LogError> {
    Log::open(Arc::new(disk.clone()), config)
}

fn partition(log: &Log, n: i32) -> Arc<PartitionLog> {
    let config = PartitionConfig { segment_bytes: 1500, ..PartitionConfig::default() };
    log.create(key(n), &TopicName::new("t").expect("valid"), config).expect("created")
}

fn batch_of(values: &[u64], base: Offset) -> crate::record::Batch {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(*value as i64, Some(b"k"), Some(format!("{value:040}").as_bytes()), &[]);
    }
    builder.finish().with_base(base, 0)
}

fn block<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

fn submit(log: &Log, parts: &[(i32, Vec<u64>)]) -> Result<Submitted, LogError> {
    let appends = parts.iter().map(|(n, values)| {
        let to = partition(log, *n);
        Append { batch: batch_of(values, to.end()), to, received: Timestamp(0) }
    });
    let permit = block(log.room(100));
    log.submit(AppendGroup { appends: appends.collect() }, permit)
}

fn values(log: &Log, n: i32) -> Vec<u64> {
    let partition = partition(log, n);
    let mut at = partition.start();
    let mut all = Vec::new();
    let mut expected = at;
    while at < partition.durable_end() {
        let fetched = partition.read(at, 300).expect("reads");
        for batch in fetched.batches() {
            let batch = batch.expect("whole");
            for record in batch.records().expect("records").iter() {
                let record = record.expect("record");
                if record.offset >= at {
                    assert_eq!(record.offset, expected, "offsets are contiguous");
                    expected = expected.plus(1);
                    all.push(String::from_utf8_lossy(record.value.expect("a value")).parse().expect("a number"));
                }
            }
        }
        assert!(fetched.next > at, "reading moves on");
        at = fetched.next;
    }
    all
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash_and_no_group_is_half_there() {
    for seed in 0..150 {
        let mut chance = Chance(seed);
        let mut disk = SimDisk::new(1 << 40);
        // By group: its parts, and whether it was acknowledged.
        let mut groups: Vec<(BTreeMap<i32, Vec<u64>>, bool)> = Vec::new();
        let mut number = 0;
        for life in 0..4 {
            let log = open(&disk, small()).unwrap_or_else(|e| panic!("seed {seed}, life {life}: {e}"));
            for _ in 0..chance.below(25) + 1 {
                let mut parts = BTreeMap::new();
                for _ in 0..chance.below(3) + 1 {
                    let count = chance.below(6) + 1;
                    let values = (0..count).map(|_| {
                        number += 1;
                        number
                    });
                    parts.insert(chance.below(4) as i32, values.collect::<Vec<u64>>());
                }
                let list: Vec<(i32, Vec<u64>)> = parts.clone().into_iter().collect();
                let submitted = submit(&log, &list).expect("taken");
                let acknowledged = chance.below(4) > 0 && block(submitted).is_ok();
                groups.push((parts, acknowledged));
            }
            // Found dead: whatever was in flight may or may not be there.
            let crashed = if chance.below(5) == 0 {
                log.close().expect("closes");
                disk.crash(|n| chance.below(n))
            } else {
                let crashed = disk.crash(|n| chance.below(n));
                disk.cut_power();
                crashed
            };
            drop(log);
            let log = open(&crashed, small()).unwrap_or_else(|e| panic!("seed {seed}, life {life}: {e}"));
            let found: BTreeMap<i32, Vec<u64>> = (0..4).map(|n| (n, values(&log, n))).collect();
            let mut kept = Vec::new();
            for (parts, acknowledged) in &groups {
                let there: Vec<bool> = parts.iter().map(|(n, values)| values.iter().all(|v| found[n].contains(v))).collect();
                let some: bool = parts.iter().any(|(n, values)| values.iter().any(|v| found[n].contains(v)));
                let whole = there.iter().all(|t| *t);
                assert!(whole || !some, "seed {seed}, life {life}: a group is half there");
                assert!(whole || !acknowledged, "seed {seed}, life {life}: an acknowledged group is lost");
                if whole {
                    kept.push((parts.clone(), true));
                }
            }
            for n in 0..4 {
                let expected: Vec<u64> = kept.iter().filter_map(|(parts, _)| parts.get(&n)).flatten().copied().collect();
                assert_eq!(found[&n], expected, "seed {seed}, life {life}: order of partition {n}");
            }
            groups = kept;
            disk = crashed;
            drop(log);
        }
    }
}

#[test]
fn a_failed_sync_is_final_and_nothing_after_it_is_acknowledged() {
    let disk = SimDisk::new(1 << 40);
    let log = open(&disk, LogConfig { wal_segment_bytes: 1 << 20, ..small() }).expect("opens");
    block(submit(&log, &[(0, vec![1])]).expect("taken")).expect("durable");
    disk.fail_sync_at(disk.syncs() + 1);
    let failed = submit(&log, &[(0, vec![2])]).and_then(block);
    assert!(matches!(failed, Err(LogError::Failed(_))), "{failed:?}");
    assert!(log.failed().borrow().is_some());
    assert!(matches!(submit(&log, &[(0, vec![3])]).and_then(block), Err(LogError::Failed(_))));
    assert_eq!(values(&log, 0), [1], "what was not durable is not visible");
}

#[test]
fn a_nearly_full_disk_refuses_writes_serves_reads_and_recovers() {
    let disk = SimDisk::new(1000);
    let log = open(&disk, LogConfig { min_free_bytes: 500, ..small() }).expect("opens");
    block(submit(&log, &[(0, vec![1])]).expect("taken")).expect("durable");
    disk.set_free(100);
    std::thread::sleep(std::time::Duration::from_millis(250));
    assert!(matches!(submit(&log, &[(0, vec![2])]), Err(LogError::DiskFull { .. })));
    assert_eq!(values(&log, 0), [1]);
    disk.set_free(1000);
    std::thread::sleep(std::time::Duration::from_millis(250));
    block(submit(&log, &[(0, vec![3])]).expect("taken")).expect("durable");
    assert_eq!(values(&log, 0), [1, 3]);
}

#[test]
fn a_start_that_moved_stays_moved_and_what_lies_below_is_gone() {
    let disk = SimDisk::new(1 << 40);
    let log = open(&disk, small()).expect("opens");
    for i in 0..200 {
        block(submit(&log, &[(0, vec![i])]).expect("taken")).expect("durable");
    }
    let one = partition(&log, 0);
    assert_eq!(one.offset_at(150).expect("found"), Some((Offset(150), 150)));
    let before = one.size_bytes();
    one.advance_start(Offset(120)).expect("moved");
    assert!(one.size_bytes() < before);
    assert!(matches!(one.read(Offset(119), 100), Err(LogError::OutOfRange { .. })));
    drop(one);
    let crashed = disk.crash(|_| 0);
    disk.cut_power();
    drop(log);
    let log = open(&crashed, small()).expect("opens");
    assert_eq!(partition(&log, 0).start(), Offset(120));
    assert_eq!(values(&log, 0), (120..200).collect::<Vec<u64>>());
}

#[test]
fn a_hole_in_the_wal_is_an_error_and_not_a_silent_loss() {
    let disk = SimDisk::new(1 << 40);
    let config =
        LogConfig { wal_segment_bytes: 1 << 20, wal_max_bytes: 1 << 30, write_behind_bytes: 1 << 30, cache_bytes: 1 << 30, ..small() };
    let log = open(&disk, config.clone()).expect("opens");
    for i in 0..10 {
        block(submit(&log, &[(0, vec![i])]).expect("taken")).expect("durable");
    }
    let crashed = disk.crash(|_| 0);
    disk.cut_power();
    drop(log);
    let file = crashed.open("wal/00000000000000000001.wal", false).expect("there");
    file.write_at(&[std::io::IoSlice::new(b"x")], 300).expect("written");
    let error = open(&crashed, config).err().expect("refused").to_string();
    assert!(error.contains("corrupt") && error.contains("wal/"), "{error}");
}

#[test]
fn retention_counts_from_when_records_came() {
    let disk = SimDisk::new(1 << 40);
    let log = open(&disk, small()).expect("opens");
    for i in 0..100 {
        let to = partition(&log, 0);
        let append = Append { batch: batch_of(&[i], to.end()), to, received: Timestamp(i as i64 * 1000) };
        let permit = block(log.room(100));
        block(log.submit(AppendGroup { appends: vec![append] }, permit).expect("taken")).expect("durable");
    }
    // Everything into segments first: what is only in memory is young.
    log.close().expect("closes");
    let log = open(&disk, small()).expect("opens");
    let limits = RetentionLimits { retention_ms: Some(50_000), retention_bytes: None, pin: Some(Offset(30)) };
    let _ = partition(&log, 0);
    log.enforce_retention(Timestamp(100_000), |_| limits.clone()).expect("enforced");
    let pinned = partition(&log, 0).start();
    assert!(pinned > Offset(0) && pinned <= Offset(30), "{pinned}");
    log.enforce_retention(Timestamp(100_000), |_| RetentionLimits { pin: None, ..limits.clone() }).expect("enforced");
    let start = partition(&log, 0).start();
    assert!(start > Offset(30) && start <= Offset(50), "{start}");
    assert_eq!(values(&log, 0).last(), Some(&99));
}

#[test]
fn the_same_directory_is_not_opened_by_two() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = RealDisk::open(dir.path()).expect("opens");
    assert!(RealDisk::open(dir.path()).is_err());
    let log = Log::open(Arc::new(disk), small()).expect("opens");
    block(submit(&log, &[(0, vec![1, 2]), (1, vec![3])]).expect("taken")).expect("durable");
    log.close().expect("closes");
    drop(log);
    let disk = RealDisk::open(dir.path()).expect("opens again");
    let log = Log::open(Arc::new(disk), small()).expect("opens");
    assert_eq!((values(&log, 0), values(&log, 1)), (vec![1, 2], vec![3]));
}
