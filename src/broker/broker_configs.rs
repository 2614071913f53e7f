//! Broker and group settings by Kafka's names: the tables, and how they are told.
//!
//! Always: a name is in one table only once; what may be changed while the broker runs either has an effect here
//! or says in its text that it is kept for tools. The defaults of topics (`log.retention.ms` and its like) come from
//! the table of topic settings. Names, types, defaults and bounds: Apache Kafka's `KafkaConfig` and `GroupConfig`
//! (4.3). Called by `server` for DescribeConfigs and by `settings` for changes.

use std::collections::BTreeMap;

use super::config::{BrokerConfig, ms};
use super::config_spec::{ConfigKind, ConfigSource, ConfigSynonym, DescribedConfig, Rule, check, plain};
use super::error::BrokerError;
use super::topic_config::{INTERNAL_SEGMENT_BYTES, TOPIC_CONFIGS, TopicConfig, TopicConfigSpec};

use ConfigKind::{Bool, Int, List, Long, Text};

/// One setting of the broker that is not a default of its topics.
struct BrokerSpec {
    name: &'static str,
    kind: ConfigKind,
    /// What a change must be; `None` where it stays as it was at the start.
    dynamic: Option<Rule>,
    /// What it was started with; `None` where it has no value until it is set.
    value: Option<fn(&BrokerConfig) -> String>,
    doc: &'static str,
}

const fn fixed(name: &'static str, kind: ConfigKind, value: fn(&BrokerConfig) -> String, doc: &'static str) -> BrokerSpec {
    BrokerSpec { name, kind, dynamic: None, value: Some(value), doc }
}

const fn open(name: &'static str, kind: ConfigKind, rule: Rule, value: fn(&BrokerConfig) -> String, doc: &'static str) -> BrokerSpec {
    BrokerSpec { name, kind, dynamic: Some(rule), value: Some(value), doc }
}

/// A setting that is there only while it is set.
const fn unset(name: &'static str, kind: ConfigKind, rule: Rule, doc: &'static str) -> BrokerSpec {
    BrokerSpec { name, kind, dynamic: Some(rule), value: None, doc }
}

const ONE_NODE: &str = "Kept for tools; there are no other brokers to copy to or from.";
const OWN_THREADS: &str = "Kept for tools; the node chooses its threads itself.";

