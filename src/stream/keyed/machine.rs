//! The functions over a key's readings that need only a few numbers of its past.
//!
//! Each is a pure step: the key's state, a reading's time and value in, the answer out. Always: a reading
//! without a value (NULL, or not a number) changes no state.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};

use crate::stream::StreamError;
use crate::stream::rowwise::arrow_error;

/// Rows of one batch in event-time order, with the slot of each row's key and whether it begins anew.
pub(super) struct Run<'a> {
    pub slots: &'a [u32],
    pub fresh: &'a [bool],
    pub times: &'a [i64],
}

/// A function with its memory of every key, by slot.
pub(super) trait Machine: Send {
    /// Makes room for this many slots.
    fn grow(&mut self, slots: usize);
    /// Forgets the key in a slot.
    fn forget(&mut self, slot: u32);
    /// Steps through the rows; one answer a row.
    fn run(&mut self, run: &Run<'_>, arguments: &[ArrayRef]) -> Result<ArrayRef, StreamError>;
    /// What it remembers of the keys in these slots: the place in `slots`, a time, a value.
    fn save(&self, slots: &[u32]) -> Result<RecordBatch, StreamError>;
    /// Takes it back; the keys are in slots 0, 1, 2 ..
    fn restore(&mut self, batch: &RecordBatch) -> Option<()>;
    /// About how many bytes it holds.
    fn bytes(&self) -> usize;
}

/// One function over numbers.
pub(super) trait Rule: Send {
    /// What it remembers of a key.
    type State: Default + Clone + Send;
    /// Whether its answers are true and false (1 and 0) or numbers.
    const BOOLEAN: bool;
    /// One reading.
    fn step(&self, state: &mut Self::State, at: i64, value: Option<f64>) -> Option<f64>;
    /// The state as pairs, and back.
    fn save(state: &Self::State) -> Vec<(i64, f64)>;
    /// The state out of what [`Rule::save`] gave.
    fn restore(pairs: &[(i64, f64)]) -> Self::State;
}

/// A [`Rule`] with every key's state.
pub(super) struct Numbers<R: Rule> {
    rule: R,
    states: Vec<R::State>,
}

impl<R: Rule> Numbers<R> {
    pub(super) const fn new(rule: R) -> Self {
        Self { rule, states: Vec::new() }
    }
}

impl<R: Rule> Machine for Numbers<R> {
    fn grow(&mut self, slots: usize) {
        if self.states.len() < slots {
            self.states.resize(slots, R::State::default());
        }
    }

    fn forget(&mut self, slot: u32) {
        self.states[slot as usize] = R::State::default();
    }

    fn run(&mut self, run: &Run<'_>, arguments: &[ArrayRef]) -> Result<ArrayRef, StreamError> {
        let values = arguments.first().and_then(|column| column.as_any().downcast_ref::<Float64Array>());
        let values = values.ok_or_else(|| StreamError::Limit("a function over numbers was given none".to_owned()))?;
        let mut answers = Vec::with_capacity(run.slots.len());
        for (row, slot) in run.slots.iter().enumerate() {
            let state = &mut self.states[*slot as usize];
            if run.fresh[row] {
                *state = R::State::default();
            }
            let value = values.is_valid(row).then(|| values.value(row)).filter(|value| !value.is_nan());
            answers.push(self.rule.step(state, run.times[row], value));
        }
        if R::BOOLEAN {
            return Ok(Arc::new(answers.into_iter().map(|answer| answer.map(|a| a != 0.0)).collect::<BooleanArray>()));
        }
        Ok(Arc::new(Float64Array::from(answers)))
    }

    fn save(&self, slots: &[u32]) -> Result<RecordBatch, StreamError> {
        let (mut keys, mut times, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (key, slot) in slots.iter().enumerate() {
            for (at, value) in R::save(&self.states[*slot as usize]) {
                keys.push(key as u32);
                times.push(at);
                values.push(value);
            }
        }
        memory_batch(keys, times, Arc::new(Float64Array::from(values)))
    }

    fn restore(&mut self, batch: &RecordBatch) -> Option<()> {
        let (keys, times, values) = memory_columns(batch)?;
        let values = values.as_any().downcast_ref::<Float64Array>()?.values();
        let mut from = 0;
        while from < keys.len() {
            let key = keys[from];
            let len = keys[from..].iter().take_while(|k| **k == key).count();
            let pairs: Vec<(i64, f64)> = (from..from + len).map(|row| (times[row], values[row])).collect();
            *self.states.get_mut(key as usize)? = R::restore(&pairs);
            from += len;
        }
        Some(())
    }

    fn bytes(&self) -> usize {
        let own = |state: &R::State| R::save(state).len() * 16;
        self.states.len() * size_of::<R::State>() + self.states.iter().map(own).sum::<usize>()
    }
}

/// What machines remember, as a batch: a key's number, a time, a value.
pub(super) fn memory_batch(keys: Vec<u32>, times: Vec<i64>, values: ArrayRef) -> Result<RecordBatch, StreamError> {
    let fields = vec![
        Field::new("key", DataType::UInt32, false),
        Field::new("at", DataType::Int64, false),
        Field::new("value", values.data_type().clone(), true),
    ];
    let columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(keys)), Arc::new(Int64Array::from(times)), values];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| arrow_error("a function's state", &e))
}

