//! Aggregates over a frame that moves: what enters is added, what leaves is taken away.
//!
//! Owns the [`Slide`]s, one small state a key, and [`Sliding`], which runs one of them over a batch. Always: the state
//! is a function of the values in the frame alone, never of those that were in it once; so it need not be saved
//! where the frame's rows are. NULL counts for nothing.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array};
use arrow::datatypes::{DataType, i256};

use super::exact::ExactSum;
use super::frame::Walk;
use super::function::{Answers, Function};
use super::past::{Native, Past};
use crate::stream::StreamError;

/// An aggregate's state for one key.
pub(super) trait Slide: Clone + Default + Send + 'static {
    /// What it is over.
    type Item: Native;
    /// What it answers.
    type Answer: Answer;
    /// A value enters the frame.
    fn enter(&mut self, value: Self::Item);
    /// The oldest value leaves it.
    fn leave(&mut self, value: Self::Item);
    /// The answer; an error where it does not fit its type.
    fn answer(&self, of: &Type) -> Result<Option<Self::Answer>, TooLarge>;
    /// The state in whole numbers.
    fn save(&self, words: &mut Vec<i64>);
    /// Takes it back.
    fn restore(words: &mut &[i64]) -> Option<Self>;
    /// About how many bytes lie outside of it.
    fn bytes(&self) -> usize {
        0
    }
}

/// An answer that does not fit its type.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooLarge;

/// What the answers are put in terms of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Type {
    /// How many decimal digits an answer may have; 0 where it is no decimal.
    pub digits: u8,
    /// How many more places behind the point the answers have than the values.
    pub more_places: u32,
}

/// A type whose answers make a column.
pub(super) trait Answer: Copy + Default {
    /// The column; the plan's own type is cast to from there.
    fn column(answers: Vec<Option<Self>>, to: &DataType) -> ArrayRef;
}

impl Answer for i64 {
    fn column(answers: Vec<Option<Self>>, _: &DataType) -> ArrayRef {
        Arc::new(Int64Array::from(answers))
    }
}

impl Answer for f64 {
    fn column(answers: Vec<Option<Self>>, _: &DataType) -> ArrayRef {
        Arc::new(Float64Array::from(answers))
    }
}

impl Answer for i128 {
    fn column(answers: Vec<Option<Self>>, to: &DataType) -> ArrayRef {
        let (precision, scale) = if let DataType::Decimal128(p, s) = to { (*p, *s) } else { (38, 0) };
        let column = Decimal128Array::from(answers).with_data_type(DataType::Decimal128(precision, scale));
        Arc::new(column)
    }
}

/// One aggregate over one argument, for every key.
pub(super) struct Sliding<S: Slide> {
    lane: Option<usize>,
    to: DataType,
    of: Type,
    states: Vec<S>,
    slide: PhantomData<S>,
}

impl<S: Slide> Sliding<S> {
    /// Over the lane of this number, or over rows where there is none; answers of type `to`.
    pub(super) const fn new(lane: Option<usize>, to: DataType, of: Type) -> Self {
        Self { lane, to, of, states: Vec::new(), slide: PhantomData }
    }
}

impl<S: Slide> Function for Sliding<S> {
    fn grow(&mut self, slots: usize) {
        if self.states.len() < slots {
            self.states.resize(slots, S::default());
        }
    }

    fn forget(&mut self, slot: u32) {
        self.states[slot as usize] = S::default();
    }

    fn run(&mut self, walk: &Walk, past: &Past) -> Result<Answers, StreamError> {
        let (valid, values) = match self.lane {
            Some(lane) => (past.lanes[lane].valid(), S::Item::of(&past.lanes[lane])),
            None => (&[][..], &[][..]),
        };
        let mut answers = Vec::with_capacity(walk.steps.len());
        let mut failed = Vec::new();
        for (step, enter, leave) in walk.each() {
            let state = &mut self.states[step.slot as usize];
            if step.fresh {
                *state = S::default();
            }
            if self.lane.is_none() {
                enter.iter().for_each(|_| state.enter(nothing::<S>()));
                leave.iter().for_each(|_| state.leave(nothing::<S>()));
            } else {
                for row in enter {
                    if valid[*row as usize] {
                        state.enter(value::<S>(values, *row));
                    }
                }
                for row in leave {
                    if valid[*row as usize] {
                        state.leave(value::<S>(values, *row));
                    }
                }
            }
            answers.push(state.answer(&self.of).unwrap_or_else(|TooLarge| {
                failed.push(answers.len() as u32);
                None
            }));
        }
        Ok(Answers { column: S::Answer::column(answers, &self.to), failed })
    }

