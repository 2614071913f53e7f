//! What a sink writes, a source reads again: every format, over random rows of random columns.

use std::sync::Arc;

use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, StringArray,
    Time32MillisecondArray, Time64MicrosecondArray, TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Schema, TimeUnit};
use expect_test::expect;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::format::{CsvRule, Decoded, Decoder, FieldSpec, RegistryRule};
use crate::record::{BatchBuilder, Offset, PartitionId};
use crate::registry::Registry;

/// What trips formats of text up.
const LETTERS: [&str; 14] = ["", "a", ",", "\"", "\n", "\r", ";", "\t", "\\N", "NULL", " ", "é😀", "null", "\u{0}"];

fn types() -> Vec<DataType> {
    vec![
        DataType::Utf8,
        DataType::Binary,
        DataType::Boolean,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Date32,
        DataType::Time32(TimeUnit::Millisecond),
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Decimal128(12, 3),
    ]
}

/// A column of random values, the ends of its type among them.
fn column(data_type: &DataType, nullable: bool, rows: usize, chance: &mut StdRng) -> ArrayRef {
    macro_rules! random {
        ($array:ty, $value:expr) => {{
            let values: Vec<_> =
                (0..rows).map(|_| if nullable && chance.random_bool(0.2) { None } else { Some($value(&mut *chance)) }).collect();
            Arc::new(<$array>::from(values)) as ArrayRef
        }};
    }
    let text = |c: &mut StdRng| (0..c.random_range(0..4)).map(|_| LETTERS[c.random_range(0..LETTERS.len())]).collect::<String>();
    match data_type {
        DataType::Utf8 => random!(StringArray, text),
        DataType::Binary => {
            let values: Vec<Option<Vec<u8>>> = (0..rows)
                .map(|_| {
                    if nullable && chance.random_bool(0.2) {
                        None
                    } else {
                        Some((0..chance.random_range(0..5)).map(|_| chance.random()).collect())
                    }
                })
                .collect();
            Arc::new(BinaryArray::from_iter(values))
        }
        DataType::Boolean => random!(BooleanArray, |c: &mut StdRng| c.random::<bool>()),
        DataType::Int16 => random!(Int16Array, |c: &mut StdRng| c.random::<i16>()),
        DataType::Int32 => random!(Int32Array, |c: &mut StdRng| if c.random_bool(0.1) { i32::MIN } else { c.random() }),
        DataType::Int64 => {
            random!(Int64Array, |c: &mut StdRng| if c.random_bool(0.1) { i64::MIN } else { c.random::<i64>() >> c.random_range(0..60) })
        }
        DataType::Float32 => random!(Float32Array, |c: &mut StdRng| loop {
            let value = f32::from_bits(c.random());
            if value.is_finite() {
                break value;
            }
        }),
        DataType::Float64 => random!(Float64Array, |c: &mut StdRng| loop {
            let value = if c.random_bool(0.5) { f64::from(c.random_range(-300..300)) / 10.0 } else { f64::from_bits(c.random()) };
            if value.is_finite() {
                break value;
            }
        }),
        DataType::Timestamp(..) => {
            random!(TimestampMillisecondArray, |c: &mut StdRng| c.random_range(-62_167_219_200_000_i64..253_402_300_799_999))
        }
        DataType::Date32 => random!(Date32Array, |c: &mut StdRng| c.random_range(-719_528..2_932_896)),
        DataType::Time32(_) => random!(Time32MillisecondArray, |c: &mut StdRng| c.random_range(0..86_400_000)),
        DataType::Time64(_) => random!(Time64MicrosecondArray, |c: &mut StdRng| c.random_range(0..86_400_000_000_i64)),
        DataType::Decimal128(p, s) => {
            let array = random!(Decimal128Array, |c: &mut StdRng| c.random_range(-999_999_999_999_i128..=999_999_999_999));
            Arc::new(array.as_primitive::<arrow::datatypes::Decimal128Type>().clone().with_precision_and_scale(*p, *s).unwrap())
        }
        other => unreachable!("no column of {other} is made"),
    }
}

/// Writes rows and reads them as one record each.
fn through(stream: StreamSchema, rows: &RecordBatch) -> Decoded {
    let encoded = Encoder::with_id(&stream, &rows.schema(), 0).encode(rows);
    assert_eq!(encoded.failed(), []);
    let mut records = BatchBuilder::new();
    for row in 0..encoded.len() {
        records.push(0, None, Some(encoded.row(row).unwrap()), &[]);
    }
    Decoder::new(Arc::new(stream)).decode(PartitionId(0), &[records.finish()], Offset(0))
}

