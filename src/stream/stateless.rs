//! WHERE, HAVING and the SELECT list: a filter and a projection over expressions, without state.
//!
//! Always: offsets, times and marks stay with their rows; a row that fails goes aside alone; what is
//! projected is evaluated only for the rows that passed the filter.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{DataType, SchemaRef};

use super::element::{Output, Rows};
use super::operator::{Expr, Operator, StreamError};
use super::rowwise::{arrow_error, evaluate, row_by_row};
use crate::time::Timestamp;

/// Lets the rows through that pass, as the columns asked for.
#[derive(Debug)]
pub struct FilterProject {
    filter: Option<Arc<dyn Expr>>,
    columns: Option<Vec<Arc<dyn Expr>>>,
    schema: SchemaRef,
}

impl FilterProject {
    /// Rows for which `filter` is true (NULL is not), each as `columns`, or as they came where that is `None`.
    /// `schema` describes what comes out.
    #[must_use]
    pub const fn new(filter: Option<Arc<dyn Expr>>, columns: Option<Vec<Arc<dyn Expr>>>, schema: SchemaRef) -> Self {
        Self { filter, columns, schema }
    }

    fn passed(&self, rows: &Rows, out: &mut Output) -> Result<Vec<Rows>, StreamError> {
        let Some(condition) = &self.filter else { return Ok(vec![rows.clone()]) };
        let judged = row_by_row(rows, &mut |batch| condition_of(condition.as_ref(), batch), &mut out.failed)?;
        let kept = judged.into_iter().map(|(rows, pass)| keep(rows, &pass)).collect::<Result<Vec<_>, _>>()?;
        Ok(kept.into_iter().filter(|rows| !rows.is_empty()).collect())
    }

    fn project(&self, columns: &[Arc<dyn Expr>], batch: &RecordBatch) -> Result<RecordBatch, StreamError> {
        let mut made = Vec::with_capacity(columns.len());
        for (expr, field) in columns.iter().zip(self.schema.fields()) {
            let column = evaluate(expr.as_ref(), batch)?;
            if column.data_type() != field.data_type() {
                let (is, should) = (column.data_type(), field.data_type());
                return Err(StreamError::Limit(format!("{} gave {is} where the plan says {should}", expr.text())));
            }
            if !field.is_nullable() && column.logical_null_count() > 0 {
                let why = "NULL in a column that is NOT NULL".to_owned();
                return Err(StreamError::Evaluate { what: expr.text(), why });
            }
            made.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let made = RecordBatch::try_new_with_options(Arc::clone(&self.schema), made, &options);
        made.map_err(|e| StreamError::Limit(format!("the SELECT list does not fit its plan: {e}")))
    }
}

impl Operator for FilterProject {
    fn name(&self) -> &'static str {
        if self.filter.is_some() { "filter" } else { "project" }
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        for passed in self.passed(rows, out)? {
            let Some(columns) = &self.columns else {
                out.rows.push(passed);
                continue;
            };
            let projected = row_by_row(&passed, &mut |batch| self.project(columns, batch), &mut out.failed)?;
            out.rows.extend(projected.into_iter().map(|(rows, batch)| Rows { batch, ..rows }));
        }
        Ok(())
    }

    fn watermark(&mut self, _at: Timestamp, _out: &mut Output) -> Result<(), StreamError> {
        Ok(())
    }

    fn reach_ms(&self) -> Option<i64> {
        Some(0)
    }
}

/// A boolean expression over a batch, NULL read as false.
pub(super) fn condition_of(expr: &dyn Expr, batch: &RecordBatch) -> Result<BooleanArray, StreamError> {
    let column: ArrayRef = evaluate(expr, batch)?;
    match column.data_type() {
        DataType::Boolean if column.null_count() == 0 => Ok(column.as_boolean().clone()),
        DataType::Boolean => Ok(prep_null_mask_filter(column.as_boolean())),
        DataType::Null => Ok(BooleanArray::from(vec![false; column.len()])),
        other => Err(StreamError::Limit(format!("{} is a condition and gave {other}", expr.text()))),
    }
}

