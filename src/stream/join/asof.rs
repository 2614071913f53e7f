//! The join with the latest row of the other side: `ASOF JOIN`, and `FOR SYSTEM_TIME AS OF` with a table.
//!
//! Of the right side the latest row of each key that was worked through is kept, for a time to live where there is one: then a
//! left row takes none that is older than that, and so none need be remembered for longer. A left row takes it when its own time
//! is worked through, so it sees exactly the right rows up to its time, in the order of `mod`; of right rows of one time
//! the last counts. A row of a table is a version: it holds until the next of its key, or until it is deleted; one
//! that comes late, by its partition's watermark just before it, holds from that watermark on instead of being lost.
//! Always: a left row comes out at its own time, once at most, so nothing holds time back.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::blocks::Blocks;
use super::keys::{JoinKeys, NOBODY};
use super::pairs::{self, Entry};
use super::{Join, Side};
use crate::record::PartitionId;
use crate::stream::keyed::Buffer;
use crate::stream::rowwise::{arrow_error, evaluate_flat, row_by_row, take_rows};
use crate::stream::window::{ints, ints_of};
use crate::stream::{Aside, AsideRow, Deletion, Expr, NO_TIME, Output, Rows, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// Entries are put together when there are so many.
const MANY_ENTRIES: usize = 8192;
/// So often, in event time, it is looked for versions that are too old.
const SWEEP_MS: std::ops::RangeInclusive<i64> = 1_000..=3_600_000;
/// No version: the key has none, or it was deleted.
const NONE: u64 = u64::MAX;

/// All that a join with the latest row is made of.
#[derive(Clone, Debug)]
pub struct AsOfSpec {
    /// Whether a left row without a partner comes out by itself.
    pub keeps_left: bool,
    /// Whether a partner must be earlier, and not of the same time.
    pub is_strict: bool,
    /// Both sides' columns.
    pub inputs: [SchemaRef; 2],
    /// What must be equal, of each side: as many, of the same types.
    pub keys: [Vec<Arc<dyn Expr>>; 2],
    /// What else must be true of the two, over the left columns and then the right ones.
    pub condition: Option<Arc<dyn Expr>>,
    /// What the right side is, where it is a table.
    pub table: Option<TableSide>,
    /// How much older than its left row a partner may be; any time where nothing is said.
    pub ttl_ms: Option<i64>,
    /// The columns of the result: the left ones, then the right ones.
    pub schema: SchemaRef,
}

/// A table on the right.
#[derive(Clone, Debug)]
pub struct TableSide {
    /// For each column of the table's primary key, which of the join's keys it is.
    pub primary_key: Vec<usize>,
    /// The types of the join's keys.
    pub key_types: Vec<DataType>,
    /// How many bytes it may take in a task that reads it whole.
    pub most_bytes: Option<usize>,
}

/// The latest version of each key.
#[derive(Default)]
struct Versions {
    blocks: Blocks,
    /// By key: the version, and its time.
    current: Vec<u64>,
    times: Vec<i64>,
    held: usize,
    live: usize,
}

/// The operator.
pub struct AsOf {
    spec: AsOfSpec,
    pair_schema: SchemaRef,
    keys: JoinKeys,
    waiting: [Buffer; 2],
    versions: Versions,
    /// Everything older than this has been worked through.
    mark: i64,
    /// How far time had come when versions that are too old were last let go of.
    swept: i64,
}

impl AsOf {
    /// Checks that the keys of both sides go together.
    pub fn new(spec: AsOfSpec) -> Result<Self, StreamError> {
        if spec.keys[0].len() != spec.keys[1].len() {
            return Err(StreamError::Limit("the sides of a join have other numbers of keys".to_owned()));
        }
        let fields = spec.inputs.iter().flat_map(|schema| schema.fields().iter().cloned());
        let pair_schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let waiting = [Buffer::default(), Buffer::default()];
        Ok(Self { spec, pair_schema, keys: JoinKeys::new(false), waiting, versions: Versions::default(), mark: i64::MIN, swept: i64::MIN })
    }

    fn width(&self, side: Side) -> usize {
        self.spec.inputs[side as usize].fields().len()
    }

    /// What waits of a row: its columns, its keys, and of a right one whether it says that the key's row is gone.
    fn held_columns(&self, side: Side, batch: &RecordBatch) -> Result<Vec<ArrayRef>, StreamError> {
        let mut columns = batch.columns().to_vec();
        for key in &self.spec.keys[side as usize] {
            columns.push(evaluate_flat(key.as_ref(), batch)?);
        }
        if side == Side::Right {
            columns.push(Arc::new(BooleanArray::from(vec![false; batch.num_rows()])));
        }
        Ok(columns)
    }

    fn held_width(&self, side: Side) -> usize {
        self.width(side) + self.spec.keys[side as usize].len() + usize::from(side == Side::Right)
    }

    /// Works through everything older than `at`.
    fn advance(&mut self, at: i64, out: &mut Output) -> Result<(), StreamError> {
        let (width, keys) = (self.width(Side::Right), self.spec.keys[0].len());
        let (mut right_times, mut right_slots, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        let mut next_right = self.versions.blocks.end();
        let first_right = next_right;
        for held in self.waiting[1].release(at)? {
            right_slots.extend(self.keys.take(&held.columns[width..width + keys], held.len())?);
            let deleted = held.columns[width + keys].as_boolean();
            gone.extend((0..held.len()).map(|row| deleted.value(row)));
            self.versions.push(&held.columns[..width + keys], held.len())?;
            right_times.extend(held.times);
        }
        let width = self.width(Side::Left);
        let (mut left, mut left_times, mut left_slots) = (Blocks::default(), Vec::new(), Vec::new());
        for held in self.waiting[0].release(at)? {
            left_slots.extend(self.keys.find(&held.columns[width..], held.len())?);
            left.push(&held.columns[..width], held.len())?;
            left_times.extend(held.times);
        }
        let mut entries = Vec::new();
        for (row, time) in left_times.into_iter().enumerate() {
            loop {
                let right = (next_right - first_right) as usize;
                let Some(of) = right_times.get(right) else { break };
                if *of > time || (self.spec.is_strict && *of == time) {
                    break;
                }
                self.versions.enter(next_right, right_slots[right], *of, gone[right], &mut self.keys);
                next_right += 1;
            }
            let oldest = self.spec.ttl_ms.map_or(i64::MIN, |ttl| time.saturating_sub(ttl));
            let version = self.versions.of(left_slots[row], oldest);
            if version.is_some() || self.spec.keeps_left {
                entries.push(Entry { rows: [Some(row as u64), version], at: time, time });
            }
            if entries.len() >= MANY_ENTRIES {
                self.flush(&left, &mut entries, out)?;
            }
        }
        self.flush(&left, &mut entries, out)?;
        while let Some(slot) = right_slots.get((next_right - first_right) as usize) {
            let right = (next_right - first_right) as usize;
            self.versions.enter(next_right, *slot, right_times[right], gone[right], &mut self.keys);
            next_right += 1;
        }
        self.sweep(at);
        self.versions.compact()?;
        self.check_size()
    }

    /// Lets go of versions that no row which may still come can take.
    fn sweep(&mut self, at: i64) {
        let Some(ttl) = self.spec.ttl_ms else { return };
        let period = ttl.clamp(*SWEEP_MS.start(), *SWEEP_MS.end());
        if self.swept == i64::MIN || at >= self.swept.saturating_add(period) {
            self.swept = at;
            self.versions.forget_before(at.saturating_sub(ttl), &mut self.keys);
        }
    }

    /// A table that every task reads whole stays small.
    fn check_size(&self) -> Result<(), StreamError> {
        let Some(most) = self.spec.table.as_ref().and_then(|table| table.most_bytes) else { return Ok(()) };
        let bytes = self.versions.bytes();
        if bytes <= most {
            return Ok(());
        }
        Err(StreamError::Limit(format!(
            "the table of a join is read whole by every task and takes {} MiB there, more than {} MiB; give its topic as many partitions as \
             the stream has, and both the key they are joined by",
            bytes >> 20,
            most >> 20
        )))
    }

    /// Puts together what has been found.
    fn flush(&self, left: &Blocks, entries: &mut Vec<Entry>, out: &mut Output) -> Result<(), StreamError> {
        let sides = [left, &self.versions.blocks];
        if let Some(condition) = &self.spec.condition {
            let pairs: Vec<[Option<u64>; 2]> = entries.iter().filter(|entry| entry.is_pair()).map(|entry| entry.rows).collect();
            let taken = pairs::judge(sides, &self.spec.inputs, &pairs, condition.as_ref(), &self.pair_schema, &mut out.failed)?;
            let mut verdicts = taken.into_iter();
            for entry in entries.iter_mut().filter(|entry| entry.is_pair()) {
                if verdicts.next() != Some(true) {
                    entry.rows[1] = None;
                }
            }
            entries.retain(|entry| self.spec.keeps_left || entry.is_pair());
        }
        if !entries.is_empty() {
            out.rows.push(pairs::rows(sides, &self.spec.inputs, [true; 2], entries, 0, &self.spec.schema)?);
        }
        entries.clear();
        Ok(())
    }

    /// Rows of a table hold from the watermark on where they come behind it.
    fn effective(&self, time: i64, before: i64) -> i64 {
        time.max(before).max(self.mark)
    }

    /// A record's key in the columns of the join's keys; `None` where it is none.
    fn key_columns(&self, table: &TableSide, key: &[u8]) -> Result<Option<Vec<ArrayRef>>, StreamError> {
        let Ok(text) = std::str::from_utf8(key) else { return Ok(None) };
        let texts: Vec<Option<String>> = match table.primary_key.as_slice() {
            [_] => vec![Some(text.to_owned())],
            _ => match serde_json::from_str::<Vec<Option<String>>>(text) {
                Ok(texts) if texts.len() == table.primary_key.len() => texts,
                _ => return Ok(None),
            },
        };
        let mut columns: Vec<Option<ArrayRef>> = vec![None; table.key_types.len()];
        for (place, text) in table.primary_key.iter().zip(texts) {
            let column: ArrayRef = Arc::new(StringArray::from(vec![text]));
            columns[*place] = Some(cast(&column, &table.key_types[*place]).map_err(|e| arrow_error("a key of a table", &e))?);
        }
        Ok(columns.into_iter().collect())
    }
}

impl Versions {
    fn push(&mut self, columns: &[ArrayRef], len: usize) -> Result<(), StreamError> {
        self.held += len;
        self.blocks.push(columns, len)
    }

    /// The version that holds, if it is not older than this.
    fn of(&self, slot: u32, oldest: i64) -> Option<u64> {
        let row = if slot == NOBODY { None } else { self.current.get(slot as usize).copied() };
        row.filter(|row| *row != NONE && self.times[slot as usize] >= oldest)
    }

    /// Lets go of the versions that are older than this.
    fn forget_before(&mut self, oldest: i64, keys: &mut JoinKeys) {
        for (slot, row) in self.current.iter_mut().enumerate() {
            if *row != NONE && self.times[slot] < oldest {
                *row = NONE;
                self.live -= 1;
                keys.release(slot as u32);
            }
        }
    }

    /// A version takes the place of the one before it, or says that there is none any more.
    fn enter(&mut self, row: u64, slot: u32, time: i64, gone: bool, keys: &mut JoinKeys) {
        if slot == NOBODY {
            return;
        }
        if self.current.len() <= slot as usize {
            self.current.resize(slot as usize + 1, NONE);
            self.times.resize(slot as usize + 1, NO_TIME);
        }
        self.times[slot as usize] = time;
        let before = std::mem::replace(&mut self.current[slot as usize], if gone { NONE } else { row });
        if before != NONE {
            self.live -= 1;
            keys.release(slot);
        }
        if gone {
            keys.release(slot);
        } else {
            self.live += 1;
        }
    }

    /// The rows that hold, in order, each with its key's number.
    fn living(&self) -> Vec<(u64, u32)> {
        let mut rows: Vec<(u64, u32)> =
            self.current.iter().enumerate().filter(|(_, row)| **row != NONE).map(|(slot, row)| (*row, slot as u32)).collect();
        rows.sort_unstable();
        rows
    }

    /// Their columns.
    fn columns(&self, rows: &[(u64, u32)]) -> Result<Vec<ArrayRef>, StreamError> {
        let rows: Vec<Option<u64>> = rows.iter().map(|(row, _)| Some(*row)).collect();
        self.blocks.rows(&rows, self.blocks.width(), |_| new_null_array(&DataType::Null, 1))
    }

    /// Lets go of versions that were overtaken, once they are most of what is held.
    fn compact(&mut self) -> Result<(), StreamError> {
        if self.held <= 2 * self.live + 1024 {
            return Ok(());
        }
        let rows = self.living();
        let columns = self.columns(&rows)?;
        self.blocks.trim(self.blocks.end());
        let first = self.blocks.end();
        self.blocks.push(&columns, rows.len())?;
        self.held = rows.len();
        for (row, (_, slot)) in (first..).zip(&rows) {
            self.current[*slot as usize] = row;
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.blocks.bytes() + self.current.len() * 16
    }
}

impl Join for AsOf {
    fn name(&self) -> &'static str {
        "asof_join"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn rows(&mut self, side: Side, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        let adjusted;
        let rows = if side == Side::Right && self.spec.table.is_some() {
            let times = rows.times.iter().zip(&rows.before).map(|(time, before)| self.effective(*time, *before)).collect();
            adjusted = Rows { times, ..rows.clone() };
            &adjusted
        } else {
            rows
        };
        let late = |row: usize| rows.times[row] == NO_TIME || rows.times[row] < rows.before[row].max(self.mark);
        let on_time: Vec<u32> = (0..rows.len()).filter(|row| !late(*row)).map(|row| row as u32).collect();
        let fewer;
        let rows = if on_time.len() == rows.len() {
            rows
        } else {
            let aside = |row| AsideRow { partition: rows.partition, offset: rows.offsets[row], why: Aside::Late };
            out.aside.extend((0..rows.len()).filter(|row| late(*row)).map(aside));
            fewer = take_rows(rows, &on_time)?;
            &fewer
        };
        for (rows, columns) in row_by_row(rows, &mut |batch| self.held_columns(side, batch), &mut out.failed)? {
            self.waiting[side as usize].push(&rows, columns)?;
        }
        Ok(())
    }

    fn deletion(&mut self, side: Side, deletion: &Deletion) -> Result<(), StreamError> {
        let (Side::Right, Some(table)) = (side, &self.spec.table) else { return Ok(()) };
        let Some(keys) = self.key_columns(table, &deletion.key)? else { return Ok(()) };
        let mut columns: Vec<ArrayRef> = self.spec.inputs[1].fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        columns.extend(keys);
        columns.push(Arc::new(BooleanArray::from(vec![true])));
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
        let rows = Rows {
            batch: batch.map_err(|e| arrow_error("a deletion", &e))?,
            partition: PartitionId(deletion.partition.0),
            offsets: vec![deletion.offset].into(),
            times: vec![self.effective(deletion.time, deletion.before)].into(),
            before: vec![deletion.before].into(),
            heard: None,
            gone: false,
        };
        self.waiting[1].push(&rows, columns)
    }

    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        if at.0 > self.mark {
            self.advance(at.0, out)?;
            self.mark = at.0;
        }
        out.watermark = Some(at);
        Ok(())
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        self.waiting[0].latest(now.0.saturating_sub(1)).map(|at| Timestamp(at).plus(1))
    }

    fn hold_ms(&self) -> i64 {
        0
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        state.put("mark", ints(vec![("mark", vec![self.mark])])?);
        for side in Side::BOTH {
            if let Some(waiting) = self.waiting[side as usize].save()? {
                state.put(&format!("{}.waiting", side.word()), waiting);
            }
        }
        let rows = self.versions.living();
        if rows.is_empty() {
            return Ok(());
        }
        let mut columns = self.versions.columns(&rows)?;
        if self.spec.ttl_ms.is_some() {
            columns.push(Arc::new(rows.iter().map(|(_, slot)| Some(self.versions.times[*slot as usize])).collect::<Int64Array>()));
        }
        let fields = columns.iter().enumerate().map(|(at, column)| Field::new(format!("c{at}"), column.data_type().clone(), true));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns, &options);
        state.put("versions", batch.map_err(|e| arrow_error("the versions of a join", &e))?);
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = |why: &str| StreamError::Restore { operator: "a join".to_owned(), why: why.to_owned() };
        let mark = state.get("mark").next().and_then(|mark| ints_of(mark, 0)).and_then(|mark| mark.first().copied());
        self.mark = mark.ok_or_else(|| misfit("the mark is missing"))?;
        for side in Side::BOTH {
            let width = self.held_width(side);
            for waiting in state.get(&format!("{}.waiting", side.word())) {
                if !self.waiting[side as usize].restore(waiting, width) {
                    return Err(misfit("the waiting rows have other columns"));
                }
            }
        }
        let (width, keys) = (self.width(Side::Right), self.spec.keys[1].len());
        for versions in state.get("versions") {
            let timed = usize::from(self.spec.ttl_ms.is_some());
            if versions.num_columns() != width + keys + timed {
                return Err(misfit("the versions have other columns"));
            }
            let times = match timed {
                0 => vec![NO_TIME; versions.num_rows()],
                _ => ints_of(versions, width + keys).ok_or_else(|| misfit("the versions have no times"))?.to_vec(),
            };
            let slots = self.keys.take(&versions.columns()[width..width + keys], versions.num_rows())?;
            let first = self.versions.blocks.end();
            self.versions.push(&versions.columns()[..width + keys], versions.num_rows())?;
            for ((row, slot), time) in (first..).zip(slots).zip(times) {
                self.versions.enter(row, slot, time, false, &mut self.keys);
            }
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.waiting.iter().map(Buffer::bytes).sum::<usize>() + self.versions.bytes() + self.keys.bytes()
    }
}
