//! Groups that are told as they change against their definition, under any cut, interleaving, commit and restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use arrow::util::display::array_value_to_string;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::record::PartitionId;
use crate::stream::doubles::{Below, Column, Kind, Partition, Reading, aggregate, check_always, readings, time_type};
use crate::stream::over::OverExpiry;
use crate::stream::stateless::FilterProject;
use crate::stream::{
    Chain, Expr, FoldFactory, Operator, Output, Rows, Scope, StateReader, StateWriter, StreamError, WindowColumn, WindowRule,
};
use crate::time::Timestamp;

pub(super) const ONE: Scope = Scope::Partition(PartitionId(0));

fn folds() -> Vec<Arc<dyn FoldFactory>> {
    let value = || Arc::new(Column(2)) as Arc<dyn Expr>;
    vec![
        aggregate(Kind::Count, value(), None),
        aggregate(Kind::Sum, value(), Some(Arc::new(Below(2, 5.0)))),
        aggregate(Kind::Words, value(), None),
    ]
}

fn schema(windows: bool) -> SchemaRef {
    let mut fields = vec![Field::new("key", DataType::Utf8, true)];
    if windows {
        fields.extend(["from", "to"].map(|name| Field::new(name, time_type(), false)));
    }
    fields.extend([
        Field::new("count", DataType::Int64, false),
        Field::new("sum", DataType::Float64, true),
        Field::new("words", DataType::Utf8, true),
    ]);
    Arc::new(Schema::new(fields))
}

/// Groups of the keys; at most `most` values may be in one that is shown.
pub(super) fn operator(scope: Scope, life: GroupLife, emit: GroupEmit, most: Option<f64>) -> UpdateAggregate {
    let windows = matches!(life, GroupLife::Window { .. });
    let mut columns = vec![WindowColumn::Key(0)];
    if windows {
        columns.extend([WindowColumn::WindowStart, WindowColumn::WindowEnd]);
    }
    columns.extend([WindowColumn::Agg(0), WindowColumn::Agg(1), WindowColumn::Agg(2)]);
    let keys = columns.iter().copied().enumerate().filter(|(_, column)| !matches!(column, WindowColumn::Agg(_))).collect();
    let having = most.map(|most| {
        let sum = columns.len() - 2;
        FilterProject::new(Some(Arc::new(Below(sum, most))), None, schema(windows))
    });
    let changes = emit == GroupEmit::OnUpdate || matches!(life, GroupLife::Window { grace_ms, .. } if grace_ms > 0);
    let key: Arc<dyn Expr> = Arc::new(Column(0));
    UpdateAggregate::new(UpdateSpec {
        scope,
        keys: vec![key],
        folds: folds(),
        life,
        emit,
        columns,
        schema: schema(windows),
        shown: changes.then(|| Shown { steps: having.into_iter().collect(), keys, schema: schema(windows) }),
    })
    .unwrap()
}

/// What a reader has who keeps the last row of each key, and everything that was said, a line each.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reader {
    pub rows: BTreeMap<String, String>,
    pub late: Vec<String>,
    pub said: Vec<String>,
}

impl Reader {
    /// These columns make the key.
    fn take(&mut self, out: &Output, keys: &[usize]) {
        for rows in &out.rows {
            assert!(rows.len() == rows.times.len() && rows.len() == rows.before.len() && rows.len() == rows.offsets.len());
            for row in 0..rows.len() {
                let cell = |at: usize| match rows.batch.column(at).data_type() {
                    DataType::Timestamp(..) => rows.batch.column(at).as_primitive::<TimestampMillisecondType>().value(row).to_string(),
                    _ => array_value_to_string(rows.batch.column(at), row).unwrap(),
                };
                let key = keys.iter().copied().map(cell).collect::<Vec<_>>().join(" ");
                let others = (0..rows.batch.num_columns()).filter(|at| !keys.contains(at));
                let value = others.map(cell).collect::<Vec<_>>().join(" ");
                if rows.gone {
                    assert!(self.rows.remove(&key).is_some(), "{key} is told as gone and was never shown");
                    self.said.push(format!("{key} gone"));
                } else {
                    self.said.push(format!("{key} {value}"));
                    self.rows.insert(key, value);
                }
            }
        }
        assert!(out.failed.is_empty());
        self.late.extend(out.aside.iter().map(|row| format!("p{}@{}", row.partition.0, row.offset)));
        self.late.sort();
    }
}

