//! LEAD, GAP_FILL, and the first rows of windows.

use expect_test::expect;

use super::{READINGS, check, check_plan, check_refused};

#[test]
fn lead_looks_ahead_along_event_time() {
    check(
        "SELECT patient_id, ts, hr, lead(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS next,
                lead(hr, 2, 0) OVER (PARTITION BY patient_id ORDER BY ts) AS later, lag(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS was
         FROM vitals WHERE patient_id = 'p1'",
        READINGS,
        expect![[r#"
            p1 | 00:00:01 | 80.0 | 90.0 | 100.0 | -
            p1 | 00:00:02 | 90.0 | 100.0 | 70.0 | 80.0
            p1 | 00:00:03 | 100.0 | 70.0 | 75.0 | 90.0
            p1 | 00:01:01 | 70.0 | 75.0 | 0.0 | 100.0
            p1 | 00:02:10 | 75.0 | - | 0.0 | 70.0
        "#]],
    );
    check_plan(
        "SELECT patient_id, lead(hr, 3) OVER (PARTITION BY patient_id ORDER BY ts) AS next FROM vitals",
        expect![[r#"
        stream   vitals (one task a partition): patient_id, ts, hr
        columns  patient_id, ts, hr
        ahead    [patient_id] by time: lead(hr, 3)
        columns  patient_id, lead(hr,Int64(3)) PARTITION BY [patient_id] ORDER BY [ts ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW AS next
        key      patient_id
    "#]],
    );
    check_refused(
        "SELECT lead(hr, 0) OVER (PARTITION BY patient_id ORDER BY ts) AS a FROM vitals",
        expect![[r#"
        SQL-0006 lead takes a value, a constant count and a default: write lead(value), lead(value, 2) or lead(value, 1, 0.0)
    "#]],
    );
    check_refused(
        "SELECT lead(hr) OVER (PARTITION BY patient_id ORDER BY ts ROWS 1 PRECEDING) AS a FROM vitals",
        expect![[r#"
        SQL-0021 a window frame (ROWS or RANGE) with lead is not supported over a stream: leave the frame out
    "#]],
    );
}

#[test]
fn gaps_are_filled_in_between_the_rows_of_a_key() {
    let script = "
        p1 1 hr=80 spo2=97 n=1 ward=a
        p2 2 hr=60
        p1 3.5 hr=85 spo2=95 n=4
        p1 7 spo2=99 n=4
        p2 3 hr=61";
    check(
        "SELECT patient_id, ts, hr, spo2, n, ward
         FROM GAP_FILL(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '1' SECOND, LOCF(hr), INTERPOLATE(spo2), INTERPOLATE(n))
         WHERE patient_id = 'p1'",
        script,
        expect![[r#"
            p1 | 00:00:01 | 80.0 | 97.0 | 1 | a
            p1 | 00:00:02 | 80.0 | 96.2 | 2 | -
            p1 | 00:00:03 | 80.0 | 95.4 | 3 | -
            p1 | 00:00:03.500 | 85.0 | 95.0 | 4 | -
            p1 | 00:00:04.500 | 85.0 | 96.14285714285714 | 4 | -
            p1 | 00:00:05.500 | 85.0 | 97.28571428571429 | 4 | -
            p1 | 00:00:06.500 | 85.0 | 98.42857142857143 | 4 | -
            p1 | 00:00:07 | - | 99.0 | 4 | -
        "#]],
    );
    check(
        "SELECT patient_id, window_start, count(*) AS n, count(hr) AS seen, avg(hr) AS hr FROM TABLE(TUMBLE(
           TABLE (SELECT * FROM TABLE(GAP_FILL(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '1' SECOND, LOCF(hr)))),
           DESCRIPTOR(ts), INTERVAL '5' SECOND)) GROUP BY patient_id, window_start, window_end",
        script,
        expect![[r#"
            p1 | 00:00:00 | 5 | 5 | 82.0
            p2 | 00:00:00 | 2 | 2 | 60.5
            p1 | 00:00:05 | 3 | 2 | 85.0
        "#]],
    );
    check_plan(
        "SELECT ts, hr FROM TABLE(GAP_FILL(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '1' SECOND, LOCF(hr)))
         WHERE patient_id = 'p1' AND hr > 3",
        expect![[r#"
            stream   vitals (one task a partition): patient_id, ts, hr
            columns  patient_id, ts, hr
            keep     patient_id = p1
            gaps     [patient_id] every 1 s: last of [hr], line of []
            columns  ts, hr
            keep     hr > 3
        "#]],
    );
    check_plan(
        "SELECT * FROM GAP_FILL(nokey, ts, INTERVAL '1' SECOND)",
        expect![[r#"
        stream   nokey (one task over all partitions): patient_id, ward, ts, hr, spo2, rr, sbp, temp, map, n, o2, acvpu
        gaps     [] every 1 s: last of [], line of []
    "#]],
    );
}

#[test]
fn what_a_gap_cannot_be_filled_with_is_said() {
    let gaps = |rest: &str| format!("SELECT * FROM TABLE(GAP_FILL(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts){rest}))");
    check_refused(
        &gaps(""),
        expect![[r#"
        SQL-0006 gap_fill lacks its interval: write GAP_FILL(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '1' SECOND, LOCF(heart_rate), INTERPOLATE(spo2))
    "#]],
    );
    check_refused(
        &gaps(", INTERVAL '0' SECOND"),
        expect![[r#"
        SQL-0006 the interval of gap_fill must be positive
    "#]],
    );
    check_refused(
        &gaps(", INTERVAL '1' SECOND, LOCF(hr + 1)"),
        expect![[r#"
        SQL-0006 LOCF in GAP_FILL takes one column: write GAP_FILL(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '1' SECOND, LOCF(heart_rate), INTERPOLATE(spo2))
    "#]],
    );
    check_refused(
        &gaps(", INTERVAL '1' SECOND, INTERPOLATE(ward)"),
        expect![[r#"
        SQL-0020 INTERPOLATE(ward) is over numbers alone: write LOCF(ward)
    "#]],
    );
    check_refused(
        &gaps(", INTERVAL '1' SECOND, LOCF(hr), INTERPOLATE(hr)"),
        expect![[r#"
        SQL-0020 INTERPOLATE(hr) in GAP_FILL: the column is named twice
    "#]],
    );
    check_refused(
        &gaps(", INTERVAL '1' SECOND, LOCF(patient_id)"),
        expect![[r#"
        SQL-0020 LOCF(patient_id) in GAP_FILL: the column is named twice
    "#]],
    );
    check_refused(
        &gaps(", INTERVAL '1' SECOND, hr"),
        expect![[r#"
        SQL-0001 expected an interval, found hr: write INTERVAL '5' MINUTE
    "#]],
    );
    check_refused(
        "SELECT * FROM GAP_FILL(TABLE untimed PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '1' SECOND)",
        expect![[r#"
        SQL-0021 "ts" is not the event time of "untimed": declare one: WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
    "#]],
    );
}

#[test]
fn the_first_rows_of_a_window_are_known_when_it_closes() {
    let top = "SELECT window_end, patient_id, hr, number FROM
        (SELECT *, row_number() OVER (PARTITION BY window_start, window_end ORDER BY hr DESC NULLS LAST, patient_id) AS number
         FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))) WHERE number <= 2";
    check(
        top,
        READINGS,
        expect![[r#"
        00:01:00 | p1 | 100.0 | 1
        00:01:00 | p1 | 90.0 | 2
        00:02:00 | p1 | 70.0 | 1
        00:02:00 | p2 | 65.0 | 2
        00:03:00 | p1 | 75.0 | 1
    "#]],
    );
    check_plan(
        top,
        expect![[r#"
            stream   vitals (one task over all partitions): patient_id, ts, hr
            columns  patient_id, ts, hr
            windows  TUMBLE 1 min: each row with every window it lies in
            columns  patient_id, hr, window_start, window_end
            rank     first 2 of [window_start, window_end] by [hr DESC NULLS LAST, patient_id], each before window_end
            columns  patient_id, hr, window_end, row_number() PARTITION BY [window_start, window_end] ORDER BY [hr DESC NULLS LAST, patient_id ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW AS row_number() PARTITION BY [window_start, window_end] ORDER BY [vitals.hr DESC NULLS LAST, vitals.patient_id ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            keep     row_number() PARTITION BY [window_start, window_end] ORDER BY [hr DESC NULLS LAST, patient_id ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW <= 2
            columns  window_end, patient_id, hr, row_number() PARTITION BY [window_start, window_end] ORDER BY [hr DESC NULLS LAST, patient_id ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW AS number
            columns  window_end, patient_id, hr, number
            key      window_end
        "#]],
    );
    check(
        "SELECT window_end, patient_id, n FROM
           (SELECT patient_id, window_start, window_end, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
            GROUP BY patient_id, window_start, window_end)
         QUALIFY row_number() OVER (PARTITION BY window_start, window_end ORDER BY n DESC) = 1",
        READINGS,
        expect![[r#"
            00:01:00 | p1 | 3
            00:02:00 | p1 | 1
            00:03:00 | p1 | 1
        "#]],
    );
}

#[test]
fn the_last_row_of_a_key_in_a_window_is_kept() {
    let last = "SELECT patient_id, ts, hr FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         QUALIFY row_number() OVER (PARTITION BY window_start, window_end, patient_id ORDER BY ts DESC) = 1";
    check(
        last,
        READINGS,
        expect![[r#"
        p1 | 00:00:03 | 100.0
        p2 | 00:00:03 | 60.0
        p1 | 00:01:01 | 70.0
        p2 | 00:01:02 | 65.0
        p1 | 00:02:10 | 75.0
    "#]],
    );
    check_plan(
        last,
        expect![[r#"
            stream   vitals (one task a partition): patient_id, ts, hr
            columns  patient_id, ts, hr
            windows  TUMBLE 1 min: each row with every window it lies in
            columns  patient_id, ts, hr, window_start, window_end
            rank     first 1 of [window_start, window_end, patient_id] by [ts DESC], each before window_end
            columns  patient_id, ts, hr, row_number() PARTITION BY [window_start, window_end, patient_id] ORDER BY [ts DESC NULLS FIRST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW AS row_number() PARTITION BY [window_start, window_end, vitals.patient_id] ORDER BY [vitals.ts DESC NULLS FIRST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            keep     row_number() PARTITION BY [window_start, window_end, patient_id] ORDER BY [ts DESC NULLS FIRST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW = 1
            columns  patient_id, ts, hr
            key      patient_id
        "#]],
    );
    check(
        "SELECT patient_id, ts, hr FROM vitals QUALIFY row_number() OVER (PARTITION BY patient_id, ts ORDER BY hr DESC) < 2",
        "p1 1 hr=80
         p1 1 hr=85
         p1 2 hr=90
         p1 1 hr=81",
        expect![[r#"
            p1 | 00:00:01 | 85.0
            p1 | 00:00:02 | 90.0
        "#]],
    );
}

#[test]
fn what_is_ranked_may_be_windowed_again() {
    check(
        "SELECT window_start, count(*) AS n, max(hr) AS most FROM TABLE(TUMBLE(TABLE
           (SELECT window_time AS at, hr FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '10' SECOND))
            QUALIFY row_number() OVER (PARTITION BY window_start, window_end ORDER BY hr DESC) <= 2), DESCRIPTOR(at), INTERVAL '2' MINUTE))
         GROUP BY window_start, window_end",
        READINGS,
        expect![[r#"
            00:00:00 | 4 | 100.0
            00:02:00 | 1 | 75.0
        "#]],
    );
}
