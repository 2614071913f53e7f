//! Results that change: what is told row by row, what is left of it, and what is refused.

use std::collections::BTreeMap;

use super::*;
use crate::sql::statement::StateTtl;

pub(super) fn continuous(sql: &str) -> Result<QueryPlan, SqlError> {
    let (text, ttl) = match sql.split_once(" TTL ") {
        Some((text, seconds)) => (text, StateTtl::For(Duration::from_secs(seconds.trim().parse().unwrap()))),
        None => (sql, StateTtl::Unstated),
    };
    let create = parse_statement(&format!("CREATE QUERY q AS INSERT INTO o {text}"))?;
    let Statement::CreateQuery(query) = create.statement else { panic!("{text}") };
    plan(&Select { state_ttl: ttl, ..query.select }, &sources(4), Purpose::ExactlyOnce)
}

/// What is told after each row, `-` before what is gone; and what is left.
pub(super) fn told(plan: &QueryPlan, script: &str, cutting: Cutting) -> (Vec<String>, BTreeMap<String, String>) {
    let rows = batches(script);
    let mut chain = plan.chain(Scope::Merged).unwrap();
    let partitions = rows.iter().map(|(p, _)| *p).max().unwrap_or(0) + 1;
    let mut stampers: Vec<Stamper> = (0..partitions).map(|p| Stamper::new(plan.inputs[0].time.clone(), PartitionId(p))).collect();
    let mut offsets = vec![0; partitions as usize];
    let (mut said, mut left) = (Vec::new(), BTreeMap::new());
    let keys: Vec<usize> = plan.key_columns.iter().map(|key| plan.schema.index_of(key).unwrap()).collect();
    for (at, (partition, batch)) in rows.iter().enumerate() {
        let mut out = Output::default();
        let offset = std::mem::replace(&mut offsets[*partition as usize], at as i64 + 1);
        let stamper = &mut stampers[*partition as usize];
        let stamped = stamper.stamp_batch(batch.clone(), vec![offset].into(), AheadJudge::Nobody, &mut out.aside).unwrap();
        chain.rows(&stamped, &mut out).unwrap();
        chain.watermark(stampers.iter().map(Stamper::watermark).min().unwrap(), &mut out).unwrap();
        if cutting != Cutting::Whole || at + 1 == rows.len() {
            chain.flush(&mut out).unwrap();
        }
        if cutting == Cutting::SavedAtEveryRow {
            let mut state = StateWriter::default();
            chain.save(&mut state).unwrap();
            chain = plan.chain(Scope::Merged).unwrap();
            chain.restore(&StateReader::of(state.parts)).unwrap();
        }
        for rows in &out.rows {
            let options = FormatOptions::default().with_null("-");
            let columns: Vec<_> = rows.batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
            for row in 0..rows.len() {
                let cell = |at: &usize| columns[*at].value(row).to_string().replace("1970-01-01T", "");
                let key = keys.iter().map(cell).collect::<Vec<_>>().join(" | ");
                let line = (0..columns.len()).map(|at| cell(&at)).collect::<Vec<_>>().join(" | ");
                if rows.gone {
                    said.push(format!("- {key}"));
                    left.remove(&key);
                } else {
                    assert_eq!(rows.batch.schema(), plan.schema, "what comes out is what the plan says");
                    said.push(line.clone());
                    left.insert(key, line);
                }
            }
        }
        said.extend(out.aside.iter().map(|late| format!("{:?} {}", late.why, late.offset)));
        said.extend(out.failed.iter().map(|failed| format!("failed: {}", failed.reason)));
    }
    (said, left)
}

#[allow(clippy::needless_pass_by_value, reason = "expect! reads best as a value")]
pub(super) fn check_told(sql: &str, script: &str, expected: Expect) {
    let plan = continuous(sql).unwrap_or_else(|e| panic!("{}", e.render(sql)));
    let (said, left) = told(&plan, script, Cutting::Rows);
    for cutting in [Cutting::Whole, Cutting::SavedAtEveryRow] {
        assert_eq!(told(&plan, script, cutting).1, left, "{cutting:?} of {sql}");
    }
    expected.assert_eq(&(said.join("\n") + "\n"));
}

