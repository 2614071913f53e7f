//! Bytes, frames and schemas of strangers: whatever they are, nothing panics, nothing recurses or grows without bound, and
//! each record is one row or one bad record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, TimeUnit};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::{CsvRule, Decoded, Decoder, FieldSpec, Format, KeyRule, RegistryRule, StreamSchema, columns_of_schema, csv_fields};
use crate::record::{BatchBuilder, Offset, PartitionId};
use crate::registry::{Registry, Schema, SchemaKind};

const MS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn list(of: DataType) -> DataType {
    DataType::List(Field::new_list_field(of, true).into())
}

fn structure(fields: Vec<(&str, DataType)>) -> DataType {
    DataType::Struct(fields.into_iter().map(|(name, of)| Field::new(name, of, true)).collect())
}

/// Columns of every type; text and JSON formats have no use for some.
fn columns(nested: bool) -> Vec<FieldSpec> {
    let mut fields = vec![
        FieldSpec::new("f0", DataType::Utf8).not_null(),
        FieldSpec::new("f1", DataType::Float64),
        FieldSpec::new("f2", DataType::Int32),
        FieldSpec::new("f3", MS),
        FieldSpec::new("f4", DataType::Decimal128(12, 3)),
        FieldSpec::new("f5", DataType::Binary),
        FieldSpec::new("f6", DataType::Date32),
        FieldSpec::new("f7", DataType::Time64(TimeUnit::Microsecond)),
        FieldSpec::new("f8", DataType::Boolean),
        FieldSpec::new("f9", DataType::Float32),
    ];
    if nested {
        fields.push(FieldSpec::new("g0", list(DataType::Int64)));
        fields.push(FieldSpec::new("g1", structure(vec![("f0", DataType::Utf8), ("f1", list(DataType::Float64))])));
        fields.push(FieldSpec::new("g2", list(structure(vec![("f0", DataType::Utf8), ("g1", structure(vec![("f2", DataType::Int64)]))]))));
    }
    fields
}

fn registered(format: Format, fields: Vec<FieldSpec>, text: &str) -> StreamSchema {
    let registry = Arc::new(Registry::new("http://registry").unwrap());
    let kind = if format == Format::Avro { SchemaKind::Avro } else { SchemaKind::Protobuf };
    registry.learn(1, Schema { kind, text: text.to_owned(), references: Vec::new() });
    let rule = RegistryRule { registry, subject: "s-value".to_owned(), record: "s".to_owned() };
    StreamSchema::new(format, fields).unwrap().with_registry(rule)
}

/// Decodes each value as a record, and checks that what comes of them is whole.
fn whole(stream: StreamSchema, values: &[Vec<u8>]) -> Decoded {
    let mut records = BatchBuilder::new();
    for value in values {
        records.push(0, None, Some(value), &[]);
    }
    let passing = stream.format() == Format::Debezium;
    let decoded = Decoder::new(Arc::new(stream)).decode(PartitionId(0), &[records.finish()], Offset(0));
    let all = decoded.rows.num_rows() + decoded.bad.len() + decoded.tombstones.len();
    assert!(all == values.len() || passing, "{all} of {}", values.len());
    assert_eq!(decoded.offsets.len(), decoded.rows.num_rows());
    for column in decoded.rows.columns() {
        column.to_data().validate_full().expect("what was read is an array like any other");
    }
    decoded
}

const AVRO: &str = r#"{"type":"record","name":"r","fields":[
    {"name":"f0","type":"string"},{"name":"f1","type":["null","double"]},{"name":"f2","type":"int"},{"name":"x","type":{"type":"map","values":"bytes"}},
    {"name":"f3","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"f4","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
    {"name":"g0","type":{"type":"array","items":"long"}},{"name":"g1","type":["null",{"type":"record","name":"i","fields":[{"name":"f0","type":["null","string"]}]}]},
    {"name":"g2","type":{"type":"array","items":["null","i"]}},{"name":"y","type":{"type":"fixed","name":"y","size":3}}]}"#;

