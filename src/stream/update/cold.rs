//! Groups on the disk: those that no row has come for of late and that have nothing to say, a row of a file for each of their parts.

use std::cmp::Reverse;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};

use super::groups::Due;
use super::operator::{GroupEmit, GroupLife, UpdateAggregate};
use super::saved::{FIRED, SHOWN, batch};
use super::states::State;
use crate::stream::keyed::{ColdKey, ColdRow, keys_of_file};
use crate::stream::window::ints_of;
use crate::stream::{Operator, SpillSpace, StateReader, StreamError};

/// What a row says of its group and part before the columns of the key, and those of the part's state behind.
const COLUMNS: [&str; 5] = ["group", "until", "said", "partition", "last"];

/// A group that may go to the disk: by when time first reaches it, and by when it was touched.
type Cold = ColdKey<(Reverse<i64>, u32, u32)>;

impl UpdateAggregate {
    /// Puts groups on the disk: those first that end last, and of those without an end the longest untouched; see [`Operator::spill`].
    pub(super) fn put_away(&mut self, want: usize, space: &SpillSpace) -> Result<usize, StreamError> {
        let before = self.state_bytes();
        let round = self.round;
        self.round += 1;
        let mut again = 0;
        if let Some(small) = self.cold.take_small()? {
            again = small.num_rows();
            self.enter(&small)?;
        }
        let here = self.groups.table.in_use();
        // What tells its changes has to be there when it is asked for them, which is soon.
        let waits = self.spec.emit == GroupEmit::OnClose;
        let ends = !matches!(self.spec.life, GroupLife::Open { .. });
        let mut cold = Vec::new();
        for group in here.iter().copied() {
            let of = self.groups.get(group);
            if of.touched < round
                && (waits || of.due == Due::Nothing)
                && let Some(key) = self.groups.table.key(group)
            {
                let times = self.groups.parts_of(group).map(|(_, part)| self.spec.life.reached(of.until, of.fired, part.last));
                let time = if ends { times.min().unwrap_or(i64::MAX) } else { 0 };
                cold.push(Cold { key: group, hash: self.cold.hash(key), rank: (Reverse(time), of.touched, group) });
            }
        }
        let of_group = self.state_bytes().saturating_sub(self.waiting.bytes() + self.cold.bytes()) / here.len().max(1);
        let cold = self.cold.choose(cold, want, of_group, again);
        if cold.is_empty() {
            return Ok(0);
        }
        self.states.rest(&mut self.groups.parts)?;
        let mut gone = 0;
        for file in cold.chunks(keys_of_file(of_group)) {
            if !self.park(file, space)? {
                break;
            }
            gone += file.len();
        }
        if gone == 0 {
            return Ok(0);
        }
        self.forget(&cold[..gone]);
        self.pack()?;
        Ok(before.saturating_sub(self.state_bytes()))
    }

