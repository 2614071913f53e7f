//! Reading partitions: consumers that are shared, a queue for each reader, and who waits for what.
//!
//! Owns the consumers. Always: a consumer holds a partition at most once; what is read is committed, in offset order, and
//! from where it was asked for; nobody waits by a timer. The first consumer reads nothing: a broker answers what comes over a connection
//! one after another, so that a question behind a fetch would wait as long as that waits for records. Called by [`super::KafkaBus`].

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::error::{is_missing, said, told};
use super::settings::{Context, KafkaTerms, told_end};
use crate::bus::{BusError, BusFuture, Reader};
use crate::record::{Batch, BatchBuilder, Header, Offset, TopicPartition};

/// A batch is closed at this size.
const BATCH_BYTES: usize = 1 << 20;
/// How long records that are known to be there may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a cluster that does not answer is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// One consumer and the partitions that are being read through it.
struct Shared {
    consumer: Arc<BaseConsumer<Context>>,
    held: Mutex<HashSet<TopicPartition>>,
}

/// The consumers of a bus, and its open readers.
pub(super) struct Readers {
    terms: Arc<KafkaTerms>,
    context: Context,
    /// The first is asked, the others read.
    consumers: Mutex<Vec<Arc<Shared>>>,
    open: Mutex<BTreeMap<TopicPartition, Vec<Weak<Signal>>>>,
    stop: CancellationToken,
}

/// How a reader stands, for whoever waits.
struct Signal(watch::Sender<Standing>);

#[derive(Clone, Copy)]
struct Standing {
    /// Where its next poll begins.
    position: Offset,
    /// Whether something may have come since its last poll.
    ready: bool,
}

impl Readers {
    /// No reader yet, and one consumer, which questions go through.
    pub(super) fn new(terms: &Arc<KafkaTerms>) -> Result<Self, BusError> {
        let readers = Self {
            terms: Arc::clone(terms),
            context: Context::default(),
            consumers: Mutex::default(),
            open: Mutex::default(),
            stop: CancellationToken::new(),
        };
        let first = readers.consumer()?;
        readers.consumers.lock().push(first);
        Ok(readers)
    }

    pub(super) const fn context(&self) -> &Context {
        &self.context
    }

    /// Why the cluster cannot be used just now, as far as is known.
    pub(super) fn trouble(&self) -> Option<String> {
        self.context.trouble()
    }

    /// The consumer that questions go through.
    pub(super) fn asked(&self) -> Arc<BaseConsumer<Context>> {
        Arc::clone(&self.consumers.lock()[0].consumer)
    }

    fn consumer(&self) -> Result<Arc<Shared>, BusError> {
        let made = self.terms.consumer().create_with_context::<_, BaseConsumer<Context>>(self.context.clone());
        let mut consumer = made.map_err(|e| told("could not make a Kafka client", &e))?;
        let (told, heard) = (Arc::new(Notify::new()), self.stop.clone());
        let bell = Arc::clone(&told);
        consumer.set_nonempty_callback(move || bell.notify_one());
        let consumer = Arc::new(consumer);
        tokio::spawn(listen(Arc::downgrade(&consumer), told, heard));
        Ok(Arc::new(Shared { consumer, held: Mutex::default() }))
    }

    /// A consumer that does not hold this partition yet; now it does.
    fn hold(&self, of: &TopicPartition) -> Result<Arc<Shared>, BusError> {
        let mut consumers = self.consumers.lock();
        if let Some(free) = consumers.iter().skip(1).find(|shared| shared.held.lock().insert(of.clone())) {
            return Ok(Arc::clone(free));
        }
        let fresh = self.consumer()?;
        fresh.held.lock().insert(of.clone());
        consumers.push(Arc::clone(&fresh));
        Ok(fresh)
    }

    /// Opens a partition for reading from `from` on.
    pub(super) async fn open(self: &Arc<Self>, cluster: &Arc<Cluster>, of: &TopicPartition, from: Offset) -> Result<KafkaReader, BusError> {
        let reader = self.open_unseen(cluster, of, from).await?;
        let mut open = self.open.lock();
        let signals = open.entry(of.clone()).or_default();
        signals.retain(|signal| signal.strong_count() > 0);
        signals.push(Arc::downgrade(&reader.signal));
        drop(open);
        Ok(reader)
    }

