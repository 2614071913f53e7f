//! The one way into the log: batches for several partitions get their offsets and go as one append group.
//!
//! Always: a partition's lock is held from judging its producers to handing the group to the log, so that
//! the order of offsets is the order of the log; the locks of a group are taken in the order of their
//! keys. Producers move forward only once the log has taken the group: a group that it refuses (a full
//! disk) leaves no trace, and after a group that it took and lost the log is closed for good. That a
//! transaction begins is known to readers before its first batch is handed over.
//! Called by `produce` for clients, by `Broker::submit` for the engine, by `journal` for the node itself.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::error::BrokerError;
use super::producers::{EndMarker, Step, Verdict};
use super::topic::{Memory, Partition, State};
use crate::log::{Append, AppendGroup, Log, LogError, PartitionKey, Permit, Submitted};
use crate::record::{Batch, BatchHeader, Offset};
use crate::time::Timestamp;
use crate::wire::error_code;

/// The one leader epoch there is.
pub const LEADER_EPOCH: i32 = 0;

/// Batches for one partition, in order.
pub(super) struct Addition {
    pub(super) to: Arc<Partition>,
    pub(super) batches: Vec<Batch>,
}

/// What became of one addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes into the log, its first record at `base`; the next free offset is `end`.
    Placed { base: Offset, end: Offset },
    /// It is in the log already.
    Duplicate { base: Offset, end: Offset },
    /// Kafka's error.
    Refused(i16),
}

/// A group on its way.
pub(super) struct InFlight {
    pub(super) fates: Vec<Fate>,
    /// `None` where nothing of it had to be appended.
    pub(super) submitted: Option<Submitted>,
}

/// Whether a group goes as a whole or each partition's part by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// If one part is refused, nothing is appended.
    AllOrNothing,
    /// Each part is judged by itself; all good ones ride in one group.
    EachByItself,
}

/// What was decided about a group whose partitions are locked.
pub(super) struct Decided<'a> {
    fates: &'a [Fate],
    locked: &'a [Option<MutexGuard<'a, State>>],
}

impl Decided<'_> {
    /// Where an addition will lie, by its place in the group.
    pub(super) fn base(&self, of: usize) -> Option<Offset> {
        match self.fates.get(of)? {
            Fate::Placed { base, .. } => Some(*base),
            Fate::Duplicate { .. } | Fate::Refused(_) => None,
        }
    }

    /// Where a producer's open transaction begins in the partition of an addition.
    pub(super) fn open(&self, of: usize, producer_id: i64) -> Option<Offset> {
        match &self.locked.get(of)?.as_ref()?.producers {
            Memory::Loaded(producers) => producers.open(producer_id),
            Memory::Stored { .. } => None,
        }
    }
}

/// Gives offsets to the additions, which are for different partitions, and hands them to the log.
pub(super) fn submit(log: &Log, additions: Vec<Addition>, rule: Rule, permit: Permit, now: Timestamp) -> Result<InFlight, LogError> {
    submit_with(log, additions, rule, permit, now, |_, _| {})
}

