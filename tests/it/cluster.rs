//! The engine on a Kafka cluster: statements, a windowed query from topic to topic, and processes that come and go under
//! the same application id, sharing its work. The cluster is a node of ours, behind its Kafka port.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use serde_json::Value;
use vitalsql::config::Config;
use vitalsql::node::{Node, NodeOptions};
use vitalsql::sql::Outcome;
use vitalsql::time::{Clock, Timestamp};

use super::read::{DEADLINE, run, until_values};

const PATIENTS: i64 = 8;
/// Readings of a patient come this far apart.
const STEP_MS: i64 = 7_000;
const MINUTE_MS: i64 = 60_000;
pub(super) const EPOCH_MS: i64 = 1_700_000_040_000;

pub(super) const SCRIPT: &str = "
    CREATE STREAM vitals (patient_id VARCHAR NOT NULL, hr INT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
        WITH ('topic' = 'vitals', 'format' = 'json', 'key' = 'patient_id', 'partitions' = '3');
    CREATE QUERY per_minute AS INSERT INTO minutes
        SELECT patient_id, window_start, count(*) AS n, sum(hr) AS total
        FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
        GROUP BY patient_id, window_start, window_end
        EMIT ON WINDOW CLOSE;";

pub(super) async fn start(dir: &Path, more: &[(&str, &str)]) -> Node {
    let dir = dir.display().to_string();
    let mut flags = vec![("data_dir", dir), ("http.listen", "127.0.0.1:0".to_owned()), ("log.min_free_bytes", "0".to_owned())];
    flags.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
    let config = Config::resolve(&flags, std::iter::empty(), None).expect("settings that fit");
    Node::start(NodeOptions::new(config, Clock::system())).await.expect("a node starts")
}

/// A node that is the cluster.
pub(super) async fn start_cluster(dir: &Path) -> Node {
    start(dir, &[("kafka.listen", "127.0.0.1:0"), ("kafka.group_initial_rebalance_delay", "0ms")]).await
}

/// The settings of a process that works there.
pub(super) const fn on_cluster(brokers: &str) -> [(&str, &str); 5] {
    [
        ("kafka.brokers", brokers),
        ("kafka.application_id", "ward"),
        ("kafka.session_timeout", "6s"),
        ("kafka.default_partitions", "3"),
        ("engine.commit_interval", "20ms"),
    ]
}

/// Readings `from..to` of every patient.
pub(super) async fn write(node: &Node, from: i64, to: i64) {
    let mut records = Vec::new();
    for n in from..to {
        for patient in 0..PATIENTS {
            let (at, key) = (Timestamp(EPOCH_MS + n * STEP_MS), format!("p{patient}"));
            let body = format!("{{\"patient_id\":\"{key}\",\"hr\":{},\"ts\":{}}}", hr(patient, n), at.0);
            records.push((at, key, body.into_bytes()));
        }
    }
    node.write_simulated("vitals", records).await.expect("readings are written");
}

const fn hr(patient: i64, n: i64) -> i64 {
    50 + (patient * 31 + n * 7) % 90
}

/// What the query has to have written after `readings` readings of every patient: the windows that are over.
pub(super) fn expected(readings: i64) -> Vec<(String, i64, i64, i64)> {
    let mut windows: BTreeMap<(String, i64), (i64, i64)> = BTreeMap::new();
    let closed = (EPOCH_MS + (readings - 1) * STEP_MS) / MINUTE_MS * MINUTE_MS;
    for patient in 0..PATIENTS {
        for n in 0..readings {
            let start = (EPOCH_MS + n * STEP_MS) / MINUTE_MS * MINUTE_MS;
            if start < closed {
                let window = windows.entry((format!("p{patient}"), start)).or_default();
                *window = (window.0 + 1, window.1 + hr(patient, n));
            }
        }
    }
    windows.into_iter().map(|((patient, start), (count, total))| (patient, start, count, total)).collect()
}

/// Waits until a topic of such windows holds these and no others.
pub(super) async fn until_written(node: &Node, topic: &str, wanted: &[(String, i64, i64, i64)]) {
    let window = |row: &Value| {
        let start = Timestamp::parse(row["window_start"].as_str().expect("a text")).expect("a time");
        let number = |name: &str| row[name].as_i64().expect("a number");
        (row["patient_id"].as_str().expect("a text").to_owned(), start.0, number("n"), number("total"))
    };
    let mut all: Vec<_> = until_values(node, topic, wanted.len()).await.iter().map(window).collect();
    all.sort();
    assert_eq!(all, wanted, "{topic}");
}

pub(super) async fn settled(node: &Node, readings: i64) {
    until_written(node, "minutes", &expected(readings)).await;
}

/// The states of all queries, as a node shows them.
async fn states(node: &Node) -> Vec<String> {
    let Some(Outcome::Rows { batches, .. }) = node.execute("SHOW QUERIES").await.expect("an answer") else { panic!("no rows") };
    let state = |batch: &RecordBatch| {
        let column = batch.column_by_name("state").expect("a state").as_string::<i32>();
        column.iter().map(|state| state.unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    batches.iter().flat_map(state).collect()
}

pub(super) async fn until_states(node: &Node, fit: impl Fn(&[String]) -> bool) {
    let end = Instant::now() + DEADLINE;
    loop {
        let states = states(node).await;
        if fit(&states) {
            return;
        }
        assert!(Instant::now() < end, "{states:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_of_an_application_share_a_querys_tasks_and_its_catalogue() {
    let dirs: Vec<_> = (0..5).map(|_| tempfile::tempdir().expect("a folder")).collect();
    let cluster = start_cluster(dirs[0].path()).await;
    let brokers = cluster.kafka().to_owned();
    let on_cluster = on_cluster(&brokers);
    let named = |name: &'static str| on_cluster.into_iter().chain([("kafka.process", name)]).collect::<Vec<_>>();

    let first = start(dirs[1].path(), &on_cluster).await;
    assert!(first.kafka_address().is_none() && first.kafka().contains("ward"));
    run(&first, SCRIPT).await;
    write(&first, 0, 100).await;
    settled(&cluster, 100).await;
    until_states(&first, |states| states == ["running"]).await;

    // A second takes a share of the tasks over while the first goes on with the others: nothing twice, nothing missing.
    let second = start(dirs[2].path(), &named("second")).await;
    assert_eq!(second.running_queries(), 1);
    until_states(&second, |states| states[0].starts_with("running (") && states[0].ends_with("of 3 tasks elsewhere)")).await;
    until_states(&first, |states| states[0].starts_with("running (")).await;
    write(&second, 100, 200).await;
    settled(&cluster, 200).await;

    // What is changed at one is changed at the other; dropped at one, it can be created anew at the other.
    for (at, other) in [(&second, &first), (&first, &second)] {
        run(at, "CREATE QUERY all_rows AS INSERT INTO rows SELECT patient_id, hr, ts FROM vitals").await;
        until_states(other, |states| states.len() == 2 && states[0].starts_with("running")).await;
        run(other, "PAUSE QUERY all_rows").await;
        until_states(at, |states| states[0] == "paused").await;
        run(other, "DROP QUERY all_rows").await;
        until_states(at, |states| states.len() == 1).await;
    }
    run(&first, "DROP STREAM rows").await;

    // The first one goes; the second has everything. A third of the second's name takes over from it, for good.
    drop(first);
    until_states(&second, |states| states == ["running"]).await;
    write(&second, 200, 260).await;
    let third = start(dirs[3].path(), &named("second")).await;
    write(&third, 260, 300).await;
    settled(&cluster, 300).await;
    let reason = tokio::time::timeout(DEADLINE, second.failed()).await.expect("the older one gives up");
    assert!(reason.contains("application id \"ward\""), "{reason}");
    drop(second);

    // A fourth after the third has been stopped properly.
    third.stop().await.expect("it stops");
    write(&cluster, 300, 400).await;
    let fourth = start(dirs[4].path(), &on_cluster).await;
    settled(&cluster, 400).await;
    run(&fourth, "DROP QUERY per_minute").await;
    fourth.stop().await.expect("it stops");
    cluster.stop().await.expect("it stops");
}
