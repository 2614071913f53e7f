//! Window calls in a parsed query, brought to the normal form that [`crate::sql::statement`] describes.
//!
//! Named arguments take their places, `DESCRIPTOR(ts)` becomes `ts`, the table becomes a subquery, lengths are
//! checked, and the older `GROUP BY TUMBLE(ts, i)` becomes a call in FROM.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, ObjectName, Query, Select, Spanned, TableFactor,
    TableFunctionArgs, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::prepass::{CALLS, PARTITION_BY};
use super::tokens::made_word;
use crate::sql::error::{Code, Place, SqlError, did_you_mean};
use crate::sql::types::interval_millis;

/// How one call is written.
struct Shape {
    name: &'static str,
    /// The arguments behind the table and the time: their names, and what to say where one is missing.
    lengths: &'static [&'static str],
    /// Whether one more length, the offset, may follow.
    offset: bool,
    /// Whether it goes by the columns of PARTITION BY.
    keyed: bool,
    example: &'static str,
}

const SHAPES: [Shape; 6] = [
    Shape {
        name: "tumble",
        lengths: &["size"],
        offset: true,
        keyed: false,
        example: "TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
    },
    Shape {
        name: "hop",
        lengths: &["slide", "size"],
        offset: true,
        keyed: false,
        example: "HOP(TABLE vitals, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '5' MINUTE)",
    },
    Shape {
        name: "cumulate",
        lengths: &["step", "size"],
        offset: true,
        keyed: false,
        example: "CUMULATE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '1' DAY)",
    },
    Shape {
        name: "session",
        lengths: &["gap"],
        offset: false,
        keyed: true,
        example: "SESSION(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '30' SECOND)",
    },
    Shape {
        name: "absent",
        lengths: &["silence"],
        offset: false,
        keyed: true,
        example: "ABSENT(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '30' SECOND)",
    },
    Shape {
        name: GAP_FILL,
        lengths: &["interval"],
        offset: false,
        keyed: true,
        example: "GAP_FILL(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '1' SECOND, LOCF(heart_rate), INTERPOLATE(spo2))",
    },
];

/// The call that takes LOCF and INTERPOLATE behind its interval.
const GAP_FILL: &str = "gap_fill";

/// Names that other dialects give to arguments.
const ALIASES: [(&str, &str); 3] = [("gap", "silence"), ("timecol", "time"), ("data", "input")];

/// Brings every window call of a query to the normal form.
pub fn normalize(query: &mut Query) -> Result<(), SqlError> {
    let mut visitor = Windows;
    match query.visit(&mut visitor) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Windows;

impl VisitorMut for Windows {
    type Break = Box<SqlError>;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        flow(group_form(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        flow(match factor {
            TableFactor::Table { name, args: Some(args), .. } => match shape_of(name) {
                Some(shape) => call(name, shape, args),
                None => Ok(()),
            },
            _ => Ok(()),
        })
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        match expr {
            Expr::Function(function) if shape_of(&function.name).is_some() => {
                let error =
                    SqlError::syntax(format!("{} stands in FROM or GROUP BY, not here", function.name)).at(Place::of(function.name.span()));
                ControlFlow::Break(Box::new(error.hint("its columns are window_start and window_end")))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn flow(result: Result<(), SqlError>) -> ControlFlow<Box<SqlError>> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

fn shape_of(name: &ObjectName) -> Option<&'static Shape> {
    let [part] = name.0.as_slice() else { return None };
    let ident = part.as_ident().filter(|i| i.quote_style.is_none())?;
    SHAPES.iter().find(|s| ident.value.eq_ignore_ascii_case(s.name))
}

/// One call in FROM.
fn call(name: &mut ObjectName, shape: &'static Shape, args: &mut TableFunctionArgs) -> Result<(), SqlError> {
    let place = Place::of(name.span());
    let wrong = |message: String| SqlError::new(Code::BadDefinition, message).at(place).hint(format!("write {}", shape.example));
    if args.settings.is_some() {
        return Err(SqlError::not_supported(&format!("SETTINGS in {}", shape.name)).at(place));
    }
    let (mut written, keys) = take_keys(std::mem::take(&mut args.args))?;
    let fills = if shape.name == GAP_FILL { take_fills(&mut written, shape)? } else { Vec::new() };
    if !keys.is_empty() && !shape.keyed {
        return Err(SqlError::not_supported(&format!("PARTITION BY in {}", shape.name.to_uppercase()))
            .at(Place::of(keys[0].span()))
            .hint("leave it out, and write the columns in GROUP BY"));
    }
    let mut places = vec!["input", "time"];
    places.extend(shape.lengths);
    if shape.offset {
        places.push("offset");
    }
    // In the normal form itself, read again, the keys follow as plain arguments.
    let mut values = by_place(shape, &places, written, place)?;
    let keys = if keys.is_empty() { values.split_off(places.len().min(values.len())) } else { keys };
    if values.len() < 2 + shape.lengths.len() {
        let missing = places[values.len()];
        return Err(wrong(format!("{} lacks its {missing}", shape.name)));
    }
    if shape.name == "absent" && keys.is_empty() {
        return Err(wrong("absent lacks PARTITION BY: it has to know whose silence to look for".to_owned()));
    }
    values[0] = input(&values[0], shape).map_err(|e| e.at(place))?;
    values[1] = time_column(&values[1], shape)?;
    for (i, length) in values.iter_mut().enumerate().skip(2) {
        while let Expr::Nested(inner) = length {
            *length = std::mem::replace(inner, Expr::Value(datafusion::sql::sqlparser::ast::Value::Null.into()));
        }
        let millis = interval_millis(length).map_err(|e| e.at(place))?;
        if millis <= 0 && places[i] != "offset" {
            return Err(SqlError::new(Code::BadDefinition, format!("the {} of {} must be positive", places[i], shape.name))
                .at(Place::of(length.span()).or(place)));
        }
    }
    for key in &keys {
        if !matches!(key, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
            return Err(SqlError::not_supported(&format!("the expression {key} in PARTITION BY"))
                .at(Place::of(key.span()).or(place))
                .hint("write columns"));
        }
    }
    values.extend(fills);
    values.extend(keys);
    let span = name.span();
    *name = ObjectName::from(Ident::with_span(span, shape.name));
    args.args = values.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
    Ok(())
}

/// Takes the keys out of the last argument, where the pre-pass put them.
fn take_keys(mut args: Vec<FunctionArg>) -> Result<(Vec<FunctionArg>, Vec<Expr>), SqlError> {
    let is_keys = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(f))) => f.name.to_string() == PARTITION_BY,
        _ => false,
    };
    if !args.last().is_some_and(is_keys) {
        return Ok((args, Vec::new()));
    }
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(function)))) = args.pop() else { return Ok((args, Vec::new())) };
    let keys = plain_arguments(&function)?;
    Ok((args, keys))
}

