//! avg, sum, min, max and count of one column of doubles, over many groups in one pass.
//!
//! What most windows ask of a vital. Each aggregate alone would go over the rows once more; [`Statistics`] keeps all five of a group
//! side by side. Always: values and states are those of DataFusion's accumulators, bit by bit, and lie in the same columns, so that a
//! state of either goes on in the other.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, UInt64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};

use crate::stream::StreamError;

/// One of the aggregates, over the values that are not NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// Their mean. Its state: how many (`UInt64`), and their sum; both NULL where there is none.
    Avg,
    /// Their sum. NULL where there is none, as the next two; its state is its value.
    Sum,
    /// The least; the last where one of the two is not a number.
    Min,
    /// The greatest; likewise.
    Max,
    /// How many (`Int64`); its state is its value.
    Count,
}

impl Statistic {
    /// How many columns its state has.
    #[must_use]
    pub const fn state_width(self) -> usize {
        if matches!(self, Self::Avg) { 2 } else { 1 }
    }
}

/// The statistics of many groups.
#[derive(Debug, Default)]
pub struct Statistics {
    groups: Vec<Group>,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    sum: f64,
    least: f64,
    most: f64,
    count: u64,
}

impl Group {
    const EMPTY: Self = Self { sum: 0.0, least: f64::MAX, most: f64::MIN, count: 0 };

    #[expect(clippy::neg_cmp_op_on_partial_ord, reason = "what is not a number is neither less nor greater, and is taken")]
    const fn narrow(&mut self, value: f64) {
        if !(value >= self.least) {
            self.least = value;
        }
    }

    #[expect(clippy::neg_cmp_op_on_partial_ord, reason = "what is not a number is neither less nor greater, and is taken")]
    const fn widen(&mut self, value: f64) {
        if !(value <= self.most) {
            self.most = value;
        }
    }

    const fn take(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
        self.narrow(value);
        self.widen(value);
    }
}

impl Statistics {
    /// Takes rows, and which group each is of.
    pub fn update(&mut self, values: &ArrayRef, groups: &[usize], total: usize) -> Result<(), StreamError> {
        let values = doubles(values)?;
        self.reach(total);
        let own = &mut self.groups[..];
        match values.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => groups.iter().zip(values.values()).for_each(|(group, value)| own[*group].take(*value)),
            Some(nulls) => nulls.valid_indices().for_each(|row| own[groups[row]].take(values.value(row))),
        }
        Ok(())
    }

    /// Takes the states of other groups: those of some statistics, one after the other.
    pub fn merge(&mut self, of: &[Statistic], states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), StreamError> {
        if states.len() != of.iter().map(|statistic| statistic.state_width()).sum::<usize>() {
            return Err(misfit("too few columns"));
        }
        self.reach(total);
        let own = &mut self.groups[..];
        // How many there are, and their sum, may be told twice.
        let (mut knows_count, mut knows_sum) = (false, false);
        let mut at = 0;
        for statistic in of {
            let state = &states[at];
            match statistic {
                Statistic::Avg => {
                    let (counts, sums) =
                        (state.as_primitive_opt::<UInt64Type>().ok_or_else(|| misfit("no count"))?, doubles(&states[at + 1])?);
                    for (row, group) in groups.iter().enumerate().filter(|(row, _)| counts.is_valid(*row)) {
                        own[*group].count += if knows_count { 0 } else { counts.value(row) };
                        own[*group].sum += if knows_sum { 0.0 } else { sums.value(row) };
                    }
                    (knows_count, knows_sum) = (true, true);
                }
                Statistic::Count => {
                    let counts = state.as_primitive_opt::<Int64Type>().ok_or_else(|| misfit("no count"))?;
                    if !knows_count {
                        groups.iter().zip(counts.values()).for_each(|(group, count)| own[*group].count += count.cast_unsigned());
                    }
                    knows_count = true;
                }
                Statistic::Sum => {
                    let sums = doubles(state)?;
                    if !knows_sum {
                        each(sums, groups, |group, sum| own[group].sum += sum);
                    }
                    knows_sum = true;
                }
                Statistic::Min => each(doubles(state)?, groups, |group, value| own[group].narrow(value)),
                Statistic::Max => each(doubles(state)?, groups, |group, value| own[group].widen(value)),
            }
            at += statistic.state_width();
        }
        if !knows_count && let Some(any) = states.first() {
            // Whether there is any at all.
            for (_, group) in groups.iter().enumerate().filter(|(row, _)| any.is_valid(*row)) {
                own[*group].count += 1;
            }
        }
        Ok(())
    }

    /// The values of some statistics of every group, in group order; there are no groups afterwards.
    pub fn take_values(&mut self, of: &[Statistic]) -> Vec<ArrayRef> {
        let groups = std::mem::take(&mut self.groups);
        let known = known(&groups);
        let value = |statistic: &Statistic| match statistic {
            Statistic::Avg => column(&groups, &known, |group| group.sum / group.count as f64),
            plain => state_of(*plain, &groups, &known),
        };
        of.iter().map(value).collect()
    }

    /// Their states, one after the other; there are no groups afterwards.
    pub fn take_states(&mut self, of: &[Statistic]) -> Vec<Vec<ArrayRef>> {
        let groups = std::mem::take(&mut self.groups);
        let known = known(&groups);
        let state = |statistic: &Statistic| match statistic {
            Statistic::Avg => {
                let counts = UInt64Array::new(groups.iter().map(|group| group.count).collect(), known.clone());
                vec![Arc::new(counts) as ArrayRef, column(&groups, &known, |group| group.sum)]
            }
            plain => vec![state_of(*plain, &groups, &known)],
        };
        of.iter().map(state).collect()
    }

    /// About how many bytes it holds.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Group>()
    }

    fn reach(&mut self, total: usize) {
        if self.groups.len() < total {
            self.groups.resize(total, Group::EMPTY);
        }
    }
}

/// Where a group has seen a value; `None` where all have.
fn known(groups: &[Group]) -> Option<NullBuffer> {
    groups.iter().any(|group| group.count == 0).then(|| groups.iter().map(|group| group.count > 0).collect())
}

fn column(groups: &[Group], known: &Option<NullBuffer>, value: impl Fn(&Group) -> f64) -> ArrayRef {
    Arc::new(Float64Array::new(groups.iter().map(value).collect(), known.clone()))
}

/// The state of all but the mean, which is its value.
fn state_of(statistic: Statistic, groups: &[Group], known: &Option<NullBuffer>) -> ArrayRef {
    match statistic {
        Statistic::Avg | Statistic::Sum => column(groups, known, |group| group.sum),
        Statistic::Min => column(groups, known, |group| group.least),
        Statistic::Max => column(groups, known, |group| group.most),
        Statistic::Count => Arc::new(groups.iter().map(|group| group.count.cast_signed()).collect::<Int64Array>()),
    }
}

/// Each value that is not NULL, with its group.
fn each(values: &Float64Array, groups: &[usize], mut take: impl FnMut(usize, f64)) {
    for (row, group) in groups.iter().enumerate().filter(|(row, _)| values.is_valid(*row)) {
        take(*group, values.value(row));
    }
}

fn doubles(column: &ArrayRef) -> Result<&Float64Array, StreamError> {
    column.as_primitive_opt::<Float64Type>().ok_or_else(|| {
        let (is, wanted) = (column.data_type(), DataType::Float64);
        misfit(&format!("a column of {is} where one of {wanted} was expected"))
    })
}

fn misfit(why: &str) -> StreamError {
    StreamError::Evaluate { what: "the statistics of a column".to_owned(), why: why.to_owned() }
}
