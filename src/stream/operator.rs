//! The contract of every streaming operator, and the two seams through which `sql` lends them DataFusion.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;

use super::element::{Output, Rows};
use super::spill::{Parked, SpillSpace};
use super::window::Statistic;
use crate::record::{Offset, PartitionId, TopicPartition};
use crate::time::Timestamp;

/// What can go wrong inside a query. Anything that concerns a single row is not an error but a
/// [`super::FailedRow`].
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// An expression or aggregate failed for a whole batch and could not be pinned to rows.
    #[error("could not evaluate {what}: {why}")]
    Evaluate {
        /// The expression, as the user would know it.
        what: String,
        /// What the library said.
        why: String,
    },
    /// A checkpoint does not fit the query.
    #[error("could not restore the state of {operator}: {why}")]
    Restore {
        /// Which operator.
        operator: String,
        /// What did not fit.
        why: String,
    },
    /// A record is no row of its stream, and the stream says that nothing may go past it.
    #[error(
        "record {offset} of {partition} is no row of its stream ({why}), and the stream is declared with 'bad-records' = 'fail'; \
         replace the stream with 'bad-records' = 'dlq' or 'skip' to go past it"
    )]
    BadRecord {
        /// Where it lies.
        partition: TopicPartition,
        /// Its offset.
        offset: Offset,
        /// Why it is no row; never its content.
        why: String,
    },
    /// The log refused.
    #[error(transparent)]
    Bus(#[from] crate::bus::BusError),
    /// The schema registry does not say what a record, or a sink, needs.
    #[error(transparent)]
    Registry(#[from] crate::registry::RegistryError),
    /// The query holds more than it may.
    #[error("{0}")]
    Full(super::budget::Full),
    /// State that was put on the disk is not there any more as it was.
    #[error("state that was put on the disk could not be read back: {0}. Nothing is lost: the query goes on from its last commit")]
    Spill(String),
    /// A limit that keeps the node alive was reached.
    #[error("{0}")]
    Limit(String),
}

/// One step of a query over one task's input. No clock, no async, and no IO but in the room on the disk that the task lends
/// ([`Operator::spill`]): a function of the rows, their order within each partition, and the watermarks.
pub trait Operator: Send {
    /// What kind it is, in one word for figures and metrics: never anything that a statement or a row says.
    fn name(&self) -> &'static str {
        "operator"
    }
    /// The columns it hands on.
    fn schema(&self) -> SchemaRef;
    /// Takes rows of one partition, in offset order.
    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError>;
    /// Time has come this far: for a task over one partition, that partition's watermark; for a task that
    /// merges several, the minimum over the active ones. Never goes back. Called after the rows that
    /// brought it about.
    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError>;
    /// The least watermark that would make this operator emit something it holds and whose end `now` has
    /// passed: what `TIMEOUT` moves to. `None` where nothing is due.
    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let _ = now;
        None
    }
    /// Whether it has results that it tells only when it is asked.
    fn has_changes(&self) -> bool {
        false
    }
    /// Asked once a commit, or as often as the query says: tells what has changed since it was last asked. Answers whether
    /// there is more than one commit should hold.
    fn flush(&mut self, out: &mut Output) -> Result<bool, StreamError> {
        let _ = out;
        Ok(false)
    }
    /// Something from outside that steps the operator (a person acknowledges an alert), at the clock's time
    /// `at`. It is part of the commit it fell into and comes again on a replay. Every operator of a chain is
    /// offered it; most have nothing to do.
    fn external(&mut self, body: &str, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        let _ = (body, at, out);
        Ok(())
    }
    /// Writes the whole state as Arrow batches, each under a name of this operator's choosing.
    /// Not destructive: the operator goes on as if nothing had happened.
    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        let _ = state;
        Ok(())
    }
    /// Takes back what [`Operator::save`] wrote. Called once, before any row.
    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let _ = state;
        Ok(())
    }
    /// How much older than the watermark the rows are, in milliseconds, that its state is made of; `None` where it may be made of
    /// all there were.
    fn reach_ms(&self) -> Option<i64> {
        None
    }
    /// Whether its state is no function of the plan before it, so that another plan goes on with it.
    fn outlives_plan(&self) -> bool {
        false
    }
    /// From now on, or no longer, the rows and watermarks are ones that it has seen before: an operator that outlives a plan
    /// leaves them out.
    fn hold(&mut self, is_held: bool) {
        let _ = is_held;
    }
    /// About how many bytes of state it holds in memory.
    fn state_bytes(&self) -> usize {
        0
    }
    /// Puts state on the disk that no row has come for since it was last asked, what is needed last first, until `want` bytes of
    /// memory are free or there is no more of it, or no room. Answers about how many are free. From then on it loads what it needs;
    /// what comes out is what would have come out.
    fn spill(&mut self, want: usize, space: &SpillSpace) -> Result<usize, StreamError> {
        let _ = (want, space);
        Ok(0)
    }
    /// How many bytes of its state lie on the disk.
    fn spilled_bytes(&self) -> u64 {
        0
    }
}

/// A part of a state: in memory, or on the disk where its operator had put it.
#[derive(Clone, Debug)]
pub enum StatePart {
    /// In memory.
    Batch(RecordBatch),
    /// On the disk.
    Parked(Arc<Parked>),
}

/// What stands before the name of a part that may lie on the disk.
pub(super) const PARKED: &str = "parked:";

