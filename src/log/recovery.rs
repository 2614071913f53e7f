//! Opening the log: the last checkpoint, and behind it the WAL.
//!
//! Trusts two things only: what the checkpoint says was synced, and WAL entries whose checksums are right. Segment bytes behind
//! a checkpoint are not looked at: the WAL has them again. Always: replay is idempotent; a torn end of the WAL is an end; a
//! hole in it is an error that says where, never a silent loss; what is made visible is durable first. The time it takes grows with
//! the WAL, not with the data.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::checkpoint::{Checkpoint, FILE, StoredPartition};
use super::disk::{Disk, read_file, replace_file};
use super::entry::{self, Entry, FILE_HEAD_BYTES, Head};
use super::partition::{Inner, PartitionLog};
use super::segment::{ENDINGS, Segment};
use super::shared::{Shared, Trouble};
use super::wal::{self, Writer};
use super::{LogError, PartitionKey, backup, compact, materialise, rebuild};
use crate::record::Offset;

/// The format of the data directory.
pub(super) const FORMAT: &str = "vitalsql-log 3";
/// The format before, which had no compacted segments: it is read, and becomes this one.
pub(super) const FORMAT_BEFORE: &str = "vitalsql-log 2";
pub(super) const FORMAT_FILE: &str = "FORMAT";

