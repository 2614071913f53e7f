//! An internal topic of one partition that the broker keeps its own state in: [`Journal`].
//!
//! Records have keys; the last one of a key holds, and one without value takes the key away. Always: what is
//! in memory is what the submitted records say, in their order. When the log of a journal has grown to a
//! multiple of what it holds, everything it holds is written once more behind it, in one append group, and
//! what lies before goes. Called by `catalogue`, `coordinator` and `producer_ids`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::append::{Addition, Fate, Rule, submit};
use super::error::BrokerError;
use super::producers::Producers;
use super::topic::Partition;
use crate::log::{Log, LogError, PartitionConfig, PartitionKey, Permit, Submitted};
use crate::record::{Batch, BatchBuilder, Offset, PartitionId, TopicId, TopicName, TopicPartition};
use crate::time::{Clock, Timestamp};

/// The segments of an internal topic are small, so that what was rewritten soon goes.
pub(super) const SEGMENT_BYTES: u64 = 4 << 20;
/// One batch of a journal is not larger than this.
const BATCH_BYTES: usize = 512 << 10;
/// A journal shorter than this is left alone.
const SHORT: u64 = 4 << 20;
/// A journal that is this many times as long as what it holds is rewritten.
const SLACK: u64 = 4;

/// One record: what it is about, and what holds from now on.
pub(super) type Entry = (Vec<u8>, Option<Vec<u8>>);

/// The broker's own state of one kind.
pub(super) struct Journal {
    partition: Arc<Partition>,
    log: Arc<Log>,
    clock: Clock,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: u64,
    /// Bytes of batches between the partition's start and its end.
    length: u64,
}

impl Held {
    fn take(&mut self, key: &[u8], value: Option<&[u8]>) {
        let old = match value {
            Some(value) => {
                self.bytes += (key.len() + value.len()) as u64;
                self.entries.insert(key.to_vec(), value.to_vec())
            }
            None => self.entries.remove(key),
        };
        if let Some(old) = old {
            self.bytes -= (key.len() + old.len()) as u64;
        }
    }
}

impl Journal {
    /// Opens the journal and reads it: every record in order is shown to `each`. Blocks.
    pub(super) fn open(
        log: &Arc<Log>,
        name: &'static str,
        id: TopicId,
        clock: Clock,
        mut each: impl FnMut(Offset, Option<&[u8]>, Option<&[u8]>),
    ) -> Result<Arc<Self>, BrokerError> {
        let topic = TopicName::new(name).expect("internal names are valid");
        let key = PartitionKey { topic: id, partition: PartitionId(0) };
        let config = PartitionConfig { segment_bytes: SEGMENT_BYTES, ..PartitionConfig::default() };
        let stored = log.create(key, &topic, config)?;
        let mut held = Held::default();
        let mut at = stored.start();
        while at < stored.durable_end() {
            let fetched = stored.read(at, SHORT as usize)?;
            if fetched.next <= at {
                break;
            }
            for batch in fetched.batches() {
                let broken = |e: &dyn std::fmt::Display| BrokerError::Internal { topic: name, why: e.to_string() };
                let batch = batch.map_err(|e| broken(&e))?;
                held.length += batch.len_bytes() as u64;
                let records = batch.records().map_err(|e| broken(&e))?;
                for record in &records {
                    let record = record.map_err(|e| broken(&e))?;
                    if let Some(key) = record.key {
                        held.take(key, record.value);
                    }
                    each(record.offset, record.key, record.value);
                }
            }
            at = fetched.next;
        }
        let of = TopicPartition::new(topic, PartitionId(0));
        let end = stored.end();
        let partition = Arc::new(Partition::new(of, stored, log.failed(), Producers::default(), end));
        Ok(Arc::new(Self { partition, log: Arc::clone(log), clock, held: Mutex::new(held) }))
    }

    /// The partition it lives in.
    pub(super) const fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// Waits until the log can take about so many bytes. To be had before any lock.
    pub(super) async fn room(&self, bytes: usize) -> Permit {
        self.log.room(bytes).await
    }

    /// Hands records to the log, in the order of the calls. Answers the first one's offset.
    pub(super) fn submit(&self, entries: &[Entry], permit: Permit) -> Result<(Offset, Submitted), LogError> {
        let now = self.clock.now();
        let mut held = self.held.lock();
        let batches = batches(entries.iter().map(|(k, v)| (k.as_slice(), v.as_deref())), now);
        let length = length(&batches);
        let placed = self.hand_over(batches, permit, now)?;
        held.length += length;
        for (key, value) in entries {
            held.take(key, value.as_deref());
        }
        Ok(placed)
    }

    /// Lets records ride in an append group of somebody else: `submit` is given where they go (nothing, where
    /// there are none) and the offset of the first, adds what else belongs to the group, and hands it to
    /// the log as a whole. Where it answers `Err` or `None`, nothing was handed over.
    pub(super) fn ride<T, E>(
        &self,
        entries: &[Entry],
        submit: impl FnOnce(Option<Addition>) -> Result<Option<T>, E>,
    ) -> Result<Option<(Offset, T)>, E> {
        let now = self.clock.now();
        let mut held = self.held.lock();
        let batches = batches(entries.iter().map(|(k, v)| (k.as_slice(), v.as_deref())), now);
        let length = length(&batches);
        // Whatever goes into this partition goes through `held`, so its end is where the records will lie.
        let first = self.partition.log().end();
        let addition = (!batches.is_empty()).then(|| Addition { to: Arc::clone(&self.partition), batches });
        let Some(submitted) = submit(addition)? else { return Ok(None) };
        held.length += length;
        for (key, value) in entries {
            held.take(key, value.as_deref());
        }
        Ok(Some((first, submitted)))
    }

