//! Rows that are kept for a while, in columns, and dropped one by one.
//!
//! A row is a place in one of some chunks. Always: chunks are copied together when most of their rows have been dropped,
//! so that a row is moved a few times only.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::interleave;

use crate::stream::StreamError;
use crate::stream::rowwise::{arrow_error, take_column};

/// Chunks are copied together when they hold so many rows more than twice as many as are kept, or when there are so many.
const SPARE_ROWS: usize = 16_384;
const MANY_CHUNKS: usize = 256;

/// Where a row is: a chunk, and a row of it.
pub(in crate::stream) type Spot = (u32, u32);

/// The rows.
#[derive(Debug, Default)]
pub(in crate::stream) struct Store {
    chunks: Vec<Vec<ArrayRef>>,
    rows: usize,
}

impl Store {
    /// The number of the chunk that is added next.
    pub(in crate::stream) const fn next(&self) -> u32 {
        self.chunks.len() as u32
    }

    /// Keeps these rows of a batch; answers their chunk, where they lie in this order.
    pub(in crate::stream) fn add(&mut self, columns: &[ArrayRef], rows: Vec<u32>) -> Result<u32, StreamError> {
        self.rows += rows.len();
        let rows = UInt32Array::from(rows);
        self.chunks.push(columns.iter().map(|column| take_column(column, &rows)).collect::<Result<_, _>>()?);
        Ok((self.chunks.len() - 1) as u32)
    }

    /// The rows at these spots as columns; there is at least one.
    pub(in crate::stream) fn gather(&self, spots: &[Spot]) -> Result<Vec<ArrayRef>, StreamError> {
        let picked: Vec<(usize, usize)> = spots.iter().map(|(chunk, row)| (*chunk as usize, *row as usize)).collect();
        let width = self.chunks.first().map_or(0, Vec::len);
        let column = |place: usize| {
            let sources: Vec<&dyn Array> = self.chunks.iter().map(|chunk| chunk[place].as_ref()).collect();
            interleave(&sources, &picked).map_err(|e| arrow_error("the ranked rows", &e))
        };
        (0..width).map(column).collect()
    }

    /// Whether it is time to copy the chunks together, where so many rows are still wanted.
    pub(in crate::stream) const fn is_untidy(&self, kept: usize) -> bool {
        self.rows > 2 * kept + SPARE_ROWS || self.chunks.len() > MANY_CHUNKS + kept / MANY_CHUNKS
    }

    /// Keeps the rows at these spots alone: the first is at (0, 0), the second at (0, 1), and so on.
    pub(in crate::stream) fn keep(&mut self, spots: &[Spot]) -> Result<(), StreamError> {
        self.chunks = if spots.is_empty() { Vec::new() } else { vec![self.gather(spots)?] };
        self.rows = spots.len();
        Ok(())
    }

    pub(in crate::stream) fn bytes(&self) -> usize {
        self.chunks.iter().flatten().map(|column| column.get_array_memory_size()).sum()
    }
}
