//! Recognises `GROUP BY .. window_start, window_end` over a window function, and makes it one node.
//!
//! Owns [`RecogniseWindows`], an analyzer rule behind DataFusion's type coercion, and the node
//! [`WindowAggregate`] it makes: `Aggregate(.. WindowTable)` becomes a window aggregate over the rows below the
//! window function, so that no row is ever copied into its windows. It runs before the optimizer, which would
//! split a DISTINCT aggregate in two. Always: the replacement has the columns of what it replaces.
//!
//! Two kinds of aggregates are put in other terms, so that results do not depend on how rows fell into batches and
//! never wrap: a sum of integers is taken in decimals, sums and averages of long decimals in longer ones, and cast back
//! (too large is then an error of its row), and `approx_percentile_cont` and `approx_median` are computed exactly.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result as DfResult, TableReference, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::functions_aggregate::median::median_udaf;
use datafusion::functions_aggregate::percentile_cont::percentile_cont_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, Extension, Filter, LogicalPlan, Projection, SubqueryAlias, UserDefinedLogicalNodeCore, cast,
};
use datafusion::optimizer::AnalyzerRule;

use super::expr::plain_text;
use super::grouping::{GROUPING_ID, Sets};
use super::windows::{Cut, WINDOW_END, WINDOW_START, WINDOW_TIME, WindowTable, event_time_type};

/// The name under which an event time is kept that the query itself did not keep.
const KEPT_TIME: &str = "__event_time";
/// The same for the columns that say whose a session is.
const KEPT_KEY: &str = "__session_key";

/// Aggregates per key and window: the keys, then the number of the grouping set where there are several, then `window_start`,
/// `window_end`, `window_time`, then the aggregates.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WindowAggregate {
    /// The rows, each once.
    pub input: LogicalPlan,
    /// Their event time, a column.
    pub time: Expr,
    /// How time is cut.
    pub cut: Cut,
    /// What is grouped by, apart from the window.
    pub keys: Vec<Expr>,
    /// Where rows are grouped by several sets of these: the sets, whose number is one key more.
    pub sets: Option<Sets>,
    /// The aggregate calls, without aliases.
    pub aggregates: Vec<Expr>,
    /// What the columns of the keys and of the aggregates are called.
    names: Vec<String>,
    schema: DFSchemaRef,
}

impl WindowAggregate {
    fn try_new(input: LogicalPlan, time: Expr, cut: Cut, by: Grouped, aggregates: Vec<Expr>, names: Vec<String>) -> DfResult<Self> {
        let Grouped { keys, sets } = by;
        let named = |name: &String, expr: &Expr| -> DfResult<(Option<TableReference>, Arc<Field>)> {
            let (_, field) = expr.to_field(input.schema())?;
            Ok((None, Arc::new(Field::new(name, field.data_type().clone(), field.is_nullable()))))
        };
        let (of_keys, of_aggregates) = names.split_at(keys.len());
        let mut fields = of_keys.iter().zip(&keys).map(|(name, key)| named(name, key)).collect::<DfResult<Vec<_>>>()?;
        if let Some(sets) = &sets {
            for (_, (_, field)) in fields.iter_mut().enumerate().filter(|(at, _)| !sets.always(*at)) {
                *field = Arc::new(field.as_ref().clone().with_nullable(true));
            }
            fields.push((None, Arc::new(Field::new(GROUPING_ID, sets.id.clone(), false))));
        }
        fields.extend([WINDOW_START, WINDOW_END, WINDOW_TIME].map(|name| (None, Arc::new(Field::new(name, event_time_type(), false)))));
        for (name, aggregate) in of_aggregates.iter().zip(&aggregates) {
            fields.push(named(name, aggregate)?);
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        Ok(Self { input, time, cut, keys, sets, aggregates, names, schema })
    }

    /// How many columns stand before those of the window: the keys, and the number of the set.
    #[must_use]
    pub fn key_columns(&self) -> usize {
        self.keys.len() + usize::from(self.sets.is_some())
    }

    /// What the columns of the aggregates are called.
    #[must_use]
    pub fn aggregate_names(&self) -> &[String] {
        &self.names[self.keys.len()..]
    }
}

/// Names for columns: each expression's text, made distinct where it must be.
fn column_names<'a>(exprs: impl Iterator<Item = &'a Expr>, schema: &DFSchema) -> Vec<String> {
    let mut taken: Vec<String> = [WINDOW_START, WINDOW_END, WINDOW_TIME].map(str::to_owned).into();
    for expr in exprs {
        let text = plain_text(expr, schema);
        let mut name = text.clone();
        for n in 2.. {
            if !taken.contains(&name) {
                break;
            }
            name = format!("{text} #{n}");
        }
        taken.push(name);
    }
    taken.split_off(3)
}

