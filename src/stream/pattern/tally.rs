//! Counts, sums, averages, least and greatest values that grow row by row.
//!
//! Owns [`Tally`], which is copied wherever a match may go on in two ways, and [`Tallied`], which says what it counts. Always: a tally
//! is a function of the values and their order; whole numbers and decimals are exact, and too large a sum is an error.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::spec::TallyFunction;
use crate::stream::StreamError;
use crate::stream::over::{Kind, Lane, Native};
use crate::stream::rowwise::arrow_error;

/// A value that is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    /// A row, or a value of which only its presence counts.
    Present,
    Float(f64),
    Whole(i128),
}

/// What has been counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    count: i64,
    float: f64,
    whole: i128,
    /// The sum was too large even for this.
    is_over: bool,
}

/// Equal tallies go on equally.
impl PartialEq for Tally {
    fn eq(&self, other: &Self) -> bool {
        let bits = |of: &Self| (of.count, of.float.to_bits(), of.whole, of.is_over);
        bits(self) == bits(other)
    }
}

/// One aggregate.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tallied {
    pub function: TallyFunction,
    /// The lane of its values; `None` counts rows.
    pub lane: Option<usize>,
    /// Which rows count.
    pub of: Option<u8>,
    pub to: DataType,
}

/// How the values of an argument are kept for a function over them.
pub(super) fn kind(function: TallyFunction, of: &DataType) -> Result<Kind, StreamError> {
    Ok(match (function, of) {
        (TallyFunction::Count, _) => Kind::Presence,
        (_, DataType::Float64 | DataType::Float32) => Kind::Float,
        (_, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64) => Kind::Int,
        (_, DataType::UInt8 | DataType::UInt16 | DataType::UInt32) => Kind::Int,
        (_, DataType::Decimal128(..)) => Kind::Wide,
        (TallyFunction::Min | TallyFunction::Max, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) => Kind::Int,
        _ => return Err(StreamError::Limit(format!("{function:?} over {of} is not supported in a pattern"))),
    })
}

impl Tallied {
    /// Whether a row that is this variable counts.
    pub(super) fn counts(&self, variable: u8) -> bool {
        self.of.is_none_or(|of| of == variable)
    }

    /// What a row adds; nothing where its value is NULL.
    pub(super) fn value(&self, lanes: &[Lane], row: u32) -> Option<Value> {
        let Some(lane) = self.lane else { return Some(Value::Present) };
        let (lane, row) = (&lanes[lane], row as usize);
        if !lane.valid()[row] {
            return None;
        }
        Some(match lane.kind() {
            Kind::Float => Value::Float(f64::of(lane)[row]),
            Kind::Int => Value::Whole(i64::of(lane)[row].into()),
            Kind::Wide => Value::Whole(i128::of(lane)[row]),
            Kind::Presence | Kind::Any => Value::Present,
        })
    }

    pub(super) fn add(&self, tally: &mut Tally, value: Option<Value>) {
        let Some(value) = value else { return };
        let is_first = tally.count == 0;
        tally.count += 1;
        match (self.function, value) {
            (TallyFunction::Sum | TallyFunction::Avg, Value::Float(value)) => tally.float += value,
            (TallyFunction::Sum | TallyFunction::Avg, Value::Whole(value)) => match tally.whole.checked_add(value) {
                Some(sum) => tally.whole = sum,
                None => tally.is_over = true,
            },
            (TallyFunction::Min, Value::Float(value)) if is_first || value.total_cmp(&tally.float).is_lt() => tally.float = value,
            (TallyFunction::Max, Value::Float(value)) if is_first || value.total_cmp(&tally.float).is_gt() => tally.float = value,
            (TallyFunction::Min, Value::Whole(value)) if is_first || value < tally.whole => tally.whole = value,
            (TallyFunction::Max, Value::Whole(value)) if is_first || value > tally.whole => tally.whole = value,
            _ => {}
        }
    }

    /// The answers of some tallies over arguments of the type `from`, and which of them do not fit their type.
    pub(super) fn answers(&self, tallies: &[Tally], from: Option<&DataType>) -> Result<(ArrayRef, Vec<usize>), StreamError> {
        let error = |e| arrow_error("an aggregate over a pattern", &e);
        let mut failed = Vec::new();
        let is_float = matches!(from, Some(DataType::Float64 | DataType::Float32));
        let made: ArrayRef = match self.function {
            TallyFunction::Count => Arc::new(tallies.iter().map(|tally| Some(tally.count)).collect::<Int64Array>()),
            TallyFunction::Avg if !matches!(self.to, DataType::Decimal128(..)) => {
                let average = |tally: &Tally| {
                    let sum = if is_float { tally.float } else { tally.whole as f64 };
                    (tally.count > 0).then(|| sum / tally.count as f64)
                };
                failed.extend(tallies.iter().enumerate().filter(|(_, tally)| tally.is_over).map(|(at, _)| at));
                Arc::new(tallies.iter().map(average).collect::<Float64Array>())
            }
            _ if is_float => Arc::new(tallies.iter().map(|tally| (tally.count > 0).then_some(tally.float)).collect::<Float64Array>()),
            _ => {
                let mut values = Vec::with_capacity(tallies.len());
                for (at, tally) in tallies.iter().enumerate() {
                    let value = if tally.count == 0 { Some(None) } else { self.whole(tally, from).map(Some) };
                    if value.is_none() || tally.is_over {
                        failed.push(at);
                    }
                    values.push(value.flatten());
                }
                if let DataType::Decimal128(digits, scale) = self.to {
                    let array = values.into_iter().collect::<Decimal128Array>();
                    Arc::new(array.with_precision_and_scale(digits, scale).map_err(error)?)
                } else {
                    Arc::new(values.into_iter().map(|value| value.map(|value| value as i64)).collect::<Int64Array>())
                }
            }
        };
        let made = if *made.data_type() == self.to { made } else { cast(&made, &self.to).map_err(error)? };
        Ok((made, failed))
    }

    /// A whole number or decimal as its type has it; nothing where it does not fit.
    fn whole(&self, tally: &Tally, from: Option<&DataType>) -> Option<i128> {
        let DataType::Decimal128(digits, scale) = self.to else {
            return i64::try_from(tally.whole).ok().map(i128::from);
        };
        let of = if let Some(DataType::Decimal128(_, of)) = from { *of } else { 0 };
        let more = 10_i128.checked_pow(u32::try_from(i32::from(scale) - i32::from(of)).ok()?)?;
        let mut value = tally.whole.checked_mul(more)?;
        if self.function == TallyFunction::Avg {
            value /= i128::from(tally.count);
        }
        (value.unsigned_abs() < 10_u128.checked_pow(u32::from(digits))?).then_some(value)
    }
}
