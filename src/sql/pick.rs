//! `first_value` and `last_value` over many groups, ties and all.
//!
//! Owns [`PickFold`]. Always: among rows of equal order the first (for `last_value`, the last) in order of arrival
//! wins, and states merge in the order they are given; so the outcome does not depend on how rows were cut into
//! batches. DataFusion's own accumulators leave ties open. Without ORDER BY the order is that of arrival.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::expr::reason;
use crate::stream::{Fold, StreamError};

/// Where a row stands in the order: the greater, the later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Number(i64),
    Bytes(Box<[u8]>),
}

/// How rows are ranked.
enum Ranking {
    /// By arrival alone.
    Arrival,
    /// By one column that is a whole number or a time.
    Number(SortOptions),
    /// By columns of any types.
    Rows(RowConverter),
}

/// The ranks of a batch.
enum Ranks {
    Same,
    Numbers(Vec<i64>),
    Rows(Rows),
    /// As a state holds them.
    Stored(BinaryArray),
}

/// The accumulator.
pub(super) struct PickFold {
    last: bool,
    ignore_nulls: bool,
    ranking: Ranking,
    value_type: DataType,
    groups: Vec<Option<(Rank, ScalarValue)>>,
    /// The best row of each group in the batch at hand.
    best: Vec<Option<usize>>,
    text: String,
}

impl PickFold {
    /// Whether the aggregate is one of these.
    pub(super) fn takes(aggregate: &AggregateFunctionExpr) -> bool {
        matches!(aggregate.fun().name(), "first_value" | "last_value") && !aggregate.is_distinct() && !aggregate.is_reversed()
    }

    /// A fresh accumulator.
    pub(super) fn new(aggregate: &AggregateFunctionExpr) -> DfResult<Self> {
        Ok(Self {
            last: aggregate.fun().name() == "last_value",
            ignore_nulls: aggregate.ignore_nulls(),
            ranking: Ranking::of(aggregate)?,
            value_type: aggregate.field().data_type().clone(),
            groups: Vec::new(),
            best: Vec::new(),
            text: aggregate.fun().name().to_owned(),
        })
    }

    /// The columns of its state: the value, its rank, and whether there is one.
    pub(super) fn state_fields(aggregate: &AggregateFunctionExpr) -> DfResult<Vec<FieldRef>> {
        let rank = match Ranking::of(aggregate)? {
            Ranking::Rows(_) => DataType::Binary,
            Ranking::Arrival | Ranking::Number(_) => DataType::Int64,
        };
        let field = |name: &str, data_type, nullable| FieldRef::new(Field::new(name, data_type, nullable));
        Ok(vec![
            field("value", aggregate.field().data_type().clone(), true),
            field("rank", rank, true),
            field("is_set", DataType::Boolean, false),
        ])
    }

    /// Offers the rows that count, in order.
    fn offer(&mut self, value: &ArrayRef, groups: &[usize], total: usize, ranks: &Ranks, counts: impl Fn(usize) -> bool) -> DfResult<()> {
        if self.groups.len() < total {
            self.groups.resize_with(total, || None);
        }
        self.best.clear();
        self.best.resize(self.groups.len(), None);
        let last = self.last;
        for (row, group) in groups.iter().enumerate() {
            if !counts(row) {
                continue;
            }
            let held = &mut self.best[*group];
            if held.is_none_or(|held| goes_before(last, ranks.compare(row, held))) {
                *held = Some(row);
            }
        }
        for (held, best) in self.groups.iter_mut().zip(&self.best) {
            let Some(row) = *best else { continue };
            let rank = ranks.rank(row);
            if held.as_ref().is_none_or(|(known, _)| goes_before(last, rank.cmp(known))) {
                let mut value = ScalarValue::try_from_array(value, row)?;
                value.compact();
                *held = Some((rank, value));
            }
        }
        Ok(())
    }

    fn take(&mut self) -> DfResult<(ArrayRef, Vec<Option<Rank>>)> {
        let null = ScalarValue::try_from(&self.value_type)?;
        let taken = std::mem::take(&mut self.groups).into_iter();
        let (ranks, values): (Vec<_>, Vec<_>) =
            taken.map(|held| held.map_or_else(|| (None, null.clone()), |(rank, value)| (Some(rank), value))).unzip();
        if values.is_empty() {
            return Ok((arrow::array::new_empty_array(&self.value_type), ranks));
        }
        let values = ScalarValue::iter_to_array(values)?;
        let values = if values.data_type() == &self.value_type { values } else { cast(&values, &self.value_type)? };
        Ok((values, ranks))
    }

    fn failed(&self, error: &DataFusionError) -> StreamError {
        StreamError::Evaluate { what: self.text.clone(), why: reason(error) }
    }
}

/// Whether a row that came later takes the place of one that came earlier, as it compares to it.
const fn goes_before(last: bool, order: Ordering) -> bool {
    if last { order.is_ge() } else { order.is_lt() }
}