impl fmt::Debug for WindowAggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialOrd for WindowAggregate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for WindowAggregate {
    fn name(&self) -> &'static str {
        "WindowAggregate"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(&self.keys).chain(&self.aggregates).cloned().collect()
    }

    /// A condition on a key may go below, where it saves the most; the key columns are named otherwise there, so
    /// DataFusion must not move it by itself.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |exprs: &[Expr]| exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let sets = self.sets.as_ref().map_or_else(String::new, |sets| {
            let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
            format!(" in sets {}", sets.text(&keys))
        });
        write!(f, "WindowAggregate: {} of {} by [{}]{sets}: [{}]", self.cut, self.time, list(&self.keys), list(&self.aggregates))
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let aggregates = exprs.split_off(1 + self.keys.len());
        let keys = exprs.split_off(1);
        let by = Grouped { keys, sets: self.sets.clone() };
        Self::try_new(inputs.swap_remove(0), exprs.swap_remove(0), self.cut, by, aggregates, self.names.clone())
    }

    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        // All that is needed is in `expressions`.
        Some(vec![Vec::new()])
    }
}

/// What rows are grouped by, the window aside.
struct Grouped {
    keys: Vec<Expr>,
    sets: Option<Sets>,
}

/// The rule.
#[derive(Debug)]
pub struct RecogniseWindows;

impl AnalyzerRule for RecogniseWindows {
    fn name(&self) -> &'static str {
        "recognise_windows"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> DfResult<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Aggregate(aggregate) => match strip(&aggregate.input)? {
                Some(rows) => Ok(Transformed::yes(recognise(&aggregate, rows)?)),
                None => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
            },
            other => Ok(Transformed::no(other)),
        });
        Ok(plan?.data)
    }
}

/// A column that is a window's own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Start,
    End,
    Time,
}

impl Part {
    /// The part as an expression over a window aggregate.
    fn expr(self) -> Expr {
        Expr::Column(Column::new_unqualified(match self {
            Self::Start => WINDOW_START,
            Self::End => WINDOW_END,
            Self::Time => WINDOW_TIME,
        }))
    }
}

/// What lies between an aggregate and the window function below it, the window function taken out.
struct Stripped {
    plan: LogicalPlan,
    time: Column,
    cut: Cut,
    /// Whose sessions, where windows are sessions.
    keys: Vec<Column>,
    /// The columns that are the window's own, as they are called where we are.
    windows: Vec<(Column, Part)>,
    /// Conditions on the window alone: they come after the aggregate.
    lifted: Vec<Expr>,
}

impl Stripped {
    fn part(&self, column: &Column) -> Option<Part> {
        let same = |c: &Column| c.name == column.name && (column.relation.is_none() || c.relation == column.relation);
        self.windows.iter().find(|(c, _)| same(c)).map(|(_, part)| *part)
    }

    /// Whether sessions would be other ones if this condition came before them: it reads more than whose they are.
    fn is_moved_by(&self, condition: &Expr) -> bool {
        matches!(self.cut, Cut::Session { .. }) && !condition.column_refs().iter().all(|c| self.keys.contains(c))
    }

    /// How many of the columns an expression reads are the window's own, and how many are not.
    fn reads(&self, expr: &Expr) -> (usize, usize) {
        let refs = expr.column_refs();
        let own = refs.iter().filter(|c| self.part(c).is_some()).count();
        (own, refs.len() - own)
    }
}

/// Takes out the window function under filters, projections and aliases; `None` where there is none.
fn strip(plan: &LogicalPlan) -> DfResult<Option<Stripped>> {
    match plan {
        LogicalPlan::Extension(Extension { node }) => {
            let Some(window) = node.as_any().downcast_ref::<WindowTable>() else { return Ok(None) };
            let Expr::Column(time) = &window.time else { return plan_err!("the time of a window is a column") };
            let own = [(WINDOW_START, Part::Start), (WINDOW_END, Part::End), (WINDOW_TIME, Part::Time)];
            Ok(Some(Stripped {
                plan: window.input.clone(),
                time: time.clone(),
                cut: window.cut,
                keys: window.keys.iter().map(session_key).collect::<DfResult<_>>()?,
                windows: own.map(|(name, part)| (Column::new_unqualified(name), part)).into(),
                lifted: Vec::new(),
            }))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(mut below) = strip(&alias.input)? else { return Ok(None) };
            below.plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(below.plan), alias.alias.clone())?);
            below.time.relation = Some(alias.alias.clone());
            for key in &mut below.keys {
                key.relation = Some(alias.alias.clone());
            }
            for (column, _) in &mut below.windows {
                column.relation = Some(alias.alias.clone());
            }
            Ok(Some(below))
        }
        LogicalPlan::Filter(filter) => {
            let Some(mut below) = strip(&filter.input)? else { return Ok(None) };
            let mut kept = Vec::new();
            for condition in split_conjunction_owned(filter.predicate.clone()) {
                match below.reads(&condition) {
                    (0, _) if below.is_moved_by(&condition) => {
                        return plan_err!(
                            "the condition {} stands behind the sessions, which are made of all rows: filter the rows in the table of SESSION, as in SESSION(TABLE (SELECT * FROM s WHERE ..) PARTITION BY .., ..)",
                            condition.human_display()
                        );
                    }
                    (0, _) => kept.push(condition),
                    (_, 0) => below.lifted.push(in_window_terms(&below, condition)?),
                    _ => {
                        return plan_err!(
                            "the condition {} mixes columns of the window with columns of the row: compare the window's in HAVING, or in a subquery around the GROUP BY",
                            condition.human_display()
                        );
                    }
                }
            }
            if let Some(predicate) = conjunction(kept) {
                below.plan = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(below.plan))?);
            }
            Ok(Some(below))
        }
        LogicalPlan::Projection(projection) => {
            let Some(below) = strip(&projection.input)? else { return Ok(None) };
            strip_projection(projection, below).map(Some)
        }
        _ => Ok(None),
    }
}

