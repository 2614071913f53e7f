//! How settings are described and checked, whatever they belong to: kinds of values, rules, lists, sources.
//!
//! Always: a value that [`check`] lets through can be read as its kind says. Blanks around a value do not
//! count, as in Kafka; what is kept is the text as it came, and what is told is what it was read as ([`plain`]).
//! Used by the tables of topic, broker and group settings.

/// What a setting's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigKind {
    /// `true` or `false`.
    Bool,
    /// Any text, or one of some words.
    Text,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    Long,
    /// A number with a fraction.
    Double,
    /// Words with commas between them.
    List,
}

impl ConfigKind {
    /// Kafka's number for the kind (`ConfigEntry.ConfigType`).
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            Self::Bool => 1,
            Self::Text => 2,
            Self::Int => 3,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
        }
    }
}

/// Where a value comes from, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic = 1,
    /// Set on this broker while it runs.
    Broker = 2,
    /// Set for all brokers while they run.
    Cluster = 3,
    /// Given to the broker when it was started.
    Start = 4,
    /// Nobody set it.
    Default = 5,
    /// Set on the group.
    Group = 8,
}

/// A value that would hold if nothing nearer were set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The setting's name where it is set.
    pub name: String,
    /// Its value there.
    pub value: String,
    /// Where that is.
    pub source: ConfigSource,
}

/// One setting, as DescribeConfigs tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConfig {
    /// Kafka's name.
    pub name: String,
    /// Its value; `None` where nothing is set and there is no default.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it stays as it is while the node runs.
    pub read_only: bool,
    /// What kind of value it is.
    pub kind: ConfigKind,
    /// What it does.
    pub doc: &'static str,
    /// All that is set, the nearest first.
    pub synonyms: Vec<ConfigSynonym>,
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule {
    Any,
    Least(i64),
    Between(i64, i64),
    /// -1, or between the two.
    LevelOf(i64, i64),
    Fraction,
    OneOf(&'static [&'static str]),
    ListOf(&'static [&'static str]),
    /// `*`, or `partition:broker` pairs.
    Replicas,
}

/// The words of a list, without the blanks around them.
pub(super) fn words(list: &str) -> impl Iterator<Item = &str> {
    let list = list.trim();
    let count = if list.is_empty() { 0 } else { usize::MAX };
    list.split(',').map(str::trim).take(count)
}

/// A list with words added that it does not have, or each taken away once. As in Kafka the words are compared as they
/// stand, blanks and all: blanks and words that are there twice are judged when the list is read.
pub(super) fn changed_list(list: &str, change: &str, append: bool) -> String {
    let mut all: Vec<&str> = list.split(',').filter(|word| !word.is_empty()).collect();
    for word in split(change) {
        let at = all.iter().position(|one| *one == word);
        match at {
            Some(at) if !append => drop(all.remove(at)),
            None if append => all.push(word),
            _ => {}
        }
    }
    all.join(",")
}

/// The parts between commas as Java's `split` gives them: without the empty ones at the end, and an empty text is one part.
fn split(text: &str) -> Vec<&str> {
    match text.trim_end_matches(',') {
        kept if kept == text => kept.split(',').collect(),
        "" => Vec::new(),
        kept => kept.split(',').collect(),
    }
}

/// A value as Kafka tells it: what it was read as, written anew. A list whose words are checked has each of them once.
pub(super) fn plain(kind: ConfigKind, rule: Rule, value: &str) -> String {
    let text = value.trim();
    match kind {
        ConfigKind::Bool => truth(text).map(|truth| truth.to_string()),
        ConfigKind::Int | ConfigKind::Long => text.parse::<i64>().ok().map(|n| n.to_string()),
        ConfigKind::Double => fraction(text).map(java_double),
        ConfigKind::List => {
            let mut all: Vec<&str> = Vec::new();
            for word in words(text) {
                if !matches!(rule, Rule::ListOf(_)) || !all.contains(&word) {
                    all.push(word);
                }
            }
            Some(all.join(","))
        }
        ConfigKind::Text => None,
    }
    .unwrap_or_else(|| text.to_owned())
}

/// A number with a fraction as Java writes it: with a power of ten where it is far from 1.
fn java_double(n: f64) -> String {
    if n == 0.0 || (1e-3..1e7).contains(&n.abs()) {
        return format!("{n:?}");
    }
    let text = format!("{n:E}");
    if text.contains('.') { text } else { text.replacen('E', ".0E", 1) }
}

/// Whether a text is true, where it is a truth at all.
pub(super) fn truth(value: &str) -> Option<bool> {
    let value = value.trim();
    if value.eq_ignore_ascii_case("true") { Some(true) } else { value.eq_ignore_ascii_case("false").then_some(false) }
}

/// A number with a fraction, which Java's letters for its width may follow.
pub(super) fn fraction(value: &str) -> Option<f64> {
    let value = value.trim();
    value.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(value).parse().ok().filter(|n: &f64| n.is_finite())
}

