//! What can be wrong with a statement, said so that its writer can put it right: what, where, why, what to do.
//!
//! Owns [`SqlError`] and its rendering, the stable codes, and the conversions from sqlparser's and DataFusion's
//! errors. Always: a message is a lower-case fragment without a position in it (the position is [`Place`]), and
//! without a reading's value. Every file of this room makes these; `cli` and `http` show them.

mod arguments;
mod convert;
mod suggest;

use std::fmt;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, Tokenizer};

pub use suggest::{did_you_mean, nearest};

/// Where in a text something stands: line and column from 1, counted in characters, and how long it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// How many characters of that line it covers; at least 1 when shown.
    pub length: u32,
}

impl Place {
    /// A place of some length.
    #[must_use]
    pub const fn new(line: u32, column: u32, length: u32) -> Self {
        Self { line, column, length }
    }

    /// The place of a parser's span; `None` where the span is empty (a node the rewriting made up).
    #[must_use]
    pub fn of(span: Span) -> Option<Self> {
        if span.start.line == 0 || span.start.column == 0 {
            return None;
        }
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let length = if span.end.line == span.start.line { span.end.column.saturating_sub(span.start.column) } else { 1 };
        Some(Self { line: narrow(span.start.line), column: narrow(span.start.column), length: narrow(length.max(1)) })
    }
}

/// The stable number of a kind of error: scripts may rely on it, messages may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The text is not a statement of the dialect.
    Syntax,
    /// Understood, and not built: the message names the clause.
    NotSupported,
    /// An option's name is not known.
    UnknownOption,
    /// An option's value cannot be taken.
    BadOption,
    /// A type is not known, or not allowed where it stands.
    BadType,
    /// The parts of a definition do not fit together.
    BadDefinition,
    /// There is no stream, table, query or alert of that name.
    NoSuchName,
    /// The name is taken.
    NameTaken,
    /// There is no such column.
    NoSuchColumn,
    /// There is no such function, or not with these arguments.
    NoSuchFunction,
    /// It is used by others, which the message names.
    InUse,
    /// A name could mean several columns.
    Ambiguous,
    /// Types that do not go together.
    TypeMismatch,
    /// The query cannot be planned for another reason.
    Plan,
    /// It would be right over stored data, and cannot be answered over a stream.
    NotOnAStream,
    /// Planning went well, running did not.
    Execution,
    /// A limit that keeps the node alive.
    Limit,
    /// The log below did not answer as it should.
    Storage,
    /// A mistake of ours.
    Internal,
}

impl Code {
    /// The code as it is printed and as the API gives it, such as `SQL-0012`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "SQL-0001",
            Self::NotSupported => "SQL-0002",
            Self::UnknownOption => "SQL-0003",
            Self::BadOption => "SQL-0004",
            Self::BadType => "SQL-0005",
            Self::BadDefinition => "SQL-0006",
            Self::NoSuchName => "SQL-0010",
            Self::NameTaken => "SQL-0011",
            Self::NoSuchColumn => "SQL-0012",
            Self::NoSuchFunction => "SQL-0013",
            Self::InUse => "SQL-0014",
            Self::Ambiguous => "SQL-0015",
            Self::TypeMismatch => "SQL-0016",
            Self::Plan => "SQL-0020",
            Self::NotOnAStream => "SQL-0021",
            Self::Execution => "SQL-0030",
            Self::Limit => "SQL-0031",
            Self::Storage => "SQL-0040",
            Self::Internal => "SQL-0090",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One error about one statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", .hint.as_deref().map(|h| format!(": {h}")).unwrap_or_default())]
pub struct SqlError {
    /// Which kind of error.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// Where, in the text that was given.
    pub place: Option<Place>,
    /// What to do about it, short enough to stand behind the caret.
    pub hint: Option<String>,
    /// More lines: what there is to choose from, an example.
    pub notes: Vec<String>,
}

impl SqlError {
    /// An error without a place.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), place: None, hint: None, notes: Vec::new() }
    }

