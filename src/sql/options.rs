//! What may stand in `WITH (..)`: one table a kind of statement (name, type, default, meaning), and the typed values.
//!
//! The tables are the only list of options there is: parsing checks names and values against them, `DESCRIBE` and
//! the manual print them. Always: an unknown name is an error with a suggestion, a known name that is not built is
//! refused by name, and every value is checked when the statement is written, never when it first matters.

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

pub use table::{ALERT_OPTIONS, Kind, OptionSpec, QUERY_OPTIONS, STREAM_OPTIONS, TABLE_OPTIONS};

use super::error::{Code, Place, SqlError, did_you_mean};
use super::statement::StateTtl;
use crate::record::TopicName;
use crate::registry::SchemaKind;
use crate::stream::Delivery;
use crate::time::{Timestamp, parse_duration};

/// One `'name' = 'value'` as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The option's name.
    pub name: String,
    /// Its value, without quotes.
    pub value: String,
    /// Where the name stands.
    pub name_place: Option<Place>,
    /// Where the value stands.
    pub value_place: Option<Place>,
}

/// The options of one statement as they were written, in order, each known and with a value of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    spec: &'static [OptionSpec],
    given: Vec<Given>,
}

/// The bytes of a stream's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatName {
    /// One JSON object a record.
    Json,
    /// One line of CSV a record.
    Csv,
    /// Debezium's envelope in JSON.
    Debezium,
    /// Avro behind Confluent's frame.
    Avro,
    /// Protocol Buffers behind Confluent's frame.
    Protobuf,
    /// The value as it is, in the stream's only column that is not metadata.
    Raw,
}

impl FormatName {
    /// The word in WITH.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Debezium => "debezium",
            Self::Avro => "avro",
            Self::Protobuf => "protobuf",
            Self::Raw => "raw",
        }
    }

    /// The language of its schemas, where they lie in a registry.
    #[must_use]
    pub const fn registry_kind(self) -> Option<SchemaKind> {
        match self {
            Self::Avro => Some(SchemaKind::Avro),
            Self::Protobuf => Some(SchemaKind::Protobuf),
            Self::Json | Self::Csv | Self::Debezium | Self::Raw => None,
        }
    }

    /// Whether its schemas lie in a registry.
    #[must_use]
    pub const fn has_registry(self) -> bool {
        self.registry_kind().is_some()
    }

    pub(super) fn of(word: Option<&str>) -> Self {
        [Self::Csv, Self::Debezium, Self::Avro, Self::Protobuf, Self::Raw]
            .into_iter()
            .find(|f| word == Some(f.word()))
            .unwrap_or(Self::Json)
    }
}

/// What becomes of a record that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecords {
    /// The intake stops and says where.
    Fail,
    /// It is counted.
    Skip,
    /// It is counted and copied to the dead-letter topic.
    Dlq,
}

/// Which hash placed a stream's keys in partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPartitioner {
    /// Java's and kafka-python's.
    Murmur2,
    /// librdkafka's.
    Crc32,
}

/// The unit of a TIMESTAMP that is written as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// Where a query begins to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record kept.
    Earliest,
    /// At the end.
    Latest,
    /// At the first record that is not older.
    At(Timestamp),
    /// Where the savepoint of this name was taken, and with its state.
    Savepoint(String),
}

/// What becomes of a savepoint's state that is another plan's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SavepointState {
    /// The statement is refused.
    #[default]
    Kept,
    /// It is made again from the input.
    Remade,
}

/// How a windowed aggregate runs whose groups lie in several partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repartition {
    /// In one task over all partitions.
    #[default]
    Merged,
    /// In two phases, with a topic between them.
    Topic,
    /// So where that gives the same, else in one task.
    Auto,
}

/// How grave an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertPriority {
    /// For information.
    Low,
    /// Prompt response.
    Medium,
    /// Immediate response.
    High,
}

impl AlertPriority {
    /// The word used in SQL, alert records and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// In which order an alert takes its readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertOrder {
    /// As they arrive.
    Arrival,
    /// By event time, behind the watermark.
    Watermark,
}

