//! The rows that frames still look at: their times, whose they are, and the values of the arguments, in columns.
//!
//! Owns [`Past`] and its [`Lane`]s. Rows lie in the order in which they left the reorder buffer; each knows the
//! next one of its key. Always: what no frame needs any more is dropped when it has become most of what is held,
//! so that a row is moved a few times only. Called by the operator; functions read the lanes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{cast, concat, interleave};
use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type, Schema};

use crate::stream::StreamError;
use crate::stream::rowwise::arrow_error;
use crate::stream::window::ints_of;

/// Above this number of arrays in a lane neighbours of like size are put together.
const MANY_CHUNKS: usize = 16;

/// In place of a row: none.
pub(in crate::stream) const NOTHING: u32 = u32::MAX;

/// How the values of an argument are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stream) enum Kind {
    /// Only whether there is a value.
    Presence,
    /// Doubles.
    Float,
    /// Whole numbers and instants.
    Int,
    /// Decimals and large whole numbers.
    Wide,
    /// Values of any type, as they came.
    Any,
}

/// The values of one argument, one a row of the past.
#[derive(Debug)]
pub(in crate::stream) struct Lane {
    of: DataType,
    valid: Vec<bool>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Presence,
    Float(Vec<f64>),
    Int(Vec<i64>),
    Wide(Vec<i128>),
    /// Arrays, each with the place of its first row.
    Any(Vec<(u32, ArrayRef)>),
}

/// A type whose values lie in a lane as they are.
pub(in crate::stream) trait Native: Copy + Send + 'static {
    /// The lane's values.
    fn of(lane: &Lane) -> &[Self];
    /// In place of a value where only its presence counts.
    fn nothing() -> Self;
}

impl Native for () {
    fn nothing() -> Self {}
    fn of(_: &Lane) -> &[Self] {
        &[]
    }
}

impl Native for f64 {
    fn nothing() -> Self {
        0.0
    }
    fn of(lane: &Lane) -> &[Self] {
        if let Values::Float(values) = &lane.values { values } else { &[] }
    }
}

impl Native for i64 {
    fn nothing() -> Self {
        0
    }
    fn of(lane: &Lane) -> &[Self] {
        if let Values::Int(values) = &lane.values { values } else { &[] }
    }
}

impl Native for i128 {
    fn nothing() -> Self {
        0
    }
    fn of(lane: &Lane) -> &[Self] {
        if let Values::Wide(values) = &lane.values { values } else { &[] }
    }
}

fn error(e: &arrow::error::ArrowError) -> StreamError {
    arrow_error("the arguments of the functions over frames", e)
}

impl Lane {
    pub(in crate::stream) fn new(kind: Kind, of: DataType) -> Self {
        let values = match kind {
            Kind::Presence => Values::Presence,
            Kind::Float => Values::Float(Vec::new()),
            Kind::Int => Values::Int(Vec::new()),
            Kind::Wide => Values::Wide(Vec::new()),
            Kind::Any => Values::Any(Vec::new()),
        };
        Self { of, valid: Vec::new(), values }
    }

    /// Which rows have a value.
    pub(in crate::stream) fn valid(&self) -> &[bool] {
        &self.valid
    }

    /// How the values are kept.
    pub(in crate::stream) const fn kind(&self) -> Kind {
        match self.values {
            Values::Presence => Kind::Presence,
            Values::Float(_) => Kind::Float,
            Values::Int(_) => Kind::Int,
            Values::Wide(_) => Kind::Wide,
            Values::Any(_) => Kind::Any,
        }
    }

    /// The type of the values as they came.
    pub(in crate::stream) const fn data_type(&self) -> &DataType {
        &self.of
    }

    fn push(&mut self, column: &ArrayRef) -> Result<(), StreamError> {
        let first = self.valid.len() as u32;
        match column.logical_nulls().filter(|nulls| nulls.null_count() > 0) {
            None => self.valid.resize(self.valid.len() + column.len(), true),
            Some(nulls) => self.valid.extend(nulls.iter()),
        }
        match &mut self.values {
            Values::Presence => {}
            Values::Float(values) => {
                let column = as_type(column, &DataType::Float64)?;
                values.extend_from_slice(column.as_primitive::<Float64Type>().values());
            }
            Values::Int(values) => {
                let column = as_type(column, &DataType::Int64)?;
                values.extend_from_slice(column.as_primitive::<Int64Type>().values());
            }
            Values::Wide(values) => {
                let to = match column.data_type() {
                    DataType::Decimal128(..) => column.data_type().clone(),
                    _ => DataType::Decimal128(38, 0),
                };
                let column = as_type(column, &to)?;
                values.extend_from_slice(column.as_primitive::<Decimal128Type>().values());
            }
            Values::Any(chunks) => {
                chunks.push((first, ArrayRef::clone(column)));
                while chunks.len() > MANY_CHUNKS {
                    // The rightmost pair in which the older is not much larger, so that each row is copied a few times only.
                    let last = chunks.len() - 1;
                    let pair = (1..=last).rev().find(|at| chunks[at - 1].1.len() <= 2 * chunks[*at].1.len()).unwrap_or(last);
                    let merged = concat(&[chunks[pair - 1].1.as_ref(), chunks[pair].1.as_ref()]).map_err(|e| error(&e))?;
                    chunks[pair - 1].1 = merged;
                    chunks.remove(pair);
                }
            }
        }
        Ok(())
    }

