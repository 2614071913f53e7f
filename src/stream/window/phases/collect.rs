//! Phase one: the rows of one partition, gathered by pane and handed over as parts.
//!
//! Always: an entry is handed over, once and whole, when the watermark reaches the end of the first window it counts in; rows behind that count in
//! later windows alone and make an entry of their own. A group's part goes to the partition that its key says, made of the keys' text as a
//! record's key is. The operator holds no more than the rows of windows that are open for its own partition.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int32Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::super::aggregate::{PaneKey, WindowAggregate, WindowAggregateSpec, ints, ints_of};
use super::super::entry::Loaded;
use super::super::pane::Frozen;
use super::record;
use crate::bus::partition_for_key;
use crate::record::PartitionId;
use crate::stream::rowwise::{arrow_error, take_column};
use crate::stream::sink::RecordKeys;
use crate::stream::{NO_OFFSET, Operator, Output, Rows, Scope, SpillSpace, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// A part of more bytes is written as two, where it has more than one group.
const PART_BYTES: usize = 256 * 1024;

/// The operator.
pub struct WindowCollect {
    inner: WindowAggregate,
    partition: PartitionId,
    /// By which of the keys the groups are shared out; all go to the first partition where it is none.
    by: Vec<usize>,
    /// Among how many partitions they are.
    targets: i32,
    schema: SchemaRef,
    /// The end of the last window that what was handed over counts in.
    handed: i64,
}

impl WindowCollect {
    /// Gathers as `spec` says, for so many partitions, to which the groups go by the text of these of their keys. The spec's scope is the
    /// partition whose rows it takes.
    pub fn new(spec: WindowAggregateSpec, by: Vec<usize>, targets: i32) -> Result<Self, StreamError> {
        let Scope::Partition(partition) = spec.scope else {
            return Err(StreamError::Limit("rows are gathered in the task of their partition".to_owned()));
        };
        if by.iter().any(|key| *key >= spec.keys.len()) {
            return Err(StreamError::Limit("groups are shared out by keys that they have".to_owned()));
        }
        let fields = vec![Field::new("to", DataType::Int32, false), Field::new("value", DataType::Binary, false)];
        let schema = Arc::new(Schema::new(fields));
        Ok(Self { inner: WindowAggregate::new(spec)?, partition, by, targets: targets.max(1), schema, handed: i64::MIN })
    }

    /// What counts in the window that ends at `end` and in none before it, as parts.
    fn hand_over(&mut self, end: i64, loaded: &mut Loaded, parts: &mut Vec<(i32, Vec<u8>)>) -> Result<(), StreamError> {
        for key in self.inner.entries(end).into_iter().filter(|key| key.place.first_end == end) {
            let Some(frozen) = self.inner.take_groups(&key, loaded)? else { continue };
            self.handed = self.handed.max(self.inner.spec.rule.last_end(key.place.start));
            for (to, groups) in self.shared_out(frozen)? {
                self.put(to, key, &groups, parts)?;
            }
        }
        Ok(())
    }

    /// The groups, by the partition they go to.
    fn shared_out(&self, all: Frozen) -> Result<Vec<(i32, Frozen)>, StreamError> {
        if self.targets == 1 || self.by.is_empty() {
            return Ok(vec![(0, all)]);
        }
        let columns = self.by.iter().map(|key| (format!("k{key}"), ArrayRef::clone(&all.columns[*key]), true));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).map_err(|e| arrow_error("the group key", &e))?;
        let (keys, mut made) = (RecordKeys::of(&batch, &(0..self.by.len()).collect::<Vec<_>>())?, Vec::new());
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.targets as usize];
        for row in 0..all.groups {
            let to = partition_for_key(keys.of_row(row, &mut made).unwrap_or_default(), self.targets);
            rows[to.0 as usize].push(row as u32);
        }
        let mut shared = Vec::new();
        for (to, rows) in rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let groups = rows.len();
            let rows = UInt32Array::from(rows);
            let columns = all.columns.iter().map(|column| take_column(column, &rows)).collect::<Result<_, _>>()?;
            shared.push((to as i32, Frozen { columns, groups }));
        }
        Ok(shared)
    }

    fn put(&self, to: i32, key: PaneKey, groups: &Frozen, parts: &mut Vec<(i32, Vec<u8>)>) -> Result<(), StreamError> {
        let bytes = record::part(self.partition.0, key.place, groups)?;
        if bytes.len() <= PART_BYTES || groups.groups < 2 {
            parts.push((to, bytes));
            return Ok(());
        }
        let half = groups.groups / 2;
        for (from, len) in [(0, half), (half, groups.groups - half)] {
            // Taken and not sliced: a slice is written with all that it was cut from where its type does not know better.
            let rows: UInt32Array = (from as u32..(from + len) as u32).collect();
            let columns = groups.columns.iter().map(|column| take_column(column, &rows)).collect::<Result<_, _>>()?;
            self.put(to, key, &Frozen { columns, groups: len }, parts)?;
        }
        Ok(())
    }
}

impl Operator for WindowCollect {
    fn name(&self) -> &'static str {
        "collect"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        self.inner.rows(rows, out)
    }

    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        let (mut parts, mut loaded): (_, Loaded) = (Vec::new(), None);
        while let Some(end) = self.inner.ends.first().copied().filter(|end| *end <= at.0) {
            self.inner.ends.remove(&end);
            self.hand_over(end, &mut loaded, &mut parts)?;
            self.inner.closed = self.inner.closed.max(end);
        }
        self.inner.closed = self.inner.closed.max(at.0);
        if parts.is_empty() {
            return Ok(());
        }
        let len = parts.len();
        let to: Int32Array = parts.iter().map(|(to, _)| Some(*to)).collect();
        let value: BinaryArray = parts.iter().map(|(_, bytes)| Some(bytes.as_slice())).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![Arc::new(to), Arc::new(value)]);
        out.rows.push(Rows {
            batch: batch.map_err(|e| arrow_error("the windows' parts", &e))?,
            partition: self.partition,
            offsets: vec![NO_OFFSET; len].into(),
            times: vec![self.inner.closed; len].into(),
            before: vec![self.inner.closed; len].into(),
            heard: None,
            gone: false,
        });
        Ok(())
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        // What was handed over counts in further windows, which wait for this partition as for the others.
        let further = Timestamp(self.inner.spec.rule.last_closed(self.handed.min(now.0)));
        self.inner.due(now).into_iter().chain((further.0 > self.inner.closed).then_some(further)).max()
    }

    fn reach_ms(&self) -> Option<i64> {
        self.inner.reach_ms()
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        self.inner.save(state)?;
        state.put("handed", ints(vec![("end", vec![self.handed])])?);
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit =
            || StreamError::Restore { operator: "a window's first phase".to_owned(), why: "what it handed over is missing".to_owned() };
        self.inner.restore(state)?;
        let handed = state.get("handed").next().ok_or_else(misfit)?;
        self.handed = ints_of(handed, 0).and_then(|end| end.first().copied()).ok_or_else(misfit)?;
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
