//! From an optimized logical plan to steps: one branch a node, everything else refused by the name of its clause.
//!
//! Owns [`Walk`], which keeps beside the steps where their columns come from (`lineage`). Always: the steps' last schema
//! is the plan's. Called by `lower`'s `plan` and by `batch`.

use std::cell::Cell;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::logical_expr::expr::{NullTreatment, Sort, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{
    Expr as LogicalExpr, ExprSchemable, Extension, Filter, LogicalPlan, Projection, TableScan, UserDefinedLogicalNodeCore, Window,
    WindowFrame, WindowFrameBound, WindowFrameUnits, cast,
};

use super::PlanInput;
use super::flow::{Fork, is_stateful};
use super::frames::{Family, expiry, family, is_row_number, wanted};
use super::lineage::{Lineage, column_of, leave_at, lineage_of, window_lineage};
use super::source::{Source, Sources};
use super::step::{Life, Step, StepSets};
use super::update::{How, changing_places, changing_windows};
use crate::sql::analyze::WindowAggregate;
use crate::sql::asof::AsOfJoin;
use crate::sql::error::{Code, SqlError};
use crate::sql::expr::{Exprs, PlannedExpr, plain_text};
use crate::sql::fold::{PlannedFold, PlannedKeys};
use crate::sql::functions::stateful::{self, Argument};
use crate::sql::grouping::Sets;
use crate::sql::pattern::PatternTable;
use crate::sql::session::Session;
use crate::sql::types::sql_type;
use crate::sql::windows::{ABSENT, AbsentTable, Cut, Fill, GapTable, WINDOW_END, WINDOW_START, WindowTable, interval_millis};
use crate::stream::{ExpandColumn, Expr, FoldFactory, GapColumn, GroupEmit, KeyedFunction, KeysFactory};

/// `held_for`'s gap where a query does not say.
const DEFAULT_MAX_GAP_MS: i64 = 30_000;

/// What has been lowered so far.
pub(super) struct Chain {
    /// The stream whose event time the rows have, or the first one.
    pub source: Source,
    /// The join that the steps stand behind.
    pub fork: Option<Arc<Fork>>,
    pub steps: Vec<Step>,
    pub columns: Vec<Lineage>,
    /// Every step with state goes by keys of which one places the stream's rows, so a partition can be worked alone.
    pub local: bool,
    /// How many partitions its sources have.
    pub partitions: i32,
    /// What is read, from left to right.
    pub inputs: Vec<PlanInput>,
}

/// Walks plans of one session.
pub(super) struct Walk<'a> {
    pub session: &'a Session,
    pub sources: &'a dyn Sources,
    /// Whether the query asks for the column `absent`, and so for returns beside silences.
    pub returns: bool,
    /// What the query says of when its rows come.
    pub how: How,
    /// Whether nothing but conditions and columns stands above the node that is lowered next.
    pub top: Cell<bool>,
    /// Whether nothing but these stands between it and a group that is told as it changes.
    pub grouped: Cell<bool>,
}

pub(super) type Lowered = Result<Chain, SqlError>;

/// A value, how many rows away, and its default.
type Neighbour = (Arc<dyn Expr>, usize, Option<Arc<dyn Expr>>);

