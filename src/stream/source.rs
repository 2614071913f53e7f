//! Where rows come from: a partition decoded once for every query that reads it, and the stamp of time.
//!
//! [`Feed`] owns the recent decoded chunks of one partition of one stream; thirty queries that read the
//! same offsets share one decoding. [`Stamper`] turns decoded rows into [`Rows`]: event time, and the
//! partition's watermark just before each row. Called by the tasks and by the stream's intake.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, TimeUnit};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::element::{Aside, AsideRow, Deletion, NO_TIME, Rows};
use super::operator::{Expr, StreamError};
use crate::bus::{Bus, Reader};
use crate::format::{BadRecord, Decoder, StreamSchema, Tombstone};
use crate::record::{Batch, Offset, PartitionId, TopicPartition};
use crate::time::Timestamp;

/// How much raw input one chunk takes at most (a larger single batch comes whole).
const CHUNK_BYTES: usize = 1 << 20;
/// How many decoded chunks a feed keeps for the queries that come a little later.
const KEPT_CHUNKS: usize = 4;
/// How many chunks the intake and the page decode ahead of the queries, so that they find them done; more would be gone before they come.
const AHEAD_CHUNKS: usize = 2;
/// How long they wait for them there.
const AHEAD_WAIT: Duration = Duration::from_millis(100);
/// A row this far ahead of the clock is not believed at all.
pub const FAR_AHEAD_MS: i64 = 86_400_000;

/// A run of one partition's records, decoded.
#[derive(Debug)]
pub struct Chunk {
    /// The first offset it covers.
    pub from: Offset,
    /// The first offset behind it.
    pub next: Offset,
    /// The good rows.
    pub rows: RecordBatch,
    /// Their offsets.
    pub offsets: ScalarBuffer<i64>,
    /// The records that are no row of the stream.
    pub bad: Vec<BadRecord>,
    /// The records that delete a table's row, in order.
    pub tombstones: Vec<Tombstone>,
    /// The records as they came, for dead letters and late rows.
    pub raw: Vec<Batch>,
}

impl Chunk {
    /// How many bytes of log the chunk was decoded from.
    #[must_use]
    pub fn raw_bytes(&self) -> usize {
        self.raw.iter().map(Batch::len_bytes).sum()
    }

    /// Whether it holds so much that more is likely to lie ready behind it. One that was cut before a record that nobody gets past
    /// does not.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.raw_bytes() > CHUNK_BYTES / 2 && self.raw.last().is_some_and(|last| last.next_offset() <= self.next)
    }

    /// The index of the first row at or after `from`.
    fn first_at(&self, from: Offset) -> usize {
        self.offsets.partition_point(|offset| *offset < from.0)
    }
}

/// One partition of one stream, decoded once.
pub struct Feed {
    bus: Arc<dyn Bus>,
    partition: TopicPartition,
    /// Whether a record that is no row ends the reading (`'bad-records' = 'fail'`).
    strict: bool,
    decoding: tokio::sync::Mutex<Decoding>,
    recent: Mutex<Recent>,
    /// A query has asked for a chunk.
    asked: Notify,
    /// How long those who go ahead wait for one.
    wait: Duration,
}

struct Decoding {
    decoder: Decoder,
    reader: Option<Box<dyn Reader>>,
}

/// The chunks that are kept, and how those who go ahead stand to the queries.
#[derive(Default)]
struct Recent {
    chunks: VecDeque<Arc<Chunk>>,
    /// How many chunks have been decoded for them since a query asked for one.
    ahead: usize,
    /// Whether no query came while they waited.
    alone: bool,
}

impl Recent {
    fn find(&self, from: Offset) -> Option<Arc<Chunk>> {
        self.chunks.iter().rev().find(|c| c.from <= from && from < c.next).map(Arc::clone)
    }

    fn keep(&mut self, chunk: &Arc<Chunk>) {
        if self.chunks.len() == KEPT_CHUNKS {
            self.chunks.pop_front();
        }
        self.chunks.push_back(Arc::clone(chunk));
    }
}

impl Feed {
    /// A feed over `partition`, its records read as `schema` says; a `strict` one goes no further than the first
    /// record that is no row.
    #[must_use]
    pub fn new(bus: Arc<dyn Bus>, partition: TopicPartition, schema: Arc<StreamSchema>, strict: bool) -> Self {
        let decoding = tokio::sync::Mutex::new(Decoding { decoder: Decoder::new(schema), reader: None });
        Self { bus, partition, strict, decoding, recent: Mutex::default(), asked: Notify::new(), wait: AHEAD_WAIT }
    }

