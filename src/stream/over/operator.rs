//! The operator of frames: the reorder buffer, the keys, their frames and the functions over them.
//!
//! Rows wait until the watermark has passed them and are then worked through in order of (time, partition,
//! offset). A row older than its own partition's watermark just before it is late and goes aside. Always: what
//! comes out is a function of each partition's rows, in their order; equal arguments are evaluated and kept once, and
//! equal frames are followed once, however many functions look at them.
//!
//! State is bounded by the frames: rows that no frame reaches any more are dropped, and so is a key once the watermark
//! has moved so far that its next row would find its frames empty. A frame with UNBOUNDED PRECEDING keeps its
//! functions' few numbers for as long as the key may come again: for ever, or to the end of the window that is in the key.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{not, nullif, prep_null_mask_filter};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::frame::{Frames, OverFrame, Walk};
use super::function::{AnyExtreme, Function, Numbered, Pick, Place};
use super::past::{Kind, Lane, Past, Worth};
use super::prepare::{Prepared, failed_at, prepared};
use super::slide::{Best, Count, Extreme, FloatSum, IntSum, Slide, Sliding, Type, Variance, WideSum};
use crate::stream::keyed::{Buffer, Held, KeyTable};
use crate::stream::rowwise::{arrow_error, evaluate, evaluate_flat};
use crate::stream::source::millis;
use crate::stream::window::{as_type, ints, ints_of};
use crate::stream::{Expr, NO_TIME, Operator, Output, Rows, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// Rows are dropped from the past when there are twice as many as were needed the last time, and so many more.
const SPARE_ROWS: usize = 16_384;
/// Keys that may be forgotten are looked for at least this far apart in event time.
const SWEEP_MS: std::ops::RangeInclusive<i64> = 60_000..=3_600_000;

/// What is computed over a frame. Each adds one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverFunction {
    /// `count(value)`, and `count(*)` without an argument.
    Count,
    /// `sum(value)`: exact, so that a frame's sum does not depend on what has left it. One of whole numbers or decimals that
    /// does not fit its type fails its row.
    Sum,
    /// `avg(value)`.
    Avg,
    /// `min(value)`.
    Min,
    /// `max(value)`.
    Max,
    /// `var_samp`, `var_pop`, `stddev_samp`, `stddev_pop`.
    Variance {
        /// Whether one is taken off the count.
        sample: bool,
        /// Whether the root is taken.
        root: bool,
    },
    /// `first_value(value)`, NULLs counted.
    First,
    /// `last_value(value)`, NULLs counted.
    Last,
    /// `row_number()`, whatever the frame.
    RowNumber,
    /// `rank()`, whatever the frame.
    Rank,
    /// `dense_rank()`, whatever the frame.
    DenseRank,
}

/// What a function is over.
#[derive(Clone, Debug)]
pub struct OverArgument {
    /// The value.
    pub value: Arc<dyn Expr>,
    /// Its type.
    pub of: DataType,
}

/// One call of a function.
#[derive(Clone, Debug)]
pub struct OverCall {
    /// The function.
    pub function: OverFunction,
    /// Over which rows.
    pub frame: OverFrame,
    /// Its argument; none for `count(*)` and the numbers of rows.
    pub argument: Option<OverArgument>,
    /// Which rows count: those for which it is true.
    pub filter: Option<Arc<dyn Expr>>,
    /// As the user knows it.
    pub text: String,
}

/// Until when a key's rows may come, where the key says so: it holds an event time or an end of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverExpiry {
    /// Which key, a time.
    pub key: usize,
    /// No row of the key is younger than that time and this many milliseconds.
    pub plus_ms: i64,
}

