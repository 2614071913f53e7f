//! Expressions of a query over DataFusion's `PhysicalExpr`: what `stream::Expr` is made of here.
//!
//! Always: integer arithmetic fails on overflow instead of wrapping, equal expressions of one query are one
//! object ([`Exprs`]), and what an error says holds no value of a row. Made by `lower`, run by the operators.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr as LogicalExpr, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::sql::unparser::expr_to_sql;

use super::session::Session;
use crate::stream::{Expr, StreamError};

/// One planned expression.
pub struct PlannedExpr {
    inner: Arc<dyn PhysicalExpr>,
    text: String,
}

impl PlannedExpr {
    /// Plans a logical expression over the columns of `schema`.
    pub fn plan(session: &Session, expr: &LogicalExpr, schema: &DFSchema) -> DfResult<Arc<Self>> {
        let physical = create_physical_expr(expr, schema, session.props(), &PhysicalPlanningContext::default())?;
        let physical = with_plain_intervals(physical, schema.as_arrow())?;
        Ok(Arc::new(Self { inner: checked(physical)?, text: plain_text(expr, schema) }))
    }

    /// An expression that is planned already, known to the user as `text`.
    pub fn of(inner: Arc<dyn PhysicalExpr>, text: impl Into<String>) -> DfResult<Self> {
        Ok(Self { inner: checked(inner)?, text: text.into() })
    }

    /// The index of the column, where the expression is nothing but one.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        let any: &dyn Any = self.inner.as_ref();
        any.downcast_ref::<Column>().map(Column::index)
    }
}

impl fmt::Debug for PlannedExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expr for PlannedExpr {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, StreamError> {
        let value = self.inner.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
        value.map_err(|e| StreamError::Evaluate { what: self.text.clone(), why: reason(&e) })
    }

    fn text(&self) -> String {
        self.text.clone()
    }
}

/// The distinct expressions of one operator, so that equal ones are evaluated once (`Arc::ptr_eq`).
#[derive(Default)]
pub struct Exprs {
    known: HashMap<Arc<dyn PhysicalExpr>, Arc<dyn Expr>>,
}

impl Exprs {
    /// The one object for a logical expression over the columns of `schema`.
    pub fn plan(&mut self, session: &Session, expr: &LogicalExpr, schema: &DFSchema) -> DfResult<Arc<dyn Expr>> {
        let physical = create_physical_expr(expr, schema, session.props(), &PhysicalPlanningContext::default())?;
        self.named(&with_plain_intervals(physical, schema.as_arrow())?, plain_text(expr, schema))
    }

    /// The one object for this expression.
    pub fn share(&mut self, physical: &Arc<dyn PhysicalExpr>) -> DfResult<Arc<dyn Expr>> {
        self.named(physical, without_places(&physical.to_string()))
    }

    fn named(&mut self, physical: &Arc<dyn PhysicalExpr>, text: String) -> DfResult<Arc<dyn Expr>> {
        if let Some(known) = self.known.get(physical) {
            return Ok(Arc::clone(known));
        }
        let planned: Arc<dyn Expr> = Arc::new(PlannedExpr::of(Arc::clone(physical), text)?);
        self.known.insert(Arc::clone(physical), Arc::clone(&planned));
        Ok(planned)
    }
}

/// An expression as its writer would know it: without its alias, and columns without the names of their tables.
pub(super) fn plain_text(expr: &LogicalExpr, schema: &DFSchema) -> String {
    let mut text = expr.clone().unalias().human_display().to_string();
    let mut seen = Vec::new();
    for qualifier in schema.iter().filter_map(|(qualifier, _)| qualifier) {
        if !seen.contains(&qualifier) {
            text = text.replace(&format!("{qualifier}."), "");
            seen.push(qualifier);
        }
    }
    text
}

/// An expression as SQL writes it, its columns without their relations: what an error says.
pub(super) fn sql_text(expr: &LogicalExpr, schema: &DFSchema) -> String {
    let Ok(written) = expr_to_sql(expr) else { return plain_text(expr, schema) };
    let mut text = written.to_string();
    for qualifier in schema.iter().filter_map(|(qualifier, _)| qualifier) {
        text = text.replace(&format!("{qualifier}."), "");
    }
    text
}

/// The text of a physical expression without the places of its columns: `hr@3 > 1` is `hr > 1`.
fn without_places(text: &str) -> String {
    let mut pieces = text.split('@');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |out, piece| {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        let sign = if rest.len() == piece.len() { "@" } else { "" };
        out + sign + rest
    })
}

/// The same expression, its integer arithmetic failing on overflow.
fn checked(expr: Arc<dyn PhysicalExpr>) -> DfResult<Arc<dyn PhysicalExpr>> {
    let checked = expr.transform_up(|node| {
        let any: &dyn Any = node.as_ref();
        let Some(binary) = any.downcast_ref::<BinaryExpr>() else { return Ok(Transformed::no(node)) };
        let strict = BinaryExpr::new(Arc::clone(binary.left()), *binary.op(), Arc::clone(binary.right())).with_fail_on_overflow(true);
        Ok(Transformed::yes(Arc::new(strict)))
    });
    Ok(checked?.data)
}

