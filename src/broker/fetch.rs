//! A client's Fetch request: what is there is gathered, and waited for where it is too little.
//!
//! Always: only durable records are handed out, as whole batches shared with the log; an offset in the middle
//! of a batch gets the whole batch; the first batch goes out however large it is. Whoever reads what is
//! committed gets nothing beyond the last stable offset, and is told which transactions to skip. Whoever waits
//! is woken by the partitions it asked for (a marker is a record too), by nothing else but its own deadline. Called by `server`, which may drop
//! the future at any time (the client has gone).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::select_all;

use super::Broker;
use super::append::LEADER_EPOCH;
use super::error::log_code;
use super::topic::{Partition, Topic};
use crate::log::{Fetched, LogError};
use crate::record::{Codec, Offset, PartitionId, TopicId};
use crate::wire::error_code;

/// What to fetch of one partition.
#[derive(Clone, Debug)]
pub struct FetchPart {
    /// The topic's name as the client wrote it.
    pub topic: String,
    /// The topic's id, which goes before its name.
    pub topic_id: Option<TopicId>,
    /// The partition's number as the client wrote it.
    pub partition: i32,
    /// The first offset wanted.
    pub offset: i64,
    /// About how many bytes of it.
    pub max_bytes: usize,
    /// The leader epoch the client believes in, or -1.
    pub leader_epoch: i32,
    /// The leader epoch of the last record the client has, or -1.
    pub last_fetched_epoch: i32,
}

/// What to fetch, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct FetchSpec {
    /// Partitions in the order in which room is given to them.
    pub parts: Vec<FetchPart>,
    /// About how many bytes in all.
    pub max_bytes: usize,
    /// Fewer bytes than this are waited for.
    pub min_bytes: usize,
    /// No longer than this.
    pub max_wait: Duration,
    /// Whether the version of the request knows zstd (10 on).
    pub knows_zstd: bool,
    /// What the reader wants to see.
    pub isolation: Isolation,
}

/// What a reader wants to see of transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Every record.
    #[default]
    ReadUncommitted,
    /// Records outside of transactions, and of those that were committed.
    ReadCommitted,
}

/// What was fetched of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedPart {
    /// 0, or Kafka's error.
    pub error: i16,
    /// The end of what may be read, or -1.
    pub high_watermark: i64,
    /// The end of what is committed or aborted, or -1.
    pub last_stable: i64,
    /// The first offset there is, or -1.
    pub log_start: i64,
    /// Whole batches.
    pub records: Vec<Bytes>,
    /// The aborted transactions among them, where the reader wants to know: whose, and the first record of each.
    pub aborted: Vec<(i64, Offset)>,
    /// Where the reader's last epoch ended, if it has read beyond that: the epoch and the offset to go back to.
    pub diverging: Option<(i32, i64)>,
}

impl FetchedPart {
    const fn failed(error: i16) -> Self {
        Self { error, high_watermark: -1, last_stable: -1, log_start: -1, records: Vec::new(), aborted: Vec::new(), diverging: None }
    }
}

/// A partition that was asked for, or Kafka's error.
type Found = Result<(Arc<Topic>, Arc<Partition>), i16>;

/// Checks the leader epoch a client believes in against the one there is.
pub(super) const fn check_epoch(believed: i32) -> Result<(), i16> {
    match believed {
        -1 | LEADER_EPOCH => Ok(()),
        newer if newer > LEADER_EPOCH => Err(error_code::UNKNOWN_LEADER_EPOCH),
        _ => Err(error_code::FENCED_LEADER_EPOCH),
    }
}

