//! The shipped queries against their fixtures: what goes in, what must come out, also through a restart.
//!
//! `queries/fixtures/NAME.input.ndjson` is written to the topic the query reads, in the order of its lines, and
//! what the query wrote must equal `NAME.expected.ndjson`: a line a record, `{"key": .., "value": ..}`, in order of
//! the key, each key's records in the order they were written. `UPDATE_EXPECT=1 cargo test queries` writes those
//! files anew; read what changed before keeping it.
//!
//! Fixtures lie in the past, so that every window ends by TIMEOUT once the input is read. A node whose clock
//! runs fast comes there in a fraction of a second; one whose clock all but stands never does, which is how
//! the halves of the restart test cannot be torn apart by it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vitalsql::bus::Bus;
use vitalsql::config::Config;
use vitalsql::node::{Node, NodeOptions};
use vitalsql::record::{PartitionId, TopicName, TopicPartition};
use vitalsql::sql::Outcome;
use vitalsql::time::{Clock, Timestamp};

/// Ten seconds of TIMEOUT pass in a fifth of a second.
const FAST: f64 = 50.0;
/// Ten seconds of TIMEOUT pass in three hours.
const STANDING: f64 = 0.001;
/// A query that has not come to its end by then will not.
const DEADLINE: Duration = Duration::from_secs(30);
/// Nothing new for this long, with everything there that is expected: it is settled.
const SETTLED: Duration = Duration::from_millis(700);
/// The same where it is not known how much is expected.
const SETTLED_UNKNOWN: Duration = Duration::from_secs(4);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("queries")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn updates() -> bool {
    std::env::var("UPDATE_EXPECT").is_ok_and(|v| v == "1")
}

/// A node of its own over a folder.
pub(super) async fn start_node(dir: &Path, clock: Clock) -> Node {
    start_node_with(dir, clock, &[]).await
}

