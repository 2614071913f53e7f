//! Queries as text, a few readings, and what comes out: whole, row by row, and saved and restored at every row.

mod again;
mod cuts;
mod frames;
mod gaps;
mod grouping;
mod joins;
mod patterns;
mod refused;
mod times;
mod updates;
mod windows;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use expect_test::{Expect, expect};

use super::*;
use crate::record::{PartitionId, TopicName};
use crate::sql::statement::Statement;
use crate::sql::{StreamDef, parse_script, parse_statement};
use crate::stream::{AheadJudge, Output, Stamper, StateReader, StateWriter};

/// A stream with a bit of every type.
fn vitals(partitions: i32) -> Source {
    let field = |name: &str, data_type, nullable| Field::new(name, data_type, nullable);
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let names = ["hr", "spo2", "rr", "sbp", "temp", "map"];
    let mut fields = vec![field("patient_id", DataType::Utf8, false), field("ward", DataType::Utf8, true), field("ts", time, false)];
    fields.extend(names.map(|name| field(name, DataType::Float64, true)));
    fields.extend([field("n", DataType::Int32, true), field("o2", DataType::Boolean, true), field("acvpu", DataType::Utf8, true)]);
    let mut source = Source::plain("vitals", TopicName::new("vitals").unwrap(), partitions, Arc::new(Schema::new(fields)));
    source.key = Some("patient_id".to_owned());
    source.time = Some("ts".to_owned());
    source.watermark = Some(Parser::new(&GenericDialect {}).try_with_sql("ts - INTERVAL '5' SECOND").unwrap().parse_expr().unwrap());
    source
}

fn sources(partitions: i32) -> impl Sources {
    move |name: &str| match name {
        "vitals" => Some(vitals(partitions)),
        "nokey" => Some(Source { name: "nokey".to_owned(), key: None, ..vitals(partitions) }),
        "untimed" => Some(Source { name: "untimed".to_owned(), time: None, watermark: None, ..vitals(partitions) }),
        "patient" => {
            Some(Source { name: "patient".to_owned(), is_table: true, primary_key: vec!["patient_id".to_owned()], ..vitals(partitions) })
        }
        "beds" => {
            Some(Source { name: "beds".to_owned(), is_table: true, primary_key: vec!["patient_id".to_owned()], ..vitals(partitions + 1) })
        }
        "labs" => Some(Source { name: "labs".to_owned(), ..vitals(partitions) }),
        "few" => Some(Source { name: "few".to_owned(), ..vitals(partitions + 1) }),
        _ => None,
    }
}

fn select(sql: &str) -> Result<Select, SqlError> {
    match parse_statement(sql)?.statement {
        Statement::Select(select) => Ok(*select),
        other => panic!("not a SELECT: {other:?}"),
    }
}

fn planned(sql: &str) -> Result<QueryPlan, SqlError> {
    plan(&select(&format!("{sql} EMIT CHANGES"))?, &sources(4), Purpose::ExactlyOnce)
}

/// Readings, one a line: `patient second column=value ..`; `@1` before it names another partition than 0.
fn batches(script: &str) -> Vec<(i32, RecordBatch)> {
    let schema = vitals(1).decoded;
    let line = |line: &str| {
        let mut words = line.split_whitespace().peekable();
        let partition = words.next_if(|w| w.starts_with('@')).map_or(0, |w| w[1..].parse().unwrap());
        let patient = words.next().unwrap();
        let second: f64 = words.next().unwrap().parse().unwrap();
        let values: Vec<(&str, &str)> = words.map(|w| w.split_once('=').unwrap()).collect();
        let columns = schema.fields().iter().map(|field| {
            let given = values.iter().find(|(name, _)| name == field.name()).map(|(_, value)| *value);
            match field.data_type() {
                DataType::Float64 => Arc::new(Float64Array::from(vec![given.map(|v| v.parse::<f64>().unwrap())])) as ArrayRef,
                DataType::Int32 => Arc::new(Int32Array::from(vec![given.map(|v| v.parse::<i32>().unwrap())])),
                DataType::Boolean => Arc::new(BooleanArray::from(vec![given.map(|v| v.parse::<bool>().unwrap())])),
                DataType::Timestamp(..) => Arc::new(TimestampMillisecondArray::from(vec![(second * 1000.0) as i64])),
                _ if field.name() == "patient_id" => Arc::new(StringArray::from(vec![patient])),
                _ => Arc::new(StringArray::from(vec![given])),
            }
        });
        (partition, RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap())
    };
    script.lines().map(str::trim).filter(|l| !l.is_empty()).map(line).collect()
}

