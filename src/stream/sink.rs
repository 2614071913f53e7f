//! Where a task's results go: [`Sink`], and the records of one commit on their way out.
//!
//! A sink turns rows into records for partitions of a topic, or hands them to a waiting reader. Always:
//! what a sink puts into [`Outputs`] leaves in the commit that also carries the positions it came from.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use arrow::array::RecordBatch;

use tokio::sync::mpsc;

use super::element::{FailedRow, NO_TIME, Rows};
use super::inputs::partition_of;
use super::operator::StreamError;
use crate::bus::{TopicBatch, partition_for_key};
use crate::format::Encoder;
use crate::record::{BatchBuilder, Header, PartitionId, TopicName, TopicPartition};
use crate::time::Timestamp;

/// A record batch is closed at this size, well below `max.message.bytes`.
const BATCH_BYTES: usize = 512 * 1024;

/// The records of one commit, by partition.
#[derive(Debug, Default)]
pub struct Outputs {
    open: BTreeMap<TopicPartition, BatchBuilder>,
    full: Vec<TopicBatch>,
    bytes: usize,
    records: u64,
}

impl Outputs {
    /// Adds one record.
    pub fn push(&mut self, to: &TopicPartition, at: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) {
        let builder = match self.open.get_mut(to) {
            Some(builder) => builder,
            None => self.open.entry(to.clone()).or_default(),
        };
        let before = builder.size();
        builder.push(at, key, value, headers);
        self.bytes += builder.size().saturating_sub(before);
        self.records += 1;
        if builder.size() >= BATCH_BYTES {
            let records = std::mem::take(builder);
            self.full.push(TopicBatch { to: to.clone(), records });
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
        let open = std::mem::take(&mut self.open);
        let mut all = std::mem::take(&mut self.full);
        all.extend(open.into_iter().filter(|(_, records)| !records.is_empty()).map(|(to, records)| TopicBatch { to, records }));
        self.bytes = 0;
        self.records = 0;
        all
    }
}

/// What takes a task's result rows.
pub trait Sink: Send {
    /// Takes rows. Rows that cannot be written (a NaN has no JSON) are answered, not lost.
    fn rows(&mut self, rows: &Rows, now: Timestamp, out: &mut Outputs) -> Result<Vec<FailedRow>, StreamError>;
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
    /// of the columns `keys`: one column as text, several as a JSON array, none as no key.
    #[must_use]
    pub const fn new(topic: TopicName, partitions: i32, encoder: Encoder, keys: Vec<usize>) -> Self {
        Self { topic, partitions, encoder, keys, upserts: false }
    }

    /// The same for rows that take the place of those written before them: each has a key, which is `[]` where it is made
    /// of no column and `[null]` where its column is NULL; and a row that is gone is a null value under its key.
    #[must_use]
    pub const fn upserts(mut self) -> Self {
        self.upserts = true;
        self
    }

    fn gone(&self, rows: &Rows, keys: &[Option<Vec<u8>>], now: Timestamp, out: &mut Outputs) {
        for (row, key) in keys.iter().enumerate() {
            let to = TopicPartition::new(self.topic.clone(), self.place(key.as_deref(), rows));
            let at = if rows.times[row] == NO_TIME { now.0 } else { rows.times[row] };
            out.push(&to, at, key.as_deref(), None, &[]);
        }
    }

    /// The record key of each row, made of these columns: one as text, several as a JSON array, none as no key.
    pub fn keys_of(batch: &RecordBatch, columns: &[usize]) -> Result<Vec<Option<Vec<u8>>>, StreamError> {
        record_keys(batch, columns)
    }

    fn place(&self, key: Option<&[u8]>, rows: &Rows) -> PartitionId {
        match key {
            Some(key) => partition_for_key(key, self.partitions),
            None => PartitionId(partition_of(rows.partition).0.rem_euclid(self.partitions.max(1))),
        }
    }
}

impl Sink for TopicSink {
    fn rows(&mut self, rows: &Rows, now: Timestamp, out: &mut Outputs) -> Result<Vec<FailedRow>, StreamError> {
        let mut keys = record_keys(&rows.batch, &self.keys)?;
        if self.upserts {
            let without: &[u8] = if self.keys.is_empty() { b"[]" } else { b"[null]" };
            keys.iter_mut().filter(|key| key.is_none()).for_each(|key| *key = Some(without.to_vec()));
        }
        if rows.gone {
            self.gone(rows, &keys, now, out);
            return Ok(Vec::new());
        }
        let encoded = self.encoder.encode(&rows.batch);
        let mut failed = Vec::new();
        for (row, key) in keys.iter().enumerate() {
            let value = match encoded.row(row) {
                Ok(value) => value,
                Err(reason) => {
                    failed.push(FailedRow { partition: rows.partition, offset: rows.offsets[row], reason: reason.to_string(), row: None });
                    continue;
                }
            };
            let key = key.as_deref();
            let to = TopicPartition::new(self.topic.clone(), self.place(key, rows));
            let at = if rows.times[row] == NO_TIME { now.0 } else { rows.times[row] };
            out.push(&to, at, key, Some(value), &[]);
        }
        Ok(failed)
    }
}

/// The record key of each row.
fn record_keys(batch: &RecordBatch, keys: &[usize]) -> Result<Vec<Option<Vec<u8>>>, StreamError> {
    if keys.is_empty() {
        return Ok(vec![None; batch.num_rows()]);
    }
    let texts = |column: &usize| {
        arrow::compute::cast(batch.column(*column), &arrow::datatypes::DataType::Utf8)
            .map_err(|e| StreamError::Evaluate { what: "the record key".to_owned(), why: e.to_string() })
    };
    let columns = keys.iter().map(texts).collect::<Result<Vec<_>, _>>()?;
    let columns: Vec<_> = columns.iter().map(|c| arrow::array::AsArray::as_string::<i32>(c.as_ref())).collect();
    let text =
        |column: &&arrow::array::StringArray, row: usize| arrow::array::Array::is_valid(*column, row).then(|| column.value(row).to_owned());
    Ok((0..batch.num_rows())
        .map(|row| match columns.as_slice() {
            [only] => text(only, row).map(String::into_bytes),
            several => {
                let parts: Vec<Option<String>> = several.iter().map(|c| text(c, row)).collect();
                Some(serde_json::to_vec(&parts).expect("texts are JSON"))
            }
        })
        .collect())
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
            column.and_then(|c| arrow::array::AsArray::as_string_opt::<i32>(c.as_ref())).ok_or_else(|| StreamError::Evaluate {
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