fn strip_projection(projection: &Projection, below: Stripped) -> DfResult<Stripped> {
    let (mut exprs, mut windows, mut time) = (Vec::new(), Vec::new(), None);
    for (expr, (qualifier, field)) in projection.expr.iter().zip(projection.schema.iter()) {
        let name = Column::new(qualifier.cloned(), field.name());
        match bare_column(expr) {
            Some(column) if below.part(column).is_some() => {
                windows.extend(below.part(column).map(|part| (name, part)));
                continue;
            }
            Some(column) if *column == below.time => time = Some(name),
            _ if below.reads(expr).0 > 0 => return not_before_grouping(expr),
            _ => {}
        }
        exprs.push(expr.clone());
    }
    let mut keys = Vec::with_capacity(below.keys.len());
    for key in &below.keys {
        let shown = projection.expr.iter().zip(projection.schema.iter()).find(|(expr, _)| bare_column(expr) == Some(key));
        keys.push(match shown {
            Some((_, (qualifier, field))) => Column::new(qualifier.cloned(), field.name()),
            None => {
                let name = format!("{KEPT_KEY}{}", keys.len());
                exprs.push(Expr::Column(key.clone()).alias(name.clone()));
                Column::new_unqualified(name)
            }
        });
    }
    let time = time.unwrap_or_else(|| {
        exprs.push(Expr::Column(below.time.clone()).alias(KEPT_TIME));
        Column::new_unqualified(KEPT_TIME)
    });
    let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(below.plan))?);
    Ok(Stripped { plan, time, cut: below.cut, keys, windows, lifted: below.lifted })
}

fn session_key(expr: &Expr) -> DfResult<Column> {
    match expr {
        Expr::Column(column) => Ok(column.clone()),
        other => plan_err!("PARTITION BY in SESSION takes columns, and {other} is none"),
    }
}

fn bare_column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => bare_column(&alias.expr),
        _ => None,
    }
}

fn not_before_grouping<T>(expr: &Expr) -> DfResult<T> {
    plan_err!(
        "{} reads a column of the window before the GROUP BY: group by window_start and window_end themselves, and compute with them in the SELECT list",
        expr.human_display()
    )
}

/// A condition on window columns, over the columns of the window aggregate.
fn in_window_terms(below: &Stripped, condition: Expr) -> DfResult<Expr> {
    let condition = condition.transform_up(|expr| match &expr {
        Expr::Column(column) => match below.part(column) {
            Some(part) => Ok(Transformed::yes(part.expr())),
            None => Ok(Transformed::no(expr)),
        },
        _ => Ok(Transformed::no(expr)),
    });
    Ok(condition?.data)
}

/// What stands for one column of the aggregate that is replaced.
enum Output {
    Window(Part),
    Key(usize),
    /// The number of the set.
    Set,
    Call(usize, Option<DataType>),
}

