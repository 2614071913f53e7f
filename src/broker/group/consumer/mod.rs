//! The consumer group of KIP-848, as a pure state machine: [`ConsumerGroup`].
//!
//! Owns who is in it, what each member should have (the target, made here by an assignor), and what each
//! has now. The group has an epoch that rises with every change of members, subscriptions or topics; the target
//! has the epoch of the group it was made for; a member reaches that epoch once it has given up what it
//! must. Always: no partition is in two members' hands, because one is handed out only after its owner said
//! that it let it go, was fenced, or left. Part of [`Group`](super::Group), which dispatches to it.

mod admin;
mod assign;
mod assignor;
mod classic;
mod commit;
mod heartbeat;
mod member;
mod message;
mod pattern;
mod reconcile;
#[cfg(test)]
mod simulation;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use admin::{DescribedConsumer, DescribedConsumerMember};
pub(super) use classic::{MemberTerms, TakenOver};
pub(super) use commit::Committer;
pub use message::{Beat, BeatRefusal, BeatReply, OwnedPartitions, Topics};
pub(super) use stored::{ConsumerEntry, ConsumerReplay, read_consumer};
#[cfg(test)]
pub(super) use tests::Table;

use self::assignor::Partitions;
use self::member::Member;
use self::pattern::Patterns;
use super::message::{Effect, GroupId, GroupState};
use super::stored::GroupRecord;
use crate::record::TopicId;
use crate::time::Timestamp;

/// What an operator may set about consumer groups. The defaults are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// Silence after which a member is fenced.
    pub session_timeout_ms: i32,
    /// How often members are told to say that they live.
    pub heartbeat_interval_ms: i32,
    /// The shortest time between two targets, so that a service that starts with many consumers is not assigned
    /// once for each. The first one is made at once.
    pub assignment_interval_ms: i32,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self { session_timeout_ms: 45_000, heartbeat_interval_ms: 5_000, assignment_interval_ms: 1_000 }
    }
}

/// One consumer group.
#[derive(Debug)]
pub(super) struct ConsumerGroup {
    id: GroupId,
    config: ConsumerConfig,
    max_size: usize,
    epoch: i32,
    /// Of the topics that are subscribed to: their names, ids and partition counts.
    metadata_hash: i64,
    /// The version of the topics that were last looked at.
    looked_at: Option<u64>,
    /// The epoch of the group that the target was made for.
    target_epoch: i32,
    /// When the target was made; 0 before the first.
    target_made: Timestamp,
    target: BTreeMap<String, Partitions>,
    members: BTreeMap<String, Member>,
    /// The member id of each static member's name.
    statics: BTreeMap<String, String>,
    /// Who has each partition, or has not said yet that it let it go.
    owners: BTreeMap<(TopicId, i32), String>,
    /// How many members subscribe to each topic by name.
    subscriptions: BTreeMap<String, usize>,
    patterns: Patterns,
    /// The topics that are subscribed to and exist, as last looked at.
    ids: BTreeMap<String, TopicId>,
    /// What has happened that the log has not been told yet.
    records: Vec<GroupRecord>,
}

impl ConsumerGroup {
    pub(super) fn new(id: GroupId, config: ConsumerConfig, max_size: usize) -> Self {
        Self {
            id,
            config,
            max_size,
            epoch: 0,
            metadata_hash: 0,
            looked_at: None,
            target_epoch: 0,
            target_made: Timestamp(0),
            target: BTreeMap::new(),
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            owners: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            patterns: Patterns::default(),
            ids: BTreeMap::new(),
            records: Vec::new(),
        }
    }

    pub(super) const fn set_config(&mut self, config: ConsumerConfig) {
        self.config = config;
    }

    /// Where the group stands.
    pub(super) fn state(&self) -> GroupState {
        if self.members.is_empty() {
            GroupState::Empty
        } else if self.epoch > self.target_epoch {
            GroupState::Assigning
        } else if self.members.values().all(|member| member.is_reconciled_to(self.target_epoch)) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) const fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(super) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// What there is to append, in the order in which it came to be.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.records).into_iter().map(Effect::Store).collect()
    }

    /// Puts a member in place of what it was before, which `members` still holds.
    fn put(&mut self, member: Member) {
        self.take_out(&member.id);
        if let Some(name) = &member.instance_id {
            self.statics.insert(name.clone(), member.id.clone());
        }
        for name in &member.names {
            *self.subscriptions.entry(name.clone()).or_default() += 1;
        }
        if let Some(pattern) = member.pattern() {
            self.patterns.add(pattern);
        }
        for place in member.held() {
            let before = self.owners.insert(place, member.id.clone());
            assert!(before.is_none(), "a partition is in one member's hands");
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member out of everything but the target.
    fn take_out(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(name) = &member.instance_id
            && self.statics.get(name).is_some_and(|current| current == id)
        {
            self.statics.remove(name);
        }
        for name in &member.names {
            if let Some(count) = self.subscriptions.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.subscriptions.remove(name);
                }
            }
        }
        if let Some(pattern) = member.pattern() {
            self.patterns.remove(pattern);
        }
        for place in member.held() {
            self.owners.remove(&place);
        }
        Some(member)
    }

    /// Removes members that left or were fenced: what they had is free, and the rest will be assigned anew. That they no
    /// longer subscribe to anything is part of the same change.
    fn fence(&mut self, ids: &[String], topics: &dyn Topics) {
        let mut gone = false;
        for id in ids {
            if self.take_out(id).is_none() {
                continue;
            }
            gone = true;
            self.target.remove(id);
            self.record_gone(id);
        }
        if gone {
            self.drop_patterns();
            // A group that goes on as a classic one does so in the epoch that its members know.
            if !self.is_all_classic() {
                self.metadata_hash = self.hash_topics(topics);
                self.bump();
            }
        }
    }

    /// A group that was not there: its first epoch is 1, as in Kafka.
    pub(super) fn begin_new(&mut self) {
        self.epoch = 1;
        self.record_group();
    }

    /// The group has changed: a new target will be made for its new epoch.
    fn bump(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.record_group();
    }

    /// When [`ConsumerGroup::tick`] has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.members.values().flat_map(Member::deadlines).min()
    }

    /// Lets time pass: fences whoever was silent too long, or did not give up in time what it must.
    pub(super) fn tick(&mut self, now: Timestamp, topics: &dyn Topics) {
        let late: Vec<String> = self
            .members
            .values()
            .filter(|member| member.deadlines().any(|deadline| deadline <= now))
            .map(|member| member.id.clone())
            .collect();
        self.fence(&late, topics);
    }

    /// The group was read back: its members have a whole session to be heard of.
    pub(super) fn begin(&mut self, now: Timestamp) {
        for member in self.members.values_mut() {
            member.begin(now, &self.config);
        }
    }
}
