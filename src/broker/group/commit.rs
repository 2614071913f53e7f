//! Offsets a group committed: who may commit, what is kept, and when it is let go.
//!
//! A commit has two halves, so that nothing is acknowledged or shown before it is durable:
//! [`Group::plan_commit`] checks and gives the records to append, [`Group::commit_stored`] takes them
//! over once they are. Of two commits of one partition the one later in the log wins, whichever is
//! reported first.

use std::collections::BTreeMap;

use super::machine::{Group, Phase};
use super::message::{CommitRequest, GroupId};
use super::stored::{GroupRecord, group_tombstone, offset_record, offset_tombstone};
use crate::record::{Offset, TopicName, TopicPartition};
use crate::time::Timestamp;
use crate::wire::error_code;

/// How far a group has come in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next record to read.
    pub offset: Offset,
    /// The leader epoch of the last record read, or -1.
    pub leader_epoch: i32,
    /// What the consumer wants to remember.
    pub metadata: String,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// When it may go, where the client said so itself.
    pub expires_at: Option<Timestamp>,
}

/// What the group holds and what is on its way.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    pub(super) committed: BTreeMap<TopicPartition, Slot>,
    /// How many commits of a partition are being stored.
    in_flight: BTreeMap<TopicPartition, usize>,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) committed: Committed,
    /// Where in its partition of `__consumer_offsets` the record lies.
    stored_at: Offset,
}

impl Offsets {
    /// Keeps `committed` unless a later one is there.
    fn put(&mut self, of: TopicPartition, committed: Committed, stored_at: Offset) {
        let newer = self.committed.get(&of).is_none_or(|slot| slot.stored_at <= stored_at);
        if newer {
            self.committed.insert(of, Slot { committed, stored_at });
        }
    }

    fn landed(&mut self, of: &TopicPartition) {
        if let Some(count) = self.in_flight.get_mut(of) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(of);
            }
        }
    }
}

/// A commit that was checked and is to be stored.
#[derive(Debug)]
pub struct CommitPlan {
    group: GroupId,
    /// What will be the group's once the records are durable.
    pub accepted: Vec<(TopicPartition, Committed)>,
    /// What was refused, each with its error.
    pub refused: Vec<(TopicPartition, i16)>,
}

impl CommitPlan {
    /// The records to append, one for each accepted offset and in that order. May be none.
    #[must_use]
    pub fn records(&self) -> Vec<GroupRecord> {
        self.accepted.iter().map(|(of, committed)| offset_record(&self.group, of, committed)).collect()
    }
}

impl Group {
    /// Checks a commit. The caller appends the plan's records and then calls [`Group::commit_stored`] or
    /// [`Group::commit_failed`]. An error refuses the commit as a whole.
    pub fn plan_commit(&mut self, now: Timestamp, request: &CommitRequest) -> Result<CommitPlan, i16> {
        self.check_committer(now, request)?;
        let mut plan = CommitPlan { group: self.id.clone(), accepted: Vec::with_capacity(request.offsets.len()), refused: Vec::new() };
        // Kafka's own records cannot hold more than this, whatever is configured.
        let longest = self.config.offset_metadata_max_bytes.min(i16::MAX as usize);
        for one in &request.offsets {
            let metadata = one.metadata.clone().unwrap_or_default();
            if metadata.len() > longest {
                plan.refused.push((one.of.clone(), error_code::OFFSET_METADATA_TOO_LARGE));
                continue;
            }
            let expires_at = request.retention_ms.filter(|ms| *ms >= 0).map(|ms| now.plus(ms));
            let committed = Committed { offset: one.offset, leader_epoch: one.leader_epoch, metadata, committed_at: now, expires_at };
            *self.offsets.in_flight.entry(one.of.clone()).or_default() += 1;
            plan.accepted.push((one.of.clone(), committed));
        }
        Ok(plan)
    }

    fn check_committer(&mut self, now: Timestamp, request: &CommitRequest) -> Result<(), i16> {
        let is_empty = match self.phase {
            Phase::Dead => return Err(error_code::COORDINATOR_NOT_AVAILABLE),
            Phase::Empty { .. } => true,
            _ => false,
        };
        if is_empty && request.generation < 0 {
            // A consumer that assigns itself uses the group as storage only.
            return Ok(());
        }
        if is_empty && self.protocol_type.is_none() {
            return Err(error_code::ILLEGAL_GENERATION);
        }
        if request.generation < 0 && request.member_id.is_empty() && request.instance_id.is_none() {
            return Err(error_code::UNKNOWN_MEMBER_ID);
        }
        self.check_generation(&request.member_id, request.instance_id.as_deref(), request.generation)?;
        if matches!(self.phase, Phase::Completing) {
            return Err(error_code::REBALANCE_IN_PROGRESS);
        }
        // While the group prepares, the members of the old generation may still save how far they came.
        if let Some(member) = self.members.get_mut(&request.member_id)
            && !member.is_new
        {
            member.touch(now);
        }
        Ok(())
    }

