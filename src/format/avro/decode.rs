//! Values of one writer's schema into the columns of a stream: [`Plan`].
//!
//! A plan is made once a schema id: for each field of the writer it says which column takes it and how, and what nobody
//! takes is passed over. Always: on a fault the columns may be uneven, and the caller cuts them back; what is allocated
//! is never more than the value's own bytes could fill; nothing is rounded to fit an integer or a decimal. NaN and
//! infinity are no reading. Called by the decoder, once a record.

use arrow::datatypes::TimeUnit;

use super::super::MAX_DEPTH;
use super::super::column::{Column, Values};
use super::super::json::{Fault, Read};
use super::super::{temporal, text};
use super::cursor::Cursor;
use super::schema::{Logical, MAX_TYPES, Schema, Type, TypeId};

/// So many ways may a plan have: records that lie in one another's unions multiply.
const MAX_WAYS: usize = 5 * MAX_TYPES;

/// How values of one schema become rows.
#[derive(Debug)]
pub(in crate::format) struct Plan {
    schema: Schema,
    root: Record,
}

/// How one record's fields go into columns.
#[derive(Debug)]
struct Record {
    /// In the writer's order: the type, and the column with the way into it.
    fields: Vec<(TypeId, Option<(usize, Way)>)>,
    /// The columns that the writer does not have.
    absent: Vec<usize>,
}

/// The way of a value into a column.
#[derive(Debug)]
enum Way {
    /// A plain value, by its own type and the column's.
    Plain,
    /// By branch; `None` where the column cannot hold one.
    Union(Vec<Option<Way>>),
    Struct(Record),
    List(TypeId, Box<Way>),
}

impl Plan {
    /// Finds the ways of a schema into columns, or says which column cannot hold what the writer writes.
    pub(in crate::format) fn new(text: &str, before: &[(String, String)], columns: &[Column]) -> Result<Self, String> {
        let schema = Schema::read(text, before)?;
        let Type::Record(fields) = schema.of(schema.root) else { return Err("its schema is not a record".to_owned()) };
        let mut planner = Planner { schema: &schema, left: MAX_WAYS };
        let root = planner.record(fields, columns, 0);
        if planner.left == 0 {
            return Err("its schema has too many ways to the columns".to_owned());
        }
        Ok(Self { root: root?, schema })
    }

    /// Reads one value as row `row`; `bytes` begin `skipped` bytes into the record's value.
    pub(in crate::format) fn read(&self, bytes: &[u8], skipped: usize, columns: &mut [Column], row: usize) -> Read<()> {
        let mut cursor = Cursor::new(bytes, skipped);
        self.record(&mut cursor, &self.root, columns, row, 0)?;
        if cursor.is_at_end() { Ok(()) } else { cursor.fault("bytes behind the value") }
    }

    fn record(&self, cursor: &mut Cursor<'_>, record: &Record, columns: &mut [Column], row: usize, depth: u32) -> Read<()> {
        for (of, way) in &record.fields {
            let before = cursor.pos;
            match way {
                Some((column, way)) => {
                    let column = &mut columns[*column];
                    if let Err(fault) = self.value(cursor, *of, way, column, depth + 1) {
                        return Err(fault.of(&column.name));
                    }
                }
                None => self.skip(cursor, *of, depth + 1)?,
            }
            cursor.spend(before)?;
        }
        for column in &record.absent {
            let column = &mut columns[*column];
            if !column.nullable {
                return Err(cursor.error("missing in the writer's schema, and the column is NOT NULL").of(&column.name));
            }
            debug_assert_eq!(column.len(), row, "one value a row");
            column.push_null();
        }
        Ok(())
    }

    fn value(&self, cursor: &mut Cursor<'_>, of: TypeId, way: &Way, column: &mut Column, depth: u32) -> Read<()> {
        if depth > MAX_DEPTH {
            return cursor.fault("nested too deep");
        }
        match (way, self.schema.of(of)) {
            (Way::Plain, plain) => return scalar(cursor, plain, column),
            (Way::Union(ways), Type::Union(branches)) => {
                let at = cursor.pos;
                let branch = usize::try_from(cursor.long()?).ok().filter(|branch| *branch < branches.len());
                let Some(branch) = branch else {
                    cursor.pos = at;
                    return cursor.fault("no such branch of a union");
                };
                return match &ways[branch] {
                    Some(way) => self.value(cursor, branches[branch], way, column, depth + 1),
                    None => cursor.fault("a branch of the union that the column cannot hold"),
                };
            }
            (Way::Struct(record), _) => {
                let row = column.len();
                let Values::Struct(parts) = &mut column.values else { unreachable!("the plan was made for this column") };
                self.record(cursor, record, &mut parts.columns, row, depth + 1)?;
            }
            (Way::List(item, way), _) => {
                let Values::List(items) = &mut column.values else { unreachable!("the plan was made for this column") };
                while let Some(count) = cursor.block()? {
                    for _ in 0..count {
                        let before = cursor.pos;
                        self.value(cursor, *item, way, &mut items.item, depth + 1).map_err(|fault| fault.of("item"))?;
                        cursor.spend(before)?;
                    }
                }
                if !items.close() {
                    return cursor.fault("too many items in one batch");
                }
            }
            (Way::Union(_), _) => unreachable!("the plan was made for this schema"),
        }
        column.valid();
        Ok(())
    }

