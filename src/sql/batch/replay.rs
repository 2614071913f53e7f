//! The streaming operators over stored data: from the first record to the last, then the end of time.
//!
//! Owns the table of a part's results. Always: each partition is fed in offset order with its own watermark, as a task
//! would; of several partitions the one whose watermark is least goes on first, so that windows close as early as
//! they can; and at the end everything closes. Nobody judges rows ahead of the clock: history has none. Late rows
//! and rows that fail are left out, as they are of a continuous query's results.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Result as DfResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream::try_unfold;

use super::read::{Reading, Stored};
use super::table::{external, failed};
use crate::record::PartitionId;
use crate::sql::error::SqlError;
use crate::sql::lower::{Placement, QueryPlan};
use crate::stream::{AheadJudge, Chain, Output, Piece, Scope, Stamper, TaskStats};
use crate::time::Timestamp;

/// What is held is found by looking through it: after a look, so many times its length goes by before the next one.
const WEIGH_RATIO: u32 = 50;

/// What the results' column with this place is called: the plan's own names need not be distinct.
pub(super) fn column_name(place: usize) -> String {
    format!("c{place}")
}

/// The results of a part over what is stored.
pub(super) fn table(of: Vec<Arc<Stored>>, part: QueryPlan, stats: Arc<TaskStats>) -> DfResult<Arc<dyn TableProvider>> {
    let fields = part.schema.fields().iter().enumerate();
    let fields = fields.map(|(i, field)| Field::new(column_name(i), field.data_type().clone(), field.is_nullable()));
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let results = Results { of, part: Arc::new(part), schema: Arc::clone(&schema), stats };
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(results)])?))
}

#[derive(Debug)]
struct Results {
    /// What it reads, as the part's inputs.
    of: Vec<Arc<Stored>>,
    part: Arc<QueryPlan>,
    schema: SchemaRef,
    /// What its operators count into.
    stats: Arc<TaskStats>,
}

impl PartitionStream for Results {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let run = Run {
            of: self.of.clone(),
            part: Arc::clone(&self.part),
            schema: Arc::clone(&self.schema),
            tasks: None,
            ready: VecDeque::new(),
            left_out: 0,
            stats: Arc::clone(&self.stats),
            memory: MemoryConsumer::new("the streaming operators of a SELECT").register(context.memory_pool()),
            weighed: (Instant::now(), Duration::ZERO),
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
    /// The place of its source.
    source: usize,
    reading: Reading,
    stamper: Stamper,
    done: bool,
}

struct Run {
    of: Vec<Arc<Stored>>,
    part: Arc<QueryPlan>,
    schema: SchemaRef,
    /// What is still to be done; `None` before the start.
    tasks: Option<VecDeque<Replayed>>,
    ready: VecDeque<RecordBatch>,
    left_out: usize,
    stats: Arc<TaskStats>,
    /// What the operators hold of what SELECTs have together.
    memory: MemoryReservation,
    /// When that was last looked at, and how long it took.
    weighed: (Instant, Duration),
}

impl Run {
    async fn next(mut self) -> DfResult<Option<(RecordBatch, Self)>> {
        if self.tasks.is_none() {
            self.tasks = Some(start(&self.of, &self.part, &self.stats).await.map_err(external)?);
        }
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some((batch, self)));
            }
            let Some(task) = self.tasks.as_mut().and_then(VecDeque::front_mut) else {
                if self.left_out > 0 {
                    tracing::warn!(stream = %self.part.inputs[0].stream, rows = self.left_out, "rows were left out of a SELECT because an expression failed");
                }
                return Ok(None);
            };
            let (out, ended) = task.step().await?;
            if self.weighed.0.elapsed() >= self.weighed.1 * WEIGH_RATIO {
                let begun = Instant::now();
                let bytes = task.chain.state_bytes();
                self.weighed = (Instant::now(), begun.elapsed());
                self.memory.try_resize(bytes)?;
            }
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
async fn start(of: &[Arc<Stored>], part: &QueryPlan, stats: &TaskStats) -> Result<VecDeque<Replayed>, SqlError> {
    let count = if part.placement == Placement::Merged { 1 } else { of.first().map_or(0, |first| first.partitions.len()) };
    let mut tasks = VecDeque::with_capacity(count);
    for task in 0..count {
        let mut inputs = Vec::new();
        for (source, (stored, input)) in of.iter().zip(&part.inputs).enumerate() {
            let all = part.placement == Placement::Merged || input.is_whole;
            for place in (0..stored.partitions.len()).filter(|place| all || *place == task) {
                let reading = stored.reading(place).await?;
                let stamper = Stamper::new(input.time.clone(), reading.partition);
                inputs.push(Input { source, reading, stamper, done: false });
            }
        }
        let scope = if part.placement == Placement::Merged { Scope::Merged } else { Scope::Partition(PartitionId(task as i32)) };
        let mut chain = part.chain(scope)?;
        chain.counted(stats);
        tasks.push_back(Replayed { chain, inputs });
    }
    Ok(tasks)
}

impl Replayed {
    /// Takes one run of rows from the partition that is furthest behind. Answers whether this was the last.
    async fn step(&mut self) -> DfResult<(Output, bool)> {
        let mut out = Output::default();
        let behind = self
            .inputs
            .iter_mut()
            .filter(|input| !input.done)
            .min_by_key(|input| (input.stamper.watermark(), input.source, input.reading.partition));
        if let Some(input) = behind {
            let begun = Instant::now();
            match input.reading.next().await.map_err(external)? {
                None => input.done = true,
                Some(run) => {
                    let tombstones: Vec<_> = run.tombstones.iter().collect();
                    let (judge, aside) = (AheadJudge::Nobody, &mut out.aside);
                    let pieces = input.stamper.pieces(&run.rows, &run.offsets, &tombstones, judge, aside).map_err(failed)?;
                    let rows = pieces.iter().map(|piece| if let Piece::Rows(rows) = piece { rows.len() } else { 0 }).sum();
                    self.chain.note_read(input.source, rows, out.aside.len(), begun.elapsed());
                    for piece in &pieces {
                        self.chain.piece_of(input.source, piece, &mut out).map_err(failed)?;
                    }
                }
            }
        }
        let mark = self.inputs.iter().filter(|input| !input.done).map(|input| input.stamper.watermark()).min();
        self.chain.watermark(mark.unwrap_or(Timestamp::MAX), &mut out).map_err(failed)?;
        Ok((out, mark.is_none()))
    }
}