/// Takes `LOCF(column)` and `INTERPOLATE(column)` out of the arguments.
fn take_fills(args: &mut Vec<FunctionArg>, shape: &Shape) -> Result<Vec<Expr>, SqlError> {
    let mut fills = Vec::new();
    let mut rest = Vec::with_capacity(args.len());
    for arg in std::mem::take(args) {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(call)))
                if ["locf", "interpolate"].contains(&call.name.to_string().to_ascii_lowercase().as_str()) =>
            {
                if !matches!(plain_arguments(&call)?.as_slice(), [Expr::Identifier(_) | Expr::CompoundIdentifier(_)]) {
                    let error = SqlError::new(Code::BadDefinition, format!("{} in GAP_FILL takes one column", call.name));
                    return Err(error.at(Place::of(call.name.span())).hint(format!("write {}", shape.example)));
                }
                fills.push(Expr::Function(call));
            }
            other => rest.push(other),
        }
    }
    *args = rest;
    Ok(fills)
}

/// The arguments of a function call that has nothing but plain ones.
pub fn plain_arguments(function: &Function) -> Result<Vec<Expr>, SqlError> {
    let place = Place::of(function.name.span());
    let refuse = |what: &str| SqlError::not_supported(&format!("{what} in {}", function.name)).at(place);
    let plain =
        function.filter.is_none() && function.over.is_none() && function.within_group.is_empty() && function.null_treatment.is_none();
    let list = match &function.args {
        FunctionArguments::List(list) if plain && list.clauses.is_empty() && list.duplicate_treatment.is_none() => &list.args,
        FunctionArguments::None if plain => return Ok(Vec::new()),
        _ => return Err(refuse("a clause")),
    };
    list.iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Ok(e.clone()),
            other => Err(refuse(&format!("the argument {other}"))),
        })
        .collect()
}

