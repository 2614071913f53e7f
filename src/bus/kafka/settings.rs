//! What a cluster is reached with: [`KafkaTerms`], and what librdkafka's clients are made of.
//!
//! Always: what exactly-once rests on (isolation, idempotence, ids, acknowledgements) is set here and by nobody else. Called by `config`,
//! which refuses such settings where they are written, and by the other files of this folder.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::error::said;
use super::sending::{LOAD_BYTES, LOAD_RECORDS};
use crate::bus::BusError;
use crate::record::{Offset, TopicName};

/// How long the first record of a request waits for those handed over with it: less than a transaction needs to register its partitions.
const LINGER_MS: &str = "5";
/// Settings of the client that exactly-once and the seam rest on.
const OURS: [&str; 22] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "partition.assignment.strategy",
    "session.timeout.ms",
    "transactional.id",
    "enable.idempotence",
    "isolation.level",
    "enable.auto.commit",
    "auto.commit.enable",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "acks",
    "request.required.acks",
    "allow.auto.create.topics",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "delivery.report.only.error",
    "enable.gapless.guarantee",
];

/// Where the cluster is, who we are to it, and how its clients are set up.
#[derive(Clone)]
pub struct KafkaTerms {
    /// `HOST:PORT,HOST:PORT`: some of its brokers.
    pub brokers: String,
    /// Names this application on the cluster: the prefix of its transactional ids and of its own topics, and its consumer group.
    /// Processes with the same one share its work.
    pub application_id: String,
    /// Names this process among those of the application, over restarts. Who opens a bus under the name of another process takes
    /// over from it.
    pub process: String,
    /// How the others may call it when they say where a task runs.
    pub shown: String,
    /// How long a process may be silent until others run its tasks.
    pub session_timeout: Duration,
    /// Among how many lanes tasks are shared at first; there are more once a query has more tasks.
    pub lanes: i32,
    /// How often each partition of a topic made here is kept; -1 leaves it to the cluster.
    pub replication_factor: i32,
    /// Further settings, in librdkafka's words.
    pub client: BTreeMap<String, String>,
}

/// Names only: a setting may be a password.
impl std::fmt::Debug for KafkaTerms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let client: Vec<&String> = self.client.keys().collect();
        f.debug_struct("KafkaTerms")
            .field("brokers", &self.brokers)
            .field("application_id", &self.application_id)
            .field("process", &self.process)
            .field("session_timeout", &self.session_timeout)
            .field("replication_factor", &self.replication_factor)
            .field("client", &client)
            .finish()
    }
}

/// Why a setting of the client may not be given, where it may not.
#[must_use]
pub fn refused_property(key: &str) -> Option<&'static str> {
    OURS.contains(&key).then_some("it is set by VitalSQL itself, for exactly-once rests on it")
}

/// The settings that are given most, for whoever has misspelt one.
pub const COMMON_PROPERTIES: &[&str] = &[
    "client.rack",
    "compression.type",
    "enable.ssl.certificate.verification",
    "linger.ms",
    "sasl.kerberos.keytab",
    "sasl.kerberos.principal",
    "sasl.mechanism",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.keepalive.enable",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "transaction.timeout.ms",
];

/// Whether the client knows a setting of this name. One that this build cannot serve (TLS) counts as known.
#[must_use]
pub fn is_property(key: &str) -> bool {
    let mut config = ClientConfig::new();
    config.set(key, "");
    match config.create_native_config() {
        Err(KafkaError::ClientConfig(kind, why, _, _)) => {
            kind != rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN || !why.contains("No such configuration property")
        }
        _ => true,
    }
}

/// Whether a setting's value is nobody else's to see.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    ["password", "secret", "pem", "jaas", "token", "keystore.key"].iter().any(|part| key.contains(part))
}

impl KafkaTerms {
    pub(super) fn check(&self) -> Result<(), BusError> {
        TopicName::new(&self.application_id)
            .map_err(|e| BusError::Invalid(format!("application id \"{}\": it begins the names of topics: {e}", self.application_id)))?;
        match self.client.keys().find_map(|key| Some((key, refused_property(key)?))) {
            Some((key, why)) => Err(BusError::Invalid(format!("setting {key} of the Kafka client cannot be given: {why}"))),
            None => Ok(()),
        }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", &self.application_id);
        // What is gone is told soon, and a broker that comes back is found soon.
        config.set("topic.metadata.propagation.max.ms", "10000").set("reconnect.backoff.max.ms", "1000");
        config
    }

    fn finish(&self, mut config: ClientConfig) -> ClientConfig {
        for (key, value) in &self.client {
            config.set(key, value);
        }
        config
    }

