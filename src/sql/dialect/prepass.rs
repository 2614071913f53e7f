//! What is rewritten in a query's tokens before sqlparser sees them.
//!
//! - `TABLE(TUMBLE(..))` becomes `TUMBLE(..)`;
//! - inside such a call `TABLE vitals` becomes `vitals`;
//! - `PARTITION BY a, b` behind the table is cut out and comes back as the last argument `partition_by(a, b)`, which
//!   [`super::windows`] takes apart.
//!
//! Every token keeps its place; the few that are made up take the place of their neighbours.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{closing, is_word, made_word, word, words_at};
use crate::sql::error::{Code, Place, SqlError, did_you_mean};

/// The name under which PARTITION BY travels through the parser.
pub(super) const PARTITION_BY: &str = "partition_by";

/// The window calls that are built.
pub(super) const CALLS: [&str; 6] = ["tumble", "hop", "cumulate", "session", "absent", "gap_fill"];

/// How deep window calls may lie in one another.
const MAX_NESTED: usize = 16;

/// A window call whose closing bracket is not reached yet.
struct Call {
    close: usize,
    /// The bracket that closes the query which is its table.
    table_close: Option<usize>,
    keys: Vec<TokenWithSpan>,
}

/// Rewrites every window call.
pub fn rewrite(tokens: &[TokenWithSpan]) -> Result<Vec<TokenWithSpan>, SqlError> {
    let pairs = brackets(tokens);
    let mut out = Vec::with_capacity(tokens.len());
    // Brackets that were opened by `TABLE (` and are dropped when they close, by index.
    let mut dropped = Vec::new();
    let mut open: Vec<Call> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if let Some(close) = wrapper(tokens, &pairs, i) {
            dropped.push(close);
            i += 2;
            continue;
        }
        if dropped.last() == Some(&i) {
            dropped.pop();
            i += 1;
            continue;
        }
        if let Some(error) = unknown_call(tokens, i) {
            return Err(error);
        }
        if is_call(tokens, i)
            && let Some(close) = pairs[i + 1]
        {
            if open.len() == MAX_NESTED {
                return Err(SqlError::new(Code::Limit, format!("more than {MAX_NESTED} window calls lie in one another"))
                    .at(Place::of(tokens[i].span)));
            }
            out.extend_from_slice(&tokens[i..i + 2]);
            i = begin_table(tokens, i + 2, close, &mut out);
            let table_close = pairs[i].filter(|end| *end < close);
            open.push(Call { close, table_close, keys: Vec::new() });
            if table_close.is_none() {
                i = table_name(tokens, i, close, &mut out);
                i = partition(tokens, i, open.last_mut().expect("it was pushed just now"))?;
            }
            continue;
        }
        if open.last().is_some_and(|call| call.close == i) {
            let call = open.pop().expect("it was looked at just now");
            append_keys(&mut out, call.keys, &tokens[i]);
        }
        out.push(tokens[i].clone());
        i += 1;
        if let Some(call) = open.last_mut()
            && call.table_close == Some(i - 1)
        {
            call.table_close = None;
            i = partition(tokens, i, call)?;
        }
    }
    Ok(out)
}

/// For each opening bracket, the index of the one that closes it.
fn brackets(tokens: &[TokenWithSpan]) -> Vec<Option<usize>> {
    let mut pairs = vec![None; tokens.len()];
    let mut open = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => open.push(i),
            Token::RParen => {
                if let Some(begin) = open.pop() {
                    pairs[begin] = Some(i);
                }
            }
            _ => {}
        }
    }
    pairs
}

/// `TABLE (` around nothing but a window call: the index of its closing bracket.
fn wrapper(tokens: &[TokenWithSpan], pairs: &[Option<usize>], i: usize) -> Option<usize> {
    if !is_word(&tokens[i], "TABLE") || !is_call(tokens, i + 2) {
        return None;
    }
    let close = (*pairs.get(i + 1)?)?;
    ((*pairs.get(i + 3)?)? + 1 == close).then_some(close)
}