/// The options of a stream or a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Its topic; the stream's name where none is given.
    pub topic: Option<TopicName>,
    /// How a record is read.
    pub format: FormatName,
    /// What stands between two fields of a line of CSV.
    pub csv_delimiter: u8,
    /// What a field of CSV without quotes says where it is NULL.
    pub csv_null: String,
    /// The schema registry's address.
    pub registry_url: Option<String>,
    /// The subject of a sink's schema; `<topic>-value` where none is given.
    pub registry_subject: Option<String>,
    /// How many partitions the topic gets where it does not exist; the node's default where none is given.
    pub partitions: Option<i32>,
    /// The columns all of whose equal values lie in one partition, as they were written; empty where nothing is promised.
    pub key: Vec<String>,
    /// The hash that placement is checked with.
    pub key_partitioner: Option<KeyPartitioner>,
    /// What becomes of a bad record.
    pub bad_records: BadRecords,
    /// Where bad records go; `<topic>.dlq` where none is given.
    pub dlq_topic: Option<TopicName>,
    /// After how long without rows a partition leaves the minimum; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// How far ahead of the clock a row may move the watermark; `None`: any distance.
    pub max_future: Option<Duration>,
    /// Where late rows go; nowhere where none is given.
    pub late_topic: Option<TopicName>,
    /// The unit of numeric timestamps.
    pub timestamp_unit: EpochUnit,
    /// Where in the JSON object a column lies, by column name as it was written.
    pub json_paths: BTreeMap<String, Vec<String>>,
    /// What was written.
    pub given: Options,
}

/// The options of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryOptions {
    /// How often a result may be written; as the node says where nothing is said.
    pub delivery: Option<Delivery>,
    /// Where it begins; from the earliest where nothing is given.
    pub start: Start,
    /// What becomes of a savepoint's state that does not fit.
    pub savepoint_state: SavepointState,
    /// The longest an output waits for its commit; the node's default where none is given.
    pub commit_interval: Option<Duration>,
    /// How long state is kept for which no row comes.
    pub state_ttl: StateTtl,
    /// How a windowed aggregate runs whose groups lie in several partitions.
    pub repartition: Repartition,
    /// How many bytes of state it may hold, `Some(None)` for any number; the node's limit where nothing is said.
    pub state_max: Option<Option<u64>>,
    /// What was written.
    pub given: Options,
}

/// The options of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertOptions {
    /// How grave.
    pub priority: AlertPriority,
    /// How long a breach must hold before the alert is raised.
    pub hold: Duration,
    /// How long the clear condition must hold before it resolves.
    pub clear_hold: Duration,
    /// Whether it stays until somebody acknowledges it.
    pub latch: bool,
    /// The longest gap between readings that a hold survives.
    pub max_gap: Duration,
    /// In which order readings step it.
    pub order: AlertOrder,
    /// The names of the webhooks that hear of it.
    pub notify: Vec<String>,
    /// An alert older than this when found is recorded and not notified.
    pub notify_max_age: Duration,
    /// Where it begins; at the latest where nothing is given.
    pub start: Start,
    /// What becomes of a savepoint's state that does not fit.
    pub savepoint_state: SavepointState,
    /// How often a change of an alert may be written; as the node says where nothing is said.
    pub delivery: Option<Delivery>,
    /// How many bytes of state it may hold, `Some(None)` for any number; the node's limit where nothing is said.
    pub state_max: Option<Option<u64>>,
    /// What was written.
    pub given: Options,
}

impl Options {
    /// Checks names and values against a table. `owner` is the kind of statement, for messages.
    pub fn check(owner: &str, spec: &'static [OptionSpec], given: Vec<Given>) -> Result<Self, SqlError> {
        for (i, option) in given.iter().enumerate() {
            if given[..i].iter().any(|earlier| earlier.name == option.name) {
                return Err(SqlError::new(Code::BadOption, format!("option '{}' is given twice", option.name))
                    .at(option.name_place)
                    .hint("keep one of the two"));
            }
            let Some(known) = find(spec, &option.name) else { return Err(unknown(owner, spec, option)) };
            if matches!(known.kind, Kind::Later) {
                return Err(SqlError::not_supported(&format!("option '{}' of {owner}", option.name))
                    .at(option.name_place)
                    .hint("leave it out"));
            }
            known.kind.check(&option.value).map_err(|why| {
                SqlError::new(Code::BadOption, format!("option '{}' cannot be '{}'", option.name, option.value))
                    .at(option.value_place.or(option.name_place))
                    .hint(why)
            })?;
        }
        Ok(Self { spec, given })
    }