/// Brings the shared state to where the last acknowledged write left it, and answers a writer for what comes.
pub(super) fn recover(shared: &Arc<Shared>) -> Result<Writer, LogError> {
    let disk = shared.disk.as_ref();
    check_format(disk)?;
    // What is written to from now on is a copy of nothing.
    if read_file(disk, backup::MARK).map_err(LogError::io("read the mark of a copy"))?.is_some() {
        backup::finish(disk)?;
    }
    disk.remove_file(backup::MARK).map_err(LogError::io("take the mark of a copy away"))?;
    let names = disk.list(wal::DIR).map_err(LogError::io("list the WAL"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|n| wal::number_of(n)).collect();
    numbers.sort_unstable();
    let checkpoint = last_checkpoint(shared, &numbers)?;
    numbers.retain(|n| *n >= checkpoint.wal_from);
    check_numbers(&numbers, &checkpoint)?;
    wal::release(shared, checkpoint.wal_from, false).map_err(Trouble::into_error)?;
    let is_clean = checkpoint.clean && numbers.is_empty();
    let mut replay = Replay {
        shared,
        known: HashMap::new(),
        contained: checkpoint.sequence,
        last: (checkpoint.sync, checkpoint.sequence),
        is_first: true,
        any_first: checkpoint.rebuilt,
        headless: BTreeMap::new(),
        bytes: 0,
        used: None,
        rest: Vec::new(),
    };
    let mut lost = Vec::new();
    for mut stored in checkpoint.partitions {
        if !is_clean {
            lost.extend(verify(disk, &mut stored)?.into_iter().map(|(segment, why)| (stored.key, segment, why)));
        }
        let inner =
            Inner { dir: stored.dir, segments: stored.segments, start: stored.start, clean_to: stored.clean_to, ..Inner::default() };
        replay.known.insert(stored.key, PartitionLog::new(stored.key, Arc::clone(shared), inner));
    }
    // Reading and checking takes the time: several files at once, applied in their order.
    let at_once = std::thread::available_parallelism().map_or(1, |n| n.get().min(FILES_AT_ONCE));
    for some in numbers.chunks(at_once) {
        for read in read_files(disk, some) {
            replay.file(read?)?;
        }
    }
    replay.check_headless()?;
    replay.check_lost(lost)?;
    // What the checkpoint contains may be missing from a WAL whose end was not synced: its numbers are taken all the same.
    let Replay { known, last: (sync, sequence), bytes, contained, used, rest, .. } = replay;
    let sequence = sequence.max(contained);
    clear_remains(disk, &known, is_clean)?;
    install(shared, known, bytes);
    if bytes > 0 {
        tracing::info!(bytes, files = numbers.len(), "replayed the WAL");
    }
    // Files that were made and never written to are made again: who starts and dies often must not fill the disk with them.
    let next = used.map_or_else(|| numbers.first().copied().unwrap_or(checkpoint.wal_from), |used| used + 1);
    for unused in numbers.iter().filter(|number| **number > next) {
        let path = wal::path(*unused);
        disk.remove_file(&path).map_err(LogError::io(format!("delete {path}")))?;
    }
    {
        let mut work = shared.work.lock();
        // Nor with the room that the others did not come to use.
        work.trim = rest;
        work.cut = numbers.len() > FILES_KEPT;
    }
    Writer::begin(shared, next, sync, sequence).map_err(Trouble::into_error)
}

fn check_format(disk: &dyn Disk) -> Result<(), LogError> {
    match read_file(disk, FORMAT_FILE).map_err(LogError::io("read the format"))? {
        Some(found) if found == FORMAT.as_bytes() => Ok(()),
        Some(found) if found == FORMAT_BEFORE.as_bytes() => {
            replace_file(disk, "", FORMAT_FILE, FORMAT.as_bytes()).map_err(Trouble::into_error)
        }
        Some(found) => Err(LogError::Format { found: String::from_utf8_lossy(&found).into_owned(), known: FORMAT }),
        None => {
            disk.make_dir(materialise::DIR).map_err(LogError::io("make the data directory"))?;
            replace_file(disk, "", FORMAT_FILE, FORMAT.as_bytes()).map_err(Trouble::into_error)
        }
    }
}

/// The last checkpoint, or what stands in for it.
fn last_checkpoint(shared: &Arc<Shared>, numbers: &[u64]) -> Result<Checkpoint, LogError> {
    let disk = shared.disk.as_ref();
    match Checkpoint::load(disk).map_err(LogError::io("read the checkpoint"))? {
        Some(Ok(checkpoint)) => return Ok(checkpoint),
        Some(Err(why)) => tracing::error!(why, "the file {FILE} is damaged: the log is put together from the segments"),
        None => {}
    }
    let run = rebuild::last_run(numbers);
    let folders = disk.list(materialise::DIR).map_err(LogError::io("list the partitions"))?;
    // With a WAL from its first file on, or without anything, there need not have been a checkpoint.
    if run == Some(1) || (run.is_none() && folders.is_empty()) {
        return Ok(Checkpoint { wal_from: 1, sequence: 0, sync: 0, clean: false, rebuilt: false, partitions: Vec::new() });
    }
    rebuild::rebuild(shared, run, &folders, numbers)
}

/// The WAL must begin where the checkpoint ends.
fn check_numbers(numbers: &[u64], checkpoint: &Checkpoint) -> Result<(), LogError> {
    let from = checkpoint.wal_from;
    let is_there = match numbers.first() {
        Some(first) => *first == from,
        // Closed, or never used.
        None => checkpoint.clean || from == 1,
    };
    if is_there {
        return Ok(());
    }
    let why = "the file is missing, and writes after the last checkpoint with it: restore the data directory from a backup";
    Err(LogError::Corrupt { place: wal::path(from), why: why.to_owned() })
}

/// Looks whether what the checkpoint speaks of is there. Segments missing in front were deleted, or nearly. Others are a loss, unless the
/// WAL says that their records were to go: these are answered, with what is wrong with them.
fn verify(disk: &dyn Disk, stored: &mut StoredPartition) -> Result<Vec<(Segment, String)>, LogError> {
    let mut lost = Vec::new();
    let Some(dir) = &stored.dir else { return Ok(lost) };
    let mut first = 0;
    for (i, segment) in stored.segments.iter().enumerate().filter(|(_, s)| s.length > 0) {
        let path = segment.path(dir);
        let there = match disk.open(&path, false) {
            Ok(file) => Some(file.length().map_err(LogError::io(format!("read {path}")))?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(LogError::io(format!("open {path}"))(e)),
        };
        match there {
            Some(there) if there >= segment.length => {}
            // What was compacted to nothing has nothing to miss.
            None if stored.segments[first..i].iter().all(|s| s.length == 0) => first = i + 1,
            _ => {
                let why = format!(
                    "it has {} bytes and should have {}: restore the data directory from a backup",
                    there.unwrap_or(0),
                    segment.length
                );
                lost.push((segment.clone(), why));
            }
        }
    }
    if first == 0 {
        return Ok(lost);
    }
    let next = stored.segments[first - 1].next;
    if next > stored.start {
        tracing::error!(dir, from = %stored.start, to = %next, "files of these offsets are missing: the partition begins behind them");
    }
    stored.start = stored.start.max(next);
    stored.segments.drain(..first);
    if stored.segments.is_empty() {
        stored.dir = None;
    }
    Ok(lost)
}

/// Removes what a crash has left lying: segments begun after the checkpoint, whose batches the WAL has, and folders of nobody.
fn clear_remains(disk: &dyn Disk, known: &HashMap<PartitionKey, Arc<PartitionLog>>, is_clean: bool) -> Result<(), LogError> {
    let mut owned = BTreeSet::new();
    // In order, so that the same chance gives the same run.
    for partition in known.iter().collect::<BTreeMap<_, _>>().into_values() {
        let inner = partition.inner.lock();
        let Some(dir) = &inner.dir else { continue };
        owned.insert(dir.clone());
        if is_clean {
            continue;
        }
        for name in remains(&inner.segments, &disk.list(dir).map_err(LogError::io(format!("list {dir}")))?) {
            let path = format!("{dir}/{name}");
            disk.remove_file(&path).map_err(LogError::io(format!("delete {path}")))?;
        }
    }
    for name in disk.list(materialise::DIR).map_err(LogError::io("list the partitions"))? {
        let dir = format!("{}/{name}", materialise::DIR);
        if !owned.contains(&dir) && (!is_clean || name.ends_with(materialise::GONE)) {
            disk.remove_dir(&dir).map_err(LogError::io(format!("delete {dir}")))?;
        }
    }
    Ok(())
}

/// Which of a partition folder's names are ours and belong to none of its segments.
pub(super) fn remains<'a>(segments: &[Segment], names: &'a [String]) -> Vec<&'a String> {
    let known: BTreeSet<String> =
        segments.iter().flat_map(|segment| ENDINGS.map(|ending| format!("{}.{ending}", segment.stem("")))).collect();
    let is_ours = |name: &String| {
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        (ENDINGS.contains(&ending) || ending == compact::UNFINISHED) && name.as_bytes().iter().take(20).all(u8::is_ascii_digit)
    };
    names.iter().filter(|name| is_ours(name) && !known.contains(&format!("/{name}"))).collect()
}