    /// Passes over a value that no column takes.
    fn skip(&self, cursor: &mut Cursor<'_>, of: TypeId, depth: u32) -> Read<()> {
        if depth > MAX_DEPTH {
            return cursor.fault("nested too deep");
        }
        match self.schema.of(of) {
            Type::Null | Type::Unknown => {}
            Type::Boolean => {
                cursor.take(1)?;
            }
            Type::Int(_) | Type::Long(_) | Type::Enum(_) => {
                cursor.long()?;
            }
            Type::Float => {
                cursor.take(4)?;
            }
            Type::Double => {
                cursor.take(8)?;
            }
            Type::Bytes(_) | Type::String => {
                cursor.run()?;
            }
            Type::Fixed(size, _) => {
                cursor.take(*size)?;
            }
            Type::Union(branches) => {
                let branch = usize::try_from(cursor.long()?).ok().and_then(|branch| branches.get(branch));
                let Some(branch) = branch else { return cursor.fault("no such branch of a union") };
                self.skip(cursor, *branch, depth + 1)?;
            }
            Type::Record(fields) => {
                for (_, of) in fields {
                    let before = cursor.pos;
                    self.skip(cursor, *of, depth + 1)?;
                    cursor.spend(before)?;
                }
            }
            Type::Array(item) => {
                while let Some(count) = cursor.block()? {
                    for _ in 0..count {
                        let before = cursor.pos;
                        self.skip(cursor, *item, depth + 1)?;
                        cursor.spend(before)?;
                    }
                }
            }
            Type::Map(value) => {
                while let Some(count) = cursor.block()? {
                    for _ in 0..count {
                        cursor.run()?;
                        self.skip(cursor, *value, depth + 1)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Finds the ways of a schema into columns.
struct Planner<'a> {
    schema: &'a Schema,
    /// How many ways may still be found.
    left: usize,
}

impl Planner<'_> {
    /// Which column takes which field: by its name, else by a name that differs in case alone.
    fn record(&mut self, fields: &[(String, TypeId)], columns: &[Column], depth: u32) -> Result<Record, String> {
        self.left = self.left.saturating_sub(fields.len());
        let mut taken = vec![false; columns.len()];
        let place = |name: &str, taken: &[bool]| {
            let free = |wanted: &dyn Fn(&Column) -> bool| columns.iter().enumerate().position(|(at, c)| !taken[at] && wanted(c));
            let exact = free(&|c| c.name == name);
            exact.or_else(|| {
                // Somebody else's exact name is not taken away.
                free(&|c| c.name.eq_ignore_ascii_case(name) && !fields.iter().any(|(other, _)| *other == c.name))
            })
        };
        let mut found = Vec::with_capacity(fields.len());
        for (name, of) in fields {
            let way = match place(name, &taken) {
                Some(at) => {
                    taken[at] = true;
                    let way = self.way(*of, &columns[at].values, depth + 1).map_err(|why| format!("{}: {why}", columns[at].name))?;
                    Some((at, way))
                }
                None => None,
            };
            found.push((*of, way));
        }
        let absent = (0..columns.len()).filter(|at| !taken[*at]).collect();
        Ok(Record { fields: found, absent })
    }

    fn way(&mut self, of: TypeId, values: &Values, depth: u32) -> Result<Way, String> {
        if depth > MAX_DEPTH || self.left == 0 {
            return Err("its schema is nested too deep".to_owned());
        }
        self.left -= 1;
        let schema = self.schema;
        match (schema.of(of), values) {
            (Type::Union(branches), _) => {
                let ways: Vec<Option<Way>> = branches.iter().map(|branch| self.way(*branch, values, depth + 1).ok()).collect();
                let useful = branches.iter().zip(&ways).any(|(branch, way)| way.is_some() && *schema.of(*branch) != Type::Null);
                let only_null = branches.iter().all(|branch| *schema.of(*branch) == Type::Null);
                if useful || only_null {
                    Ok(Way::Union(ways))
                } else {
                    Err("the writer's schema has no branch that the column can hold".to_owned())
                }
            }
            (Type::Record(fields), Values::Struct(parts)) => Ok(Way::Struct(self.record(fields, &parts.columns, depth)?)),
            (Type::Array(item), Values::List(items)) => Ok(Way::List(*item, Box::new(self.way(*item, &items.item.values, depth + 1)?))),
            (plain, values) if fits(plain, values) => Ok(Way::Plain),
            (plain, _) => Err(format!("the writer's {} is not what the column holds", word(plain))),
        }
    }
}

/// Whether a plain value of this type may become one of these.
fn fits(of: &Type, values: &Values) -> bool {
    use Values as V;
    match of {
        Type::Null => true,
        Type::Boolean => matches!(values, V::Boolean(_)),
        Type::Int(logical) | Type::Long(logical) => match values {
            V::Int8(_) | V::Int16(_) | V::Int32(_) | V::Int64(_) => true,
            V::Float32(_) | V::Float64(_) | V::Decimal128(..) => *logical == Logical::None,
            V::Timestamp(..) => matches!(logical, Logical::None | Logical::Timestamp(_)),
            V::Date32(_) => matches!(logical, Logical::None | Logical::Date),
            V::Time32(..) | V::Time64(..) => matches!(logical, Logical::None | Logical::Time(_)),
            _ => false,
        },
        Type::Float | Type::Double => matches!(values, V::Float32(_) | V::Float64(_)),
        Type::Bytes(logical) | Type::Fixed(_, logical) => match logical {
            Logical::Decimal(_) => matches!(values, V::Decimal128(..) | V::Binary(_)),
            _ => matches!(values, V::Binary(_)),
        },
        Type::String => matches!(values, V::Utf8(_) | V::Timestamp(..) | V::Date32(_) | V::Time32(..) | V::Time64(..) | V::Decimal128(..)),
        Type::Enum(_) => matches!(values, V::Utf8(_)),
        Type::Array(_) | Type::Map(_) | Type::Union(_) | Type::Record(_) | Type::Unknown => false,
    }
}

const fn word(of: &Type) -> &'static str {
    match of {
        Type::Null => "null",
        Type::Boolean => "boolean",
        Type::Int(_) => "int",
        Type::Long(_) => "long",
        Type::Float => "float",
        Type::Double => "double",
        Type::Bytes(_) => "bytes",
        Type::String => "string",
        Type::Fixed(..) => "fixed",
        Type::Enum(_) => "enum",
        Type::Array(_) => "array",
        Type::Map(_) => "map",
        Type::Union(_) => "union",
        Type::Record(_) | Type::Unknown => "record",
    }
}

const RANGE: &str = "number out of range";
const FULL: &str = "too much data in one batch";

/// Reads a plain value into a column that [`fits`].
fn scalar(cursor: &mut Cursor<'_>, of: &Type, column: &mut Column) -> Read<()> {
    let at = cursor.pos;
    let wrong = |cursor: &Cursor<'_>, why| Fault::new(cursor.skipped + at, why);
    match of {
        Type::Null | Type::Unknown => {
            if !column.nullable {
                return cursor.fault("null, and the column is NOT NULL");
            }
            column.push_null();
            return Ok(());
        }
        Type::Boolean => {
            let value = match cursor.take(1)? {
                [0] => false,
                [1] => true,
                _ => return Err(wrong(cursor, "expected a boolean")),
            };
            if let Values::Boolean(v) = &mut column.values {
                v.push(value);
            }
        }
        Type::Int(logical) | Type::Long(logical) => {
            let value = cursor.long()?;
            if matches!(of, Type::Int(_)) && i32::try_from(value).is_err() {
                return Err(wrong(cursor, RANGE));
            }
            whole(value, *logical, &mut column.values).map_err(|why| wrong(cursor, why))?;
        }
        Type::Float | Type::Double => {
            let value = if *of == Type::Float {
                f64::from(f32::from_le_bytes(*cursor.take(4)?.first_chunk().expect("four bytes were taken")))
            } else {
                f64::from_le_bytes(*cursor.take(8)?.first_chunk().expect("eight bytes were taken"))
            };
            double(value, &mut column.values).map_err(|why| wrong(cursor, why))?;
        }
        Type::Bytes(logical) | Type::Fixed(_, logical) => {
            let bytes = if let Type::Fixed(size, _) = of { cursor.take(*size)? } else { cursor.run()? };
            match (&mut column.values, logical) {
                (Values::Decimal128(v, precision, scale), Logical::Decimal(written)) => {
                    let value = unscaled(bytes).and_then(|value| rescaled(value, *written, *precision, *scale));
                    v.push(value.ok_or_else(|| wrong(cursor, "a decimal that the column cannot hold"))?);
                }
                (Values::Binary(run), _) => {
                    if !run.push(bytes) {
                        return Err(wrong(cursor, FULL));
                    }
                }
                _ => unreachable!("the plan was made for this column"),
            }
        }
        Type::String => {
            let bytes = cursor.run()?;
            if simdutf8::basic::from_utf8(bytes).is_err() {
                return Err(wrong(cursor, "expected UTF-8"));
            }
            // It says of the column that it has one more.
            return text::push(column, bytes).map_err(|why| wrong(cursor, why));
        }
        Type::Enum(symbols) => {
            let symbol = usize::try_from(cursor.long()?).ok().and_then(|at| symbols.get(at));
            let Some(symbol) = symbol else { return Err(wrong(cursor, "no such symbol of the enum")) };
            if let Values::Utf8(run) = &mut column.values
                && !run.push(symbol.as_bytes())
            {
                return Err(wrong(cursor, FULL));
            }
        }
        Type::Array(_) | Type::Map(_) | Type::Union(_) | Type::Record(_) => unreachable!("these are not plain"),
    }
    column.valid();
    Ok(())
}

/// A whole number, a date, or a time counted from somewhere, into a column. Shared with Protobuf.
pub(in crate::format) fn whole_number(value: i64, values: &mut Values) -> Result<(), &'static str> {
    whole(value, Logical::None, values)
}

fn whole(value: i64, logical: Logical, values: &mut Values) -> Result<(), &'static str> {
    const TIME: &str = "time out of range";
    let of_day = |own: TimeUnit| {
        let from = if let Logical::Time(unit) = logical { unit } else { own };
        let time = temporal::in_unit(value, from, own).ok_or(TIME)?;
        if (0..86_400 * temporal::per_second(own)).contains(&time) { Ok(time) } else { Err(TIME) }
    };
    match values {
        Values::Int8(v) => v.push(value.try_into().map_err(|_| RANGE)?),
        Values::Int16(v) => v.push(value.try_into().map_err(|_| RANGE)?),
        Values::Int32(v) => v.push(value.try_into().map_err(|_| RANGE)?),
        Values::Int64(v) => v.push(value),
        Values::Float32(v) => v.push(value as f32),
        Values::Float64(v) => v.push(value as f64),
        Values::Decimal128(v, precision, scale) => {
            v.push(rescaled(i128::from(value), 0, *precision, *scale).ok_or(RANGE)?);
        }
        Values::Timestamp(v, own, unit) => {
            let from = if let Logical::Timestamp(unit) = logical { unit } else { *unit };
            let time = temporal::in_unit(value, from, *own).filter(|time| temporal::has_four_digit_year(*time, *own));
            v.push(time.ok_or(TIME)?);
        }
        Values::Date32(v) => {
            let day = i32::try_from(value).ok().filter(|day| temporal::has_four_digit_year(i64::from(*day) * 86_400, TimeUnit::Second));
            v.push(day.ok_or("date out of range")?);
        }
        Values::Time32(v, own) => v.push(of_day(*own)?.try_into().map_err(|_| RANGE)?),
        Values::Time64(v, own) => v.push(of_day(*own)?),
        _ => return Err("a whole number is not what the column holds"),
    }
    Ok(())
}

/// A finite double into a column. Shared with Protobuf.
pub(in crate::format) fn double(value: f64, values: &mut Values) -> Result<(), &'static str> {
    if !value.is_finite() {
        return Err("not a finite number");
    }
    match values {
        Values::Float64(v) => v.push(value),
        Values::Float32(v) => {
            let single = value as f32;
            if !single.is_finite() {
                return Err(RANGE);
            }
            v.push(single);
        }
        _ => return Err("a floating-point number is not what the column holds"),
    }
    Ok(())
}

/// A two's complement number of any length, most significant byte first.
fn unscaled(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first()? & 0x80 != 0;
    let extended = bytes.len().saturating_sub(16);
    let filler = if negative { 0xff } else { 0 };
    if bytes[..extended].iter().any(|b| *b != filler) || (extended > 0 && (bytes[extended] & 0x80 != 0) != negative) {
        return None;
    }
    let start: i128 = if negative { -1 } else { 0 };
    Some(bytes[extended..].iter().fold(start, |value, byte| value << 8 | i128::from(*byte)))
}

/// A decimal with another number of digits behind the point; `None` where digits would be lost or do not fit.
fn rescaled(value: i128, from: i64, precision: u8, to: i8) -> Option<i128> {
    let step = i64::from(to).checked_sub(from)?;
    let factor = 10_i128.checked_pow(u32::try_from(step.unsigned_abs()).ok()?);
    let value = match (value, factor) {
        (0, _) => 0,
        (value, Some(factor)) if step >= 0 => value.checked_mul(factor)?,
        (value, Some(factor)) if value % factor == 0 => value / factor,
        _ => return None,
    };
    (value.unsigned_abs() < 10_u128.pow(u32::from(precision))).then_some(value)
}
