//! Both phases against the one task that merges all partitions: the same input, cut, interleaved, committed and interrupted anywhere, idle partitions
//! among it, in memory or on the disk, gives the same rows of each key and the same late rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::tests::{folds, schema};
use super::record::{TO, VALUE, mark};
use super::*;
use crate::record::PartitionId;
use crate::stream::doubles::{Column, Numbering, Partition, Told, readings};
use crate::stream::spill::tests::Shelf;
use crate::stream::{
    Expr, Operator, Output, Rows, Scope, SpillSpace, StateReader, StateWriter, WindowAggregate, WindowAggregateSpec, WindowColumn,
    WindowRule,
};
use crate::time::Timestamp;

fn spec(rule: WindowRule, scope: Scope, keyed: bool) -> WindowAggregateSpec {
    let key = keyed.then_some(WindowColumn::Key(0));
    let window = [WindowColumn::WindowStart, WindowColumn::WindowEnd];
    WindowAggregateSpec {
        rule,
        scope,
        keys: if keyed { vec![Arc::new(Column(0)) as Arc<dyn Expr>] } else { Vec::new() },
        keys_factory: keyed.then(|| Arc::new(Numbering(vec![DataType::Utf8])) as _),
        folds: folds(),
        columns: window.into_iter().chain(key).chain((0..3).map(WindowColumn::Agg)).collect(),
        schema: schema(keyed),
    }
}

fn saved(operator: &mut dyn Operator) -> StateReader {
    let mut state = StateWriter::default();
    operator.save(&mut state).unwrap();
    StateReader::of(state.parts)
}

/// What an operator made in one call.
fn made(step: impl FnOnce(&mut Output)) -> Output {
    let mut out = Output::default();
    step(&mut out);
    out
}

/// A task of the first phase: its operator, what it has made since its last commit, and that commit.
struct First {
    operator: WindowCollect,
    at: usize,
    told: i64,
    waiting: Output,
    committed: (StateReader, usize, i64),
}

/// A task of the second phase: the same over its partition of the topic.
struct Second {
    operator: WindowCombine,
    log: Vec<Vec<u8>>,
    at: usize,
    waiting: Output,
    committed: (StateReader, usize),
}

/// How the rows of each key went on, and what went aside.
type Found = (BTreeMap<String, Vec<String>>, Vec<String>);

fn found(told: Told, keyed: bool) -> Found {
    let mut by_key = BTreeMap::<String, Vec<String>>::new();
    for row in told.rows {
        let key = if keyed { row.split(' ').nth(2).unwrap().to_owned() } else { String::new() };
        by_key.entry(key).or_default().push(row);
    }
    let mut others = told.others;
    others.sort();
    (by_key, others)
}

struct Bench {
    chance: ChaCha8Rng,
    rule: WindowRule,
    keyed: bool,
    input: Vec<Partition>,
    first: Vec<First>,
    second: Vec<Second>,
    told: Told,
    /// Where state goes that no row has come for, where any does.
    shelf: Option<(Shelf, SpillSpace)>,
}

impl Bench {
    fn new(seed: u64, rule: WindowRule, keyed: bool, partitions: i32, targets: i32) -> Self {
        let input = (0..partitions).map(|p| Partition::new(p, 5, &readings(seed * 10 + p as u64, 60, 3, 20))).collect();
        let (chance, shelf) = (ChaCha8Rng::seed_from_u64(seed), (seed % 2 == 1).then(Shelf::default));
        let shelf = shelf.map(|shelf| (shelf.clone(), shelf.space()));
        let mut bench = Self { chance, rule, keyed, input, first: vec![], second: vec![], told: Told::default(), shelf };
        for partition in 0..partitions {
            let mut operator = bench.collect(partition, targets);
            let committed = (saved(&mut operator), 0, i64::MIN);
            bench.first.push(First { operator, at: 0, told: i64::MIN, waiting: Output::default(), committed });
        }
        for _ in 0..targets {
            let mut operator = bench.combine();
            let committed = (saved(&mut operator), 0);
            bench.second.push(Second { operator, log: Vec::new(), at: 0, waiting: Output::default(), committed });
        }
        bench
    }

    fn collect(&self, partition: i32, targets: i32) -> WindowCollect {
        let by = if self.keyed { vec![0] } else { Vec::new() };
        WindowCollect::new(spec(self.rule, Scope::Partition(PartitionId(partition)), self.keyed), by, targets).unwrap()
    }

