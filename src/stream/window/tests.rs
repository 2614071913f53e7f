//! The contract of windows, line by line, and its properties under seeded chance.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::*;
use crate::record::PartitionId;
use crate::stream::doubles::{
    Below, Column, How, Hundredth, Kind, Numbering, PLAIN, Partition, Reading, aggregate, check_always, readings, run, time_type,
};
use crate::stream::{Chain, Expr, FoldFactory, Operator, Output, Rows, Scope, StateReader, StateWriter};
use crate::time::Timestamp;

pub(super) fn folds() -> Vec<Arc<dyn FoldFactory>> {
    let value = || Arc::new(Column(2)) as Arc<dyn Expr>;
    vec![
        aggregate(Kind::Count, value(), None),
        aggregate(Kind::Sum, value(), Some(Arc::new(Below(2, 5.0)))),
        aggregate(Kind::Words, value(), None),
    ]
}

pub(super) fn schema(keyed: bool) -> SchemaRef {
    let mut fields = vec![Field::new("window_start", time_type(), false), Field::new("window_end", time_type(), false)];
    if keyed {
        fields.push(Field::new("key", DataType::Utf8, true));
    }
    fields.extend([
        Field::new("count", DataType::Int64, true),
        Field::new("sum", DataType::Float64, true),
        Field::new("words", DataType::Utf8, true),
    ]);
    Arc::new(Schema::new(fields))
}

pub(super) fn operator(rule: WindowRule, scope: Scope, keyed: bool) -> WindowAggregate {
    let mut columns = vec![WindowColumn::WindowStart, WindowColumn::WindowEnd];
    if keyed {
        columns.push(WindowColumn::Key(0));
    }
    columns.extend((0..3).map(WindowColumn::Agg));
    let keys: Vec<Arc<dyn Expr>> = if keyed { vec![Arc::new(Column(0))] } else { Vec::new() };
    let spec = WindowAggregateSpec {
        rule,
        scope,
        keys,
        keys_factory: keyed.then(|| Arc::new(Numbering(vec![DataType::Utf8])) as _),
        folds: folds(),
        columns,
        schema: schema(keyed),
    };
    WindowAggregate::new(spec).unwrap()
}

pub(super) fn chain(rule: WindowRule, scope: Scope, keyed: bool) -> Chain {
    Chain::new(vec![Box::new(operator(rule, scope, keyed))])
}

pub(super) const ONE: Scope = Scope::Partition(PartitionId(0));

fn told(rule: WindowRule, delay: i64, readings: &[Reading]) -> (Vec<String>, Vec<String>) {
    let partitions = [Partition::new(0, delay, readings)];
    let told = check_always(&|| chain(rule, ONE, true), &partitions, false);
    // A single partition is the merged case with one.
    assert_eq!(check_always(&|| chain(rule, Scope::Merged, true), &partitions, true), told);
    (told.rows, told.others)
}

#[test]
fn a_tumbling_window_counts_what_lies_in_it_and_what_is_late_goes_aside() {
    let rule = WindowRule::tumble(10, 0).unwrap();
    let a = |at: i64, value: f64| ("ann", Some(at), Some(value));
    let (rows, others) = told(
        rule,
        2,
        &[a(1, 1.0), a(9, 9.0), a(11, 3.0), ("bob", Some(5), Some(4.0)), a(12, 2.0), a(8, 7.0), a(19, 6.0), ("bob", None, None)],
    );
    // The watermark is 9 before the reading at 5, and 10 before the one at 8.
    assert_eq!(rows, ["0 10 ann 2 1.0 1.9.", "0 10 bob 1 4.0 4.", "10 20 ann 3 5.0 3.2.6."]);
    assert_eq!(others, ["p0@5 late", "p0@7 late"]);
}

