//! The operator of GAP_FILL.
//!
//! Rows wait in the reorder buffer until the watermark has passed them. Between two rows of a key that are further apart
//! than the interval it puts rows at the first one's time and one interval, two intervals, .. as long as they lie before
//! the second. A gap of more than a day of event time, or of more than 100,000 intervals, is not filled, and what lies
//! before it is forgotten: the key begins anew. Always: rows of one key leave in order of time; the watermark handed on is
//! not younger than the first row that could still be put into a gap, so nothing that leaves is late.
//!
//! State is a key's last time and values, for as long as a gap behind them could be filled.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMillisecondArray, new_null_array};
use arrow::compute::{cast, interleave};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};

use super::kept::{Kept, Spot};
use crate::stream::keyed::{Buffer, Held, KeyTable};
use crate::stream::rowwise::{arrow_error, take_column};
use crate::stream::window::{ints, ints_of};
use crate::stream::{NO_OFFSET, NO_TIME, Operator, Output, Rows, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// The longest gap that is filled, in event time and in intervals.
const LONGEST_MS: i64 = 24 * 3_600_000;
const LONGEST_ROWS: i64 = 100_000;
/// Rows leave in batches of about this many.
const BATCH_ROWS: usize = 8192;
/// Entries of the queue that have been overtaken are dropped when there are so many more than keys.
const SPARE: usize = 16_384;

/// What a column of a row in a gap has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapColumn {
    /// The row's time.
    Time,
    /// The key's value: it is one of PARTITION BY.
    Key,
    /// `LOCF(column)`: the key's last value that was not NULL.
    Locf,
    /// `INTERPOLATE(column)`: on the line between the values of the rows on both sides; NULL where one of them is.
    Interpolate,
    /// NULL.
    Null,
}

/// All that the operator is made of.
#[derive(Clone, Debug)]
pub struct GapSpec {
    /// What each column of a row in a gap has.
    pub columns: Vec<GapColumn>,
    /// How far apart rows are to be, in milliseconds.
    pub interval_ms: i64,
    /// The input's columns; those that may be NULL in a gap are nullable.
    pub schema: SchemaRef,
}

/// The operator.
pub struct GapFill {
    spec: GapSpec,
    buffer: Buffer,
    table: KeyTable,
    /// The time of each slot's last row, or [`NO_TIME`].
    last: Vec<i64>,
    /// Its values of the columns that are interpolated, those of a slot side by side.
    ends: Vec<Option<f64>>,
    /// How many such columns there are.
    lines: usize,
    /// The last values of the columns that are carried forward.
    kept: Vec<Kept>,
    /// Of every key, the time of its last row, oldest first; among them some that have been overtaken.
    oldest: VecDeque<(i64, u32)>,
    longest_ms: i64,
    mark: i64,
}

/// Rows on their way out, real ones and those in gaps.
#[derive(Default)]
struct Leaving {
    /// The row itself, or the one behind the gap.
    rows: Vec<u32>,
    /// Which of the rows in gaps it is, if it is one.
    gaps: Vec<Option<u32>>,
    /// How many of those there are.
    filled: u32,
    times: Vec<i64>,
    /// For each column that is carried forward, where each row has it.
    carried: Vec<Vec<Option<Spot>>>,
    /// For each column that is interpolated, the values in gaps.
    lines: Vec<Vec<Option<f64>>>,
}

