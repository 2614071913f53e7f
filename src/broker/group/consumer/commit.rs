//! Who may commit and fetch offsets of a consumer group.

use super::ConsumerGroup;
use super::member::Member;
use crate::record::TopicPartition;
use crate::wire::error_code;

/// Who commits, and how.
pub(in crate::broker::group) struct Committer<'a> {
    pub(in crate::broker::group) member_id: &'a str,
    pub(in crate::broker::group) instance_id: Option<&'a str>,
    pub(in crate::broker::group) epoch: i32,
    pub(in crate::broker::group) transactional: bool,
    /// Whether the request has a place for a member's epoch.
    pub(in crate::broker::group) knows_epochs: bool,
}

/// Which partitions a committer may commit.
pub(in crate::broker::group) enum Allowed<'a> {
    All,
    /// Those it has had since its epoch.
    Since(&'a ConsumerGroup, &'a Member, i32),
}

impl Allowed<'_> {
    /// Whether this partition may be committed.
    pub(in crate::broker::group) fn check(&self, of: &TopicPartition) -> Result<(), i16> {
        let Self::Since(group, member, epoch) = self else { return Ok(()) };
        let since = group.ids.get(of.topic.as_str()).and_then(|topic| {
            let within = |held: &super::member::Held| held.get(topic).and_then(|of_topic| of_topic.get(&of.partition.0)).copied();
            within(&member.assigned).or_else(|| within(&member.revoking))
        });
        if since.is_some_and(|since| since <= *epoch) { Ok(()) } else { Err(stale(member)) }
    }
}

/// What a member is told whose epoch is not the group's.
const fn stale(member: &Member) -> i16 {
    if member.classic.is_some() { error_code::ILLEGAL_GENERATION } else { error_code::STALE_MEMBER_EPOCH }
}

impl ConsumerGroup {
    /// Who may commit: anybody while the group is empty, and members. A member that does not know its newest epoch
    /// yet may commit what it has had since its own (KIP-1251).
    pub(in crate::broker::group) fn check_commit(&self, by: &Committer) -> Result<Allowed<'_>, i16> {
        if by.epoch < 0 && self.is_empty() {
            return Ok(Allowed::All);
        }
        if by.transactional && by.epoch == -1 && by.member_id.is_empty() && by.instance_id.is_none() {
            return Ok(Allowed::All);
        }
        let member = self.members.get(by.member_id).ok_or(error_code::UNKNOWN_MEMBER_ID)?;
        if !by.transactional && member.classic.is_none() && !by.knows_epochs {
            return Err(error_code::UNSUPPORTED_VERSION);
        }
        if by.epoch == member.epoch {
            Ok(Allowed::All)
        } else if by.epoch > member.epoch {
            Err(stale(member))
        } else {
            Ok(Allowed::Since(self, member, by.epoch))
        }
    }

    /// Who may fetch: whoever says nothing of itself, and members.
    pub(in crate::broker::group) fn check_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), i16> {
        if member_id.is_none() && epoch < 0 {
            return Ok(());
        }
        let member = self.members.get(member_id.unwrap_or_default()).ok_or(error_code::UNKNOWN_MEMBER_ID)?;
        if member.epoch == epoch { Ok(()) } else { Err(stale(member)) }
    }
}
