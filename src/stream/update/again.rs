//! Groups of results that change: `SELECT category, avg(final) FROM (SELECT .. max(price) AS final .. GROUP BY id, category) GROUP BY
//! category`.
//!
//! What comes in are rows that take the place of those before them under the same key, and keys that are gone. The latest row
//! of each key is kept, with the group it counts in; a group that has changed is worked out again from all of its rows, in
//! order of their keys. So nothing is ever taken back from a sum: always, a group is a function of the rows that hold, whatever
//! came before them and in which order, to the last digit. What it costs is the rows of the groups that have changed, once a
//! commit. How long anything is kept is the affair of what stands before: a key that is let go there is gone here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};

use super::shown::Shown;
use crate::record::PartitionId;
use crate::stream::rowwise::{arrow_error, evaluate, evaluate_flat, row_as_json, row_by_row};
use crate::stream::stateless::{FilterProject, condition_of};
use crate::stream::window::{WindowColumn, as_type, ints_of_column};
use crate::stream::{Expr, FoldFactory, NO_OFFSET, NO_TIME, Operator, Output, Rows, Scope, StateReader, StateWriter, StreamError};
use crate::time::Timestamp;

/// So many groups speak in one commit at most.
const TURN_GROUPS: usize = 50_000;
/// Results leave in batches of at most this many rows.
const BATCH_ROWS: usize = 8192;

/// All that the operator is made of.
#[derive(Debug)]
pub struct RegroupSpec {
    /// Which partitions meet here.
    pub scope: Scope,
    /// Which columns of the rows that come in tell them apart.
    pub from: Vec<usize>,
    /// What those rows go through before they are grouped.
    pub between: Vec<FilterProject>,
    /// The group keys. May be empty.
    pub keys: Vec<Arc<dyn Expr>>,
    /// The aggregates.
    pub folds: Vec<Arc<dyn FoldFactory>>,
    /// The columns of the results: the keys, then the aggregates.
    pub schema: SchemaRef,
    /// What the results go through.
    pub shown: Shown,
}

/// The operator.
pub struct Regroup {
    spec: RegroupSpec,
    sources: Codec,
    keys: Codec,
    arguments: Codec,
    /// The group in which the latest row of a key counts.
    places: HashMap<Bytes, Bytes>,
    groups: BTreeMap<Bytes, Group>,
    changed: BTreeSet<Bytes>,
    bytes: usize,
}

type Bytes = Arc<[u8]>;

/// The rows of a group, by what tells them apart.
#[derive(Default)]
struct Group {
    members: BTreeMap<Bytes, Member>,
    /// Whether the reader of the results has a row of it.
    shown: bool,
}

struct Member {
    arguments: Bytes,
    at: i64,
}

/// Values of some columns as bytes that are in the order of the values, and back.
#[derive(Default)]
struct Codec {
    converter: Option<RowConverter>,
    types: Vec<DataType>,
}

impl Codec {
    fn encode(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Bytes>, StreamError> {
        let error = |e| arrow_error("what is kept of rows", &e);
        if columns.is_empty() {
            return Ok(vec![Bytes::from([]); rows]);
        }
        if self.converter.is_none() {
            self.types = columns.iter().map(|column| column.data_type().clone()).collect();
            let fields = self.types.iter().map(|of| SortField::new(of.clone())).collect();
            self.converter = Some(RowConverter::new(fields).map_err(error)?);
        }
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let encoded = converter.convert_columns(columns).map_err(error)?;
        Ok(encoded.iter().map(|row| Bytes::from(row.as_ref())).collect())
    }

    fn decode<'a>(&self, rows: impl Iterator<Item = &'a Bytes>) -> Result<Vec<ArrayRef>, StreamError> {
        let error = |e| arrow_error("what is kept of rows", &e);
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let parser = converter.parser();
        let columns = converter.convert_rows(rows.map(|row| parser.parse(row))).map_err(error)?;
        let typed = columns.into_iter().zip(&self.types).map(|(column, of)| as_type(column, &Field::new("kept", of.clone(), true)));
        typed.collect()
    }
}

