//! Failing syncs, full disks, and damage.

use std::io::IoSlice;

use super::*;
use crate::log::checkpoint;
use crate::log::disk::read_file;

/// Nothing leaves the WAL.
fn all_in_wal() -> LogConfig {
    LogConfig { wal_segment_bytes: 1 << 20, wal_max_bytes: 1 << 30, write_behind_bytes: 1 << 30, cache_bytes: 1 << 30, ..small() }
}

fn wal(number: u64) -> String {
    format!("wal/{number:020}.wal")
}

fn put(disk: &SimDisk, path: &str, pos: u64, bytes: &[u8]) {
    disk.open(path, false).expect("there").write_at(&[IoSlice::new(bytes)], pos).expect("written");
}

fn folder(disk: &SimDisk, n: i32) -> String {
    let names = disk.list("partitions").expect("listed");
    format!("partitions/{}", names.iter().find(|name| name.starts_with(&format!("t-{n}."))).expect("it has a folder"))
}

#[test]
fn a_failed_sync_is_final_and_nothing_after_it_is_acknowledged() {
    for later in 1..30 {
        let disk = SimDisk::new(1 << 40);
        let log = open(&disk, small()).expect("opens");
        block(submit(&log, &[(0, vec![0])]).expect("taken")).expect("durable");
        disk.fail_sync_at(disk.syncs() + later);
        let mut count = 1;
        let error = loop {
            match submit(&log, &[(0, vec![count])]).and_then(block) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, LogError::Failed(_)), "{error}");
        assert!(error.is_final() && log.failed().borrow().is_some());
        assert!(matches!(submit(&log, &[(0, vec![3])]).and_then(block), Err(LogError::Failed(_) | LogError::OutOfOrder { .. })));
        assert!(log.close().is_err());
        let still = Still::open(&disk.crash(|_| 0), small()).expect("opens");
        let found = values(&still.log, 0);
        assert!(found.len() as u64 >= count, "{} of {count} acknowledged are there", found.len());
    }
}

#[test]
fn a_nearly_full_disk_refuses_writes_serves_reads_and_recovers() {
    let disk = SimDisk::new(1000);
    let mut still = Still::open(&disk, LogConfig { min_free_bytes: 500, ..small() }).expect("opens");
    let mut first = submit(&still.log, &[(0, vec![1])]).expect("taken");
    still.settle();
    assert!(acknowledged(&mut first));
    disk.set_free(100);
    still.log.shared.guard.forget_look();
    let refused = submit(&still.log, &[(0, vec![2])]).err().expect("refused");
    assert!(matches!(refused, LogError::DiskFull { free: 100, needed: 500 }) && refused.is_retriable(), "{refused}");
    assert!(!still.log.disk_state().takes_writes());
    assert_eq!(values(&still.log, 0), [1]);
    disk.set_free(1000);
    still.log.shared.guard.forget_look();
    let mut second = submit(&still.log, &[(0, vec![3])]).expect("taken");
    still.settle();
    assert!(acknowledged(&mut second));
    assert_eq!(values(&still.log, 0), [1, 3]);
}

#[test]
fn what_the_node_keeps_about_itself_may_use_the_reserve_but_not_all_of_it() {
    let disk = SimDisk::new(1000);
    let still = Still::open(&disk, LogConfig { min_free_bytes: 800, ..small() }).expect("opens");
    let own = |name: &str, n: i32, other: Option<&Arc<PartitionLog>>| {
        let to = still.log.create(key(n), &TopicName::new(name).expect("valid"), config()).expect("created");
        let all = [Some(&to), other].into_iter().flatten();
        let appends = all.map(|to| Append { to: Arc::clone(to), batch: batch_of(&[1], to.end()), received: Timestamp(0) }).collect();
        still.log.submit(AppendGroup { appends }, block(still.log.room(1))).map(drop)
    };
    for (free, node, client) in [(1000, true, true), (799, true, false), (201, true, false), (200, false, false), (0, false, false)] {
        disk.set_free(free);
        still.log.shared.guard.forget_look();
        assert_eq!(own("__topics", 8, None).is_ok(), node, "{free} free");
        assert_eq!(own("vitals", 9, None).is_ok(), client, "{free} free");
        let vitals = partition(&still.log, 7);
        assert_eq!(own("__topics", 8, Some(&vitals)).is_ok(), client, "{free} free, both in one group");
    }
}

