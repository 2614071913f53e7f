//! The operator around the presences: rows in, silences and returns out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMillisecondArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::presence::{Presences, Told};
use crate::record::PartitionId;
use crate::stream::rowwise::{arrow_error, evaluate_flat, row_by_row};
use crate::stream::window::{as_type, ints, ints_of};
use crate::stream::{Aside, AsideRow, Expr, NO_OFFSET, Operator, Output, Rows, Scope, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// Rows leave in batches of at most this many.
const BATCH_ROWS: usize = 8192;

/// What a column of the silences is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbsentColumn {
    /// The PARTITION BY column with this place.
    Key(usize),
    /// The last reading before the silence; for a return the reading that ended it.
    LastTs,
    /// The last reading before the silence, plus the interval.
    AbsentSince,
    /// The row's own time: `absent_since` for a silence; for a return the reading that ended it, but always
    /// after `absent_since`.
    At,
    /// True for a silence, false for a return.
    Absent,
}

/// All that the operator is made of.
#[derive(Clone, Debug)]
pub struct AbsentSpec {
    /// One partition, or all of them merged.
    pub scope: Scope,
    /// PARTITION BY.
    pub keys: Vec<Arc<dyn Expr>>,
    /// How long nothing must be heard.
    pub interval_ms: i64,
    /// Whether a key's return is told as well. A key that returns after more than 30 days is as new.
    pub returns: bool,
    /// What each column is.
    pub columns: Vec<AbsentColumn>,
    /// The columns. Times are timestamps of any unit.
    pub schema: SchemaRef,
}

/// The operator.
pub struct Absent {
    spec: AbsentSpec,
    presences: Presences,
    mark: i64,
}

impl Absent {
    /// Checks the plan.
    pub fn new(spec: AbsentSpec) -> Result<Self, StreamError> {
        if spec.interval_ms <= 0 {
            return Err(StreamError::Limit("ABSENT needs an interval longer than nothing".to_owned()));
        }
        if spec.columns.len() != spec.schema.fields().len() {
            return Err(StreamError::Limit("ABSENT's columns are not those of its schema".to_owned()));
        }
        if spec.columns.iter().any(|column| matches!(column, AbsentColumn::Key(key) if *key >= spec.keys.len())) {
            return Err(StreamError::Limit("ABSENT has no such PARTITION BY column".to_owned()));
        }
        let presences = Presences::new(spec.interval_ms, spec.returns, spec.scope == Scope::Merged);
        Ok(Self { spec, presences, mark: i64::MIN })
    }

    fn take(&mut self, rows: &Rows, keys: &[ArrayRef], out: &mut Output) -> Result<(), StreamError> {
        let encoded = self.presences.table.encode(keys)?;
        for row in 0..rows.len() {
            let mark = rows.before[row].max(self.mark);
            if !self.presences.reading(encoded.key(row), rows.heard(row), mark) {
                out.aside.push(AsideRow { partition: rows.partition, offset: rows.offsets[row], why: Aside::Late });
            }
        }
        Ok(())
    }

    fn tell(&mut self, out: &mut Output) -> Result<(), StreamError> {
        let told = self.presences.take_told();
        for some in told.chunks(BATCH_ROWS) {
            out.rows.push(self.batch(some)?);
        }
        Ok(())
    }

    fn batch(&self, told: &[Told]) -> Result<Rows, StreamError> {
        let keys = self.presences.table.decode(told.iter().map(|told| told.key.as_ref()))?;
        let times = |of: &dyn Fn(&Told) -> i64| Arc::new(TimestampMillisecondArray::from_iter_values(told.iter().map(of))) as ArrayRef;
        let mut columns = Vec::with_capacity(self.spec.columns.len());
        for (column, field) in self.spec.columns.iter().zip(self.spec.schema.fields()) {
            let array = match column {
                AbsentColumn::Key(key) => ArrayRef::clone(&keys[*key]),
                AbsentColumn::LastTs => times(&|told| told.last),
                AbsentColumn::AbsentSince => times(&|told| told.since),
                AbsentColumn::At => times(&|told| told.at),
                AbsentColumn::Absent => Arc::new(told.iter().map(|told| Some(told.absent)).collect::<BooleanArray>()),
            };
            columns.push(as_type(array, field)?);
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.spec.schema), columns).map_err(|e| arrow_error("ABSENT's rows", &e))?;
        let partition = match self.spec.scope {
            Scope::Partition(partition) => partition,
            Scope::Merged => PartitionId(0),
        };
        Ok(Rows {
            batch,
            partition,
            offsets: vec![NO_OFFSET; told.len()].into(),
            times: told.iter().map(|told| told.at.max(told.mark)).collect(),
            before: told.iter().map(|told| told.mark).collect(),
            heard: None,
            gone: false,
        })
    }
}

