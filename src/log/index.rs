//! A segment's sparse index: from an offset or a time to a place in the file, about every 4 KiB.
//!
//! Derived, never evidence: where its files are missing, of the wrong size or out of order, the segment is
//! walked again. On disk it has Kafka's two files: `.index` (relative offset and position, four bytes each) and
//! `.timeindex` (largest timestamp so far, and relative offset), big endian.

use std::io::IoSlice;

use super::disk::{Disk, read_file};
use crate::record::Offset;

/// One entry is kept about each so many bytes.
const EVERY_BYTES: u64 = 4096;

/// A place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// The first offset of the batch there, less the segment's base.
    relative: u32,
    /// Where the batch begins.
    pos: u32,
    /// The largest timestamp of everything before it.
    max_before: i64,
}

/// The index of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentIndex {
    places: Vec<Place>,
    last_pos: Option<u64>,
}

impl SegmentIndex {
    /// Notes a batch that begins at `pos`; `max_before` is the largest timestamp before it.
    pub(super) fn note(&mut self, base: Offset, first: Offset, pos: u64, max_before: i64) {
        if self.last_pos.is_some_and(|last| pos < last + EVERY_BYTES) {
            return;
        }
        let (Ok(relative), Ok(at)) = (u32::try_from(first.0 - base.0), u32::try_from(pos)) else { return };
        self.places.push(Place { relative, pos: at, max_before });
        self.last_pos = Some(pos);
    }

    /// A place at or before the batch that holds `offset`.
    pub(super) fn before_offset(&self, base: Offset, offset: Offset) -> u64 {
        let relative = offset.0 - base.0;
        let after = self.places.partition_point(|p| i64::from(p.relative) <= relative);
        after.checked_sub(1).map_or(0, |i| u64::from(self.places[i].pos))
    }

    /// A place at or before the first batch whose largest timestamp reaches `timestamp`.
    pub(super) fn before_time(&self, timestamp: i64) -> u64 {
        let after = self.places.partition_point(|p| p.max_before < timestamp);
        after.checked_sub(1).map_or(0, |i| u64::from(self.places[i].pos))
    }

    /// Writes the two files. A failure is no loss: they are derived.
    pub(super) fn save(&self, disk: &dyn Disk, stem: &str) -> std::io::Result<()> {
        let mut offsets = Vec::with_capacity(self.places.len() * 8);
        let mut times = Vec::with_capacity(self.places.len() * 12);
        for place in &self.places {
            offsets.extend_from_slice(&place.relative.to_be_bytes());
            offsets.extend_from_slice(&place.pos.to_be_bytes());
            times.extend_from_slice(&place.max_before.to_be_bytes());
            times.extend_from_slice(&place.relative.to_be_bytes());
        }
        for (ending, bytes) in [("index", offsets), ("timeindex", times)] {
            let file = disk.open(&format!("{stem}.{ending}"), true)?;
            file.truncate(0)?;
            file.write_at(&[IoSlice::new(&bytes)], 0)?;
        }
        Ok(())
    }

    /// Reads the two files; `None` where they do not fit a segment of `length` bytes.
    pub(super) fn load(disk: &dyn Disk, stem: &str, length: u64) -> Option<Self> {
        let offsets = read_file(disk, &format!("{stem}.index")).ok()??;
        let times = read_file(disk, &format!("{stem}.timeindex")).ok()??;
        if offsets.is_empty() || offsets.len() % 8 != 0 || times.len() != offsets.len() / 8 * 12 {
            return None;
        }
        let mut index = Self::default();
        for (offset, time) in offsets.chunks_exact(8).zip(times.chunks_exact(12)) {
            let relative = u32::from_be_bytes(offset[..4].try_into().ok()?);
            let pos = u32::from_be_bytes(offset[4..].try_into().ok()?);
            let max_before = i64::from_be_bytes(time[..8].try_into().ok()?);
            let same = u32::from_be_bytes(time[8..].try_into().ok()?) == relative;
            let in_order = index.places.last().is_none_or(|l| l.relative < relative && l.pos < pos && l.max_before <= max_before);
            if !same || !in_order || u64::from(pos) >= length {
                return None;
            }
            index.places.push(Place { relative, pos, max_before });
        }
        index.last_pos = index.places.last().map(|p| u64::from(p.pos));
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SimDisk;

    #[test]
    fn an_index_finds_places_and_survives_its_files_but_not_wrong_ones() {
        let disk = SimDisk::new(1 << 30);
        let mut index = SegmentIndex::default();
        for i in 0..100_i64 {
            index.note(Offset(1000), Offset(1000 + i * 10), (i * 1000) as u64, i * 7);
        }
        assert_eq!(index.before_offset(Offset(1000), Offset(1000)), 0);
        let place = index.before_offset(Offset(1000), Offset(1555));
        assert!(place <= 55_000 && place > 50_000, "{place}");
        assert!(index.before_time(350) <= 50_000);
        index.save(&disk, "x").expect("saved");
        assert_eq!(SegmentIndex::load(&disk, "x", 100_000), Some(index.clone()));
        assert_eq!(SegmentIndex::load(&disk, "x", 50_000), None, "it points behind the segment's end");
        disk.open("x.index", false).expect("there").truncate(12).expect("cut");
        assert_eq!(SegmentIndex::load(&disk, "x", 100_000), None, "half an entry");
    }
}
