//! How queries and alerts are doing, put together from their tasks.

use std::collections::HashMap;
use std::sync::Arc;

use super::running::QueryState;
use super::{Engine, Running};
use crate::bus::Whereabouts;
use crate::metrics::DurationCounts;
use crate::record::{Offset, TopicPartition};
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
    /// Records it has still to read; `None` where that is not known: a task is being restored, or the log does not say where it ends.
    pub lag: Option<i64>,
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
        let found = self.running.lock().values().map(Running::status).collect();
        self.completed(found).await
    }

    /// One of them; `None` where nothing of this name runs.
    pub async fn status_of(&self, name: &str) -> Option<QueryStatus> {
        let found = self.running.lock().get(name).map(Running::status)?;
        self.completed(vec![found]).await.pop()
    }

    /// The same with what the log knows: how much there is still to read, and who runs what does not run here.
    async fn completed(&self, mut found: Vec<(QueryStatus, Option<Vec<Place>>, i32)>) -> Vec<QueryStatus> {
        let mut ends: HashMap<TopicPartition, Option<Offset>> = HashMap::new();
        for (status, places, first) in &mut found {
            for (place, _) in places.iter().flatten() {
                if !ends.contains_key(place) {
                    ends.insert(place.clone(), self.bus.bounds(place).await.ok().map(|bounds| bounds.end));
                }
            }
            let ahead = |(place, position): &Place| Some((ends[place]?.0 - position.0).max(0));
            status.lag = places.as_ref().and_then(|places| places.iter().map(ahead).sum());
            let away: Vec<i32> = std::mem::take(&mut status.elsewhere).into_iter().flat_map(|(_, tasks)| tasks).collect();
            status.elsewhere = self.elsewhere(&format!("{}.{}", status.kind.as_str(), status.name), &away, *first);
        }
        found.into_iter().map(|(status, ..)| status).collect()
    }
}

/// Where something is read, and the next offset.
type Place = (TopicPartition, Offset);

impl Running {
    /// How it is doing, where it reads, as far as all its tasks here know that already, and how many of its tasks are of a first phase, where
    /// there are two: what lies between the phases is to be read as its input is, and shown as what it holds is, in its figures.
    fn status(&self) -> (QueryStatus, Option<Vec<Place>>, i32) {
        let mut counts = TaskCounts::default();
        let (first, between) = match &self.phases {
            Some((first, topic)) => (*first, Some(topic)),
            None => (self.tasks.len(), None),
        };
        // One that is paused stands somewhere too, and nobody is there who knows where.
        let mut places = (!self.tasks.is_empty()).then(Vec::new);
        let mut refill = Refill::default();
        let mut inputs = Vec::new();
        let (mut state, mut error) = (QueryState::Running, None);
        let mut away = Vec::new();
        let (mut operators, mut behind, mut time, mut commit_times) =
            (Vec::new(), Vec::new(), TimeShares::default(), DurationCounts::default());
        for (index, task) in self.tasks.iter().enumerate() {
            let (of_task, is_second) = (task.stats.counts(), index >= first);
            counts.add(&match between {
                None => of_task,
                // What one phase hands to the other is neither read nor written by the query.
                Some(_) if is_second => TaskCounts { rows_in: 0, ..of_task },
                Some(_) => TaskCounts { rows_out: 0, ..of_task },
            });
            refill.add(task.stats.refill_progress());
            let standing = task.state();
            if standing.0 != QueryState::Elsewhere {
                let of_task = task.stats.inputs();
                if standing.0 == QueryState::Starting || of_task.is_empty() {
                    places = None;
                }
                for input in of_task {
                    let topic = if is_second { between } else { self.inputs.get(input.source).map(|of| &of.topic) };
                    if let (Some(places), Some(topic)) = (&mut places, topic) {
                        places.push((TopicPartition::new(topic.clone(), input.partition), input.position));
                    }
                    if !is_second {
                        inputs.push(input);
                    }
                }
                let (of_task, spent) = task.stats.figures();
                add_operators(if is_second { &mut behind } else { &mut operators }, of_task);
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
        operators.append(&mut behind);
        operators.iter_mut().for_each(|of| of.busy_share /= f64::from(time.tasks.max(1)));
        if !away.is_empty() && away.len() == self.tasks.len() {
            state = QueryState::Elsewhere;
        }
        if self.entry.paused {
            state = QueryState::Paused;
        }
        let watermark = inputs.iter().map(|i: &InputProgress| i.watermark).filter(|w| *w > Timestamp::MIN && *w < Timestamp::MAX).min();
        let status = QueryStatus {
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
            lag: None,
            watermark,
            operators,
            time,
            commit_times,
            state_max: self.budget.max(),
            is_near_max: self.budget.is_near(),
            refusal: self.budget.refusal(),
            tasks: self.tasks.len(),
            elsewhere: if away.is_empty() { Vec::new() } else { vec![(Whereabouts::Nowhere, away)] },
        };
        (status, places, first as i32)
    }
}

/// Adds up the operators of tasks. All tasks of a phase have the same ones; one that has not begun yet has none.
fn add_operators(all: &mut Vec<OperatorFigures>, more: Vec<OperatorFigures>) {
    if all.is_empty() {
        *all = more;
    } else {
        all.iter_mut().zip(&more).for_each(|(own, other)| own.add(other));
    }
}
