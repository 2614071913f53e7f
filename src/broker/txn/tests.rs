//! Stories about transactions over a whole broker, with the power cut where the story asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Identity, TxnState};
use crate::broker::group::{CommitOffset, GroupId, TxnCommitRequest};
use crate::broker::{Broker, FetchPart, FetchSpec, FetchedPart, Incoming, Isolation, NewTopic, ProduceTerms, TestDisk};
use crate::record::{Batch, BatchBuilder, Offset, PartitionId, TopicName, TopicPartition};
use crate::time::Clock;
use crate::wire::error_code;

const TIMEOUT_MS: i32 = 60_000;
/// Longer than anything here should take; only a hang waits for it.
const LONG: Duration = Duration::from_secs(20);

fn place(partition: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(partition))
}

async fn open(disk: &TestDisk) -> Arc<Broker> {
    let broker = disk.broker().await;
    if broker.topic_named("t").is_none() {
        let new = NewTopic { name: TopicName::new("t").unwrap(), partitions: Some(3), configs: BTreeMap::new() };
        broker.create_topic(new).await.unwrap();
    }
    broker
}

/// A transactional producer, as a client keeps it.
struct Producer {
    broker: Arc<Broker>,
    id: &'static str,
    who: Identity,
    sequences: BTreeMap<i32, i32>,
}

fn told<T>(result: Result<T, i16>) -> String {
    result.map_or_else(|code| error_code::name(code).to_owned(), |_| "ok".to_owned())
}

impl Producer {
    async fn new(broker: &Arc<Broker>, id: &'static str) -> Self {
        Self::with_timeout(broker, id, TIMEOUT_MS).await
    }

    async fn with_timeout(broker: &Arc<Broker>, id: &'static str, timeout_ms: i32) -> Self {
        let who = loop {
            match broker.transactions().init(id, timeout_ms, None).await {
                Ok(who) => break who,
                Err(code) => assert_eq!(code, error_code::CONCURRENT_TRANSACTIONS),
            }
        };
        Self { broker: Arc::clone(broker), id, who, sequences: BTreeMap::new() }
    }

    async fn add(&self, partitions: &[i32]) -> String {
        let all: BTreeSet<_> = partitions.iter().map(|p| place(*p)).collect();
        told(self.broker.transactions().add(self.id, self.who, all).await)
    }

    async fn send(&mut self, partition: i32, value: &str) -> String {
        let sequence = self.sequences.entry(partition).or_default();
        let mut builder = BatchBuilder::new().with_producer(self.who.id, self.who.epoch, *sequence).transactional();
        builder.push(Clock::system().now().0, None, Some(value.as_bytes()), &[]);
        let told = send(&self.broker, Some(self.id), partition, builder.finish().to_bytes()).await;
        if told.starts_with('@') {
            *sequence += 1;
        }
        told
    }

    async fn end(&self, committed: bool) -> String {
        told(self.broker.transactions().end(self.id, self.who, committed).await)
    }

    async fn commit_offset(&self, offset: i64) -> String {
        let group = GroupId::new("g").unwrap();
        let one = CommitOffset { of: place(0), offset: Offset(offset), leader_epoch: -1, metadata: None };
        let request =
            TxnCommitRequest { producer_id: self.who.id, member_id: String::new(), instance_id: None, generation: -1, offsets: vec![one] };
        told(self.broker.transactions().commit_offsets(self.id, self.who, group, request).await)
    }
}

async fn send(broker: &Broker, id: Option<&str>, partition: i32, records: Bytes) -> String {
    let terms = ProduceTerms { acks: -1, knows_abortable: false, knows_zstd: true, bumps_epoch: false };
    let incoming = vec![Incoming { topic: "t".to_owned(), topic_id: None, partition, records: Some(records) }];
    match broker.produce(terms, id, incoming).await.durable().await.remove(0) {
        Ok(placed) => format!("@{}", placed.base),
        Err(refusal) => error_code::name(refusal.code).to_owned(),
    }
}

async fn plain(broker: &Broker, partition: i32, value: &str) -> String {
    let mut builder = BatchBuilder::new();
    builder.push(Clock::system().now().0, None, Some(value.as_bytes()), &[]);
    send(broker, None, partition, builder.finish().to_bytes()).await
}

