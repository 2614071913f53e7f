//! Topics, partitions, producers, transactions and consumer groups: what a Kafka broker is, without the sockets.
//!
//! [`Broker`] owns the log and everything that is known about it. Decisions are pure (`producers`, `group`,
//! `topic_config`); around them are thin async handles. Always: nothing is acknowledged or shown before it is
//! durable; what the broker itself must remember are records of internal topics (`__topics`,
//! `__consumer_offsets`, `__transaction_state`, `__producer_ids`, `__configs` and others), written through the same append
//! groups as everything else. Called by `server` for clients and by `bus` for the engine.

mod alarms;
mod append;
mod broker_configs;
mod catalogue;
mod compact;
mod config;
mod config_spec;
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
pub mod security;
mod settings;
#[cfg(test)]
mod simulation;
mod stats;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_clock;
mod topic;
mod topic_config;
pub mod txn;
mod verification;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use append::{LEADER_EPOCH, Pending};
pub use catalogue::NewTopic;
pub use config::{BrokerConfig, DynamicConfigs};
pub use config_spec::{ConfigKind, ConfigSource, ConfigSynonym, DescribedConfig};
pub use coordinator::Coordinator;
pub use error::{BrokerError, MORE_NODES};
pub use fetch::{FetchPart, FetchSpec, FetchedPart, Isolation};
pub use health::Volume;
pub use places::FoundOffset;
pub use produce::{Incoming, Placed, ProduceTerms, Produced, Refusal};
pub use producers::DescribedProducer;
pub use settings::{ConfigChange, ConfigEdit, ConfigOwner};
pub use stats::{BrokerStats, TopicSize};
#[cfg(test)]
pub(crate) use tests::TestDisk;
pub use topic::{Partition, Topic, Traffic};
pub use topic_config::{CleanupPolicy, CompactionTerms, TOPIC_CONFIGS, TopicConfig, TopicConfigSpec, topic_config_spec};

use append::{Addition, Fate, Rule};
use catalogue::{Catalogue, internal_id};
use config::LiveConfig;
use producer_ids::ProducerIds;
use security::Security;
use settings::Settings;
use txn::Transactions;

use crate::log::{Log, PartitionKey, Permit, RetentionLimits};
use crate::record::{Batch, Offset, TimestampType, TopicId, TopicName, TopicPartition};
use crate::time::{Ages, Clock};
use crate::wire::error_code;

/// A partition's producers are written down after so many bytes, which bounds what is read at a start.
const SNAPSHOT_BYTES: u64 = 8 << 20;