    /// A consumer: committed records only, from where it is told, never from anywhere else.
    pub(super) fn consumer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", &self.application_id)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("allow.auto.create.topics", "false")
            .set("check.crcs", "true")
            // The end of a partition is told by an answer without records: it does not let itself be waited for long.
            .set("fetch.wait.max.ms", "100")
            // Each partition has a queue of its own, which is full soon and asks again soon.
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.queue.backoff.ms", "10");
        self.finish(config)
    }

    /// A producer whose records count once however often they are sent.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("acks", "all");
        // What is handed over at once goes out at once, and in one request; see `sending`.
        let (records, bytes) = (LOAD_RECORDS.to_string(), LOAD_BYTES.to_string());
        config.set("linger.ms", LINGER_MS).set("batch.num.messages", records).set("batch.size", bytes);
        // What a commit may hold is bounded by the tasks, in bytes.
        config.set("queue.buffering.max.messages", "0").set("queue.buffering.max.kbytes", "1048576");
        self.finish(config)
    }

    /// The producer of what goes ahead of its commit: where a record cannot be written, those behind it are not either.
    pub(super) fn ahead(&self) -> ClientConfig {
        let mut config = self.producer();
        config.set("enable.gapless.guarantee", "true");
        config
    }

    /// A lane's producer.
    pub(super) fn transactional(&self, id: &str) -> ClientConfig {
        let mut config = self.producer();
        config.set("transactional.id", id);
        if !self.client.contains_key("transaction.timeout.ms") {
            // Longer than it takes a cluster to do without a broker that has died (9 s until it counts as dead, and the elections): what was
            // begun then is brought to its end, instead of being ended by the coordinator and done again.
            config.set("transaction.timeout.ms", "30000");
        }
        config
    }

    /// A member of the group that shares so many lanes out.
    pub(super) fn member(&self, width: i32) -> ClientConfig {
        let session = self.session_timeout.as_millis();
        let mut config = self.client();
        config
            .set("group.id", &self.application_id)
            // A process that was gone while there came to be more lanes is a new member: else the group would give it what it had,
            // and nobody what is new.
            .set("group.instance.id", format!("{}-{width}", self.process))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", session.to_string())
            .set("heartbeat.interval.ms", (session / 4).max(1).to_string())
            .set("max.poll.interval.ms", session.max(300_000).to_string())
            // There being more lanes is seen soon.
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "latest")
            .set("allow.auto.create.topics", "false");
        self.finish(config)
    }
}

/// What all clients of a bus share: where their troubles are noted.
#[derive(Clone, Default)]
pub(super) struct Context {
    trouble: Arc<Mutex<Option<String>>>,
}

impl Context {
    /// Why the cluster cannot be used just now, as far as is known.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Something has worked.
    pub(super) fn well(&self) {
        let mut trouble = self.trouble.lock();
        if trouble.take().is_some() {
            tracing::info!("the Kafka cluster answers again");
        }
    }

    /// A client has told of an error that is not about one partition.
    pub(super) fn note(&self, error: &KafkaError, reason: &str) {
        let grave = matches!(
            error.rdkafka_error_code(),
            Some(Code::AllBrokersDown | Code::Authentication | Code::SSL | Code::SaslAuthenticationFailed | Code::GroupAuthorizationFailed)
        );
        if !grave {
            tracing::debug!(%error, reason, "a Kafka client reports an error");
            return;
        }
        let text = if reason.is_empty() { said(error) } else { format!("{}: {reason}", said(error)) };
        let mut trouble = self.trouble.lock();
        if trouble.as_ref() != Some(&text) {
            tracing::warn!(reason = %text, "the Kafka cluster cannot be used just now");
            *trouble = Some(text);
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes as an error too; the client's own words are for whoever looks for a cause.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => tracing::warn!(facility, "{message}"),
            _ => tracing::debug!(facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(Code::PartitionEOF) {
            END.set(read_end(reason));
        } else {
            self.note(&error, reason);
        }
    }
}

impl ConsumerContext for Context {}

thread_local! {
    /// Where the last partition ended whose end this thread was told of.
    static END: Cell<Option<Offset>> = const { Cell::new(None) };
}

/// Where the partition ends whose end the last event of a queue has told of, in this thread. The crate hands the event on without its
/// offset, and to the context with the client's words.
pub(super) fn told_end() -> Option<Offset> {
    END.take()
}

/// The offset in the client's words about the end of a partition.
fn read_end(said: &str) -> Option<Offset> {
    let (_, rest) = said.split_once("at offset ")?;
    rest.split_once(' ').map_or(rest, |(number, _)| number).parse().ok().map(Offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_words_about_an_end_say_where() {
        assert_eq!(read_end("Fetch from broker 2 reached end of partition at offset 17 (HighwaterMark 20)"), Some(Offset(17)));
        assert_eq!(read_end("at offset 3"), Some(Offset(3)));
        assert_eq!((read_end("reached the end"), read_end("at offset x (y)")), (None, None));
    }
}
