//! Materialized views: what is read from them, what follows them, and who may write or replace them.

use arrow::array::AsArray;
use arrow::json::LineDelimitedWriter;

use super::*;
use crate::sql::engine::Outcome;
use crate::sql::error::{Code, SqlError};

const STREAM: &str = "CREATE STREAM v (p VARCHAR, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
    WITH ('topic' = 'v', 'partitions' = '2', 'watermark.idle-timeout' = 'none');";
const SUMS: &str = "CREATE MATERIALIZED VIEW sums AS SELECT p, sum(x) AS s FROM v GROUP BY p HAVING sum(x) < 100;";

fn row(p: &str, x: i64) -> String {
    format!("{{\"p\":{p},\"x\":{x},\"ts\":1000}}")
}

async fn run(bench: &Bench, text: &str) -> Result<Vec<Outcome>, SqlError> {
    let mut out = Vec::new();
    for parsed in parse_script(text).unwrap() {
        out.push(bench.engine.run(parsed).await?);
    }
    Ok(out)
}

async fn refused(bench: &Bench, text: &str, code: Code, part: &str) {
    match run(bench, text).await {
        Ok(_) => panic!("taken: {text}"),
        Err(error) => assert!(error.code == code && error.message.contains(part), "{text}: {error:?}"),
    }
}

/// The rows of a SELECT as JSON, sorted.
async fn select(bench: &Bench, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    match run(bench, text).await.unwrap().remove(0) {
        Outcome::Stream { mut rows_rx, .. } => {
            while let Some(batch) = rows_rx.recv().await {
                found.extend(shown(&batch.unwrap()));
            }
        }
        Outcome::Rows { batches, .. } => batches.iter().for_each(|batch| found.extend(shown(batch))),
        Outcome::Done(said) => panic!("{said}"),
    }
    found.sort();
    found
}

