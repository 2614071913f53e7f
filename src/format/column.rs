//! Columns as they grow: [`Column`], a run of values that can be cut back to any length.
//!
//! Always: between two rows every column is as long as there are rows. A record that turns out bad halfway
//! leaves columns of uneven length, and [`Column::truncate`] makes them even again: nothing else of the
//! batch is touched. Filled by the decoder.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float32Array, Float64Array,
    ListArray, PrimitiveArray, StringArray, StructArray, Time32MillisecondArray, Time32SecondArray, Time64MicrosecondArray,
    Time64NanosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, DecimalType, FieldRef, Fields, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit,
};

use super::json::Shape;

/// For longer texts no room is taken ahead.
const MOST_USUAL: usize = 256;

/// Texts or bytes, one behind the other.
#[derive(Debug)]
pub(super) struct Run {
    bytes: Vec<u8>,
    /// Where each ends, behind a first 0.
    ends: Vec<i32>,
    /// How many bytes a value had in the last batch, rounded up.
    usual: usize,
}

impl Run {
    fn new() -> Self {
        Self { bytes: Vec::new(), ends: vec![0], usual: 0 }
    }

    fn reserve(&mut self, values: usize) {
        self.ends.reserve_exact(values);
        self.bytes.reserve_exact(values.saturating_mul(self.usual));
    }

    /// Closes the value that lies behind the last one. False where the run is full.
    #[inline]
    fn close(&mut self) -> bool {
        match i32::try_from(self.bytes.len()) {
            Ok(end) => {
                self.ends.push(end);
                true
            }
            Err(_) => false,
        }
    }

    /// Adds one value. False where the run is full.
    #[inline]
    pub(super) fn push(&mut self, value: &[u8]) -> bool {
        self.bytes.extend_from_slice(value);
        self.close()
    }

    /// Adds one value that `write` puts behind the bytes. False where the run is full.
    pub(super) fn push_with<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<bool, E> {
        write(&mut self.bytes)?;
        Ok(self.close())
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len + 1);
        self.bytes.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    fn last(&self) -> &[u8] {
        match self.ends.as_slice() {
            [.., start, end] => &self.bytes[*start as usize..*end as usize],
            _ => &[],
        }
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let mut taken = std::mem::replace(self, Self::new());
        let values = taken.ends.len() - 1;
        self.usual = if values > 0 { taken.bytes.len().div_ceil(values).min(MOST_USUAL) } else { taken.usual };
        fit(&mut taken.bytes);
        fit(&mut taken.ends);
        (OffsetBuffer::new(ScalarBuffer::from(taken.ends)), Buffer::from_vec(taken.bytes))
    }
}

/// One value as its cast to VARCHAR has it. Slow: for values that are keys now and then.
fn cast_to_text<'a>(scratch: &'a mut Vec<u8>, value: &dyn Array) -> &'a [u8] {
    let text = cast(value, &DataType::Utf8).expect("numbers are cast to text");
    scratch.extend_from_slice(text.as_string::<i32>().value(0).as_bytes());
    scratch
}

