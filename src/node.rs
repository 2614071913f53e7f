//! The node: opens, starts and stops every room in order, and owns every task and thread.
//!
//! Opening goes from the ground up (log, broker, bus, engine), then the doors. Stopping goes from the doors
//! inwards: listeners, queries (last commit, snapshot), alerts, broker, log. Always: nothing is served before
//! what it needs is restored, and `/readyz` says what is missing. Called by `cli` and by tests.

mod chores;
mod doors;
mod figures;
mod log;
mod opening;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::doors::Doors;
use self::log::{may_pass, open_bus, patiently};
use self::opening::{engine_topic_configs, listener_terms, open_broker, query_files, spilling, workspace};
use crate::alerts::{ALERTS_TOPIC, AlertRecord, Desk, NotifyStats, Rules};
use crate::broker::Broker;
use crate::bus::{Bus, BusError, TopicBatch, TopicSpec, partition_for_key};
use crate::config::Config;
use crate::http::{Access, App, Board, Check, Host, HostFuture, TopicInfo};
use crate::metrics::Metrics;
use crate::record::{BatchBuilder, TopicName, TopicPartition};
use crate::server::{Limits, ListenerTerms, Server, Tls, listen as listen_at};
use crate::sql::{Engine, EngineOptions, Outcome, QueryStatus, SqlError, parse_script};
use crate::time::{Clock, Timestamp};

/// How many partitions the alerts topic gets.
const ALERT_PARTITIONS: i32 = 1;
/// Why a node does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// An address cannot be listened on.
    #[error("could not listen on {address}: {why}. Is something else there? Another address: {flag} HOST:PORT")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        why: String,
        /// The flag that changes it.
        flag: &'static str,
    },
    /// The data directory cannot be opened.
    #[error("could not open the data directory {}: {why}", dir.display())]
    Data {
        /// Which.
        dir: PathBuf,
        /// What the log said.
        why: String,
    },
    /// A query file is wrong.
    #[error("{file}:\n{rendered}")]
    Query {
        /// Which file.
        file: String,
        /// The error as the SQL room shows it.
        rendered: String,
    },
    /// Something inside could not be started or stopped.
    #[error("{what}: {why}")]
    Inside {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        why: String,
    },
}

fn inside(what: &'static str) -> impl Fn(String) -> NodeError {
    move |why| NodeError::Inside { what, why }
}

/// A file of statements applied at start: unchanged text leaves a query as it is, changed text replaces it.
#[derive(Clone, Debug)]
pub struct QueryFile {
    /// Its name, for messages.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// How a node is started.
pub struct NodeOptions {
    /// The settings.
    pub config: Config,
    /// The clock everything runs by.
    pub clock: Clock,
    /// Statements applied at start, before those of the configured folder.
    pub queries: Vec<QueryFile>,
}

impl NodeOptions {
    /// A node with these settings and nothing applied but its configured folder.
    #[must_use]
    pub const fn new(config: Config, clock: Clock) -> Self {
        Self { config, clock, queries: Vec::new() }
    }
}

/// A running node.
pub struct Node {
    inner: Arc<Inner>,
    /// Of its own broker; on a cluster it has no such door.
    kafka_address: Option<SocketAddr>,
    /// Where clients find what the queries read and write.
    kafka: String,
    http_address: SocketAddr,
    ready_after: Duration,
    doors: CancellationToken,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    server: Server,
    query_threads: QueryThreads,
    _membership: Membership,
}

/// The threads that queries run on. However a node ends (stopped, given up on, never quite started), they are left to end
/// by themselves: a runtime that is dropped by async code would wait for them, and tokio panics at that.
struct QueryThreads(Option<tokio::runtime::Runtime>);

impl Drop for QueryThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The node's share of the work on a log that others run on too: given up however the node ends.
struct Membership(Arc<dyn Bus>);

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(company) = self.0.company() {
            company.abandon();
        }
    }
}

struct Inner {
    broker: Arc<Broker>,
    bus: Arc<dyn Bus>,
    engine: Arc<Engine>,
    desk: Arc<Desk>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    notify: BTreeMap<String, Arc<NotifyStats>>,
    clock: Clock,
    draining: AtomicBool,
    started: AtomicBool,
}

