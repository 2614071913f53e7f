//! One process after another under the same application id, and what an outside client sees and is seen of.

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::apache::{application, brokers};
use super::{KafkaBus, KafkaTerms, OwnBroker, terms};
use crate::bus::contract::{values, values_from};
use crate::bus::*;
use crate::record::{BatchBuilder, Offset, PartitionId, TopicName, TopicPartition};

fn records(value: &str) -> BatchBuilder {
    let mut builder = BatchBuilder::new();
    builder.push(1000, None, Some(value.as_bytes()), &[]);
    builder
}

fn commit(out: &TopicPartition, value: &str) -> Commit {
    Commit { outputs: vec![TopicBatch { to: out.clone(), records: records(value) }], checkpoint: Some(records(value)) }
}

async fn out(bus: &KafkaBus, name: &str) -> TopicPartition {
    let topic = TopicName::new(name).unwrap();
    bus.ensure_topic(&topic, &TopicSpec { partitions: 1, ..TopicSpec::default() }).await.unwrap();
    TopicPartition::new(topic, PartitionId(0))
}

/// A newer process of the same name takes over every lane; the older one writes nothing more, knows why, and does not take them back.
async fn who_comes_later_under_the_same_name_wins_for_good(terms: KafkaTerms) {
    let old = KafkaBus::open(terms.clone()).await.unwrap();
    let out = out(&old, &format!("{}.out", terms.application_id)).await;
    let tasks: Vec<TaskId> = (0..8).map(|n| TaskId { owner: "query.q".into(), index: n }).collect();
    let mut holders = Vec::new();
    for task in &tasks {
        let mut holder = old.committer(task).await.unwrap();
        holder.commit(commit(&out, "old")).await.unwrap();
        holders.push(holder);
    }
    let new = KafkaBus::open(terms).await.unwrap();
    for (task, old) in tasks.iter().zip(&mut holders) {
        let mut holder = new.committer(task).await.unwrap();
        let refused = old.commit(commit(&out, "zombie")).await.unwrap_err();
        assert!(matches!(&refused, BusError::Fenced(_) | BusError::Closed(_)), "{refused}");
        let checkpoint = TopicPartition::new(checkpoint_topic(&task.owner), PartitionId(task.index));
        assert_eq!(values_from(&new, &checkpoint, Offset::ZERO).await.len(), 1, "what was committed is read at once");
        holder.commit(commit(&out, "new")).await.unwrap();
    }
    let reason = old.failed().await;
    assert!(reason.contains("application id") && reason.contains("kafka.process"), "{reason}");
    assert!(old.append(vec![TopicBatch { to: out.clone(), records: records("zombie") }]).await.is_err());
    assert!(old.trouble().is_some() && new.trouble().is_none());
    let written = values(&new, &out, 16).await;
    assert_eq!((written.iter().filter(|v| *v == "old").count(), written.iter().filter(|v| *v == "new").count(), written.len()), (8, 8, 16));
}

/// A process that died with a transaction open leaves nothing of it, and nobody waits for its time-out.
async fn what_a_dead_process_had_begun_never_counts(terms: KafkaTerms) {
    let first = KafkaBus::open(terms.clone()).await.unwrap();
    let out = out(&first, &format!("{}.out", terms.application_id)).await;
    drop(first);
    // As a lane would, and then nothing more: the transaction stays open.
    let mut config = terms.transactional(&format!("{}-1", terms.application_id));
    config.set("transaction.timeout.ms", "600000");
    let dead: BaseProducer = config.create().unwrap();
    let begun = out.topic.to_string();
    let dead = tokio::task::spawn_blocking(move || {
        dead.init_transactions(super::super::lane::PATIENCE).unwrap();
        dead.begin_transaction().unwrap();
        dead.send(BaseRecord::<(), str>::to(&begun).partition(0).payload("dead")).map_err(|(e, _)| e).unwrap();
        dead.flush(super::super::lane::PATIENCE).unwrap();
        dead
    })
    .await
    .unwrap();
    let begun = std::time::Instant::now();
    let bus = KafkaBus::open(terms).await.unwrap();
    bus.append(vec![TopicBatch { to: out.clone(), records: records("alive") }]).await.unwrap();
    let read: Vec<String> = values_from(&bus, &out, Offset::ZERO).await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(read, ["alive"]);
    assert!(begun.elapsed() < super::super::lane::PATIENCE);
    tokio::task::spawn_blocking(move || drop(dead)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_process_of_the_same_name_takes_over_for_good() {
    let cluster = OwnBroker::start().await;
    who_comes_later_under_the_same_name_wins_for_good(cluster.terms()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_of_a_dead_process_is_ended_at_the_opening() {
    let cluster = OwnBroker::start().await;
    what_a_dead_process_had_begun_never_counts(cluster.terms()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an Apache Kafka: tests/kafka/run.sh"]
async fn apache_a_newer_process_of_the_same_name_takes_over_for_good() {
    who_comes_later_under_the_same_name_wins_for_good(terms(brokers(), &application())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an Apache Kafka: tests/kafka/run.sh"]
async fn apache_an_open_transaction_of_a_dead_process_is_ended_at_the_opening() {
    what_a_dead_process_had_begun_never_counts(terms(brokers(), &application())).await;
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_named_with_what_to_do() {
    let mut terms = terms("127.0.0.1:1".to_owned(), "app");
    terms.client.insert("socket.connection.setup.timeout.ms".to_owned(), "1000".to_owned());
    let refused = KafkaBus::open(terms).await.err().expect("nobody is there").to_string();
    assert!(refused.contains("127.0.0.1:1") && refused.contains("--brokers"), "{refused}");
}

#[tokio::test]
async fn what_exactly_once_rests_on_cannot_be_set() {
    let mut terms = terms("127.0.0.1:1".to_owned(), "app");
    terms.client.insert("isolation.level".to_owned(), "read_uncommitted".to_owned());
    assert!(matches!(KafkaBus::open(terms).await.err(), Some(BusError::Invalid(why)) if why.contains("isolation.level")));
}

#[cfg(not(feature = "kafka-tls"))]
#[tokio::test]
async fn without_openssl_a_refusal_names_the_feature_that_brings_it() {
    for (key, value) in [("security.protocol", "SSL"), ("ssl.ca.location", "/etc/ca.pem")] {
        let mut terms = terms("127.0.0.1:1".to_owned(), "app");
        terms.client.insert(key.to_owned(), value.to_owned());
        let refused = KafkaBus::open(terms).await.err().expect("a refusal").to_string();
        assert!(refused.contains("kafka-tls"), "{refused}");
    }
}
