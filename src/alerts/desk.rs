//! The desk: which alerts are open now, and who wants to hear of changes.
//!
//! Built from topic `alerts` alone, by reading it from its start: what the desk shows is what is durable.
//! Always: one entry an alert id, its latest record. Ended alerts are kept for a while, newest first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{broadcast, watch};

use super::record::{ALERTS_TOPIC, AlertRecord, AlertState};
use crate::bus::{Bus, BusError};
use crate::record::{Offset, PartitionId, TopicName, TopicPartition};

/// How many ended alerts the desk remembers.
const KEPT_ENDED: usize = 1000;
/// How many changes a slow listener may be behind.
const BACKLOG: usize = 1024;

/// An alert as the desk knows it.
pub type DeskAlert = Arc<AlertRecord>;

/// The open alerts, and the last that ended.
pub struct Desk {
    known: RwLock<Known>,
    changes: broadcast::Sender<DeskAlert>,
}

#[derive(Default)]
struct Known {
    open: BTreeMap<String, DeskAlert>,
    ended: VecDeque<DeskAlert>,
    caught_up: bool,
}

impl Default for Desk {
    fn default() -> Self {
        Self { known: RwLock::default(), changes: broadcast::channel(BACKLOG).0 }
    }
}

impl Desk {
    /// Reads the topic's partitions forward until told to stop. Malformed records (anyone may write to a
    /// topic) are passed over.
    pub async fn run(&self, bus: &dyn Bus, partitions: i32, mut stop: watch::Receiver<bool>) -> Result<(), BusError> {
        let topic = TopicName::new(ALERTS_TOPIC).expect("a constant name");
        let places: Vec<TopicPartition> = (0..partitions).map(|p| TopicPartition::new(topic.clone(), PartitionId(p))).collect();
        let mut readers = Vec::new();
        for place in &places {
            let start = bus.bounds(place).await?.start;
            readers.push(bus.open(place, start).await?);
        }
        loop {
            let mut moved = false;
            for reader in &mut readers {
                let from = reader.position();
                for batch in reader.poll(4 << 20).await? {
                    moved = true;
                    let Ok(records) = batch.records() else { continue };
                    for record in records.iter().flatten().filter(|r| r.offset >= from) {
                        if let Some(alert) = record.value.and_then(|v| serde_json::from_slice(v).ok()) {
                            self.take(alert);
                        }
                    }
                }
            }
            if moved {
                continue;
            }
            self.known.write().caught_up = true;
            let waits = places.iter().zip(&readers).map(|(place, reader)| wait_past(bus, place, reader.position()));
            tokio::select! {
                (first, _, _) = futures::future::select_all(waits.map(Box::pin)) => first?,
                changed = stop.changed() => if changed.is_err() || *stop.borrow() { return Ok(()) },
            }
        }
    }

    /// Takes one record: the latest word on its alert.
    pub fn take(&self, alert: AlertRecord) {
        let alert = Arc::new(alert);
        {
            let mut known = self.known.write();
            if alert.state == AlertState::Resolved {
                known.open.remove(&alert.id);
                known.ended.push_front(Arc::clone(&alert));
                known.ended.truncate(KEPT_ENDED);
            } else {
                known.open.insert(alert.id.clone(), Arc::clone(&alert));
            }
        }
        let _ = self.changes.send(alert);
    }

    /// The open alerts, gravest first, then newest first.
    #[must_use]
    pub fn open(&self) -> Vec<DeskAlert> {
        let mut open: Vec<DeskAlert> = self.known.read().open.values().cloned().collect();
        open.sort_by(|a, b| (b.priority, &b.raised, &a.id).cmp(&(a.priority, &a.raised, &b.id)));
        open
    }

    /// The alerts that ended last, newest first.
    #[must_use]
    pub fn ended(&self, most: usize) -> Vec<DeskAlert> {
        self.known.read().ended.iter().take(most).cloned().collect()
    }

    /// One open alert.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<DeskAlert> {
        self.known.read().open.get(id).cloned()
    }

    /// Whether the desk has read all that was there.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.known.read().caught_up
    }

    /// Hears of every change from now on. A listener that is too slow is told how many it missed.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<DeskAlert> {
        self.changes.subscribe()
    }
}

async fn wait_past(bus: &dyn Bus, place: &TopicPartition, from: Offset) -> Result<(), BusError> {
    bus.wait(place, from).await
}