    /// What was written, in order.
    #[must_use]
    pub fn written(&self) -> &[Given] {
        &self.given
    }

    /// The value of an option: the one written, else the table's default where it has one.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let written = self.given.iter().find(|g| g.name == name).map(|g| g.value.as_str());
        written.or_else(|| self.spec.iter().find(|s| s.name == name).and_then(|s| s.default))
    }

    /// Where an option's value stands.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<Place> {
        self.given.iter().find(|g| g.name == name).and_then(|g| g.value_place)
    }

    fn topic(&self, name: &str) -> Option<TopicName> {
        self.value(name).and_then(|v| TopicName::new(v).ok())
    }

    fn duration(&self, name: &str) -> Duration {
        self.duration_or_none(name).unwrap_or_default()
    }

    fn duration_or_none(&self, name: &str) -> Option<Duration> {
        self.value(name).and_then(|v| parse_duration(v).ok())
    }

    /// The bytes of `state.max`; `Some(None)` for `none`.
    fn state_max(&self) -> Option<Option<u64>> {
        self.value("state.max").map(read_bytes)
    }

    fn start(&self, otherwise: Start) -> Start {
        self.value("start").and_then(read_start).unwrap_or(otherwise)
    }

    /// The value of `savepoint.state`, which says nothing where no savepoint is.
    fn savepoint_state(&self) -> Result<SavepointState, SqlError> {
        let Some(given) = self.given.iter().find(|g| g.name == "savepoint.state") else { return Ok(SavepointState::default()) };
        if !matches!(self.value("start").and_then(read_start), Some(Start::Savepoint(_))) {
            return Err(SqlError::new(Code::BadOption, "option 'savepoint.state' says nothing without a savepoint to begin from")
                .at(given.name_place)
                .hint("leave it out, or name the savepoint: 'start' = 'savepoint:<name>'"));
        }
        Ok(if given.value == "remade" { SavepointState::Remade } else { SavepointState::Kept })
    }
}

/// The letter that a `csv.delimiter` stands for.
pub(super) fn delimiter(text: Option<&str>) -> u8 {
    match text {
        Some("\\t") => b'\t',
        text => text.and_then(|t| t.bytes().next()).unwrap_or(b','),
    }
}

fn find(spec: &'static [OptionSpec], name: &str) -> Option<&'static OptionSpec> {
    spec.iter().find(|s| match s.name.strip_suffix('*') {
        Some(prefix) => name.len() > prefix.len() && name.starts_with(prefix),
        None => s.name == name,
    })
}

fn unknown(owner: &str, spec: &'static [OptionSpec], option: &Given) -> SqlError {
    let built = || spec.iter().filter(|s| !matches!(s.kind, Kind::Later)).map(|s| s.name);
    let all = built().map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ");
    SqlError::new(Code::UnknownOption, format!("{owner} has no option '{}'", option.name))
        .at(option.name_place)
        .hint_opt(did_you_mean(&option.name, built()).map(|h| h.replace('"', "'")))
        .note(format!("options: {all}"))
}

/// Reads `earliest`, `latest`, `savepoint:<name>` or a time.
fn read_start(text: &str) -> Option<Start> {
    match (text, text.split_once(':')) {
        ("earliest", _) => Some(Start::Earliest),
        ("latest", _) => Some(Start::Latest),
        (_, Some(("savepoint", name))) => Some(name.trim()).filter(|name| !name.is_empty()).map(|name| Start::Savepoint(name.to_owned())),
        (other, _) => Timestamp::parse(other).map(Start::At),
    }
}

/// Reads a number of bytes: `64MiB`, `1.5 GiB`, `500MB`, `1048576`.
fn read_bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let text = text.trim();
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    let number: f64 = number.trim().parse().ok()?;
    let bytes = number * factor as f64;
    (bytes >= 1.0 && bytes <= (1_u64 << 60) as f64).then_some(bytes as u64)
}

