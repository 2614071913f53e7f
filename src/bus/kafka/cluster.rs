//! The cluster's topics and their ends: [`Cluster`].
//!
//! Owns the admin client and the names that the engine's own topics have on the cluster. What librdkafka asks while it
//! blocks runs on threads that may block. Called by [`super::KafkaBus`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::ends::{bounds_of, offset_of};
use super::error::{is_missing, said, told, told_code};
use super::reader::Readers;
use super::settings::{Context, KafkaTerms};
use crate::bus::{BusError, TopicSpec};
use crate::record::{Offset, TopicName, TopicPartition};

/// How long the cluster may take for one answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// How long records that nobody needs may take to go: a task waits for it.
const TRIM_PATIENCE: Duration = Duration::from_secs(3);
/// How long a take-over waits until what was committed can be read.
const VISIBLE_PATIENCE: Duration = Duration::from_secs(60);
/// How long the cluster may take to make, widen or delete a topic: its controller syncs its own log first, and stands still as long as
/// its disk does.
const CHANGE_PATIENCE: Duration = Duration::from_secs(60);
/// How long what was made, or deleted, may take to be known everywhere.
const SPREAD: Duration = Duration::from_secs(30);

/// The cluster's topics, and what is in them.
pub(super) struct Cluster {
    terms: Arc<KafkaTerms>,
    readers: Arc<Readers>,
    admin: AdminClient<Context>,
}

impl Cluster {
    /// Connects, and asks for a sign of life.
    pub(super) async fn connect(terms: Arc<KafkaTerms>, readers: Arc<Readers>) -> Result<Self, BusError> {
        let mut config = terms.producer();
        // The admin client is nobody's producer.
        config.remove("enable.idempotence");
        let admin = config.create_with_context(readers.context().clone()).map_err(|e| told("could not make a Kafka client", &e))?;
        let cluster = Self { terms, readers, admin };
        let alive = cluster.ask(|consumer| consumer.fetch_metadata(None, PATIENCE).map(drop)).await?;
        alive.map_err(|error| cluster.unreachable(&error))?;
        cluster.readers.context().well();
        Ok(cluster)
    }

    fn unreachable(&self, error: &KafkaError) -> BusError {
        let why = self.readers.trouble().unwrap_or_else(|| said(error));
        BusError::Retriable(format!(
            "no Kafka broker answers at {}: {why}. Are the addresses right (--brokers)? Does the listener ask for TLS or a password \
             (kafka.client.security.protocol and what belongs to it)?",
            self.terms.brokers
        ))
    }

    /// A topic's name on the cluster: the engine's own books carry the application id.
    pub(super) fn name(&self, topic: &TopicName) -> String {
        name(&self.terms.application_id, topic)
    }

