//! Kafka's record batch, format v2: [`Batch`] and its header.
//!
//! Owns the layout of the 61-byte header; `records` has that of what follows. Always: whoever holds a [`Batch`]
//! knows that its lengths are whole, its magic is 2, its checksum right and its last offset an `i64`.
//! The records are shared, never copied: a new base offset or timestamp makes a new header only.
//! Called by everyone who stores, serves or reads records.

use std::fmt;

use bytes::Bytes;

use super::compression::{Codec, CompressionError, MAX_DECOMPRESSED, decompress};
use super::names::Offset;
use super::records::Records;

/// The length of a batch's header; the records follow.
pub const HEADER_BYTES: usize = 61;
/// Base offset and length: what comes before the bytes that `batch_length` counts.
const PREFIX_BYTES: usize = 12;
/// The checksum covers everything from here to the end. Base offset and leader epoch lie before.
const CRC_START: usize = 21;
const MAGIC_POS: usize = 16;

pub(super) const ATTRIBUTE_CODEC: i16 = 0x07;
const ATTRIBUTE_LOG_APPEND_TIME: i16 = 0x08;
pub(super) const ATTRIBUTE_TRANSACTIONAL: i16 = 0x10;
pub(super) const ATTRIBUTE_CONTROL: i16 = 0x20;
pub(super) const ATTRIBUTE_DELETE_HORIZON: i16 = 0x40;

/// Why bytes are not a batch, or a batch's bytes not records. No variant carries record data.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// There are fewer bytes than the batch has.
    #[error("the batch has {need} bytes and only {have} are there")]
    Truncated {
        /// How many are there.
        have: usize,
        /// How many there should be, as far as can be told.
        need: usize,
    },
    /// There is something behind the batch where only one batch may be.
    #[error("{0} bytes follow the batch")]
    Trailing(usize),
    /// A field of the header cannot be.
    #[error("the batch's header is damaged: {0}")]
    Header(&'static str),
    /// The format is not v2.
    #[error("message format {0} is not supported, only 2 is")]
    Magic(i8),
    /// The bytes are not those that were written.
    #[error("the batch's checksum is {stored:08x} and its bytes give {computed:08x}")]
    Checksum {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A codec we do not know.
    #[error("compression codec {0} is not supported")]
    Codec(i16),
    /// The records could not be unpacked.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// The header's count does not agree with its last offset delta, or with the records that are there.
    #[error("the batch says {claimed} records and has {found}")]
    Count {
        /// What the header says.
        claimed: i32,
        /// What is there, or what the last offset delta says.
        found: i64,
    },
    /// A record is not whole or not where it should be.
    #[error("record {index} of the batch is damaged: {reason}")]
    BadRecord {
        /// Which, from 0.
        index: i32,
        /// What is wrong.
        reason: &'static str,
    },
}

impl BatchError {
    /// Whether the bytes could still become a batch if more of them came.
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        matches!(self, Self::Truncated { .. })
    }
}

/// Whose clock a batch's timestamps come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's: every record has its own.
    CreateTime,
    /// The broker's at the append: every record has the batch's.
    LogAppendTime,
}

/// The fields of a batch's header, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The first record's offset.
    pub base_offset: i64,
    /// Bytes behind this field.
    pub batch_length: i32,
    /// The epoch of the leader that gave the offset; outside the checksum.
    pub leader_epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control.
    pub attributes: i16,
    /// The last record's offset minus the first's. Survives compaction.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas count from, in milliseconds.
    pub base_timestamp: i64,
    /// The greatest timestamp, or the append time.
    pub max_timestamp: i64,
    /// The idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// The first record's sequence number, or -1.
    pub base_sequence: i32,
    /// How many records there are.
    pub count: i32,
}

impl BatchHeader {
    /// How the records are packed.
    pub const fn codec(&self) -> Result<Codec, BatchError> {
        let number = self.attributes & ATTRIBUTE_CODEC;
        match Codec::from_number(number) {
            Some(codec) => Ok(codec),
            None => Err(BatchError::Codec(number)),
        }
    }

