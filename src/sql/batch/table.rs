//! A stream's history and a table's latest rows as tables of DataFusion.
//!
//! Always: rows of a partition in offset order, partitions in order. A table shows, for each primary key, the row
//! that came last, unless a tombstone came after it. A row whose computed column fails ends the query with an error:
//! a batch query has no dead letters.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream::try_unfold;

use super::read::{Reading, Run, Stored};
use crate::sql::error::SqlError;
use crate::sql::lower::RECORD_KEY;
use crate::stream::StreamError;

/// Everything that is stored, as one partition of DataFusion's.
pub(super) fn stored(of: &Arc<Stored>) -> DfResult<Arc<dyn TableProvider>> {
    let schema = Arc::clone(&of.shape.schema);
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(Everything { of: Arc::clone(of) })])?))
}

#[derive(Debug)]
struct Everything {
    of: Arc<Stored>,
}

impl PartitionStream for Everything {
    fn schema(&self) -> &SchemaRef {
        &self.of.shape.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.of.shape.schema);
        let walk = Walk { of: Arc::clone(&self.of), place: 0, reading: None };
        if !self.of.source.is_table {
            return Box::pin(RecordBatchStreamAdapter::new(schema, try_unfold(walk, |walk| walk.history())));
        }
        Box::pin(RecordBatchStreamAdapter::new(schema, try_unfold(walk, |walk| walk.latest())))
    }
}

/// A walk over all partitions, one behind the other.
struct Walk {
    of: Arc<Stored>,
    place: usize,
    reading: Option<Reading>,
}

impl Walk {
    /// The next rows of the partition at hand; `None` where it has none left.
    async fn run(&mut self) -> DfResult<Option<Run>> {
        if self.reading.is_none() {
            self.reading = Some(self.of.reading(self.place).await.map_err(external)?);
        }
        let Some(reading) = &mut self.reading else { return Ok(None) };
        let run = reading.next().await.map_err(external)?;
        if run.is_none() {
            self.reading = None;
            self.place += 1;
        }
        Ok(run)
    }

    async fn history(mut self) -> DfResult<Option<(RecordBatch, Self)>> {
        while self.place < self.of.partitions.len() {
            if let Some(run) = self.run().await?
                && run.rows.num_rows() > 0
            {
                let rows = self.of.columns(&run.rows).map_err(failed)?;
                return Ok(Some((rows, self)));
            }
        }
        Ok(None)
    }

    /// The latest row of each key of the partition at hand: a key lies in one partition.
    async fn latest(mut self) -> DfResult<Option<(RecordBatch, Self)>> {
        while self.place < self.of.partitions.len() {
            let mut latest = Latest::new(&self.of);
            while let Some(run) = self.run().await? {
                latest.take(&run)?;
            }
            if let Some(rows) = latest.rows()? {
                let rows = self.of.columns(&rows).map_err(failed)?;
                return Ok(Some((rows, self)));
            }
        }
        Ok(None)
    }
}

/// The row that came last of each key: by the record's own where that is read, else by the text that it would have.
pub(super) struct Latest {
    columns: Vec<usize>,
    runs: Vec<RecordBatch>,
    keys: HashMap<Vec<u8>, (usize, u32)>,
}

impl Latest {
    pub(super) fn new(of: &Stored) -> Self {
        let columns = match of.source.decoded.index_of(RECORD_KEY) {
            Ok(own) => vec![own],
            Err(_) => of.source.primary_key.iter().filter_map(|name| of.source.decoded.index_of(name).ok()).collect(),
        };
        Self { columns, runs: Vec::new(), keys: HashMap::new() }
    }

    pub(super) fn take(&mut self, run: &Run) -> DfResult<()> {
        let place = self.runs.len();
        let columns: Vec<ArrayRef> = self.columns.iter().map(|i| Arc::clone(run.rows.column(*i))).collect();
        let keys = record_keys(&columns, run.rows.num_rows())?;
        let mut deleted = run.tombstones.iter().peekable();
        for (row, key) in keys.into_iter().enumerate() {
            while let Some(tombstone) = deleted.next_if(|t| t.offset.0 < run.offsets[row]) {
                self.keys.remove(&tombstone.key);
            }
            self.keys.insert(key, (place, row as u32));
        }
        for tombstone in deleted {
            self.keys.remove(&tombstone.key);
        }
        self.runs.push(run.rows.clone());
        // Rows that were overtaken go once they are most of what is held.
        let held: usize = self.runs.iter().map(RecordBatch::num_rows).sum();
        if held > 65_536 && held > 2 * self.keys.len() {
            self.compact()?;
        }
        Ok(())
    }

    /// Keeps nothing but the latest rows.
    fn compact(&mut self) -> DfResult<()> {
        let mut runs = Vec::with_capacity(self.runs.len());
        let mut by_run: Vec<Vec<(u32, Vec<u8>)>> = vec![Vec::new(); self.runs.len()];
        for (key, (run, row)) in self.keys.drain() {
            by_run[run].push((row, key));
        }
        for (run, mut rows) in self.runs.drain(..).zip(by_run) {
            if rows.is_empty() {
                continue;
            }
            rows.sort_unstable();
            let picked = UInt32Array::from_iter_values(rows.iter().map(|(row, _)| *row));
            for (at, (_, key)) in rows.into_iter().enumerate() {
                self.keys.insert(key, (runs.len(), at as u32));
            }
            runs.push(take_record_batch(&run, &picked)?);
        }
        self.runs = runs;
        Ok(())
    }

    pub(super) fn rows(mut self) -> DfResult<Option<RecordBatch>> {
        self.compact()?;
        match self.runs.first() {
            None => Ok(None),
            Some(first) => Ok(Some(arrow::compute::concat_batches(&first.schema(), &self.runs)?)),
        }
    }
}

/// Each row's key as its record's key spells it: one column as text, several as a JSON array of texts.
pub(super) fn record_keys(columns: &[ArrayRef], rows: usize) -> DfResult<Vec<Vec<u8>>> {
    if let [column] = columns
        && column.data_type() == &DataType::Utf8
    {
        let texts: &arrow::array::StringArray = arrow::array::AsArray::as_string(column.as_ref());
        return Ok(texts.iter().map(|text| text.unwrap_or_default().as_bytes().to_vec()).collect());
    }
    if let [column] = columns
        && column.data_type() == &DataType::Binary
    {
        let keys: &arrow::array::BinaryArray = arrow::array::AsArray::as_binary(column.as_ref());
        return Ok(keys.iter().map(|key| key.unwrap_or_default().to_vec()).collect());
    }
    let options = FormatOptions::default();
    let texts = columns.iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<Vec<_>, _>>()?;
    let shown = texts.iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options)).collect::<Result<Vec<_>, _>>()?;
    let key = |row: usize| {
        let parts: Vec<Option<String>> =
            shown.iter().zip(&texts).map(|(text, column)| column.is_valid(row).then(|| text.value(row).to_string())).collect();
        match parts.as_slice() {
            [one] => one.clone().unwrap_or_default().into_bytes(),
            several => serde_json::to_vec(several).unwrap_or_default(),
        }
    };
    Ok((0..rows).map(key).collect())
}

/// Our own error on its way through DataFusion.
pub(super) fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A stream's error on its way through DataFusion.
#[allow(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
pub(super) fn failed(error: StreamError) -> DataFusionError {
    external(SqlError::new(crate::sql::error::Code::Execution, error.to_string()))
}
