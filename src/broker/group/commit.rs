//! Offsets a group committed: who may commit, what is kept, and when it is let go.
//!
//! A commit has two halves, so that nothing is acknowledged or shown before it is durable:
//! [`Group::plan_commit`] checks and gives the records to append, [`Group::commit_stored`] takes them
//! over once they are. Of two commits of one partition the one later in the log wins, whichever is
//! reported first.

use std::collections::{BTreeMap, BTreeSet};

use super::consumer::Committer;
use super::machine::{Group, Phase};
use super::message::{CommitOffset, CommitRequest, GroupId, GroupState, TxnCommitRequest};
use super::stored::{GroupRecord, offset_record, offset_tombstone, pending_tombstone};
use super::stored_classic::group_tombstone;
use super::transactional::Pending;
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
    /// Commits of a partition that are being stored.
    in_flight: BTreeMap<TopicPartition, InFlight>,
    /// What transactions that are not over have committed, by producer.
    pub(super) pending: BTreeMap<i64, Pending>,
}

#[derive(Debug, Default)]
struct InFlight {
    count: usize,
    /// Where the last of them lies.
    last: Option<Offset>,
    /// Those up to here were deleted before they were durable.
    void_to: Option<Offset>,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) committed: Committed,
    /// Where in its partition of `__consumer_offsets` the record lies.
    pub(super) stored_at: Offset,
}

impl Offsets {
    /// Keeps `committed` unless a later one is there.
    pub(super) fn put(&mut self, of: TopicPartition, committed: Committed, stored_at: Offset) {
        let newer = self.committed.get(&of).is_none_or(|slot| slot.stored_at <= stored_at);
        if newer {
            self.committed.insert(of, Slot { committed, stored_at });
        }
    }

    /// One more commit of a partition is being stored, at `at`.
    pub(super) fn placed(&mut self, of: &TopicPartition, at: Offset) {
        let in_flight = self.in_flight.entry(of.clone()).or_default();
        in_flight.count += 1;
        in_flight.last = Some(at);
    }

    /// A commit that was being stored is durable: it holds, unless it was deleted meanwhile.
    pub(super) fn arrived(&mut self, of: TopicPartition, committed: Committed, stored_at: Offset) {
        // A group that was deleted and made anew does not know of it.
        let is_void = self.in_flight.get(&of).is_none_or(|in_flight| in_flight.void_to >= Some(stored_at));
        self.landed(&of);
        if !is_void {
            self.put(of, committed, stored_at);
        }
    }

    /// One of the commits that were being stored no longer is.
    fn landed(&mut self, of: &TopicPartition) {
        if let Some(in_flight) = self.in_flight.get_mut(of) {
            in_flight.count -= 1;
            if in_flight.count == 0 {
                self.in_flight.remove(of);
            }
        }
    }

    /// Where the last commit of a partition lies that no transaction made, or a transaction that is over.
    pub(super) fn latest(&self, of: &TopicPartition) -> Option<Offset> {
        let on_its_way = self.in_flight.get(of).and_then(|in_flight| in_flight.last);
        on_its_way.or_else(|| self.committed.get(of).map(|slot| slot.stored_at))
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
        self.check_partitions(&request.committer(), &request.offsets)?;
        self.is_made = true;
        let mut plan = CommitPlan { group: self.id.clone(), accepted: Vec::with_capacity(request.offsets.len()), refused: Vec::new() };
        for one in &request.offsets {
            let metadata = one.metadata.clone().unwrap_or_default();
            if self.metadata_is_too_long(&metadata) {
                plan.refused.push((one.of.clone(), error_code::OFFSET_METADATA_TOO_LARGE));
                continue;
            }
            let expires_at = request.retention_ms.filter(|ms| *ms >= 0).map(|ms| now.plus(ms));
            let committed = Committed { offset: one.offset, leader_epoch: one.leader_epoch, metadata, committed_at: now, expires_at };
            self.offsets.in_flight.entry(one.of.clone()).or_default().count += 1;
            plan.accepted.push((one.of.clone(), committed));
        }
        Ok(plan)
    }

    /// Whether a text is too long to be committed. Kafka's own records cannot hold more than an i16 counts,
    /// whatever is configured.
    pub(super) fn metadata_is_too_long(&self, metadata: &str) -> bool {
        metadata.len() > self.config.offset_metadata_max_bytes.min(i16::MAX as usize)
    }

