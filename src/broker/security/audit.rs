//! The audit trail: internal topic `__audit`, in which each record carries the hash of the one before it.
//!
//! Always: a record that says something was changed is durable before the change is answered; what was once written
//! cannot be rewritten without every later record showing it; nobody writes to the topic or deletes from it through the
//! API. The same refusal over and over is written once, and then how often it came. [`Chain`] checks a trail.
//! Called by `security`; `broker` runs it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ring::digest;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::broker::append::{Addition, Rule, submit};
use crate::broker::catalogue::internal_id;
use crate::broker::error::BrokerError;
use crate::broker::journal::SEGMENT_BYTES;
use crate::broker::producers::Producers;
use crate::broker::topic::Partition;
use crate::log::{Log, LogError, PartitionConfig, PartitionKey};
use crate::record::{BatchBuilder, Offset, PartitionId, TopicName, TopicPartition};
use crate::time::Clock;

/// The topic it is in.
pub const AUDIT_TOPIC: &str = "__audit";
/// The trail keeps its newest records, up to about so many bytes.
pub const AUDIT_BYTES: u64 = 4 << 30;
/// Events that wait to be written. Beyond it, those that nobody waits for are only counted.
const QUEUE: usize = 4096;
/// Events that go into one batch.
const BATCH: usize = 256;
/// The same refusal within this time is counted.
const REPEATED: Duration = Duration::from_secs(10);
/// Different refusals that are counted at a time.
const COUNTED: usize = 1024;

/// Something worth remembering.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditEvent {
    /// What happened: `authentication`, `authorization`, `administration`.
    pub kind: &'static str,
    /// Whether it was done: `success`, `failure`, `denied`.
    pub outcome: &'static str,
    /// Who did it, or claimed to be.
    pub principal: String,
    /// From where.
    pub host: String,
    /// The rest, in words: which operation, on what.
    pub what: Vec<(&'static str, String)>,
}

/// An event on its way, and who waits for it.
type Queued = (AuditEvent, Option<oneshot::Sender<Result<(), String>>>);

/// What the next record goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    sequence: u64,
    previous: String,
}

/// The audit trail.
pub(in crate::broker) struct Audit {
    partition: Arc<Partition>,
    log: Arc<Log>,
    clock: Clock,
    send: mpsc::Sender<Queued>,
    queue: Mutex<Option<mpsc::Receiver<Queued>>>,
    missed: AtomicU64,
    head: Mutex<Head>,
}

