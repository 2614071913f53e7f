//! Consumer groups as records of `__consumer_offsets`, in the forms of Kafka's record types 3, 5, 6, 7, 8 and 16.
//!
//! Always: a group that is read back stands where it stood when the last record was written; its members go on
//! without joining again.

use std::collections::{BTreeMap, BTreeSet};

use super::assignor::Partitions;
use super::member::{Classic, Held, Member, Stage};
use super::{ConsumerConfig, ConsumerGroup};
use crate::broker::group::message::GroupId;
use crate::broker::group::stored::{Fields, GroupRecord, StoredError, put_i16, put_text};
use crate::record::TopicId;
use crate::time::Timestamp;
use crate::wire::{
    ClassicMemberMetadata, ClassicProtocol, ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataValue,
    ConsumerGroupMetadataValue, ConsumerGroupRegularExpressionValue, ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupTargetAssignmentMetadataValue, OwnedTopicPartitions, StoredTopicPartitions, read_stored, write_stored,
};

const KEY_GROUP: i16 = 3;
const KEY_MEMBER: i16 = 5;
const KEY_TARGET_MADE: i16 = 6;
const KEY_TARGET: i16 = 7;
const KEY_STANDING: i16 = 8;
const KEY_PATTERN: i16 = 16;

/// A record of a consumer group that was read.
#[derive(Clone, Debug, PartialEq)]
pub enum ConsumerEntry {
    /// The group's epoch.
    Group(Option<ConsumerGroupMetadataValue>),
    /// What a member says of itself.
    Member(String, Option<ConsumerGroupMemberMetadataValue>),
    /// The epoch of the target.
    TargetMade(Option<ConsumerGroupTargetAssignmentMetadataValue>),
    /// What a member should have.
    Target(String, Option<ConsumerGroupTargetAssignmentMemberValue>),
    /// What a member has.
    Standing(String, Option<ConsumerGroupCurrentMemberAssignmentValue>),
    /// What a pattern stands for.
    Pattern(String, Option<ConsumerGroupRegularExpressionValue>),
}

/// Reads a record whose key has this type, or `None` where it is none of a consumer group.
pub(in crate::broker::group) fn read_consumer(
    kind: i16,
    key: &mut Fields,
    value: Option<&[u8]>,
) -> Result<Option<(GroupId, ConsumerEntry)>, StoredError> {
    if !matches!(kind, KEY_GROUP | KEY_MEMBER | KEY_TARGET_MADE | KEY_TARGET | KEY_STANDING | KEY_PATTERN) {
        return Ok(None);
    }
    let group = key.group()?;
    let entry = match kind {
        KEY_GROUP => ConsumerEntry::Group(body(value)?),
        KEY_TARGET_MADE => ConsumerEntry::TargetMade(body(value)?),
        KEY_MEMBER => ConsumerEntry::Member(key.text()?.to_owned(), body(value)?),
        KEY_TARGET => ConsumerEntry::Target(key.text()?.to_owned(), body(value)?),
        KEY_STANDING => ConsumerEntry::Standing(key.text()?.to_owned(), body(value)?),
        _ => ConsumerEntry::Pattern(key.text()?.to_owned(), body(value)?),
    };
    Ok(Some((group, entry)))
}

fn body<T: crate::wire::Wire>(value: Option<&[u8]>) -> Result<Option<T>, StoredError> {
    let Some(value) = value else { return Ok(None) };
    let mut fields = Fields(value);
    match fields.i16()? {
        0 => read_stored(fields.0).map(Some).map_err(|_| StoredError::Damaged("it is not what its key says")),
        other => Err(StoredError::Version(other)),
    }
}

fn key(kind: i16, parts: &[&str]) -> Vec<u8> {
    let mut key = Vec::new();
    put_i16(&mut key, kind);
    for part in parts {
        put_text(&mut key, part);
    }
    key
}

fn owned(held: &Held) -> Vec<OwnedTopicPartitions> {
    held.iter()
        .map(|(topic_id, of)| OwnedTopicPartitions {
            topic_id: *topic_id,
            partitions: of.keys().copied().collect(),
            assignment_epochs: Some(of.values().copied().collect()),
        })
        .collect()
}

