//! How queries and alerts are doing, put together from their tasks.

use std::sync::Arc;

use super::running::QueryState;
use super::{Engine, Running};
use crate::bus::Whereabouts;
use crate::metrics::DurationCounts;
use crate::record::{Offset, TopicName, TopicPartition};
use crate::sql::statement::Kind;
use crate::stream::{InputProgress, OperatorFigures, Refill, TaskCounts, TimeShares};
use crate::time::Timestamp;

/// What runs, as `SHOW QUERIES`, `/metrics` and the page show it.
#[derive(Clone, Debug)]
pub struct QueryStatus {
    /// Its name.
    pub name: String,
    /// Query or alert.
    pub kind: KindWord,
    /// Counts up with each replacement.
    pub version: u64,
    /// Its state: the worst of its tasks.
    pub state: QueryState,
    /// What went wrong.
    pub error: Option<String>,
    /// The streams it reads, from left to right.
    pub source: String,
    /// Where its results go.
    pub sink: String,
    /// Sums over its tasks.
    pub counts: TaskCounts,
    /// How far it has come that its state is made again, over its tasks.
    pub refill: Refill,
    /// Where it stands in each partition of what it reads.
    pub inputs: Vec<InputProgress>,
    /// Records it has still to read.
    pub lag: i64,
    /// The least watermark of its partitions that have one.
    pub watermark: Option<Timestamp>,
    /// Its sources, operators and sink in the order of its chain, over its tasks.
    pub operators: Vec<OperatorFigures>,
    /// What its tasks spend their time on.
    pub time: TimeShares,
    /// How long its commits took.
    pub commit_times: DurationCounts,
    /// How many bytes of state it may hold.
    pub state_max: Option<u64>,
    /// Whether it comes near that.
    pub is_near_max: bool,
    /// Why no more of its state could be put on the disk when that was last asked for.
    pub refusal: Option<String>,
    /// How many tasks it has; the figures are of those that run here.
    pub tasks: usize,
    /// Where those run that do not run here: each place, and which they are.
    pub elsewhere: Vec<(Whereabouts, Vec<i32>)>,
}

/// Query or alert, as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindWord(pub(super) Kind);

impl KindWord {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0.word()
    }
}

impl QueryStatus {
    /// Its state, and how many of its tasks run elsewhere, if any do.
    #[must_use]
    pub fn shown_state(&self) -> String {
        let away: usize = self.elsewhere.iter().map(|(_, tasks)| tasks.len()).sum();
        match self.state {
            QueryState::Elsewhere | QueryState::Paused => self.state.as_str().to_owned(),
            _ if away == 0 => self.state.as_str().to_owned(),
            _ => format!("{} ({away} of {} tasks elsewhere)", self.state.as_str(), self.tasks),
        }
    }
}

impl Engine {
    /// Everything that runs, by name.
    pub async fn statuses(&self) -> Vec<QueryStatus> {
        let mut found: Vec<(QueryStatus, Vec<TopicName>)> =
            self.running.lock().values().map(|r| (r.status(), r.inputs.iter().map(|i| i.topic.clone()).collect())).collect();
        let mut ends: std::collections::HashMap<TopicPartition, Offset> = std::collections::HashMap::new();
        for (status, topics) in &mut found {
            let mut lag = 0;
            for input in &status.inputs {
                let Some(topic) = topics.get(input.source) else { continue };
                let place = TopicPartition::new(topic.clone(), input.partition);
                let end = match ends.get(&place) {
                    Some(end) => *end,
                    None => {
                        let end = self.bus.bounds(&place).await.map_or(input.position, |b| b.end);
                        ends.insert(place, end);
                        end
                    }
                };
                lag += (end.0 - input.position.0).max(0);
            }
            status.lag = lag;
            let away: Vec<i32> = std::mem::take(&mut status.elsewhere).into_iter().flat_map(|(_, tasks)| tasks).collect();
            status.elsewhere = self.elsewhere(&format!("{}.{}", status.kind.as_str(), status.name), &away);
        }
        found.into_iter().map(|(status, _)| status).collect()
    }
}

impl Running {
    fn status(&self) -> QueryStatus {
        let mut counts = TaskCounts::default();
        let mut refill = Refill::default();
        let mut inputs = Vec::new();
        let (mut state, mut error) = (QueryState::Running, None);
        let mut away = Vec::new();
        let (mut operators, mut time, mut commit_times) = (Vec::new(), TimeShares::default(), DurationCounts::default());
        for (index, task) in self.tasks.iter().enumerate() {
            counts.add(&task.stats.counts());
            refill.add(task.stats.refill_progress());
            let standing = task.state();
            if standing.0 != QueryState::Elsewhere {
                inputs.extend(task.stats.inputs());
                let (of_task, spent) = task.stats.figures();
                add_operators(&mut operators, of_task);
                time.add(&spent);
                commit_times.add(&task.stats.commit_times());
            }
            match standing {
                (QueryState::Failed, why) => (state, error) = (QueryState::Failed, why),
                (QueryState::Starting, _) if state == QueryState::Running => state = QueryState::Starting,
                (QueryState::Elsewhere, _) => away.push(index as i32),
                _ => {}
            }
        }
        operators.iter_mut().for_each(|of| of.busy_share /= f64::from(time.tasks.max(1)));
        if !away.is_empty() && away.len() == self.tasks.len() {
            state = QueryState::Elsewhere;
        }
        if self.entry.paused {
            state = QueryState::Paused;
        }
        let watermark = inputs.iter().map(|i: &InputProgress| i.watermark).filter(|w| *w > Timestamp::MIN && *w < Timestamp::MAX).min();
        QueryStatus {
            name: Arc::clone(&self.entry).name.clone(),
            kind: KindWord(self.entry.kind),
            version: self.entry.version,
            state,
            error,
            source: self.inputs.iter().map(|input| input.stream.as_str()).collect::<Vec<_>>().join(", "),
            sink: self.sink.clone(),
            counts,
            refill,
            inputs,
            lag: 0,
            watermark,
            operators,
            time,
            commit_times,
            state_max: self.budget.max(),
            is_near_max: self.budget.is_near(),
            refusal: self.budget.refusal(),
            tasks: self.tasks.len(),
            elsewhere: if away.is_empty() { Vec::new() } else { vec![(Whereabouts::Nowhere, away)] },
        }
    }
}

/// Adds up the operators of tasks. All tasks of a query have the same ones; one that has not begun yet has none.
fn add_operators(all: &mut Vec<OperatorFigures>, more: Vec<OperatorFigures>) {
    if all.is_empty() {
        *all = more;
    } else {
        all.iter_mut().zip(&more).for_each(|(own, other)| own.add(other));
    }
}
