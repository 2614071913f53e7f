//! LEAD against its definition, under any cut, interleaving and restart.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::stream::doubles::{Column, Partition, Reading, check_always, reading_schema, readings};
use crate::stream::{Chain, Operator, Output};
use crate::time::Timestamp;

const DAY: i64 = 24 * 3_600_000;

fn operator(calls: &[(usize, bool)]) -> Lead {
    let mut fields: Vec<Field> = reading_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.extend((0..calls.len()).map(|at| Field::new(format!("f{at}"), DataType::Float64, true)));
    let call = |(n, default): &(usize, bool)| LeadCall {
        argument: OverArgument { value: Arc::new(Column(2)), of: DataType::Float64 },
        n: *n,
        default: default.then(|| Arc::new(Column(2)) as _),
    };
    let spec = LeadSpec { keys: vec![Arc::new(Column(0))], calls: calls.iter().map(call).collect(), schema: Arc::new(Schema::new(fields)) };
    Lead::new(spec).unwrap()
}

fn chain(calls: &[(usize, bool)]) -> Chain {
    Chain::new(vec![Box::new(operator(calls))])
}

/// The lines of a key's rows with what lies one and two rows ahead, the default being the row's own value.
fn by_definition(inputs: &[Vec<Reading>], delay: i64) -> Vec<String> {
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
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:?}"));
    let line = |number: usize| {
        let row = &rows[number];
        let ahead = |n: usize| rows.get(number + n).filter(|other| other.0 == row.0).map(|other| other.4);
        format!("{} {} {} {} {}", row.0, row.1, shown(row.4), shown(ahead(1).flatten()), shown(ahead(2).unwrap_or(row.4)))
    };
    (0..rows.len()).map(line).collect()
}

#[test]
fn lead_agrees_with_its_definition_for_any_cut_interleaving_and_restart() {
    for seed in 0..3 {
        for partitions in [1, 3] {
            let inputs: Vec<Vec<Reading>> = (0..partitions).map(|p| readings(seed * 10 + p, 80, 4, 12)).collect();
            let stamped: Vec<Partition> = inputs.iter().enumerate().map(|(p, input)| Partition::new(p as i32, 8, input)).collect();
            let told = check_always(&|| chain(&[(1, false), (2, true)]), &stamped, partitions > 1);
            let mut found = told.rows.clone();
            found.sort_by(|a, b| a.split(' ').next().cmp(&b.split(' ').next()));
            assert_eq!(found, by_definition(&inputs, 8));
        }
    }
}

#[test]
fn a_key_that_is_silent_for_a_day_is_not_waited_for() {
    let a = |key, at: i64| (key, Some(at), Some(at as f64));
    let input = [Partition::new(0, 0, &[a("ann", 0), a("bob", 5), a("bob", DAY), a("ann", DAY + 1), a("bob", DAY + 5), a("bob", DAY + 6)])];
    let told = check_always(&|| chain(&[(1, false)]), &input, false);
    let ann: Vec<&str> = told.rows.iter().filter(|row| row.starts_with("ann")).map(String::as_str).collect();
    assert_eq!(ann, ["ann 0 0.0 -", "ann 86400001 86400001.0 -"]);
    let bob: Vec<&str> = told.rows.iter().filter(|row| row.starts_with("bob")).map(|row| row.rsplit(' ').next().unwrap()).collect();
    assert_eq!(bob, ["86400000.0", "86400005.0", "86400006.0", "-"]);
}

#[test]
fn the_watermark_waits_for_the_oldest_row_that_waits() {
    let mut one = operator(&[(1, false)]);
    let mut out = Output::default();
    let input = Partition::new(0, 0, &[("ann", Some(5), Some(1.0)), ("bob", Some(6), Some(2.0)), ("ann", Some(20), Some(3.0))]);
    one.rows(input.rows(), &mut out).unwrap();
    let mut marks = Vec::new();
    for at in [5, 7, 19, 21, DAY + 6, DAY + 7, DAY + 21] {
        one.watermark(Timestamp(at), &mut out).unwrap();
        marks.push(out.watermark.unwrap().0);
    }
    assert_eq!(marks, [5, 5, 5, 6, 6, 20, DAY + 21]);
    let times: Vec<i64> = out.rows.iter().flat_map(|rows| rows.times.to_vec()).collect();
    assert_eq!(times, [5, 6, 20]);
    let mut two = operator(&[(1, false)]);
    two.rows(input.rows(), &mut Output::default()).unwrap();
    two.watermark(Timestamp(7), &mut Output::default()).unwrap();
    let due: Vec<Option<i64>> = [7, DAY, DAY + 6, DAY + 7].iter().map(|now| two.due(Timestamp(*now)).map(|at| at.0)).collect();
    assert_eq!(due, [None, Some(21), Some(DAY + 6), Some(DAY + 7)]);
}

#[test]
fn rows_that_have_left_hold_no_memory() {
    let bytes = |rows: i64| {
        let mut one = operator(&[(3, true)]);
        for at in 0..rows {
            let mut out = Output::default();
            one.rows(Partition::new(0, 0, &[("ann", Some(at), Some(1.5))]).rows(), &mut out).unwrap();
            one.watermark(Timestamp(at), &mut out).unwrap();
        }
        one.state_bytes()
    };
    // Rows are dropped once there are many to drop.
    let (few, many) = (bytes(17_000), bytes(50_000));
    assert!(many < 2 * few, "{few} bytes after 17,000 rows, {many} after 50,000");
}
