//! The operators of one task, one behind the other; before them, where rows of two sources meet, a join.
//!
//! Always: an operator sees the rows that its predecessor made of a watermark before it sees that
//! watermark, and it sees the watermark its predecessor lets it rely on. A join sees the lesser of its two
//! sides' watermarks. Sources are numbered as a query reads them, from left to right. Owned by the task.

use arrow::datatypes::SchemaRef;

use super::element::{Deletion, Output, Rows};
use super::inputs::behind;
use super::join::{Join, Side};
use super::operator::{Operator, StateReader, StateWriter, StreamError};
use super::source::Piece;
use crate::time::Timestamp;

/// A run of operators that acts as one. Without any it hands rows on as they are.
#[derive(Default)]
pub struct Chain {
    fork: Option<Box<Fork>>,
    operators: Vec<Box<dyn Operator>>,
}

/// Two chains and what brings them together.
struct Fork {
    sides: [Chain; 2],
    join: Box<dyn Join>,
}

impl Chain {
    /// The operators in the order the rows meet them.
    #[must_use]
    pub const fn new(operators: Vec<Box<dyn Operator>>) -> Self {
        Self { fork: None, operators }
    }

    /// A join of two chains, and the operators behind it.
    #[must_use]
    pub fn joined(left: Self, right: Self, join: Box<dyn Join>, operators: Vec<Box<dyn Operator>>) -> Self {
        Self { fork: Some(Box::new(Fork { sides: [left, right], join })), operators }
    }

    /// Puts an operator behind all others.
    pub fn push(&mut self, operator: Box<dyn Operator>) {
        self.operators.push(operator);
    }

    /// How many sources its rows come from.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.fork.as_ref().map_or(1, |fork| fork.sides.iter().map(Self::sources).sum())
    }

    /// The columns the last operator hands on; `None` where there is none.
    #[must_use]
    pub fn schema(&self) -> Option<SchemaRef> {
        self.operators.last().map(|last| last.schema()).or_else(|| self.fork.as_ref().map(|fork| fork.join.schema()))
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
            let mut made = Output::default();
            first.watermark(at, &mut made)?;
            at = made.watermark.unwrap_or(at);
            hand_on(rest, made, out)?;
            behind = rest;
        }
        Ok(at)
    }

    /// Whether an operator has results that it tells only when it is asked. None stands before a join.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.operators.iter().any(|operator| operator.has_changes())
    }

    /// Asks for what has changed. Answers whether there is more than one commit should hold.
    pub fn flush(&mut self, out: &mut Output) -> Result<bool, StreamError> {
        let mut has_more = false;
        let mut behind = self.operators.as_mut_slice();
        while let Some((first, rest)) = behind.split_first_mut() {
            let mut made = Output::default();
            has_more |= first.flush(&mut made)?;
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
            let mut made = Output::default();
            first.external(body, at, &mut made)?;
            hand_on(rest, made, out)?;
            behind = rest;
        }
        Ok(())
    }

    /// The least watermark that lets out everything whose end `now` has passed, over all operators.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let own = |now: Timestamp| self.operators.iter().filter_map(|operator| operator.due(now)).max();
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
        for (place, operator) in self.operators.iter_mut().enumerate() {
            let mut own = StateWriter::default();
            operator.save(&mut own)?;
            put(&if operator.outlives_plan() { KEPT.to_owned() } else { place.to_string() }, own);
        }
        Ok(())
    }

    /// Gives every operator back what it wrote.
    pub fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let mut own: Vec<StateReader> = self.operators.iter().map(|_| StateReader::default()).collect();
        let (mut sides, mut join) = ([StateReader::default(), StateReader::default()], StateReader::default());
        let forked = self.fork.is_some();
        let kept = self.operators.iter().position(|operator| operator.outlives_plan());
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
        }
        for (operator, state) in self.operators.iter_mut().zip(&own) {
            operator.restore(state)?;
        }
        Ok(())
    }

    /// Gives the operator whose state outlives a plan what it wrote under another one.
    pub fn restore_kept(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let Some(operator) = self.operators.iter_mut().find(|operator| operator.outlives_plan()) else { return Ok(()) };
        let own = state.parts.iter().filter_map(|(name, batch)| match name.split_once('/') {
            Some((KEPT, rest)) => Some((rest.to_owned(), batch.clone())),
            _ => None,
        });
        operator.restore(&StateReader { parts: own.collect() })
    }

    /// While the state is made again from rows that have been read before, what outlives a plan does not see them.
    pub fn hold_kept(&mut self, is_held: bool) {
        self.operators.iter_mut().for_each(|operator| operator.hold(is_held));
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
        self.operators.iter().try_fold(sides, |sum, operator| Some(sum + operator.reach_ms()?))
    }

    /// About how many bytes of state all operators hold.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        let fork = self.fork.as_ref().map_or(0, |f| f.sides.iter().map(Self::state_bytes).sum::<usize>() + f.join.state_bytes());
        fork + self.operators.iter().map(|operator| operator.state_bytes()).sum::<usize>()
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
            None => self.join.deletion(side, deletion),
        }
    }

    /// What a side has made reaches the join. Rows that go another way say of which source they are.
    fn meet(&mut self, side: Side, own: Output, made: &mut Output) -> Result<(), StreamError> {
        let left = if side == Side::Right { self.sides[0].sources() } else { 0 };
        let (aside, failed) = (made.aside.len(), made.failed.len());
        made.aside.extend(own.aside);
        made.failed.extend(own.failed);
        for rows in own.rows.iter().filter(|rows| !rows.is_empty()) {
            self.join.rows(side, rows, made)?;
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
        self.join.watermark(least, made)?;
        Ok(made.watermark.take().unwrap_or(least))
    }
}

