//! How a transaction ends: one append group that holds everything the end changes.
//!
//! Always: a marker in every partition of the transaction that still exists, the offsets of all groups, the id's new
//! state, and for an abort the index entries, are handed to the log together or not at all. The index entries
//! depend on where the markers go, so they are made under the partitions' locks. Called by `txn::coordinator`, and for
//! transactions that hang by `Transactions::write_marker`.

use std::sync::Arc;

use super::coordinator::{Transactions, place_of_offsets};
use super::machine::{Ending, Identity};
use super::stability::Aborted;
use super::stored;
use crate::broker::append::{Addition, Decided, Fate, InFlight, Rule, submit_with};
use crate::broker::coordinator::TxnOffsets;
use crate::broker::journal::Entry;
use crate::broker::topic::Partition;
use crate::log::{LogError, Permit, Submitted};
use crate::record::{Batch, ControlMarker, TimestampType, TopicPartition};
use crate::time::Timestamp;
use crate::wire::error_code;

/// The epoch of the only coordinator there is.
const COORDINATOR_EPOCH: i32 = 0;
/// About what one partition's marker and index entry take.
const PARTITION_BYTES: usize = 256;

impl Transactions {
    /// Waits for what the end of a transaction needs: the producers of its partitions, and room.
    pub(super) async fn prepare(&self, ending: &Ending) -> Result<Permit, i16> {
        for partition in ending.partitions.iter().filter_map(|of| self.partition(of)) {
            self.load(&partition).await?;
        }
        let bytes = 1024 + ending.partitions.len() * PARTITION_BYTES + self.groups.txn_offsets_bytes(ending.marker.id);
        Ok(self.log.room(bytes).await)
    }

    async fn load(&self, partition: &Arc<Partition>) -> Result<(), i16> {
        partition.load_producers(self.clock.now()).await.map_err(|error| {
            tracing::warn!(partition = %partition.of(), %error, "the producers of a partition could not be read back");
            error_code::COORDINATOR_NOT_AVAILABLE
        })
    }

    /// Hands the end of a transaction to the log.
    pub(super) fn submit_ending(&self, id: &str, ending: &Ending, permit: Permit) -> Result<(Submitted, TxnOffsets), LogError> {
        let now = self.clock.now();
        let markers: Vec<Addition> = ending
            .partitions
            .iter()
            // Offsets are told by records of their own.
            .filter(|of| **of != place_of_offsets())
            .filter_map(|of| self.partition(of))
            .map(|to| self.marker(to, ending.marker, ending.committed, COORDINATOR_EPOCH, now))
            .collect();
        let state = [(stored::key(id), Some(stored::value(&ending.after)))];
        let done = self.groups.txn_offsets(ending.marker.id, ending.committed, |offsets| {
            let done = self.journal.ride(&state, |state| {
                let rest = state.into_iter().chain(offsets).collect();
                self.hand_over(markers, rest, ending.marker.id, ending.committed, permit, now).map(|in_flight| in_flight.submitted)
            });
            done.map(|done| done.map(|(_, submitted)| submitted))
        })?;
        Ok(done.expect("the id's state is in the group, so there is something to hand over"))
    }

    fn marker(&self, to: Arc<Partition>, producer: Identity, committed: bool, coordinator_epoch: i32, now: Timestamp) -> Addition {
        let kind = if committed { ControlMarker::Commit } else { ControlMarker::Abort };
        let batch = kind.batch(now.0, producer.id, producer.epoch, coordinator_epoch);
        let by_node =
            self.catalogue.topic(to.of().topic.as_str()).is_some_and(|t| t.config().timestamp_type == TimestampType::LogAppendTime);
        let batch = if by_node { batch.with_log_append_time(now.0) } else { batch };
        Addition { to, batches: vec![batch] }
    }

    /// Hands markers and what else belongs to the end to the log, and for an abort the index of what it aborts.
    fn hand_over(
        &self,
        markers: Vec<Addition>,
        rest: Vec<Addition>,
        producer_id: i64,
        committed: bool,
        permit: Permit,
        now: Timestamp,
    ) -> Result<InFlight, LogError> {
        let count = markers.len();
        let mut additions: Vec<Addition> = markers.into_iter().chain(rest).collect();
        if committed || count == 0 {
            return submit_with(&self.log, additions, Rule::EachByItself, permit, now, |_, _| {});
        }
        let done = self.aborted.ride_late(|index, make| {
            additions.push(index);
            let mut entries = Vec::new();
            let in_flight = submit_with(&self.log, additions, Rule::EachByItself, permit, now, |decided, additions| {
                entries = index_entries(decided, &additions[..count], producer_id);
                let made: Vec<Batch> = if entries.is_empty() { Vec::new() } else { make(&entries) };
                additions.last_mut().expect("the index was added").batches = made;
            })?;
            Ok::<_, LogError>(Some((in_flight, entries)))
        })?;
        Ok(done.expect("something was handed over"))
    }

    /// Ends what a producer has open in one partition, past its transactional id: how a transaction that hangs is ended.
    /// Answers Kafka's error.
    pub async fn write_marker(&self, of: &TopicPartition, producer: Identity, committed: bool, coordinator_epoch: i32) -> i16 {
        let Some(partition) = self.partition(of).filter(|p| !p.of().topic.is_internal()) else {
            return error_code::UNKNOWN_TOPIC_OR_PARTITION;
        };
        if let Err(code) = self.load(&partition).await {
            return code;
        }
        let permit = self.log.room(PARTITION_BYTES).await;
        let now = self.clock.now();
        let marker = self.marker(partition, producer, committed, coordinator_epoch, now);
        let in_flight = match self.hand_over(vec![marker], Vec::new(), producer.id, committed, permit, now) {
            Ok(in_flight) => in_flight,
            Err(error) => return crate::broker::error::log_code(&error),
        };
        if let Some(Fate::Refused(code)) = in_flight.fates.first() {
            return *code;
        }
        match in_flight.submitted {
            Some(submitted) => submitted.await.map_or_else(|error| crate::broker::error::log_code(&error), |()| error_code::NONE),
            None => error_code::NONE,
        }
    }
}

/// The index entries of an abort whose markers are the first additions of the group.
fn index_entries(decided: &Decided<'_>, markers: &[Addition], producer_id: i64) -> Vec<Entry> {
    let entry = |(i, marker): (usize, &Addition)| {
        let (last, first) = (decided.base(i)?, decided.open(i, producer_id)?);
        let stable = marker.to.stability().stable_after(first, last);
        let one = Aborted { producer_id, first, last, stable };
        Some((stored::aborted_key(marker.to.key(), last), Some(stored::aborted_value(&one))))
    };
    markers.iter().enumerate().filter_map(entry).collect()
}
