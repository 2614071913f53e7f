//! SELECT over stored data: a stream is then its topic's history, a table its latest rows.
//!
//! Owns [`select_history`]. It is DataFusion's batch SQL, with one exception: whatever windows, remembers or watches
//! for silence in event time runs on the streaming operators, from the first record kept to the last at the
//! moment of asking, so that the same text gives the same rows as the continuous query. What stands above such
//! a part (ORDER BY, LIMIT, a join) is DataFusion's again. Called by the engine.

#[cfg(test)]
mod bounds;
mod follow;
mod read;
#[cfg(test)]
mod recorded;
mod replay;
mod table;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{Field, SchemaRef};
use datafusion::common::{Column, DataFusionError, Result as DfResult};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{collect, execute_stream};
use datafusion::sql::sqlparser::ast;
use futures::{Stream, StreamExt};

pub use self::follow::Follow;
use self::read::Stored;
use super::analyze::WindowAggregate;
use super::asof::AsOfJoin;
use super::catalog::Catalog;
use super::error::{Code, SqlError};
use super::figures::{operator_table, shown_time};
use super::functions::stateful;
use super::lower::join::compares_times;
use super::lower::{How, QueryPlan, Source, frames, lower, over};
use super::overflow;
use super::pattern::PatternTable;
use super::session::Session;
use super::statement::{Name, Select};
use super::types::sql_type;
use super::windows::{AbsentTable, GapTable, WindowTable};
use super::workspace::Workspace;
use crate::bus::Bus;
use crate::stream::TaskStats;
use crate::time::Timestamp;

/// The rows of a SELECT, as they are found.
pub type Rows = Pin<Box<dyn Stream<Item = Result<RecordBatch, SqlError>> + Send>>;

/// What a SELECT over stored data answers.
pub struct History {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows. Nothing is read before they are asked for, and nothing more once they are dropped.
    pub rows: Rows,
}

/// Answers a SELECT over what is stored at this moment, which for `now()` is `now`, within what the workspace has.
pub async fn select_history(
    select: &Select,
    catalog: &Catalog,
    bus: &Arc<dyn Bus>,
    now: Timestamp,
    workspace: &Workspace,
) -> Result<History, SqlError> {
    let stored = stored_of(select, catalog, bus).await?;
    let (session, plan) = plan_history(select, &stored, now)?;
    let session = session.within(workspace);
    let physical = session.state().create_physical_plan(&plan).await?;
    let schema = physical.schema();
    let rows = execute_stream(physical, session.context().task_ctx())?;
    Ok(History { schema, rows: Box::pin(rows.map(|batch| batch.map_err(SqlError::from))) })
}

/// The rows of `INSERT INTO .. VALUES (..)` in the columns of `target`: by position, or as `listed` names them.
pub async fn insert_values(values: &ast::Query, target: &SchemaRef, listed: &[Name], now: Timestamp) -> Result<RecordBatch, SqlError> {
    let session = Session::new([]).at(now);
    let plan = session.optimize(&session.logical(values)?)?;
    let physical = session.state().create_physical_plan(&plan).await?;
    let given = physical.schema();
    let batches = collect(physical, session.context().task_ctx()).await?;
    let rows = concat_batches(&given, &batches).map_err(DataFusionError::from)?;
    let place = |(i, field): (usize, &Arc<Field>)| {
        let from = if listed.is_empty() { Some(i) } else { listed.iter().position(|name| name.text == *field.name()) };
        match from.and_then(|from| rows.columns().get(from)) {
            Some(column) => {
                cast_with_options(column, field.data_type(), &CastOptions { safe: false, ..CastOptions::default() }).map_err(|_| {
                    SqlError::new(
                        Code::TypeMismatch,
                        format!("a value for column \"{}\" cannot be read as {}", field.name(), sql_type(field.data_type())),
                    )
                })
            }
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        }
    };
    let wanted = if listed.is_empty() { target.fields().len() } else { listed.len() };
    if wanted != given.fields().len() {
        return Err(SqlError::new(
            Code::BadDefinition,
            format!("{} values are given and {wanted} columns are written", given.fields().len()),
        ));
    }
    for name in listed {
        let known = target.fields().iter().map(|f| f.name().as_str());
        target.index_of(&name.text).map_err(|_| SqlError::no_such("column", &name.text, known).at(name.place))?;
    }
    let columns = target.fields().iter().enumerate().map(place).collect::<Result<Vec<_>, _>>()?;
    if let Some((field, _)) = target.fields().iter().zip(&columns).find(|(field, column)| !field.is_nullable() && column.null_count() > 0) {
        return Err(SqlError::new(Code::BadDefinition, format!("column \"{}\" is NOT NULL", field.name())).hint("give it a value"));
    }
    Ok(RecordBatch::try_new(Arc::clone(target), columns).map_err(DataFusionError::from)?)
}

