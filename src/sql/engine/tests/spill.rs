//! A query whose state does not fit into the memory it is given: what it has not worked on of late lies on the disk.

use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;

use super::updates::left;
use super::*;
use crate::sql::engine::{Outcome, QueryStatus};
use crate::stream::SpillSpace;

const STREAM: &str =
    "CREATE STREAM v (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
    WITH ('topic' = 'v', 'partitions' = '1');";
const WINDOWS: &str =
    "SELECT p, count(*) AS n, sum(x) AS s FROM TABLE(HOP(TABLE v, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '2' MINUTE))
    GROUP BY p, window_start, window_end";
const SESSIONS: &str =
    "SELECT p, count(*) AS n, sum(x) AS s FROM TABLE(SESSION(TABLE v PARTITION BY p, DESCRIPTOR(ts), INTERVAL '2' MINUTE))
    GROUP BY p, window_start, window_end";
const GROUPS: &str = "SELECT p, count(*) AS n, sum(x) AS s FROM v GROUP BY p";
/// So much may be in memory.
const ABOVE: u64 = 48 << 10;

fn spilling(dir: &Path, max: u64) -> Spilling {
    Spilling { space: SpillSpace::open(&dir.join("state"), max, 0).unwrap(), above: ABOVE }
}

async fn run(bench: &Bench, sql: &str) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for parsed in parse_script(sql).unwrap() {
        outcomes.push(bench.engine.run(parsed).await.unwrap_or_else(|e| panic!("{}", e.render(sql))));
    }
    outcomes
}

/// The readings of a second: sixty patients, some of them a little late.
fn second(at: i64) -> Vec<String> {
    let row = |n: i64| {
        let late = if (n + at) % 7 == 0 { 1500 } else { 0 };
        format!("{{\"p\":\"patient-{n:04}\",\"x\":{},\"ts\":{}}}", n * 31 + at, at * 1000 - late)
    };
    (0..60).map(row).collect()
}

/// The readings of a second: of ten patients who have just come, and the next ones of some who came a minute and a half ago.
fn arrivals(at: i64) -> Vec<String> {
    let row = |n: i64| format!("{{\"p\":\"patient-{n:04}\",\"x\":{},\"ts\":{}}}", n * 31 + at, at * 1000);
    let new = at * 10..at * 10 + 10;
    new.chain((0..10).step_by(3).map(|n| (at - 90) * 10 + n).filter(|n| *n >= 0)).map(row).collect()
}

async fn status(bench: &Bench, until: impl Fn(&QueryStatus) -> bool) -> QueryStatus {
    let begun = Instant::now();
    loop {
        let one = bench.engine.statuses().await.into_iter().find(|q| q.name == "q").unwrap();
        if until(&one) {
            return one;
        }
        assert!(begun.elapsed() < DEADLINE, "{one:?}");
        tokio::task::yield_now().await;
    }
}

/// Writes these seconds; answers how much was in memory at most once they were read, and what lay on the disk then.
async fn feed(bench: &Bench, seconds: std::ops::Range<i64>) -> (u64, u64) {
    feed_of(bench, second, seconds).await
}

/// The same of the readings that a second has.
async fn feed_of(bench: &Bench, second: fn(i64) -> Vec<String>, seconds: std::ops::Range<i64>) -> (u64, u64) {
    let (mut most, mut rows) = (0, bench.engine.statuses().await[0].counts.rows_in);
    let mut spilled = 0;
    for at in seconds {
        let of = second(at);
        bench.write_keyed("v", 0, &of).await;
        rows += of.len() as u64;
        let found = status(bench, |q| q.counts.rows_in == rows && q.lag == Some(0)).await;
        most = most.max(found.counts.state_bytes);
        spilled = found.counts.spilled_bytes;
    }
    (most, spilled)
}

