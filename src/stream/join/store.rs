//! The rows of one side that may still find a partner.
//!
//! Rows are numbered in the order in which they are worked through, which is the order of their times. Always: `blocks`
//! hold every row from `base` on and possibly some before it; the rows of a key in `index` are in order of their
//! numbers.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::ArrayRef;

use super::blocks::{Blocks, Kept};
use super::keys::{JoinKeys, NOBODY};
use crate::stream::{Parked, SpillSpace, StreamError};

/// What is known about a row's partners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It has none.
    Nobody,
    /// There is a candidate whose condition has not been looked at.
    Perhaps,
    /// It has one.
    Somebody,
}

/// One side's rows.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// The number of the first row that is kept.
    base: u64,
    times: VecDeque<i64>,
    slots: VecDeque<u32>,
    found: VecDeque<Found>,
    blocks: Blocks,
    /// By key: the rows that were worked through, each with its time.
    index: Vec<VecDeque<(i64, u64)>>,
}

impl Store {
    /// The number behind the last row.
    pub(super) fn end(&self) -> u64 {
        self.base + self.times.len() as u64
    }

    /// The number of the first row that is kept.
    pub(super) const fn base(&self) -> u64 {
        self.base
    }

    fn at(&self, row: u64) -> usize {
        (row - self.base) as usize
    }

    /// Adds rows, in order of their times; nobody finds them before [`Store::enter`].
    pub(super) fn push(&mut self, columns: &[ArrayRef], times: &[i64], slots: &[u32]) -> Result<(), StreamError> {
        if times.is_empty() {
            return Ok(());
        }
        self.blocks.push(columns, times.len())?;
        self.times.extend(times);
        self.slots.extend(slots);
        self.found.extend(std::iter::repeat_n(Found::Nobody, times.len()));
        Ok(())
    }

    /// The same of rows that lie on the disk, the last of a file of so many: those before them are gone, which only the first
    /// of all can have. Answers whether that is so.
    pub(super) fn push_parked(&mut self, file: Arc<Parked>, rows: usize, width: usize, times: &[i64], slots: &[u32]) -> bool {
        let Some(gone) = rows.checked_sub(times.len()) else { return false };
        if gone > 0 {
            if self.end() > 0 {
                return false;
            }
            self.base = gone as u64;
        }
        self.blocks.push_parked(file, rows, width);
        self.times.extend(times);
        self.slots.extend(slots);
        self.found.extend(std::iter::repeat_n(Found::Nobody, times.len()));
        true
    }

    /// A row is worked through: from now on the other side finds it.
    pub(super) fn enter(&mut self, row: u64) {
        let (at, slot) = (self.at(row), self.slots[self.at(row)]);
        if slot == NOBODY {
            return;
        }
        if self.index.len() <= slot as usize {
            self.index.resize_with(slot as usize + 1, VecDeque::new);
        }
        self.index[slot as usize].push_back((self.times[at], row));
    }

    pub(super) fn time(&self, row: u64) -> i64 {
        self.times[self.at(row)]
    }

    pub(super) fn slot(&self, row: u64) -> u32 {
        self.slots[self.at(row)]
    }

    /// What is known of a row's partners; of one that is gone nothing is asked any more.
    pub(super) fn found(&self, row: u64) -> Found {
        self.found[self.at(row)]
    }

    /// Notes what was found for a row, if it is still there.
    pub(super) fn note(&mut self, row: u64, found: Found) {
        if row >= self.base {
            let at = self.at(row);
            self.found[at] = found;
        }
    }

    /// The rows of a key whose time lies in `from ..= to`, in order.
    pub(super) fn partners(&self, slot: u32, from: i64, to: i64) -> impl Iterator<Item = u64> + '_ {
        let rows = if slot == NOBODY { None } else { self.index.get(slot as usize) };
        rows.into_iter().flat_map(move |rows| {
            let (first, behind) = (rows.partition_point(|(at, _)| *at < from), rows.partition_point(|(at, _)| *at <= to));
            rows.range(first..behind.max(first)).map(|(_, row)| *row)
        })
    }

    /// Lets the first row go; its columns stay until [`Store::trim`].
    pub(super) fn pop(&mut self, keys: &mut JoinKeys) {
        let (Some(_), Some(slot), Some(_)) = (self.times.pop_front(), self.slots.pop_front(), self.found.pop_front()) else { return };
        if slot != NOBODY {
            let gone = self.index.get_mut(slot as usize).and_then(VecDeque::pop_front);
            debug_assert_eq!(gone.map(|(_, row)| row), Some(self.base), "a key's rows go in order");
        }
        self.base += 1;
        keys.release(slot);
    }

    /// The latest row at or before `limit` of which `wanted` is true; its time.
    pub(super) fn latest(&self, limit: i64, wanted: impl Fn(Found) -> bool) -> Option<i64> {
        let end = self.times.partition_point(|at| *at <= limit);
        (0..end).rev().find(|at| wanted(self.found[*at])).map(|at| self.times[at])
    }

    /// Lets go of the columns of rows that are gone.
    pub(super) fn trim(&mut self) {
        self.blocks.trim(self.base);
    }

    /// The columns.
    pub(super) const fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// All rows that are kept, block by block: their columns, their times, and whether they have found somebody.
    pub(super) fn kept(&self) -> impl Iterator<Item = (Kept, Vec<i64>, Vec<i64>)> {
        let mut from = 0;
        self.blocks.kept(self.base).map(move |kept| {
            let range = from..from + kept.len();
            from = range.end;
            let found = self.found.range(range.clone()).map(|found| i64::from(*found == Found::Somebody)).collect();
            (kept, self.times.range(range).copied().collect(), found)
        })
    }

    /// Puts rows on the disk; see `Operator::spill`.
    pub(super) fn spill(&mut self, want: usize, space: &SpillSpace) -> Result<usize, StreamError> {
        self.blocks.spill(want, space)
    }

    /// How many bytes lie there.
    pub(super) fn spilled_bytes(&self) -> u64 {
        self.blocks.spilled_bytes()
    }

    /// About how many bytes the rows take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.bytes() + self.times.len() * (13 + 16) + self.index.len() * 32
    }
}
