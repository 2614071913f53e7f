//! Record batches to rows: [`Decoder`].
//!
//! Always: every record at or behind the asked-for offset becomes a row, a bad record or a tombstone, and a
//! bad one changes nothing for its neighbours. What a record becomes depends on that record alone. Reasons
//! name columns and places, never values. Called by a stream's feed and by reads of stored history.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;

use super::column::{Column, Values};
use super::csv::CsvReader;
use super::debezium::{Change, Debezium};
use super::framed::{Framed, Stop};
use super::json::{Fault, Read, Reader, Shape};
use super::schema::{FieldSource, Format, KeyRule, Metadata, NULL_KEY, Partitioner, StreamSchema};
use super::temporal;
use crate::bus::partition_for_key;
use crate::record::{Batch, BatchError, Offset, PartitionId, RecordRef};
use crate::registry::{RegistryError, SchemaKind};

/// A decode stops before the next batch once it has read so much: text columns count their bytes in 31 bits,
/// and a batch unpacks to at most 256 MiB.
const MAX_PLAIN_BYTES: usize = 1 << 30;
/// Kafka's "no timestamp".
const NO_TIMESTAMP: i64 = -1;

/// A record that is no row of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Its offset.
    pub offset: Offset,
    /// What is wrong with it: the column, what was expected and the place, never the value.
    pub reason: String,
}

/// A record of a table that deletes its key's row.
#[derive(Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Its offset: it comes behind the rows below it.
    pub offset: Offset,
    /// The record's time in milliseconds.
    pub timestamp: i64,
    /// The record's key.
    pub key: Vec<u8>,
}

/// Where, never whose: a key may be a patient's id.
impl std::fmt::Debug for Tombstone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tombstone").field("offset", &self.offset).field("timestamp", &self.timestamp).finish_non_exhaustive()
    }
}

/// What a run of records became.
#[derive(Debug)]
pub struct Decoded {
    /// The good rows.
    pub rows: RecordBatch,
    /// Each row's offset.
    pub offsets: ScalarBuffer<i64>,
    /// The records that are no row, in order.
    pub bad: Vec<BadRecord>,
    /// The records that delete a row, in order; only where the schema has tombstones.
    pub tombstones: Vec<Tombstone>,
    /// The offset behind what was read. A caller whose batches go further decodes on from here.
    pub next: Offset,
    /// The schema that has to be known before the record at `next` can be read.
    pub wants: Option<u32>,
}

/// Turns record batches of one stream into rows. Kept from call to call for what it has learnt of the
/// producers' habits, which makes it faster and changes nothing.
#[derive(Debug)]
pub struct Decoder {
    schema: Arc<StreamSchema>,
    /// The columns that are read from the value.
    values: Vec<Column>,
    /// The columns that are not.
    metadata: Vec<(Metadata, Column)>,
    /// For each field, whether it is one of `metadata`, and which of its kind.
    order: Vec<(bool, usize)>,
    reader: Reader,
    csv: CsvReader,
    framed: Option<Framed>,
    debezium: Option<Debezium>,
    key: Option<Key>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Key {
    rule: KeyRule,
    /// The key's columns among `values`.
    columns: Vec<usize>,
}

impl Decoder {
    /// A decoder for records of a stream.
    #[must_use]
    pub fn new(schema: Arc<StreamSchema>) -> Self {
        let (mut values, mut metadata, mut order, mut shape) = (Vec::new(), Vec::new(), Vec::new(), Shape::default());
        for field in schema.fields() {
            let column = Column::new(&field.name, &field.data_type, field.nullable, field.timestamp_unit);
            match field.source {
                FieldSource::Value => {
                    shape.add_path(&field.path(), values.len());
                    order.push((false, values.len()));
                    values.push(column);
                }
                FieldSource::Metadata(what) => {
                    order.push((true, metadata.len()));
                    metadata.push((what, column));
                }
            }
        }
        let key = schema.key().map(|rule| {
            let place = |name: &String| values.iter().position(|c| c.name == *name).expect("the schema has checked the key's columns");
            Key { rule: rule.clone(), columns: rule.columns.iter().map(place).collect() }
        });
        let csv = CsvReader::new(schema.csv());
        let debezium = (schema.format() == Format::Debezium).then(|| Debezium::new(&schema));
        let framed = schema.registry().map(|rule| {
            let kind = if schema.format() == Format::Protobuf { SchemaKind::Protobuf } else { SchemaKind::Avro };
            Framed::new(rule.clone(), kind)
        });
        Self { schema, values, metadata, order, reader: Reader::new(shape), csv, framed, debezium, key, scratch: Vec::new() }
    }

