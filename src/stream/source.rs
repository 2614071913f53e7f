//! The stamp of time on the rows of a partition.
//!
//! [`Stamper`] turns decoded rows into [`Rows`]: event time, and the partition's watermark just before each row. Called by the
//! tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, TimeUnit};

use super::element::{Aside, AsideRow, Deletion, NO_TIME, Rows};
use super::feed::Chunk;
use super::operator::{Expr, StreamError};
use crate::format::Tombstone;
use crate::record::{Offset, PartitionId};
use crate::time::Timestamp;

/// A row this far ahead of the clock is not believed at all.
pub const FAR_AHEAD_MS: i64 = 86_400_000;

/// How a stream tells time: which column is the event time, and the WATERMARK expression over it.
#[derive(Clone, Debug)]
pub struct TimeRule {
    /// The event time: a TIMESTAMP column or an expression that yields one. `None` for a stream
    /// without a watermark, whose rows have no event time.
    pub time: Option<Arc<dyn Expr>>,
    /// What a row promises: no more rows earlier than this.
    pub watermark: Option<Arc<dyn Expr>>,
    /// How far ahead of the clock a row may be and still move the watermark; `None` for any.
    pub max_future_ms: Option<i64>,
}

/// What the clock said of rows that are ahead of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AheadRows {
    /// The offsets of rows that count in their windows and do not move the watermark, each with the clock's time.
    pub ahead: BTreeMap<i64, i64>,
    /// The offsets of those that go aside.
    pub far: BTreeSet<i64>,
}

impl AheadRows {
    /// Whether nothing was ahead.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ahead.is_empty() && self.far.is_empty()
    }
}

/// Who decides which rows are ahead of the clock.
pub enum AheadJudge<'a> {
    /// The clock, now; what it decides is noted.
    Clock(Timestamp, &'a mut AheadRows),
    /// An earlier run, whose decisions are repeated.
    Recorded(&'a AheadRows),
    /// Nobody: history has no clock.
    Nobody,
}

impl AheadJudge<'_> {
    /// The same judge once more.
    fn again(&mut self) -> AheadJudge<'_> {
        match self {
            Self::Clock(now, noted) => AheadJudge::Clock(*now, noted),
            Self::Recorded(rows) => AheadJudge::Recorded(rows),
            Self::Nobody => AheadJudge::Nobody,
        }
    }
}

/// What a table's partition says next.
#[derive(Debug)]
pub enum Piece {
    /// Rows, in offset order.
    Rows(Rows),
    /// A key's row is gone.
    Deletion(Deletion),
}

/// What all rows of a chunk say of time to one who has heard so much before it: found once for all queries of the stream that go
/// through it together.
#[derive(Debug)]
pub(super) struct Stamped {
    /// The stream's rule, in words.
    rule: String,
    /// The watermark before the first row.
    since: i64,
    times: ScalarBuffer<i64>,
    /// The latest of them.
    latest: i64,
    before: ScalarBuffer<i64>,
    /// The watermark behind the last row, where no row is ahead of the clock.
    watermark: i64,
}

/// Stamps the rows of one partition with their time and the watermark before each.
#[derive(Clone, Debug)]
pub struct Stamper {
    rule: TimeRule,
    /// The rule in words.
    words: String,
    partition: PartitionId,
    watermark: i64,
    /// How far the watermark can have come with these rows, where that is known: they are read again.
    most: i64,
}

impl Stamper {
    /// A stamper that has seen nothing.
    #[must_use]
    pub fn new(rule: TimeRule, partition: PartitionId) -> Self {
        let text = |of: &Option<Arc<dyn Expr>>| of.as_ref().map(|of| of.text());
        let words = format!("{:?} {:?}", text(&rule.time), text(&rule.watermark));
        Self { rule, words, partition, watermark: Timestamp::MIN.0, most: Timestamp::MAX.0 }
    }

    /// The partition's watermark after all rows so far.
    #[must_use]
    pub const fn watermark(&self) -> Timestamp {
        Timestamp(self.watermark)
    }

    /// Moves the watermark to `at`, never back: a restored checkpoint, or a TIMEOUT.
    pub fn raise(&mut self, at: Timestamp) {
        self.watermark = self.watermark.max(at.0);
    }

    /// Rows that would move the watermark further than this were ahead of the clock when they were first read, and do not move it. What
    /// comes behind them is read for the first time where it is [`Timestamp::MAX`].
    pub fn bound(&mut self, most: Timestamp) {
        self.most = most.0;
    }

    /// Sets the watermark, back too: the rows are read again from where it was `at`.
    pub fn stand(&mut self, at: Timestamp) {
        self.watermark = at.0;
    }

