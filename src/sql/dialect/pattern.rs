//! `MATCH_RECOGNIZE` before and after sqlparser.
//!
//! sqlparser reads most of it. Before parsing, [`rewrite`] cuts out what it does not know:
//! - `WITHIN INTERVAL ..` behind PATTERN travels as the first definition of DEFINE, under a name of ours;
//! - `FINAL f(..)` and `RUNNING f(..)` become calls of names of ours;
//! - `?` and `?|` inside PATTERN, which are operators of PostgreSQL elsewhere, become quantifiers.
//!
//! What is not built (SUBSET, PERMUTE, `{- -}`, anchors) is refused there by name. [`spelled`] prints it all as it is written. Every
//! token keeps its place.

use std::fmt::Write as _;

use datafusion::sql::sqlparser::ast::{AfterMatchSkip, RowsPerMatch, TableAlias, TableFactor};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{closing, is_word, made_word, word};
use crate::sql::error::{Place, SqlError};

/// The definition under which WITHIN travels.
pub const WITHIN: &str = "__within";
/// What stands before the name of a function that is called with FINAL.
pub const FINAL: &str = "__final_";
/// The same for RUNNING.
pub const RUNNING: &str = "__running_";

/// Rewrites every MATCH_RECOGNIZE.
pub fn rewrite(tokens: &[TokenWithSpan]) -> Result<Vec<TokenWithSpan>, SqlError> {
    let mut out = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        let opens = matches!(tokens.get(i + 1).map(|t| &t.token), Some(Token::LParen));
        match closing(tokens, i + 1).filter(|_| opens && is_word(&tokens[i], "MATCH_RECOGNIZE")) {
            Some(close) => {
                behind_a_name(tokens, i)?;
                out.extend_from_slice(&tokens[i..i + 2]);
                clauses(tokens, i + 2, close, &mut out)?;
                i = close;
            }
            None => {
                out.push(tokens[i].clone());
                i += 1;
            }
        }
    }
    Ok(out)
}

/// The parser takes it behind a name or a call alone.
fn behind_a_name(tokens: &[TokenWithSpan], at: usize) -> Result<(), SqlError> {
    let mut end = at;
    if end >= 2 && word(&tokens[end - 1]).is_some() && (is_word(&tokens[end - 2], "AS") || matches!(tokens[end - 2].token, Token::RParen)) {
        end -= if is_word(&tokens[end - 2], "AS") { 2 } else { 1 };
    }
    if end == 0 || !matches!(tokens[end - 1].token, Token::RParen) {
        return Ok(());
    }
    let open = (0..end).rev().find(|open| matches!(tokens[*open].token, Token::LParen) && closing(tokens, *open) == Some(end - 1));
    let is_subquery = open.and_then(|open| tokens.get(open + 1)).is_some_and(|first| is_word(first, "SELECT") || is_word(first, "WITH"));
    if !is_subquery {
        return Ok(());
    }
    Err(SqlError::not_supported("MATCH_RECOGNIZE behind a subquery")
        .at(Place::of(tokens[at].span))
        .hint("give the subquery a name: WITH x AS (SELECT ..) SELECT .. FROM x MATCH_RECOGNIZE (..)"))
}

