//! What SHOW, DESCRIBE and SHOW CREATE answer: rows, and statements in their canonical spelling.
//!
//! Pure: values in, Arrow rows or text out. The canonical spelling is the dialect's own (Flink's), whichever was used;
//! it is only shown where it is read back as the same statement, else the user's own text is. Called by the engine.

mod print;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

pub use print::{canonical, derived_stream};

use super::catalog::{Catalog, Entry, SavedPlace, SavepointDef, StreamDef};
use super::macros::signature;
use super::parse::parse_statement;
use super::statement::{Column, ColumnSource, CreateFunction, Kind, Statement};
use super::types::sql_type;
use crate::time::Timestamp;

/// What the engine knows of a running query or alert.
#[derive(Clone, Debug, Default)]
pub struct TaskLine {
    /// In which state it is, and how many of its tasks run elsewhere.
    pub state: String,
    /// Rows read.
    pub rows_in: u64,
    /// Rows written.
    pub rows_out: u64,
    /// Rows that came too late.
    pub late: u64,
    /// The least watermark of its partitions.
    pub watermark: Option<Timestamp>,
    /// Records it has not read yet, where that is known.
    pub lag: Option<i64>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Answers `SHOW STREAMS`, `SHOW TABLES`, `SHOW QUERIES`, `SHOW VIEWS`, `SHOW MATERIALIZED VIEWS`, `SHOW ALERTS`, `SHOW FUNCTIONS`,
/// `SHOW SAVEPOINTS`. `status` is asked once a query or alert.
pub fn show_all(catalog: &Catalog, kind: Kind, status: impl FnMut(&str) -> TaskLine) -> RecordBatch {
    match kind {
        Kind::Stream | Kind::Table => relations(catalog, kind),
        Kind::Query | Kind::View | Kind::PlainView | Kind::Alert => tasks(catalog, kind, status),
        Kind::Function => functions(catalog),
        Kind::Savepoint => savepoints(catalog),
    }
}

fn savepoints(catalog: &Catalog) -> RecordBatch {
    let all: Vec<(&Arc<Entry>, &Arc<SavepointDef>)> = catalog.savepoints().collect();
    let of = |entry: &Entry| match &*entry.statement {
        Statement::CreateSavepoint(savepoint) => format!("{} {}", savepoint.kind.word(), savepoint.of),
        _ => String::new(),
    };
    batch(vec![
        ("name", text(all.iter().map(|(entry, _)| entry.name.clone()).collect())),
        ("of", text(all.iter().map(|(entry, _)| of(entry)).collect())),
        ("version", Arc::new(UInt64Array::from_iter_values(all.iter().map(|(_, def)| def.version)))),
        ("taken", times(all.iter().map(|(entry, _)| Some(entry.created)))),
        ("tasks", Arc::new(Int32Array::from_iter_values(all.iter().map(|(_, def)| def.tasks)))),
        ("bytes", Arc::new(UInt64Array::from_iter_values(all.iter().map(|(_, def)| def.bytes)))),
        ("positions", text(all.iter().map(|(_, def)| def.positions()).collect())),
        ("program", text(all.iter().map(|(_, def)| def.program.clone()).collect())),
    ])
}

/// Answers `DESCRIBE SAVEPOINT`: where it stood. `there` says of each place how many records lie behind it, or what is amiss.
pub fn describe_savepoint(def: &SavepointDef, mut there: impl FnMut(&SavedPlace) -> Result<i64, String>) -> RecordBatch {
    let behind: Vec<Result<i64, String>> = def.places.iter().map(&mut there).collect();
    batch(vec![
        ("task", Arc::new(Int32Array::from_iter_values(def.places.iter().map(|place| place.task)))),
        ("topic", text(def.places.iter().map(|place| place.topic.clone()).collect())),
        ("partition", Arc::new(Int32Array::from_iter_values(def.places.iter().map(|place| place.partition)))),
        ("position", Arc::new(Int64Array::from_iter_values(def.places.iter().map(|place| place.position)))),
        ("watermark", times(def.places.iter().map(|place| place.watermark.map(Timestamp)))),
        ("behind", Arc::new(behind.iter().map(|there| there.as_ref().ok().copied()).collect::<Int64Array>())),
        ("amiss", maybe_text(behind.into_iter().map(Result::err).collect())),
    ])
}

fn times(values: impl Iterator<Item = Option<Timestamp>>) -> ArrayRef {
    Arc::new(
        values
            .map(|at| at.filter(|at| *at > Timestamp::MIN && *at < Timestamp::MAX).map(Timestamp::millis))
            .collect::<TimestampMillisecondArray>(),
    )
}

fn functions(catalog: &Catalog) -> RecordBatch {
    let all: Vec<&CreateFunction> = catalog.all(Kind::Function).filter_map(|entry| entry.function()).collect();
    batch(vec![
        ("name", text(all.iter().map(|f| f.name.to_string()).collect())),
        ("signature", text(all.iter().map(|f| signature(f)).collect())),
        ("expression", text(all.iter().map(|f| f.body.to_string()).collect())),
    ])
}

fn relations(catalog: &Catalog, kind: Kind) -> RecordBatch {
    let defs: Vec<&StreamDef> = catalog.all(kind).filter_map(|e| e.stream.as_deref()).collect();
    let key = |d: &StreamDef| (!d.key_columns().is_empty()).then(|| d.key_columns().join(", "));
    batch(vec![
        ("name", text(defs.iter().map(|d| d.name.clone()).collect())),
        ("topic", text(defs.iter().map(|d| d.topic.to_string()).collect())),
        ("format", text(defs.iter().map(|d| d.options.format.word().to_owned()).collect())),
        ("columns", Arc::new(Int32Array::from_iter_values(defs.iter().map(|d| i32::try_from(d.columns.len()).unwrap_or(i32::MAX))))),
        ("key", maybe_text(defs.iter().map(|d| key(d)).collect())),
        ("event_time", maybe_text(defs.iter().map(|d| d.time().map(str::to_owned)).collect())),
        ("watermark", maybe_text(defs.iter().map(|d| d.watermark.as_ref().map(|w| w.expr.to_string())).collect())),
    ])
}

fn tasks(catalog: &Catalog, kind: Kind, mut status: impl FnMut(&str) -> TaskLine) -> RecordBatch {
    // VIEWS are all of them, those of which nothing runs too.
    let materialized = (kind == Kind::PlainView).then_some(Kind::View);
    let mut entries: Vec<&Arc<Entry>> = catalog.all(kind).chain(materialized.into_iter().flat_map(|kind| catalog.all(kind))).collect();
    entries.sort_by_key(|entry| &entry.name);
    let mut line = |entry: &Entry| match entry.kind {
        Kind::PlainView => TaskLine { state: "not materialized".to_owned(), ..TaskLine::default() },
        _ => status(&entry.name),
    };
    let lines: Vec<TaskLine> = entries.iter().map(|e| line(e)).collect();
    let state = |(entry, line): (&&Arc<Entry>, &TaskLine)| {
        if line.state.is_empty() && entry.paused { "paused".to_owned() } else { line.state.clone() }
    };
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("name", text(entries.iter().map(|e| e.name.clone()).collect())),
        ("state", text(entries.iter().zip(&lines).map(state).collect())),
        ("version", Arc::new(UInt64Array::from_iter_values(entries.iter().map(|e| e.version)))),
        ("reads", text(entries.iter().map(|e| e.reads().iter().map(|r| r.text.as_str()).collect::<Vec<_>>().join(", ")).collect())),
    ];
    if kind == Kind::Query {
        columns.push(("writes", maybe_text(entries.iter().map(|e| e.writes().map(str::to_owned)).collect())));
    } else if matches!(kind, Kind::View | Kind::PlainView) {
        let key = |e: &&Arc<Entry>| e.stream.as_ref().filter(|d| !d.key_columns().is_empty()).map(|d| d.key_columns().join(", "));
        columns.push(("key", maybe_text(entries.iter().map(key).collect())));
    } else {
        columns.push(("priority", maybe_text(entries.iter().map(|e| priority(e)).collect())));
    }
    columns.extend::<Vec<(&str, ArrayRef)>>(vec![
        ("rows_in", Arc::new(UInt64Array::from_iter_values(lines.iter().map(|l| l.rows_in)))),
        ("rows_out", Arc::new(UInt64Array::from_iter_values(lines.iter().map(|l| l.rows_out)))),
        ("late", Arc::new(UInt64Array::from_iter_values(lines.iter().map(|l| l.late)))),
        ("watermark", times(lines.iter().map(|l| l.watermark))),
        ("lag", Arc::new(lines.iter().map(|l| l.lag).collect::<Int64Array>())),
        ("error", maybe_text(lines.iter().map(|l| l.error.clone()).collect())),
    ]);
    batch(columns)
}

