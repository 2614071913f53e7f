//! Records in, rows out: what is a row, what is a bad record, and what its reason says.

use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use expect_test::{Expect, expect};

use super::*;
use crate::format::{CsvRule, FieldSpec, JsonEncoder};
use crate::record::{BatchBuilder, Codec};

mod others;

const MS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn vitals() -> Vec<FieldSpec> {
    vec![
        FieldSpec::new("patient_id", DataType::Utf8).not_null(),
        FieldSpec::new("ts", MS).not_null(),
        FieldSpec::new("heart_rate", DataType::Float64),
        FieldSpec::new("spo2_scale", DataType::Int32),
        FieldSpec::new("on_oxygen", DataType::Boolean),
    ]
}

fn schema(fields: Vec<FieldSpec>) -> StreamSchema {
    StreamSchema::new(Format::Json, fields).unwrap()
}

fn batch(records: &[(Option<&str>, Option<&[u8]>)]) -> Batch {
    let mut builder = BatchBuilder::new();
    for (at, (key, value)) in records.iter().enumerate() {
        builder.push(1_000 + at as i64, key.map(str::as_bytes), *value, &[]);
    }
    builder.finish()
}

fn decode(schema: StreamSchema, records: &[(Option<&str>, Option<&[u8]>)]) -> Decoded {
    Decoder::new(Arc::new(schema)).decode(PartitionId(0), &[batch(records)], Offset(0))
}

/// Each value as a record of its own; shown are the rows as JSON and the reasons of the others, by offset.
fn check(schema: StreamSchema, values: &[&str], expected: &Expect) {
    let records: Vec<_> = values.iter().map(|v| (None, Some(v.as_bytes()))).collect();
    check_decoded(&decode(schema, &records), expected);
}

fn check_decoded(decoded: &Decoded, expected: &Expect) {
    let encoded = JsonEncoder::new(decoded.rows.schema()).encode(&decoded.rows);
    let rows =
        decoded.offsets.iter().enumerate().map(|(row, offset)| (*offset, String::from_utf8(encoded.row(row).unwrap().to_vec()).unwrap()));
    let bad = decoded.bad.iter().map(|b| (b.offset.0, format!("bad: {}", b.reason)));
    let deleted = decoded.tombstones.iter().map(|t| (t.offset.0, "tombstone".to_owned()));
    let mut lines: Vec<_> = rows.chain(bad).chain(deleted).collect();
    lines.sort();
    let text: String = lines.iter().map(|(offset, line)| format!("{offset} {line}\n")).collect();
    expected.assert_eq(&text);
}

