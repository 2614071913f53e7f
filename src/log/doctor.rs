//! Looks at a stopped data directory: would it start, is every byte in it what was written, and what can be mended.
//!
//! The check is the start itself, over a layer that keeps its changes in memory (`overlay`), and then a walk through every batch of
//! every segment. Always: looking changes nothing; mending loses nothing that can still be read: batches that fail their checksum
//! are cut out, what is left goes into a file of its own, and the damaged file stays beside it under another name. Called by `cli`.

use std::io::IoSlice;
use std::sync::Arc;

use super::checkpoint::{Checkpoint, FILE};
use super::disk::{Disk, DiskFile, read_file};
use super::index::SegmentIndex;
use super::overlay::Overlay;
use super::recovery::{FORMAT, FORMAT_BEFORE, FORMAT_FILE};
use super::segment::{Head, Segment, Stored, make_index};
use super::shared::Trouble;
use super::store::{Log, LogConfig};
use super::{LogError, PartitionKey};
use crate::record::{Batch, BatchError, Offset};

/// A damaged file is kept under its name with this behind it.
const DAMAGED: &str = "damaged";

/// Who can put something right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// Nobody need do anything: the next start does.
    Start,
    /// [`mend`] does.
    Mend,
    /// Nobody here: what is lost is in a backup, or nowhere.
    Backup,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which file, and where in it.
    pub place: String,
    /// What is wrong, and what would be done.
    pub what: String,
    /// Who does it.
    pub remedy: Remedy,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default)]
pub struct Examined {
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// Partitions.
    pub partitions: usize,
    /// Files of batches.
    pub segments: usize,
    /// Batches in them, each of which was checked.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the write-ahead log that a start replays.
    pub wal_bytes: u64,
    /// Segments with damage, for [`mend`].
    damaged: Vec<(PartitionKey, String, Segment)>,
    /// Indexes that do not fit, by stem.
    indexes: Vec<String>,
}

impl Examined {
    fn find(&mut self, place: impl Into<String>, what: impl Into<String>, remedy: Remedy) {
        self.findings.push(Finding { place: place.into(), what: what.into(), remedy });
    }

    /// The worst of what was found; `None` where all is well.
    #[must_use]
    pub fn worst(&self) -> Option<Remedy> {
        self.findings.iter().map(|finding| finding.remedy).max()
    }
}

/// Small, and without anything that takes room ahead.
fn config() -> LogConfig {
    LogConfig { min_free_bytes: 0, ballast_bytes: 0, wal_segment_bytes: 1 << 20, ..LogConfig::default() }
}

/// Looks at everything; changes nothing. An error where it could not look.
pub fn examine(disk: &Arc<dyn Disk>) -> Result<Examined, LogError> {
    let mut examined = Examined::default();
    match read_file(disk.as_ref(), FORMAT_FILE).map_err(LogError::io("read the format"))? {
        Some(found) if found == FORMAT.as_bytes() => {}
        Some(found) if found == FORMAT_BEFORE.as_bytes() => {
            examined.find(FORMAT_FILE, "the directory is of the format before: the next start makes it this one", Remedy::Start);
        }
        Some(found) => return Err(LogError::Format { found: String::from_utf8_lossy(&found).into_owned(), known: FORMAT }),
        None => {
            examined.find(FORMAT_FILE, "there is none: this is no data directory, or an empty one", Remedy::Start);
        }
    }
    let checkpoint = match Checkpoint::load(disk.as_ref()).map_err(LogError::io("read the checkpoint"))? {
        Some(Ok(checkpoint)) => Some(checkpoint),
        Some(Err(why)) => {
            examined.find(FILE, format!("{why}: the next start puts the log together from the segments"), Remedy::Start);
            None
        }
        None => None,
    };
    let overlay = Arc::new(Overlay::over(Arc::clone(disk)));
    let (log, ..) = match Log::open_still(Arc::clone(&overlay) as Arc<dyn Disk>, config()) {
        Ok(opened) => opened,
        Err(LogError::Corrupt { place, why }) => {
            examined.find(place, why, Remedy::Backup);
            return Ok(examined);
        }
        Err(error) => return Err(error),
    };
    examined.wal_bytes = log.shared.work.lock().wal_bytes;
    for stored in checkpoint.iter().flat_map(|checkpoint| &checkpoint.partitions) {
        // Files in front that are missing are taken for deleted, where the WAL has not said so either.
        let mut missing = stored.segments.iter().filter(|s| s.length > 0 && s.next > stored.start);
        let first = missing.rfind(|s| stored.dir.as_ref().is_some_and(|dir| disk.open(&s.path(dir), false).is_err()));
        let start = log.get(stored.key).map(|partition| partition.start());
        if let (Some(first), Some(start), Some(dir)) = (first, start, &stored.dir)
            && start == first.next
        {
            let what = format!("files of offsets {}..{start} are not there: they were deleted, or are lost", stored.start);
            examined.find(dir, what, Remedy::Start);
        }
    }
    for name in overlay.gone() {
        let is_wal = name.starts_with(super::wal::DIR);
        let is_told = name == FORMAT_FILE || name == FILE || name.ends_with(".tmp") || is_wal;
        if !is_told {
            examined.find(name, "nothing needs it: the next start deletes it", Remedy::Start);
        }
    }
    let keys = log.partitions();
    examined.partitions = keys.len();
    for key in keys {
        let Some(partition) = log.get(key) else { continue };
        let (dir, segments) = {
            let inner = partition.inner.lock();
            (inner.dir.clone(), inner.segments.clone())
        };
        let Some(dir) = dir else { continue };
        for segment in segments.iter().filter(|segment| segment.length > 0) {
            examine_segment(overlay.as_ref(), key, &dir, segment, &mut examined)?;
        }
    }
    Ok(examined)
}

