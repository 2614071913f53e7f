//! Compaction against a plain model, under crashes at every operation; and Kafka's rules for tombstones, transactions and producers.

use std::collections::BTreeMap;

use super::*;
use crate::record::ControlMarker;

const PARTITIONS: i32 = 2;
const DAY: i64 = 86_400_000;

/// A record: its key, and its value or a deletion mark.
type Keyed = (u8, Option<u64>);

/// Rules that compact whatever is new.
fn eager(upper: Offset) -> CompactionRules {
    CompactionRules {
        upper,
        delete_retention_ms: 10,
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        min_dirty_ratio: 0.0,
        producers: BTreeMap::new(),
    }
}

fn keyed(records: &[Keyed], base: Offset) -> Batch {
    let mut builder = BatchBuilder::new();
    for (key, value) in records {
        let value = value.map(|v| format!("{v:040}"));
        builder.push(0, Some(&[*key]), value.as_ref().map(String::as_bytes), &[]);
    }
    builder.finish().with_base(base, 0)
}

/// What a partition holds: each record with its offset.
fn found(log: &Log, n: i32) -> Vec<(i64, Keyed)> {
    let partition = partition(log, n);
    let mut at = partition.start();
    let mut all: Vec<(i64, Keyed)> = Vec::new();
    while at < partition.durable_end() {
        let fetched = partition.read(at, 300).expect("reads");
        for batch in fetched.batches() {
            let batch = batch.expect("whole");
            for record in batch.records().expect("records").iter() {
                let record = record.expect("record");
                if record.offset >= at && !batch.header().is_control() {
                    assert!(all.last().is_none_or(|(last, _)| *last < record.offset.0), "offsets go forward");
                    let value = record.value.map(|v| String::from_utf8_lossy(v).parse().expect("a number"));
                    all.push((record.offset.0, (record.key.expect("a key")[0], value)));
                }
            }
        }
        assert!(fetched.next > at, "reading moves on");
        at = fetched.next;
    }
    all
}

/// What holds for each key after these records.
fn folded(records: &[(i64, Keyed)]) -> BTreeMap<u8, u64> {
    let mut state = BTreeMap::new();
    for (_, (key, value)) in records {
        match value {
            Some(value) => drop(state.insert(*key, *value)),
            None => drop(state.remove(key)),
        }
    }
    state
}

#[derive(Clone, Debug)]
enum Handed {
    Group(BTreeMap<i32, Vec<Keyed>>),
    Start(i32, i64),
}

#[derive(Clone, Default)]
struct Model {
    handed: Vec<Handed>,
    acknowledged: usize,
}

impl Model {
    /// What was written to a partition by the first `n`, and where it begins.
    fn after(&self, n: usize, of: i32) -> (Vec<(i64, Keyed)>, i64) {
        let (mut all, mut start) = (Vec::new(), 0);
        for handed in &self.handed[..n] {
            match handed {
                Handed::Group(parts) => {
                    for record in parts.get(&of).into_iter().flatten() {
                        all.push((all.len() as i64, *record));
                    }
                }
                Handed::Start(p, to) if *p == of => start = *to,
                Handed::Start(..) => {}
            }
        }
        (all, start)
    }

    fn check(&mut self, log: &Log, note: &str) {
        let found: Vec<_> = (0..PARTITIONS).map(|p| (partition(log, p).start().0, partition(log, p).end().0, found(log, p))).collect();
        let fits = |n: usize| {
            (0..PARTITIONS).all(|p| {
                let (all, start) = self.after(n, p);
                let (found_start, end, records) = &found[p as usize];
                let visible: Vec<_> = all.iter().skip(start as usize).copied().collect();
                *found_start == start
                    && *end == all.len() as i64
                    && records.iter().all(|(offset, record)| all[*offset as usize].1 == *record)
                    && folded(records) == folded(&visible)
            })
        };
        let n = (self.acknowledged..=self.handed.len()).rev().find(|n| fits(*n));
        let n = n.unwrap_or_else(|| {
            let safe: Vec<_> = (0..PARTITIONS).map(|p| self.after(self.acknowledged, p)).collect();
            let all: Vec<_> = (0..PARTITIONS).map(|p| self.after(self.handed.len(), p).0.len()).collect();
            panic!("{note}: found {found:?}, of what was written {safe:?}, handed {all:?}")
        });
        self.handed.truncate(n);
        self.acknowledged = n;
    }
}

