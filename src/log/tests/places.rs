//! Files with another's content: batches are whole and in the wrong place, which no checksum tells.

use std::collections::BTreeMap;
use std::io::IoSlice;

use super::*;
use crate::log::checkpoint::{self, Checkpoint};
use crate::log::disk::read_file;

const DIR: &str = "partitions/t-0.07070707070707070707070707070707";

fn path(base: i64) -> String {
    format!("{DIR}/{base:020}.log")
}

fn replace(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let file = disk.open(path, true).expect("opened");
    file.truncate(0).expect("cut");
    file.write_at(&[IoSlice::new(bytes)], 0).expect("written");
    file.sync().expect("synced");
}

fn bytes(disk: &SimDisk, path: &str) -> Vec<u8> {
    read_file(disk, path).expect("read").expect("there")
}

/// A partition of some segments, the last one half full, written out; closed, or as the death of the process leaves it.
fn written(closed: bool) -> SimDisk {
    let disk = SimDisk::new(1 << 40);
    let mut still = Still::open(&disk, small()).expect("opens");
    for i in 0..75 {
        drop(submit(&still.log, &[(0, vec![i, i])]).expect("taken"));
        still.commit();
        still.materialise();
    }
    still.settle();
    if closed {
        still.close();
    } else {
        still.log.shared.work.lock().cut = true;
        still.materialise();
    }
    drop(still);
    disk
}

fn bases(disk: &SimDisk) -> Vec<i64> {
    let names = disk.list(DIR).expect("listed");
    names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect()
}

/// What a read at each offset finds: the batch there, or where it says the damage is.
fn reads(log: &Log) -> BTreeMap<i64, Result<Vec<u8>, String>> {
    let one = partition(log, 0);
    let at = one.start().0..one.durable_end().0;
    let read = |at: i64| match one.read(Offset(at), 1) {
        Ok(fetched) => {
            let batch = fetched.batches().next().expect("one").expect("whole");
            assert!(batch.base_offset().0 <= at && at < batch.next_offset().0, "{at} leads to {}", batch.base_offset());
            Ok(batch.to_bytes().to_vec())
        }
        Err(LogError::Corrupt { place, .. }) => Err(place.split(' ').next().unwrap_or_default().to_owned()),
        Err(error) => panic!("{at}: {error}"),
    };
    at.map(|at| (at, read(at))).collect()
}

#[test]
fn a_segment_with_anothers_content_is_an_error_that_says_where_at_every_start_and_what_comes_is_kept() {
    for closed in [true, false] {
        let healthy = written(closed);
        let sound = reads(&Still::open(&healthy.crash(|_| 0), small()).expect("opens").log);
        let bases = bases(&healthy);
        assert!(bases.len() > 3 && sound.len() == 150 && sound.values().all(Result::is_ok), "{bases:?}");
        let length = |base: i64| bytes(&healthy, &path(base)).len();
        assert!(length(bases[bases.len() - 1]) < length(0), "the last one is not full");
        let pairs = bases.iter().flat_map(|victim| bases.iter().map(move |other| (*victim, *other)));
        for (victim, other) in pairs.filter(|(victim, other)| victim != other && length(*victim) <= length(*other)) {
            let disk = healthy.crash(|_| 0);
            let foreign = bytes(&disk, &path(other));
            replace(&disk, &path(victim), &foreign);
            let of_victim = victim..bases.iter().copied().find(|base| *base > victim).unwrap_or(150);
            let expected: BTreeMap<i64, Result<Vec<u8>, String>> =
                sound.iter().map(|(at, read)| (*at, if of_victim.contains(at) { Err(path(victim)) } else { read.clone() })).collect();
            let mut still = Still::open(&disk, small()).expect("opens");
            assert_eq!(reads(&still.log), expected, "{other} in the place of {victim}, closed {closed}");
            // Its times are the other's too.
            let at = partition(&still.log, 0).offset_at(victim / 2);
            assert!(matches!(&at, Err(LogError::Corrupt { place, .. }) if place.starts_with(&path(victim))), "{at:?}");
            let mut taken = submit(&still.log, &[(0, vec![1000])]).expect("taken");
            still.settle();
            assert!(acknowledged(&mut taken));
            still.close();
            assert_eq!(still.log.shared.failure(), None);
            drop(still);
            for start in 1..3 {
                let mut still = Still::open(&disk.crash(|_| 0), small()).expect("opens");
                let mut again = reads(&still.log);
                assert!(again.remove(&150).is_some_and(|last| last.is_ok()), "what came after the damage can be read");
                assert_eq!(again, expected, "{other} in the place of {victim}, closed {closed}, start {start}");
                still.close();
            }
            assert_eq!(bytes(&disk, &path(victim)), foreign, "what may be somebody's only copy is left alone");
        }
    }
}

