//! Telling somebody: webhooks, with retries and an outbox that survives a restart.
//!
//! One [`Notifier`] a target reads topic `alerts` in order; its outbox is its position there, written to a
//! checkpoint after each delivery. Always: every record for the target is delivered at least once, in the
//! order of its partition, or is counted as given up; ids are stable, so a receiver can tell a repetition.
//! The body has the shape of Alertmanager's webhook, version 4, with the record itself beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::record::{ALERTS_TOPIC, AlertRecord, AlertState};
use crate::bus::{Bus, BusError, Commit, Committer, TaskId, attend};
use crate::record::{BatchBuilder, Offset, PartitionId, TopicName, TopicPartition};
use crate::time::Clock;

/// The first wait between two attempts; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Beyond this age a notice helps nobody: it is given up, and counted.
const GIVE_UP_MS: i64 = 3_600_000;

/// Where a target is reached. Implemented over an HTTP client; tests have their own.
pub trait Target: Send + Sync {
    /// Sends one body; `Err` says why it should be tried again. Blocks: it is called off the runtime.
    fn send(&self, body: &[u8]) -> Result<(), String>;
}

/// The configured targets, by name (`'notify' = 'webhook:ward'` names `ward`).
pub type Targets = BTreeMap<String, Arc<dyn Target>>;

/// What became of the notices.
#[derive(Debug, Default)]
pub struct NotifyStats {
    /// Delivered.
    pub delivered: AtomicU64,
    /// Attempts that failed.
    pub failed_attempts: AtomicU64,
    /// Too old before anyone took them.
    pub given_up: AtomicU64,
}

/// Tells one target.
pub struct Notifier {
    /// The name a rule uses.
    pub name: String,
    /// Where it is reached.
    pub target: Arc<dyn Target>,
    /// The log.
    pub bus: Arc<dyn Bus>,
    /// The time that ages are judged by.
    pub clock: Clock,
    /// What became of the notices.
    pub stats: Arc<NotifyStats>,
}

impl Notifier {
    fn id(&self) -> TaskId {
        TaskId { owner: format!("notify.{}", self.name).into(), index: 0 }
    }

    /// Runs until told to stop, whenever the target is this process's to tell.
    pub async fn attend(self, partitions: i32, stop: watch::Receiver<bool>) -> Result<(), BusError> {
        let id = self.id();
        let passes = |error: &BusError| matches!(error, BusError::Retriable(_));
        attend(self.bus.as_ref(), &id, stop, |stop| self.run(partitions, stop), passes).await
    }

    /// Runs until told to stop. A notice in flight is finished or repeated after the restart.
    async fn run(&self, partitions: i32, mut stop: watch::Receiver<bool>) -> Result<(), BusError> {
        let topic = TopicName::new(ALERTS_TOPIC).expect("a constant name");
        let id = self.id();
        let mut committer = self.bus.committer(&id).await?;
        let outbox = crate::stream::checkpoint_place(&id);
        let mut positions = self.restore(&outbox).await?;
        let places: Vec<TopicPartition> = (0..partitions).map(|p| TopicPartition::new(topic.clone(), PartitionId(p))).collect();
        for place in &places {
            let bounds = self.bus.bounds(place).await?;
            // A target that is new hears of what comes, not of what was.
            positions.entry(place.partition.0).or_insert(bounds.end.0);
        }
        self.remember(committer.as_mut(), &positions, &outbox).await?;
        let mut readers = Vec::with_capacity(places.len());
        for place in &places {
            let from = Offset(positions[&place.partition.0]).max(self.bus.bounds(place).await?.start);
            readers.push(self.bus.open(place, from).await?);
        }
        loop {
            let mut moved = false;
            for (place, reader) in places.iter().zip(&mut readers) {
                let from = reader.position();
                let batches = match reader.poll(1 << 20).await {
                    // Retention went past what was not yet delivered.
                    Err(BusError::OutOfRange { range, .. }) if range.start > from => {
                        *reader = self.bus.open(place, range.start).await?;
                        moved = true;
                        continue;
                    }
                    batches => batches?,
                };
                for batch in batches {
                    moved = true;
                    let Ok(records) = batch.records() else { continue };
                    for record in records.iter().flatten().filter(|r| r.offset >= from) {
                        let alert = record.value.and_then(|v| serde_json::from_slice::<AlertRecord>(v).ok());
                        if let Some(alert) = alert.filter(|a| a.notify.contains(&self.name) && !a.stale)
                            && !self.deliver(&alert, &mut stop).await
                        {
                            return Ok(());
                        }
                        positions.insert(place.partition.0, record.offset.0 + 1);
                    }
                    self.remember(committer.as_mut(), &positions, &outbox).await?;
                }
            }
            if moved {
                continue;
            }
            let waits = places.iter().zip(&readers).map(|(place, reader)| self.bus.wait(place, reader.position()));
            tokio::select! {
                (first, _, _) = futures::future::select_all(waits) => first?,
                changed = stop.changed() => if changed.is_err() || *stop.borrow() { return Ok(()) },
            }
        }
    }

