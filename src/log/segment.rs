//! One segment of a partition: a file of whole batches from a base offset on, in Kafka's layout.
//!
//! Owns what is known of the file beyond its bytes: its whole length, the offset behind it, times. Always: bytes
//! below `length` are whole batches in order of offset. Reads check every batch's checksum.

use std::sync::Arc;

use bytes::Bytes;

use super::LogError;
use super::disk::{Disk, DiskFile};
use super::index::SegmentIndex;
use crate::record::{Batch, HEADER_BYTES, Offset};

/// What is known of a segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// The first offset it may hold, which its file is named by.
    pub base: Offset,
    /// The offset behind its last record.
    pub next: Offset,
    /// How many bytes of whole batches it has.
    pub length: u64,
    /// The largest timestamp in it; `i64::MIN` where it is empty.
    pub max_timestamp: i64,
    /// When its first batch was received, in milliseconds.
    pub first_received: i64,
    /// When its last batch was received.
    pub last_received: i64,
    /// Whether it was written to since its last sync.
    pub dirty: bool,
    /// Its sparse index, once it was needed.
    pub index: Option<Arc<SegmentIndex>>,
}

impl Segment {
    /// An empty one.
    pub(super) fn new(base: Offset) -> Self {
        Self {
            base,
            next: base,
            length: 0,
            max_timestamp: i64::MIN,
            first_received: i64::MAX,
            last_received: i64::MIN,
            dirty: true,
            index: Some(Arc::default()),
        }
    }

    /// The file's path without its ending.
    pub(super) fn stem(dir: &str, base: Offset) -> String {
        format!("{dir}/{:020}", base.0)
    }

    /// The base offset that a file's name says.
    pub(super) fn base_of(name: &str) -> Option<Offset> {
        name.strip_suffix(".log").filter(|stem| stem.len() == 20)?.parse().ok().map(Offset)
    }

    /// Takes account of a batch written at the end.
    pub(super) fn grew(&mut self, batch: &Batch, received: i64) {
        if let Some(index) = &mut self.index {
            Arc::make_mut(index).note(self.base, batch.base_offset(), self.length, self.max_timestamp);
        }
        self.length += batch.len_bytes() as u64;
        self.next = batch.next_offset();
        self.max_timestamp = self.max_timestamp.max(batch.max_timestamp());
        self.first_received = self.first_received.min(received);
        self.last_received = self.last_received.max(received);
        self.dirty = true;
    }
}

/// Reads whole batches from a segment's file: those at or behind `from`, from position `pos` (a batch's beginning at or before it)
/// up to `length`, about `max_bytes` of them and at least one. Answers the raw bytes and the offset behind them.
pub(super) fn read(
    file: &dyn DiskFile,
    place: &str,
    pos: u64,
    length: u64,
    from: Offset,
    max_bytes: usize,
) -> Result<(Bytes, Offset), LogError> {
    let corrupt = |why: String| LogError::Corrupt { place: place.to_owned(), why };
    // From the index entry to the batch are at most some kilobytes: one read mostly serves both.
    let ask = (max_bytes.saturating_add(8192) as u64).min(length - pos) as usize;
    let mut bytes = read_at(file, place, pos, ask)?;
    let mut skip = 0;
    let mut end = 0;
    let mut next = from;
    loop {
        let rest = &bytes[end..];
        if rest.len() < HEADER_BYTES {
            if (pos + bytes.len() as u64) < length && end == skip {
                bytes = more(file, place, pos, length, &bytes, HEADER_BYTES.max(max_bytes))?;
                continue;
            }
            break;
        }
        let batch_length = Batch::length_at(rest).map_err(|e| corrupt(format!("at {}: {e}", pos + end as u64)))?;
        if rest.len() < batch_length {
            if end == skip && (pos + bytes.len() as u64) < length {
                let missing = batch_length - rest.len();
                if pos + bytes.len() as u64 + missing as u64 > length {
                    return Err(corrupt(format!("the batch at {} is longer than the segment", pos + end as u64)));
                }
                bytes = more(file, place, pos, length, &bytes, missing)?;
                continue;
            }
            break;
        }
        let behind = behind(rest);
        if behind <= from {
            end += batch_length;
            skip = end;
            continue;
        }
        if end > skip && end + batch_length - skip > max_bytes {
            break;
        }
        end += batch_length;
        next = behind;
        if end - skip >= max_bytes {
            break;
        }
    }
    Ok((bytes.slice(skip..end), next))
}

/// The offset behind the batch at the front: its base offset and last offset delta stand at 0 and 23.
fn behind(batch: &[u8]) -> Offset {
    let base = i64::from_be_bytes(batch[..8].try_into().expect("eight bytes"));
    let delta = i32::from_be_bytes(batch[23..27].try_into().expect("four bytes"));
    Offset(base + i64::from(delta) + 1)
}

fn more(file: &dyn DiskFile, place: &str, pos: u64, length: u64, have: &Bytes, want: usize) -> Result<Bytes, LogError> {
    let ask = (have.len() as u64 + want as u64).min(length - pos) as usize;
    if ask == have.len() {
        return Err(LogError::Corrupt { place: place.to_owned(), why: format!("it ends in the middle of the batch behind {pos}") });
    }
    read_at(file, place, pos, ask)
}

fn read_at(file: &dyn DiskFile, place: &str, pos: u64, n: usize) -> Result<Bytes, LogError> {
    let mut buf = vec![0; n];
    let got = file.read_at(&mut buf, pos).map_err(LogError::io(format!("read {place}")))?;
    if got < n {
        return Err(LogError::Corrupt {
            place: place.to_owned(),
            why: format!("it has {} bytes and should have {}", pos + got as u64, pos + n as u64),
        });
    }
    Ok(Bytes::from(buf))
}

/// Walks a segment's file from its beginning and answers what is whole in it: up to `limit` bytes, to the first batch that is torn,
/// wrong, or out of order. Called where nothing else is known, and to make an index again.
pub(super) fn walk(disk: &dyn Disk, stem: &str, base: Offset, limit: u64, received: i64) -> Result<Segment, LogError> {
    let place = format!("{stem}.log");
    let file = disk.open(&place, false).map_err(LogError::io(format!("open {place}")))?;
    let length = file.length().map_err(LogError::io(format!("read {place}")))?.min(limit);
    let mut segment = Segment::new(base);
    let mut window = Bytes::new();
    while segment.length < length {
        let left = length - segment.length;
        if (window.len() as u64) < left && window.len() < HEADER_BYTES {
            window = read_at(file.as_ref(), &place, segment.length, left.min(4 << 20) as usize)?;
        }
        let Ok(needed) = Batch::length_at(&window) else { break };
        if needed as u64 > left {
            break;
        }
        if window.len() < needed {
            window = read_at(file.as_ref(), &place, segment.length, (needed as u64).max(left.min(4 << 20)) as usize)?;
        }
        let Ok(batch) = Batch::parse(window.split_to(needed)) else { break };
        if batch.base_offset() < segment.next {
            break;
        }
        segment.grew(&batch, received);
    }
    segment.dirty = segment.length < length;
    Ok(segment)
}
