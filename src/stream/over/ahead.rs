//! Frames that reach behind their row: a row waits until all that counts for it has come.
//!
//! Over a frame of time it waits until the watermark has passed the frame's end; over a frame of rows, until so many of
//! its key have come, or the key has been silent for more than a day of event time. Always: rows leave the reorder buffer
//! in order of (time, partition, offset), a key's rows leave in their order, and the watermark handed on is not younger than
//! the oldest row that waits.
//!
//! State is the rows that wait and those that the frames of waiting rows look back at.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};

use super::frame::{Frames, OverFrame, REMEMBERED_MS, Walk};
use super::operator::{Followed, OverCall, Parts, Source};
use super::past::{Kind, Lane, NOTHING, Past, Worth};
use super::prepare::{Prepared, failed_at, prepared};
use crate::stream::keyed::{Buffer, Held, KeyTable};
use crate::stream::rowwise::{arrow_error, evaluate_flat};
use crate::stream::window::{as_type, ints, ints_of};
use crate::stream::{Expr, NO_TIME, Operator, Output, Rows, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// What is of no use any more is dropped when it is most of what is held, and more than so many rows.
const SPARE_ROWS: usize = 16_384;

/// All that the operator is made of.
#[derive(Clone, Debug)]
pub struct AheadSpec {
    /// PARTITION BY. Without any, all rows are one key's.
    pub keys: Vec<Arc<dyn Expr>>,
    /// The functions. Their frames reach behind the row, all of them in time or all of them in rows, and have a beginning.
    pub calls: Vec<OverCall>,
    /// The input's columns, then one for each function.
    pub schema: SchemaRef,
}

/// What a row waits for.
#[derive(Clone, Copy, Debug)]
enum Wait {
    /// That so many milliseconds behind it are over.
    Time(i64),
    /// That so many rows of its key have come.
    Rows(u32),
}

/// The rows of one key that wait.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    head: u32,
    count: u32,
    /// The time of the key's last row.
    last: i64,
    /// Whether none of its rows has left yet.
    is_new: bool,
}

const NONE: Waiting = Waiting { head: NOTHING, count: 0, last: NO_TIME, is_new: true };

/// The operator.
pub struct Ahead {
    spec: AheadSpec,
    input: SchemaRef,
    wait: Wait,
    /// After so long without a row a key finds nothing any more.
    keeps_ms: i64,
    sources: Vec<Source>,
    buffer: Buffer,
    table: KeyTable,
    waiting: Vec<Waiting>,
    /// The arguments, then the input's columns, the partition and the offset.
    past: Past,
    frames: Vec<Frames>,
    functions: Vec<Followed>,
    /// Of every row that waits, its time and slot, oldest first; of frames of rows, among them some that have left.
    order: VecDeque<(i64, u32)>,
    /// Of every key, the time of its last row, oldest first; among them some that have been overtaken.
    silent: VecDeque<(i64, u32)>,
    limit: usize,
    mark: i64,
}

/// Rows on their way out, and how each frame moved over them.
struct Leaving {
    rows: Vec<u32>,
    walks: Vec<Walk>,
}

