//! Calls over frames: `avg(hr) OVER (PARTITION BY k ORDER BY ts RANGE ..)`, and the numbers of rows.
//!
//! Owns which of DataFusion's functions have an operator over a frame, what their frames become, and when a key of a
//! PARTITION BY comes to an end. Everything else is refused by the name of its clause. Called by `walk`.

use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::logical_expr::expr::{NullTreatment, Sort, WindowFunction, WindowFunctionParams};
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
    /// Those over a frame of time that reaches behind the row.
    AheadInTime,
    /// Those over a frame of rows that does.
    AheadInRows,
    /// LEAD.
    Lead,
}

/// The family of a call.
pub(in crate::sql) fn family(call: &WindowFunction) -> Family {
    let name = call.fun.name();
    let frame = &call.params.window_frame;
    let reaches_ahead = matches!(frame.end_bound, WindowFrameBound::Following(_)) && number(name).is_none();
    let is_over_frame = matches!(call.fun, WindowFunctionDefinition::AggregateUDF(_)) || pick(name).is_some();
    match call.fun {
        _ if reaches_ahead && is_over_frame => {
            if frame.units == WindowFrameUnits::Range {
                Family::AheadInTime
            } else {
                Family::AheadInRows
            }
        }
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
            return Err(endless_ranking());
        };
        Ok((self.rank_order(order_by, input)?, expiry))
    }

    /// What rows are ranked by.
    pub(super) fn rank_order(&self, order_by: &[Sort], input: &DFSchemaRef) -> Result<Vec<RankOrder>, SqlError> {
        let order = order_by.iter().map(|sort| {
            let (value, of) = (PlannedExpr::plan(self.session, &sort.expr, input)?, sort.expr.get_type(input.as_ref())?);
            Ok(RankOrder { value, of, descending: !sort.asc, nulls_first: sort.nulls_first })
        });
        order.collect()
    }
}

/// A ranking that could only be kept up to date, where that cannot be.
pub(super) fn endless_ranking() -> SqlError {
    refused(
        "ROW_NUMBER() in another order than that of the event time, over partitions without an end,",
        "keep the first few up to date, with QUALIFY ROW_NUMBER() OVER (..) <= 3 and nothing but conditions and columns above it; or add \
         window_start, window_end or the event time to its PARTITION BY; or ORDER BY the event time",
    )
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

/// A bound of a frame.
enum Bound {
    Unbounded,
    /// So much before the row; the negative of it where it lies behind.
    Before(Option<ScalarValue>, bool),
}

/// The frame, where it ends somewhere.
fn frame(of: &WindowFrame) -> Result<OverFrame, SqlError> {
    let not_fixed = || {
        refused("a RANGE frame that is no INTERVAL of a fixed length", "write RANGE BETWEEN INTERVAL '5' MINUTE PRECEDING AND CURRENT ROW")
    };
    let bound = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) if value.is_null() => Bound::Unbounded,
        WindowFrameBound::Preceding(value) => Bound::Before(Some(value.clone()), false),
        WindowFrameBound::Following(value) => Bound::Before(Some(value.clone()), true),
        WindowFrameBound::CurrentRow => Bound::Before(None, false),
    };
    if matches!(&of.start_bound, WindowFrameBound::Following(value) if value.is_null()) || matches!(bound(&of.end_bound), Bound::Unbounded)
    {
        return Err(match of.end_bound {
            WindowFrameBound::Preceding(_) => refused("a window frame that ends with UNBOUNDED PRECEDING", "end it with CURRENT ROW"),
            _ => refused("a window frame with UNBOUNDED FOLLOWING", "say how far it reaches, as in INTERVAL '1' MINUTE FOLLOWING"),
        });
    }
    let signed = |value: Option<i64>, behind: bool| value.map(|value| if behind { -value } else { value });
    let made = match of.units {
        WindowFrameUnits::Range => {
            let length = |bound: Bound| match bound {
                Bound::Unbounded => Ok(None),
                Bound::Before(None, _) => Ok(Some(0)),
                Bound::Before(Some(value), behind) => {
                    signed(interval_millis(&value).filter(|ms| *ms >= 0), behind).map(Some).ok_or_else(not_fixed)
                }
            };
            OverFrame::Range { from_ms: length(bound(&of.start_bound))?, to_ms: length(bound(&of.end_bound))?.unwrap_or(0) }
        }
        WindowFrameUnits::Rows => {
            let no_count = || refused("a ROWS frame that counts no whole number of rows", "write ROWS BETWEEN 9 PRECEDING AND CURRENT ROW");
            let count = |bound: Bound| match bound {
                Bound::Unbounded => Ok(None),
                Bound::Before(None, _) => Ok(Some(0)),
                Bound::Before(Some(ScalarValue::UInt64(Some(rows))), behind) => {
                    signed(i64::try_from(rows).ok(), behind).map(Some).ok_or_else(no_count)
                }
                Bound::Before(Some(_), _) => Err(no_count()),
            };
            OverFrame::Rows { from: count(bound(&of.start_bound))?, to: count(bound(&of.end_bound))?.unwrap_or(0) }
        }
        WindowFrameUnits::Groups => return Err(refused("a GROUPS frame", "write ROWS or RANGE")),
    };
    match made {
        OverFrame::Range { from_ms: None, to_ms: ..0 } | OverFrame::Rows { from: None, to: ..0 } => {
            Err(refused("a window frame from UNBOUNDED PRECEDING to FOLLOWING", "say how far back it begins, or end it with CURRENT ROW"))
        }
        _ => Ok(made),
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
