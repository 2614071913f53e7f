//! Which topics there are: [`Catalogue`], kept as records of the internal topic `__topics`.
//!
//! Always: a topic exists from the moment its record is durable until its tombstone is. Partitions on disk
//! that no record names are remains of a deletion and go when the catalogue opens; partitions that a record
//! names and the disk lacks are made then. A topic's id is its key: one made again under an old name is
//! another topic. Changes happen one at a time. Called by `Broker`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::config::LiveConfig;
use super::error::BrokerError;
use super::journal::{self, Journal};
use super::producers::Producers;
use super::topic::{Partition, Topic};
use super::topic_config::TopicConfig;
use crate::log::{Log, LogError, PartitionConfig, PartitionKey};
use crate::record::{Offset, PartitionId, TopicId, TopicName, TopicPartition};
use crate::time::Clock;

/// The most partitions of one topic.
const MAX_PARTITIONS_PER_TOPIC: i32 = 10_000;
/// The key of the record that names the cluster.
const CLUSTER_KEY: &[u8] = b"cluster";

/// A topic to be made.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// How many partitions; `None` takes the broker's default.
    pub partitions: Option<i32>,
    /// Settings that differ from the defaults.
    pub configs: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with nothing said but its name.
    #[must_use]
    pub const fn named(name: TopicName) -> Self {
        Self { name, partitions: None, configs: BTreeMap::new() }
    }
}

/// Which topics there are.
pub(super) struct Catalogue {
    log: Arc<Log>,
    config: Arc<LiveConfig>,
    clock: Clock,
    journal: Arc<Journal>,
    producers: Arc<Journal>,
    cluster_id: String,
    is_new: bool,
    topics: RwLock<Topics>,
    /// How often topics came, went, or got partitions.
    changes: AtomicU64,
    /// Held across a change, which waits for the disk: two of them would read each other's half-made state.
    change: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Topics {
    by_name: BTreeMap<TopicName, Arc<Topic>>,
    by_id: BTreeMap<TopicId, Arc<Topic>>,
}

impl Topics {
    fn insert(&mut self, topic: Arc<Topic>) {
        self.by_id.insert(topic.id(), Arc::clone(&topic));
        self.by_name.insert(topic.name().clone(), topic);
    }
}

/// The identity of an internal topic, the same on every node.
pub(super) const fn internal_id(name: &[u8; 8]) -> TopicId {
    let mut id = *b"vitalsql\0\0\0\0\0\0\0\0";
    let mut i = 0;
    while i < 8 {
        id[8 + i] = name[i];
        i += 1;
    }
    TopicId(id)
}

/// Whether a partition is one of the broker's own.
const fn is_internal(key: PartitionKey) -> bool {
    matches!(key.topic.0.first_chunk::<8>(), Some(b"vitalsql"))
}

/// What a record of `__topics` says of a topic.
struct StoredTopic {
    name: TopicName,
    partitions: i32,
    configs: BTreeMap<String, String>,
}

impl StoredTopic {
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::json!({ "name": self.name.as_str(), "partitions": self.partitions, "configs": self.configs }).to_string().into_bytes()
    }

    fn read(value: &[u8]) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_slice(value).ok()?;
        let configs = value.get("configs")?.as_object()?;
        Some(Self {
            name: TopicName::new(value.get("name")?.as_str()?).ok()?,
            partitions: i32::try_from(value.get("partitions")?.as_i64()?).ok().filter(|n| (1..=MAX_PARTITIONS_PER_TOPIC).contains(n))?,
            configs: configs.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect(),
        })
    }
}

fn producer_key(key: PartitionKey) -> Vec<u8> {
    let mut bytes = key.topic.0.to_vec();
    bytes.extend_from_slice(&key.partition.0.to_be_bytes());
    bytes
}

fn read_producers(key: &[u8], value: &[u8]) -> Option<(PartitionKey, (Producers, Offset))> {
    let (topic, rest) = key.split_first_chunk::<16>()?;
    let partition = i32::from_be_bytes(*rest.first_chunk()?);
    let (offset, producers) = value.split_first_chunk::<8>()?;
    let key = PartitionKey { topic: TopicId(*topic), partition: PartitionId(partition) };
    Some((key, (Producers::from_bytes(producers)?, Offset(i64::from_be_bytes(*offset)))))
}