/// What lies between the brackets, without them.
fn clauses(tokens: &[TokenWithSpan], from: usize, close: usize, out: &mut Vec<TokenWithSpan>) -> Result<(), SqlError> {
    let refuse = |name: &str, at: usize| SqlError::not_supported(name).at(Place::of(tokens[at].span));
    let (mut i, mut depth, mut is_defining) = (from, 0_usize, false);
    let mut within: Vec<TokenWithSpan> = Vec::new();
    while i < close {
        let token = &tokens[i];
        let opens = |at: usize| matches!(tokens.get(at).map(|t| &t.token), Some(Token::LParen));
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        let is_final = is_word(token, "FINAL");
        if (is_final || is_word(token, "RUNNING"))
            && let Some(function) = tokens.get(i + 1).and_then(word).filter(|_| opens(i + 2))
        {
            if is_final && is_defining {
                return Err(refuse("FINAL in DEFINE", i).hint("a condition knows no rows but those up to its own: leave FINAL out"));
            }
            let prefix = if is_final { FINAL } else { RUNNING };
            out.push(made_word(&format!("{prefix}{}", function.to_ascii_lowercase()), tokens[i + 1].span));
            i += 2;
            continue;
        }
        if depth == 0 && is_word(token, "SUBSET") {
            return Err(refuse("SUBSET in MATCH_RECOGNIZE", i).hint("name the variables one by one"));
        }
        if depth == 0 && is_word(token, "DEFINE") {
            is_defining = true;
            out.push(token.clone());
            i += 1;
            if !within.is_empty() {
                define_within(std::mem::take(&mut within), out);
                out.push(TokenWithSpan::new(Token::Comma, token.span));
            }
            continue;
        }
        if depth == 0 && is_word(token, "PATTERN") && opens(i + 1) {
            let end = closing(tokens, i + 1).filter(|end| *end < close).unwrap_or(close);
            pattern(tokens, i, end, out)?;
            i = end + 1;
            if i < close && is_word(&tokens[i], "WITHIN") {
                let length = (i + 1..close).take_while(|at| !is_word(&tokens[*at], "DEFINE") && !is_word(&tokens[*at], "SUBSET"));
                within = std::iter::once(i).chain(length).map(|at| tokens[at].clone()).collect();
                if within.len() == 1 {
                    return Err(SqlError::syntax("WITHIN has no length")
                        .at(Place::of(tokens[i].span))
                        .hint("write WITHIN INTERVAL '2' MINUTE"));
                }
                i += within.len();
            }
            continue;
        }
        out.push(token.clone());
        i += 1;
    }
    if !within.is_empty() {
        out.push(made_word("DEFINE", within[0].span));
        define_within(within, out);
    }
    Ok(())
}

/// `WITHIN length` as a definition; the word WITHIN gives it its place.
fn define_within(mut within: Vec<TokenWithSpan>, out: &mut Vec<TokenWithSpan>) {
    let span = within.remove(0).span;
    out.push(made_word(WITHIN, span));
    out.push(made_word("AS", span));
    out.extend(within);
}

/// `PATTERN ( .. )`, its last bracket included.
fn pattern(tokens: &[TokenWithSpan], from: usize, end: usize, out: &mut Vec<TokenWithSpan>) -> Result<(), SqlError> {
    let refuse = |name: &str, at: usize, hint: &str| Err(SqlError::not_supported(name).at(Place::of(tokens[at].span)).hint(hint));
    out.push(tokens[from].clone());
    for at in from + 1..=end.min(tokens.len() - 1) {
        let token = &tokens[at];
        let next = tokens.get(at + 1).map(|t| &t.token);
        let mut push = |made: Token| out.push(TokenWithSpan::new(made, token.span));
        match &token.token {
            Token::LBrace if matches!(next, Some(Token::Minus)) => {
                return refuse("{- .. -} (rows left out) in PATTERN", at, "name the rows, and leave them out by CLASSIFIER()");
            }
            Token::Caret => return refuse("^ (the first row of all) in PATTERN", at, "leave it out: a stream goes on"),
            Token::Placeholder(sign) if sign.starts_with('$') => {
                return refuse("$ (the last row of all) in PATTERN", at, "leave it out: a stream goes on");
            }
            Token::Word(_) if is_word(token, "PERMUTE") && matches!(next, Some(Token::LParen)) => {
                return refuse("PERMUTE in PATTERN", at, "write the orders out: (a b | b a)");
            }
            Token::LParen if matches!(next, Some(Token::RParen)) => {
                return refuse("() (no row) in PATTERN", at, "write a variable with ? for a row that may be missing");
            }
            Token::Question => push(Token::Placeholder("?".to_owned())),
            Token::QuestionPipe => {
                push(Token::Placeholder("?".to_owned()));
                push(Token::Pipe);
            }
            other => push(other.clone()),
        }
    }
    Ok(())
}