fn recognise(aggregate: &Aggregate, rows: Stripped) -> DfResult<LogicalPlan> {
    let (mut keys, mut calls, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
    let (groups, sets) = Sets::of(aggregate)?;
    let mut places = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        match bare_column(group).and_then(|column| rows.part(column)) {
            Some(_) if sets.as_ref().is_some_and(|sets| !sets.always(at)) => {
                return plan_err!(
                    "a set of the GROUP BY leaves out {}: GROUPING SETS, ROLLUP and CUBE group by the window in every set, as in GROUP BY window_start, window_end, ROLLUP (a, b)",
                    group.human_display()
                );
            }
            Some(part) => outputs.push(Output::Window(part)),
            None if rows.reads(group).0 > 0 => return not_before_grouping(group),
            None => {
                outputs.push(Output::Key(keys.len()));
                places.push(at);
                keys.push(group.clone().unalias());
            }
        }
    }
    let sets = sets.map(|sets| sets.over(&places));
    outputs.extend(sets.is_some().then_some(Output::Set));
    if !outputs.iter().any(|output| matches!(output, Output::Window(_))) {
        return plan_err!(
            "a GROUP BY over a window groups by window_start or window_end too: add window_start, window_end to the GROUP BY"
        );
    }
    if let Cut::Session { .. } = rows.cut {
        if sets.is_some() {
            return plan_err!(
                "GROUPING SETS, ROLLUP and CUBE of SESSION windows are not supported: each key has sessions of its own, so write one query for each set"
            );
        }
        let grouped = |key: &Column| keys.iter().any(|group| bare_column(group) == Some(key));
        let known = |group: &Expr| bare_column(group).is_some_and(|column| rows.keys.contains(column));
        if !rows.keys.iter().all(grouped) || !keys.iter().all(known) {
            let named = |columns: &[String]| if columns.is_empty() { "nothing".to_owned() } else { columns.join(", ") };
            return plan_err!(
                "the sessions are by {} and the GROUP BY by {}: PARTITION BY in SESSION and GROUP BY name the same columns, window_start and window_end aside",
                named(&rows.keys.iter().map(|key| key.name.clone()).collect::<Vec<_>>()),
                named(&keys.iter().map(|key| key.human_display().to_string()).collect::<Vec<_>>())
            );
        }
    }
    for call in &aggregate.aggr_expr {
        if rows.reads(call).0 > 0 {
            return not_before_grouping(call);
        }
        let (call, back) = in_exact_terms(call.clone().unalias(), rows.plan.schema())?;
        outputs.push(Output::Call(calls.len(), back));
        calls.push(call);
    }
    let written = aggregate.aggr_expr.iter().map(|call| call.clone().unalias()).collect::<Vec<_>>();
    let names = column_names(keys.iter().chain(&written), rows.plan.schema());
    let width = keys.len();
    let column = |i: usize| Expr::Column(Column::new_unqualified(&names[i]));
    let exprs: Vec<Expr> = outputs
        .into_iter()
        .map(|output| match output {
            Output::Window(part) => part.expr(),
            Output::Key(i) => column(i),
            Output::Set => Expr::Column(Column::new_unqualified(GROUPING_ID)),
            Output::Call(i, None) => column(width + i),
            Output::Call(i, Some(back)) => cast(column(width + i), back),
        })
        .collect();
    let node = WindowAggregate::try_new(rows.plan, Expr::Column(rows.time), rows.cut, Grouped { keys, sets }, calls, names)?;
    let mut plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    if let Some(predicate) = conjunction(rows.lifted) {
        plan = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?);
    }
    let named = exprs.into_iter().zip(aggregate.schema.iter()).map(|(expr, (q, f))| expr.alias_qualified(q.cloned(), f.name()));
    Ok(LogicalPlan::Projection(Projection::try_new(named.collect(), Arc::new(plan))?))
}

/// Decimals of so many digits have room for the ten more that a sum has, and the four of an average.
const DIGITS_WITH_ROOM: u8 = 28;

/// The call in terms that are exact, and what its value is then cast back to.
pub(super) fn in_exact_terms(call: Expr, schema: &DFSchema) -> DfResult<(Expr, Option<DataType>)> {
    let promised = call.get_type(schema)?;
    let Expr::AggregateFunction(AggregateFunction { func, mut params }) = call else { return Ok((call, None)) };
    let func = match func.name() {
        "sum" if params.args.first().map(|a| a.get_type(schema)).transpose()?.is_some_and(|t| t.is_integer()) => {
            let argument = params.args.swap_remove(0);
            params.args = vec![cast(argument, DataType::Decimal128(20, 0))];
            func
        }
        // The result has more digits than a value, and 38 at most: a sum would pass over what does not fit, an average end the query.
        "sum" | "avg" => {
            if let Some(DataType::Decimal128(digits, scale)) = params.args.first().map(|a| a.get_type(schema)).transpose()?
                && digits > DIGITS_WITH_ROOM
            {
                let argument = params.args.swap_remove(0);
                params.args = vec![cast(argument, DataType::Decimal256(digits, scale))];
            }
            func
        }
        "approx_median" => median_udaf(),
        "approx_percentile_cont" => {
            params.args.truncate(2);
            percentile_cont_udaf()
        }
        _ => func,
    };
    let exact = Expr::AggregateFunction(AggregateFunction { func, params });
    let back = (exact.get_type(schema)? != promised).then_some(promised);
    Ok((exact, back))
}