#[test]
fn where_the_reserve_is_used_up_too_what_makes_room_gets_that_of_the_ballast() {
    let disk = SimDisk::new(1 << 40);
    disk.set_room(Some(100_000));
    let mut still = Still::open(&disk, LogConfig { min_free_bytes: 800, ballast_bytes: 3000, ..small() }).expect("opens");
    let own = |still: &Still, name: &str, n: i32| {
        let to = still.log.create(key(n), &TopicName::new(name).expect("valid"), config()).expect("created");
        let appends = vec![Append { batch: batch_of(&[1], to.end()), to, received: Timestamp(0) }];
        let taken = still.log.submit(AppendGroup { appends }, block(still.log.room(1)));
        taken.map(drop)
    };
    own(&still, "__topics", 8).expect("taken");
    still.settle();
    // Somebody else takes nearly all there is; no write of ours has failed.
    disk.set_room(Some(100));
    still.log.shared.guard.forget_look();
    assert!(own(&still, "vitals", 9).is_err());
    own(&still, "__topics", 8).expect("what makes room is taken");
    assert!(disk.free_bytes().expect("told") > 2000, "the ballast is given up");
    assert!(own(&still, "vitals", 9).is_err(), "and not to clients");
    disk.set_room(Some(100_000));
    still.log.shared.guard.forget_look();
    own(&still, "vitals", 9).expect("there is room again");
    still.settle();
    assert!(disk.open("ballast", false).is_ok(), "and the ballast is back");
}

#[test]
fn where_room_runs_out_all_the_same_what_was_taken_in_is_held_and_goes_on() {
    let config = || LogConfig { ballast_bytes: 3000, ..small() };
    for room in (9_000..40_000).step_by(500) {
        let disk = SimDisk::new(1 << 40);
        disk.set_room(Some(room));
        let mut still = Still::open(&disk, config()).expect("opens");
        let mut given = Vec::new();
        let mut refused = false;
        for i in 0..400 {
            // Nobody looks at what is free: the surprise is the point.
            match submit(&still.log, &[(0, vec![i]), (1, vec![i])]) {
                Ok(submitted) => given.push(submitted),
                Err(LogError::DiskFull { .. }) => {
                    refused = true;
                    break;
                }
                Err(error) => panic!("room {room}: {error}"),
            }
            still.commit();
            still.materialise();
        }
        assert!(refused, "room {room}");
        assert_eq!(still.log.shared.failure(), None, "a full disk is no failure");
        let shown = values(&still.log, 0);
        assert!(!shown.is_empty(), "reads go on");
        // Deleting goes on, and does not wait for room.
        still.advance_start(0, Offset(1)).expect("moved");
        disk.set_room(Some(1 << 20));
        still.log.shared.guard.forget_look();
        assert!(still.log.disk_state().takes_writes());
        while still.commit() == Step::Done {}
        still.settle();
        assert!(given.iter_mut().all(acknowledged), "room {room}: what was taken in was not finished");
        let mut more = submit(&still.log, &[(0, vec![1000])]).expect("taken again");
        still.settle();
        assert!(acknowledged(&mut more));
        let all: Vec<u64> = (1..given.len() as u64).chain([1000]).collect();
        assert_eq!(values(&still.log, 0), all);
        let still = Still::open(&disk.crash(|_| 0), config()).expect("opens");
        assert_eq!((values(&still.log, 0), values(&still.log, 1).len()), (all, given.len()), "room {room}");
    }
}

#[test]
fn where_no_more_files_can_be_opened_writes_are_refused_for_a_while_and_nothing_is_lost() {
    for ballast_bytes in [0, 3000] {
        let disk = SimDisk::new(1 << 40);
        let mut still = Still::open(&disk, LogConfig { ballast_bytes, ..small() }).expect("opens");
        let mut given = vec![submit(&still.log, &[(0, vec![0])]).expect("taken")];
        still.settle();
        disk.set_out_of_files(true);
        // What is open goes on, until the next file is needed: a segment, the WAL's next, a checkpoint.
        let refused = loop {
            assert!(given.len() < 1000, "the next file was opened");
            let values = vec![given.len() as u64];
            match submit(&still.log, &[(0, values.clone()), (1, values)]) {
                Ok(submitted) => given.push(submitted),
                Err(error) => break error,
            }
            still.commit();
            still.materialise();
        };
        assert!(matches!(refused, LogError::TooManyFiles) && refused.is_retriable(), "{refused}");
        assert_eq!(still.log.shared.failure(), None);
        still.log.shared.guard.forget_look();
        assert!(still.log.refuses().is_some_and(|why| why.to_string().contains("ulimit")), "still so");
        disk.set_out_of_files(false);
        still.log.shared.guard.forget_look();
        assert!(still.log.refuses().is_none());
        while still.commit() == Step::Done {}
        still.settle();
        assert!(given.iter_mut().all(acknowledged), "what was taken in is finished");
        let still = Still::open(&disk.crash(|_| 0), small()).expect("opens");
        assert_eq!(values(&still.log, 0), (0..given.len() as u64).collect::<Vec<u64>>());
    }
}

