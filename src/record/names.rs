//! The names and numbers a record's place is made of.

use std::fmt;
use std::sync::Arc;

/// Where a record sits in its partition. Counts records, never bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// The first record of a partition that nothing was deleted from.
    pub const ZERO: Self = Self(0);

    /// The offset `n` records further on.
    #[must_use]
    pub const fn plus(self, n: i64) -> Self {
        Self(self.0 + n)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a partition within its topic, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub i32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not a topic's name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Empty, or only dots, which would name a directory.
    #[error("a topic's name cannot be empty, \".\" or \"..\"")]
    Empty,
    /// Longer than Kafka allows.
    #[error("a topic's name has at most 249 characters, this one has {0}")]
    TooLong(usize),
    /// A character outside Kafka's set, which also keeps names safe as file names.
    #[error("a topic's name is made of a-z A-Z 0-9 . _ - and this one has {0:?}")]
    Character(char),
}

/// The topics the node keeps its own books in. No client writes to them or deletes them.
const INTERNAL_TOPICS: [&str; 10] = [
    "__aborted_transactions",
    "__audit",
    "__catalog",
    "__cluster_metadata",
    "__configs",
    "__consumer_offsets",
    "__producer_state",
    "__security",
    "__topics",
    "__transaction_state",
];

/// The topic of alerts: everyone may read it and nobody but the node writes it, so that what stands there was found by a rule.
pub const ALERTS_TOPIC: &str = "alerts";

/// How the names of the topics begin that are a query's own: its state (one topic for each query and each savepoint), and, where it aggregates
/// in two phases, what lies between these and how their tasks stand.
const QUERY_TOPICS: [&str; 3] = ["__checkpoint.", "__parts.", "__peers."];

/// A topic's name, checked by Kafka's rule: 1 to 249 of `a-zA-Z0-9._-`, not `.` or `..`.
/// Cheap to clone. Whoever holds one knows it is safe as a file name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks and keeps a name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() || name == "." || name == ".." {
            return Err(NameError::Empty);
        }
        if let Some(c) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
            return Err(NameError::Character(c));
        }
        if name.len() > 249 {
            return Err(NameError::TooLong(name.len()));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is one of the node's own topics. Other names that begin with two underscores are free, as in Kafka.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        INTERNAL_TOPICS.contains(&&*self.0) || QUERY_TOPICS.iter().any(|of| self.0.starts_with(of))
    }

    /// Whether the node alone writes, trims and deletes this topic: its own ones and that of alerts.
    #[must_use]
    pub fn is_written_by_node_alone(&self) -> bool {
        self.is_internal() || &*self.0 == ALERTS_TOPIC
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
thread_local! {
    /// What the next identity is drawn from, where a test wants the same ones again.
    static DRAWN: std::cell::Cell<Option<u128>> = const { std::cell::Cell::new(None) };
}

/// The identity of a topic, which a topic of the same name made later does not share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// A fresh identity.
    #[must_use]
    pub fn random() -> Self {
        #[cfg(test)]
        if let Some(drawn) = DRAWN.get() {
            DRAWN.set(Some(drawn.wrapping_add(1)));
            return Self(drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes());
        }
        Self(*uuid::Uuid::new_v4().as_bytes())
    }

    /// Lets the identities that this thread makes follow from a seed.
    #[cfg(test)]
    pub(crate) fn draw_from(seed: u128) {
        DRAWN.set(Some(seed));
    }

    /// The nil identity, which means "no id" on the wire.
    #[must_use]
    pub fn is_nil(self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).fmt(f)
    }
}

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition within it.
    pub partition: PartitionId,
}

impl TopicPartition {
    /// Names partition `partition` of `topic`.
    #[must_use]
    pub const fn new(topic: TopicName, partition: PartitionId) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_name_follows_kafkas_rule() {
        assert!(TopicName::new("vitals.icu-1_raw").is_ok());
        assert_eq!(TopicName::new(".."), Err(NameError::Empty));
        assert_eq!(TopicName::new("../etc"), Err(NameError::Character('/')));
        assert_eq!(TopicName::new(&"a".repeat(250)), Err(NameError::TooLong(250)));
    }
}
