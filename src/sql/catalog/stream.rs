//! A stream or table as the engine needs it: names resolved, defaults filled in.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::format::{self, CsvRule, FieldSource, FieldSpec, KeyRule, Partitioner, RegistryRule, StreamSchema};
use crate::record::TopicName;
use crate::registry::Registry;
use crate::sql::error::{Code, SqlError};
use crate::sql::lower::{RECORD_KEY, RECORD_TIME, Source, SourceColumn};
use crate::sql::options::{EpochUnit, FormatName, KeyPartitioner, StreamOptions};
use crate::sql::statement::{Column, ColumnSource, Kind, Metadata, Statement, Watermark};
use crate::sql::windows::event_time_type;

/// A stream or table.
#[derive(Clone, Debug)]
pub struct StreamDef {
    /// Its name in SQL.
    pub name: String,
    /// [`Kind::Stream`] or [`Kind::Table`].
    pub kind: Kind,
    /// The topic behind it.
    pub topic: TopicName,
    /// Where its bad records go.
    pub dlq_topic: TopicName,
    /// Its columns in the order they were declared.
    pub columns: Vec<Column>,
    /// A table's key columns; a stream has none.
    pub primary_key: Vec<String>,
    /// Whether it is a view's: its records are the node's own, and their keys say which row is meant.
    pub is_view: bool,
    /// Its event time.
    pub watermark: Option<Watermark>,
    /// What stood in WITH.
    pub options: StreamOptions,
    /// The schema registry, and what it has said.
    pub registry: Option<Arc<Registry>>,
}

impl StreamDef {
    /// What a CREATE STREAM or CREATE TABLE describes; `None` for any other statement.
    #[must_use]
    pub fn of(statement: &Statement) -> Option<Self> {
        let (name, kind, columns, primary_key, watermark, options) = match statement {
            Statement::CreateStream(s) => (&s.name, Kind::Stream, &s.columns, Vec::new(), &s.watermark, &s.options),
            Statement::CreateTable(t) => {
                (&t.name, Kind::Table, &t.columns, t.primary_key.iter().map(|k| k.text.clone()).collect(), &t.watermark, &t.options)
            }
            _ => return None,
        };
        let topic = options.topic.clone().or_else(|| TopicName::new(&name.text).ok())?;
        let dlq_topic = options.dlq_topic.clone().unwrap_or_else(|| dead_letters(&topic));
        Some(Self {
            name: name.text.clone(),
            kind,
            topic,
            dlq_topic,
            columns: columns.clone(),
            primary_key,
            is_view: false,
            watermark: watermark.clone(),
            options: options.clone(),
            registry: options.registry_url.as_deref().and_then(|url| Registry::new(url).ok()).map(Arc::new),
        })
    }

    /// What a view is read as: `definition` is the stream that its results are, and where they change, `key` has the columns that a row is
    /// known by, which are none where there is one row.
    #[must_use]
    pub fn of_view(definition: &Statement, key: Option<&[String]>) -> Option<Self> {
        let stream = Self::of(definition)?;
        Some(match key {
            None => Self { is_view: true, ..stream },
            Some(key) => Self { is_view: true, kind: Kind::Table, primary_key: key.to_vec(), ..stream },
        })
    }

