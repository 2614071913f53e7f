//! A client's Produce request: every partition's batch is checked, the good ones ride in one append group.
//!
//! Two steps, so that the requests of one connection keep their order and still share syncs: what
//! [`Broker::produce`] returns has its offsets and its place in the log, and [`Produced::durable`] waits for
//! the disk. Always: a batch that is appended has passed the checks of Kafka's `LogValidator`. Records are
//! walked away from the network threads when there are many. Called by `server` for each Produce request.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::Broker;
use super::append::{Addition, Fate, Rule, submit};
use super::error::log_code;
use super::topic::{Partition, Topic};
use super::topic_config::TopicConfig;
use crate::log::{LogError, Submitted};
use crate::record::{Batch, BatchBuilder, BatchError, Codec, Header, Offset, PartitionId, Survey, TimestampType, survey_records};
use crate::time::Timestamp;
use crate::wire::error_code;

/// Requests with at least so many bytes of batches, or any packed ones, are checked on a thread of their own.
const LARGE: usize = 32 << 10;
/// At most so many bad records of one batch are named in an answer.
const NAMED_RECORDS: usize = 64;

/// One partition's part of a Produce request.
#[derive(Debug)]
pub struct Incoming {
    /// The topic's name as the client wrote it.
    pub topic: String,
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
    /// Whether the client names a transaction.
    pub transactional: bool,
    /// Whether the version of the request knows zstd (7 on).
    pub knows_zstd: bool,
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
}

impl Refusal {
    fn new(code: i16, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), records: Vec::new() }
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

impl Broker {
    /// Checks the batches of one request and hands the good ones to the log, all in one append group.
    pub async fn produce(&self, terms: ProduceTerms, incoming: Vec<Incoming>) -> Produced {
        if !(-1..=1).contains(&terms.acks) {
            let why = format!("acks = {}: 0, 1 and -1 (all) are what there is", terms.acks);
            return Produced::all_refused(incoming.len(), &Refusal::new(error_code::INVALID_REQUIRED_ACKS, why));
        }
        if terms.transactional {
            let why = "transactions are not served by this node";
            return Produced::all_refused(incoming.len(), &Refusal::new(error_code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, why));
        }
        let now = self.clock().now();
        let addressed = self.address(incoming);
        let mut checked = check(addressed, terms, now).await;
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

    /// Finds the partitions.
    fn address(&self, incoming: Vec<Incoming>) -> Vec<Result<Addressed, Refusal>> {
        let mut seen = BTreeSet::new();
        incoming
            .into_iter()
            .map(|one| {
                let unknown = || Refusal::new(error_code::UNKNOWN_TOPIC_OR_PARTITION, "there is no such topic or partition");
                let topic = self.topic_named(&one.topic).ok_or_else(unknown)?;
                if topic.name().is_internal() {
                    return Err(Refusal::new(
                        error_code::INVALID_TOPIC_EXCEPTION,
                        "this topic is the node's own; clients may only read it",
                    ));
                }
                let partition = topic.partition(PartitionId(one.partition)).ok_or_else(unknown)?;
                if !seen.insert(partition.key()) {
                    return Err(Refusal::new(error_code::INVALID_REQUEST, "the request names this partition twice"));
                }
                let records = one.records.filter(|r| !r.is_empty());
                let records =
                    records.ok_or_else(|| Refusal::new(error_code::INVALID_RECORD, "the request has no batch for this partition"))?;
                let config = topic.config();
                Ok(Addressed { topic, partition, config, records })
            })
            .collect()
    }
}

type CheckedPart = Result<(Addressed, Checked), Refusal>;

async fn check(addressed: Vec<Result<Addressed, Refusal>>, terms: ProduceTerms, now: Timestamp) -> Vec<CheckedPart> {
    let check_all = move |all: Vec<Result<Addressed, Refusal>>| -> Vec<CheckedPart> {
        all.into_iter().map(|one| one.and_then(|to| check_one(&to.records, &to.config, &to.topic, terms, now).map(|ok| (to, ok)))).collect()
    };
    let bytes: usize = addressed.iter().flatten().map(|to| to.records.len()).sum();
    let is_packed = |to: &Addressed| to.records.get(22).is_some_and(|attributes| attributes & 7 != 0) || to.config.codec.is_some();
    let count = addressed.len();
    if bytes < LARGE && !addressed.iter().flatten().any(is_packed) {
        return check_all(addressed);
    }
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
                _ => "there is no such topic or partition".to_owned(),
            };
            Err(Refusal::new(code, why))
        }
    }
}