impl Node {
    /// Opens everything and serves.
    pub async fn start(options: NodeOptions) -> Result<Self, NodeError> {
        let begun = Instant::now();
        let NodeOptions { config, clock, queries } = options;
        let files = query_files(&config, queries)?;
        // The doors are taken first: a port that is in use is known before any file is touched.
        let listen =
            |address: SocketAddr, flag: &'static str| move |e: std::io::Error| NodeError::Listen { address, why: e.to_string(), flag };
        let mut listeners = Vec::new();
        // On a cluster clients talk to the cluster: what came in at a door here, no query would read.
        if config.kafka_cluster.is_none() {
            let kafka = listen_at(config.kafka_listen).map_err(listen(config.kafka_listen, "--kafka"))?;
            listeners.push((kafka, ListenerTerms::plaintext()));
        }
        for listener in &config.kafka_security.listeners {
            let socket = listen_at(listener.address).map_err(listen(listener.address, "kafka.listeners"))?;
            listeners.push((socket, listener_terms(listener)?));
        }
        let http_tls = config.http_security.tls.clone().map(Tls::open).transpose();
        let http_tls = http_tls.map_err(|why| inside("could not read certificates")(format!("the HTTP door: {why}")))?.map(Arc::new);
        let access = |broker: &Broker| Access {
            tokens: config.http_security.tokens.clone(),
            security: Arc::clone(broker.security()),
            any_host: config.insecure,
            tls: http_tls,
        };
        if !config.http_listen.ip().is_loopback() && config.http_security.tls.is_none() {
            tracing::warn!("the HTTP door is open beyond loopback without TLS: tokens and patient data can be read on the way");
        }
        let http = crate::http::bind(config.http_listen).await.map_err(listen(config.http_listen, "--http"))?;
        let metrics = Metrics::new();
        let broker = open_broker(&config, clock).await?;
        let address = http.local_addr().map_err(|e| inside("no address")(e.to_string()))?;
        let bus = open_bus(&config, &broker, address).await?;
        let membership = Membership(Arc::clone(&bus));
        let query_runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.engine_threads)
            .thread_name("vitalsql-query")
            .enable_all()
            .build()
            .map_err(|e| inside("could not start the query threads")(e.to_string()))?;
        let query_handle = query_runtime.handle().clone();
        let query_threads = QueryThreads(Some(query_runtime));
        let alerts = TopicName::new(ALERTS_TOPIC).expect("a constant name");
        let spec = TopicSpec { partitions: ALERT_PARTITIONS, configs: engine_topic_configs() };
        // The node's own log answers at once, also that it cannot.
        let on_cluster = config.kafka_cluster.is_some();
        let log_may_pass = |error: &BusError| on_cluster && may_pass(error);
        let alert_partitions = patiently(log_may_pass, || bus.ensure_topic(&alerts, &spec)).await;
        let alert_partitions = alert_partitions.map_err(|e| inside("could not make topic alerts")(e.to_string()))?;
        let engine_options = EngineOptions {
            commit_interval: config.commit_interval,
            snapshot_interval: config.snapshot_interval,
            default_partitions: config.default_partitions,
            topic_configs: engine_topic_configs(),
            workspace: workspace(&config)?,
            state_max: Some(config.state_max).filter(|max| *max > 0),
            spilling: spilling(&config),
            delivery: config.delivery,
        };
        let rules = Arc::new(Rules { partitions: alert_partitions });
        let open = || Engine::open(Arc::clone(&bus), rules.clone(), clock, query_handle.clone(), engine_options.clone());
        let engine = patiently(log_may_pass, open).await.map_err(|e| inside("could not open the query catalogue")(e.to_string()))?;
        for file in &files {
            let applied = patiently(|error: &SqlError| on_cluster && error.may_pass(), || engine.apply(&file.text)).await;
            applied.map_err(|e| NodeError::Query { file: file.name.clone(), rendered: e.render(&file.text) })?;
        }
        let notify = config.webhooks.keys().map(|name| (name.clone(), Arc::new(NotifyStats::default()))).collect();
        let inner = Arc::new(Inner {
            broker: Arc::clone(&broker),
            bus,
            engine,
            desk: Arc::new(Desk::default()),
            board: Arc::new(Board::default()),
            metrics,
            notify,
            clock,
            draining: AtomicBool::new(false),
            started: AtomicBool::new(false),
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = inner.start_tasks(&config, alert_partitions, &stopped);
        let doors = CancellationToken::new();
        let kafka_address = listeners.first().map(|(kafka, _)| kafka.local_addr()).transpose();
        let kafka_address = kafka_address.map_err(|e| inside("no address")(e.to_string()))?;
        let http_address = http.local_addr().map_err(|e| inside("no address")(e.to_string()))?;
        let doors_take = Doors::open(config.max_connections);
        let limits = Limits {
            connections: doors_take.kafka,
            connections_per_address: config.max_connections_per_ip,
            request_bytes: config.request_memory,
        };
        let server = Server::open(listeners, &broker, &doors, limits);
        let app = Arc::new(App {
            access: access(&broker),
            engine: Arc::clone(&inner.engine),
            desk: Arc::clone(&inner.desk),
            board: Arc::clone(&inner.board),
            metrics: Arc::clone(&inner.metrics),
            clock,
            host: Arc::clone(&inner) as Arc<dyn Host>,
            stop: doors.clone(),
        });
        tasks.push(tokio::spawn(async move {
            crate::http::serve(http, doors_take.http, app).await;
        }));
        inner.started.store(true, Ordering::Release);
        Ok(Self {
            inner,
            kafka: config.kafka_cluster.as_ref().map_or_else(
                || kafka_address.map(|address| address.to_string()).unwrap_or_default(),
                |cluster| format!("{} (cluster, application id {})", cluster.brokers, cluster.application_id),
            ),
            kafka_address,
            http_address,
            ready_after: begun.elapsed(),
            doors,
            stop,
            tasks: Mutex::new(tasks),
            server,
            query_threads,
            _membership: membership,
        })
    }

    /// Stops from the doors inwards. What was acknowledged is durable in any case; this makes the next start quick.
    pub async fn stop(self) -> Result<(), NodeError> {
        self.inner.draining.store(true, Ordering::Release);
        self.doors.cancel();
        self.server.stopped().await;
        self.inner.engine.close().await;
        if let Some(company) = self.inner.bus.company() {
            // Where the cluster does not answer, its own patience ends the membership.
            let _ = tokio::time::timeout(Duration::from_secs(30), company.leave()).await;
        }
        // Nobody is left to hear it where a task has ended already.
        let _ = self.stop.send(true);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            // A task that does not end in time is not waited for: its work is behind it or repeated.
            let _ = tokio::time::timeout(Duration::from_secs(2), task).await;
        }
        drop(self.query_threads);
        self.inner.broker.close().await.map_err(|e| inside("could not close the log")(e.to_string()))
    }

