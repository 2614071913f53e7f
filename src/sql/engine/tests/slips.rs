//! What the engine answers to slips of the hand: a code, a mark under the place, and what was probably meant.
//!
//! Whoever writes a rule for a ward should find the mistake from the message alone.

use expect_test::{Expect, expect};

use super::*;

const WARD: &str = "
    CREATE STREAM vitals (patient_id VARCHAR NOT NULL, ward VARCHAR, heart_rate DOUBLE, spo2 DOUBLE, on_oxygen BOOLEAN,
        ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
        WITH ('topic' = 'vitals', 'partitions' = '1', 'key' = 'patient_id');
    CREATE STREAM labs (patient_id VARCHAR NOT NULL, potassium DOUBLE, taken TIMESTAMP(3) NOT NULL, WATERMARK FOR taken AS taken)
        WITH ('topic' = 'labs', 'partitions' = '1', 'key' = 'patient_id');
    CREATE TABLE patient (patient_id VARCHAR, age INT, PRIMARY KEY (patient_id) NOT ENFORCED) WITH ('topic' = 'patient', 'partitions' = '1');
    CREATE QUERY spo2_1m AS INSERT INTO spo2_minutes SELECT patient_id, window_end, avg(spo2) AS mean
        FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end;";

async fn check(statements: &[&str], expected: &Expect) {
    let bench = Bench::new(WARD).await;
    let mut told = String::new();
    for sql in statements {
        let outcome = match parse_script(sql) {
            Ok(mut parsed) => bench.engine.run(parsed.remove(0)).await.map(drop),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => told.push_str(&format!("taken: {sql}\n\n")),
            Err(error) => told.push_str(&format!("{}\n\n", error.render(sql).trim_end())),
        }
    }
    expected.assert_eq(&told);
}

#[tokio::test]
async fn names_of_columns_streams_queries_and_functions() {
    check(
        &[
            "SELECT hart_rate FROM vitals",
            "SELECT v.heartrate FROM vitals v WHERE v.spo2 < 90",
            "SELECT patient_id FROM vitals WHERE sp02 < 90",
            "SELECT ward, avg(spo2) FROM vitals GROUP BY wrd",
            "SELECT heart_rate FROM vitls",
            "SELECT v.heart_rate, l.potasium FROM vitals v JOIN labs l ON v.patient_id = l.patient_id AND l.taken BETWEEN v.ts - INTERVAL '1' HOUR AND v.ts",
            "SELECT x.heart_rate FROM vitals v",
            "SELECT averge(spo2) FROM vitals",
            "SELECT patient_id, heldfor(spo2 < 90, INTERVAL '30' SECOND) FROM vitals",
            "SELECT news(20, 95, false, 1, 120, 80, 'A', 37.0) FROM vitals",
            "SELECT windw_end, avg(spo2) FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, windw_end",
            "SELECT patient_id, count(*) FROM TABLE(TUMBEL(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end",
            "SELECT patient_id, count(*) FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(tss), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end",
            "SELECT patient_id, count(*) FROM TABLE(TUMBLE(TABLE vital, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end",
            "DESCRIBE vital",
            "EXPLAIN ANALYZE QUERY spo2_m1",
            "WHY QUERY spo2_1min",
            "PAUSE QUERY spo2_1",
            "DROP STREAM labz",
            "SUBSCRIBE TO spo2_1m",
            "INSERT INTO vitals (patient_id, hart_rate) VALUES ('a', 80.0)",
            "INSERT INTO vital (patient_id) VALUES ('a')",
            "CREATE QUERY q AS INSERT INTO spo2_minutes SELECT patient_id, window_end, avg(spo2) AS average FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end",
            "CREATE QUERY q WITH ('state.maks' = '1GiB') AS INSERT INTO o SELECT patient_id FROM vitals",
        ],
        &expect![[r#"
            error[SQL-0012]: no column "hart_rate"
              1 | SELECT hart_rate FROM vitals
                |        ^^^^^^^^^ did you mean "heart_rate"?
              columns: patient_id, ward, heart_rate, spo2, on_oxygen, ts

            error[SQL-0012]: no column "heartrate" in "v"
              1 | SELECT v.heartrate FROM vitals v WHERE v.spo2 < 90
                |          ^^^^^^^^^ did you mean "heart_rate"?
              columns: patient_id, ward, heart_rate, spo2, on_oxygen, ts

            error[SQL-0012]: no column "sp02"
              1 | SELECT patient_id FROM vitals WHERE sp02 < 90
                |                                     ^^^^ did you mean "spo2"?
              columns: patient_id, ward, heart_rate, spo2, on_oxygen, ts

            error[SQL-0012]: no column "wrd"
              1 | SELECT ward, avg(spo2) FROM vitals GROUP BY wrd
                |                                             ^^^ did you mean "ward"?
              columns: ward, avg(vitals.spo2), patient_id, heart_rate, spo2, on_oxygen, ts

            error[SQL-0010]: there is no stream "vitls"
              1 | SELECT heart_rate FROM vitls
                |                        ^^^^^ did you mean "vitals"?

            error[SQL-0012]: no column "potasium" in "l"
              1 | SELECT v.heart_rate, l.potasium FROM vitals v JOIN labs l ON v.patient_id = l.patient_id AND l.taken BETWEEN v.ts - INTE
                |                        ^^^^^^^^ did you mean "potassium"?
              columns: patient_id, ward, heart_rate, spo2, on_oxygen, ts, potassium, taken

            error[SQL-0012]: no column "heart_rate" in "x"
              1 | SELECT x.heart_rate FROM vitals v
                |          ^^^^^^^^^^ "x" does not have it here; did you mean v.heart_rate?
              columns: patient_id, ward, heart_rate, spo2, on_oxygen, ts

            error[SQL-0013]: no function "averge"
              1 | SELECT averge(spo2) FROM vitals
                |        ^^^^^^ did you mean avg?

            error[SQL-0013]: no function "heldfor"
              1 | SELECT patient_id, heldfor(spo2 < 90, INTERVAL '30' SECOND) FROM vitals
                |                    ^^^^^^^ did you mean "held_for"?

            error[SQL-0013]: no function "news"
              1 | SELECT news(20, 95, false, 1, 120, 80, 'A', 37.0) FROM vitals
                |        ^^^^ did you mean "news2"?

            error[SQL-0012]: no column "windw_end"
              1 | SELECT windw_end, avg(spo2) FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start,
                |        ^^^^^^^^^ did you mean "window_end"?
              columns: patient_id, ward, heart_rate, spo2, on_oxygen, ts, window_start, window_end, window_time

            error[SQL-0013]: no window function "TUMBEL"
              1 | SELECT patient_id, count(*) FROM TABLE(TUMBEL(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, w
                |                                        ^^^^^^ did you mean TUMBLE?
              there are TUMBLE, HOP, CUMULATE, SESSION, ABSENT and GAP_FILL

            error[SQL-0012]: no column "tss"
              1 | ent_id, count(*) FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(tss), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_star
                |                                                             ^^^ did you mean "ts"?
              columns: patient_id, ward, heart_rate, spo2, on_oxygen, ts

            error[SQL-0010]: there is no stream "vital"
              1 | SELECT patient_id, count(*) FROM TABLE(TUMBLE(TABLE vital, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, wi
                |                                                     ^^^^^ did you mean "vitals"?

            error[SQL-0010]: there is no stream, table, view, query or alert "vital"
              1 | DESCRIBE vital
                |          ^^^^^ did you mean "vitals"?

            error[SQL-0010]: there is no stream, table, view, query or alert "spo2_m1"
              1 | EXPLAIN ANALYZE QUERY spo2_m1
                |                       ^^^^^^^ did you mean "spo2_1m"?

            error[SQL-0010]: there is no stream, table, view, query or alert "spo2_1min"
              1 | WHY QUERY spo2_1min
                |           ^^^^^^^^^ did you mean "spo2_1m"?

            error[SQL-0010]: there is no query "spo2_1"
              1 | PAUSE QUERY spo2_1
                |             ^^^^^^ did you mean "spo2_1m"?

            error[SQL-0010]: there is no stream "labz"
              1 | DROP STREAM labz
                |             ^^^^ did you mean "labs"?

            error[SQL-0010]: there is no view "spo2_1m"
              1 | SUBSCRIBE TO spo2_1m
                |              ^^^^^^^ "spo2_1m" is a query

            error[SQL-0012]: no column "hart_rate"
              1 | INSERT INTO vitals (patient_id, hart_rate) VALUES ('a', 80.0)
                |                                 ^^^^^^^^^ did you mean "heart_rate"?

            error[SQL-0010]: there is no stream "vital"
              1 | INSERT INTO vital (patient_id) VALUES ('a')
                |             ^^^^^ did you mean "vitals"?

            error[SQL-0012]: no column "average"
              1 | TO spo2_minutes SELECT patient_id, window_end, avg(spo2) AS average FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTE
                |                                                             ^^^^^^^
              the SELECT gives it, and stream "spo2_minutes" has: patient_id, window_end, mean

            error[SQL-0003]: a query has no option 'state.maks'
              1 | CREATE QUERY q WITH ('state.maks' = '1GiB') AS INSERT INTO o SELECT patient_id FROM vitals
                |                      ^^^^^^^^^^^^ did you mean 'state.max'?
              options: 'delivery', 'start', 'savepoint.state', 'commit.interval', 'state.ttl', 'repartition', 'state.max'

        "#]],
    )
    .await;
}

#[tokio::test]
async fn types_and_values() {
    check(
        &[
            "SELECT avg(ward) FROM vitals",
            "SELECT sum(patient_id) FROM vitals",
            "SELECT patient_id FROM vitals WHERE heart_rate",
            "SELECT patient_id FROM vitals WHERE spo2 < 'low'",
            "SELECT heart_rate + on_oxygen FROM vitals",
            "SELECT patient_id FROM vitals WHERE on_oxygen > 3",
            "SELECT upper(heart_rate, 2) FROM vitals",
            "SELECT round() FROM vitals",
            "SELECT news2(20, 95, false, 1) FROM vitals",
            "SELECT patient_id, held_for(spo2, INTERVAL '30' SECOND) FROM vitals",
            "SELECT patient_id, held_for(spo2 < 90, 30) FROM vitals",
            "SELECT patient_id, locf(spo2) FROM vitals",
            "SELECT patient_id, count(*) FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MONTH)) GROUP BY patient_id, window_start, window_end",
            "SELECT patient_id, count(*) FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), 60)) GROUP BY patient_id, window_start, window_end",
            "SELECT patient_id, count(*) FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(heart_rate), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end",
            "SELECT CAST(ward AS DUBLE) FROM vitals",
            "SELECT ts - 'yesterday' FROM vitals",
            "CREATE QUERY q WITH ('state.max' = 'much') AS INSERT INTO o SELECT patient_id FROM vitals",
            "CREATE QUERY q WITH ('state.ttl' = '1 fortnight') AS INSERT INTO o SELECT patient_id, count(*) AS n FROM vitals GROUP BY patient_id",
            "INSERT INTO vitals (patient_id, heart_rate, ts) VALUES ('a', 'fast', '2026-01-01T00:00:00Z')",
        ],
        &expect![[r#"
            error[SQL-0016]: function "avg" does not take (VARCHAR)
              1 | SELECT avg(ward) FROM vitals
                |        ^^^ is another column meant? Text that holds numbers is made one by CAST(x AS DOUBLE)

            error[SQL-0016]: function "sum" does not take (VARCHAR)
              1 | SELECT sum(patient_id) FROM vitals
                |        ^^^ is another column meant? Text that holds numbers is made one by CAST(x AS DOUBLE)

            error[SQL-0016]: a condition is true or false, and "heart_rate" is DOUBLE
              1 | SELECT patient_id FROM vitals WHERE heart_rate
                |                                     ^^^^^^^^^^ compare it with something, as in heart_rate > 120

            error[SQL-0016]: 'low' cannot be read as DOUBLE
              1 | SELECT patient_id FROM vitals WHERE spo2 < 'low'
                |                                            ^^^^^

            error[SQL-0016]: DOUBLE + BOOLEAN cannot be computed
              CAST one side to the type of the other, or look whether another column is meant

            error[SQL-0016]: BOOLEAN > BIGINT cannot be compared
              CAST one side to the type of the other, or look whether another column is meant

            error[SQL-0016]: function "upper" takes 1 argument, and 2 are given
              1 | SELECT upper(heart_rate, 2) FROM vitals
                |        ^^^^^

            error[SQL-0016]: function "round" takes arguments, and none is given
              1 | SELECT round() FROM vitals
                |        ^^^^^

            error[SQL-0016]: function "news2" does not take (BIGINT, BIGINT, BOOLEAN, BIGINT)
              1 | SELECT news2(20, 95, false, 1) FROM vitals
                |        ^^^^^ it takes (DOUBLE, DOUBLE, BOOLEAN, DOUBLE, DOUBLE, DOUBLE, VARCHAR, DOUBLE)

            error[SQL-0016]: held_for does not take DOUBLE there
              1 | SELECT patient_id, held_for(spo2, INTERVAL '30' SECOND) FROM vitals
                |                    ^^^^^^^^ write held_for(condition, INTERVAL '15' SECOND [, max_gap INTERVAL])

            error[SQL-0006]: argument 2 of held_for is an INTERVAL of a fixed length, the same for all rows
              1 | SELECT patient_id, held_for(spo2 < 90, 30) FROM vitals
                |                    ^^^^^^^^ write held_for(condition, INTERVAL '15' SECOND [, max_gap INTERVAL])

            error[SQL-0006]: locf takes other arguments
              1 | SELECT patient_id, locf(spo2) FROM vitals
                |                    ^^^^ write locf(value, INTERVAL '5' MINUTE)

            error[SQL-0005]: INTERVAL '1 MONTH' has no fixed length
              1 | nt(*) FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MONTH)) GROUP BY patient_id, window_start, window_end
                |                                                                ^^^ write days, hours, minutes or seconds

            error[SQL-0001]: expected an interval, found 60
              1 |  patient_id, count(*) FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), 60)) GROUP BY patient_id, window_start, window_end
                |                                                                       ^^ write INTERVAL '5' MINUTE

            error[SQL-0020]: tumble cuts time, and column "heart_rate" is DOUBLE
              1 | ent_id, count(*) FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(heart_rate), INTERVAL '1' MINUTE)) GROUP BY patient_id, wind
                |                                                             ^^^^^^^^^^

            error[SQL-0005]: there is no type "DUBLE"
              1 | SELECT CAST(ward AS DUBLE) FROM vitals
                |                     ^^^^^ did you mean DOUBLE?
              types: VARCHAR, DOUBLE, REAL, INT, BIGINT, SMALLINT, TINYINT, BOOLEAN, DECIMAL, DATE, TIME, TIMESTAMP

            error[SQL-0016]: TIMESTAMP - VARCHAR cannot be computed
              CAST one side to the type of the other, or look whether another column is meant

            error[SQL-0004]: option 'state.max' cannot be 'much'
              1 | CREATE QUERY q WITH ('state.max' = 'much') AS INSERT INTO o SELECT patient_id FROM vitals
                |                                    ^^^^^^ write a number of bytes, as in 256MiB or 2GiB, or none

            error[SQL-0004]: option 'state.ttl' cannot be '1 fortnight'
              1 | CREATE QUERY q WITH ('state.ttl' = '1 fortnight') AS INSERT INTO o SELECT patient_id, count(*) AS n FROM vitals GROUP BY
                |                                    ^^^^^^^^^^^^^ write a number and a unit, as in 500ms, 15s, 2m, 1h, or none

            error[SQL-0016]: a value for column "heart_rate" cannot be read as DOUBLE
              1 | INSERT INTO vitals (patient_id, heart_rate, ts) VALUES ('a', 'fast', '2026-01-01T00:00:00Z')
                |                                 ^^^^^^^^^^

        "#]],
    )
    .await;
}

#[tokio::test]
async fn clauses_that_are_no_part_of_a_continuous_query() {
    let selects = [
        "SELECT patient_id FROM vitals ORDER BY ts",
        "SELECT patient_id FROM vitals LIMIT 10",
        "SELECT DISTINCT ON (patient_id) patient_id FROM vitals",
        "SELECT patient_id FROM vitals WHERE patient_id IN (SELECT patient_id FROM labs)",
        "SELECT v.patient_id FROM vitals v JOIN labs l ON v.patient_id = l.patient_id",
        "SELECT v.patient_id, p.age FROM vitals v JOIN patient p ON v.patient_id = p.patient_id",
        "SELECT patient_id FROM vitals UNION SELECT patient_id FROM labs",
        "SELECT patient_id FROM vitals INTERSECT SELECT patient_id FROM labs",
        "SELECT ward, avg(spo2) AS m FROM vitals GROUP BY ROLLUP (ward)",
        "SELECT patient_id, ts, now() AS at FROM vitals",
        "SELECT patient_id, random() AS r FROM vitals",
        "SELECT patient_id, avg(spo2) OVER (PARTITION BY patient_id ORDER BY heart_rate) AS m FROM vitals",
        "SELECT patient_id, avg(spo2) OVER (PARTITION BY patient_id ORDER BY ts DESC) AS m FROM vitals",
        "SELECT patient_id, median(spo2) OVER (PARTITION BY patient_id ORDER BY ts) AS m FROM vitals",
        "SELECT patient_id FROM vitals EMIT ON WINDOW CLOSED",
        "SELECT patient_id FROM vitals EMIT ON UPDATE",
        "SELECT patient_id, count(*) AS n FROM vitals GROUP BY patient_id EMIT ON WINDOW CLOSE",
        "SELECT patient_id FROM patient",
        "SELECT patient_id FROM vitals WHERE spo2 > (SELECT avg(spo2) FROM labs)",
        "SELECT patient_id, EXISTS (SELECT 1 FROM labs l WHERE l.patient_id = v.patient_id) AS known FROM vitals v",
        "SELECT patient_id, max_by(spo2, ts) AS m FROM vitals GROUP BY patient_id",
    ];
    let continuous = |(at, select): (usize, &&str)| format!("CREATE QUERY q{at} AS INSERT INTO o{at} {select}");
    let statements: Vec<String> = selects.iter().enumerate().map(continuous).collect();
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    check(&statements, &expect![[r#"
        error[SQL-0002]: not supported yet: ORDER BY over a stream that goes on
          1 | CREATE QUERY q0 AS INSERT INTO o0 SELECT patient_id FROM vitals ORDER BY ts
            |                                                                          ^^ leave it out here; a SELECT over stored data may have it

        error[SQL-0002]: not supported yet: LIMIT and OFFSET over a stream that goes on
          1 | CREATE QUERY q1 AS INSERT INTO o1 SELECT patient_id FROM vitals LIMIT 10
            |                                                                       ^^ leave it out here; a SELECT over stored data may have it

        error[SQL-0002]: not supported yet: SELECT DISTINCT ON over a stream that goes on
          1 | CREATE QUERY q2 AS INSERT INTO o2 SELECT DISTINCT ON (patient_id) patient_id FROM vitals
            |                                   ^^^^^^ write QUALIFY row_number() OVER (PARTITION BY .. ORDER BY ..) = 1

        error[SQL-0021]: IN or EXISTS with a subquery and no range of time is not supported over a stream
          1 | CREATE QUERY q3 AS INSERT INTO o3 SELECT patient_id FROM vitals WHERE patient_id IN (SELECT patient_id FROM labs)
            |                                                                                  ^^ say how far apart in time rows belong together, as in a.ts BETWEEN b.ts - INTERVAL '5' MINUTE AND b.ts
          or let go of rows that have waited so long for partners, WITH ('state.ttl' = '1d'): rows further apart do not meet then

        error[SQL-0021]: JOIN without a range of time is not supported over a stream
          1 | CREATE QUERY q4 AS INSERT INTO o4 SELECT v.patient_id FROM vitals v JOIN labs l ON v.patient_id = l.patient_id
            |                                                                     ^^^^ say how far apart in time rows belong together, as in a.ts BETWEEN b.ts - INTERVAL '5' MINUTE AND b.ts
          or let go of rows that have waited so long for partners, WITH ('state.ttl' = '1d'): rows further apart do not meet then

        error[SQL-0021]: reading the table "patient" as a stream is not supported over a stream
          1 | CREATE QUERY q5 AS INSERT INTO o5 SELECT v.patient_id, p.age FROM vitals v JOIN patient p ON v.patient_id = p.patient_id
            |                                                                                 ^^^^^^^ join it as it was: s JOIN t FOR SYSTEM_TIME AS OF s.ts AS t ON ..; a table alone can be read over stored data

        taken: CREATE QUERY q6 AS INSERT INTO o6 SELECT patient_id FROM vitals UNION SELECT patient_id FROM labs

        error[SQL-0002]: not supported yet: INTERSECT over a stream that goes on
          1 | CREATE QUERY q7 AS INSERT INTO o7 SELECT patient_id FROM vitals INTERSECT SELECT patient_id FROM labs
            |                                                                           ^^^^^^^^^^^^^^^^^^^^^^^^^^^ join the two by a range of time, as in WHERE EXISTS (SELECT .. b.ts BETWEEN ..)

        error[SQL-0006]: the results change, and the SELECT list does not have grouping_id(ward), which tells them apart
          add it to the SELECT list

        error[SQL-0021]: now() is the time of planning in a continuous query
          1 | CREATE QUERY q9 AS INSERT INTO o9 SELECT patient_id, ts, now() AS at FROM vitals
            |                                                          ^^^ compare with the event time of the rows, or give the query a TIMEOUT

        error[SQL-0021]: random() answers differently each time, so the query could not be repeated after a restart
          1 | CREATE QUERY q10 AS INSERT INTO o10 SELECT patient_id, random() AS r FROM vitals
            |                                                        ^^^^^^ derive the value from columns, as in md5(concat(patient_id, ts))

        error[SQL-0021]: "heart_rate" is not the event time of "vitals"
          1 |  q11 AS INSERT INTO o11 SELECT patient_id, avg(spo2) OVER (PARTITION BY patient_id ORDER BY heart_rate) AS m FROM vitals
            |                                                                                             ^^^^^^^^^^ take "ts", or a window's window_start, window_end or window_time

        error[SQL-0021]: OVER (.. ORDER BY .. DESC) is not supported over a stream
          1 | E QUERY q12 AS INSERT INTO o12 SELECT patient_id, avg(spo2) OVER (PARTITION BY patient_id ORDER BY ts DESC) AS m FROM vi
            |                                                             ^^^^ order by the event time, ascending: a stream knows no later rows

        error[SQL-0021]: the aggregate median(..) OVER is not supported over a stream
          1 | CREATE QUERY q13 AS INSERT INTO o13 SELECT patient_id, median(spo2) OVER (PARTITION BY patient_id ORDER BY ts) AS m FROM
            |                                                        ^^^^^^ aggregate over TUMBLE or HOP windows instead
          over a frame: count, sum, avg, min, max, stddev, stddev_pop, var, var_pop, first_value, last_value, row_number, rank, dense_rank

        error[SQL-0001]: EMIT ON WINDOW CLOSED is not a clause
          1 | CREATE QUERY q14 AS INSERT INTO o14 SELECT patient_id FROM vitals EMIT ON WINDOW CLOSED
            |                                                                        ^^ did you mean EMIT ON WINDOW CLOSE?

        error[SQL-0021]: EMIT ON UPDATE where no result changes is not supported over a stream
          1 | CREATE QUERY q15 AS INSERT INTO o15 SELECT patient_id FROM vitals EMIT ON UPDATE
            |                                                                   ^^^^ leave it out, or aggregate last: only conditions and columns may stand above the aggregate

        error[SQL-0021]: EMIT ON WINDOW CLOSE of groups without a window is not supported over a stream
          1 | REATE QUERY q16 AS INSERT INTO o16 SELECT patient_id, count(*) AS n FROM vitals GROUP BY patient_id EMIT ON WINDOW CLOSE
            |                                                                                                     ^^^^ write EMIT ON UPDATE, or group by a window

        error[SQL-0021]: reading the table "patient" as a stream is not supported over a stream
          1 | CREATE QUERY q17 AS INSERT INTO o17 SELECT patient_id FROM patient
            |                                                            ^^^^^^^ join it as it was: s JOIN t FOR SYSTEM_TIME AS OF s.ts AS t ON ..; a table alone can be read over stored data

        error[SQL-0021]: a subquery as a value is not supported over a stream
          join the two, by equal windows or by a range of time; or keep the value in a table and join that

        error[SQL-0021]: EXISTS or IN with a subquery as a value is not supported over a stream
          1 | CREATE QUERY q19 AS INSERT INTO o19 SELECT patient_id, EXISTS (SELECT 1 FROM labs l WHERE l.patient_id = v.patient_id) A
            |                                                        ^^^^^^ write it as a condition of WHERE; or a LEFT JOIN, and whether its columns are NULL

        error[SQL-0013]: no function "max_by"
          1 | CREATE QUERY q20 AS INSERT INTO o20 SELECT patient_id, max_by(spo2, ts) AS m FROM vitals GROUP BY patient_id
            |                                                        ^^^^^^ did you mean last_value(x ORDER BY y)?

    "#]]).await;
}

#[tokio::test]
async fn results_that_no_column_and_no_key_can_hold() {
    let selects = [
        "SELECT patient_id, NULL AS note FROM vitals",
        "SELECT patient_id, ts - lag(ts) OVER (PARTITION BY patient_id ORDER BY ts) AS gap FROM vitals",
        "SELECT named_struct('p', patient_id, 'w', ward) AS who, count(*) AS n FROM vitals GROUP BY named_struct('p', patient_id, 'w', ward)",
        "SELECT patient_id FROM vitals WHERE row_number() OVER (PARTITION BY patient_id ORDER BY ts) = 1",
        "SELECT patient_id, row_number() AS n FROM vitals",
        "SELECT patient_id, datediff(ts, ts) AS n FROM vitals",
    ];
    let continuous = |(at, select): (usize, &&str)| format!("CREATE QUERY q{at} AS INSERT INTO o{at} {select}");
    let statements: Vec<String> = selects.iter().enumerate().map(continuous).collect();
    let statements: Vec<&str> = statements.iter().map(String::as_str).chain(["CREATE STREAM s (a JSONB)"]).collect();
    check(&statements, &expect![[r#"
        error[SQL-0005]: the column "note" is NULL of no type, which no stream's column can be
          1 | CREATE QUERY q0 AS INSERT INTO o0 SELECT patient_id, NULL AS note FROM vitals
            |                                                              ^^^^ say which type it is, as in CAST(NULL AS VARCHAR)

        error[SQL-0005]: the column "gap" is an INTERVAL, which no stream's column can be
          1 | QUERY q1 AS INSERT INTO o1 SELECT patient_id, ts - lag(ts) OVER (PARTITION BY patient_id ORDER BY ts) AS gap FROM vitals
            |                                                                                                          ^^^ say it in a unit: TIMESTAMPDIFF(SECOND, from, to); or CAST it AS VARCHAR

        error[SQL-0005]: column "who" cannot be a key: it is STRUCT<p VARCHAR, w VARCHAR>
          1 |  INTO o2 SELECT named_struct('p', patient_id, 'w', ward) AS who, count(*) AS n FROM vitals GROUP BY named_struct('p', pa
            |                                                             ^^^ group by its parts, each a column of its own: text, numbers, dates or times

        error[SQL-0020]: a function OVER rows stands where it has no rows yet
          filter by it with QUALIFY, or name it in a subquery and use the name around that

        error[SQL-0006]: row_number(..) has no OVER
          1 | CREATE QUERY q4 AS INSERT INTO o4 SELECT patient_id, row_number() AS n FROM vitals
            |                                                      ^^^^^^^^^^ write row_number(..) OVER (PARTITION BY .. ORDER BY ..)

        error[SQL-0013]: no function "datediff"
          1 | CREATE QUERY q5 AS INSERT INTO o5 SELECT patient_id, datediff(ts, ts) AS n FROM vitals
            |                                                      ^^^^^^^^ did you mean TIMESTAMPDIFF(DAY, from, to)?

        error[SQL-0005]: a column cannot be of type JSONB
          1 | CREATE STREAM s (a JSONB)
            |                    ^^^^^ take VARCHAR; text -> 'a' ->> 'b' and json_value(text, '$.a.b') read it

    "#]]).await;
}
