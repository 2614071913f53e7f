//! What conditions and measures remember of the rows taken, and where they find their values.
//!
//! Owns [`Memory`], which knows for some reads what must be kept of the rows taken, [`Seen`], which keeps it, and [`Asked`], an expression
//! with its reads. Always: remembering a row costs no more than the reads need, however long the match; and two ways that
//! have seen the same answer every later question equally.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::matcher::NONE;
use super::spec::{PatternCondition, PatternEnd, PatternRead};
use super::tally::{Tallied, Tally};
use crate::record::PartitionId;
use crate::stream::over::{Kind, Lane, Past};
use crate::stream::rowwise::{arrow_error, evaluate, row_by_row};
use crate::stream::{Expr, Rows, StreamError};

/// The rows of some variable, from one end.
#[derive(Clone, Copy, Debug)]
struct Track {
    of: Option<u8>,
    from: PatternEnd,
    /// How many are remembered.
    depth: usize,
    /// Where they lie.
    at: usize,
}

/// What is to be remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    tracks: Vec<Track>,
    tallied: Vec<(Tallied, Option<DataType>)>,
    width: usize,
}

/// What has been remembered.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct Seen {
    rows: Box<[u32]>,
    tallies: Box<[Tally]>,
}

impl Seen {
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.rows.as_ref()) + size_of_val(self.tallies.as_ref())
    }
}

/// Where a read finds its value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Where {
    Row { lane: usize, track: usize, skip: u32, back: u32, is_final: bool },
    Tally { at: usize, is_final: bool },
    Classifier { is_final: bool },
    Number,
}

/// The lanes of a past, as they are asked for.
pub(super) struct Lanes<'a> {
    pub past: &'a mut Past,
    /// The types of the arguments, which lie in the first lanes.
    pub types: &'a [DataType],
    /// The lanes behind them: an argument, and how it is kept.
    pub known: &'a mut Vec<(usize, Kind)>,
}

impl Lanes<'_> {
    fn lane(&mut self, argument: usize, kind: Kind) -> usize {
        let place = self.known.iter().position(|known| *known == (argument, kind)).unwrap_or_else(|| {
            self.past.lanes.push(Lane::new(kind, self.types[argument].clone()));
            self.known.push((argument, kind));
            self.known.len() - 1
        });
        self.types.len() + place
    }
}

impl Memory {
    /// Sees to it that a read finds its value.
    pub(super) fn need(&mut self, read: &PatternRead, lanes: &mut Lanes<'_>) -> Result<Where, StreamError> {
        Ok(match read {
            PatternRead::Row { argument, of, from, skip, back, is_final } => {
                let (of, from) = (of.map(|of| of as u8), *from);
                let known = self.tracks.iter().position(|track| track.of == of && track.from == from);
                let track = known.unwrap_or_else(|| {
                    self.tracks.push(Track { of, from, depth: 0, at: 0 });
                    self.tracks.len() - 1
                });
                self.tracks[track].depth = self.tracks[track].depth.max(*skip as usize + 1);
                self.width = 0;
                for track in &mut self.tracks {
                    track.at = self.width;
                    self.width += track.depth;
                }
                Where::Row { lane: *argument, track, skip: *skip, back: *back, is_final: *is_final }
            }
            PatternRead::Tally { function, argument, of, to, is_final } => {
                let from = argument.map(|argument| lanes.types[argument].clone());
                let lane = match (argument, &from) {
                    (Some(argument), Some(from)) => Some(lanes.lane(*argument, super::tally::kind(*function, from)?)),
                    _ => None,
                };
                let tallied = Tallied { function: *function, lane, of: of.map(|of| of as u8), to: to.clone() };
                let known = self.tallied.iter().position(|(known, _)| *known == tallied);
                let at = known.unwrap_or_else(|| {
                    self.tallied.push((tallied, from));
                    self.tallied.len() - 1
                });
                Where::Tally { at, is_final: *is_final }
            }
            PatternRead::Classifier { is_final } => Where::Classifier { is_final: *is_final },
            PatternRead::Number => Where::Number,
        })
    }

    /// Before any row.
    pub(super) fn nothing(&self) -> Seen {
        Seen { rows: vec![NONE; self.width].into(), tallies: vec![Tally::default(); self.tallied.len()].into() }
    }

