//! What a consumer group is asked and what it answers.

use std::collections::BTreeMap;

use crate::record::TopicId;
use crate::wire::error_code;

/// Partitions that a member says it has, or is told to have.
pub type OwnedPartitions = BTreeMap<TopicId, Vec<i32>>;

/// The topics there are, as the group needs to know them.
pub trait Topics {
    /// The identity of a topic and how many partitions it has.
    fn by_name(&self, name: &str) -> Option<(TopicId, i32)>;
    /// The name of a topic.
    fn name_of(&self, id: TopicId) -> Option<String>;
    /// The names of all topics that a pattern may match.
    fn names(&self) -> Vec<String>;
    /// Another number whenever something that the other functions answer has changed.
    fn version(&self) -> u64;
}

/// A member's heartbeat: that it lives, what it wants and what it has.
#[derive(Clone, Debug)]
pub struct Beat {
    /// Who; empty for a new member before version 1.
    pub member_id: String,
    /// Where it stands: 0 to join, -1 to leave, -2 for a static member that will be back.
    pub epoch: i32,
    /// The name of a static member.
    pub instance_id: Option<String>,
    /// Where it stands.
    pub rack_id: Option<String>,
    /// How long it may take to give partitions up, or -1 where that is known.
    pub rebalance_timeout_ms: i32,
    /// The topics it wants, `None` where that is known.
    pub names: Option<Vec<String>>,
    /// What the names of topics it wants look like, `None` where that is known; empty for none.
    pub pattern: Option<String>,
    /// Which assignor it likes.
    pub assignor: Option<String>,
    /// What it has, `None` where that has not changed.
    pub owned: Option<OwnedPartitions>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Whether clients of this version make up their own ids.
    pub makes_own_id: bool,
    /// A fresh id for a member that has none.
    pub nonce: String,
}

/// The answer to a [`Beat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeatReply {
    /// The member's id.
    pub member_id: String,
    /// Where it stands now.
    pub epoch: i32,
    /// When to say again that it lives.
    pub interval_ms: i32,
    /// What it should have, where that has changed or it asked.
    pub assignment: Option<OwnedPartitions>,
}

/// Why a [`Beat`] is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeatRefusal {
    /// Kafka's error.
    pub code: i16,
    /// What is wrong, for a person to read.
    pub why: String,
}

impl BeatRefusal {
    pub(super) fn new(code: i16, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }

    pub(super) fn unknown(member_id: &str, group: &super::GroupId) -> Self {
        Self::new(error_code::UNKNOWN_MEMBER_ID, format!("Member {member_id} is not a member of group {group}."))
    }
}

/// The assignors there are, the one that is taken unless members like another first.
pub(super) const ASSIGNORS: [&str; 2] = ["uniform", "range"];

impl Beat {
    /// Checks what can be checked without a group.
    pub fn check(&self) -> Result<(), BeatRefusal> {
        let invalid = |why: &str| Err(BeatRefusal::new(error_code::INVALID_REQUEST, why));
        if self.member_id.is_empty() && (self.makes_own_id || self.epoch != 0) {
            return invalid("MemberId can't be empty.");
        }
        if self.instance_id.as_deref() == Some("") {
            return invalid("InstanceId can't be empty.");
        }
        if self.rack_id.as_deref() == Some("") {
            return invalid("RackId can't be empty.");
        }
        match self.epoch {
            0 => {
                if self.rebalance_timeout_ms == -1 {
                    return invalid("RebalanceTimeoutMs must be provided in first request.");
                }
                if self.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                    return invalid("TopicPartitions must be empty when (re-)joining.");
                }
                if self.names.is_none() && self.pattern.is_none() {
                    return invalid("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.");
                }
            }
            -2 if self.instance_id.is_none() => return invalid("InstanceId can't be null."),
            ..-2 => return invalid("MemberEpoch is invalid."),
            _ => {}
        }
        match &self.assignor {
            Some(name) if !ASSIGNORS.contains(&name.as_str()) => Err(BeatRefusal::new(
                error_code::UNSUPPORTED_ASSIGNOR,
                format!("ServerAssignor {name} is not supported. Supported assignors: {}.", ASSIGNORS.join(", ")),
            )),
            _ => Ok(()),
        }
    }

    /// Whether it tells everything: what has to be answered in full.
    pub(super) const fn is_full(&self) -> bool {
        self.rebalance_timeout_ms != -1 && (self.names.is_some() || self.pattern.is_some()) && self.owned.is_some()
    }
}
