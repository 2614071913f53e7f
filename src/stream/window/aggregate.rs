//! GROUP BY over TUMBLE, HOP and CUMULATE windows: accumulators by pane, results when the watermark closes a window.
//!
//! Owns the open panes: one entry for each (pane, first window it counts in, partition), in memory or on the disk. Always: what is in
//! an entry depends on one partition's rows in their order and on each row's own mark, and windows fire in
//! order of their end, their entries merged in order of (pane, first window, partition). So the results,
//! their order included (by window, then key in order of first sight along that order of entries), do not
//! depend on how rows were cut into batches, on how partitions interleaved, nor on when the watermark was
//! told. A task over one partition is the case of one partition.
//!
//! A window `[s, e)` fires when the watermark reaches `e`. A result's event time is `window_time`, which is
//! `e - 1`, and as the watermark before it is given the same: no result after it will be older.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, TimestampMillisecondArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::assign::WindowRule;
use super::entry::{Entry, Form, Loaded, Lying, Packing, groups_batch, slice_of};
use super::pane::{Finished, Frozen, Live, Maker};
use super::split::{Pick, Place, split};
use crate::record::PartitionId;
use crate::stream::rowwise::{arrow_error, evaluate, row_by_row};
use crate::stream::stateless::condition_of;
use crate::stream::{
    Aside, AsideRow, Expr, FoldFactory, KeysFactory, NO_OFFSET, Operator, Output, Parked, Rows, Scope, SpillSpace, StatePart, StateReader,
    StateWriter, StreamError,
};
use crate::time::Timestamp;

/// Results leave in batches of at most this many rows.
const BATCH_ROWS: usize = 8192;

/// What a column of the results is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowColumn {
    /// The group key with this place.
    Key(usize),
    /// The start of the window.
    WindowStart,
    /// The end of the window, the first millisecond behind it.
    WindowEnd,
    /// The last millisecond inside the window, which is the result's event time.
    WindowTime,
    /// The aggregate with this place.
    Agg(usize),
}

/// All that a windowed aggregate is made of.
#[derive(Clone, Debug)]
pub struct WindowAggregateSpec {
    /// How time is cut.
    pub rule: WindowRule,
    /// One partition, or all of them merged.
    pub scope: Scope,
    /// The group keys, the window aside. May be empty.
    pub keys: Vec<Arc<dyn Expr>>,
    /// Numbers the groups; needed where there are keys.
    pub keys_factory: Option<Arc<dyn KeysFactory>>,
    /// The aggregates.
    pub folds: Vec<Arc<dyn FoldFactory>>,
    /// What each column of the results is.
    pub columns: Vec<WindowColumn>,
    /// The columns of the results. Window columns are timestamps of any unit.
    pub schema: SchemaRef,
}

/// The operator.
pub struct WindowAggregate {
    pub(super) spec: WindowAggregateSpec,
    pub(super) maker: Maker,
    pub(super) panes: BTreeMap<PaneKey, Entry>,
    /// Counts up whenever it is asked to put something on the disk.
    pub(super) round: u64,
    /// The next end at which each entry counts.
    pub(super) ends: BTreeSet<i64>,
    /// Every window that ends here or before has fired.
    pub(super) closed: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PaneKey {
    pub place: Place,
    pub partition: i32,
}

impl WindowAggregate {
    /// Checks the plan, and makes every accumulator once so that a type one cannot take is found now.
    pub fn new(spec: WindowAggregateSpec) -> Result<Self, StreamError> {
        if spec.columns.len() != spec.schema.fields().len() {
            let (columns, fields) = (spec.columns.len(), spec.schema.fields().len());
            return Err(StreamError::Limit(format!("a windowed aggregate has {columns} columns and its schema {fields}")));
        }
        for column in &spec.columns {
            let there = match column {
                WindowColumn::Key(key) => *key < spec.keys.len(),
                WindowColumn::Agg(fold) => *fold < spec.folds.len(),
                WindowColumn::WindowStart | WindowColumn::WindowEnd | WindowColumn::WindowTime => true,
            };
            if !there {
                return Err(StreamError::Limit(format!("a windowed aggregate has no {column:?}")));
            }
        }
        let maker = Maker::new(&spec.keys, spec.keys_factory.clone(), spec.folds.clone())?;
        Ok(Self { spec, maker, panes: BTreeMap::new(), round: 1, ends: BTreeSet::new(), closed: i64::MIN })
    }

