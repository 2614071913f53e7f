//! Rankings against their definition, under any cut, interleaving and restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimestampMillisecondType};

use super::*;
use crate::record::PartitionId;
use crate::stream::doubles::{Column, Hundredth, Partition, Reading, check_always, reading_schema, readings};
use crate::stream::over::OverExpiry;
use crate::stream::{Chain, Expr, Operator, Output, Scope, StreamError};
use crate::time::Timestamp;

/// The end of the window of ten that a time lies in.
#[derive(Debug)]
struct WindowEnd;

impl Expr for WindowEnd {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, StreamError> {
        let times = batch.column(1).as_primitive::<TimestampMillisecondType>();
        let ends = times.iter().map(|at| at.map(|at| at - at.rem_euclid(10) + 10));
        Ok(Arc::new(ends.collect::<TimestampMillisecondArray>()))
    }
    fn text(&self) -> String {
        "window_end".to_owned()
    }
}

fn operator(scope: Scope, limit: Option<usize>, value: Arc<dyn Expr>, descending: bool) -> Rank {
    let mut fields: Vec<Field> = reading_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new("number", DataType::UInt64, false));
    Rank::new(RankSpec {
        scope,
        keys: vec![Arc::new(Column(0)), Arc::new(WindowEnd)],
        order: vec![RankOrder { value, of: DataType::Float64, descending, nulls_first: descending }],
        expiry: OverExpiry { key: 1, plus_ms: -1 },
        limit,
        schema: Arc::new(Schema::new(fields)),
    })
    .unwrap()
}

fn chain(scope: Scope, limit: Option<usize>) -> Chain {
    Chain::new(vec![Box::new(operator(scope, limit, Arc::new(Column(2)), true))])
}

/// The rows that leave, and how many are late.
fn by_definition(limit: usize, inputs: &[Vec<Reading>], delay: i64) -> (Vec<String>, usize) {
    let (mut groups, mut late): (BTreeMap<(i64, &str), Vec<_>>, usize) = Default::default();
    for (partition, readings) in inputs.iter().enumerate() {
        let mut mark = i64::MIN;
        for (offset, (key, at, value)) in readings.iter().enumerate() {
            let Some(at) = *at else {
                late += 1;
                continue;
            };
            let end = at - at.rem_euclid(10) + 10;
            if end > mark {
                groups.entry((end, *key)).or_default().push((*value, at, partition, offset));
            } else {
                late += 1;
            }
            mark = mark.max(at - delay);
        }
    }
    let mut lines = Vec::new();
    for ((_, key), mut rows) in groups {
        // NULLs first, then the greatest; then in order of time.
        rows.sort_by(|a, b| {
            let order = b.0.map_or(f64::INFINITY, |value| value).total_cmp(&a.0.map_or(f64::INFINITY, |value| value));
            order.then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3)))
        });
        for (number, (value, at, ..)) in rows.iter().take(limit).enumerate() {
            lines.push(format!("{key} {at} {} {}", value.map_or_else(|| "-".to_owned(), |v| format!("{v:?}")), number + 1));
        }
    }
    (lines, late)
}

#[test]
fn rankings_agree_with_their_definition_for_any_cut_interleaving_and_restart() {
    let mut seen_late = 0;
    for seed in 0..4 {
        for (limit, partitions) in [(None, 1), (Some(1), 1), (Some(2), 3), (None, 3)] {
            let inputs: Vec<Vec<Reading>> = (0..partitions).map(|p| readings(seed * 10 + p, 100, 2, 20)).collect();
            let stamped: Vec<Partition> = inputs.iter().enumerate().map(|(p, input)| Partition::new(p as i32, 4, input)).collect();
            let scope = if partitions == 1 { Scope::Partition(PartitionId(0)) } else { Scope::Merged };
            let told = check_always(&|| chain(scope, limit), &stamped, partitions > 1);
            let (expected, late) = by_definition(limit.unwrap_or(usize::MAX), &inputs, 4);
            assert_eq!(told.rows, expected, "seed {seed}, limit {limit:?}, {partitions} partitions");
            assert_eq!(told.others.len(), late);
            seen_late += late;
        }
    }
    assert!(seen_late > 20, "{seen_late}");
}

#[test]
fn a_partition_leaves_when_the_watermark_has_reached_its_end() {
    let mut one = operator(Scope::Merged, Some(1), Arc::new(Column(2)), true);
    let mut out = Output::default();
    one.rows(Partition::new(0, 50, &[("ann", Some(3), Some(1.0)), ("ann", Some(8), Some(2.0)), ("bob", Some(12), None)]).rows(), &mut out)
        .unwrap();
    one.watermark(Timestamp(9), &mut out).unwrap();
    assert!(out.rows.is_empty());
    let due: Vec<Option<i64>> = [9, 10, 19, 20].iter().map(|now| one.due(Timestamp(*now)).map(|at| at.0)).collect();
    assert_eq!(due, [None, Some(10), Some(10), Some(20)]);
    one.watermark(Timestamp(10), &mut out).unwrap();
    assert_eq!((out.rows.len(), out.rows[0].len(), out.rows[0].times[0]), (1, 1, 9));
    let before = one.state_bytes();
    one.watermark(Timestamp(20), &mut out).unwrap();
    assert_eq!(out.rows.len(), 2);
    assert!(one.state_bytes() < before);
}

#[test]
fn a_row_whose_order_fails_goes_aside_alone() {
    let make = || Chain::new(vec![Box::new(operator(Scope::Merged, None, Arc::new(Hundredth(2)), false)) as Box<dyn Operator>]);
    let a = |at: i64, value: f64| ("ann", Some(at), Some(value));
    let told = check_always(&make, &[Partition::new(0, 50, &[a(0, 1.0), a(1, 0.0), a(2, 4.0)])], false);
    assert_eq!(told.rows, ["ann 2 4.0 1", "ann 0 1.0 2"]);
    assert_eq!(told.others, ["p0@1 could not evaluate 100 / value: division by zero"]);
}

#[test]
fn only_the_wanted_rows_of_a_partition_are_held() {
    let held = |rows: i64| {
        let mut one = operator(Scope::Merged, Some(2), Arc::new(Column(2)), true);
        for number in 0..rows {
            // Each is greater than those before it, and so is wanted for a while.
            let input = Partition::new(0, 50, &[("ann", Some(number % 10), Some(number as f64))]);
            one.rows(input.rows(), &mut Output::default()).unwrap();
        }
        one.state_bytes()
    };
    let (few, many) = (held(600), held(6000));
    assert!(many < 2 * few, "{few} bytes after 600 rows, {many} after 6000");
}