/// The columns of such a batch.
pub(super) fn memory_columns(batch: &RecordBatch) -> Option<(&[u32], &[i64], &ArrayRef)> {
    let keys = batch.columns().first()?.as_any().downcast_ref::<UInt32Array>()?;
    let times = batch.columns().get(1)?.as_any().downcast_ref::<Int64Array>()?;
    Some((keys.values(), times.values(), batch.columns().get(2)?))
}

/// `held_for`: whether a condition has been true at every reading for so long.
pub(super) struct HeldFor {
    pub interval_ms: i64,
    pub max_gap_ms: i64,
}

/// Since when the condition is true, and the last reading that had one.
#[derive(Clone, Debug, Default)]
pub(super) struct Holding {
    since: Option<i64>,
    last: Option<i64>,
}

impl Rule for HeldFor {
    type State = Holding;
    const BOOLEAN: bool = true;

    fn step(&self, state: &mut Holding, at: i64, value: Option<f64>) -> Option<f64> {
        let condition = value? != 0.0;
        let near = state.last.is_some_and(|last| at - last <= self.max_gap_ms);
        state.last = Some(at);
        if !condition {
            state.since = None;
            return Some(0.0);
        }
        let since = state.since.filter(|_| near).unwrap_or(at);
        state.since = Some(since);
        Some(f64::from(u8::from(at - since >= self.interval_ms)))
    }

    fn save(state: &Holding) -> Vec<(i64, f64)> {
        state.last.iter().map(|last| (*last, 0.0)).chain(state.since.iter().map(|since| (*since, 1.0))).collect()
    }

    fn restore(pairs: &[(i64, f64)]) -> Holding {
        let of = |kind| pairs.iter().find(|(_, k)| *k == kind).map(|(at, _)| *at);
        Holding { since: of(1.0), last: of(0.0) }
    }
}

/// `hysteresis`: on at one limit, off at another.
pub(super) struct Hysteresis {
    pub enter: f64,
    pub exit: f64,
}

impl Rule for Hysteresis {
    type State = bool;
    const BOOLEAN: bool = true;

    fn step(&self, on: &mut bool, _at: i64, value: Option<f64>) -> Option<f64> {
        if let Some(value) = value {
            let high = self.enter >= self.exit;
            let enters = if high { value >= self.enter } else { value <= self.enter };
            let leaves = if high { value <= self.exit } else { value >= self.exit };
            *on = enters || (*on && !leaves);
        }
        Some(f64::from(u8::from(*on)))
    }

    fn save(on: &bool) -> Vec<(i64, f64)> {
        if *on { vec![(0, 1.0)] } else { Vec::new() }
    }

    fn restore(pairs: &[(i64, f64)]) -> bool {
        !pairs.is_empty()
    }
}

/// `twa_below`: the time-weighted average depth below a limit.
pub(super) struct TwaBelow {
    pub limit: f64,
    pub max_gap_ms: i64,
}

/// The last reading, the area below the limit and the time monitored so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Area {
    last: Option<(i64, f64)>,
    area: f64,
    monitored_ms: i64,
}

impl Rule for TwaBelow {
    type State = Area;
    const BOOLEAN: bool = false;

    fn step(&self, state: &mut Area, at: i64, value: Option<f64>) -> Option<f64> {
        if let Some(value) = value {
            if let Some((last, held)) = state.last
                && at - last <= self.max_gap_ms
            {
                state.area += (self.limit - held).max(0.0) * (at - last) as f64;
                state.monitored_ms += at - last;
            }
            state.last = Some((at, value));
        }
        (state.monitored_ms > 0).then(|| state.area / state.monitored_ms as f64)
    }

    fn save(state: &Area) -> Vec<(i64, f64)> {
        state.last.map_or_else(Vec::new, |last| vec![last, (state.monitored_ms, state.area)])
    }

    fn restore(pairs: &[(i64, f64)]) -> Area {
        match pairs {
            [last, (monitored_ms, area)] => Area { last: Some(*last), area: *area, monitored_ms: *monitored_ms },
            _ => Area::default(),
        }
    }
}

/// `rate_of_change`: the change a minute since the reading an interval ago.
pub(super) struct RateOfChange {
    pub interval_ms: i64,
}

impl Rule for RateOfChange {
    type State = VecDeque<(i64, f64)>;
    const BOOLEAN: bool = false;

    fn step(&self, past: &mut Self::State, at: i64, value: Option<f64>) -> Option<f64> {
        let value = value?;
        past.push_back((at, value));
        let limit = at.saturating_sub(self.interval_ms);
        // Of the readings at or before the limit only the newest is ever needed again.
        while past.len() > 1 && past[1].0 <= limit {
            past.pop_front();
        }
        let (then, old) = *past.front().filter(|(then, _)| *then <= limit && *then < at)?;
        Some((value - old) * 60_000.0 / (at - then) as f64)
    }