    /// Good rows with the layout's columns over them.
    fn take(&mut self, rows: &Rows, columns: &[ArrayRef], out: &mut Output) -> Result<(), StreamError> {
        let split = split(&self.spec.rule, rows, self.closed);
        out.aside.extend(split.late.iter().map(|row| AsideRow {
            partition: rows.partition,
            offset: rows.offsets[*row as usize],
            why: Aside::Late,
        }));
        for (place, pick) in split.places {
            self.put(PaneKey { place, partition: rows.partition.0 }, &pick, columns, rows.len())?;
        }
        Ok(())
    }

    fn put(&mut self, key: PaneKey, pick: &Pick, columns: &[ArrayRef], all: usize) -> Result<(), StreamError> {
        let picked = columns.iter().map(|column| pick.of(column)).collect::<Result<Vec<_>, _>>()?;
        if !self.panes.contains_key(&key) {
            let form = Form::Live(self.maker.live()?);
            self.panes.insert(key, Entry { form, open: true, touched: self.round });
            self.ends.insert(key.place.first_end);
        }
        let entry = self.panes.get_mut(&key).expect("it is there, or has just been made");
        entry.touched = self.round;
        let live = entry.live(&mut self.maker)?;
        self.maker.update(live, &picked, pick.len(all))
    }

    /// Puts in the groups of an entry that takes no rows. Where it has some, each of these is another one.
    pub(super) fn put_groups(&mut self, key: PaneKey, mut groups: Frozen) -> Result<(), StreamError> {
        if let Some(before) = self.panes.remove(&key) {
            let mut all = before.form.columns(self.maker.frozen_width(), &mut None)?;
            for (column, more) in all.columns.iter_mut().zip(&groups.columns) {
                *column = concat(&[column.as_ref(), more.as_ref()]).map_err(|e| arrow_error("a window's parts", &e))?;
            }
            all.groups += groups.groups;
            groups = all;
        }
        self.ends.insert(key.place.first_end);
        self.panes.insert(key, Entry { form: Form::Frozen(groups), open: false, touched: self.round });
        Ok(())
    }

    /// Takes out an entry, as columns.
    pub(super) fn take_groups(&mut self, key: &PaneKey, loaded: &mut Loaded) -> Result<Option<Frozen>, StreamError> {
        let Some(entry) = self.panes.remove(key) else { return Ok(None) };
        let frozen = match entry.form {
            Form::Live(mut live) => {
                let frozen = self.maker.freeze(&mut live)?;
                self.maker.give_back(live);
                frozen
            }
            form => form.columns(self.maker.frozen_width(), loaded)?,
        };
        Ok(Some(frozen))
    }

    /// The entries that count in the window that ends at `end`, in order.
    pub(super) fn entries(&self, end: i64) -> Vec<PaneKey> {
        let from = |start| PaneKey { place: Place { start, first_end: i64::MIN }, partition: i32::MIN };
        let there = self.panes.range(from(self.spec.rule.start_of(end))..from(end));
        there.map(|(key, _)| *key).filter(|key| key.place.first_end <= end).collect()
    }

    /// Fires the window that ends at `end`.
    fn fire(&mut self, end: i64, out: &mut Output) -> Result<(), StreamError> {
        let rule = self.spec.rule;
        let entries = self.entries(end);
        let last = |key: &PaneKey| rule.last_end(key.place.start) <= end;
        if entries.iter().any(|key| !last(key)) {
            self.ends.insert(end + rule.slide_ms());
        }
        let mut whole = None;
        if let [only] = entries.as_slice()
            && last(only)
            && matches!(self.panes.get(only), Some(Entry { form: Form::Live(_), .. }))
            && let Some(Entry { form: Form::Live(live), .. }) = self.panes.remove(only)
        {
            whole = Some(live);
        }
        let mut live = match whole {
            Some(live) => live,
            None => self.merged(&entries, last)?,
        };
        let finished = self.maker.values(&mut live)?;
        self.maker.give_back(live);
        self.emit(end, &finished, out)
    }

    /// The groups of several entries in one pane; those for which this was the last window are let go.
    fn merged(&mut self, entries: &[PaneKey], last: impl Fn(&PaneKey) -> bool) -> Result<Live, StreamError> {
        let mut merged = self.maker.live()?;
        let (width, mut loaded): (usize, Loaded) = (self.maker.frozen_width(), None);
        for key in entries {
            let Some(mut entry) = self.panes.remove(key) else { continue };
            if let Form::Live(mut live) = entry.form {
                entry.form = Form::Frozen(self.maker.freeze(&mut live)?);
                self.maker.give_back(live);
            }
            self.maker.merge(&mut merged, &entry.form.columns(width, &mut loaded)?)?;
            if !last(key) {
                self.panes.insert(*key, Entry { open: false, ..entry });
            }
        }
        Ok(merged)
    }