#[allow(clippy::needless_pass_by_value, reason = "expect! reads best as a value")]
pub(super) fn check_no(sql: &str, expected: Expect) {
    let error = continuous(sql).expect_err(sql);
    expected.assert_eq(&format!("{} {error}\n", error.code));
}

#[test]
fn a_group_is_told_as_it_changes_and_is_gone_where_it_no_longer_passes() {
    check_told(
        "SELECT patient_id, count(*) AS n, sum(n) AS total, avg(hr) AS hr FROM vitals GROUP BY patient_id HAVING max(hr) < 100",
        READINGS,
        expect![[r#"
            p1 | 1 | 1 | 80.0
            p1 | 2 | 3 | 85.0
            p2 | 1 | 3 | 60.0
            - p1
            p2 | 2 | 3 | 62.5
        "#]],
    );
    check_told(
        "SELECT count(*) AS n, count(DISTINCT patient_id) AS patients FROM vitals EMIT ON UPDATE",
        READINGS,
        expect![[r#"
        1 | 1
        2 | 1
        3 | 2
        4 | 2
        5 | 2
        6 | 2
        7 | 2
    "#]],
    );
    check_told(
        "SELECT ward, max(hr) - min(hr) AS spread FROM vitals GROUP BY ward",
        READINGS,
        expect![[r#"
            - | 0.0
            - | 10.0
            - | 30.0
            - | 40.0
            - | 40.0
            - | 40.0
            - | 40.0
        "#]],
    );
}

#[test]
fn a_group_without_a_row_is_let_go_after_the_time_to_live() {
    check_told(
        "SELECT patient_id, count(*) AS n FROM vitals GROUP BY patient_id TTL 60",
        READINGS,
        expect![[r#"
        p1 | 1
        p1 | 2
        p2 | 1
        p1 | 3
        p1 | 4
        p2 | 2
        - p2
        p1 | 5
    "#]],
    );
}

#[test]
fn a_window_speaks_early_and_with_grace_once_more_for_late_rows() {
    const DISORDER: &str = "
        p1 1 hr=80
        p1 50 hr=90
        p1 67 hr=70
        p1 55 hr=100
        p2 58 hr=60
        p1 90 hr=71
        p1 59 hr=10
    ";
    let windows = |emit: &str| {
        format!(
            "SELECT patient_id, window_start, count(*) AS n, avg(hr) AS hr
             FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end {emit}"
        )
    };
    check_told(
        &windows("EMIT ON UPDATE"),
        DISORDER,
        expect![[r#"
        p1 | 00:00:00 | 1 | 80.0
        p1 | 00:00:00 | 2 | 85.0
        p1 | 00:01:00 | 1 | 70.0
        Late 3
        Late 4
        p1 | 00:01:00 | 2 | 70.5
        Late 6
    "#]],
    );
    check_told(
        &windows("EMIT ON WINDOW CLOSE WITH GRACE INTERVAL '20' SECOND"),
        DISORDER,
        expect![[r#"
        p1 | 00:00:00 | 2 | 85.0
        p1 | 00:00:00 | 3 | 90.0
        p2 | 00:00:00 | 1 | 60.0
        Late 6
    "#]],
    );
    check_told(
        &windows("HAVING avg(hr) > 85 EMIT ON WINDOW CLOSE WITH GRACE INTERVAL '20' SECOND"),
        DISORDER,
        expect![[r#"
        p1 | 00:00:00 | 3 | 90.0
        Late 6
    "#]],
    );
}

#[test]
fn a_group_over_windowed_groups_leaves_with_their_window() {
    check(
        "SELECT window_start, window_end, max(n) AS most, count(*) AS patients FROM (
           SELECT patient_id, window_start, window_end, count(*) AS n
           FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end
         ) GROUP BY window_start, window_end",
        READINGS,
        expect![[r#"
            00:00:00 | 00:01:00 | 3 | 2
            00:01:00 | 00:02:00 | 1 | 2
            00:02:00 | 00:03:00 | 1 | 1
        "#]],
    );
    check(
        "SELECT w.window_start AS five, avg(hr) AS hr FROM TUMBLE((
           SELECT patient_id, window_time, avg(hr) AS hr
           FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end, window_time
         ), window_time, INTERVAL '5' MINUTE) w GROUP BY w.window_start, w.window_end",
        READINGS,
        expect![[r#"
            00:00:00 | 72.0
        "#]],
    );
    check(
        "SELECT ts, count(*) AS n FROM vitals GROUP BY ts",
        READINGS,
        expect![[r#"
        00:00:01 | 1
        00:00:02 | 1
        00:00:03 | 2
        00:01:01 | 1
        00:01:02 | 1
        00:02:10 | 1
    "#]],
    );
}

#[test]
fn a_union_has_as_many_partitions_as_its_sources_together() {
    check_plan(
        "SELECT who, window_end, count(*) AS n FROM TUMBLE((
           SELECT patient_id AS who, ts FROM vitals UNION ALL SELECT patient_id, ts FROM labs UNION ALL SELECT patient_id, ts FROM few
         ), ts, INTERVAL '1' MINUTE) GROUP BY who, window_start, window_end",
        expect![[r#"
            stream   vitals (one task over all partitions): patient_id, ts
            columns  patient_id, ts
            columns  patient_id AS who, ts
            stream   labs: patient_id, ts
            columns  patient_id, ts
            columns  patient_id AS who, ts
            union    the rows of both
            stream   few: patient_id, ts
            columns  patient_id, ts
            columns  patient_id AS who, ts
            union    the rows of both
            window   TUMBLE 1 min by [who]: count(1)
            columns  who, window_end, count(1) AS n
            key      who
        "#]],
    );
}

#[test]
fn the_first_rows_of_a_key_are_kept_up_to_date() {
    check_told(
        "SELECT patient_id, hr, row_number() OVER (PARTITION BY patient_id ORDER BY hr DESC) AS place FROM vitals QUALIFY place <= 2",
        READINGS,
        expect![[r#"
            p1 | 80.0 | 1
            p1 | 90.0 | 1
            p1 | 80.0 | 2
            p2 | 60.0 | 1
            p1 | 100.0 | 1
            p1 | 90.0 | 2
            p2 | 65.0 | 1
            p2 | 60.0 | 2
        "#]],
    );
    check_told(
        "SELECT patient_id, ts, hr FROM vitals QUALIFY row_number() OVER (PARTITION BY patient_id ORDER BY ts DESC) = 1 TTL 60",
        READINGS,
        expect![[r#"
            p1 | 00:00:01 | 80.0
            p1 | 00:00:02 | 90.0
            p2 | 00:00:03 | 60.0
            p1 | 00:00:03 | 100.0
            p1 | 00:01:01 | 70.0
            p2 | 00:01:02 | 65.0
            - p2
            p1 | 00:02:10 | 75.0
        "#]],
    );
    // A condition behind the ranking leaves places without a row.
    check_told(
        "SELECT * FROM (SELECT patient_id, spo2, row_number() OVER (PARTITION BY patient_id ORDER BY hr) AS place FROM vitals)
         WHERE place <= 2 AND spo2 < 97",
        READINGS,
        expect![[r#"
            p1 | 96.0 | 2
            - p1 | 2
            p2 | 88.0 | 2
        "#]],
    );
    let ranked = |list: &str, until: &str| {
        format!("SELECT {list} FROM (SELECT *, row_number() OVER (PARTITION BY ward ORDER BY hr) AS place FROM vitals) WHERE {until}")
    };
    expect![[r#"
        stream   vitals (one task over all partitions): patient_id, ward, hr
        columns  patient_id, ward, hr
        top      first 3 of [ward] by [hr]
        columns  patient_id, ward, row_number() PARTITION BY [ward] ORDER BY [hr ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW AS row_number() PARTITION BY [vitals.ward] ORDER BY [vitals.hr ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        keep     row_number() PARTITION BY [ward] ORDER BY [hr ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW < 4
        columns  ward, patient_id, row_number() PARTITION BY [ward] ORDER BY [hr ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW AS place
        columns  ward, patient_id, place
        key      ward, place
    "#]].assert_eq(&continuous(&ranked("ward, patient_id, place", "place < 4")).unwrap().explain());
    check_no(
        &ranked("ward, patient_id", "place <= 3"),
        expect![[r#"
        SQL-0006 the results change, and the SELECT list does not have the ROW_NUMBER, which tells them apart: add it to the SELECT list
    "#]],
    );
    check_no(
        &ranked("patient_id, place", "place <= 3"),
        expect![[r#"
        SQL-0006 the results change, and the SELECT list does not have ward, which tells them apart: add it to the SELECT list
    "#]],
    );
    check_no(
        &ranked("ward, patient_id, place", "place > 3"),
        expect![[r#"
        SQL-0021 ROW_NUMBER() in another order than that of the event time, over partitions without an end, is not supported over a stream: keep the first few up to date, with QUALIFY ROW_NUMBER() OVER (..) <= 3 and nothing but conditions and columns above it; or add window_start, window_end or the event time to its PARTITION BY; or ORDER BY the event time
    "#]],
    );
    check_no(
        &format!("{} EMIT ON WINDOW CLOSE", ranked("ward, place", "place <= 3")),
        expect![[r#"
        SQL-0021 ROW_NUMBER() in another order than that of the event time, over partitions without an end, is not supported over a stream: keep the first few up to date, with QUALIFY ROW_NUMBER() OVER (..) <= 3 and nothing but conditions and columns above it; or add window_start, window_end or the event time to its PARTITION BY; or ORDER BY the event time
    "#]],
    );
    check_no(
        "SELECT ts, hr, row_number() OVER (PARTITION BY date_trunc('day', ts) ORDER BY hr) AS place FROM vitals QUALIFY place <= 3",
        expect![[r#"
            SQL-0021 the state would grow for ever: there is a group for every value of date_trunc('day', ts): let go of groups that have had no row for so long, WITH ('state.ttl' = '1d'), or group by a window
        "#]],
    );
}

#[test]
fn plans_say_what_changes_and_by_which_key() {
    let explained = |sql: &str| continuous(sql).unwrap_or_else(|e| panic!("{}", e.render(sql))).explain();
    let plans = [
        "SELECT ward, count(*) AS n FROM vitals GROUP BY ward HAVING count(*) > 1 EMIT EVERY INTERVAL '10' SECOND TTL 3600",
        "SELECT patient_id, avg(hr) AS hr, window_end FROM TABLE(HOP(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE))
         GROUP BY patient_id, window_start, window_end EMIT ON UPDATE",
        "SELECT patient_id, avg(hr) AS hr, window_start, window_end FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         GROUP BY patient_id, window_start, window_end EMIT ON WINDOW CLOSE WITH GRACE INTERVAL '1' MINUTE TIMEOUT INTERVAL '5' SECOND",
    ];
    expect![[r#"
        stream   vitals (one task over all partitions): ward
        columns  ward
        update   by [ward], each until 1 h without a row: count(1)
        keep     count(Int64(1)) > 1
        columns  ward, count(*) AS n
        every    10s
        key      ward

        stream   vitals (one task a partition): patient_id, ts, hr
        columns  patient_id, ts, hr
        update   HOP 1 min, size 5 min by [patient_id]: avg(hr)
        columns  patient_id, avg(hr) AS hr, window_end
        key      patient_id, window_end

        stream   vitals (one task a partition): patient_id, ts, hr
        columns  patient_id, ts, hr
        group    TUMBLE 1 min by [patient_id], late rows for 1 min: avg(hr)
        columns  patient_id, avg(hr) AS hr, window_start, window_end
        timeout  5s
        key      patient_id, window_start, window_end
    "#]]
    .assert_eq(&plans.map(explained).join("\n"));
}

#[test]
fn what_goes_back_to_a_keys_first_row_is_let_go_of_after_so_long_and_nothing_else_is() {
    let first = "SELECT patient_id, ts, hr FROM vitals QUALIFY row_number() OVER (PARTITION BY patient_id ORDER BY ts) = 1";
    let lasting = continuous(&format!("{first} TTL 3600")).unwrap().explain();
    assert!(lasting.contains("over     [patient_id] by time, each until 1 h without a row: row_number()"), "{lasting}");
    let lasting = continuous(first).unwrap().explain();
    assert!(lasting.contains("over     [patient_id] by time: row_number()"), "one entry a patient is no endless state: {lasting}");
    // The frame that goes back to the beginning is let go of, the one beside it ends by itself.
    let both = "SELECT patient_id, ts, sum(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS whole, avg(hr) OVER (PARTITION BY patient_id
                ORDER BY ts RANGE INTERVAL '5' MINUTE PRECEDING) AS near FROM vitals TTL 60";
    assert!(continuous(both).unwrap().explain().contains("each until 1 min without a row"));
    // Partitions that end with their time need none, whatever the number says.
    let of_an_instant = "SELECT patient_id, ts FROM vitals QUALIFY row_number() OVER (PARTITION BY patient_id, ts ORDER BY ts) = 1";
    assert!(!continuous(of_an_instant).unwrap().explain().contains("without a row"));
    check_no(
        "SELECT ts, count(*) OVER (PARTITION BY date_trunc('day', ts) ORDER BY ts) AS n FROM vitals",
        expect![[r#"
            SQL-0021 the state would grow for ever: there is a group for every value of date_trunc('day', ts): let go of groups that have had no row for so long, WITH ('state.ttl' = '1d'), or group by a window
        "#]],
    );
    for nothing in [
        "SELECT patient_id, hr FROM vitals TTL 60",
        "SELECT patient_id, avg(hr) AS hr, window_end FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         GROUP BY patient_id, window_start, window_end TTL 60",
        "SELECT patient_id, ts, avg(hr) OVER (PARTITION BY patient_id ORDER BY ts ROWS 9 PRECEDING) AS hr FROM vitals TTL 60",
    ] {
        check_no(
            nothing,
            expect![[r#"
                SQL-0004 'state.ttl' has nothing to let go of: whatever the query keeps comes to an end by itself: leave it out; 'state.max' bounds how much is kept
            "#]],
        );
    }
}

#[test]
fn what_would_grow_for_ever_or_has_no_key_is_refused() {
    check_no(
        "SELECT date_trunc('minute', ts) AS minute, count(*) AS n FROM vitals GROUP BY date_trunc('minute', ts)",
        expect![[r#"
            SQL-0021 the state would grow for ever: there is a group for every value of date_trunc('minute', ts): let go of groups that have had no row for so long, WITH ('state.ttl' = '1d'), or group by a window
        "#]],
    );
    check_no(
        "SELECT patient_id, array_agg(hr) AS all_of_them FROM vitals GROUP BY patient_id",
        expect![[r#"
        SQL-0021 the state would grow for ever: array_agg keeps every value that ever came: let go of groups that have had no row for so long, WITH ('state.ttl' = '1d'), or group by a window
    "#]],
    );
    check_no(
        "SELECT patient_id, count(DISTINCT ts) AS n FROM vitals GROUP BY patient_id",
        expect![[r#"
        SQL-0021 the state would grow for ever: count(DISTINCT ..) keeps every value of ts: let go of groups that have had no row for so long, WITH ('state.ttl' = '1d'), or group by a window
    "#]],
    );
    check_no(
        "SELECT patient_id, count(*) AS n FROM untimed GROUP BY patient_id TTL 60",
        expect![[r#"
        SQL-0021 'state.ttl' counts in event time, and stream "untimed" has none: declare one: WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
    "#]],
    );
    check_no(
        "SELECT count(*) AS n FROM vitals GROUP BY patient_id",
        expect![[r#"
        SQL-0006 the results change, and the SELECT list does not have patient_id, which tells them apart: add it to the SELECT list
    "#]],
    );
    check_no(
        "SELECT patient_id, count(*) AS n FROM vitals GROUP BY patient_id EMIT ON WINDOW CLOSE",
        expect![[r#"
        SQL-0021 EMIT ON WINDOW CLOSE of groups without a window is not supported over a stream: write EMIT ON UPDATE, or group by a window
    "#]],
    );
    check_no(
        "SELECT patient_id, hr FROM vitals EMIT ON UPDATE",
        expect![[r#"
        SQL-0021 EMIT ON UPDATE where no result changes is not supported over a stream: leave it out, or aggregate last: only conditions and columns may stand above the aggregate
    "#]],
    );
    check_no(
        "SELECT patient_id, count(*) AS n FROM TABLE(SESSION(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         GROUP BY patient_id, window_start, window_end EMIT ON UPDATE",
        expect![[r#"
            SQL-0021 EMIT ON UPDATE of SESSION windows is not supported over a stream: write EMIT ON WINDOW CLOSE: a session is known at its end
        "#]],
    );
    check_no(
        "SELECT patient_id, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         GROUP BY patient_id, window_start, window_end EMIT ON UPDATE",
        expect![[r#"
            SQL-0006 the results change, and the SELECT list does not have window_end, which tells them apart: add it to the SELECT list
        "#]],
    );
    check_no(
        "SELECT patient_id, window_start, window_end, max(before) AS most FROM TUMBLE((
           SELECT patient_id, ts, lag(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS before FROM vitals
         ), ts, INTERVAL '1' MINUTE) GROUP BY patient_id, window_start, window_end EMIT ON WINDOW CLOSE WITH GRACE INTERVAL '1' MINUTE",
        expect![[r#"
            SQL-0021 WITH GRACE of windows over rows that another clause has waited for (a window, a join, OVER, ..) is not supported over a stream: leave it out: what is late was late for that clause, and does not come so far
        "#]],
    );
    check_no(
        "SELECT w.window_start, w.window_end, max(n) AS most FROM TUMBLE((
           SELECT patient_id, window_time, count(*) AS n
           FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end, window_time
         ), window_time, INTERVAL '5' MINUTE) w
         GROUP BY w.window_start, w.window_end EMIT ON WINDOW CLOSE WITH GRACE INTERVAL '1' MINUTE",
        expect![[r#"
            SQL-0021 WITH GRACE of windows over rows that another clause has waited for (a window, a join, OVER, ..) is not supported over a stream: leave it out: what is late was late for that clause, and does not come so far
        "#]],
    );
    check_no(
        "SELECT patient_id, locf(hr, INTERVAL '1' MINUTE) AS hr FROM (SELECT patient_id, avg(hr) AS hr FROM vitals GROUP BY patient_id)",
        expect![[r#"
            SQL-0012 no column "ts"
        "#]],
    );
    check_no(
        "SELECT patient_id, n, lag(n) OVER (PARTITION BY patient_id ORDER BY last) AS before
         FROM (SELECT patient_id, count(*) AS n, max(ts) AS last FROM vitals GROUP BY patient_id)",
        expect![[r#"
            SQL-0021 GROUP BY without a window below another clause is not supported over a stream: add window_start, window_end or the event time to the GROUP BY, or write it into a table that another query joins
        "#]],
    );
    check_no(
        "SELECT patient_id, count(*) AS n FROM vitals GROUP BY patient_id UNION ALL SELECT patient_id, count(*) AS n FROM labs GROUP BY patient_id",
        expect![[r#"
            SQL-0021 GROUP BY without a window below another clause is not supported over a stream: add window_start, window_end or the event time to the GROUP BY, or write it into a table that another query joins
        "#]],
    );
    // A place in the day comes again and again.
    assert!(continuous("SELECT extract(hour FROM ts) AS hour, count(*) AS n FROM vitals GROUP BY extract(hour FROM ts)").is_ok());
}
