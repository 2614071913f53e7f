//! `vitalsql bench`: what this machine can do, measured through the doors a user comes through.
//!
//! `produce` and `consume` and `latency` go through the Kafka port; `window`, `over` and `sql` measure the engine over a topic
//! that is already there. Without `--kafka` a node of its own is started in a temporary folder. Each run prints
//! one line of JSON on stdout and a sentence on stderr; figures hold for this machine and this moment only.

mod engine;
mod latency;
mod sql;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::BaseRecord;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::kafka::{Broker, PATIENCE, Writer};
use super::serve::server_runtime;
use super::{CommandResult, Failure, output};
use crate::config::Config;
use crate::metrics::process;
use crate::node::{Node, NodeOptions};
use crate::time::Clock;

/// Measurements.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  vitalsql bench produce                 1 KiB records, acks=all, durable\n  vitalsql bench consume\n  vitalsql bench window                  JSON to 1-minute windows, exactly once\n  vitalsql bench over                    JSON to a frame of 5 minutes behind each reading\n  vitalsql bench sql                     windows, sessions, frames; what more of all costs\n  vitalsql bench latency --rate 10000    from produce to alert, exactly once and at least once\n  vitalsql bench latency --of window --rate 50000"
)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Records in, acknowledged when durable.
    Produce(Load),
    /// Records out, from the first to the last.
    Consume(Load),
    /// A JSON topic to 1-minute tumbling avg, min, max and count of three vitals per patient.
    Window(engine::Window),
    /// A JSON topic to avg, min, max, count and stddev of the 5 minutes before each reading of a patient.
    Over(engine::Window),
    /// Windows, sessions and frames, the state they hold, and what more readings, partitions and patients cost.
    Sql(sql::Sql),
    /// From producing a reading to reading its alert, or a window's result, at a fixed rate.
    Latency(latency::Latency),
}

