//! What could not be started: it stays, says why, and is tried again where it is the log that could not be asked.
//!
//! A node may start while its cluster is slow or a broker away; a query or an alert that is not there then must not be missing until
//! somebody looks. Always: it is started at most once, and not where somebody has dropped, changed or started it meanwhile; while the log
//! does not answer nobody who changes something waits for it here, and a start asks in vain only once.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::launch::Planned;
use super::running::Watched;
use super::{Engine, Running, RunningInput};
use crate::record::TopicName;
use crate::sql::catalog::Entry;
use crate::sql::error::SqlError;
use crate::sql::statement::Name;
use crate::stream::StateBudget;

/// It is tried again after this long, then twice as long each time, up to ..
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// .. this.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What waits for the log to answer.
#[derive(Default)]
pub(super) struct Unstarted {
    waiting: Vec<Arc<Entry>>,
    /// Who tries them again, while there are any.
    starter: Option<JoinHandle<()>>,
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some(starter) = &self.starter {
            starter.abort();
        }
    }
}

impl Engine {
    /// Starts a query, a view or an alert. One that cannot be started is shown as failed.
    pub(super) async fn launch(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<(), SqlError> {
        self.launch_as(entry, None).await
    }

    /// The same, as it has just been planned.
    pub(super) async fn launch_as(self: &Arc<Self>, entry: &Arc<Entry>, known: Option<Planned>) -> Result<(), SqlError> {
        let launched = self.try_launch(entry, known).await;
        if let Err(error) = &launched {
            self.note_unstarted(entry, error);
        }
        launched
    }

    /// Starts all that ran. Once one has found the log away, the others wait for it with that one.
    pub(super) async fn launch_all(self: &Arc<Self>, entries: &[Arc<Entry>]) {
        let mut away = None;
        for entry in entries {
            let launched = match &away {
                None => self.launch(entry).await,
                Some(error) => {
                    self.note_unstarted(entry, error);
                    continue;
                }
            };
            if let Err(error) = launched {
                // Its statement was right once; it is shown as failed, and the others run.
                tracing::error!(name = %entry.name, code = %error.code, reason = %error.message, "could not start a query");
                away = error.may_pass().then_some(error);
            }
        }
    }

    /// Nothing is tried again any more.
    pub(super) fn give_up_unstarted(&self) {
        drop(std::mem::take(&mut *self.unstarted.lock()));
    }

    fn note_unstarted(self: &Arc<Self>, entry: &Arc<Entry>, error: &SqlError) {
        self.show_unstarted(entry, error);
        if error.may_pass() {
            let mut unstarted = self.unstarted.lock();
            unstarted.waiting.push(Arc::clone(entry));
            unstarted.starter.get_or_insert_with(|| self.runtime.spawn(start_unstarted(Arc::downgrade(self))));
        }
    }

    fn show_unstarted(&self, entry: &Arc<Entry>, error: &SqlError) {
        let topic = TopicName::new("unknown").expect("a constant name");
        let input = |name: &Name| RunningInput { stream: name.text.clone(), topic: topic.clone(), partitions: 0 };
        let why = if error.may_pass() { format!("{}; trying again", error.message) } else { error.message.clone() };
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

    /// Tries one again. Whether it still waits for the log.
    async fn start_waiting(self: &Arc<Self>, entry: &Arc<Entry>) -> bool {
        let _one = self.change.lock().await;
        if !self.is_unstarted(entry) {
            return false;
        }
        match self.try_launch(entry, None).await {
            Ok(()) => {
                tracing::info!(name = %entry.name, "started, after the log could not be asked");
                false
            }
            Err(error) => {
                tracing::warn!(name = %entry.name, code = %error.code, reason = %error.message, "could not start a query again");
                self.show_unstarted(entry, &error);
                error.may_pass()
            }
        }
    }
}

/// Starts what waits, once the log answers, until nothing waits.
async fn start_unstarted(engine: Weak<Engine>) {
    let mut wait = FIRST_WAIT;
    loop {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
        let Some(engine) = engine.upgrade() else { return };
        // It may take long to say nothing: it is asked before anybody has to wait for the answer.
        if engine.bus.partitions(&super::catalog_topic()).await.is_err() {
            continue;
        }
        let waiting = std::mem::take(&mut engine.unstarted.lock().waiting);
        let mut again = Vec::new();
        for entry in waiting {
            if engine.start_waiting(&entry).await {
                again.push(entry);
            }
        }
        let mut unstarted = engine.unstarted.lock();
        unstarted.waiting.extend(again);
        if unstarted.waiting.is_empty() {
            unstarted.starter = None;
            return;
        }
    }
}
