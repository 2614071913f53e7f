//! `ASOF JOIN` and `FOR SYSTEM_TIME AS OF`, before and after sqlparser.
//!
//! sqlparser reads one spelling, `ASOF JOIN t MATCH_CONDITION (..) ON ..`, without LEFT, and no table version in our
//! dialect. So before parsing ([`rewrite`]) every spelling becomes that one, the kind of join in a call around the condition:
//! - `ASOF [LEFT | INNER] JOIN t MATCH_CONDITION (c) ON ..`, `LEFT ASOF JOIN ..`;
//! - `ASOF JOIN t ON k = k AND a.ts >= b.ts`, the condition among the others (RisingWave's);
//! - `[LEFT] JOIN t FOR SYSTEM_TIME AS OF a.ts [AS p] ON ..`.
//!
//! After parsing ([`normalize`]) it becomes a plain join whose ON holds a marker of [`crate::sql::asof`]. Every token keeps its
//! place.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinConstraint, JoinOperator, ObjectName,
    Query, Select, Spanned, TableFactor, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::tokens::{closing, is_word, made_word, word, words_at};
use crate::sql::asof::{LATEST, LATEST_BEFORE, SYSTEM_TIME};
use crate::sql::error::{Code, Place, SqlError};

/// How the calls around a condition are named, for INNER and LEFT.
const LATEST_KINDS: [&str; 2] = ["__latest_inner", "__latest_left"];
const SYSTEM_TIME_KINDS: [&str; 2] = ["__system_time_inner", "__system_time_left"];

const ASOF: &str = "write a ASOF [LEFT] JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.patient_id = b.patient_id";
const VERSION: &str = "write s [LEFT] JOIN t FOR SYSTEM_TIME AS OF s.ts AS t ON s.patient_id = t.patient_id";

/// A join whose condition has not come yet.
struct Pending {
    depth: usize,
    place: Span,
    call: &'static str,
    /// What the call holds where it is not written in MATCH_CONDITION.
    inside: Vec<TokenWithSpan>,
}

/// Brings every spelling to the one that sqlparser reads.
pub fn rewrite(tokens: &[TokenWithSpan]) -> Result<Vec<TokenWithSpan>, SqlError> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut pending: Vec<Pending> = Vec::new();
    let (mut i, mut depth) = (0, 0_usize);
    while i < tokens.len() {
        let token = &tokens[i];
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.saturating_sub(1);
                if let Some(open) = pending.last().filter(|open| open.depth > depth) {
                    return Err(without_on(open));
                }
            }
            _ => {}
        }
        if is_word(token, "ASOF")
            && let Some((call, next)) = asof_join(tokens, i, &mut out)?
        {
            pending.push(Pending { depth, place: token.span, call, inside: Vec::new() });
            i = next;
            continue;
        }
        if words_at(tokens, i, &["FOR", "SYSTEM_TIME"]) {
            let (version, next) = system_time(tokens, i, depth, &mut out)?;
            pending.push(version);
            i = next;
            continue;
        }
        if let Some(open) = pending.last().filter(|open| open.depth == depth) {
            if is_word(token, "MATCH_CONDITION") && open.inside.is_empty() {
                let close = closing(tokens, i + 1).ok_or_else(|| without_on(open))?;
                out.extend_from_slice(&tokens[i..i + 2]);
                out.push(made_word(open.call, token.span));
                out.extend_from_slice(&tokens[i + 1..=close]);
                out.push(tokens[close].clone());
                pending.pop();
                i = close + 1;
                continue;
            }
            if is_word(token, "ON") || is_word(token, "USING") {
                let bracket = |token: Token| TokenWithSpan::new(token, open.place);
                out.extend([made_word("MATCH_CONDITION", open.place), bracket(Token::LParen), made_word(open.call, open.place)]);
                out.push(bracket(Token::LParen));
                out.extend_from_slice(&open.inside);
                out.extend([bracket(Token::RParen), bracket(Token::RParen)]);
                pending.pop();
            }
        }
        out.push(token.clone());
        i += 1;
    }
    match pending.last() {
        Some(open) => Err(without_on(open)),
        None => Ok(out),
    }
}

fn without_on(open: &Pending) -> SqlError {
    let (name, hint) = if LATEST_KINDS.contains(&open.call) { ("ASOF JOIN", ASOF) } else { ("FOR SYSTEM_TIME AS OF", VERSION) };
    SqlError::syntax(format!("{name} has no condition")).at(Place::of(open.place)).hint(hint)
}