    /// The plan's records are durable, the first of them at `first`: the offsets are the group's.
    pub fn commit_stored(&mut self, plan: CommitPlan, first: Offset) {
        for (i, (of, committed)) in plan.accepted.into_iter().enumerate() {
            self.offsets.landed(&of);
            if !matches!(self.phase, Phase::Dead) {
                self.offsets.put(of, committed, first.plus(i as i64));
            }
        }
    }

    /// The plan's records could not be stored: nothing has changed.
    pub fn commit_failed(&mut self, plan: &CommitPlan) {
        for (of, _) in &plan.accepted {
            self.offsets.landed(of);
        }
    }

    /// Takes over an offset that was read back from the log.
    pub fn restore_offset(&mut self, of: TopicPartition, committed: Committed, stored_at: Offset) {
        self.offsets.put(of, committed, stored_at);
    }

    /// How far the group has come in a partition.
    #[must_use]
    pub fn committed(&self, of: &TopicPartition) -> Option<&Committed> {
        self.offsets.committed.get(of).map(|slot| &slot.committed)
    }

    /// How far the group has come, in every partition it committed.
    pub fn all_committed(&self) -> impl Iterator<Item = (&TopicPartition, &Committed)> {
        self.offsets.committed.iter().map(|(of, slot)| (of, &slot.committed))
    }

    /// Lets go of what is too old, and of the group itself where nothing is left of it (it is then
    /// `Dead`). Returns the records that make it so in the log too. To be called now and then.
    pub fn expire(&mut self, now: Timestamp) -> Vec<GroupRecord> {
        let retention = self.config.offsets_retention_ms;
        let subscribed = if matches!(self.phase, Phase::Stable) { self.subscribed() } else { None };
        let old_since = |of: &TopicPartition, committed: &Committed| match self.phase {
            // Counted from when the last member left: a group that runs never loses an offset. Whoever
            // commits to it from outside meanwhile is newer than that.
            Phase::Empty { since } if self.protocol_type.is_some() => Some(since.max(committed.committed_at)),
            Phase::Empty { .. } => Some(committed.committed_at),
            // What a running group has stopped reading may go.
            Phase::Stable if subscribed.as_ref().is_some_and(|topics| !topics.contains(of.topic.as_str())) => Some(committed.committed_at),
            _ => None,
        };
        let gone: Vec<TopicPartition> = self
            .offsets
            .committed
            .iter()
            .filter(|(of, slot)| {
                let Some(since) = old_since(of, &slot.committed) else { return false };
                let until = slot.committed.expires_at.unwrap_or(since.plus(retention));
                until <= now && !self.offsets.in_flight.contains_key(of)
            })
            .map(|(of, _)| of.clone())
            .collect();
        let mut records = self.forget_offsets(gone);
        let unused = self.offsets.committed.is_empty() && self.offsets.in_flight.is_empty() && self.pending.is_empty();
        if unused && matches!(self.phase, Phase::Empty { .. }) {
            records.extend(self.end());
        }
        records
    }

    /// A topic is gone, and with it what the group committed there. Returns the records that make it so in
    /// the log too.
    pub fn forget_topic(&mut self, topic: &TopicName) -> Vec<GroupRecord> {
        let gone = self.known_partitions().filter(|of| of.topic == *topic).cloned().collect();
        self.forget_offsets(gone)
    }

    /// Drops these offsets and gives the records that say so.
    pub(super) fn forget_offsets(&mut self, gone: Vec<TopicPartition>) -> Vec<GroupRecord> {
        gone.into_iter()
            .map(|of| {
                self.offsets.committed.remove(&of);
                offset_tombstone(&self.id, &of)
            })
            .collect()
    }

    /// Partitions with an offset, stored or on its way. On its way counts: its record lies before the
    /// tombstone we are about to write.
    pub(super) fn known_partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        let on_their_way = self.offsets.in_flight.keys().filter(|of| !self.offsets.committed.contains_key(of));
        self.offsets.committed.keys().chain(on_their_way)
    }

    /// Ends the group and gives the records that say so.
    pub(super) fn end(&mut self) -> Vec<GroupRecord> {
        let gone = self.known_partitions().cloned().collect();
        let mut records = self.forget_offsets(gone);
        if self.protocol_type.is_some() {
            records.push(group_tombstone(&self.id));
        }
        self.die();
        records
    }
}
