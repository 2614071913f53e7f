//! Aggregates and group keys over DataFusion's `GroupsAccumulator` and `GroupValues`.
//!
//! Owns the adapters behind `stream::{Fold, FoldFactory, Keys, KeysFactory}`. Always: a state that is taken
//! and merged into a fresh accumulator continues as if nothing had happened, and no result depends on how rows
//! were cut into batches. Made by `lower`, used by the window operator.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{EmitTo, Expr as LogicalExpr, GroupsAccumulator};
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use datafusion::physical_plan::aggregates::{AggregateMode, aggregate_expressions};

use super::error::SqlError;
use super::expr::{Exprs, plain_text, reason};
use super::pick::PickFold;
use super::session::Session;
use crate::stream::{Expr, Fold, FoldFactory, Keys, KeysFactory, StreamError};

/// Makes the accumulators of one aggregate call.
pub struct PlannedFold {
    aggregate: Arc<AggregateFunctionExpr>,
    arguments: Vec<Arc<dyn Expr>>,
    filter: Option<Arc<dyn Expr>>,
    state_fields: Vec<FieldRef>,
    text: String,
}

impl PlannedFold {
    /// Plans an aggregate call over the columns of `schema`, and makes one accumulator to see that its types
    /// are supported: what cannot run fails here and not on the first row.
    pub fn plan(session: &Session, expr: &LogicalExpr, name: &str, schema: &DFSchema, exprs: &mut Exprs) -> Result<Self, SqlError> {
        let context = PhysicalPlanningContext::default();
        let lowered = LoweredAggregateBuilder::new(expr, schema, schema.as_arrow(), session.props(), &context).with_name(name).build()?;
        let aggregate = lowered.aggregate;
        if aggregate.fun().name() == "nth_value" && !aggregate.order_bys().is_empty() {
            // It takes the order of arrival for the one asked for: DataFusion sorts its input first.
            return Err(SqlError::not_supported("ORDER BY inside nth_value(..) in a window")
                .hint("write array_agg(x ORDER BY ts)[2] for the second"));
        }
        let arguments = aggregate_expressions(std::slice::from_ref(&aggregate), &AggregateMode::Single, 0)?.swap_remove(0);
        let arguments = arguments.iter().map(|a| exprs.share(a)).collect::<DfResult<Vec<_>>>()?;
        let filter = lowered.filter.as_ref().map(|f| exprs.share(f)).transpose()?;
        let text = plain_text(expr, schema);
        let state_fields = if PickFold::takes(&aggregate) { PickFold::state_fields(&aggregate)? } else { aggregate.state_fields()? };
        let planned = Self { aggregate, arguments, filter, state_fields, text };
        planned.accumulator()?;
        Ok(planned)
    }

    fn accumulator(&self) -> DfResult<Box<dyn Fold>> {
        if PickFold::takes(&self.aggregate) {
            return Ok(Box::new(PickFold::new(&self.aggregate)?));
        }
        let inner: Box<dyn GroupsAccumulator> = if self.aggregate.groups_accumulator_supported() {
            self.aggregate.create_groups_accumulator()?
        } else {
            self.aggregate.create_accumulator()?;
            let aggregate = Arc::clone(&self.aggregate);
            Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator()))
        };
        Ok(Box::new(GroupFold { inner, text: self.text.clone() }))
    }
}

impl fmt::Debug for PlannedFold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FoldFactory for PlannedFold {
    fn fold(&self) -> Result<Box<dyn Fold>, StreamError> {
        self.accumulator().map_err(|e| failed(&self.text, &e))
    }

    fn arguments(&self) -> &[Arc<dyn Expr>] {
        &self.arguments
    }

    fn filter(&self) -> Option<&Arc<dyn Expr>> {
        self.filter.as_ref()
    }

    fn field(&self) -> FieldRef {
        self.aggregate.field()
    }

    fn state_fields(&self) -> Vec<FieldRef> {
        self.state_fields.clone()
    }
}

/// DataFusion's accumulator over many groups.
struct GroupFold {
    inner: Box<dyn GroupsAccumulator>,
    text: String,
}

impl Fold for GroupFold {
    fn update(
        &mut self,
        arguments: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<(), StreamError> {
        self.inner.update_batch(arguments, groups, filter, total_groups).map_err(|e| failed(&self.text, &e))
    }

    fn merge(&mut self, state: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<(), StreamError> {
        self.inner.merge_batch(state, groups, total_groups).map_err(|e| failed(&self.text, &e))
    }

    fn take_values(&mut self) -> Result<ArrayRef, StreamError> {
        self.inner.evaluate(EmitTo::All).map_err(|e| failed(&self.text, &e))
    }

    fn take_state(&mut self) -> Result<Vec<ArrayRef>, StreamError> {
        self.inner.state(EmitTo::All).map_err(|e| failed(&self.text, &e))
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

/// Makes [`Keys`] for some key columns.
pub struct PlannedKeys {
    schema: SchemaRef,
}

impl PlannedKeys {
    /// Keys of these columns; at least one.
    pub fn new(fields: Vec<FieldRef>) -> DfResult<Self> {
        let schema = Arc::new(Schema::new(fields));
        new_group_values(Arc::clone(&schema), &GroupOrdering::None)?;
        Ok(Self { schema })
    }
}

impl fmt::Debug for PlannedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        f.write_str(&names.join(", "))
    }
}

impl KeysFactory for PlannedKeys {
    fn keys(&self) -> Result<Box<dyn Keys>, StreamError> {
        Ok(Box::new(GroupKeys { inner: fresh_keys(&self.schema)?, schema: Arc::clone(&self.schema) }))
    }
}

fn fresh_keys(schema: &SchemaRef) -> Result<Box<dyn GroupValues>, StreamError> {
    new_group_values(Arc::clone(schema), &GroupOrdering::None).map_err(|e| failed("the group key", &e))
}

struct GroupKeys {
    inner: Box<dyn GroupValues>,
    schema: SchemaRef,
}

impl Keys for GroupKeys {
    fn intern(&mut self, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<(), StreamError> {
        self.inner.intern(columns, groups).map_err(|e| failed("the group key", &e))
    }

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn take(&mut self) -> Result<Vec<ArrayRef>, StreamError> {
        let taken = self.inner.emit(EmitTo::All).map_err(|e| failed("the group key", &e))?;
        // Keys of several columns do not forget what they have emitted (DataFusion 55): the next ones begin afresh.
        self.inner = fresh_keys(&self.schema)?;
        Ok(taken)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

fn failed(what: &str, error: &DataFusionError) -> StreamError {
    StreamError::Evaluate { what: what.to_owned(), why: reason(error) }
}
