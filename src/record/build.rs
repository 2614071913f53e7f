//! Builds record batches: [`BatchBuilder`] for the engine's own records and for our light client.
//!
//! Always: what comes out passes `Batch::parse` and, where no gap was asked for, `check_records`. The
//! plain records are written behind room for the header, so an uncompressed batch is never copied.

use std::fmt;

use super::batch::{ATTRIBUTE_CONTROL, ATTRIBUTE_TRANSACTIONAL, Batch, BatchHeader, HEADER_BYTES};
use super::compression::{Codec, compress_onto};
use super::varint::{put_varint, varint_len};

/// A finished batch keeps spare room of at most this part of its length.
const SPARE_PART: usize = 8;

/// One header of a record. Kafka allows the same key twice and a null value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The key, UTF-8 by convention.
    pub key: &'a [u8],
    /// The value, or null.
    pub value: Option<&'a [u8]>,
}

/// Sizes only: a header may hold what a log line must not.
impl fmt::Debug for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({} + {} bytes)", self.key.len(), self.value.map_or(0, <[u8]>::len))
    }
}

/// Collects records into one batch with base offset 0; whoever appends it gives it its place.
#[derive(Clone)]
pub struct BatchBuilder {
    /// Room for the header, then the plain records.
    bytes: Vec<u8>,
    count: i32,
    last_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    codec: Codec,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    flags: i16,
    /// How many bytes to take room for with the first record.
    room: usize,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts and sizes only: records may hold what a log line must not.
impl fmt::Debug for BatchBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchBuilder").field("count", &self.count).field("size", &self.size()).field("codec", &self.codec).finish()
    }
}

impl BatchBuilder {
    /// An empty batch: no compression, no producer.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: Vec::new(),
            count: 0,
            last_delta: -1,
            base_timestamp: 0,
            max_timestamp: i64::MIN,
            codec: Codec::None,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            flags: 0,
            room: 0,
        }
    }

    /// An empty batch that takes room for about so many bytes at its first record, so that it is not moved while it grows.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        Self { room: bytes, ..Self::new() }
    }

    /// Packs the records with `codec`.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Marks the batch as an idempotent producer's, its first record carrying `base_sequence`.
    #[must_use]
    pub fn with_producer(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (producer_id, producer_epoch, base_sequence);
        self
    }

    /// Marks the batch as part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.flags |= ATTRIBUTE_TRANSACTIONAL;
        self
    }

    /// Marks the batch as one of markers that only brokers write.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.flags |= ATTRIBUTE_CONTROL;
        self
    }

    /// Adds a record right behind the last one. `timestamp` is in milliseconds.
    ///
    /// # Panics
    /// Where one record or the batch's count leaves the 31 bits Kafka has for them.
    pub fn push(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) {
        let delta = self.last_delta.checked_add(1).expect("a batch has fewer than 2^31 records");
        self.push_at_delta(delta, timestamp, key, value, headers);
    }

    /// Adds a record `delta` offsets behind the batch's first offset, leaving a gap as compaction does.
    ///
    /// # Panics
    /// Where `delta` is not beyond the last record's, or as [`BatchBuilder::push`].
    pub fn push_at_delta(&mut self, delta: i32, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) {
        assert!(delta > self.last_delta, "records of a batch go forward");
        if self.count == 0 {
            self.base_timestamp = timestamp;
            if self.bytes.is_empty() {
                self.bytes.reserve(self.room.max(HEADER_BYTES));
                self.bytes.resize(HEADER_BYTES, 0);
            }
        }
        // Wrapping, as the reader adds it back: two timestamps may lie further apart than an i64 counts.
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let headers_len: usize = headers.iter().map(|h| field_len(Some(h.key)) + field_len(h.value)).sum();
        let length = 1
            + varint_len(timestamp_delta)
            + varint_len(i64::from(delta))
            + field_len(key)
            + field_len(value)
            + varint_len(headers.len() as i64)
            + headers_len;
        assert!(i32::try_from(length).is_ok(), "a record is smaller than 2 GiB");
        put_varint(&mut self.bytes, length as i64);
        self.bytes.push(0);
        put_varint(&mut self.bytes, timestamp_delta);
        put_varint(&mut self.bytes, i64::from(delta));
        put_field(&mut self.bytes, key);
        put_field(&mut self.bytes, value);
        put_varint(&mut self.bytes, headers.len() as i64);
        for header in headers {
            put_field(&mut self.bytes, Some(header.key));
            put_field(&mut self.bytes, header.value);
        }
        self.count += 1;
        self.last_delta = delta;
        self.max_timestamp = self.max_timestamp.max(timestamp);
    }

    /// Whether nothing was pushed yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many records were pushed.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count as usize
    }

    /// How many bytes the batch has, before compression.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len().max(HEADER_BYTES)
    }

    /// The greatest timestamp pushed; `None` while empty.
    #[must_use]
    pub fn max_timestamp(&self) -> Option<i64> {
        (self.count > 0).then_some(self.max_timestamp)
    }

    /// Closes the batch.
    ///
    /// # Panics
    /// Where it is empty, or has 2 GiB or more.
    #[must_use]
    pub fn finish(self) -> Batch {
        assert!(self.count > 0, "a batch has at least one record");
        let bytes = if self.codec == Codec::None {
            let mut bytes = self.bytes;
            if bytes.capacity() - bytes.len() > bytes.len() / SPARE_PART {
                // It may be kept for long, and nobody counts what lies behind its end.
                bytes.shrink_to_fit();
            }
            bytes
        } else {
            let mut packed = vec![0; HEADER_BYTES];
            compress_onto(self.codec, &self.bytes[HEADER_BYTES..], &mut packed);
            packed
        };
        let header = BatchHeader {
            base_offset: 0,
            batch_length: i32::try_from(bytes.len() - 12).expect("a batch is smaller than 2 GiB"),
            leader_epoch: -1,
            crc: 0,
            attributes: self.codec as i16 | self.flags,
            last_offset_delta: self.last_delta,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            count: self.count,
        };
        Batch::sealed(header, bytes)
    }
}

fn field_len(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varint_len(bytes.len() as i64) + bytes.len())
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}