    /// A reader that nobody waits by.
    pub(super) async fn open_unseen(
        self: &Arc<Self>,
        cluster: &Arc<Cluster>,
        of: &TopicPartition,
        from: Offset,
    ) -> Result<KafkaReader, BusError> {
        let range = cluster.bounds(of).await?;
        if from < range.start || from > range.end {
            return Err(BusError::OutOfRange { partition: of.clone(), asked: from, range });
        }
        let mut reader = KafkaReader {
            place: of.clone(),
            topic: cluster.name(&of.topic),
            cluster: Arc::clone(cluster),
            readers: Arc::clone(self),
            shared: self.hold(of)?,
            queue: None,
            position: from,
            known_end: range.end,
            // What an earlier reader has left in the queue would keep it from telling of more: the first poll empties it.
            signal: Arc::new(Signal(watch::Sender::new(Standing { position: from, ready: true }))),
        };
        reader.assign()?;
        Ok(reader)
    }

    fn signals(&self, of: &TopicPartition) -> Vec<Arc<Signal>> {
        self.open.lock().get(of).map(|signals| signals.iter().filter_map(Weak::upgrade).collect()).unwrap_or_default()
    }

    /// Completes once there may be something at or after `from`: some reader is past it, or stands there and has heard of something.
    pub(super) async fn wait(self: &Arc<Self>, cluster: &Arc<Cluster>, of: &TopicPartition, from: Offset) -> Result<(), BusError> {
        let mut own: Option<KafkaReader> = None;
        loop {
            let mut there = None;
            for signal in self.signals(of) {
                let standing = *signal.0.borrow();
                if standing.position > from || (standing.position == from && standing.ready) {
                    return Ok(());
                }
                if standing.position == from {
                    there = Some(signal.0.subscribe());
                }
            }
            match (there, &mut own) {
                (Some(mut there), _) => {
                    // An error says that the reader is gone: look again.
                    let _ = there.wait_for(|standing| standing.position != from || standing.ready).await;
                }
                // Nobody reads there: whoever waits looks for itself.
                (None, Some(own)) => {
                    let mut heard = own.signal.0.subscribe();
                    let _ = heard.wait_for(|standing| standing.ready).await;
                    if !own.next(1).await?.is_empty() || own.position > from {
                        return Ok(());
                    }
                }
                (None, None) => own = Some(self.open_unseen(cluster, of, from).await?),
            }
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.cancel();
        // A consumer says goodbye to its brokers, which takes a moment.
        let consumers = std::mem::take(&mut *self.consumers.lock());
        std::thread::spawn(move || drop(consumers));
    }
}

/// Hears what a consumer has to say that is about no partition.
async fn listen(consumer: Weak<BaseConsumer<Context>>, told: Arc<Notify>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = told.notified() => {}
            () = stop.cancelled() => return,
        }
        let Some(consumer) = consumer.upgrade() else { return };
        while let Some(event) = consumer.poll(Duration::ZERO) {
            if let Err(error) = event {
                consumer.context().note(&error, "");
            }
        }
        // It says once that all brokers are gone, and not when they are back.
        while consumer.context().trouble().is_some() && !stop.is_cancelled() {
            let asked = Arc::clone(&consumer);
            let answer = tokio::task::spawn_blocking(move || asked.fetch_metadata(None, AGAIN).is_ok()).await;
            if answer.unwrap_or(false) {
                consumer.context().well();
            } else {
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}

/// Reads one partition forward.
pub(super) struct KafkaReader {
    place: TopicPartition,
    /// The topic as the cluster knows it.
    topic: String,
    cluster: Arc<Cluster>,
    readers: Arc<Readers>,
    shared: Arc<Shared>,
    queue: Option<PartitionQueue<Context>>,
    position: Offset,
    /// What was there when it was opened: until that is read, a poll waits for it.
    known_end: Offset,
    signal: Arc<Signal>,
}

/// An event on a partition's queue that is no record.
struct Event {
    error: KafkaError,
    /// Where the partition ends, if that is what it tells.
    end: Option<Offset>,
}

impl KafkaReader {
    fn assignment(&self) -> Result<TopicPartitionList, BusError> {
        let mut one = TopicPartitionList::new();
        let added = one.add_partition_offset(&self.topic, self.place.partition.0, KafkaOffset::Offset(self.position.0));
        added.map_err(|e| self.failed(&e))?;
        Ok(one)
    }

    /// Begins to fetch. The queue is split off before: not one record goes another way.
    fn assign(&mut self) -> Result<(), BusError> {
        let missing = || BusError::NoSuchPartition(self.place.clone());
        let mut queue = self.shared.consumer.split_partition_queue(&self.topic, self.place.partition.0).ok_or_else(missing)?;
        let signal = Arc::downgrade(&self.signal);
        queue.set_nonempty_callback(move || {
            if let Some(signal) = signal.upgrade() {
                signal.0.send_if_modified(|standing| !std::mem::replace(&mut standing.ready, true));
            }
        });
        self.queue = Some(queue);
        self.shared.consumer.incremental_assign(&self.assignment()?).map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &KafkaError) -> BusError {
        told(&format!("could not read {}", self.place), error)
    }

    /// What an event on the queue means that is no record.
    async fn event(&mut self, Event { error, end }: &Event) -> Result<(), BusError> {
        match error {
            KafkaError::PartitionEOF(_) => match end {
                // Told after everything there was: also what was known at the opening and holds nothing to be read.
                Some(end) if *end >= self.known_end => {
                    self.position = self.position.max(self.known_end);
                    Ok(())
                }
                // A broker that has just become the partition's leader does not know yet how far it is committed: more will come.
                Some(_) => Ok(()),
                None => Err(BusError::Retriable(format!("the Kafka client does not say where {} ends", self.place))),
            },
            error if is_missing(error) => Err(BusError::NoSuchPartition(self.place.clone())),
            error
                if matches!(
                    error.rdkafka_error_code(),
                    Some(Code::BadMessage | Code::BadCompression | Code::InvalidMessage | Code::NotImplemented)
                ) =>
            {
                // The client would go on behind it, as if it had never been there.
                Err(BusError::Corrupt(format!("{} behind offset {}: {}", self.place, self.position, said(error))))
            }
            error if matches!(error.rdkafka_error_code(), Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation)) => {
                let range = self.cluster.bounds(&self.place).await?;
                Err(BusError::OutOfRange { partition: self.place.clone(), asked: self.position, range })
            }
            error => match self.failed(error) {
                // The client goes on by itself.
                BusError::Retriable(why) => {
                    self.readers.context().note(error, &why);
                    Ok(())
                }
                error => Err(error),
            },
        }
    }

    /// What is at hand, as batches. An event that is no record ends it.
    fn drain(&mut self, max_bytes: usize) -> (Vec<Batch>, Option<Event>) {
        let Some(queue) = &self.queue else { return (Vec::new(), None) };
        let mut packer = Packer::new(self.position);
        let mut event = None;
        while packer.bytes < max_bytes {
            match queue.poll(Duration::ZERO) {
                // What an earlier assignment had fetched is below the position, or not of this reader.
                Some(Ok(message)) => packer.take(&message),
                Some(Err(error)) => {
                    event = Some(Event { error, end: told_end() });
                    break;
                }
                None => break,
            }
        }
        self.position = packer.position;
        let full = packer.bytes >= max_bytes || event.is_some();
        let batches = packer.finish();
        if full {
            self.signal.0.send_modify(|standing| standing.ready = true);
        }
        (batches, event)
    }

    async fn next(&mut self, max_bytes: usize) -> Result<Vec<Batch>, BusError> {
        loop {
            self.signal.0.send_modify(|standing| standing.ready = false);
            let (batches, event) = self.drain(max_bytes.max(1));
            if !batches.is_empty() {
                self.readers.context().well();
                // The event counts behind the records.
                if let Some(event) = event {
                    self.event(&event).await?;
                }
                return Ok(batches);
            }
            if let Some(event) = event {
                let before = self.position;
                self.event(&event).await?;
                if self.position > before {
                    return Ok(batches);
                }
                continue;
            }
            if self.position >= self.known_end {
                return Ok(batches);
            }
            let mut heard = self.signal.0.subscribe();
            let came = tokio::time::timeout(PATIENCE, heard.wait_for(|standing| standing.ready)).await;
            if came.is_err() {
                let why = self.readers.trouble().unwrap_or_else(|| "no broker says why".to_owned());
                let (from, end) = (self.position, self.known_end);
                return Err(BusError::Retriable(format!("{} holds records from {from} to {end} and they do not come: {why}", self.place)));
            }
        }
    }

    fn tell(&self) {
        let position = self.position;
        self.signal.0.send_if_modified(|standing| std::mem::replace(&mut standing.position, position) != position);
    }
}

impl Reader for KafkaReader {
    fn poll<'a>(&'a mut self, max_bytes: usize) -> BusFuture<'a, Vec<Batch>> {
        Box::pin(async move {
            let read = self.next(max_bytes).await;
            self.tell();
            read
        })
    }

    fn position(&self) -> Offset {
        self.position
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Ok(one) = self.assignment()
            && let Err(error) = self.shared.consumer.incremental_unassign(&one)
        {
            tracing::debug!(partition = %self.place, %error, "a partition could not be let go");
        }
        self.shared.held.lock().remove(&self.place);
    }
}

