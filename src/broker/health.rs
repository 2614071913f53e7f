//! How the log under the broker is, for `/readyz`, `/metrics` and whoever has to stop the node.

use super::Broker;
use crate::metrics::{Metrics, raise};

/// The volume the node's files are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The directory.
    pub place: String,
    /// Bytes there are; `None` where the system does not tell.
    pub total_bytes: Option<u64>,
    /// Bytes that are free for us, as last looked at.
    pub free_bytes: u64,
}

impl Broker {
    /// Where the node's files are, and the room there.
    #[must_use]
    pub fn volume(&self) -> Volume {
        let (place, total_bytes) = self.log().volume();
        Volume { place, total_bytes, free_bytes: self.log().disk_state().free_bytes }
    }

    /// Why writes are refused for want of room, where they are. Reading and deleting go on.
    #[must_use]
    pub fn disk_full(&self) -> Option<String> {
        self.log().refuses().map(|why| format!("writes are refused: {why}"))
    }

    /// Completes when the log has failed for good, with the reason: nothing may be acknowledged any more.
    pub async fn log_failed(&self) -> String {
        let mut failed = self.log().failed();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The log is closed, and did not fail.
            Err(_) => std::future::pending().await,
        }
    }

    /// Why the log has failed, if it has.
    #[must_use]
    pub fn log_failure(&self) -> Option<String> {
        self.log().failed().borrow().clone()
    }

    /// How long the syncs of the log took since the last look, this way or by a scrape of the metrics.
    #[must_use]
    pub fn recent_syncs(&self) -> Vec<std::time::Duration> {
        self.log().stats().recent_syncs
    }

    pub(super) fn export_log(&self, metrics: &Metrics) {
        let stats = self.log().stats();
        raise(&metrics.log_groups, stats.groups);
        for took in stats.recent_syncs {
            metrics.log_sync_seconds.observe(took.as_secs_f64());
        }
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        metrics.log_pending_bytes.set(gauge(stats.pending_bytes));
        metrics.log_disk_free_bytes.set(gauge(stats.free_bytes));
    }
}
