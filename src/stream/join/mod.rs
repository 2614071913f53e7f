//! Joins in event time: rows of two sources that belong together by key and time.
//!
//! # Why the result does not depend on how the two sides interleave
//!
//! A join takes no notice of when a row comes. Rows of both sides wait in reorder buffers (those of
//! `keyed`) until the watermark of the task, the least over the active partitions of both sides, has passed
//! them; then they are worked through in one order that both sides share: event time, then side, then source
//! partition and offset. A row that is worked through meets the rows of the other side that came before it in
//! that order; what must wait for silence (a row of an outer join that has found nobody) has its place in the
//! same order, at the last time a partner could have had. So batches, threads, commits and restarts cut one and
//! the same sequence in different places and never change it. A row is late by the watermark of its own
//! partition just before it, as for every operator.
//!
//! # What is kept
//!
//! Columns: the rows that wait, and those that may still find a partner, in blocks (`blocks`); by key only
//! numbers. A row goes when the watermark has passed the last time its partner could have. What comes out is put
//! together with one `interleave` a column for some thousand rows (`pairs`).
//!
//! [`Interval`] is the join by a range of time; a window join is one whose key holds the window. [`AsOf`]
//! takes for each row the latest one of the other side, a stream's (`ASOF JOIN`) or a table's
//! (`FOR SYSTEM_TIME AS OF`). [`Union`] puts the rows of both sides one beside the other, and nothing
//! waits. A task holds them through [`Join`]; `chain` says which rows reach which side.

mod asof;
mod blocks;
mod interval;
mod keys;
mod pairs;
#[cfg(test)]
mod spill_tests;
mod store;
#[cfg(test)]
mod tests;
mod union;

use arrow::datatypes::SchemaRef;

pub use asof::{AsOf, AsOfSpec, TableSide};
pub use interval::{Interval, IntervalSpec};
pub use union::Union;

use super::element::{Deletion, Output, Rows};
use super::operator::{StateReader, StateWriter, StreamError};
use super::spill::SpillSpace;
use crate::time::Timestamp;

/// One of the two inputs of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What stands before JOIN.
    Left = 0,
    /// What stands behind it.
    Right = 1,
}

impl Side {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::Left, Self::Right];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    /// The word in the names of a state's parts.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }
}

/// What a join makes of rows with and without a partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Pairs.
    Inner,
    /// Pairs, and left rows without a partner.
    Left,
    /// Pairs, and right rows without a partner.
    Right,
    /// Pairs, and rows of both sides without a partner.
    Full,
    /// Rows of a side that have a partner, each once.
    Semi(Side),
    /// Rows of a side that have none.
    Anti(Side),
}

impl JoinKind {
    /// Whether rows of this side that have found nobody come out.
    fn gives_unmatched(self, side: Side) -> bool {
        match self {
            Self::Left => side == Side::Left,
            Self::Right => side == Side::Right,
            Self::Full => true,
            Self::Anti(of) => of == side,
            Self::Inner | Self::Semi(_) => false,
        }
    }

    /// Whether it matters if a row of this side has found somebody.
    fn asks(self, side: Side) -> bool {
        self.gives_unmatched(side) || self == Self::Semi(side)
    }

    /// Whether this side's columns come out.
    fn shows(self, side: Side) -> bool {
        match self {
            Self::Semi(of) | Self::Anti(of) => of == side,
            _ => true,
        }
    }
}

/// Brings the rows of two chains together. As an operator: no clock, no IO but in the room that its task lends, a function of each
/// side's rows in their order and of the watermarks.
pub trait Join: Send {
    /// What kind it is, in one word for figures and metrics.
    fn name(&self) -> &'static str;
    /// The columns it hands on.
    fn schema(&self) -> SchemaRef;
    /// Takes rows of one partition of a side, in offset order.
    fn rows(&mut self, side: Side, rows: &Rows, out: &mut Output) -> Result<(), StreamError>;
    /// A key's row is gone from a side that is a table.
    fn deletion(&mut self, side: Side, deletion: &Deletion) -> Result<(), StreamError> {
        let _ = (side, deletion);
        Ok(())
    }
    /// Time has come this far on both sides. Never goes back.
    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError>;
    /// The least watermark that would make it emit what it holds and whose end `now` has passed.
    fn due(&self, now: Timestamp) -> Option<Timestamp>;
    /// How far the times of what comes out lie behind the watermark at most, in milliseconds.
    fn hold_ms(&self) -> i64;
    /// Writes the whole state; see [`super::Operator::save`].
    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError>;
    /// Takes back what [`Join::save`] wrote.
    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError>;
    /// How much older than the watermark the rows are, in milliseconds, that its state is made of; `None` where it may be made of
    /// all there were.
    fn reach_ms(&self) -> Option<i64> {
        None
    }
    /// About how many bytes of state it holds in memory.
    fn state_bytes(&self) -> usize;
    /// Puts state on the disk; see [`super::Operator::spill`].
    fn spill(&mut self, want: usize, space: &SpillSpace) -> Result<usize, StreamError> {
        let _ = (want, space);
        Ok(0)
    }
    /// How many bytes of its state lie on the disk.
    fn spilled_bytes(&self) -> u64 {
        0
    }
}
