//! Gaps against their definition, under any cut, interleaving and restart.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::stream::doubles::{Partition, Reading, check_always, readings, time_type};
use crate::stream::{Chain, Operator, Output};
use crate::time::Timestamp;

const DAY: i64 = 24 * 3_600_000;

fn operator(value: GapColumn, interval_ms: i64) -> GapFill {
    let schema = Schema::new(vec![
        Field::new("key", DataType::Utf8, true),
        Field::new("ts", time_type(), true),
        Field::new("value", DataType::Float64, true),
    ]);
    GapFill::new(GapSpec { columns: vec![GapColumn::Key, GapColumn::Time, value], interval_ms, schema: Arc::new(schema) }).unwrap()
}

fn chain(value: GapColumn, interval_ms: i64) -> Chain {
    Chain::new(vec![Box::new(operator(value, interval_ms))])
}

/// What leaves of rows that are on time, each key's rows in order.
fn by_definition(value: GapColumn, interval: i64, inputs: &[Vec<Reading>], delay: i64) -> Vec<(&'static str, i64, Option<f64>)> {
    let mut rows = Vec::new();
    for (partition, readings) in inputs.iter().enumerate() {
        let mut mark = i64::MIN;
        for (offset, (key, at, value)) in readings.iter().enumerate() {
            let Some(at) = *at else { continue };
            if at >= mark {
                rows.push((*key, at, partition, offset, *value));
            }
            mark = mark.max(at - delay);
        }
    }
    rows.sort_by_key(|row| (row.0, row.1, row.2, row.3));
    let mut all = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        if let Some(before) = number.checked_sub(1).map(|n| &rows[n]).filter(|before| before.0 == row.0) {
            let carried = rows[..number].iter().rev().take_while(|other| other.0 == row.0).find_map(|other| other.4);
            let mut at = before.1 + interval;
            while at < row.1 {
                let share = (at - before.1) as f64 / (row.1 - before.1) as f64;
                let line = before.4.zip(row.4).map(|(from, to)| from + (to - from) * share);
                all.push((
                    row.0,
                    at,
                    match value {
                        GapColumn::Locf => carried,
                        GapColumn::Interpolate => line,
                        _ => None,
                    },
                ));
                at += interval;
            }
        }
        all.push((row.0, row.1, row.4));
    }
    all
}

fn parsed(line: &str) -> (String, i64, Option<f64>) {
    let cells: Vec<&str> = line.split(' ').collect();
    (cells[0].to_owned(), cells[1].parse().unwrap(), cells[2].parse().ok())
}

#[test]
fn gaps_agree_with_their_definition_for_any_cut_interleaving_and_restart() {
    for (seed, value) in [GapColumn::Locf, GapColumn::Interpolate, GapColumn::Null].into_iter().enumerate() {
        for (interval, partitions) in [(3, 1), (10, 1), (5, 3)] {
            let inputs: Vec<Vec<Reading>> = (0..partitions).map(|p| readings(seed as u64 * 10 + p, 80, 6, 12)).collect();
            let stamped: Vec<Partition> = inputs.iter().enumerate().map(|(p, input)| Partition::new(p as i32, 8, input)).collect();
            let told = check_always(&|| chain(value, interval), &stamped, partitions > 1);
            let mut found: Vec<_> = told.rows.iter().map(|line| parsed(line)).collect();
            // Each key's rows are in order; those of different keys may leave in any.
            found.sort_by(|a, b| a.0.cmp(&b.0));
            let expected = by_definition(value, interval, &inputs, 8);
            assert!(expected.len() > found.len() / 2 && expected.len() > 100);
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!((found.0.as_str(), found.1), (expected.0, expected.1));
                let near = match (found.2, expected.2) {
                    (Some(found), Some(expected)) => (found - expected).abs() < 1e-9,
                    (found, expected) => found == expected,
                };
                assert!(near, "{value:?}: {found:?} and {expected:?}");
            }
        }
    }
}

#[test]
fn a_gap_is_filled_from_the_row_before_it_up_to_the_one_behind_it() {
    let input = [Partition::new(
        0,
        0,
        &[("ann", Some(0), Some(1.0)), ("bob", Some(5), None), ("ann", Some(30), Some(4.0)), ("ann", Some(45), None)],
    )];
    let told = check_always(&|| chain(GapColumn::Interpolate, 10), &input, false);
    assert_eq!(told.rows, ["ann 0 1.0", "bob 5 -", "ann 10 2.0", "ann 20 3.0", "ann 30 4.0", "ann 40 -", "ann 45 -"]);
    let told = check_always(&|| chain(GapColumn::Locf, 10), &input, false);
    assert_eq!(told.rows, ["ann 0 1.0", "bob 5 -", "ann 10 1.0", "ann 20 1.0", "ann 30 4.0", "ann 40 4.0", "ann 45 -"]);
}

#[test]
fn a_gap_of_more_than_a_day_is_left_open_and_what_lay_before_it_forgotten() {
    let hours = 6 * 3_600_000;
    let a = |at: i64, value| ("ann", Some(at), value);
    let input = [Partition::new(0, 0, &[a(0, Some(1.0)), a(DAY, None), a(2 * DAY + 1, None), a(2 * DAY + 1 + 2 * hours, None)])];
    let told = check_always(&|| chain(GapColumn::Locf, hours), &input, false);
    let cells: Vec<&str> = told.rows.iter().map(|row| row.rsplit(' ').next().unwrap()).collect();
    assert_eq!(cells, ["1.0", "1.0", "1.0", "1.0", "-", "-", "-", "-"]);
}

#[test]
fn the_watermark_waits_for_what_may_still_be_put_into_a_gap() {
    let mut one = operator(GapColumn::Locf, 10);
    let mut out = Output::default();
    one.rows(Partition::new(0, 0, &[("ann", Some(5), Some(1.0)), ("bob", Some(90), Some(2.0))]).rows(), &mut out).unwrap();
    let mut marks = Vec::new();
    for at in [6, 12, 80, 91, DAY + 6, DAY + 91] {
        one.watermark(Timestamp(at), &mut out).unwrap();
        marks.push(out.watermark.unwrap().0);
    }
    // 100,000 intervals of 10 ms are 1,000 s: then nobody waits for ann and bob any more.
    assert_eq!(marks, [6, 12, 15, 15, DAY + 6, DAY + 91]);
    assert!(one.state_bytes() > 0);
    one.watermark(Timestamp(DAY + 91), &mut out).unwrap();
}

#[test]
fn a_long_gap_leaves_in_many_batches() {
    let input = [Partition::new(0, 0, &[("ann", Some(0), Some(1.0)), ("ann", Some(50_000), Some(2.0))])];
    let told = check_always(&|| chain(GapColumn::Interpolate, 1), &input, false);
    assert_eq!(told.rows.len(), 50_001);
    assert_eq!(told.rows[25_000], "ann 25000 1.5");
}
