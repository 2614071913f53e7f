//! A client's Produce request: every partition's batch is checked, the good ones ride in one append group.
//!
//! Two steps, so that the requests of one connection keep their order and still share syncs: what
//! [`Broker::produce`] returns has its offsets and its place in the log, and [`Produced::durable`] waits for
//! the disk. Always: a batch that is appended has passed the checks of Kafka's `LogValidator`; one of a
//! transaction is handed to the log while its transaction is open and the partition in it. Records are
//! walked away from the network threads when there are many. Called by `server` for each Produce request.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::Broker;
use super::append::{Addition, Fate, Rule, submit};
use super::error::log_code;
use super::topic::{Partition, Topic};
use super::topic_config::TopicConfig;
use super::txn::claims::{Head, InTransaction, claim, first_sequence, heads, in_transaction, refuse, stumbles};
use crate::log::{LogError, Permit, Submitted};
use crate::record::{
    Batch, BatchBuilder, BatchError, Codec, CompressionError, Header, Offset, PartitionId, Survey, TimestampType, TopicId, survey_records,
};
use crate::time::Timestamp;
use crate::wire::error_code;

/// Requests with at least so many bytes of batches are checked on a thread of their own, and so are packed ones.
const LARGE: usize = 32 << 10;
/// But for those with at most so many bytes in a codec that makes 255 of one at most (lz4, snappy): to unpack them takes less than the
/// change of threads. A producer's `batch.size` is 16 KiB unless it says otherwise.
const SMALL_PACKED: usize = 20 << 10;
const QUICK: [u8; 3] = [Codec::None as u8, Codec::Snappy as u8, Codec::Lz4 as u8];
/// Requests whose batches are unpacked at the same time, each within the limit of `record`: more would hold more memory and
/// be no faster.
static UNPACKING: Semaphore = Semaphore::const_new(4);
/// At most so many bad records of one batch are named in an answer.
const NAMED_RECORDS: usize = 64;

/// One partition's part of a Produce request.
#[derive(Debug)]
pub struct Incoming {
    /// The topic's name as the client wrote it.
    pub topic: String,
    /// The topic's id, which goes before its name.
    pub topic_id: Option<TopicId>,
    /// The partition's number as the client wrote it.
    pub partition: i32,
    /// What should be one record batch.
    pub records: Option<Bytes>,
}

/// What a Produce request says about all its batches.
#[derive(Clone, Copy, Debug)]
pub struct ProduceTerms {
    /// -1, 0 or 1.
    pub acks: i16,
    /// Whether the version of the request knows that a transaction can only be aborted (11 on).
    pub knows_abortable: bool,
    /// Whether the version of the request knows zstd (7 on).
    pub knows_zstd: bool,
    /// Whether the version of the request is for transactions each of which has an epoch of its own (12 on).
    pub bumps_epoch: bool,
}

/// Why a batch was not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Kafka's error.
    pub code: i16,
    /// What to do about it.
    pub message: String,
    /// The records at fault, by their place in the batch.
    pub records: Vec<i32>,
    /// The first offset of the partition, where the batch came as far as its log.
    pub log_start: Option<Offset>,
}

impl Refusal {
    pub(super) fn new(code: i16, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), records: Vec::new(), log_start: None }
    }

    /// Refused at a partition's log, which Kafka tells with most errors.
    fn at(self, partition: &Partition) -> Self {
        let is_told = !matches!(
            self.code,
            error_code::INVALID_TOPIC_EXCEPTION
                | error_code::UNKNOWN_TOPIC_OR_PARTITION
                | error_code::MESSAGE_TOO_LARGE
                | error_code::CORRUPT_MESSAGE
                | error_code::KAFKA_STORAGE_ERROR
        );
        Self { log_start: is_told.then(|| partition.log().start()), ..self }
    }

    fn storage(error: &LogError) -> Self {
        Self::new(log_code(error), error.to_string())
    }
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The offset of its first record.
    pub base: Offset,
    /// The node's time where the topic is stamped by it.
    pub append_time: Option<Timestamp>,
    /// The first offset the partition holds.
    pub log_start: Offset,
}

/// A Produce request whose batches have their places.
#[must_use = "it is not durable before this is awaited"]
pub struct Produced {
    parts: Vec<Result<Part, Refusal>>,
    submitted: Option<Submitted>,
}