impl Catalogue {
    /// Reads which topics there are and opens their partitions. Blocks.
    pub(super) fn open(log: Arc<Log>, config: Arc<LiveConfig>, clock: Clock) -> Result<Self, BrokerError> {
        let mut stored: BTreeMap<TopicId, StoredTopic> = BTreeMap::new();
        let mut cluster_id = None;
        let mut unreadable = 0_u64;
        let journal = Journal::open(&log, "__topics", internal_id(b"__topics"), clock, |_, key, value| {
            let Some(key) = key else { return };
            if key == CLUSTER_KEY {
                cluster_id = value.and_then(|v| std::str::from_utf8(v).ok()).map(str::to_owned);
                return;
            }
            let Some(id) = key.first_chunk::<16>().map(|id| TopicId(*id)) else { return };
            match value.map(StoredTopic::read) {
                None => drop(stored.remove(&id)),
                Some(Some(topic)) => drop(stored.insert(id, topic)),
                Some(None) => unreadable += 1,
            }
        })?;
        if unreadable > 0 {
            // Opening without them would delete their partitions.
            return Err(BrokerError::Internal {
                topic: "__topics",
                why: format!("{unreadable} records are of a form this version does not know"),
            });
        }
        let mut snapshots = BTreeMap::new();
        let producers = Journal::open(&log, "__producer_state", internal_id(b"_prodmem"), clock, |_, key, value| {
            let Some(key) = key else { return };
            match value {
                Some(value) => snapshots.extend(read_producers(key, value)),
                None => {
                    if let Some((key, _)) = read_producers(key, &[0; 9]) {
                        snapshots.remove(&key);
                    }
                }
            }
        })?;
        let is_new = cluster_id.is_none();
        if is_new && log.partitions().iter().any(|key| !is_internal(*key)) {
            return Err(BrokerError::Internal {
                topic: "__topics",
                why: "it is empty and there are partitions of topics; was its directory removed? Restore it: opening without it would delete them".to_owned(),
            });
        }
        let catalogue = Self {
            is_new,
            cluster_id: cluster_id.unwrap_or_else(|| TopicId::random().to_string().replace('-', "")),
            log,
            config,
            clock,
            journal,
            producers,
            topics: RwLock::default(),
            changes: AtomicU64::new(0),
            change: tokio::sync::Mutex::default(),
        };
        catalogue.clear_remains(&stored)?;
        for (id, topic) in stored {
            let config = TopicConfig::read_stored(&topic.name, topic.configs, &catalogue.config.get());
            let partitions = catalogue.open_partitions(&topic.name, id, &config, 0..topic.partitions, &mut snapshots)?;
            catalogue.topics.write().insert(Arc::new(Topic::new(topic.name, id, config, partitions)));
        }
        for journal in [&catalogue.journal, &catalogue.producers] {
            catalogue.show(journal.partition())?;
        }
        Ok(catalogue)
    }

    /// Gives a new data directory its name. Nothing else is written before that.
    pub(super) async fn introduce(&self) -> Result<(), BrokerError> {
        if self.is_new {
            self.journal.append(&[(CLUSTER_KEY.to_vec(), Some(self.cluster_id.clone().into_bytes()))]).await?;
        }
        Ok(())
    }

    /// Lists an internal topic of one partition among the others, so that any client can look into it.
    pub(super) fn show(&self, partition: &Arc<Partition>) -> Result<(), BrokerError> {
        let config = TopicConfig::read(
            BTreeMap::from([
                ("cleanup.policy".to_owned(), "compact".to_owned()),
                ("segment.bytes".to_owned(), journal::SEGMENT_BYTES.to_string()),
            ]),
            &self.config.get(),
        )?;
        let topic = Topic::new(partition.of().topic.clone(), partition.key().topic, config, vec![Arc::clone(partition)]);
        self.topics.write().insert(Arc::new(topic));
        self.changed();
        Ok(())
    }

    /// How often topics came, went, or got partitions: whoever looked at them looks again when this has changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Removes partitions on disk that no topic owns.
    fn clear_remains(&self, stored: &BTreeMap<TopicId, StoredTopic>) -> Result<(), LogError> {
        for key in self.log.partitions() {
            let owned = stored.get(&key.topic).is_some_and(|topic| key.partition.0 < topic.partitions);
            if !is_internal(key) && !owned {
                tracing::info!(topic = %key.topic, partition = %key.partition, "removing what a deleted topic left");
                self.log.remove(key)?;
            }
        }
        Ok(())
    }

