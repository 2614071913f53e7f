//! Several processes over one log: [`Company`], what each of them may run, and until when ([`Shift`]).
//!
//! A log that a process has to itself has no company: everything is its own for good. Where there is one, a task is run only while
//! its shift lasts; what a process still writes behind its shift is refused by the log, so that a shift that ends late costs time and
//! never a row. Called by the engine and by whoever else runs tasks.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Bus, BusFuture, Committer, TaskId};
use crate::record::{Offset, TopicName};

/// How long what has failed in passing waits.
const AGAIN: Duration = Duration::from_secs(5);

/// A boxed future that cannot fail.
pub type CompanyFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a process runs a task for a while: until it is over, the task is nobody else's. Dropped once the task has ended: only then, or
/// after a while, another process begins.
pub struct Shift {
    over: CancellationToken,
    _held: Option<Box<dyn Any + Send + Sync>>,
}

impl Shift {
    /// One that lasts.
    #[must_use]
    pub fn for_good() -> Self {
        Self { over: CancellationToken::new(), _held: None }
    }

    /// One that lasts until it is cancelled; `held` is dropped with it.
    pub(super) fn until(over: CancellationToken, held: impl Any + Send + Sync) -> Self {
        Self { over, _held: Some(Box::new(held)) }
    }

    /// Completes when the task is to end: with a last commit, soon.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Whether the task is to end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }
}

/// Where a task runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In this process.
    Here,
    /// In another one, in the words it has for itself.
    At(String),
    /// Nowhere just now: its process has ended, and another has not come as far.
    Nowhere,
}

/// The processes that share a log and the work over it.
pub trait Company: Send + Sync {
    /// Completes once the task is this process's to run.
    fn shift<'a>(&'a self, task: &'a TaskId) -> CompanyFuture<'a, Shift>;
    /// Sees that so many tasks of one owner can be shared out.
    fn make_room(&self, tasks: i32) -> BusFuture<'_, ()>;
    /// Where a task runs, as far as is known here.
    fn whereabouts(&self, task: &TaskId) -> Whereabouts;
    /// Takes the right to write the catalogue from whoever had it. When it completes, all that the others have written can be read.
    fn catalogue(&self) -> BusFuture<'_, Box<dyn Committer>>;
    /// Tells the others that this process acts by the catalogue as it stands below `upto`.
    fn has_followed(&self, upto: Offset);
    /// Completes once whoever runs anything acts by the catalogue as it stands below `upto`.
    fn all_followed(&self, upto: Offset, patience: Duration) -> BusFuture<'_, ()>;
    /// A topic has been deleted by another process: what is known of it counts no more.
    fn forget(&self, topic: &TopicName);
    /// Where steps from outside go that another process may have to take.
    fn steps(&self) -> &TopicName;
    /// Gives everything up, and completes once others may have it.
    fn leave(&self) -> CompanyFuture<'_, ()>;
    /// Begins to give everything up, and does not wait.
    fn abandon(&self);
}

/// Waits until a task is this process's to run; at once where the log is its own.
pub async fn shift(bus: &dyn Bus, task: &TaskId) -> Shift {
    match bus.company() {
        Some(company) => company.shift(task).await,
        None => Shift::for_good(),
    }
}

/// Runs something whenever a task is this process's to run, until `stop` says so. `run` ends soon after its own receiver has said so; where
/// it fails in passing (`passes`), or because its shift was over, it begins again.
pub async fn attend<E: fmt::Display, Run: Future<Output = Result<(), E>>>(
    bus: &dyn Bus,
    task: &TaskId,
    mut stop: watch::Receiver<bool>,
    run: impl Fn(watch::Receiver<bool>) -> Run,
    passes: impl Fn(&E) -> bool,
) -> Result<(), E> {
    while !*stop.borrow() {
        let shift = tokio::select! {
            shift = shift(bus, task) => shift,
            // Told, or whoever could tell is gone.
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let (end, ended) = watch::channel(false);
        let mut run = std::pin::pin!(run(ended));
        let outcome = tokio::select! {
            outcome = &mut run => Some(outcome),
            _ = stop.wait_for(|stop| *stop) => None,
            () = shift.over() => None,
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => {
                end.send_replace(true);
                run.await
            }
        };
        match outcome {
            Ok(()) if shift.is_over() => {}
            Ok(()) => return Ok(()),
            Err(_) if shift.is_over() => {}
            Err(error) if passes(&error) => {
                tracing::warn!(%task, %error, "begins again in a while");
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
