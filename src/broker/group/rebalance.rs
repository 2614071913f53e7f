//! How a rebalance begins and ends: members gather, vote for a protocol, and the leader assigns.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::machine::{Gathering, Group, Phase};
use super::member::Member;
use super::message::{Effect, JoinReply, JoinRequest, SyncReply};
use super::stored_classic::{StoredGroup, StoredMember, group_record};
use super::subscription::{CONSUMER, subscribed_topics};
use crate::time::Timestamp;
use crate::wire::error_code;

impl Group {
    /// Takes in a member that was not there and lets it wait for the next generation.
    pub(super) fn add_member(&mut self, now: Timestamp, id: String, request: &JoinRequest) {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        if let Some(name) = &request.instance_id {
            self.statics.insert(name.clone(), id.clone());
        }
        let mut member = Member::new(id.clone(), request, now.plus(self.config.new_member_join_timeout_ms));
        member.join = Some(request.token);
        self.leader.get_or_insert_with(|| id.clone());
        self.members.insert(id, member);
        if let Phase::Preparing { gathering: Some(gathering), .. } = &mut self.phase {
            gathering.another_came = true;
        }
        self.rebalance(now);
    }

    /// A member joins again and waits for the next generation.
    pub(super) fn update_member(&mut self, now: Timestamp, id: &str, request: &JoinRequest) {
        let member = self.members.get_mut(id).expect("the member was checked");
        member.update(request);
        if !member.is_new {
            member.touch(now);
        }
        if let Some(earlier) = member.join.replace(request.token) {
            // The client has asked again, probably on a new connection; nobody may wait on the old one for ever.
            self.effects.push(Effect::Join(earlier, JoinReply::refused(error_code::REBALANCE_IN_PROGRESS, id)));
        }
        self.rebalance(now);
    }

    /// A static member came back under its name: it takes over the place and assignment of its older self,
    /// which is fenced. A stable group goes on without a rebalance, unless the vote would fall otherwise.
    pub(super) fn replace_static(&mut self, now: Timestamp, old: &str, id: &str, request: &JoinRequest) {
        let mut member = self.members.remove(old).expect("a name points to a member");
        if let Some(token) = member.join.take() {
            self.effects.push(Effect::Join(token, JoinReply::refused(error_code::FENCED_INSTANCE_ID, old)));
        }
        if let Some(token) = member.sync.take() {
            self.effects.push(Effect::Sync(token, SyncReply::refused(error_code::FENCED_INSTANCE_ID)));
        }
        id.clone_into(&mut member.id);
        member.update(request);
        if !member.is_new {
            member.touch(now);
        }
        if let Some(name) = &request.instance_id {
            self.statics.insert(name.clone(), id.to_owned());
        }
        let led = self.leader.as_deref() == Some(old);
        if led {
            self.leader = Some(id.to_owned());
        }
        self.members.insert(id.to_owned(), member);
        if matches!(self.phase, Phase::Stable) && self.protocol.as_deref() == Some(&self.vote()) {
            let mut reply = self.join_reply(id, led && request.supports_skip_assignment);
            if led && request.supports_skip_assignment {
                reply.skip_assignment = true;
            } else if led {
                // An older client must not take itself for the leader, or it would assign to nobody's benefit.
                old.clone_into(&mut reply.leader);
            }
            self.effects.push(Effect::Join(request.token, reply));
            self.store_group(None);
            return;
        }
        self.members.get_mut(id).expect("just put there").join = Some(request.token);
        // In CompletingRebalance the leader may have seen the old id already: it has to assign again.
        self.rebalance(now);
    }