impl Regroup {
    /// Checks the plan, and makes every accumulator once so that a type one cannot take is found now.
    pub fn new(spec: RegroupSpec) -> Result<Self, StreamError> {
        if spec.keys.len() + spec.folds.len() != spec.schema.fields().len() {
            return Err(StreamError::Limit("groups of results that change have other columns than their schema".to_owned()));
        }
        for fold in &spec.folds {
            fold.fold()?;
        }
        let (sources, keys, arguments) = (Codec::default(), Codec::default(), Codec::default());
        let (places, groups, changed) = (HashMap::new(), BTreeMap::new(), BTreeSet::new());
        Ok(Self { spec, sources, keys, arguments, places, groups, changed, bytes: 0 })
    }

    /// The keys of rows, and then what the aggregates are made of.
    fn evaluated(&self, batch: &RecordBatch) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>), StreamError> {
        let keys = self.spec.keys.iter().map(|key| evaluate_flat(key.as_ref(), batch)).collect::<Result<_, _>>()?;
        let mut arguments = Vec::new();
        for fold in &self.spec.folds {
            for argument in fold.arguments() {
                arguments.push(evaluate(argument.as_ref(), batch)?);
            }
            if let Some(filter) = fold.filter() {
                arguments.push(Arc::new(condition_of(filter.as_ref(), batch)?) as ArrayRef);
            }
        }
        Ok((keys, arguments))
    }

    /// What becomes of each of the rows: the group in which it counts and what it counts there, or nothing.
    fn judged(&mut self, rows: &Rows, out: &mut Output) -> Result<Vec<Option<(Bytes, Member)>>, StreamError> {
        // The offset says which row it is, through filters and failures.
        let mut these = vec![Rows { offsets: (0..rows.len() as i64).collect(), ..rows.clone() }];
        let mut failed = Vec::new();
        for step in &mut self.spec.between {
            let mut made = Output::default();
            for rows in &these {
                step.rows(rows, &mut made)?;
            }
            failed.append(&mut made.failed);
            these = made.rows;
        }
        let mut judged: Vec<Option<(Bytes, Member)>> = (0..rows.len()).map(|_| None).collect();
        for these in these.into_iter().filter(|rows| !rows.is_empty()) {
            let good = row_by_row(&these, &mut |batch| self.evaluated(batch), &mut failed)?;
            for (good, (keys, arguments)) in good {
                let keys = self.keys.encode(&keys, good.len())?;
                let arguments = self.arguments.encode(&arguments, good.len())?;
                for (at, (key, arguments)) in keys.into_iter().zip(arguments).enumerate() {
                    judged[good.offsets[at] as usize] = Some((key, Member { arguments, at: good.times[at] }));
                }
            }
        }
        for mut failed in failed {
            failed.row = usize::try_from(failed.offset).ok().and_then(|row| row_as_json(&rows.batch.slice(row, 1)));
            failed.offset = NO_OFFSET;
            out.failed.push(failed);
        }
        Ok(judged)
    }

    /// The row of a key is gone, or another one comes.
    fn leave(&mut self, source: &Bytes) {
        let Some(place) = self.places.remove(source) else { return };
        if let Some(group) = self.groups.get_mut(&place)
            && let Some(member) = group.members.remove(source)
        {
            self.bytes -= size_of(source, &place, &member);
        }
        self.changed.insert(place);
    }

    fn enter(&mut self, source: Bytes, place: Bytes, member: Member) {
        self.bytes += size_of(&source, &place, &member);
        self.groups.entry(Arc::clone(&place)).or_default().members.insert(Arc::clone(&source), member);
        self.changed.insert(Arc::clone(&place));
        self.places.insert(source, place);
    }

    fn like(&self, batch: RecordBatch, times: Vec<i64>) -> Rows {
        let partition = match self.spec.scope {
            Scope::Partition(partition) => partition,
            Scope::Merged => PartitionId(0),
        };
        let offsets = vec![NO_OFFSET; times.len()].into();
        Rows { batch, partition, offsets, before: times.clone().into(), times: times.into(), heard: None, gone: false }
    }

    /// The rows of these groups, each of which has one at least.
    fn rows_of(&self, groups: &[Bytes]) -> Result<Rows, StreamError> {
        let mut numbers = Vec::new();
        let mut members: Vec<&Bytes> = Vec::new();
        let mut times = Vec::with_capacity(groups.len());
        for (number, group) in groups.iter().enumerate() {
            let of = self.groups.get(group).map(|group| &group.members);
            let before = members.len();
            members.extend(of.into_iter().flat_map(|members| members.values().map(|member| &member.arguments)));
            numbers.resize(members.len(), number);
            debug_assert!(members.len() > before);
            times.push(of.into_iter().flat_map(BTreeMap::values).map(|member| member.at).max().unwrap_or(NO_TIME));
        }
        let arguments = self.arguments.decode(members.iter().copied())?;
        let mut columns = self.keys.decode(groups.iter())?;
        let mut from = 0;
        for fold in &self.spec.folds {
            let count = fold.arguments().len();
            let filter = fold.filter().and_then(|_| arguments.get(from + count)).map(|filter| {
                let filter = filter.as_any().downcast_ref::<BooleanArray>();
                filter.ok_or_else(|| StreamError::Limit("a FILTER is no condition".to_owned()))
            });
            let mut made = fold.fold()?;
            made.update(arguments.get(from..from + count).unwrap_or_default(), &numbers, filter.transpose()?, groups.len())?;
            columns.push(made.take_values()?);
            from += count + usize::from(fold.filter().is_some());
        }
        let columns = columns.into_iter().zip(self.spec.schema.fields()).map(|(column, field)| as_type(column, field));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(groups.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.spec.schema), columns, &options);
        Ok(self.like(batch.map_err(|e| arrow_error("the groups' results", &e))?, times))
    }

    /// Tells the reader how groups stand.
    fn tell(&mut self, groups: &[Bytes], out: &mut Output) -> Result<(), StreamError> {
        let (there, empty): (Vec<Bytes>, Vec<Bytes>) =
            groups.iter().cloned().partition(|group| self.groups.get(group).is_some_and(|of| !of.members.is_empty()));
        let mut gone: Vec<Bytes> = Vec::new();
        if !there.is_empty() {
            let rows = self.rows_of(&there)?;
            let passed = self.spec.shown.pass(&rows, out)?;
            for (group, passed) in there.iter().zip(passed) {
                let Some(of) = self.groups.get_mut(group) else { continue };
                if std::mem::replace(&mut of.shown, passed) && !passed {
                    gone.push(Arc::clone(group));
                }
            }
        }
        for group in empty {
            if self.groups.remove(&group).is_some_and(|of| of.shown) {
                gone.push(group);
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        gone.sort();
        let keys = self.keys.decode(gone.iter())?;
        let like = self.like(RecordBatch::new_empty(Arc::clone(&self.spec.shown.schema)), vec![NO_TIME; gone.len()]);
        let missing = |what| StreamError::Limit(format!("groups of results that change have no {what:?}"));
        let column = |what: WindowColumn| match what {
            WindowColumn::Key(key) => keys.get(key).cloned().ok_or_else(|| missing(what)),
            _ => Err(missing(what)),
        };
        self.spec.shown.gone(&like, column, out)
    }
}

fn size_of(source: &Bytes, place: &Bytes, member: &Member) -> usize {
    // Each is kept once, and named from two places.
    160 + source.len() + place.len() + member.arguments.len()
}

impl Operator for Regroup {
    fn name(&self) -> &'static str {
        "regroup"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.shown.schema)
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        let sources: Vec<ArrayRef> = self.spec.from.iter().map(|at| ArrayRef::clone(rows.batch.column(*at))).collect();
        let sources = self.sources.encode(&sources, rows.len())?;
        if rows.gone {
            sources.iter().for_each(|source| self.leave(source));
            return Ok(());
        }
        let judged = self.judged(rows, out)?;
        for (source, judged) in sources.into_iter().zip(judged) {
            self.leave(&source);
            if let Some((place, member)) = judged {
                self.enter(source, place, member);
            }
        }
        Ok(())
    }

    fn watermark(&mut self, _at: Timestamp, _out: &mut Output) -> Result<(), StreamError> {
        Ok(())
    }

    fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    fn flush(&mut self, out: &mut Output) -> Result<bool, StreamError> {
        let turn: Vec<Bytes> = self.changed.iter().take(TURN_GROUPS).cloned().collect();
        for groups in turn.chunks(BATCH_ROWS) {
            self.tell(groups, out)?;
            for group in groups {
                self.changed.remove(group);
            }
        }
        Ok(!self.changed.is_empty())
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        let all =
            || self.groups.iter().flat_map(|(place, group)| group.members.iter().map(move |(source, member)| (place, source, member)));
        let times = Arc::new(Int64Array::from_iter_values(all().map(|(.., member)| member.at))) as ArrayRef;
        let rows = times.len();
        let mut columns = vec![times];
        columns.extend(self.sources.decode(all().map(|(_, source, _)| source))?);
        columns.extend(self.keys.decode(all().map(|(place, ..)| place))?);
        columns.extend(self.arguments.decode(all().map(|(.., member)| &member.arguments))?);
        state.put("rows", batch_of(columns, rows)?);
        // A group that is shown or has changed may have no row any more.
        let named: BTreeSet<&Bytes> = self.groups.keys().chain(&self.changed).collect();
        let flag = |of: &dyn Fn(&Bytes) -> bool| Arc::new(named.iter().map(|group| Some(of(group))).collect::<BooleanArray>()) as ArrayRef;
        let mut columns =
            vec![flag(&|group| self.groups.get(group).is_some_and(|of| of.shown)), flag(&|group| self.changed.contains(group))];
        columns.extend(self.keys.decode(named.iter().copied())?);
        state.put("groups", batch_of(columns, named.len())?);
        Ok(())
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        let misfit = |why: &str| StreamError::Restore { operator: "groups of results that change".to_owned(), why: why.to_owned() };
        let (from, keys) = (self.spec.from.len(), self.spec.keys.len());
        let whole = |name: &str| -> Result<Option<RecordBatch>, StreamError> {
            let parts: Vec<RecordBatch> = state.get(name).cloned().collect();
            let Some(first) = parts.first() else { return Ok(None) };
            concat_batches(&first.schema(), &parts).map(Some).map_err(|e| arrow_error("the state of groups", &e))
        };
        if let Some(rows) = whole("rows")?.filter(|rows| rows.num_rows() > 0) {
            let columns = rows.columns();
            let (Some(sources), Some(places), Some(arguments)) =
                (columns.get(1..1 + from), columns.get(1 + from..1 + from + keys), columns.get(1 + from + keys..))
            else {
                return Err(misfit("the rows have other columns"));
            };
            let times = ints_of_column(&columns[0]).ok_or_else(|| misfit("the rows have no time"))?.to_vec();
            let sources = self.sources.encode(sources, rows.num_rows())?;
            let places = self.keys.encode(places, rows.num_rows())?;
            let arguments = self.arguments.encode(arguments, rows.num_rows())?;
            for (((source, place), arguments), at) in sources.into_iter().zip(places).zip(arguments).zip(times) {
                self.enter(source, place, Member { arguments, at });
            }
        }
        self.changed.clear();
        let Some(groups) = whole("groups")?.filter(|groups| groups.num_rows() > 0) else { return Ok(()) };
        let flags = |at: usize| groups.columns().get(at).and_then(|column| column.as_any().downcast_ref::<BooleanArray>());
        let (Some(shown), Some(changed)) = (flags(0), flags(1)) else { return Err(misfit("the groups have no marks")) };
        let named = self.keys.encode(groups.columns().get(2..2 + keys).unwrap_or_default(), groups.num_rows())?;
        for (row, group) in named.into_iter().enumerate() {
            if shown.value(row) {
                self.groups.entry(Arc::clone(&group)).or_default().shown = true;
            }
            if changed.value(row) {
                self.changed.insert(group);
            }
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.bytes + self.groups.len() * 96 + self.changed.len() * 32
    }
}

/// Columns as a batch of state.
fn batch_of(columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, StreamError> {
    let field = |(at, column): (usize, &ArrayRef)| Field::new(format!("c{at}"), column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>());
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(schema), columns, &options).map_err(|e| arrow_error("the state of groups", &e))
}