/// All that the operator is made of.
#[derive(Clone, Debug)]
pub struct OverSpec {
    /// PARTITION BY. Without any, all rows are one key's.
    pub keys: Vec<Arc<dyn Expr>>,
    /// The functions.
    pub calls: Vec<OverCall>,
    /// Whether keys come to an end.
    pub expiry: Option<OverExpiry>,
    /// Frames without a beginning, and numbers of rows, begin anew with a row that comes more than this after the key's last
    /// one: so a key that is silent for longer need not be remembered. Without it they go back to the key's first row.
    pub ttl_ms: Option<i64>,
    /// The input's columns, then one for each function.
    pub schema: SchemaRef,
}

/// A lane's values: the argument and the filter, and how they are kept.
#[derive(Debug)]
pub(super) struct Source {
    kind: Kind,
    value: Option<Arc<dyn Expr>>,
    filter: Option<Arc<dyn Expr>>,
}

impl Source {
    fn is(&self, other: &Self) -> bool {
        let same = |a: &Option<Arc<dyn Expr>>, b: &Option<Arc<dyn Expr>>| match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        self.kind == other.kind && same(&self.value, &other.value) && same(&self.filter, &other.filter)
    }

    pub(super) fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, StreamError> {
        let value: ArrayRef = match &self.value {
            Some(value) => evaluate_flat(value.as_ref(), batch)?,
            None => Arc::new(BooleanArray::from(vec![true; batch.num_rows()])),
        };
        let Some(filter) = &self.filter else { return Ok(value) };
        let counts = evaluate(filter.as_ref(), batch)?;
        let counts = counts
            .as_any()
            .downcast_ref::<BooleanArray>()
            .ok_or_else(|| StreamError::Limit(format!("{} is no condition", filter.text())))?;
        let counts = if counts.null_count() > 0 { &prep_null_mask_filter(counts) } else { counts };
        let error = |e| arrow_error(&filter.text(), &e);
        nullif(&value, &not(counts).map_err(error)?).map_err(error)
    }
}

/// A function with the number of its frame.
pub(super) struct Followed {
    pub frame: usize,
    pub function: Box<dyn Function>,
}

/// What the calls of one operator are made of: equal arguments are kept once, and equal frames followed once.
#[derive(Default)]
pub(super) struct Parts {
    pub sources: Vec<Source>,
    pub past: Past,
    pub frames: Vec<Frames>,
    pub functions: Vec<Followed>,
}

impl Parts {
    /// The parts of calls whose columns come behind the first `width` of the schema.
    pub(super) fn of(calls: &[OverCall], schema: &SchemaRef, width: usize) -> Result<Self, StreamError> {
        let mut parts = Self::default();
        for (at, call) in calls.iter().enumerate() {
            let frame = call.frame();
            check(call, frame)?;
            let number = parts.frames.iter().position(|known| known.of == frame).unwrap_or_else(|| {
                parts.frames.push(Frames::new(frame));
                parts.frames.len() - 1
            });
            let lane = match call.kind()? {
                None => None,
                Some(kind) => {
                    let value = call.argument.as_ref().map(|argument| Arc::clone(&argument.value));
                    let source = Source { kind, value, filter: call.filter.clone() };
                    Some(parts.sources.iter().position(|known| known.is(&source)).unwrap_or_else(|| {
                        let of = call.argument.as_ref().map_or(DataType::Boolean, |argument| argument.of.clone());
                        parts.past.lanes.push(Lane::new(kind, of));
                        parts.sources.push(source);
                        parts.sources.len() - 1
                    }))
                }
            };
            let function = call.made(lane, frame.is_bounded(), schema.field(width + at).data_type())?;
            parts.functions.push(Followed { frame: number, function });
        }
        Ok(parts)
    }
}

/// The operator.
pub struct Over {
    spec: OverSpec,
    input: SchemaRef,
    sources: Vec<Source>,
    buffer: Buffer,
    table: KeyTable,
    /// The time of each slot's last row, and of the last that may come.
    last: Vec<i64>,
    ends: Vec<i64>,
    past: Past,
    frames: Vec<Frames>,
    functions: Vec<Followed>,
    /// At this many rows the past is made smaller.
    limit: usize,
    /// After this much event time without a row a key is forgotten.
    lasts_ms: Option<i64>,
    /// Everything older than this has left.
    mark: i64,
    swept: i64,
}

