//! `SIMILAR TO`, which is a pattern of its own and no regular expression, and `LIKE .. ESCAPE`, as what the engine below has.
//!
//! Always: a text is similar to a pattern only as a whole; a pattern that is no text in quotes is refused, for it cannot be rewritten.

use datafusion::sql::sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments};
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, Spanned, UnaryOperator, Value, ValueWithSpan};

use crate::sql::error::{Code, Place, SqlError};

/// The escape sign where none is said.
const BACKSLASH: char = '\\';

/// What stands for `SIMILAR TO`, and for `LIKE` with an escape sign of its own.
pub(super) fn ours(expr: &mut Expr) -> Result<Option<Expr>, SqlError> {
    match expr {
        Expr::SimilarTo { negated, expr, pattern, escape_char } => {
            let Some(text) = quoted(pattern) else {
                return Err(SqlError::not_supported("SIMILAR TO with a pattern that is not a text in quotes")
                    .at(Place::of(pattern.span()))
                    .hint("write regexp_like(text, pattern), with a regular expression that begins with ^ and ends with $"));
            };
            let escape = escape_of(escape_char.as_ref())?.unwrap_or(Some(BACKSLASH));
            let regex = similar(&text, escape).map_err(|e| e.at(Place::of(pattern.span())))?;
            let call = call("regexp_like", [expr.as_ref().clone(), literal(regex)]);
            Ok(Some(if *negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(call) } } else { call }))
        }
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
            let (Some(text), Some(escape)) = (quoted(pattern), escape_of(escape_char.as_ref())?) else { return Ok(None) };
            **pattern = literal(like(&text, escape).map_err(|e| e.at(Place::of(pattern.span())))?);
            *escape_char = None;
            Ok(None)
        }
        _ => Ok(None),
    }
}

fn quoted(pattern: &Expr) -> Option<String> {
    match pattern {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => Some(text.clone()),
        _ => None,
    }
}

/// What ESCAPE says: nothing at all; that no sign escapes; or which.
fn escape_of(said: Option<&ValueWithSpan>) -> Result<Option<Option<char>>, SqlError> {
    let Some(said) = said else { return Ok(None) };
    let Value::SingleQuotedString(text) = &said.value else { return Err(bad_escape(said)) };
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (escape, None) => Ok(Some(escape)),
        _ => Err(bad_escape(said)),
    }
}

fn bad_escape(said: &ValueWithSpan) -> SqlError {
    SqlError::new(Code::BadDefinition, "ESCAPE takes one sign in quotes").at(Place::of(said.span)).hint("write ESCAPE '!'")
}

fn ends_with_escape() -> SqlError {
    SqlError::new(Code::BadDefinition, "the pattern ends with its escape sign").hint("write the sign twice where it stands for itself")
}

/// A LIKE pattern whose escape sign is the backslash.
fn like(pattern: &str, escape: Option<char>) -> Result<String, SqlError> {
    let mut made = String::with_capacity(pattern.len() + 2);
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        let letter = if Some(letter) == escape {
            made.push(BACKSLASH);
            letters.next().ok_or_else(ends_with_escape)?
        } else {
            if letter == BACKSLASH {
                made.push(BACKSLASH);
            }
            letter
        };
        made.push(letter);
    }
    Ok(made)
}

/// The regular expression of a SIMILAR TO pattern: `%` and `_` as in LIKE, `| * + ? {} () []` as in regular expressions, all else itself.
fn similar(pattern: &str, escape: Option<char>) -> Result<String, SqlError> {
    let mut made = String::from("(?s)^(?:");
    let mut in_brackets = false;
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            _ if Some(letter) == escape => {
                made.push_str(&regex::escape(letters.next().ok_or_else(ends_with_escape)?.encode_utf8(&mut [0; 4])));
            }
            BACKSLASH => made.push_str("\\\\"),
            _ if in_brackets => {
                in_brackets = letter != ']';
                made.push(letter);
            }
            '[' => {
                in_brackets = true;
                made.push(letter);
            }
            '%' => made.push_str(".*"),
            '_' => made.push('.'),
            '.' | '^' | '$' => {
                made.push(BACKSLASH);
                made.push(letter);
            }
            _ => made.push(letter),
        }
    }
    made.push_str(")$");
    regex::Regex::new(&made)
        .map(|_| made)
        .map_err(|_| SqlError::new(Code::BadDefinition, "the pattern of SIMILAR TO cannot be read").hint("close its brackets"))
}

fn literal(text: String) -> Expr {
    Expr::Value(Value::SingleQuotedString(text).into())
}

fn call<const N: usize>(name: &str, arguments: [Expr; N]) -> Expr {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: ObjectName::from(Ident::new(name)),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
