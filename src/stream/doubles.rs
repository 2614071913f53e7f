//! Test doubles for what `sql` lends: expressions, aggregates, keys; and a runner that cuts, interleaves
//! and interrupts the same input in many ways.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::chain::Chain;
use super::element::{Output, Rows};
use super::operator::{Expr, Fold, FoldFactory, Keys, KeysFactory, StateReader, StateWriter, StreamError};
use super::spill::tests::Shelf;
use crate::record::PartitionId;
use crate::time::Timestamp;

/// A column by its place.
#[derive(Debug)]
pub struct Column(pub usize);

impl Expr for Column {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, StreamError> {
        Ok(ArrayRef::clone(batch.column(self.0)))
    }
    fn text(&self) -> String {
        format!("column {}", self.0)
    }
}

/// 100 divided by a number column; a zero anywhere fails the batch.
#[derive(Debug)]
pub struct Hundredth(pub usize);

impl Expr for Hundredth {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, StreamError> {
        let values = batch.column(self.0).as_primitive::<Float64Type>();
        if values.iter().any(|value| value == Some(0.0)) {
            return Err(StreamError::Evaluate { what: "?".to_owned(), why: "Divide by zero: secret 0".to_owned() });
        }
        Ok(Arc::new(values.iter().map(|value| value.map(|v| 100.0 / v)).collect::<Float64Array>()))
    }
    fn text(&self) -> String {
        "100 / value".to_owned()
    }
}

/// Whether a number column is below a limit; NULL where it is NULL.
#[derive(Debug)]
pub struct Below(pub usize, pub f64);

impl Expr for Below {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, StreamError> {
        let values = batch.column(self.0).as_primitive::<Float64Type>();
        Ok(Arc::new(values.iter().map(|value| value.map(|v| v < self.1)).collect::<BooleanArray>()))
    }
    fn text(&self) -> String {
        format!("value < {}", self.1)
    }
}

/// Which aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// How many values.
    Count,
    /// Their sum, NULL without any.
    Sum,
    /// The values one behind the other: shows the order in which they came.
    Words,
}

/// Makes aggregates over one expression.
#[derive(Debug)]
pub struct Aggregate {
    kind: Kind,
    arguments: Vec<Arc<dyn Expr>>,
    filter: Option<Arc<dyn Expr>>,
}

/// An aggregate over an expression, with a FILTER.
pub fn aggregate(kind: Kind, argument: Arc<dyn Expr>, filter: Option<Arc<dyn Expr>>) -> Arc<dyn FoldFactory> {
    Arc::new(Aggregate { kind, arguments: vec![argument], filter })
}

impl FoldFactory for Aggregate {
    fn fold(&self) -> Result<Box<dyn Fold>, StreamError> {
        Ok(Box::new(Groups { kind: self.kind, numbers: Vec::new(), words: Vec::new() }))
    }
    fn arguments(&self) -> &[Arc<dyn Expr>] {
        &self.arguments
    }
    fn filter(&self) -> Option<&Arc<dyn Expr>> {
        self.filter.as_ref()
    }
    fn field(&self) -> FieldRef {
        let of = match self.kind {
            Kind::Count => DataType::Int64,
            Kind::Sum => DataType::Float64,
            Kind::Words => DataType::Utf8,
        };
        Arc::new(Field::new(format!("{:?}", self.kind).to_lowercase(), of, true))
    }
    fn state_fields(&self) -> Vec<FieldRef> {
        vec![self.field()]
    }
}

struct Groups {
    kind: Kind,
    numbers: Vec<Option<f64>>,
    words: Vec<String>,
}

impl Groups {
    fn add(&mut self, group: usize, number: f64, word: &str) {
        *self.numbers[group].get_or_insert(0.0) += number;
        self.words[group].push_str(word);
    }

    fn grow(&mut self, groups: usize) {
        self.numbers.resize(groups, None);
        self.words.resize(groups, String::new());
    }
}

