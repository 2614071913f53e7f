//! What the records of a stream look like: [`StreamSchema`].
//!
//! Always: every field's type can be read from where the field comes from, no two fields read the same
//! place, and a key rule names fields that a key can be compared with. Made by `sql` from CREATE STREAM
//! and CREATE TABLE; read by the decoder.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::csv::CsvRule;
use crate::registry::Registry;

/// Why fields are not the fields of a stream.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SchemaError {
    /// Nothing to read.
    #[error("a stream has at least one column")]
    NoFields,
    /// Two fields share a name.
    #[error("there are two columns \"{0}\"")]
    TwoFields(String),
    /// No record can hold the type, or this place of a record cannot.
    #[error("column \"{field}\" cannot be of type {data_type} {place}")]
    Type {
        /// Whose type.
        field: String,
        /// Which.
        data_type: DataType,
        /// Where it would be read from.
        place: &'static str,
    },
    /// One place of the JSON object is read by two fields, or lies within what another field reads.
    #[error("columns \"{first}\" and \"{second}\" read the same part of the JSON object")]
    SamePath {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// A path with nothing in it, or an empty name between two dots.
    #[error("the JSON path of column \"{0}\" has an empty name")]
    EmptyPath(String),
    /// A raw value has no parts.
    #[error("a raw stream has one column for the value, this one has {0}")]
    RawColumns(usize),
    /// The format's fields cannot have the name.
    #[error("column \"{field}\" cannot be a field of {format}, whose names are letters, digits and underscores: rename it")]
    Name {
        /// Whose name.
        field: String,
        /// Which format.
        format: &'static str,
    },
    /// Nobody but the database's connector writes such records.
    #[error("a stream of format debezium is written by its connector alone")]
    ReadOnly,
    /// The format's schemas lie in a registry, and none is given.
    #[error("the format needs a schema registry")]
    NoRegistry,
    /// The key rule names no field, or one whose value cannot be a key.
    #[error("column \"{0}\" cannot be the stream's key: name a column of text, whole numbers, time or BOOLEAN that is read from the value")]
    Key(String),
}

/// How a record's value is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    #[default]
    Json,
    /// One line of CSV, its fields in the order of the columns.
    Csv,
    /// Debezium's envelope in JSON; the columns are those of its rows.
    Debezium,
    /// Avro, its schema named by an id of a registry.
    Avro,
    /// Protocol Buffers, their schema named in the same way.
    Protobuf,
    /// The value as it is, in the one field that is not metadata.
    Raw,
}

/// What of a record a field shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldSource {
    /// A part of its value.
    #[default]
    Value,
    /// Something that stands beside the value.
    Metadata(Metadata),
}

/// What stands beside a record's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// The partition's number.
    Partition,
    /// The record's offset.
    Offset,
    /// The record's timestamp; NULL where it has none.
    Timestamp,
    /// The record's key; NULL where it has none.
    Key,
}

/// One field of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSpec {
    /// The column's name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// Whether it may be NULL. A record without a value for a field that may not is a bad record.
    pub nullable: bool,
    /// Where in the JSON object the value lies; empty means under the column's own name.
    pub json_path: Vec<String>,
    /// What it shows.
    pub source: FieldSource,
    /// The unit of a TIMESTAMP that is written as a number.
    pub timestamp_unit: TimeUnit,
}

impl FieldSpec {
    /// A field that may be NULL and is read from the JSON object under its own name.
    #[must_use]
    pub fn new(name: &str, data_type: DataType) -> Self {
        Self {
            name: name.to_owned(),
            data_type,
            nullable: true,
            json_path: Vec::new(),
            source: FieldSource::Value,
            timestamp_unit: TimeUnit::Millisecond,
        }
    }

    /// The same, never NULL.
    #[must_use]
    pub fn not_null(mut self) -> Self {
        self.nullable = false;
        self
    }

