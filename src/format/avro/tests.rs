//! Avro as Confluent's serializer writes it, as we write it, and as nobody should.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, TimeUnit};
use expect_test::{Expect, expect};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::super::{Decoded, Decoder, Encoder, FieldSpec, Format, JsonEncoder, RegistryRule, StreamSchema};
use crate::record::{BatchBuilder, Offset, PartitionId};
use crate::registry::{Registry, Schema, SchemaKind};

/// What `tests/formats/make.py` made.
const MADE: &str = include_str!("../../../tests/formats/avro.json");

fn stream(fields: Vec<FieldSpec>, schemas: &[(u32, &str)]) -> StreamSchema {
    let registry = Arc::new(Registry::new("http://registry").unwrap());
    for (id, text) in schemas {
        registry.learn(*id, Schema { kind: SchemaKind::Avro, text: (*text).to_owned(), references: Vec::new() });
    }
    let rule = RegistryRule { registry, subject: "ours-value".to_owned(), record: "ours".to_owned() };
    StreamSchema::new(Format::Avro, fields).unwrap().with_registry(rule)
}

fn decode(stream: StreamSchema, values: &[Vec<u8>]) -> Decoded {
    let mut records = BatchBuilder::new();
    for value in values {
        records.push(0, None, Some(value), &[]);
    }
    Decoder::new(Arc::new(stream)).decode(PartitionId(0), &[records.finish()], Offset(0))
}

fn lines(rows: &RecordBatch) -> Vec<Value> {
    let encoded = JsonEncoder::new(rows.schema()).encode(rows);
    (0..rows.num_rows()).map(|row| serde_json::from_slice(encoded.row(row).unwrap()).unwrap()).collect()
}

fn made(case: &str) -> (String, Vec<Vec<u8>>, Vec<Value>) {
    let all: Value = serde_json::from_str(MADE).unwrap();
    let case = &all[case];
    let bytes = |text: &Value| {
        let text = text.as_str().unwrap();
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    let values = case["values"].as_array().unwrap().iter().map(bytes).collect();
    (case["schema"].as_str().unwrap().to_owned(), values, case["rows"].as_array().unwrap().clone())
}

fn id_of(value: &[u8]) -> u32 {
    u32::from_be_bytes(*value[1..].first_chunk().unwrap())
}

const MS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn device(fw: DataType) -> DataType {
    DataType::Struct(vec![Field::new("id", DataType::Utf8, true), Field::new("fw", fw, true)].into())
}

fn tags() -> DataType {
    DataType::List(Field::new_list_field(DataType::Utf8, true).into())
}

#[test]
fn what_confluents_serializer_writes_is_read() {
    let (schema, values, rows) = made("wide");
    let fields = vec![
        // Names differ in case alone from the writer's, where SQL has folded them.
        FieldSpec::new("patientid", DataType::Utf8).not_null(),
        FieldSpec::new("ts", MS).not_null(),
        FieldSpec::new("heart_rate", DataType::Float64),
        FieldSpec::new("spo2", DataType::Float32),
        FieldSpec::new("n", DataType::Int64),
        FieldSpec::new("big", DataType::Int64),
        FieldSpec::new("flag", DataType::Boolean),
        FieldSpec::new("ts2", DataType::Timestamp(TimeUnit::Microsecond, None)),
        FieldSpec::new("day", DataType::Date32),
        FieldSpec::new("clock", DataType::Time64(TimeUnit::Microsecond)),
        FieldSpec::new("dose", DataType::Decimal128(12, 3)),
        FieldSpec::new("dose2", DataType::Decimal128(12, 3)),
        FieldSpec::new("kind", DataType::Utf8),
        FieldSpec::new("raw", DataType::Binary),
        FieldSpec::new("tags", tags()),
        FieldSpec::new("device", device(DataType::Int32)),
        FieldSpec::new("absent", DataType::Float64),
    ];
    let read = decode(stream(fields, &[(id_of(&values[0]), &schema)]), &values);
    assert_eq!(read.bad, []);
    assert_eq!(lines(&read.rows), rows);
}

fn ours() -> Vec<FieldSpec> {
    vec![
        FieldSpec::new("id", DataType::Utf8).not_null(),
        FieldSpec::new("hr", DataType::Float64),
        FieldSpec::new("spo2", DataType::Float32),
        FieldSpec::new("n", DataType::Int32),
        FieldSpec::new("big", DataType::Int64).not_null(),
        FieldSpec::new("flag", DataType::Boolean),
        FieldSpec::new("ts", MS).not_null(),
        FieldSpec::new("day", DataType::Date32),
        FieldSpec::new("dose", DataType::Decimal128(10, 2)),
        FieldSpec::new("raw", DataType::Binary),
        FieldSpec::new("tags", tags()),
        FieldSpec::new("device", device(DataType::Int64)),
    ]
}

#[test]
fn what_we_write_is_byte_for_byte_what_confluents_serializer_writes() {
    let (schema, values, rows) = made("ours");
    let stream = stream(ours(), &[(id_of(&values[0]), &schema)]);
    let (kind, text) = Encoder::schema(&stream).unwrap().unwrap();
    assert_eq!(kind, SchemaKind::Avro);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), serde_json::from_str::<Value>(&schema).unwrap());
    let read = decode(stream.clone(), &values);
    assert_eq!((read.bad.as_slice(), lines(&read.rows)), (&[][..], rows));
    let encoded = Encoder::with_id(&stream, &read.rows.schema(), id_of(&values[0])).encode(&read.rows);
    for (row, value) in values.iter().enumerate() {
        assert_eq!(encoded.row(row), Ok(&value[..]), "row {row}");
    }
}

