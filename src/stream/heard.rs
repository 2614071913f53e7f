//! What the clock said of a partition's rows, kept for whoever has to read them again.
//!
//! A reading that was ahead of the clock when it was heard moved no time. When a state is made again that reading has to move none again,
//! however late it is by then: so the last of what the clock said goes with the state. Always: of every row from [`Heard::since`] on it is
//! known what the clock said of it. Owned by the task, one an input.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};

use super::operator::{StatePart, StateReader, StateWriter, StreamError};
use super::source::AheadRows;

/// Of how many rows of a partition it is kept; of more the older ones are forgotten.
const MOST: usize = 4096;
/// The part of a state that says from where on it is known, and the one that says of which rows there was something to say.
const SINCE: &str = "heard/since";
const ROWS: &str = "heard/rows";

/// What the clock said of the rows of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    since: i64,
    rows: AheadRows,
}

impl Heard {
    /// It is known from an offset on, and nothing was said yet.
    pub const fn from(offset: i64) -> Self {
        Self { since: offset, rows: AheadRows { ahead: BTreeMap::new(), far: std::collections::BTreeSet::new() } }
    }

    /// The first offset from which on it is known.
    pub const fn since(&self) -> i64 {
        self.since
    }

    /// What was said; of all rows from [`Heard::since`] on that are not here, that they are not ahead.
    pub const fn rows(&self) -> &AheadRows {
        &self.rows
    }

    /// The clock has said this of rows that were read.
    pub fn note(&mut self, said: &AheadRows) {
        self.rows.ahead.extend(&said.ahead);
        self.rows.far.extend(&said.far);
        while self.rows.ahead.len() + self.rows.far.len() > MOST {
            let (ahead, far) = (self.rows.ahead.first_key_value().map(|(offset, _)| *offset), self.rows.far.first().copied());
            let oldest = ahead.into_iter().chain(far).min().unwrap_or(self.since);
            self.rows.ahead.remove(&oldest);
            self.rows.far.remove(&oldest);
            self.since = self.since.max(oldest + 1);
        }
    }
}

/// Writes what is known of each input, by its number.
pub(super) fn save<'a>(inputs: impl Iterator<Item = (i32, &'a Heard)>, state: &mut StateWriter) -> Result<(), StreamError> {
    let (mut of, mut since) = (Vec::new(), Vec::new());
    let (mut inputs_of, mut offsets, mut clocks) = (Vec::new(), Vec::new(), Vec::new());
    for (number, heard) in inputs {
        of.push(number);
        since.push(heard.since);
        let ahead = heard.rows.ahead.iter().map(|(offset, clock)| (*offset, Some(*clock)));
        for (offset, clock) in ahead.chain(heard.rows.far.iter().map(|offset| (*offset, None))) {
            inputs_of.push(number);
            offsets.push(offset);
            clocks.push(clock);
        }
    }
    state.put(SINCE, batch(vec![("input", Arc::new(Int32Array::from(of))), ("since", Arc::new(Int64Array::from(since)))])?);
    if !offsets.is_empty() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("input", Arc::new(Int32Array::from(inputs_of))),
            ("offset", Arc::new(Int64Array::from(offsets))),
            // Far ahead where there is none.
            ("clock", Arc::new(Int64Array::from(clocks))),
        ];
        state.put(ROWS, batch(columns)?);
    }
    Ok(())
}

/// Takes what [`save`] wrote out of a state, by the inputs' numbers; nothing of a state that is older than that.
pub(super) fn take(state: &mut StateReader) -> Result<BTreeMap<i32, Heard>, StreamError> {
    let mut found: BTreeMap<i32, Heard> = BTreeMap::new();
    let mut parts = Vec::with_capacity(state.parts.len());
    for (name, part) in std::mem::take(&mut state.parts) {
        let StatePart::Batch(batch) = &part else {
            parts.push((name, part));
            continue;
        };
        if name == SINCE {
            let (of, since) = (numbers(batch)?, offsets(batch, 1)?);
            found.extend(of.iter().zip(since).map(|(number, since)| (*number, Heard::from(*since))));
        } else if name == ROWS {
            let (of, offsets, clocks) = (numbers(batch)?, offsets(batch, 1)?, offsets(batch, 2)?);
            for row in 0..batch.num_rows() {
                let Some(heard) = found.get_mut(&of[row]) else { continue };
                if batch.column(2).is_valid(row) {
                    heard.rows.ahead.insert(offsets[row], clocks[row]);
                } else {
                    heard.rows.far.insert(offsets[row]);
                }
            }
        } else {
            parts.push((name, part));
        }
    }
    state.parts = parts;
    Ok(found)
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, StreamError> {
    let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns.into_iter().map(|(_, column)| column).collect()).map_err(|e| torn(&e.to_string()))
}

fn numbers(batch: &RecordBatch) -> Result<&[i32], StreamError> {
    let column = batch.columns().first().filter(|column| *column.data_type() == DataType::Int32).ok_or_else(|| torn("no inputs"))?;
    Ok(column.as_primitive::<Int32Type>().values())
}

fn offsets(batch: &RecordBatch, at: usize) -> Result<&[i64], StreamError> {
    let column = batch.columns().get(at).filter(|column| *column.data_type() == DataType::Int64).ok_or_else(|| torn("no offsets"))?;
    Ok(column.as_primitive::<Int64Type>().values())
}

fn torn(why: &str) -> StreamError {
    StreamError::Restore { operator: "what the clock said".to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_comes_back_from_a_state_and_leaves_the_rest_of_it_alone() {
        let said =
            |ahead: &[(i64, i64)], far: &[i64]| AheadRows { ahead: ahead.iter().copied().collect(), far: far.iter().copied().collect() };
        let (mut one, mut two) = (Heard::from(5), Heard::from(0));
        one.note(&said(&[(7, 100), (9, 101)], &[8]));
        two.note(&said(&[], &[]));
        let mut state = StateWriter::default();
        let other = batch(vec![("input", Arc::new(Int32Array::from(vec![1])))]).unwrap();
        state.put("0/own", other.clone());
        save([(0, &one), (3, &two)].into_iter(), &mut state).unwrap();
        let mut back = StateReader::of(state.parts);
        assert_eq!(take(&mut back).unwrap(), BTreeMap::from([(0, one), (3, two)]));
        assert_eq!((back.parts.len(), back.get("0/own").next()), (1, Some(&other)));
        assert!(take(&mut back).unwrap().is_empty());
    }

    #[test]
    fn of_many_rows_the_last_ones_are_known_and_from_where_on() {
        let mut heard = Heard::from(0);
        for offset in 0..3 * MOST as i64 {
            let is_far = offset % 3 == 0;
            let far = is_far.then_some(offset).into_iter().collect();
            let ahead = (!is_far).then_some((offset, 7)).into_iter().collect();
            heard.note(&AheadRows { ahead, far });
        }
        assert_eq!(heard.since(), 2 * MOST as i64);
        let known = heard.rows().ahead.keys().chain(&heard.rows().far).copied().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(known, (2 * MOST as i64..3 * MOST as i64).collect());
    }
}
