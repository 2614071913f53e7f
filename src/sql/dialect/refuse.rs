//! What is understood and not built: refused by name, so that nothing that was written is passed over in silence.
//!
//! First over tokens, for what sqlparser cannot read ([`in_tokens`]); then over the parsed query, for what it reads and
//! DataFusion would ignore or answer with something else ([`in_query`]); and for what has no meaning over a stream
//! that goes on ([`on_streams`]).

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Distinct, EmptyMatchesMode, Expr, GroupByExpr, JoinOperator, LimitClause, OrderByKind, Query, RowsPerMatch, Select, SelectFlavor,
    SetExpr, SetOperator, Spanned, TableFactor, Visit, Visitor, WindowType,
};
use datafusion::sql::sqlparser::tokenizer::{Span, TokenWithSpan};

use super::tokens::{word, words_at};
use crate::sql::error::{Place, SqlError};

/// Words in a row that begin a clause that is not built, its name, and what to write today.
const CLAUSES: &[(&[&str], &str, &str)] = &[
    (
        &["SESSION", "WITH", "GAP"],
        "SESSION WITH GAP",
        "write FROM TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(ts), INTERVAL '30' SECOND))",
    ),
    (&["WINDOW", "TUMBLING"], "WINDOW TUMBLING (..)", "write FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' MINUTE))"),
    (
        &["WINDOW", "HOPPING"],
        "WINDOW HOPPING (..)",
        "write FROM TABLE(HOP(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '5' MINUTE))",
    ),
    (
        &["WINDOW", "SESSION"],
        "WINDOW SESSION (..)",
        "write FROM TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(ts), INTERVAL '30' SECOND))",
    ),
    (&["EXCLUDE", "CURRENT", "ROW"], "EXCLUDE in a window frame", "leave it out"),
    (&["EXCLUDE", "GROUP"], "EXCLUDE in a window frame", "leave it out"),
    (&["EXCLUDE", "TIES"], "EXCLUDE in a window frame", "leave it out"),
    (&["EXCLUDE", "NO", "OTHERS"], "EXCLUDE in a window frame", "leave it out"),
    (&["ALLOW", "LATENESS"], "ALLOW LATENESS", "set the delay in WATERMARK FOR ts AS ts - INTERVAL '5' SECOND"),
    (&["LATE", "DATA", "TO"], "LATE DATA TO", "set 'late.topic' in the stream's WITH"),
];

/// Refuses clauses that sqlparser would not read, or would read as something else.
pub fn in_tokens(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    for (i, token) in tokens.iter().enumerate() {
        let Some(first) = word(token) else { continue };
        let clause = CLAUSES.iter().find(|(words, ..)| first.eq_ignore_ascii_case(words[0]) && words_at(tokens, i, words));
        if let Some((_, name, hint)) = clause {
            return Err(SqlError::not_supported(name).at(Place::of(token.span)).hint(*hint));
        }
    }
    Ok(())
}

/// Refuses what is parsed and would be ignored.
pub fn in_query(query: &Query) -> Result<(), SqlError> {
    run(query, false)
}

/// Refuses what never comes to an end over a stream.
pub fn on_streams(query: &Query) -> Result<(), SqlError> {
    run(query, true)
}