#[derive(Args)]
struct Load {
    /// How many records.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Bytes a record.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Against this node or Kafka instead of one of its own.
    #[arg(long, value_name = "ADDR")]
    kafka: Option<String>,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> CommandResult {
    output::start_logging("warn");
    match arguments.what {
        What::Produce(load) => with_broker(load.kafka.as_deref(), |broker| produce(broker, &load).and_then(|(result, _)| report(&result))),
        What::Consume(load) => with_broker(load.kafka.as_deref(), |broker| consume(broker, &load)),
        What::Window(window) => with_node(|node, runtime| engine::run(node, runtime, &window, &engine::WINDOWS)),
        What::Over(window) => with_node(|node, runtime| engine::run(node, runtime, &window, &engine::FRAMES)),
        What::Sql(sql) => sql::run(&sql),
        What::Latency(latency) => latency::run(&latency),
    }
}

fn report(result: &Value) -> CommandResult {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{result}")?;
    Ok(())
}

/// A node in a temporary folder, on free ports.
fn with_node<T>(work: impl FnOnce(&Arc<Node>, &tokio::runtime::Runtime) -> Result<T, Failure>) -> Result<T, Failure> {
    let folder = Folder::new()?;
    let flags = [
        ("data_dir", folder.0.to_string_lossy().into_owned()),
        ("kafka.listen", "127.0.0.1:0".to_owned()),
        ("http.listen", "127.0.0.1:0".to_owned()),
    ];
    let config = Config::resolve(&flags, std::iter::empty(), None).map_err(|e| Failure::usage(e.to_string()))?;
    let runtime = server_runtime()?;
    let node = runtime.block_on(Node::start(NodeOptions::new(config, Clock::system()))).map_err(|e| Failure::new(e.to_string()))?;
    let node = Arc::new(node);
    let done = work(&node, &runtime);
    let node = Arc::into_inner(node).expect("the work is over");
    runtime.block_on(node.stop()).map_err(|e| Failure::new(e.to_string()))?;
    done
}

fn with_broker<T>(kafka: Option<&str>, work: impl FnOnce(&Broker) -> Result<T, Failure>) -> Result<T, Failure> {
    match kafka {
        Some(address) => work(&Broker::at(address.to_owned())),
        None => with_node(|node, _| work(&Broker::at(node.kafka().to_owned()))),
    }
}

fn make_topic(broker: &Broker, name: &str, partitions: i32) -> CommandResult {
    use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
    let admin = broker.admin()?;
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let made = super::kafka::runtime()?
        .block_on(admin.create_topics([&topic], &options))
        .map_err(|e| broker.failed("could not create a topic", &e))?;
    made.into_iter()
        .next()
        .map_or(Ok(()), |r| r.map(|_| ()).map_err(|(name, code)| Failure::new(format!("could not create topic {name}: {code}"))))
}

/// Fills a topic; answers the figures and the topic.
fn produce(broker: &Broker, load: &Load) -> Result<(Value, String), Failure> {
    let topic = format!("bench-{}", uuid::Uuid::new_v4().simple());
    make_topic(broker, &topic, load.partitions)?;
    let settings = [
        ("batch.size", "1000000"),
        ("linger.ms", "5"),
        ("queue.buffering.max.kbytes", "262144"),
        ("queue.buffering.max.messages", "1000000"),
        ("partitioner", "random"),
    ];
    let writer = Writer::new(broker, &settings)?;
    // Bytes that no codec would shrink, so that nothing is gained by accident.
    let body: Vec<u8> = (0..load.size as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as u8).collect();
    let (begun, before) = (Instant::now(), process().cpu_seconds);
    for _ in 0..load.records {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&topic).payload(&body);
        writer.send(record)?;
    }
    let acknowledged = writer.finish()?;
    let seconds = begun.elapsed().as_secs_f64();
    let mb = acknowledged as f64 * load.size as f64 / 1e6;
    let cpu = process().cpu_seconds - before;
    output::say(&format!(
        "produced {acknowledged} records of {} bytes, acknowledged when durable: {:.0} MB/s, {:.0} records/s",
        load.size,
        mb / seconds,
        acknowledged as f64 / seconds
    ));
    let result = json!({ "bench": "produce", "records": acknowledged, "size": load.size, "partitions": load.partitions, "seconds": seconds, "mb_per_s": mb / seconds, "records_per_s": acknowledged as f64 / seconds, "cpu_seconds_client_and_node": cpu });
    Ok((result, topic))
}

fn consume(broker: &Broker, load: &Load) -> CommandResult {
    let (_, topic) = produce(broker, load)?;
    let mut config = broker.client();
    config.set("group.id", "bench").set("enable.auto.commit", "false").set("check.crcs", "false");
    config.set("fetch.message.max.bytes", "4194304").set("queued.min.messages", "1000000").set("fetch.max.bytes", "52428800");
    let consumer: BaseConsumer = config.create().map_err(|e| broker.failed("could not make a consumer", &e))?;
    let mut list = TopicPartitionList::new();
    for partition in 0..load.partitions {
        list.add_partition_offset(&topic, partition, Offset::Beginning).map_err(|e| broker.failed("could not choose partitions", &e))?;
    }
    let begun = Instant::now();
    consumer.assign(&list).map_err(|e| broker.failed("could not choose partitions", &e))?;
    let (mut records, mut bytes) = (0_u64, 0_u64);
    while records < load.records {
        match consumer.poll(Duration::from_secs(10)) {
            Some(Ok(message)) => {
                records += 1;
                bytes += message.payload().map_or(0, <[u8]>::len) as u64;
            }
            Some(Err(error)) => return Err(broker.failed("could not read", &error)),
            None => return Err(Failure::new(format!("only {records} of {} records came", load.records))),
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let mb = bytes as f64 / 1e6;
    output::say(&format!(
        "consumed {records} records of {} bytes: {:.0} MB/s, {:.0} records/s",
        load.size,
        mb / seconds,
        records as f64 / seconds
    ));
    report(
        &json!({ "bench": "consume", "records": records, "size": load.size, "partitions": load.partitions, "seconds": seconds, "mb_per_s": mb / seconds, "records_per_s": records as f64 / seconds }),
    )
}

/// A temporary folder, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("vitalsql-bench-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Only a temporary folder is left behind.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