    /// The schema of the rows.
    #[must_use]
    pub fn arrow_schema(&self) -> SchemaRef {
        self.schema.arrow()
    }

    /// Turns the records at or behind `from` into rows. The batches are of one partition, in order.
    pub fn decode(&mut self, partition: PartitionId, batches: &[Batch], from: Offset) -> Decoded {
        let mut run = Run { partition, next: from, offsets: Vec::new(), bad: Vec::new(), tombstones: Vec::new(), wants: None };
        let mut plain = 0;
        self.reserve(batches, from);
        for batch in batches {
            if batch.next_offset() <= run.next {
                continue;
            }
            if plain >= MAX_PLAIN_BYTES {
                break;
            }
            // Control batches hold markers of transactions, not readings.
            if !batch.header().is_control() {
                match self.batch(batch, &mut run) {
                    Ok(bytes) => plain += bytes,
                    // The broker has checked the batch at its door, so this is damage behind it. Where the
                    // records end, nobody can say what the rest was.
                    Err(error) => run.bad.push(BadRecord { offset: run.next.max(batch.base_offset()), reason: error.to_string() }),
                }
            }
            if run.wants.is_some() {
                break;
            }
            run.next = batch.next_offset();
        }
        let values: Vec<ArrayRef> = self.values.iter_mut().map(Column::finish).collect();
        let metadata: Vec<ArrayRef> = self.metadata.iter_mut().map(|(_, c)| c.finish()).collect();
        let columns = self.order.iter().map(|(beside, at)| Arc::clone(if *beside { &metadata[*at] } else { &values[*at] })).collect();
        let rows = RecordBatch::try_new(self.schema.arrow(), columns)
            .expect("the columns are the schema's, even, and NULL only where they may be");
        Decoded { rows, offsets: run.offsets.into(), bad: run.bad, tombstones: run.tombstones, next: run.next, wants: run.wants }
    }

    /// The same, with every schema that is not known yet asked of the registry. Decodes at least one record, where there is one.
    pub async fn decode_asking(&mut self, partition: PartitionId, batches: &[Batch], from: Offset) -> Result<Decoded, RegistryError> {
        loop {
            let decoded = self.decode(partition, batches, from);
            let (Some(id), Some(rule)) = (decoded.wants, self.schema.registry()) else { return Ok(decoded) };
            if !decoded.offsets.is_empty() || !decoded.bad.is_empty() || !decoded.tombstones.is_empty() {
                return Ok(decoded);
            }
            let registry = Arc::clone(&rule.registry);
            registry.fetch(id).await?;
        }
    }

    /// Takes room for what the batches say that they hold, so that no column is moved while it grows. No more than one record a
    /// byte is believed.
    fn reserve(&mut self, batches: &[Batch], from: Offset) {
        let rows = batches.iter().filter(|batch| batch.next_offset() > from && !batch.header().is_control());
        let rows = rows.map(|batch| (batch.header().count.max(0) as usize).min(batch.len_bytes())).sum();
        self.values.iter_mut().chain(self.metadata.iter_mut().map(|(_, column)| column)).for_each(|column| column.reserve(rows));
    }