struct Part {
    partition: Arc<Partition>,
    base: Offset,
    append_time: Option<Timestamp>,
    /// Where a repeated batch ends, whose first writing may still be on its way to the disk.
    wait_for: Option<Offset>,
}

impl Produced {
    fn all_refused(count: usize, refusal: &Refusal) -> Self {
        Self { parts: (0..count).map(|_| Err(refusal.clone())).collect(), submitted: None }
    }

    /// The first batch that was refused, if one was.
    #[must_use]
    pub fn first_refusal(&self) -> Option<&Refusal> {
        self.parts.iter().find_map(|part| part.as_ref().err())
    }

    /// Completes when the batches are durable: what became of each, in the order given.
    pub async fn durable(self) -> Vec<Result<Placed, Refusal>> {
        let lost = match self.submitted {
            Some(submitted) => submitted.await.err().map(|e| Refusal::storage(&e)),
            None => None,
        };
        let mut answers = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            answers.push(match part {
                Err(refusal) => Err(refusal),
                Ok(part) => match (&lost, part.wait_for) {
                    (Some(refusal), None) => Err(refusal.clone()),
                    (_, wait_for) => {
                        if let Some(end) = wait_for
                            && !part.partition.visible(end).await
                        {
                            answers.push(Err(Refusal::new(error_code::KAFKA_STORAGE_ERROR, "what was written before is not durable")));
                            continue;
                        }
                        Ok(Placed { base: part.base, append_time: part.append_time, log_start: part.partition.log().start() })
                    }
                },
            });
        }
        answers
    }
}

/// A batch that is known to go to an existing partition.
struct Addressed {
    topic: Arc<Topic>,
    partition: Arc<Partition>,
    config: Arc<TopicConfig>,
    records: Bytes,
}

/// A batch that has passed every check that does not need the partition's lock.
struct Checked {
    batch: Batch,
    append_time: Option<Timestamp>,
}

impl Checked {
    fn is_transactional(&self) -> bool {
        self.batch.header().is_transactional() && self.batch.header().has_producer()
    }
}

impl Broker {
    /// Checks the batches of one request and hands the good ones to the log, all in one append group.
    /// `transactional_id` is what the request says whose transaction its batches are in.
    pub async fn produce(&self, terms: ProduceTerms, transactional_id: Option<&str>, incoming: Vec<Incoming>) -> Produced {
        if stumbles(incoming.iter().filter_map(|one| one.records.as_ref())) {
            let why = "a batch of the request is of no format there is, or shorter than it can be";
            return Produced::all_refused(incoming.len(), &Refusal::new(error_code::CORRUPT_MESSAGE, why));
        }
        let transaction = match in_transaction(transactional_id, &incoming) {
            Ok(transaction) => transaction,
            Err(refusal) => return Produced::all_refused(incoming.len(), &refusal),
        };
        let now = self.clock().now();
        let mut addressed = self.address(incoming, terms);
        if let Some(transaction) = &transaction {
            ask(transaction, terms, &mut addressed, now).await;
            self.verify(transaction, terms, &mut addressed);
        }
        if !(-1..=1).contains(&terms.acks) {
            let why = format!("acks = {}: 0, 1 and -1 (all) are what there is", terms.acks);
            let refusal = Refusal::new(error_code::INVALID_REQUIRED_ACKS, why);
            return Produced { parts: addressed.into_iter().map(|part| part.and(Err(refusal.clone()))).collect(), submitted: None };
        }
        let mut checked = check(addressed, now).await;
        for part in &mut checked {
            if let Ok((to, one)) = part
                && one.batch.header().has_producer()
                && let Err(error) = to.partition.load_producers(now).await
            {
                *part = Err(Refusal::new(error.code(), error.to_string()));
            }
        }
        let bytes: usize = checked.iter().flatten().map(|(_, one)| one.batch.len_bytes()).sum();
        if bytes == 0 {
            let parts =
                checked.into_iter().map(|part| part.and_then(|_| Err(Refusal::new(error_code::INVALID_RECORD, "no batch")))).collect();
            return Produced { parts, submitted: None };
        }
        let permit = self.log().room(bytes).await;
        match transaction {
            None => self.hand_over(checked, permit, now),
            Some(InTransaction { id, producer }) => {
                let places: Vec<_> = checked.iter().flatten().map(|(to, _)| to.partition.of().clone()).collect();
                self.transactions().verified(id, producer, &places, |verdicts| {
                    self.hand_over(refuse(checked, verdicts, terms, |(_, one)| one.is_transactional()), permit, now)
                })
            }
        }
    }

