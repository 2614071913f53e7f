//! serde_json as the judge: over generated and damaged documents both accept the same, and read the same.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value};

use super::super::column::Column;
use super::super::encode::Encoded;
use super::*;

const NAMES: [&str; 6] = ["id", "hr", "n", "flag", "list", "part"];

/// What damage is done with.
const LETTERS: &[u8] = b"{}[]\",:\\u0de.-ntif \x00\x80\xd8";

fn columns() -> Vec<Column> {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
    let part = DataType::Struct(vec![Field::new("a", DataType::Utf8, true), Field::new("b", DataType::Int64, true)].into());
    let types = [DataType::Utf8, DataType::Float64, DataType::Int64, DataType::Boolean, list, part];
    NAMES.iter().zip(types).map(|(name, data_type)| Column::new(name, &data_type, true, TimeUnit::Millisecond)).collect()
}

struct Pair {
    reader: Reader,
    columns: Vec<Column>,
}

impl Pair {
    fn new() -> Self {
        Self { reader: Reader::new(Shape::of_names(NAMES.into_iter())), columns: columns() }
    }

    /// What our reader makes of a document: the row as serde_json would hold it, or a reason.
    fn read(&mut self, text: &[u8]) -> Result<Value, String> {
        let read = self.reader.read(text, &mut self.columns, 0);
        if let Err(fault) = read {
            self.columns.iter_mut().for_each(|c| c.truncate(0));
            return Err(fault.to_string());
        }
        let arrays: Vec<_> = self.columns.iter_mut().map(Column::finish).collect();
        let fields: Vec<_> = NAMES.iter().zip(&arrays).map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let encoded = JsonEncoder::new(batch.schema()).encode(&batch);
        Ok(serde_json::from_slice(encoded.row(0).unwrap()).unwrap())
    }
}

/// An object whose names are told apart, or the refusal of one with a name that comes twice.
struct Strict(Value);

impl<'de> serde::Deserialize<'de> for Strict {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> serde::de::Visitor<'de> for Visit {
            type Value = Value;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_str<E>(self, v: &str) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(Strict(item)) = items.next_element()? {
                    list.push(item);
                }
                Ok(Value::Array(list))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
                let mut map = Map::new();
                while let Some((name, Strict(value))) = fields.next_entry::<String, Strict>()? {
                    if map.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("twice"));
                    }
                }
                Ok(Value::Object(map))
            }
        }
        deserializer.deserialize_any(Visit).map(Strict)
    }
}

/// What the judge makes of a document: our row, by the rules of our types. `None` where it is none.
fn judge(text: &[u8]) -> Option<Value> {
    let Strict(Value::Object(all)) = serde_json::from_slice(text).ok()? else { return None };
    let part = |value: &Value| -> Option<Value> {
        match value {
            Value::Null => Some(Value::Null),
            Value::Object(fields) => {
                let mut row = Map::new();
                row.insert("a".to_owned(), typed(fields.get("a"), Value::is_string)?);
                row.insert("b".to_owned(), whole(fields.get("b"))?);
                Some(Value::Object(row))
            }
            _ => None,
        }
    };
    let list = |value: &Value| -> Option<Value> {
        match value {
            Value::Null => Some(Value::Null),
            Value::Array(items) => items.iter().map(|item| double(Some(item))).collect::<Option<Vec<_>>>().map(Value::Array),
            _ => None,
        }
    };
    let mut row = Map::new();
    row.insert("id".to_owned(), typed(all.get("id"), Value::is_string)?);
    row.insert("hr".to_owned(), double(all.get("hr"))?);
    row.insert("n".to_owned(), whole(all.get("n"))?);
    row.insert("flag".to_owned(), typed(all.get("flag"), Value::is_boolean)?);
    row.insert("list".to_owned(), list(all.get("list").unwrap_or(&Value::Null))?);
    row.insert("part".to_owned(), part(all.get("part").unwrap_or(&Value::Null))?);
    Some(Value::Object(row))
}

fn typed(value: Option<&Value>, is: fn(&Value) -> bool) -> Option<Value> {
    match value {
        None | Some(Value::Null) => Some(Value::Null),
        Some(value) => is(value).then(|| value.clone()),
    }
}

fn double(value: Option<&Value>) -> Option<Value> {
    typed(value, Value::is_number)?.as_f64().map_or(Some(Value::Null), |v| Some(v.into()))
}

/// A number without a fraction that fits, also one written like 1e3.
fn whole(value: Option<&Value>) -> Option<Value> {
    match typed(value, Value::is_number)? {
        Value::Null => Some(Value::Null),
        number => match number.as_i64() {
            Some(whole) => Some(whole.into()),
            None => number.as_f64().filter(|v| v.fract() == 0.0 && v.abs() < 1e15).map(|v| (v as i64).into()),
        },
    }
}