    /// A row is taken as this variable.
    pub(super) fn enter(&self, seen: &mut Seen, variable: u8, row: u32, lanes: &[Lane], past: u32) {
        for track in self.tracks.iter().filter(|track| track.of.is_none_or(|of| of == variable)) {
            let rows = &mut seen.rows[track.at..track.at + track.depth];
            match track.from {
                PatternEnd::Last => {
                    rows.rotate_right(1);
                    rows[0] = row;
                }
                PatternEnd::First => {
                    if let Some(free) = rows.iter_mut().find(|row| **row == NONE) {
                        *free = row;
                    }
                }
            }
        }
        for ((tallied, _), tally) in self.tallied.iter().zip(&mut seen.tallies) {
            if tallied.counts(variable) {
                tallied.add(tally, tallied.value(lanes, past));
            }
        }
    }

    /// The row that a track's place holds.
    pub(super) fn row(&self, seen: &Seen, track: usize, skip: u32) -> u32 {
        seen.rows[self.tracks[track].at + skip as usize]
    }

    /// The same if this row were taken as this variable.
    pub(super) fn row_with(&self, seen: &Seen, track: usize, skip: u32, variable: u8, row: u32) -> u32 {
        let of = self.tracks[track];
        let (counts, at) = (of.of.is_none_or(|of| of == variable), of.at + skip as usize);
        match (of.from, skip) {
            _ if !counts => seen.rows[at],
            (PatternEnd::Last, 0) => row,
            (PatternEnd::Last, _) => seen.rows[at - 1],
            (PatternEnd::First, _) if seen.rows[at] != NONE => seen.rows[at],
            (PatternEnd::First, skip) => {
                if skip == 0 || seen.rows[at - 1] != NONE {
                    row
                } else {
                    NONE
                }
            }
        }
    }

    /// An aggregate.
    pub(super) fn tally(&self, seen: &Seen, at: usize) -> Tally {
        seen.tallies[at]
    }

    /// The same if this row were taken as this variable.
    pub(super) fn tally_with(&self, seen: &Seen, at: usize, variable: u8, lanes: &[Lane], past: u32) -> Tally {
        let (mut tally, (tallied, _)) = (seen.tallies[at], &self.tallied[at]);
        if tallied.counts(variable) {
            tallied.add(&mut tally, tallied.value(lanes, past));
        }
        tally
    }
}

/// The values of one read, one an answer that is asked for.
#[derive(Debug)]
pub(super) enum Cells {
    /// Of rows of the past.
    Rows(usize, Vec<u32>),
    /// Aggregates.
    Tallies(usize, Vec<Tally>),
    /// Names of variables.
    Names(Vec<u8>),
    /// Numbers.
    Numbers(Vec<i64>),
}

impl Cells {
    pub(super) fn new(of: &Where) -> Self {
        match of {
            Where::Row { lane, .. } => Self::Rows(*lane, Vec::new()),
            Where::Tally { at, .. } => Self::Tallies(*at, Vec::new()),
            Where::Classifier { .. } => Self::Names(Vec::new()),
            Where::Number => Self::Numbers(Vec::new()),
        }
    }

    /// The values at some places, and the places among those that have none because it does not fit its type.
    fn column(&self, places: &[u32], past: &Past, memory: &Memory, names: &[String]) -> Result<(ArrayRef, Vec<usize>), StreamError> {
        let of = |at: &u32| *at as usize;
        Ok(match self {
            Self::Rows(lane, rows) => (past.lanes[*lane].gather(places.iter().map(|at| rows[of(at)]))?, Vec::new()),
            Self::Tallies(at, tallies) => {
                let (tallied, from) = &memory.tallied[*at];
                let tallies: Vec<Tally> = places.iter().map(|at| tallies[of(at)]).collect();
                tallied.answers(&tallies, from.as_ref())?
            }
            Self::Names(variables) => {
                let names = places.iter().map(|at| variables.get(of(at)).and_then(|variable| names.get(*variable as usize)));
                (Arc::new(names.collect::<StringArray>()), Vec::new())
            }
            Self::Numbers(numbers) => (Arc::new(places.iter().map(|at| Some(numbers[of(at)])).collect::<Int64Array>()), Vec::new()),
        })
    }
}

/// An expression with its reads, ready to be evaluated.
#[derive(Debug)]
pub(super) struct Asked {
    pub reads: Vec<Where>,
    schema: SchemaRef,
    value: Arc<dyn Expr>,
}

