//! Rows to JSON objects, one a row: [`JsonEncoder`].
//!
//! Always: what a row was written as, the decoder reads back as the same row. Times are ISO 8601 in UTC
//! with `Z`, a fraction only where there is one; doubles have the fewest digits that give the same double;
//! NULL is `null`; bytes are base64. A NaN or an infinity has no JSON and fails its row, never its
//! neighbours. Called by sinks, by alerts and by the API.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int64Array, LargeStringArray, ListArray,
    StringArray, StringViewArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit, UInt64Type,
};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;

use super::super::encode::Encoded;
use super::super::{base64, temporal};

/// Writes rows of one schema as JSON objects.
#[derive(Clone, Debug)]
pub struct JsonEncoder {
    /// Each value that is written: its column, and what stands in front of it (braces, comma, the names and colons).
    heads: Vec<(usize, Vec<u8>)>,
    /// The braces behind the last value.
    end: Vec<u8>,
    names: Vec<String>,
}

impl JsonEncoder {
    /// An encoder for rows of `schema`: its names, in its order.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "callers hand over the shared schema they made for this")]
    pub fn new(schema: SchemaRef) -> Self {
        let own: Vec<Vec<String>> = schema.fields().iter().map(|f| vec![f.name().clone()]).collect();
        Self::at(&schema, &own)
    }

    /// An encoder that writes each column at its own path of names; no path begins with another whole one.
    pub(in crate::format) fn at(schema: &Schema, paths: &[Vec<String>]) -> Self {
        let (mut heads, mut end) = (Vec::with_capacity(paths.len()), Vec::new());
        object(&paths.iter().map(Vec::as_slice).enumerate().collect::<Vec<_>>(), &mut end, &mut heads);
        Self { heads, end, names: schema.fields().iter().map(|f| f.name().clone()).collect() }
    }

    /// Writes the rows.
    ///
    /// # Panics
    /// Where `batch` has another number of columns than the encoder's schema.
    #[must_use]
    pub fn encode(&self, batch: &RecordBatch) -> Encoded {
        assert_eq!(batch.num_columns(), self.heads.len(), "rows of another schema");
        let writers: Vec<Writer> = batch.columns().iter().map(Writer::of).collect();
        let rows = batch.num_rows();
        Encoded::of(rows, &self.names, rows * 24 * (writers.len() + 1), |row, out| {
            for (column, head) in &self.heads {
                out.extend_from_slice(head);
                writers[*column].write(row, out).map_err(|why| (*column, why))?;
            }
            out.extend_from_slice(&self.end);
            Ok(())
        })
    }
}

/// Lays out one object: `fields` are its columns with what is left of their paths. What stands in front of each value goes
/// to `heads`; `before` is what has to stand before the next one.
fn object(fields: &[(usize, &[String])], before: &mut Vec<u8>, heads: &mut Vec<(usize, Vec<u8>)>) {
    before.push(b'{');
    for (at, (column, path)) in fields.iter().enumerate() {
        let [name, rest @ ..] = *path else { continue };
        if fields[..at].iter().any(|(_, earlier)| earlier.first() == Some(name)) {
            continue;
        }
        if at > 0 {
            before.push(b',');
        }
        put(name, before);
        before.push(b':');
        if rest.is_empty() {
            heads.push((*column, std::mem::take(before)));
            continue;
        }
        let inside = fields.iter().filter(|(_, path)| path.first() == Some(name)).map(|(column, path)| (*column, &path[1..]));
        object(&inside.collect::<Vec<_>>(), before, heads);
    }
    before.push(b'}');
}

fn head(index: usize, name: &str) -> Vec<u8> {
    let mut head = vec![if index == 0 { b'{' } else { b',' }];
    put(name, &mut head);
    head.push(b':');
    head
}

/// A string, an integer or a finite double, as JSON writes it.
#[inline]
fn put<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("neither a text nor a number can fail, nor can memory that grows");
}

/// One column of a batch, ready to be written value by value.
pub(in crate::format) enum Writer {
    Null,
    Boolean(BooleanArray),
    Integer(Int64Array),
    Unsigned(UInt64Array),
    Single(Float32Array),
    Double(Float64Array),
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    Bytes(BinaryArray),
    /// A number that is already text.
    Number(StringArray),
    Timestamp(Int64Array, TimeUnit),
    Date(Date32Array),
    Time(Int64Array, TimeUnit),
    Struct(Vec<(Vec<u8>, Self)>, Option<NullBuffer>),
    List(ListArray, Box<Self>),
}