/// What looks like a window call and is none: `TABLE(TUMBEL(TABLE ..`, or `tumbel(TABLE ..`.
fn unknown_call(tokens: &[TokenWithSpan], i: usize) -> Option<SqlError> {
    let name = tokens.get(i).and_then(word)?;
    let opens = |at: usize| matches!(tokens.get(at).map(|t| &t.token), Some(Token::LParen));
    let takes_table = opens(i + 1) && tokens.get(i + 2).is_some_and(|t| is_word(t, "TABLE")) && tokens.get(i + 3).and_then(word).is_some();
    if !takes_table || is_call(tokens, i) {
        return None;
    }
    let meant = did_you_mean(&name.to_ascii_lowercase(), CALLS);
    let wrapped = i >= 2 && opens(i - 1) && is_word(&tokens[i - 2], "TABLE");
    if meant.is_none() && !wrapped {
        return None;
    }
    let error = SqlError::new(Code::NoSuchFunction, format!("no window function \"{name}\"")).at(Place::of(tokens[i].span));
    Some(
        error
            .hint_opt(meant.map(|hint| hint.replace('"', "").to_uppercase().replace("DID YOU MEAN", "did you mean")))
            .note("there are TUMBLE, HOP, CUMULATE, SESSION, ABSENT and GAP_FILL"),
    )
}

fn is_call(tokens: &[TokenWithSpan], i: usize) -> bool {
    let named = tokens.get(i).and_then(word).is_some_and(|w| CALLS.iter().any(|c| w.eq_ignore_ascii_case(c)));
    named && matches!(tokens.get(i + 1).map(|t| &t.token), Some(Token::LParen)) && !(i > 0 && matches!(tokens[i - 1].token, Token::Period))
}

/// The beginning of a call's table argument: `DATA =>` is kept, the word TABLE dropped. Gives where the table begins.
fn begin_table(tokens: &[TokenWithSpan], mut i: usize, close: usize, out: &mut Vec<TokenWithSpan>) -> usize {
    if i + 2 < close && word(&tokens[i]).is_some() && matches!(tokens[i + 1].token, Token::RArrow) {
        out.extend_from_slice(&tokens[i..i + 2]);
        i += 2;
    }
    if i + 1 < close && is_word(&tokens[i], "TABLE") { i + 1 } else { i }
}

/// The table's name, as far as it goes.
fn table_name(tokens: &[TokenWithSpan], mut i: usize, close: usize, out: &mut Vec<TokenWithSpan>) -> usize {
    let by = |i| words_at(tokens, i, &["PARTITION", "BY"]) || words_at(tokens, i, &["ORDER", "BY"]);
    while i < close && matches!(tokens[i].token, Token::Word(_) | Token::Period) && !by(i) && !is_call(tokens, i) {
        out.push(tokens[i].clone());
        i += 1;
    }
    i
}

/// PARTITION BY behind the table, where it stands there: takes the keys, and gives where the next argument begins.
fn partition(tokens: &[TokenWithSpan], i: usize, call: &mut Call) -> Result<usize, SqlError> {
    if i < call.close && words_at(tokens, i, &["ORDER", "BY"]) {
        return Err(SqlError::not_supported("ORDER BY inside a window call")
            .at(Place::of(tokens[i].span))
            .hint("leave it out: rows are taken by event time"));
    }
    if i >= call.close || !words_at(tokens, i, &["PARTITION", "BY"]) {
        return Ok(i);
    }
    let (next, keys) = keys(tokens, i + 2, call.close);
    if keys.is_empty() {
        return Err(SqlError::syntax("PARTITION BY names no column").at(Place::of(tokens[i].span)).hint("write PARTITION BY patient_id"));
    }
    call.keys = keys;
    Ok(next)
}

