//! Members that speak the classic protocol in a group of KIP-848, so that a service can move from one to the other
//! one instance at a time.
//!
//! Such a member is assigned as all others are. It learns of a new target by REBALANCE_IN_PROGRESS, joins again,
//! says by its metadata what it has, and fetches its partitions by SyncGroup; nobody is the leader, and nobody
//! waits. Called through [`Group`](super::super::Group).

use bytes::Bytes;

use super::ConsumerGroup;
use super::member::{Classic, Member, Stage};
use super::message::{OwnedPartitions, Topics};
use super::reconcile::Step;
use crate::broker::group::message::{HeartbeatRequest, JoinReply, JoinRequest, Leaving, SyncReply, SyncRequest};
use crate::broker::group::subscription::{CONSUMER, NamedPartitions, read_subscription, write_assignment};
use crate::time::Timestamp;
use crate::wire::error_code;

impl ConsumerGroup {
    /// A classic member joins, or joins again.
    pub(in crate::broker::group) fn classic_join(&mut self, now: Timestamp, request: &JoinRequest, topics: &dyn Topics) -> JoinReply {
        // Unlike a classic group, this one does not say the id again when it refuses.
        let refuse = |error| JoinReply::refused(error, "");
        let is_new = request.member_id.is_empty();
        if self.members.len() >= self.max_size && !self.members.contains_key(&request.member_id) {
            return refuse(error_code::GROUP_MAX_SIZE_REACHED);
        }
        if !self.can_agree_with(request) {
            return refuse(error_code::INCONSISTENT_GROUP_PROTOCOL);
        }
        let id = if is_new { request.nonce.clone() } else { request.member_id.clone() };
        if is_new && request.require_known_member_id && request.instance_id.is_none() {
            return JoinReply::refused(error_code::MEMBER_ID_REQUIRED, &id);
        }
        let Some(subscription) = request.protocols.first().and_then(|(_, metadata)| read_subscription(metadata)) else {
            return refuse(error_code::INCONSISTENT_GROUP_PROTOCOL);
        };
        let before = match &request.instance_id {
            None => self.members.get(&id).cloned().unwrap_or_else(|| Member::new(id.clone())),
            Some(name) => match self.statics.get(name).and_then(|current| self.members.get(current)).cloned() {
                Some(current) if is_new => {
                    let member = Member {
                        id: id.clone(),
                        epoch: self.target_epoch,
                        previous_epoch: 0,
                        session_ends: None,
                        rebalance_ends: None,
                        ..current.clone()
                    };
                    self.replace(&current, &member);
                    member
                }
                Some(current) if current.id == id => current,
                Some(_) => return refuse(error_code::FENCED_INSTANCE_ID),
                None if is_new => Member::new(id.clone()),
                None => return refuse(error_code::UNKNOWN_MEMBER_ID),
            },
        };
        let mut member = before.clone();
        member.instance_id.clone_from(&request.instance_id);
        if subscription.rack_id.is_some() {
            member.rack_id = subscription.rack_id;
        }
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.names = subscription.topics.into_iter().collect();
        member.regex = None;
        member.client_id.clone_from(&request.client_id);
        member.client_host.clone_from(&request.client_host);
        member.classic = Some(Classic {
            session_timeout_ms: request.session_timeout_ms,
            // Copied, because a slice would keep the whole request frame in memory.
            protocols: request.protocols.iter().map(|(name, data)| (name.clone(), Bytes::copy_from_slice(data))).collect(),
        });
        if !member.says_the_same(&before) || !self.members.contains_key(&id) {
            self.record_member(&member);
        }
        let subscription_changed = member.names != before.names || member.pattern() != before.pattern();
        self.put(member);
        if subscription_changed {
            self.drop_patterns();
        }
        self.look_at_topics(now, subscription_changed, topics);
        self.make_target(now, topics);
        let owned = by_id(&subscription.owned, topics);
        let step = Step { now, topics, owned: Some(&owned), subscription_changed };
        let mut after = self.reconcile(&self.members[&id], &step);
        if !after.stands_the_same(&before) {
            self.record_standing(&after);
        }
        after.touch(now, &self.config);
        after.rebalance_ends = None;
        after.sync_ends = Some(now.plus(request.rebalance_timeout_ms.max(0).into()));
        let reply = JoinReply {
            error: error_code::NONE,
            generation: after.epoch,
            protocol_type: Some(CONSUMER.to_owned()),
            protocol: request.protocols.first().map(|(name, _)| name.clone()),
            leader: String::new(),
            skip_assignment: false,
            member_id: id,
            members: Vec::new(),
        };
        self.put(after);
        reply
    }

