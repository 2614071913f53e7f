//! Reading in JSON that a column holds as text: `json_value`, `json_query`, `json_exists`, and `->`, `->>`.
//!
//! Owns the paths: `$.name`, `$['name']`, `$[n]`, with `lax` in front or not. Always: text that is no JSON, and a path that leads
//! nowhere, give NULL (false for `json_exists`), as SQL:2016 says where nothing else is asked for; a path that is none is an error.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result as DfResult, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility};
use serde_json::Value;

/// What a call makes of what its path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Take {
    /// `json_value`: a text, number or boolean, as text.
    Scalar,
    /// `json_query`: an object or array, as JSON.
    Composite,
    /// `json_exists`: whether there is something.
    Exists,
    /// `json_get`, `->`: anything, as JSON.
    Json,
    /// `json_get_text`, `->>`: anything, a text without its quotes.
    Text,
}

/// One of them.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    name: &'static str,
    take: Take,
    signature: Signature,
}

/// The functions.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    let by_path = || Signature::exact(vec![DataType::Utf8, DataType::Utf8], Volatility::Immutable);
    let by_key = || {
        let of = |key| TypeSignature::Exact(vec![DataType::Utf8, key]);
        Signature::one_of(vec![of(DataType::Int64), of(DataType::Utf8)], Volatility::Immutable)
    };
    let function = |name, take, signature| Arc::new(ScalarUDF::new_from_impl(JsonFunction { name, take, signature }));
    vec![
        function("json_value", Take::Scalar, by_path()),
        function("json_query", Take::Composite, by_path()),
        function("json_exists", Take::Exists, by_path()),
        function("json_get", Take::Json, by_key()),
        function("json_get_text", Take::Text, by_key()),
    ]
}

impl ScalarUDFImpl for JsonFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DfResult<DataType> {
        Ok(if self.take == Take::Exists { DataType::Boolean } else { DataType::Utf8 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [texts, ways] = columns.as_slice() else { return exec_err!("{} takes a text and where to look", self.name) };
        let Some(texts) = texts.as_string_opt::<i32>() else { return exec_err!("{} takes a text", self.name) };
        let mut way = Way::new(matches!(self.take, Take::Json | Take::Text));
        let mut found = Vec::with_capacity(texts.len());
        for row in 0..texts.len() {
            if texts.is_null(row) || ways.is_null(row) {
                found.push(None);
                continue;
            }
            let steps = way.at(ways.as_ref(), row, self.name)?;
            let value = serde_json::from_str::<Value>(texts.value(row)).ok();
            found.push(Some(value.and_then(|mut value| steps.iter().try_fold(&mut value, Step::follow).map(Value::take))));
        }
        let text = |value: Value| match (self.take, value) {
            (Take::Scalar | Take::Text, Value::Null) => None,
            (Take::Scalar | Take::Text, Value::String(text)) => Some(text),
            (Take::Scalar, Value::Object(_) | Value::Array(_)) => None,
            (Take::Composite, value) if !(value.is_object() || value.is_array()) => None,
            (_, value) => Some(value.to_string()),
        };
        Ok(ColumnarValue::Array(if self.take == Take::Exists {
            Arc::new(found.into_iter().map(|row| row.map(|value| value.is_some())).collect::<BooleanArray>())
        } else {
            Arc::new(found.into_iter().map(|row| row.flatten().and_then(text)).collect::<StringArray>())
        }))
    }
}

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(i64),
}

impl Step {
    fn follow<'a>(value: &'a mut Value, step: &Self) -> Option<&'a mut Value> {
        match step {
            Self::Name(name) => value.get_mut(name.as_str()),
            Self::Index(at) => {
                let length = i64::try_from(value.as_array()?.len()).ok()?;
                // As in Postgres, -1 is the last.
                let at = if *at < 0 { length + at } else { *at };
                value.get_mut(usize::try_from(at).ok()?)
            }
        }
    }
}

/// The way that the last row went: it is read once while it stays the same.
struct Way {
    is_key: bool,
    text: Option<String>,
    steps: Vec<Step>,
}

impl Way {
    const fn new(is_key: bool) -> Self {
        Self { is_key, text: None, steps: Vec::new() }
    }

    fn at(&mut self, ways: &dyn Array, row: usize, function: &str) -> DfResult<&[Step]> {
        if let Some(numbers) = ways.as_primitive_opt::<Int64Type>() {
            self.steps = vec![Step::Index(numbers.value(row))];
            return Ok(&self.steps);
        }
        let Some(texts) = ways.as_string_opt::<i32>() else {
            return exec_err!("{function} takes a text or a number as its second argument");
        };
        let text = texts.value(row);
        if self.text.as_deref() != Some(text) {
            self.steps = if self.is_key { vec![Step::Name(text.to_owned())] } else { path(text, function)? };
            self.text = Some(text.to_owned());
        }
        Ok(&self.steps)
    }
}

/// The steps of a path.
fn path(text: &str, function: &str) -> DfResult<Vec<Step>> {
    let trimmed = text.trim();
    let bare = trimmed.strip_prefix("lax").map_or(trimmed, str::trim_start);
    let bad = |at: &str| plan_err!("{function} cannot read the path '{text}' at '{at}': it is like $.name, $['name'] or $.list[0].name");
    let Some(mut rest) = bare.strip_prefix('$') else { return bad(bare) };
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix('.') {
            let name: &str = match behind.strip_prefix('"') {
                Some(quoted) => match quoted.split_once('"') {
                    Some((name, _)) => name,
                    None => return bad(rest),
                },
                None => behind.split(['.', '[']).next().unwrap_or_default(),
            };
            if name.is_empty() || name.contains(['*', ' ', '?', '(']) {
                return bad(rest);
            }
            steps.push(Step::Name(name.to_owned()));
            rest = &behind[name.len() + if behind.starts_with('"') { 2 } else { 0 }..];
        } else if let Some((inside, behind)) = rest.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
            let name = ['\'', '"'].into_iter().find_map(|quote| inside.trim().strip_prefix(quote)?.strip_suffix(quote));
            match (name, inside.trim().parse::<u32>()) {
                (Some(name), _) => steps.push(Step::Name(name.to_owned())),
                (None, Ok(at)) => steps.push(Step::Index(i64::from(at))),
                (None, Err(_)) => return bad(rest),
            }
            rest = behind;
        } else {
            return bad(rest);
        }
    }
    Ok(steps)
}
