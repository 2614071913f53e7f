//! Where a task's results go: [`Sink`], and the records of one commit on their way out.
//!
//! A sink turns rows into records for partitions of a topic, or hands them to a waiting reader. Always:
//! what a sink puts into [`Outputs`] leaves in the commit that also carries the positions it came from.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use tokio::sync::mpsc;

use super::element::{FailedRow, NO_TIME, Rows};
use super::inputs::partition_of;
use super::operator::StreamError;
use crate::bus::{TopicBatch, partition_for_key};
use crate::format::{Encoder, NULL_KEY};
use crate::record::{BatchBuilder, Header, PartitionId, TopicName, TopicPartition};
use crate::time::Timestamp;

/// A record batch is closed at this size, well below `max.message.bytes`.
const BATCH_BYTES: usize = 512 * 1024;

/// So many rows are encoded at a time: what they are written as is still in the processor's cache when it is copied into a batch.
const ENCODED_ROWS: usize = 512;

/// The records of one commit, by partition.
#[derive(Debug, Default)]
pub struct Outputs {
    lanes: Vec<Lane>,
    /// Which lane is a partition's.
    places: BTreeMap<TopicPartition, usize>,
    full: Vec<TopicBatch>,
    bytes: usize,
    records: u64,
}

/// The way out to one partition.
#[derive(Debug)]
struct Lane {
    to: TopicPartition,
    open: BatchBuilder,
}

impl Lane {
    /// The batch so far; in its place an empty one, with room for as much.
    fn close(&mut self) -> TopicBatch {
        let room = self.open.size().min(BATCH_BYTES);
        // The last record of a full batch goes beyond its size.
        let next = BatchBuilder::with_room(room + room / 64);
        TopicBatch { to: self.to.clone(), records: std::mem::replace(&mut self.open, next) }
    }
}

impl Outputs {
    /// Adds one record.
    pub fn push(&mut self, to: &TopicPartition, at: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) {
        let lane = self.lane(to);
        self.push_to(lane, at, key, value, headers);
    }

    /// The number under which [`Outputs::push_to`] knows a partition, for as long as these outputs are there.
    fn lane(&mut self, to: &TopicPartition) -> usize {
        if let Some(lane) = self.places.get(to) {
            return *lane;
        }
        self.lanes.push(Lane { to: to.clone(), open: BatchBuilder::new() });
        self.places.insert(to.clone(), self.lanes.len() - 1);
        self.lanes.len() - 1
    }

    fn push_to(&mut self, lane: usize, at: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) {
        let lane = &mut self.lanes[lane];
        let before = lane.open.size();
        lane.open.push(at, key, value, headers);
        self.bytes += lane.open.size().saturating_sub(before);
        self.records += 1;
        if lane.open.size() >= BATCH_BYTES {
            let full = lane.close();
            self.full.push(full);
        }
    }

    /// About how many bytes are waiting.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many records are waiting.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Whether nothing is waiting.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Everything that waits, in batches, each partition's in order.
    #[must_use]
    pub fn take(&mut self) -> Vec<TopicBatch> {
        let mut all = std::mem::take(&mut self.full);
        for lane in self.places.values() {
            let lane = &mut self.lanes[*lane];
            if !lane.open.is_empty() {
                all.push(lane.close());
            }
        }
        self.bytes = 0;
        self.records = 0;
        all
    }
}

/// How far a task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The watermark of its own rows: the least of its inputs'.
    pub own: Timestamp,
    /// The watermark that its operators have been told.
    pub told: Timestamp,
    /// Whether none of its inputs brings anything.
    pub is_idle: bool,
}

/// What takes a task's result rows.
pub trait Sink: Send {
    /// Takes rows. Rows that cannot be written (a NaN has no JSON) are answered, not lost.
    fn rows(&mut self, rows: &Rows, now: Timestamp, out: &mut Outputs) -> Result<Vec<FailedRow>, StreamError>;
    /// How far the task has come with what this commit holds; called at each, behind its rows.
    fn stands(&mut self, at: Standing, now: Timestamp, out: &mut Outputs) {
        let _ = (at, now, out);
    }
    /// Called after each round; a sink whose reader is slow waits here, and so does its task.
    fn flush<'a>(&'a mut self) -> Pin<Box<dyn Future<Output = Result<(), StreamError>> + Send + 'a>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Writes rows to a topic, in its stream's format, each placed by its key.
