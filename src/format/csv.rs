//! CSV (RFC 4180): one record's value is one line, its fields are the columns in the order they were declared.
//!
//! Always: what [`CsvEncoder`] writes, [`CsvReader`] reads back as the same row. NULL is a field without quotes that
//! says what `csv.null` says (nothing, where it is not given); the same text between quotes is a text. A line with
//! another number of fields, or with a quote that nothing closes, is no row. Called by the decoder, and by sinks.

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, TimeUnit};
use csv_core::{ReadFieldResult, Reader};

use super::column::Column;
use super::encode::{Encoded, Rows};
use super::json::{Fault, Read, Writer};
use super::text;

/// More fields are no line of a stream's.
const MAX_FIELDS: usize = 1_000;

/// How the fields of a line stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvRule {
    /// What stands between two fields.
    pub delimiter: u8,
    /// What a field without quotes says where it is NULL.
    pub null: String,
}

impl Default for CsvRule {
    fn default() -> Self {
        Self { delimiter: b',', null: String::new() }
    }
}

/// Reads lines. Kept between records for its memory.
#[derive(Debug)]
pub(super) struct CsvReader {
    core: Reader,
    null: Vec<u8>,
    field: Vec<u8>,
}

impl CsvReader {
    pub(super) fn new(rule: &CsvRule) -> Self {
        let core = csv_core::ReaderBuilder::new().delimiter(rule.delimiter).build();
        Self { core, null: rule.null.clone().into_bytes(), field: vec![0; 256] }
    }

    /// Reads one line into the columns. On a fault they may be uneven.
    pub(super) fn read(&mut self, value: &[u8], columns: &mut [Column]) -> Read<()> {
        if let Err(bad) = simdutf8::compat::from_utf8(value) {
            return Err(Fault::new(bad.valid_up_to(), "expected UTF-8"));
        }
        if value.is_empty() && columns.len() > 1 {
            return Err(Fault::new(0, "empty value"));
        }
        // Inside quotes a quote is written twice, so a line that is whole has an even number of them.
        if !value.iter().filter(|b| **b == b'"').count().is_multiple_of(2) {
            return Err(Fault::new(value.len(), "a quote is not closed"));
        }
        self.core.reset();
        let (mut pos, mut ended) = (0, value.is_empty());
        if value.is_empty() {
            self.field_into(0, 0, false, &mut columns[0])?;
        }
        let mut columns = columns[usize::from(value.is_empty())..].iter_mut();
        while !ended {
            let (start, quoted) = (pos, value.get(pos) == Some(&b'"'));
            let mut len = 0;
            loop {
                let (result, taken, written) = self.core.read_field(&value[pos..], &mut self.field[len..]);
                (pos, len) = (pos + taken, len + written);
                match result {
                    // All of it is read: asked once more with nothing, the reader says how it ends.
                    ReadFieldResult::InputEmpty => {}
                    ReadFieldResult::OutputFull => self.field.resize(self.field.len() * 2, 0),
                    ReadFieldResult::Field { record_end } => {
                        ended = record_end;
                        break;
                    }
                    ReadFieldResult::End => return Err(Fault::new(start, "empty value")),
                }
            }
            let Some(column) = columns.next() else { return Err(Fault::new(start, "more fields than the stream has columns")) };
            self.field_into(start, len, quoted, column)?;
        }
        if !value[pos..].iter().all(|b| matches!(b, b'\r' | b'\n')) {
            return Err(Fault::new(pos, "more than one line"));
        }
        match columns.next() {
            Some(_) => Err(Fault::new(value.len(), "fewer fields than the stream has columns")),
            None => Ok(()),
        }
    }

    fn field_into(&self, start: usize, len: usize, quoted: bool, column: &mut Column) -> Read<()> {
        let field = &self.field[..len];
        if !quoted && field == self.null {
            if !column.nullable {
                return Err(Fault::new(start, "null, and the column is NOT NULL").of(&column.name));
            }
            column.push_null();
            return Ok(());
        }
        text::push(column, field).map_err(|why| Fault::new(start, why).of(&column.name))
    }
}

/// The fields of a line, NULL as none; `None` where it is no line.
#[must_use]
pub fn csv_fields(rule: &CsvRule, line: &[u8]) -> Option<Vec<Option<String>>> {
    // A line has at most so many fields, and of a stream each is one column.
    let most = 1 + line.iter().filter(|b| **b == rule.delimiter).count();
    if most > MAX_FIELDS {
        return None;
    }
    let mut reader = CsvReader::new(rule);
    let mut width = most;
    while width > 0 {
        let column = |_| Column::new("field", &DataType::Utf8, true, TimeUnit::Millisecond);
        let mut columns: Vec<Column> = (0..width).map(column).collect();
        if reader.read(line, &mut columns).is_ok() {
            let texts = columns.iter_mut().map(|c| c.finish().as_string::<i32>().iter().next().flatten().map(str::to_owned));
            return Some(texts.collect());
        }
        // Delimiters between quotes are none.
        width -= 1;
    }
    None
}

/// Writes rows as lines without an end of line, one a record.
#[derive(Clone, Debug)]
pub struct CsvEncoder {
    rule: CsvRule,
}

enum Field {
    Text(StringArray),
    /// What JSON writes of it, without quotes.
    Plain(Box<Writer>),
}

impl Field {
    fn of(array: &ArrayRef) -> Self {
        match array.data_type() {
            DataType::Utf8 => Self::Text(array.as_string::<i32>().clone()),
            _ => Self::Plain(Box::new(Writer::of(array))),
        }
    }
}

impl CsvEncoder {
    pub(super) const fn new(rule: CsvRule) -> Self {
        Self { rule }
    }

    pub(super) fn encode(&self, rows: &Rows) -> Encoded {
        let fields: Vec<Field> = rows.columns.iter().map(Field::of).collect();
        let mut scratch = Vec::new();
        rows.encode(|row, out| {
            for (at, (field, column)) in fields.iter().zip(&rows.columns).enumerate() {
                if at > 0 {
                    out.push(self.rule.delimiter);
                }
                if column.is_null(row) {
                    out.extend_from_slice(self.rule.null.as_bytes());
                    continue;
                }
                match field {
                    Field::Text(texts) => self.quoted(texts.value(row).as_bytes(), out),
                    Field::Plain(writer) => {
                        scratch.clear();
                        writer.write(row, &mut scratch).map_err(|why| (at, why))?;
                        // Neither times nor base64 have anything that JSON escapes.
                        let bare = scratch.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(&scratch);
                        self.quoted(bare, out);
                    }
                }
            }
            Ok(())
        })
    }

    /// A field, between quotes where it would be read as something else without.
    fn quoted(&self, text: &[u8], out: &mut Vec<u8>) {
        let plain = text != self.rule.null.as_bytes()
            && !text.is_empty()
            && !text.iter().any(|b| *b == self.rule.delimiter || matches!(b, b'"' | b'\r' | b'\n'));
        if plain {
            out.extend_from_slice(text);
            return;
        }
        out.push(b'"');
        for byte in text {
            if *byte == b'"' {
                out.push(b'"');
            }
            out.push(*byte);
        }
        out.push(b'"');
    }
}