/// The values of a column, by type.
#[derive(Debug)]
pub(super) enum Values {
    Boolean(Vec<bool>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Utf8(Run),
    Binary(Run),
    /// The column's unit, and the unit of a time that is written as a number.
    Timestamp(Vec<i64>, TimeUnit, TimeUnit),
    Date32(Vec<i32>),
    Time32(Vec<i32>, TimeUnit),
    Time64(Vec<i64>, TimeUnit),
    Decimal128(Vec<i128>, u8, i8),
    Struct(Box<Parts>),
    List(Box<Items>),
}

/// The fields of a struct's values.
#[derive(Debug)]
pub(super) struct Parts {
    pub shape: Shape,
    pub columns: Vec<Column>,
    fields: Fields,
}

/// The items of a list's values.
#[derive(Debug)]
pub(super) struct Items {
    pub item: Column,
    field: FieldRef,
    ends: Vec<i32>,
}

impl Items {
    /// Closes the list whose items lie behind the last one's. False where the column is full.
    pub(super) fn close(&mut self) -> bool {
        match i32::try_from(self.item.len()) {
            Ok(end) => {
                self.ends.push(end);
                true
            }
            Err(_) => false,
        }
    }
}

/// One column of a batch of rows that is being read.
#[derive(Debug)]
pub(super) struct Column {
    pub name: String,
    pub nullable: bool,
    pub values: Values,
    len: usize,
    /// The rows that are NULL, in order.
    nulls: Vec<usize>,
}

impl Column {
    /// An empty column. `unit` is what a number in a TIMESTAMP counts.
    pub(super) fn new(name: &str, data_type: &DataType, nullable: bool, unit: TimeUnit) -> Self {
        let values = match data_type {
            DataType::Boolean => Values::Boolean(Vec::new()),
            DataType::Int8 => Values::Int8(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Utf8 => Values::Utf8(Run::new()),
            DataType::Binary => Values::Binary(Run::new()),
            DataType::Timestamp(own, _) => Values::Timestamp(Vec::new(), *own, unit),
            DataType::Date32 => Values::Date32(Vec::new()),
            DataType::Time32(own) => Values::Time32(Vec::new(), *own),
            DataType::Time64(own) => Values::Time64(Vec::new(), *own),
            DataType::Decimal128(precision, scale) => Values::Decimal128(Vec::new(), *precision, *scale),
            DataType::Struct(fields) => {
                let columns: Vec<Self> = fields.iter().map(|f| Self::new(f.name(), f.data_type(), f.is_nullable(), unit)).collect();
                let shape = Shape::of_names(fields.iter().map(|f| f.name().as_str()));
                Values::Struct(Box::new(Parts { shape, columns, fields: fields.clone() }))
            }
            DataType::List(field) => {
                let item = Self::new("item", field.data_type(), field.is_nullable(), unit);
                Values::List(Box::new(Items { item, field: Arc::clone(field), ends: vec![0] }))
            }
            other => unreachable!("a stream's schema has refused {other}"),
        };
        Self { name: name.to_owned(), nullable, values, len: 0, nulls: Vec::new() }
    }

    /// How many values are whole.
    #[inline(always)]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Says that the value just put behind the others is one.
    #[inline(always)]
    pub(super) const fn valid(&mut self) {
        self.len += 1;
    }

    /// Takes room for so many more values.
    pub(super) fn reserve(&mut self, more: usize) {
        match &mut self.values {
            Values::Boolean(v) => v.reserve_exact(more),
            Values::Int8(v) => v.reserve_exact(more),
            Values::Int16(v) => v.reserve_exact(more),
            Values::Int32(v) | Values::Date32(v) | Values::Time32(v, _) => v.reserve_exact(more),
            Values::Int64(v) | Values::Timestamp(v, ..) | Values::Time64(v, _) => v.reserve_exact(more),
            Values::Float32(v) => v.reserve_exact(more),
            Values::Float64(v) => v.reserve_exact(more),
            Values::Decimal128(v, ..) => v.reserve_exact(more),
            Values::Utf8(v) | Values::Binary(v) => v.reserve(more),
            // How many items the lists will have is not known.
            Values::List(v) => v.ends.reserve_exact(more),
            Values::Struct(v) => v.columns.iter_mut().for_each(|column| column.reserve(more)),
        }
    }

    /// Adds a NULL; whether it may have one is the caller's to ask.
    pub(super) fn push_null(&mut self) {
        match &mut self.values {
            Values::Boolean(v) => v.push(false),
            Values::Int8(v) => v.push(0),
            Values::Int16(v) => v.push(0),
            Values::Int32(v) | Values::Date32(v) | Values::Time32(v, _) => v.push(0),
            Values::Int64(v) | Values::Timestamp(v, ..) | Values::Time64(v, _) => v.push(0),
            Values::Float32(v) => v.push(0.0),
            Values::Float64(v) => v.push(0.0),
            Values::Decimal128(v, ..) => v.push(0),
            // As long as the one before: the run cannot become fuller.
            Values::Utf8(v) | Values::Binary(v) => v.ends.push(v.ends.last().copied().unwrap_or(0)),
            Values::List(v) => v.ends.push(v.ends.last().copied().unwrap_or(0)),
            Values::Struct(v) => v.columns.iter_mut().for_each(Self::push_null),
        }
        self.nulls.push(self.len);
        self.len += 1;
    }

    /// Cuts back to the first `len` values.
    pub(super) fn truncate(&mut self, len: usize) {
        match &mut self.values {
            Values::Boolean(v) => v.truncate(len),
            Values::Int8(v) => v.truncate(len),
            Values::Int16(v) => v.truncate(len),
            Values::Int32(v) | Values::Date32(v) | Values::Time32(v, _) => v.truncate(len),
            Values::Int64(v) | Values::Timestamp(v, ..) | Values::Time64(v, _) => v.truncate(len),
            Values::Float32(v) => v.truncate(len),
            Values::Float64(v) => v.truncate(len),
            Values::Decimal128(v, ..) => v.truncate(len),
            Values::Utf8(v) | Values::Binary(v) => v.truncate(len),
            Values::List(v) => {
                v.ends.truncate(len + 1);
                v.item.truncate(v.ends.last().map_or(0, |end| *end as usize));
            }
            Values::Struct(v) => v.columns.iter_mut().for_each(|c| c.truncate(len)),
        }
        while self.nulls.pop_if(|row| *row >= len).is_some() {}
        self.len = self.len.min(len);
    }

    /// Whether the last value is NULL.
    pub(super) fn last_is_null(&self) -> bool {
        self.len.checked_sub(1).is_some_and(|last| self.nulls.last() == Some(&last))
    }

    /// The last value as a record's key spells it; `None` where it is NULL.
    pub(super) fn last_as_key<'a>(&'a self, scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let last = self.len.checked_sub(1)?;
        if self.nulls.last() == Some(&last) {
            return None;
        }
        scratch.clear();
        let number = match &self.values {
            Values::Utf8(run) => return Some(run.last()),
            Values::Boolean(v) => return Some(if v[last] { b"true" } else { b"false" }),
            Values::Int8(v) => i64::from(v[last]),
            Values::Int16(v) => i64::from(v[last]),
            Values::Int32(v) => i64::from(v[last]),
            Values::Int64(v) => v[last],
            Values::Date32(v) => {
                super::temporal::write_date(scratch, v[last]);
                return Some(scratch);
            }
            Values::Timestamp(v, unit, _) => {
                // The text of a cast to VARCHAR, which is how a sink writes keys: no zone.
                super::temporal::write_timestamp(scratch, v[last], *unit);
                scratch.pop();
                return Some(scratch);
            }
            Values::Decimal128(v, precision, scale) => {
                scratch.extend_from_slice(Decimal128Type::format_decimal(v[last], *precision, *scale).as_bytes());
                return Some(scratch);
            }
            Values::Float32(v) => return Some(cast_to_text(scratch, &Float32Array::from(vec![v[last]]))),
            Values::Float64(v) => return Some(cast_to_text(scratch, &Float64Array::from(vec![v[last]]))),
            _ => return None,
        };
        scratch.extend_from_slice(number.to_string().as_bytes());
        Some(scratch)
    }

