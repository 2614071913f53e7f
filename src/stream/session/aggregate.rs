//! GROUP BY over SESSION windows.
//!
//! A session is a key's rows, each at most `gap` from a neighbour; rows exactly one gap apart belong together. It
//! spans `[first, last + gap)` and closes when the watermark is past its end. A row is judged by its own partition's
//! watermark just before it, after joining the open sessions it touches: where even the joined session would have
//! ended before that watermark, the row is late. Always: what comes out is a function of each partition's rows in
//! their order, and leaves in order of end, then of first sight.
//!
//! A task that merges partitions first brings rows into the one order all interleavings agree on: by the
//! watermark before each, then partition and offset. Once the merged watermark is past a mark, every row with that
//! mark is there.
//!
//! The sessions of a key are in memory or on the disk (`cold`), all of them. A row of the key brings them back before it joins one, and
//! the watermark before one fires.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, TimestampMillisecondArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::slots::Slots;
use crate::record::PartitionId;
use crate::stream::keyed::{Buffer, ColdKeys, KeyTable, RowKeys};
use crate::stream::rowwise::{arrow_error, evaluate, evaluate_flat, row_by_row, take_column, take_rows};
use crate::stream::stateless::condition_of;
use crate::stream::window::{Maker, as_type, ints, ints_of};
use crate::stream::{
    Aside, AsideRow, Expr, FoldFactory, NO_OFFSET, Operator, Output, Rows, Scope, SpillSpace, StateReader, StateWriter, StreamError,
    WindowColumn,
};
use crate::time::Timestamp;

/// The longest gap: a hundred years.
const LONGEST_MS: i64 = 100 * 366 * 86_400_000;
/// Times beyond this are no times: sums with the gap would leave the range of an `i64`.
const FARTHEST_MS: i64 = 1 << 60;
/// Results leave in batches of at most this many rows.
const BATCH_ROWS: usize = 8192;

/// All that an aggregate over sessions is made of.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// How far apart, in milliseconds, two rows of one session may be.
    pub gap_ms: i64,
    /// One partition, or all of them merged.
    pub scope: Scope,
    /// Whose sessions: the group keys. May be empty.
    pub keys: Vec<Arc<dyn Expr>>,
    /// The aggregates.
    pub folds: Vec<Arc<dyn FoldFactory>>,
    /// What each column of the results is.
    pub columns: Vec<WindowColumn>,
    /// The columns of the results. Window columns are timestamps of any unit.
    pub schema: SchemaRef,
}

/// A session that has not fired.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub start: i64,
    pub last: i64,
    /// Counts up with each session that begins.
    pub number: u64,
    /// Under which end it stands in the schedule; at or before its real one.
    pub scheduled: i64,
    pub slots: Vec<u32>,
}

/// The operator.
pub struct SessionAggregate {
    pub(super) spec: SessionSpec,
    pub(super) table: KeyTable,
    /// The sessions of each key's slot.
    pub(super) sessions: Vec<Vec<Session>>,
    /// When the last row came for each key's slot, in rounds of what goes to the disk.
    pub(super) touched: Vec<u64>,
    /// Counts up whenever it is asked to put something on the disk.
    pub(super) round: u64,
    /// Whose a session is, by its number.
    pub(super) owners: HashMap<u64, u32>,
    pub(super) schedule: BTreeSet<(i64, u64)>,
    pub(super) slots: Slots,
    /// The keys whose sessions lie on the disk.
    pub(super) cold: ColdKeys,
    /// Rows of a merging task whose turn has not come.
    pub(super) waiting: Buffer,
    /// Every session that ends before this has fired.
    closed: i64,
    next: u64,
}

/// A session that fires: its end, its number, its key's slot.
type Ended = (i64, u64, u32, Session);

/// Rows in the order in which they count.
struct Turn<'a> {
    columns: &'a [ArrayRef],
    /// Whether these are the columns as they came, which other queries read too.
    shared: bool,
    times: &'a [i64],
    marks: &'a [i64],
    partition: &'a dyn Fn(usize) -> i32,
    offsets: &'a [i64],
}