fn run(query: &Query, streaming: bool) -> Result<(), SqlError> {
    let mut visitor = Refuse { streaming };
    match query.visit(&mut visitor) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Refuse {
    streaming: bool,
}

type Flow = ControlFlow<Box<SqlError>>;

fn refuse(clause: &str, span: Span) -> Flow {
    ControlFlow::Break(Box::new(SqlError::not_supported(clause).at(Place::of(span))))
}

impl Visitor for Refuse {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        if self.streaming { streaming_query(query) } else { plain_query(query) }
    }

    fn pre_visit_select(&mut self, select: &Select) -> Flow {
        if self.streaming { streaming_select(select) } else { plain_select(select) }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        if self.streaming { ControlFlow::Continue(()) } else { table(factor) }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Flow {
        match expr {
            Expr::Function(function) => match &function.over {
                Some(WindowType::WindowSpec(spec)) if spec.window_name.is_some() => {
                    refuse("a named window inside OVER (..)", function.name.span())
                }
                _ if function.uses_odbc_syntax => refuse("{fn ..}", function.name.span()),
                _ => ControlFlow::Continue(()),
            },
            Expr::Prior(_) => refuse("PRIOR", expr.span()),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn plain_query(query: &Query) -> Flow {
    let span = query.span();
    let named = [
        (!query.locks.is_empty(), "FOR UPDATE and FOR SHARE"),
        (query.for_clause.is_some(), "FOR XML, FOR JSON and FOR BROWSE"),
        (query.settings.is_some(), "SETTINGS"),
        (query.format_clause.is_some(), "FORMAT"),
        (!query.pipe_operators.is_empty(), "|> pipes"),
        (query.fetch.is_some(), "FETCH FIRST with PERCENT, WITH TIES, or beside LIMIT"),
        (query.order_by.as_ref().is_some_and(|o| o.interpolate.is_some()), "INTERPOLATE"),
        (matches!(&query.limit_clause, Some(LimitClause::LimitOffset { limit_by, .. }) if !limit_by.is_empty()), "LIMIT BY"),
    ];
    if let Some((_, name)) = named.iter().find(|(there, _)| *there) {
        return refuse(name, span);
    }
    if let Some(order) = &query.order_by
        && let OrderByKind::Expressions(exprs) = &order.kind
        && let Some(fill) = exprs.iter().find(|e| e.with_fill.is_some())
    {
        return refuse("WITH FILL", fill.expr.span());
    }
    if let Some(with) = &query.with
        && let Some(cte) = with.cte_tables.iter().find(|c| c.from.is_some())
    {
        return refuse("WITH .. AS (..) FROM", cte.alias.name.span);
    }
    match &*query.body {
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => refuse("a change of data inside a query", span),
        SetExpr::Table(_) => refuse("TABLE x as a query (write SELECT * FROM x)", span),
        _ => ControlFlow::Continue(()),
    }
}

fn plain_select(select: &Select) -> Flow {
    let span = select.select_token.0.span;
    let modifiers = match &select.group_by {
        GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => !modifiers.is_empty(),
    };
    let named = [
        (select.top.is_some(), "TOP (write LIMIT)"),
        (select.into.is_some(), "SELECT INTO"),
        (!select.lateral_views.is_empty(), "LATERAL VIEW"),
        (select.prewhere.is_some(), "PREWHERE"),
        (!select.connect_by.is_empty(), "CONNECT BY"),
        (!select.cluster_by.is_empty(), "CLUSTER BY"),
        (!select.distribute_by.is_empty(), "DISTRIBUTE BY"),
        (!select.sort_by.is_empty(), "SORT BY"),
        (select.value_table_mode.is_some(), "SELECT AS VALUE and AS STRUCT"),
        (select.exclude.is_some(), "EXCLUDE behind the column list"),
        (select.select_modifiers.is_some(), "modifiers of SELECT"),
        (!matches!(select.flavor, SelectFlavor::Standard), "FROM before SELECT"),
        (modifiers, "GROUP BY .. WITH"),
    ];
    if let Some((_, name)) = named.iter().find(|(there, _)| *there) {
        return refuse(name, span);
    }
    for join in select.from.iter().flat_map(|t| &t.joins) {
        let place = join.relation.span();
        let name = match &join.join_operator {
            _ if join.global => "GLOBAL JOIN",
            JoinOperator::AsOf { .. } => "ASOF JOIN",
            JoinOperator::CrossApply | JoinOperator::OuterApply => "APPLY",
            JoinOperator::StraightJoin(_) => "STRAIGHT_JOIN",
            JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => "ARRAY JOIN",
            _ => continue,
        };
        return refuse(name, place);
    }
    ControlFlow::Continue(())
}

fn table(factor: &TableFactor) -> Flow {
    let span = factor.span();
    match factor {
        TableFactor::Table { name, with_hints, version, with_ordinality, partitions, json_path, sample, index_hints, alias, args } => {
            let named = [
                (version.is_some(), "FOR SYSTEM_TIME AS OF"),
                (!with_hints.is_empty(), "WITH (..) hints"),
                (!index_hints.is_empty(), "index hints"),
                (*with_ordinality, "WITH ORDINALITY"),
                (!partitions.is_empty(), "PARTITION (..) behind a table"),
                (json_path.is_some(), "a path behind a table's name"),
                (sample.is_some(), "TABLESAMPLE"),
                (alias.as_ref().is_some_and(|a| a.at.is_some()), "AT behind an alias"),
                (alias.as_ref().is_some_and(|a| a.columns.iter().any(|c| c.data_type.is_some())), "types in an alias"),
                (args.as_ref().is_some_and(|a| a.settings.is_some()), "SETTINGS"),
            ];
            if let Some((_, name)) = named.iter().find(|(there, _)| *there) {
                return refuse(name, span);
            }
            if args.is_none() && name.0.len() > 1 {
                let error = SqlError::syntax(format!("\"{name}\" is not the name of a stream")).at(Place::of(span));
                return ControlFlow::Break(Box::new(error.hint("names have one part")));
            }
            ControlFlow::Continue(())
        }
        TableFactor::Derived { sample: Some(_), .. } => refuse("TABLESAMPLE", span),
        TableFactor::Derived { lateral: true, .. } | TableFactor::Function { lateral: true, .. } => refuse("LATERAL", span),
        TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
        TableFactor::TableFunction { expr, .. } => refuse(&format!("TABLE({expr})"), span),
        TableFactor::Function { name, .. } => refuse(&format!("the table function {name}"), span),
        TableFactor::UNNEST { with_offset, with_ordinality, .. } if *with_offset || *with_ordinality => refuse("UNNEST WITH", span),
        TableFactor::UNNEST { .. } => ControlFlow::Continue(()),
        TableFactor::MatchRecognize { rows_per_match, .. } => match rows_per_match {
            Some(RowsPerMatch::AllRows(Some(EmptyMatchesMode::WithUnmatched))) => {
                let error = SqlError::not_supported("WITH UNMATCHED ROWS in MATCH_RECOGNIZE").at(Place::of(span));
                ControlFlow::Break(Box::new(error.hint("leave it out: rows of matches come out")))
            }
            _ => ControlFlow::Continue(()),
        },
        TableFactor::Pivot { .. } => refuse("PIVOT", span),
        TableFactor::Unpivot { .. } => refuse("UNPIVOT", span),
        TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } => refuse("JSON_TABLE", span),
        TableFactor::XmlTable { .. } => refuse("XMLTABLE", span),
        TableFactor::SemanticView { .. } => refuse("SEMANTIC_VIEW", span),
    }
}

fn streaming_query(query: &Query) -> Flow {
    let named = [
        (query.order_by.is_some(), "ORDER BY over a stream that goes on"),
        (query.limit_clause.is_some(), "LIMIT and OFFSET over a stream that goes on"),
        (query.fetch.is_some(), "FETCH over a stream that goes on"),
        (query.with.as_ref().is_some_and(|w| w.recursive), "WITH RECURSIVE over a stream"),
    ];
    if let SetExpr::SetOperation { op, right, .. } = query.body.as_ref()
        && !matches!(op, SetOperator::Union)
    {
        let error = SqlError::not_supported(&format!("{op} over a stream that goes on")).at(Place::of(right.span()));
        return ControlFlow::Break(Box::new(error.hint("join the two by a range of time, as in WHERE EXISTS (SELECT .. b.ts BETWEEN ..)")));
    }
    let limit = || query.limit_clause.as_ref().map(Spanned::span).filter(|span| span.start.line > 0);
    let span = query.order_by.as_ref().map(Spanned::span).or_else(limit).unwrap_or_else(|| query.span());
    match named.iter().find(|(there, _)| *there) {
        Some((_, name)) => {
            let error = SqlError::not_supported(name).at(Place::of(span)).hint("leave it out here; a SELECT over stored data may have it");
            ControlFlow::Break(Box::new(error))
        }
        None => ControlFlow::Continue(()),
    }
}

fn streaming_select(select: &Select) -> Flow {
    match &select.distinct {
        Some(Distinct::On(_)) => {
            let error = SqlError::not_supported("SELECT DISTINCT ON over a stream that goes on").at(Place::of(select.select_token.0.span));
            ControlFlow::Break(Box::new(error.hint("write QUALIFY row_number() OVER (PARTITION BY .. ORDER BY ..) = 1")))
        }
        _ => ControlFlow::Continue(()),
    }
}
