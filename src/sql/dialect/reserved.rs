//! Columns that are called like the beginning of a clause: `SELECT ward, top FROM ..`.
//!
//! sqlparser takes such a word behind a comma for the end of the list. Where no clause can begin with it, it is put in quotes here,
//! in the lower case that it would have had. Called by `parse` before anything else looks at the words of a query.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{is_word, word};

/// The words, in upper case. FROM, WHERE, GROUP and their like stay what they are.
const WORDS: [&str; 13] =
    ["TOP", "VIEW", "SORT", "CLUSTER", "DISTRIBUTE", "RETURNING", "ANALYZE", "EXPLAIN", "OFFSET", "LIMIT", "FETCH", "EXCLUDE", "MINUS"];

/// Puts columns in quotes that would be taken for the beginning of a clause.
pub fn quote(tokens: &mut [TokenWithSpan]) {
    for at in 1..tokens.len() {
        let Some(found) = word(&tokens[at]).map(str::to_ascii_uppercase) else { continue };
        if !WORDS.contains(&found.as_str()) || by_follows(tokens, at) {
            continue;
        }
        let behind_comma = matches!(tokens[at - 1].token, Token::Comma);
        if behind_comma || (found == "TOP" && begins_list(tokens, at) && !counts(tokens, at)) {
            tokens[at].token = Token::make_word(&found.to_ascii_lowercase(), Some('"'));
        }
    }
}

/// SORT BY, CLUSTER BY, DISTRIBUTE BY.
fn by_follows(tokens: &[TokenWithSpan], at: usize) -> bool {
    tokens.get(at + 1).is_some_and(|next| is_word(next, "BY"))
}

/// Whether the first column of a SELECT stands there.
fn begins_list(tokens: &[TokenWithSpan], at: usize) -> bool {
    ["SELECT", "DISTINCT", "ALL"].iter().any(|before| is_word(&tokens[at - 1], before))
}

/// Whether TOP says how many rows are wanted.
fn counts(tokens: &[TokenWithSpan], at: usize) -> bool {
    matches!(tokens.get(at + 1).map(|next| &next.token), Some(Token::Number(..) | Token::LParen))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::dialect::split_script;

    fn check(before: &str, after: &str) {
        let mut tokens = split_script(before).expect("it is whole").remove(0).tokens;
        quote(&mut tokens);
        let text = tokens.iter().map(|t| t.token.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(text, after, "{before}");
    }

    #[test]
    fn a_column_called_like_a_clause_is_a_column_behind_a_comma() {
        check("SELECT ward, top FROM v", "SELECT ward , \"top\" FROM v");
        check("SELECT a, Top, offset, b FROM v", "SELECT a , \"top\" , \"offset\" , b FROM v");
        check("SELECT top FROM v", "SELECT \"top\" FROM v");
        check("SELECT DISTINCT top FROM v", "SELECT DISTINCT \"top\" FROM v");
        check("SELECT max(x, top + 1) FROM v", "SELECT max ( x , \"top\" + 1 ) FROM v");
    }

    #[test]
    fn what_begins_a_clause_stays() {
        check("SELECT TOP 5 a FROM v", "SELECT TOP 5 a FROM v");
        check("SELECT a FROM v LIMIT 5 OFFSET 2", "SELECT a FROM v LIMIT 5 OFFSET 2");
        check("SELECT a, FROM v", "SELECT a , FROM v");
        check("SELECT a, SORT BY b", "SELECT a , SORT BY b");
        check("SELECT a, \"TOP\" FROM v", "SELECT a , \"TOP\" FROM v");
    }
}