    fn combine(&self) -> WindowCombine {
        WindowCombine::new(spec(self.rule, Scope::Partition(PartitionId(0)), self.keyed), self.input.len() as i32).unwrap()
    }

    /// A task of the first phase reads on, and hears its watermark.
    fn read(&mut self, of: usize, len: usize) {
        let (task, input) = (&mut self.first[of], &self.input[of]);
        let out = &mut task.waiting;
        task.operator.rows(&input.rows().slice(task.at, len), out).unwrap();
        task.at += len;
        if let Some((_, space)) = &self.shelf {
            task.operator.spill(usize::MAX, space).unwrap();
        }
        self.tell(of, self.input[of].mark(self.first[of].at));
    }

    fn tell(&mut self, of: usize, mark: i64) {
        let task = &mut self.first[of];
        if mark > task.told {
            task.told = mark;
            task.operator.watermark(Timestamp(mark), &mut task.waiting).unwrap();
        }
    }

    /// What it has made stands in the topic, and its mark behind it; or it is gone, and the task as it was.
    fn end_first(&mut self, of: usize, commits: bool) {
        let targets = self.second.len() as i32;
        if !commits {
            let mut operator = self.collect(of as i32, targets);
            let task = &mut self.first[of];
            operator.restore(&task.committed.0).unwrap();
            (task.operator, task.at, task.told, task.waiting) = (operator, task.committed.1, task.committed.2, Output::default());
            return;
        }
        let task = &mut self.first[of];
        task.committed = (saved(&mut task.operator), task.at, task.told);
        let waiting = std::mem::take(&mut task.waiting);
        let said = mark(of as i32, self.rule.last_closed(task.told));
        for rows in &waiting.rows {
            let to = rows.batch.column(TO).as_primitive::<Int32Type>();
            let bytes = rows.batch.column(VALUE).as_binary::<i32>();
            for row in 0..rows.len() {
                self.second[to.value(row) as usize].log.push(bytes.value(row).to_vec());
            }
        }
        self.second.iter_mut().for_each(|second| second.log.push(said.clone()));
        self.told.take(Output { rows: Vec::new(), ..waiting });
    }

    fn merge(&mut self, of: usize, len: usize) {
        let task = &mut self.second[of];
        let values: BinaryArray = task.log[task.at..task.at + len].iter().map(|bytes| Some(bytes.as_slice())).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![Field::new("value", DataType::Binary, false)])), vec![Arc::new(values)]);
        let (offsets, none) = ((task.at as i64..(task.at + len) as i64).collect(), vec![crate::stream::NO_TIME; len]);
        let (times, before) = (none.clone().into(), none.into());
        let rows = Rows { batch: batch.unwrap(), partition: PartitionId(of as i32), offsets, times, before, heard: None, gone: false };
        task.operator.rows(&rows, &mut task.waiting).unwrap();
        task.at += len;
        if let Some((_, space)) = &self.shelf {
            task.operator.spill(usize::MAX, space).unwrap();
        }
    }

    fn end_second(&mut self, of: usize, commits: bool) {
        if commits {
            let task = &mut self.second[of];
            task.committed = (saved(&mut task.operator), task.at);
            self.told.take(std::mem::take(&mut task.waiting));
            return;
        }
        let mut operator = self.combine();
        let task = &mut self.second[of];
        operator.restore(&task.committed.0).unwrap();
        (task.operator, task.at, task.waiting) = (operator, task.committed.1, Output::default());
    }

    /// Everything through both phases, and through one task that merges; an idle partition follows, and comes back, at the same moments.
    fn run(&mut self) -> (Found, Found) {
        let mut merged = WindowAggregate::new(spec(self.rule, Scope::Merged, self.keyed)).unwrap();
        let (mut at, mut closed, mut once) = (vec![0; self.input.len()], i64::MIN, Told::default());
        // What is read, and who follows before it, is the same for both; where commits and crashes fall is not.
        loop {
            let left: Vec<usize> = (0..self.input.len()).filter(|p| at[*p] < self.input[*p].rows().len()).collect();
            let Some(of) = left.choose(&mut self.chance).copied() else { break };
            let len = self.chance.random_range(1..=9_usize.min(self.input[of].rows().len() - at[of]));
            let own = |at: &[usize], p: usize| self.input[p].mark(at[p]);
            let others = (0..self.input.len()).filter(|p| *p != of).map(|p| own(&at, p)).min();
            let upto = others.filter(|_| self.chance.random_bool(0.2)).filter(|upto| *upto > closed);
            if let Some(upto) = upto {
                closed = upto;
                once.take(made(|out| merged.watermark(Timestamp(upto), out).unwrap()));
            }
            once.take(made(|out| merged.rows(&self.input[of].rows().slice(at[of], len), out).unwrap()));
            // The first phase may have to read again what it has read since its last commit, with what it decided meanwhile.
            let began = self.first[of].at;
            loop {
                if let Some(upto) = upto {
                    self.tell(of, upto);
                    // A decision stands in a commit of its own.
                    self.end_first(of, true);
                }
                self.read(of, at[of] + len - self.first[of].at);
                let commits = self.chance.random_bool(0.6);
                self.end_first(of, commits);
                if commits {
                    break;
                }
                assert!(self.first[of].at <= began);
            }
            at[of] += len;
            let least = (0..self.input.len()).map(|p| self.input[p].mark(at[p])).min().unwrap();
            if least > closed && self.chance.random_bool(0.5) {
                closed = least;
                once.take(made(|out| merged.watermark(Timestamp(least), out).unwrap()));
            }
            for second in 0..self.second.len() {
                let there = self.second[second].log.len() - self.second[second].at;
                let len = self.chance.random_range(0..=there);
                self.merge(second, len);
                if self.chance.random_bool(0.5) {
                    let commits = self.chance.random_bool(0.7);
                    self.end_second(second, commits);
                }
            }
        }
        once.take(made(|out| merged.watermark(Timestamp::MAX, out).unwrap()));
        for of in 0..self.first.len() {
            self.tell(of, i64::MAX);
            self.end_first(of, true);
        }
        for of in 0..self.second.len() {
            let left = self.second[of].log.len() - self.second[of].at;
            self.merge(of, left);
            self.end_second(of, true);
            assert_eq!(self.second[of].operator.state_bytes(), 0, "nothing is left");
        }
        (found(std::mem::take(&mut self.told), self.keyed), found(once, self.keyed))
    }
}

