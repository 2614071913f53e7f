//! `vitalsql consume`: records to stdout, over the Kafka port.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::kafka::{Broker, PATIENCE};
use super::{CommandResult, Failure, output};
use crate::bus::kafka::bounds_of;
use crate::time::{Timestamp, parse_duration};

/// Records to stdout.
#[derive(Args)]
#[command(after_help = "Examples:\n  vitalsql consume alerts --from-start --limit 10\n  vitalsql consume vitals -o json | jq .value\n  \
                        vitalsql consume vitals --group dashboard          remembers where it was")]
pub struct Arguments {
    /// The topic.
    topic: String,
    /// From the first record that is there, rather than from now on.
    #[arg(long, conflicts_with = "group")]
    from_start: bool,
    /// As a member of this consumer group, which remembers where it was.
    #[arg(long, short)]
    group: Option<String>,
    /// Stop after so many records.
    #[arg(long, short = 'n')]
    limit: Option<u64>,
    /// Stop at what was the end when the command began.
    #[arg(long, short)]
    exit_at_end: bool,
    /// Stop after this long without a record (15s).
    #[arg(long, value_name = "DUR")]
    timeout: Option<String>,
    /// How each record is shown: only its value, or all of it as a JSON object a line.
    #[arg(long, short, value_parser = ["value", "json"], default_value = "value")]
    output: String,
    #[command(flatten)]
    broker: Broker,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    let timeout = arguments.timeout.as_deref().map(parse_duration).transpose().map_err(|e| Failure::usage(e.to_string()))?;
    let mut config = arguments.broker.client();
    config.set("isolation.level", "read_committed").set("fetch.wait.max.ms", "100");
    config.set("enable.partition.eof", if arguments.exit_at_end { "true" } else { "false" });
    config.set("group.id", arguments.group.as_deref().unwrap_or("vitalsql-consume"));
    config.set("enable.auto.commit", if arguments.group.is_some() { "true" } else { "false" }).set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().map_err(|e| arguments.broker.failed("could not make a consumer", &e))?;
    let failed = |what: &str, e: &KafkaError| arguments.broker.failed(what, e);
    let metadata = consumer.fetch_metadata(Some(&arguments.topic), PATIENCE).map_err(|e| failed("could not read the topic", &e))?;
    let partitions: Vec<i32> = metadata
        .topics()
        .first()
        .map(|t| t.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect())
        .unwrap_or_default();
    if partitions.is_empty() {
        return Err(Failure::new(format!("there is no topic \"{}\"; vitalsql topic list shows them", arguments.topic)));
    }
    // Where each partition ended when the command began. Records are not counted: markers of transactions have offsets too, and what
    // was aborted or compacted away is never read.
    let mut ends = BTreeMap::new();
    if arguments.exit_at_end {
        for partition in &partitions {
            let bounds = bounds_of(&consumer, &arguments.topic, *partition, PATIENCE);
            let (low, high) = bounds.map_err(|e| failed("could not read offsets", &e))?;
            if high > low {
                ends.insert(*partition, high);
            }
        }
    }
    if arguments.group.is_some() {
        consumer.subscribe(&[&arguments.topic]).map_err(|e| failed("could not join the group", &e))?;
    } else {
        let begin = if arguments.from_start || arguments.exit_at_end { Offset::Beginning } else { Offset::End };
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            list.add_partition_offset(&arguments.topic, *partition, begin).map_err(|e| failed("could not choose partitions", &e))?;
        }
        consumer.assign(&list).map_err(|e| failed("could not choose partitions", &e))?;
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut count, mut last) = (0_u64, Instant::now());
    loop {
        if arguments.limit.is_some_and(|limit| count >= limit) || (arguments.exit_at_end && ends.is_empty()) {
            break;
        }
        match consumer.poll(Duration::from_millis(100)) {
            None => {
                out.flush()?;
                if timeout.is_some_and(|t| last.elapsed() >= t) {
                    break;
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.remove(&partition);
            }
            Some(Err(error)) => return Err(failed("could not read", &error)),
            Some(Ok(message)) => {
                if arguments.exit_at_end {
                    let (partition, next) = (message.partition(), message.offset() + 1);
                    let Some(end) = ends.get(&partition).copied() else { continue };
                    if next >= end {
                        ends.remove(&partition);
                    }
                    if next > end {
                        continue;
                    }
                }
                (count, last) = (count + 1, Instant::now());
                let written = if arguments.output == "json" { write_json(&mut out, &message) } else { write_value(&mut out, &message) };
                match written {
                    Err(e) if output::is_closed_pipe(&e) => return Ok(()),
                    other => other?,
                }
            }
        }
    }
    out.flush()?;
    Ok(())
}

fn write_value(out: &mut impl Write, message: &impl Message) -> std::io::Result<()> {
    out.write_all(message.payload().unwrap_or_default())?;
    out.write_all(b"\n")
}

fn write_json(out: &mut impl Write, message: &impl Message) -> std::io::Result<()> {
    let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
    let headers: Vec<(String, Option<String>)> =
        message.headers().map(|h| h.iter().map(|h| (h.key.to_owned(), text(h.value))).collect()).unwrap_or_default();
    let record = serde_json::json!({
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp().to_millis().map(|ms| Timestamp(ms).to_string()),
        "key": text(message.key()),
        "value": text(message.payload()),
        "headers": headers,
    });
    serde_json::to_writer(&mut *out, &record)?;
    out.write_all(b"\n")
}