fn hash(value: &[u8]) -> String {
    digest::digest(&digest::SHA256, value).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Audit {
    /// Opens it and finds its last record. Blocks.
    pub(in crate::broker) fn open(log: &Arc<Log>, clock: Clock) -> Result<Self, BrokerError> {
        let topic = TopicName::new(AUDIT_TOPIC).expect("internal names are valid");
        let key = PartitionKey { topic: internal_id(b"_audited"), partition: PartitionId(0) };
        let config = PartitionConfig { segment_bytes: SEGMENT_BYTES, ..PartitionConfig::default() };
        let stored = log.create(key, &topic, config)?;
        let broken = |e: &dyn std::fmt::Display| BrokerError::Internal { topic: AUDIT_TOPIC, why: e.to_string() };
        let mut head = Head { sequence: 0, previous: String::new() };
        let end = stored.durable_end();
        if end > stored.start() {
            let fetched = stored.read(Offset(end.0 - 1), 1)?;
            for batch in fetched.batches() {
                let batch = batch.map_err(|e| broken(&e))?;
                for record in &batch.records().map_err(|e| broken(&e))? {
                    let record = record.map_err(|e| broken(&e))?;
                    let value = record.value.unwrap_or_default();
                    let sequence = serde_json::from_slice::<Value>(value).ok().and_then(|v| v.get("sequence")?.as_u64());
                    head = Head { sequence: sequence.map_or(head.sequence, |n| n + 1), previous: hash(value) };
                }
            }
        }
        let of = TopicPartition::new(topic, PartitionId(0));
        let partition = Arc::new(Partition::new(of, Arc::clone(&stored), log.failed(), Producers::default(), stored.end()));
        let (send, queue) = mpsc::channel(QUEUE);
        Ok(Self {
            partition,
            log: Arc::clone(log),
            clock,
            send,
            queue: Mutex::new(Some(queue)),
            missed: AtomicU64::new(0),
            head: Mutex::new(head),
        })
    }

    pub(in crate::broker) const fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// Notes an event that nobody waits for.
    pub(super) fn note(&self, event: AuditEvent) {
        if self.send.try_send((event, None)).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes an event down, durably when this returns.
    pub(super) async fn write(&self, event: AuditEvent) -> Result<(), BrokerError> {
        let (done, wait) = oneshot::channel();
        let failed = |why: String| BrokerError::Internal { topic: AUDIT_TOPIC, why };
        let gone = || failed("the node is stopping".to_owned());
        self.send.send((event, Some(done))).await.map_err(|_| gone())?;
        wait.await.map_err(|_| gone())?.map_err(failed)
    }

    /// Writes what is noted until the stop, and then what is left.
    pub(in crate::broker) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let Some(mut queue) = self.queue.lock().take() else { return };
        let mut repeats = Repeats::default();
        loop {
            let mut events = Vec::with_capacity(BATCH);
            let due = repeats.due();
            tokio::select! {
                biased;
                count = queue.recv_many(&mut events, BATCH) => if count == 0 { return },
                () = wait_until(due) => {}
                () = stop.cancelled() => {
                    queue.close();
                    while let Ok(event) = queue.try_recv() {
                        events.push(event);
                    }
                    let rest = repeats.take(None);
                    let _ = self.append(events, rest, &mut repeats).await;
                    return;
                }
            }
            let rest = repeats.take(Some(tokio::time::Instant::now()));
            if let Err(error) = self.append(events, rest, &mut repeats).await {
                tracing::error!(%error, "could not write the audit trail");
            }
        }
    }

    async fn append(&self, events: Vec<Queued>, counted: Vec<(AuditEvent, u64)>, repeats: &mut Repeats) -> Result<(), LogError> {
        let now = self.clock.now();
        let mut head = self.head.lock().clone();
        let mut batch = BatchBuilder::new();
        let mut waiting = Vec::new();
        let missed = self.missed.swap(0, Ordering::Relaxed);
        let mut all: Vec<(AuditEvent, u64)> = Vec::new();
        for (event, waits) in events {
            if waits.is_some() || repeats.is_new(&event, tokio::time::Instant::now()) {
                all.push((event, 1));
            }
            waiting.extend(waits);
        }
        all.extend(counted);
        for (i, (event, times)) in all.iter().enumerate() {
            let value = render(event, *times, if i == 0 { missed } else { 0 }, now.0, &head);
            head = Head { sequence: head.sequence + 1, previous: hash(&value) };
            batch.push(now.0, None, Some(&value), &[]);
        }
        let result = if all.is_empty() { Ok(()) } else { self.hand_over(batch, now).await };
        if result.is_ok() {
            *self.head.lock() = head;
        }
        for one in waiting {
            // Whoever asked may have gone; then nobody is told.
            let _ = one.send(result.as_ref().map_err(ToString::to_string).copied());
        }
        result
    }

    async fn hand_over(&self, batch: BatchBuilder, now: crate::time::Timestamp) -> Result<(), LogError> {
        let permit = self.log.room(batch.size()).await;
        let addition = Addition { to: Arc::clone(&self.partition), batches: vec![batch.finish()] };
        match submit(&self.log, vec![addition], Rule::AllOrNothing, permit, now)?.submitted {
            Some(submitted) => submitted.await.map(drop),
            None => Ok(()),
        }
    }
}

async fn wait_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn render(event: &AuditEvent, times: u64, missed: u64, now: i64, head: &Head) -> Vec<u8> {
    let mut record = Map::new();
    record.insert("sequence".to_owned(), head.sequence.into());
    record.insert("time_ms".to_owned(), now.into());
    record.insert("kind".to_owned(), event.kind.into());
    record.insert("outcome".to_owned(), event.outcome.into());
    record.insert("principal".to_owned(), event.principal.as_str().into());
    record.insert("host".to_owned(), event.host.as_str().into());
    for (name, value) in &event.what {
        record.insert((*name).to_owned(), value.as_str().into());
    }
    if times > 1 {
        record.insert("times".to_owned(), times.into());
    }
    if missed > 0 {
        record.insert("missed_before".to_owned(), missed.into());
    }
    record.insert("previous".to_owned(), head.previous.as_str().into());
    Value::Object(record).to_string().into_bytes()
}

/// Refusals that came before, a moment ago.
#[derive(Default)]
struct Repeats(BTreeMap<AuditEvent, (u64, tokio::time::Instant)>);

impl Repeats {
    /// Whether an event is to be written; else it is counted.
    fn is_new(&mut self, event: &AuditEvent, now: tokio::time::Instant) -> bool {
        if event.outcome == "success" {
            return true;
        }
        if let Some((count, _)) = self.0.get_mut(event) {
            *count += 1;
            return false;
        }
        if self.0.len() < COUNTED {
            self.0.insert(event.clone(), (0, now + REPEATED));
        }
        true
    }

    /// When the first count is to be written.
    fn due(&self) -> Option<tokio::time::Instant> {
        self.0.values().map(|(_, due)| *due).min()
    }

    /// Takes the counts out whose time has come, or all.
    fn take(&mut self, now: Option<tokio::time::Instant>) -> Vec<(AuditEvent, u64)> {
        let over: Vec<AuditEvent> =
            self.0.iter().filter(|(_, (_, due))| now.is_none_or(|now| *due <= now)).map(|(e, _)| e.clone()).collect();
        let counted = over.into_iter().filter_map(|event| self.0.remove(&event).map(|(count, _)| (event, count)));
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

/// What is wrong with a trail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// It is not one of its records.
    #[error("record {0} is not a record of an audit trail")]
    Unreadable(u64),
    /// A record before it is missing.
    #[error("record {found} follows where record {wanted} should")]
    Gap {
        /// What should have come.
        wanted: u64,
        /// What came.
        found: u64,
    },
    /// The record before it, or it, was changed.
    #[error("record {0} does not carry the hash of the record before it")]
    Changed(u64),
}

/// Checks a trail, record by record. Where it begins is taken as it is: older records may have been let go.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    head: Option<Head>,
    count: u64,
}

impl Chain {
    /// Takes the next record.
    pub fn check(&mut self, value: &[u8]) -> Result<(), ChainFault> {
        let at = self.head.as_ref().map_or(0, |head| head.sequence);
        let record: Value = serde_json::from_slice(value).map_err(|_| ChainFault::Unreadable(at))?;
        let sequence = record.get("sequence").and_then(Value::as_u64).ok_or(ChainFault::Unreadable(at))?;
        let previous = record.get("previous").and_then(Value::as_str).ok_or(ChainFault::Unreadable(at))?;
        if let Some(head) = &self.head {
            if head.sequence != sequence {
                return Err(ChainFault::Gap { wanted: head.sequence, found: sequence });
            }
            if head.previous != previous {
                return Err(ChainFault::Changed(sequence));
            }
        } else if sequence == 0 && !previous.is_empty() {
            return Err(ChainFault::Changed(0));
        }
        self.head = Some(Head { sequence: sequence + 1, previous: hash(value) });
        self.count += 1;
        Ok(())
    }

    /// How many records it has seen.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The hash of the last record: whoever notes it elsewhere can tell later whether the end was cut off.
    #[must_use]
    pub fn last_hash(&self) -> Option<&str> {
        self.head.as_ref().map(|head| head.previous.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(outcome: &'static str) -> AuditEvent {
        AuditEvent {
            kind: "authorization",
            outcome,
            principal: "User:alice".to_owned(),
            host: "10.0.0.1".to_owned(),
            what: vec![("operation", "Read".to_owned())],
        }
    }

    fn trail(count: u64) -> Vec<Vec<u8>> {
        let mut head = Head { sequence: 0, previous: String::new() };
        (0..count)
            .map(|n| {
                let value = render(&event("denied"), n, 0, 1000 + n as i64, &head);
                head = Head { sequence: head.sequence + 1, previous: hash(&value) };
                value
            })
            .collect()
    }

    fn check(trail: &[Vec<u8>]) -> Result<Chain, ChainFault> {
        let mut chain = Chain::default();
        trail.iter().try_for_each(|value| chain.check(value))?;
        Ok(chain)
    }

    #[test]
    fn a_trail_shows_what_was_changed_left_out_or_put_in() {
        let whole = trail(5);
        let chain = check(&whole).unwrap();
        assert_eq!((chain.count(), chain.last_hash()), (5, Some(hash(&whole[4]).as_str())));
        assert!(check(&whole[2..]).is_ok(), "it may begin later");
        let without = [&whole[..2], &whole[3..]].concat();
        assert_eq!(check(&without).unwrap_err(), ChainFault::Gap { wanted: 2, found: 3 });
        let mut changed = whole;
        let text = String::from_utf8(changed[1].clone()).unwrap().replace("alice", "bob");
        changed[1] = text.into_bytes();
        assert_eq!(check(&changed).unwrap_err(), ChainFault::Changed(2));
        changed[1] = b"{}".to_vec();
        assert_eq!(check(&changed).unwrap_err(), ChainFault::Unreadable(1));
    }

    #[test]
    fn the_same_refusal_is_written_once_and_then_counted() {
        let mut repeats = Repeats::default();
        let now = tokio::time::Instant::now();
        assert!(repeats.is_new(&event("denied"), now));
        assert!(!repeats.is_new(&event("denied"), now) && !repeats.is_new(&event("denied"), now));
        assert!(repeats.is_new(&event("success"), now) && repeats.is_new(&event("success"), now));
        assert_eq!(repeats.due(), Some(now + REPEATED));
        assert!(repeats.take(Some(now)).is_empty());
        assert_eq!(repeats.take(Some(now + REPEATED)), vec![(event("denied"), 2)]);
        assert!(repeats.is_new(&event("denied"), now) && repeats.due().is_some());
        assert!(repeats.take(None).is_empty(), "what came once is written already");
    }
}
