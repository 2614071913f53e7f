//! The room for spilled state that all queries of a node share.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use parking_lot::Mutex;

use super::disk::{SpillDisk, SpillFolder};
use super::parked::{Parked, encode};
use crate::stream::{StreamError, shown_bytes};

/// That there is no room is said in the log once in so long.
const QUIET: Duration = Duration::from_secs(60);

/// The room. Its clones are the same one.
#[derive(Clone, Debug)]
pub struct SpillSpace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Box<dyn SpillDisk>,
    max: u64,
    /// So much of the disk is left to others.
    keep_free: u64,
    used: AtomicU64,
    next: AtomicU64,
    /// Why it took no more when it was last asked to.
    refusal: Mutex<Option<String>>,
    /// When that was last said in the log.
    said: Mutex<Option<Instant>>,
}

/// When a query's state goes to the disk, and where.
#[derive(Clone, Debug)]
pub struct Spilling {
    /// The room.
    pub space: SpillSpace,
    /// Above so many bytes in memory.
    pub above: u64,
}

impl SpillSpace {
    /// So much room in a folder that is nobody else's (what lies in it is deleted), as long as the disk has `keep_free` bytes left.
    pub fn open(dir: &Path, max: u64, keep_free: u64) -> io::Result<Self> {
        Ok(Self::on(Box::new(SpillFolder::open(dir)?), max, keep_free))
    }

    /// The same on any disk.
    #[must_use]
    pub fn on(disk: Box<dyn SpillDisk>, max: u64, keep_free: u64) -> Self {
        let (used, next) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { disk, max, keep_free, used, next, refusal: Mutex::default(), said: Mutex::default() }))
    }

    /// How many bytes lie there.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// How many may.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.0.max
    }

    /// Why it took no more when it was last asked to; `None` where it took what it was given.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.0.refusal.lock().clone()
    }

    /// Puts a batch on the disk. `None` where there is no room for it: then it stays where it is.
    pub(in crate::stream) fn park(&self, batch: &RecordBatch) -> Result<Option<Arc<Parked>>, StreamError> {
        let mut bytes = Vec::with_capacity(batch.get_array_memory_size() + 1024);
        encode(batch, &mut bytes)?;
        Ok(self.park_stored(&bytes).map(Arc::new))
    }

    /// The same of what is encoded already, or of any bytes.
    pub(in crate::stream) fn park_stored(&self, bytes: &[u8]) -> Option<Parked> {
        let len = bytes.len() as u64;
        if let Err(why) = self.reserve(len) {
            self.refuse(why);
            return None;
        }
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.0.disk.write(number, bytes) {
            self.release(len);
            self.refuse(format!("a file of {} could not be written: {error}", shown_bytes(len)));
            return None;
        }
        *self.0.refusal.lock() = None;
        Some(Parked { space: self.clone(), number, len, crc: crc32c::crc32c(bytes) })
    }

    /// Counts bytes that are about to be written, where there is room for them.
    fn reserve(&self, len: u64) -> Result<(), String> {
        let max = self.0.max;
        let fits = |used: u64| used.checked_add(len).filter(|sum| *sum <= max);
        if self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return Err(format!("{} of {} are used (engine.state_disk)", shown_bytes(self.used()), shown_bytes(max)));
        }
        let refused = match self.0.disk.free_bytes() {
            Ok(free) if free >= self.0.keep_free.saturating_add(len) => return Ok(()),
            Ok(free) => format!("the disk has {} left, and {} stay free for the log", shown_bytes(free), shown_bytes(self.0.keep_free)),
            Err(error) => format!("the disk does not say how much it has left: {error}"),
        };
        self.release(len);
        Err(refused)
    }

    pub(super) fn release(&self, len: u64) {
        self.0.used.fetch_sub(len, Ordering::Relaxed);
    }

    pub(super) fn disk(&self) -> &dyn SpillDisk {
        self.0.disk.as_ref()
    }

    fn refuse(&self, why: String) {
        let mut said = self.0.said.lock();
        if said.is_none_or(|at| at.elapsed() > QUIET) {
            *said = Some(Instant::now());
            tracing::warn!(%why, "no more state can be put on the disk: it stays in memory, where a query stops at its limit");
        }
        drop(said);
        *self.0.refusal.lock() = Some(why);
    }
}