    /// Stamps the chunk's rows from offset `from` up to (not including) `to`. Rows that are far ahead go to `aside`.
    pub fn stamp(
        &mut self,
        chunk: &Chunk,
        from: Offset,
        to: Offset,
        judge: AheadJudge<'_>,
        aside: &mut Vec<AsideRow>,
    ) -> Result<Rows, StreamError> {
        let first = chunk.first_at(from);
        let len = chunk.first_at(to).saturating_sub(first);
        if len > 0
            && len == chunk.rows.num_rows()
            && let Some(rows) = self.as_for_others(chunk, &judge)?
        {
            return Ok(rows);
        }
        let (batch, offsets) = (chunk.rows.slice(first, len), chunk.offsets.slice(first, len));
        self.stamp_batch(batch, offsets, judge, aside)
    }

    /// All rows of a chunk as they are stamped for whoever has heard as much; `None` where they are not the same for this one, or some
    /// are ahead of the clock.
    fn as_for_others(&mut self, chunk: &Chunk, judge: &AheadJudge<'_>) -> Result<Option<Rows>, StreamError> {
        if self.most < Timestamp::MAX.0 {
            return Ok(None);
        }
        let stamped = match chunk.stamped.get() {
            Some(stamped) => stamped,
            None => {
                let found = self.stamped(&chunk.rows)?;
                chunk.stamped.get_or_init(|| found)
            }
        };
        let nothing_is_ahead = match judge {
            AheadJudge::Nobody => true,
            AheadJudge::Recorded(rows) => rows.is_empty(),
            AheadJudge::Clock(now, _) => stamped.latest <= self.near(*now),
        };
        if !nothing_is_ahead || stamped.since != self.watermark || stamped.rule != self.words {
            return Ok(None);
        }
        self.watermark = stamped.watermark;
        let (times, before) = (stamped.times.clone(), stamped.before.clone());
        let (batch, offsets) = (chunk.rows.clone(), chunk.offsets.clone());
        Ok(Some(Rows { batch, partition: self.partition, offsets, times, before, heard: None, gone: false }))
    }

    fn stamped(&self, batch: &RecordBatch) -> Result<Stamped, StreamError> {
        let (times, promises) = (self.times(batch)?, self.promises(batch)?);
        let (since, mut watermark) = (self.watermark, self.watermark);
        let mut next = |promise: i64| {
            let before = watermark;
            watermark = watermark.max(promise);
            before
        };
        let before: Vec<i64> = match &promises {
            Some(promises) if promises.null_count() == 0 => promises.values().iter().map(|promise| next(*promise)).collect(),
            // Who promises nothing moves nothing.
            Some(promises) => promises.iter().map(|promise| next(promise.unwrap_or(Timestamp::MIN.0))).collect(),
            None => vec![since; batch.num_rows()],
        };
        let latest = times.iter().copied().max().unwrap_or(NO_TIME);
        Ok(Stamped { rule: self.words.clone(), since, times, latest, before: before.into(), watermark })
    }

    /// Stamps the chunk's rows and deletions from offset `from` up to (not including) `to`, in order.
    pub fn stamp_pieces(
        &mut self,
        chunk: &Chunk,
        from: Offset,
        to: Offset,
        judge: AheadJudge<'_>,
        aside: &mut Vec<AsideRow>,
    ) -> Result<Vec<Piece>, StreamError> {
        let first = chunk.first_at(from);
        let len = chunk.first_at(to).saturating_sub(first);
        let tombstones: Vec<&Tombstone> = chunk.tombstones.iter().filter(|t| from <= t.offset && t.offset < to).collect();
        self.pieces(&chunk.rows.slice(first, len), &chunk.offsets.slice(first, len), &tombstones, judge, aside)
    }

    /// Stamps rows and deletions that are already cut to size. A deletion tells no time.
    pub fn pieces(
        &mut self,
        batch: &RecordBatch,
        offsets: &ScalarBuffer<i64>,
        tombstones: &[&Tombstone],
        mut judge: AheadJudge<'_>,
        aside: &mut Vec<AsideRow>,
    ) -> Result<Vec<Piece>, StreamError> {
        let mut pieces = Vec::with_capacity(1 + 2 * tombstones.len());
        let mut done = 0;
        for tombstone in tombstones {
            let upto = offsets.partition_point(|offset| *offset < tombstone.offset.0).max(done);
            if upto > done {
                let (rows, places) = (batch.slice(done, upto - done), offsets.slice(done, upto - done));
                pieces.push(Piece::Rows(self.stamp_batch(rows, places, judge.again(), aside)?));
                done = upto;
            }
            pieces.push(Piece::Deletion(Deletion {
                partition: self.partition,
                offset: tombstone.offset.0,
                time: tombstone.timestamp,
                before: self.watermark,
                key: tombstone.key.clone(),
            }));
        }
        let left = batch.num_rows() - done;
        pieces.push(Piece::Rows(self.stamp_batch(batch.slice(done, left), offsets.slice(done, left), judge, aside)?));
        Ok(pieces)
    }

