//! The reorder buffer: rows wait here until the watermark has passed them, and leave in event-time order.
//!
//! Holds sorted segments, in order of arrival. Always: what [`Buffer::release`] gives is ordered by
//! (time, partition, offset), and rows that agree in all three leave in the order in which they came. [`on_time`] says
//! which rows may go in, and [`Held::hand_on`] puts what was made of those that left on their way.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Schema};

use crate::record::PartitionId;
use crate::stream::rowwise::{arrow_error, take_column, take_rows};
use crate::stream::window::ints_of;
use crate::stream::{Aside, AsideRow, NO_TIME, Output, Rows, StreamError};

/// Above this number of segments neighbours of like size are merged.
const MANY_SEGMENTS: usize = 16;
/// Rows leave in batches of at most this many.
const BATCH_ROWS: usize = 8192;

/// A place in up to a million rows takes so many bits.
const PLACE_BITS: u32 = 20;

/// Rows in order, with where each came from.
#[derive(Clone, Debug)]
pub(in crate::stream) struct Held {
    pub columns: Vec<ArrayRef>,
    pub times: Vec<i64>,
    pub partitions: Vec<i32>,
    pub offsets: Vec<i64>,
}

impl Held {
    pub(in crate::stream) fn len(&self) -> usize {
        self.times.len()
    }

    fn slice(&self, from: usize, len: usize) -> Self {
        Self {
            columns: self.columns.iter().map(|column| column.slice(from, len)).collect(),
            times: self.times[from..from + len].to_vec(),
            partitions: self.partitions[from..from + len].to_vec(),
            offsets: self.offsets[from..from + len].to_vec(),
        }
    }
}

impl Held {
    /// Hands on rows made of these, one each: as the watermark before a row that leaves its own time is given, for none
    /// older will follow.
    pub(in crate::stream) fn hand_on(&self, batch: RecordBatch, out: &mut Output) {
        let all = Rows {
            batch,
            partition: PartitionId(0),
            offsets: self.offsets.clone().into(),
            times: self.times.clone().into(),
            before: self.times.clone().into(),
            heard: None,
            gone: false,
        };
        // Rows name one partition for all of them, so a run of another partition is another `Rows`.
        let mut from = 0;
        while from < self.len() {
            let partition = self.partitions[from];
            let len = self.partitions[from..].iter().take_while(|p| **p == partition).count();
            out.rows.push(Rows { partition: PartitionId(partition), ..all.slice(from, len) });
            from += len;
        }
    }

    /// The rows at these places alone.
    pub(in crate::stream) fn picked(&self, rows: &[u32]) -> Result<Self, StreamError> {
        let places = UInt32Array::from(rows.to_vec());
        Ok(Self {
            columns: self.columns.iter().map(|column| take_column(column, &places)).collect::<Result<_, _>>()?,
            times: rows.iter().map(|row| self.times[*row as usize]).collect(),
            partitions: rows.iter().map(|row| self.partitions[*row as usize]).collect(),
            offsets: rows.iter().map(|row| self.offsets[*row as usize]).collect(),
        })
    }
}

/// The rows that are not older than their partition's watermark just before them, nor than `mark`, before which
/// everything has left; the others go aside.
pub(in crate::stream) fn on_time<'a>(rows: &'a Rows, mark: i64, out: &mut Output) -> Result<Cow<'a, Rows>, StreamError> {
    let late = |row: usize| rows.times[row] == NO_TIME || rows.times[row] < rows.before[row].max(mark);
    let on_time: Vec<u32> = (0..rows.len()).filter(|row| !late(*row)).map(|row| row as u32).collect();
    if on_time.len() == rows.len() {
        return Ok(Cow::Borrowed(rows));
    }
    let aside = |row| AsideRow { partition: rows.partition, offset: rows.offsets[row], why: Aside::Late };
    out.aside.extend((0..rows.len()).filter(|row| late(*row)).map(aside));
    Ok(Cow::Owned(take_rows(rows, &on_time)?))
}

/// The buffer.
#[derive(Debug, Default)]
pub(in crate::stream) struct Buffer {
    segments: Vec<Segment>,
}

/// A sorted run; what lies before `from` has left.
#[derive(Debug)]
struct Segment {
    held: Held,
    /// Where in the columns each row lies; `None` where they are in order themselves. So that columns are moved once only, when
    /// their rows leave.
    order: Option<Vec<u32>>,
    from: usize,
}

impl Segment {
    const fn in_order(held: Held) -> Self {
        Self { held, order: None, from: 0 }
    }

    fn left(&self) -> usize {
        self.held.len() - self.from
    }

    /// Where in the columns a row lies.
    fn place(&self, row: usize) -> usize {
        self.order.as_ref().map_or(row, |order| order[row] as usize)
    }

