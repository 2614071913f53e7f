//! What Flink and RisingWave write in another way than DataFusion: names of functions, patterns of dates, `FLOOR(ts TO MINUTE)`.
//!
//! Owns the table of such calls. They are brought to ours right after parsing, wherever an expression may stand, so that nothing
//! behind knows of them. Always: the same answer as the engine that the spelling comes from, or an error; never a call that is
//! taken to mean something else. A column that is such a call is called as it was written. Called by `parse` and by `macros`.

mod likeness;
mod patterns;
mod precedence;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use arrow::array::timezone::Tz;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CeilFloorKind, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, LimitClause,
    NamedWindowDefinition, NamedWindowExpr, ObjectName, Query, Select, SelectItem, Spanned, Value, VisitMut, VisitorMut, WindowFrameBound,
    WindowSpec, WindowType,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::dialect::windows::plain_arguments;
use super::error::{Code, Place, SqlError};
use patterns::Letters;
pub use precedence::regroup;

/// Functions that are here under another name, and what they are called with.
const RENAMED: &[(&str, &str)] = &[
    ("ceiling", "ceil"),
    ("truncate", "trunc"),
    ("lcase", "lower"),
    ("ucase", "upper"),
    ("startswith", "starts_with"),
    ("endswith", "ends_with"),
    ("regexp", "regexp_like"),
    ("rand", "random"),
    ("sign", "signum"),
    ("unix_timestamp", "to_unixtime"),
    ("variance", "var_samp"),
    ("approx_count_distinct", "approx_distinct"),
    ("listagg", "string_agg"),
    ("grouping_id", "grouping"),
    ("date_format", "to_char"),
    ("gen_random_uuid", "uuid"),
];

/// Functions that are an expression here: how many arguments they have, and the expression over them.
const WRITTEN: &[(&str, usize, &str)] = &[
    ("mod", 2, "$1 % $2"),
    ("if", 3, "CASE WHEN $1 THEN $2 ELSE $3 END"),
    ("regexp_substr", 2, "regexp_extract($1, $2)"),
    ("locate", 2, "strpos($2, $1)"),
    ("split_index", 3, "CASE WHEN $3 < 0 THEN NULL ELSE string_to_array($1, $2)[$3 + 1] END"),
    ("to_timestamp_ltz", 2, "to_timestamp_millis(CASE WHEN $2 = 0 THEN $1 * 1000 ELSE $1 END)"),
    ("year", 1, "date_part('year', $1)"),
    ("quarter", 1, "date_part('quarter', $1)"),
    ("month", 1, "date_part('month', $1)"),
    ("week", 1, "date_part('week', $1)"),
    ("dayofyear", 1, "date_part('doy', $1)"),
    ("dayofmonth", 1, "date_part('day', $1)"),
    ("day", 1, "date_part('day', $1)"),
    ("dayofweek", 1, "date_part('dow', $1) + 1"),
    ("hour", 1, "date_part('hour', $1)"),
    ("minute", 1, "date_part('minute', $1)"),
    ("second", 1, "date_part('second', $1)"),
];

/// Functions whose first argument is a unit of time, written without quotes.
const OF_UNITS: &[&str] = &["timestampdiff", "timestampadd"];

/// Functions that read or write a time by a pattern, behind the first argument; whose letters it has where they do not tell themselves.
const OF_PATTERNS: &[(&str, Letters)] = &[
    ("to_char", Letters::Postgres),
    ("date_format", Letters::Java),
    ("to_timestamp", Letters::Either),
    ("to_timestamp_seconds", Letters::Either),
    ("to_timestamp_millis", Letters::Either),
    ("to_timestamp_micros", Letters::Either),
    ("to_timestamp_nanos", Letters::Either),
    ("to_unixtime", Letters::Either),
    ("unix_timestamp", Letters::Either),
    ("to_date", Letters::Either),
];