/// The arguments in their places: unnamed ones first, then named ones in any order.
fn by_place(shape: &Shape, places: &[&str], written: Vec<FunctionArg>, place: Option<Place>) -> Result<Vec<Expr>, SqlError> {
    let wrong = |message: String| SqlError::new(Code::BadDefinition, message).at(place).hint(format!("write {}", shape.example));
    let mut values: Vec<Option<Expr>> = Vec::new();
    let mut named = false;
    for arg in written {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) if !named => values.push(Some(e)),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(e), .. } => {
                named = true;
                let known = name.value.to_ascii_lowercase();
                let alias = |(alias, _): &&(&str, &str)| *alias == known && !places.contains(alias);
                let known = ALIASES.iter().find(alias).map_or(known.as_str(), |(_, meant)| meant);
                let Some(at) = places.iter().position(|p| *p == known) else {
                    let hint = did_you_mean(&name.value, places.iter().copied().skip(2).chain(["data", "timecol"]));
                    return Err(SqlError::new(Code::BadDefinition, format!("{} has no argument {}", shape.name, name.value))
                        .at(Place::of(name.span))
                        .hint_opt(hint));
                };
                if values.len() <= at {
                    values.resize(at + 1, None);
                }
                if values[at].replace(e).is_some() {
                    return Err(wrong(format!("{} has two arguments for its {known}", shape.name)));
                }
            }
            other => return Err(wrong(format!("{} cannot take the argument {other}", shape.name))),
        }
    }
    if values.len() > places.len() && !shape.keyed {
        return Err(wrong(format!("{} has {} arguments, at most {} are known", shape.name, values.len(), places.len())));
    }
    let missing = values.iter().position(Option::is_none);
    if let Some(at) = missing {
        return Err(wrong(format!("{} lacks its {}", shape.name, places.get(at).copied().unwrap_or("key"))));
    }
    Ok(values.into_iter().flatten().collect())
}

/// The table argument as a subquery.
fn input(expr: &Expr, shape: &Shape) -> Result<Expr, SqlError> {
    let name = match expr {
        Expr::Subquery(_) => return Ok(expr.clone()),
        Expr::Nested(inner) => return input(inner, shape),
        Expr::Identifier(ident) => ident.clone(),
        Expr::CompoundIdentifier(parts) => {
            let written = parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(".");
            return Err(SqlError::syntax(format!("\"{written}\" is not the name of a stream"))
                .at(Place::of(expr.span()))
                .hint("names have one part"));
        }
        other => {
            return Err(SqlError::syntax(format!("the first argument of {} is a table, not {other}", shape.name))
                .hint(format!("write {}", shape.example)));
        }
    };
    select_all(&name, None)
}

/// `(SELECT * FROM name [AS alias])`, every token at the place of the name.
fn select_all(name: &Ident, alias: Option<&Ident>) -> Result<Expr, SqlError> {
    let at = |token: Token, span: Span| TokenWithSpan::new(token, span);
    let span = name.span;
    let mut tokens = vec![at(Token::LParen, span), made_word("SELECT", span), at(Token::Mul, span), made_word("FROM", span)];
    tokens.push(at(Token::make_word(&name.value, name.quote_style), span));
    if let Some(alias) = alias {
        tokens.push(made_word("AS", alias.span));
        tokens.push(at(Token::make_word(&alias.value, alias.quote_style), alias.span));
    }
    tokens.push(at(Token::RParen, span));
    Ok(Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens).parse_expr()?)
}

/// `ts` or `DESCRIPTOR(ts)`.
fn time_column(expr: &Expr, shape: &Shape) -> Result<Expr, SqlError> {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Ok(expr.clone()),
        Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("descriptor") => {
            let inner = plain_arguments(function)?;
            match inner.as_slice() {
                [column @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_))] => Ok(column.clone()),
                _ => Err(SqlError::syntax("DESCRIPTOR names one column").at(Place::of(function.name.span())).hint("write DESCRIPTOR(ts)")),
            }
        }
        other => Err(SqlError::syntax(format!("the second argument of {} is the event time column, not {other}", shape.name))
            .at(Place::of(other.span()))
            .hint("write DESCRIPTOR(ts)")),
    }
}