    /// Some of its rows, all by themselves.
    fn part(&self, from: usize, len: usize) -> Result<Held, StreamError> {
        let part = self.held.slice(from, len);
        let Some(order) = &self.order else { return Ok(part) };
        let places = UInt32Array::from(order[from..from + len].to_vec());
        let columns = self.held.columns.iter().map(|column| take_column(column, &places)).collect::<Result<_, _>>()?;
        Ok(Held { columns, ..part })
    }
}

/// The order of rows by (time, offset); `None` where they stand in it.
fn order_of(times: &[i64], offsets: &[i64]) -> Option<Vec<u32>> {
    if times.windows(2).zip(offsets.windows(2)).all(|(t, o)| (t[0], o[0]) <= (t[1], o[1])) {
        return None;
    }
    let (least, most) = times.iter().fold((i64::MAX, i64::MIN), |(least, most), at| (least.min(*at), most.max(*at)));
    let fits = most.checked_sub(least).is_some_and(|span| span < 1 << (63 - PLACE_BITS)) && times.len() <= 1 << PLACE_BITS;
    if fits && offsets.is_sorted() {
        // The offset's order is that of the places: time and place in one number are sorted much faster than by looking them up.
        let mut packed: Vec<u64> = times.iter().enumerate().map(|(row, at)| ((at - least) as u64) << PLACE_BITS | row as u64).collect();
        packed.sort_unstable();
        return Some(packed.into_iter().map(|of| (of & ((1 << PLACE_BITS) - 1)) as u32).collect());
    }
    let mut order: Vec<u32> = (0..times.len() as u32).collect();
    order.sort_by_key(|row| (times[*row as usize], offsets[*row as usize]));
    Some(order)
}

/// A row's place in the order: time, partition, offset, then where it lies.
type Place = (i64, i32, i64, u32, u32);

impl Buffer {
    /// Takes the rows that are [`on_time`], with all their columns.
    pub(in crate::stream) fn take(&mut self, rows: &Rows, mark: i64, out: &mut Output) -> Result<(), StreamError> {
        let rows = on_time(rows, mark, out)?;
        if rows.is_empty() { Ok(()) } else { self.push(&rows, rows.batch.columns().to_vec()) }
    }

    /// Takes rows of one partition and the columns to keep of them.
    pub(in crate::stream) fn push(&mut self, rows: &Rows, columns: Vec<ArrayRef>) -> Result<(), StreamError> {
        let mut held =
            Held { columns, times: rows.times.to_vec(), partitions: vec![rows.partition.0; rows.len()], offsets: rows.offsets.to_vec() };
        let order = order_of(&held.times, &held.offsets);
        if let Some(order) = &order {
            held.times = order.iter().map(|row| rows.times[*row as usize]).collect();
            held.offsets = order.iter().map(|row| rows.offsets[*row as usize]).collect();
        }
        self.segments.push(Segment { held, order, from: 0 });
        while self.segments.len() > MANY_SEGMENTS {
            let last = self.segments.len() - 1;
            // The rightmost pair in which the older is not much larger, so that each row is copied a few times only.
            let pair = (1..=last).rev().find(|at| self.segments[at - 1].left() <= 2 * self.segments[*at].left()).unwrap_or(last);
            let merged = self.merge(pair - 1..pair + 1, i64::MAX)?;
            self.segments[pair - 1] = Segment::in_order(merged);
            self.segments.remove(pair);
        }
        Ok(())
    }

    /// Takes out every row older than `before`, in order, in batches; rows of one time are never parted.
    pub(in crate::stream) fn release(&mut self, before: i64) -> Result<Vec<Held>, StreamError> {
        let all = self.merge(0..self.segments.len(), before)?;
        for segment in &mut self.segments {
            segment.from += segment.held.times[segment.from..].partition_point(|at| *at < before);
        }
        self.segments.retain(|segment| segment.left() > 0);
        if (1..=BATCH_ROWS).contains(&all.len()) {
            return Ok(vec![all]);
        }
        let (mut batches, mut from) = (Vec::new(), 0);
        while from < all.len() {
            let mut to = (from + BATCH_ROWS).min(all.len());
            while to < all.len() && all.times[to] == all.times[to - 1] {
                to += 1;
            }
            batches.push(all.slice(from, to - from));
            from = to;
        }
        Ok(batches)
    }

    /// Every row that waits, in order.
    pub(in crate::stream) fn all(&self) -> Result<Held, StreamError> {
        self.merge(0..self.segments.len(), i64::MAX)
    }

