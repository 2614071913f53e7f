//! Frames against their definition, under any cut, interleaving and restart.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::stream::doubles::{Below, Column, Hundredth, Partition, Reading, Told, check_always, reading_schema, readings};
use crate::stream::{Chain, Expr, Operator, Output, StateReader, StateWriter};
use crate::time::Timestamp;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

pub(super) fn range(from: i64, to: i64) -> OverFrame {
    OverFrame::Range { from_ms: Some(from), to_ms: to }
}

pub(super) const fn rows(from: i64, to: i64) -> OverFrame {
    OverFrame::Rows { from: Some(from), to }
}

const ALL: OverFrame = OverFrame::Range { from_ms: None, to_ms: 0 };
const ALL_ROWS: OverFrame = OverFrame::Rows { from: None, to: 0 };

fn argument(column: usize) -> Option<OverArgument> {
    let of = if column == 0 { DataType::Utf8 } else { DataType::Float64 };
    Some(OverArgument { value: Arc::new(Column(column)), of })
}

pub(super) fn call(function: OverFunction, column: usize, frame: OverFrame) -> OverCall {
    OverCall { function, frame, argument: argument(column), filter: None, text: format!("{function:?}(value)") }
}

/// Every function over the value, and the least and greatest key.
pub(super) fn every(frame: OverFrame) -> Vec<(OverCall, DataType)> {
    let float = DataType::Float64;
    vec![
        (OverCall { argument: None, ..call(OverFunction::Count, 2, frame) }, DataType::Int64),
        (call(OverFunction::Count, 2, frame), DataType::Int64),
        (call(OverFunction::Min, 2, frame), float.clone()),
        (call(OverFunction::Max, 2, frame), float.clone()),
        (call(OverFunction::First, 2, frame), float.clone()),
        (call(OverFunction::Last, 2, frame), float.clone()),
        (call(OverFunction::Max, 0, frame), DataType::Utf8),
        (call(OverFunction::RowNumber, 2, frame), DataType::UInt64),
        (call(OverFunction::Rank, 2, frame), DataType::UInt64),
        (call(OverFunction::DenseRank, 2, frame), DataType::UInt64),
        (call(OverFunction::Sum, 2, frame), float.clone()),
        (call(OverFunction::Avg, 2, frame), float.clone()),
        (call(OverFunction::Variance { sample: true, root: false }, 2, frame), float.clone()),
        (call(OverFunction::Variance { sample: false, root: true }, 2, frame), float),
    ]
}

fn over(calls: Vec<(OverCall, DataType)>, expiry: Option<OverExpiry>) -> Over {
    over_for(calls, expiry, None)
}

fn over_for(calls: Vec<(OverCall, DataType)>, expiry: Option<OverExpiry>, ttl_ms: Option<i64>) -> Over {
    let (calls, types): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
    let mut fields: Vec<Field> = reading_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.extend(types.into_iter().enumerate().map(|(at, of)| Field::new(format!("f{at}"), of, true)));
    let mut keys: Vec<Arc<dyn Expr>> = vec![Arc::new(Column(0))];
    if expiry.is_some() {
        keys.push(Arc::new(Column(1)));
    }
    Over::new(OverSpec { keys, calls, expiry, ttl_ms, schema: Arc::new(Schema::new(fields)) }).unwrap()
}

fn chain(calls: &[(OverCall, DataType)]) -> Chain {
    Chain::new(vec![Box::new(over(calls.to_vec(), None))])
}

