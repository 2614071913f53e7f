//! Results that leave ahead of their commit: delivery at least once.
//!
//! Exactly once, results leave in the commit that carries the positions they came from, and nothing is read on before that is
//! durable. At least once, they leave as soon as they are there, nothing waits for them, and the positions follow with the commit
//! that is due anyway. After a crash the task stands at its last commit and says again what it had said since: of each key the same rows
//! in the same order. Always: what a task that begins again might see otherwise leaves in the commit that notes it: what follows
//! from a decision of the clock, and what comes of several inputs, of which the commit says how far each had come (what a partition
//! that was idle brings is late or not by that).

use std::fmt;

use super::Task;
use crate::stream::operator::StreamError;
use crate::stream::time_spent::Doing;

/// How often a result may be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Once: results are seen at their commit.
    #[default]
    ExactlyOnce,
    /// Once, and some of them again after a crash: results are seen as soon as they are there.
    AtLeastOnce,
}

impl Delivery {
    /// The word in SQL and in the settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly_once",
            Self::AtLeastOnce => "at_least_once",
        }
    }

    /// What a word says.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        [Self::ExactlyOnce, Self::AtLeastOnce].into_iter().find(|one| one.as_str() == word)
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Task {
    /// Lets go of what may leave before its commit.
    pub(super) async fn go_ahead(&mut self) -> Result<(), StreamError> {
        if self.spec.delivery == Delivery::ExactlyOnce || self.merges() || self.outputs.is_empty() || self.pending.is_decided() {
            return Ok(());
        }
        let Some(committer) = &mut self.committer else { return Ok(()) };
        self.stats.turn(Doing::Backpressured);
        let handed = committer.hand_over(self.outputs.take()).await;
        self.stats.turn(Doing::Busy);
        Ok(handed?)
    }
}