fn live(disk: &SimDisk, chance: &mut Chance, model: &mut Model, now: &mut i64) -> Result<(), LogError> {
    let mut still = Still::open(disk, small())?;
    let mut waiting: Vec<(usize, Submitted)> = Vec::new();
    for _ in 0..chance.below(40) + 5 {
        *now += chance.below(8) as i64;
        match chance.below(14) {
            0..6 => {
                let mut parts = BTreeMap::new();
                for _ in 0..chance.below(2) + 1 {
                    let records: Vec<Keyed> = (0..chance.below(8) + 1)
                        .map(|_| (chance.below(9) as u8, (chance.below(4) > 0).then(|| chance.below(1 << 30))))
                        .collect();
                    parts.insert(chance.below(PARTITIONS as u64) as i32, records);
                }
                let appends = parts.iter().map(|(n, records)| {
                    let to = partition(&still.log, *n);
                    Append { batch: keyed(records, to.end()), to, received: Timestamp(*now) }
                });
                let group = AppendGroup { appends: appends.collect() };
                model.handed.push(Handed::Group(parts));
                waiting.push((model.handed.len(), still.log.submit(group, block(still.log.room(100)))?));
            }
            6..8 => {
                still.commit();
            }
            8..10 => {
                still.log.shared.work.lock().urgent |= chance.below(2) == 0;
                still.materialise();
            }
            10..13 => {
                let one = partition(&still.log, chance.below(PARTITIONS as u64) as i32);
                let upper =
                    if chance.below(3) == 0 { Offset(chance.below(one.durable_end().0 as u64 + 1) as i64) } else { one.durable_end() };
                let rules = CompactionRules { min_lag_ms: chance.below(2) as i64 * 20, ..eager(upper) };
                one.compact(Timestamp(*now), &rules, |_| Ok(()))?;
            }
            _ => {
                while still.commit() == Step::Done {}
                let n = chance.below(PARTITIONS as u64) as i32;
                let (start, end) = (partition(&still.log, n).start().0, partition(&still.log, n).durable_end().0);
                let to = start + chance.below((end - start + 1) as u64 / 2 + 1) as i64;
                if to > start {
                    model.handed.push(Handed::Start(n, to));
                    still.advance_start(n, Offset(to))?;
                    model.acknowledged = model.handed.len();
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
    }
    if chance.below(3) == 0 {
        still.close();
        if still.log.shared.failure().is_none() {
            model.acknowledged = model.handed.len();
        }
    }
    Ok(())
}

fn found_disk(disk: &SimDisk, chance: &mut Chance) -> SimDisk {
    match chance.below(4) {
        0 => disk.crash(|_| 0),
        1 => disk.kill(),
        _ => disk.crash(|n| chance.below(n)),
    }
}

fn check_lives(seed: u64) {
    let mut chance = Chance(seed);
    let mut disk = SimDisk::new(1 << 40);
    let (mut model, mut now) = (Model::default(), 0);
    for life in 0..6 {
        let note = format!("seed {seed}, life {life}");
        if chance.below(4) > 0 {
            disk.cut_power_at(disk.changes() + chance.below(200) + 1);
        }
        let ended = live(&disk, &mut chance, &mut model, &mut now);
        assert!(!matches!(ended, Err(LogError::Corrupt { .. })), "{note}: {ended:?}");
        // Without its checkpoint a log is read back from what is whole in its files: after a death, not after a power cut.
        let loses_checkpoint = chance.below(8) == 0 && model.handed.iter().all(|h| matches!(h, Handed::Group(_)));
        disk = if loses_checkpoint { disk.kill() } else { found_disk(&disk, &mut chance) };
        if loses_checkpoint {
            // For good.
            disk.remove_file(checkpoint::FILE).and_then(|()| disk.sync_dir("")).expect("removed");
        }
        let mut still = Still::open(&disk, small()).unwrap_or_else(|e| panic!("{note}: {e}"));
        model.check(&still.log, &note);
        still.settle();
        model.check(&still.log, &format!("{note}, from segments"));
        for n in 0..PARTITIONS {
            let one = partition(&still.log, n);
            one.compact(Timestamp(now), &eager(one.durable_end()), |_| Ok(())).expect("compacts");
        }
        model.check(&still.log, &format!("{note}, compacted"));
        drop(still);
        disk = found_disk(&disk, &mut chance);
    }
}

#[test]
fn what_holds_for_each_key_is_what_it_was_after_any_crash() {
    (0..seeds(1000) / 10).for_each(check_lives);
}

/// Writes batches so that all but the last are in closed segments.
fn filled(disk: &SimDisk, batches: Vec<Batch>, bytes: u64) -> Still {
    let mut still = Still::open(disk, LogConfig { cache_bytes: 1 << 20, ..small() }).expect("opens");
    let name = TopicName::new("t").expect("valid");
    for batch in batches.into_iter().chain([keyed(&[(250, Some(0))], Offset(0))]) {
        let to = still.log.create(key(0), &name, PartitionConfig { segment_bytes: bytes, ..PartitionConfig::default() }).expect("made");
        let batch = batch.with_base(to.end(), 0);
        let group = AppendGroup { appends: vec![Append { to, batch, received: Timestamp(0) }] };
        drop(still.log.submit(group, block(still.log.room(1))).expect("taken"));
        still.settle();
    }
    still
}

/// `k=v` sets, `k-` deletes; a prefix `7:` makes it producer 7's transaction, `7!` commits, `7?` aborts, `7.0:` is an idempotent batch.
fn script(text: &str) -> Vec<Batch> {
    let one = |word: &str| {
        if let Some(producer) = word.strip_suffix(['!', '?']) {
            let marker = if word.ends_with('!') { ControlMarker::Commit } else { ControlMarker::Abort };
            return marker.batch(0, producer.parse().expect("a producer"), 0, 0);
        }
        let (producer, records) = word.split_once(':').map_or(("", word), |(p, r)| (p, r));
        let mut builder = BatchBuilder::new();
        if let Some((id, sequence)) = producer.split_once('.') {
            builder = builder.with_producer(id.parse().expect("a producer"), 0, sequence.parse().expect("a sequence"));
        } else if !producer.is_empty() {
            builder = builder.with_producer(producer.parse().expect("a producer"), 0, 0).transactional();
        }
        for record in records.split(',') {
            match record.split_once('=') {
                Some((key, value)) => builder.push(0, Some(key.as_bytes()), Some(value.as_bytes()), &[]),
                None => builder.push(0, Some(record.trim_end_matches('-').as_bytes()), None, &[]),
            }
        }
        builder.finish()
    };
    text.split_whitespace().map(one).collect()
}

/// What is left, batch by batch; a batch without records shows as `[]`.
fn left(log: &Log) -> String {
    let one = partition(log, 0);
    let mut told = Vec::new();
    let mut at = one.start();
    while at < one.durable_end() {
        let fetched = one.read(at, 1).expect("reads");
        for batch in fetched.batches() {
            let batch = batch.expect("whole");
            let header = batch.header();
            let records = batch.records().expect("records");
            let records: Vec<String> = records
                .iter()
                .map(|record| {
                    let record = record.expect("a record");
                    if header.is_control() {
                        return if ControlMarker::read(record.key) == Some(ControlMarker::Commit) { "!" } else { "?" }.to_owned();
                    }
                    let key = String::from_utf8_lossy(record.key.expect("a key")).into_owned();
                    record.value.map_or(format!("{key}-"), |v| format!("{key}={}", String::from_utf8_lossy(v)))
                })
                .collect();
            let producer = if header.has_producer() { format!("{}:", header.producer_id) } else { String::new() };
            let horizon = header.delete_horizon().map_or(String::new(), |at| format!("~{at}"));
            if header.base_offset >= at.0 && !batch.records().expect("records").iter().flatten().any(|r| r.key == Some(&[250])) {
                told.push(format!("@{}{producer}[{}]{horizon}", header.base_offset, records.join(",")));
            }
        }
        at = fetched.next;
    }
    told.join(" ")
}

/// Compacts the script's log once at each time, and tells what is left after each.
fn check(text: &str, producers: &[(i64, Option<i64>)], times: &[i64], expected: &[&str]) {
    let disk = SimDisk::new(1 << 40);
    let still = filled(&disk, script(text), 1);
    let producers = producers.iter().map(|(id, last)| (*id, LastOfProducer { epoch: 0, last_data: last.map(Offset) })).collect();
    let one = partition(&still.log, 0);
    let rules = CompactionRules { producers, delete_retention_ms: 100, ..eager(Offset(i64::MAX)) };
    for (now, expected) in times.iter().zip(expected) {
        // As if something new had come.
        one.inner.lock().clean_to = Offset(0);
        one.compact(Timestamp(*now), &rules, |_| Ok(())).expect("compacts");
        assert_eq!(left(&still.log), *expected, "{text} at {now}");
    }
}

#[test]
fn of_each_key_the_last_record_stays_at_its_offset() {
    check("a=1,b=1 a=2 c=1,a=3", &[], &[0], &["@0[b=1] @3[c=1,a=3]"]);
    check("a=1 a=2 a=3", &[], &[0], &["@2[a=3]"]);
}

#[test]
fn a_deletion_mark_stays_for_its_time_after_it_was_first_passed_over() {
    check(
        "a=1 b=1 a- c=1",
        &[],
        &[1000, 1099, 1100, 1101],
        &["@1[b=1] @2[a-]~1100 @3[c=1]", "@1[b=1] @2[a-]~1100 @3[c=1]", "@1[b=1] @3[c=1]", "@1[b=1] @3[c=1]"],
    );
    check("a- a=1", &[], &[0], &["@1[a=1]"]);
}

#[test]
fn aborted_records_go_and_count_for_nothing_and_a_marker_goes_when_it_is_alone_and_old() {
    // The aborted a=2 does not take the place of a=1.
    check("a=1 7:a=2 7?", &[], &[0, 100, 200], &["@0[a=1] @27:[?]", "@0[a=1] @27:[?]~200", "@0[a=1]"]);
    // A commit's marker stays while there is a record of it, and goes later than they do.
    check("7:a=1 7! b=1", &[], &[0, 500], &["@07:[a=1] @17:[!] @2[b=1]", "@07:[a=1] @17:[!] @2[b=1]"]);
    check("7:a=1 7! a=2", &[], &[0, 50, 149, 150], &["@17:[!] @2[a=2]", "@17:[!]~150 @2[a=2]", "@17:[!]~150 @2[a=2]", "@2[a=2]"]);
    // Two transactions of one producer, the first aborted.
    check("7:a=1,c=1 7? 7:b=1 7!", &[], &[0, 1, 101], &["@27:[?] @37:[b=1] @47:[!]", "@27:[?]~101 @37:[b=1] @47:[!]", "@37:[b=1] @47:[!]"]);
}

#[test]
fn nothing_from_the_first_undecided_transaction_on_is_touched() {
    check("a=1 a=2 7:b=1 a=3 a=4", &[], &[0], &["@1[a=2] @27:[b=1] @3[a=3] @4[a=4]"]);
    // Its marker may lie behind an open one of another producer.
    check("7:a=1 a=0 8:b=1 a=2 7?", &[], &[0], &["@1[a=0] @28:[b=1] @3[a=2] @47:[?]"]);
}

#[test]
fn a_batch_with_the_last_sequence_of_a_producer_stays_without_its_records() {
    check("7.0:a=1 7.1:a=2 a=3", &[(7, Some(1))], &[0, 0], &["@17:[] @2[a=3]", "@17:[] @2[a=3]"]);
    check("7.0:a=1 7.1:a=2 a=3", &[], &[0], &["@2[a=3]"]);
    // Also where it was aborted; then the marker has a batch.
    check("7:a=1 7? a=3", &[(7, Some(0))], &[0, 500, 900], &["@07:[] @17:[?] @2[a=3]"; 3]);
    // A marker with the producer's last epoch.
    check("7:a=1 7! a=3", &[(7, None)], &[0, 500, 900], &["@17:[!] @2[a=3]", "@17:[!]~600 @2[a=3]", "@17:[] @2[a=3]"]);
}

#[test]
fn more_keys_than_memory_has_room_for_take_more_passes_and_come_to_the_same() {
    let disk = SimDisk::new(1 << 40);
    let mut chance = Chance(1);
    let records: Vec<Keyed> = (0..600).map(|i| (chance.below(200) as u8, Some(i))).collect();
    let mut still = filled(&disk, records.chunks(3).map(|some| keyed(some, Offset(0))).collect(), 700);
    let one = partition(&still.log, 0);
    let mut expected: BTreeMap<u8, u64> = records.iter().map(|(k, v)| (*k, v.expect("set"))).collect();
    expected.insert(250, 0);
    // Room for ten keys.
    still.log.shared = {
        still.close();
        drop(still);
        let config = LogConfig { compaction_bytes: 640, ..small() };
        still = Still::open(&disk, config).expect("opens");
        Arc::clone(&still.log.shared)
    };
    drop(one);
    let one = partition(&still.log, 0);
    let done = one.compact(Timestamp(0), &eager(Offset(i64::MAX)), |_| Ok(())).expect("compacts").expect("did");
    let records = found(&still.log, 0);
    assert_eq!(folded(&records), expected);
    let closed: Vec<_> = records.iter().filter(|(offset, _)| Offset(*offset) < done.clean_to).collect();
    let mut keys: Vec<u8> = closed.iter().map(|(_, (key, _))| *key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), closed.len(), "no key twice");
    assert!(done.bytes_after < done.bytes_before / 2, "{done:?}");
}

#[test]
fn small_segments_become_one_the_old_files_go_with_the_checkpoint_and_an_index_leads_through_the_gaps() {
    let disk = SimDisk::new(1 << 40);
    let records: Vec<Vec<Keyed>> = (0..300).map(|i| vec![((i % 7) as u8, Some(i)), ((i % 50 + 60) as u8, Some(i))]).collect();
    let mut still = filled(&disk, records.iter().map(|r| keyed(r, Offset(0))).collect(), 2000);
    let one = partition(&still.log, 0);
    let logs = |disk: &SimDisk| {
        let dir = format!("partitions/{}", disk.list("partitions").expect("listed")[0]);
        disk.list(&dir).expect("listed").into_iter().filter(|name| name.ends_with(".log")).collect::<Vec<_>>()
    };
    let before = logs(&disk);
    let size = one.size_bytes();
    let done = one.compact(Timestamp(0), &eager(Offset(i64::MAX)), |_| Ok(())).expect("compacts").expect("did");
    assert_eq!(size - one.size_bytes(), done.bytes_before - done.bytes_after);
    assert!(before.iter().all(|name| logs(&disk).contains(name)), "the old ones are there until a checkpoint names the new ones");
    // They are small enough now to go together, when there is something new again.
    one.inner.lock().clean_to = Offset(0);
    one.compact(Timestamp(0), &eager(Offset(i64::MAX)), |_| Ok(())).expect("compacts").expect("did");
    still.settle();
    let after = logs(&disk);
    assert!(after.len() < before.len() && after.iter().any(|name| name.split('.').count() == 4), "{after:?}");
    let records = found(&still.log, 0);
    assert_eq!(records.len(), 57 + 1 + (600 - done.clean_to.0 as usize));
    // From any offset, the next record that is there.
    for from in 0..601 {
        let mut at = Offset(from);
        let next = loop {
            let fetched = one.read(at, 1).expect("reads");
            let batch = fetched.batches().next();
            match batch {
                Some(batch) => break batch.expect("whole").last_offset(),
                None => at = fetched.next,
            }
        };
        assert!(next >= Offset(from));
    }
    assert!(one.compact(Timestamp(0), &eager(Offset(i64::MAX)), |_| Ok(())).expect("compacts").is_none(), "nothing is new");
    still.close();
    let still = Still::open(&disk.crash(|_| 0), small()).expect("opens");
    assert_eq!(found(&still.log, 0), records);
    assert!(
        partition(&still.log, 0).compact(Timestamp(0), &eager(Offset(i64::MAX)), |_| Ok(())).expect("compacts").is_none(),
        "it is remembered"
    );
}

#[test]
fn when_a_log_is_compacted() {
    let disk = SimDisk::new(1 << 40);
    let still = filled(&disk, (0..60).map(|i| keyed(&[(i % 5, Some(u64::from(i)))], Offset(0))).collect(), 1000);
    let one = partition(&still.log, 0);
    let wants = |now: i64, change: &dyn Fn(&mut CompactionRules)| {
        let mut rules = CompactionRules { min_dirty_ratio: 0.5, ..eager(Offset(i64::MAX)) };
        change(&mut rules);
        one.wants_compaction(Timestamp(now), &rules)
    };
    assert!(wants(0, &|_| {}), "all of it is new");
    assert!(!wants(0, &|r| r.upper = Offset(3)), "the first segment does not lie wholly below");
    assert!(!wants(DAY, &|r| r.min_lag_ms = DAY + 1), "too young");
    assert!(wants(DAY, &|r| r.min_lag_ms = DAY));
    let ends: Vec<Offset> = one.inner.lock().segments.iter().map(|s| s.next).collect();
    one.inner.lock().clean_to = ends[ends.len() - 3];
    assert!(!wants(0, &|_| {}), "too little is new");
    assert!(wants(0, &|r| r.min_dirty_ratio = 0.1));
    assert!(wants(DAY, &|r| r.max_lag_ms = DAY - 1), "what is new is old");
}

#[test]
fn deleting_under_a_compaction_spoils_neither() {
    let disk = SimDisk::new(1 << 40);
    let batches: Vec<Batch> = (0..200).map(|i| keyed(&[(i % 20, Some(u64::from(i)))], Offset(0))).collect();
    let still = filled(&disk, batches, 1000);
    still.log.shared.guard.forget_look();
    let one = partition(&still.log, 0);
    let ends: Vec<Offset> = one.inner.lock().segments.iter().map(|s| s.next).collect();
    let (first, second) = (ends[0], ends[1]);
    // As a deletion does that comes between the passes and the swap.
    for to in [first, second] {
        still.log.shared.drop_below(&one, to).expect("dropped");
    }
    one.compact(Timestamp(0), &eager(Offset(i64::MAX)), |_| Ok(())).expect("compacts");
    assert_eq!(one.start(), second);
    assert_eq!(folded(&found(&still.log, 0)).len(), 21);
}
