//! Who a client is: [`Principal`], and how the subject of a certificate becomes one.
//!
//! The rules are Kafka's `ssl.principal.mapping.rules`: `DEFAULT`, or `RULE:pattern/replacement/` with `L` or `U` behind
//! it for lower or upper case; the first that matches the whole subject holds. Called by `server` and `config`.

use std::fmt;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

/// A compiled rule takes no more memory than this.
const COMPILED_BYTES: usize = 1 << 20;

/// Who a client is, as access rules name it: `User:alice`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// The user of this name.
    #[must_use]
    pub fn user(name: &str) -> Self {
        Self(format!("User:{name}").into())
    }

    /// Someone who has not said who it is.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::user("ANONYMOUS")
    }

    /// As access rules name it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name alone.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(_, name)| name)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One rule.
#[derive(Clone, Debug)]
enum Rule {
    Default,
    Replace { pattern: Regex, replacement: String, case: Case },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    AsItIs,
    Lower,
    Upper,
}

/// How the subject of a certificate becomes a name.
#[derive(Clone, Debug)]
pub struct PrincipalRules(Vec<Rule>);

impl Default for PrincipalRules {
    fn default() -> Self {
        Self(vec![Rule::Default])
    }
}

impl PrincipalRules {
    /// Reads rules as Kafka writes them. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (rule, left) = match rest.strip_prefix("DEFAULT") {
                Some(left) => (Rule::Default, left),
                None => read_rule(rest)?,
            };
            rules.push(rule);
            rest = left.trim_start();
            if !rest.is_empty() {
                rest = rest.strip_prefix(',').ok_or_else(|| format!("expected a comma before \"{rest}\""))?.trim_start();
            }
        }
        Ok(if rules.is_empty() { Self::default() } else { Self(rules) })
    }

    /// The name a subject stands for, if a rule matches it.
    #[must_use]
    pub fn apply(&self, subject: &str) -> Option<String> {
        self.0.iter().find_map(|rule| match rule {
            Rule::Default => Some(subject.to_owned()),
            Rule::Replace { pattern, replacement, case } => {
                let found = pattern.captures(subject)?;
                let name = substitute(replacement, |group| found.get(group).map_or("", |m| m.as_str()));
                Some(match case {
                    Case::AsItIs => name,
                    Case::Lower => name.to_lowercase(),
                    Case::Upper => name.to_uppercase(),
                })
            }
        })
    }
}

/// Reads `RULE:pattern/replacement/L` and what follows it. A slash in the pattern is written `\/`.
fn read_rule(text: &str) -> Result<(Rule, &str), String> {
    let wrong = || format!("expected DEFAULT or RULE:pattern/replacement/ with L or U behind it, found \"{text}\"");
    let body = text.strip_prefix("RULE:").ok_or_else(wrong)?;
    let (pattern, body) = until_slash(body).ok_or_else(wrong)?;
    let (replacement, body) = until_slash(body).ok_or_else(wrong)?;
    let (case, rest) = match body.as_bytes().first() {
        Some(b'L') => (Case::Lower, &body[1..]),
        Some(b'U') => (Case::Upper, &body[1..]),
        _ => (Case::AsItIs, body),
    };
    let whole = format!("^(?:{pattern})$");
    let pattern = RegexBuilder::new(&whole).size_limit(COMPILED_BYTES).build().map_err(|e| format!("pattern \"{pattern}\": {e}"))?;
    Ok((Rule::Replace { pattern, replacement: replacement.to_owned(), case }, rest))
}

fn until_slash(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == '/' && !escaped {
            return Some((&text[..at], &text[at + 1..]));
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// Puts groups in for `$1` to `$9`.
fn substitute<'a>(replacement: &str, group: impl Fn(usize) -> &'a str) -> String {
    let mut out = String::new();
    let mut chars = replacement.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek().and_then(|next| next.to_digit(10))) {
            ('$', Some(number)) => {
                chars.next();
                out.push_str(group(number as usize));
            }
            ('\\', _) => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_becomes_a_name_by_the_first_rule_that_matches_all_of_it() {
        let subject = "CN=Alice Smith,OU=Ward 3,O=Clinic,C=DE";
        for (rules, want) in [
            ("", Some(subject)),
            ("DEFAULT", Some(subject)),
            ("RULE:^CN=(.*?),.*$/$1/", Some("Alice Smith")),
            ("RULE:^CN=(.*?),.*$/$1/L", Some("alice smith")),
            ("RULE:^CN=(.*?),OU=(.*?),.*$/$1@$2/U", Some("ALICE SMITH@WARD 3")),
            ("RULE:CN=Alice/x/", None),
            ("RULE:CN=Alice/x/, DEFAULT", Some(subject)),
            (r"RULE:.*O=Clin(\/|ic).*/a\$1/", Some("a$1")),
        ] {
            assert_eq!(PrincipalRules::parse(rules).unwrap().apply(subject).as_deref(), want, "{rules}");
        }
        for bad in ["X", "RULE:a/b", "RULE:(/b/", "DEFAULT DEFAULT", "RULE:a/b/LDEFAULT"] {
            assert!(PrincipalRules::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_principal_is_a_type_and_a_name() {
        let one = Principal::user("a:b");
        assert_eq!((one.as_str(), one.name()), ("User:a:b", "a:b"));
        assert_eq!(Principal::anonymous().to_string(), "User:ANONYMOUS");
    }
}