/// The broker.
pub struct Broker {
    log: Arc<Log>,
    config: Arc<LiveConfig>,
    settings: Arc<Settings>,
    clock: Clock,
    /// The clock as it would run if nobody set it, and what is known of how old things are.
    unset: Clock,
    ages: Mutex<Ages>,
    catalogue: Arc<Catalogue>,
    groups: Arc<Coordinator>,
    producer_ids: Arc<ProducerIds>,
    transactions: Arc<Transactions>,
    security: Arc<Security>,
    /// From where on records of a partition are still needed, by who needs them.
    pins: Mutex<BTreeMap<(PartitionKey, String), Offset>>,
    stats: BrokerStats,
    /// Whether a compaction is under way.
    compacting: Arc<AtomicBool>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Broker {
    /// Takes over a log: reads which topics and groups there are, and starts the task that watches the
    /// groups' deadlines.
    pub async fn open(log: Log, config: BrokerConfig, clock: Clock) -> Result<Arc<Self>, BrokerError> {
        let log = Arc::new(log);
        let config = Arc::new(LiveConfig::new(config));
        let opened = tokio::task::spawn_blocking({
            let (log, config) = (Arc::clone(&log), Arc::clone(&config));
            move || {
                // First: the defaults of topics are in it.
                let settings = Arc::new(Settings::open(&log, Arc::clone(&config), clock)?);
                let catalogue = Arc::new(Catalogue::open(Arc::clone(&log), Arc::clone(&config), clock)?);
                let (groups, records) = Coordinator::open(
                    &log,
                    internal_id(b"_offsets"),
                    config.get().groups(),
                    Arc::clone(&catalogue),
                    Arc::clone(&settings),
                    clock,
                )?;
                let producer_ids = Arc::new(ProducerIds::open(&log, internal_id(b"_prodids"), clock)?);
                let groups = Arc::new(groups);
                let parts = txn::Parts {
                    log: Arc::clone(&log),
                    catalogue: Arc::clone(&catalogue),
                    groups: Arc::clone(&groups),
                    producer_ids: Arc::clone(&producer_ids),
                    clock,
                };
                let ids = [internal_id(b"_txstate"), internal_id(b"_aborted")];
                let transactions = Transactions::open(parts, ids, config.get().transactions())?;
                let security = Security::open(&log, config.get().security.clone(), clock)?;
                catalogue.show(security.audit().partition())?;
                for journal in [groups.journal(), producer_ids.journal(), settings.journal()].into_iter().chain(transactions.journals()) {
                    catalogue.show(journal.partition())?;
                }
                Ok::<_, BrokerError>((settings, catalogue, groups, records, producer_ids, transactions, security))
            }
        });
        let (settings, catalogue, groups, records, producer_ids, transactions, security) =
            opened.await.map_err(|e| BrokerError::Internal { topic: "__topics", why: e.to_string() })??;
        catalogue.introduce().await?;
        groups.begin(&records).await?;
        let broker = Arc::new(Self {
            log,
            config,
            settings,
            clock,
            unset: clock.unset(),
            ages: Mutex::default(),
            catalogue,
            groups,
            producer_ids,
            transactions: Arc::new(transactions),
            security: Arc::new(security),
            pins: Mutex::default(),
            stats: BrokerStats::default(),
            compacting: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        if let Some(latest) = broker.log.latest_received() {
            broker.ages.lock().hear(latest.0);
        }
        broker.look_at_the_clock();
        broker.tasks.spawn(Arc::clone(&broker.groups).run(broker.stop.clone()));
        broker.tasks.spawn(Arc::clone(&broker.transactions).run(broker.stop.clone()));
        broker.tasks.spawn(Arc::clone(broker.security.audit()).run(broker.stop.clone()));
        Ok(broker)
    }

    /// The settings it runs with now.
    #[must_use]
    pub fn config(&self) -> Arc<BrokerConfig> {
        self.config.get()
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

    /// The transactions.
    #[must_use]
    pub const fn transactions(&self) -> &Arc<Transactions> {
        &self.transactions
    }

    /// Who may do what.
    #[must_use]
    pub const fn security(&self) -> &Arc<Security> {
        &self.security
    }

    /// What it counts about itself.
    #[must_use]
    pub const fn stats(&self) -> &BrokerStats {
        &self.stats
    }

    const fn settings(&self) -> &Arc<Settings> {
        &self.settings
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

    /// The topic a request means: by its id where there is one, which a topic made later under the same name does not
    /// have, else by its name. An error is Kafka's.
    pub fn topic_meant(&self, name: &str, id: Option<TopicId>) -> Result<Arc<Topic>, i16> {
        match id {
            Some(id) => self.topic_by_id(id).ok_or(error_code::UNKNOWN_TOPIC_ID),
            None => self.topic_named(name).ok_or(error_code::UNKNOWN_TOPIC_OR_PARTITION),
        }
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

    /// Whether a topic's name is free and its settings are good, whatever else is asked of it.
    pub fn check_topic_name(&self, new: &NewTopic) -> Result<(), BrokerError> {
        self.catalogue.check_name(new).map(drop)
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
        let ages = self.look_at_the_clock();
        let now = ages.now();
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
        limits.insert(
            self.security.audit().partition().key(),
            RetentionLimits { retention_bytes: Some(security::AUDIT_BYTES), ..RetentionLimits::default() },
        );
        let log = Arc::clone(&self.log);
        let by = ages.clone();
        tokio::task::spawn_blocking(move || log.enforce_retention(&by, |key| limits.get(&key).cloned().unwrap_or_default()))
            .await
            .map_err(|e| BrokerError::Internal { topic: "retention", why: e.to_string() })??;
        self.begin_compaction(now);
        self.catalogue.load_producers().await;
        let expired = ages.stamp_of(i64::try_from(self.config().producer_expiration.as_millis()).unwrap_or(i64::MAX));
        for partition in self.topics().iter().flat_map(|t| t.partitions().to_vec()) {
            partition.expire_producers(expired);
        }
        self.catalogue.snapshot_producers(SNAPSHOT_BYTES).await?;
        self.groups.expire().await?;
        self.transactions.expire().await?;
        self.catalogue.tidy().await?;
        self.producer_ids.journal().tidy().await?;
        self.settings.journal().tidy().await?;
        self.security.journal().tidy().await?;
        Ok(())
    }

    /// How old things are now; what the clock was set by since the last look is told.
    fn look_at_the_clock(&self) -> Ages {
        let mut ages = self.ages.lock();
        if let Some(by_ms) = ages.look(self.clock.now(), self.unset.now()) {
            tracing::warn!(by_ms, "the machine's clock was set: records are kept as long as before, and get their times by the new one");
        }
        ages.clone()
    }

    /// Stops the broker's own tasks, writes down what makes the next start quick, and closes the log.
    pub async fn close(&self) -> Result<(), BrokerError> {
        self.stop.cancel();
        self.log.end_compaction();
        self.tasks.close();
        let mut finish = std::pin::pin!(async {
            self.tasks.wait().await;
            if self.log_failure().is_none()
                && let Err(error) = self.catalogue.snapshot_producers(0).await
            {
                tracing::warn!(%error, "producers are read back from the log at the next start");
            }
        });
        tokio::select! {
            biased;
            () = &mut finish => {}
            // Nobody waits for a disk that may take nothing for days.
            () = self.log.running_out() => {
                self.log.end_writes();
                finish.await;
            }
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