impl GapFill {
    /// Checks that there is one time, and numbers where there are lines.
    pub fn new(spec: GapSpec) -> Result<Self, StreamError> {
        let times = spec.columns.iter().filter(|column| **column == GapColumn::Time).count();
        if times != 1 || spec.columns.len() != spec.schema.fields().len() || spec.interval_ms <= 0 {
            return Err(StreamError::Limit("GAP_FILL has one time column, and an interval that is positive".to_owned()));
        }
        let not_a_number =
            |(column, field): &(&GapColumn, &Arc<Field>)| **column == GapColumn::Interpolate && !field.data_type().is_numeric();
        if let Some((_, field)) = spec.columns.iter().zip(spec.schema.fields()).find(not_a_number) {
            return Err(StreamError::Limit(format!("INTERPOLATE({}) is over numbers alone", field.name())));
        }
        let mut one = Self {
            longest_ms: LONGEST_MS.min(spec.interval_ms.saturating_mul(LONGEST_ROWS)),
            kept: Vec::new(),
            spec,
            buffer: Buffer::default(),
            table: KeyTable::default(),
            last: Vec::new(),
            ends: Vec::new(),
            lines: 0,
            oldest: VecDeque::new(),
            mark: i64::MIN,
        };
        one.kept = one.places(GapColumn::Locf).map(|at| Kept::new(one.spec.schema.field(at).data_type().clone())).collect();
        one.lines = one.places(GapColumn::Interpolate).count();
        Ok(one)
    }

    fn places(&self, of: GapColumn) -> impl Iterator<Item = usize> {
        self.spec.columns.iter().enumerate().filter(move |(_, column)| **column == of).map(|(at, _)| at)
    }

    fn columns_of(&self, of: GapColumn, held: &[ArrayRef]) -> Vec<ArrayRef> {
        self.places(of).map(|at| ArrayRef::clone(&held[at])).collect()
    }

