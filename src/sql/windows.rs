//! The window functions of FROM as DataFusion plans them: `tumble`, `hop`, `cumulate`, `session`, `absent` and `gap_fill`.
//!
//! Owns the planner that turns their calls (in the normal form of `statement`) into logical nodes, and the nodes
//! [`WindowTable`], [`AbsentTable`] and [`GapTable`]. Always: a node's columns are its input's (for ABSENT its keys), then its
//! own, so that whatever DataFusion pushes down still finds them. Registered by `session`; `analyze` turns
//! windows that are aggregated into window aggregates, `lower` turns nodes into operators.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::{DFSchema, DFSchemaRef, Result as DfResult, ScalarValue, TableReference, plan_err};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::sql::sqlparser::ast::{self, FunctionArg, FunctionArgExpr, TableFactor};

use super::types::sql_type;

/// The first instant of a window.
pub const WINDOW_START: &str = "window_start";
/// The first instant behind a window.
pub const WINDOW_END: &str = "window_end";
/// The last millisecond of a window: its event time where its results are windowed again.
pub const WINDOW_TIME: &str = "window_time";
/// When an absent key was last heard of.
pub const LAST_TS: &str = "last_ts";
/// From when on a key counts as absent, or when it came back.
pub const ABSENT_SINCE: &str = "absent_since";
/// Whether a row says that the key fell silent, or that it came back.
pub const ABSENT: &str = "absent";

/// Whether a call of this name is read as a window, or as a part of one, before any function is looked for.
pub fn is_window_name(name: &str) -> bool {
    let of = name.strip_suffix("_start").or_else(|| name.strip_suffix("_end")).unwrap_or(name);
    matches!(of, "tumble" | "hop" | "cumulate" | "session" | "absent" | "gap_fill" | "descriptor" | "interpolate")
}

/// The type of every event time.
#[must_use]
pub const fn event_time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

/// How FROM cuts time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cut {
    /// Side by side.
    Tumble {
        /// How long, in milliseconds.
        size: i64,
        /// Where they start, modulo the size.
        offset: i64,
    },
    /// One every slide.
    Hop {
        /// How far apart, in milliseconds.
        slide: i64,
        /// How long.
        size: i64,
        /// Where they start, modulo the slide.
        offset: i64,
    },
    /// Growing by a step from a common start.
    Cumulate {
        /// By how much, in milliseconds.
        step: i64,
        /// How long the last one is.
        size: i64,
        /// Where they start, modulo the size.
        offset: i64,
    },
    /// As long as the rows of a key follow one another.
    Session {
        /// How far apart they may be, in milliseconds.
        gap: i64,
    },
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, first, second, offset) = match *self {
            Self::Tumble { size, offset } => ("TUMBLE", size, None, offset),
            Self::Hop { slide, size, offset } => ("HOP", slide, Some(size), offset),
            Self::Cumulate { step, size, offset } => ("CUMULATE", step, Some(size), offset),
            Self::Session { gap } => ("SESSION", gap, None, 0),
        };
        write!(f, "{name} {}", Length(first))?;
        if let Some(size) = second {
            write!(f, ", size {}", Length(size))?;
        }
        if offset != 0 {
            write!(f, ", offset {}", Length(offset))?;
        }
        Ok(())
    }
}

/// A length of time as one reads it.
pub(super) struct Length(pub i64);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)];
        match units.iter().find(|(_, ms)| self.0 != 0 && self.0 % ms == 0) {
            Some((unit, ms)) => write!(f, "{} {unit}", self.0 / ms),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// Rows with the windows they lie in: the input's columns, then `window_start`, `window_end`, `window_time`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WindowTable {
    /// The rows.
    pub input: LogicalPlan,
    /// Their event time.
    pub time: Expr,
    /// How time is cut.
    pub cut: Cut,
    /// Whose sessions; none for other windows.
    pub keys: Vec<Expr>,
    /// Which columns of the input come first in the schema: a window's columns hide those of an earlier window.
    shown: Vec<usize>,
    schema: DFSchemaRef,
}