    /// Puts groups into one file; `false` where there is no room.
    fn park(&mut self, cold: &[Cold], space: &SpillSpace) -> Result<bool, StreamError> {
        let mut columns: [Vec<i64>; 5] = Default::default();
        let (mut groups, mut spots, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (at, Cold { key: group, hash, .. }) in cold.iter().enumerate() {
            let (of, said) = (self.groups.get(*group), self.said(*group));
            for (_, part) in self.groups.parts_of(*group) {
                let cells = [at as i64, of.until, said, i64::from(part.partition), part.last];
                columns.iter_mut().zip(cells).for_each(|(column, cell)| column.push(cell));
                rows.push(ColdRow { hash: *hash, time: self.spec.life.reached(of.until, of.fired, part.last) });
                groups.push(*group);
                spots.push(part.state.spot());
            }
        }
        let mut named: Vec<(String, ArrayRef)> = COLUMNS
            .iter()
            .zip(columns)
            .map(|(name, column)| ((*name).to_owned(), Arc::new(Int64Array::from(column)) as ArrayRef))
            .collect();
        named.extend(self.groups.keys(&groups)?.into_iter().enumerate().map(|(at, column)| (format!("k{at}"), column)));
        named.extend(self.states.columns(&spots)?.into_iter().enumerate().map(|(at, column)| (format!("s{at}"), column)));
        self.cold.put(&batch(named, rows.len())?, rows, space)
    }

    /// Lets go of groups that lie on the disk.
    fn forget(&mut self, cold: &[Cold]) {
        let mut goes = vec![false; self.groups.groups.len()];
        cold.iter().for_each(|of| goes[of.key as usize] = true);
        let stays = |group: u32| goes.get(group as usize) != Some(&true);
        // A time at which a group on the disk ends is due as it was.
        self.ends.values_mut().for_each(|groups| groups.retain(|group| stays(*group)));
        self.closing.retain(|_, groups| {
            groups.retain(|group| stays(*group));
            !groups.is_empty()
        });
        let parts = &self.groups.parts;
        self.expiries.retain(|_, own| {
            own.retain(|part| stays(parts[*part as usize].group));
            !own.is_empty()
        });
        cold.iter().for_each(|of| self.groups.drop_group(of.key));
    }

    /// Takes back groups that lay on the disk.
    pub(super) fn enter(&mut self, batch: &RecordBatch) -> Result<(), StreamError> {
        let other = || StreamError::Spill("its file has other groups than were written".to_owned());
        let keys = self.lead() + self.spec.keys.len();
        if batch.num_columns() != COLUMNS.len() + keys + self.states.maker().frozen_width() {
            return Err(other());
        }
        let int = |place| ints_of(batch, place).ok_or_else(other);
        let (untils, saids, partitions, lasts) = (int(1)?, int(2)?, int(3)?, int(4)?);
        let (columns, states) = batch.columns()[COLUMNS.len()..].split_at(keys);
        let chunk = self.states.restore(states, batch.num_rows())?;
        let encoded = self.groups.table.encode(columns)?;
        for row in 0..batch.num_rows() {
            let (group, new) = self.groups.group(encoded.key(row));
            if new {
                self.begin_again(group, untils[row], saids[row]);
            } else if row == 0 || encoded.key(row) != encoded.key(row - 1) {
                return Err(other());
            }
            let (part, _) = self.groups.part(group, partitions[row] as i32, lasts[row]);
            self.groups.parts[part as usize].state = State::at((chunk, row as u32));
            self.watch(part);
        }
        Ok(())
    }

    /// A group that is in memory again.
    fn begin_again(&mut self, group: u32, until: i64, said: i64) {
        let fired = said & FIRED != 0;
        let of = self.groups.get_mut(group);
        (of.until, of.shown, of.fired) = (until, said & SHOWN != 0, fired);
        if said & (SHOWN - 1) == Due::Changed as i64 {
            of.due = Due::Changed;
        }
        if fired {
            self.closing.entry(until.saturating_add(self.grace_ms())).or_default().push(group);
        } else if until < i64::MAX {
            self.ends.entry(until).or_default().push(group);
        }
    }

    /// Takes back what was saved of the groups on the disk.
    pub(super) fn restore_cold(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = || StreamError::Restore {
            operator: "the aggregate that is kept up to date".to_owned(),
            why: "a file has other columns".to_owned(),
        };
        let (keys, width) = (self.lead() + self.spec.keys.len(), self.states.maker().frozen_width());
        let Self { cold, groups, ends, spec, .. } = self;
        let here = cold.restore(state, |batch, left| {
            if batch.num_columns() != COLUMNS.len() + keys + width {
                return Err(misfit());
            }
            let int = |place| ints_of(batch, place).ok_or_else(misfit);
            let (untils, saids, lasts) = (int(1)?, int(2)?, int(4)?);
            let fired = |row: usize| saids[row] & FIRED != 0;
            for row in (0..left.len()).filter(|row| !left[*row] && !fired(*row) && untils[*row] < i64::MAX) {
                ends.entry(untils[row]).or_default();
            }
            let times = (0..left.len()).map(|row| spec.life.reached(untils[row], fired(row), lasts[row])).collect();
            Ok((groups.table.encode(&batch.columns()[COLUMNS.len()..COLUMNS.len() + keys])?, times))
        })?;
        here.map_or(Ok(()), |here| self.enter(&here))
    }
}
