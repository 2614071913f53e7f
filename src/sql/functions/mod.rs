//! Functions beyond DataFusion's: the clinic's, and those that remember a key's past.
//!
//! Owns their registration. `bounded` stands before those of DataFusion's that make much out of little. `scalar` and `scores` wrap room `clinical`, where the numbers and their sources are; `stateful`
//! ones are planned here and run by `stream`; `json`, `calendar` and `matching` are what other engines have and DataFusion has not. Called by `session`, once.

mod bounded;
mod calendar;
mod cells;
mod json;
mod matching;
mod scalar;
mod scores;
pub(super) mod stateful;
#[cfg(test)]
mod tests;

pub use scalar::set_pseudonym_key;

use datafusion::common::Result as DfResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;

use super::asof::markers;

/// Makes every function known.
pub(super) fn register(state: &mut SessionState) -> DfResult<()> {
    let other_engines = json::all().into_iter().chain(calendar::all()).chain(matching::all());
    for function in scalar::all().into_iter().chain(scores::all()).chain(markers()).chain(other_engines) {
        state.register_udf(function)?;
    }
    for function in bounded::all(|name| state.udf(name).ok()) {
        state.register_udf(function)?;
    }
    for function in stateful::all() {
        state.register_udwf(function)?;
    }
    Ok(())
}
