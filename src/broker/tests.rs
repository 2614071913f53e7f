//! Stories about a whole broker over a log in memory, restarted where the story asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::group::{CommitOffset, CommitRequest, GroupId};
use super::*;
use crate::log::{LogConfig, SimDisk};
use crate::record::{BatchBuilder, PartitionId};
use crate::wire::error_code;

/// A disk that outlives the brokers opened on it.
pub(crate) struct TestDisk(SimDisk);

impl Default for TestDisk {
    fn default() -> Self {
        Self(SimDisk::new(ROOMY))
    }
}

/// Bytes free on a disk that is not full.
const ROOMY: u64 = 1 << 40;

impl TestDisk {
    /// Opens a broker on it.
    pub(crate) async fn broker(&self) -> Arc<Broker> {
        self.broker_with(BrokerConfig { group_initial_rebalance_delay: Duration::ZERO, ..BrokerConfig::default() }).await
    }

    pub(crate) async fn broker_with(&self, config: BrokerConfig) -> Arc<Broker> {
        // A small WAL: a crash copies it.
        let config_of_log = LogConfig { wal_segment_bytes: 1 << 20, ..LogConfig::default() };
        let log = Log::open(Arc::new(self.0.clone()), config_of_log).expect("a test's log opens");
        Broker::open(log, config, Clock::system()).await.expect("a test's broker opens")
    }

    /// Opens a broker that goes by this clock.
    pub(super) async fn broker_by(&self, clock: Clock) -> Arc<Broker> {
        let log = Log::open(Arc::new(self.0.clone()), LogConfig { wal_segment_bytes: 1 << 20, ..LogConfig::default() });
        let config = BrokerConfig { group_initial_rebalance_delay: Duration::ZERO, ..BrokerConfig::default() };
        Broker::open(log.expect("a test's log opens"), config, clock).await.expect("a test's broker opens")
    }

    /// The disk as it is after the power is cut now: what was not synced is lost.
    pub(crate) fn crash(&self) -> Self {
        Self(self.0.crash(|_| 0))
    }

    /// Fills the disk, or makes room, and waits for the log to notice.
    async fn set_full(&self, broker: &Broker, full: bool) {
        let free = if full { 0 } else { ROOMY };
        self.0.set_free(free);
        while broker.log().stats().free_bytes != free {
            tokio::task::yield_now().await;
        }
    }
}

pub(super) fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

pub(super) fn place(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(name(topic), PartitionId(partition))
}

pub(super) fn batch(values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(Clock::system().now().0, None, Some(value.as_bytes()), &[]);
    }
    builder.finish()
}

pub(super) fn idempotent(id: i64, epoch: i16, first: i32, count: i32) -> Bytes {
    let mut builder = BatchBuilder::new().with_producer(id, epoch, first);
    for i in 0..count {
        builder.push(Clock::system().now().0, None, Some(format!("{}", first + i).as_bytes()), &[]);
    }
    builder.finish().to_bytes()
}

async fn topic(broker: &Broker, topic: &str, partitions: i32) -> Arc<Topic> {
    broker.create_topic(NewTopic { name: name(topic), partitions: Some(partitions), configs: BTreeMap::new() }).await.unwrap()
}

/// Sends one batch for each partition named; tells the offsets or Kafka's errors.
pub(super) async fn send(broker: &Broker, batches: &[(&str, i32, Bytes)]) -> String {
    send_in(broker, None, batches).await
}

async fn send_in(broker: &Broker, id: Option<&str>, batches: &[(&str, i32, Bytes)]) -> String {
    let terms = ProduceTerms { acks: -1, knows_abortable: true, knows_zstd: true, bumps_epoch: false };
    let incoming = batches
        .iter()
        .map(|(t, p, b)| Incoming { topic: (*t).to_owned(), topic_id: None, partition: *p, records: Some(b.clone()) })
        .collect();
    let told = |outcome: &Result<Placed, Refusal>| match outcome {
        Ok(placed) => format!("@{}", placed.base),
        Err(refusal) => error_code::name(refusal.code).to_owned(),
    };
    broker.produce(terms, id, incoming).await.durable().await.iter().map(told).collect::<Vec<_>>().join(" ")
}

pub(super) fn part(topic: &str, partition: i32, offset: i64, max_bytes: usize) -> FetchPart {
    FetchPart { topic: topic.to_owned(), topic_id: None, partition, offset, max_bytes, leader_epoch: -1, last_fetched_epoch: -1 }
}

