//! One JSON object into the columns of a row: [`Reader`].
//!
//! Schema-directed: each value is read straight into the column that wants it, and what nobody wants is
//! checked and passed over. Always: on a fault the columns may be uneven, and the caller cuts them back.
//! A number is never read from a string nor a string from a number; NaN and infinity are no JSON and no
//! reading; NULL is a null or an absent field and nothing else. Called by the decoder, once a record.

use arrow::datatypes::TimeUnit;

use super::super::base64;
use super::super::column::{Column, Items, Parts, Values};
use super::super::number::Number;
use super::super::temporal;
use super::scan::{Fault, Names, Read, Scan, Text, unescape};
use super::shape::{Shape, Target};

/// Reads objects of one shape. Kept between records for its memory.
#[derive(Debug)]
pub(in crate::format) struct Reader {
    shape: Shape,
    context: Context,
}

/// What all objects of a record share.
#[derive(Debug, Default)]
struct Context {
    names: Names,
    scratch: Vec<u8>,
    /// Counts objects, so that a name can tell whether this one has had it.
    objects: u64,
    /// Whether a date may be a number of days and a time of day a number of the column's unit.
    counts: bool,
}

impl Reader {
    /// A reader whose objects' names go where `shape` says.
    pub(in crate::format) fn new(shape: Shape) -> Self {
        Self { shape, context: Context::default() }
    }

    /// The same, for who writes dates as days since 1970 and times of day as counts of the column's unit.
    pub(in crate::format) const fn with_counts(mut self) -> Self {
        self.context.counts = true;
        self
    }

    /// Reads one object as row `row`.
    pub(in crate::format) fn read(&mut self, bytes: &[u8], columns: &mut [Column], row: usize) -> Read<()> {
        let mut scan = Scan::new(bytes, &mut self.context.names);
        if !scan.take(b'{') {
            return if scan.pos() == bytes.len() { scan.fault("empty value") } else { scan.fault("expected an object") };
        }
        let end = object(scan, &mut self.shape, columns, &mut self.context, 0)?;
        scan.go_to(end);
        scan.end()?;
        fill(columns, row, scan.pos())
    }
}

/// NULL for each column that the object did not have.
#[inline]
fn fill(columns: &mut [Column], row: usize, at: usize) -> Read<()> {
    for column in columns {
        if column.len() > row {
            continue;
        }
        if !column.nullable {
            return Err(Fault::new(at, "missing, and the column is NOT NULL").of(&column.name));
        }
        column.push_null();
    }
    Ok(())
}

/// Reads an object whose brace has been passed; answers where it ends.
fn object(mut scan: Scan<'_>, shape: &mut Shape, columns: &mut [Column], context: &mut Context, depth: u32) -> Read<usize> {
    scan.deeper(depth)?;
    context.objects += 1;
    let (own, opened, mark) = (context.objects, scan.pos(), context.names.mark());
    if scan.take(b'}') {
        return Ok(scan.pos());
    }
    let mut before = None;
    let mut guess = shape.first();
    loop {
        if !scan.take(b'"') {
            return scan.unexpected("expected a field's name");
        }
        let target = match shape.guess(guess, own, scan.bytes(), scan.pos()) {
            Some((target, end, next)) => {
                scan.go_to(end);
                (before, guess) = (Some(guess), next);
                target
            }
            None => {
                let found = name(scan, shape, before, own, context)?;
                scan.go_to(found.end);
                if let Some((index, next)) = found.index {
                    (before, guess) = (Some(index), next);
                }
                found.target
            }
        };
        scan.colon()?;
        match target {
            Target::Skip => scan.skip(&mut context.names, depth + 1)?,
            Target::Column(column) => {
                let column = &mut columns[column];
                match value(scan, column, context, depth + 1) {
                    Ok(end) => scan.go_to(end),
                    Err(fault) => return Err(fault.of(&column.name)),
                }
            }
            Target::Inner(index) => {
                let (name, inner) = &mut shape.inner[index];
                let read = match scan.peek() {
                    b'{' => {
                        scan.step();
                        object(scan, inner, columns, context, depth + 1)
                    }
                    b'n' => scan.word(b"null").map(|()| scan.pos()),
                    _ => scan.unexpected("expected an object"),
                };
                scan.go_to(read.map_err(|fault| fault.within(name))?);
            }
        }
        if scan.end_of_item(b'}')? {
            break;
        }
    }
    if context.names.mark() > mark && context.names.close(mark, scan.bytes()) {
        return Err(Fault::new(opened, "a field comes twice"));
    }
    Ok(scan.pos())
}

/// What a name turned out to be.
struct Found {
    target: Target,
    /// Which it is, and which is guessed to follow; `None` for one that is not remembered.
    index: Option<(usize, usize)>,
    end: usize,
}

