//! Protobuf as Confluent's serializer writes it, as we write it, and as nobody should.

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
const MADE: &str = include_str!("../../../tests/formats/protobuf.json");

fn stream(fields: Vec<FieldSpec>, id: u32, text: &str, references: Vec<(String, String)>) -> StreamSchema {
    let registry = Arc::new(Registry::new("http://registry").unwrap());
    registry.learn(id, Schema { kind: SchemaKind::Protobuf, text: text.to_owned(), references });
    let rule = RegistryRule { registry, subject: "ours-value".to_owned(), record: "ours".to_owned() };
    StreamSchema::new(Format::Protobuf, fields).unwrap().with_registry(rule)
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

struct Made {
    schema: String,
    references: Vec<(String, String)>,
    values: Vec<Vec<u8>>,
    rows: Vec<Value>,
}

fn made(case: &str) -> Made {
    let all: Value = serde_json::from_str(MADE).unwrap();
    let case = &all[case];
    let bytes = |text: &Value| {
        let text = text.as_str().unwrap();
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    Made {
        schema: case["schema"].as_str().unwrap().to_owned(),
        references: serde_json::from_value(case["references"].clone()).unwrap(),
        values: case["values"].as_array().unwrap().iter().map(bytes).collect(),
        rows: case["rows"].as_array().unwrap().clone(),
    }
}

fn id_of(value: &[u8]) -> u32 {
    u32::from_be_bytes(*value[1..].first_chunk().unwrap())
}

const MS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn list(of: DataType) -> DataType {
    DataType::List(Field::new_list_field(of, true).into())
}

fn structure(fields: Vec<(&str, DataType)>) -> DataType {
    DataType::Struct(fields.into_iter().map(|(name, of)| Field::new(name, of, true)).collect())
}

fn vitals() -> Vec<FieldSpec> {
    vec![
        FieldSpec::new("patientid", DataType::Utf8).not_null(),
        FieldSpec::new("heart_rate", DataType::Float64),
        FieldSpec::new("spo2", DataType::Float32).not_null(),
        FieldSpec::new("n", DataType::Int32).not_null(),
        FieldSpec::new("big", DataType::Int64),
        FieldSpec::new("count", DataType::Decimal128(20, 0)),
        FieldSpec::new("crc", DataType::Int64),
        FieldSpec::new("offset", DataType::Int64),
        FieldSpec::new("flag", DataType::Boolean),
        FieldSpec::new("ts", MS),
        FieldSpec::new("epoch_ms", MS).not_null(),
        FieldSpec::new("day", DataType::Date32),
        FieldSpec::new("dose", DataType::Float64),
        FieldSpec::new("kind", DataType::Utf8),
        FieldSpec::new("raw", DataType::Binary),
        FieldSpec::new("tags", list(DataType::Utf8)),
        FieldSpec::new("steps", list(DataType::Int64)),
        FieldSpec::new("kinds", list(DataType::Utf8)),
        FieldSpec::new(
            "device",
            structure(vec![("id", DataType::Utf8), ("fw", DataType::Int32), ("parts", list(structure(vec![("id", DataType::Utf8)])))]),
        ),
        FieldSpec::new("text", DataType::Utf8),
        FieldSpec::new("code", DataType::Int32),
        FieldSpec::new("absent", DataType::Int32),
    ]
}

#[test]
fn what_confluents_serializer_writes_is_read() {
    let made = made("vitals");
    let read = decode(stream(vitals(), id_of(&made.values[0]), &made.schema, made.references), &made.values);
    assert_eq!(read.bad, []);
    assert_eq!(lines(&read.rows), made.rows);
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
        FieldSpec::new("tags", list(DataType::Utf8)),
        FieldSpec::new("device", structure(vec![("id", DataType::Utf8), ("fw", DataType::Int64)])),
        FieldSpec::new("steps", list(DataType::Int64)),
        FieldSpec::new("on", DataType::Boolean).not_null(),
    ]
}

#[test]
fn what_we_write_is_byte_for_byte_what_confluents_serializer_writes() {
    let made = made("ours");
    let id = id_of(&made.values[0]);
    let stream = stream(ours(), id, &made.schema, Vec::new());
    assert_eq!(Encoder::schema(&stream).unwrap().unwrap(), (SchemaKind::Protobuf, made.schema));
    let read = decode(stream.clone(), &made.values);
    assert_eq!((read.bad.as_slice(), lines(&read.rows)), (&[][..], made.rows));
    let encoded = Encoder::with_id(&stream, &read.rows.schema(), id).encode(&read.rows);
    for (row, value) in made.values.iter().enumerate() {
        assert_eq!(encoded.row(row), Ok(&value[..]), "row {row}");
    }
}

const SMALL: &str = r#"syntax = "proto3"; message R {
    string p = 1; optional double x = 2; R next = 3; repeated int32 xs = 4; google.protobuf.Timestamp ts = 5; repeated group_ g = 60;
    message group_ { int32 a = 1; } enum E { A = 0; B = 5; } E e = 7; } import "google/protobuf/timestamp.proto";"#;

