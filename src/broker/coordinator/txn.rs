//! The coordinator's part in transactions: offsets that are committed with them. Called by `broker::txn`.
//!
//! Always: what is pending in the groups, and in which groups, is known before and after a crash; the end of a
//! transaction changes all groups in one append group with everything else the transaction did. Of
//! one producer the caller has one thing at a time done here: a [`Coordinator::txn_offset_commit`], or an end,
//! from [`Coordinator::txn_offsets`] until [`Coordinator::txn_ended`] (one async lock a transaction). Locks are taken in this order: the caller's own, the
//! groups' in the order of their names, the journal's, the partitions'.

use super::{Coordinator, entries};
use crate::broker::append::Addition;
use crate::broker::group::{GroupId, TxnCommitRequest, TxnOutcome};
use crate::broker::journal::size;
use crate::record::TopicPartition;
use crate::wire::error_code;

/// What the end of a transaction makes of the groups, once it is durable: see [`Coordinator::txn_offsets`].
#[must_use = "groups show the transaction's offsets only once this is handed to `txn_ended`"]
pub(in crate::broker) struct TxnOffsets {
    producer_id: i64,
    outcomes: Vec<(GroupId, TxnOutcome)>,
}

impl Coordinator {
    /// TxnOffsetCommit: offsets that hold once the producer's transaction commits. That the transaction is open
    /// and the producer is who it says, the caller has checked. They are pending, durably, when this
    /// returns. Answers each one's error, or one for all.
    pub(in crate::broker) async fn txn_offset_commit(
        &self,
        id: &GroupId,
        request: &TxnCommitRequest,
    ) -> Result<Vec<(TopicPartition, i16)>, i16> {
        let bytes = request.offsets.iter().map(|one| 128 + one.metadata.as_ref().map_or(0, String::len)).sum();
        let permit = self.journal.room(bytes).await;
        let (answers, submitted) = self.within(id, |inner, now| {
            let mut plan = inner.group.plan_txn_commit(now, request)?;
            let mut answers: Vec<_> = plan.accepted().map(|of| (of.clone(), error_code::NONE)).collect();
            answers.append(&mut plan.refused);
            if plan.records.is_empty() {
                return Ok((answers, None));
            }
            let records = std::mem::take(&mut plan.records);
            match self.journal.submit(&entries(records), permit) {
                Ok((first, submitted)) => {
                    inner.group.txn_commit_placed(plan, first);
                    self.transactions.lock().entry(request.producer_id).or_default().insert(id.clone());
                    Ok((answers, Some(submitted)))
                }
                Err(error) => {
                    tracing::warn!(group = %id, %error, "positions of a transaction could not be stored");
                    Err(error_code::COORDINATOR_NOT_AVAILABLE)
                }
            }
        })?;
        if let Some(submitted) = submitted
            && let Err(error) = submitted.await
        {
            tracing::warn!(group = %id, %error, "positions of a transaction could not be stored");
            return Err(error_code::COORDINATOR_NOT_AVAILABLE);
        }
        Ok(answers)
    }

    /// About how many bytes [`Coordinator::txn_offsets`] will add to the transaction's append group.
    pub(in crate::broker) fn txn_offsets_bytes(&self, producer_id: i64) -> usize {
        let groups = self.transactions.lock().get(&producer_id).cloned().unwrap_or_default();
        groups.iter().filter_map(|id| self.look(id, |group| size(&entries(group.end_txn(producer_id, true))))).sum()
    }

    /// The end of a producer's transaction. `submit` is called once, in any case, with what has to ride in the
    /// transaction's append group for `__consumer_offsets` (nothing, where the transaction has no offsets);
    /// it adds the rest of the group and hands it to the log as a whole. `Err` and `None` say that nothing was
    /// handed over, and change nothing here. There is no marker for `__consumer_offsets`: the records say it all.
    ///
    /// Once the append group is durable the caller hands the [`TxnOffsets`] to [`Coordinator::txn_ended`];
    /// until then the offsets stay pending. After a crash in between the log says that they hold.
    pub(in crate::broker) fn txn_offsets<T, E>(
        &self,
        producer_id: i64,
        committed: bool,
        submit: impl FnOnce(Option<Addition>) -> Result<Option<T>, E>,
    ) -> Result<Option<(T, TxnOffsets)>, E> {
        let groups = self.transactions.lock().get(&producer_id).cloned().unwrap_or_default();
        let cells: Vec<_> = {
            let all = self.cells.lock();
            groups.iter().filter_map(|id| all.get(id).cloned()).collect()
        };
        let mut locked: Vec<_> = cells.iter().map(|cell| cell.inner.lock()).collect();
        let records: Vec<Vec<_>> = locked.iter().map(|inner| entries(inner.group.end_txn(producer_id, committed))).collect();
        let all: Vec<_> = records.iter().flatten().cloned().collect();
        let Some((mut at, submitted)) = self.journal.ride(&all, submit)? else { return Ok(None) };
        let mut outcomes = Vec::with_capacity(cells.len());
        for ((cell, inner), records) in cells.iter().zip(&mut locked).zip(&records) {
            outcomes.push((cell.id.clone(), inner.group.txn_ending(producer_id, committed, at)));
            at = at.plus(records.len() as i64);
        }
        Ok(Some((submitted, TxnOffsets { producer_id, outcomes })))
    }

    /// The transaction's append group is durable: its offsets are the groups', or gone.
    pub(in crate::broker) fn txn_ended(&self, ended: TxnOffsets) {
        for (id, outcome) in ended.outcomes {
            let over = self.within_existing(&id, |inner, _| {
                inner.group.txn_ended(outcome);
                // The producer may have begun its next transaction already.
                let over = inner.group.pending_producers().all(|producer_id| producer_id != ended.producer_id);
                if over {
                    self.release(ended.producer_id, &id);
                }
            });
            if over.is_none() {
                self.release(ended.producer_id, &id);
            }
        }
    }

    fn release(&self, producer_id: i64, id: &GroupId) {
        let mut transactions = self.transactions.lock();
        if let Some(groups) = transactions.get_mut(&producer_id) {
            groups.remove(id);
            if groups.is_empty() {
                transactions.remove(&producer_id);
            }
        }
    }
}
