//! Making the target: what topics there are, which assignor the members like, and who is to have what.

use std::collections::{BTreeMap, BTreeSet};

use super::ConsumerGroup;
use super::assignor::{Partitions, Subscriber, assign};
use super::message::{ASSIGNORS, Topics};
use crate::record::TopicId;
use crate::time::Timestamp;

impl ConsumerGroup {
    /// Looks at the topics where there are others than the last time, or `changed` says that the members want something
    /// else; each change gives the group its next epoch.
    pub(super) fn look_at_topics(&mut self, now: Timestamp, changed: bool, topics: &dyn Topics) {
        let version = topics.version();
        if !changed && self.looked_at == Some(version) && self.patterns.are_resolved() {
            return;
        }
        self.looked_at = Some(version);
        let resolved = self.patterns.resolve(topics);
        for (pattern, topics) in &resolved {
            self.record_pattern(now, pattern, topics);
        }
        let hash = self.hash_topics(topics);
        let differs = hash != self.metadata_hash || !resolved.is_empty();
        self.metadata_hash = hash;
        if changed || differs {
            self.bump();
        }
    }

    /// A number for the topics that are subscribed to, another one for others. It is stored, so that a restart
    /// does not look like a change.
    pub(super) fn hash_topics(&mut self, topics: &dyn Topics) -> i64 {
        const PRIME: u64 = 0x0100_0000_01b3;
        let names: BTreeSet<&String> = self.subscriptions.keys().chain(self.patterns.all_topics()).collect();
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut ids = BTreeMap::new();
        for name in names {
            let Some((id, count)) = topics.by_name(name) else { continue };
            ids.insert(name.clone(), id);
            for byte in name.bytes().chain([0]).chain(id.0).chain(count.to_be_bytes()) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
            }
        }
        self.ids = ids;
        if self.ids.is_empty() { 0 } else { hash.cast_signed() }
    }

    /// Makes a new target where the group has a newer epoch than the last, and that was not just now.
    pub(super) fn make_target(&mut self, now: Timestamp, topics: &dyn Topics) {
        let interval: i64 = self.config.assignment_interval_ms.into();
        let may = self.target_made.0 == 0 || interval == 0 || now.since(self.target_made) >= interval;
        if self.epoch <= self.target_epoch || !may {
            return;
        }
        let mut counts: BTreeMap<TopicId, i32> = BTreeMap::new();
        let mut subscribers = Vec::with_capacity(self.members.len());
        for member in self.members.values() {
            let mut ids = BTreeSet::new();
            for (id, count) in self.subscribed(member).iter().filter_map(|name| topics.by_name(name)) {
                ids.insert(id);
                counts.insert(id, count);
            }
            subscribers.push(Subscriber {
                id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                topics: ids,
                had: self.target.get(&member.id).cloned().unwrap_or_default(),
            });
        }
        let assigned = assign(self.assignor(), &subscribers, &counts);
        for (subscriber, target) in subscribers.into_iter().zip(assigned) {
            if self.target.get(&subscriber.id) != Some(&target) {
                self.set_target(subscriber.id, target);
            }
        }
        self.target_epoch = self.epoch;
        self.target_made = now;
        self.record_target_made();
    }

    pub(super) fn set_target(&mut self, member_id: String, target: Partitions) {
        self.record_target(&member_id, &target);
        self.target.insert(member_id, target);
    }

    /// The assignor that most members like, of those that like one.
    pub(super) fn assignor(&self) -> &str {
        let votes = |name: &str| self.members.values().filter(|member| member.assignor.as_deref() == Some(name)).count();
        // Of several with as many the first.
        ASSIGNORS.into_iter().rev().max_by_key(|name| votes(name)).unwrap_or(ASSIGNORS[0])
    }
}
