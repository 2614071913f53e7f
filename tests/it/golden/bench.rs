//! An engine over a broker on a simulated disk, through the library's public doors.
//!
//! Owns how rows get in, how one knows that everything has been answered, and how results are read. The clock decides
//! nothing here: the cases give it nothing to decide within the time they take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use serde_json::Value;
use vitalsql::broker::{Broker, BrokerConfig};
use vitalsql::bus::{Bus, EmbeddedBus, TopicBatch};
use vitalsql::format::JsonEncoder;
use vitalsql::log::{Log, LogConfig, SimDisk};
use vitalsql::record::{BatchBuilder, Offset, PartitionId, TopicName, TopicPartition};
use vitalsql::sql::{Engine, EngineOptions, Outcome, QueryState, RuleFactory, RuleSpec, Workspace, parse_script};
use vitalsql::stream::{Delivery, Operator, Sink, SpillSpace, Spilling, StreamError};
use vitalsql::time::Clock;

use super::case::InputRow;

/// What has not come by then will not.
const DEADLINE: Duration = Duration::from_secs(30);

/// The stream a case writes to, and the query that writes it.
pub const OUT: &str = "golden_out";
pub const QUERY: &str = "golden";
/// The view, where a case is one.
pub const VIEW: &str = "golden_view";

/// Rules are the alarm desk's; here are none.
struct NoRules;

impl RuleFactory for NoRules {
    fn check(&self, _: &SchemaRef) -> Result<(), String> {
        Err("golden cases have no rules".to_owned())
    }
    fn operator(&self, _: &RuleSpec, _: &SchemaRef) -> Result<Box<dyn Operator>, StreamError> {
        Err(StreamError::Limit("golden cases have no rules".to_owned()))
    }
    fn sink(&self, _: &RuleSpec) -> Box<dyn Sink> {
        unreachable!("check refuses every rule")
    }
    fn topic(&self) -> TopicName {
        topic("alerts")
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("a topic's name")
}

/// One record of the output.
pub struct Written {
    pub key: Option<Vec<u8>>,
    /// `None` where the key was deleted.
    pub value: Option<Value>,
}

pub struct Bench {
    disk: SimDisk,
    broker: Arc<Broker>,
    bus: Arc<dyn Bus>,
    engine: Arc<Engine>,
    /// Where state goes that is not needed soon.
    spilled: Option<tempfile::TempDir>,
}

impl Bench {
    pub async fn new() -> Self {
        Self::over(SimDisk::new(1 << 40), None).await
    }

    /// One whose queries keep nothing in memory that can be on the disk.
    pub async fn spilling() -> Self {
        Self::over(SimDisk::new(1 << 40), Some(tempfile::tempdir().expect("a folder"))).await
    }

    async fn over(disk: SimDisk, spilled: Option<tempfile::TempDir>) -> Self {
        let space = |dir: &tempfile::TempDir| SpillSpace::open(&dir.path().join("state"), 1 << 30, 0).expect("a folder");
        let spilling = spilled.as_ref().map(|dir| Spilling { space: space(dir), above: 1 });
        let log = Log::open(Arc::new(disk.clone()), LogConfig { wal_segment_bytes: 1 << 20, ..LogConfig::default() }).expect("a log");
        let broker = Broker::open(log, BrokerConfig::default(), Clock::system()).await.expect("a broker");
        let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::new(Arc::clone(&broker)));
        let options = EngineOptions {
            commit_interval: Duration::from_millis(1),
            snapshot_interval: Duration::from_secs(30),
            default_partitions: 1,
            topic_configs: BTreeMap::new(),
            workspace: Workspace::open(256 << 20, None).expect("memory"),
            state_max: None,
            spilling,
            delivery: Delivery::ExactlyOnce,
        };
        let handle = tokio::runtime::Handle::current();
        let engine = Engine::open(Arc::clone(&bus), Arc::new(NoRules), Clock::system(), handle, options).await.expect("an engine");
        Self { disk, broker, bus, engine, spilled }
    }

    /// Stops everything as it should be stopped, and starts it again.
    pub async fn restart(self) -> Self {
        self.engine.close().await;
        self.broker.close().await.expect("a broker closes");
        Self::over(self.disk, self.spilled).await
    }

    /// The power is cut: what was not synced is gone, and it starts again.
    pub async fn crash(self) -> Self {
        let left = self.disk.crash(|_| 0);
        self.engine.close().await;
        self.broker.close().await.expect("a broker closes");
        Self::over(left, self.spilled).await
    }

