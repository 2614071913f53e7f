//! The functions over frames: what an operator asks of one, and those that are no sliding aggregates.
//!
//! Owns the trait [`Function`], [`Pick`] (the first and last value of a frame, of any type), [`AnyExtreme`] (the least
//! and greatest of values of any type) and [`Place`] (a row's number among its key's rows).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array, new_empty_array};
use arrow::row::{OwnedRow, Row, RowConverter, SortField};

use super::frame::Walk;
use super::past::{NOTHING, Past};
use crate::stream::StreamError;
use crate::stream::rowwise::arrow_error;

/// One answer a row.
pub(super) struct Answers {
    pub column: ArrayRef,
    /// The rows whose answer does not fit its type.
    pub failed: Vec<u32>,
}

/// A function with its memory of every key, by slot.
pub(super) trait Function: Send {
    /// Makes room for this many slots.
    fn grow(&mut self, slots: usize);
    /// Forgets the key in a slot.
    fn forget(&mut self, slot: u32);
    /// Follows the frame over the rows of a batch.
    fn run(&mut self, walk: &Walk, past: &Past) -> Result<Answers, StreamError>;
    /// What it remembers of a key beside the rows in the frame, where the frame has no beginning that moves.
    fn save(&self, slot: u32, words: &mut Vec<i64>) -> Result<(), StreamError>;
    /// Takes it back.
    fn restore(&mut self, slot: u32, words: &[i64]) -> Option<()>;
    /// About how many bytes it holds.
    fn bytes(&self) -> usize;
}

fn error(e: &arrow::error::ArrowError) -> StreamError {
    arrow_error("a value of a frame", e)
}

fn converter(column: &arrow::datatypes::DataType) -> Result<RowConverter, StreamError> {
    RowConverter::new(vec![SortField::new(column.clone())]).map_err(|e| error(&e))
}

/// Bytes as whole numbers: how many there are, then eight to each.
fn words_of(bytes: &[u8], words: &mut Vec<i64>) {
    words.push(bytes.len() as i64);
    let (whole, rest) = bytes.as_chunks::<8>();
    words.extend(whole.iter().map(|chunk| i64::from_le_bytes(*chunk)));
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        words.push(i64::from_le_bytes(last));
    }
}

fn bytes_of(words: &[i64]) -> Option<Vec<u8>> {
    let (length, rest) = words.split_first()?;
    let mut bytes: Vec<u8> = rest.iter().flat_map(|word| word.to_le_bytes()).collect();
    let length = usize::try_from(*length).ok().filter(|length| *length <= bytes.len() && bytes.len() - length < 8)?;
    bytes.truncate(length);
    Some(bytes)
}

/// `first_value(..)` or `last_value(..)`.
pub(super) struct Pick {
    lane: usize,
    last: bool,
    /// Where the first value of all is kept, as the frame has no beginning that moves.
    firsts: Option<Firsts>,
}

/// Which first value is meant: one that came with these rows, or the one that is kept of a slot.
enum First {
    New(usize),
    Known(u32),
}

struct Firsts {
    converter: RowConverter,
    of: Vec<Option<OwnedRow>>,
}

impl Pick {
    /// Over a lane of values of any type.
    pub(super) fn new(lane: usize, last: bool, bounded: bool, of: &arrow::datatypes::DataType) -> Result<Self, StreamError> {
        let firsts = if last || bounded { None } else { Some(Firsts { converter: converter(of)?, of: Vec::new() }) };
        Ok(Self { lane, last, firsts })
    }
}

impl Function for Pick {
    fn grow(&mut self, slots: usize) {
        if let Some(firsts) = &mut self.firsts
            && firsts.of.len() < slots
        {
            firsts.of.resize(slots, None);
        }
    }

    fn forget(&mut self, slot: u32) {
        if let Some(firsts) = &mut self.firsts {
            firsts.of[slot as usize] = None;
        }
    }

