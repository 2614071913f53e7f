//! `CREATE VIEW`: a name for a query's text, wherever it is read; what becomes of its readers as it changes; where errors point.

use super::replace::{counts, query, reading, run};
use super::*;
use crate::sql::error::{Code, SqlError};

const STREAM: &str = "CREATE STREAM v (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
    WITH ('topic' = 'v', 'partitions' = '1', 'key' = 'p');
    CREATE STREAM o (plan VARCHAR, p VARCHAR, n BIGINT) WITH ('topic' = 'o', 'partitions' = '1');
    CREATE VIEW high AS SELECT p, x, ts FROM v WHERE x > 3;
    CREATE VIEW higher (who, much, at) AS SELECT p, x * 10, ts FROM high WHERE x > 6;";

async fn refused(bench: &Bench, text: &str) -> SqlError {
    match run(bench, text).await {
        Ok(said) => panic!("{text}: {said}"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_view_is_its_query_in_streams_in_windows_and_over_what_is_stored_also_after_a_restart() {
    let bench = Bench::new(&format!(
        "{STREAM} {} CREATE QUERY w AS INSERT INTO sums SELECT who, window_end, sum(much) AS n
            FROM TABLE(TUMBLE(TABLE higher, DESCRIPTOR(at), INTERVAL '1' MINUTE)) GROUP BY who, window_start, window_end;
         CREATE QUERY j AS INSERT INTO pairs SELECT a.p, a.x AS a, h.much AS b FROM high AS a JOIN higher h
            ON a.p = h.who AND a.ts BETWEEN h.at - INTERVAL '1' SECOND AND h.at;",
        query("plain", "p, x AS n FROM high")
    ))
    .await;
    bench
        .write_keyed("v", 0, &[reading("a", 1, 0), reading("a", 7, 1), reading("a", 9, 2), reading("b", 4, 70), reading("b", 8, 140)])
        .await;
    assert_eq!(counts(&bench, 4).await, [4, 7, 8, 9]);
    assert_eq!(bench.values("sums", 1).await.len(), 1);
    assert_eq!(bench.values("pairs", 3).await, [r#"{"p":"a","a":7,"b":70}"#, r#"{"p":"a","a":7,"b":90}"#, r#"{"p":"a","a":9,"b":90}"#]);
    let select = "SELECT who, sum(much) AS n FROM higher AS h GROUP BY who";
    assert_eq!(stored(&bench.engine, select).await, [r#"{"who":"a","n":160}"#, r#"{"who":"b","n":80}"#]);
    // What is said of a column goes before what the view says.
    assert_eq!(stored(&bench.engine, "SELECT b, c FROM higher AS h (a, b, c) WHERE a = 'b'").await.len(), 1);
    let of_with = "WITH high AS (SELECT 5 AS x) SELECT x FROM high";
    assert_eq!(stored(&bench.engine, of_with).await, [r#"{"x":5}"#], "a name of WITH hides a view's");
    bench.engine.close().await;
    let bench = Bench::over(Arc::clone(&bench.broker)).await;
    bench.write_keyed("v", 0, &[reading("a", 50, 200), reading("a", 2, 201)]).await;
    assert_eq!(counts(&bench, 5).await, [4, 7, 8, 9, 50]);
    bench.engine.close().await;
}

#[tokio::test]
async fn a_view_is_shown_described_replaced_and_not_dropped_while_it_is_read() {
    let bench = Bench::new(&format!("{STREAM} {}", query("q", "who AS p, much AS n FROM higher"))).await;
    bench.write_keyed("v", 0, &[reading("a", 7, 0), reading("a", 5, 1)]).await;
    assert_eq!(counts(&bench, 1).await, [70]);
    for (text, users) in [("DROP VIEW high", "view \"higher\""), ("DROP VIEW higher", "query \"q\""), ("DROP STREAM v", "view \"high\"")] {
        let error = refused(&bench, text).await;
        assert!(error.code == Code::InUse && error.message.ends_with(&format!("is used by {users}")), "{error:?}");
    }
    let error = refused(&bench, "CREATE VIEW high AS SELECT p FROM v").await;
    assert!(error.code == Code::NameTaken, "{error:?}");
    // Whoever reads it, through another view too, goes on with the new one.
    run(&bench, "CREATE OR REPLACE VIEW high AS SELECT p, x + 100 AS x, ts FROM v").await.unwrap();
    bench.write_keyed("v", 0, &[reading("a", 1, 2)]).await;
    assert_eq!(counts(&bench, 2).await.last(), Some(&1010));
    let error = refused(&bench, "CREATE OR REPLACE VIEW high AS SELECT who AS p, much AS x, at AS ts FROM higher").await;
    assert!(error.message.contains("would stand for itself"), "{error:?}");
    let error = refused(&bench, "CREATE OR REPLACE VIEW high AS SELECT p, n AS x, TIMESTAMP '2026-01-01 00:00:00' AS ts FROM o").await;
    assert!(error.message.contains("would feed itself"), "{error:?}");
    run(&bench, "DROP QUERY q; DROP VIEW higher; DROP VIEW high; DROP VIEW IF EXISTS high").await.unwrap();
    assert_eq!(refused(&bench, "SELECT * FROM high").await.code, Code::NoSuchName);
    bench.engine.close().await;
}

#[tokio::test]
async fn what_cannot_be_a_view_or_cannot_be_done_with_one() {
    let bench = Bench::new(STREAM).await;
    for (text, part) in [
        ("CREATE VIEW w AS SELECT y FROM v", "no column \"y\""),
        ("CREATE VIEW w AS SELECT x FROM vv", "there is no stream \"vv\""),
        ("CREATE VIEW w (a, b) AS SELECT x FROM v", "names 2 columns, and its query has 1"),
        ("CREATE VIEW v AS SELECT x FROM o", "there is already a stream \"v\""),
        ("INSERT INTO high VALUES ('a', 1, TIMESTAMP '2026-01-01 00:00:00')", "there is no stream \"high\""),
        ("CREATE QUERY q AS INSERT INTO high SELECT p, x, ts FROM v", "there is already a view \"high\""),
        ("SUBSCRIBE TO high", "is not materialized"),
        ("PAUSE VIEW high", "there is no materialized view \"high\""),
        ("WITH v AS (SELECT 1 AS x) SELECT high.x FROM high, v", "WITH gives the name \"v\" to something else"),
    ] {
        let error = refused(&bench, text).await;
        assert!(error.message.contains(part), "{text}: {error:?}");
    }
    let mut deep = String::new();
    for depth in 0..10 {
        let before = if depth == 0 { "v".to_owned() } else { format!("d{}", depth - 1) };
        deep.push_str(&format!("CREATE VIEW d{depth} AS SELECT * FROM {before};"));
    }
    assert!(refused(&bench, &deep).await.message.contains("more than 8 deep"));
    bench.engine.close().await;
}

#[tokio::test]
async fn an_error_in_what_a_view_says_points_into_its_text() {
    let bench = Bench::new(STREAM).await;
    run(&bench, "CREATE VIEW latest AS\n  SELECT p, x FROM v\n  ORDER BY ts; CREATE VIEW through AS SELECT p FROM latest").await.unwrap();
    let shown = async |sql: &str| {
        let mut parsed = parse_script(sql).unwrap();
        let parsed = parsed.remove(0);
        let error = bench.engine.run(parsed.clone()).await.err().unwrap_or_else(|| panic!("taken: {sql}"));
        parsed.locate(error).render(sql)
    };
    expect_test::expect![[r#"
        error[SQL-0002]: not supported yet: ORDER BY over a stream that goes on
          1 | CREATE QUERY q AS INSERT INTO z SELECT x FROM latest
            |                                               ^^^^^^ reads view "latest", in which
          3 |   ORDER BY ts
            |            ^^ leave it out here; a SELECT over stored data may have it
    "#]]
    .assert_eq(&shown("CREATE QUERY q AS INSERT INTO z SELECT x FROM latest").await);
    expect_test::expect![[r#"
        error[SQL-0002]: not supported yet: ORDER BY over a stream that goes on
          1 | CREATE QUERY q AS INSERT INTO z SELECT p FROM through
            |                                               ^^^^^^^ reads view "through", in which
          1 | CREATE VIEW through AS SELECT p FROM latest
            |                                      ^^^^^^ reads view "latest", in which
          3 |   ORDER BY ts
            |            ^^ leave it out here; a SELECT over stored data may have it
    "#]]
    .assert_eq(&shown("CREATE QUERY q AS INSERT INTO z SELECT p FROM through").await);
    run(&bench, "CREATE VIEW counted AS SELECT x, lag(x) OVER (ORDER BY x) AS b FROM v").await.unwrap();
    expect_test::expect![[r#"
        error[SQL-0021]: "x" is not the event time of "v"
          1 | CREATE QUERY q AS INSERT INTO z SELECT b FROM counted
            |                                               ^^^^^^^ reads view "counted", in which
          1 | CREATE VIEW counted AS SELECT x, lag(x) OVER (ORDER BY x) AS b FROM v
            |                               ^ take "ts", or a window's window_start, window_end or window_time
    "#]]
    .assert_eq(&shown("CREATE QUERY q AS INSERT INTO z SELECT b FROM counted").await);
    // What is wrong outside is shown outside.
    expect_test::expect![[r#"
        error[SQL-0012]: no column "y"
          1 | SELECT y FROM high
            |        ^
          columns: p, x, ts
    "#]]
    .assert_eq(&shown("SELECT y FROM high").await);
    bench.engine.close().await;
}
