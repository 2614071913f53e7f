//! What JSON objects have in common: names, and for each a type that holds all its values.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, TimeUnit};
use serde_json::{Map, Value};

use super::{Findings, Found, MAX_COLUMNS, Sampled};
use crate::sql::options::FormatName;
use crate::time::Timestamp;

/// So deep do objects become columns of their own.
const MAX_DEPTH: usize = 8;
/// Longer names are left out.
const MAX_NAME: usize = 200;
/// So many names of an object are kept: twice as many as a stream of its columns may have.
const MAX_NAMES: usize = 2 * MAX_COLUMNS;
/// So much is said of what is left out.
const MAX_LEFT_OUT: usize = 50;

/// What was seen under one name.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// How many values were not null.
    count: usize,
    kind: Kind,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Kind {
    /// Null alone.
    #[default]
    Unknown,
    Boolean,
    /// Whole numbers, the least and the greatest.
    Whole(i64, i64),
    Double,
    Date,
    Time,
    Text,
    List(Box<Seen>),
    Object(Fields),
    /// Values that no one type holds.
    Mixed,
}

/// The names of an object, in the order in which they were first seen.
#[derive(Clone, Debug, Default, PartialEq)]
struct Fields {
    list: Vec<(String, Seen)>,
    places: HashMap<String, usize>,
    /// Whether there were more.
    full: bool,
}

impl Fields {
    fn add(&mut self, name: String, seen: Seen) {
        match self.places.get(&name) {
            Some(at) => self.list[*at].1.merge(seen),
            None if self.list.len() < MAX_NAMES => {
                self.places.insert(name.clone(), self.list.len());
                self.list.push((name, seen));
            }
            None => self.full = true,
        }
    }
}

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

/// Whether most records are envelopes of Debezium's.
pub(super) fn are_envelopes(records: &[Sampled]) -> bool {
    let objects: Vec<Map<String, Value>> = records.iter().filter_map(object).collect();
    let envelopes = objects.iter().filter(|object| {
        let change = object.get("payload").and_then(Value::as_object).unwrap_or(object);
        change.get("op").is_some_and(Value::is_string) && (change.contains_key("after") || change.contains_key("before"))
    });
    !objects.is_empty() && envelopes.count() * 2 > objects.len()
}