    /// Whether it is the log that could not be asked, which may pass by itself.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.code == Code::Storage
    }

    /// Text that is not a statement.
    pub fn syntax(message: impl Into<String>) -> Self {
        Self::new(Code::Syntax, message)
    }

    /// A clause that is understood and not built.
    #[must_use]
    pub fn not_supported(clause: &str) -> Self {
        Self::new(Code::NotSupported, format!("not supported yet: {clause}"))
    }

    /// No such thing of a kind (`stream`, `query` ..), with a suggestion from the names there are.
    pub fn no_such<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let code = match kind {
            "column" => Code::NoSuchColumn,
            "function" => Code::NoSuchFunction,
            _ => Code::NoSuchName,
        };
        Self::new(code, format!("no {kind} \"{name}\"")).hint_opt(did_you_mean(name, known.iter().copied()))
    }

    /// The same error with a place, where it has none yet.
    #[must_use]
    pub fn at(mut self, place: impl Into<Option<Place>>) -> Self {
        self.place = self.place.or_else(|| place.into());
        self
    }

    /// The same error with advice, in place of any it had.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with advice where there is some.
    #[must_use]
    pub fn hint_opt(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// The same error with one more line below it.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The same error with its place moved down: a statement's error seen from the script that holds it.
    #[must_use]
    pub fn moved(mut self, lines: u32, columns: u32) -> Self {
        if let Some(place) = &mut self.place {
            if place.line == 1 {
                place.column = place.column.saturating_add(columns);
            }
            place.line = place.line.saturating_add(lines);
        }
        self
    }

    /// The same error, where it has no place yet, at the first word of `text` that its message names in quotes.
    /// DataFusion often knows what is wrong and not where.
    #[must_use]
    pub fn locate(self, text: &str) -> Self {
        if self.place.is_some() {
            return self;
        }
        let place = match self.message.split('"').nth(1) {
            Some(name) => find_word(text, name),
            None => find_only(text, &self.message),
        };
        self.at(place)
    }

    /// The error as a person reads it, with the line of `source` it concerns and a caret under the place.
    #[must_use]
    pub fn render(&self, source: &str) -> String {
        let mut out = format!("error[{}]: {}\n", self.code, self.message);
        let line = self.place.and_then(|p| Some((p, source.lines().nth(p.line.checked_sub(1)? as usize)?)));
        match (line, &self.hint) {
            (Some((place, line)), hint) => {
                let number = place.line.to_string();
                let (shown, column) = excerpt(line, place.column.saturating_sub(1) as usize);
                let carets = (place.length.max(1) as usize).min(shown.chars().count().saturating_sub(column).max(1));
                // Tabs are kept before the caret, so that it stands where the terminal puts the word.
                let before: String = shown.chars().take(column).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                out.push_str(&format!("  {number} | {shown}\n"));
                out.push_str(&format!("  {:w$} | {before}{}", "", "^".repeat(carets), w = number.len()));
                if let Some(hint) = hint {
                    out.push_str(&format!(" {hint}"));
                }
                out.push('\n');
            }
            (None, Some(hint)) => out.push_str(&format!("  {hint}\n")),
            (None, None) => {}
        }
        for note in &self.notes {
            out.push_str(&format!("  {note}\n"));
        }
        out
    }
}

/// Where a name first stands in a text, as a word of its own.
fn find_word(text: &str, name: &str) -> Option<Place> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().ok()?;
    let found = tokens.iter().find(|t| match &t.token {
        Token::Word(w) if w.quote_style.is_some() => w.value == name,
        Token::Word(w) => w.value.eq_ignore_ascii_case(name),
        _ => false,
    });
    found.and_then(|t| Place::of(t.span))
}

