//! Calls over frames: `avg(hr) OVER (PARTITION BY k ORDER BY ts RANGE ..)`, and the numbers of rows.
//!
//! Owns which of DataFusion's functions have an operator over a frame, what their frames become, and when a key of a
//! PARTITION BY comes to an end. Everything else is refused by the name of its clause. Called by `walk`.

use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Expr as LogicalExpr, ExprSchemable, Operator, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};

use super::lineage::{Lineage, lineage_of};
use super::walk::{Walk, call_text, refused};
use crate::sql::error::SqlError;
use crate::sql::expr::{Exprs, PlannedExpr};
use crate::sql::windows::interval_millis;
use crate::stream::{LeadCall, OverArgument, OverCall, OverExpiry, OverFrame, OverFunction, RankOrder};

/// What there is over frames, for messages.
const KNOWN: &str = "over a frame: count, sum, avg, min, max, stddev, stddev_pop, var, var_pop, first_value, last_value, row_number, rank, \
                     dense_rank";

/// Which operator answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sql) enum Family {
    /// The functions with a memory of their own.
    Keyed,
    /// Those over a frame.
    Frame,
    /// LEAD.
    Lead,
}

/// The family of a call.
pub(in crate::sql) fn family(call: &WindowFunction) -> Family {
    let name = call.fun.name();
    match call.fun {
        WindowFunctionDefinition::AggregateUDF(_) => Family::Frame,
        WindowFunctionDefinition::WindowUDF(_) if number(name).is_some() || pick(name).is_some() => Family::Frame,
        WindowFunctionDefinition::WindowUDF(_) if name == "lead" => Family::Lead,
        WindowFunctionDefinition::WindowUDF(_) => Family::Keyed,
    }
}

fn number(name: &str) -> Option<OverFunction> {
    Some(match name {
        "row_number" => OverFunction::RowNumber,
        "rank" => OverFunction::Rank,
        "dense_rank" => OverFunction::DenseRank,
        _ => return None,
    })
}

fn pick(name: &str) -> Option<OverFunction> {
    Some(match name {
        "first_value" => OverFunction::First,
        "last_value" => OverFunction::Last,
        _ => return None,
    })
}

fn aggregate(name: &str) -> Option<OverFunction> {
    Some(match name {
        "count" => OverFunction::Count,
        "sum" => OverFunction::Sum,
        "avg" => OverFunction::Avg,
        "min" => OverFunction::Min,
        "max" => OverFunction::Max,
        "stddev" => OverFunction::Variance { sample: true, root: true },
        "stddev_pop" => OverFunction::Variance { sample: false, root: true },
        "var" => OverFunction::Variance { sample: true, root: false },
        "var_pop" => OverFunction::Variance { sample: false, root: false },
        _ => return None,
    })
}

impl Walk<'_> {
    /// One call over a frame.
    pub(super) fn over_call(&self, call: &WindowFunction, input: &DFSchemaRef, exprs: &mut Exprs) -> Result<OverCall, SqlError> {
        let WindowFunctionParams { args, window_frame, filter, null_treatment, distinct, .. } = &call.params;
        let name = call.fun.name();
        let text = call_text(call, input);
        if *distinct {
            return Err(refused(&format!("DISTINCT in {name}(..) OVER"), "count distinct values over TUMBLE or HOP windows instead"));
        }
        let aggregates = matches!(call.fun, WindowFunctionDefinition::AggregateUDF(_));
        if filter.is_some() && !aggregates {
            return Err(refused(&format!("FILTER in {name}(..) OVER"), "filter in a subquery below"));
        }
        if null_treatment.is_some_and(|t| t == NullTreatment::IgnoreNulls) {
            return Err(refused(&format!("IGNORE NULLS in {name}(..)"), "filter the NULLs out in a subquery below, or use locf"));
        }
        if let Some(function) = number(name) {
            // Whatever the frame: the number of a row counts all rows before it.
            let frame = OverFrame::Rows { from: None, to: 0 };
            return Ok(OverCall { function, frame, argument: None, filter: None, text });
        }
        let Some(function) = pick(name).or_else(|| aggregate(name)) else {
            return Err(refused(&format!("the aggregate {name}(..) OVER"), "aggregate over TUMBLE or HOP windows instead").note(KNOWN));
        };
        let frame = frame(window_frame)?;
        let argument = match args.as_slice() {
            // count(*) counts a constant.
            [LogicalExpr::Literal(value, _)] if function == OverFunction::Count && !value.is_null() => None,
            [value] => Some(OverArgument { value: exprs.plan(self.session, value, input)?, of: value.get_type(input.as_ref())? }),
            _ => return Err(refused(&format!("{name} with {} arguments OVER", args.len()), "give it one")),
        };
        let filter = filter.as_ref().map(|filter| exprs.plan(self.session, filter, input)).transpose()?;
        Ok(OverCall { function, frame, argument, filter, text })
    }
}

impl Walk<'_> {
    /// One call of LEAD.
    pub(super) fn lead_call(&self, call: &WindowFunction, input: &DFSchemaRef) -> Result<LeadCall, SqlError> {
        self.check_frameless(call)?;
        let (value, n, default) = self.neighbour("lead", &call.params.args, input)?;
        let of = call.params.args[0].get_type(input.as_ref())?;
        Ok(LeadCall { argument: OverArgument { value, of }, n, default })
    }
}

