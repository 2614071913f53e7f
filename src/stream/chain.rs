//! The operators of one task, one behind the other; before them, where rows of two sources meet, a join.
//!
//! Always: an operator sees the rows that its predecessor made of a watermark before it sees that
//! watermark, and it sees the watermark its predecessor lets it rely on. A join sees the lesser of its two
//! sides' watermarks. Sources are numbered as a query reads them, from left to right. What each operator does is counted
//! (`operator_stats`), a step at a time. Owned by the task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;

use super::element::{Deletion, Output, Rows};
use super::inputs::behind;
use super::join::{Join, Side};
use super::operator::{Operator, StateReader, StateWriter, StreamError};
use super::operator_stats::OperatorStats;
use super::source::Piece;
use super::spill::SpillSpace;
use super::stats::TaskStats;
use crate::time::Timestamp;

/// A run of operators that acts as one. Without any it hands rows on as they are.
#[derive(Default)]
pub struct Chain {
    fork: Option<Box<Fork>>,
    /// The counters of its source, where it has one of its own.
    source: Arc<OperatorStats>,
    operators: Vec<Station>,
    /// The number of its first place.
    first: usize,
}

/// An operator and its counters.
struct Station {
    operator: Box<dyn Operator>,
    stats: Arc<OperatorStats>,
}

impl Station {
    fn new(operator: Box<dyn Operator>) -> Self {
        Self { operator, stats: Arc::default() }
    }

    /// A step of the operator's, and what it made.
    fn step<T>(
        &mut self,
        rows: usize,
        step: impl FnOnce(&mut dyn Operator, &mut Output) -> Result<T, StreamError>,
    ) -> Result<(T, Output), StreamError> {
        let mut made = Output::default();
        let answer = self.stats.step(rows, &mut made, |made| step(self.operator.as_mut(), made))?;
        Ok((answer, made))
    }
}

/// Two chains and what brings them together.
struct Fork {
    sides: [Chain; 2],
    join: Box<dyn Join>,
    stats: Arc<OperatorStats>,
}

impl Chain {
    /// The operators in the order the rows meet them.
    #[must_use]
    pub fn new(operators: Vec<Box<dyn Operator>>) -> Self {
        Self { fork: None, source: Arc::default(), operators: operators.into_iter().map(Station::new).collect(), first: 0 }
    }

    /// A join of two chains, and the operators behind it.
    #[must_use]
    pub fn joined(left: Self, right: Self, join: Box<dyn Join>, operators: Vec<Box<dyn Operator>>) -> Self {
        Self { fork: Some(Box::new(Fork { sides: [left, right], join, stats: Arc::default() })), ..Self::new(operators) }
    }

    /// The same, its places numbered on from those of another chain.
    #[must_use]
    pub const fn numbered_from(mut self, first: usize) -> Self {
        self.first = first;
        self
    }

    /// Puts an operator behind all others.
    pub fn push(&mut self, operator: Box<dyn Operator>) {
        self.operators.push(Station::new(operator));
    }

