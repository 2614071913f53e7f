//! Records in, the statement that fits them out.

use expect_test::{Expect, expect};

use super::*;
use crate::sql::parse::parse_statement;
use crate::sql::statement::Statement;

fn like(sql: &str) -> CreateLike {
    match parse_statement(sql).unwrap_or_else(|e| panic!("{}", e.render(sql))).statement {
        Statement::CreateLike(like) => like,
        other => panic!("{other:?}"),
    }
}

fn check(sql: &str, records: &[(&str, &str)], expected: &Expect) {
    let like = like(sql);
    let records: Vec<Sampled> =
        records.iter().map(|(key, value)| Sampled { key: Some(key.as_bytes().to_vec()), value: value.as_bytes().to_vec() }).collect();
    let text = guess_format(&like, &records).and_then(|format| of_records(&like, format, &records));
    match text {
        Ok(text) => {
            parse_statement(&text).unwrap_or_else(|e| panic!("{}", e.render(&text)));
            expected.assert_eq(&format!("{text}\n"));
        }
        Err(error) => expected.assert_eq(&format!("{}\n", error.message)),
    }
}

const LIKE: &str = "CREATE STREAM s LIKE SAMPLE OF TOPIC 'vitals'";

#[test]
fn names_types_paths_key_and_time_are_found() {
    check(
        LIKE,
        &[
            (
                "p1",
                r#"{"patient_id":"p1","ts":"2026-01-01T08:00:00Z","vitals":{"heartRate":72,"spo2":{"value":97.5}},"on":true,"tags":["a"],"born":"1950-02-03"}"#,
            ),
            (
                "p2",
                r#"{"patient_id":"p2","ts":"2026-01-01T08:00:01+01:00","vitals":{"heartRate":null,"spo2":{"value":97}},"note":null,"tags":[],"legs":[{"Side":"l","cm":1}]}"#,
            ),
            ("p3", r#"{"patient_id":"p3","ts":"2026-01-01T08:00:02Z","vitals":{"heartRate":72.5},"big":99999999999999999999}"#),
        ],
        &expect![[r#"
            CREATE STREAM s (
              patient_id VARCHAR,
              ts TIMESTAMP(3) NOT NULL,
              vitals_heart_rate DOUBLE,
              vitals_spo2_value DOUBLE,
              "on" BOOLEAN,
              tags ARRAY<VARCHAR>,
              born DATE,
              note VARCHAR,
              legs ARRAY<STRUCT<"Side" VARCHAR, cm BIGINT>>,
              big DOUBLE,
              WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
            ) WITH (
              'topic' = 'vitals',
              'format' = 'json',
              'json.path.vitals_heart_rate' = 'vitals.heartRate',
              'json.path.vitals_spo2_value' = 'vitals.spo2.value',
              'key' = 'patient_id'
            )
        "#]],
    );
}

#[test]
fn numbers_are_times_where_name_and_size_say_so() {
    check(
        "CREATE OR REPLACE STREAM s LIKE SAMPLE OF TOPIC 'vitals' WITH ('partitions' = '4', 'bad-records' = 'skip')",
        &[
            ("x", r#"{"id":1,"event_ts":1767254400,"seen_at":1767254400000,"n":1767254400}"#),
            ("y", r#"{"id":1767254400,"event_ts":1767254401,"seen_at":5}"#),
        ],
        &expect![[r#"
            CREATE OR REPLACE STREAM s (
              id BIGINT,
              event_ts TIMESTAMP(3) NOT NULL,
              seen_at BIGINT,
              n BIGINT,
              WATERMARK FOR event_ts AS event_ts - INTERVAL '5' SECOND
            ) WITH (
              'topic' = 'vitals',
              'format' = 'json',
              'timestamp.unit' = 's',
              'partitions' = '4',
              'bad-records' = 'skip'
            )
        "#]],
    );
    check(
        LIKE,
        &[("x", r#"{"measuredAt":1767254400000}"#)],
        &expect![[r#"
            CREATE STREAM s (
              measured_at TIMESTAMP(3) NOT NULL,
              WATERMARK FOR measured_at AS measured_at - INTERVAL '5' SECOND
            ) WITH (
              'topic' = 'vitals',
              'format' = 'json',
              'json.path.measured_at' = 'measuredAt',
              'timestamp.unit' = 'ms'
            )
        "#]],
    );
}

#[test]
fn what_no_column_holds_is_left_out_and_a_strangers_name_stays_a_name() {
    check(
        LIKE,
        &[
            (
                "x",
                r#"{"a":1,"b":"x","a b":1,"select":1,"A_b":2,"9":1,"x.y":1,"o":{"x.y":1,"ok":1},"":1,"'); DROP STREAM t; --\n":1,"q'":1}"#,
            ),
            ("x", r#"{"a":"one","b":"y","e":{},"l":[1,"a"]}"#),
        ],
        &expect![[r#"
            CREATE STREAM s (
              -- left out: a: values that no one type holds
              -- left out: o.x.y: no path can name it
              -- left out: : no path can name it
              -- left out: \'); DROP STREAM t; --\n: no path can name it
              -- left out: l: values that no one type holds
              b VARCHAR,
              a_b BIGINT,
              "select" BIGINT,
              a_b_2 BIGINT,
              _9 BIGINT,
              "x.y" BIGINT,
              o_ok BIGINT,
              q_ BIGINT
            ) WITH (
              'topic' = 'vitals',
              'format' = 'json',
              'json.path.a_b' = 'a b',
              'json.path.a_b_2' = 'A_b',
              'json.path._9' = '9',
              'json.path.o_ok' = 'o.ok',
              'json.path.q_' = 'q'''
            )
        "#]],
    );
}

#[test]
fn the_format_is_guessed_or_asked_for() {
    check(
        LIKE,
        &[("k", r#"{"op":"c","before":null,"after":{"id":7,"name":"x"}}"#), ("k", r#"{"op":"d","before":{"id":7},"after":null}"#)],
        &expect![[r#"
            CREATE STREAM s (
              id BIGINT,
              name VARCHAR
            ) WITH (
              'topic' = 'vitals',
              'format' = 'debezium'
            )
        "#]],
    );
    check(
        LIKE,
        &[("k", "a,1"), ("k", "b,2")],
        &expect![[r#"
            the records of topic "vitals" are not JSON objects
        "#]],
    );
    check(
        LIKE,
        &[("k", "\0\0\0\0\u{1}abc")],
        &expect![[r#"
            the records of topic "vitals" are not JSON objects
        "#]],
    );
    check(
        "CREATE STREAM s LIKE SAMPLE OF TOPIC 'vitals' WITH ('format' = 'csv', 'csv.delimiter' = ';')",
        &[("k", "a;1;true;2026-01-01T00:00:00Z;\"x;y\""), ("k", "b;2.5;false;2026-01-02T00:00:00Z;")],
        &expect![[r#"
            CREATE STREAM s (
              c1 VARCHAR,
              c2 DOUBLE,
              c3 BOOLEAN,
              c4 TIMESTAMP(3) NOT NULL,
              c5 VARCHAR,
              WATERMARK FOR c4 AS c4 - INTERVAL '5' SECOND
            ) WITH (
              'topic' = 'vitals',
              'format' = 'csv',
              'csv.delimiter' = ';'
            )
        "#]],
    );
    check(
        "CREATE STREAM s LIKE SAMPLE OF TOPIC 'vitals' WITH ('format' = 'raw')",
        &[("k", "anything")],
        &expect![[r#"
            CREATE STREAM s (
              body VARCHAR
            ) WITH (
              'topic' = 'vitals',
              'format' = 'raw'
            )
        "#]],
    );
    check(
        LIKE,
        &[("k", "{}")],
        &expect![[r#"
            the records of topic "vitals" have nothing that a json column could hold
        "#]],
    );
}

#[test]
fn the_clause_is_read_with_its_slips() {
    for (sql, expected) in [
        ("CREATE STREAM s LIKE t", "CREATE STREAM .. LIKE another"),
        ("CREATE STREAM s LIKE SAMPLE OF TOPIC t", "expected the topic, found t"),
        ("CREATE STREAM s LIKE SAMPLE OF TOPIC 'a b'", "topic"),
        ("CREATE STREAM s LIKE SAMPLE OF TOPIC 't' WITH ('topic' = 'u')", "the topic stands behind TOPIC already"),
        ("CREATE STREAM s LIKE SAMPLE OF TOPIC 't' WITH ('formt' = 'csv')", "a stream has no option 'formt'"),
    ] {
        let error = parse_statement(sql).unwrap_err();
        assert!(error.message.contains(expected), "{}", error.render(sql));
    }
}