fn priority(entry: &Entry) -> Option<String> {
    match &*entry.statement {
        Statement::CreateAlert(alert) => Some(alert.options.priority.as_str().to_owned()),
        _ => None,
    }
}

/// Answers `DESCRIBE` of a stream or table. `types` gives the type of a computed column, where planning has found it.
pub fn describe_stream(def: &StreamDef, types: impl Fn(&str) -> Option<DataType>) -> RecordBatch {
    let data_type = |c: &Column| c.data_type.clone().or_else(|| types(&c.name.text)).map(|t| sql_type(&t));
    let notes = |c: &Column| {
        let mut notes = Vec::new();
        match &c.source {
            ColumnSource::Metadata(metadata) => notes.push(format!("metadata '{}'", metadata.word())),
            ColumnSource::Computed(expr) => notes.push(format!("computed: {expr}")),
            ColumnSource::Value => {}
        }
        if def.primary_key.contains(&c.name.text) {
            notes.push("primary key".to_owned());
        }
        if def.options.key.contains(&c.name.text) {
            notes.push("key".to_owned());
        }
        if let Some(watermark) = def.watermark.as_ref().filter(|w| w.column == c.name) {
            notes.push(format!("event time, watermark {}", watermark.expr));
        }
        if let Some(path) = def.options.json_paths.get(&c.name.text) {
            notes.push(format!("json path {}", path.join(".")));
        }
        (!notes.is_empty()).then(|| notes.join("; "))
    };
    batch(vec![
        ("column", text(def.columns.iter().map(|c| c.name.text.clone()).collect())),
        ("type", maybe_text(def.columns.iter().map(data_type).collect())),
        ("nullable", Arc::new(def.columns.iter().map(|c| Some(c.nullable)).collect::<BooleanArray>())),
        ("notes", maybe_text(def.columns.iter().map(notes).collect())),
    ])
}

