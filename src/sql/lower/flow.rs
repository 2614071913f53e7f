//! What rows go through: a run of steps, and before them, where rows of two sources meet, a join of two flows.
//!
//! A [`Flow`] is shared by all tasks of a query and holds no state; [`Flow::chain`] makes fresh operators. Always: the
//! sources of a flow are numbered from left to right, as `stream`'s chains number them. Made by `walk` and
//! `join`, kept by `QueryPlan`.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::step::{Step, changes_alone};
use crate::sql::windows::Length;
use crate::stream::{
    AsOf, AsOfSpec, Chain, Expr, Interval, IntervalSpec, Join, JoinKind, Operator, Scope, Shown, Side, StreamError, Union, WindowColumn,
};

/// A tree of steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    pub fork: Option<Arc<Fork>>,
    pub steps: Vec<Step>,
    /// Where its rows change: which columns tell them apart, and what each is of the group or ranking below.
    pub changes: Option<Vec<(usize, WindowColumn)>>,
}

/// Two flows and how they are joined.
#[derive(Clone, Debug)]
pub(super) struct Fork {
    pub left: Flow,
    pub right: Flow,
    pub join: JoinStep,
}

/// A join.
#[derive(Clone, Debug)]
pub(super) enum JoinStep {
    /// By a range of time; and how long rows wait for partners, where no condition says it.
    Interval(IntervalSpec, Option<i64>),
    /// With the latest row.
    AsOf(AsOfSpec),
    /// One beside the other.
    Union(SchemaRef),
}

impl Flow {
    /// Fresh operators for one task.
    pub(super) fn chain(&self, scope: Scope) -> Result<Chain, StreamError> {
        let Some(fork) = &self.fork else { return Ok(Chain::new(self.operators(scope)?)) };
        // Behind a union each source's partition is one of several, also where a task has one partition of each.
        let behind = if matches!(fork.join, JoinStep::Union(_)) { Scope::Merged } else { scope };
        let left = fork.left.chain(scope)?;
        let join = fork.join.operator(left.sources())?;
        Ok(Chain::joined(left, fork.right.chain(scope)?, join, self.operators(behind)?))
    }

    /// Rows that change go through conditions and columns as part of the step that changes them.
    fn operators(&self, scope: Scope) -> Result<Vec<Box<dyn Operator>>, StreamError> {
        let alone = |steps: &[Step]| steps.iter().map(|step| step.operator(scope)).collect::<Result<Vec<_>, _>>();
        let (Some(keys), Some(first)) = (&self.changes, self.steps.iter().position(Step::is_changing)) else { return alone(&self.steps) };
        let mut operators = alone(&self.steps[..first])?;
        let mut at = first;
        // Behind results that change stands what groups them again, which takes them as they are.
        while let Some(next) = self.steps.get(at + 1).filter(|next| next.is_changing()) {
            debug_assert!(next.is_stateful());
            let schema = Arc::clone(self.steps[at].schema());
            let keys = self.steps[at].own_key().ok_or_else(changes_alone)?;
            operators.push(self.steps[at].changing(scope, Shown { steps: Vec::new(), keys, schema })?);
            at += 1;
        }
        let shown = Shown {
            steps: self.steps[at + 1..].iter().map(Step::filter_project).collect::<Option<_>>().ok_or_else(changes_alone)?,
            keys: keys.clone(),
            schema: Arc::clone(self.steps.last().unwrap_or(&self.steps[at]).schema()),
        };
        operators.push(self.steps[at].changing(scope, shown)?);
        Ok(operators)
    }

    /// Whether `state.ttl` lets go of something in it.
    pub(super) fn has_ttl(&self) -> bool {
        let sides = self.fork.as_ref().is_some_and(|fork| {
            let joins = matches!(&fork.join, JoinStep::AsOf(AsOfSpec { ttl_ms: Some(_), .. }) | JoinStep::Interval(_, Some(_)));
            joins || fork.left.has_ttl() || fork.right.has_ttl()
        });
        sides || self.steps.iter().any(Step::has_ttl)
    }

    /// Whether anything in it keeps state between rows.
    pub(super) fn is_stateful(&self) -> bool {
        is_stateful(self.fork.as_deref(), &self.steps)
    }

    /// The flow as EXPLAIN shows it; `sources` are the lines of its sources, in order.
    pub(super) fn explain(&self, sources: &mut dyn Iterator<Item = String>, out: &mut String) {
        match &self.fork {
            None => out.extend(sources.next()),
            Some(fork) => {
                fork.left.explain(sources, out);
                fork.right.explain(sources, out);
                fork.join.explain(out);
            }
        }
        for step in &self.steps {
            step.explain(out);
        }
    }