/// Reads a name that was not the guessed one.
#[inline(never)]
fn name(mut scan: Scan<'_>, shape: &mut Shape, before: Option<usize>, own: u64, context: &mut Context) -> Read<Found> {
    let text = scan.string()?;
    let index = if text.escaped {
        context.scratch.clear();
        unescape(text, &mut context.scratch)?;
        shape.look_up(&context.scratch, before)
    } else {
        shape.look_up(text.raw, before)
    };
    let Some(index) = index else {
        context.names.push(text)?;
        return Ok(Found { target: Target::Skip, index: None, end: scan.pos() });
    };
    let Some((target, next)) = shape.meet(index, own) else {
        let fault = Fault::new(text.at, "a field comes twice");
        return Err(match shape.told(index) {
            Some(name) => fault.within(name),
            None => fault,
        });
    };
    Ok(Found { target, index: Some((index, next)), end: scan.pos() })
}

/// Reads a value into a column; answers where it ends.
fn value(mut scan: Scan<'_>, column: &mut Column, context: &mut Context, depth: u32) -> Read<usize> {
    let first = scan.peek();
    if first == b'n' {
        scan.word(b"null")?;
        if !column.nullable {
            return scan.fault("null, and the column is NOT NULL");
        }
        column.push_null();
        return Ok(scan.pos());
    }
    let (at, row) = (scan.pos(), column.len());
    let range = || Fault::new(at, "number out of range");
    match &mut column.values {
        Values::Float64(v) => match scan.short_number() {
            Some(short) => v.push(short.double()),
            None => v.push(number(&mut scan, first)?.double().ok_or_else(range)?),
        },
        Values::Float32(v) => v.push(number(&mut scan, first)?.single().ok_or_else(range)?),
        Values::Int64(v) => v.push(integer(&mut scan, first)?),
        Values::Int32(v) => v.push(integer(&mut scan, first)?.try_into().map_err(|_| range())?),
        Values::Int16(v) => v.push(integer(&mut scan, first)?.try_into().map_err(|_| range())?),
        Values::Int8(v) => v.push(integer(&mut scan, first)?.try_into().map_err(|_| range())?),
        Values::Boolean(v) => match first {
            b't' => {
                scan.word(b"true")?;
                v.push(true);
            }
            b'f' => {
                scan.word(b"false")?;
                v.push(false);
            }
            _ => return scan.unexpected("expected true or false"),
        },
        Values::Utf8(run) => {
            let text = string(&mut scan, first, "expected a string")?;
            let room = if text.escaped { run.push_with(|out| unescape(text, out))? } else { run.push(text.raw) };
            if !room {
                return scan.fault("too much text in one batch");
            }
        }
        Values::Binary(run) => {
            let text = plain_string(&mut scan, first, &mut context.scratch, "expected a base64 string")?;
            let room = run.push_with(|out| base64::read(out, text).ok_or_else(|| Fault::new(at, "expected a base64 string")))?;
            if !room {
                return scan.fault("too much data in one batch");
            }
        }
        Values::Timestamp(v, own, number) => v.push(timestamp(&mut scan, first, *own, *number, context)?),
        Values::Date32(v) if context.counts && matches!(first, b'-' | b'0'..=b'9') => {
            let days = i32::try_from(integer(&mut scan, first)?).ok();
            let days = days.filter(|days| temporal::has_four_digit_year(i64::from(*days) * 86_400, TimeUnit::Second));
            v.push(days.ok_or_else(|| Fault::new(at, "date out of range"))?);
        }
        Values::Date32(v) => {
            let text = plain_string(&mut scan, first, &mut context.scratch, "expected a date as YYYY-MM-DD")?;
            v.push(temporal::read_date(text).ok_or_else(|| Fault::new(at, "expected a date as YYYY-MM-DD"))?);
        }
        Values::Time32(v, unit) => {
            let time = time_of_day(&mut scan, first, *unit, context)?;
            v.push(time.try_into().map_err(|_| range())?);
        }
        Values::Time64(v, unit) => v.push(time_of_day(&mut scan, first, *unit, context)?),
        Values::Decimal128(v, precision, scale) => v.push(decimal(&mut scan, first, *precision, *scale, context)?),
        Values::Struct(parts) => {
            if first != b'{' {
                return scan.unexpected("expected an object");
            }
            scan.step();
            let Parts { shape, columns, .. } = &mut **parts;
            scan.go_to(object(scan, shape, columns, context, depth)?);
            fill(columns, row, scan.pos())?;
        }
        Values::List(items) => {
            if first != b'[' {
                return scan.unexpected("expected a list");
            }
            scan.step();
            scan.go_to(list(scan, items, context, depth)?);
        }
    }
    column.valid();
    Ok(scan.pos())
}

