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
use super::segment::{Segment, delete_files};
use super::shared::{Shared, Trouble};
use super::wal::{self, Writer};
use super::{LogError, PartitionKey, materialise, rebuild};
use crate::record::Offset;

/// The format of the data directory.
const FORMAT: &str = "vitalsql-log 2";
const FORMAT_FILE: &str = "FORMAT";

/// Brings the shared state to where the last acknowledged write left it, and answers a writer for what comes.
pub(super) fn recover(shared: &Arc<Shared>) -> Result<Writer, LogError> {
    let disk = shared.disk.as_ref();
    check_format(disk)?;
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
    };
    for mut stored in checkpoint.partitions {
        if !is_clean {
            verify(disk, &mut stored)?;
        }
        let inner = Inner { dir: stored.dir, segments: stored.segments, start: stored.start, ..Inner::default() };
        replay.known.insert(stored.key, PartitionLog::new(stored.key, Arc::clone(shared), inner));
    }
    for number in &numbers {
        replay.file(*number)?;
    }
    replay.check_headless()?;
    let Replay { known, last: (sync, sequence), bytes, .. } = replay;
    clear_remains(disk, &known, is_clean)?;
    install(shared, known, bytes);
    if bytes > 0 {
        tracing::info!(bytes, files = numbers.len(), "replayed the WAL");
    }
    let next = numbers.last().map_or(checkpoint.wal_from, |n| n + 1);
    Writer::begin(shared, next, sync, sequence).map_err(Trouble::into_error)
}

fn check_format(disk: &dyn Disk) -> Result<(), LogError> {
    match read_file(disk, FORMAT_FILE).map_err(LogError::io("read the format"))? {
        Some(found) if found == FORMAT.as_bytes() => Ok(()),
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

/// Looks whether what the checkpoint speaks of is there. Segments missing in front were deleted, or nearly; others are a loss.
fn verify(disk: &dyn Disk, stored: &mut StoredPartition) -> Result<(), LogError> {
    let Some(dir) = &stored.dir else { return Ok(()) };
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
            None if first == i => first = i + 1,
            _ => {
                let why = format!(
                    "it has {} bytes and should have {}: restore the data directory from a backup",
                    there.unwrap_or(0),
                    segment.length
                );
                return Err(LogError::Corrupt { place: path, why });
            }
        }
    }
    if first == 0 {
        return Ok(());
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
    Ok(())
}

/// Removes what a crash has left lying: segments begun after the checkpoint, whose batches the WAL has, and folders of nobody.
fn clear_remains(disk: &dyn Disk, known: &HashMap<PartitionKey, Arc<PartitionLog>>, is_clean: bool) -> Result<(), LogError> {
    let mut owned = BTreeSet::new();
    for partition in known.values() {
        let inner = partition.inner.lock();
        let Some(dir) = &inner.dir else { continue };
        owned.insert(dir.clone());
        if is_clean {
            continue;
        }
        for name in disk.list(dir).map_err(LogError::io(format!("list {dir}")))? {
            if let Some(base) = Segment::base_of(&name)
                && !inner.segments.iter().any(|s| s.base == base)
            {
                delete_files(disk, &Segment::new(base).stem(dir))?;
            }
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

/// Makes what was recovered the log's state.
fn install(shared: &Arc<Shared>, known: HashMap<PartitionKey, Arc<PartitionLog>>, bytes: u64) {
    let mut cache = shared.cache.lock();
    let mut work = shared.work.lock();
    for (key, partition) in &known {
        let inner = partition.inner.lock();
        if inner.unwritten > 0 {
            work.dirty.insert(*key);
        }
        for tail in &inner.tail {
            cache.note(partition, tail.batch.len_bytes());
            work.bytes += tail.batch.len_bytes();
        }
        drop(inner);
        partition.wake();
    }
    work.wal_bytes = bytes;
    *shared.partitions.write() = known;
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
}

impl Replay<'_> {
    fn file(&mut self, number: u64) -> Result<(), LogError> {
        let path = wal::path(number);
        let disk = self.shared.disk.as_ref();
        let bytes = Bytes::from(read_file(disk, &path).map_err(LogError::io(format!("read {path}")))?.unwrap_or_default());
        let seed = match entry::head(&bytes, number) {
            Head::Of { seed } => seed,
            Head::Unused => return Ok(()),
            Head::Damaged => {
                return Err(LogError::Corrupt {
                    place: format!("{path} at 0"),
                    why: "its head is damaged: restore the data directory from a backup".to_owned(),
                });
            }
        };
        let mut pos = FILE_HEAD_BYTES;
        while let Some(decoded) = entry::decode(&bytes, pos, seed) {
            self.check_follows(decoded.sync, decoded.sequence, &format!("{path} at {pos}"))?;
            self.last = (decoded.sync, decoded.sequence);
            if decoded.sequence > self.contained {
                self.apply(decoded.entry, &format!("{path} at {pos}"))?;
            }
            pos += decoded.length;
        }
        self.check_end(&bytes, pos, seed, &path)?;
        if pos > FILE_HEAD_BYTES {
            self.bytes += pos as u64;
            // The process may have died between writing and syncing: what we show must not go with the power.
            let file = disk.open(&path, false).map_err(LogError::io(format!("open {path}")))?;
            file.sync().map_err(LogError::io(format!("sync {path}")))?;
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

    fn apply(&mut self, entry: Entry, place: &str) -> Result<(), LogError> {
        match entry {
            Entry::Start(key, to) => match self.known.get(&key) {
                Some(partition) => self.shared.drop_below(partition, to),
                None => Ok(()),
            },
            Entry::Remove(key) => {
                self.headless.remove(&key);
                let dir = self.known.remove(&key).and_then(|partition| partition.inner.lock().dir.take());
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
                    partition.keep(batch, received);
                    partition.show(next);
                }
                Ok(())
            }
        }
    }
}
