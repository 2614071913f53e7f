//! The checkpoint file: what is in synced segments, and from where on the WAL is needed.
//!
//! Written by `materialise` after what it speaks of was synced, read by `recovery`. Always whole or the one before; one whose
//! checksum is wrong is no checkpoint (see `rebuild`).

use serde::{Deserialize, Serialize};

use super::PartitionKey;
use super::disk::{Disk, read_file, replace_file};
use super::segment::Segment;
use super::shared::Trouble;
use crate::record::{Offset, PartitionId, TopicId};

/// The file's name.
pub(super) const FILE: &str = "checkpoint";

/// What was synced, and from where on the WAL is needed.
pub(super) struct Checkpoint {
    /// The first WAL file that is needed.
    pub wal_from: u64,
    /// The last entry of the WAL that is in the segments.
    pub sequence: u64,
    /// The sync that made it durable.
    pub sync: u64,
    /// Whether the log was closed, and the WAL holds nothing more.
    pub clean: bool,
    /// Whether it stands in for one that is lost: then what the WAL begins with is not known.
    pub rebuilt: bool,
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
    sequence: u64,
    sync: u64,
    clean: bool,
    partitions: Vec<PartitionLine>,
}

#[derive(Serialize, Deserialize)]
struct PartitionLine {
    topic: [u8; 16],
    partition: i32,
    dir: Option<String>,
    start: i64,
    segments: Vec<SegmentLine>,
}

/// `(base, next, length, largest timestamp, where it is, first received, last received)`.
type SegmentLine = (i64, i64, u64, i64, i64, i64, i64);

impl Checkpoint {
    /// Makes it the one that counts.
    pub(super) fn save(&self, disk: &dyn Disk) -> Result<(), Trouble> {
        let partitions = self.partitions.iter().map(|p| PartitionLine {
            topic: p.key.topic.0,
            partition: p.key.partition.0,
            dir: p.dir.clone(),
            start: p.start.0,
            segments: p.segments.iter().map(line).collect(),
        });
        let lines = Lines {
            wal_from: self.wal_from,
            sequence: self.sequence,
            sync: self.sync,
            clean: self.clean,
            partitions: partitions.collect(),
        };
        let body = serde_json::to_vec(&lines).expect("plain data");
        let mut bytes = crc32c::crc32c(&body).to_be_bytes().to_vec();
        bytes.extend_from_slice(&body);
        replace_file(disk, "", FILE, &bytes)
    }

    /// The last one that was saved. The inner error says why what is there cannot be believed.
    pub(super) fn load(disk: &dyn Disk) -> std::io::Result<Option<Result<Self, String>>> {
        Ok(read_file(disk, FILE)?.map(|bytes| Self::read(&bytes)))
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let (crc, body) = bytes.split_at_checked(4).ok_or("it is too short")?;
        if crc32c::crc32c(body).to_be_bytes() != crc {
            return Err("it fails its checksum".to_owned());
        }
        let lines: Lines = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        let partitions = lines.partitions.into_iter().map(|line| StoredPartition {
            key: PartitionKey { topic: TopicId(line.topic), partition: PartitionId(line.partition) },
            dir: line.dir,
            start: Offset(line.start),
            segments: line.segments.into_iter().map(segment).collect(),
        });
        Ok(Self {
            wal_from: lines.wal_from,
            sequence: lines.sequence,
            sync: lines.sync,
            clean: lines.clean,
            rebuilt: false,
            partitions: partitions.collect(),
        })
    }
}

const fn line(s: &Segment) -> SegmentLine {
    (s.base.0, s.next.0, s.length, s.max_timestamp, s.max_at.0, s.first_received, s.last_received)
}

const fn segment((base, next, length, max_timestamp, max_at, first_received, last_received): SegmentLine) -> Segment {
    Segment {
        base: Offset(base),
        next: Offset(next),
        length,
        max_timestamp,
        max_at: Offset(max_at),
        first_received,
        last_received,
        flushed: length,
        dirty: false,
        index: None,
    }
}
