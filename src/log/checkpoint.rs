//! The checkpoint file: what is in synced segments, and from where on the WAL is needed.
//!
//! Written by `materialise` after what it speaks of was synced, read by `recovery`. Always whole or the one before; one whose
//! checksum is wrong is no checkpoint (see `rebuild`).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::PartitionKey;
use super::disk::{Disk, read_file, replace_file};
use super::materialise::DIR;
use super::rebuild::key_of;
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
    /// Up to here it was compacted.
    pub clean_to: Offset,
    pub segments: Vec<Segment>,
}

#[derive(Serialize, Deserialize)]
struct Lines {
    wal_from: u64,
    sequence: u64,
    sync: u64,
    clean: bool,
    #[serde(default)]
    rebuilt: bool,
    partitions: Vec<PartitionLine>,
}

#[derive(Serialize, Deserialize)]
struct PartitionLine {
    topic: [u8; 16],
    partition: i32,
    dir: Option<String>,
    start: i64,
    segments: Vec<SegmentLine>,
    #[serde(default, skip_serializing_if = "is_zero")]
    clean_to: i64,
    /// The versions of the segments that have one, by their base.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    versions: Vec<(i64, u32)>,
}

impl PartitionLine {
    const fn key(&self) -> PartitionKey {
        PartitionKey { topic: TopicId(self.topic), partition: PartitionId(self.partition) }
    }

    /// Whether its folder is one of this partition. Without one it has no segments.
    fn has_its_folder(&self) -> bool {
        let Some(dir) = &self.dir else { return self.segments.is_empty() && self.partition >= 0 };
        let name = dir.strip_prefix(DIR).and_then(|rest| rest.strip_prefix('/')).filter(|name| !name.contains('/'));
        name.and_then(key_of) == Some(self.key())
    }

    /// Whether its segments are in order, each from its base on: what it ends with is then behind all of them.
    fn is_in_order(&self) -> bool {
        let each = self.segments.iter().all(|(base, next, ..)| (0..=*next).contains(base));
        each && self.segments.windows(2).all(|two| two[0].1 <= two[1].0)
    }
}

/// `(base, next, length, largest timestamp, where it is, first received, last received)`.
type SegmentLine = (i64, i64, u64, i64, i64, i64, i64);

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Checkpoint {
    /// Makes it the one that counts.
    pub(super) fn save(&self, disk: &dyn Disk) -> Result<(), Trouble> {
        replace_file(disk, "", FILE, &self.to_bytes())
    }

    /// As it is saved.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let partitions = self.partitions.iter().map(|p| PartitionLine {
            topic: p.key.topic.0,
            partition: p.key.partition.0,
            dir: p.dir.clone(),
            start: p.start.0,
            segments: p.segments.iter().map(line).collect(),
            clean_to: p.clean_to.0,
            versions: p.segments.iter().filter(|s| s.version > 0).map(|s| (s.base.0, s.version)).collect(),
        });
        let lines = Lines {
            wal_from: self.wal_from,
            sequence: self.sequence,
            sync: self.sync,
            clean: self.clean,
            rebuilt: self.rebuilt,
            partitions: partitions.collect(),
        };
        let body = serde_json::to_vec(&lines).expect("plain data");
        let mut bytes = crc32c::crc32c(&body).to_be_bytes().to_vec();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The last one that was saved. The inner error says why what is there cannot be believed.
    pub(super) fn load(disk: &dyn Disk) -> std::io::Result<Option<Result<Self, String>>> {
        Ok(read_file(disk, FILE)?.map(|bytes| Self::read(&bytes)))
    }

    /// Reads a saved one.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let (crc, body) = bytes.split_at_checked(4).ok_or("it is too short")?;
        if crc32c::crc32c(body).to_be_bytes() != crc {
            return Err("it fails its checksum".to_owned());
        }
        let lines: Lines = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        // Whoever believes it writes into these folders, and deletes them.
        let mut keys = BTreeSet::new();
        if let Some(wrong) = lines.partitions.iter().find(|line| !line.has_its_folder() || !keys.insert(line.key())) {
            let PartitionKey { topic, partition } = wrong.key();
            return Err(format!("it has a wrong folder for partition {partition} of topic {topic}, or the partition twice"));
        }
        if let Some(wrong) = lines.partitions.iter().find(|line| !line.is_in_order()) {
            let PartitionKey { topic, partition } = wrong.key();
            return Err(format!("it has the segments of partition {partition} of topic {topic} out of order"));
        }
        let versions = |line: &PartitionLine| line.versions.iter().copied().collect::<BTreeMap<i64, u32>>();
        let partitions = lines.partitions.into_iter().map(|line| (versions(&line), line)).map(|(versions, line)| StoredPartition {
            key: line.key(),
            dir: line.dir,
            start: Offset(line.start),
            clean_to: Offset(line.clean_to),
            segments: line
                .segments
                .into_iter()
                .map(|stored| Segment { version: versions.get(&stored.0).copied().unwrap_or(0), ..segment(stored) })
                .collect(),
        });
        Ok(Self {
            wal_from: lines.wal_from,
            sequence: lines.sequence,
            sync: lines.sync,
            clean: lines.clean,
            rebuilt: lines.rebuilt,
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
        version: 0,
        length,
        max_timestamp,
        max_at: Offset(max_at),
        first_received,
        last_received,
        flushed: length,
        dirty: false,
        taken_over: true,
        index: None,
    }
}
