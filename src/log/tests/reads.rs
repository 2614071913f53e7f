//! What readers see, retention, and many partitions.

use super::*;

#[test]
fn a_start_that_moved_stays_moved_and_what_lies_below_is_gone() {
    let disk = SimDisk::new(1 << 40);
    let log = open(&disk, small()).expect("opens");
    for i in 0..200 {
        block(submit(&log, &[(0, vec![i])]).expect("taken")).expect("durable");
    }
    let one = partition(&log, 0);
    assert_eq!(one.offset_at(150).expect("found"), Some((Offset(150), 150)));
    log.close().expect("closes");
    let log = open(&disk, small()).expect("opens");
    let one = partition(&log, 0);
    let before = one.size_bytes();
    one.advance_start(Offset(120)).expect("moved");
    assert!(one.size_bytes() < before);
    assert!(matches!(one.read(Offset(119), 100), Err(LogError::OutOfRange { .. })));
    assert_eq!(one.offset_at(5).expect("found"), Some((Offset(120), 120)));
    drop(one);
    let crashed = disk.crash(|_| 0);
    disk.cut_power();
    drop(log);
    let log = open(&crashed, small()).expect("opens");
    assert_eq!(partition(&log, 0).start(), Offset(120));
    assert_eq!(values(&log, 0), (120..200).collect::<Vec<u64>>());
}

#[test]
fn reads_give_whole_batches_from_memory_and_from_segments_alike() {
    let disk = SimDisk::new(1 << 40);
    let mut chance = Chance(3);
    let mut still = Still::open(&disk, LogConfig { cache_bytes: 1 << 20, ..small() }).expect("opens");
    let mut bases = Vec::new();
    for i in 0..300 {
        bases.push(partition(&still.log, 0).end());
        drop(submit(&still.log, &[(0, vec![i; chance.below(9) as usize + 1])]).expect("taken"));
        still.commit();
    }
    let end = partition(&still.log, 0).end();
    let check = |log: &Log, cached: bool| {
        let one = partition(log, 0);
        for offset in (0..end.0).map(Offset) {
            assert_eq!(one.read_is_cached(offset), cached, "{offset}");
            for most in [0, 200, 1000, usize::MAX] {
                let fetched = one.read(offset, most).expect("reads");
                let batches: Vec<Batch> = fetched.batches().map(|b| b.expect("whole")).collect();
                let bytes: usize = fetched.chunks.iter().map(bytes::Bytes::len).sum();
                assert_eq!(bytes, batches.iter().map(Batch::len_bytes).sum::<usize>());
                let at = bases.partition_point(|base| *base <= offset) - 1;
                assert_eq!(batches[0].base_offset(), bases[at], "the whole batch that holds {offset}");
                assert!(batches.len() == 1 || bytes <= most, "{bytes} of {most}");
                assert!(batches.windows(2).all(|two| two[0].next_offset() == two[1].base_offset()));
                assert_eq!(batches.last().map(Batch::next_offset), Some(fetched.next));
            }
        }
        let at_end = one.read(end, 100).expect("nothing yet");
        assert!(at_end.chunks.is_empty() && at_end.next == end);
        assert!(matches!(one.read(end.plus(1), 100), Err(LogError::OutOfRange { .. })));
    };
    check(&still.log, true);
    still.settle();
    still.close();
    drop(still);
    let still = Still::open(&disk, small()).expect("opens");
    check(&still.log, false);
}

#[test]
fn a_time_leads_to_the_first_record_that_reaches_it_also_out_of_order() {
    let disk = SimDisk::new(1 << 40);
    let mut chance = Chance(9);
    let mut still = Still::open(&disk, small()).expect("opens");
    let mut all = Vec::new();
    for round in 0..500 {
        let times: Vec<u64> = (0..chance.below(5) + 1).map(|_| round * 3 + chance.below(400)).collect();
        all.extend(times.iter().map(|t| *t as i64));
        drop(submit(&still.log, &[(0, times)]).expect("taken"));
        still.commit();
        if chance.below(4) == 0 {
            still.materialise();
        }
        if round == 300 {
            still.close();
            drop(still);
            still = Still::open(&disk, small()).expect("opens");
        }
    }
    let check = |log: &Log, start: usize| {
        let one = partition(log, 0);
        for timestamp in -3..2000 {
            let expected = all.iter().enumerate().skip(start).find(|(_, at)| **at >= timestamp).map(|(i, at)| (Offset(i as i64), *at));
            assert_eq!(one.offset_at(timestamp).expect("looked"), expected, "{timestamp}");
        }
        let largest = all.iter().skip(start).max().copied();
        let first = all.iter().enumerate().skip(start).find(|(_, at)| Some(**at) == largest).map(|(i, at)| (Offset(i as i64), *at));
        assert_eq!(one.max_timestamp().expect("looked"), first);
    };
    check(&still.log, 0);
    still.settle();
    check(&still.log, 0);
    still.advance_start(0, Offset(777)).expect("moved");
    check(&still.log, 777);
    let last = all.len() - 3;
    still.advance_start(0, Offset(last as i64)).expect("moved");
    check(&still.log, last);
}