static BROKER_CONFIGS: &[BrokerSpec] = &[
    fixed("auto.create.topics.enable", Bool, |c| c.auto_create_topics.to_string(), "Whether naming a topic makes it."),
    open("background.threads", Int, Rule::Least(1), |_| "10".to_owned(), OWN_THREADS),
    fixed("broker.id", Int, |c| c.node_id.to_string(), "This node's number."),
    fixed("connections.max.idle.ms", Long, |_| "600000".to_owned(), "A connection that is silent for so long is closed."),
    fixed(
        "connections.max.reauth.ms",
        Long,
        |c| c.max_reauth.map_or(0, ms).to_string(),
        "After so long a client authenticates again, at the listener that asks for it soonest; 0 where none does.",
    ),
    fixed("default.replication.factor", Int, |_| "1".to_owned(), "Copies of each partition: this is one node."),
    fixed("delete.topic.enable", Bool, |_| "true".to_owned(), "Whether topics may be deleted."),
    fixed("fetch.max.bytes", Int, |c| c.fetch_max_bytes.to_string(), "The largest answer to a Fetch."),
    unset("follower.replication.throttled.rate", Long, Rule::Least(0), ONE_NODE),
    fixed("group.consumer.assignors", List, |_| "uniform,range".to_owned(), "How groups may be assigned, the usual way first."),
    fixed("group.consumer.max.assignment.interval.ms", Int, |_| "15000".to_owned(), "The most a group may set."),
    fixed("group.consumer.max.heartbeat.interval.ms", Int, |_| "15000".to_owned(), "The most a group may set."),
    fixed("group.consumer.max.session.timeout.ms", Int, |_| "60000".to_owned(), "The most a group may set."),
    fixed("group.consumer.max.size", Int, |c| c.groups().max_size.to_string(), "The most members of a group of the consumer protocol."),
    fixed(
        "group.consumer.migration.policy",
        Text,
        |_| "bidirectional".to_owned(),
        "Running groups move from the classic to the consumer protocol and back.",
    ),
    fixed("group.consumer.min.assignment.interval.ms", Int, |_| "0".to_owned(), "The least a group may set."),
    fixed("group.consumer.min.heartbeat.interval.ms", Int, |_| "5000".to_owned(), "The least a group may set."),
    fixed("group.consumer.min.session.timeout.ms", Int, |_| "45000".to_owned(), "The least a group may set."),
    fixed("group.coordinator.rebalance.protocols", List, |_| "classic,consumer".to_owned(), "The protocols of groups that are served."),
    open(
        "group.consumer.assignment.interval.ms",
        Int,
        ASSIGNMENTS,
        |c| c.groups().consumer.assignment_interval_ms.to_string(),
        "The shortest time between two assignments of a group of the consumer protocol, where the group does not say.",
    ),
    fixed(
        "group.consumer.heartbeat.interval.ms",
        Int,
        |c| c.groups().consumer.heartbeat_interval_ms.to_string(),
        "How often a member of the consumer protocol says that it lives, where its group does not say.",
    ),
    fixed(
        "group.consumer.session.timeout.ms",
        Int,
        |c| c.groups().consumer.session_timeout_ms.to_string(),
        "How long a member of the consumer protocol may be silent, where its group does not say.",
    ),
    fixed(
        "group.initial.rebalance.delay.ms",
        Int,
        |c| c.groups().initial_rebalance_delay_ms.to_string(),
        "How long an empty group waits for company.",
    ),
    fixed(
        "group.max.session.timeout.ms",
        Int,
        |c| c.groups().max_session_timeout_ms.to_string(),
        "The longest session timeout of a group member.",
    ),
    fixed("group.max.size", Int, |c| c.groups().max_size.to_string(), "The most members of a group."),
    fixed(
        "group.min.session.timeout.ms",
        Int,
        |c| c.groups().min_session_timeout_ms.to_string(),
        "The shortest session timeout of a group member.",
    ),
    unset("leader.replication.throttled.rate", Long, Rule::Least(0), ONE_NODE),
    open("log.cleaner.threads", Int, Rule::Least(0), |_| "1".to_owned(), OWN_THREADS),
    fixed("log.retention.hours", Int, |_| "168".to_owned(), "How long a partition keeps records, where log.retention.ms does not say."),
    fixed("log.roll.hours", Int, |_| "168".to_owned(), "When a segment is closed, where log.roll.ms does not say."),
    fixed("node.id", Int, |c| c.node_id.to_string(), "This node's number."),
    open("num.io.threads", Int, Rule::Least(1), |_| "8".to_owned(), OWN_THREADS),
    open("num.network.threads", Int, Rule::Least(1), |_| "3".to_owned(), OWN_THREADS),
    fixed("num.partitions", Int, |c| c.default_partitions.to_string(), "Partitions of a topic made without a count."),
    open("num.recovery.threads.per.data.dir", Int, Rule::Least(1), |_| "2".to_owned(), OWN_THREADS),
    open("num.replica.fetchers", Int, Rule::Least(1), |_| "1".to_owned(), ONE_NODE),
    fixed(
        "offset.metadata.max.bytes",
        Int,
        |c| c.groups().offset_metadata_max_bytes.to_string(),
        "The longest text committed with an offset.",
    ),
    fixed(
        "offsets.retention.minutes",
        Int,
        |c| (c.groups().offsets_retention_ms / 60_000).to_string(),
        "How long an empty group keeps its offsets.",
    ),
    fixed("offsets.topic.num.partitions", Int, |_| "1".to_owned(), "Partitions of the topic of offsets."),
    fixed("offsets.topic.replication.factor", Int, |_| "1".to_owned(), "Copies of the topic of offsets: this is one node."),
    fixed("process.roles", List, |_| "broker,controller".to_owned(), "What this node is: all there is."),
    open(
        "producer.id.expiration.ms",
        Int,
        Rule::Least(1),
        |c| ms(c.producer_expiration).to_string(),
        "How long a silent idempotent producer is remembered.",
    ),
    unset("replica.alter.log.dirs.io.max.bytes.per.second", Long, Rule::Least(0), "Kept for tools; there is one log directory."),
    open(
        "sasl.kerberos.min.time.before.relogin",
        Long,
        Rule::Least(0),
        |_| "60000".to_owned(),
        "Kept for tools; nobody authenticates with Kerberos here.",
    ),
    fixed("socket.request.max.bytes", Int, |_| (100 << 20).to_string(), "The largest request."),
    fixed("transaction.max.timeout.ms", Int, |c| ms(c.transaction_max_timeout).to_string(), "The longest time a transaction may be open."),
    fixed("transaction.state.log.replication.factor", Int, |_| "1".to_owned(), "Copies of the topic of transactions: this is one node."),
    fixed(
        "transactional.id.expiration.ms",
        Int,
        |c| ms(c.transactional_id_expiration).to_string(),
        "How long a transactional id that nobody uses is remembered.",
    ),
];

