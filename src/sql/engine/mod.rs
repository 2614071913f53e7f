//! The engine: runs statements, and owns what runs.
//!
//! Owns the catalogue (kept in topic `__catalog`), the feeds that decode each stream once, the intakes, and the tasks of
//! every query and alert. Always: a change of the catalogue is durable before it is acted on; after a restart everything that
//! ran runs again, from where its last commit stood. One statement that changes anything runs at a time. Called by
//! `http` and `node`.

mod changing;
mod checker;
mod company;
mod delivery;
mod growth;
mod launch;
mod phases;
mod replace;
mod rules;
mod running;
mod sample;
mod savepoint;
mod statements;
mod status;
mod subscribe;
#[cfg(test)]
mod tests;
mod unstarted;
mod views;
mod why;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use checker::Checker;
pub use rules::{RuleFactory, RuleSpec};
pub use running::QueryState;
pub use status::QueryStatus;

use super::catalog::{CATALOG_TOPIC, Catalog, Change, Entry, Existing};
use super::error::{Code, SqlError};
use super::parse::parse_script;
use super::statement::{Kind, Parsed};
use super::workspace::Workspace;
use crate::bus::{Bus, BusError, Committer, TopicSpec};
use crate::record::{Offset, PartitionId, TopicName, TopicPartition};
use crate::stream::{Delivery, Feed, Spilling, StateBudget};
use crate::time::Clock;
use running::Watched;
use unstarted::Unstarted;

/// How long a CREATE waits for its tasks.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);

/// How the engine runs.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// A commit without output waits this long.
    pub commit_interval: Duration,
    /// A busy task snapshots at least this often.
    pub snapshot_interval: Duration,
    /// Partitions of a stream's topic that is made without a count.
    pub default_partitions: i32,
    /// Configs of topics that the engine makes.
    pub topic_configs: BTreeMap<String, String>,
    /// What SELECTs over stored data work in.
    pub workspace: Workspace,
    /// Bytes of state that a query may hold which does not say how many; `None` for any number.
    pub state_max: Option<u64>,
    /// When state goes to the disk, and where; nothing does without it.
    pub spilling: Option<Spilling>,
    /// How often the results of a query or alert may be written that does not say it.
    pub delivery: Delivery,
}

/// What a statement came to.
pub enum Outcome {
    /// Done; the message says what.
    Done(String),
    /// Rows that are all there.
    Rows {
        /// Their columns.
        schema: SchemaRef,
        /// The rows.
        batches: Vec<RecordBatch>,
    },
    /// Rows as they are found, or as they come.
    Stream {
        /// Their columns.
        schema: SchemaRef,
        /// The rows. Dropping the receiver ends whatever makes them.
        rows_rx: mpsc::Receiver<Result<RecordBatch, SqlError>>,
    },
}

/// A query or alert that was started.
struct Running {
    entry: Arc<Entry>,
    /// What it reads, from left to right.
    inputs: Vec<RunningInput>,
    sink: String,
    /// Those of a first phase before those of the second.
    tasks: Vec<Watched>,
    /// How many are of a first phase, and the topic between them, where there are two.
    phases: Option<(usize, TopicName)>,
    /// What they hold and may hold.
    budget: Arc<StateBudget>,
}

/// A stream or table that something running reads.
struct RunningInput {
    stream: String,
    topic: TopicName,
    /// The partitions of that topic when it was started; none where it could not be.
    partitions: i32,
}