    /// Stamps rows that are already cut to size.
    pub fn stamp_batch(
        &mut self,
        mut batch: RecordBatch,
        mut offsets: ScalarBuffer<i64>,
        judge: AheadJudge<'_>,
        aside: &mut Vec<AsideRow>,
    ) -> Result<Rows, StreamError> {
        let mut times = self.times(&batch)?;
        let fresh;
        let recorded = match judge {
            AheadJudge::Nobody => None,
            AheadJudge::Recorded(rows) => Some(rows),
            AheadJudge::Clock(now, noted) => {
                fresh = self.judge(now, &times, &offsets);
                noted.ahead.extend(&fresh.ahead);
                noted.far.extend(&fresh.far);
                Some(&fresh)
            }
        };
        if let Some(far) = recorded.map(|r| &r.far).filter(|far| offsets.iter().any(|o| far.contains(o))) {
            for offset in offsets.iter().filter(|o| far.contains(o)) {
                aside.push(AsideRow { partition: self.partition, offset: *offset, why: Aside::FarAhead });
            }
            let keep = BooleanArray::from_iter(offsets.iter().map(|o| Some(!far.contains(o))));
            batch = filter_record_batch(&batch, &keep).map_err(|e| failed("the rows ahead of the clock", &e.to_string()))?;
            let kept = |values: &ScalarBuffer<i64>| values.iter().zip(keep.values()).filter(|(_, k)| *k).map(|(v, _)| *v).collect();
            times = kept(&times);
            offsets = kept(&offsets);
        }
        let promises = self.promises(&batch)?;
        let mut before = Vec::with_capacity(batch.num_rows());
        let ahead = recorded.map(|r| &r.ahead).filter(|a| !a.is_empty());
        let mut heard = (ahead.is_some() || self.most < Timestamp::MAX.0).then(|| times.to_vec());
        for row in 0..batch.num_rows() {
            before.push(self.watermark);
            if let (Some(clock), Some(heard)) = (ahead.and_then(|a| a.get(&offsets[row])), &mut heard) {
                heard[row] = self.watermark.max(*clock);
                continue;
            }
            if let Some(promises) = &promises
                && promises.is_valid(row)
            {
                if promises.value(row) > self.most {
                    // When it was heard is not known: at about the latest there is.
                    heard.iter_mut().for_each(|heard| heard[row] = self.watermark.max(self.most));
                    continue;
                }
                self.watermark = self.watermark.max(promises.value(row));
            }
        }
        let heard = heard.map(ScalarBuffer::from).filter(|heard| heard[..] != times[..]);
        Ok(Rows { batch, partition: self.partition, offsets, times, before: before.into(), heard, gone: false })
    }

    /// What is later than this is ahead of the clock.
    fn near(&self, now: Timestamp) -> i64 {
        self.rule.max_future_ms.map_or(i64::MAX, |ms| now.plus(ms).0)
    }

    fn judge(&self, now: Timestamp, times: &ScalarBuffer<i64>, offsets: &ScalarBuffer<i64>) -> AheadRows {
        let mut noted = AheadRows::default();
        let far = now.plus(FAR_AHEAD_MS).0;
        let near = self.near(now);
        if self.rule.max_future_ms.is_none() || times.iter().copied().max().is_none_or(|latest| latest <= near) {
            return noted;
        }
        for (time, offset) in times.iter().zip(offsets) {
            if *time > far {
                noted.far.insert(*offset);
            } else if *time > near {
                noted.ahead.insert(*offset, now.0);
            }
        }
        noted
    }

    fn times(&self, batch: &RecordBatch) -> Result<ScalarBuffer<i64>, StreamError> {
        let Some(rule) = &self.rule.time else { return Ok(vec![NO_TIME; batch.num_rows()].into()) };
        let column = millis(&rule.evaluate(batch)?)?;
        if column.null_count() == 0 {
            return Ok(column.values().clone());
        }
        Ok(column.iter().map(|time| time.unwrap_or(NO_TIME)).collect())
    }

    fn promises(&self, batch: &RecordBatch) -> Result<Option<Int64Array>, StreamError> {
        match &self.rule.watermark {
            Some(rule) => Ok(Some(millis(&rule.evaluate(batch)?)?)),
            None => Ok(None),
        }
    }
}