/// Carries the partitions through with commits at random places, each of which asks for what has changed.
pub(super) fn carried(
    make: &dyn Fn() -> Box<dyn Operator>,
    partitions: &[Partition],
    keys: &[usize],
    seed: u64,
    marks: &[Vec<i64>],
) -> Reader {
    carried_through(&|| vec![make()], partitions, keys, seed, marks)
}

/// The same through several operators.
pub(super) fn carried_through(
    make: &dyn Fn() -> Vec<Box<dyn Operator>>,
    partitions: &[Partition],
    keys: &[usize],
    seed: u64,
    marks: &[Vec<i64>],
) -> Reader {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let (mut on, mut reader) = (Chain::new(make()), Reader::default());
    let mut at = vec![0; partitions.len()];
    let mut merged = i64::MIN;
    loop {
        let left: Vec<usize> = (0..partitions.len()).filter(|p| at[*p] < partitions[*p].rows().len()).collect();
        let Some(partition) = left.get(chance.random_range(0..left.len().max(1))).copied() else { break };
        let most = partitions[partition].rows().len() - at[partition];
        let len = if seed == 0 { most } else { chance.random_range(1..=most.min(1 + seed as usize % 9 * 4)) };
        let mut out = Output::default();
        on.rows(&partitions[partition].rows().slice(at[partition], len), &mut out).unwrap();
        at[partition] += len;
        let mark = (0..partitions.len()).map(|p| marks[p][at[p]]).min().unwrap();
        if mark > merged && (partitions.len() == 1 || chance.random_bool(0.5)) {
            merged = mark;
            on.watermark(Timestamp(mark), &mut out).unwrap();
        }
        if chance.random_bool(0.3) {
            while on.flush(&mut out).unwrap() {}
        }
        reader.take(&out, keys);
        if chance.random_bool(0.2) {
            let mut state = StateWriter::default();
            on.save(&mut state).unwrap();
            if chance.random_bool(0.7) {
                on = Chain::new(make());
                on.restore(&StateReader::of(state.parts)).unwrap();
            }
        }
    }
    let mut out = Output::default();
    let mark = (0..partitions.len()).map(|p| *marks[p].last().unwrap()).min().unwrap();
    if mark > merged {
        on.watermark(Timestamp(mark), &mut out).unwrap();
    }
    while on.flush(&mut out).unwrap() {}
    assert!(!on.has_changes());
    reader.take(&out, keys);
    reader
}

/// The watermark behind the first n readings.
pub(super) fn marks_of(delay: i64, readings: &[Reading]) -> Vec<i64> {
    let mut marks = vec![i64::MIN];
    for (_, at, _) in readings {
        let last = marks[marks.len() - 1];
        marks.push(at.map_or(last, |at| last.max(at - delay)));
    }
    marks
}

/// The last time of a part, and its values.
type Lived = (i64, Vec<Option<f64>>);

/// Values by partition, in order.
type Values = BTreeMap<usize, Vec<Option<f64>>>;

fn shown(values: &Values, most: Option<f64>) -> Option<String> {
    let all: Vec<f64> = values.values().flatten().flatten().copied().collect();
    // The doubles sum each partition by itself, and then the sums.
    let sums: Vec<f64> =
        values.values().filter_map(|own| own.iter().flatten().filter(|v| **v < 5.0).copied().reduce(|a, b| a + b)).collect();
    let sum = sums.into_iter().reduce(|a, b| a + b);
    if most.is_some_and(|most| sum.is_none_or(|sum| sum >= most)) {
        return None;
    }
    let words: String = all.iter().map(|value| format!("{value}.")).collect();
    Some(format!("{} {} {words}", all.len(), sum.map_or_else(String::new, |sum| format!("{sum:?}"))))
}

pub(super) fn inputs(seed: u64, partitions: u64, delay: i64) -> (Vec<Vec<Reading>>, Vec<Partition>, Vec<Vec<i64>>) {
    let inputs: Vec<Vec<Reading>> = (0..partitions).map(|p| readings(seed * 10 + p, 120, 3, 15)).collect();
    let stamped = inputs.iter().enumerate().map(|(p, input)| Partition::new(p as i32, delay, input)).collect();
    let marks = inputs.iter().map(|input| marks_of(delay, input)).collect();
    (inputs, stamped, marks)
}

