//! What a running query shows of itself, operator by operator, and what becomes of one that would hold too much.

use arrow::array::AsArray;

use super::*;
use crate::sql::engine::{Outcome, QueryStatus};
use crate::sql::error::SqlError;

const STREAM: &str = "CREATE STREAM v (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
    WITH ('topic' = 'v', 'partitions' = '2', 'key' = 'p');";
const WINDOWS: &str = "SELECT p, window_end, count(*) AS n FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '10' SECOND))
    WHERE x > 0 GROUP BY p, window_start, window_end";

fn row(p: &str, x: i64, second: i64) -> String {
    format!("{{\"p\":\"{p}\",\"x\":{x},\"ts\":{}}}", second * 1000)
}

async fn run(engine: &Arc<Engine>, sql: &str) -> Result<Outcome, SqlError> {
    engine.run(parse_script(sql).unwrap().remove(0)).await
}

/// The lines that a statement answers.
async fn told(engine: &Arc<Engine>, sql: &str) -> String {
    let outcome = run(engine, sql).await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
    let Outcome::Rows { batches, .. } = outcome else { panic!("{sql} answers no rows") };
    batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten()).fold(String::new(), |all, line| all + line + "\n")
}

async fn status(bench: &Bench, name: &str, until: impl Fn(&QueryStatus) -> bool) -> QueryStatus {
    let begun = Instant::now();
    loop {
        let all = bench.engine.statuses().await;
        let one = all.into_iter().find(|q| q.name == name).unwrap();
        if until(&one) {
            return one;
        }
        assert!(begun.elapsed() < DEADLINE, "{one:?}");
        tokio::task::yield_now().await;
    }
}