impl WindowTable {
    /// The table function over `input`.
    pub fn try_new(input: LogicalPlan, time: Expr, cut: Cut, keys: Vec<Expr>) -> DfResult<Self> {
        let own = [WINDOW_START, WINDOW_END, WINDOW_TIME];
        let columns = input.schema();
        let shown: Vec<usize> = (0..columns.fields().len()).filter(|i| !own.contains(&columns.field(*i).name().as_str())).collect();
        let kept = shown.iter().map(|i| columns.qualified_field(*i)).map(|(q, f)| (q.cloned(), Arc::clone(f)));
        let own = own.map(|name| (None, Arc::new(Field::new(name, event_time_type(), false))));
        let schema = Arc::new(DFSchema::new_with_metadata(kept.chain(own).collect(), columns.metadata().clone())?);
        Ok(Self { input, time, cut, keys, shown, schema })
    }
}

impl WindowTable {
    /// The index in the input of each of the first columns of the schema.
    #[must_use]
    pub fn shown(&self) -> &[usize] {
        &self.shown
    }
}

impl fmt::Debug for WindowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialOrd for WindowTable {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for WindowTable {
    fn name(&self) -> &'static str {
        "WindowTable"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(&self.keys).cloned().collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        [WINDOW_START, WINDOW_END, WINDOW_TIME].map(str::to_owned).into()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowTable: {} of {}", self.cut, self.time)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let keys = exprs.split_off(1);
        Self::try_new(inputs.swap_remove(0), exprs.swap_remove(0), self.cut, keys)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.iter().filter_map(|i| self.shown.get(*i).copied()).collect()])
    }
}

/// Silences: the key columns, then `last_ts`, `absent_since`, `absent`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AbsentTable {
    /// The rows.
    pub input: LogicalPlan,
    /// Their event time.
    pub time: Expr,
    /// Whose silence is watched.
    pub keys: Vec<Expr>,
    /// How long a silence must last, in milliseconds.
    pub after: i64,
    schema: DFSchemaRef,
}

impl AbsentTable {
    /// The table function over `input`; the keys are columns of it.
    pub fn try_new(input: LogicalPlan, time: Expr, keys: Vec<Expr>, after: i64) -> DfResult<Self> {
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> = Vec::with_capacity(keys.len() + 3);
        for key in &keys {
            let Expr::Column(column) = key else { return plan_err!("PARTITION BY in ABSENT takes columns, and {key} is none") };
            let (qualifier, field) = input.schema().qualified_field_from_column(column)?;
            fields.push((qualifier.cloned(), Arc::clone(field)));
        }
        for (name, data_type) in [(LAST_TS, event_time_type()), (ABSENT_SINCE, event_time_type()), (ABSENT, DataType::Boolean)] {
            fields.push((None, Arc::new(Field::new(name, data_type, false))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(Self { input, time, keys, after, schema })
    }
}

impl fmt::Debug for AbsentTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialOrd for AbsentTable {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for AbsentTable {
    fn name(&self) -> &'static str {
        "AbsentTable"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(&self.keys).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AbsentTable: after {} without {}", Length(self.after), self.time)?;
        if !self.keys.is_empty() {
            write!(f, " by {}", self.keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let keys = exprs.split_off(1);
        Self::try_new(inputs.swap_remove(0), exprs.swap_remove(0), keys, self.after)
    }

    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        // The keys and the time are asked for by `expressions` already.
        Some(vec![Vec::new()])
    }
}

/// What a column of a row in a gap has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fill {
    /// The key's last value that was not NULL.
    Locf,
    /// What lies on the line between the values on both sides.
    Interpolate,
}

/// Rows, and rows put into the gaps between them: the input's columns.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GapTable {
    /// The rows.
    pub input: LogicalPlan,
    /// Their event time.
    pub time: Expr,
    /// Whose gaps.
    pub keys: Vec<Expr>,
    /// How far apart rows are to be, in milliseconds.
    pub every: i64,
    /// The columns that have a value in a gap.
    pub fills: Vec<(Fill, Expr)>,
    schema: DFSchemaRef,
}

impl GapTable {
    /// The table function over `input`; the keys and what is filled are columns of it.
    pub fn try_new(input: LogicalPlan, time: Expr, keys: Vec<Expr>, every: i64, fills: Vec<(Fill, Expr)>) -> DfResult<Self> {
        let columns = input.schema();
        let place = |what: &str, expr: &Expr| match expr {
            Expr::Column(column) => columns.index_of_column(column),
            other => plan_err!("{what} in GAP_FILL takes columns, and {other} is none"),
        };
        let mut known = vec![place("DESCRIPTOR", &time)?];
        for key in &keys {
            known.push(place("PARTITION BY", key)?);
        }
        let always = known.len();
        for (fill, column) in &fills {
            let (name, at) = (if *fill == Fill::Locf { "LOCF" } else { "INTERPOLATE" }, place("LOCF or INTERPOLATE", column)?);
            let field = columns.field(at);
            if known.contains(&at) {
                return plan_err!("{name}({}) in GAP_FILL: the column is named twice", field.name());
            }
            if *fill == Fill::Interpolate && !field.data_type().is_numeric() {
                return plan_err!("INTERPOLATE({0}) is over numbers alone: write LOCF({0})", field.name());
            }
            known.push(at);
        }
        let field = |(at, (qualifier, field)): (usize, (Option<&TableReference>, &Arc<Field>))| {
            let nullable = field.is_nullable() || !known[..always].contains(&at);
            (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable)))
        };
        let fields = columns.iter().enumerate().map(field).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, columns.metadata().clone())?);
        Ok(Self { input, time, keys, every, fills, schema })
    }
}