impl SessionAggregate {
    /// Checks the plan, and makes every accumulator once so that a type one cannot take is found now.
    pub fn new(spec: SessionSpec) -> Result<Self, StreamError> {
        if spec.gap_ms <= 0 || spec.gap_ms > LONGEST_MS {
            return Err(StreamError::Limit(format!("a session's gap of {} ms is not between 1 ms and a hundred years", spec.gap_ms)));
        }
        if spec.columns.len() != spec.schema.fields().len() {
            return Err(StreamError::Limit("an aggregate over sessions has other columns than its schema".to_owned()));
        }
        let maker = Maker::new(&[], None, spec.folds.clone())?;
        Ok(Self {
            spec,
            table: KeyTable::default(),
            sessions: Vec::new(),
            touched: Vec::new(),
            round: 1,
            owners: HashMap::new(),
            schedule: BTreeSet::new(),
            slots: Slots::new(maker),
            cold: ColdKeys::default(),
            waiting: Buffer::default(),
            closed: i64::MIN,
            next: 0,
        })
    }

    fn arguments(&self) -> usize {
        self.slots.maker().layout().expressions.len()
    }

    fn evaluated(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, StreamError> {
        let layout = self.slots.maker().layout();
        let mut columns = Vec::with_capacity(layout.expressions.len() + self.spec.keys.len());
        for (place, expr) in layout.expressions.iter().enumerate() {
            columns.push(if layout.is_filter(place) {
                Arc::new(condition_of(expr.as_ref(), batch)?) as ArrayRef
            } else {
                evaluate(expr.as_ref(), batch)?
            });
        }
        for key in &self.spec.keys {
            columns.push(evaluate_flat(key.as_ref(), batch)?);
        }
        Ok(columns)
    }

    /// Rows, one after the other, into their sessions.
    fn take(&mut self, turn: &Turn<'_>, out: &mut Output) -> Result<(), StreamError> {
        let arguments = self.arguments();
        let keys = if turn.shared {
            self.table.row_keys(&turn.columns[arguments..])?
        } else {
            RowKeys::Each(self.table.encode(&turn.columns[arguments..])?)
        };
        let (texts, count) = keys.texts(turn.times.len());
        if let Some(brought) = self.cold.take(texts, count)? {
            self.enter(&brought)?;
        }
        let (mut rows, mut slots) = (Vec::with_capacity(turn.times.len()), Vec::with_capacity(turn.times.len()));
        for (row, at) in turn.times.iter().enumerate() {
            let (key, new) = self.table.slot_of(&keys, row);
            self.make_room(key, new);
            if let Some(slot) = self.join(key, *at, turn.marks[row].max(self.closed))? {
                self.touched[key as usize] = self.round;
                rows.push(row as u32);
                slots.push(slot);
                continue;
            }
            if self.sessions[key as usize].is_empty() {
                self.table.drop_slot(key);
            }
            let partition = PartitionId((turn.partition)(row));
            out.aside.push(AsideRow { partition, offset: turn.offsets[row], why: Aside::Late });
        }
        if rows.len() == turn.times.len() {
            return self.slots.update(&turn.columns[..arguments], &slots);
        }
        let rows = UInt32Array::from(rows);
        let picked = turn.columns[..arguments].iter().map(|column| take_column(column, &rows)).collect::<Result<Vec<_>, _>>()?;
        self.slots.update(&picked, &slots)
    }

    /// The slot of a key.
    pub(super) fn key(&mut self, key: &[u8]) -> u32 {
        let (key, new) = self.table.slot(key);
        self.make_room(key, new);
        key
    }

    fn make_room(&mut self, key: u32, new: bool) {
        if self.sessions.len() <= key as usize {
            self.sessions.resize_with(key as usize + 1, Vec::new);
            self.touched.resize(key as usize + 1, 0);
        }
        if new {
            self.touched[key as usize] = 0;
        }
    }

    /// Takes back a session of a key in memory; no row has come for it of late.
    pub(super) fn put_back(&mut self, key: u32, start: i64, last: i64, number: u64, slots: Vec<u32>) {
        let scheduled = last + self.spec.gap_ms;
        self.sessions[key as usize].push(Session { start, last, number, scheduled, slots });
        self.owners.insert(number, key);
        self.schedule.insert((scheduled, number));
    }

    /// The slot a row goes to, having joined what it touches; `None` where it is late.
    fn join(&mut self, key: u32, at: i64, mark: i64) -> Result<Option<u32>, StreamError> {
        let gap = self.spec.gap_ms;
        let own = &mut self.sessions[key as usize];
        let touches = |s: &Session| s.last + gap >= mark && at <= s.last + gap && s.start - gap <= at;
        let Some(first) = own.iter().position(touches) else {
            if at + gap < mark {
                return Ok(None);
            }
            let number = self.next;
            self.next += 1;
            let slot = self.slots.make()?;
            own.push(Session { start: at, last: at, number, scheduled: at + gap, slots: vec![slot] });
            self.owners.insert(number, key);
            self.schedule.insert((at + gap, number));
            return Ok(Some(slot));
        };
        // Sessions stand in the order in which they began: the first stays, and the slots of the others stand behind its own.
        let mut next = first + 1;
        while next < own.len() {
            if !touches(&own[next]) {
                next += 1;
                continue;
            }
            let joined = own.remove(next);
            self.schedule.remove(&(joined.scheduled, joined.number));
            self.owners.remove(&joined.number);
            let stays = &mut own[first];
            stays.start = stays.start.min(joined.start);
            stays.last = stays.last.max(joined.last);
            stays.slots.extend(joined.slots);
        }
        let stays = &mut own[first];
        stays.start = stays.start.min(at);
        stays.last = stays.last.max(at);
        Ok(stays.slots.first().copied())
    }

    /// Fires every session that ends before `at`.
    fn fire(&mut self, at: i64, out: &mut Output) -> Result<(), StreamError> {
        if let Some(brought) = self.cold.take_before(at)? {
            self.enter(&brought)?;
        }
        let mut ready: Vec<Ended> = Vec::new();
        while let Some((scheduled, number)) = self.schedule.first().copied().filter(|(end, _)| *end < at) {
            self.schedule.remove(&(scheduled, number));
            let Some(key) = self.owners.get(&number).copied() else { continue };
            let own = &mut self.sessions[key as usize];
            let Some(place) = own.iter().position(|session| session.number == number) else { continue };
            let end = own[place].last + self.spec.gap_ms;
            if end >= at {
                own[place].scheduled = end;
                self.schedule.insert((end, number));
                continue;
            }
            self.owners.remove(&number);
            ready.push((end, number, key, own.remove(place)));
        }
        ready.sort_unstable_by_key(|(end, number, ..)| (*end, *number));
        for part in ready.chunks(BATCH_ROWS) {
            self.emit(part, out)?;
        }
        for (_, _, key, _) in &ready {
            if self.sessions[*key as usize].is_empty() {
                self.table.drop_slot(*key);
            }
        }
        Ok(())
    }

    fn emit(&mut self, ready: &[Ended], out: &mut Output) -> Result<(), StreamError> {
        let keys = self.table.decode(ready.iter().filter_map(|(_, _, key, _)| self.table.key(*key).map(AsRef::as_ref)))?;
        let slots: Vec<Vec<u32>> = ready.iter().map(|(.., session)| session.slots.clone()).collect();
        let finished = self.slots.finish(&slots)?;
        let times = |of: &dyn Fn(&Ended) -> i64| Arc::new(TimestampMillisecondArray::from_iter_values(ready.iter().map(of))) as ArrayRef;
        let mut columns = Vec::with_capacity(self.spec.columns.len());
        for (column, field) in self.spec.columns.iter().zip(self.spec.schema.fields()) {
            let array = match column {
                WindowColumn::Key(key) => ArrayRef::clone(&keys[*key]),
                WindowColumn::Agg(fold) => ArrayRef::clone(&finished.values[*fold]),
                WindowColumn::WindowStart => times(&|(.., session)| session.start),
                WindowColumn::WindowEnd => times(&|(end, ..)| *end),
                WindowColumn::WindowTime => times(&|(end, ..)| *end - 1),
            };
            columns.push(as_type(array, field)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(ready.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.spec.schema), columns, &options);
        let batch = batch.map_err(|e| arrow_error("the sessions' results", &e))?;
        let partition = match self.spec.scope {
            Scope::Partition(partition) => partition,
            Scope::Merged => PartitionId(0),
        };
        let at: Vec<i64> = ready.iter().map(|(end, ..)| end - 1).collect();
        out.rows.push(Rows {
            batch,
            partition,
            offsets: vec![NO_OFFSET; ready.len()].into(),
            before: at.clone().into(),
            times: at.into(),
            heard: None,
            gone: false,
        });
        Ok(())
    }

    /// All sessions in the order in which they began, each with its key's slot.
    fn in_order(&self) -> Vec<(u32, &Session)> {
        let of_key = |(key, own): (usize, &'_ Vec<Session>)| (0..own.len()).map(|i| (key, i)).collect::<Vec<_>>();
        let mut all: Vec<(usize, usize)> = self.sessions.iter().enumerate().flat_map(of_key).collect();
        all.sort_unstable_by_key(|(key, i)| self.sessions[*key][*i].number);
        all.into_iter().map(|(key, i)| (key as u32, &self.sessions[key][i])).collect()
    }
}

impl Operator for SessionAggregate {
    fn name(&self) -> &'static str {
        "session"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        let placed = |at: &i64| (-FARTHEST_MS..FARTHEST_MS).contains(at);
        let shared = rows.times.iter().all(placed);
        let fewer;
        let rows = if shared {
            rows
        } else {
            let (timed, others): (Vec<u32>, Vec<u32>) = (0..rows.len() as u32).partition(|row| placed(&rows.times[*row as usize]));
            let aside = |row: u32| AsideRow { partition: rows.partition, offset: rows.offsets[row as usize], why: Aside::Late };
            out.aside.extend(others.into_iter().map(aside));
            fewer = take_rows(rows, &timed)?;
            &fewer
        };
        let evaluated = row_by_row(rows, &mut |batch| self.evaluated(batch), &mut out.failed)?;
        for (rows, mut columns) in evaluated {
            match self.spec.scope {
                Scope::Partition(_) => {
                    let partition = rows.partition.0;
                    let turn = Turn {
                        columns: &columns,
                        shared,
                        times: &rows.times,
                        marks: &rows.before,
                        partition: &|_| partition,
                        offsets: &rows.offsets,
                    };
                    self.take(&turn, out)?;
                }
                Scope::Merged => {
                    columns.push(Arc::new(Int64Array::new(rows.times.clone(), None)));
                    let by_mark = Rows { times: rows.before.clone(), ..rows };
                    self.waiting.push(&by_mark, columns)?;
                }
            }
        }
        Ok(())
    }

    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        for held in self.waiting.release(at.0)? {
            let (times, columns) = held.columns.split_last().ok_or_else(|| StreamError::Limit("waiting rows have no time".to_owned()))?;
            let times =
                times.as_any().downcast_ref::<Int64Array>().ok_or_else(|| StreamError::Limit("waiting rows have no time".to_owned()))?;
            let turn = Turn {
                columns,
                shared: false,
                times: times.values(),
                marks: &held.times,
                partition: &|row| held.partitions[row],
                offsets: &held.offsets,
            };
            self.take(&turn, out)?;
        }
        self.fire(at.0, out)?;
        self.closed = self.closed.max(at.0);
        // A session that ends with the watermark is still open, and its time is the last millisecond inside it.
        out.watermark = Some(at.plus(-1));
        Ok(())
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let open = self.sessions.iter().flatten().map(|session| session.last + self.spec.gap_ms);
        let ended = open.filter(|end| *end < now.0).max().max(self.cold.latest(now.0));
        // What waits has its own end at the earliest; where it lies behind the clock, its turn has to come.
        let waits = self.waiting.all().ok().and_then(|held| {
            let times = held.columns.last()?.as_any().downcast_ref::<Int64Array>()?.values().clone();
            times.iter().map(|at| at + self.spec.gap_ms).filter(|end| *end < now.0).max()
        });
        ended.max(waits).map(|end| Timestamp(end + 1)).filter(|to| to.0 > self.closed)
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        state.put("mark", ints(vec![("closed", vec![self.closed]), ("next", vec![self.next as i64])])?);
        if let Some(waiting) = self.waiting.save()? {
            state.put("waiting", waiting);
        }
        self.cold.save(state)?;
        let all = self.in_order();
        if all.is_empty() {
            return Ok(());
        }
        let column =
            |of: &dyn Fn(&Session) -> i64| Arc::new(Int64Array::from_iter_values(all.iter().map(|(_, session)| of(session)))) as ArrayRef;
        let mut fields = ["start", "last", "number", "slots"].map(|name| Field::new(name, DataType::Int64, false)).to_vec();
        let mut columns = vec![column(&|s| s.start), column(&|s| s.last), column(&|s| s.number as i64), column(&|s| s.slots.len() as i64)];
        let keys = self.table.decode(all.iter().filter_map(|(key, _)| self.table.key(*key).map(AsRef::as_ref)))?;
        for (place, key) in keys.into_iter().enumerate() {
            fields.push(Field::new(format!("k{place}"), key.data_type().clone(), true));
            columns.push(key);
        }
        let sessions = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
        state.put("sessions", sessions.map_err(|e| arrow_error("the sessions' state", &e))?);
        let slots: Vec<u32> = all.iter().flat_map(|(_, session)| session.slots.iter().copied()).collect();
        let states = self.slots.save(&slots)?;
        let fields: Vec<Field> =
            states.iter().enumerate().map(|(place, column)| Field::new(format!("s{place}"), column.data_type().clone(), true)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
        let states = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), states, &options);
        state.put("states", states.map_err(|e| arrow_error("the sessions' state", &e))?);
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = |why: &str| StreamError::Restore { operator: "the aggregate over sessions".to_owned(), why: why.to_owned() };
        let mark = state.get("mark").next().ok_or_else(|| misfit("the mark is missing"))?;
        let number = |place| ints_of(mark, place).and_then(|m| m.first().copied()).ok_or_else(|| misfit("the mark is empty"));
        self.closed = number(0)?;
        self.next = u64::try_from(number(1)?).map_err(|_| misfit("the count of sessions is negative"))?;
        let width = self.arguments() + self.spec.keys.len() + 1;
        for waiting in state.get("waiting") {
            if !self.waiting.restore(waiting, width) {
                return Err(misfit("the waiting rows have other columns"));
            }
        }
        self.restore_cold(state)?;
        let Some(sessions) = state.get("sessions").next() else { return Ok(()) };
        let states = state.get("states").next().ok_or_else(|| misfit("the states are missing"))?;
        if sessions.num_columns() != 4 + self.spec.keys.len() || states.num_columns() != self.slots.maker().frozen_width() {
            return Err(misfit("the sessions have another number of columns"));
        }
        let int = |place| ints_of(sessions, place).ok_or_else(|| misfit("the sessions are not whole"));
        let (starts, lasts, numbers, counts) = (int(0)?, int(1)?, int(2)?, int(3)?);
        let slots = self.slots.restore(states.columns(), states.num_rows())?;
        let encoded = self.table.encode(&sessions.columns()[4..])?;
        let mut from = 0;
        for row in 0..sessions.num_rows() {
            let len = usize::try_from(counts[row]).ok().filter(|len| 0 < *len && *len <= slots.len() - from);
            let len = len.ok_or_else(|| misfit("the sessions have other states"))?;
            let number = u64::try_from(numbers[row]).map_err(|_| misfit("a session's number is negative"))?;
            let key = self.key(encoded.key(row));
            self.put_back(key, starts[row], lasts[row], number, slots[from..from + len].to_vec());
            from += len;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let sessions: usize = self.sessions.iter().map(|own| own.len() * (size_of::<Session>() + 64)).sum();
        sessions + self.slots.bytes() + self.table.bytes() + self.waiting.bytes() + self.cold.bytes()
    }

    fn spill(&mut self, want: usize, space: &SpillSpace) -> Result<usize, StreamError> {
        self.put_away(want, space)
    }

    fn spilled_bytes(&self) -> u64 {
        self.cold.spilled_bytes()
    }
}
