//! The records of one batch: [`Records`], [`RecordRef`] and the check at the broker's door.
//!
//! Borrowed views that read as they go. Always: a record that is handed out lies whole within its batch
//! and its offset within the batch's range; its headers are read when asked for. Called by `Batch`, by
//! the broker's produce path, and by whoever decodes records.

use std::fmt;

use bytes::Bytes;

use super::batch::{Batch, BatchError, BatchHeader, TimestampType};
use super::build::BatchBuilder;
use super::compression::MAX_DECOMPRESSED;
use super::names::Offset;
use super::varint::{take_varint, take_varlong};

/// The shortest record: its length and six one-byte fields.
const MIN_RECORD_BYTES: usize = 7;

/// The plain records of one batch.
#[derive(Clone)]
pub struct Records {
    bytes: Bytes,
    header: BatchHeader,
}

/// How many and how much, never what.
impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("count", &self.header.count).field("bytes", &self.bytes.len()).finish()
    }
}

impl Records {
    /// `bytes` are the unpacked records of the batch with this header.
    pub(super) const fn new(bytes: Bytes, header: BatchHeader) -> Self {
        Self { bytes, header }
    }

    /// The records in order. After an error there are no more.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { rest: &self.bytes, index: 0, header: &self.header }
    }

    /// The most records there can be: the header's count, or less where the bytes cannot hold as many.
    /// Safe to reserve room for.
    #[must_use]
    pub fn at_most(&self) -> usize {
        (self.header.count as usize).min(self.bytes.len() / MIN_RECORD_BYTES)
    }

    /// How many bytes the plain records have.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<RecordRef<'a>, BatchError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Walks the records of one batch.
#[derive(Clone)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
    index: i32,
    header: &'a BatchHeader,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordRef<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.header.count {
            return None;
        }
        let index = self.index;
        match read_record(&mut self.rest, index, self.header) {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(error) => {
                self.index = self.header.count;
                Some(Err(error))
            }
        }
    }
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy)]
pub struct RecordRef<'a> {
    /// Where it sits in its partition.
    pub offset: Offset,
    /// Its time in milliseconds: the producer's, or the batch's append time.
    pub timestamp: i64,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
    header_count: i32,
    index: i32,
}

/// Where and how much, never what: a record may hold what a log line must not.
impl fmt::Debug for RecordRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordRef")
            .field("offset", &self.offset)
            .field("timestamp", &self.timestamp)
            .field("key_bytes", &self.key.map(<[u8]>::len))
            .field("value_bytes", &self.value.map(<[u8]>::len))
            .field("headers", &self.header_count)
            .finish()
    }
}

impl<'a> RecordRef<'a> {
    /// The headers as they are written, and how many there are.
    pub(super) const fn raw_headers(&self) -> (&'a [u8], i32) {
        (self.headers, self.header_count)
    }

    /// The headers in order; a key may come twice and a value may be null.
    #[must_use]
    pub const fn headers(&self) -> Headers<'a> {
        Headers { rest: self.headers, left: self.header_count, index: self.index }
    }

    /// The value of the last whole header with this key, as most clients read it; `Some(None)` is a null value.
    #[must_use]
    pub fn header(&self, key: &[u8]) -> Option<Option<&'a [u8]>> {
        self.headers().map_while(Result::ok).filter(|(k, _)| *k == key).last().map(|(_, value)| value)
    }
}

/// Walks the headers of one record. After an error there are no more.
#[derive(Clone, Copy)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: i32,
    index: i32,
}

/// How many, never what.
impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Headers({} left)", self.left)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<(&'a [u8], Option<&'a [u8]>), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        let header = match (take_field(&mut self.rest), take_field(&mut self.rest)) {
            (Some(Some(key)), Some(value)) => Ok((key, value)),
            (Some(None), _) => Err(BatchError::BadRecord { index: self.index, reason: "a header's key is null" }),
            _ => Err(BatchError::BadRecord { index: self.index, reason: "a header is cut off" }),
        };
        if header.is_err() {
            self.left = 0;
        }
        Some(header)
    }
}

/// Takes one length-prefixed field: `Some(None)` is null, `None` a field that is not whole.
#[inline]
fn take_field<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match take_varint(rest)? {
        -1 => Some(None),
        length => {
            let (field, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            *rest = behind;
            Some(Some(field))
        }
    }
}

