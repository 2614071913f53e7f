//! Results that change, as records: under which key, when they are written, and when they are deleted.

use super::*;
use crate::sql::error::SqlError;

const STREAM: &str = "CREATE STREAM v (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
    WITH ('topic' = 'v', 'partitions' = '2', 'watermark.idle-timeout' = 'none');";

/// Key and value.
type Written = (Option<String>, Option<String>);

async fn records(bench: &Bench, name: &str) -> Vec<Written> {
    let mut all = Vec::new();
    for partition in 0..bench.bus.partitions(&topic(name)).await.unwrap().unwrap_or(0) {
        let of = TopicPartition::new(topic(name), PartitionId(partition));
        let end = bench.bus.bounds(&of).await.unwrap().end;
        let mut reader = bench.bus.open(&of, Offset::ZERO).await.unwrap();
        while reader.position() < end {
            for batch in reader.poll(1 << 20).await.unwrap() {
                let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
                all.extend(batch.records().unwrap().iter().map(|r| r.map(|r| (text(r.key), text(r.value))).unwrap()));
            }
        }
    }
    all
}

/// Waits until the last value of each key is this.
pub(super) async fn left(bench: &Bench, name: &str, expected: &[(&str, &str)]) {
    let begun = Instant::now();
    loop {
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in records(bench, name).await {
            let key = key.expect("every row that changes has a key");
            match value {
                Some(value) => last.insert(key, value),
                None => last.remove(&key),
            };
        }
        let found: Vec<(&str, &str)> = last.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        if found == expected {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{name} leaves {found:?}; {:?}", bench.engine.statuses().await);
        tokio::task::yield_now().await;
    }
}

async fn read_all(bench: &Bench) {
    let begun = Instant::now();
    while bench.engine.statuses().await.iter().any(|q| q.state != QueryState::Running || q.lag != Some(0)) {
        assert!(begun.elapsed() < DEADLINE, "{:?}", bench.engine.statuses().await);
        tokio::task::yield_now().await;
    }
}

fn row(p: &str, x: i64, second: i64) -> String {
    format!("{{\"p\":\"{p}\",\"x\":{x},\"ts\":{}}}", second * 1000)
}

async fn run(bench: &Bench, script: &str) -> Result<(), SqlError> {
    for parsed in parse_script(script).unwrap() {
        bench.engine.run(parsed).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_group_is_written_under_its_key_and_deleted_where_it_no_longer_passes_or_is_let_go() {
    let query = "CREATE QUERY q WITH ('state.ttl' = '60s') AS INSERT INTO o SELECT p, count(*) AS n FROM v GROUP BY p HAVING max(x) < 10;";
    let bench = Bench::new(&format!("{STREAM} {query}")).await;
    bench.write("v", 0, &[&row("a", 1, 0), &row("b", 2, 1)]).await;
    bench.write("v", 1, &[&row("a", 3, 0)]).await;
    left(&bench, "o", &[("a", "{\"p\":\"a\",\"n\":2}"), ("b", "{\"p\":\"b\",\"n\":1}")]).await;
    bench.write("v", 1, &[&row("a", 10, 2)]).await;
    left(&bench, "o", &[("b", "{\"p\":\"b\",\"n\":1}")]).await;
    // Both partitions have to come past what was last heard of b.
    bench.write("v", 0, &[&row("c", 5, 100)]).await;
    bench.write("v", 1, &[&row("c", 6, 100)]).await;
    left(&bench, "o", &[("c", "{\"p\":\"c\",\"n\":2}")]).await;
    let gone = records(&bench, "o").await.into_iter().filter(|(_, value)| value.is_none()).count();
    assert_eq!(gone, 2, "a by its condition, b by its age; and a is not deleted twice");
    bench.engine.close().await;
}

#[tokio::test]
async fn what_has_changed_waits_for_its_interval_also_through_a_restart() {
    let create = |every: &str| {
        format!("CREATE OR REPLACE QUERY q AS INSERT INTO o SELECT p, sum(x) AS s FROM v GROUP BY p EMIT EVERY INTERVAL {every};")
    };
    let bench = Bench::new(&format!("{STREAM} {}", create("'1' HOUR"))).await;
    bench.write("v", 0, &[&row("a", 1, 0), &row("b", 2, 1)]).await;
    read_all(&bench).await;
    assert_eq!(records(&bench, "o").await, []);
    bench.engine.close().await;
    let bench = Bench::over(Arc::clone(&bench.broker)).await;
    bench.write("v", 1, &[&row("a", 10, 2)]).await;
    read_all(&bench).await;
    assert_eq!(records(&bench, "o").await, []);
    run(&bench, &create("'20 milliseconds'")).await.unwrap();
    left(&bench, "o", &[("a", "{\"p\":\"a\",\"s\":11}"), ("b", "{\"p\":\"b\",\"s\":2}")]).await;
    // What has not changed since is not written again.
    let before = records(&bench, "o").await.len();
    assert_eq!(before, 2);
    bench.write("v", 1, &[&row("b", 1, 3)]).await;
    left(&bench, "o", &[("a", "{\"p\":\"a\",\"s\":11}"), ("b", "{\"p\":\"b\",\"s\":3}")]).await;
    assert_eq!(records(&bench, "o").await.len(), before + 1);
    bench.engine.close().await;
}

#[tokio::test]
async fn the_one_group_of_all_rows_has_a_key_too() {
    let bench = Bench::new(&format!("{STREAM} CREATE QUERY q AS INSERT INTO o SELECT count(*) AS n FROM v;")).await;
    bench.write("v", 0, &[&row("a", 1, 0)]).await;
    bench.write("v", 1, &[&row("a", 1, 0)]).await;
    left(&bench, "o", &[("[]", "{\"n\":2}")]).await;
    bench.engine.close().await;
}

#[tokio::test]
async fn a_table_takes_results_that_change_by_its_primary_key_and_no_others() {
    let bench = Bench::new(&format!(
        "{STREAM} CREATE TABLE latest (p VARCHAR NOT NULL, n BIGINT, PRIMARY KEY (p) NOT ENFORCED) WITH ('topic' = 'latest');
         CREATE STREAM by_count (p VARCHAR, n BIGINT) WITH ('topic' = 'by_count', 'key' = 'n');"
    ))
    .await;
    let query = |into: &str| format!("CREATE QUERY q AS INSERT INTO {into} SELECT p, count(*) AS n FROM v GROUP BY p HAVING count(*) < 3;");
    let refused = run(&bench, &query("by_count")).await.unwrap_err();
    assert!(refused.message.contains("their key is (p), while the key of \"by_count\" is (n)"), "{}", refused.message);
    run(&bench, &query("latest")).await.unwrap();
    bench.write("v", 0, &[&row("a", 1, 0), &row("b", 1, 0), &row("b", 1, 1), &row("b", 1, 2)]).await;
    left(&bench, "latest", &[("a", "{\"p\":\"a\",\"n\":1}")]).await;
    bench.engine.close().await;
}

#[tokio::test]
async fn results_that_change_are_no_stream_of_rows() {
    let changing = "CREATE QUERY q AS INSERT INTO o SELECT p, count(*) AS n FROM v GROUP BY p;";
    let bench = Bench::new(&format!("{STREAM} {changing} CREATE STREAM again (p VARCHAR, n BIGINT) WITH ('topic' = 'o');")).await;
    let refusal = async |script: &str| run(&bench, script).await.expect_err(script).render(script);
    for name in ["o", "again"] {
        let told = refusal(&format!("CREATE QUERY r AS INSERT INTO s SELECT p, n + 1 AS n FROM {name};")).await;
        assert!(told.contains("SQL-0021") && told.contains("holds the results of query \"q\", which change"), "{told}");
        assert!(told.contains("^") && told.contains("read them as a table"), "{told}");
    }
    assert!(bench.engine.bus.partitions(&topic("s")).await.unwrap().is_none(), "nothing is left behind");
    run(&bench, "CREATE QUERY r AS INSERT INTO s SELECT p, x FROM v;").await.unwrap();
    run(&bench, "CREATE QUERY reader AS INSERT INTO t SELECT p, x + 1 AS x FROM s;").await.unwrap();
    let told = refusal("CREATE OR REPLACE QUERY r AS INSERT INTO s SELECT p, sum(x) AS x FROM v GROUP BY p;").await;
    assert!(told.contains("the results change, and query \"reader\" reads \"s\" as a stream"), "{told}");
    bench.engine.close().await;
}

#[tokio::test]
async fn a_row_that_fails_behind_a_union_says_which_topic_it_came_from() {
    let bench = Bench::new(&format!(
        "{STREAM} {} CREATE QUERY q AS INSERT INTO o
           SELECT p, sum(x) OVER (PARTITION BY p ORDER BY ts ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS x
           FROM (SELECT p, x, ts FROM v UNION ALL SELECT p, x, ts FROM w);",
        STREAM.replace("STREAM v", "STREAM w").replace("'topic' = 'v'", "'topic' = 'w'")
    ))
    .await;
    for partition in 0..2 {
        bench.write("v", partition, &[&row("a", 1, 1), &row("a", 1, 9)]).await;
    }
    bench.write("w", 1, &[&row("b", i64::MAX, 2), &row("b", 1, 3), &row("b", 1, 9)]).await;
    bench.write("w", 0, &[&row("b", 1, 9)]).await;
    bench.values("o", 3).await;
    let of = TopicPartition::new(topic("q.dlq"), PartitionId(0));
    let mut found = Vec::new();
    for partition in 0..bench.bus.partitions(&of.topic).await.unwrap().unwrap_or(0) {
        let mut reader = bench.bus.open(&TopicPartition::new(of.topic.clone(), PartitionId(partition)), Offset::ZERO).await.unwrap();
        for batch in reader.poll(1 << 20).await.unwrap() {
            for record in batch.records().unwrap().iter() {
                let headers =
                    record.unwrap().headers().flatten().map(|(key, value)| {
                        format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value.unwrap_or_default()))
                    });
                found.push(headers.collect::<Vec<_>>().join(" "));
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    let wanted = ["vitalsql-source-topic=w", "vitalsql-source-partition=1", "vitalsql-source-offset=1"];
    assert!(wanted.iter().all(|header| found[0].contains(header)), "{found:?}");
    bench.engine.close().await;
}