#[test]
fn who_starts_and_dies_often_gathers_no_files_of_the_wal() {
    let disk = SimDisk::new(1 << 40);
    for life in 0..60 {
        let mut still = Still::open(&disk, LogConfig { wal_segment_bytes: 1 << 20, ..small() }).expect("opens");
        if life % 3 == 0 {
            drop(submit(&still.log, &[(0, vec![life / 3])]).expect("taken"));
            still.commit();
        }
        still.materialise();
        let names = disk.list("wal").expect("listed");
        let bytes: u64 =
            names.iter().map(|name| disk.open(&format!("wal/{name}"), false).and_then(|file| file.length()).expect("there")).sum();
        assert!(names.len() <= 8 && bytes < 4 << 20, "life {life}: {names:?}, {bytes} bytes");
    }
    assert_eq!(values(&Still::open(&disk.crash(|_| 0), small()).expect("opens").log, 0), (0..20).collect::<Vec<u64>>());
}

#[test]
fn a_full_disk_is_waited_out_by_the_threads_too() {
    let disk = SimDisk::new(1 << 40);
    disk.set_room(Some(20_000));
    let log = open(&disk, LogConfig { ballast_bytes: 3000, ..small() }).expect("opens");
    let mut waiting = Vec::new();
    for i in 0.. {
        match submit(&log, &[(0, vec![i])]) {
            Ok(submitted) => waiting.push(submitted),
            Err(LogError::DiskFull { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    // Nothing more fits, and what is held is waited for.
    disk.set_room(Some(1 << 30));
    let count = waiting.len() as u64;
    waiting.into_iter().for_each(|submitted| block(submitted).expect("durable after all"));
    log.close().expect("closes");
    let log = open(&disk, small()).expect("opens");
    assert_eq!(values(&log, 0), (0..count).collect::<Vec<u64>>());
}

#[test]
fn a_wal_torn_at_any_byte_of_its_last_entry_ends_before_it() {
    let disk = SimDisk::new(1 << 40);
    let mut still = Still::open(&disk, all_in_wal()).expect("opens");
    let mut ends = Vec::new();
    for i in 0..4 {
        drop(submit(&still.log, &[(0, vec![i]), (1, vec![i, i])]).expect("taken"));
        still.commit();
        ends.push(64 + still.log.shared.work.lock().wal_bytes);
    }
    let (from, to) = (ends[2], ends[3]);
    for at in from..to {
        for zeros in [true, false] {
            let torn = disk.crash(|_| 0);
            if zeros {
                put(&torn, &wal(1), at, &vec![0; (to - at) as usize]);
            } else {
                // Another byte than is there, whatever the file's seed has made of it.
                let mut there = [0];
                torn.open(&wal(1), false).expect("there").read_at(&mut there, at).expect("read");
                put(&torn, &wal(1), at, &[there[0] ^ 0xa5]);
            }
            let still = Still::open(&torn, all_in_wal()).expect("opens");
            let found = (values(&still.log, 0), values(&still.log, 1));
            // The last bytes are only there to align the next entry.
            let whole = found == (vec![0, 1, 2, 3], vec![0, 0, 1, 1, 2, 2, 3, 3]) && at + 8 > to;
            assert!(whole || found == (vec![0, 1, 2], vec![0, 0, 1, 1, 2, 2]), "at {at} of {from}..{to}: {found:?}");
        }
    }
}

#[test]
fn a_hole_in_the_wal_is_an_error_that_says_where_and_not_a_silent_loss() {
    // With the next file made ahead, and without.
    for groups in [10, 16, 40] {
        let disk = SimDisk::new(1 << 40);
        let config = LogConfig { wal_segment_bytes: 4096, ..all_in_wal() };
        let mut still = Still::open(&disk, config.clone()).expect("opens");
        for i in 0..groups {
            drop(submit(&still.log, &[(0, vec![i])]).expect("taken"));
            still.commit();
            still.materialise();
        }
        for pos in [70, 100, 300, 700] {
            let damaged = disk.crash(|_| 0);
            put(&damaged, &wal(1), pos, b"x");
            let error = Still::open(&damaged, config.clone()).err().expect("refused").to_string();
            assert!(error.contains(&wal(1)) || error.contains(&wal(2)), "{error}");
            assert!(error.contains("corrupt") && error.contains(" at "), "{error}");
        }
        let damaged = disk.crash(|_| 0);
        put(&damaged, &wal(1), 10, b"x");
        assert!(Still::open(&damaged, config.clone()).is_err(), "a damaged head hides all that was written");
        if disk.open(&wal(2), false).is_ok() && groups == 40 {
            let damaged = disk.crash(|_| 0);
            damaged.remove_file(&wal(1)).expect("removed");
            assert!(Still::open(&damaged, config).is_err(), "a file is missing");
        }
    }
}

#[test]
fn stale_foreign_and_broken_indexes_are_made_again() {
    let disk = SimDisk::new(1 << 40);
    let big = PartitionConfig { segment_bytes: 100_000, ..PartitionConfig::default() };
    let name = TopicName::new("t").expect("valid");
    let mut still = Still::open(&disk, small()).expect("opens");
    for i in 0..600 {
        let to = still.log.create(key(0), &name, big.clone()).expect("created");
        let append = Append { batch: batch_of(&[i, i, i], to.end()), to, received: Timestamp(0) };
        drop(still.log.submit(AppendGroup { appends: vec![append] }, block(still.log.room(1))).expect("taken"));
        still.commit();
    }
    still.settle();
    still.close();
    let first = format!("{}/{:020}", folder(&disk, 0), 0);
    let good = read_file(&disk, &format!("{first}.index")).expect("read").expect("there");
    assert!(good.len() > 100, "{}", good.len());
    let mut foreign = good.clone();
    // In order, and leading nowhere.
    foreign.as_chunks_mut::<8>().0.iter_mut().skip(1).for_each(|entry| entry[7] ^= 1);
    let cut = good[..good.len() - 3].to_vec();
    let longer = [&good[..], &[0xff; 8]].concat();
    let other = [vec![0; 8], vec![0, 0, 0, 9, 0, 0, 0x20, 0]].concat();
    for (what, index) in
        [("foreign", foreign), ("cut", cut), ("longer", longer), ("another's", other), ("empty", vec![]), ("zeros", vec![0; 80])]
    {
        let damaged = disk.crash(|_| 0);
        let file = damaged.open(&format!("{first}.index"), true).expect("opens");
        file.truncate(0).expect("cut");
        file.write_at(&[IoSlice::new(&index)], 0).expect("written");
        let still = Still::open(&damaged, small()).expect("opens");
        let one = partition(&still.log, 0);
        for offset in [0, 5, 100, 333, 700, 1200, 1799] {
            let fetched = one.read(Offset(offset), 1).expect(what);
            let batch = fetched.batches().next().expect("one").expect("whole");
            assert!(batch.base_offset() <= Offset(offset) && Offset(offset) <= batch.last_offset(), "{what}: {offset}");
        }
        for at in [0, 1, 77, 400, 599] {
            assert_eq!(one.offset_at(at).expect(what), Some((Offset(at * 3), at)), "{what}");
        }
    }
}

#[test]
fn a_lost_or_damaged_checkpoint_is_put_together_from_the_segments() {
    for (clean, remove) in [(true, true), (true, false), (false, true), (false, false)] {
        let disk = SimDisk::new(1 << 40);
        let mut still = Still::open(&disk, small()).expect("opens");
        for i in 0..200 {
            drop(submit(&still.log, &[((i % 3) as i32, vec![i])]).expect("taken"));
            still.commit();
            still.materialise();
        }
        if clean {
            still.close();
        }
        drop(still);
        let after = disk.crash(|_| 0);
        assert!(after.open(checkpoint::FILE, false).is_ok());
        if remove {
            after.remove_file(checkpoint::FILE).expect("removed");
        } else {
            put(&after, checkpoint::FILE, 20, b"damage");
        }
        let mut still = Still::open(&after, small()).unwrap_or_else(|e| panic!("clean {clean}, removed {remove}: {e}"));
        for n in 0..3 {
            assert_eq!(values(&still.log, n as i32), (0..200).filter(|i| i % 3 == n).collect::<Vec<u64>>());
        }
        drop(submit(&still.log, &[(0, vec![1000])]).expect("taken"));
        still.settle();
        still.close();
        let still = Still::open(&after.crash(|_| 0), small()).expect("opens");
        assert_eq!(values(&still.log, 0).last(), Some(&1000));
        assert_eq!(values(&still.log, 1).len(), 67);
    }
}

#[test]
fn a_segment_shorter_than_it_was_is_an_error_and_not_filled_with_zeros() {
    let disk = SimDisk::new(1 << 40);
    let mut still = Still::open(&disk, small()).expect("opens");
    for i in 0..100 {
        drop(submit(&still.log, &[(0, vec![i])]).expect("taken"));
        still.commit();
        still.materialise();
    }
    still.settle();
    let after = disk.crash(|_| 0);
    let dir = folder(&after, 0);
    let last = after.list(&dir).expect("listed").into_iter().rfind(|name| name.ends_with(".log")).expect("there");
    let first = format!("{dir}/{:020}.log", 0);
    let short = after.crash(|_| 0);
    short.open(&first, false).expect("there").truncate(20).expect("cut");
    let error = Still::open(&short, small()).err().expect("refused").to_string();
    assert!(error.contains(&first) && error.contains("20 bytes"), "{error}");
    let gone = after.crash(|_| 0);
    gone.remove_file(&first).expect("removed");
    let still = Still::open(&gone, small()).expect("what is missing in front may have been deleted");
    assert!(partition(&still.log, 0).start() > Offset(0));
    assert_eq!(values(&still.log, 0).last(), Some(&99));
    let damaged = after.crash(|_| 0);
    put(&damaged, &first, 100, b"xx");
    let still = Still::open(&damaged, small()).expect("opens");
    let fetched = partition(&still.log, 0).read(Offset(0), 1).expect("read");
    assert!(fetched.batches().any(|batch| batch.is_err()), "whoever unpacks it sees the damage");
    assert!(last.len() == 24);
    // A checksum does not cover a batch's offset: a wrong one leads no reader back, or out of the partition.
    for wrong in [i64::MIN, -5, 0, 50, 1 << 50, i64::MAX] {
        let moved = after.crash(|_| 0);
        put(&moved, &first, batch_of(&[0], Offset(0)).len_bytes() as u64, &wrong.to_be_bytes());
        let still = Still::open(&moved, small()).expect("opens");
        let partition = partition(&still.log, 0);
        let mut at = Offset(0);
        while at < partition.durable_end() {
            match partition.read(at, 300) {
                Ok(fetched) => {
                    assert!(fetched.next > at && fetched.next <= partition.durable_end(), "{wrong}: {at} leads to {}", fetched.next);
                    at = fetched.next;
                }
                Err(error) => {
                    assert!(matches!(error, LogError::Corrupt { .. }), "{wrong}: {error}");
                    at = at.plus(1);
                }
            }
        }
    }
}

#[test]
fn a_directory_of_another_format_is_refused_with_the_reason() {
    let disk = SimDisk::new(1 << 40);
    drop(Still::open(&disk, small()).expect("opens"));
    put(&disk, "FORMAT", 0, b"vitalsql-log 9");
    let error = Still::open(&disk, small()).err().expect("refused").to_string();
    assert!(error.contains("vitalsql-log 9"), "{error}");
}

#[test]
fn removing_a_partition_while_it_is_written_is_no_failure() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = RealDisk::open(dir.path()).expect("opens");
    let log = Log::open(Arc::new(disk), LogConfig { write_behind_bytes: 1, ..small() }).expect("opens");
    for n in 0..1000 {
        let to = partition(&log, n);
        block(submit(&log, &[(n, vec![1])]).expect("taken")).expect("durable");
        log.remove(key(n)).expect("removed");
        assert!(log.failed().borrow().is_none(), "round {n}: {:?}", log.failed().borrow());
        assert!(matches!(to.read(Offset(0), 1), Err(LogError::Removed(_))));
        let permit = block(log.room(1));
        let late =
            log.submit(AppendGroup { appends: vec![Append { batch: batch_of(&[2], to.end()), to, received: Timestamp(0) }] }, permit);
        assert!(matches!(late, Err(LogError::Removed(_))));
    }
    log.close().expect("closes");
}

#[test]
fn a_directory_is_not_opened_by_two_and_is_there_again_after_a_close() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = RealDisk::open(dir.path()).expect("opens");
    assert!(RealDisk::open(dir.path()).is_err());
    let log = Log::open(Arc::new(disk), small()).expect("opens");
    for i in 0..200 {
        block(submit(&log, &[(0, vec![i, i]), (1, vec![i])]).expect("taken")).expect("durable");
    }
    log.close().expect("closes");
    drop(log);
    let disk = RealDisk::open(dir.path()).expect("opens again");
    let log = Log::open(Arc::new(disk), small()).expect("opens");
    assert_eq!(values(&log, 1), (0..200).collect::<Vec<u64>>());
    assert_eq!(values(&log, 0).len(), 400);
    assert_eq!(partition(&log, 1).offset_at(150).expect("found"), Some((Offset(150), 150)));
}
