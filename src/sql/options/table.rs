//! The tables of options, and what each kind of value looks like.

use super::{read_bytes, read_start};
use crate::record::TopicName;
use crate::registry::Registry;
use crate::time::parse_duration;

/// What an option's value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A topic's name.
    Topic,
    /// Names of columns, commas between them.
    Columns,
    /// A whole number in a range.
    Count {
        /// The least.
        least: i32,
        /// The most.
        most: i32,
    },
    /// A duration such as `15s`.
    Duration,
    /// A duration, or `none`.
    DurationOrNone,
    /// A number of bytes such as `256MiB`, or `none`.
    BytesOrNone,
    /// `true` or `false`.
    Flag,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// `earliest`, `latest`, a time or a savepoint.
    Start,
    /// Names inside a JSON object, dots between them.
    Path,
    /// One letter of ASCII that is neither a quote nor an end of line; `\\t` stands for a tab.
    Letter,
    /// The address of a schema registry.
    Registry,
    /// Any text of one line without quotes.
    Word,
    /// `webhook:<name>`, several with commas between them.
    Notify,
    /// Known, and not built.
    Later,
}

/// One option: its name, the kind of its value, its default, its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// The name; a trailing `*` stands for any column.
    pub name: &'static str,
    /// What its value must look like.
    pub kind: Kind,
    /// Its value where it is not given; `None` where the meaning says what then happens.
    pub default: Option<&'static str>,
    /// What it does, in one sentence.
    pub doc: &'static str,
}

const fn option(name: &'static str, kind: Kind, default: Option<&'static str>, doc: &'static str) -> OptionSpec {
    OptionSpec { name, kind, default, doc }
}

/// Options of `CREATE STREAM`.
pub static STREAM_OPTIONS: &[OptionSpec] = &[
    option("topic", Kind::Topic, None, "the topic that holds the records; the stream's own name where it is not given"),
    option("format", Kind::Choice(&["json", "csv", "avro", "protobuf", "debezium", "raw"]), Some("json"), "how a record's value is read"),
    option("partitions", Kind::Count { least: 1, most: 10_000 }, None, "how many partitions the topic gets where it does not exist yet"),
    option(
        "key",
        Kind::Columns,
        None,
        "a promise: all rows with one value of this column (or of these, commas between them) lie in one partition",
    ),
    option(
        "key.partitioner",
        Kind::Choice(&["murmur2", "crc32"]),
        None,
        "the hash that placed the keys; with it every record's partition is checked",
    ),
    option("bad-records", Kind::Choice(&["dlq", "skip", "fail"]), Some("dlq"), "what becomes of a record that cannot be read"),
    option("dlq.topic", Kind::Topic, None, "where unreadable records go; <topic>.dlq where it is not given"),
    option(
        "watermark.idle-timeout",
        Kind::DurationOrNone,
        Some("10s"),
        "after how long without rows a partition no longer holds back the others",
    ),
    option("watermark.max-future", Kind::DurationOrNone, Some("10s"), "how far ahead of the clock a row may still move the watermark"),
    option("late.topic", Kind::Topic, None, "where late rows go; they are only counted where it is not given"),
    option("timestamp.unit", Kind::Choice(&["ms", "s", "us", "ns"]), Some("ms"), "the unit of a TIMESTAMP that is written as a number"),
    option("json.path.*", Kind::Path, None, "where in the JSON object a column lies, dots between the names"),
    CSV_DELIMITER,
    CSV_NULL,
    REGISTRY_URL,
    REGISTRY_SUBJECT,
    option("connector", Kind::Later, None, "which log holds the topic"),
    option("bootstrap.servers", Kind::Later, None, "the Kafka cluster that holds the topic"),
    option("start", Kind::Later, None, "where queries over the stream begin"),
];

/// Options of `CREATE TABLE`.
pub static TABLE_OPTIONS: &[OptionSpec] = &[
    option("topic", Kind::Topic, None, "the compacted topic that holds the rows; the table's own name where it is not given"),
    option("format", Kind::Choice(&["json", "csv", "avro", "protobuf", "debezium"]), Some("json"), "how a record's value is read"),
    option("partitions", Kind::Count { least: 1, most: 10_000 }, None, "how many partitions the topic gets where it does not exist yet"),
    option("bad-records", Kind::Choice(&["dlq", "skip", "fail"]), Some("dlq"), "what becomes of a record that cannot be read"),
    option("dlq.topic", Kind::Topic, None, "where unreadable records go; <topic>.dlq where it is not given"),
    option(
        "watermark.idle-timeout",
        Kind::DurationOrNone,
        Some("10s"),
        "after how long without rows a partition no longer holds back the others",
    ),
    option("watermark.max-future", Kind::DurationOrNone, Some("10s"), "how far ahead of the clock a row may still move the watermark"),
    option("timestamp.unit", Kind::Choice(&["ms", "s", "us", "ns"]), Some("ms"), "the unit of a TIMESTAMP that is written as a number"),
    option("json.path.*", Kind::Path, None, "where in the JSON object a column lies, dots between the names"),
    CSV_DELIMITER,
    CSV_NULL,
    REGISTRY_URL,
    REGISTRY_SUBJECT,
    option("versions.keep", Kind::Later, None, "how long older versions of a row are kept for AS OF"),
    option("connector", Kind::Later, None, "which log holds the topic"),
    option("bootstrap.servers", Kind::Later, None, "the Kafka cluster that holds the topic"),
];

