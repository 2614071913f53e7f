//! Joins as text: what they find, how they are planned, and which are refused.

use super::*;
use crate::sql::statement::StateTtl;

/// Carries readings of two streams through a join, the right ones after, between or before the left ones.
fn run(plan: &QueryPlan, scripts: [&str; 2], cutting: Cutting, seed: usize) -> String {
    let rows = scripts.map(batches);
    let scope = match plan.placement {
        Placement::Partition => Scope::Partition(PartitionId(0)),
        Placement::Merged => Scope::Merged,
    };
    let mut chain = plan.chain(scope).unwrap();
    let mut stampers: Vec<Vec<Stamper>> = rows
        .iter()
        .zip(&plan.inputs)
        .map(|(rows, input)| {
            let partitions = rows.iter().map(|(p, _)| *p).max().unwrap_or(0) + 1;
            (0..partitions).map(|p| Stamper::new(input.time.clone(), PartitionId(p))).collect()
        })
        .collect();
    let mut offsets = vec![vec![0; 8]; 2];
    let mut at = [0; 2];
    let mut out = Output::default();
    for turn in 0.. {
        let side = match cutting {
            Cutting::Whole => usize::from(at[0] == rows[0].len()),
            _ => (turn * 7 + seed) / 5 % 2,
        };
        let side = if at[side] < rows[side].len() { side } else { 1 - side };
        let Some((partition, batch)) = rows[side].get(at[side]) else { break };
        at[side] += 1;
        let offset = &mut offsets[side][*partition as usize];
        let stamper = &mut stampers[side][*partition as usize];
        let stamped = stamper.stamp_batch(batch.clone(), vec![*offset].into(), AheadJudge::Nobody, &mut out.aside).unwrap();
        *offset += 1;
        chain.rows_of(side, &stamped, &mut out).unwrap();
        if cutting != Cutting::Whole {
            let mark = stampers.iter().flatten().map(Stamper::watermark).min().unwrap();
            chain.watermark(mark, &mut out).unwrap();
        }
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
    let mut aside: Vec<String> = out.aside.iter().map(|late| format!("{:?} {}\n", late.why, late.offset)).collect();
    aside.sort();
    text + &aside.concat()
}

#[allow(clippy::needless_pass_by_value, reason = "expect! reads best as a value")]
fn check_join(sql: &str, expected: Expect) {
    let plan = planned(sql).unwrap_or_else(|e| panic!("{}", e.render(sql)));
    let whole = run(&plan, [LEFT, RIGHT], Cutting::Whole, 0);
    for seed in 0..5 {
        for cutting in [Cutting::Rows, Cutting::SavedAtEveryRow] {
            assert_eq!(run(&plan, [LEFT, RIGHT], cutting, seed), whole, "{cutting:?} {seed} of {sql}");
        }
    }
    expected.assert_eq(&whole);
}

const LEFT: &str = "
    p1 10 hr=80
    p2 12 hr=60
    p1 20 hr=90
    p3 21 hr=70
    p1 19 hr=85
    p1 40 hr=95
    p2 34 hr=65
    p2 41 hr=66
";

const RIGHT: &str = "
    p1 8 n=1
    p2 12 n=2
    p1 18 n=3
    p1 22 n=4
    p4 30 n=5
    p1 24 n=6
    p1 45 n=7
";

#[test]
fn an_interval_join_meets_what_lies_in_its_range() {
    check_join(
        "SELECT a.patient_id, a.ts, a.hr, b.ts AS b_ts, b.n FROM vitals a JOIN labs b
         ON a.patient_id = b.patient_id AND b.ts BETWEEN a.ts - INTERVAL '5' SECOND AND a.ts",
        expect![[r#"
            p1 | 00:00:10 | 80.0 | 00:00:08 | 1
            p2 | 00:00:12 | 60.0 | 00:00:12 | 2
            p1 | 00:00:19 | 85.0 | 00:00:18 | 3
            p1 | 00:00:20 | 90.0 | 00:00:18 | 3
            Late 5
            Late 6
        "#]],
    );
    check_join(
        "SELECT a.patient_id, a.ts, b.n FROM vitals a LEFT JOIN labs b
         ON a.patient_id = b.patient_id AND a.ts BETWEEN b.ts - INTERVAL '3' SECOND AND b.ts + INTERVAL '3' SECOND AND b.n > 2",
        expect![[r#"
            p1 | 00:00:10 | -
            p2 | 00:00:12 | -
            p1 | 00:00:19 | 3
            p1 | 00:00:20 | 3
            p1 | 00:00:19 | 4
            p1 | 00:00:20 | 4
            p3 | 00:00:21 | -
            p1 | 00:00:40 | -
            p2 | 00:00:41 | -
            Late 5
            Late 6
        "#]],
    );
}

#[test]
fn a_range_may_be_written_in_many_ways() {
    let of = |condition: &str| {
        let sql = format!("SELECT a.patient_id, a.ts, b.n FROM vitals a JOIN labs b ON a.patient_id = b.patient_id AND {condition}");
        run(&planned(&sql).unwrap_or_else(|e| panic!("{}", e.render(&sql))), [LEFT, RIGHT], Cutting::Whole, 0)
    };
    let expected = of("a.ts BETWEEN b.ts AND b.ts + INTERVAL '5' SECOND");
    assert!(expected.lines().count() > 3, "{expected}");
    for same in [
        "b.ts BETWEEN a.ts - INTERVAL '5' SECOND AND a.ts",
        "a.ts >= b.ts AND a.ts <= b.ts + INTERVAL '5 seconds'",
        "b.ts <= a.ts AND b.ts + INTERVAL '5' SECOND >= a.ts",
        "a.ts - INTERVAL '5' SECOND <= b.ts AND NOT a.ts < b.ts",
        "a.ts > b.ts - INTERVAL '1' MILLISECOND AND a.ts < b.ts + INTERVAL '5001' MILLISECOND",
        "a.ts BETWEEN b.ts AND b.ts + INTERVAL '1' MINUTE AND a.ts <= b.ts + INTERVAL '5' SECOND",
    ] {
        assert_eq!(of(same), expected, "{same}");
    }
    let comma = "SELECT a.patient_id, a.ts, b.n FROM vitals a, labs b
        WHERE a.patient_id = b.patient_id AND a.ts BETWEEN b.ts AND b.ts + INTERVAL '5' SECOND";
    assert_eq!(run(&planned(comma).unwrap(), [LEFT, RIGHT], Cutting::Whole, 0), expected, "{comma}");
}

#[test]
fn exists_is_a_semi_join_and_not_exists_an_anti_join() {
    check_join(
        "SELECT patient_id, ts FROM vitals a WHERE EXISTS (SELECT 1 FROM labs b WHERE b.patient_id = a.patient_id
         AND b.ts BETWEEN a.ts - INTERVAL '5' SECOND AND a.ts + INTERVAL '5' SECOND)",
        expect![[r#"
            p1 | 00:00:10
            p2 | 00:00:12
            p1 | 00:00:19
            p1 | 00:00:20
            p1 | 00:00:40
            Late 5
            Late 6
        "#]],
    );
    check_join(
        "SELECT patient_id, ts FROM vitals a WHERE NOT EXISTS (SELECT 1 FROM labs b WHERE b.patient_id = a.patient_id
         AND b.ts BETWEEN a.ts - INTERVAL '5' SECOND AND a.ts + INTERVAL '5' SECOND)",
        expect![[r#"
            p3 | 00:00:21
            p2 | 00:00:41
            Late 5
            Late 6
        "#]],
    );
}

#[test]
fn an_asof_join_finds_the_latest_row() {
    let expected = "SELECT a.patient_id, a.ts, b.ts AS b_ts, b.n FROM vitals a ASOF LEFT JOIN labs b MATCH_CONDITION (a.ts >= b.ts) ON a.patient_id = b.patient_id";
    check_join(
        expected,
        expect![[r#"
        p1 | 00:00:10 | 00:00:08 | 1
        p2 | 00:00:12 | 00:00:12 | 2
        p1 | 00:00:19 | 00:00:18 | 3
        p1 | 00:00:20 | 00:00:18 | 3
        p3 | 00:00:21 | - | -
        p1 | 00:00:40 | 00:00:22 | 4
        p2 | 00:00:41 | 00:00:12 | 2
        Late 5
        Late 6
    "#]],
    );
    // What WHERE asks of the row that was found does not make another one the latest.
    check_join(
        "SELECT a.patient_id, a.ts, b.n FROM vitals a ASOF JOIN labs b ON a.patient_id = b.patient_id AND b.ts < a.ts WHERE b.n <> 3",
        expect![[r#"
            p1 | 00:00:10 | 1
            p1 | 00:00:40 | 4
            p2 | 00:00:41 | 2
            Late 5
            Late 6
        "#]],
    );
}

#[test]
fn a_table_is_joined_as_it_was() {
    check_join(
        "SELECT v.patient_id, v.ts, p.n FROM vitals v LEFT JOIN patient FOR SYSTEM_TIME AS OF v.ts AS p ON v.patient_id = p.patient_id AND p.n <> 4",
        expect![[r#"
            p1 | 00:00:10 | 1
            p2 | 00:00:12 | 2
            p1 | 00:00:19 | 3
            p1 | 00:00:20 | 3
            p3 | 00:00:21 | -
            p1 | 00:00:40 | 6
            p2 | 00:00:41 | 2
            Late 6
        "#]],
    );
    check_join(
        "SELECT v.patient_id, v.ts, p.n + 1 AS n FROM vitals v JOIN beds FOR SYSTEM_TIME AS OF v.ts AS p ON p.patient_id = v.patient_id WHERE p.n > 1",
        expect![[r#"
            p2 | 00:00:12 | 3
            p1 | 00:00:19 | 4
            p1 | 00:00:20 | 4
            p1 | 00:00:40 | 7
            p2 | 00:00:41 | 3
            Late 6
        "#]],
    );
}

#[test]
fn windows_of_both_sides_are_joined_by_their_bounds() {
    check_join(
        "SELECT a.patient_id, a.window_start, a.c AS left_c, b.c AS right_c FROM
         (SELECT patient_id, window_start, window_end, count(*) AS c FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY patient_id, window_start, window_end) a
         FULL JOIN
         (SELECT patient_id, window_start, window_end, count(*) AS c FROM TABLE(TUMBLE(TABLE labs, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY patient_id, window_start, window_end) b
         ON a.patient_id = b.patient_id AND a.window_start = b.window_start AND a.window_end = b.window_end",
        expect![[r#"
            - | - | - | 1
            p2 | 00:00:10 | 1 | 1
            p1 | 00:00:10 | 2 | 1
            p1 | 00:00:20 | 1 | 2
            p3 | 00:00:20 | 1 | -
            p2 | 00:00:30 | 1 | -
            - | - | - | 1
            p1 | 00:00:40 | 1 | 1
            p2 | 00:00:40 | 1 | -
        "#]],
    );
}

#[test]
fn rows_of_one_window_are_joined_by_its_bounds() {
    check_join(
        "SELECT a.patient_id, a.ts, b.n FROM (SELECT * FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '10' SECOND))) a
         LEFT JOIN (SELECT * FROM TABLE(TUMBLE(TABLE labs, DESCRIPTOR(ts), INTERVAL '10' SECOND))) b
         ON a.patient_id = b.patient_id AND a.window_start = b.window_start AND a.window_end = b.window_end",
        expect![[r#"
            p2 | 00:00:12 | 2
            p1 | 00:00:10 | 3
            p1 | 00:00:19 | 3
            p1 | 00:00:20 | 4
            p3 | 00:00:21 | -
            p1 | 00:00:40 | 7
            p2 | 00:00:41 | -
            Late 5
            Late 6
        "#]],
    );
}

#[test]
fn the_plan_of_a_join_says_who_meets_whom_and_who_works_what() {
    check_plan(
        "SELECT a.patient_id, a.hr, b.n FROM vitals a LEFT JOIN labs b ON a.patient_id = b.patient_id AND a.ts BETWEEN b.ts - INTERVAL '5' MINUTE AND b.ts WHERE a.hr > 50",
        expect![[r#"
            stream   vitals (one task a partition): patient_id, ts, hr
            columns  patient_id, ts, hr
            keep     hr > 50
            stream   labs: patient_id, ts, n
            columns  patient_id, ts, n
            join     LEFT by [patient_id = patient_id], its time from the left one's to 5 min behind the left one's
            columns  patient_id, hr, n
            key      patient_id
        "#]],
    );
    check_plan(
        "SELECT a.patient_id, a.hr, b.n FROM vitals a JOIN few b ON a.patient_id = b.patient_id AND a.ts = b.ts AND a.hr < b.hr",
        expect![[r#"
            stream   vitals (one task over all partitions): patient_id, ts, hr
            columns  patient_id, ts, hr
            stream   few: patient_id, ts, hr, n
            columns  patient_id, ts, hr, n
            join     INNER by [patient_id = patient_id], at the same time, and hr < hr
            columns  patient_id, hr, n
            key      patient_id
        "#]],
    );
    check_plan(
        "SELECT v.patient_id, v.hr, b.n, p.acvpu FROM vitals v JOIN beds FOR SYSTEM_TIME AS OF v.ts AS b ON v.patient_id = b.patient_id
         LEFT JOIN patient FOR SYSTEM_TIME AS OF v.ts AS p ON v.patient_id = p.patient_id",
        expect![[r#"
            stream   vitals (one task a partition): patient_id, ts, hr
            columns  patient_id, ts, hr
            stream   beds (whole in every task): patient_id, n
            columns  patient_id, n
            join     INNER by [patient_id = patient_id], the version that holds at its time
            stream   patient: patient_id, acvpu
            columns  patient_id, acvpu
            join     LEFT by [patient_id = patient_id], the version that holds at its time
            columns  patient_id, hr, n, acvpu
            key      patient_id
        "#]],
    );
}

#[test]
fn windows_and_functions_go_on_behind_a_join() {
    check_join(
        "SELECT patient_id, window_start, count(*) AS c, sum(n) AS n FROM TABLE(TUMBLE(TABLE (
            SELECT a.patient_id, a.ts, b.n FROM vitals a LEFT JOIN labs b ON a.patient_id = b.patient_id AND b.ts BETWEEN a.ts - INTERVAL '15' SECOND AND a.ts
         ), DESCRIPTOR(ts), INTERVAL '20' SECOND)) GROUP BY patient_id, window_start, window_end",
        expect![[r#"
            p1 | 00:00:00 | 3 | 5
            p2 | 00:00:00 | 1 | 2
            p1 | 00:00:20 | 2 | 4
            p3 | 00:00:20 | 1 | -
            p1 | 00:00:40 | 1 | -
            p2 | 00:00:40 | 1 | -
            Late 5
            Late 6
        "#]],
    );
    check_join(
        "SELECT a.patient_id, a.ts, a.hr - lag(a.hr) OVER (PARTITION BY a.patient_id ORDER BY a.ts) AS change, b.n
         FROM vitals a ASOF LEFT JOIN labs b MATCH_CONDITION (a.ts >= b.ts) ON a.patient_id = b.patient_id",
        expect![[r#"
            p1 | 00:00:10 | - | 1
            p2 | 00:00:12 | - | 2
            p1 | 00:00:19 | 5.0 | 3
            p1 | 00:00:20 | 5.0 | 3
            p3 | 00:00:21 | - | -
            p1 | 00:00:40 | 5.0 | 4
            p2 | 00:00:41 | 6.0 | 2
            Late 5
            Late 6
        "#]],
    );
}

#[test]
fn rows_are_ranked_behind_a_join_until_the_last_of_them_can_have_come() {
    // A reading is up to five seconds younger than the result of the laboratory by which it is ranked.
    check_join(
        "SELECT b.patient_id, b.ts AS b_ts, a.ts, a.hr, row_number() OVER (PARTITION BY b.patient_id, b.ts ORDER BY a.hr DESC) AS place
         FROM vitals a JOIN labs b ON a.patient_id = b.patient_id AND a.ts BETWEEN b.ts AND b.ts + INTERVAL '5' SECOND",
        expect![[r#"
            p1 | 00:00:08 | 00:00:10 | 80.0 | 1
            p2 | 00:00:12 | 00:00:12 | 60.0 | 1
            p1 | 00:00:18 | 00:00:20 | 90.0 | 1
            p1 | 00:00:18 | 00:00:19 | 85.0 | 2
            Late 5
            Late 6
        "#]],
    );
    check_join(
        "SELECT a.patient_id, a.window_end, a.ts, b.n, count(*) OVER (PARTITION BY a.patient_id, a.window_end ORDER BY a.ts) AS so_far
         FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '20' SECOND)) a
         LEFT JOIN TABLE(TUMBLE(TABLE labs, DESCRIPTOR(ts), INTERVAL '20' SECOND)) b
         ON a.patient_id = b.patient_id AND a.window_start = b.window_start AND a.window_end = b.window_end",
        expect![[r#"
            p1 | 00:00:20 | 00:00:10 | 1 | 2
            p1 | 00:00:20 | 00:00:10 | 3 | 2
            p2 | 00:00:20 | 00:00:12 | 2 | 1
            p1 | 00:00:20 | 00:00:19 | 1 | 4
            p1 | 00:00:20 | 00:00:19 | 3 | 4
            p1 | 00:00:40 | 00:00:20 | 4 | 1
            p3 | 00:00:40 | 00:00:21 | - | 1
            p1 | 00:01:00 | 00:00:40 | 7 | 1
            p2 | 00:01:00 | 00:00:41 | - | 1
            Late 5
            Late 6
        "#]],
    );
}

#[test]
fn the_first_rows_of_a_window_may_be_joined_with_the_whole_of_it() {
    let sql = "SELECT f.patient_id, f.window_end, f.hr, m.n
         FROM (SELECT patient_id, hr, window_start, window_end FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '20' SECOND))
               QUALIFY row_number() OVER (PARTITION BY patient_id, window_start, window_end ORDER BY hr DESC) = 1) f
         JOIN (SELECT patient_id, count(*) AS n, window_start, window_end FROM TABLE(TUMBLE(TABLE labs, DESCRIPTOR(ts), INTERVAL '20' SECOND))
               GROUP BY patient_id, window_start, window_end) m
         ON f.patient_id = m.patient_id AND f.window_start = m.window_start AND f.window_end = m.window_end";
    let plan = planned(sql).unwrap_or_else(|e| panic!("{}", e.render(sql))).explain();
    assert!(plan.contains("at the same time") && plan.contains("rank     first 1"), "{plan}");
    check_join(
        sql,
        expect![[r#"
        p1 | 00:00:20 | 85.0 | 2
        p2 | 00:00:20 | 60.0 | 1
        p1 | 00:00:40 | 90.0 | 2
        p1 | 00:01:00 | 95.0 | 1
    "#]],
    );
}

#[test]
fn each_row_may_be_joined_with_its_whole_window() {
    check_join(
        "SELECT a.patient_id, a.ts, a.hr, m.n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '20' SECOND)) a
         JOIN (SELECT patient_id, count(*) AS n, window_start, window_end FROM TABLE(TUMBLE(TABLE labs, DESCRIPTOR(ts), INTERVAL '20' SECOND))
               GROUP BY patient_id, window_start, window_end) m
         ON a.patient_id = m.patient_id AND a.window_start = m.window_start AND a.window_end = m.window_end",
        expect![[r#"
            p1 | 00:00:10 | 80.0 | 2
            p1 | 00:00:19 | 85.0 | 2
            p2 | 00:00:12 | 60.0 | 1
            p1 | 00:00:20 | 90.0 | 2
            p1 | 00:00:40 | 95.0 | 1
            Late 6
        "#]],
    );
}

#[test]
fn what_may_have_no_partner_ends_no_ranking() {
    check_refused(
        "SELECT a.ts, row_number() OVER (PARTITION BY b.ts ORDER BY a.hr) AS place
         FROM vitals a LEFT JOIN labs b ON a.patient_id = b.patient_id AND a.ts BETWEEN b.ts AND b.ts + INTERVAL '5' SECOND",
        expect![[r#"
            SQL-0021 the state would grow for ever: there is a group for every value of ts: let go of groups that have had no row for so long, WITH ('state.ttl' = '1d'), or group by a window
        "#]],
    );
}

#[test]
fn joins_that_could_never_forget_are_refused() {
    check_refused(
        "SELECT a.hr FROM vitals a JOIN labs b ON a.patient_id = b.patient_id",
        expect![[r#"
        SQL-0021 JOIN without a range of time is not supported over a stream: say how far apart in time rows belong together, as in a.ts BETWEEN b.ts - INTERVAL '5' MINUTE AND b.ts
    "#]],
    );
    check_refused(
        "SELECT a.hr FROM vitals a JOIN labs b ON a.patient_id = b.patient_id AND a.ts > b.ts",
        expect![[r#"
        SQL-0021 JOIN with a range of time that is open at one end is not supported over a stream: say how far apart in time rows belong together, as in a.ts BETWEEN b.ts - INTERVAL '5' MINUTE AND b.ts
    "#]],
    );
    check_refused(
        "SELECT hr FROM vitals WHERE patient_id NOT IN (SELECT patient_id FROM labs)",
        expect![[r#"
        SQL-0021 IN or EXISTS with a subquery and no range of time is not supported over a stream: say how far apart in time rows belong together, as in a.ts BETWEEN b.ts - INTERVAL '5' MINUTE AND b.ts
    "#]],
    );
    check_refused(
        "SELECT a.hr FROM vitals a JOIN patient p ON a.patient_id = p.patient_id",
        expect![[r#"
        SQL-0021 reading the table "patient" as a stream is not supported over a stream: join it as it was: s JOIN t FOR SYSTEM_TIME AS OF s.ts AS t ON ..; a table alone can be read over stored data
    "#]],
    );
    check_refused(
        "SELECT a.hr FROM vitals a ASOF JOIN labs b MATCH_CONDITION (a.ts <= b.ts) ON a.patient_id = b.patient_id",
        expect![[r#"
            SQL-0020 MATCH_CONDITION looks for rows that come after a.ts: over a stream nobody knows how long to wait; write (a.ts >= b.ts), which takes the latest row before it
        "#]],
    );
    check_refused(
        "SELECT a.hr FROM vitals a ASOF JOIN labs b MATCH_CONDITION (a.ts >= b.ts) ON a.patient_id = b.patient_id AND a.hr > b.hr",
        expect![[r#"
            SQL-0021 the condition a.hr > b.hr in ASOF JOIN is not supported over a stream: in ON stand equalities: filter the right side in a subquery, or the result in WHERE
        "#]],
    );
    check_refused(
        "SELECT a.hr FROM vitals a JOIN labs FOR SYSTEM_TIME AS OF a.ts AS b ON a.patient_id = b.patient_id",
        expect![[r#"
        SQL-0021 "labs" is a stream, and FOR SYSTEM_TIME AS OF looks into a table: write ASOF JOIN .. MATCH_CONDITION (a.ts >= b.ts), or CREATE TABLE with a PRIMARY KEY
    "#]],
    );
    check_refused(
        "SELECT a.hr FROM vitals a JOIN patient FOR SYSTEM_TIME AS OF a.ts AS p ON a.ward = p.ward",
        expect![[r#"
        SQL-0021 a table is looked up by its whole PRIMARY KEY, and ON does not compare each of (patient_id) once: write ON s.patient_id = t.patient_id
    "#]],
    );
    check_refused(
        "SELECT a.hr FROM vitals a JOIN untimed b ON a.patient_id = b.patient_id AND a.ts = b.ts",
        expect![[r#"
        SQL-0021 JOIN without a range of time is not supported over a stream: say how far apart in time rows belong together, as in a.ts BETWEEN b.ts - INTERVAL '5' MINUTE AND b.ts
    "#]],
    );
    check_refused(
        "SELECT patient_id FROM vitals a WHERE hr > 5 OR EXISTS (SELECT 1 FROM labs b WHERE b.patient_id = a.patient_id AND b.ts = a.ts)",
        expect![[r#"
            SQL-0021 EXISTS or IN beside OR is not supported over a stream: write the join, or one query for each of the alternatives
        "#]],
    );
}

#[test]
fn a_join_without_a_range_of_time_takes_it_from_the_time_to_live() {
    let with_ttl = |sql: &str, seconds: u64| {
        let select = select(&format!("{sql} EMIT CHANGES"))?;
        plan(&Select { state_ttl: StateTtl::For(Duration::from_secs(seconds)), ..select }, &sources(4), Purpose::ExactlyOnce)
    };
    for kind in ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"] {
        for seconds in [1, 5, 1000] {
            let sql = format!("SELECT v.patient_id, v.hr, l.hr AS k FROM vitals v {kind} labs l ON v.patient_id = l.patient_id");
            let reach = format!("INTERVAL '{seconds}' SECOND");
            for (more, range) in [
                ("", format!(" AND v.ts BETWEEN l.ts - {reach} AND l.ts + {reach}")),
                (" AND l.ts >= v.ts", format!(" AND v.ts BETWEEN l.ts - {reach} AND l.ts")),
            ] {
                let expected = run(&planned(&format!("{sql}{range}")).unwrap(), [LEFT, RIGHT], Cutting::Whole, 0);
                let plan = with_ttl(&format!("{sql}{more}"), seconds).unwrap();
                for seed in 0..5 {
                    for cutting in [Cutting::Whole, Cutting::Rows, Cutting::SavedAtEveryRow] {
                        assert_eq!(run(&plan, [LEFT, RIGHT], cutting, seed), expected, "{cutting:?} {seed} of {sql}{more}, {seconds} s");
                    }
                }
            }
        }
    }
    let refused = |sql: &str| with_ttl(sql, 5).expect_err(sql).to_string();
    let untimed = "SELECT v.hr FROM vitals v JOIN untimed u ON v.patient_id = u.patient_id";
    assert!(refused(untimed).contains("stream \"untimed\" has none"), "{}", refused(untimed));
    let unequal = "SELECT v.hr FROM vitals v JOIN labs l ON v.hr > l.hr";
    assert!(refused(unequal).contains("without a range of time"), "{}", refused(unequal));
    let both = "SELECT v.hr FROM vitals v JOIN labs l ON v.patient_id = l.patient_id AND v.ts = l.ts";
    assert!(refused(both).contains("nothing to let go of"), "{}", refused(both));
}