/// How the same rows are cut and interrupted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cutting {
    Whole,
    Rows,
    SavedAtEveryRow,
}

fn run(plan: &QueryPlan, script: &str, cutting: Cutting) -> String {
    let rows = batches(script);
    let scope = match plan.placement {
        Placement::Partition => Scope::Partition(PartitionId(0)),
        Placement::Merged => Scope::Merged,
    };
    let mut chain = plan.chain(scope).unwrap();
    let partitions = rows.iter().map(|(p, _)| *p).max().unwrap_or(0) + 1;
    let mut stampers: Vec<Stamper> = (0..partitions).map(|p| Stamper::new(plan.inputs[0].time.clone(), PartitionId(p))).collect();
    let mut offsets = vec![0; partitions as usize];
    let mut out = Output::default();
    let mut from = 0;
    while from < rows.len() {
        let partition = rows[from].0;
        let len = if cutting == Cutting::Whole { rows[from..].iter().take_while(|(p, _)| *p == partition).count() } else { 1 };
        let batch = arrow::compute::concat_batches(rows[from].1.schema_ref(), rows[from..from + len].iter().map(|(_, b)| b)).unwrap();
        let offset = &mut offsets[partition as usize];
        let these: Vec<i64> = (*offset..*offset + len as i64).collect();
        *offset += len as i64;
        let stamper = &mut stampers[partition as usize];
        let stamped = stamper.stamp_batch(batch, these.into(), AheadJudge::Nobody, &mut out.aside).unwrap();
        chain.rows(&stamped, &mut out).unwrap();
        if cutting != Cutting::Whole {
            let mark = stampers.iter().map(Stamper::watermark).min().unwrap();
            chain.watermark(mark, &mut out).unwrap();
        }
        from += len;
        if cutting == Cutting::SavedAtEveryRow {
            let mut state = StateWriter::default();
            chain.save(&mut state).unwrap();
            chain = plan.chain(scope).unwrap();
            chain.restore(&StateReader::of(state.parts)).unwrap();
        }
    }
    chain.watermark(crate::time::Timestamp::MAX, &mut out).unwrap();
    let mut text = String::new();
    for rows in &out.rows {
        assert_eq!(rows.batch.schema(), plan.schema, "what comes out is what the plan says");
        let options = FormatOptions::default().with_null("-");
        let columns: Vec<_> = rows.batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for row in 0..rows.len() {
            let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string().replace("1970-01-01T", "")).collect();
            let _ = writeln!(text, "{}", cells.join(" | "));
        }
    }
    for late in &out.aside {
        let _ = writeln!(text, "{:?} {}", late.why, late.offset);
    }
    for failed in &out.failed {
        let _ = writeln!(text, "failed {}: {}", failed.offset, failed.reason);
    }
    text
}

#[allow(clippy::needless_pass_by_value, reason = "expect! reads best as a value")]
fn check(sql: &str, script: &str, expected: Expect) {
    let plan = planned(sql).unwrap_or_else(|e| panic!("{}", e.render(sql)));
    let whole = run(&plan, script, Cutting::Whole);
    for cutting in [Cutting::Rows, Cutting::SavedAtEveryRow] {
        assert_eq!(run(&plan, script, cutting), whole, "{cutting:?} of {sql}");
    }
    expected.assert_eq(&whole);
}

