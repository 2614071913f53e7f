//! `bench latency`: from producing a reading to reading what follows from it, at a fixed rate, through the Kafka port.
//!
//! `alert`: until a reader has the alert that a reading raises. `window`: until a reader has a window's result; the time begins
//! when the reading is produced whose time lets the watermark pass the window's end. Each delivery in a node of its own; the syncs of
//! the write-ahead log in the same time stand beside it, since what is durable waits for one or two of them. Readings come at their times,
//! however long anything takes; readers go by `read_committed`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::BaseRecord;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::super::kafka::{Broker, PATIENCE, Writer};
use super::super::{CommandResult, Failure, output};
use super::{report, with_node};
use crate::node::Node;
use crate::stream::Delivery;
use crate::time::Timestamp;

/// How many patients.
const PATIENTS: u64 = 1000;
/// A window's length: short, so that many come to their end.
const WINDOW_MS: i64 = 250;
/// How far the watermark stays behind the latest reading.
const DELAY_MS: i64 = 1000;
/// How often the syncs of the log are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// What has not been read so long after the last reading is not counted.
const AFTER: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(super) struct Latency {
    /// What is waited for.
    #[arg(long, value_enum, default_value = "alert")]
    of: Of,
    /// How often a result may be written: exactly_once, at_least_once; both, one after the other, where it is not said.
    #[arg(long, value_parser = delivery)]
    delivery: Option<Delivery>,
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

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Of {
    /// The alert that a reading raises.
    Alert,
    /// The results of windows of a quarter of a second, of each patient one.
    Window,
}

fn delivery(word: &str) -> Result<Delivery, String> {
    Delivery::of(word).ok_or_else(|| "write exactly_once or at_least_once".to_owned())
}

/// Runs it, for each delivery that is asked for.
pub(super) fn run(latency: &Latency) -> CommandResult {
    let both = [Delivery::ExactlyOnce, Delivery::AtLeastOnce];
    for delivery in both.into_iter().filter(|one| latency.delivery.is_none_or(|asked| asked == *one)) {
        with_node(|node, runtime| measured(node, runtime, latency, delivery))?;
    }
    Ok(())
}

/// When the watermark of a partition was let past a window's end, in microseconds.
type Passed = Arc<Mutex<HashMap<(u64, i64), i64>>>;

fn measured(node: &Arc<Node>, runtime: &Runtime, latency: &Latency, delivery: Delivery) -> CommandResult {
    let sql = |text: &str| runtime.block_on(node.execute(text)).map_err(|e| Failure::new(e.to_string()));
    sql(&format!(
        "CREATE STREAM bench_in (patient_id VARCHAR NOT NULL, spo2 DOUBLE, sent BIGINT, ts TIMESTAMP(3) NOT NULL, \
         WATERMARK FOR ts AS ts - INTERVAL '{}' SECOND) WITH ('partitions' = '{}', 'key' = 'patient_id')",
        DELAY_MS / 1000,
        latency.partitions
    ))?;
    let out = match latency.of {
        Of::Alert => {
            sql(&format!(
                "CREATE ALERT bench_low WITH ('priority' = 'high', 'hold' = '0s', 'clear.hold' = '0s', 'order' = 'arrival', 'delivery' = '{delivery}') AS \
                 SELECT patient_id AS subject, ts, spo2 AS value, spo2 < 88 AS breach, spo2 >= 90 AS clear, sent FROM bench_in"
            ))?;
            "alerts"
        }
        Of::Window => {
            sql(&format!(
                "CREATE QUERY bench_windows WITH ('delivery' = '{delivery}') AS INSERT INTO bench_out \
                 SELECT patient_id, window_end, avg(spo2) AS spo2_avg, count(*) AS n \
                 FROM TABLE(TUMBLE(TABLE bench_in, DESCRIPTOR(ts), INTERVAL '{WINDOW_MS} milliseconds')) GROUP BY patient_id, window_start, window_end"
            ))?;
            "bench_out"
        }
    };
    let broker = Broker::at(node.kafka().to_owned());
    let end = Instant::now() + Duration::from_secs(latency.warm + latency.seconds);
    let from = micros() + latency.warm as i64 * 1_000_000;
    let (passed, partitions) = (Passed::default(), latency.partitions.max(1) as u64);
    let reader = std::thread::spawn({
        let (broker, passed, of) = (broker.clone(), Arc::clone(&passed), latency.of);
        move || read(&broker, out, end + AFTER, |record| since(of, record, &passed, partitions).filter(|began| *began > from))
    });
    let syncs = std::thread::spawn({
        let (node, warm) = (Arc::clone(node), Duration::from_secs(latency.warm));
        move || {
            std::thread::sleep(warm);
            drop(node.recent_syncs());
            // Not so many are kept that one look at the end would do.
            let mut syncs = Vec::new();
            while Instant::now() < end {
                std::thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
                syncs.extend(node.recent_syncs());
            }
            syncs
        }
    });
    let readings = produce(&broker, latency, end, &passed)?;
    let syncs = syncs.join().map_err(|_| Failure::new("the thread that looks at the syncs failed"))?;
    let mut times = reader.join().map_err(|_| Failure::new("the reading thread failed"))??;
    if times.is_empty() {
        return Err(Failure::new("nothing came of the readings"));
    }
    let mut syncs: Vec<i64> = syncs.iter().map(|took| i64::try_from(took.as_micros()).unwrap_or(i64::MAX)).collect();
    let (at, sync) = (Parts::of(&mut times), Parts::of(&mut syncs));
    let (what, results) = match latency.of {
        Of::Alert => ("alert", "alert records, from the reading"),
        Of::Window => ("window", "window results, from the reading that lets the watermark pass the window's end"),
    };
    output::say(&format!(
        "{readings} readings at {} a second, {delivery}, {} {results}: p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms; {} syncs: p50 {:.1} ms, p99 {:.1} ms",
        latency.rate,
        times.len(),
        at.p50,
        at.p99,
        at.p999,
        syncs.len(),
        sync.p50,
        sync.p99
    ));
    report(&json!({
        "bench": "latency", "of": what, "delivery": delivery.as_str(), "rate": latency.rate, "readings": readings, "results": times.len(),
        "p50_ms": at.p50, "p99_ms": at.p99, "p999_ms": at.p999, "max_ms": at.most,
        "syncs": syncs.len(), "sync_p50_ms": sync.p50, "sync_p99_ms": sync.p99, "sync_max_ms": sync.most,
    }))
}

/// Produces readings, each at its time; answers how many.
fn produce(broker: &Broker, latency: &Latency, end: Instant, passed: &Passed) -> Result<u64, Failure> {
    let writer = Writer::new(broker, &[("linger.ms", "1")])?;
    let partitions = latency.partitions.max(1) as u64;
    let mut last_end = vec![i64::MIN; partitions as usize];
    let (begun, mut n) = (Instant::now(), 0_u64);
    while Instant::now() < end {
        let due = (begun.elapsed().as_secs_f64() * latency.rate as f64) as u64;
        while n < due {
            let (now, patient) = (micros(), n % PATIENTS);
            let ts = now / 1000;
            let partition = patient % partitions;
            let ended = (ts - DELAY_MS).div_euclid(WINDOW_MS) * WINDOW_MS;
            if std::mem::replace(&mut last_end[partition as usize], ended) < ended {
                passed.lock().insert((partition, ended), now);
            }
            let low = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58 == 0;
            let key = format!("p{patient}");
            let body = format!("{{\"patient_id\":\"{key}\",\"ts\":{ts},\"spo2\":{},\"sent\":{now}}}", if low { 80 } else { 97 });
            let record: BaseRecord<'_, [u8], [u8]> =
                BaseRecord::to("bench_in").partition(partition as i32).key(key.as_bytes()).payload(body.as_bytes());
            writer.send(record)?;
            n += 1;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    writer.finish()?;
    Ok(n)
}

/// When what a record follows from was produced, in microseconds.
fn since(of: Of, record: &Value, passed: &Passed, partitions: u64) -> Option<i64> {
    match of {
        Of::Alert => record["sent"].as_i64(),
        Of::Window => {
            let patient: u64 = record["patient_id"].as_str()?.strip_prefix('p')?.parse().ok()?;
            let ended = Timestamp::parse(record["window_end"].as_str()?)?;
            passed.lock().get(&(patient % partitions, ended.0)).copied()
        }
    }
}

/// The microseconds until each record was read that `since` has a beginning for.
fn read(broker: &Broker, topic: &str, until: Instant, since: impl Fn(&Value) -> Option<i64>) -> Result<Vec<i64>, Failure> {
    let mut config = broker.client();
    config
        .set("group.id", "bench-latency")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "5");
    let consumer: BaseConsumer = config.create().map_err(|e| broker.failed("could not make a consumer", &e))?;
    let unreadable = |e| broker.failed(&format!("could not read topic {topic}"), &e);
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).map_err(unreadable)?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions) {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)
            .map_err(|e| broker.failed("could not choose partitions", &e))?;
    }
    consumer.assign(&list).map_err(|e| broker.failed("could not choose partitions", &e))?;
    let mut times = Vec::new();
    while Instant::now() < until {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) else { continue };
        let now = micros();
        let record: Value = serde_json::from_slice(message.payload().unwrap_or_default()).unwrap_or_default();
        times.extend(since(&record).map(|began| now - began));
    }
    Ok(times)
}

/// The wall clock, in microseconds.
fn micros() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Some times of many, in milliseconds.
struct Parts {
    p50: f64,
    p99: f64,
    p999: f64,
    most: f64,
}

impl Parts {
    /// Of microseconds, which are put in order; zeroes where there are none.
    fn of(times: &mut [i64]) -> Self {
        times.sort_unstable();
        let at = |part: f64| {
            times.get(((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1))).map_or(0.0, |t| *t as f64 / 1000.0)
        };
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), most: at(1.0) }
    }
}
