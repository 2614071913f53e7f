//! Joins of two streams: what is equal, how far apart in time, and what else must be true.
//!
//! Owns the lowering of DataFusion's join node. Of its conditions, those that compare the event times of both sides
//! become a range of time, equalities become the key, and the rest is asked of every pair. Always: a join over
//! streams has a range of time with two ends, or nothing could ever be forgotten. Where the conditions leave one open, `state.ttl`
//! closes it: rows further apart do not meet. One without either is refused by name.
//! Called by `walk`.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, DFSchemaRef, JoinType, NullEquality};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Between, BinaryExpr, Expr as LogicalExpr, ExprSchemable, Join, Operator, binary_expr};

use super::flow::{Flow, Fork, JoinStep};
use super::lineage::{Lineage, column_of, lineage_of};
use super::walk::{Chain, Lowered, Walk, refused};
use crate::sql::error::{Code, SqlError};
use crate::sql::statement::StateTtl;
use crate::sql::types::sql_type;
use crate::sql::windows::interval_millis;
use crate::stream::{Expr, IntervalSpec, JoinKind, Side};

/// What to write where there is no range of time.
const RANGE: &str = "say how far apart in time rows belong together, as in a.ts BETWEEN b.ts - INTERVAL '5' MINUTE AND b.ts";
/// What else one can write there.
const TTL: &str = "or let go of rows that have waited so long for partners, WITH ('state.ttl' = '1d'): rows further apart do not meet then";
/// As far apart as rows may be where they are kept for ever, in milliseconds: a thousand years.
const FOREVER_MS: i64 = 1000 * 365 * 86_400_000;

/// The right row's time, less the left one's, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    least: i64,
    greatest: i64,
}

/// The conditions of a join, told apart.
struct Conditions {
    keys: Vec<[LogicalExpr; 2]>,
    range: Range,
    /// How long rows wait for partners, where the conditions alone do not say it.
    ttl: Option<i64>,
    others: Vec<LogicalExpr>,
}

/// Whether a join compares times of both sides: over stored data it may be one in event time.
pub(in crate::sql) fn compares_times(join: &Join) -> bool {
    let is_time = |expr: &LogicalExpr, schema: &DFSchema| matches!(expr.get_type(schema), Ok(DataType::Timestamp(..)));
    let [left, right] = [join.left.schema(), join.right.schema()];
    if join.on.iter().any(|(l, r)| is_time(l, left) && is_time(r, right)) {
        return true;
    }
    let Some(filter) = &join.filter else { return false };
    let Ok(both) = left.join(right) else { return false };
    split_conjunction_owned(filter.clone()).into_iter().flat_map(without_between).any(|condition| match condition {
        LogicalExpr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let compares = matches!(op, Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
            compares && is_time(&left, &both) && is_time(&right, &both)
        }
        _ => false,
    })
}

impl Walk<'_> {
    /// Lowers a join of two streams.
    pub(super) fn join(&self, join: &Join) -> Lowered {
        let (left, right) = (self.lower(&join.left)?, self.lower(&join.right)?);
        let kind = kind_of(join)?;
        let schemas = [join.left.schema(), join.right.schema()];
        let conditions = conditions(join, [&left, &right], &schemas, self.how.join_ttl())?;
        let mut keys: [Vec<Arc<dyn Expr>>; 2] = [Vec::new(), Vec::new()];
        for pair in &conditions.keys {
            check_types([&pair[0], &pair[1]], &schemas)?;
            for side in 0..2 {
                keys[side].push(self.expr(&pair[side], schemas[side])?);
            }
        }
        let condition = match conjunction(conditions.others.clone()) {
            None => None,
            Some(condition) => Some(self.expr(&condition, &Arc::new(schemas[0].join(schemas[1])?))?),
        };
        let spec = IntervalSpec {
            kind,
            inputs: schemas.map(|schema| Arc::clone(schema.inner())),
            keys,
            null_equals_null: join.null_equality == NullEquality::NullEqualsNull,
            least_ms: conditions.range.least,
            greatest_ms: conditions.range.greatest,
            condition,
            schema: Arc::clone(join.schema.inner()),
        };
        let local = together([&left, &right], &conditions.keys, &schemas);
        let columns = lineage(kind, conditions.range, local, [&left, &right]);
        Ok(joined(left, right, JoinStep::Interval(spec, conditions.ttl), local, columns))
    }
}

