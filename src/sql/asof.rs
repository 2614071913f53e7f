//! `ASOF JOIN .. MATCH_CONDITION (..)` and `FOR SYSTEM_TIME AS OF ..` as DataFusion plans them.
//!
//! `dialect::asof` leaves a plain join whose condition holds a call that nobody can run: [`LATEST`], [`LATEST_BEFORE`] or
//! [`SYSTEM_TIME`]. [`RecogniseAsOf`], an analyzer rule, makes the node [`AsOfJoin`] of such a join before the optimizer
//! comes: a condition on the right side that was pushed below it would change which row is the latest. Always: the
//! node's columns are those of the join it replaces. `lower` turns the node into an operator.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchemaRef, JoinType, Result as DfResult, exec_err, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Extension, Join, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    UserDefinedLogicalNodeCore, Volatility, build_join_schema,
};
use datafusion::optimizer::AnalyzerRule;

/// `latest(a.ts, b.ts)`: the latest row of the right side with `a.ts >= b.ts`.
pub const LATEST: &str = "__latest";
/// The same with `a.ts > b.ts`.
pub const LATEST_BEFORE: &str = "__latest_before";
/// `system_time(a.ts)`: the row of the table on the right as it was then.
pub const SYSTEM_TIME: &str = "__system_time";

/// A call that marks a join and is never run.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    name: &'static str,
    signature: Signature,
}

/// The markers.
pub(super) fn markers() -> Vec<Arc<ScalarUDF>> {
    let marker = |(name, arguments)| {
        let signature = Signature::any(arguments, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Marker { name, signature }))
    };
    [(LATEST, 2), (LATEST_BEFORE, 2), (SYSTEM_TIME, 1)].map(marker).into()
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        exec_err!("{} stands in the condition of a join and nowhere else", self.name)
    }
}

/// Each left row with the latest row of the right side, as of its own time.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AsOfJoin {
    /// The rows.
    pub left: LogicalPlan,
    /// What they are looked up in.
    pub right: LogicalPlan,
    /// Whether a row without a partner is kept.
    pub keeps_left: bool,
    /// Whether a partner must be earlier.
    pub is_strict: bool,
    /// The time of the left row.
    pub time: Expr,
    /// The time of the right row; `None` for a table, whose rows hold from a time of their own on.
    pub right_time: Option<Expr>,
    /// What must be equal, left and right.
    pub keys: Vec<(Expr, Expr)>,
    /// What else must be true.
    pub others: Vec<Expr>,
    schema: DFSchemaRef,
}

impl fmt::Debug for AsOfJoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialOrd for AsOfJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for AsOfJoin {
    fn name(&self) -> &'static str {
        "AsOfJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let keys = self.keys.iter().flat_map(|(left, right)| [left, right]);
        std::iter::once(&self.time).chain(&self.right_time).chain(keys).chain(&self.others).cloned().collect()
    }

    /// A condition pushed into the right side would make another row the latest one, and one on the left would be
    /// pushed into both.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.keeps_left { "left" } else { "inner" };
        let keys = self.keys.iter().map(|(left, right)| format!("{left} = {right}")).collect::<Vec<_>>().join(", ");
        write!(f, "AsOfJoin: {kind}, latest as of {} by [{keys}]", self.time)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let (Some(right), Some(left)) = (inputs.pop(), inputs.pop()) else { return plan_err!("a join has two inputs") };
        let mut exprs = exprs.into_iter();
        let mut next = || exprs.next().map_or_else(|| plan_err!("a join has lost a condition"), Ok);
        let time = next()?;
        let right_time = if self.right_time.is_some() { Some(next()?) } else { None };
        let keys = self.keys.iter().map(|_| Ok((next()?, next()?))).collect::<DfResult<Vec<_>>>()?;
        let others = self.others.iter().map(|_| next()).collect::<DfResult<Vec<_>>>()?;
        let schema = joined(&left, &right, self.keeps_left)?;
        Ok(Self { left, right, keeps_left: self.keeps_left, is_strict: self.is_strict, time, right_time, keys, others, schema })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let (left, right): (Vec<usize>, Vec<usize>) = output_columns.iter().partition(|column| **column < width);
        Some(vec![left, right.into_iter().map(|column| column - width).collect()])
    }
}