/// Reads the items of a list whose bracket has been passed; answers where it ends.
fn list(mut scan: Scan<'_>, items: &mut Items, context: &mut Context, depth: u32) -> Read<usize> {
    scan.deeper(depth)?;
    if !scan.take(b']') {
        loop {
            scan.go_to(value(scan, &mut items.item, context, depth + 1).map_err(|fault| fault.of("item"))?);
            if scan.end_of_item(b']')? {
                break;
            }
        }
    }
    if items.close() { Ok(scan.pos()) } else { scan.fault("too many items in one batch") }
}

#[inline]
fn number<'a>(scan: &mut Scan<'a>, first: u8) -> Read<Number<'a>> {
    match first {
        b'-' | b'0'..=b'9' => scan.number(),
        _ => scan.unexpected("expected a number"),
    }
}

#[inline]
fn integer(scan: &mut Scan<'_>, first: u8) -> Read<i64> {
    let at = scan.pos();
    match first {
        b'-' | b'0'..=b'9' => {
            let mut ahead = *scan;
            if let Some(short) = ahead.short_number().filter(|short| short.plain) {
                *scan = ahead;
                return Ok(short.integer());
            }
            let written = scan.number()?;
            written.integer().ok_or_else(|| Fault::new(at, if written.plain { "number out of range" } else { "expected a whole number" }))
        }
        _ => scan.unexpected("expected a whole number"),
    }
}

#[inline]
fn string<'a>(scan: &mut Scan<'a>, first: u8, expected: &'static str) -> Read<Text<'a>> {
    if first != b'"' {
        return scan.unexpected(expected);
    }
    scan.step();
    scan.string()
}

/// A string with its escapes read.
#[inline]
fn plain_string<'s, 'a: 's>(scan: &mut Scan<'a>, first: u8, scratch: &'s mut Vec<u8>, expected: &'static str) -> Read<&'s [u8]> {
    let text = string(scan, first, expected)?;
    if !text.escaped {
        return Ok(text.raw);
    }
    scratch.clear();
    unescape(text, scratch)?;
    Ok(scratch)
}

const EXPECTED_TIME: &str = "expected a time in ISO 8601 or a number";

#[inline]
fn timestamp(scan: &mut Scan<'_>, first: u8, own: TimeUnit, number: TimeUnit, context: &mut Context) -> Read<i64> {
    let at = scan.pos();
    if !matches!(first, b'-' | b'0'..=b'9') {
        let text = plain_string(scan, first, &mut context.scratch, EXPECTED_TIME)?;
        return temporal::read_timestamp(text, own).ok_or_else(|| Fault::new(at, "expected a time in ISO 8601"));
    }
    if number == own
        && let mut ahead = *scan
        && let Some(short) = ahead.short_number().filter(|short| short.plain)
    {
        // Fifteen digits hold every time with a year of four digits in seconds and milliseconds.
        let time = short.integer();
        *scan = ahead;
        return if temporal::has_four_digit_year(time, own) { Ok(time) } else { Err(Fault::new(at, "time out of range")) };
    }
    let written = scan.number()?;
    temporal::from_number(&written, own, number).map_err(|why| Fault::new(at, why))
}

fn time_of_day(scan: &mut Scan<'_>, first: u8, unit: TimeUnit, context: &mut Context) -> Read<i64> {
    let at = scan.pos();
    if context.counts && matches!(first, b'-' | b'0'..=b'9') {
        let time = Some(integer(scan, first)?).filter(|time| (0..86_400 * temporal::per_second(unit)).contains(time));
        return time.ok_or_else(|| Fault::new(at, "time out of range"));
    }
    let text = plain_string(scan, first, &mut context.scratch, "expected a time of day as HH:MM:SS")?;
    temporal::read_time(text, unit).ok_or_else(|| Fault::new(at, "expected a time of day as HH:MM:SS"))
}

/// A decimal is read from a number, or from a string, which producers use to keep all its digits.
fn decimal(scan: &mut Scan<'_>, first: u8, precision: u8, scale: i8, context: &mut Context) -> Read<i128> {
    let at = scan.pos();
    let expected = || Fault::new(at, "expected a decimal number");
    let written = match first {
        b'"' => {
            let text = plain_string(scan, first, &mut context.scratch, "expected a decimal number")?;
            super::super::number::take(text).filter(|n| n.text.len() == text.len()).ok_or_else(expected)?
        }
        _ => number(scan, first)?,
    };
    let value = written.scaled(i64::from(scale)).ok_or_else(|| Fault::new(at, "a decimal with more digits than the column has"))?;
    if value.unsigned_abs() < 10_u128.pow(u32::from(precision)) { Ok(value) } else { Err(Fault::new(at, "number out of range")) }
}