/// Both sides of an equality are of one type.
pub(super) fn check_types(pair: [&LogicalExpr; 2], schemas: &[&DFSchemaRef; 2]) -> Result<(), SqlError> {
    let (left, right) = (pair[0].get_type(schemas[0].as_ref())?, pair[1].get_type(schemas[1].as_ref())?);
    if left == right {
        return Ok(());
    }
    let (left, right) = (sql_type(&left), sql_type(&right));
    let error = SqlError::new(
        Code::TypeMismatch,
        format!("{} = {} compares {left} with {right}", pair[0].human_display(), pair[1].human_display()),
    );
    Err(error.hint("CAST one of them to the type of the other"))
}

/// The chain behind a join.
pub(super) fn joined(left: Chain, right: Chain, join: JoinStep, local: bool, columns: Vec<Lineage>) -> Chain {
    let flow = |chain: &mut Chain| Flow { fork: chain.fork.take(), steps: std::mem::take(&mut chain.steps), changes: None };
    let (mut left, mut right) = (left, right);
    let fork = Fork { left: flow(&mut left), right: flow(&mut right), join };
    left.inputs.extend(right.inputs);
    let partitions = left.partitions.max(right.partitions);
    Chain { fork: Some(Arc::new(fork)), steps: Vec::new(), columns, local, partitions, inputs: left.inputs, source: left.source }
}

fn kind_of(join: &Join) -> Result<JoinKind, SqlError> {
    if join.null_aware {
        return Err(refused("NOT IN with a subquery", "write NOT EXISTS (SELECT .. WHERE ..) with a range of time"));
    }
    Ok(match join.join_type {
        JoinType::Inner => JoinKind::Inner,
        JoinType::Left => JoinKind::Left,
        JoinType::Right => JoinKind::Right,
        JoinType::Full => JoinKind::Full,
        JoinType::LeftSemi => JoinKind::Semi(Side::Left),
        JoinType::RightSemi => JoinKind::Semi(Side::Right),
        JoinType::LeftAnti => JoinKind::Anti(Side::Left),
        JoinType::RightAnti => JoinKind::Anti(Side::Right),
        JoinType::LeftMark | JoinType::RightMark => {
            return Err(refused("EXISTS or IN beside OR", "write the join, or one query for each of the alternatives"));
        }
    })
}

