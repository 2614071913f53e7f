//! Numbered rows in columns.
//!
//! Rows are numbered in the order in which they come; a number is never used again. Their columns lie in blocks that
//! grow geometrically, so that a state of many small commits is put together from a few blocks and each row is copied a
//! few times only. Always: blocks follow one another without a gap.

use std::collections::VecDeque;

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;

use crate::stream::StreamError;
use crate::stream::rowwise::arrow_error;

/// Blocks of this many rows are not joined to others any more.
const FULL_BLOCK: usize = 32_768;

/// The rows.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The number behind the last row.
    end: u64,
    blocks: VecDeque<Block>,
}

#[derive(Debug)]
struct Block {
    start: u64,
    len: usize,
    columns: Vec<ArrayRef>,
}

impl Blocks {
    /// The number that the next row gets.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Adds rows.
    pub(super) fn push(&mut self, columns: &[ArrayRef], len: usize) -> Result<(), StreamError> {
        if len == 0 {
            return Ok(());
        }
        self.blocks.push_back(Block { start: self.end, len, columns: columns.to_vec() });
        self.end += len as u64;
        while let [.., before, last] = self.blocks.make_contiguous()
            && before.len <= 2 * last.len
            && before.len + last.len <= FULL_BLOCK
        {
            let columns = before.columns.iter().zip(&last.columns).map(|(a, b)| concat(&[a.as_ref(), b.as_ref()]));
            before.columns = columns.collect::<Result<_, _>>().map_err(|e| arrow_error("the rows of a join", &e))?;
            before.len += last.len;
            self.blocks.pop_back();
        }
        Ok(())
    }

    /// Lets go of blocks that lie wholly before a row.
    pub(super) fn trim(&mut self, before: u64) {
        while self.blocks.front().is_some_and(|block| block.start + block.len as u64 <= before) {
            self.blocks.pop_front();
        }
    }

    /// The columns of each block.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[ArrayRef]> {
        self.blocks.iter().map(|block| block.columns.as_slice())
    }

    /// Which block holds a row, and where in it.
    pub(super) fn place(&self, row: u64) -> (usize, usize) {
        let block = self.blocks.partition_point(|block| block.start <= row) - 1;
        (block, (row - self.blocks[block].start) as usize)
    }

    /// The columns of every row from `base` on.
    pub(super) fn all(&self, base: u64) -> Result<Vec<ArrayRef>, StreamError> {
        let width = self.blocks.front().map_or(0, |first| first.columns.len());
        let column = |column: usize| {
            let kept = |block: &Block| {
                let gone = base.saturating_sub(block.start).min(block.len as u64) as usize;
                block.columns[column].slice(gone, block.len - gone)
            };
            let parts: Vec<ArrayRef> = self.blocks.iter().map(kept).collect();
            let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
            concat(&parts).map_err(|e| arrow_error("the rows of a join", &e))
        };
        (0..width).map(column).collect()
    }

    /// About how many bytes they take.
    pub(super) fn bytes(&self) -> usize {
        // By slice: blocks may share their memory.
        let of = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_default();
        self.blocks.iter().flat_map(|block| &block.columns).map(of).sum()
    }
}
