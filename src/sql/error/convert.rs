//! sqlparser's and DataFusion's errors, put into our words: lower case, with the place and a suggestion where there is one.

use arrow::error::ArrowError;
use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::TokenizerError;

use super::arguments::{no_function, of_types};
use super::{Code, Place, SqlError, did_you_mean, nearest};

/// Words that may follow where the parser was stuck; a slip in one of them is the commonest error there is.
const WORDS: &[&str] = &[
    "SELECT",
    "DISTINCT",
    "FROM",
    "WHERE",
    "GROUP",
    "ORDER",
    "HAVING",
    "QUALIFY",
    "LIMIT",
    "OFFSET",
    "UNION",
    "JOIN",
    "LEFT",
    "RIGHT",
    "FULL",
    "INNER",
    "CROSS",
    "ON",
    "USING",
    "BETWEEN",
    "AND",
    "OR",
    "NOT",
    "NULL",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "OVER",
    "PARTITION",
    "RANGE",
    "ROWS",
    "PRECEDING",
    "FOLLOWING",
    "CURRENT",
    "INTERVAL",
    "INSERT",
    "INTO",
    "VALUES",
    "WITH",
    "EMIT",
    "WINDOW",
    "CLOSE",
    "TIMEOUT",
    "CHANGES",
    "WATERMARK",
    "METADATA",
    "PRIMARY",
    "ENFORCED",
    "EXISTS",
    "REPLACE",
    "STREAM",
    "TABLE",
    "QUERY",
    "ALERT",
];

impl From<TokenizerError> for SqlError {
    fn from(error: TokenizerError) -> Self {
        let place = (error.location.line > 0).then(|| {
            let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            Place::new(narrow(error.location.line), narrow(error.location.column.max(1)), 1)
        });
        let hint = if error.message.to_ascii_lowercase().contains("unterminated") { Some("it is never closed".to_owned()) } else { None };
        Self::syntax(lower_first(&error.message)).at(place).hint_opt(hint)
    }
}

impl From<ParserError> for SqlError {
    fn from(error: ParserError) -> Self {
        match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => from_parser_text(&text),
            ParserError::RecursionLimitExceeded => {
                Self::new(Code::Limit, "the statement is nested too deeply").hint("split it, or use IN (..) instead of a long chain of OR")
            }
        }
    }
}

fn from_parser_text(text: &str) -> SqlError {
    let (message, place) = cut_place(text);
    let Some((expected, found)) = message.strip_prefix("Expected: ").and_then(|rest| rest.rsplit_once(", found: ")) else {
        return SqlError::syntax(lower_first(message)).at(place);
    };
    let expected = expected.trim_end_matches(',');
    if found == "EOF" {
        return SqlError::syntax(format!("the statement ends where {} is expected", article(expected))).at(place);
    }
    let hint = nearest(&found.to_ascii_uppercase(), WORDS.iter().copied()).map(|word| format!("did you mean {word}?"));
    SqlError::syntax(format!("expected {}, found {found}", article(expected))).at(place).hint_opt(hint)
}

fn article(expected: &str) -> String {
    match expected {
        "an expression" | "an expression:" => "an expression".to_owned(),
        "end of statement" => "the end of the statement".to_owned(),
        other => other.trim_end_matches(':').to_owned(),
    }
}

/// Takes the ` at Line: 1, Column: 2` off a message of sqlparser.
fn cut_place(text: &str) -> (&str, Option<Place>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else { return (text, None) };
    let mut numbers = place.split(", Column: ").map(|n| n.trim().parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(line)), Some(Ok(column))) => (message, Some(Place::new(line, column.max(1), 1))),
        _ => (text, None),
    }
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        // It comes as an error of writing, in whatever was written through.
        if error.to_string().contains("datafusion.runtime.max_temp_directory_size") {
            return Self::new(Code::Limit, "it needs more room on the disk than SELECTs have (sql.spill_bytes)")
                .hint("ask for less at a time (a shorter time range, fewer groups), or raise it");
        }
        let diagnostic = error.diagnostic();
        let span = diagnostic.and_then(|d| d.span);
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let place = span.map(|s| {
            let length = if s.end.line == s.start.line { s.end.column.saturating_sub(s.start.column).max(1) } else { 1 };
            Place::new(narrow(s.start.line), narrow(s.start.column), narrow(length))
        });
        let helps: Vec<String> = diagnostic.map(|d| d.helps.iter().map(|h| lower_first(&h.message)).collect()).unwrap_or_default();
        let place = place.filter(|p| p.line > 0);
        let mut out = from_root(error.find_root()).at(place);
        if out.hint.is_none()
            && let Some(help) = helps.into_iter().next()
        {
            out.hint = Some(help);
        }
        out
    }
}

