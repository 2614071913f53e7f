//! Who holds each lane, and by which catalogue they act: [`Roster`], kept in topic `<application id>.processes`.
//!
//! One record a lane, written through the lane itself: whoever has lost it cannot claim it any more, so that the last record is
//! its holder's, always. The topic also holds which process is the newest of its name (`namesake`). Read by every process.
//! Called by [`super::KafkaBus`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::cluster::Cluster;
use super::lane::{Lanes, Which};
use super::namesake::Namesakes;
use super::reader::Readers;
use super::sending::Parcel;
use super::shares::Shares;
use crate::bus::{BusError, Reader, TopicSpec, Whereabouts};
use crate::record::{Batch, BatchBuilder, Offset, PartitionId, TopicName, TopicPartition};
use crate::time::Clock;

/// How long until what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What a holder says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// The process, by its name in the group.
    process: String,
    /// What it is called when people are told.
    shown: String,
    /// It acts by the catalogue as it stands below this.
    catalogue: i64,
}

/// The holders of all lanes.
pub(super) struct Roster {
    inner: Arc<Inner>,
    _stop: DropGuard,
}

struct Inner {
    topic: TopicPartition,
    cluster: Arc<Cluster>,
    readers: Arc<Readers>,
    lanes: Arc<Lanes>,
    shares: Arc<Shares>,
    namesakes: Arc<Namesakes>,
    known: Mutex<BTreeMap<i32, Holder>>,
    /// Something new is known.
    heard: watch::Sender<()>,
    /// By which catalogue this process acts.
    catalogue: watch::Sender<i64>,
}

impl Roster {
    /// Begins to follow the roster and to write this process's part of it.
    pub(super) async fn open(cluster: &Arc<Cluster>, readers: &Arc<Readers>, lanes: &Arc<Lanes>) -> Result<Self, BusError> {
        let name = format!("{}.processes", lanes.terms.application_id);
        let topic = TopicName::new(&name).map_err(|e| BusError::Invalid(format!("topic {name}: {e}")))?;
        let configs = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        cluster.ensure(&topic, &TopicSpec { partitions: 1, configs }).await?;
        let topic = TopicPartition::new(topic, PartitionId(0));
        let namesakes = Arc::new(Namesakes::announce(topic.clone(), cluster, readers, lanes).await?);
        let inner = Arc::new(Inner {
            topic,
            cluster: Arc::clone(cluster),
            readers: Arc::clone(readers),
            lanes: Arc::clone(lanes),
            shares: Arc::clone(&lanes.shares),
            namesakes,
            known: Mutex::default(),
            heard: watch::Sender::new(()),
            catalogue: watch::Sender::new(0),
        });
        let stop = CancellationToken::new();
        let (stopped, me) = (stop.clone(), Arc::clone(&inner));
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = me.follow() => {}
                () = me.claim() => {}
            }
        });
        Ok(Self { inner, _stop: stop.drop_guard() })
    }

    /// This process among those of its name.
    pub(super) fn namesakes(&self) -> Arc<Namesakes> {
        Arc::clone(&self.inner.namesakes)
    }

    /// This process acts by the catalogue as it stands below `upto`.
    pub(super) fn has_followed(&self, upto: Offset) {
        self.inner.catalogue.send_if_modified(|known| {
            let more = upto.0 > *known;
            *known = upto.0.max(*known);
            more
        });
    }

    /// Where the tasks of a lane run.
    pub(super) fn whereabouts(&self, lane: i32) -> Whereabouts {
        if self.inner.shares.holds(lane) {
            return Whereabouts::Here;
        }
        let me = &self.inner.lanes.terms.process;
        let known = self.inner.known.lock();
        known.get(&lane).filter(|holder| holder.process != *me).map_or(Whereabouts::Nowhere, |holder| Whereabouts::At(holder.shown.clone()))
    }

    /// Completes once each of the first `width` lanes is held by who acts by the catalogue as it stands below `upto`.
    pub(super) async fn all_followed(&self, width: i32, upto: Offset, patience: Duration) -> Result<(), BusError> {
        let (mut heard, mut changed) = (self.inner.heard.subscribe(), self.inner.shares.changes());
        let behind = || -> Vec<i32> {
            let known = self.inner.known.lock();
            let follows = |lane: &i32| self.inner.shares.holds(*lane) || known.get(lane).is_some_and(|holder| holder.catalogue >= upto.0);
            (0..width).filter(|lane| !follows(lane)).collect()
        };
        let all = async {
            while !behind().is_empty() {
                // Both senders live as long as this does.
                tokio::select! {
                    _ = heard.changed() => {}
                    _ = changed.changed() => {}
                }
            }
        };
        tokio::time::timeout(patience, all).await.map_err(|_| {
            let behind = behind();
            let known = self.inner.known.lock();
            let who = |lane: &i32| known.get(lane).map_or_else(|| "nobody".to_owned(), |holder| holder.shown.clone());
            let mut who: Vec<String> = behind.iter().map(who).collect();
            who.dedup();
            BusError::Retriable(format!(
                "not every process of the application has taken a change of the catalogue in within {} s: lanes {behind:?} are held by {}",
                patience.as_secs(),
                who.join(", ")
            ))
        })
    }
}

