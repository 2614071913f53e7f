//! The node's own broker behind the seam: [`EmbeddedBus`].
//!
//! Always: what a reader sees is durable, and of an outside client's transaction only what was committed; where no
//! transaction is open, what was just written is seen at once. A commit is one append group; of one task there is one committer,
//! and when a new one is handed out, everything the old one wrote is visible, and nothing of it comes after.
//! Called by the engine through [`Bus`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Bus, BusError, BusFuture, Commit, Committer, Reader, TaskId, TopicBatch, TopicSpec, checkpoint_topic};
use crate::broker::txn::is_aborted;
use crate::broker::{Broker, BrokerError, NewTopic, Partition, Pending};
use crate::log::{LogError, PartitionLog};
use crate::record::{Batch, Offset, PartitionId, TopicName, TopicPartition};

/// Settings of a topic of checkpoints: trimmed by its tasks and by nobody else, in small segments, so that what is
/// trimmed soon goes.
const CHECKPOINT_CONFIGS: [(&str, &str); 3] = [("retention.ms", "-1"), ("segment.bytes", "16777216"), ("max.message.bytes", "67108864")];

/// The bus over the broker in this process.
pub struct EmbeddedBus {
    broker: Arc<Broker>,
    /// Who holds each task: the number of its committer. The lock of a task is held while its commit is handed
    /// to the log.
    holders: Mutex<BTreeMap<TaskId, Arc<Mutex<u64>>>>,
}

impl EmbeddedBus {
    /// The seam to `broker`.
    #[must_use]
    pub const fn new(broker: Arc<Broker>) -> Self {
        Self { broker, holders: Mutex::new(BTreeMap::new()) }
    }

    fn partition(&self, of: &TopicPartition) -> Result<Arc<Partition>, BusError> {
        self.broker.partition(of).ok_or_else(|| BusError::NoSuchPartition(of.clone()))
    }

    /// Before anything is handed out as committed after a start: mostly there is nothing to do.
    async fn read_back(&self, partition: &Arc<Partition>) -> Result<(), BusError> {
        partition.read_back(self.broker.clock().now()).await.map_err(told)
    }

    async fn ensure(&self, topic: &TopicName, spec: &TopicSpec) -> Result<i32, BusError> {
        if let Some(there) = self.broker.topic(topic) {
            return Ok(there.partition_count());
        }
        let new = NewTopic { name: topic.clone(), partitions: Some(spec.partitions), configs: spec.configs.clone() };
        match self.broker.create_topic(new).await {
            Ok(made) => Ok(made.partition_count()),
            // Someone else was quicker.
            Err(BrokerError::TopicExists(_)) => Ok(self.broker.topic(topic).map_or(0, |there| there.partition_count())),
            Err(error) => Err(told(error)),
        }
    }

    /// The task's checkpoint partition, made where it is not there.
    async fn checkpoint(&self, task: &TaskId) -> Result<Arc<Partition>, BusError> {
        let topic = checkpoint_topic(&task.owner);
        let count = task.index.checked_add(1).filter(|n| *n > 0).ok_or_else(|| BusError::Invalid(format!("task {task} has no place")))?;
        let configs = CHECKPOINT_CONFIGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if self.ensure(&topic, &TopicSpec { partitions: count, configs }).await? < count {
            match self.broker.create_partitions(&topic, count).await {
                // Another task of the same owner may have widened it further meanwhile.
                Ok(_) | Err(BrokerError::InvalidPartitions(_)) => {}
                Err(error) => return Err(told(error)),
            }
        }
        self.partition(&TopicPartition::new(topic, PartitionId(task.index)))
    }
}

/// What the engine can do about it.
fn told(error: BrokerError) -> BusError {
    match error {
        BrokerError::UnknownPartition(of) => BusError::NoSuchPartition(of),
        BrokerError::UnknownTopic(topic) => BusError::NoSuchTopic(topic),
        BrokerError::Log(error) => log_told(&error),
        BrokerError::Internal { .. } => BusError::Corrupt(error.to_string()),
        error => BusError::Invalid(error.to_string()),
    }
}

fn log_told(error: &LogError) -> BusError {
    if error.is_retriable() {
        BusError::Retriable(error.to_string())
    } else if error.is_final() {
        BusError::Closed(error.to_string())
    } else {
        BusError::Corrupt(error.to_string())
    }
}