    fn open_partitions(
        &self,
        name: &TopicName,
        id: TopicId,
        config: &TopicConfig,
        which: std::ops::Range<i32>,
        snapshots: &mut BTreeMap<PartitionKey, (Producers, Offset)>,
    ) -> Result<Vec<Arc<Partition>>, BrokerError> {
        let settings = log_settings(config);
        which
            .map(PartitionId)
            .map(|partition| {
                let key = PartitionKey { topic: id, partition };
                let log = self.log.create(key, name, settings.clone())?;
                let (producers, from) = snapshots.remove(&key).unwrap_or_default();
                Ok(Arc::new(Partition::new(TopicPartition::new(name.clone(), partition), log, self.log.failed(), producers, from)))
            })
            .collect()
    }

    /// The name of the cluster: this node and its data directory.
    pub(super) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    pub(super) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        // Borrowed as text: names from clients are looked up before they are checked.
        self.topics.read().by_name.get(&TopicName::new(name).ok()?).cloned()
    }

    pub(super) fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.topics.read().by_id.get(&id).cloned()
    }

    pub(super) fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().by_name.values().cloned().collect()
    }

    /// Checks a topic to be made; answers its partition count and settings.
    pub(super) fn check(&self, new: &NewTopic) -> Result<(i32, TopicConfig), BrokerError> {
        let config = self.check_name(new)?;
        let count = new.partitions.unwrap_or(self.config.get().default_partitions);
        check_count(count)?;
        self.check_total(&self.topics.read(), count)?;
        Ok((count, config))
    }

    /// Checks whether a topic's name is free and its settings are good, which Kafka judges before anything else.
    pub(super) fn check_name(&self, new: &NewTopic) -> Result<TopicConfig, BrokerError> {
        let topics = self.topics.read();
        if topics.by_name.contains_key(&new.name) {
            return Err(BrokerError::TopicExists(new.name.clone()));
        }
        if let Some(other) = topics.by_name.keys().find(|other| collide(new.name.as_str(), other.as_str())) {
            let why = format!("topic \"{}\" and topic \"{other}\" would have the same name where a dot becomes an underscore", new.name);
            return Err(BrokerError::InvalidTopic(why));
        }
        TopicConfig::read(new.configs.clone(), &self.config.get())
    }

    fn check_total(&self, topics: &Topics, more: i32) -> Result<(), BrokerError> {
        let total: i64 = topics.by_name.values().map(|t| i64::from(t.partition_count())).sum();
        let limit = self.config.get().max_partitions;
        if total + i64::from(more) > limit as i64 {
            return Err(BrokerError::InvalidPartitions(format!("this node has {total} partitions and takes {limit} at most")));
        }
        Ok(())
    }

    /// Makes a topic.
    pub(super) async fn create(self: &Arc<Self>, new: NewTopic) -> Result<Arc<Topic>, BrokerError> {
        let _one = self.change.lock().await;
        let (count, config) = self.check(&new)?;
        let id = TopicId::random();
        let stored = StoredTopic { name: new.name.clone(), partitions: count, configs: new.configs };
        // The partitions first: if we stop before the record is durable, the next start clears them away.
        let (me, name, settings) = (Arc::clone(self), new.name, config.clone());
        let partitions = blocking(move || me.open_partitions(&name, id, &settings, 0..count, &mut BTreeMap::new()))
            .await
            .and_then(|partitions| partitions);
        let result = match partitions {
            Ok(partitions) => {
                self.journal.append(&[(id.0.to_vec(), Some(stored.to_bytes()))]).await.map(|_| partitions).map_err(BrokerError::from)
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(partitions) => {
                let topic = Arc::new(Topic::new(stored.name, id, config, partitions));
                self.topics.write().insert(Arc::clone(&topic));
                self.changed();
                tracing::info!(topic = %topic.name(), partitions = count, "topic made");
                Ok(topic)
            }
            Err(error) => {
                self.remove_files(id, 0..count).await;
                Err(error)
            }
        }
    }

    /// Removes a topic and what it holds.
    pub(super) async fn delete(self: &Arc<Self>, name: &TopicName) -> Result<Arc<Topic>, BrokerError> {
        let _one = self.change.lock().await;
        let topic = self.topic(name.as_str()).ok_or_else(|| BrokerError::UnknownTopic(name.clone()))?;
        self.journal.append(&[(topic.id().0.to_vec(), None)]).await?;
        {
            let mut topics = self.topics.write();
            topics.by_name.remove(name);
            topics.by_id.remove(&topic.id());
        }
        self.changed();
        let partitions = topic.partitions();
        partitions.iter().for_each(|partition| partition.delete());
        self.remove_files(topic.id(), 0..topic.partition_count()).await;
        let forgotten: Vec<_> = partitions.iter().map(|p| (producer_key(p.key()), None)).collect();
        if let Err(error) = self.producers.append(&forgotten).await {
            // They are of an id that never comes again.
            tracing::debug!(%error, "producers of a deleted topic are still remembered");
        }
        tracing::info!(topic = %name, "topic deleted");
        Ok(topic)
    }

    async fn remove_files(self: &Arc<Self>, id: TopicId, which: std::ops::Range<i32>) {
        let me = Arc::clone(self);
        let removed = blocking(move || {
            for partition in which.map(PartitionId) {
                let key = PartitionKey { topic: id, partition };
                if let Err(error) = me.log.remove(key) {
                    tracing::warn!(topic = %id, %partition, %error, "files of a deleted topic stay until the next start");
                }
            }
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "files of a deleted topic stay until the next start");
        }
    }

    /// Checks how a topic is to be widened.
    pub(super) fn check_widen(&self, name: &TopicName, count: i32) -> Result<Arc<Topic>, BrokerError> {
        let topic = self.topic(name.as_str()).ok_or_else(|| BrokerError::UnknownTopic(name.clone()))?;
        let has = topic.partition_count();
        if count <= has {
            return Err(BrokerError::InvalidPartitions(format!(
                "topic \"{name}\" has {has} partitions; it can only get more, not {count}"
            )));
        }
        check_count(count)?;
        self.check_total(&self.topics.read(), count - has)?;
        Ok(topic)
    }

    /// Gives a topic more partitions.
    pub(super) async fn widen(self: &Arc<Self>, name: &TopicName, count: i32) -> Result<Arc<Topic>, BrokerError> {
        let _one = self.change.lock().await;
        let topic = self.check_widen(name, count)?;
        let (has, config) = (topic.partition_count(), topic.config());
        let stored = StoredTopic { name: name.clone(), partitions: count, configs: config.set.clone() };
        let (me, id, owned) = (Arc::clone(self), topic.id(), name.clone());
        let more = blocking(move || me.open_partitions(&owned, id, &config, has..count, &mut BTreeMap::new())).await??;
        self.journal.append(&[(topic.id().0.to_vec(), Some(stored.to_bytes()))]).await?;
        topic.widen(more);
        self.changed();
        tracing::info!(topic = %name, partitions = count, "topic widened");
        Ok(topic)
    }

    /// Changes the settings of a topic: `apply` makes of what is set what shall be set. They are good before it is
    /// known whether there is such a topic, as in Kafka.
    pub(super) async fn alter(
        &self,
        name: &TopicName,
        apply: impl FnOnce(&BTreeMap<String, String>) -> Result<BTreeMap<String, String>, BrokerError>,
        only_check: bool,
    ) -> Result<(), BrokerError> {
        let _one = self.change.lock().await;
        let topic = self.topic(name.as_str());
        let before = topic.as_ref().map(|topic| topic.config().set.clone()).unwrap_or_default();
        let config = TopicConfig::read(apply(&before)?, &self.config.get())?;
        let topic = topic.ok_or_else(|| BrokerError::UnknownTopic(name.clone()))?;
        if only_check || config.set == before {
            return Ok(());
        }
        let stored = StoredTopic { name: name.clone(), partitions: topic.partition_count(), configs: config.set.clone() };
        self.journal.append(&[(topic.id().0.to_vec(), Some(stored.to_bytes()))]).await?;
        tracing::info!(topic = %name, "settings of a topic changed");
        self.put_into_effect(&topic, config);
        Ok(())
    }

    /// Takes the broker's defaults over into the topics, when they have changed.
    pub(super) async fn refresh(&self) -> Result<(), BrokerError> {
        let _one = self.change.lock().await;
        let defaults = self.config.get();
        for topic in self.topics().iter().filter(|t| !t.name().is_internal()) {
            match TopicConfig::read(topic.config().set.clone(), &defaults) {
                Ok(config) if config != *topic.config() => self.put_into_effect(topic, config),
                Ok(_) => {}
                // Good by themselves, not together: the topic stays as it was.
                Err(error) => tracing::warn!(topic = %topic.name(), %error, "a topic does not take the broker's new defaults"),
            }
        }
        Ok(())
    }

    fn put_into_effect(&self, topic: &Topic, config: TopicConfig) {
        let settings = log_settings(&config);
        topic.set_config(config);
        for partition in topic.partitions().iter() {
            self.log.set_config(partition.key(), settings.clone());
        }
    }

    /// Reads producers back that a crash left to be read, a partition at a time.
    pub(super) async fn load_producers(&self) {
        for partition in self.topics().iter().flat_map(|t| t.partitions().to_vec()) {
            if let Err(error) = partition.load_producers(self.clock.now()).await {
                tracing::debug!(partition = %partition.of(), %error, "producers are not read back yet");
            }
        }
    }

    /// Writes snapshots of the producers of partitions that grew by more than `bytes` since their last one.
    pub(super) async fn snapshot_producers(&self, bytes: u64) -> Result<(), BrokerError> {
        let mut entries = Vec::new();
        for topic in self.topics().iter().filter(|t| !t.name().is_internal()) {
            for partition in topic.partitions().iter() {
                if let Some((producers, upto, since)) = partition.snapshot_if_due(bytes) {
                    // The snapshot may not be ahead of what a crash leaves. Nor may it wait for a disk that takes nothing: whoever calls
                    // is who makes room.
                    let is_safe = tokio::select! {
                        biased;
                        is_safe = partition.visible(upto) => is_safe,
                        () = self.log.running_out() => false,
                    };
                    if !is_safe {
                        partition.appended(since);
                        continue;
                    }
                    let mut value = upto.0.to_be_bytes().to_vec();
                    value.extend_from_slice(&producers.to_bytes());
                    entries.push((producer_key(partition.key()), Some(value)));
                }
            }
        }
        self.producers.append(&entries).await?;
        Ok(())
    }

    /// Rewrites the internal topics that have grown too long.
    pub(super) async fn tidy(&self) -> Result<(), BrokerError> {
        for journal in [&self.journal, &self.producers] {
            journal.tidy().await?;
        }
        Ok(())
    }
}