impl Inner {
    /// Reads what the holders say, for good.
    async fn follow(&self) {
        loop {
            if let Err(error) = self.follow_once().await {
                tracing::debug!(%error, "could not follow who runs what");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn follow_once(&self) -> Result<(), BusError> {
        let start = self.cluster.bounds(&self.topic).await?.start;
        let mut reader = self.readers.open(&self.cluster, &self.topic, start).await?;
        loop {
            let from = reader.position();
            let batches = reader.poll(1 << 20).await?;
            self.namesakes.hear(&batches, from);
            self.take(&batches, from);
            if batches.is_empty() {
                self.readers.wait(&self.cluster, &self.topic, reader.position()).await?;
            } else {
                self.heard.send_replace(());
            }
        }
    }

    fn take(&self, batches: &[Batch], from: Offset) {
        let mut known = self.known.lock();
        for batch in batches {
            let Ok(records) = batch.records() else { continue };
            for record in records.iter().flatten().filter(|record| record.offset >= from) {
                let lane = record.key.and_then(|key| std::str::from_utf8(key).ok()).and_then(|key| key.parse().ok());
                let holder = record.value.and_then(|value| serde_json::from_slice(value).ok());
                if let (Some(lane), Some(holder)) = (lane, holder) {
                    known.insert(lane, holder);
                }
            }
        }
    }

    /// Says for each lane that this process holds it, and by which catalogue it acts, whenever that changes; for good.
    async fn claim(&self) {
        let (mut changed, mut followed) = (self.shares.changes(), self.catalogue.subscribe());
        let mut said: BTreeMap<i32, (u64, i64)> = BTreeMap::new();
        loop {
            changed.borrow_and_update();
            let catalogue = *followed.borrow_and_update();
            let held = self.shares.held();
            said.retain(|lane, _| held.contains_key(lane));
            let new = held.into_iter().filter(|(lane, taken)| said.get(lane) != Some(&(*taken, catalogue)));
            let new: Vec<(i32, u64)> = new.collect();
            let writes = new.iter().map(|(lane, _)| self.write(*lane, catalogue));
            let mut failed = false;
            for ((lane, taken), written) in new.iter().zip(futures::future::join_all(writes).await) {
                match written {
                    Ok(()) => drop(said.insert(*lane, (*taken, catalogue))),
                    Err(error) => {
                        tracing::debug!(lane, %error, "could not say who holds a lane");
                        failed = true;
                    }
                }
            }
            let again = async {
                if failed {
                    tokio::time::sleep(AGAIN).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            // Both senders live as long as this does.
            tokio::select! {
                _ = changed.changed() => {}
                _ = followed.changed() => {}
                () = again => {}
            }
        }
    }

    async fn write(&self, lane: i32, catalogue: i64) -> Result<(), BusError> {
        let terms = &self.lanes.terms;
        let holder = Holder { process: terms.process.clone(), shown: terms.shown.clone(), catalogue };
        let mut records = BatchBuilder::new();
        let value = serde_json::to_vec(&holder).expect("a holder is plain data");
        records.push(Clock::system().now().0, Some(lane.to_string().as_bytes()), Some(&value), &[]);
        let parcel = Parcel { topic: self.topic.topic.to_string(), to: self.topic.clone(), batch: records.finish() };
        self.lanes.get(Which::Shared(lane))?.append(vec![parcel]).await.map(drop)
    }
}
