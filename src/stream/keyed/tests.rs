//! The reorder buffer and the functions behind it, under any cut, interleaving and restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::stream::doubles::{Below, Column, Hundredth, PLAIN, Partition, check_always, reading_schema, readings, run};
use crate::stream::{Chain, Expr, Output, StateReader, StateWriter};
use crate::time::Timestamp;

fn value() -> Arc<dyn Expr> {
    Arc::new(Column(2))
}

fn chain(functions: Vec<(KeyedFunction, DataType)>) -> Chain {
    let (functions, types): (Vec<_>, Vec<_>) = functions.into_iter().unzip();
    let mut fields: Vec<Field> = reading_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.extend(types.into_iter().enumerate().map(|(at, of)| Field::new(format!("f{at}"), of, true)));
    let spec = KeyedSpec { keys: vec![Arc::new(Column(0))], functions, schema: Arc::new(Schema::new(fields)) };
    Chain::new(vec![Box::new(Keyed::new(spec).unwrap())])
}

fn lag(n: usize) -> (KeyedFunction, DataType) {
    (KeyedFunction::Lag { value: value(), n, default: None }, DataType::Float64)
}

fn every() -> Vec<(KeyedFunction, DataType)> {
    vec![
        lag(1),
        (KeyedFunction::Lag { value: Arc::new(Column(0)), n: 2, default: Some(Arc::new(Column(0))) }, DataType::Utf8),
        (KeyedFunction::HeldFor { condition: Arc::new(Below(2, 6.0)), interval_ms: 10, max_gap_ms: 15 }, DataType::Boolean),
        (KeyedFunction::Hysteresis { value: value(), enter: 2.0, exit: 6.0 }, DataType::Boolean),
        (KeyedFunction::Locf { value: value(), ttl_ms: 12 }, DataType::Float64),
        (KeyedFunction::TwaBelow { value: value(), limit: 5.0, max_gap_ms: 15 }, DataType::Float64),
        (KeyedFunction::RateOfChange { value: value(), interval_ms: 10 }, DataType::Float64),
    ]
}

#[test]
fn rows_leave_in_event_time_order_and_lag_looks_back_along_it() {
    let a = |at: i64| ("ann", Some(at), Some(at as f64));
    let input = [Partition::new(0, 5, &[a(3), ("bob", Some(2), Some(0.5)), a(1), a(2), a(9), a(3), a(4), ("ann", None, None)])];
    let told = check_always(&|| chain(vec![lag(1), lag(2)]), &input, false);
    // The reading at 3 comes behind the watermark 4 and is late; the one at 4 is not.
    assert_eq!(
        told.rows,
        ["ann 1 1.0 - -", "bob 2 0.5 - -", "ann 2 2.0 1.0 -", "ann 3 3.0 2.0 1.0", "ann 4 4.0 3.0 2.0", "ann 9 9.0 4.0 3.0"]
    );
    assert_eq!(told.others, ["p0@5 late", "p0@7 late"]);
}

#[test]
fn any_cut_any_interleaving_and_any_restart_give_the_same_answers() {
    for seed in 0..3 {
        let partition = |p: i32| Partition::new(p, 8, &readings(seed * 10 + p as u64, 80, 3, 12));
        check_always(&|| chain(every()), &[partition(0)], false);
        let merged = check_always(&|| chain(every()), &[partition(0), partition(1), partition(2)], true);
        assert!(merged.others.iter().any(|line| line.ends_with("late")));
    }
}

#[test]
fn locf_carries_a_value_forward_until_it_is_too_old() {
    let locf = vec![(KeyedFunction::Locf { value: value(), ttl_ms: 10 }, DataType::Float64)];
    let input = [Partition::new(
        0,
        0,
        &[
            ("ann", Some(0), None),
            ("ann", Some(1), Some(7.0)),
            ("bob", Some(2), None),
            ("ann", Some(11), None),
            ("ann", Some(12), None),
            ("ann", Some(13), Some(8.0)),
            ("ann", Some(14), None),
        ],
    )];
    let told = check_always(&|| chain(locf.clone()), &input, false);
    assert_eq!(told.rows, ["ann 0 - -", "ann 1 7.0 7.0", "bob 2 - -", "ann 11 - 7.0", "ann 12 - -", "ann 13 8.0 8.0", "ann 14 - 8.0"]);
}

#[test]
fn lag_gives_its_default_where_the_key_has_no_such_reading() {
    let lag = vec![(KeyedFunction::Lag { value: value(), n: 1, default: Some(value()) }, DataType::Float64)];
    let input = [Partition::new(
        0,
        0,
        &[("ann", Some(0), Some(1.0)), ("bob", Some(1), Some(2.0)), ("ann", Some(2), None), ("ann", Some(3), Some(4.0))],
    )];
    let told = check_always(&|| chain(lag.clone()), &input, false);
    assert_eq!(told.rows, ["ann 0 1.0 1.0", "bob 1 2.0 2.0", "ann 2 - 1.0", "ann 3 4.0 -"]);
}