pub struct TopicSink {
    topic: TopicName,
    partitions: i32,
    encoder: Encoder,
    keys: Vec<usize>,
    upserts: bool,
}

impl TopicSink {
    /// Rows of the encoder's schema go to `topic`, which has `partitions` partitions; the record key is made
    /// of the columns `keys`: one column as text (`[null]` where it is NULL), several as a JSON array, none as no key.
    #[must_use]
    pub const fn new(topic: TopicName, partitions: i32, encoder: Encoder, keys: Vec<usize>) -> Self {
        Self { topic, partitions, encoder, keys, upserts: false }
    }

    /// The same for rows that take the place of those written before them: each has a key, which is `[]` where it is made
    /// of no column; and a row that is gone is a null value under its key.
    #[must_use]
    pub const fn upserts(mut self) -> Self {
        self.upserts = true;
        self
    }

    /// The record key of each row, made of these columns: one as text (`[null]` where it is NULL), several as a JSON
    /// array, none as no key.
    pub fn keys_of(batch: &RecordBatch, columns: &[usize]) -> Result<Vec<Option<Vec<u8>>>, StreamError> {
        let (keys, mut made) = (RecordKeys::of(batch, columns)?, Vec::new());
        Ok((0..batch.num_rows()).map(|row| keys.of_row(row, &mut made).map(<[u8]>::to_vec)).collect())
    }

    fn place(&self, key: Option<&[u8]>, rows: &Rows) -> PartitionId {
        match key {
            Some(_) if self.partitions == 1 => PartitionId(0),
            Some(key) => partition_for_key(key, self.partitions),
            None => PartitionId(partition_of(rows.partition).0.rem_euclid(self.partitions.max(1))),
        }
    }
}

impl Sink for TopicSink {
    fn rows(&mut self, rows: &Rows, now: Timestamp, out: &mut Outputs) -> Result<Vec<FailedRow>, StreamError> {
        let (keys, mut made) = (RecordKeys::of(&rows.batch, &self.keys)?, Vec::new());
        let without: Option<&[u8]> = self.upserts.then_some(b"[]");
        let mut failed = Vec::new();
        // The lanes of this topic's partitions, as far as they are known.
        let mut lanes: Vec<Option<usize>> = Vec::new();
        for first in (0..rows.len()).step_by(ENCODED_ROWS) {
            let count = ENCODED_ROWS.min(rows.len() - first);
            let encoded = (!rows.gone).then(|| self.encoder.encode(&rows.batch.slice(first, count)));
            for at in 0..count {
                let row = first + at;
                let value = match encoded.as_ref().map(|encoded| encoded.row(at)).transpose() {
                    Ok(value) => value,
                    Err(reason) => {
                        let (partition, offset, reason) = (rows.partition, rows.offsets[row], reason.to_string());
                        failed.push(FailedRow { partition, offset, reason, row: None });
                        continue;
                    }
                };
                let key = keys.of_row(row, &mut made).or(without);
                let partition = self.place(key, rows);
                let place = partition.0 as usize;
                if lanes.len() <= place {
                    lanes.resize(place + 1, None);
                }
                let lane = *lanes[place].get_or_insert_with(|| out.lane(&TopicPartition::new(self.topic.clone(), partition)));
                let time = if rows.times[row] == NO_TIME { now.0 } else { rows.times[row] };
                out.push_to(lane, time, key, value, &[]);
            }
        }
        Ok(failed)
    }
}

/// The columns that a batch's record keys are made of, as text.
pub(super) struct RecordKeys(Vec<StringArray>);

impl RecordKeys {
    pub(super) fn of(batch: &RecordBatch, columns: &[usize]) -> Result<Self, StreamError> {
        let text = |column: &usize| {
            // In UTC, as the column that keeps it has it.
            let text = match batch.column(*column).data_type() {
                DataType::Timestamp(unit, Some(_)) => cast(batch.column(*column), &DataType::Timestamp(*unit, Some("UTC".into())))
                    .and_then(|utc| cast(&utc, &DataType::Timestamp(*unit, None)))
                    .and_then(|plain| cast(&plain, &DataType::Utf8)),
                _ => cast(batch.column(*column), &DataType::Utf8),
            };
            let text = text.map_err(|e| StreamError::Evaluate { what: "the record key".to_owned(), why: e.to_string() })?;
            Ok(text.as_string::<i32>().clone())
        };
        Ok(Self(columns.iter().map(text).collect::<Result<_, StreamError>>()?))
    }