/// A row that is not late: time, partition, offset, key, value.
pub(super) type Row = (i64, i32, i64, &'static str, Option<f64>);

/// The rows on time, in order.
pub(super) fn on_time(inputs: &[Vec<Reading>], delay: i64) -> Vec<Row> {
    let mut all = Vec::new();
    for (partition, readings) in inputs.iter().enumerate() {
        let mut mark = i64::MIN;
        for (offset, (key, at, value)) in readings.iter().enumerate() {
            if let Some(at) = *at {
                if at >= mark {
                    all.push((at, partition as i32, offset as i64, *key, *value));
                }
                mark = mark.max(at - delay);
            }
        }
    }
    all.sort_by_key(|row| (row.0, row.1, row.2));
    all
}

/// What the functions of [`every`] answer, straight from the definition of a frame.
pub(super) fn by_definition(frame: OverFrame, all: &[Row]) -> Vec<Vec<Option<f64>>> {
    let mut answers = Vec::new();
    for (number, row) in all.iter().enumerate() {
        let own: Vec<(usize, &Row)> = all.iter().enumerate().filter(|(_, other)| other.3 == row.3).collect();
        let place = own.iter().position(|(at, _)| *at == number).unwrap();
        let inside: Vec<&Row> = match frame {
            OverFrame::Range { from_ms, to_ms } => {
                let from = from_ms.map_or(i64::MIN, |from| row.0 - from);
                own.iter().map(|(_, other)| *other).filter(|other| other.0 >= from && other.0 <= row.0 - to_ms).collect()
            }
            OverFrame::Rows { from, to } => {
                let inside = |at: i64| at.clamp(0, own.len() as i64) as usize;
                let (from, to) = (from.map_or(0, |from| inside(place as i64 - from)), inside(place as i64 + 1 - to));
                own[from.min(to)..to].iter().map(|(_, other)| *other).collect()
            }
        };
        let values: Vec<f64> = inside.iter().filter_map(|other| other.4).collect();
        let n = values.len() as f64;
        let some = |value: f64| (!values.is_empty()).then_some(value);
        let sum: f64 = values.iter().sum();
        let spread: f64 = values.iter().map(|value| (value - sum / n).powi(2)).sum();
        let earlier = own.iter().filter(|(_, other)| other.0 < row.0).count();
        let mut times: Vec<i64> = own[..=place].iter().map(|(_, other)| other.0).collect();
        times.dedup();
        answers.push(vec![
            Some(inside.len() as f64),
            Some(n),
            values.iter().copied().reduce(f64::min),
            values.iter().copied().reduce(f64::max),
            inside.first().and_then(|other| other.4),
            inside.last().and_then(|other| other.4),
            (!inside.is_empty()).then_some(row.3.len() as f64),
            Some(place as f64 + 1.0),
            Some(earlier as f64 + 1.0),
            Some(times.len() as f64),
            some(sum),
            some(sum / n),
            (values.len() > 1).then(|| spread / (n - 1.0)),
            some((spread / n).sqrt()),
        ]);
    }
    answers
}

/// The answers of a line, the least key by its length.
fn answers(line: &str) -> Vec<Option<f64>> {
    let cell = |(at, cell): (usize, &str)| match cell {
        "-" => None,
        key if at == 6 => Some(key.len() as f64),
        number => Some(number.parse().unwrap()),
    };
    line.split(' ').skip(3).enumerate().map(cell).collect()
}

fn check_frame(frame: OverFrame, inputs: &[Vec<Reading>], delay: i64) -> Told {
    check_frame_for(frame, None, inputs, delay)
}

/// The rows, each with its key's name made another one where the key was silent for longer than this: a frame that begins
/// anew is one of a new key.
fn begun_anew(all: &[Row], ttl_ms: Option<i64>) -> Vec<Row> {
    let mut last: std::collections::HashMap<&str, (i64, usize)> = std::collections::HashMap::new();
    let renamed = |row: &Row| {
        let (at, times) = *last.get(row.3).unwrap_or(&(row.0, 0));
        let times = times + usize::from(ttl_ms.is_some_and(|ttl| row.0 - at > ttl));
        last.insert(row.3, (row.0, times));
        let name: &'static str = format!("{}{}", row.3, "'".repeat(times)).leak();
        (row.0, row.1, row.2, name, row.4)
    };
    all.iter().map(renamed).collect()
}

fn check_frame_for(frame: OverFrame, ttl_ms: Option<i64>, inputs: &[Vec<Reading>], delay: i64) -> Told {
    let partitions: Vec<Partition> = inputs.iter().enumerate().map(|(p, readings)| Partition::new(p as i32, delay, readings)).collect();
    let told = check_always(&|| Chain::new(vec![Box::new(over_for(every(frame), None, ttl_ms))]), &partitions, inputs.len() > 1);
    let all = on_time(inputs, delay);
    assert_eq!(told.rows.len(), all.len());
    for ((line, row), mut expected) in told.rows.iter().zip(&all).zip(by_definition(frame, &begun_anew(&all, ttl_ms))) {
        // The length of the key's name, which the model has made longer.
        expected[6] = expected[6].map(|_| row.3.len() as f64);
        assert!(line.starts_with(&format!("{} {} ", row.3, row.0)), "{line} and {row:?}");
        let found = answers(line);
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let same = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
                (found, expected) => found == expected,
            };
            assert!(same, "{frame:?}, function {at}: {found:?} and {expected:?} in {line}");
        }
    }
    assert_eq!(told.others.len(), inputs.iter().map(Vec::len).sum::<usize>() - all.len());
    told
}