    /// Which values are NULL; `None` where none is.
    fn take_nulls(&mut self) -> Option<NullBuffer> {
        let len = std::mem::take(&mut self.len);
        if self.nulls.is_empty() {
            return None;
        }
        let mut valid = BooleanBufferBuilder::new(len);
        valid.append_n(len, true);
        for row in self.nulls.drain(..) {
            valid.set_bit(row, false);
        }
        Some(NullBuffer::new(valid.finish()))
    }

    /// The values as an array. The column is then empty.
    pub(super) fn finish(&mut self) -> ArrayRef {
        let nulls = self.take_nulls();
        match &mut self.values {
            Values::Boolean(v) => Arc::new(BooleanArray::new(BooleanBuffer::from(taken(v)), nulls)),
            Values::Int8(v) => primitive::<Int8Type>(v, nulls),
            Values::Int16(v) => primitive::<Int16Type>(v, nulls),
            Values::Int32(v) => primitive::<Int32Type>(v, nulls),
            Values::Int64(v) => primitive::<Int64Type>(v, nulls),
            Values::Float32(v) => primitive::<Float32Type>(v, nulls),
            Values::Float64(v) => primitive::<Float64Type>(v, nulls),
            Values::Utf8(run) => {
                let (ends, bytes) = run.take();
                Arc::new(StringArray::try_new(ends, bytes, nulls).expect("each text was checked to be UTF-8"))
            }
            Values::Binary(run) => {
                let (ends, bytes) = run.take();
                Arc::new(BinaryArray::new(ends, bytes, nulls))
            }
            Values::Timestamp(v, unit, _) => {
                let v = ScalarBuffer::from(taken(v));
                match unit {
                    TimeUnit::Second => Arc::new(TimestampSecondArray::new(v, nulls)),
                    TimeUnit::Millisecond => Arc::new(TimestampMillisecondArray::new(v, nulls)),
                    TimeUnit::Microsecond => Arc::new(TimestampMicrosecondArray::new(v, nulls)),
                    TimeUnit::Nanosecond => Arc::new(TimestampNanosecondArray::new(v, nulls)),
                }
            }
            Values::Date32(v) => Arc::new(Date32Array::new(ScalarBuffer::from(taken(v)), nulls)),
            Values::Time32(v, unit) => {
                let v = ScalarBuffer::from(taken(v));
                if *unit == TimeUnit::Second {
                    Arc::new(Time32SecondArray::new(v, nulls))
                } else {
                    Arc::new(Time32MillisecondArray::new(v, nulls))
                }
            }
            Values::Time64(v, unit) => {
                let v = ScalarBuffer::from(taken(v));
                if *unit == TimeUnit::Microsecond {
                    Arc::new(Time64MicrosecondArray::new(v, nulls))
                } else {
                    Arc::new(Time64NanosecondArray::new(v, nulls))
                }
            }
            Values::Decimal128(v, precision, scale) => {
                let array = Decimal128Array::new(ScalarBuffer::from(taken(v)), nulls);
                Arc::new(array.with_precision_and_scale(*precision, *scale).expect("the schema has checked precision and scale"))
            }
            Values::Struct(parts) => {
                let arrays = parts.columns.iter_mut().map(Self::finish).collect();
                Arc::new(StructArray::new(parts.fields.clone(), arrays, nulls))
            }
            Values::List(items) => {
                let ends = std::mem::replace(&mut items.ends, vec![0]);
                let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
                Arc::new(ListArray::new(Arc::clone(&items.field), ends, items.item.finish(), nulls))
            }
        }
    }
}

/// The values, without much room behind them: they may be kept for long.
fn taken<T>(values: &mut Vec<T>) -> Vec<T> {
    let mut taken = std::mem::take(values);
    fit(&mut taken);
    taken
}

fn fit<T>(values: &mut Vec<T>) {
    if values.capacity() / 2 > values.len() {
        values.shrink_to_fit();
    }
}

fn primitive<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef
where
    ScalarBuffer<T::Native>: From<Vec<T::Native>>,
{
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(taken(values)), nulls))
}