    /// Tries until it is taken, too old, or we are told to stop (then `false`).
    async fn deliver(&self, alert: &AlertRecord, stop: &mut watch::Receiver<bool>) -> bool {
        let body = serde_json::to_vec(&webhook_body(&self.name, alert)).expect("a notice is plain data");
        let recorded = crate::time::Timestamp::parse(&alert.recorded_at);
        let mut wait = FIRST_WAIT;
        loop {
            let (target, bytes) = (Arc::clone(&self.target), body.clone());
            let sent = tokio::task::spawn_blocking(move || target.send(&bytes)).await;
            match sent {
                Ok(Ok(())) => {
                    self.stats.delivered.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Ok(Err(why)) => {
                    self.stats.failed_attempts.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(target_name = %self.name, alert = %alert.id, %why, "could not notify, will try again");
                }
                Err(_) => return false,
            }
            if recorded.is_some_and(|at| self.clock.now().since(at) > GIVE_UP_MS) {
                self.stats.given_up.fetch_add(1, Ordering::Relaxed);
                tracing::error!(target_name = %self.name, alert = %alert.id, "gave up notifying: the alert is over an hour old");
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = stop.changed() => if changed.is_err() || *stop.borrow() { return false },
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn restore(&self, outbox: &TopicPartition) -> Result<BTreeMap<i32, i64>, BusError> {
        let bounds = self.bus.bounds(outbox).await?;
        let mut positions = BTreeMap::new();
        let mut reader = self.bus.open(outbox, bounds.start).await?;
        while reader.position() < bounds.end {
            let batches = reader.poll(1 << 20).await?;
            if batches.is_empty() {
                break;
            }
            for batch in batches {
                let Ok(records) = batch.records() else { continue };
                for record in records.iter().flatten() {
                    if let Some(at) = record.value.and_then(|v| serde_json::from_slice(v).ok()) {
                        positions = at;
                    }
                }
            }
        }
        Ok(positions)
    }

    async fn remember(
        &self,
        committer: &mut dyn Committer,
        positions: &BTreeMap<i32, i64>,
        outbox: &TopicPartition,
    ) -> Result<(), BusError> {
        let mut checkpoint = BatchBuilder::new();
        let value = serde_json::to_vec(positions).expect("positions are plain data");
        checkpoint.push(self.clock.now().0, Some(b"positions"), Some(&value), &[]);
        let at = committer.commit(Commit { outputs: Vec::new(), checkpoint: Some(checkpoint) }).await?;
        if let Some(at) = at.filter(|at| at.0 % 64 == 0) {
            self.bus.trim(outbox, at).await?;
        }
        Ok(())
    }
}

/// The body of a notice.
#[must_use]
pub fn webhook_body(receiver: &str, alert: &AlertRecord) -> Value {
    let status = if alert.state == AlertState::Resolved { "resolved" } else { "firing" };
    let ends = if alert.state == AlertState::Resolved { alert.ts.as_str() } else { "0001-01-01T00:00:00Z" };
    let labels = json!({ "alertname": alert.rule, "priority": alert.priority.as_str(), "state": alert.state.as_str() });
    json!({
        "version": "4",
        "groupKey": format!("{{}}:{{alertname=\"{}\"}}", alert.rule),
        "truncatedAlerts": 0,
        "status": status,
        "receiver": receiver,
        "groupLabels": { "alertname": alert.rule },
        "commonLabels": labels,
        "commonAnnotations": { "notice": alert.notice },
        "externalURL": "",
        "alerts": [{
            "status": status,
            "labels": labels,
            "annotations": { "subject": alert.subject, "value": alert.value.map(|v| v.to_string()), "notice": alert.notice },
            "startsAt": alert.since,
            "endsAt": ends,
            "generatorURL": "",
            "fingerprint": alert.id,
            "record": alert,
        }],
    })
}
