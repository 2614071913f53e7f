//! [`Group`]: what its members may ask for, and what passes by time alone.
//!
//! Here are the requests (join, sync, heartbeat, leave) and the checks before them; how a rebalance
//! begins and ends is in `rebalance`, offsets in `commit`, what operators ask in `admin`.

use std::collections::BTreeMap;

use super::GroupConfig;
use super::commit::Offsets;
use super::consumer::{ConsumerGroup, Topics};
use super::member::Member;
use super::message::{
    Effect, GroupId, GroupKind, GroupState, HeartbeatRequest, JoinReply, JoinRequest, LeaveReply, Leaving, SyncReply, SyncRequest, Token,
};
use super::stored_classic::StoredGroup;
use crate::time::Timestamp;
use crate::wire::error_code;

/// The longest part of a client's own naming that goes into the member id we make of it.
const MEMBER_ID_PREFIX_BYTES: usize = 256;

/// Where the group stands, with what only that state knows.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Empty {
        since: Timestamp,
    },
    Preparing {
        deadline: Timestamp,
        /// While an empty group waits for its first members to gather.
        gathering: Option<Gathering>,
    },
    Completing,
    Stable,
    Dead,
}

/// How long an empty group may still wait for its first members.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathering {
    pub(super) left_ms: i64,
    /// Whether another member came since the wait began, which prolongs it.
    pub(super) another_came: bool,
}

/// One group and its members, generation and offsets.
#[derive(Debug)]
pub struct Group {
    pub(super) id: GroupId,
    pub(super) config: GroupConfig,
    pub(super) phase: Phase,
    pub(super) generation: i32,
    /// What its members are; kept while the group is empty. `None` where nobody ever joined.
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// The member id of each static member's name.
    pub(super) statics: BTreeMap<String, String>,
    /// Ids we gave out and wait to see again, each until a deadline.
    pub(super) pending: BTreeMap<String, Timestamp>,
    /// Until when all members of the generation must have asked for their assignment.
    pub(super) sync_deadline: Option<Timestamp>,
    pub(super) offsets: Offsets,
    /// What it is while it is not classic; then its phase is `Empty`, and it has no classic members.
    pub(super) consumer: Option<Box<ConsumerGroup>>,
    /// A request made it that was more than a question: it is there, if empty, until the next time groups are looked
    /// through for what is too old.
    pub(super) is_made: bool,
    pub(super) effects: Vec<Effect>,
}

/// Why a join was refused, and the id that goes with it.
struct Refusal {
    error: i16,
    member_id: String,
}

impl Group {
    /// A group that nobody is in, as of `now`.
    #[must_use]
    pub fn new(id: GroupId, config: GroupConfig, now: Timestamp) -> Self {
        Self {
            id,
            config,
            phase: Phase::Empty { since: now },
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            sync_deadline: None,
            offsets: Offsets::default(),
            consumer: None,
            is_made: false,
            effects: Vec::new(),
        }
    }

    /// A group as it was stored: its members go on, each with a session from `now` to be heard of. Where it has none,
    /// its offsets' time counts from when it became empty.
    #[must_use]
    pub fn restored(id: GroupId, config: GroupConfig, now: Timestamp, stored: StoredGroup) -> Self {
        let mut group = Self::new(id, config, stored.empty_since.unwrap_or(now));
        group.generation = stored.generation.max(0);
        group.protocol_type = Some(stored.protocol_type).filter(|name| !name.is_empty());
        group.restore_members(now, stored.protocol, stored.leader, stored.members);
        group
    }

    /// The group's name.
    #[must_use]
    pub const fn id(&self) -> &GroupId {
        &self.id
    }

    /// Where the group stands.
    #[must_use]
    pub fn state(&self) -> GroupState {
        if let Some(consumer) = &self.consumer {
            return consumer.state();
        }
        match self.phase {
            Phase::Empty { .. } => GroupState::Empty,
            Phase::Preparing { .. } => GroupState::PreparingRebalance,
            Phase::Completing => GroupState::CompletingRebalance,
            Phase::Stable => GroupState::Stable,
            Phase::Dead => GroupState::Dead,
        }
    }

