//! Options: known and unknown names, right and wrong values.

use expect_test::{Expect, expect};

use super::*;

fn given(pairs: &[(&str, &str)]) -> Vec<Given> {
    pairs
        .iter()
        .map(|(name, value)| Given { name: (*name).to_owned(), value: (*value).to_owned(), name_place: None, value_place: None })
        .collect()
}

fn check_error<T: std::fmt::Debug>(result: Result<T, SqlError>, expected: &Expect) {
    expected.assert_eq(&result.expect_err("it is wrong").render(""));
}

#[test]
fn what_is_not_given_has_the_tables_default() {
    let stream = StreamOptions::of_stream(Vec::new()).expect("nothing is wrong");
    assert_eq!(
        (stream.format, stream.bad_records, stream.idle_timeout, stream.max_future),
        (FormatName::Json, BadRecords::Dlq, Some(Duration::from_secs(10)), Some(Duration::from_secs(10)))
    );
    let alert = AlertOptions::read(Vec::new()).expect("nothing is wrong");
    assert_eq!(
        (alert.priority, alert.hold, alert.max_gap, alert.notify_max_age),
        (AlertPriority::Medium, Duration::ZERO, Duration::from_secs(30), Duration::from_secs(300))
    );
    assert_eq!((alert.start, alert.order, alert.latch), (Start::Latest, AlertOrder::Arrival, false));
    assert_eq!(QueryOptions::read(Vec::new()).expect("nothing is wrong").start, Start::Earliest);
}

#[test]
fn what_is_given_is_typed() {
    let stream = StreamOptions::of_stream(given(&[
        ("topic", "v"),
        ("partitions", "8"),
        ("key", "patient_id"),
        ("key.partitioner", "crc32"),
        ("bad-records", "fail"),
        ("watermark.idle-timeout", "none"),
        ("watermark.max-future", "1m"),
        ("timestamp.unit", "us"),
        ("json.path.hr", "vitals.hr"),
    ]))
    .expect("all is right");
    assert_eq!((stream.partitions, stream.key), (Some(8), vec!["patient_id".to_owned()]));
    assert_eq!((stream.idle_timeout, stream.max_future, stream.timestamp_unit), (None, Some(Duration::from_secs(60)), EpochUnit::Micros));
    assert_eq!(stream.json_paths.get("hr"), Some(&vec!["vitals".to_owned(), "hr".to_owned()]));
    let alert = AlertOptions::read(given(&[
        ("priority", "high"),
        ("hold", "15s"),
        ("notify", "webhook:ward, webhook:pager"),
        ("start", "2026-01-31T08:00:00Z"),
    ]))
    .expect("all is right");
    assert_eq!(
        (alert.priority, alert.hold, alert.notify),
        (AlertPriority::High, Duration::from_secs(15), vec!["ward".to_owned(), "pager".to_owned()])
    );
    assert!(matches!(alert.start, Start::At(_)));
}

#[test]
fn every_default_is_a_value_of_its_own_kind_and_every_name_stands_once() {
    for table in [STREAM_OPTIONS, TABLE_OPTIONS, QUERY_OPTIONS, ALERT_OPTIONS] {
        for (i, option) in table.iter().enumerate() {
            assert!(!table[..i].iter().any(|o| o.name == option.name), "{} stands twice", option.name);
            if let Some(default) = option.default {
                assert_eq!(option.kind.check(default), Ok(()), "{}", option.name);
            }
            assert!(!option.doc.is_empty() && !option.doc.ends_with('.'), "{}", option.name);
        }
    }
}

#[test]
fn a_wrong_option_says_what_to_write() {
    check_error(
        StreamOptions::of_stream(given(&[("watermark.idle.timeout", "10s")])),
        &expect![[r#"
            error[SQL-0003]: a stream has no option 'watermark.idle.timeout'
              did you mean 'watermark.idle-timeout'?
              options: 'topic', 'format', 'partitions', 'key', 'key.partitioner', 'bad-records', 'dlq.topic', 'watermark.idle-timeout', 'watermark.max-future', 'late.topic', 'timestamp.unit', 'json.path.*', 'csv.delimiter', 'csv.null', 'schema.registry.url', 'schema.registry.subject'
        "#]],
    );
    check_error(
        StreamOptions::of_stream(given(&[("frobnicate", "1")])),
        &expect![[r#"
            error[SQL-0003]: a stream has no option 'frobnicate'
              options: 'topic', 'format', 'partitions', 'key', 'key.partitioner', 'bad-records', 'dlq.topic', 'watermark.idle-timeout', 'watermark.max-future', 'late.topic', 'timestamp.unit', 'json.path.*', 'csv.delimiter', 'csv.null', 'schema.registry.url', 'schema.registry.subject'
        "#]],
    );
    check_error(
        StreamOptions::of_stream(given(&[("format", "xml")])),
        &expect![[r#"
            error[SQL-0004]: option 'format' cannot be 'xml'
              write one of json, csv, avro, protobuf, debezium, raw
        "#]],
    );
    check_error(
        StreamOptions::of_stream(given(&[("partitions", "0")])),
        &expect![[r#"
        error[SQL-0004]: option 'partitions' cannot be '0'
          write a whole number from 1 to 10000
    "#]],
    );
    check_error(
        StreamOptions::of_stream(given(&[("topic", "a b")])),
        &expect![[r#"
        error[SQL-0004]: option 'topic' cannot be 'a b'
          a topic's name is made of a-z A-Z 0-9 . _ - and this one has ' '
    "#]],
    );
    check_error(
        StreamOptions::of_stream(given(&[("topic", "v"), ("topic", "v")])),
        &expect![[r#"
        error[SQL-0004]: option 'topic' is given twice
          keep one of the two
    "#]],
    );
    check_error(
        QueryOptions::read(given(&[("delivery", "at_most_once")])),
        &expect![[r#"
        error[SQL-0004]: option 'delivery' cannot be 'at_most_once'
          write one of exactly_once, at_least_once
    "#]],
    );
    check_error(
        AlertOptions::read(given(&[("escalate.after", "2m")])),
        &expect![[r#"
        error[SQL-0002]: not supported yet: option 'escalate.after' of an alert
          leave it out
    "#]],
    );
    check_error(
        AlertOptions::read(given(&[("hold", "15")])),
        &expect![[r#"
        error[SQL-0004]: option 'hold' cannot be '15'
          write a number and a unit, as in 500ms, 15s, 2m, 1h
    "#]],
    );
    check_error(
        AlertOptions::read(given(&[("notify", "mail:me")])),
        &expect![[r#"
        error[SQL-0004]: option 'notify' cannot be 'mail:me'
          "mail" is not supported yet, write webhook:<name>
    "#]],
    );
}
