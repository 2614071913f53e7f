//! Aggregates over frames of a key's rows, and the numbers of rows.

use expect_test::expect;

use super::{READINGS, check, check_plan, check_refused, planned, sql_type};

#[test]
fn a_frame_of_time_slides_along_with_the_rows() {
    check(
        "SELECT patient_id, ts, avg(hr) OVER w AS mean, count(*) OVER w AS n, min(spo2) OVER w AS low, sum(n) OVER w AS total
         FROM vitals WINDOW w AS (PARTITION BY patient_id ORDER BY ts RANGE BETWEEN INTERVAL '1' MINUTE PRECEDING AND CURRENT ROW)",
        READINGS,
        expect![[r#"
            p1 | 00:00:01 | 80.0 | 1 | 97.0 | 1
            p1 | 00:00:02 | 85.0 | 2 | 96.0 | 3
            p2 | 00:00:03 | 60.0 | 1 | - | 3
            p1 | 00:00:03 | 90.0 | 3 | 95.0 | 5
            p1 | 00:01:01 | 85.0 | 4 | 95.0 | 5
            p2 | 00:01:02 | 62.5 | 2 | 88.0 | 3
            p1 | 00:02:10 | 75.0 | 1 | - | -
        "#]],
    );
}

#[test]
fn a_frame_of_rows_counts_rows_and_one_without_a_beginning_all_of_them() {
    check(
        "SELECT patient_id, hr, sum(hr) OVER (PARTITION BY patient_id ORDER BY ts ROWS 1 PRECEDING) AS two,
                max(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS most,
                first_value(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS first,
                first_value(acvpu) OVER (PARTITION BY patient_id ORDER BY ts ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING) AS before,
                stddev(hr) OVER (PARTITION BY patient_id ORDER BY ts ROWS UNBOUNDED PRECEDING) AS sd,
                lag(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS was,
                row_number() OVER (PARTITION BY patient_id ORDER BY ts) AS number
         FROM vitals",
        "p1 1 hr=80 acvpu=A
         p1 2 hr=90 acvpu=V
         p2 3 hr=60
         p1 2.5 hr=85
         p1 4 acvpu=P",
        expect![[r#"
            p1 | 80.0 | 80.0 | 80.0 | 80.0 | - | - | - | 1
            p1 | 90.0 | 170.0 | 90.0 | 80.0 | A | 7.0710678118654755 | 80.0 | 2
            p1 | 85.0 | 175.0 | 90.0 | 80.0 | A | 5.0 | 90.0 | 3
            p2 | 60.0 | 60.0 | 60.0 | 60.0 | - | - | - | 1
            p1 | - | 85.0 | 90.0 | 80.0 | V | 5.0 | 85.0 | 4
        "#]],
    );
}

#[test]
fn peers_count_for_one_another_in_a_range() {
    check(
        "SELECT patient_id, hr, sum(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS total, rank() OVER (PARTITION BY patient_id ORDER BY ts) AS place,
                count(hr) FILTER (WHERE hr > 80) OVER (PARTITION BY patient_id ORDER BY ts RANGE CURRENT ROW) AS high
         FROM vitals",
        "p1 1 hr=80
         p1 1 hr=90
         p1 2 hr=100
         p1 2
         p1 9 hr=1
         p1 3 hr=7",
        expect![[r#"
            p1 | 80.0 | 170.0 | 1 | 1
            p1 | 90.0 | 170.0 | 1 | 1
            p1 | 100.0 | 270.0 | 3 | 1
            p1 | - | 270.0 | 3 | 1
            p1 | 1.0 | 271.0 | 5 | 0
            Late 5
        "#]],
    );
}

#[test]
fn values_of_any_type_may_be_framed() {
    check(
        "SELECT max(ts) OVER w AS t, min(acvpu) OVER w AS a, max(o2) OVER w AS o, min(n) OVER w AS n, last_value(ts) OVER w AS l,
                sum(CAST(hr AS DECIMAL(10, 2))) OVER w AS s, avg(CAST(hr AS DECIMAL(10, 2))) OVER w AS m, max(CAST(hr AS DECIMAL(10, 2))) OVER w AS d,
                sum(CAST(spo2 AS REAL)) OVER w AS r, max(CAST(spo2 AS REAL)) OVER w AS x, var_pop(n) OVER w AS v, avg(n) OVER w AS i,
                min(CAST(ts AS DATE)) OVER w AS day, max(ward) OVER (PARTITION BY patient_id ORDER BY ts) AS ward
         FROM vitals WINDOW w AS (PARTITION BY patient_id ORDER BY ts ROWS 1 PRECEDING)",
        "p1 1 hr=80.25 spo2=97.5 acvpu=V n=3 o2=false ward=b
         p1 2 hr=80.5 spo2=96.25 acvpu=A n=4 ward=c
         p1 3 acvpu=P o2=true ward=a
         p1 4",
        expect![[r#"
            00:00:01 | V | false | 3 | 00:00:01 | 80.25 | 80.250000 | 80.25 | 97.5 | 97.5 | 0.0 | 3.0 | 1970-01-01 | b
            00:00:02 | A | false | 3 | 00:00:02 | 160.75 | 80.375000 | 80.50 | 193.75 | 97.5 | 0.25 | 3.5 | 1970-01-01 | c
            00:00:03 | A | true | 4 | 00:00:03 | 80.50 | 80.500000 | 80.50 | 96.25 | 96.25 | 0.0 | 4.0 | 1970-01-01 | c
            00:00:04 | P | true | - | 00:00:04 | - | - | - | - | - | - | - | 1970-01-01 | c
        "#]],
    );
}

#[test]
fn the_plan_says_which_frames_are_followed() {
    check_plan(
        "SELECT patient_id, avg(hr) OVER (PARTITION BY patient_id ORDER BY ts RANGE INTERVAL '5' MINUTE PRECEDING) AS a,
                count(*) FILTER (WHERE hr > 80) OVER (PARTITION BY patient_id ORDER BY ts ROWS BETWEEN 9 PRECEDING AND 1 PRECEDING) AS n
         FROM vitals",
        expect![[r#"
            stream   vitals (one task a partition): patient_id, ts, hr
            columns  patient_id, ts, hr
            over     [patient_id] by time: avg(hr) over 5 min, count(1) where hr > 80 over 9 to 1 rows before
            columns  patient_id, avg(hr) PARTITION BY [patient_id] ORDER BY [ts ASC NULLS LAST] RANGE BETWEEN 5 MINUTE PRECEDING AND CURRENT ROW AS a, count(*) FILTER (WHERE hr > Int64(80)) PARTITION BY [patient_id] ORDER BY [ts ASC NULLS LAST] ROWS BETWEEN 9 PRECEDING AND 1 PRECEDING AS n
            key      patient_id
        "#]],
    );
}

#[test]
fn the_first_readings_of_a_key_are_kept_and_those_alike_once() {
    check_plan(
        "SELECT patient_id, ts, hr FROM vitals QUALIFY row_number() OVER (PARTITION BY patient_id, ts ORDER BY ts) = 1",
        expect![[r#"
            stream   vitals (one task a partition): patient_id, ts, hr
            columns  patient_id, ts, hr
            over     [patient_id, ts] by time, each until ts: row_number()
            keep     row_number() PARTITION BY [patient_id, ts] ORDER BY [ts ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW = 1
            columns  patient_id, ts, hr
            key      patient_id, ts
        "#]],
    );
    check(
        "SELECT patient_id, ts, hr FROM vitals QUALIFY row_number() OVER (PARTITION BY patient_id, ts ORDER BY ts) = 1",
        "p1 1 hr=80
         p1 1 hr=80
         p1 2 hr=90
         p2 2 hr=60
         p1 2 hr=91",
        expect![[r#"
            p1 | 00:00:01 | 80.0
            p1 | 00:00:02 | 90.0
            p2 | 00:00:02 | 60.0
        "#]],
    );
    check(
        "SELECT patient_id, ts, hr FROM vitals QUALIFY row_number() OVER (PARTITION BY patient_id ORDER BY ts) <= 2",
        READINGS,
        expect![[r#"
            p1 | 00:00:01 | 80.0
            p1 | 00:00:02 | 90.0
            p2 | 00:00:03 | 60.0
            p2 | 00:01:02 | 65.0
        "#]],
    );
}

#[test]
fn the_number_of_a_row_is_a_bigint() {
    let plan = planned(
        "SELECT patient_id, row_number() OVER w AS n, rank() OVER w AS r, dense_rank() OVER w AS d
         FROM vitals WINDOW w AS (PARTITION BY patient_id ORDER BY ts)",
    )
    .unwrap();
    let types: Vec<String> = plan.schema.fields().iter().map(|field| sql_type(field.data_type())).collect();
    assert_eq!(types, ["VARCHAR", "BIGINT", "BIGINT", "BIGINT"]);
    assert_eq!(plan.key_columns, ["patient_id"]);
}

#[test]
fn rows_that_left_with_their_window_carry_its_time_alone() {
    let first = |rest: &str| {
        format!(
            "SELECT patient_id, {rest} FROM (SELECT patient_id, ts, hr, window_start, window_end FROM
               TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
               QUALIFY row_number() OVER (PARTITION BY patient_id, window_start, window_end ORDER BY hr DESC) = 1)"
        )
    };
    check(
        &first("window_end, hr - lag(hr) OVER (PARTITION BY patient_id ORDER BY window_end) AS change"),
        READINGS,
        expect![[r#"
        p1 | 00:01:00 | -
        p2 | 00:01:00 | -
        p1 | 00:02:00 | -30.0
        p2 | 00:02:00 | 5.0
        p1 | 00:03:00 | 5.0
    "#]],
    );
    check_refused(
        &first("lag(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS before"),
        expect![[r#"
            SQL-0021 "ts" is not the event time of "vitals": its rows carry another time by then: behind a join the left side's, behind a ranking that of the window in its PARTITION BY
        "#]],
    );
    check_refused(
        &first("row_number() OVER (PARTITION BY ts ORDER BY hr) AS place"),
        expect![[r#"
            SQL-0021 ROW_NUMBER() in another order than that of the event time, over partitions without an end, is not supported over a stream: keep the first few up to date, with QUALIFY ROW_NUMBER() OVER (..) <= 3 and nothing but conditions and columns above it; or add window_start, window_end or the event time to its PARTITION BY; or ORDER BY the event time
        "#]],
    );
}

#[test]
fn a_frame_may_reach_behind_its_row() {
    check(
        "SELECT patient_id, ts, hr, max(hr) OVER (PARTITION BY patient_id ORDER BY ts ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS around,
           count(*) OVER (PARTITION BY patient_id ORDER BY ts RANGE BETWEEN CURRENT ROW AND INTERVAL '2' SECOND FOLLOWING) AS soon,
           sum(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS so_far
         FROM vitals",
        READINGS,
        expect![[r#"
            p1 | 00:00:01 | 80.0 | 90.0 | 3 | 80.0
            p1 | 00:00:02 | 90.0 | 100.0 | 2 | 170.0
            p2 | 00:00:03 | 60.0 | 65.0 | 1 | 60.0
            p1 | 00:00:03 | 100.0 | 100.0 | 1 | 270.0
            p1 | 00:01:01 | 70.0 | 100.0 | 1 | 340.0
            p2 | 00:01:02 | 65.0 | 65.0 | 1 | 125.0
            p1 | 00:02:10 | 75.0 | 75.0 | 1 | 415.0
        "#]],
    );
    check_plan(
        "SELECT patient_id, avg(hr) OVER (PARTITION BY patient_id ORDER BY ts
           RANGE BETWEEN INTERVAL '1' MINUTE FOLLOWING AND INTERVAL '5' MINUTE FOLLOWING) AS later,
           first_value(hr) OVER (PARTITION BY patient_id ORDER BY ts ROWS BETWEEN 2 PRECEDING AND 3 FOLLOWING) AS first
         FROM vitals",
        expect![[r#"
            stream   vitals (one task a partition): patient_id, ts, hr
            columns  patient_id, ts, hr
            around   [patient_id] by time: avg(hr) over 1 min behind to 5 min behind
            around   [patient_id] by time: first_value(hr) over rows 2 before to 3 behind
            columns  patient_id, avg(hr) PARTITION BY [patient_id] ORDER BY [ts ASC NULLS LAST] RANGE BETWEEN 1 MINUTE FOLLOWING AND 5 MINUTE FOLLOWING AS later, first_value(hr) PARTITION BY [patient_id] ORDER BY [ts ASC NULLS LAST] ROWS BETWEEN 2 PRECEDING AND 3 FOLLOWING AS first
            key      patient_id
        "#]],
    );
}

#[test]
fn an_aggregate_of_windows_may_be_framed_again() {
    check(
        "SELECT patient_id, window_end, n, sum(n) OVER (PARTITION BY patient_id ORDER BY window_time ROWS 1 PRECEDING) AS two FROM
           (SELECT patient_id, window_end, window_time, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
            GROUP BY patient_id, window_start, window_end, window_time)",
        READINGS,
        expect![[r#"
            p1 | 00:01:00 | 3 | 3
            p2 | 00:01:00 | 1 | 1
            p1 | 00:02:00 | 1 | 4
            p2 | 00:02:00 | 1 | 2
            p1 | 00:03:00 | 1 | 2
        "#]],
    );
}

#[test]
fn a_sum_that_does_not_fit_fails_its_row_alone() {
    check(
        "SELECT patient_id, ts, sum(9223372036854775807 - n) OVER (PARTITION BY patient_id ORDER BY ts ROWS 1 PRECEDING) AS s FROM vitals",
        "p1 1 n=0
         p1 2
         p1 3 n=1
         p1 4 n=2
         p1 5
         p1 6 n=3",
        expect![[r#"
            p1 | 00:00:01 | 9223372036854775807
            p1 | 00:00:02 | 9223372036854775807
            p1 | 00:00:03 | 9223372036854775806
            p1 | 00:00:05 | 9223372036854775805
            p1 | 00:00:06 | 9223372036854775804
            failed 3: could not evaluate sum(9223372036854775807 - n): overflow
        "#]],
    );
}

#[test]
fn what_a_frame_cannot_be_is_said() {
    let over = |call: &str, frame: &str| format!("SELECT {call} OVER (PARTITION BY patient_id ORDER BY ts {frame}) AS a FROM vitals");
    check_refused(
        &over("avg(hr)", "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING"),
        expect![[r#"
        SQL-0021 a window frame from UNBOUNDED PRECEDING to FOLLOWING is not supported over a stream: say how far back it begins, or end it with CURRENT ROW
    "#]],
    );
    check_refused(
        &over("avg(hr)", "RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING"),
        expect![[r#"
            SQL-0021 a window frame with UNBOUNDED FOLLOWING is not supported over a stream: say how far it reaches, as in INTERVAL '1' MINUTE FOLLOWING
        "#]],
    );
    check_refused(
        &over("avg(hr)", "RANGE INTERVAL '1' MONTH PRECEDING"),
        expect![[r#"
        SQL-0021 a RANGE frame that is no INTERVAL of a fixed length is not supported over a stream: write RANGE BETWEEN INTERVAL '5' MINUTE PRECEDING AND CURRENT ROW
    "#]],
    );
    check_refused(
        &over("avg(hr)", "GROUPS 2 PRECEDING"),
        expect![[r#"
        SQL-0021 a GROUPS frame is not supported over a stream: write ROWS or RANGE
    "#]],
    );
    check_refused(
        &over("median(hr)", ""),
        expect![[r#"
        SQL-0021 the aggregate median(..) OVER is not supported over a stream: aggregate over TUMBLE or HOP windows instead
    "#]],
    );
    check_refused(
        &over("count(DISTINCT hr)", ""),
        expect![[r#"
        SQL-0021 DISTINCT in count(..) OVER is not supported over a stream: count distinct values over TUMBLE or HOP windows instead
    "#]],
    );
    check_refused(
        &over("last_value(hr) IGNORE NULLS", ""),
        expect![[r#"
        SQL-0021 IGNORE NULLS in last_value(..) is not supported over a stream: filter the NULLs out in a subquery below, or use locf
    "#]],
    );
    check_refused(
        &over("ntile(4)", ""),
        expect![[r#"
        SQL-0021 ntile(..) OVER is not supported over a stream: it would need rows that have not come, or all that ever came
    "#]],
    );
    check_refused(
        &over("bit_and(n)", "ROWS 3 PRECEDING"),
        expect![[r#"
        SQL-0021 the aggregate bit_and(..) OVER is not supported over a stream: aggregate over TUMBLE or HOP windows instead
    "#]],
    );
    check_refused(
        "SELECT avg(hr) OVER (PARTITION BY patient_id ORDER BY ts DESC) AS a FROM vitals",
        expect![[r#"
        SQL-0021 OVER (.. ORDER BY .. DESC) is not supported over a stream: order by the event time, ascending: a stream knows no later rows
    "#]],
    );
    check_refused(
        "SELECT avg(hr) OVER (PARTITION BY patient_id) AS a FROM vitals",
        expect![[r#"
        SQL-0021 OVER without ORDER BY is not supported over a stream: ORDER BY the event time, as in OVER (PARTITION BY patient_id ORDER BY ts)
    "#]],
    );
}
