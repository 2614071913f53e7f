//! What an operator may set about the broker, and what the broker tells of it as Kafka's broker configs.
//!
//! Always: every value here is one that `Broker::open` can work with. The names in [`BrokerConfig::described`]
//! are Kafka's, so that tools which read them find what they look for. Called by `node` and `server`.

use std::time::Duration;

use super::group::GroupConfig;
use super::topic_config::{ConfigKind, TOPIC_CONFIGS};

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
    /// How long offsets are kept after their group became empty.
    pub offsets_retention: Duration,
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
            fetch_max_bytes: 55 << 20,
            producer_expiration: Duration::from_secs(24 * 60 * 60),
            // Kafka waits 3 s; a person at a keyboard should not.
            group_initial_rebalance_delay: Duration::from_millis(500),
            group_session_timeout: (Duration::from_secs(6), Duration::from_secs(30 * 60)),
            offsets_retention: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

/// One setting of the broker, as DescribeConfigs tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConfig {
    /// Kafka's name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What kind of value it is.
    pub kind: ConfigKind,
    /// What it does.
    pub doc: &'static str,
}

fn ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl BrokerConfig {
    /// What the group coordinator needs of it.
    #[must_use]
    pub fn groups(&self) -> GroupConfig {
        let session = |span: Duration| i32::try_from(span.as_millis()).unwrap_or(i32::MAX);
        GroupConfig {
            initial_rebalance_delay_ms: ms(self.group_initial_rebalance_delay),
            min_session_timeout_ms: session(self.group_session_timeout.0),
            max_session_timeout_ms: session(self.group_session_timeout.1),
            offsets_retention_ms: ms(self.offsets_retention),
            ..GroupConfig::default()
        }
    }

    /// What a topic config is where the topic does not set it.
    #[must_use]
    pub fn topic_default(&self, name: &str) -> Option<String> {
        match name {
            "segment.bytes" => Some(self.segment_bytes.to_string()),
            "max.message.bytes" => Some(self.max_message_bytes.to_string()),
            _ => TOPIC_CONFIGS.iter().find(|spec| spec.name == name).map(|spec| spec.default.to_owned()),
        }
    }

    /// The broker's settings under Kafka's names.
    #[must_use]
    pub fn described(&self) -> Vec<DescribedConfig> {
        use ConfigKind::{Bool, Int, List, Long, Text};
        let one = |name: &str, value: String, kind, doc| DescribedConfig { name: name.to_owned(), value, kind, doc };
        let groups = self.groups();
        let topic = |name: &str| self.topic_default(name).unwrap_or_default();
        let mut all = vec![
            one("auto.create.topics.enable", self.auto_create_topics.to_string(), Bool, "Whether naming a topic makes it."),
            one("broker.id", self.node_id.to_string(), Int, "This node's number."),
            one("compression.type", topic("compression.type"), Text, "The codec records are kept in; producer keeps what came."),
            one("connections.max.idle.ms", "600000".to_owned(), Long, "A connection that is silent for so long is closed."),
            one("default.replication.factor", "1".to_owned(), Int, "Copies of each partition: this is one node."),
            one("delete.topic.enable", "true".to_owned(), Bool, "Whether topics may be deleted."),
            one("fetch.max.bytes", self.fetch_max_bytes.to_string(), Int, "The largest answer to a Fetch."),
            one(
                "group.initial.rebalance.delay.ms",
                groups.initial_rebalance_delay_ms.to_string(),
                Int,
                "How long an empty group waits for company.",
            ),
            one(
                "group.max.session.timeout.ms",
                groups.max_session_timeout_ms.to_string(),
                Int,
                "The longest session timeout of a group member.",
            ),
            one("group.max.size", groups.max_size.to_string(), Int, "The most members of a group."),
            one(
                "group.min.session.timeout.ms",
                groups.min_session_timeout_ms.to_string(),
                Int,
                "The shortest session timeout of a group member.",
            ),
            one("log.cleanup.policy", topic("cleanup.policy"), List, "What happens to old records."),
            one("log.flush.interval.messages", "1".to_owned(), Long, "Records before a sync: every acknowledged write is synced."),
            one("log.message.timestamp.type", topic("message.timestamp.type"), Text, "Whose clock stamps records."),
            one("log.retention.bytes", topic("retention.bytes"), Long, "Bytes a partition keeps; -1 for all."),
            one("log.retention.ms", topic("retention.ms"), Long, "How long a partition keeps records; -1 for ever."),
            one("log.segment.bytes", topic("segment.bytes"), Int, "Size of one segment file."),
            one("message.max.bytes", topic("max.message.bytes"), Int, "The largest batch a client may write."),
            one("min.insync.replicas", "1".to_owned(), Int, "Replicas that must have a write: this is one node."),
            one("node.id", self.node_id.to_string(), Int, "This node's number."),
            one("num.partitions", self.default_partitions.to_string(), Int, "Partitions of a topic made without a count."),
            one(
                "offset.metadata.max.bytes",
                groups.offset_metadata_max_bytes.to_string(),
                Int,
                "The longest text committed with an offset.",
            ),
            one(
                "offsets.retention.minutes",
                (groups.offsets_retention_ms / 60_000).to_string(),
                Int,
                "How long an empty group keeps its offsets.",
            ),
            one("offsets.topic.num.partitions", "1".to_owned(), Int, "Partitions of the topic of offsets."),
            one("offsets.topic.replication.factor", "1".to_owned(), Int, "Copies of the topic of offsets: this is one node."),
            one(
                "producer.id.expiration.ms",
                ms(self.producer_expiration).to_string(),
                Int,
                "How long a silent idempotent producer is remembered.",
            ),
            one("socket.request.max.bytes", (100 << 20).to_string(), Int, "The largest request."),
        ];
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_of_the_broker_is_the_default_of_its_topics() {
        let config = BrokerConfig { segment_bytes: 4096, ..BrokerConfig::default() };
        assert_eq!(config.topic_default("segment.bytes").as_deref(), Some("4096"));
        assert_eq!(config.topic_default("retention.ms").as_deref(), Some("604800000"));
        assert_eq!(config.topic_default("no.such"), None);
        assert!(config.described().iter().any(|c| c.name == "log.segment.bytes" && c.value == "4096"));
    }
}
