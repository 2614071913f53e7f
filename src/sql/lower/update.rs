//! Results that change: aggregates without a window, windows that speak before or behind their end.
//!
//! Owns the lowering of GROUP BY without a window, what EMIT and `state.ttl` make of a query ([`How`]), and what such a
//! query must have: an end to its state, and a key in its SELECT list. Only what nothing but conditions and columns stands
//! above may change; a group with the end of a window or the event time in its key comes to an end, and is said once.
//! Called by `walk` and `plan`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, ScalarValue};
use datafusion::logical_expr::{Aggregate, Expr as LogicalExpr, ExprSchemable};

use super::frames::expiry;
use super::lineage::{Lineage, column_of, leave_at, lineage_of};
use super::step::{Life, Step};
use super::walk::{Chain, Lowered, Walk, always, refused, step_sets};
use super::{Purpose, QueryPlan};
use crate::sql::analyze::in_exact_terms;
use crate::sql::error::{Code, Place, SqlError};
use crate::sql::expr::{Exprs, cast_column, sql_text};
use crate::sql::fold::PlannedFold;
use crate::sql::grouping::{GROUPING_ID, Sets};
use crate::sql::statement::{Emit, Select, StateTtl};
use crate::sql::windows::Cut;
use crate::stream::{FoldFactory, GroupEmit, GroupingSet, WindowColumn};

/// What to write where state would grow for ever.
const TTL: &str = "let go of groups that have had no row for so long, WITH ('state.ttl' = '1d'), or group by a window";

/// Aggregates, and the columns of the keys and of these.
type Folds = (Vec<Arc<dyn FoldFactory>>, Arc<Schema>);

/// What a query says of when its rows come, and how long it remembers.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Whether it is asked of what is stored: then nothing changes.
    pub is_history: bool,
    emit: Emit,
    /// Where EMIT stands.
    pub(super) emit_place: Option<Place>,
    ttl: StateTtl,
    /// Whether it runs for as long as the node does.
    is_lasting: bool,
}

impl How {
    /// Over what is stored.
    pub const HISTORY: Self = Self { is_history: true, emit: Emit::Unstated, emit_place: None, ttl: StateTtl::Unstated, is_lasting: false };

    /// As a continuous query says it.
    pub(super) fn of(select: &Select, purpose: Purpose) -> Self {
        let (emit, emit_place, ttl) = (select.emit, select.emit_place, select.state_ttl);
        Self { is_history: false, emit, emit_place, ttl, is_lasting: purpose == Purpose::ExactlyOnce }
    }

    /// How long rows wait for partners where a join does not say it.
    pub(super) const fn join_ttl(&self) -> StateTtl {
        self.ttl
    }

    /// Whether windows speak at other times than their end alone, and how long behind it.
    pub(super) fn changes_windows(&self) -> Option<(GroupEmit, i64)> {
        match self.emit {
            Emit::Update { .. } => Some((GroupEmit::OnUpdate, 0)),
            Emit::WindowClose { grace: Some(grace), .. } => Some((GroupEmit::OnClose, grace.as_millis() as i64)),
            Emit::WindowClose { grace: None, .. } | Emit::Changes | Emit::Unstated => None,
        }
    }
}

/// What tells apart the rows of windows that change: the keys, and what says which window it is.
pub(super) fn changing_windows(keys: usize, cut: Cut, columns: &[Lineage]) -> Vec<Lineage> {
    let part = |at: usize| match at.checked_sub(keys) {
        None => Some(WindowColumn::Key(at)),
        // The start of a growing window is that of many.
        Some(0) if !matches!(cut, Cut::Cumulate { .. }) => Some(WindowColumn::WindowStart),
        Some(1) => Some(WindowColumn::WindowEnd),
        Some(2) => Some(WindowColumn::WindowTime),
        Some(_) => None,
    };
    let column = |(at, of): (usize, &Lineage)| {
        let change = part(at);
        let key = change.is_some_and(|change| change != WindowColumn::WindowTime);
        Lineage { key, change, placed: of.placed, ..Lineage::default() }
    };
    columns.iter().enumerate().map(column).collect()
}

/// What tells apart the rows of a ranking that changes: the columns of PARTITION BY, and the row's number.
pub(super) fn changing_places(keys: &[LogicalExpr], schema: &DFSchemaRef, columns: &[Lineage]) -> Vec<Lineage> {
    let column = |(at, of): (usize, &Lineage)| {
        let change = keys.iter().position(|key| column_of(key, schema) == Some(at)).map(WindowColumn::Key);
        Lineage { key: change.is_some(), change, placed: of.placed, ..Lineage::default() }
    };
    let number = Lineage { key: true, rank: true, change: Some(WindowColumn::Agg(0)), ..Lineage::default() };
    columns.iter().enumerate().map(column).chain([number]).collect()
}

