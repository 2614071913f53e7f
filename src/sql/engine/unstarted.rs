//! What could not be started: it stays, says why, and is tried again where it is the log that could not be asked.
//!
//! A node may start while its cluster is slow or a broker away; a query or an alert that is not there then must not be missing until
//! somebody looks. Always: it is started at most once, and not where somebody has dropped, changed or started it meanwhile.

use std::sync::Arc;
use std::time::Duration;

use super::running::Watched;
use super::{Engine, Running, RunningInput};
use crate::record::TopicName;
use crate::sql::catalog::Entry;
use crate::sql::error::{Code, SqlError};
use crate::sql::statement::Name;
use crate::stream::StateBudget;

/// It is tried again after this long, then twice as long each time, up to ..
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// .. this.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl Engine {
    /// Starts a query, a view or an alert. One that cannot be started is shown as failed.
    pub(super) async fn launch(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<(), SqlError> {
        let launched = self.try_launch(entry).await;
        if let Err(error) = &launched {
            self.note_unstarted(entry, error);
            if is_passing(error) {
                self.launch_later(entry);
            }
        }
        launched
    }

    fn note_unstarted(&self, entry: &Arc<Entry>, error: &SqlError) {
        let topic = TopicName::new("unknown").expect("a constant name");
        let input = |name: &Name| RunningInput { stream: name.text.clone(), topic: topic.clone(), partitions: 0 };
        let why = if is_passing(error) { format!("{}; trying again", error.message) } else { error.message.clone() };
        let running = Running {
            entry: Arc::clone(entry),
            inputs: entry.reads().iter().map(input).collect(),
            sink: entry.writes().unwrap_or_default().to_owned(),
            tasks: vec![Watched::failed(why)],
            phases: None,
            budget: StateBudget::new(&entry.name, self.state_max(entry)),
        };
        self.running.lock().insert(entry.name.clone(), running);
    }

    /// Whether there is nothing of it but the note.
    fn is_unstarted(&self, entry: &Arc<Entry>) -> bool {
        let running = self.running.lock();
        running
            .get(&entry.name)
            .is_some_and(|r| Arc::ptr_eq(&r.entry, entry) && !r.tasks.is_empty() && r.tasks.iter().all(Watched::is_note))
    }

    fn launch_later(self: &Arc<Self>, entry: &Arc<Entry>) {
        let (engine, entry) = (Arc::downgrade(self), Arc::clone(entry));
        self.runtime.spawn(async move {
            let mut wait = FIRST_WAIT;
            loop {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
                let Some(engine) = engine.upgrade() else { return };
                let _one = engine.change.lock().await;
                if !engine.is_unstarted(&entry) {
                    return;
                }
                match engine.try_launch(&entry).await {
                    Ok(()) => {
                        tracing::info!(name = %entry.name, "started, after the log could not be asked");
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(name = %entry.name, code = %error.code, reason = %error.message, "could not start a query again");
                        engine.note_unstarted(&entry, &error);
                        if !is_passing(&error) {
                            return;
                        }
                    }
                }
            }
        });
    }
}

/// Whether it may end by itself.
fn is_passing(error: &SqlError) -> bool {
    error.code == Code::Storage
}