fn text(chance: &mut StdRng, depth: u32) -> String {
    let letters = ["a", "b", "\"", "\\", "/", "é", "😀", "\n", "\u{7f}", "\u{0}", " ", "x".repeat(20).as_str()].map(str::to_owned);
    let plain: String = (0..chance.random_range(0..6)).map(|_| letters[chance.random_range(0..letters.len())].clone()).collect();
    let quoted = serde_json::to_string(&plain).unwrap();
    if depth == 0 || chance.random_bool(0.7) {
        return quoted;
    }
    // The same text with everything escaped.
    let units: String = plain.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{units}\"")
}

fn number(chance: &mut StdRng) -> String {
    match chance.random_range(0..7) {
        0 => chance.random_range(-1_000_000..1_000_000_i64).to_string(),
        1 => chance.random::<i64>().to_string(),
        2 => format!("{}.{}", chance.random_range(0..300), chance.random_range(0..1_000)),
        3 => serde_json::to_string(&f64::from_bits(chance.random::<u64>() & 0x7fdf_ffff_ffff_ffff)).unwrap(),
        4 => format!("{}e{}", chance.random_range(-99..99), chance.random_range(-40..12)),
        5 => ["0", "-0", "0.0", "1E+2", "18446744073709551616", "9007199254740993", "01", "-", "1.", "NaN"][chance.random_range(0..10)]
            .to_owned(),
        _ => format!("-{}.0", chance.random_range(0..9)),
    }
}

fn any(chance: &mut StdRng, depth: u32) -> String {
    match chance.random_range(0..if depth > 3 { 5 } else { 8 }) {
        0 => "null".to_owned(),
        1 => "true".to_owned(),
        2 => "false".to_owned(),
        3 => number(chance),
        4 => text(chance, depth),
        5 => {
            let items: Vec<String> = (0..chance.random_range(0..4)).map(|_| any(chance, depth + 1)).collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            let fields: Vec<String> =
                (0..chance.random_range(0..4)).map(|_| format!("{}:{}", text(chance, depth), any(chance, depth + 1))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

fn document(chance: &mut StdRng) -> String {
    let mut fields = Vec::new();
    for name in NAMES {
        if chance.random_bool(0.2) {
            continue;
        }
        let value = match name {
            _ if chance.random_bool(0.05) => any(chance, 1),
            _ if chance.random_bool(0.1) => "null".to_owned(),
            "id" => text(chance, 1),
            "hr" => number(chance),
            "n" => chance.random_range(-99..99).to_string(),
            "flag" => chance.random_bool(0.5).to_string(),
            "list" => format!("[{}]", (0..chance.random_range(0..4)).map(|_| number(chance)).collect::<Vec<_>>().join(" , ")),
            _ => format!("{{\"a\":{},\"b\":{}}}", text(chance, 1), chance.random_range(0..9)),
        };
        fields.push(format!("\"{name}\" :{value}"));
    }
    for _ in 0..chance.random_range(0..3) {
        fields.push(format!("{}:{}", text(chance, 1), any(chance, 1)));
    }
    if chance.random_bool(0.3) && fields.len() > 1 {
        let last = fields.len() - 1;
        fields.swap(0, last);
    }
    format!("{{{}}}", fields.join(","))
}

fn damage(chance: &mut StdRng, text: &mut Vec<u8>) {
    for _ in 0..chance.random_range(1..3) {
        if text.is_empty() {
            return;
        }
        let at = chance.random_range(0..text.len());
        match chance.random_range(0..5) {
            0 => {
                text.remove(at);
            }
            1 => text.truncate(at),
            2 => text[at] = chance.random(),
            3 => text.insert(at, LETTERS[chance.random_range(0..LETTERS.len())]),
            _ => {
                let piece = text[at..(at + 6).min(text.len())].to_vec();
                let to = chance.random_range(0..text.len());
                text.splice(to..to, piece);
            }
        }
    }
}

/// A number that nobody wants may be as large as it likes: it is passed over by its grammar alone, while the
/// judge must hold it in a double.
fn has_huge_number(text: &[u8]) -> bool {
    matches!(serde_json::from_slice::<Value>(text), Err(error) if error.to_string().contains("out of range"))
}

/// Equal, but for the last digit of a double, which serde_json is free with; `number` has the exact test.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            a == b || (a - b).abs() <= a.abs() * 1e-15
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b))),
        _ => a == b,
    }
}

#[test]
fn serde_json_agrees_on_every_document() {
    let seed = 20_260_312;
    let mut chance = StdRng::seed_from_u64(seed);
    let mut pair = Pair::new();
    let (mut good, mut bad) = (0, 0);
    for round in 0..60_000 {
        let mut text = document(&mut chance).into_bytes();
        if round % 2 == 1 {
            damage(&mut chance, &mut text);
        }
        if has_huge_number(&text) {
            let _ = pair.read(&text);
            continue;
        }
        let (ours, theirs) = (pair.read(&text), judge(&text));
        let shown = String::from_utf8_lossy(&text);
        match (&ours, &theirs) {
            (Ok(ours), Some(theirs)) => {
                assert!(same(ours, theirs), "seed {seed} round {round}: ours {ours}, theirs {theirs}: {shown}");
                good += 1;
            }
            (Err(_), None) => bad += 1,
            _ => panic!("seed {seed} round {round}: ours {ours:?}, theirs {theirs:?}: {shown}"),
        }
    }
    assert!(good > 15_000 && bad > 15_000, "both kinds are tested: {good} good, {bad} bad");
}