    /// Whose clock the timestamps come from.
    #[must_use]
    pub const fn timestamp_type(&self) -> TimestampType {
        if self.attributes & ATTRIBUTE_LOG_APPEND_TIME == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    /// Whether the batch is part of a transaction.
    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Whether the batch holds markers for brokers and clients, not records for readers.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// From when on compaction may drop the batch's deletion marks, in milliseconds; set when it first passed over them.
    #[must_use]
    pub const fn delete_horizon(&self) -> Option<i64> {
        if self.attributes & ATTRIBUTE_DELETE_HORIZON == 0 { None } else { Some(self.base_timestamp) }
    }

    /// Whether an idempotent producer wrote it.
    #[must_use]
    pub const fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }

    fn read(b: &[u8; HEADER_BYTES]) -> Self {
        Self {
            base_offset: i64::from_be_bytes(field(b, 0)),
            batch_length: i32::from_be_bytes(field(b, 8)),
            leader_epoch: i32::from_be_bytes(field(b, 12)),
            crc: u32::from_be_bytes(field(b, 17)),
            attributes: i16::from_be_bytes(field(b, 21)),
            last_offset_delta: i32::from_be_bytes(field(b, 23)),
            base_timestamp: i64::from_be_bytes(field(b, 27)),
            max_timestamp: i64::from_be_bytes(field(b, 35)),
            producer_id: i64::from_be_bytes(field(b, 43)),
            producer_epoch: i16::from_be_bytes(field(b, 51)),
            base_sequence: i32::from_be_bytes(field(b, 53)),
            count: i32::from_be_bytes(field(b, 57)),
        }
    }