#[test]
fn two_phases_give_what_one_task_over_all_partitions_gives() {
    let hops =
        [(10, 10, -3), (4, 10, 1), (5, 20, 0), (10, 4, 0)].map(|(slide, size, offset)| WindowRule::hop(slide, size, offset).unwrap());
    let (mut late, mut written, mut read) = (0, 0, 0);
    for rule in hops.into_iter().chain([WindowRule::cumulate(5, 20, 2).unwrap()]) {
        for seed in 0..12 {
            let (partitions, targets) = (1 + seed as i32 % 4, 1 + seed as i32 / 4);
            for keyed in [true, false] {
                let mut bench = Bench::new(seed, rule, keyed, partitions, targets);
                let (two, one) = bench.run();
                assert_eq!(two, one, "seed {seed}, {rule:?}, {partitions} partitions to {targets}, keyed: {keyed}");
                assert!(!one.0.is_empty());
                late += one.1.len();
                let used = bench.shelf.as_ref().map_or((0, 0), |(shelf, _)| shelf.used());
                (written, read) = (written + used.0, read + used.1);
            }
        }
    }
    assert!(late > 100, "{late} rows came late");
    assert!(written > 200 && read > 200, "{written} files were written and {read} read");
}

#[test]
fn a_part_that_is_too_large_for_a_record_goes_in_several() {
    let rule = WindowRule::tumble(10, 0).unwrap();
    let mut one = WindowCollect::new(spec(rule, Scope::Partition(PartitionId(0)), true), vec![0], 1).unwrap();
    let keys: Vec<&'static str> = (0..60).map(|n| &*Box::leak(format!("{n:010000}").into_boxed_str())).collect();
    let rows: Vec<_> = keys.iter().map(|key| (*key, Some(1), Some(0.5))).collect();
    let out = made(|out| one.rows(Partition::new(0, 0, &rows).rows(), out).unwrap());
    assert!(out.rows.is_empty());
    let out = made(|out| one.watermark(Timestamp(10), out).unwrap());
    let parts = out.rows[0].batch.column(VALUE).as_binary::<i32>().clone();
    assert!(parts.len() > 2 && parts.iter().flatten().all(|part| part.len() <= 256 * 1024), "{} parts", parts.len());
    let mut two = WindowCombine::new(spec(rule, Scope::Partition(PartitionId(0)), true), 1).unwrap();
    let bytes: BinaryArray = parts.iter().flatten().map(Some).chain([Some(&*mark(0, 10))]).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![Field::new("value", DataType::Binary, false)])), vec![Arc::new(bytes)]);
    let mut rows = Partition::new(0, 0, &vec![("a", None, None); parts.len() + 1]).rows().clone();
    rows.batch = batch.unwrap();
    let out = made(|out| two.rows(&rows, out).unwrap());
    assert_eq!(out.rows.iter().map(Rows::len).sum::<usize>(), 60);
    // What has come of it may lie on the disk when the rest comes.
    let shelf = Shelf::default();
    let space = shelf.space();
    let mut two = WindowCombine::new(spec(rule, Scope::Partition(PartitionId(0)), true), 1).unwrap();
    let mut made_of = Vec::new();
    for at in 0..rows.len() {
        made_of.extend(made(|out| two.rows(&rows.slice(at, 1), out).unwrap()).rows);
        if at + 1 < rows.len() {
            for _ in 0..2 {
                two.spill(usize::MAX, &space).unwrap();
            }
            assert!(two.spilled_bytes() > 0);
            let mut again = WindowCombine::new(spec(rule, Scope::Partition(PartitionId(0)), true), 1).unwrap();
            again.restore(&saved(&mut two)).unwrap();
            two = again;
        }
    }
    let lines = |of: &[Rows]| of.iter().map(|rows| format!("{:?}", rows.batch)).collect::<Vec<_>>();
    assert_eq!((lines(&made_of), shelf.files()), (lines(&out.rows), 0));
}