fn object(record: &Sampled) -> Option<Map<String, Value>> {
    match serde_json::from_slice(&record.value) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// The row after a change.
fn row_after(mut envelope: Map<String, Value>) -> Option<Map<String, Value>> {
    if let Some(Value::Object(payload)) = envelope.remove("payload") {
        envelope = payload;
    }
    match envelope.remove("after") {
        Some(Value::Object(row)) => Some(row),
        _ => None,
    }
}

pub(super) fn findings(format: FormatName, records: &[Sampled]) -> Findings {
    let mut root = Seen::default();
    let mut rows = 0;
    for record in records {
        let row = object(record).and_then(|object| if format == FormatName::Debezium { row_after(object) } else { Some(object) });
        if let Some(row) = row {
            root.add(&Value::Object(row));
            rows += 1;
        }
    }
    let mut findings = Findings::default();
    flatten(&mut Vec::new(), &root, rows, &mut findings);
    findings.unit = numbers_to_times(&root, &mut findings.columns);
    if format == FormatName::Json {
        findings.key = key(records, &findings.columns);
    }
    findings
}

/// The type of a column of texts.
pub(super) fn type_of_texts(values: &[&str]) -> DataType {
    let mut seen = Seen::default();
    for value in values {
        // What JSON reads as a number or a word is one.
        match serde_json::from_str::<Value>(value.trim()) {
            Ok(plain @ (Value::Bool(_) | Value::Number(_))) => seen.add(&plain),
            _ => seen.add(&Value::String((*value).to_owned())),
        }
    }
    match seen.kind {
        Kind::Mixed => DataType::Utf8,
        _ => seen.data_type().unwrap_or(DataType::Utf8),
    }
}

impl Seen {
    fn add(&mut self, value: &Value) {
        let kind = match value {
            Value::Null => return,
            Value::Bool(_) => Kind::Boolean,
            Value::Number(number) => number.as_i64().map_or(Kind::Double, |whole| Kind::Whole(whole, whole)),
            Value::String(text) => kind_of_text(text),
            Value::Array(items) => {
                let mut seen = Self::default();
                items.iter().for_each(|item| seen.add(item));
                Kind::List(Box::new(seen))
            }
            Value::Object(object) => {
                let mut fields = Fields::default();
                for (name, value) in object {
                    let mut seen = Self::default();
                    seen.add(value);
                    fields.add(name.clone(), seen);
                }
                Kind::Object(fields)
            }
        };
        self.merge(Self { count: 1, kind });
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.kind = match (std::mem::take(&mut self.kind), other.kind) {
            (Kind::Unknown, kind) | (kind, Kind::Unknown) => kind,
            (Kind::Whole(a, b), Kind::Whole(c, d)) => Kind::Whole(a.min(c), b.max(d)),
            (Kind::Whole(..) | Kind::Double, Kind::Whole(..) | Kind::Double) => Kind::Double,
            (Kind::Date, Kind::Date) => Kind::Date,
            (Kind::Date | Kind::Time, Kind::Date | Kind::Time) => Kind::Time,
            (Kind::Date | Kind::Time | Kind::Text, Kind::Date | Kind::Time | Kind::Text) => Kind::Text,
            (Kind::Boolean, Kind::Boolean) => Kind::Boolean,
            (Kind::List(mut a), Kind::List(b)) => {
                a.merge(*b);
                Kind::List(a)
            }
            (Kind::Object(mut a), Kind::Object(b)) => {
                a.full |= b.full;
                b.list.into_iter().for_each(|(name, seen)| a.add(name, seen));
                Kind::Object(a)
            }
            _ => Kind::Mixed,
        };
    }

    /// The type that holds all values; `None` where there is none.
    fn data_type(&self) -> Option<DataType> {
        Some(match &self.kind {
            Kind::Unknown | Kind::Text => DataType::Utf8,
            Kind::Boolean => DataType::Boolean,
            Kind::Whole(..) => DataType::Int64,
            Kind::Double => DataType::Float64,
            Kind::Date => DataType::Date32,
            Kind::Time => DataType::Timestamp(TimeUnit::Millisecond, None),
            Kind::List(item) => DataType::List(Field::new_list_field(item.data_type()?, true).into()),
            // In a list's objects, fields that no type holds are passed over.
            Kind::Object(fields) if fields.full => return None,
            Kind::Object(fields) => {
                let fields: Vec<Field> =
                    fields.list.iter().filter_map(|(name, seen)| Some(Field::new(plain(name)?, seen.data_type()?, true))).collect();
                if fields.is_empty() {
                    return None;
                }
                DataType::Struct(fields.into())
            }
            Kind::Mixed => return None,
        })
    }
}

fn plain(name: &str) -> Option<&str> {
    (!name.is_empty() && name.len() <= MAX_NAME && !name.contains(char::is_control)).then_some(name)
}

fn kind_of_text(text: &str) -> Kind {
    let dated = text.len() >= 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[..4].iter().all(u8::is_ascii_digit);
    match Timestamp::parse(text) {
        Some(_) if dated && text.len() == 10 => Kind::Date,
        Some(_) if dated => Kind::Time,
        _ => Kind::Text,
    }
}

/// Every field as a column: those of objects within under their paths.
fn flatten(path: &mut Vec<String>, seen: &Seen, rows: usize, out: &mut Findings) {
    let Kind::Object(fields) = &seen.kind else { return };
    for (name, seen) in &fields.list {
        path.push(name.clone());
        let shown = path.join(".").escape_debug().to_string();
        let nested = matches!(seen.kind, Kind::Object(_)) && path.len() < MAX_DEPTH;
        if plain(name).is_none() || name.contains('.') && path.len() > 1 {
            leave_out(out, format!("{}: no path can name it", shown.chars().take(MAX_NAME).collect::<String>()));
        } else if nested && !name.contains('.') {
            flatten(path, seen, rows, out);
        } else if let Some(data_type) = seen.data_type() {
            let taken = |name: &str| out.columns.iter().any(|c| c.name == name);
            // A name with a dot stays as it is: a path would cut it in two.
            let own = if name.contains('.') { name.clone() } else { path.iter().map(|part| snake(part)).collect::<Vec<_>>().join("_") };
            let own = (1..).map(|n| if n == 1 { own.clone() } else { format!("{own}_{n}") }).find(|name| !taken(name)).unwrap_or_default();
            let place = (path.len() > 1 || own != *name).then(|| path.join("."));
            out.columns.push(Found { name: own, path: place, data_type, always: seen.count == rows });
        } else {
            leave_out(out, format!("{shown}: values that no one type holds"));
        }
        path.pop();
    }
}

fn leave_out(out: &mut Findings, what: String) {
    match out.left_out.len() {
        0..MAX_LEFT_OUT => out.left_out.push(what),
        MAX_LEFT_OUT => out.left_out.push("and others".to_owned()),
        _ => {}
    }
}

/// `heartRate` as `heart_rate`, and nothing but letters, digits and underscores.
fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut small = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && small {
            out.push('_');
        }
        small = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        out.push(if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' });
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) { format!("_{out}") } else { out }
}