    /// Refuses batches whose transaction may not write where they go. It is asked again when they are handed over.
    fn verify(&self, transaction: &InTransaction<'_>, terms: ProduceTerms, addressed: &mut Vec<Result<Addressed, Refusal>>) {
        let places: Vec<_> = addressed.iter().flatten().map(|to| to.partition.of().clone()).collect();
        self.transactions().verified(transaction.id, transaction.producer, &places, |verdicts| {
            *addressed = refuse(std::mem::take(addressed), verdicts, terms, |to| claim(&to.records).is_some());
        });
    }

    fn hand_over(&self, checked: Vec<CheckedPart>, permit: Permit, now: Timestamp) -> Produced {
        let additions = checked
            .iter()
            .flatten()
            .map(|(to, one)| Addition { to: Arc::clone(&to.partition), batches: vec![one.batch.clone()] })
            .collect();
        match submit(self.log(), additions, Rule::EachByItself, permit, now) {
            Err(error) => {
                let refusal = Refusal::storage(&error);
                Produced { parts: checked.into_iter().map(|part| part.and_then(|_| Err(refusal.clone()))).collect(), submitted: None }
            }
            Ok(in_flight) => {
                let mut fates = in_flight.fates.into_iter();
                let parts = checked
                    .into_iter()
                    .map(|part| part.and_then(|(to, one)| settle(&to, &one, fates.next().expect("each addition has its fate"))))
                    .collect();
                Produced { parts, submitted: in_flight.submitted }
            }
        }
    }

    /// Finds the partitions, and sees that there is one batch for each.
    fn address(&self, incoming: Vec<Incoming>, terms: ProduceTerms) -> Vec<Result<Addressed, Refusal>> {
        let mut seen = BTreeSet::new();
        incoming
            .into_iter()
            .map(|one| {
                let unknown = || Refusal::new(error_code::UNKNOWN_TOPIC_OR_PARTITION, "there is no such topic or partition");
                let missing = |code| Refusal::new(code, "there is no such topic");
                let topic = self.topic_meant(&one.topic, one.topic_id).map_err(missing)?;
                let partition = topic.partition(PartitionId(one.partition)).ok_or_else(unknown)?;
                if !seen.insert(partition.key()) {
                    return Err(Refusal::new(error_code::INVALID_REQUEST, "the request names this partition twice"));
                }
                let records = one.records.filter(|r| !r.is_empty());
                let records =
                    records.ok_or_else(|| Refusal::new(error_code::INVALID_RECORD, "the request has no batch for this partition"))?;
                let records = the_batch(&records, terms)?;
                let config = topic.config();
                Ok(Addressed { topic, partition, config, records })
            })
            .collect()
    }
}

/// Notes in each partition that a batch of a transaction asks to be written, whatever is answered.
async fn ask(transaction: &InTransaction<'_>, terms: ProduceTerms, addressed: &mut [Result<Addressed, Refusal>], now: Timestamp) {
    for part in addressed {
        let Ok(to) = part else { continue };
        let Some(sequence) = claim(&to.records).and_then(|_| first_sequence(&to.records)) else { continue };
        match to.partition.load_producers(now).await {
            Ok(()) => to.partition.ask(transaction.asks(sequence, terms), now),
            Err(error) => *part = Err(Refusal::new(error.code(), error.to_string())),
        }
    }
}

type CheckedPart = Result<(Addressed, Checked), Refusal>;

