//! Recordings: files of readings, one row a measurement time, as a stream of JSON objects.
//!
//! Reads NDJSON, CSV (with a header line) and Parquet, each also gzipped where that makes sense. Always: a
//! row is handed on as one JSON object with the file's own column names; an empty CSV field is null. Bad
//! rows name the line, never its content.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use arrow::json::LineDelimitedWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value};

use crate::time::Timestamp;

/// What is wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be read.
    #[error("could not read {}: {why}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// Nobody knows this kind of file.
    #[error("{}: not a recording we can read; it should end in .csv, .ndjson, .jsonl or .parquet, the first three also with .gz", .0.display())]
    Kind(PathBuf),
    /// A row is not what it should be.
    #[error("{} row {row}: {why}", path.display())]
    Row {
        /// Which file.
        path: PathBuf,
        /// Which row, from 1.
        row: u64,
        /// What is wrong.
        why: String,
    },
}

/// One row of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordingRow {
    /// The row as JSON.
    pub json: Vec<u8>,
    /// The key column's value.
    pub key: Option<String>,
    /// The time column's value.
    pub time: Option<Timestamp>,
}

/// How a file's rows become records.
#[derive(Clone, Debug)]
pub struct RecordingOptions {
    /// The column that becomes the record's key.
    pub key: String,
    /// The column that is the event time.
    pub time: String,
}

/// A recording being read.
pub struct Recording {
    path: PathBuf,
    options: RecordingOptions,
    source: Source,
    row: u64,
    /// Bytes of the file, for a progress bar.
    pub bytes: u64,
}

enum Source {
    Lines(Box<dyn BufRead>),
    Csv { reader: Box<dyn BufRead>, names: Vec<String> },
    Parquet { reader: Box<ParquetRecordBatchReader>, ready: std::vec::IntoIter<Vec<u8>> },
}

impl Recording {
    /// Opens a file; its kind is told by its name.
    pub fn open(path: &Path, options: RecordingOptions) -> Result<Self, RecordingError> {
        let unreadable = |e: &dyn std::fmt::Display| RecordingError::Unreadable { path: path.to_owned(), why: e.to_string() };
        let file = File::open(path).map_err(|e| unreadable(&e))?;
        let bytes = file.metadata().map_err(|e| unreadable(&e))?.len();
        let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        let (stem, gzipped) = name.strip_suffix(".gz").map_or((name.as_str(), false), |stem| (stem, true));
        let plain = |file: File| -> Box<dyn BufRead> {
            let raw: Box<dyn Read> = if gzipped { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
            Box::new(BufReader::with_capacity(1 << 16, raw))
        };
        let source = if [".ndjson", ".jsonl", ".json"].iter().any(|e| stem.ends_with(e)) {
            Source::Lines(plain(file))
        } else if stem.ends_with(".csv") {
            let mut reader = plain(file);
            let header = read_csv_line(&mut reader).map_err(|e| unreadable(&e))?.ok_or_else(|| unreadable(&"it is empty"))?;
            let names = header.into_iter().map(|field| field.text.trim_start_matches('\u{feff}').to_owned()).collect();
            Source::Csv { reader, names }
        } else if stem.ends_with(".parquet") && !gzipped {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| unreadable(&e))?;
            let reader = builder.build().map_err(|e| unreadable(&e))?;
            Source::Parquet { reader: Box::new(reader), ready: Vec::new().into_iter() }
        } else {
            return Err(RecordingError::Kind(path.to_owned()));
        };
        Ok(Self { path: path.to_owned(), options, source, row: 0, bytes })
    }

    /// The next row, or `None` at the end.
    pub fn next_row(&mut self) -> Result<Option<RecordingRow>, RecordingError> {
        let json = match self.next_json()? {
            Some(json) => json,
            None => return Ok(None),
        };
        self.row += 1;
        let object: Map<String, Value> = serde_json::from_slice(&json).map_err(|e| self.wrong(&format!("not a JSON object: {e}")))?;
        let key = match object.get(&self.options.key) {
            Some(Value::String(text)) => Some(text.clone()),
            None | Some(Value::Null) => None,
            Some(other) => Some(other.to_string()),
        };
        let time = match object.get(&self.options.time) {
            Some(Value::String(text)) => Some(
                Timestamp::parse(text).ok_or_else(|| self.wrong(&format!("column \"{}\" is not an ISO 8601 time", self.options.time)))?,
            ),
            Some(Value::Number(n)) => n.as_i64().map(Timestamp),
            _ => None,
        };
        Ok(Some(RecordingRow { json, key, time }))
    }

    fn wrong(&self, why: &str) -> RecordingError {
        RecordingError::Row { path: self.path.clone(), row: self.row, why: why.to_owned() }
    }

    fn next_json(&mut self) -> Result<Option<Vec<u8>>, RecordingError> {
        let (path, row) = (self.path.clone(), self.row + 1);
        let wrong = |why: String| RecordingError::Row { path: path.clone(), row, why };
        match &mut self.source {
            Source::Lines(reader) => loop {
                let mut line = Vec::new();
                if reader.read_until(b'\n', &mut line).map_err(|e| wrong(e.to_string()))? == 0 {
                    return Ok(None);
                }
                while line.last().is_some_and(u8::is_ascii_whitespace) {
                    line.pop();
                }
                if !line.is_empty() {
                    return Ok(Some(line));
                }
            },
            Source::Csv { reader, names } => {
                let Some(fields) = read_csv_line(reader).map_err(|e| wrong(e.to_string()))? else { return Ok(None) };
                if fields.len() != names.len() {
                    return Err(wrong(format!("it has {} fields, the header has {}", fields.len(), names.len())));
                }
                let text_columns = [&self.options.key, &self.options.time];
                let object: Map<String, Value> =
                    names.iter().zip(fields).map(|(name, field)| (name.clone(), field.value(text_columns.contains(&name)))).collect();
                Ok(Some(serde_json::to_vec(&object).expect("an object of plain values")))
            }
            Source::Parquet { reader, ready } => loop {
                if let Some(json) = ready.next() {
                    return Ok(Some(json));
                }
                let Some(batch) = reader.next() else { return Ok(None) };
                let batch = batch.map_err(|e| wrong(e.to_string()))?;
                let mut text = Vec::new();
                let mut writer = LineDelimitedWriter::new(&mut text);
                writer.write(&batch).and_then(|()| writer.finish()).map_err(|e| wrong(e.to_string()))?;
                *ready = text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter();
            },
        }
    }
}