    /// The same, read from `path`, whose names have dots between them.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        self.json_path = path.split('.').map(str::to_owned).collect();
        self
    }

    /// The same, read from beside the value.
    #[must_use]
    pub const fn metadata(mut self, what: Metadata) -> Self {
        self.source = FieldSource::Metadata(what);
        self
    }

    /// The same, its numbers counting `unit`s since 1970.
    #[must_use]
    pub const fn unit(mut self, unit: TimeUnit) -> Self {
        self.timestamp_unit = unit;
        self
    }

    /// The names that lead to the value.
    pub(super) fn path(&self) -> Vec<&str> {
        match self.json_path.as_slice() {
            [] => vec![&self.name],
            path => path.iter().map(String::as_str).collect(),
        }
    }
}

/// The hash that placed a record in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitioner {
    /// Kafka's own, of the Java client and kafka-python.
    Murmur2,
    /// librdkafka's `consistent`: CRC-32.
    Crc32,
}

/// What a record's key says where the key is one column and that is NULL: as a key of several columns says it.
pub const NULL_KEY: &[u8] = b"[null]";

/// The promise that all rows with one value of the key lie in one partition. NULL is such a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRule {
    /// The key's columns. One column is compared with the record's key as text ([`NULL_KEY`] where it is NULL), several as
    /// a JSON array of texts.
    pub columns: Vec<String>,
    /// Where given, a record must also lie where this hash of its key puts it.
    pub partitioner: Option<Partitioner>,
    /// How many partitions the hash chooses among.
    pub partitions: i32,
}

impl KeyRule {
    /// The rule that the record's key is this column.
    #[must_use]
    pub fn column(name: &str) -> Self {
        Self { columns: vec![name.to_owned()], partitioner: None, partitions: 1 }
    }

    /// The same, with the record's place checked too.
    #[must_use]
    pub const fn placed_by(mut self, partitioner: Partitioner, partitions: i32) -> Self {
        self.partitioner = Some(partitioner);
        self.partitions = partitions;
        self
    }
}

/// Where the schemas of a stream's records lie.
#[derive(Clone, Debug)]
pub struct RegistryRule {
    /// The registry.
    pub registry: Arc<Registry>,
    /// The subject under which a sink's schema is registered.
    pub subject: String,
    /// The name of that schema's record.
    pub record: String,
}

/// The fields of a stream and how a record becomes a row of them.
#[derive(Clone, Debug)]
pub struct StreamSchema {
    fields: Vec<FieldSpec>,
    key: Option<KeyRule>,
    format: Format,
    csv: CsvRule,
    registry: Option<RegistryRule>,
    tombstones: bool,
    arrow: SchemaRef,
}

impl StreamSchema {
    /// Checks and keeps the fields.
    pub fn new(format: Format, fields: Vec<FieldSpec>) -> Result<Self, SchemaError> {
        check_fields(&fields)?;
        match format {
            Format::Json | Format::Debezium => check_paths(&fields)?,
            Format::Csv => check_csv(&fields)?,
            Format::Raw => check_raw(&fields)?,
            Format::Avro | Format::Protobuf => {}
        }
        let arrow = Schema::new(fields.iter().map(|f| Field::new(&f.name, f.data_type.clone(), f.nullable)).collect::<Vec<_>>());
        Ok(Self { fields, key: None, format, csv: CsvRule::default(), registry: None, tombstones: false, arrow: Arc::new(arrow) })
    }

    /// The same, its lines of CSV written in this way.
    #[must_use]
    pub fn with_csv(mut self, rule: CsvRule) -> Self {
        self.csv = rule;
        self
    }

    /// The same, its schemas lying in a registry.
    #[must_use]
    pub fn with_registry(mut self, rule: RegistryRule) -> Self {
        self.registry = Some(rule);
        self
    }

    /// The same, with a promise about the records' keys, which is then checked record by record.
    pub fn with_key(mut self, key: KeyRule) -> Result<Self, SchemaError> {
        if key.columns.is_empty() {
            return Err(SchemaError::Key(String::new()));
        }
        for name in &key.columns {
            let field = self.fields.iter().find(|f| f.name == *name && f.source == FieldSource::Value);
            if !field.is_some_and(|f| can_be_key(&f.data_type)) {
                return Err(SchemaError::Key(name.clone()));
            }
        }
        self.key = Some(key);
        Ok(self)
    }