/// Checks a value; an error says what it is not.
pub(super) fn check(kind: ConfigKind, rule: Rule, value: &str) -> Result<(), String> {
    let value = value.trim();
    let whole = match kind {
        ConfigKind::Int => Some(value.parse::<i32>().map(i64::from).map_err(|_| "a whole number of 32 bits")?),
        ConfigKind::Long => Some(value.parse::<i64>().map_err(|_| "a whole number of 64 bits")?),
        ConfigKind::Bool if truth(value).is_none() => return Err("true or false".to_owned()),
        ConfigKind::Double if fraction(value).is_none() => return Err("a number".to_owned()),
        ConfigKind::List if words(value).any(str::is_empty) => return Err("a list without gaps".to_owned()),
        ConfigKind::Bool | ConfigKind::Double | ConfigKind::List | ConfigKind::Text => None,
    };
    let within = |least, most| whole.is_none_or(|n| (least..=most).contains(&n));
    match rule {
        Rule::Least(least) if !within(least, i64::MAX) => Err(format!("at least {least}")),
        Rule::Between(least, most) if !within(least, most) => Err(format!("between {least} and {most}")),
        Rule::LevelOf(least, most) if !within(least, most) && whole != Some(-1) => Err(format!("-1 or between {least} and {most}")),
        Rule::Fraction if !fraction(value).is_some_and(|n| (0.0..=1.0).contains(&n)) => Err("between 0 and 1".to_owned()),
        Rule::OneOf(all) if !all.contains(&value) => Err(format!("one of {}", all.join(", "))),
        Rule::ListOf(all) if !words(value).all(|one| all.contains(&one)) => Err(format!("a list of {}", all.join(", "))),
        Rule::Replicas if !is_replicas(value) => Err("* or a list of partition:broker".to_owned()),
        _ => Ok(()),
    }
}

fn is_replicas(value: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    value == "*"
        || words(value).all(|pair| pair.split_once(':').is_some_and(|(partition, broker)| is_number(partition) && is_number(broker)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_kafka_reads_them() {
        use ConfigKind::{Bool, Double, Int, List, Long, Text};
        let policies = Rule::ListOf(&["delete", "compact"]);
        for (kind, rule, good) in [
            (Bool, Rule::Any, &["true", " FALSE "][..]),
            (Int, Rule::Least(0), &["0", "+5", " 7 ", "2147483647"]),
            (Long, Rule::Least(-1), &["-1", "9223372036854775807"]),
            (Int, Rule::LevelOf(1, 9), &["-1", "1", "9"]),
            (Int, Rule::Between(1, 17), &["1", "17"]),
            (Double, Rule::Fraction, &["0", "1", "0.5", "1e-1", "0.5f"]),
            (List, policies, &["", " ", "delete", "compact, delete", "delete,delete"]),
            (List, Rule::Replicas, &["", "*", "0:1", "0:1,12:0"]),
            (Text, Rule::OneOf(&["lz4"]), &["lz4", " lz4"]),
        ] {
            for value in good {
                assert_eq!(check(kind, rule, value), Ok(()), "{value:?}");
            }
        }
        for (kind, rule, bad, says) in [
            (Bool, Rule::Any, "", "true or false"),
            (Int, Rule::Any, "2147483648", "32 bits"),
            (Long, Rule::Any, "0x10", "64 bits"),
            (Long, Rule::Least(-1), "-2", "at least -1"),
            (Int, Rule::LevelOf(1, 9), "0", "-1 or between 1 and 9"),
            (Int, Rule::Between(1, 17), "18", "between 1 and 17"),
            (Double, Rule::Fraction, "1.5", "between 0 and 1"),
            (Double, Rule::Fraction, "NaN", "a number"),
            (List, policies, ",delete", "gaps"),
            (List, policies, "burn", "a list of delete, compact"),
            (List, Rule::Replicas, "0:", "partition:broker"),
            (List, Rule::Replicas, "*,0:1", "partition:broker"),
            (Text, Rule::OneOf(&["lz4"]), "LZ4", "one of lz4"),
        ] {
            let why = check(kind, rule, bad).unwrap_err();
            assert!(why.contains(says), "{bad:?}: {why}");
        }
    }

    #[test]
    fn words_join_and_leave_a_list() {
        assert_eq!(changed_list("delete", "compact", true), "delete,compact");
        assert_eq!(changed_list("delete,compact", "compact,delete", true), "delete,compact");
        assert_eq!(changed_list("delete,compact", "delete", false), "compact");
        assert_eq!(changed_list("compact", "compact", false), "");
        assert_eq!(changed_list("", "compact", true), "compact");
        // In Kafka's way: nothing is a word too, which no list may have, and of a word that is there twice one goes.
        assert_eq!(changed_list("delete", "", true), "delete,");
        assert_eq!(changed_list("", "", true), "");
        assert_eq!(changed_list("delete", ",,", true), "delete");
        assert_eq!(changed_list("delete", ",compact,", true), "delete,,compact");
        assert_eq!(changed_list("delete,delete", "delete", false), "delete");
        assert_eq!(changed_list("delete, compact", "compact", true), "delete, compact,compact");
    }

    #[test]
    fn a_value_is_told_as_it_was_read() {
        use ConfigKind::{Bool, Double, Int, List, Long, Text};
        let policies = Rule::ListOf(&["delete", "compact"]);
        for (kind, rule, value, told) in [
            (List, policies, "delete,delete", "delete"),
            (List, policies, " compact , delete,compact ", "compact,delete"),
            (List, policies, " ", ""),
            (List, Rule::Replicas, "0:1, 0:1", "0:1,0:1"),
            (Bool, Rule::Any, " TRUE ", "true"),
            (Int, Rule::Any, "+05", "5"),
            (Long, Rule::Any, " -1", "-1"),
            (Double, Rule::Fraction, "0.50", "0.5"),
            (Double, Rule::Fraction, "1", "1.0"),
            (Double, Rule::Fraction, "1e-1f", "0.1"),
            (Double, Rule::Fraction, "0.0001", "1.0E-4"),
            (Double, Rule::Fraction, "0.00025", "2.5E-4"),
            (Double, Rule::Fraction, "0", "0.0"),
            (Text, Rule::OneOf(&["lz4"]), " lz4 ", "lz4"),
        ] {
            assert_eq!(check(kind, rule, value), Ok(()), "{value:?}");
            assert_eq!(plain(kind, rule, value), told, "{value:?}");
        }
    }
}