    /// Works through rows that have left the buffer.
    fn work(&mut self, held: &Held, out: &mut Output) -> Result<(), StreamError> {
        let encoded = self.table.encode(&self.columns_of(GapColumn::Key, &held.columns))?;
        let carried = self.columns_of(GapColumn::Locf, &held.columns);
        let arrays: Vec<u32> = self.kept.iter_mut().zip(&carried).map(|(kept, array)| kept.add(ArrayRef::clone(array))).collect();
        let mut lines = Vec::new();
        for column in self.columns_of(GapColumn::Interpolate, &held.columns) {
            let numbers = cast(&column, &DataType::Float64).map_err(|e| arrow_error("INTERPOLATE", &e))?;
            lines.push(numbers.as_primitive::<Float64Type>().clone());
        }
        let nulls: Vec<_> = carried.iter().map(|column| column.logical_nulls()).collect();
        let fresh = || Leaving { carried: vec![Vec::new(); arrays.len()], lines: vec![Vec::new(); lines.len()], ..Leaving::default() };
        let mut leaving = fresh();
        for (row, at) in held.times.iter().enumerate() {
            let (slot, _) = self.table.slot(encoded.key(row));
            if self.last.len() <= slot as usize {
                self.last.resize(slot as usize + 1, NO_TIME);
                self.ends.resize(self.last.len() * self.lines, None);
            }
            self.kept.iter_mut().for_each(|kept| kept.grow(slot as usize + 1));
            let ends = slot as usize * self.lines..(slot as usize + 1) * self.lines;
            let last = std::mem::replace(&mut self.last[slot as usize], *at);
            if last != NO_TIME && at.saturating_sub(last) > self.longest_ms {
                self.kept.iter_mut().for_each(|kept| kept.forget(slot));
            } else if last != NO_TIME {
                let mut between = last + self.spec.interval_ms;
                while between < *at {
                    let share = (between - last) as f64 / (at - last) as f64;
                    leaving.gaps.push(Some(leaving.filled));
                    leaving.filled += 1;
                    leaving.rows.push(row as u32);
                    leaving.times.push(between);
                    for (kept, carried) in self.kept.iter().zip(&mut leaving.carried) {
                        carried.push(kept.spot(slot));
                    }
                    for ((from, to), line) in self.ends[ends.clone()].iter().zip(&lines).zip(&mut leaving.lines) {
                        let to = to.is_valid(row).then(|| to.value(row));
                        line.push(from.zip(to).map(|(from, to)| (to - from).mul_add(share, from)));
                    }
                    between += self.spec.interval_ms;
                    if leaving.rows.len() >= BATCH_ROWS {
                        self.hand_on(held, &std::mem::replace(&mut leaving, fresh()), out)?;
                    }
                }
            }
            for (end, line) in self.ends[ends].iter_mut().zip(&lines) {
                *end = line.is_valid(row).then(|| line.value(row));
            }
            leaving.gaps.push(None);
            leaving.rows.push(row as u32);
            leaving.times.push(*at);
            for (number, array) in arrays.iter().enumerate() {
                leaving.carried[number].push(Some((*array, row as u32)));
                if nulls[number].as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                    self.kept[number].keep(slot, (*array, row as u32));
                }
            }
            self.oldest.push_back((*at, slot));
        }
        self.hand_on(held, &leaving, out)?;
        self.kept.iter_mut().try_for_each(Kept::tidy)
    }

    /// Makes rows of those that leave.
    fn hand_on(&self, held: &Held, leaving: &Leaving, out: &mut Output) -> Result<(), StreamError> {
        let error = |e| arrow_error("GAP_FILL", &e);
        let of_gaps: Vec<i64> = leaving.gaps.iter().zip(&leaving.times).filter_map(|(gap, at)| gap.map(|_| *at)).collect();
        // A row is taken from the input, a row in a gap from what was made for it.
        let made = |real: &ArrayRef, made: &dyn Array, one: bool| {
            let place = |(gap, row): (&Option<u32>, &u32)| gap.map_or((0, *row as usize), |gap| (1, if one { 0 } else { gap as usize }));
            let picked: Vec<(usize, usize)> = leaving.gaps.iter().zip(&leaving.rows).map(place).collect();
            interleave(&[real.as_ref(), made], &picked).map_err(error)
        };
        let (mut carried, mut lines) = (0, 0);
        let mut columns = Vec::with_capacity(held.columns.len());
        for ((what, real), field) in self.spec.columns.iter().zip(&held.columns).zip(self.spec.schema.fields()) {
            columns.push(match what {
                _ if of_gaps.is_empty() && leaving.rows.len() == held.len() => ArrayRef::clone(real),
                GapColumn::Key => take_column(real, &leaving.rows.clone().into())?,
                GapColumn::Time => {
                    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(of_gaps.clone()));
                    made(real, &cast(&times, field.data_type()).map_err(error)?, false)?
                }
                GapColumn::Locf => self.kept[carried].gather(&leaving.carried[carried])?,
                GapColumn::Interpolate => {
                    let line: ArrayRef = Arc::new(Float64Array::from(leaving.lines[lines].clone()));
                    let line = if field.data_type().is_integer() { rounded(&line) } else { line };
                    made(real, &cast(&line, field.data_type()).map_err(error)?, false)?
                }
                GapColumn::Null => made(real, &new_null_array(field.data_type(), 1), true)?,
            });
            carried += usize::from(*what == GapColumn::Locf);
            lines += usize::from(*what == GapColumn::Interpolate);
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.spec.schema), columns).map_err(error)?;
        let offset = |(gap, row): (&Option<u32>, &u32)| if gap.is_some() { NO_OFFSET } else { held.offsets[*row as usize] };
        let held = Held {
            columns: Vec::new(),
            times: leaving.times.clone(),
            partitions: leaving.rows.iter().map(|row| held.partitions[*row as usize]).collect(),
            offsets: leaving.gaps.iter().zip(&leaving.rows).map(offset).collect(),
        };
        held.hand_on(batch, out);
        Ok(())
    }

    fn is_last(&self, at: i64, slot: u32) -> bool {
        self.last[slot as usize] == at
    }

    /// Forgets the keys behind whose last row no gap could be filled any more.
    fn let_go(&mut self) {
        while let Some((last, slot)) = self.oldest.front().copied() {
            let current = self.is_last(last, slot);
            if current && self.mark.saturating_sub(last) <= self.longest_ms {
                break;
            }
            self.oldest.pop_front();
            if current {
                self.last[slot as usize] = NO_TIME;
                self.kept.iter_mut().for_each(|kept| kept.forget(slot));
                self.table.drop_slot(slot);
            }
        }
        if self.oldest.len() > 2 * self.last.len() + SPARE {
            let mut oldest = std::mem::take(&mut self.oldest);
            oldest.retain(|(at, slot)| self.is_last(*at, *slot));
            self.oldest = oldest;
        }
    }
}