/// Options of `CREATE QUERY`.
pub static QUERY_OPTIONS: &[OptionSpec] = &[
    option(
        "delivery",
        DELIVERY,
        None,
        "exactly_once: each result once, seen at its commit; at_least_once: seen as soon as it is there, the last of them again after a \
         crash; the node's engine.delivery where it is not given",
    ),
    option(
        "start",
        Kind::Start,
        Some("earliest"),
        "where the query begins to read: earliest, latest, a time, or savepoint:<name>, with the state that is kept there",
    ),
    SAVEPOINT_STATE,
    option(
        "commit.interval",
        Kind::Duration,
        None,
        "the longest a result waits for its commit; the node's commit interval where it is not given",
    ),
    option(
        "state.ttl",
        Kind::DurationOrNone,
        None,
        "how long, in event time, a group or key without new rows is kept where nothing else ends it; none keeps it for ever",
    ),
    option(
        "repartition",
        Kind::Choice(&["merged", "topic", "auto"]),
        Some("merged"),
        "how a windowed aggregate runs whose group is not the stream's key: merged, in one task over all partitions; topic, in a task a \
         partition and behind a topic of its own in tasks by group; auto, as topic where that gives the same, else merged",
    ),
    STATE_MAX,
];

/// Options of `CREATE ALERT`.
pub static ALERT_OPTIONS: &[OptionSpec] = &[
    option("priority", Kind::Choice(&["high", "medium", "low"]), Some("medium"), "how grave the alert is"),
    option("hold", Kind::Duration, Some("0s"), "how long the breach must hold before the alert is raised"),
    option("clear.hold", Kind::Duration, Some("0s"), "how long the clear condition must hold before the alert resolves"),
    option("latch", Kind::Flag, Some("false"), "whether the alert stays until somebody acknowledges it"),
    option("max.gap", Kind::Duration, Some("30s"), "the longest gap between readings that a hold survives"),
    option(
        "order",
        Kind::Choice(&["arrival", "watermark"]),
        Some("arrival"),
        "whether readings step the alert as they arrive or in event time",
    ),
    option("notify", Kind::Notify, None, "who hears of it: webhook:<name>, several with commas between them"),
    option("notify.max-age", Kind::Duration, Some("5m"), "an alert older than this when it is found is recorded and not notified"),
    option(
        "start",
        Kind::Start,
        Some("latest"),
        "where the alert begins to read: earliest, latest, a time, or savepoint:<name>, one of its own, with the state that is kept there",
    ),
    SAVEPOINT_STATE,
    option(
        "delivery",
        DELIVERY,
        None,
        "exactly_once: each change of an alert once, at its commit; at_least_once: as soon as it is found, the last of them again after a \
         crash, under the same id; the node's engine.delivery where it is not given",
    ),
    STATE_MAX,
    option("escalate.after", Kind::Later, None, "after how long without acknowledgement others hear of it"),
    option("escalate.to", Kind::Later, None, "who hears of it then"),
];

const CSV_DELIMITER: OptionSpec = option("csv.delimiter", Kind::Letter, Some(","), "what stands between two fields of a line of CSV");
const CSV_NULL: OptionSpec = option("csv.null", Kind::Word, Some(""), "what a field of CSV without quotes says where it is NULL");

const REGISTRY_URL: OptionSpec =
    option("schema.registry.url", Kind::Registry, None, "the address of the schema registry that holds the records' schemas");
const REGISTRY_SUBJECT: OptionSpec = option(
    "schema.registry.subject",
    Kind::Word,
    None,
    "the subject under which the schema is registered that queries write with; <topic>-value where it is not given",
);

const STATE_MAX: OptionSpec = option(
    "state.max",
    Kind::BytesOrNone,
    None,
    "how much state all its tasks may hold together; at that it stops and says so, losing nothing; none for any amount; the node's \
     engine.state_max where it is not given",
);

