//! A query cut in two at its windowed aggregate: which can be, and the operators of each half.
//!
//! What comes before the aggregate and its first half run where the rows are, one task a partition; its second half and what comes behind run
//! by group. Always: a plan that is cut gives what it gives in one task over all partitions; where that is not so, [`QueryPlan::phases`] says
//! why. Called by the engine.

use arrow::datatypes::DataType;

use super::QueryPlan;
use super::step::{Step, rule};
use crate::sql::types::sql_type;
use crate::sql::windows::Cut;
use crate::stream::{Chain, Operator, Scope, StreamError, WindowCollect, WindowCombine, WindowRule};

/// Where a plan is cut.
#[derive(Clone, Copy, Debug)]
pub struct Phases {
    /// The place of its aggregate.
    at: usize,
    /// How its windows lie.
    pub rule: WindowRule,
}

impl QueryPlan {
    /// Where it can be cut in two; else why not, in words that follow "because".
    pub fn phases(&self) -> Result<Phases, String> {
        if self.flow.fork.is_some() || self.inputs.len() != 1 {
            return Err("it reads more than one stream".to_owned());
        }
        let mut with_state = self.flow.steps.iter().enumerate().filter(|(_, step)| !matches!(step, Step::Map { .. }));
        let aggregate = match (with_state.next(), with_state.next()) {
            (Some(only), None) => only,
            _ => return Err("it is not one windowed aggregate, with conditions and columns around it".to_owned()),
        };
        let (at, Step::Window { cut, keys, sets, folds, schema, .. }) = aggregate else {
            return Err("its results are not those of windows that are told once, when they close".to_owned());
        };
        if let Cut::Session { .. } = cut {
            return Err("a session may be made of rows of several partitions".to_owned());
        }
        // Of grouping sets each has a number, which is one key more.
        let key_columns = keys.len() + usize::from(sets.is_some());
        if let Some(field) = schema.fields().iter().take(key_columns).find(|field| !places(field.data_type())) {
            return Err(format!("it groups by {}, which is {}", field.name(), sql_type(field.data_type())));
        }
        if let Some(fold) = folds.iter().find(|fold| !fold.travels()) {
            return Err(format!("what {fold:?} remembers grows with the rows, or goes by their order"));
        }
        let rule = rule(*cut).map_err(|e| e.to_string())?;
        Ok(Phases { at, rule })
    }

    /// By which keys its groups are shared out so that rows with one text in all these columns of the results come from one task, in
    /// their order: those keys, each of which is one of the columns; `None` where that cannot be said.
    #[must_use]
    pub fn shared_by(&self, columns: &[usize]) -> Option<Vec<usize>> {
        columns.iter().map(|column| self.groups.get(*column).copied().flatten()).collect()
    }

    /// Fresh operators for a partition's task of the first half, which hands over to so many tasks, its groups shared out by these keys.
    pub fn first_phase(&self, phases: &Phases, scope: Scope, by: &[usize], targets: i32) -> Result<Chain, StreamError> {
        let mut operators = self.operators(0..phases.at, scope)?;
        let step = &self.flow.steps[phases.at];
        operators.push(step.over_sets(Box::new(WindowCollect::new(step.window(scope)?, by.to_vec(), targets)?))?);
        Ok(Chain::new(operators))
    }

    /// Fresh operators for a task of the second half, which takes what so many hand over. Its figures stand behind those of the first.
    pub fn second_phase(&self, phases: &Phases, scope: Scope, upstream: i32) -> Result<Chain, StreamError> {
        let mut operators: Vec<Box<dyn Operator>> =
            vec![Box::new(WindowCombine::new(self.flow.steps[phases.at].window(scope)?, upstream)?)];
        operators.extend(self.operators(phases.at + 1..self.flow.steps.len(), scope)?);
        // A source, what is before the aggregate, its first half and a sink.
        Ok(Chain::new(operators).numbered_from(phases.at + 3))
    }

    fn operators(&self, steps: std::ops::Range<usize>, scope: Scope) -> Result<Vec<Box<dyn Operator>>, StreamError> {
        self.flow.steps[steps].iter().map(|step| step.operator(scope)).collect()
    }
}

/// Whether equal values of a type, and those alone, have the same text: by it a group finds its partition.
fn places(of: &DataType) -> bool {
    of.is_integer()
        || of.is_string()
        || matches!(of, DataType::Boolean | DataType::Date32 | DataType::Date64 | DataType::Timestamp(..))
        || matches!(of, DataType::Decimal128(..) | DataType::Decimal256(..))
}