/// Named Arrow batches of one operator's state, on the way out.
#[derive(Debug, Default)]
pub struct StateWriter {
    /// What was written, in order.
    pub parts: Vec<(String, StatePart)>,
}

impl StateWriter {
    /// Adds one batch under a name; a name may be used again.
    pub fn put(&mut self, name: &str, batch: RecordBatch) {
        self.parts.push((name.to_owned(), StatePart::Batch(batch)));
    }

    /// Adds one that lies on the disk and is only brought to where the state is written: [`StateReader::parked`] gives it back.
    pub fn put_parked(&mut self, name: &str, parked: Arc<Parked>) {
        self.parts.push((format!("{PARKED}{name}"), StatePart::Parked(parked)));
    }
}

/// Named Arrow batches of one operator's state, on the way back. It notes what it is asked for: what nobody asks for, nobody took back.
#[derive(Debug, Default)]
pub struct StateReader {
    /// What was written, in order.
    pub parts: Vec<(String, StatePart)>,
    asked: Mutex<HashSet<String>>,
}

impl StateReader {
    /// What was written, on the way back.
    #[must_use]
    pub fn of(parts: Vec<(String, StatePart)>) -> Self {
        Self { parts, ..Self::default() }
    }

    /// The batches under a name, in the order they were put.
    pub fn get<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a RecordBatch> {
        self.asked.lock().insert(name.to_owned());
        self.parts.iter().filter_map(move |(n, part)| match part {
            StatePart::Batch(batch) if n == name => Some(batch),
            _ => None,
        })
    }

    /// What was put under a name by [`StateWriter::put_parked`], in order: on the disk again, or in memory where there is no room.
    pub fn parked<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a StatePart> {
        self.asked.lock().insert(format!("{PARKED}{name}"));
        self.parts.iter().filter(move |(n, _)| n.strip_prefix(PARKED) == Some(name)).map(|(_, part)| part)
    }

    /// What was put under any of these names, in the order it was put.
    pub fn among<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a StatePart)> {
        self.asked.lock().extend(names.iter().map(|name| (*name).to_owned()));
        self.parts.iter().map(|(name, part)| (name.as_str(), part)).filter(|(name, _)| names.contains(name))
    }

    /// A part that nobody has asked for.
    pub(super) fn unasked(&self) -> Option<&str> {
        let asked = self.asked.lock();
        self.parts.iter().map(|(name, _)| name.as_str()).find(|name| !asked.contains(*name))
    }
}

/// An expression over rows: columns in, one column out. `sql` implements it over DataFusion's
/// PhysicalExpr.
pub trait Expr: Send + Sync + std::fmt::Debug {
    /// Evaluates for every row. An error may concern a single row: the caller then goes row by row.
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, StreamError>;
    /// The expression as the user wrote it, or near.
    fn text(&self) -> String;
}

/// Makes fresh accumulators for one aggregate of a query.
pub trait FoldFactory: Send + Sync + std::fmt::Debug {
    /// A fresh accumulator for any number of groups.
    fn fold(&self) -> Result<Box<dyn Fold>, StreamError>;
    /// The argument columns of the aggregate.
    fn arguments(&self) -> &[Arc<dyn Expr>];
    /// Its FILTER clause.
    fn filter(&self) -> Option<&Arc<dyn Expr>>;
    /// The column it yields.
    fn field(&self) -> arrow::datatypes::FieldRef;
    /// The columns of its intermediate state.
    fn state_fields(&self) -> Vec<arrow::datatypes::FieldRef>;
    /// Whether it is one of the statistics of its argument, a column of doubles, so that it can be computed together with others.
    fn statistic(&self) -> Option<Statistic> {
        None
    }
    /// Whether its state stays small however many rows it is made of, so that it can be handed from task to task.
    fn travels(&self) -> bool {
        false
    }
}

/// An aggregate over many groups at once, the groups numbered densely from 0. `sql` implements it over
/// DataFusion's GroupsAccumulator.
pub trait Fold: Send {
    /// Takes rows: their argument columns, each row's group, and which rows count.
    fn update(
        &mut self,
        arguments: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<(), StreamError>;
    /// Takes intermediate states, as [`Fold::take_state`] gave them.
    fn merge(&mut self, state: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<(), StreamError>;
    /// The value of every group, in group order; the accumulator is empty afterwards.
    fn take_values(&mut self) -> Result<ArrayRef, StreamError>;
    /// The intermediate state of every group, in group order; the accumulator is empty afterwards.
    fn take_state(&mut self) -> Result<Vec<ArrayRef>, StreamError>;
    /// About how many bytes it holds.
    fn size(&self) -> usize;
}

/// Numbers group keys densely from 0 in order of first sight. `sql` implements it over DataFusion's GroupValues.
pub trait Keys: Send {
    /// The group of each row; unseen keys get the next numbers.
    fn intern(&mut self, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<(), StreamError>;
    /// How many groups there are.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The key columns of every group, in group order; empty afterwards.
    fn take(&mut self) -> Result<Vec<ArrayRef>, StreamError>;
    /// About how many bytes it holds.
    fn size(&self) -> usize;
}

/// Makes fresh [`Keys`] for a schema of key columns.
pub trait KeysFactory: Send + Sync + std::fmt::Debug {
    /// Fresh and empty.
    fn keys(&self) -> Result<Box<dyn Keys>, StreamError>;
}

/// How a task sees partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One task a partition: each window closes on that partition's watermark.
    Partition(PartitionId),
    /// One task over all partitions: results merge in order of partition and close on the minimum.
    Merged,
}