fn rows_of(status: &QueryStatus) -> Vec<(&str, u64, u64, u64)> {
    status.operators.iter().map(|of| (of.name.as_str(), of.rows_in, of.rows_out, of.late)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_operator_of_a_running_query_shows_what_it_took_gave_and_holds() {
    let bench = Bench::new(&format!("{STREAM} CREATE QUERY q AS INSERT INTO o {WINDOWS} EMIT ON WINDOW CLOSE;")).await;
    bench.write_keyed("v", 0, &[row("a", 1, 1), row("a", 0, 2), row("a", 3, 12)]).await;
    status(&bench, "q", |q| q.counts.rows_in == 3).await;
    // Late for its own partition, whose first window has closed.
    bench.write_keyed("v", 0, &[row("a", 4, 3)]).await;
    bench.write_keyed("v", 1, &[row("b", 1, 5)]).await;
    let found = status(&bench, "q", |q| q.counts.rows_in == 5 && q.lag == Some(0) && q.operators.last().unwrap().rows_in == 1).await;
    let found = if found.operators[2].state_bytes > 0 { found } else { status(&bench, "q", |q| q.operators[2].state_bytes > 0).await };
    assert_eq!(
        rows_of(&found),
        [("0-source", 5, 5, 0), ("1-filter", 5, 4, 0), ("2-window", 4, 1, 1), ("3-project", 1, 1, 0), ("4-sink", 1, 1, 0)]
    );
    assert_eq!(found.time.tasks, 2);
    let waited =
        status(&bench, "q", |q| q.operators[2].watermark.is_some_and(|(least, greatest)| least.0 == 5_000 && greatest.0 == 12_000));
    let found = waited.await;
    assert!(found.operators[2].busy > Duration::ZERO && found.operators[1].state_bytes == 0);
    assert_eq!(found.counts.state_bytes, found.operators.iter().map(|of| of.state_bytes).sum::<u64>());
    assert_eq!(found.commit_times.count(), found.counts.commits);
    let spent = found.time.busy + found.time.idle + found.time.backpressured;
    assert!(found.time.idle > 0.0 && found.time.backpressured > 0.0 && spent > found.time.busy, "{:?}", found.time);

    let text = told(&bench.engine, "EXPLAIN ANALYZE QUERY q").await;
    for part in [
        "window   TUMBLE",
        "sink     o",
        "state    running",
        "figures  rows in 5, out 1, late 1, failed 0, ahead of the clock 0; lag 0 records",
        ", without a limit",
        "tasks    2: busy ",
        "commits  ",
        "operator   rows in  rows out  late  failed",
        "2-window         4         1     1       0",
        "1970-01-01T00:00:05Z .. 1970-01-01T00:00:12Z",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("\"a\""), "no value of a row is shown: {text}");
    let plain = told(&bench.engine, "EXPLAIN QUERY q").await;
    assert!(plain.contains("window   TUMBLE") && !plain.contains("2-window"), "{plain}");

    // Paused it has no figures; started again it counts from nothing, and what its state was made of is not counted again.
    run(&bench.engine, "PAUSE QUERY q").await.unwrap();
    let paused = told(&bench.engine, "EXPLAIN ANALYZE QUERY q").await;
    assert!(paused.contains("state    paused") && paused.contains("no operator has run") && paused.contains("lag not known"), "{paused}");
    run(&bench.engine, "RESUME QUERY q").await.unwrap();
    bench.write_keyed("v", 1, &[row("b", 1, 6)]).await;
    let again = status(&bench, "q", |q| q.counts.rows_in == 1 && q.operators.get(2).is_some_and(|of| of.rows_in == 1)).await;
    assert_eq!(rows_of(&again)[..3], [("0-source", 1, 1, 0), ("1-filter", 1, 1, 0), ("2-window", 1, 0, 0)]);
    run(&bench.engine, "DROP QUERY q").await.unwrap();
    assert!(bench.engine.statuses().await.is_empty());
    let error = run(&bench.engine, "EXPLAIN ANALYZE QUERY q").await.err().unwrap().to_string();
    assert!(error.contains("\"q\""), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_has_the_operators_of_both_sides_in_the_order_of_its_plan() {
    let join = "CREATE QUERY j AS INSERT INTO o SELECT a.p, a.x, b.x AS y FROM v a JOIN v b ON a.p = b.p AND a.ts = b.ts WHERE a.x > 1;";
    let bench = Bench::new(&format!("{STREAM} {join}")).await;
    bench.write_keyed("v", 0, &[row("a", 1, 1), row("a", 2, 2), row("a", 3, 12)]).await;
    let found = status(&bench, "j", |q| q.operators.last().is_some_and(|sink| sink.rows_in > 0) && q.lag == Some(0)).await;
    let names: Vec<&str> = found.operators.iter().map(|of| of.name.as_str()).collect();
    assert!(names.len() > 4 && names[0] == "0-source" && names.iter().filter(|name| name.ends_with("-source")).count() == 2, "{names:?}");
    assert!(names.iter().any(|name| name.ends_with("-join")) && names.last().unwrap().ends_with("-sink"), "{names:?}");
    let of = |kind: &str| found.operators.iter().filter(move |of| of.name.ends_with(kind)).collect::<Vec<_>>();
    assert_eq!(of("-source").iter().map(|of| of.rows_in).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(of("-join")[0].rows_in, 5, "two from the left, three from the right");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_select_over_history_is_run_for_its_figures() {
    let bench = Bench::new(STREAM).await;
    bench.write_keyed("v", 0, &[row("a", 1, 1), row("a", 0, 2), row("a", 3, 12), row("a", 4, 3)]).await;
    bench.write_keyed("v", 1, &[row("b", 1, 5)]).await;
    let text = told(&bench.engine, &format!("EXPLAIN ANALYZE {WINDOWS} ORDER BY p LIMIT 5")).await;
    for part in [
        "result   3 rows in ",
        "streaming operators",
        "window   TUMBLE",
        "0-source         5         5     0       0",
        "2-window         4         3     1",
        "most state",
        "batch operators",
        "output_rows=3",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let text = told(&bench.engine, "EXPLAIN ANALYZE SELECT count(*) FROM v").await;
    assert!(text.contains("result   1 rows in ") && !text.contains("streaming operators"), "{text}");
    run(&bench.engine, "CREATE FUNCTION doubled(n BIGINT) RETURNS BIGINT RETURN n * 2").await.unwrap();
    let text = told(&bench.engine, "EXPLAIN ANALYZE SELECT doubled(x) FROM v").await;
    assert!(text.contains("result   5 rows in "), "{text}");
    let sql = "EXPLAIN ANALYZE SELECT p FROM v EMIT CHANGES";
    let error = crate::sql::parse::parse_statement(sql).unwrap_err().to_string();
    assert!(error.contains("goes on for ever"), "{error}");
}

/// Readings of so many patients, one each, at this second.
fn crowd(from: usize, to: usize, second: i64) -> Vec<String> {
    (from..to).map(|n| row(&format!("patient-{n:06}"), 1, second)).collect()
}

/// How often each patient was told, with what count.
async fn told_once(bench: &Bench, patients: usize, n: i64) {
    let values = bench.values("o", patients).await;
    let expected: Vec<String> = (0..patients).map(|p| format!("{{\"p\":\"patient-{p:06}\",\"n\":{n}}}")).collect();
    assert_eq!(values, expected, "each once, with all of its rows");
}

const COUNTED: &str = "INSERT INTO o SELECT p, count(*) AS n FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
    GROUP BY p, window_start, window_end;";
const ONE: &str = "CREATE STREAM v (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
    WITH ('topic' = 'v', 'partitions' = '1');";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_would_hold_too_much_stops_at_its_last_commit_and_goes_on_with_more() {
    let bench = Bench::new(&format!("{ONE} CREATE QUERY q WITH ('state.max' = '128KiB') AS {COUNTED}")).await;
    bench.write_keyed("v", 0, &crowd(0, 100, 1)).await;
    let before = status(&bench, "q", |q| q.counts.commits > 0 && q.lag == Some(0) && q.counts.state_bytes > 0).await;
    assert!(!before.is_near_max && before.state_max == Some(128 << 10) && before.counts.state_bytes < 128 << 10, "{before:?}");
    for round in 0..20 {
        bench.write_keyed("v", 0, &crowd(round * 500, (round + 1) * 500, 2)).await;
    }
    let error = bench.failure("q").await;
    for part in ["may take 128 KiB", "'state.max'", "operator 2-window", "Nothing is lost", "'state.max' = '256KiB'", "state.ttl"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    assert!(!error.contains("trying again"), "{error}");
    let why = told(&bench.engine, "WHY QUERY q").await;
    assert!(why.contains("it has failed: its state has grown to"), "{why}");
    assert!(bench.values("o", 0).await.is_empty(), "no window has closed");
    // RESUME tries again, and comes to the same end.
    run(&bench.engine, "RESUME QUERY q").await.unwrap();
    assert!(bench.failure("q").await.contains("may take 128 KiB"));
    // What comes meanwhile is not lost either.
    bench.write_keyed("v", 0, &crowd(0, 10_000, 3)).await;
    run(&bench.engine, &format!("CREATE OR REPLACE QUERY q WITH ('state.max' = '64MiB') AS {COUNTED}")).await.unwrap();
    bench.write_keyed("v", 0, &crowd(0, 100, 61)).await;
    let mut expected: Vec<String> =
        (0..10_000).map(|p| format!("{{\"p\":\"patient-{p:06}\",\"n\":{}}}", if p < 100 { 3 } else { 2 })).collect();
    expected.sort();
    assert!(bench.values("o", 10_000).await == expected, "each patient once, with all of its rows");
    let after = status(&bench, "q", |q| q.lag == Some(0)).await;
    assert_eq!((after.state, after.state_max), (QueryState::Running, Some(64 << 20)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn near_its_limit_a_query_says_so_and_the_nodes_own_limit_holds_where_a_query_has_none() {
    let broker = TestDisk::default().broker().await;
    let bench = Bench::within(Arc::clone(&broker), Some(256 << 10)).await;
    for parsed in parse_script(&format!(
        "{ONE} CREATE QUERY q AS {COUNTED} CREATE QUERY all WITH ('state.max' = 'none') AS {}",
        COUNTED.replace("o SELECT", "a SELECT")
    ))
    .unwrap()
    {
        bench.engine.run(parsed).await.map(drop).unwrap();
    }
    let mut patients = 0;
    let near = loop {
        bench.write_keyed("v", 0, &crowd(patients, patients + 50, 1)).await;
        patients += 50;
        let found = status(&bench, "q", |q| q.lag == Some(0) && q.counts.rows_in as usize == patients).await;
        let held = found.counts.state_bytes;
        // Weighed a little later than read.
        if found.is_near_max {
            break found;
        }
        assert!(held < 240 << 10 && patients < 20_000, "{found:?}");
    };
    assert_eq!(near.state, QueryState::Running);
    assert!(near.counts.state_bytes >= 256 * 1024 * 8 / 10, "{near:?}");
    let why = told(&bench.engine, "WHY QUERY q").await;
    assert!(why.contains("and may take 256 KiB, at which it stops"), "{why}");
    let text = told(&bench.engine, "EXPLAIN ANALYZE QUERY q").await;
    assert!(text.contains(" of 256 KiB ("), "{text}");
    bench.write_keyed("v", 0, &crowd(patients, patients + 20_000, 1)).await;
    let error = bench.failure("q").await;
    assert!(error.contains("may take 256 KiB"), "{error}");
    // A query beside it that may hold anything is not touched.
    let all = status(&bench, "all", |q| q.counts.rows_in as usize == patients + 20_000).await;
    assert_eq!((all.state, all.state_max), (QueryState::Running, None));
    // A node that is started with more goes on where it stood.
    bench.engine.close().await;
    let again = Bench::within(broker, Some(64 << 20)).await;
    again.write_keyed("v", 0, &[row("z", 1, 61)]).await;
    told_once(&again, patients + 20_000, 1).await;
}
