//! Functions that make much out of little: `repeat('x', 2000000000)` is two gigabytes of one letter.
//!
//! Owns a shell around each of them, which reckons what a call would make before it is made. Always: a value of more than
//! [`VALUE_BYTES`], or more than [`BATCH_BYTES`] over the rows of one batch, is an error. Registered in the place of DataFusion's own.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type, Int64Type, IntervalMonthDayNanoType, TimeUnit};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::sql::error::{Code, SqlError};

/// The largest value that a call may make: a record is a hundredth of it unless its topic says otherwise.
const VALUE_BYTES: f64 = (16 << 20) as f64;
/// What a call may make over one batch of rows.
const BATCH_BYTES: f64 = (64 << 20) as f64;

/// The functions, and how to reckon what they make.
const GROWING: &[(&str, Growth)] = &[
    ("repeat", Growth::Repeat),
    ("lpad", Growth::Pad),
    ("rpad", Growth::Pad),
    ("replace", Growth::Replace),
    ("array_repeat", Growth::List),
    ("array_resize", Growth::Resize),
    ("range", Growth::Series),
    ("generate_series", Growth::Series),
];

/// How much a call makes of its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Growth {
    /// `(text, times)`
    Repeat,
    /// `(text, letters, ..)`
    Pad,
    /// `(text, from, to)`
    Replace,
    /// `(element, times)`
    List,
    /// `(list, elements, ..)`
    Resize,
    /// `([start,] stop [, step])`
    Series,
}

/// Shells for those of the functions that `find` knows.
pub(super) fn all(find: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let shell = |&(name, growth): &(&str, Growth)| {
        let inner = Arc::clone(find(name)?.inner());
        Some(Arc::new(ScalarUDF::from(Bounded { inner: ScalarUDF::new_from_shared_impl(inner), growth })))
    };
    GROWING.iter().filter_map(shell).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: ScalarUDF,
    growth: Growth,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }
    fn return_type(&self, of: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(of)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        self.inner.return_field_from_args(args)
    }
    fn coerce_types(&self, of: &[DataType]) -> DfResult<Vec<DataType>> {
        self.inner.coerce_types(of)
    }
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> DfResult<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }
    fn output_ordering(&self, inputs: &[ExprProperties]) -> DfResult<SortProperties> {
        self.inner.output_ordering(inputs)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        self.judge(&args.args, if is_constant { 1 } else { args.number_rows })?;
        self.inner.invoke_with_args(args)
    }
}

impl Bounded {
    /// Whether a call over so many rows may be made.
    fn judge(&self, args: &[ColumnarValue], rows: usize) -> DfResult<()> {
        let sizes = self.growth.sizes(args)?;
        let mut sum = 0.0;
        for row in 0..rows {
            let bytes = sizes(row);
            sum += bytes;
            let (most, of) = if bytes > VALUE_BYTES {
                (VALUE_BYTES, "one value")
            } else if sum > BATCH_BYTES {
                (BATCH_BYTES, "the values of one batch of rows")
            } else {
                continue;
            };
            let what = format!("{}() would make {of} larger than {} MiB", self.inner.name(), most / f64::from(1 << 20));
            return Err(DataFusionError::External(Box::new(SqlError::new(Code::Limit, what).hint("ask it for less"))));
        }
        Ok(())
    }
}

type OfRow<'a, T> = Box<dyn Fn(usize) -> T + 'a>;

