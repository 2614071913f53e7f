//! The regular expressions that members subscribe by, and the topics they stand for.
//!
//! Kafka takes RE2's language; the `regex` crate speaks nearly the same, and like it takes time linear in the
//! text whatever the expression. An expression has to match a topic's whole name.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Regex, RegexBuilder};

use super::message::Topics;

/// A compiled expression takes no more memory than this, so that a short text cannot ask for much.
const COMPILED_BYTES: usize = 1 << 20;

/// All expressions of a group.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    all: BTreeMap<String, Pattern>,
}

#[derive(Debug)]
struct Pattern {
    /// How many members subscribe by it.
    members: usize,
    /// `None` where it was stored by a version that knew how to read it.
    regex: Option<Regex>,
    /// What it stands for; `None` before the topics were looked at.
    topics: Option<BTreeSet<String>>,
}

/// Reads an expression.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let build = |text: &str| RegexBuilder::new(text).size_limit(COMPILED_BYTES).dfa_size_limit(COMPILED_BYTES).build();
    // By itself first: in brackets an unbalanced one could pass.
    build(pattern).and_then(|_| build(&format!("^(?:{pattern})$"))).map_err(|e| {
        // Its last line says what is wrong, the ones before show where.
        let why = e.to_string();
        why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

impl Patterns {
    /// One more member subscribes by it.
    pub(super) fn add(&mut self, pattern: &str) {
        let one = self.all.entry(pattern.to_owned()).or_insert_with(|| Pattern { members: 0, regex: compile(pattern).ok(), topics: None });
        one.members += 1;
    }

    /// One member less does.
    pub(super) fn remove(&mut self, pattern: &str) {
        if let Some(one) = self.all.get_mut(pattern) {
            one.members = one.members.saturating_sub(1);
        }
    }

    /// Takes over what a pattern stood for when the log was written.
    pub(super) fn restore(&mut self, pattern: &str, topics: BTreeSet<String>) {
        let one = self.all.entry(pattern.to_owned()).or_insert_with(|| Pattern { members: 0, regex: compile(pattern).ok(), topics: None });
        one.topics = Some(topics);
    }

    /// Whether all are resolved.
    pub(super) fn are_resolved(&self) -> bool {
        self.all.values().all(|one| one.topics.is_some())
    }

    /// Lets go of those that nobody subscribes by any more.
    pub(super) fn drop_unused(&mut self) -> Vec<String> {
        let unused: Vec<String> = self.all.iter().filter(|(_, one)| one.members == 0).map(|(name, _)| name.clone()).collect();
        for name in &unused {
            self.all.remove(name);
        }
        unused
    }

    /// Looks which topics the expressions match. Answers those that changed.
    pub(super) fn resolve(&mut self, topics: &dyn Topics) -> Vec<(String, BTreeSet<String>)> {
        if self.all.is_empty() {
            return Vec::new();
        }
        let names = topics.names();
        let mut changed = Vec::new();
        for (pattern, one) in &mut self.all {
            let matched: BTreeSet<String> =
                one.regex.iter().flat_map(|regex| names.iter().filter(|name| regex.is_match(name)).cloned()).collect();
            if one.topics.as_ref() != Some(&matched) {
                changed.push((pattern.clone(), matched.clone()));
                one.topics = Some(matched);
            }
        }
        changed
    }

    /// The topics a pattern stands for.
    pub(super) fn topics(&self, pattern: &str) -> impl Iterator<Item = &String> {
        self.all.get(pattern).and_then(|one| one.topics.as_ref()).into_iter().flatten()
    }

    /// The topics all of them stand for together, some perhaps twice.
    pub(super) fn all_topics(&self) -> impl Iterator<Item = &String> {
        self.all.values().filter_map(|one| one.topics.as_ref()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_has_to_match_the_whole_name() {
        let matches = |pattern: &str, name: &str| compile(pattern).unwrap().is_match(name);
        assert!(matches("vitals.*", "vitals-1"));
        assert!(!matches("vitals", "vitals-1"));
        assert!(matches("a|b", "b"));
        assert!(!matches("a|b", "ab"));
        for bad in ["(", "a)(b", "*", "a{5000}{5000}", "(?=a)", "\\1"] {
            assert!(compile(bad).is_err(), "{bad}");
        }
    }
}
