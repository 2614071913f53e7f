//! The state of groups as columns, and back.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};

use super::groups::Due;
use super::operator::UpdateAggregate;
use super::states::State;
use crate::stream::rowwise::arrow_error;
use crate::stream::window::{ints, ints_of};
use crate::stream::{StateReader, StateWriter, StreamError};

/// What a group's number says besides what is due: that the reader has a row of it, and that it has come to its end.
pub(super) const SHOWN: i64 = 4;
pub(super) const FIRED: i64 = 8;

fn misfit(why: &str) -> StreamError {
    StreamError::Restore { operator: "the aggregate that is kept up to date".to_owned(), why: why.to_owned() }
}

/// Columns as one batch, also where there are none.
pub(super) fn batch(named: Vec<(String, ArrayRef)>, rows: usize) -> Result<RecordBatch, StreamError> {
    let fields: Vec<Field> = named.iter().map(|(name, column)| Field::new(name, column.data_type().clone(), true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), named.into_iter().map(|(_, column)| column).collect(), &options)
        .map_err(|e| arrow_error("the groups' state", &e))
}

impl UpdateAggregate {
    /// What is due of a group and what it has said, as a number.
    pub(super) fn said(&self, group: u32) -> i64 {
        let of = self.groups.get(group);
        of.due as i64 + i64::from(of.shown) * SHOWN + i64::from(of.fired) * FIRED
    }

    pub(super) fn write(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        state.put("mark", ints(vec![("mark", vec![self.mark])])?);
        if let Some(waiting) = self.waiting.save()? {
            state.put("waiting", waiting);
        }
        self.cold.save(state)?;
        let groups = self.in_order();
        if groups.is_empty() {
            return Ok(());
        }
        self.states.rest(&mut self.groups.parts)?;
        let number = |of: &dyn Fn(u32) -> i64| Arc::new(groups.iter().map(|group| of(*group)).collect::<Int64Array>()) as ArrayRef;
        let mut columns = vec![
            ("until".to_owned(), number(&|group| self.groups.get(group).until)),
            ("said".to_owned(), number(&|group| self.said(group))),
            ("parts".to_owned(), number(&|group| self.groups.parts_of(group).count() as i64)),
        ];
        let keys = self.groups.keys(&groups)?;
        columns.extend(keys.into_iter().enumerate().map(|(at, key)| (format!("k{at}"), key)));
        state.put("groups", batch(columns, groups.len())?);
        let parts: Vec<_> = groups.iter().flat_map(|group| self.groups.parts_of(*group).map(|(_, part)| *part)).collect();
        let spots: Vec<_> = parts.iter().map(|part| part.state.spot()).collect();
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("partition".to_owned(), Arc::new(parts.iter().map(|part| i64::from(part.partition)).collect::<Int64Array>())),
            ("last".to_owned(), Arc::new(parts.iter().map(|part| part.last).collect::<Int64Array>())),
        ];
        columns.extend(self.states.columns(&spots)?.into_iter().enumerate().map(|(at, column)| (format!("s{at}"), column)));
        state.put("parts", batch(columns, parts.len())?);
        Ok(())
    }

    pub(super) fn read(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let mark = state.get("mark").next().ok_or_else(|| misfit("the mark is missing"))?;
        self.mark = ints_of(mark, 0).and_then(|m| m.first().copied()).ok_or_else(|| misfit("the mark is empty"))?;
        for waiting in state.get("waiting") {
            let width = self.arguments() + self.spec.keys.len() + 2;
            if !self.waiting.restore(waiting, width) {
                return Err(misfit("the waiting rows have other columns"));
            }
        }
        self.restore_cold(state)?;
        let Some(groups) = state.get("groups").next() else { return Ok(()) };
        let parts = state.get("parts").next().ok_or_else(|| misfit("the parts are missing"))?;
        let width = self.states.maker().frozen_width();
        if groups.num_columns() != 3 + self.lead() + self.spec.keys.len() || parts.num_columns() != 2 + width {
            return Err(misfit("the groups have another number of columns"));
        }
        if parts.columns()[..2].iter().any(|column| *column.data_type() != DataType::Int64) {
            return Err(misfit("the parts are not whole"));
        }
        let number = |batch, place| ints_of(batch, place).ok_or_else(|| misfit("the groups are not whole"));
        let (untils, said, counts) = (number(groups, 0)?, number(groups, 1)?, number(groups, 2)?);
        let (partitions, lasts) = (number(parts, 0)?, number(parts, 1)?);
        let chunk = self.states.restore(&parts.columns()[2..], parts.num_rows())?;
        let encoded = self.groups.table.encode(&groups.columns()[3..])?;
        let (mut row, mut turn) = (0, Vec::new());
        for place in 0..groups.num_rows() {
            let (group, new) = self.groups.group(encoded.key(place));
            let count = usize::try_from(counts[place]).ok().filter(|count| new && *count <= parts.num_rows() - row);
            let count = count.ok_or_else(|| misfit("the groups have other parts"))?;
            self.begin(group, untils[place]);
            for at in row..row + count {
                let (part, _) = self.groups.part(group, partitions[at] as i32, lasts[at]);
                self.groups.parts[part as usize].state = State::at((chunk, at as u32));
                self.watch(part);
            }
            row += count;
            let of = self.groups.get_mut(group);
            (of.shown, of.fired) = (said[place] & SHOWN != 0, said[place] & FIRED != 0);
            match said[place] & 3 {
                0 => {}
                1 => self.owe(group, Due::Changed),
                _ => turn.push(group),
            }
        }
        self.groups.sort(&mut turn);
        turn.into_iter().for_each(|group| self.owe(group, Due::Turn));
        Ok(())
    }
}