impl fmt::Debug for GapTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialOrd for GapTable {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for GapTable {
    fn name(&self) -> &'static str {
        "GapTable"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(&self.keys).chain(self.fills.iter().map(|(_, column)| column)).cloned().collect()
    }

    /// What is in a gap depends on the rows around it, so only a condition on the keys may go below.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let is_key = |name: &String| self.keys.iter().any(|key| matches!(key, Expr::Column(column) if column.name == *name));
        self.schema.fields().iter().map(|field| field.name().clone()).filter(|name| !is_key(name)).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GapTable: every {} of {}", Length(self.every), self.time)?;
        if !self.keys.is_empty() {
            write!(f, " by {}", self.keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let fills = exprs.split_off(1 + self.keys.len());
        let keys = exprs.split_off(1);
        let fills = self.fills.iter().map(|(fill, _)| *fill).zip(fills).collect();
        Self::try_new(inputs.swap_remove(0), exprs.swap_remove(0), keys, self.every, fills)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }
}

/// `LOCF(column)` or `INTERPOLATE(column)` in GAP_FILL.
fn fill(expr: &ast::Expr) -> Option<(Fill, ast::Expr)> {
    let ast::Expr::Function(call) = expr else { return None };
    let fill = match call.name.to_string().to_ascii_lowercase().as_str() {
        "locf" => Fill::Locf,
        "interpolate" => Fill::Interpolate,
        _ => return None,
    };
    match &call.args {
        ast::FunctionArguments::List(list) => match list.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(column))] => Some((fill, column.clone())),
            _ => None,
        },
        _ => None,
    }
}

/// Plans window calls in FROM; everything else is left to DataFusion.
#[derive(Debug)]
pub struct WindowPlanner;

