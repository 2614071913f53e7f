//! The log against a plain model and a hostile disk. `crash` cuts the power at every operation, `faults` has failing syncs, full disks and
//! damage, `places` has files in each other's place, `reads` what readers see, `simulation` everything at once.

mod compaction;
mod crash;
mod durability;
mod faults;
mod places;
mod reads;
mod simulation;
mod upkeep;

use std::sync::Arc;

use super::commit::Committer;
use super::materialise::Materialiser;
use super::shared::Step;
use super::*;
use crate::record::{Batch, BatchBuilder, TopicName};
use crate::time::{Ages, Timestamp};

/// A small generator: the same seed, the same run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }
}

/// How many seeds a test runs: `SEEDS=10000` for a longer look.
fn seeds(usually: u64) -> u64 {
    std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usually)
}

fn key(n: i32) -> PartitionKey {
    PartitionKey { topic: TopicId([7; 16]), partition: PartitionId(n) }
}

/// Everything small, so that everything turns over.
fn small() -> LogConfig {
    LogConfig {
        wal_segment_bytes: 4096,
        wal_max_bytes: 8192,
        cache_bytes: 4096,
        write_behind_bytes: 1024,
        max_pending_bytes: 1 << 20,
        min_free_bytes: 0,
        ballast_bytes: 0,
        compaction_bytes: 1 << 20,
    }
}

fn open(disk: &SimDisk, config: LogConfig) -> Result<Log, LogError> {
    Log::open(Arc::new(disk.clone()), config)
}

fn config() -> PartitionConfig {
    PartitionConfig { segment_bytes: 1500, ..PartitionConfig::default() }
}

fn partition(log: &Log, n: i32) -> Arc<PartitionLog> {
    log.create(key(n), &TopicName::new("t").expect("valid"), config()).expect("created")
}

fn batch_of(values: &[u64], base: Offset) -> Batch {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(*value as i64, Some(b"k"), Some(format!("{value:040}").as_bytes()), &[]);
    }
    builder.finish().with_base(base, 0)
}

fn block<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

fn submit_at(log: &Log, parts: &[(i32, Vec<u64>)], received: i64) -> Result<Submitted, LogError> {
    let appends = parts.iter().map(|(n, values)| {
        let to = partition(log, *n);
        Append { batch: batch_of(values, to.end()), to, received: Timestamp(received) }
    });
    let permit = block(log.room(100));
    log.submit(AppendGroup { appends: appends.collect() }, permit)
}

fn submit(log: &Log, parts: &[(i32, Vec<u64>)]) -> Result<Submitted, LogError> {
    submit_at(log, parts, 0)
}

/// What a partition holds from its start on; offsets are checked to be contiguous.
fn values(log: &Log, n: i32) -> Vec<u64> {
    let partition = partition(log, n);
    let mut at = partition.start();
    let mut all = Vec::new();
    let mut expected = at;
    while at < partition.durable_end() {
        let fetched = partition.read(at, 300).expect("reads");
        for batch in fetched.batches() {
            let batch = batch.expect("whole");
            for record in batch.records().expect("records").iter() {
                let record = record.expect("record");
                if record.offset >= at {
                    assert_eq!(record.offset, expected, "offsets are contiguous");
                    expected = expected.plus(1);
                    all.push(String::from_utf8_lossy(record.value.expect("a value")).parse().expect("a number"));
                }
            }
        }
        assert!(fetched.next > at, "reading moves on");
        at = fetched.next;
    }
    all
}

/// A log whose threads are stepped by hand.
struct Still {
    log: Log,
    committer: Committer,
    materialiser: Materialiser,
}

impl Still {
    fn open(disk: &SimDisk, config: LogConfig) -> Result<Self, LogError> {
        let (log, committer, materialiser) = Log::open_still(Arc::new(disk.clone()), config)?;
        Ok(Self { log, committer, materialiser })
    }

    fn commit(&mut self) -> Step {
        self.committer.step(&self.log.shared)
    }

    fn materialise(&mut self) -> Step {
        self.materialiser.step(&self.log.shared)
    }

    /// All that is due, and what is not yet.
    fn settle(&mut self) {
        while self.commit() == Step::Done {}
        self.log.shared.work.lock().urgent = true;
        while self.materialise() == Step::Done {}
    }

    /// As [`Log::close`].
    fn close(&mut self) {
        self.log.shared.queue.lock().closing = true;
        while self.commit() == Step::Done {}
        self.log.shared.work.lock().closing = true;
        while self.materialise() == Step::Done && self.log.shared.failure().is_none() {}
    }

    /// As [`PartitionLog::advance_start`].
    fn advance_start(&mut self, n: i32, to: Offset) -> Result<(), LogError> {
        let partition = partition(&self.log, n);
        let told = self.log.shared.queue_start(&partition, to)?;
        while self.commit() == Step::Done {}
        if let Some(told) = told {
            block(told).map_err(|_| LogError::Closed)??;
        }
        self.log.shared.drop_below(&partition, to)
    }
}

/// The two threads of a log, stepped by a test of another room.
pub(crate) struct Hands {
    shared: Arc<shared::Shared>,
    committer: Committer,
    materialiser: Materialiser,
    /// Something waits for room.
    holds: bool,
}

impl Hands {
    /// Opens a log in which everything is small, so that everything turns over.
    pub(crate) fn open(disk: &SimDisk) -> Result<(Log, Self), LogError> {
        let (log, committer, materialiser) = Log::open_still(Arc::new(disk.clone()), small())?;
        let shared = Arc::clone(&log.shared);
        Ok((log, Self { shared, committer, materialiser, holds: false }))
    }

    /// Whether somebody may be waiting for the WAL.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.holds || self.shared.queue.lock().items.iter().any(|item| !matches!(item, shared::Queued::Remove { .. }))
    }

    /// One step of the WAL; whether there was no room for it.
    pub(crate) fn commit(&mut self) -> bool {
        self.holds = self.committer.step(&self.shared) == Step::Held;
        self.holds
    }

    /// One step of the segments, due or not, with a checkpoint or without.
    pub(crate) fn materialise(&mut self, cut: bool) {
        let mut work = self.shared.work.lock();
        work.urgent = true;
        work.cut |= cut;
        drop(work);
        self.materialiser.step(&self.shared);
    }

    /// Why the log has failed.
    pub(crate) fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// Looks at the disk again, which takes everything now.
    pub(crate) fn look_again(&self) {
        self.shared.guard.forget_look();
        self.shared.guard.state(self.shared.disk.as_ref());
    }

    /// As [`Log::close`] does.
    pub(crate) fn close(&mut self) {
        self.shared.queue.lock().closing = true;
        while self.committer.step(&self.shared) == Step::Done {}
        self.shared.work.lock().closing = true;
        while self.materialiser.step(&self.shared) == Step::Done && self.shared.failure().is_none() {}
    }

    /// The process dies: whoever waits for it hears nothing good.
    pub(crate) fn die(&mut self) {
        self.shared.fail("the process died".to_owned());
        self.committer.step(&self.shared);
        self.shared.abandon();
    }
}

/// Whether a submitted group has been acknowledged by now.
fn acknowledged(submitted: &mut Submitted) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    matches!(std::pin::Pin::new(submitted).poll(&mut context), std::task::Poll::Ready(Ok(())))
}