impl Broker {
    /// Fetches; answers part by part, in the order asked.
    pub async fn fetch(&self, spec: &FetchSpec) -> Vec<FetchedPart> {
        let found: Vec<_> = spec.parts.iter().map(|part| self.find(part)).collect();
        let deadline = tokio::time::Instant::now() + spec.max_wait;
        // More than an answer may hold would never be there.
        let enough = spec.min_bytes.min(self.config().fetch_max_bytes);
        let partitions: Vec<&Arc<Partition>> = found.iter().flatten().map(|(_, partition)| partition).collect();
        loop {
            // Watched before it is read: what comes in between wakes us.
            let mut watches: Vec<_> = partitions.iter().map(|p| p.log().watch()).collect();
            watches.iter_mut().for_each(|watch| drop(watch.borrow_and_update()));
            let (answer, bytes) = self.gather(spec, &found).await;
            let failed = answer.iter().any(|part| part.error != error_code::NONE || part.diverging.is_some());
            if failed || bytes >= enough || partitions.is_empty() || spec.max_wait.is_zero() {
                return self.count_out(answer, &found);
            }
            let woken = partitions.iter().zip(&mut watches).map(|(partition, watch)| {
                Box::pin(async move {
                    tokio::select! {
                        _ = watch.changed() => {}
                        () = partition.gone() => {}
                    }
                })
            });
            if tokio::time::timeout_at(deadline, select_all(woken)).await.is_err() {
                return self.count_out(answer, &found);
            }
        }
    }

    fn find(&self, part: &FetchPart) -> Found {
        let topic = self.topic_meant(&part.topic, part.topic_id)?;
        let partition = topic.partition(PartitionId(part.partition)).ok_or(error_code::UNKNOWN_TOPIC_OR_PARTITION)?;
        // Of a fetch every negative epoch says nothing, as in Kafka.
        check_epoch(part.leader_epoch.max(-1))?;
        Ok((topic, partition))
    }

    async fn gather(&self, spec: &FetchSpec, found: &[Found]) -> (Vec<FetchedPart>, usize) {
        let mut wanted = Vec::with_capacity(found.len());
        for (part, found) in spec.parts.iter().zip(found) {
            // What a topic is said to keep in zstd, not what a producer once sent, decides whether older versions get it: as in Kafka.
            let refused = |topic: &Topic| {
                (!spec.knows_zstd && topic.config().codec == Some(Codec::Zstd)).then_some(error_code::UNSUPPORTED_COMPRESSION_TYPE)
            };
            let found = found.as_ref().map_err(|code| *code).and_then(|(topic, partition)| refused(topic).map_or(Ok(partition), Err));
            wanted.push(match found {
                Err(code) => Err(code),
                Ok(partition) => match partition.read_back(self.clock().now()).await {
                    Err(error) => Err(error.code()),
                    Ok(()) => Ok(Wanted {
                        partition: Arc::clone(partition),
                        from: Offset(part.offset),
                        max_bytes: part.max_bytes,
                        last_fetched_epoch: part.last_fetched_epoch,
                    }),
                },
            });
        }
        let (room, isolation) = (spec.max_bytes.min(self.config().fetch_max_bytes), spec.isolation);
        if wanted.iter().flatten().all(Wanted::is_at_hand) {
            return read_all(&wanted, room, isolation);
        }
        // One trip to the threads that may wait for the disk, however many partitions are read.
        let count = wanted.len();
        let read = tokio::task::spawn_blocking(move || read_all(&wanted, room, isolation)).await;
        // The thread is gone only when the node stops.
        read.unwrap_or_else(|_| (vec![FetchedPart::failed(error_code::NOT_LEADER_OR_FOLLOWER); count], 0))
    }

    fn count_out(&self, answer: Vec<FetchedPart>, found: &[Found]) -> Vec<FetchedPart> {
        for (part, found) in answer.iter().zip(found) {
            if let Ok((topic, _)) = found {
                let bytes: usize = part.records.iter().map(Bytes::len).sum();
                topic.traffic.bytes_out.fetch_add(bytes as u64, std::sync::atomic::Ordering::Relaxed);
            }
        }
        answer
    }
}

/// How much of a partition fits into the answer.
#[derive(Clone, Copy, Debug)]
struct Room {
    bytes: usize,
    /// Whether one batch goes in however large it is: a consumer must be able to make progress.
    even_if_larger: bool,
}

/// What is wanted of a partition there is.
struct Wanted {
    partition: Arc<Partition>,
    from: Offset,
    max_bytes: usize,
    last_fetched_epoch: i32,
}

impl Wanted {
    /// Whether it can be read without the disk.
    fn is_at_hand(&self) -> bool {
        self.partition.log().read_is_cached(self.from)
    }
}