/// One field of a CSV line.
struct Field {
    text: String,
    quoted: bool,
}

impl Field {
    /// A number where it is one and is not meant as text, null where it is empty, else text.
    fn value(self, as_text: bool) -> Value {
        if self.text.is_empty() && !self.quoted {
            return Value::Null;
        }
        let leading_zero = self.text.len() > 1 && self.text.starts_with('0') && !self.text.starts_with("0.");
        if !as_text && !self.quoted && !leading_zero {
            match self.text.as_str() {
                "true" => return Value::Bool(true),
                "false" => return Value::Bool(false),
                text => {
                    if let Ok(Value::Number(n)) = serde_json::from_str(text) {
                        return Value::Number(n);
                    }
                }
            }
        }
        Value::String(self.text)
    }
}

/// Reads one CSV record (RFC 4180: quotes may hold commas, doubled quotes and line breaks).
fn read_csv_line(reader: &mut dyn BufRead) -> std::io::Result<Option<Vec<Field>>> {
    let mut line = Vec::new();
    loop {
        let before = line.len();
        if reader.read_until(b'\n', &mut line)? == 0 {
            if before == 0 {
                return Ok(None);
            }
            break;
        }
        if line.iter().filter(|b| **b == b'"').count() % 2 == 0 {
            if line.iter().all(u8::is_ascii_whitespace) {
                line.clear();
                continue;
            }
            break;
        }
    }
    while matches!(line.last(), Some(b'\n' | b'\r')) {
        line.pop();
    }
    let line = String::from_utf8(line).map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8"))?;
    let mut fields = Vec::new();
    let mut rest = line.as_str();
    loop {
        if let Some(inner) = rest.strip_prefix('"') {
            let (text, after) = quoted(inner);
            fields.push(Field { text, quoted: true });
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None => break,
            }
        } else {
            match rest.split_once(',') {
                Some((text, next)) => {
                    fields.push(Field { text: text.to_owned(), quoted: false });
                    rest = next;
                }
                None => {
                    fields.push(Field { text: rest.to_owned(), quoted: false });
                    break;
                }
            }
        }
    }
    Ok(Some(fields))
}

fn quoted(inner: &str) -> (String, &str) {
    let mut text = String::new();
    let mut rest = inner;
    loop {
        match rest.split_once('"') {
            Some((part, after)) => {
                text.push_str(part);
                match after.strip_prefix('"') {
                    Some(next) => {
                        text.push('"');
                        rest = next;
                    }
                    None => return (text, after),
                }
            }
            None => {
                text.push_str(rest);
                return (text, "");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &[u8]) -> Result<Vec<RecordingRow>, RecordingError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("written");
        let options = RecordingOptions { key: "patient_id".to_owned(), time: "ts".to_owned() };
        let mut recording = Recording::open(&path, options)?;
        let mut rows = Vec::new();
        while let Some(row) = recording.next_row()? {
            rows.push(row);
        }
        Ok(rows)
    }

    #[test]
    fn csv_rows_become_objects_with_numbers_nulls_and_text_ids() {
        let rows = read("a.csv", b"patient_id,ts,hr,note\n007,1970-01-01T00:00:01Z,80.5,\"a, \"\"b\"\"\"\n7,1970-01-01T00:00:02Z,,x\n")
            .expect("reads");
        assert_eq!(rows.len(), 2);
        assert_eq!(
            String::from_utf8_lossy(&rows[0].json),
            r#"{"patient_id":"007","ts":"1970-01-01T00:00:01Z","hr":80.5,"note":"a, \"b\""}"#
        );
        assert_eq!((rows[0].key.as_deref(), rows[0].time), (Some("007"), Some(Timestamp(1000))));
        assert!(String::from_utf8_lossy(&rows[1].json).contains(r#""patient_id":"7","#), "an id stays text");
        assert!(String::from_utf8_lossy(&rows[1].json).contains(r#""hr":null"#));
    }

    #[test]
    fn ndjson_is_read_also_gzipped() {
        use std::io::Write;
        let line = b"{\"patient_id\":\"p\",\"ts\":5}\n\n";
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(line).expect("written");
        assert_eq!(read("a.ndjson.gz", &gz.finish().expect("finished")).expect("reads").len(), 1);
        assert_eq!(read("a.ndjson", line).expect("reads")[0].time, Some(Timestamp(5)));
    }

    #[test]
    fn a_bad_row_names_its_number_and_not_its_content() {
        let error = read("a.ndjson", b"{\"patient_id\":\"secret\",\"ts\":1}\n{\"patient_id\":\"secret\"").expect_err("refused").to_string();
        assert!(error.contains("row 2") && !error.contains("secret"), "{error}");
        assert!(matches!(read("a.xml", b""), Err(RecordingError::Kind(_))));
    }
}