/// Values under one schema and what the columns make of each.
fn check(schema: &str, fields: Vec<FieldSpec>, values: &[&[u8]], expected: &Expect) {
    let values: Vec<Vec<u8>> = values.iter().map(|v| [&[0, 0, 0, 0, 1], *v].concat()).collect();
    check_framed(stream(fields, &[(1, schema)]), &values, expected);
}

fn check_framed(stream: StreamSchema, values: &[Vec<u8>], expected: &Expect) {
    let read = decode(stream, values);
    let rows = read.offsets.iter().zip(lines(&read.rows)).map(|(offset, row)| (*offset, row.to_string()));
    let mut all: Vec<_> = rows.chain(read.bad.iter().map(|b| (b.offset.0, format!("bad: {}", b.reason)))).collect();
    all.sort();
    expected.assert_eq(&all.into_iter().map(|(offset, text)| format!("{offset} {text}\n")).collect::<String>());
}

const SMALL: &str = r#"{"type":"record","name":"r","fields":[
    {"name":"p","type":"string"},{"name":"x","type":["null","double"]},{"name":"more","type":{"type":"array","items":"null"}}]}"#;

fn small() -> Vec<FieldSpec> {
    vec![FieldSpec::new("p", DataType::Utf8).not_null(), FieldSpec::new("x", DataType::Float64)]
}