impl Walk<'_> {
    /// Lowers a plan.
    pub(super) fn lower(&self, plan: &LogicalPlan) -> Lowered {
        let passes = matches!(plan, LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) | LogicalPlan::Projection(_));
        let is_top = self.top.replace(false);
        self.top.set(is_top && passes);
        let is_grouped = self.grouped.replace(false);
        self.grouped.set(is_grouped && passes);
        let may_change = is_top || is_grouped;
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input),
            LogicalPlan::Aggregate(aggregate) if !self.how.is_history => self.update(aggregate, is_top, may_change),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Projection(projection) => self.project(projection),
            LogicalPlan::Window(window) => self.over(window, may_change),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Extension(Extension { node }) => {
                let node = node.as_any();
                if let Some(aggregate) = node.downcast_ref::<WindowAggregate>() {
                    self.aggregate(aggregate, is_top)
                } else if let Some(table) = node.downcast_ref::<WindowTable>() {
                    self.expand(table)
                } else if let Some(table) = node.downcast_ref::<AbsentTable>() {
                    self.absent(table)
                } else if let Some(table) = node.downcast_ref::<GapTable>() {
                    self.gaps(table)
                } else if let Some(join) = node.downcast_ref::<AsOfJoin>() {
                    self.as_of(join)
                } else if let Some(table) = node.downcast_ref::<PatternTable>() {
                    self.pattern(table)
                } else {
                    Err(refused("this clause", "leave it out"))
                }
            }
            other => Err(refuse(other)),
        }
    }

    fn scan(&self, scan: &TableScan) -> Lowered {
        let chain = self.scan_any(scan)?;
        if chain.source.is_table {
            return Err(refused(
                &format!("reading the table \"{}\" as a stream", chain.source.name),
                "join it as it was: s JOIN t FOR SYSTEM_TIME AS OF s.ts AS t ON ..; a table alone can be read over stored data",
            ));
        }
        Ok(chain)
    }

    /// The same of a stream or a table.
    pub(super) fn scan_any(&self, scan: &TableScan) -> Lowered {
        let name = scan.table_name.table();
        let source = self.sources.source(name).ok_or_else(|| SqlError::no_such("stream", name, []))?;
        if scan.fetch.is_some() {
            return Err(refused("LIMIT", "leave it out: a stream has no end"));
        }
        let shape = source.shape()?;
        let indexes: Vec<usize> = match &scan.projection {
            Some(indexes) => indexes.clone(),
            None => (0..shape.schema.fields().len()).collect(),
        };
        let (columns, as_is) = shape.columns(&indexes, &source.decoded);
        let lineage = |i: &usize| {
            let (time, key) = (shape.time == Some(*i), shape.key == Some(*i));
            let at_time = time.then_some(0);
            Lineage { time, behind_ms: at_time, until: at_time, placed: key, key, ..Lineage::default() }
        };
        let lineage = indexes.iter().map(lineage).collect();
        let reads = indexes.iter().map(|i| shape.schema.field(*i).name().clone()).collect();
        let (time, partitions) = (shape.rule, source.partitions);
        let input = PlanInput { stream: source.name.clone(), time, reads, is_whole: false };
        let mut chain = Chain { source, fork: None, steps: Vec::new(), columns: lineage, local: true, partitions, inputs: vec![input] };
        if !as_is {
            let schema = Arc::clone(scan.projected_schema.inner());
            chain.steps.push(Step::Map { filter: None, columns: Some(columns), schema });
        }
        if let Some(filter) = scan.filters.first() {
            return Err(SqlError::new(Code::Internal, format!("a condition was left at the stream: {filter}")));
        }
        Ok(chain)
    }

    pub(super) fn expr(&self, expr: &LogicalExpr, schema: &DFSchemaRef) -> Result<Arc<dyn Expr>, SqlError> {
        Ok(PlannedExpr::plan(self.session, expr, schema)?)
    }

    fn filter(&self, filter: &Filter) -> Lowered {
        let mut chain = self.lower(&filter.input)?;
        let schema = filter.input.schema();
        let condition = self.expr(&filter.predicate, schema)?;
        // Only the first rows of a ranking are kept where no others are wanted.
        if let Some(limit) = wanted(&filter.predicate, &|expr| lineage_of(expr, schema, &chain.columns).rank) {
            let last = chain.steps.iter_mut().rev().find(|step| step.is_stateful());
            if let Some(Step::Rank { limit: known, .. } | Step::Top { limit: known, .. }) = last {
                *known = Some(known.map_or(limit, |known| known.min(limit)));
            }
        }
        chain.steps.push(Step::Map { filter: Some(condition), columns: None, schema: Arc::clone(schema.inner()) });
        Ok(chain)
    }

    fn project(&self, projection: &Projection) -> Lowered {
        let chain = self.lower(&projection.input)?;
        self.project_over(projection, chain)
    }

    /// Columns over what is lowered already.
    pub(super) fn project_over(&self, projection: &Projection, mut chain: Chain) -> Lowered {
        let input = projection.input.schema();
        let columns = projection.expr.iter().map(|e| self.expr(e, input)).collect::<Result<Vec<_>, _>>()?;
        let lineage = |e| self.mark_of_set(e, input, &mut chain).unwrap_or_else(|| lineage_of(e, input, &chain.columns));
        chain.columns = projection.expr.iter().map(lineage).collect();
        let schema = Arc::clone(projection.schema.inner());
        // A condition and the columns behind it are one operator.
        if let Some(Step::Map { columns: none @ None, schema: old, .. }) = chain.steps.last_mut() {
            *none = Some(columns);
            *old = schema;
        } else {
            chain.steps.push(Step::Map { filter: None, columns: Some(columns), schema });
        }
        Ok(chain)
    }

    /// A window's or a silence's column must be the time that the rows carry.
    pub(super) fn check_time(&self, time: &LogicalExpr, schema: &DFSchemaRef, chain: &Chain) -> Result<(), SqlError> {
        if lineage_of(time, schema, &chain.columns).time {
            return Ok(());
        }
        let shown = time.human_display().to_string();
        let name = shown.rsplit('.').next().unwrap_or(&shown);
        let error = SqlError::new(Code::NotOnAStream, format!("\"{name}\" is not the event time of \"{}\"", chain.source.name));
        Err(match &chain.source.time {
            Some(time) if time == name => error.hint(
                "its rows carry another time by then: behind a join the left side's, behind a ranking that of the window in its PARTITION BY",
            ),
            Some(time) => error.hint(format!("take \"{time}\", or a window's window_start, window_end or window_time")),
            None => error.hint("declare one: WATERMARK FOR ts AS ts - INTERVAL '5' SECOND"),
        })
    }

    /// Notes that a step with state goes by these keys.
    pub(super) fn keyed_by(chain: &mut Chain, keys: &[LogicalExpr], schema: &DFSchemaRef) {
        let placed = keys.iter().any(|key| lineage_of(key, schema, &chain.columns).placed);
        chain.local &= placed;
    }

    fn aggregate(&self, node: &WindowAggregate, is_top: bool) -> Lowered {
        let mut chain = self.lower(&node.input)?;
        let input = node.input.schema();
        self.check_time(&node.time, input, &chain)?;
        Self::keyed_by(&mut chain, &always(&node.keys, node.sets.as_ref()), input);
        let schema = node_schema(node);
        let mut exprs = Exprs::default();
        let keys = node.keys.iter().map(|key| exprs.plan(self.session, key, input)).collect::<Result<Vec<_>, _>>()?;
        let keys_factory: Option<Arc<dyn KeysFactory>> = if node.key_columns() == 0 {
            None
        } else {
            Some(Arc::new(PlannedKeys::new(schema.fields().iter().take(node.key_columns()).cloned().collect())?))
        };
        let sets = node.sets.as_ref().map(|sets| step_sets(sets, &node.keys, input)).transpose()?;
        let mut folds: Vec<Arc<dyn FoldFactory>> = Vec::with_capacity(node.aggregates.len());
        for (aggregate, name) in node.aggregates.iter().zip(node.aggregate_names()) {
            folds.push(Arc::new(PlannedFold::plan(self.session, aggregate, name, input, &mut exprs)?));
        }
        let mut lineage: Vec<Lineage> = Vec::with_capacity(schema.fields().len());
        // A key that does not count in every set places no row, and is no part of what a stream promises of its key.
        let counts = |at: usize| node.sets.as_ref().is_none_or(|sets| sets.always(at));
        let group = |(at, key): (usize, &LogicalExpr)| {
            let of = if counts(at) { lineage_of(key, input, &chain.columns).as_group() } else { Lineage::default() };
            Lineage { group: counts(at).then_some(at), ..of }
        };
        lineage.extend(node.keys.iter().enumerate().map(group));
        lineage.extend(node.sets.as_ref().map(|_| Lineage::default()));
        // The rows' time is the window's last millisecond, and they lie in no window any more.
        lineage.extend(window_lineage(node.cut).map(|window| Lineage { time: true, span_ms: None, ..window }));
        lineage.resize(schema.fields().len(), Lineage::default());
        if is_top && let Some((emit, grace_ms)) = self.how.changes_windows() {
            if let Cut::Session { .. } = node.cut {
                let clause = if emit == GroupEmit::OnUpdate { "EMIT ON UPDATE" } else { "WITH GRACE" };
                let refused = refused(&format!("{clause} of SESSION windows"), "write EMIT ON WINDOW CLOSE: a session is known at its end");
                return Err(refused.at(self.how.emit_place));
            }
            if grace_ms > 0 && is_stateful(chain.fork.as_deref(), &chain.steps) {
                return Err(refused(
                    "WITH GRACE of windows over rows that another clause has waited for (a window, a join, OVER, ..)",
                    "leave it out: what is late was late for that clause, and does not come so far",
                )
                .at(self.how.emit_place));
            }
            chain.columns = changing_windows(node.key_columns(), node.cut, &lineage);
            chain.steps.push(Step::Update { life: Life::Window(node.cut, grace_ms), emit, keys, sets, folds, schema });
            return Ok(chain);
        }
        chain.columns = lineage;
        chain.steps.push(Step::Window { cut: node.cut, keys, sets, keys_factory, folds, schema });
        Ok(chain)
    }

    fn expand(&self, table: &WindowTable) -> Lowered {
        if matches!(table.cut, Cut::Session { .. }) {
            return Err(refused(
                "SESSION without GROUP BY window_start, window_end",
                "aggregate each session: GROUP BY its keys, window_start, window_end",
            ));
        }
        let mut chain = self.lower(&table.input)?;
        self.check_time(&table.time, table.input.schema(), &chain)?;
        let own = [ExpandColumn::WindowStart, ExpandColumn::WindowEnd, ExpandColumn::WindowTime];
        let columns = table.shown().iter().map(|i| ExpandColumn::Input(*i)).chain(own).collect();
        let shown = table.shown().iter().map(|i| chain.columns[*i]);
        // The rows keep their own time: a window's columns are no event time here.
        chain.columns = shown.chain(window_lineage(table.cut)).collect();
        chain.steps.push(Step::Expand { cut: table.cut, columns, schema: Arc::clone(UserDefinedLogicalNodeCore::schema(table).inner()) });
        Ok(chain)
    }

    fn absent(&self, table: &AbsentTable) -> Lowered {
        let mut chain = self.lower(&table.input)?;
        let input = table.input.schema();
        self.check_time(&table.time, input, &chain)?;
        Self::keyed_by(&mut chain, &table.keys, input);
        let keys = table.keys.iter().map(|key| self.expr(key, input)).collect::<Result<Vec<_>, _>>()?;
        let mut lineage: Vec<Lineage> = table.keys.iter().map(|key| lineage_of(key, input, &chain.columns).as_group()).collect();
        // A return is told when it is heard of, which may be behind the time at which it was.
        let exact = (!self.returns).then_some(0);
        let since = Lineage { time: true, behind_ms: exact, until: exact, ..Lineage::default() };
        lineage.extend([Lineage::default(), since, Lineage::default()]);
        chain.columns = lineage;
        let schema = Arc::clone(UserDefinedLogicalNodeCore::schema(table).inner());
        chain.steps.push(Step::Absent { keys, after_ms: table.after, returns: self.returns, schema });
        Ok(chain)
    }

    fn gaps(&self, table: &GapTable) -> Lowered {
        let mut chain = self.lower(&table.input)?;
        let input = table.input.schema();
        self.check_time(&table.time, input, &chain)?;
        Self::keyed_by(&mut chain, &table.keys, input);
        let place = |expr: &LogicalExpr| column_of(expr, input);
        let time = place(&table.time);
        let column = |at: usize| {
            let fill = table.fills.iter().find(|(_, expr)| place(expr) == Some(at)).map(|(fill, _)| *fill);
            if time == Some(at) {
                GapColumn::Time
            } else if table.keys.iter().any(|key| place(key) == Some(at)) {
                GapColumn::Key
            } else {
                fill.map_or(GapColumn::Null, |fill| if fill == Fill::Locf { GapColumn::Locf } else { GapColumn::Interpolate })
            }
        };
        let columns: Vec<GapColumn> = (0..chain.columns.len()).map(column).collect();
        for (lineage, column) in chain.columns.iter_mut().zip(&columns) {
            lineage.key = *column == GapColumn::Key;
            if !matches!(column, GapColumn::Key | GapColumn::Time) {
                *lineage = Lineage::default();
            }
        }
        let schema = Arc::clone(UserDefinedLogicalNodeCore::schema(table).inner());
        chain.steps.push(Step::Gaps { columns, every_ms: table.every, schema });
        Ok(chain)
    }

    fn over(&self, window: &Window, may_change: bool) -> Lowered {
        let mut chain = self.lower(&window.input)?;
        let input = window.input.schema();
        let calls = window.window_expr.iter().map(window_call).collect::<Result<Vec<_>, _>>()?;
        let width = input.fields().len();
        let mut from = 0;
        while from < calls.len() {
            let params = &calls[from].params;
            let kind = family(calls[from]);
            let same = |call: &&&WindowFunction| {
                let ordered = call.params.partition_by == params.partition_by && call.params.order_by == params.order_by;
                ordered && family(call) == kind
            };
            let ranked =
                is_row_number(calls[from]) && !params.order_by.is_empty() && self.check_order(&params.order_by, input, &chain).is_err();
            let run = if ranked { 1 } else { calls[from..].iter().take_while(same).count() };
            if !ranked {
                self.check_order(&params.order_by, input, &chain)?;
            }
            Self::keyed_by(&mut chain, &params.partition_by, input);
            for (i, column) in chain.columns.iter_mut().enumerate() {
                column.key = params.partition_by.iter().any(|key| column_of(key, input) == Some(i));
            }
            let keys = params.partition_by.iter().map(|key| self.expr(key, input)).collect::<Result<Vec<_>, _>>()?;
            let run_calls = &calls[from..from + run];
            let fields: Vec<_> = window.schema.fields().iter().take(width + from + run).cloned().collect();
            let schema = Arc::new(Schema::new(fields));
            let names = || run_calls.iter().map(|call| call_text(call, input)).collect();
            if ranked && calls.len() == 1 && may_change && self.changes(&params.partition_by, input, &chain) {
                let order = self.rank_order(&params.order_by, input)?;
                let ttl_ms = self.ttl_of(&params.partition_by, &[], input, &chain)?;
                chain.columns = changing_places(&params.partition_by, input, &chain.columns);
                let key_columns = params.partition_by.iter().map(|key| column_of(key, input)).collect();
                chain.steps.push(Step::Top { keys, key_columns, order, limit: None, ttl_ms, schema });
                return Ok(chain);
            }
            if ranked {
                let (order, expiry) = self.rank(calls[from], input, &chain.columns)?;
                let end = column_of(&params.partition_by[expiry.key], input);
                chain.steps.push(Step::Rank { keys, order, expiry, limit: None, schema });
                leave_at(&mut chain.columns, end, expiry.plus_ms);
                chain.columns.push(Lineage { rank: true, ..Lineage::default() });
                from += 1;
                continue;
            }
            chain.steps.push(match kind {
                Family::Frame => {
                    let mut exprs = Exprs::default();
                    let calls = run_calls.iter().map(|call| self.over_call(call, input, &mut exprs)).collect::<Result<Vec<_>, _>>()?;
                    let expiry = expiry(&params.partition_by, input, &chain.columns);
                    let is_endless = expiry.is_none() && calls.iter().any(|call| call.frame().is_endless());
                    let ttl_ms = if is_endless { self.ttl_of(&params.partition_by, &[], input, &chain)? } else { None };
                    Step::Over { keys, calls, expiry, ttl_ms, schema }
                }
                Family::AheadInTime | Family::AheadInRows => {
                    let mut exprs = Exprs::default();
                    let calls = run_calls.iter().map(|call| self.over_call(call, input, &mut exprs)).collect::<Result<Vec<_>, _>>()?;
                    Step::Ahead { keys, calls, schema }
                }
                Family::Lead => {
                    let calls = run_calls.iter().map(|call| self.lead_call(call, input)).collect::<Result<Vec<_>, _>>()?;
                    Step::Lead { keys, calls, names: names(), schema }
                }
                Family::Keyed => {
                    let functions = run_calls.iter().map(|call| self.keyed_function(call, input)).collect::<Result<Vec<_>, _>>()?;
                    Step::Keyed { keys, functions, names: names(), schema }
                }
            });
            chain.columns.extend(std::iter::repeat_n(Lineage::default(), run));
            from += run;
        }
        Ok(chain)
    }

    fn check_order(&self, order: &[Sort], input: &DFSchemaRef, chain: &Chain) -> Result<(), SqlError> {
        match order {
            [Sort { expr, asc: true, .. }] => self.check_time(expr, input, chain),
            [] => Err(refused("OVER without ORDER BY", "ORDER BY the event time, as in OVER (PARTITION BY patient_id ORDER BY ts)")),
            [_] => Err(refused("OVER (.. ORDER BY .. DESC)", "order by the event time, ascending: a stream knows no later rows")),
            _ => Err(refused("OVER with more than one ORDER BY column", "order by the event time alone")),
        }
    }

    /// A function that looks at neighbours, or has a memory of its own, has no frame.
    pub(super) fn check_frameless(&self, call: &WindowFunction) -> Result<(), SqlError> {
        let WindowFunctionParams { window_frame, filter, null_treatment, distinct, .. } = &call.params;
        let name = call.fun.name();
        if filter.is_some() || *distinct {
            return Err(refused(&format!("FILTER or DISTINCT in {name}(..) OVER"), "filter in a subquery below"));
        }
        if null_treatment.is_some_and(|t| t == NullTreatment::IgnoreNulls) {
            return Err(refused(&format!("IGNORE NULLS in {name}(..)"), "filter the NULLs out in a subquery below, or use locf"));
        }
        if !is_default_frame(window_frame) {
            return Err(refused(&format!("a window frame (ROWS or RANGE) with {name}"), "leave the frame out"));
        }
        Ok(())
    }

    fn keyed_function(&self, call: &WindowFunction, input: &DFSchemaRef) -> Result<KeyedFunction, SqlError> {
        self.check_frameless(call)?;
        let (name, args) = (call.fun.name(), &call.params.args);
        if name == "lag" {
            let (value, n, default) = self.neighbour(name, args, input)?;
            return Ok(KeyedFunction::Lag { value, n, default });
        }
        let Some(function) = stateful::find(name) else {
            return Err(refused(&format!("{name}(..) OVER"), "it would need rows that have not come, or all that ever came")
                .note("over a stream: lag, lead, held_for, hysteresis, locf, twa_below, rate_of_change"));
        };
        if args.len() < function.required || args.len() > function.arguments.len() {
            return Err(
                SqlError::new(Code::BadDefinition, format!("{name} takes other arguments")).hint(format!("write {}", function.usage))
            );
        }
        let given = args[0].get_type(input.as_ref())?;
        let fits = match function.arguments[0] {
            Argument::Condition => matches!(given, DataType::Boolean | DataType::Null),
            Argument::Number => given.is_numeric() || given.is_null(),
            _ => true,
        };
        if !fits {
            let error = SqlError::new(Code::TypeMismatch, format!("{name} does not take {} there", sql_type(&given)));
            return Err(error.hint(format!("write {}", function.usage)));
        }
        let value = self.expr(&args[0], input)?;
        let constant = |at: usize| -> Result<Option<i64>, SqlError> {
            match args.get(at) {
                None => Ok(None),
                Some(arg) => length(arg).map(Some).ok_or_else(|| argument_error(function, at)),
            }
        };
        let number = |at: usize| args.get(at).and_then(as_number).ok_or_else(|| argument_error(function, at));
        let needed = |at: usize| constant(at)?.ok_or_else(|| argument_error(function, at));
        Ok(match name {
            "held_for" => {
                KeyedFunction::HeldFor { condition: value, interval_ms: needed(1)?, max_gap_ms: constant(2)?.unwrap_or(DEFAULT_MAX_GAP_MS) }
            }
            "hysteresis" => KeyedFunction::Hysteresis { value, enter: number(1)?, exit: number(2)? },
            "locf" => KeyedFunction::Locf { value, ttl_ms: needed(1)? },
            "twa_below" => KeyedFunction::TwaBelow { value, limit: number(1)?, max_gap_ms: needed(2)? },
            _ => KeyedFunction::RateOfChange { value, interval_ms: needed(1)? },
        })
    }

    /// The arguments of LAG and LEAD: a value, how many rows away, and what is in place of a row that is not there.
    pub(super) fn neighbour(&self, name: &str, args: &[LogicalExpr], input: &DFSchemaRef) -> Result<Neighbour, SqlError> {
        let usage = || {
            SqlError::new(Code::BadDefinition, format!("{name} takes a value, a constant count and a default"))
                .hint(format!("write {name}(value), {name}(value, 2) or {name}(value, 1, 0.0)"))
        };
        let value = args.first().ok_or_else(usage)?;
        let n = match args.get(1) {
            None => 1,
            Some(n) => as_number(n).filter(|n| *n >= 1.0 && *n <= 10_000.0 && n.fract() == 0.0).ok_or_else(usage)? as usize,
        };
        let default = match args.get(2) {
            None => None,
            Some(LogicalExpr::Literal(value, _)) if value.is_null() => None,
            Some(default) => {
                let to = value.get_type(input.as_ref())?;
                Some(self.expr(&cast(default.clone(), to), input)?)
            }
        };
        Ok((self.expr(value, input)?, n, default))
    }
}