#[test]
fn retention_counts_from_when_records_came_and_closes_what_is_still_open() {
    let disk = SimDisk::new(1 << 40);
    let mut still = Still::open(&disk, small()).expect("opens");
    for i in 0..100 {
        drop(submit_at(&still.log, &[(0, vec![i])], i as i64 * 1000).expect("taken"));
        still.commit();
    }
    let shared = Arc::clone(&still.log.shared);
    let enforce = |still: &mut Still, now: i64, pin: Option<i64>| {
        let limits = RetentionLimits { retention_ms: Some(50_000), retention_bytes: None, pin: pin.map(Offset) };
        // Another thread asks, while the WAL is stepped here.
        let log = &still.log;
        let asked = std::thread::scope(|scope| {
            let asking = scope.spawn(|| log.enforce_retention(&Ages::at(Timestamp(now)), |_| limits.clone()));
            while !asking.is_finished() {
                still.committer.step(&shared);
            }
            asking.join().expect("asked")
        });
        asked.expect("enforced");
        while still.materialise() == Step::Done {}
    };
    enforce(&mut still, 100_000, Some(30));
    enforce(&mut still, 100_000, Some(30));
    let pinned = partition(&still.log, 0).start();
    assert!(pinned > Offset(0) && pinned <= Offset(30), "{pinned}");
    enforce(&mut still, 100_000, None);
    let start = partition(&still.log, 0).start();
    assert!(start > Offset(30) && start <= Offset(50), "{start}");
    assert_eq!(values(&still.log, 0).last(), Some(&99));
    // Long after the last record all of it goes, the open segment too, and the partition goes on from its end.
    enforce(&mut still, 1_000_000, None);
    enforce(&mut still, 1_000_000, None);
    assert_eq!((partition(&still.log, 0).start(), partition(&still.log, 0).end()), (Offset(100), Offset(100)));
    assert_eq!(partition(&still.log, 0).size_bytes(), 0);
    let mut next = submit(&still.log, &[(0, vec![100])]).expect("taken");
    still.settle();
    assert!(acknowledged(&mut next));
    assert_eq!(still.log.shared.failure(), None);
    let still = Still::open(&disk.crash(|_| 0), small()).expect("opens");
    assert_eq!((partition(&still.log, 0).start(), values(&still.log, 0)), (Offset(100), vec![100]));
}

#[test]
fn an_emptied_partition_takes_writes_after_a_close_too() {
    let disk = SimDisk::new(1 << 40);
    for round in 0..3 {
        let log = open(&disk, small()).expect("opens");
        block(submit(&log, &[(0, vec![round])]).expect("taken")).expect("durable");
        log.close().expect("closes");
        let log = open(&disk, small()).expect("opens");
        let limits = RetentionLimits { retention_ms: Some(10), retention_bytes: None, pin: None };
        log.enforce_retention(&Ages::at(Timestamp(100_000)), |_| limits.clone()).expect("enforced");
        assert_eq!(partition(&log, 0).start(), Offset(round as i64 + 1));
        log.close().expect("closes");
    }
}

#[test]
fn an_order_of_batches_that_is_not_contiguous_is_refused_whole() {
    let disk = SimDisk::new(1 << 40);
    let mut still = Still::open(&disk, small()).expect("opens");
    let (one, other) = (partition(&still.log, 0), partition(&still.log, 1));
    let append =
        |to: &Arc<PartitionLog>, base: i64| Append { to: Arc::clone(to), batch: batch_of(&[1], Offset(base)), received: Timestamp(0) };
    let group = AppendGroup { appends: vec![append(&one, 0), append(&other, 7)] };
    assert!(matches!(still.log.submit(group, block(still.log.room(1))), Err(LogError::OutOfOrder { expected: Offset(0), .. })));
    assert_eq!((one.end(), other.end()), (Offset(0), Offset(0)));
    let group = AppendGroup { appends: vec![append(&one, 0), append(&one, 1), append(&other, 0)] };
    let mut submitted = still.log.submit(group, block(still.log.room(1))).expect("taken");
    assert_eq!((one.end(), one.durable_end()), (Offset(2), Offset(0)));
    still.settle();
    assert!(acknowledged(&mut submitted));
    assert_eq!(one.durable_end(), Offset(2));
}

#[test]
fn wal_files_are_let_go_and_used_again_and_a_quiet_partition_keeps_none() {
    let disk = SimDisk::new(1 << 40);
    let mut still = Still::open(&disk, small()).expect("opens");
    drop(submit(&still.log, &[(1, vec![1])]).expect("taken"));
    for i in 0..2000 {
        drop(submit(&still.log, &[(0, vec![i])]).expect("taken"));
        still.commit();
        while still.materialise() == Step::Done {}
        let files = disk.list("wal").expect("listed").len();
        assert!(files <= 7, "{files} files after {i}");
    }
    assert!(still.log.shared.wal_file.load(std::sync::atomic::Ordering::Relaxed) > 50);
    let still = Still::open(&disk.crash(|_| 0), small()).expect("opens");
    assert_eq!((values(&still.log, 0).len(), values(&still.log, 1)), (2000, vec![1]));
    assert!(still.log.shared.published.load(std::sync::atomic::Ordering::Relaxed) >= 2000);
}

#[test]
fn thousands_of_partitions_are_written_and_opened_by_two_threads() {
    let disk = SimDisk::new(1 << 40);
    let mut still = Still::open(&disk, LogConfig { wal_segment_bytes: 1 << 20, ..small() }).expect("opens");
    for some in 0..20 {
        let parts: Vec<(i32, Vec<u64>)> = (0..100).map(|i| (some * 100 + i, vec![i as u64])).collect();
        drop(submit(&still.log, &parts).expect("taken"));
        still.commit();
    }
    still.settle();
    still.close();
    let still = Still::open(&disk, small()).expect("opens");
    assert_eq!(still.log.partitions().len(), 2_000);
    assert_eq!(values(&still.log, 1_976), vec![76]);
}