    /// The key of a row: one column as text, several as a JSON array, which is made in `made`; none as no key. NULL is a value
    /// like others: its rows lie together too.
    pub(super) fn of_row<'a>(&'a self, row: usize, made: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let text = |column: &'a StringArray| column.is_valid(row).then(|| column.value(row));
        match self.0.as_slice() {
            [] => None,
            [only] => Some(text(only).map_or(NULL_KEY, str::as_bytes)),
            several => {
                let parts: Vec<Option<&str>> = several.iter().map(text).collect();
                made.clear();
                serde_json::to_writer(&mut *made, &parts).expect("texts are JSON");
                Some(made)
            }
        }
    }
}

/// Writes records whose key and value an operator has already made: the columns `key` and `value`.
pub struct RecordSink {
    topic: TopicName,
    partitions: i32,
}

impl RecordSink {
    /// Records go to `topic`, which has `partitions` partitions, placed by their key.
    #[must_use]
    pub const fn new(topic: TopicName, partitions: i32) -> Self {
        Self { topic, partitions }
    }
}

impl Sink for RecordSink {
    fn rows(&mut self, rows: &Rows, now: Timestamp, out: &mut Outputs) -> Result<Vec<FailedRow>, StreamError> {
        let text = |name: &str| {
            let column = rows.batch.column_by_name(name);
            column.and_then(|c| AsArray::as_string_opt::<i32>(c.as_ref())).ok_or_else(|| StreamError::Evaluate {
                what: format!("column {name}"),
                why: "an operator that makes records gives text columns key and value".to_owned(),
            })
        };
        let (keys, values) = (text("key")?, text("value")?);
        for row in 0..rows.len() {
            let key = keys.value(row).as_bytes();
            let to = TopicPartition::new(self.topic.clone(), partition_for_key(key, self.partitions));
            let at = if rows.times[row] == NO_TIME { now.0 } else { rows.times[row] };
            out.push(&to, at, Some(key), Some(values.value(row).as_bytes()), &[]);
        }
        Ok(Vec::new())
    }
}

/// Hands rows to somebody who is watching (`SELECT .. EMIT CHANGES`). The channel is bounded: a slow
/// reader slows its task, and nothing else.
pub struct ChannelSink {
    to: mpsc::Sender<RecordBatch>,
    waiting: Vec<RecordBatch>,
}

impl ChannelSink {
    /// Rows go to the receiving end of `to`.
    #[must_use]
    pub const fn new(to: mpsc::Sender<RecordBatch>) -> Self {
        Self { to, waiting: Vec::new() }
    }
}

impl Sink for ChannelSink {
    fn rows(&mut self, rows: &Rows, _now: Timestamp, _out: &mut Outputs) -> Result<Vec<FailedRow>, StreamError> {
        self.waiting.push(rows.batch.clone());
        Ok(Vec::new())
    }

