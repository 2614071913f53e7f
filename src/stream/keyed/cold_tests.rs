//! Keys on the disk come back when they are asked for or when time reaches them, whole and once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::cold::{ColdKeys, ColdRow};
use super::table::{Encoded, KeyTable};
use crate::stream::spill::tests::Shelf;
use crate::stream::{SpillSpace, StatePart, StateReader, StateWriter, StreamError};

/// What is kept of a key: the times of its rows.
type Kept = BTreeMap<String, Vec<i64>>;

#[derive(Default)]
struct Both {
    table: KeyTable,
    cold: ColdKeys,
    here: Kept,
    away: Kept,
}

impl Both {
    fn encoded<'a>(&mut self, keys: impl Iterator<Item = &'a String>) -> Encoded {
        let column: ArrayRef = Arc::new(keys.map(Some).collect::<StringArray>());
        self.table.encode(&[column]).unwrap()
    }

    fn hash(&mut self, key: &str) -> u64 {
        let column: ArrayRef = Arc::new(StringArray::from(vec![key]));
        let encoded = self.table.encode(&[column]).unwrap();
        self.cold.hash(encoded.key(0))
    }

    /// Puts these keys into one file, those whose hash is free.
    fn put(&mut self, keys: &[String], space: &SpillSpace) -> usize {
        let (mut hashes, mut goes) = (BTreeSet::new(), Vec::new());
        for key in keys {
            let hash = self.hash(key);
            if !self.cold.holds(hash) && hashes.insert(hash) {
                goes.push((key.clone(), hash));
            }
        }
        let (mut numbers, mut names, mut times, mut rows) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (at, (key, hash)) in goes.iter().enumerate() {
            let own = self.here.remove(key).unwrap();
            for time in &own {
                numbers.push(at as i64);
                names.push(key.clone());
                times.push(*time);
                rows.push(ColdRow { hash: *hash, time: *time });
            }
            self.away.insert(key.clone(), own);
        }
        let columns: [(&str, ArrayRef); 3] = [
            ("key", Arc::new(Int64Array::from(numbers))),
            ("name", Arc::new(StringArray::from(names))),
            ("time", Arc::new(Int64Array::from(times))),
        ];
        assert!(self.cold.put(&RecordBatch::try_from_iter(columns).unwrap(), rows, space).unwrap());
        keys.len() - goes.len()
    }

    /// Takes in what was brought, all of which has been away.
    fn enter(&mut self, brought: Option<RecordBatch>) {
        let Some(batch) = brought else { return };
        let mut found = Kept::new();
        for row in 0..batch.num_rows() {
            let name = batch.column(1).as_string::<i32>().value(row).to_owned();
            found.entry(name).or_default().push(batch.column(2).as_primitive::<Int64Type>().value(row));
        }
        for (name, times) in found {
            assert_eq!(self.away.remove(&name).as_ref(), Some(&times), "{name} comes whole, and once");
            self.here.insert(name, times);
        }
    }

    fn restored(&mut self, state: &StateReader) -> Result<(), StreamError> {
        self.cold = ColdKeys::default();
        let Self { cold, table, .. } = self;
        let brought = cold.restore(state, |batch, _| {
            Ok((table.encode(&batch.columns()[1..2])?, batch.column(2).as_primitive::<Int64Type>().values().to_vec()))
        })?;
        self.enter(brought);
        Ok(())
    }
}