/// Broker settings that have no value of their own until they are set; another one's decides then.
const NULL_DEFAULTS: &[&str] = &["log.flush.interval.ms", "log.retention.ms", "log.roll.jitter.ms", "log.roll.ms"];

fn broker_default(spec: &TopicConfigSpec) -> Option<&'static str> {
    (!NULL_DEFAULTS.contains(&spec.broker_name)).then_some(spec.default)
}

fn topic_spec_of(broker_name: &str) -> Option<&'static TopicConfigSpec> {
    TOPIC_CONFIGS.iter().find(|spec| !spec.broker_name.is_empty() && spec.broker_name == broker_name)
}

/// What the broker was started with.
pub(super) fn start_value(config: &BrokerConfig, name: &str) -> Option<String> {
    if let Some(started) = config.dynamic.started_with(name) {
        return Some(started.clone());
    }
    match name {
        "log.segment.bytes" => Some(config.segment_bytes.to_string()),
        "message.max.bytes" => Some(config.max_message_bytes.to_string()),
        _ => BROKER_CONFIGS.iter().find(|spec| spec.name == name)?.value.map(|value| value(config)),
    }
}

/// What a list that may be changed while the broker runs grows from where nobody has set it.
pub(super) fn list_default(name: &str) -> Option<&'static str> {
    topic_spec_of(name).map(|spec| spec.default)
}

/// The kind of a setting that may be changed while the broker runs.
pub(super) fn dynamic_kind(name: &str) -> Option<ConfigKind> {
    let own = || BROKER_CONFIGS.iter().find(|spec| spec.name == name && spec.dynamic.is_some()).map(|spec| spec.kind);
    topic_spec_of(name).map(|spec| spec.kind).or_else(own)
}

/// Checks a setting that someone wants to change while the broker runs.
pub(super) fn check_dynamic(name: &str, value: &str) -> Result<(), BrokerError> {
    let invalid = |why: String| Err(BrokerError::InvalidConfig(why));
    let (kind, rule) = match (topic_spec_of(name), BROKER_CONFIGS.iter().find(|spec| spec.name == name)) {
        (Some(spec), _) => (spec.kind, spec.rule),
        (None, Some(BrokerSpec { kind, dynamic: Some(rule), .. })) => (*kind, *rule),
        (None, Some(_)) => {
            return invalid(format!("broker config {name} is what the node was started with; it cannot change while it runs"));
        }
        (None, None) => return invalid(format!("there is no broker config \"{name}\" that can change while the node runs")),
    };
    check(kind, rule, value).map_err(|wanted| BrokerError::InvalidConfig(format!("broker config {name} = \"{value}\" is not {wanted}")))
}

impl BrokerConfig {
    /// Every setting of a topic.
    #[must_use]
    pub fn describe_topic(&self, topic: &TopicConfig) -> Vec<DescribedConfig> {
        let one = |spec: &TopicConfigSpec| {
            let told = |value: &str| plain(spec.kind, spec.rule, value);
            let set = topic.set.get(spec.name).map(|value| told(value));
            let own = set.clone().map(|value| ConfigSynonym { name: spec.name.to_owned(), value, source: ConfigSource::Topic });
            let mut synonyms: Vec<_> = own.into_iter().collect();
            if !spec.broker_name.is_empty() {
                synonyms.extend(self.synonyms(spec.broker_name, broker_default(spec)));
            }
            DescribedConfig {
                name: spec.name.to_owned(),
                value: set.or_else(|| self.topic_default(spec.name).map(|value| told(&value))),
                source: synonyms.first().map_or(ConfigSource::Default, |nearest| nearest.source),
                read_only: false,
                kind: spec.kind,
                doc: spec.doc,
                synonyms,
            }
        };
        let internal = Some(&INTERNAL_SEGMENT_BYTES).filter(|spec| topic.set.contains_key(spec.name));
        TOPIC_CONFIGS.iter().chain(internal).map(one).collect()
    }