fn held(owned: Vec<OwnedTopicPartitions>, member_epoch: i32) -> Held {
    let mut held = Held::new();
    for OwnedTopicPartitions { topic_id, partitions, assignment_epochs } in owned {
        let epochs = assignment_epochs.unwrap_or_default();
        let of = held.entry(topic_id).or_default();
        for (i, partition) in partitions.into_iter().enumerate() {
            of.insert(partition, epochs.get(i).copied().unwrap_or(member_epoch));
        }
    }
    held
}

impl ConsumerGroup {
    fn record(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.records.push(GroupRecord { key, value });
    }

    pub(super) fn record_group(&mut self) {
        let value = ConsumerGroupMetadataValue { epoch: self.epoch, metadata_hash: self.metadata_hash };
        self.record(key(KEY_GROUP, &[self.id.as_str()]), Some(write_stored(&value)));
    }

    pub(super) fn record_member(&mut self, member: &Member) {
        let classic = member.classic.as_ref().map(|classic| ClassicMemberMetadata {
            session_timeout_ms: classic.session_timeout_ms,
            supported_protocols: classic
                .protocols
                .iter()
                .map(|(name, metadata)| ClassicProtocol { name: name.clone(), metadata: metadata.clone() })
                .collect(),
        });
        let value = ConsumerGroupMemberMetadataValue {
            instance_id: member.instance_id.clone(),
            rack_id: member.rack_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            subscribed_topic_names: member.names.iter().cloned().collect(),
            subscribed_topic_regex: member.regex.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            server_assignor: member.assignor.clone(),
            classic_member_metadata: classic,
        };
        self.record(key(KEY_MEMBER, &[self.id.as_str(), &member.id]), Some(write_stored(&value)));
    }

    pub(super) fn record_target(&mut self, member_id: &str, target: &Partitions) {
        let topic_partitions = target
            .iter()
            .map(|(topic_id, of)| StoredTopicPartitions { topic_id: *topic_id, partitions: of.iter().copied().collect() })
            .collect();
        let value = ConsumerGroupTargetAssignmentMemberValue { topic_partitions };
        self.record(key(KEY_TARGET, &[self.id.as_str(), member_id]), Some(write_stored(&value)));
    }

    pub(super) fn record_target_made(&mut self) {
        let value =
            ConsumerGroupTargetAssignmentMetadataValue { assignment_epoch: self.target_epoch, assignment_timestamp: self.target_made.0 };
        self.record(key(KEY_TARGET_MADE, &[self.id.as_str()]), Some(write_stored(&value)));
    }

    pub(super) fn record_standing(&mut self, member: &Member) {
        let value = ConsumerGroupCurrentMemberAssignmentValue {
            member_epoch: member.epoch,
            previous_member_epoch: member.previous_epoch,
            state: member.stage as i8,
            assigned_partitions: owned(&member.assigned),
            partitions_pending_revocation: owned(&member.revoking),
        };
        self.record(key(KEY_STANDING, &[self.id.as_str(), &member.id]), Some(write_stored(&value)));
    }

    /// A member is no more, and its target neither.
    pub(super) fn record_gone(&mut self, member_id: &str) {
        for kind in [KEY_STANDING, KEY_TARGET, KEY_MEMBER] {
            self.record(key(kind, &[self.id.as_str(), member_id]), None);
        }
    }

    pub(super) fn record_pattern(&mut self, now: Timestamp, pattern: &str, topics: &BTreeSet<String>) {
        let value = ConsumerGroupRegularExpressionValue { topics: topics.iter().cloned().collect(), version: 0, timestamp: now.0 };
        self.record(key(KEY_PATTERN, &[self.id.as_str(), pattern]), Some(write_stored(&value)));
    }

    /// Patterns that nobody subscribes by are no more.
    pub(super) fn drop_patterns(&mut self) {
        for pattern in self.patterns.drop_unused() {
            self.record(key(KEY_PATTERN, &[self.id.as_str(), &pattern]), None);
        }
    }

    /// The records that end the group.
    pub(in crate::broker::group) fn end(&mut self) -> Vec<GroupRecord> {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in &ids {
            self.take_out(id);
            self.record_gone(id);
        }
        self.drop_patterns();
        for kind in [KEY_TARGET_MADE, KEY_GROUP] {
            self.record(key(kind, &[self.id.as_str()]), None);
        }
        std::mem::take(&mut self.records)
    }
}