    /// Removes a member and tells whoever waits in its name. The caller settles what follows.
    pub(super) fn drop_member(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(name) = &member.instance_id
            && self.statics.get(name).is_some_and(|current| current == id)
        {
            self.statics.remove(name);
        }
        if let Some(token) = member.join {
            self.effects.push(Effect::Join(token, JoinReply::refused(error_code::UNKNOWN_MEMBER_ID, "")));
        }
        if let Some(token) = member.sync {
            self.effects.push(Effect::Sync(token, SyncReply::refused(error_code::UNKNOWN_MEMBER_ID)));
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Settles what follows once members, or only ids that were given out, are gone.
    pub(super) fn after_removal(&mut self, now: Timestamp, lost_a_member: bool) {
        match self.phase {
            Phase::Preparing { .. } => self.complete_if_all_joined(now),
            Phase::Completing | Phase::Stable if lost_a_member => self.prepare(now),
            Phase::Completing | Phase::Stable | Phase::Empty { .. } | Phase::Dead => {}
        }
    }

    /// Begins a rebalance, or lets one that has begun end if this was the last member it waited for.
    fn rebalance(&mut self, now: Timestamp) {
        match self.phase {
            Phase::Preparing { .. } => self.complete_if_all_joined(now),
            Phase::Empty { .. } | Phase::Completing | Phase::Stable => self.prepare(now),
            Phase::Dead => {}
        }
    }

    pub(super) fn prepare(&mut self, now: Timestamp) {
        let was_empty = matches!(self.phase, Phase::Empty { .. });
        // An assignment that was still to come will not; what was assigned before is told until there is another.
        let never_assigned = matches!(self.phase, Phase::Completing);
        for member in self.members.values_mut() {
            member.owes_sync = false;
            if never_assigned {
                member.assignment = Bytes::new();
            }
            if let Some(token) = member.sync.take() {
                member.touch(now);
                self.effects.push(Effect::Sync(token, SyncReply::refused(error_code::REBALANCE_IN_PROGRESS)));
            }
        }
        self.sync_deadline = None;
        let longest = self.rebalance_timeout_ms();
        if was_empty {
            // From now on its offsets do not age.
            self.store_group(None);
            let delay = self.config.initial_rebalance_delay_ms;
            let gathering = Gathering { left_ms: (longest - delay).max(0), another_came: false };
            self.phase = Phase::Preparing { deadline: now.plus(delay), gathering: Some(gathering) };
            if delay <= 0 {
                self.complete(now);
            }
        } else {
            self.phase = Phase::Preparing { deadline: now.plus(longest), gathering: None };
            self.complete_if_all_joined(now);
        }
    }

    fn complete_if_all_joined(&mut self, now: Timestamp) {
        if let Phase::Preparing { gathering: None, .. } = self.phase
            && self.pending.is_empty()
            && self.members.values().all(|m| m.join.is_some())
        {
            self.complete(now);
        }
    }

    /// The wait for members has reached its deadline.
    pub(super) fn preparing_ran_out(&mut self, now: Timestamp) {
        if let Phase::Preparing { deadline, gathering: Some(gathering) } = &mut self.phase
            && gathering.another_came
            && gathering.left_ms > 0
        {
            let more = gathering.left_ms.min(self.config.initial_rebalance_delay_ms);
            gathering.left_ms -= more;
            gathering.another_came = false;
            *deadline = now.plus(more);
            return;
        }
        self.complete(now);
    }

    /// Ends the wait for members: whoever did not join is out, the rest is the next generation.
    fn complete(&mut self, now: Timestamp) {
        // A static member is given its whole session to come back.
        let late: Vec<_> = self.members.values().filter(|m| m.join.is_none() && m.instance_id.is_none()).map(|m| m.id.clone()).collect();
        for id in &late {
            self.drop_member(id);
        }
        if self.members.is_empty() {
            self.advance_generation();
            self.become_empty(now);
            return;
        }
        let leader_joined = self.leader.as_ref().and_then(|id| self.members.get(id)).is_some_and(|m| m.join.is_some());
        if !leader_joined {
            let Some(first) = self.members.values().find(|m| m.join.is_some()) else {
                // Only static members that may still come back: wait until they do or their sessions end.
                self.phase = Phase::Preparing { deadline: now.plus(self.rebalance_timeout_ms()), gathering: None };
                return;
            };
            self.leader = Some(first.id.clone());
        }
        self.advance_generation();
        self.protocol = Some(self.vote());
        self.phase = Phase::Completing;
        self.sync_deadline = Some(now.plus(self.rebalance_timeout_ms()));
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            let leads = self.leader.as_ref() == Some(&id);
            let member = self.members.get_mut(&id).expect("an id of this group");
            if let Some(token) = member.join.take() {
                member.is_new = false;
                member.owes_sync = true;
                member.touch(now);
                let reply = self.join_reply(&id, leads);
                self.effects.push(Effect::Join(token, reply));
            }
        }
    }

    fn advance_generation(&mut self) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
    }

    fn become_empty(&mut self, now: Timestamp) {
        self.protocol = None;
        self.leader = None;
        self.phase = Phase::Empty { since: now };
        self.store_group(Some(now));
    }

    /// The leader's assignment is here: whoever waits for it gets it, and so does the one who asks later.
    pub(super) fn assign(&mut self, now: Timestamp, assignments: &[(String, Bytes)]) {
        let assignments: BTreeMap<&String, &Bytes> = assignments.iter().map(|(id, assignment)| (id, assignment)).collect();
        self.phase = Phase::Stable;
        let mut waiting = Vec::new();
        for member in self.members.values_mut() {
            // Whom the leader does not name has nothing to do.
            member.assignment = assignments.get(&member.id).map(|of| Bytes::copy_from_slice(of)).unwrap_or_default();
            if let Some(token) = member.sync.take() {
                member.touch(now);
                waiting.push((token, member.assignment.clone()));
            }
        }
        for (token, assignment) in waiting {
            let reply = self.sync_reply(assignment);
            self.effects.push(Effect::Sync(token, reply));
        }
        self.end_sync_wait_if_all_did();
        self.store_group(None);
    }

    /// Once everybody has its assignment nobody is waited for.
    pub(super) fn end_sync_wait_if_all_did(&mut self) {
        if matches!(self.phase, Phase::Stable) && !self.members.values().any(|m| m.owes_sync) {
            self.sync_deadline = None;
        }
    }