async fn check(addressed: Vec<Result<Addressed, Refusal>>, now: Timestamp) -> Vec<CheckedPart> {
    let check_all = move |all: Vec<Result<Addressed, Refusal>>| -> Vec<CheckedPart> {
        let check_one = |to: Addressed| match check_one(&to.records, &to.config, &to.topic, now) {
            Ok(checked) => Ok((to, checked)),
            Err(refusal) => Err(refusal.at(&to.partition)),
        };
        all.into_iter().map(|one| one.and_then(check_one)).collect()
    };
    let bytes: usize = addressed.iter().flatten().map(|to| to.records.len()).sum();
    let codec = |to: &Addressed| to.records.get(22).map_or(0, |attributes| attributes & 7);
    let is_packed = |to: &Addressed| codec(to) != 0 || to.config.codec.is_some();
    let is_quick = |to: &Addressed| QUICK.contains(&codec(to)) && to.config.codec.is_none();
    let count = addressed.len();
    let packed = addressed.iter().flatten().any(is_packed);
    if bytes < LARGE && !packed || bytes <= SMALL_PACKED && addressed.iter().flatten().all(is_quick) {
        return check_all(addressed);
    }
    let turn = if packed { Some(UNPACKING.acquire().await) } else { None };
    let check_all = move |all| {
        let _turn = turn;
        check_all(all)
    };
    let done = tokio::task::spawn_blocking(move || check_all(addressed)).await;
    // The thread is gone only when the node stops.
    done.unwrap_or_else(|_| (0..count).map(|_| Err(Refusal::new(error_code::NOT_LEADER_OR_FOLLOWER, "the node is stopping"))).collect())
}

fn settle(to: &Addressed, one: &Checked, fate: Fate) -> Result<Part, Refusal> {
    let part = |base, append_time, wait_for| Part { partition: Arc::clone(&to.partition), base, append_time, wait_for };
    match fate {
        Fate::Placed { base, .. } => {
            to.topic.came_in(&one.batch);
            Ok(part(base, one.append_time, None))
        }
        Fate::Duplicate { base, end } => Ok(part(base, None, Some(end))),
        Fate::Refused(code) => {
            let header = one.batch.header();
            let producer = format!("producer {} epoch {} sequence {}", header.producer_id, header.producer_epoch, header.base_sequence);
            let why = match code {
                error_code::OUT_OF_ORDER_SEQUENCE_NUMBER => format!("{producer}: batches before this one are missing"),
                error_code::INVALID_PRODUCER_EPOCH => format!("{producer}: a newer epoch of this producer has written"),
                error_code::INVALID_TXN_STATE => format!("{producer}: it has a transaction open here, and this batch is not in it"),
                _ => "there is no such topic or partition".to_owned(),
            };
            Err(Refusal::new(code, why).at(&to.partition))
        }
    }
}

/// The batch in a partition's records, and what Kafka asks of its form before anything else: that it is the only one, of today's format
/// and in a codec that the version of the request knows. Part of a batch behind it counts for nothing.
fn the_batch(records: &Bytes, terms: ProduceTerms) -> Result<Bytes, Refusal> {
    let invalid = |why: &str| Err(Refusal::new(error_code::INVALID_RECORD, why));
    let mut all = heads(records);
    let first = all.next();
    let whole = first.as_ref().map_or(0, Head::whole);
    match first {
        None => invalid("the request has no whole batch for this partition"),
        Some(head) if head.magic != 2 => invalid("a batch of an old format, which no version of Produce from 3 on may have"),
        Some(head) if head.attributes & 7 == Codec::Zstd as u8 && !terms.knows_zstd => {
            Err(Refusal::new(error_code::UNSUPPORTED_COMPRESSION_TYPE, "zstd needs Produce version 7 or newer"))
        }
        Some(_) => match all.next() {
            None => Ok(records.slice(..whole.min(records.len()))),
            Some(head) if head.is_impossible() => {
                Err(Refusal::new(error_code::CORRUPT_MESSAGE, "what lies behind the batch is of no format there is"))
            }
            Some(_) => invalid("a Produce request has exactly one batch for each partition"),
        },
    }
}