/// Turns whole numbers into times where their name and their size say so; answers their unit.
fn numbers_to_times(root: &Seen, columns: &mut [Found]) -> Option<&'static str> {
    let mut unit = None;
    for column in columns.iter_mut().filter(|c| c.data_type == DataType::Int64 && is_time_name(&c.name)) {
        let path: Vec<&str> = column.path.as_deref().unwrap_or(&column.name).split('.').collect();
        let Some(Kind::Whole(least, most)) = find(root, &path) else { continue };
        // Between 2001 and 2286, in each unit.
        let of = [("s", 1), ("ms", 1_000), ("us", 1_000_000), ("ns", 1_000_000_000_i64)];
        let found = of.iter().find(|(_, per_second)| *least >= 1_000_000_000 * per_second && most / per_second < 10_000_000_000);
        if let Some((found, _)) = found
            && unit.is_none_or(|unit| unit == *found)
        {
            unit = Some(*found);
            column.data_type = DataType::Timestamp(TimeUnit::Millisecond, None);
        }
    }
    unit
}

fn find<'a>(seen: &'a Seen, path: &[&str]) -> Option<&'a Kind> {
    let [first, rest @ ..] = path else { return Some(&seen.kind) };
    let Kind::Object(fields) = &seen.kind else { return None };
    fields.places.get(*first).and_then(|at| find(&fields.list[*at].1, rest))
}

fn is_time_name(name: &str) -> bool {
    let last = name.rsplit('_').next().unwrap_or(name);
    matches!(last, "ts" | "time" | "timestamp" | "at" | "ms" | "millis" | "epoch" | "date" | "us" | "micros" | "ns")
        || name.ends_with("timestamp")
        || name.ends_with("time")
}

/// The column whose text every record has as its key.
fn key(records: &[Sampled], columns: &[Found]) -> Option<String> {
    let holds = |column: &&Found| {
        let path: Vec<&str> = column.path.as_deref().unwrap_or(&column.name).split('.').collect();
        column.data_type == DataType::Utf8
            && records.iter().all(|record| {
                let Some(mut at) = serde_json::from_slice::<Value>(&record.value).ok() else { return false };
                for name in &path {
                    at = at.get_mut(*name).map(Value::take).unwrap_or_default();
                }
                at.as_str().is_some_and(|text| record.key.as_deref() == Some(text.as_bytes()))
            })
    };
    columns.iter().find(holds).map(|c| c.name.clone())
}
