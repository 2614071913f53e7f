//! What becomes of transactions that nobody ends and of ids that nobody uses: time-outs and expiry.
//!
//! Always: a transaction is aborted once its time is over, also one that was open when the node stopped; where that cannot be
//! stored (a full disk) it is tried again. One task watches the deadlines of all. Called by `Broker`.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::coordinator::{Cell, Transactions};
use super::machine::Transaction;
use super::stored;
use crate::broker::error::BrokerError;
use crate::broker::topic::Partition;
use crate::log::LogError;
use crate::record::Offset;

/// A transaction that could not be ended when its time was over is tried again after so long.
const TRY_AGAIN_MS: i64 = 1_000;

impl Transactions {
    /// Ends transactions whose time is over, until stopped.
    pub(in crate::broker) async fn run(self: Arc<Self>, stop: CancellationToken) {
        while let Some(due) = self.alarms.due(|| self.now(), &stop).await {
            for id in due {
                if let Some(cell) = self.find(&id) {
                    self.time_out(&cell).await;
                }
            }
        }
    }

    /// Looks at the clock again, which a test has moved.
    #[cfg(test)]
    pub(in crate::broker) fn look_again(&self) {
        self.alarms.look_again();
    }

    /// Ends the id's transaction if its time is over.
    async fn time_out(&self, cell: &Cell) {
        let _one = cell.busy.lock().await;
        let ending = {
            let mut inner = cell.inner.lock();
            inner.alarm = None;
            let ending = inner.transaction.as_ref().and_then(|transaction| transaction.time_out(self.now()));
            if ending.is_none() {
                self.arrange(cell, &mut inner);
            }
            ending
        };
        let Some(ending) = ending else { return };
        tracing::info!(transactional_id = ?cell.id, producer_id = ending.marker.id, "a transaction's time is over: it is aborted");
        if self.conclude(cell, ending).await.is_err() {
            self.call_at(cell, &mut cell.inner.lock(), self.now().plus(TRY_AGAIN_MS));
        }
    }

    /// Lets go of ids nobody uses, and of the index of what retention has deleted; rewrites the topics where they
    /// have grown too long.
    pub(in crate::broker) async fn expire(&self) -> Result<(), BrokerError> {
        for cell in self.all() {
            // Whoever is busy is used.
            let Ok(_one) = cell.busy.try_lock() else { continue };
            let expired = |t: &Transaction| t.is_expired(self.now(), self.config.expiration_ms);
            if cell.inner.lock().transaction.as_ref().is_some_and(expired) {
                self.journal.append(&[(stored::key(&cell.id), None)]).await?;
                let mut inner = cell.inner.lock();
                (inner.transaction, inner.dropped) = (None, true);
                self.cells.lock().remove(&cell.id);
            }
        }
        self.forget_aborted().await?;
        for journal in self.journals() {
            journal.tidy().await?;
        }
        Ok(())
    }

    /// Forgets, durably, aborted transactions of a partition whose markers lie at these offsets: compaction takes them.
    pub(in crate::broker) async fn forget_aborted_at(&self, partition: &Partition, markers: &[Offset]) -> Result<(), LogError> {
        partition.stability().forget_at(markers);
        let gone: Vec<_> = markers.iter().map(|last| (stored::aborted_key(partition.key(), *last), None)).collect();
        self.aborted.append(&gone).await.map(drop)
    }

    async fn forget_aborted(&self) -> Result<(), LogError> {
        let mut gone = Vec::new();
        for partition in self.catalogue.topics().iter().flat_map(|t| t.partitions().to_vec()) {
            let lasts = partition.stability().forget_below(partition.log().start());
            gone.extend(lasts.into_iter().map(|last| (stored::aborted_key(partition.key(), last), None)));
        }
        self.aborted.forget(
            |key| {
                let of = stored::read_aborted_key(key).map(|(of, _)| of);
                of.is_none_or(|of| self.catalogue.topic_by_id(of.topic).is_none())
            },
            &mut gone,
        );
        self.aborted.append(&gone).await?;
        Ok(())
    }
}