    pub async fn close(self) {
        self.engine.close().await;
        self.broker.close().await.expect("a broker closes");
    }

    /// Runs statements one after the other.
    pub async fn run(&self, script: &str) -> Result<(), String> {
        for parsed in parse_script(script).map_err(|e| e.render(script))? {
            self.engine.run(parsed).await.map_err(|e| e.render(script))?;
        }
        Ok(())
    }

    /// The rows a SELECT gives.
    pub async fn select(&self, text: &str) -> Result<Vec<Value>, String> {
        let mut parsed = parse_script(text).map_err(|e| e.render(text))?;
        let (Some(one), true) = (parsed.pop(), parsed.is_empty()) else { return Err("the query is one SELECT".to_owned()) };
        let Outcome::Stream { schema, mut rows_rx } = self.engine.run(one).await.map_err(|e| e.render(text))? else {
            return Err("the query is no SELECT".to_owned());
        };
        let encoder = JsonEncoder::new(schema);
        let mut found = Vec::new();
        while let Some(batch) = rows_rx.recv().await {
            let batch = batch.map_err(|e| e.to_string())?;
            let encoded = encoder.encode(&batch);
            for row in 0..batch.num_rows() {
                let text = encoded.row(row).map_err(|e| e.to_string())?;
                found.push(serde_json::from_slice(text).map_err(|e| e.to_string())?);
            }
        }
        Ok(found)
    }

    /// Writes rows of one partition, durable when this returns.
    pub async fn write(&self, stream: &str, partition: i32, rows: &[InputRow]) -> Result<(), String> {
        let name = self.engine.topic_behind(stream).ok_or_else(|| format!("there is no stream {stream}"))?;
        let mut records = BatchBuilder::new();
        for row in rows {
            records.push(row.at, row.key.as_deref().map(str::as_bytes), row.body.as_deref().map(str::as_bytes), &[]);
        }
        let to = TopicPartition::new(name, PartitionId(partition));
        self.bus.append(vec![TopicBatch { to, records }]).await.map_err(|e| e.to_string())
    }

    /// Waits until every query has read and committed all there is.
    pub async fn settle(&self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let statuses = self.engine.statuses().await;
            if let Some(failed) = statuses.iter().find(|q| q.state == QueryState::Failed) {
                return Err(format!("query {} failed: {}", failed.name, failed.error.clone().unwrap_or_default()));
            }
            if statuses.iter().all(|q| q.state == QueryState::Running && q.lag == Some(0)) {
                return Ok(());
            }
            if begun.elapsed() > DEADLINE {
                return Err(format!("the queries do not come to their end: {statuses:?}"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Rows the query has counted as late since this engine was opened, and rows whose expression failed.
    pub async fn late_and_failed(&self) -> (u64, u64) {
        let counts = self.engine.statuses().await.into_iter().find(|q| q.name == QUERY).map(|q| q.counts).unwrap_or_default();
        (counts.late, counts.failed)
    }

    /// Records that were no rows of their stream.
    pub fn bad_records(&self) -> u64 {
        self.engine.bad_records().iter().map(|(_, count)| count).sum()
    }

    /// What the query has written.
    pub async fn written(&self) -> Result<Vec<Written>, String> {
        let name = self.engine.topic_behind(OUT).ok_or("the query made no stream")?;
        let count = self.bus.partitions(&name).await.map_err(|e| e.to_string())?.unwrap_or(0);
        let mut all = Vec::new();
        for partition in 0..count {
            let place = TopicPartition::new(name.clone(), PartitionId(partition));
            let end = self.bus.bounds(&place).await.map_err(|e| e.to_string())?.end;
            let mut reader = self.bus.open(&place, Offset::ZERO).await.map_err(|e| e.to_string())?;
            while reader.position() < end {
                for batch in reader.poll(1 << 20).await.map_err(|e| e.to_string())? {
                    for record in batch.records().map_err(|e| e.to_string())?.iter() {
                        let record = record.map_err(|e| e.to_string())?;
                        let value = record.value.map(serde_json::from_slice).transpose().map_err(|e| e.to_string())?;
                        all.push(Written { key: record.key.map(<[u8]>::to_vec), value });
                    }
                }
            }
        }
        Ok(all)
    }
}