#[test]
fn keys_on_the_disk_come_back_whole_and_once_when_they_are_asked_for_or_time_reaches_them() {
    let (mut shared, mut dissolved, mut merged) = (0, 0, 0);
    for seed in 0..24 {
        // With some seeds a little goes at a time, and less comes back.
        let by_little = seed % 2 == 0;
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let shelf = Shelf::default();
        let space = shelf.space();
        let mut both = Both::default();
        for n in 0..300 {
            let times =
                (0..chance.random_range(1..4)).map(|_| if chance.random_bool(0.1) { i64::MAX } else { chance.random_range(0..1000) });
            both.here.insert(format!("k{n}"), times.collect());
        }
        for _ in 0..80 {
            let names = |of: &Kept, chance: &mut ChaCha8Rng, share: f64| -> Vec<String> {
                of.keys().filter(|_| chance.random_bool(share)).cloned().collect()
            };
            match chance.random_range(0..7) {
                0 | 1 => {
                    let share = if by_little { 0.05 } else { chance.random_range(0.1..1.0) };
                    let keys = names(&both.here, &mut chance, share);
                    shared += both.put(&keys, &space);
                }
                2 | 3 => {
                    let share = if by_little { 0.01 } else { [0.01, 0.05, 0.5][chance.random_range(0..3)] };
                    let mut keys = names(&both.away, &mut chance, share);
                    keys.extend(names(&both.here, &mut chance, 0.1));
                    keys.push("never seen".to_owned());
                    keys.extend(keys.first().cloned());
                    let encoded = both.encoded(keys.iter());
                    let before = both.away.len();
                    let brought = both.cold.take(&encoded, keys.len()).unwrap();
                    both.enter(brought);
                    assert!(keys.iter().all(|key| !both.away.contains_key(key)), "seed {seed}");
                    dissolved += usize::from(before - both.away.len() > keys.len());
                }
                4 => {
                    let at = chance.random_range(0..if by_little { 10 } else { 400 });
                    let latest = both.away.values().flatten().copied().filter(|time| *time < at).max();
                    assert_eq!(both.cold.latest(at), latest, "seed {seed}");
                    let brought = both.cold.take_before(at).unwrap();
                    both.enter(brought);
                    assert!(both.away.values().flatten().all(|time| *time >= at), "seed {seed}");
                }
                5 => {
                    let before = shelf.files();
                    let brought = both.cold.take_small().unwrap();
                    both.enter(brought);
                    assert_eq!(shelf.files(), if before < 16 { before } else { 0 }, "seed {seed}");
                    merged += usize::from(before >= 16);
                }
                _ => {
                    let mut state = StateWriter::default();
                    both.cold.save(&mut state).unwrap();
                    let mut parts = state.parts;
                    // Now and then a part does not lie on the disk any more.
                    for (_, part) in &mut parts {
                        if let StatePart::Parked(parked) = part
                            && chance.random_bool(if by_little { 0.02 } else { 0.2 })
                        {
                            *part = StatePart::Batch(parked.load().unwrap());
                        }
                    }
                    both.restored(&StateReader::of(parts)).unwrap();
                }
            }
            assert_eq!(both.here.len() + both.away.len(), 300);
            assert_eq!(both.cold.is_empty(), both.away.is_empty());
            assert_eq!(both.cold.spilled_bytes(), space.used());
        }
        let all: Vec<String> = both.away.keys().cloned().collect();
        let encoded = both.encoded(all.iter());
        let brought = both.cold.take(&encoded, all.len()).unwrap();
        both.enter(brought);
        assert_eq!((both.here.len(), shelf.files(), both.cold.bytes()), (300, 0, 0));
    }
    assert!(shared > 10 && dissolved > 10 && merged > 3, "{shared} keys of one hash, {dissolved} files dissolved, {merged} merged");
}

#[test]
fn a_state_that_lacks_a_file_or_says_that_more_has_left_than_there_was_is_refused() {
    let shelf = Shelf::default();
    let space = shelf.space();
    let mut both = Both::default();
    for n in 0..9 {
        both.here.insert(format!("k{n}"), vec![n, n + 1]);
    }
    let keys: Vec<String> = both.here.keys().cloned().collect();
    both.put(&keys, &space);
    let first = both.away.keys().next().cloned();
    let encoded = both.encoded(first.iter());
    let brought = both.cold.take(&encoded, 1).unwrap();
    both.enter(brought);
    let away = both.away.len();
    assert!(away > 4, "{away}");
    let mut state = StateWriter::default();
    both.cold.save(&mut state).unwrap();
    let without = |name: &str| StateReader::of(state.parts.iter().filter(|(n, _)| n != name).cloned().collect());
    assert!(both.restored(&without("parked:away")).unwrap_err().to_string().contains("a file is missing"));
    let mut other = StateReader::of(state.parts.clone());
    for (name, part) in &mut other.parts {
        if name == "left" {
            let columns: [(&str, ArrayRef); 2] =
                [("file", Arc::new(Int64Array::from(vec![0]))), ("row", Arc::new(Int64Array::from(vec![99])))];
            *part = StatePart::Batch(RecordBatch::try_from_iter(columns).unwrap());
        }
    }
    assert!(both.restored(&other).unwrap_err().to_string().contains("more has left"));
    both.restored(&StateReader::of(state.parts.clone())).unwrap();
    assert!(both.here.len() + both.away.len() == 9 && both.away.len() > 4);
}
