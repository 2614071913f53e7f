//! Watches the room on the disk, so that a full disk is an explained, passing refusal and never a lost promise.
//!
//! New writes are refused while less than `min_free_bytes` is free. Where the room runs out all the same (others fill the
//! disk too), the ballast, a file that only takes room, is given up, so that what was already taken in can be finished. Always:
//! writes are taken again only when there is room for the ballast too.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::LogError;
use super::disk::Disk;
use super::store::LogConfig;

const BALLAST: &str = "ballast";
/// The system is asked for free space no more often than this.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The room on the disk, as the log sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskState {
    /// Free bytes, as last looked at.
    pub free_bytes: u64,
    /// How many must be free for writes to be taken.
    pub needed_bytes: u64,
    /// Whether a write has run out of room and none is taken until there is some again.
    pub ran_out: bool,
}

impl DiskState {
    /// Whether writes are taken.
    #[must_use]
    pub const fn takes_writes(&self) -> bool {
        !self.ran_out && self.free_bytes >= self.needed_bytes
    }
}

pub(super) struct Guard {
    min_free: u64,
    ballast: u64,
    looked: Mutex<(Instant, u64)>,
    ran_out: watch::Sender<bool>,
}

impl Guard {
    pub(super) fn new(disk: &dyn Disk, config: &LogConfig) -> Result<Self, LogError> {
        let free = disk.free_bytes().map_err(LogError::io("ask for free space"))?;
        let looked = Mutex::new((Instant::now(), free));
        Ok(Self { min_free: config.min_free_bytes, ballast: config.ballast_bytes, looked, ran_out: watch::Sender::new(false) })
    }

    /// Takes the ballast's room where there is plenty. Called once, when the log is open.
    pub(super) fn arm(&self, disk: &dyn Disk) {
        let there = disk.open(BALLAST, false).and_then(|file| file.length()).unwrap_or(0);
        if there != self.ballast && self.state(disk).free_bytes >= self.min_free.saturating_add(self.ballast) && !self.take_ballast(disk) {
            tracing::warn!(bytes = self.ballast, "there is no room for the ballast file");
        }
    }

    fn take_ballast(&self, disk: &dyn Disk) -> bool {
        if self.ballast == 0 {
            return true;
        }
        let taken = disk.open(BALLAST, true).and_then(|file| file.reserve(self.ballast));
        if taken.is_err() {
            let _ = disk.remove_file(BALLAST);
        }
        taken.is_ok()
    }

    /// How it is now. Notices when there is room again.
    pub(super) fn state(&self, disk: &dyn Disk) -> DiskState {
        let mut looked = self.looked.lock();
        if looked.0.elapsed() > LOOK_EVERY
            && let Ok(free) = disk.free_bytes()
        {
            *looked = (Instant::now(), free);
            if self.ran_out() && free >= self.min_free.saturating_add(self.ballast) && self.take_ballast(disk) {
                tracing::info!(free, "there is room on the disk again: writes are taken");
                looked.1 = free - self.ballast;
                self.ran_out.send_replace(false);
            }
        }
        let ran_out = self.ran_out();
        let needed_bytes = if ran_out { self.min_free.saturating_add(self.ballast) } else { self.min_free };
        DiskState { free_bytes: looked.1, needed_bytes, ran_out }
    }

    /// Whether a write may be taken. What the node keeps about itself (deleting a topic, a group's position) may use three quarters of the
    /// reserve: it is what makes room.
    pub(super) fn check(&self, disk: &dyn Disk, is_bookkeeping: impl FnOnce() -> bool) -> Result<(), LogError> {
        let state = self.state(disk);
        if state.takes_writes() || (state.free_bytes > self.min_free / 4 && is_bookkeeping()) {
            return Ok(());
        }
        Err(LogError::DiskFull { free: state.free_bytes, needed: state.needed_bytes })
    }

    /// A write ran out of room: no more are taken, and the ballast goes.
    pub(super) fn run_out(&self, disk: &dyn Disk, what: &str) {
        if !self.ran_out.send_replace(true) {
            tracing::error!(what, "the disk is full: writes are refused until there is room");
            if let Err(error) = disk.remove_file(BALLAST) {
                tracing::warn!(%error, "could not give up the ballast");
            }
        }
        if let Ok(free) = disk.free_bytes() {
            *self.looked.lock() = (Instant::now(), free);
        }
    }

    pub(super) fn ran_out(&self) -> bool {
        *self.ran_out.borrow()
    }

    /// Completes when a write has run out of room.
    pub(super) async fn running_out(&self) {
        // It cannot be gone while we have it.
        let _ = self.ran_out.subscribe().wait_for(|ran_out| *ran_out).await;
    }

    /// Lets the next look ask the system.
    #[cfg(test)]
    pub(super) fn forget_look(&self) {
        self.looked.lock().0 = Instant::now().checked_sub(LOOK_EVERY * 2).expect("the clock has run for a while");
    }
}