    fn save(past: &Self::State) -> Vec<(i64, f64)> {
        past.iter().copied().collect()
    }

    fn restore(pairs: &[(i64, f64)]) -> Self::State {
        pairs.iter().copied().collect()
    }
}

/// An argument as numbers; true is 1 and false is 0.
pub(super) fn as_numbers(column: &ArrayRef) -> Result<ArrayRef, StreamError> {
    if *column.data_type() == DataType::Float64 {
        return Ok(ArrayRef::clone(column));
    }
    cast(column, &DataType::Float64).map_err(|e| arrow_error("an argument", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<R: Rule>(rule: &R, readings: &[(i64, Option<f64>)]) -> Vec<Option<f64>> {
        let mut state = R::State::default();
        let step = |(at, value): &(i64, Option<f64>)| {
            // Whatever is saved is all there is.
            state = R::restore(&R::save(&state));
            rule.step(&mut state, *at, *value)
        };
        readings.iter().map(step).collect()
    }

    #[test]
    fn held_for_is_met_by_a_reading_and_broken_by_one_or_by_a_gap() {
        let rule = HeldFor { interval_ms: 10, max_gap_ms: 30 };
        let (yes, no, none) = (Some(1.0), Some(0.0), None);
        type Step = (i64, Option<f64>, Option<f64>);
        let cases: &[(&str, &[Step])] = &[
            ("exactly the interval is enough", &[(0, yes, no), (9, yes, no), (10, yes, yes), (11, yes, yes)]),
            ("a false reading starts anew", &[(0, yes, no), (9, no, no), (10, yes, no), (19, yes, no), (20, yes, yes)]),
            ("NULL neither breaks nor extends", &[(0, yes, no), (5, none, none), (10, yes, yes)]),
            ("a gap over 30 starts anew", &[(0, yes, no), (31, yes, no), (40, yes, no), (41, yes, yes)]),
            ("a gap of 30 does not", &[(0, yes, no), (30, yes, yes)]),
            ("NULL does not bridge a gap", &[(0, yes, no), (16, none, none), (31, yes, no)]),
            ("a gap ends what was met", &[(0, yes, no), (10, yes, yes), (41, yes, no)]),
        ];
        for (name, steps) in cases {
            let readings: Vec<_> = steps.iter().map(|(at, value, _)| (*at, *value)).collect();
            let expected: Vec<_> = steps.iter().map(|(_, _, answer)| *answer).collect();
            assert_eq!(told(&rule, &readings), expected, "{name}");
        }
        assert_eq!(told(&HeldFor { interval_ms: 0, max_gap_ms: 30 }, &[(5, yes)]), [yes]);
    }

    #[test]
    fn hysteresis_goes_on_at_one_limit_and_off_at_the_other() {
        let low = Hysteresis { enter: 88.0, exit: 90.0 };
        let values = [92.0, 89.0, 88.0, 89.0, 89.9, 90.0, 89.0];
        let readings: Vec<_> = values.iter().map(|v| (0, Some(*v))).collect();
        assert_eq!(told(&low, &readings).iter().map(|a| a.unwrap()).collect::<Vec<_>>(), [0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
        let high = Hysteresis { enter: 120.0, exit: 110.0 };
        let readings = [(0, Some(119.0)), (0, Some(120.0)), (0, None), (0, Some(111.0)), (0, Some(110.0))];
        assert_eq!(told(&high, &readings).iter().map(|a| a.unwrap()).collect::<Vec<_>>(), [0.0, 1.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn twa_below_integrates_steps_and_leaves_gaps_out() {
        let rule = TwaBelow { limit: 65.0, max_gap_ms: 60 };
        let readings = [(0, Some(60.0)), (10, Some(70.0)), (20, Some(55.0)), (81, Some(65.0)), (91, None), (101, Some(80.0))];
        // 5 for 10 ms, 0 for 10 ms, a gap of 61 ms that counts for nothing, 0 for 20 ms.
        assert_eq!(told(&rule, &readings), [None, Some(5.0), Some(2.5), Some(2.5), Some(2.5), Some(1.25)]);
    }

    #[test]
    fn rate_of_change_is_per_minute_against_the_reading_at_or_just_before_the_interval() {
        let rule = RateOfChange { interval_ms: 60_000 };
        let readings =
            [(0, Some(80.0)), (30_000, Some(85.0)), (60_000, Some(90.0)), (80_000, None), (100_000, Some(95.0)), (220_000, Some(75.0))];
        // At 100 s the reading at or before 40 s is that of 30 s: 10 in 70 s.
        let rate = |change: f64, seconds: f64| Some(change * 60_000.0 / (seconds * 1000.0));
        assert_eq!(told(&rule, &readings), [None, None, rate(10.0, 60.0), None, rate(10.0, 70.0), rate(-20.0, 120.0)]);
    }
}