impl Over {
    /// Checks that the functions can be computed over their frames.
    pub fn new(spec: OverSpec) -> Result<Self, StreamError> {
        let Some(width) = spec.schema.fields().len().checked_sub(spec.calls.len()) else {
            return Err(StreamError::Limit("functions over frames have no columns in their schema".to_owned()));
        };
        let input = Arc::new(Schema::new(spec.schema.fields()[..width].to_vec()));
        if let Some(ahead) = spec.calls.iter().find(|call| call.frame().reaches_ahead()) {
            return Err(StreamError::Limit(format!("{}: the frame ends behind its row", ahead.text)));
        }
        let Parts { sources, past, mut frames, functions } = Parts::of(&spec.calls, &spec.schema, width)?;
        frames.iter_mut().for_each(|frames| frames.ttl_ms = spec.ttl_ms);
        let lasts = frames.iter().map(Frames::lasts_ms).collect::<Option<Vec<i64>>>();
        Ok(Self {
            lasts_ms: lasts.map(|lasts| lasts.into_iter().max().unwrap_or(0)),
            spec,
            input,
            sources,
            buffer: Buffer::default(),
            table: KeyTable::default(),
            last: Vec::new(),
            ends: Vec::new(),
            past,
            frames,
            functions,
            limit: SPARE_ROWS,
            mark: i64::MIN,
            swept: i64::MIN,
        })
    }