fn finished(batches: Vec<TopicBatch>) -> Vec<(TopicPartition, Batch)> {
    batches.into_iter().filter(|one| !one.records.is_empty()).map(|one| (one.to, one.records.finish())).collect()
}

fn length(batches: &[(TopicPartition, Batch)]) -> usize {
    batches.iter().map(|(_, batch)| batch.len_bytes()).sum()
}

/// Runs what may read the disk on a thread of its own.
async fn on_a_thread<T: Send + 'static>(
    log: &Arc<PartitionLog>,
    work: impl FnOnce(&PartitionLog) -> Result<T, LogError> + Send + 'static,
) -> Result<Result<T, LogError>, BusError> {
    let log = Arc::clone(log);
    tokio::task::spawn_blocking(move || work(&log)).await.map_err(|e| BusError::Closed(e.to_string()))
}

impl Bus for EmbeddedBus {
    fn partitions<'a>(&'a self, topic: &'a TopicName) -> BusFuture<'a, Option<i32>> {
        Box::pin(async move { Ok(self.broker.topic(topic).map(|there| there.partition_count())) })
    }

    fn ensure_topic<'a>(&'a self, topic: &'a TopicName, spec: &'a TopicSpec) -> BusFuture<'a, i32> {
        Box::pin(self.ensure(topic, spec))
    }

    fn delete_topic<'a>(&'a self, topic: &'a TopicName) -> BusFuture<'a, ()> {
        Box::pin(async move {
            match self.broker.delete_topic(topic).await {
                Ok(()) | Err(BrokerError::UnknownTopic(_)) => Ok(()),
                Err(error) => Err(told(error)),
            }
        })
    }

    fn bounds<'a>(&'a self, of: &'a TopicPartition) -> BusFuture<'a, Range<Offset>> {
        Box::pin(async move {
            let partition = self.partition(of)?;
            self.read_back(&partition).await?;
            Ok(partition.log().start()..partition.bounds().1)
        })
    }

    fn offset_at<'a>(&'a self, of: &'a TopicPartition, at: i64) -> BusFuture<'a, Option<Offset>> {
        Box::pin(async move {
            let partition = self.partition(of)?;
            let found = on_a_thread(partition.log(), move |log| log.offset_at(at)).await?.map_err(|e| log_told(&e))?;
            self.read_back(&partition).await?;
            Ok(found.map(|(offset, _)| offset).filter(|offset| *offset < partition.bounds().1))
        })
    }

    fn open<'a>(&'a self, of: &'a TopicPartition, from: Offset) -> BusFuture<'a, Box<dyn Reader>> {
        Box::pin(async move {
            let partition = self.partition(of)?;
            self.read_back(&partition).await?;
            let range = partition.log().start()..partition.bounds().1;
            if from < range.start || from > range.end {
                return Err(BusError::OutOfRange { partition: of.clone(), asked: from, range });
            }
            Ok(Box::new(EmbeddedReader { partition, position: from }) as Box<dyn Reader>)
        })
    }

    fn wait<'a>(&'a self, of: &'a TopicPartition, from: Offset) -> BusFuture<'a, ()> {
        Box::pin(async move {
            let partition = self.partition(of)?;
            if partition.decided(from.plus(1)).await {
                return Ok(());
            }
            Err(if partition.is_gone() { BusError::NoSuchPartition(of.clone()) } else { BusError::Closed("the log has failed".to_owned()) })
        })
    }

    fn committer<'a>(&'a self, task: &'a TaskId) -> BusFuture<'a, Box<dyn Committer>> {
        Box::pin(async move {
            let checkpoint = self.checkpoint(task).await?;
            let holder = Arc::clone(self.holders.lock().entry(task.clone()).or_default());
            let number = {
                let mut current = holder.lock();
                *current += 1;
                *current
            };
            // What the older holder handed over before is on its way; the new one begins behind it.
            checkpoint.settled().await;
            let (broker, task) = (Arc::clone(&self.broker), task.clone());
            Ok(Box::new(EmbeddedCommitter { broker, task, checkpoint, holder, number, ahead: Vec::new() }) as Box<dyn Committer>)
        })
    }

    fn append<'a>(&'a self, outputs: Vec<TopicBatch>) -> BusFuture<'a, ()> {
        Box::pin(async move {
            self.broker.append(finished(outputs)).await.map_err(told)?;
            Ok(())
        })
    }

    fn trim<'a>(&'a self, of: &'a TopicPartition, before: Offset) -> BusFuture<'a, ()> {
        Box::pin(async move {
            let partition = self.partition(of)?;
            let to = before.min(partition.log().durable_end());
            if to > partition.log().start() {
                on_a_thread(partition.log(), move |log| log.advance_start(to)).await?.map_err(|e| log_told(&e))?;
            }
            Ok(())
        })
    }

    fn pin(&self, task: &TaskId, of: &TopicPartition, from: Option<Offset>) {
        self.broker.pin(&task.to_string(), of, from);
    }
}