fn examine_segment(disk: &dyn Disk, key: PartitionKey, dir: &str, segment: &Segment, examined: &mut Examined) -> Result<(), LogError> {
    examined.segments += 1;
    examined.bytes += segment.length;
    let path = segment.path(dir);
    let file = disk.open(&path, false).map_err(LogError::io(format!("open {path}")))?;
    let mut gaps = 0;
    let mut expected = segment.base;
    let found = walk_all(file.as_ref(), segment, |at| match at {
        Piece::Batch(batch) => {
            examined.batches += 1;
            gaps += u64::from(batch.base_offset() > expected);
            expected = batch.next_offset();
        }
        Piece::Damage => {}
    })?;
    let Walked { damaged, first_damage } = found;
    if let Some((pos, why)) = first_damage {
        examined.find(
            format!("{path} at {pos}"),
            format!("{damaged} bytes here and behind cannot be read ({why}): they are cut out, the file is kept as {path}.{DAMAGED}"),
            Remedy::Mend,
        );
        examined.damaged.push((key, dir.to_owned(), segment.clone()));
        return Ok(());
    }
    gaps += u64::from(expected < segment.next);
    if segment.version == 0 && gaps > 0 {
        let what = format!("{gaps} gaps between its offsets, and it was never compacted: the records are given up, the file is kept as");
        examined.find(&path, format!("{what} {path}.{DAMAGED}"), Remedy::Mend);
        examined.damaged.push((key, dir.to_owned(), segment.clone()));
        return Ok(());
    }
    if expected > segment.next {
        examined.find(&path, format!("it holds offsets up to {expected} and should end at {}", segment.next), Remedy::Backup);
    }
    let stem = segment.stem(dir);
    let has_index = disk.open(&format!("{stem}.index"), false).is_ok();
    let stored = Stored { file: file.as_ref(), path: &path, segment };
    let fits = SegmentIndex::load(disk, &stem, segment.length)
        .is_some_and(|index| make_index(disk, &stem, &stored, segment.base, false).is_ok_and(|right| right.begins_as(&index)));
    if has_index && !fits {
        examined.find(
            format!("{stem}.index"),
            "it does not fit its segment, as a crash may leave it: it is made again when it is needed",
            Remedy::Start,
        );
        examined.indexes.push(stem);
    }
    Ok(())
}

/// What a walk through a segment comes upon.
enum Piece {
    Batch(Batch),
    Damage,
}

struct Walked {
    /// How many bytes belong to no whole batch.
    damaged: u64,
    first_damage: Option<(u64, String)>,
}

