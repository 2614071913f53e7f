//! MATCH_RECOGNIZE.

use expect_test::{Expect, expect};

use super::{READINGS, check, check_plan, planned};

fn over(clauses: &str) -> String {
    format!("SELECT * FROM vitals MATCH_RECOGNIZE (PARTITION BY patient_id ORDER BY ts\n{clauses}\n) AS m")
}

/// The whole error, caret and hint included.
#[allow(clippy::needless_pass_by_value, reason = "expect! reads best as a value")]
fn check_refused(sql: &str, expected: Expect) {
    expected.assert_eq(&planned(sql).expect_err(sql).locate(sql).render(sql));
}

#[test]
fn a_pattern_is_found_in_the_rows_of_a_key() {
    check(
        &over(
            "MEASURES FIRST(up.hr) AS from_hr, LAST(up.hr) AS to_hr, count(up.*) AS n, down.ts AS fell PATTERN (up+ down) DEFINE up AS up.hr >= 80, down AS down.hr < LAST(up.hr)",
        ),
        READINGS,
        expect![[r#"
            p1 | 80.0 | 100.0 | 3 | 00:01:01
        "#]],
    );
    check(
        &over(
            "MEASURES CLASSIFIER() AS role, RUNNING count(*) AS so_far, FINAL LAST(hr) AS ends ALL ROWS PER MATCH PATTERN (up{2} rest?) DEFINE up AS up.hr > 70",
        ),
        READINGS,
        expect![[r#"
            p1 | 00:00:01 | up | 1 | 100.0 | - | 80.0 | 97.0 | - | - | - | - | 1 | - | -
            p1 | 00:00:02 | up | 2 | 100.0 | - | 90.0 | 96.0 | - | - | - | - | 2 | - | -
            p1 | 00:00:03 | rest | 3 | 100.0 | - | 100.0 | 95.0 | - | - | - | - | 2 | - | -
        "#]],
    );
}

#[test]
fn the_plan_reads_the_columns_it_needs_and_says_all_that_its_state_depends_on() {
    check_plan(
        "SELECT patient_id, ended FROM vitals MATCH_RECOGNIZE (PARTITION BY patient_id ORDER BY ts MEASURES LAST(b.ts) AS ended, max(a.hr) AS unused
           AFTER MATCH SKIP TO LAST a PATTERN (a+ b) WITHIN INTERVAL '2' MINUTE DEFINE a AS a.spo2 < 90 AND a.hr > LAST(a.hr, 1), b AS b.o2) AS m
         WHERE patient_id = 'p1' AND ended > TIMESTAMP '2020-01-01'",
        expect![[r#"
            stream   vitals (one task a partition): patient_id, ts, hr, spo2, o2
            columns  patient_id, ts, hr, spo2, o2
            keep     patient_id = p1
            match    [patient_id] by time: (a+ b) within 2 min, a where a.spo2 < 90 AND a.hr > LAST(a.hr, 1), b where b.o2; the next from its last a; one row, LAST(b.ts) AS ended, max(a.hr) AS unused
            columns  patient_id, ended
            keep     ended > 1577836800000
            key      patient_id
        "#]],
    );
    // A match's row carries the time of its last row.
    check_plan(
        "SELECT patient_id, window_start, count(*) AS n FROM TABLE(TUMBLE(TABLE (SELECT * FROM vitals MATCH_RECOGNIZE (PARTITION BY patient_id
           ORDER BY ts MEASURES MATCH_ROWTIME() AS ended PATTERN (a) DEFINE a AS a.hr > 1) AS m), DESCRIPTOR(ended), INTERVAL '1' MINUTE))
         GROUP BY patient_id, window_start, window_end",
        expect![[r#"
            stream   vitals (one task a partition): patient_id, ts, hr
            columns  patient_id, ts, hr
            match    [patient_id] by time: (a), a where a.hr > 1; the next past its last row; one row, MATCH_ROWTIME() AS ended
            window   TUMBLE 1 min by [patient_id]: count(1)
            columns  patient_id, window_start, count(1) AS n
            key      patient_id
        "#]],
    );
    // Without the stream's key in PARTITION BY rows of a key come from everywhere.
    check_plan(
        "SELECT * FROM vitals MATCH_RECOGNIZE (PARTITION BY ward ORDER BY ts MEASURES a.hr AS hr PATTERN (a) DEFINE a AS a.hr > 1) AS m",
        expect![[r#"
            stream   vitals (one task over all partitions): ward, ts, hr
            columns  ward, ts, hr
            match    [ward] by time: (a), a where a.hr > 1; the next past its last row; one row, a.hr AS hr
            key      ward
        "#]],
    );
}

#[test]
fn what_a_pattern_cannot_be_is_said() {
    check_refused(
        &over("PATTERN (a*) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0006]: PATTERN can match no row at all
              2 | PATTERN (a*) DEFINE a AS a.hr > 1
                |          ^ write + instead of *, or add a variable that has to come
        "#]],
    );
    check_refused(
        &over("PATTERN (a) DEFINE a AS a.hr > 1, b AS b.hr > 1"),
        expect![[r#"
            error[SQL-0006]: DEFINE says what "b" is, and PATTERN does not have it
              2 | PATTERN (a) DEFINE a AS a.hr > 1, b AS b.hr > 1
                |                                   ^ leave it out of DEFINE
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS a.hr > c.hr"),
        expect![[r#"
            error[SQL-0012]: "c" is no variable of PATTERN
              2 | PATTERN (a b) DEFINE a AS a.hr > c.hr
                |                                  ^
              variables: a, b
              in: c.hr
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS a.hr > NEXT(a.hr)"),
        expect![[r#"
            error[SQL-0002]: not supported yet: NEXT in MATCH_RECOGNIZE
              2 | PATTERN (a b) DEFINE a AS a.hr > NEXT(a.hr)
                |                                  ^^^^ add a variable for the next row to PATTERN
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS a.hr + 1"),
        expect![[r#"
            error[SQL-0006]: "a" is defined as DOUBLE, which is no condition
              2 | PATTERN (a b) DEFINE a AS a.hr + 1
                |                      ^ write a comparison
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS a.hrr > 1"),
        expect![[r#"
            error[SQL-0012]: no column "hrr"
              2 | PATTERN (a b) DEFINE a AS a.hrr > 1
                |                             ^^^ did you mean "hr"?
              columns: patient_id, ward, ts, hr, spo2, rr, sbp, temp, map, n, o2, acvpu
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS LAST(a.hr - b.hr) > 1"),
        expect![[r#"
            error[SQL-0006]: a value of one row reads columns of several variables
              2 | PATTERN (a b) DEFINE a AS LAST(a.hr - b.hr) > 1
                |                                ^^^^^^^^^^^ write a function for each: LAST(a.x) - LAST(b.x)
              in: a.hr - b.hr
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS stddev(a.hr) > 1"),
        expect![[r#"
            error[SQL-0002]: not supported yet: stddev(..) in MATCH_RECOGNIZE
              2 | PATTERN (a b) DEFINE a AS stddev(a.hr) > 1
                |                           ^^^^^^^^^^^^^^^^ of the rows of a match there are FIRST, LAST, PREV, count, sum, avg, min and max
              in: stddev(a.hr) > 1
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS count(DISTINCT a.hr) > 1"),
        expect![[r#"
            error[SQL-0002]: not supported yet: DISTINCT in COUNT(..) in MATCH_RECOGNIZE
              2 | PATTERN (a b) DEFINE a AS count(DISTINCT a.hr) > 1
                |                           ^^^^^ leave it out
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS max(a.ward) = 'x'"),
        expect![[r#"
            error[SQL-0016]: max(a.ward) in MATCH_RECOGNIZE does not take VARCHAR
              2 | PATTERN (a b) DEFINE a AS max(a.ward) = 'x'
                |                               ^^^^^^ numbers, and for min and max times, are taken
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS random() > 0.5"),
        expect![[r#"
            error[SQL-0021]: random() answers differently each time, so the query could not be repeated after a restart
              2 | PATTERN (a b) DEFINE a AS random() > 0.5
                |                           ^^^^^^^^^^^^^^ compute with the columns of the row alone
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS a.ts < now()"),
        expect![[r#"
            error[SQL-0021]: now() is the time of planning in a continuous query
              2 | PATTERN (a b) DEFINE a AS a.ts < now()
                |                           ^^^^^^^^^^ compute with the columns of the row alone
        "#]],
    );
    check_refused(
        &over("AFTER MATCH SKIP TO FIRST a PATTERN (a b) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0006]: AFTER MATCH SKIP TO FIRST a goes to the row at which the match began, for ever
              2 | AFTER MATCH SKIP TO FIRST a PATTERN (a b) DEFINE a AS a.hr > 1
                |                           ^ write AFTER MATCH SKIP TO NEXT ROW
        "#]],
    );
    check_refused(
        &over("AFTER MATCH SKIP TO LAST c PATTERN (a b) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0006]: AFTER MATCH SKIP TO "c": PATTERN has no such variable
              2 | AFTER MATCH SKIP TO LAST c PATTERN (a b) DEFINE a AS a.hr > 1
                |                          ^ it has a, b
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) WITHIN INTERVAL '1' MONTH DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0020]: INTERVAL '1' MONTH has no fixed length in milliseconds: write seconds, minutes, hours or days
              2 | PATTERN (a b) WITHIN INTERVAL '1' MONTH DEFINE a AS a.hr > 1
                |               ^^^^^^
        "#]],
    );
    check_refused(
        &over("PATTERN (a+* b) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0006]: PATTERN has a quantifier behind another one: a+*
              2 | PATTERN (a+* b) DEFINE a AS a.hr > 1
                |          ^ write brackets around the first: (a+){2}
        "#]],
    );
    check_refused(
        &over("PATTERN (a{3,2} b) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0006]: the quantifier of a{3,2} lets nothing through
              2 | PATTERN (a{3,2} b) DEFINE a AS a.hr > 1
                |          ^ write {n,m} with n up to m, and m at least 1
        "#]],
    );
    check_refused(
        &over("PATTERN (((a{100}){100} b)) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0031]: PATTERN has more than 4096 steps when its quantifiers are written out
              2 | PATTERN (((a{100}){100} b)) DEFINE a AS a.hr > 1
                |            ^ write fewer or smaller quantifiers
        "#]],
    );
    check_refused(
        &over("MEASURES a.hr AS ts, a.ts AS ts PATTERN (a b) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0006]: two columns of MATCH_RECOGNIZE are called "ts"
              2 | MEASURES a.hr AS ts, a.ts AS ts PATTERN (a b) DEFINE a AS a.hr > 1
                |                  ^^ give one of them another name with AS
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS LAST(a.hr, n) > 1"),
        expect![[r#"
            error[SQL-0006]: LAST takes a value of a row and a constant count
              2 | PATTERN (a b) DEFINE a AS LAST(a.hr, n) > 1
                |                           ^^^^ write LAST(a.x) or LAST(a.x, 1)
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS LAST(a.hr, 5000) > 1"),
        expect![[r#"
            error[SQL-0006]: LAST goes further than 1000 rows
              2 | PATTERN (a b) DEFINE a AS LAST(a.hr, 5000) > 1
                |                           ^^^^ look at fewer rows
        "#]],
    );
    check_refused(
        &over("MEASURES MATCH_PROCTIME() AS at PATTERN (a b) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0002]: not supported yet: MATCH_PROCTIME in MATCH_RECOGNIZE
              2 | MEASURES MATCH_PROCTIME() AS at PATTERN (a b) DEFINE a AS a.hr > 1
                |          ^^^^^^^^^^^^^^ a match goes by event time alone: write MATCH_ROWTIME()
        "#]],
    );
    check_refused(
        &over("MEASURES MATCH_ROWTIME(a.hr) AS at PATTERN (a b) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0006]: MATCH_ROWTIME takes the event time, or nothing
              2 | MEASURES MATCH_ROWTIME(a.hr) AS at PATTERN (a b) DEFINE a AS a.hr > 1
                |          ^^^^^^^^^^^^^ write MATCH_ROWTIME()
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS a.hr > (SELECT max(hr) FROM labs)"),
        expect![[r#"
            error[SQL-0002]: not supported yet: a subquery in MATCH_RECOGNIZE
              2 | PATTERN (a b) DEFINE a AS a.hr > (SELECT max(hr) FROM labs)
                |                                   ^^^^^^^^^^^^^^^^^^^^^^^^ join before: WITH x AS (SELECT .. JOIN ..) SELECT .. FROM x MATCH_RECOGNIZE (..)
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS a.hr > 1, a AS a.hr < 2"),
        expect![[r#"
            error[SQL-0006]: DEFINE says twice what "a" is
              2 | PATTERN (a b) DEFINE a AS a.hr > 1, a AS a.hr < 2
                |                                     ^ join both conditions with AND
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) WITHIN INTERVAL '0' SECOND DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0006]: WITHIN needs an interval longer than nothing
              2 | PATTERN (a b) WITHIN INTERVAL '0' SECOND DEFINE a AS a.hr > 1
                |               ^^^^^^ write WITHIN INTERVAL '2' MINUTE
        "#]],
    );
    check_refused(
        &over("PATTERN ((a?){400} b) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0031]: PATTERN has too many ways to go on; write fewer optional parts behind one another
              2 | PATTERN ((a?){400} b) DEFINE a AS a.hr > 1
                |           ^ write fewer or smaller quantifiers
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) SUBSET u = (a, b) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0002]: not supported yet: SUBSET in MATCH_RECOGNIZE
              2 | PATTERN (a b) SUBSET u = (a, b) DEFINE a AS a.hr > 1
                |               ^^^^^^ name the variables one by one
        "#]],
    );
    check_refused(
        &over("PATTERN (a {- b -} c) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0002]: not supported yet: {- .. -} (rows left out) in PATTERN
              2 | PATTERN (a {- b -} c) DEFINE a AS a.hr > 1
                |            ^ name the rows, and leave them out by CLASSIFIER()
        "#]],
    );
    check_refused(
        &over("PATTERN (PERMUTE(a, b)) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0002]: not supported yet: PERMUTE in PATTERN
              2 | PATTERN (PERMUTE(a, b)) DEFINE a AS a.hr > 1
                |          ^^^^^^^ write the orders out: (a b | b a)
        "#]],
    );
    check_refused(
        &over("PATTERN (^ a b) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0002]: not supported yet: ^ (the first row of all) in PATTERN
              2 | PATTERN (^ a b) DEFINE a AS a.hr > 1
                |          ^ leave it out: a stream goes on
        "#]],
    );
    check_refused(
        &over("PATTERN (a b $) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0002]: not supported yet: $ (the last row of all) in PATTERN
              2 | PATTERN (a b $) DEFINE a AS a.hr > 1
                |              ^ leave it out: a stream goes on
        "#]],
    );
    check_refused(
        &over("ALL ROWS PER MATCH WITH UNMATCHED ROWS PATTERN (a b) DEFINE a AS a.hr > 1"),
        expect![[r#"
            error[SQL-0002]: not supported yet: WITH UNMATCHED ROWS in MATCH_RECOGNIZE
              1 | SELECT * FROM vitals MATCH_RECOGNIZE (PARTITION BY patient_id ORDER BY ts
                |               ^^^^^^ leave it out: rows of matches come out
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS FINAL LAST(a.hr) > 1"),
        expect![[r#"
            error[SQL-0002]: not supported yet: FINAL in DEFINE
              2 | PATTERN (a b) DEFINE a AS FINAL LAST(a.hr) > 1
                |                           ^^^^^ a condition knows no rows but those up to its own: leave FINAL out
        "#]],
    );
    check_refused(
        &over("AFTER MATCH SKIP TO NEXT ROW PATTERN (a b) DEFINE a AS sum(b.hr - a.hr) > 1"),
        expect![[r#"
            error[SQL-0006]: a value of one row reads columns of several variables
              2 | AFTER MATCH SKIP TO NEXT ROW PATTERN (a b) DEFINE a AS sum(b.hr - a.hr) > 1
                |                                                            ^^^^^^^^^^^ write a function for each: LAST(a.x) - LAST(b.x)
              in: b.hr - a.hr
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS a.hr > lag(a.hr)"),
        expect![[r#"
            error[SQL-0002]: not supported yet: lag(..) in MATCH_RECOGNIZE
              2 | PATTERN (a b) DEFINE a AS a.hr > lag(a.hr)
                |                                  ^^^ write PREV(a.x) for the row before, LAST(a.x, 1) for the a before
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS LAST(LAST(a.hr)) > 1"),
        expect![[r#"
            error[SQL-0002]: not supported yet: LAST(..) inside another function over the rows of a match
              2 | PATTERN (a b) DEFINE a AS LAST(LAST(a.hr)) > 1
                |                                ^^^^^^^^^ PREV(LAST(a.x, 1), 2) is the only one that is built
              in: LAST(a.hr)
        "#]],
    );
    check_refused(
        &over("PATTERN (a b) DEFINE a AS a.hr > held_for(a.hr > 1, INTERVAL '5' SECOND)"),
        expect![[r#"
            error[SQL-0002]: not supported yet: held_for(..) in MATCH_RECOGNIZE
              2 | PATTERN (a b) DEFINE a AS a.hr > held_for(a.hr > 1, INTERVAL '5' SECOND)
                |                                  ^^^^^^^^ compute it before: WITH x AS (SELECT .., held_for(..) OVER (..) AS v FROM ..)
        "#]],
    );
    check_refused(
        "SELECT * FROM vitals MATCH_RECOGNIZE (\nPATTERN (a b) DEFINE a AS a.hr > 1) AS m",
        expect![[r#"
            error[SQL-0006]: MATCH_RECOGNIZE without ORDER BY
              1 | SELECT * FROM vitals MATCH_RECOGNIZE (
                |               ^^^^^^ write ORDER BY the event time, as in ORDER BY ts
        "#]],
    );
    check_refused(
        "SELECT * FROM vitals MATCH_RECOGNIZE (\nORDER BY ts DESC PATTERN (a b) DEFINE a AS a.hr > 1) AS m",
        expect![[r#"
            error[SQL-0006]: ORDER BY .. DESC in MATCH_RECOGNIZE
              2 | ORDER BY ts DESC PATTERN (a b) DEFINE a AS a.hr > 1) AS m
                |          ^^ order by the event time, ascending: a stream knows no later rows
        "#]],
    );
    check_refused(
        "SELECT * FROM vitals MATCH_RECOGNIZE (\nORDER BY hr MEASURES a.hr AS hr PATTERN (a b) DEFINE a AS a.hr > 1) AS m",
        expect![[r#"
            error[SQL-0021]: "hr" is not the event time of "vitals"
              2 | ORDER BY hr MEASURES a.hr AS hr PATTERN (a b) DEFINE a AS a.hr > 1) AS m
                |          ^^ take "ts", or a window's window_start, window_end or window_time
        "#]],
    );
}
