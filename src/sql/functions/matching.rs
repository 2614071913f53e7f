//! `regexp_extract(text, pattern [, group])`, Flink's: what a group of a regular expression has matched, the whole where none is named.
//!
//! Always: no match, and a group that took no part in it, give NULL; a group that the pattern has not is an error.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result as DfResult, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility};
use regex::Regex;

/// The functions.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ScalarUDF::new_from_impl(Extract::default()))]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extract {
    signature: Signature,
}

impl Default for Extract {
    fn default() -> Self {
        let two = vec![DataType::Utf8, DataType::Utf8];
        let three = vec![DataType::Utf8, DataType::Utf8, DataType::Int64];
        let either = vec![TypeSignature::Exact(two), TypeSignature::Exact(three)];
        Self { signature: Signature::one_of(either, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Extract {
    fn name(&self) -> &'static str {
        "regexp_extract"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let text = |at: usize| columns.get(at).and_then(|column| column.as_string_opt::<i32>());
        let (Some(texts), Some(patterns)) = (text(0), text(1)) else { return exec_err!("regexp_extract takes a text and a pattern") };
        let groups = columns.get(2).map(|column| column.as_primitive::<Int64Type>());
        let mut known: Option<(&str, Regex)> = None;
        let mut made = Vec::with_capacity(texts.len());
        for row in 0..texts.len() {
            if texts.is_null(row) || patterns.is_null(row) || groups.is_some_and(|groups| groups.is_null(row)) {
                made.push(None);
                continue;
            }
            let pattern = patterns.value(row);
            if known.as_ref().is_none_or(|(of, _)| *of != pattern) {
                match Regex::new(pattern) {
                    Ok(regex) => known = Some((pattern, regex)),
                    Err(error) => return exec_err!("regexp_extract cannot read its pattern: {error}"),
                }
            }
            let (_, regex) = known.as_ref().expect("it was made just now");
            let group = groups.map_or(0, |groups| groups.value(row));
            let Some(at) = usize::try_from(group).ok().filter(|at| *at < regex.captures_len()) else {
                return exec_err!("regexp_extract has no group {group}: its pattern has {}", regex.captures_len() - 1);
            };
            made.push(regex.captures(texts.value(row)).and_then(|found| found.get(at)).map(|found| found.as_str()));
        }
        Ok(ColumnarValue::Array(Arc::new(made.into_iter().collect::<StringArray>())))
    }
}