    /// The current generation; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> i32 {
        self.consumer.as_ref().map_or(self.generation, |consumer| consumer.epoch())
    }

    /// By which protocol it lives.
    #[must_use]
    pub const fn kind(&self) -> GroupKind {
        if self.consumer.is_some() { GroupKind::Consumer } else { GroupKind::Classic }
    }

    /// A member asks to be in the next generation. The reply comes now or as a later call's effect.
    pub fn join(&mut self, now: Timestamp, request: &JoinRequest, topics: &dyn Topics) -> Vec<Effect> {
        if let Some(reply) = self.join_consumer(now, request, topics) {
            let mut effects = self.take_effects();
            effects.push(Effect::Join(request.token, reply));
            return effects;
        }
        if let Err(Refusal { error, member_id }) = self.try_join(now, request) {
            self.effects.push(Effect::Join(request.token, JoinReply::refused(error, &member_id)));
        }
        self.take_effects()
    }

    fn try_join(&mut self, now: Timestamp, request: &JoinRequest) -> Result<(), Refusal> {
        let refuse = |error| Err(Refusal { error, member_id: request.member_id.clone() });
        if let Err(error) = self.check_join(request) {
            return refuse(error);
        }
        if matches!(self.phase, Phase::Dead) {
            return refuse(error_code::COORDINATOR_NOT_AVAILABLE);
        }
        if request.member_id.is_empty() {
            self.is_made = true;
        } else if self.is_unused() {
            return refuse(error_code::UNKNOWN_MEMBER_ID);
        }
        // What we echo has to fit the shortest text type of any version.
        let fits = |text: &str| i16::try_from(text.len()).is_ok();
        if !request.instance_id.as_deref().is_none_or(fits) {
            return refuse(error_code::INVALID_REQUEST);
        }
        let names_fit = fits(&request.protocol_type) && request.protocols.iter().all(|(name, _)| fits(name));
        if !names_fit || !self.can_agree_with(request) {
            return refuse(error_code::INCONSISTENT_GROUP_PROTOCOL);
        }
        if request.member_id.is_empty() {
            return self.join_without_id(now, request);
        }
        let id = request.member_id.as_str();
        if self.pending.contains_key(id) {
            if request.instance_id.is_some() {
                // Static members are never sent away for an id, so nobody can have this one.
                return refuse(error_code::UNKNOWN_MEMBER_ID);
            }
            if self.members.len() >= self.config.max_size {
                return refuse(error_code::GROUP_MAX_SIZE_REACHED);
            }
            self.pending.remove(id);
            self.add_member(now, id.to_owned(), request);
            return Ok(());
        }
        if let Err(error) = self.check_member(id, request.instance_id.as_deref()) {
            return refuse(error);
        }
        let unchanged = self.members.get(id).is_some_and(|member| member.matches(&request.protocols));
        let leads = self.leader.as_deref() == Some(id);
        match self.phase {
            Phase::Preparing { .. } => self.update_member(now, id, request),
            // It may have missed the reply to its join: it gets it again.
            Phase::Completing if unchanged => self.answer_with_current(now, id, request.token),
            // A leader that joins again asks for a new assignment, say because the partitions have changed.
            Phase::Stable if unchanged && !leads => self.answer_with_current(now, id, request.token),
            Phase::Completing | Phase::Stable => self.update_member(now, id, request),
            Phase::Empty { .. } | Phase::Dead => return refuse(error_code::UNKNOWN_MEMBER_ID),
        }
        Ok(())
    }

    /// What a group of either type asks of whoever joins.
    pub(super) fn check_join(&self, request: &JoinRequest) -> Result<(), i16> {
        if self.id.as_str().is_empty() {
            return Err(error_code::INVALID_GROUP_ID);
        }
        let allowed = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if allowed.contains(&request.session_timeout_ms) { Ok(()) } else { Err(error_code::INVALID_SESSION_TIMEOUT) }
    }

    fn join_without_id(&mut self, now: Timestamp, request: &JoinRequest) -> Result<(), Refusal> {
        let naming = request.instance_id.as_deref().unwrap_or(&request.client_id);
        let id = format!("{}-{}", &naming[..naming.floor_char_boundary(MEMBER_ID_PREFIX_BYTES)], request.nonce);
        if let Some(old) = request.instance_id.as_ref().and_then(|name| self.statics.get(name)).cloned() {
            self.replace_static(now, &old, &id, request);
            return Ok(());
        }
        if self.members.len() + self.pending.len() >= self.config.max_size {
            return Err(Refusal { error: error_code::GROUP_MAX_SIZE_REACHED, member_id: String::new() });
        }
        if request.instance_id.is_none() && request.require_known_member_id {
            self.pending.insert(id.clone(), now.plus(i64::from(request.session_timeout_ms)));
            return Err(Refusal { error: error_code::MEMBER_ID_REQUIRED, member_id: id });
        }
        self.add_member(now, id, request);
        Ok(())
    }

    /// Whether the request names a way of assigning that all members know as they are, the one that asks included.
    fn can_agree_with(&self, request: &JoinRequest) -> bool {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        self.protocol_type.as_deref() == Some(&request.protocol_type)
            && request.protocols.iter().any(|(name, _)| self.members.values().all(|m| m.supports(name)))
    }

    /// Whether there is such a member, and it is not an older instance of a static one.
    pub(super) fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), i16> {
        match instance_id {
            Some(name) => match self.statics.get(name) {
                None => Err(error_code::UNKNOWN_MEMBER_ID),
                Some(current) if current != member_id => Err(error_code::FENCED_INSTANCE_ID),
                Some(_) => Ok(()),
            },
            None if self.members.contains_key(member_id) => Ok(()),
            None => Err(error_code::UNKNOWN_MEMBER_ID),
        }
    }

    /// [`Self::check_member`], and it is in the current generation.
    pub(super) fn check_generation(&self, member_id: &str, instance_id: Option<&str>, generation: i32) -> Result<(), i16> {
        if matches!(self.phase, Phase::Dead) {
            return Err(error_code::COORDINATOR_NOT_AVAILABLE);
        }
        self.check_member(member_id, instance_id)?;
        if generation == self.generation { Ok(()) } else { Err(error_code::ILLEGAL_GENERATION) }
    }

    /// A member asks for its assignment. The reply comes now or as a later call's effect.
    pub fn sync(&mut self, now: Timestamp, request: &SyncRequest, topics: &dyn Topics) -> Vec<Effect> {
        if let Some(consumer) = &mut self.consumer {
            let reply = consumer.sync(now, request, topics).unwrap_or_else(SyncReply::refused);
            let mut effects = self.take_effects();
            effects.push(Effect::Sync(request.token, reply));
            return effects;
        }
        if let Err(error) = self.try_sync(now, request) {
            self.effects.push(Effect::Sync(request.token, SyncReply::refused(error)));
        }
        self.take_effects()
    }

    fn try_sync(&mut self, now: Timestamp, request: &SyncRequest) -> Result<(), i16> {
        self.check_generation(&request.member_id, request.instance_id.as_deref(), request.generation)?;
        let differs = |asked: &Option<String>, ours: &Option<String>| asked.is_some() && asked != ours;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Err(error_code::INCONSISTENT_GROUP_PROTOCOL);
        }
        match self.phase {
            Phase::Empty { .. } | Phase::Dead => Err(error_code::UNKNOWN_MEMBER_ID),
            Phase::Preparing { .. } => Err(error_code::REBALANCE_IN_PROGRESS),
            Phase::Completing => {
                let leads = self.leader.as_deref() == Some(&request.member_id);
                let member = self.members.get_mut(&request.member_id).expect("the member was checked");
                if let Some(earlier) = member.sync.replace(request.token) {
                    self.effects.push(Effect::Sync(earlier, SyncReply::refused(error_code::REBALANCE_IN_PROGRESS)));
                }
                member.owes_sync = false;
                if leads {
                    self.assign(now, &request.assignments);
                }
                Ok(())
            }
            Phase::Stable => {
                let member = self.members.get_mut(&request.member_id).expect("the member was checked");
                member.owes_sync = false;
                member.touch(now);
                let assignment = member.assignment.clone();
                self.end_sync_wait_if_all_did();
                let reply = self.sync_reply(assignment);
                self.effects.push(Effect::Sync(request.token, reply));
                Ok(())
            }
        }
    }

    /// A member says that it lives. Returns the error to answer with, 0 where all is well.
    pub fn heartbeat(&mut self, now: Timestamp, request: &HeartbeatRequest) -> i16 {
        if let Some(consumer) = &mut self.consumer {
            return consumer.classic_heartbeat(now, request);
        }
        if let Err(error) = self.check_generation(&request.member_id, request.instance_id.as_deref(), request.generation) {
            return error;
        }
        let member = self.members.get_mut(&request.member_id).expect("the member was checked");
        if !member.is_new {
            member.touch(now);
        }
        match self.phase {
            Phase::Empty { .. } | Phase::Dead => error_code::UNKNOWN_MEMBER_ID,
            Phase::Preparing { .. } => error_code::REBALANCE_IN_PROGRESS,
            // It has its generation and may beat while it waits for the assignment.
            Phase::Completing | Phase::Stable => error_code::NONE,
        }
    }

    /// Members leave, or are removed by name.
    pub fn leave(&mut self, now: Timestamp, leaving: Vec<Leaving>, topics: &dyn Topics) -> (LeaveReply, Vec<Effect>) {
        if matches!(self.phase, Phase::Dead) {
            return (LeaveReply { error: error_code::COORDINATOR_NOT_AVAILABLE, members: Vec::new() }, Vec::new());
        }
        if let Some(consumer) = &mut self.consumer {
            let members = consumer.classic_leave(leaving, topics);
            self.downgrade(now, topics);
            return (LeaveReply { error: error_code::NONE, members }, self.take_effects());
        }
        let mut members = Vec::with_capacity(leaving.len());
        for one in leaving {
            let error = self.leave_one(&one).err().unwrap_or(error_code::NONE);
            members.push((one, error));
        }
        // All of them first, so that the rest rebalances once. As in Kafka it does so, too, for an id that was only given
        // out.
        self.after_removal(now, members.iter().any(|(_, error)| *error == error_code::NONE));
        (LeaveReply { error: error_code::NONE, members }, self.take_effects())
    }

    fn leave_one(&mut self, leaving: &Leaving) -> Result<(), i16> {
        let instance = leaving.instance_id.as_deref();
        if leaving.member_id.is_empty() {
            let id = instance.and_then(|name| self.statics.get(name)).cloned().ok_or(error_code::UNKNOWN_MEMBER_ID)?;
            self.drop_member(&id);
            return Ok(());
        }
        if self.pending.remove(&leaving.member_id).is_some() {
            return Ok(());
        }
        self.check_member(&leaving.member_id, instance)?;
        self.drop_member(&leaving.member_id);
        Ok(())
    }

    /// When [`Group::tick`] has something to do next, if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let phase = match self.phase {
            Phase::Preparing { deadline, .. } => Some(deadline),
            _ => None,
        };
        let members = self.members.values().filter_map(Member::expires);
        let consumer = self.consumer.as_ref().and_then(|consumer| consumer.next_deadline());
        members.chain(self.pending.values().copied()).chain(phase).chain(self.sync_deadline).chain(consumer).min()
    }

    /// Lets time pass: gives up whoever was silent too long and ends what waited long enough.
    pub fn tick(&mut self, now: Timestamp, topics: &dyn Topics) -> Vec<Effect> {
        if let Some(consumer) = &mut self.consumer {
            consumer.tick(now, topics);
            self.downgrade(now, topics);
            return self.take_effects();
        }
        let silent: Vec<_> =
            self.members.values().filter(|m| m.expires().is_some_and(|deadline| deadline <= now)).map(|m| m.id.clone()).collect();
        let pending_before = self.pending.len();
        self.pending.retain(|_, deadline| *deadline > now);
        for id in &silent {
            self.drop_member(id);
        }
        if !silent.is_empty() || self.pending.len() < pending_before {
            self.after_removal(now, !silent.is_empty());
        }
        if let Phase::Preparing { deadline, .. } = self.phase
            && deadline <= now
        {
            self.preparing_ran_out(now);
        }
        if self.sync_deadline.is_some_and(|deadline| deadline <= now) {
            self.syncing_ran_out(now);
        }
        self.take_effects()
    }

    /// Ends the group: every waiter is told, and whoever still holds it looks it up again.
    pub(super) fn die(&mut self) {
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            self.drop_member(&id);
        }
        self.pending.clear();
        self.phase = Phase::Dead;
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.effects);
        if let Some(consumer) = &mut self.consumer {
            effects.extend(consumer.take_effects());
        }
        effects
    }

    /// Answers the join of a member that is in the current generation already.
    fn answer_with_current(&mut self, now: Timestamp, id: &str, token: Token) {
        let member = self.members.get_mut(id).expect("the member was checked");
        member.touch(now);
        // The leader may have missed the list of members, which it needs while it owes the assignment.
        let with_members = matches!(self.phase, Phase::Completing) && self.leader.as_deref() == Some(id);
        let reply = self.join_reply(id, with_members);
        self.effects.push(Effect::Join(token, reply));
    }
}