/// Everything Kafka's `LogValidator` asks of a client's batch.
fn check_one(records: &Bytes, config: &TopicConfig, topic: &Topic, terms: ProduceTerms, now: Timestamp) -> Result<Checked, Refusal> {
    let invalid = |why: &str| Refusal::new(error_code::INVALID_RECORD, why);
    let batch = Batch::parse(records.clone()).map_err(|e| batch_refusal(&e))?;
    let header = *batch.header();
    if header.is_control() {
        return Err(invalid("clients may not write control batches"));
    }
    if header.is_transactional() {
        return Err(Refusal::new(error_code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "transactions are not served by this node"));
    }
    if header.has_producer() && header.base_sequence < 0 {
        return Err(invalid("a producer's batch has no sequence number"));
    }
    if batch.len_bytes() > config.max_message_bytes {
        let (size, limit) = (batch.len_bytes(), config.max_message_bytes);
        let why = format!("the batch has {size} bytes and max.message.bytes of topic \"{}\" is {limit} (per batch, as sent)", topic.name());
        return Err(Refusal::new(error_code::MESSAGE_TOO_LARGE, why));
    }
    let codec = header.codec().map_err(|e| batch_refusal(&e))?;
    if codec == Codec::Zstd && !terms.knows_zstd {
        return Err(Refusal::new(error_code::UNSUPPORTED_COMPRESSION_TYPE, "zstd needs Produce version 7 or newer"));
    }
    let survey = survey_records(&batch).map_err(|e| batch_refusal(&e))?;
    if survey.keyless && config.cleanup.compact {
        let records = records_that(&batch, |key, _| key.is_none());
        return Err(Refusal { records, ..invalid("a compacted topic takes no record without a key") });
    }
    let append_time = match config.timestamp_type {
        TimestampType::LogAppendTime => Some(now),
        TimestampType::CreateTime => {
            check_times(&batch, &survey, config, now)?;
            None
        }
    };
    let batch = match config.codec {
        Some(wanted) if wanted != codec => repacked(&batch, wanted).map_err(|e| batch_refusal(&e))?,
        _ => batch,
    };
    let batch = match append_time {
        Some(at) => batch.with_log_append_time(at.0),
        None if header.timestamp_type() == TimestampType::LogAppendTime => {
            return Err(Refusal::new(error_code::INVALID_TIMESTAMP, "the batch claims the node's own timestamps"));
        }
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
    use crate::record::{TopicId, TopicName};
    use std::collections::BTreeMap;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const TERMS: ProduceTerms = ProduceTerms { acks: -1, transactional: false, knows_zstd: true };

    fn check_with(configs: &[(&str, &str)], terms: ProduceTerms, batch: &Bytes) -> Result<Batch, (String, Vec<i32>)> {
        let set: BTreeMap<String, String> = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let config = TopicConfig::read(set, &BrokerConfig::default()).unwrap();
        let topic = Topic::new(TopicName::new("t").unwrap(), TopicId::random(), config.clone(), Vec::new());
        check_one(batch, &config, &topic, terms, NOW).map(|ok| ok.batch).map_err(|r| (error_code::name(r.code).to_owned(), r.records))
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
        refuses(two, "INVALID_RECORD");
        refuses(plain.slice(..plain.len() - 1), "INVALID_RECORD");
        refuses(Bytes::from_static(b"x"), "INVALID_RECORD");
        refuses(batch(BatchBuilder::control, &[(0, None)]), "INVALID_RECORD");
        refuses(batch(BatchBuilder::transactional, &[(0, None)]), "TRANSACTIONAL_ID_AUTHORIZATION_FAILED");
        refuses(batch(|b| b.with_producer(1, 0, -1), &[(0, None)]), "INVALID_RECORD");
    }

    #[test]
    fn the_limits_of_the_topic_hold() {
        let plain = || batch(|b| b, &[(0, None)]);
        assert_eq!(refused(&[("max.message.bytes", "20")], &plain()).0, "MESSAGE_TOO_LARGE");
        let mixed = batch(|b| b, &[(0, Some("k")), (0, None), (0, Some("k")), (0, None)]);
        assert_eq!(refused(&[("cleanup.policy", "compact")], &mixed), ("INVALID_RECORD".to_owned(), vec![1, 3]));
        let ahead = batch(|b| b, &[(0, None), (3_600_001, None)]);
        assert_eq!(refused(&[], &ahead), ("INVALID_TIMESTAMP".to_owned(), vec![1]));
        let behind = batch(|b| b, &[(-1001, None), (0, None)]);
        assert_eq!(refused(&[("message.timestamp.before.max.ms", "1000")], &behind), ("INVALID_TIMESTAMP".to_owned(), vec![0]));
        assert!(check_with(&[], TERMS, &behind).is_ok());
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
