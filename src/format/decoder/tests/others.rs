//! Lines of CSV and Debezium's envelopes as records.

use super::*;

#[test]
fn a_line_of_csv_is_a_row_and_a_broken_one_says_where() {
    check(
        StreamSchema::new(Format::Csv, vitals()).unwrap(),
        &[
            "p1,2026-03-12T08:15:01Z,72.5,1,true",
            "\"p \"\"x\"\", 1\",1773303301250, 80 ,,FALSE\r\n",
            ",0,1,1,1",
            "\"\",0,,,",
            "p,yesterday,1,1,1",
            "p,0,NaN,1,1",
            "p,0,1,1.5,1",
            "p,0,1,1,yes",
            "p,0,1",
            "p,0,1,1,1,1",
            "p,0,1,1,1\np,0,1,1,1",
            "\"p,0,1,1,1",
            "",
            "\n",
            "\"p\"x,0,1,1,1",
            "p\"\"x\",0,1,1,true",
        ],
        &expect![[r#"
            0 {"patient_id":"p1","ts":"2026-03-12T08:15:01Z","heart_rate":72.5,"spo2_scale":1,"on_oxygen":true}
            1 {"patient_id":"p \"x\", 1","ts":"2026-03-12T08:15:01.250Z","heart_rate":80.0,"spo2_scale":null,"on_oxygen":false}
            2 bad: patient_id: null, and the column is NOT NULL at byte 0
            3 {"patient_id":"","ts":"1970-01-01T00:00:00Z","heart_rate":null,"spo2_scale":null,"on_oxygen":null}
            4 bad: ts: expected a time in ISO 8601 or a number at byte 2
            5 bad: heart_rate: expected a number at byte 4
            6 bad: spo2_scale: expected a whole number at byte 6
            7 bad: on_oxygen: expected true or false at byte 8
            8 bad: fewer fields than the stream has columns at byte 5
            9 bad: more fields than the stream has columns at byte 10
            10 bad: more than one line at byte 9
            11 bad: a quote is not closed at byte 10
            12 bad: empty value at byte 0
            13 bad: empty value at byte 0
            14 bad: text behind a closing quote at byte 3
            15 {"patient_id":"p\"\"x\"","ts":"1970-01-01T00:00:00Z","heart_rate":1.0,"spo2_scale":1,"on_oxygen":true}
        "#]],
    );
}

#[test]
fn a_line_of_csv_has_its_own_delimiter_and_null() {
    let rule = CsvRule { delimiter: b'\t', null: "\\N".to_owned() };
    let fields = vec![FieldSpec::new("a", DataType::Utf8), FieldSpec::new("b", DataType::Utf8)];
    check(
        StreamSchema::new(Format::Csv, fields).unwrap().with_csv(rule),
        &["\\N\t", "\"\\N\"\tx,y", "\t\\N\n"],
        &expect![[r#"
            0 {"a":null,"b":""}
            1 {"a":"\\N","b":"x,y"}
            2 {"a":"","b":null}
        "#]],
    );
}

const ENVELOPES: [&str; 12] = [
    r#"{"before":null,"after":{"id":1,"ward":"a","x":{"y":2.5}},"op":"c","ts_ms":5,"source":{"table":"t"}}"#,
    r#"{"schema":{"type":"struct"},"payload":{"op":"r","before":null,"after":{"id":2,"ward":null,"more":[1]}}}"#,
    r#"{"op":"u","before":{"id":1,"ward":"a"},"after":{"id":1,"ward":"b"}}"#,
    r#"{"op":"d","before":{"id":1,"ward":"b"},"after":null}"#,
    r#"{"payload":{"op":"d","before":{"id":2},"after":null}}"#,
    r#"{"op":"d","before":null,"after":null}"#,
    r#"{"op":"u","before":null,"after":null}"#,
    r#"{"op":"c","after":{"id":"one"}}"#,
    r#"{"op":"t"}"#,
    r#"{"op":"d","before":{"ward":"b"}}"#,
    r#"{"id":1,"ward":"a"}"#,
    r#"{"op":"c","after":{"id":9,"ward":"z"}} "#,
];

fn debezium() -> StreamSchema {
    let fields = vec![
        FieldSpec::new("id", DataType::Int64).not_null(),
        FieldSpec::new("ward", DataType::Utf8),
        FieldSpec::new("y", DataType::Float64).at("x.y"),
    ];
    StreamSchema::new(Format::Debezium, fields).unwrap()
}

#[test]
fn an_envelope_gives_a_stream_the_row_after_each_change() {
    check(
        debezium(),
        &ENVELOPES,
        &expect![[r#"
            0 {"id":1,"ward":"a","y":2.5}
            1 {"id":2,"ward":null,"y":null}
            2 {"id":1,"ward":"b","y":null}
            6 bad: after: missing, and the op says that there is one at byte 37
            7 bad: id: expected a whole number at byte 24
            8 bad: op: expected one of c, r, u and d at byte 10
            10 bad: expected Debezium's envelope, an object with op, before and after at byte 19
            11 {"id":9,"ward":"z","y":null}
        "#]],
    );
    let decoded = decode(debezium(), &[(Some(r#"{"id":1}"#), None), (Some(r#"{"id":2}"#), Some(ENVELOPES[0].as_bytes()))]);
    assert_eq!((decoded.rows.num_rows(), decoded.bad.len(), decoded.next), (1, 0, Offset(2)));
}

#[test]
fn an_envelope_changes_a_tables_row_and_a_delete_says_its_key() {
    let table = || debezium().with_key(KeyRule::column("id")).unwrap().with_tombstones();
    let mut records: Vec<_> = ENVELOPES.iter().map(|v| (Some(r#"{"id":1}"#), Some(v.as_bytes()))).collect();
    records.push((Some(r#"{"id":1}"#), None));
    let decoded = decode(table(), &records);
    check_decoded(
        &decoded,
        &expect![[r#"
            0 {"id":1,"ward":"a","y":2.5}
            1 {"id":2,"ward":null,"y":null}
            2 {"id":1,"ward":"b","y":null}
            3 tombstone
            4 tombstone
            5 bad: before: missing, and a delete without it has no key at byte 37
            6 bad: after: missing, and the op says that there is one at byte 37
            7 bad: id: expected a whole number at byte 24
            8 bad: op: expected one of c, r, u and d at byte 10
            9 bad: id: missing, and the column is NOT NULL at byte 32
            10 bad: expected Debezium's envelope, an object with op, before and after at byte 19
            11 {"id":9,"ward":"z","y":null}
        "#]],
    );
    let keys: Vec<_> = decoded.tombstones.iter().map(|t| String::from_utf8_lossy(&t.key).into_owned()).collect();
    assert_eq!(keys, ["1", "2"]);
    let two = KeyRule { columns: vec!["ward".to_owned(), "id".to_owned()], partitioner: None, partitions: 1 };
    let decoded = decode(debezium().with_key(two).unwrap().with_tombstones(), &[(None, Some(ENVELOPES[3].as_bytes()))]);
    assert_eq!(decoded.tombstones[0].key, br#"["b","1"]"#);
}

#[test]
fn a_connectors_dates_and_times_of_day_may_be_numbers() {
    let fields = vec![
        FieldSpec::new("d", DataType::Date32),
        FieldSpec::new("t", DataType::Time32(TimeUnit::Millisecond)),
        FieldSpec::new("u", DataType::Time64(TimeUnit::Microsecond)),
        FieldSpec::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None)).unit(TimeUnit::Microsecond),
        FieldSpec::new("x", DataType::Decimal128(6, 2)),
    ];
    check(
        StreamSchema::new(Format::Debezium, fields.clone()).unwrap(),
        &[
            r#"{"op":"c","after":{"d":20454,"t":3723004,"u":3723000005,"ts":1767254400000001,"x":"12.50"}}"#,
            r#"{"op":"c","after":{"d":"2026-01-01","t":"01:02:03.004","u":"01:02:03.000005","ts":"2026-01-01T08:00:00.000001Z","x":12.5}}"#,
            r#"{"op":"c","after":{"d":-719529}}"#,
            r#"{"op":"c","after":{"d":1.5}}"#,
            r#"{"op":"c","after":{"t":86400000}}"#,
            r#"{"op":"c","after":{"u":-1}}"#,
        ],
        &expect![[r#"
            0 {"d":"2026-01-01","t":"01:02:03.004","u":"01:02:03.000005","ts":"2026-01-01T08:00:00.000001Z","x":12.50}
            1 {"d":"2026-01-01","t":"01:02:03.004","u":"01:02:03.000005","ts":"2026-01-01T08:00:00.000001Z","x":12.50}
            2 bad: d: date out of range at byte 23
            3 bad: d: expected a whole number at byte 23
            4 bad: t: time out of range at byte 23
            5 bad: u: time out of range at byte 23
        "#]],
    );
    // In plain JSON a number is no date.
    check(
        StreamSchema::new(Format::Json, fields).unwrap(),
        &[r#"{"d":20454}"#],
        &expect![[r#"
            0 bad: d: expected a date as YYYY-MM-DD at byte 5
        "#]],
    );
}
