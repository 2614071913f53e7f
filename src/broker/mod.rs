//! Topics, partitions, idempotent producers and consumer groups: what a Kafka broker is, without the sockets.
//!
//! [`Broker`] owns the log and everything that is known about it. Decisions are pure (`producers`, `group`,
//! `topic_config`); around them are thin async handles. Always: nothing is acknowledged or shown before it is
//! durable; what the broker itself must remember are records of internal topics (`__topics`,
//! `__consumer_offsets`, `__producer_ids`, `__producer_state`), written through the same append groups as
//! everything else. Called by `server` for clients and by `bus` for the engine.

mod append;
mod catalogue;
mod config;
mod coordinator;
mod error;
mod fetch;
pub mod group;
mod health;
mod journal;
mod places;
mod produce;
mod producer_ids;
mod producers;
mod stats;
#[cfg(test)]
mod tests;
mod topic;
mod topic_config;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use append::{LEADER_EPOCH, Pending};
pub use catalogue::NewTopic;
pub use config::{BrokerConfig, DescribedConfig};
pub use coordinator::Coordinator;
pub use error::BrokerError;
pub use fetch::{FetchPart, FetchSpec, FetchedPart};
pub use places::FoundOffset;
pub use produce::{Incoming, Placed, ProduceTerms, Produced, Refusal};
pub use stats::{BrokerStats, TopicSize};
#[cfg(test)]
pub(crate) use tests::TestDisk;
pub use topic::{Partition, Topic, Traffic};
pub use topic_config::{CleanupPolicy, ConfigKind, TOPIC_CONFIGS, TopicConfig, TopicConfigSpec};

use append::{Addition, Fate, Rule};
use catalogue::{Catalogue, internal_id};
use producer_ids::ProducerIds;

use crate::log::{Log, PartitionKey, Permit, RetentionLimits};
use crate::record::{Batch, Offset, TimestampType, TopicId, TopicName, TopicPartition};
use crate::time::Clock;

/// A partition's producers are written down after so many bytes, which bounds what is read at a start.
const SNAPSHOT_BYTES: u64 = 8 << 20;

/// The broker.
pub struct Broker {
    log: Arc<Log>,
    config: Arc<BrokerConfig>,
    clock: Clock,
    catalogue: Arc<Catalogue>,
    groups: Arc<Coordinator>,
    producer_ids: ProducerIds,
    /// From where on records of a partition are still needed, by who needs them.
    pins: Mutex<BTreeMap<(PartitionKey, String), Offset>>,
    stats: BrokerStats,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Broker {
    /// Takes over a log: reads which topics and groups there are, and starts the task that watches the
    /// groups' deadlines.
    pub async fn open(log: Log, config: BrokerConfig, clock: Clock) -> Result<Arc<Self>, BrokerError> {
        let log = Arc::new(log);
        let config = Arc::new(config);
        let opened = tokio::task::spawn_blocking({
            let (log, config) = (Arc::clone(&log), Arc::clone(&config));
            move || {
                let catalogue = Catalogue::open(Arc::clone(&log), Arc::clone(&config), clock)?;
                let (groups, records) = Coordinator::open(&log, internal_id(b"_offsets"), config.groups())?;
                let producer_ids = ProducerIds::open(&log, internal_id(b"_prodids"), clock)?;
                for journal in [groups.journal(), producer_ids.journal()] {
                    catalogue.show(journal.partition())?;
                }
                Ok::<_, BrokerError>((catalogue, groups, records, producer_ids))
            }
        });
        let (catalogue, groups, records, producer_ids) =
            opened.await.map_err(|e| BrokerError::Internal { topic: "__topics", why: e.to_string() })??;
        catalogue.introduce().await?;
        groups.begin(&records).await?;
        let broker = Arc::new(Self {
            log,
            config,
            clock,
            catalogue: Arc::new(catalogue),
            groups: Arc::new(groups),
            producer_ids,
            pins: Mutex::default(),
            stats: BrokerStats::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        broker.tasks.spawn(Arc::clone(&broker.groups).run(broker.stop.clone()));
        Ok(broker)
    }

    /// The settings it runs with.
    #[must_use]
    pub fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// The clock it stamps with.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The name of the cluster: this node with its data directory.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        self.catalogue.cluster_id()
    }

    /// The consumer groups.
    #[must_use]
    pub const fn groups(&self) -> &Arc<Coordinator> {
        &self.groups
    }

    /// What it counts about itself.
    #[must_use]
    pub const fn stats(&self) -> &BrokerStats {
        &self.stats
    }

    const fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    fn log(&self) -> &Log {
        &self.log
    }

    /// A topic, where there is one of that name.
    #[must_use]
    pub fn topic(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.catalogue.topic(name.as_str())
    }

    /// A topic by a name that nobody has checked yet.
    #[must_use]
    pub fn topic_named(&self, name: &str) -> Option<Arc<Topic>> {
        self.catalogue.topic(name)
    }

    /// A topic by its identity.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.catalogue.topic_by_id(id)
    }

    /// All topics, by name, the internal ones among them.
    #[must_use]
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.catalogue.topics()
    }