    /// Whether the other classic members know one of the ways of assigning that a joining member knows.
    fn can_agree_with(&self, request: &JoinRequest) -> bool {
        let others = || self.members.values().filter(|member| member.id != request.member_id).filter_map(|member| member.classic.as_ref());
        let knows = |classic: &Classic, name: &str| classic.protocols.iter().any(|(known, _)| known == name);
        request.protocol_type == CONSUMER && request.protocols.iter().any(|(name, _)| others().all(|classic| knows(classic, name)))
    }

    /// A classic member asks for its partitions.
    pub(in crate::broker::group) fn sync(&mut self, now: Timestamp, request: &SyncRequest, topics: &dyn Topics) -> Result<SyncReply, i16> {
        let mut member = self.classic_member(&request.member_id, request.instance_id.as_deref(), request.generation)?.clone();
        let (name, metadata) = member.classic.iter().flat_map(|classic| &classic.protocols).next().cloned().unwrap_or_default();
        let differs = |asked: &Option<String>, ours: &str| asked.as_ref().is_some_and(|asked| asked != ours);
        if differs(&request.protocol_type, CONSUMER) || differs(&request.protocol, &name) {
            return Err(error_code::INCONSISTENT_GROUP_PROTOCOL);
        }
        if self.target_epoch > member.epoch && member.stage != Stage::Unrevoked {
            self.expect_join(now, member);
            return Err(error_code::REBALANCE_IN_PROGRESS);
        }
        let named = |(topic, of): (&crate::record::TopicId, &std::collections::BTreeMap<i32, i32>)| {
            Some((topics.name_of(*topic)?, of.keys().copied().collect()))
        };
        let partitions: NamedPartitions = member.assigned.iter().filter_map(named).collect();
        member.sync_ends = None;
        member.touch(now, &self.config);
        self.put(member);
        Ok(SyncReply {
            error: error_code::NONE,
            protocol_type: Some(CONSUMER.to_owned()),
            protocol: Some(name),
            assignment: write_assignment(&metadata, &partitions).into(),
        })
    }

    /// A classic member says that it lives; it is told to join again where it should have something else.
    pub(in crate::broker::group) fn classic_heartbeat(&mut self, now: Timestamp, request: &HeartbeatRequest) -> i16 {
        let mut member = match self.classic_member(&request.member_id, request.instance_id.as_deref(), request.generation) {
            Ok(member) => member.clone(),
            Err(error) => return error,
        };
        member.touch(now, &self.config);
        let is_behind = match member.stage {
            Stage::Stable => member.epoch < self.target_epoch,
            Stage::Unrevoked => true,
            Stage::Unreleased => member.epoch < self.target_epoch || !self.waits_for_others(&member),
        };
        if is_behind {
            self.expect_join(now, member);
            return error_code::REBALANCE_IN_PROGRESS;
        }
        self.put(member);
        error_code::NONE
    }

    /// The member has to join again within its rebalance timeout.
    fn expect_join(&mut self, now: Timestamp, mut member: Member) {
        let ends = now.plus(member.rebalance_timeout_ms.max(0).into());
        member.rebalance_ends.get_or_insert(ends);
        self.put(member);
    }

    /// Whether another member still has something that this one should have.
    fn waits_for_others(&self, member: &Member) -> bool {
        let target = self.target.get(&member.id).into_iter().flatten();
        let mut places = target.flat_map(|(topic, of)| of.iter().map(|partition| (*topic, *partition)));
        places.any(|place| self.owners.get(&place).is_some_and(|owner| *owner != member.id))
    }

    fn classic_member(&self, id: &str, instance_id: Option<&str>, generation: i32) -> Result<&Member, i16> {
        let member = self.member_for_classic(id, instance_id)?;
        if member.classic.is_none() {
            return Err(error_code::UNKNOWN_MEMBER_ID);
        }
        if member.epoch == generation { Ok(member) } else { Err(error_code::ILLEGAL_GENERATION) }
    }

    fn member_for_classic(&self, id: &str, instance_id: Option<&str>) -> Result<&Member, i16> {
        let Some(name) = instance_id else { return self.members.get(id).ok_or(error_code::UNKNOWN_MEMBER_ID) };
        match self.statics.get(name).and_then(|current| self.members.get(current)) {
            None => Err(error_code::UNKNOWN_MEMBER_ID),
            Some(member) if member.id != id => Err(error_code::FENCED_INSTANCE_ID),
            Some(member) => Ok(member),
        }
    }

