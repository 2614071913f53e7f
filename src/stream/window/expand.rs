//! TUMBLE, HOP and CUMULATE without an aggregate: each row once for every window it lies in, the window beside it.
//!
//! Without state. Always: a row's copies follow one another, the earliest window first, and keep the row's
//! offset, time and mark. Nothing closes here, so no row is late, but one without an event time is.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMillisecondArray, UInt32Array};
use arrow::datatypes::SchemaRef;

use super::aggregate::as_type;
use super::assign::WindowRule;
use crate::stream::rowwise::{arrow_error, take_column};
use crate::stream::{Aside, AsideRow, Operator, Output, Rows, StreamError};
use crate::time::Timestamp;

/// What a column of the expanded rows is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpandColumn {
    /// The input column with this place.
    Input(usize),
    /// The start of the window.
    WindowStart,
    /// The end of the window.
    WindowEnd,
    /// The last millisecond inside the window.
    WindowTime,
}

/// The operator.
#[derive(Debug)]
pub struct WindowExpand {
    rule: WindowRule,
    columns: Vec<ExpandColumn>,
    schema: SchemaRef,
}

impl WindowExpand {
    /// Rows with `columns`, which are those of `schema`. Window columns are timestamps of any unit.
    #[must_use]
    pub const fn new(rule: WindowRule, columns: Vec<ExpandColumn>, schema: SchemaRef) -> Self {
        Self { rule, columns, schema }
    }

    fn column(&self, what: ExpandColumn, rows: &Rows, picked: Option<&UInt32Array>, ends: &[i64]) -> Result<ArrayRef, StreamError> {
        let times = |less: i64| Arc::new(TimestampMillisecondArray::from_iter_values(ends.iter().map(|end| end - less))) as ArrayRef;
        match (what, picked) {
            (ExpandColumn::Input(place), None) => Ok(ArrayRef::clone(rows.batch.column(place))),
            (ExpandColumn::Input(place), Some(picked)) => take_column(rows.batch.column(place), picked),
            (ExpandColumn::WindowStart, _) => {
                Ok(Arc::new(TimestampMillisecondArray::from_iter_values(ends.iter().map(|end| self.rule.start_of(*end)))))
            }
            (ExpandColumn::WindowEnd, _) => Ok(times(0)),
            (ExpandColumn::WindowTime, _) => Ok(times(1)),
        }
    }
}

impl Operator for WindowExpand {
    fn name(&self) -> &'static str {
        "expand"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        let (mut picked, mut ends) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for (row, at) in rows.times.iter().enumerate() {
            if !self.rule.places(*at) {
                out.aside.push(AsideRow { partition: rows.partition, offset: rows.offsets[row], why: Aside::Late });
                continue;
            }
            for span in self.rule.spans(*at) {
                picked.push(row as u32);
                ends.push(span.end.0);
            }
        }
        let each_once = picked.len() == rows.len() && picked.iter().enumerate().all(|(place, row)| place == *row as usize);
        let picked = UInt32Array::from(picked);
        let taken = (!each_once).then_some(&picked);
        let mut columns = Vec::with_capacity(self.columns.len());
        for (what, field) in self.columns.iter().zip(self.schema.fields()) {
            columns.push(as_type(self.column(*what, rows, taken, &ends)?, field)?);
        }
        if ends.is_empty() {
            return Ok(());
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| arrow_error("the windows of rows", &e))?;
        out.rows.push(rows.picked(batch, |values| picked.values().iter().map(|row| values[*row as usize]).collect()));
        Ok(())
    }

    fn watermark(&mut self, _at: Timestamp, _out: &mut Output) -> Result<(), StreamError> {
        Ok(())
    }
}
