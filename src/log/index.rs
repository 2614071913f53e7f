//! A segment's sparse index: from an offset or a time to a place in the file, about every 4 KiB.
//!
//! Derived, never evidence: where its files are missing, of the wrong size or out of order, or lead to a place where no such batch
//! begins, it is made again from the segment. On disk it has Kafka's two files, big endian: `.index` (relative offset and position,
//! four bytes each) and `.timeindex` (the largest timestamp so far, eight, and the relative offset of the batch that has it, four).

use std::io::IoSlice;

use super::disk::{Disk, read_file};
use crate::record::Offset;

/// One entry is kept about each so many bytes.
const EVERY_BYTES: u64 = 4096;

/// A batch of a segment: where it begins, and its first offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub pos: u64,
    pub first: Offset,
}

/// The index of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentIndex {
    /// Relative offset and position, both rising.
    places: Vec<(u32, u32)>,
    /// Timestamp and relative offset, both rising: nothing before that offset has a timestamp so large.
    times: Vec<(i64, u32)>,
}

impl SegmentIndex {
    /// Notes a batch at `place`; `largest` is the largest timestamp of those before it, and the first offset of the batch that has it.
    pub(super) fn note(&mut self, base: Offset, place: Place, largest: Option<(i64, Offset)>) {
        if self.places.last().is_some_and(|(_, last)| place.pos < u64::from(*last) + EVERY_BYTES) {
            return;
        }
        let relative = |offset: Offset| u32::try_from(offset.0 - base.0);
        // What four bytes cannot say is not indexed; segments are smaller.
        let (Ok(first), Ok(pos)) = (relative(place.first), u32::try_from(place.pos)) else { return };
        self.places.push((first, pos));
        if let Some((timestamp, at)) = largest
            && let Ok(at) = relative(at)
            && self.times.last().is_none_or(|(last, before)| *last < timestamp && *before < at)
        {
            self.times.push((timestamp, at));
        }
    }

    /// A batch at or before the one that holds `offset`.
    pub(super) fn before_offset(&self, base: Offset, offset: Offset) -> Place {
        let relative = offset.0 - base.0;
        let after = self.places.partition_point(|(first, _)| i64::from(*first) <= relative);
        let (first, pos) = after.checked_sub(1).map_or((0, 0), |i| self.places[i]);
        Place { pos: u64::from(pos), first: base.plus(i64::from(first)) }
    }

    /// A batch at or before the first one whose timestamps reach `timestamp`.
    pub(super) fn before_time(&self, base: Offset, timestamp: i64) -> Place {
        let after = self.times.partition_point(|(largest, _)| *largest <= timestamp);
        let at = after.checked_sub(1).map_or(0, |i| self.times[i].1);
        self.before_offset(base, base.plus(i64::from(at)))
    }

    /// Where the last entry leads.
    pub(super) fn last(&self, base: Offset) -> Place {
        let (first, pos) = self.places.last().copied().unwrap_or_default();
        Place { pos: u64::from(pos), first: base.plus(i64::from(first)) }
    }

    /// From where a segment must be walked to go on with the index: nothing before has a timestamp larger than the last one noted.
    pub(super) fn resume(&self, base: Offset) -> Place {
        self.before_offset(base, base.plus(self.times.last().map_or(0, |(_, at)| i64::from(*at))))
    }

    /// Whether the other says the same as this one, as far as it goes.
    pub(super) fn begins_as(&self, other: &Self) -> bool {
        self.places.starts_with(&other.places) && self.times.starts_with(&other.times)
    }

    /// How many bytes of memory it takes, about.
    pub(super) const fn bytes(&self) -> usize {
        self.places.len() * 8 + self.times.len() * 16
    }

