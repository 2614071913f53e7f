//! What runs: the tasks of one query or alert, each watched over.
//!
//! A task that fails (an error, a panic) fails its query visibly and is tried again from its checkpoint, with
//! a back-off; nothing else is touched. A failure that trying again cannot mend (a checkpoint that does not
//! fit, input that is gone) is final until somebody acts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::bus::{BusError, Shift};
use crate::stream::{Control, StreamError, Task, TaskStats};

/// The first wait after a failure; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The longest wait after a failure of the log that passes: it goes on soon after its brokers are back.
const LONGEST_LOG_WAIT: Duration = Duration::from_secs(4);
/// How long a task may take for its last commit and snapshot.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// The state of a query as `SHOW QUERIES` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryState {
    /// Being restored.
    Starting,
    /// Reading and writing.
    Running,
    /// Stopped by PAUSE; its place and state are kept.
    Paused,
    /// Something went wrong; the error says what, and whether it is tried again.
    Failed,
    /// Run by other processes of the application.
    Elsewhere,
}

impl QueryState {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// Opens one task, as often as it takes.
pub type OpenTask = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Task, StreamError>> + Send>> + Send + Sync>;

/// Completes once the task is this process's to run.
pub type Turn = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Shift> + Send>> + Send + Sync>;

/// What one task is doing.
#[derive(Clone, Debug, Default)]
struct Doing {
    running: bool,
    /// It is another process's to run.
    elsewhere: bool,
    error: Option<String>,
    control: Option<mpsc::Sender<Control>>,
}

/// One task with its watcher.
pub struct Watched {
    /// Its counters, which outlive its attempts.
    pub stats: Arc<TaskStats>,
    doing: Arc<Mutex<Doing>>,
    stop: watch::Sender<bool>,
    /// True once the first attempt to open it has come to something.
    opened: watch::Receiver<bool>,
    watcher: Option<JoinHandle<()>>,
}

impl Watched {
    /// Starts a task and the one who watches over it.
    pub fn start(runtime: &Handle, name: String, stats: Arc<TaskStats>, turn: Turn, open: OpenTask) -> Self {
        let doing = Arc::new(Mutex::new(Doing::default()));
        let (stop, stopped) = watch::channel(false);
        let (opens, opened) = watch::channel(false);
        let watcher = runtime.spawn(watch_over(name, turn, open, Arc::clone(&doing), stopped, Arc::new(opens)));
        Self { stats, doing, stop, opened, watcher: Some(watcher) }
    }

    /// Its state, and what went wrong last.
    #[must_use]
    pub fn state(&self) -> (QueryState, Option<String>) {
        let doing = self.doing.lock();
        match (&doing.error, doing.running) {
            (Some(error), _) => (QueryState::Failed, Some(error.clone())),
            (None, true) => (QueryState::Running, None),
            (None, false) if doing.elsewhere => (QueryState::Elsewhere, None),
            (None, false) => (QueryState::Starting, None),
        }
    }

    /// A query that could not be started, and why.
    pub fn failed(why: String) -> Self {
        let doing = Doing { error: Some(why), ..Doing::default() };
        let (stop, opened) = (watch::channel(false).0, watch::channel(true).1);
        Self { stats: Arc::default(), doing: Arc::new(Mutex::new(doing)), stop, opened, watcher: None }
    }

    /// Hears when it has been opened, or has failed to: from then on it misses nothing that is written.
    pub fn opened(&self) -> watch::Receiver<bool> {
        self.opened.clone()
    }

    /// Whether there is only a note of a failure, and no task.
    pub fn is_note(&self) -> bool {
        self.watcher.is_none()
    }

    /// The way to the task, where it runs.
    pub fn control(&self) -> Option<mpsc::Sender<Control>> {
        self.doing.lock().control.clone()
    }

