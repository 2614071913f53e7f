//! What an operator may set about the broker: at its start, and, by Kafka's names, while it runs.
//!
//! Always: every value here is one that the broker can work with. What is set while it runs goes before what it
//! was started with, this broker's own before what is set for all. How it is told to clients is in
//! `broker_configs`; where it is kept, in `settings`. Called by `node` and `server`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::broker_configs::{check_dynamic, start_value};
use super::config_spec::{ConfigSource, ConfigSynonym};
use super::error::BrokerError;
use super::group::{ConsumerConfig, GroupConfig};
use super::security::SecurityTerms;
use super::topic_config::topic_config_spec;
use super::txn::TxnConfig;

/// The settings of a broker. The defaults are Kafka's where Kafka has the setting, but for the rebalance delay.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// This node's number.
    pub node_id: i32,
    /// Whether a client that names a topic which does not exist makes it.
    pub auto_create_topics: bool,
    /// Partitions of a topic made without a count. Client suites expect 4.
    pub default_partitions: i32,
    /// Partitions over all topics that may exist: what a hostile or mistaken client cannot exceed.
    pub max_partitions: usize,
    /// `segment.bytes` of a topic that does not set it.
    pub segment_bytes: u64,
    /// `max.message.bytes` of a topic that does not set it.
    pub max_message_bytes: usize,
    /// The largest answer to a Fetch, whatever the client asks for.
    pub fetch_max_bytes: usize,
    /// How long an idempotent producer that writes nothing is remembered.
    pub producer_expiration: Duration,
    /// How long an empty group waits for more members after the first.
    pub group_initial_rebalance_delay: Duration,
    /// The shortest and longest session timeout a group member may ask for.
    pub group_session_timeout: (Duration, Duration),
    /// The shortest time between two assignments of a group of the consumer protocol, where the group does not say.
    pub group_assignment_interval: Duration,
    /// How long offsets are kept after their group became empty.
    pub offsets_retention: Duration,
    /// The longest time a transaction may be open.
    pub transaction_max_timeout: Duration,
    /// How long a transactional id that nobody uses is remembered.
    pub transactional_id_expiration: Duration,
    /// After so long a client authenticates again, at the listener that asks for it soonest; `None` where none does.
    pub max_reauth: Option<Duration>,
    /// Who may do what, where no access rule says it.
    pub security: SecurityTerms,
    /// What was set while it runs.
    pub dynamic: DynamicConfigs,
}

/// Settings made while the broker runs, by Kafka's names of broker settings, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DynamicConfigs {
    /// For this broker.
    pub broker: BTreeMap<String, String>,
    /// For all brokers.
    pub cluster: BTreeMap<String, String>,
    /// What the broker was started with, of settings whose place in [`BrokerConfig`] these have taken.
    start: BTreeMap<&'static str, String>,
}

impl DynamicConfigs {
    /// What is set for this broker and for all.
    #[must_use]
    pub const fn new(broker: BTreeMap<String, String>, cluster: BTreeMap<String, String>) -> Self {
        Self { broker, cluster, start: BTreeMap::new() }
    }

    /// The value that goes before what the broker was started with.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&String> {
        self.broker.get(name).or_else(|| self.cluster.get(name))
    }

    pub(super) fn started_with(&self, name: &str) -> Option<&String> {
        self.start.get(name)
    }
}

/// The settings in effect now, for everyone in the broker to look at.
#[derive(Debug)]
pub(super) struct LiveConfig {
    base: BrokerConfig,
    now: RwLock<Arc<BrokerConfig>>,
}

impl LiveConfig {
    pub(super) fn new(base: BrokerConfig) -> Self {
        Self { now: RwLock::new(Arc::new(base.clone())), base }
    }

    pub(super) fn get(&self) -> Arc<BrokerConfig> {
        Arc::clone(&self.now.read())
    }

    /// The settings as they would be, checked.
    pub(super) fn with(&self, dynamic: DynamicConfigs) -> Result<BrokerConfig, BrokerError> {
        self.base.with_dynamic(dynamic)
    }

    pub(super) fn set(&self, config: BrokerConfig) {
        *self.now.write() = Arc::new(config);
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            node_id: 0,
            auto_create_topics: true,
            default_partitions: 4,
            max_partitions: 20_000,
            segment_bytes: 1 << 30,
            max_message_bytes: 1_048_588,
            fetch_max_bytes: 8 << 20,
            producer_expiration: Duration::from_secs(24 * 60 * 60),
            // Kafka waits 3 s; a person at a keyboard should not.
            group_initial_rebalance_delay: Duration::from_millis(500),
            group_session_timeout: (Duration::from_secs(6), Duration::from_secs(30 * 60)),
            group_assignment_interval: Duration::from_secs(1),
            offsets_retention: Duration::from_secs(7 * 24 * 60 * 60),
            transaction_max_timeout: Duration::from_secs(15 * 60),
            transactional_id_expiration: Duration::from_secs(7 * 24 * 60 * 60),
            max_reauth: None,
            security: SecurityTerms::default(),
            dynamic: DynamicConfigs::default(),
        }
    }
}