/// `FROM s GROUP BY k, TUMBLE(ts, i)`, rewritten to a call in FROM.
fn group_form(select: &mut Select) -> Result<(), SqlError> {
    let GroupByExpr::Expressions(exprs, _) = &select.group_by else { return Ok(()) };
    let found: Vec<usize> = exprs.iter().enumerate().filter(|(_, e)| window_function(e).is_some()).map(|(i, _)| i).collect();
    let Some(&at) = found.first() else { return Ok(()) };
    let function = window_function(&exprs[at]).expect("the list holds only such").clone();
    let place = Place::of(function.name.span());
    let wrong = |message: &str, hint: &str| Err(SqlError::new(Code::BadDefinition, message.to_owned()).at(place).hint(hint.to_owned()));
    if found.len() > 1 {
        return wrong("GROUP BY has two windows", "keep one of them");
    }
    let name = function.name.to_string().to_ascii_lowercase();
    if name == "absent" {
        return wrong(
            "absent stands in FROM, not in GROUP BY",
            "write FROM TABLE(ABSENT(TABLE s PARTITION BY k, DESCRIPTOR(ts), INTERVAL '30' SECOND))",
        );
    }
    if name == GAP_FILL {
        return wrong(
            "gap_fill stands in FROM, not in GROUP BY",
            "write FROM TABLE(GAP_FILL(TABLE s PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' SECOND, LOCF(v)))",
        );
    }
    let [from] = select.from.as_mut_slice() else {
        return wrong("a window in GROUP BY needs exactly one table in FROM", "write FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), i))");
    };
    if !from.joins.is_empty() {
        return wrong(
            "a window in GROUP BY cannot stand over a join",
            "write FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), i)) for the side it is meant for",
        );
    }
    let arguments = plain_arguments(&function)?;
    let is_named = matches!(from.relation, TableFactor::Table { .. });
    let (table, alias) = match &mut from.relation {
        TableFactor::Table { name, alias, args: None, .. } if name.0.len() == 1 => {
            let ident = name.0[0].as_ident().cloned();
            let Some(ident) = ident else { return wrong("a window in GROUP BY needs a named table", "name it") };
            if alias.as_ref().is_some_and(|a| !a.columns.is_empty()) {
                return wrong("a window in GROUP BY cannot rename columns", "write FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), i))");
            }
            (select_all(&ident, alias.take().as_ref().map(|a| &a.name))?, None)
        }
        TableFactor::Derived { lateral: false, subquery, alias, sample: None } => (Expr::Subquery(subquery.clone()), alias.take()),
        _ => return wrong("a window in GROUP BY needs a table or a query in FROM", "write FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), i))"),
    };
    let mut table = table;
    if name == "session"
        && let Expr::Subquery(query) = &mut table
        && let datafusion::sql::sqlparser::ast::SetExpr::Select(inner) = query.body.as_mut()
        && is_named
    {
        // Sessions are made of the rows that WHERE leaves.
        inner.selection = select.selection.take();
    }
    let mut values = vec![table];
    // Inside the call the alias of a derived table is not known yet.
    values.extend(arguments.iter().map(|e| if alias.is_some() { unqualified(e) } else { e.clone() }));
    if name == "session" {
        let others = exprs.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, key)| key);
        values.extend(others.map(|e| if alias.is_some() { unqualified(e) } else { e.clone() }));
    }
    let args = values.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
    from.relation = TableFactor::Table {
        name: function.name.clone(),
        alias,
        args: Some(TableFunctionArgs { args, settings: None }),
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
    let span = function.name.span();
    if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
        exprs.remove(at);
        for column in ["window_end", "window_start"] {
            let column = Expr::Identifier(Ident::with_span(span, column));
            if !exprs.contains(&column) {
                exprs.insert(at, column);
            }
        }
    }
    edges(select, &name, &arguments)
}

fn unqualified(expr: &Expr) -> Expr {
    match expr {
        Expr::CompoundIdentifier(parts) => parts.last().map_or_else(|| expr.clone(), |last| Expr::Identifier(last.clone())),
        other => other.clone(),
    }
}

fn window_function(expr: &Expr) -> Option<&Function> {
    match expr {
        Expr::Function(function) if shape_of(&function.name).is_some() => Some(function),
        _ => None,
    }
}

/// `TUMBLE_START(..)` and its like in the rest of the SELECT become `window_start` and its like.
fn edges(select: &mut Select, window: &str, arguments: &[Expr]) -> Result<(), SqlError> {
    struct Edges<'a>(&'a str, &'a [Expr], bool);
    impl VisitorMut for Edges<'_> {
        type Break = Box<SqlError>;
        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
            let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
            let name = function.name.to_string().to_ascii_lowercase();
            let Some(edge) = CALLS.iter().find_map(|call| name.strip_prefix(call)?.strip_prefix('_').map(|edge| (*call, edge.to_owned())))
            else {
                return ControlFlow::Continue(());
            };
            let column = match edge.1.as_str() {
                "start" => "window_start",
                "end" => "window_end",
                "rowtime" => "window_time",
                _ => return ControlFlow::Continue(()),
            };
            let same = edge.0 == self.0 && plain_arguments(function).is_ok_and(|a| a == self.1);
            if !same {
                let error = SqlError::new(Code::BadDefinition, format!("{} does not repeat the window of GROUP BY", function.name))
                    .at(Place::of(function.name.span()));
                return ControlFlow::Break(Box::new(error.hint(format!("write {column}"))));
            }
            self.2 |= column == "window_time";
            *expr = Expr::Identifier(Ident::with_span(function.name.span(), column));
            ControlFlow::Continue(())
        }
    }
    let mut visitor = Edges(window, arguments, false);
    let mut flow = select.projection.visit(&mut visitor);
    if flow.is_continue() {
        flow = select.having.visit(&mut visitor);
    }
    if visitor.2
        && let GroupByExpr::Expressions(keys, _) = &mut select.group_by
    {
        keys.push(Expr::Identifier(Ident::new("window_time")));
    }
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

#[cfg(test)]
mod tests;