/// Tells the conditions of a join apart.
fn conditions(join: &Join, sides: [&Chain; 2], schemas: &[&DFSchemaRef; 2], ttl: StateTtl) -> Result<Conditions, SqlError> {
    let range = Range { least: i64::MIN, greatest: i64::MAX };
    let mut found = Conditions { keys: Vec::new(), range, ttl: None, others: Vec::new() };
    let time = |side: usize, expr: &LogicalExpr| in_time(expr, schemas[side], sides[side]);
    for (left, right) in &join.on {
        if let (Some(l), Some(r)) = (time(0, left), time(1, right)) {
            found.range.narrow(Operator::Eq, &l, &r);
            if l.exact && r.exact {
                continue;
            }
        }
        if let (Some(l), Some(r)) = (around(left, schemas[0], sides[0]), around(right, schemas[1], sides[1])) {
            // Both have this value, so they are no further apart than the rows of one side and of the other lie from it.
            found.range.least = found.range.least.max(-(r.0 + l.1));
            found.range.greatest = found.range.greatest.min(r.1 + l.0);
        }
        found.keys.push([left.clone(), right.clone()]);
    }
    let conjuncts = join.filter.iter().cloned().flat_map(split_conjunction_owned).flat_map(without_between);
    for condition in conjuncts {
        let sides = match &condition {
            LogicalExpr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let straight = time(0, left).zip(time(1, right)).map(|(l, r)| (*op, l, r));
                // `b.ts <= a.ts` says the same as `a.ts >= b.ts`.
                straight.or_else(|| Some((op.swap()?, time(0, right)?, time(1, left)?)))
            }
            _ => None,
        };
        match sides {
            Some((op, left, right)) if found.range.narrow(op, &left, &right) => {
                if !(left.exact && right.exact) {
                    found.others.push(condition);
                }
            }
            _ => found.others.push(condition),
        }
    }
    let ends = (found.range.least > i64::MIN, found.range.greatest < i64::MAX);
    let waits = match ttl {
        StateTtl::For(ttl) => Some(ttl.as_millis() as i64),
        StateTtl::Forever => Some(FOREVER_MS),
        StateTtl::Unstated => None,
    };
    // Without an equality every row would wait for every other one.
    let is_bound = !found.keys.is_empty() || ends != (false, false);
    if let (true, Some(ttl)) = (ends != (true, true) && is_bound, waits) {
        if let Some(side) = sides.iter().find(|side| side.source.time.is_none()) {
            let message = format!("'state.ttl' counts in event time, and stream \"{}\" has none", side.source.name);
            return Err(SqlError::new(Code::NotOnAStream, message).hint("declare one: WATERMARK FOR ts AS ts - INTERVAL '5' SECOND"));
        }
        found.range = Range { least: found.range.least.max(-ttl), greatest: found.range.greatest.min(ttl) };
        found.ttl = Some(ttl);
        return Ok(found);
    }
    match ends {
        (true, true) => Ok(found),
        (false, false) if matches!(join.join_type, JoinType::LeftSemi | JoinType::RightSemi | JoinType::LeftAnti | JoinType::RightAnti) => {
            Err(refused("IN or EXISTS with a subquery and no range of time", RANGE).note(TTL))
        }
        (false, false) => Err(refused("JOIN without a range of time", RANGE).note(TTL)),
        _ => Err(refused("JOIN with a range of time that is open at one end", RANGE)
            .note("both ends are needed: a row is kept until no partner can come any more")
            .note(TTL)),
    }
}

impl Range {
    /// `left op right`. Answers whether that is a bound at all.
    fn narrow(&mut self, op: Operator, left: &InTime, right: &InTime) -> bool {
        let by = left.after_ms.saturating_sub(right.after_ms);
        // Where a column says more than its milliseconds, the range is a little wider and the condition is asked besides.
        let slack = i64::from(!(left.exact && right.exact));
        let (mut least, mut greatest) = (i64::MIN, i64::MAX);
        match op {
            Operator::Eq => (least, greatest) = (by, by),
            Operator::GtEq => greatest = by,
            Operator::Gt => greatest = by.saturating_sub(1),
            Operator::LtEq => least = by,
            Operator::Lt => least = by.saturating_add(1),
            _ => return false,
        }
        self.least = self.least.max(least.saturating_sub(slack));
        self.greatest = self.greatest.min(greatest.saturating_add(slack));
        true
    }
}

/// An event time with a length added to it.
struct InTime {
    after_ms: i64,
    /// Whether the column says no more than its milliseconds.
    exact: bool,
}

/// The expression as the event time of a side and a constant length.
fn in_time(expr: &LogicalExpr, schema: &DFSchemaRef, side: &Chain) -> Option<InTime> {
    match expr {
        LogicalExpr::Column(column) => {
            let at = schema.maybe_index_of_column(column)?;
            let exact = matches!(schema.field(at).data_type(), DataType::Timestamp(TimeUnit::Millisecond, _));
            let lineage = side.columns.get(at)?;
            let behind = lineage.behind_ms.filter(|_| lineage.time)?;
            Some(InTime { after_ms: -behind, exact })
        }
        LogicalExpr::Alias(alias) => in_time(&alias.expr, schema, side),
        LogicalExpr::Cast(cast) if matches!(cast.field.data_type(), DataType::Timestamp(..)) => in_time(&cast.expr, schema, side),
        LogicalExpr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
            let (of, by) = match length(right) {
                Some(by) => (left, by),
                None => (right, length(left)?),
            };
            let of = in_time(of, schema, side)?;
            Some(InTime { after_ms: of.after_ms.checked_add(by)?, ..of })
        }
        LogicalExpr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            let of = in_time(left, schema, side)?;
            Some(InTime { after_ms: of.after_ms.checked_sub(length(right)?)?, ..of })
        }
        _ => None,
    }
}

