//! One segment of a partition: a file of whole batches from a base offset on, in Kafka's layout.
//!
//! Owns what is known of the file beyond its bytes: its whole length, the offset behind it, times. Always: bytes
//! below `length` are whole batches in order of offset, without a gap where it was never compacted; bytes behind it are nothing. Whoever
//! takes batches apart checks their checksums; finding them needs their heads only. A checksum does not cover a batch's offset: that a
//! file is another's is seen by its batches' offsets, by whoever reads it or goes on with it.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::LogError;
use super::buffers::lease;
use super::disk::{Disk, DiskFile};
use super::index::{Place, SegmentIndex};
use super::shared::Shared;
use crate::record::{Batch, HEADER_BYTES, Offset};

/// Of a file that is walked through, so much is read at once.
const WALK_BYTES: usize = 1 << 20;

/// What is known of a segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// The first offset it may hold, which its file is named by.
    pub base: Offset,
    /// The offset behind its last record, or behind the last one it had before it was compacted.
    pub next: Offset,
    /// How often it was compacted; each time it gets a file of its own, so that the one before is there until nobody needs it.
    pub version: u32,
    /// How many bytes of whole batches it has.
    pub length: u64,
    /// The largest timestamp in it; `i64::MIN` where it is empty.
    pub max_timestamp: i64,
    /// The first offset of the first batch that has it.
    pub max_at: Offset,
    /// When its first batch was received, in milliseconds.
    pub first_received: i64,
    /// When its last batch was received.
    pub last_received: i64,
    /// Up to here the disk was told to begin.
    pub flushed: u64,
    /// Whether it was written to since its last sync.
    pub dirty: bool,
    /// Whether it is of before the start, and nobody has looked yet whether its file still is what it was.
    pub taken_over: bool,
    /// Its sparse index, once it was needed.
    pub index: Option<Arc<SegmentIndex>>,
}

impl Segment {
    /// An empty one, which has no file yet.
    pub(super) fn new(base: Offset) -> Self {
        Self {
            base,
            next: base,
            version: 0,
            length: 0,
            max_timestamp: i64::MIN,
            max_at: base,
            first_received: i64::MAX,
            last_received: i64::MIN,
            flushed: 0,
            dirty: false,
            taken_over: false,
            index: Some(Arc::default()),
        }
    }

    /// Its files' path without the ending.
    pub(super) fn stem(&self, dir: &str) -> String {
        match self.version {
            0 => format!("{dir}/{:020}", self.base.0),
            version => format!("{dir}/{:020}.{:020}.{version}", self.base.0, self.next.0),
        }
    }

    /// The path of the batches.
    pub(super) fn path(&self, dir: &str) -> String {
        format!("{}.log", self.stem(dir))
    }

    /// Whether the other is the same file, in whatever state.
    pub(super) fn is_file_of(&self, other: &Self) -> bool {
        (self.base, self.version) == (other.base, other.version)
    }

    /// Whether a batch may lie in it behind what ends with `next`. Only compaction leaves gaps.
    pub(super) fn has_place_for(&self, next: Offset, head: Head) -> bool {
        let follows = if self.version == 0 { head.first == next } else { head.first >= next };
        follows && head.next > head.first && head.next <= self.next
    }

    /// An empty segment with the base, the version and, where it was compacted, the end that a file's name says.
    pub(super) fn named(name: &str) -> Option<Self> {
        let number = |text: &str| Some(text).filter(|t| t.len() == 20 && t.bytes().all(|b| b.is_ascii_digit()))?.parse().ok();
        let mut parts = name.strip_suffix(".log")?.split('.');
        let mut segment = Self::new(Offset(number(parts.next()?)?));
        if let Some(next) = parts.next() {
            segment.next = Offset(number(next).filter(|next| *next >= segment.base.0)?);
            segment.version = parts.next()?.parse().ok().filter(|version| *version > 0)?;
        }
        parts.next().is_none().then_some(segment)
    }

    /// Deletes its files.
    pub(super) fn delete(&self, shared: &Shared, dir: &str) -> Result<(), LogError> {
        shared.files.forget(&self.path(dir));
        delete_files(shared.disk.as_ref(), &self.stem(dir))
    }