    /// Reads one batch; answers how many plain bytes it had.
    fn batch(&mut self, batch: &Batch, run: &mut Run) -> Result<usize, BatchError> {
        let records = batch.records()?;
        run.offsets.reserve(records.at_most());
        for record in &records {
            let record = record?;
            if record.offset < run.next {
                continue;
            }
            run.next = record.offset.plus(1);
            if self.debezium.is_some() && record.value.is_none() {
                // It lets compaction forget the key; the delete before it has said so.
                continue;
            }
            if let (true, None, Some(key)) = (self.schema.tombstones(), record.value, record.key) {
                run.tombstones.push(Tombstone { offset: record.offset, timestamp: record.timestamp, key: key.to_vec() });
                continue;
            }
            let row = run.offsets.len();
            match self.record(&record, run.partition, row) {
                Ok(Change::Row) => run.offsets.push(record.offset.0),
                Ok(Change::Nothing) => {}
                Ok(Change::Deletion(key)) => {
                    run.tombstones.push(Tombstone { offset: record.offset, timestamp: record.timestamp, key });
                }
                Err(reason) => {
                    self.values.iter_mut().for_each(|c| c.truncate(row));
                    self.metadata.iter_mut().for_each(|(_, c)| c.truncate(row));
                    if let Reason::Wants(id) = reason {
                        (run.next, run.wants) = (record.offset, Some(id));
                        break;
                    }
                    run.bad.push(BadRecord { offset: record.offset, reason: reason.to_string() });
                }
            }
        }
        Ok(records.len_bytes())
    }

    /// Reads one record as row `row`. On a fault the columns may be uneven.
    #[inline]
    fn record(&mut self, record: &RecordRef<'_>, partition: PartitionId, row: usize) -> Result<Change, Reason> {
        let value = record.value.ok_or(Reason::Plain("null value"))?;
        match self.schema.format() {
            Format::Json => self.reader.read(value, &mut self.values, row)?,
            Format::Debezium => {
                let Some(debezium) = &mut self.debezium else { return Err(Reason::Plain("no reader")) };
                let change = debezium.read(value, &mut self.values, row)?;
                if change != Change::Row {
                    return Ok(change);
                }
            }
            Format::Csv => self.csv.read(value, &mut self.values)?,
            Format::Avro | Format::Protobuf => match &mut self.framed {
                Some(framed) => framed.read(value, &mut self.values, row)?,
                None => return Err(Reason::Plain("the stream has no schema registry")),
            },
            Format::Raw => raw(value, &mut self.values)?,
        }
        // A connector's keys are its own: JSON objects, by which it also chooses partitions.
        if let Some(key) = self.key.as_ref().filter(|_| self.debezium.is_none()) {
            check_key(key, &self.values, record, partition, &mut self.scratch)?;
        }
        for (what, column) in &mut self.metadata {
            let fits = match what {
                Metadata::Partition => push_number(column, i64::from(partition.0)),
                Metadata::Offset => push_number(column, record.offset.0),
                Metadata::Timestamp => push_number(column, record.timestamp),
                Metadata::Key => push_key(column, record.key),
            };
            fits.map_err(|why| Reason::Of(column.name.clone(), why))?;
        }
        Ok(Change::Row)
    }
}

/// What one decode has come to.
struct Run {
    partition: PartitionId,
    next: Offset,
    offsets: Vec<i64>,
    bad: Vec<BadRecord>,
    tombstones: Vec<Tombstone>,
    wants: Option<u32>,
}

/// Why a record is no row.
enum Reason {
    Value(Box<Fault>),
    Plain(&'static str),
    Of(String, &'static str),
    /// Its schema is not there, or does not fit the stream.
    Schema(Arc<str>),
    /// It may be one: its schema is not known yet.
    Wants(u32),
}

impl From<Stop> for Reason {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Fault(fault) => Self::Value(fault),
            Stop::Schema(why) => Self::Schema(why),
            Stop::Wants(id) => Self::Wants(id),
        }
    }
}

impl From<Box<Fault>> for Reason {
    fn from(fault: Box<Fault>) -> Self {
        Self::Value(fault)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(fault) => fault.fmt(f),
            Self::Plain(why) => f.write_str(why),
            Self::Of(column, why) => write!(f, "{column}: {why}"),
            Self::Schema(why) => f.write_str(why),
            Self::Wants(id) => write!(f, "schema {id} is not known yet"),
        }
    }
}