#[test]
fn a_broken_value_is_bad_alone_and_says_where() {
    let nan = [&[2, b'a', 2][..], &f64::NAN.to_le_bytes(), &[0]].concat();
    check(
        SMALL,
        small(),
        &[
            &[2, b'a', 0, 0],
            // A list of as many items without bytes as there can be said to be.
            &[2, b'a', 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0],
            &[2, b'a', 0, 6, 0],
            &[2, b'a', 4, 0],
            &[2, b'a', 1, 0],
            &[2, 0xff, 0, 0],
            &[1, 0, 0],
            &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[2, b'a', 0, 0, 0],
            &[2, b'a', 2, 0, 0],
            &nan,
            &[],
            &[2, b'b', 0, 0],
        ],
        &expect![[r#"
            0 {"p":"a","x":null}
            1 bad: more items than the value has bytes at byte 18
            2 {"p":"a","x":null}
            3 bad: x: no such branch of a union at byte 7
            4 bad: x: no such branch of a union at byte 7
            5 bad: p: expected UTF-8 at byte 5
            6 bad: p: a length below zero at byte 5
            7 bad: p: the value ends too early at byte 15
            8 bad: p: expected a number of at most ten bytes at byte 5
            9 bad: bytes behind the value at byte 9
            10 bad: x: the value ends too early at byte 8
            11 bad: x: not a finite number at byte 8
            12 bad: p: expected a number of at most ten bytes at byte 5
            13 {"p":"b","x":null}
        "#]],
    );
}

#[test]
fn what_stands_in_front_of_a_value_is_looked_at() {
    let stream = stream(
        small(),
        &[(1, SMALL), (2, r#"{"type":"record","name":"r","fields":[{"name":"p","type":"int"}]}"#), (3, "\"int\""), (4, "{")],
    );
    let good = [0, 0, 0, 0, 1, 2, b'a', 0, 0].to_vec();
    let of = |id: u8| [0, 0, 0, 0, id, 2, b'a', 0, 0].to_vec();
    let values = [good.clone(), b"{\"p\":1}".to_vec(), Vec::new(), vec![0, 0, 0, 0], of(2), of(3), of(4), good];
    check_framed(
        stream,
        &values,
        &expect![[r#"
            0 {"p":"a","x":null}
            1 bad: expected a zero and a schema's id in four bytes at byte 0
            2 bad: expected a zero and a schema's id in four bytes at byte 0
            3 bad: expected a zero and a schema's id in four bytes at byte 0
            4 bad: schema 2 of the registry http://registry: p: the writer's int is not what the column holds
            5 bad: schema 3 of the registry http://registry: its schema is not a record
            6 bad: schema 4 of the registry http://registry: its schema uses a name before it says what that is
            7 {"p":"a","x":null}
        "#]],
    );
}

#[test]
fn a_schema_that_is_not_known_stops_the_reading_in_front_of_its_record() {
    let of = |id: u8| [0, 0, 0, 0, id, 2, b'a', 0, 0].to_vec();
    let read = decode(stream(small(), &[(1, SMALL)]), &[of(1), of(1), of(9), of(1)]);
    assert_eq!((read.rows.num_rows(), read.next, read.wants, read.bad.len()), (2, Offset(2), Some(9), 0));
}

#[test]
fn columns_and_writers_types_meet_or_say_why_not() {
    let schema = r#"{"type":"record","name":"r","fields":[
        {"name":"a","type":"long"},{"name":"b","type":"string"},{"name":"c","type":["null","string","int"]},{"name":"A","type":"int"}]}"#;
    let value: &[u8] = &[2, 20, b'2', b'0', b'2', b'6', b'-', b'0', b'1', b'-', b'0', b'1', 4, 14, 8];
    let column = |name: &str, data_type: DataType| FieldSpec::new(name, data_type);
    for (fields, expected) in [
        (
            vec![column("a", MS).unit(TimeUnit::Second), column("b", DataType::Date32)],
            expect![[r#"
            0 {"a":"1970-01-01T00:00:01Z","b":"2026-01-01"}
        "#]],
        ),
        (
            vec![column("A", DataType::Float64), column("b", MS), column("c", DataType::Int16)],
            expect![[r#"
            0 {"A":4.0,"b":"2026-01-01T00:00:00Z","c":7}
        "#]],
        ),
        (
            vec![column("a", DataType::Utf8)],
            expect![[r#"
            0 bad: schema 1 of the registry http://registry: a: the writer's long is not what the column holds
        "#]],
        ),
        (
            vec![column("b", DataType::Int32)],
            expect![[r#"
            0 bad: schema 1 of the registry http://registry: b: the writer's string is not what the column holds
        "#]],
        ),
        (
            vec![column("c", DataType::Boolean)],
            expect![[r#"
            0 bad: schema 1 of the registry http://registry: c: the writer's schema has no branch that the column can hold
        "#]],
        ),
        (
            vec![column("c", DataType::Utf8)],
            expect![[r#"
            0 bad: c: a branch of the union that the column cannot hold at byte 18
        "#]],
        ),
        (
            vec![column("d", DataType::Utf8).not_null()],
            expect![[r#"
            0 bad: d: missing in the writer's schema, and the column is NOT NULL at byte 20
        "#]],
        ),
    ] {
        check(schema, fields, &[value], &expected);
    }
}

#[test]
fn a_schema_that_names_itself_is_read_as_deep_as_a_value_may_be() {
    let schema =
        r#"{"type":"record","name":"r","namespace":"n","fields":[{"name":"x","type":"int"},{"name":"next","type":["null","n.r"]}]}"#;
    let chain = |len: usize| [[2_u8, 2].repeat(len - 1), vec![2, 0]].concat();
    let (short, long) = (chain(3), chain(5_000));
    let next = DataType::Struct(vec![Field::new("x", DataType::Int64, true)].into());
    check(
        schema,
        vec![FieldSpec::new("x", DataType::Int64), FieldSpec::new("next", next)],
        &[&short, &long],
        &expect![[r#"
            0 {"x":1,"next":{"x":1}}
            1 bad: next: nested too deep at byte 69
        "#]],
    );
}

#[test]
fn no_bytes_and_no_schema_make_it_panic() {
    let (schema, values, _) = made("wide");
    let chance = &mut StdRng::seed_from_u64(11);
    let fields = || {
        vec![
            FieldSpec::new("tags", tags()),
            FieldSpec::new("device", device(DataType::Int32)),
            FieldSpec::new("dose", DataType::Decimal128(5, 1)),
        ]
    };
    let damaged: Vec<Vec<u8>> = (0..4_000)
        .map(|_| {
            let mut value = values[chance.random_range(0..values.len())].clone();
            for _ in 0..chance.random_range(1..4) {
                let at = chance.random_range(5..value.len());
                value[at] = chance.random();
            }
            value.truncate(chance.random_range(5..=value.len()));
            value
        })
        .collect();
    let read = decode(stream(fields(), &[(id_of(&values[0]), &schema)]), &damaged);
    assert_eq!(read.rows.num_rows() + read.bad.len(), damaged.len());
    for _ in 0..2_000 {
        let mut text = schema.clone().into_bytes();
        for _ in 0..chance.random_range(1..4) {
            let at = chance.random_range(0..text.len());
            text[at] = *b"\"{}[],:0nl".get(chance.random_range(0..10)).unwrap();
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let read = decode(stream(fields(), &[(id_of(&values[0]), &text)]), &values[..2]);
        assert_eq!(read.rows.num_rows() + read.bad.len(), 2);
    }
}

#[test]
fn the_specifications_own_examples_are_read() {
    // Of "Binary Encoding" in Avro 1.12: longs, a string, a record, an array, a union.
    check(
        r#"{"type":"record","name":"r","fields":[{"name":"a","type":"long"}]}"#,
        vec![FieldSpec::new("a", DataType::Int64)],
        &[&[0], &[1], &[2], &[3], &[4], &[0x7f], &[0x80, 1]],
        &expect![[r#"
            0 {"a":0}
            1 {"a":-1}
            2 {"a":1}
            3 {"a":-2}
            4 {"a":2}
            5 {"a":-64}
            6 {"a":64}
        "#]],
    );
    check(
        r#"{"type":"record","name":"test","fields":[{"name":"a","type":"long"},{"name":"b","type":"string"}]}"#,
        vec![FieldSpec::new("a", DataType::Int64), FieldSpec::new("b", DataType::Utf8)],
        &[&[0x36, 0x06, 0x66, 0x6f, 0x6f]],
        &expect![[r#"
            0 {"a":27,"b":"foo"}
        "#]],
    );
    let longs = || vec![FieldSpec::new("xs", DataType::List(Field::new_list_field(DataType::Int64, true).into()))];
    check(
        r#"{"type":"record","name":"r","fields":[{"name":"xs","type":{"type":"array","items":"long"}}]}"#,
        longs(),
        // One block; two; a block of minus two items with its size in bytes, for those who pass over it.
        &[&[4, 6, 0x36, 0], &[2, 6, 2, 0x36, 0], &[3, 4, 6, 0x36, 0], &[0]],
        &expect![[r#"
            0 {"xs":[3,27]}
            1 {"xs":[3,27]}
            2 {"xs":[3,27]}
            3 {"xs":[]}
        "#]],
    );
    check(
        r#"{"type":"record","name":"r","fields":[{"name":"u","type":["null","string"]}]}"#,
        vec![FieldSpec::new("u", DataType::Utf8)],
        &[&[0], &[2, 2, 0x61]],
        &expect![[r#"
            0 {"u":null}
            1 {"u":"a"}
        "#]],
    );
}

#[test]
fn what_no_column_takes_is_passed_over_whatever_it_is() {
    let schema = r#"{"type":"record","name":"r","fields":[
        {"name":"m","type":{"type":"map","values":["null",{"type":"array","items":"double"}]}},{"name":"e","type":{"type":"enum","name":"e","symbols":["A"]}},
        {"name":"f","type":{"type":"fixed","name":"f","size":3}},{"name":"n","type":"null"},{"name":"s","type":"float"},{"name":"b","type":"boolean"},
        {"name":"t","type":"bytes"},{"name":"z","type":"int"}]}"#;
    let map = [&[3, 40, 2, b'k', 2, 2][..], &[0; 8], &[0, 2, b'l', 0, 0]].concat();
    let rest = [0, 1, 2, 3, 0, 0, 0, 0, 1, 4, 9, 9, 14];
    check(
        schema,
        vec![FieldSpec::new("z", DataType::Int32)],
        &[&[&map[..], &rest].concat()],
        &expect![[r#"
            0 {"z":7}
        "#]],
    );
}

#[test]
fn a_logical_type_that_does_not_suit_its_type_is_passed_over() {
    let schema = r#"{"type":"record","name":"r","fields":[
        {"name":"a","type":{"type":"int","logicalType":"timestamp-millis"}},{"name":"b","type":{"type":"long","logicalType":"date"}},
        {"name":"c","type":{"type":"bytes","logicalType":"decimal","precision":2,"scale":3}},{"name":"d","type":{"type":"string","logicalType":"uuid"}},
        {"name":"e","type":{"type":"long","logicalType":"local-timestamp-micros"}},{"name":"f","type":{"type":"int","logicalType":"no-such"}}]}"#;
    let columns = vec![
        FieldSpec::new("a", DataType::Float64),
        FieldSpec::new("b", DataType::Float64),
        FieldSpec::new("c", DataType::Binary),
        FieldSpec::new("d", DataType::Utf8),
        FieldSpec::new("e", MS),
        FieldSpec::new("f", DataType::Float64),
    ];
    check(
        schema,
        columns,
        &[&[2, 4, 2, 7, 2, b'u', 0xc0, 0x84, 0x3d, 6]],
        &expect![[r#"
            0 {"a":1.0,"b":2.0,"c":"Bw==","d":"u","e":"1970-01-01T00:00:00.500Z","f":3.0}
        "#]],
    );
    for (schema, why) in [
        (r#"{"type":"record","name":"r","fields":[{"name":"a","type":["null",["int"]]}]}"#, "a union directly within a union"),
        (r#"{"type":"record","name":"r","fields":[{"name":"a","type":{"type":"fixed","name":"r","size":1}}]}"#, "one name to two types"),
        (r#"{"type":"record","name":"r","fields":[{"name":"a","type":{"type":"fixed","name":"f","size":-1}}]}"#, "a type without \"size\""),
    ] {
        let read = decode(stream(vec![FieldSpec::new("a", DataType::Int32)], &[(1, schema)]), &[vec![0, 0, 0, 0, 1, 0]]);
        assert!(read.bad[0].reason.contains(why), "{:?}", read.bad);
    }
}

#[test]
fn no_two_records_of_a_schema_that_we_write_share_a_name() {
    let inner = DataType::Struct(vec![Field::new("x", DataType::Int32, true)].into());
    let outer = DataType::Struct(vec![Field::new("b", inner.clone(), true)].into());
    let fields = vec![FieldSpec::new("a", outer), FieldSpec::new("a_b", inner.clone()), FieldSpec::new("c", inner)];
    let (_, text) = Encoder::schema(&stream(fields.clone(), &[])).unwrap().unwrap();
    for name in ["ours_a", "ours_a_b", "ours_a_b_", "ours_c"] {
        assert!(text.contains(&format!("\"name\":\"{name}\"")), "{text}");
    }
    // What it reads of a value under it: all three are there, with nothing in them.
    let read = decode(stream(fields, &[(1, &text)]), &[vec![0, 0, 0, 0, 1, 2, 2, 0, 2, 0, 2, 2, 14]]);
    assert_eq!(lines(&read.rows)[0].to_string(), r#"{"a":{"b":{"x":null}},"a_b":{"x":null},"c":{"x":7}}"#, "{:?}", read.bad);
}
