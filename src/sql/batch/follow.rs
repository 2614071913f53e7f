//! A view from one moment on: the rows that hold, then each change: [`Follow`].
//!
//! Every row says what it is (`_op`: `row`, `upsert`, `delete`) and at which moment it was so (`_epoch`): how far each partition of the view
//! had been read once it was there. Who gives an epoch back misses nothing and gets nothing twice. Always: between the rows that hold and
//! the first change nothing is left out; a row that no longer meets the condition is deleted. Called by the engine, for SUBSCRIBE.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, interleave_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, DataFusionError};

use super::read::{Reading, Run, Stored, storage};
use super::table::{Latest, record_keys};
use crate::bus::Bus;
use crate::record::Offset;
use crate::sql::catalog::Entry;
use crate::sql::error::{Code, SqlError};
use crate::sql::expr::PlannedExpr;
use crate::sql::lower::RECORD_KEY;
use crate::sql::session::Session;
use crate::sql::statement::Subscribe;
use crate::stream::Expr;

/// A view that somebody follows.
pub struct Follow {
    of: Stored,
    view: String,
    /// When this version of the view was made: a newer one has other offsets.
    made: i64,
    filter: Option<Arc<PlannedExpr>>,
    /// The view's columns that tell its rows apart, and their types; none where rows are only added.
    key: Vec<usize>,
    schema: SchemaRef,
    /// How far each partition was told.
    at: Vec<Offset>,
    /// The keys that were told and hold, where a condition makes that a question; `None` where it is not known or all of them are.
    told: Option<HashSet<Vec<u8>>>,
    /// The partition whose rows that hold come next.
    snapshot: Option<usize>,
    readings: Vec<Option<Reading>>,
}