    /// As [`Journal::ride`], for records that depend on where the rest of the group goes: `submit` is given an
    /// addition that is to be filled by the second thing it is given, and answers with the records it has put there.
    pub(super) fn ride_late<T, E>(
        &self,
        submit: impl FnOnce(Addition, &dyn Fn(&[Entry]) -> Vec<Batch>) -> Result<Option<(T, Vec<Entry>)>, E>,
    ) -> Result<Option<T>, E> {
        let now = self.clock.now();
        let mut held = self.held.lock();
        let added = std::cell::Cell::new(0);
        let make = |entries: &[Entry]| {
            let batches = batches(entries.iter().map(|(k, v)| (k.as_slice(), v.as_deref())), now);
            added.set(length(&batches));
            batches
        };
        let addition = Addition { to: Arc::clone(&self.partition), batches: Vec::new() };
        let Some((submitted, entries)) = submit(addition, &make)? else { return Ok(None) };
        held.length += added.get();
        for (key, value) in &entries {
            held.take(key, value.as_deref());
        }
        Ok(Some(submitted))
    }

    fn hand_over(&self, batches: Vec<Batch>, permit: Permit, now: Timestamp) -> Result<(Offset, Submitted), LogError> {
        let addition = Addition { to: Arc::clone(&self.partition), batches };
        let in_flight = submit(&self.log, vec![addition], Rule::AllOrNothing, permit, now)?;
        match (in_flight.fates.first(), in_flight.submitted) {
            (Some(Fate::Placed { base, .. }), Some(submitted)) => Ok((*base, submitted)),
            _ => unreachable!("a journal is not deleted, has no producers, and was given records"),
        }
    }

    /// Adds the records that take away whatever is held under a key that is `gone`.
    pub(super) fn forget(&self, gone: impl Fn(&[u8]) -> bool, into: &mut Vec<Entry>) {
        into.extend(self.held.lock().entries.keys().filter(|key| gone(key)).map(|key| (key.clone(), None)));
    }

    /// Appends records, durable when this returns. Answers the first one's offset.
    pub(super) async fn append(&self, entries: &[Entry]) -> Result<Offset, LogError> {
        if entries.is_empty() {
            return Ok(self.partition.log().end());
        }
        let permit = self.room(size(entries)).await;
        let (first, submitted) = self.submit(entries, permit)?;
        submitted.await?;
        Ok(first)
    }

    /// Rewrites the journal where it has grown too long. Answers whether it did.
    pub(super) async fn tidy(&self) -> Result<bool, BrokerError> {
        let holds = {
            let held = self.held.lock();
            if held.length < SHORT.max(held.bytes.saturating_mul(SLACK)) {
                return Ok(false);
            }
            held.bytes
        };
        self.rewrite(holds).await
    }

    /// Rewrites the journal, which holds about so many bytes.
    pub(super) async fn rewrite(&self, holds: u64) -> Result<bool, BrokerError> {
        let permit = self.room(usize::try_from(holds).unwrap_or(usize::MAX)).await;
        let now = self.clock.now();
        let end = self.partition.log().end();
        let first = {
            // Records that were submitted before are in `held`, those that come after lie behind.
            let mut held = self.held.lock();
            let all = batches(held.entries.iter().map(|(k, v)| (k.as_slice(), Some(v.as_slice()))), now);
            let length = length(&all);
            let first = if all.is_empty() { Err(end) } else { Ok(self.hand_over(all, permit, now)?) };
            held.length = length;
            first
        };
        let start = match first {
            Ok((first, submitted)) => {
                submitted.await?;
                first
            }
            Err(end) => {
                if !self.partition.visible(end).await {
                    return Ok(false);
                }
                end
            }
        };
        let log = Arc::clone(self.partition.log());
        tokio::task::spawn_blocking(move || log.advance_start(start))
            .await
            .map_err(|e| BrokerError::Internal { topic: "journal", why: e.to_string() })??;
        Ok(true)
    }
}

/// About how many bytes entries take.
pub(super) fn size(entries: &[Entry]) -> usize {
    entries.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len) + 32).sum()
}

fn length(batches: &[Batch]) -> u64 {
    batches.iter().map(|batch| batch.len_bytes() as u64).sum()
}

fn batches<'a>(entries: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>, now: Timestamp) -> Vec<Batch> {
    let mut all = Vec::new();
    let mut open = BatchBuilder::new();
    for (key, value) in entries {
        open.push(now.0, Some(key), value, &[]);
        if open.size() >= BATCH_BYTES {
            all.push(std::mem::take(&mut open).finish());
        }
    }
    if !open.is_empty() {
        all.push(open.finish());
    }
    all
}