/// Everything Kafka's `LogValidator` asks of a client's batch, and before it the log: where it begins, how long it is, and
/// whether its bytes are those that were sent.
fn check_one(records: &Bytes, config: &TopicConfig, topic: &Topic, now: Timestamp) -> Result<Checked, Refusal> {
    let invalid = |why: &str| Refusal::new(error_code::INVALID_RECORD, why);
    if topic.name().is_written_by_node_alone() {
        return Err(Refusal::new(error_code::INVALID_TOPIC_EXCEPTION, "this topic is the node's own; clients may only read it"));
    }
    if records.get(..8).is_some_and(|base| base != [0; 8]) {
        return Err(invalid("a batch on its way to the broker begins at offset 0"));
    }
    let fits = |size: usize, how: &str| {
        let limit = config.max_message_bytes;
        let why = || format!("the batch has {size} bytes {how} and max.message.bytes of topic \"{}\" is {limit}", topic.name());
        if size > limit { Err(Refusal::new(error_code::MESSAGE_TOO_LARGE, why())) } else { Ok(()) }
    };
    fits(records.len(), "as it was sent")?;
    let batch = Batch::parse(records.clone()).map_err(|e| batch_refusal(&e))?;
    let header = *batch.header();
    if header.is_control() {
        return Err(invalid("clients may not write control batches"));
    }
    if header.has_producer() && header.base_sequence < 0 {
        return Err(invalid("a producer's batch has no sequence number"));
    }
    let codec = header.codec().map_err(|e| batch_refusal(&e))?;
    let survey = survey_records(&batch).map_err(|e| batch_refusal(&e))?;
    if survey.keyless && config.cleanup.compact {
        let records = records_that(&batch, |key, _| key.is_none());
        return Err(Refusal { records, ..invalid("a compacted topic takes no record without a key") });
    }
    let claims_our_time = header.timestamp_type() == TimestampType::LogAppendTime;
    if claims_our_time && (config.timestamp_type == TimestampType::LogAppendTime || survey.max_timestamp == -1) {
        let why = "the batch claims to be stamped by the node";
        return Err(Refusal { records: records_that(&batch, |_, _| true), ..Refusal::new(error_code::INVALID_TIMESTAMP, why) });
    }
    let append_time = match config.timestamp_type {
        TimestampType::LogAppendTime => Some(now),
        TimestampType::CreateTime => {
            check_times(&batch, &survey, config, now)?;
            None
        }
    };
    let batch = match config.codec {
        Some(wanted) if wanted != codec => {
            let batch = repacked(&batch, wanted).map_err(|e| batch_refusal(&e))?;
            fits(batch.len_bytes(), "in the topic's codec")?;
            batch
        }
        _ => batch,
    };
    let batch = match append_time {
        Some(at) => batch.with_log_append_time(at.0),
        None => batch.with_max_timestamp(survey.max_timestamp),
    };
    Ok(Checked { batch, append_time })
}

fn check_times(batch: &Batch, survey: &Survey, config: &TopicConfig, now: Timestamp) -> Result<(), Refusal> {
    let earliest = now.0.saturating_sub(config.timestamp_before_max_ms);
    let latest = now.0.saturating_add(config.timestamp_after_max_ms);
    // Clients without a clock send -1, which no window applies to.
    let out = move |at: i64| at != -1 && !(earliest..=latest).contains(&at);
    if !out(survey.min_timestamp) && !out(survey.max_timestamp) {
        return Ok(());
    }
    let why = format!(
        "timestamps must lie between {} and {} (message.timestamp.before.max.ms, .after.max.ms)",
        Timestamp(earliest),
        Timestamp(latest)
    );
    Err(Refusal { records: records_that(batch, |_, at| out(at)), ..Refusal::new(error_code::INVALID_TIMESTAMP, why) })
}

/// The records for which something holds, the first of them.
fn records_that(batch: &Batch, holds: impl Fn(Option<&[u8]>, i64) -> bool) -> Vec<i32> {
    let Ok(records) = batch.records() else { return Vec::new() };
    let numbered = (0..).zip(records.iter().flatten());
    numbered.filter(|(_, record)| holds(record.key, record.timestamp)).map(|(i, _)| i).take(NAMED_RECORDS).collect()
}

/// The same records under another codec.
fn repacked(batch: &Batch, codec: Codec) -> Result<Batch, BatchError> {
    let header = batch.header();
    let mut builder = BatchBuilder::new().with_codec(codec).with_producer(header.producer_id, header.producer_epoch, header.base_sequence);
    if header.is_transactional() {
        builder = builder.transactional();
    }
    let records = batch.records()?;
    let mut headers: Vec<Header<'_>> = Vec::new();
    for record in &records {
        let record = record?;
        headers.clear();
        for header in record.headers() {
            let (key, value) = header?;
            headers.push(Header { key, value });
        }
        builder.push(record.timestamp, record.key, record.value, &headers);
    }
    Ok(builder.finish())
}

