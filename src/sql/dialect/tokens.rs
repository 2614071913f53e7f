//! A script as tokens with their places, cut into statements at the semicolons.
//!
//! sqlparser's tokenizer knows strings, comments and dollar quotes, so a semicolon inside one of these does not cut.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use crate::sql::error::{Code, Place, SqlError};

/// The longest script that is read, in bytes.
const MAX_SCRIPT: usize = 4 * 1024 * 1024;

/// The longest statement that is read, in tokens.
const MAX_TOKENS: usize = 50_000;

/// How deep a tree a statement may make. The parser makes a level for every operator of a chain such as `a OR b OR ..`,
/// and whoever walks, prints or frees the tree needs stack for each: in a debug build about 5 KiB.
pub(in crate::sql) const MAX_DEPTH: usize = 150;

/// One statement of a script, not parsed yet.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its tokens, without blanks, comments and the semicolon.
    pub(in crate::sql) tokens: Vec<TokenWithSpan>,
    /// The statement as it was written, from its first to its last token.
    pub text: String,
    /// Where it begins.
    pub place: Place,
    /// Just behind its last token.
    pub end: Place,
}

/// Cuts a script into its statements; empty ones (two semicolons, only comments) are left out.
pub fn split_script(script: &str) -> Result<Vec<Piece>, SqlError> {
    if script.len() > MAX_SCRIPT {
        return Err(SqlError::new(Code::Limit, format!("the script has {} bytes, more than {MAX_SCRIPT}", script.len()))
            .hint("split it into several"));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, script).tokenize_with_location()?;
    let lines = line_starts(script);
    let mut pieces = Vec::new();
    let mut current: Vec<TokenWithSpan> = Vec::new();
    for token in tokens {
        match token.token {
            Token::SemiColon => finish(&mut pieces, &mut current, script, &lines)?,
            Token::Whitespace(_) | Token::EOF => {}
            _ => current.push(token),
        }
    }
    finish(&mut pieces, &mut current, script, &lines)?;
    Ok(pieces)
}

fn finish(pieces: &mut Vec<Piece>, current: &mut Vec<TokenWithSpan>, script: &str, lines: &[usize]) -> Result<(), SqlError> {
    let tokens = std::mem::take(current);
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return Ok(()) };
    let place = Place::of(first.span).unwrap_or_default();
    check_size(&tokens, place)?;
    let from = byte_at(script, lines, first.span.start);
    let to = byte_at(script, lines, last.span.end).max(from);
    let end = place_at(last.span.end);
    pieces.push(Piece { text: script.get(from..to).unwrap_or_default().to_owned(), place, end, tokens });
    Ok(())
}

fn check_size(tokens: &[TokenWithSpan], place: Place) -> Result<(), SqlError> {
    if tokens.len() > MAX_TOKENS {
        return Err(
            SqlError::new(Code::Limit, format!("the statement has {} words and signs, more than {MAX_TOKENS}", tokens.len())).at(place)
        );
    }
    let mut levels = vec![Level::default()];
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                if matches!(token.token, Token::LBracket) {
                    bump(&mut levels, token)?;
                }
                levels.push(Level::default());
            }
            Token::RParen | Token::RBracket | Token::RBrace => close(&mut levels, token)?,
            Token::Comma => innermost(&mut levels).part(),
            // The branches of a CASE lie beside each other, and the CASE itself is a bracket.
            Token::Word(word) if word.keyword == Keyword::CASE => levels.push(Level::default()),
            Token::Word(word) if word.keyword == Keyword::END => close(&mut levels, token)?,
            Token::Word(word) if matches!(word.keyword, Keyword::WHEN | Keyword::THEN | Keyword::ELSE) && levels.len() > 1 => {
                innermost(&mut levels).part();
            }
            Token::Word(word) if !nests(word.keyword) => {}
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => {}
            _ => bump(&mut levels, token)?,
        }
    }
    Ok(())
}

/// How deep a tree the tokens of one bracket make, at most: every operator may be a level above what stands before it.
#[derive(Default)]
struct Level {
    /// Of the operand that is being read: what binds more tightly than AND.
    operand: usize,
    /// Of the operands before it in this part, joined by AND, OR, UNION.
    joined: usize,
    /// Of the deepest part; a comma begins a new one.
    deepest: usize,
}

impl Level {
    fn join(&mut self) {
        self.joined = self.joined.max(self.operand) + 1;
        self.operand = 0;
    }

    fn part(&mut self) {
        self.deepest = self.depth();
        self.operand = 0;
        self.joined = 0;
    }

    fn depth(&self) -> usize {
        self.deepest.max(self.joined).max(self.operand)
    }
}

fn innermost(levels: &mut [Level]) -> &mut Level {
    levels.last_mut().expect("the outermost level stays")
}

fn bump(levels: &mut [Level], token: &TokenWithSpan) -> Result<(), SqlError> {
    let level = innermost(levels);
    match &token.token {
        Token::Word(word) if joins(word.keyword) => level.join(),
        _ => level.operand += 1,
    }
    if level.depth() > MAX_DEPTH {
        return Err(SqlError::new(Code::Limit, format!("more than {MAX_DEPTH} operators follow each other or lie in one another"))
            .at(Place::of(token.span))
            .hint("use IN (..), or split the expression"));
    }
    Ok(())
}