fn batch_of(fields: &[FieldSpec], rows: usize, chance: &mut StdRng) -> RecordBatch {
    let columns = fields.iter().map(|f| column(&f.data_type, f.nullable, rows, chance)).collect();
    let schema = Schema::new(fields.iter().map(|f| Field::new(&f.name, f.data_type.clone(), f.nullable)).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn random_fields(chance: &mut StdRng) -> Vec<FieldSpec> {
    let types = types();
    (0..chance.random_range(1..8))
        .map(|at| {
            let field = FieldSpec::new(&format!("c{at}"), types[chance.random_range(0..types.len())].clone());
            if chance.random_bool(0.3) { field.not_null() } else { field }
        })
        .collect()
}

#[test]
fn rows_written_as_csv_are_read_again_whatever_they_hold() {
    for seed in 0..300 {
        let chance = &mut StdRng::seed_from_u64(seed);
        let fields = random_fields(chance);
        let rule = CsvRule {
            delimiter: *[b',', b';', b'\t', b'a'].get(chance.random_range(0..4)).unwrap(),
            null: ["", "NULL", "\\N", "a,b"][chance.random_range(0..4)].to_owned(),
        };
        // A delimiter that stands in the text of NULL, or in every number, cannot tell them apart.
        let rule = if rule.null.as_bytes().contains(&rule.delimiter) { CsvRule::default() } else { rule };
        let rows = batch_of(&fields, 20, chance);
        let stream = StreamSchema::new(Format::Csv, fields).unwrap().with_csv(rule);
        let read = through(stream, &rows);
        assert_eq!(read.bad, [], "seed {seed}");
        assert_eq!(read.rows, rows, "seed {seed}");
    }
}

#[test]
fn rows_written_as_json_are_read_again_at_whatever_paths_they_lie() {
    for seed in 0..200 {
        let chance = &mut StdRng::seed_from_u64(seed);
        let mut fields = random_fields(chance);
        for (at, field) in fields.iter_mut().enumerate() {
            if chance.random_bool(0.6) {
                let depth = chance.random_range(0..3);
                let way: String = (0..depth).map(|_| ["a.", "b.", "ä\"."][chance.random_range(0..3)]).collect();
                *field = field.clone().at(&format!("{way}v{at}"));
            }
        }
        let rows = batch_of(&fields, 20, chance);
        let read = through(StreamSchema::new(Format::Json, fields).unwrap(), &rows);
        assert_eq!(read.bad, [], "seed {seed}");
        assert_eq!(read.rows, rows, "seed {seed}");
    }
}

#[test]
fn rows_written_as_avro_are_read_again() {
    read_again_by_registry(Format::Avro);
}

#[test]
fn rows_written_as_protobuf_are_read_again() {
    read_again_by_registry(Format::Protobuf);
}

fn read_again_by_registry(format: Format) {
    for seed in 0..200 {
        let chance = &mut StdRng::seed_from_u64(seed);
        let fields = random_fields(chance);
        let rows = batch_of(&fields, 20, chance);
        let registry = Arc::new(Registry::new("http://registry").unwrap());
        let rule = RegistryRule { registry: Arc::clone(&registry), subject: "s".to_owned(), record: "9 r".to_owned() };
        let stream = StreamSchema::new(format, fields).unwrap().with_registry(rule);
        let (kind, text) = Encoder::schema(&stream).unwrap().unwrap();
        registry.learn(0, crate::registry::Schema { kind, text, references: Vec::new() });
        let read = through(stream, &rows);
        assert_eq!(read.bad, [], "seed {seed}");
        assert_eq!(read.rows, rows, "seed {seed}");
    }
}

#[test]
fn a_raw_value_is_written_as_it_is() {
    for (data_type, seed) in [(DataType::Utf8, 1), (DataType::Binary, 2)] {
        let fields = vec![FieldSpec::new("v", data_type).not_null()];
        let rows = batch_of(&fields, 30, &mut StdRng::seed_from_u64(seed));
        let read = through(StreamSchema::new(Format::Raw, fields).unwrap(), &rows);
        assert_eq!((read.bad.len(), read.rows), (0, rows));
    }
}

fn encoded(stream: &StreamSchema, columns: Vec<(&str, ArrayRef)>) -> String {
    let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
    let encoded = Encoder::with_id(stream, &rows.schema(), 0).encode(&rows);
    let line = |row: usize| match encoded.row(row) {
        Ok(value) => String::from_utf8(value.to_vec()).unwrap(),
        Err(why) => format!("failed: {why}"),
    };
    (0..encoded.len()).map(|row| line(row) + "\n").collect()
}

#[test]
fn a_nested_path_is_written_where_it_is_read() {
    let fields = vec![
        FieldSpec::new("a", DataType::Int64).at("x.y.a"),
        FieldSpec::new("b", DataType::Int64),
        FieldSpec::new("c", DataType::Int64).at("x.c"),
        FieldSpec::new("d", DataType::Int64).at("x.y.d"),
    ];
    let one = |v: i64| Arc::new(Int64Array::from(vec![v])) as ArrayRef;
    let stream = StreamSchema::new(Format::Json, fields).unwrap();
    expect![[r#"
        {"x":{"y":{"a":1,"d":4},"c":3},"b":2}
    "#]]
    .assert_eq(&encoded(&stream, vec![("a", one(1)), ("b", one(2)), ("c", one(3)), ("d", one(4))]));
    expect![[r#"
        {"b":2,"x":{"c":3}}
    "#]]
    .assert_eq(&encoded(&stream, vec![("b", one(2)), ("c", one(3))]));
}

#[test]
fn a_row_that_its_stream_could_not_hold_fails_alone() {
    let fields = vec![
        FieldSpec::new("id", DataType::Utf8).not_null(),
        FieldSpec::new("n", DataType::Int32),
        FieldSpec::new("x", DataType::Float64),
        FieldSpec::new("other", DataType::Utf8),
    ];
    let stream = StreamSchema::new(Format::Csv, fields).unwrap();
    let ids: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("c"), Some("d"), Some("e")]));
    let halves: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(1.0), Some(1.5), Some(3e9), None]));
    let counts: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]));
    expect![[r#"
        a,1,1.0,
        failed: id: NULL, and the column is NOT NULL
        failed: n: a value that the stream's column cannot hold
        failed: n: a value that the stream's column cannot hold
        e,,5.0,
    "#]]
    .assert_eq(&encoded(&stream, vec![("x", counts), ("id", ids), ("n", halves)]));
}