/// What can only be a condition, or nothing at all, stands where a value is expected.
fn not_a_value(what: &str, hint: &str) -> SqlError {
    SqlError::new(Code::NotOnAStream, format!("{what} is not supported over a stream")).hint(hint)
}

fn from_root(error: &DataFusionError) -> SqlError {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => from_root(inner.find_root()),
        DataFusionError::Collection(errors) if !errors.is_empty() => from_root(errors[0].find_root()),
        DataFusionError::Shared(inner) => from_root(inner.find_root()),
        DataFusionError::SQL(inner, _) => SqlError::from((**inner).clone()),
        DataFusionError::SchemaError(inner, _) => from_schema(inner),
        DataFusionError::Plan(text) => from_plan(text),
        DataFusionError::NotImplemented(text) if text.contains("ScalarSubquery(") => not_a_value(
            "a subquery as a value",
            "join the two, by equal windows or by a range of time; or keep the value in a table and join that",
        ),
        DataFusionError::NotImplemented(text) if text.contains("Exists {") || text.contains("InSubquery(") => not_a_value(
            "EXISTS or IN with a subquery as a value",
            "write it as a condition of WHERE; or a LEFT JOIN, and whether its columns are NULL",
        ),
        DataFusionError::NotImplemented(text) if text.contains("does not support logical expression WindowFunction(") => {
            SqlError::new(Code::Plan, "a function OVER rows stands where it has no rows yet")
                .hint("filter by it with QUALIFY, or name it in a subquery and use the name around that")
        }
        DataFusionError::NotImplemented(text) => of_types(text).unwrap_or_else(|| SqlError::not_supported(&tidy(text))),
        DataFusionError::ResourcesExhausted(text) => SqlError::new(Code::Limit, "it needs more memory than SELECTs have (sql.memory)")
            .hint("ask for less at a time (a shorter time range, fewer groups), raise it, or give room on the disk (sql.spill_bytes)")
            .note(tidy(text)),
        DataFusionError::Execution(text) => SqlError::new(Code::Execution, tidy(text)),
        DataFusionError::ArrowError(inner, _) if of_types(&inner.to_string()).is_some() => {
            of_types(&inner.to_string()).unwrap_or_else(|| SqlError::new(Code::Execution, tidy(&inner.to_string())))
        }
        DataFusionError::ArrowError(inner, _) => {
            SqlError::new(Code::Execution, out_of_range(inner).unwrap_or_else(|| tidy(&inner.to_string())))
        }
        DataFusionError::External(inner) => match inner.downcast_ref::<SqlError>() {
            // Our own planner's error, on its way through DataFusion.
            Some(own) => own.clone(),
            None => SqlError::new(Code::Execution, tidy(&inner.to_string())),
        },
        DataFusionError::Internal(text) if of_types(text).is_some() => from_plan(text),
        DataFusionError::Internal(text) => SqlError::new(Code::Internal, tidy(text)).hint("this is a bug: please report the statement"),
        other => SqlError::new(Code::Plan, tidy(&other.strip_backtrace())),
    }
}

/// What an error says of a number that does not fit a type, without the number: it is made of what lies in the log.
fn out_of_range(error: &ArrowError) -> Option<String> {
    let text = error.to_string();
    let (_, to) = text.rsplit_once(" is out of range ")?;
    let of = match to.trim() {
        "Int64" => "BIGINT",
        "Int32" => "INT",
        "Int16" => "SMALLINT",
        "Int8" => "TINYINT",
        other => other,
    };
    Some(format!("a number is out of the range of {of}"))
}

fn from_schema(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(Column::name).collect();
            let message = match &field.relation {
                Some(relation) => format!("no column \"{}\" in \"{}\"", field.name, relation.table()),
                None => format!("no column \"{}\"", field.name),
            };
            let mut out = SqlError::new(Code::NoSuchColumn, message).hint_opt(did_you_mean(&field.name, names.iter().copied()));
            if let Some(relation) = &field.relation
                && names.contains(&field.name.as_str())
            {
                let owners = valid_fields.iter().filter(|f| f.name == field.name).map(Column::flat_name).collect::<Vec<_>>().join(", ");
                out = out.hint(format!("\"{}\" does not have it here; did you mean {owners}?", relation.table()));
            }
            if names.is_empty() { out } else { out.note(format!("columns: {}", list(&names))) }
        }
        SchemaError::AmbiguousReference { field } => {
            SqlError::new(Code::Ambiguous, format!("column \"{}\" could mean several", field.name))
                .hint("write it with its table's name, as in v.ts")
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            SqlError::new(Code::Ambiguous, format!("two columns are called \"{name}\"")).hint("give one of them another name with AS")
        }
    }
}

