//! LEAD: a row waits until the key's later rows have come.
//!
//! Rows leave the reorder buffer in order of (time, partition, offset), and then wait by key until so many rows of the
//! key have followed as the farthest LEAD looks ahead. As LAG does, LEAD finds nothing across more than a day of event
//! time: a row whose key has been silent for longer leaves with what it has. Always: rows of one key leave in their order;
//! the watermark handed on is not younger than the oldest row that waits, so nothing that leaves is late.
//!
//! State is the rows that wait, at most as many of a key as the farthest LEAD looks ahead.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};

use super::frame::REMEMBERED_MS;
use super::operator::OverArgument;
use super::past::{Kind, Lane, NOTHING, Past, Worth};
use super::prepare::{Prepared, prepared};
use crate::stream::keyed::{Buffer, Held, KeyTable};
use crate::stream::rowwise::{arrow_error, evaluate_flat};
use crate::stream::window::{as_type, ints, ints_of};
use crate::stream::{Expr, NO_TIME, Operator, Output, Rows, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// Rows leave in batches of at most this many.
const BATCH_ROWS: usize = 8192;
/// What has left is dropped when it is most of what is held, and more than so many rows.
const SPARE_ROWS: usize = 16_384;

/// `LEAD(value, n, default)`: the value `n` rows of the key ahead, NULLs counted; without so many, the default as this
/// row has it, else NULL.
#[derive(Clone, Debug)]
pub struct LeadCall {
    /// What is looked ahead at.
    pub argument: OverArgument,
    /// How many rows, at least one.
    pub n: usize,
    /// In place of a row that does not come; of the type of the value.
    pub default: Option<Arc<dyn Expr>>,
}

/// All that the operator is made of.
#[derive(Clone, Debug)]
pub struct LeadSpec {
    /// PARTITION BY. Without any, all rows are one key's.
    pub keys: Vec<Arc<dyn Expr>>,
    /// The calls. Each adds one column.
    pub calls: Vec<LeadCall>,
    /// The input's columns, then one for each call.
    pub schema: SchemaRef,
}

/// The rows of one key that wait.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    head: u32,
    count: u32,
    /// The time of the key's last row.
    last: i64,
}

const NONE: Waiting = Waiting { head: NOTHING, count: 0, last: NO_TIME };

/// The operator.
pub struct Lead {
    spec: LeadSpec,
    input: SchemaRef,
    /// How far the farthest call looks ahead.
    ahead: u32,
    buffer: Buffer,
    table: KeyTable,
    waiting: Vec<Waiting>,
    /// The rows that wait, each the input's columns, the calls' values and defaults, then its partition and offset.
    past: Past,
    /// Of every row that waits, its time and slot, oldest first; among them some that have left.
    oldest: VecDeque<(i64, u32)>,
    /// Of every key, the time of its last row, oldest first; among them some that have been overtaken.
    silent: VecDeque<(i64, u32)>,
    limit: usize,
    mark: i64,
}

/// Rows on their way out: which, and for each call where its value is.
struct Leaving {
    rows: Vec<u32>,
    targets: Vec<Vec<u32>>,
}

impl Lead {
    /// Checks that the schema has room for the calls.
    pub fn new(spec: LeadSpec) -> Result<Self, StreamError> {
        let Some(width) = spec.schema.fields().len().checked_sub(spec.calls.len()) else {
            return Err(StreamError::Limit("LEAD has no column in its schema".to_owned()));
        };
        let ahead = spec.calls.iter().map(|call| call.n).max().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        if spec.calls.iter().any(|call| call.n == 0) || ahead == 0 {
            return Err(StreamError::Limit("LEAD looks at least one row ahead".to_owned()));
        }
        let input = Arc::new(Schema::new(spec.schema.fields()[..width].to_vec()));
        let mut past = Past::default();
        let mut types: Vec<DataType> = input.fields().iter().map(|field| field.data_type().clone()).collect();
        for call in &spec.calls {
            types.extend(std::iter::repeat_n(call.argument.of.clone(), 1 + usize::from(call.default.is_some())));
        }
        types.extend([DataType::Int32, DataType::Int64]);
        past.lanes = types.into_iter().map(|of| Lane::new(Kind::Any, of)).collect();
        Ok(Self {
            spec,
            input,
            ahead,
            buffer: Buffer::default(),
            table: KeyTable::default(),
            waiting: Vec::new(),
            past,
            oldest: VecDeque::new(),
            silent: VecDeque::new(),
            limit: SPARE_ROWS,
            mark: i64::MIN,
        })
    }