const PROTOBUF: &str = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto"; message R {
    string f0 = 1; optional double f1 = 2; sint32 f2 = 3; google.protobuf.Timestamp f3 = 4; string f4 = 5; bytes f5 = 6; int32 f6 = 7; fixed64 f7 = 8;
    bool f8 = 9; float f9 = 10; repeated int64 g0 = 11; I g1 = 12; repeated I g2 = 13; map<string, I> m = 14;
    message I { string f0 = 1; repeated double f1 = 2; R g1 = 3; } }"#;

fn stream_of(format: Format) -> StreamSchema {
    match format {
        Format::Csv => StreamSchema::new(format, columns(false)).unwrap(),
        Format::Raw => StreamSchema::new(format, vec![FieldSpec::new("v", DataType::Utf8)]).unwrap(),
        Format::Json => StreamSchema::new(format, columns(true)).unwrap(),
        Format::Debezium => {
            let stream = StreamSchema::new(format, columns(true)).unwrap();
            stream.with_key(KeyRule::column("f0")).unwrap().with_tombstones()
        }
        Format::Avro => registered(format, columns(true), AVRO),
        Format::Protobuf => registered(format, columns(true), PROTOBUF),
    }
}

const FORMATS: [Format; 6] = [Format::Json, Format::Csv, Format::Debezium, Format::Avro, Format::Protobuf, Format::Raw];

/// Bytes of any kind, small ones and those that formats of text are made of more often.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte =
        prop_oneof![any::<u8>(), 0..12_u8, proptest::sample::select(b"{}[]\",:;\\\r\n0-1.eEnull falsetruop\"before\"after".to_vec())];
    proptest::collection::vec(byte, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_row_or_a_bad_record_in_every_format(values in proptest::collection::vec(bytes(), 1..12), framed in any::<bool>()) {
        for format in FORMATS {
            let frame: &[u8] = match format {
                Format::Avro if framed => &[0, 0, 0, 0, 1],
                Format::Protobuf if framed => &[0, 0, 0, 0, 1, 0],
                _ => &[],
            };
            let values: Vec<Vec<u8>> = values.iter().map(|v| [frame, v].concat()).collect();
            let stream = stream_of(format);
            if framed || stream.registry().is_none() {
                whole(stream, &values);
            } else {
                // An id that nobody knows stops the reading, in front of its record.
                let mut records = BatchBuilder::new();
                values.iter().for_each(|v| records.push(0, None, Some(v), &[]));
                let read = Decoder::new(Arc::new(stream)).decode(PartitionId(0), &[records.finish()], Offset(0));
                let done = read.rows.num_rows() + read.bad.len();
                let whole = if read.wants.is_some() { read.next == Offset(done as i64) } else { done == values.len() };
                prop_assert!(whole, "{} of {}", done, values.len());
            }
        }
    }

    #[test]
    fn any_line_of_csv_has_the_fields_that_its_own_writer_gives_it(line in bytes(), delimiter in proptest::sample::select(b",;\t x".to_vec())) {
        let rule = CsvRule { delimiter, null: "\\N".to_owned() };
        if let Some(fields) = csv_fields(&rule, &line) {
            let quoted = |field: &Option<String>| field.as_ref().map_or("\\N".to_owned(), |text| format!("\"{}\"", text.replace('"', "\"\"")));
            let again = fields.iter().map(quoted).collect::<Vec<_>>().join(&char::from(delimiter).to_string());
            prop_assert_eq!(csv_fields(&rule, again.as_bytes()), Some(fields));
        }
    }

    #[test]
    fn any_text_is_a_schema_or_is_refused(text in "[ \\[\\]{}\":,a-z0-9=;<>/*]{0,200}", value in bytes()) {
        for format in [Format::Avro, Format::Protobuf] {
            let value = [&[0, 0, 0, 0, 1, 0][..], &value].concat();
            whole(registered(format, columns(true), &text), &[value]);
        }
    }
}

