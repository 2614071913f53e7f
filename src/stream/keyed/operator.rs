//! Stateful functions by key, in event time: the reorder buffer and the functions behind it.
//!
//! Rows wait until the watermark has passed them and are then worked through in order of (time, partition,
//! offset), each function with its own memory of the row's key. A row older than its own partition's
//! watermark just before it is late and goes aside. Always: what comes out is a function of each
//! partition's rows, in their order; as the watermark before a row that leaves its own time is given, for
//! none older will follow.
//!
//! A key's memory lasts for a day: a reading that comes more than 24 hours (of event time) after the key's
//! last one finds nothing. So a key that has long been idle can be dropped without changing any result.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::buffer::{Buffer, Held, on_time};
use super::machine::{HeldFor, Hysteresis, Machine, Numbers, RateOfChange, Run, TwaBelow, as_numbers};
use super::memory::{Memory, Recall};
use super::table::KeyTable;
use crate::stream::rowwise::{arrow_error, evaluate_flat, row_by_row};
use crate::stream::window::{as_type, ints, ints_of};
use crate::stream::{Expr, NO_TIME, Operator, Output, Rows, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// How long a key is remembered after its last reading, in event time.
const REMEMBERED_MS: i64 = 24 * 3_600_000;
/// Idle keys are looked for once in this much event time.
const SWEEP_MS: i64 = 3_600_000;

/// A function over a key's readings in event-time order. Each adds one column.
#[derive(Clone, Debug)]
pub enum KeyedFunction {
    /// `LAG(value, n, default)`: the value `n` readings of the key ago, NULLs counted; without so many, the
    /// default as this row has it, else NULL.
    Lag {
        /// What is looked back at.
        value: Arc<dyn Expr>,
        /// How many readings.
        n: usize,
        /// In place of a reading that is not there; of the type of `value`.
        default: Option<Arc<dyn Expr>>,
    },
    /// `held_for(condition, interval, max_gap)`: true at a reading when the condition has been true at every
    /// reading of the key from some reading at least `interval` ago. A reading whose condition is NULL
    /// answers NULL and neither breaks nor extends; two readings with a condition more than `max_gap` apart
    /// start it anew. So silence never meets it.
    HeldFor {
        /// The condition, boolean.
        condition: Arc<dyn Expr>,
        /// How long it must have been true.
        interval_ms: i64,
        /// The longest silence that does not break it; 30 s where a query does not say.
        max_gap_ms: i64,
    },
    /// `hysteresis(value, enter, exit)`: for `enter >= exit` it goes on at `value >= enter` and off at
    /// `value <= exit`; for `enter < exit` it goes on at `value <= enter` and off at `value >= exit`. Off before
    /// the first reading; a NULL value leaves it as it is.
    Hysteresis {
        /// The value.
        value: Arc<dyn Expr>,
        /// Where it goes on.
        enter: f64,
        /// Where it goes off.
        exit: f64,
    },
    /// `locf(value, ttl)`: the value, or where it is NULL the key's last one that was not, if that is at most
    /// `ttl` old.
    Locf {
        /// The value.
        value: Arc<dyn Expr>,
        /// How long a value may be carried forward.
        ttl_ms: i64,
    },
    /// `twa_below(value, limit, max_gap)`: the time-weighted average depth below the limit over the time the
    /// key has been monitored so far. A reading holds until the next one (a step); its depth
    /// `max(limit - value, 0)` times that time is added to the area, and the time to the time monitored; a
    /// stretch longer than `max_gap` counts for neither. The answer is area over time, in the unit of the
    /// value; NULL until some time has been monitored.
    TwaBelow {
        /// The value.
        value: Arc<dyn Expr>,
        /// The limit.
        limit: f64,
        /// The longest stretch that counts.
        max_gap_ms: i64,
    },
    /// `rate_of_change(value, interval)`: the change a minute since the key's last value at or before
    /// `ts - interval`: the difference divided by the time that really lies between, times a minute. NULL where
    /// the value is NULL or there is none so old.
    RateOfChange {
        /// The value.
        value: Arc<dyn Expr>,
        /// How far to look back.
        interval_ms: i64,
    },
}

impl KeyedFunction {
    fn arguments(&self) -> Vec<&Arc<dyn Expr>> {
        match self {
            Self::Lag { value, default: Some(default), .. } => vec![value, default],
            Self::Lag { value, .. } | Self::Hysteresis { value, .. } | Self::Locf { value, .. } => vec![value],
            Self::HeldFor { condition, .. } => vec![condition],
            Self::TwaBelow { value, .. } | Self::RateOfChange { value, .. } => vec![value],
        }
    }

    const fn is_over_numbers(&self) -> bool {
        !matches!(self, Self::Lag { .. } | Self::Locf { .. })
    }

    fn machine(&self) -> Box<dyn Machine> {
        match *self {
            Self::Lag { n, .. } => Box::new(Memory::new(Recall::Lag(n))),
            Self::Locf { ttl_ms, .. } => Box::new(Memory::new(Recall::Locf(ttl_ms))),
            Self::HeldFor { interval_ms, max_gap_ms, .. } => Box::new(Numbers::new(HeldFor { interval_ms, max_gap_ms })),
            Self::Hysteresis { enter, exit, .. } => Box::new(Numbers::new(Hysteresis { enter, exit })),
            Self::TwaBelow { limit, max_gap_ms, .. } => Box::new(Numbers::new(TwaBelow { limit, max_gap_ms })),
            Self::RateOfChange { interval_ms, .. } => Box::new(Numbers::new(RateOfChange { interval_ms })),
        }
    }
}

/// All that a keyed operator is made of.
#[derive(Clone, Debug)]
pub struct KeyedSpec {
    /// PARTITION BY. Without any, all rows are one key's.
    pub keys: Vec<Arc<dyn Expr>>,
    /// The functions.
    pub functions: Vec<KeyedFunction>,
    /// The input's columns, then one for each function.
    pub schema: SchemaRef,
}

/// The operator.
pub struct Keyed {
    spec: KeyedSpec,
    buffer: Buffer,
    table: KeyTable,
    /// The time of each slot's last reading.
    last: Vec<i64>,
    machines: Vec<Box<dyn Machine>>,
    /// Everything older than this has left.
    mark: i64,
    swept: i64,
}

impl Keyed {
    /// Checks that the schema has room for the functions.
    pub fn new(spec: KeyedSpec) -> Result<Self, StreamError> {
        if spec.schema.fields().len() < spec.functions.len() {
            return Err(StreamError::Limit("functions over keys have no columns in their schema".to_owned()));
        }
        let machines = spec.functions.iter().map(KeyedFunction::machine).collect();
        Ok(Self {
            spec,
            buffer: Buffer::default(),
            table: KeyTable::default(),
            last: Vec::new(),
            machines,
            mark: i64::MIN,
            swept: i64::MIN,
        })
    }

    fn input_width(&self) -> usize {
        self.spec.schema.fields().len() - self.spec.functions.len()
    }

    /// The columns that wait in the buffer: the input's, the keys, the functions' arguments.
    fn held_width(&self) -> usize {
        self.input_width() + self.spec.keys.len() + self.spec.functions.iter().map(|f| f.arguments().len()).sum::<usize>()
    }

    fn held_columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, StreamError> {
        let mut columns = batch.columns().to_vec();
        for key in &self.spec.keys {
            columns.push(evaluate_flat(key.as_ref(), batch)?);
        }
        for function in &self.spec.functions {
            for argument in function.arguments() {
                let column = evaluate_flat(argument.as_ref(), batch)?;
                columns.push(if function.is_over_numbers() { as_numbers(&column)? } else { column });
            }
        }
        Ok(columns)
    }

    /// Works through rows that have left the buffer.
    fn work(&mut self, held: &Held, out: &mut Output) -> Result<(), StreamError> {
        let (inputs, keys) = (self.input_width(), self.spec.keys.len());
        let encoded = self.table.encode(&held.columns[inputs..inputs + keys])?;
        let (mut slots, mut fresh) = (Vec::with_capacity(held.len()), Vec::with_capacity(held.len()));
        for (row, at) in held.times.iter().enumerate() {
            let (slot, new) = self.table.slot(encoded.key(row));
            if self.last.len() <= slot as usize {
                self.last.resize(slot as usize + 1, NO_TIME);
            }
            let last = std::mem::replace(&mut self.last[slot as usize], *at);
            slots.push(slot);
            fresh.push(new || at.saturating_sub(last) > REMEMBERED_MS);
        }
        let run = Run { slots: &slots, fresh: &fresh, times: &held.times };
        let mut columns = held.columns[..inputs].to_vec();
        let mut at = inputs + keys;
        for (place, machine) in self.machines.iter_mut().enumerate() {
            machine.grow(self.table.slot_count());
            let arguments = self.spec.functions[place].arguments().len();
            let answers = machine.run(&run, &held.columns[at..at + arguments])?;
            columns.push(as_type(answers, self.spec.schema.field(inputs + place))?);
            at += arguments;
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.spec.schema), columns).map_err(|e| arrow_error("the functions over keys", &e))?;
        held.hand_on(batch, out);
        Ok(())
    }

    /// Drops the keys whose memory has run out: no row to come could still find it.
    fn sweep(&mut self) {
        let due = self.swept.saturating_add(SWEEP_MS);
        if self.mark < due && self.swept != i64::MIN {
            return;
        }
        self.swept = self.mark;
        for slot in self.table.in_use() {
            if self.mark.saturating_sub(self.last[slot as usize]) > REMEMBERED_MS {
                self.table.drop_slot(slot);
                for machine in &mut self.machines {
                    machine.forget(slot);
                }
            }
        }
    }
}

