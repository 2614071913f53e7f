//! The settings of topics: one table with every config Kafka has, and [`TopicConfig`], the typed view of
//! those we act on.
//!
//! Always: what a topic was made with has passed [`TopicConfig::read`], so values parse and lie within their
//! range. Settings that only mean something with replicas or tiers are accepted, kept and told again, as
//! tools that read, change and write back all settings expect. Names, types, defaults: Kafka's
//! `TopicConfig` and `LogConfig` (4.x). Called by `Broker` and by the server's DescribeConfigs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::BrokerConfig;
use super::config_spec::{ConfigKind, Rule, check, fraction, truth, words};
use super::error::BrokerError;
use crate::log::Durability;
use crate::record::{Codec, TimestampType, TopicName};

/// One setting of a topic.
#[derive(Clone, Copy, Debug)]
pub struct TopicConfigSpec {
    /// Kafka's name.
    pub name: &'static str,
    /// The broker's setting that a topic's default comes from, in Kafka's naming; empty where there is none.
    pub broker_name: &'static str,
    /// What its value looks like.
    pub kind: ConfigKind,
    /// Its value where nobody sets it.
    pub default: &'static str,
    /// What it does here.
    pub doc: &'static str,
    pub(super) rule: Rule,
}

const fn spec(
    name: &'static str,
    broker_name: &'static str,
    kind: ConfigKind,
    default: &'static str,
    rule: Rule,
    doc: &'static str,
) -> TopicConfigSpec {
    TopicConfigSpec { name, broker_name, kind, default, doc, rule }
}

const NEVER: &str = "9223372036854775807";

use ConfigKind::{Bool, Double, Int, List, Long, Text};