/// Packs records into batches: each is copied once, out of librdkafka's memory.
struct Packer {
    position: Offset,
    base: Offset,
    open: BatchBuilder,
    closed: Vec<Batch>,
    bytes: usize,
}

impl Packer {
    fn new(position: Offset) -> Self {
        Self { position, base: position, open: BatchBuilder::new(), closed: Vec::new(), bytes: 0 }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let offset = Offset(message.offset());
        if offset < self.position {
            return;
        }
        if self.open.size() >= BATCH_BYTES || offset.0 - self.base.0 > i64::from(i32::MAX) {
            self.close();
        }
        if self.open.is_empty() {
            self.base = offset;
        }
        let before = self.open.size();
        let (at, key, value) = (message.timestamp().to_millis().unwrap_or(-1), message.key(), message.payload());
        let delta = (offset.0 - self.base.0) as i32;
        match message.headers() {
            None => self.open.push_at_delta(delta, at, key, value, &[]),
            Some(headers) => {
                // A key that is no text makes the crate panic; such a header is left out.
                let one = |index| catch_unwind(AssertUnwindSafe(|| headers.try_get(index))).ok().flatten();
                let all = (0..headers.count()).filter_map(one);
                let all: Vec<Header<'_>> = all.map(|h| Header { key: h.key.as_bytes(), value: h.value }).collect();
                self.open.push_at_delta(delta, at, key, value, &all);
            }
        }
        self.position = offset.plus(1);
        self.bytes += self.open.size().saturating_sub(before);
    }

