//! Rows to the values of records, in the format of the stream they are written to: [`Encoder`].
//!
//! Always: what a row was written as, the stream's decoder reads back as the same row. A row that its stream could
//! not hold (a NULL where it has NOT NULL, a half where it has INT, a NaN) fails alone and says its column and why,
//! never the value. Called by sinks and by INSERT.

mod cells;

use arrow::array::{Array, ArrayRef, AsArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::avro::{AvroWriter, record_schema};
use super::csv::CsvEncoder;
use super::json::JsonEncoder;
use super::protobuf::{ProtobufWriter, message_schema};
use super::schema::{FieldSource, Format, SchemaError, StreamSchema};
use crate::registry::{RegistryError, SchemaKind};

pub(super) use cells::Cells;

/// Rows as values of records, one behind the other in one buffer.
#[derive(Debug, Default)]
pub struct Encoded {
    bytes: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
    /// The rows that could not be written and why, in order.
    failed: Vec<(usize, String)>,
}

impl Encoded {
    /// Writes `rows` rows with `write`, which says the column and the reason where a row cannot be written.
    pub(super) fn of(
        rows: usize,
        names: &[String],
        room: usize,
        mut write: impl FnMut(usize, &mut Vec<u8>) -> Result<(), (usize, &'static str)>,
    ) -> Self {
        let mut encoded = Self { bytes: Vec::with_capacity(room), ends: Vec::with_capacity(rows), failed: Vec::new() };
        for row in 0..rows {
            let start = encoded.bytes.len();
            if let Err((column, why)) = write(row, &mut encoded.bytes) {
                encoded.bytes.truncate(start);
                encoded.failed.push((row, format!("{}: {why}", names[column])));
            }
            encoded.ends.push(encoded.bytes.len());
        }
        encoded
    }

    /// How many rows, those that failed included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One row's value, or why it could not be written: the column and the reason, never the value.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn row(&self, row: usize) -> Result<&[u8], &str> {
        if let Ok(at) = self.failed.binary_search_by_key(&row, |(row, _)| *row) {
            return Err(&self.failed[at].1);
        }
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        Ok(&self.bytes[start..self.ends[row]])
    }

    /// The rows that could not be written, in order.
    #[must_use]
    pub fn failed(&self) -> &[(usize, String)] {
        &self.failed
    }
}

/// Why rows cannot be written to a stream.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// The format cannot hold the stream's columns.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The registry does not take the schema, or does not answer.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Writes rows in one stream's format.
#[derive(Clone, Debug)]
pub struct Encoder {
    target: Vec<Target>,
    how: How,
}

/// A column of the stream, and which of the rows' it is; NULL where they have none.
#[derive(Clone, Debug)]
struct Target {
    name: String,
    data_type: DataType,
    nullable: bool,
    from: Option<usize>,
}

#[derive(Clone, Debug)]
enum How {
    /// The rows' own columns, each where the stream has it.
    Json(JsonEncoder),
    Csv(CsvEncoder),
    Avro(AvroWriter),
    Protobuf(ProtobufWriter),
    Raw,
}

impl Encoder {
    /// An encoder of rows of schema `rows`, whose columns are the stream's by name, in any order. Where the stream's
    /// schemas lie in a registry, its own is registered there.
    pub async fn open(stream: &StreamSchema, rows: &SchemaRef) -> Result<Self, EncoderError> {
        let id = match (Self::schema(stream)?, stream.registry()) {
            (None, _) => 0,
            (Some(_), None) => return Err(SchemaError::NoRegistry.into()),
            (Some((kind, text)), Some(rule)) => rule.registry.register(&rule.subject, kind, &text).await?,
        };
        Ok(Self::with_id(stream, rows, id))
    }

    /// The schema that a stream's rows are written with, where its format has one.
    pub fn schema(stream: &StreamSchema) -> Result<Option<(SchemaKind, String)>, SchemaError> {
        let values = stream.fields().iter().filter(|f| f.source == FieldSource::Value);
        let record = stream.registry().map_or("record", |rule| rule.record.as_str());
        match stream.format() {
            Format::Json | Format::Csv | Format::Raw => Ok(None),
            Format::Debezium => Err(SchemaError::ReadOnly),
            Format::Avro => Ok(Some((SchemaKind::Avro, record_schema(record, values)?))),
            Format::Protobuf => Ok(Some((SchemaKind::Protobuf, message_schema(record, values)?))),
        }
    }

    /// The same, where the registry knows the schema by `id`.
    pub(super) fn with_id(stream: &StreamSchema, rows: &SchemaRef, id: u32) -> Self {
        let values = || stream.fields().iter().filter(|f| f.source == FieldSource::Value);
        let target = values().map(|field| Target {
            name: field.name.clone(),
            data_type: field.data_type.clone(),
            nullable: field.nullable,
            from: rows.index_of(&field.name).ok(),
        });
        let how = match stream.format() {
            // A Debezium stream is not written: no encoder of one is opened.
            Format::Json | Format::Debezium => {
                let place = |name: &String| match values().find(|f| f.name == *name) {
                    Some(field) => field.path().into_iter().map(str::to_owned).collect(),
                    None => vec![name.clone()],
                };
                How::Json(JsonEncoder::at(rows, &rows.fields().iter().map(|f| place(f.name())).collect::<Vec<_>>()))
            }
            Format::Csv => How::Csv(CsvEncoder::new(stream.csv().clone())),
            Format::Avro => How::Avro(AvroWriter::new(id, values().map(|f| f.nullable).collect())),
            Format::Protobuf => How::Protobuf(ProtobufWriter::new(id, values().map(|f| f.nullable).collect())),
            Format::Raw => How::Raw,
        };
        Self { target: target.collect(), how }
    }

    /// Writes the rows.
    ///
    /// # Panics
    /// Where `batch` has another number of columns than the encoder's schema.
    #[must_use]
    pub fn encode(&self, batch: &RecordBatch) -> Encoded {
        match &self.how {
            How::Json(json) => json.encode(batch),
            How::Csv(csv) => csv.encode(&self.fit(batch)),
            How::Avro(avro) => avro.encode(&self.fit(batch)),
            How::Protobuf(protobuf) => protobuf.encode(&self.fit(batch)),
            How::Raw => raw(&self.fit(batch)),
        }
    }

    fn fit(&self, batch: &RecordBatch) -> Rows {
        let mut rows = Rows {
            columns: Vec::with_capacity(self.target.len()),
            names: self.target.iter().map(|t| t.name.clone()).collect(),
            len: batch.num_rows(),
            misfits: Vec::new(),
        };
        for (at, target) in self.target.iter().enumerate() {
            let given = match target.from {
                Some(from) => batch.column(from).clone(),
                None => new_null_array(&target.data_type, batch.num_rows()),
            };
            let fitted = rows.fitted(at, &given, target);
            rows.columns.push(fitted);
        }
        rows
    }
}

/// Rows as columns of the stream's own types, in its order.
pub(super) struct Rows {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) names: Vec<String>,
    len: usize,
    /// By row, in the order of the columns: which column does not fit, and why.
    misfits: Vec<(usize, usize, &'static str)>,
}

impl Rows {
    fn fitted(&mut self, at: usize, given: &ArrayRef, target: &Target) -> ArrayRef {
        let cast_to = |array: &ArrayRef, to: &DataType| cast(array, to).unwrap_or_else(|_| new_null_array(to, array.len()));
        let fitted = if given.data_type() == &target.data_type { given.clone() } else { cast_to(given, &target.data_type) };
        // A cast to whole numbers cuts: what was cut does not come back the same.
        let cut = (target.data_type.is_integer() && !given.data_type().is_integer()).then(|| cast_to(&fitted, given.data_type()));
        if fitted.null_count() == 0 && cut.is_none() {
            return fitted;
        }
        let differs = cut.and_then(|back| arrow::compute::kernels::cmp::distinct(given, &back).ok());
        for row in 0..given.len() {
            if given.is_null(row) {
                if !target.nullable {
                    self.misfits.push((row, at, "NULL, and the column is NOT NULL"));
                }
            } else if fitted.is_null(row) || differs.as_ref().is_some_and(|d| d.value(row)) {
                self.misfits.push((row, at, "a value that the stream's column cannot hold"));
            }
        }
        fitted
    }

    /// Writes the rows that fit with `write`.
    pub(super) fn encode(&self, mut write: impl FnMut(usize, &mut Vec<u8>) -> Result<(), (usize, &'static str)>) -> Encoded {
        let mut misfits = self.misfits.clone();
        misfits.sort_unstable();
        let mut misfits = misfits.into_iter().peekable();
        Encoded::of(self.len, &self.names, self.len * 16 * (self.columns.len() + 1), |row, out| {
            let mut first = None;
            while let Some((_, column, why)) = misfits.next_if(|(at, ..)| *at == row) {
                first = first.or(Some((column, why)));
            }
            first.map_or_else(|| write(row, out), Err)
        })
    }
}

/// The value of the one column, as it is.
fn raw(rows: &Rows) -> Encoded {
    let column = &rows.columns[0];
    rows.encode(|row, out| {
        if column.is_null(row) {
            return Err((0, "NULL, and a raw value is not"));
        }
        out.extend_from_slice(match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().value(row).as_bytes(),
            _ => column.as_binary::<i32>().value(row),
        });
        Ok(())
    })
}

#[cfg(test)]
mod tests;