/// A consumer group being read back.
#[derive(Debug, Default)]
pub(in crate::broker::group) struct ConsumerReplay {
    group: Option<ConsumerGroupMetadataValue>,
    members: BTreeMap<String, ConsumerGroupMemberMetadataValue>,
    target_made: Option<ConsumerGroupTargetAssignmentMetadataValue>,
    targets: BTreeMap<String, ConsumerGroupTargetAssignmentMemberValue>,
    standings: BTreeMap<String, ConsumerGroupCurrentMemberAssignmentValue>,
    patterns: BTreeMap<String, ConsumerGroupRegularExpressionValue>,
}

fn set<T>(map: &mut BTreeMap<String, T>, key: String, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

impl ConsumerReplay {
    /// Takes the next record.
    pub(in crate::broker::group) fn take(&mut self, entry: ConsumerEntry) {
        match entry {
            ConsumerEntry::Group(value) => self.group = value,
            ConsumerEntry::TargetMade(value) => self.target_made = value,
            ConsumerEntry::Member(id, value) => set(&mut self.members, id, value),
            ConsumerEntry::Target(id, value) => set(&mut self.targets, id, value),
            ConsumerEntry::Standing(id, value) => set(&mut self.standings, id, value),
            ConsumerEntry::Pattern(pattern, value) => set(&mut self.patterns, pattern, value),
        }
    }

    /// The group as of `now`, or `None` where there is none.
    pub(in crate::broker::group) fn finish(
        mut self,
        id: GroupId,
        config: ConsumerConfig,
        max_size: usize,
        now: Timestamp,
    ) -> Option<ConsumerGroup> {
        let stored = self.group?;
        let mut group = ConsumerGroup::new(id, config, max_size);
        group.epoch = stored.epoch;
        group.metadata_hash = stored.metadata_hash;
        if let Some(made) = self.target_made {
            group.target_epoch = made.assignment_epoch;
            group.target_made = Timestamp(made.assignment_timestamp);
        }
        for (pattern, value) in self.patterns {
            group.patterns.restore(&pattern, value.topics.into_iter().collect());
        }
        for (id, value) in self.members {
            if let Some(target) = self.targets.remove(&id) {
                let target = target.topic_partitions.into_iter().map(|of| (of.topic_id, of.partitions.into_iter().collect()));
                group.target.insert(id.clone(), target.collect());
            }
            let mut member = read_member(id, value);
            if let Some(standing) = self.standings.remove(&member.id) {
                stand(&mut member, standing);
            }
            // What two claim, say because a record was lost, the first one keeps.
            let taken = |topic: &TopicId, partition: &i32| group.owners.contains_key(&(*topic, *partition));
            for held in [&mut member.assigned, &mut member.revoking] {
                for (topic, of) in held.iter_mut() {
                    of.retain(|partition, _| !taken(topic, partition));
                }
                held.retain(|_, of| !of.is_empty());
            }
            group.put(member);
        }
        group.drop_patterns();
        group.records.clear();
        group.begin(now);
        Some(group)
    }
}

fn read_member(id: String, value: ConsumerGroupMemberMetadataValue) -> Member {
    Member {
        instance_id: value.instance_id,
        rack_id: value.rack_id,
        client_id: value.client_id,
        client_host: value.client_host,
        names: value.subscribed_topic_names.into_iter().collect(),
        regex: value.subscribed_topic_regex,
        assignor: value.server_assignor,
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        classic: value.classic_member_metadata.map(|classic| Classic {
            session_timeout_ms: classic.session_timeout_ms,
            protocols: classic.supported_protocols.into_iter().map(|p| (p.name, p.metadata)).collect(),
        }),
        ..Member::new(id)
    }
}

fn stand(member: &mut Member, standing: ConsumerGroupCurrentMemberAssignmentValue) {
    member.epoch = standing.member_epoch;
    member.previous_epoch = standing.previous_member_epoch;
    member.stage = match standing.state {
        1 => Stage::Unrevoked,
        2 => Stage::Unreleased,
        _ => Stage::Stable,
    };
    member.assigned = held(standing.assigned_partitions, member.epoch);
    member.revoking = held(standing.partitions_pending_revocation, member.epoch);
    // A partition cannot be both.
    for (topic, of) in &member.assigned {
        if let Some(revoking) = member.revoking.get_mut(topic) {
            revoking.retain(|partition, _| !of.contains_key(partition));
        }
    }
    member.revoking.retain(|_, of| !of.is_empty());
}