    /// The same, for a table: a null value is handed out as a tombstone, not judged a bad record.
    #[must_use]
    pub const fn with_tombstones(mut self) -> Self {
        self.tombstones = true;
        self
    }

    /// The fields, in the order of the columns.
    #[must_use]
    pub fn fields(&self) -> &[FieldSpec] {
        &self.fields
    }

    /// The promise about keys.
    #[must_use]
    pub const fn key(&self) -> Option<&KeyRule> {
        self.key.as_ref()
    }

    /// How a value is read.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// How lines of CSV are written.
    #[must_use]
    pub const fn csv(&self) -> &CsvRule {
        &self.csv
    }

    /// Where its schemas lie.
    #[must_use]
    pub const fn registry(&self) -> Option<&RegistryRule> {
        self.registry.as_ref()
    }

    /// Whether a null value is a tombstone.
    #[must_use]
    pub const fn tombstones(&self) -> bool {
        self.tombstones
    }

    /// The columns as Arrow names them.
    #[must_use]
    pub fn arrow(&self) -> SchemaRef {
        Arc::clone(&self.arrow)
    }
}

fn check_fields(fields: &[FieldSpec]) -> Result<(), SchemaError> {
    if fields.is_empty() {
        return Err(SchemaError::NoFields);
    }
    let mut names = BTreeSet::new();
    for field in fields {
        if !names.insert(field.name.as_str()) {
            return Err(SchemaError::TwoFields(field.name.clone()));
        }
        let (fits, place) = match field.source {
            FieldSource::Value => (can_be_read(&field.data_type, 0), "in a record's value"),
            FieldSource::Metadata(what) => (metadata_fits(what, &field.data_type), "as this metadata"),
        };
        if !fits {
            return Err(SchemaError::Type { field: field.name.clone(), data_type: field.data_type.clone(), place });
        }
    }
    Ok(())
}

/// Types nest no deeper than values may.
fn can_be_read(data_type: &DataType, depth: u32) -> bool {
    match data_type {
        DataType::Boolean | DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => true,
        DataType::Float32 | DataType::Float64 | DataType::Utf8 | DataType::Binary | DataType::Date32 => true,
        DataType::Timestamp(_, None) => true,
        DataType::Time32(unit) => matches!(unit, TimeUnit::Second | TimeUnit::Millisecond),
        DataType::Time64(unit) => matches!(unit, TimeUnit::Microsecond | TimeUnit::Nanosecond),
        DataType::Decimal128(precision, scale) => (1..=38).contains(precision) && *scale >= 0 && scale.unsigned_abs() <= *precision,
        DataType::Struct(fields) => {
            let mut names = BTreeSet::new();
            depth < super::MAX_DEPTH
                && !fields.is_empty()
                && fields.iter().all(|f| names.insert(f.name()) && can_be_read(f.data_type(), depth + 1))
        }
        DataType::List(item) => depth < super::MAX_DEPTH && can_be_read(item.data_type(), depth + 1),
        _ => false,
    }
}

const fn metadata_fits(what: Metadata, data_type: &DataType) -> bool {
    match what {
        Metadata::Partition => matches!(data_type, DataType::Int32 | DataType::Int64),
        Metadata::Offset => matches!(data_type, DataType::Int64),
        Metadata::Timestamp => matches!(data_type, DataType::Timestamp(_, None) | DataType::Int64),
        Metadata::Key => matches!(data_type, DataType::Utf8 | DataType::Binary),
    }
}

const fn can_be_key(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8
            | DataType::Boolean
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Date32
            | DataType::Timestamp(_, None)
            | DataType::Decimal128(..)
            | DataType::Float32
            | DataType::Float64
    )
}

