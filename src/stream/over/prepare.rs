//! From rows that have left the reorder buffer to columns an operator works with.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::SchemaRef;

use crate::record::PartitionId;
use crate::stream::keyed::Held;
use crate::stream::rowwise::{arrow_error, row_as_json, row_by_row};
use crate::stream::{FailedRow, NO_OFFSET, Output, Rows, StreamError};

/// Rows, and what was evaluated over them.
pub(in crate::stream) struct Prepared {
    pub held: Held,
    pub batch: RecordBatch,
    pub columns: Vec<ArrayRef>,
}

/// Evaluates over the rows as one batch of this schema; rows that cannot be evaluated go to `failed` and out of the batch.
pub(in crate::stream) fn prepared(
    held: Held,
    schema: &SchemaRef,
    evaluate: &dyn Fn(&RecordBatch) -> Result<Vec<ArrayRef>, StreamError>,
    out: &mut Output,
) -> Result<Prepared, StreamError> {
    let batch_of = |held: &Held| {
        let batch = RecordBatch::try_new(SchemaRef::clone(schema), held.columns.clone());
        batch.map_err(|e| arrow_error("the reordered rows", &e))
    };
    let batch = batch_of(&held)?;
    match evaluate(&batch) {
        Ok(columns) => return Ok(Prepared { held, batch, columns }),
        Err(StreamError::Evaluate { .. }) => {}
        Err(other) => return Err(other),
    }
    // Rows are named by their place in the batch until it is known which of them fail.
    let places: ScalarBuffer<i64> = (0..held.len() as i64).collect();
    let times: ScalarBuffer<i64> = held.times.clone().into();
    let rows = Rows { batch, partition: PartitionId(0), offsets: places, times: times.clone(), before: times, heard: None, gone: false };
    let mut failed = Vec::new();
    let good = row_by_row(&rows, &mut |batch| evaluate(batch).map(|_| ()), &mut failed)?;
    for row in failed {
        out.failed.push(failed_at(&held, &rows.batch, row.offset as usize, row.reason));
    }
    let good: Vec<u32> = good.iter().flat_map(|(rows, ())| rows.offsets.iter().map(|place| *place as u32)).collect();
    let held = held.picked(&good)?;
    let batch = batch_of(&held)?;
    let columns = evaluate(&batch)?;
    Ok(Prepared { held, batch, columns })
}

/// The row at this place of the batch as one that failed.
pub(in crate::stream) fn failed_at(held: &Held, batch: &RecordBatch, row: usize, reason: String) -> FailedRow {
    let offset = held.offsets[row];
    let json = if offset == NO_OFFSET { row_as_json(&batch.slice(row, 1)) } else { None };
    FailedRow { partition: PartitionId(held.partitions[row]), offset, reason, row: json }
}
