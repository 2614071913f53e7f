//! From row numbers to result rows.
//!
//! A join collects [`Entry`]s, which row meets which, in the order of the result; this puts their columns together,
//! many entries at a time. Always: what comes out is in the order of the entries, each with the event time it was
//! given and with the point in event time at which the join found it, less the join's hold, as the watermark before it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef;

use super::blocks::Blocks;
use crate::record::PartitionId;
use crate::stream::rowwise::{arrow_error, evaluate, row_by_row};
use crate::stream::{Expr, FailedRow, NO_OFFSET, Rows, StreamError};

/// One row of the result: who meets whom, or who has met nobody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// A row of each side, by number.
    pub rows: [Option<u64>; 2],
    /// When, in event time, it was found.
    pub at: i64,
    /// Its own event time.
    pub time: i64,
}

impl Entry {
    pub(super) const fn is_pair(&self) -> bool {
        self.rows[0].is_some() && self.rows[1].is_some()
    }
}

/// The columns of one side for some entries; NULL where an entry has no row of it.
fn columns(of: &Blocks, rows: &[Option<u64>], schema: &SchemaRef) -> Result<Vec<ArrayRef>, StreamError> {
    if rows.iter().all(Option::is_none) {
        return Ok(schema.fields().iter().map(|field| new_null_array(field.data_type(), rows.len())).collect());
    }
    of.rows(rows, schema.fields().len(), |at| new_null_array(schema.field(at).data_type(), 1))
}

/// Both sides' columns for some pairs, and which of them the condition takes. A pair whose condition fails goes to `failed`.
pub(super) fn judge(
    sides: [&Blocks; 2],
    inputs: &[SchemaRef; 2],
    pairs: &[[Option<u64>; 2]],
    condition: &dyn Expr,
    schema: &SchemaRef,
    failed: &mut Vec<FailedRow>,
) -> Result<Vec<bool>, StreamError> {
    let mut taken = vec![false; pairs.len()];
    if pairs.is_empty() {
        return Ok(taken);
    }
    let mut all = Vec::with_capacity(schema.fields().len());
    for side in 0..2 {
        let rows: Vec<Option<u64>> = pairs.iter().map(|pair| pair[side]).collect();
        all.extend(columns(sides[side], &rows, &inputs[side])?);
    }
    let numbers: Vec<i64> = (0..pairs.len() as i64).collect();
    let rows = Rows {
        batch: batch(schema, all, pairs.len())?,
        partition: PartitionId(0),
        offsets: vec![NO_OFFSET; pairs.len()].into(),
        // Which pair it is, for a batch may come back in parts.
        times: numbers.clone().into(),
        before: numbers.into(),
        heard: None,
        gone: false,
    };
    for (rows, verdicts) in row_by_row(&rows, &mut |batch| evaluate(condition, batch), failed)? {
        let verdicts =
            verdicts.as_boolean_opt().ok_or_else(|| StreamError::Limit("the condition of a join is not a boolean".to_owned()))?;
        for (row, pair) in rows.times.iter().enumerate() {
            taken[*pair as usize] = verdicts.is_valid(row) && verdicts.value(row);
        }
    }
    Ok(taken)
}

/// Entries as rows of the result.
pub(super) fn rows(
    sides: [&Blocks; 2],
    inputs: &[SchemaRef; 2],
    shows: [bool; 2],
    entries: &[Entry],
    hold_ms: i64,
    schema: &SchemaRef,
) -> Result<Rows, StreamError> {
    let mut all = Vec::with_capacity(schema.fields().len());
    for side in (0..2).filter(|side| shows[*side]) {
        let rows: Vec<Option<u64>> = entries.iter().map(|entry| entry.rows[side]).collect();
        all.extend(columns(sides[side], &rows, &inputs[side])?);
    }
    Ok(Rows {
        batch: batch(schema, all, entries.len())?,
        partition: PartitionId(0),
        offsets: vec![NO_OFFSET; entries.len()].into(),
        times: entries.iter().map(|entry| entry.time).collect(),
        before: entries.iter().map(|entry| entry.at.saturating_sub(hold_ms)).collect(),
        heard: None,
        gone: false,
    })
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, StreamError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|e| arrow_error("the rows of a join", &e))
}