fn joined(left: &LogicalPlan, right: &LogicalPlan, keeps_left: bool) -> DfResult<DFSchemaRef> {
    let kind = if keeps_left { JoinType::Left } else { JoinType::Inner };
    Ok(Arc::new(build_join_schema(left.schema(), right.schema(), &kind)?))
}

/// The rule.
#[derive(Debug)]
pub struct RecogniseAsOf;

impl AnalyzerRule for RecogniseAsOf {
    fn name(&self) -> &'static str {
        "recognise_as_of"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> DfResult<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Join(join) if join.filter.iter().any(holds_marker) => {
                let node = recognise(join)?;
                Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
            }
            other => Ok(Transformed::no(other)),
        });
        Ok(plan?.data)
    }
}

fn marker(expr: &Expr) -> Option<(&str, &[Expr])> {
    match expr {
        Expr::ScalarFunction(call) if [LATEST, LATEST_BEFORE, SYSTEM_TIME].contains(&call.func.name()) => {
            Some((call.func.name(), &call.args))
        }
        _ => None,
    }
}

fn holds_marker(filter: &Expr) -> bool {
    datafusion::logical_expr::utils::split_conjunction(filter).into_iter().any(|condition| marker(condition).is_some())
}

fn recognise(join: Join) -> DfResult<AsOfJoin> {
    let keeps_left = match join.join_type {
        JoinType::Inner => false,
        JoinType::Left => true,
        other => return plan_err!("a join with the latest row is INNER or LEFT, and this one is {other}"),
    };
    let (left, right) = (Arc::unwrap_or_clone(join.left), Arc::unwrap_or_clone(join.right));
    let of = |expr: &Expr, plan: &LogicalPlan| {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.iter().all(|column| plan.schema().has_column(column))
    };
    let (mut keys, mut others, mut found) = (join.on, Vec::new(), None);
    for condition in join.filter.into_iter().flat_map(split_conjunction_owned) {
        if let Some((name, arguments)) = marker(&condition) {
            found = match (name, arguments) {
                (SYSTEM_TIME, [time]) if of(time, &left) => Some((false, time.clone(), None)),
                (SYSTEM_TIME, [time]) => {
                    return plan_err!("FOR SYSTEM_TIME AS OF takes the event time of the stream before JOIN, and {time} is not of it");
                }
                (_, [later, earlier]) if of(later, &left) && of(earlier, &right) => {
                    Some((name == LATEST_BEFORE, later.clone(), Some(earlier.clone())))
                }
                (_, [later, earlier]) if of(later, &right) && of(earlier, &left) => {
                    return plan_err!(
                        "MATCH_CONDITION looks for rows that come after {earlier}: over a stream nobody knows how long to wait; write \
                         ({earlier} >= {later}), which takes the latest row before it"
                    );
                }
                _ => {
                    return plan_err!(
                        "MATCH_CONDITION compares the event time of the left side with that of the right, as in (a.ts >= b.ts)"
                    );
                }
            };
            continue;
        }
        match condition {
            Expr::BinaryExpr(BinaryExpr { left: l, op: Operator::Eq, right: r }) if of(&l, &left) && of(&r, &right) => keys.push((*l, *r)),
            Expr::BinaryExpr(BinaryExpr { left: l, op: Operator::Eq, right: r }) if of(&r, &left) && of(&l, &right) => keys.push((*r, *l)),
            other => others.push(other),
        }
    }
    let Some((is_strict, time, right_time)) = found else { return plan_err!("a join with the latest row has no time to go by") };
    let schema = joined(&left, &right, keeps_left)?;
    Ok(AsOfJoin { left, right, keeps_left, is_strict, time, right_time, keys, others, schema })
}