    /// Asks through a consumer that reads nothing, on a thread that may block.
    async fn ask<T: Send + 'static>(&self, work: impl FnOnce(&BaseConsumer<Context>) -> T + Send + 'static) -> Result<T, BusError> {
        let consumer = self.readers.asked();
        tokio::task::spawn_blocking(move || work(&consumer)).await.map_err(|e| BusError::Closed(e.to_string()))
    }

    /// How many partitions a topic has.
    pub(super) async fn partitions(&self, topic: &TopicName) -> Result<Option<i32>, BusError> {
        let name = self.name(topic);
        let asked = self
            .ask(move |consumer| {
                let metadata = consumer.fetch_metadata(Some(&name), PATIENCE)?;
                let found = metadata.topics().iter().find(|topic| topic.name() == name);
                Ok::<_, KafkaError>(found.map(|topic| (topic.error().map(Code::from), topic.partitions().len() as i32)))
            })
            .await?;
        match asked {
            Ok(None | Some((Some(Code::UnknownTopicOrPartition | Code::UnknownTopic), _))) => Ok(None),
            Ok(Some((None | Some(Code::LeaderNotAvailable), count))) => Ok(Some(count).filter(|count| *count > 0)),
            Ok(Some((Some(code), _))) => Err(told_code(&format!("could not look at topic {topic}"), Some(code), &code.to_string())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(told(&format!("could not look at topic {topic}"), &error)),
        }
    }

    /// Makes a topic where it is not there, and waits until it can be used.
    pub(super) async fn ensure(&self, topic: &TopicName, spec: &TopicSpec) -> Result<i32, BusError> {
        if let Some(there) = self.partitions(topic).await? {
            return Ok(there);
        }
        let mut configs = spec.configs.clone();
        if configs.get("retention.ms").is_some_and(|kept| kept != "-1") {
            // What is kept for a while is kept from when it was received: with its event time Kafka would delete a replayed recording at once.
            configs.entry("message.timestamp.type".to_owned()).or_insert_with(|| "LogAppendTime".to_owned());
        } else if !configs.contains_key("cleanup.policy") {
            // The engine gives its records their event time, which may run ahead of a broker's clock.
            configs.entry("message.timestamp.after.max.ms".to_owned()).or_insert_with(|| i64::MAX.to_string());
        }
        match persist(|| self.create(topic, spec.partitions, &configs)).await {
            // A cluster of before 3.6 has no such config.
            Err(BusError::Invalid(_)) if configs.remove("message.timestamp.after.max.ms").is_some() => {
                persist(|| self.create(topic, spec.partitions, &configs)).await?;
            }
            made => made?,
        }
        self.spread(topic, |count| count >= Some(1)).await?;
        Ok(self.partitions(topic).await?.unwrap_or(spec.partitions))
    }

    async fn create(&self, topic: &TopicName, partitions: i32, configs: &BTreeMap<String, String>) -> Result<(), BusError> {
        let what = format!("could not make topic {topic}");
        let name = self.name(topic);
        TopicName::new(&name).map_err(|e| BusError::Invalid(format!("{what}: as {name} on the cluster: {e}")))?;
        let mut new = NewTopic::new(&name, partitions, TopicReplication::Fixed(self.terms.replication_factor));
        for (key, value) in configs {
            new = new.set(key, value);
        }
        let made = self.admin.create_topics([&new], &options()).await.map_err(|e| told(&what, &e))?;
        match made.into_iter().next() {
            // Someone else was quicker.
            Some(Err((_, code))) if code != Code::TopicAlreadyExists => Err(told_code(&what, Some(code), &code.to_string())),
            _ => Ok(()),
        }
    }

    /// Gives a topic more partitions.
    pub(super) async fn widen(&self, topic: &TopicName, count: i32) -> Result<(), BusError> {
        persist(|| self.widen_now(topic, count)).await?;
        self.spread(topic, |there| there >= Some(count)).await
    }

    async fn widen_now(&self, topic: &TopicName, count: i32) -> Result<(), BusError> {
        let what = format!("could not give topic {topic} {count} partitions");
        let name = self.name(topic);
        let wider = NewPartitions::new(&name, count as usize);
        let done = self.admin.create_partitions([&wider], &options()).await.map_err(|e| told(&what, &e))?;
        match done.into_iter().next() {
            // Another task of the same owner may have widened it further meanwhile.
            Some(Err((_, code))) if code != Code::InvalidPartitions => Err(told_code(&what, Some(code), &code.to_string())),
            _ => Ok(()),
        }
    }

    /// Deletes a topic, and waits until it is gone.
    pub(super) async fn delete(&self, topic: &TopicName) -> Result<(), BusError> {
        persist(|| self.delete_now(topic)).await?;
        self.spread(topic, |there| there.is_none()).await
    }

    async fn delete_now(&self, topic: &TopicName) -> Result<(), BusError> {
        let what = format!("could not delete topic {topic}");
        let name = self.name(topic);
        let done = self.admin.delete_topics(&[&name], &options()).await.map_err(|e| told(&what, &e))?;
        match done.into_iter().next() {
            Some(Err((_, code))) if !matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                Err(told_code(&what, Some(code), &code.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Waits until the cluster knows of a change: its brokers hear of one another's topics a little later.
    async fn spread(&self, topic: &TopicName, done: impl Fn(Option<i32>) -> bool) -> Result<(), BusError> {
        let begun = Instant::now();
        let mut wait = Duration::from_millis(5);
        while !done(self.partitions(topic).await?) {
            if begun.elapsed() > SPREAD {
                return Err(BusError::Retriable(format!(
                    "topic {topic} was changed {} s ago and the cluster shows it as before",
                    SPREAD.as_secs()
                )));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(200));
        }
        Ok(())
    }

    /// The first offset that is there, and the first that is not yet there or not yet committed.
    pub(super) async fn bounds(&self, of: &TopicPartition) -> Result<Range<Offset>, BusError> {
        let begun = Instant::now();
        let mut wait = Duration::from_millis(10);
        loop {
            match self.bounds_now(of).await {
                // A partition that is new, or whose broker has just gone, has no leader for a moment.
                Err(BusError::Retriable(_)) if begun.elapsed() < PATIENCE => tokio::time::sleep(wait).await,
                answer => return answer,
            }
            wait = (wait * 2).min(Duration::from_millis(500));
        }
    }

    /// Waits until everything below `end` can be read.
    pub(super) async fn visible(&self, of: &TopicPartition, end: Offset) -> Result<(), BusError> {
        let begun = Instant::now();
        let mut wait = Duration::from_millis(1);
        loop {
            let there = self.bounds(of).await?.end;
            if there >= end {
                return Ok(());
            }
            if begun.elapsed() > VISIBLE_PATIENCE {
                let why = format!("what was committed to {of} below offset {end} cannot be read yet: a transaction before it is open");
                return Err(BusError::Retriable(why));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(100));
        }
    }

    async fn bounds_now(&self, of: &TopicPartition) -> Result<Range<Offset>, BusError> {
        let (name, partition) = (self.name(&of.topic), of.partition.0);
        match self.ask(move |consumer| bounds_of(consumer, &name, partition, PATIENCE)).await? {
            Ok((low, high)) => {
                self.readers.context().well();
                Ok(Offset(low)..Offset(high))
            }
            Err(error) if is_missing(&error) => Err(self.missing(of).await?),
            Err(error) => {
                // Asked about what is not there, librdkafka may also just wait.
                let known = self.partitions(&of.topic).await?;
                if known.is_none_or(|count| of.partition.0 >= count) {
                    return Err(BusError::NoSuchPartition(of.clone()));
                }
                Err(told(&format!("could not ask for the ends of {of}"), &error))
            }
        }
    }

    /// What to say of a partition that a client has not found: it may be that the client has not heard of it yet.
    async fn missing(&self, of: &TopicPartition) -> Result<BusError, BusError> {
        let known = self.partitions(&of.topic).await?;
        Ok(match known {
            Some(count) if of.partition.0 < count => BusError::Retriable(format!("{of} has no leader yet")),
            _ => BusError::NoSuchPartition(of.clone()),
        })
    }

    /// The first committed offset whose timestamp is at or after `at`.
    pub(super) async fn offset_at(&self, of: &TopicPartition, at: i64) -> Result<Option<Offset>, BusError> {
        let end = self.bounds(of).await?.end;
        let what = format!("could not look for a time in {of}");
        let (name, partition, at) = (self.name(&of.topic), of.partition.0, at.max(0));
        let found = self.ask(move |consumer| offset_of(consumer, &name, partition, KafkaOffset::Offset(at), PATIENCE)).await?;
        let found = found.map_err(|e| told(&what, &e))?;
        Ok(found.map(Offset).filter(|offset| *offset < end))
    }

    /// Lets records below `before` go. Where no broker does it just now they stay: the next time asks for all that is below, too.
    pub(super) async fn trim(&self, of: &TopicPartition, before: Offset) -> Result<(), BusError> {
        match self.trim_now(of, before).await {
            Err(BusError::Retriable(why)) => {
                tracing::debug!(why, "let go later");
                Ok(())
            }
            done => done,
        }
    }

    async fn trim_now(&self, of: &TopicPartition, before: Offset) -> Result<(), BusError> {
        let what = format!("could not delete what {of} holds below offset {before}");
        let mut upto = TopicPartitionList::new();
        let name = self.name(&of.topic);
        upto.add_partition_offset(&name, of.partition.0, KafkaOffset::Offset(before.0)).map_err(|e| told(&what, &e))?;
        let options = AdminOptions::new().request_timeout(Some(TRIM_PATIENCE)).operation_timeout(Some(TRIM_PATIENCE));
        let done = self.admin.delete_records(&upto, &options).await.map_err(|e| told(&what, &e))?;
        match done.find_partition(&name, of.partition.0).map(|one| one.error()) {
            Some(Err(error)) if is_missing(&error) => Err(BusError::NoSuchPartition(of.clone())),
            // Somebody has trimmed further, or the partition is shorter: there is nothing to let go.
            Some(Err(error)) if error.rdkafka_error_code() == Some(Code::OffsetOutOfRange) => Ok(()),
            Some(Err(error)) => Err(told(&what, &error)),
            _ => Ok(()),
        }
    }
}

/// Asks for a change until the cluster has answered. One that was made though its answer did not come in time is found made.
async fn persist<F: Future<Output = Result<(), BusError>>>(change: impl Fn() -> F) -> Result<(), BusError> {
    let begun = Instant::now();
    loop {
        match change().await {
            Err(BusError::Retriable(why)) if begun.elapsed() < CHANGE_PATIENCE => {
                tracing::warn!(why, "asked for again");
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            answer => return answer,
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

fn name(application_id: &str, topic: &TopicName) -> String {
    match topic.as_str().strip_prefix("__") {
        Some(own) if topic.is_internal() => format!("{application_id}.{own}"),
        _ => topic.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_own_books_carry_the_application_id_and_nothing_else_does() {
        for (topic, on_cluster) in [
            ("__catalog", "ward.catalog"),
            ("__checkpoint.query.spo2_1m", "ward.checkpoint.query.spo2_1m"),
            ("__parts.query.spo2_1m", "ward.parts.query.spo2_1m"),
            ("alerts", "alerts"),
            ("__mine", "__mine"),
            ("vitals.late", "vitals.late"),
        ] {
            assert_eq!(name("ward", &TopicName::new(topic).unwrap()), on_cluster);
        }
    }
}
