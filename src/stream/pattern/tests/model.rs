//! What a pattern has to find, by plain backtracking over the rows of a key, and what is told of rows.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;

use super::parts::{Case, measures};
use super::{DAY, TS};
use crate::stream::doubles::Reading;
use crate::stream::pattern::{Pattern, PatternCondition, PatternEnd, PatternRead, PatternSkip, TallyFunction, keys};

/// A row that is not late: time, partition, offset, key, value.
pub(super) type Row = (i64, i32, i64, &'static str, Option<f64>);

/// The rows on time, by key, in order, cut where a key was silent for more than a day; and what is told of the others.
pub(super) fn on_time(inputs: &[Vec<Reading>], delay: i64) -> (BTreeMap<&'static str, Vec<Vec<Row>>>, Vec<String>) {
    let (mut all, mut late): (Vec<Row>, Vec<String>) = (Vec::new(), Vec::new());
    for (partition, readings) in inputs.iter().enumerate() {
        let mut mark = i64::MIN;
        for (offset, (key, at, value)) in readings.iter().enumerate() {
            match *at {
                Some(at) if at >= mark => all.push((at, partition as i32, offset as i64, *key, *value)),
                _ => late.push(format!("p{partition}@{offset} late")),
            }
            mark = mark.max(at.map_or(mark, |at| at - delay));
        }
    }
    all.sort_by_key(|row| (row.0, row.1, row.2));
    let mut keys: BTreeMap<&'static str, Vec<Vec<Row>>> = BTreeMap::new();
    for row in all {
        let lives = keys.entry(row.3).or_default();
        match lives.last_mut() {
            Some(life) if row.0 - life[life.len() - 1].0 <= DAY => life.push(row),
            _ => lives.push(vec![row]),
        }
    }
    (keys, late)
}

/// Plain backtracking over the rows of one key.
struct Model<'a> {
    case: &'a Case,
    rows: &'a [Row],
    start: usize,
    /// Each row taken with its variable.
    taken: Vec<(usize, usize)>,
    /// How many steps may still be made.
    budget: usize,
}

type Next<'n> = &'n mut dyn FnMut(&mut Model<'_>, usize) -> bool;

impl Model<'_> {
    fn read(&self, read: &PatternRead, taken: &[(usize, usize)], whole: &[(usize, usize)], number: i64) -> Option<f64> {
        match read {
            PatternRead::Row { argument, of, from, skip, back, is_final } => {
                let among = if *is_final { whole } else { taken };
                let mut rows: Vec<usize> = among.iter().filter(|(_, v)| of.is_none_or(|of| of == *v)).map(|(row, _)| *row).collect();
                if *from == PatternEnd::Last {
                    rows.reverse();
                }
                let at = rows.get(*skip as usize)?.checked_sub(*back as usize)?;
                if *argument == TS { Some(self.rows[at].0 as f64) } else { self.rows[at].4 }
            }
            PatternRead::Tally { function, argument, of, is_final, .. } => {
                let among = if *is_final { whole } else { taken };
                let rows: Vec<usize> = among.iter().filter(|(_, v)| of.is_none_or(|of| of == *v)).map(|(row, _)| *row).collect();
                if argument.is_none() {
                    return Some(rows.len() as f64);
                }
                let values: Vec<f64> = rows.iter().filter_map(|row| self.rows[*row].4).collect();
                let some = |value: f64| (!values.is_empty()).then_some(value);
                match function {
                    TallyFunction::Count => Some(values.len() as f64),
                    TallyFunction::Sum => some(values.iter().sum()),
                    TallyFunction::Avg => some(values.iter().sum::<f64>() / values.len() as f64),
                    TallyFunction::Min => values.iter().copied().reduce(f64::min),
                    TallyFunction::Max => values.iter().copied().reduce(f64::max),
                }
            }
            PatternRead::Classifier { is_final } => (if *is_final { whole } else { taken }).last().map(|(_, v)| *v as f64),
            PatternRead::Number => Some(number as f64),
        }
    }

    /// The conditions of these tests are all `left < right`.
    fn holds(&self, condition: &PatternCondition) -> bool {
        let text = condition.value.text();
        let (left, right) = text.split_once(" < ").unwrap();
        let side = |side: &str| match side.strip_prefix("Read(") {
            Some(at) => self.read(&condition.reads[at.trim_end_matches(')').parse::<usize>().unwrap()], &self.taken, &self.taken, 0),
            None => side.strip_prefix("Number(").and_then(|number| number.trim_end_matches(')').parse().ok()),
        };
        side(left).zip(side(right)).is_some_and(|(left, right)| left < right)
    }

    fn find(&mut self, pattern: &Pattern, at: usize, next: Next<'_>) -> bool {
        if self.budget == 0 {
            return true;
        }
        self.budget -= 1;
        match pattern {
            Pattern::Variable(variable) => {
                let Some(row) = self.rows.get(at) else { return false };
                if self.case.within_ms.is_some_and(|within| row.0 - self.rows[self.start].0 > within) {
                    return false;
                }
                self.taken.push((at, *variable));
                let of = &self.case.variables[*variable];
                let found = of.local.iter().chain(&of.history).all(|condition| self.holds(condition)) && next(self, at + 1);
                if !found {
                    self.taken.pop();
                }
                found
            }
            Pattern::Sequence(parts) => match parts.split_first() {
                None => next(self, at),
                Some((first, rest)) => {
                    let rest = Pattern::Sequence(rest.to_vec());
                    self.find(first, at, &mut |model, at| model.find(&rest, at, next))
                }
            },
            Pattern::Either(parts) => parts.iter().any(|part| self.find(part, at, next)),
            Pattern::Repeat { of, least, most, reluctant } => self.again(of, (*least, *most, *reluctant), 0, at, next),
        }
    }

    fn again(&mut self, of: &Pattern, how: (u32, Option<u32>, bool), count: u32, at: usize, next: Next<'_>) -> bool {
        let (least, most, reluctant) = how;
        if count >= least && reluctant && next(self, at) {
            return true;
        }
        let more = most.is_none_or(|most| count < most)
            && self.find(of, at, &mut |model, after| {
                // A round without a row is the last one, once there are enough.
                if after == at && count >= least { next(model, after) } else { model.again(of, how, count + 1, after, next) }
            });
        more || (count >= least && !reluctant && next(self, at))
    }
}