#[allow(clippy::needless_pass_by_value, reason = "expect! reads best as a value")]
fn check_plan(sql: &str, expected: Expect) {
    let plan = planned(sql).unwrap_or_else(|e| panic!("{}", e.render(sql)));
    expected.assert_eq(&plan.explain());
}

#[allow(clippy::needless_pass_by_value, reason = "expect! reads best as a value")]
fn check_refused(sql: &str, expected: Expect) {
    let error = planned(sql).expect_err(sql);
    expected.assert_eq(&format!("{} {error}\n", error.code));
}

const READINGS: &str = "
    p1 1 hr=80 spo2=97 n=1
    p1 2 hr=90 spo2=96 n=2
    p2 3 hr=60 n=3
    p1 3 hr=100 spo2=95 n=2
    p1 61 hr=70 spo2=99
    p2 62 hr=65 spo2=88
    p1 130 hr=75
";

#[test]
fn a_tumbling_window_aggregates_by_key() {
    check(
        "SELECT patient_id, window_start, window_end, count(*) AS n, avg(hr) AS hr, min(spo2) AS low, max(spo2) AS high, sum(n) AS total
         FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end",
        READINGS,
        expect![[r#"
            p1 | 00:00:00 | 00:01:00 | 3 | 90.0 | 95.0 | 97.0 | 5
            p2 | 00:00:00 | 00:01:00 | 1 | 60.0 | - | - | 3
            p1 | 00:01:00 | 00:02:00 | 1 | 70.0 | 99.0 | 99.0 | -
            p2 | 00:01:00 | 00:02:00 | 1 | 65.0 | 88.0 | 88.0 | -
            p1 | 00:02:00 | 00:03:00 | 1 | 75.0 | - | - | -
        "#]],
    );
}

#[test]
fn the_plan_of_a_window_reads_only_the_columns_it_needs() {
    check_plan(
        "SELECT patient_id, window_start, avg(hr) AS hr FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         WHERE hr > 0 GROUP BY patient_id, window_start, window_end HAVING avg(hr) > 60 AND window_start > '1970-01-01T00:00:00'",
        expect![[r#"
            stream   vitals (one task a partition): patient_id, ts, hr
            columns  patient_id, ts, hr
            keep     hr > 0
            window   TUMBLE 1 min by [patient_id]: avg(hr)
            columns  patient_id, window_start, avg(hr)
            keep     avg(hr) > 60 AND window_start > 0
            columns  patient_id, window_start, avg(hr) AS hr
            key      patient_id
        "#]],
    );
}

#[test]
fn a_row_that_comes_too_late_for_its_window_goes_aside() {
    check(
        "SELECT patient_id, window_end, count(*) AS n FROM TUMBLE(vitals, ts, INTERVAL '10 seconds') GROUP BY patient_id, window_start, window_end",
        "p1 1
         p1 14
         p1 9
         p1 15
         p1 9
         p1 12",
        expect![[r#"
            p1 | 00:00:10 | 2
            p1 | 00:00:20 | 3
            Late 4
        "#]],
    );
}

#[test]
fn a_hopping_window_counts_a_row_in_each_of_its_windows() {
    check(
        "SELECT patient_id, window_start, window_end, count(*) AS n, avg(hr) AS hr
         FROM TABLE(HOP(TABLE vitals, DESCRIPTOR(ts), INTERVAL '30' SECOND, INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end",
        READINGS,
        expect![[r#"
            p1 | 1969-12-31T23:59:30 | 00:00:30 | 3 | 90.0
            p2 | 1969-12-31T23:59:30 | 00:00:30 | 1 | 60.0
            p1 | 00:00:00 | 00:01:00 | 3 | 90.0
            p2 | 00:00:00 | 00:01:00 | 1 | 60.0
            p1 | 00:00:30 | 00:01:30 | 1 | 70.0
            p2 | 00:00:30 | 00:01:30 | 1 | 65.0
            p1 | 00:01:00 | 00:02:00 | 1 | 70.0
            p2 | 00:01:00 | 00:02:00 | 1 | 65.0
            p1 | 00:01:30 | 00:02:30 | 1 | 75.0
            p1 | 00:02:00 | 00:03:00 | 1 | 75.0
        "#]],
    );
}

#[test]
fn every_aggregate_of_the_shipped_queries_works_and_survives_a_restore() {
    check(
        "SELECT patient_id, window_end,
                count(hr) AS c, sum(hr) AS s, avg(hr) AS a, min(hr) AS lo, max(hr) AS hi, median(hr) AS med, stddev(hr) AS sd,
                first_value(hr ORDER BY ts) AS f, last_value(hr ORDER BY ts) AS l, last_value(ward ORDER BY ts) AS w,
                count(DISTINCT hr) AS cd, regr_slope(hr, CAST(CAST(ts AS BIGINT) AS DOUBLE)) AS slope,
                approx_percentile_cont(hr, 0.5) AS p50, approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY hr) AS p90, approx_median(hr) AS am
         FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end",
        "p1 1 hr=80 ward=a
         p1 3 hr=80 ward=c
         p1 2 hr=86 ward=b
         p2 5
         p2 6 hr=50
         p1 3 hr=81 ward=d",
        expect![[r#"
            p1 | 00:01:00 | 4 | 327.0 | 81.75 | 80.0 | 86.0 | 80.5 | 2.8722813232690143 | 80.0 | 81.0 | d | 3 | -0.00027272727272727274 | 80.5 | 84.5 | 80.5
            p2 | 00:01:00 | 1 | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 | - | - | 50.0 | - | 1 | - | 50.0 | 50.0 | 50.0
        "#]],
    );
}

#[test]
fn more_aggregates_work_too() {
    check(
        "SELECT window_end, count(DISTINCT patient_id) AS patients, bool_and(o2) AS every, bool_or(o2) AS some, array_agg(hr ORDER BY ts) AS list,
                string_agg(patient_id, ',' ORDER BY ts) AS names, approx_distinct(patient_id) AS about, var_pop(hr) AS var, corr(hr, spo2) AS corr, nth_value(hr, 2) AS second,
                sum(DISTINCT hr) AS sd, percentile_cont(hr, 0.25) AS q
         FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end",
        "p1 1 hr=80 o2=true spo2=90
         p1 3 hr=82 o2=true spo2=91
         p2 2 hr=84 o2=false spo2=95",
        expect![[r#"
            00:01:00 | 2 | false | true | [80.0, 84.0, 82.0] | p1,p2,p1 | 2 | 2.6666666666666665 | 0.944911182523068 | 82.0 | 246.0 | 81.0
        "#]],
    );
}

#[test]
fn filters_and_cases_inside_aggregates_work() {
    check(
        "SELECT patient_id, window_end, count(*) FILTER (WHERE hr > 75) AS high, sum(CASE WHEN spo2 < 97 THEN 1 ELSE 0 END) AS low,
                100.0 * count(spo2) / count(*) AS pct, last_value(spo2 ORDER BY ts) FILTER (WHERE spo2 IS NOT NULL) AS last
         FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end",
        READINGS,
        expect![[r#"
            p1 | 00:01:00 | 3 | 2 | 100.0 | 95.0
            p2 | 00:01:00 | 0 | 0 | 0.0 | -
            p1 | 00:02:00 | 0 | 0 | 100.0 | 99.0
            p2 | 00:02:00 | 0 | 1 | 100.0 | 88.0
            p1 | 00:03:00 | 0 | 0 | 0.0 | -
        "#]],
    );
}

#[test]
fn having_and_where_on_window_columns_keep_windows() {
    check(
        "SELECT patient_id, window_start FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         WHERE window_start >= '1970-01-01T00:01:00' AND hr < 1000 GROUP BY patient_id, window_start HAVING count(*) < 2 AND window_start < '1970-01-01T00:02:00'",
        READINGS,
        expect![[r#"
            p1 | 00:01:00
            p2 | 00:01:00
        "#]],
    );
}

#[test]
fn a_window_without_an_aggregate_gives_each_row_its_windows() {
    check(
        "SELECT patient_id, ts, window_start, window_time FROM TABLE(HOP(TABLE vitals, DESCRIPTOR(ts), INTERVAL '30' SECOND, INTERVAL '1' MINUTE)) WHERE hr = 80",
        READINGS,
        expect![[r#"
            p1 | 00:00:01 | 1969-12-31T23:59:30 | 00:00:29.999
            p1 | 00:00:01 | 00:00:00 | 00:00:59.999
        "#]],
    );
}

#[test]
fn windows_cascade_in_one_query() {
    check(
        "WITH minute AS (
            SELECT patient_id, window_start, window_end, window_time, avg(hr) AS hr FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
            GROUP BY patient_id, window_start, window_end, window_time)
         SELECT patient_id, window_start, window_end, count(*) AS minutes, avg(hr) AS hr
         FROM TABLE(TUMBLE(TABLE minute, DESCRIPTOR(window_time), INTERVAL '2' MINUTE)) GROUP BY patient_id, window_start, window_end",
        READINGS,
        expect![[r#"
            p1 | 00:00:00 | 00:02:00 | 2 | 80.0
            p2 | 00:00:00 | 00:02:00 | 2 | 62.5
            p1 | 00:02:00 | 00:04:00 | 1 | 75.0
        "#]],
    );
}

#[test]
fn keyed_functions_look_back_in_event_time() {
    check(
        "SELECT patient_id, ts, hr, lag(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS was, locf(spo2, INTERVAL '10' SECOND) AS spo2,
                held_for(hr > 75, INTERVAL '2' SECOND) AS held, hysteresis(hr, 90, 80) AS hyst
         FROM vitals WHERE hr IS NOT NULL",
        "p1 1 hr=80 spo2=97
         p1 3 hr=90
         p1 2 hr=85
         p2 2 hr=60
         p1 20 hr=70",
        expect![[r#"
            p1 | 00:00:01 | 80.0 | - | 97.0 | false | false
            p1 | 00:00:02 | 85.0 | 80.0 | 97.0 | false | false
            p2 | 00:00:02 | 60.0 | - | - | false | false
            p1 | 00:00:03 | 90.0 | 85.0 | 97.0 | true | true
            p1 | 00:00:20 | 70.0 | 90.0 | - | false | false
        "#]],
    );
}

#[test]
fn keyed_functions_chain_into_windows() {
    check(
        "WITH steps AS (SELECT patient_id, ts, hr, lag(hr, 1, 0.0) OVER (PARTITION BY patient_id ORDER BY ts) AS was FROM vitals),
              again AS (SELECT patient_id, ts, hr - was AS step, lag(hr - was) OVER (PARTITION BY patient_id ORDER BY ts) AS step_was FROM steps)
         SELECT patient_id, window_end, sum(step) AS steps, sum(step_was) AS before, count(*) AS n
         FROM TABLE(TUMBLE(TABLE again, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end",
        READINGS,
        expect![[r#"
            p1 | 00:01:00 | 100.0 | 90.0 | 3
            p2 | 00:01:00 | 60.0 | - | 1
            p1 | 00:02:00 | -30.0 | 10.0 | 1
            p2 | 00:02:00 | 5.0 | 60.0 | 1
            p1 | 00:03:00 | 5.0 | -30.0 | 1
        "#]],
    );
}

#[test]
fn silences_and_returns_are_told() {
    check(
        "SELECT patient_id AS subject, absent_since AS ts, absent AS breach FROM TABLE(ABSENT(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '30' SECOND))",
        "p1 1
         p2 2
         p2 20
         p2 45
         p1 50",
        expect![[r#"
            p1 | 00:00:31 | true
            p1 | 00:00:50 | false
            p2 | 00:01:15 | true
            p1 | 00:01:20 | true
        "#]],
    );
    check(
        "SELECT patient_id, last_ts, absent_since FROM TABLE(ABSENT(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '30' SECOND))",
        "p1 1
         p2 45
         p1 50",
        expect![[r#"
            p1 | 00:00:01 | 00:00:31
            p2 | 00:00:45 | 00:01:15
            p1 | 00:00:50 | 00:01:20
        "#]],
    );
}

#[test]
fn groups_without_the_key_merge_partitions_in_order() {
    check(
        "SELECT ward, window_end, count(DISTINCT patient_id) AS patients, last_value(hr ORDER BY ts) AS hr
         FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY ward, window_start, window_end",
        "p1 1 ward=a hr=80
         @1 p2 2 ward=a hr=70
         @1 p3 1 ward=b hr=60
         p1 2 ward=a hr=90
         p1 70 ward=a
         @1 p2 71 ward=a",
        expect![[r#"
            a | 00:01:00 | 2 | 70.0
            b | 00:01:00 | 1 | 60.0
            a | 00:02:00 | 2 | -
        "#]],
    );
}

#[test]
fn a_row_that_fails_goes_aside_alone_and_its_values_are_not_told() {
    check(
        "SELECT patient_id, CAST(ward AS DOUBLE) / 2 AS half, 10 / n AS tenth FROM vitals",
        "p1 1 ward=4 n=5
         p1 2 ward=secret n=5
         p1 3 ward=6 n=0
         p1 4 ward=8 n=2",
        expect![[r#"
            p1 | 2.0 | 2
            p1 | 4.0 | 5
            failed 1: could not evaluate ward / 2: a value that cannot be cast
            failed 2: could not evaluate 10 / n: division by zero
        "#]],
    );
    check(
        "SELECT CAST(n AS BIGINT) + 9223372036854775807 AS big FROM vitals",
        "p1 1 n=0
         p1 2 n=1",
        expect![[r#"
            9223372036854775807
            failed 1: could not evaluate n + 9223372036854775807
        "#]],
    );
}

#[test]
fn structs_are_read_by_the_name_of_a_field() {
    check(
        "WITH s AS (SELECT patient_id, named_struct('total', hr + 1, 'risk', ward) AS score FROM vitals)
         SELECT patient_id, score['total'] AS total, s.score.risk AS risk, score FROM s",
        "p1 1 hr=1 ward=a
         p2 2",
        expect![[r#"
            p1 | 2.0 | a | {total: 2.0, risk: a}
            p2 | - | - | {total: -, risk: -}
        "#]],
    );
}

#[test]
fn first_and_last_of_any_type_by_any_order_survive_a_restore() {
    check(
        "SELECT window_end, last_value(ward ORDER BY ward DESC, ts) AS a, first_value(o2 ORDER BY hr) AS b, last_value(n) AS c, first_value(n) IGNORE NULLS AS d,
                last_value(named_struct('hr', hr) ORDER BY ward) AS e, first_value(hr ORDER BY ts DESC) AS f, last_value(hr ORDER BY n) AS g
         FROM TABLE(HOP(TABLE vitals, DESCRIPTOR(ts), INTERVAL '30' SECOND, INTERVAL '1' MINUTE)) GROUP BY window_start, window_end",
        "p1 1 hr=1.5 ward=a o2=true
         p1 2 hr=0.5 ward=b n=4
         p1 2 hr=0.5 ward=b o2=false n=5
         p1 2 ward=a n=5
         p1 31 hr=3 n=1",
        expect![[r#"
            00:00:30 | a | - | 5 | 4 | {hr: 0.5} | 0.5 | 1.5
            00:01:00 | a | - | 1 | 4 | {hr: 3.0} | 3.0 | 1.5
            00:01:30 | - | - | 1 | 1 | {hr: 3.0} | 3.0 | 3.0
        "#]],
    );
}

#[test]
fn results_are_cast_to_the_columns_of_a_stream_that_is_there() {
    let target: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("who", DataType::Utf8, false),
        Field::new("note", DataType::Utf8, true),
        Field::new("rate", DataType::Int32, true),
    ]));
    let into = |sql: &str, listed: &[&str]| {
        let listed: Vec<Name> = listed.iter().map(|name| Name::new(*name)).collect();
        planned(sql)
            .unwrap()
            .into_columns(&target, &listed)
            .map(|plan| run(&plan, READINGS, Cutting::Rows) + &plan.key_columns.join(","))
            .unwrap_or_else(|e| e.to_string())
    };
    expect![[r#"
        p1 | - | 80
        p1 | - | 90
        p1 | - | 100
        who"#]]
    .assert_eq(&into("SELECT patient_id, hr FROM vitals WHERE hr > 75", &["who", "rate"]));
    expect![[r#"
        p1 | - | 100
        who"#]]
    .assert_eq(&into("SELECT patient_id, ward, hr FROM vitals WHERE hr > 99", &[]));
    expect!["the SELECT has 2 columns and 3 are written: list the columns: INSERT INTO s (a, b) SELECT .."]
        .assert_eq(&into("SELECT patient_id, hr FROM vitals", &[]));
    expect![[r#"column "who" is NOT NULL and nothing is written to it: add it to the SELECT list"#]]
        .assert_eq(&into("SELECT hr FROM vitals", &["rate"]));
    expect![[r#"no column "what""#]].assert_eq(&into("SELECT patient_id FROM vitals", &["what"]));
    expect![[r#""s" is STRUCT<a DOUBLE> and column "rate" is INT: cast it in the SELECT list"#]]
        .assert_eq(&into("SELECT patient_id, named_struct('a', hr) AS s FROM vitals", &["who", "rate"]));
}

#[test]
fn a_computed_column_can_be_the_event_time() {
    let schema = Schema::new(vec![Field::new("id", DataType::Utf8, false), Field::new("epoch_ms", DataType::Int64, false)]);
    let mut source = Source::plain("s", TopicName::new("s").unwrap(), 1, Arc::new(schema));
    let parse = |sql: &str| Parser::new(&GenericDialect {}).try_with_sql(sql).unwrap().parse_expr().unwrap();
    source.columns.insert(1, SourceColumn { name: "et".to_owned(), computed: Some(parse("to_timestamp_millis(epoch_ms)")) });
    source.time = Some("et".to_owned());
    source.watermark = Some(parse("et - INTERVAL '1' SECOND"));
    let sources = move |_: &str| Some(source.clone());
    let sql = "SELECT id, window_end, count(*) AS n FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(et), INTERVAL '1' MINUTE)) GROUP BY id, window_start, window_end EMIT CHANGES";
    let plan = plan(&select(sql).unwrap(), &sources, Purpose::ExactlyOnce).unwrap();
    expect![[r#"
        stream   s (one task a partition): id, et
        columns  id, to_timestamp_millis(epoch_ms) AS et
        window   TUMBLE 1 min by [id]: count(1)
        columns  id, window_end, count(1) AS n
        key      id
    "#]]
    .assert_eq(&plan.explain());
}

#[test]
fn every_shipped_query_can_be_planned() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("queries");
    let mut files: Vec<_> = std::fs::read_dir(&folder).map(|dir| dir.filter_map(|f| Some(f.ok()?.path())).collect()).unwrap_or_default();
    files.retain(|path| path.extension().is_some_and(|e| e == "sql"));
    files.sort();
    let mut known: Vec<Source> = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for parsed in parse_script(&text).unwrap_or_else(|e| panic!("{}: {}", file.display(), e.render(&text))) {
            if let Some(stream) = StreamDef::of(&parsed.statement) {
                known.push(stream.source(4));
                continue;
            }
            let select = match parsed.statement {
                Statement::CreateQuery(query) => query.select,
                Statement::CreateAlert(alert) => alert.select,
                other => panic!("{}: {other:?}", file.display()),
            };
            let sources = |name: &str| known.iter().find(|source| source.name == name).cloned();
            let plan = plan(&select, &sources, Purpose::ExactlyOnce).unwrap_or_else(|e| panic!("{}: {}", file.display(), e.render(&text)));
            assert!(!plan.explain().is_empty());
        }
    }
}