/// As [`submit`]; `late` may fill additions that have no batches yet, and whose batches say where the others go.
pub(super) fn submit_with(
    log: &Log,
    mut additions: Vec<Addition>,
    rule: Rule,
    permit: Permit,
    now: Timestamp,
    late: impl FnOnce(&Decided<'_>, &mut [Addition]),
) -> Result<InFlight, LogError> {
    let mut order: Vec<usize> = (0..additions.len()).collect();
    order.sort_by_key(|i| additions[*i].to.key());
    let partitions: Vec<Arc<Partition>> = additions.iter().map(|a| Arc::clone(&a.to)).collect();
    let mut locked: Vec<Option<_>> = partitions.iter().map(|_| None).collect();
    for i in order {
        locked[i] = Some(partitions[i].state().lock());
    }
    let mut fates = Vec::with_capacity(additions.len());
    for (addition, state) in additions.iter().zip(&locked) {
        let state = state.as_ref().expect("every partition was locked");
        fates.push(if state.deleted {
            Fate::Refused(error_code::UNKNOWN_TOPIC_OR_PARTITION)
        } else {
            let base = addition.to.log().end();
            match verdict(&state.producers, &addition.batches) {
                Verdict::Append => Fate::Placed { base, end: base.plus(length(addition)) },
                Verdict::Duplicate { base, last } => Fate::Duplicate { base, end: last.plus(1) },
                Verdict::Refuse(code) => Fate::Refused(code),
            }
        });
    }
    let refused = fates.iter().any(|fate| matches!(fate, Fate::Refused(_)));
    if rule == Rule::AllOrNothing && refused {
        return Ok(InFlight { fates, submitted: None });
    }
    late(&Decided { fates: &fates, locked: &locked }, &mut additions);
    let mut appends = Vec::new();
    for (addition, fate) in additions.into_iter().zip(&mut fates) {
        let Fate::Placed { base, end } = fate else { continue };
        *end = base.plus(length(&addition));
        let mut at = *base;
        for batch in addition.batches {
            let batch = batch.with_base(at, LEADER_EPOCH);
            at = batch.next_offset();
            appends.push(Append { to: Arc::clone(addition.to.log()), batch, received: now });
        }
    }
    if appends.is_empty() {
        return Ok(InFlight { fates, submitted: None });
    }
    // What the producers learn is in the headers and markers, which outlive the group.
    let learned: Vec<_> = appends
        .iter()
        .map(|a| Learned { key: a.to.key(), header: *a.batch.header(), marker: EndMarker::of(&a.batch), bytes: a.batch.len_bytes() })
        .collect();
    let mut begun = Vec::new();
    if learned.iter().any(|one| one.header.is_transactional()) {
        begun.extend(partitions.iter().zip(&locked).filter_map(|(partition, state)| begins(partition, state.as_deref(), &learned)));
    }
    begun.iter().for_each(|(partition, first)| partition.stability().begin(*first));
    let submitted = match log.submit(AppendGroup { appends }, permit) {
        Ok(submitted) => submitted,
        Err(error) => {
            begun.iter().for_each(|(partition, first)| partition.stability().undo(*first));
            return Err(error);
        }
    };
    for (partition, state) in partitions.iter().zip(&mut locked) {
        let state = state.as_mut().expect("every partition was locked");
        for one in learned.iter().filter(|one| one.key == partition.key()) {
            partition.appended(one.bytes);
            if let Memory::Loaded(producers) = &mut state.producers {
                let step = producers.advance(&one.header, one.marker, Offset(one.header.base_offset), now);
                if let Step::Ended { producer_id, first, last, committed } = step {
                    partition.stability().end(producer_id, first, last, committed);
                }
            }
        }
    }
    Ok(InFlight { fates, submitted: Some(submitted) })
}

/// What a batch that is in the log leaves to be known.
struct Learned {
    key: PartitionKey,
    header: BatchHeader,
    marker: Option<EndMarker>,
    bytes: usize,
}

/// Where a transaction begins in a partition with this group. A client sends one batch for a partition at a time.
fn begins<'a>(partition: &'a Partition, state: Option<&State>, learned: &[Learned]) -> Option<(&'a Partition, Offset)> {
    let Some(State { producers: Memory::Loaded(producers), .. }) = state else { return None };
    let first = learned.iter().find(|one| one.key == partition.key() && one.header.is_transactional())?;
    producers.begins(&first.header).then_some((partition, Offset(first.header.base_offset)))
}

fn length(addition: &Addition) -> i64 {
    addition.batches.iter().map(|batch| i64::from(batch.header().last_offset_delta) + 1).sum()
}

fn verdict(memory: &Memory, batches: &[Batch]) -> Verdict {
    match (memory, batches) {
        // Only clients send idempotent batches, one at a time, and their producers were loaded before.
        (Memory::Loaded(producers), [one]) if one.header().has_producer() => producers.judge(one.header()),
        _ => Verdict::Append,
    }
}

/// Batches of the engine that have their offsets and are on their way to the disk.
#[must_use = "it is not durable before this completes"]
pub struct Pending {
    /// Where each batch went, in the order given.
    pub bases: Vec<Offset>,
    submitted: Option<Submitted>,
}

impl Pending {
    pub(super) const fn new(bases: Vec<Offset>, submitted: Option<Submitted>) -> Self {
        Self { bases, submitted }
    }

    /// Completes when all of it is durable and visible.
    pub async fn durable(self) -> Result<Vec<Offset>, BrokerError> {
        if let Some(submitted) = self.submitted {
            submitted.await?;
        }
        Ok(self.bases)
    }
}