impl RelationPlanner for WindowPlanner {
    fn plan_relation(&self, relation: TableFactor, context: &mut dyn RelationPlannerContext) -> DfResult<RelationPlanning> {
        let (name, call, alias) = match relation {
            TableFactor::Table { ref name, args: Some(ref call), ref alias, .. } => match function(name) {
                Some(function) => (function, call.args.clone(), alias.clone()),
                None => return Ok(RelationPlanning::Original(Box::new(relation))),
            },
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let mut arguments = call.into_iter().map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
            other => plan_err!("{name} does not take the argument {other}"),
        });
        let mut next = |what: &str| arguments.next().unwrap_or_else(|| plan_err!("{name} has no {what}"));
        let ast::Expr::Subquery(subquery) = next("input")? else { return plan_err!("the first argument of {name} is a table") };
        let input = context.plan(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None })?;
        let time = time_column(&name, next("time column")?, input.schema(), context)?;
        let plan: Extension = match name.as_str() {
            "tumble" => {
                let size = length(next("size")?, context)?;
                let offset = arguments.next().transpose()?.map_or(Ok(0), |offset| length(offset, context))?;
                extension(WindowTable::try_new(input, time, Cut::Tumble { size, offset }, Vec::new())?)
            }
            "hop" => {
                let (slide, size) = (length(next("slide")?, context)?, length(next("size")?, context)?);
                let offset = arguments.next().transpose()?.map_or(Ok(0), |offset| length(offset, context))?;
                extension(WindowTable::try_new(input, time, Cut::Hop { slide, size, offset }, Vec::new())?)
            }
            "cumulate" => {
                let (step, size) = (length(next("step")?, context)?, length(next("size")?, context)?);
                let offset = arguments.next().transpose()?.map_or(Ok(0), |offset| length(offset, context))?;
                if step == 0 || size % step != 0 {
                    return plan_err!("the size of a cumulating window, {}, is no multiple of its step, {}", Length(size), Length(step));
                }
                extension(WindowTable::try_new(input, time, Cut::Cumulate { step, size, offset }, Vec::new())?)
            }
            "session" => {
                let gap = length(next("gap")?, context)?;
                let keys = arguments.by_ref().map(|key| context.sql_to_expr(key?, input.schema())).collect::<DfResult<Vec<_>>>()?;
                extension(WindowTable::try_new(input, time, Cut::Session { gap }, keys)?)
            }
            "gap_fill" => {
                let every = length(next("interval")?, context)?;
                let (mut fills, mut keys) = (Vec::new(), Vec::new());
                for argument in arguments.by_ref() {
                    let argument = argument?;
                    match fill(&argument) {
                        Some((fill, column)) => fills.push((fill, context.sql_to_expr(column, input.schema())?)),
                        None => keys.push(context.sql_to_expr(argument, input.schema())?),
                    }
                }
                extension(GapTable::try_new(input, time, keys, every, fills)?)
            }
            _ => {
                let after = length(next("length of silence")?, context)?;
                let keys = arguments.by_ref().map(|key| context.sql_to_expr(key?, input.schema())).collect::<DfResult<Vec<_>>>()?;
                extension(AbsentTable::try_new(input, time, keys, after)?)
            }
        };
        if let Some(more) = arguments.next() {
            return plan_err!("{name} has too many arguments: {}", more?);
        }
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(LogicalPlan::Extension(plan), alias))))
    }
}

fn extension(node: impl UserDefinedLogicalNodeCore) -> Extension {
    Extension { node: Arc::new(node) }
}

/// The lower-case name, where it is one of ours.
fn function(name: &ast::ObjectName) -> Option<String> {
    let [ast::ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return None };
    let lower = ident.value.to_ascii_lowercase();
    matches!(lower.as_str(), "tumble" | "hop" | "cumulate" | "session" | "absent" | "gap_fill").then_some(lower)
}

fn time_column(name: &str, expr: ast::Expr, schema: &DFSchema, context: &mut dyn RelationPlannerContext) -> DfResult<Expr> {
    let text = expr.to_string();
    match context.sql_to_expr(expr, schema)? {
        Expr::Column(column) => match schema.qualified_field_from_column(&column)?.1.data_type() {
            DataType::Timestamp(..) => Ok(Expr::Column(column)),
            other => plan_err!("{name} cuts time, and column \"{}\" is {}", column.name, sql_type(other)),
        },
        _ => plan_err!("{name} takes the event time column, and {text} is not a column"),
    }
}

/// The milliseconds of an INTERVAL literal.
pub(super) fn length(expr: ast::Expr, context: &mut dyn RelationPlannerContext) -> DfResult<i64> {
    let text = expr.to_string();
    match context.sql_to_expr(expr, &DFSchema::empty())? {
        Expr::Literal(value, _) => match interval_millis(&value) {
            Some(ms) => Ok(ms),
            None => plan_err!("{text} has no fixed length in milliseconds: write seconds, minutes, hours or days"),
        },
        _ => plan_err!("{text} is not an INTERVAL"),
    }
}

/// The milliseconds of an interval without months; `None` for what is none, or not whole milliseconds.
#[must_use]
pub fn interval_millis(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.months == 0 && i.nanoseconds % 1_000_000 == 0 => {
            i64::from(i.days).checked_mul(86_400_000)?.checked_add(i.nanoseconds / 1_000_000)
        }
        ScalarValue::IntervalDayTime(Some(i)) => i64::from(i.days).checked_mul(86_400_000)?.checked_add(i64::from(i.milliseconds)),
        ScalarValue::DurationMillisecond(Some(ms)) => Some(*ms),
        ScalarValue::DurationSecond(Some(s)) => s.checked_mul(1000),
        _ => None,
    }
}