#[test]
fn groups_that_never_end_have_all_their_rows_and_go_where_they_no_longer_pass() {
    let mut hidden = 0;
    for seed in 0..4 {
        for (partitions, most) in [(1, None), (3, None), (1, Some(60.0)), (3, Some(100.0))] {
            let (inputs, stamped, marks) = inputs(seed, partitions, 4);
            let mut expected: BTreeMap<String, Values> = BTreeMap::new();
            for (p, input) in inputs.iter().enumerate() {
                for (key, _, value) in input {
                    expected.entry((*key).to_owned()).or_default().entry(p).or_default().push(*value);
                }
            }
            let groups = expected.len();
            let expected: BTreeMap<String, String> = expected.into_iter().filter_map(|(key, v)| Some((key, shown(&v, most)?))).collect();
            hidden += groups - expected.len();
            let scope = if partitions == 1 { ONE } else { Scope::Merged };
            for run in 0..12 {
                let make = || Box::new(operator(scope, GroupLife::Open { ttl_ms: None }, GroupEmit::OnUpdate, most)) as Box<dyn Operator>;
                let reader = carried(&make, &stamped, &[0], run, &marks);
                assert_eq!(reader.rows, expected, "seed {seed}, {partitions} partitions, most {most:?}, run {run}");
                assert!(reader.late.is_empty());
            }
        }
    }
    assert!(hidden > 4, "{hidden}");
}

#[test]
fn a_group_without_a_row_for_too_long_goes_and_begins_anew() {
    let (mut seen_gone, mut seen_late) = (0, 0);
    for seed in 0..6 {
        for partitions in [1, 3] {
            let ttl = 7;
            let (inputs, stamped, marks) = inputs(seed, partitions, 2);
            let end = marks.iter().map(|marks| *marks.last().unwrap()).min().unwrap();
            let (mut parts, mut late) = (BTreeMap::<(String, usize), Lived>::new(), Vec::new());
            for (p, input) in inputs.iter().enumerate() {
                for (offset, (key, at, value)) in input.iter().enumerate() {
                    let mark = marks[p][offset];
                    let Some(at) = at.filter(|at| at + ttl >= mark) else {
                        late.push(format!("p{p}@{offset}"));
                        continue;
                    };
                    let part = parts.entry(((*key).to_owned(), p)).or_insert((at, Vec::new()));
                    if part.0 + ttl < mark {
                        *part = (at, Vec::new());
                    }
                    part.0 = part.0.max(at);
                    part.1.push(*value);
                }
            }
            late.sort();
            let before = parts.len();
            parts.retain(|_, (last, _)| *last + ttl >= end);
            seen_gone += before - parts.len();
            seen_late += late.len();
            let mut expected: BTreeMap<String, Values> = BTreeMap::new();
            for ((key, p), (_, values)) in parts {
                expected.entry(key).or_default().insert(p, values);
            }
            let expected: BTreeMap<String, String> = expected.into_iter().filter_map(|(key, v)| Some((key, shown(&v, None)?))).collect();
            let scope = if partitions == 1 { ONE } else { Scope::Merged };
            for run in 0..12 {
                let make =
                    || Box::new(operator(scope, GroupLife::Open { ttl_ms: Some(ttl) }, GroupEmit::OnUpdate, None)) as Box<dyn Operator>;
                let reader = carried(&make, &stamped, &[0], run, &marks);
                assert_eq!(reader.rows, expected, "seed {seed}, {partitions} partitions, run {run}");
                assert_eq!(reader.late, late);
            }
        }
    }
    assert!(seen_gone > 3 && seen_late > 20, "{seen_gone} {seen_late}");
}

/// The windows of readings: which values each has at its end, and which come behind it within the grace, by definition.
#[derive(Default)]
struct Window {
    values: Values,
    /// The mark before the row, its partition and offset; the value.
    behind: Vec<(i64, usize, usize, Option<f64>)>,
}

type Windows = BTreeMap<(i64, String), Window>;