#[test]
fn a_row_that_is_late_for_some_hopping_windows_still_counts_in_the_open_ones() {
    // Flink's golden input (windowDataWithTimestamp, WindowAggregateITCase), key a, watermark one second
    // behind: the row of 7 s comes when 16 s has been seen, so [0, 10) has closed; [5, 15) has too; the row
    // of 34 s closes the rest. HOP(5 s, 10 s).
    let rule = WindowRule::hop(5, 10, 0).unwrap();
    let a = |at: i64| ("a", Some(at), Some(at as f64));
    let (rows, others) = told(rule, 1, &[a(1), a(2), a(3), a(4), a(7), a(8), a(16), a(14), a(7)]);
    assert_eq!(
        rows,
        [
            "-5 5 a 4 10.0 1.2.3.4.",
            "0 10 a 6 10.0 1.2.3.4.7.8.",
            // The reading at 14 comes behind the watermark 15: late for [5, 15), on time for [10, 20).
            "5 15 a 2 - 7.8.",
            "10 20 a 2 - 14.16.",
            "15 25 a 1 - 16.",
        ]
    );
    assert_eq!(others, ["p0@8 late"]);
}

#[test]
fn a_window_closes_when_the_watermark_reaches_its_end_and_not_before() {
    let mut one = operator(WindowRule::tumble(10, 0).unwrap(), ONE, true);
    let input = Partition::new(0, 0, &[("ann", Some(3), Some(1.0))]);
    let mut out = Output::default();
    one.rows(input.rows(), &mut out).unwrap();
    one.watermark(Timestamp(9), &mut out).unwrap();
    assert!(out.rows.is_empty());
    assert_eq!(one.due(Timestamp(9)), None);
    assert_eq!(one.due(Timestamp(25)), Some(Timestamp(10)));
    one.watermark(Timestamp(10), &mut out).unwrap();
    assert_eq!(out.rows.len(), 1);
    assert_eq!(out.rows[0].times.to_vec(), [9]);
    assert_eq!(one.due(Timestamp(100)), None);
}

#[test]
fn timeout_moves_to_the_greatest_window_end_that_the_clock_has_passed() {
    let mut one = operator(WindowRule::hop(5, 15, 0).unwrap(), ONE, true);
    let input = Partition::new(0, 0, &[("ann", Some(3), Some(1.0))]);
    let mut out = Output::default();
    one.rows(input.rows(), &mut out).unwrap();
    // Windows that end at 5, 10 and 15 hold it.
    let due: Vec<Option<i64>> = [4, 5, 9, 10, 14, 15, 99].iter().map(|now| one.due(Timestamp(*now)).map(|at| at.0)).collect();
    assert_eq!(due, [None, Some(5), Some(5), Some(10), Some(10), Some(15), Some(15)]);
    one.watermark(Timestamp(10), &mut out).unwrap();
    assert_eq!(one.due(Timestamp(12)), None);
    assert_eq!(one.due(Timestamp(20)), Some(Timestamp(15)));
}

#[test]
fn a_failing_row_leaves_the_rows_beside_it_alone() {
    let rule = WindowRule::tumble(10, 0).unwrap();
    let make = || {
        let spec = WindowAggregateSpec {
            rule,
            scope: ONE,
            keys: Vec::new(),
            keys_factory: None,
            folds: vec![aggregate(Kind::Words, Arc::new(Hundredth(2)), None)],
            columns: vec![WindowColumn::WindowTime, WindowColumn::Agg(0)],
            schema: Arc::new(Schema::new(vec![Field::new("window_time", time_type(), false), Field::new("w", DataType::Utf8, true)])),
        };
        Chain::new(vec![Box::new(WindowAggregate::new(spec).unwrap())])
    };
    let a = |at: i64, value: f64| ("ann", Some(at), Some(value));
    let input = [Partition::new(0, 0, &[a(0, 1.0), a(1, 0.0), a(2, 2.0), a(3, 4.0), a(4, 0.0), a(5, 5.0)])];
    let told = check_always(&make, &input, false);
    assert_eq!(told.rows, ["9 100.50.25.20."]);
    assert_eq!(
        told.others,
        ["p0@1 could not evaluate 100 / value: division by zero", "p0@4 could not evaluate 100 / value: division by zero"]
    );
}