impl Growth {
    /// About how many bytes the call makes for a row, and never much less.
    fn sizes(self, args: &[ColumnarValue]) -> DfResult<OfRow<'_, f64>> {
        let none: OfRow<'_, f64> = Box::new(|_| 0.0);
        Ok(match (self, args) {
            (Self::Repeat, [text, times, ..]) => {
                let (text, times) = (text_bytes(text)?, number(times)?);
                Box::new(move |row| text(row) * times(row).max(0.0))
            }
            // A letter has four bytes at most.
            (Self::Pad, [_, letters, ..]) => {
                let letters = number(letters)?;
                Box::new(move |row| letters(row).max(0.0) * 4.0)
            }
            (Self::Replace, [text, from, to, ..]) => {
                let (text, from, to) = (text_bytes(text)?, text_bytes(from)?, text_bytes(to)?);
                Box::new(move |row| text(row) + (text(row) / from(row).max(1.0) + 1.0).floor() * to(row))
            }
            (Self::List, [element, times, ..]) => {
                let each = match element {
                    ColumnarValue::Scalar(scalar) => scalar.size(),
                    ColumnarValue::Array(array) => array.get_array_memory_size() / array.len().max(1) + 1,
                } as f64;
                let times = number(times)?;
                Box::new(move |row| each * times(row).max(0.0))
            }
            (Self::Resize, [_, elements, ..]) => {
                let elements = number(elements)?;
                Box::new(move |row| elements(row).max(0.0) * 16.0)
            }
            (Self::Series, [stop]) => {
                let stop = number(stop)?;
                Box::new(move |row| stop(row).max(0.0) * 8.0)
            }
            (Self::Series, [start, stop, step @ ..]) => {
                let (start, stop) = (number(start)?, number(stop)?);
                let step = step.first().map_or_else(|| Ok(Box::new(|_| 1.0) as OfRow<'_, f64>), number)?;
                // A step of nothing is the function's own to refuse.
                Box::new(move |row| match (stop(row) - start(row)) / step(row) {
                    steps if steps.is_finite() && steps > 0.0 => steps * 8.0,
                    _ => 0.0,
                })
            }
            _ => none,
        })
    }
}

/// How long a text is; nothing where there is none.
fn text_bytes(value: &ColumnarValue) -> DfResult<OfRow<'_, f64>> {
    fn length(text: Option<usize>) -> f64 {
        text.unwrap_or(0) as f64
    }
    Ok(match value {
        ColumnarValue::Scalar(scalar) => {
            let bytes = length(scalar.try_as_str().flatten().map(str::len));
            Box::new(move |_| bytes)
        }
        ColumnarValue::Array(array) => match array.data_type() {
            DataType::Utf8 => Box::new(move |row| length(array.is_valid(row).then(|| array.as_string::<i32>().value_length(row) as usize))),
            DataType::LargeUtf8 => {
                Box::new(move |row| length(array.is_valid(row).then(|| array.as_string::<i64>().value_length(row) as usize)))
            }
            DataType::Utf8View => Box::new(move |row| length(array.is_valid(row).then(|| array.as_string_view().value(row).len()))),
            _ => Box::new(|_| 0.0),
        },
    })
}

/// A count; a date or a time as seconds, and a span too; nothing where there is none.
fn number(value: &ColumnarValue) -> DfResult<OfRow<'_, f64>> {
    const DAY: f64 = 86_400.0;
    let (array, is_one): (ArrayRef, bool) = match value {
        ColumnarValue::Scalar(scalar) => (ScalarValue::to_array(scalar)?, true),
        ColumnarValue::Array(array) => (Arc::clone(array), false),
    };
    let place = move |row: usize| if is_one { 0 } else { row };
    Ok(match array.data_type() {
        DataType::Interval(_) => {
            let spans = cast(&array, &DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano))?;
            Box::new(move |row| {
                let row = place(row);
                let span = spans.is_valid(row).then(|| spans.as_primitive::<IntervalMonthDayNanoType>().value(row));
                // The shortest month, so that no series is longer than reckoned.
                span.map_or(0.0, |span| f64::from(span.months) * 28.0 * DAY + f64::from(span.days) * DAY + span.nanoseconds as f64 / 1e9)
            })
        }
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => {
            let seconds = cast(&cast(&array, &DataType::Timestamp(TimeUnit::Second, None))?, &DataType::Int64)?;
            Box::new(move |row| {
                let row = place(row);
                if seconds.is_valid(row) { seconds.as_primitive::<Int64Type>().value(row) as f64 } else { 0.0 }
            })
        }
        of if of.is_numeric() => {
            let numbers = cast(&array, &DataType::Float64)?;
            Box::new(move |row| {
                let row = place(row);
                if numbers.is_valid(row) { numbers.as_primitive::<Float64Type>().value(row) } else { 0.0 }
            })
        }
        _ => Box::new(|_| 0.0),
    })
}