/// Makes what was recovered the log's state.
fn install(shared: &Arc<Shared>, known: HashMap<PartitionKey, Arc<PartitionLog>>, bytes: u64) {
    let mut work = shared.work.lock();
    for (key, partition) in &known {
        let inner = partition.inner.lock();
        if inner.unwritten > 0 {
            work.dirty.insert(*key);
        }
        work.bytes += inner.tail.iter().map(|tail| tail.batch.len_bytes()).sum::<usize>();
        drop(inner);
        partition.wake();
    }
    work.wal_bytes = bytes;
    *shared.partitions.write() = known;
}

/// So many files are read at once at most: each is kept in memory whole meanwhile.
const FILES_AT_ONCE: usize = 4;
/// With more files than this a checkpoint is written soon after the start: whoever starts and dies often would gather them.
const FILES_KEPT: usize = 4;

/// A WAL file as it was found.
struct ReadFile {
    number: u64,
    path: String,
    bytes: Bytes,
    /// Its entries with their places.
    entries: Vec<(usize, entry::Decoded)>,
    /// Its seed, and where its entries end; `None` where it was never used.
    end: Option<(u64, usize)>,
}

fn read_files(disk: &dyn Disk, numbers: &[u64]) -> Vec<Result<ReadFile, LogError>> {
    if let [only] = numbers {
        return vec![read_wal(disk, *only)];
    }
    std::thread::scope(|scope| {
        let reading: Vec<_> = numbers.iter().map(|number| scope.spawn(|| read_wal(disk, *number))).collect();
        let died = || LogError::Io { what: "read the WAL".to_owned(), why: "a thread panicked".to_owned() };
        reading.into_iter().map(|one| one.join().unwrap_or_else(|_| Err(died()))).collect()
    })
}