#[test]
fn a_timeout_waits_for_the_further_windows_of_what_was_handed_over() {
    let rule = WindowRule::hop(5, 15, 0).unwrap();
    let mut one = WindowCollect::new(spec(rule, Scope::Partition(PartitionId(0)), true), vec![0], 2).unwrap();
    let due = |one: &WindowCollect| [4, 5, 9, 10, 14, 15, 99].map(|now| one.due(Timestamp(now)).map(|at| at.0));
    assert_eq!(due(&one), [None; 7]);
    made(|out| one.rows(Partition::new(0, 0, &[("ann", Some(3), Some(1.0))]).rows(), out).unwrap());
    // Windows that end at 5, 10 and 15 hold it.
    assert_eq!(due(&one), [None, Some(5), Some(5), Some(10), Some(10), Some(15), Some(15)]);
    assert_eq!(made(|out| one.watermark(Timestamp(5), out).unwrap()).rows.len(), 1);
    assert_eq!(one.state_bytes(), 0);
    let mut again = WindowCollect::new(spec(rule, Scope::Partition(PartitionId(0)), true), vec![0], 2).unwrap();
    again.restore(&saved(&mut one)).unwrap();
    assert_eq!(due(&again), [None, None, None, Some(10), Some(10), Some(15), Some(15)]);
    again.watermark(Timestamp(15), &mut Output::default()).unwrap();
    assert_eq!(due(&again), [None; 7]);
}

#[test]
fn what_belongs_to_no_window_that_is_open_is_an_error_and_not_a_result() {
    let rule = WindowRule::tumble(10, 0).unwrap();
    let mut one = WindowCollect::new(spec(rule, Scope::Partition(PartitionId(1)), true), vec![0], 1).unwrap();
    made(|out| one.rows(Partition::new(1, 0, &[("ann", Some(3), Some(1.0))]).rows(), out).unwrap());
    let out = made(|out| one.watermark(Timestamp(10), out).unwrap());
    let part = out.rows[0].batch.column(VALUE).as_binary::<i32>().value(0).to_vec();
    let take = |records: &[&[u8]], upstream| {
        let mut two = WindowCombine::new(spec(rule, Scope::Partition(PartitionId(0)), true), upstream).unwrap();
        let bytes: BinaryArray = records.iter().map(|bytes| Some(*bytes)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![Field::new("value", DataType::Binary, false)])), vec![Arc::new(bytes)]);
        let mut rows = Partition::new(0, 0, &vec![("a", None, None); records.len()]).rows().clone();
        rows.batch = batch.unwrap();
        two.rows(&rows, &mut Output::default()).map(|()| two)
    };
    assert!(take(&[&part], 2).is_ok());
    assert!(take(&[&part], 1).is_err(), "a partition that nobody waits for");
    assert!(take(&[&mark(0, 10), &mark(1, 10), &part], 2).is_err(), "a window that has fired");
    let mut two = take(&[&part], 2).unwrap_or_else(|e| panic!("{e}"));
    let state = saved(&mut two);
    assert!(WindowCombine::new(spec(rule, Scope::Partition(PartitionId(0)), true), 3).unwrap().restore(&state).is_err());
}
