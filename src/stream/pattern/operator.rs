//! The operator of patterns: the reorder buffer, the keys, their attempts, and what they find.
//!
//! Rows wait until the watermark has passed them and are then worked through in order of (time, partition, offset). A row
//! older than its own partition's watermark just before it is late and goes aside. Conditions that a row and those before
//! it decide are evaluated once a row, over whole batches; those that speak of rows taken are asked for by the keys, and
//! answered for all keys at once, round by round. Always: what comes out is a function of each partition's rows,
//! in their order, and comes in the order in which it was decided.
//!
//! State is bounded: a key keeps the rows since its open attempt began, at most as far as WITHIN reaches, at most so many
//! rows, and never for longer than a day (or WITHIN, if that is longer) behind its last one. It is saved as rows alone: an attempt is
//! made again from them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::keys::{Ground, Key, KeyRow, NewRow, Rules};
use super::matcher::Scratch;
use super::outbox::{Making, Outbox};
use super::program::Program;
use super::read::{Asked, Cells, Lanes, Memory, Where};
use super::spec::{MAX_VARIABLES, PatternColumn, PatternCondition, PatternRead, PatternSpec};
use crate::stream::keyed::{Buffer, Held, KeyTable};
use crate::stream::over::{Kind, Lane, NOTHING, Past, Prepared, Worth, prepared};
use crate::stream::rowwise::{arrow_error, evaluate_flat};
use crate::stream::window::{ints, ints_of};
use crate::stream::{NO_TIME, Operator, Output, Rows, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// How long a key is remembered after its last row, where WITHIN is not longer.
const REMEMBERED_MS: i64 = 24 * 3_600_000;
/// Keys that may be forgotten are looked for once in this much event time.
const SWEEP_MS: i64 = 3_600_000;
/// Rows are dropped from the past when there are twice as many as were needed the last time, and so many more.
const SPARE_ROWS: usize = 16_384;

/// The operator.
pub struct MatchRecognize {
    spec: PatternSpec,
    rules: Rules,
    /// What is kept of a row beside the arguments: an argument, and how it is kept.
    counted: Vec<(usize, Kind)>,
    buffer: Buffer,
    table: KeyTable,
    keys: Vec<Key>,
    past: Past,
    outbox: Outbox,
    scratch: Scratch,
    /// When the attempts of keys end by themselves, and how far keys hold time back.
    wakes: BTreeSet<(i64, u32)>,
    holds: BTreeSet<(i64, u32)>,
    /// How many rows have left the buffer.
    released: u64,
    limit: usize,
    /// Everything older than this has left.
    mark: i64,
    swept: i64,
}

fn flat(of: &DataType) -> DataType {
    if let DataType::Dictionary(_, values) = of { values.as_ref().clone() } else { of.clone() }
}

impl MatchRecognize {
    /// Checks that the pattern can be followed and that all its parts fit together.
    pub fn new(spec: PatternSpec) -> Result<Self, StreamError> {
        let refuse = |why: &str| Err(StreamError::Limit(format!("MATCH_RECOGNIZE: {why}")));
        if spec.variables.is_empty() || spec.variables.len() > MAX_VARIABLES {
            return refuse(&format!("a pattern has from 1 to {MAX_VARIABLES} variables"));
        }
        if spec.columns.len() != spec.schema.fields().len() {
            return refuse("its columns are not those of its schema");
        }
        let program = Program::new(&spec.pattern)?;
        let types: Vec<DataType> = spec.arguments.iter().map(|(_, of)| flat(of)).collect();
        let mut past = Past::default();
        past.lanes = types.iter().map(|of| Lane::new(Kind::Any, of.clone())).collect();
        let mut counted = Vec::new();
        let mut lanes = Lanes { past: &mut past, types: &types, known: &mut counted };
        let (mut memory, mut own) = (Memory::default(), Memory::default());
        let (mut local, mut history) = (Vec::new(), Vec::new());
        for (number, variable) in spec.variables.iter().enumerate() {
            if variable.local.iter().flat_map(|of| &of.reads).any(|read| !read.is_local(number)) {
                return refuse("a condition of a row alone speaks of others");
            }
            // What rows alone decide is never remembered.
            local.push(variable.local.as_ref().map(|of| Asked::new(of, &mut Memory::default(), &mut lanes)).transpose()?);
            history.push(variable.history.as_ref().map(|of| Asked::new(of, &mut memory, &mut lanes)).transpose()?);
        }
        let measures = spec.measures.iter().map(|measure| Asked::new(measure, &mut own, &mut lanes)).collect::<Result<Vec<_>, _>>()?;
        let first = past.lanes.len();
        past.lanes.extend([Lane::new(Kind::Int, DataType::Int32), Lane::new(Kind::Int, DataType::Int64)]);
        let conditions = spec.variables.iter().flat_map(|of| of.local.iter().chain(&of.history));
        let all = conditions.chain(&spec.measures);
        let back = all.flat_map(|of: &PatternCondition| &of.reads).map(PatternRead::back).max().unwrap_or(0);
        let fields: Vec<Field> =
            spec.arguments.iter().zip(&types).map(|((value, _), of)| Field::new(value.text(), of.clone(), true)).collect();
        let rules = Rules {
            names: spec.variables.iter().map(|variable| variable.name.clone()).collect(),
            local,
            history,
            memory,
            within_ms: spec.within_ms,
            lasts_ms: REMEMBERED_MS.max(spec.within_ms.unwrap_or(0)),
            back: back.into(),
            skip: spec.skip,
            all_rows: spec.all_rows,
            program,
        };
        let is_whole = spec.columns.iter().all(|column| match column {
            PatternColumn::Key(key) => *key < spec.keys.len(),
            PatternColumn::Argument(argument) => spec.all_rows && *argument < spec.arguments.len(),
            PatternColumn::Measure(measure) => *measure < spec.measures.len(),
        });
        if !is_whole {
            return refuse("one of its columns is not there");
        }
        Ok(Self {
            scratch: Scratch::new(&rules.program),
            outbox: Outbox::new(measures, own, [first, first + 1], Schema::new(fields)),
            spec,
            rules,
            counted,
            buffer: Buffer::default(),
            table: KeyTable::default(),
            keys: Vec::new(),
            past,
            wakes: BTreeSet::new(),
            holds: BTreeSet::new(),
            released: 0,
            limit: SPARE_ROWS,
            mark: i64::MIN,
            swept: i64::MIN,
        })
    }

    /// The keys, then the arguments.
    fn evaluated(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, StreamError> {
        let arguments = self.spec.arguments.iter().map(|(value, _)| value);
        self.spec.keys.iter().chain(arguments).map(|expr| evaluate_flat(expr.as_ref(), batch)).collect()
    }

    /// Takes in rows that have left the buffer, and goes on with their keys.
    fn work(&mut self, held: Held, out: &mut Output) -> Result<(), StreamError> {
        let Some(last) = held.times.last().copied() else { return Ok(()) };
        let Prepared { held, columns, .. } = prepared(held, &self.spec.input, &|batch| self.evaluated(batch), out)?;
        if held.len() == 0 {
            return self.go_on(Vec::new(), last.saturating_add(1), out);
        }
        let (keys, arguments) = columns.split_at(self.spec.keys.len());
        let encoded = self.table.encode(keys)?;
        let mut slots = Vec::with_capacity(held.len());
        let mut fresh = Vec::with_capacity(held.len());
        for (row, at) in held.times.iter().enumerate() {
            let (slot, is_new) = self.table.slot(encoded.key(row));
            if self.keys.len() <= slot as usize {
                self.keys.resize_with(slot as usize + 1, Key::default);
            }
            let before = std::mem::replace(&mut self.keys[slot as usize].last, *at);
            fresh.push(!is_new && before != NO_TIME && at.saturating_sub(before) > self.rules.lasts_ms);
            slots.push(slot);
        }
        let mut lanes = arguments.to_vec();
        lanes.extend(self.counted.iter().map(|(argument, _)| ArrayRef::clone(&arguments[*argument])));
        lanes.push(Arc::new(Int32Array::from(held.partitions.clone())));
        lanes.push(Arc::new(Int64Array::from(held.offsets.clone())));
        self.past.grow(self.table.slot_count());
        let first = self.past.push(&held.times, &slots, &lanes)?;
        let mut new = Vec::with_capacity(held.len());
        for (row, slot) in slots.iter().enumerate() {
            new.push(self.keys[*slot as usize].push(KeyRow {
                time: held.times[row],
                past: first + row as u32,
                number: self.released,
                bits: u64::MAX,
                is_fresh: fresh[row],
                is_told: false,
            }));
            self.released += 1;
        }
        self.judge(&slots, &new, arguments)?;
        slots.sort_unstable();
        slots.dedup();
        // Rows of one time leave together, so everything up to the last one's is here.
        self.go_on(slots, last.saturating_add(1), out)
    }

    /// Notes for each new row which variables it may be, as far as it and the rows before it decide that.
    fn judge(&mut self, slots: &[u32], new: &[NewRow], arguments: &[ArrayRef]) -> Result<(), StreamError> {
        for (variable, asked) in self.rules.local.iter().enumerate() {
            let Some(asked) = asked else { continue };
            let mut columns = Vec::with_capacity(asked.reads.len());
            for read in &asked.reads {
                let Where::Row { lane, back, .. } = *read else { continue };
                columns.push(if back == 0 {
                    ArrayRef::clone(&arguments[lane])
                } else {
                    let rows = slots.iter().zip(new).map(|(slot, row)| self.keys[*slot as usize].before(*row, back));
                    self.past.lanes[lane].gather(rows)?
                });
            }
            let answered = asked.answer_over(columns, slots.len())?;
            for (at, why) in &answered.failed {
                if let Some(row) = self.keys[slots[*at] as usize].row_mut(new[*at].number)
                    && !std::mem::replace(&mut row.is_told, true)
                {
                    self.outbox.fail(row.past, why.clone());
                }
            }
            for (at, _) in answered.truths()?.iter().enumerate().filter(|(_, yes)| !**yes) {
                if let Some(row) = self.keys[slots[at] as usize].row_mut(new[at].number) {
                    row.bits &= !(1 << variable);
                }
            }
        }
        Ok(())
    }

    /// Goes on with these keys and those whose attempt ends before `horizon`, and hands on what they find.
    fn go_on(&mut self, mut slots: Vec<u32>, horizon: i64, out: &mut Output) -> Result<(), StreamError> {
        let due = self.wakes.range(..(horizon, 0)).map(|(_, slot)| *slot);
        slots.extend(due);
        slots.sort_unstable();
        slots.dedup();
        let mut todo = slots.clone();
        while !todo.is_empty() {
            let mut asking = Vec::new();
            for slot in todo {
                let mut ground =
                    Ground { rules: &self.rules, past: &self.past, outbox: &mut self.outbox, scratch: &mut self.scratch, horizon };
                if self.keys[slot as usize].advance(slot, &mut ground) {
                    asking.push(slot);
                }
            }
            self.answer(&asking)?;
            todo = asking;
        }
        for slot in &slots {
            self.note(*slot);
        }
        if !self.outbox.is_empty() {
            let making = Making {
                past: &self.past,
                table: &self.table,
                names: &self.rules.names,
                columns: &self.spec.columns,
                schema: &self.spec.schema,
            };
            self.outbox.flush(&making, out)?;
        }
        if self.past.len() >= self.limit {
            self.compact(Worth::AQuarter)?;
        }
        Ok(())
    }

    /// Answers the questions of these keys, all of one condition at once.
    fn answer(&mut self, asking: &[u32]) -> Result<(), StreamError> {
        let mut questions: Vec<Vec<(u32, u32)>> = vec![Vec::new(); self.rules.history.len()];
        for slot in asking {
            let key = &mut self.keys[*slot as usize];
            for way in std::mem::take(&mut key.asking) {
                let variable = self.rules.program.variable(key.attempt.ways[way as usize].at);
                questions[variable as usize].push((*slot, way));
            }
        }
        for (variable, asked) in self.rules.history.iter().enumerate() {
            let Some(asked) = asked.as_ref().filter(|_| !questions[variable].is_empty()) else { continue };
            let mut cells = asked.cells();
            for (slot, way) in &questions[variable] {
                self.ask(&mut cells, &asked.reads, &self.keys[*slot as usize], *way, variable as u8);
            }
            let places: Vec<u32> = (0..questions[variable].len() as u32).collect();
            let answered = asked.answer(&cells, &places, &self.past, &self.rules.memory, &self.rules.names)?;
            for (at, why) in &answered.failed {
                let key = &mut self.keys[questions[variable][*at].0 as usize];
                let number = key.looking_at();
                if let Some(row) = key.row_mut(number)
                    && !std::mem::replace(&mut row.is_told, true)
                {
                    self.outbox.fail(row.past, why.clone());
                }
            }
            for ((slot, way), yes) in questions[variable].iter().zip(answered.truths()?) {
                if let Some(answers) = &mut self.keys[*slot as usize].answers {
                    answers[*way as usize] = yes;
                }
            }
        }
        Ok(())
    }

    /// Puts down the values that a condition reads if the row looked at were taken as this variable on this way.
    fn ask(&self, cells: &mut [Cells], reads: &[Where], key: &Key, way: u32, variable: u8) {
        let Some((row, looked)) = key.looked() else { return };
        let (memory, seen) = (&self.rules.memory, &key.attempt.ways[way as usize].seen);
        for (of, cells) in reads.iter().zip(cells) {
            match (*of, cells) {
                (Where::Row { track, skip, back, .. }, Cells::Rows(_, places)) => {
                    let row = memory.row_with(seen, track, skip, variable, row);
                    places.push(if row == super::matcher::NONE { NOTHING } else { key.around(row, back) });
                }
                (Where::Tally { at, .. }, Cells::Tallies(_, tallies)) => {
                    tallies.push(memory.tally_with(seen, at, variable, &self.past.lanes, looked.past));
                }
                (Where::Classifier { .. }, Cells::Names(names)) => names.push(variable),
                (Where::Number, Cells::Numbers(numbers)) => numbers.push(key.matches + 1),
                _ => unreachable!("cells are made for their read"),
            }
        }
    }

    /// Notes when the key's attempt ends and how far it holds time back, and lets go of rows.
    fn note(&mut self, slot: u32) {
        let key = &mut self.keys[slot as usize];
        key.trim(self.rules.back);
        let (wake, hold) = (key.wakes(&self.rules), key.holds(&self.rules));
        for (set, was, is) in [
            (&mut self.wakes, std::mem::replace(&mut key.wake, wake), wake),
            (&mut self.holds, std::mem::replace(&mut key.hold, hold), hold),
        ] {
            if was != is {
                if let Some(was) = was {
                    set.remove(&(was, slot));
                }
                if let Some(is) = is {
                    set.insert((is, slot));
                }
            }
        }
    }

    /// Drops the rows that no key needs.
    fn compact(&mut self, worth: Worth) -> Result<(), StreamError> {
        let mut needed: Vec<u32> = self.keys.iter().map(Key::oldest).collect();
        needed.resize(self.table.slot_count(), NOTHING);
        if let Some(places) = self.past.compact(&needed, worth)? {
            for row in self.keys.iter_mut().flat_map(Key::rows_mut) {
                row.past = places[row.past as usize];
            }
        }
        self.limit = 2 * self.past.len() + SPARE_ROWS;
        Ok(())
    }

    /// Forgets the keys that have been silent for longer than they are remembered.
    fn sweep(&mut self) {
        if self.swept != i64::MIN && self.mark < self.swept.saturating_add(SWEEP_MS) {
            return;
        }
        self.swept = self.mark;
        for slot in self.table.in_use() {
            let key = &mut self.keys[slot as usize];
            if !key.is_live() && self.mark.saturating_sub(key.last) > self.rules.lasts_ms {
                *key = Key::default();
                self.past.forget(slot);
                self.table.drop_slot(slot);
            }
        }
    }
}

impl Operator for MatchRecognize {
    fn name(&self) -> &'static str {
        "match"
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
        self.go_on(Vec::new(), self.mark, out)?;
        self.sweep();
        // A match that is still to come may end before the watermark.
        out.watermark = Some(self.holds.first().map_or(at, |(hold, _)| at.min(Timestamp(*hold))));
        Ok(())
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let arrived = self.buffer.latest(now.0.saturating_sub(1)).map(|at| Timestamp(at + 1));
        let ended = self.wakes.range(..(now.0, 0)).next_back().map(|(wake, _)| Timestamp(wake + 1));
        arrived.max(ended)
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        state.put("mark", ints(vec![("mark", vec![self.mark]), ("swept", vec![self.swept]), ("released", vec![self.released as i64])])?);
        if let Some(held) = self.buffer.save()? {
            state.put("held", held);
        }
        let slots = self.table.in_use();
        if slots.is_empty() {
            return Ok(());
        }
        self.compact(Worth::AnyRow)?;
        let of = |value: &dyn Fn(&Key) -> i64| slots.iter().map(|slot| value(&self.keys[*slot as usize])).collect::<Vec<i64>>();
        let numbers =
            ints(vec![("last", of(&|key| key.last)), ("matches", of(&|key| key.matches)), ("lead", of(&|key| key.lead() as i64))])?;
        state.put("numbers", numbers);
        let error = |e| arrow_error("the state of MATCH_RECOGNIZE", &e);
        let names = self.table.decode(slots.iter().filter_map(|slot| self.table.key(*slot).map(AsRef::as_ref)))?;
        if !names.is_empty() {
            let field = |(at, column): (usize, &ArrayRef)| Field::new(format!("k{at}"), column.data_type().clone(), true);
            let fields: Vec<Field> = names.iter().enumerate().map(field).collect();
            state.put("keys", RecordBatch::try_new(Arc::new(Schema::new(fields)), names).map_err(error)?);
        }
        state.put("rows", self.past.save(&slots)?);
        // What a key knows of its rows, in the order of the past.
        let mut known = vec![(0_i64, 0_i64, false, false); self.past.len()];
        for row in self.keys.iter().flat_map(Key::rows) {
            known[row.past as usize] = (row.number as i64, row.bits as i64, row.is_fresh, row.is_told);
        }
        let fields = vec![
            Field::new("number", DataType::Int64, false),
            Field::new("may be", DataType::Int64, false),
            Field::new("fresh", DataType::Boolean, false),
            Field::new("told", DataType::Boolean, false),
        ];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(known.iter().map(|row| Some(row.0)).collect::<Int64Array>()),
            Arc::new(known.iter().map(|row| Some(row.1)).collect::<Int64Array>()),
            Arc::new(known.iter().map(|row| Some(row.2)).collect::<BooleanArray>()),
            Arc::new(known.iter().map(|row| Some(row.3)).collect::<BooleanArray>()),
        ];
        state.put("known", RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(error)?);
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = |why: &str| StreamError::Restore { operator: "MATCH_RECOGNIZE".to_owned(), why: why.to_owned() };
        let mark = state.get("mark").next().ok_or_else(|| misfit("the mark is missing"))?;
        let number = |place| ints_of(mark, place).and_then(|m| m.first().copied()).ok_or_else(|| misfit("the mark is empty"));
        (self.mark, self.swept, self.released) = (number(0)?, number(1)?, number(2)? as u64);
        for held in state.get("held") {
            if !self.buffer.restore(held, self.spec.input.fields().len()) {
                return Err(misfit("the waiting rows have other columns"));
            }
        }
        let Some(numbers) = state.get("numbers").next() else { return Ok(()) };
        let numbers = [0, 1, 2].map(|place| ints_of(numbers, place));
        let [Some(last), Some(matches), Some(lead)] = numbers else { return Err(misfit("the keys are not whole")) };
        let keys = state.get("keys").next();
        if keys.map_or(0, RecordBatch::num_columns) != self.spec.keys.len() {
            return Err(misfit("the keys have another number of columns"));
        }
        let encoded = self.table.encode(keys.map_or(&[], RecordBatch::columns))?;
        for row in 0..last.len() {
            if !self.table.slot(encoded.key(row)).1 {
                return Err(misfit("a key is there twice"));
            }
        }
        self.keys.resize_with(last.len(), Key::default);
        self.past.grow(last.len());
        let rows = state.get("rows").next().ok_or_else(|| misfit("the rows are missing"))?;
        self.past.restore(rows, last.len()).ok_or_else(|| misfit("the rows have other columns"))?;
        self.limit = 2 * self.past.len() + SPARE_ROWS;
        let whole = || misfit("what is known of the rows is not whole");
        let known = state.get("known").next().filter(|known| known.num_rows() == self.past.len() && known.num_columns() == 4);
        let known = known.ok_or_else(whole)?;
        let (number, bits) = (ints_of(known, 0).ok_or_else(whole)?, ints_of(known, 1).ok_or_else(whole)?);
        let flags = [2, 3].map(|place| known.column(place).as_boolean_opt());
        let [Some(fresh), Some(told)] = flags else { return Err(whole()) };
        for row in 0..self.past.len() as u32 {
            let at = row as usize;
            self.keys[self.past.slot(row) as usize].push(KeyRow {
                time: self.past.time(row),
                past: row,
                number: number[at] as u64,
                bits: bits[at] as u64,
                is_fresh: fresh.value(at),
                is_told: told.value(at),
            });
        }
        for (slot, key) in self.keys.iter_mut().enumerate() {
            let before = u64::try_from(lead[slot]).ok().filter(|lead| *lead <= key.rows().count() as u64).ok_or_else(whole)?;
            (key.last, key.matches) = (last[slot], matches[slot]);
            key.resume(before);
        }
        // Nothing is decided by this that was not decided before.
        let mut again = Output::default();
        self.go_on((0..last.len() as u32).collect(), self.mark, &mut again)?;
        if !again.rows.is_empty() || !again.failed.is_empty() {
            return Err(misfit("the rows decide something that they had not decided"));
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let sets = (self.wakes.len() + self.holds.len()) * 24;
        self.buffer.bytes() + self.table.bytes() + self.past.bytes() + sets + self.keys.iter().map(Key::bytes).sum::<usize>()
    }
}