    fn emit(&self, end: i64, finished: &Finished, out: &mut Output) -> Result<(), StreamError> {
        let rows = finished.groups;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.spec.columns.len());
        for (column, field) in self.spec.columns.iter().zip(self.spec.schema.fields()) {
            let array = match column {
                WindowColumn::Key(key) => ArrayRef::clone(&finished.keys[*key]),
                WindowColumn::Agg(fold) => ArrayRef::clone(&finished.values[*fold]),
                WindowColumn::WindowStart => constant_time(self.spec.rule.start_of(end), rows),
                WindowColumn::WindowEnd => constant_time(end, rows),
                WindowColumn::WindowTime => constant_time(end - 1, rows),
            };
            columns.push(as_type(array, field)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.spec.schema), columns, &options);
        let batch = batch.map_err(|e| arrow_error("the windowed aggregate's results", &e))?;
        let partition = match self.spec.scope {
            Scope::Partition(partition) => partition,
            Scope::Merged => PartitionId(0),
        };
        for from in (0..rows).step_by(BATCH_ROWS) {
            let len = BATCH_ROWS.min(rows - from);
            out.rows.push(Rows {
                batch: batch.slice(from, len),
                partition,
                offsets: vec![NO_OFFSET; len].into(),
                times: vec![end - 1; len].into(),
                before: vec![end - 1; len].into(),
                heard: None,
                gone: false,
            });
        }
        Ok(())
    }
}

