//! The engine over a real broker on a simulated disk: what a running query does when the ground moves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;

use super::{Engine, EngineOptions, QueryState, RuleFactory, RuleSpec};
use crate::broker::{Broker, TestDisk};
use crate::bus::{Bus, EmbeddedBus, TopicBatch};
use crate::record::{BatchBuilder, Offset, PartitionId, TopicName, TopicPartition};
use crate::sql::parse::parse_script;
use crate::stream::{Operator, Sink, StreamError};
use crate::time::Clock;

/// What has not come by then will not.
const DEADLINE: Duration = Duration::from_secs(20);

/// Rules are the alarm desk's; here are none.
struct NoRules;

impl RuleFactory for NoRules {
    fn check(&self, _: &SchemaRef) -> Result<(), String> {
        Err("there are no rules here".to_owned())
    }
    fn operator(&self, _: &RuleSpec, _: &SchemaRef) -> Result<Box<dyn Operator>, StreamError> {
        Err(StreamError::Limit("there are no rules here".to_owned()))
    }
    fn sink(&self, _: &RuleSpec) -> Box<dyn Sink> {
        unreachable!("check refuses every rule")
    }
    fn topic(&self) -> TopicName {
        topic("alerts")
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

struct Bench {
    broker: Arc<Broker>,
    bus: Arc<dyn Bus>,
    engine: Arc<Engine>,
}

impl Bench {
    async fn new(script: &str) -> Self {
        let broker = TestDisk::default().broker().await;
        let bench = Self::over(broker).await;
        for parsed in parse_script(script).unwrap() {
            if let Err(error) = bench.engine.run(parsed).await {
                panic!("{}", error.render(script));
            }
        }
        bench
    }

    async fn over(broker: Arc<Broker>) -> Self {
        let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::new(Arc::clone(&broker)));
        let options = EngineOptions {
            commit_interval: Duration::from_millis(10),
            snapshot_interval: Duration::from_secs(30),
            default_partitions: 1,
            topic_configs: BTreeMap::new(),
        };
        let handle = tokio::runtime::Handle::current();
        let engine = Engine::open(Arc::clone(&bus), Arc::new(NoRules), Clock::system(), handle, options).await.unwrap();
        Self { broker, bus, engine }
    }

    async fn write(&self, name: &str, partition: i32, rows: &[&str]) {
        let mut records = BatchBuilder::new();
        for row in rows {
            records.push(0, None, Some(row.as_bytes()), &[]);
        }
        let to = TopicPartition::new(topic(name), PartitionId(partition));
        self.bus.append(vec![TopicBatch { to, records }]).await.unwrap();
    }

    /// Every value of a topic, once there are so many.
    async fn values(&self, name: &str, wanted: usize) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let mut all = Vec::new();
            for partition in 0..self.bus.partitions(&topic(name)).await.unwrap().unwrap_or(0) {
                let of = TopicPartition::new(topic(name), PartitionId(partition));
                let mut reader = self.bus.open(&of, Offset::ZERO).await.unwrap();
                loop {
                    let batches = reader.poll(1 << 20).await.unwrap();
                    if batches.is_empty() {
                        break;
                    }
                    for batch in batches {
                        all.extend(
                            batch.records().unwrap().iter().map(|r| String::from_utf8_lossy(r.unwrap().value.unwrap()).into_owned()),
                        );
                    }
                }
            }
            if all.len() >= wanted {
                all.sort();
                return all;
            }
            if begun.elapsed() > DEADLINE {
                panic!("{name} holds {all:?}; {:?}", self.engine.statuses().await);
            }
            tokio::task::yield_now().await;
        }
    }

    /// The error of a query, once it has failed.
    async fn failure(&self, name: &str) -> String {
        let begun = Instant::now();
        loop {
            let status = self.engine.statuses().await.into_iter().find(|q| q.name == name).unwrap();
            if status.state == QueryState::Failed {
                return status.error.unwrap_or_default();
            }
            if begun.elapsed() > DEADLINE {
                panic!("{name} does not fail: {status:?}");
            }
            tokio::task::yield_now().await;
        }
    }
}

