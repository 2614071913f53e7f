//! Stored records as rows: what is in a topic now, partition by partition.
//!
//! Owns [`Stored`], a relation with the offsets it had when it was opened, and [`Reading`], a walk over one of its
//! partitions. Always: rows come in offset order and none lies at or behind the end that was taken at the start,
//! so a read ends although records keep coming. Records that are no row are passed over: the stream's intake has
//! judged them already.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::SchemaRef;

use crate::bus::{Bus, BusError, Reader};
use crate::format::{Decoder, StreamSchema, Tombstone};
use crate::record::{Batch, Offset, PartitionId, TopicPartition};
use crate::sql::catalog::StreamDef;
use crate::sql::error::{Code, SqlError};
use crate::sql::lower::{Shape, Source};
use crate::stream::{Expr, StreamError};

/// How much is taken from the log at a time.
const POLL_BYTES: usize = 1 << 20;

/// A stream or table as it was at one moment.
pub(super) struct Stored {
    /// What planning knows of it.
    pub source: Source,
    /// Its columns.
    pub shape: Shape,
    /// How its records are read.
    schema: Arc<StreamSchema>,
    bus: Arc<dyn Bus>,
    /// What each partition held.
    pub partitions: Vec<(TopicPartition, Range<Offset>)>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stored {}", self.source.name)
    }
}

impl Stored {
    /// Takes the bounds of every partition. A topic that does not exist yet holds nothing.
    pub(super) async fn open(of: &StreamDef, bus: &Arc<dyn Bus>) -> Result<Self, SqlError> {
        let count = bus.partitions(&of.topic).await.map_err(storage)?.unwrap_or(0);
        let mut partitions = Vec::new();
        for partition in 0..count {
            let of = TopicPartition::new(of.topic.clone(), PartitionId(partition));
            let bounds = bus.bounds(&of).await.map_err(storage)?;
            partitions.push((of, bounds));
        }
        let source = of.source(count.max(1));
        let shape = source.shape()?;
        Ok(Self { source, shape, schema: Arc::new(of.schema(count.max(1))?), bus: Arc::clone(bus), partitions })
    }

    /// A walk over the partition with this place in [`Stored::partitions`].
    pub(super) async fn reading(&self, place: usize) -> Result<Reading, SqlError> {
        let (partition, range) = &self.partitions[place];
        let reader = self.bus.open(partition, range.start).await.map_err(storage)?;
        let decoder = Decoder::new(Arc::clone(&self.schema));
        Ok(Reading { reader, decoder, partition: partition.partition, at: range.start, end: range.end, raw: Vec::new() })
    }

    /// A walk that begins at `from` and goes on with what comes behind the end.
    pub(super) async fn reading_from(&self, place: usize, from: Offset) -> Result<Reading, SqlError> {
        let (partition, _) = &self.partitions[place];
        let reader = self.bus.open(partition, from).await.map_err(storage)?;
        let decoder = Decoder::new(Arc::clone(&self.schema));
        Ok(Reading { reader, decoder, partition: partition.partition, at: from, end: Offset(i64::MAX), raw: Vec::new() })
    }

    /// Decoded rows as the columns that a query can name.
    pub(super) fn columns(&self, decoded: &RecordBatch) -> Result<RecordBatch, StreamError> {
        let (exprs, as_is) = self.shape.all_columns(&self.source.decoded);
        if as_is {
            return Ok(decoded.clone());
        }
        evaluate(&exprs, decoded, &self.shape.schema)
    }
}

fn evaluate(exprs: &[Arc<dyn Expr>], batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, StreamError> {
    let columns = exprs.iter().map(|expr| expr.evaluate(batch)).collect::<Result<Vec<ArrayRef>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|e| StreamError::Limit(format!("the computed columns do not fit: {e}")))
}

/// A run of rows of one partition.
pub(super) struct Run {
    /// The rows, as decoded.
    pub rows: RecordBatch,
    /// Each row's offset.
    pub offsets: ScalarBuffer<i64>,
    /// What is deleted, by offset and key.
    pub tombstones: Vec<Tombstone>,
}

/// A walk over one partition.
pub(super) struct Reading {
    reader: Box<dyn Reader>,
    decoder: Decoder,
    /// Which partition.
    pub partition: PartitionId,
    at: Offset,
    end: Offset,
    /// What was taken from the log and not decoded yet.
    raw: Vec<Batch>,
}

impl Reading {
    /// The offset that comes next.
    pub(super) const fn at(&self) -> Offset {
        self.at
    }

    /// The next rows; `None` at the end. A run may be empty where its records are no rows.
    pub(super) async fn next(&mut self) -> Result<Option<Run>, SqlError> {
        if self.at >= self.end {
            return Ok(None);
        }
        if self.raw.is_empty() {
            self.raw = self.reader.poll(POLL_BYTES).await.map_err(storage)?;
            if self.raw.is_empty() {
                // Nothing behind the position although the end lies further: those offsets hold no records.
                let before = self.at;
                self.at = self.reader.position().max(self.at);
                return if self.at > before && self.at < self.end { Ok(Some(self.empty())) } else { Ok(None) };
            }
        }
        let decoded = self.decoder.decode_asking(self.partition, &self.raw, self.at).await;
        let decoded = decoded.map_err(|e| SqlError::new(Code::Storage, e.to_string()))?;
        self.at = decoded.next.max(self.at);
        let done = self.at;
        self.raw.retain(|batch| batch.next_offset() > done);
        let end = self.end;
        let len = decoded.offsets.partition_point(|offset| *offset < end.0);
        let mut tombstones = decoded.tombstones;
        tombstones.retain(|tombstone| tombstone.offset < end);
        Ok(Some(Run { rows: decoded.rows.slice(0, len), offsets: decoded.offsets.slice(0, len), tombstones }))
    }

    fn empty(&self) -> Run {
        Run { rows: RecordBatch::new_empty(self.decoder.arrow_schema()), offsets: ScalarBuffer::from(Vec::new()), tombstones: Vec::new() }
    }
}

/// The log's error as the user sees it.
#[allow(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
pub(super) fn storage(error: BusError) -> SqlError {
    let hint = match &error {
        BusError::OutOfRange { .. } => Some("older records were deleted meanwhile: ask again".to_owned()),
        BusError::Closed(_) => Some("the node is stopping".to_owned()),
        _ => None,
    };
    SqlError::new(Code::Storage, error.to_string()).hint_opt(hint)
}
