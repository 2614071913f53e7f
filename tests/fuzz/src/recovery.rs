//! Damage to a data directory on the simulated disk, as a program: the input's bytes say which files are changed, how, and which
//! checksums are put right afterwards, so that damage gets past them.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::{Arc, LazyLock};

use crate::log::{
    Append, AppendGroup, CompactionRules, Disk, Log, LogConfig, LogError, PartitionConfig, PartitionKey, PartitionLog, Remedy, SimDisk,
    examine, mend,
};
use crate::memory;
use crate::record::{Batch, BatchBuilder, Offset, PartitionId, TopicId, TopicName};
use crate::time::Timestamp;

/// What a start may take: caches of the configuration, a thread's stack and a multiple of what is on the disk.
const ALLOWED: usize = 64 << 20;

type Files = BTreeMap<String, Vec<u8>>;

fn config() -> LogConfig {
    LogConfig {
        wal_segment_bytes: 4096,
        wal_max_bytes: 8192,
        cache_bytes: 4096,
        write_behind_bytes: 1024,
        max_pending_bytes: 1 << 20,
        min_free_bytes: 0,
        ballast_bytes: 0,
        compaction_bytes: 1 << 20,
    }
}

fn partition(log: &Log, n: i32) -> Arc<PartitionLog> {
    let key = PartitionKey { topic: TopicId([7; 16]), partition: PartitionId(n) };
    let config = PartitionConfig { segment_bytes: 700, ..PartitionConfig::default() };
    log.create(key, &TopicName::new("t").expect("valid"), config).expect("created")
}

fn batch(base: Offset, keys: &[u8]) -> Batch {
    let mut builder = BatchBuilder::new();
    for key in keys {
        builder.push(i64::from(*key), Some(&[*key]), Some(&[*key; 30]), &[]);
    }
    builder.finish().with_base(base, 0)
}

fn append(log: &Log, to: &[(Arc<PartitionLog>, &[u8])]) -> Result<(), LogError> {
    let appends = to.iter().map(|(to, keys)| Append { batch: batch(to.end(), keys), to: Arc::clone(to), received: Timestamp(1) }).collect();
    let permit = futures::executor::block_on(log.room(4096));
    let submitted = log.submit(AppendGroup { appends }, permit)?;
    futures::executor::block_on(submitted)
}

fn files(disk: &dyn Disk, dir: &str, out: &mut Files) {
    for name in disk.list(dir).expect("a folder") {
        let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
        match disk.open(&path, false) {
            Ok(file) => {
                let mut bytes = vec![0; file.length().expect("a length") as usize];
                file.read_at(&mut bytes, 0).expect("read");
                out.insert(path, bytes);
            }
            Err(_) => files(disk, &path, out),
        }
    }
}

/// Healthy directories of some ages: in the WAL only, in segments and the WAL, closed, compacted.
static HEALTHY: LazyLock<Vec<Files>> = LazyLock::new(|| (0..5).map(healthy).collect());

fn healthy(age: u8) -> Files {
    let mut out = Files::new();
    if age == 0 {
        return out;
    }
    let disk = SimDisk::new(1 << 40);
    let log = Log::open(Arc::new(disk.clone()), config()).expect("an empty disk opens");
    let (a, b) = (partition(&log, 0), partition(&log, 1));
    let rounds = if age == 1 { 3 } else { 30 };
    for round in 0..rounds {
        append(&log, &[(Arc::clone(&a), &[1, 2, round]), (Arc::clone(&b), &[round])]).expect("appended");
    }
    if age >= 2 {
        a.advance_start(Offset(4)).expect("there");
        let gone = partition(&log, 2);
        append(&log, &[(gone.clone(), &[1])]).expect("appended");
        log.remove(gone.key()).expect("removed");
    }
    if age == 4 {
        let rules = CompactionRules {
            upper: Offset(60),
            delete_retention_ms: 0,
            min_lag_ms: 0,
            max_lag_ms: i64::MAX,
            min_dirty_ratio: 0.0,
            producers: BTreeMap::new(),
        };
        a.compact(Timestamp(1_000_000), &rules, |_| Ok(())).expect("compacted");
    }
    if age >= 3 {
        log.close().expect("closed");
    }
    files(&disk, "", &mut out);
    // As a power cut would leave it: the process is gone, the files are there.
    drop(log);
    out
}

/// Takes numbers and bytes off the front of an input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
    fn short(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) | usize::from(self.byte()?) << 8)
    }
    fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