impl Operator for Keyed {
    fn name(&self) -> &'static str {
        "over"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        let rows = &on_time(rows, self.mark, out)?;
        let evaluated = row_by_row(rows, &mut |batch| self.held_columns(batch), &mut out.failed)?;
        for (rows, columns) in evaluated {
            self.buffer.push(&rows, columns)?;
        }
        Ok(())
    }

    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        for held in self.buffer.release(at.0)? {
            self.work(&held, out)?;
        }
        self.mark = self.mark.max(at.0);
        self.sweep();
        // Everything older than the watermark has left, so it holds behind this operator too.
        out.watermark = Some(at);
        Ok(())
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        self.buffer.latest(now.0.saturating_sub(1)).map(|at| Timestamp(at + 1))
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        state.put("mark", ints(vec![("mark", vec![self.mark]), ("swept", vec![self.swept])])?);
        if let Some(held) = self.buffer.save()? {
            state.put("held", held);
        }
        let slots = self.table.in_use();
        if slots.is_empty() {
            return Ok(());
        }
        let mut fields = vec![Field::new("last", DataType::Int64, false)];
        let last: Vec<i64> = slots.iter().map(|slot| self.last[*slot as usize]).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(arrow::array::Int64Array::from(last))];
        for (place, column) in
            self.table.decode(slots.iter().filter_map(|slot| self.table.key(*slot).map(AsRef::as_ref)))?.into_iter().enumerate()
        {
            fields.push(Field::new(format!("k{place}"), column.data_type().clone(), true));
            columns.push(column);
        }
        let keys = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
        state.put("keys", keys.map_err(|e| arrow_error("the keys' state", &e))?);
        for (place, machine) in self.machines.iter().enumerate() {
            state.put(&format!("function{place}"), machine.save(&slots)?);
        }
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = |why: &str| StreamError::Restore { operator: "the functions over keys".to_owned(), why: why.to_owned() };
        let mark = state.get("mark").next().ok_or_else(|| misfit("the mark is missing"))?;
        let number = |place| ints_of(mark, place).and_then(|m| m.first().copied()).ok_or_else(|| misfit("the mark is empty"));
        (self.mark, self.swept) = (number(0)?, number(1)?);
        for held in state.get("held") {
            if !self.buffer.restore(held, self.held_width()) {
                return Err(misfit("the waiting rows have other columns"));
            }
        }
        let Some(keys) = state.get("keys").next() else { return Ok(()) };
        if keys.num_columns() != self.spec.keys.len() + 1 {
            return Err(misfit("the keys have another number of columns"));
        }
        self.last = ints_of(keys, 0).ok_or_else(|| misfit("the keys have no times"))?.to_vec();
        let encoded = self.table.encode(&keys.columns()[1..])?;
        for row in 0..keys.num_rows() {
            if !self.table.slot(encoded.key(row)).1 {
                return Err(misfit("a key is there twice"));
            }
        }
        for (place, machine) in self.machines.iter_mut().enumerate() {
            machine.grow(self.table.slot_count());
            let name = format!("function{place}");
            let memory = state.get(&name).next().ok_or_else(|| misfit("a function's memory is missing"))?;
            machine.restore(memory).ok_or_else(|| misfit("a function's memory does not fit"))?;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.buffer.bytes() + self.table.bytes() + self.last.len() * 8 + self.machines.iter().map(|m| m.bytes()).sum::<usize>()
    }
}