#[test]
fn any_cut_any_interleaving_and_any_restart_give_the_same_windows() {
    for seed in 0..2 {
        for (slide, size, offset) in [(10, 10, -3), (4, 10, 1), (5, 20, 0), (10, 4, 0)] {
            let rule = WindowRule::hop(slide, size, offset).unwrap();
            // Disorder beyond the delay, so that rows are late for none, some and all of their windows.
            let partition = |p: i32| Partition::new(p, 5, &readings(seed * 10 + p as u64, 80, 3, 20));
            check_always(&|| chain(rule, ONE, true), &[partition(0)], false);
            check_always(&|| chain(rule, ONE, false), &[partition(0)], false);
            let merged = check_always(&|| chain(rule, Scope::Merged, true), &[partition(0), partition(1), partition(2)], true);
            assert!(!merged.rows.is_empty());
            check_always(&|| chain(rule, Scope::Merged, false), &[partition(0), partition(1)], true);
        }
    }
}

#[test]
fn windows_hold_exactly_the_rows_that_the_late_rule_lets_in() {
    for seed in 0..6 {
        for (slide, size) in [(10, 10), (4, 10), (5, 20), (10, 4)] {
            let rule = WindowRule::hop(slide, size, 0).unwrap();
            let all = readings(seed, 100, 3, 25);
            let partition = Partition::new(0, 5, &all);
            let mut expected = std::collections::BTreeMap::<(i64, &str), i64>::new();
            let mut late = Vec::new();
            for (row, (key, at, value)) in all.iter().enumerate() {
                let before = partition.rows().before[row];
                let spans: Vec<_> = at.iter().flat_map(|at| rule.spans(*at)).collect();
                let open: Vec<_> = spans.iter().filter(|span| before < span.end.0).collect();
                if at.is_none() || (open.is_empty() && !spans.is_empty()) {
                    late.push(format!("p0@{row} late"));
                }
                for span in open {
                    *expected.entry((span.end.0, key)).or_default() += i64::from(value.is_some());
                }
            }
            let told = run(&|| chain(rule, ONE, true), &[partition], How { seed, batch: 9, ..PLAIN });
            let mut rows: Vec<String> = told.rows.iter().map(|row| row.split(' ').take(4).collect::<Vec<_>>().join(" ")).collect();
            rows.sort();
            let mut expected: Vec<String> = expected.iter().map(|((end, key), n)| format!("{} {end} {key} {n}", end - size)).collect();
            expected.sort();
            assert_eq!(rows, expected, "seed {seed}, hop({slide}, {size})");
            assert_eq!(told.others, late);
        }
    }
}

#[test]
fn windows_cascade_in_one_chain() {
    let first = WindowRule::tumble(5, 0).unwrap();
    let make = || {
        let spec = WindowAggregateSpec {
            rule: WindowRule::hop(10, 20, 0).unwrap(),
            scope: ONE,
            keys: vec![Arc::new(Column(2))],
            keys_factory: Some(Arc::new(Numbering(vec![DataType::Utf8]))),
            folds: vec![aggregate(Kind::Words, Arc::new(Column(4)), None)],
            columns: vec![WindowColumn::WindowEnd, WindowColumn::Key(0), WindowColumn::Agg(0)],
            schema: Arc::new(Schema::new(vec![
                Field::new("window_end", time_type(), false),
                Field::new("key", DataType::Utf8, true),
                Field::new("words", DataType::Utf8, true),
            ])),
        };
        Chain::new(vec![Box::new(operator(first, ONE, true)), Box::new(WindowAggregate::new(spec).unwrap())])
    };
    let a = |at: i64| ("ann", Some(at), Some(at as f64 / 10.0));
    let told = check_always(&make, &[Partition::new(0, 0, &[a(1), a(4), a(6), a(12), a(30)])], false);
    assert_eq!(told.rows, ["10 ann 0.5.0.6.", "20 ann 0.5.0.6.1.2.", "30 ann 1.2.", "40 ann 3.", "50 ann 3."]);
    assert_eq!(told.others, [""; 0]);
}