/// What comes out for one key's rows; `None` where it takes too long to say. Adds what is told of rows.
pub(super) fn by_backtracking(case: &Case, rows: &[Row], told: &mut Vec<String>) -> Option<Vec<String>> {
    let (mut start, mut number, mut lines) = (0, 0, Vec::new());
    while start < rows.len() {
        let mut model = Model { case, rows, start, taken: Vec::new(), budget: 200_000 };
        let found = model.find(&case.pattern, start, &mut |_, _| true);
        if model.budget == 0 {
            return None;
        }
        if !found {
            start += 1;
            continue;
        }
        number += 1;
        let whole = model.taken.clone();
        let from = if case.all_rows { 1 } else { whole.len() };
        for upto in from..=whole.len() {
            let mut cells = vec![rows[start].3.to_owned()];
            if case.all_rows {
                cells.push(shown(rows[whole[upto - 1].0].4, &DataType::Float64));
            }
            for (measure, of) in measures(case.variables.len() - 1, case.is_final) {
                let value = model.read(&measure.reads[0], &whole[..upto], &whole, number);
                cells.push(match of {
                    DataType::Utf8 => case.variables[value.unwrap() as usize].name.clone(),
                    of => shown(value, &of),
                });
            }
            lines.push(cells.join(" "));
        }
        let of = |variable: usize| move |(_, taken): &&(usize, usize)| *taken == variable;
        let to = match case.skip {
            PatternSkip::PastLastRow => whole.last().map(|(row, _)| row + 1),
            PatternSkip::ToNextRow => Some(start + 1),
            PatternSkip::ToFirst(variable) => whole.iter().find(of(variable)).map(|(row, _)| *row),
            PatternSkip::ToLast(variable) => whole.iter().rev().find(of(variable)).map(|(row, _)| *row),
        };
        start = to.filter(|row| *row > start).unwrap_or_else(|| {
            told.push(format!("p{}@{} {}", rows[start].1, rows[start].2, keys::NO_PLACE));
            start + 1
        });
    }
    Some(lines)
}

fn shown(value: Option<f64>, of: &DataType) -> String {
    match (value, of) {
        (None, _) => "-".to_owned(),
        (Some(value), DataType::Float64) => format!("{value:?}"),
        (Some(value), _) => format!("{}", value as i64),
    }
}