fn small() -> Vec<FieldSpec> {
    vec![
        FieldSpec::new("p", DataType::Utf8).not_null(),
        FieldSpec::new("x", DataType::Float64),
        FieldSpec::new("next", structure(vec![("p", DataType::Utf8), ("xs", list(DataType::Int64))])),
        FieldSpec::new("xs", list(DataType::Int64)),
        FieldSpec::new("ts", MS),
        FieldSpec::new("e", DataType::Utf8),
    ]
}

fn check(stream: StreamSchema, values: &[Vec<u8>], expected: &Expect) {
    let read = decode(stream, values);
    let rows = read.offsets.iter().zip(lines(&read.rows)).map(|(offset, row)| (*offset, row.to_string()));
    let mut all: Vec<_> = rows.chain(read.bad.iter().map(|b| (b.offset.0, format!("bad: {}", b.reason)))).collect();
    all.sort();
    expected.assert_eq(&all.into_iter().map(|(offset, text)| format!("{offset} {text}\n")).collect::<String>());
}

fn framed(values: &[&[u8]]) -> Vec<Vec<u8>> {
    values.iter().map(|v| [&[0, 0, 0, 0, 1, 0], *v].concat()).collect()
}

#[test]
fn fields_come_in_any_order_and_the_last_counts() {
    let nan = [&[0x11][..], &f64::NAN.to_le_bytes()].concat();
    let values = framed(&[
        &[],
        &[0x0a, 1, b'a', 0x0a, 1, b'b'],
        // The two parts of a message are one, and a list may come in pieces, packed and not.
        &[0x1a, 3, 0x0a, 1, b'c', 0x20, 7, 0x1a, 4, 0x22, 2, 1, 2, 0x22, 1, 8, 0x20, 9],
        // A group that nobody reads, another field, and a time with nanoseconds.
        &[0x33, 0x08, 1, 0x34, 0xf8, 0x3f, 1, 0x2a, 8, 0x08, 1, 0x10, 0x80, 0xca, 0xb5, 0xee, 1],
        &[0x38, 5],
        &[0x38, 6],
        &[0x0a, 2, b'a'],
        &[0x0a, 0x80],
        &[0x08, 1],
        &[0x0a, 1, 0xff],
        &nan,
        &[0x2a, 11, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        &[0x2a, 2, 0x10, 0x80],
        &[0x33, 0x33, 0x34],
        &[0x34],
        &[0x00],
        &[0x0f],
        &[0x22, 1, 0x80],
        &[0x0a, 1, b'z'],
    ]);
    check(
        stream(small(), 1, SMALL, Vec::new()),
        &values,
        &expect![[r#"
            0 {"p":"","x":null,"next":null,"xs":[],"ts":null,"e":"A"}
            1 {"p":"b","x":null,"next":null,"xs":[],"ts":null,"e":"A"}
            2 {"p":"","x":null,"next":{"p":"c","xs":[1,2]},"xs":[7,8,9],"ts":null,"e":"A"}
            3 {"p":"","x":null,"next":null,"xs":[],"ts":"1970-01-01T00:00:01.500Z","e":"A"}
            4 {"p":"","x":null,"next":null,"xs":[],"ts":null,"e":"B"}
            5 bad: e: no such name of the enum at byte 8
            6 bad: the value ends too early at byte 8
            7 bad: expected a number of at most ten bytes at byte 7
            8 bad: p: another wire type than the schema's at byte 7
            9 bad: p: expected UTF-8 at byte 8
            10 bad: x: not a finite number at byte 7
            11 {"p":"","x":null,"next":null,"xs":[],"ts":"1969-12-31T23:59:59Z","e":"A"}
            12 bad: ts: expected a number of at most ten bytes at byte 9
            13 bad: expected a number of at most ten bytes at byte 9
            14 bad: no such wire type at byte 7
            15 bad: expected a field's number at byte 6
            16 bad: no such wire type at byte 7
            17 bad: xs: expected a number of at most ten bytes at byte 8
            18 {"p":"z","x":null,"next":null,"xs":[],"ts":null,"e":"A"}
        "#]],
    );
}

#[test]
fn what_stands_in_front_of_a_message_is_looked_at() {
    let value = |frame: &[u8]| [&[0, 0, 0, 0, 1], frame, &[0x08, 3]].concat();
    let fields = vec![FieldSpec::new("a", DataType::Int32)];
    let values =
        [value(&[4, 0, 0]), value(&[4, 0, 2]), value(&[2, 0]), value(&[1]), value(&[0x80]), value(&[0xfe, 1]), vec![1, 2], Vec::new()];
    check(
        stream(fields, 1, SMALL, Vec::new()),
        &values,
        &expect![[r#"
            0 {"a":3}
            1 bad: schema 1 of the registry http://registry: it has no message at the place that the frame names
            2 {"a":null}
            3 bad: expected which message it is at byte 5
            4 bad: expected which message it is at byte 5
            5 bad: expected which message it is at byte 5
            6 bad: expected a zero and a schema's id in four bytes at byte 0
            7 bad: expected a zero and a schema's id in four bytes at byte 0
        "#]],
    );
}

#[test]
fn columns_and_fields_meet_or_say_why_not() {
    for (fields, expected) in [
        (
            vec![FieldSpec::new("p", DataType::Int32)],
            expect![[r#"
            0 bad: schema 1 of the registry http://registry: p: the writer's string is not what the column holds
        "#]],
        ),
        (
            vec![FieldSpec::new("xs", DataType::Int32)],
            expect![[r#"
            0 bad: schema 1 of the registry http://registry: xs: the writer's field is repeated, which the column is not
        "#]],
        ),
        (
            vec![FieldSpec::new("next", DataType::Utf8)],
            expect![[r#"
            0 bad: schema 1 of the registry http://registry: next: the writer's message is not what the column holds
        "#]],
        ),
        (
            vec![FieldSpec::new("P", DataType::Utf8), FieldSpec::new("p", DataType::Utf8)],
            expect![[r#"
            0 bad: schema 1 of the registry http://registry: columns "P" and "p" read the same field
        "#]],
        ),
        (
            vec![FieldSpec::new("other", DataType::Utf8).not_null()],
            expect![[r#"
            0 bad: other: missing in the writer's schema, and the column is NOT NULL at byte 6
        "#]],
        ),
    ] {
        check(stream(fields, 1, SMALL, Vec::new()), &framed(&[&[]]), &expected);
    }
    for broken in ["message {", "import \"gone.proto\";"] {
        let read = decode(stream(small(), 1, broken, Vec::new()), &framed(&[&[]]));
        assert!(read.bad[0].reason.contains("schema 1 of the registry http://registry: it does not compile"), "{:?}", read.bad);
    }
}

#[test]
fn a_list_with_null_has_no_protobuf() {
    let stream = stream(vec![FieldSpec::new("xs", list(DataType::Int64))], 1, SMALL, Vec::new());
    let rows: arrow::array::ListArray = arrow::array::ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>(vec![
        Some(vec![Some(1), Some(300)]),
        Some(vec![None]),
        None,
        Some(vec![]),
    ]);
    let rows = RecordBatch::try_from_iter_with_nullable([("xs", Arc::new(rows) as _, true)]).unwrap();
    let encoded = Encoder::with_id(&stream, &rows.schema(), 1).encode(&rows);
    assert_eq!(encoded.row(0), Ok(&[0, 0, 0, 0, 1, 0, 0x0a, 3, 1, 0xac, 2][..]));
    assert_eq!(encoded.row(1), Err("xs: a NULL in a list, and a repeated field has none"));
    assert_eq!(encoded.row(2), Err("xs: NULL, and a repeated field is not"));
    assert_eq!(encoded.row(3), Ok(&[0, 0, 0, 0, 1, 0][..]));
}

#[test]
fn no_bytes_make_it_panic() {
    let made = made("vitals");
    let chance = &mut StdRng::seed_from_u64(11);
    let damaged: Vec<Vec<u8>> = (0..4_000)
        .map(|_| {
            let mut value = made.values[chance.random_range(0..made.values.len())].clone();
            for _ in 0..chance.random_range(1..4) {
                let at = chance.random_range(5..value.len());
                value[at] = chance.random();
            }
            value.truncate(chance.random_range(5..=value.len()));
            value
        })
        .collect();
    let read = decode(stream(vitals(), id_of(&made.values[0]), &made.schema, made.references), &damaged);
    assert_eq!(read.rows.num_rows() + read.bad.len(), damaged.len());
}

#[test]
fn the_specifications_own_examples_are_read() {
    // Of "Encoding" in protobuf.dev: Test1 with a = 150, Test2 with b = "testing", Test3 with c, Test4 with d and e, packed and not.
    let schema = r#"syntax = "proto3"; message T { int32 a = 1; string b = 2; Test1 c = 3; string d = 4; repeated int32 e = 5; repeated int32 f = 6; sint64 z = 7;
        message Test1 { int32 a = 1; } }"#;
    let fields = vec![
        FieldSpec::new("a", DataType::Int32),
        FieldSpec::new("b", DataType::Utf8),
        FieldSpec::new("c", structure(vec![("a", DataType::Int32)])),
        FieldSpec::new("d", DataType::Utf8),
        FieldSpec::new("e", list(DataType::Int32)),
        FieldSpec::new("f", list(DataType::Int32)),
        FieldSpec::new("z", DataType::Int64),
    ];
    check(
        stream(fields, 1, schema, Vec::new()),
        &framed(&[
            &[0x08, 0x96, 0x01],
            &[0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67],
            &[0x1a, 0x03, 0x08, 0x96, 0x01],
            &[0x22, 0x05, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x28, 0x01, 0x28, 0x02, 0x28, 0x03],
            &[0x32, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05],
            // Minus two takes ten bytes as an int32, and three as a sint64 is minus two.
            &[0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x38, 0x03],
            &[0x38, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ]),
        &expect![[r#"
            0 {"a":150,"b":"","c":null,"d":"","e":[],"f":[],"z":0}
            1 {"a":0,"b":"testing","c":null,"d":"","e":[],"f":[],"z":0}
            2 {"a":0,"b":"","c":{"a":150},"d":"","e":[],"f":[],"z":0}
            3 {"a":0,"b":"","c":null,"d":"hello","e":[1,2,3],"f":[],"z":0}
            4 {"a":0,"b":"","c":null,"d":"","e":[],"f":[3,270,86942],"z":0}
            5 {"a":-2,"b":"","c":null,"d":"","e":[],"f":[],"z":-2}
            6 {"a":0,"b":"","c":null,"d":"","e":[],"f":[],"z":-9223372036854775808}
        "#]],
    );
}

#[test]
fn a_number_that_its_fields_type_cannot_hold_is_refused_and_of_a_oneof_the_last_counts() {
    let schema = r#"syntax = "proto3"; message T { int32 a = 1; uint32 b = 2; sint32 c = 3; oneof one { int32 d = 4; string e = 5; int32 unread = 6; } }"#;
    let fields = ["a", "b", "c", "d"].map(|name| FieldSpec::new(name, DataType::Int64)).to_vec();
    let fields = [fields, vec![FieldSpec::new("e", DataType::Utf8)]].concat();
    let wide = [0x80, 0x80, 0x80, 0x80, 0x10];
    check(
        stream(fields, 1, schema, Vec::new()),
        &framed(&[
            &[0x10, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x18, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[&[0x08][..], &wide].concat(),
            &[&[0x10][..], &wide].concat(),
            &[&[0x18][..], &wide].concat(),
            &[0x20, 7, 0x2a, 1, b'x'],
            &[0x2a, 1, b'x', 0x20, 7],
            &[0x2a, 1, b'x', 0x20, 7, 0x30, 1],
        ]),
        &expect![[r#"
            0 {"a":0,"b":4294967295,"c":-2147483648,"d":null,"e":null}
            1 bad: a: number out of range at byte 7
            2 bad: b: number out of range at byte 7
            3 bad: c: number out of range at byte 7
            4 {"a":0,"b":0,"c":0,"d":null,"e":"x"}
            5 {"a":0,"b":0,"c":0,"d":7,"e":null}
            6 {"a":0,"b":0,"c":0,"d":null,"e":null}
        "#]],
    );
}

#[test]
fn behind_a_map_a_frame_names_a_message_where_all_count_alike() {
    let schema = r#"syntax = "proto3"; message T { map<string, int32> m = 1; message A { int32 a = 1; } message B { int32 a = 2; } }"#;
    let value = |frame: &[u8]| [&[0, 0, 0, 0, 1], frame, &[0x08, 3]].concat();
    check(
        stream(vec![FieldSpec::new("a", DataType::Int32)], 1, schema, Vec::new()),
        &[value(&[4, 0, 0]), value(&[4, 0, 2]), value(&[4, 0, 4]), value(&[4, 0, 6])],
        &expect![[r#"
            0 {"a":3}
            1 bad: schema 1 of the registry http://registry: behind a map serializers count messages differently, and the frame could name either of two
            2 {"a":0}
            3 bad: schema 1 of the registry http://registry: it has no message at the place that the frame names
        "#]],
    );
    // As registries write a map that they were given compiled; and options that are for others.
    let schema = r#"syntax = "proto3"; import "google/protobuf/descriptor.proto"; option java_package = "x"; extend google.protobuf.FieldOptions { string pii = 50001; }
        message T { option deprecated = true; repeated MEntry m = 1; int32 a = 2 [(pii) = "yes", deprecated = true]; repeated int32 p = 3 [packed = false];
        message MEntry { option map_entry = true; string key = 1; int32 value = 2; } enum E { option allow_alias = true; X = 0; Y = 0; } }"#;
    let fields = vec![FieldSpec::new("a", DataType::Int32), FieldSpec::new("p", list(DataType::Int32))];
    check(
        stream(fields, 1, schema, Vec::new()),
        &framed(&[&[0x0a, 5, 0x0a, 1, b'k', 0x10, 9, 0x10, 3, 0x18, 1, 0x18, 2]]),
        &expect![[r#"
            0 {"a":3,"p":[1,2]}
        "#]],
    );
}