    /// The keys, then the calls' values and defaults.
    fn evaluated(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, StreamError> {
        let calls = self.spec.calls.iter().flat_map(|call| std::iter::once(&call.argument.value).chain(&call.default));
        self.spec.keys.iter().chain(calls).map(|expr| evaluate_flat(expr.as_ref(), batch)).collect()
    }

    /// Takes in rows that have left the buffer, and lets out those that have waited long enough.
    fn work(&mut self, held: Held, out: &mut Output) -> Result<(), StreamError> {
        let Prepared { held, batch, columns } = prepared(held, &self.input, &|batch| self.evaluated(batch), out)?;
        if held.len() == 0 {
            return Ok(());
        }
        let (keys, calls) = columns.split_at(self.spec.keys.len());
        let mut leaving = self.nothing_leaves();
        let encoded = self.table.encode(keys)?;
        // A slot may change hands within the batch, so what follows what is noted row by row.
        let mut lanes = batch.columns().to_vec();
        lanes.extend_from_slice(calls);
        lanes.push(Arc::new(Int32Array::from(held.partitions.clone())));
        lanes.push(Arc::new(Int64Array::from(held.offsets.clone())));
        let first = self.past.push_unlinked(&held.times, &lanes)?;
        for (row, at) in held.times.iter().enumerate() {
            self.let_go(*at, &mut leaving);
            let (slot, _) = self.table.slot(encoded.key(row));
            if self.waiting.len() <= slot as usize {
                self.waiting.resize(slot as usize + 1, NONE);
                self.past.grow(slot as usize + 1);
            }
            let here = first + row as u32;
            self.past.link(here, slot);
            let own = &mut self.waiting[slot as usize];
            if own.count == 0 {
                own.head = here;
            }
            own.count += 1;
            own.last = *at;
            self.oldest.push_back((*at, slot));
            self.silent.push_back((*at, slot));
            if own.count > self.ahead {
                self.leave(slot, &mut leaving);
            }
        }
        self.hand_on(&leaving, out)
    }

    fn nothing_leaves(&self) -> Leaving {
        Leaving { rows: Vec::new(), targets: vec![Vec::new(); self.spec.calls.len()] }
    }

    /// The key's oldest row leaves.
    fn leave(&mut self, slot: u32, leaving: &mut Leaving) {
        let own = &mut self.waiting[slot as usize];
        let row = own.head;
        for (call, targets) in self.spec.calls.iter().zip(&mut leaving.targets) {
            let mut target = row;
            for _ in 0..call.n {
                if target != NOTHING {
                    target = self.past.next(target);
                }
            }
            targets.push(target);
        }
        leaving.rows.push(row);
        own.count -= 1;
        own.head = self.past.next(row);
    }

    /// Forgets the keys that have been silent for more than a day at this time; their rows leave.
    fn let_go(&mut self, at: i64, leaving: &mut Leaving) {
        while let Some((last, slot)) = self.silent.front().copied() {
            let current = self.is_last(last, slot);
            if current && at.saturating_sub(last) <= REMEMBERED_MS {
                return;
            }
            self.silent.pop_front();
            if current {
                while self.waiting[slot as usize].count > 0 {
                    self.leave(slot, leaving);
                }
                self.waiting[slot as usize] = NONE;
                self.past.forget(slot);
                self.table.drop_slot(slot);
            }
        }
    }

    /// Whether the key in this slot had its last row at this time.
    fn is_last(&self, last: i64, slot: u32) -> bool {
        let own = &self.waiting[slot as usize];
        own.count > 0 && own.last == last
    }

    fn still_waits(&self, at: i64, slot: u32) -> bool {
        let own = &self.waiting[slot as usize];
        own.count > 0 && self.past.time(own.head) <= at
    }

    /// Makes rows of those that leave.
    fn hand_on(&mut self, leaving: &Leaving, out: &mut Output) -> Result<(), StreamError> {
        let inputs = self.input.fields().len();
        let lanes = &self.past.lanes;
        for from in (0..leaving.rows.len()).step_by(BATCH_ROWS) {
            let part = from..(from + BATCH_ROWS).min(leaving.rows.len());
            let rows = &leaving.rows[part.clone()];
            let gather = |lane: usize| lanes[lane].gather(rows.iter().copied());
            let mut columns = (0..inputs).map(gather).collect::<Result<Vec<_>, _>>()?;
            let mut lane = inputs;
            for (at, (call, targets)) in self.spec.calls.iter().zip(&leaving.targets).enumerate() {
                let targets = &targets[part.clone()];
                let mut value = lanes[lane].gather(targets.iter().copied())?;
                lane += 1;
                if call.default.is_some() {
                    let default = gather(lane)?;
                    lane += 1;
                    let place = |(row, target): (usize, &u32)| (usize::from(*target == NOTHING), row);
                    let picked: Vec<(usize, usize)> = targets.iter().enumerate().map(place).collect();
                    value = interleave(&[value.as_ref(), default.as_ref()], &picked).map_err(|e| arrow_error("LEAD's default", &e))?;
                }
                columns.push(as_type(value, self.spec.schema.field(inputs + at))?);
            }
            let (partitions, offsets) = (gather(lane)?, gather(lane + 1)?);
            let held = Held {
                columns: Vec::new(),
                times: rows.iter().map(|row| self.past.time(*row)).collect(),
                partitions: partitions.as_primitive::<Int32Type>().values().to_vec(),
                offsets: offsets.as_primitive::<Int64Type>().values().to_vec(),
            };
            let batch = RecordBatch::try_new(Arc::clone(&self.spec.schema), columns).map_err(|e| arrow_error("LEAD", &e))?;
            held.hand_on(batch, out);
        }
        if self.past.len() >= self.limit {
            self.compact()?;
        }
        Ok(())
    }

    /// Drops what has left.
    fn compact(&mut self) -> Result<(), StreamError> {
        let heads: Vec<u32> = self.waiting.iter().map(|own| if own.count > 0 { own.head } else { NOTHING }).collect();
        if let Some(places) = self.past.compact(&heads, Worth::AnyRow)? {
            for own in &mut self.waiting {
                own.head = if own.count > 0 { places[own.head as usize] } else { NOTHING };
            }
        }
        self.limit = 2 * self.past.len() + SPARE_ROWS;
        let mut oldest = std::mem::take(&mut self.oldest);
        oldest.retain(|(at, slot)| self.still_waits(*at, *slot));
        self.oldest = oldest;
        let mut silent = std::mem::take(&mut self.silent);
        silent.retain(|(last, slot)| self.is_last(*last, *slot));
        self.silent = silent;
        Ok(())
    }
}

impl Operator for Lead {
    fn name(&self) -> &'static str {
        "lead"
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
        self.let_go(self.mark, &mut leaving);
        self.hand_on(&leaving, out)?;
        while self.oldest.front().is_some_and(|(at, slot)| !self.still_waits(*at, *slot)) {
            self.oldest.pop_front();
        }
        out.watermark = Some(self.oldest.front().map_or(at, |(oldest, _)| at.min(Timestamp(*oldest))));
        Ok(())
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let arrived = self.buffer.latest(now.0.saturating_sub(1)).map(|at| Timestamp(at + 1));
        let limit = now.0.saturating_sub(REMEMBERED_MS);
        let gone = self.silent.partition_point(|(last, _)| *last < limit);
        let silent = self.silent.range(..gone).rev().find(|(last, slot)| self.is_last(*last, *slot));
        arrived.max(silent.map(|(last, _)| Timestamp(last.saturating_add(REMEMBERED_MS + 1))))
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
        self.compact()?;
        let names = self.table.decode(slots.iter().filter_map(|slot| self.table.key(*slot).map(AsRef::as_ref)))?;
        if !names.is_empty() {
            let fields: Vec<Field> =
                names.iter().enumerate().map(|(at, column)| Field::new(format!("k{at}"), column.data_type().clone(), true)).collect();
            let keys = RecordBatch::try_new(Arc::new(Schema::new(fields)), names);
            state.put("keys", keys.map_err(|e| arrow_error("the keys' state", &e))?);
        }
        state.put("rows", self.past.save(&slots)?);
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = |why: &str| StreamError::Restore { operator: "LEAD".to_owned(), why: why.to_owned() };
        let mark = state.get("mark").next().ok_or_else(|| misfit("the mark is missing"))?;
        self.mark = ints_of(mark, 0).and_then(|m| m.first().copied()).ok_or_else(|| misfit("the mark is empty"))?;
        for held in state.get("held") {
            if !self.buffer.restore(held, self.input.fields().len()) {
                return Err(misfit("the waiting rows have other columns"));
            }
        }
        let Some(rows) = state.get("rows").next() else { return Ok(()) };
        let keys = state.get("keys").next();
        if keys.map_or(0, RecordBatch::num_columns) != self.spec.keys.len() {
            return Err(misfit("the keys have another number of columns"));
        }
        let slots = keys.map_or(1, RecordBatch::num_rows);
        let encoded = self.table.encode(keys.map_or(&[], RecordBatch::columns))?;
        for row in 0..slots {
            if !self.table.slot(encoded.key(row)).1 {
                return Err(misfit("a key is there twice"));
            }
        }
        self.waiting = vec![NONE; slots];
        self.past.grow(slots);
        self.past.restore(rows, slots).ok_or_else(|| misfit("the rows have other columns"))?;
        for row in 0..self.past.len() as u32 {
            let (slot, at) = (self.past.slot(row), self.past.time(row));
            let own = &mut self.waiting[slot as usize];
            if own.count == 0 {
                own.head = row;
            }
            own.count += 1;
            own.last = at;
            self.oldest.push_back((at, slot));
            if self.past.next(row) == NOTHING {
                self.silent.push_back((at, slot));
            }
        }
        self.limit = 2 * self.past.len() + SPARE_ROWS;
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let queues = (self.oldest.capacity() + self.silent.capacity()) * 16;
        self.buffer.bytes() + self.table.bytes() + self.waiting.len() * size_of::<Waiting>() + self.past.bytes() + queues
    }
}
