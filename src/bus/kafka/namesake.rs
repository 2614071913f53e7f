//! Which of several processes of the same name is the newest: [`Namesakes`].
//!
//! Whenever a process starts it writes an incarnation of its own, under its name, into topic `<application id>.processes`, and joins the
//! consumer group only once that can be read. Always: the last one written is the newest process, and whoever finds one behind its own
//! writes nothing more. The group alone cannot tell: it fences a static member (KIP-345) also where a join that the member itself has
//! given up is served late, and where the coordinator that takes over from a dead one knows an older member id than the one that was given out last.
//! Called by [`super::roster`], which reads the topic, and by the group's thread.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::lane::{Lanes, Which};
use super::reader::Readers;
use super::sending::Parcel;
use crate::bus::{BusError, Reader};
use crate::record::{Batch, BatchBuilder, Offset, TopicPartition};
use crate::time::Clock;

/// How often an incarnation is written that something came between.
const TRIES: u32 = 5;

/// What a process says when it starts.
#[derive(Serialize, Deserialize)]
struct Incarnation {
    incarnation: String,
}

/// This process among all of its name.
pub(super) struct Namesakes {
    place: TopicPartition,
    cluster: Arc<Cluster>,
    readers: Arc<Readers>,
    lanes: Arc<Lanes>,
    incarnation: String,
    /// Behind this process's own record: what is there is newer.
    since: Offset,
}

impl Namesakes {
    /// Says that this process is the newest of its name, and completes once everybody can read it.
    pub(super) async fn announce(
        place: TopicPartition,
        cluster: &Arc<Cluster>,
        readers: &Arc<Readers>,
        lanes: &Arc<Lanes>,
    ) -> Result<Self, BusError> {
        let incarnation = uuid::Uuid::new_v4().to_string();
        let value = serde_json::to_vec(&Incarnation { incarnation: incarnation.clone() }).expect("an incarnation is plain data");
        let key = key(&lanes.terms.process);
        let mut tries = 1;
        let since = loop {
            let mut records = BatchBuilder::new();
            records.push(Clock::system().now().0, Some(&key), Some(&value), &[]);
            let parcel = Parcel { topic: place.topic.to_string(), to: place.clone(), batch: records.finish() };
            match lanes.get(Which::Own)?.append(vec![parcel]).await {
                Ok(ends) => match ends.first() {
                    Some((_, end)) => break *end,
                    None => return Err(BusError::Retriable(format!("the cluster does not say where in {place} it has written"))),
                },
                // An older one may have written under the same transactional id at the same time.
                Err(BusError::Retriable(why)) if tries < TRIES => {
                    tracing::debug!(why, "could not say yet that this process has started");
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        };
        cluster.visible(&place, since).await?;
        Ok(Self { place, cluster: Arc::clone(cluster), readers: Arc::clone(readers), lanes: Arc::clone(lanes), incarnation, since })
    }

    /// Takes in what the topic holds. Where a newer process of this one's name has written, this one gives up.
    pub(super) fn hear(&self, batches: &[Batch], from: Offset) {
        let key = key(&self.lanes.terms.process);
        for batch in batches {
            let Ok(records) = batch.records() else { continue };
            let behind = |at: Offset| at >= from && at >= self.since;
            for record in records.iter().flatten().filter(|record| behind(record.offset) && record.key == Some(&key)) {
                let said: Option<Incarnation> = record.value.and_then(|value| serde_json::from_slice(value).ok());
                if said.is_some_and(|said| said.incarnation != self.incarnation) {
                    self.lanes.give_way();
                }
            }
        }
    }

    /// Whether a newer process of this one's name has come by now.
    pub(super) async fn has_come(&self) -> Result<bool, BusError> {
        let range = self.cluster.bounds(&self.place).await?;
        let mut reader = self.readers.open_unseen(&self.cluster, &self.place, self.since.max(range.start).min(range.end)).await?;
        while reader.position() < range.end {
            let from = reader.position();
            let batches = reader.poll(1 << 20).await?;
            if batches.is_empty() && reader.position() == from {
                return Err(BusError::Retriable(format!("{} ends at offset {from}, and it said {}", self.place, range.end)));
            }
            self.hear(&batches, from);
        }
        Ok(self.lanes.are_superseded())
    }
}

/// The key of what a process says when it starts. Those of the lanes' holders are numbers.
fn key(process: &str) -> Vec<u8> {
    format!("process {process}").into_bytes()
}
