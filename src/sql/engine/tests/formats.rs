//! Streams of other formats: read, written, and their bad records aside.

use super::*;
use crate::registry::double::RegistryDouble;

const LINES: &str = "
    CREATE STREAM lines (p VARCHAR NOT NULL, hr DOUBLE, note VARCHAR, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
        WITH ('topic' = 'lines', 'partitions' = '1', 'format' = 'csv', 'csv.delimiter' = ';', 'csv.null' = '-');";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_reads_csv_and_writes_nested_json_csv_and_raw() {
    let bench = Bench::new(&format!(
        "{LINES}
         CREATE STREAM nested (p VARCHAR, hr DOUBLE, ts TIMESTAMP(3))
             WITH ('topic' = 'nested', 'partitions' = '1', 'json.path.hr' = 'vitals.hr.value', 'json.path.ts' = 'vitals.ts');
         CREATE STREAM back (ts TIMESTAMP(3), note VARCHAR NOT NULL, more INT, p VARCHAR) WITH ('topic' = 'back', 'partitions' = '1', 'format' = 'csv');
         CREATE STREAM bare (line VARCHAR) WITH ('topic' = 'bare', 'partitions' = '1', 'format' = 'raw');
         CREATE QUERY a AS INSERT INTO nested SELECT p, hr, ts FROM lines;
         CREATE QUERY b AS INSERT INTO back SELECT p, note, ts FROM lines;
         CREATE QUERY c AS INSERT INTO bare SELECT p || '/' || note AS line FROM lines;"
    ))
    .await;
    let rows = [
        "ann;72.5;\"a;b\";2026-01-01T00:00:00Z",
        "bob;80;-;2026-01-01T00:00:01Z",
        "cleo;fast;x;2026-01-01T00:00:02Z",
        "dan;-;;2026-01-01T00:00:03Z",
    ];
    bench.write("lines", 0, &rows).await;
    let nested = [
        r#"{"p":"ann","vitals":{"hr":{"value":72.5},"ts":"2026-01-01T00:00:00Z"}}"#,
        r#"{"p":"bob","vitals":{"hr":{"value":80.0},"ts":"2026-01-01T00:00:01Z"}}"#,
        r#"{"p":"dan","vitals":{"hr":{"value":null},"ts":"2026-01-01T00:00:03Z"}}"#,
    ];
    assert_eq!(bench.values("nested", 3).await, nested);
    assert_eq!(bench.values("lines.dlq", 1).await, [rows[2]]);
    // Bob's note is NULL, which neither stream can hold.
    assert_eq!(bench.values("back", 2).await, ["2026-01-01T00:00:00Z,a;b,,ann", "2026-01-01T00:00:03Z,\"\",,dan"]);
    assert_eq!(bench.values("bare", 2).await, ["ann/a;b", "dan/"]);
    for failed in ["b.dlq", "c.dlq"] {
        assert_eq!(bench.values(failed, 1).await.len(), 1, "{failed}");
    }
    let read = stored(&bench.engine, "SELECT p, note, more, ts FROM back").await;
    assert_eq!(
        read,
        [
            r#"{"p":"ann","note":"a;b","more":null,"ts":"2026-01-01T00:00:00Z"}"#,
            r#"{"p":"dan","note":"","more":null,"ts":"2026-01-01T00:00:03Z"}"#
        ]
    );
    assert_eq!(stored(&bench.engine, "SELECT hr FROM nested WHERE hr > 75").await, [r#"{"hr":80.0}"#]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn avro_goes_through_a_registry_from_one_query_to_the_next() {
    let double = RegistryDouble::start();
    let url = &double.url;
    let script = format!(
        "CREATE STREAM src (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts) WITH ('topic' = 'src', 'partitions' = '1');
         CREATE STREAM mid (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts)
             WITH ('topic' = 'mid', 'partitions' = '1', 'format' = 'avro', 'schema.registry.url' = '{url}');
         CREATE QUERY a AS INSERT INTO mid SELECT p, x, ts FROM src;
         CREATE QUERY b AS INSERT INTO o SELECT p, x * 2 AS y FROM mid;"
    );
    let bench = Bench::new(&script).await;
    bench.write("src", 0, &[r#"{"p":"ann","x":21,"ts":"2026-01-01T00:00:00Z"}"#, r#"{"p":"bob","ts":"2026-01-01T00:00:01Z"}"#]).await;
    assert_eq!(bench.values("o", 2).await, [r#"{"p":"ann","y":42}"#, r#"{"p":"bob","y":null}"#]);
    assert_eq!(stored(&bench.engine, "SELECT p FROM mid WHERE x = 21").await, [r#"{"p":"ann"}"#]);
    {
        let shelf = double.shelf.lock();
        assert_eq!(shelf.subjects, [("mid-value".to_owned(), vec![1])]);
        let posts = shelf.asked.iter().filter(|asked| asked.starts_with("POST")).count();
        let gets = shelf.asked.iter().filter(|asked| asked.starts_with("GET")).count();
        assert_eq!((posts, gets), (1, 1), "{:?}", shelf.asked);
    }
    // A stranger's record under an id that the registry does not have is a dead letter, and the others go on.
    bench.write("mid", 0, &["\u{0}\u{0}\u{0}\u{0}\u{7}x", "no frame"]).await;
    bench.write("src", 0, &[r#"{"p":"cleo","x":1,"ts":"2026-01-01T00:00:02Z"}"#]).await;
    assert_eq!(bench.values("o", 3).await[2], r#"{"p":"cleo","y":2}"#);
    assert_eq!(bench.values("mid.dlq", 2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_does_not_answer_stops_a_query_and_loses_nothing() {
    let double = RegistryDouble::start();
    let script = format!(
        "CREATE STREAM mid (p VARCHAR NOT NULL) WITH ('topic' = 'mid', 'partitions' = '1', 'format' = 'avro', 'schema.registry.url' = '{}');
         CREATE QUERY b AS INSERT INTO o SELECT p FROM mid;",
        double.url
    );
    let bench = Bench::new(&script).await;
    double.shelf.lock().ill = Some((503, r#"{"error_code":50003,"message":"no leader"}"#.to_owned()));
    bench.write("mid", 0, &["\u{0}\u{0}\u{0}\u{0}\u{1}\u{2}a"]).await;
    let error = bench.failure("b").await;
    assert!(error.contains(&double.url) && error.contains("schema 1") && error.contains("no leader"), "{error}");
    double.add("mid-value", &serde_json::json!({ "schema": r#"{"type":"record","name":"r","fields":[{"name":"p","type":"string"}]}"# }));
    double.shelf.lock().ill = None;
    assert_eq!(bench.values("o", 1).await, [r#"{"p":"a"}"#]);
    let refused = format!(
        "CREATE STREAM closed (p VARCHAR) WITH ('topic' = 'closed', 'format' = 'avro', 'schema.registry.url' = '{}');
         CREATE QUERY c AS INSERT INTO closed SELECT p FROM mid;",
        double.url
    );
    let mut parsed = parse_script(&refused).unwrap().into_iter();
    assert!(bench.engine.run(parsed.next().unwrap()).await.is_ok());
    let error = bench.engine.run(parsed.next().unwrap()).await.err().expect("the registry takes no schema for it").to_string();
    assert!(error.contains("closed-value") && error.contains("incompatible") && error.contains(&double.url), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_databases_changes_are_a_table_and_a_stream_of_what_they_left() {
    let bench = Bench::new(
        "CREATE STREAM v (p VARCHAR NOT NULL, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts) WITH ('topic' = 'v', 'partitions' = '2', 'key' = 'p');
         CREATE TABLE bed (p VARCHAR, bed VARCHAR, since TIMESTAMP(3), WATERMARK FOR since AS since, PRIMARY KEY (p) NOT ENFORCED)
             WITH ('topic' = 'bed', 'partitions' = '2', 'format' = 'debezium');
         CREATE STREAM moves (p VARCHAR, bed VARCHAR) WITH ('topic' = 'bed', 'format' = 'debezium');
         CREATE QUERY m AS INSERT INTO moved SELECT p, bed FROM moves;",
    )
    .await;
    let row = |p: &str, bed: &str, second: i64| format!(r#"{{"p":"{p}","bed":"{bed}","since":{}}}"#, second * 1_000);
    let change = |op: &str, before: &str, after: &str| format!(r#"{{"op":"{op}","before":{before},"after":{after}}}"#);
    let (one, two, three) = (row("ann", "1", 1), row("ann", "2", 5), row("zoe", "9", 20));
    // The connector has put them where its own keys lie, which is not where the stream's do.
    bench.write("bed", 0, &[&change("c", "null", &one), &change("u", &one, &two)]).await;
    bench
        .write(
            "bed",
            1,
            &[&change("r", "null", &row("bob", "3", 1)), &change("d", &row("bob", "3", 1), "null"), &change("c", "null", &three)],
        )
        .await;
    let reading = |p: &str, second: i64| format!(r#"{{"p":"{p}","ts":{}}}"#, second * 1_000);
    let place = |p: &str| crate::bus::partition_for_key(p.as_bytes(), 2).0;
    bench.write_keyed("v", place("ann"), &[reading("ann", 2), reading("ann", 6)]).await;
    bench.write_keyed("v", place("zoe"), &[reading("zoe", 9), reading("zoe", 30)]).await;
    let moved = bench.values("moved", 4).await;
    assert_eq!(moved, [r#"{"p":"ann","bed":"1"}"#, r#"{"p":"ann","bed":"2"}"#, r#"{"p":"bob","bed":"3"}"#, r#"{"p":"zoe","bed":"9"}"#]);
    assert_eq!(stored(&bench.engine, "SELECT p, bed FROM bed").await, [r#"{"p":"ann","bed":"2"}"#, r#"{"p":"zoe","bed":"9"}"#]);
    let expected = [
        r#"{"p":"ann","ts":"1970-01-01T00:00:02Z","bed":"1"}"#,
        r#"{"p":"ann","ts":"1970-01-01T00:00:06Z","bed":"2"}"#,
        r#"{"p":"zoe","ts":"1970-01-01T00:00:09Z","bed":null}"#,
        r#"{"p":"zoe","ts":"1970-01-01T00:00:30Z","bed":"9"}"#,
    ];
    let asked = "SELECT v.p, v.ts, b.bed FROM v LEFT JOIN bed FOR SYSTEM_TIME AS OF v.ts AS b ON v.p = b.p";
    assert_eq!(stored(&bench.engine, asked).await, expected);
    let refused = |text: &str| parse_script(text).map(|mut all| all.remove(0)).map_err(|e| e.message);
    let no_key = refused("CREATE STREAM s (p VARCHAR) WITH ('topic' = 'bed', 'format' = 'debezium', 'key' = 'p')").unwrap_err();
    assert!(no_key.contains("has no 'key'"), "{no_key}");
    let write = refused("CREATE QUERY w AS INSERT INTO moves SELECT p FROM v").unwrap();
    let error = bench.engine.run(write).await.err().expect("nobody writes to it").to_string();
    assert!(error.contains("written by its connector alone"), "{error}");
}

/// What a statement answers, as lines.
async fn said(engine: &Arc<Engine>, sql: &str) -> String {
    let parsed = parse_script(sql).unwrap().remove(0);
    match engine.run(parsed).await.unwrap_or_else(|e| panic!("{}", e.render(sql))) {
        crate::sql::Outcome::Rows { batches, .. } => {
            let column = arrow::array::AsArray::as_string::<i32>(batches[0].column(0)).clone();
            column.iter().map(|line| line.unwrap_or_default().to_owned() + "\n").collect()
        }
        crate::sql::Outcome::Done(message) => message,
        crate::sql::Outcome::Stream { .. } => panic!("{sql} gives rows that go on"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_made_like_what_its_topic_holds_and_says_how() {
    let double = RegistryDouble::start();
    let url = &double.url;
    let bench = Bench::new(&format!(
        "CREATE STREAM a (p VARCHAR NOT NULL, x DOUBLE, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts) WITH ('topic' = 'a', 'partitions' = '2');
         CREATE STREAM av (p VARCHAR NOT NULL, x DOUBLE, ts TIMESTAMP(3) NOT NULL) WITH ('topic' = 'av', 'partitions' = '1', 'format' = 'avro', 'schema.registry.url' = '{url}');
         CREATE STREAM pb (p VARCHAR NOT NULL, x DOUBLE, ts TIMESTAMP(3) NOT NULL) WITH ('topic' = 'pb', 'partitions' = '1', 'format' = 'protobuf', 'schema.registry.url' = '{url}');
         CREATE QUERY qa AS INSERT INTO av SELECT p, x, ts FROM a;
         CREATE QUERY qp AS INSERT INTO pb SELECT p, x, ts FROM a;"
    ))
    .await;
    bench.write_keyed("a", 1, &[r#"{"p":"ann","x":1.5,"ts":"2026-01-01T00:00:00Z"}"#.to_owned()]).await;
    bench.values("av", 1).await;
    bench.values("pb", 1).await;
    let made = said(&bench.engine, "CREATE STREAM j LIKE SAMPLE OF TOPIC 'a'").await;
    let columns = "  p VARCHAR,\n  x DOUBLE,\n  ts TIMESTAMP(3) NOT NULL,\n  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND\n";
    assert_eq!(made, format!("CREATE STREAM j (\n{columns}) WITH (\n  'topic' = 'a',\n  'format' = 'json',\n  'key' = 'p'\n)\n"));
    let row = r#"{"p":"ann","x":1.5,"ts":"2026-01-01T00:00:00Z"}"#;
    assert_eq!(stored(&bench.engine, "SELECT * FROM j").await, [row]);
    for (format, topic) in [("avro", "av"), ("protobuf", "pb")] {
        let with = format!("WITH ('format' = '{format}', 'schema.registry.url' = '{url}')");
        let made = said(&bench.engine, &format!("CREATE STREAM like_{topic} LIKE SAMPLE OF TOPIC '{topic}' {with}")).await;
        assert!(made.contains("x DOUBLE,\n  ts TIMESTAMP(3)") && made.contains("WATERMARK FOR ts"), "{made}");
        assert_eq!(stored(&bench.engine, &format!("SELECT * FROM like_{topic}")).await, [row], "{made}");
    }
    let again = said(&bench.engine, "CREATE STREAM IF NOT EXISTS j LIKE SAMPLE OF TOPIC 'a'").await;
    assert!(again.contains("left as it is"), "{again}");
    for (topic, why) in [("nowhere", "there is no topic"), ("a.dlq", "holds no records to look at")] {
        let sql = format!("CREATE STREAM k LIKE SAMPLE OF TOPIC '{topic}'");
        let error = bench.engine.run(parse_script(&sql).unwrap().remove(0)).await.err().expect("there is nothing to look at").to_string();
        assert!(error.contains(why), "{error}");
    }
}