    /// What tells this flow's state from another's: all that rows go through up to the last thing that keeps any of them, or,
    /// where results change, up to the results.
    pub(super) fn fingerprint(&self, out: &mut String) {
        let last = self.steps.iter().rposition(Step::is_stateful).map_or(0, |last| last + 1);
        let last = if self.changes.is_some() { self.steps.len() } else { last };
        if let Some(fork) = self.fork.as_ref().filter(|_| last > 0 || is_stateful(self.fork.as_deref(), &[])) {
            fork.left.whole_fingerprint(out);
            fork.right.whole_fingerprint(out);
            fork.join.fingerprint(out);
        }
        for step in &self.steps[..last] {
            step.fingerprint(out);
        }
    }

    fn whole_fingerprint(&self, out: &mut String) {
        if let Some(fork) = &self.fork {
            fork.left.whole_fingerprint(out);
            fork.right.whole_fingerprint(out);
            fork.join.fingerprint(out);
        }
        for step in &self.steps {
            step.fingerprint(out);
        }
    }
}

/// Whether a join, or a step behind it, keeps state between rows.
pub(super) fn is_stateful(fork: Option<&Fork>, steps: &[Step]) -> bool {
    let joins = fork.is_some_and(|fork| match fork.join {
        JoinStep::Interval(..) | JoinStep::AsOf(_) => true,
        JoinStep::Union(_) => fork.left.is_stateful() || fork.right.is_stateful(),
    });
    joins || steps.iter().any(Step::is_stateful)
}

impl JoinStep {
    /// A fresh operator; its left side reads so many sources.
    fn operator(&self, left: usize) -> Result<Box<dyn Join>, StreamError> {
        Ok(match self {
            Self::Union(schema) => Box::new(Union::new(left, Arc::clone(schema))),
            Self::Interval(spec, _) => Box::new(Interval::new(spec.clone())?),
            Self::AsOf(spec) => Box::new(AsOf::new(spec.clone())?),
        })
    }

    fn explain(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Union(_) => writeln!(out, "union    the rows of both"),
            Self::Interval(spec, ttl) => {
                let range = match (spec.least_ms, spec.greatest_ms) {
                    (0, 0) => "at the same time".to_owned(),
                    (least, greatest) if *ttl == Some(greatest) && least == -greatest => {
                        format!("its time at most {} apart", Length(greatest))
                    }
                    (least, greatest) => format!("its time {}", apart(least, greatest)),
                };
                writeln!(out, "join     {} {}, {range}{}", kind(spec.kind), keys(&spec.keys), besides(spec.condition.as_ref()))
            }
            Self::AsOf(spec) => {
                let kind = if spec.keeps_left { "LEFT" } else { "INNER" };
                let latest = match (&spec.table, spec.is_strict) {
                    (Some(_), _) => "the version that holds at its time",
                    (None, true) => "the latest before its time",
                    (None, false) => "the latest up to its time",
                };
                let young = spec.ttl_ms.map_or_else(String::new, |ttl| format!(" and at most {} before it", Length(ttl)));
                writeln!(out, "join     {kind} {}, {latest}{young}{}", keys(&spec.keys), besides(spec.condition.as_ref()))
            }
        };
    }

    fn fingerprint(&self, out: &mut String) {
        self.explain(out);
        let (inputs, schema) = match self {
            Self::Union(schema) => {
                let _ = writeln!(out, "{:?}", schema.fields());
                return;
            }
            Self::Interval(spec, _) => (&spec.inputs, &spec.schema),
            Self::AsOf(spec) => (&spec.inputs, &spec.schema),
        };
        let _ = writeln!(out, "{:?} {:?}", inputs.each_ref().map(|schema| schema.fields()), schema.fields());
    }
}

fn besides(condition: Option<&Arc<dyn Expr>>) -> String {
    condition.map_or_else(String::new, |condition| format!(", and {}", condition.text()))
}

fn kind(of: JoinKind) -> &'static str {
    match of {
        JoinKind::Inner => "INNER",
        JoinKind::Left => "LEFT",
        JoinKind::Right => "RIGHT",
        JoinKind::Full => "FULL",
        JoinKind::Semi(Side::Left) => "LEFT SEMI",
        JoinKind::Semi(Side::Right) => "RIGHT SEMI",
        JoinKind::Anti(Side::Left) => "LEFT ANTI",
        JoinKind::Anti(Side::Right) => "RIGHT ANTI",
    }
}

fn keys(of: &[Vec<Arc<dyn Expr>>; 2]) -> String {
    let pairs = of[0].iter().zip(&of[1]).map(|(left, right)| format!("{} = {}", left.text(), right.text()));
    format!("by [{}]", pairs.collect::<Vec<_>>().join(", "))
}

/// How far the right row's time may lie from the left one's.
fn apart(least: i64, greatest: i64) -> String {
    let place = |ms: i64| match ms {
        0 => "the left one's".to_owned(),
        ms if ms < 0 => format!("{} before the left one's", Length(-ms)),
        ms => format!("{} behind the left one's", Length(ms)),
    };
    format!("from {} to {}", place(least), place(greatest))
}