impl Ahead {
    /// Checks that the functions can be computed over their frames.
    pub fn new(spec: AheadSpec) -> Result<Self, StreamError> {
        let Some(width) = spec.schema.fields().len().checked_sub(spec.calls.len()) else {
            return Err(StreamError::Limit("functions over frames have no columns in their schema".to_owned()));
        };
        let input = Arc::new(Schema::new(spec.schema.fields()[..width].to_vec()));
        let Parts { sources, mut past, frames, functions } = Parts::of(&spec.calls, &spec.schema, width)?;
        if frames.iter().any(|frames| !frames.of.reaches_ahead() || !frames.of.is_bounded()) {
            return Err(StreamError::Limit("a frame that reaches ahead has a beginning, and ends behind its row".to_owned()));
        }
        let (mut times, mut rows, mut keeps_ms) = (None, None, 0);
        for frames in &frames {
            match frames.of {
                OverFrame::Range { from_ms, to_ms } => {
                    times = times.max(Some(to_ms.saturating_neg()));
                    keeps_ms = keeps_ms.max(from_ms.unwrap_or(0).max(0).saturating_sub(to_ms));
                }
                OverFrame::Rows { to, .. } => rows = rows.max(Some(to.saturating_neg())),
            }
        }
        let wait = match (times, rows.map(u32::try_from)) {
            (Some(ms), None) => Wait::Time(ms),
            (None, Some(Ok(rows))) => Wait::Rows(rows),
            _ => return Err(StreamError::Limit("frames of time and of rows that reach ahead wait for different things".to_owned())),
        };
        if let Wait::Rows(_) = wait {
            keeps_ms = REMEMBERED_MS;
        }
        past.lanes.extend(input.fields().iter().map(|field| Lane::new(Kind::Any, field.data_type().clone())));
        past.lanes.extend([DataType::Int32, DataType::Int64].map(|of| Lane::new(Kind::Any, of)));
        Ok(Self {
            spec,
            input,
            wait,
            keeps_ms,
            sources,
            buffer: Buffer::default(),
            table: KeyTable::default(),
            waiting: Vec::new(),
            past,
            frames,
            functions,
            order: VecDeque::new(),
            silent: VecDeque::new(),
            limit: SPARE_ROWS,
            mark: i64::MIN,
        })
    }