fn check_paths(fields: &[FieldSpec]) -> Result<(), SchemaError> {
    let mut paths: Vec<(Vec<&str>, &str)> = Vec::new();
    for field in fields.iter().filter(|f| f.source == FieldSource::Value) {
        let path = field.path();
        if path.len() >= super::MAX_DEPTH as usize || (!field.json_path.is_empty() && path.iter().any(|name| name.is_empty())) {
            return Err(SchemaError::EmptyPath(field.name.clone()));
        }
        paths.push((path, &field.name));
    }
    // In order, a path stands right in front of those that begin with it.
    paths.sort();
    for pair in paths.windows(2) {
        if pair[1].0.starts_with(&pair[0].0) {
            return Err(SchemaError::SamePath { first: pair[0].1.to_owned(), second: pair[1].1.to_owned() });
        }
    }
    Ok(())
}

fn check_csv(fields: &[FieldSpec]) -> Result<(), SchemaError> {
    let nested = |f: &&FieldSpec| f.source == FieldSource::Value && f.data_type.is_nested();
    match fields.iter().find(nested) {
        Some(f) => Err(SchemaError::Type { field: f.name.clone(), data_type: f.data_type.clone(), place: "in a line of CSV" }),
        None => Ok(()),
    }
}

fn check_raw(fields: &[FieldSpec]) -> Result<(), SchemaError> {
    let values: Vec<_> = fields.iter().filter(|f| f.source == FieldSource::Value).collect();
    match values.as_slice() {
        [only] if matches!(only.data_type, DataType::Utf8 | DataType::Binary) => Ok(()),
        [only] => Err(SchemaError::Type { field: only.name.clone(), data_type: only.data_type.clone(), place: "as a raw value" }),
        several => Err(SchemaError::RawColumns(several.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> FieldSpec {
        FieldSpec::new(name, DataType::Utf8)
    }

    fn refused(fields: Vec<FieldSpec>) -> String {
        StreamSchema::new(Format::Json, fields).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        assert_eq!(refused(vec![]), "a stream has at least one column");
        assert_eq!(refused(vec![text("a"), text("a")]), "there are two columns \"a\"");
        assert_eq!(refused(vec![FieldSpec::new("a", DataType::Utf8View)]), "column \"a\" cannot be of type Utf8View in a record's value");
        assert_eq!(
            refused(vec![text("a").at("x.y"), text("b").at("x.y")]),
            "columns \"a\" and \"b\" read the same part of the JSON object"
        );
        assert_eq!(
            refused(vec![text("x"), text("b").at("x.y"), text("x2")]),
            "columns \"x\" and \"b\" read the same part of the JSON object"
        );
        assert_eq!(refused(vec![text("a").at("x..y")]), "the JSON path of column \"a\" has an empty name");
        let partition = FieldSpec::new("p", DataType::Utf8).metadata(Metadata::Partition);
        assert_eq!(refused(vec![partition]), "column \"p\" cannot be of type Utf8 as this metadata");
    }

    #[test]
    fn a_raw_stream_has_one_value() {
        let raw = |fields| StreamSchema::new(Format::Raw, fields).map(drop);
        let key = text("k").metadata(Metadata::Key);
        assert_eq!(raw(vec![text("v"), key.clone()]), Ok(()));
        assert_eq!(raw(vec![text("v"), text("w")]), Err(SchemaError::RawColumns(2)));
        assert_eq!(raw(vec![key]), Err(SchemaError::RawColumns(0)));
        assert!(raw(vec![FieldSpec::new("v", DataType::Int32)]).is_err());
    }

    #[test]
    fn a_key_is_a_column_of_the_value() {
        let schema = || {
            StreamSchema::new(Format::Json, vec![text("a"), FieldSpec::new("x", DataType::Binary), text("k").metadata(Metadata::Key)])
                .unwrap()
        };
        assert!(schema().with_key(KeyRule::column("a")).is_ok());
        for bad in ["b", "x", "k"] {
            assert!(schema().with_key(KeyRule::column(bad)).is_err(), "{bad}");
        }
    }
}