    /// One partition of a topic.
    #[must_use]
    pub fn partition(&self, of: &TopicPartition) -> Option<Arc<Partition>> {
        self.topic(&of.topic)?.partition(of.partition)
    }

    /// Whether a topic could be made as asked: its partition count and settings.
    pub fn check_topic(&self, new: &NewTopic) -> Result<(i32, TopicConfig), BrokerError> {
        self.catalogue.check(new)
    }

    /// Makes a topic, which exists durably when this returns.
    pub async fn create_topic(&self, new: NewTopic) -> Result<Arc<Topic>, BrokerError> {
        self.catalogue.create(new).await
    }

    /// Removes a topic, what it holds, and what groups committed there.
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), BrokerError> {
        let topic = self.catalogue.delete(name).await?;
        self.pins.lock().retain(|(key, _), _| key.topic != topic.id());
        self.groups.forget_topic(name).await;
        Ok(())
    }

    /// Whether a topic could be widened to so many partitions.
    pub fn check_partitions(&self, name: &TopicName, count: i32) -> Result<(), BrokerError> {
        self.catalogue.check_widen(name, count).map(drop)
    }

    /// Gives a topic more partitions: `count` in all.
    pub async fn create_partitions(&self, name: &TopicName, count: i32) -> Result<Arc<Topic>, BrokerError> {
        self.catalogue.widen(name, count).await
    }

    /// Waits until the log can take about so many bytes. To be had before [`Broker::submit`].
    pub async fn room(&self, bytes: usize) -> Permit {
        self.log.room(bytes).await
    }

    /// Gives the engine's batches their offsets and hands them to the log as one append group: all of them, or
    /// none. Several batches for one partition follow each other. Order of calls is order in the log.
    pub fn submit(&self, batches: Vec<(TopicPartition, Batch)>, permit: Permit) -> Result<Pending, BrokerError> {
        if batches.is_empty() {
            return Ok(Pending::new(Vec::new(), None));
        }
        let now = self.clock.now();
        let mut additions: BTreeMap<PartitionKey, (Addition, Vec<usize>)> = BTreeMap::new();
        let count = batches.len();
        for (i, (of, batch)) in batches.into_iter().enumerate() {
            let topic = self.topic(&of.topic).ok_or_else(|| BrokerError::UnknownTopic(of.topic.clone()))?;
            let partition = topic.partition(of.partition).ok_or(BrokerError::UnknownPartition(of))?;
            topic.came_in(&batch);
            let batch = match topic.config().timestamp_type {
                TimestampType::LogAppendTime => batch.with_log_append_time(now.0),
                TimestampType::CreateTime => batch,
            };
            let (addition, places) =
                additions.entry(partition.key()).or_insert_with(|| (Addition { to: partition, batches: Vec::new() }, Vec::new()));
            addition.batches.push(batch);
            places.push(i);
        }
        let (additions, places): (Vec<_>, Vec<_>) = additions.into_values().unzip();
        let of: Vec<_> = additions.iter().map(|a| a.to.of().clone()).collect();
        let lengths: Vec<Vec<i64>> =
            additions.iter().map(|a| a.batches.iter().map(|b| i64::from(b.header().last_offset_delta) + 1).collect()).collect();
        let in_flight = append::submit(&self.log, additions, Rule::AllOrNothing, permit, now)?;
        let mut bases = vec![Offset::ZERO; count];
        for (((fate, of), places), lengths) in in_flight.fates.iter().zip(of).zip(places).zip(lengths) {
            let Fate::Placed { base, .. } = *fate else { return Err(BrokerError::UnknownPartition(of)) };
            let mut at = base;
            for (place, length) in places.into_iter().zip(lengths) {
                bases[place] = at;
                at = at.plus(length);
            }
        }
        Ok(Pending::new(bases, in_flight.submitted))
    }

    /// Appends the engine's batches as one append group, durable and visible when this returns. Answers where
    /// each went.
    pub async fn append(&self, batches: Vec<(TopicPartition, Batch)>) -> Result<Vec<Offset>, BrokerError> {
        let permit = self.room(batches.iter().map(|(_, batch)| batch.len_bytes()).sum()).await;
        self.submit(batches, permit)?.durable().await
    }

    /// A fresh identity for an idempotent producer.
    pub async fn new_producer_id(&self) -> Result<i64, BrokerError> {
        self.producer_ids.next().await
    }

    /// While `who` may still need records of a partition from `from` on, retention leaves them. `None` lets go.
    pub fn pin(&self, who: &str, of: &TopicPartition, from: Option<Offset>) {
        let Some(partition) = self.partition(of) else { return };
        let key = (partition.key(), who.to_owned());
        let mut pins = self.pins.lock();
        match from {
            Some(from) => drop(pins.insert(key, from)),
            None => drop(pins.remove(&key)),
        }
    }

    /// Deletes what is too old or too much, forgets producers and offsets whose time is over, and rewrites
    /// internal topics that have grown too long. To be called now and then.
    pub async fn enforce_retention(&self) -> Result<(), BrokerError> {
        let now = self.clock.now();
        let mut limits: BTreeMap<PartitionKey, RetentionLimits> = BTreeMap::new();
        let pins = self.pins.lock().clone();
        for topic in self.topics().iter().filter(|t| !t.name().is_internal()) {
            let config = topic.config();
            for partition in topic.partitions().iter() {
                let key = partition.key();
                let pin = pins.range((key, String::new())..).take_while(|((of, _), _)| *of == key).map(|(_, from)| *from).min();
                let limit = if config.cleanup.delete {
                    RetentionLimits { retention_ms: config.retention_ms, retention_bytes: config.retention_bytes, pin }
                } else {
                    RetentionLimits { pin, ..RetentionLimits::default() }
                };
                limits.insert(key, limit);
            }
        }
        let log = Arc::clone(&self.log);
        tokio::task::spawn_blocking(move || log.enforce_retention(now, |key| limits.get(&key).cloned().unwrap_or_default()))
            .await
            .map_err(|e| BrokerError::Internal { topic: "retention", why: e.to_string() })??;
        self.catalogue.load_producers().await;
        let expired = now.plus(-i64::try_from(self.config.producer_expiration.as_millis()).unwrap_or(i64::MAX));
        for partition in self.topics().iter().flat_map(|t| t.partitions().to_vec()) {
            partition.expire_producers(expired);
        }
        self.catalogue.snapshot_producers(SNAPSHOT_BYTES).await?;
        self.groups.expire().await?;
        self.catalogue.tidy().await?;
        self.producer_ids.journal().tidy().await?;
        Ok(())
    }

    /// Stops the broker's own tasks, writes down what makes the next start quick, and closes the log.
    pub async fn close(&self) -> Result<(), BrokerError> {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if self.log_failure().is_none()
            && let Err(error) = self.catalogue.snapshot_producers(0).await
        {
            tracing::warn!(%error, "producers are read back from the log at the next start");
        }
        let log = Arc::clone(&self.log);
        tokio::task::spawn_blocking(move || log.close())
            .await
            .map_err(|e| BrokerError::Internal { topic: "log", why: e.to_string() })??;
        Ok(())
    }
}

impl Drop for Broker {
    /// A broker that nobody closed still lets its tasks, and with them its log, go.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