    fn close(&mut self) {
        let full = std::mem::take(&mut self.open);
        if !full.is_empty() {
            self.closed.push(full.finish().with_base(self.base, -1));
        }
    }

    fn finish(mut self) -> Vec<Batch> {
        self.close();
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::super::KafkaBus;
    use super::super::tests::OwnBroker;
    use super::*;
    use crate::bus::{Bus, TopicBatch, TopicSpec};
    use crate::record::{PartitionId, TopicName};

    /// What a broker tells that has just become the partition's leader and has not heard from the others how far it is committed.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_end_before_what_is_known_to_be_there_is_waited_past() {
        let cluster = OwnBroker::start().await;
        let bus = KafkaBus::open(cluster.terms()).await.unwrap();
        let of = TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(0));
        bus.ensure_topic(&of.topic, &TopicSpec { partitions: 1, ..TopicSpec::default() }).await.unwrap();
        let append = async |value: &str| {
            let mut records = BatchBuilder::new();
            records.push(1000, None, Some(value.as_bytes()), &[]);
            bus.append(vec![TopicBatch { to: of.clone(), records }]).await.unwrap();
            bus.bounds(&of).await.unwrap().end
        };
        let end = append("a").await;
        let mut reader = bus.readers.open(&bus.cluster, &of, Offset::ZERO).await.unwrap();
        assert_eq!(reader.known_end, end);
        // So much is there, and the broker tells of less: a record and a marker more.
        reader.known_end = end.plus(end.0);
        assert_eq!(reader.poll(1 << 20).await.unwrap().len(), 1);
        let short = tokio::time::timeout(Duration::from_secs(1), reader.poll(1 << 20)).await;
        assert!(short.is_err(), "the end counted at {}: {:?}", reader.position(), short.map(|read| read.map(|batches| batches.len())));
        assert!(reader.position() <= end);
        assert_eq!(append("b").await, reader.known_end);
        assert_eq!(reader.poll(1 << 20).await.unwrap().len(), 1);
        while reader.position() < reader.known_end {
            assert!(reader.poll(1 << 20).await.unwrap().is_empty());
        }
    }
}
