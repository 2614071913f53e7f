//! Putting the log together where its checkpoint is lost: from the segments themselves.
//!
//! Everything is read and checked, so this takes as long as there is data. Always: only batches whose checksums are right are
//! taken; a wrong one in the middle is an error that says where. What only the checkpoint knew is guessed safely: when records
//! were received is when their file was last written, and a start within a segment is its beginning again.

use std::sync::Arc;

use super::checkpoint::{Checkpoint, StoredPartition};
use super::disk::Disk;
use super::doctor::next_batch;
use super::materialise::{DIR, GONE};
use super::segment::{Segment, walk};
use super::shared::{Shared, Trouble};
use super::{LogError, PartitionKey};
use crate::record::{Offset, PartitionId, TopicId};

/// Where the unbroken run of WAL files begins that ends with the last one. Those before it are remains.
pub(super) fn last_run(numbers: &[u64]) -> Option<u64> {
    let mut first = *numbers.last()?;
    for number in numbers.iter().rev().skip(1) {
        if number + 1 != first {
            break;
        }
        first = *number;
    }
    Some(first)
}

/// Makes a checkpoint out of what lies on the disk.
pub(super) fn rebuild(shared: &Arc<Shared>, run: Option<u64>, folders: &[String], numbers: &[u64]) -> Result<Checkpoint, LogError> {
    tracing::warn!(partitions = folders.len(), "there is no checkpoint: every segment is read");
    let disk = shared.disk.as_ref();
    let mut partitions = Vec::new();
    for name in folders.iter().filter(|name| !name.ends_with(GONE)) {
        let Some(key) = key_of(name) else {
            tracing::warn!(name, "a folder among the partitions that is none of ours");
            continue;
        };
        partitions.push(partition(disk, key, &format!("{DIR}/{name}"), run.is_none())?);
    }
    // The first entry may be any: what the segments have is passed over.
    // Never the first file again: a WAL that begins with it is believed to have everything.
    let wal_from = run.unwrap_or_else(|| numbers.last().map_or(2, |n| n + 1));
    let checkpoint = Checkpoint { wal_from, sequence: 0, sync: 0, clean: run.is_none(), rebuilt: true, partitions };
    disk.sync_dir(DIR).map_err(LogError::io("sync the partitions' folder"))?;
    // Durable at once: the WAL that begins now says nothing of what lies before it.
    checkpoint.save(disk).map_err(Trouble::into_error)?;
    Ok(checkpoint)
}

/// `closed`: there is no WAL that has again what is cut off.
fn partition(disk: &dyn Disk, key: PartitionKey, dir: &str, closed: bool) -> Result<StoredPartition, LogError> {
    let names = disk.list(dir).map_err(LogError::io(format!("list {dir}")))?;
    let files = newest(names.iter().filter_map(|name| Segment::named(name)).collect());
    let mut segments: Vec<Segment> = Vec::new();
    for (i, named) in files.iter().enumerate() {
        let path = named.path(dir);
        let base = named.base;
        let (mut segment, there) = walk(disk, &path, named)?;
        let is_last = i + 1 == files.len();
        let expected = segments.last().map_or(base, |before| before.next);
        if base != expected || (segment.length < there && !is_last) {
            let why = format!("it begins with {base}, offset {expected} is next, and {} of its {there} bytes are whole", segment.length);
            return Err(LogError::Corrupt { place: path, why });
        }
        let file = disk.open(&path, false).map_err(LogError::io(format!("open {path}")))?;
        file.sync().map_err(LogError::io(format!("sync {path}")))?;
        if closed && segment.length < there {
            // What a crash tears is in the WAL. Here it is damage: it must not take with it what lies whole behind it.
            let all = Segment { next: Offset(i64::MAX), length: there, ..segment.clone() };
            if let Some(behind) = next_batch(file.as_ref(), segment.length + 1, &all, segment.next)? {
                let why = format!("the batch here is damaged, and whole ones follow at {behind}: restore the data directory from a backup");
                return Err(LogError::Corrupt { place: format!("{path} at {}", segment.length), why });
            }
        }
        if segment.length < there {
            tracing::warn!(path, kept = segment.length, bytes = there, "a segment ends in the middle of a batch");
        }
        segment.dirty = true;
        segment.index = None;
        segments.push(segment);
    }
    disk.sync_dir(dir).map_err(LogError::io(format!("sync {dir}")))?;
    let start = segments.first().map_or(Offset::ZERO, |s| s.base);
    Ok(StoredPartition { key, dir: Some(dir.to_owned()), start, clean_to: Offset::ZERO, segments })
}

/// Of files that hold the same offsets, the ones that were compacted last: they got their names when they were whole and safe.
fn newest(mut files: Vec<Segment>) -> Vec<Segment> {
    files.sort_by_key(|s| (s.base, std::cmp::Reverse(s.version)));
    let mut chosen: Vec<Segment> = Vec::new();
    for file in files {
        // A compacted file takes the place of all that begin within it.
        let is_covered = chosen.last().is_some_and(|last| file.base < last.next || file.base == last.base);
        if !is_covered {
            chosen.push(file);
        }
    }
    chosen
}

/// The partition whose folder is named so: `<topic>-<partition>.<id>`.
pub(super) fn key_of(name: &str) -> Option<PartitionKey> {
    let (rest, id) = name.rsplit_once('.')?;
    let (_, partition) = rest.rsplit_once('-')?;
    let mut topic = [0; 16];
    if id.len() != 32 || !id.is_ascii() {
        return None;
    }
    for (byte, hex) in topic.iter_mut().zip(id.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
    }
    Some(PartitionKey { topic: TopicId(topic), partition: PartitionId(partition.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_unbroken_run_of_files_counts() {
        assert_eq!(last_run(&[]), None);
        assert_eq!(last_run(&[1, 2, 3]), Some(1));
        assert_eq!(last_run(&[1, 3, 4]), Some(3));
        assert_eq!(last_run(&[7]), Some(7));
    }

    #[test]
    fn of_files_with_the_same_offsets_the_last_compacted_ones_count() {
        let chosen = |names: &[&str]| {
            let named = newest(names.iter().map(|name| Segment::named(&format!("{name}.log")).expect("a name")).collect());
            named.iter().map(|s| s.stem("")[1..].trim_start_matches('0').to_owned()).collect::<Vec<_>>().join(" ")
        };
        let [a, b, c] = [0, 10, 20].map(|base| format!("{base:020}"));
        let once = format!("{:020}.{:020}.1", 0, 20);
        let twice = format!("{:020}.{:020}.2", 0, 30);
        assert_eq!(chosen(&[&a, &b, &c]), format!(" {} {}", &b[18..], &c[18..]));
        assert_eq!(chosen(&[&a, &b, &c, &once]), format!(".{:020}.1 {}", 20, &c[18..]));
        assert_eq!(chosen(&[&c, &once, &twice]), format!(".{:020}.2", 30));
        for strange in ["0.log", "x.log", "00000000000000000000.log.cleaned", "00000000000000000000.5.1.log", ".log"] {
            assert!(Segment::named(strange).is_none(), "{strange}");
        }
    }

    #[test]
    fn a_folder_says_whose_it_is() {
        let key = key_of("ward-a.b-12.000102030405060708090a0b0c0d0eff").expect("ours");
        assert_eq!((key.partition, key.topic.0[15], key.topic.0[1]), (PartitionId(12), 255, 1));
        for other in ["x", "x-1.00", "x.000102030405060708090a0b0c0d0eff", "lost+found", "a-b.000102030405060708090a0b0c0d0eff"] {
            assert_eq!(key_of(other), None, "{other}");
        }
    }
}