    fn run(&mut self, walk: &Walk, past: &Past) -> Result<Answers, StreamError> {
        let lane = &past.lanes[self.lane];
        let Some(firsts) = &mut self.firsts else {
            let column = lane.gather(walk.steps.iter().map(|step| if self.last { step.last } else { step.head }))?;
            return Ok(Answers { column, failed: Vec::new() });
        };
        // The first rows of keys that had none, or begin anew; of each step, which of these is its key's by then.
        let mut new: Vec<u32> = Vec::new();
        let mut latest: HashMap<u32, Option<usize>> = HashMap::new();
        let mut firsts_of_steps: Vec<Option<First>> = Vec::with_capacity(walk.steps.len());
        for (step, enter, _) in walk.each() {
            if step.fresh {
                latest.insert(step.slot, None);
            }
            let has_none = latest.get(&step.slot).map_or(firsts.of[step.slot as usize].is_none(), Option::is_none);
            if let Some(first) = enter.first().filter(|_| has_none) {
                latest.insert(step.slot, Some(new.len()));
                new.push(*first);
            }
            firsts_of_steps.push(match latest.get(&step.slot) {
                Some(new) => new.map(First::New),
                None => Some(First::Known(step.slot)),
            });
        }
        let values = lane.gather(new.iter().copied())?;
        let rows = firsts.converter.convert_columns(&[values]).map_err(|e| error(&e))?;
        let nothing = lane.gather(std::iter::once(NOTHING))?;
        let nothing = firsts.converter.convert_columns(&[nothing]).map_err(|e| error(&e))?;
        let answers = firsts_of_steps.iter().map(|first| match first {
            Some(First::New(at)) => rows.row(*at),
            Some(First::Known(slot)) => firsts.of[*slot as usize].as_ref().map_or_else(|| nothing.row(0), OwnedRow::row),
            None => nothing.row(0),
        });
        let column = if walk.steps.is_empty() {
            new_empty_array(lane.data_type())
        } else {
            firsts.converter.convert_rows(answers).map_err(|e| error(&e))?.swap_remove(0)
        };
        for (slot, place) in latest {
            firsts.of[slot as usize] = place.map(|place| rows.row(place).owned());
        }
        Ok(Answers { column, failed: Vec::new() })
    }

    fn save(&self, slot: u32, words: &mut Vec<i64>) -> Result<(), StreamError> {
        if let Some(first) = self.firsts.as_ref().and_then(|firsts| firsts.of[slot as usize].as_ref()) {
            words_of(first.as_ref(), words);
        }
        Ok(())
    }

    fn restore(&mut self, slot: u32, words: &[i64]) -> Option<()> {
        if let Some(firsts) = &mut self.firsts
            && !words.is_empty()
        {
            firsts.of[slot as usize] = Some(firsts.converter.parser().parse(&bytes_of(words)?).owned());
        }
        Some(())
    }

    fn bytes(&self) -> usize {
        let of = |row: &Option<OwnedRow>| size_of::<Option<OwnedRow>>() + row.as_ref().map_or(0, |row| row.as_ref().len());
        self.firsts.as_ref().map_or(0, |firsts| firsts.of.iter().map(of).sum())
    }
}

/// `min(..)` or `max(..)` of values of any type, by their encoding, which sorts as they do.
pub(super) struct AnyExtreme {
    lane: usize,
    max: bool,
    bounded: bool,
    converter: RowConverter,
    of: Vec<Candidates>,
}

/// The values that may still become the answer, best first, each with its number among those that have entered.
#[derive(Clone, Default)]
struct Candidates {
    values: VecDeque<(u64, OwnedRow)>,
    entered: u64,
    left: u64,
}

impl AnyExtreme {
    /// Over a lane of values of any type.
    pub(super) fn new(lane: usize, max: bool, bounded: bool, of: &arrow::datatypes::DataType) -> Result<Self, StreamError> {
        Ok(Self { lane, max, bounded, converter: converter(of)?, of: Vec::new() })
    }

    fn beats(&self, new: Row<'_>, old: Row<'_>) -> bool {
        if self.max { new >= old } else { new <= old }
    }
}

impl Function for AnyExtreme {
    fn grow(&mut self, slots: usize) {
        if self.of.len() < slots {
            self.of.resize(slots, Candidates::default());
        }
    }

    fn forget(&mut self, slot: u32) {
        self.of[slot as usize] = Candidates::default();
    }