/// Reads one partition forward.
struct EmbeddedReader {
    partition: Arc<Partition>,
    position: Offset,
}

impl Reader for EmbeddedReader {
    fn poll<'a>(&'a mut self, max_bytes: usize) -> BusFuture<'a, Vec<Batch>> {
        Box::pin(async move {
            let log = self.partition.log();
            // A gap in the offsets is passed over: nothing at all means that the end is reached.
            loop {
                let from = self.position;
                if self.partition.is_gone() {
                    return Err(BusError::NoSuchPartition(self.partition.of().clone()));
                }
                let (_, decided) = self.partition.bounds();
                if from >= decided {
                    return Ok(Vec::new());
                }
                let read = if log.read_is_cached(from) {
                    log.read(from, max_bytes)
                } else {
                    on_a_thread(log, move |log| log.read(from, max_bytes)).await?
                };
                let fetched = match read {
                    Ok(fetched) => fetched,
                    Err(LogError::OutOfRange { asked, start, end }) => {
                        return Err(BusError::OutOfRange { partition: self.partition.of().clone(), asked, range: start..end });
                    }
                    Err(error) => return Err(log_told(&error)),
                };
                let next = fetched.next.min(decided);
                let mut batches = fetched.batches().collect::<Result<Vec<_>, _>>().map_err(|e| BusError::Corrupt(e.to_string()))?;
                batches.retain(|batch| batch.next_offset() <= next);
                if batches.iter().any(|batch| batch.header().is_transactional()) {
                    let aborted = self.partition.aborted_between(from, next);
                    batches.retain(|batch| !is_aborted(batch.header(), &aborted));
                }
                let moved = next > from;
                self.position = next;
                if !batches.is_empty() || !moved {
                    return Ok(batches);
                }
            }
        })
    }

    fn position(&self) -> Offset {
        self.position
    }
}

/// The writing side of one task.
struct EmbeddedCommitter {
    broker: Arc<Broker>,
    task: TaskId,
    checkpoint: Arc<Partition>,
    holder: Arc<Mutex<u64>>,
    number: u64,
    /// What was handed over since the last commit, on its way to the disk before the next one.
    ahead: Vec<Pending>,
}

impl EmbeddedCommitter {
    /// Hands a group to the log, if this is still who holds the task.
    async fn submit(&self, batches: Vec<(TopicPartition, Batch)>) -> Result<Pending, BusError> {
        let permit = self.broker.room(length(&batches)).await;
        let current = self.holder.lock();
        if *current != self.number {
            return Err(BusError::Fenced(self.task.clone()));
        }
        self.broker.submit(batches, permit).map_err(told)
    }
}

