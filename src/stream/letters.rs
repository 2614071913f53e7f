//! Rows that go aside: late rows to the stream's late topic, failed rows to the query's dead letters.
//!
//! Each goes as the record it came as (key, value, headers), with headers of ours that say who sent it
//! here, why, and where it stood. Reasons never contain the row's values. Called by the task, whose commit
//! carries the letters together with the positions they came from, so that each is written once.

use super::element::{Aside, AsideRow, FailedRow};
use super::feed::Chunk;
use super::inputs::partition_of;
use super::sink::Outputs;
use crate::record::{Header, Offset, PartitionId, RecordRef, TopicName, TopicPartition};
use crate::time::Timestamp;

/// Header: the query or stream that sent the record here.
pub const HEADER_FROM: &str = "vitalsql-from";
/// Header: why.
pub const HEADER_REASON: &str = "vitalsql-reason";
/// Header: the source topic.
pub const HEADER_TOPIC: &str = "vitalsql-source-topic";
/// Header: the source partition.
pub const HEADER_PARTITION: &str = "vitalsql-source-partition";
/// Header: the source offset.
pub const HEADER_OFFSET: &str = "vitalsql-source-offset";
/// Header: the source record's timestamp, in milliseconds.
pub const HEADER_TIMESTAMP: &str = "vitalsql-source-timestamp";

/// A topic that takes letters, and how many partitions it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterBox {
    /// The topic.
    pub topic: TopicName,
    /// How many partitions it has.
    pub partitions: i32,
}

impl LetterBox {
    /// A record keeps the partition number it had, as far as the letter box has so many.
    fn place(&self, partition: PartitionId) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), PartitionId(partition.0.rem_euclid(self.partitions.max(1))))
    }
}

/// Where a query's letters go.
#[derive(Clone, Debug)]
pub struct Letters {
    /// The query, for the header.
    pub query: String,
    /// The topic it reads.
    pub source: TopicName,
    /// Late rows; counted only where `None`.
    pub late: Option<LetterBox>,
    /// Failed rows; counted only where `None`.
    pub failed: Option<LetterBox>,
}

/// One letter's place and reason.
struct Letter<'a> {
    to: TopicPartition,
    from: &'a str,
    reason: &'a str,
    source: &'a TopicName,
    partition: PartitionId,
}

/// Writes the letters of one round. `chunk` is where their records can be found.
pub fn write(letters: &Letters, aside: &[AsideRow], failed: &[FailedRow], chunk: Option<&Chunk>, now: Timestamp, out: &mut Outputs) {
    if let Some(late) = &letters.late {
        for row in aside {
            let reason = match row.why {
                Aside::Late => "late: every window it belongs to was closed",
                Aside::FarAhead => "its event time is more than a day ahead of the clock",
            };
            let partition = partition_of(row.partition);
            let to = late.place(partition);
            let letter = Letter { to, from: &letters.query, reason, source: &letters.source, partition };
            post(&letter, row.offset, chunk, None, now, out);
        }
    }
    if let Some(box_) = &letters.failed {
        for row in failed {
            let partition = partition_of(row.partition);
            let to = box_.place(partition);
            let letter = Letter { to, from: &letters.query, reason: &row.reason, source: &letters.source, partition };
            post(&letter, row.offset, chunk, row.row.as_deref(), now, out);
        }
    }
}

/// Writes the dead letters of a stream: records at or behind `from` that are no row of it.
pub fn write_bad(stream: &str, source: &TopicPartition, to: &LetterBox, chunk: &Chunk, from: Offset, now: Timestamp, out: &mut Outputs) {
    for bad in chunk.bad.iter().filter(|bad| bad.offset >= from) {
        let place = to.place(source.partition);
        let letter = Letter { to: place, from: stream, reason: &bad.reason, source: &source.topic, partition: source.partition };
        post(&letter, bad.offset.0, Some(chunk), None, now, out);
    }
}

fn post(letter: &Letter<'_>, offset: i64, chunk: Option<&Chunk>, row: Option<&[u8]>, now: Timestamp, out: &mut Outputs) {
    let found = chunk.is_some_and(|chunk| with_record(chunk, Offset(offset), |record| push(letter, Some(record), offset, row, now, out)));
    if !found {
        push(letter, None, offset, row, now, out);
    }
}

fn push(letter: &Letter<'_>, record: Option<&RecordRef<'_>>, offset: i64, row: Option<&[u8]>, now: Timestamp, out: &mut Outputs) {
    let (partition, offset_text) = (letter.partition.to_string(), offset.to_string());
    let timestamp = record.map(|r| r.timestamp.to_string());
    let mut headers: Vec<Header<'_>> = Vec::new();
    if let Some(record) = record {
        headers.extend(record.headers().flatten().map(|(key, value)| Header { key, value }));
    }
    headers.push(Header { key: HEADER_FROM.as_bytes(), value: Some(letter.from.as_bytes()) });
    headers.push(Header { key: HEADER_REASON.as_bytes(), value: Some(letter.reason.as_bytes()) });
    headers.push(Header { key: HEADER_TOPIC.as_bytes(), value: Some(letter.source.as_str().as_bytes()) });
    headers.push(Header { key: HEADER_PARTITION.as_bytes(), value: Some(partition.as_bytes()) });
    if offset >= 0 {
        headers.push(Header { key: HEADER_OFFSET.as_bytes(), value: Some(offset_text.as_bytes()) });
    }
    if let Some(timestamp) = &timestamp {
        headers.push(Header { key: HEADER_TIMESTAMP.as_bytes(), value: Some(timestamp.as_bytes()) });
    }
    let key = record.and_then(|r| r.key);
    let value = record.and_then(|r| r.value).or(row);
    out.push(&letter.to, now.0, key, value, &headers);
}

/// Finds the record at `offset` in the chunk and shows it. Letters are rare: a walk over the hit batch is enough.
fn with_record(chunk: &Chunk, offset: Offset, mut show: impl FnMut(&RecordRef<'_>)) -> bool {
    let Some(batch) = chunk.raw.iter().find(|b| b.base_offset() <= offset && offset <= b.last_offset()) else { return false };
    let Ok(records) = batch.records() else { return false };
    for record in records.iter().flatten() {
        if record.offset == offset {
            show(&record);
            return true;
        }
    }
    false
}