fn spec(parts: Vec<FetchPart>, min_bytes: usize, max_wait: Duration) -> FetchSpec {
    FetchSpec { parts, max_bytes: 1 << 20, min_bytes, max_wait, knows_zstd: true, isolation: Isolation::ReadUncommitted }
}

/// The offsets of the records that came, or Kafka's error.
fn offsets(part: &FetchedPart) -> String {
    if part.error != error_code::NONE {
        return error_code::name(part.error).to_owned();
    }
    let mut bytes = Bytes::from(part.records.concat());
    let mut all = Vec::new();
    while let Some(batch) = Batch::split(&mut bytes).unwrap() {
        all.extend(batch.records().unwrap().iter().map(|r| r.unwrap().offset.to_string()));
    }
    all.join(",")
}

/// Fetches what is there now.
pub(super) async fn fetch_now(broker: &Broker, parts: Vec<FetchPart>) -> Vec<String> {
    broker.fetch(&spec(parts, 0, Duration::ZERO)).await.iter().map(offsets).collect()
}

/// Longer than anything here should take; only a hang waits for it.
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn topics_survive_a_restart_and_a_topic_made_again_is_another() {
    let disk = TestDisk::default();
    let broker = disk.broker().await;
    let cluster = broker.cluster_id().to_owned();
    let first = topic(&broker, "vitals", 2).await.id();
    broker.create_partitions(&name("vitals"), 3).await.unwrap();
    topic(&broker, "gone", 1).await;
    broker.append(vec![(place("gone", 0), batch(&["x"]))]).await.unwrap();
    broker.delete_topic(&name("gone")).await.unwrap();
    assert!(matches!(broker.create_topic(NewTopic::named(name("vitals"))).await, Err(BrokerError::TopicExists(_))));
    assert!(matches!(broker.create_partitions(&name("vitals"), 3).await, Err(BrokerError::InvalidPartitions(_))));
    broker.close().await.unwrap();

    let broker = disk.broker().await;
    assert_eq!(broker.cluster_id(), cluster);
    let vitals = broker.topic(&name("vitals")).unwrap();
    assert_eq!((vitals.id(), vitals.partition_count()), (first, 3));
    assert!(broker.topic(&name("gone")).is_none());
    let again = topic(&broker, "gone", 1).await;
    assert_eq!(again.partition(PartitionId(0)).unwrap().log().durable_end(), Offset(0));
    broker.delete_topic(&name("vitals")).await.unwrap();
    assert_ne!(topic(&broker, "vitals", 1).await.id(), first);
    assert!(broker.topic_by_id(first).is_none());
}

#[tokio::test]
async fn a_partition_count_is_bounded() {
    let disk = TestDisk::default();
    let broker = disk.broker_with(BrokerConfig { max_partitions: 10, ..BrokerConfig::default() }).await;
    for count in [0, -2, i32::MAX, 11] {
        let new = NewTopic { partitions: Some(count), ..NewTopic::named(name("t")) };
        assert!(matches!(broker.create_topic(new).await, Err(BrokerError::InvalidPartitions(_))), "{count}");
    }
    assert!(broker.topic(&name("t")).is_none());
}

#[tokio::test]
async fn a_repeated_batch_gets_the_offset_it_had_even_after_a_restart() {
    let disk = TestDisk::default();
    let broker = disk.broker().await;
    topic(&broker, "t", 1).await;
    let one = |first, count| ("t", 0, idempotent(7, 0, first, count));
    assert_eq!(send(&broker, &[one(0, 3)]).await, "@0");
    assert_eq!(send(&broker, &[one(3, 2)]).await, "@3");
    assert_eq!(send(&broker, &[one(0, 3)]).await, "@0");
    assert_eq!(send(&broker, &[one(9, 1)]).await, "OUT_OF_ORDER_SEQUENCE_NUMBER");
    let disk = disk.crash(); // not closed: the log is all there is
    let broker = disk.broker().await;
    assert_eq!(send(&broker, &[one(3, 2)]).await, "@3");
    assert_eq!(send(&broker, &[one(5, 1)]).await, "@5");
    broker.close().await.unwrap(); // closed: the snapshot is
    let broker = disk.broker().await;
    assert_eq!(send(&broker, &[one(5, 1)]).await, "@5");
    assert_eq!(send(&broker, &[one(7, 1)]).await, "OUT_OF_ORDER_SEQUENCE_NUMBER");
    assert_eq!(send(&broker, &[one(6, 1)]).await, "@6");
}

