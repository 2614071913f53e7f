//! The join by a range of time: `a.ts BETWEEN b.ts - INTERVAL '5' MINUTE AND b.ts`, of every kind.
//!
//! Rows are worked through in the order of `mod`; each meets the rows of its key on the other side that came before it and
//! whose time lies in its range. A row goes once no partner can follow any more, at its *end*: then, if it has met nobody
//! and the kind of join asks, it comes out by itself. Always: pairs in the order of their later rows, a row without a
//! partner in the place of its end; nothing with an end before the watermark is kept.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::blocks::Kept;
use super::keys::JoinKeys;
use super::pairs::{self, Entry};
use super::store::{Found, Store};
use super::{Join, JoinKind, Side};
use crate::stream::keyed::Buffer;
use crate::stream::rowwise::{arrow_error, evaluate_flat, row_by_row, take_rows};
use crate::stream::window::{ints, ints_of};
use crate::stream::{Aside, AsideRow, Expr, NO_TIME, Output, Parked, Rows, SpillSpace, StatePart, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// Entries are put together when there are so many.
const MANY_ENTRIES: usize = 8192;

/// All that an interval join is made of.
#[derive(Clone, Debug)]
pub struct IntervalSpec {
    /// What it makes of rows with and without a partner.
    pub kind: JoinKind,
    /// Both sides' columns.
    pub inputs: [SchemaRef; 2],
    /// What must be equal, of each side: as many, of the same types. Without any, every row may meet every row.
    pub keys: [Vec<Arc<dyn Expr>>; 2],
    /// Whether NULL in a key equals NULL.
    pub null_equals_null: bool,
    /// The least time of a partner on the right, less the time of the row on the left, in milliseconds.
    pub least_ms: i64,
    /// The greatest.
    pub greatest_ms: i64,
    /// What else must be true, over the left columns and then the right ones.
    pub condition: Option<Arc<dyn Expr>>,
    /// The columns of the result: the left ones, then the right ones; one side's for a semi or anti join.
    pub schema: SchemaRef,
}

/// One side: rows that wait for time to pass them, and rows that may still find a partner.
#[derive(Default)]
struct Half {
    waiting: Buffer,
    store: Store,
}

/// The operator.
pub struct Interval {
    spec: IntervalSpec,
    /// Both sides' columns, for the condition.
    pair_schema: SchemaRef,
    keys: JoinKeys,
    halves: [Half; 2],
    /// What has been found and not been put together.
    entries: Vec<Entry>,
    /// Everything older than this has been worked through.
    mark: i64,
}

impl Interval {
    /// Checks that the keys of both sides go together.
    pub fn new(spec: IntervalSpec) -> Result<Self, StreamError> {
        let [left, right] = &spec.keys;
        if left.len() != right.len() {
            return Err(StreamError::Limit("the sides of a join have other numbers of keys".to_owned()));
        }
        let fields = spec.inputs.iter().flat_map(|schema| schema.fields().iter().cloned());
        let pair_schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let keys = JoinKeys::new(spec.null_equals_null);
        Ok(Self { spec, pair_schema, keys, halves: Default::default(), entries: Vec::new(), mark: i64::MIN })
    }

    fn width(&self, side: Side) -> usize {
        self.spec.inputs[side as usize].fields().len()
    }

    /// How long after a row of this side its last partner may come.
    fn reach(&self, side: Side) -> i64 {
        match side {
            Side::Left => self.spec.greatest_ms.max(0),
            Side::Right => self.spec.least_ms.saturating_neg().max(0),
        }
    }

    /// The side whose event time the results have; both sides' rows may be missing in a full join.
    const fn time_of(&self) -> Option<Side> {
        match self.spec.kind {
            JoinKind::Inner | JoinKind::Left => Some(Side::Left),
            JoinKind::Right => Some(Side::Right),
            JoinKind::Full => None,
            JoinKind::Semi(side) | JoinKind::Anti(side) => Some(side),
        }
    }

    fn held_columns(&self, side: Side, batch: &RecordBatch) -> Result<Vec<ArrayRef>, StreamError> {
        let mut columns = batch.columns().to_vec();
        for key in &self.spec.keys[side as usize] {
            columns.push(evaluate_flat(key.as_ref(), batch)?);
        }
        Ok(columns)
    }

    /// Works through everything older than `at`.
    fn advance(&mut self, at: i64, out: &mut Output) -> Result<(), StreamError> {
        let mut next = [0; 2];
        for side in Side::BOTH {
            let width = self.width(side);
            let half = &mut self.halves[side as usize];
            next[side as usize] = half.store.end();
            for held in half.waiting.release(at)? {
                let slots = self.keys.take(&held.columns[width..], held.len())?;
                half.store.push(&held.columns, &held.times, &slots)?;
            }
        }
        let mut partners = Vec::new();
        loop {
            let [left, right] = [0, 1].map(|side| {
                let store = &self.halves[side].store;
                (next[side] < store.end()).then(|| store.time(next[side]))
            });
            let (side, time) = match (left, right) {
                (Some(l), Some(r)) if r < l => (Side::Right, r),
                (Some(l), _) => (Side::Left, l),
                (None, Some(r)) => (Side::Right, r),
                (None, None) => break,
            };
            self.expire(time, next, out)?;
            self.meet(side, next[side as usize], time, &mut partners, out)?;
            next[side as usize] += 1;
        }
        self.expire(at, next, out)?;
        self.flush(out)?;
        for half in &mut self.halves {
            half.store.trim();
        }
        Ok(())
    }

    /// A row meets those of the other side that came before it.
    fn meet(&mut self, side: Side, row: u64, time: i64, partners: &mut Vec<u64>, out: &mut Output) -> Result<(), StreamError> {
        let (least, greatest) = (self.spec.least_ms, self.spec.greatest_ms);
        let (from, to) = match side {
            Side::Left => (time.saturating_add(least), time.saturating_add(greatest)),
            Side::Right => (time.saturating_sub(greatest), time.saturating_sub(least)),
        };
        let slot = self.halves[side as usize].store.slot(row);
        partners.clear();
        partners.extend(self.halves[side.other() as usize].store.partners(slot, from, to));
        for partner in partners.iter().copied() {
            let pair = match side {
                Side::Left => [row, partner],
                Side::Right => [partner, row],
            };
            self.candidate(pair, time);
            if self.entries.len() >= MANY_ENTRIES {
                self.flush(out)?;
            }
        }
        self.halves[side as usize].store.enter(row);
        Ok(())
    }

    /// Two rows with one key, in range.
    fn candidate(&mut self, pair: [u64; 2], at: i64) {
        let time = self.time_of().map_or(at, |side| self.halves[side as usize].store.time(pair[side as usize]));
        let entry = Entry { rows: pair.map(Some), at, time };
        if self.spec.condition.is_none() {
            self.take(entry).into_iter().for_each(|entry| self.entries.push(entry));
            return;
        }
        for side in Side::BOTH.into_iter().filter(|side| self.spec.kind.asks(*side)) {
            let store = &mut self.halves[side as usize].store;
            if store.found(pair[side as usize]) == Found::Nobody {
                store.note(pair[side as usize], Found::Perhaps);
            }
        }
        self.entries.push(entry);
    }

    /// A pair is one: what comes out for it.
    fn take(&mut self, mut entry: Entry) -> Option<Entry> {
        let kind = self.spec.kind;
        let mut first = true;
        for side in Side::BOTH.into_iter().filter(|side| kind.asks(*side)) {
            let Some(row) = entry.rows[side as usize] else { continue };
            let store = &mut self.halves[side as usize].store;
            // A row that has gone has nothing more to ask, and none that a semi join asks about goes undecided.
            first = row >= store.base() && store.found(row) != Found::Somebody;
            store.note(row, Found::Somebody);
        }
        match kind {
            JoinKind::Semi(side) if first => {
                entry.rows[side.other() as usize] = None;
                Some(entry)
            }
            JoinKind::Semi(_) | JoinKind::Anti(_) => None,
            _ => Some(entry),
        }
    }

    /// Lets rows go whose end lies before `limit`, in the order of their ends.
    fn expire(&mut self, limit: i64, next: [u64; 2], out: &mut Output) -> Result<(), StreamError> {
        loop {
            let ends = Side::BOTH.map(|side| {
                let store = &self.halves[side as usize].store;
                (store.base() < next[side as usize]).then(|| store.time(store.base()).saturating_add(self.reach(side)))
            });
            let due = |end: Option<i64>| end.filter(|end| *end < limit || limit == i64::MAX);
            let (side, end) = match (due(ends[0]), due(ends[1])) {
                (Some(l), Some(r)) if r < l => (Side::Right, r),
                (Some(l), _) => (Side::Left, l),
                (None, Some(r)) => (Side::Right, r),
                (None, None) => return Ok(()),
            };
            let row = self.halves[side as usize].store.base();
            if self.spec.kind.asks(side) {
                if self.halves[side as usize].store.found(row) == Found::Perhaps {
                    self.flush(out)?;
                }
                let store = &self.halves[side as usize].store;
                if self.spec.kind.gives_unmatched(side) && store.found(row) == Found::Nobody {
                    let time = self.time_of().map_or(end, |_| store.time(row));
                    let mut rows = [None; 2];
                    rows[side as usize] = Some(row);
                    self.entries.push(Entry { rows, at: end, time });
                    if self.entries.len() >= MANY_ENTRIES {
                        self.flush(out)?;
                    }
                }
            }
            self.halves[side as usize].store.pop(&mut self.keys);
        }
    }

    /// Puts together what has been found.
    fn flush(&mut self, out: &mut Output) -> Result<(), StreamError> {
        let mut entries = std::mem::take(&mut self.entries);
        if let Some(condition) = self.spec.condition.clone() {
            entries = self.decide(entries, condition.as_ref(), out)?;
        }
        let kind = self.spec.kind;
        if !entries.is_empty() {
            let shows = Side::BOTH.map(|side| kind.shows(side));
            let stores = [self.halves[0].store.blocks(), self.halves[1].store.blocks()];
            out.rows.push(pairs::rows(stores, &self.spec.inputs, shows, &entries, self.hold_ms(), &self.spec.schema)?);
        }
        entries.clear();
        self.entries = entries;
        Ok(())
    }

    /// Asks the condition about every pair; what is left is the result.
    fn decide(&mut self, entries: Vec<Entry>, condition: &dyn Expr, out: &mut Output) -> Result<Vec<Entry>, StreamError> {
        let candidates: Vec<[Option<u64>; 2]> = entries.iter().filter(|entry| entry.is_pair()).map(|entry| entry.rows).collect();
        let stores = [self.halves[0].store.blocks(), self.halves[1].store.blocks()];
        let taken = pairs::judge(stores, &self.spec.inputs, &candidates, condition, &self.pair_schema, &mut out.failed)?;
        for (pair, _) in candidates.iter().zip(&taken).filter(|(_, taken)| !**taken) {
            for side in Side::BOTH {
                let store = &mut self.halves[side as usize].store;
                let Some(row) = pair[side as usize].filter(|row| *row >= store.base()) else { continue };
                if store.found(row) == Found::Perhaps {
                    store.note(row, Found::Nobody);
                }
            }
        }
        let mut verdicts = taken.into_iter();
        let mut left = Vec::with_capacity(entries.len());
        for entry in entries {
            if !entry.is_pair() {
                left.push(entry);
            } else if verdicts.next() == Some(true) {
                left.extend(self.take(entry));
            }
        }
        Ok(left)
    }

    /// The rows of a side that are kept, block by block; of those on the disk the times, and then where they lie.
    fn save_rows(&self, side: Side, state: &mut StateWriter) -> Result<(), StreamError> {
        let (rows, marks) = (format!("{}.rows", side.word()), format!("{}.marks", side.word()));
        for (kept, times, found) in self.halves[side as usize].store.kept() {
            let columns = match kept {
                Kept::Here(columns, _) => columns,
                Kept::Parked(file, _) => {
                    state.put(&marks, ints(vec![("time", times), ("found", found)])?);
                    state.put_parked(&rows, file);
                    continue;
                }
            };
            let mut fields = vec![Field::new("time", DataType::Int64, false), Field::new("found", DataType::Int64, false)];
            fields.extend(columns.iter().enumerate().map(|(at, column)| Field::new(format!("c{at}"), column.data_type().clone(), true)));
            let mut all: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(times)), Arc::new(Int64Array::from(found))];
            all.extend(columns);
            let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), all);
            state.put(&rows, batch.map_err(|e| arrow_error("the rows of a join", &e))?);
        }
        Ok(())
    }

    /// Takes back what [`Interval::save_rows`] wrote.
    fn restore_rows(&mut self, side: Side, state: &StateReader) -> Result<(), StreamError> {
        let (rows, marks) = (format!("{}.rows", side.word()), format!("{}.marks", side.word()));
        let (mut marked, mut parked) = (state.get(&marks), state.parked(&rows));
        // One after the other, as they were written: rows in memory say their times themselves.
        for (name, part) in state.among(&[&rows, &marks]) {
            match part {
                StatePart::Batch(batch) if name == rows && batch.num_columns() >= 2 => {
                    self.restore_block(side, batch, &batch.columns()[2..], batch.num_rows(), None)?;
                }
                _ if name == marks => {
                    let (Some(marks), Some(rows)) = (marked.next(), parked.next()) else {
                        return Err(misfit("rows on the disk have no times, or times no rows"));
                    };
                    match rows {
                        StatePart::Batch(batch) => self.restore_block(side, marks, batch.columns(), batch.num_rows(), None)?,
                        StatePart::Parked(file) => {
                            let batch = file.load()?;
                            self.restore_block(side, marks, batch.columns(), batch.num_rows(), Some(file))?;
                        }
                    }
                }
                _ => return Err(misfit("the kept rows have no times")),
            }
        }
        if marked.next().is_some() || parked.next().is_some() {
            return Err(misfit("rows on the disk have no times, or times no rows"));
        }
        Ok(())
    }

    /// One block of them: the columns of `rows` rows, the last of which have these times and are kept, and where they lie.
    fn restore_block(
        &mut self,
        side: Side,
        marks: &RecordBatch,
        columns: &[ArrayRef],
        rows: usize,
        file: Option<&Arc<Parked>>,
    ) -> Result<(), StreamError> {
        let (shown, keys) = (self.width(side), self.spec.keys[side as usize].len());
        let (Some(times), Some(found)) = (ints_of(marks, 0), ints_of(marks, 1)) else {
            return Err(misfit("the kept rows have no times"));
        };
        if columns.len() != shown + keys || times.len() > rows {
            return Err(misfit("the kept rows have other columns"));
        }
        let kept: Vec<ArrayRef> = columns.iter().map(|column| column.slice(rows - times.len(), times.len())).collect();
        let slots = self.keys.take(&kept[shown..], times.len())?;
        let store = &mut self.halves[side as usize].store;
        let first = match file {
            None => {
                let first = store.end();
                store.push(&kept, times, &slots)?;
                first
            }
            Some(file) => {
                if !store.push_parked(Arc::clone(file), rows, columns.len(), times, &slots) {
                    return Err(misfit("rows between the kept ones are gone"));
                }
                store.end() - times.len() as u64
            }
        };
        for (row, found) in (first..).zip(found) {
            store.enter(row);
            store.note(row, if *found == 0 { Found::Nobody } else { Found::Somebody });
        }
        Ok(())
    }
}

