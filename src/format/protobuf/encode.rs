//! Rows as messages: the schema of a stream's columns, [`message_schema`], and messages of it, [`ProtobufWriter`].
//!
//! Fields are numbered in the order of the columns, so that a column can be added behind the others. Always: what was
//! written is what the decoder reads back. A list has no NULL in Protobuf, neither itself nor in it: such a row fails.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, TimeUnit};

use super::super::encode::{Cells, Encoded, Rows};
use super::super::json::Writer;
use super::super::schema::{FieldSpec, SchemaError};
use super::super::temporal;

/// The schema that rows of these columns are written with; `name` is the message's.
pub(in crate::format) fn message_schema<'a>(name: &str, fields: impl Iterator<Item = &'a FieldSpec>) -> Result<String, SchemaError> {
    let (mut inner, mut stamps) = (Vec::new(), false);
    let mut lines = Vec::new();
    for (at, field) in fields.enumerate() {
        lines.push(line(&field.name, &field.data_type, field.nullable, at + 1, &field.name, &mut inner, &mut stamps)?);
    }
    let import = if stamps { "import \"google/protobuf/timestamp.proto\";\n\n" } else { "" };
    let name = identifier(name);
    Ok(format!("syntax = \"proto3\";\n\n{import}message {name} {{\n{}{}}}\n", inner.concat(), lines.concat()))
}

/// A name with what Protobuf's may not have replaced.
fn identifier(text: &str) -> String {
    let name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("M{name}") }
}

/// A field's line; the messages of its structs go to `inner`.
fn line(
    name: &str,
    data_type: &DataType,
    nullable: bool,
    number: usize,
    column: &str,
    inner: &mut Vec<String>,
    stamps: &mut bool,
) -> Result<String, SchemaError> {
    if identifier(name) != name {
        return Err(SchemaError::Name { field: name.to_owned(), format: "Protobuf" });
    }
    let no = |place| SchemaError::Type { field: column.to_owned(), data_type: data_type.clone(), place };
    let (label, of) = match data_type {
        DataType::List(item) if matches!(item.data_type(), DataType::List(_)) => return Err(no("in a Protobuf message: a list of lists")),
        DataType::List(item) => ("repeated ", item.data_type()),
        DataType::Struct(_) | DataType::Timestamp(..) => ("", data_type),
        _ if nullable => ("optional ", data_type),
        _ => ("", data_type),
    };
    let word = match of {
        DataType::Boolean => "bool".to_owned(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int32".to_owned(),
        DataType::Int64 => "int64".to_owned(),
        DataType::Float32 => "float".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Binary => "bytes".to_owned(),
        DataType::Timestamp(..) => {
            *stamps = true;
            "google.protobuf.Timestamp".to_owned()
        }
        // Dates, times of day and decimals are written as text, in the forms of JSON.
        DataType::Utf8 | DataType::Date32 | DataType::Time32(_) | DataType::Time64(_) | DataType::Decimal128(..) => "string".to_owned(),
        DataType::Struct(fields) => {
            let message = format!("Of_{}_{}", inner.len(), name);
            let place = inner.len();
            inner.push(String::new());
            let mut lines = Vec::new();
            for (at, field) in fields.iter().enumerate() {
                lines.push(line(field.name(), field.data_type(), true, at + 1, column, inner, stamps)?);
            }
            inner[place] = format!("  message {message} {{\n{}  }}\n", lines.iter().map(|l| format!("  {l}")).collect::<String>());
            message
        }
        _ => return Err(no("in a Protobuf message")),
    };
    Ok(format!("  {label}{word} {name} = {number};\n"))
}

/// Writes rows in Confluent's frame.
#[derive(Clone, Debug)]
pub(in crate::format) struct ProtobufWriter {
    /// The zero, the schema's id, and that it is the schema's first message.
    frame: [u8; 6],
    nullable: Vec<bool>,
}

/// A column, ready to be written.
enum Part {
    Cells(Cells),
    /// What JSON writes, without quotes.
    Text(Writer),
    Struct(Vec<Self>, Cells),
    List(Box<Self>, Cells),
}

impl Part {
    fn of(array: &ArrayRef) -> Self {
        use arrow::array::AsArray;
        match array.data_type() {
            DataType::Date32 | DataType::Time32(_) | DataType::Time64(_) | DataType::Decimal128(..) => Self::Text(Writer::of(array)),
            DataType::Struct(_) => Self::Struct(array.as_struct().columns().iter().map(Self::of).collect(), Cells::of(array)),
            DataType::List(_) => Self::List(Box::new(Self::of(array.as_list::<i32>().values())), Cells::of(array)),
            _ => Self::Cells(Cells::of(array)),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Cells(cells) | Self::Struct(_, cells) | Self::List(_, cells) => cells.is_null(row),
            Self::Text(writer) => writer.is_null(row),
        }
    }
}

impl ProtobufWriter {
    /// A writer of the first message of the schema that the registry knows by `id`.
    pub(in crate::format) fn new(id: u32, nullable: Vec<bool>) -> Self {
        let mut frame = [0; 6];
        frame[1..5].copy_from_slice(&id.to_be_bytes());
        Self { frame, nullable }
    }

    pub(in crate::format) fn encode(&self, rows: &Rows) -> Encoded {
        let parts: Vec<Part> = rows.columns.iter().map(Part::of).collect();
        rows.encode(|row, out| {
            out.extend_from_slice(&self.frame);
            for (at, (part, nullable)) in parts.iter().zip(&self.nullable).enumerate() {
                field(part, at + 1, !*nullable, row, out).map_err(|why| (at, why))?;
            }
            Ok(())
        })
    }
}

/// Writes a field. Where it has no presence (`implicit`), its type's zero is not written.
fn field(part: &Part, number: usize, implicit: bool, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
    if part.is_null(row) {
        return if matches!(part, Part::List(..)) { Err("NULL, and a repeated field is not") } else { Ok(()) };
    }
    let Part::List(items, Cells::List(lists, _)) = part else {
        let start = out.len();
        let zero = value(part, number, row, out)?;
        if implicit && zero {
            out.truncate(start);
        }
        return Ok(());
    };
    let range = Cells::items(lists, row);
    if range.clone().any(|item| items.is_null(item)) {
        return Err("a NULL in a list, and a repeated field has none");
    }
    let packed = match &**items {
        Part::Cells(Cells::Text(_) | Cells::Bytes(_) | Cells::Timestamp(..)) | Part::Text(_) | Part::Struct(..) | Part::List(..) => false,
        Part::Cells(_) => !range.is_empty(),
    };
    if !packed {
        for item in range {
            value(items, number, item, out)?;
        }
        return Ok(());
    }
    let mut run = Vec::new();
    for item in range {
        bare(items, item, &mut run)?;
    }
    length_of(number, &run, out);
    Ok(())
}

/// Writes a tag and a value; answers whether it is its type's zero.
fn value(part: &Part, number: usize, row: usize, out: &mut Vec<u8>) -> Result<bool, &'static str> {
    let tag = |wire: u64, out: &mut Vec<u8>| varint((number as u64) << 3 | wire, out);
    Ok(match part {
        Part::Cells(Cells::Text(v)) => {
            length_of(number, v.value(row).as_bytes(), out);
            v.value(row).is_empty()
        }
        Part::Cells(Cells::Bytes(v)) => {
            length_of(number, v.value(row), out);
            v.value(row).is_empty()
        }
        Part::Cells(Cells::Timestamp(v, unit)) => {
            length_of(number, &stamp(v.value(row), *unit), out);
            false
        }
        Part::Cells(cells) => {
            let wire = match cells {
                Cells::Double(_) => 1,
                Cells::Single(_) => 5,
                _ => 0,
            };
            tag(wire, out);
            bare(part, row, out)?
        }
        Part::Text(writer) => {
            let mut text = Vec::new();
            writer.write(row, &mut text)?;
            length_of(number, text.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(&text), out);
            false
        }
        Part::Struct(fields, _) => {
            let mut inner = Vec::new();
            for (at, part) in fields.iter().enumerate() {
                field(part, at + 1, false, row, &mut inner)?;
            }
            length_of(number, &inner, out);
            false
        }
        Part::List(..) => unreachable!("the schema has no lists of lists"),
    })
}

