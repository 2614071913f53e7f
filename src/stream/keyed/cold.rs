//! Keys on the disk.
//!
//! An operator that keeps something of every key puts those away that no row has come for of late: one row or more each, many keys to a
//! file. Of a key that lies there memory holds its hash, its place, and when time reaches it. Always: a key is here or with its operator,
//! and whole; under one hash lies one key at most, so that what is asked for by its hash is brought or was never here (what is brought
//! may be another key of that hash, which does no harm); a file is deleted with the last of its keys, and once no more than half of it
//! is there the rest goes back to the operator. What a row says behind its key's number is the operator's affair.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use foldhash::quality::RandomState;

use super::table::Encoded;
use crate::stream::rowwise::arrow_error;
use crate::stream::window::{ints, ints_of};
use crate::stream::{Parked, SpillSpace, StatePart, StateReader, StateWriter, StreamError};

/// Keys that take about so many bytes of memory go to one file, all of which is read where one of them is needed.
const FILE_BYTES: usize = 256 << 10;
/// Where there are so many files with fewer bytes than these, their keys are put together into others.
const MANY_SMALL: usize = 16;
const SMALL_BYTES: u64 = 32 << 10;
/// So many bits of a hash count; few in tests, where keys are to share one now and then.
const HASH_BITS: u32 = if cfg!(test) { 14 } else { 64 };

/// The names of the parts of a state: the files, and the rows of them that have left.
const AWAY: &str = "away";
const LEFT: &str = "left";

/// The keys of one operator that lie on the disk.
#[derive(Debug, Default)]
pub(in crate::stream) struct ColdKeys {
    hasher: RandomState,
    /// The file of each key, and its first row there.
    places: HashMap<u64, (u32, u32), RandomState>,
    files: Vec<Option<ColdFile>>,
    free: Vec<u32>,
    /// When time first reaches a file, and its number.
    wakes: BTreeSet<(i64, u32)>,
}

/// What memory holds of a row: the hash of its key, and when time reaches it; the greatest time for never.
#[derive(Clone, Copy, Debug)]
pub(in crate::stream) struct ColdRow {
    pub hash: u64,
    pub time: i64,
}

/// A key that may go to the disk: its number with its operator, its hash, and its place among the others, of which the least goes first.
#[derive(Debug)]
pub(in crate::stream) struct ColdKey<R> {
    pub key: u32,
    pub hash: u64,
    pub rank: R,
}

#[derive(Debug)]
struct ColdFile {
    parked: Arc<Parked>,
    rows: Vec<ColdRow>,
    left: Vec<bool>,
    /// How many have not left.
    there: usize,
    /// The least time of these.
    wake: i64,
}

impl ColdFile {
    fn there(&self) -> impl Iterator<Item = &ColdRow> {
        self.rows.iter().zip(&self.left).filter(|(_, left)| !**left).map(|(row, _)| row)
    }

    fn count(&mut self) {
        self.there = self.there().count();
        self.wake = self.there().map(|row| row.time).min().unwrap_or(i64::MAX);
    }
}

fn misfit(why: &str) -> StreamError {
    StreamError::Restore { operator: "keys on the disk".to_owned(), why: why.to_owned() }
}

/// How many keys go to one file, where each takes so many bytes of memory.
pub(in crate::stream) const fn keys_of_file(bytes_of_key: usize) -> usize {
    let keys = FILE_BYTES / if bytes_of_key == 0 { 1 } else { bytes_of_key };
    if keys == 0 { 1 } else { keys }
}

/// Whether another key begins in this row.
fn begins(keys: &[i64], row: usize) -> bool {
    row == 0 || keys[row] != keys[row - 1]
}

