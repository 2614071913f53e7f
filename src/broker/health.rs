//! How the log under the broker is, for `/readyz`, `/metrics` and whoever has to stop the node.

use super::Broker;
use crate::metrics::{Metrics, raise};

impl Broker {
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
