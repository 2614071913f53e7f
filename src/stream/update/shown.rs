//! From the values of groups to what the reader of the results sees: HAVING, the SELECT list, and rows that are gone.
//!
//! Always: a group whose row the reader has, and which no longer passes or cannot be computed, is told as gone; one that
//! the reader has never seen is not.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::stream::rowwise::{arrow_error, row_as_json};
use crate::stream::stateless::FilterProject;
use crate::stream::window::{WindowColumn, as_type};
use crate::stream::{NO_OFFSET, Operator, Output, Rows, StreamError};

/// What rows that change go through on their way to the reader.
#[derive(Debug)]
pub struct Shown {
    /// Conditions and columns, in order.
    pub steps: Vec<FilterProject>,
    /// Which columns of the results make their key, and what of the group each of them is.
    pub keys: Vec<(usize, WindowColumn)>,
    /// The columns of the results.
    pub schema: SchemaRef,
}

impl Shown {
    /// Hands on what passes of the rows. Answers which do.
    pub(super) fn pass(&mut self, rows: &Rows, out: &mut Output) -> Result<Vec<bool>, StreamError> {
        let all = rows.len();
        // The offset says which row it is, through filters and failures.
        let mut these = vec![Rows { offsets: (0..all as i64).collect(), ..rows.clone() }];
        for step in &mut self.steps {
            let mut made = Output::default();
            for rows in &these {
                step.rows(rows, &mut made)?;
            }
            for mut failed in made.failed {
                failed.row = usize::try_from(failed.offset).ok().and_then(|row| row_as_json(&rows.batch.slice(row, 1)));
                failed.offset = NO_OFFSET;
                out.failed.push(failed);
            }
            these = made.rows;
        }
        let mut passed = vec![false; all];
        for rows in these.into_iter().filter(|rows| !rows.is_empty()) {
            for row in &rows.offsets {
                passed[*row as usize] = true;
            }
            out.rows.push(Rows { offsets: vec![NO_OFFSET; rows.len()].into(), ..rows });
        }
        Ok(passed)
    }

    /// Says that keys are gone: `like` has their times and places, `of` gives what of the groups a column is, one value each.
    pub(super) fn gone(
        &self,
        like: &Rows,
        of: impl Fn(WindowColumn) -> Result<ArrayRef, StreamError>,
        out: &mut Output,
    ) -> Result<(), StreamError> {
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (at, field) in self.schema.fields().iter().enumerate() {
            columns.push(match self.keys.iter().find(|(column, _)| *column == at) {
                Some((_, key)) => as_type(of(*key)?, field)?,
                None => new_null_array(field.data_type(), like.times.len()),
            });
            fields.push(Field::clone(field).with_nullable(true));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(like.times.len()));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options);
        let batch = batch.map_err(|e| arrow_error("the rows that are gone", &e))?;
        out.rows.push(Rows { batch, gone: true, ..like.clone() });
        Ok(())
    }
}
