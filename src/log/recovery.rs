//! Opening the log: the last checkpoint, and behind it the WAL.
//!
//! Trusts two things only: what the checkpoint says was synced, and WAL entries whose checksums are right. Segment bytes behind
//! a checkpoint are not looked at: the WAL has them again. Always: replay is idempotent; a torn end of the WAL is an end; a
//! hole in it is an error that says where, never a silent loss. The time it takes grows with the WAL, not with the data.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::disk::{Disk, read_file, replace_file};
use super::entry::{self, Entry, HEAD_BYTES, MAGIC};
use super::partition::{Inner, PartitionLog, TailBatch};
use super::segment::Segment;
use super::store::Shared;
use super::wal::{self, Writer};
use super::{LogError, PartitionKey, materialise};
use crate::record::{Offset, PartitionId, TopicId};

/// The format of the data directory.
const FORMAT: &str = "vitalsql-log 1";
const FORMAT_FILE: &str = "FORMAT";
const CHECKPOINT_FILE: &str = "checkpoint";

/// What was synced, and from where on the WAL is needed.
pub(super) struct Checkpoint {
    pub wal_from: u64,
    pub partitions: Vec<StoredPartition>,
}

/// A partition in a checkpoint.
pub(super) struct StoredPartition {
    pub key: PartitionKey,
    pub dir: Option<String>,
    pub start: Offset,
    pub segments: Vec<Segment>,
}

#[derive(Serialize, Deserialize)]
struct Lines {
    wal_from: u64,
    partitions: Vec<PartitionLine>,
}

/// `(base, next, length, largest timestamp, first received, last received)`.
type SegmentLine = (i64, i64, u64, i64, i64, i64);

#[derive(Serialize, Deserialize)]
struct PartitionLine {
    topic: [u8; 16],
    partition: i32,
    dir: Option<String>,
    start: i64,
    segments: Vec<SegmentLine>,
}

impl Checkpoint {
    pub(super) fn save(&self, disk: &dyn Disk) -> Result<(), LogError> {
        let partitions = self.partitions.iter().map(|p| PartitionLine {
            topic: p.key.topic.0,
            partition: p.key.partition.0,
            dir: p.dir.clone(),
            start: p.start.0,
            segments: p
                .segments
                .iter()
                .map(|s| (s.base.0, s.next.0, s.length, s.max_timestamp, s.first_received, s.last_received))
                .collect(),
        });
        let body = serde_json::to_vec(&Lines { wal_from: self.wal_from, partitions: partitions.collect() }).expect("plain data");
        let mut bytes = crc32c::crc32c(&body).to_be_bytes().to_vec();
        bytes.extend_from_slice(&body);
        replace_file(disk, "", CHECKPOINT_FILE, &bytes).map_err(LogError::io("write the checkpoint"))
    }

    fn load(disk: &dyn Disk) -> Result<Option<Self>, LogError> {
        let Some(bytes) = read_file(disk, CHECKPOINT_FILE).map_err(LogError::io("read the checkpoint"))? else { return Ok(None) };
        let corrupt = |why: String| LogError::Corrupt { place: CHECKPOINT_FILE.to_owned(), why };
        let (crc, body) = bytes.split_at_checked(4).ok_or_else(|| corrupt("it is too short".to_owned()))?;
        if crc32c::crc32c(body).to_be_bytes() != crc {
            return Err(corrupt("it fails its checksum".to_owned()));
        }
        let lines: Lines = serde_json::from_slice(body).map_err(|e| corrupt(e.to_string()))?;
        let partitions = lines.partitions.into_iter().map(|line| StoredPartition {
            key: PartitionKey { topic: TopicId(line.topic), partition: PartitionId(line.partition) },
            dir: line.dir,
            start: Offset(line.start),
            segments: line
                .segments
                .into_iter()
                .map(|(base, next, length, max_timestamp, first_received, last_received)| Segment {
                    base: Offset(base),
                    next: Offset(next),
                    length,
                    max_timestamp,
                    first_received,
                    last_received,
                    dirty: false,
                    index: None,
                })
                .collect(),
        });
        Ok(Some(Self { wal_from: lines.wal_from, partitions: partitions.collect() }))
    }
}