#[tokio::test]
async fn a_producer_goes_on_when_what_it_wrote_since_the_last_snapshot_was_deleted() {
    let disk = TestDisk::default();
    let broker = disk.broker().await;
    topic(&broker, "t", 1).await;
    let one = |first| [("t", 0, idempotent(7, 0, first, 1))];
    assert_eq!(send(&broker, &one(0)).await, "@0");
    broker.close().await.unwrap(); // its snapshot knows of one batch
    let broker = disk.broker().await;
    assert_eq!((send(&broker, &one(1)).await, send(&broker, &one(2)).await), ("@1".to_owned(), "@2".to_owned()));
    assert_eq!(broker.delete_records("t", 0, -1).await, Ok(3));
    let disk = disk.crash();
    let broker = disk.broker().await;
    assert_eq!(send(&broker, &one(3)).await, "@3");
    // A start in the middle of a batch leaves its producer what it has.
    assert_eq!(send(&broker, &[("t", 0, idempotent(8, 0, 0, 3))]).await, "@4");
    assert_eq!(broker.delete_records("t", 0, 5).await, Ok(5));
    let disk = disk.crash();
    let broker = disk.broker().await;
    assert_eq!(send(&broker, &[("t", 0, idempotent(8, 0, 3, 1))]).await, "@7");
    assert_eq!(send(&broker, &[("t", 0, idempotent(8, 0, 0, 3))]).await, "@4");
    assert_eq!(send(&broker, &[("t", 0, idempotent(7, 0, 9, 1))]).await, "@8", "all it wrote is gone, and it with it");
    // Nor does a marker alone say what a producer wrote.
    let places = || [place("t", 0)].into();
    let who = broker.transactions().init("one", 60_000, None).await.unwrap();
    let one = |sequence| {
        let mut builder = BatchBuilder::new().with_producer(who.id, who.epoch, sequence).transactional();
        builder.push(Clock::system().now().0, None, Some(b"x"), &[]);
        builder.finish().to_bytes()
    };
    broker.transactions().add("one", who, places()).await.unwrap();
    assert_eq!(send_in(&broker, Some("one"), &[("t", 0, one(0))]).await, "@9");
    broker.transactions().end("one", who, true).await.unwrap();
    assert_eq!(broker.delete_records("t", 0, 10).await, Ok(10));
    let disk = disk.crash();
    let broker = disk.broker().await;
    broker.transactions().add("one", who, places()).await.unwrap();
    assert_eq!(send_in(&broker, Some("one"), &[("t", 0, one(1))]).await, "@11");
}

#[tokio::test]
async fn a_batch_sent_twice_at_once_is_appended_once_and_both_are_durable_when_acknowledged() {
    let disk = TestDisk::default();
    let broker = disk.broker().await;
    let topic = topic(&broker, "t", 1).await;
    for round in 0..20 {
        let one = [("t", 0, idempotent(7, 0, round, 1))];
        let (a, b) = tokio::join!(send(&broker, &one), send(&broker, &one));
        assert_eq!((a, b), (format!("@{round}"), format!("@{round}")));
        assert_eq!(topic.partition(PartitionId(0)).unwrap().log().durable_end(), Offset(i64::from(round) + 1));
    }
}

#[tokio::test]
async fn each_partition_of_a_request_is_judged_by_itself() {
    let disk = TestDisk::default();
    let broker = disk.broker().await;
    topic(&broker, "t", 2).await;
    let good = batch(&["a"]).to_bytes();
    let request = [
        ("t", 0, good.clone()),
        ("t", 1, Bytes::from_static(b"rubbish")),
        ("t", 9, good.clone()),
        ("nope", 0, good.clone()),
        ("__topics", 0, good.clone()),
        ("t", 0, good.clone()),
        ("../etc", 0, good),
    ];
    let wanted = "@0 INVALID_RECORD UNKNOWN_TOPIC_OR_PARTITION UNKNOWN_TOPIC_OR_PARTITION INVALID_TOPIC_EXCEPTION INVALID_REQUEST UNKNOWN_TOPIC_OR_PARTITION";
    assert_eq!(send(&broker, &request).await, wanted);
    assert_eq!(fetch_now(&broker, vec![part("t", 0, 0, 1000), part("t", 1, 0, 1000)]).await, ["0", ""]);
}