impl Follow {
    /// Begins where `subscribe` says.
    pub async fn open(entry: &Entry, subscribe: &Subscribe, bus: &Arc<dyn Bus>) -> Result<Self, SqlError> {
        let def = entry.stream.as_ref().ok_or_else(|| SqlError::new(Code::Internal, "a view without results"))?;
        let of = Stored::open(def, bus).await?;
        let columns = &of.shape.schema;
        let filter = match &subscribe.filter {
            None => None,
            Some(filter) => {
                let schema = DFSchema::try_from(Arc::clone(columns))?;
                let session = Session::new([]);
                let expr = session.expression(filter, &schema)?;
                let planned = PlannedExpr::plan(&session, &expr, &schema)?;
                let found = planned.evaluate(&RecordBatch::new_empty(Arc::clone(columns))).map_err(|e| failed_to(&e))?;
                if *found.data_type() != DataType::Boolean {
                    return Err(SqlError::new(Code::TypeMismatch, "WHERE needs a condition, which is true or false"));
                }
                Some(planned)
            }
        };
        let made = entry.created.millis();
        let (at, snapshot) = match &subscribe.as_of {
            None => (of.partitions.iter().map(|(_, range)| range.end).collect(), Some(0)),
            Some((epoch, place)) => (positions(epoch, made, &of).map_err(|e| e.at(*place))?, None),
        };
        let key = def.primary_key.iter().filter_map(|name| columns.index_of(name).ok()).collect();
        let own = [Field::new("_op", DataType::Utf8, false), Field::new("_epoch", DataType::Utf8, true)];
        // A deletion has the key and nothing else.
        let nullable = columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(own.into_iter().chain(nullable).collect::<Vec<_>>()));
        let told = (filter.is_some() && snapshot.is_some() && of.source.is_table).then(HashSet::new);
        let readings = of.partitions.iter().map(|_| None).collect();
        Ok(Self { of, view: entry.name.clone(), made, filter, key, schema, at, told, snapshot, readings })
    }

    /// The columns of what it answers.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The next rows; waits where there are none yet.
    pub async fn next(&mut self, bus: &Arc<dyn Bus>) -> Result<RecordBatch, SqlError> {
        loop {
            let found = match self.snapshot {
                Some(place) => self.holding(place).await?,
                None => self.changes(bus).await?,
            };
            if let Some(rows) = found {
                return Ok(rows);
            }
        }
    }

    /// The rows that hold in one partition at the beginning; behind the last partition, the epoch of that moment.
    async fn holding(&mut self, place: usize) -> Result<Option<RecordBatch>, SqlError> {
        if place == self.of.partitions.len() {
            self.snapshot = None;
            self.readings.iter_mut().for_each(|reading| *reading = None);
            let none = RecordBatch::new_empty(Arc::clone(&self.of.shape.schema));
            return self.answer(&[(none, "epoch")], &[(0, None)], Some(&[self.epoch(&self.at)])).map(Some);
        }
        let mut reading = match self.readings[place].take() {
            Some(reading) => reading,
            None => self.of.reading(place).await?,
        };
        if !self.of.source.is_table {
            let Some(run) = reading.next().await? else {
                self.snapshot = Some(place + 1);
                return Ok(None);
            };
            self.readings[place] = Some(reading);
            let rows = self.of.columns(&run.rows).map_err(|e| failed_to(&e))?;
            let passes = self.passes(&rows)?;
            return self.rows(&filter_record_batch(&rows, &passes).map_err(DataFusionError::from)?, "row");
        }
        let mut latest = Latest::new(&self.of);
        while let Some(run) = reading.next().await? {
            latest.take(&run)?;
        }
        self.snapshot = Some(place + 1);
        let Some(decoded) = latest.rows()? else { return Ok(None) };
        let rows = self.of.columns(&decoded).map_err(|e| failed_to(&e))?;
        let passes = self.passes(&rows)?;
        if self.told.is_some() {
            let keys = keys_of(&decoded)?;
            let told = keys.into_iter().zip(passes.iter()).filter(|(_, passes)| *passes == Some(true)).map(|(key, _)| key);
            self.told.get_or_insert_default().extend(told);
        }
        self.rows(&filter_record_batch(&rows, &passes).map_err(DataFusionError::from)?, "row")
    }

    fn rows(&self, rows: &RecordBatch, op: &'static str) -> Result<Option<RecordBatch>, SqlError> {
        if rows.num_rows() == 0 {
            return Ok(None);
        }
        let all: Vec<(usize, Option<usize>)> = (0..rows.num_rows()).map(|row| (0, Some(row))).collect();
        self.answer(&[(rows.clone(), op)], &all, None).map(Some)
    }

    /// What is new in any partition; waits for it, and answers nothing where it is only time to look again.
    async fn changes(&mut self, bus: &Arc<dyn Bus>) -> Result<Option<RecordBatch>, SqlError> {
        for place in 0..self.at.len() {
            let mut reading = match self.readings[place].take() {
                Some(reading) => reading,
                None => self.of.reading_from(place, self.at[place]).await?,
            };
            let run = reading.next().await?;
            let now = reading.at();
            self.readings[place] = Some(reading);
            if let Some(run) = run {
                let found = self.changed(place, &run)?;
                self.at[place] = now;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        let waits = self.at.iter().zip(&self.of.partitions).map(|(at, (partition, _))| bus.wait(partition, *at));
        if waits.len() == 0 {
            return Err(SqlError::new(Code::NoSuchName, format!("the topic of view \"{}\" is gone", self.view)));
        }
        futures::future::select_all(waits).await.0.map_err(storage)?;
        Ok(None)
    }

    /// The changes of one run of a partition, in order.
    fn changed(&mut self, place: usize, run: &Run) -> Result<Option<RecordBatch>, SqlError> {
        let rows = self.of.columns(&run.rows).map_err(|e| failed_to(&e))?;
        let passes = self.passes(&rows)?;
        if !self.of.source.is_table {
            let told: Vec<usize> = (0..rows.num_rows()).filter(|row| passes.value(*row)).collect();
            let epochs: Vec<String> = told.iter().map(|row| self.epoch_at(place, Offset(run.offsets[*row] + 1))).collect();
            let told: Vec<(usize, Option<usize>)> = told.into_iter().map(|row| (0, Some(row))).collect();
            return if told.is_empty() { Ok(None) } else { self.answer(&[(rows, "upsert")], &told, Some(&epochs)).map(Some) };
        }
        let keys = keys_of(&run.rows)?;
        let mut gone: Vec<Vec<u8>> = Vec::new();
        let mut order: Vec<(usize, Option<usize>)> = Vec::new();
        let mut epochs: Vec<String> = Vec::new();
        let mut deleted = run.tombstones.iter().peekable();
        for row in 0..=keys.len() {
            while let Some(tombstone) = deleted.next_if(|t| run.offsets.get(row).is_none_or(|offset| t.offset.0 < *offset)) {
                if self.told.as_mut().is_none_or(|told| told.remove(&tombstone.key)) {
                    order.push((1, Some(gone.len())));
                    gone.push(tombstone.key.clone());
                    epochs.push(self.epoch_at(place, tombstone.offset.plus(1)));
                }
            }
            let Some(key) = keys.get(row) else { break };
            if passes.value(row) {
                if let Some(told) = &mut self.told {
                    told.insert(key.clone());
                }
                order.push((0, Some(row)));
            } else if self.told.as_mut().is_none_or(|told| told.remove(key)) {
                order.push((1, Some(gone.len())));
                gone.push(key.clone());
            } else {
                continue;
            }
            epochs.push(self.epoch_at(place, Offset(run.offsets[row] + 1)));
        }
        if order.is_empty() {
            return Ok(None);
        }
        let gone = self.deletions(&gone)?;
        self.answer(&[(rows, "upsert"), (gone, "delete")], &order, Some(&epochs)).map(Some)
    }

    /// Which rows meet the condition; one whose condition fails or is NULL does not.
    fn passes(&self, rows: &RecordBatch) -> Result<BooleanArray, SqlError> {
        let Some(filter) = &self.filter else { return Ok(BooleanArray::from(vec![true; rows.num_rows()])) };
        let found = filter.evaluate(rows).map_err(|e| failed_to(&e))?;
        let found = found.as_boolean();
        Ok((0..rows.num_rows()).map(|row| Some(found.is_valid(row) && found.value(row))).collect())
    }

    /// Rows with nothing but the keys.
    fn deletions(&self, keys: &[Vec<u8>]) -> Result<RecordBatch, SqlError> {
        let mut parts: Vec<Vec<Option<String>>> = vec![Vec::with_capacity(keys.len()); self.key.len()];
        for key in keys {
            let texts = key_parts(key, self.key.len());
            for (at, part) in parts.iter_mut().enumerate() {
                part.push(texts.get(at).cloned().flatten());
            }
        }
        let fields = self.schema.fields()[2..].iter();
        let column = |(at, field): (usize, &Arc<Field>)| -> Result<ArrayRef, SqlError> {
            let Some(part) = self.key.iter().position(|key| *key == at) else {
                return Ok(new_null_array(field.data_type(), keys.len()));
            };
            let texts = StringArray::from(parts[part].clone());
            let options = CastOptions { safe: true, ..CastOptions::default() };
            Ok(cast_with_options(&texts, field.data_type(), &options).map_err(DataFusionError::from)?)
        };
        let columns = fields.enumerate().map(column).collect::<Result<Vec<_>, _>>()?;
        let schema = Arc::new(Schema::new(self.schema.fields()[2..].to_vec()));
        Ok(RecordBatch::try_new(schema, columns).map_err(DataFusionError::from)?)
    }

    /// Rows out of several batches, each with its word, in the order that is given; `None` for a row without a value.
    fn answer(
        &self,
        from: &[(RecordBatch, &'static str)],
        order: &[(usize, Option<usize>)],
        epochs: Option<&[String]>,
    ) -> Result<RecordBatch, SqlError> {
        let nullable = Arc::new(Schema::new(self.schema.fields()[2..].to_vec()));
        let loose = |rows: &RecordBatch| RecordBatch::try_new(Arc::clone(&nullable), rows.columns().to_vec());
        let batches = from.iter().map(|(rows, _)| loose(rows)).collect::<Result<Vec<_>, _>>().map_err(DataFusionError::from)?;
        let rows = match order {
            [(_, None)] => {
                let nothing = nullable.fields().iter().map(|f| new_null_array(f.data_type(), 1)).collect();
                RecordBatch::try_new(Arc::clone(&nullable), nothing).map_err(DataFusionError::from)?
            }
            _ => {
                let places: Vec<(usize, usize)> = order.iter().filter_map(|(of, row)| Some((*of, (*row)?))).collect();
                let refs: Vec<&RecordBatch> = batches.iter().collect();
                interleave_record_batch(&refs, &places).map_err(DataFusionError::from)?
            }
        };
        let op: ArrayRef = Arc::new(StringArray::from_iter_values(order.iter().map(|(of, _)| from[*of].1)));
        let epoch: ArrayRef = match epochs {
            Some(epochs) => Arc::new(StringArray::from_iter_values(epochs)),
            None => new_null_array(&DataType::Utf8, order.len()),
        };
        let columns = [op, epoch].into_iter().chain(rows.columns().iter().cloned()).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(DataFusionError::from)?)
    }

    /// The epoch at which one partition was told up to `offset`, and the others as far as they are.
    fn epoch_at(&self, place: usize, offset: Offset) -> String {
        let mut at = self.at.clone();
        at[place] = offset;
        self.epoch(&at)
    }

    fn epoch(&self, at: &[Offset]) -> String {
        let offsets: Vec<String> = at.iter().map(|offset| offset.0.to_string()).collect();
        format!("{}.{}", self.made, offsets.join(","))
    }
}

/// The offsets that an epoch names.
fn positions(epoch: &str, made: i64, of: &Stored) -> Result<Vec<Offset>, SqlError> {
    let bad = |why: &str| {
        SqlError::new(Code::BadDefinition, format!("the epoch cannot be gone on from: {why}"))
            .hint("write one as it came in the column _epoch, or leave AS OF out to begin with the rows that hold")
    };
    let (version, offsets) = epoch.split_once('.').ok_or_else(|| bad("it is none"))?;
    if version.parse::<i64>().map_err(|_| bad("it is none"))? != made {
        return Err(bad("it is of another version of the view"));
    }
    let offsets = offsets.split(',').map(|text| text.parse().map(Offset)).collect::<Result<Vec<_>, _>>().map_err(|_| bad("it is none"))?;
    if offsets.len() != of.partitions.len() {
        return Err(bad("it has another number of partitions"));
    }
    for (offset, (_, range)) in offsets.iter().zip(&of.partitions) {
        if *offset > range.end {
            return Err(bad("it lies ahead of the view"));
        }
        if *offset < range.start {
            return Err(bad("what came behind it was deleted meanwhile"));
        }
    }
    Ok(offsets)
}

/// The records' own keys.
fn keys_of(decoded: &RecordBatch) -> Result<Vec<Vec<u8>>, SqlError> {
    let at = decoded.schema().index_of(RECORD_KEY).map_err(DataFusionError::from)?;
    Ok(record_keys(&[Arc::clone(decoded.column(at))], decoded.num_rows())?)
}

/// What a record's key says of each of its columns: one as text, several (or a NULL) as a JSON array.
fn key_parts(key: &[u8], columns: usize) -> Vec<Option<String>> {
    let list = || serde_json::from_slice::<Vec<Option<String>>>(key).ok().filter(|parts| parts.len() == columns);
    match columns {
        0 => Vec::new(),
        1 if key == b"[null]" => vec![None],
        1 => vec![Some(String::from_utf8_lossy(key).into_owned())],
        _ => list().unwrap_or_default(),
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "an error is not copied")]
fn failed_to(error: &crate::stream::StreamError) -> SqlError {
    SqlError::new(Code::Execution, error.to_string())
}
