//! `vitalsql produce`: records from stdin, one a line, over the Kafka port.

use std::io::{BufRead, IsTerminal};

use clap::Args;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use super::kafka::{Broker, Writer};
use super::{CommandResult, Failure, output};

/// Records from stdin.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  echo '{\"patient_id\":\"p1\",\"heart_rate\":80,\"ts\":\"2026-01-01T00:00:00Z\"}' | vitalsql produce vitals --key-field patient_id\n  \
                        vitalsql produce notes --separator : < lines.txt       key:value a line"
)]
pub struct Arguments {
    /// The topic.
    topic: String,
    /// Each line is KEY<separator>VALUE.
    #[arg(long, short = 'K', value_name = "TEXT", conflicts_with = "key_field")]
    separator: Option<String>,
    /// The key is this field of each line's JSON.
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
    /// To this partition; by key where not said.
    #[arg(long, short)]
    partition: Option<i32>,
    /// A header for every record, as NAME=VALUE; may be given several times.
    #[arg(long, short = 'H', value_name = "NAME=VALUE")]
    header: Vec<String>,
    /// Compression of the batches.
    #[arg(long, value_parser = ["none", "gzip", "snappy", "lz4", "zstd"], default_value = "none")]
    compression: String,
    #[command(flatten)]
    broker: Broker,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    let writer = Writer::new(&arguments.broker, &[("compression.type", &arguments.compression)])?;
    let mut headers = OwnedHeaders::new();
    for header in &arguments.header {
        let (key, value) = header.split_once('=').ok_or_else(|| Failure::usage(format!("--header {header}: write NAME=VALUE")))?;
        headers = headers.insert(Header { key, value: Some(value) });
    }
    if std::io::stdin().is_terminal() {
        output::say(&format!("writing to {}: one record a line, Ctrl-D ends", arguments.topic));
    }
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line?;
        if line.is_empty() {
            continue;
        }
        let number = number + 1;
        let (key, value) = match (&arguments.separator, &arguments.key_field) {
            (Some(separator), _) => match line.split_once(separator.as_str()) {
                Some((key, value)) => (Some(key.to_owned()), value),
                None => return Err(Failure::new(format!("line {number}: no separator \"{separator}\" in it"))),
            },
            (None, Some(field)) => (Some(json_field(&line, field, number)?), line.as_str()),
            (None, None) => (None, line.as_str()),
        };
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&arguments.topic).payload(value.as_bytes()).headers(headers.clone());
        record.partition = arguments.partition;
        record.key = key.as_deref().map(str::as_bytes);
        writer.send(record)?;
    }
    let acknowledged = writer.finish()?;
    output::say(&format!("{acknowledged} records acknowledged"));
    Ok(())
}

fn json_field(line: &str, field: &str, number: usize) -> Result<String, Failure> {
    let value: serde_json::Value = serde_json::from_str(line).map_err(|e| Failure::new(format!("line {number} is not JSON: {e}")))?;
    match value.get(field) {
        Some(serde_json::Value::String(text)) => Ok(text.clone()),
        Some(other) if !other.is_null() => Ok(other.to_string()),
        _ => Err(Failure::new(format!("line {number} has no field \"{field}\""))),
    }
}
