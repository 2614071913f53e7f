//! A partition decoded once for every query that reads it: [`Feed`].
//!
//! A feed owns the decoder and the recent decoded chunks of one partition of one stream; thirty queries that read the same offsets
//! share one decoding, and go through a long log together so that they do. Called by the tasks, through a [`Follower`] each, by the
//! stream's intake and by the page.

mod company;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::buffer::ScalarBuffer;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::company::Company;
use super::operator::StreamError;
use super::source::Stamped;
use crate::bus::{Bus, Reader};
use crate::format::{BadRecord, Decoder, StreamSchema, Tombstone};
use crate::record::{Batch, Offset, TopicPartition};

/// How much raw input one chunk takes at most (a larger single batch comes whole).
const CHUNK_BYTES: usize = 1 << 20;
/// How many chunks the intake and the page decode ahead of the queries, so that they find them done; more would be gone before they come.
const AHEAD_CHUNKS: usize = 2;
/// How long they wait for them there.
const AHEAD_WAIT: Duration = Duration::from_millis(100);
/// A query that waits for those behind it looks at them again this often at least ..
const COMPANY_LOOK: Duration = Duration::from_millis(50);
/// .. and waits no longer than this for one chunk: it may have results to commit.
const COMPANY_WAIT: Duration = Duration::from_millis(500);
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
    /// What the rows say of time, once somebody has asked.
    pub(super) stamped: OnceLock<Stamped>,
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

    /// Good rows and nothing else.
    #[cfg(test)]
    pub(super) fn of(rows: RecordBatch, offsets: ScalarBuffer<i64>) -> Self {
        let next = Offset(offsets.last().map_or(0, |last| last + 1));
        let (bad, tombstones, raw) = (Vec::new(), Vec::new(), Vec::new());
        Self { from: Offset::ZERO, next, rows, offsets, bad, tombstones, raw, stamped: OnceLock::new() }
    }

    /// The index of the first row at or after `from`.
    pub(super) fn first_at(&self, from: Offset) -> usize {
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

/// The chunks that are kept, who reads them, and how those who go ahead stand to the queries.
#[derive(Default)]
struct Recent {
    company: Company,
    /// How many chunks have been decoded for them since a query asked for one.
    ahead: usize,
    /// Whether no query came while they waited.
    alone: bool,
}

/// How a task reads a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Following {
    /// With the others: where much lies ready it waits for those close behind it. For a task that reads nothing else: what a task waits
    /// for in one partition must not let it overlook what has come in another.
    Together,
    /// It waits for nobody; others wait for it.
    First,
    /// It waits for nobody, and nobody for it.
    Alone,
}

/// A task's place in a feed.
pub struct Follower {
    feed: Arc<Feed>,
    following: Following,
    /// Its number in the company.
    number: Option<u64>,
}

impl Follower {
    /// A follower of `feed`.
    #[must_use]
    pub fn new(feed: Arc<Feed>, following: Following) -> Self {
        let join = || feed.recent.lock().company.join(Instant::now());
        let number = (following != Following::Alone).then(join);
        Self { feed, following, number }
    }

    /// The partition it reads.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        self.feed.partition()
    }

    /// The chunk that holds `from`, or `None` where the partition has nothing there yet. Its first rows may lie below `from`.
    pub async fn poll(&self, from: Offset) -> Result<Option<Arc<Chunk>>, StreamError> {
        let Some(number) = self.number else { return self.feed.poll(from).await };
        self.feed.recent.lock().company.asks(number, from, Instant::now());
        if self.following == Following::Together {
            self.feed.wait_for_others(number, from).await;
        }
        let chunk = self.feed.poll(from).await?;
        self.feed.recent.lock().company.given(number, chunk.as_deref(), Instant::now());
        self.feed.asked.notify_waiters();
        Ok(chunk)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.feed.recent.lock().company.leave(number);
            self.feed.asked.notify_waiters();
        }
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
                recent.ahead = recent.company.behind(chunk);
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
                (recent.company.find(from).cloned(), recent.alone || recent.ahead < AHEAD_CHUNKS)
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

    /// Lets those who are close behind come, while much lies ready for all.
    async fn wait_for_others(&self, number: u64, from: Offset) {
        let begun = Instant::now();
        loop {
            // Before the look: who asks right behind it is heard.
            let asked = self.asked.notified();
            let now = Instant::now();
            if !self.recent.lock().company.waits(number, from, now) || now.duration_since(begun) > COMPANY_WAIT {
                return;
            }
            // They may also just stand still.
            let _ = tokio::time::timeout(COMPANY_LOOK, asked).await;
        }
    }

    async fn chunk(&self, from: Offset) -> Result<Option<Arc<Chunk>>, StreamError> {
        let known = self.recent.lock().company.find(from).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let mut decoding = self.decoding.lock().await;
        // Another may have decoded it meanwhile.
        let known = self.recent.lock().company.find(from).cloned();
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
        let mut chunk = Chunk { from, next, rows, offsets, bad, tombstones, raw, stamped: OnceLock::new() };
        if self.strict {
            chunk = self.upto_bad(chunk)?;
        }
        let chunk = Arc::new(chunk);
        self.recent.lock().company.keep(&chunk, Instant::now());
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
    let offsets = ScalarBuffer::from(Vec::new());
    Chunk { from, next, rows, offsets, bad: Vec::new(), tombstones: Vec::new(), raw: Vec::new(), stamped: OnceLock::new() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::datatypes::DataType;

    use super::*;
    use crate::broker::TestDisk;
    use crate::bus::{EmbeddedBus, TopicBatch, TopicSpec};
    use crate::format::{FieldSpec, Format};
    use crate::record::{BatchBuilder, PartitionId, TopicName};

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
}