/// The keys that count in every set, in their places; in the others stands what is no column.
pub(super) fn always(keys: &[LogicalExpr], sets: Option<&Sets>) -> Vec<LogicalExpr> {
    let nothing = || LogicalExpr::Literal(ScalarValue::Null, None);
    let counts = |at: usize| sets.is_none_or(|sets| sets.always(at));
    keys.iter().enumerate().map(|(at, key)| if counts(at) { key.clone() } else { nothing() }).collect()
}

/// The sets as a step has them, over rows of these columns.
pub(super) fn step_sets(sets: &Sets, keys: &[LogicalExpr], input: &DFSchemaRef) -> Result<StepSets, SqlError> {
    let mut is_needed = sets.repeats();
    for (at, key) in keys.iter().enumerate() {
        is_needed |= !sets.always(at) && key.nullable(input.as_ref())?;
    }
    Ok(StepSets { sets: sets.clone(), width: input.fields().len(), is_needed, marks: Vec::new() })
}

fn node_schema(node: &WindowAggregate) -> SchemaRef {
    let schema = Arc::clone(UserDefinedLogicalNodeCore::schema(node).inner());
    debug_assert!(schema.column_with_name(WINDOW_START).is_some() && schema.column_with_name(WINDOW_END).is_some());
    schema
}