    /// The keys, then the arguments.
    fn evaluated(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, StreamError> {
        let keys = self.spec.keys.iter().map(|key| evaluate_flat(key.as_ref(), batch));
        keys.chain(self.sources.iter().map(|source| source.evaluate(batch))).collect()
    }

    /// Works through rows that have left the buffer.
    fn work(&mut self, held: Held, out: &mut Output) -> Result<(), StreamError> {
        let Prepared { held, batch, columns } = prepared(held, &self.input, &|batch| self.evaluated(batch), out)?;
        if held.len() == 0 {
            return Ok(());
        }
        let (keys, arguments) = columns.split_at(self.spec.keys.len());
        let (slots, gaps) = self.numbered(&held, keys)?;
        self.past.grow(self.table.slot_count());
        let first = self.past.push(&held.times, &slots, arguments)?;
        let mut walks = Vec::with_capacity(self.frames.len());
        for frames in &mut self.frames {
            frames.grow(self.table.slot_count());
            walks.push(frames.walk(&self.past, first, &slots, &gaps));
        }
        let mut columns = batch.columns().to_vec();
        let mut failed: Vec<(u32, usize)> = Vec::new();
        for (at, Followed { frame, function }) in self.functions.iter_mut().enumerate() {
            function.grow(self.table.slot_count());
            let answers = function.run(&walks[*frame], &self.past)?;
            failed.extend(answers.failed.into_iter().map(|row| (row, at)));
            columns.push(as_type(answers.column, self.spec.schema.field(self.input.fields().len() + at))?);
        }
        if self.past.len() >= self.limit {
            self.compact(Worth::AQuarter)?;
        }
        if failed.is_empty() {
            let batch =
                RecordBatch::try_new(Arc::clone(&self.spec.schema), columns).map_err(|e| arrow_error("the functions over frames", &e))?;
            held.hand_on(batch, out);
            return Ok(());
        }
        failed.sort_unstable();
        failed.dedup_by_key(|(row, _)| *row);
        for (row, call) in &failed {
            let reason = format!("could not evaluate {}: overflow", self.spec.calls[*call].text);
            out.failed.push(failed_at(&held, &batch, *row as usize, reason));
        }
        let good: Vec<u32> = (0..held.len() as u32).filter(|row| failed.binary_search_by_key(row, |(row, _)| *row).is_err()).collect();
        let held = Held { columns, ..held }.picked(&good)?;
        let batch = RecordBatch::try_new(Arc::clone(&self.spec.schema), held.columns.clone())
            .map_err(|e| arrow_error("the functions over frames", &e))?;
        held.hand_on(batch, out);
        Ok(())
    }

    /// Each row's slot, and how long before it the key's last row was.
    fn numbered(&mut self, held: &Held, keys: &[ArrayRef]) -> Result<(Vec<u32>, Vec<i64>), StreamError> {
        let encoded = self.table.encode(keys)?;
        let until = self.spec.expiry.map(|expiry| millis(&keys[expiry.key]).map(|times| (times, expiry.plus_ms))).transpose()?;
        let (mut slots, mut gaps) = (Vec::with_capacity(held.len()), Vec::with_capacity(held.len()));
        for (row, at) in held.times.iter().enumerate() {
            let (slot, new) = self.table.slot(encoded.key(row));
            if self.last.len() <= slot as usize {
                self.last.resize(slot as usize + 1, NO_TIME);
                self.ends.resize(slot as usize + 1, i64::MAX);
            }
            let last = std::mem::replace(&mut self.last[slot as usize], *at);
            if new {
                let end =
                    until.as_ref().filter(|(times, _)| times.is_valid(row)).map(|(times, plus)| times.value(row).saturating_add(*plus));
                self.ends[slot as usize] = end.unwrap_or(i64::MAX);
            }
            slots.push(slot);
            gaps.push(if new { 0 } else { at.saturating_sub(last) });
        }
        Ok((slots, gaps))
    }

    /// Drops the rows that no frame needs.
    fn compact(&mut self, worth: Worth) -> Result<(), StreamError> {
        let mut needed = vec![super::past::NOTHING; self.table.slot_count()];
        for frames in &mut self.frames {
            frames.loosen(&self.past);
            for (slot, first) in needed.iter_mut().enumerate() {
                *first = (*first).min(frames.needs(slot as u32, &self.past));
            }
        }
        if let Some(places) = self.past.compact(&needed, worth)? {
            self.frames.iter_mut().for_each(|frames| frames.renumber(&places));
        }
        self.limit = 2 * self.past.len() + SPARE_ROWS;
        Ok(())
    }

    /// Forgets the keys whose next row would find nothing, and the frames that it would find empty.
    fn sweep(&mut self) -> Result<(), StreamError> {
        let shortest = self.frames.iter().filter_map(Frames::lasts_ms).min();
        if shortest.is_none() && self.spec.expiry.is_none() {
            return Ok(());
        }
        let period = shortest.unwrap_or(0).clamp(*SWEEP_MS.start(), *SWEEP_MS.end());
        if self.swept != i64::MIN && self.mark < self.swept.saturating_add(period) {
            return Ok(());
        }
        self.swept = self.mark;
        for slot in self.table.in_use() {
            let silent = self.mark.saturating_sub(self.last[slot as usize]);
            let over = self.ends[slot as usize] < self.mark || self.lasts_ms.is_some_and(|lasts| silent > lasts);
            for (number, frames) in self.frames.iter_mut().enumerate() {
                if over || frames.lasts_ms().is_some_and(|lasts| silent > lasts) {
                    frames.forget(slot);
                    self.functions.iter_mut().filter(|of| of.frame == number).for_each(|of| of.function.forget(slot));
                }
            }
            if over {
                self.past.forget(slot);
                self.table.drop_slot(slot);
            }
        }
        self.compact(Worth::AQuarter)
    }

    fn save_function(&self, of: &Followed, slots: &[u32]) -> Result<RecordBatch, StreamError> {
        let (mut keys, mut words) = (Vec::new(), Vec::new());
        for (number, slot) in slots.iter().enumerate() {
            of.function.save(*slot, &mut words)?;
            keys.resize(words.len(), number as u32);
        }
        let fields = vec![Field::new("key", DataType::UInt32, false), Field::new("word", DataType::Int64, false)];
        let columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(keys)), Arc::new(Int64Array::from(words))];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| arrow_error("a function's state", &e))
    }
}