/// A MATCH_RECOGNIZE as it is written, a clause a line, and its alias.
pub fn spelled(factor: &TableFactor) -> Option<(String, Option<TableAlias>)> {
    let TableFactor::MatchRecognize { table, partition_by, order_by, measures, rows_per_match, after_match_skip, pattern, symbols, alias } =
        factor
    else {
        return None;
    };
    fn list<T: ToString>(of: &[T]) -> String {
        of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
    let mut out = format!("{table} MATCH_RECOGNIZE (");
    // Writing to a String cannot fail.
    if !partition_by.is_empty() {
        let _ = write!(out, "\n  PARTITION BY {}", list(partition_by));
    }
    if !order_by.is_empty() {
        let _ = write!(out, "\n  ORDER BY {}", list(order_by));
    }
    if !measures.is_empty() {
        let _ = write!(out, "\n  MEASURES {}", as_written(&list(measures)));
    }
    let _ = write!(out, "\n  {}", rows_per_match.as_ref().unwrap_or(&RowsPerMatch::OneRow));
    match after_match_skip.as_ref().unwrap_or(&AfterMatchSkip::PastLastRow) {
        AfterMatchSkip::ToNextRow => out.push_str("\n  AFTER MATCH SKIP TO NEXT ROW"),
        skip => {
            let _ = write!(out, "\n  {skip}");
        }
    }
    let _ = write!(out, "\n  PATTERN ({pattern})");
    let (within, symbols): (Vec<_>, Vec<_>) = symbols.iter().partition(|symbol| symbol.symbol.value == WITHIN);
    for symbol in within {
        let _ = write!(out, " WITHIN {}", symbol.definition);
    }
    if !symbols.is_empty() {
        let _ = write!(out, "\n  DEFINE {}", as_written(&list(&symbols)));
    }
    out.push_str("\n)");
    Some((out, alias.clone()))
}

/// FINAL and RUNNING before their functions again.
pub fn as_written(text: &str) -> String {
    text.replace(FINAL, "FINAL ").replace(RUNNING, "RUNNING ")
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

    fn check_refused(clauses: &str, name: &str) {
        let piece = split_script(&format!("FROM s MATCH_RECOGNIZE ({clauses}) AS m")).expect("it is whole").remove(0);
        let error = rewrite(&piece.tokens).expect_err(clauses);
        assert!(error.message.contains(name), "{clauses}: {error}");
        assert!(error.place.is_some(), "{clauses}");
    }

    #[test]
    fn what_the_parser_does_not_know_travels_in_another_form() {
        check(
            "FROM s MATCH_RECOGNIZE (PATTERN (a b?|c*?) WITHIN INTERVAL '1' HOUR DEFINE a AS x > 1) AS m",
            "FROM s MATCH_RECOGNIZE ( PATTERN ( a b ? | c * ? ) DEFINE __within AS INTERVAL '1' HOUR , a AS x > 1 ) AS m",
        );
        check(
            "FROM s MATCH_RECOGNIZE (MEASURES FINAL LAST(a.x) AS l, running Sum(x) AS s PATTERN (a) DEFINE a AS (final))",
            "FROM s MATCH_RECOGNIZE ( MEASURES __final_last ( a . x ) AS l , __running_sum ( x ) AS s PATTERN ( a ) DEFINE a AS ( final ) )",
        );
        check(
            "FROM s MATCH_RECOGNIZE (PATTERN (a b) WITHIN INTERVAL '1' HOUR)",
            "FROM s MATCH_RECOGNIZE ( PATTERN ( a b ) DEFINE __within AS INTERVAL '1' HOUR )",
        );
        check("SELECT match_recognize FROM final ( x )", "SELECT match_recognize FROM final ( x )");
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        check_refused("PATTERN (a b) SUBSET u = (a, b) DEFINE a AS true", "SUBSET");
        check_refused("PATTERN (a {- b -} c) DEFINE a AS true", "{- .. -}");
        check_refused("PATTERN (PERMUTE(a, b)) DEFINE a AS true", "PERMUTE");
        check_refused("PATTERN (^ a) DEFINE a AS true", "^ (the first row");
        check_refused("PATTERN (a ()) DEFINE a AS true", "() (no row)");
        check_refused("PATTERN (a) DEFINE a AS FINAL LAST(x) > 1", "FINAL in DEFINE");
        check_refused("PATTERN (a) WITHIN DEFINE a AS true", "WITHIN has no length");
        for table in ["(SELECT * FROM s)", "(SELECT * FROM s) AS t", "(SELECT * FROM s) t"] {
            let piece =
                split_script(&format!("FROM {table} MATCH_RECOGNIZE (PATTERN (a) DEFINE a AS true)")).expect("it is whole").remove(0);
            assert!(rewrite(&piece.tokens).expect_err(table).message.contains("behind a subquery"));
        }
    }
}