/// Brings the shared state to where the last acknowledged write left it, and answers a writer for what comes.
pub(super) fn recover(shared: &Arc<Shared>) -> Result<Writer, LogError> {
    check_format(shared.disk.as_ref())?;
    let mut replay = Replay { shared, known: HashMap::new(), last: None, bytes: 0 };
    let checkpoint = Checkpoint::load(shared.disk.as_ref())?;
    let wal_from = checkpoint.as_ref().map_or(1, |c| c.wal_from);
    for stored in checkpoint.into_iter().flat_map(|c| c.partitions) {
        let inner = Inner { dir: stored.dir, segments: stored.segments, start: stored.start, ..Inner::default() };
        let partition = PartitionLog::new(stored.key, Arc::clone(shared), inner);
        replay.known.insert(stored.key, Arc::new(partition));
    }
    let names = shared.disk.list(wal::DIR).map_err(LogError::io("list the WAL"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|n| wal::number_of(n)).filter(|n| *n >= wal_from).collect();
    numbers.sort_unstable();
    if wal_from == 1 && numbers.first().is_some_and(|first| *first > 1) {
        return Err(LogError::Corrupt {
            place: wal::path(1),
            why: "it is missing, and so is the checkpoint: restore the directory from a backup".to_owned(),
        });
    }
    for (i, number) in numbers.iter().enumerate() {
        replay.file(*number, i + 1 == numbers.len())?;
    }
    let Replay { known, last, bytes, .. } = replay;
    let (sync, sequence) = last.unwrap_or((0, 0));
    let mut dirty = std::collections::BTreeSet::new();
    {
        let mut cache = shared.cache.lock();
        for (key, partition) in &known {
            let inner = partition.inner.lock();
            if inner.unwritten > 0 {
                dirty.insert(*key);
            }
            for tail in &inner.tail {
                cache.order.push_back((Arc::downgrade(partition), tail.batch.len_bytes()));
                cache.bytes += tail.batch.len_bytes();
            }
        }
    }
    for partition in known.values() {
        partition.wake();
    }
    let touched = dirty.clone();
    *shared.partitions.write() = known;
    {
        let mut work = shared.work.lock();
        work.dirty = dirty;
        work.bytes = bytes as usize;
        work.wal_bytes = bytes;
    }
    for key in touched {
        clear_strays(shared, key)?;
    }
    if bytes > 0 {
        tracing::info!(bytes, files = numbers.len(), "replayed the WAL");
    }
    let next = numbers.last().map_or(wal_from, |n| n + 1);
    Writer::begin(shared, next, sync, sequence)
}

/// Segment files that the checkpoint does not know were begun after it; the WAL has what was in them.
fn clear_strays(shared: &Shared, key: PartitionKey) -> Result<(), LogError> {
    let Some(partition) = shared.partition(key) else { return Ok(()) };
    let (dir, bases) = {
        let inner = partition.inner.lock();
        let Some(dir) = inner.dir.clone() else { return Ok(()) };
        (dir, inner.segments.iter().map(|s| s.base).collect::<Vec<_>>())
    };
    for name in shared.disk.list(&dir).map_err(LogError::io(format!("list {dir}")))? {
        if let Some(base) = Segment::base_of(&name)
            && !bases.contains(&base)
        {
            for ending in ["log", "index", "timeindex"] {
                let path = format!("{}.{ending}", Segment::stem(&dir, base));
                shared.disk.remove_file(&path).map_err(LogError::io(format!("delete {path}")))?;
            }
        }
    }
    Ok(())
}

fn check_format(disk: &dyn Disk) -> Result<(), LogError> {
    match read_file(disk, FORMAT_FILE).map_err(LogError::io("read the format"))? {
        Some(found) if found == FORMAT.as_bytes() => Ok(()),
        Some(found) => Err(LogError::Format { found: String::from_utf8_lossy(&found).into_owned(), known: FORMAT }),
        None => {
            disk.make_dir(materialise::DIR).map_err(LogError::io("make the data directory"))?;
            replace_file(disk, "", FORMAT_FILE, FORMAT.as_bytes()).map_err(LogError::io("write the format"))
        }
    }
}

struct Replay<'a> {
    shared: &'a Arc<Shared>,
    known: HashMap<PartitionKey, Arc<PartitionLog>>,
    /// Sync and sequence of the last entry.
    last: Option<(u64, u64)>,
    bytes: u64,
}