fn restore_function(function: &mut dyn Function, batch: &RecordBatch, slots: usize) -> Option<()> {
    let keys = batch.columns().first()?.as_any().downcast_ref::<UInt32Array>()?.values();
    let words = ints_of(batch, 1)?;
    let mut from = 0;
    for slot in 0..slots as u32 {
        let to = from + keys[from..].iter().take_while(|key| **key == slot).count();
        function.restore(slot, &words[from..to])?;
        from = to;
    }
    (from == words.len()).then_some(())
}

/// What the walk and the functions rely on.
fn check(call: &OverCall, frame: OverFrame) -> Result<(), StreamError> {
    let refuse = |why: &str| Err(StreamError::Limit(format!("{}: {why}", call.text)));
    match frame {
        OverFrame::Range { from_ms: Some(from), to_ms } if from < to_ms => refuse("the frame ends before it begins"),
        OverFrame::Rows { from: Some(from), to } if from < to => refuse("the frame ends before it begins"),
        OverFrame::Range { from_ms: None, to_ms: 1.. } | OverFrame::Rows { from: None, to: 1.. }
            if matches!(call.function, OverFunction::First | OverFunction::Last) =>
        {
            refuse("a frame from UNBOUNDED PRECEDING to some PRECEDING has no first and last value here")
        }
        _ => Ok(()),
    }
}

impl OverCall {
    /// The frame it looks at: the number of a row has none of its own.
    pub fn frame(&self) -> OverFrame {
        match self.function {
            OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank => OverFrame::Rows { from: None, to: 0 },
            _ => self.frame,
        }
    }

    /// How its argument is kept; `None` where rows alone count.
    fn kind(&self) -> Result<Option<Kind>, StreamError> {
        let of = self.argument.as_ref().map(|argument| &argument.of);
        let refuse = || StreamError::Limit(format!("{} is not supported over a frame", self.text));
        Ok(Some(match (self.function, of) {
            (OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank, _) => return Ok(None),
            (OverFunction::Count, None) if self.filter.is_none() => return Ok(None),
            (OverFunction::Count, _) => Kind::Presence,
            (OverFunction::First | OverFunction::Last, Some(_)) => Kind::Any,
            (OverFunction::Variance { .. }, Some(DataType::Float64)) => Kind::Float,
            (OverFunction::Sum | OverFunction::Avg, Some(DataType::Float64)) => Kind::Float,
            (OverFunction::Sum, Some(DataType::Int64)) => Kind::Int,
            (OverFunction::Sum | OverFunction::Avg, Some(DataType::Decimal128(..))) => Kind::Wide,
            (OverFunction::Min | OverFunction::Max, Some(of)) => match of {
                DataType::Float64 | DataType::Float32 => Kind::Float,
                DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Kind::Int,
                DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::Timestamp(..) => Kind::Int,
                DataType::Decimal128(..) => Kind::Wide,
                _ => Kind::Any,
            },
            _ => return Err(refuse()),
        }))
    }

