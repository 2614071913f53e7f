//! `CREATE STREAM s LIKE SAMPLE OF TOPIC 't'`: the statement that fits a topic's records.
//!
//! Pure: records in, the text of a CREATE STREAM out, which is then parsed like any other. Always: what stands in records is
//! never shown, only names and types; a name of a stranger's is written so that it stays a name; what no column can
//! hold is left out and said so in a comment. Called by the engine.

mod json;
#[cfg(test)]
mod tests;

use arrow::datatypes::DataType;

use super::error::{Code, SqlError};
use super::options::FormatName;
use super::statement::CreateLike;
use super::types::{quoted, sql_type};
use crate::format::{FieldGuess, csv_fields};

/// More columns than this are no stream but a mistake.
const MAX_COLUMNS: usize = 500;
/// Names of an event time, the likelier first.
const TIME_NAMES: [&str; 10] =
    ["ts", "event_time", "event_ts", "eventtime", "timestamp", "time", "observed_at", "measured_at", "recorded_at", "created_at"];

/// A record that was looked at.
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Vec<u8>,
}

/// A column that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    name: String,
    /// Where in the JSON object it lies, where that is not under its own name.
    path: Option<String>,
    data_type: DataType,
    /// Whether every record had it.
    always: bool,
}

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    columns: Vec<Found>,
    /// What no column can hold, and why.
    left_out: Vec<String>,
    /// The unit of times that are numbers.
    unit: Option<&'static str>,
    /// The column that all records have as their key.
    key: Option<String>,
}

/// The format of records whose statement does not say it.
pub fn guess_format(like: &CreateLike, records: &[Sampled]) -> Result<FormatName, SqlError> {
    if let Some(format) = like.format() {
        return Ok(format);
    }
    let objects = records.iter().filter(|r| r.value.trim_ascii_start().first() == Some(&b'{')).count();
    if objects * 2 > records.len() {
        return Ok(if json::are_envelopes(records) { FormatName::Debezium } else { FormatName::Json });
    }
    let framed = records.iter().filter(|r| r.value.len() > 5 && r.value[0] == 0).count();
    let what = if framed * 2 > records.len() {
        "its records look like Avro or Protobuf behind a schema's id: add WITH ('format' = 'avro', 'schema.registry.url' = 'http://..')"
    } else {
        "say what they are: WITH ('format' = 'csv'), or 'raw'"
    };
    Err(SqlError::new(Code::BadDefinition, format!("the records of topic \"{}\" are not JSON objects", like.topic))
        .at(like.topic_place)
        .hint(what))
}

/// The statement for records of a format that shows itself in the records.
pub fn of_records(like: &CreateLike, format: FormatName, records: &[Sampled]) -> Result<String, SqlError> {
    let findings = match format {
        FormatName::Csv => csv(like, records),
        FormatName::Raw => raw(records),
        _ => json::findings(format, records),
    };
    compose(like, format, findings)
}

/// The statement for records whose columns a registry's schema says.
pub fn of_schema(like: &CreateLike, format: FormatName, guesses: Vec<FieldGuess>) -> Result<String, SqlError> {
    let mut findings = Findings::default();
    for guess in guesses {
        match guess.data_type {
            Ok(data_type) => {
                let lower = guess.name.to_lowercase();
                let free = !findings.columns.iter().any(|c| c.name == lower);
                let name = if free { lower } else { guess.name };
                findings.columns.push(Found { name, path: None, data_type, always: !guess.nullable });
            }
            Err(why) => findings.left_out.push(format!("{}: {why}", guess.name.escape_debug())),
        }
    }
    compose(like, format, findings)
}

fn raw(records: &[Sampled]) -> Findings {
    let texts = records.iter().all(|r| std::str::from_utf8(&r.value).is_ok());
    let data_type = if texts { DataType::Utf8 } else { DataType::Binary };
    Findings { columns: vec![Found { name: "body".to_owned(), path: None, data_type, always: true }], ..Findings::default() }
}

/// The columns of lines, which have no names.
fn csv(like: &CreateLike, records: &[Sampled]) -> Findings {
    let rule = like.csv();
    let lines: Vec<Vec<Option<String>>> = records.iter().filter_map(|r| csv_fields(&rule, &r.value)).collect();
    let width = lines.iter().map(Vec::len).max().unwrap_or(0);
    let columns = (0..width).map(|at| {
        let values: Vec<&str> = lines.iter().filter_map(|line| line.get(at)?.as_deref()).collect();
        let always = values.len() == records.len();
        Found { name: format!("c{}", at + 1), path: None, data_type: json::type_of_texts(&values), always }
    });
    Findings { columns: columns.collect(), ..Findings::default() }
}

fn compose(like: &CreateLike, format: FormatName, mut findings: Findings) -> Result<String, SqlError> {
    let bad = |message: String| SqlError::new(Code::BadDefinition, message).at(like.topic_place);
    if findings.columns.is_empty() {
        return Err(bad(format!("the records of topic \"{}\" have nothing that a {} column could hold", like.topic, format.word()))
            .hint("write the columns yourself: CREATE STREAM .. (..)"));
    }
    if findings.columns.len() > MAX_COLUMNS {
        return Err(bad(format!("the records of topic \"{}\" have more than {MAX_COLUMNS} fields", like.topic))
            .hint("write the columns that you need: CREATE STREAM .. (..)"));
    }
    let time = event_time(&findings.columns);
    let mut lines: Vec<String> = findings.left_out.iter().map(|what| format!("  -- left out: {what}")).collect();
    let mut columns: Vec<String> = Vec::new();
    for (at, column) in findings.columns.iter().enumerate() {
        let not_null = if Some(at) == time && column.always { " NOT NULL" } else { "" };
        columns.push(format!("  {} {}{not_null}", quoted(&column.name), sql_type(&column.data_type)));
    }
    if let Some(time) = time {
        let name = quoted(&findings.columns[time].name);
        columns.push(format!("  WATERMARK FOR {name} AS {name} - INTERVAL '5' SECOND"));
    }
    lines.push(columns.join(",\n"));
    let mut options = vec![("topic".to_owned(), like.topic.to_string()), ("format".to_owned(), format.word().to_owned())];
    let given = |name: &str| like.given.iter().any(|g| g.name == name);
    for column in &mut findings.columns {
        if let Some(path) = column.path.take() {
            options.push((format!("json.path.{}", column.name), path));
        }
    }
    options.extend(findings.unit.map(|unit| ("timestamp.unit".to_owned(), unit.to_owned())));
    options.extend(findings.key.map(|key| ("key".to_owned(), key)));
    options.retain(|(name, _)| !given(name));
    options.extend(like.given.iter().map(|g| (g.name.clone(), g.value.clone())));
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let options: Vec<String> = options.iter().map(|(name, value)| format!("  {} = {}", literal(name), literal(value))).collect();
    let (replace, exists) = (if like.or_replace { "OR REPLACE " } else { "" }, if like.if_not_exists { "IF NOT EXISTS " } else { "" });
    Ok(format!("CREATE {replace}STREAM {exists}{} (\n{}\n) WITH (\n{}\n)", quoted(&like.name.text), lines.join("\n"), options.join(",\n")))
}

/// Which column is the likeliest event time.
fn event_time(columns: &[Found]) -> Option<usize> {
    let times = || columns.iter().enumerate().filter(|(_, c)| matches!(c.data_type, DataType::Timestamp(..)));
    let named = TIME_NAMES.iter().find_map(|name| times().find(|(_, c)| c.name == *name || c.name.ends_with(&format!("_{name}"))));
    named.or_else(|| times().next()).map(|(at, _)| at)
}