#[test]
fn a_key_is_forgotten_after_a_day_of_event_time_whether_or_not_it_was_swept() {
    let day = 24 * 3_600_000;
    let input = [Partition::new(
        0,
        0,
        &[
            ("ann", Some(0), Some(1.0)),
            ("bob", Some(0), Some(2.0)),
            ("ann", Some(day), Some(3.0)),
            ("bob", Some(day + 1), Some(4.0)),
            ("ann", Some(2 * day + 1), Some(5.0)),
        ],
    )];
    let told = check_always(&|| chain(vec![lag(1)]), &input, false);
    let lags: Vec<&str> = told.rows.iter().map(|row| row.rsplit(' ').next().unwrap()).collect();
    assert_eq!(lags, ["-", "-", "1.0", "-", "-"]);
}

#[test]
fn a_row_whose_argument_fails_goes_aside_alone() {
    let lag = vec![(KeyedFunction::Lag { value: Arc::new(Hundredth(2)), n: 1, default: None }, DataType::Float64)];
    let input = [Partition::new(0, 0, &[("ann", Some(0), Some(1.0)), ("ann", Some(1), Some(0.0)), ("ann", Some(2), Some(4.0))])];
    let told = check_always(&|| chain(lag.clone()), &input, false);
    assert_eq!(told.rows, ["ann 0 1.0 -", "ann 2 4.0 100.0"]);
    assert_eq!(told.others, ["p0@1 could not evaluate 100 / value: division by zero"]);
}

#[test]
fn a_row_waits_until_the_watermark_has_passed_it() {
    let mut one = chain(vec![lag(1)]);
    let input = Partition::new(0, 0, &[("ann", Some(5), Some(1.0)), ("ann", Some(7), Some(2.0))]);
    let mut out = Output::default();
    one.rows(input.rows(), &mut out).unwrap();
    one.watermark(Timestamp(5), &mut out).unwrap();
    assert!(out.rows.is_empty());
    let due: Vec<Option<i64>> = [5, 6, 7, 8, 99].iter().map(|now| one.due(Timestamp(*now)).map(|at| at.0)).collect();
    assert_eq!(due, [None, Some(6), Some(6), Some(8), Some(8)]);
    one.watermark(Timestamp(6), &mut out).unwrap();
    assert_eq!(out.rows.iter().map(|rows| rows.len()).sum::<usize>(), 1);
    assert_eq!((out.rows[0].offsets[0], out.rows[0].times[0]), (0, 5));
    assert!(one.state_bytes() > 0);
}

#[test]
fn many_small_segments_are_merged_without_losing_order() {
    let all = readings(7, 400, 1, 100);
    let partitions = [Partition::new(0, 500, &all)];
    let told = check_always(&|| chain(vec![lag(1)]), &partitions, false);
    let times: Vec<i64> = told.rows.iter().map(|row| row.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    assert!(times.is_sorted());
    assert_eq!(told.rows.len() + told.others.len(), 400);
    // Each key's lag is its row before.
    let mut before = BTreeMap::new();
    for row in &told.rows {
        let cells: Vec<&str> = row.split(' ').collect();
        assert_eq!(cells[3], before.insert(cells[0], cells[2]).unwrap_or("-"));
    }
    assert_eq!(run(&|| chain(vec![lag(1)]), &partitions, PLAIN), told);
}

#[test]
fn a_state_of_other_functions_is_refused() {
    let mut one = chain(vec![lag(1)]);
    let mut out = Output::default();
    one.rows(Partition::new(0, 0, &[("ann", Some(5), Some(1.0)), ("ann", Some(7), Some(2.0))]).rows(), &mut out).unwrap();
    one.watermark(Timestamp(6), &mut out).unwrap();
    let mut state = StateWriter::default();
    one.save(&mut state).unwrap();
    let reader = StateReader::of(state.parts);
    assert!(chain(vec![lag(1), lag(2)]).restore(&reader).is_err());
    assert!(Chain::default().restore(&reader).is_err());
    assert!(chain(vec![lag(1)]).restore(&reader).is_ok());
}

#[test]
fn what_an_idle_partition_brings_behind_the_merged_watermark_is_late() {
    let mut one = chain(vec![lag(1)]);
    let mut out = Output::default();
    one.watermark(Timestamp(12), &mut out).unwrap();
    one.rows(Partition::new(1, 0, &[("bob", Some(11), Some(3.0)), ("bob", Some(12), Some(4.0))]).rows(), &mut out).unwrap();
    assert_eq!(out.aside.iter().map(|aside| aside.offset).collect::<Vec<_>>(), [0]);
    one.watermark(Timestamp::MAX, &mut out).unwrap();
    assert_eq!(out.rows.iter().map(|rows| rows.len()).sum::<usize>(), 1);
}
