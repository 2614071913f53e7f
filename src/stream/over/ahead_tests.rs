//! Frames that reach behind their rows against their definition, under any cut, interleaving and restart.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::tests::{Row, by_definition, every, on_time, range, rows};
use super::*;
use crate::stream::doubles::{Column, Partition, Reading, check_always, reading_schema, readings};
use crate::stream::{Chain, Operator, Output};
use crate::time::Timestamp;

const DAY: i64 = 24 * 3_600_000;

/// Without the numbers of rows, which look at no frame.
fn calls(frame: OverFrame) -> Vec<(OverCall, DataType)> {
    let numbers = [OverFunction::RowNumber, OverFunction::Rank, OverFunction::DenseRank];
    every(frame).into_iter().filter(|(call, _)| !numbers.contains(&call.function)).collect()
}

fn operator(frame: OverFrame) -> Ahead {
    let (calls, types): (Vec<_>, Vec<_>) = calls(frame).into_iter().unzip();
    let mut fields: Vec<Field> = reading_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.extend(types.into_iter().enumerate().map(|(at, of)| Field::new(format!("f{at}"), of, true)));
    Ahead::new(AheadSpec { keys: vec![Arc::new(Column(0))], calls, schema: Arc::new(Schema::new(fields)) }).unwrap()
}

fn chain(frame: OverFrame) -> Chain {
    Chain::new(vec![Box::new(operator(frame))])
}

fn check_frame(frame: OverFrame, inputs: &[Vec<Reading>], delay: i64) {
    let partitions: Vec<Partition> = inputs.iter().enumerate().map(|(p, readings)| Partition::new(p as i32, delay, readings)).collect();
    let told = check_always(&|| chain(frame), &partitions, inputs.len() > 1);
    let all = on_time(inputs, delay);
    let mut expected: Vec<(&Row, Vec<Option<f64>>)> = all.iter().zip(by_definition(frame, &all)).collect();
    let mut found: Vec<&String> = told.rows.iter().collect();
    if let OverFrame::Rows { .. } = frame {
        // A row that waits for its own key's next may leave behind younger ones of other keys.
        found.sort_by_key(|line| line.split(' ').next().map(str::to_owned));
        expected.sort_by_key(|(row, _)| row.3);
    }
    assert_eq!(found.len(), expected.len());
    for (line, (row, answers)) in found.iter().zip(&expected) {
        assert!(line.starts_with(&format!("{} {} ", row.3, row.0)), "{line} and {row:?}");
        let cells: Vec<&str> = line.split(' ').skip(3).collect();
        let answers = answers.iter().enumerate().filter(|(at, _)| !(7..10).contains(at)).map(|(_, answer)| *answer);
        for (at, (cell, expected)) in cells.iter().zip(answers).enumerate() {
            let found = match *cell {
                "-" => None,
                key if at == 6 => Some(key.len() as f64),
                number => Some(number.parse::<f64>().unwrap()),
            };
            let same = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
                (found, expected) => found == expected,
            };
            assert!(same, "{frame:?}, function {at}: {found:?} and {expected:?} in {line}");
        }
    }
    assert_eq!(told.others.len(), inputs.iter().map(Vec::len).sum::<usize>() - all.len());
}

#[test]
fn frames_agree_with_their_definition_for_any_cut_interleaving_and_restart() {
    let frames =
        [range(7, -5), range(0, -9), range(-3, -9), range(30, -1), rows(1, -1), rows(0, -3), rows(-1, -1), rows(-2, -4), rows(5, -2)];
    for (seed, frame) in frames.into_iter().enumerate() {
        let input = |p: u64| readings(seed as u64 * 10 + p, 90, 4, 12);
        check_frame(frame, &[input(0)], 8);
        check_frame(frame, &[input(1), input(2), input(3)], 8);
    }
}

#[test]
fn many_times_alike_are_peers_in_a_range_and_not_in_rows() {
    // Steps of at most one make many rows of one key and time.
    for frame in [range(2, -2), range(-1, -2), rows(1, -2)] {
        check_frame(frame, &[readings(7, 150, 1, 3)], 4);
    }
}

#[test]
fn a_row_waits_until_the_watermark_has_passed_the_end_of_its_frame() {
    let mut one = operator(range(0, -10));
    let input = Partition::new(0, 0, &[("ann", Some(5), Some(1.0)), ("bob", Some(7), Some(3.0)), ("ann", Some(15), Some(2.0))]);
    one.rows(input.rows(), &mut Output::default()).unwrap();
    let due: Vec<Option<i64>> = [15, 16, 18, 26].iter().map(|now| one.due(Timestamp(*now)).map(|at| at.0)).collect();
    assert_eq!(due, [None, Some(16), Some(18), Some(26)]);
    let (mut marks, mut times) = (Vec::new(), Vec::new());
    for at in [15, 16, 18, 26] {
        let mut out = Output::default();
        one.watermark(Timestamp(at), &mut out).unwrap();
        marks.push(out.watermark.unwrap().0);
        times.push(out.rows.iter().flat_map(|rows| rows.times.to_vec()).collect::<Vec<i64>>());
    }
    assert_eq!(times, [vec![], vec![5], vec![7], vec![15]]);
    assert_eq!(marks, [5, 7, 15, 26]);
}

#[test]
fn a_key_that_is_silent_for_a_day_is_not_waited_for() {
    let a = |key, at: i64| (key, Some(at), Some(at as f64));
    let input = [Partition::new(0, 0, &[a("ann", 0), a("bob", 5), a("bob", DAY), a("ann", DAY + 1), a("bob", DAY + 5), a("ann", DAY + 7)])];
    let told = check_always(&|| chain(rows(1, -1)), &input, false);
    let counts = |key: &str| -> Vec<String> {
        told.rows.iter().filter(|row| row.starts_with(key)).map(|row| row.split(' ').nth(3).unwrap().to_owned()).collect()
    };
    assert_eq!(counts("ann"), ["1", "2", "2"], "what came before the silence is in no frame behind it");
    assert_eq!(counts("bob"), ["2", "3", "2"]);
}

#[test]
fn rows_that_have_left_hold_no_memory() {
    for frame in [range(5, -5), rows(2, -2)] {
        let bytes = |rows: i64| {
            let mut one = operator(frame);
            for from in (0..rows).step_by(100) {
                let readings: Vec<Reading> = (from..from + 100).map(|at| ("ann", Some(at), Some(1.5))).collect();
                let mut out = Output::default();
                one.rows(Partition::new(0, 0, &readings).rows(), &mut out).unwrap();
                one.watermark(Timestamp(from + 99), &mut out).unwrap();
            }
            one.state_bytes()
        };
        // Rows are dropped once there are many to drop.
        let (few, many) = (bytes(17_000), bytes(50_000));
        assert!(many < 2 * few, "{frame:?}: {few} bytes after 17,000 rows, {many} after 50,000");
    }
}

#[test]
fn frames_that_do_not_reach_ahead_or_have_no_beginning_are_refused() {
    for frame in [range(5, 0), rows(1, 0), OverFrame::Range { from_ms: None, to_ms: -5 }] {
        let (calls, _): (Vec<_>, Vec<_>) = calls(frame).into_iter().unzip();
        let fields: Vec<Field> = (0..calls.len()).map(|at| Field::new(format!("f{at}"), DataType::Float64, true)).collect();
        assert!(Ahead::new(AheadSpec { keys: Vec::new(), calls, schema: Arc::new(Schema::new(fields)) }).is_err(), "{frame:?}");
    }
}
