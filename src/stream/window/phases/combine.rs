//! Phase two: the parts of all partitions for some of the groups, merged window by window.
//!
//! Always: a window fires when the least of the upstream tasks' marks reaches its end, and then all parts that count in it are there, since a task
//! writes its mark behind them. So nothing comes late here: what is late was late for its own partition, in phase one. The watermark that the
//! task tells has no meaning for these rows and is not heeded; how far time has come is what the marks say, and part of the state.

use arrow::array::{Array, AsArray};
use arrow::datatypes::SchemaRef;

use super::super::aggregate::{PaneKey, WindowAggregate, WindowAggregateSpec, ints, ints_of};
use super::super::pane::Frozen;
use super::super::split::Place;
use super::record::{self, Said, misfit};
use crate::stream::{Operator, Output, Rows, SpillSpace, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// The operator. Its rows have the bytes of a record in their only column.
pub struct WindowCombine {
    inner: WindowAggregate,
    /// The end up to which each upstream task has handed everything over.
    marks: Vec<i64>,
}

impl WindowCombine {
    /// Merges what so many upstream tasks hand over.
    pub fn new(spec: WindowAggregateSpec, upstream: i32) -> Result<Self, StreamError> {
        Ok(Self { inner: WindowAggregate::new(spec)?, marks: vec![i64::MIN; upstream.max(1) as usize] })
    }

    fn take(&mut self, from: i32, place: Place, groups: Frozen) -> Result<(), StreamError> {
        let known = usize::try_from(from).is_ok_and(|from| from < self.marks.len());
        if !known || place.first_end <= self.inner.closed {
            return Err(misfit("its windows have fired, or its partition is new"));
        }
        // One that was too large for a record comes in several, each group in one of them.
        self.inner.put_groups(PaneKey { place, partition: from }, groups)
    }

    fn mark(&mut self, from: i32, end: i64, out: &mut Output) -> Result<(), StreamError> {
        let known = usize::try_from(from).ok().and_then(|from| self.marks.get_mut(from));
        let mark = known.ok_or_else(|| misfit("its partition is new"))?;
        *mark = end.max(*mark);
        let least = self.marks.iter().copied().min().unwrap_or(i64::MIN);
        if least > self.inner.closed {
            self.inner.watermark(Timestamp(least), out)?;
        }
        Ok(())
    }
}

impl Operator for WindowCombine {
    fn name(&self) -> &'static str {
        "combine"
    }

    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        let values = rows.batch.columns().first().and_then(|column| column.as_binary_opt::<i32>());
        let values = values.ok_or_else(|| misfit("it has no bytes"))?;
        let width = self.inner.maker.frozen_width();
        for row in 0..values.len() {
            match record::read(values.value(row), width)? {
                Said::Part { from, place, groups } => self.take(from, place, groups)?,
                Said::Mark { from, end } => self.mark(from, end, out)?,
            }
        }
        Ok(())
    }

    fn watermark(&mut self, _at: Timestamp, _out: &mut Output) -> Result<(), StreamError> {
        Ok(())
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        self.inner.save(state)?;
        state.put("marks", ints(vec![("end", self.marks.clone())])?);
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        self.inner.restore(state)?;
        let marks = state.get("marks").next().and_then(|marks| ints_of(marks, 0)).filter(|marks| marks.len() == self.marks.len());
        let Some(marks) = marks else {
            let why = "it merged another number of partitions".to_owned();
            return Err(StreamError::Restore { operator: "a window's second phase".to_owned(), why });
        };
        self.marks = marks.to_vec();
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.inner.state_bytes()
    }

    fn spill(&mut self, want: usize, space: &SpillSpace) -> Result<usize, StreamError> {
        self.inner.spill(want, space)
    }

    fn spilled_bytes(&self) -> u64 {
        self.inner.spilled_bytes()
    }
}