impl Operator for WindowAggregate {
    fn name(&self) -> &'static str {
        "window"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        let layout = self.maker.layout();
        let evaluated = row_by_row(
            rows,
            &mut |batch| {
                let column = |(place, expr): (usize, &Arc<dyn Expr>)| {
                    if layout.is_filter(place) {
                        return Ok(Arc::new(condition_of(expr.as_ref(), batch)?) as ArrayRef);
                    }
                    evaluate(expr.as_ref(), batch)
                };
                layout.expressions.iter().enumerate().map(column).collect::<Result<Vec<_>, StreamError>>()
            },
            &mut out.failed,
        )?;
        for (rows, columns) in evaluated {
            self.take(&rows, &columns, out)?;
        }
        Ok(())
    }

    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        while let Some(end) = self.ends.first().copied().filter(|end| *end <= at.0) {
            self.ends.remove(&end);
            self.fire(end, out)?;
            self.closed = self.closed.max(end);
        }
        self.closed = self.closed.max(at.0);
        Ok(())
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let rule = &self.spec.rule;
        let greatest = |key: &PaneKey| {
            let (first, last) = (key.place.first_end, rule.last_end(key.place.start));
            // The greatest of first, first + slide .. last that is at or before now.
            (first <= now.0).then(|| first + (last.min(now.0) - first) / rule.slide_ms() * rule.slide_ms())
        };
        self.panes.keys().filter_map(greatest).max().filter(|end| *end > self.closed).map(Timestamp)
    }

    fn reach_ms(&self) -> Option<i64> {
        Some(self.spec.rule.size_ms())
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        state.put("mark", ints(vec![("closed", vec![self.closed])])?);
        let mut entries: Vec<(PaneKey, bool, Frozen)> = Vec::with_capacity(self.panes.len());
        let mut lying: Vec<(PaneKey, bool, Lying)> = Vec::new();
        for (key, entry) in &mut self.panes {
            match &mut entry.form {
                Form::Parked(of) => lying.push((*key, !entry.open, of.clone())),
                Form::Frozen(frozen) => entries.push((*key, !entry.open, frozen.clone())),
                Form::Live(live) => {
                    // Taking the state empties the accumulators; merging it back leaves them as they were.
                    let frozen = self.maker.freeze(live)?;
                    self.maker.merge(live, &frozen)?;
                    entries.push((*key, false, frozen));
                }
            }
        }
        save_lying(&lying, state)?;
        if entries.is_empty() {
            return Ok(());
        }
        let fields = ["start", "first_end", "groups"].map(|name| Field::new(name, DataType::Int64, false));
        let schema = Schema::new(
            [&fields[..], &[Field::new("partition", DataType::Int32, false), Field::new("frozen", DataType::Boolean, false)]].concat(),
        );
        let column =
            |of: &dyn Fn(&(PaneKey, bool, Frozen)) -> i64| Arc::new(Int64Array::from_iter_values(entries.iter().map(of))) as ArrayRef;
        let columns = vec![
            column(&|(key, ..)| key.place.start),
            column(&|(key, ..)| key.place.first_end),
            column(&|(.., frozen)| frozen.groups as i64),
            Arc::new(Int32Array::from_iter_values(entries.iter().map(|(key, ..)| key.partition))),
            Arc::new(entries.iter().map(|(_, frozen, _)| Some(*frozen)).collect::<BooleanArray>()),
        ];
        state.put("panes", RecordBatch::try_new(Arc::new(schema), columns).map_err(|e| arrow_error("the windows' state", &e))?);
        let frozen: Vec<&Frozen> = entries.iter().map(|(.., frozen)| frozen).collect();
        state.put("groups", groups_batch(&frozen, self.maker.frozen_width())?);
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = |why: &str| StreamError::Restore { operator: "the windowed aggregate".to_owned(), why: why.to_owned() };
        let mark = state.get("mark").next().ok_or_else(|| misfit("the mark is missing"))?;
        self.closed = ints_of(mark, 0).and_then(|m| m.first().copied()).ok_or_else(|| misfit("the mark is empty"))?;
        self.restore_lying(state)?;
        let Some(panes) = state.get("panes").next() else { return Ok(()) };
        let groups = state.get("groups").next().ok_or_else(|| misfit("the groups are missing"))?;
        if groups.num_columns() != self.maker.frozen_width() + 1 {
            return Err(misfit("the groups have another number of columns"));
        }
        let int = |place| ints_of(panes, place).ok_or_else(|| misfit("the panes are not whole"));
        let (starts, first_ends, counts) = (int(0)?, int(1)?, int(2)?);
        let partitions = panes.column(3).as_any().downcast_ref::<Int32Array>().ok_or_else(|| misfit("the panes have no partition"))?;
        let frozen = panes.column(4).as_any().downcast_ref::<BooleanArray>().ok_or_else(|| misfit("the panes have no form"))?;
        let mut from = 0;
        for row in 0..panes.num_rows() {
            let len = usize::try_from(counts[row]).ok().filter(|len| *len <= groups.num_rows() - from);
            let len = len.ok_or_else(|| misfit("the panes have more groups than there are"))?;
            let saved = slice_of(groups, from, len).ok_or_else(|| misfit("the groups are not whole"))?;
            from += len;
            let key = PaneKey { place: Place { start: starts[row], first_end: first_ends[row] }, partition: partitions.value(row) };
            let form = if frozen.value(row) {
                Form::Frozen(saved)
            } else {
                let mut live = self.maker.live()?;
                self.maker.merge(&mut live, &saved)?;
                Form::Live(live)
            };
            self.enter(key, form, !frozen.value(row));
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.panes.values().map(Entry::bytes).sum()
    }

    fn spill(&mut self, want: usize, space: &SpillSpace) -> Result<usize, StreamError> {
        let round = self.round;
        self.round += 1;
        let is_cold = |entry: &Entry| entry.touched < round && !matches!(entry.form, Form::Parked(_));
        let mut cold: Vec<(&PaneKey, &mut Entry)> = self.panes.iter_mut().filter(|(_, entry)| is_cold(entry)).collect();
        // Those that no row has come for the longest, neighbours in time together.
        cold.sort_by_key(|(_, entry)| entry.touched);
        let mut packing = Packing::new(&self.maker, space);
        for (_, entry) in cold {
            if packing.promised() >= want || packing.is_full {
                break;
            }
            packing.take(entry)?;
        }
        packing.close()?;
        Ok(packing.freed)
    }

    fn spilled_bytes(&self) -> u64 {
        let mut files: Vec<(*const Parked, u64)> = Vec::new();
        for entry in self.panes.values() {
            if let Form::Parked(Lying { file, .. }) = &entry.form {
                files.push((Arc::as_ptr(file), file.bytes()));
            }
        }
        files.sort_unstable();
        files.dedup();
        files.into_iter().map(|(_, bytes)| bytes).sum()
    }
}

/// What of an entry that lies on the disk is written down beside its file, which is one of those that follow.
const LYING: [&str; 7] = ["start", "first_end", "partition", "frozen", "file", "from", "groups"];

