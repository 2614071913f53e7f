//! Small functions of numbers, and pseudonyms.
//!
//! Owns their names and arguments; the formulas and their sources are in room `clinical`. Always: NULL in, NULL out, and
//! a value that the formula is not defined for (a pressure of zero below a fraction) gives NULL, never infinity.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result as DfResult, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::clinical;

/// A function of one or two numbers. Its name tells it from others.
#[derive(Debug)]
struct Formula {
    name: &'static str,
    signature: Signature,
    rule: Rule,
}

impl PartialEq for Formula {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Formula {}

impl Hash for Formula {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    One(fn(f64) -> f64),
    Two(fn(Option<f64>, Option<f64>) -> Option<f64>),
}

/// The functions.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    let one = |name, of| formula(name, Rule::One(of), 1);
    let two = |name, of| formula(name, Rule::Two(of), 2);
    vec![
        two("shock_index", clinical::shock_index),
        two("modified_shock_index", clinical::modified_shock_index),
        two("map_from", clinical::map_from),
        two("pulse_pressure", clinical::pulse_pressure),
        one("f_to_c", clinical::f_to_c),
        one("kpa_to_mmhg", clinical::kpa_to_mmhg),
        one("mgdl_from_mmoll", clinical::mgdl_from_mmoll),
        Arc::new(ScalarUDF::new_from_impl(Pseudonym::default())),
    ]
}

fn formula(name: &'static str, rule: Rule, arguments: usize) -> Arc<ScalarUDF> {
    let signature = Signature::exact(vec![DataType::Float64; arguments], Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Formula { name, signature, rule }))
}

impl ScalarUDFImpl for Formula {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let number = |at: usize| columns.get(at).and_then(|column| column.as_primitive_opt::<Float64Type>());
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        let made: Float64Array = match (self.rule, number(0), number(1)) {
            (Rule::One(of), Some(a), _) => a.iter().map(|a| finite(Some(of(a?)))).collect(),
            (Rule::Two(of), Some(a), Some(b)) => a.iter().zip(b.iter()).map(|(a, b)| finite(of(a, b))).collect(),
            _ => return exec_err!("{} takes numbers", self.name),
        };
        Ok(ColumnarValue::Array(Arc::new(made)))
    }
}

/// The site's key, which pseudonyms are made with.
static SITE_KEY: OnceLock<Vec<u8>> = OnceLock::new();

/// Sets the site's key for SQL's `pseudonym(id)`, once for the process. Answers false where another was set before.
/// The key never appears in messages, logs or plans.
pub fn set_pseudonym_key(key: &[u8]) -> bool {
    SITE_KEY.get_or_init(|| key.to_vec()) == key
}

/// `pseudonym(id)`: the same text for the same id under one site key, from which the id cannot be had without the key.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Pseudonym {
    signature: Signature,
}

impl Default for Pseudonym {
    fn default() -> Self {
        Self { signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Pseudonym {
    fn name(&self) -> &'static str {
        "pseudonym"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DfResult<DataType> {
        if SITE_KEY.get().is_none() {
            return plan_err!("pseudonym needs the site's key: set pseudonym.key in the configuration");
        }
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let Some(key) = SITE_KEY.get() else { return exec_err!("pseudonym has no key") };
        let Some(ids) = columns.first().and_then(|ids: &ArrayRef| ids.as_string_opt::<i32>()) else {
            return exec_err!("pseudonym takes a text");
        };
        let made: StringArray = ids.iter().map(|id| id.map(|id| clinical::PatientId::new(id).pseudonym(key))).collect();
        debug_assert_eq!(made.len(), ids.len());
        Ok(ColumnarValue::Array(Arc::new(made)))
    }
}