fn read_wal(disk: &dyn Disk, number: u64) -> Result<ReadFile, LogError> {
    let path = wal::path(number);
    let bytes = Bytes::from(read_file(disk, &path).map_err(LogError::io(format!("read {path}")))?.unwrap_or_default());
    let mut entries = Vec::new();
    let end = match entry::head(&bytes, number) {
        Head::Of { seed } => {
            let mut end;
            (entries, end) = read_entries(&bytes, seed);
            if end < bytes.len() / 2 {
                // The batches stay in memory, and what they are cut from with them: not with all the room behind.
                (entries, end) = read_entries(&Bytes::copy_from_slice(&bytes[..end]), seed);
            }
            Some((seed, end))
        }
        Head::Unused => None,
        Head::Damaged => {
            return Err(LogError::Corrupt {
                place: format!("{path} at 0"),
                why: "its head is damaged: restore the data directory from a backup".to_owned(),
            });
        }
    };
    Ok(ReadFile { number, path, bytes, entries, end })
}

/// The entries from the front on as far as they are whole, with their places, and where they end.
fn read_entries(bytes: &Bytes, seed: u64) -> (Vec<(usize, entry::Decoded)>, usize) {
    let mut entries = Vec::new();
    let mut pos = FILE_HEAD_BYTES;
    while let Some(decoded) = entry::decode(bytes, pos, seed) {
        let length = decoded.length;
        entries.push((pos, decoded));
        pos += length;
    }
    (entries, pos)
}

struct Replay<'a> {
    shared: &'a Arc<Shared>,
    known: HashMap<PartitionKey, Arc<PartitionLog>>,
    /// Entries up to this one are in the checkpoint.
    contained: u64,
    /// Sync and sequence of the last entry.
    last: (u64, u64),
    is_first: bool,
    /// What comes first is not known.
    any_first: bool,
    /// Partitions that begin in the middle, and the entry that says so.
    headless: BTreeMap<PartitionKey, String>,
    bytes: u64,
    /// The last file that has entries.
    used: Option<u64>,
    /// Files that are longer than their entries, and where these end.
    rest: Vec<(String, u64)>,
}