    /// The keys, then the arguments.
    fn evaluated(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, StreamError> {
        let keys = self.spec.keys.iter().map(|key| evaluate_flat(key.as_ref(), batch));
        keys.chain(self.sources.iter().map(|source| source.evaluate(batch))).collect()
    }

    /// Takes in rows that have left the buffer.
    fn work(&mut self, held: Held, out: &mut Output) -> Result<(), StreamError> {
        let Prepared { held, batch, columns } = prepared(held, &self.input, &|batch| self.evaluated(batch), out)?;
        if held.len() == 0 {
            return Ok(());
        }
        let (keys, arguments) = columns.split_at(self.spec.keys.len());
        let encoded = self.table.encode(keys)?;
        let mut lanes = arguments.to_vec();
        lanes.extend_from_slice(batch.columns());
        lanes.push(Arc::new(Int32Array::from(held.partitions.clone())));
        lanes.push(Arc::new(Int64Array::from(held.offsets.clone())));
        let first = self.past.push_unlinked(&held.times, &lanes)?;
        let mut leaving = self.nothing_leaves();
        for (row, at) in held.times.iter().enumerate() {
            if let Wait::Rows(_) = self.wait {
                self.let_go(*at, &mut leaving);
            }
            let (slot, _) = self.table.slot(encoded.key(row));
            if self.waiting.len() <= slot as usize {
                self.grow(slot as usize + 1);
            }
            let here = first + row as u32;
            self.past.link(here, slot);
            self.frames.iter_mut().for_each(|frames| frames.heard(slot, here));
            let own = &mut self.waiting[slot as usize];
            if own.count == 0 {
                own.head = here;
            }
            own.count += 1;
            own.last = *at;
            self.order.push_back((*at, slot));
            self.silent.push_back((*at, slot));
            if let Wait::Rows(rows) = self.wait
                && own.count > rows
            {
                self.leave(slot, &mut leaving);
            }
        }
        self.hand_on(&leaving, out)
    }

    fn grow(&mut self, slots: usize) {
        self.waiting.resize(slots, NONE);
        self.past.grow(slots);
        self.frames.iter_mut().for_each(|frames| frames.grow(slots));
        self.functions.iter_mut().for_each(|of| of.function.grow(slots));
    }

    fn nothing_leaves(&self) -> Leaving {
        Leaving { rows: Vec::new(), walks: self.frames.iter().map(|_| Walk::default()).collect() }
    }

    /// The key's oldest row leaves.
    fn leave(&mut self, slot: u32, leaving: &mut Leaving) {
        let own = &mut self.waiting[slot as usize];
        let (row, fresh) = (own.head, std::mem::take(&mut own.is_new));
        for (frames, walk) in self.frames.iter_mut().zip(&mut leaving.walks) {
            frames.step(&self.past, row, slot, fresh, walk);
        }
        leaving.rows.push(row);
        own.count -= 1;
        own.head = if own.count > 0 { self.past.next(row) } else { NOTHING };
    }

    /// Forgets the keys whose next row would find nothing at this time; their rows leave.
    fn let_go(&mut self, at: i64, leaving: &mut Leaving) {
        while let Some((last, slot)) = self.silent.front().copied() {
            let is_last = self.waiting[slot as usize].last == last;
            if is_last && at.saturating_sub(last) <= self.keeps_ms {
                return;
            }
            self.silent.pop_front();
            if is_last {
                while self.waiting[slot as usize].count > 0 {
                    self.leave(slot, leaving);
                }
                self.waiting[slot as usize] = NONE;
                self.frames.iter_mut().for_each(|frames| frames.forget(slot));
                self.past.forget(slot);
                self.table.drop_slot(slot);
            }
        }
    }

    fn still_waits(&self, at: i64, slot: u32) -> bool {
        let own = &self.waiting[slot as usize];
        own.count > 0 && self.past.time(own.head) <= at
    }

    /// Makes rows of those that leave.
    fn hand_on(&mut self, leaving: &Leaving, out: &mut Output) -> Result<(), StreamError> {
        if !leaving.rows.is_empty() {
            let (inputs, arguments) = (self.input.fields().len(), self.sources.len());
            let gather = |lane: usize| self.past.lanes[lane].gather(leaving.rows.iter().copied());
            let mut columns = (arguments..arguments + inputs).map(gather).collect::<Result<Vec<_>, _>>()?;
            let (partitions, offsets) = (gather(arguments + inputs)?, gather(arguments + inputs + 1)?);
            let mut failed: Vec<(u32, usize)> = Vec::new();
            let batch =
                RecordBatch::try_new(Arc::clone(&self.input), columns.clone()).map_err(|e| arrow_error("the rows that waited", &e))?;
            for (at, Followed { frame, function }) in self.functions.iter_mut().enumerate() {
                let answers = function.run(&leaving.walks[*frame], &self.past)?;
                failed.extend(answers.failed.into_iter().map(|row| (row, at)));
                columns.push(as_type(answers.column, self.spec.schema.field(inputs + at))?);
            }
            let held = Held {
                columns,
                times: leaving.rows.iter().map(|row| self.past.time(*row)).collect(),
                partitions: partitions.as_primitive::<Int32Type>().values().to_vec(),
                offsets: offsets.as_primitive::<Int64Type>().values().to_vec(),
            };
            failed.sort_unstable();
            failed.dedup_by_key(|(row, _)| *row);
            for (row, call) in &failed {
                let reason = format!("could not evaluate {}: overflow", self.spec.calls[*call].text);
                out.failed.push(failed_at(&held, &batch, *row as usize, reason));
            }
            let good: Vec<u32> =
                (0..held.times.len() as u32).filter(|row| failed.binary_search_by_key(row, |(row, _)| *row).is_err()).collect();
            let held = if failed.is_empty() { held } else { held.picked(&good)? };
            let batch = RecordBatch::try_new(Arc::clone(&self.spec.schema), held.columns.clone());
            held.hand_on(batch.map_err(|e| arrow_error("the functions over frames", &e))?, out);
        }
        if self.past.len() >= self.limit {
            self.compact(Worth::AQuarter)?;
        }
        Ok(())
    }

    /// Drops the rows that neither wait nor are looked back at.
    fn compact(&mut self, worth: Worth) -> Result<(), StreamError> {
        let mut needed: Vec<u32> = self.waiting.iter().map(|own| own.head).collect();
        for frames in &mut self.frames {
            frames.loosen(&self.past);
            for (slot, first) in needed.iter_mut().enumerate() {
                *first = (*first).min(frames.needs(slot as u32, &self.past));
            }
        }
        if let Some(places) = self.past.compact(&needed, worth)? {
            self.frames.iter_mut().for_each(|frames| frames.renumber(&places));
            for own in self.waiting.iter_mut().filter(|own| own.head != NOTHING) {
                own.head = places[own.head as usize];
            }
        }
        self.limit = 2 * self.past.len() + SPARE_ROWS;
        if let Wait::Rows(_) = self.wait {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|(at, slot)| self.still_waits(*at, *slot));
            self.order = order;
        }
        let waiting = &self.waiting;
        self.silent.retain(|(last, slot)| waiting[*slot as usize].last == *last);
        Ok(())
    }
}