impl Ranking {
    fn of(aggregate: &AggregateFunctionExpr) -> DfResult<Self> {
        let orders = aggregate.order_bys();
        // DataFusion's own state is the value, the order columns, and whether there is one: there we learn their types.
        let fields = aggregate.state_fields()?;
        let types: Vec<&DataType> = fields.iter().skip(1).take(orders.len()).map(|field| field.data_type()).collect();
        Ok(match (orders, types.as_slice()) {
            ([], _) => Self::Arrival,
            ([order], [of]) if is_number(of) => Self::Number(order.options),
            _ => {
                let fields = orders.iter().zip(types).map(|(order, of)| SortField::new_with_options(of.clone(), order.options));
                Self::Rows(RowConverter::new(fields.collect())?)
            }
        })
    }

    fn rank(&self, orders: &[ArrayRef]) -> Result<Ranks, ArrowError> {
        Ok(match self {
            Self::Arrival => Ranks::Same,
            Self::Number(options) => {
                let column = cast(&orders[0], &DataType::Int64)?;
                let numbers: &Int64Array = column.as_primitive();
                let of_null = if options.nulls_first { i64::MIN } else { i64::MAX };
                let of = |number: i64| if options.descending { !number } else { number };
                Ranks::Numbers(numbers.iter().map(|number| number.map_or(of_null, of)).collect())
            }
            Self::Rows(converter) => Ranks::Rows(converter.convert_columns(orders)?),
        })
    }
}

/// Types that become an `i64` without loss, so that they rank by it.
fn is_number(of: &DataType) -> bool {
    use DataType::{Date32, Date64, Int8, Int16, Int32, Int64, Timestamp, UInt8, UInt16, UInt32};
    matches!(of, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | Timestamp(..) | Date32 | Date64)
}

impl Ranks {
    fn compare(&self, a: usize, b: usize) -> Ordering {
        match self {
            Self::Same => Ordering::Equal,
            Self::Numbers(numbers) => numbers[a].cmp(&numbers[b]),
            Self::Rows(rows) => rows.row(a).cmp(&rows.row(b)),
            Self::Stored(bytes) => bytes.value(a).cmp(bytes.value(b)),
        }
    }

    fn rank(&self, row: usize) -> Rank {
        match self {
            Self::Same => Rank::Number(0),
            Self::Numbers(numbers) => Rank::Number(numbers[row]),
            Self::Rows(rows) => Rank::Bytes(rows.row(row).data().into()),
            Self::Stored(bytes) => Rank::Bytes(bytes.value(row).into()),
        }
    }
}

impl Fold for PickFold {
    fn update(
        &mut self,
        arguments: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<(), StreamError> {
        let Some((value, orders)) = arguments.split_first() else {
            return Err(StreamError::Limit(format!("{} has no argument", self.text)));
        };
        let ranks = self.ranking.rank(orders).map_err(|e| self.failed(&e.into()))?;
        let nulls = if self.ignore_nulls { value.logical_nulls() } else { None };
        let counts = |row: usize| filter.is_none_or(|f| f.is_valid(row) && f.value(row)) && nulls.as_ref().is_none_or(|n| n.is_valid(row));
        self.offer(value, groups, total_groups, &ranks, counts).map_err(|e| self.failed(&e))
    }

    fn merge(&mut self, state: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<(), StreamError> {
        let misfit = || StreamError::Limit("a state of first_value or last_value has another form".to_owned());
        let [value, rank, is_set] = state else { return Err(misfit()) };
        let is_set = is_set.as_boolean_opt().ok_or_else(misfit)?;
        let ranks = match (&self.ranking, rank.data_type()) {
            (Ranking::Rows(_), DataType::Binary) => Ranks::Stored(rank.as_binary().clone()),
            (Ranking::Arrival | Ranking::Number(_), DataType::Int64) => {
                Ranks::Numbers(rank.as_primitive::<Int64Type>().iter().map(Option::unwrap_or_default).collect())
            }
            _ => return Err(misfit()),
        };
        self.offer(value, groups, total_groups, &ranks, |row| is_set.is_valid(row) && is_set.value(row)).map_err(|e| self.failed(&e))
    }

    fn take_values(&mut self) -> Result<ArrayRef, StreamError> {
        self.take().map(|(values, _)| values).map_err(|e| self.failed(&e))
    }

    fn take_state(&mut self) -> Result<Vec<ArrayRef>, StreamError> {
        let (values, ranks) = self.take().map_err(|e| self.failed(&e))?;
        let is_set: BooleanArray = ranks.iter().map(|rank| Some(rank.is_some())).collect();
        let rank: ArrayRef = if matches!(self.ranking, Ranking::Rows(_)) {
            let bytes = |rank: &Option<Rank>| match rank {
                Some(Rank::Bytes(bytes)) => Some(bytes.to_vec()),
                _ => None,
            };
            Arc::new(ranks.iter().map(bytes).collect::<BinaryArray>())
        } else {
            let number = |rank: &Option<Rank>| match rank {
                Some(Rank::Number(number)) => Some(*number),
                _ => None,
            };
            Arc::new(ranks.iter().map(number).collect::<Int64Array>())
        };
        Ok(vec![values, rank, Arc::new(is_set)])
    }

    fn size(&self) -> usize {
        let held = |held: &Option<(Rank, ScalarValue)>| {
            held.as_ref().map_or(0, |(rank, value)| value.size() + if let Rank::Bytes(bytes) = rank { bytes.len() } else { 0 })
        };
        self.groups.iter().map(held).sum::<usize>() + self.groups.capacity() * size_of::<Option<(Rank, ScalarValue)>>()
    }
}
