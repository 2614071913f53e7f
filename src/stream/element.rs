//! What flows between operators: rows with their place and time, and what operators give back.

use arrow::array::RecordBatch;
use arrow::buffer::ScalarBuffer;

use super::inputs::{partition_of, source_of};
use crate::record::PartitionId;
use crate::time::Timestamp;

/// The event time of a row that has none. Below every real time, so such a row is late everywhere.
pub const NO_TIME: i64 = i64::MIN;

/// The `offset` of a row that no single input record stands for, as a window's result.
pub const NO_OFFSET: i64 = -1;

/// A run of rows from one input partition, in the order the operator before gave them.
///
/// Always: `offsets`, `times`, `before` and `heard` have as many entries as `batch` has rows.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The columns.
    pub batch: RecordBatch,
    /// Which input partition the rows came from; 0 where they come from a merge of several. Behind a union the place of its
    /// source stands above it (`inputs`).
    pub partition: PartitionId,
    /// Each row's offset in that partition, or [`NO_OFFSET`].
    pub offsets: ScalarBuffer<i64>,
    /// Each row's event time in milliseconds, or [`NO_TIME`].
    pub times: ScalarBuffer<i64>,
    /// The partition's watermark just before each row: what "late" is judged by. So any cut of the same
    /// rows into batches gives the same results.
    pub before: ScalarBuffer<i64>,
    /// When each row counts as heard: its event time; for a row ahead of the clock what the clock said when it
    /// came, or the watermark if that is later. `None` where no row was ahead.
    pub heard: Option<ScalarBuffer<i64>>,
    /// Whether these rows say that their keys are gone from results that are kept up to date: then only the key columns
    /// have a value.
    pub gone: bool,
}

impl Rows {
    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.num_rows() == 0
    }

    /// The partition and the offset of a row in the first source's topic; behind a union, rows of the others have none.
    #[must_use]
    pub fn first_source(&self, row: usize) -> (PartitionId, i64) {
        let offset = if source_of(self.partition) == 0 { self.offsets[row] } else { NO_OFFSET };
        (partition_of(self.partition), offset)
    }

    /// The rows `start .. start + len`, sharing their memory.
    #[must_use]
    pub fn slice(&self, start: usize, len: usize) -> Self {
        self.picked(self.batch.slice(start, len), |values| values.slice(start, len))
    }

    /// These rows' places and times, picked by `of`, beside the `batch` that was picked in the same way.
    pub(super) fn picked(&self, batch: RecordBatch, of: impl Fn(&ScalarBuffer<i64>) -> ScalarBuffer<i64>) -> Self {
        Self {
            batch,
            partition: self.partition,
            offsets: of(&self.offsets),
            times: of(&self.times),
            before: of(&self.before),
            heard: self.heard.as_ref().map(of),
            gone: self.gone,
        }
    }

    /// When the row counts as heard, for whoever asks who was heard of and when: a clock that runs ahead must
    /// not make its patient look fresh.
    #[must_use]
    pub fn heard(&self, row: usize) -> i64 {
        self.heard.as_ref().map_or(self.times[row], |heard| heard[row])
    }

    /// Whether the row was ahead of the clock when it came.
    #[must_use]
    pub fn is_ahead(&self, row: usize) -> bool {
        self.heard.as_ref().is_some_and(|heard| heard[row] != self.times[row])
    }

    /// Whether any row was not ahead of the clock, and so says how late it is.
    #[must_use]
    pub fn tell_time(&self) -> bool {
        (0..self.len()).any(|row| !self.is_ahead(row))
    }
}

/// Why a row went aside instead of on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aside {
    /// Every window it belongs to was closed for its partition, or it has no event time.
    Late,
    /// Its event time is more than a day ahead of the clock.
    FarAhead,
}

/// A row that went aside: late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsideRow {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: i64,
    /// Why.
    pub why: Aside,
}

/// A row whose expression failed: it goes to the query's dead letters, and the rows beside it go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRow {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset there, or [`NO_OFFSET`] for a result row.
    pub offset: i64,
    /// What failed, without the row's values.
    pub reason: String,
    /// For a result row, which no record stands for: the row as JSON.
    pub row: Option<Vec<u8>>,
}

/// A record of a table that says: this key's row is gone.
#[derive(Clone)]
pub struct Deletion {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: i64,
    /// From when on it holds, in milliseconds.
    pub time: i64,
    /// The partition's watermark just before it.
    pub before: i64,
    /// The record's key.
    pub key: Vec<u8>,
}

/// Where, never whose: a key may be a patient's id.
impl std::fmt::Debug for Deletion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deletion").field("partition", &self.partition).field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// What an operator hands on during one call.
#[derive(Debug, Default)]
pub struct Output {
    /// Rows for the next operator, in order.
    pub rows: Vec<Rows>,
    /// Rows that went aside.
    pub aside: Vec<AsideRow>,
    /// Rows that failed.
    pub failed: Vec<FailedRow>,
    /// The watermark the next operator may rely on, where this operator holds it back (a reorder
    /// buffer); `None` hands on the one that came in.
    pub watermark: Option<Timestamp>,
}