fn windows(inputs: &[Vec<Reading>], marks: &[Vec<i64>], size: i64, slide: i64, grace: i64) -> (Windows, Vec<String>) {
    let (mut windows, mut late) = (Windows::new(), Vec::new());
    for (p, input) in inputs.iter().enumerate() {
        for (offset, (key, at, value)) in input.iter().enumerate() {
            let mark = marks[p][offset];
            let ends = at.map(|at| (-100..500).map(|n| n * slide + size).filter(move |end| *end > at && end - size <= at));
            let open: Vec<i64> = ends.into_iter().flatten().filter(|end| end.saturating_add(grace) > mark).collect();
            if open.is_empty() {
                late.push(format!("p{p}@{offset}"));
            }
            for end in open {
                let window = windows.entry((end, (*key).to_owned())).or_default();
                if end > mark {
                    window.values.entry(p).or_default().push(*value);
                } else {
                    window.behind.push((mark, p, offset, *value));
                }
            }
        }
    }
    late.sort();
    (windows, late)
}

#[test]
fn windows_that_are_told_as_they_change_end_with_what_is_on_time() {
    let mut seen = 0;
    for seed in 0..4 {
        for (partitions, slide, size) in [(1, 10, 10), (3, 10, 10), (1, 4, 10), (3, 5, 10)] {
            let (inputs, stamped, marks) = inputs(seed, partitions, 4);
            let (expected, late) = windows(&inputs, &marks, size, slide, 0);
            let row =
                |((end, key), window): ((i64, String), Window)| Some((format!("{key} {} {end}", end - size), shown(&window.values, None)?));
            let expected: BTreeMap<String, String> = expected.into_iter().filter_map(row).collect();
            let scope = if partitions == 1 { ONE } else { Scope::Merged };
            let rule = WindowRule::hop(slide, size, 0).unwrap();
            for run in 0..12 {
                let make =
                    || Box::new(operator(scope, GroupLife::Window { rule, grace_ms: 0 }, GroupEmit::OnUpdate, None)) as Box<dyn Operator>;
                let reader = carried(&make, &stamped, &[0, 1, 2], run, &marks);
                assert_eq!(reader.rows, expected, "seed {seed}, {partitions} partitions, {slide} of {size}, run {run}");
                assert_eq!(reader.late, late);
                seen += usize::from(reader.said.len() > expected.len());
            }
        }
    }
    assert!(seen > 100, "most windows speak more than once: {seen}");
}

#[test]
fn with_grace_a_window_speaks_at_its_end_and_once_more_for_every_late_row() {
    let mut corrected = 0;
    for seed in 0..4 {
        for (partitions, slide, size, most) in [(1, 10, 10, None), (3, 10, 10, None), (1, 4, 10, Some(20.0)), (3, 5, 10, None)] {
            let grace = 8;
            let (inputs, stamped, marks) = inputs(seed, partitions, 2);
            let end = marks.iter().map(|marks| *marks.last().unwrap()).min().unwrap();
            let (windows, late) = windows(&inputs, &marks, size, slide, grace);
            let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for ((to, key), mut window) in windows {
                if to > end {
                    continue;
                }
                let name = format!("{key} {} {to}", to - size);
                let (mut said, mut is_shown) = (Vec::new(), false);
                let mut say = |values: &Values| match shown(values, most) {
                    Some(row) => {
                        said.push(format!("{name} {row}"));
                        is_shown = true;
                    }
                    None if std::mem::take(&mut is_shown) => said.push(format!("{name} gone")),
                    None => {}
                };
                if !window.values.is_empty() {
                    say(&window.values);
                }
                window.behind.sort_by_key(|(mark, p, offset, _)| (*mark, *p, *offset));
                for (mark, p, _, value) in window.behind {
                    // Of merged partitions a correction waits until all have passed the mark before it.
                    if partitions == 1 || mark < end {
                        window.values.entry(p).or_default().push(value);
                        say(&window.values);
                        corrected += 1;
                    }
                }
                if !said.is_empty() {
                    expected.insert(name, said);
                }
            }
            let scope = if partitions == 1 { ONE } else { Scope::Merged };
            let rule = WindowRule::hop(slide, size, 0).unwrap();
            for run in 0..12 {
                let make = || {
                    Box::new(operator(scope, GroupLife::Window { rule, grace_ms: grace }, GroupEmit::OnClose, most)) as Box<dyn Operator>
                };
                let reader = carried(&make, &stamped, &[0, 1, 2], run, &marks);
                let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
                for line in reader.said {
                    told.entry(line.split(' ').take(3).collect::<Vec<_>>().join(" ")).or_default().push(line);
                }
                assert_eq!(told, expected, "seed {seed}, {partitions} partitions, {slide} of {size}, run {run}");
                assert_eq!(reader.late, late);
            }
        }
    }
    assert!(corrected > 50, "{corrected}");
}

