//! From a query to the steps that answer it continuously.
//!
//! Owns [`plan`] and [`QueryPlan`]. DataFusion parses, types and optimizes; `walk` turns what it hands back into
//! steps, and every clause that has no operator is refused by name. Always: a plan that is made can be run: its
//! expressions are typed and each of its accumulators has been made once. Called by the engine for CREATE QUERY,
//! CREATE ALERT and EMIT CHANGES, and by `batch` for windows over stored data.

mod asof;
mod check;
mod flow;
pub(super) mod frames;
pub(super) mod join;
mod lineage;
pub(super) mod over;
mod pattern;
mod phases;
mod source;
mod step;
#[cfg(test)]
mod tests;
mod time;
mod union;
mod update;
mod walk;

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use sha2::{Digest, Sha256};

pub use phases::Phases;
pub use source::{RECORD_KEY, RECORD_TIME, Shape, Source, SourceColumn, Sources};
pub use time::ResultTime;

use self::flow::Flow;
use self::step::Step;
use self::time::{Known, result_time};
pub(super) use self::update::How;
use self::walk::{Chain, Walk};
use super::dialect::refuse;
use super::error::{Code, SqlError};
use super::expr::{cast_column, null_column};
use super::session::Session;
use super::statement::{Emit, Name, Select};
use super::types::sql_type;
use crate::stream::{Chain as OperatorChain, Scope, TimeRule};

/// What a plan is for: some clauses are right in one place and wrong in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A query or alert whose results are written once and must be the same after a restart.
    ExactlyOnce,
    /// Rows shown to someone who watches.
    Watch,
}

/// Whether a partition can be worked alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// One task a partition.
    Partition,
    /// One task over all partitions.
    Merged,
}

/// One stream or table that a query reads.
#[derive(Clone, Debug)]
pub struct PlanInput {
    /// Its name.
    pub stream: String,
    /// How it tells time.
    pub time: TimeRule,
    /// The columns of it that are read.
    pub reads: Vec<String>,
    /// Whether every task reads all of its partitions, however the others are divided.
    pub is_whole: bool,
}

/// A query, ready to run.
#[derive(Clone, Debug)]
pub struct QueryPlan {
    /// What it reads: one stream, or those of a join from left to right.
    pub inputs: Vec<PlanInput>,
    /// Whether each partition is a task of its own.
    pub placement: Placement,
    /// The columns of its results.
    pub schema: SchemaRef,
    /// Which of them are the key of the results: the group or PARTITION BY columns, else the stream's key. Empty
    /// where the query does not select them.
    pub key_columns: Vec<String>,
    /// Which group of the last windowed aggregate each column is, where it is one and counts in every set of them.
    groups: Vec<Option<usize>>,
    /// The event time that a new stream of its results has.
    pub event_time: Option<ResultTime>,
    /// After how long of silence the clock moves a partition on.
    pub timeout: Option<Duration>,
    /// How often results that change are told; with every commit where nothing is said.
    pub every: Option<Duration>,
    /// Whether anything in it keeps state, and so waits for time to pass.
    pub waits: bool,
    flow: Arc<Flow>,
}

impl QueryPlan {
    /// Fresh operators for one task.
    pub fn chain(&self, scope: Scope) -> Result<OperatorChain, SqlError> {
        self.flow.chain(scope).map_err(|e| SqlError::new(Code::Plan, e.to_string()))
    }