    fn made(&self, lane: Option<usize>, bounded: bool, to: &DataType) -> Result<Box<dyn Function>, StreamError> {
        let of = self.argument.as_ref().map_or(&DataType::Boolean, |argument| &argument.of);
        let max = self.function == OverFunction::Max;
        let scale = |of: &DataType| if let DataType::Decimal128(_, scale) = of { i32::from(*scale) } else { 0 };
        let terms = Type {
            digits: if let DataType::Decimal128(digits, _) = to { *digits } else { 0 },
            more_places: u32::try_from(scale(to) - scale(of)).unwrap_or(0),
        };
        fn slide<S: Slide>(lane: Option<usize>, to: &DataType, of: Type) -> Box<dyn Function> {
            Box::new(Sliding::<S>::new(lane, to.clone(), of))
        }
        let kind = self.kind()?;
        Ok(match (self.function, kind) {
            (OverFunction::Count, _) => slide::<Count>(lane, to, terms),
            (OverFunction::Sum, Some(Kind::Float)) => slide::<FloatSum<false>>(lane, to, terms),
            (OverFunction::Sum, Some(Kind::Int)) => slide::<IntSum>(lane, to, terms),
            (OverFunction::Sum, _) => slide::<WideSum<false>>(lane, to, terms),
            (OverFunction::Avg, Some(Kind::Float)) => slide::<FloatSum<true>>(lane, to, terms),
            (OverFunction::Avg, _) => slide::<WideSum<true>>(lane, to, terms),
            (OverFunction::Variance { sample: true, root: false }, _) => slide::<Variance<true, false>>(lane, to, terms),
            (OverFunction::Variance { sample: true, root: true }, _) => slide::<Variance<true, true>>(lane, to, terms),
            (OverFunction::Variance { sample: false, root: false }, _) => slide::<Variance<false, false>>(lane, to, terms),
            (OverFunction::Variance { sample: false, root: true }, _) => slide::<Variance<false, true>>(lane, to, terms),
            (OverFunction::Min, Some(Kind::Float)) if bounded => slide::<Extreme<f64, false>>(lane, to, terms),
            (OverFunction::Min, Some(Kind::Int)) if bounded => slide::<Extreme<i64, false>>(lane, to, terms),
            (OverFunction::Min, Some(Kind::Wide)) if bounded => slide::<Extreme<i128, false>>(lane, to, terms),
            (OverFunction::Max, Some(Kind::Float)) if bounded => slide::<Extreme<f64, true>>(lane, to, terms),
            (OverFunction::Max, Some(Kind::Int)) if bounded => slide::<Extreme<i64, true>>(lane, to, terms),
            (OverFunction::Max, Some(Kind::Wide)) if bounded => slide::<Extreme<i128, true>>(lane, to, terms),
            (OverFunction::Min, Some(Kind::Float)) => slide::<Best<f64, false>>(lane, to, terms),
            (OverFunction::Min, Some(Kind::Int)) => slide::<Best<i64, false>>(lane, to, terms),
            (OverFunction::Min, Some(Kind::Wide)) => slide::<Best<i128, false>>(lane, to, terms),
            (OverFunction::Max, Some(Kind::Float)) => slide::<Best<f64, true>>(lane, to, terms),
            (OverFunction::Max, Some(Kind::Int)) => slide::<Best<i64, true>>(lane, to, terms),
            (OverFunction::Max, Some(Kind::Wide)) => slide::<Best<i128, true>>(lane, to, terms),
            (OverFunction::Min | OverFunction::Max, _) => Box::new(AnyExtreme::new(lane.unwrap_or(0), max, bounded, of)?),
            (OverFunction::First, _) => Box::new(Pick::new(lane.unwrap_or(0), false, bounded, of)?),
            (OverFunction::Last, _) => Box::new(Pick::new(lane.unwrap_or(0), true, bounded, of)?),
            (OverFunction::RowNumber, _) => Box::new(Place::new(Numbered::Row)),
            (OverFunction::Rank, _) => Box::new(Place::new(Numbered::Rank)),
            (OverFunction::DenseRank, _) => Box::new(Place::new(Numbered::DenseRank)),
        })
    }
}