impl Fold for Groups {
    fn update(&mut self, arguments: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, total: usize) -> Result<(), StreamError> {
        self.grow(total);
        let values = arguments[0].as_primitive::<Float64Type>();
        assert_eq!(values.len(), groups.len());
        for (row, group) in groups.iter().enumerate() {
            if values.is_valid(row) && filter.is_none_or(|filter| filter.value(row)) {
                let value = values.value(row);
                let number = if self.kind == Kind::Count { 1.0 } else { value };
                self.add(*group, number, &format!("{value}."));
            }
        }
        Ok(())
    }
    fn merge(&mut self, state: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), StreamError> {
        self.grow(total);
        for (row, group) in groups.iter().enumerate().filter(|(row, _)| state[0].is_valid(*row)) {
            match self.kind {
                Kind::Count => self.add(*group, state[0].as_primitive::<Int64Type>().value(row) as f64, ""),
                Kind::Sum => self.add(*group, state[0].as_primitive::<Float64Type>().value(row), ""),
                Kind::Words => self.add(*group, 0.0, state[0].as_string::<i32>().value(row)),
            }
        }
        Ok(())
    }
    fn take_values(&mut self) -> Result<ArrayRef, StreamError> {
        let (numbers, words) = (std::mem::take(&mut self.numbers), std::mem::take(&mut self.words));
        Ok(match self.kind {
            Kind::Count => Arc::new(Int64Array::from_iter_values(numbers.iter().map(|n| n.unwrap_or(0.0) as i64))),
            Kind::Sum => Arc::new(Float64Array::from(numbers)),
            Kind::Words => Arc::new(StringArray::from(words)),
        })
    }
    fn take_state(&mut self) -> Result<Vec<ArrayRef>, StreamError> {
        Ok(vec![self.take_values()?])
    }
    fn size(&self) -> usize {
        self.numbers.len() * 16 + self.words.iter().map(String::len).sum::<usize>()
    }
}

/// Numbers keys.
#[derive(Debug)]
pub struct Numbering(pub Vec<DataType>);

struct Numbered {
    converter: RowConverter,
    known: HashMap<OwnedRow, usize>,
    order: Vec<OwnedRow>,
}

impl KeysFactory for Numbering {
    fn keys(&self) -> Result<Box<dyn Keys>, StreamError> {
        let converter = RowConverter::new(self.0.iter().map(|t| SortField::new(t.clone())).collect()).unwrap();
        Ok(Box::new(Numbered { converter, known: HashMap::new(), order: Vec::new() }))
    }
}

impl Keys for Numbered {
    fn intern(&mut self, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<(), StreamError> {
        groups.clear();
        for row in &self.converter.convert_columns(columns).unwrap() {
            let next = self.order.len();
            let number = *self.known.entry(row.owned()).or_insert(next);
            if number == next {
                self.order.push(row.owned());
            }
            groups.push(number);
        }
        Ok(())
    }
    fn len(&self) -> usize {
        self.order.len()
    }
    fn take(&mut self) -> Result<Vec<ArrayRef>, StreamError> {
        self.known.clear();
        let order = std::mem::take(&mut self.order);
        Ok(self.converter.convert_rows(order.iter().map(OwnedRow::row)).unwrap())
    }
    fn size(&self) -> usize {
        self.order.len() * 64
    }
}

/// A reading: key, time (`None` for NULL), value.
pub type Reading = (&'static str, Option<i64>, Option<f64>);

/// The columns of readings: key, ts, value.
pub fn reading_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Utf8, true),
        Field::new("ts", time_type(), true),
        Field::new("value", DataType::Float64, true),
    ]))
}

/// Milliseconds.
pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

/// One partition's readings, stamped.
#[derive(Clone, Debug)]
pub struct Partition {
    rows: Rows,
    /// The watermark behind the first n rows.
    marks: Vec<i64>,
}

impl Partition {
    /// The watermark behind the first `count` rows.
    pub fn mark(&self, count: usize) -> i64 {
        self.marks[count]
    }