/// A type of a schema, with names used again and types nested at will.
fn some_type(chance: &mut StdRng, depth: usize, names: &mut Vec<String>) -> Value {
    let plain = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
    let which = if depth == 0 { chance.random_range(0..10) } else { chance.random_range(0..16) };
    match which {
        0..=7 => json!(plain[which]),
        8 if !names.is_empty() => json!(names[chance.random_range(0..names.len())]),
        8 | 9 => {
            let logical =
                ["date", "time-millis", "time-micros", "timestamp-millis", "timestamp-nanos", "decimal", "uuid"][chance.random_range(0..7)];
            let of = ["int", "long", "bytes", "string", "float"][chance.random_range(0..5)];
            json!({ "type": of, "logicalType": logical, "precision": chance.random_range(-1..50), "scale": chance.random_range(-2..50) })
        }
        10 => json!({ "type": "array", "items": some_type(chance, depth - 1, names) }),
        11 => json!({ "type": "map", "values": some_type(chance, depth - 1, names) }),
        12 => (0..chance.random_range(0..4)).map(|_| some_type(chance, depth - 1, names)).collect(),
        13 => {
            names.push(format!("n{}", names.len()));
            json!({ "type": "enum", "name": names.last().unwrap(), "symbols": ["A", "B"] })
        }
        14 => {
            names.push(format!("n{}", names.len()));
            json!({ "type": "fixed", "name": names.last().unwrap(), "size": chance.random_range(0..5) })
        }
        _ => record(chance, depth - 1, names),
    }
}