    /// Members leave, or are removed by their ids or names, whichever protocol they speak.
    pub(in crate::broker::group) fn classic_leave(&mut self, leaving: Vec<Leaving>, topics: &dyn Topics) -> Vec<(Leaving, i16)> {
        let mut gone = Vec::new();
        let mut answers = Vec::with_capacity(leaving.len());
        for one in leaving {
            let found = if one.member_id.is_empty() {
                one.instance_id.as_ref().and_then(|name| self.statics.get(name)).cloned().ok_or(error_code::UNKNOWN_MEMBER_ID)
            } else {
                self.member_for_classic(&one.member_id, one.instance_id.as_deref()).map(|member| member.id.clone())
            };
            let error = found.map(|id| gone.push(id)).err().unwrap_or(error_code::NONE);
            answers.push((one, error));
        }
        // All of them first, so that the rest is assigned once.
        self.fence(&gone, topics);
        answers
    }

    /// Whether all its members speak the classic protocol.
    pub(in crate::broker::group) fn is_all_classic(&self) -> bool {
        !self.members.is_empty() && self.members.values().all(|member| member.classic.is_some())
    }

    /// A member that a classic group had, with the partitions it had there.
    pub(in crate::broker::group) fn take_over(&mut self, now: Timestamp, from: &TakenOver, topics: &dyn Topics) {
        let held = by_id(&from.partitions, topics);
        let mut member = Member::new(from.join.member_id.clone());
        let subscription = from.join.protocols.first().and_then(|(_, metadata)| read_subscription(metadata)).unwrap_or_default();
        member.instance_id.clone_from(&from.join.instance_id);
        member.rack_id = subscription.rack_id;
        member.client_id.clone_from(&from.join.client_id);
        member.client_host.clone_from(&from.join.client_host);
        member.names = subscription.topics.into_iter().collect();
        member.rebalance_timeout_ms = from.join.rebalance_timeout_ms;
        member.classic = Some(Classic { session_timeout_ms: from.join.session_timeout_ms, protocols: from.join.protocols.clone() });
        member.epoch = self.epoch;
        member.previous_epoch = self.epoch;
        for (topic, of) in &held {
            for partition in of.iter().filter(|partition| !self.owners.contains_key(&(*topic, **partition))) {
                member.assigned.entry(*topic).or_default().insert(*partition, self.epoch);
            }
        }
        member.touch(now, &self.config);
        self.record_member(&member);
        let target = member.assigned.iter().map(|(topic, of)| (*topic, of.keys().copied().collect())).collect();
        self.set_target(member.id.clone(), target);
        self.record_standing(&member);
        self.put(member);
    }

    /// A group that goes on from a classic one of this generation, still without its members.
    pub(in crate::broker::group) fn begin_from(&mut self, generation: i32) {
        self.epoch = generation;
        self.target_epoch = generation;
        self.record_group();
        self.record_target_made();
    }

    /// Its members as a classic group takes them over.
    pub(in crate::broker::group) fn hand_over(&self, topics: &dyn Topics) -> Vec<TakenOver> {
        let one = |member: &Member| {
            let classic = member.classic.clone()?;
            let target = self.target.get(&member.id).into_iter().flatten();
            let named = target.filter_map(|(topic, of)| Some((topics.name_of(*topic)?, of.iter().copied().collect())));
            Some(TakenOver {
                join: MemberTerms {
                    member_id: member.id.clone(),
                    instance_id: member.instance_id.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    protocols: classic.protocols,
                    session_timeout_ms: classic.session_timeout_ms,
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                },
                partitions: named.collect(),
            })
        };
        self.members.values().filter_map(one).collect()
    }
}

/// What a member said when it joined.
#[derive(Clone, Debug)]
pub(in crate::broker::group) struct MemberTerms {
    pub(in crate::broker::group) member_id: String,
    pub(in crate::broker::group) instance_id: Option<String>,
    pub(in crate::broker::group) client_id: String,
    pub(in crate::broker::group) client_host: String,
    pub(in crate::broker::group) protocols: Vec<(String, Bytes)>,
    pub(in crate::broker::group) session_timeout_ms: i32,
    pub(in crate::broker::group) rebalance_timeout_ms: i32,
}

/// A member on its way from a group of one type to one of the other.
#[derive(Clone, Debug)]
pub(in crate::broker::group) struct TakenOver {
    pub(in crate::broker::group) join: MemberTerms,
    pub(in crate::broker::group) partitions: NamedPartitions,
}

fn by_id(named: &[(String, Vec<i32>)], topics: &dyn Topics) -> OwnedPartitions {
    named.iter().filter_map(|(name, of)| Some((topics.by_name(name)?.0, of.clone()))).collect()
}