impl Replay<'_> {
    fn file(&mut self, number: u64, is_last: bool) -> Result<(), LogError> {
        let path = wal::path(number);
        let bytes = read_file(self.shared.disk.as_ref(), &path).map_err(LogError::io(format!("read {path}")))?;
        let bytes = Bytes::from(bytes.unwrap_or_default());
        let mut pos = 0;
        while let Some(decoded) = entry::decode(&bytes, pos) {
            if let Some((sync, sequence)) = self.last
                && (decoded.sequence != sequence + 1 || decoded.sync < sync)
            {
                let why = format!("entry {} follows entry {sequence}: what was between them is lost", decoded.sequence);
                return Err(LogError::Corrupt { place: format!("{path} at {pos}"), why });
            }
            self.last = Some((decoded.sync, decoded.sequence));
            self.apply(decoded.entry, &format!("{path} at {pos}"))?;
            pos += decoded.length;
            self.bytes += decoded.length as u64;
        }
        if is_last {
            self.check_end(&bytes, pos, &path)?;
        }
        Ok(())
    }

    /// The WAL ends here. What one sync did not finish may lie behind the end in pieces; what a later sync confirmed may not.
    fn check_end(&self, bytes: &Bytes, end: usize, path: &str) -> Result<(), LogError> {
        let after = self.last.map_or(1, |(sync, _)| sync + 1);
        let magic = MAGIC.to_le_bytes();
        let mut from = end + 1;
        while let Some(found) = bytes.get(from..).and_then(|rest| rest.windows(4).position(|w| w == magic)) {
            let pos = from + found;
            if let Some(decoded) = entry::decode(bytes, pos)
                && decoded.sync > after
            {
                let why = format!("the entry is torn, and a whole one that was confirmed later follows at {pos}");
                return Err(LogError::Corrupt { place: format!("{path} at {end}"), why });
            }
            from = pos + HEAD_BYTES.min(4);
        }
        Ok(())
    }

    fn apply(&mut self, entry: Entry, place: &str) -> Result<(), LogError> {
        match entry {
            Entry::Start(key, to) => {
                if let Some(partition) = self.known.get(&key) {
                    self.shared.drop_below(partition, to)?;
                }
            }
            Entry::Group(parts) => {
                for (key, received, batch) in parts {
                    let partition = match self.known.get(&key) {
                        Some(partition) => Arc::clone(partition),
                        None => {
                            // Made after the checkpoint, or removed before it: then its owner will not claim it.
                            let inner = Inner { start: batch.base_offset(), ..Inner::default() };
                            let partition = Arc::new(PartitionLog::new(key, Arc::clone(self.shared), inner));
                            self.known.insert(key, Arc::clone(&partition));
                            partition
                        }
                    };
                    let end = partition.durable_end();
                    if batch.next_offset() <= end {
                        continue;
                    }
                    if batch.base_offset() != end {
                        let why = format!("a batch for offset {} comes where {end} is next", batch.base_offset());
                        return Err(LogError::Corrupt { place: place.to_owned(), why });
                    }
                    partition.publish(TailBatch { batch: batch.clone(), received }.batch, received);
                }
            }
        }
        Ok(())
    }
}
