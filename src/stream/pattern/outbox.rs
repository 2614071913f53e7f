//! What was found, on its way out.
//!
//! Owns [`Outbox`]: matches leave their reads here when they are decided, and [`Outbox::flush`] makes rows of them, measures evaluated
//! over all of them at once. Always: rows come out in the order in which matches were decided, those of one match in
//! their own; as the watermark before a row its own time is given, for the operator holds time back for what is still to come.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};

use super::keys::{Clock, Key, Rules};
use super::matcher::NONE;
use super::read::{Asked, Cells, Memory, Seen, Where};
use super::spec::PatternColumn;
use crate::record::PartitionId;
use crate::stream::keyed::{Held, KeyTable};
use crate::stream::over::{NOTHING, Native, Past};
use crate::stream::rowwise::{arrow_error, row_as_json};
use crate::stream::window::as_type;
use crate::stream::{FailedRow, NO_OFFSET, Output, StreamError};

/// Rows leave in batches of at most this many.
const BATCH_ROWS: usize = 8192;

/// A row to come out: when it was decided, whose it is, and the row of the past that stands for it.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    clock: Clock,
    slot: u32,
    past: u32,
    time: i64,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Outbox {
    measures: Vec<(Asked, Vec<Cells>)>,
    memory: Memory,
    leaving: Vec<Leaving>,
    failed: Vec<(u32, String)>,
    /// The lanes of a row's partition and offset.
    places: [usize; 2],
    /// The arguments, for a failed row that no record stands for.
    arguments: SchemaRef,
}

/// What rows are made of, beside what is in the outbox.
pub(super) struct Making<'a> {
    pub past: &'a Past,
    pub table: &'a KeyTable,
    pub names: &'a [String],
    pub columns: &'a [PatternColumn],
    pub schema: &'a SchemaRef,
}

impl Outbox {
    pub(super) fn new(measures: Vec<Asked>, memory: Memory, places: [usize; 2], arguments: Schema) -> Self {
        let measures = measures.into_iter().map(|asked| {
            let cells = asked.cells();
            (asked, cells)
        });
        Self { measures: measures.collect(), memory, leaving: Vec::new(), failed: Vec::new(), places, arguments: Arc::new(arguments) }
    }

    /// A row that cannot be what it should.
    pub(super) fn fail(&mut self, past: u32, why: String) {
        self.failed.push((past, why));
    }

    /// Whether there is nothing in it.
    pub(super) const fn is_empty(&self) -> bool {
        self.leaving.is_empty() && self.failed.is_empty()
    }

    /// Takes the key's match, which has been counted already.
    pub(super) fn take(&mut self, key: &Key, slot: u32, rows: &[(u32, u8)], clock: Clock, rules: &Rules, past: &Past) {
        let Some((_, of_last)) = rows.last().copied() else { return };
        let enter = |memory: &Memory, seen: &mut Seen, (row, variable): (u32, u8)| {
            memory.enter(seen, variable, row, &past.lanes, key.taken(row).past);
        };
        let mut whole = self.memory.nothing();
        for taken in rows {
            enter(&self.memory, &mut whole, *taken);
        }
        let mut seen = self.memory.nothing();
        for (at, taken) in rows.iter().enumerate() {
            if !rules.all_rows && at + 1 < rows.len() {
                continue;
            }
            if rules.all_rows {
                enter(&self.memory, &mut seen, *taken);
            } else {
                seen = whole.clone();
            }
            for (asked, cells) in &mut self.measures {
                for (of, cells) in asked.reads.iter().zip(cells) {
                    let of_row = |is_final: bool| if is_final { &whole } else { &seen };
                    match (of, cells) {
                        (Where::Row { track, skip, back, is_final, .. }, Cells::Rows(_, places)) => {
                            let row = self.memory.row(of_row(*is_final), *track, *skip);
                            places.push(if row == NONE { NOTHING } else { key.around(row, *back) });
                        }
                        (Where::Tally { at, is_final }, Cells::Tallies(_, tallies)) => {
                            tallies.push(self.memory.tally(of_row(*is_final), *at));
                        }
                        (Where::Classifier { is_final }, Cells::Names(names)) => names.push(if *is_final { of_last } else { taken.1 }),
                        (Where::Number, Cells::Numbers(numbers)) => numbers.push(key.matches),
                        _ => unreachable!("cells are made for their read"),
                    }
                }
            }
            let row = key.taken(taken.0);
            self.leaving.push(Leaving { clock, slot, past: row.past, time: row.time });
        }
    }