impl ColdKeys {
    pub(in crate::stream) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The hash of an encoded key.
    pub(in crate::stream) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key) >> (64 - HASH_BITS)
    }

    /// Whether there is a key of this hash: then no other is put here.
    pub(in crate::stream) fn holds(&self, hash: u64) -> bool {
        self.places.contains_key(&hash)
    }

    /// Which of these keys go, in their order, where memory is to be freed of about `want` bytes, a key takes `of_key` of them, and so many
    /// that have just come back are to go again. Of keys that share their hash one goes, and none where one lies here.
    pub(in crate::stream) fn choose<R: Ord>(&self, mut keys: Vec<ColdKey<R>>, want: usize, of_key: usize, again: usize) -> Vec<ColdKey<R>> {
        keys.sort_unstable_by(|a, b| (a.hash, &a.rank).cmp(&(b.hash, &b.rank)));
        keys.dedup_by_key(|of| of.hash);
        keys.retain(|of| !self.holds(of.hash));
        keys.sort_unstable_by(|a, b| a.rank.cmp(&b.rank));
        keys.truncate(want.div_ceil(of_key.max(1)).saturating_add(again));
        keys
    }

    /// Puts keys into a file, none of which shares its hash with another here: a batch that says in its first column which key a row is
    /// of, those of one key together, and of each row what stays in memory. `false` where there is no room.
    pub(in crate::stream) fn put(&mut self, batch: &RecordBatch, rows: Vec<ColdRow>, space: &SpillSpace) -> Result<bool, StreamError> {
        if rows.is_empty() {
            return Ok(true);
        }
        let Some(parked) = space.park(batch)? else { return Ok(false) };
        let left = vec![false; rows.len()];
        self.add(parked, ints_of(batch, 0).unwrap_or_default(), rows, left);
        Ok(true)
    }

    /// Adds a file. Answers its number, and the first rows of keys whose hashes are taken.
    fn add(&mut self, parked: Arc<Parked>, keys: &[i64], rows: Vec<ColdRow>, left: Vec<bool>) -> (u32, Vec<usize>) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.files.push(None);
            self.files.len() as u32 - 1
        });
        let mut taken = Vec::new();
        for row in (0..rows.len()).filter(|row| !left[*row] && begins(keys, *row)) {
            if self.holds(rows[row].hash) {
                taken.push(row);
            } else {
                self.places.insert(rows[row].hash, (number, row as u32));
            }
        }
        let mut file = ColdFile { parked, rows, left, there: 0, wake: i64::MAX };
        file.count();
        if file.wake < i64::MAX {
            self.wakes.insert((file.wake, number));
        }
        self.files[number as usize] = Some(file);
        (number, taken)
    }

    /// Brings the keys of so many rows, as far as they lie here: all that was put here of them, which is here no longer.
    pub(in crate::stream) fn take(&mut self, keys: &Encoded, rows: usize) -> Result<Option<RecordBatch>, StreamError> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut wanted: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for row in 0..rows {
            if let Some((file, row)) = self.places.get(&self.hash(keys.key(row))) {
                wanted.entry(*file).or_default().insert(*row);
            }
        }
        let brought = wanted.into_iter().map(|(file, rows)| self.bring(file, |row, _| rows.contains(&(row as u32))));
        let brought = brought.collect::<Result<Vec<_>, _>>()?;
        joined(&brought)
    }

    /// The same of all keys that a time before `at` reaches.
    pub(in crate::stream) fn take_before(&mut self, at: i64) -> Result<Option<RecordBatch>, StreamError> {
        let mut brought = Vec::new();
        while let Some((_, number)) = self.wakes.first().copied().filter(|(time, _)| *time < at) {
            brought.push(self.bring(number, |_, time| time < at)?);
        }
        joined(&brought)
    }

    /// The same of all that lie in small files, where there are many of these: before more is put here.
    pub(in crate::stream) fn take_small(&mut self) -> Result<Option<RecordBatch>, StreamError> {
        let is_small = |file: &Option<ColdFile>| file.as_ref().is_some_and(|file| file.parked.bytes() < SMALL_BYTES);
        let small: Vec<u32> = (0..self.files.len() as u32).filter(|number| is_small(&self.files[*number as usize])).collect();
        if small.len() < MANY_SMALL {
            return Ok(None);
        }
        let brought = small.into_iter().map(|number| self.bring(number, |_, _| true)).collect::<Result<Vec<_>, _>>()?;
        joined(&brought)
    }

    /// The keys of a file that have a row for which this holds.
    fn bring(&mut self, number: u32, is_wanted: impl Fn(usize, i64) -> bool) -> Result<RecordBatch, StreamError> {
        let file = self.files[number as usize].as_mut().expect("the file of a key is there");
        let batch = file.parked.load()?;
        let keys = ints_of(&batch, 0).filter(|keys| keys.len() == file.rows.len());
        let keys = keys.ok_or_else(|| StreamError::Spill("its file has other keys than were written".to_owned()))?;
        let (mut goes, mut count, mut from) = (vec![false; keys.len()], 0, 0);
        while from < keys.len() {
            let to = (from + 1..keys.len()).find(|row| begins(keys, *row)).unwrap_or(keys.len());
            if !file.left[from] && (from..to).any(|row| is_wanted(row, file.rows[row].time)) {
                goes[from..to].fill(true);
                count += to - from;
            }
            from = to;
        }
        if (file.there - count) * 2 <= keys.len() {
            goes = file.left.iter().map(|left| !left).collect();
        }
        for row in (0..keys.len()).filter(|row| goes[*row]) {
            file.left[row] = true;
            let hash = file.rows[row].hash;
            if self.places.get(&hash) == Some(&(number, row as u32)) {
                self.places.remove(&hash);
            }
        }
        self.wakes.remove(&(file.wake, number));
        file.count();
        if file.wake < i64::MAX {
            self.wakes.insert((file.wake, number));
        }
        if file.there == 0 {
            self.files[number as usize] = None;
            self.free.push(number);
        }
        if self.places.is_empty() {
            // What was large once need not stay so.
            self.places = HashMap::default();
        }
        filter_record_batch(&batch, &BooleanArray::from(goes)).map_err(|e| arrow_error("keys on the disk", &e))
    }

    /// The greatest time, before this one, that reaches a key here.
    pub(in crate::stream) fn latest(&self, before: i64) -> Option<i64> {
        let files = self.files.iter().flatten().filter(|file| file.wake < before);
        files.flat_map(ColdFile::there).map(|row| row.time).filter(|time| *time < before).max()
    }

    /// Writes down what lies here, without bringing it.
    pub(in crate::stream) fn save(&self, state: &mut StateWriter) -> Result<(), StreamError> {
        let (mut files, mut rows) = (Vec::new(), Vec::new());
        for (number, file) in self.files.iter().flatten().enumerate() {
            state.put_parked(AWAY, Arc::clone(&file.parked));
            for row in (0..file.left.len()).filter(|row| file.left[*row]) {
                files.push(number as i64);
                rows.push(row as i64);
            }
        }
        if !files.is_empty() {
            state.put(LEFT, ints(vec![("file", files), ("row", rows)])?);
        }
        Ok(())
    }

    /// Takes back what [`ColdKeys::save`] wrote. `look` says of the rows of a file, some of which may have left, what their keys are and
    /// when time reaches them. Answers what does not lie on the disk any more.
    pub(in crate::stream) fn restore(
        &mut self,
        state: &StateReader,
        mut look: impl FnMut(&RecordBatch, &[bool]) -> Result<(Encoded, Vec<i64>), StreamError>,
    ) -> Result<Option<RecordBatch>, StreamError> {
        let mut left: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for batch in state.get(LEFT) {
            let (files, rows) = ints_of(batch, 0).zip(ints_of(batch, 1)).ok_or_else(|| misfit("what has left is not whole"))?;
            files.iter().zip(rows).for_each(|(file, row)| left.entry(*file).or_default().push(*row));
        }
        let mut here = Vec::new();
        for (number, part) in state.parked(AWAY).enumerate() {
            let batch = match part {
                StatePart::Batch(batch) => batch.clone(),
                StatePart::Parked(parked) => parked.load()?,
            };
            let mut gone = vec![false; batch.num_rows()];
            for row in left.remove(&(number as i64)).unwrap_or_default() {
                let gone = usize::try_from(row).ok().and_then(|row| gone.get_mut(row));
                *gone.ok_or_else(|| misfit("more has left than there was"))? = true;
            }
            let StatePart::Parked(parked) = part else {
                let there: BooleanArray = gone.iter().map(|gone| Some(!gone)).collect();
                here.push(filter_record_batch(&batch, &there).map_err(|e| arrow_error("keys on the disk", &e))?);
                continue;
            };
            let keys = ints_of(&batch, 0).ok_or_else(|| misfit("a file has no keys"))?;
            let (encoded, times) = look(&batch, &gone)?;
            let rows = times.iter().enumerate().map(|(row, time)| ColdRow { hash: self.hash(encoded.key(row)), time: *time }).collect();
            let (number, taken) = self.add(Arc::clone(parked), keys, rows, gone);
            if !taken.is_empty() {
                here.push(self.bring(number, |row, _| taken.contains(&row))?);
            }
        }
        if left.is_empty() { joined(&here) } else { Err(misfit("a file is missing")) }
    }

    /// About how many bytes of memory it takes.
    pub(in crate::stream) fn bytes(&self) -> usize {
        let of = |file: &ColdFile| file.rows.len() * (size_of::<ColdRow>() + 1) + size_of::<ColdFile>() + 64;
        self.places.capacity() * (size_of::<(u64, (u32, u32))>() + 1) + self.files.iter().flatten().map(of).sum::<usize>()
    }

    /// How many bytes lie on the disk.
    pub(in crate::stream) fn spilled_bytes(&self) -> u64 {
        self.files.iter().flatten().map(|file| file.parked.bytes()).sum()
    }
}

/// Batches as one, where there are any.
fn joined(batches: &[RecordBatch]) -> Result<Option<RecordBatch>, StreamError> {
    let Some(first) = batches.first() else { return Ok(None) };
    concat_batches(&first.schema(), batches).map(Some).map_err(|e| arrow_error("keys on the disk", &e))
}