    /// How many sources its rows come from.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.fork.as_ref().map_or(1, |fork| fork.sides.iter().map(Self::sources).sum())
    }

    /// The columns the last operator hands on; `None` where there is none.
    #[must_use]
    pub fn schema(&self) -> Option<SchemaRef> {
        self.operators.last().map(|last| last.operator.schema()).or_else(|| self.fork.as_ref().map(|fork| fork.join.schema()))
    }

    /// Rows of one partition of the first source, in offset order, through all operators.
    pub fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        self.rows_of(0, rows, out)
    }

    /// Rows of one partition of a source, in offset order, through all operators.
    pub fn rows_of(&mut self, source: usize, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        let Some(fork) = &mut self.fork else { return feed(&mut self.operators, rows, out) };
        let made = fork.rows_of(source, rows)?;
        hand_on(&mut self.operators, made, out)
    }

    /// A key's row is gone from a source that is a table. Nothing but a join knows of deletions.
    fn deletion_of(&mut self, source: usize, deletion: &Deletion) -> Result<(), StreamError> {
        match &mut self.fork {
            Some(fork) => fork.deletion_of(source, deletion),
            None => Ok(()),
        }
    }

    /// What a partition of a source says next.
    pub fn piece_of(&mut self, source: usize, piece: &Piece, out: &mut Output) -> Result<(), StreamError> {
        match piece {
            Piece::Rows(rows) if rows.is_empty() => Ok(()),
            Piece::Rows(rows) => self.rows_of(source, rows, out),
            Piece::Deletion(deletion) => self.deletion_of(source, deletion),
        }
    }

    /// A watermark through all operators.
    pub fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        self.pass(at, out).map(|_| ())
    }

    /// The same; answers the watermark that whoever comes behind may rely on.
    fn pass(&mut self, at: Timestamp, out: &mut Output) -> Result<Timestamp, StreamError> {
        let mut at = at;
        if let Some(fork) = &mut self.fork {
            let mut made = Output::default();
            at = fork.watermark(at, &mut made)?;
            hand_on(&mut self.operators, made, out)?;
        }
        let mut behind = self.operators.as_mut_slice();
        while let Some((first, rest)) = behind.split_first_mut() {
            first.stats.at(at);
            let ((), made) = first.step(0, |operator, made| operator.watermark(at, made))?;
            at = made.watermark.unwrap_or(at);
            hand_on(rest, made, out)?;
            behind = rest;
        }
        Ok(at)
    }

    /// Whether an operator has results that it tells only when it is asked. None stands before a join.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.operators.iter().any(|station| station.operator.has_changes())
    }

    /// Asks for what has changed. Answers whether there is more than one commit should hold.
    pub fn flush(&mut self, out: &mut Output) -> Result<bool, StreamError> {
        let mut has_more = false;
        let mut behind = self.operators.as_mut_slice();
        while let Some((first, rest)) = behind.split_first_mut() {
            let (more, made) = first.step(0, |operator, made| operator.flush(made))?;
            has_more |= more;
            hand_on(rest, made, out)?;
            behind = rest;
        }
        Ok(has_more)
    }

    /// A step from outside: every operator is offered it.
    pub fn external(&mut self, body: &str, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        if let Some(fork) = &mut self.fork {
            let mut made = Output::default();
            for side in Side::BOTH {
                let mut own = Output::default();
                fork.sides[side as usize].external(body, at, &mut own)?;
                fork.meet(side, own, &mut made)?;
            }
            hand_on(&mut self.operators, made, out)?;
        }
        let mut behind = self.operators.as_mut_slice();
        while let Some((first, rest)) = behind.split_first_mut() {
            let ((), made) = first.step(0, |operator, made| operator.external(body, at, made))?;
            hand_on(rest, made, out)?;
            behind = rest;
        }
        Ok(())
    }

    /// The least watermark that lets out everything whose end `now` has passed, over all operators.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let own = |now: Timestamp| self.operators.iter().filter_map(|station| station.operator.due(now)).max();
        let Some(fork) = &self.fork else { return own(now) };
        // Behind a join time is held back: what is due there needs so much more of it, and still no more than `now`.
        let hold = fork.join.hold_ms();
        let behind = own(now.plus(-hold)).map(|at| at.plus(hold));
        let sides = fork.sides.iter().filter_map(|side| side.due(now));
        sides.chain(fork.join.due(now)).chain(behind).max()
    }

    /// Writes the state of every operator, its place in the chain before each name.
    pub fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        let mut put = |place: &str, own: StateWriter| {
            state.parts.extend(own.parts.into_iter().map(|(name, batch)| (format!("{place}/{name}"), batch)));
        };
        if let Some(fork) = &mut self.fork {
            for side in Side::BOTH {
                let mut own = StateWriter::default();
                fork.sides[side as usize].save(&mut own)?;
                put(side.word(), own);
            }
            let mut own = StateWriter::default();
            fork.join.save(&mut own)?;
            put(JOIN, own);
        }
        for (place, station) in self.operators.iter_mut().enumerate() {
            let mut own = StateWriter::default();
            station.operator.save(&mut own)?;
            put(&if station.operator.outlives_plan() { KEPT.to_owned() } else { place.to_string() }, own);
        }
        Ok(())
    }

    /// Gives every operator back what it wrote.
    pub fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let mut own: Vec<StateReader> = self.operators.iter().map(|_| StateReader::default()).collect();
        let (mut sides, mut join) = ([StateReader::default(), StateReader::default()], StateReader::default());
        let forked = self.fork.is_some();
        let kept = self.operators.iter().position(|station| station.operator.outlives_plan());
        for (name, batch) in &state.parts {
            let reader = name.split_once('/').and_then(|(place, rest)| {
                let side = Side::BOTH.into_iter().find(|side| side.word() == place);
                let reader = match side {
                    Some(side) if forked => Some(&mut sides[side as usize]),
                    None if forked && place == JOIN => Some(&mut join),
                    None if place == KEPT => kept.map(|at| &mut own[at]),
                    _ => own.get_mut(place.parse::<usize>().ok()?),
                };
                Some((reader?, rest))
            });
            let Some((reader, rest)) = reader else {
                let why = format!("part {name} belongs to no operator");
                return Err(StreamError::Restore { operator: "the query".to_owned(), why });
            };
            reader.parts.push((rest.to_owned(), batch.clone()));
        }
        if let Some(fork) = &mut self.fork {
            for (side, state) in fork.sides.iter_mut().zip(&sides) {
                side.restore(state)?;
            }
            fork.join.restore(&join)?;
            check_taken(fork.join.name(), &join)?;
        }
        for (station, state) in self.operators.iter_mut().zip(&own) {
            station.operator.restore(state)?;
            check_taken(station.operator.name(), state)?;
        }
        Ok(())
    }

    /// Gives the operator whose state outlives a plan what it wrote under another one.
    pub fn restore_kept(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let Some(station) = self.operators.iter_mut().find(|station| station.operator.outlives_plan()) else { return Ok(()) };
        let own = state.parts.iter().filter_map(|(name, batch)| match name.split_once('/') {
            Some((KEPT, rest)) => Some((rest.to_owned(), batch.clone())),
            _ => None,
        });
        station.operator.restore(&StateReader::of(own.collect()))
    }

    /// While the state is made again from rows that have been read before, what outlives a plan does not see them.
    pub fn hold_kept(&mut self, is_held: bool) {
        self.operators.iter_mut().for_each(|station| station.operator.hold(is_held));
    }

    /// How much older than the watermark the rows are, in milliseconds, that the state is made of; `None` where it may be
    /// made of all there were.
    #[must_use]
    pub fn reach_ms(&self) -> Option<i64> {
        let sides = match &self.fork {
            None => 0,
            Some(fork) => {
                let sides = fork.sides.iter().map(Self::reach_ms).collect::<Option<Vec<i64>>>()?;
                sides.into_iter().max().unwrap_or(0) + fork.join.reach_ms()?
            }
        };
        self.operators.iter().try_fold(sides, |sum, station| Some(sum + station.operator.reach_ms()?))
    }

    /// What its sources and operators are, each before what stands behind it: the order of EXPLAIN and of all figures.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let mut names = match &self.fork {
            None => vec!["source"],
            Some(fork) => fork.sides.iter().flat_map(Self::names).chain([fork.join.name()]).collect(),
        };
        names.extend(self.operators.iter().map(|station| station.operator.name()));
        names
    }

    /// Counts into these from now on; one each, in the order of [`Chain::names`].
    fn count_into(&mut self, stats: &mut impl Iterator<Item = Arc<OperatorStats>>) {
        match &mut self.fork {
            None => self.source = stats.next().expect("there are counters for every operator"),
            Some(fork) => {
                for side in &mut fork.sides {
                    side.count_into(&mut *stats);
                }
                fork.stats = stats.next().expect("there are counters for every operator");
            }
        }
        for station in &mut self.operators {
            station.stats = stats.next().expect("there are counters for every operator");
        }
    }

    /// The same with the counters that `stats` keeps under the operators' places and kinds, and, where it has one, one more for
    /// what stands behind them all.
    pub(super) fn count_in(&mut self, stats: &TaskStats, sink: Option<&'static str>) -> Option<Arc<OperatorStats>> {
        let names = self.names().into_iter().chain(sink).enumerate().map(|(at, name)| format!("{}-{name}", self.first + at));
        let mut counters = stats.name_operators(names.collect()).into_iter();
        self.count_into(&mut counters);
        counters.next()
    }

    /// Counts into `stats` from now on: for whoever runs a chain without a task.
    pub fn counted(&mut self, stats: &TaskStats) {
        self.count_in(stats, None);
    }

    /// Notes that so many rows were read from a source, `aside` of which went another way, and how long that took.
    pub fn note_read(&self, source: usize, rows: usize, aside: usize, took: Duration) {
        let stats = self.source_stats(source);
        stats.count((rows + aside) as u64, rows as u64, aside as u64, 0);
        stats.worked(took);
    }

    /// The counters of a source.
    pub(super) fn source_stats(&self, source: usize) -> &OperatorStats {
        match &self.fork {
            None => &self.source,
            Some(fork) => {
                let (side, source) = fork.side_of(source);
                fork.sides[side as usize].source_stats(source)
            }
        }
    }

    /// About how many bytes of state all operators hold, which their counters know from then on; and the place of the one that
    /// holds most, in the order of [`Chain::names`].
    pub(super) fn weigh(&self) -> Weight {
        let mut weight = Weight::default();
        self.weigh_into(&mut weight);
        weight
    }

    fn weigh_into(&self, weight: &mut Weight) {
        match &self.fork {
            None => weight.put(0, 0),
            Some(fork) => {
                fork.sides.iter().for_each(|side| side.weigh_into(weight));
                let (bytes, spilled) = (fork.join.state_bytes(), fork.join.spilled_bytes());
                fork.stats.holds(bytes, spilled);
                weight.put(bytes, spilled);
            }
        }
        for station in &self.operators {
            let (bytes, spilled) = (station.operator.state_bytes(), station.operator.spilled_bytes());
            station.stats.holds(bytes, spilled);
            weight.put(bytes, spilled);
        }
    }

    /// About how many bytes of state all operators hold.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.weigh().bytes
    }

    /// Asks the operators, those that hold most first, to put state on the disk until `want` bytes of memory are free. Answers
    /// about how many are.
    pub(super) fn spill(&mut self, want: usize, space: &SpillSpace) -> Result<usize, StreamError> {
        let mut all: Vec<(usize, Spills<'_>)> = Vec::new();
        self.spills(&mut all);
        all.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let mut freed = 0;
        for (_, one) in all.into_iter().filter(|(bytes, _)| *bytes > 0) {
            if freed >= want {
                break;
            }
            let begun = Instant::now();
            let (stats, own) = match one {
                Spills::Operator(station) => (station.stats.as_ref(), station.operator.spill(want - freed, space)?),
                Spills::Join(join, stats) => (stats, join.spill(want - freed, space)?),
            };
            stats.worked(begun.elapsed());
            freed += own;
        }
        Ok(freed)
    }

    fn spills<'a>(&'a mut self, all: &mut Vec<(usize, Spills<'a>)>) {
        if let Some(fork) = &mut self.fork {
            let Fork { sides, join, stats } = fork.as_mut();
            sides.iter_mut().for_each(|side| side.spills(all));
            all.push((join.state_bytes(), Spills::Join(join.as_mut(), stats)));
        }
        all.extend(self.operators.iter_mut().map(|station| (station.operator.state_bytes(), Spills::Operator(station))));
    }
}