#[test]
fn what_comes_is_not_written_behind_damage_where_no_reader_could_find_it() {
    let healthy = written(true);
    let last = *bases(&healthy).last().expect("some");
    let sound = reads(&Still::open(&healthy.crash(|_| 0), small()).expect("opens").log);
    let one = batch_of(&[0, 0], Offset(0)).len_bytes() as u64;
    // A length or an offset; in the first and in the second batch.
    for at in [8, 0, 6, one + 8, one, one + 6] {
        let disk = healthy.crash(|_| 0);
        disk.open(&path(last), false).expect("there").write_at(&[IoSlice::new(&[0x55])], at).expect("written");
        let mut still = Still::open(&disk, small()).expect("opens");
        for i in 0..40 {
            drop(submit(&still.log, &[(0, vec![2000 + i])]).expect("taken"));
        }
        still.settle();
        still.close();
        let still = Still::open(&disk, small()).expect("opens");
        let again = reads(&still.log);
        assert!((150..190).all(|at| again[&at].is_ok()), "damage at {at}");
        assert!((last..150).any(|at| again[&at].is_err()), "damage at {at}");
        assert!((last..150).all(|at| again[&at].is_err() || again[&at] == sound[&at]), "damage at {at}");
    }
}

#[test]
fn a_compaction_that_meets_anothers_batches_takes_nothing_away() {
    let healthy = written(true);
    let bases = bases(&healthy);
    let rules = CompactionRules {
        upper: Offset(150),
        delete_retention_ms: 0,
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        min_dirty_ratio: 0.0,
        producers: BTreeMap::new(),
    };
    for other in [bases[0], bases[2]] {
        let disk = healthy.crash(|_| 0);
        replace(&disk, &path(bases[1]), &bytes(&disk, &path(other)));
        let still = Still::open(&disk, small()).expect("opens");
        let (before, files) = (reads(&still.log), disk.list(DIR).expect("listed"));
        let error = partition(&still.log, 0).compact(Timestamp(1_000_000), &rules, |_| Ok(())).expect_err("it cannot");
        assert!(matches!(&error, LogError::Corrupt { place, .. } if place.starts_with(&path(bases[1]))), "{error}");
        assert_eq!((reads(&still.log), disk.list(DIR).expect("listed")), (before, files));
        assert_eq!(still.log.shared.failure(), None);
    }
}

#[test]
fn without_a_checkpoint_too_a_last_segment_with_anothers_content_is_not_taken_for_a_torn_one() {
    let healthy = written(true);
    healthy.remove_file(checkpoint::FILE).and_then(|()| healthy.sync_dir("")).expect("removed");
    let bases = bases(&healthy);
    let last = bases[bases.len() - 1];
    let disk = healthy.crash(|_| 0);
    replace(&disk, &path(last), &bytes(&disk, &path(bases[1])));
    let error = Still::open(&disk, small()).err().expect("refused").to_string();
    assert!(error.contains(&path(last)) && error.contains("another's"), "{error}");
    // What a crash leaves is: its end is cut off.
    let disk = healthy.crash(|_| 0);
    disk.remove_dir("wal").expect("removed");
    let whole = bytes(&disk, &path(last));
    replace(&disk, &path(last), &whole[..whole.len() - 5]);
    assert_eq!(values(&Still::open(&disk, small()).expect("opens").log, 0).len(), 148);
    // But not with whole batches behind it, which nothing has again.
    let disk = healthy.crash(|_| 0);
    disk.remove_dir("wal").expect("removed");
    disk.open(&path(last), false).expect("there").write_at(&[IoSlice::new(&[0x55])], 70).expect("written");
    let error = Still::open(&disk, small()).err().expect("refused").to_string();
    assert!(error.contains(&format!("{} at 0", path(last))) && error.contains("whole ones follow"), "{error}");
}