    /// Takes account of a batch written at the end.
    pub(super) fn grew(&mut self, head: Head, received: i64) {
        if let Some(index) = &mut self.index {
            let place = Place { pos: self.length, first: head.first };
            let largest = (self.length > 0).then_some((self.max_timestamp, self.max_at));
            Arc::make_mut(index).note(self.base, place, largest);
        }
        if self.length == 0 || head.max_timestamp > self.max_timestamp {
            (self.max_timestamp, self.max_at) = (head.max_timestamp, head.first);
        }
        self.length += head.length;
        self.next = head.next;
        self.first_received = self.first_received.min(received);
        self.last_received = self.last_received.max(received);
        self.dirty = true;
    }
}

/// What the names of a segment's files end with.
pub(super) const ENDINGS: [&str; 3] = ["log", "index", "timeindex"];

/// Deletes the files of the segment with this stem.
pub(super) fn delete_files(disk: &dyn Disk, stem: &str) -> Result<(), LogError> {
    for ending in ENDINGS {
        let path = format!("{stem}.{ending}");
        disk.remove_file(&path).map_err(LogError::io(format!("delete {path}")))?;
    }
    Ok(())
}

/// What a batch's head says, without its records and unchecked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub length: u64,
    pub first: Offset,
    pub next: Offset,
    pub max_timestamp: i64,
}

impl Head {
    /// The head of a batch in memory.
    pub(super) const fn of(batch: &Batch) -> Self {
        Self {
            length: batch.len_bytes() as u64,
            first: batch.base_offset(),
            next: batch.next_offset(),
            max_timestamp: batch.max_timestamp(),
        }
    }

    /// The head at the front of bytes; `None` where there are too few, or no batch can begin so.
    fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HEADER_BYTES)?;
        let length = Batch::length_at(head).ok()? as u64;
        let i64_at = |at: usize| i64::from_be_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let delta = i32::from_be_bytes(head[23..27].try_into().expect("four bytes"));
        let next = i64_at(0).checked_add(i64::from(delta))?.checked_add(1)?;
        Some(Self { length, first: Offset(i64_at(0)), next: Offset(next), max_timestamp: i64_at(35) })
    }
}

/// A segment's file, as far as it was written whole.
pub(super) struct Stored<'a> {
    pub file: &'a dyn DiskFile,
    /// Its path, for errors.
    pub path: &'a str,
    pub segment: &'a Segment,
}