impl StreamOptions {
    /// Reads a stream's options.
    pub fn of_stream(given: Vec<Given>) -> Result<Self, SqlError> {
        Ok(Self::typed(Options::check("a stream", STREAM_OPTIONS, given)?))
    }

    /// Reads a table's options.
    pub fn of_table(given: Vec<Given>) -> Result<Self, SqlError> {
        Ok(Self::typed(Options::check("a table", TABLE_OPTIONS, given)?))
    }

    fn typed(given: Options) -> Self {
        let json_paths = given.given.iter().filter_map(|g| {
            let column = g.name.strip_prefix("json.path.")?;
            Some((column.to_owned(), g.value.split('.').map(str::to_owned).collect()))
        });
        Self {
            topic: given.topic("topic"),
            format: FormatName::of(given.value("format")),
            csv_delimiter: delimiter(given.value("csv.delimiter")),
            csv_null: given.value("csv.null").unwrap_or_default().to_owned(),
            registry_url: given.value("schema.registry.url").map(str::to_owned),
            registry_subject: given.value("schema.registry.subject").map(str::to_owned),
            partitions: given.value("partitions").and_then(|v| v.parse().ok()),
            key: given.value("key").map(|v| v.split(',').map(|c| c.trim().to_owned()).collect()).unwrap_or_default(),
            key_partitioner: match given.value("key.partitioner") {
                Some("murmur2") => Some(KeyPartitioner::Murmur2),
                Some("crc32") => Some(KeyPartitioner::Crc32),
                _ => None,
            },
            bad_records: match given.value("bad-records") {
                Some("fail") => BadRecords::Fail,
                Some("skip") => BadRecords::Skip,
                _ => BadRecords::Dlq,
            },
            dlq_topic: given.topic("dlq.topic"),
            idle_timeout: given.duration_or_none("watermark.idle-timeout"),
            max_future: given.duration_or_none("watermark.max-future"),
            late_topic: given.topic("late.topic"),
            timestamp_unit: match given.value("timestamp.unit") {
                Some("s") => EpochUnit::Seconds,
                Some("us") => EpochUnit::Micros,
                Some("ns") => EpochUnit::Nanos,
                _ => EpochUnit::Millis,
            },
            json_paths: json_paths.collect(),
            given,
        }
    }
}

impl QueryOptions {
    /// Reads a query's options.
    pub fn read(given: Vec<Given>) -> Result<Self, SqlError> {
        let given = Options::check("a query", QUERY_OPTIONS, given)?;
        Ok(Self {
            delivery: given.value("delivery").and_then(Delivery::of),
            start: given.start(Start::Earliest),
            savepoint_state: given.savepoint_state()?,
            commit_interval: given.duration_or_none("commit.interval"),
            state_ttl: match given.value("state.ttl") {
                None => StateTtl::Unstated,
                Some(_) => given.duration_or_none("state.ttl").map_or(StateTtl::Forever, StateTtl::For),
            },
            repartition: match given.value("repartition") {
                Some("topic") => Repartition::Topic,
                Some("auto") => Repartition::Auto,
                _ => Repartition::Merged,
            },
            state_max: given.state_max(),
            given,
        })
    }
}

impl AlertOptions {
    /// Reads an alert's options.
    pub fn read(given: Vec<Given>) -> Result<Self, SqlError> {
        let given = Options::check("an alert", ALERT_OPTIONS, given)?;
        Ok(Self {
            priority: match given.value("priority") {
                Some("high") => AlertPriority::High,
                Some("low") => AlertPriority::Low,
                _ => AlertPriority::Medium,
            },
            hold: given.duration("hold"),
            clear_hold: given.duration("clear.hold"),
            latch: given.value("latch") == Some("true"),
            max_gap: given.duration("max.gap"),
            order: if given.value("order") == Some("watermark") { AlertOrder::Watermark } else { AlertOrder::Arrival },
            notify: table::webhooks(given.value("notify").unwrap_or_default()).unwrap_or_default(),
            notify_max_age: given.duration("notify.max-age"),
            start: given.start(Start::Latest),
            savepoint_state: given.savepoint_state()?,
            delivery: given.value("delivery").and_then(Delivery::of),
            state_max: given.state_max(),
            given,
        })
    }
}

#[cfg(test)]
mod tests;