/// The plan of a SELECT over stored data, for EXPLAIN.
pub async fn explain_history(select: &Select, catalog: &Catalog, bus: &Arc<dyn Bus>, now: Timestamp) -> Result<String, SqlError> {
    let stored = stored_of(select, catalog, bus).await?;
    let (_, plan) = plan_history(select, &stored, now)?;
    Ok(plan.display_indent().to_string())
}

/// Runs a SELECT over stored data to its end, and tells what each of its operators did: the streaming ones as those of a running
/// query, the others as DataFusion tells it. The rows are counted and dropped.
pub async fn analyze_history(
    select: &Select,
    catalog: &Catalog,
    bus: &Arc<dyn Bus>,
    now: Timestamp,
    workspace: &Workspace,
) -> Result<String, SqlError> {
    let stored = stored_of(select, catalog, bus).await?;
    let (session, plan, parts) = cut_history(select, &stored, now)?;
    let session = session.within(workspace);
    let physical = session.state().create_physical_plan(&plan).await?;
    let begun = Instant::now();
    let mut rows = execute_stream(Arc::clone(&physical), session.context().task_ctx())?;
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        count += batch?.num_rows();
    }
    let mut text = format!("result   {count} rows in {}\n", shown_time(begun.elapsed()));
    for Part { plan, stats } in parts {
        text.push_str("\nstreaming operators\n");
        text.push_str(&plan.explain());
        text.push_str(&operator_table(&stats.figures().0, None));
    }
    text.push_str("\nbatch operators\n");
    text.push_str(&DisplayableExecutionPlan::with_metrics(physical.as_ref()).indent(false).to_string());
    Ok(text)
}

type StoredByName = BTreeMap<String, Arc<Stored>>;

/// What a SELECT reads, as it is stored at this moment.
async fn stored_of(select: &Select, catalog: &Catalog, bus: &Arc<dyn Bus>) -> Result<StoredByName, SqlError> {
    let mut stored = BTreeMap::new();
    for name in &select.reads {
        let relation = catalog.relation_or_error(name)?;
        stored.insert(name.text.clone(), Arc::new(Stored::open(relation, bus).await?));
    }
    Ok(stored)
}

fn plan_history(select: &Select, stored: &StoredByName, now: Timestamp) -> Result<(Session, LogicalPlan), SqlError> {
    cut_history(select, stored, now).map(|(session, plan, _)| (session, plan))
}

/// A part of a plan that runs on the streaming operators, and what it counts.
struct Part {
    plan: QueryPlan,
    stats: Arc<TaskStats>,
}

/// The plan, and its streaming parts in the order in which they were found.
fn cut_history(select: &Select, stored: &StoredByName, now: Timestamp) -> Result<(Session, LogicalPlan, Vec<Part>), SqlError> {
    let sources = |name: &str| -> Option<Source> { stored.get(name).map(|of| of.source.clone()) };
    let mut query = select.query.as_ref().clone();
    over::fill_over(&mut query, &sources)?;
    let tables = stored.iter().map(|(name, of)| Ok((name.clone(), table::stored(of)?))).collect::<DfResult<Vec<_>>>()?;
    let session = Session::new(tables).at(now);
    let logical = session.logical(&query)?;
    let optimized = session.optimize(&logical)?;
    let cutter = Cutter { session: &session, stored, sources: &sources, parts: RefCell::default() };
    let plan = overflow::strict(cutter.cut(&optimized)?)?;
    let parts = cutter.parts.into_inner();
    Ok((session, plan, parts))
}