/// The end of the window of ten that a time lies in.
#[derive(Debug)]
struct WindowEnd;

impl Expr for WindowEnd {
    fn evaluate(&self, batch: &arrow::array::RecordBatch) -> Result<arrow::array::ArrayRef, StreamError> {
        let times = batch.column(1).as_primitive::<TimestampMillisecondType>();
        let ends = times.iter().map(|at| at.map(|at| at - at.rem_euclid(10) + 10));
        Ok(Arc::new(ends.collect::<arrow::array::TimestampMillisecondArray>()))
    }
    fn text(&self) -> String {
        "window_end".to_owned()
    }
}

/// Groups of a key and a time: the end of the window of ten that a row lies in, and theirs.
pub(super) fn until_its_window_ends(scope: Scope) -> UpdateAggregate {
    let spec = UpdateSpec {
        scope,
        keys: vec![Arc::new(Column(0)), Arc::new(WindowEnd)],
        folds: folds(),
        life: GroupLife::Key(OverExpiry { key: 1, plus_ms: -1 }),
        emit: GroupEmit::OnClose,
        columns: vec![WindowColumn::Key(0), WindowColumn::Key(1), WindowColumn::Agg(0), WindowColumn::Agg(1), WindowColumn::Agg(2)],
        schema: Arc::new(Schema::new(vec![
            Field::new("key", DataType::Utf8, true),
            Field::new("to", time_type(), true),
            Field::new("count", DataType::Int64, false),
            Field::new("sum", DataType::Float64, true),
            Field::new("words", DataType::Utf8, true),
        ])),
        shown: None,
    };
    UpdateAggregate::new(spec).unwrap()
}

#[test]
fn groups_with_a_time_in_their_key_leave_once_when_it_has_passed_in_order_of_it_and_of_the_key() {
    let chain = |scope: Scope| Chain::new(vec![Box::new(until_its_window_ends(scope))]);
    for seed in 0..3 {
        for partitions in [1, 3] {
            let (inputs, stamped, marks) = inputs(seed, partitions, 4);
            let (windows, late) = windows(&inputs, &marks, 10, 10, 0);
            let row = |((end, key), window): ((i64, String), Window)| {
                let row = shown(&window.values, None).unwrap();
                let mut cells = row.splitn(3, ' ');
                let mut cell = || cells.next().filter(|cell| !cell.is_empty());
                let (count, sum, words) = (cell().unwrap(), cell().unwrap_or("-").to_owned(), cell().unwrap_or_default());
                format!("{key} {end} {count} {sum} {words}")
            };
            let expected: Vec<String> = windows.into_iter().map(row).collect();
            let scope = if partitions == 1 { ONE } else { Scope::Merged };
            let told = check_always(&|| chain(scope), &stamped, partitions > 1);
            assert_eq!(told.rows, expected, "seed {seed}, {partitions} partitions");
            assert_eq!(told.others.len(), late.len());
        }
    }
}

