//! How records are given to librdkafka's producers, and how their acknowledgements are waited for.
//!
//! Always: of one partition no more is given to a producer than goes into one request, and the next only when that is acknowledged. An
//! idempotent producer of librdkafka has one request of more than a few records on its way to a partition anyway (it counts records where
//! it means requests), and as long as more of that partition waits with it, the thread of that broker asks whether it may go on without
//! a pause: a processor each, taken from the broker that is to answer where that runs on the same machine. Called by
//! [`super::transaction`] and [`super::ahead`].

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::util::IntoOpaque;

use crate::record::{Batch, BatchError, RecordRef, TopicPartition};

/// How long one request to a broker may take before it is asked again.
pub(super) const STEP: Duration = Duration::from_secs(5);
/// The most records that librdkafka puts into one request for a partition (`batch.num.messages`) ..
pub(super) const LOAD_RECORDS: usize = 10_000;
/// .. and the most bytes (`batch.size`).
pub(super) const LOAD_BYTES: usize = 1_000_000;
/// What librdkafka reckons for a record beside its key, value and headers, at the most; the head of the batch counts as one more.
const OVERHEAD: usize = 64;
/// How long nothing is asked of a client that had nothing new to tell: twice as long each time, up to ..
const PAUSE: Duration = Duration::from_micros(50);
/// .. this.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// Records for one partition, as the cluster knows it.
pub(super) struct Parcel {
    /// The topic's name on the cluster.
    pub(super) topic: String,
    /// Where to, in the engine's words.
    pub(super) to: TopicPartition,
    /// What.
    pub(super) batch: Batch,
}

/// What goes to one partition in one request.
#[derive(Debug, Default)]
pub(super) struct Load {
    records: usize,
    bytes: usize,
    full: bool,
}

impl Load {
    /// Whether this record goes along too. The first one does, whatever its size; behind one that does not, none does.
    pub(super) fn takes(&mut self, record: &RecordRef<'_>) -> bool {
        let bytes = wire_size(record);
        self.full |= self.records > 0 && (self.records >= LOAD_RECORDS || self.bytes + bytes + OVERHEAD > LOAD_BYTES);
        if !self.full {
            self.records += 1;
            self.bytes += bytes;
        }
        !self.full
    }

    /// Whether a record was refused.
    pub(super) const fn is_full(&self) -> bool {
        self.full
    }
}

fn wire_size(record: &RecordRef<'_>) -> usize {
    let of = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    // Whoever cannot be read is refused when it is sent.
    let headers: usize = record.headers().map_while(Result::ok).map(|(key, value)| OVERHEAD + key.len() + of(value)).sum();
    OVERHEAD + of(record.key) + of(record.value) + headers
}

/// Gives one record to the producer, whose `mark` comes back with its delivery. Waits where the producer's queue is full, or where the
/// topic has grown and the client has not heard of it.
pub(super) fn send<C: ProducerContext>(
    producer: &BaseProducer<C>,
    parcel: &Parcel,
    record: &RecordRef<'_>,
    mark: C::DeliveryOpaque,
    deadline: Instant,
) -> Result<(), KafkaError> {
    let mut one = record_of(parcel, record, mark)?;
    let (mut until, mut pauses) = (None, Pauses::default());
    loop {
        match producer.send(one) {
            Ok(()) => return Ok(()),
            Err((error, back)) if super::error::is_missing(&error) => {
                if until.is_none() && is_there(producer, parcel) {
                    until = Some(Instant::now() + STEP);
                }
                if until.is_none_or(|until| Instant::now() >= until) {
                    return Err(error);
                }
                one = back;
            }
            Err((KafkaError::MessageProduction(Code::QueueFull), back)) if Instant::now() < deadline => one = back,
            Err((error, _)) => return Err(error),
        }
        pauses.listen(producer);
    }
}

/// A record as librdkafka takes it.
fn record_of<'a, M: IntoOpaque>(parcel: &'a Parcel, record: &RecordRef<'a>, mark: M) -> Result<BaseRecord<'a, [u8], [u8], M>, KafkaError> {
    let mut one: BaseRecord<'_, [u8], [u8], M> =
        BaseRecord::with_opaque_to(&parcel.topic, mark).partition(parcel.to.partition.0).timestamp(record.timestamp);
    one.key = record.key;
    one.payload = record.value;
    let mut headers = record.headers().peekable();
    if headers.peek().is_some() {
        let mut all = OwnedHeaders::new();
        for header in headers {
            let (key, value) = header.map_err(unreadable)?;
            all = all.insert(Header { key: &String::from_utf8_lossy(key), value });
        }
        one.headers = Some(all);
    }
    Ok(one)
}

/// What is not a record batch after all.
pub(super) fn unreadable(_: BatchError) -> KafkaError {
    KafkaError::MessageProduction(Code::BadMessage)
}

/// Whether the cluster has the partition; asking makes the client know it too.
fn is_there<C: ProducerContext>(producer: &BaseProducer<C>, parcel: &Parcel) -> bool {
    let known = producer.client().fetch_metadata(Some(&parcel.topic), STEP);
    known.is_ok_and(|known| {
        let mut topics = known.topics().iter().filter(|topic| topic.name() == parcel.topic);
        topics.any(|topic| topic.partitions().len() as i32 > parcel.to.partition.0)
    })
}

/// Takes all that the client has to tell, without waiting for more. Whether that was anything.
pub(super) fn hear<C: ProducerContext>(producer: &BaseProducer<C>) -> bool {
    let first = producer.in_flight_count();
    let mut before = first;
    loop {
        producer.poll(Duration::ZERO);
        let left = producer.in_flight_count();
        if left >= before {
            return before < first;
        }
        before = left;
    }
}

/// Listening to a client that may have nothing to tell for a while. Its own waiting is in whole milliseconds, and what is left of one is
/// spent asking without a pause: a commit that waits for its brokers would take a processor of its own.
#[derive(Default)]
pub(super) struct Pauses {
    last: Duration,
}

impl Pauses {
    /// How long to wait now, where something was heard or nothing.
    pub(super) fn next(&mut self, heard: bool) -> Duration {
        self.last = if heard { Duration::ZERO } else { (self.last * 2).clamp(PAUSE, LONGEST_PAUSE) };
        self.last
    }

    /// Takes what the client has to tell; where that was nothing, pauses.
    pub(super) fn listen<C: ProducerContext>(&mut self, producer: &BaseProducer<C>) {
        let pause = self.next(hear(producer));
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BatchBuilder;

    fn taken(values: &[usize]) -> Vec<bool> {
        let mut batch = BatchBuilder::new();
        for bytes in values {
            batch.push(0, None, Some(&vec![7; *bytes]), &[]);
        }
        let batch = batch.finish();
        let mut load = Load::default();
        batch.records().unwrap().iter().map(|record| load.takes(&record.unwrap())).collect()
    }

    #[test]
    fn a_load_is_what_goes_into_one_request() {
        let small = taken(&vec![1; LOAD_RECORDS + 2]);
        assert_eq!(small.iter().filter(|taken| **taken).count(), LOAD_RECORDS);
        assert!(!small[LOAD_RECORDS]);
        assert_eq!(taken(&[LOAD_BYTES * 2, 1]), [true, false], "the first goes along, whatever its size");
        assert_eq!(taken(&[LOAD_BYTES / 2, LOAD_BYTES, 1]), [true, false, false], "none overtakes another");
        assert_eq!(taken(&[LOAD_BYTES / 2 - 100, LOAD_BYTES / 2 - 100, 1000]), [true, true, false]);
    }
}
