//! `vitalsql topic`: make, list, describe and delete topics, over the Kafka port.

use std::io::Write;

use clap::{Args, Subcommand};
use rdkafka::admin::{AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::kafka::{Broker, PATIENCE, runtime};
use super::{CommandResult, Failure, output};
use crate::bus::kafka::bounds_of;

/// Topics.
#[derive(Args)]
#[command(after_help = "Examples:\n  vitalsql topic create vitals --partitions 8 --config retention.ms=86400000\n  \
                        vitalsql topic list\n  vitalsql topic describe vitals\n  vitalsql topic delete vitals")]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    broker: Broker,
}

#[derive(Subcommand)]
enum What {
    /// Make a topic.
    Create {
        /// Its name.
        name: String,
        /// How many partitions; the broker's default where not said.
        #[arg(long, short)]
        partitions: Option<i32>,
        /// A topic config, as retention.ms=86400000; may be given several times.
        #[arg(long, short, value_name = "KEY=VALUE")]
        config: Vec<String>,
        /// No error where it exists.
        #[arg(long)]
        if_not_exists: bool,
    },
    /// List topics, their partitions and how many records they hold.
    List {
        /// Also the node's own topics, whose names begin with two underscores.
        #[arg(long)]
        internal: bool,
    },
    /// Show a topic's partitions and configs.
    Describe {
        /// Its name.
        name: String,
    },
    /// Delete topics and all their records.
    Delete {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Runs the command.
pub fn run(arguments: Arguments) -> CommandResult {
    let broker = arguments.broker;
    match arguments.what {
        What::Create { name, partitions, config, if_not_exists } => create(&broker, &name, partitions, &config, if_not_exists),
        What::List { internal } => list(&broker, internal),
        What::Describe { name } => describe(&broker, &name),
        What::Delete { names } => delete(&broker, &names),
    }
}

fn create(broker: &Broker, name: &str, partitions: Option<i32>, configs: &[String], if_not_exists: bool) -> CommandResult {
    let pairs = configs
        .iter()
        .map(|c| c.split_once('=').ok_or_else(|| Failure::usage(format!("--config {c}: write KEY=VALUE, as in retention.ms=86400000"))))
        .collect::<Result<Vec<_>, _>>()?;
    let mut topic = NewTopic::new(name, partitions.unwrap_or(-1), TopicReplication::Fixed(1));
    for (key, value) in &pairs {
        topic = topic.set(key, value);
    }
    let admin = broker.admin()?;
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let made = runtime()?.block_on(admin.create_topics([&topic], &options)).map_err(|e| broker.failed("could not create the topic", &e))?;
    for result in made {
        match result {
            Ok(name) => output::say(&format!("created topic {name}")),
            Err((name, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)) if if_not_exists => {
                output::say(&format!("topic {name} exists"));
            }
            Err((name, code)) => return Err(Failure::new(format!("could not create topic {name}: {code}"))),
        }
    }
    Ok(())
}

fn delete(broker: &Broker, names: &[String]) -> CommandResult {
    let admin = broker.admin()?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let gone = runtime()?.block_on(admin.delete_topics(&names, &options)).map_err(|e| broker.failed("could not delete", &e))?;
    for result in gone {
        match result {
            Ok(name) => output::say(&format!("deleted topic {name}")),
            Err((name, code)) => return Err(Failure::new(format!("could not delete topic {name}: {code}"))),
        }
    }
    Ok(())
}

fn consumer(broker: &Broker) -> Result<BaseConsumer, Failure> {
    broker.client().create().map_err(|e| broker.failed("could not make a client", &e))
}

fn list(broker: &Broker, internal: bool) -> CommandResult {
    let consumer = consumer(broker)?;
    let metadata = consumer.fetch_metadata(None, PATIENCE).map_err(|e| broker.failed("could not list topics", &e))?;
    let mut rows = Vec::new();
    for topic in metadata.topics().iter().filter(|t| internal || !t.name().starts_with("__")) {
        let mut records = 0;
        for partition in topic.partitions() {
            let bounds = bounds_of(&consumer, topic.name(), partition.id(), PATIENCE);
            let (low, high) = bounds.map_err(|e| broker.failed("could not read offsets", &e))?;
            records += high - low;
        }
        rows.push((topic.name().to_owned(), topic.partitions().len(), records));
    }
    rows.sort();
    let wide = rows.iter().map(|(n, ..)| n.len()).max().unwrap_or(0).max(5);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<wide$}  {:>10}  {:>12}", "TOPIC", "PARTITIONS", "RECORDS")?;
    for (name, partitions, records) in rows {
        writeln!(out, "{name:<wide$}  {partitions:>10}  {records:>12}")?;
    }
    Ok(())
}

fn describe(broker: &Broker, name: &str) -> CommandResult {
    let consumer = consumer(broker)?;
    // Asking for a topic by name would make it; the whole list does not.
    let metadata = consumer.fetch_metadata(None, PATIENCE).map_err(|e| broker.failed("could not read the topic", &e))?;
    let topic = metadata
        .topics()
        .iter()
        .find(|t| t.name() == name)
        .ok_or_else(|| Failure::new(format!("there is no topic \"{name}\"; vitalsql topic list shows them")))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:>9}  {:>6}  {:>14}  {:>14}  {:>12}", "PARTITION", "LEADER", "FIRST OFFSET", "NEXT OFFSET", "RECORDS")?;
    for partition in topic.partitions() {
        let bounds = bounds_of(&consumer, name, partition.id(), PATIENCE);
        let (low, high) = bounds.map_err(|e| broker.failed("could not read offsets", &e))?;
        writeln!(out, "{:>9}  {:>6}  {low:>14}  {high:>14}  {:>12}", partition.id(), partition.leader(), high - low)?;
    }
    let admin = broker.admin()?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let configs = runtime()?
        .block_on(admin.describe_configs([&ResourceSpecifier::Topic(name)], &options))
        .map_err(|e| broker.failed("could not read the topic's configs", &e))?;
    writeln!(out)?;
    for resource in configs {
        let resource = resource.map_err(|code| Failure::new(format!("could not read the topic's configs: {code}")))?;
        for entry in resource.entries {
            let mark = if entry.is_default { "" } else { "  (set)" };
            writeln!(out, "{} = {}{mark}", entry.name, entry.value.as_deref().unwrap_or(""))?;
        }
    }
    Ok(())
}
