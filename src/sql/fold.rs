//! Aggregates and group keys over DataFusion's `GroupsAccumulator` and `GroupValues`.
//!
//! Owns the adapters behind `stream::{Fold, FoldFactory, Keys, KeysFactory}`. Always: a state that is taken
//! and merged into a fresh accumulator continues as if nothing had happened, and no result depends on how rows
//! were cut into batches. Made by `lower`, used by the window operator.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
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
use crate::stream::{Expr, Fold, FoldFactory, Keys, KeysFactory, Statistic, StreamError};

/// Makes the accumulators of one aggregate call.
pub struct PlannedFold {
    aggregate: Arc<AggregateFunctionExpr>,
    arguments: Vec<Arc<dyn Expr>>,
    filter: Option<Arc<dyn Expr>>,
    state_fields: Vec<FieldRef>,
    statistic: Option<Statistic>,
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
        let statistic = statistic_of(&aggregate, schema.as_arrow())?;
        let planned = Self { aggregate, arguments, filter, state_fields, statistic, text };
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

    fn statistic(&self) -> Option<Statistic> {
        self.statistic
    }

    fn travels(&self) -> bool {
        let is_small = SMALL.contains(&self.aggregate.fun().name());
        is_small && !self.aggregate.is_distinct() && self.aggregate.order_bys().is_empty() && !PickFold::takes(&self.aggregate)
    }
}

/// Which statistic of a column of doubles an aggregate is.
fn statistic_of(aggregate: &AggregateFunctionExpr, schema: &Schema) -> DfResult<Option<Statistic>> {
    let statistic = match aggregate.fun().name() {
        "avg" => Statistic::Avg,
        "sum" => Statistic::Sum,
        "min" => Statistic::Min,
        "max" => Statistic::Max,
        "count" => Statistic::Count,
        _ => return Ok(None),
    };
    let [argument] = &aggregate.expressions()[..] else { return Ok(None) };
    let is_plain = !aggregate.is_distinct() && aggregate.order_bys().is_empty();
    Ok((is_plain && argument.data_type(schema)? == DataType::Float64).then_some(statistic))
}