const STREAM: &str = "CREATE STREAM v (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
    WITH ('topic' = 'v', 'partitions' = '1', 'bad-records' = 'fail');";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_bad_records_fail_what_stands_before_is_written_and_nothing_goes_past_it() {
    let bench = Bench::new(&format!("{STREAM} CREATE QUERY q AS INSERT INTO o SELECT p, x FROM v;")).await;
    let row = |x: i32| format!(r#"{{"p":"a","x":{x},"ts":"2026-01-01T00:00:00Z"}}"#);
    bench.write("v", 0, &[&row(1), &row(2), r#"{"p":"a","x":"many"}"#, &row(3)]).await;
    let error = bench.failure("q").await;
    assert!(error.contains("record 2 of v-0") && error.contains("'bad-records' = 'fail'"), "{error}");
    assert!(!error.contains("many"), "the reason must not show the value: {error}");
    assert_eq!(bench.values("o", 2).await, [r#"{"p":"a","x":1}"#, r#"{"p":"a","x":2}"#]);
    // Whoever decides to go past it says so, and the rest is read.
    let skip = STREAM.replace("CREATE STREAM", "CREATE OR REPLACE STREAM").replace("'fail'", "'skip'");
    for parsed in parse_script(&skip).unwrap() {
        bench.engine.run(parsed).await.map(drop).unwrap();
    }
    assert_eq!(bench.values("o", 3).await.last().unwrap(), r#"{"p":"a","x":3}"#);
}

/// A reading of patient `p`, so many seconds ahead of the clock.
fn ahead(p: &str, seconds: i64) -> String {
    format!(r#"{{"p":"{p}","x":1,"ts":"{}"}}"#, Clock::system().now().plus(seconds * 1000))
}

const CLOCKED: &str = "CREATE STREAM c (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
    WITH ('topic' = 'c', 'partitions' = '1');";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sensor_whose_last_reading_was_ahead_of_the_clock_is_missed_all_the_same() {
    let silent = "CREATE QUERY s AS INSERT INTO o SELECT p FROM TABLE(ABSENT(TABLE c PARTITION BY p, DESCRIPTOR(ts), INTERVAL '1' SECOND))
        EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '1' SECOND;";
    let bench = Bench::new(&format!("{CLOCKED} {silent}")).await;
    bench.write("c", 0, &[&ahead("a", 0), &ahead("a", 3600)]).await;
    assert_eq!(bench.values("o", 1).await, [r#"{"p":"a"}"#]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_that_are_all_ahead_of_the_clock_do_not_keep_the_clock_from_closing_windows() {
    let counts = "CREATE QUERY w AS INSERT INTO o SELECT p, count(*) AS n FROM TABLE(TUMBLE(TABLE c, DESCRIPTOR(ts), INTERVAL '1' SECOND))
        GROUP BY p, window_start, window_end EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '1' SECOND;";
    let bench = Arc::new(Bench::new(&format!("{CLOCKED} {counts}")).await);
    bench.write("c", 0, &[&ahead("right", 0)]).await;
    let noise = Arc::clone(&bench);
    let noise = tokio::spawn(async move {
        loop {
            noise.write("c", 0, &[&ahead("wrong", 3600)]).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(bench.values("o", 1).await, [r#"{"p":"right","n":1}"#]);
    noise.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_grows_is_read_on_by_who_keeps_no_keys_and_fails_who_does() {
    let stream = STREAM.replace("'bad-records' = 'fail'", "'key' = 'p'").replace("'partitions' = '1'", "'partitions' = '2'");
    let script = format!(
        "{stream} CREATE QUERY plain AS INSERT INTO o SELECT x FROM v;
         CREATE QUERY merged AS INSERT INTO m SELECT count(*) AS n, window_end FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
             GROUP BY window_start, window_end EMIT ON WINDOW CLOSE;
         CREATE QUERY keyed AS INSERT INTO k SELECT p, LAG(x) OVER (PARTITION BY p ORDER BY ts) AS was FROM v;"
    );
    let bench = Bench::new(&script).await;
    let keyed = |key: &str, minute: i32, x: i32| {
        let mut records = BatchBuilder::new();
        let row = format!(r#"{{"p":"{key}","x":{x},"ts":"2026-01-01T00:0{minute}:00Z"}}"#);
        records.push(0, Some(key.as_bytes()), Some(row.as_bytes()), &[]);
        records
    };
    let put = |partition: i32, records: BatchBuilder| {
        let bench = &bench;
        async move {
            let to = TopicPartition::new(topic("v"), PartitionId(partition));
            bench.bus.append(vec![TopicBatch { to, records }]).await.unwrap();
        }
    };
    put(0, keyed("a", 0, 1)).await;
    assert_eq!(bench.values("o", 1).await, [r#"{"x":1}"#]);
    bench.broker.create_partitions(&topic("v"), 3).await.unwrap();
    put(2, keyed("b", 0, 2)).await;
    bench.engine.follow_growth().await;
    let error = bench.failure("keyed").await;
    assert!(error.contains("\"v\" has 3 partitions and had 2"), "{error}");
    assert_eq!(bench.values("o", 2).await, [r#"{"x":1}"#, r#"{"x":2}"#]);
    put(0, keyed("a", 2, 3)).await;
    put(1, keyed("c", 2, 4)).await;
    put(2, keyed("b", 2, 4)).await;
    let counts = bench.values("m", 1).await;
    assert!(counts[0].starts_with(r#"{"n":2,"#), "{counts:?}");
    // A restart sees it in the same way.
    bench.engine.close().await;
    let again = Bench::over(Arc::clone(&bench.broker)).await;
    assert!(again.failure("keyed").await.contains("had 2"));
    put(2, keyed("b", 2, 5)).await;
    assert_eq!(again.values("o", 6).await.len(), 6);
    // Looking twice changes nothing.
    again.engine.follow_growth().await;
    assert_eq!(again.values("o", 6).await.len(), 6);
}