/// Aggregates of conditions, and which aggregate of 1 and 0 they are over a frame, where there is none of their own.
const OF_TRUTH: &[(&str, &str)] = &[("bool_or", "max"), ("bool_and", "min"), ("every", "min")];

/// Functions that have no meaning here, and what to do.
const MEANINGLESS: &[(&str, &str)] = &[
    (
        "proctime",
        "queries go by the event time of the rows, so that they give the same whenever they run: leave it out, or name the time of arrival, METADATA FROM 'timestamp'",
    ),
    ("source_watermark", "say how far rows may be behind, as in WATERMARK FOR ts AS ts - INTERVAL '5' SECOND"),
    ("current_watermark", "late rows are counted and can be kept, with 'late.topic'; EXPLAIN ANALYZE QUERY q shows the watermarks"),
];

/// The expressions of [`WRITTEN`], parsed once.
static EXPRESSIONS: LazyLock<BTreeMap<&str, (usize, Expr)>> = LazyLock::new(|| {
    let parsed = |text: &str| Parser::new(&GenericDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_expr());
    WRITTEN.iter().map(|(name, count, text)| (*name, (*count, parsed(text).expect("the table holds expressions")))).collect()
});

/// Whether a name is one of those that are brought to another: nobody can give it to a function of their own.
pub fn knows(name: &str) -> bool {
    let mut names = RENAMED.iter().map(|(name, _)| *name).chain(WRITTEN.iter().map(|(name, ..)| *name));
    names.any(|known| known == name) || MEANINGLESS.iter().any(|(known, _)| *known == name)
}