    fn save(&self, slot: u32, words: &mut Vec<i64>) -> Result<(), StreamError> {
        self.states[slot as usize].save(words);
        Ok(())
    }

    fn restore(&mut self, slot: u32, mut words: &[i64]) -> Option<()> {
        self.states[slot as usize] = S::restore(&mut words)?;
        words.is_empty().then_some(())
    }

    fn bytes(&self) -> usize {
        self.states.len() * size_of::<S>() + self.states.iter().map(S::bytes).sum::<usize>()
    }
}

/// The value at a row; a lane of mere presence has none to look at.
fn value<S: Slide>(values: &[S::Item], row: u32) -> S::Item {
    if size_of::<S::Item>() == 0 { nothing::<S>() } else { values[row as usize] }
}

/// The value of a type that has only one.
fn nothing<S: Slide>() -> S::Item {
    S::Item::nothing()
}

/// `count(..)`.
#[derive(Clone, Default)]
pub(super) struct Count(i64);

impl Slide for Count {
    type Item = ();
    type Answer = i64;
    fn enter(&mut self, (): ()) {
        self.0 += 1;
    }
    fn leave(&mut self, (): ()) {
        self.0 -= 1;
    }
    fn answer(&self, _: &Type) -> Result<Option<i64>, TooLarge> {
        Ok(Some(self.0))
    }
    fn save(&self, words: &mut Vec<i64>) {
        words.push(self.0);
    }
    fn restore(words: &mut &[i64]) -> Option<Self> {
        Some(Self(take(words)?))
    }
}

fn take(words: &mut &[i64]) -> Option<i64> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    Some(*first)
}

/// `sum(..)` of doubles, and with `AVERAGE` their mean.
#[derive(Clone, Default)]
pub(super) struct FloatSum<const AVERAGE: bool> {
    count: i64,
    sum: ExactSum,
}

impl<const AVERAGE: bool> Slide for FloatSum<AVERAGE> {
    type Item = f64;
    type Answer = f64;
    fn enter(&mut self, value: f64) {
        self.count += 1;
        self.sum.add(value);
    }
    fn leave(&mut self, value: f64) {
        self.count -= 1;
        self.sum.take_away(value);
    }
    fn answer(&self, _: &Type) -> Result<Option<f64>, TooLarge> {
        let divisor = if AVERAGE { self.count as f64 } else { 1.0 };
        Ok((self.count > 0).then(|| self.sum.value() / divisor))
    }
    fn save(&self, words: &mut Vec<i64>) {
        words.push(self.count);
        self.sum.save(words);
    }
    fn restore(words: &mut &[i64]) -> Option<Self> {
        Some(Self { count: take(words)?, sum: ExactSum::restore(words)? })
    }
    fn bytes(&self) -> usize {
        self.sum.bytes()
    }
}

/// Below this share of the squares, even twice a double's digits may not be enough.
const CANCELS_OUT: f64 = 1e-18;

/// `var_samp`, `var_pop`, and with `ROOT` `stddev` and `stddev_pop`.
#[derive(Clone, Default)]
pub(super) struct Variance<const SAMPLE: bool, const ROOT: bool> {
    count: i64,
    sum: ExactSum,
    squares: ExactSum,
}

impl<const SAMPLE: bool, const ROOT: bool> Slide for Variance<SAMPLE, ROOT> {
    type Item = f64;
    type Answer = f64;
    fn enter(&mut self, value: f64) {
        self.count += 1;
        self.sum.add(value);
        let square = value * value;
        self.squares.add(square);
        self.squares.add(value.mul_add(value, -square));
    }
    fn leave(&mut self, value: f64) {
        self.count -= 1;
        self.sum.take_away(value);
        let square = value * value;
        self.squares.take_away(square);
        self.squares.take_away(value.mul_add(value, -square));
    }
    fn answer(&self, _: &Type) -> Result<Option<f64>, TooLarge> {
        let divisor = self.count - i64::from(SAMPLE);
        if divisor <= 0 {
            return Ok(None);
        }
        // The squares less the square of the sum over the count, both to twice a double's digits: they may nearly
        // cancel out.
        let n = self.count as f64;
        let (high, low) = self.sum.value_and_rest();
        let mean = high / n;
        // What is left of the sum once the mean as a double is taken out of each value.
        let left = (-mean).mul_add(n, high) + low;
        let (squares, squares_low) = self.squares.value_and_rest();
        let product = mean * high;
        let product_low = mean.mul_add(high, -product) + mean * low;
        let about_mean = (squares - product) + (squares_low - product_low) - mean * left - left * (left / n);
        let spread = if about_mean < squares * CANCELS_OUT { self.squares.spread(&self.sum, n) / n } else { about_mean };
        let variance = (spread / divisor as f64).max(0.0);
        Ok(Some(if ROOT { variance.sqrt() } else { variance }))
    }
    fn save(&self, words: &mut Vec<i64>) {
        words.push(self.count);
        self.sum.save(words);
        self.squares.save(words);
    }
    fn restore(words: &mut &[i64]) -> Option<Self> {
        Some(Self { count: take(words)?, sum: ExactSum::restore(words)?, squares: ExactSum::restore(words)? })
    }
    fn bytes(&self) -> usize {
        self.sum.bytes() + self.squares.bytes()
    }
}