async fn fetch(broker: &Broker, partition: i32, offset: i64, isolation: Isolation, max_wait: Duration) -> FetchedPart {
    let part = FetchPart {
        topic: "t".to_owned(),
        topic_id: None,
        partition,
        offset,
        max_bytes: 1 << 20,
        leader_epoch: -1,
        last_fetched_epoch: -1,
    };
    let spec = FetchSpec { parts: vec![part], max_bytes: 1 << 20, min_bytes: 1, max_wait, knows_zstd: true, isolation };
    broker.fetch(&spec).await.remove(0)
}

/// What a consumer that reads only what is committed makes of a partition: as Kafka's clients do, by what it is told
/// of aborted transactions and by the markers.
async fn committed(broker: &Broker, partition: i32) -> String {
    let (mut values, mut at) = (Vec::new(), Offset::ZERO);
    loop {
        // One answer may end where a segment does.
        let fetched = fetch(broker, partition, at.0, Isolation::ReadCommitted, Duration::ZERO).await;
        assert_eq!(fetched.error, error_code::NONE);
        let mut bytes = Bytes::from(fetched.records.concat());
        if bytes.is_empty() {
            break;
        }
        let mut aborted = fetched.aborted;
        aborted.sort_by_key(|(_, first)| *first);
        let mut skipped = BTreeSet::new();
        while let Some(batch) = Batch::split(&mut bytes).unwrap() {
            let header = batch.header();
            while aborted.first().is_some_and(|(_, first)| *first <= batch.last_offset()) {
                skipped.insert(aborted.remove(0).0);
            }
            if header.is_control() {
                skipped.remove(&header.producer_id);
            } else if !(header.is_transactional() && skipped.contains(&header.producer_id)) {
                let records = batch.records().unwrap();
                values.extend(records.iter().map(|r| String::from_utf8_lossy(r.unwrap().value.unwrap()).into_owned()));
            }
            at = batch.next_offset();
        }
    }
    values.join(" ")
}

#[tokio::test]
async fn a_committed_transaction_is_seen_whole_and_an_aborted_one_not_at_all() {
    let disk = TestDisk::default();
    let broker = open(&disk).await;
    let mut one = Producer::new(&broker, "one").await;
    assert_eq!(one.add(&[0, 1]).await, "ok");
    assert_eq!((one.send(0, "a").await, one.send(1, "b").await), ("@0".to_owned(), "@0".to_owned()));
    assert_eq!(plain(&broker, 0, "plain").await, "@1");
    assert_eq!((committed(&broker, 0).await, committed(&broker, 1).await), (String::new(), String::new()));
    let all = fetch(&broker, 0, 0, Isolation::ReadUncommitted, Duration::ZERO).await;
    assert_eq!((all.high_watermark, all.last_stable, all.records.is_empty()), (2, 0, false));
    assert_eq!(one.end(true).await, "ok");
    assert_eq!((committed(&broker, 0).await, committed(&broker, 1).await), ("a plain".to_owned(), "b".to_owned()));

    assert_eq!(one.add(&[0]).await, "ok");
    assert_eq!(one.send(0, "no").await, "@3");
    assert_eq!(plain(&broker, 0, "more").await, "@4");
    assert_eq!(one.end(false).await, "ok");
    assert_eq!(committed(&broker, 0).await, "a plain more");
    let all = fetch(&broker, 0, 0, Isolation::ReadCommitted, Duration::ZERO).await;
    assert_eq!((all.aborted, all.last_stable), (vec![(one.who.id, Offset(3))], 6));
    assert_eq!((one.end(false).await, one.end(true).await), ("ok".to_owned(), "INVALID_TXN_STATE".to_owned()));
}

#[tokio::test]
async fn who_waits_for_what_is_committed_is_woken_by_the_marker() {
    let disk = TestDisk::default();
    let broker = open(&disk).await;
    let mut one = Producer::new(&broker, "one").await;
    one.add(&[0]).await;
    one.send(0, "a").await;
    let (fetched, ended) = tokio::join!(fetch(&broker, 0, 0, Isolation::ReadCommitted, LONG), one.end(true));
    assert_eq!((fetched.records.is_empty(), ended.as_str()), (false, "ok"));
}