impl Operator for Absent {
    fn name(&self) -> &'static str {
        "absent"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        let keys = &self.spec.keys;
        let evaluated = row_by_row(
            rows,
            &mut |batch| keys.iter().map(|key| evaluate_flat(key.as_ref(), batch)).collect::<Result<Vec<_>, _>>(),
            &mut out.failed,
        )?;
        for (rows, keys) in evaluated {
            self.take(&rows, &keys, out)?;
        }
        self.tell(out)
    }

    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        self.mark = self.mark.max(at.0);
        self.presences.pass(self.mark);
        self.tell(out)
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        self.presences.latest(now.0.saturating_sub(1)).map(|at| Timestamp(at + 1))
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        state.put("mark", ints(vec![("mark", vec![self.mark])])?);
        let saved = self.presences.saved();
        if saved.is_empty() {
            return Ok(());
        }
        let silent: Int64Array = saved.iter().map(|(_, presence)| presence.silent).collect();
        let mut fields = vec![Field::new("silent", DataType::Int64, true)];
        let mut columns: Vec<ArrayRef> = vec![Arc::new(silent)];
        let keys = saved.iter().filter_map(|(slot, _)| self.presences.table.key(*slot).map(AsRef::as_ref));
        for (place, column) in self.presences.table.decode(keys)?.into_iter().enumerate() {
            fields.push(Field::new(format!("k{place}"), column.data_type().clone(), true));
            columns.push(column);
        }
        let error = |e| arrow_error("ABSENT's state", &e);
        let keys = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(error)?;
        let (mut of, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (_, presence)) in saved.iter().enumerate() {
            for (from, to) in &presence.open {
                of.push(number as u32);
                first.push(*from);
                last.push(*to);
            }
        }
        let fields = vec![
            Field::new("first", DataType::Int64, false),
            Field::new("last", DataType::Int64, false),
            Field::new("key", DataType::UInt32, false),
        ];
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(first)), Arc::new(Int64Array::from(last)), Arc::new(UInt32Array::from(of))];
        let open = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(error)?;
        state.put("keys", keys);
        state.put("open", open);
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = |why: &str| StreamError::Restore { operator: "ABSENT".to_owned(), why: why.to_owned() };
        let mark = state.get("mark").next().ok_or_else(|| misfit("the mark is missing"))?;
        self.mark = ints_of(mark, 0).and_then(|m| m.first().copied()).ok_or_else(|| misfit("the mark is empty"))?;
        let Some(keys) = state.get("keys").next() else { return Ok(()) };
        let open = state.get("open").next().ok_or_else(|| misfit("the open presences are missing"))?;
        let whole = || misfit("the open presences are not whole");
        let (first, last) = (ints_of(open, 0).ok_or_else(whole)?, ints_of(open, 1).ok_or_else(whole)?);
        let of = open.columns().get(2).and_then(|column| column.as_any().downcast_ref::<UInt32Array>()).ok_or_else(whole)?;
        let mut opens: Vec<Vec<(i64, i64)>> = vec![Vec::new(); keys.num_rows()];
        for row in 0..open.num_rows() {
            opens.get_mut(of.value(row) as usize).ok_or_else(whole)?.push((first[row], last[row]));
        }
        if keys.num_columns() != self.spec.keys.len() + 1 {
            return Err(misfit("the keys have another number of columns"));
        }
        let silent = keys.column(0).as_any().downcast_ref::<Int64Array>().ok_or_else(|| misfit("the keys are not whole"))?;
        let encoded = self.presences.table.encode(&keys.columns()[1..])?;
        for (row, open) in opens.into_iter().enumerate() {
            let silent = silent.is_valid(row).then(|| silent.value(row));
            if !self.presences.put_back(encoded.key(row), open, silent) {
                return Err(misfit("a key is there twice"));
            }
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.presences.bytes()
    }
}