/// `sum(..)` of whole numbers.
#[derive(Clone, Default)]
pub(super) struct IntSum {
    count: i64,
    sum: i128,
}

impl Slide for IntSum {
    type Item = i64;
    type Answer = i64;
    fn enter(&mut self, value: i64) {
        self.count += 1;
        self.sum += i128::from(value);
    }
    fn leave(&mut self, value: i64) {
        self.count -= 1;
        self.sum -= i128::from(value);
    }
    fn answer(&self, _: &Type) -> Result<Option<i64>, TooLarge> {
        if self.count == 0 {
            return Ok(None);
        }
        i64::try_from(self.sum).map(Some).map_err(|_| TooLarge)
    }
    fn save(&self, words: &mut Vec<i64>) {
        words.extend([self.count, self.sum as i64, (self.sum >> 64) as i64]);
    }
    fn restore(words: &mut &[i64]) -> Option<Self> {
        let (count, low, high) = (take(words)?, take(words)?, take(words)?);
        Some(Self { count, sum: (i128::from(high) << 64) | i128::from(low as u64) })
    }
}

/// `sum(..)` of decimals, and with `AVERAGE` their mean.
#[derive(Clone, Default)]
pub(super) struct WideSum<const AVERAGE: bool> {
    count: i64,
    sum: i256,
}

impl<const AVERAGE: bool> Slide for WideSum<AVERAGE> {
    type Item = i128;
    type Answer = i128;
    fn enter(&mut self, value: i128) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(i256::from_i128(value));
    }
    fn leave(&mut self, value: i128) {
        self.count -= 1;
        self.sum = self.sum.wrapping_sub(i256::from_i128(value));
    }
    fn answer(&self, of: &Type) -> Result<Option<i128>, TooLarge> {
        if self.count == 0 {
            return Ok(None);
        }
        let mut value = self.sum;
        if AVERAGE {
            value = value.checked_mul(i256::from_i128(10_i128.pow(of.more_places))).ok_or(TooLarge)?;
            value = value.checked_div(i256::from_i128(i128::from(self.count))).ok_or(TooLarge)?;
        }
        let value = value.to_i128().ok_or(TooLarge)?;
        let fits = value.unsigned_abs() < 10_u128.pow(u32::from(of.digits));
        if fits { Ok(Some(value)) } else { Err(TooLarge) }
    }
    fn save(&self, words: &mut Vec<i64>) {
        words.push(self.count);
        words.extend(self.sum.to_le_bytes().as_chunks::<8>().0.iter().map(|word| i64::from_le_bytes(*word)));
    }
    fn restore(words: &mut &[i64]) -> Option<Self> {
        let count = take(words)?;
        let mut bytes = [0; 32];
        for part in bytes.as_chunks_mut::<8>().0 {
            *part = take(words)?.to_le_bytes();
        }
        Some(Self { count, sum: i256::from_le_bytes(bytes) })
    }
}

/// A type with a least and a greatest of any two.
pub(super) trait Ranked: Native + Answer {
    /// Whether `self` is at least as great as `other`.
    fn reaches(self, other: Self) -> bool;
    /// As whole numbers.
    fn save(self, words: &mut Vec<i64>);
    /// Back.
    fn restore(words: &mut &[i64]) -> Option<Self>;
}

impl Ranked for f64 {
    fn reaches(self, other: Self) -> bool {
        self.total_cmp(&other).is_ge()
    }
    fn save(self, words: &mut Vec<i64>) {
        words.push(self.to_bits() as i64);
    }
    fn restore(words: &mut &[i64]) -> Option<Self> {
        Some(Self::from_bits(take(words)? as u64))
    }
}

impl Ranked for i64 {
    fn reaches(self, other: Self) -> bool {
        self >= other
    }
    fn save(self, words: &mut Vec<i64>) {
        words.push(self);
    }
    fn restore(words: &mut &[i64]) -> Option<Self> {
        take(words)
    }
}