/// The names in their order, each once, cut off where there are very many.
fn list(names: &[&str]) -> String {
    const SHOWN: usize = 40;
    let mut once: Vec<&str> = Vec::new();
    for name in names {
        if !once.contains(name) {
            once.push(name);
        }
    }
    let more = once.len().saturating_sub(SHOWN);
    once.truncate(SHOWN);
    let text = once.join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

fn from_plan(text: &str) -> SqlError {
    if let Some(name) = between(text, "table '", "' not found") {
        let name = name.rsplit('.').next().unwrap_or(name);
        return SqlError::new(Code::NoSuchName, format!("no stream or table \"{name}\"")).hint("SHOW STREAMS lists what there is");
    }
    if let Some(name) = between(text, "table function '", "' not found") {
        return SqlError::new(Code::NoSuchFunction, format!("no window or table function \"{name}\""))
            .hint_opt(did_you_mean(name, ["tumble", "hop", "cumulate", "session", "absent", "gap_fill"]));
    }
    if let Some(name) = between(text, "Invalid function '", "'") {
        return no_function(name, between(text, "Did you mean '", "'"));
    }
    if text.contains("must appear in the GROUP BY clause")
        && let Some(column) = between(text, "olumn \"", "\"")
    {
        let column = column.rsplit('.').next().unwrap_or(column);
        return SqlError::new(Code::Plan, format!("column \"{column}\" is neither grouped nor aggregated"))
            .hint(format!("add {column} to GROUP BY, or write an aggregate such as max({column})"));
    }
    if let Some(error) = of_types(text) {
        return error;
    }
    let mismatch = ["coerce", "No function matches", "Cannot cast", "Cannot infer common", "incompatible type", "data type"]
        .iter()
        .any(|word| text.contains(word));
    SqlError::new(if mismatch { Code::TypeMismatch } else { Code::Plan }, tidy(text))
}

pub(super) fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(&rest[..rest.find(after)?])
}

