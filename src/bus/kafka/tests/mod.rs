//! The Kafka bus over the project's own broker, which serves transactions, and over an Apache Kafka where there is one.

mod apache;
mod sharing;
mod takeover;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{KafkaBus, KafkaTerms};
use crate::broker::TestDisk;
use crate::bus::contract::{World, contract};
use crate::bus::{Bus, TopicBatch, TopicSpec};
use crate::record::{BatchBuilder, Offset, PartitionId, TopicName, TopicPartition};
use crate::server::Server;

/// A broker behind a socket, as the only one of a cluster.
pub(super) struct OwnBroker {
    server: Server,
    stop: CancellationToken,
}

impl OwnBroker {
    pub(super) async fn start() -> Self {
        let broker = TestDisk::default().broker().await;
        let (stop, socket) = (CancellationToken::new(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        Self { server: Server::start(socket, broker, stop.clone(), 1000), stop }
    }

    pub(super) fn terms(&self) -> KafkaTerms {
        terms(self.server.address().to_string(), "app")
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn terms(brokers: String, application_id: &str) -> KafkaTerms {
    KafkaTerms {
        brokers,
        application_id: application_id.to_owned(),
        process: "one".to_owned(),
        shown: "one".to_owned(),
        session_timeout: std::time::Duration::from_secs(6),
        lanes: 8,
        replication_factor: -1,
        client: client(),
    }
}

/// What the client is set up with: the properties in the file that `KAFKA_CLIENT` names, where the cluster asks for TLS and a password.
fn client() -> BTreeMap<String, String> {
    let Ok(file) = std::env::var("KAFKA_CLIENT") else { return BTreeMap::new() };
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
    text.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A bus over a broker of its own.
struct Own {
    bus: KafkaBus,
    names: AtomicUsize,
    _cluster: OwnBroker,
}

impl World for Own {
    async fn open() -> Self {
        let cluster = OwnBroker::start().await;
        let bus = KafkaBus::open(cluster.terms()).await.unwrap();
        Self { bus, names: AtomicUsize::new(0), _cluster: cluster }
    }
    fn bus(&self) -> &dyn Bus {
        &self.bus
    }
    fn fresh(&self, name: &str) -> String {
        format!("{name}{}", self.names.fetch_add(1, Ordering::Relaxed))
    }
}

contract!(Own);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_for_a_while_is_kept_from_when_it_was_received() {
    let world = Own::open().await;
    let mut read = Vec::new();
    for (name, retention) in [("month", "2592000000"), ("ever", "-1")] {
        let topic = TopicName::new(name).unwrap();
        let configs = BTreeMap::from([("retention.ms".to_owned(), retention.to_owned())]);
        world.bus.ensure_topic(&topic, &TopicSpec { partitions: 1, configs }).await.unwrap();
        let to = TopicPartition::new(topic, PartitionId(0));
        let mut records = BatchBuilder::new();
        records.push(1_000_000, None, Some(b"of long ago"), &[]);
        world.bus.append(vec![TopicBatch { to: to.clone(), records }]).await.unwrap();
        let batches = world.bus.open(&to, Offset::ZERO).await.unwrap().poll(1 << 20).await.unwrap();
        read.push(batches[0].max_timestamp());
    }
    assert!(read[0] > 1_700_000_000_000, "{read:?}");
    assert_eq!(read[1], 1_000_000);
}
