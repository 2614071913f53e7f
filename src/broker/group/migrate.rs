//! From one type of group to the other: an empty group becomes what its first member asks for, and a running one of
//! consumers moves without losing its members or its offsets (KIP-848's online migration).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::consumer::{Beat, BeatRefusal, BeatReply, ConsumerConfig, ConsumerGroup, MemberTerms, TakenOver, Topics};
use super::machine::{Group, Phase};
use super::member::Member;
use super::message::{Effect, JoinReply, JoinRequest, SyncReply, Token};
use super::stored_classic::group_tombstone;
use super::subscription::{CONSUMER, read_assignment, read_subscription, write_assignment};
use crate::time::Timestamp;
use crate::wire::error_code;

impl Group {
    /// Takes over what is set for groups of KIP-848.
    pub fn set_consumer_config(&mut self, config: ConsumerConfig) {
        self.config.consumer = config;
        if let Some(consumer) = &mut self.consumer {
            consumer.set_config(config);
        }
    }

    /// A member of KIP-848 says that it lives. [`Beat::check`] has passed.
    pub fn consumer_heartbeat(
        &mut self,
        now: Timestamp,
        beat: &Beat,
        topics: &dyn Topics,
    ) -> (Result<BeatReply, BeatRefusal>, Vec<Effect>) {
        let reply = self.beat(now, beat, topics);
        self.downgrade(now, topics);
        (reply, self.take_effects())
    }

    fn beat(&mut self, now: Timestamp, beat: &Beat, topics: &dyn Topics) -> Result<BeatReply, BeatRefusal> {
        if let Some(consumer) = &mut self.consumer {
            return consumer.heartbeat(now, beat, topics);
        }
        let not_found = |why| BeatRefusal { code: error_code::GROUP_ID_NOT_FOUND, why };
        if matches!(self.phase, Phase::Dead) || (self.is_unused() && beat.epoch != 0) {
            let which = if beat.epoch < 0 { "Group" } else { "Consumer group" };
            return Err(not_found(format!("{which} {} not found.", self.id)));
        }
        if beat.epoch != 0 {
            return Err(not_found(format!("Group {} is not a consumer group.", self.id)));
        }
        let mut consumer = ConsumerGroup::new(self.id.clone(), self.config.consumer, self.config.max_size);
        if self.members.is_empty() {
            consumer.begin_new();
        } else {
            let members = self.members_to_upgrade().map_err(not_found)?;
            consumer.begin_from(self.generation);
            for member in &members {
                consumer.take_over(now, member, topics);
            }
        }
        // Only now that nothing stands in the way is the group another one.
        let reply = consumer.heartbeat(now, beat, topics)?;
        if self.protocol_type.is_some() {
            self.effects.push(Effect::Store(group_tombstone(&self.id)));
        }
        self.forget_classic(now);
        self.consumer = Some(Box::new(consumer));
        Ok(reply)
    }

