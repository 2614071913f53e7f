//! Statements in their canonical spelling.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Ident, ObjectName, Query, SelectItem, SetExpr, TableFactor, VisitMut, VisitorMut,
};

use crate::sql::dialect::{asof, pattern};
use crate::sql::options::Options;
use crate::sql::statement::{Column, ColumnSource, Emit, Name, Select, Statement, Watermark};
use crate::sql::types::{quoted, sql_type};

/// A CREATE statement in its canonical spelling, several lines, without a semicolon. Empty for any other statement.
#[must_use]
pub fn canonical(statement: &Statement) -> String {
    match statement {
        Statement::CreateStream(s) => {
            let columns = elements(&s.columns, &[], s.watermark.as_ref());
            format!("CREATE STREAM {} (\n{columns}\n){}", quoted(&s.name.text), with(&s.options.given, true))
        }
        Statement::CreateTable(t) => {
            let columns = elements(&t.columns, &t.primary_key, t.watermark.as_ref());
            format!("CREATE TABLE {} (\n{columns}\n){}", quoted(&t.name.text), with(&t.options.given, true))
        }
        Statement::CreateQuery(q) => {
            let columns = if q.insert_columns.is_empty() { String::new() } else { format!(" ({})", names(&q.insert_columns)) };
            let options = with(&q.options.given, false);
            format!(
                "CREATE QUERY {}{options} AS\nINSERT INTO {}{columns}\n{}",
                quoted(&q.name.text),
                quoted(&q.insert_into.text),
                select(&q.select)
            )
        }
        Statement::CreateView(v) => {
            format!("CREATE MATERIALIZED VIEW {}{} AS\n{}", quoted(&v.name.text), with(&v.options.given, false), select(&v.select))
        }
        Statement::CreatePlainView(v) => {
            let columns = if v.columns.is_empty() { String::new() } else { format!(" ({})", names(&v.columns)) };
            format!("CREATE VIEW {}{columns} AS\n{}", quoted(&v.name.text), select(&v.select))
        }
        Statement::CreateAlert(a) => {
            format!("CREATE ALERT {}{} AS\n{}", quoted(&a.name.text), with(&a.options.given, false), select(&a.select))
        }
        _ => String::new(),
    }
}

/// The CREATE STREAM of a stream that a query makes by writing to it: JSON, the columns of its results, `options` as
/// name and value, and its event time where it has one (the column, and the watermark expression over it).
#[must_use]
pub fn derived_stream(name: &str, schema: &Schema, event_time: Option<(&str, &str)>, options: &[(&str, &str)]) -> String {
    let mut lines: Vec<String> = schema
        .fields()
        .iter()
        .map(|f| format!("  {} {}{}", quoted(f.name()), sql_type(f.data_type()), if f.is_nullable() { "" } else { " NOT NULL" }))
        .collect();
    if let Some((column, expr)) = event_time {
        lines.push(format!("  WATERMARK FOR {} AS {expr}", quoted(column)));
    }
    let options: Vec<String> = options.iter().map(|(name, value)| format!("  {} = {}", literal(name), literal(value))).collect();
    let with = if options.is_empty() { String::new() } else { format!(" WITH (\n{}\n)", options.join(",\n")) };
    format!("CREATE STREAM {} (\n{}\n){with}", quoted(name), lines.join(",\n"))
}

fn elements(columns: &[Column], primary_key: &[Name], watermark: Option<&Watermark>) -> String {
    let mut lines: Vec<String> = columns.iter().map(column).collect();
    if !primary_key.is_empty() {
        lines.push(format!("  PRIMARY KEY ({}) NOT ENFORCED", names(primary_key)));
    }
    if let Some(watermark) = watermark {
        lines.push(format!("  WATERMARK FOR {} AS {}", quoted(&watermark.column.text), watermark.expr));
    }
    lines.join(",\n")
}

fn column(column: &Column) -> String {
    let mut out = format!("  {}", quoted(&column.name.text));
    if let ColumnSource::Computed(expr) = &column.source {
        // Writing to a String cannot fail.
        let _ = write!(out, " AS {expr}");
        return out;
    }
    if let Some(data_type) = &column.data_type {
        let _ = write!(out, " {}", sql_type(data_type));
    }
    if let ColumnSource::Metadata(metadata) = &column.source {
        let _ = write!(out, " METADATA FROM '{}'", metadata.word());
    }
    if !column.nullable {
        out.push_str(" NOT NULL");
    }
    out
}

fn names(names: &[Name]) -> String {
    names.iter().map(|n| quoted(&n.text)).collect::<Vec<_>>().join(", ")
}

