//! The command line as a Kafka client: what `produce`, `consume`, `replay`, `topic` and `bench` share.
//!
//! All of it goes through librdkafka and the Kafka port, like any other client: the same commands work
//! against Apache Kafka.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use super::{Failure, output};
use crate::bus::kafka::properties::{Properties, Property, read_file, read_property};

/// How long a request may take before the command gives up.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long writing may stand still before the command says so, and before it gives up: a node that is started again
/// in between goes on.
const STANDSTILL_SAID: Duration = Duration::from_secs(5);
const STANDSTILL: Duration = Duration::from_secs(60);

/// Where the broker is.
#[derive(Args, Clone, Debug)]
pub struct Broker {
    /// Address of the Kafka port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9092", env = "VITALSQL_KAFKA", help_heading = "Connection", global = true)]
    pub kafka: String,
    /// A setting of the Kafka client, as in security.protocol=SASL_SSL; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = read_property, help_heading = "Connection", global = true)]
    kafka_config: Vec<Property>,
    /// A file of such settings, one a line, as the Java tools and librdkafka read them.
    #[arg(
        long,
        value_name = "FILE",
        value_parser = read_file,
        env = "VITALSQL_KAFKA_CONFIG",
        help_heading = "Connection",
        global = true
    )]
    kafka_config_file: Option<Properties>,
}

impl Broker {
    /// The broker at this address, at a listener that asks nothing.
    #[must_use]
    pub fn at(kafka: String) -> Self {
        Self { kafka, kafka_config: Vec::new(), kafka_config_file: None }
    }

    /// A client configuration for this broker.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.kafka).set("client.id", "vitalsql").set("log_level", "0");
        for (key, value) in self.kafka_config_file.iter().flat_map(|file| &file.0).chain(&self.kafka_config) {
            config.set(key, value);
        }
        config
    }

    /// An admin client.
    pub fn admin(&self) -> Result<AdminClient<DefaultClientContext>, Failure> {
        self.client().create().map_err(|e| self.failed("could not make a client", &e))
    }

    /// What to say when the broker did not do what was asked.
    #[must_use]
    pub fn failed(&self, what: &str, error: &KafkaError) -> Failure {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::MessageTimedOut,
            ) => Failure::connection(format!(
                "{what}: no broker answers at {}. Is a node running (vitalsql serve)? Another address: --kafka HOST:PORT. Does the \
                 listener ask for TLS or a password? --kafka-config security.protocol=.. or --kafka-config-file FILE",
                self.kafka
            )),
            // What somebody may not see is answered like what is not there.
            Some(RDKafkaErrorCode::UnknownPartition | RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Failure::new(format!("{what}: it is not there, or who asks may not see it ({error})"))
            }
            _ => Failure::new(format!("{what}: {}", reason(error))),
        }
    }
}

/// What an error says, without the value of a setting, which may be a password, and with what to do where this build has no OpenSSL.
fn reason(error: &KafkaError) -> String {
    let said = match error {
        KafkaError::ClientConfig(_, why, key, _) => format!("setting {key}: {why}"),
        _ => error.to_string(),
    };
    if !cfg!(feature = "kafka-tls") && said.to_ascii_lowercase().contains("openssl") {
        return format!(
            "{said}. TLS and SCRAM to a Kafka port need a build with cargo's feature `kafka-tls` (cargo build --release --features kafka-tls)"
        );
    }
    said
}

/// A runtime for the commands that are clients.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|e| Failure::new(e.to_string()))
}