fn batch_refusal(error: &BatchError) -> Refusal {
    let code = match error {
        BatchError::Checksum { .. } => error_code::CORRUPT_MESSAGE,
        BatchError::Codec(_) => error_code::UNSUPPORTED_COMPRESSION_TYPE,
        // A client that meets this code sends the records in smaller batches.
        BatchError::Compression(CompressionError::TooLarge { .. }) => error_code::MESSAGE_TOO_LARGE,
        _ => error_code::INVALID_RECORD,
    };
    let why = match error {
        BatchError::Trailing(_) => "a Produce request has exactly one batch for each partition".to_owned(),
        error => error.to_string(),
    };
    Refusal::new(code, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::BrokerConfig;
    use crate::record::TopicName;
    use std::collections::BTreeMap;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const TERMS: ProduceTerms = ProduceTerms { acks: -1, knows_abortable: true, knows_zstd: true, bumps_epoch: false };

    fn check_with(configs: &[(&str, &str)], terms: ProduceTerms, batch: &Bytes) -> Result<Batch, (String, Vec<i32>)> {
        let set: BTreeMap<String, String> = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let config = TopicConfig::read(set, &BrokerConfig::default()).unwrap();
        let topic = Topic::new(TopicName::new("t").unwrap(), TopicId::random(), config.clone(), Vec::new());
        the_batch(batch, terms)
            .and_then(|batch| check_one(&batch, &config, &topic, NOW))
            .map(|ok| ok.batch)
            .map_err(|r| (error_code::name(r.code).to_owned(), r.records))
    }

    fn batch(build: impl FnOnce(BatchBuilder) -> BatchBuilder, records: &[(i64, Option<&str>)]) -> Bytes {
        let mut builder = build(BatchBuilder::new());
        for (at, key) in records {
            builder.push(NOW.0 + at, key.map(str::as_bytes), Some(b"value"), &[]);
        }
        builder.finish().to_bytes()
    }

    fn refused(configs: &[(&str, &str)], batch: &Bytes) -> (String, Vec<i32>) {
        check_with(configs, TERMS, batch).unwrap_err()
    }

    #[test]
    fn a_good_batch_passes_untouched() {
        for codec in Codec::ALL {
            let bytes = batch(|b| b.with_codec(codec), &[(0, Some("a")), (5, None)]);
            assert_eq!(check_with(&[], TERMS, &bytes).unwrap().to_bytes(), bytes);
        }
    }

    #[test]
    fn a_bad_batch_is_refused_with_kafkas_error() {
        let plain = batch(|b| b, &[(0, None)]);
        let mut flipped = plain.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        let two = Bytes::from([&plain[..], &plain[..]].concat());
        let refuses = |batch: Bytes, wanted: &str| assert_eq!(refused(&[], &batch).0, wanted);
        refuses(flipped.into(), "CORRUPT_MESSAGE");
        refuses(two.clone(), "INVALID_RECORD");
        assert_eq!(check_with(&[], TERMS, &two.slice(..two.len() - 1)).unwrap().to_bytes(), plain);
        refuses(plain.slice(..plain.len() - 1), "INVALID_RECORD");
        refuses(Bytes::from_static(b"x"), "INVALID_RECORD");
        let mut later = plain.to_vec();
        later[7] = 1;
        refuses(later.into(), "INVALID_RECORD");
        refuses(batch(BatchBuilder::control, &[(0, None)]), "INVALID_RECORD");
        refuses(batch(|b| b.with_producer(1, 0, -1), &[(0, None)]), "INVALID_RECORD");
    }

    #[test]
    fn the_limits_of_the_topic_hold() {
        let plain = || batch(|b| b, &[(0, None)]);
        assert_eq!(refused(&[("max.message.bytes", "20")], &plain()).0, "MESSAGE_TOO_LARGE");
        // How long it is is judged before what is in it, and where it begins before that.
        let spoilt = |at: usize| {
            let mut bytes = plain().to_vec();
            bytes[at] ^= 1;
            Bytes::from(bytes)
        };
        let (base, checksum) = (7, 20);
        assert_eq!(refused(&[("max.message.bytes", "20")], &spoilt(base)).0, "INVALID_RECORD");
        assert_eq!(refused(&[("max.message.bytes", "20")], &spoilt(checksum)).0, "MESSAGE_TOO_LARGE");
        assert_eq!(refused(&[], &spoilt(checksum)).0, "CORRUPT_MESSAGE");
        let mut packed = BatchBuilder::new().with_codec(Codec::Gzip);
        packed.push(NOW.0, None, Some(&[0; 1000]), &[]);
        let packed = packed.finish().to_bytes();
        assert!(check_with(&[("max.message.bytes", "500")], TERMS, &packed).is_ok());
        assert_eq!(refused(&[("max.message.bytes", "500"), ("compression.type", "uncompressed")], &packed).0, "MESSAGE_TOO_LARGE");
        let mixed = batch(|b| b, &[(0, Some("k")), (0, None), (0, Some("k")), (0, None)]);
        assert_eq!(refused(&[("cleanup.policy", "compact")], &mixed), ("INVALID_RECORD".to_owned(), vec![1, 3]));
        let ahead = batch(|b| b, &[(0, None), (3_600_001, None)]);
        assert_eq!(refused(&[], &ahead), ("INVALID_TIMESTAMP".to_owned(), vec![1]));
        let behind = batch(|b| b, &[(-1001, None), (0, None)]);
        assert_eq!(refused(&[("message.timestamp.before.max.ms", "1000")], &behind), ("INVALID_TIMESTAMP".to_owned(), vec![0]));
        assert!(check_with(&[], TERMS, &behind).is_ok());
    }

    #[test]
    fn a_batch_that_unpacks_to_more_than_a_request_could_bring_is_too_large() {
        let zeros = vec![0_u8; 101 << 20];
        for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
            let mut builder = BatchBuilder::new().with_codec(codec);
            builder.push(NOW.0, None, Some(&zeros), &[]);
            assert_eq!(refused(&[], &builder.finish().to_bytes()).0, "MESSAGE_TOO_LARGE", "{codec:?}");
        }
    }

    #[test]
    fn a_client_may_say_it_stamped_its_records_as_the_node_does_only_where_that_is_not_the_nodes_affair() {
        let claims = |at: i64| {
            let mut builder = BatchBuilder::new();
            builder.push(at, None, Some(b"value"), &[]);
            builder.finish().with_log_append_time(at).to_bytes()
        };
        let taken = check_with(&[], TERMS, &claims(NOW.0 + 5)).unwrap();
        assert_eq!(taken.header().timestamp_type(), TimestampType::CreateTime);
        assert_eq!(taken.records().unwrap().iter().next().unwrap().unwrap().timestamp, NOW.0 + 5);
        assert_eq!(refused(&[], &claims(-1)), ("INVALID_TIMESTAMP".to_owned(), vec![0]));
        let stamping = &[("message.timestamp.type", "LogAppendTime")];
        assert_eq!(refused(stamping, &claims(NOW.0)), ("INVALID_TIMESTAMP".to_owned(), vec![0]));
    }

    #[test]
    fn zstd_needs_a_version_that_knows_it() {
        let packed = batch(|b| b.with_codec(Codec::Zstd), &[(0, None)]);
        let old = ProduceTerms { knows_zstd: false, ..TERMS };
        assert_eq!(check_with(&[], old, &packed).unwrap_err().0, "UNSUPPORTED_COMPRESSION_TYPE");
        assert!(check_with(&[], TERMS, &packed).is_ok());
    }

    #[test]
    fn a_topic_with_its_own_codec_repacks_and_one_with_its_own_time_stamps() {
        let bytes = batch(|b| b.with_producer(9, 2, 40), &[(1, Some("a")), (2, None)]);
        let packed = check_with(&[("compression.type", "gzip")], TERMS, &bytes).unwrap();
        assert_eq!(packed.header().codec().unwrap(), Codec::Gzip);
        assert_eq!((packed.header().producer_id, packed.header().base_sequence), (9, 40));
        let times: Vec<_> = packed.records().unwrap().iter().map(|r| r.unwrap().timestamp - NOW.0).collect();
        assert_eq!(times, [1, 2]);
        let stamped = check_with(&[("message.timestamp.type", "LogAppendTime")], TERMS, &bytes).unwrap();
        assert_eq!(stamped.max_timestamp(), NOW.0);
        assert!(Batch::parse(stamped.to_bytes()).is_ok());
    }
}