/// Whether anything in a plan reads the column `absent` of a silence, or hands it on.
pub(super) fn reads_absent(plan: &LogicalPlan) -> Result<bool, SqlError> {
    let mut found = plan.schema().fields().iter().any(|field| field.name() == ABSENT);
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            found |= expr.column_refs().iter().any(|column| column.name == ABSENT);
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

fn window_call(expr: &LogicalExpr) -> Result<&WindowFunction, SqlError> {
    match expr {
        LogicalExpr::WindowFunction(call) => Ok(call),
        LogicalExpr::Alias(alias) => window_call(&alias.expr),
        other => Err(SqlError::new(Code::Internal, format!("{} is not a call with OVER", other.human_display()))),
    }
}

pub(super) fn call_text(call: &WindowFunction, input: &DFSchemaRef) -> String {
    let args = call.params.args.iter().map(|arg| plain_text(arg, input)).collect::<Vec<_>>().join(", ");
    format!("{}({args})", call.fun.name())
}

/// The frame that a call without one gets: nothing was said.
fn is_default_frame(frame: &WindowFrame) -> bool {
    frame.units == WindowFrameUnits::Range
        && matches!(&frame.start_bound, WindowFrameBound::Preceding(bound) if bound.is_null())
        && matches!(frame.end_bound, WindowFrameBound::CurrentRow)
}

fn argument_error(function: &stateful::Stateful, at: usize) -> SqlError {
    let what = match function.arguments.get(at) {
        Some(Argument::Length) => "an INTERVAL of a fixed length",
        _ => "a number",
    };
    SqlError::new(Code::BadDefinition, format!("argument {} of {} is {what}, the same for all rows", at + 1, function.name))
        .hint(format!("write {}", function.usage))
}

/// The positive milliseconds of a constant INTERVAL.
fn length(expr: &LogicalExpr) -> Option<i64> {
    match expr {
        LogicalExpr::Literal(value, _) => interval_millis(value).filter(|ms| *ms > 0),
        LogicalExpr::Cast(cast) => length(&cast.expr),
        _ => None,
    }
}

/// A constant number.
fn as_number(expr: &LogicalExpr) -> Option<f64> {
    match expr {
        LogicalExpr::Literal(value, _) => match value.cast_to(&DataType::Float64) {
            Ok(ScalarValue::Float64(Some(number))) if number.is_finite() => Some(number),
            _ => None,
        },
        LogicalExpr::Negative(inner) => as_number(inner).map(|n| -n),
        LogicalExpr::Cast(cast) => as_number(&cast.expr),
        _ => None,
    }
}

pub(super) fn refused(clause: &str, instead: &str) -> SqlError {
    SqlError::new(Code::NotOnAStream, format!("{clause} is not supported over a stream")).hint(instead)
}

/// The error for a node that no operator stands for.
fn refuse(plan: &LogicalPlan) -> SqlError {
    const STORED: &str = "leave it out, or ask over stored data (a SELECT without EMIT CHANGES)";
    match plan {
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => refused(
            "an aggregate without a window",
            "aggregate over a window: FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end",
        ),
        LogicalPlan::Aggregate(_) => refused(
            "GROUP BY without a window",
            "read FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) and add window_start, window_end to the GROUP BY",
        ),
        LogicalPlan::Sort(_) => refused("ORDER BY", "leave it out: rows come as time goes on"),
        LogicalPlan::Limit(_) => refused("LIMIT", "leave it out: a stream has no end"),
        LogicalPlan::Distinct(_) => refused("DISTINCT", "GROUP BY the columns in a window"),
        LogicalPlan::Subquery(_) => refused("a subquery in an expression", STORED),
        LogicalPlan::Unnest(_) => refused("UNNEST", STORED),
        LogicalPlan::RecursiveQuery(_) => refused("WITH RECURSIVE", STORED),
        LogicalPlan::Values(_) => refused("VALUES", "read FROM a stream"),
        LogicalPlan::EmptyRelation(_) => {
            refused("a query that reads no stream or keeps no row", "read FROM a stream, and see that its WHERE can be true")
        }
        LogicalPlan::Repartition(_) => refused("DISTRIBUTE BY", "leave it out"),
        other => refused(&format!("this clause ({})", other.display()), "leave it out"),
    }
}