    /// The members of a running classic group, where it is one of consumers.
    fn members_to_upgrade(&self) -> Result<Vec<TakenOver>, String> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return Err(format!(
                "Cannot upgrade classic group {} to consumer group because the group does not use the consumer embedded protocol.",
                self.id
            ));
        }
        let one = |member: &Member| {
            let mut protocols = member.protocols.clone();
            // The one in use comes first: by it the member is understood.
            if let Some(at) = self.protocol.as_ref().and_then(|name| protocols.iter().position(|(known, _)| known == name)) {
                protocols.swap(0, at);
            }
            protocols.first().and_then(|(_, metadata)| read_subscription(metadata))?;
            let partitions = if member.assignment.is_empty() { Vec::new() } else { read_assignment(&member.assignment)? };
            let join = MemberTerms {
                member_id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                protocols,
                session_timeout_ms: i32::try_from(member.session_timeout_ms).unwrap_or(i32::MAX),
                rebalance_timeout_ms: i32::try_from(member.rebalance_timeout_ms).unwrap_or(i32::MAX),
            };
            Some(TakenOver { join, partitions })
        };
        let all: Option<Vec<_>> = self.members.values().map(one).collect();
        all.ok_or_else(|| {
            format!("Cannot upgrade classic group {} to consumer group because the embedded consumer protocol is malformed.", self.id)
        })
    }

    /// Takes everything classic out of the group; who waits is told to try again.
    fn forget_classic(&mut self, now: Timestamp) {
        let waiting: Vec<(Option<Token>, Option<Token>, String)> =
            self.members.values_mut().map(|m| (m.join.take(), m.sync.take(), m.id.clone())).collect();
        for (join, sync, id) in waiting {
            if let Some(token) = join {
                self.effects.push(Effect::Join(token, JoinReply::refused(error_code::REBALANCE_IN_PROGRESS, &id)));
            }
            if let Some(token) = sync {
                self.effects.push(Effect::Sync(token, SyncReply::refused(error_code::REBALANCE_IN_PROGRESS)));
            }
        }
        self.phase = Phase::Empty { since: now };
        self.generation = 0;
        self.protocol_type = None;
        self.protocol = None;
        self.leader = None;
        self.members.clear();
        self.statics.clear();
        self.pending.clear();
        self.sync_deadline = None;
    }

    /// A classic member joins a group of KIP-848; `None` where the group is, or has just become, classic.
    pub(super) fn join_consumer(&mut self, now: Timestamp, request: &JoinRequest, topics: &dyn Topics) -> Option<JoinReply> {
        self.consumer.as_ref()?;
        if let Err(error) = self.check_join(request) {
            return Some(JoinReply::refused(error, &request.member_id));
        }
        let consumer = self.consumer.as_mut()?;
        if consumer.is_empty() {
            let records = consumer.end();
            self.effects.extend(records.into_iter().map(Effect::Store));
            self.consumer = None;
            return None;
        }
        let reply = consumer.classic_join(now, request, topics);
        self.downgrade(now, topics);
        Some(reply)
    }

    /// Once nobody in it speaks the newer protocol any more, the group goes on as a classic one: its members keep
    /// what they have and are told to join.
    pub(super) fn downgrade(&mut self, now: Timestamp, topics: &dyn Topics) {
        let Some(mut consumer) = self.consumer.take_if(|consumer| consumer.is_all_classic()) else { return };
        let members = consumer.hand_over(topics);
        let epoch = consumer.epoch();
        self.effects.extend(consumer.take_effects());
        self.effects.extend(consumer.end().into_iter().map(Effect::Store));
        self.generation = epoch;
        self.protocol_type = Some(CONSUMER.to_owned());
        self.members = BTreeMap::new();
        for TakenOver { join, partitions } in members {
            if let Some(name) = &join.instance_id {
                self.statics.insert(name.clone(), join.member_id.clone());
            }
            let metadata = join.protocols.first().map(|(_, metadata)| metadata.clone()).unwrap_or_default();
            let mut member = Member {
                id: join.member_id.clone(),
                instance_id: join.instance_id,
                client_id: join.client_id,
                client_host: join.client_host,
                session_timeout_ms: join.session_timeout_ms.into(),
                rebalance_timeout_ms: i64::from(join.rebalance_timeout_ms).max(1),
                protocols: join.protocols,
                assignment: Bytes::from(write_assignment(&metadata, &partitions)),
                join: None,
                sync: None,
                owes_sync: false,
                is_new: false,
                deadline: now,
            };
            member.touch(now);
            self.members.insert(join.member_id, member);
        }
        self.leader = self.members.keys().next().cloned();
        self.protocol = Some(self.vote());
        // Without members: what they have may not be what they should, so that after a crash, too, they have to join.
        self.store_group(None);
        self.phase = Phase::Stable;
        self.prepare(now);
    }

    /// Takes over what was read back of a group of KIP-848.
    pub(super) fn restore_consumer(&mut self, consumer: Option<ConsumerGroup>) {
        self.consumer = consumer.map(Box::new);
    }
}
