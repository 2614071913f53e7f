//! The settings of topics: one table with every config Kafka has, and [`TopicConfig`], the typed view of
//! those we act on.
//!
//! Always: what a topic was made with has passed [`TopicConfig::read`], so values parse and lie within their
//! range. Settings that only mean something with replicas or tiers are accepted, kept and told again, as
//! tools that read, change and write back all settings expect. Names, types, defaults: Kafka's
//! `TopicConfig` and `LogConfig` (4.x). Called by `Broker` and by the server's DescribeConfigs.

use std::collections::BTreeMap;

use super::config::BrokerConfig;
use super::error::BrokerError;
use crate::record::{Codec, TimestampType};

/// What a setting's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigKind {
    /// `true` or `false`.
    Bool,
    /// Any text, or one of some words.
    Text,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    Long,
    /// A number with a fraction.
    Double,
    /// Words with commas between them.
    List,
}

impl ConfigKind {
    /// Kafka's number for the kind (`ConfigEntry.ConfigType`).
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            Self::Bool => 1,
            Self::Text => 2,
            Self::Int => 3,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
        }
    }
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Any,
    Least(i64),
    Fraction,
    OneOf(&'static [&'static str]),
    ListOf(&'static [&'static str]),
}

/// One setting of a topic.
#[derive(Clone, Copy, Debug)]
pub struct TopicConfigSpec {
    /// Kafka's name.
    pub name: &'static str,
    /// The broker's setting that a topic's default comes from, in Kafka's naming.
    pub broker_name: &'static str,
    /// What its value looks like.
    pub kind: ConfigKind,
    /// Its value where nobody sets it.
    pub default: &'static str,
    /// What it does here.
    pub doc: &'static str,
    rule: Rule,
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
        "What happens to old records: delete them by age and size, or compact. A compacted topic takes no records without key; its old values are kept for now.",
    ),
    spec("compression.gzip.level", "compression.gzip.level", Int, "-1", Rule::Least(-1), "Kept for tools; the node uses its own level."),
    spec("compression.lz4.level", "compression.lz4.level", Int, "9", Rule::Least(1), "Kept for tools; the node uses its own level."),
    spec(
        "compression.type",
        "compression.type",
        Text,
        "producer",
        Rule::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "The codec records are kept in; producer keeps what came.",
    ),
    spec("compression.zstd.level", "compression.zstd.level", Int, "3", Rule::Any, "Kept for tools; the node uses its own level."),
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
    spec("flush.ms", "log.flush.interval.ms", Long, NEVER, Rule::Least(0), "Kept for tools; every acknowledged write is synced."),
    spec(
        "follower.replication.throttled.replicas",
        "follower.replication.throttled.replicas",
        List,
        "",
        Rule::Any,
        "Kept for tools; there are no followers.",
    ),
    spec(
        "index.interval.bytes",
        "log.index.interval.bytes",
        Int,
        "4096",
        Rule::Least(0),
        "Bytes of records between two entries of an index.",
    ),
    spec(
        "leader.replication.throttled.replicas",
        "leader.replication.throttled.replicas",
        List,
        "",
        Rule::Any,
        "Kept for tools; there are no followers.",
    ),
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
        "The largest batch a client may write, as it is sent, compressed or not.",
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
    spec("remote.log.copy.disable", "remote.log.copy.disable", Bool, "false", Rule::Any, "Kept for tools; there is no remote storage."),
    spec(
        "remote.log.delete.on.disable",
        "remote.log.delete.on.disable",
        Bool,
        "false",
        Rule::Any,
        "Kept for tools; there is no remote storage.",
    ),
    spec(
        "remote.storage.enable",
        "remote.log.storage.system.enable",
        Bool,
        "false",
        Rule::OneOf(&["false"]),
        "There is no remote storage.",
    ),
    spec("retention.bytes", "log.retention.bytes", Long, "-1", Rule::Least(-1), "Bytes a partition keeps; -1 for all."),
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
        Rule::Least(14),
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
];

/// The smallest segment we make: below it the files outnumber the use of them.
const SEGMENT_FLOOR: u64 = 64 << 10;

/// What happens to old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// They go by age and size.
    pub delete: bool,
    /// The last record of each key stays.
    pub compact: bool,
}

/// The settings of one topic that we act on, and the text of those that were set.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// What was set, by name, as it was written.
    pub set: BTreeMap<String, String>,
    /// What happens to old records.
    pub cleanup: CleanupPolicy,
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
}