    /// The rows of some segments that are older than `before` (all of them, where that is the greatest time).
    fn merge(&self, segments: std::ops::Range<usize>, before: i64) -> Result<Held, StreamError> {
        let end = |segment: &Segment| {
            if before == i64::MAX { segment.held.len() } else { segment.held.times.partition_point(|at| *at < before).max(segment.from) }
        };
        let ready: Vec<usize> = segments.filter(|at| end(&self.segments[*at]) > self.segments[*at].from).collect();
        if let [only] = ready.as_slice() {
            let segment = &self.segments[*only];
            return segment.part(segment.from, end(segment) - segment.from);
        }
        let mut places: Vec<Place> = Vec::new();
        for (number, at) in ready.iter().enumerate() {
            let segment = &self.segments[*at];
            let held = &segment.held;
            places.extend(
                (segment.from..end(segment))
                    .map(|row| (held.times[row], held.partitions[row], held.offsets[row], number as u32, row as u32)),
            );
        }
        // The runs are in order each, which this sort makes use of; no two places are equal.
        places.sort();
        let indices: Vec<(usize, usize)> = places
            .iter()
            .map(|(.., number, row)| (*number as usize, self.segments[ready[*number as usize]].place(*row as usize)))
            .collect();
        let width = ready.first().map_or(0, |at| self.segments[*at].held.columns.len());
        let mut columns = Vec::with_capacity(width);
        for column in 0..width {
            let sources: Vec<&dyn Array> = ready.iter().map(|at| self.segments[*at].held.columns[column].as_ref()).collect();
            columns.push(interleave(&sources, &indices).map_err(|e| arrow_error("the reordered rows", &e))?);
        }
        Ok(Held {
            columns,
            times: places.iter().map(|place| place.0).collect(),
            partitions: places.iter().map(|place| place.1).collect(),
            offsets: places.iter().map(|place| place.2).collect(),
        })
    }

    /// The greatest time that waits, at or before `limit`.
    pub(in crate::stream) fn latest(&self, limit: i64) -> Option<i64> {
        let of = |segment: &Segment| {
            let end = segment.held.times.partition_point(|at| *at <= limit);
            (end > segment.from).then(|| segment.held.times[end - 1])
        };
        self.segments.iter().filter_map(of).max()
    }

    /// About how many bytes wait.
    pub(in crate::stream) fn bytes(&self) -> usize {
        let of = |segment: &Segment| {
            let columns: usize = segment.held.columns.iter().map(|column| column.get_array_memory_size()).sum();
            columns + segment.held.len() * 20
        };
        self.segments.iter().map(of).sum()
    }

    /// Every row that waits, as one batch.
    pub(in crate::stream) fn save(&self) -> Result<Option<RecordBatch>, StreamError> {
        let all = self.all()?;
        if all.len() == 0 {
            return Ok(None);
        }
        let mut fields = vec![
            Field::new("time", DataType::Int64, false),
            Field::new("offset", DataType::Int64, false),
            Field::new("partition", DataType::Int32, false),
        ];
        fields.extend(all.columns.iter().enumerate().map(|(at, column)| Field::new(format!("c{at}"), column.data_type().clone(), true)));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(all.times)),
            Arc::new(Int64Array::from(all.offsets)),
            Arc::new(Int32Array::from(all.partitions)),
        ];
        columns.extend(all.columns);
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
        batch.map(Some).map_err(|e| arrow_error("the waiting rows", &e))
    }

    /// Takes back what [`Buffer::save`] gave; `false` where it is not that.
    pub(in crate::stream) fn restore(&mut self, batch: &RecordBatch, width: usize) -> bool {
        let (Some(times), Some(offsets)) = (ints_of(batch, 0), ints_of(batch, 1)) else { return false };
        let partitions = batch.columns().get(2).and_then(|column| column.as_any().downcast_ref::<Int32Array>());
        let Some(partitions) = partitions.filter(|_| batch.num_columns() == width + 3) else { return false };
        let held = Held {
            columns: batch.columns()[3..].to_vec(),
            times: times.to_vec(),
            partitions: partitions.values().to_vec(),
            offsets: offsets.to_vec(),
        };
        self.segments.push(Segment::in_order(held));
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_order_is_that_of_time_and_offset_and_then_of_arrival(
            rows in proptest::collection::vec((prop_oneof![8 => 0..20_i64, 1 => Just(i64::MIN), 1 => Just(i64::MAX)], 0..3_i64), 0..40),
            rising in any::<bool>(),
        ) {
            let times: Vec<i64> = rows.iter().map(|row| row.0).collect();
            let mut last = 0;
            let offsets: Vec<i64> = rows.iter().map(|row| { last = if rising { last + row.1 } else { row.1 }; last }).collect();
            let mut expected: Vec<u32> = (0..rows.len() as u32).collect();
            expected.sort_by_key(|row| (times[*row as usize], offsets[*row as usize]));
            let found = order_of(&times, &offsets).unwrap_or_else(|| (0..rows.len() as u32).collect());
            prop_assert_eq!(found, expected);
        }
    }
}
