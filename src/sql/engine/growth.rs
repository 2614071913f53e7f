//! When a stream's topic gets more partitions: its queries take them in, or fail and say why.
//!
//! With more partitions a key's rows lie elsewhere than its past. A query that keeps no state, or that merges all
//! partitions in one task, goes on from its positions and reads the new partitions from their beginning. One
//! whose tasks keep state by key cannot: it is FAILED with that reason until somebody starts it anew. Called by
//! `node` now and then, and by `launch` at a start.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Engine;
use crate::sql::catalog::{Entry, StreamDef};
use crate::sql::error::{Code, SqlError};
use crate::sql::lower::{Placement, QueryPlan};
use crate::sql::statement::Kind;

/// Whether the tasks of this query or alert remember keys, each of its own partition.
pub(super) fn keeps_keys(entry: &Entry, plan: &QueryPlan) -> bool {
    plan.placement == Placement::Partition && (entry.kind == Kind::Alert || plan.waits)
}

/// Why a query with state does not go on.
pub(super) fn repartitioned(stream: &StreamDef, was: i32, is: i32) -> SqlError {
    let message = format!(
        "topic \"{}\" has {is} partitions and had {was} when this was started: keys lie in other partitions than their state",
        stream.topic
    );
    SqlError::new(Code::Execution, message).hint("DROP it and CREATE it again; it then begins where its 'start' option says")
}

impl Engine {
    /// Looks whether topics have grown, and starts whoever reads them again.
    pub async fn follow_growth(self: &Arc<Self>) {
        let known: BTreeSet<_> = {
            let running = self.running.lock();
            let inputs = running.values().flat_map(|r| &r.inputs).filter(|i| i.partitions > 0);
            inputs.map(|i| (i.stream.clone(), i.topic.clone(), i.partitions)).collect()
        };
        for (stream, topic, partitions) in known {
            // A topic that is gone, or cannot be asked about, its tasks find themselves.
            if self.bus.partitions(&topic).await.ok().flatten().is_some_and(|now| now > partitions) {
                tracing::info!(stream, topic = %topic, "the topic has more partitions; its queries start again");
                let _one = self.change.lock().await;
                self.restart_readers(&stream).await;
            }
        }
    }

    async fn restart_readers(self: &Arc<Self>, stream: &str) {
        let readers: Vec<Arc<Entry>> = {
            let running = self.running.lock();
            running
                .values()
                .filter(|r| r.inputs.iter().any(|i| i.stream == stream && i.partitions > 0))
                .map(|r| Arc::clone(&r.entry))
                .collect()
        };
        for entry in &readers {
            self.halt(&entry.name).await;
        }
        self.forget_feeds(stream);
        for entry in &readers {
            if let Err(error) = self.launch(entry).await {
                tracing::error!(name = %entry.name, code = %error.code, reason = %error.message, "a query cannot go on");
            }
        }
    }
}