/// Every setting a topic has, by name.
pub static TOPIC_CONFIGS: &[TopicConfigSpec] = &[
    spec(
        "cleanup.policy",
        "log.cleanup.policy",
        List,
        "delete",
        Rule::ListOf(&["delete", "compact"]),
        "What happens to old records: delete them by age and size, or compact. A compacted topic takes no records without key.",
    ),
    spec(
        "compression.gzip.level",
        "compression.gzip.level",
        Int,
        "-1",
        Rule::LevelOf(1, 9),
        "Kept for tools; the node uses its own level.",
    ),
    spec("compression.lz4.level", "compression.lz4.level", Int, "9", Rule::Between(1, 17), "Kept for tools; the node uses its own level."),
    spec(
        "compression.type",
        "compression.type",
        Text,
        "producer",
        Rule::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "The codec records are kept in; producer keeps what came.",
    ),
    spec(
        "compression.zstd.level",
        "compression.zstd.level",
        Int,
        "3",
        Rule::Between(-131_072, 22),
        "Kept for tools; the node uses its own level.",
    ),
    spec(
        "delete.retention.ms",
        "log.cleaner.delete.retention.ms",
        Long,
        "86400000",
        Rule::Least(0),
        "How long a tombstone stays in a compacted topic.",
    ),
    spec(
        "file.delete.delay.ms",
        "log.segment.delete.delay.ms",
        Long,
        "60000",
        Rule::Least(0),
        "Kept for tools; files of deleted records go at once.",
    ),
    spec(
        "flush.messages",
        "log.flush.interval.messages",
        Long,
        NEVER,
        Rule::Least(1),
        "Kept for tools; every acknowledged write is synced.",
    ),
    spec(
        "flush.ms",
        "log.flush.interval.ms",
        Long,
        NEVER,
        Rule::Least(0),
        "With vitalsql.durability=interval, the longest time from the acknowledgement of a write to its sync. Otherwise every acknowledged write is synced.",
    ),
    spec("follower.replication.throttled.replicas", "", List, "", Rule::Replicas, "Kept for tools; there are no followers."),
    spec(
        "index.interval.bytes",
        "log.index.interval.bytes",
        Int,
        "4096",
        Rule::Least(0),
        "Bytes of records between two entries of an index.",
    ),
    spec("leader.replication.throttled.replicas", "", List, "", Rule::Replicas, "Kept for tools; there are no followers."),
    spec("local.retention.bytes", "log.local.retention.bytes", Long, "-2", Rule::Least(-2), "Kept for tools; there is no remote storage."),
    spec("local.retention.ms", "log.local.retention.ms", Long, "-2", Rule::Least(-2), "Kept for tools; there is no remote storage."),
    spec(
        "max.compaction.lag.ms",
        "log.cleaner.max.compaction.lag.ms",
        Long,
        NEVER,
        Rule::Least(1),
        "The longest a record may stay uncompacted.",
    ),
    spec(
        "max.message.bytes",
        "message.max.bytes",
        Int,
        "1048588",
        Rule::Least(0),
        "The largest batch a client may write, as it is sent and as the topic's codec packs it.",
    ),
    spec(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        Long,
        "3600000",
        Rule::Least(0),
        "How far a record's timestamp may be ahead of the node's clock.",
    ),
    spec(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        Long,
        NEVER,
        Rule::Least(0),
        "How far a record's timestamp may be behind the node's clock.",
    ),
    spec(
        "message.timestamp.type",
        "log.message.timestamp.type",
        Text,
        "CreateTime",
        Rule::OneOf(&["CreateTime", "LogAppendTime"]),
        "Whose clock stamps records: the producer's or the node's.",
    ),
    spec(
        "min.cleanable.dirty.ratio",
        "log.cleaner.min.cleanable.ratio",
        Double,
        "0.5",
        Rule::Fraction,
        "How much of a log must be new before it is compacted.",
    ),
    spec(
        "min.compaction.lag.ms",
        "log.cleaner.min.compaction.lag.ms",
        Long,
        "0",
        Rule::Least(0),
        "The shortest time a record stays uncompacted.",
    ),
    spec(
        "min.insync.replicas",
        "min.insync.replicas",
        Int,
        "1",
        Rule::Least(1),
        "Kept for tools; there is one replica, and it is synced before it acknowledges.",
    ),
    spec("preallocate", "log.preallocate", Bool, "false", Rule::Any, "Kept for tools."),
    spec("remote.log.copy.disable", "", Bool, "false", Rule::Any, "Kept for tools; there is no remote storage."),
    spec("remote.log.delete.on.disable", "", Bool, "false", Rule::Any, "Kept for tools; there is no remote storage."),
    spec("remote.storage.enable", "", Bool, "false", Rule::Any, "There is no remote storage, so this stays false."),
    spec("retention.bytes", "log.retention.bytes", Long, "-1", Rule::Any, "Bytes a partition keeps; negative for all."),
    spec(
        "retention.ms",
        "log.retention.ms",
        Long,
        "604800000",
        Rule::Least(-1),
        "How long records are kept, from when the node received them; -1 for ever.",
    ),
    spec(
        "segment.bytes",
        "log.segment.bytes",
        Int,
        "1073741824",
        Rule::Least(1 << 20),
        "Size of one segment file. Old records go a whole segment at a time.",
    ),
    spec(
        "segment.index.bytes",
        "log.index.size.max.bytes",
        Int,
        "10485760",
        Rule::Least(4),
        "Kept for tools; an index is as long as it needs to be.",
    ),
    spec(
        "segment.jitter.ms",
        "log.roll.jitter.ms",
        Long,
        "0",
        Rule::Least(0),
        "Kept for tools; segments of different partitions are closed when each is due.",
    ),
    spec("segment.ms", "log.roll.ms", Long, "604800000", Rule::Least(1), "A segment is closed after so long even where it is not full."),
    spec(
        "unclean.leader.election.enable",
        "unclean.leader.election.enable",
        Bool,
        "false",
        Rule::Any,
        "Kept for tools; there is one replica.",
    ),
    spec(
        "vitalsql.durability",
        "",
        Text,
        "sync",
        Rule::OneOf(&["sync", "interval", "os"]),
        "When records are acknowledged and visible. sync: when they are synced. interval: when they are written; they are synced at most flush.ms (1000 where that is not set) later. os: when they are written; the system brings them to the disk. With interval and os a power cut may lose what was acknowledged last; the death of the process does not.",
    ),
];

/// Kafka's setting for trying things out: segments smaller than `segment.bytes` may ask for. Told only where it is set.
pub(super) static INTERNAL_SEGMENT_BYTES: TopicConfigSpec = spec(
    "internal.segment.bytes",
    "",
    Int,
    "1073741824",
    Rule::Least(1),
    "Size of one segment file, where it is set, in place of segment.bytes. For tests of compaction and retention.",
);

/// The smallest segment we make: below it the files outnumber the use of them.
const SEGMENT_FLOOR: u64 = 64 << 10;
const INTERNAL_SEGMENT_FLOOR: u64 = 4 << 10;

/// What happens to old records. With neither they all stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// They go by age and size.
    pub delete: bool,
    /// The last record of each key stays.
    pub compact: bool,
}

/// When records of a compacted topic are looked at, and what may go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompactionTerms {
    /// How much of a log must be new before it is compacted, from 0 to 1.
    pub min_dirty_ratio: f64,
    /// The shortest time a record stays uncompacted, in milliseconds.
    pub min_lag_ms: i64,
    /// The longest time a record stays uncompacted, in milliseconds.
    pub max_lag_ms: i64,
    /// How long a tombstone stays, in milliseconds.
    pub delete_retention_ms: i64,
}