impl Replay<'_> {
    fn file(&mut self, read: ReadFile) -> Result<(), LogError> {
        let ReadFile { number, path, bytes, entries, end } = read;
        let Some((seed, end)) = end else { return Ok(()) };
        for (pos, decoded) in entries {
            self.check_follows(decoded.sync, decoded.sequence, &format!("{path} at {pos}"))?;
            self.last = (decoded.sync, decoded.sequence);
            if decoded.sequence > self.contained {
                self.apply(decoded.entry, &format!("{path} at {pos}"))?;
            }
        }
        self.check_end(&bytes, end, seed, &path)?;
        if end > FILE_HEAD_BYTES {
            self.bytes += end as u64;
            // The process may have died between writing and syncing: what we show must not go with the power.
            let file = self.shared.disk.open(&path, false).map_err(LogError::io(format!("open {path}")))?;
            file.sync().map_err(LogError::io(format!("sync {path}")))?;
            self.used = Some(number);
            if bytes.len() > end {
                self.rest.push((path, end as u64));
            }
        }
        Ok(())
    }

    /// Every entry counts up by one. The first may be any that the checkpoint contains, or the one behind.
    fn check_follows(&mut self, sync: u64, sequence: u64, place: &str) -> Result<(), LogError> {
        let (last_sync, last) = self.last;
        let is_contained = (sequence > last || self.is_first) && sequence <= self.contained + 1;
        let follows = sequence == last + 1 || is_contained || (self.is_first && self.any_first);
        if !follows || (sync < last_sync && !self.is_first) {
            let why =
                format!("entry {sequence} follows entry {last}: what was between them is lost; restore the data directory from a backup");
            return Err(LogError::Corrupt { place: place.to_owned(), why });
        }
        self.is_first = false;
        Ok(())
    }

    /// The entries of a file end here. What one sync did not finish may lie behind the end in pieces; what a later sync confirmed may not.
    fn check_end(&self, bytes: &Bytes, end: usize, seed: u64, path: &str) -> Result<(), LogError> {
        let unfinished = self.last.0 + 1;
        let later = entry::places_behind(bytes, end)
            .find_map(|pos| entry::head_at(bytes, pos, seed).filter(|(sync, _)| *sync > unfinished).map(|_| pos));
        match later {
            None => Ok(()),
            Some(later) => {
                let why = format!(
                    "the entry here is damaged, and one that was confirmed after it follows at {later}: restore the data directory from a backup"
                );
                Err(LogError::Corrupt { place: format!("{path} at {end}"), why })
            }
        }
    }

    /// With a checkpoint, a partition that begins in the middle is one that was being removed. Without one, its beginning is lost.
    fn check_headless(&self) -> Result<(), LogError> {
        match self.headless.first_key_value().filter(|_| self.any_first) {
            None => Ok(()),
            Some((key, place)) => {
                let why = format!(
                    "partition {} of topic {} begins here in the middle, and the checkpoint is missing: restore the data directory from a backup",
                    key.partition, key.topic
                );
                Err(LogError::Corrupt { place: place.clone(), why })
            }
        }
    }

    /// Segments that were missing must be gone for good by now.
    fn check_lost(&self, lost: Vec<(PartitionKey, Segment, String)>) -> Result<(), LogError> {
        for (key, segment, why) in lost {
            let Some(partition) = self.known.get(&key) else { continue };
            let inner = partition.inner.lock();
            if inner.segments.iter().any(|here| here.is_file_of(&segment)) {
                return Err(LogError::Corrupt { place: segment.path(inner.dir.as_deref().unwrap_or_default()), why });
            }
        }
        Ok(())
    }

    fn apply(&mut self, entry: Entry, place: &str) -> Result<(), LogError> {
        match entry {
            Entry::Start(key, to) => match self.known.get(&key) {
                Some(partition) => self.shared.drop_below(partition, to),
                None => Ok(()),
            },
            Entry::Remove(key) => {
                self.headless.remove(&key);
                let removed = self.known.remove(&key).inspect(|partition| self.shared.cache.lock().forget(partition));
                let dir = removed.and_then(|partition| partition.inner.lock().dir.take());
                dir.map_or(Ok(()), |dir| materialise::delete_folder(self.shared.disk.as_ref(), &dir))
            }
            Entry::Group(parts) => {
                for (key, received, batch) in parts {
                    if !self.known.contains_key(&key) && batch.base_offset() > Offset::ZERO {
                        self.headless.insert(key, place.to_owned());
                    }
                    let new = || {
                        // Made after the checkpoint.
                        let inner = Inner { start: batch.base_offset(), ..Inner::default() };
                        PartitionLog::new(key, Arc::clone(self.shared), inner)
                    };
                    let partition = self.known.entry(key).or_insert_with(new);
                    let end: Offset = partition.durable_end();
                    let next = batch.next_offset();
                    if next <= end {
                        continue;
                    }
                    if batch.base_offset() != end {
                        let why = format!("a batch for offset {} comes where {end} is next", batch.base_offset());
                        return Err(LogError::Corrupt { place: place.to_owned(), why });
                    }
                    // In their order over all partitions: memory is given back file by file.
                    self.shared.cache.lock().note(partition, batch.len_bytes());
                    partition.keep(batch, received);
                    partition.show(next);
                }
                Ok(())
            }
        }
    }
}
