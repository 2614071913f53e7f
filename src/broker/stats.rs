//! What the broker counts about itself, and how it comes to `/metrics`.
//!
//! Plain atomic counters, raised where things happen; [`Broker::export`] brings them over at a scrape.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Broker;
use crate::metrics::{Metrics, raise};
use crate::record::TopicName;
use crate::wire::{APIS, ApiKey};

/// Counters of the Kafka door.
pub struct BrokerStats {
    requests: BTreeMap<ApiKey, AtomicU64>,
    connections: AtomicI64,
    refused_connections: AtomicU64,
    /// Where durations go, once there is someone who reads them.
    metrics: OnceLock<Arc<Metrics>>,
}

impl Default for BrokerStats {
    fn default() -> Self {
        Self {
            requests: APIS.iter().map(|api| (api.key, AtomicU64::new(0))).collect(),
            connections: AtomicI64::new(0),
            refused_connections: AtomicU64::new(0),
            metrics: OnceLock::new(),
        }
    }
}

impl BrokerStats {
    /// A request of this API was served, in so much time.
    pub fn served(&self, api: ApiKey, took: Duration) {
        if let Some(count) = self.requests.get(&api) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(metrics) = self.metrics.get() {
            metrics.broker_request_seconds.with_label_values(&[api.name()]).observe(took.as_secs_f64());
        }
    }

    /// A connection was opened.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed.
    pub fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection was turned away: there were too many.
    pub fn turned_away(&self) {
        self.refused_connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> i64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections turned away.
    #[must_use]
    pub fn refused_connections(&self) -> u64 {
        self.refused_connections.load(Ordering::Relaxed)
    }

    /// Requests served, by API.
    #[must_use]
    pub fn requests(&self) -> Vec<(ApiKey, u64)> {
        self.requests.iter().map(|(api, count)| (*api, count.load(Ordering::Relaxed))).collect()
    }
}

/// One topic's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSize {
    /// Its name.
    pub name: TopicName,
    /// How many partitions it has.
    pub partitions: usize,
    /// How many records it holds.
    pub records: i64,
    /// How many bytes they take.
    pub bytes: u64,
}

impl Broker {
    /// The size of every topic, by name.
    #[must_use]
    pub fn topic_sizes(&self) -> Vec<TopicSize> {
        let size = |topic: &Arc<super::Topic>| {
            let partitions = topic.partitions();
            TopicSize {
                name: topic.name().clone(),
                partitions: partitions.len(),
                records: partitions.iter().map(|p| p.log().durable_end().0 - p.log().start().0).sum(),
                bytes: partitions.iter().map(|p| p.log().size_bytes()).sum(),
            }
        };
        self.topics().iter().map(size).collect()
    }

    /// Brings the counters over to `/metrics`.
    pub fn export(&self, metrics: &Arc<Metrics>) {
        // From the first scrape on, durations are observed as they happen.
        let _ = self.stats().metrics.set(Arc::clone(metrics));
        for (api, count) in self.stats().requests().into_iter().filter(|(_, count)| *count > 0) {
            raise(&metrics.broker_requests.with_label_values(&[api.name()]), count);
        }
        metrics.broker_connections.set(self.stats().connections());
        metrics.log_size_bytes.reset();
        for topic in self.topics() {
            let label = [topic.name().as_str()];
            let size: u64 = topic.partitions().iter().map(|p| p.log().size_bytes()).sum();
            metrics.log_size_bytes.with_label_values(&label).set(size as i64);
            let traffic = &topic.traffic;
            for (counter, total) in [
                (&metrics.broker_records_in, &traffic.records_in),
                (&metrics.broker_bytes_in, &traffic.bytes_in),
                (&metrics.broker_bytes_out, &traffic.bytes_out),
            ] {
                let total = total.load(Ordering::Relaxed);
                if total > 0 {
                    raise(&counter.with_label_values(&label), total);
                }
            }
        }
        metrics.consumer_group_lag.reset();
        for (group, topic, lag) in self.groups().lags(|of| self.partition(of).map(|p| p.log().durable_end())) {
            metrics.consumer_group_lag.with_label_values(&[group.as_str(), topic.as_str()]).set(lag);
        }
        self.export_log(metrics);
    }
}