    /// The values at these rows, in this order; NULL for none. Only of a lane of any type.
    pub(in crate::stream) fn gather(&self, rows: impl Iterator<Item = u32>) -> Result<ArrayRef, StreamError> {
        let Values::Any(chunks) = &self.values else {
            return Err(StreamError::Limit("the values of an argument were not kept as they came".to_owned()));
        };
        let nothing = new_null_array(&self.of, 1);
        let mut sources: Vec<&dyn Array> = chunks.iter().map(|(_, array)| array.as_ref()).collect();
        sources.push(nothing.as_ref());
        let mut at = 0;
        let place = |row: u32| {
            if row == NOTHING {
                return (chunks.len(), 0);
            }
            // Most rows lie where the one before lay.
            let here = |at: usize| chunks.get(at).is_some_and(|(first, array)| *first <= row && row - first < array.len() as u32);
            if !here(at) {
                at = chunks.partition_point(|(first, _)| *first <= row) - 1;
            }
            (at, (row - chunks[at].0) as usize)
        };
        let picked: Vec<(usize, usize)> = rows.map(place).collect();
        if picked.is_empty() {
            return Ok(arrow::array::new_empty_array(&self.of));
        }
        interleave(&sources, &picked).map_err(|e| error(&e))
    }

    fn keep(&mut self, rows: &[u32]) -> Result<(), StreamError> {
        if matches!(self.values, Values::Any(_)) {
            let kept = self.gather(rows.iter().copied())?;
            self.values = Values::Any(if rows.is_empty() { Vec::new() } else { vec![(0, kept)] });
        }
        match &mut self.values {
            Values::Presence | Values::Any(_) => {}
            Values::Float(values) => keep(values, rows),
            Values::Int(values) => keep(values, rows),
            Values::Wide(values) => keep(values, rows),
        }
        keep(&mut self.valid, rows);
        Ok(())
    }

    fn save(&self) -> Result<ArrayRef, StreamError> {
        let nulls = || Some(self.valid.clone().into());
        Ok(match &self.values {
            Values::Presence => Arc::new(arrow::array::BooleanArray::new(vec![true; self.valid.len()].into(), nulls())),
            Values::Float(values) => Arc::new(Float64Array::new(values.clone().into(), nulls())),
            Values::Int(values) => Arc::new(Int64Array::new(values.clone().into(), nulls())),
            Values::Wide(values) => {
                let array = Decimal128Array::new(values.clone().into(), nulls());
                let (precision, scale) = if let DataType::Decimal128(p, s) = self.of { (p, s) } else { (38, 0) };
                Arc::new(array.with_precision_and_scale(precision, scale).map_err(|e| error(&e))?)
            }
            Values::Any(_) => self.gather(0..self.valid.len() as u32)?,
        })
    }

    fn bytes(&self) -> usize {
        let values = match &self.values {
            Values::Presence => 0,
            Values::Float(values) => values.capacity() * 8,
            Values::Int(values) => values.capacity() * 8,
            Values::Wide(values) => values.capacity() * 16,
            Values::Any(chunks) => chunks.iter().map(|(_, array)| array.get_array_memory_size()).sum(),
        };
        self.valid.capacity() + values
    }
}

fn as_type(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, StreamError> {
    if column.data_type() == to { Ok(ArrayRef::clone(column)) } else { cast(column, to).map_err(|e| error(&e)) }
}

/// Moves the values at these places, which ascend, to the front and drops the others. The room stays, for as much will come again;
/// where it is far more than that, it is given back.
fn keep<T: Copy>(values: &mut Vec<T>, rows: &[u32]) {
    for (to, row) in rows.iter().enumerate() {
        values[to] = values[*row as usize];
    }
    values.truncate(rows.len());
    if values.capacity() / 8 > rows.len() {
        values.shrink_to(2 * rows.len());
    }
}

/// What makes it worth while to move rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stream) enum Worth {
    /// A single row that goes.
    AnyRow,
    /// That a quarter of all rows goes.
    AQuarter,
}

/// The rows.
#[derive(Debug, Default)]
pub(in crate::stream) struct Past {
    times: Vec<i64>,
    slots: Vec<u32>,
    next: Vec<u32>,
    /// The newest row of each slot.
    newest: Vec<u32>,
    pub(in crate::stream) lanes: Vec<Lane>,
}

impl Past {
    pub(in crate::stream) const fn len(&self) -> usize {
        self.times.len()
    }

    pub(in crate::stream) fn time(&self, row: u32) -> i64 {
        self.times[row as usize]
    }