    /// Writes the two files. A failure is no loss: they are derived.
    pub(super) fn save(&self, disk: &dyn Disk, stem: &str) -> std::io::Result<()> {
        let mut offsets = Vec::with_capacity(self.places.len() * 8);
        for (first, pos) in &self.places {
            offsets.extend_from_slice(&first.to_be_bytes());
            offsets.extend_from_slice(&pos.to_be_bytes());
        }
        let mut times = Vec::with_capacity(self.times.len() * 12);
        for (timestamp, at) in &self.times {
            times.extend_from_slice(&timestamp.to_be_bytes());
            times.extend_from_slice(&at.to_be_bytes());
        }
        for (ending, bytes) in [("index", offsets), ("timeindex", times)] {
            let file = disk.open(&format!("{stem}.{ending}"), true)?;
            file.truncate(bytes.len() as u64)?;
            file.write_at(&[IoSlice::new(&bytes)], 0)?;
        }
        Ok(())
    }

    /// Reads the two files; `None` where they cannot belong to a segment of `length` bytes.
    pub(super) fn load(disk: &dyn Disk, stem: &str, length: u64) -> Option<Self> {
        let offsets = read_file(disk, &format!("{stem}.index")).ok()??;
        let times = read_file(disk, &format!("{stem}.timeindex")).ok()??;
        let (offsets, no_rest) = offsets.as_chunks::<8>();
        let (times, none_here) = times.as_chunks::<12>();
        if offsets.is_empty() || !no_rest.is_empty() || !none_here.is_empty() {
            return None;
        }
        let mut index = Self::default();
        for entry in offsets {
            let (first, pos) = (u32::from_be_bytes(*entry.first_chunk()?), u32::from_be_bytes(*entry.last_chunk()?));
            let in_order = index.places.last().is_none_or(|(f, p)| *f < first && *p < pos);
            if !in_order || u64::from(pos) >= length {
                return None;
            }
            index.places.push((first, pos));
        }
        for entry in times {
            let (timestamp, at) = (i64::from_be_bytes(*entry.first_chunk()?), u32::from_be_bytes(*entry.last_chunk()?));
            if index.times.last().is_some_and(|(t, a)| *t >= timestamp || *a >= at) {
                return None;
            }
            index.times.push((timestamp, at));
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SimDisk;

    fn of_100() -> SegmentIndex {
        let mut index = SegmentIndex::default();
        for i in 0..100_i64 {
            let largest = (i > 0).then(|| ((i - 1) * 7, Offset(1000 + (i - 1) * 10)));
            index.note(Offset(1000), Place { pos: (i * 1000) as u64, first: Offset(1000 + i * 10) }, largest);
        }
        index
    }

    #[test]
    fn a_place_lies_at_or_before_what_is_looked_for_and_not_far_before() {
        let index = of_100();
        for offset in 1000..2000 {
            let place = index.before_offset(Offset(1000), Offset(offset));
            assert!(place.first <= Offset(offset) && offset - place.first.0 <= 60, "{offset}: {place:?}");
            assert_eq!((place.first.0 - 1000) * 100, place.pos as i64);
        }
        for timestamp in -5..800 {
            let place = index.before_time(Offset(1000), timestamp);
            // The first batch that reaches it.
            let wanted = 1000 + (timestamp.max(0) + 6) / 7 * 10;
            assert!(place.first.0 <= wanted && wanted - place.first.0 <= 120 || timestamp > 690, "{timestamp}: {place:?} for {wanted}");
        }
    }

    #[test]
    fn an_index_survives_its_files_but_is_not_read_from_wrong_ones() {
        let index = of_100();
        let disk = SimDisk::new(1 << 30);
        index.save(&disk, "x").expect("saved");
        assert_eq!(SegmentIndex::load(&disk, "x", 100_000), Some(index.clone()));
        assert_eq!(disk.open("x.index", false).expect("there").length().expect("known") % 8, 0);
        assert_eq!(SegmentIndex::load(&disk, "x", 50_000), None, "it points behind the segment's end");
        disk.open("x.index", false).expect("there").truncate(12).expect("cut");
        assert_eq!(SegmentIndex::load(&disk, "x", 100_000), None, "half an entry");
        index.save(&disk, "x").expect("saved");
        disk.open("x.index", false).expect("there").write_at(&[IoSlice::new(&[0; 64])], 64).expect("written");
        assert_eq!(SegmentIndex::load(&disk, "x", 100_000), None, "zeros where a sync was missing");
    }
}