    /// Whether its rows take the place of those with the same key that came before.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.flow.changes.is_some()
    }

    /// The columns as whoever watches sees them: a row that says that its key is gone has nothing but the key.
    #[must_use]
    pub fn watched_schema(&self) -> SchemaRef {
        if !self.is_changing() {
            return Arc::clone(&self.schema);
        }
        let nullable = self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        Arc::new(Schema::new(nullable.collect::<Vec<_>>()))
    }

    /// The same query, its results in the columns of a stream that is there already: by position, or as `listed`
    /// names them. Values are cast where they must be; columns that are not listed are NULL.
    pub fn into_columns(self, target: &SchemaRef, listed: &[Name]) -> Result<Self, SqlError> {
        let found = self.schema.fields().len();
        let places: Vec<usize> = if listed.is_empty() {
            (0..target.fields().len()).collect()
        } else {
            let place = |name: &Name| {
                let known = target.fields().iter().map(|f| f.name().as_str());
                target.index_of(&name.text).map_err(|_| SqlError::no_such("column", &name.text, known).at(name.place))
            };
            listed.iter().map(place).collect::<Result<_, _>>()?
        };
        if places.len() != found {
            let names = places.iter().map(|i| target.field(*i).name().as_str()).collect::<Vec<_>>().join(", ");
            let error = SqlError::new(Code::BadDefinition, format!("the SELECT has {found} columns and {} are written", places.len()));
            return Err(error.hint("list the columns: INSERT INTO s (a, b) SELECT ..").note(format!("written: {names}")));
        }
        let mut columns = Vec::with_capacity(target.fields().len());
        let (mut keys, mut groups) = (Vec::new(), Vec::new());
        for (i, field) in target.fields().iter().enumerate() {
            let Some(from) = places.iter().position(|place| *place == i) else {
                if !field.is_nullable() {
                    let error =
                        SqlError::new(Code::BadDefinition, format!("column \"{}\" is NOT NULL and nothing is written to it", field.name()));
                    return Err(error.hint("add it to the SELECT list"));
                }
                columns.push(null_column(field.data_type())?);
                groups.push(None);
                continue;
            };
            let given = self.schema.field(from);
            if !can_cast_types(given.data_type(), field.data_type()) {
                let (given_type, wanted) = (sql_type(given.data_type()), sql_type(field.data_type()));
                let error = SqlError::new(
                    Code::TypeMismatch,
                    format!("\"{}\" is {given_type} and column \"{}\" is {wanted}", given.name(), field.name()),
                );
                return Err(error.hint("cast it in the SELECT list"));
            }
            if self.key_columns.contains(given.name()) {
                keys.push(field.name().clone());
            }
            // Another type may say other texts.
            groups.push(self.groups.get(from).copied().flatten().filter(|_| given.data_type() == field.data_type()));
            columns.push(cast_column(&self.schema, from, field.data_type())?);
        }
        let as_is = self.schema == *target;
        let in_place = places.iter().enumerate().all(|(to, from)| to == *from);
        let mut flow = self.flow.as_ref().clone();
        flow.changes = flow.changes.map(|keys| keys.into_iter().filter_map(|(from, key)| Some((*places.get(from)?, key))).collect());
        if !as_is {
            flow.steps.push(Step::Map { filter: None, columns: Some(columns), schema: Arc::clone(target) });
        }
        let event_time = self.event_time.filter(|_| in_place);
        Ok(Self { schema: Arc::clone(target), key_columns: keys, groups, event_time, flow: Arc::new(flow), ..self })
    }

    /// The plan as EXPLAIN shows it.
    #[must_use]
    pub fn explain(&self) -> String {
        self.explain_as(match self.placement {
            Placement::Partition => "one task a partition",
            Placement::Merged => "one task over all partitions",
        })
    }

    /// The same, with how its tasks are cut in other words.
    #[must_use]
    pub fn explain_as(&self, tasks: &str) -> String {
        let mut out = String::new();
        let mut lines = self.inputs.iter().enumerate().map(|(at, input)| {
            let tasks = match at {
                0 => format!(" ({tasks})"),
                _ if input.is_whole => " (whole in every task)".to_owned(),
                _ => String::new(),
            };
            format!("stream   {}{tasks}: {}\n", input.stream, input.reads.join(", "))
        });
        self.flow.explain(&mut lines, &mut out);
        // Writing to a String cannot fail.
        if let Some(timeout) = self.timeout {
            let _ = writeln!(out, "timeout  {timeout:?}");
        }
        if let Some(every) = self.every {
            let _ = writeln!(out, "every    {every:?}");
        }
        if !self.key_columns.is_empty() {
            let _ = writeln!(out, "key      {}", self.key_columns.join(", "));
        }
        out
    }

    /// Tells this plan's state from another's: equal where a checkpoint of the one fits the other.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let streams: Vec<&str> = self.inputs.iter().map(|input| input.stream.as_str()).collect();
        let mut text = format!("{} {:?} datafusion 55.2.0\n", streams.join(", "), self.placement);
        self.flow.fingerprint(&mut text);
        let digest = Sha256::digest(renumbered(&text).as_bytes());
        digest.iter().take(8).fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// The text with the names that the optimizer makes up numbered in order of appearance: it counts them through the whole
