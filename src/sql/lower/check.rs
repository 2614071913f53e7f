//! What a continuous query must not contain, found in the plan as written, before anything is folded away.
//!
//! Owns the rules about time and chance: `now()` is folded to the time of planning, and a function that answers
//! differently each time cannot be repeated after a restart. Called by `lower`.

use std::ops::ControlFlow;

use arrow::datatypes::Schema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};

use super::Purpose;
use crate::sql::error::{Code, SqlError};

/// Refuses functions whose answer is not a function of the rows.
pub(super) fn continuous(plan: &LogicalPlan, purpose: Purpose) -> Result<(), SqlError> {
    let mut found = ControlFlow::Continue(());
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found = judge(expr, purpose);
                Ok(if found.is_break() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    match found {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Refuses the same in the definition of a stream, where what a row means must not depend on when it is read.
pub(super) fn definition(expr: &Expr) -> Result<(), SqlError> {
    let mut found = ControlFlow::Continue(());
    expr.apply(|expr| {
        found = judge(expr, Purpose::ExactlyOnce);
        Ok(if found.is_break() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match found {
        ControlFlow::Break(error) => Err(error.hint("compute with the columns of the row alone")),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn judge(expr: &Expr, purpose: Purpose) -> ControlFlow<SqlError> {
    let Expr::ScalarFunction(call) = expr else { return ControlFlow::Continue(()) };
    let name = call.func.name();
    match call.func.signature().volatility {
        Volatility::Immutable => ControlFlow::Continue(()),
        _ if is_clock(name) => {
            let error = SqlError::new(Code::NotOnAStream, format!("{name}() is the time of planning in a continuous query"));
            ControlFlow::Break(error.hint("compare with the event time of the rows, or give the query a TIMEOUT"))
        }
        Volatility::Volatile if purpose == Purpose::ExactlyOnce => {
            let error = SqlError::new(
                Code::NotOnAStream,
                format!("{name}() answers differently each time, so the query could not be repeated after a restart"),
            );
            ControlFlow::Break(error.hint("derive the value from columns, as in md5(concat(patient_id, ts))"))
        }
        _ => ControlFlow::Continue(()),
    }
}

fn is_clock(name: &str) -> bool {
    matches!(name, "now" | "current_timestamp" | "current_date" | "current_time" | "today")
}

/// Every column of a result has a name of its own.
pub(super) fn names(schema: &Schema) -> Result<(), SqlError> {
    for (i, field) in schema.fields().iter().enumerate() {
        if schema.fields()[..i].iter().any(|earlier| earlier.name() == field.name()) {
            return Err(SqlError::new(Code::Ambiguous, format!("two columns of the result are called \"{}\"", field.name()))
                .hint("give one of them another name with AS"));
        }
    }
    Ok(())
}