#[test]
fn frames_agree_with_their_definition_for_any_cut_interleaving_and_restart() {
    let frames =
        [range(0, 0), range(7, 0), range(40, 0), range(30, 5), range(9, 9), rows(0, 0), rows(3, 0), rows(5, 2), rows(1, 1), rows(40, 0)];
    for (seed, frame) in frames.into_iter().enumerate() {
        let input = |p: u64| readings(seed as u64 * 10 + p, 90, 4, 12);
        check_frame(frame, &[input(0)], 8);
        let told = check_frame(frame, &[input(1), input(2), input(3)], 8);
        assert!(told.others.iter().any(|line| line.ends_with("late")));
    }
}

#[test]
fn frames_without_a_beginning_agree_with_their_definition_too() {
    for (seed, frame) in [ALL, ALL_ROWS].into_iter().enumerate() {
        let input = |p: u64| readings(100 + seed as u64 * 10 + p, 90, 4, 12);
        check_frame(frame, &[input(0)], 8);
        check_frame(frame, &[input(1), input(2)], 8);
    }
}

#[test]
fn frames_without_a_beginning_begin_anew_once_a_key_was_silent_for_long_enough() {
    for (seed, (frame, ttl)) in [(ALL, 12), (ALL_ROWS, 12), (ALL, 0), (ALL_ROWS, 30)].into_iter().enumerate() {
        let input = |p: u64| readings(200 + seed as u64 * 10 + p, 120, 5, 9);
        let inputs = [input(0), input(1), input(2)];
        check_frame_for(frame, Some(ttl), &inputs[..1], 8);
        check_frame_for(frame, Some(ttl), &inputs[1..], 8);
        let all = on_time(&inputs[..1], 8);
        let anew = begun_anew(&all, Some(ttl));
        assert!(anew.iter().any(|row| row.3.contains('\'')), "some key was silent for long enough");
    }
    // Exactly so long is not longer; and frames with a beginning do not ask.
    let a = |at: i64, value: f64| ("ann", Some(at), Some(value));
    let lagging = OverFrame::Range { from_ms: None, to_ms: 5 };
    let calls = vec![
        (call(OverFunction::Sum, 2, lagging), DataType::Float64),
        (call(OverFunction::Sum, 2, ALL), DataType::Float64),
        (call(OverFunction::First, 2, ALL_ROWS), DataType::Float64),
        (call(OverFunction::RowNumber, 2, ALL), DataType::UInt64),
        (call(OverFunction::Sum, 2, range(100, 0)), DataType::Float64),
    ];
    let input = [Partition::new(0, 0, &[a(0, 1.0), a(10, 2.0), a(21, 4.0), a(21, 8.0), a(31, 16.0)])];
    let told = check_always(&|| Chain::new(vec![Box::new(over_for(calls.clone(), None, Some(10)))]), &input, false);
    assert_eq!(
        told.rows,
        [
            "ann 0 1.0 - 1.0 1.0 1 1.0",
            "ann 10 2.0 1.0 3.0 1.0 2 3.0",
            "ann 21 4.0 - 12.0 4.0 1 15.0",
            "ann 21 8.0 - 12.0 4.0 2 15.0",
            "ann 31 16.0 12.0 28.0 4.0 3 31.0"
        ]
    );
}

#[test]
fn many_times_alike_are_peers_in_a_range_and_not_in_rows() {
    // Steps of at most one make many rows of one key and time.
    for frame in [range(2, 0), range(2, 1), rows(2, 0), ALL, ALL_ROWS] {
        check_frame(frame, &[readings(7, 150, 1, 3)], 4);
    }
}

