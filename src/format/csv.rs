//! CSV (RFC 4180): one record's value is one line, its fields are the columns in the order they were declared.
//!
//! Always: what [`CsvEncoder`] writes, [`CsvReader`] reads back as the same row. NULL is a field without quotes that
//! says what `csv.null` says (nothing, where it is not given); the same text between quotes is a text. A line with
//! another number of fields, with a quote that nothing closes or with text behind one that closes a field, is no row.
//! Called by the decoder, and by sinks.

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;

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
    rule: CsvRule,
    unquoted: Vec<u8>,
}

impl CsvReader {
    pub(super) fn new(rule: &CsvRule) -> Self {
        Self { rule: rule.clone(), unquoted: Vec::new() }
    }

    /// Reads one line into the columns. On a fault they may be uneven.
    pub(super) fn read(&mut self, value: &[u8], columns: &mut [Column]) -> Read<()> {
        if let Err(bad) = simdutf8::compat::from_utf8(value) {
            return Err(Fault::new(bad.valid_up_to(), "expected UTF-8"));
        }
        if columns.len() > 1 && value.iter().all(|b| matches!(b, b'\r' | b'\n')) {
            return Err(Fault::new(0, "empty value"));
        }
        let (mut fields, mut columns) = (Fields::new(value, self.rule.delimiter), columns.iter_mut());
        while let Some(field) = fields.next(&mut self.unquoted)? {
            let Some(column) = columns.next() else { return Err(Fault::new(field.start, "more fields than the stream has columns")) };
            if !field.is_null(&self.rule) {
                text::push(column, field.text).map_err(|why| Fault::new(field.start, why).of(&column.name))?;
            } else if column.nullable {
                column.push_null();
            } else {
                return Err(Fault::new(field.start, "null, and the column is NOT NULL").of(&column.name));
            }
        }
        match columns.next() {
            Some(_) => Err(Fault::new(value.len(), "fewer fields than the stream has columns")),
            None => Ok(()),
        }
    }
}

/// A field, its quotes read.
struct FieldText<'a> {
    start: usize,
    quoted: bool,
    text: &'a [u8],
}

impl FieldText<'_> {
    fn is_null(&self, rule: &CsvRule) -> bool {
        !self.quoted && self.text == rule.null.as_bytes()
    }
}

/// The fields of one line, in order.
struct Fields<'a> {
    line: &'a [u8],
    delimiter: u8,
    pos: usize,
    ended: bool,
}

impl<'a> Fields<'a> {
    const fn new(line: &'a [u8], delimiter: u8) -> Self {
        Self { line, delimiter, pos: 0, ended: false }
    }

    /// The next field; `None` behind the last, where nothing but ends of lines may follow. A quote that does not begin a
    /// field is a letter like any other.
    fn next<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Read<Option<FieldText<'s>>>
    where
        'a: 's,
    {
        let start = self.pos;
        if self.ended {
            let over = self.line[start..].iter().all(|b| matches!(b, b'\r' | b'\n'));
            return if over { Ok(None) } else { Err(Fault::new(start, "more than one line")) };
        }
        let quoted = self.line.get(start) == Some(&b'"');
        let text = if quoted {
            self.unquote(scratch)?;
            scratch.as_slice()
        } else {
            let ends = |b: &u8| *b == self.delimiter || matches!(b, b'\r' | b'\n');
            self.pos = self.line[start..].iter().position(ends).map_or(self.line.len(), |len| start + len);
            &self.line[start..self.pos]
        };
        match self.line.get(self.pos) {
            Some(byte) if *byte == self.delimiter => self.pos += 1,
            None | Some(b'\r' | b'\n') => self.ended = true,
            Some(_) => return Err(Fault::new(self.pos, "text behind a closing quote")),
        }
        Ok(Some(FieldText { start, quoted, text }))
    }

    /// Reads what stands between quotes, where a quote is written twice.
    fn unquote(&mut self, out: &mut Vec<u8>) -> Read<()> {
        out.clear();
        let mut from = self.pos + 1;
        while let Some(len) = self.line[from..].iter().position(|b| *b == b'"') {
            let quote = from + len;
            out.extend_from_slice(&self.line[from..quote]);
            self.pos = quote + 1;
            if self.line.get(self.pos) != Some(&b'"') {
                return Ok(());
            }
            out.push(b'"');
            from = self.pos + 1;
        }
        Err(Fault::new(self.line.len(), "a quote is not closed"))
    }
}

/// The fields of a line, NULL as none; `None` where it is no line, or has more fields than a stream has columns.
#[must_use]
pub fn csv_fields(rule: &CsvRule, line: &[u8]) -> Option<Vec<Option<String>>> {
    let (mut fields, mut scratch, mut texts) = (Fields::new(line, rule.delimiter), Vec::new(), Vec::new());
    while let Some(field) = fields.next(&mut scratch).ok()? {
        if texts.len() >= MAX_FIELDS {
            return None;
        }
        texts.push(if field.is_null(rule) { None } else { Some(std::str::from_utf8(field.text).ok()?.to_owned()) });
    }
    Some(texts)
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