/// Answers `DESCRIBE` of a query or alert: the columns of its results.
#[must_use]
pub fn describe_schema(schema: &Schema) -> RecordBatch {
    let fields = schema.fields();
    batch(vec![
        ("column", text(fields.iter().map(|f| f.name().clone()).collect())),
        ("type", text(fields.iter().map(|f| sql_type(f.data_type())).collect())),
        ("nullable", Arc::new(fields.iter().map(|f| Some(f.is_nullable())).collect::<BooleanArray>())),
        ("notes", maybe_text(vec![None; fields.len()])),
    ])
}

/// Answers `SHOW CREATE`: the statement in its canonical spelling, which reads back as the same statement; of a savepoint the statement
/// of what it is of, as that was written.
#[must_use]
pub fn show_create(entry: &Entry) -> String {
    if let Some(savepoint) = &entry.savepoint {
        return savepoint.text.clone();
    }
    let printed = canonical(&entry.statement);
    let again = parse_statement(&printed).ok().map(|parsed| canonical(&parsed.statement));
    if again.as_deref() == Some(printed.as_str()) { printed } else { entry.text.clone() }
}

/// One column of text lines, as `EXPLAIN`, `WHY` and `SHOW CREATE` answer.
#[must_use]
pub fn lines(column: &str, content: &str) -> RecordBatch {
    batch(vec![(column, text(content.lines().map(str::to_owned).collect()))])
}

fn text(values: Vec<String>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

fn maybe_text(values: Vec<Option<String>>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields = columns.iter().map(|(name, column)| {
        let data_type = match column.data_type() {
            DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Millisecond, None),
            other => other.clone(),
        };
        Field::new(*name, data_type, true)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(schema, columns).expect("every column has one value an entry")
}

#[cfg(test)]
mod tests;
