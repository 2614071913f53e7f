//! Debezium's envelope in JSON: what was done to a row, and the row `before` and `after` it.
//!
//! A record is looked at twice: once for `op` and which of the two rows are there (at the top, or in `payload` where the
//! connector sends schemas along), then its row is read as any JSON object. Always: an insert, an update and a snapshot's
//! row give the row after it; a delete takes its key's row away in a table, and is nothing in a stream, which keeps what
//! was; the null record behind a delete is nothing. Dates and times of day may be numbers, as connectors write them.
//! Called by the decoder, once a record.

use arrow::datatypes::{DataType, Fields, TimeUnit};

use super::column::Column;
use super::json::{Fault, Read, Reader, Shape};
use super::schema::{FieldSource, StreamSchema};

/// What a record did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The columns have one row more.
    Row,
    /// The row of this key is gone.
    Deletion(Vec<u8>),
    /// Nothing that the stream shows.
    Nothing,
}

/// Where the rows lie: at the top, or in `payload`.
const WAYS: [&[&str]; 2] = [&[], &["payload"]];

/// Reads envelopes of one stream.
#[derive(Debug)]
pub(super) struct Debezium {
    /// For `op`, `before` and `after`, of either way.
    look: Reader,
    seen: Vec<Column>,
    /// For the row after, by way.
    after: [Reader; 2],
    /// A table's key columns, for the row before, by way.
    before: Option<([Reader; 2], Vec<Column>)>,
}

impl Debezium {
    pub(super) fn new(schema: &StreamSchema) -> Self {
        let values = || schema.fields().iter().filter(|f| f.source == FieldSource::Value);
        let presence = DataType::Struct(Fields::empty());
        let (mut look, mut seen) = (Shape::default(), Vec::new());
        for way in WAYS {
            for (name, data_type) in [("op", &DataType::Utf8), ("before", &presence), ("after", &presence)] {
                look.add_path(&[way, &[name]].concat(), seen.len());
                seen.push(Column::new(name, data_type, true, TimeUnit::Millisecond));
            }
        }
        let reader = |way: &[&str], row: &str, columns: &mut dyn Iterator<Item = Vec<&str>>| {
            let mut shape = Shape::default();
            for (at, path) in columns.enumerate() {
                shape.add_path(&[way, &[row], &path[..]].concat(), at);
            }
            Reader::new(shape).with_counts()
        };
        let after = WAYS.map(|way| reader(way, "after", &mut values().map(|f| f.path())));
        let keys = schema.key().filter(|_| schema.tombstones()).map(|rule| {
            let field = |name: &String| values().find(|f| f.name == *name).expect("the schema has checked the key's columns");
            rule.columns.iter().map(field).collect::<Vec<_>>()
        });
        let before = keys.map(|keys| {
            let readers = WAYS.map(|way| reader(way, "before", &mut keys.iter().map(|f| f.path())));
            (readers, keys.iter().map(|f| Column::new(&f.name, &f.data_type, false, f.timestamp_unit)).collect())
        });
        Self { look: Reader::new(look), seen, after, before }
    }

    /// Reads one envelope; where it gives a row, as row `row`. On a fault the columns may be uneven.
    pub(super) fn read(&mut self, value: &[u8], columns: &mut [Column], row: usize) -> Read<Change> {
        let read = self.look.read(value, &mut self.seen, 0).and_then(|()| self.what(value.len()));
        self.seen.iter_mut().for_each(|c| c.truncate(0));
        let (way, op) = read?;
        match op {
            Op::Upsert => {
                self.after[way].read(value, columns, row)?;
                Ok(Change::Row)
            }
            Op::Delete => {
                let Some((readers, keys)) = &mut self.before else { return Ok(Change::Nothing) };
                let read = readers[way].read(value, keys, 0);
                let key = read.map(|()| key_text(keys));
                keys.iter_mut().for_each(|c| c.truncate(0));
                Ok(Change::Deletion(key?))
            }
        }
    }

    /// Which way it is and what was done.
    fn what(&self, len: usize) -> Read<(usize, Op)> {
        let mut scratch = Vec::new();
        for (way, seen) in self.seen.chunks(3).enumerate() {
            let there = |column: &Column| !column.last_is_null();
            let op = match seen[0].last_as_key(&mut scratch) {
                None => continue,
                Some(b"c" | b"r" | b"u") => Op::Upsert,
                Some(b"d") => Op::Delete,
                Some(_) => return Err(Fault::new(len, "expected one of c, r, u and d").of("op")),
            };
            return match op {
                Op::Upsert if !there(&seen[2]) => Err(Fault::new(len, "missing, and the op says that there is one").of("after")),
                Op::Delete if self.before.is_some() && !there(&seen[1]) => {
                    Err(Fault::new(len, "missing, and a delete without it has no key").of("before"))
                }
                op => Ok((way, op)),
            };
        }
        Err(Fault::new(len, "expected Debezium's envelope, an object with op, before and after"))
    }
}

#[derive(Clone, Copy)]
enum Op {
    Upsert,
    Delete,
}

/// A key as tables spell it: one column as text, several as a JSON array of texts.
fn key_text(keys: &[Column]) -> Vec<u8> {
    let mut scratch = Vec::new();
    if let [only] = keys {
        return only.last_as_key(&mut scratch).unwrap_or_default().to_vec();
    }
    let parts: Vec<Option<String>> =
        keys.iter().map(|c| c.last_as_key(&mut scratch).map(|text| String::from_utf8_lossy(text).into_owned())).collect();
    serde_json::to_vec(&parts).expect("texts are JSON")
}
