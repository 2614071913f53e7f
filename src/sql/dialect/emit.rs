//! The EMIT clause: found and cut off before sqlparser sees the query, because in `FROM t EMIT CHANGES` it takes EMIT
//! for an alias of `t`.

use std::time::Duration;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{is_word, word, words_at};
use crate::sql::error::{Place, SqlError, nearest};
use crate::sql::statement::Emit;
use crate::sql::types::interval_millis;

/// What EMIT can say, for messages.
const FORMS: &str = "EMIT ON WINDOW CLOSE [WITH GRACE INTERVAL i] [TIMEOUT INTERVAL i], EMIT ON UPDATE [EVERY INTERVAL i], EMIT EVERY INTERVAL i or EMIT CHANGES";

/// Takes the EMIT clause off the end of a statement.
pub fn cut(tokens: &mut Vec<TokenWithSpan>) -> Result<(Emit, Option<Place>), SqlError> {
    let mut depth = 0_i32;
    let mut found = None;
    for i in 0..tokens.len() {
        match tokens[i].token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ if begins_clause(tokens, i) => {
                if depth > 0 {
                    return Err(SqlError::not_supported("EMIT inside a subquery")
                        .at(Place::of(tokens[i].span))
                        .hint("write it at the end of the statement"));
                }
                found = Some(i);
                break;
            }
            _ => {}
        }
    }
    let Some(at) = found else { return Ok((Emit::Unstated, None)) };
    let clause = tokens.split_off(at);
    let place = Place::of(clause[0].span);
    let emit = read(&clause).map_err(|e| e.at(place))?;
    Ok((emit, place))
}

/// Whether the word EMIT at `i` begins the clause, and is not a column or table of that name.
fn begins_clause(tokens: &[TokenWithSpan], i: usize) -> bool {
    if i == 0 || !is_word(&tokens[i], "EMIT") {
        return false;
    }
    let behind_an_operand = match &tokens[i - 1].token {
        Token::Word(w) => w.quote_style.is_some() || !OPENS_OPERAND.iter().any(|k| w.value.eq_ignore_ascii_case(k)),
        Token::RParen | Token::RBracket | Token::Mul | Token::Number(..) | Token::SingleQuotedString(_) => true,
        _ => false,
    };
    if !behind_an_operand {
        return false;
    }
    match tokens.get(i + 1).map(|next| (word(next), next)) {
        None => true,
        // `FROM a JOIN b emit ON emit.x = a.x`
        Some((Some(next), _)) if next.eq_ignore_ascii_case("ON") => match tokens.get(i + 3).map(|t| &t.token) {
            None | Some(Token::Word(_)) => tokens.get(i + 2).is_some_and(|t| word(t).is_some()),
            _ => false,
        },
        Some((Some(next), _)) => !FOLLOWS_ALIAS.iter().any(|k| next.eq_ignore_ascii_case(k)),
        Some((None, _)) => false,
    }
}

/// After these words EMIT is a name.
const OPENS_OPERAND: &[&str] = &[
    "AS", "SELECT", "DISTINCT", "FROM", "JOIN", "BY", "WHERE", "AND", "OR", "NOT", "ON", "HAVING", "CASE", "WHEN", "THEN", "ELSE", "IN",
    "LIKE", "BETWEEN", "SET", "INTO", "TABLE", "IS",
];

/// Before these words EMIT is an alias.
const FOLLOWS_ALIAS: &[&str] = &[
    "FROM", "AS", "WHERE", "GROUP", "ORDER", "HAVING", "JOIN", "LEFT", "RIGHT", "FULL", "INNER", "CROSS", "NATURAL", "UNION", "LIMIT",
    "QUALIFY", "USING", "AND", "OR", "IS", "IN",
];

fn read(clause: &[TokenWithSpan]) -> Result<Emit, SqlError> {
    let refuse = |what: &str, hint: &str| Err(SqlError::not_supported(what).hint(hint));
    if words_at(clause, 1, &["CHANGES"]) {
        return end(clause, 2).map(|()| Emit::Changes);
    }
    let every = if words_at(clause, 1, &["ON", "UPDATE"]) { 3 } else { 1 };
    if words_at(clause, every, &["EVERY"]) {
        let (length, next) = read_interval(clause, every + 1, "EVERY")?;
        return end(clause, next).map(|()| Emit::Update { every: Some(length) });
    }
    if every == 3 {
        return end(clause, 3).map(|()| Emit::Update { every: None });
    }
    for word in ["FINAL", "AFTER", "PERIODIC", "CHANGELOG", "STREAM"] {
        if words_at(clause, 1, &[word]) {
            return refuse(&format!("EMIT {word}"), "write EMIT ON WINDOW CLOSE");
        }
    }
    if !words_at(clause, 1, &["ON", "WINDOW", "CLOSE"]) {
        let written = clause[1..].iter().take(4).map(|t| t.token.to_string()).collect::<Vec<_>>().join(" ");
        let known = ["ON WINDOW CLOSE", "CHANGES", "ON UPDATE", "EVERY"];
        let near = nearest(&written.to_ascii_uppercase(), known).map(|form| format!("did you mean EMIT {form}?"));
        let message = if written.is_empty() { "EMIT does not say when".to_owned() } else { format!("EMIT {written} is not a clause") };
        return Err(SqlError::syntax(message)
            .at(clause.get(1).and_then(|t| Place::of(t.span)))
            .hint(near.unwrap_or_else(|| format!("write {FORMS}"))));
    }
    let mut at = 4;
    let (mut grace, mut timeout) = (None, None);
    while at < clause.len() {
        let (what, word, from) =
            if words_at(clause, at, &["WITH", "GRACE"]) { (&mut grace, "GRACE", at + 2) } else { (&mut timeout, "TIMEOUT", at + 1) };
        if what.is_some() || (word == "TIMEOUT" && !words_at(clause, at, &["TIMEOUT"])) {
            return end(clause, at).map(|()| Emit::Unstated);
        }
        let (length, next) = read_interval(clause, from, word)?;
        *what = Some(length);
        at = next;
    }
    Ok(Emit::WindowClose { grace, timeout })
}

/// An INTERVAL from `at` on, and where the next thing begins.
fn read_interval(clause: &[TokenWithSpan], at: usize, word: &str) -> Result<(Duration, usize), SqlError> {
    let place = clause.get(at).or(clause.last()).and_then(|t| Place::of(t.span));
    let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(clause.get(at..).unwrap_or_default().to_vec());
    let expr = parser.parse_expr().map_err(|e| SqlError::from(e).at(place).hint(format!("write {word} INTERVAL '10' SECOND")))?;
    let millis = interval_millis(&expr).map_err(|e| e.at(place))?;
    let length = u64::try_from(millis).ok().filter(|ms| *ms > 0);
    let length = length.ok_or_else(|| SqlError::syntax(format!("{word} takes a positive interval")).at(place))?;
    Ok((Duration::from_millis(length), at + parser.get_current_index() + 1))
}

fn end(clause: &[TokenWithSpan], at: usize) -> Result<(), SqlError> {
    match clause.get(at) {
        None => Ok(()),
        Some(token) => {
            let found = token.token.to_string();
            Err(SqlError::syntax(format!("expected the end of the statement after EMIT, found {found}")).at(Place::of(token.span)).hint(
                if nearest(&found.to_ascii_uppercase(), ["TIMEOUT"]).is_some() {
                    "did you mean TIMEOUT?"
                } else {
                    "EMIT is the last clause"
                },
            ))
        }
    }
}