impl Walk<'_> {
    /// Whether a ranking over these partitions changes for ever.
    pub(super) fn changes(&self, keys: &[LogicalExpr], schema: &DFSchemaRef, chain: &Chain) -> bool {
        !self.how.is_history && !matches!(self.how.emit, Emit::WindowClose { .. }) && expiry(keys, schema, &chain.columns).is_none()
    }

    /// GROUP BY without a window.
    pub(super) fn update(&self, node: &Aggregate, is_top: bool, may_change: bool) -> Lowered {
        self.grouped.set(may_change && !matches!(self.how.emit, Emit::WindowClose { .. }));
        let mut chain = self.lower(&node.input)?;
        let input = node.input.schema();
        if chain.steps.iter().any(Step::is_changing) {
            return self.regroup(node, chain);
        }
        let (group_expr, sets) = Sets::of(node)?;
        // What the time of a group, and its place, are known by counts in every set.
        let certain = always(&group_expr, sets.as_ref());
        let end = expiry(&certain, input, &chain.columns);
        let updates = matches!(self.how.emit, Emit::Update { .. });
        let life = match end {
            Some(end) if !is_top || !updates => Life::Key(end),
            _ if !may_change => {
                return Err(refused(
                    "GROUP BY without a window below another clause",
                    "add window_start, window_end or the event time to the GROUP BY, or write it into a table that another query joins",
                ));
            }
            Some(end) => Life::Key(end),
            None => Life::Open(self.ttl_of(&group_expr, &node.aggr_expr, input, &chain)?),
        };
        if let (Life::Open(_), Emit::WindowClose { .. }) = (life, self.how.emit) {
            let refused = refused("EMIT ON WINDOW CLOSE of groups without a window", "write EMIT ON UPDATE, or group by a window");
            return Err(refused.at(self.how.emit_place));
        }
        let emit = if matches!(life, Life::Open(_)) || (is_top && updates) { GroupEmit::OnUpdate } else { GroupEmit::OnClose };
        Self::keyed_by(&mut chain, &certain, input);
        let steps = sets.as_ref().map(|sets| step_sets(sets, &group_expr, input)).transpose()?;
        let key_columns = group_expr.len() + usize::from(sets.is_some());
        let mut exprs = Exprs::default();
        let keys = group_expr.iter().map(|key| exprs.plan(self.session, key, input)).collect::<Result<Vec<_>, _>>()?;
        let (folds, exact) = self.exact_folds(node, key_columns, &mut exprs)?;
        let mut lineage: Vec<Lineage> = certain.iter().map(|key| lineage_of(key, input, &chain.columns)).collect();
        lineage.resize(key_columns, Lineage::default());
        match life {
            // The rows leave at that time, and carry it.
            Life::Key(end) if emit == GroupEmit::OnClose => {
                leave_at(&mut lineage, Some(end.key), end.plus_ms);
                lineage
                    .iter_mut()
                    .enumerate()
                    .for_each(|(at, key)| key.key = sets.as_ref().is_none_or(|sets| at < group_expr.len() && sets.always(at)));
            }
            _ => {
                let changing = |(at, key): (usize, &Lineage)| Lineage { change: Some(WindowColumn::Key(at)), ..key.as_group() };
                lineage = lineage.iter().enumerate().map(changing).collect();
            }
        }
        lineage.resize(exact.fields().len(), Lineage::default());
        chain.columns = lineage;
        chain.steps.push(Step::Update { life, emit, keys, sets: steps, folds, schema: Arc::clone(&exact) });
        promise(&mut chain, node, &exact)?;
        Ok(chain)
    }

    /// GROUP BY over results that change.
    fn regroup(&self, node: &Aggregate, mut chain: Chain) -> Lowered {
        let input = node.input.schema();
        let (group_expr, sets) = Sets::of(node)?;
        if sets.is_some() {
            return Err(refused("GROUPING SETS, ROLLUP and CUBE over results that change", "write one query for each"));
        }
        let last = chain.steps.iter().rposition(Step::is_changing).map_or(0, |last| last + 1);
        let between = chain.steps.split_off(last);
        let from = chain.steps.last().and_then(Step::own_key).ok_or_else(|| {
            refused(
                "GROUP BY over results that change and whose key is no column",
                "PARTITION BY and GROUP BY columns below, not expressions",
            )
        })?;
        Self::keyed_by(&mut chain, &group_expr, input);
        let mut exprs = Exprs::default();
        let keys = group_expr.iter().map(|key| exprs.plan(self.session, key, input)).collect::<Result<Vec<_>, _>>()?;
        let (folds, exact) = self.exact_folds(node, keys.len(), &mut exprs)?;
        let changing = |(at, key): (usize, &LogicalExpr)| Lineage {
            change: Some(WindowColumn::Key(at)),
            ..lineage_of(key, input, &chain.columns).as_group()
        };
        let mut lineage: Vec<Lineage> = group_expr.iter().enumerate().map(changing).collect();
        lineage.resize(exact.fields().len(), Lineage::default());
        chain.columns = lineage;
        let from = from.into_iter().map(|(column, _)| column).collect();
        chain.steps.push(Step::Regroup { from, between, keys, folds, schema: Arc::clone(&exact) });
        promise(&mut chain, node, &exact)?;
        Ok(chain)
    }

    /// The aggregates in terms that are exact, and the columns of the keys and of these.
    fn exact_folds(&self, node: &Aggregate, keys: usize, exprs: &mut Exprs) -> Result<Folds, SqlError> {
        let input = node.input.schema();
        let mut fields: Vec<Field> = node.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut folds: Vec<Arc<dyn FoldFactory>> = Vec::with_capacity(node.aggr_expr.len());
        for (at, call) in node.aggr_expr.iter().enumerate() {
            let (exact, _) = in_exact_terms(call.clone().unalias(), input)?;
            let field = &mut fields[keys + at];
            *field = field.clone().with_data_type(exact.get_type(input.as_ref())?);
            folds.push(Arc::new(PlannedFold::plan(self.session, &exact, field.name(), input, exprs)?));
        }
        Ok((folds, Arc::new(Schema::new(fields))))
    }

    /// How long groups without a row are kept. Refused where nothing was said and there would be more for ever.
    pub(super) fn ttl_of(
        &self,
        keys: &[LogicalExpr],
        calls: &[LogicalExpr],
        input: &DFSchemaRef,
        chain: &Chain,
    ) -> Result<Option<i64>, SqlError> {
        match self.how.ttl {
            StateTtl::For(_) if chain.source.time.is_none() => {
                let message = format!("'state.ttl' counts in event time, and stream \"{}\" has none", chain.source.name);
                Err(SqlError::new(Code::NotOnAStream, message).hint("declare one: WATERMARK FOR ts AS ts - INTERVAL '5' SECOND"))
            }
            StateTtl::For(ttl) => Ok(Some(ttl.as_millis() as i64)),
            StateTtl::Forever => Ok(None),
            StateTtl::Unstated if !self.how.is_lasting => Ok(None),
            StateTtl::Unstated => {
                let refuse =
                    |why: String| Err(SqlError::new(Code::NotOnAStream, format!("the state would grow for ever: {why}")).hint(TTL));
                for key in keys {
                    if grows(key, &|expr| lineage_of(expr, input, &chain.columns))? {
                        return refuse(format!("there is a group for every value of {}", sql_text(key, input)));
                    }
                }
                for call in calls {
                    let LogicalExpr::AggregateFunction(call) = call.clone().unalias() else { continue };
                    let name = call.func.name();
                    let keeps_all = matches!(name, "array_agg" | "string_agg" | "median" | "percentile_cont" | "approx_median")
                        || name.starts_with("approx_percentile");
                    if keeps_all {
                        return refuse(format!("{name} keeps every value that ever came"));
                    }
                    if call.params.distinct {
                        for argument in &call.params.args {
                            if grows(argument, &|expr| lineage_of(expr, input, &chain.columns))? {
                                return refuse(format!("{name}(DISTINCT ..) keeps every value of {}", sql_text(argument, input)));
                            }
                        }
                    }
                }
                Ok(None)
            }
        }
    }
}

