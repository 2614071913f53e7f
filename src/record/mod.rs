//! What a log is made of: offsets, names of topics, and Kafka's record batch (format v2).
//!
//! Borrowed views over bytes, bounded decoding, no IO. A batch from outside is checked once, at the
//! broker's door ([`Batch::parse`] and [`check_records`]); whoever holds a [`Batch`] afterwards knows
//! that its header is whole and its checksum right.

mod batch;
mod build;
mod compression;
mod names;
mod records;
mod rewrite;
#[cfg(test)]
mod tests;
mod varint;

pub use batch::{Batch, BatchError, BatchHeader, HEADER_BYTES, TimestampType};
pub use build::{BatchBuilder, Header};
pub use compression::{Codec, CompressionError, MAX_DECOMPRESSED, compress, decompress};
pub use names::{ALERTS_TOPIC, NameError, Offset, PartitionId, TopicId, TopicName, TopicPartition};
pub use records::{ControlMarker, Headers, RecordIter, RecordRef, Records, Survey, check_records, survey_records, survey_records_within};
