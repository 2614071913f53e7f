//! Copies of a running log, what the doctor finds and mends, disks that may only be read.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

fn dyn_disk(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn put(disk: &SimDisk, path: &str, pos: u64, bytes: &[u8]) {
    disk.open(path, false).expect("there").write_at(&[IoSlice::new(bytes)], pos).expect("written");
}

/// Two hundred values in three partitions, closed.
fn closed() -> SimDisk {
    let disk = SimDisk::new(1 << 40);
    let mut still = Still::open(&disk, small()).expect("opens");
    for i in 0..200 {
        drop(submit(&still.log, &[((i % 3) as i32, vec![i, i])]).expect("taken"));
        still.commit();
        still.materialise();
    }
    still.close();
    disk
}

fn logs(disk: &SimDisk) -> Vec<String> {
    let mut all = Vec::new();
    for dir in disk.list("partitions").expect("listed") {
        let dir = format!("partitions/{dir}");
        all.extend(disk.list(&dir).expect("listed").into_iter().map(|file| format!("{dir}/{file}")));
    }
    all.retain(|path| path.ends_with(".log"));
    all
}

#[test]
fn a_copy_made_while_the_log_is_written_compacted_and_trimmed_is_a_first_part_with_all_from_before() {
    for seed in 0..20 {
        let disk = SimDisk::new(1 << 40);
        // A checkpoint comes now and then, and not for every write.
        let config = LogConfig { wal_max_bytes: 64 << 10, ..small() };
        let log = Arc::new(open(&disk, config).expect("opens"));
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writer = std::thread::spawn({
            let (log, stop, written) = (Arc::clone(&log), Arc::clone(&stop), Arc::clone(&written));
            move || {
                let mut chance = Chance(seed);
                for i in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    block(submit(&log, &[(0, vec![i]), (1, vec![i])]).expect("taken")).expect("durable");
                    written.store(i + 1, Ordering::Release);
                    if chance.below(60) == 0 {
                        let one = partition(&log, 1);
                        one.advance_start(Offset(one.durable_end().0 / 2)).expect("moved");
                    }
                    std::thread::yield_now();
                }
            }
        });
        let copy = SimDisk::new(1 << 40);
        for _ in 0..3 {
            while written.load(Ordering::Acquire) < 30 {
                std::thread::yield_now();
            }
            let least = written.load(Ordering::Acquire);
            backup(&disk, &copy).expect("copied");
            // As it would be found after a power cut: the copy is safe when it is told.
            let back = SimDisk::new(1 << 40);
            restore(&dyn_disk(&copy.crash(|_| 0)), &back).expect("restored");
            let still = Still::open(&back, small()).expect("opens");
            let found = values(&still.log, 0);
            assert!(found.len() as u64 >= least, "seed {seed}: {} of {least}", found.len());
            assert_eq!(found, (0..found.len() as u64).collect::<Vec<u64>>());
            assert_eq!(partition(&still.log, 1).end().0, found.len() as i64, "seed {seed}: no group by halves");
            drop(still);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("wrote");
        log.close().expect("closes");
    }
}

#[test]
fn a_second_copy_takes_only_what_is_new_and_another_directory_is_refused() {
    let disk = closed();
    let copy = SimDisk::new(1 << 40);
    let first = backup(&disk, &copy).expect("copied");
    let second = backup(&disk, &copy).expect("copied");
    assert!(first.copied_bytes > 5000 && second.copied_bytes <= 64, "{first:?}, {second:?}");
    assert_eq!((second.partitions, second.files), (first.partitions, first.files));
    let strange = SimDisk::new(1 << 40);
    strange.open("thesis.txt", true).expect("made");
    assert!(backup(&disk, &strange).is_err(), "it is not empty");
    assert!(restore(&dyn_disk(&disk), &SimDisk::new(1 << 40)).is_err(), "it is no copy");
    drop(Still::open(&copy, small()).expect("a copy opens as it is"));
    assert!(backup(&disk, &copy).is_err(), "and is none any more");
}

#[test]
fn a_copy_of_another_life_is_noticed_by_its_last_bytes() {
    let disk = closed();
    let older = disk.crash(|_| 0);
    let copy = SimDisk::new(1 << 40);
    backup(&disk, &copy).expect("copied");
    // The directory went back to an older state and on from there in another way.
    let mut still = Still::open(&older, small()).expect("opens");
    for i in 0..20 {
        drop(submit(&still.log, &[(0, vec![7000 + i])]).expect("taken"));
    }
    still.settle();
    still.close();
    backup(&older, &copy).expect("copied");
    let still = Still::open(&copy, small()).expect("opens");
    assert_eq!(values(&still.log, 0).last(), Some(&7019));
}

#[test]
fn a_sound_directory_is_found_sound_and_looking_changes_nothing() {
    for clean in [true, false] {
        let disk = closed();
        if !clean {
            let mut still = Still::open(&disk, small()).expect("opens");
            drop(submit(&still.log, &[(0, vec![1000])]).expect("taken"));
            still.commit();
        }
        let changes = disk.changes();
        let examined = examine(&dyn_disk(&disk)).expect("looked");
        assert_eq!(examined.findings, [], "clean {clean}");
        assert_eq!((examined.partitions, examined.batches, examined.wal_bytes > 0), (3, 200, !clean));
        assert_eq!(disk.changes(), changes);
    }
}

#[test]
fn what_is_wrong_is_found_and_told_who_puts_it_right() {
    let find = |damage: &dyn Fn(&SimDisk)| {
        let disk = closed();
        damage(&disk);
        let examined = examine(&dyn_disk(&disk)).expect("looked");
        let found: Vec<(Remedy, String)> = examined.findings.iter().map(|f| (f.remedy, f.what.clone())).collect();
        (disk, examined, found)
    };
    let (_, _, found) = find(&|disk| put(disk, "checkpoint", 20, b"damage"));
    assert!(
        matches!(&found[..], [(Remedy::Start, what)] if what.contains("put the log together") || what.contains("puts the log together")),
        "{found:?}"
    );
    let (_, _, found) = find(&|disk| drop(disk.open("partitions/t-0.07070707070707070707070707070707/00000000000000000999.log", true)));
    assert!(matches!(&found[..], [(Remedy::Start, what)] if what.contains("deletes it")) || found.is_empty(), "{found:?}");
    let (_, _, found) = find(&|disk| {
        let index = logs(disk)[0].replace(".log", ".index");
        let file = disk.open(&index, true).expect("made");
        file.truncate(0).expect("cut");
        file.write_at(&[IoSlice::new(&[0, 0, 0, 9, 0, 0, 0, 9])], 0).expect("written");
    });
    assert!(matches!(&found[..], [(Remedy::Start, what)] if what.contains("does not fit")), "{found:?}");
    let (_, _, found) = find(&|disk| disk.open(&logs(disk)[1], false).expect("there").truncate(20).expect("cut"));
    assert!(matches!(&found[..], [(Remedy::Backup | Remedy::Start, _)]), "{found:?}");
}

#[test]
fn damaged_batches_are_cut_out_and_nothing_else_is_lost() {
    for (file, at) in [(0, 100), (0, 0), (1, 300), (2, 20), (5, 150)] {
        let disk = closed();
        let path = logs(&disk)[file].clone();
        let before: BTreeMap<i32, Vec<u64>> = {
            let still = Still::open(&disk.crash(|_| 0), small()).expect("opens");
            (0..3).map(|n| (n, values(&still.log, n))).collect()
        };
        put(&disk, &path, at, &[0xa5; 3]);
        let examined = examine(&dyn_disk(&disk)).expect("looked");
        // Damage where the checksum does not reach changes nothing that is read.
        let Some(finding) = examined.findings.first() else { continue };
        assert!(finding.place.starts_with(&path) && finding.remedy == Remedy::Mend, "{finding:?}");
        let done = mend(&dyn_disk(&disk), &examined).expect("mended");
        assert!(done[0].contains(&path), "{done:?}");
        assert!(disk.open(&format!("{path}.damaged"), false).is_ok(), "the damaged file is kept");
        assert_eq!(examine(&dyn_disk(&disk)).expect("looked").findings, [], "after mending {path} at {at}");
        let mut still = Still::open(&disk.crash(|_| 0), small()).expect("opens");
        let mut lost = 0;
        for n in 0..3 {
            let one = partition(&still.log, n);
            let (mut at, mut found) = (one.start(), Vec::new());
            while at < one.durable_end() {
                let fetched = one.read(at, 1).expect("reads");
                for batch in fetched.batches() {
                    let batch = batch.expect("whole");
                    let records = batch.records().expect("records");
                    found.extend(records.iter().map(|r| r.expect("a record")).filter(|r| r.offset >= at).map(|r| r.offset));
                }
                at = fetched.next;
            }
            assert_eq!(one.end().0, before[&n].len() as i64, "the next offset is what it was");
            lost += before[&n].len() - found.len();
        }
        assert_eq!(lost, 2, "one batch of two records: {path} at {at}");
        for n in 0..3 {
            drop(submit(&still.log, &[(n, vec![5000])]).expect("taken"));
        }
        still.settle();
        still.close();
        let still = Still::open(&disk.crash(|_| 0), small());
        assert!(still.is_ok(), "{:?}", still.err().map(|e| e.to_string()));
    }
}

#[test]
fn a_disk_that_may_only_be_read_refuses_writes_serves_reads_and_takes_them_again_by_itself() {
    for ballast_bytes in [0, 3000] {
        let disk = SimDisk::new(1 << 40);
        let mut still = Still::open(&disk, LogConfig { ballast_bytes, ..small() }).expect("opens");
        let mut first = submit(&still.log, &[(0, vec![0])]).expect("taken");
        still.settle();
        assert!(acknowledged(&mut first));
        disk.set_read_only(true);
        let mut held = submit(&still.log, &[(0, vec![1])]).expect("taken: nobody knows yet");
        assert_eq!(still.commit(), Step::Held);
        assert!(!acknowledged(&mut held));
        let refused = submit(&still.log, &[(0, vec![2])]).err().expect("refused");
        assert!(matches!(refused, LogError::ReadOnly) && refused.is_retriable(), "{refused}");
        assert_eq!(values(&still.log, 0), [0]);
        still.log.shared.guard.forget_look();
        assert!(!still.log.disk_state().takes_writes(), "still read-only");
        disk.set_read_only(false);
        still.log.shared.guard.forget_look();
        assert!(still.log.disk_state().takes_writes());
        while still.commit() == Step::Done {}
        assert!(acknowledged(&mut held), "what was taken in is finished");
        let mut more = submit(&still.log, &[(0, vec![2])]).expect("taken again");
        still.settle();
        assert!(acknowledged(&mut more) && still.log.shared.failure().is_none());
        assert_eq!(values(&still.log, 0), [0, 1, 2]);
    }
}