const SAVEPOINT_STATE: OptionSpec = option(
    "savepoint.state",
    Kind::Choice(&["kept", "remade"]),
    Some("kept"),
    "kept: the state of the savepoint must be this plan's, or the statement is refused; remade: where it is another plan's, it is made \
     again from the input up to where the savepoint was taken",
);

const DELIVERY: Kind = Kind::Choice(&["exactly_once", "at_least_once"]);

impl Kind {
    /// Says what the value should look like where it does not.
    pub fn check(self, value: &str) -> Result<(), String> {
        match self {
            Self::Topic => TopicName::new(value).map(drop).map_err(|e| e.to_string()).and_then(|()| not_internal(value)),
            Self::Columns if value.split(',').any(|c| c.trim().is_empty()) => {
                Err("write the name of a column, or several with commas between them".to_owned())
            }
            Self::Columns | Self::Later => Ok(()),
            Self::Count { least, most } => match value.parse::<i32>() {
                Ok(n) if (least..=most).contains(&n) => Ok(()),
                _ => Err(format!("write a whole number from {least} to {most}")),
            },
            Self::Duration => duration(value, "write a number and a unit, as in 500ms, 15s, 2m, 1h"),
            Self::DurationOrNone if value == "none" => Ok(()),
            Self::DurationOrNone => duration(value, "write a number and a unit, as in 500ms, 15s, 2m, 1h, or none"),
            Self::BytesOrNone if value == "none" || read_bytes(value).is_some() => Ok(()),
            Self::BytesOrNone => Err("write a number of bytes, as in 256MiB or 2GiB, or none".to_owned()),
            Self::Flag if value == "true" || value == "false" => Ok(()),
            Self::Flag => Err("write true or false".to_owned()),
            Self::Choice(words) if words.contains(&value) => Ok(()),
            Self::Choice(words) => Err(format!("write one of {}", words.join(", "))),
            Self::Start => {
                let otherwise = "write earliest, latest, a time such as 2026-01-31T08:00:00Z, or savepoint:<name>";
                read_start(value).map(drop).ok_or_else(|| otherwise.to_owned())
            }
            Self::Letter if value == "\\t" => Ok(()),
            Self::Letter => match value.as_bytes() {
                [letter] if letter.is_ascii() && !matches!(letter, b'"' | b'\r' | b'\n') => Ok(()),
                _ => Err("write one letter of ASCII, or \\t for a tab".to_owned()),
            },
            Self::Registry => Registry::new(value).map(drop).map_err(|e| e.to_string()),
            Self::Word if value.contains(['"', '\r', '\n']) => Err("write a text without quotes and line ends".to_owned()),
            Self::Word => Ok(()),
            Self::Path if value.split('.').all(|name| !name.is_empty()) => Ok(()),
            Self::Path => Err("write names with dots between them, as in vitals.hr".to_owned()),
            Self::Notify => webhooks(value).map(drop),
        }
    }

    /// The kind of value in words, for the manual and `DESCRIBE`.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Topic => "topic name".to_owned(),
            Self::Columns => "column name, ..".to_owned(),
            Self::Count { least, most } => format!("{least} to {most}"),
            Self::Duration => "duration".to_owned(),
            Self::DurationOrNone => "duration or none".to_owned(),
            Self::BytesOrNone => "bytes or none".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Choice(words) => words.join(" | "),
            Self::Start => "earliest | latest | time | savepoint:<name>".to_owned(),
            Self::Letter => "letter".to_owned(),
            Self::Registry => "http://host:port".to_owned(),
            Self::Word => "text".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Notify => "webhook:<name>, ..".to_owned(),
            Self::Later => "not supported yet".to_owned(),
        }
    }
}

fn duration(value: &str, otherwise: &str) -> Result<(), String> {
    parse_duration(value).map(drop).map_err(|_| otherwise.to_owned())
}

fn not_internal(name: &str) -> Result<(), String> {
    if name.starts_with("__") { Err("topics whose names begin with two underscores are the node's own".to_owned()) } else { Ok(()) }
}

/// The names of the webhooks in a `notify` option.
pub(super) fn webhooks(value: &str) -> Result<Vec<String>, String> {
    if value.trim().is_empty() {
        return Ok(Vec::new());
    }
    let names = value.split(',').map(|part| match part.trim().split_once(':') {
        Some(("webhook", name)) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        Some((other, _)) if other != "webhook" => Err(format!("\"{other}\" is not supported yet, write webhook:<name>")),
        _ => Err("write webhook:<name>".to_owned()),
    });
    names.collect()
}
