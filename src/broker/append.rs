//! The one way into the log: batches for several partitions get their offsets and go as one append group.
//!
//! Always: a partition's lock is held from judging its producers to handing the group to the log, so that
//! the order of offsets is the order of the log; the locks of a group are taken in the order of their
//! keys. Producers move forward only once the log has taken the group: a group that it refuses (a full
//! disk) leaves no trace, and after a group that it took and lost the log is closed for good.
//! Called by `produce` for clients, by `Broker::submit` for the engine, by `journal` for the node itself.

use std::sync::Arc;

use super::error::BrokerError;
use super::producers::Verdict;
use super::topic::{Memory, Partition};
use crate::log::{Append, AppendGroup, Log, LogError, Permit, Submitted};
use crate::record::{Batch, Offset};
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

/// Gives offsets to the additions, which are for different partitions, and hands them to the log.
pub(super) fn submit(log: &Log, additions: Vec<Addition>, rule: Rule, permit: Permit, now: Timestamp) -> Result<InFlight, LogError> {
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
            let count: i64 = addition.batches.iter().map(|b| i64::from(b.header().last_offset_delta) + 1).sum();
            match verdict(&state.producers, &addition.batches) {
                Verdict::Append => Fate::Placed { base, end: base.plus(count) },
                Verdict::Duplicate { base, last } => Fate::Duplicate { base, end: last.plus(1) },
                Verdict::Refuse(code) => Fate::Refused(code),
            }
        });
    }
    let refused = fates.iter().any(|fate| matches!(fate, Fate::Refused(_)));
    if rule == Rule::AllOrNothing && refused {
        return Ok(InFlight { fates, submitted: None });
    }
    let mut appends = Vec::new();
    for (addition, fate) in additions.into_iter().zip(&fates) {
        let Fate::Placed { base, .. } = *fate else { continue };
        let mut at = base;
        for batch in addition.batches {
            let batch = batch.with_base(at, LEADER_EPOCH);
            at = batch.next_offset();
            appends.push(Append { to: Arc::clone(addition.to.log()), batch, received: now });
        }
    }
    if appends.is_empty() {
        return Ok(InFlight { fates, submitted: None });
    }
    // What the producers learn is in the headers, which outlive the group.
    let headers: Vec<_> = appends.iter().map(|a| (a.to.key(), *a.batch.header(), a.batch.len_bytes())).collect();
    let submitted = log.submit(AppendGroup { appends }, permit)?;
    for (partition, state) in partitions.iter().zip(&mut locked) {
        let state = state.as_mut().expect("every partition was locked");
        for (_, header, bytes) in headers.iter().filter(|(key, ..)| *key == partition.key()) {
            partition.appended(*bytes);
            if let Memory::Loaded(producers) = &mut state.producers {
                producers.advance(header, Offset(header.base_offset), now);
            }
        }
    }
    Ok(InFlight { fates, submitted: Some(submitted) })
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
