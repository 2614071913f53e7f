//! `CREATE FUNCTION`: what a call stands for, wherever it is written, and what becomes of queries as a function changes.

use super::replace::{counts, query, read_all, reading, run};
use super::*;
use crate::sql::error::{Code, SqlError};

const STREAM: &str = "CREATE STREAM v (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
    WITH ('topic' = 'v', 'partitions' = '1', 'key' = 'p');
    CREATE STREAM o (plan VARCHAR, p VARCHAR, n BIGINT) WITH ('topic' = 'o', 'partitions' = '1');
    CREATE FUNCTION twice(n BIGINT) RETURNS BIGINT RETURN n * 2;
    CREATE FUNCTION most(a BIGINT, b BIGINT) RETURNS BIGINT RETURN CASE WHEN a > b THEN a ELSE twice(b) / 2 END;";

async fn refused(bench: &Bench, text: &str) -> SqlError {
    match run(bench, text).await {
        Ok(said) => panic!("{text}: {said}"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_call_is_its_expression_in_streams_in_windows_over_what_is_stored_and_in_values() {
    let bench = Bench::new(&format!(
        "{STREAM} {} CREATE QUERY w AS INSERT INTO sums SELECT p, sum(twice(x)) AS n FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
            WHERE most(x, 3) < 9 GROUP BY p, window_start, window_end;",
        query("plain", "p, twice(most(x, 4)) AS n FROM v")
    ))
    .await;
    bench.write_keyed("v", 0, &[reading("a", 1, 0), reading("a", 7, 1), reading("a", 9, 2), reading("b", 2, 70)]).await;
    assert_eq!(counts(&bench, 4).await, [8, 8, 14, 18]);
    assert_eq!(bench.values("sums", 1).await, [r#"{"p":"a","n":16}"#]);
    let found = stored(&bench.engine, "SELECT twice(x), max(most(x, 5)) AS m FROM v WHERE twice(x) < 10 GROUP BY twice(x)").await;
    assert_eq!(found, [r#"{"twice(x)":2,"m":5}"#, r#"{"twice(x)":4,"m":5}"#]);
    run(&bench, "INSERT INTO v VALUES ('c', twice(21), TIMESTAMP '2026-01-01 00:02:00')").await.unwrap();
    assert_eq!(*counts(&bench, 5).await.last().unwrap(), 84);
    // A row whose expression fails is one dead letter, as without the function.
    run(&bench, "CREATE FUNCTION part(n BIGINT) RETURNS BIGINT RETURN 100 / n; CREATE QUERY d AS INSERT INTO parts SELECT p, part(x - 2) AS n FROM v;")
        .await
        .unwrap();
    assert_eq!(bench.values("parts", 4).await.len(), 4);
    assert_eq!(bench.values("d.dlq", 1).await.len(), 1);
    bench.engine.close().await;
    let bench = Bench::over(Arc::clone(&bench.broker)).await;
    bench.write_keyed("v", 0, &[reading("a", 50, 200)]).await;
    assert_eq!(*counts(&bench, 6).await.last().unwrap(), 100);
    bench.engine.close().await;
}

#[tokio::test]
async fn a_function_that_changes_changes_its_callers_and_one_that_is_called_is_not_dropped() {
    let bench = Bench::new(&format!("{STREAM} {}", query("q", "p, most(x, 0) AS n FROM v"))).await;
    bench.write_keyed("v", 0, &[reading("a", 1, 0), reading("a", -5, 1)]).await;
    assert_eq!(counts(&bench, 2).await, [0, 1]);
    read_all(&bench).await;
    let error = refused(&bench, "DROP FUNCTION twice").await;
    assert!(error.code == Code::InUse && error.message.ends_with("is used by function \"most\""), "{error:?}");
    let error = refused(&bench, "DROP FUNCTION most").await;
    assert!(error.message.ends_with("is used by query \"q\""), "{error:?}");
    // Through another function.
    run(&bench, "CREATE OR REPLACE FUNCTION twice(n BIGINT) RETURNS BIGINT RETURN n * 2 + 14").await.unwrap();
    bench.write_keyed("v", 0, &[reading("a", -7, 2)]).await;
    assert_eq!(counts(&bench, 3).await, [0, 1, 7]);
    let error = refused(&bench, "CREATE OR REPLACE FUNCTION twice(n BIGINT) RETURNS BIGINT RETURN most(n, n)").await;
    assert!(error.message.contains("would call itself"), "{error:?}");
    run(&bench, "DROP QUERY q; DROP FUNCTION most; DROP FUNCTION twice; DROP FUNCTION IF EXISTS twice").await.unwrap();
    assert_eq!(refused(&bench, "SELECT twice(x) FROM v").await.code, Code::NoSuchFunction);
    bench.engine.close().await;
}

#[tokio::test]
async fn what_cannot_be_a_function_or_a_call_is_refused_with_its_place() {
    let bench = Bench::new(STREAM).await;
    for (text, part) in [
        ("CREATE FUNCTION avg(n BIGINT) RETURNS BIGINT RETURN n", "which comes with VitalSQL"),
        ("CREATE FUNCTION news2(n BIGINT) RETURNS BIGINT RETURN n", "which comes with VitalSQL"),
        ("CREATE FUNCTION tumble_start(n BIGINT) RETURNS BIGINT RETURN n", "which comes with VitalSQL"),
        ("CREATE FUNCTION f(n BIGINT) RETURNS BIGINT RETURN m + 1", "\"m\""),
        ("CREATE FUNCTION f(n BIGINT) RETURNS BIGINT RETURN sum(n)", "\"sum\", which looks at several rows, cannot stand in a function"),
        ("CREATE FUNCTION f(n BIGINT) RETURNS BIGINT RETURN (SELECT max(x) FROM v)", "a subquery cannot stand in a function"),
        ("CREATE FUNCTION f(n BIGINT) RETURNS BIGINT RETURN lag(n) OVER (ORDER BY n)", "cannot stand in a function"),
        ("CREATE FUNCTION f(n BIGINT) RETURNS BIGINT RETURN f(n)", "would call itself"),
        ("CREATE FUNCTION f(n BIGINT, n INT) RETURNS BIGINT RETURN n", "is there twice"),
        ("CREATE FUNCTION f(n BIGINT) RETURNS STRUCT<a INT> RETURN n", "returns STRUCT<a INT>, and its expression is BIGINT"),
        ("CREATE FUNCTION twice(n BIGINT) RETURNS BIGINT RETURN n", "there is already a function \"twice\""),
        ("SELECT twice(x, 1) FROM v", "function \"twice\" takes 1 argument, and here are 2"),
        ("SELECT twice(DISTINCT x) FROM v", "DISTINCT, ORDER BY, LIMIT of a function"),
        ("SELECT twice(x) OVER (ORDER BY ts) FROM v", "OVER of a function"),
        ("CREATE QUERY q AS INSERT INTO z SELECT twise(x) AS n FROM v", "twise"),
    ] {
        let error = refused(&bench, text).await;
        assert!(error.message.contains(part), "{text}: {error:?}");
        assert!(error.place.is_some() || text.contains("twise") || text.contains('m'), "{text} has no place: {error:?}");
    }
    // Each calls the one before it twice: the calls are counted before they are made.
    let mut deep = String::from("CREATE FUNCTION g0(n BIGINT) RETURNS BIGINT RETURN n + 1;");
    for depth in 1..12 {
        let before = depth - 1;
        deep.push_str(&format!("CREATE FUNCTION g{depth}(n BIGINT) RETURNS BIGINT RETURN g{before}(n) + g{before}(n);"));
    }
    let error = refused(&bench, &deep).await;
    assert!(error.message.contains("more than 1000 times"), "{error:?}");
    bench.engine.close().await;
}

#[tokio::test]
async fn a_new_stream_has_the_columns_that_insert_into_lists_and_takes_texts_that_aggregates_make() {
    let bench = Bench::new(&format!(
        "{STREAM} CREATE QUERY w AS INSERT INTO sums (who, total, all_x)
            SELECT p, sum(x), listagg(CAST(x AS VARCHAR) ORDER BY x) FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
            GROUP BY p, window_start, window_end;"
    ))
    .await;
    bench.write_keyed("v", 0, &[reading("a", 7, 0), reading("a", 2, 1), reading("a", 9, 70)]).await;
    assert_eq!(bench.values("sums", 1).await, [r#"{"who":"a","total":9,"all_x":"2,7"}"#]);
    assert_eq!(stored(&bench.engine, "SELECT total FROM sums WHERE who = 'a'").await, [r#"{"total":9}"#]);
    let error = refused(&bench, "CREATE QUERY x AS INSERT INTO other (a, b) SELECT p FROM v").await;
    assert_eq!(error.message, "INSERT INTO lists 2 columns and the SELECT gives 1");
    bench.engine.close().await;
}