/// The whole value into the stream's one value column.
fn raw(value: &[u8], columns: &mut [Column]) -> Read<()> {
    for column in columns {
        let room = match &mut column.values {
            Values::Utf8(run) => {
                if let Err(bad) = std::str::from_utf8(value) {
                    return Err(Fault::new(bad.valid_up_to(), "expected UTF-8").of(&column.name));
                }
                run.push(value)
            }
            Values::Binary(run) => run.push(value),
            _ => unreachable!("the schema of a raw stream has text or bytes"),
        };
        if !room {
            return Err(Fault::new(0, "too much data in one batch").of(&column.name));
        }
        column.valid();
    }
    Ok(())
}

/// A whole number from beside the value; for a TIMESTAMP, milliseconds.
fn push_number(column: &mut Column, number: i64) -> Result<(), &'static str> {
    let time = matches!(column.values, Values::Timestamp(..));
    if time && number == NO_TIMESTAMP {
        return push_null(column);
    }
    match &mut column.values {
        Values::Int32(v) => v.push(i32::try_from(number).map_err(|_| "number out of range")?),
        Values::Int64(v) => v.push(number),
        Values::Timestamp(v, unit, _) => {
            let (own, milli) = (temporal::per_second(*unit), temporal::per_second(TimeUnit::Millisecond));
            let time = if own >= milli { number.checked_mul(own / milli) } else { Some(number.div_euclid(milli / own)) };
            let time = time.filter(|t| temporal::has_four_digit_year(*t, *unit));
            v.push(time.ok_or("the record's timestamp is out of range")?);
        }
        _ => unreachable!("the schema has checked the types of metadata"),
    }
    column.valid();
    Ok(())
}

fn push_key(column: &mut Column, key: Option<&[u8]>) -> Result<(), &'static str> {
    let Some(key) = key else { return push_null(column) };
    let room = match &mut column.values {
        Values::Utf8(run) => {
            if std::str::from_utf8(key).is_err() {
                return Err("the record's key is not UTF-8");
            }
            run.push(key)
        }
        Values::Binary(run) => run.push(key),
        _ => unreachable!("the schema has checked the types of metadata"),
    };
    if !room {
        return Err("too much data in one batch");
    }
    column.valid();
    Ok(())
}

fn push_null(column: &mut Column) -> Result<(), &'static str> {
    if !column.nullable {
        return Err("the record has none, and the column is NOT NULL");
    }
    column.push_null();
    Ok(())
}

/// Whether the record keeps the stream's promise about its key.
#[inline]
fn check_key(key: &Key, values: &[Column], record: &RecordRef<'_>, partition: PartitionId, scratch: &mut Vec<u8>) -> Result<(), Reason> {
    let column = || key.rule.columns.join(", ");
    let Some(written) = record.key else { return Err(Reason::Of(column(), "key differs: the record has none")) };
    let same = match key.columns.as_slice() {
        [only] => match values[*only].last_as_key(scratch) {
            Some(text) => text == written,
            None if written == NULL_KEY => true,
            None => return Err(Reason::Of(column(), "key differs: the column is NULL, which a key says as [null]")),
        },
        several => {
            let parts: Vec<Option<String>> =
                several.iter().map(|c| values[*c].last_as_key(scratch).map(|text| String::from_utf8_lossy(text).into_owned())).collect();
            serde_json::to_vec(&parts).is_ok_and(|text| text == written)
        }
    };
    if !same {
        return Err(Reason::Of(column(), "key differs"));
    }
    let placed = match key.rule.partitioner {
        None => return Ok(()),
        Some(Partitioner::Murmur2) => partition_for_key(written, key.rule.partitions),
        Some(Partitioner::Crc32) => crc32_partition(written, key.rule.partitions),
    };
    if placed == partition { Ok(()) } else { Err(Reason::Of(column(), "key differs: its hash belongs to another partition")) }
}

/// Where librdkafka's `consistent` partitioner puts a key.
fn crc32_partition(key: &[u8], partitions: i32) -> PartitionId {
    let mut crc = flate2::Crc::new();
    crc.update(key);
    PartitionId((crc.sum() % partitions.max(1).unsigned_abs()) as i32)
}

#[cfg(test)]
mod tests;