/// Who may put state on the disk.
enum Spills<'a> {
    Operator(&'a mut Station),
    Join(&'a mut dyn Join, &'a OperatorStats),
}

/// What a chain holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// All of it that is in memory ..
    pub bytes: usize,
    /// .. and all that lies on the disk.
    pub spilled: u64,
    /// What the operator holds that holds most ..
    pub most: usize,
    /// .. and its place in the order of [`Chain::names`].
    pub place: usize,
    seen: usize,
}

impl Weight {
    fn put(&mut self, bytes: usize, spilled: u64) {
        self.bytes += bytes;
        self.spilled += spilled;
        if bytes > self.most {
            (self.most, self.place) = (bytes, self.seen);
        }
        self.seen += 1;
    }
}

/// The place of a join's state, beside those of its sides and of the operators behind it.
const JOIN: &str = "join";
/// The place of a state that outlives the plan, wherever its operator stands.
const KEPT: &str = "kept";

impl Fork {
    /// Which side a source lies on, and its number there.
    fn side_of(&self, source: usize) -> (Side, usize) {
        let left = self.sides[0].sources();
        if source < left { (Side::Left, source) } else { (Side::Right, source - left) }
    }

    fn rows_of(&mut self, source: usize, rows: &Rows) -> Result<Output, StreamError> {
        let (side, source) = self.side_of(source);
        let (mut own, mut made) = (Output::default(), Output::default());
        self.sides[side as usize].rows_of(source, rows, &mut own)?;
        self.meet(side, own, &mut made)?;
        Ok(made)
    }