/// `ASOF .. JOIN` at `i`, and what stands before it: the call that says its kind, and where the table begins.
fn asof_join(tokens: &[TokenWithSpan], i: usize, out: &mut Vec<TokenWithSpan>) -> Result<Option<(&'static str, usize)>, SqlError> {
    let mut next = i + 1;
    let mut kind = word_at(tokens, next).filter(|w| w != "JOIN");
    if kind.is_some() {
        next += 1;
        if words_at(tokens, next, &["OUTER"]) {
            next += 1;
        }
    }
    if !words_at(tokens, next, &["JOIN"]) {
        return Ok(None);
    }
    if kind.is_none() {
        // `LEFT ASOF JOIN`
        let kinds = ["LEFT", "RIGHT", "FULL", "INNER", "CROSS", "SEMI", "ANTI"];
        if out.last().is_some_and(|t| is_word(t, "OUTER")) {
            out.pop();
        }
        kind = out.last().and_then(word).map(str::to_ascii_uppercase).filter(|w| kinds.contains(&w.as_str()));
        if kind.is_some() {
            out.pop();
        }
    }
    let call = match kind.as_deref() {
        None | Some("INNER") => LATEST_KINDS[0],
        Some("LEFT") => LATEST_KINDS[1],
        Some(other) => {
            let error = SqlError::not_supported(&format!("ASOF {other} JOIN")).at(Place::of(tokens[i].span));
            return Err(error.hint("a row is looked up for each row of the left side: write ASOF JOIN or ASOF LEFT JOIN"));
        }
    };
    out.extend([tokens[i].clone(), tokens[next].clone()]);
    Ok(Some((call, next + 1)))
}

fn word_at(tokens: &[TokenWithSpan], i: usize) -> Option<String> {
    tokens.get(i).and_then(word).map(str::to_ascii_uppercase)
}

/// `FOR SYSTEM_TIME AS OF column` at `i`, behind `[LEFT] JOIN table`.
fn system_time(tokens: &[TokenWithSpan], i: usize, depth: usize, out: &mut Vec<TokenWithSpan>) -> Result<(Pending, usize), SqlError> {
    let place = tokens[i].span;
    let wrong = |message: &str| SqlError::syntax(message).at(Place::of(place)).hint(VERSION);
    if !words_at(tokens, i + 2, &["AS", "OF"]) {
        return Err(SqlError::not_supported("FOR SYSTEM_TIME other than AS OF").at(Place::of(place)).hint(VERSION));
    }
    let mut next = i + 4;
    let mut inside = Vec::new();
    while let Some(token) = tokens.get(next).filter(|t| matches!(t.token, Token::Word(_))) {
        inside.push(token.clone());
        next += 1;
        match tokens.get(next).map(|t| &t.token) {
            Some(Token::Period) => inside.push(tokens[next].clone()),
            Some(Token::LParen) => {
                let name = inside.iter().map(|t| t.token.to_string()).collect::<String>();
                let error = SqlError::not_supported(&format!("FOR SYSTEM_TIME AS OF {name}(..)")).at(Place::of(place));
                return Err(error.hint(
                    "name the event time of the stream, as in FOR SYSTEM_TIME AS OF s.ts: results then do not depend on when they are made",
                ));
            }
            _ => break,
        }
        next += 1;
    }
    if inside.is_empty() {
        return Err(wrong("FOR SYSTEM_TIME AS OF names no column"));
    }
    // The table, and how it is joined.
    let table = out.pop().filter(|t| word(t).is_some()).ok_or_else(|| wrong("FOR SYSTEM_TIME AS OF stands behind the name of a table"))?;
    let join = out.pop().filter(|t| is_word(t, "JOIN"));
    let Some(join) = join else {
        return Err(SqlError::not_supported("FOR SYSTEM_TIME AS OF outside of a JOIN").at(Place::of(place)).hint(VERSION));
    };
    if out.last().is_some_and(|t| is_word(t, "OUTER")) {
        out.pop();
    }
    let kinds = ["LEFT", "RIGHT", "FULL", "INNER", "CROSS", "SEMI", "ANTI", "NATURAL"];
    let kind = out.last().and_then(word).map(str::to_ascii_uppercase).filter(|w| kinds.contains(&w.as_str()));
    if kind.is_some() {
        out.pop();
    }
    let call = match kind.as_deref() {
        None | Some("INNER") => SYSTEM_TIME_KINDS[0],
        Some("LEFT") => SYSTEM_TIME_KINDS[1],
        Some(other) => {
            let error = SqlError::not_supported(&format!("{other} JOIN .. FOR SYSTEM_TIME AS OF")).at(Place::of(place));
            return Err(error.hint("a row is looked up for each row of the stream: write JOIN or LEFT JOIN"));
        }
    };
    out.extend([made_word("ASOF", join.span), join, table]);
    Ok((Pending { depth, place, call, inside }, next))
}

