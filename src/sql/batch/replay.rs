//! The streaming operators over stored data: from the first record to the last, then the end of time.
//!
//! Owns the table of a part's results. Always: each partition is fed in offset order with its own watermark, as a task
//! would; of several partitions the one whose watermark is least goes on first, so that windows close as early as
//! they can; and at the end everything closes. Nobody judges rows ahead of the clock: history has none. Late rows
//! and rows that fail are left out, as they are of a continuous query's results.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream::try_unfold;

use super::read::{Reading, Stored};
use super::table::{external, failed};
use crate::sql::error::SqlError;
use crate::sql::lower::{Placement, QueryPlan};
use crate::stream::{AheadJudge, Chain, Output, Scope, Stamper};
use crate::time::Timestamp;

/// What the results' column with this place is called: the plan's own names need not be distinct.
pub(super) fn column_name(place: usize) -> String {
    format!("c{place}")
}

/// The results of a part over what is stored.
pub(super) fn table(of: Arc<Stored>, part: QueryPlan) -> DfResult<Arc<dyn TableProvider>> {
    let fields = part.schema.fields().iter().enumerate();
    let fields = fields.map(|(i, field)| Field::new(column_name(i), field.data_type().clone(), field.is_nullable()));
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let results = Results { of, part: Arc::new(part), schema: Arc::clone(&schema) };
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(results)])?))
}

#[derive(Debug)]
struct Results {
    of: Arc<Stored>,
    part: Arc<QueryPlan>,
    schema: SchemaRef,
}

impl PartitionStream for Results {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let run = Run {
            of: Arc::clone(&self.of),
            part: Arc::clone(&self.part),
            schema: Arc::clone(&self.schema),
            tasks: None,
            ready: VecDeque::new(),
            left_out: 0,
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), try_unfold(run, |run| run.next())))
    }
}

/// One task: a chain over one partition or over all.
struct Replayed {
    chain: Chain,
    inputs: Vec<Input>,
}

struct Input {
    reading: Reading,
    stamper: Stamper,
    done: bool,
}

struct Run {
    of: Arc<Stored>,
    part: Arc<QueryPlan>,
    schema: SchemaRef,
    /// What is still to be done; `None` before the start.
    tasks: Option<VecDeque<Replayed>>,
    ready: VecDeque<RecordBatch>,
    left_out: usize,
}

impl Run {
    async fn next(mut self) -> DfResult<Option<(RecordBatch, Self)>> {
        if self.tasks.is_none() {
            self.tasks = Some(start(Arc::clone(&self.of), Arc::clone(&self.part)).await.map_err(external)?);
        }
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some((batch, self)));
            }
            let Some(task) = self.tasks.as_mut().and_then(VecDeque::front_mut) else {
                if self.left_out > 0 {
                    tracing::warn!(stream = %self.part.source, rows = self.left_out, "rows were left out of a SELECT because an expression failed");
                }
                return Ok(None);
            };
            let (out, ended) = task.step().await?;
            if ended && let Some(tasks) = &mut self.tasks {
                tasks.pop_front();
            }
            self.left_out += out.failed.len();
            for rows in out.rows {
                let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
                self.ready.push_back(RecordBatch::try_new_with_options(Arc::clone(&self.schema), rows.batch.columns().to_vec(), &options)?);
            }
        }
    }
}

/// The tasks of a part, as the engine would place them.
async fn start(of: Arc<Stored>, part: Arc<QueryPlan>) -> Result<VecDeque<Replayed>, SqlError> {
    let mut inputs = Vec::with_capacity(of.partitions.len());
    for place in 0..of.partitions.len() {
        let reading = of.reading(place).await?;
        let stamper = Stamper::new(part.time.clone(), reading.partition);
        inputs.push(Input { reading, stamper, done: false });
    }
    Ok(match part.placement {
        Placement::Merged => [Replayed { chain: part.chain(Scope::Merged)?, inputs }].into(),
        Placement::Partition => {
            let alone = |input: Input| Ok(Replayed { chain: part.chain(Scope::Partition(input.reading.partition))?, inputs: vec![input] });
            inputs.into_iter().map(alone).collect::<Result<_, SqlError>>()?
        }
    })
}

impl Replayed {
    /// Takes one run of rows from the partition that is furthest behind. Answers whether this was the last.
    async fn step(&mut self) -> DfResult<(Output, bool)> {
        let mut out = Output::default();
        let behind =
            self.inputs.iter_mut().filter(|input| !input.done).min_by_key(|input| (input.stamper.watermark(), input.reading.partition));
        if let Some(input) = behind {
            match input.reading.next().await.map_err(external)? {
                None => input.done = true,
                Some(run) if run.rows.num_rows() == 0 => {}
                Some(run) => {
                    let rows = input.stamper.stamp_batch(run.rows, run.offsets, AheadJudge::Nobody, &mut out.aside).map_err(failed)?;
                    self.chain.rows(&rows, &mut out).map_err(failed)?;
                }
            }
        }
        let mark = self.inputs.iter().filter(|input| !input.done).map(|input| input.stamper.watermark()).min();
        self.chain.watermark(mark.unwrap_or(Timestamp::MAX), &mut out).map_err(failed)?;
        Ok((out, mark.is_none()))
    }
}