/// How far around the value of an expression the row's time lies, where it is one of its times or its window's.
fn around(expr: &LogicalExpr, schema: &DFSchemaRef, side: &Chain) -> Option<(i64, i64)> {
    side.columns.get(column_of(expr, schema)?)?.around()
}

/// The milliseconds of a constant INTERVAL, which may be negative.
fn length(expr: &LogicalExpr) -> Option<i64> {
    match expr {
        LogicalExpr::Literal(value, _) => interval_millis(value),
        LogicalExpr::Negative(inner) => length(inner).map(|ms| -ms),
        LogicalExpr::Cast(cast) => length(&cast.expr),
        _ => None,
    }
}

/// `BETWEEN` as its two comparisons.
fn without_between(condition: LogicalExpr) -> Vec<LogicalExpr> {
    match condition {
        LogicalExpr::Between(Between { expr, negated: false, low, high }) => {
            vec![binary_expr(*expr.clone(), Operator::GtEq, *low), binary_expr(*expr, Operator::LtEq, *high)]
        }
        other => vec![other],
    }
}

/// Whether rows that meet lie in partitions of one number: as many partitions on both sides, and keys that place the
/// rows of each.
pub(super) fn together(sides: [&Chain; 2], keys: &[[LogicalExpr; 2]], schemas: &[&DFSchemaRef; 2]) -> bool {
    let [left, right] = sides;
    let placed = |pair: &[LogicalExpr; 2]| (0..2).all(|side| lineage_of(&pair[side], schemas[side], &sides[side].columns).placed);
    let one_each = left.partitions == 1 && right.partitions == 1;
    one_each || (left.local && right.local && left.partitions == right.partitions && keys.iter().any(placed))
}

/// Where the columns of the result come from.
fn lineage(kind: JoinKind, range: Range, local: bool, sides: [&Chain; 2]) -> Vec<Lineage> {
    let same_time = range == Range { least: 0, greatest: 0 };
    // The side that every row of the result has, and whose event time is the result's.
    let of = match kind {
        JoinKind::Inner | JoinKind::Left => Some(Side::Left),
        JoinKind::Right => Some(Side::Right),
        JoinKind::Semi(side) | JoinKind::Anti(side) => Some(side),
        JoinKind::Full => None,
    };
    let shown = Side::BOTH.into_iter().filter(|side| !matches!(kind, JoinKind::Semi(of) | JoinKind::Anti(of) if of != *side));
    let column = |side: Side, column: &Lineage| {
        let own = of == Some(side);
        let always = own || kind == JoinKind::Inner;
        // How much younger the result may be than the row of this side.
        let younger = match (own, side) {
            (true, _) => 0,
            (false, Side::Left) => range.greatest,
            (false, Side::Right) => -range.least,
        };
        Lineage {
            time: column.time && (own || (same_time && kind == JoinKind::Inner)),
            placed: column.placed && local && always,
            key: column.key && own,
            group: None,
            behind_ms: column.behind_ms,
            span_ms: column.span_ms.filter(|_| own),
            rank: false,
            change: None,
            // Where the side may be missing its times say nothing of the row.
            until: column.until.filter(|_| always).and_then(|until| until.checked_add(younger)),
        }
    };
    shown.flat_map(|side| sides[side as usize].columns.iter().map(move |of| column(side, of))).collect()
}
