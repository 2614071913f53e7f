//! Sorting the rows of one batch into panes, and the late ones out.
//!
//! A row is late for the windows that its own partition's watermark had closed just before it. Late for
//! all of them, it goes aside. Late for some, it still counts in the others, so it may not meet the rows
//! that count in all: its pane entry carries the end of the first window it counts in. Always: where a row
//! goes depends on its time and its mark alone, never on its neighbours.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, UInt32Array};

use super::assign::WindowRule;
use crate::stream::rowwise::take_column;
use crate::stream::{Rows, StreamError};

/// Rows of one pane that count in the same windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The start of the pane.
    pub start: i64,
    /// The end of the first window they count in.
    pub first_end: i64,
}

/// Which rows of a batch.
#[derive(Debug)]
pub(super) enum Pick {
    /// All of them: nothing is copied.
    All,
    /// A run, which shares the batch's memory.
    Run(usize, usize),
    /// These.
    Some(UInt32Array),
}

impl Pick {
    pub(super) fn of(&self, column: &ArrayRef) -> Result<ArrayRef, StreamError> {
        match self {
            Self::All => Ok(ArrayRef::clone(column)),
            Self::Run(from, len) => Ok(column.slice(*from, *len)),
            Self::Some(indices) => take_column(column, indices),
        }
    }

    pub(super) fn len(&self, all: usize) -> usize {
        match self {
            Self::All => all,
            Self::Run(_, len) => *len,
            Self::Some(indices) => indices.len(),
        }
    }
}

/// Where the rows go: each place with its rows, in order of place; the indices of the late ones.
#[derive(Debug, Default)]
pub(super) struct Split {
    pub places: Vec<(Place, Pick)>,
    pub late: Vec<u32>,
}

/// Sorts the rows. `closed` is how far windows have fired here, which counts where a partition has been
/// idle and its own watermark lies behind.
pub(super) fn split(rule: &WindowRule, rows: &Rows, closed: i64) -> Split {
    if let Some(place) = all_in_one(rule, rows, closed) {
        return Split { places: vec![(place, Pick::All)], late: Vec::new() };
    }
    let mut late = Vec::new();
    let mut places: BTreeMap<Place, Vec<u32>> = BTreeMap::new();
    let mut run: Vec<u32> = Vec::new();
    let mut current: Option<Place> = None;
    // The current place, where its rows count in all windows of their pane: the next row is likely to be one of them.
    let mut whole: Option<Place> = None;
    for (row, (at, before)) in rows.times.iter().zip(&rows.before).enumerate() {
        let row = row as u32;
        let mark = (*before).max(closed);
        let in_pane = |place: Place| place.start <= *at && *at < place.start + rule.pane_ms() && rule.places(*at);
        if whole.is_some_and(|place| in_pane(place) && mark < place.first_end) {
            run.push(row);
            continue;
        }
        let place = match place_of(rule, *at, mark) {
            Judged::In(place) => place,
            Judged::Nowhere => continue,
            Judged::Late => {
                late.push(row);
                continue;
            }
        };
        if current != Some(place) {
            if let Some(last) = current.replace(place) {
                places.entry(last).or_default().append(&mut run);
            }
            whole = Some(place).filter(|place| place.first_end == rule.first_end(place.start));
        }
        run.push(row);
    }
    if let Some(last) = current {
        places.entry(last).or_default().append(&mut run);
    }
    let places = places.into_iter().map(|(place, indices)| (place, pick(indices))).collect();
    Split { places, late }
}

enum Judged {
    In(Place),
    Nowhere,
    Late,
}

fn place_of(rule: &WindowRule, at: i64, mark: i64) -> Judged {
    if !rule.places(at) {
        return Judged::Late;
    }
    let start = rule.pane_of(at);
    if !rule.holds(start) {
        return Judged::Nowhere;
    }
    match rule.first_open_end(start, mark) {
        Some(first_end) => Judged::In(Place { start, first_end }),
        None => Judged::Late,
    }
}

/// The usual case: all rows lie in one pane and none is late for anything.
fn all_in_one(rule: &WindowRule, rows: &Rows, closed: i64) -> Option<Place> {
    if rows.is_empty() {
        return None;
    }
    // Plain folds: `min` and `max` of an iterator call a comparison for every row.
    let (first, last) = rows.times.iter().fold((i64::MAX, i64::MIN), |(first, last), at| (first.min(*at), last.max(*at)));
    if !rule.places(first) || !rule.places(last) {
        return None;
    }
    let start = rule.pane_of(first);
    let first_end = rule.first_end(start);
    let mark = rows.before.iter().fold(closed, |mark, before| mark.max(*before));
    let one = last < start + rule.pane_ms() && rule.holds(start) && mark < first_end;
    one.then_some(Place { start, first_end })
}

fn pick(indices: Vec<u32>) -> Pick {
    match (indices.first(), indices.last()) {
        (Some(first), Some(last)) if (last - first) as usize + 1 == indices.len() => Pick::Run(*first as usize, indices.len()),
        _ => Pick::Some(UInt32Array::from(indices)),
    }
}
