//! What is kept ready for readers, each within a budget over all partitions: recent batches, sparse indexes, open files.
//!
//! The batches themselves hang on their partitions; this is the order in which they go again, oldest first. Always: a batch that
//! is in no segment yet stays, and only hurries the writing of segments.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile, is_out_of_files};
use super::partition::PartitionLog;
use super::shared::Shared;
use crate::record::Offset;

/// What a batch takes beside its bytes, about.
const BATCH_OVERHEAD: usize = 256;
/// Indexes of closed segments kept in memory, in bytes.
const INDEX_BYTES: usize = 32 << 20;

/// The order in which batches in memory go.
#[derive(Default)]
pub(super) struct Cache {
    order: VecDeque<(Weak<PartitionLog>, usize)>,
    bytes: usize,
}

impl Cache {
    /// A batch of so many bytes was put at the end of a partition's tail.
    pub(super) fn note(&mut self, partition: &Arc<PartitionLog>, bytes: usize) {
        let bytes = bytes + BATCH_OVERHEAD;
        self.order.push_back((Arc::downgrade(partition), bytes));
        self.bytes += bytes;
    }

    /// The first `count` batches of a partition's tail are gone.
    pub(super) fn forget_first(&mut self, partition: &Arc<PartitionLog>, count: usize) {
        let of_whom = Arc::as_ptr(partition);
        let mut left = count;
        self.order.retain(|(of, bytes)| {
            let stays = left == 0 || !std::ptr::eq(of.as_ptr(), of_whom);
            if !stays {
                left -= 1;
                self.bytes -= *bytes;
            }
            stays
        });
    }

    /// A partition's tail is gone.
    pub(super) fn forget(&mut self, partition: &Arc<PartitionLog>) {
        let gone = Arc::as_ptr(partition);
        self.order.retain(|(of, bytes)| {
            let stays = !std::ptr::eq(of.as_ptr(), gone);
            self.bytes -= if stays { 0 } else { *bytes };
            stays
        });
    }
}

/// Lets the oldest batches go while there are more than the budget allows. What is not yet in a segment stays, and hurries the writing.
pub(super) fn evict(shared: &Shared) {
    let mut cache = shared.cache.lock();
    while cache.bytes > shared.config.cache_bytes {
        let Some((partition, size)) = cache.order.front() else { break };
        let size = *size;
        if let Some(partition) = partition.upgrade() {
            let mut inner = partition.inner.lock();
            if !inner.tail.is_empty() && inner.unwritten == inner.tail.len() {
                drop(inner);
                drop(cache);
                shared.work.lock().urgent = true;
                shared.work_wake.notify_one();
                return;
            }
            inner.tail.pop_front();
        }
        cache.order.pop_front();
        cache.bytes -= size;
    }
}

/// Indexes of closed segments that were read for someone.
#[derive(Default)]
pub(super) struct LoadedIndexes {
    order: VecDeque<(Weak<PartitionLog>, Offset, usize)>,
    bytes: usize,
}

impl LoadedIndexes {
    /// Notes one more, and answers those that must go for it.
    pub(super) fn note(&mut self, partition: &Weak<PartitionLog>, base: Offset, bytes: usize) -> Vec<(Weak<PartitionLog>, Offset)> {
        self.order.push_back((Weak::clone(partition), base, bytes));
        self.bytes += bytes;
        let mut gone = Vec::new();
        while self.bytes > INDEX_BYTES && self.order.len() > 1 {
            let Some((partition, base, bytes)) = self.order.pop_front() else { break };
            self.bytes -= bytes;
            gone.push((partition, base));
        }
        gone
    }
}

/// Open files, so that a read does not open one each time; a few hundred, however many partitions there are.
#[derive(Default)]
pub(super) struct Files {
    open: Mutex<OpenFiles>,
}

/// By path: the file and when it was last used; and a count of uses, which is the time.
type OpenFiles = (HashMap<String, (Arc<dyn DiskFile>, u64)>, u64);

impl Files {
    const MOST: usize = 512;

    pub(super) fn open(&self, disk: &dyn Disk, path: &str, create: bool) -> std::io::Result<Arc<dyn DiskFile>> {
        let mut open = self.open.lock();
        open.1 += 1;
        let now = open.1;
        if let Some((file, used)) = open.0.get_mut(path) {
            *used = now;
            return Ok(Arc::clone(file));
        }
        if open.0.len() >= Self::MOST {
            let mut ages: Vec<u64> = open.0.values().map(|(_, used)| *used).collect();
            ages.sort_unstable();
            let old = ages[Self::MOST / 4];
            open.0.retain(|_, (_, used)| *used > old);
        }
        let file = disk.open(path, create).or_else(|error| {
            if !is_out_of_files(&error) || open.0.is_empty() {
                return Err(error);
            }
            // Others need more than was left to them: these here can be opened again.
            open.0.clear();
            disk.open(path, create)
        })?;
        open.0.insert(path.to_owned(), (Arc::clone(&file), now));
        Ok(file)
    }

    pub(super) fn forget(&self, path: &str) {
        self.open.lock().0.remove(path);
    }
}