impl TopicConfig {
    /// Checks settings and fills in the broker's defaults.
    pub fn read(set: BTreeMap<String, String>, broker: &BrokerConfig) -> Result<Self, BrokerError> {
        for (name, value) in &set {
            check(name, value)?;
        }
        let text = |name: &str| set.get(name).cloned().or_else(|| broker.topic_default(name)).unwrap_or_default();
        let number = |name: &str| text(name).trim().parse::<i64>().unwrap_or_default();
        let natural = |name: &str| u64::try_from(number(name)).ok();
        let policy = text("cleanup.policy");
        let has = |word: &str| policy.split(',').any(|one| one.trim() == word);
        let timestamp_type =
            if text("message.timestamp.type") == "LogAppendTime" { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
        let codec = match text("compression.type").as_str() {
            "uncompressed" => Some(Codec::None),
            name => Codec::from_name(name),
        };
        Ok(Self {
            cleanup: CleanupPolicy { delete: has("delete"), compact: has("compact") },
            codec,
            max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or_default(),
            timestamp_type,
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            retention_ms: Some(number("retention.ms")).filter(|ms| *ms >= 0),
            retention_bytes: natural("retention.bytes"),
            segment_bytes: natural("segment.bytes").unwrap_or(1 << 30).max(SEGMENT_FLOOR),
            segment_ms: number("segment.ms"),
            set,
        })
    }
}

fn check(name: &str, value: &str) -> Result<(), BrokerError> {
    let Some(spec) = TOPIC_CONFIGS.iter().find(|spec| spec.name == name) else {
        return Err(BrokerError::InvalidConfig(format!("unknown topic config \"{name}\"")));
    };
    let wrong = |wanted: &str| Err(BrokerError::InvalidConfig(format!("topic config {name} = \"{value}\" is not {wanted}")));
    let value = value.trim();
    let number = match spec.kind {
        Bool if !matches!(value, "true" | "false") => return wrong("true or false"),
        Bool | Text | List => None,
        Int => match value.parse::<i32>() {
            Ok(number) => Some(f64::from(number)),
            Err(_) => return wrong("a whole number of 32 bits"),
        },
        Long => match value.parse::<i64>() {
            Ok(number) => Some(number as f64),
            Err(_) => return wrong("a whole number"),
        },
        Double => match value.parse::<f64>() {
            Ok(number) if number.is_finite() => Some(number),
            _ => return wrong("a number"),
        },
    };
    match spec.rule {
        Rule::Any => Ok(()),
        Rule::Least(least) if number.is_some_and(|n| n < least as f64) => wrong(&format!("at least {least}")),
        Rule::Fraction if number.is_some_and(|n| !(0.0..=1.0).contains(&n)) => wrong("between 0 and 1"),
        Rule::OneOf(words) if !words.contains(&value) => wrong(&format!("one of {}", words.join(", "))),
        Rule::ListOf(words) if value.is_empty() || !value.split(',').all(|one| words.contains(&one.trim())) => {
            wrong(&format!("a list of {}", words.join(", ")))
        }
        Rule::Least(_) | Rule::Fraction | Rule::OneOf(_) | Rule::ListOf(_) => Ok(()),
    }
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
            assert!(check(spec.name, spec.default).is_ok(), "{}", spec.name);
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
    }

    #[test]
    fn settings_are_read_by_kafkas_names() {
        let config = read(&[
            ("retention.ms", "-1"),
            ("retention.bytes", "1000"),
            ("cleanup.policy", "compact, delete"),
            ("compression.type", "lz4"),
            ("message.timestamp.type", "LogAppendTime"),
            ("segment.bytes", "1048576"),
        ])
        .unwrap();
        assert_eq!((config.retention_ms, config.retention_bytes), (None, Some(1000)));
        assert_eq!(config.cleanup, CleanupPolicy { delete: true, compact: true });
        assert_eq!(config.codec, Some(Codec::Lz4));
        assert_eq!(config.timestamp_type, TimestampType::LogAppendTime);
        assert_eq!(config.segment_bytes, 1 << 20);
    }

    #[test]
    fn a_value_outside_its_range_is_refused_and_the_answer_says_what_would_fit() {
        for (name, value, says) in [
            ("no.such.config", "1", "unknown topic config"),
            ("retention.ms", "soon", "is not a whole number"),
            ("retention.ms", "-2", "at least -1"),
            ("cleanup.policy", "burn", "a list of delete, compact"),
            ("cleanup.policy", "", "a list of delete, compact"),
            ("preallocate", "maybe", "true or false"),
            ("min.cleanable.dirty.ratio", "1.5", "between 0 and 1"),
            ("segment.bytes", "99999999999", "32 bits"),
            ("compression.type", "brotli", "one of uncompressed"),
            ("remote.storage.enable", "true", "one of false"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(says), "{name}={value}: {error}");
        }
    }
}