#[test]
fn a_checkpoint_that_names_anothers_folder_or_has_segments_out_of_order_is_not_believed() {
    let healthy = written(true);
    let known = bytes(&healthy, checkpoint::FILE);
    let text = std::str::from_utf8(&known[4..]).expect("text").to_owned();
    let name = &DIR["partitions/".len()..];
    let stranger = name.replace("t-0.07", "t-0.08");
    let line = &text[text.find("[{").expect("the list") + 1..text.rfind(']').expect("its end")];
    let none = text.replace(&format!("\"{DIR}\""), "null");
    let first = format!("[[0,{},", bases(&healthy)[1]);
    for wrong in [
        text.replace(DIR, &DIR.replace('/', "")),
        text.replace(DIR, "../t-0.07070707070707070707070707070707"),
        text.replace(DIR, &format!("partitions/x/{name}")),
        text.replace(DIR, &format!("partitions/{stranger}")),
        text.replace(DIR, &DIR.replace("t-0", "t-1")),
        text.replace(line, &format!("{line},{line}")),
        none,
        // One that ends within the next, and one that begins behind its end.
        text.replace(&first, "[[0,140,"),
        text.replace(&first, &first.replace("[[0", "[[200")),
        text.replace(
            line,
            &format!("{line},{}", r#"{"topic":[9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9],"partition":-1,"dir":null,"start":0,"segments":[]}"#),
        ),
    ] {
        assert!(Checkpoint::read(&known).is_ok() && wrong != text);
        let sealed = [&crc32c::crc32c(wrong.as_bytes()).to_be_bytes(), wrong.as_bytes()].concat();
        assert!(Checkpoint::read(&sealed).is_err(), "{wrong}");
        let disk = healthy.crash(|_| 0);
        replace(&disk, checkpoint::FILE, &sealed);
        let mut still = Still::open(&disk, small()).expect("the segments have everything");
        assert_eq!(values(&still.log, 0).len(), 150, "{wrong}");
        drop(submit(&still.log, &[(0, vec![1000])]).expect("taken"));
        still.close();
        assert_eq!(still.log.shared.failure(), None);
        assert_eq!(disk.list("").expect("listed"), healthy.list("").expect("listed"));
    }
}

#[test]
fn an_entry_of_a_partition_below_zero_is_no_entry() {
    let disk = SimDisk::new(1 << 40);
    let mut still = Still::open(&disk, small()).expect("opens");
    for n in [0, -1, 0] {
        drop(submit(&still.log, &[(n, vec![1])]).expect("taken"));
        still.commit();
    }
    drop(still);
    // It is not a torn end: something was confirmed after it.
    let error = Still::open(&disk.crash(|_| 0), small()).err().expect("refused").to_string();
    assert!(error.contains("damaged, and one that was confirmed after it"), "{error}");
}

#[test]
fn the_doctor_gives_up_what_is_missing_and_readers_go_on_behind_it() {
    let healthy = written(true);
    let bases = bases(&healthy);
    let last = bases[bases.len() - 1];
    let mend_all = |disk: &SimDisk, of: &str| {
        let on: Arc<dyn Disk> = Arc::new(disk.clone());
        let examined = examine(&on).expect("looked");
        // Besides, the crash has left no index.
        let found: Vec<&Finding> = examined.findings.iter().filter(|finding| !finding.place.ends_with(".index")).collect();
        assert!(matches!(found[..], [Finding { place, remedy: Remedy::Mend, .. }] if place.starts_with(of)), "{found:?}");
        mend(&on, &examined).expect("mended");
        assert_eq!(examine(&on).expect("looked").findings, []);
    };
    for victim in [bases[1], last] {
        let disk = healthy.crash(|_| 0);
        replace(&disk, &path(victim), &bytes(&disk, &path(0)));
        mend_all(&disk, &path(victim));
        let one = partition(&Still::open(&disk, small()).expect("opens").log, 0);
        assert_eq!(one.read(Offset(victim), 1).expect("a gap").next.0, if victim == last { 150 } else { bases[2] });
    }
    // A segment that ends before its time.
    let disk = healthy.crash(|_| 0);
    let mut known = Checkpoint::load(&disk).expect("read").expect("there").expect("whole");
    known.partitions[0].segments.last_mut().expect("the last").next = Offset(155);
    known.save(&disk).expect("saved");
    let one = partition(&Still::open(&disk, small()).expect("opens").log, 0);
    assert!(one.read(Offset(149), 1).is_ok());
    assert!(matches!(one.read(Offset(150), 1), Err(LogError::Corrupt { .. })), "records are missing, and nothing says they may");
    mend_all(&disk, &path(last));
    let still = Still::open(&disk, small()).expect("opens");
    let fetched = partition(&still.log, 0).read(Offset(150), 1).expect("a gap");
    assert_eq!((fetched.next, fetched.chunks.len()), (Offset(155), 0));
}

#[test]
fn a_segment_begins_where_the_one_before_ends_also_where_that_is_not_yet_visible() {
    let disk = SimDisk::new(1 << 40);
    let mut still = Still::open(&disk, small()).expect("opens");
    drop(submit(&still.log, &[(0, vec![1])]).expect("taken"));
    still.commit();
    let one = partition(&still.log, 0);
    // As between the two moves of the WAL's thread.
    one.keep(batch_of(&[2], Offset(1)), Timestamp(0));
    still.log.shared.work.lock().dirty.insert(one.key());
    still.settle();
    assert_eq!((one.durable_end(), one.inner.lock().segments[0].next), (Offset(1), Offset(2)));
    let week = PartitionConfig::default().segment_ms;
    still.log.enforce_retention(&Ages::at(Timestamp(week + 1)), |_| RetentionLimits::default()).expect("enforced");
    let ends: Vec<(Offset, Offset)> = one.inner.lock().segments.iter().map(|s| (s.base, s.next)).collect();
    assert_eq!(ends, [(Offset(0), Offset(2)), (Offset(2), Offset(2))]);
}
