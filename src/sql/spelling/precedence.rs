//! `a IS [NOT] DISTINCT FROM b AND c`: the parser takes all that follows as the right side, as if `b AND c` stood in brackets.
//!
//! Always: what comes out is grouped as Postgres and Flink do, IS before NOT before AND before OR. What the user put in brackets is
//! [`Expr::Nested`] and stays; what [`regroup`] has grouped is left alone by a second call.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value, VisitMut, VisitorMut};

/// Groups the conditions of a query or an expression as they are meant.
pub fn regroup<T: VisitMut>(of: &mut T) {
    struct Regroup;
    impl VisitorMut for Regroup {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            grouped(expr);
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(of, &mut Regroup);
}

/// What is inside is grouped already. A looser operator on the right has swallowed what follows: it goes on top, and what stood
/// here takes only its first operand.
fn grouped(expr: &mut Expr) {
    let own = match expr {
        Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) | Expr::UnaryOp { op: UnaryOperator::Not, .. } => Strength::Tight,
        Expr::BinaryOp { op: BinaryOperator::And, .. } => Strength::And,
        _ => return,
    };
    let right = match expr {
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => right,
        Expr::UnaryOp { expr: right, .. } | Expr::BinaryOp { right, .. } => right,
        _ => return,
    };
    if strength(right) >= own {
        return;
    }
    let mut top = std::mem::replace(&mut **right, nothing());
    let mut first = &mut top;
    while strength(first) < own {
        match first {
            Expr::BinaryOp { left, .. } => first = left,
            _ => break,
        }
    }
    let operand = std::mem::replace(first, nothing());
    match expr {
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => **right = operand,
        Expr::UnaryOp { expr: right, .. } | Expr::BinaryOp { right, .. } => **right = operand,
        _ => {}
    }
    *first = std::mem::replace(expr, nothing());
    *expr = top;
}

/// How tightly an expression holds together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    Or,
    And,
    Tight,
}

fn strength(expr: &Expr) -> Strength {
    match expr {
        Expr::BinaryOp { op: BinaryOperator::Or, .. } => Strength::Or,
        Expr::BinaryOp { op: BinaryOperator::And, .. } => Strength::And,
        _ => Strength::Tight,
    }
}

fn nothing() -> Expr {
    Expr::Value(Value::Null.into())
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    /// With a bracket around each operator's operands.
    fn bracketed(expr: &Expr) -> String {
        match expr {
            Expr::Nested(inside) => bracketed(inside),
            Expr::BinaryOp { left, op, right } => format!("({} {op} {})", bracketed(left), bracketed(right)),
            Expr::UnaryOp { op, expr } => format!("({op} {})", bracketed(expr)),
            Expr::IsDistinctFrom(left, right) => format!("({} <> {})", bracketed(left), bracketed(right)),
            Expr::IsNotDistinctFrom(left, right) => format!("({} == {})", bracketed(left), bracketed(right)),
            other => other.to_string(),
        }
    }

    fn parsed(text: &str) -> Expr {
        let mut expr = Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
        regroup(&mut expr);
        expr
    }

    #[test]
    fn is_distinct_from_takes_no_more_than_the_next_operand() {
        for (text, expected) in [
            ("a IS DISTINCT FROM b", "(a <> b)"),
            ("a IS NOT DISTINCT FROM b AND c", "((a == b) AND c)"),
            ("a IS DISTINCT FROM b AND c OR d", "(((a <> b) AND c) OR d)"),
            ("a OR b IS DISTINCT FROM c AND d", "(a OR ((b <> c) AND d))"),
            ("a AND b IS DISTINCT FROM c OR d", "((a AND (b <> c)) OR d)"),
            ("a AND b IS DISTINCT FROM c OR d OR e AND f", "(((a AND (b <> c)) OR d) OR (e AND f))"),
            ("NOT a IS DISTINCT FROM b AND c", "((NOT (a <> b)) AND c)"),
            ("NOT a IS DISTINCT FROM b OR c AND d", "((NOT (a <> b)) OR (c AND d))"),
            ("a IS NOT DISTINCT FROM b AND c IS NOT DISTINCT FROM d AND e", "((a == b) AND ((c == d) AND e))"),
            ("a IS DISTINCT FROM b + 1 AND c > 2", "((a <> (b + 1)) AND (c > 2))"),
            ("a IS DISTINCT FROM (b AND c)", "(a <> (b AND c))"),
            ("a AND (b OR c)", "(a AND (b OR c))"),
            ("NOT (a AND b)", "(NOT (a AND b))"),
            ("CASE WHEN a IS DISTINCT FROM b AND c THEN 1 END", "CASE WHEN a IS DISTINCT FROM b AND c THEN 1 END"),
        ] {
            let mut expr = parsed(text);
            assert_eq!(bracketed(&expr), expected, "{text}");
            regroup(&mut expr);
            assert_eq!(bracketed(&expr), expected, "{text}, once more");
        }
    }
}
