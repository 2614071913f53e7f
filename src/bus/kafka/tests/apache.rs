//! The contract over an Apache Kafka, which `tests/kafka/run.sh` starts: `KAFKA_UNDER_TEST` names its address.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{KafkaBus, terms};
use crate::bus::Bus;
use crate::bus::contract::{World, contract};

/// A bus of an application of its own over the cluster of the environment.
struct Apache {
    bus: KafkaBus,
    application: String,
    names: AtomicUsize,
}

pub(super) fn brokers() -> String {
    std::env::var("KAFKA_UNDER_TEST").expect("tests/kafka/run.sh starts an Apache Kafka and sets KAFKA_UNDER_TEST to its address")
}

pub(super) fn application() -> String {
    format!("app-{}", uuid::Uuid::new_v4().simple())
}

impl World for Apache {
    async fn open() -> Self {
        let application = application();
        let bus = KafkaBus::open(terms(brokers(), &application)).await.unwrap();
        Self { bus, application, names: AtomicUsize::new(0) }
    }
    fn bus(&self) -> &dyn Bus {
        &self.bus
    }
    fn fresh(&self, name: &str) -> String {
        format!("{}.{name}{}", self.application, self.names.fetch_add(1, Ordering::Relaxed))
    }
}

contract!(Apache, #[ignore = "needs an Apache Kafka: tests/kafka/run.sh"]);