impl Stored<'_> {
    fn corrupt(&self, pos: u64, why: &str) -> LogError {
        LogError::Corrupt { place: format!("{} at {pos}", self.path), why: why.to_owned() }
    }

    /// The error of a batch that is whole, and not of this place.
    pub(super) fn foreign(&self, pos: u64, head: Head) -> LogError {
        let why = format!(
            "the batch here has offsets {}..{}, which have no place here in the segment from {} on: the file, or a part of it, is \
             another's; run `vitalsql doctor`, or restore the data directory from a backup",
            head.first, head.next, self.segment.base
        );
        self.corrupt(pos, &why)
    }

    /// The error of a file that was never compacted and ends before its last offset.
    fn ends_early(&self, end: Offset) -> LogError {
        let Segment { base, next, length, .. } = self.segment;
        let why = format!(
            "the batches of the segment of {base}..{next} end here with {end}: records are missing, or the file is another's; run \
             `vitalsql doctor`, or restore the data directory from a backup"
        );
        self.corrupt(*length, &why)
    }

    /// The error of a file in which no batch reaches a time that the segment had.
    pub(super) fn misses_time(&self, timestamp: i64) -> LogError {
        let Segment { max_timestamp, length, .. } = self.segment;
        let why = format!(
            "no batch reaches the time {timestamp}, and the segment had {max_timestamp}: records are missing, or the file is another's; run \
             `vitalsql doctor`, or restore the data directory from a backup"
        );
        self.corrupt(*length, &why)
    }

    fn bytes(&self, pos: u64, most: usize) -> Result<Bytes, LogError> {
        let length = self.segment.length;
        let mut buf = lease((length - pos).min(most as u64) as usize);
        let got = self.file.read_at(&mut buf, pos).map_err(LogError::io(format!("read {}", self.path)))?;
        if got < buf.len() {
            return Err(self.corrupt(pos + got as u64, &format!("it ends here, and should have {length} bytes")));
        }
        Ok(buf.into_bytes())
    }

    /// Goes from batch to batch, shows their positions and heads. A head that cannot be is an error.
    pub(super) fn heads(&self, from: u64, mut each: impl FnMut(u64, Head) -> ControlFlow<()>) -> Result<(), LogError> {
        let mut pos = from;
        while pos < self.segment.length {
            let window = self.bytes(pos, WALK_BYTES)?;
            let begun = pos;
            while let Some(head) = window.get((pos - begun) as usize..).and_then(Head::read) {
                if pos + head.length > self.segment.length {
                    return Err(self.corrupt(pos, "the batch here is longer than the segment"));
                }
                if each(pos, head).is_break() {
                    return Ok(());
                }
                pos += head.length;
            }
            if pos == begun {
                return Err(self.corrupt(pos, "no batch begins here"));
            }
        }
        Ok(())
    }

    /// Whether every batch from `from` on is in its place, and the last one ends where the segment does.
    pub(super) fn check_places(&self, from: Place) -> Result<(), LogError> {
        let mut next = from.first;
        let mut wrong = None;
        self.heads(from.pos, |pos, head| {
            if !self.segment.has_place_for(next, head) {
                wrong = Some(self.foreign(pos, head));
                return ControlFlow::Break(());
            }
            next = head.next;
            ControlFlow::Continue(())
        })?;
        match wrong {
            Some(error) => Err(error),
            None if self.segment.version == 0 && next != self.segment.next => Err(self.ends_early(next)),
            None => Ok(()),
        }
    }

    /// Reads whole batches from the one that holds `from` on: about `max_bytes`, at least one, none where all lie before, as compaction
    /// may leave it. `near` is a batch at or before it, by the index; `None` where no such batch is there: then the index is wrong.
    pub(super) fn read(&self, near: Place, from: Offset, max_bytes: usize) -> Result<Option<(Bytes, Offset)>, LogError> {
        let mut pos = near.pos;
        // From the index entry to the batch are mostly a few kilobytes: one read serves both.
        let mut want = max_bytes.saturating_add(8192);
        let mut is_first = true;
        let mut before = (near.pos, None::<Head>);
        while pos < self.segment.length {
            let bytes = self.bytes(pos, want.max(HEADER_BYTES))?;
            let mut skip = 0;
            while let Some(head) = bytes.get(skip..).and_then(Head::read) {
                // A compacted segment may begin with a later batch than its name says.
                if std::mem::take(&mut is_first) && near.pos > 0 && head.first != near.first {
                    return Ok(None);
                }
                let at = pos + skip as u64;
                if at + head.length > self.segment.length {
                    return Err(self.corrupt(at, "the batch here is longer than the segment"));
                }
                if head.next > from {
                    // Behind what ends with `from`, or holding it.
                    if !self.segment.has_place_for(head.first.min(from).max(self.segment.base), head) {
                        return Err(self.foreign(at, head));
                    }
                    let length = head.length as usize;
                    if skip + length > bytes.len() {
                        want = length.max(max_bytes);
                        break;
                    }
                    return Ok(Some(whole(self.segment, &bytes, skip, max_bytes)));
                }
                before = (at, Some(head));
                skip = skip.saturating_add(head.length as usize);
            }
            if std::mem::take(&mut is_first) {
                // No head where the index leads.
                return if near.pos == 0 { Err(self.corrupt(pos, "no batch begins here")) } else { Ok(None) };
            }
            if skip == 0 && (want <= bytes.len() || pos + bytes.len() as u64 >= self.segment.length) {
                return Err(self.corrupt(pos, "no batch begins here"));
            }
            pos += skip as u64;
        }
        match before {
            (at, Some(head)) if head.first < self.segment.base => Err(self.foreign(at, head)),
            // Without compaction there is no gap.
            (_, head) if self.segment.version == 0 => Err(self.ends_early(head.map_or(self.segment.base, |head| head.next))),
            _ => Ok(Some((Bytes::new(), from))),
        }
    }

    /// Goes from batch to batch, each checked and in its place, with its position.
    pub(super) fn batches<E: From<LogError>>(&self, mut each: impl FnMut(u64, Batch) -> Result<(), E>) -> Result<(), E> {
        let mut pos = 0;
        let mut next = self.segment.base;
        let mut window = Bytes::new();
        while pos < self.segment.length {
            let need = Head::read(&window).map_or(HEADER_BYTES, |head| usize::try_from(head.length).unwrap_or(usize::MAX));
            if window.len() < need {
                if pos + need as u64 > self.segment.length {
                    return Err(self.corrupt(pos, "the batch here is longer than the segment").into());
                }
                window = self.bytes(pos, need.max(WALK_BYTES))?;
                if Head::read(&window).is_none() {
                    return Err(self.corrupt(pos, "no batch begins here").into());
                }
                continue;
            }
            let batch = Batch::parse(window.split_to(need)).map_err(LogError::batch(format!("{} at {pos}", self.path)))?;
            let head = Head::of(&batch);
            if !self.segment.has_place_for(next, head) {
                return Err(self.foreign(pos, head).into());
            }
            next = head.next;
            each(pos, batch)?;
            pos += need as u64;
        }
        if self.segment.version == 0 && next != self.segment.next { Err(self.ends_early(next).into()) } else { Ok(()) }
    }

    /// The one batch at `pos`, checked.
    pub(super) fn batch(&self, pos: u64, length: u64) -> Result<Batch, LogError> {
        let bytes = self.bytes(pos, usize::try_from(length).unwrap_or(usize::MAX))?;
        Batch::parse(bytes).map_err(LogError::batch(format!("{} at {pos}", self.path)))
    }
}