    /// The next row of the same key.
    pub(in crate::stream) fn next(&self, row: u32) -> u32 {
        self.next[row as usize]
    }

    pub(in crate::stream) fn grow(&mut self, slots: usize) {
        if self.newest.len() < slots {
            self.newest.resize(slots, NOTHING);
        }
    }

    pub(in crate::stream) fn forget(&mut self, slot: u32) {
        self.newest[slot as usize] = NOTHING;
    }

    /// Whose a row is.
    pub(in crate::stream) fn slot(&self, row: u32) -> u32 {
        self.slots[row as usize]
    }

    /// Adds rows; answers the place of the first.
    pub(in crate::stream) fn push(&mut self, times: &[i64], slots: &[u32], arguments: &[ArrayRef]) -> Result<u32, StreamError> {
        let first = self.push_unlinked(times, arguments)?;
        for (row, slot) in slots.iter().enumerate() {
            self.link(first + row as u32, *slot);
        }
        Ok(first)
    }

    /// Adds rows of which it is not known yet whose they are; answers the place of the first.
    pub(in crate::stream) fn push_unlinked(&mut self, times: &[i64], arguments: &[ArrayRef]) -> Result<u32, StreamError> {
        let first = self.times.len();
        if first + times.len() >= NOTHING as usize {
            return Err(StreamError::Limit("the frames of a query hold more than four billion rows; make them shorter".to_owned()));
        }
        self.times.extend_from_slice(times);
        self.slots.resize(self.times.len(), NOTHING);
        self.next.resize(self.times.len(), NOTHING);
        for (lane, argument) in self.lanes.iter_mut().zip(arguments) {
            lane.push(argument)?;
        }
        Ok(first as u32)
    }

    /// Says whose a row is: it follows the key's newest.
    pub(in crate::stream) fn link(&mut self, row: u32, slot: u32) {
        self.slots[row as usize] = slot;
        let before = std::mem::replace(&mut self.newest[slot as usize], row);
        if before != NOTHING {
            self.next[before as usize] = row;
        }
    }

    /// Keeps of each key the rows from the one that `needed` names on. Answers the new place of every old row; or nothing,
    /// and keeps all, where fewer than a quarter would go and that is not enough.
    pub(in crate::stream) fn compact(&mut self, needed: &[u32], worth: Worth) -> Result<Option<Vec<u32>>, StreamError> {
        let mut places = vec![NOTHING; self.len()];
        let mut kept: Vec<u32> = Vec::new();
        for (row, slot) in self.slots.iter().enumerate() {
            if needed.get(*slot as usize).is_some_and(|first| *first != NOTHING && *first as usize <= row) {
                places[row] = kept.len() as u32;
                kept.push(row as u32);
            }
        }
        if worth == Worth::AQuarter && kept.len() > self.len() - self.len() / 4 {
            return Ok(None);
        }
        let renumber = |row: u32| if row == NOTHING { NOTHING } else { places[row as usize] };
        for newest in &mut self.newest {
            *newest = renumber(*newest);
        }
        keep(&mut self.next, &kept);
        for next in &mut self.next {
            *next = renumber(*next);
        }
        keep(&mut self.times, &kept);
        keep(&mut self.slots, &kept);
        for lane in &mut self.lanes {
            lane.keep(&kept)?;
        }
        Ok(Some(places))
    }

    /// Every row as a batch: the place of its slot among `slots`, its time, its arguments.
    pub(in crate::stream) fn save(&self, slots: &[u32]) -> Result<RecordBatch, StreamError> {
        let mut numbers = vec![0; self.newest.len()];
        for (number, slot) in slots.iter().enumerate() {
            numbers[*slot as usize] = number as u32;
        }
        let mut fields = vec![Field::new("time", DataType::Int64, false), Field::new("key", DataType::UInt32, false)];
        let keys = self.slots.iter().map(|slot| numbers[*slot as usize]).collect::<Vec<u32>>();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(self.times.clone())), Arc::new(UInt32Array::from(keys))];
        for (at, lane) in self.lanes.iter().enumerate() {
            let column = lane.save()?;
            fields.push(Field::new(format!("a{at}"), column.data_type().clone(), true));
            columns.push(column);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| error(&e))
    }

    /// Takes back what [`Past::save`] gave.
    pub(in crate::stream) fn restore(&mut self, batch: &RecordBatch, slots: usize) -> Option<()> {
        let times = ints_of(batch, 0)?.to_vec();
        let keys = batch.columns().get(1)?.as_any().downcast_ref::<UInt32Array>()?.values().to_vec();
        if batch.num_columns() != self.lanes.len() + 2 || keys.iter().any(|key| *key as usize >= slots) {
            return None;
        }
        self.push(&times, &keys, &batch.columns()[2..]).ok()?;
        Some(())
    }

    pub(in crate::stream) fn bytes(&self) -> usize {
        self.times.capacity() * 8
            + (self.slots.capacity() + self.next.capacity() + self.newest.capacity()) * 4
            + self.lanes.iter().map(Lane::bytes).sum::<usize>()
    }
}
