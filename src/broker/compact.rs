//! Compacts the topics that ask for it, a partition at a time, in the background.
//!
//! Always: what a running query may still have to read as it was written, and what is not decided, stays; the index of aborted
//! transactions forgets one before its marker goes; one compaction runs at a time, on a thread of low priority, and ends soon when the
//! node stops. The topics that the node keeps its own state in rewrite themselves (`journal`). Called by `Broker::enforce_retention`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Broker;
use super::topic::Partition;
use super::topic_config::CompactionTerms;
use crate::log::{CompactionRules, LogError};
use crate::record::Offset;
use crate::time::Timestamp;

/// What the thread adds to its niceness: everything else comes first.
const NICE: i32 = 10;

impl Broker {
    /// Begins to compact what is due, unless that is under way.
    pub(super) fn begin_compaction(&self, now: Timestamp) {
        if self.stop.is_cancelled() || self.compacting.swap(true, Ordering::AcqRel) {
            return;
        }
        let due = self.due_for_compaction(now);
        if due.is_empty() {
            self.compacting.store(false, Ordering::Release);
            return;
        }
        let (busy, stop, transactions) = (Arc::clone(&self.compacting), self.stop.clone(), Arc::clone(&self.transactions));
        self.tasks.spawn(async move {
            for (partition, terms, pin) in due {
                if stop.is_cancelled() {
                    break;
                }
                // Who may still write, and what is undecided, is to be known first.
                if let Err(error) = partition.load_producers(now).await {
                    tracing::warn!(partition = %partition.of(), %error, "could not read producers back: not compacted");
                    continue;
                }
                let transactions = Arc::clone(&transactions);
                let of = Arc::clone(&partition);
                let done = on_its_thread(move || {
                    let producers = of.last_of_producers();
                    let rules = CompactionRules { producers, ..rules(&of, terms, pin) };
                    let forget = |markers: &[Offset]| futures::executor::block_on(transactions.forget_aborted_at(&of, markers));
                    of.log().compact(now, &rules, forget)
                });
                match done.await {
                    Ok(Some(done)) => tracing::info!(
                        partition = %partition.of(), before = done.bytes_before, after = done.bytes_after, clean_to = %done.clean_to, "compacted"
                    ),
                    Ok(None) | Err(LogError::Closed) => {}
                    // Tried again at the next round: for want of room, or because what was read is damaged.
                    Err(error) => tracing::warn!(partition = %partition.of(), %error, "could not compact"),
                }
            }
            busy.store(false, Ordering::Release);
        });
    }

    fn due_for_compaction(&self, now: Timestamp) -> Vec<(Arc<Partition>, CompactionTerms, Option<Offset>)> {
        let pins = self.pins.lock().clone();
        let mut due = Vec::new();
        for topic in self.topics().iter().filter(|topic| !topic.name().is_internal() && topic.config().cleanup.compact) {
            let terms = topic.config().compaction;
            for partition in topic.partitions().iter() {
                let key = partition.key();
                let pin = pins.range((key, String::new())..).take_while(|((of, _), _)| *of == key).map(|(_, from)| *from).min();
                if partition.log().wants_compaction(now, &rules(partition, terms, pin)) {
                    due.push((Arc::clone(partition), terms, pin));
                }
            }
        }
        due
    }
}

/// What a partition's topic says, without its producers.
fn rules(partition: &Partition, terms: CompactionTerms, pin: Option<Offset>) -> CompactionRules {
    let (_, decided) = partition.bounds();
    CompactionRules {
        upper: pin.map_or(decided, |pin| pin.min(decided)),
        delete_retention_ms: terms.delete_retention_ms,
        min_lag_ms: terms.min_lag_ms,
        max_lag_ms: terms.max_lag_ms,
        min_dirty_ratio: terms.min_dirty_ratio,
        producers: std::collections::BTreeMap::new(),
    }
}

/// Runs long work on a thread that everything else goes before.
async fn on_its_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, LogError> + Send + 'static) -> Result<T, LogError> {
    let (done, told) = tokio::sync::oneshot::channel();
    let run = move || {
        // On Linux the niceness is the thread's own. Without it the work is done all the same.
        let _ = rustix::process::nice(NICE);
        // Whoever asked may have gone.
        let _ = done.send(work());
    };
    let began = std::thread::Builder::new().name("vitalsql-compaction".to_owned()).spawn(run);
    began.map_err(|error| LogError::Io { what: "start a thread".to_owned(), why: error.to_string() })?;
    told.await.unwrap_or_else(|_| Err(LogError::Io { what: "compact".to_owned(), why: "its thread panicked".to_owned() }))
}