    /// The columns that a decoder yields, in order: those of the record's value and of its metadata.
    pub fn decoded_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| !matches!(c.source, ColumnSource::Computed(_)))
    }

    /// The columns that lie in the record's value: what INSERT writes.
    pub fn written_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| matches!(c.source, ColumnSource::Value))
    }

    /// The decoded columns as an Arrow schema.
    #[must_use]
    pub fn decoded(&self) -> SchemaRef {
        let record_time = Field::new(RECORD_TIME, event_time_type(), true);
        let record_key = Field::new(RECORD_KEY, DataType::Binary, true);
        let own = self.goes_by_record().then_some(record_time).into_iter().chain(self.goes_by_key().then_some(record_key));
        Arc::new(Schema::new(self.decoded_columns().filter_map(field).chain(own).collect::<Vec<_>>()))
    }

    /// Whether its rows hold from when their records were written on: a table's, where no WATERMARK says otherwise.
    fn goes_by_record(&self) -> bool {
        self.kind == Kind::Table && self.watermark.is_none()
    }

    /// Whether the record's key says which row is meant, whatever the columns hold.
    fn goes_by_key(&self) -> bool {
        self.is_view && self.kind == Kind::Table
    }

    /// The written columns as an Arrow schema.
    #[must_use]
    pub fn written(&self) -> SchemaRef {
        Arc::new(Schema::new(self.written_columns().filter_map(field).collect::<Vec<_>>()))
    }

    /// The columns that a record's key is made of: the `key` option, or a table's primary key. Empty where nothing is promised.
    #[must_use]
    pub fn key_columns(&self) -> &[String] {
        if self.primary_key.is_empty() { &self.options.key } else { &self.primary_key }
    }

    /// The column all of whose equal values lie in one partition, where it is one column.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self.key_columns() {
            // A connector places its records by keys of its own.
            _ if self.options.format == FormatName::Debezium => None,
            [one] => Some(one),
            _ => None,
        }
    }

    /// How its records are read, where its topic has so many partitions.
    pub fn schema(&self, partitions: i32) -> Result<StreamSchema, SqlError> {
        let format = match self.options.format {
            FormatName::Json => format::Format::Json,
            FormatName::Csv => format::Format::Csv,
            FormatName::Debezium => format::Format::Debezium,
            FormatName::Avro => format::Format::Avro,
            FormatName::Protobuf => format::Format::Protobuf,
            FormatName::Raw => format::Format::Raw,
        };
        let unit = match self.options.timestamp_unit {
            EpochUnit::Seconds => TimeUnit::Second,
            EpochUnit::Millis => TimeUnit::Millisecond,
            EpochUnit::Micros => TimeUnit::Microsecond,
            EpochUnit::Nanos => TimeUnit::Nanosecond,
        };
        let fields = self.decoded_columns().filter_map(|column| {
            let source = match column.source {
                ColumnSource::Metadata(what) => FieldSource::Metadata(match what {
                    Metadata::Partition => format::Metadata::Partition,
                    Metadata::Offset => format::Metadata::Offset,
                    Metadata::Timestamp => format::Metadata::Timestamp,
                    Metadata::Key => format::Metadata::Key,
                }),
                ColumnSource::Value | ColumnSource::Computed(_) => FieldSource::Value,
            };
            Some(FieldSpec {
                name: column.name.text.clone(),
                data_type: column.data_type.clone()?,
                nullable: column.nullable,
                json_path: self.options.json_paths.get(&column.name.text).cloned().unwrap_or_default(),
                source,
                timestamp_unit: unit,
            })
        });
        let bad = |e: format::SchemaError| SqlError::new(Code::BadDefinition, e.to_string());
        let record_time = FieldSpec::new(RECORD_TIME, event_time_type()).metadata(format::Metadata::Timestamp);
        let record_key = FieldSpec::new(RECORD_KEY, DataType::Binary).metadata(format::Metadata::Key);
        let fields = fields.chain(self.goes_by_record().then_some(record_time)).chain(self.goes_by_key().then_some(record_key));
        let csv = CsvRule { delimiter: self.options.csv_delimiter, null: self.options.csv_null.clone() };
        let mut schema = StreamSchema::new(format, fields.collect()).map_err(bad)?.with_csv(csv);
        if let Some(registry) = &self.registry {
            let subject = self.options.registry_subject.clone().unwrap_or_else(|| format!("{}-value", self.topic));
            schema = schema.with_registry(RegistryRule { registry: Arc::clone(registry), subject, record: self.name.clone() });
        }
        if !self.key_columns().is_empty() && !self.goes_by_key() {
            let partitioner = self.options.key_partitioner.map(|p| match p {
                KeyPartitioner::Murmur2 => Partitioner::Murmur2,
                KeyPartitioner::Crc32 => Partitioner::Crc32,
            });
            schema = schema.with_key(KeyRule { columns: self.key_columns().to_vec(), partitioner, partitions }).map_err(bad)?;
        }
        Ok(if self.kind == Kind::Table { schema.with_tombstones() } else { schema })
    }

    /// The same as planning sees it.
    #[must_use]
    pub fn source(&self, partitions: i32) -> Source {
        let computed = |c: &Column| match &c.source {
            ColumnSource::Computed(expr) => Some((**expr).clone()),
            ColumnSource::Value | ColumnSource::Metadata(_) => None,
        };
        Source {
            name: self.name.clone(),
            topic: self.topic.clone(),
            partitions,
            decoded: self.decoded(),
            columns: self.columns.iter().map(|c| SourceColumn { name: c.name.text.clone(), computed: computed(c) }).collect(),
            key: self.key().map(str::to_owned),
            time: self.time().map(str::to_owned),
            watermark: self.watermark.as_ref().map(|w| w.expr.clone()),
            is_murmur2: self.options.key_partitioner == Some(KeyPartitioner::Murmur2),
            max_future_ms: self.max_future_ms(),
            is_table: self.kind == Kind::Table,
            primary_key: self.primary_key.clone(),
        }
    }

    /// The event time column.
    #[must_use]
    pub fn time(&self) -> Option<&str> {
        self.watermark.as_ref().map(|w| w.column.text.as_str())
    }

    /// How far ahead of the clock a row may move the watermark, in milliseconds; `None`: any distance.
    #[must_use]
    pub fn max_future_ms(&self) -> Option<i64> {
        self.options.max_future.map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }
}

fn field(column: &Column) -> Option<Field> {
    // A computed column, the only kind without a type, is not decoded.
    let data_type = column.data_type.clone()?;
    Some(Field::new(&column.name.text, data_type, column.nullable))
}

/// `<topic>.dlq`, cut where the name would become too long.
fn dead_letters(topic: &TopicName) -> TopicName {
    let base = &topic.as_str()[..topic.as_str().len().min(245)];
    TopicName::new(&format!("{base}.dlq")).unwrap_or_else(|_| topic.clone())
}