/// The settings of one topic that we act on, and the text of those that were set.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// What was set, by name, as it was written.
    pub set: BTreeMap<String, String>,
    /// What happens to old records.
    pub cleanup: CleanupPolicy,
    /// When a compacted topic is compacted.
    pub compaction: CompactionTerms,
    /// The codec records are kept in; `None` keeps what came.
    pub codec: Option<Codec>,
    /// The largest batch a client may write.
    pub max_message_bytes: usize,
    /// Whose clock stamps records.
    pub timestamp_type: TimestampType,
    /// How far a timestamp may be behind the clock, in milliseconds.
    pub timestamp_before_max_ms: i64,
    /// How far a timestamp may be ahead of the clock, in milliseconds.
    pub timestamp_after_max_ms: i64,
    /// How long records are kept; `None` for ever.
    pub retention_ms: Option<i64>,
    /// Bytes a partition keeps; `None` for all.
    pub retention_bytes: Option<u64>,
    /// Size of one segment file.
    pub segment_bytes: u64,
    /// Age of one segment file.
    pub segment_ms: i64,
    /// When records are acknowledged.
    pub durability: Durability,
}

/// `flush.ms` where a topic asks for an interval and does not say which.
const FLUSH_MS: u64 = 1000;

impl TopicConfig {
    /// Checks settings and fills in the broker's defaults.
    pub fn read(set: BTreeMap<String, String>, broker: &BrokerConfig) -> Result<Self, BrokerError> {
        for (name, value) in &set {
            check_one(name, value)?;
        }
        let text = |name: &str| set.get(name).cloned().or_else(|| broker.topic_default(name)).unwrap_or_default();
        let number = |name: &str| text(name).trim().parse::<i64>().unwrap_or_default();
        let natural = |name: &str| u64::try_from(number(name)).ok();
        let policy = text("cleanup.policy");
        let has = |word: &str| words(&policy).any(|one| one == word);
        let timestamp_type =
            if text("message.timestamp.type").trim() == "LogAppendTime" { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
        let codec = match text("compression.type").trim() {
            "uncompressed" => Some(Codec::None),
            name => Codec::from_name(name),
        };
        let compaction = CompactionTerms {
            min_dirty_ratio: fraction(&text("min.cleanable.dirty.ratio")).unwrap_or_default(),
            min_lag_ms: number("min.compaction.lag.ms"),
            max_lag_ms: number("max.compaction.lag.ms"),
            delete_retention_ms: number("delete.retention.ms"),
        };
        if compaction.min_lag_ms > compaction.max_lag_ms {
            let (least, most) = (compaction.min_lag_ms, compaction.max_lag_ms);
            return Err(BrokerError::InvalidConfig(format!("min.compaction.lag.ms ({least}) is more than max.compaction.lag.ms ({most})")));
        }
        Ok(Self {
            cleanup: CleanupPolicy { delete: has("delete"), compact: has("compact") },
            compaction,
            codec,
            max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or_default(),
            timestamp_type,
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            retention_ms: Some(number("retention.ms")).filter(|ms| *ms >= 0),
            retention_bytes: natural("retention.bytes"),
            segment_bytes: match set.get(INTERNAL_SEGMENT_BYTES.name).and_then(|bytes| bytes.trim().parse::<u64>().ok()) {
                Some(bytes) => bytes.max(INTERNAL_SEGMENT_FLOOR),
                None => natural("segment.bytes").unwrap_or(1 << 30).max(SEGMENT_FLOOR),
            },
            segment_ms: number("segment.ms"),
            durability: match text("vitalsql.durability").trim() {
                "os" => Durability::Os,
                "interval" => Durability::Interval(Duration::from_millis(match text("flush.ms").trim() {
                    NEVER => FLUSH_MS,
                    ms => ms.parse().unwrap_or(FLUSH_MS),
                })),
                _ => Durability::Sync,
            },
            set,
        })
    }
}

impl TopicConfig {
    /// Settings that were good when they were stored. What is not good any more, because another version of the node
    /// stored it, is left out and told: a topic does not go away for it.
    pub(super) fn read_stored(topic: &TopicName, mut set: BTreeMap<String, String>, broker: &BrokerConfig) -> Self {
        set.retain(|name, value| {
            let good = check_one(name, value);
            if let Err(error) = &good {
                tracing::warn!(%topic, %error, "a topic's setting is not in effect");
            }
            good.is_ok()
        });
        Self::read(set, broker).unwrap_or_else(|error| {
            tracing::warn!(%topic, %error, "a topic's settings do not go together and are not in effect");
            Self::read(BTreeMap::new(), &BrokerConfig::default()).expect("the defaults go together")
        })
    }
}

/// The line of the table for a setting.
#[must_use]
pub fn topic_config_spec(name: &str) -> Option<&'static TopicConfigSpec> {
    TOPIC_CONFIGS.iter().chain([&INTERNAL_SEGMENT_BYTES]).find(|spec| spec.name == name)
}

