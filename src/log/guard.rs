//! Watches the room on the disk, so that a full disk is an explained, passing refusal and never a lost promise.
//!
//! New writes are refused while less than `min_free_bytes` is free. Where the room runs out all the same (others fill the
//! disk too), the ballast, a file that only takes room, is given up, so that what was already taken in can be finished. Always:
//! writes are taken again only when there is room for the ballast too. A disk that may only be read, and a process that has as many
//! files open as it may, are waited out in the same way, with their own words.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::LogError;
use super::disk::{Disk, is_out_of_files};
use super::store::LogConfig;

const BALLAST: &str = "ballast";
/// A file that is made and deleted to see whether the disk takes anything.
const PROBE: &str = "probe";
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
    /// Why nothing could be written, as the last attempt was told.
    why: Mutex<Why>,
}

/// Why nothing can be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    NoRoom,
    ReadOnly,
    TooManyFiles,
}

impl Guard {
    pub(super) fn new(disk: &dyn Disk, config: &LogConfig) -> Result<Self, LogError> {
        let free = disk.free_bytes().map_err(LogError::io("ask for free space"))?;
        let looked = Mutex::new((Instant::now(), free));
        Ok(Self {
            min_free: config.min_free_bytes,
            ballast: config.ballast_bytes,
            looked,
            ran_out: watch::Sender::new(false),
            why: Mutex::new(Why::NoRoom),
        })
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
            return disk.open(PROBE, true).and_then(|_| disk.remove_file(PROBE)).is_ok();
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
    /// reserve, and then the ballast: it is what makes room. On a disk that may only be read nothing does.
    pub(super) fn check(&self, disk: &dyn Disk, is_bookkeeping: impl FnOnce() -> bool) -> Result<(), LogError> {
        let mut state = self.state(disk);
        if state.takes_writes() {
            return Ok(());
        }
        if is_bookkeeping() {
            if state.free_bytes <= self.min_free / 4 && !state.ran_out && self.ballast > 0 {
                self.run_out(disk, "the reserve is used up, by others or by what was taken in last");
                state = self.state(disk);
            }
            let is_hopeless = state.ran_out && *self.why.lock() == Why::ReadOnly;
            if state.free_bytes > self.min_free / 4 && !is_hopeless {
                return Ok(());
            }
        }
        Err(self.refusal(state))
    }

    /// Why writes are refused.
    pub(super) fn refusal(&self, state: DiskState) -> LogError {
        let full = LogError::DiskFull { free: state.free_bytes, needed: state.needed_bytes };
        if !state.ran_out {
            return full;
        }
        match *self.why.lock() {
            Why::NoRoom => full,
            Why::ReadOnly => LogError::ReadOnly,
            Why::TooManyFiles => LogError::TooManyFiles,
        }
    }

    /// A write found no room, a disk that may only be read, or no more files to open: no more are taken, and the ballast goes.
    pub(super) fn run_out(&self, disk: &dyn Disk, what: &str) {
        let probed = disk.open(PROBE, true).and_then(|_| disk.remove_file(PROBE));
        let why = match probed {
            Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => Why::ReadOnly,
            Err(error) if is_out_of_files(&error) => Why::TooManyFiles,
            _ => Why::NoRoom,
        };
        *self.why.lock() = why;
        if !self.ran_out.send_replace(true) {
            let refusal = self.refusal(DiskState { free_bytes: self.looked.lock().1, needed_bytes: self.min_free, ran_out: true });
            tracing::error!(what, why = %refusal, "nothing can be written: writes are refused until it can");
            if why == Why::NoRoom
                && let Err(error) = disk.remove_file(BALLAST)
            {
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