#[test]
fn a_row_waits_for_its_peers_until_the_watermark_has_passed_them() {
    let mut one = over(every(range(10, 0)), None);
    let mut out = Output::default();
    let input = Partition::new(0, 0, &[("ann", Some(5), Some(1.0)), ("ann", Some(5), Some(3.0)), ("ann", Some(6), Some(2.0))]);
    one.rows(input.rows(), &mut out).unwrap();
    one.watermark(Timestamp(5), &mut out).unwrap();
    assert!(out.rows.is_empty());
    let due: Vec<Option<i64>> = [5, 6, 7].iter().map(|now| one.due(Timestamp(*now)).map(|at| at.0)).collect();
    assert_eq!(due, [None, Some(6), Some(7)]);
    one.watermark(Timestamp(6), &mut out).unwrap();
    assert_eq!((out.rows.len(), out.rows[0].len()), (1, 2));
    let counts = out.rows[0].batch.column(3);
    assert_eq!(arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(counts).values().as_ref(), [2, 2]);
}

#[test]
fn a_filter_leaves_rows_out_of_the_frame_and_not_out_of_the_result() {
    let filter: Arc<dyn Expr> = Arc::new(Below(2, 5.0));
    let with = |of: OverCall| OverCall { filter: Some(Arc::clone(&filter)), ..of };
    let calls = vec![
        (with(OverCall { argument: None, ..call(OverFunction::Count, 2, rows(1, 0)) }), DataType::Int64),
        (with(call(OverFunction::Sum, 2, rows(1, 0))), DataType::Float64),
        (with(call(OverFunction::First, 2, rows(1, 0))), DataType::Float64),
    ];
    let a = |at: i64, value: Option<f64>| ("ann", Some(at), value);
    let input = [Partition::new(0, 0, &[a(1, Some(4.0)), a(2, Some(7.0)), a(3, None), a(4, Some(1.5))])];
    let told = check_always(&|| chain(&calls), &input, false);
    assert_eq!(told.rows, ["ann 1 4.0 1 4.0 4.0", "ann 2 7.0 1 4.0 4.0", "ann 3 - 0 - -", "ann 4 1.5 1 1.5 -"]);
}

#[test]
fn a_row_whose_argument_fails_goes_aside_alone_and_counts_in_no_frame() {
    let hundredth = OverArgument { value: Arc::new(Hundredth(2)), of: DataType::Float64 };
    let calls = vec![
        (OverCall { argument: Some(hundredth), ..call(OverFunction::Sum, 2, ALL) }, DataType::Float64),
        (OverCall { argument: None, ..call(OverFunction::Count, 2, ALL) }, DataType::Int64),
    ];
    let a = |at: i64, value: f64| ("ann", Some(at), Some(value));
    let input = [Partition::new(0, 100, &[a(0, 1.0), a(1, 0.0), a(1, 4.0), a(2, 0.0)])];
    let told = check_always(&|| chain(&calls), &input, false);
    assert_eq!(told.rows, ["ann 0 1.0 100.0 1", "ann 1 4.0 125.0 2"]);
    let failed = "could not evaluate 100 / value: division by zero";
    assert_eq!(told.others, [format!("p0@1 {failed}"), format!("p0@3 {failed}")]);
}

#[test]
fn rows_of_a_day_ago_are_out_of_reach_of_frames_that_count_rows() {
    let a = |at: i64, value: f64| ("ann", Some(at), Some(value));
    let calls = vec![(call(OverFunction::Sum, 2, rows(5, 0)), DataType::Float64), (call(OverFunction::Sum, 2, ALL), DataType::Float64)];
    let input = [Partition::new(0, 0, &[a(0, 1.0), a(DAY, 2.0), a(2 * DAY + 1, 4.0), ("bob", Some(4 * DAY), None), a(4 * DAY, 8.0)])];
    let told = check_always(&|| chain(&calls), &input, false);
    let sums: Vec<&str> = told.rows.iter().filter(|row| row.starts_with("ann")).map(|row| row.split_once(".0 ").unwrap().1).collect();
    assert_eq!(sums, ["1.0 1.0", "3.0 3.0", "4.0 7.0", "8.0 15.0"]);
}