impl Committer for EmbeddedCommitter {
    /// A group of its own, which the log has before every later one: where it is lost, so is the commit.
    fn hand_over<'a>(&'a mut self, outputs: Vec<TopicBatch>) -> BusFuture<'a, ()> {
        Box::pin(async move {
            let pending = self.submit(finished(outputs)).await?;
            self.ahead.push(pending);
            Ok(())
        })
    }

    fn commit<'a>(&'a mut self, commit: Commit) -> BusFuture<'a, Option<Offset>> {
        Box::pin(async move {
            let mut batches = finished(commit.outputs);
            let checkpoint = commit.checkpoint.filter(|records| !records.is_empty());
            let has_checkpoint = checkpoint.is_some();
            batches.extend(checkpoint.map(|records| (self.checkpoint.of().clone(), records.finish())));
            let pending = self.submit(batches).await?;
            for ahead in std::mem::take(&mut self.ahead) {
                ahead.durable().await.map_err(told)?;
            }
            let bases = pending.durable().await.map_err(told)?;
            Ok(bases.last().copied().filter(|_| has_checkpoint))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::broker::{Incoming, ProduceTerms, TestDisk};
    use crate::bus::contract::{World, contract};
    use crate::record::BatchBuilder;

    /// A bus over a broker on a disk in memory.
    struct Embedded {
        bus: EmbeddedBus,
        names: AtomicUsize,
    }

    impl World for Embedded {
        async fn open() -> Self {
            Self { bus: bus().await, names: AtomicUsize::new(0) }
        }
        fn bus(&self) -> &dyn Bus {
            &self.bus
        }
        fn fresh(&self, name: &str) -> String {
            format!("{name}{}", self.names.fetch_add(1, Ordering::Relaxed))
        }
    }

    contract!(Embedded);

    fn records(values: &[&str]) -> BatchBuilder {
        let mut builder = BatchBuilder::new();
        for value in values {
            builder.push(0, None, Some(value.as_bytes()), &[]);
        }
        builder
    }

    async fn bus() -> EmbeddedBus {
        EmbeddedBus::new(TestDisk::default().broker().await)
    }

    async fn out(bus: &EmbeddedBus) -> TopicPartition {
        let topic = TopicName::new("out").unwrap();
        assert_eq!(bus.ensure_topic(&topic, &TopicSpec { partitions: 1, ..TopicSpec::default() }).await.unwrap(), 1);
        TopicPartition::new(topic, PartitionId(0))
    }

    #[tokio::test]
    async fn of_an_outside_transaction_only_what_was_committed_is_read() {
        let bus = bus().await;
        let out = out(&bus).await;
        let transactions = bus.broker.transactions();
        let who = transactions.init("outside", 60_000, None).await.unwrap();
        for (sequence, (value, committed)) in [("yes", true), ("no", false)].into_iter().enumerate() {
            transactions.add("outside", who, [out.clone()].into()).await.unwrap();
            let builder = records(&[value]).with_producer(who.id, who.epoch, sequence as i32).transactional();
            let incoming = Incoming { topic: "out".to_owned(), topic_id: None, partition: 0, records: Some(builder.finish().to_bytes()) };
            let terms = ProduceTerms { acks: -1, knows_abortable: true, knows_zstd: true, bumps_epoch: false };
            let placed = bus.broker.produce(terms, Some("outside"), vec![incoming]).await.durable().await.remove(0).unwrap();
            assert_eq!(bus.bounds(&out).await.unwrap().end, placed.base);
            let (waited, ended) = tokio::join!(bus.wait(&out, placed.base), transactions.end("outside", who, committed));
            assert!(waited.is_ok() && ended.is_ok());
        }
        bus.append(vec![TopicBatch { to: out.clone(), records: records(&["own"]) }]).await.unwrap();
        let mut reader = bus.open(&out, Offset::ZERO).await.unwrap();
        let mut read = Vec::new();
        while let Some(batch) = reader.poll(1).await.unwrap().first() {
            if !batch.header().is_control() {
                read.extend(batch.records().unwrap().iter().map(|r| String::from_utf8_lossy(r.unwrap().value.unwrap()).into_owned()));
            }
        }
        assert_eq!((read, reader.position()), (vec!["yes".to_owned(), "own".to_owned()], Offset(5)));
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_records_and_by_the_end_of_the_topic() {
        let bus = bus().await;
        let out = out(&bus).await;
        let write = bus.append(vec![TopicBatch { to: out.clone(), records: records(&["x"]) }]);
        let (waited, written) = tokio::join!(bus.wait(&out, Offset::ZERO), write);
        assert!(waited.is_ok() && written.is_ok());
        let (waited, deleted) = tokio::join!(bus.wait(&out, Offset(1)), bus.delete_topic(&out.topic));
        assert!(matches!(waited, Err(BusError::NoSuchPartition(_))) && deleted.is_ok());
        assert!(bus.delete_topic(&out.topic).await.is_ok());
        assert_eq!(bus.partitions(&out.topic).await.unwrap(), None);
    }
}