    /// The Kafka listener's address; `None` on a cluster.
    #[must_use]
    pub const fn kafka_address(&self) -> Option<SocketAddr> {
        self.kafka_address
    }

    /// Where Kafka clients find what the queries read and write, for people.
    #[must_use]
    pub fn kafka(&self) -> &str {
        &self.kafka
    }

    /// The HTTP listener's address.
    #[must_use]
    pub const fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// How long the start took.
    #[must_use]
    pub const fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// How many queries and alerts there are.
    #[must_use]
    pub fn running_queries(&self) -> usize {
        self.inner.engine.count()
    }

    /// Completes when the log has failed for good, with the reason: nothing may be acknowledged any more.
    pub async fn failed(&self) -> String {
        tokio::select! {
            reason = self.inner.broker.log_failed() => reason,
            reason = self.inner.bus.failed() => reason,
        }
    }

    /// Every change of an alert from now on.
    #[must_use]
    pub fn alert_changes(&self) -> broadcast::Receiver<Arc<AlertRecord>> {
        self.inner.desk.changes()
    }

    /// The bed a patient was last heard from.
    #[must_use]
    pub fn bed_of(&self, patient: &str) -> Option<String> {
        self.inner.board.bed_of(patient)
    }

    /// Runs a script and answers the last statement's outcome.
    pub async fn execute(&self, text: &str) -> Result<Option<Outcome>, SqlError> {
        let mut last = None;
        for parsed in parse_script(text)? {
            last = Some(self.inner.engine.run(parsed).await?);
        }
        Ok(last)
    }

    /// The log under the engine, for whoever embeds the node.
    #[must_use]
    pub fn bus(&self) -> Arc<dyn Bus> {
        Arc::clone(&self.inner.bus)
    }