impl Walk<'_> {
    /// What an expression says of the grouping set, where it says nothing else (`grouping(a)`, `grouping_id(a, b)`) and the rows
    /// change: it is then part of what tells them apart, and the groups keep it.
    pub(super) fn mark_of_set(&self, expr: &LogicalExpr, input: &DFSchemaRef, chain: &mut Chain) -> Option<Lineage> {
        let reads = expr.column_refs();
        let is_number = |column: &&Column| column.name == GROUPING_ID;
        if reads.is_empty() || !reads.iter().all(is_number) {
            return None;
        }
        let step = chain.steps.iter_mut().rev().find(|step| step.is_stateful());
        let Some(Step::Update { keys, sets: Some(sets), .. }) = step.filter(|step| step.is_changing()) else { return None };
        if !sets.is_needed {
            return None;
        }
        let value = |set: &GroupingSet| {
            let number = ScalarValue::UInt64(Some(set.id)).cast_to(&sets.sets.id).ok()?;
            let filled = expr.clone().transform(|expr| match &expr {
                LogicalExpr::Column(_) => Ok(Transformed::yes(LogicalExpr::Literal(number.clone(), None))),
                _ => Ok(Transformed::no(expr)),
            });
            let LogicalExpr::Literal(value, _) = self.session.folded(filled.ok()?.data.unalias(), input).ok()? else { return None };
            match value.cast_to(&DataType::Int64).ok()? {
                ScalarValue::Int64(value) => value,
                _ => None,
            }
        };
        let mark = sets.sets.sets.iter().map(value).collect::<Option<Vec<i64>>>()?;
        let at = sets.marks.iter().position(|known| *known == mark).unwrap_or_else(|| {
            sets.marks.push(mark);
            sets.marks.len() - 1
        });
        Some(Lineage { key: true, change: Some(WindowColumn::Key(keys.len() + 1 + at)), ..Lineage::default() })
    }
}