/// Aggregates that remember a few numbers a group, or one of its values.
const SMALL: [&str; 26] = [
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
    "corr",
    "covar_samp",
    "covar_pop",
    "regr_slope",
    "regr_intercept",
    "regr_count",
    "regr_r2",
    "regr_avgx",
    "regr_avgy",
    "regr_sxx",
    "regr_syy",
    "regr_sxy",
];

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

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Float64Array};
    use arrow::datatypes::{Field, Float64Type, Int64Type, UInt64Type};
    use datafusion::functions_aggregate::expr_fn;
    use datafusion::logical_expr::{ExprFunctionExt, col};
    use proptest::prelude::*;

    use super::*;
    use crate::stream::Statistics;

    const ALL: [Statistic; 5] = [Statistic::Max, Statistic::Count, Statistic::Avg, Statistic::Sum, Statistic::Min];

    fn planned(call: &LogicalExpr) -> PlannedFold {
        let schema = Schema::new(vec![Field::new("x", DataType::Float64, true), Field::new("n", DataType::Int64, true)]);
        let schema = DFSchema::try_from(schema).unwrap();
        PlannedFold::plan(&Session::new([]), call, "a", &schema, &mut Exprs::default()).unwrap()
    }

    fn call(statistic: Statistic) -> LogicalExpr {
        let x = col("x");
        match statistic {
            Statistic::Avg => expr_fn::avg(x),
            Statistic::Sum => expr_fn::sum(x),
            Statistic::Min => expr_fn::min(x),
            Statistic::Max => expr_fn::max(x),
            Statistic::Count => expr_fn::count(x),
        }
    }

    #[test]
    fn the_statistics_of_doubles_are_known_as_such() {
        for statistic in ALL {
            assert_eq!(planned(&call(statistic)).statistic(), Some(statistic));
        }
        let distinct = |call: LogicalExpr| call.distinct().build().unwrap();
        let others = [
            distinct(expr_fn::count(col("x"))),
            distinct(expr_fn::sum(col("x"))),
            expr_fn::min(col("n")),
            expr_fn::count(col("n")),
            expr_fn::stddev(col("x")),
        ];
        for other in others {
            assert_eq!(planned(&other).statistic(), None, "{other}");
        }
    }

    /// A column as one sees it, doubles by their bits; of what is no number there is one, whose sign says nothing: it is that of whichever operand
    /// the compiler has put first.
    fn seen(column: &ArrayRef) -> Vec<Option<u64>> {
        let bits: Vec<u64> = match column.data_type() {
            DataType::Float64 => {
                let bits = |value: &f64| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
                column.as_primitive::<Float64Type>().values().iter().map(bits).collect()
            }
            DataType::Int64 => column.as_primitive::<Int64Type>().values().iter().map(|value| value.cast_unsigned()).collect(),
            DataType::UInt64 => column.as_primitive::<UInt64Type>().values().to_vec(),
            other => panic!("{other}"),
        };
        bits.into_iter().enumerate().map(|(row, bits)| column.is_valid(row).then_some(bits)).collect()
    }

    fn value() -> impl Strategy<Value = Option<f64>> {
        let odd = prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, f64::MAX, f64::MIN, f64::MIN_POSITIVE]);
        prop_oneof![6 => (-50.0..250.0f64).prop_map(Some), 1 => odd.prop_map(Some), 1 => Just(None)]
    }

    /// The group of each key, in order of first sight.
    fn numbered(known: &mut Vec<usize>, keys: &[usize]) -> Vec<usize> {
        let number = |key: &usize| {
            known.iter().position(|other| other == key).unwrap_or_else(|| {
                known.push(*key);
                known.len() - 1
            })
        };
        keys.iter().map(number).collect()
    }

    fn rows() -> impl Strategy<Value = Vec<(usize, Option<f64>)>> {
        proptest::collection::vec((0..6usize, value()), 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn statistics_in_one_pass_are_those_of_the_aggregates_alone(
            // Rows of several panes of one window, and which statistics are asked for.
            panes in proptest::collection::vec(proptest::collection::vec(rows(), 1..4), 1..4),
            asked in prop::sample::subsequence(ALL.to_vec(), 1..=5).prop_shuffle(),
        ) {
            let planned: Vec<PlannedFold> = asked.iter().map(|statistic| planned(&call(*statistic))).collect();
            let folds = || planned.iter().map(|planned| planned.fold().unwrap()).collect::<Vec<_>>();
            let (mut window, mut windows, mut merged) = (Statistics::default(), folds(), Vec::new());
            for batches in panes {
                let (mut pane, mut alone, mut known) = (Statistics::default(), folds(), Vec::new());
                for batch in batches {
                    let (keys, values): (Vec<usize>, Vec<Option<f64>>) = batch.into_iter().unzip();
                    let groups = numbered(&mut known, &keys);
                    let total = known.len();
                    let values: ArrayRef = Arc::new(Float64Array::from(values));
                    pane.update(&values, &groups, total).unwrap();
                    for fold in &mut alone {
                        fold.update(std::slice::from_ref(&values), &groups, None, total).unwrap();
                    }
                }
                let states = pane.take_states(&asked);
                let groups = numbered(&mut merged, &known);
                for ((fold, state), window) in alone.iter_mut().zip(&states).zip(&mut windows) {
                    let expected = fold.take_state().unwrap();
                    prop_assert_eq!(state.iter().map(seen).collect::<Vec<_>>(), expected.iter().map(seen).collect::<Vec<_>>());
                    window.merge(&expected, &groups, merged.len()).unwrap();
                }
                window.merge(&asked, &states.concat(), &groups, merged.len()).unwrap();
            }
            for (column, fold) in window.take_values(&asked).iter().zip(&mut windows) {
                prop_assert_eq!(seen(column), seen(&fold.take_values().unwrap()));
            }
        }
    }
}