/// Brings every such join of a parsed query to a plain join with a marker.
pub fn normalize(query: &mut Query) -> Result<(), SqlError> {
    match query.visit(&mut Joins) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Joins;

impl VisitorMut for Joins {
    type Break = Box<SqlError>;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        all(select.from.iter_mut().flat_map(|table| &mut table.joins))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => all(table_with_joins.joins.iter_mut()),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn all<'a>(joins: impl Iterator<Item = &'a mut Join>) -> ControlFlow<Box<SqlError>> {
    for join in joins {
        if let JoinOperator::AsOf { match_condition: Expr::Function(call), constraint } = &join.join_operator {
            match plain(call.clone(), constraint.clone()) {
                Ok(operator) => join.join_operator = operator,
                Err(error) => return ControlFlow::Break(Box::new(error)),
            }
        }
    }
    ControlFlow::Continue(())
}

fn plain(mut call: Function, constraint: JoinConstraint) -> Result<JoinOperator, SqlError> {
    let place = Place::of(call.name.span());
    let name = call.name.to_string();
    let keeps_left = name == LATEST_KINDS[1] || name == SYSTEM_TIME_KINDS[1];
    let is_table = SYSTEM_TIME_KINDS.contains(&name.as_str());
    let mut on = match constraint {
        JoinConstraint::On(on) => Some(on),
        JoinConstraint::None => None,
        JoinConstraint::Using(_) | JoinConstraint::Natural => {
            let name = if is_table { "USING with FOR SYSTEM_TIME AS OF" } else { "USING in ASOF JOIN" };
            return Err(SqlError::not_supported(name).at(place).hint("write ON a.patient_id = b.patient_id"));
        }
    };
    let inside = match arguments(&call)?.as_slice() {
        [inside] => Some(inside.clone()),
        _ => on.take().and_then(|all| {
            let (condition, rest) = comparison(all);
            on = rest;
            condition
        }),
    };
    let wrong = || SqlError::syntax("ASOF JOIN compares the times of both sides once").at(place).hint(ASOF);
    let inside = inside.ok_or_else(wrong)?;
    let (name, parts) = if is_table {
        (SYSTEM_TIME, vec![inside])
    } else {
        let (op, left, right) = compared(&inside).ok_or_else(wrong)?;
        match op {
            BinaryOperator::GtEq => (LATEST, vec![left, right]),
            BinaryOperator::Gt => (LATEST_BEFORE, vec![left, right]),
            BinaryOperator::LtEq => (LATEST, vec![right, left]),
            _ => (LATEST_BEFORE, vec![right, left]),
        }
    };
    let span = call.name.span();
    call.name = ObjectName::from(vec![Ident::with_span(span, name)]);
    if let FunctionArguments::List(list) = &mut call.args {
        list.args = parts.into_iter().map(|part| FunctionArg::Unnamed(FunctionArgExpr::Expr(part))).collect();
    }
    let marker = Expr::Function(call);
    let on = match on {
        Some(on) => Expr::BinaryOp { left: Box::new(marker), op: BinaryOperator::And, right: Box::new(Expr::Nested(Box::new(on))) },
        None => marker,
    };
    let on = JoinConstraint::On(on);
    Ok(if keeps_left { JoinOperator::LeftOuter(on) } else { JoinOperator::Inner(on) })
}

/// Stands before the condition of an `ASOF LEFT JOIN` while it is printed, for sqlparser knows no LEFT there.
const LEFT_MARK: char = '\u{1}';

/// Turns joins with a marker back into the spelling of the dialect; [`spelled`] ends it over the printed text.
pub fn spell<'a>(joins: impl Iterator<Item = &'a mut Join>) {
    for join in joins {
        let (on, keeps_left) = match &join.join_operator {
            JoinOperator::Inner(JoinConstraint::On(on)) => (on, false),
            JoinOperator::LeftOuter(JoinConstraint::On(on)) => (on, true),
            _ => continue,
        };
        let (call, rest) = match on {
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => match (left.as_ref(), right.as_ref()) {
                (Expr::Function(call), Expr::Nested(rest)) => (call, JoinConstraint::On(rest.as_ref().clone())),
                _ => continue,
            },
            Expr::Function(call) => (call, JoinConstraint::None),
            _ => continue,
        };
        let Ok(parts) = arguments(call) else { continue };
        match (call.name.to_string().as_str(), parts.as_slice()) {
            (SYSTEM_TIME, [time]) => {
                let TableFactor::Table { name, .. } = &mut join.relation else { continue };
                // sqlparser would print the version behind the alias.
                *name = ObjectName::from(vec![Ident::new(format!("{name} FOR SYSTEM_TIME AS OF {time}"))]);
                join.join_operator = if keeps_left { JoinOperator::Left(rest) } else { JoinOperator::Join(rest) };
            }
            (name @ (LATEST | LATEST_BEFORE), [later, earlier]) => {
                let op = if name == LATEST { BinaryOperator::GtEq } else { BinaryOperator::Gt };
                let later = if keeps_left { Expr::Identifier(Ident::new(format!("{LEFT_MARK}{later}"))) } else { later.clone() };
                let match_condition = Expr::BinaryOp { left: Box::new(later), op, right: Box::new(earlier.clone()) };
                join.join_operator = JoinOperator::AsOf { match_condition, constraint: rest };
            }
            _ => {}
        }
    }
}

