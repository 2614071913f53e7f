//! A rule over rows whose clock is wrong: what it tells, in both orders.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::{AlertRecord, Priority, Rule, RuleOperator, StepOrder, Terms};
use crate::record::PartitionId;
use crate::stream::{Operator, Output, Rows};
use crate::time::Timestamp;

const HOUR: i64 = 3_600_000;

/// Readings of one patient: (time, when heard, breach).
fn rows(readings: &[(i64, i64, bool)]) -> Rows {
    let schema = Arc::new(Schema::new(vec![
        Field::new("subject", DataType::Utf8, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("breach", DataType::Boolean, false),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(readings.iter().map(|_| Some("ann")).collect::<StringArray>()),
        Arc::new(readings.iter().map(|(at, ..)| Some(*at)).collect::<TimestampMillisecondArray>()),
        Arc::new(readings.iter().map(|(.., breach)| Some(*breach)).collect::<BooleanArray>()),
    ];
    Rows {
        batch: RecordBatch::try_new(schema, columns).unwrap(),
        partition: PartitionId(0),
        offsets: (0..readings.len() as i64).collect(),
        times: readings.iter().map(|(at, ..)| *at).collect(),
        before: vec![i64::MIN; readings.len()].into(),
        heard: Some(readings.iter().map(|(_, heard, _)| *heard).collect()),
        gone: false,
    }
}

/// What the rule tells of the readings, and behind them of the watermark at their latest believed time.
fn told(order: StepOrder, readings: &[(i64, i64, bool)]) -> Vec<String> {
    let rule = Rule {
        name: "low".to_owned(),
        version: 1,
        priority: Priority::High,
        terms: Terms { hold_ms: 0, clear_hold_ms: 0, max_gap_ms: 30_000, latch: false },
        order,
        notify: Vec::new(),
    };
    let rows = rows(readings);
    let mut operator = RuleOperator::new(rule, &rows.batch.schema()).unwrap();
    let mut out = Output::default();
    operator.rows(&rows, &mut out).unwrap();
    let believed = readings.iter().filter(|(at, heard, _)| at == heard).map(|(at, ..)| at + 1).max();
    operator.watermark(Timestamp(believed.unwrap_or(0)), &mut out).unwrap();
    let texts = out.rows.iter().flat_map(|rows| rows.batch.column(0).as_string::<i32>().iter().flatten());
    let records = texts.map(|text| serde_json::from_str::<AlertRecord>(text).unwrap());
    records.map(|r| format!("{:?} at {} by {}", r.state, r.ts, r.evidence.last().unwrap().ts).to_lowercase()).collect()
}

#[test]
fn a_reading_an_hour_ahead_steps_when_it_is_heard_and_the_patient_is_not_silenced() {
    let readings = [(1000, 1000, false), (HOUR, 2000, false), (3000, 3000, true), (4000, 4000, false)];
    let raised = ["active at 1970-01-01t00:00:03z by 1970-01-01t00:00:03z", "resolved at 1970-01-01t00:00:04z by 1970-01-01t00:00:03z"];
    for order in [StepOrder::Arrival, StepOrder::Watermark] {
        assert_eq!(told(order, &readings), raised, "{order:?}");
    }
}

#[test]
fn a_breach_ahead_of_the_clock_is_told_at_once_and_its_evidence_keeps_the_time_it_came_with() {
    for order in [StepOrder::Arrival, StepOrder::Watermark] {
        assert_eq!(told(order, &[(HOUR, 2000, true)]), ["active at 1970-01-01t00:00:02z by 1970-01-01t01:00:00z"], "{order:?}");
    }
}
