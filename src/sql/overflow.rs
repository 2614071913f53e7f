//! Integer arithmetic that fails where a result does not fit its type.
//!
//! DataFusion plans `+`, `-` and `*` so that they wrap around, and offers no option where it plans them: so they become functions of ours.
//! Expressions of streams are strict already ([`super::expr`]); here it is what DataFusion computes itself: constants, before it folds
//! them ([`strict_constants`]), and SELECTs over stored data, once they are optimised, so that no rule misses what it knows ([`strict`]).
//! Always: names, types and NULLs are those of the operator, and an error holds no value of a row.

use std::sync::Arc;

use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError, Result as DfResult};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, Projection, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
};
use datafusion::physical_expr_common::datum::apply;

use super::analyze::in_exact_terms;
use super::error::{Code, SqlError};
use super::types::sql_type;

/// The same plan, whose integer arithmetic and sums fail where they would wrap around.
pub(super) fn strict(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let plan = checked_where(plan, |_| true)?;
    let exact = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(of) => exact_sums(of),
        other => Ok(Transformed::no(other)),
    });
    Ok(exact?.data)
}

/// Sums that have room for more digits than their result, and are then cast to it.
fn exact_sums(of: Aggregate) -> DfResult<Transformed<LogicalPlan>> {
    let mut columns: Vec<Expr> = of.schema.iter().map(Expr::from).collect();
    let first = columns.len() - of.aggr_expr.len();
    let mut calls = of.aggr_expr.clone();
    for (at, call) in calls.iter_mut().enumerate() {
        let written = call.clone().unalias();
        if !matches!(&written, Expr::AggregateFunction(call) if matches!(call.func.name(), "sum" | "avg")) {
            continue;
        }
        let (exact, Some(back)) = in_exact_terms(written, of.input.schema())? else { continue };
        let name = format!("__exact_{at}");
        let (qualifier, field) = of.schema.qualified_field(first + at);
        columns[first + at] = cast(Expr::Column(Column::new_unqualified(&name)), back).alias_qualified(qualifier.cloned(), field.name());
        *call = exact.alias(name);
    }
    if calls == of.aggr_expr {
        return Ok(Transformed::no(LogicalPlan::Aggregate(of)));
    }
    let exact = LogicalPlan::Aggregate(Aggregate::try_new(of.input, of.group_expr, calls)?);
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(exact))?)))
}

/// The same plan, as written, in which arithmetic of integer constants is none that can be folded to a number that has wrapped around.
pub(super) fn strict_constants(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    checked_where(plan, is_constant)
}

fn checked_where(plan: LogicalPlan, holds: impl Fn(&Expr) -> bool + Copy) -> DfResult<LogicalPlan> {
    let strict = plan.transform_up_with_subqueries(|node| {
        // What a table has taken of a filter is its own affair.
        if matches!(node, LogicalPlan::TableScan(_)) {
            return Ok(Transformed::no(node));
        }
        let (schema, names) = (merge_schema(&node.inputs()), NamePreserver::new(&node));
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let strict = expr.transform_up(|expr| if holds(&expr) { checked(expr, &schema) } else { Ok(Transformed::no(expr)) });
            Ok(strict?.update_data(|expr| name.restore(expr)))
        })
    });
    Ok(strict?.data)
}

/// Whether an expression is made of numbers alone.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::BinaryExpr(of) => is_constant(&of.left) && is_constant(&of.right),
        Expr::ScalarFunction(call) => call.func.inner().is::<Checked>() && call.args.iter().all(is_constant),
        Expr::Cast(cast) => is_constant(&cast.expr),
        Expr::Negative(of) => is_constant(of),
        _ => false,
    }
}

fn checked(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &expr else { return Ok(Transformed::no(expr)) };
    if !matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply) {
        return Ok(Transformed::no(expr));
    }
    let of = left.get_type(schema)?;
    if !of.is_integer() || of != right.get_type(schema)? {
        return Ok(Transformed::no(expr));
    }
    let function = Arc::new(ScalarUDF::from(Checked { op: *op, signature: Signature::any(2, Volatility::Immutable) }));
    let args = vec![left.as_ref().clone(), right.as_ref().clone()];
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, args))))
}

/// One of `+`, `-` and `*` over two integers of one type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Operator,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Operator::Plus => "+",
            Operator::Minus => "-",
            _ => "*",
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, of: &[DataType]) -> DfResult<DataType> {
        Ok(of[0].clone())
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), args.arg_fields[0].data_type().clone(), nullable)))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [left, right] = args.args.as_slice() else { return Err(DataFusionError::Internal("an operator has two operands".to_owned())) };
        let done = match self.op {
            Operator::Plus => apply(left, right, add),
            Operator::Minus => apply(left, right, sub),
            _ => apply(left, right, mul),
        };
        done.map_err(|_| {
            let what = format!("the result of {} does not fit {}", self.op, sql_type(&left.data_type()));
            let error = SqlError::new(Code::Execution, what).hint("CAST an operand to DECIMAL(38, 0) or DOUBLE, which reach further");
            DataFusionError::External(Box::new(error))
        })
    }
}