impl Operator for Over {
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
        self.sweep()?;
        // Everything older than the watermark has left, so it holds behind this operator too.
        out.watermark = Some(at);
        Ok(())
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        self.buffer.latest(now.0.saturating_sub(1)).map(|at| Timestamp(at + 1))
    }

    fn reach_ms(&self) -> Option<i64> {
        let behind = |call: &OverCall| match call.frame() {
            OverFrame::Range { from_ms, .. } => from_ms,
            OverFrame::Rows { .. } => None,
        };
        self.spec.calls.iter().try_fold(0, |longest, call| Some(longest.max(behind(call)?)))
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
        self.compact(Worth::AnyRow)?;
        let of = |values: &[i64]| slots.iter().map(|slot| values[*slot as usize]).collect::<Vec<i64>>();
        let mut keys = vec![ints(vec![("last", of(&self.last)), ("ends", of(&self.ends))])?];
        let names = self.table.decode(slots.iter().filter_map(|slot| self.table.key(*slot).map(AsRef::as_ref)))?;
        if !names.is_empty() {
            let fields: Vec<Field> =
                names.iter().enumerate().map(|(at, column)| Field::new(format!("k{at}"), column.data_type().clone(), true)).collect();
            keys.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), names).map_err(|e| arrow_error("the keys' state", &e))?);
        }
        for (name, batch) in ["times", "keys"].into_iter().zip(keys) {
            state.put(name, batch);
        }
        state.put("rows", self.past.save(&slots)?);
        for (number, frames) in self.frames.iter().enumerate() {
            state.put(&format!("frame{number}"), ints(vec![("stand", frames.save(&slots))])?);
        }
        for (number, of) in self.functions.iter().enumerate() {
            if !self.frames[of.frame].of.is_bounded() {
                state.put(&format!("function{number}"), self.save_function(of, &slots)?);
            }
        }
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = |why: &str| StreamError::Restore { operator: "the functions over frames".to_owned(), why: why.to_owned() };
        let mark = state.get("mark").next().ok_or_else(|| misfit("the mark is missing"))?;
        let number = |place| ints_of(mark, place).and_then(|m| m.first().copied()).ok_or_else(|| misfit("the mark is empty"));
        (self.mark, self.swept) = (number(0)?, number(1)?);
        for held in state.get("held") {
            if !self.buffer.restore(held, self.input.fields().len()) {
                return Err(misfit("the waiting rows have other columns"));
            }
        }
        let Some(times) = state.get("times").next() else { return Ok(()) };
        self.last = ints_of(times, 0).ok_or_else(|| misfit("the keys have no times"))?.to_vec();
        self.ends = ints_of(times, 1).ok_or_else(|| misfit("the keys have no ends"))?.to_vec();
        let keys = state.get("keys").next();
        if keys.map_or(0, RecordBatch::num_columns) != self.spec.keys.len() {
            return Err(misfit("the keys have another number of columns"));
        }
        let encoded = self.table.encode(keys.map_or(&[], RecordBatch::columns))?;
        let slots = self.last.len();
        for row in 0..slots {
            if !self.table.slot(encoded.key(row)).1 {
                return Err(misfit("a key is there twice"));
            }
        }
        self.past.grow(slots);
        let rows = state.get("rows").next().ok_or_else(|| misfit("the rows are missing"))?;
        self.past.restore(rows, slots).ok_or_else(|| misfit("the rows have other columns"))?;
        self.limit = 2 * self.past.len() + SPARE_ROWS;
        let mut walks: Vec<Walk> = Vec::with_capacity(self.frames.len());
        for (number, frames) in self.frames.iter_mut().enumerate() {
            let name = format!("frame{number}");
            let stands = state.get(&name).next().and_then(|batch| ints_of(batch, 0));
            let stands = stands.filter(|stands| stands.len() == slots * 5).ok_or_else(|| misfit("a frame is missing"))?;
            walks.push(frames.restore(stands, &self.past).ok_or_else(|| misfit("a frame does not fit its rows"))?);
        }
        for (number, of) in self.functions.iter_mut().enumerate() {
            of.function.grow(slots);
            if self.frames[of.frame].of.is_bounded() {
                of.function.run(&walks[of.frame], &self.past)?;
                continue;
            }
            let name = format!("function{number}");
            let words = state.get(&name).next().ok_or_else(|| misfit("a function's state is missing"))?;
            restore_function(of.function.as_mut(), words, slots).ok_or_else(|| misfit("a function's state does not fit"))?;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.buffer.bytes()
            + self.table.bytes()
            + self.last.len() * 16
            + self.past.bytes()
            + self.frames.iter().map(Frames::bytes).sum::<usize>()
            + self.functions.iter().map(|of| of.function.bytes()).sum::<usize>()
    }
}