    /// The partition it reads.
    #[must_use]
    pub const fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// The chunk that holds `from`, or `None` where the partition has nothing there yet. Its first rows
    /// may lie below `from`.
    pub async fn poll(&self, from: Offset) -> Result<Option<Arc<Chunk>>, StreamError> {
        let chunk = self.chunk(from).await?;
        {
            let mut recent = self.recent.lock();
            recent.alone = false;
            if let Some(chunk) = &chunk {
                recent.ahead = recent.chunks.iter().rev().take_while(|later| later.from > chunk.from).count();
            }
        }
        self.asked.notify_waiters();
        Ok(chunk)
    }

    /// The same for those who look at what the queries read too and have less to do, the intake and the page: they go before the queries,
    /// but only so far that these still find what was decoded. Where no query comes they go on by themselves.
    pub async fn poll_ahead(&self, from: Offset) -> Result<Option<Arc<Chunk>>, StreamError> {
        loop {
            // Before the look: a query that asks right behind it is heard.
            let asked = self.asked.notified();
            let (known, may) = {
                let recent = self.recent.lock();
                (recent.find(from), recent.alone || recent.ahead < AHEAD_CHUNKS)
            };
            if known.is_some() {
                return Ok(known);
            }
            if may {
                let chunk = self.chunk(from).await?;
                self.recent.lock().ahead += usize::from(chunk.is_some());
                return Ok(chunk);
            }
            if tokio::time::timeout(self.wait, asked).await.is_err() {
                self.recent.lock().alone = true;
            }
        }
    }

    async fn chunk(&self, from: Offset) -> Result<Option<Arc<Chunk>>, StreamError> {
        let known = self.recent.lock().find(from);
        if known.is_some() {
            return Ok(known);
        }
        let mut decoding = self.decoding.lock().await;
        // Another may have decoded it meanwhile.
        let known = self.recent.lock().find(from);
        if known.is_some() {
            return Ok(known);
        }
        let mut reader = match decoding.reader.take() {
            Some(reader) if reader.position() == from => reader,
            _ => self.bus.open(&self.partition, from).await?,
        };
        let raw = reader.poll(CHUNK_BYTES).await?;
        let next = reader.position();
        decoding.reader = Some(reader);
        if raw.is_empty() {
            // Offsets may be skipped without records behind them: an empty stretch still moves on.
            return Ok((next > from).then(|| Arc::new(empty_chunk(&decoding.decoder, from, next))));
        }
        let decoded = decoding.decoder.decode_asking(self.partition.partition, &raw, from).await?;
        // The decoder may stop before the last batch (a gigabyte of plain bytes, a schema to be asked for): the rest is read again
        // from there.
        let next = next.min(decoded.next.max(from.plus(1)));
        let (rows, offsets, bad, tombstones) = (decoded.rows, decoded.offsets, decoded.bad, decoded.tombstones);
        let mut chunk = Chunk { from, next, rows, offsets, bad, tombstones, raw };
        if self.strict {
            chunk = self.upto_bad(chunk)?;
        }
        let chunk = Arc::new(chunk);
        self.recent.lock().keep(&chunk);
        Ok(Some(chunk))
    }

    /// What stands before the first bad record; an error where that is the next one.
    fn upto_bad(&self, mut chunk: Chunk) -> Result<Chunk, StreamError> {
        let Some(bad) = chunk.bad.iter().find(|bad| bad.offset >= chunk.from) else { return Ok(chunk) };
        if bad.offset == chunk.from {
            let (partition, offset, why) = (self.partition.clone(), bad.offset, bad.reason.clone());
            return Err(StreamError::BadRecord { partition, offset, why });
        }
        let good = chunk.first_at(bad.offset);
        chunk.next = bad.offset;
        chunk.rows = chunk.rows.slice(0, good);
        chunk.offsets = chunk.offsets.slice(0, good);
        chunk.tombstones.retain(|tombstone| tombstone.offset < chunk.next);
        chunk.bad.clear();
        Ok(chunk)
    }
}

fn empty_chunk(decoder: &Decoder, from: Offset, next: Offset) -> Chunk {
    let rows = RecordBatch::new_empty(decoder.arrow_schema());
    Chunk { from, next, rows, offsets: ScalarBuffer::from(Vec::new()), bad: Vec::new(), tombstones: Vec::new(), raw: Vec::new() }
}

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