/// Carries readings of many keys through, each key once, and answers the bytes held at the end.
fn held_after(calls: Vec<(OverCall, DataType)>, expiry: Option<OverExpiry>, keys: i64) -> usize {
    held_for(over(calls, expiry), keys)
}

fn held_for(mut one: Over, keys: i64) -> usize {
    let names: Vec<&'static str> = (0..keys).map(|key| &*format!("patient number {key}").leak()).collect();
    let mut out = Output::default();
    for (key, name) in names.into_iter().enumerate() {
        let at = key as i64 * 1000;
        one.rows(Partition::new(0, 0, &[(name, Some(at), Some(1.5))]).rows(), &mut out).unwrap();
        one.watermark(Timestamp(at), &mut out).unwrap();
        out = Output::default();
    }
    one.watermark(Timestamp(keys * 1000), &mut out).unwrap();
    one.state_bytes()
}

#[test]
fn a_key_that_does_not_come_again_holds_no_memory_once_its_frames_are_over() {
    let bounded = |keys| held_after(every(range(5000, 0)).into_iter().filter(|(call, _)| !is_number(call.function)).collect(), None, keys);
    let (few, many) = (bounded(300), bounded(3000));
    assert!(many < few + few / 4, "{few} bytes after 300 keys, {many} after 3000");
    // A number of all of a key's rows is never over, but where the key itself is.
    let counted = vec![(call(OverFunction::RowNumber, 2, ALL), DataType::UInt64)];
    let expiry = Some(OverExpiry { key: 1, plus_ms: 0 });
    assert!(held_after(counted.clone(), None, 3000) > 4 * held_after(counted.clone(), None, 300));
    let (few, many) = (held_after(counted.clone(), expiry, 300), held_after(counted, expiry, 3000));
    assert!(many < few + few / 4, "{few} bytes after 300 keys, {many} after 3000");
    // And with a time to live all functions let go of it.
    let lasts = |keys| held_for(over_for(every(ALL), None, Some(5000)), keys);
    let (few, many) = (lasts(300), lasts(3000));
    assert!(many < few + few / 4, "{few} bytes after 300 keys, {many} after 3000");
}

fn is_number(of: OverFunction) -> bool {
    matches!(of, OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank)
}

#[test]
fn keys_that_end_are_numbered_as_keys_that_do_not() {
    let counted = vec![(call(OverFunction::RowNumber, 2, ALL), DataType::UInt64)];
    let input = [Partition::new(0, 8, &readings(3, 200, 700, 3))];
    let ends = check_always(&|| Chain::new(vec![Box::new(over(counted.clone(), Some(OverExpiry { key: 1, plus_ms: 0 })))]), &input, false);
    let never =
        check_always(&|| Chain::new(vec![Box::new(over(counted.clone(), Some(OverExpiry { key: 1, plus_ms: DAY })))]), &input, false);
    assert_eq!(ends, never);
}

#[test]
fn a_state_of_other_functions_is_refused() {
    let mut one = chain(&every(range(10, 0)));
    let mut out = Output::default();
    one.rows(Partition::new(0, 0, &[("ann", Some(5), Some(1.0)), ("ann", Some(7), Some(2.0))]).rows(), &mut out).unwrap();
    one.watermark(Timestamp(6), &mut out).unwrap();
    let mut state = StateWriter::default();
    one.save(&mut state).unwrap();
    let reader = StateReader::of(state.parts);
    assert!(chain(&every(range(10, 0))[..3]).restore(&reader).is_err());
    assert!(chain(&every(range(10, 0))).restore(&reader).is_ok());
}

#[test]
fn a_frame_that_ends_before_it_begins_is_refused() {
    for frame in [range(5, 6), rows(1, 2)] {
        let mut fields: Vec<Field> = reading_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.push(Field::new("n", DataType::Int64, true));
        let calls = vec![call(OverFunction::Count, 2, frame)];
        assert!(
            Over::new(OverSpec { keys: Vec::new(), calls, expiry: None, ttl_ms: None, schema: Arc::new(Schema::new(fields)) }).is_err()
        );
    }
}