fn damage(files: &mut Files, input: &mut Input<'_>) -> Option<()> {
    while let Some(what) = input.byte() {
        let names: Vec<String> = files.keys().cloned().collect();
        let which = usize::from(input.byte()?);
        let name = names.get(which % names.len().max(1)).cloned();
        match (what % 10, name) {
            (0, Some(name)) => {
                let (at, n) = (input.short()?, usize::from(input.byte()?));
                let new = input.bytes(n);
                let bytes = files.get_mut(&name)?;
                let at = at % (bytes.len() + 1);
                bytes.resize(bytes.len().max(at + new.len()), 0);
                bytes[at..at + new.len()].copy_from_slice(new);
            }
            (1, Some(name)) => {
                let at = input.short()?;
                files.get_mut(&name)?.truncate(at);
            }
            (2, Some(name)) => {
                let n = input.short()?;
                files.get_mut(&name)?.extend_from_slice(input.bytes(n));
            }
            (3, Some(name)) => drop(files.remove(&name)),
            (4, Some(name)) => {
                let n = input.short()?;
                files.insert(name, input.bytes(n).to_vec());
            }
            (5, Some(name)) => seal(&name, files.get_mut(&name)?),
            (6, _) => {
                let n = input.short()?;
                files.insert(format!("wal/{:020}.wal", which % 8), input.bytes(n).to_vec());
            }
            (7, Some(name)) => {
                let other = names.get(usize::from(input.byte()?) % names.len())?;
                let bytes = files.get(other)?.clone();
                files.insert(name, bytes);
            }
            (8, Some(name)) => {
                let (at, n, to) = (input.short()?, input.short()?, input.short()?);
                let bytes = files.get_mut(&name)?;
                let from: Vec<u8> = bytes.get(at..)?.iter().take(n).copied().collect();
                let to = to % (bytes.len() + 1);
                bytes.splice(to..to, from);
            }
            (9, Some(name)) => {
                let bytes = files.get_mut(&name)?;
                let (at, n) = (input.short()? % (bytes.len() + 1), input.short()?);
                let end = (at + n).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {}
        }
    }
    Some(())
}

/// Puts a file's checksums right, by its name.
fn seal(name: &str, bytes: &mut [u8]) {
    if name.starts_with("wal/") {
        seal_wal(bytes);
    } else if name.ends_with(".log") {
        seal_batches(bytes);
    } else if name == "checkpoint" && bytes.len() >= 4 {
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_be_bytes());
    }
}