    /// Last commit, snapshot, end.
    pub async fn stop(&mut self) {
        // Nobody listens where the watcher has ended already.
        let _ = self.stop.send(true);
        let control = self.doing.lock().control.take();
        if let Some(control) = control {
            let _ = control.send(Control::Stop).await;
        }
        if let Some(mut watcher) = self.watcher.take()
            && tokio::time::timeout(STOP_PATIENCE, &mut watcher).await.is_err()
        {
            // Its last commit stands; what came after is done again at the next start.
            watcher.abort();
        }
    }
}

impl Drop for Watched {
    /// Ends the task where it stands: one whose start came to nothing must not go on unseen.
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

/// Steps a task's operators from outside; answers once that is committed.
pub async fn external(control: Option<mpsc::Sender<Control>>, body: String) -> Result<(), String> {
    let control = control.ok_or("it is not running")?;
    let (done, outcome) = oneshot::channel();
    control.send(Control::External { body, done }).await.map_err(|_| "it is not running")?;
    match outcome.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it ended before it answered".to_owned()),
    }
}

/// Ends a task that nobody watches over any more.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn watch_over(
    name: String,
    turn: Turn,
    open: OpenTask,
    doing: Arc<Mutex<Doing>>,
    mut stopped: watch::Receiver<bool>,
    opens: Arc<watch::Sender<bool>>,
) {
    let mut wait = FIRST_WAIT;
    loop {
        let Some(shift) = its_turn(&turn, &doing, &mut stopped, &opens).await else { return };
        let (control, told) = mpsc::channel(16);
        let begun = Instant::now();
        let mut attempt = {
            let (open, doing, opens, stopped) = (Arc::clone(&open), Arc::clone(&doing), Arc::clone(&opens), stopped.clone());
            // A task of its own, so that a panic ends it and not its watcher.
            tokio::spawn(async move {
                let task = open().await?;
                {
                    let mut now = doing.lock();
                    // Whoever stops says so before it looks for the way to the task: it finds that way, or is seen here.
                    if *stopped.borrow() {
                        return Ok(());
                    }
                    *now = Doing { running: true, control: Some(control), ..Doing::default() };
                }
                opens.send_replace(true);
                task.run(told).await
            })
        };
        let _ends_with_its_watcher = AbortOnDrop(attempt.abort_handle());
        let ended = tokio::select! {
            ended = &mut attempt => ended,
            () = stopped_while_starting(&doing, &mut stopped) => {
                attempt.abort();
                // What it was about to write has been written, or will never be.
                let _ = attempt.await;
                return;
            }
            () = shift.over() => {
                give_over(&name, &doing, attempt).await;
                wait = FIRST_WAIT;
                continue;
            }
        };
        if shift.is_over() {
            // Another process goes on from its last commit; so does this one, should it be its turn again.
            continue;
        }
        let failure = match ended {
            Ok(Ok(())) => {
                *doing.lock() = Doing::default();
                return;
            }
            Ok(Err(error)) => (error.to_string(), is_final(&error), longest_wait(&error)),
            Err(panic) if panic.is_panic() => (format!("a bug: the task panicked ({})", panic_text(panic)), false, LONGEST_WAIT),
            Err(_) => return,
        };
        let (reason, last, longest) = failure;
        // What went well for long has nothing to do with how often it failed before.
        wait = if begun.elapsed() > LONGEST_WAIT { FIRST_WAIT } else { wait.min(longest) };
        let text = if last { reason.clone() } else { format!("{reason}; trying again in {} s", wait.as_secs_f64()) };
        tracing::error!(task = %name, reason = %text, "query task failed");
        *doing.lock() = Doing { error: Some(text), ..Doing::default() };
        opens.send_replace(true);
        if *stopped.borrow() {
            return;
        }
        // Nothing runs meanwhile: should it go to another process, nobody has to wait for it.
        drop(shift);
        if last {
            let _ = stopped.wait_for(|stop| *stop).await;
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        wait *= 2;
    }
}

/// Waits until the task is this process's to run; `None` where it is to stop before.
async fn its_turn(turn: &Turn, doing: &Mutex<Doing>, stopped: &mut watch::Receiver<bool>, opens: &watch::Sender<bool>) -> Option<Shift> {
    let mut turn = turn();
    if let std::task::Poll::Ready(shift) = futures::poll!(&mut turn) {
        doing.lock().elsewhere = false;
        return Some(shift);
    }
    *doing.lock() = Doing { elsewhere: true, ..Doing::default() };
    // Nobody here waits for what another process does.
    opens.send_replace(true);
    tokio::select! {
        shift = turn => {
            *doing.lock() = Doing::default();
            Some(shift)
        }
        // Told, or whoever could tell is gone.
        _ = stopped.wait_for(|stop| *stop) => None,
    }
}

/// Ends an attempt because the task goes to another process: with its last commit and snapshot, if it has come as far.
async fn give_over(name: &str, doing: &Mutex<Doing>, mut attempt: JoinHandle<Result<(), StreamError>>) {
    let control = doing.lock().control.take();
    match control {
        Some(control) => drop(control.send(Control::Stop).await),
        None => attempt.abort(),
    }
    match tokio::time::timeout(STOP_PATIENCE, &mut attempt).await {
        Ok(Ok(Err(error))) => tracing::debug!(task = name, %error, "a task that goes to another process did not come to its last commit"),
        Ok(_) => {}
        Err(_) => {
            attempt.abort();
            // What it was about to write has been written, or will never be.
            let _ = attempt.await;
        }
    }
}

/// Completes when a stop is asked for before the task has come as far as taking one itself.
async fn stopped_while_starting(doing: &Mutex<Doing>, stopped: &mut watch::Receiver<bool>) {
    let asked = stopped.wait_for(|stop| *stop).await.is_ok();
    if asked && !doing.lock().running {
        return;
    }
    // It runs, and has been told: it ends by itself.
    std::future::pending::<()>().await;
}

const fn longest_wait(error: &StreamError) -> Duration {
    match error {
        StreamError::Bus(BusError::Retriable(_) | BusError::Fenced(_)) => LONGEST_LOG_WAIT,
        _ => LONGEST_WAIT,
    }
}

fn is_final(error: &StreamError) -> bool {
    matches!(
        error,
        StreamError::Restore { .. }
            | StreamError::Full(_)
            | StreamError::BadRecord { .. }
            | StreamError::Bus(
                BusError::OutOfRange { .. }
                    | BusError::NoSuchTopic(_)
                    | BusError::NoSuchPartition(_)
                    | BusError::Corrupt(_)
                    | BusError::Closed(_)
            )
    )
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let panic = error.into_panic();
    let text = panic.downcast_ref::<&str>().map(|t| (*t).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_nobody_holds_any_more_ends() {
        let (begun, (alive, ended)) = (Arc::new(tokio::sync::Notify::new()), oneshot::channel::<()>());
        let (opening, alive) = (Arc::clone(&begun), Arc::new(Mutex::new(Some(alive))));
        let open: OpenTask = Arc::new(move || {
            let (opening, alive) = (Arc::clone(&opening), alive.lock().take());
            Box::pin(async move {
                opening.notify_one();
                std::future::pending::<()>().await;
                drop(alive);
                unreachable!("it waits for ever")
            })
        });
        let turn: Turn = Arc::new(|| Box::pin(std::future::ready(Shift::for_good())));
        let watched = Watched::start(&Handle::current(), "q[0]".to_owned(), Arc::default(), turn, open);
        begun.notified().await;
        drop(watched);
        assert!(ended.await.is_err(), "what it held is dropped, and nothing was sent");
    }
}