#[test]
fn a_reading_becomes_a_row_whatever_its_order_and_spacing() {
    check(
        schema(vitals()),
        &[
            r#"{"patient_id":"p1","ts":"2026-03-12T08:15:01Z","heart_rate":72.5,"spo2_scale":1,"on_oxygen":true}"#,
            " { \"on_oxygen\" : false ,\t\"ts\":1773303301250 ,\r\n\"patient_id\" : \"p\\u00e9 \\ud83d\\ude00\" , \"heart_rate\" : 80 } \n",
            r#"{"device":{"id":[1,{"a":null}],"x":"\\\""},"patient_id":"","ts":"2026-03-12T09:15:01+01:00","heart_rate":null}"#,
            r#"{"h\u0065art_rate":-0.0,"patient_id":"p","ts":"1969-12-31"}"#,
        ],
        &expect![[r#"
            0 {"patient_id":"p1","ts":"2026-03-12T08:15:01Z","heart_rate":72.5,"spo2_scale":1,"on_oxygen":true}
            1 {"patient_id":"pé 😀","ts":"2026-03-12T08:15:01.250Z","heart_rate":80.0,"spo2_scale":null,"on_oxygen":false}
            2 {"patient_id":"","ts":"2026-03-12T08:15:01Z","heart_rate":null,"spo2_scale":null,"on_oxygen":null}
            3 {"patient_id":"p","ts":"1969-12-31T00:00:00Z","heart_rate":-0.0,"spo2_scale":null,"on_oxygen":null}
        "#]],
    );
}

#[test]
fn a_bad_value_names_its_column_and_place_and_never_itself() {
    let with = |rest: &str| format!(r#"{{"patient_id":"p","ts":0,{rest}}}"#);
    let values: Vec<String> = [
        r#""heart_rate":"72""#,
        r#""heart_rate":NaN"#,
        r#""heart_rate":Infinity"#,
        r#""heart_rate":1e400"#,
        r#""heart_rate":true"#,
        r#""heart_rate":[1]"#,
        r#""heart_rate":072"#,
        r#""heart_rate":7."#,
        r#""spo2_scale":1.5"#,
        r#""spo2_scale":"1""#,
        r#""spo2_scale":3000000000"#,
        r#""spo2_scale":99999999999999999999"#,
        r#""on_oxygen":1"#,
        r#""on_oxygen":"true""#,
        r#""heart_rate":1,"heart_rate":2"#,
        r#""x":1,"y":2,"x":3"#,
        r#""x":{"a":1,"\u0061":2}"#,
    ]
    .iter()
    .map(|rest| with(rest))
    .collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    check(
        schema(vitals()),
        &values,
        &expect![[r#"
        0 bad: heart_rate: expected a number at byte 38
        1 bad: heart_rate: expected a number at byte 38
        2 bad: heart_rate: expected a number at byte 38
        3 bad: heart_rate: number out of range at byte 38
        4 bad: heart_rate: expected a number at byte 38
        5 bad: heart_rate: expected a number at byte 38
        6 bad: heart_rate: malformed number at byte 38
        7 bad: heart_rate: malformed number at byte 38
        8 bad: spo2_scale: expected a whole number at byte 38
        9 bad: spo2_scale: expected a whole number at byte 38
        10 bad: spo2_scale: number out of range at byte 38
        11 bad: spo2_scale: number out of range at byte 38
        12 bad: on_oxygen: expected true or false at byte 37
        13 bad: on_oxygen: expected true or false at byte 37
        14 bad: heart_rate: a field comes twice at byte 41
        15 bad: a field comes twice at byte 38
        16 bad: a field comes twice at byte 30
    "#]],
    );
}

#[test]
fn what_is_no_object_is_bad() {
    check(
        schema(vitals()),
        &[
            "",
            "  ",
            "null",
            "5",
            "[]",
            "\"patient\"",
            "{",
            "{}",
            r#"{"patient_id":null,"ts":0}"#,
            r#"{"patient_id":"p"}"#,
            r#"{"patient_id":"p","ts":0} {"patient_id":"p","ts":0}"#,
            r#"{"patient_id":"p","ts":0}x"#,
            r#"{"patient_id":"p","ts":0,}"#,
            r#"{"patient_id":"p",,"ts":0}"#,
            r#"{"patient_id":"p" "ts":0}"#,
            r#"{"patient_id" "p","ts":0}"#,
            r#"{patient_id:"p","ts":0}"#,
            r#"{"patient_id":"p","ts":0"#,
            r#"{"patient_id":"p"#,
            r#"{"patient_id":"\x","ts":0}"#,
            r#"{"patient_id":"\ud800","ts":0}"#,
            r#"{"patient_id":"\udc00\ud800","ts":0}"#,
            "{\"patient_id\":\"a\u{1}b\",\"ts\":0}",
            r#"{"patient_id":7,"ts":0}"#,
            r#"{"patient_id":"p","ts":"yesterday"}"#,
            r#"{"patient_id":"p","ts":1.5}"#,
            r#"{"patient_id":"p","ts":1e300}"#,
            r#"{"patient_id":"p","ts":1770000000000000000}"#,
            r#"{"patient_id":"p","ts":true}"#,
            r#"{"patient_id":"p","ts":0,"z":tru}"#,
            r#"{"patient_id":"p","ts":0,"z":[1,]}"#,
            r#"{"patient_id":"p","ts":0,"z":-}"#,
        ],
        &expect![[r#"
            0 bad: empty value at byte 0
            1 bad: empty value at byte 2
            2 bad: expected an object at byte 0
            3 bad: expected an object at byte 0
            4 bad: expected an object at byte 0
            5 bad: expected an object at byte 0
            6 bad: the value is cut off at byte 1
            7 bad: patient_id: missing, and the column is NOT NULL at byte 2
            8 bad: patient_id: null, and the column is NOT NULL at byte 18
            9 bad: ts: missing, and the column is NOT NULL at byte 18
            10 bad: bytes behind the object at byte 26
            11 bad: bytes behind the object at byte 25
            12 bad: expected a field's name at byte 25
            13 bad: expected a field's name at byte 18
            14 bad: expected a comma or the end of the object or list at byte 18
            15 bad: expected a colon at byte 14
            16 bad: expected a field's name at byte 1
            17 bad: the value is cut off at byte 24
            18 bad: patient_id: the value is cut off at byte 16
            19 bad: patient_id: malformed escape at byte 15
            20 bad: patient_id: half a surrogate pair at byte 15
            21 bad: patient_id: half a surrogate pair at byte 15
            22 bad: patient_id: a control character in a string at byte 16
            23 bad: patient_id: expected a string at byte 14
            24 bad: ts: expected a time in ISO 8601 at byte 23
            25 bad: ts: expected a whole number of the timestamp's unit at byte 23
            26 bad: ts: expected a whole number of the timestamp's unit at byte 23
            27 bad: ts: time out of range at byte 23
            28 bad: ts: expected a time in ISO 8601 or a number at byte 23
            29 bad: expected a JSON value at byte 29
            30 bad: expected a JSON value at byte 32
            31 bad: malformed number at byte 29
        "#]],
    );
}

#[test]
fn text_that_is_not_utf8_is_bad_also_where_nobody_reads_it() {
    let mut records: Vec<Vec<u8>> = Vec::new();
    for place in [
        &b"\"patient_id\":\"p\xff\",\"ts\":0"[..],
        b"\"patient_id\":\"p\",\"ts\":0,\"z\":\"\xc3\"",
        b"\"patient_id\":\"p\",\"ts\":0,\"\xf0\x28\":1",
    ] {
        records.push([b"{", place, b"}"].concat());
    }
    let records: Vec<_> = records.iter().map(|r| (None, Some(r.as_slice()))).collect();
    check_decoded(
        &decode(schema(vitals()), &records),
        &expect![[r#"
            0 bad: patient_id: a string that is not UTF-8 at byte 15
            1 bad: a string that is not UTF-8 at byte 30
            2 bad: a string that is not UTF-8 at byte 26
        "#]],
    );
}

#[test]
fn sixty_four_levels_are_deep_enough() {
    let nested = |levels: usize| format!(r#"{{"patient_id":"p","ts":0,"z":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    check(
        schema(vitals()),
        &[&nested(63), &nested(64), &"[".repeat(100_000), &nested(100_000)],
        &expect![[r#"
            0 {"patient_id":"p","ts":"1970-01-01T00:00:00Z","heart_rate":null,"spo2_scale":null,"on_oxygen":null}
            1 bad: nested too deep at byte 93
            2 bad: expected an object at byte 0
            3 bad: nested too deep at byte 93
        "#]],
    );
}

#[test]
fn a_bad_record_costs_its_neighbours_nothing() {
    let good = |n: usize| format!(r#"{{"patient_id":"p{n}","ts":{n},"heart_rate":{n}}}"#);
    let mut values = Vec::new();
    for n in 0..500 {
        values.push(good(n));
        let whole = good(n);
        values.push(whole[..whole.len() * (n % 97) / 97].to_owned());
    }
    let values: Vec<_> = values.iter().map(|v| (None, Some(v.as_bytes()))).collect();
    let decoded = decode(schema(vitals()), &values);
    assert_eq!(decoded.rows.num_rows(), 500);
    assert_eq!(decoded.bad.len(), 500);
    let alone: Vec<_> = values.iter().step_by(2).copied().collect();
    assert_eq!(decoded.rows, decode(schema(vitals()), &alone).rows);
    assert!(decoded.offsets.iter().enumerate().all(|(row, offset)| *offset == 2 * row as i64));
}

#[test]
fn paths_lead_into_objects_and_beside_them_lies_the_rest() {
    let fields = vec![
        FieldSpec::new("hr", DataType::Float64).at("vitals.cardiac.hr"),
        FieldSpec::new("rr", DataType::Float64).at("vitals.rr").not_null(),
        FieldSpec::new("id", DataType::Utf8),
    ];
    check(
        schema(fields),
        &[
            r#"{"vitals":{"x":1,"cardiac":{"hr":70},"rr":12},"id":"a"}"#,
            r#"{"vitals":{"cardiac":null,"rr":12}}"#,
            r#"{"vitals":{"cardiac":5,"rr":12}}"#,
            r#"{"vitals":null}"#,
            r#"{"vitals":{"rr":"12"}}"#,
            r#"{"vitals":{"rr":1},"vitals":{"cardiac":{"hr":1}}}"#,
            r#"{"vitals.rr":12}"#,
        ],
        &expect![[r#"
            0 {"hr":70.0,"rr":12.0,"id":"a"}
            1 {"hr":null,"rr":12.0,"id":null}
            2 bad: vitals.cardiac: expected an object at byte 21
            3 bad: rr: missing, and the column is NOT NULL at byte 15
            4 bad: rr: expected a number at byte 16
            5 bad: vitals: a field comes twice at byte 20
            6 bad: rr: missing, and the column is NOT NULL at byte 16
        "#]],
    );
}

#[test]
fn every_type_is_read_and_written() {
    let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let inner = DataType::Struct(vec![Field::new("code", DataType::Utf8, true), Field::new("values", list(DataType::Int16), true)].into());
    let fields = vec![
        FieldSpec::new("i8", DataType::Int8),
        FieldSpec::new("i16", DataType::Int16),
        FieldSpec::new("i64", DataType::Int64),
        FieldSpec::new("f32", DataType::Float32),
        FieldSpec::new("dec", DataType::Decimal128(6, 2)),
        FieldSpec::new("day", DataType::Date32),
        FieldSpec::new("t", DataType::Time32(TimeUnit::Millisecond)),
        FieldSpec::new("s", DataType::Timestamp(TimeUnit::Second, None)),
        FieldSpec::new("us", DataType::Timestamp(TimeUnit::Microsecond, None)).unit(TimeUnit::Second),
        FieldSpec::new("ns", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        FieldSpec::new("b", DataType::Binary),
        FieldSpec::new("obs", list(inner)),
    ];
    check(
        schema(fields),
        &[
            r#"{"i8":-128,"i16":32767,"i64":-9223372036854775808,"f32":0.1,"dec":1234.5,"day":"2024-02-29","t":"08:15","s":-1500,"us":1.5000019,"ns":1,"b":"AAEC/w==","obs":[{"code":"x","values":[1,null,3]},null,{}]}"#,
            r#"{"dec":"-0.01","s":"2026-01-01T00:00:00.999Z","us":1773303301,"ns":"2026-01-01T00:00:00.000000001","obs":[]}"#,
            r#"{"i8":128}"#,
            r#"{"dec":12345.67}"#,
            r#"{"dec":1.005}"#,
            r#"{"day":"2023-02-29"}"#,
            r#"{"day":19000}"#,
            r#"{"t":"25:00"}"#,
            r#"{"b":"A"}"#,
            r#"{"f32":1e39}"#,
            r#"{"obs":[{"code":"x","values":[1,"2"]}]}"#,
            r#"{"obs":[{"code":"x","code":"y"}]}"#,
            r#"{"obs":{}}"#,
            r#"{"ns":"2300-01-01"}"#,
            r#"{}"#,
        ],
        &expect![[r#"
            0 {"i8":-128,"i16":32767,"i64":-9223372036854775808,"f32":0.1,"dec":1234.50,"day":"2024-02-29","t":"08:15:00","s":"1969-12-31T23:59:58Z","us":"1970-01-01T00:00:01.500001Z","ns":"1970-01-01T00:00:00.001Z","b":"AAEC/w==","obs":[{"code":"x","values":[1,null,3]},null,{"code":null,"values":null}]}
            1 {"i8":null,"i16":null,"i64":null,"f32":null,"dec":-0.01,"day":null,"t":null,"s":"2026-01-01T00:00:00Z","us":"2026-03-12T08:15:01Z","ns":"2026-01-01T00:00:00.000000001Z","b":null,"obs":[]}
            2 bad: i8: number out of range at byte 6
            3 bad: dec: number out of range at byte 7
            4 bad: dec: a decimal with more digits than the column has at byte 7
            5 bad: day: expected a date as YYYY-MM-DD at byte 7
            6 bad: day: expected a date as YYYY-MM-DD at byte 7
            7 bad: t: expected a time of day as HH:MM:SS at byte 5
            8 bad: b: expected a base64 string at byte 5
            9 bad: f32: number out of range at byte 7
            10 bad: obs.item.values.item: expected a whole number at byte 32
            11 bad: obs.item.code: a field comes twice at byte 21
            12 bad: obs: expected a list at byte 7
            13 bad: ns: expected a time in ISO 8601 at byte 6
            14 {"i8":null,"i16":null,"i64":null,"f32":null,"dec":null,"day":null,"t":null,"s":null,"us":null,"ns":null,"b":null,"obs":null}
        "#]],
    );
}

#[test]
fn metadata_stands_beside_the_value() {
    let fields = vec![
        FieldSpec::new("v", DataType::Int64),
        FieldSpec::new("k_partition", DataType::Int32).metadata(Metadata::Partition),
        FieldSpec::new("k_offset", DataType::Int64).metadata(Metadata::Offset),
        FieldSpec::new("k_ts", MS).metadata(Metadata::Timestamp),
        FieldSpec::new("k_key", DataType::Utf8).metadata(Metadata::Key),
    ];
    let mut decoder = Decoder::new(Arc::new(schema(fields)));
    let mut builder = BatchBuilder::new();
    builder.push(1_500, Some(b"a"), Some(b"{\"v\":1,\"k_key\":\"not this\"}"), &[]);
    builder.push(-1, None, Some(b"{}"), &[]);
    builder.push(0, Some(b"\xff"), Some(b"{}"), &[]);
    builder.push(2_000, Some(b"c"), Some(b"{\"v\":3}"), &[]);
    let decoded = decoder.decode(PartitionId(7), &[builder.finish().with_base(Offset(40), 0)], Offset(40));
    expect![[r#"
        +---+-------------+----------+-------------------------+-------+
        | v | k_partition | k_offset | k_ts                    | k_key |
        +---+-------------+----------+-------------------------+-------+
        | 1 | 7           | 40       | 1970-01-01T00:00:01.500 | a     |
        |   | 7           | 41       |                         |       |
        | 3 | 7           | 43       | 1970-01-01T00:00:02     | c     |
        +---+-------------+----------+-------------------------+-------+"#]]
    .assert_eq(&pretty_format_batches(&[decoded.rows]).unwrap().to_string());
    assert_eq!(decoded.bad, [BadRecord { offset: Offset(42), reason: "k_key: the record's key is not UTF-8".to_owned() }]);
}

#[test]
fn a_record_whose_key_is_not_its_column_is_bad() {
    let keyed =
        |rule: KeyRule| schema(vec![FieldSpec::new("id", DataType::Utf8), FieldSpec::new("n", DataType::Int64)]).with_key(rule).unwrap();
    let records: [(Option<&str>, Option<&[u8]>); 7] = [
        (Some("a"), Some(br#"{"id":"a","n":1}"#)),
        (Some("b"), Some(br#"{"id":"a","n":1}"#)),
        (None, Some(br#"{"id":"a"}"#)),
        (Some(""), Some(br#"{"n":1}"#)),
        (Some("7"), Some(br#"{"id":"7","n":7}"#)),
        (Some("[null]"), Some(br#"{"n":7}"#)),
        (None, Some(br#"{"n":7}"#)),
    ];
    check_decoded(
        &decode(keyed(KeyRule::column("id")), &records),
        &expect![[r#"
        0 {"id":"a","n":1}
        1 bad: id: key differs
        2 bad: id: key differs: the record has none
        3 bad: id: key differs: the column is NULL, which a key says as [null]
        4 {"id":"7","n":7}
        5 {"id":null,"n":7}
        6 bad: id: key differs: the record has none
    "#]],
    );
    check_decoded(
        &decode(keyed(KeyRule::column("n")), &records),
        &expect![[r#"
        0 bad: n: key differs
        1 bad: n: key differs
        2 bad: n: key differs: the record has none
        3 bad: n: key differs
        4 {"id":"7","n":7}
        5 bad: n: key differs
        6 bad: n: key differs: the record has none
    "#]],
    );
    // A text that reads as the key of NULL lies where NULL does.
    let alike: [(Option<&str>, Option<&[u8]>); 2] =
        [(Some("[null]"), Some(br#"{"id":"[null]","n":1}"#)), (Some("null"), Some(br#"{"n":1}"#))];
    check_decoded(
        &decode(keyed(KeyRule::column("id")), &alike),
        &expect![[r#"
        0 {"id":"[null]","n":1}
        1 bad: id: key differs: the column is NULL, which a key says as [null]
    "#]],
    );
    let numbers = schema(vec![FieldSpec::new("d", DataType::Decimal128(10, 2)), FieldSpec::new("x", DataType::Float64)]);
    let written: [(Option<&str>, Option<&[u8]>); 6] = [
        (Some("1.10"), Some(br#"{"d":1.1,"x":1.5}"#)),
        (Some("1.1"), Some(br#"{"d":1.1,"x":1.5}"#)),
        (Some("-0.05"), Some(br#"{"d":"-0.05","x":-10}"#)),
        (Some("1.5"), Some(br#"{"d":2,"x":1.50}"#)),
        (Some("-10.0"), Some(br#"{"d":2,"x":-10}"#)),
        (Some("1e300"), Some(br#"{"d":2,"x":1e300}"#)),
    ];
    check_decoded(
        &decode(numbers.clone().with_key(KeyRule::column("d")).unwrap(), &written),
        &expect![[r#"
        0 {"d":1.10,"x":1.5}
        1 bad: d: key differs
        2 {"d":-0.05,"x":-10.0}
        3 bad: d: key differs
        4 bad: d: key differs
        5 bad: d: key differs
    "#]],
    );
    check_decoded(
        &decode(numbers.with_key(KeyRule::column("x")).unwrap(), &written),
        &expect![[r#"
        0 bad: x: key differs
        1 bad: x: key differs
        2 bad: x: key differs
        3 {"d":2.00,"x":1.5}
        4 {"d":2.00,"x":-10.0}
        5 {"d":2.00,"x":1e+300}
    "#]],
    );
    let both = KeyRule { columns: vec!["id".to_owned(), "n".to_owned()], partitioner: None, partitions: 1 };
    let several = [
        (Some(r#"["a","1"]"#), Some(&br#"{"id":"a","n":1}"#[..])),
        (Some(r#"["a",null]"#), Some(br#"{"id":"a"}"#)),
        (Some("a"), Some(br#"{"id":"a"}"#)),
    ];
    check_decoded(
        &decode(keyed(both), &several),
        &expect![[r#"
        0 {"id":"a","n":1}
        1 {"id":"a","n":null}
        2 bad: id, n: key differs
    "#]],
    );
}

/// The places are those of the Java client's and librdkafka's partitioners over four partitions.
#[test]
fn a_record_in_another_partition_than_its_keys_is_bad() {
    let place = |partitioner, partition| {
        let schema = schema(vec![FieldSpec::new("id", DataType::Utf8)]).with_key(KeyRule::column("id").placed_by(partitioner, 4)).unwrap();
        let value = br#"{"id":"foobar"}"#;
        Decoder::new(Arc::new(schema)).decode(PartitionId(partition), &[batch(&[(Some("foobar"), Some(value))])], Offset(0)).bad.is_empty()
    };
    // murmur2("foobar") = -790332482; crc32("foobar") = 0x9ef61f95.
    let murmur = (-790_332_482_i32 & 0x7fff_ffff) % 4;
    let crc = (0x9ef6_1f95_u32 % 4) as i32;
    for partition in 0..4 {
        assert_eq!(place(Partitioner::Murmur2, partition), partition == murmur);
        assert_eq!(place(Partitioner::Crc32, partition), partition == crc);
    }
}

#[test]
fn a_null_value_is_bad_in_a_stream_and_a_tombstone_in_a_table() {
    let records: [(Option<&str>, Option<&[u8]>); 3] = [(Some("a"), None), (None, None), (Some("a"), Some(br#"{"id":"a"}"#))];
    let fields = || schema(vec![FieldSpec::new("id", DataType::Utf8)]);
    check_decoded(
        &decode(fields(), &records),
        &expect![[r#"
            0 bad: null value
            1 bad: null value
            2 {"id":"a"}
        "#]],
    );
    let table = decode(fields().with_tombstones(), &records);
    check_decoded(
        &table,
        &expect![[r#"
            0 tombstone
            1 bad: null value
            2 {"id":"a"}
        "#]],
    );
    assert_eq!(table.tombstones[0].key, b"a");
}

#[test]
fn a_raw_stream_shows_the_value_as_it_is() {
    let raw = |data_type| StreamSchema::new(Format::Raw, vec![FieldSpec::new("v", data_type)]).unwrap();
    let records: [(Option<&str>, Option<&[u8]>); 3] = [(None, Some(b"plain")), (None, Some(b"\xff")), (None, Some(b""))];
    check_decoded(
        &decode(raw(DataType::Utf8), &records),
        &expect![[r#"
            0 {"v":"plain"}
            1 bad: v: expected UTF-8 at byte 0
            2 {"v":""}
        "#]],
    );
    check_decoded(
        &decode(raw(DataType::Binary), &records),
        &expect![[r#"
            0 {"v":"cGxhaW4="}
            1 {"v":"/w=="}
            2 {"v":""}
        "#]],
    );
}

#[test]
fn records_below_the_start_and_control_batches_are_passed_over() {
    let mut decoder = Decoder::new(Arc::new(schema(vec![FieldSpec::new("n", DataType::Int64)])));
    let value = |n: i64| format!("{{\"n\":{n}}}");
    let mut first = BatchBuilder::new().with_codec(Codec::Zstd);
    (0..10).for_each(|n| first.push(0, None, Some(value(n).as_bytes()), &[]));
    let mut control = BatchBuilder::new().with_producer(1, 0, -1).transactional().control();
    control.push(0, Some(&[0, 0, 0, 1]), Some(&[0; 6]), &[]);
    let mut last = BatchBuilder::new();
    last.push(0, None, Some(value(11).as_bytes()), &[]);
    let batches = [first.finish(), control.finish().with_base(Offset(10), 0), last.finish().with_base(Offset(11), 0)];
    let decoded = decoder.decode(PartitionId(0), &batches, Offset(7));
    assert_eq!(decoded.offsets.to_vec(), [7, 8, 9, 11]);
    assert_eq!((decoded.bad.len(), decoded.next), (0, Offset(12)));
    assert_eq!(decoder.decode(PartitionId(0), &batches, Offset(12)).rows.num_rows(), 0);
    assert_eq!(decoder.decode(PartitionId(0), &[], Offset(12)).next, Offset(12));
}

#[test]
fn names_come_and_go_without_harm() {
    // More names than are remembered, in changing order, some of them twice.
    let mut values = Vec::new();
    for n in 0..400_usize {
        let mut names: Vec<String> = (0..30).map(|i| format!("\"f{}\":{i}", (n * 7 + i) % 500)).collect();
        names.insert(n % 30, format!("\"n\":{n}"));
        if n % 10 == 3 {
            names.push(names[n % 25].clone());
        }
        values.push(format!("{{{}}}", names.join(",")));
    }
    let records: Vec<_> = values.iter().map(|v| (None, Some(v.as_bytes()))).collect();
    let decoded = decode(schema(vec![FieldSpec::new("n", DataType::Int64)]), &records);
    assert_eq!((decoded.rows.num_rows(), decoded.bad.len()), (360, 40));
    for bad in decoded.bad {
        assert!(bad.reason.contains("a field comes twice"), "{}", bad.reason);
        assert_eq!(bad.offset.0 % 10, 3);
    }
}

#[test]
fn a_name_is_found_whatever_characters_it_has() {
    let fields = ["a\"b", "a\\", "sixteen-bytes-ab", "fifteen-bytes-a", "a-name-much-longer-than-sixteen-bytes", "é", ""]
        .map(|n| FieldSpec::new(n, DataType::Int64));
    let mut object = serde_json::Map::new();
    for (at, field) in fields.iter().enumerate() {
        object.insert(field.name.clone(), at.into());
    }
    let value = serde_json::to_vec(&object).unwrap();
    let decoded =
        decode(schema(fields.to_vec()), &[(None, Some(&value)), (None, Some(&value)), (None, Some(br#"{"a\"b":1,"a\\":2,"":3}"#))]);
    assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
    let encoded = JsonEncoder::new(decoded.rows.schema()).encode(&decoded.rows);
    assert_eq!(encoded.row(0), Ok(&value[..]));
    assert_eq!(encoded.row(1), Ok(&value[..]));
}