    /// All rows in one batch.
    pub const fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Readings whose watermark is their greatest time less `delay`.
    pub fn new(partition: i32, delay: i64, readings: &[Reading]) -> Self {
        let mut marks = vec![i64::MIN];
        for (_, at, _) in readings {
            let last = marks[marks.len() - 1];
            marks.push(at.map_or(last, |at| last.max(at - delay)));
        }
        let times: Vec<i64> = readings.iter().map(|(_, at, _)| at.unwrap_or(super::NO_TIME)).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(readings.iter().map(|(key, ..)| Some(*key)).collect::<StringArray>()),
            Arc::new(readings.iter().map(|(_, at, _)| *at).collect::<TimestampMillisecondArray>()),
            Arc::new(readings.iter().map(|(.., value)| *value).collect::<Float64Array>()),
        ];
        let rows = Rows {
            batch: RecordBatch::try_new(reading_schema(), columns).unwrap(),
            partition: PartitionId(partition),
            offsets: (0..readings.len() as i64).collect(),
            times: times.into(),
            before: marks[..readings.len()].iter().copied().collect(),
            heard: None,
            gone: false,
        };
        Self { rows, marks }
    }
}

/// What came out: result rows in order; late and failed rows by partition and offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// A line a row.
    pub rows: Vec<String>,
    /// `p0@3 late` or `p0@3 failed: why`.
    pub others: Vec<String>,
}

impl Told {
    /// Takes in what came out.
    pub fn take(&mut self, out: Output) {
        for rows in out.rows {
            assert_eq!(rows.len(), rows.offsets.len());
            assert_eq!(rows.len(), rows.times.len());
            assert_eq!(rows.len(), rows.before.len());
            for row in 0..rows.len() {
                assert!(rows.before[row] <= rows.times[row], "nothing that comes out is late for the next operator");
                let cells: Vec<String> = rows
                    .batch
                    .columns()
                    .iter()
                    .map(|column| match column.data_type() {
                        DataType::Timestamp(..) if column.is_valid(row) => {
                            column.as_primitive::<arrow::datatypes::TimestampMillisecondType>().value(row).to_string()
                        }
                        _ if column.is_null(row) => "-".to_owned(),
                        _ => array_value_to_string(column, row).unwrap(),
                    })
                    .collect();
                self.rows.push(cells.join(" "));
            }
        }
        self.others.extend(out.aside.iter().map(|a| format!("p{}@{} {:?}", a.partition.0, a.offset, a.why).to_lowercase()));
        self.others.extend(out.failed.iter().map(|f| format!("p{}@{} {}", f.partition.0, f.offset, f.reason)));
    }
}

/// How input is carried through.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Chance.
    pub seed: u64,
    /// The largest batch.
    pub batch: usize,
    /// Whether the chain is saved and restored into a fresh one, now and then.
    pub interrupt: bool,
    /// Whether partitions are merged.
    pub merged: bool,
    /// Whether all that can be on the disk is put there, now and then.
    pub spill: bool,
}

/// Everything in order, each partition whole.
pub const PLAIN: How = How { seed: 0, batch: usize::MAX, interrupt: false, merged: false, spill: false };

/// Carries the partitions through fresh chains, and ends the input.
pub fn run(chain: &dyn Fn() -> Chain, partitions: &[Partition], how: How) -> Told {
    run_sources(chain, &[partitions], how)
}

/// The same where a chain reads several sources.
pub fn run_sources(chain: &dyn Fn() -> Chain, sources: &[&[Partition]], how: How) -> Told {
    run_beside(&Shelf::default(), chain, sources, how)
}