fn shown(batch: &arrow::array::RecordBatch) -> Vec<String> {
    let mut out = Vec::new();
    LineDelimitedWriter::new(&mut out).write(batch).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

/// Waits until a SELECT gives these rows.
async fn holds(bench: &Bench, text: &str, expected: &[&str]) {
    let begun = Instant::now();
    loop {
        let found = select(bench, text).await;
        if found == expected {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{text} gives {found:?}; {:?}", bench.engine.statuses().await);
        tokio::task::yield_now().await;
    }
}

/// Somebody who follows a view.
struct Follower {
    rows_rx: tokio::sync::mpsc::Receiver<Result<arrow::array::RecordBatch, SqlError>>,
    waiting: Vec<(String, Option<String>)>,
}

impl Follower {
    async fn new(bench: &Bench, text: &str) -> Self {
        match run(bench, text).await.unwrap().remove(0) {
            Outcome::Stream { rows_rx, .. } => Self { rows_rx, waiting: Vec::new() },
            _ => panic!("{text} gives no stream"),
        }
    }

    /// The next row without its epoch, and its epoch.
    async fn next(&mut self) -> (String, Option<String>) {
        while self.waiting.is_empty() {
            let batch = tokio::time::timeout(DEADLINE, self.rows_rx.recv()).await.expect("in time").expect("it goes on").unwrap();
            let epochs = batch.column_by_name("_epoch").unwrap().as_string::<i32>().clone();
            let mut columns: Vec<usize> = (0..batch.num_columns()).collect();
            columns.remove(1);
            let rows = shown(&batch.project(&columns).unwrap());
            self.waiting.extend(rows.into_iter().enumerate().map(|(at, row)| (row, epochs.iter().nth(at).flatten().map(str::to_owned))));
        }
        self.waiting.remove(0)
    }

    async fn rows(&mut self, count: usize) -> Vec<String> {
        let mut rows = Vec::new();
        for _ in 0..count {
            rows.push(self.next().await.0);
        }
        rows.sort();
        rows
    }
}

#[tokio::test]
async fn a_view_holds_the_latest_row_of_each_key_also_after_a_restart_and_those_without_one() {
    let bench = Bench::new(&format!("{STREAM}{SUMS} CREATE MATERIALIZED VIEW all_of_it AS SELECT count(*) AS n FROM v;")).await;
    bench.write("v", 0, &[&row("\"a\"", 1), &row("null", 7)]).await;
    bench.write("v", 1, &[&row("\"a\"", 2), &row("\"b\"", 99)]).await;
    holds(&bench, "SELECT * FROM sums", &[r#"{"p":"a","s":3}"#, r#"{"p":"b","s":99}"#, r#"{"s":7}"#]).await;
    holds(&bench, "SELECT n FROM all_of_it", &[r#"{"n":4}"#]).await;
    bench.engine.close().await;
    let bench = Bench::over(Arc::clone(&bench.broker)).await;
    holds(&bench, "SELECT s FROM sums WHERE p = 'b'", &[r#"{"s":99}"#]).await;
    // What no longer meets HAVING is gone, and so is nothing else.
    bench.write("v", 0, &[&row("\"b\"", 1)]).await;
    holds(&bench, "SELECT * FROM sums", &[r#"{"p":"a","s":3}"#, r#"{"s":7}"#]).await;
    holds(&bench, "SELECT n FROM all_of_it", &[r#"{"n":5}"#]).await;
    let views = select(&bench, "SHOW VIEWS").await;
    assert!(views.len() == 2 && views[1].contains(r#""name":"sums","state":"running""#), "{views:?}");
    assert!(select(&bench, "SHOW CREATE VIEW sums").await[0].contains("CREATE MATERIALIZED VIEW sums AS"));
    bench.engine.close().await;
}

#[tokio::test]
async fn rows_that_are_only_added_are_all_there() {
    let bench = Bench::new(&format!("{STREAM} CREATE MATERIALIZED VIEW high AS SELECT p, x FROM v WHERE x > 5;")).await;
    bench.write("v", 0, &[&row("\"a\"", 1), &row("\"a\"", 7), &row("\"a\"", 7)]).await;
    holds(&bench, "SELECT p, x FROM high", &[r#"{"p":"a","x":7}"#, r#"{"p":"a","x":7}"#]).await;
    // A stream to whoever reads on from it.
    run(&bench, "CREATE QUERY q AS INSERT INTO o SELECT p, x + 1 AS y FROM high").await.unwrap();
    assert_eq!(bench.values("o", 2).await, [r#"{"p":"a","y":8}"#, r#"{"p":"a","y":8}"#]);
    refused(&bench, "DROP VIEW high", Code::InUse, "query \"q\"").await;
    let other = "CREATE OR REPLACE MATERIALIZED VIEW high AS SELECT p, x FROM v WHERE x > 6";
    refused(&bench, other, Code::InUse, "query \"q\"").await;
    bench.engine.close().await;
}

#[tokio::test]
async fn nobody_else_writes_a_view_and_its_name_is_its_own() {
    let bench = Bench::new(&format!("{STREAM}{SUMS} CREATE QUERY q AS INSERT INTO o SELECT p FROM v;")).await;
    bench.write("v", 0, &[&row("\"a\"", 1)]).await;
    holds(&bench, "SELECT * FROM sums", &[r#"{"p":"a","s":1}"#]).await;
    refused(&bench, "INSERT INTO sums VALUES ('a', 1)", Code::BadDefinition, "a view's").await;
    refused(&bench, "CREATE QUERY w AS INSERT INTO sums SELECT p, x AS s FROM v", Code::BadDefinition, "a view's").await;
    refused(&bench, "CREATE QUERY sums AS INSERT INTO w SELECT p FROM v", Code::NameTaken, "view \"sums\"").await;
    refused(&bench, "CREATE MATERIALIZED VIEW q AS SELECT p FROM v", Code::NameTaken, "query \"q\"").await;
    refused(&bench, "CREATE MATERIALIZED VIEW v AS SELECT p FROM o", Code::NameTaken, "stream \"v\"").await;
    // By another name of its topic as little.
    run(&bench, "CREATE STREAM aside (p VARCHAR, s BIGINT) WITH ('topic' = 'sums')").await.unwrap();
    refused(&bench, "CREATE QUERY w AS INSERT INTO aside SELECT p, x AS s FROM v", Code::BadDefinition, "a view's").await;
    refused(&bench, "INSERT INTO aside VALUES ('a', 1)", Code::BadDefinition, "a view's").await;
    // A topic with records of somebody's is not mixed with a view's.
    bench.values("o", 1).await;
    run(&bench, "DROP QUERY q; DROP STREAM o").await.unwrap();
    refused(&bench, "CREATE MATERIALIZED VIEW o AS SELECT p FROM v", Code::NameTaken, "topic \"o\"").await;
    // What takes its place begins at the beginning, and what is dropped leaves nothing.
    run(&bench, &SUMS.replace("CREATE", "CREATE OR REPLACE").replace("sum(x) AS s", "max(x) AS s")).await.unwrap();
    bench.write("v", 1, &[&row("\"a\"", 5)]).await;
    holds(&bench, "SELECT * FROM sums", &[r#"{"p":"a","s":5}"#]).await;
    run(&bench, "DROP STREAM aside; DROP MATERIALIZED VIEW sums").await.unwrap();
    assert_eq!(bench.bus.partitions(&topic("sums")).await.unwrap(), None);
    bench.engine.close().await;
    let bench = Bench::over(Arc::clone(&bench.broker)).await;
    assert_eq!(select(&bench, "SHOW VIEWS").await, Vec::<String>::new());
    bench.engine.close().await;
}

#[tokio::test]
async fn who_follows_a_view_gets_what_holds_then_each_change_and_goes_on_from_any_epoch() {
    let bench = Bench::new(&format!("{STREAM}{SUMS}")).await;
    bench.write("v", 0, &[&row("\"a\"", 1), &row("\"b\"", 50), &row("null", 3)]).await;
    let all = [r#"{"p":"a","s":1}"#, r#"{"p":"b","s":50}"#, r#"{"s":3}"#];
    holds(&bench, "SELECT * FROM sums", &all).await;
    let mut plain = Follower::new(&bench, "SUBSCRIBE TO sums").await;
    let mut some = Follower::new(&bench, "SUBSCRIBE TO sums WHERE s < 60 AND p IS NOT NULL").await;
    let told = [r#"{"_op":"row","p":"a","s":1}"#, r#"{"_op":"row","p":"b","s":50}"#, r#"{"_op":"row","s":3}"#];
    assert_eq!(plain.rows(3).await, told);
    assert_eq!(some.rows(2).await, told[..2]);
    let (mark, epoch) = plain.next().await;
    assert_eq!((mark.as_str(), some.next().await.0.as_str()), (r#"{"_op":"epoch"}"#, r#"{"_op":"epoch"}"#));
    // One after another, so that each is written.
    bench.write("v", 1, &[&row("\"a\"", 4)]).await;
    let (first, after) = plain.next().await;
    assert_eq!(first, r#"{"_op":"upsert","p":"a","s":5}"#);
    assert_eq!(some.next().await.0, r#"{"_op":"upsert","p":"a","s":5}"#);
    bench.write("v", 1, &[&row("\"b\"", 20)]).await;
    assert_eq!(plain.next().await.0, r#"{"_op":"upsert","p":"b","s":70}"#);
    assert_eq!(some.next().await.0, r#"{"_op":"delete","p":"b"}"#, "it no longer meets the condition");
    bench.write("v", 0, &[&row("\"b\"", 30)]).await;
    assert_eq!(plain.next().await.0, r#"{"_op":"delete","p":"b"}"#);
    bench.write("v", 0, &[&row("null", 97)]).await;
    assert_eq!(plain.next().await.0, r#"{"_op":"delete"}"#, "the row without a patient");
    bench.write("v", 0, &[&row("\"a\"", 1)]).await;
    assert_eq!(plain.next().await.0, r#"{"_op":"upsert","p":"a","s":6}"#);
    assert_eq!(some.next().await.0, r#"{"_op":"upsert","p":"a","s":6}"#, "of what it was never told it hears no end");
    // From the epoch on: all of it again; from behind the first change: all but that.
    let rest = [
        r#"{"_op":"delete","p":"b"}"#,
        r#"{"_op":"delete"}"#,
        r#"{"_op":"upsert","p":"a","s":5}"#,
        r#"{"_op":"upsert","p":"a","s":6}"#,
        r#"{"_op":"upsert","p":"b","s":70}"#,
    ];
    let mut again = Follower::new(&bench, &format!("SUBSCRIBE TO sums AS OF '{}'", epoch.unwrap())).await;
    assert_eq!(again.rows(5).await, rest);
    let mut later = Follower::new(&bench, &format!("SUBSCRIBE TO sums AS OF '{}'", after.unwrap())).await;
    assert_eq!(later.rows(4).await, [rest[0], rest[1], rest[3], rest[4]]);
    for (epoch, part) in [("", "it is none"), ("1.0,0", "another version"), ("x", "it is none")] {
        refused(&bench, &format!("SUBSCRIBE TO sums AS OF '{epoch}'"), Code::BadDefinition, part).await;
    }
    refused(&bench, "SUBSCRIBE TO v", Code::NoSuchName, "no view \"v\"").await;
    refused(&bench, "SUBSCRIBE TO sums WHERE s + 1", Code::TypeMismatch, "condition").await;
    refused(&bench, "SUBSCRIBE TO sums WHERE y = 1", Code::NoSuchColumn, "y").await;
    bench.engine.close().await;
}

#[tokio::test]
async fn who_follows_a_view_is_told_that_it_is_dropped_or_another_one() {
    let replace = SUMS.replace("CREATE", "CREATE OR REPLACE").replace("sum(x) AS s", "max(x) AS s");
    for end in ["DROP VIEW sums", replace.as_str()] {
        let bench = Bench::new(&format!("{STREAM}{SUMS} CREATE MATERIALIZED VIEW other AS SELECT p, min(x) AS m FROM v GROUP BY p;")).await;
        bench.write("v", 0, &[&row("\"a\"", 1)]).await;
        holds(&bench, "SELECT * FROM sums", &[r#"{"p":"a","s":1}"#]).await;
        let mut follower = Follower::new(&bench, "SUBSCRIBE TO sums").await;
        assert_eq!(follower.rows(2).await, [r#"{"_op":"epoch"}"#, r#"{"_op":"row","p":"a","s":1}"#]);
        // That another view goes is nothing to it.
        run(&bench, "DROP VIEW other").await.unwrap();
        bench.write("v", 0, &[&row("\"a\"", 1)]).await;
        assert_eq!(follower.next().await.0, r#"{"_op":"upsert","p":"a","s":2}"#);
        run(&bench, end).await.unwrap();
        let last = tokio::time::timeout(DEADLINE, follower.rows_rx.recv()).await.expect("in time").expect("it is told");
        assert!(last.is_err(), "{end}");
        bench.engine.close().await;
    }
}

/// A row, its columns in order of their names.
fn named(row: &BTreeMap<String, serde_json::Value>) -> String {
    serde_json::to_string(row).unwrap()
}

/// What somebody holds who follows a view, and how far that was told.
#[derive(Default)]
struct Copy {
    held: BTreeMap<String, String>,
    added: Vec<String>,
    epoch: Option<String>,
}

impl Copy {
    /// Takes one row of a subscription: of a view that changes by its key, else as one more.
    fn take(&mut self, row: &str, epoch: Option<String>, changes: bool) {
        let mut value: BTreeMap<String, serde_json::Value> = serde_json::from_str(row).unwrap();
        let op = value.remove("_op").unwrap().as_str().unwrap().to_owned();
        let key = value.get("p").map_or_else(String::new, ToString::to_string);
        match op.as_str() {
            "epoch" => {}
            // What came and went between two commits is told as gone.
            "delete" => drop(self.held.remove(&key)),
            _ if changes => drop(self.held.insert(key, named(&value))),
            _ => self.added.push(named(&value)),
        }
        self.epoch = epoch.or(self.epoch.take());
    }

    fn rows(&self) -> Vec<String> {
        let mut rows: Vec<String> = self.held.values().chain(&self.added).cloned().collect();
        rows.sort();
        rows
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_restarts_and_crashes_a_view_and_who_follows_it_hold_what_a_select_over_all_rows_gives() {
    use rand::{Rng, SeedableRng};
    const VIEWS: [(&str, &str, bool); 3] = [
        ("sums", "SELECT p, sum(x) AS s, count(*) AS n FROM v GROUP BY p HAVING sum(x) % 3 <> 0", true),
        ("best", "SELECT p, max(x) AS m FROM v WHERE x < 40 GROUP BY p", true),
        ("high", "SELECT p, x FROM v WHERE x > 30", false),
    ];
    let seeds = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    for seed in 0..seeds {
        let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let views = VIEWS.map(|(name, text, _)| format!("CREATE MATERIALIZED VIEW {name} WITH ('state.ttl' = 'none') AS {text};"));
        let mut bench = Bench::new(&format!("{STREAM}{}", views.concat())).await;
        let mut copies = [Copy::default(), Copy::default(), Copy::default()];
        let mut runtime: Option<tokio::runtime::Runtime> = None;
        for _ in 0..12 {
            for _ in 0..chance.random_range(1..5) {
                let rows: Vec<String> = (0..chance.random_range(1..6))
                    .map(|_| row(["\"a\"", "\"b\"", "\"c\"", "null"][chance.random_range(0..4usize)], chance.random_range(0..50)))
                    .collect();
                let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
                bench.write("v", chance.random_range(0..2), &rows).await;
            }
            for ((name, _, changes), copy) in VIEWS.iter().zip(&mut copies) {
                if chance.random_bool(0.5) {
                    continue;
                }
                let from = copy.epoch.as_ref().map_or_else(String::new, |epoch| format!(" AS OF '{epoch}'"));
                if copy.epoch.is_none() {
                    *copy = Copy::default();
                }
                let mut follower = Follower::new(&bench, &format!("SUBSCRIBE TO {name}{from}")).await;
                // As much as comes at once, or a part of it.
                for _ in 0..chance.random_range(0..20) {
                    let Ok((row, epoch)) = tokio::time::timeout(Duration::from_millis(30), follower.next()).await else { break };
                    copy.take(&row, epoch, *changes);
                }
            }
            match chance.random_range(0..4) {
                0 => {
                    bench.engine.close().await;
                    bench = Bench::over(Arc::clone(&bench.broker)).await;
                    runtime.take().into_iter().for_each(tokio::runtime::Runtime::shutdown_background);
                }
                1 => {
                    // What runs ends wherever it is; what runs outside of it (the first time) is closed.
                    match runtime.take() {
                        Some(runtime) => runtime.shutdown_background(),
                        None => bench.engine.close().await,
                    }
                    let next = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
                    bench = Bench::on(Arc::clone(&bench.broker), next.handle().clone()).await;
                    runtime = Some(next);
                }
                _ => {}
            }
        }
        for ((name, text, changes), copy) in VIEWS.iter().zip(&mut copies) {
            let expected = select(&bench, text).await;
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            holds(&bench, &format!("SELECT * FROM {name}"), &expected).await;
            let plain: Vec<String> = {
                let mut rows: Vec<String> = expected.iter().map(|row| named(&serde_json::from_str(row).unwrap())).collect();
                rows.sort();
                rows
            };
            let from = copy.epoch.as_ref().map_or_else(String::new, |epoch| format!(" AS OF '{epoch}'"));
            if copy.epoch.is_none() {
                *copy = Copy::default();
            }
            let begun = Instant::now();
            let mut follower = Follower::new(&bench, &format!("SUBSCRIBE TO {name}{from}")).await;
            while copy.rows() != plain {
                assert!(begun.elapsed() < DEADLINE, "seed {seed}, {name}: {:?} is told, and {plain:?} holds", copy.rows());
                let Ok((row, epoch)) = tokio::time::timeout(Duration::from_millis(200), follower.next()).await else { continue };
                copy.take(&row, epoch, *changes);
            }
            while let Ok((row, _)) = tokio::time::timeout(Duration::from_millis(50), follower.next()).await {
                assert!(row.contains("epoch") || *changes, "seed {seed}: {name} says {row} once more");
            }
        }
        bench.engine.close().await;
        runtime.take().into_iter().for_each(tokio::runtime::Runtime::shutdown_background);
    }
}