    /// The wait for members to ask for their assignment has reached its deadline: who did not is out.
    pub(super) fn syncing_ran_out(&mut self, now: Timestamp) {
        self.sync_deadline = None;
        let late: Vec<_> = self.members.values().filter(|m| m.owes_sync).map(|m| m.id.clone()).collect();
        for id in &late {
            self.drop_member(id);
        }
        // Without an assignment, too: then only static members that never came back are left to wait for.
        if !late.is_empty() || matches!(self.phase, Phase::Completing) {
            self.prepare(now);
        }
    }

    /// The protocol that most members like best among those that all of them know.
    pub(super) fn vote(&self) -> String {
        let shared = |name: &str| self.members.values().all(|m| m.supports(name));
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id)).or_else(|| self.members.values().next());
        let candidates: Vec<&str> =
            leader.map(|m| m.protocols.iter().map(|(name, _)| name.as_str()).filter(|name| shared(name)).collect()).unwrap_or_default();
        let votes = |candidate: &str| {
            let choice =
                |m: &Member| m.protocols.iter().find(|(name, _)| candidates.contains(&name.as_str())).map(|(name, _)| name.clone());
            self.members.values().filter(|m| choice(m).as_deref() == Some(candidate)).count()
        };
        // Of several with the most votes the one the leader likes best, so that the choice is never chance.
        let mut best = ("", 0);
        for candidate in &candidates {
            let count = votes(candidate);
            if count > best.1 {
                best = (candidate, count);
            }
        }
        best.0.to_owned()
    }

    /// Which topics the members of a consumer group read, or `None` where that cannot be told.
    pub(super) fn subscribed(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) || self.members.is_empty() {
            return None;
        }
        let mut all = BTreeSet::new();
        for member in self.members.values() {
            // While the next protocol is not chosen, what a member says with the one it likes best: consumers say the same with each.
            let metadata = match self.protocol.as_deref() {
                Some(protocol) => member.metadata(protocol),
                None => member.protocols.first().map(|(_, data)| data.clone())?,
            };
            all.extend(subscribed_topics(&metadata)?.into_iter().map(str::to_owned));
        }
        Some(all)
    }

    fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|m| m.rebalance_timeout_ms).max().unwrap_or(1)
    }

    /// The reply to a member's join into the current generation.
    pub(super) fn join_reply(&self, member_id: &str, with_members: bool) -> JoinReply {
        let protocol = self.protocol.clone().unwrap_or_default();
        JoinReply {
            error: error_code::NONE,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            members: if with_members { self.members.values().map(|m| m.joined(&protocol)).collect() } else { Vec::new() },
            protocol: Some(protocol),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
        }
    }

    /// The reply to a member's sync in the current generation.
    pub(super) fn sync_reply(&self, assignment: Bytes) -> SyncReply {
        SyncReply { error: error_code::NONE, protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }

    pub(super) fn store_group(&mut self, empty_since: Option<Timestamp>) {
        let protocol = self.protocol.clone().unwrap_or_default();
        let to_i32 = |ms: i64| i32::try_from(ms).unwrap_or(i32::MAX);
        let member = |member: &Member| StoredMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: to_i32(member.rebalance_timeout_ms),
            session_timeout_ms: to_i32(member.session_timeout_ms),
            subscription: member.metadata(&protocol),
            assignment: member.assignment.clone(),
        };
        let is_assigned = matches!(self.phase, Phase::Stable);
        let stored = StoredGroup {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone().filter(|_| is_assigned),
            leader: self.leader.clone().filter(|_| is_assigned),
            empty_since,
            members: if is_assigned { self.members.values().map(member).collect() } else { Vec::new() },
        };
        self.effects.push(Effect::Store(group_record(&self.id, &stored)));
    }

    /// Takes over the members that were read back, of whom each has its assignment.
    pub(super) fn restore_members(&mut self, now: Timestamp, protocol: Option<String>, leader: Option<String>, stored: Vec<StoredMember>) {
        let Some(protocol) = protocol.filter(|_| self.protocol_type.is_some()) else { return };
        for one in stored {
            let mut member = Member {
                id: one.member_id,
                instance_id: one.instance_id,
                client_id: one.client_id,
                client_host: one.client_host,
                session_timeout_ms: one.session_timeout_ms.into(),
                rebalance_timeout_ms: i64::from(one.rebalance_timeout_ms).max(1),
                // What else it knows it says when it joins again.
                protocols: vec![(protocol.clone(), one.subscription)],
                assignment: one.assignment,
                join: None,
                sync: None,
                owes_sync: false,
                is_new: false,
                deadline: now,
            };
            member.touch(now);
            if let Some(name) = &member.instance_id
                && let Some(other) = self.statics.insert(name.clone(), member.id.clone())
            {
                self.members.remove(&other);
            }
            self.members.insert(member.id.clone(), member);
        }
        let Some(first) = self.members.keys().next() else { return };
        self.leader = Some(leader.filter(|id| self.members.contains_key(id)).unwrap_or_else(|| first.clone()));
        self.protocol = Some(protocol);
        self.phase = Phase::Stable;
    }
}