    fn write(&self, b: &mut [u8; HEADER_BYTES]) {
        b[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        b[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        b[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        b[MAGIC_POS] = 2;
        b[17..21].copy_from_slice(&self.crc.to_be_bytes());
        b[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        b[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        b[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        b[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        b[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        b[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        b[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        b[57..61].copy_from_slice(&self.count.to_be_bytes());
    }

    /// What can be told without the records.
    fn check(&self) -> Result<(), BatchError> {
        if self.count < 0 {
            return Err(BatchError::Header("its count is negative"));
        }
        if self.last_offset_delta < 0 {
            return Err(BatchError::Header("its last offset delta is negative"));
        }
        // One beyond the last must still be an offset.
        if self.base_offset < 0 || self.base_offset.checked_add(i64::from(self.last_offset_delta) + 1).is_none() {
            return Err(BatchError::Header("its base offset is out of range"));
        }
        Ok(())
    }
}

fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("every field lies within the header")
}

/// One whole record batch. Cheap to clone: the bytes are shared.
#[derive(Clone)]
pub struct Batch {
    header: BatchHeader,
    /// The header's bytes where they are no longer those in `whole`.
    head: Option<Bytes>,
    /// The batch as it came.
    whole: Bytes,
}

/// Where and how much, never what: records may hold what a log line must not.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("base_offset", &self.header.base_offset)
            .field("count", &self.header.count)
            .field("len_bytes", &self.len_bytes())
            .finish()
    }
}

impl PartialEq for Batch {
    /// The same bytes.
    fn eq(&self, other: &Self) -> bool {
        self.chunks() == other.chunks()
    }
}

impl Eq for Batch {}

impl Batch {
    /// Reads bytes that are exactly one batch, with nothing behind it. Checks lengths, magic and checksum;
    /// the records themselves are [`check_records`](super::check_records)'s to check.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let batch = Self::parse_unchecked(bytes)?;
        let computed = crc32c::crc32c_append(crc32c::crc32c(&batch.whole[CRC_START..HEADER_BYTES]), &batch.whole[HEADER_BYTES..]);
        if computed != batch.header.crc {
            return Err(BatchError::Checksum { stored: batch.header.crc, computed });
        }
        batch.header.check()?;
        Ok(batch)
    }

    /// As [`Batch::parse`], for bytes that another checksum has just vouched for, made when the batch was already one.
    pub fn parse_vouched(bytes: Bytes) -> Result<Self, BatchError> {
        let batch = Self::parse_unchecked(bytes)?;
        batch.header.check()?;
        Ok(batch)
    }

    fn parse_unchecked(bytes: Bytes) -> Result<Self, BatchError> {
        let length = whole_length(&bytes)?;
        if length < bytes.len() {
            return Err(BatchError::Trailing(bytes.len() - length));
        }
        let head = bytes.first_chunk::<HEADER_BYTES>().ok_or(BatchError::Truncated { have: bytes.len(), need: length })?;
        if length > bytes.len() {
            return Err(BatchError::Truncated { have: bytes.len(), need: length });
        }
        let header = BatchHeader::read(head);
        Ok(Self { header, head: None, whole: bytes })
    }

    /// Takes the first whole batch off the front. `Ok(None)`, and nothing taken, where there is nothing or
    /// only part of a batch; an error where the bytes cannot be one.
    pub fn split(bytes: &mut Bytes) -> Result<Option<Self>, BatchError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        match whole_length(bytes) {
            Ok(length) if length <= bytes.len() => {
                let batch = Self::parse(bytes.slice(..length))?;
                *bytes = bytes.slice(length..);
                Ok(Some(batch))
            }
            Ok(_) | Err(BatchError::Truncated { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many bytes the batch at the front of `bytes` has in all, by its header: for a reader who has
    /// yet to fetch the rest. Needs the first 17 bytes.
    pub fn length_at(bytes: &[u8]) -> Result<usize, BatchError> {
        match whole_length(bytes) {
            Ok(_) if bytes.len() <= MAGIC_POS => Err(BatchError::Truncated { have: bytes.len(), need: MAGIC_POS + 1 }),
            other => other,
        }
    }

    /// Closes bytes whose records are written and whose header is not: fills in header and checksum.
    pub(super) fn sealed(mut header: BatchHeader, mut bytes: Vec<u8>) -> Self {
        let (head, records) = bytes.split_first_chunk_mut::<HEADER_BYTES>().expect("the builder leaves room for the header");
        seal(&mut header, head, records);
        Self { header, head: None, whole: Bytes::from(bytes) }
    }

    /// The header, parsed.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The offset of the first record.
    #[must_use]
    pub const fn base_offset(&self) -> Offset {
        Offset(self.header.base_offset)
    }

    /// The offset of the last record.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        Offset(self.header.base_offset + self.header.last_offset_delta as i64)
    }

    /// The offset after the last record.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        Offset(self.header.base_offset + self.header.last_offset_delta as i64 + 1)
    }

    /// The length with header, as stored and sent.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.whole.len()
    }

    /// The greatest timestamp in the batch, in milliseconds, by its header.
    #[must_use]
    pub const fn max_timestamp(&self) -> i64 {
        self.header.max_timestamp
    }

    /// The same batch at another place. The records are not copied and the checksum stays: it covers
    /// neither of the two fields.
    ///
    /// # Panics
    /// Where `base` is negative or the last offset would leave the `i64`.
    #[must_use]
    pub fn with_base(mut self, base: Offset, leader_epoch: i32) -> Self {
        if self.header.base_offset == base.0 && self.header.leader_epoch == leader_epoch {
            return self;
        }
        self.header.base_offset = base.0;
        self.header.leader_epoch = leader_epoch;
        self.header.check().expect("the broker gives offsets within the i64");
        let mut head = [0; HEADER_BYTES];
        self.header.write(&mut head);
        self.head = Some(Bytes::copy_from_slice(&head));
        self
    }

    /// The same batch with the broker's time `at` as every record's timestamp: `LogAppendTime`.
    /// The records are not copied; the checksum is made anew.
    #[must_use]
    pub fn with_log_append_time(self, at: i64) -> Self {
        let attributes = self.header.attributes | ATTRIBUTE_LOG_APPEND_TIME;
        self.resealed(attributes, at)
    }

    /// The same batch with its records' own timestamps, `CreateTime`, the greatest of them corrected to what a
    /// [`Survey`](super::Survey) found.
    #[must_use]
    pub fn with_max_timestamp(self, max_timestamp: i64) -> Self {
        let attributes = self.header.attributes & !ATTRIBUTE_LOG_APPEND_TIME;
        if self.header.attributes == attributes && self.header.max_timestamp == max_timestamp {
            return self;
        }
        self.resealed(attributes, max_timestamp)
    }

    fn resealed(mut self, attributes: i16, max_timestamp: i64) -> Self {
        self.header.attributes = attributes;
        self.header.max_timestamp = max_timestamp;
        let mut head = [0; HEADER_BYTES];
        seal(&mut self.header, &mut head, &self.whole[HEADER_BYTES..]);
        self.head = Some(Bytes::copy_from_slice(&head));
        self
    }

    /// The batch's bytes in order: header, records.
    #[must_use]
    pub fn chunks(&self) -> [&[u8]; 2] {
        let (head, records) = self.whole.split_at(HEADER_BYTES);
        [self.head.as_deref().unwrap_or(head), records]
    }

    /// Appends the batch's bytes as shared chunks, for vectored writes.
    pub fn push_to(&self, out: &mut Vec<Bytes>) {
        match &self.head {
            None => out.push(self.whole.clone()),
            Some(head) => {
                out.push(head.clone());
                if self.whole.len() > HEADER_BYTES {
                    out.push(self.whole.slice(HEADER_BYTES..));
                }
            }
        }
    }

    /// The batch's bytes in one piece; a copy unless they are in one already.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match &self.head {
            None => self.whole.clone(),
            Some(_) => Bytes::from(self.chunks().concat()),
        }
    }

    /// The records, unpacked if need be, within [`MAX_DECOMPRESSED`].
    pub fn records(&self) -> Result<Records, BatchError> {
        self.records_within(MAX_DECOMPRESSED)
    }

    /// The records, unpacked if need be, at most `limit` bytes of them where they are packed.
    pub fn records_within(&self, limit: usize) -> Result<Records, BatchError> {
        let bytes = match self.header.codec()? {
            Codec::None => self.whole.slice(HEADER_BYTES..),
            codec => Bytes::from(decompress(codec, &self.whole[HEADER_BYTES..], limit)?),
        };
        Ok(Records::new(bytes, self.header))
    }
}

/// The total length by the header at the front. Judges as much of it as is there.
fn whole_length(bytes: &[u8]) -> Result<usize, BatchError> {
    let need = |need| BatchError::Truncated { have: bytes.len(), need };
    let length = bytes.get(8..).and_then(|b| b.first_chunk::<4>()).ok_or(need(HEADER_BYTES))?;
    let length = i32::from_be_bytes(*length);
    if length < (HEADER_BYTES - PREFIX_BYTES) as i32 {
        // An older format may be shorter than our header: its magic is the better reason.
        return match bytes.get(MAGIC_POS) {
            Some(&magic @ 0..=1) if length >= 14 => Err(BatchError::Magic(magic as i8)),
            _ => Err(BatchError::Header("its length is impossible")),
        };
    }
    match bytes.get(MAGIC_POS) {
        Some(&magic) if magic != 2 => Err(BatchError::Magic(magic as i8)),
        _ => Ok(length as usize + PREFIX_BYTES),
    }
}

/// Writes `header` into `head` with the checksum over it and `records`, and keeps the checksum in `header`.
fn seal(header: &mut BatchHeader, head: &mut [u8; HEADER_BYTES], records: &[u8]) {
    header.write(head);
    header.crc = crc32c::crc32c_append(crc32c::crc32c(&head[CRC_START..]), records);
    head[17..21].copy_from_slice(&header.crc.to_be_bytes());
}
