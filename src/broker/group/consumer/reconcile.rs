//! The way of a member to its target: it gives up first, then it gets.
//!
//! Nothing here looks at other members but through the owners of partitions: a partition that somebody still has
//! is waited for.

use std::collections::{BTreeMap, BTreeSet};

use super::ConsumerGroup;
use super::assignor::Partitions;
use super::member::{Held, Member, Stage};
use super::message::{OwnedPartitions, Topics};
use crate::record::TopicId;
use crate::time::Timestamp;

/// What is known when a member takes its next step.
pub(super) struct Step<'a> {
    pub(super) now: Timestamp,
    pub(super) topics: &'a dyn Topics,
    /// What the member says it has; `None` where it says nothing.
    pub(super) owned: Option<&'a OwnedPartitions>,
    /// Whether its subscription is another one than before.
    pub(super) subscription_changed: bool,
}

impl ConsumerGroup {
    /// Moves a member as far towards its target as it can go now.
    pub(super) fn reconcile(&self, before: &Member, step: &Step) -> Member {
        let mut member = before.clone();
        if !step.subscription_changed && before.is_reconciled_to(self.target_epoch) {
            return member;
        }
        match before.stage {
            Stage::Stable if before.epoch != self.target_epoch => self.next(&mut member, step),
            Stage::Stable if step.subscription_changed => self.strip(&mut member, step),
            Stage::Stable => {}
            Stage::Unrevoked if still_has(step.owned, &before.revoking) => {
                if step.subscription_changed {
                    self.strip(&mut member, step);
                }
            }
            Stage::Unrevoked | Stage::Unreleased => self.next(&mut member, step),
        }
        if !member.stands_the_same(before) && member.classic.is_none() {
            member.rebalance_ends = (member.stage == Stage::Unrevoked).then(|| step.now.plus(member.rebalance_timeout_ms.max(0).into()));
        }
        member
    }

    /// The topics a member subscribes to, in one way or another.
    pub(super) fn subscribed(&self, member: &Member) -> BTreeSet<String> {
        let by_pattern = member.pattern().into_iter().flat_map(|pattern| self.patterns.topics(pattern));
        member.names.iter().chain(by_pattern).cloned().collect()
    }

    fn subscribed_ids(&self, member: &Member, topics: &dyn Topics) -> BTreeSet<TopicId> {
        self.subscribed(member).iter().filter_map(|name| topics.by_name(name)).map(|(id, _)| id).collect()
    }

    /// Takes away what the member no longer subscribes to, without waiting for the next target.
    fn strip(&self, member: &mut Member, step: &Step) {
        let wanted = self.subscribed_ids(member, step.topics);
        let unwanted: Vec<TopicId> = member.assigned.keys().filter(|topic| !wanted.contains(topic)).copied().collect();
        if unwanted.is_empty() {
            return;
        }
        let mut revoking = member.revoking.clone();
        for topic in unwanted {
            let of = member.assigned.remove(&topic).expect("it is one of the keys");
            revoking.entry(topic).or_default().extend(of);
        }
        if still_has(step.owned, &revoking) {
            member.stage = Stage::Unrevoked;
            member.revoking = revoking;
        }
        member.previous_epoch = member.epoch;
    }

    /// The next stage: give up what is not in the target, or else take what is free of it.
    fn next(&self, member: &mut Member, step: &Step) {
        let empty = Partitions::new();
        let target = self.target.get(&member.id).unwrap_or(&empty);
        let wanted = self.subscribed_ids(member, step.topics);
        let (mut kept, mut revoking, mut pending) = (Held::new(), Held::new(), Partitions::new());
        let mut waits = false;
        for (topic, of) in &member.assigned {
            for (partition, since) in of {
                let keeps = wanted.contains(topic) && target.get(topic).is_some_and(|of| of.contains(partition));
                let to = if keeps { &mut kept } else { &mut revoking };
                to.entry(*topic).or_default().insert(*partition, *since);
            }
        }
        for (topic, of) in target.iter().filter(|(topic, _)| wanted.contains(topic)) {
            for partition in of {
                if kept.get(topic).is_some_and(|of| of.contains_key(partition)) {
                    continue;
                }
                let is_free = self.owners.get(&(*topic, *partition)).is_none_or(|owner| *owner == member.id);
                if is_free {
                    pending.entry(*topic).or_default().insert(*partition);
                } else {
                    waits = true;
                }
            }
        }
        member.assigned = kept;
        if !revoking.is_empty() && still_has(step.owned, &revoking) {
            member.stage = Stage::Unrevoked;
            member.previous_epoch = member.epoch;
            member.revoking = revoking;
            return;
        }
        for (topic, of) in pending {
            member.assigned.entry(topic).or_default().extend(of.into_iter().map(|p| (p, self.target_epoch)));
        }
        member.stage = if waits { Stage::Unreleased } else { Stage::Stable };
        member.previous_epoch = member.epoch;
        member.epoch = self.target_epoch;
        member.revoking = Held::new();
    }
}

/// Whether the member, by its own words, still has one of these. Who says nothing still has them.
fn still_has(owned: Option<&OwnedPartitions>, revoking: &Held) -> bool {
    let Some(owned) = owned else { return true };
    owned.iter().any(|(topic, of)| revoking.get(topic).is_some_and(|revoking| of.iter().any(|p| revoking.contains_key(p))))
}

/// The partitions without their epochs, as they are told.
pub(super) fn told(held: &Held) -> OwnedPartitions {
    held.iter().filter(|(_, of)| !of.is_empty()).map(|(topic, of)| (*topic, of.keys().copied().collect())).collect::<BTreeMap<_, _>>()
}