fn misfit(why: &str) -> StreamError {
    StreamError::Restore { operator: "a join".to_owned(), why: why.to_owned() }
}

impl Join for Interval {
    fn name(&self) -> &'static str {
        "join"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn rows(&mut self, side: Side, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
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
            self.halves[side as usize].waiting.push(&rows, columns)?;
        }
        Ok(())
    }

    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        if at.0 > self.mark {
            self.advance(at.0, out)?;
            self.mark = at.0;
        }
        out.watermark = Some(if at == Timestamp::MAX { at } else { at.plus(-self.hold_ms()) });
        Ok(())
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let before = now.0.saturating_sub(1);
        let mut due: Option<i64> = None;
        for side in Side::BOTH {
            let half = &self.halves[side as usize];
            due = due.max(half.waiting.latest(before));
            if self.spec.kind.gives_unmatched(side) {
                let reach = self.reach(side);
                let limit = before.saturating_sub(reach);
                let open = half.waiting.latest(limit).max(half.store.latest(limit, |found| found == Found::Nobody));
                due = due.max(open.map(|at| at.saturating_add(reach)));
            }
        }
        due.map(|at| Timestamp(at).plus(1))
    }

    fn hold_ms(&self) -> i64 {
        self.time_of().map_or(0, |side| self.reach(side))
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        state.put("mark", ints(vec![("mark", vec![self.mark])])?);
        for side in Side::BOTH {
            if let Some(waiting) = self.halves[side as usize].waiting.save()? {
                state.put(&format!("{}.waiting", side.word()), waiting);
            }
            self.save_rows(side, state)?;
        }
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let mark = state.get("mark").next().and_then(|mark| ints_of(mark, 0)).and_then(|mark| mark.first().copied());
        self.mark = mark.ok_or_else(|| misfit("the mark is missing"))?;
        for side in Side::BOTH {
            let (shown, keys) = (self.width(side), self.spec.keys[side as usize].len());
            let half = &mut self.halves[side as usize];
            for waiting in state.get(&format!("{}.waiting", side.word())) {
                if !half.waiting.restore(waiting, shown + keys) {
                    return Err(misfit("the waiting rows have other columns"));
                }
            }
            self.restore_rows(side, state)?;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let halves: usize = self.halves.iter().map(|half| half.waiting.bytes() + half.store.bytes()).sum();
        halves + self.keys.bytes() + self.keys.count() * 8
    }

    fn spill(&mut self, want: usize, space: &SpillSpace) -> Result<usize, StreamError> {
        let mut stores = self.halves.each_mut().map(|half| &mut half.store);
        stores.sort_by_key(|store| std::cmp::Reverse(store.bytes()));
        let mut freed = 0;
        for store in stores {
            freed += store.spill(want - want.min(freed), space)?;
        }
        Ok(freed)
    }

    fn spilled_bytes(&self) -> u64 {
        self.halves.iter().map(|half| half.store.spilled_bytes()).sum()
    }
}