/// The text of a query whose joins went through [`spell`].
pub fn spelled(mut text: String) -> String {
    const JOIN: &str = "ASOF JOIN ";
    while let Some(mark) = text.find(LEFT_MARK) {
        text.remove(mark);
        if let Some(join) = text[..mark].rfind(JOIN) {
            text.replace_range(join..join + JOIN.len(), "ASOF LEFT JOIN ");
        }
    }
    text
}

/// The arguments of the call around the condition.
fn arguments(call: &Function) -> Result<Vec<Expr>, SqlError> {
    let FunctionArguments::List(list) = &call.args else { return Ok(Vec::new()) };
    let argument = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr.clone()),
        other => {
            Err(SqlError::new(Code::Syntax, format!("MATCH_CONDITION does not take {other}")).at(Place::of(call.name.span())).hint(ASOF))
        }
    };
    list.args.iter().map(argument).collect()
}

fn compared(expr: &Expr) -> Option<(BinaryOperator, Expr, Expr)> {
    match expr {
        Expr::Nested(inner) => compared(inner),
        Expr::BinaryOp {
            left,
            op: op @ (BinaryOperator::GtEq | BinaryOperator::Gt | BinaryOperator::LtEq | BinaryOperator::Lt),
            right,
        } => Some((op.clone(), left.as_ref().clone(), right.as_ref().clone())),
        _ => None,
    }
}

/// Takes the one comparison out of conditions joined by AND.
fn comparison(all: Expr) -> (Option<Expr>, Option<Expr>) {
    match all {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            let (found, rest) = comparison(*right);
            let left_of = |rest: Option<Expr>, left: Expr| match rest {
                Some(rest) => Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(rest) },
                None => left,
            };
            if found.is_some() {
                return (found, Some(left_of(rest, *left)));
            }
            let (found, before) = comparison(*left);
            let rest = match (before, rest) {
                (Some(before), rest) => Some(left_of(rest, before)),
                (None, rest) => rest,
            };
            (found, rest)
        }
        other if compared(&other).is_some() => (Some(other), None),
        other => (None, Some(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::dialect::split_script;

    fn check(before: &str, after: &str) {
        let piece = split_script(before).expect("it is whole").remove(0);
        let tokens = rewrite(&piece.tokens).expect("it can be rewritten");
        let text = tokens.iter().map(|t| t.token.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(text, after, "{before}");
    }

    #[test]
    fn every_spelling_of_a_join_with_the_latest_row_becomes_one() {
        let latest = |kind: &str| format!("FROM a ASOF JOIN b MATCH_CONDITION ( __latest_{kind} ( a . ts >= b . ts ) ) ON a . k = b . k");
        check("FROM a ASOF JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.k = b.k", &latest("inner"));
        check("FROM a ASOF INNER JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.k = b.k", &latest("inner"));
        check("FROM a ASOF LEFT JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.k = b.k", &latest("left"));
        check("FROM a LEFT OUTER ASOF JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.k = b.k", &latest("left"));
        check(
            "FROM a ASOF JOIN b ON a.k = b.k AND a.ts >= b.ts",
            "FROM a ASOF JOIN b MATCH_CONDITION ( __latest_inner ( ) ) ON a . k = b . k AND a . ts >= b . ts",
        );
        let version = |kind: &str| format!("FROM v ASOF JOIN t AS p MATCH_CONDITION ( __system_time_{kind} ( v . ts ) ) ON v . k = p . k");
        check("FROM v LEFT JOIN t FOR SYSTEM_TIME AS OF v.ts AS p ON v.k = p.k", &version("left"));
        check("FROM v JOIN t FOR SYSTEM_TIME AS OF v.ts AS p ON v.k = p.k", &version("inner"));
        check("SELECT asof FROM a WHERE x IN (SELECT y FROM b)", "SELECT asof FROM a WHERE x IN ( SELECT y FROM b )");
    }
}