#[tokio::test]
async fn a_full_disk_refuses_writes_so_that_they_can_be_repeated() {
    let disk = TestDisk::default();
    let broker = disk.broker().await;
    topic(&broker, "t", 1).await;
    let one = |first| [("t", 0, idempotent(7, 0, first, 1))];
    assert_eq!(send(&broker, &one(0)).await, "@0");
    disk.set_full(&broker, true).await;
    assert_eq!(send(&broker, &one(1)).await, "KAFKA_STORAGE_ERROR");
    assert!(broker.append(vec![(place("t", 0), batch(&["x"]))]).await.is_err());
    assert_eq!(fetch_now(&broker, vec![part("t", 0, 0, 1000)]).await, ["0"]);
    disk.set_full(&broker, false).await;
    assert_eq!(send(&broker, &one(1)).await, "@1");
    assert_eq!(send(&broker, &one(1)).await, "@1");
}

#[tokio::test]
async fn a_disk_that_takes_nothing_holds_up_neither_house_keeping_nor_the_stop() {
    let disk = TestDisk::default();
    let broker = disk.broker().await;
    topic(&broker, "t", 1).await;
    assert_eq!(send(&broker, &[("t", 0, idempotent(7, 0, 0, 1))]).await, "@0");
    disk.0.set_read_only(true);
    // What finds out is held: it has its place, and nobody knows for how long.
    let held = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { send(&broker, &[("t", 0, idempotent(7, 0, 1, 1))]).await }
    });
    broker.log().running_out().await;
    assert_eq!(send(&broker, &[("t", 0, idempotent(8, 0, 0, 1))]).await, "KAFKA_STORAGE_ERROR");
    assert_eq!(commit(&broker, &GroupId::new("g").unwrap(), 6).await, Err(error_code::COORDINATOR_NOT_AVAILABLE));
    // Told or not: it does not wait.
    let _ = tokio::time::timeout(LONG, broker.enforce_retention()).await.expect("house-keeping waits for nobody");
    tokio::time::timeout(LONG, broker.close()).await.expect("the stop waits for nobody").unwrap();
    assert_eq!(held.await.unwrap(), "KAFKA_STORAGE_ERROR");
    disk.0.set_read_only(false);
    let broker = disk.crash().broker().await;
    assert_eq!(fetch_now(&broker, vec![part("t", 0, 0, 1000)]).await, ["0"]);
    assert_eq!(send(&broker, &[("t", 0, idempotent(7, 0, 1, 1))]).await, "@1");
}