/// Stamps the rows of one partition with their time and the watermark before each.
#[derive(Clone, Debug)]
pub struct Stamper {
    rule: TimeRule,
    partition: PartitionId,
    watermark: i64,
    /// How far the watermark can have come with these rows, where that is known: they are read again.
    most: i64,
}

impl Stamper {
    /// A stamper that has seen nothing.
    #[must_use]
    pub const fn new(rule: TimeRule, partition: PartitionId) -> Self {
        Self { rule, partition, watermark: Timestamp::MIN.0, most: Timestamp::MAX.0 }
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
        let (batch, offsets) = (chunk.rows.slice(first, len), chunk.offsets.slice(first, len));
        self.stamp_batch(batch, offsets, judge, aside)
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

    fn judge(&self, now: Timestamp, times: &ScalarBuffer<i64>, offsets: &ScalarBuffer<i64>) -> AheadRows {
        let mut noted = AheadRows::default();
        let far = now.plus(FAR_AHEAD_MS).0;
        let near = self.rule.max_future_ms.map_or(i64::MAX, |ms| now.plus(ms).0);
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
    use super::*;
    use crate::broker::TestDisk;
    use crate::bus::{EmbeddedBus, TopicBatch, TopicSpec};
    use crate::format::{FieldSpec, Format};
    use crate::record::{BatchBuilder, TopicName};
    use crate::stream::checkpoint::CommitRecord;
    use crate::stream::doubles::{Column, Partition};

    /// A feed over records of eight chunks and more, and where they end.
    async fn feed() -> (Feed, Offset) {
        let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::new(TestDisk::default().broker().await));
        let topic = TopicName::new("t").unwrap();
        bus.ensure_topic(&topic, &TopicSpec { partitions: 1, configs: BTreeMap::new() }).await.unwrap();
        let place = TopicPartition::new(topic, PartitionId(0));
        let value = format!(r#"{{"a":"{}"}}"#, "x".repeat(10_000));
        for _ in 0..36 {
            let mut records = BatchBuilder::new();
            (0..25).for_each(|_| records.push(0, None, Some(value.as_bytes()), &[]));
            bus.append(vec![TopicBatch { to: place.clone(), records }]).await.unwrap();
        }
        let end = bus.bounds(&place).await.unwrap().end;
        let schema = StreamSchema::new(Format::Json, vec![FieldSpec::new("a", DataType::Utf8)]).unwrap();
        (Feed::new(bus, place, Arc::new(schema), false), end)
    }

    /// What the intake reads from the beginning to `end`.
    async fn ahead(feed: &Feed, end: Offset) -> Vec<Arc<Chunk>> {
        let (mut at, mut chunks) = (Offset::ZERO, Vec::new());
        while at < end {
            let chunk = feed.poll_ahead(at).await.unwrap().unwrap();
            at = chunk.next;
            chunks.push(chunk);
        }
        chunks
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_the_intake_decodes_the_query_behind_it_does_not_decode_again() {
        let (feed, end) = feed().await;
        // However slow the machine, the query comes.
        let feed = Arc::new(Feed { wait: Duration::from_secs(600), ..feed });
        let intake = tokio::spawn({
            let feed = Arc::clone(&feed);
            async move { ahead(&feed, end).await }
        });
        let (mut at, mut chunks) = (Offset::ZERO, Vec::new());
        while at < end {
            // The query has more to do: the intake goes as far before it as it may.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let chunk = feed.poll(at).await.unwrap().unwrap();
            at = chunk.next;
            chunks.push(chunk);
        }
        let judged = intake.await.unwrap();
        assert!(chunks.len() >= 8, "{} chunks", chunks.len());
        assert_eq!(chunks.len(), judged.len());
        assert!(chunks.iter().zip(&judged).all(|(a, b)| Arc::ptr_eq(a, b)), "a chunk was decoded twice");
    }

    #[tokio::test]
    async fn the_intake_goes_on_alone_where_no_query_comes() {
        let (feed, end) = feed().await;
        assert!(ahead(&feed, end).await.len() >= 8);
        // And a query that comes later finds it all the same, from the beginning.
        assert_eq!(feed.poll(Offset::ZERO).await.unwrap().unwrap().from, Offset::ZERO);
    }

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
}
