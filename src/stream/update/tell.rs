//! How groups stand, put into rows, and what of it the reader is told.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, TimestampMillisecondArray};

use super::groups::Due;
use super::operator::{GroupLife, UpdateAggregate};
use crate::record::PartitionId;
use crate::stream::rowwise::arrow_error;
use crate::stream::window::{WindowColumn, as_type};
use crate::stream::{NO_OFFSET, Output, Rows, Scope, StreamError};

impl UpdateAggregate {
    /// What of these groups a column is; `values` are their aggregates.
    fn column(&self, what: WindowColumn, groups: &[u32], keys: &[ArrayRef], values: &[ArrayRef]) -> Result<ArrayRef, StreamError> {
        let missing = || StreamError::Limit(format!("an aggregate that is kept up to date has no {what:?}"));
        let times = |of: &dyn Fn(i64) -> i64| {
            let until = |group: &u32| of(self.groups.get(*group).until);
            Ok(Arc::new(TimestampMillisecondArray::from_iter_values(groups.iter().map(until))) as ArrayRef)
        };
        match (what, self.spec.life) {
            (WindowColumn::Key(key), _) => keys.get(self.lead() + key).cloned().ok_or_else(missing),
            (WindowColumn::Agg(fold), _) => values.get(fold).cloned().ok_or_else(missing),
            (WindowColumn::WindowTime, _) => times(&|until| until),
            (WindowColumn::WindowEnd, _) => times(&|until| until + 1),
            (WindowColumn::WindowStart, GroupLife::Window { rule, .. }) => times(&|until| rule.start_of(until + 1)),
            (WindowColumn::WindowStart, _) => Err(missing()),
        }
    }

    /// The rows of these groups.
    fn rows_of(&mut self, groups: &[u32]) -> Result<Rows, StreamError> {
        self.states.rest(&mut self.groups.parts)?;
        let spots: Vec<_> = groups.iter().map(|group| self.groups.spots_of(*group)).collect();
        let values = self.states.values(&spots)?;
        let keys = self.groups.keys(groups)?;
        let mut columns = Vec::with_capacity(self.spec.columns.len());
        for (column, field) in self.spec.columns.iter().zip(self.spec.schema.fields()) {
            columns.push(as_type(self.column(*column, groups, &keys, &values)?, field)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(groups.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.spec.schema), columns, &options);
        Ok(self.placed(groups, batch.map_err(|e| arrow_error("the groups' results", &e))?))
    }

    fn placed(&self, groups: &[u32], batch: RecordBatch) -> Rows {
        let partition = match self.spec.scope {
            Scope::Partition(partition) => partition,
            Scope::Merged => PartitionId(0),
        };
        let time = |group: &u32| match self.groups.get(*group).until {
            i64::MAX => self.groups.last_of(*group),
            until => until,
        };
        let times: Vec<i64> = groups.iter().map(time).collect();
        let offsets = vec![NO_OFFSET; groups.len()].into();
        Rows { batch, partition, offsets, before: times.clone().into(), times: times.into(), heard: None, gone: false }
    }

    /// Hands on what groups have come to.
    pub(super) fn hand_on(&mut self, groups: &[u32], out: &mut Output) -> Result<(), StreamError> {
        let rows = self.rows_of(groups)?;
        out.rows.push(rows);
        Ok(())
    }

    /// Tells the reader how groups stand.
    pub(super) fn tell(&mut self, groups: &[u32], out: &mut Output) -> Result<(), StreamError> {
        if groups.is_empty() {
            return Ok(());
        }
        let rows = self.rows_of(groups)?;
        let Some(shown) = &mut self.spec.shown else { return Ok(()) };
        let passed = shown.pass(&rows, out)?;
        let mut gone = Vec::new();
        for (group, passed) in groups.iter().zip(passed) {
            let of = self.groups.get_mut(*group);
            of.due = Due::Nothing;
            if std::mem::replace(&mut of.shown, passed) && !passed {
                gone.push(*group);
            }
        }
        self.say_gone(&gone, out)
    }

    pub(super) fn say_gone(&self, groups: &[u32], out: &mut Output) -> Result<(), StreamError> {
        if groups.is_empty() {
            return Ok(());
        }
        let Some(shown) = &self.spec.shown else { return Ok(()) };
        let keys = self.groups.keys(groups)?;
        let like = self.placed(groups, RecordBatch::new_empty(Arc::clone(&shown.schema)));
        shown.gone(&like, |column| self.column(column, groups, &keys, &[]), out)
    }
}