/// The rows of a SELECT over what is stored, as the query writes them.
async fn history(bench: &Bench, sql: &str) -> Vec<String> {
    let Some(Outcome::Stream { mut rows_rx, .. }) = run(bench, sql).await.pop() else { panic!("{sql} answers no rows") };
    let mut lines = Vec::new();
    while let Some(batch) = rows_rx.recv().await {
        let batch: RecordBatch = batch.unwrap();
        let (p, n, s) = (batch.column(0).as_string::<i32>(), batch.column(1), batch.column(2));
        let (n, s) = (n.as_primitive::<Int64Type>(), s.as_primitive::<Int64Type>());
        lines.extend(
            (0..batch.num_rows()).map(|row| format!("{{\"p\":\"{}\",\"n\":{},\"s\":{}}}", p.value(row), n.value(row), s.value(row))),
        );
    }
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_holds_several_times_its_memory_gives_what_it_would_give_and_goes_on_after_a_restart() {
    let broker = TestDisk::default().broker().await;
    let dir = tempfile::tempdir().unwrap();
    let files = || std::fs::read_dir(dir.path().join("state")).unwrap().count();
    let bench = Bench::spilling(Arc::clone(&broker), None, spilling(dir.path(), 1 << 30)).await;
    run(&bench, &format!("{STREAM} CREATE QUERY q AS INSERT INTO o {WINDOWS} EMIT ON WINDOW CLOSE;")).await;
    let (most, spilled) = feed(&bench, 0..150).await;
    assert!(spilled > 2 * ABOVE && files() > 0, "{spilled} bytes on the disk");
    assert!(most < spilled, "{most} bytes in memory, {spilled} on the disk");
    let found = status(&bench, |_| true).await;
    let windows = found.operators.iter().find(|of| of.name.ends_with("-window")).unwrap();
    assert_eq!((windows.spilled_bytes, found.counts.spilled_bytes > 0), (found.counts.spilled_bytes, true));
    let Some(Outcome::Rows { batches, .. }) = run(&bench, "EXPLAIN ANALYZE QUERY q").await.pop() else { panic!("no lines") };
    let text = batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten()).collect::<Vec<_>>().join("\n");
    assert!(text.contains("more on the disk") && text.contains("state  on the disk  "), "{text}");

    // The snapshot holds what lay on the disk; what a node finds there at its start is deleted.
    bench.engine.close().await;
    drop(bench);
    assert_eq!(files(), 0, "what nobody holds is deleted");
    std::fs::write(dir.path().join("state/left"), "behind").unwrap();
    let bench = Bench::spilling(Arc::clone(&broker), None, spilling(dir.path(), 1 << 30)).await;
    // It lies on the disk again.
    status(&bench, |q| q.state == QueryState::Running && q.counts.spilled_bytes > ABOVE).await;
    assert!(!dir.path().join("state/left").exists());
    feed(&bench, 150..200).await;
    // All windows close but those of the last reading.
    bench.write_keyed("v", 0, &[r#"{"p":"patient-0000","x":1,"ts":1000000}"#.to_owned()]).await;
    let expected = history(&bench, &format!("{WINDOWS} HAVING window_end <= TIMESTAMP '1970-01-01 00:16:30'")).await;
    assert_eq!(bench.values("o", expected.len()).await, expected);
    let last = status(&bench, |q| q.lag == Some(0) && q.counts.spilled_bytes == 0).await;
    assert_eq!(last.state, QueryState::Running);
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_disk_takes_no_more_a_query_stops_at_its_limit_and_says_why_and_a_lost_file_costs_nothing() {
    let broker = TestDisk::default().broker().await;
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::spilling(Arc::clone(&broker), Some(128 << 10), spilling(dir.path(), 32 << 10)).await;
    run(&bench, &format!("{STREAM} CREATE QUERY q AS INSERT INTO o {WINDOWS} EMIT ON WINDOW CLOSE;")).await;
    for at in 0..150 {
        bench.write_keyed("v", 0, &second(at)).await;
    }
    let error = bench.failure("q").await;
    for part in ["may take 128 KiB", "No more of it could be put on the disk", "(engine.state_disk)"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    bench.engine.close().await;
    drop(bench);
    // With more room it goes on; then its files are taken from it, and it goes on once more.
    let bench = Bench::spilling(broker, Some(128 << 10), spilling(dir.path(), 1 << 30)).await;
    status(&bench, |q| q.state == QueryState::Running && q.lag == Some(0) && q.counts.spilled_bytes > ABOVE).await;
    for file in std::fs::read_dir(dir.path().join("state")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    bench.write_keyed("v", 0, &[r#"{"p":"patient-0000","x":1,"ts":1000000}"#.to_owned()]).await;
    let expected = history(&bench, &format!("{WINDOWS} HAVING window_end <= TIMESTAMP '1970-01-01 00:16:30'")).await;
    assert_eq!(bench.values("o", expected.len()).await, expected);
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_savepoint_holds_what_lies_on_the_disk_and_a_query_that_begins_from_it_goes_on_with_it() {
    let broker = TestDisk::default().broker().await;
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::spilling(broker, None, spilling(dir.path(), 1 << 30)).await;
    run(&bench, &format!("{STREAM} CREATE QUERY q AS INSERT INTO o {WINDOWS} EMIT ON WINDOW CLOSE;")).await;
    let (_, spilled) = feed(&bench, 0..150).await;
    assert!(spilled > ABOVE, "{spilled} bytes on the disk");
    // Its watermark is 00:02:27 by now, and windows up to there have closed.
    run(&bench, "CREATE SAVEPOINT s FOR QUERY q;").await;
    let begins = "CREATE QUERY r WITH ('start' = 'savepoint:s') AS INSERT INTO later";
    run(&bench, &format!("{begins} {WINDOWS} EMIT ON WINDOW CLOSE;")).await;
    bench.write_keyed("v", 0, &[r#"{"p":"patient-0000","x":1,"ts":1000000}"#.to_owned()]).await;
    let between = "window_end > TIMESTAMP '1970-01-01 00:02:27' AND window_end <= TIMESTAMP '1970-01-01 00:16:30'";
    let expected = history(&bench, &format!("{WINDOWS} HAVING {between}")).await;
    assert!(expected.len() > 60 * 100);
    assert_eq!(bench.values("later", expected.len()).await, expected);
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_go_on_from_the_disk_also_after_a_restart() {
    let broker = TestDisk::default().broker().await;
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::spilling(Arc::clone(&broker), None, spilling(dir.path(), 1 << 30)).await;
    run(&bench, &format!("{STREAM} CREATE QUERY q AS INSERT INTO o {SESSIONS} EMIT ON WINDOW CLOSE;")).await;
    let (most, spilled) = feed_of(&bench, arrivals, 0..150).await;
    assert!(spilled > ABOVE && most < 6 * ABOVE, "{most} bytes in memory, {spilled} on the disk");
    let found = status(&bench, |_| true).await;
    let sessions = found.operators.iter().find(|of| of.name.ends_with("-session")).unwrap();
    assert_eq!(sessions.spilled_bytes, found.counts.spilled_bytes);
    bench.engine.close().await;
    drop(bench);
    let bench = Bench::spilling(Arc::clone(&broker), None, spilling(dir.path(), 1 << 30)).await;
    // They lie on the disk again.
    status(&bench, |q| q.state == QueryState::Running && q.counts.spilled_bytes > ABOVE / 2).await;
    feed_of(&bench, arrivals, 150..240).await;
    // All sessions close but that of the last reading.
    bench.write_keyed("v", 0, &[r#"{"p":"patient-0000","x":1,"ts":1000000}"#.to_owned()]).await;
    let expected = history(&bench, &format!("{SESSIONS} HAVING window_end <= TIMESTAMP '1970-01-01 00:16:30'")).await;
    assert!(expected.len() >= 2400 && expected.iter().any(|row| row.contains("\"n\":2")));
    assert_eq!(bench.values("o", expected.len()).await, expected);
    status(&bench, |q| q.lag == Some(0) && q.counts.spilled_bytes == 0).await;
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_without_a_window_go_on_from_the_disk_also_after_a_restart_and_from_a_savepoint() {
    let broker = TestDisk::default().broker().await;
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::spilling(Arc::clone(&broker), None, spilling(dir.path(), 1 << 30)).await;
    run(&bench, &format!("{STREAM} CREATE QUERY q AS INSERT INTO o {GROUPS};")).await;
    let (most, spilled) = feed_of(&bench, arrivals, 0..150).await;
    assert!(spilled > ABOVE && most < 6 * ABOVE, "{most} bytes in memory, {spilled} on the disk");
    bench.engine.close().await;
    drop(bench);
    let bench = Bench::spilling(Arc::clone(&broker), None, spilling(dir.path(), 1 << 30)).await;
    // They lie on the disk again.
    status(&bench, |q| q.state == QueryState::Running && q.counts.spilled_bytes > ABOVE / 2).await;
    feed_of(&bench, arrivals, 150..240).await;
    let all = history(&bench, GROUPS).await;
    let by_key: Vec<(&str, &str)> = all.iter().map(|row| (row.split('"').nth(3).unwrap(), row.as_str())).collect();
    assert!(by_key.len() == 2400 && all.iter().any(|row| row.contains("\"n\":2")));
    left(&bench, "o", &by_key).await;
    run(&bench, "CREATE SAVEPOINT s FOR QUERY q;").await;
    run(&bench, &format!("CREATE QUERY r WITH ('start' = 'savepoint:s') AS INSERT INTO later {GROUPS};")).await;
    // One of those that no row has come for since the beginning.
    bench.write_keyed("v", 0, &[r#"{"p":"patient-0001","x":1,"ts":240000}"#.to_owned()]).await;
    left(&bench, "later", &[("patient-0001", r#"{"p":"patient-0001","n":2,"s":32}"#)]).await;
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_lie_on_the_disk_stops_at_the_limit_and_names_its_operator() {
    for (query, operator) in [
        ("SELECT p, n, x FROM (SELECT p, x, row_number() OVER (PARTITION BY p ORDER BY x DESC) AS n FROM v) WHERE n <= 2", "-top"),
        (
            "SELECT p, sum(x) OVER (PARTITION BY p ORDER BY ts RANGE BETWEEN INTERVAL '1' DAY PRECEDING AND CURRENT ROW) AS s FROM v",
            "-over",
        ),
    ] {
        let broker = TestDisk::default().broker().await;
        let dir = tempfile::tempdir().unwrap();
        let bench = Bench::spilling(broker, Some(96 << 10), spilling(dir.path(), 1 << 30)).await;
        run(&bench, &format!("{STREAM} CREATE QUERY q AS INSERT INTO o {query};")).await;
        for at in 0..150 {
            bench.write_keyed("v", 0, &arrivals(at)).await;
        }
        let error = bench.failure("q").await;
        assert!(error.contains("may take 96 KiB") && error.contains(operator) && !error.contains("could be put on the disk"), "{error}");
        bench.engine.close().await;
    }
}