/// Cuts whole batches out of `bytes` from `skip` on, where one begins: about `max_bytes`, at least one. One that does not follow the one
/// before ends it.
fn whole(segment: &Segment, bytes: &Bytes, skip: usize, max_bytes: usize) -> (Bytes, Offset) {
    let mut end = skip;
    let mut next = Offset::ZERO;
    while let Some(head) = bytes.get(end..).and_then(Head::read) {
        let length = head.length as usize;
        if end + length > bytes.len() || (end > skip && (!segment.has_place_for(next, head) || end + length - skip > max_bytes)) {
            break;
        }
        end += length;
        next = head.next;
    }
    (bytes.slice(skip..end), next)
}

/// Makes the index of a segment: what is on the disk, as far as it goes, and from there on the segment itself.
pub(super) fn make_index(disk: &dyn Disk, stem: &str, stored: &Stored<'_>, base: Offset, trust: bool) -> Result<SegmentIndex, LogError> {
    let loaded = if trust { SegmentIndex::load(disk, stem, stored.segment.length) } else { None };
    let mut index = loaded.unwrap_or_default();
    let (from, last) = (index.resume(base), index.last(base));
    let mut largest: Option<(i64, Offset)> = None;
    let mut passed_last = last.pos == 0;
    let mut is_right = true;
    let walked = stored.heads(from.pos, |pos, head| {
        let place = Place { pos, first: head.first };
        let expected = [from, last].into_iter().find(|known| known.pos == pos && pos > 0);
        passed_last |= pos == last.pos;
        is_right &= expected.is_none_or(|known| known == place) && (passed_last || pos < last.pos);
        if pos > last.pos || last.pos == 0 {
            index.note(base, place, largest);
        }
        if largest.is_none_or(|(timestamp, _)| head.max_timestamp > timestamp) {
            largest = Some((head.max_timestamp, head.first));
        }
        if is_right { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match walked {
        Ok(()) if is_right && passed_last => Ok(index),
        // What is on the disk is another segment's, or half written: without it, then.
        _ if trust => make_index(disk, stem, stored, base, false),
        other => other.map(|()| index),
    }
}

/// Walks a segment's file from its beginning and checks every batch: what is whole in it, to the first batch that is torn or wrong. One
/// that is whole and out of its place no crash leaves: the file is another's. Called where nothing else is known.
pub(super) fn walk(disk: &dyn Disk, path: &str, named: &Segment) -> Result<(Segment, u64), LogError> {
    let file = disk.open(path, false).map_err(LogError::io(format!("open {path}")))?;
    let length = file.length().map_err(LogError::io(format!("read {path}")))?;
    let received = file.modified_ms().map_err(LogError::io(format!("read {path}")))?;
    // Where it ends without having been compacted, nothing says.
    let end = if named.version == 0 { Offset(i64::MAX) } else { named.next };
    let all = Segment { next: end, length, ..named.clone() };
    let stored = Stored { file: file.as_ref(), path, segment: &all };
    let mut segment = Segment { next: named.base, ..named.clone() };
    let mut window = Bytes::new();
    while segment.length < length {
        let need = Head::read(&window).map_or(HEADER_BYTES, |head| usize::try_from(head.length).unwrap_or(usize::MAX));
        if window.len() < need {
            if segment.length + need as u64 > length {
                break;
            }
            window = stored.bytes(segment.length, need.max(WALK_BYTES))?;
            if Head::read(&window).is_none() {
                break;
            }
            continue;
        }
        let Ok(batch) = Batch::parse(window.split_to(need)) else { break };
        let head = Head::of(&batch);
        if !all.has_place_for(segment.next, head) {
            return Err(stored.foreign(segment.length, head));
        }
        segment.grew(head, received);
    }
    segment.next = segment.next.max(named.next);
    Ok((segment, length))
}