fn keep(rows: Rows, pass: &BooleanArray) -> Result<Rows, StreamError> {
    let passing = pass.true_count();
    if passing == rows.len() {
        return Ok(rows);
    }
    if passing == 0 {
        return Ok(rows.slice(0, 0));
    }
    let error = |e| arrow_error("the filter", &e);
    let kept = filter_record_batch(&rows.batch, pass).map_err(error)?;
    Ok(rows.picked(kept, |values| pass.values().set_indices().map(|row| values[row]).collect()))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::stream::doubles::{Below, Column, Hundredth, Partition, check_always, reading_schema};
    use crate::stream::{Chain, NO_OFFSET};

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("key", DataType::Utf8, true), Field::new("h", DataType::Float64, true)]))
    }

    fn chain(filter: Option<Arc<dyn Expr>>) -> Chain {
        let columns: Vec<Arc<dyn Expr>> = vec![Arc::new(Column(0)), Arc::new(Hundredth(2))];
        Chain::new(vec![Box::new(FilterProject::new(filter, Some(columns), schema()))])
    }

    fn input() -> Partition {
        let a = |at: i64, value: Option<f64>| ("ann", Some(at), value);
        Partition::new(0, 100, &[a(0, Some(1.0)), a(1, Some(0.0)), a(2, None), a(3, Some(4.0)), a(4, Some(50.0)), a(5, Some(0.0))])
    }

    #[test]
    fn failing_rows_go_aside_and_those_beside_them_go_on() {
        let told = check_always(&|| chain(None), &[input()], false);
        assert_eq!(told.rows, ["ann 100.0", "ann -", "ann 25.0", "ann 2.0"]);
        let why = "could not evaluate 100 / value: division by zero";
        assert_eq!(told.others, [format!("p0@1 {why}"), format!("p0@5 {why}")]);
    }

    #[test]
    fn a_filter_lets_true_pass_and_neither_false_nor_null_and_guards_the_projection() {
        let told = check_always(&|| chain(Some(Arc::new(Below(2, 10.0)))), &[input()], false);
        assert_eq!(told.rows, ["ann 100.0", "ann 25.0"]);
        let mut all = FilterProject::new(Some(Arc::new(Below(2, 0.0))), None, reading_schema());
        let mut out = Output::default();
        all.rows(input().rows(), &mut out).unwrap();
        assert!(out.rows.is_empty());
    }

    #[test]
    fn offsets_times_and_marks_stay_with_their_rows() {
        let mut pass = FilterProject::new(Some(Arc::new(Below(2, 10.0))), None, reading_schema());
        let mut out = Output::default();
        pass.rows(input().rows(), &mut out).unwrap();
        let rows = &out.rows[0];
        assert_eq!(rows.offsets.to_vec(), [0, 1, 3, 5]);
        assert_eq!(rows.times.to_vec(), [0, 1, 3, 5]);
        assert_eq!(rows.before.to_vec(), [i64::MIN, -100, -98, -96]);
    }

    #[test]
    fn a_failed_result_row_which_no_record_stands_for_is_kept_as_json() {
        let mut rows = input().rows().slice(1, 1);
        rows.offsets = vec![NO_OFFSET].into();
        let mut out = Output::default();
        chain(None).rows(&rows, &mut out).unwrap();
        let json = String::from_utf8(out.failed[0].row.clone().unwrap()).unwrap();
        assert!(json.starts_with("{\"key\":\"ann\"") && json.ends_with('}'), "{json}");
    }

    #[test]
    fn null_in_a_column_that_may_have_none_is_a_failed_row() {
        let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Float64, false)]));
        let make = || Chain::new(vec![Box::new(FilterProject::new(None, Some(vec![Arc::new(Column(2))]), Arc::clone(&schema))) as _]);
        let told = check_always(&make, &[input()], false);
        assert_eq!(told.rows.len(), 5);
        assert_eq!(told.others, ["p0@2 could not evaluate column 2: a NULL where none may be"]);
    }
}
