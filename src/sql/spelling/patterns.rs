//! Patterns of dates: Java's letters (Flink) and Postgres' (RisingWave), as chrono's `%` signs, which DataFusion takes.
//!
//! Always: a pattern with a `%` is chrono's already; a letter that is not known is an error, for it would be written as it stands.

use crate::sql::error::{Code, SqlError};

/// Whose letters a pattern is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letters {
    /// `yyyy-MM-dd HH:mm:ss`
    Java,
    /// `YYYY-MM-DD HH24:MI:SS`
    Postgres,
    /// One of the two: Java's years are small letters.
    Either,
}

const JAVA: &[(&str, &str)] = &[
    ("SSSSSSSSS", "%9f"),
    ("SSSSSS", "%6f"),
    ("SSS", "%3f"),
    ("yyyy", "%Y"),
    ("uuuu", "%Y"),
    ("yy", "%y"),
    ("y", "%Y"),
    ("MMMM", "%B"),
    ("MMM", "%b"),
    ("MM", "%m"),
    ("M", "%-m"),
    ("dd", "%d"),
    ("d", "%-d"),
    ("DDD", "%j"),
    ("EEEE", "%A"),
    ("EEE", "%a"),
    ("E", "%a"),
    ("HH", "%H"),
    ("H", "%-H"),
    ("hh", "%I"),
    ("h", "%-I"),
    ("mm", "%M"),
    ("m", "%-M"),
    ("ss", "%S"),
    ("s", "%-S"),
    ("a", "%p"),
    ("XXX", "%:z"),
    ("XX", "%z"),
    ("Z", "%z"),
];

const POSTGRES: &[(&str, &str)] = &[
    ("YYYY", "%Y"),
    ("YY", "%y"),
    ("IYYY", "%G"),
    ("FMMonth", "%B"),
    ("FMDay", "%A"),
    ("FMMM", "%-m"),
    ("FMDD", "%-d"),
    ("FMHH24", "%-H"),
    ("Mon", "%b"),
    ("MM", "%m"),
    ("DDD", "%j"),
    ("DD", "%d"),
    ("Dy", "%a"),
    ("HH24", "%H"),
    ("HH12", "%I"),
    ("HH", "%I"),
    ("MI", "%M"),
    ("SS", "%S"),
    ("MS", "%3f"),
    ("US", "%6f"),
    ("AM", "%p"),
    ("PM", "%p"),
    ("am", "%P"),
    ("pm", "%P"),
    ("IW", "%V"),
    ("TZH:TZM", "%:z"),
    ("TZHTZM", "%z"),
];

/// The pattern in chrono's signs.
pub(super) fn chrono(pattern: &str, letters: Letters) -> Result<String, SqlError> {
    if pattern.contains('%') {
        return Ok(pattern.to_owned());
    }
    let letters = match letters {
        Letters::Either if pattern.contains('y') || pattern.contains("uuuu") || pattern.contains("mm") => Letters::Java,
        Letters::Either => Letters::Postgres,
        known => known,
    };
    let (words, quote) = if letters == Letters::Java { (JAVA, '\'') } else { (POSTGRES, '"') };
    let mut made = String::with_capacity(pattern.len() * 2);
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if first == quote {
            let inside = &rest[1..];
            let Some(end) = inside.find(quote) else {
                return Err(bad(pattern, letters, &format!("the text behind {quote} has no end")));
            };
            // Two quotes side by side are one.
            made.push_str(if end == 0 { &rest[..1] } else { &inside[..end] });
            rest = &inside[end + 1..];
            continue;
        }
        if !first.is_ascii_alphabetic() {
            made.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let word = words.iter().filter(|(word, _)| matches(rest, word, letters)).max_by_key(|(word, _)| word.len());
        let Some((word, sign)) = word else {
            let run: String =
                rest.chars().take_while(|c| if letters == Letters::Java { *c == first } else { c.is_ascii_alphabetic() }).collect();
            // The T of ISO 8601 means nothing else in either.
            if run == "T" || (run.starts_with('T') && letters == Letters::Postgres && !run.starts_with("TZ")) {
                made.push('T');
                rest = &rest[1..];
                continue;
            }
            return Err(bad(pattern, letters, &format!("{run} is not known")));
        };
        made.push_str(sign);
        rest = &rest[word.len()..];
    }
    Ok(made)
}

/// Whether the pattern goes on with this word: Java's letters are a run of their own, Postgres' large or small.
fn matches(rest: &str, word: &str, letters: Letters) -> bool {
    match letters {
        Letters::Java => {
            let first = &word[..1];
            rest.starts_with(word) && (!rest[word.len()..].starts_with(first))
        }
        // Month's and day's names, and AM, come out in the letters they are asked for in.
        _ if word.chars().any(|c| c.is_ascii_lowercase()) || matches!(word, "AM" | "PM") => rest.starts_with(word),
        _ => rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)),
    }
}

fn bad(pattern: &str, letters: Letters, what: &str) -> SqlError {
    let (whose, other) = match letters {
        Letters::Java => ("yyyy yy MM MMM MMMM dd EEE HH hh mm ss SSS a XXX, other text in '..' quotes", "%Y-%m-%d"),
        _ => ("YYYY YY MM Mon FMMonth DD Dy FMDay HH24 HH12 MI SS MS US AM TZH:TZM, other text in \"..\" quotes", "%Y-%m-%d"),
    };
    SqlError::new(Code::BadDefinition, format!("the pattern '{pattern}' cannot be read: {what}"))
        .hint(format!("it may have {whose}; or chrono's signs, as in '{other}'"))
}
