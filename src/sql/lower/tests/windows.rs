//! Windows that grow, and windows that lie where the rows lie.

use expect_test::expect;

use super::{READINGS, check, check_plan, check_refused};

#[test]
fn a_cumulating_window_gives_a_row_each_step_from_a_common_start() {
    check(
        "SELECT patient_id, window_start, window_end, count(*) AS n, max(hr) AS high
         FROM TABLE(CUMULATE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '3' MINUTE))
         GROUP BY patient_id, window_start, window_end",
        READINGS,
        expect![[r#"
            p1 | 00:00:00 | 00:01:00 | 3 | 100.0
            p2 | 00:00:00 | 00:01:00 | 1 | 60.0
            p1 | 00:00:00 | 00:02:00 | 4 | 100.0
            p2 | 00:00:00 | 00:02:00 | 2 | 65.0
            p1 | 00:00:00 | 00:03:00 | 5 | 100.0
            p2 | 00:00:00 | 00:03:00 | 2 | 65.0
        "#]],
    );
    check_refused(
        "SELECT window_end, count(*) AS n FROM TABLE(CUMULATE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '2' MINUTE, INTERVAL '3' MINUTE))
         GROUP BY window_start, window_end",
        expect![[r#"
            SQL-0020 the size of a cumulating window, 3 min, is no multiple of its step, 2 min
        "#]],
    );
}

#[test]
fn a_session_lasts_as_long_as_the_rows_of_a_key_follow_one_another() {
    for sql in [
        "SELECT patient_id, window_start, window_end, window_time, count(*) AS n, avg(hr) AS hr
         FROM TABLE(SESSION(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '58' SECOND))
         GROUP BY patient_id, window_start, window_end, window_time",
        "SELECT patient_id, window_start, window_end, window_time, count(*) AS n, avg(hr) AS hr
         FROM SESSION(vitals PARTITION BY patient_id, ts, INTERVAL '58' SECOND) GROUP BY patient_id, window_start, window_end, window_time",
    ] {
        check(
            sql,
            READINGS,
            expect![[r#"
                p2 | 00:00:03 | 00:01:01 | 00:01:00.999 | 1 | 60.0
                p1 | 00:00:01 | 00:01:59 | 00:01:58.999 | 4 | 85.0
                p2 | 00:01:02 | 00:02:00 | 00:01:59.999 | 1 | 65.0
                p1 | 00:02:10 | 00:03:08 | 00:03:07.999 | 1 | 75.0
            "#]],
        );
    }
}

#[test]
fn the_older_form_takes_its_keys_from_the_group_and_its_rows_from_where() {
    check(
        "SELECT v.patient_id, SESSION_START(v.ts, INTERVAL '1' MINUTE) AS begins, SESSION_END(v.ts, INTERVAL '1' MINUTE) AS ends, count(*) AS n
         FROM vitals AS v WHERE v.spo2 > 90 GROUP BY v.patient_id, SESSION(v.ts, INTERVAL '1' MINUTE)",
        READINGS,
        expect![[r#"
            p1 | 00:00:01 | 00:02:01 | 4
        "#]],
    );
    check_plan(
        "SELECT patient_id, count(*) AS n FROM vitals GROUP BY patient_id, SESSION(ts, INTERVAL '10' SECOND)",
        expect![[r#"
        stream   vitals (one task a partition): patient_id, ts
        columns  patient_id, ts
        window   SESSION 10 s by [patient_id]: count(1)
        columns  patient_id, count(1) AS n
        key      patient_id
    "#]],
    );
}

#[test]
fn sessions_of_everything_and_by_other_keys_than_the_streams_merge_partitions() {
    check(
        "SELECT window_start, window_end, count(*) AS n FROM TABLE(SESSION(TABLE vitals, DESCRIPTOR(ts), INTERVAL '40' SECOND))
         GROUP BY window_start, window_end",
        "
    p1 1 hr=80
    p2 3 hr=60
    p1 50 hr=70
    p2 95 hr=65
",
        expect![[r#"
            00:00:01 | 00:00:43 | 2
            00:00:50 | 00:01:30 | 1
            00:01:35 | 00:02:15 | 1
        "#]],
    );
}

#[test]
fn what_a_session_cannot_be_is_said() {
    let session = "FROM TABLE(SESSION(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '30' SECOND))";
    for (sql, expected) in [
        (
            format!("SELECT * {session}"),
            expect![[r#"
            SQL-0021 SESSION without GROUP BY window_start, window_end is not supported over a stream: aggregate each session: GROUP BY its keys, window_start, window_end
        "#]],
        ),
        (
            format!("SELECT count(*) AS n {session} GROUP BY window_start, window_end"),
            expect![[r#"
            SQL-0020 the sessions are by patient_id and the GROUP BY by nothing: PARTITION BY in SESSION and GROUP BY name the same columns, window_start and window_end aside
        "#]],
        ),
        (
            format!("SELECT count(*) AS n {session} WHERE hr > 3 GROUP BY patient_id, window_start, window_end"),
            expect![[r#"
            SQL-0020 the condition vitals.hr > 3 stands behind the sessions, which are made of all rows: filter the rows in the table of SESSION, as in SESSION(TABLE (SELECT * FROM s WHERE ..) PARTITION BY .., ..)
        "#]],
        ),
        (
            "SELECT count(*) AS n FROM TABLE(SESSION(TABLE vitals, DESCRIPTOR(ts), INTERVAL '0' SECOND)) GROUP BY window_start, window_end"
                .to_owned(),
            expect![[r#"
                SQL-0006 the gap of session must be positive
            "#]],
        ),
    ] {
        check_refused(&sql, expected);
    }
}

#[test]
fn sums_and_averages_of_long_decimals_that_do_not_fit_fail_their_group_alone() {
    let most = "CAST('99999999999999999999999999999999999999' AS DECIMAL(38, 0))";
    check(
        &format!(
            "SELECT patient_id, window_end, sum(CASE WHEN n = 0 THEN {most} ELSE CAST(n AS DECIMAL(38, 0)) END) AS s
             FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end"
        ),
        "p1 1 n=0
         p1 2 n=1
         p2 3 n=0
         p2 4 n=-1
         p3 5
         p1 61 n=7",
        expect![[r#"
            p2 | 00:01:00 | 99999999999999999999999999999999999998
            p3 | 00:01:00 | -
            p1 | 00:02:00 | 7
            failed -1: could not evaluate sum(CASE WHEN n = 0 THEN 99999999999999999999999999999999999999 ELSE n END)
        "#]],
    );
    check(
        &format!(
            "SELECT patient_id, avg(CASE WHEN n = 0 THEN {most} ELSE CAST(n AS DECIMAL(38, 0)) END) AS a
             FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end"
        ),
        "p1 1 n=0
         p1 2 n=1
         p2 3 n=5
         p2 4 n=6
         p3 5
         p1 61 n=7",
        expect![[r#"
            p2 | 5.5000
            p3 | -
            p1 | 7.0000
            failed -1: could not evaluate avg(CASE WHEN n = 0 THEN 99999999999999999999999999999999999999 ELSE n END): a value that cannot be cast
        "#]],
    );
}