impl Writer {
    pub(in crate::format) fn of(array: &ArrayRef) -> Self {
        match array.data_type() {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Boolean(array.as_boolean().clone()),
            DataType::Int64 => Self::Integer(array.as_primitive::<Int64Type>().clone()),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => {
                Self::Integer(to(array, &DataType::Int64).as_primitive::<Int64Type>().clone())
            }
            DataType::UInt64 => Self::Unsigned(array.as_primitive::<UInt64Type>().clone()),
            DataType::Float16 => Self::Single(to(array, &DataType::Float32).as_primitive::<Float32Type>().clone()),
            DataType::Float32 => Self::Single(array.as_primitive::<Float32Type>().clone()),
            DataType::Float64 => Self::Double(array.as_primitive::<Float64Type>().clone()),
            DataType::Utf8 => Self::Text(array.as_string::<i32>().clone()),
            DataType::LargeUtf8 => Self::LargeText(array.as_string::<i64>().clone()),
            DataType::Utf8View => Self::TextView(array.as_string_view().clone()),
            DataType::Binary => Self::Bytes(array.as_binary::<i32>().clone()),
            DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Bytes(to(array, &DataType::Binary).as_binary::<i32>().clone())
            }
            DataType::Timestamp(unit, _) => Self::Timestamp(counts(array), *unit),
            DataType::Date32 => Self::Date(array.as_primitive::<Date32Type>().clone()),
            DataType::Date64 => Self::Date(to(array, &DataType::Date32).as_primitive::<Date32Type>().clone()),
            DataType::Time32(unit) => {
                Self::Time(to(&to(array, &DataType::Int32), &DataType::Int64).as_primitive::<Int64Type>().clone(), *unit)
            }
            DataType::Time64(unit) => Self::Time(counts(array), *unit),
            DataType::Decimal128(..) => {
                let values = array.as_primitive::<Decimal128Type>();
                Self::Number((0..values.len()).map(|row| values.is_valid(row).then(|| values.value_as_string(row))).collect())
            }
            DataType::Decimal256(..) => {
                let values = array.as_primitive::<Decimal256Type>();
                Self::Number((0..values.len()).map(|row| values.is_valid(row).then(|| values.value_as_string(row))).collect())
            }
            DataType::Struct(fields) => {
                let parts = array.as_struct();
                let fields = fields.iter().zip(parts.columns()).enumerate();
                Self::Struct(
                    fields.map(|(index, (field, column))| (head(index, field.name()), Self::of(column))).collect(),
                    parts.nulls().cloned(),
                )
            }
            DataType::List(_) => {
                let lists = array.as_list::<i32>();
                Self::List(lists.clone(), Box::new(Self::of(lists.values())))
            }
            DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item) | DataType::LargeListView(item) => {
                match cast(array, &DataType::List(item.clone())) {
                    Ok(list) => Self::of(&list),
                    Err(_) => Self::Text(texts(array)),
                }
            }
            DataType::Dictionary(_, values) => match cast(array, values) {
                Ok(plain) => Self::of(&plain),
                Err(_) => Self::Text(texts(array)),
            },
            _ => Self::Text(texts(array)),
        }
    }

    /// Writes one value. On an error `out` may have a part of it.
    #[inline]
    pub(in crate::format) fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
        const YEAR: &str = "a time beyond the year 9999";
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        match self {
            Self::Null => {}
            Self::Boolean(v) => out.extend_from_slice(if v.value(row) { b"true" } else { b"false" }),
            Self::Integer(v) => put(&v.value(row), out),
            Self::Unsigned(v) => put(&v.value(row), out),
            Self::Single(v) => {
                let value = v.value(row);
                if !value.is_finite() {
                    return Err("not a finite number");
                }
                put(&value, out);
            }
            Self::Double(v) => {
                let value = v.value(row);
                if !value.is_finite() {
                    return Err("not a finite number");
                }
                put(&value, out);
            }
            Self::Text(v) => put(v.value(row), out),
            Self::LargeText(v) => put(v.value(row), out),
            Self::TextView(v) => put(v.value(row), out),
            Self::Bytes(v) => quoted(out, |out| base64::write(out, v.value(row))),
            Self::Number(v) => out.extend_from_slice(v.value(row).as_bytes()),
            Self::Timestamp(v, unit) => {
                if !quoted(out, |out| temporal::write_timestamp(out, v.value(row), *unit)) {
                    return Err(YEAR);
                }
            }
            Self::Date(v) => {
                if !quoted(out, |out| temporal::write_date(out, v.value(row))) {
                    return Err(YEAR);
                }
            }
            Self::Time(v, unit) => {
                if !quoted(out, |out| temporal::write_time(out, v.value(row), *unit)) {
                    return Err("not a time of day");
                }
            }
            Self::Struct(fields, _) => {
                for (head, field) in fields {
                    out.extend_from_slice(head);
                    field.write(row, out)?;
                }
                out.extend_from_slice(if fields.is_empty() { b"{}" } else { b"}" });
            }
            Self::List(lists, items) => {
                let (start, end) = (lists.value_offsets()[row] as usize, lists.value_offsets()[row + 1] as usize);
                out.push(b'[');
                for item in start..end {
                    if item > start {
                        out.push(b',');
                    }
                    items.write(item, out)?;
                }
                out.push(b']');
            }
        }
        Ok(())
    }

    #[inline]
    pub(in crate::format) fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Null => true,
            Self::Boolean(v) => v.is_null(row),
            Self::Integer(v) | Self::Timestamp(v, _) | Self::Time(v, _) => v.is_null(row),
            Self::Unsigned(v) => v.is_null(row),
            Self::Single(v) => v.is_null(row),
            Self::Double(v) => v.is_null(row),
            Self::Text(v) | Self::Number(v) => v.is_null(row),
            Self::LargeText(v) => v.is_null(row),
            Self::TextView(v) => v.is_null(row),
            Self::Bytes(v) => v.is_null(row),
            Self::Date(v) => v.is_null(row),
            Self::Struct(_, nulls) => nulls.as_ref().is_some_and(|n| n.is_null(row)),
            Self::List(lists, _) => lists.is_null(row),
        }
    }
}

#[inline]
fn quoted<T>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    out.push(b'"');
    let written = write(out);
    out.push(b'"');
    written
}

/// A cast between types that always can be.
fn to(array: &ArrayRef, data_type: &DataType) -> ArrayRef {
    cast(array, data_type).expect("the cast widens, or only renames")
}

/// What a column of times counts, whatever its unit and zone.
fn counts(array: &ArrayRef) -> Int64Array {
    to(array, &DataType::Int64).as_primitive::<Int64Type>().clone()
}

/// Any column as text.
fn texts(array: &ArrayRef) -> StringArray {
    match ArrayFormatter::try_new(array, &FormatOptions::default()) {
        Ok(formatter) => (0..array.len()).map(|row| array.is_valid(row).then(|| formatter.value(row).to_string())).collect(),
        Err(_) => StringArray::new_null(array.len()),
    }
}