    fn check_committer(&mut self, now: Timestamp, request: &CommitRequest) -> Result<(), i16> {
        let Some(is_empty) = self.is_empty_for_commits() else { return Err(error_code::COORDINATOR_NOT_AVAILABLE) };
        if is_empty && request.generation < 0 {
            // A consumer that assigns itself uses the group as storage only.
            return Ok(());
        }
        if self.is_unused() {
            // There is no such group.
            return Err(if request.knows_epochs { error_code::GROUP_ID_NOT_FOUND } else { error_code::ILLEGAL_GENERATION });
        }
        if self.consumer.is_some() {
            return Ok(());
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

    /// Who may commit inside a transaction. A producer that says nothing about the group always may, as those
    /// before KIP-447 do; one that names a member must name one of the current generation.
    pub(super) fn check_txn_committer(&self, request: &TxnCommitRequest) -> Result<(), i16> {
        let Some(is_empty) = self.is_empty_for_commits() else { return Err(error_code::COORDINATOR_NOT_AVAILABLE) };
        if is_empty && request.generation < 0 {
            return Ok(());
        }
        if self.is_unused() {
            return Err(error_code::ILLEGAL_GENERATION);
        }
        if self.consumer.is_some() {
            // Kafka's answer to a producer knows no other error.
            let told = |code| if code == error_code::STALE_MEMBER_EPOCH { error_code::ILLEGAL_GENERATION } else { code };
            return self.check_partitions(&request.committer(), &request.offsets).map_err(told);
        }
        if request.generation >= 0 || !request.member_id.is_empty() || request.instance_id.is_some() {
            self.check_generation(&request.member_id, request.instance_id.as_deref(), request.generation)?;
        }
        Ok(())
    }

    /// What a group of KIP-848 has to say about a commit.
    fn check_partitions(&self, by: &Committer<'_>, offsets: &[CommitOffset]) -> Result<(), i16> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let allowed = consumer.check_commit(by)?;
        let too_long = |one: &CommitOffset| one.metadata.as_ref().is_some_and(|metadata| self.metadata_is_too_long(metadata));
        offsets.iter().filter(|one| !too_long(one)).try_for_each(|one| allowed.check(&one.of))
    }

    /// Who may fetch offsets: in a group of KIP-848 its members, and whoever says nothing of itself.
    pub fn check_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), i16> {
        self.consumer.as_ref().map_or(Ok(()), |consumer| consumer.check_fetch(member_id, epoch))
    }

    /// Whether anybody may commit who names no generation; `None` where the group is gone.
    fn is_empty_for_commits(&self) -> Option<bool> {
        match self.phase {
            _ if self.consumer.as_ref().is_some_and(|consumer| !consumer.is_empty()) => Some(false),
            Phase::Dead => None,
            Phase::Empty { .. } => Some(true),
            Phase::Preparing { .. } | Phase::Completing | Phase::Stable => Some(false),
        }
    }

    /// The log has taken the plan's records, the first of them at `first`, under the same lock.
    pub fn commit_placed(&mut self, plan: &CommitPlan, first: Offset) {
        for (i, (of, _)) in plan.accepted.iter().enumerate() {
            if let Some(in_flight) = self.offsets.in_flight.get_mut(of) {
                in_flight.last = Some(first.plus(i as i64));
            }
        }
    }

    /// The plan's records are durable, the first of them at `first`: the offsets are the group's.
    pub fn commit_stored(&mut self, plan: CommitPlan, first: Offset) {
        for (i, (of, committed)) in plan.accepted.into_iter().enumerate() {
            if !matches!(self.phase, Phase::Dead) {
                self.offsets.arrived(of, committed, first.plus(i as i64));
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
        let by_kind = |of: &TopicPartition, committed: &Committed| match self.phase {
            // Counted from when the last member left: a group that runs never loses an offset. Whoever
            // commits to it from outside meanwhile is newer than that.
            Phase::Empty { since } if self.protocol_type.is_some() => Some(since.max(committed.committed_at)),
            Phase::Empty { .. } => Some(committed.committed_at),
            // What a running group has stopped reading may go.
            Phase::Stable if subscribed.as_ref().is_some_and(|topics| !topics.contains(of.topic.as_str())) => Some(committed.committed_at),
            _ => None,
        };
        let old_since = |of: &TopicPartition, committed: &Committed| match &self.consumer {
            Some(consumer) => (!consumer.is_subscribed_to(of.topic.as_str())).then_some(committed.committed_at),
            None => by_kind(of, committed),
        };
        let gone: Vec<TopicPartition> = self
            .offsets
            .committed
            .iter()
            .filter(|(of, slot)| {
                let Some(since) = old_since(of, &slot.committed) else { return false };
                let until = slot.committed.expires_at.unwrap_or(since.plus(retention));
                until <= now && !self.offsets.in_flight.contains_key(of) && !self.is_unstable(of)
            })
            .map(|(of, _)| of.clone())
            .collect();
        let mut records = self.forget_offsets(gone);
        let unused = self.pending.is_empty() && self.known_partitions().is_empty();
        if unused && self.state() == GroupState::Empty {
            records.extend(self.end());
        }
        records
    }

    /// A topic is gone, and with it what the group committed there. Returns the records that make it so in
    /// the log too.
    pub fn forget_topic(&mut self, topic: &TopicName) -> Vec<GroupRecord> {
        let gone: Vec<_> = self.known_partitions().into_iter().filter(|of| of.topic == *topic).collect();
        self.forget_offsets(gone)
    }

    /// Drops these offsets, pending ones too, and gives the records that say so.
    pub(super) fn forget_offsets(&mut self, gone: impl IntoIterator<Item = TopicPartition>) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for of in gone {
            self.offsets.committed.remove(&of);
            if let Some(in_flight) = self.offsets.in_flight.get_mut(&of) {
                in_flight.void_to = in_flight.last;
            }
            records.push(offset_tombstone(&self.id, &of));
            for (producer_id, pending) in &mut self.offsets.pending {
                if pending.remove(&of).is_some() {
                    records.push(pending_tombstone(&self.id, *producer_id, &of));
                }
            }
        }
        self.offsets.pending.retain(|_, pending| !pending.is_empty());
        records
    }

    /// Partitions with an offset, stored, pending, or on its way. On its way counts: its record lies before the
    /// tombstone we are about to write.
    pub(super) fn known_partitions(&self) -> BTreeSet<TopicPartition> {
        let pending = self.offsets.pending.values().flat_map(BTreeMap::keys);
        self.offsets.committed.keys().chain(self.offsets.in_flight.keys()).chain(pending).cloned().collect()
    }

    /// Ends the group and gives the records that say so.
    pub(super) fn end(&mut self) -> Vec<GroupRecord> {
        let mut records = self.forget_offsets(self.known_partitions());
        if let Some(mut consumer) = self.consumer.take() {
            records.extend(consumer.end());
        } else if self.protocol_type.is_some() {
            records.push(group_tombstone(&self.id));
        }
        self.die();
        records
    }
}
