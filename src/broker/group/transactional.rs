//! Offsets committed inside a transaction: pending from TxnOffsetCommit to the transaction's end.
//!
//! A pending offset is a record of its own kind in `__consumer_offsets`, so that it outlives a crash; a
//! transaction that commits rides plain offset records, and the tombstones of the pending ones, in its own
//! append group, so the offsets hold exactly if the transaction does. Always: a pending offset is never
//! shown, only that there is one ([`Group::is_unstable`]); an offset that was committed outside of
//! the transaction later than the pending one wins, as in Kafka.

use std::collections::BTreeMap;

use super::commit::{Committed, Slot};
use super::machine::Group;
use super::message::{CommitOffset, TxnCommitRequest};
use super::stored::{GroupRecord, offset_record, pending_record, pending_tombstone};
use crate::record::{Offset, TopicPartition};
use crate::time::Timestamp;
use crate::wire::error_code;

/// What one producer's transaction has committed in the group so far.
pub(super) type Pending = BTreeMap<TopicPartition, Slot>;

/// A commit inside a transaction that was checked and is to be stored.
#[derive(Debug)]
pub struct TxnCommitPlan {
    producer_id: i64,
    accepted: Vec<(TopicPartition, Committed)>,
    /// What was refused, each with its error.
    pub refused: Vec<(TopicPartition, i16)>,
    /// The records to append, one for each accepted offset. May be none.
    pub records: Vec<GroupRecord>,
}

impl TxnCommitPlan {
    /// The partitions whose offsets were accepted, in the order of the records.
    pub fn accepted(&self) -> impl Iterator<Item = &TopicPartition> {
        self.accepted.iter().map(|(of, _)| of)
    }
}

impl Group {
    /// Checks a commit inside a transaction (KIP-447). The caller appends the plan's records and then calls
    /// [`Group::txn_commit_placed`], under the same lock. An error refuses the commit as a whole.
    pub fn plan_txn_commit(&mut self, now: Timestamp, request: &TxnCommitRequest) -> Result<TxnCommitPlan, i16> {
        self.check_txn_committer(request)?;
        // As in Kafka the group is there from now on, whatever becomes of the transaction.
        self.is_made = true;
        let mut plan = TxnCommitPlan { producer_id: request.producer_id, accepted: Vec::new(), refused: Vec::new(), records: Vec::new() };
        for CommitOffset { of, offset, leader_epoch, metadata } in &request.offsets {
            let metadata = metadata.clone().unwrap_or_default();
            if self.metadata_is_too_long(&metadata) {
                plan.refused.push((of.clone(), error_code::OFFSET_METADATA_TOO_LARGE));
                continue;
            }
            let committed = Committed { offset: *offset, leader_epoch: *leader_epoch, metadata, committed_at: now, expires_at: None };
            plan.records.push(pending_record(&self.id, request.producer_id, of, &committed));
            plan.accepted.push((of.clone(), committed));
        }
        Ok(plan)
    }

    /// The log has taken the plan's records, the first of them at `first`. They count as pending at once: nobody
    /// is shown them, and an end of the transaction lies behind them.
    pub fn txn_commit_placed(&mut self, plan: TxnCommitPlan, first: Offset) {
        for (i, (of, committed)) in plan.accepted.into_iter().enumerate() {
            self.restore_pending(plan.producer_id, of, committed, first.plus(i as i64));
        }
    }

    /// Takes over a pending offset that was read back from the log.
    pub fn restore_pending(&mut self, producer_id: i64, of: TopicPartition, committed: Committed, stored_at: Offset) {
        self.offsets.pending.entry(producer_id).or_default().insert(of, Slot { committed, stored_at });
    }

    /// Whether a transaction that is not over has committed an offset of this partition.
    #[must_use]
    pub fn is_unstable(&self, of: &TopicPartition) -> bool {
        self.offsets.pending.values().any(|pending| pending.contains_key(of))
    }

    /// The producers whose transactions have committed offsets here.
    pub fn pending_producers(&self) -> impl Iterator<Item = i64> {
        self.offsets.pending.keys().copied()
    }

    /// The records that end what a producer's transaction has pending here. First those of the offsets that
    /// hold from now on, in the order of [`Group::txn_ended`]; then what takes the pending ones away.
    #[must_use]
    pub fn end_txn(&self, producer_id: i64, committed: bool) -> Vec<GroupRecord> {
        let Some(pending) = self.offsets.pending.get(&producer_id) else { return Vec::new() };
        let mut records: Vec<_> = self.winners(pending, committed).map(|(of, slot)| offset_record(&self.id, of, &slot.committed)).collect();
        records.extend(pending.keys().map(|of| pending_tombstone(&self.id, producer_id, of)));
        records
    }

    /// The records of [`Group::end_txn`] are placed, the first of them at `first`, under the same lock: later
    /// commits lie behind them.
    pub fn txn_ending(&mut self, producer_id: i64, committed: bool, first: Offset) -> TxnOutcome {
        let Some(pending) = self.offsets.pending.get(&producer_id) else { return TxnOutcome::default() };
        let won: Vec<_> = self
            .winners(pending, committed)
            .enumerate()
            .map(|(i, (of, slot))| (of.clone(), Slot { committed: slot.committed.clone(), stored_at: first.plus(i as i64) }))
            .collect();
        let ended = pending.iter().map(|(of, slot)| (of.clone(), slot.stored_at)).collect();
        for (of, slot) in &won {
            self.offsets.placed(of, slot.stored_at);
        }
        TxnOutcome { producer_id, won, ended }
    }

    /// What [`Group::txn_ending`] answered is durable: the offsets are the group's.
    pub fn txn_ended(&mut self, outcome: TxnOutcome) {
        for (of, Slot { committed, stored_at }) in outcome.won {
            self.offsets.arrived(of, committed, stored_at);
        }
        if let Some(pending) = self.offsets.pending.get_mut(&outcome.producer_id) {
            // The producer may have begun its next transaction already.
            for (of, stored_at) in outcome.ended {
                if pending.get(&of).is_some_and(|slot| slot.stored_at == stored_at) {
                    pending.remove(&of);
                }
            }
            if pending.is_empty() {
                self.offsets.pending.remove(&outcome.producer_id);
            }
        }
    }

    fn winners<'a>(&'a self, pending: &'a Pending, committed: bool) -> impl Iterator<Item = (&'a TopicPartition, &'a Slot)> {
        pending.iter().filter(move |(of, slot)| committed && self.offsets.latest(of).is_none_or(|at| at < slot.stored_at))
    }
}

/// What the end of a transaction makes of the offsets it had pending in a group, once it is durable.
#[derive(Debug, Default)]
pub struct TxnOutcome {
    producer_id: i64,
    won: Vec<(TopicPartition, Slot)>,
    ended: Vec<(TopicPartition, Offset)>,
}
