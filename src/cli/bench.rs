//! `vitalsql bench`: what this machine can do, measured through the doors a user comes through.
//!
//! `produce` and `consume` and `latency` go through the Kafka port; `window`, `over` and `sql` measure the engine over a topic
//! that is already there. Without `--kafka` a node of its own is started in a temporary folder. Each run prints
//! one line of JSON on stdout and a sentence on stderr; figures hold for this machine and this moment only.

mod engine;
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
    after_help = "Examples:\n  vitalsql bench produce                 1 KiB records, acks=all, durable\n  vitalsql bench consume\n  vitalsql bench window                  JSON to 1-minute windows, exactly once\n  vitalsql bench over                    JSON to a frame of 5 minutes behind each reading\n  vitalsql bench sql                     windows, sessions, frames; what more of all costs\n  vitalsql bench latency --rate 10000    from produce to alert"
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
    /// From producing a reading to reading its alert, at a fixed rate.
    Latency(Latency),
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

#[derive(Args)]
struct Latency {
    /// Readings a second.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds before that.
    #[arg(long, default_value_t = 5)]
    warm: u64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 4)]
    partitions: i32,
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
        What::Latency(latency) => with_node(|node, runtime| latency_run(node, runtime, &latency)),
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

fn latency_run(node: &Arc<Node>, runtime: &tokio::runtime::Runtime, latency: &Latency) -> CommandResult {
    let sql = |text: &str| runtime.block_on(node.execute(text)).map_err(|e| Failure::new(e.to_string()));
    sql(&format!(
        "CREATE STREAM bench_in (patient_id VARCHAR NOT NULL, spo2 DOUBLE, sent BIGINT, ts TIMESTAMP(3) NOT NULL, \
         WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH ('partitions' = '{}', 'key' = 'patient_id')",
        latency.partitions
    ))?;
    sql("CREATE ALERT bench_low WITH ('priority' = 'high', 'hold' = '0s', 'clear.hold' = '0s', 'order' = 'arrival') AS \
         SELECT patient_id AS subject, ts, spo2 AS value, spo2 < 88 AS breach, spo2 >= 90 AS clear, sent FROM bench_in")?;
    let broker = Broker::at(node.kafka().to_owned());
    let end = Instant::now() + Duration::from_secs(latency.warm + latency.seconds);
    let from = Clock::system().now().0 + latency.warm as i64 * 1000;
    let reader = std::thread::spawn({
        let broker = broker.clone();
        move || read_alerts(&broker, end + Duration::from_secs(2), from)
    });
    let writer = Writer::new(&broker, &[("linger.ms", "1")])?;
    let (begun, mut n) = (Instant::now(), 0_u64);
    while Instant::now() < end {
        let due = (begun.elapsed().as_secs_f64() * latency.rate as f64) as u64;
        while n < due {
            let now = Clock::system().now().0;
            let low = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58 == 0;
            let key = format!("p{}", n % 1000);
            let body = format!("{{\"patient_id\":\"{key}\",\"ts\":{now},\"spo2\":{},\"sent\":{now}}}", if low { 80 } else { 97 });
            let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("bench_in").key(key.as_bytes()).payload(body.as_bytes());
            writer.send(record)?;
            n += 1;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    writer.finish()?;
    let mut times = reader.join().map_err(|_| Failure::new("the reading thread failed"))??;
    times.sort_unstable();
    if times.is_empty() {
        return Err(Failure::new("no alert came"));
    }
    let at = |part: f64| times[((times.len() as f64 * part) as usize).min(times.len() - 1)];
    output::say(&format!(
        "{n} readings at {} a second, {} alert records: p50 {} ms, p99 {} ms, p99.9 {} ms",
        latency.rate,
        times.len(),
        at(0.5),
        at(0.99),
        at(0.999)
    ));
    report(
        &json!({ "bench": "latency", "rate": latency.rate, "readings": n, "alerts": times.len(), "p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999), "max_ms": times[times.len() - 1] }),
    )
}

/// The milliseconds from `sent` to being read, of each alert record sent after `from`.
fn read_alerts(broker: &Broker, until: Instant, from: i64) -> Result<Vec<i64>, Failure> {
    let mut config = broker.client();
    config
        .set("group.id", "bench-alerts")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "5");
    let consumer: BaseConsumer = config.create().map_err(|e| broker.failed("could not make a consumer", &e))?;
    let metadata = consumer.fetch_metadata(Some("alerts"), PATIENCE).map_err(|e| broker.failed("could not read topic alerts", &e))?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions) {
        list.add_partition_offset("alerts", partition.id(), Offset::End).map_err(|e| broker.failed("could not choose partitions", &e))?;
    }
    consumer.assign(&list).map_err(|e| broker.failed("could not choose partitions", &e))?;
    let mut times = Vec::new();
    while Instant::now() < until {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) else { continue };
        let now = Clock::system().now().0;
        let record: Value = serde_json::from_slice(message.payload().unwrap_or_default()).unwrap_or_default();
        if let Some(sent) = record["sent"].as_i64().filter(|sent| *sent > from) {
            times.push(now - sent);
        }
    }
    Ok(times)
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