fn rounded(line: &ArrayRef) -> ArrayRef {
    Arc::new(line.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round))
}

impl Operator for GapFill {
    fn name(&self) -> &'static str {
        "gap_fill"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        self.buffer.take(rows, self.mark, out)
    }

    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        for held in self.buffer.release(at.0)? {
            self.work(&held, out)?;
        }
        self.mark = self.mark.max(at.0);
        self.let_go();
        let first = self.oldest.front().map(|(oldest, _)| Timestamp(oldest.saturating_add(self.spec.interval_ms)));
        out.watermark = Some(first.map_or(at, |first| first.min(at)));
        Ok(())
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        self.buffer.latest(now.0.saturating_sub(1)).map(|at| Timestamp(at + 1))
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
        let times: Vec<i64> = slots.iter().map(|slot| self.last[*slot as usize]).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(times))];
        columns.extend(self.table.decode(slots.iter().filter_map(|slot| self.table.key(*slot).map(AsRef::as_ref)))?);
        for kept in &self.kept {
            columns.push(kept.save(&slots)?);
        }
        for line in 0..self.lines {
            let value = |slot: &u32| self.ends[*slot as usize * self.lines + line];
            columns.push(Arc::new(slots.iter().map(value).collect::<Float64Array>()));
        }
        let field = |(at, column): (usize, &ArrayRef)| Field::new(format!("c{at}"), column.data_type().clone(), at > 0);
        let fields: Vec<Field> = columns.iter().enumerate().map(field).collect();
        let keys = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
        state.put("keys", keys.map_err(|e| arrow_error("the keys' state", &e))?);
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = |why: &str| StreamError::Restore { operator: "GAP_FILL".to_owned(), why: why.to_owned() };
        let mark = state.get("mark").next().ok_or_else(|| misfit("the mark is missing"))?;
        self.mark = ints_of(mark, 0).and_then(|m| m.first().copied()).ok_or_else(|| misfit("the mark is empty"))?;
        for held in state.get("held") {
            if !self.buffer.restore(held, self.spec.columns.len()) {
                return Err(misfit("the waiting rows have other columns"));
            }
        }
        let Some(keys) = state.get("keys").next() else { return Ok(()) };
        let names = self.places(GapColumn::Key).count();
        if keys.num_columns() != 1 + names + self.kept.len() + self.lines {
            return Err(misfit("the keys have another number of columns"));
        }
        let (times, columns) = (ints_of(keys, 0).ok_or_else(|| misfit("the keys have no times"))?, &keys.columns()[1..]);
        let encoded = self.table.encode(&columns[..names])?;
        for (row, at) in times.iter().enumerate() {
            if !self.table.slot(encoded.key(row)).1 {
                return Err(misfit("a key is there twice"));
            }
            for column in &columns[names + self.kept.len()..] {
                let column = column.as_primitive_opt::<Float64Type>().ok_or_else(|| misfit("a value is no number"))?;
                self.ends.push(column.is_valid(row).then(|| column.value(row)));
            }
            self.last.push(*at);
        }
        for (kept, column) in self.kept.iter_mut().zip(&columns[names..]) {
            kept.restore(column).ok_or_else(|| misfit("the last values are of another type"))?;
        }
        let mut oldest: Vec<(i64, u32)> = times.iter().enumerate().map(|(slot, at)| (*at, slot as u32)).collect();
        oldest.sort_unstable();
        self.oldest = oldest.into();
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let last = self.last.len() * 8 + self.ends.len() * size_of::<Option<f64>>();
        self.buffer.bytes() + self.table.bytes() + last + self.kept.iter().map(Kept::bytes).sum::<usize>() + self.oldest.capacity() * 16
    }
}
