//! One value written as text, into a column: for formats whose values are all text.
//!
//! Always: a value is read as JSON reads one of its kind (numbers by JSON's grammar, times in ISO 8601 or as a
//! count of the column's unit), or is refused; nothing is rounded to fit an integer or a decimal. Called by the
//! CSV reader, once a field.

use arrow::datatypes::TimeUnit;

use super::base64;
use super::column::{Column, Values};
use super::number::{self, Number};
use super::temporal;

const RANGE: &str = "number out of range";
const FULL: &str = "too much data in one batch";

/// Adds the value that `text`, which is UTF-8, stands for; or says what was expected. The column may then be uneven.
pub(super) fn push(column: &mut Column, text: &[u8]) -> Result<(), &'static str> {
    let bare = text.trim_ascii();
    match &mut column.values {
        Values::Boolean(v) => v.push(match bare {
            b"1" => true,
            b"0" => false,
            word if word.eq_ignore_ascii_case(b"true") => true,
            word if word.eq_ignore_ascii_case(b"false") => false,
            _ => return Err("expected true or false"),
        }),
        Values::Int8(v) => v.push(integer(bare)?.try_into().map_err(|_| RANGE)?),
        Values::Int16(v) => v.push(integer(bare)?.try_into().map_err(|_| RANGE)?),
        Values::Int32(v) => v.push(integer(bare)?.try_into().map_err(|_| RANGE)?),
        Values::Int64(v) => v.push(integer(bare)?),
        Values::Float32(v) => v.push(number(bare)?.single().ok_or(RANGE)?),
        Values::Float64(v) => v.push(match number::short(bare).filter(|short| short.len == bare.len()) {
            Some(short) => short.double(),
            None => number(bare)?.double().ok_or(RANGE)?,
        }),
        Values::Utf8(run) => room(run.push(text))?,
        Values::Binary(run) => room(run.push_with(|out| base64::read(out, bare).ok_or("expected base64"))?)?,
        Values::Timestamp(v, own, unit) => v.push(timestamp(bare, *own, *unit)?),
        Values::Date32(v) => v.push(temporal::read_date(bare).ok_or("expected a date as YYYY-MM-DD")?),
        Values::Time32(v, unit) => v.push(time_of_day(bare, *unit)?.try_into().map_err(|_| RANGE)?),
        Values::Time64(v, unit) => v.push(time_of_day(bare, *unit)?),
        Values::Decimal128(v, precision, scale) => {
            let value = number(bare)?.scaled(i64::from(*scale)).ok_or("a decimal with more digits than the column has")?;
            if value.unsigned_abs() >= 10_u128.pow(u32::from(*precision)) {
                return Err(RANGE);
            }
            v.push(value);
        }
        Values::Struct(_) | Values::List(_) => unreachable!("the schema has refused what has no text"),
    }
    column.valid();
    Ok(())
}

fn room(there_is: bool) -> Result<(), &'static str> {
    if there_is { Ok(()) } else { Err(FULL) }
}

fn number(text: &[u8]) -> Result<Number<'_>, &'static str> {
    number::take(text).filter(|found| found.text.len() == text.len()).ok_or("expected a number")
}

fn integer(text: &[u8]) -> Result<i64, &'static str> {
    let written = number::take(text).filter(|found| found.text.len() == text.len()).ok_or("expected a whole number")?;
    written.integer().ok_or(if written.plain { RANGE } else { "expected a whole number" })
}

fn timestamp(text: &[u8], own: TimeUnit, unit: TimeUnit) -> Result<i64, &'static str> {
    if let Some(time) = temporal::read_timestamp(text, own) {
        return Ok(time);
    }
    let written = number(text).map_err(|_| "expected a time in ISO 8601 or a number")?;
    temporal::from_number(&written, own, unit)
}

fn time_of_day(text: &[u8], unit: TimeUnit) -> Result<i64, &'static str> {
    temporal::read_time(text, unit).ok_or("expected a time of day as HH:MM:SS")
}