/// The key columns from `at` on, commas between them, and where the next argument begins (at its comma).
fn keys(tokens: &[TokenWithSpan], at: usize, close: usize) -> (usize, Vec<TokenWithSpan>) {
    // Where each argument begins and ends, by commas outside brackets.
    let mut parts: Vec<(usize, usize)> = Vec::new();
    let mut begin = at;
    let mut depth = 0_i32;
    for (i, token) in tokens.iter().enumerate().take(close).skip(at) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::Comma if depth == 0 => {
                parts.push((begin, i));
                begin = i + 1;
            }
            _ => {}
        }
    }
    parts.push((begin, close));
    let is_argument = |&(from, _): &(usize, usize)| {
        tokens.get(from).is_some_and(|t| is_word(t, "DESCRIPTOR") || is_word(t, "INTERVAL"))
            || matches!(tokens.get(from + 1).map(|t| &t.token), Some(Token::RArrow))
    };
    let mut count = parts.iter().position(is_argument).unwrap_or(parts.len());
    // Without DESCRIPTOR the last column before the interval is the time.
    if parts.get(count).is_some_and(|&(from, _)| tokens.get(from).is_some_and(|t| is_word(t, "INTERVAL"))) {
        count = count.saturating_sub(1);
    }
    if count == 0 {
        return (at, Vec::new());
    }
    let end = parts[count - 1].1;
    let (mut from, mut to) = (at, end);
    // `PARTITION BY (a, b)`
    if matches!(tokens.get(from).map(|t| &t.token), Some(Token::LParen)) && closing(tokens, from) == Some(to.saturating_sub(1)) {
        from += 1;
        to -= 1;
    }
    (end, tokens.get(from..to).unwrap_or_default().to_vec())
}

fn append_keys(out: &mut Vec<TokenWithSpan>, keys: Vec<TokenWithSpan>, before: &TokenWithSpan) {
    let Some(first) = keys.first() else { return };
    let span = first.span;
    out.push(TokenWithSpan::new(Token::Comma, span));
    out.push(made_word(PARTITION_BY, span));
    out.push(TokenWithSpan::new(Token::LParen, span));
    out.extend(keys);
    out.push(TokenWithSpan::new(Token::RParen, before.span));
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
    fn a_window_call_loses_what_the_parser_does_not_know() {
        check(
            "FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) AS w",
            "FROM TUMBLE ( v , DESCRIPTOR ( ts ) , INTERVAL '1' MINUTE ) AS w",
        );
        check("FROM tumble(v, ts, INTERVAL '1 minute')", "FROM tumble ( v , ts , INTERVAL '1 minute' )");
        check("FROM TABLE(HOP(DATA => TABLE v, TIMECOL => DESCRIPTOR(ts)))", "FROM HOP ( DATA => v , TIMECOL => DESCRIPTOR ( ts ) )");
        check("FROM TUMBLE(TABLE (SELECT * FROM TABLE(HOP(TABLE v, ts))), ts)", "FROM TUMBLE ( ( SELECT * FROM HOP ( v , ts ) ) , ts )");
        check("FROM TABLE(HOP(TABLE v, ts)) JOIN TABLE(HOP(TABLE w, ts))", "FROM HOP ( v , ts ) JOIN HOP ( w , ts )");
        check("FROM TABLE(f(x))", "FROM TABLE ( f ( x ) )");
        check("SELECT hop FROM tumble", "SELECT hop FROM tumble");
    }

    #[test]
    fn partition_by_travels_as_the_last_argument() {
        check(
            "ABSENT(TABLE s PARTITION BY p, DESCRIPTOR(ts), INTERVAL '30' SECOND)",
            "ABSENT ( s , DESCRIPTOR ( ts ) , INTERVAL '30' SECOND , partition_by ( p ) )",
        );
        check(
            "TABLE(ABSENT(TABLE s PARTITION BY p, q, DESCRIPTOR(ts), i))",
            "ABSENT ( s , DESCRIPTOR ( ts ) , i , partition_by ( p , q ) )",
        );
        check("ABSENT(s PARTITION BY (p, q), ts, INTERVAL '1' DAY)", "ABSENT ( s , ts , INTERVAL '1' DAY , partition_by ( p , q ) )");
        check("ABSENT(s PARTITION BY p, q, ts, INTERVAL '1' DAY)", "ABSENT ( s , ts , INTERVAL '1' DAY , partition_by ( p , q ) )");
        check(
            "ABSENT(DATA => TABLE s PARTITION BY p, TIMECOL => DESCRIPTOR(ts))",
            "ABSENT ( DATA => s , TIMECOL => DESCRIPTOR ( ts ) , partition_by ( p ) )",
        );
    }
}
