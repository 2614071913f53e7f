//! Rows picked for the groups they count in, and those behind the end of their window: each is a correction of its own.
//!
//! In a task that merges partitions a correction waits until the merged watermark has passed the mark before it: then every
//! row with that mark is there, and they take their turns in one order whatever the interleaving was.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, UInt32Array};

use super::operator::UpdateAggregate;
use crate::stream::rowwise::{take_column, take_rows};
use crate::stream::window::ints_of_column;
use crate::stream::{Output, Rows, StreamError};

/// Rows with the groups they count in.
pub(super) struct Counted<'a> {
    /// The layout's columns, then the keys.
    pub columns: Cow<'a, [ArrayRef]>,
    pub times: &'a [i64],
    pub marks: &'a [i64],
    pub untils: &'a [i64],
    pub partition: i32,
}

/// Rows, each as often as there are groups it counts in.
pub(super) struct Picked {
    columns: Vec<ArrayRef>,
    times: Vec<i64>,
    marks: Vec<i64>,
    untils: Vec<i64>,
    offsets: Vec<i64>,
    rows: Vec<u32>,
}

impl Picked {
    /// The rows at these places, with the last moments of their groups.
    pub(super) fn of(rows: &Rows, columns: &[ArrayRef], places: &[(u32, i64)]) -> Result<Self, StreamError> {
        let picked: Vec<u32> = places.iter().map(|(row, _)| *row).collect();
        let as_is = picked.len() == rows.len() && picked.iter().enumerate().all(|(at, row)| at == *row as usize);
        let columns = if as_is {
            columns.to_vec()
        } else {
            let indices = UInt32Array::from(picked.clone());
            columns.iter().map(|column| take_column(column, &indices)).collect::<Result<_, _>>()?
        };
        let of = |values: &[i64]| picked.iter().map(|row| values[*row as usize]).collect();
        Ok(Self {
            columns,
            times: of(&rows.times),
            marks: of(&rows.before),
            untils: places.iter().map(|(_, until)| *until).collect(),
            offsets: of(&rows.offsets),
            rows: picked,
        })
    }

    /// Some of them.
    pub(super) fn counted(&self, range: Range<usize>, partition: i32) -> Counted<'_> {
        let columns = if range.len() == self.times.len() {
            Cow::Borrowed(self.columns.as_slice())
        } else {
            Cow::Owned(self.columns.iter().map(|column| column.slice(range.start, range.len())).collect())
        };
        let (times, marks, untils) = (&self.times[range.clone()], &self.marks[range.clone()], &self.untils[range]);
        Counted { columns, times, marks, untils, partition }
    }
}

impl UpdateAggregate {
    /// Rows behind the end of their window, one after the other.
    pub(super) fn correct_each(&mut self, picked: &Picked, partition: i32, out: &mut Output) -> Result<(), StreamError> {
        (0..picked.times.len()).try_for_each(|row| self.correct(&picked.counted(row..row + 1, partition), out))
    }

    /// A row behind the end of its window, which speaks once more.
    fn correct(&mut self, row: &Counted<'_>, out: &mut Output) -> Result<(), StreamError> {
        self.fire(row.marks[0], out)?;
        self.count(row)?;
        let mut keys = row.columns[self.arguments()..].to_vec();
        keys.insert(0, Arc::new(Int64Array::from(row.untils.to_vec())));
        let encoded = self.groups.table.encode(&keys)?;
        match self.groups.table.find(encoded.key(0)) {
            Some(group) => self.tell(&[group], out),
            None => Ok(()),
        }
    }

    /// Keeps rows until it is their turn.
    pub(super) fn wait(&mut self, rows: &Rows, picked: &Picked) -> Result<(), StreamError> {
        let mut columns = picked.columns.clone();
        columns.push(Arc::new(Int64Array::from(picked.untils.clone())));
        columns.push(Arc::new(Int64Array::from(picked.times.clone())));
        let by_mark = Rows { times: picked.marks.clone().into(), offsets: picked.offsets.clone().into(), ..take_rows(rows, &picked.rows)? };
        self.waiting.push(&by_mark, columns)
    }

    /// The rows whose turn has come once the watermark is here.
    pub(super) fn corrections(&mut self, at: i64, out: &mut Output) -> Result<(), StreamError> {
        for held in self.waiting.release(at)? {
            let width = self.arguments() + self.spec.keys.len();
            let extra = |place: usize| held.columns.get(width + place).and_then(ints_of_column);
            let (Some(untils), Some(times)) = (extra(0), extra(1)) else {
                return Err(StreamError::Limit("waiting rows have no time".to_owned()));
            };
            for row in 0..held.times.len() {
                let one = row..row + 1;
                let counted = Counted {
                    columns: held.columns[..width].iter().map(|column| column.slice(row, 1)).collect(),
                    times: &times[one.clone()],
                    marks: &held.times[one.clone()],
                    untils: &untils[one],
                    partition: held.partitions[row],
                };
                self.correct(&counted, out)?;
            }
        }
        Ok(())
    }
}