impl Ranked for i128 {
    fn reaches(self, other: Self) -> bool {
        self >= other
    }
    fn save(self, words: &mut Vec<i64>) {
        words.extend([self as i64, (self >> 64) as i64]);
    }
    fn restore(words: &mut &[i64]) -> Option<Self> {
        let (low, high) = (take(words)?, take(words)?);
        Some((Self::from(high) << 64) | Self::from(low as u64))
    }
}

fn beats<T: Ranked, const MAX: bool>(new: T, old: T) -> bool {
    if MAX { new.reaches(old) } else { old.reaches(new) }
}

/// `min(..)` or `max(..)` of a frame that moves on: the values that may still become the answer, best first.
#[derive(Clone)]
pub(super) struct Extreme<T, const MAX: bool> {
    /// Each with its number among all that have entered.
    values: VecDeque<(u64, T)>,
    entered: u64,
    left: u64,
}

impl<T, const MAX: bool> Default for Extreme<T, MAX> {
    fn default() -> Self {
        Self { values: VecDeque::new(), entered: 0, left: 0 }
    }
}

impl<T: Ranked, const MAX: bool> Slide for Extreme<T, MAX> {
    type Item = T;
    type Answer = T;
    fn enter(&mut self, value: T) {
        while self.values.back().is_some_and(|(_, old)| beats::<T, MAX>(value, *old)) {
            self.values.pop_back();
        }
        self.values.push_back((self.entered, value));
        self.entered += 1;
    }
    fn leave(&mut self, _: T) {
        if self.values.front().is_some_and(|(number, _)| *number == self.left) {
            self.values.pop_front();
        }
        self.left += 1;
    }
    fn answer(&self, _: &Type) -> Result<Option<T>, TooLarge> {
        Ok(self.values.front().map(|(_, value)| *value))
    }
    // The frame's rows are saved, and this is made of them again.
    fn save(&self, _: &mut Vec<i64>) {}
    fn restore(_: &mut &[i64]) -> Option<Self> {
        Some(Self::default())
    }
    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<(u64, T)>()
    }
}

/// `min(..)` or `max(..)` of all rows so far.
#[derive(Clone)]
pub(super) struct Best<T, const MAX: bool>(Option<T>);

impl<T, const MAX: bool> Default for Best<T, MAX> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Ranked, const MAX: bool> Slide for Best<T, MAX> {
    type Item = T;
    type Answer = T;
    fn enter(&mut self, value: T) {
        if self.0.is_none_or(|old| beats::<T, MAX>(value, old)) {
            self.0 = Some(value);
        }
    }
    fn leave(&mut self, _: T) {}
    fn answer(&self, _: &Type) -> Result<Option<T>, TooLarge> {
        Ok(self.0)
    }
    fn save(&self, words: &mut Vec<i64>) {
        if let Some(value) = self.0 {
            value.save(words);
        }
    }
    fn restore(words: &mut &[i64]) -> Option<Self> {
        if words.is_empty() { Some(Self(None)) } else { T::restore(words).map(|value| Self(Some(value))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variance(values: &[f64]) -> f64 {
        let mut one = Variance::<true, false>::default();
        one.enter(12_345.678);
        values.iter().for_each(|value| one.enter(*value));
        one.leave(12_345.678);
        one.answer(&Type::default()).unwrap().unwrap()
    }

    #[test]
    fn a_variance_keeps_its_digits_where_the_mean_is_far_from_zero() {
        for mean in [0.0, 97.3, 1e6, 1.7e12, -4e9] {
            let values: Vec<f64> = (0..50).map(|n| mean + f64::from(n % 7) / 4.0).collect();
            let centre = values.iter().map(|value| value - mean).sum::<f64>() / 50.0;
            let expected = values.iter().map(|value| (value - mean - centre).powi(2)).sum::<f64>() / 49.0;
            let found = variance(&values);
            assert!((found - expected).abs() <= 1e-9 * expected, "{mean}: {found} and {expected}");
        }
    }

    #[test]
    fn a_sum_of_whole_numbers_may_be_too_large_and_come_back() {
        let mut one = IntSum::default();
        one.enter(i64::MAX);
        one.enter(1);
        assert!(one.answer(&Type::default()).is_err());
        one.leave(i64::MAX);
        assert_eq!(one.answer(&Type::default()).unwrap(), Some(1));
    }

    #[test]
    fn a_mean_of_decimals_is_cut_off_behind_four_more_places() {
        let mut one = WideSum::<true>::default();
        [100, 101, 101].iter().for_each(|value| one.enter(*value));
        assert_eq!(one.answer(&Type { digits: 14, more_places: 4 }).unwrap(), Some(1_006_666));
        assert!(one.answer(&Type { digits: 6, more_places: 4 }).is_err());
    }
}