/// Writes a number without its tag; answers whether it is zero.
fn bare(part: &Part, row: usize, out: &mut Vec<u8>) -> Result<bool, &'static str> {
    const INFINITE: &str = "not a finite number";
    Ok(match part {
        Part::Cells(Cells::Boolean(v)) => {
            out.push(u8::from(v.value(row)));
            !v.value(row)
        }
        Part::Cells(Cells::Whole(v)) => {
            varint(v.value(row) as u64, out);
            v.value(row) == 0
        }
        Part::Cells(Cells::Single(v)) if v.value(row).is_finite() => {
            out.extend_from_slice(&v.value(row).to_le_bytes());
            v.value(row).to_bits() == 0
        }
        Part::Cells(Cells::Double(v)) if v.value(row).is_finite() => {
            out.extend_from_slice(&v.value(row).to_le_bytes());
            v.value(row).to_bits() == 0
        }
        _ => return Err(INFINITE),
    })
}

/// A google.protobuf.Timestamp.
fn stamp(value: i64, unit: TimeUnit) -> Vec<u8> {
    let per_second = temporal::per_second(unit);
    let (seconds, nanos) = (value.div_euclid(per_second), value.rem_euclid(per_second) * (1_000_000_000 / per_second));
    let mut out = Vec::with_capacity(16);
    for (number, value) in [(1_u64, seconds), (2, nanos)] {
        if value != 0 {
            varint(number << 3, &mut out);
            varint(value as u64, &mut out);
        }
    }
    out
}

fn length_of(number: usize, bytes: &[u8], out: &mut Vec<u8>) {
    varint((number as u64) << 3 | 2, out);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn varint(mut left: u64, out: &mut Vec<u8>) {
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}
