//! How often the results of a query or alert may be written: what it says, else what the node says, and where only once will do.
//!
//! At least once makes no sense where rows are kept and read as they stand: results that change (a row written again would take the
//! place of a newer one, until that comes again too), and views (a row would be there twice for good). There it is refused where it
//! is asked for, and the node's own word does not count. Called where queries, views and alerts are created and started.

use super::Engine;
use crate::sql::catalog::Entry;
use crate::sql::error::{Code, SqlError};
use crate::sql::lower::{Placement, QueryPlan};
use crate::sql::options::Options;
use crate::sql::statement::{Kind, Statement};
use crate::stream::Delivery;

/// What the statement says.
fn said(statement: &Statement) -> Option<(Delivery, &Options)> {
    match statement {
        Statement::CreateQuery(q) | Statement::CreateView(q) => Some((q.options.delivery?, &q.options.given)),
        Statement::CreateAlert(a) => Some((a.options.delivery?, &a.options.given)),
        _ => None,
    }
}

/// Refuses at_least_once where a row written again would be taken for another one.
pub(super) fn check_delivery(statement: &Statement, plan: &QueryPlan) -> Result<(), SqlError> {
    let Some((Delivery::AtLeastOnce, given)) = said(statement) else { return Ok(()) };
    let (why, hint) = if matches!(statement, Statement::CreateView(_)) {
        ("a view's rows are kept, and one that is written again would be there twice", "leave it out: a view is kept exactly once")
    } else if plan.is_changing() {
        (
            "these results change, and one that is written again would take the place of a newer one",
            "leave it out: what has changed is told with each commit, and 'commit.interval' says how soon that is",
        )
    } else {
        return Ok(());
    };
    Err(SqlError::new(Code::BadOption, format!("option 'delivery' cannot be 'at_least_once' here: {why}"))
        .at(given.place("delivery"))
        .hint(hint))
}

impl Engine {
    /// How often its results may be written.
    pub(super) fn delivery(&self, entry: &Entry, plan: &QueryPlan) -> Delivery {
        match said(&entry.statement) {
            Some((delivery, _)) => delivery,
            None if entry.kind == Kind::View || plan.is_changing() => Delivery::ExactlyOnce,
            None => self.options.delivery,
        }
    }
}

/// The line of EXPLAIN; a query in two phases has no task that reads several partitions.
pub(super) fn line(delivery: Delivery, plan: &QueryPlan, has_phases: bool) -> String {
    let is_alone = (plan.placement == Placement::Partition || has_phases) && plan.inputs.len() == 1;
    let note = match (delivery, is_alone) {
        (Delivery::ExactlyOnce, _) => "",
        (Delivery::AtLeastOnce, true) => " (results leave ahead of their commit)",
        // What several inputs give depends on how far each had come, which is in the commit.
        (Delivery::AtLeastOnce, false) => " (several inputs in one task: results leave with their commit all the same)",
    };
    format!("delivery {delivery}{note}\n")
}