fn check_one(name: &str, value: &str) -> Result<(), BrokerError> {
    let Some(spec) = topic_config_spec(name) else {
        return Err(BrokerError::InvalidConfig(format!("unknown topic config \"{name}\"")));
    };
    if name == "remote.storage.enable" && truth(value) == Some(true) {
        return Err(BrokerError::InvalidConfig("remote.storage.enable: this node has no remote storage".to_owned()));
    }
    let wrong = |wanted| BrokerError::InvalidConfig(format!("topic config {name} = \"{value}\" is not {wanted}"));
    check(spec.kind, spec.rule, value).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<TopicConfig, BrokerError> {
        let set = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        TopicConfig::read(set, &BrokerConfig::default())
    }

    #[test]
    fn every_default_passes_its_own_check_and_the_table_is_in_order() {
        for spec in TOPIC_CONFIGS {
            assert!(check_one(spec.name, spec.default).is_ok(), "{}", spec.name);
        }
        assert!(TOPIC_CONFIGS.windows(2).all(|two| two[0].name < two[1].name));
    }

    #[test]
    fn a_topic_that_sets_nothing_is_kafkas_default_topic() {
        let config = read(&[]).unwrap();
        assert_eq!(config.retention_ms, Some(604_800_000));
        assert_eq!(config.retention_bytes, None);
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.codec, None);
        assert_eq!(config.cleanup, CleanupPolicy { delete: true, compact: false });
        assert_eq!(config.timestamp_type, TimestampType::CreateTime);
        let terms = CompactionTerms { min_dirty_ratio: 0.5, min_lag_ms: 0, max_lag_ms: i64::MAX, delete_retention_ms: 86_400_000 };
        assert_eq!(config.compaction, terms);
    }

    #[test]
    fn a_segment_may_be_tiny_where_the_internal_setting_says_so() {
        assert_eq!(read(&[("internal.segment.bytes", "10000")]).unwrap().segment_bytes, 10_000);
        assert_eq!(read(&[("internal.segment.bytes", "1"), ("segment.bytes", "1048576")]).unwrap().segment_bytes, INTERNAL_SEGMENT_FLOOR);
        assert!(read(&[("internal.segment.bytes", "0")]).is_err());
    }

    #[test]
    fn settings_are_read_by_kafkas_names() {
        let config = read(&[
            ("retention.ms", "-1"),
            ("retention.bytes", " 1000 "),
            ("cleanup.policy", "compact, delete"),
            ("compression.type", "lz4"),
            ("message.timestamp.type", "LogAppendTime"),
            ("segment.bytes", "1048576"),
            ("min.cleanable.dirty.ratio", "0.25"),
        ])
        .unwrap();
        assert_eq!((config.retention_ms, config.retention_bytes), (None, Some(1000)));
        assert_eq!(config.cleanup, CleanupPolicy { delete: true, compact: true });
        assert_eq!(config.codec, Some(Codec::Lz4));
        assert_eq!(config.timestamp_type, TimestampType::LogAppendTime);
        assert_eq!(config.segment_bytes, 1 << 20);
        assert!((config.compaction.min_dirty_ratio - 0.25).abs() < f64::EPSILON);
        assert_eq!(read(&[("cleanup.policy", "")]).unwrap().cleanup, CleanupPolicy { delete: false, compact: false });
    }

    #[test]
    fn a_value_outside_its_range_is_refused_and_the_answer_says_what_would_fit() {
        for (name, value, says) in [
            ("no.such.config", "1", "unknown topic config"),
            ("retention.ms", "soon", "is not a whole number"),
            ("retention.ms", "-2", "at least -1"),
            ("cleanup.policy", "burn", "a list of delete, compact"),
            ("cleanup.policy", "delete,", "a list without gaps"),
            ("preallocate", "maybe", "true or false"),
            ("min.cleanable.dirty.ratio", "1.5", "between 0 and 1"),
            ("segment.bytes", "99999999999", "32 bits"),
            ("segment.bytes", "1048575", "at least 1048576"),
            ("compression.type", "brotli", "one of uncompressed"),
            ("remote.storage.enable", "true", "no remote storage"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(says), "{name}={value}: {error}");
        }
        let topic = TopicName::new("t").unwrap();
        let stored = BTreeMap::from([("segment.bytes".to_owned(), "5".to_owned()), ("retention.ms".to_owned(), "7".to_owned())]);
        let config = TopicConfig::read_stored(&topic, stored, &BrokerConfig::default());
        assert_eq!((config.segment_bytes, config.retention_ms), (1 << 30, Some(7)));
        let error = read(&[("min.compaction.lag.ms", "20"), ("max.compaction.lag.ms", "10")]).unwrap_err().to_string();
        assert!(error.contains("(20) is more than"), "{error}");
    }
}