/// The aggregates in the types that the plan promises.
fn promise(chain: &mut Chain, node: &Aggregate, exact: &Arc<Schema>) -> Result<(), SqlError> {
    let promised = Arc::clone(node.schema.inner());
    if exact.fields().iter().zip(promised.fields()).any(|(is, should)| is.data_type() != should.data_type()) {
        let cast = |(at, field): (usize, &Arc<Field>)| cast_column(exact, at, field.data_type());
        let columns = promised.fields().iter().enumerate().map(cast).collect::<Result<Vec<_>, _>>()?;
        chain.steps.push(Step::Map { filter: None, columns: Some(columns), schema: promised });
    }
    Ok(())
}

/// Whether an expression has ever new values as time goes on: it reads the event time, and more than its place in a day,
/// week or year.
pub(super) fn grows(expr: &LogicalExpr, lineage: &dyn Fn(&LogicalExpr) -> Lineage) -> Result<bool, SqlError> {
    let mut found = false;
    expr.apply(|expr| {
        match expr {
            LogicalExpr::ScalarFunction(call) if call.func.name() == "date_part" && returns(call.args.first()) => {
                return Ok(TreeNodeRecursion::Jump);
            }
            LogicalExpr::Column(_) => {
                let of = lineage(expr);
                found |= of.time || of.until.is_some() || of.behind_ms.is_some();
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Whether a part of a date comes again and again.
fn returns(part: Option<&LogicalExpr>) -> bool {
    let Some(LogicalExpr::Literal(
        ScalarValue::Utf8(Some(part)) | ScalarValue::LargeUtf8(Some(part)) | ScalarValue::Utf8View(Some(part)),
        _,
    )) = part
    else {
        return false;
    };
    !matches!(part.to_ascii_lowercase().as_str(), "year" | "isoyear" | "epoch" | "decade" | "century" | "millennium" | "julian")
}

impl QueryPlan {
    /// Refuses rows that take the place of others where every row is a reading.
    pub fn check_alert(&self) -> Result<(), SqlError> {
        if self.is_changing() {
            return Err(refused("an alert on results that change", "aggregate over a window, or with OVER"));
        }
        Ok(())
    }
}

/// Refuses an EMIT that has nothing to say, a `state.ttl` that nothing asks for, and rows that change without a key.
pub(super) fn check(plan: &QueryPlan, select: &Select, purpose: Purpose) -> Result<(), SqlError> {
    if matches!(select.state_ttl, StateTtl::For(_)) && !plan.flow.has_ttl() {
        let error =
            SqlError::new(Code::BadOption, "'state.ttl' has nothing to let go of: whatever the query keeps comes to an end by itself");
        return Err(error.hint("leave it out; 'state.max' bounds how much is kept"));
    }
    let clause = match select.emit {
        Emit::Update { .. } => Some("EMIT ON UPDATE"),
        Emit::WindowClose { grace: Some(_), .. } => Some("WITH GRACE"),
        _ => None,
    };
    let Some(changes) = &plan.flow.changes else {
        return match clause {
            Some(clause) => Err(refused(
                &format!("{clause} where no result changes"),
                "leave it out, or aggregate last: only conditions and columns may stand above the aggregate",
            )
            .at(select.emit_place)),
            None => Ok(()),
        };
    };
    if purpose == Purpose::Watch {
        return Ok(());
    }
    match plan.flow.steps.iter().rfind(|step| step.is_changing()).and_then(|step| step.missing_key(changes)) {
        Some(missing) => {
            let message = format!("the results change, and the SELECT list does not have {missing}, which tells them apart");
            Err(SqlError::new(Code::BadDefinition, message).hint("add it to the SELECT list"))
        }
        None => Ok(()),
    }
}