impl Walk<'_> {
    /// ROW_NUMBER in another order than that of time: it is known once no more rows of its partition come.
    pub(super) fn rank(&self, call: &WindowFunction, input: &DFSchemaRef, columns: &[Lineage]) -> Result<Ranked, SqlError> {
        let WindowFunctionParams { partition_by, order_by, .. } = &call.params;
        let Some(expiry) = expiry(partition_by, input, columns) else {
            return Err(refused(
                "ROW_NUMBER() in another order than that of the event time, over partitions without an end,",
                "add window_start, window_end (of TUMBLE, HOP, ..) or the event time to its PARTITION BY, or ORDER BY the event time",
            ));
        };
        let order = order_by.iter().map(|sort| {
            let (value, of) = (PlannedExpr::plan(self.session, &sort.expr, input)?, sort.expr.get_type(input.as_ref())?);
            Ok(RankOrder { value, of, descending: !sort.asc, nulls_first: sort.nulls_first })
        });
        Ok((order.collect::<Result<_, SqlError>>()?, expiry))
    }
}

/// What rows are ranked by, and when their partitions end.
pub(super) type Ranked = (Vec<RankOrder>, OverExpiry);

/// Whether a call numbers rows.
pub(super) fn is_row_number(call: &WindowFunction) -> bool {
    call.fun.name() == "row_number"
}

/// How many rows of a ranking a condition lets through, where it says so: `number <= 3`.
pub(super) fn wanted(condition: &LogicalExpr, is_number: &dyn Fn(&LogicalExpr) -> bool) -> Option<usize> {
    let of = |condition: &LogicalExpr| {
        let LogicalExpr::BinaryExpr(compared) = condition else { return None };
        let (op, limit) = match (&*compared.left, &*compared.right) {
            (number, limit) if is_number(number) => (compared.op, limit),
            (limit, number) if is_number(number) => (compared.op.swap()?, limit),
            _ => return None,
        };
        let LogicalExpr::Literal(ScalarValue::UInt64(Some(limit)), _) = limit else { return None };
        let limit = usize::try_from(*limit).ok()?;
        match op {
            Operator::Eq | Operator::LtEq => Some(limit),
            Operator::Lt => Some(limit.saturating_sub(1)),
            _ => None,
        }
    };
    split_conjunction(condition).into_iter().filter_map(of).min()
}

/// The frame, where it ends with the row or before it.
fn frame(of: &WindowFrame) -> Result<OverFrame, SqlError> {
    let follows = || {
        refused(
            "a window frame with FOLLOWING",
            "end it with CURRENT ROW, and look back from the later row: a row's answer is given once the watermark has passed it",
        )
    };
    let not_fixed = || {
        refused("a RANGE frame that is no INTERVAL of a fixed length", "write RANGE BETWEEN INTERVAL '5' MINUTE PRECEDING AND CURRENT ROW")
    };
    let before = |bound: &WindowFrameBound| -> Result<Option<ScalarValue>, SqlError> {
        match bound {
            WindowFrameBound::Preceding(value) => Ok(Some(value.clone())),
            WindowFrameBound::CurrentRow => Ok(None),
            WindowFrameBound::Following(_) => Err(follows()),
        }
    };
    let (from, to) = (before(&of.start_bound)?, before(&of.end_bound)?);
    let is_unbounded = |bound: &Option<ScalarValue>| bound.as_ref().is_some_and(ScalarValue::is_null);
    if is_unbounded(&to) {
        return Err(refused("a window frame that ends with UNBOUNDED PRECEDING", "end it with CURRENT ROW"));
    }
    match of.units {
        WindowFrameUnits::Range => {
            let length = |bound: Option<ScalarValue>| match bound {
                None => Ok(0),
                Some(value) => interval_millis(&value).filter(|ms| *ms >= 0).ok_or_else(not_fixed),
            };
            let from_ms = if is_unbounded(&from) { None } else { Some(length(from)?) };
            Ok(OverFrame::Range { from_ms, to_ms: length(to)? })
        }
        WindowFrameUnits::Rows => {
            let count = |bound: Option<ScalarValue>| match bound {
                None => Ok(0),
                Some(ScalarValue::UInt64(Some(rows))) => Ok(rows),
                Some(_) => {
                    Err(refused("a ROWS frame that counts no whole number of rows", "write ROWS BETWEEN 9 PRECEDING AND CURRENT ROW"))
                }
            };
            let from_rows = if is_unbounded(&from) { None } else { Some(count(from)?) };
            Ok(OverFrame::Rows { from: from_rows, to: count(to)? })
        }
        WindowFrameUnits::Groups => Err(refused("a GROUPS frame", "write ROWS or RANGE")),
    }
}

/// The key that says until when rows of its value may come, where there is one: an event time, or the end of a window.
pub(super) fn expiry(keys: &[LogicalExpr], input: &DFSchemaRef, columns: &[Lineage]) -> Option<OverExpiry> {
    let ends = keys.iter().enumerate().filter_map(|(key, expr)| {
        let plus_ms = lineage_of(expr, input, columns).until?;
        Some(OverExpiry { key, plus_ms })
    });
    // Of a window's start and its end, the end says it more directly.
    ends.min_by_key(|end| end.plus_ms.unsigned_abs())
}