/// Walks through a segment's bytes, past what is damaged.
fn walk_all(file: &dyn DiskFile, segment: &Segment, mut each: impl FnMut(Piece)) -> Result<Walked, LogError> {
    let mut walked = Walked { damaged: 0, first_damage: None };
    let (mut pos, mut next) = (0, segment.base);
    while pos < segment.length {
        match batch_at(file, pos, segment, next)? {
            Ok(batch) => {
                pos += batch.len_bytes() as u64;
                next = batch.next_offset();
                each(Piece::Batch(batch));
            }
            Err(why) => {
                walked.first_damage.get_or_insert((pos, why));
                let again = next_batch(file, pos + 1, segment, next)?.unwrap_or(segment.length);
                walked.damaged += again - pos;
                pos = again;
                each(Piece::Damage);
            }
        }
    }
    Ok(walked)
}

/// The batch at `pos`, checked down to its records; the inner error says what is wrong with it.
fn batch_at(file: &dyn DiskFile, pos: u64, segment: &Segment, next: Offset) -> Result<Result<Batch, String>, LogError> {
    let room = segment.length - pos;
    let mut head = vec![0; crate::record::HEADER_BYTES.min(usize::try_from(room).unwrap_or(usize::MAX))];
    let path = || LogError::io(format!("read {}", segment.stem("")));
    let got = file.read_at(&mut head, pos).map_err(path())?;
    let length = match Batch::length_at(&head[..got]) {
        Ok(length) if length as u64 <= room => length,
        Ok(_) => return Ok(Err("a batch is longer than the file".to_owned())),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut bytes = vec![0; length];
    let got = file.read_at(&mut bytes, pos).map_err(path())?;
    bytes.truncate(got);
    let checked = Batch::parse(bytes.into()).and_then(|batch| {
        for record in &batch.records()? {
            record?;
        }
        Ok(batch)
    });
    Ok(match checked {
        Ok(batch) if batch.base_offset() < next || batch.next_offset() > segment.next => Err("its offsets are out of order".to_owned()),
        Ok(batch) => Ok(batch),
        Err(BatchError::Checksum { .. }) => Err("it fails its checksum".to_owned()),
        Err(error) => Err(error.to_string()),
    })
}

/// Where the next whole batch begins, at or behind `from`.
pub(super) fn next_batch(file: &dyn DiskFile, from: u64, segment: &Segment, next: Offset) -> Result<Option<u64>, LogError> {
    const WINDOW: usize = 1 << 20;
    let mut at = from;
    while at < segment.length {
        let mut window = vec![0; WINDOW];
        let got = file.read_at(&mut window, at).map_err(LogError::io(format!("read {}", segment.stem(""))))?;
        // A file may be longer than its segment: what is behind its end is nobody's.
        let got = got.min(usize::try_from(segment.length - at).unwrap_or(usize::MAX));
        let whole = got.saturating_sub(crate::record::HEADER_BYTES - 1);
        for i in 0..whole {
            // Nearly every place is ruled out by what a head must say.
            let base = i64::from_be_bytes(window[i..i + 8].try_into().expect("eight bytes"));
            let may = window[i + 16] == 2 && base >= next.0 && base < segment.next.0;
            if may && batch_at(file, at + i as u64, segment, next)?.is_ok() {
                return Ok(Some(at + i as u64));
            }
        }
        if whole == 0 {
            break;
        }
        at += whole as u64;
    }
    Ok(None)
}

/// Puts right what [`examine`] found and can be put right. Answers what was done.
pub fn mend(disk: &Arc<dyn Disk>, examined: &Examined) -> Result<Vec<String>, LogError> {
    let mut done = Vec::new();
    for stem in &examined.indexes {
        for ending in ["index", "timeindex"] {
            let path = format!("{stem}.{ending}");
            disk.remove_file(&path).map_err(LogError::io(format!("delete {path}")))?;
        }
        done.push(format!("deleted {stem}.index, which is made again when it is needed"));
    }
    if !examined.damaged.is_empty() {
        // First what a start does: everything that can be is in segments then, and a checkpoint names them all.
        let log = Log::open(Arc::clone(disk), config())?;
        log.close()?;
        drop(log);
        let loaded = Checkpoint::load(disk.as_ref()).map_err(LogError::io("read the checkpoint"))?;
        let mut checkpoint = match loaded {
            Some(Ok(checkpoint)) => checkpoint,
            _ => return Err(LogError::Corrupt { place: FILE.to_owned(), why: "it was written a moment ago".to_owned() }),
        };
        let mut moved = Vec::new();
        for (key, dir, damaged) in &examined.damaged {
            let Some(stored) = checkpoint.partitions.iter_mut().find(|stored| stored.key == *key) else { continue };
            let Some(at) = stored.segments.iter().position(|segment| segment.is_file_of(damaged)) else { continue };
            let old = stored.segments[at].clone();
            let (new, bytes) = salvage(disk.as_ref(), dir, &old)?;
            let is_last = at + 1 == stored.segments.len();
            if is_last {
                // What is compacted is not written to: what comes goes into a new one.
                stored.segments.push(Segment::new(old.next));
            }
            stored.segments[at] = new;
            done.push(match bytes {
                0 => format!("gave up the records that are missing in {}", old.path(dir)),
                _ => format!("cut {bytes} damaged bytes out of {}", old.path(dir)),
            });
            moved.push(old.path(dir));
            disk.sync_dir(dir).map_err(LogError::io(format!("sync {dir}")))?;
        }
        checkpoint.save(disk.as_ref()).map_err(Trouble::into_error)?;
        for path in moved {
            let kept = format!("{path}.{DAMAGED}");
            disk.rename(&path, &kept).map_err(LogError::io(format!("keep {path}")))?;
        }
    }
    if examined.findings.iter().any(|finding| finding.remedy == Remedy::Start) {
        let log = Log::open(Arc::clone(disk), config())?;
        log.close()?;
        done.push("started the log and closed it again, which clears away what a crash leaves".to_owned());
    }
    Ok(done)
}

/// Writes what is whole of a segment into a file of its own; answers it, and how many bytes were left out.
fn salvage(disk: &dyn Disk, dir: &str, old: &Segment) -> Result<(Segment, u64), LogError> {
    let from = disk.open(&old.path(dir), false).map_err(LogError::io(format!("open {}", old.path(dir))))?;
    let mut new = Segment { version: old.version + 1, next: old.next, ..Segment::new(old.base) };
    let path = new.path(dir);
    let temporary = format!("{path}.tmp");
    let file =
        disk.open(&temporary, true).and_then(|file| file.truncate(0).map(|()| file)).map_err(LogError::io(format!("make {path}")))?;
    let mut failed = Ok(());
    let walked = walk_all(from.as_ref(), old, |piece| {
        let Piece::Batch(batch) = piece else { return };
        if failed.is_ok() {
            failed = file.write_at(&batch.chunks().map(IoSlice::new), new.length).map_err(LogError::io(format!("write {path}")));
            new.grew(Head::of(&batch), 0);
        }
    })?;
    failed?;
    file.sync().map_err(LogError::io(format!("sync {path}")))?;
    disk.rename(&temporary, &path).map_err(LogError::io(format!("make {path}")))?;
    let new = Segment {
        next: old.next,
        first_received: old.first_received,
        last_received: old.last_received,
        flushed: new.length,
        dirty: false,
        index: None,
        ..new
    };
    Ok((new, walked.damaged))
}

#[cfg(test)]
mod tests {
    use super::super::SimDisk;
    use super::*;
    use crate::record::BatchBuilder;

    #[test]
    fn what_lies_behind_the_end_of_a_segment_is_not_looked_at() {
        let disk = SimDisk::new(1 << 30);
        let file = disk.open("x.log", true).expect("made");
        let mut builder = BatchBuilder::new();
        builder.push(1, None, Some(b"value"), &[]);
        let batch = builder.finish().to_bytes();
        let damage = vec![7; 100];
        file.write_at(&[IoSlice::new(&damage), IoSlice::new(&batch)], 0).expect("written");
        let segment = |length: usize| Segment { next: Offset(1), length: length as u64, ..Segment::new(Offset(0)) };
        let found = |length| next_batch(file.as_ref(), 1, &segment(length), Offset(0)).expect("read");
        assert_eq!(found(100 + batch.len()), Some(100));
        for length in [50, 90, 100, 100 + batch.len() - 1] {
            assert_eq!(found(length), None, "{length}");
        }
    }
}