#[test]
fn no_bytes_make_it_panic() {
    let mut chance = StdRng::seed_from_u64(5);
    let mut pair = Pair::new();
    for _ in 0..50_000 {
        let bytes: Vec<u8> = (0..chance.random_range(0..40)).map(|_| LETTERS[chance.random_range(0..LETTERS.len())]).collect();
        let mut text = b"{\"id\":".to_vec();
        text.extend_from_slice(&bytes);
        let _ = pair.read(&text);
        let _ = pair.read(&bytes);
    }
}

fn one(name: &str, array: Arc<dyn Array>) -> Encoded {
    let schema = Schema::new(vec![Field::new(name, array.data_type().clone(), true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![array]).unwrap();
    JsonEncoder::new(batch.schema()).encode(&batch)
}

#[test]
fn a_value_without_json_fails_its_row_and_no_other() {
    let encoded = one("x", Arc::new(arrow::array::Float64Array::from(vec![80.0, f64::NAN, 0.1, f64::INFINITY])));
    assert_eq!(encoded.row(0), Ok(&br#"{"x":80.0}"#[..]));
    assert_eq!(encoded.row(1), Err("x: not a finite number"));
    assert_eq!(encoded.row(2), Ok(&br#"{"x":0.1}"#[..]));
    assert_eq!(encoded.failed().iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(encoded.len(), 4);
    let far = one("t", Arc::new(arrow::array::TimestampMillisecondArray::from(vec![i64::MAX, 0])));
    assert_eq!(far.row(0), Err("t: a time beyond the year 9999"));
    assert_eq!(far.row(1), Ok(&br#"{"t":"1970-01-01T00:00:00Z"}"#[..]));
}

#[test]
fn arrays_of_other_kinds_are_written_too() {
    use arrow::array::{DictionaryArray, Float32Array, Int32Array, LargeStringArray, NullArray, StringViewArray, UInt64Array};
    use arrow::datatypes::Int32Type;
    let row = |array: Arc<dyn Array>| String::from_utf8(one("x", array).row(0).unwrap().to_vec()).unwrap();
    assert_eq!(row(Arc::new(StringViewArray::from(vec!["a\"b"]))), r#"{"x":"a\"b"}"#);
    assert_eq!(row(Arc::new(LargeStringArray::from(vec!["a"]))), r#"{"x":"a"}"#);
    assert_eq!(row(Arc::new(UInt64Array::from(vec![u64::MAX]))), r#"{"x":18446744073709551615}"#);
    assert_eq!(row(Arc::new(Float32Array::from(vec![0.1]))), r#"{"x":0.1}"#);
    assert_eq!(row(Arc::new(NullArray::new(1))), r#"{"x":null}"#);
    let words: DictionaryArray<Int32Type> = vec!["low"].into_iter().collect();
    assert_eq!(row(Arc::new(words)), r#"{"x":"low"}"#);
    let zoned = arrow::array::TimestampMicrosecondArray::from(vec![1_000_001]).with_timezone("+00:00");
    assert_eq!(row(Arc::new(zoned)), r#"{"x":"1970-01-01T00:00:01.000001Z"}"#);
    let decimal = arrow::array::Decimal128Array::from(vec![-5]).with_precision_and_scale(6, 2).unwrap();
    assert_eq!(row(Arc::new(decimal)), r#"{"x":-0.05}"#);
    assert_eq!(row(Arc::new(arrow::array::DurationSecondArray::from(vec![60]))), r#"{"x":"PT60S"}"#);
    let sliced = Int32Array::from(vec![1, 2, 3]).slice(2, 1);
    assert_eq!(row(Arc::new(sliced)), r#"{"x":3}"#);
}

#[test]
fn a_slice_of_lists_is_written_from_its_own_items() {
    let mut pair = Pair::new();
    for (row, text) in [r#"{"list":[1,2]}"#, r#"{"list":[3]}"#].iter().enumerate() {
        pair.reader.read(text.as_bytes(), &mut pair.columns, row).unwrap();
    }
    let list = pair.columns[4].finish().slice(1, 1);
    assert_eq!(one("list", list).row(0), Ok(&br#"{"list":[3.0]}"#[..]));
    assert_eq!(pair.columns[1].finish().as_primitive::<Float64Type>().null_count(), 2);
    assert_eq!(pair.columns[2].finish().as_primitive::<Int64Type>().null_count(), 2);
}