/// The intake tasks of one stream, and how many queries and alerts need them.
struct StreamIntake {
    users: usize,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// The engine.
pub struct Engine {
    bus: Arc<dyn Bus>,
    rules: Arc<dyn RuleFactory>,
    clock: Clock,
    runtime: Handle,
    options: EngineOptions,
    catalog: RwLock<Catalog>,
    running: Mutex<BTreeMap<String, Running>>,
    feeds: Mutex<HashMap<(String, i32), Arc<Feed>>>,
    intakes: Mutex<HashMap<String, StreamIntake>>,
    bad: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    /// Told when a view was replaced or dropped, to whoever follows one.
    views_changed: watch::Sender<()>,
    /// Held by a statement that changes something.
    change: tokio::sync::Mutex<()>,
    /// The right to write the catalogue, where others have it too.
    writer: tokio::sync::Mutex<Option<Box<dyn Committer>>>,
    /// How far the catalogue has been taken in, where others write it too.
    followed: watch::Sender<i64>,
    /// What follows the others.
    followers: Mutex<Vec<JoinHandle<()>>>,
    /// What is started once the log answers.
    unstarted: Mutex<Unstarted>,
}

impl Engine {
    /// Reads the catalogue back and starts what ran.
    pub async fn open(
        bus: Arc<dyn Bus>,
        rules: Arc<dyn RuleFactory>,
        clock: Clock,
        runtime: Handle,
        options: EngineOptions,
    ) -> Result<Arc<Self>, BusError> {
        let topic = catalog_topic();
        let configs = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
        bus.ensure_topic(&topic, &TopicSpec { partitions: 1, configs }).await?;
        let (catalog, upto) = replay(bus.as_ref(), &TopicPartition::new(topic, PartitionId(0))).await?;
        let engine = Arc::new(Self {
            bus,
            rules,
            clock,
            runtime,
            options,
            catalog: RwLock::new(catalog),
            running: Mutex::default(),
            feeds: Mutex::default(),
            intakes: Mutex::default(),
            bad: Mutex::default(),
            views_changed: watch::Sender::new(()),
            change: tokio::sync::Mutex::new(()),
            writer: tokio::sync::Mutex::default(),
            followed: watch::Sender::new(upto.0),
            followers: Mutex::default(),
            unstarted: Mutex::default(),
        });
        if engine.bus.company().is_none()
            && let Err(error) = engine.clear_torn().await
        {
            tracing::warn!(code = %error.code, reason = %error.message, "what a savepoint has left that was not made whole is still there");
        }
        let entries: Vec<Arc<Entry>> = {
            let catalog = engine.catalog.read();
            catalog.all_tasks().cloned().collect()
        };
        engine.launch_all(&entries).await;
        match engine.join_company().await {
            Ok(followers) => *engine.followers.lock() = followers,
            Err(error) => {
                engine.close().await;
                return Err(error);
            }
        }
        Ok(engine)
    }

    /// Runs one statement.
    pub async fn run(self: &Arc<Self>, parsed: Parsed) -> Result<Outcome, SqlError> {
        self.unhindered(&parsed, Existing::AsWritten).await.map_err(|e| parsed.locate(e))
    }

    /// Applies a query file: what it creates and is there unchanged is left alone, what has changed is replaced.
    pub async fn apply(self: &Arc<Self>, text: &str) -> Result<(), SqlError> {
        for parsed in parse_script(text)? {
            // What is there unchanged takes no right to write from other processes.
            if self.bus.company().is_none() || !self.is_there(&parsed) {
                self.unhindered(&parsed, Existing::Replace).await.map_err(|e| parsed.locate(e))?;
            }
        }
        Ok(())
    }

    /// Whether what a statement of a file creates is there unchanged.
    pub(super) fn is_there(&self, parsed: &Parsed) -> bool {
        let created = self.catalog.read().create(parsed, Existing::Replace, self.clock.now());
        matches!(created, Ok(Change::Unchanged(_) | Change::Left(_)))
    }

    /// How many queries and alerts there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.running.lock().len()
    }

    /// Steps an alert's operators from outside; answers once it is durable, or, where other processes run tasks too, on its way.
    pub async fn external(&self, rule: &str, body: String) -> Result<(), SqlError> {
        if let Some(company) = self.bus.company() {
            return self.send_step(company, rule, body).await;
        }
        let controls = {
            let running = self.running.lock();
            let rule = running.get(rule).filter(|r| r.entry.kind == Kind::Alert);
            let rule = rule.ok_or_else(|| SqlError::new(Code::NoSuchName, "the rule is not there any more"))?;
            rule.tasks.iter().map(Watched::control).collect::<Vec<_>>()
        };
        // The subject lives in one of the tasks; the others have nothing to do.
        for control in controls {
            running::external(control, body.clone()).await.map_err(|why| SqlError::new(Code::Execution, why))?;
        }
        Ok(())
    }

    /// How many records of each stream were no row of it.
    #[must_use]
    pub fn bad_records(&self) -> Vec<(String, u64)> {
        let bad = self.bad.lock();
        bad.iter().map(|(name, count)| (name.clone(), count.load(std::sync::atomic::Ordering::Relaxed))).collect()
    }

    /// The topic behind a stream or table.
    #[must_use]
    pub fn topic_behind(&self, relation: &str) -> Option<TopicName> {
        self.catalog.read().relation(relation).map(|def| def.topic.clone())
    }