#[tokio::test]
async fn the_engines_batches_go_together_or_not_at_all() {
    let disk = TestDisk::default();
    let broker = disk.broker().await;
    topic(&broker, "t", 2).await;
    let group = vec![
        (place("t", 1), batch(&["a", "b"])),
        (place("t", 0), batch(&["c"])),
        (place("t", 1), batch(&["d"])),
        (place("t", 1), batch(&["e", "f"])),
    ];
    assert_eq!(broker.append(group).await.unwrap(), [Offset(0), Offset(0), Offset(2), Offset(3)]);
    let bad = vec![(place("t", 0), batch(&["x"])), (place("t", 5), batch(&["y"]))];
    assert!(matches!(broker.append(bad).await, Err(BrokerError::UnknownPartition(_))));
    assert_eq!(fetch_now(&broker, vec![part("t", 0, 0, 1000), part("t", 1, 0, 1000)]).await, ["0", "0,1,2,3,4"]);
    assert!(broker.append(Vec::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_fetch_gives_whole_batches_within_its_limits() {
    let disk = TestDisk::default();
    let broker = disk.broker().await;
    topic(&broker, "t", 2).await;
    for _ in 0..2 {
        let both = vec![(place("t", 0), batch(&["a", "b", "c"])), (place("t", 1), batch(&["a", "b", "c"]))];
        broker.append(both).await.unwrap();
    }
    let size = batch(&["a", "b", "c"]).len_bytes();
    // An offset in the middle of a batch gets all of it.
    assert_eq!(fetch_now(&broker, vec![part("t", 0, 1, size)]).await, ["0,1,2"]);
    // The first batch comes even where it is too large, the next partition's does not.
    assert_eq!(fetch_now(&broker, vec![part("t", 0, 3, 1), part("t", 1, 0, 1)]).await, ["3,4,5", ""]);
    assert_eq!(fetch_now(&broker, vec![part("t", 0, 0, 2 * size), part("t", 1, 3, size)]).await, ["0,1,2,3,4,5", "3,4,5"]);
    let mut tight = spec(vec![part("t", 0, 0, 2 * size), part("t", 1, 0, 2 * size)], 0, Duration::ZERO);
    tight.max_bytes = 3 * size;
    assert_eq!(broker.fetch(&tight).await.iter().map(offsets).collect::<Vec<_>>(), ["0,1,2,3,4,5", "0,1,2"]);
    // Outside of what there is, and unknown.
    let strange = vec![part("t", 0, 7, 1), part("t", 0, -1, 1), part("t", 2, 0, 1), part("u", 0, 0, 1), part("t", 1, 6, 1)];
    let told = fetch_now(&broker, strange).await;
    assert_eq!(told, ["OFFSET_OUT_OF_RANGE", "OFFSET_OUT_OF_RANGE", "UNKNOWN_TOPIC_OR_PARTITION", "UNKNOWN_TOPIC_OR_PARTITION", ""]);
}

#[tokio::test]
async fn a_waiting_fetch_is_woken_by_what_it_waits_for() {
    let disk = TestDisk::default();
    let broker = disk.broker().await;
    topic(&broker, "t", 2).await;
    let wait = |min_bytes| spec(vec![part("t", 0, 0, 1 << 20), part("t", 1, 0, 1 << 20)], min_bytes, LONG);
    let any = wait(1);
    let (answer, _) = tokio::join!(broker.fetch(&any), broker.append(vec![(place("t", 1), batch(&["a"]))]));
    assert_eq!(answer.iter().map(offsets).collect::<Vec<_>>(), ["", "0"]);
    // Too little does not wake it for good; enough does.
    let size = batch(&["a"]).len_bytes();
    let enough = wait(3 * size);
    let feed = async {
        for partition in [0, 1] {
            broker.append(vec![(place("t", partition), batch(&["a"]))]).await.unwrap();
        }
    };
    let (answer, ()) = tokio::join!(broker.fetch(&enough), feed);
    assert_eq!(answer.iter().map(offsets).collect::<Vec<_>>(), ["0", "0,1"]);
    // A deleted topic wakes it too.
    let end = spec(vec![part("t", 0, 1, 100)], 1, LONG);
    let topic = name("t");
    let (answer, deleted) = tokio::join!(broker.fetch(&end), broker.delete_topic(&topic));
    deleted.unwrap();
    assert_eq!(answer.iter().map(offsets).collect::<Vec<_>>(), ["UNKNOWN_TOPIC_OR_PARTITION"]);
    // And its own deadline.
    let short = spec(Vec::new(), 1, LONG);
    assert!(broker.fetch(&short).await.is_empty());
}

#[tokio::test]
async fn places_are_found_by_time_and_by_end() {
    let disk = TestDisk::default();
    let broker = disk.broker().await;
    topic(&broker, "t", 1).await;
    let mut builder = BatchBuilder::new();
    for at in [100, 300, 200] {
        builder.push(at, None, Some(b"x"), &[]);
    }
    broker.append(vec![(place("t", 0), builder.finish())]).await.unwrap();
    let find = async |at| broker.list_offset("t", 0, -1, at, Isolation::ReadUncommitted).await.map(|f| (f.offset, f.timestamp));
    assert_eq!(find(-1).await, Ok((3, -1)));
    assert_eq!(find(-2).await, Ok((0, -1)));
    assert_eq!(find(-3).await, Ok((1, 300)));
    assert_eq!(find(-5).await, Ok((-1, -1)));
    assert_eq!(find(0).await, Ok((0, 100)));
    assert_eq!(find(101).await, Ok((1, 300)));
    assert_eq!(find(301).await, Ok((-1, -1)));
    assert_eq!(broker.list_offset("t", 0, 4, -1, Isolation::ReadUncommitted).await, Err(error_code::UNKNOWN_LEADER_EPOCH));
    assert_eq!(broker.end_of_epoch("t", 0, -1, 0), Ok((0, 3)));
    assert_eq!(broker.end_of_epoch("t", 0, -1, 5), Ok((-1, -1)));
    assert_eq!(broker.delete_records("t", 0, 4).await, Err(error_code::OFFSET_OUT_OF_RANGE));
    assert_eq!(broker.delete_records("t", 0, 2).await, Ok(2));
    assert_eq!(broker.delete_records("t", 0, 1).await, Ok(2));
    assert_eq!(find(-2).await, Ok((2, -1)));
    assert_eq!(broker.delete_records("t", 0, -1).await, Ok(3));
    assert_eq!(broker.delete_records("__topics", 0, -1).await, Err(error_code::TOPIC_AUTHORIZATION_FAILED));
}

#[tokio::test]
async fn records_of_a_topic_that_is_only_compacted_cannot_be_deleted() {
    let broker = TestDisk::default().broker().await;
    topic(&broker, "t", 1).await;
    for (policy, outcome) in [("compact", Err(error_code::POLICY_VIOLATION)), ("compact,delete", Ok(0)), ("delete", Ok(0)), ("", Ok(0))] {
        let edit = ConfigEdit::Replace([("cleanup.policy".to_owned(), policy.to_owned())].into());
        broker.alter_topic(&TopicName::new("t").unwrap(), edit, false).await.unwrap();
        assert_eq!(broker.delete_records("t", 0, -1).await, outcome, "{policy:?}");
    }
}

#[tokio::test]
async fn a_producers_id_is_never_given_twice() {
    let mut disk = TestDisk::default();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        disk = disk.crash();
        let broker = disk.broker().await;
        for _ in 0..1100 {
            assert!(seen.insert(broker.new_producer_id().await.unwrap()));
        }
    }
}

pub(super) async fn commit(broker: &Broker, group: &GroupId, offset: i64) -> Result<Vec<(TopicPartition, i16)>, i16> {
    let one = CommitOffset { of: place("t", 0), offset: Offset(offset), leader_epoch: -1, metadata: Some("m".repeat(100)) };
    let request = CommitRequest {
        member_id: String::new(),
        instance_id: None,
        generation: -1,
        knows_epochs: false,
        retention_ms: None,
        offsets: vec![one],
    };
    broker.groups().commit(group, request).await
}

pub(super) fn committed(broker: &Broker, group: &GroupId) -> Option<i64> {
    broker.groups().committed(group, &place("t", 0)).map(|c| c.offset.0)
}

#[tokio::test]
async fn positions_survive_a_restart_and_go_with_their_topic() {
    let disk = TestDisk::default();
    let broker = disk.broker().await;
    topic(&broker, "t", 1).await;
    let group = GroupId::new("readers").unwrap();
    assert_eq!(commit(&broker, &group, 5).await, Ok(vec![(place("t", 0), error_code::NONE)]));
    let disk = disk.crash();
    let broker = disk.broker().await;
    assert_eq!(committed(&broker, &group), Some(5));
    disk.set_full(&broker, true).await;
    assert_eq!(commit(&broker, &group, 6).await, Err(error_code::COORDINATOR_NOT_AVAILABLE));
    disk.set_full(&broker, false).await;
    assert_eq!(committed(&broker, &group), Some(5));
    broker.delete_topic(&name("t")).await.unwrap();
    assert_eq!(committed(&broker, &group), None);
    let disk = disk.crash();
    assert_eq!(committed(&*disk.broker().await, &group), None);
}

#[tokio::test]
async fn the_topic_of_positions_is_rewritten_when_it_has_grown_long() {
    let disk = TestDisk::default();
    let broker = disk.broker().await;
    topic(&broker, "t", 1).await;
    let groups: Vec<_> = (0..50).map(|i| GroupId::new(&format!("g{i}")).unwrap()).collect();
    let offsets = broker.partition(&place("__consumer_offsets", 0)).unwrap();
    let mut last = 0;
    while offsets.log().size_bytes() < 4 << 20 {
        last += 1;
        futures::future::join_all(groups.iter().map(|g| commit(&broker, g, last))).await;
    }
    for _ in 0..2 {
        broker.enforce_retention().await.unwrap();
        // Once: what was just rewritten is not long.
        assert_eq!(offsets.log().durable_end().0 - offsets.log().start().0, 50);
    }
    let disk = disk.crash();
    let broker = disk.broker().await;
    assert!(groups.iter().all(|g| committed(&broker, g) == Some(last)));
}