#[test]
fn what_most_commits_can_hold_is_told_in_turns_of_one_order() {
    let names: Vec<String> = (0..120_000).map(|n| format!("k{n}")).collect();
    let batch = |names: &[String]| {
        let rows = Partition::new(0, 0, &[("x", Some(1), Some(1.0))]).rows().clone();
        let keys = Arc::new(arrow::array::StringArray::from_iter_values(names)) as arrow::array::ArrayRef;
        let times = Arc::new(arrow::array::TimestampMillisecondArray::from(vec![1; names.len()]));
        let values = Arc::new(arrow::array::Float64Array::from(vec![1.0; names.len()]));
        let batch = arrow::array::RecordBatch::try_new(rows.batch.schema(), vec![keys, times, values]).unwrap();
        let same = |value: i64| vec![value; names.len()].into();
        Rows { batch, times: same(1), before: same(0), offsets: (0..names.len() as i64).collect(), ..rows }
    };
    let life = GroupLife::Open { ttl_ms: None };
    let mut first = operator(ONE, life, GroupEmit::OnUpdate, None);
    let mut out = Output::default();
    first.rows(&batch(&names), &mut out).unwrap();
    assert!(first.flush(&mut out).unwrap(), "there is more than one commit should hold");
    let said = |out: &Output| -> Vec<String> {
        let keys = |rows: &Rows| rows.batch.column(0).as_string::<i32>().iter().map(|key| key.unwrap().to_owned()).collect::<Vec<_>>();
        out.rows.iter().flat_map(keys).collect()
    };
    let told = said(&out);
    assert!(told.len() == 50_000 && told.is_sorted());
    // A restart between two turns, and rows in another order, tell the same.
    let mut state = StateWriter::default();
    first.save(&mut state).unwrap();
    let mut restored = operator(ONE, life, GroupEmit::OnUpdate, None);
    restored.restore(&StateReader::of(state.parts)).unwrap();
    let mut backwards = operator(ONE, life, GroupEmit::OnUpdate, None);
    let reversed: Vec<String> = names.iter().rev().cloned().collect();
    let mut again = Output::default();
    backwards.rows(&batch(&reversed), &mut again).unwrap();
    assert!(backwards.flush(&mut again).unwrap());
    assert_eq!(said(&again), told);
    for one in [&mut first, &mut restored, &mut backwards] {
        one.rows(&batch(&names[..2]), &mut Output::default()).unwrap();
        let mut out = Output::default();
        assert!(one.flush(&mut out).unwrap());
        let second = said(&out);
        assert!(second.len() == 50_000 && second[0] > told[49_999] && second.is_sorted());
        let mut out = Output::default();
        assert!(!one.flush(&mut out).unwrap());
        assert_eq!(said(&out).len(), 20_000);
        let mut out = Output::default();
        one.flush(&mut out).unwrap();
        assert_eq!(said(&out).len(), 2, "those that have changed meanwhile come behind");
        assert!(!one.has_changes());
    }
}

#[test]
fn state_is_bounded_by_time_to_live_and_by_the_end_of_windows() {
    let held = |life: GroupLife, rows: i64| {
        let mut one = operator(ONE, life, GroupEmit::OnUpdate, None);
        let mut out = Output::default();
        for n in 0..rows {
            let input = Partition::new(0, 0, &[(["ann", "bob", "cleo"][n as usize % 3], Some(n * 4), None)]);
            one.rows(input.rows(), &mut out).unwrap();
            one.watermark(Timestamp(n * 4), &mut out).unwrap();
            one.flush(&mut out).unwrap();
        }
        let counts = out.rows.iter().map(|rows| rows.batch.column(rows.batch.num_columns() - 3));
        let least = counts.filter_map(|c| c.as_primitive_opt::<Int64Type>().map(|c| c.value(0))).min();
        assert_eq!(least, Some(0), "NULL counts for nothing");
        assert!(out.rows.iter().any(|rows| rows.batch.column(rows.batch.num_columns() - 2).as_primitive_opt::<Float64Type>().is_some()));
        one.state_bytes()
    };
    let rule = WindowRule::tumble(10, 0).unwrap();
    for life in [GroupLife::Open { ttl_ms: Some(5) }, GroupLife::Window { rule, grace_ms: 0 }] {
        let (few, many) = (held(life, 400), held(life, 4000));
        assert!(many < few * 2, "{life:?}: {few} bytes after 400 rows, {many} after 4000");
    }
}

#[test]
fn a_window_is_due_once_the_clock_has_passed_its_end() {
    let rule = WindowRule::tumble(10, 0).unwrap();
    let mut one = operator(ONE, GroupLife::Window { rule, grace_ms: 5 }, GroupEmit::OnClose, None);
    one.rows(Partition::new(0, 50, &[("ann", Some(3), Some(1.0)), ("bob", Some(12), Some(2.0))]).rows(), &mut Output::default()).unwrap();
    let due: Vec<Option<i64>> = [9, 10, 19, 20].iter().map(|now| one.due(Timestamp(*now)).map(|at| at.0)).collect();
    assert_eq!(due, [None, Some(10), Some(10), Some(20)]);
    let mut out = Output::default();
    one.watermark(Timestamp(10), &mut out).unwrap();
    assert_eq!((out.rows.len(), one.due(Timestamp(19))), (1, None), "what has spoken is not due again");
}
