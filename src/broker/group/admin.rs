//! What operators ask of a group: list, describe, delete it, delete offsets.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::consumer::DescribedConsumer;
use super::machine::{Group, Phase};
use super::message::{GroupId, GroupKind, GroupState};
use super::stored::GroupRecord;
use super::subscription::CONSUMER;
use crate::record::TopicPartition;
use crate::wire::error_code;

/// A line of ListGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The group.
    pub id: GroupId,
    /// What its members are; empty where it only stores offsets.
    pub protocol_type: String,
    /// Where it stands.
    pub state: GroupState,
    /// By which protocol it lives.
    pub kind: GroupKind,
}

/// An answer of DescribeGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The group.
    pub id: GroupId,
    /// Where it stands.
    pub state: GroupState,
    /// What its members are; empty where it only stores offsets.
    pub protocol_type: String,
    /// The chosen protocol; empty unless stable.
    pub protocol: String,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// A member in an answer of DescribeGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub member_id: String,
    /// Its name, where it is static.
    pub instance_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// What it sent for the chosen protocol; empty unless stable.
    pub metadata: Bytes,
    /// What it was assigned last.
    pub assignment: Bytes,
}

impl Described {
    /// The answer about a group that does not exist.
    #[must_use]
    pub const fn unknown(id: GroupId) -> Self {
        Self { id, state: GroupState::Dead, protocol_type: String::new(), protocol: String::new(), members: Vec::new() }
    }
}

impl Group {
    /// The group's line in a list.
    #[must_use]
    pub fn list(&self) -> Listed {
        let protocol_type = match self.kind() {
            GroupKind::Classic => self.protocol_type.clone().unwrap_or_default(),
            GroupKind::Consumer => CONSUMER.to_owned(),
        };
        Listed { id: self.id.clone(), protocol_type, state: self.state(), kind: self.kind() }
    }

    /// The group and its members, where it is one of KIP-848.
    #[must_use]
    pub fn describe_consumer(&self) -> Option<DescribedConsumer> {
        self.consumer.as_ref().map(|consumer| consumer.describe())
    }

    /// The group and its members, where it is classic.
    #[must_use]
    pub fn describe(&self) -> Described {
        let stable = matches!(self.phase, Phase::Stable);
        let protocol = self.protocol.clone().filter(|_| stable).unwrap_or_default();
        let members = self
            .members
            .values()
            .map(|m| DescribedMember {
                member_id: m.id.clone(),
                instance_id: m.instance_id.clone(),
                client_id: m.client_id.clone(),
                client_host: m.client_host.clone(),
                metadata: if stable { m.metadata(&protocol) } else { Bytes::new() },
                assignment: m.assignment.clone(),
            })
            .collect();
        Described {
            id: self.id.clone(),
            state: self.state(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol,
            members,
        }
    }

    /// How many members it has.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members.len() + self.consumer.as_ref().map_or(0, |consumer| consumer.member_count())
    }

    /// Whether it is gone, so that the coordinator may drop it.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        matches!(self.phase, Phase::Dead)
    }

    /// Whether nobody joined or committed yet: a coordinator that made the group for a request that came to
    /// nothing may drop it without a trace.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        matches!(self.phase, Phase::Empty { .. })
            && self.protocol_type.is_none()
            && self.consumer.is_none()
            && self.pending.is_empty()
            && !self.is_made
            && self.known_partitions().is_empty()
    }

    /// Deletes the group, which must be empty. Returns the records that make it so in the log too.
    pub fn delete(&mut self) -> Result<Vec<GroupRecord>, i16> {
        match self.phase {
            Phase::Dead => Err(error_code::GROUP_ID_NOT_FOUND),
            Phase::Empty { .. } if self.member_count() == 0 => Ok(self.end()),
            Phase::Empty { .. } => Err(error_code::NON_EMPTY_GROUP),
            Phase::Preparing { .. } | Phase::Completing | Phase::Stable => Err(error_code::NON_EMPTY_GROUP),
        }
    }

    /// Deletes single offsets: each partition's error, and the records that make it so in the log too. A
    /// group of consumers keeps those of the topics it is subscribed to; any other group has to be empty.
    pub fn delete_offsets(&mut self, of: &[TopicPartition]) -> Result<(Vec<i16>, Vec<GroupRecord>), i16> {
        let subscribed = match self.phase {
            Phase::Dead => return Err(error_code::GROUP_ID_NOT_FOUND),
            Phase::Empty { .. } => BTreeSet::new(),
            // Nobody is in it who could read, somebody may be on the way.
            Phase::Preparing { .. } if self.consumer.is_none() && self.members.is_empty() => BTreeSet::new(),
            Phase::Preparing { .. } | Phase::Completing | Phase::Stable => match self.subscribed() {
                Some(subscribed) => subscribed,
                // Consumers of which nobody can tell what they read may read anything.
                None if self.protocol_type.as_deref() == Some(CONSUMER) => of.iter().map(|of| of.topic.as_str().to_owned()).collect(),
                None => return Err(error_code::NON_EMPTY_GROUP),
            },
        };
        let is_kept = |of: &TopicPartition| match &self.consumer {
            Some(consumer) => consumer.is_subscribed_to(of.topic.as_str()),
            None => subscribed.contains(of.topic.as_str()),
        };
        let errors = of.iter().map(|of| if is_kept(of) { error_code::GROUP_SUBSCRIBED_TO_TOPIC } else { error_code::NONE }).collect();
        let known = self.known_partitions();
        let gone: BTreeSet<_> = of.iter().filter(|of| known.contains(of) && !is_kept(of)).cloned().collect();
        Ok((errors, self.forget_offsets(gone)))
    }
}