/// One line, without backtraces and the library's own prefixes and advice.
fn tidy(text: &str) -> String {
    let text = text.split("\n\nbacktrace:").next().unwrap_or(text);
    let text = text.split("This issue was likely caused by a bug").next().unwrap_or(text);
    let text = text.split("You might need to add explicit type casts").next().unwrap_or(text);
    let mut text = text.trim();
    for prefix in [
        "Error during planning: ",
        "SQL error: ",
        "Execution error: ",
        "Arrow error: ",
        "Cast error: ",
        "Compute error: ",
        "External error: ",
        "Invalid argument error: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = line.chars().take(400).collect();
    lower_first(shown.trim_end_matches('.'))
}

/// The first letter in lower case, unless the first word is an acronym or a type's name such as `Utf8`.
fn lower_first(text: &str) -> String {
    let word = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let plain = word.chars().skip(1).all(|c| c.is_ascii_lowercase());
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if plain => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::TableReference;
    use expect_test::{Expect, expect};

    use super::*;

    fn check(error: impl Into<SqlError>, expected: &Expect) {
        let error: SqlError = error.into();
        expected.assert_eq(&format!(
            "{:?} {:?} | {error} | {}",
            error.code,
            error.place.map(|p| (p.line, p.column)),
            error.notes.join(" / ")
        ));
    }

    #[test]
    fn what_the_parser_says_keeps_its_place_and_gets_a_suggestion() {
        let parser = |text: &str| ParserError::ParserError(text.to_owned());
        check(
            parser("Expected: end of statement, found: FORM at Line: 2, Column: 8"),
            &expect![[r#"Syntax Some((2, 8)) | expected the end of the statement, found FORM: did you mean FROM? | "#]],
        );
        check(parser("Expected: ), found: EOF"), &expect!["Syntax None | the statement ends where ) is expected | "]);
        check(parser("Unexpected thing"), &expect!["Syntax None | unexpected thing | "]);
        check(
            ParserError::RecursionLimitExceeded,
            &expect!["Limit None | the statement is nested too deeply: split it, or use IN (..) instead of a long chain of OR | "],
        );
    }

    #[test]
    fn what_datafusion_says_is_put_in_our_words() {
        let field = Box::new(Column::new(None::<TableReference>, "sp02"));
        let valid_fields = vec![Column::new(Some("vitals"), "bed"), Column::new(Some("vitals"), "spo2")];
        check(
            DataFusionError::SchemaError(Box::new(SchemaError::FieldNotFound { field, valid_fields }), Box::new(None)),
            &expect![[r#"NoSuchColumn None | no column "sp02": did you mean "spo2"? | columns: bed, spo2"#]],
        );
        let plan = |text: &str| DataFusionError::Plan(text.to_owned());
        check(
            plan("table 'datafusion.public.vitls' not found"),
            &expect![[r#"NoSuchName None | no stream or table "vitls": SHOW STREAMS lists what there is | "#]],
        );
        check(
            plan("Invalid function 'avgg'.\nDid you mean 'avg'?"),
            &expect![[r#"NoSuchFunction None | no function "avgg": did you mean "avg"? | "#]],
        );
        check(
            plan("Invalid function 'frobnicate'.\nDid you mean 'concat'?"),
            &expect![[r#"NoSuchFunction None | no function "frobnicate" | "#]],
        );
        check(
            plan("Cannot coerce arithmetic expression Utf8 + Boolean to valid types"),
            &expect![
                "TypeMismatch None | VARCHAR + BOOLEAN cannot be computed: CAST one side to the type of the other, or look whether another column is meant | "
            ],
        );
        check(
            DataFusionError::External(Box::new(SqlError::not_supported("SESSION"))),
            &expect!["NotSupported None | not supported yet: SESSION | "],
        );
    }

    /// What a query over `vitals(bed, spo2, ts)` fails with, as it is shown.
    fn check_query(query: &str, expected: &Expect) {
        use std::sync::Arc;

        use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
        use datafusion::datasource::empty::EmptyTable;
        use datafusion::prelude::{SessionConfig, SessionContext};
        use futures::FutureExt;

        let context = SessionContext::new_with_config(SessionConfig::new().set_bool("datafusion.sql_parser.collect_spans", true));
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        let fields =
            vec![Field::new("bed", DataType::Utf8, true), Field::new("spo2", DataType::Float64, true), Field::new("ts", time, true)];
        context.register_table("vitals", Arc::new(EmptyTable::new(Arc::new(Schema::new(fields))))).expect("the name is free");
        let planned = async {
            let plan = context.state().create_logical_plan(query).await?;
            context.state().optimize(&plan)
        };
        let error = planned.now_or_never().expect("nothing waits").expect_err("it is wrong");
        expected.assert_eq(&SqlError::from(error).locate(query).render(query));
    }

    #[test]
    fn a_real_query_fails_with_a_place_and_advice() {
        check_query(
            "SELECT bed,\n  sp02 FROM vitals",
            &expect![[r#"
            error[SQL-0012]: no column "sp02"
              2 |   sp02 FROM vitals
                |   ^^^^ did you mean "spo2"?
              columns: bed, spo2, ts
        "#]],
        );
        check_query(
            "SELECT v.spo2, vitals.bed FROM vitals AS v",
            &expect![[r#"
            error[SQL-0012]: no column "bed" in "vitals"
              1 | SELECT v.spo2, vitals.bed FROM vitals AS v
                |                ^^^^^^^^^^ "vitals" does not have it here; did you mean v.bed?
              columns: bed, spo2, ts
        "#]],
        );
        check_query(
            "SELECT * FROM vitls",
            &expect![[r#"
            error[SQL-0010]: no stream or table "vitls"
              1 | SELECT * FROM vitls
                |               ^^^^^ SHOW STREAMS lists what there is
        "#]],
        );
        check_query(
            "SELECT avgg(spo2) FROM vitals",
            &expect![[r#"
            error[SQL-0013]: no function "avgg"
              1 | SELECT avgg(spo2) FROM vitals
                |        ^^^^ did you mean "avg"?
        "#]],
        );
        check_query(
            "SELECT bed + ts FROM vitals",
            &expect![[r#"
            error[SQL-0016]: VARCHAR + TIMESTAMP cannot be computed
              1 | SELECT bed + ts FROM vitals
                |        ^^^^^^^^ CAST one side to the type of the other, or look whether another column is meant
        "#]],
        );
        check_query(
            "SELECT bed, avg(spo2) FROM vitals GROUP BY ts",
            &expect![[r#"
                error[SQL-0020]: column "bed" is neither grouped nor aggregated
                  1 | SELECT bed, avg(spo2) FROM vitals GROUP BY ts
                    |        ^^^ add bed to GROUP BY, or write an aggregate such as max(bed)
            "#]],
        );
        check_query(
            "SELECT spo2 FROM vitals AS a JOIN vitals AS b ON a.bed = b.bed",
            &expect![[r#"
            error[SQL-0015]: column "spo2" could mean several
              1 | SELECT spo2 FROM vitals AS a JOIN vitals AS b ON a.bed = b.bed
                |        ^^^^ write it with its table's name, as in v.ts
        "#]],
        );
        check_query(
            "SELECT upper(spo2, 1) FROM vitals",
            &expect![[r#"
            error[SQL-0016]: function "upper" takes 1 argument, and 2 are given
              1 | SELECT upper(spo2, 1) FROM vitals
                |        ^^^^^
        "#]],
        );
    }
}