    /// Hands everything on.
    pub(super) fn flush(&mut self, making: &Making<'_>, out: &mut Output) -> Result<(), StreamError> {
        let leaving = std::mem::take(&mut self.leaving);
        let mut order: Vec<u32> = (0..leaving.len() as u32).collect();
        order.sort_by_key(|at| leaving[*at as usize].clock);
        for places in order.chunks(BATCH_ROWS) {
            self.make(places, &leaving, making, out)?;
        }
        for (asked, cells) in &mut self.measures {
            *cells = asked.cells();
        }
        for (row, reason) in std::mem::take(&mut self.failed) {
            out.failed.push(self.letter(row, reason, making.past)?);
        }
        Ok(())
    }

    fn make(&mut self, places: &[u32], leaving: &[Leaving], making: &Making<'_>, out: &mut Output) -> Result<(), StreamError> {
        let these = || places.iter().map(|at| leaving[*at as usize]);
        let mut failed: Vec<(usize, String)> = Vec::new();
        let mut measures = Vec::with_capacity(self.measures.len());
        for (asked, cells) in &self.measures {
            let answered = asked.answer(cells, places, making.past, &self.memory, making.names)?;
            failed.extend(answered.failed);
            measures.push(answered.column);
        }
        let keys = making.table.decode(these().filter_map(|row| making.table.key(row.slot).map(AsRef::as_ref)))?;
        let column = |of: &PatternColumn| -> Result<ArrayRef, StreamError> {
            Ok(match of {
                PatternColumn::Key(key) => ArrayRef::clone(&keys[*key]),
                PatternColumn::Argument(argument) => making.past.lanes[*argument].gather(these().map(|row| row.past))?,
                PatternColumn::Measure(measure) => ArrayRef::clone(&measures[*measure]),
            })
        };
        let mut columns = Vec::with_capacity(making.columns.len());
        for (of, field) in making.columns.iter().zip(making.schema.fields()) {
            columns.push(as_type(column(of)?, field)?);
        }
        let [partitions, offsets] = self.places.map(|lane| i64::of(&making.past.lanes[lane]));
        let mut held = Held {
            columns,
            times: these().map(|row| row.time).collect(),
            partitions: these().map(|row| partitions[row.past as usize] as i32).collect(),
            offsets: these().map(|row| offsets[row.past as usize]).collect(),
        };
        if !failed.is_empty() {
            failed.sort_by_key(|(at, _)| *at);
            failed.dedup_by_key(|(at, _)| *at);
            let good: Vec<u32> =
                (0..places.len()).filter(|at| failed.binary_search_by_key(at, |(at, _)| *at).is_err()).map(|at| at as u32).collect();
            held = held.picked(&good)?;
            self.failed.extend(failed.into_iter().map(|(at, why)| (leaving[places[at] as usize].past, why)));
        }
        let is_one = making.columns.iter().all(|of| !matches!(of, PatternColumn::Argument(_)));
        if is_one {
            // No single record stands for a match.
            held.offsets.fill(NO_OFFSET);
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(held.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(making.schema), held.columns.clone(), &options);
        held.hand_on(batch.map_err(|e| arrow_error("the rows of MATCH_RECOGNIZE", &e))?, out);
        Ok(())
    }

    /// A row of the past as one that failed.
    fn letter(&self, row: u32, reason: String, past: &Past) -> Result<FailedRow, StreamError> {
        let [partition, offset] = self.places.map(|lane| i64::of(&past.lanes[lane])[row as usize]);
        let json = if offset == NO_OFFSET {
            let columns = (0..self.arguments.fields().len()).map(|lane| past.lanes[lane].gather(std::iter::once(row)));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            RecordBatch::try_new(Arc::clone(&self.arguments), columns).ok().and_then(|batch| row_as_json(&batch))
        } else {
            None
        };
        Ok(FailedRow { partition: PartitionId(partition as i32), offset, reason, row: json })
    }
}
