//! When two statements say the same.

use crate::sql::dialect::split_script;
use crate::sql::dialect::tokens::{is_word, made_word, word, words_at};

/// Whether two statements say the same: blanks, comments, the case of words, OR REPLACE and IF NOT EXISTS aside.
#[must_use]
pub fn same_text(a: &str, b: &str) -> bool {
    a == b || matches!((essence(a), essence(b)), (Some(a), Some(b)) if a == b)
}

/// The words and signs of a statement.
fn essence(text: &str) -> Option<Vec<String>> {
    let piece = split_script(text).ok()?.into_iter().next()?;
    let mut tokens = piece.tokens;
    if words_at(&tokens, 1, &["OR", "REPLACE"]) {
        tokens.drain(1..3);
    }
    if words_at(&tokens, 1, &["MATERIALIZED", "VIEW"]) {
        tokens.remove(1);
    }
    if words_at(&tokens, 2, &["IF", "NOT", "EXISTS"]) {
        tokens.drain(2..5);
    }
    if tokens.get(1).is_some_and(|t| is_word(t, "SOURCE")) {
        tokens[1] = made_word("STREAM", tokens[1].span);
    }
    // Case means nothing outside quotes.
    Some(tokens.iter().map(|t| word(t).map_or_else(|| t.token.to_string(), str::to_ascii_lowercase)).collect())
}