    /// Every setting of the broker.
    #[must_use]
    pub fn describe_broker(&self) -> Vec<DescribedConfig> {
        let at_default = Self::default();
        let one = |name: &str, default: Option<&str>, (kind, rule), read_only, doc| {
            let synonyms = self.synonyms(name, default);
            DescribedConfig {
                name: name.to_owned(),
                value: synonyms.first().map(|nearest| plain(kind, rule, &nearest.value)),
                source: synonyms.first().map_or(ConfigSource::Default, |nearest| nearest.source),
                read_only,
                kind,
                doc,
                synonyms,
            }
        };
        let of_topics = TOPIC_CONFIGS.iter().filter(|spec| !spec.broker_name.is_empty());
        let mut all: Vec<_> =
            of_topics.map(|spec| one(spec.broker_name, broker_default(spec), (spec.kind, spec.rule), false, spec.doc)).collect();
        for spec in BROKER_CONFIGS.iter().filter(|spec| spec.value.is_some() || self.dynamic.value(spec.name).is_some()) {
            let default = spec.value.map(|value| value(&at_default));
            let form = (spec.kind, spec.dynamic.unwrap_or(Rule::Any));
            all.push(one(spec.name, default.as_deref(), form, spec.dynamic.is_none(), spec.doc));
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// What is set for all brokers while they run.
    #[must_use]
    pub fn describe_cluster(&self) -> Vec<DescribedConfig> {
        let mut all = self.describe_broker();
        all.retain_mut(|one| {
            one.synonyms.retain(|synonym| synonym.source == ConfigSource::Cluster);
            one.source = ConfigSource::Cluster;
            one.value = one.synonyms.first().map(|synonym| synonym.value.clone());
            one.value.is_some()
        });
        all
    }
}

/// One setting of a group.
struct GroupSpec {
    name: &'static str,
    /// The broker's setting its default comes from.
    broker_name: &'static str,
    kind: ConfigKind,
    default: &'static str,
    rule: Rule,
    doc: &'static str,
}

const fn group(
    name: &'static str,
    broker_name: &'static str,
    kind: ConfigKind,
    default: &'static str,
    rule: Rule,
    doc: &'static str,
) -> GroupSpec {
    GroupSpec { name, broker_name, kind, default, rule, doc }
}

const NO_SHARING: &str = "Kept for tools; share groups are not served.";
const NO_STREAMS: &str = "Kept for tools; streams groups are not served.";
/// Kafka's bounds for sessions and heartbeats of members that speak the consumer protocol.
const SESSIONS: Rule = Rule::Between(45_000, 60_000);
const HEARTBEATS: Rule = Rule::Between(5_000, 15_000);
const ASSIGNMENTS: Rule = Rule::Between(0, 15_000);

#[rustfmt::skip]
static GROUP_CONFIGS: &[GroupSpec] = &[
    group("consumer.assignment.interval.ms", "group.consumer.assignment.interval.ms", Int, "1000", ASSIGNMENTS, "The shortest time between two assignments of a group."),
    group("consumer.heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms", Int, "5000", HEARTBEATS, "How often a member of the consumer protocol is to say that it lives."),
    group("consumer.session.timeout.ms", "group.consumer.session.timeout.ms", Int, "45000", SESSIONS, "How long a member of the consumer protocol may be silent."),
    group("share.assignment.interval.ms", "group.share.assignment.interval.ms", Int, "1000", ASSIGNMENTS, NO_SHARING),
    group("share.auto.offset.reset", "share.auto.offset.reset", Text, "latest", Rule::Any, NO_SHARING),
    group("share.delivery.count.limit", "group.share.delivery.count.limit", Int, "5", Rule::Between(2, 10), NO_SHARING),
    group("share.heartbeat.interval.ms", "group.share.heartbeat.interval.ms", Int, "5000", HEARTBEATS, NO_SHARING),
    group("share.isolation.level", "share.isolation.level", Text, "read_uncommitted", Rule::OneOf(&["read_committed", "read_uncommitted"]), NO_SHARING),
    group("share.partition.max.record.locks", "group.share.partition.max.record.locks", Int, "2000", Rule::Between(100, 4_000), NO_SHARING),
    group("share.record.lock.duration.ms", "group.share.record.lock.duration.ms", Int, "30000", Rule::Between(15_000, 60_000), NO_SHARING),
    group("share.renew.acknowledge.enable", "share.renew.acknowledge.enable", Bool, "true", Rule::Any, NO_SHARING),
    group("share.session.timeout.ms", "group.share.session.timeout.ms", Int, "45000", SESSIONS, NO_SHARING),
    group("streams.assignment.interval.ms", "group.streams.assignment.interval.ms", Int, "1000", ASSIGNMENTS, NO_STREAMS),
    group("streams.heartbeat.interval.ms", "group.streams.heartbeat.interval.ms", Int, "5000", HEARTBEATS, NO_STREAMS),
    group("streams.initial.rebalance.delay.ms", "group.streams.initial.rebalance.delay.ms", Int, "3000", Rule::Least(0), NO_STREAMS),
    group("streams.num.standby.replicas", "group.streams.num.standby.replicas", Int, "0", Rule::Between(0, 2), NO_STREAMS),
    group("streams.session.timeout.ms", "group.streams.session.timeout.ms", Int, "45000", SESSIONS, NO_STREAMS),
];

/// Checks settings of a group.
pub(super) fn check_group(set: &BTreeMap<String, String>) -> Result<(), BrokerError> {
    for (name, value) in set {
        let Some(spec) = GROUP_CONFIGS.iter().find(|spec| spec.name == name) else {
            return Err(BrokerError::InvalidConfig(format!("unknown group config \"{name}\"")));
        };
        let wrong = |wanted| BrokerError::InvalidConfig(format!("group config {name} = \"{value}\" is not {wanted}"));
        check(spec.kind, spec.rule, value).map_err(wrong)?;
    }
    Ok(())
}

/// The kind of a group's setting.
pub(super) fn group_kind(name: &str) -> Option<ConfigKind> {
    GROUP_CONFIGS.iter().find(|spec| spec.name == name).map(|spec| spec.kind)
}

impl BrokerConfig {
    /// Every setting of a group that set these.
    pub(super) fn describe_group(&self, set: &BTreeMap<String, String>) -> Vec<DescribedConfig> {
        let one = |spec: &GroupSpec| {
            let own = set.get(spec.name).map(|value| plain(spec.kind, spec.rule, value));
            let own = own.map(|value| ConfigSynonym { name: spec.name.to_owned(), value, source: ConfigSource::Group });
            let synonyms: Vec<_> = own.into_iter().chain(self.synonyms(spec.broker_name, Some(spec.default))).collect();
            DescribedConfig {
                name: spec.name.to_owned(),
                value: synonyms.first().map(|nearest| plain(spec.kind, spec.rule, &nearest.value)),
                source: synonyms.first().map_or(ConfigSource::Default, |nearest| nearest.source),
                read_only: false,
                kind: spec.kind,
                doc: spec.doc,
                synonyms,
            }
        };
        GROUP_CONFIGS.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::config::DynamicConfigs;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn told(all: &[DescribedConfig], name: &str) -> String {
        let one = all.iter().find(|c| c.name == name).expect("it is told");
        let synonyms: Vec<_> = one.synonyms.iter().map(|s| format!("{}={} ({})", s.name, s.value, s.source as i8)).collect();
        format!("{:?} from {}: {}", one.value.as_deref().unwrap_or("null"), one.source as i8, synonyms.join(", "))
    }

    #[test]
    fn a_topics_settings_are_all_told_with_where_they_come_from() {
        let broker = BrokerConfig { segment_bytes: 1 << 20, ..BrokerConfig::default() };
        let all = broker.describe_topic(&TopicConfig::read(map(&[("retention.bytes", "1000")]), &broker).unwrap());
        assert_eq!(all.len(), TOPIC_CONFIGS.len());
        assert_eq!(told(&all, "retention.bytes"), "\"1000\" from 1: retention.bytes=1000 (1), log.retention.bytes=-1 (5)");
        assert_eq!(told(&all, "segment.bytes"), "\"1048576\" from 4: log.segment.bytes=1048576 (4), log.segment.bytes=1073741824 (5)");
        // As in Kafka: log.retention.ms has no default, log.retention.hours has.
        assert_eq!(told(&all, "retention.ms"), "\"604800000\" from 5: ");
        assert_eq!(told(&all, "leader.replication.throttled.replicas"), "\"\" from 5: ");
    }

    #[test]
    fn the_broker_tells_what_it_was_started_with_and_what_was_set_since() {
        let base = BrokerConfig { default_partitions: 7, ..BrokerConfig::default() };
        let all = base.describe_broker();
        assert!(all.windows(2).all(|two| two[0].name < two[1].name), "in order, none twice");
        assert_eq!(told(&all, "num.partitions"), "\"7\" from 4: num.partitions=7 (4), num.partitions=4 (5)");
        assert_eq!(told(&all, "log.retention.ms"), "\"null\" from 5: ");
        assert_eq!(told(&all, "message.max.bytes"), "\"1048588\" from 5: message.max.bytes=1048588 (5)");
        assert!(all.iter().all(|one| one.name != "leader.replication.throttled.rate"));
        let (own, for_all) = (map(&[("log.retention.ms", "5")]), map(&[("leader.replication.throttled.rate", "9")]));
        let set = BrokerConfig { dynamic: DynamicConfigs::new(own, for_all), ..base };
        assert_eq!(told(&set.describe_broker(), "log.retention.ms"), "\"5\" from 2: log.retention.ms=5 (2)");
        let cluster = set.describe_cluster();
        assert_eq!(cluster.len(), 1);
        assert_eq!(told(&cluster, "leader.replication.throttled.rate"), "\"9\" from 3: leader.replication.throttled.rate=9 (3)");
        let topic = set.describe_topic(&TopicConfig::read(map(&[]), &set).unwrap());
        assert_eq!(told(&topic, "retention.ms"), "\"5\" from 2: log.retention.ms=5 (2)");
    }

    #[test]
    fn a_groups_settings_lie_within_kafkas_bounds() {
        check_group(&map(&[("consumer.session.timeout.ms", "50000"), ("consumer.heartbeat.interval.ms", "6000")])).unwrap();
        for (name, value) in [
            ("consumer.session.timeout.ms", "1"),
            ("consumer.session.timeout.ms", "60001"),
            ("consumer.heartbeat.interval.ms", "16000"),
            ("no.such.config", "1"),
        ] {
            assert!(check_group(&map(&[(name, value)])).is_err(), "{name}={value}");
        }
        assert!(GROUP_CONFIGS.windows(2).all(|two| two[0].name < two[1].name));
        check_group(&GROUP_CONFIGS.iter().map(|spec| (spec.name.to_owned(), spec.default.to_owned())).collect()).unwrap();
        let broker = BrokerConfig::default();
        let all = broker.describe_group(&map(&[("consumer.session.timeout.ms", " 50000")]));
        assert_eq!(
            told(&all, "consumer.session.timeout.ms"),
            "\"50000\" from 8: consumer.session.timeout.ms=50000 (8), group.consumer.session.timeout.ms=45000 (5)"
        );
        assert_eq!(told(&all, "share.isolation.level"), "\"read_uncommitted\" from 5: share.isolation.level=read_uncommitted (5)");
        let for_all = map(&[("group.consumer.assignment.interval.ms", "0")]);
        let set = BrokerConfig { dynamic: DynamicConfigs::new(map(&[]), for_all), ..broker };
        assert_eq!(
            told(&set.describe_group(&map(&[])), "consumer.assignment.interval.ms"),
            "\"0\" from 3: group.consumer.assignment.interval.ms=0 (3), group.consumer.assignment.interval.ms=1000 (5)"
        );
    }

    #[test]
    fn a_list_is_told_with_each_word_once_and_numbers_as_they_were_read() {
        let broker = BrokerConfig::default();
        let set = map(&[
            ("cleanup.policy", "delete, delete"),
            ("min.cleanable.dirty.ratio", "0.10"),
            ("retention.ms", "+7"),
            ("preallocate", "TRUE"),
        ]);
        let config = TopicConfig::read(set, &broker).unwrap();
        assert_eq!(config.set["cleanup.policy"], "delete, delete", "what is kept is what came");
        let all = broker.describe_topic(&config);
        for (name, value) in
            [("cleanup.policy", "delete"), ("min.cleanable.dirty.ratio", "0.1"), ("retention.ms", "7"), ("preallocate", "true")]
        {
            let one = all.iter().find(|one| one.name == name).unwrap();
            assert_eq!((one.value.as_deref(), one.synonyms[0].value.as_str()), (Some(value), value), "{name}");
        }
        let set = BrokerConfig { dynamic: DynamicConfigs::new(map(&[("log.cleanup.policy", "delete,delete")]), map(&[])), ..broker };
        let synonyms = "log.cleanup.policy=delete,delete (2), log.cleanup.policy=delete (5)";
        assert_eq!(told(&set.describe_broker(), "log.cleanup.policy"), format!("\"delete\" from 2: {synonyms}"));
        let topic = set.describe_topic(&TopicConfig::read(map(&[]), &set).unwrap());
        assert_eq!(told(&topic, "cleanup.policy"), format!("\"delete\" from 2: {synonyms}"));
    }
}
