//! The event time that a stream of a query's results has by itself.
//!
//! A query that writes to a new name makes a stream of it. Where one column of the results is the very time that its rows carry
//! (the event time, handed on, or `window_time`), and the order in which they will be read is known, that column becomes the event
//! time of the new stream. It is known where each partition of the new stream is written by one task alone: behind an operator
//! that waits for time its rows come in order of that time, and without one as the input's rows do, whose WATERMARK then holds
//! for them too. Elsewhere nothing is claimed: rows that several tasks write into one partition would make each other late.
//! Called by `lower`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Expr, Visit, VisitMut, Visitor, VisitorMut};

use super::lineage::Lineage;
use super::source::Source;
use super::step::Step;
use crate::sql::statement::Name;
use crate::sql::types::quoted;

/// The event time of results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultTime {
    /// Which column it is.
    pub column: usize,
    /// The WATERMARK of the input, over its own event time of this name; none where the results are in order.
    of_input: Option<(String, Expr)>,
}

impl ResultTime {
    /// The WATERMARK expression, where the column is called so.
    #[must_use]
    pub fn watermark(&self, name: &str) -> String {
        let Some((own, expr)) = &self.of_input else { return quoted(name) };
        let mut expr = expr.clone();
        let _ = VisitMut::visit(&mut expr, &mut Renamed { from: own, to: name });
        expr.to_string()
    }
}

struct Renamed<'a> {
    from: &'a str,
    to: &'a str,
}

impl VisitorMut for Renamed<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr
            && Name::of(ident).text == self.from
        {
            let is_quoted = quoted(self.to).starts_with('"');
            *expr = Expr::Identifier(if is_quoted { ast::Ident::with_quote('"', self.to) } else { ast::Ident::new(self.to) });
        }
        ControlFlow::Continue(())
    }
}

/// What is known of the results when their time is looked for.
pub(super) struct Known<'a> {
    /// The first stream.
    pub source: &'a Source,
    /// Whether rows of several streams meet.
    pub is_joined: bool,
    pub steps: &'a [Step],
    pub columns: &'a [Lineage],
    /// Whether one task writes all of them.
    pub is_one_task: bool,
}

/// The event time of results that do not change, where it is certain.
pub(super) fn result_time(of: &Known<'_>) -> Option<ResultTime> {
    if of.is_joined || of.steps.iter().any(Step::is_changing) {
        return None;
    }
    let mut exact = of.columns.iter().enumerate().filter(|(_, column)| column.time && column.behind_ms == Some(0));
    let (column, None) = (exact.next()?.0, exact.next()) else { return None };
    let waits = of.steps.iter().rev().find(|step| step.is_stateful());
    // In one partition meet the rows of one key, or those of the input's partition of the same number.
    let is_apart = match of.columns.iter().filter(|column| column.key).collect::<Vec<_>>().as_slice() {
        [] => true,
        [key] => of.source.is_murmur2 && key.placed,
        _ => false,
    };
    match waits {
        Some(step) if step.is_in_order() && (of.is_one_task || is_apart) => Some(ResultTime { column, of_input: None }),
        None if of.source.partitions == 1 || is_apart => {
            let (own, expr) = (of.source.time.clone()?, of.source.watermark.clone()?);
            reads_only(&expr, &own).then_some(ResultTime { column, of_input: Some((own, expr)) })
        }
        _ => None,
    }
}

/// Whether an expression reads this column and no other.
fn reads_only(expr: &Expr, column: &str) -> bool {
    struct Reads<'a>(&'a str);
    impl Visitor for Reads<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(ident) if Name::of(ident).text != self.0 => ControlFlow::Break(()),
                Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Reads(column)).is_continue()
}
