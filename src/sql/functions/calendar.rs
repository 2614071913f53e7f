//! `timestampdiff` and `timestampadd`, Flink's: whole units between two times, and a time so many units on.
//!
//! Always: units up to the week are lengths; months, quarters and years are the calendar's, where a day that a month lacks becomes
//! its last. A difference counts whole units only, towards zero. A time out of range is an error of its row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Months, NaiveDateTime};
use datafusion::common::{Result as DfResult, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// What both reckon in.
const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// A unit of time.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Micros(i64),
    Months(i64),
}

fn unit(value: Option<&ColumnarValue>, function: &str) -> DfResult<Unit> {
    let Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))) = value else {
        return plan_err!("{function} takes a unit first, as in {function}(SECOND, ..)");
    };
    let name = name.to_ascii_lowercase();
    Ok(match name.strip_suffix('s').unwrap_or(&name) {
        "microsecond" => Unit::Micros(1),
        "millisecond" => Unit::Micros(1_000),
        "second" => Unit::Micros(1_000_000),
        "minute" => Unit::Micros(60_000_000),
        "hour" => Unit::Micros(3_600_000_000),
        "day" => Unit::Micros(86_400_000_000),
        "week" => Unit::Micros(7 * 86_400_000_000),
        "month" => Unit::Months(1),
        "quarter" => Unit::Months(3),
        "year" => Unit::Months(12),
        _ => {
            return plan_err!(
                "{function} does not know the unit {name}: it is MICROSECOND, MILLISECOND, SECOND, MINUTE, HOUR, DAY, WEEK, MONTH, QUARTER or YEAR"
            );
        }
    })
}

/// Whether a type is a time, or is read as one.
const fn is_time(of: &DataType) -> bool {
    matches!(of, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Utf8 | DataType::Null)
}

fn moment(micros: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc())
}

fn shifted(time: NaiveDateTime, months: i64) -> Option<NaiveDateTime> {
    let many = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    if months < 0 { time.checked_sub_months(many) } else { time.checked_add_months(many) }
}

fn add(time: i64, count: i64, unit: Unit) -> Option<i64> {
    match unit {
        Unit::Micros(length) => time.checked_add(length.checked_mul(count)?),
        Unit::Months(length) => Some(shifted(moment(time)?, length.checked_mul(count)?)?.and_utc().timestamp_micros()),
    }
}

fn between(from: i64, to: i64, unit: Unit) -> Option<i64> {
    match unit {
        Unit::Micros(length) => Some(to.checked_sub(from)? / length),
        Unit::Months(length) => {
            use chrono::Datelike;
            let (from, to) = (moment(from)?, moment(to)?);
            let month = |time: NaiveDateTime| i64::from(time.year()) * 12 + i64::from(time.month0());
            let mut months = month(to) - month(from);
            // The last month is not whole where its day and time are not reached.
            let reached = shifted(from, months)?;
            if months > 0 && reached > to {
                months -= 1;
            } else if months < 0 && reached < to {
                months += 1;
            }
            Some(months / length)
        }
    }
}

/// The functions.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ScalarUDF::new_from_impl(Difference::default())), Arc::new(ScalarUDF::new_from_impl(Addition::default()))]
}

/// `timestampdiff(unit, from, to)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Difference {
    signature: Signature,
}

impl Default for Difference {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Difference {
    fn name(&self) -> &'static str {
        "timestampdiff"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> DfResult<Vec<DataType>> {
        let [_, from, to] = given else { return plan_err!("timestampdiff takes three arguments: a unit and two times") };
        match [from, to].into_iter().find(|of| !is_time(of)) {
            Some(other) => plan_err!("timestampdiff takes times, not {other}"),
            None => Ok(vec![DataType::Utf8, MICROS, MICROS]),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let unit = unit(args.args.first(), self.name())?;
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let times = |at: usize| columns.get(at).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let (Some(from), Some(to)) = (times(1), times(2)) else { return exec_err!("timestampdiff takes two times") };
        let rows = from.iter().zip(to.iter()).map(|(from, to)| match (from, to) {
            (Some(from), Some(to)) => match between(from, to, unit) {
                Some(count) => Ok(Some(count)),
                None => exec_err!("timestampdiff: a time is out of range"),
            },
            _ => Ok(None),
        });
        Ok(ColumnarValue::Array(Arc::new(rows.collect::<DfResult<Int64Array>>()?)))
    }
}

/// `timestampadd(unit, count, time)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Addition {
    signature: Signature,
}

impl Default for Addition {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Addition {
    fn name(&self) -> &'static str {
        "timestampadd"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> DfResult<Vec<DataType>> {
        let [_, count, time] = given else { return plan_err!("timestampadd takes three arguments: a unit, a count and a time") };
        if !(count.is_integer() || count.is_null()) {
            return plan_err!("timestampadd takes a whole number of units");
        }
        // The precision of a time stays what it is.
        let time = match time {
            DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, None),
            other if is_time(other) => MICROS,
            other => return plan_err!("timestampadd takes a time, not {other}"),
        };
        Ok(vec![DataType::Utf8, DataType::Int64, time])
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        arguments.get(2).cloned().map_or_else(|| plan_err!("timestampadd takes three arguments: a unit, a count and a time"), Ok)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let unit = unit(args.args.first(), self.name())?;
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [_, counts, times] = columns.as_slice() else { return exec_err!("timestampadd takes a unit, a count and a time") };
        let micros: ArrayRef = cast(times, &MICROS)?;
        let (counts, micros) = (counts.as_primitive::<Int64Type>(), micros.as_primitive::<TimestampMicrosecondType>());
        let rows = counts.iter().zip(micros.iter()).map(|(count, time)| match (count, time) {
            (Some(count), Some(time)) => match add(time, count, unit) {
                Some(time) => Ok(Some(time)),
                None => exec_err!("timestampadd: the time is out of range"),
            },
            _ => Ok(None),
        });
        let made: ArrayRef = Arc::new(rows.collect::<DfResult<TimestampMicrosecondArray>>()?);
        Ok(ColumnarValue::Array(cast(&made, times.data_type())?))
    }
}
