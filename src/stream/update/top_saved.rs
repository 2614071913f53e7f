//! The state of rankings as columns, and back.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::Schema;

use super::saved::batch;
use super::top::{Member, Part, Ranking, Top};
use crate::stream::rank::Spot;
use crate::stream::rowwise::arrow_error;
use crate::stream::window::{ints, ints_of};
use crate::stream::{StateReader, StateWriter, StreamError};

fn misfit(why: &str) -> StreamError {
    StreamError::Restore { operator: "the ranking that is kept up to date".to_owned(), why: why.to_owned() }
}

fn numbers(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

impl Top {
    pub(super) fn write(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        state.put("mark", ints(vec![("mark", vec![self.mark]), ("next", vec![self.next])])?);
        let slots = self.table.in_use();
        if slots.is_empty() {
            return Ok(());
        }
        let rankings: Vec<&Ranking> = slots.iter().map(|slot| &self.rankings[*slot as usize]).collect();
        let of = |value: fn(&Ranking) -> i64| numbers(rankings.iter().map(|ranking| value(ranking)));
        let mut columns = vec![
            ("due".to_owned(), of(|ranking| i64::from(ranking.due))),
            ("parts".to_owned(), of(|ranking| ranking.parts.len() as i64)),
            ("told".to_owned(), of(|ranking| ranking.told.len() as i64)),
        ];
        let keys = self.table.decode(slots.iter().filter_map(|slot| self.table.key(*slot).map(AsRef::as_ref)))?;
        columns.extend(keys.into_iter().enumerate().map(|(at, key)| (format!("k{at}"), key)));
        state.put("keys", batch(columns, slots.len())?);
        let told = || rankings.iter().flat_map(|ranking| &ranking.told);
        let (ids, shown) = (told().map(|(id, _)| *id).collect(), told().map(|(_, shown)| i64::from(*shown)).collect());
        state.put("told", ints(vec![("id", ids), ("shown", shown)])?);
        let parts: Vec<&Part> = rankings.iter().flat_map(|ranking| &ranking.parts).collect();
        let part = |value: fn(&Part) -> i64| parts.iter().map(|part| value(part)).collect::<Vec<_>>();
        let (partitions, lasts) = (part(|p| i64::from(p.partition)), part(|p| p.last));
        state.put("parts", ints(vec![("partition", partitions), ("last", lasts), ("rows", part(|p| p.members.len() as i64))])?);
        let members: Vec<&Member> = parts.iter().flat_map(|part| &part.members).collect();
        if members.is_empty() {
            return Ok(());
        }
        let member = |value: fn(&Member) -> i64| numbers(members.iter().map(|member| value(member)));
        let mut columns =
            vec![("at".to_owned(), member(|m| m.at)), ("offset".to_owned(), member(|m| m.offset)), ("id".to_owned(), member(|m| m.id))];
        let spots: Vec<Spot> = members.iter().map(|member| member.spot).collect();
        columns.extend(self.store.gather(&spots)?.into_iter().enumerate().map(|(at, column)| (format!("c{at}"), column)));
        state.put("rows", batch(columns, members.len())?);
        Ok(())
    }

    pub(super) fn read(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let number = |batch, place| ints_of(batch, place).ok_or_else(|| misfit("a number is missing"));
        let part_of = |name: &'static str| state.get(name).next();
        let mark = part_of("mark").ok_or_else(|| misfit("the mark is missing"))?;
        let first = |place| number(mark, place)?.first().copied().ok_or_else(|| misfit("the mark is empty"));
        (self.mark, self.next) = (first(0)?, first(1)?);
        let Some(keys) = part_of("keys") else { return Ok(()) };
        let (Some(told), Some(parts)) = (part_of("told"), part_of("parts")) else { return Err(misfit("the places are missing")) };
        let inputs = self.spec.schema.fields().len() - 1;
        if keys.num_columns() != 3 + self.spec.keys.len() || part_of("rows").is_some_and(|rows| rows.num_columns() != 3 + inputs) {
            return Err(misfit("the rows have another number of columns"));
        }
        let (dues, part_counts, told_counts) = (number(keys, 0)?, number(keys, 1)?, number(keys, 2)?);
        let (ids, shown) = (number(told, 0)?, number(told, 1)?);
        let (partitions, lasts, row_counts) = (number(parts, 0)?, number(parts, 1)?, number(parts, 2)?);
        let mut members = self.members(part_of("rows"))?.into_iter();
        let encoded = self.table.encode(&keys.columns()[3..])?;
        let count = |of: i64, left: usize| usize::try_from(of).ok().filter(|n| *n <= left).ok_or_else(|| misfit("a count is wrong"));
        let (mut part, mut place, mut turn) = (0, 0, Vec::new());
        for row in 0..keys.num_rows() {
            let (slot, new) = self.table.slot(encoded.key(row));
            if !new {
                return Err(misfit("a key is there twice"));
            }
            let mut ranking = Ranking { due: dues[row] as u8, ..Ranking::default() };
            for _ in 0..count(part_counts[row], partitions.len() - part)? {
                let (partition, last) = (partitions[part] as i32, lasts[part]);
                let own = count(row_counts[part], members.len())?;
                let mut own: Vec<Member> = members.by_ref().take(own).collect();
                own.iter_mut().for_each(|member| member.partition = partition);
                self.kept += own.len();
                ranking.parts.push(Part { partition, last, members: own });
                self.watch(slot, partition, last);
                part += 1;
            }
            let told = count(told_counts[row], ids.len() - place)?;
            ranking.told = (place..place + told).map(|at| (ids[at], shown[at] != 0)).collect();
            place += told;
            match ranking.due {
                0 => {}
                1 => self.owe(slot),
                _ => turn.push(slot),
            }
            self.rankings.push(ranking);
        }
        self.sort(&mut turn);
        self.turn.extend(turn);
        Ok(())
    }

    /// The rows in the order in which they were written, put into the store; whose they are is said by the parts.
    fn members(&mut self, rows: Option<&RecordBatch>) -> Result<Vec<Member>, StreamError> {
        let Some(rows) = rows else { return Ok(Vec::new()) };
        let number = |place| ints_of(rows, place).ok_or_else(|| misfit("a row has no place"));
        let (times, offsets, ids) = (number(0)?, number(1)?, number(2)?);
        let fields = self.spec.schema.fields();
        let schema = Arc::new(Schema::new(fields[..fields.len() - 1].to_vec()));
        let batch = RecordBatch::try_new(schema, rows.columns()[3..].to_vec()).map_err(|_| misfit("the rows have other columns"))?;
        let order = self.evaluated(&batch)?.order;
        let order = self.converter.convert_columns(&order).map_err(|e| arrow_error("ORDER BY", &e))?;
        let chunk = self.store.add(batch.columns(), (0..batch.num_rows() as u32).collect())?;
        let member = |row: usize| Member {
            order: order.row(row).data().into(),
            at: times[row],
            partition: 0,
            offset: offsets[row],
            id: ids[row],
            spot: (chunk, row as u32),
        };
        Ok((0..batch.num_rows()).map(member).collect())
    }
}
