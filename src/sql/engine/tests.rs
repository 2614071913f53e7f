//! The engine over a real broker on a simulated disk: what a running query does when the ground moves.

mod updates;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;

use super::{Engine, EngineOptions, QueryState, RuleFactory, RuleSpec};
use crate::broker::{Broker, TestDisk};
use crate::bus::{Bus, EmbeddedBus, TopicBatch};
use crate::record::{BatchBuilder, Offset, PartitionId, TopicName, TopicPartition};
use crate::sql::parse::parse_script;
use crate::sql::workspace::Workspace;
use crate::stream::{Delivery, Operator, Sink, Spilling, StreamError};
use crate::time::Clock;

mod delivery;
mod figures;
mod formats;
mod functions;
mod idle;
mod phases;
mod plain_views;
mod replace;
mod savepoints;
mod slips;
mod spill;
mod unstarted;
mod views;
mod watched;

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
        Self::made(broker, tokio::runtime::Handle::current(), None, Clock::system()).await
    }

    async fn by(broker: Arc<Broker>, clock: Clock) -> Self {
        Self::made(broker, tokio::runtime::Handle::current(), None, clock).await
    }

    /// The engine's tasks run there: with it they end, as in a crash.
    async fn on(broker: Arc<Broker>, handle: tokio::runtime::Handle) -> Self {
        Self::made(broker, handle, None, Clock::system()).await
    }

    async fn within(broker: Arc<Broker>, state_max: Option<u64>) -> Self {
        Self::made(broker, tokio::runtime::Handle::current(), state_max, Clock::system()).await
    }

    async fn made(broker: Arc<Broker>, handle: tokio::runtime::Handle, state_max: Option<u64>, clock: Clock) -> Self {
        let bus = Arc::new(EmbeddedBus::new(Arc::clone(&broker)));
        Self::through(broker, bus, handle, state_max, clock).await
    }

    async fn through(broker: Arc<Broker>, bus: Arc<dyn Bus>, handle: tokio::runtime::Handle, state_max: Option<u64>, clock: Clock) -> Self {
        Self::opened(broker, bus, handle, state_max, None, clock).await
    }

    async fn spilling(broker: Arc<Broker>, state_max: Option<u64>, spilling: Spilling) -> Self {
        let bus = Arc::new(EmbeddedBus::new(Arc::clone(&broker)));
        Self::opened(broker, bus, tokio::runtime::Handle::current(), state_max, Some(spilling), Clock::system()).await
    }

    async fn opened(
        broker: Arc<Broker>,
        bus: Arc<dyn Bus>,
        handle: tokio::runtime::Handle,
        state_max: Option<u64>,
        spilling: Option<Spilling>,
        clock: Clock,
    ) -> Self {
        let options = EngineOptions {
            commit_interval: Duration::from_millis(10),
            snapshot_interval: Duration::from_secs(30),
            default_partitions: 1,
            topic_configs: BTreeMap::new(),
            workspace: Workspace::open(64 << 20, None).unwrap(),
            state_max,
            spilling,
            delivery: Delivery::ExactlyOnce,
        };
        let engine = Engine::open(Arc::clone(&bus), Arc::new(NoRules), clock, handle, options).await.unwrap();
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

    /// The same, each row under the key that its field `p` says.
    async fn write_keyed(&self, name: &str, partition: i32, rows: &[String]) {
        let mut records = BatchBuilder::new();
        for row in rows {
            let key = row.split('"').nth(3).unwrap();
            records.push(0, Some(key.as_bytes()), Some(row.as_bytes()), &[]);
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
            let status = self.engine.status_of(name).await.unwrap();
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

const WARD: &str = "
    CREATE STREAM vit (p VARCHAR NOT NULL, hr BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
        WITH ('topic' = 'vit', 'partitions' = '2', 'key' = 'p', 'late.topic' = 'vit.late', 'watermark.idle-timeout' = '1h');
    CREATE STREAM lab (p VARCHAR NOT NULL, k DOUBLE, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '3' SECOND)
        WITH ('topic' = 'lab', 'partitions' = '2', 'key' = 'p', 'watermark.idle-timeout' = '1h');
    CREATE TABLE bed (p VARCHAR, bed VARCHAR, since TIMESTAMP(3), WATERMARK FOR since AS since, PRIMARY KEY (p) NOT ENFORCED)
        WITH ('topic' = 'bed', 'partitions' = '1', 'format' = 'json', 'watermark.idle-timeout' = '1h');";

/// Queries over the ward, each as it is asked of what is stored.
const JOINS: [(&str, &str); 5] = [
    ("near", "SELECT v.p, v.ts, v.hr, l.ts AS l_ts, l.k FROM vit v JOIN lab l ON v.p = l.p AND l.ts BETWEEN v.ts - INTERVAL '4' SECOND AND v.ts + INTERVAL '1' SECOND"),
    ("far", "SELECT v.p, v.ts, l.ts AS l_ts, l.k FROM vit v FULL JOIN lab l ON v.p = l.p AND v.ts = l.ts AND l.k > 3"),
    ("last", "SELECT v.p, v.ts, l.ts AS l_ts FROM vit v ASOF LEFT JOIN lab l MATCH_CONDITION (v.ts >= l.ts) ON v.p = l.p"),
    ("bedside", "SELECT v.p, v.ts, b.bed FROM vit v LEFT JOIN bed FOR SYSTEM_TIME AS OF v.ts AS b ON v.p = b.p"),
    (
        "both",
        "SELECT a.p, a.window_start, a.n, b.n AS labs FROM
         (SELECT p, window_start, window_end, count(*) AS n FROM TABLE(TUMBLE(TABLE vit, DESCRIPTOR(ts), INTERVAL '5' SECOND)) GROUP BY p, window_start, window_end) a
         LEFT JOIN (SELECT p, window_start, window_end, count(*) AS n FROM TABLE(TUMBLE(TABLE lab, DESCRIPTOR(ts), INTERVAL '5' SECOND)) GROUP BY p, window_start, window_end) b
         ON a.p = b.p AND a.window_start = b.window_start AND a.window_end = b.window_end",
    ),
];

/// What a SELECT over stored data answers, as JSON lines in order.
async fn stored(engine: &Arc<Engine>, sql: &str) -> Vec<String> {
    let parsed = parse_script(sql).unwrap().remove(0);
    let outcome = engine.run(parsed).await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
    let super::Outcome::Stream { mut rows_rx, .. } = outcome else { panic!("{sql} gives no rows") };
    let mut lines = Vec::new();
    while let Some(batch) = rows_rx.recv().await {
        let batch = batch.unwrap();
        let encoded = crate::format::JsonEncoder::new(batch.schema()).encode(&batch);
        lines.extend((0..batch.num_rows()).map(|row| String::from_utf8(encoded.row(row).unwrap().to_vec()).unwrap()));
    }
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_say_what_their_batch_says_through_any_number_of_restarts() {
    use rand::{Rng, SeedableRng};
    for seed in 0..3 {
        let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let queries = JOINS.map(|(name, select)| format!("CREATE QUERY {name} AS INSERT INTO {name}_out {select};"));
        let mut bench = Bench::new(&format!("{WARD} {}", queries.concat())).await;
        let begin = 1_767_225_600_000;
        let time = |ms: i64| crate::time::Timestamp(begin + ms).to_string();
        let mut now = 0;
        for _ in 0..60 {
            now += chance.random_range(0..900);
            let (name, count) = if chance.random_bool(0.6) { ("vit", 4) } else { ("lab", 2) };
            let partition = chance.random_range(0..2);
            let mut rows = Vec::new();
            for _ in 0..chance.random_range(1..=count) {
                // Of each partition its own patients; some readings come too late.
                let p = ["ann", "bob", "cleo", "dan"][partition as usize * 2 + chance.random_range(0..2_usize)];
                let ts = time(now - chance.random_range(0..5_000));
                let value = chance.random_range(1..6);
                rows.push(match name {
                    "vit" => format!(r#"{{"p":"{p}","hr":{value},"ts":"{ts}"}}"#),
                    _ => format!(r#"{{"p":"{p}","k":{value}.5,"ts":"{ts}"}}"#),
                });
            }
            bench.write_keyed(name, partition, &rows).await;
            if chance.random_bool(0.2) {
                let p = ["ann", "bob", "cleo", "dan"][chance.random_range(0..4_usize)];
                let row = format!(r#"{{"p":"{p}","bed":"b{}","since":"{}"}}"#, chance.random_range(0..9), time(now - 1000));
                let mut records = BatchBuilder::new();
                let gone = chance.random_bool(0.3);
                records.push(begin + now, Some(p.as_bytes()), (!gone).then_some(row.as_bytes()), &[]);
                let to = TopicPartition::new(topic("bed"), PartitionId(0));
                bench.bus.append(vec![TopicBatch { to, records }]).await.unwrap();
            }
            if chance.random_bool(0.1) {
                bench.engine.close().await;
                bench = Bench::over(Arc::clone(&bench.broker)).await;
            }
        }
        // Far later rows let everything out that is asked about.
        let end = time((now / 5000 + 720) * 5000);
        for partition in 0..2 {
            let p = ["ann", "cleo"][partition as usize];
            bench.write_keyed("vit", partition, &[format!(r#"{{"p":"{p}","hr":0,"ts":"{end}"}}"#)]).await;
            bench.write_keyed("lab", partition, &[format!(r#"{{"p":"{p}","k":0,"ts":"{end}"}}"#)]).await;
        }
        let mut records = BatchBuilder::new();
        let row = format!(r#"{{"p":"zoe","bed":"b0","since":"{end}"}}"#);
        records.push(0, Some(b"zoe"), Some(row.as_bytes()), &[]);
        let to = TopicPartition::new(topic("bed"), PartitionId(0));
        bench.bus.append(vec![TopicBatch { to, records }]).await.unwrap();
        for (name, select) in JOINS {
            let is_past = |line: &String| !line.contains(&end);
            let expected: Vec<String> = stored(&bench.engine, &format!("{select};")).await.into_iter().filter(is_past).collect();
            assert!(expected.len() > 10, "{name} finds {expected:?}");
            let mut found = bench.values(&format!("{name}_out"), expected.len()).await;
            found.retain(is_past);
            assert_eq!(found, expected, "{name}, seed {seed}");
        }
        let late = bench.values("vit.late", 1).await;
        assert!(late.iter().all(|row| row.contains("\"hr\"")), "a late reading goes as it came: {late:?}");
        bench.engine.close().await;
    }
}