#[tokio::test]
async fn a_batch_needs_its_partition_in_an_open_transaction_of_its_producer() {
    let disk = TestDisk::default();
    let broker = open(&disk).await;
    let mut one = Producer::new(&broker, "one").await;
    assert_eq!(one.send(0, "early").await, "INVALID_TXN_STATE");
    one.add(&[0]).await;
    assert_eq!((one.send(1, "elsewhere").await, one.send(0, "a").await), ("INVALID_TXN_STATE".to_owned(), "@0".to_owned()));
    let batch = |id: i64, epoch: i16, first: i32, transactional: bool| {
        let mut builder = BatchBuilder::new().with_producer(id, epoch, first);
        builder.push(Clock::system().now().0, None, Some(b"x"), &[]);
        let builder = if transactional { builder.transactional() } else { builder };
        builder.finish().to_bytes()
    };
    let (id, epoch) = (one.who.id, one.who.epoch);
    assert_eq!(send(&broker, None, 0, batch(id, epoch, 1, true)).await, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED");
    assert_eq!(send(&broker, Some("one"), 0, batch(id, epoch, 1, false)).await, "INVALID_TXN_STATE");
    assert_eq!(send(&broker, Some("one"), 0, batch(id + 99, epoch, 0, true)).await, "INVALID_PRODUCER_ID_MAPPING");
    assert_eq!(send(&broker, Some("nobody"), 0, batch(id, epoch, 1, true)).await, "INVALID_PRODUCER_ID_MAPPING");
    assert_eq!(send(&broker, Some(""), 0, batch(id, epoch, 1, true)).await, "INVALID_REQUEST");
    assert_eq!(send(&broker, Some("one"), 0, batch(id, epoch + 1, 0, true)).await, "INVALID_PRODUCER_EPOCH");
    one.end(true).await;
    assert_eq!(one.send(0, "late").await, "INVALID_TXN_STATE");
    assert_eq!(committed(&broker, 0).await, "a");
}

#[tokio::test]
async fn after_a_batch_was_refused_none_behind_it_is_written_before_it() {
    let disk = TestDisk::default();
    let broker = open(&disk).await;
    let mut one = Producer::new(&broker, "one").await;
    assert_eq!(one.send(0, "first").await, "INVALID_TXN_STATE");
    one.add(&[0]).await;
    one.sequences.insert(0, 1);
    assert_eq!(one.send(0, "second").await, "OUT_OF_ORDER_SEQUENCE_NUMBER");
    one.sequences.insert(0, 0);
    assert_eq!((one.send(0, "first").await, one.send(0, "second").await), ("@0".to_owned(), "@1".to_owned()));
    one.end(true).await;
    assert_eq!(committed(&broker, 0).await, "first second");
}

#[tokio::test]
async fn who_takes_an_id_over_ends_the_transaction_of_whoever_had_it() {
    let disk = TestDisk::default();
    let broker = open(&disk).await;
    let mut old = Producer::new(&broker, "one").await;
    old.add(&[0]).await;
    old.send(0, "old").await;
    assert_eq!(told(broker.transactions().init("one", TIMEOUT_MS, None).await), "CONCURRENT_TRANSACTIONS");
    let mut new = Producer::new(&broker, "one").await;
    assert_eq!((new.who.id, new.who.epoch), (old.who.id, old.who.epoch + 2));
    assert_eq!(old.send(0, "old").await, "INVALID_PRODUCER_EPOCH");
    assert_eq!((old.add(&[1]).await, old.end(true).await), ("PRODUCER_FENCED".to_owned(), "PRODUCER_FENCED".to_owned()));
    new.add(&[0]).await;
    assert_eq!(new.send(0, "new").await, "@2");
    new.end(true).await;
    assert_eq!(committed(&broker, 0).await, "new");
}

#[tokio::test]
async fn a_transaction_whose_time_is_over_is_aborted_also_after_a_restart() {
    let disk = TestDisk::default();
    let broker = open(&disk).await;
    // Long enough that its record comes in time also where the machine is busy.
    let mut one = Producer::with_timeout(&broker, "one", 1_000).await;
    one.add(&[0]).await;
    one.send(0, "a").await;
    let aborted = |broker: Arc<Broker>| async move {
        let mut from = 0;
        loop {
            let part = fetch(&broker, 0, from, Isolation::ReadUncommitted, LONG).await;
            if part.last_stable == part.high_watermark && part.high_watermark > 1 {
                break;
            }
            from = part.high_watermark;
        }
        assert_eq!(broker.transactions().describe("one").unwrap().state, TxnState::CompleteAbort);
    };
    aborted(Arc::clone(&broker)).await;
    assert_eq!(one.end(true).await, "PRODUCER_FENCED");
    assert_eq!(committed(&broker, 0).await, "");

    let mut two = Producer::with_timeout(&broker, "two", 1_000).await;
    two.add(&[1]).await;
    two.send(1, "b").await;
    let broker = open(&disk.crash()).await;
    let part = fetch(&broker, 1, 1, Isolation::ReadUncommitted, LONG).await;
    assert_eq!((part.high_watermark, part.last_stable), (2, 2), "its marker came");
    assert_eq!(committed(&broker, 1).await, "");
}

#[tokio::test]
async fn a_crash_leaves_open_what_was_open_and_remembers_what_was_aborted() {
    let disk = TestDisk::default();
    let broker = open(&disk).await;
    let mut one = Producer::new(&broker, "one").await;
    for (value, commit) in [("yes", true), ("no", false), ("yes", true)] {
        one.add(&[0]).await;
        one.send(0, value).await;
        one.end(commit).await;
    }
    one.add(&[0, 1]).await;
    one.send(0, "open").await;
    plain(&broker, 0, "behind").await;
    let disk = disk.crash();
    let broker = open(&disk).await;
    let part = fetch(&broker, 0, 0, Isolation::ReadUncommitted, Duration::ZERO).await;
    assert_eq!((part.high_watermark, part.last_stable), (8, 6));
    assert_eq!(committed(&broker, 0).await, "yes yes");
    assert_eq!(broker.transactions().describe("one").unwrap().partitions.len(), 2);
    let mut one = Producer { broker: Arc::clone(&broker), ..one };
    assert_eq!(one.send(0, "more").await, "@8");
    assert_eq!(one.end(true).await, "ok");
    assert_eq!(committed(&broker, 0).await, "yes yes open behind more");
    broker.close().await.unwrap();
    let broker = open(&disk).await;
    assert_eq!(committed(&broker, 0).await, "yes yes open behind more");
}

#[tokio::test]
async fn an_index_of_aborted_transactions_that_cannot_be_read_is_made_again() {
    let disk = TestDisk::default();
    let broker = open(&disk).await;
    let mut one = Producer::new(&broker, "one").await;
    for (value, commit) in [("yes", true), ("no", false)] {
        one.add(&[0]).await;
        one.send(0, value).await;
        one.end(commit).await;
    }
    broker.transactions().aborted.append(&[(vec![0; 28], Some(vec![1]))]).await.unwrap();
    broker.close().await.unwrap();
    let broker = open(&disk).await;
    let topic = broker.topic_named("t").unwrap();
    topic.partitions().iter().for_each(|partition| drop(partition.stability().forget_below(Offset(i64::MAX))));
    assert_eq!(committed(&broker, 0).await, "yes");
}

#[tokio::test]
async fn offsets_are_a_groups_exactly_if_the_transaction_is_committed() {
    let disk = TestDisk::default();
    let broker = open(&disk).await;
    let group = GroupId::new("g").unwrap();
    let at = |broker: &Broker| broker.groups().committed(&group, &place(0)).map(|c| c.offset.0);
    let mut one = Producer::new(&broker, "one").await;
    one.add(&[0]).await;
    assert_eq!(one.commit_offset(5).await, "TRANSACTION_ABORTABLE");
    assert_eq!(told(broker.transactions().add_offsets("one", one.who).await), "ok");
    one.send(0, "a").await;
    assert_eq!(one.commit_offset(5).await, "ok");
    assert_eq!((at(&broker), broker.groups().is_unstable(&group, &place(0))), (None, true));
    assert_eq!(one.end(true).await, "ok");
    assert_eq!((at(&broker), broker.groups().is_unstable(&group, &place(0))), (Some(5), false));

    told(broker.transactions().add_offsets("one", one.who).await);
    assert_eq!(one.commit_offset(9).await, "ok");
    let disk = disk.crash();
    let broker = open(&disk).await;
    assert_eq!((at(&broker), broker.groups().is_unstable(&group, &place(0))), (Some(5), true));
    let one = Producer { broker: Arc::clone(&broker), ..one };
    assert_eq!(one.end(false).await, "ok");
    assert_eq!((at(&broker), broker.groups().is_unstable(&group, &place(0))), (Some(5), false));
    told(broker.transactions().add_offsets("one", one.who).await);
    assert_eq!((one.commit_offset(12).await, one.end(true).await), ("ok".to_owned(), "ok".to_owned()));
    let broker = open(&disk.crash()).await;
    assert_eq!((at(&broker), broker.groups().is_unstable(&group, &place(0))), (Some(12), false));
    assert_eq!(broker.transactions().describe("one").unwrap().state, TxnState::CompleteCommit);
}

#[tokio::test]
async fn a_group_that_a_transaction_made_is_there_also_after_it_was_aborted() {
    let broker = open(&TestDisk::default()).await;
    let group = GroupId::new("g").unwrap();
    let one = Producer::new(&broker, "one").await;
    assert_eq!(told(broker.transactions().add_offsets("one", one.who).await), "ok");
    assert_eq!((one.commit_offset(5).await, one.end(false).await), ("ok".to_owned(), "ok".to_owned()));
    let listed = broker.groups().list();
    let listed: Vec<_> = listed.iter().map(|one| (one.id.as_str(), one.protocol_type.as_str(), one.state.to_string())).collect();
    assert_eq!(listed, [("g", "", "Empty".to_owned())]);
    assert_eq!(broker.groups().delete(&group).await, error_code::NONE);
    assert_eq!(broker.groups().delete(&group).await, error_code::GROUP_ID_NOT_FOUND);
}

#[tokio::test]
async fn a_deleted_topic_does_not_keep_a_transaction_from_ending() {
    let disk = TestDisk::default();
    let broker = open(&disk).await;
    let other = TopicName::new("gone").unwrap();
    broker.create_topic(NewTopic { partitions: Some(1), ..NewTopic::named(other.clone()) }).await.unwrap();
    let mut one = Producer::new(&broker, "one").await;
    one.add(&[0]).await;
    told(broker.transactions().add("one", one.who, [TopicPartition::new(other.clone(), PartitionId(0))].into()).await);
    one.send(0, "a").await;
    broker.delete_topic(&other).await.unwrap();
    assert_eq!(one.end(true).await, "ok");
    assert_eq!(committed(&broker, 0).await, "a");
}

#[tokio::test]
async fn what_retention_deleted_leaves_the_index_and_a_silent_id_is_forgotten() {
    let disk = TestDisk::default();
    let broker = open(&disk).await;
    let mut one = Producer::new(&broker, "one").await;
    one.add(&[0]).await;
    one.send(0, "no").await;
    one.end(false).await;
    plain(&broker, 0, "x").await;
    broker.delete_records("t", 0, 2).await.unwrap();
    broker.enforce_retention().await.unwrap();
    broker.close().await.unwrap();
    let broker = open(&disk).await;
    let partition = broker.partition(&place(0)).unwrap();
    assert_eq!(partition.aborted_between(Offset(0), Offset(99)), []);
    assert!(broker.transactions().describe("one").is_some());
}

#[tokio::test]
async fn a_marker_that_was_deleted_holds_nobody_up() {
    let disk = TestDisk::default();
    let broker = open(&disk).await;
    let mut one = Producer::new(&broker, "one").await;
    one.add(&[0]).await;
    assert_eq!(one.send(0, "a").await, "@0");
    broker.close().await.unwrap(); // what is written down of producers knows it as open
    let broker = open(&disk).await;
    let mut one = Producer { broker: Arc::clone(&broker), ..one };
    assert_eq!((one.end(true).await, plain(&broker, 0, "b").await), ("ok".to_owned(), "@2".to_owned()));
    assert_eq!(broker.delete_records("t", 0, 2).await, Ok(2));
    one.add(&[0]).await;
    assert_eq!(one.send(0, "c").await, "@3");
    let broker = open(&disk.crash()).await;
    let part = fetch(&broker, 0, 2, Isolation::ReadCommitted, Duration::ZERO).await;
    assert_eq!((part.last_stable, part.high_watermark, part.records.is_empty()), (3, 4, false));
}

#[tokio::test]
async fn a_transaction_that_hangs_can_be_ended_past_its_coordinator() {
    let disk = TestDisk::default();
    let broker = open(&disk).await;
    let mut one = Producer::new(&broker, "one").await;
    one.add(&[0]).await;
    one.send(0, "no").await;
    assert_eq!(broker.transactions().write_marker(&place(7), one.who, false, 0).await, error_code::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(broker.transactions().write_marker(&place(0), one.who, false, 0).await, error_code::NONE);
    assert_eq!(committed(&broker, 0).await, "");
    let part = fetch(&broker, 0, 0, Isolation::ReadCommitted, Duration::ZERO).await;
    assert_eq!((part.last_stable, part.aborted.len()), (2, 1));
    let broker = open(&disk.crash()).await;
    assert_eq!(committed(&broker, 0).await, "");
}

/// A run of chance: several producers write, commit, abort and are fenced, in partitions they share, and now and then the
/// power is cut. What a reader of committed records sees is what was committed, in order.
#[tokio::test]
async fn whatever_happens_a_reader_sees_what_was_committed_and_nothing_else() {
    for seed in 0..12_u64 {
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = move |n: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            chance % n
        };
        let mut disk = TestDisk::default();
        let mut broker = open(&disk).await;
        let ids = ["a", "b", "c"];
        let mut producers = Vec::new();
        for id in ids {
            producers.push(Producer::new(&broker, id).await);
        }
        let mut open_values: Vec<Vec<(i32, i64, String)>> = vec![Vec::new(); ids.len()];
        let mut expected: Vec<BTreeMap<i64, String>> = vec![BTreeMap::new(); 3];
        for step in 0..120 {
            let who = below(3) as usize;
            match below(12) {
                0..6 => {
                    let partition = below(3) as i32;
                    assert_eq!(producers[who].add(&[partition]).await, "ok", "seed {seed} step {step}");
                    let value = format!("{step}");
                    let at = producers[who].send(partition, &value).await;
                    let at = at.strip_prefix('@').unwrap_or_else(|| panic!("seed {seed} step {step}: {at}")).parse().unwrap();
                    open_values[who].push((partition, at, value));
                }
                6..8 => {
                    let partition = below(3) as i32;
                    let at = plain(&broker, partition, &format!("p{step}")).await;
                    expected[partition as usize].insert(at[1..].parse().unwrap(), format!("p{step}"));
                }
                8..11 if !open_values[who].is_empty() => {
                    let commit = below(2) == 0;
                    assert_eq!(producers[who].end(commit).await, "ok", "seed {seed} step {step}");
                    for (partition, at, value) in std::mem::take(&mut open_values[who]) {
                        if commit {
                            expected[partition as usize].insert(at, value);
                        }
                    }
                }
                11 if below(3) == 0 => {
                    disk = disk.crash();
                    broker = open(&disk).await;
                    producers.iter_mut().for_each(|producer| producer.broker = Arc::clone(&broker));
                }
                11 => {
                    producers[who] = Producer::new(&broker, ids[who]).await;
                    open_values[who].clear();
                }
                _ => {}
            }
        }
        for (who, producer) in producers.iter().enumerate() {
            if !open_values[who].is_empty() {
                assert_eq!(producer.end(false).await, "ok", "seed {seed}");
            }
        }
        for partition in 0..3 {
            let wanted: Vec<_> = expected[partition as usize].values().cloned().collect();
            assert_eq!(committed(&broker, partition).await, wanted.join(" "), "seed {seed} partition {partition}");
        }
    }
}