/// A timestamp column of any unit as milliseconds.
pub fn millis(column: &ArrayRef) -> Result<Int64Array, StreamError> {
    let unit = DataType::Timestamp(TimeUnit::Millisecond, None);
    let cast_to_unit;
    let column = if column.data_type() == &unit {
        column
    } else {
        cast_to_unit = cast(column, &unit).map_err(|e| failed("the event time", &e.to_string()))?;
        &cast_to_unit
    };
    let typed = column.as_any().downcast_ref::<TimestampMillisecondArray>().expect("the cast gives this type");
    Ok(Int64Array::new(typed.values().clone(), typed.nulls().cloned()))
}

fn failed(what: &str, why: &str) -> StreamError {
    StreamError::Evaluate { what: what.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stream::checkpoint::CommitRecord;
    use crate::stream::doubles::{Column, Partition};

    #[test]
    fn what_the_clock_said_of_rows_ahead_is_said_again_from_the_commit() {
        let rule = TimeRule { time: Some(Arc::new(Column(1))), watermark: Some(Arc::new(Column(1))), max_future_ms: Some(10_000) };
        let day = FAR_AHEAD_MS;
        let partition =
            Partition::new(0, 0, &[("a", Some(5), None), ("a", Some(60_000), None), ("a", Some(9), None), ("a", Some(2 * day), None)]);
        let stamped = |judge: AheadJudge<'_>| {
            let (mut stamper, mut aside) = (Stamper::new(rule.clone(), PartitionId(0)), Vec::new());
            let of = partition.rows();
            let rows = stamper.stamp_batch(of.batch.clone(), of.offsets.clone(), judge, &mut aside).unwrap();
            (rows.heard.unwrap().to_vec(), rows.before.to_vec(), aside, stamper.watermark())
        };
        let mut noted = AheadRows::default();
        let first = stamped(AheadJudge::Clock(Timestamp(7), &mut noted));
        assert_eq!(first.0, [5, 7, 9], "the row ahead is heard when the clock says, the one far ahead is gone");
        assert_eq!(first.3, Timestamp(9));
        let mut commit = CommitRecord::default();
        commit.note_ahead(0, &noted);
        let commit: CommitRecord = serde_json::from_slice(&serde_json::to_vec(&commit).unwrap()).unwrap();
        assert_eq!(stamped(AheadJudge::Recorded(&commit.ahead_of(0))), first);
    }

    proptest! {
        #[test]
        fn a_chunk_is_stamped_for_all_as_for_one(
            times in proptest::collection::vec(proptest::option::weighted(0.9, 0..50i64), 1..20),
            followers in proptest::collection::vec((proptest::option::of(0..60i64), 0..4u8), 1..6),
        ) {
            let readings: Vec<_> = times.iter().map(|at| ("a", *at, None)).collect();
            let partition = Partition::new(0, 0, &readings);
            let of = partition.rows();
            let chunk = || Chunk::of(of.batch.clone(), of.offsets.clone());
            let rule = TimeRule { time: Some(Arc::new(Column(1))), watermark: Some(Arc::new(Column(1))), max_future_ms: Some(10) };
            let shared = chunk();
            for (since, judge) in followers {
                let stamp = |chunk: &Chunk| {
                    let (mut stamper, mut aside) = (Stamper::new(rule.clone(), PartitionId(0)), Vec::new());
                    stamper.raise(Timestamp(since.unwrap_or(i64::MIN)));
                    let (mut noted, recorded) = (AheadRows::default(), AheadRows { ahead: [(0, 5)].into(), ..AheadRows::default() });
                    let none = AheadRows::default();
                    let judge = match judge {
                        0 => AheadJudge::Nobody,
                        1 => AheadJudge::Clock(Timestamp(30), &mut noted),
                        2 => AheadJudge::Recorded(&recorded),
                        _ => AheadJudge::Recorded(&none),
                    };
                    let rows = stamper.stamp(chunk, Offset::ZERO, chunk.next, judge, &mut aside).unwrap();
                    let heard = rows.heard.map(|heard| heard.to_vec());
                    (rows.times.to_vec(), rows.before.to_vec(), heard, stamper.watermark(), noted, rows.batch, rows.offsets)
                };
                prop_assert_eq!(stamp(&shared), stamp(&chunk()));
                // And as what is cut to size, which nobody shares.
                let whole = stamp(&chunk());
                let (mut stamper, mut aside) = (Stamper::new(rule.clone(), PartitionId(0)), Vec::new());
                stamper.raise(Timestamp(since.unwrap_or(i64::MIN)));
                if judge == 0 {
                    let rows = stamper.stamp_batch(of.batch.clone(), of.offsets.clone(), AheadJudge::Nobody, &mut aside).unwrap();
                    prop_assert_eq!((rows.times.to_vec(), rows.before.to_vec(), stamper.watermark()), (whole.0, whole.1, whole.3));
                }
            }
        }
    }
}