/// Answers, and which of them are none because something failed, and why.
pub(super) struct Answered {
    pub column: ArrayRef,
    pub failed: Vec<(usize, String)>,
}

impl Asked {
    pub(super) fn new(of: &PatternCondition, memory: &mut Memory, lanes: &mut Lanes<'_>) -> Result<Self, StreamError> {
        let reads = of.reads.iter().map(|read| memory.need(read, lanes)).collect::<Result<Vec<_>, _>>()?;
        let field = |(at, read): (usize, &PatternRead)| {
            let of = match read {
                PatternRead::Row { argument, .. } => lanes.types[*argument].clone(),
                PatternRead::Tally { to, .. } => to.clone(),
                PatternRead::Classifier { .. } => DataType::Utf8,
                PatternRead::Number => DataType::Int64,
            };
            Field::new(format!("r{at}"), of, true)
        };
        let fields: Vec<Field> = of.reads.iter().enumerate().map(field).collect();
        Ok(Self { reads, schema: Arc::new(Schema::new(fields)), value: Arc::clone(&of.value) })
    }

    /// Fresh room for the values of its reads.
    pub(super) fn cells(&self) -> Vec<Cells> {
        self.reads.iter().map(Cells::new).collect()
    }

    /// The answers for some places of the cells.
    pub(super) fn answer(
        &self,
        cells: &[Cells],
        places: &[u32],
        past: &Past,
        memory: &Memory,
        names: &[String],
    ) -> Result<Answered, StreamError> {
        let mut over: Vec<usize> = Vec::new();
        let mut columns = Vec::with_capacity(cells.len());
        for cells in cells {
            let (column, failed) = cells.column(places, past, memory, names)?;
            columns.push(column);
            over.extend(failed);
        }
        let mut answered = self.answer_over(columns, places.len())?;
        for at in over {
            answered.failed.push((at, format!("could not evaluate {}: overflow", self.value.text())));
        }
        Ok(answered)
    }

    /// The answers over columns of values.
    pub(super) fn answer_over(&self, columns: Vec<ArrayRef>, len: usize) -> Result<Answered, StreamError> {
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(len));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        let batch = batch.map_err(|e| arrow_error(&self.value.text(), &e))?;
        match evaluate(self.value.as_ref(), &batch) {
            Ok(column) => return Ok(Answered { column, failed: Vec::new() }),
            Err(StreamError::Evaluate { .. }) => {}
            Err(other) => return Err(other),
        }
        // Rows are named by their place until it is known which of them fail.
        let places: ScalarBuffer<i64> = (0..len as i64).collect();
        let (partition, times) = (PartitionId(0), places.clone());
        let rows = Rows { batch, partition, offsets: places.clone(), times, before: places, heard: None, gone: false };
        let mut failed = Vec::new();
        let good = row_by_row(&rows, &mut |batch| evaluate(self.value.as_ref(), batch), &mut failed)?;
        let mut indices: Vec<Option<u32>> = vec![None; len];
        for (at, place) in good.iter().flat_map(|(rows, _)| rows.offsets.iter()).enumerate() {
            indices[*place as usize] = Some(at as u32);
        }
        let error = |e| arrow_error(&self.value.text(), &e);
        let column = if good.is_empty() {
            // Nothing says which type it would have been.
            arrow::array::new_null_array(&DataType::Null, len)
        } else {
            let parts: Vec<&dyn Array> = good.iter().map(|(_, column)| column.as_ref()).collect();
            take(&concat(&parts).map_err(error)?, &UInt32Array::from(indices), None).map_err(error)?
        };
        Ok(Answered { column, failed: failed.into_iter().map(|row| (row.offset as usize, row.reason)).collect() })
    }
}

impl Answered {
    /// Which are true; what failed or is NULL is not.
    pub(super) fn truths(&self) -> Result<Vec<bool>, StreamError> {
        match self.column.data_type() {
            DataType::Boolean => {
                let column = self.column.as_boolean();
                let mut truths: Vec<bool> = (0..column.len()).map(|at| column.is_valid(at) && column.value(at)).collect();
                for (at, _) in &self.failed {
                    truths[*at] = false;
                }
                Ok(truths)
            }
            DataType::Null => Ok(vec![false; self.column.len()]),
            other => Err(StreamError::Limit(format!("a condition of DEFINE gave {other}"))),
        }
    }
}