/// Counts what was acknowledged and what was not: a record that was only queued is not yet written.
#[derive(Default)]
pub struct Deliveries {
    acknowledged: AtomicU64,
    lost: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        let counter = if result.is_ok() { &self.acknowledged } else { &self.lost };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A producer that knows what was acknowledged.
pub struct Writer {
    broker: Broker,
    producer: ThreadedProducer<Deliveries>,
}

impl Writer {
    /// An idempotent producer that waits for durability, with these settings on top. Keys are placed as
    /// the Java client places them, which streams with a key expect.
    pub fn new(broker: &Broker, settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let mut config = broker.client();
        config.set("acks", "all").set("enable.idempotence", "true").set("linger.ms", "5").set("partitioner", "murmur2_random");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let producer = config.create_with_context(Deliveries::default()).map_err(|e| broker.failed("could not make a producer", &e))?;
        Ok(Self { broker: broker.clone(), producer })
    }

    /// Queues one record; where the queue is full, waits until some of it is acknowledged.
    pub fn send(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), Failure> {
        let mut wait = Wait::new(self);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    std::thread::sleep(Duration::from_millis(2));
                    wait.check(self)?;
                    record = back;
                }
                Err((error, _)) => return Err(self.broker.failed("could not send", &error)),
            }
        }
    }

    /// Waits for everything; answers how many records were acknowledged. An error where one was not.
    pub fn finish(self) -> Result<u64, Failure> {
        let mut wait = Wait::new(&self);
        while self.producer.in_flight_count() > 0 {
            // A flush that times out has waited, which is all that it is here for.
            let _ = self.producer.flush(Duration::from_millis(500));
            wait.check(&self)?;
        }
        let counts = self.producer.context();
        match counts.lost.load(Ordering::Relaxed) {
            0 => Ok(counts.acknowledged.load(Ordering::Relaxed)),
            lost => Err(Failure::new(format!("{lost} records were not acknowledged"))),
        }
    }
}

/// A wait for acknowledgements, which has an end where none come.
struct Wait {
    settled: u64,
    since: Instant,
    said: bool,
}

impl Wait {
    fn new(writer: &Writer) -> Self {
        Self { settled: Self::settled(writer), since: Instant::now(), said: false }
    }

    fn settled(writer: &Writer) -> u64 {
        let counts = writer.producer.context();
        counts.acknowledged.load(Ordering::Relaxed) + counts.lost.load(Ordering::Relaxed)
    }

    /// Says it once where nothing moves, and is an error where nothing moves for long.
    fn check(&mut self, writer: &Writer) -> Result<(), Failure> {
        let settled = Self::settled(writer);
        if settled > self.settled {
            *self = Self { settled, since: Instant::now(), said: self.said };
            return Ok(());
        }
        let still = self.since.elapsed();
        if still < STANDSTILL_SAID || (self.said && still < STANDSTILL) {
            return Ok(());
        }
        let Err(error) = writer.producer.client().fetch_metadata(None, PATIENCE) else {
            let why = "the node answers but takes no records: is its disk full? Its log and /readyz say why; deleting topics makes room";
            if still >= STANDSTILL {
                return Err(Failure::new(format!("not everything was acknowledged: {why}")));
            }
            self.said = true;
            output::say(&format!("waiting: {why}"));
            return Ok(());
        };
        if still >= STANDSTILL { Err(writer.broker.failed("not everything was acknowledged", &error)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(settings: &[(&str, &str)]) -> String {
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let broker = Broker { kafka_config: settings, ..Broker::at("127.0.0.1:1".to_owned()) };
        let Err(refused) = broker.admin() else { panic!("a client was made") };
        refused.message
    }

    #[cfg(not(feature = "kafka-tls"))]
    #[test]
    fn without_openssl_a_refusal_names_the_feature_that_brings_it() {
        for settings in [
            &[("security.protocol", "SSL")][..],
            &[("ssl.ca.location", "/etc/ca.pem")],
            &[("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.username", "u"), ("sasl.password", "p")],
        ] {
            let said = refusal(settings);
            assert!(said.contains("kafka-tls"), "{settings:?}: {said}");
        }
    }

    #[test]
    fn a_refusal_names_the_setting_and_not_its_value() {
        let said = refusal(&[("sasl.pasword", "hunter2")]);
        assert!(said.contains("sasl.pasword") && !said.contains("hunter2"), "{said}");
    }
}
