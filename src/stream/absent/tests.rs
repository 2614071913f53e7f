//! Silences and returns, under any cut, interleaving and restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::record::PartitionId;
use crate::stream::doubles::{Column, Partition, Reading, check_always, readings, time_type};
use crate::stream::{Chain, Output, Scope};
use crate::time::Timestamp;

const ONE: Scope = Scope::Partition(PartitionId(0));

fn chain(scope: Scope, returns: bool) -> Chain {
    let mut columns = vec![AbsentColumn::Key(0), AbsentColumn::LastTs, AbsentColumn::AbsentSince];
    let mut fields = vec![
        Field::new("key", DataType::Utf8, true),
        Field::new("last_ts", time_type(), false),
        Field::new("absent_since", time_type(), false),
    ];
    if returns {
        columns.extend([AbsentColumn::At, AbsentColumn::Absent]);
        fields.extend([Field::new("at", time_type(), false), Field::new("absent", DataType::Boolean, false)]);
    }
    let spec =
        AbsentSpec { scope, keys: vec![Arc::new(Column(0))], interval_ms: 30, returns, columns, schema: Arc::new(Schema::new(fields)) };
    Chain::new(vec![Box::new(Absent::new(spec).unwrap())])
}

fn told(delay: i64, returns: bool, readings: &[Reading]) -> (Vec<String>, Vec<String>) {
    let told = check_always(&|| chain(ONE, returns), &[Partition::new(0, delay, readings)], false);
    (told.rows, told.others)
}

fn at(key: &'static str, at: i64) -> Reading {
    (key, Some(at), None)
}

#[test]
fn a_silence_is_told_once_and_a_reading_exactly_one_interval_later_is_no_silence() {
    let (rows, others) =
        told(0, false, &[at("ann", 0), at("ann", 30), at("bob", 31), at("bob", 61), at("bob", 91), at("ann", 200), ("ann", None, None)]);
    // Bob at 61 is one interval behind ann's last, and does not pass it; bob at 91 does. The end closes all.
    assert_eq!(rows, ["ann 30 60", "bob 91 121", "ann 200 230"]);
    assert_eq!(others, ["p0@6 late"]);
}

#[test]
fn a_silence_within_one_batch_is_told_although_the_key_is_back_already() {
    // The reading at 40 arrives before the watermark has passed 30; the silence was there all the same.
    let (rows, _) = told(20, false, &[at("ann", 0), at("ann", 40), at("bob", 41)]);
    assert_eq!(rows, ["ann 0 30", "ann 40 70", "bob 41 71"]);
    // One that comes later and lies between undoes it, as long as the watermark has not passed 30.
    let (rows, _) = told(20, false, &[at("ann", 0), at("ann", 40), at("ann", 25), at("bob", 41)]);
    assert_eq!(rows, ["ann 40 70", "bob 41 71"]);
}

#[test]
fn a_return_is_told_with_the_reading_that_ends_the_silence() {
    let (rows, others) = told(0, true, &[at("ann", 0), at("bob", 40), at("ann", 50), at("ann", 60), at("bob", 100), at("ann", 101)]);
    assert_eq!(
        rows,
        [
            "ann 0 30 30 true",
            "ann 50 30 50 false",
            "bob 40 70 70 true",
            "bob 100 70 100 false",
            "ann 60 90 90 true",
            "ann 101 90 101 false",
            "bob 100 130 130 true",
            "ann 101 131 131 true",
        ]
    );
    assert_eq!(others, [""; 0]);
}

#[test]
fn a_reading_is_late_only_when_even_the_silence_behind_it_has_been_told() {
    // The watermark is 45 before each of ann's late ones.
    let (rows, others) = told(0, true, &[at("ann", 0), at("bob", 45), at("ann", 20), at("ann", 14), at("ann", 10)]);
    // At 20 she is back, though the reading is older than the silence it ends; 14 and 15 are out of reach of 45.
    assert_eq!(rows, ["ann 0 30 30 true", "ann 20 30 31 false", "ann 20 50 50 true", "bob 45 75 75 true"]);
    assert_eq!(others, ["p0@3 late", "p0@4 late"]);
}

#[test]
fn timeout_moves_just_behind_the_latest_silence_that_the_clock_has_passed() {
    let mut one = chain(ONE, false);
    let mut out = Output::default();
    one.rows(Partition::new(0, 0, &[at("ann", 0), at("bob", 5)]).rows(), &mut out).unwrap();
    let due: Vec<Option<i64>> = [30, 31, 35, 36, 99].iter().map(|now| one.due(Timestamp(*now)).map(|at| at.0)).collect();
    assert_eq!(due, [None, Some(31), Some(31), Some(36), Some(36)]);
    one.watermark(Timestamp(36), &mut out).unwrap();
    assert_eq!(out.rows.iter().map(|rows| rows.len()).sum::<usize>(), 2);
    assert_eq!(one.due(Timestamp(99)), None);
}

#[test]
fn any_cut_any_interleaving_and_any_restart_give_the_same_silences() {
    for seed in 0..3 {
        for returns in [false, true] {
            let partition = |p: i32| Partition::new(p, 8, &readings(seed * 10 + p as u64, 80, 20, 30));
            check_always(&|| chain(ONE, returns), &[partition(0)], false);
            let merged = check_always(&|| chain(Scope::Merged, returns), &[partition(0), partition(1), partition(2)], true);
            assert!(!merged.rows.is_empty());
        }
    }
}

#[test]
fn over_merged_partitions_silences_are_the_gaps_between_the_readings_that_were_on_time() {
    for seed in 0..6 {
        let partitions: Vec<Partition> = (0..3).map(|p| Partition::new(p, 8, &readings(seed * 10 + p as u64, 60, 60, 12))).collect();
        let told = check_always(&|| chain(Scope::Merged, false), &partitions, true);
        let mut heard = BTreeMap::<&str, Vec<i64>>::new();
        for (p, partition) in partitions.iter().enumerate() {
            let all = readings(seed * 10 + p as u64, 60, 60, 12);
            for (row, (key, at, _)) in all.iter().enumerate() {
                if let Some(at) = at.filter(|at| *at >= partition.rows().before[row]) {
                    heard.entry(key).or_default().push(at);
                }
            }
        }
        let mut expected = Vec::new();
        for (key, times) in &mut heard {
            times.sort_unstable();
            let ends = times.windows(2).filter(|pair| pair[1] - pair[0] > 30).map(|pair| pair[0]);
            expected.extend(ends.chain(times.last().copied()).map(|last| (last + 30, format!("{key} {last} {}", last + 30))));
        }
        expected.sort();
        assert_eq!(told.rows, expected.into_iter().map(|(_, row)| row).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn a_key_that_returns_after_more_than_thirty_days_is_as_new() {
    let day = 86_400_000;
    let (rows, _) = told(0, true, &[at("ann", 0), at("bob", 30 * day), at("ann", 30 * day)]);
    assert_eq!(rows[1], format!("ann {} 30 {} false", 30 * day, 30 * day));
    let (rows, _) = told(0, true, &[at("ann", 0), at("bob", 30 * day + 1), at("ann", 30 * day + 1)]);
    assert_eq!(rows.iter().filter(|row| row.ends_with("false")).count(), 0);
}