    fn deletion_of(&mut self, source: usize, deletion: &Deletion) -> Result<(), StreamError> {
        let (side, source) = self.side_of(source);
        match &self.sides[side as usize].fork {
            Some(_) => self.sides[side as usize].deletion_of(source, deletion),
            None => {
                let join = &mut self.join;
                self.stats.step(0, &mut Output::default(), |_| join.deletion(side, deletion))
            }
        }
    }

    /// What a side has made reaches the join. Rows that go another way say of which source they are.
    fn meet(&mut self, side: Side, own: Output, made: &mut Output) -> Result<(), StreamError> {
        let left = if side == Side::Right { self.sides[0].sources() } else { 0 };
        let (aside, failed) = (made.aside.len(), made.failed.len());
        made.aside.extend(own.aside);
        made.failed.extend(own.failed);
        for rows in own.rows.iter().filter(|rows| !rows.is_empty()) {
            let join = &mut self.join;
            self.stats.step(rows.len(), made, |made| join.rows(side, rows, made))?;
        }
        made.aside[aside..].iter_mut().for_each(|row| row.partition = behind(row.partition, left));
        made.failed[failed..].iter_mut().for_each(|row| row.partition = behind(row.partition, left));
        Ok(())
    }

    fn watermark(&mut self, at: Timestamp, made: &mut Output) -> Result<Timestamp, StreamError> {
        let mut least = Timestamp::MAX;
        for side in Side::BOTH {
            let mut own = Output::default();
            least = least.min(self.sides[side as usize].pass(at, &mut own)?);
            self.meet(side, own, made)?;
        }
        self.stats.at(least);
        let join = &mut self.join;
        self.stats.step(0, made, |made| join.watermark(least, made))?;
        Ok(made.watermark.take().unwrap_or(least))
    }
}

fn feed(operators: &mut [Station], rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
    let Some((first, rest)) = operators.split_first_mut() else {
        out.rows.push(rows.clone());
        return Ok(());
    };
    let ((), made) = first.step(rows.len(), |operator, made| operator.rows(rows, made))?;
    hand_on(rest, made, out)
}

fn hand_on(rest: &mut [Station], made: Output, out: &mut Output) -> Result<(), StreamError> {
    out.aside.extend(made.aside);
    out.failed.extend(made.failed);
    for rows in made.rows.iter().filter(|rows| !rows.is_empty()) {
        feed(rest, rows, out)?;
    }
    Ok(())
}

/// A part of a state that an operator does not ask for is one that it does not know: another version of the program has written it.
fn check_taken(operator: &str, state: &StateReader) -> Result<(), StreamError> {
    let Some(part) = state.unasked() else { return Ok(()) };
    let why = format!(
        "part \"{part}\" of its state is not known to this version of vitalsql: go on with the version that wrote it, or a later one"
    );
    Err(StreamError::Restore { operator: operator.to_owned(), why })
}

#[cfg(test)]
mod tests;