/// What was written in WITH; one option a line, or all on one line where they are few and `long` is not wanted.
fn with(options: &Options, long: bool) -> String {
    let written: Vec<String> = options.written().iter().map(|g| format!("{} = {}", literal(&g.name), literal(&g.value))).collect();
    match written.as_slice() {
        [] => String::new(),
        _ if !long && written.len() < 4 => format!(" WITH ({})", written.join(", ")),
        _ => format!(" WITH (\n  {}\n)", written.join(",\n  ")),
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A query, its window calls as `TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), ..))`, a clause a line, and its EMIT clause.
fn select(select: &Select) -> String {
    let mut query = select.query.clone();
    let _ = query.visit(&mut Spell);
    let mut out = asof::spelled(query_lines(&query));
    match select.emit {
        Emit::Unstated => {}
        Emit::Changes => out.push_str("\nEMIT CHANGES"),
        Emit::Update { every } => {
            out.push_str("\nEMIT ON UPDATE");
            if let Some(every) = every {
                let _ = write!(out, " EVERY {}", interval(every.as_millis()));
            }
        }
        Emit::WindowClose { grace, timeout } => {
            out.push_str("\nEMIT ON WINDOW CLOSE");
            if let Some(grace) = grace {
                let _ = write!(out, " WITH GRACE {}", interval(grace.as_millis()));
            }
            if let Some(timeout) = timeout {
                let _ = write!(out, " TIMEOUT {}", interval(timeout.as_millis()));
            }
        }
    }
    out
}

fn interval(millis: u128) -> String {
    let units = [(86_400_000, "DAY"), (3_600_000, "HOUR"), (60_000, "MINUTE"), (1000, "SECOND")];
    match units.iter().find(|(unit, _)| millis.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("INTERVAL '{}' {name}", millis / unit),
        None => format!("INTERVAL '{millis} milliseconds'"),
    }
}

/// A plain SELECT with a clause a line; anything else on one line, as sqlparser prints it.
fn query_lines(query: &Query) -> String {
    let SetExpr::Select(select) = &*query.body else { return query.to_string() };
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && select.distinct.is_none()
        && select.named_window.is_empty()
        && select.from.len() < 2
        && matches!(&select.group_by, GroupByExpr::Expressions(_, modifiers) if modifiers.is_empty());
    if !plain {
        return query.to_string();
    }
    let list = |items: &[SelectItem]| items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut out = format!("SELECT {}", list(&select.projection));
    for from in &select.from {
        let _ = write!(out, "\nFROM {from}");
    }
    if let Some(selection) = &select.selection {
        let _ = write!(out, "\nWHERE {selection}");
    }
    if let GroupByExpr::Expressions(exprs, _) = &select.group_by
        && !exprs.is_empty()
    {
        let _ = write!(out, "\nGROUP BY {}", exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    }
    if let Some(having) = &select.having {
        let _ = write!(out, "\nHAVING {having}");
    }
    if let Some(qualify) = &select.qualify {
        let _ = write!(out, "\nQUALIFY {qualify}");
    }
    out
}

/// Turns the normal form of window calls back into the spelling of the dialect. The AST has no node for
/// `TABLE(TUMBLE(TABLE s, ..))`, so the call becomes a table whose name is that text.
struct Spell;

impl VisitorMut for Spell {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
        asof::spell(select.from.iter_mut().flat_map(|table| &mut table.joins));
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            asof::spell(table_with_joins.joins.iter_mut());
        }
        if let Some((text, alias)) = pattern::spelled(factor) {
            *factor = TableFactor::Table {
                name: ObjectName::from(Ident::new(text)),
                alias,
                args: None,
                with_hints: Vec::new(),
                version: None,
                with_ordinality: false,
                partitions: Vec::new(),
                json_path: None,
                sample: None,
                index_hints: Vec::new(),
            };
        }
        if let TableFactor::Table { name, args, .. } = factor
            && let Some(call) = args.as_ref().and_then(|a| spell(&name.to_string(), &a.args))
        {
            *name = ObjectName::from(Ident::new(call));
            *args = None;
        }
        ControlFlow::Continue(())
    }
}

fn spell(name: &str, args: &[FunctionArg]) -> Option<String> {
    if !["tumble", "hop", "cumulate", "session", "absent", "gap_fill"].contains(&name) {
        return None;
    }
    let mut exprs = Vec::new();
    for arg in args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else { return None };
        exprs.push(expr);
    }
    let [Expr::Subquery(input), time, lengths @ ..] = exprs.as_slice() else { return None };
    let keys_from = match name {
        "session" | "absent" => 1,
        // LOCF and INTERPOLATE stand between the interval and the keys.
        "gap_fill" => 1 + lengths.iter().filter(|expr| matches!(expr, Expr::Function(_))).count(),
        _ => lengths.len(),
    };
    let (lengths, keys) = lengths.split_at_checked(keys_from)?;
    let mut out = format!("TABLE({}(TABLE {}", name.to_uppercase(), whole_table(input).unwrap_or_else(|| format!("({input})")));
    if !keys.is_empty() {
        let _ = write!(out, " PARTITION BY {}", keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    }
    let _ = write!(out, ", DESCRIPTOR({time})");
    for length in lengths {
        let _ = write!(out, ", {length}");
    }
    out.push_str("))");
    Some(out)
}

/// The name of the table, where the input is no more than `SELECT * FROM name`.
fn whole_table(query: &Query) -> Option<String> {
    let SetExpr::Select(select) = &*query.body else { return None };
    let [from] = select.from.as_slice() else { return None };
    let TableFactor::Table { name, alias: None, args: None, .. } = &from.relation else { return None };
    (query.to_string() == format!("SELECT * FROM {name}")).then(|| name.to_string())
}