/// Where a message begins with a literal, a keyword or a function: its place in a text where that stands once. With two of
/// them a mark could stand under the wrong one.
fn find_only(text: &str, message: &str) -> Option<Place> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().ok()?;
    let literal = message.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
    let first = message.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
    let is_keyword = first.len() > 1 && first.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let is_meant = |at: usize| match &tokens[at].token {
        Token::SingleQuotedString(value) => literal.is_some_and(|(wanted, _)| wanted == value),
        Token::Word(word) if word.value.eq_ignore_ascii_case(first) => {
            is_keyword || matches!(tokens.get(at + 1).map(|t| &t.token), Some(Token::LParen))
        }
        _ => false,
    };
    // Else at a function that the message names further on.
    let words: Vec<&str> = message.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let is_called = |at: usize| match &tokens[at].token {
        Token::Word(word) => {
            let named = words.iter().any(|w| w.len() > 2 && w.eq_ignore_ascii_case(&word.value));
            named && matches!(tokens.get(at + 1).map(|t| &t.token), Some(Token::LParen))
        }
        _ => false,
    };
    let only = |mut found: Box<dyn Iterator<Item = usize> + '_>| found.next().filter(|_| found.next().is_none());
    let at = only(Box::new((0..tokens.len()).filter(|at| is_meant(*at))));
    let at = at.or_else(|| only(Box::new((0..tokens.len()).filter(|at| is_called(*at)))))?;
    Place::of(tokens[at].span)
}

/// The part of a long line around a column, and where the column lies in it.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 120;
    let length = line.chars().count();
    if length <= WIDTH {
        return (line.to_owned(), column.min(length));
    }
    let from = column.saturating_sub(WIDTH / 2).min(length.saturating_sub(WIDTH));
    (line.chars().skip(from).take(WIDTH).collect(), column.min(length) - from)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check_render(error: &SqlError, source: &str, expected: &Expect) {
        expected.assert_eq(&error.render(source));
    }

    #[test]
    fn an_error_shows_its_line_a_caret_and_what_to_do() {
        let error = SqlError::no_such("column", "sp02", ["bed", "spo2", "temp"]).at(Place::new(2, 5, 4)).note("columns: bed, spo2, temp");
        check_render(
            &error,
            "SELECT bed,\n    sp02\nFROM vitals",
            &expect![[r#"
                error[SQL-0012]: no column "sp02"
                  2 |     sp02
                    |     ^^^^ did you mean "spo2"?
                  columns: bed, spo2, temp
            "#]],
        );
    }

    #[test]
    fn an_error_without_a_place_or_with_one_outside_the_text_still_renders() {
        let error = SqlError::syntax("empty").hint("write a statement");
        check_render(
            &error,
            "",
            &expect![[r#"
            error[SQL-0001]: empty
              write a statement
        "#]],
        );
        check_render(
            &error.clone().at(Place::new(9, 90, 4)),
            "x",
            &expect![[r#"
            error[SQL-0001]: empty
              write a statement
        "#]],
        );
        check_render(
            &error.at(Place::new(1, 90, 400)),
            "äöü",
            &expect![[r#"
            error[SQL-0001]: empty
              1 | äöü
                |    ^ write a statement
        "#]],
        );
    }

    #[test]
    fn a_place_is_found_by_the_name_in_the_message() {
        let at = |name: &str| SqlError::no_such("column", name, []).locate("SELECT 'sp02', \n  SP02 FROM \"Sp02\"").place;
        assert_eq!(at("sp02"), Some(Place::new(2, 3, 4)));
        assert_eq!(at("Sp02"), Some(Place::new(2, 3, 4)));
        assert_eq!(at("other"), None);
    }

    #[test]
    fn a_place_moves_with_the_statement_inside_a_script() {
        let at = |line, column| SqlError::syntax("x").at(Place::new(line, column, 1)).moved(3, 7).place;
        assert_eq!(at(1, 2), Some(Place::new(4, 9, 1)));
        assert_eq!(at(2, 2), Some(Place::new(5, 2, 1)));
    }
}