pub(super) async fn start_node_with(dir: &Path, clock: Clock, more: &[(&'static str, &str)]) -> Node {
    let mut flags = vec![
        ("data_dir", dir.display().to_string()),
        ("kafka.listen", "127.0.0.1:0".to_owned()),
        ("http.listen", "127.0.0.1:0".to_owned()),
        ("log.min_free_bytes", "0".to_owned()),
    ];
    flags.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
    let config = Config::resolve(&flags, std::iter::empty(), None).expect("settings that fit");
    Node::start(NodeOptions::new(config, clock)).await.expect("a node starts")
}

/// A shipped query with its fixture.
struct Case {
    name: &'static str,
    sql: String,
    reads: &'static str,
    writes: &'static str,
    input: Vec<(Timestamp, String, Vec<u8>)>,
    expected_file: PathBuf,
}

impl Case {
    fn load(name: &'static str) -> Self {
        let sql = read(&folder().join(format!("{name}.sql")));
        let (reads, key, time) = if name == "alarm_burden" { ("alerts", "subject", "recorded_at") } else { ("vitals", "patient_id", "ts") };
        let writes = if sql.contains("CREATE ALERT") { "alerts" } else { name };
        let fixture = folder().join(format!("fixtures/{name}.input.ndjson"));
        let lines = read(&fixture);
        let input = lines.lines().enumerate().map(|(at, line)| {
            let row: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{}:{}: {e}", fixture.display(), at + 1));
            let text = |column: &str| row[column].as_str().unwrap_or_else(|| panic!("{}:{}: no {column}", fixture.display(), at + 1));
            let time = Timestamp::parse(text(time)).unwrap_or_else(|| panic!("{}:{}: {time} is no time", fixture.display(), at + 1));
            (time, text(key).to_owned(), line.as_bytes().to_vec())
        });
        let input = input.collect();
        Self { name, sql, reads, writes, input, expected_file: folder().join(format!("fixtures/{name}.expected.ndjson")) }
    }

    fn expected(&self) -> Vec<Value> {
        read(&self.expected_file).lines().map(|line| serde_json::from_str(line).expect("an expected line is JSON")).collect()
    }

    async fn start(dir: &Path, speed: f64) -> Node {
        start_node(dir, Clock::running(speed)).await
    }

    async fn create(&self, node: &Node) {
        for text in [&read(&folder().join("00_streams.sql")), &self.sql] {
            if let Err(error) = node.execute(text).await {
                panic!("{}: {}", self.name, error.render(text));
            }
        }
    }

    /// Waits until the query has read this many rows since the node started.
    async fn wait_read(&self, node: &Node, rows: usize) {
        let end = Instant::now() + DEADLINE;
        while node.rows_read(self.name).await < rows as u64 {
            if Instant::now() >= end {
                panic!("{}: {} of {rows} rows are read\n{}", self.name, node.rows_read(self.name).await, how_it_is(node).await);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it wrote, once that is `wanted` records and no more come; without `wanted`, once no more come for long.
    async fn wait_settled(&self, node: &Node, wanted: Option<usize>) -> Vec<Value> {
        let end = Instant::now() + DEADLINE;
        let (mut seen, mut since) = (0, Instant::now());
        let patience = if wanted.is_some() { SETTLED } else { SETTLED_UNKNOWN };
        loop {
            let count = self.written(node).await;
            if count != seen {
                (seen, since) = (count, Instant::now());
            }
            let settled = since.elapsed() >= patience && wanted.is_none_or(|wanted| count >= wanted);
            if settled || Instant::now() >= end {
                return self.records(node).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn places(&self, node: &Node) -> Vec<TopicPartition> {
        let topic = TopicName::new(self.writes).expect("a name");
        let count = node.bus().partitions(&topic).await.expect("topics can be asked").unwrap_or(0);
        (0..count).map(|p| TopicPartition::new(topic.clone(), PartitionId(p))).collect()
    }

    async fn written(&self, node: &Node) -> usize {
        let mut count = 0;
        for place in self.places(node).await {
            let bounds = node.bus().bounds(&place).await.expect("bounds");
            count += usize::try_from(bounds.end.0 - bounds.start.0).expect("an end is not before its start");
        }
        count
    }

    async fn records(&self, node: &Node) -> Vec<Value> {
        let bus = node.bus();
        let mut by_key: BTreeMap<Option<String>, Vec<Value>> = BTreeMap::new();
        for place in self.places(node).await {
            read_partition(bus.as_ref(), &place, &mut by_key).await;
        }
        let lines = by_key.into_iter().flat_map(|(key, values)| values.into_iter().map(move |value| json!({"key": key, "value": value})));
        lines
            .map(|mut line| {
                if self.writes == "alerts" {
                    // The node's clock has these; all else is the readings'.
                    line["value"]["recorded_at"] = json!("");
                    line["value"]["stale"] = json!(false);
                }
                line
            })
            .collect()
    }

    fn compare(&self, found: &[Value]) {
        let expected = self.expected();
        let mut wrong = Vec::new();
        for at in 0..expected.len().max(found.len()) {
            let (want, have) = (expected.get(at), found.get(at));
            if !want.zip(have).is_some_and(|(want, have)| same(want, have)) {
                let show = |line: Option<&Value>| line.map_or_else(|| "nothing".to_owned(), Value::to_string);
                wrong.push(format!("line {}\n  expected {}\n  found    {}", at + 1, show(want), show(have)));
            }
        }
        wrong.truncate(5);
        assert!(
            wrong.is_empty(),
            "{}: {} records were expected and {} found; {} is not met:\n{}",
            self.name,
            expected.len(),
            found.len(),
            self.expected_file.display(),
            wrong.join("\n")
        );
    }
}

/// What the node says of its queries and alerts, for a test that waits in vain.
async fn how_it_is(node: &Node) -> String {
    let mut said = Vec::new();
    for question in ["SHOW QUERIES", "SHOW ALERTS"] {
        said.push(match node.execute(question).await {
            Ok(Some(Outcome::Rows { batches, .. })) => {
                arrow::util::pretty::pretty_format_batches(&batches).map_or_else(|e| e.to_string(), |t| t.to_string())
            }
            Ok(_) => String::new(),
            Err(error) => error.render(question),
        });
    }
    said.join("\n")
}

async fn read_partition(bus: &dyn Bus, place: &TopicPartition, by_key: &mut BTreeMap<Option<String>, Vec<Value>>) {
    let bounds = bus.bounds(place).await.expect("bounds");
    let mut reader = bus.open(place, bounds.start).await.expect("a reader");
    while reader.position() < bounds.end {
        for batch in reader.poll(1 << 20).await.expect("batches") {
            for record in batch.records().expect("records").iter() {
                let record = record.expect("a record");
                let key = record.key.map(|key| String::from_utf8(key.to_vec()).expect("keys are text"));
                let value = serde_json::from_slice(record.value.expect("results have values")).expect("results are JSON");
                by_key.entry(key).or_default().push(value);
            }
        }
    }
}

/// Equal, numbers to one part in a thousand million: what is summed may be summed in another order.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            let (x, y) = (x.as_f64().unwrap_or(f64::NAN), y.as_f64().unwrap_or(f64::NAN));
            (x - y).abs() <= 1e-9 * x.abs().max(y.abs()).max(1.0)
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => x.len() == y.len() && x.iter().all(|(name, x)| y.get(name).is_some_and(|y| same(x, y))),
        _ => a == b,
    }
}

fn run(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(story);
}

async fn one_go(name: &'static str) {
    let case = Case::load(name);
    let dir = tempfile::tempdir().expect("a folder");
    let node = Case::start(dir.path(), FAST).await;
    case.create(&node).await;
    node.write_simulated(case.reads, case.input.clone()).await.expect("the fixture is written");
    case.wait_read(&node, case.input.len()).await;
    let wanted = (!updates()).then(|| case.expected().len());
    let found = case.wait_settled(&node, wanted).await;
    node.stop().await.expect("a node stops");
    if updates() {
        let text: String = found.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&case.expected_file, text).expect("the expected file is written");
    }
    case.compare(&found);
}

async fn two_halves(name: &'static str) {
    if updates() {
        // The other test is writing what this one would read.
        return;
    }
    let case = Case::load(name);
    let dir = tempfile::tempdir().expect("a folder");
    let (first, second) = case.input.split_at(case.input.len() / 2);
    let node = Case::start(dir.path(), STANDING).await;
    case.create(&node).await;
    node.write_simulated(case.reads, first.to_vec()).await.expect("the first half is written");
    case.wait_read(&node, first.len()).await;
    node.stop().await.expect("a node stops");
    // The query is in the catalogue, its position and state in its checkpoint.
    let node = Case::start(dir.path(), STANDING).await;
    node.write_simulated(case.reads, second.to_vec()).await.expect("the second half is written");
    case.wait_read(&node, second.len()).await;
    node.stop().await.expect("a node stops");
    let node = Case::start(dir.path(), FAST).await;
    let found = case.wait_settled(&node, Some(case.expected().len())).await;
    node.stop().await.expect("a node stops");
    case.compare(&found);
}

/// Each query, and the two tests of each.
macro_rules! shipped {
    ($($name:ident),* $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(mod $name {
            #[test]
            fn writes_what_its_fixture_expects() {
                super::run(super::one_go(stringify!($name)));
            }

            #[test]
            fn writes_the_same_through_a_restart() {
                super::run(super::two_halves(stringify!($name)));
            }
        })*
    };
}

shipped!(
    alarm_burden,
    data_quality_hourly,
    desaturation_tachycardia,
    fever,
    hypotension_burden,
    hypotension_map65,
    missing_signal,
    news2_rolling,
    shock_index_trend,
    spo2_low_sustained,
    sustained_tachycardia,
    vitals_1m,
    ward_occupancy,
);

fn names_in(dir: &Path, suffix: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).expect("the folder can be read");
    let names = entries.map(|e| e.expect("an entry").file_name().into_string().expect("names are text"));
    names.filter_map(|name| name.strip_suffix(suffix).map(ToOwned::to_owned)).collect()
}

#[test]
fn every_query_has_its_fixture_and_its_tests() {
    let mut queries = names_in(&folder(), ".sql");
    assert!(queries.remove("00_streams"), "the streams are there");
    let tested: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(queries, tested, "queries/*.sql and the list in this file");
    // While expected files are being written anew, some may not be there yet.
    let suffixes: &[&str] = if updates() { &[".input.ndjson"] } else { &[".input.ndjson", ".expected.ndjson"] };
    for suffix in suffixes {
        assert_eq!(queries, names_in(&folder().join("fixtures"), suffix), "queries/fixtures/*{suffix}");
    }
    let readme = read(&folder().join("README.md"));
    for query in &queries {
        assert!(readme.contains(&format!("({query}.sql)")), "queries/README.md says nothing of {query}.sql");
    }
}

#[test]
fn the_demo_ships_exactly_the_files_of_the_folder() {
    let source = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/demo.rs"));
    let list = source.split_once("const SHIPPED").and_then(|(_, rest)| rest.split_once("];")).expect("demo.rs has a list SHIPPED").0;
    let lines: String = names_in(&folder(), ".sql")
        .iter()
        .map(|name| format!("    (\"{name}.sql\", include_str!(\"../../queries/{name}.sql\")),\n"))
        .collect();
    let shipped: String = list.lines().filter(|line| line.contains("include_str!")).map(|line| format!("{line}\n")).collect();
    assert_eq!(shipped, lines, "SHIPPED in src/cli/demo.rs, in order of name");
}

#[test]
fn every_query_says_what_it_finds_reads_and_writes_and_where_its_limits_come_from() {
    for name in NAMES {
        let sql = read(&folder().join(format!("{name}.sql")));
        for part in ["-- Finds:", "-- Reads:", "Writes:", "-- Source:"] {
            assert!(sql.contains(part), "{name}.sql has no \"{part}\"");
        }
    }
}