/// Reads part by part, as far as there is room, and says how many bytes that is. May wait for the disk.
fn read_all(wanted: &[Result<Wanted, i16>], room: usize, isolation: Isolation) -> (Vec<FetchedPart>, usize) {
    let mut total = 0;
    let read = |wanted: &Result<Wanted, i16>| {
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(code) => return FetchedPart::failed(*code),
        };
        let room = Room { bytes: wanted.max_bytes.min(room.saturating_sub(total)), even_if_larger: total == 0 };
        let one = read_part(wanted, room, isolation);
        total += one.records.iter().map(Bytes::len).sum::<usize>();
        one
    };
    let answer = wanted.iter().map(read).collect();
    (answer, total)
}

fn read_part(wanted: &Wanted, room: Room, isolation: Isolation) -> FetchedPart {
    let Wanted { partition, from, last_fetched_epoch, .. } = wanted;
    let from = *from;
    if partition.is_gone() {
        return FetchedPart::failed(error_code::UNKNOWN_TOPIC_OR_PARTITION);
    }
    let log = partition.log();
    let (visible, stable) = partition.bounds();
    let start = log.start();
    let empty = |error| {
        let (visible, stable) = partition.bounds();
        let (high_watermark, last_stable, log_start) = (visible.0, stable.0, log.start().0);
        FetchedPart { error, high_watermark, last_stable, log_start, records: Vec::new(), aborted: Vec::new(), diverging: None }
    };
    if *last_fetched_epoch > LEADER_EPOCH {
        return FetchedPart::failed(error_code::OFFSET_OUT_OF_RANGE);
    }
    // The one epoch there is ends where the log does: whoever has read further of it must go back (KIP-595).
    if *last_fetched_epoch == LEADER_EPOCH && from > log.end() {
        return FetchedPart { diverging: Some((LEADER_EPOCH, log.end().0)), ..empty(error_code::NONE) };
    }
    if from == visible || (from > visible && from <= log.end()) {
        return empty(error_code::NONE);
    }
    if from < start || from > visible {
        return FetchedPart::failed(error_code::OFFSET_OUT_OF_RANGE);
    }
    let end = match isolation {
        Isolation::ReadUncommitted => visible,
        Isolation::ReadCommitted => stable,
    };
    if from >= end || (room.bytes == 0 && !room.even_if_larger) {
        return empty(error_code::NONE);
    }
    let mut at = from;
    let fetched = loop {
        let fetched = log.read(at, room.bytes);
        match &fetched {
            // A gap, which a client could not get over by itself.
            Ok(nothing) if nothing.chunks.is_empty() && nothing.next > at => at = nothing.next,
            _ => break fetched,
        }
    };
    match fetched {
        Ok(fetched) => {
            let next = fetched.next;
            // Only a reader of what is committed can be given less than was read.
            let records = if next <= end || end == visible { fetched.chunks } else { below(&fetched, end) };
            let bytes: usize = records.iter().map(Bytes::len).sum();
            if bytes > room.bytes && !room.even_if_larger {
                return empty(error_code::NONE);
            }
            let aborted = match isolation {
                Isolation::ReadUncommitted => Vec::new(),
                Isolation::ReadCommitted => partition.aborted_between(from, next.min(end)),
            };
            let aborted = aborted.into_iter().map(|one| (one.producer_id, one.first)).collect();
            FetchedPart { records, aborted, ..empty(error_code::NONE) }
        }
        Err(error) => {
            if !matches!(error, LogError::OutOfRange { .. }) {
                tracing::warn!(partition = %partition.of(), %from, %error, "could not read for a fetch");
            }
            FetchedPart::failed(log_code(&error))
        }
    }
}

/// The batches that lie below `end`.
fn below(fetched: &Fetched, end: Offset) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let whole = |batch: &Result<crate::record::Batch, _>| batch.as_ref().is_ok_and(|batch| batch.next_offset() <= end);
    fetched.batches().take_while(whole).flatten().for_each(|batch| batch.push_to(&mut chunks));
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_epoch_is_judged_against_the_only_one_there_is() {
        assert_eq!(check_epoch(-1), Ok(()));
        assert_eq!(check_epoch(0), Ok(()));
        assert_eq!(check_epoch(1), Err(error_code::UNKNOWN_LEADER_EPOCH));
        assert_eq!(check_epoch(-2), Err(error_code::FENCED_LEADER_EPOCH));
    }
}