/// process, so that the same plan has other numbers after a restart.
fn renumbered(text: &str) -> String {
    let mut text = text.to_owned();
    for made_up in ["__common_expr_", "__datafusion_extracted_"] {
        let mut seen: Vec<&str> = Vec::new();
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once(made_up) {
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let (number, behind) = after.split_at(digits);
            let place = seen.iter().position(|known| *known == number).unwrap_or_else(|| {
                seen.push(number);
                seen.len() - 1
            });
            let _ = write!(out, "{before}{made_up}{place}");
            rest = behind;
        }
        out.push_str(rest);
        text = out;
    }
    text
}

/// Plans a continuous query.
pub fn plan(select: &Select, sources: &dyn Sources, purpose: Purpose) -> Result<QueryPlan, SqlError> {
    let mut query = select.query.as_ref().clone();
    // What a view says has not been judged as a stream yet.
    refuse::on_streams(&query)?;
    over::fill_over(&mut query, sources)?;
    let mut tables = Vec::new();
    for name in &select.reads {
        let source = sources.source(&name.text).ok_or_else(|| SqlError::no_such("stream", &name.text, []).at(name.place))?;
        tables.push((name.text.clone(), source.shape()?.table()?));
    }
    let session = Session::new(tables);
    let logical = session.logical(&query)?;
    check::continuous(&logical, purpose)?;
    let optimized = session.optimize(&logical)?;
    let plan = lower(&session, &optimized, sources, How::of(select, purpose))?;
    check::names(&plan.schema)?;
    update::check(&plan, select, purpose)?;
    let mut plan = signed(plan)?;
    match select.emit {
        Emit::WindowClose { timeout, .. } => plan.timeout = timeout,
        Emit::Update { every } => plan.every = every,
        Emit::Unstated | Emit::Changes => {}
    }
    Ok(plan)
}

/// The plan with signed whole numbers where DataFusion counts without a sign, as ROW_NUMBER does: SQL has no such type.
fn signed(plan: QueryPlan) -> Result<QueryPlan, SqlError> {
    let signed = |of: &DataType| match of {
        DataType::UInt8 => Some(DataType::Int16),
        DataType::UInt16 => Some(DataType::Int32),
        DataType::UInt32 | DataType::UInt64 => Some(DataType::Int64),
        _ => None,
    };
    if plan.schema.fields().iter().all(|field| signed(field.data_type()).is_none()) {
        return Ok(plan);
    }
    let fields = plan.schema.fields().iter().map(|field| match signed(field.data_type()) {
        Some(of) => Arc::new(field.as_ref().clone().with_data_type(of)),
        None => Arc::clone(field),
    });
    let target = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    plan.into_columns(&target, &[])
}

/// Lowers an optimized plan.
pub(super) fn lower(session: &Session, optimized: &LogicalPlan, sources: &dyn Sources, how: How) -> Result<QueryPlan, SqlError> {
    let chain = Walk { session, sources, returns: walk::reads_absent(optimized)?, how, top: Cell::new(true), grouped: Cell::new(false) }
        .lower(optimized)?;
    let Chain { source, fork, steps, columns, local, partitions, inputs } = chain;
    let schema = Arc::clone(optimized.schema().inner());
    let placement = if local || partitions == 1 { Placement::Partition } else { Placement::Merged };
    let keys = columns.iter().zip(schema.fields()).filter(|(lineage, _)| lineage.key);
    if steps.iter().any(|step| matches!(step, Step::Top { limit: None | Some(0), .. })) {
        return Err(frames::endless_ranking());
    }
    let changing = steps.iter().any(Step::is_changing);
    let is_one_task = placement == Placement::Merged || partitions == 1;
    let event_time = result_time(&Known { source: &source, is_joined: fork.is_some(), steps: &steps, columns: &columns, is_one_task });
    let parts = columns.iter().enumerate().filter_map(|(at, lineage)| Some((at, lineage.change?)));
    let flow = Flow { fork, changes: changing.then(|| parts.collect()), steps };
    let plan = QueryPlan {
        inputs,
        placement,
        key_columns: keys.map(|(_, field)| field.name().clone()).collect(),
        groups: columns.iter().map(|lineage| lineage.group).collect(),
        schema,
        event_time,
        timeout: None,
        every: None,
        waits: flow.is_stateful(),
        flow: Arc::new(flow),
    };
    // What an operator refuses is refused now and not when the first task starts.
    plan.chain(Scope::Merged)?;
    Ok(plan)
}