    /// The topics that are read where a stream, table or view of this name is: of a view that is a name for a query, those of that query. `None`
    /// where one of them is not there.
    #[must_use]
    pub fn topics_read(&self, relation: &str) -> Option<Vec<TopicName>> {
        let catalog = self.catalog.read();
        let reads = catalog.reads_through(&[crate::sql::statement::Name::new(relation)]);
        reads.iter().map(|read| catalog.relation(&read.text).map(|def| def.topic.clone())).collect()
    }

    /// The feeds of a stream, one a partition; none where there is no such stream or its topic is not there.
    pub async fn feeds(&self, stream: &str) -> Vec<Arc<Feed>> {
        let Some(def) = self.catalog.read().relation(stream).cloned() else { return Vec::new() };
        let Ok(Some(partitions)) = self.bus.partitions(&def.topic).await else { return Vec::new() };
        self.feeds_of(&def, partitions).unwrap_or_default()
    }

    /// Last commits and snapshots of everything, then nothing runs.
    pub async fn close(&self) {
        for follower in std::mem::take(&mut *self.followers.lock()) {
            follower.abort();
        }
        self.give_up_unstarted();
        let _one = self.change.lock().await;
        let all = std::mem::take(&mut *self.running.lock());
        let stops = all.into_values().map(|mut running| async move { running.stop().await });
        futures::future::join_all(stops).await;
        let intakes = std::mem::take(&mut *self.intakes.lock());
        for intake in intakes.into_values() {
            intake.stop().await;
        }
    }

    /// Waits until every task of a query or alert stands at its first offset: what is written after the statement has
    /// answered is not missed by a rule that begins at the latest.
    async fn await_opened(&self, name: &str) {
        let opened: Vec<watch::Receiver<bool>> = {
            let running = self.running.lock();
            running.get(name).map(|r| r.tasks.iter().map(Watched::opened).collect()).unwrap_or_default()
        };
        for mut one in opened {
            // A task that takes longer restores much; it is shown as starting meanwhile. It may have to wait for what another
            // process has just changed, which is taken in behind this statement.
            tokio::select! {
                _ = tokio::time::timeout(OPEN_PATIENCE, one.wait_for(|opened| *opened)) => {}
                () = self.others_change() => {}
            }
        }
    }

    /// Whether a task of a query or alert has failed.
    fn has_failed(&self, name: &str) -> bool {
        self.running.lock().get(name).is_some_and(|r| r.tasks.iter().any(|task| task.state().0 == QueryState::Failed))
    }
}

impl Running {
    /// What it reads, each once.
    fn streams(&self) -> BTreeSet<String> {
        self.inputs.iter().map(|input| input.stream.clone()).collect()
    }

    async fn stop(&mut self) {
        let stops = self.tasks.iter_mut().map(Watched::stop);
        futures::future::join_all(stops).await;
    }
}

impl StreamIntake {
    async fn stop(self) {
        // Nobody listens where they have ended already.
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
        }
    }
}

fn catalog_topic() -> TopicName {
    TopicName::new(CATALOG_TOPIC).expect("a constant name")
}

fn storage(error: &BusError) -> SqlError {
    SqlError::new(Code::Storage, error.to_string())
}

async fn replay(bus: &dyn Bus, of: &TopicPartition) -> Result<(Catalog, Offset), BusError> {
    let bounds = bus.bounds(of).await?;
    let mut catalog = Catalog::new();
    let mut reader = bus.open(of, bounds.start).await?;
    while reader.position() < bounds.end {
        let from = reader.position();
        let batches = reader.poll(4 << 20).await?;
        if batches.is_empty() && reader.position() == from {
            // Whoever went on would be without the queries that are said behind it.
            return Err(BusError::Retriable(format!("{of} ends at offset {from}, and it said {}", bounds.end)));
        }
        for batch in batches {
            let records = batch.records().map_err(|e| BusError::Corrupt(e.to_string()))?;
            for record in records.iter() {
                let record = record.map_err(|e| BusError::Corrupt(e.to_string()))?;
                if let Err(error) = catalog.replay(record.key.unwrap_or_default(), record.value) {
                    tracing::error!(%error, "a statement of the catalogue cannot be read any more");
                }
            }
        }
    }
    Ok((catalog, bounds.end))
}