/// Brings a query or an expression to our spelling.
pub fn normalize<T: VisitMut>(of: &mut T) -> Result<(), SqlError> {
    regroup(of);
    match of.visit(&mut Spelling) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Spelling;

impl VisitorMut for Spelling {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        fetch(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        for NamedWindowDefinition(_, window) in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = window {
                up_to_the_row(spec);
            }
        }
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && is_spelled(expr)
            {
                let alias = Ident::with_quote('"', expr.to_string());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        match ours(expr) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(other)) => {
                *expr = other;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`. Where it says more it stays, and is refused by name.
fn fetch(query: &mut Query) {
    let Some(fetch) = query.fetch.take_if(|fetch| !fetch.percent && !fetch.with_ties) else { return };
    let limit = Some(fetch.quantity.clone().unwrap_or_else(|| Expr::Value(Value::Number("1".to_owned(), false).into())));
    match &mut query.limit_clause {
        None => query.limit_clause = Some(LimitClause::LimitOffset { limit, offset: None, limit_by: Vec::new() }),
        Some(LimitClause::LimitOffset { limit: none @ None, .. }) => *none = limit,
        Some(_) => query.fetch = Some(fetch),
    }
}

/// A frame that ends nothing behind its row ends with it.
fn up_to_the_row(window: &mut WindowSpec) {
    let Some(frame) = &mut window.window_frame else { return };
    if matches!(&frame.end_bound, Some(WindowFrameBound::Following(Some(by))) if is_nothing(by)) {
        frame.end_bound = Some(WindowFrameBound::CurrentRow);
    }
}

fn is_nothing(by: &Expr) -> bool {
    match by {
        Expr::Value(value) => value.to_string() == "0",
        Expr::Interval(interval) => interval.value.to_string() == "'0'",
        _ => false,
    }
}

/// Whether an expression as a whole will be another one.
fn is_spelled(expr: &Expr) -> bool {
    match expr {
        Expr::Function(call) => name_of(call).is_some_and(|name| {
            knows(&name)
                || name == "from_unixtime"
                || call.over.is_some() && of_truth(&name)
                || OF_UNITS.contains(&name.as_str())
                || OF_PATTERNS.iter().any(|(known, _)| *known == name)
        }),
        Expr::Floor { field, .. } | Expr::Ceil { field, .. } => unit_of(field).is_some(),
        Expr::BinaryOp { op, .. } => matches!(op, BinaryOperator::Arrow | BinaryOperator::LongArrow),
        Expr::SimilarTo { .. } => true,
        Expr::Like { escape_char, .. } | Expr::ILike { escape_char, .. } => escape_char.is_some(),
        _ => false,
    }
}

fn of_truth(name: &str) -> bool {
    OF_TRUTH.iter().any(|(known, _)| *known == name)
}

/// The name of a call in lower case, unless it is in quotes.
fn name_of(call: &Function) -> Option<String> {
    match call.name.0.as_slice() {
        [part] => part.as_ident().filter(|ident| ident.quote_style.is_none()).map(|ident| ident.value.to_ascii_lowercase()),
        _ => None,
    }
}

/// What stands for an expression, where something else does.
fn ours(expr: &mut Expr) -> Result<Option<Expr>, SqlError> {
    match expr {
        Expr::Function(call) => {
            if let Some(WindowType::WindowSpec(spec)) = &mut call.over {
                up_to_the_row(spec);
            }
            match name_of(call) {
                Some(name) => of_call(&name, call),
                None => Ok(None),
            }
        }
        Expr::Floor { expr, field } => {
            Ok(unit_of(field).map(|unit| filled(&template("date_trunc($2, $1)"), &[expr.as_ref().clone(), unit])))
        }
        Expr::Ceil { expr, field } => {
            let text = "CASE WHEN date_trunc($2, $1) = $1 THEN $1 ELSE date_trunc($2, timestampadd($2, 1, $1)) END";
            Ok(unit_of(field).map(|unit| filled(&template(text), &[expr.as_ref().clone(), unit])))
        }
        Expr::BinaryOp { left, op: op @ (BinaryOperator::Arrow | BinaryOperator::LongArrow), right } => {
            let text = if *op == BinaryOperator::Arrow { "json_get($1, $2)" } else { "json_get_text($1, $2)" };
            Ok(Some(filled(&template(text), &[left.as_ref().clone(), right.as_ref().clone()])))
        }
        Expr::SimilarTo { .. } | Expr::Like { .. } | Expr::ILike { .. } => likeness::ours(expr),
        _ => Ok(None),
    }
}

fn of_call(name: &str, call: &mut Function) -> Result<Option<Expr>, SqlError> {
    let place = Place::of(call.name.span());
    if let Some((_, hint)) = MEANINGLESS.iter().find(|(known, _)| *known == name) {
        return Err(SqlError::not_supported(&format!("{}()", name.to_uppercase())).at(place).hint(*hint));
    }
    if let Some((count, expression)) = EXPRESSIONS.get(name) {
        let Some(arguments) = plain_arguments(call).ok().filter(|arguments| arguments.len() == *count) else {
            let takes = if *count == 1 { "one argument".to_owned() } else { format!("{count} arguments") };
            return Err(SqlError::new(Code::TypeMismatch, format!("{name} takes {takes} and nothing else")).at(place));
        };
        return Ok(Some(Expr::Nested(Box::new(filled(expression, &arguments)))));
    }
    if name == "from_unixtime"
        && let Some(arguments) = plain_arguments(call).ok()
        && let [_, Expr::Value(pattern)] = arguments.as_slice()
        && let Value::SingleQuotedString(text) = &pattern.value
        && text.parse::<Tz>().is_err()
    {
        // Flink's: text by a pattern. DataFusion's second argument is a zone.
        let signs = patterns::chrono(text, Letters::Java).map_err(|e| e.at(Place::of(pattern.span).or(place)))?;
        let signs = Expr::Value(Value::SingleQuotedString(signs).into());
        return Ok(Some(filled(&template("to_char(from_unixtime($1), $2)"), &[arguments[0].clone(), signs])));
    }
    if call.over.is_some() && of_truth(name) {
        return Ok(over_truth(name, call));
    }
    if OF_UNITS.contains(&name)
        && let Some(unit) = arguments_of(call).and_then(|arguments| arguments.first_mut())
        && let FunctionArg::Unnamed(FunctionArgExpr::Expr(unit)) = unit
        && let Expr::Identifier(word) = &*unit
    {
        *unit = unit_name(&word.value);
    }
    if let Some((_, letters)) = OF_PATTERNS.iter().find(|(known, _)| *known == name) {
        for pattern in arguments_of(call).into_iter().flatten().skip(1) {
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(pattern))) = pattern
                && let Value::SingleQuotedString(text) = &mut pattern.value
            {
                *text = patterns::chrono(text, *letters).map_err(|e| e.at(Place::of(pattern.span).or(place)))?;
            }
        }
    }
    if name == "listagg"
        && let Some(arguments) = arguments_of(call).filter(|arguments| arguments.len() == 1)
    {
        let comma = Expr::Value(Value::SingleQuotedString(",".to_owned()).into());
        arguments.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(comma)));
    }
    if let Some((_, known)) = RENAMED.iter().find(|(other, _)| *other == name) {
        call.name = ObjectName::from(Ident::with_span(call.name.span(), *known));
    }
    Ok(None)
}

/// `bool_or(x) OVER (..)` as the greatest of 1 and 0 over the same rows; NULL where all are NULL.
fn over_truth(name: &str, call: &mut Function) -> Option<Expr> {
    let (_, aggregate) = OF_TRUTH.iter().find(|(known, _)| *known == name)?;
    let [argument] = arguments_of(call)?.as_mut_slice() else { return None };
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(condition)) = argument else { return None };
    *condition = filled(&template("CASE WHEN $1 THEN 1 WHEN NOT $1 THEN 0 END"), std::slice::from_ref(condition));
    call.name = ObjectName::from(Ident::with_span(call.name.span(), *aggregate));
    let one = Expr::Value(Value::Number("1".to_owned(), false).into());
    let same = Expr::BinaryOp { left: Box::new(Expr::Function(call.clone())), op: BinaryOperator::Eq, right: Box::new(one) };
    Some(Expr::Nested(Box::new(same)))
}

/// The arguments of a call, to be changed; none where it has no list of them.
fn arguments_of(call: &mut Function) -> Option<&mut Vec<FunctionArg>> {
    match &mut call.args {
        FunctionArguments::List(list) => Some(&mut list.args),
        FunctionArguments::None | FunctionArguments::Subquery(_) => None,
    }
}

/// The unit of `FLOOR(ts TO unit)`; the plain function has none.
fn unit_of(field: &CeilFloorKind) -> Option<Expr> {
    match field {
        CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) | CeilFloorKind::Scale(_) => None,
        CeilFloorKind::DateTimeField(unit) => Some(unit_name(&unit.to_string())),
    }
}

/// A unit of time as a text.
fn unit_name(word: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(word.to_ascii_lowercase()).into())
}

fn template(text: &str) -> Expr {
    Parser::new(&GenericDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_expr()).expect("our own text is an expression")
}

/// The expression, its placeholders `$1`, `$2`, .. replaced.
fn filled(expression: &Expr, arguments: &[Expr]) -> Expr {
    struct Fill<'a>(&'a [Expr]);
    impl VisitorMut for Fill<'_> {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Value(value) = expr
                && let Value::Placeholder(name) = &value.value
                && let Some(argument) = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).and_then(|n| self.0.get(n - 1))
            {
                let whole = matches!(argument, Expr::Value(_) | Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Function(_));
                *expr = if whole { argument.clone() } else { Expr::Nested(Box::new(argument.clone())) };
            }
            ControlFlow::Continue(())
        }
    }
    let mut made = expression.clone();
    let _ = VisitMut::visit(&mut made, &mut Fill(arguments));
    made
}