#[inline]
fn read_record<'a>(rest: &mut &'a [u8], index: i32, header: &BatchHeader) -> Result<RecordRef<'a>, BatchError> {
    let bad = |reason| BatchError::BadRecord { index, reason };
    let length = take_varint(rest).ok_or(bad("its length is cut off"))?;
    let length = usize::try_from(length).map_err(|_| bad("its length is negative"))?;
    let (mut body, behind) = rest.split_at_checked(length).ok_or(bad("it is cut off"))?;
    let cut = || bad("its fields do not fit its length");
    // The attributes of a record mean nothing yet.
    let (_, fields) = body.split_first().ok_or_else(cut)?;
    body = fields;
    let timestamp_delta = take_varlong(&mut body).ok_or_else(cut)?;
    let offset_delta = take_varint(&mut body).ok_or_else(cut)?;
    if !(0..=header.last_offset_delta).contains(&offset_delta) {
        return Err(bad("its offset lies outside the batch"));
    }
    let key = take_field(&mut body).ok_or_else(cut)?;
    let value = take_field(&mut body).ok_or_else(cut)?;
    let header_count = take_varint(&mut body).ok_or_else(cut)?;
    // A header has at least two bytes.
    if header_count < 0 || header_count as usize > body.len() / 2 {
        return Err(bad("its header count is impossible"));
    }
    *rest = behind;
    let timestamp = match header.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp,
        TimestampType::CreateTime => header.base_timestamp.wrapping_add(timestamp_delta),
    };
    let offset = Offset(header.base_offset + i64::from(offset_delta));
    Ok(RecordRef { offset, timestamp, key, value, headers: body, header_count, index })
}

/// What walking a client's records found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The smallest timestamp of a record.
    pub min_timestamp: i64,
    /// The greatest, which the header should say but some clients do not.
    pub max_timestamp: i64,
    /// Whether a record has no key, which a compacted topic cannot take.
    pub keyless: bool,
}

/// Checks the records of a batch that a client wrote: as many as the header says, offsets 0, 1, 2 and so
/// on, every field and header whole, nothing behind. The broker's door calls it before it appends.
pub fn check_records(batch: &Batch) -> Result<(), BatchError> {
    survey_records(batch).map(drop)
}

/// [`check_records`], and what was seen on the way.
pub fn survey_records(batch: &Batch) -> Result<Survey, BatchError> {
    survey_records_within(batch, MAX_DECOMPRESSED)
}

/// [`survey_records`] with a limit of the caller's own on what the records may unpack to.
pub fn survey_records_within(batch: &Batch, limit: usize) -> Result<Survey, BatchError> {
    let header = batch.header();
    if header.count < 1 || i64::from(header.count) != i64::from(header.last_offset_delta) + 1 {
        return Err(BatchError::Count { claimed: header.count, found: i64::from(header.last_offset_delta) + 1 });
    }
    let records = batch.records_within(limit)?;
    let mut survey = Survey { min_timestamp: i64::MAX, max_timestamp: i64::MIN, keyless: false };
    let mut rest = &records.bytes[..];
    for index in 0..header.count {
        if rest.is_empty() {
            return Err(BatchError::Count { claimed: header.count, found: i64::from(index) });
        }
        let record = read_record(&mut rest, index, header)?;
        if record.offset.0 != header.base_offset + i64::from(index) {
            return Err(BatchError::BadRecord { index, reason: "its offset does not follow the one before" });
        }
        let mut headers = record.headers();
        for header in &mut headers {
            header?;
        }
        if !headers.rest.is_empty() {
            return Err(BatchError::BadRecord { index, reason: "its fields do not fill its length" });
        }
        survey.min_timestamp = survey.min_timestamp.min(record.timestamp);
        survey.max_timestamp = survey.max_timestamp.max(record.timestamp);
        survey.keyless |= record.key.is_none();
    }
    if !rest.is_empty() {
        return Err(BatchError::Header("there are bytes behind its last record"));
    }
    Ok(survey)
}

/// What a marker in a control batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlMarker {
    /// The transaction's records are to be ignored.
    Abort,
    /// The transaction's records count.
    Commit,
    /// A marker of another kind, which readers skip.
    Other(i16),
}

impl ControlMarker {
    /// Reads a control record's key. `None` where it is not one.
    #[must_use]
    pub fn read(key: Option<&[u8]>) -> Option<Self> {
        let kind = key?.get(2..)?.first_chunk::<2>()?;
        Some(match i16::from_be_bytes(*kind) {
            0 => Self::Abort,
            1 => Self::Commit,
            other => Self::Other(other),
        })
    }

    /// A control batch of this one marker, as a transaction's coordinator writes it.
    #[must_use]
    pub fn batch(self, at: i64, producer_id: i64, producer_epoch: i16, coordinator_epoch: i32) -> Batch {
        let kind = match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::Other(kind) => kind,
        };
        let [high, low] = i16::to_be_bytes(kind);
        let mut value = [0; 6];
        value[2..].copy_from_slice(&coordinator_epoch.to_be_bytes());
        let mut builder = BatchBuilder::new().with_producer(producer_id, producer_epoch, -1).transactional().control();
        builder.push(at, Some(&[0, 0, high, low]), Some(&value), &[]);
        builder.finish()
    }
}