    /// How long the syncs of the log took since the last look, this way or by a scrape of the metrics; of many the first.
    #[must_use]
    pub fn recent_syncs(&self) -> Vec<Duration> {
        self.inner.broker.recent_syncs()
    }

    /// How many rows a query has read.
    pub async fn rows_read(&self, query: &str) -> u64 {
        self.query_status(query).await.map_or(0, |q| q.counts.rows_in)
    }

    /// How a query is doing; `None` where there is none of this name.
    pub async fn query_status(&self, query: &str) -> Option<QueryStatus> {
        self.inner.engine.status_of(query).await
    }

    /// Whether topic `vitals` holds anything.
    pub async fn has_readings(&self) -> bool {
        let topic = TopicName::new("vitals").expect("a constant name");
        let count = self.inner.bus.partitions(&topic).await.ok().flatten().unwrap_or(0);
        for partition in 0..count {
            let place = TopicPartition::new(topic.clone(), crate::record::PartitionId(partition));
            if self.inner.bus.bounds(&place).await.is_ok_and(|b| b.end > b.start) {
                return true;
            }
        }
        false
    }

    /// Writes keyed records to a topic, durable when this returns; the topic is made where it is not there.
    pub async fn write_simulated(&self, topic: &str, records: Vec<(Timestamp, String, Vec<u8>)>) -> Result<(), NodeError> {
        let wrong = |why: String| NodeError::Inside { what: "could not write records", why };
        let topic = TopicName::new(topic).map_err(|e| wrong(e.to_string()))?;
        let spec = TopicSpec { partitions: 1, configs: engine_topic_configs() };
        let count = self.inner.bus.ensure_topic(&topic, &spec).await.map_err(|e| wrong(e.to_string()))?;
        let mut batches: BTreeMap<i32, BatchBuilder> = BTreeMap::new();
        for (at, key, body) in &records {
            let partition = partition_for_key(key.as_bytes(), count);
            batches.entry(partition.0).or_default().push(at.0, Some(key.as_bytes()), Some(body), &[]);
            if batches.get(&partition.0).is_some_and(|b| b.size() > 512 * 1024) {
                self.append(&topic, std::mem::take(&mut batches)).await.map_err(&wrong)?;
            }
        }
        self.append(&topic, batches).await.map_err(wrong)
    }

    async fn append(&self, topic: &TopicName, batches: BTreeMap<i32, BatchBuilder>) -> Result<(), String> {
        let outputs = batches.into_iter().filter(|(_, records)| !records.is_empty());
        let outputs =
            outputs.map(|(p, records)| TopicBatch { to: TopicPartition::new(topic.clone(), crate::record::PartitionId(p)), records });
        self.inner.bus.append(outputs.collect()).await.map_err(|e| e.to_string())
    }
}

impl Host for Inner {
    fn refresh_metrics(&self) -> HostFuture<'_, ()> {
        Box::pin(self.bring_over())
    }

    fn readiness(&self) -> Vec<Check> {
        let failed = self.broker.log_failure();
        let draining = self.draining.load(Ordering::Acquire);
        let started = self.started.load(Ordering::Acquire);
        vec![
            // A full disk is no reason to send nobody here: reading goes on, and deleting makes room.
            Check { name: "log", ok: failed.is_none(), detail: failed.or_else(|| self.broker.disk_full()).unwrap_or_default() },
            Check { name: "bus", ok: self.bus.trouble().is_none(), detail: self.bus.trouble().unwrap_or_default() },
            Check { name: "queries", ok: started, detail: if started { String::new() } else { "being restored".to_owned() } },
            Check {
                name: "alarm desk",
                ok: self.desk.is_caught_up(),
                detail: if self.desk.is_caught_up() { String::new() } else { "reading topic alerts".to_owned() },
            },
            Check { name: "serving", ok: !draining, detail: if draining { "stopping".to_owned() } else { String::new() } },
        ]
    }

    fn topics(&self) -> Vec<TopicInfo> {
        self.broker
            .topic_sizes()
            .into_iter()
            .map(|t| TopicInfo {
                internal: t.name.is_internal(),
                name: t.name.as_str().to_owned(),
                partitions: t.partitions,
                records: t.records,
                bytes: t.bytes,
            })
            .collect()
    }
}
