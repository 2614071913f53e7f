//! Gives stateful functions without OVER the stream's key and event time.
//!
//! `held_for(hr > 130, INTERVAL '60' SECOND)` means `.. OVER (PARTITION BY <key> ORDER BY <event time>)` of the stream that
//! its SELECT reads, through subqueries and WITH. Where there is no single such stream, or it has no key or no
//! event time, the call is refused. Works on the syntax tree, before planning.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, Function, Ident, OrderByExpr, OrderByOptions, Query, Select, SetExpr, Spanned, TableFactor, VisitMut, VisitorMut,
    WindowSpec, WindowType,
};

use super::Sources;
use crate::sql::error::{Code, Place, SqlError};
use crate::sql::functions::stateful;
use crate::sql::statement::Name;

/// The key and event time that a relation has from its stream.
#[derive(Clone)]
struct Base {
    stream: String,
    key: Option<String>,
    time: Option<String>,
}

type Known = HashMap<String, Option<Base>>;

/// Fills in every missing OVER of a query.
pub(in crate::sql) fn fill_over(query: &mut Query, sources: &dyn Sources) -> Result<(), SqlError> {
    in_query(query, sources, &Known::new()).map(|_| ())
}

/// Answers the stream that the query's rows come from, if it is one.
fn in_query(query: &mut Query, sources: &dyn Sources, outer: &Known) -> Result<Option<Base>, SqlError> {
    let mut known = outer.clone();
    if let Some(with) = &mut query.with {
        for table in &mut with.cte_tables {
            let base = in_query(&mut table.query, sources, &known)?;
            known.insert(Name::of(&table.alias.name).text, base);
        }
    }
    in_body(&mut query.body, sources, &known)
}

fn in_body(body: &mut SetExpr, sources: &dyn Sources, known: &Known) -> Result<Option<Base>, SqlError> {
    match body {
        SetExpr::Select(select) => in_select(select, sources, known),
        SetExpr::Query(query) => in_query(query, sources, known),
        SetExpr::SetOperation { left, right, .. } => {
            in_body(left, sources, known)?;
            in_body(right, sources, known)?;
            Ok(None)
        }
        _ => Ok(None),
    }
}

fn in_select(select: &mut Select, sources: &dyn Sources, known: &Known) -> Result<Option<Base>, SqlError> {
    let mut bases = Vec::new();
    for table in &mut select.from {
        bases.push(in_table(&mut table.relation, sources, known)?);
        for join in &mut table.joins {
            bases.push(in_table(&mut join.relation, sources, known)?);
        }
    }
    let base = if bases.len() == 1 { bases.swap_remove(0) } else { None };
    let mut filler = Filler { base: base.as_ref() };
    let fill = |part: ControlFlow<SqlError>| match part {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    };
    fill(select.projection.visit(&mut filler))?;
    fill(select.selection.visit(&mut filler))?;
    fill(select.having.visit(&mut filler))?;
    fill(select.qualify.visit(&mut filler))?;
    Ok(base)
}

fn in_table(table: &mut TableFactor, sources: &dyn Sources, known: &Known) -> Result<Option<Base>, SqlError> {
    match table {
        TableFactor::Table { name, args: None, .. } => {
            let [ast::ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return Ok(None) };
            let name = Name::of(ident).text;
            if let Some(base) = known.get(&name) {
                return Ok(base.clone());
            }
            Ok(sources.source(&name).map(|source| Base { stream: name, key: source.key, time: source.time }))
        }
        TableFactor::Table { args: Some(args), .. } => {
            for argument in &mut args.args {
                if let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(Expr::Subquery(query))) = argument {
                    in_query(query, sources, known)?;
                }
            }
            Ok(None)
        }
        TableFactor::Derived { subquery, .. } => in_query(subquery, sources, known),
        TableFactor::MatchRecognize { table, .. } => in_table(table, sources, known).map(|_| None),
        _ => Ok(None),
    }
}

struct Filler<'a> {
    base: Option<&'a Base>,
}

impl VisitorMut for Filler<'_> {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        if let Expr::Function(call) = expr
            && call.over.is_none()
            && let Some(function) = call.name.0.last().and_then(ast::ObjectNamePart::as_ident).and_then(|name| stateful::find(&name.value))
        {
            match self.over(function, call) {
                Ok(over) => call.over = Some(over),
                Err(error) => return ControlFlow::Break(error),
            }
        }
        ControlFlow::Continue(())
    }
}

impl Filler<'_> {
    fn over(&self, function: &stateful::Stateful, call: &Function) -> Result<WindowType, SqlError> {
        let refuse = |why: String| {
            let error = SqlError::new(Code::NotOnAStream, why).at(Place::of(call.name.span()));
            Err(error.hint(format!("write {}(..) OVER (PARTITION BY patient_id ORDER BY ts)", function.name)))
        };
        let Some(base) = self.base else {
            return refuse(format!(
                "{} without OVER takes the key and event time of one stream, and this SELECT does not read just one",
                function.name
            ));
        };
        let Some(key) = &base.key else {
            return refuse(format!("stream \"{}\" has no 'key' that {} could go by", base.stream, function.name));
        };
        let Some(time) = &base.time else {
            return refuse(format!("stream \"{}\" has no event time that {} could go by", base.stream, function.name));
        };
        let column = |name: &str| Expr::Identifier(Ident::with_quote('"', name));
        Ok(WindowType::WindowSpec(WindowSpec {
            window_name: None,
            partition_by: vec![column(key)],
            order_by: vec![OrderByExpr { expr: column(time), options: OrderByOptions { asc: None, nulls_first: None }, with_fill: None }],
            window_frame: None,
        }))
    }
}