/// A bracket closes: what lies in it is one operand of what lies around it.
fn close(levels: &mut Vec<Level>, token: &TokenWithSpan) -> Result<(), SqlError> {
    if levels.len() < 2 {
        return Ok(());
    }
    let inner = levels.pop().map_or(0, |level| level.depth());
    let level = innermost(levels);
    level.operand = level.operand.max(inner);
    bump(levels, token)
}

/// Words whose operands are whole conditions or queries.
const fn joins(word: Keyword) -> bool {
    matches!(word, Keyword::AND | Keyword::OR | Keyword::XOR | Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS)
}

/// Words that are operators, each a level of the tree.
const fn nests(word: Keyword) -> bool {
    matches!(
        word,
        Keyword::AND
            | Keyword::OR
            | Keyword::XOR
            | Keyword::NOT
            | Keyword::IS
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::SIMILAR
            | Keyword::RLIKE
            | Keyword::REGEXP
            | Keyword::BETWEEN
            | Keyword::IN
            | Keyword::COLLATE
            | Keyword::AT
            | Keyword::DIV
            | Keyword::UNION
            | Keyword::EXCEPT
            | Keyword::INTERSECT
            | Keyword::MINUS
            | Keyword::OVERLAPS
            | Keyword::OPERATOR
            | Keyword::NOTNULL
            | Keyword::INTERVAL
            | Keyword::PRIOR
            | Keyword::PIVOT
            | Keyword::UNPIVOT
            | Keyword::MATCH_RECOGNIZE
            | Keyword::MEMBER
            | Keyword::EXPLAIN
            | Keyword::LATERAL
            | Keyword::SELECT
            | Keyword::FROM
            | Keyword::BINARY
            | Keyword::CONNECT_BY_ROOT
    )
}

/// Where each line begins, in bytes.
fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect()
}

fn byte_at(text: &str, lines: &[usize], at: Location) -> usize {
    let line = usize::try_from(at.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(&start) = lines.get(line) else { return text.len() };
    let column = usize::try_from(at.column.saturating_sub(1)).unwrap_or(usize::MAX);
    text[start..].char_indices().nth(column).map_or(text.len(), |(i, _)| start + i)
}

fn place_at(at: Location) -> Place {
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Place::new(narrow(at.line), narrow(at.column), 1)
}

/// Whether a token is this word, in any case and without quotes.
pub(in crate::sql) fn is_word(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// Whether the tokens from `at` on are these words.
pub(in crate::sql) fn words_at(tokens: &[TokenWithSpan], at: usize, words: &[&str]) -> bool {
    words.iter().enumerate().all(|(i, word)| tokens.get(at + i).is_some_and(|t| is_word(t, word)))
}

/// The unquoted word a token is.
pub(in crate::sql) fn word(token: &TokenWithSpan) -> Option<&str> {
    match &token.token {
        Token::Word(w) if w.quote_style.is_none() => Some(&w.value),
        _ => None,
    }
}

/// A word made up in place of what stands at `span`.
pub(in crate::sql) fn made_word(text: &str, span: Span) -> TokenWithSpan {
    TokenWithSpan::new(Token::make_word(text, None), span)
}

/// The index of the bracket that closes the one at `open`.
pub(in crate::sql) fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_cut_at_semicolons_that_are_not_in_strings_or_comments() {
        let script = "-- one; two\nSELECT 'a;b' ; /* x;\n y */ ;;\n\tSELECT \"c;d\" -- end;\n";
        let pieces = split_script(script).expect("it is whole");
        let seen: Vec<(&str, u32, u32)> = pieces.iter().map(|p| (p.text.as_str(), p.place.line, p.place.column)).collect();
        assert_eq!(seen, [("SELECT 'a;b'", 2, 1), ("SELECT \"c;d\"", 4, 2)]);
    }

    #[test]
    fn places_count_characters_and_lines_may_end_in_crlf() {
        let pieces = split_script("SELECT 'ä€𝄞';\r\nSELECT 'ö' ;SELECT 3").expect("it is whole");
        let seen: Vec<(&str, u32, u32)> = pieces.iter().map(|p| (p.text.as_str(), p.place.line, p.place.column)).collect();
        assert_eq!(seen, [("SELECT 'ä€𝄞'", 1, 1), ("SELECT 'ö'", 2, 1), ("SELECT 3", 2, 13)]);
    }

    #[test]
    fn an_open_string_is_an_error_at_its_place() {
        let error = split_script("SELECT 1;\nSELECT 'abc").expect_err("it is open");
        assert_eq!(error.place.map(|p| p.line), Some(2));
    }

    #[test]
    fn endless_chains_are_refused_before_they_are_parsed() {
        for link in ["+ 1 ", "OR a ", "IS NULL ", ":: INT ", "UNION SELECT 1 ", "[1] "] {
            let error = split_script(&format!("SELECT 1 {}", link.repeat(5000))).expect_err(link);
            assert_eq!(error.code, Code::Limit, "{link}");
        }
        let list = format!("SELECT a IN (1{})", ", -1".repeat(10_000));
        assert!(split_script(&list).is_ok());
        let conditions = format!("SELECT a WHERE x = 1{}", " AND y + 1 >= 2".repeat(140));
        assert!(split_script(&conditions).is_ok());
        let branches = format!("SELECT CASE{} END", " WHEN x >= 1 AND x < 2 THEN 1 + 1".repeat(1000));
        assert!(split_script(&branches).is_ok());
        let nested = format!("SELECT {}1{}", "(".repeat(40), " + 1 + 1 + 1 + 1)".repeat(40));
        assert_eq!(split_script(&nested).expect_err("it is too deep").code, Code::Limit);
    }
}