#[test]
fn a_window_function_without_an_aggregate_gives_each_row_once_a_window() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("value", DataType::Float64, true),
        Field::new("window_start", time_type(), false),
        Field::new("window_end", time_type(), false),
        Field::new("window_time", time_type(), false),
    ]));
    let columns = vec![ExpandColumn::Input(2), ExpandColumn::WindowStart, ExpandColumn::WindowEnd, ExpandColumn::WindowTime];
    let make = |slide, size| {
        let rule = WindowRule::hop(slide, size, 0).unwrap();
        Chain::new(vec![Box::new(WindowExpand::new(rule, columns.clone(), Arc::clone(&schema)))])
    };
    let input =
        [Partition::new(0, 100, &[("ann", Some(7), Some(1.0)), ("ann", None, None), ("ann", Some(-1), None), ("ann", Some(1), Some(2.0))])];
    let hop = check_always(&|| make(5, 10), &input, false);
    assert_eq!(hop.rows, ["1.0 0 10 9", "1.0 5 15 14", "- -10 0 -1", "- -5 5 4", "2.0 -5 5 4", "2.0 0 10 9"]);
    assert_eq!(hop.others, ["p0@1 late"]);
    let tumble = check_always(&|| make(10, 10), &input, false);
    assert_eq!(tumble.rows, ["1.0 0 10 9", "- -10 0 -1", "2.0 0 10 9"]);
    let gaps = check_always(&|| make(10, 5), &input, false);
    assert_eq!(gaps.rows, ["2.0 0 5 4"]);
}

#[test]
fn a_state_that_does_not_fit_is_refused_and_not_believed() {
    let rule = WindowRule::hop(5, 10, 0).unwrap();
    let mut saved = StateWriter::default();
    let mut one = operator(rule, ONE, true);
    let mut out = Output::default();
    one.rows(Partition::new(0, 0, &[("ann", Some(3), Some(1.0))]).rows(), &mut out).unwrap();
    one.save(&mut saved).unwrap();
    assert!(one.state_bytes() > 0);
    for missing in ["mark", "groups"] {
        let parts = saved.parts.iter().filter(|(name, _)| name != missing).cloned().collect();
        assert!(operator(rule, ONE, true).restore(&StateReader::of(parts)).is_err(), "without {missing}");
    }
    let reader = StateReader::of(saved.parts);
    assert!(operator(rule, ONE, false).restore(&reader).is_err(), "another number of keys");
    assert!(operator(rule, ONE, true).restore(&reader).is_ok());
}

#[test]
fn what_an_idle_partition_brings_for_a_merged_window_that_has_closed_is_late() {
    let mut one = chain(WindowRule::hop(5, 10, 0).unwrap(), Scope::Merged, true);
    let mut out = Output::default();
    one.rows(Partition::new(0, 0, &[("ann", Some(3), Some(1.0)), ("ann", Some(12), Some(2.0))]).rows(), &mut out).unwrap();
    one.watermark(Timestamp(12), &mut out).unwrap();
    // By its own mark nothing has closed for partition 1: but [-5, 5) and [0, 10) are gone.
    one.rows(Partition::new(1, 0, &[("bob", Some(3), Some(3.0)), ("bob", Some(7), Some(4.0))]).rows(), &mut out).unwrap();
    assert_eq!(out.aside.iter().map(|aside| (aside.partition.0, aside.offset)).collect::<Vec<_>>(), [(1, 0)]);
    let before = out.rows.len();
    one.watermark(Timestamp::MAX, &mut out).unwrap();
    let ends: Vec<i64> = out.rows[before..].iter().map(|rows| rows.times[0] + 1).collect();
    let groups: Vec<usize> = out.rows[before..].iter().map(Rows::len).collect();
    assert_eq!((ends, groups), (vec![15, 20], vec![2, 1]));
}