fn record(chance: &mut StdRng, depth: usize, names: &mut Vec<String>) -> Value {
    let name = format!("n{}", names.len());
    names.push(name.clone());
    let fields = ["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "g0", "g1", "g2"];
    let fields: Vec<&str> = fields.into_iter().filter(|_| chance.random_bool(0.5)).collect();
    let fields: Vec<Value> = fields.into_iter().map(|name| json!({ "name": name, "type": some_type(chance, depth, names) })).collect();
    json!({ "type": "record", "name": name, "fields": fields })
}

/// A type that a column takes, by the column's name.
fn fitting(name: &str) -> Value {
    match name {
        "f0" => json!(["string", "null"]),
        "f1" => json!(["null", "double", "float"]),
        "f2" | "f8" => json!(if name == "f2" { "int" } else { "boolean" }),
        "f3" => json!({ "type": "long", "logicalType": "timestamp-millis" }),
        "f4" => json!({ "type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1 }),
        "f5" => json!("bytes"),
        "f6" => json!({ "type": "int", "logicalType": "date" }),
        "f7" => json!({ "type": "long", "logicalType": "time-micros" }),
        "f9" => json!("float"),
        "g0" => json!({ "type": "array", "items": "long" }),
        "g1" => {
            json!(["null", { "type": "record", "name": "i", "fields": [{ "name": "f1", "type": { "type": "array", "items": ["null", "double"] } }] }])
        }
        _ => {
            json!({ "type": "array", "items": { "type": "record", "name": "j", "fields": [{ "name": "f0", "type": ["null", "string"] }] } })
        }
    }
}

#[test]
fn any_schema_of_avro_reads_any_bytes_or_refuses_them() {
    let (mut rows, mut schemas) = (0, 0);
    for seed in 0..4_000 {
        let chance = &mut StdRng::seed_from_u64(seed);
        let mut schema = record(chance, 3, &mut Vec::new());
        for field in schema["fields"].as_array_mut().unwrap() {
            if chance.random_bool(0.7) {
                field["type"] = fitting(field["name"].as_str().unwrap());
            }
        }
        let text = schema.to_string();
        let mut fields = columns(true);
        fields.retain(|_| chance.random_bool(0.3));
        fields.push(FieldSpec::new("absent", DataType::Int32));
        fields.iter_mut().for_each(|f| f.nullable = true);
        let mut values: Vec<Vec<u8>> = (0..8)
            .map(|_| {
                let small = chance.random_bool(0.7);
                let body = (0..chance.random_range(0..200)).map(|_| if small { chance.random_range(0..4) } else { chance.random() });
                [0, 0, 0, 0, 1].into_iter().chain(body).collect()
            })
            .collect();
        // What ends too late is cut where it should have ended.
        for bad in whole(registered(Format::Avro, fields.clone(), &text), &values).bad {
            if let Some(end) = bad.reason.strip_prefix("bytes behind the value at byte ") {
                values[bad.offset.0 as usize].truncate(end.parse().unwrap());
            }
        }
        rows += whole(registered(Format::Avro, fields, &text), &values).rows.num_rows();
        let schema = Schema { kind: SchemaKind::Avro, text, references: Vec::new() };
        schemas += usize::from(columns_of_schema(&schema, &[]).is_ok());
    }
    // The test is of something: many bytes are rows, and most schemas are ones.
    assert!(rows > 1_000 && schemas > 2_000, "{rows} rows, {schemas} schemas");
}

fn quick<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let out = run();
    assert!(begun.elapsed() < Duration::from_secs(20), "{what} takes {:?}", begun.elapsed());
    out
}

fn reason(format: Format, fields: Vec<FieldSpec>, text: &str, value: &[u8]) -> String {
    let decoded = whole(registered(format, fields, text), &[[&[0, 0, 0, 0, 1][..], value].concat()]);
    decoded.bad.into_iter().next().map_or_else(|| "a row".to_owned(), |bad| bad.reason)
}

#[test]
fn a_schema_of_few_words_is_not_followed_without_end() {
    // Each record has each as a branch: the ways to a column three deep are as many as all their products.
    let branches: Vec<String> = (0..200).map(|n| format!("r{n}")).collect();
    let records = (0..200).map(|n| json!({ "type": "record", "name": format!("r{n}"), "fields": [{ "name": "a", "type": if n == 0 { json!("null") } else { json!(branches[..n]) } }] }));
    let fields: Vec<Value> = records.enumerate().map(|(n, of)| json!({ "name": format!("x{n}"), "type": of })).collect();
    let fields = [fields, vec![json!({ "name": "a", "type": branches })]].concat();
    let text = json!({ "type": "record", "name": "top", "fields": fields }).to_string();
    let deep = (0..5).fold(DataType::Int64, |inner, _| structure(vec![("a", inner)]));
    let why = quick("a plan", || reason(Format::Avro, vec![FieldSpec::new("a", deep)], &text, &[]));
    assert!(why.contains("too many ways"), "{why}");
    let schema = Schema { kind: SchemaKind::Avro, text, references: Vec::new() };
    quick("a guess", || columns_of_schema(&schema, &[]).unwrap());
    // A chain of records, each of which names the one before it twice.
    let chain = (0..10_000).map(|n| {
        let of = if n == 0 { json!("int") } else { json!(format!("c{}", n - 1)) };
        json!({ "name": format!("x{n}"), "type": { "type": "record", "name": format!("c{n}"), "fields": [{ "name": "a", "type": of }, { "name": "b", "type": of }] } })
    });
    let text = json!({ "type": "record", "name": "top", "fields": chain.take(6_000).collect::<Vec<_>>() }).to_string();
    let why = quick("a chain", || reason(Format::Avro, vec![FieldSpec::new("x9", DataType::Int64)], &text, &[]));
    assert!(why.contains("x9: the writer's record is not what the column holds"), "{why}");
    let schema = Schema { kind: SchemaKind::Avro, text, references: Vec::new() };
    let guesses = quick("a guess", || columns_of_schema(&schema, &[]).unwrap());
    assert!(guesses[0].data_type.is_ok() && guesses.last().unwrap().data_type.is_err());
}

#[test]
fn what_takes_no_bytes_is_counted() {
    // A list of records of nulls: a few bytes, and as many nulls as one likes.
    let nulls: Vec<Value> = (0..10_000).map(|n| json!({ "name": format!("n{n}"), "type": "null" })).collect();
    let text = json!({ "type": "record", "name": "top", "fields": [
        { "name": "xs", "type": { "type": "array", "items": { "type": "record", "name": "r", "fields": nulls } } }, { "name": "f2", "type": "int" }] });
    let block = |count: i64| {
        let mut value = Vec::new();
        let mut left = (count << 1) as u64;
        while left >= 0x80 {
            value.push(left as u8 | 0x80);
            left >>= 7;
        }
        value.push(left as u8);
        value.extend_from_slice(&[0, 14]);
        value.resize(200_000, 0);
        value
    };
    let why = quick("a list of nothing", || {
        reason(Format::Avro, vec![FieldSpec::new("f2", DataType::Int32)], &text.to_string(), &block(1 << 40))
    });
    assert!(why.starts_with("more items than the value has bytes"), "{why}");
}

#[test]
fn a_schema_of_protobuf_may_nest_and_repeat_as_it_likes() {
    let fields = || vec![FieldSpec::new("a", DataType::Int32)];
    let deep = 200_000;
    let messages = format!("syntax = \"proto3\"; {}int32 a = 1;{}", "message M { ".repeat(deep), "}".repeat(deep));
    let why = quick("nested messages", || reason(Format::Protobuf, fields(), &messages, &[0, 8, 3]));
    assert!(why.contains("does not compile"), "{why}");
    // An option's text nests without end; it is not looked into.
    let option = format!("{}{}", "o { ".repeat(deep), "}".repeat(deep));
    let options = format!(
        "syntax = \"proto3\"; import \"google/protobuf/descriptor.proto\"; message O {{ O o = 1; }}
         extend google.protobuf.MessageOptions {{ O opt = 50000; }}
         message M {{ option (opt) = {{ {option} }}; int32 a = 1 [deprecated = true, (no.such) = {{ {option} }}]; }}"
    );
    assert_eq!(
        quick("an option", || reason(Format::Protobuf, fields(), &options, &[4, 0, 0, 8, 3])),
        "schema 1 of the registry http://registry: it has no message at the place that the frame names"
    );
    assert_eq!(quick("an option", || reason(Format::Protobuf, fields(), &options, &[2, 2, 8, 3])), "a row");
    let chain: String = (1..5_000).map(|n| format!("message C{n} {{ C{} a = 1; C{} b = 2; }}", n - 1, n - 1)).collect();
    let chain = format!("syntax = \"proto3\"; message Top {{ C4999 a = 1; C3 b = 2; }} message C0 {{ int32 a = 1; }} {chain}");
    let why = quick("a chain", || reason(Format::Protobuf, fields(), &chain, &[0]));
    assert!(why.contains("a: the writer's message is not what the column holds"), "{why}");
    let schema = Schema { kind: SchemaKind::Protobuf, text: chain, references: Vec::new() };
    let guesses = quick("a guess", || columns_of_schema(&schema, &[0]).unwrap());
    assert!(guesses[0].data_type.is_err(), "{guesses:?}");
}

#[test]
fn a_damaged_schema_of_protobuf_never_panics() {
    let chance = &mut StdRng::seed_from_u64(5);
    for _ in 0..1_500 {
        let mut text = PROTOBUF.as_bytes().to_vec();
        for _ in 0..chance.random_range(1..6) {
            let (at, len) = (chance.random_range(0..text.len()), chance.random_range(0..12));
            match chance.random_range(0..3) {
                0 => text[at] = b"{}[]();=<>.,\"01amr"[chance.random_range(0..18)],
                1 => drop(text.drain(at..(at + len).min(text.len()))),
                _ => {
                    let piece = text[at..(at + len).min(text.len())].to_vec();
                    let to = chance.random_range(0..=text.len());
                    drop(text.splice(to..to, piece));
                }
            }
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        whole(
            registered(Format::Protobuf, columns(true), &text),
            &[vec![0, 0, 0, 0, 1, 0, 0x0a, 1, b'a'], vec![0, 0, 0, 0, 1, 2, 2, 0x0a, 1, b'a']],
        );
        let schema = Schema { kind: SchemaKind::Protobuf, text, references: Vec::new() };
        drop(columns_of_schema(&schema, &[0]));
    }
}