/// What of a topic's settings the log needs.
const fn log_settings(config: &TopicConfig) -> PartitionConfig {
    // What must be compacted in time must be in a closed segment by then.
    let compacted = config.cleanup.compact && config.compaction.max_lag_ms < config.segment_ms;
    let segment_ms = if compacted { config.compaction.max_lag_ms } else { config.segment_ms };
    PartitionConfig { segment_bytes: config.segment_bytes, segment_ms, durability: config.durability }
}

/// Whether two names differ only in dots and underscores, which Kafka's metrics cannot tell apart.
fn collide(one: &str, other: &str) -> bool {
    let same = |(a, b): (u8, u8)| a == b || (matches!(a, b'.' | b'_') && matches!(b, b'.' | b'_'));
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(same)
}

fn check_count(count: i32) -> Result<(), BrokerError> {
    if (1..=MAX_PARTITIONS_PER_TOPIC).contains(&count) {
        return Ok(());
    }
    Err(BrokerError::InvalidPartitions(format!("a topic has 1 to {MAX_PARTITIONS_PER_TOPIC} partitions, not {count}")))
}

/// Runs what reads or writes files away from the network threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BrokerError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| BrokerError::Internal { topic: "__topics", why: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topics_record_reads_back_and_a_strange_one_is_told() {
        let configs = BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]);
        let stored = StoredTopic { name: TopicName::new("vitals").unwrap(), partitions: 3, configs: configs.clone() };
        let read = StoredTopic::read(&stored.to_bytes()).unwrap();
        assert_eq!((read.name.as_str(), read.partitions, read.configs), ("vitals", 3, configs));
        for strange in ["", "{}", "[1]", r#"{"name":"..","partitions":1,"configs":{}}"#, r#"{"name":"a","partitions":0,"configs":{}}"#] {
            assert!(StoredTopic::read(strange.as_bytes()).is_none(), "{strange}");
        }
    }

    #[test]
    fn names_collide_where_only_dots_and_underscores_differ() {
        for (one, other, expected) in [("a.b", "a_b", true), ("a_b_c", "a.b.c", true), ("a-b", "a.b", false), ("a.b", "a.bb", false)] {
            assert_eq!(collide(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn the_internal_ids_differ() {
        assert_ne!(internal_id(b"__topics"), internal_id(b"_prodmem"));
        assert!(!internal_id(b"__topics").is_nil());
    }
}