impl Operator for Ahead {
    fn name(&self) -> &'static str {
        "over"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        self.buffer.take(rows, self.mark, out)
    }

    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        for held in self.buffer.release(at.0)? {
            self.work(held, out)?;
        }
        self.mark = self.mark.max(at.0);
        let mut leaving = self.nothing_leaves();
        if let Wait::Time(ms) = self.wait {
            while let Some((_, slot)) = self.order.front().copied().filter(|(time, _)| time.saturating_add(ms) < at.0) {
                self.order.pop_front();
                self.leave(slot, &mut leaving);
            }
        }
        self.let_go(self.mark, &mut leaving);
        self.hand_on(&leaving, out)?;
        if let Wait::Rows(_) = self.wait {
            while self.order.front().is_some_and(|(at, slot)| !self.still_waits(*at, *slot)) {
                self.order.pop_front();
            }
        }
        out.watermark = Some(self.order.front().map_or(at, |(oldest, _)| at.min(Timestamp(*oldest))));
        Ok(())
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let before = now.0.saturating_sub(1);
        let Wait::Time(ms) = self.wait else {
            let arrived = self.buffer.latest(before).map(|at| Timestamp(at + 1));
            let limit = now.0.saturating_sub(self.keeps_ms);
            let gone = self.silent.partition_point(|(last, _)| *last < limit);
            let is_last = |(last, slot): &&(i64, u32)| self.waiting[*slot as usize].last == *last && self.waiting[*slot as usize].count > 0;
            let silent = self.silent.range(..gone).rev().find(is_last);
            return arrived.max(silent.map(|(last, _)| Timestamp(last.saturating_add(self.keeps_ms + 1))));
        };
        let reached = before.saturating_sub(ms);
        let ready = self.order.partition_point(|(at, _)| *at <= reached);
        let waits = ready.checked_sub(1).and_then(|place| self.order.get(place)).map(|(at, _)| *at);
        waits.max(self.buffer.latest(reached)).map(|at| Timestamp(at.saturating_add(ms + 1)))
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        state.put("mark", ints(vec![("mark", vec![self.mark])])?);
        if let Some(held) = self.buffer.save()? {
            state.put("held", held);
        }
        let slots = self.table.in_use();
        if slots.is_empty() {
            return Ok(());
        }
        self.compact(Worth::AnyRow)?;
        let of = |value: &dyn Fn(&Waiting) -> i64| slots.iter().map(|slot| value(&self.waiting[*slot as usize])).collect::<Vec<i64>>();
        let head = |own: &Waiting| if own.head == NOTHING { -1 } else { i64::from(own.head) };
        let (count, new) = (|own: &Waiting| i64::from(own.count), |own: &Waiting| i64::from(own.is_new));
        let waiting = vec![("last", of(&|own| own.last)), ("head", of(&head)), ("count", of(&count)), ("new", of(&new))];
        state.put("waiting", ints(waiting)?);
        let names = self.table.decode(slots.iter().filter_map(|slot| self.table.key(*slot).map(AsRef::as_ref)))?;
        if !names.is_empty() {
            let fields: Vec<Field> =
                names.iter().enumerate().map(|(at, column)| Field::new(format!("k{at}"), column.data_type().clone(), true)).collect();
            let keys = RecordBatch::try_new(Arc::new(Schema::new(fields)), names);
            state.put("keys", keys.map_err(|e| arrow_error("the keys' state", &e))?);
        }
        state.put("rows", self.past.save(&slots)?);
        for (number, frames) in self.frames.iter().enumerate() {
            state.put(&format!("frame{number}"), ints(vec![("stand", frames.save(&slots))])?);
        }
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = |why: &str| StreamError::Restore { operator: "the functions over frames".to_owned(), why: why.to_owned() };
        let mark = state.get("mark").next().ok_or_else(|| misfit("the mark is missing"))?;
        self.mark = ints_of(mark, 0).and_then(|m| m.first().copied()).ok_or_else(|| misfit("the mark is empty"))?;
        for held in state.get("held") {
            if !self.buffer.restore(held, self.input.fields().len()) {
                return Err(misfit("the waiting rows have other columns"));
            }
        }
        let Some(waiting) = state.get("waiting").next() else { return Ok(()) };
        let number = |place| ints_of(waiting, place).ok_or_else(|| misfit("the keys are not whole"));
        let (lasts, heads, counts, new) = (number(0)?, number(1)?, number(2)?, number(3)?);
        let keys = state.get("keys").next();
        if keys.map_or(0, RecordBatch::num_columns) != self.spec.keys.len() {
            return Err(misfit("the keys have another number of columns"));
        }
        let encoded = self.table.encode(keys.map_or(&[], RecordBatch::columns))?;
        for row in 0..lasts.len() {
            if !self.table.slot(encoded.key(row)).1 {
                return Err(misfit("a key is there twice"));
            }
        }
        self.grow(lasts.len());
        let rows = state.get("rows").next().ok_or_else(|| misfit("the rows are missing"))?;
        self.past.restore(rows, lasts.len()).ok_or_else(|| misfit("the rows have other columns"))?;
        for (slot, own) in self.waiting.iter_mut().enumerate() {
            let head = u32::try_from(heads[slot]).unwrap_or(NOTHING);
            let count = u32::try_from(counts[slot]).map_err(|_| misfit("a count is negative"))?;
            if (head == NOTHING) != (count == 0) || (head != NOTHING && head as usize >= self.past.len()) {
                return Err(misfit("a key waits with no row"));
            }
            *own = Waiting { head, count, last: lasts[slot], is_new: new[slot] != 0 };
        }
        for row in 0..self.past.len() as u32 {
            let slot = self.past.slot(row);
            let own = &self.waiting[slot as usize];
            if own.head != NOTHING && row >= own.head {
                self.order.push_back((self.past.time(row), slot));
            }
        }
        let mut silent: Vec<(i64, u32)> = lasts.iter().enumerate().map(|(slot, last)| (*last, slot as u32)).collect();
        silent.sort_unstable();
        self.silent.extend(silent);
        self.limit = 2 * self.past.len() + SPARE_ROWS;
        for (number, frames) in self.frames.iter_mut().enumerate() {
            let name = format!("frame{number}");
            let stands = state.get(&name).next().and_then(|batch| ints_of(batch, 0));
            let stands = stands.filter(|stands| stands.len() == lasts.len() * 5).ok_or_else(|| misfit("a frame is missing"))?;
            let walk = frames.restore(stands, &self.past).ok_or_else(|| misfit("a frame does not fit its rows"))?;
            for of in self.functions.iter_mut().filter(|of| of.frame == number) {
                of.function.run(&walk, &self.past)?;
            }
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.buffer.bytes()
            + self.table.bytes()
            + self.waiting.len() * size_of::<Waiting>()
            + (self.order.capacity() + self.silent.capacity()) * 16
            + self.past.bytes()
            + self.frames.iter().map(Frames::bytes).sum::<usize>()
            + self.functions.iter().map(|of| of.function.bytes()).sum::<usize>()
    }
}