/// The same, with this disk to put state on.
pub fn run_beside(shelf: &Shelf, chain: &dyn Fn() -> Chain, sources: &[&[Partition]], how: How) -> Told {
    let space = shelf.space();
    let partitions: Vec<&Partition> = sources.iter().flat_map(|source| source.iter()).collect();
    let source_of: Vec<usize> = sources.iter().enumerate().flat_map(|(at, source)| std::iter::repeat_n(at, source.len())).collect();
    let mut chance = ChaCha8Rng::seed_from_u64(how.seed);
    let (mut on, mut told) = (chain(), Told::default());
    let mut at = vec![0; partitions.len()];
    let mut merged = i64::MIN;
    loop {
        let left: Vec<usize> = (0..partitions.len()).filter(|p| at[*p] < partitions[*p].rows.len()).collect();
        let Some(partition) = left.get(chance.random_range(0..left.len().max(1))).copied() else { break };
        let input = partitions[partition];
        let most = (input.rows.len() - at[partition]).min(how.batch);
        let len = if how.batch == usize::MAX { most } else { chance.random_range(1..=most) };
        let mut out = Output::default();
        on.rows_of(source_of[partition], &input.rows.slice(at[partition], len), &mut out).unwrap();
        told.take(out);
        at[partition] += len;
        // A task over one partition tells its watermark each time; a merging one when it commits.
        let tells = !how.merged || chance.random_bool(0.5);
        let mark = partitions.iter().zip(&at).map(|(p, at)| p.marks[*at]).min().unwrap_or(i64::MIN);
        if tells && mark > merged {
            merged = mark;
            let mut out = Output::default();
            on.watermark(Timestamp(mark), &mut out).unwrap();
            told.take(out);
        }
        // Each time writes files: rows that come one by one do not meet it at every second of them.
        if how.spill && chance.random_bool(if how.batch < 4 { 0.15 } else { 0.5 }) {
            // What no row has come for since the first time goes with the second.
            on.spill(usize::MAX, &space).unwrap();
            if chance.random_bool(0.7) {
                on.spill(usize::MAX, &space).unwrap();
            }
        }
        if how.interrupt && chance.random_bool(0.5) {
            let mut state = StateWriter::default();
            on.save(&mut state).unwrap();
            if chance.random_bool(0.8) {
                on = chain();
                on.restore(&StateReader::of(state.parts)).unwrap();
            }
        }
    }
    let mut out = Output::default();
    on.watermark(Timestamp::MAX, &mut out).unwrap();
    told.take(out);
    drop(on);
    assert_eq!((shelf.files(), space.used()), (0, 0), "nothing is left on the disk");
    let number = |line: &String| line.split(['@', ' ']).nth(1).and_then(|n| n.parse::<i64>().ok());
    told.others.sort_by_key(|line| (line.split('@').next().map(str::to_owned), number(line), line.clone()));
    told
}

/// The same input cut, interleaved and interrupted in many ways gives the same; answers what it gives.
pub fn check_always(chain: &dyn Fn() -> Chain, partitions: &[Partition], merged: bool) -> Told {
    check_sources(chain, &[partitions], merged)
}

/// The same where a chain reads several sources.
pub fn check_sources(chain: &dyn Fn() -> Chain, sources: &[&[Partition]], merged: bool) -> Told {
    let plain = run_sources(chain, sources, How { merged, ..PLAIN });
    for seed in 0..20 {
        let batch = [1, 2, 3, 7, 50][seed as usize % 5];
        let how = How { seed, batch, interrupt: seed % 2 == 1, merged, spill: seed >= 15 };
        let told = run_sources(chain, sources, how);
        assert_eq!(told, plain, "carried through as {how:?}");
    }
    plain
}

/// Seeded readings: a few keys, times that mostly grow by up to `step` and are out of order by up to `disorder`.
pub fn readings(seed: u64, count: usize, step: i64, disorder: i64) -> Vec<Reading> {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mut now = -50;
    let mut made = Vec::new();
    for _ in 0..count {
        now += chance.random_range(0..=step);
        let key = ["ann", "bob", "cleo", "dan"][chance.random_range(0..4)];
        let at = (!chance.random_bool(0.02)).then(|| now - chance.random_range(0..=disorder));
        let value = (!chance.random_bool(0.1)).then(|| f64::from(chance.random_range(0..40_i32)) / 4.0 + 0.1);
        made.push((key, at, value));
    }
    made
}

static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| (0..100).map(|n| format!("key {n}")).collect());

/// The same of so many keys, a hundred at most.
pub fn readings_of(keys: usize, seed: u64, count: usize, step: i64, disorder: i64) -> Vec<Reading> {
    let mut chance = ChaCha8Rng::seed_from_u64(seed ^ 0x6b65_7973);
    let mut made = readings(seed, count, step, disorder);
    made.iter_mut().for_each(|reading| reading.0 = NAMES[chance.random_range(0..keys)].as_str());
    made
}
