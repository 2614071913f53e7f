//! Rows as Avro: the schema of a stream's columns, [`record_schema`], and values under it, [`AvroWriter`].
//!
//! Always: a column that may be NULL is a union with null first and null as its default, so that a column can be added
//! and taken away; what was written is what the decoder reads back. A double that is not finite fails its row.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, TimeUnit};
use serde_json::{Value, json};

use super::super::encode::{Cells, Encoded, Rows};
use super::super::schema::{FieldSpec, SchemaError};

/// The schema that rows of these columns are written with; `name` is the record's.
pub(in crate::format) fn record_schema<'a>(name: &str, fields: impl Iterator<Item = &'a FieldSpec>) -> Result<String, SchemaError> {
    let name = identifier(name);
    let mut names = BTreeSet::from([name.clone()]);
    let fields = fields
        .map(|f| {
            let of = json_type(&f.data_type, &format!("{name}_{}", f.name), &f.name, &mut names)?;
            field(&f.name, &of, f.nullable)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(json!({ "type": "record", "name": name, "fields": fields }).to_string())
}

/// A name with what Avro's may not have replaced.
fn identifier(text: &str) -> String {
    let name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() { format!("_{name}") } else { name }
}

fn field(name: &str, of: &Value, nullable: bool) -> Result<Value, SchemaError> {
    if identifier(name) != name {
        return Err(SchemaError::Name { field: name.to_owned(), format: "Avro" });
    }
    Ok(if nullable { json!({ "name": name, "type": ["null", of], "default": null }) } else { json!({ "name": name, "type": of }) })
}

/// The type of a column or of a part of one. `record` is what a struct there would be called; `names` are those that are taken.
fn json_type(data_type: &DataType, record: &str, column: &str, names: &mut BTreeSet<String>) -> Result<Value, SchemaError> {
    let logical = |of: &str, logical: &str| json!({ "type": of, "logicalType": logical });
    Ok(match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => json!("int"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Utf8 => json!("string"),
        DataType::Binary => json!("bytes"),
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _) => logical("long", "timestamp-millis"),
        DataType::Timestamp(TimeUnit::Microsecond, _) => logical("long", "timestamp-micros"),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => logical("long", "timestamp-nanos"),
        DataType::Date32 => logical("int", "date"),
        DataType::Time32(TimeUnit::Millisecond) => logical("int", "time-millis"),
        DataType::Time64(TimeUnit::Microsecond) => logical("long", "time-micros"),
        // Avro has no word for these: they count the column's own unit.
        DataType::Time32(_) => json!("int"),
        DataType::Time64(_) => json!("long"),
        DataType::Decimal128(precision, scale) => {
            json!({ "type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale })
        }
        DataType::Struct(fields) => {
            let mut name = identifier(record);
            while !names.insert(name.clone()) {
                name.push('_');
            }
            let fields = fields
                .iter()
                .map(|f| field(f.name(), &json_type(f.data_type(), &format!("{name}_{}", f.name()), column, names)?, true))
                .collect::<Result<Vec<_>, _>>()?;
            json!({ "type": "record", "name": name, "fields": fields })
        }
        DataType::List(item) => json!({ "type": "array", "items": ["null", json_type(item.data_type(), record, column, names)?] }),
        other => return Err(SchemaError::Type { field: column.to_owned(), data_type: other.clone(), place: "in an Avro record" }),
    })
}

/// Writes rows in Confluent's frame.
#[derive(Clone, Debug)]
pub(in crate::format) struct AvroWriter {
    /// The zero and the schema's id.
    frame: [u8; 5],
    nullable: Vec<bool>,
}

impl AvroWriter {
    /// A writer under the schema that the registry knows by `id`.
    pub(in crate::format) fn new(id: u32, nullable: Vec<bool>) -> Self {
        let mut frame = [0; 5];
        frame[1..].copy_from_slice(&id.to_be_bytes());
        Self { frame, nullable }
    }

    pub(in crate::format) fn encode(&self, rows: &Rows) -> Encoded {
        let columns: Vec<Cells> = rows.columns.iter().map(Cells::of).collect();
        rows.encode(|row, out| {
            out.extend_from_slice(&self.frame);
            for (at, (cells, nullable)) in columns.iter().zip(&self.nullable).enumerate() {
                let written = if *nullable { optional(cells, row, out) } else { value(cells, row, out) };
                written.map_err(|why| (at, why))?;
            }
            Ok(())
        })
    }
}

/// A value of a union with null.
fn optional(cells: &Cells, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
    if cells.is_null(row) {
        long(0, out);
        return Ok(());
    }
    long(1, out);
    value(cells, row, out)
}

fn value(cells: &Cells, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
    match cells {
        Cells::Boolean(v) => out.push(u8::from(v.value(row))),
        Cells::Whole(v) => long(v.value(row), out),
        Cells::Single(v) => out.extend_from_slice(&finite(v.value(row), f32::is_finite)?.to_le_bytes()),
        Cells::Double(v) => out.extend_from_slice(&finite(v.value(row), f64::is_finite)?.to_le_bytes()),
        Cells::Text(v) => run(v.value(row).as_bytes(), out),
        Cells::Bytes(v) => run(v.value(row), out),
        Cells::Timestamp(v, TimeUnit::Second) => long(v.value(row).checked_mul(1_000).ok_or("a time that milliseconds cannot hold")?, out),
        Cells::Timestamp(v, _) => long(v.value(row), out),
        Cells::Decimal(v) => run(shortest(&v.value(row).to_be_bytes()), out),
        Cells::Struct(fields, _) => {
            for (_, field) in fields {
                optional(field, row, out)?;
            }
        }
        Cells::List(lists, items) => {
            let range = Cells::items(lists, row);
            if !range.is_empty() {
                long(range.len() as i64, out);
                for item in range {
                    optional(items, item, out)?;
                }
            }
            long(0, out);
        }
    }
    Ok(())
}

fn finite<T: Copy>(value: T, is_finite: fn(T) -> bool) -> Result<T, &'static str> {
    if is_finite(value) { Ok(value) } else { Err("not a finite number") }
}

fn long(value: i64, out: &mut Vec<u8>) {
    let mut left = (value << 1 ^ value >> 63) as u64;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn run(bytes: &[u8], out: &mut Vec<u8>) {
    long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

/// The fewest bytes of a two's complement number that still have its sign.
fn shortest(bytes: &[u8]) -> &[u8] {
    let sign = bytes[0] & 0x80;
    let filler = if sign == 0 { 0 } else { 0xff };
    let spare = bytes.windows(2).take_while(|pair| pair[0] == filler && pair[1] & 0x80 == sign).count();
    &bytes[spare..]
}
