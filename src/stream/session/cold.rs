//! Sessions on the disk: those of keys that no row has come for of late, a row of a file for each of their slots.

use std::cmp::Reverse;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{Field, Schema};

use super::aggregate::SessionAggregate;
use crate::stream::keyed::{ColdKey, ColdRow, keys_of_file};
use crate::stream::rowwise::arrow_error;
use crate::stream::window::ints_of;
use crate::stream::{Operator, SpillSpace, StateReader, StreamError};

/// What a row says of its session before the columns of the key, and those of the slot's state behind.
const COLUMNS: [&str; 4] = ["key", "start", "last", "number"];

/// A key whose sessions may go to the disk: those that end last go first.
type Cold = ColdKey<Reverse<(i64, u64)>>;

impl SessionAggregate {
    /// Puts sessions on the disk, those first that end last; see [`Operator::spill`].
    pub(super) fn put_away(&mut self, want: usize, space: &SpillSpace) -> Result<usize, StreamError> {
        let before = self.state_bytes();
        let round = self.round;
        self.round += 1;
        let mut again = 0;
        if let Some(small) = self.cold.take_small()? {
            again = small.num_rows();
            self.enter(&small)?;
        }
        let (mut cold, mut here) = (Vec::new(), 0);
        for (key, own) in self.sessions.iter().enumerate() {
            let Some(end) = own.iter().map(|session| (session.last, session.number)).max() else { continue };
            here += 1;
            if self.touched[key] < round
                && let Some(bytes) = self.table.key(key as u32)
            {
                cold.push(Cold { key: key as u32, hash: self.cold.hash(bytes), rank: Reverse(end) });
            }
        }
        let of_key = self.state_bytes().saturating_sub(self.waiting.bytes() + self.cold.bytes()) / here.max(1);
        let cold = self.cold.choose(cold, want, of_key, again);
        // All of them are taken from their accumulators at once, once a file has shown that there is room.
        let (first, others) = cold.split_at(keys_of_file(of_key).min(cold.len()));
        if self.park(first, keys_of_file(of_key), space)? {
            self.park(others, keys_of_file(of_key), space)?;
        }
        Ok(before.saturating_sub(self.state_bytes()))
    }

    /// Puts these keys on the disk, so many to a file; `false` where there is no room for all of them.
    fn park(&mut self, cold: &[Cold], keys_of_file: usize, space: &SpillSpace) -> Result<bool, StreamError> {
        if cold.is_empty() {
            return Ok(true);
        }
        let mut columns: [Vec<i64>; 4] = Default::default();
        let (mut owners, mut slots, mut rows, mut from) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (at, Cold { key, hash, .. }) in cold.iter().enumerate() {
            from.push(rows.len());
            for session in std::mem::take(&mut self.sessions[*key as usize]) {
                self.schedule.remove(&(session.scheduled, session.number));
                self.owners.remove(&session.number);
                for slot in session.slots {
                    let cells = [at as i64, session.start, session.last, session.number as i64];
                    columns.iter_mut().zip(cells).for_each(|(column, cell)| column.push(cell));
                    rows.push(ColdRow { hash: *hash, time: session.last + self.spec.gap_ms });
                    owners.push(*key);
                    slots.push(slot);
                }
            }
        }
        from.push(rows.len());
        let mut named: Vec<(String, ArrayRef)> = COLUMNS
            .iter()
            .zip(columns)
            .map(|(name, column)| ((*name).to_owned(), Arc::new(Int64Array::from(column)) as ArrayRef))
            .collect();
        let keys = self.table.decode(owners.iter().filter_map(|key| self.table.key(*key).map(AsRef::as_ref)))?;
        named.extend(keys.into_iter().enumerate().map(|(at, column)| (format!("k{at}"), column)));
        named.extend(self.slots.take(&slots)?.into_iter().enumerate().map(|(at, column)| (format!("s{at}"), column)));
        cold.iter().for_each(|of| self.table.drop_slot(of.key));
        let (fields, columns): (Vec<Field>, Vec<ArrayRef>) =
            named.into_iter().map(|(name, column)| (Field::new(name, column.data_type().clone(), true), column)).unzip();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| arrow_error("the sessions' state", &e))?;
        for first in (0..cold.len()).step_by(keys_of_file) {
            let (begin, end) = (from[first], from[(first + keys_of_file).min(cold.len())]);
            if !self.cold.put(&batch.slice(begin, end - begin), rows[begin..end].to_vec(), space)? {
                self.enter(&batch.slice(begin, rows.len() - begin))?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes back sessions that lay on the disk.
    pub(super) fn enter(&mut self, batch: &RecordBatch) -> Result<(), StreamError> {
        let other = || StreamError::Spill("its file has other sessions than were written".to_owned());
        let (keys, width) = (self.spec.keys.len(), self.slots.maker().frozen_width());
        if batch.num_columns() != COLUMNS.len() + keys + width {
            return Err(other());
        }
        let int = |place| ints_of(batch, place).ok_or_else(other);
        let (starts, lasts, numbers) = (int(1)?, int(2)?, int(3)?);
        let (columns, states) = batch.columns()[COLUMNS.len()..].split_at(keys);
        let slots = self.slots.restore(states, batch.num_rows())?;
        let encoded = self.table.encode(columns)?;
        for row in 0..batch.num_rows() {
            let (key, number) = (self.key(encoded.key(row)), numbers[row] as u64);
            match self.sessions[key as usize].last_mut().filter(|session| session.number == number) {
                Some(session) => session.slots.push(slots[row]),
                None => self.put_back(key, starts[row], lasts[row], number, vec![slots[row]]),
            }
        }
        Ok(())
    }

    /// Takes back what was saved of the keys on the disk.
    pub(super) fn restore_cold(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let Self { cold, table, spec, slots, .. } = self;
        let (keys, width) = (spec.keys.len(), slots.maker().frozen_width());
        let misfit =
            || StreamError::Restore { operator: "the aggregate over sessions".to_owned(), why: "a file has other columns".to_owned() };
        let here = cold.restore(state, |batch, _| {
            let lasts = ints_of(batch, 2).filter(|_| batch.num_columns() == COLUMNS.len() + keys + width).ok_or_else(misfit)?;
            Ok((
                table.encode(&batch.columns()[COLUMNS.len()..COLUMNS.len() + keys])?,
                lasts.iter().map(|last| last + spec.gap_ms).collect(),
            ))
        })?;
        here.map_or(Ok(()), |here| self.enter(&here))
    }
}