fn feed(operators: &mut [Box<dyn Operator>], rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
    let Some((first, rest)) = operators.split_first_mut() else {
        out.rows.push(rows.clone());
        return Ok(());
    };
    let mut made = Output::default();
    first.rows(rows, &mut made)?;
    hand_on(rest, made, out)
}

fn hand_on(rest: &mut [Box<dyn Operator>], made: Output, out: &mut Output) -> Result<(), StreamError> {
    out.aside.extend(made.aside);
    out.failed.extend(made.failed);
    for rows in made.rows.iter().filter(|rows| !rows.is_empty()) {
        feed(rest, rows, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::record::PartitionId;
    use crate::stream::doubles::{Below, Column, Kind, Numbering, Partition, aggregate, check_always, reading_schema, readings, time_type};
    use crate::stream::{
        Absent, AbsentColumn, AbsentSpec, Expr, FilterProject, Keyed, KeyedFunction, KeyedSpec, Scope, WindowAggregate,
        WindowAggregateSpec, WindowColumn, WindowRule,
    };

    /// Readings of at least nothing, each beside the one before it, summed up by windows, and the keys that
    /// have had no window for long.
    fn whole(scope: Scope) -> Chain {
        let key = || Arc::new(Column(0)) as Arc<dyn Expr>;
        let filter = FilterProject::new(Some(Arc::new(Below(2, 9.0))), None, reading_schema());
        let mut fields: Vec<Field> = reading_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.push(Field::new("before", DataType::Float64, true));
        let lag = KeyedFunction::Lag { value: Arc::new(Column(2)), n: 1, default: None };
        let keyed = Keyed::new(KeyedSpec { keys: vec![key()], functions: vec![lag], schema: Arc::new(Schema::new(fields)) });
        let windows = WindowAggregate::new(WindowAggregateSpec {
            rule: WindowRule::hop(4, 10, 1).unwrap(),
            scope,
            keys: vec![key()],
            keys_factory: Some(Arc::new(Numbering(vec![DataType::Utf8]))),
            folds: vec![aggregate(Kind::Words, Arc::new(Column(3)), None)],
            columns: vec![WindowColumn::Key(0), WindowColumn::WindowTime, WindowColumn::Agg(0)],
            schema: Arc::new(Schema::new(vec![
                Field::new("key", DataType::Utf8, true),
                Field::new("at", time_type(), false),
                Field::new("words", DataType::Utf8, true),
            ])),
        });
        let absent = Absent::new(AbsentSpec {
            scope,
            keys: vec![key()],
            interval_ms: 6,
            returns: true,
            columns: vec![AbsentColumn::Key(0), AbsentColumn::At, AbsentColumn::Absent],
            schema: Arc::new(Schema::new(vec![
                Field::new("key", DataType::Utf8, true),
                Field::new("at", time_type(), false),
                Field::new("absent", DataType::Boolean, false),
            ])),
        });
        Chain::new(vec![Box::new(filter), Box::new(keyed.unwrap()), Box::new(windows.unwrap()), Box::new(absent.unwrap())])
    }

    #[test]
    fn a_whole_chain_gives_the_same_for_any_cut_interleaving_and_restart() {
        for seed in 0..3 {
            let partition = |p: i32| Partition::new(p, 8, &readings(seed * 10 + p as u64, 80, 6, 12));
            let one = check_always(&|| whole(Scope::Partition(PartitionId(0))), &[partition(0)], false);
            assert!(one.rows.iter().any(|row| row.ends_with("false")), "some key has come back: {:?}", one.rows);
            let merged = check_always(&|| whole(Scope::Merged), &[partition(0), partition(1)], true);
            // Only what the source brought late is late: what operators make is late for none behind them.
            assert!(merged.others.iter().all(|line| !line.contains("@-1")));
        }
    }

    struct HoldsBack;

    impl Operator for HoldsBack {
        fn schema(&self) -> SchemaRef {
            reading_schema()
        }
        fn rows(&mut self, _: &Rows, _: &mut Output) -> Result<(), StreamError> {
            Ok(())
        }
        fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
            out.watermark = Some(at.plus(-5));
            Ok(())
        }
        fn due(&self, now: Timestamp) -> Option<Timestamp> {
            Some(now.plus(-1))
        }
    }

    struct Notes(Arc<std::sync::Mutex<Vec<i64>>>, &'static str);

    impl Operator for Notes {
        fn schema(&self) -> SchemaRef {
            reading_schema()
        }
        fn rows(&mut self, _: &Rows, _: &mut Output) -> Result<(), StreamError> {
            Ok(())
        }
        fn watermark(&mut self, at: Timestamp, _: &mut Output) -> Result<(), StreamError> {
            self.0.lock().unwrap().push(at.0);
            Ok(())
        }
        fn external(&mut self, body: &str, at: Timestamp, _: &mut Output) -> Result<(), StreamError> {
            assert_eq!(body, self.1);
            self.0.lock().unwrap().push(at.0);
            Ok(())
        }
    }

    #[test]
    fn a_watermark_held_back_is_what_the_next_operators_see() {
        let (first, second) = (Arc::default(), Arc::default());
        let mut chain =
            Chain::new(vec![Box::new(Notes(Arc::clone(&first), "")), Box::new(HoldsBack), Box::new(Notes(Arc::clone(&second), ""))]);
        chain.watermark(Timestamp(20), &mut Output::default()).unwrap();
        assert_eq!((first.lock().unwrap().clone(), second.lock().unwrap().clone()), (vec![20], vec![15]));
        assert_eq!(chain.due(Timestamp(9)), Some(Timestamp(8)));
    }

    #[test]
    fn a_step_from_outside_reaches_every_operator() {
        let notes = Arc::default();
        let mut chain =
            Chain::new(vec![Box::new(Notes(Arc::clone(&notes), "ack")), Box::new(HoldsBack), Box::new(Notes(Arc::clone(&notes), "ack"))]);
        chain.external("ack", Timestamp(3), &mut Output::default()).unwrap();
        assert_eq!(*notes.lock().unwrap(), [3, 3]);
    }
}