/// Takes the parts that run on the streaming operators out of a plan.
struct Cutter<'a> {
    session: &'a Session,
    stored: &'a StoredByName,
    sources: &'a dyn Fn(&str) -> Option<Source>,
    parts: RefCell<Vec<Part>>,
}

impl Cutter<'_> {
    /// The plan with its largest streaming parts replaced by tables of their results.
    fn cut(&self, plan: &LogicalPlan) -> Result<LogicalPlan, SqlError> {
        if !holds_time(plan) {
            return Ok(plan.clone());
        }
        let refused = match lower(self.session, plan, &|name: &str| (self.sources)(name), How::HISTORY) {
            Ok(part) => return self.results(plan, &part),
            Err(refused) => refused,
        };
        if is_time(plan) == Time::Only {
            // No table can stand for this node, so what is wrong with it is wrong with the query.
            return Err(refused);
        }
        let inputs = plan.inputs().into_iter().map(|input| self.cut(input)).collect::<Result<Vec<_>, _>>()?;
        Ok(plan.with_new_exprs(plan.expressions(), inputs)?)
    }

    /// A table of the part's results under the names that the plan above knows.
    fn results(&self, plan: &LogicalPlan, part: &QueryPlan) -> Result<LogicalPlan, SqlError> {
        let stored = part.inputs.iter().map(|input| self.stored.get(&input.stream).map(Arc::clone)).collect::<Option<Vec<_>>>();
        let stored = stored.ok_or_else(|| SqlError::new(Code::Internal, "a part reads what the query does not"))?;
        let stats = Arc::new(TaskStats::default());
        let table = replay::table(stored, part.clone(), Arc::clone(&stats))?;
        self.parts.borrow_mut().push(Part { plan: part.clone(), stats });
        let scan = LogicalPlanBuilder::scan("__results", provider_as_source(table), None)?;
        let names = plan.schema().iter().enumerate();
        let columns = names.map(|(i, (qualifier, field))| {
            Expr::Column(Column::new(Some("__results"), replay::column_name(i))).alias_qualified(qualifier.cloned(), field.name())
        });
        Ok(scan.project(columns.collect::<Vec<_>>())?.build()?)
    }
}

/// Whether a node is about event time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Time {
    /// It is not.
    No,
    /// The streaming operators have it, and so has DataFusion.
    Either,
    /// Only the streaming operators have it.
    Only,
}

fn is_time(plan: &LogicalPlan) -> Time {
    match plan {
        LogicalPlan::Extension(Extension { node }) => {
            let node = node.as_any();
            let ours = node.is::<WindowAggregate>()
                || node.is::<WindowTable>()
                || node.is::<AbsentTable>()
                || node.is::<GapTable>()
                || node.is::<AsOfJoin>()
                || node.is::<PatternTable>();
            if ours { Time::Only } else { Time::No }
        }
        LogicalPlan::Join(join) if compares_times(join) => Time::Either,
        LogicalPlan::Window(window) => window.window_expr.iter().map(is_time_call).max_by_key(|time| *time as u8).unwrap_or(Time::No),
        _ => Time::No,
    }
}

fn is_time_call(expr: &Expr) -> Time {
    match expr {
        Expr::Alias(alias) => is_time_call(&alias.expr),
        Expr::WindowFunction(call) if stateful::find(call.fun.name()).is_some() => Time::Only,
        Expr::WindowFunction(call) if call.fun.name() == "lag" || frames::family(call) != frames::Family::Keyed => Time::Either,
        _ => Time::No,
    }
}

fn holds_time(plan: &LogicalPlan) -> bool {
    is_time(plan) != Time::No || plan.inputs().into_iter().any(holds_time)
}