/// Entries that lie on the disk: where they do, and each of their files once.
fn save_lying(entries: &[(PaneKey, bool, Lying)], state: &mut StateWriter) -> Result<(), StreamError> {
    let mut numbers: HashMap<*const Parked, i64> = HashMap::new();
    let mut files = Vec::new();
    let mut columns: [Vec<i64>; 7] = Default::default();
    for (key, frozen, Lying { file, from, groups }) in entries {
        let number = *numbers.entry(Arc::as_ptr(file)).or_insert_with(|| {
            files.push(Arc::clone(file));
            files.len() as i64 - 1
        });
        let PaneKey { place: Place { start, first_end }, partition } = *key;
        let cells = [start, first_end, i64::from(partition), i64::from(*frozen), number, *from as i64, *groups as i64];
        columns.iter_mut().zip(cells).for_each(|(column, cell)| column.push(cell));
    }
    if files.is_empty() {
        return Ok(());
    }
    state.put("lying", ints(LYING.into_iter().zip(columns).collect())?);
    files.into_iter().for_each(|file| state.put_parked("file", file));
    Ok(())
}

impl WindowAggregate {
    /// Takes back what [`save_lying`] wrote: on the disk where it lies there again.
    fn restore_lying(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = |why: &str| StreamError::Restore { operator: "the windowed aggregate".to_owned(), why: why.to_owned() };
        let Some(lying) = state.get("lying").next() else { return Ok(()) };
        let files: Vec<&StatePart> = state.parked("file").collect();
        let mut columns: [&[i64]; 7] = Default::default();
        for (place, column) in columns.iter_mut().enumerate() {
            *column = ints_of(lying, place).ok_or_else(|| misfit("the panes on the disk are not whole"))?;
        }
        for row in 0..lying.num_rows() {
            let [start, first_end, partition, frozen, file, from, groups] = columns.map(|column| column[row]);
            let file = usize::try_from(file).ok().and_then(|file| files.get(file)).ok_or_else(|| misfit("a file is missing"))?;
            let (from, groups) = usize::try_from(from).ok().zip(usize::try_from(groups).ok()).ok_or_else(|| misfit("a pane is nowhere"))?;
            let form = match file {
                StatePart::Parked(file) => Form::Parked(Lying { file: Arc::clone(file), from, groups }),
                StatePart::Batch(batch) => {
                    let saved = slice_of(batch, from, groups).filter(|of| of.columns.len() == self.maker.frozen_width());
                    Form::Frozen(saved.ok_or_else(|| misfit("a file has other groups"))?)
                }
            };
            self.enter(PaneKey { place: Place { start, first_end }, partition: partition as i32 }, form, frozen == 0);
        }
        Ok(())
    }

    /// An entry of a state that is restored; no row has come for it of late.
    fn enter(&mut self, key: PaneKey, form: Form, open: bool) {
        self.panes.insert(key, Entry { form, open, touched: 0 });
        let next = self.spec.rule.first_open_end(key.place.start, self.closed);
        self.ends.extend(next.map(|end| end.max(key.place.first_end)));
    }
}

/// A batch of plain numbers.
pub(in crate::stream) fn ints(columns: Vec<(&str, Vec<i64>)>) -> Result<RecordBatch, StreamError> {
    let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let fields: Vec<Field> = names.into_iter().map(|name| Field::new(name, DataType::Int64, false)).collect();
    let columns = values.into_iter().map(|values| Arc::new(Int64Array::from(values)) as ArrayRef).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| arrow_error("an operator's state", &e))
}

/// A column of plain numbers.
pub(in crate::stream) fn ints_of(batch: &RecordBatch, place: usize) -> Option<&[i64]> {
    batch.columns().get(place).and_then(ints_of_column)
}

/// The same of a column by itself.
pub(in crate::stream) fn ints_of_column(column: &ArrayRef) -> Option<&[i64]> {
    Some(column.as_any().downcast_ref::<Int64Array>()?.values())
}

/// A column that says the same time in every row.
pub(super) fn constant_time(at: i64, rows: usize) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_value(at, rows))
}

/// The column in the type the plan expects.
pub(in crate::stream) fn as_type(column: ArrayRef, field: &Field) -> Result<ArrayRef, StreamError> {
    if column.data_type() == field.data_type() {
        return Ok(column);
    }
    cast(&column, field.data_type()).map_err(|e| arrow_error(field.name(), &e))
}
