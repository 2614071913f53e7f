//! What a heartbeat does: a member joins, goes on, leaves, or comes back under its name.

use super::ConsumerGroup;
use super::member::{AWAY, Held, Member};
use super::message::{Beat, BeatRefusal, BeatReply, OwnedPartitions, Topics};
use super::pattern::compile;
use super::reconcile::{Step, told};
use crate::time::Timestamp;
use crate::wire::error_code;

impl ConsumerGroup {
    /// A member says that it lives. [`Beat::check`] has passed.
    pub(in crate::broker::group) fn heartbeat(
        &mut self,
        now: Timestamp,
        beat: &Beat,
        topics: &dyn Topics,
    ) -> Result<BeatReply, BeatRefusal> {
        if beat.epoch < 0 {
            return self.leave(beat, topics);
        }
        if self.members.len() >= self.max_size && !self.members.contains_key(&beat.member_id) {
            let why = format!("The consumer group has reached its maximum capacity of {} members.", self.max_size);
            return Err(BeatRefusal::new(error_code::GROUP_MAX_SIZE_REACHED, why));
        }
        if let Some(pattern) = beat.pattern.as_deref().filter(|pattern| !pattern.is_empty()) {
            let known = self.members.values().any(|member| member.regex.as_deref() == Some(pattern));
            if !known && let Err(why) = compile(pattern) {
                // Who may not speak at all is told that first.
                self.find(beat)?;
                let why = format!("SubscribedTopicRegex `{pattern}` is not a valid regular expression: {why}");
                return Err(BeatRefusal::new(error_code::INVALID_REGULAR_EXPRESSION, why));
            }
        }
        let before = self.subscribe(beat)?;
        let mut member = before.clone();
        member.update(beat);
        let says_the_same = member.says_the_same(&before) && self.members.contains_key(&member.id);
        if !says_the_same {
            self.record_member(&member);
        }
        let subscription_changed = member.names != before.names || member.pattern() != before.pattern();
        let id = member.id.clone();
        self.put(member);
        if subscription_changed {
            self.drop_patterns();
        }
        self.look_at_topics(now, subscription_changed, topics);
        self.make_target(now, topics);
        let step = Step { now, topics, owned: beat.owned.as_ref(), subscription_changed };
        let mut after = self.reconcile(&self.members[&id], &step);
        if !after.stands_the_same(&before) {
            self.record_standing(&after);
        }
        after.touch(now, &self.config);
        let assigned = told(&after.assigned);
        let is_news = beat.epoch == 0 || beat.is_full() || assigned != told(&before.assigned);
        let reply = BeatReply {
            member_id: id,
            epoch: after.epoch,
            interval_ms: self.config.heartbeat_interval_ms,
            assignment: is_news.then_some(assigned),
        };
        self.put(after);
        Ok(reply)
    }

    /// The member that speaks, as it stands.
    fn find(&self, beat: &Beat) -> Result<Option<&Member>, BeatRefusal> {
        let id = &beat.member_id;
        let Some(name) = &beat.instance_id else {
            return match self.members.get(id) {
                None if beat.epoch != 0 => Err(BeatRefusal::unknown(id, &self.id)),
                None => Ok(None),
                Some(member) => check_epoch(member, beat).map(|()| Some(member)),
            };
        };
        let current = self.statics.get(name).and_then(|current| self.members.get(current));
        if beat.epoch == 0 {
            if let Some(member) = current
                && member.classic.is_none()
                && member.epoch != AWAY
            {
                let why = format!(
                    "Static member {id} with instance id {name} cannot join the group because the instance id is owned by {} member.",
                    member.id
                );
                return Err(BeatRefusal::new(error_code::UNRELEASED_INSTANCE_ID, why));
            }
            return Ok(current);
        }
        let member = self.static_member(name, id)?;
        check_epoch(member, beat).map(|()| Some(member))
    }

    fn static_member(&self, name: &str, id: &str) -> Result<&Member, BeatRefusal> {
        let Some(member) = self.statics.get(name).and_then(|current| self.members.get(current)) else {
            return Err(BeatRefusal::new(error_code::UNKNOWN_MEMBER_ID, format!("Instance id {name} is unknown.")));
        };
        if member.id != id {
            let why = format!("Static member {id} with instance id {name} was fenced by member {}.", member.id);
            return Err(BeatRefusal::new(error_code::FENCED_INSTANCE_ID, why));
        }
        Ok(member)
    }

    /// The member that speaks, new where it was not there, in its old place where it is a static one that came
    /// back.
    fn subscribe(&mut self, beat: &Beat) -> Result<Member, BeatRefusal> {
        let id = if beat.member_id.is_empty() { &beat.nonce } else { &beat.member_id };
        let Some(found) = self.find(beat)? else { return Ok(Member::new(id.clone())) };
        if beat.instance_id.is_none() || beat.epoch != 0 {
            return Ok(found.clone());
        }
        let before = found.clone();
        let member = Member { id: id.clone(), epoch: 0, previous_epoch: 0, session_ends: None, rebalance_ends: None, ..before.clone() };
        self.replace(&before, &member);
        Ok(member)
    }

    /// Puts a static member in the place of its older self.
    pub(super) fn replace(&mut self, before: &Member, member: &Member) {
        self.take_out(&before.id);
        self.record_gone(&before.id);
        let target = self.target.remove(&before.id).unwrap_or_default();
        self.record_member(member);
        self.set_target(member.id.clone(), target);
        self.record_standing(member);
        self.put(member.clone());
    }

    /// A member leaves, or says that it will be back.
    fn leave(&mut self, beat: &Beat, topics: &dyn Topics) -> Result<BeatReply, BeatRefusal> {
        let id = &beat.member_id;
        let member = match &beat.instance_id {
            None => self.members.get(id).ok_or_else(|| BeatRefusal::unknown(id, &self.id))?,
            Some(name) => self.static_member(name, id)?,
        };
        if beat.instance_id.is_some() && beat.epoch == AWAY {
            // Its place is kept for a session; what it was to give up, it has given up.
            let away = Member { epoch: AWAY, revoking: Held::new(), rebalance_ends: None, ..member.clone() };
            self.record_standing(&away);
            self.put(away);
        } else {
            self.fence(std::slice::from_ref(id), topics);
        }
        Ok(BeatReply { member_id: id.clone(), epoch: beat.epoch, interval_ms: 0, assignment: None })
    }
}

/// Whether the member stands where the group thinks it does. One epoch less is borne where the answer that told
/// it of the next one may have been lost: then it has nothing that it should not have.
fn check_epoch(member: &Member, beat: &Beat) -> Result<(), BeatRefusal> {
    let is_subset = |owned: &OwnedPartitions| {
        owned.iter().all(|(topic, of)| {
            let assigned = member.assigned.get(topic);
            of.iter().all(|p| assigned.is_some_and(|assigned| assigned.contains_key(p)))
        })
    };
    let lost_an_answer = beat.epoch == member.previous_epoch && beat.owned.as_ref().is_some_and(is_subset);
    if beat.epoch == 0 || beat.epoch == member.epoch || (beat.epoch < member.epoch && lost_an_answer) {
        return Ok(());
    }
    let than = if beat.epoch > member.epoch { "greater" } else { "smaller" };
    let why = format!(
        "The consumer group member has a {than} member epoch ({}) than the one known by the group coordinator ({}). \
         The member must abandon all its partitions and rejoin.",
        beat.epoch, member.epoch
    );
    Err(BeatRefusal::new(error_code::FENCED_MEMBER_EPOCH, why))
}