    fn run(&mut self, walk: &Walk, past: &Past) -> Result<Answers, StreamError> {
        let lane = &past.lanes[self.lane];
        let entering = lane.gather(walk.enter.iter().copied())?;
        let rows = self.converter.convert_columns(&[entering]).map_err(|e| error(&e))?;
        let nothing = lane.gather(std::iter::once(NOTHING))?;
        let nothing = self.converter.convert_columns(&[nothing]).map_err(|e| error(&e))?;
        let mut answers: Vec<Option<OwnedRow>> = Vec::with_capacity(walk.steps.len());
        let mut at = 0;
        for (step, enter, leave) in walk.each() {
            let mut own = std::mem::take(&mut self.of[step.slot as usize]);
            if step.fresh {
                own = Candidates::default();
            }
            for row in enter {
                let value = rows.row(at);
                at += 1;
                if !lane.valid()[*row as usize] {
                    continue;
                }
                if !self.bounded && own.values.front().is_some_and(|(_, old)| !self.beats(value, old.row())) {
                    continue;
                }
                while own.values.back().is_some_and(|(_, old)| self.beats(value, old.row())) {
                    own.values.pop_back();
                }
                own.values.push_back((own.entered, value.owned()));
                own.entered += 1;
            }
            for row in leave {
                if lane.valid()[*row as usize] {
                    if own.values.front().is_some_and(|(number, _)| *number == own.left) {
                        own.values.pop_front();
                    }
                    own.left += 1;
                }
            }
            answers.push(own.values.front().map(|(_, value)| value.clone()));
            self.of[step.slot as usize] = own;
        }
        let column = if answers.is_empty() {
            new_empty_array(lane.data_type())
        } else {
            let answers = answers.iter().map(|answer| answer.as_ref().map_or_else(|| nothing.row(0), OwnedRow::row));
            self.converter.convert_rows(answers).map_err(|e| error(&e))?.swap_remove(0)
        };
        Ok(Answers { column, failed: Vec::new() })
    }

    fn save(&self, slot: u32, words: &mut Vec<i64>) -> Result<(), StreamError> {
        if let Some((_, best)) = self.of[slot as usize].values.front() {
            words_of(best.as_ref(), words);
        }
        Ok(())
    }

    fn restore(&mut self, slot: u32, words: &[i64]) -> Option<()> {
        if !words.is_empty() {
            let best = self.converter.parser().parse(&bytes_of(words)?).owned();
            self.of[slot as usize] = Candidates { values: [(0, best)].into(), entered: 1, left: 0 };
        }
        Some(())
    }

    fn bytes(&self) -> usize {
        let of = |own: &Candidates| size_of::<Candidates>() + own.values.iter().map(|(_, row)| 40 + row.as_ref().len()).sum::<usize>();
        self.of.iter().map(of).sum()
    }
}

/// Which number of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbered {
    /// `row_number()`.
    Row,
    /// `rank()`: one more than the rows of an earlier time.
    Rank,
    /// `dense_rank()`: how many times there have been.
    DenseRank,
}

/// A row's number among all of its key's rows so far.
pub(super) struct Place {
    of: Numbered,
    /// How many rows, the time of the last one, its rank, how many times.
    states: Vec<[i64; 4]>,
}

const NONE_YET: [i64; 4] = [0, i64::MIN, 0, 0];

impl Place {
    pub(super) const fn new(of: Numbered) -> Self {
        Self { of, states: Vec::new() }
    }
}

impl Function for Place {
    fn grow(&mut self, slots: usize) {
        if self.states.len() < slots {
            self.states.resize(slots, NONE_YET);
        }
    }

    fn forget(&mut self, slot: u32) {
        self.states[slot as usize] = NONE_YET;
    }

    fn run(&mut self, walk: &Walk, past: &Past) -> Result<Answers, StreamError> {
        let mut numbers = Vec::with_capacity(walk.steps.len());
        for (step, enter, _) in walk.each() {
            if step.fresh {
                self.states[step.slot as usize] = NONE_YET;
            }
            let [rows, last, rank, times] = &mut self.states[step.slot as usize];
            for row in enter {
                let at = past.time(*row);
                *rows += 1;
                if *rows == 1 || at != *last {
                    (*last, *rank) = (at, *rows);
                    *times += 1;
                }
            }
            numbers.push(match self.of {
                Numbered::Row => *rows as u64,
                Numbered::Rank => *rank as u64,
                Numbered::DenseRank => *times as u64,
            });
        }
        Ok(Answers { column: Arc::new(UInt64Array::from(numbers)), failed: Vec::new() })
    }

    fn save(&self, slot: u32, words: &mut Vec<i64>) -> Result<(), StreamError> {
        words.extend(self.states[slot as usize]);
        Ok(())
    }

    fn restore(&mut self, slot: u32, words: &[i64]) -> Option<()> {
        self.states[slot as usize] = <[i64; 4]>::try_from(words).ok()?;
        Some(())
    }

    fn bytes(&self) -> usize {
        self.states.len() * size_of::<[i64; 4]>()
    }
}
