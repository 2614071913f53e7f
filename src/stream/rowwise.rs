//! Evaluating expressions so that a failing row never takes its neighbours along.
//!
//! A batch is evaluated whole; only where that fails is it halved, again and again, until the failing rows
//! stand alone. Always: the good rows come back in their order, and which rows fail does not depend on how
//! they were cut into batches. A failed row's reason names the expression and the kind of failure, never a
//! value: patient data stays out of it. Called by every operator that evaluates expressions.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{cast, take, take_record_batch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;

use super::element::{FailedRow, NO_OFFSET, Rows};
use super::operator::{Expr, StreamError};

/// Good rows and what was made of them.
pub(super) type Evaluated<T> = Vec<(Rows, T)>;

/// Evaluates `make` over the rows. Answers runs of good rows, in order, each with its result; the others are
/// added to `failed`. Only an error that is not [`StreamError::Evaluate`] ends the query.
pub(super) fn row_by_row<T>(
    rows: &Rows,
    make: &mut dyn FnMut(&RecordBatch) -> Result<T, StreamError>,
    failed: &mut Vec<FailedRow>,
) -> Result<Evaluated<T>, StreamError> {
    let mut good = Vec::new();
    halve(rows, make, &mut good, failed)?;
    Ok(good)
}

fn halve<T>(
    rows: &Rows,
    make: &mut dyn FnMut(&RecordBatch) -> Result<T, StreamError>,
    good: &mut Evaluated<T>,
    failed: &mut Vec<FailedRow>,
) -> Result<(), StreamError> {
    if rows.is_empty() {
        return Ok(());
    }
    match make(&rows.batch) {
        Ok(made) => good.push((rows.clone(), made)),
        Err(StreamError::Evaluate { what, why }) if rows.len() == 1 => failed.push(failed_row(rows, &what, &why)),
        Err(StreamError::Evaluate { .. }) => {
            let half = rows.len() / 2;
            halve(&rows.slice(0, half), make, good, failed)?;
            halve(&rows.slice(half, rows.len() - half), make, good, failed)?;
        }
        Err(other) => return Err(other),
    }
    Ok(())
}

/// One expression over a batch, with its own text in the error, and checked to give one value a row.
pub(super) fn evaluate(expr: &dyn Expr, batch: &RecordBatch) -> Result<ArrayRef, StreamError> {
    let column = expr.evaluate(batch).map_err(|error| match error {
        StreamError::Evaluate { why, .. } => StreamError::Evaluate { what: expr.text(), why },
        other => other,
    })?;
    if column.len() == batch.num_rows() {
        return Ok(column);
    }
    Err(StreamError::Limit(format!("{} gave {} values for {} rows", expr.text(), column.len(), batch.num_rows())))
}

/// One expression over a batch as [`evaluate`] gives it, dictionaries unpacked: for what is encoded and kept.
pub(super) fn evaluate_flat(expr: &dyn Expr, batch: &RecordBatch) -> Result<ArrayRef, StreamError> {
    let column = evaluate(expr, batch)?;
    match column.data_type() {
        DataType::Dictionary(_, values) => cast(&column, values).map_err(|e| arrow_error(&expr.text(), &e)),
        _ => Ok(column),
    }
}

/// What arrow refused, as an error of the query that names where.
pub(super) fn arrow_error(what: &str, error: &ArrowError) -> StreamError {
    StreamError::Evaluate { what: what.to_owned(), why: error.to_string() }
}

/// The rows at `indices`, in that order.
pub(super) fn take_rows(rows: &Rows, indices: &[u32]) -> Result<Rows, StreamError> {
    let picked = UInt32Array::from(indices.to_vec());
    let batch = take_record_batch(&rows.batch, &picked).map_err(|e| arrow_error("a selection of rows", &e))?;
    let of = |values: &ScalarBuffer<i64>| indices.iter().map(|i| values[*i as usize]).collect::<ScalarBuffer<i64>>();
    Ok(rows.picked(batch, of))
}

/// The values at `indices`, in that order.
pub(super) fn take_column(column: &ArrayRef, indices: &UInt32Array) -> Result<ArrayRef, StreamError> {
    take(column, indices, None).map_err(|e| arrow_error("a selection of rows", &e))
}

fn failed_row(rows: &Rows, what: &str, why: &str) -> FailedRow {
    let mut reason = format!("could not evaluate {what}");
    if let Some(kind) = kind_of(why) {
        let _ = write!(reason, ": {kind}");
    }
    let row = if rows.offsets[0] == NO_OFFSET { row_as_json(&rows.batch) } else { None };
    FailedRow { partition: rows.partition, offset: rows.offsets[0], reason, row }
}

/// The library's message may quote the row's values, so only its kind is kept.
fn kind_of(why: &str) -> Option<&'static str> {
    let why = why.to_ascii_lowercase();
    let kinds = [
        ("divide by zero", "division by zero"),
        ("division by zero", "division by zero"),
        ("overflow", "overflow"),
        ("out of range", "out of range"),
        ("null", "a NULL where none may be"),
        ("cast", "a value that cannot be cast"),
        ("pars", "a text that cannot be read"),
    ];
    kinds.iter().find(|(word, _)| why.contains(word)).map(|(_, kind)| *kind)
}

pub(super) fn row_as_json(batch: &RecordBatch) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut line);
    writer.write(batch).and_then(|()| writer.finish()).ok()?;
    drop(writer);
    while line.last() == Some(&b'\n') {
        line.pop();
    }
    Some(line)
}
