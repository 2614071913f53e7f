//! LAG and LOCF: functions that remember values of any type.
//!
//! A remembered value is its row encoding; while a batch is worked on, values of the batch itself are
//! remembered by their row, so nothing is copied that does not outlive it.

use std::collections::VecDeque;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::row::{RowConverter, SortField};

use super::machine::{Machine, Run, memory_batch, memory_columns};
use crate::stream::StreamError;
use crate::stream::rowwise::arrow_error;

/// Which function.
#[derive(Clone, Copy, Debug)]
pub(super) enum Recall {
    /// The value so many readings of the key ago; the second argument where there is none.
    Lag(usize),
    /// The last value that is not NULL, if it is at most this old.
    Locf(i64),
}

/// The function with every key's values.
pub(super) struct Memory {
    recall: Recall,
    converter: Option<RowConverter>,
    past: Vec<VecDeque<(i64, Value)>>,
}

#[derive(Clone)]
enum Value {
    /// Outlives the batch.
    Kept(Box<[u8]>),
    /// A row of the batch that is being worked on.
    Here(u32),
}

impl Memory {
    pub(super) const fn new(recall: Recall) -> Self {
        Self { recall, converter: None, past: Vec::new() }
    }
}

fn error(e: &arrow::error::ArrowError) -> StreamError {
    arrow_error("a remembered value", e)
}

impl Machine for Memory {
    fn grow(&mut self, slots: usize) {
        if self.past.len() < slots {
            self.past.resize(slots, VecDeque::new());
        }
    }

    fn forget(&mut self, slot: u32) {
        self.past[slot as usize] = VecDeque::new();
    }

    fn run(&mut self, run: &Run<'_>, arguments: &[ArrayRef]) -> Result<ArrayRef, StreamError> {
        let column = &arguments[0];
        if self.converter.is_none() {
            self.converter = Some(RowConverter::new(vec![SortField::new(column.data_type().clone())]).map_err(|e| error(&e))?);
        }
        let converter = self.converter.as_mut().expect("it was just made");
        let values = converter.convert_columns(std::slice::from_ref(column)).map_err(|e| error(&e))?;
        let fallback = arguments.get(1).map(|default| converter.convert_columns(std::slice::from_ref(default)).map_err(|e| error(&e)));
        let fallback = fallback.transpose()?;
        let nothing = converter.convert_columns(&[arrow::array::new_null_array(column.data_type(), 1)]).map_err(|e| error(&e))?;
        let parser = converter.parser();
        let nulls = column.logical_nulls();
        // Each answer is a value of this batch, or one kept from before; kept ones are moved out of reach of
        // the deque by copying, which happens at most once a key and batch for each row that needs one.
        let mut answers: Vec<Answer> = Vec::with_capacity(run.slots.len());
        for (row, slot) in run.slots.iter().enumerate() {
            let past = &mut self.past[*slot as usize];
            if run.fresh[row] {
                past.clear();
            }
            let (at, here) = (run.times[row], Value::Here(row as u32));
            answers.push(match self.recall {
                Recall::Lag(0) => Answer::Here(row as u32),
                Recall::Lag(n) => {
                    let answer = past.len().checked_sub(n).map_or(Answer::Fallback, |place| Answer::of(&past[place].1));
                    past.push_back((at, here));
                    if past.len() > n {
                        past.pop_front();
                    }
                    answer
                }
                Recall::Locf(ttl) => {
                    if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                        past.clear();
                        past.push_back((at, here));
                    }
                    past.back().filter(|(then, _)| at - then <= ttl).map_or(Answer::Nothing, |(_, value)| Answer::of(value))
                }
            });
        }
        let rows = answers.iter().enumerate().map(|(row, answer)| match answer {
            Answer::Here(at) => values.row(*at as usize),
            Answer::Kept(bytes) => parser.parse(bytes),
            Answer::Fallback => fallback.as_ref().map_or_else(|| nothing.row(0), |fallback| fallback.row(row)),
            Answer::Nothing => nothing.row(0),
        });
        let made = converter.convert_rows(rows).map_err(|e| error(&e))?.swap_remove(0);
        for slot in run.slots {
            for (_, value) in &mut self.past[*slot as usize] {
                if let Value::Here(row) = value {
                    *value = Value::Kept(values.row(*row as usize).data().into());
                }
            }
        }
        Ok(made)
    }

    fn save(&self, slots: &[u32]) -> Result<RecordBatch, StreamError> {
        let (mut keys, mut times, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for (key, slot) in slots.iter().enumerate() {
            for (at, value) in &self.past[*slot as usize] {
                if let Value::Kept(bytes) = value {
                    keys.push(key as u32);
                    times.push(*at);
                    kept.push(bytes);
                }
            }
        }
        let values = match &self.converter {
            Some(converter) => {
                let parser = converter.parser();
                converter.convert_rows(kept.iter().map(|bytes| parser.parse(bytes))).map_err(|e| error(&e))?.swap_remove(0)
            }
            None => arrow::array::new_empty_array(&arrow::datatypes::DataType::Null),
        };
        memory_batch(keys, times, values)
    }

    fn restore(&mut self, batch: &RecordBatch) -> Option<()> {
        let (keys, times, values) = memory_columns(batch)?;
        if keys.is_empty() {
            return Some(());
        }
        let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())]).ok()?;
        let encoded = converter.convert_columns(std::slice::from_ref(values)).ok()?;
        for (row, (key, at)) in keys.iter().zip(times).enumerate() {
            self.past.get_mut(*key as usize)?.push_back((*at, Value::Kept(encoded.row(row).data().into())));
        }
        self.converter = Some(converter);
        Some(())
    }

    fn bytes(&self) -> usize {
        let of = |(_, value): &(i64, Value)| match value {
            Value::Kept(bytes) => bytes.len() + 32,
            Value::Here(_) => 32,
        };
        self.past.iter().map(|past| 32 + past.iter().map(of).sum::<usize>()).sum()
    }
}

enum Answer {
    Here(u32),
    Kept(Box<[u8]>),
    Fallback,
    Nothing,
}

impl Answer {
    fn of(value: &Value) -> Self {
        match value {
            Value::Kept(bytes) => Self::Kept(bytes.clone()),
            Value::Here(row) => Self::Here(*row),
        }
    }
}