pub(super) fn ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl BrokerConfig {
    /// What the group coordinator needs of it.
    #[must_use]
    pub fn groups(&self) -> GroupConfig {
        let session = |span: Duration| i32::try_from(span.as_millis()).unwrap_or(i32::MAX);
        let consumer = ConsumerConfig { assignment_interval_ms: session(self.group_assignment_interval), ..ConsumerConfig::default() };
        GroupConfig {
            initial_rebalance_delay_ms: ms(self.group_initial_rebalance_delay),
            min_session_timeout_ms: session(self.group_session_timeout.0),
            max_session_timeout_ms: session(self.group_session_timeout.1),
            offsets_retention_ms: ms(self.offsets_retention),
            consumer,
            ..GroupConfig::default()
        }
    }

    fn with_dynamic(&self, mut dynamic: DynamicConfigs) -> Result<Self, BrokerError> {
        for (name, value) in dynamic.cluster.iter().chain(&dynamic.broker) {
            check_dynamic(name, value)?;
        }
        let mut config = Self { dynamic: DynamicConfigs::default(), ..self.clone() };
        for (name, place) in [
            ("producer.id.expiration.ms", &mut config.producer_expiration),
            ("group.consumer.assignment.interval.ms", &mut config.group_assignment_interval),
        ] {
            if let Some(span) = dynamic.value(name).and_then(|ms| ms.trim().parse().ok()) {
                dynamic.start.insert(name, ms(*place).to_string());
                *place = Duration::from_millis(span);
            }
        }
        config.dynamic = dynamic;
        Ok(config)
    }

    /// What the coordinator of transactions needs of it.
    #[must_use]
    pub fn transactions(&self) -> TxnConfig {
        let max_timeout_ms = i32::try_from(self.transaction_max_timeout.as_millis()).unwrap_or(i32::MAX);
        TxnConfig { max_timeout_ms, expiration_ms: ms(self.transactional_id_expiration) }
    }

    /// What a topic config is where the topic does not set it.
    #[must_use]
    pub fn topic_default(&self, name: &str) -> Option<String> {
        let spec = topic_config_spec(name)?;
        Some(
            self.dynamic
                .value(spec.broker_name)
                .cloned()
                .or_else(|| start_value(self, spec.broker_name))
                .unwrap_or_else(|| spec.default.to_owned()),
        )
    }

    /// Everything that is set of a broker setting, the nearest first, and its default last.
    pub(super) fn synonyms(&self, name: &str, default: Option<&str>) -> Vec<ConfigSynonym> {
        let one = |value: &str, source| ConfigSynonym { name: name.to_owned(), value: value.to_owned(), source };
        let start = start_value(self, name).filter(|value| Some(value.as_str()) != default);
        [
            self.dynamic.broker.get(name).map(|value| one(value, ConfigSource::Broker)),
            self.dynamic.cluster.get(name).map(|value| one(value, ConfigSource::Cluster)),
            start.map(|value| one(&value, ConfigSource::Start)),
            default.map(|value| one(value, ConfigSource::Default)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_default_of_the_broker_is_the_default_of_its_topics() {
        let config = BrokerConfig { segment_bytes: 4096, ..BrokerConfig::default() };
        assert_eq!(config.topic_default("segment.bytes").as_deref(), Some("4096"));
        assert_eq!(config.topic_default("retention.ms").as_deref(), Some("604800000"));
        assert_eq!(config.topic_default("no.such"), None);
    }

    #[test]
    fn what_is_set_on_the_broker_goes_before_what_is_set_for_all_and_that_before_the_start() {
        let live = LiveConfig::new(BrokerConfig { segment_bytes: 1 << 21, ..BrokerConfig::default() });
        let default = |broker: &[(&str, &str)], cluster: &[(&str, &str)]| {
            live.set(live.with(DynamicConfigs::new(map(broker), map(cluster))).unwrap());
            live.get().topic_default("segment.bytes").unwrap()
        };
        assert_eq!(default(&[], &[]), "2097152");
        assert_eq!(default(&[], &[("log.segment.bytes", "3000000")]), "3000000");
        assert_eq!(default(&[("log.segment.bytes", "4000000")], &[("log.segment.bytes", "3000000")]), "4000000");
        let synonyms = live.get().synonyms("log.segment.bytes", Some("1073741824"));
        let told: Vec<_> = synonyms.iter().map(|s| (s.value.as_str(), s.source as i8)).collect();
        assert_eq!(told, [("4000000", 2), ("3000000", 3), ("2097152", 4), ("1073741824", 5)]);
    }

    #[test]
    fn a_setting_with_a_place_of_its_own_takes_it_and_gives_it_back() {
        let live = LiveConfig::new(BrokerConfig::default());
        live.set(live.with(DynamicConfigs::new(map(&[("producer.id.expiration.ms", "5000")]), map(&[]))).unwrap());
        assert_eq!(live.get().producer_expiration, Duration::from_secs(5));
        assert_eq!(start_value(&live.get(), "producer.id.expiration.ms").as_deref(), Some("86400000"));
        live.set(live.with(DynamicConfigs::default()).unwrap());
        assert_eq!(live.get().producer_expiration, BrokerConfig::default().producer_expiration);
        live.set(live.with(DynamicConfigs::new(map(&[]), map(&[("group.consumer.assignment.interval.ms", "0")]))).unwrap());
        assert_eq!(live.get().groups().consumer.assignment_interval_ms, 0);
        assert_eq!(start_value(&live.get(), "group.consumer.assignment.interval.ms").as_deref(), Some("1000"));
    }

    #[test]
    fn what_cannot_change_while_the_broker_runs_is_refused() {
        let live = LiveConfig::new(BrokerConfig::default());
        for (name, value) in [
            ("num.partitions", "3"),
            ("no.such.setting", "1"),
            ("message.max.bytes", "x"),
            ("message.max.bytes", "-1"),
            ("group.consumer.assignment.interval.ms", "15001"),
        ] {
            assert!(live.with(DynamicConfigs::new(map(&[(name, value)]), map(&[]))).is_err(), "{name}={value}");
        }
    }
}