/// The same expression, in which an interval of a fixed length that is added to a time without a zone is a number of the time's unit.
/// Otherwise each row goes through a calendar: ten times the work for the same sum.
fn with_plain_intervals(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> DfResult<Arc<dyn PhysicalExpr>> {
    let plain = expr.transform_up(|node| {
        let any: &dyn Any = node.as_ref();
        let Some(sum) = any.downcast_ref::<BinaryExpr>().filter(|b| matches!(b.op(), Operator::Plus | Operator::Minus)) else {
            return Ok(Transformed::no(node));
        };
        let (DataType::Timestamp(unit, None), Some(interval)) = (sum.left().data_type(schema)?, literal(sum.right())) else {
            return Ok(Transformed::no(node));
        };
        let Some(length) = plain_interval(interval, unit) else { return Ok(Transformed::no(node)) };
        Ok(Transformed::yes(Arc::new(BinaryExpr::new(Arc::clone(sum.left()), *sum.op(), Arc::new(Literal::new(length))))))
    });
    Ok(plain?.data)
}

fn literal(expr: &Arc<dyn PhysicalExpr>) -> Option<&ScalarValue> {
    let any: &dyn Any = expr.as_ref();
    any.downcast_ref::<Literal>().map(Literal::value)
}

/// An interval without months, as a whole number of `unit`.
fn plain_interval(interval: &ScalarValue, unit: TimeUnit) -> Option<ScalarValue> {
    let nanos = match interval {
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.months == 0 => i128::from(i.days) * 86_400_000_000_000 + i128::from(i.nanoseconds),
        ScalarValue::IntervalDayTime(Some(i)) => i128::from(i.days) * 86_400_000_000_000 + i128::from(i.milliseconds) * 1_000_000,
        _ => return None,
    };
    let (one, of): (i128, fn(Option<i64>) -> ScalarValue) = match unit {
        TimeUnit::Second => (1_000_000_000, ScalarValue::DurationSecond),
        TimeUnit::Millisecond => (1_000_000, ScalarValue::DurationMillisecond),
        TimeUnit::Microsecond => (1000, ScalarValue::DurationMicrosecond),
        TimeUnit::Nanosecond => (1, ScalarValue::DurationNanosecond),
    };
    let count = (nanos % one == 0).then(|| i64::try_from(nanos / one).ok())??;
    Some(of(Some(count)))
}

/// A column cast to a type; a value that does not fit fails its row.
pub(super) fn cast_column(schema: &Schema, at: usize, to: &DataType) -> DfResult<Arc<dyn Expr>> {
    let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(at).name(), at));
    let cast = datafusion::physical_expr::expressions::cast(column, schema, to.clone())?;
    Ok(Arc::new(PlannedExpr::of(cast, schema.field(at).name())?))
}

/// A NULL of a type.
pub(super) fn null_column(of: &DataType) -> DfResult<Arc<dyn Expr>> {
    Ok(Arc::new(PlannedExpr::of(Arc::new(Literal::new(ScalarValue::try_from(of)?)), "NULL")?))
}

/// Why an evaluation failed, without the values of the row: the library quotes them.
pub(super) fn reason(error: &DataFusionError) -> String {
    let fixed = match error.find_root() {
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            ArrowError::DivideByZero => "division by zero",
            ArrowError::ArithmeticOverflow(_) => "a number does not fit its type",
            ArrowError::CastError(_) => "a value cannot be converted to the type it is cast to",
            ArrowError::ParseError(_) => "a text cannot be read as the type it is cast to",
            ArrowError::InvalidArgumentError(_) => "an argument is not one the function takes",
            ArrowError::ComputeError(_) => "the computation failed for a value",
            _ => "the value could not be computed",
        },
        DataFusionError::Execution(_) => "a function does not take one of the values",
        DataFusionError::ResourcesExhausted(_) => "it needs more memory than there is",
        DataFusionError::NotImplemented(_) => "the function is not built for these types",
        _ => "the value could not be computed",
    };
    fixed.to_owned()
}

#[cfg(test)]
mod tests {
    use arrow::array::{TimestampMillisecondArray, TimestampSecondArray};
    use arrow::datatypes::{Field, IntervalMonthDayNano};

    use super::*;

    #[test]
    fn a_fixed_interval_is_added_as_a_number_and_gives_what_the_calendar_gives() {
        let millis = [0, 1, -1, -86_400_001, 951_782_400_000, 1_709_164_799_999, 4_102_444_800_000];
        let seconds = millis.map(|ms: i64| ms.div_euclid(1000));
        let columns: [ArrayRef; 2] = [
            Arc::new(TimestampMillisecondArray::from_iter(millis.map(Some).into_iter().chain([None]))),
            Arc::new(TimestampSecondArray::from_iter(seconds.map(Some).into_iter().chain([None]))),
        ];
        for (column, half_a_second_fits) in columns.into_iter().zip([true, false]) {
            let schema = Schema::new(vec![Field::new("ts", column.data_type().clone(), true)]);
            let batch = RecordBatch::try_new(Arc::new(schema.clone()), vec![column]).expect("one column");
            for op in [Operator::Plus, Operator::Minus] {
                for (months, days, nanoseconds, fits) in [
                    (0, 0, 5_000_000_000, true),
                    (0, 3, -7_000_000_000, true),
                    (0, 0, 500_000_000, half_a_second_fits),
                    (0, 0, 1, false),
                    (1, 0, 0, false),
                ] {
                    let interval = IntervalMonthDayNano { months, days, nanoseconds };
                    let literal = Arc::new(Literal::new(ScalarValue::IntervalMonthDayNano(Some(interval))));
                    let sum: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(Arc::new(Column::new("ts", 0)), op, literal));
                    let plain = with_plain_intervals(Arc::clone(&sum), &schema).expect("rewritten");
                    assert_eq!(plain.to_string() != sum.to_string(), fits, "{plain}");
                    let value = |e: &Arc<dyn PhysicalExpr>| e.evaluate(&batch).and_then(|v| v.into_array(8)).expect("evaluated");
                    assert_eq!(&value(&plain), &value(&sum), "{sum}");
                    assert_eq!(plain.data_type(&schema).expect("typed"), sum.data_type(&schema).expect("typed"));
                }
            }
        }
    }
}