    fn flush<'a>(&'a mut self) -> Pin<Box<dyn Future<Output = Result<(), StreamError>> + Send + 'a>> {
        Box::pin(async move {
            for batch in self.waiting.drain(..) {
                self.to.send(batch).await.map_err(|_| StreamError::Limit("nobody is reading any more".to_owned()))?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array};
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    use super::*;
    use crate::format::{FieldSpec, Format, StreamSchema};

    /// What a partition got: each record's time, key and value.
    type Got = BTreeMap<i32, Vec<(i64, Option<String>, String)>>;

    /// Rows of a key, a number and a value that may be none that JSON has, through a sink in pieces.
    fn check_rows(rows: &[(Option<String>, i64, bool)], partitions: i32, piece: usize, keyed: bool) {
        let fields =
            vec![Field::new("k", DataType::Utf8, true), Field::new("n", DataType::Int64, true), Field::new("v", DataType::Float64, true)];
        let schema = Arc::new(Schema::new(fields));
        let specs = schema.fields().iter().map(|field| FieldSpec::new(field.name(), field.data_type().clone())).collect();
        let stream = StreamSchema::new(Format::Json, specs).unwrap();
        let encoder = futures::executor::block_on(Encoder::open(&stream, &schema)).unwrap();
        let topic = TopicName::new("o").unwrap();
        let mut sink = TopicSink::new(topic, partitions, encoder, if keyed { vec![0] } else { vec![] });
        let (mut out, mut failed, mut expected) = (Outputs::default(), Vec::new(), Got::new());
        for (number, part) in rows.chunks(piece).enumerate() {
            let first = number * piece;
            let value = |good: bool| if good { 1.5 } else { f64::NAN };
            let batch = RecordBatch::try_new(
                Arc::clone(&schema),
                vec![
                    Arc::new(part.iter().map(|row| row.0.clone()).collect::<StringArray>()),
                    Arc::new(part.iter().map(|row| row.1).collect::<Int64Array>()),
                    Arc::new(part.iter().map(|row| value(row.2)).collect::<Float64Array>()),
                ],
            );
            let offsets: Vec<i64> = (first..first + part.len()).map(|row| row as i64).collect();
            let times: Vec<i64> = part.iter().map(|row| if row.1 % 5 == 0 { NO_TIME } else { row.1 }).collect();
            let (times, before) = (times.clone().into(), times.into());
            let rows =
                Rows { batch: batch.unwrap(), partition: PartitionId(3), offsets: offsets.into(), times, before, heard: None, gone: false };
            failed.extend(sink.rows(&rows, Timestamp(77), &mut out).unwrap().into_iter().map(|row| (row.offset, row.reason)));
            for (key, number, _) in part.iter().filter(|row| row.2) {
                let key = keyed.then(|| key.as_deref().unwrap_or("[null]"));
                let to = key.map_or(3 % partitions, |key| partition_for_key(key.as_bytes(), partitions).0);
                let text = serde_json::to_string(&part.iter().find(|row| row.1 == *number).unwrap().0).unwrap();
                let time = if number % 5 == 0 { 77 } else { *number };
                expected.entry(to).or_default().push((time, key.map(str::to_owned), format!(r#"{{"k":{text},"n":{number},"v":1.5}}"#)));
            }
        }
        let (mut found, mut records) = (Got::new(), 0);
        assert_eq!(out.records(), expected.values().map(|all| all.len() as u64).sum::<u64>());
        for TopicBatch { to, records: batch } in out.take() {
            let batch = batch.finish();
            for record in &batch.records().unwrap() {
                let record = record.unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let all = found.entry(to.partition.0).or_default();
                all.push((record.timestamp, record.key.map(text), text(record.value.unwrap())));
                records += 1;
            }
        }
        assert_eq!(found, expected);
        assert_eq!(failed.len() + records, rows.len());
        let bad = rows.iter().enumerate().filter(|(_, row)| !row.2).map(|(row, _)| (row as i64, "v: not a finite number".to_owned()));
        assert_eq!(failed, bad.collect::<Vec<_>>());
        assert!(out.is_empty() && out.bytes() == 0 && out.take().is_empty());
    }

    proptest! {
        #[test]
        fn each_row_goes_once_and_in_order_to_the_partition_of_its_key(
            keys in proptest::collection::vec((proptest::option::of("[a-e]{0,2}"), prop::bool::weighted(0.9)), 0..1300),
            partitions in 1..5_i32,
            piece in prop_oneof![1..1300_usize, Just(512), Just(513)],
            keyed in any::<bool>(),
        ) {
            let rows: Vec<_> = keys.into_iter().enumerate().map(|(number, (key, good))| (key, number as i64, good)).collect();
            check_rows(&rows, partitions, piece, keyed);
        }
    }

    #[test]
    fn a_batch_is_closed_when_it_is_full_and_the_next_one_takes_its_room_at_once() {
        let to = TopicPartition::new(TopicName::new("o").unwrap(), PartitionId(0));
        let mut out = Outputs::default();
        (0..1200).for_each(|_| out.push(&to, 0, None, Some(&[7; 1000]), &[]));
        let sizes: Vec<usize> = out.take().into_iter().map(|batch| batch.records.finish().len_bytes()).collect();
        assert_eq!(sizes.len(), 3);
        assert!(sizes[..2].iter().all(|size| (BATCH_BYTES..BATCH_BYTES + 2000).contains(size)), "{sizes:?}");
        out.push(&to, 0, None, Some(b"few"), &[]);
        assert_eq!(out.take().len(), 1);
    }
}
