//! The catalogue: creating, replacing, dropping, and reading it back.

use expect_test::{Expect, expect};

use super::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Runs statements one after the other; gives what each said.
fn run(catalog: &mut Catalog, script: &str) -> Vec<String> {
    let mut said = Vec::new();
    for parsed in crate::sql::parse_script(script).expect("the script parses") {
        let change = match &parsed.statement {
            Statement::Drop(drop) => catalog.drop_object(drop),
            Statement::Pause(kind, name) => catalog.pause(*kind, name, true),
            Statement::Resume(kind, name) => catalog.pause(*kind, name, false),
            _ => catalog.create(&parsed, Existing::AsWritten, NOW),
        };
        match change {
            Ok(change) => {
                catalog.apply(&change);
                said.push(change.message());
            }
            Err(error) => said.push(format!("error {}: {error}", error.code)),
        }
    }
    said
}

fn check(script: &str, expected: &Expect) {
    expected.assert_eq(&run(&mut Catalog::new(), script).join("\n"));
}

const STREAM: &str = "CREATE STREAM v (p VARCHAR, x DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('key' = 'p');";

#[test]
fn what_is_used_cannot_be_dropped_and_the_users_are_named() {
    check(
        &format!(
            "{STREAM} CREATE QUERY q AS INSERT INTO o SELECT * FROM v; CREATE ALERT a AS SELECT p AS subject FROM v;
             DROP STREAM v; DROP QUERY q; DROP STREAM v; DROP ALERT a; DROP STREAM v; DROP STREAM v; DROP STREAM IF EXISTS v;"
        ),
        &expect![[r#"
            created stream "v"
            created query "q"
            created alert "a"
            error SQL-0014: stream "v" is used by alert "a", query "q": DROP ALERT a first
            dropped query "q"
            error SQL-0014: stream "v" is used by alert "a": DROP ALERT a first
            dropped alert "a"
            dropped stream "v"; its topic is kept
            error SQL-0010: there is no stream "v": SHOW STREAMS lists what there is
            there was nothing to drop"#]],
    );
}

#[test]
fn a_name_that_is_taken_or_missing_says_what_to_do() {
    check(
        &format!(
            "{STREAM} {STREAM} CREATE STREAM v (a INT); CREATE STREAM IF NOT EXISTS v (a INT);
             CREATE TABLE v (a INT PRIMARY KEY NOT ENFORCED);
             CREATE QUERY q AS INSERT INTO o SELECT * FROM vv; CREATE QUERY v AS INSERT INTO o SELECT * FROM v;
             CREATE ALERT v AS SELECT * FROM v; CREATE QUERY v AS INSERT INTO o SELECT p FROM v; CREATE OR REPLACE QUERY v AS INSERT INTO o SELECT p FROM v;
             create or replace query v as -- the same again
               INSERT INTO o SELECT p FROM v;
             DROP TABLE v; DROP ALERT v; PAUSE QUERY w; PAUSE QUERY v; PAUSE QUERY v; RESUME QUERY v; DROP VIEW x; DROP QUERY qq;"
        ),
        &expect![[r#"
            created stream "v"
            stream "v" is unchanged
            error SQL-0011: there is already a stream "v": write CREATE OR REPLACE STREAM, or IF NOT EXISTS to leave it
            stream "v" exists and was left as it is
            error SQL-0011: there is already a stream "v": choose another name, or DROP STREAM v first
            error SQL-0010: there is no stream "vv": SHOW STREAMS lists what there is
            created query "v"
            error SQL-0011: there is already a query "v": choose another name, or DROP QUERY v first
            error SQL-0011: there is already a query "v": write CREATE OR REPLACE QUERY, or IF NOT EXISTS to leave it
            replaced query "v" (version 2)
            query "v" is unchanged
            error SQL-0010: there is no table "v": "v" is a stream
            error SQL-0010: there is no alert "v": "v" is a stream
            error SQL-0010: there is no query "w": SHOW QUERIES lists what there is
            paused query "v"
            query "v" is unchanged
            resumed query "v"
            error SQL-0010: there is no view "x": SHOW VIEWS lists what there is
            error SQL-0010: there is no query "qq": SHOW QUERIES lists what there is"#]],
    );
}

#[test]
fn queries_cannot_feed_themselves_and_write_only_columns_there_are() {
    check(
        "CREATE STREAM a (x INT, k INT METADATA FROM 'partition'); CREATE STREAM b (x INT); CREATE STREAM c (x INT);
         CREATE QUERY ab AS INSERT INTO b SELECT x FROM a; CREATE QUERY bc AS INSERT INTO c SELECT x FROM b; CREATE QUERY ca AS INSERT INTO a SELECT x FROM c;
         CREATE QUERY z AS INSERT INTO a (k) SELECT x FROM c;",
        &expect![[r#"
            created stream "a"
            created stream "b"
            created stream "c"
            created query "ab"
            created query "bc"
            error SQL-0006: query "ca" would feed itself: what it reads is made from "a": write into another stream
            error SQL-0012: no column "k""#]],
    );
}

#[test]
fn a_changed_query_file_replaces_and_an_unchanged_one_does_nothing() {
    let mut catalog = Catalog::new();
    run(&mut catalog, &format!("{STREAM} CREATE QUERY q AS INSERT INTO o SELECT p FROM v; PAUSE QUERY q;"));
    let create = |catalog: &Catalog, text: &str| {
        let parsed = parse_statement(text).expect("it parses");
        catalog.create(&parsed, Existing::Replace, NOW).map(|c| c.message())
    };
    assert_eq!(
        create(&catalog, "CREATE OR REPLACE QUERY q AS\n  INSERT INTO o SELECT p FROM v"),
        Ok("query \"q\" is unchanged".to_owned())
    );
    assert_eq!(create(&catalog, "CREATE QUERY q AS INSERT INTO o SELECT x FROM v"), Ok("replaced query \"q\" (version 2)".to_owned()));
    assert_eq!(create(&catalog, "CREATE STREAM IF NOT EXISTS v (p VARCHAR)"), Ok("stream \"v\" exists and was left as it is".to_owned()));
    assert_eq!(create(&catalog, "CREATE STREAM v (p VARCHAR)"), Ok("replaced stream \"v\" (version 2)".to_owned()));
}

#[test]
fn the_catalogue_comes_back_from_its_records() {
    let mut catalog = Catalog::new();
    let mut records = Vec::new();
    for text in [
        STREAM.trim_end_matches(';'),
        "CREATE TABLE \"T t\" (k INT PRIMARY KEY NOT ENFORCED) WITH ('topic' = 't')",
        "CREATE QUERY q AS\n  -- a comment stays\n  INSERT INTO o SELECT p FROM v",
        "CREATE OR REPLACE QUERY q AS INSERT INTO o SELECT x FROM v",
        "CREATE ALERT gone AS SELECT p AS subject FROM v",
    ] {
        let change = catalog.create(&parse_statement(text).expect("it parses"), Existing::AsWritten, NOW).expect("it fits");
        records.extend(change.record());
        catalog.apply(&change);
    }
    let pause = catalog.pause(Kind::Query, &Name::new("q"), true).expect("it is there");
    records.extend(pause.record());
    catalog.apply(&pause);
    let drop = DropObject { kind: Kind::Alert, if_exists: false, name: Name::new("gone") };
    let change = catalog.drop_object(&drop).expect("nobody uses it");
    records.extend(change.record());
    catalog.apply(&change);

    let mut again = Catalog::new();
    for record in &records {
        again.replay(&record.key, record.value.as_deref()).expect("we wrote it");
    }
    let seen = |c: &Catalog| {
        let entries = [Kind::Stream, Kind::Table, Kind::Query, Kind::Alert].into_iter().flat_map(|k| c.all(k).cloned().collect::<Vec<_>>());
        entries
            .map(|e| format!("{} {} v{} paused {} {}", e.kind.word(), e.name, e.version, e.paused, e.text))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(seen(&again), seen(&catalog));
    expect![[r#"
        stream v v1 paused false CREATE STREAM v (p VARCHAR, x DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('key' = 'p')
        table T t v1 paused false CREATE TABLE "T t" (k INT PRIMARY KEY NOT ENFORCED) WITH ('topic' = 't')
        query q v2 paused true CREATE OR REPLACE QUERY q AS INSERT INTO o SELECT x FROM v"#]]
    .assert_eq(&seen(&again));
    expect![[r#"{"kind":"query","name":"q","version":2,"created":"2023-11-14T22:13:20Z","paused":true,"text":"CREATE OR REPLACE QUERY q AS INSERT INTO o SELECT x FROM v"}"#]].assert_eq(&String::from_utf8_lossy(records[5].value.as_deref().expect("a pause has a value")));
}

#[test]
fn a_record_that_cannot_be_read_leaves_the_catalogue_as_it_was() {
    let mut catalog = Catalog::new();
    let value = |text: &str| format!(r#"{{"kind":"query","name":"q","version":1,"created":"2026-01-01","text":"{text}"}}"#).into_bytes();
    for (key, value) in [
        (&b"nonsense"[..], Vec::new()),
        (b"query:q", b"{".to_vec()),
        (b"query:q", value("SELECT 1")),
        (b"query:q", value("CREATE QUERY other AS INSERT INTO o SELECT 1 FROM s")),
        (b"query:q", value("CREATE QUERY q AS INSERT INTO")),
        (b"\xff\xfe:q", value("")),
    ] {
        assert!(catalog.replay(key, Some(&value)).is_err());
    }
    assert_eq!(catalog.all(Kind::Query).count(), 0);
}

#[test]
fn what_the_decoder_cannot_read_is_refused_at_create() {
    check(
        "CREATE STREAM s (a INT, b INT) WITH ('json.path.a' = 'x', 'json.path.b' = 'x.y')",
        &expect![[r#"error SQL-0006: columns "a" and "b" read the same part of the JSON object"#]],
    );
}

#[test]
fn a_stream_fills_in_what_was_not_written() {
    let stream = |text: &str| StreamDef::of(&parse_statement(text).expect("it parses").statement).expect("it is one");
    let plain = stream("CREATE STREAM v (a INT NOT NULL, c AS a + 1, o BIGINT METADATA FROM 'offset')");
    assert_eq!((plain.topic.as_str(), plain.dlq_topic.as_str(), plain.key(), plain.time()), ("v", "v.dlq", None, None));
    let names = |schema: &arrow::datatypes::Schema| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    assert_eq!((names(&plain.decoded()), names(&plain.written())), (vec!["a".to_owned(), "o".to_owned()], vec!["a".to_owned()]));
    let table =
        stream("CREATE TABLE t (k INT, PRIMARY KEY (k) NOT ENFORCED) WITH ('topic' = 'x.y', 'dlq.topic' = 'bad', 'json.path.k' = 'a.b')");
    assert_eq!((table.topic.as_str(), table.dlq_topic.as_str(), table.key()), ("x.y", "bad", Some("k")));
    let schema = table.schema(4).expect("it can be read");
    assert_eq!((schema.tombstones(), schema.fields()[0].json_path.join("/")), (true, "a/b".to_owned()));
    let keyed = stream(
        "CREATE STREAM v (a INT, b VARCHAR, c AS a + 1, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('key' = 'b, a', 'key.partitioner' = 'crc32')",
    );
    let rule = keyed.schema(4).expect("it can be read").key().cloned().expect("it has one");
    assert_eq!((rule.columns.join(","), rule.partitions, keyed.key()), ("b,a".to_owned(), 4, None));
    let source = keyed.source(4);
    assert_eq!((source.columns.len(), source.decoded.fields().len(), source.time.as_deref()), (4, 3, Some("ts")));
}