fn seal_wal(bytes: &mut [u8]) {
    if bytes.len() < 64 {
        return;
    }
    let crc = crc32c::crc32c(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    let seeded = crc32c::crc32c(&bytes[16..24]);
    let mut at = 64;
    while let Some(entry) = bytes.get_mut(at..).filter(|rest| rest.len() >= 33) {
        if entry[..4] != *b"VQLE" {
            at += 8;
            continue;
        }
        let length = u32::from_le_bytes(entry[8..12].try_into().expect("four")) as usize;
        if let Some(body) = 33usize.checked_add(length).and_then(|end| entry.get(33..end)) {
            let crc = crc32c::crc32c_append(seeded, body);
            entry[12..16].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32c::crc32c_append(seeded, &entry[8..33]);
        entry[4..8].copy_from_slice(&crc.to_le_bytes());
        at += (33 + length.min(bytes.len())).next_multiple_of(8);
    }
}

fn seal_batches(bytes: &mut [u8]) {
    let mut rest = bytes;
    while rest.len() >= 61 {
        let length = i32::from_be_bytes(rest[8..12].try_into().expect("four"));
        let Ok(length) = usize::try_from(i64::from(length) + 12) else { return };
        if length < 61 || length > rest.len() {
            return;
        }
        let (batch, behind) = rest.split_at_mut(length);
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        rest = behind;
    }
}

fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::new(1 << 40);
    for (path, bytes) in files {
        if let Some((dir, _)) = path.rsplit_once('/') {
            disk.make_dir(dir).expect("made");
            disk.sync_dir("").expect("synced");
        }
        let file = disk.open(path, true).expect("made");
        file.write_at(&[IoSlice::new(bytes)], 0).expect("written");
        file.sync().expect("synced");
        disk.sync_dir(path.rsplit_once('/').map_or("", |(dir, _)| dir)).expect("synced");
    }
    disk
}

/// What a partition says and holds.
type Held = (PartitionKey, Offset, Offset, Result<Vec<u8>, ()>);

/// All that can be read, partition by partition; an error where one holds damage.
fn contents(log: &Log) -> Vec<Held> {
    let mut out = Vec::new();
    for key in log.partitions() {
        let partition = log.get(key).expect("it is listed");
        let (start, end) = (partition.start(), partition.durable_end());
        assert!(start <= end, "a partition from {start} to {end}");
        let (mut at, mut bytes, mut rounds, mut next) = (start, Ok(Vec::new()), 0, Offset::ZERO);
        while at < end {
            rounds += 1;
            assert!(rounds < 10_000, "reading does not get on");
            let Ok(fetched) = partition.read(at, 1 << 20) else {
                bytes = Err(());
                break;
            };
            assert!(fetched.next > at, "a read at {at} goes on at {}", fetched.next);
            for batch in fetched.batches() {
                // What is in memory came with the checksum of the WAL, which an input may put right around a batch that is wrong.
                match batch.and_then(|batch| Batch::parse(batch.to_bytes())) {
                    // No checksum covers a batch's offset. A gap, which only compaction leaves, is compared with the bytes: they have it.
                    Ok(batch) => {
                        assert!(
                            next <= batch.base_offset() && batch.next_offset() <= end,
                            "a batch at {} behind {next}",
                            batch.base_offset()
                        );
                        next = batch.next_offset();
                        bytes.as_mut().map(|b: &mut Vec<u8>| b.extend_from_slice(&batch.to_bytes())).unwrap_or(());
                    }
                    Err(_) => bytes = Err(()),
                }
            }
            at = fetched.next;
        }
        out.push((key, start, end, bytes));
    }
    out.sort_by_key(|held| held.0);
    out
}

/// One input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let Some(age) = input.byte() else { return };
    let mut files = HEALTHY[usize::from(age) % HEALTHY.len()].clone();
    damage(&mut files, &mut input);
    let total: usize = files.values().map(Vec::len).sum();
    memory::most(ALLOWED + 16 * total, || start(&files));
    memory::most(ALLOWED + 16 * total, || doctor(&files));
}

fn start(files: &Files) {
    let disk = disk_of(files);
    let Ok(log) = Log::open(Arc::new(disk.clone()), config()) else { return };
    let found = contents(&log);
    let first = log.partitions().first().and_then(|key| log.get(*key));
    let end = first.as_ref().map(|partition| partition.end());
    // The end of offsets is near where damage said so; nothing more can be written then.
    if let Some(first) = first.filter(|first| first.end().0 < i64::MAX - 16) {
        // What a closed log holds is not looked at when it opens: where files of it are gone since, or shorter, it stops when it comes to
        // write there, and says why.
        match append(&log, &[(first, &[9, 9])]) {
            Ok(()) => {}
            Err(LogError::Failed(why)) if why.contains("partitions/") => return,
            Err(error) => panic!("a log that opens takes writes: {error}"),
        }
    }
    match log.close() {
        Ok(()) => {}
        Err(LogError::Failed(why)) if why.contains("partitions/") => return,
        Err(error) => panic!("a log that opens closes: {error}"),
    }
    drop(log);
    let log = Log::open(Arc::new(disk), config()).expect("a log that was closed opens");
    let mut again = contents(&log);
    if let (Some(end), Some(held)) = (end, again.first_mut()) {
        let partition = log.get(held.0).expect("it is listed");
        if end.0 < i64::MAX - 16 {
            assert_eq!(held.2, Offset(end.0 + 2), "what was appended is there");
            // Whatever is damaged before it.
            let kept = partition.read(end, 1 << 20).expect("what was appended can be read").chunks.concat().len();
            if found.first().is_some_and(|held| held.3.is_ok()) {
                let bytes = held.3.as_mut().expect("what could be read before can be read again");
                bytes.truncate(bytes.len() - kept);
            }
            held.2 = end;
        }
    }
    assert_eq!(found, again, "a log that was closed is what it was");
    log.close().expect("closes");
}

fn doctor(files: &Files) {
    let disk: Arc<dyn Disk> = Arc::new(disk_of(files));
    let Ok(examined) = examine(&disk) else { return };
    if examined.worst() == Some(Remedy::Mend) && mend(&disk, &examined).is_ok() {
        let again = examine(&disk).expect("what was mended can be examined");
        let left: Vec<_> = again.findings.iter().filter(|finding| finding.remedy != Remedy::Start).collect();
        assert!(left.is_empty(), "mended, and still {left:?}");
    }
}
