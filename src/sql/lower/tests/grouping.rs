//! GROUPING SETS, ROLLUP and CUBE: in windows, and in groups that change.

use std::collections::BTreeMap;

use super::updates::{check_no, check_told, continuous, told};
use super::*;

const WARDS: &str = "
    p1 1 hr=80 ward=a n=1
    p1 2 hr=90 n=2
    p2 3 hr=60 ward=a n=3
    p1 14 hr=100 ward=b
    p2 15 hr=70
    p1 3 hr=65 ward=a
    p2 26 hr=75 ward=b n=4
";

#[test]
fn null_and_not_grouped_stay_apart_and_a_late_row_is_late_once() {
    check(
        "SELECT patient_id, ward, grouping(patient_id) AS gp, grouping(ward) AS gw, grouping_id(patient_id, ward) AS g, window_end, count(*) AS n
         FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         GROUP BY window_start, window_end, ROLLUP (patient_id, ward)",
        WARDS,
        expect![[r#"
            - | - | 1 | 1 | 3 | 00:00:10 | 3
            p1 | - | 0 | 1 | 1 | 00:00:10 | 2
            p1 | a | 0 | 0 | 0 | 00:00:10 | 1
            p1 | - | 0 | 0 | 0 | 00:00:10 | 1
            p2 | - | 0 | 1 | 1 | 00:00:10 | 1
            p2 | a | 0 | 0 | 0 | 00:00:10 | 1
            - | - | 1 | 1 | 3 | 00:00:20 | 2
            p1 | - | 0 | 1 | 1 | 00:00:20 | 1
            p1 | b | 0 | 0 | 0 | 00:00:20 | 1
            p2 | - | 0 | 1 | 1 | 00:00:20 | 1
            p2 | - | 0 | 0 | 0 | 00:00:20 | 1
            - | - | 1 | 1 | 3 | 00:00:30 | 1
            p2 | - | 0 | 1 | 1 | 00:00:30 | 1
            p2 | b | 0 | 0 | 0 | 00:00:30 | 1
            Late 5
        "#]],
    );
}

#[test]
fn each_set_is_the_query_by_its_keys_alone() {
    for window in ["TUMBLE", "HOP", "CUMULATE"] {
        let lengths = if window == "TUMBLE" { "INTERVAL '10' SECOND" } else { "INTERVAL '5' SECOND, INTERVAL '15' SECOND" };
        let query = |columns: &str, by: &str| {
            format!(
                "SELECT {columns}, window_start, window_end, count(*) AS c, sum(n) AS s, max(hr) FILTER (WHERE hr < 90) AS m, count(DISTINCT n) AS d
                 FROM TABLE({window}(TABLE vitals, DESCRIPTOR(ts), {lengths})) GROUP BY window_start, window_end{by} HAVING count(*) > 0"
            )
        };
        let lines = |sql: &str| {
            let plan = planned(sql).unwrap_or_else(|e| panic!("{}", e.render(sql)));
            let whole = run(&plan, WARDS, Cutting::Whole);
            for cutting in [Cutting::Rows, Cutting::SavedAtEveryRow] {
                assert_eq!(run(&plan, WARDS, cutting), whole, "{cutting:?} of {sql}");
            }
            whole.lines().filter(|line| !line.starts_with("Late")).map(str::to_owned).collect::<Vec<_>>()
        };
        let mut expected = Vec::new();
        for (columns, by) in [
            ("patient_id, ward", ", patient_id, ward"),
            ("patient_id, CAST(NULL AS VARCHAR) AS ward", ", patient_id"),
            ("CAST(NULL AS VARCHAR) AS patient_id, ward", ", ward"),
            ("CAST(NULL AS VARCHAR) AS patient_id, CAST(NULL AS VARCHAR) AS ward", ""),
        ] {
            expected.extend(lines(&query(columns, by)));
        }
        let mut found = lines(&query("patient_id, ward", ", CUBE (patient_id, ward)"));
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{window}");
    }
}

#[test]
fn a_set_that_is_written_twice_comes_twice() {
    check(
        "SELECT ward, grouping(ward) AS g, window_end, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         GROUP BY GROUPING SETS ((window_start, window_end, ward), (window_start, window_end), (window_end, window_start))",
        WARDS,
        expect![[r#"
            a | 0 | 00:01:00 | 3
            - | 1 | 00:01:00 | 7
            - | 1 | 00:01:00 | 7
            - | 0 | 00:01:00 | 2
            b | 0 | 00:01:00 | 2
        "#]],
    );
}

#[test]
fn the_plan_names_the_sets_and_a_partition_is_worked_alone_where_every_set_has_the_key() {
    check_plan(
        "SELECT patient_id, ward, window_end, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         GROUP BY window_start, window_end, patient_id, CUBE (ward, acvpu)",
        expect![[r#"
            stream   vitals (one task a partition): patient_id, ward, ts, acvpu
            columns  patient_id, ward, ts, acvpu
            window   TUMBLE 10 s by [patient_id, ward, acvpu] in sets (patient_id), (patient_id, ward), (patient_id, acvpu), (patient_id, ward, acvpu): count(1)
            columns  patient_id, ward, window_end, count(1) AS n
            key      patient_id
        "#]],
    );
    check_plan(
        "SELECT patient_id, window_end, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         GROUP BY window_start, window_end, ROLLUP (patient_id)",
        expect![[r#"
            stream   vitals (one task over all partitions): patient_id, ts
            columns  patient_id, ts
            window   TUMBLE 10 s by [patient_id] in sets (), (patient_id): count(1)
            columns  patient_id, window_end, count(1) AS n
        "#]],
    );
}

#[test]
fn what_the_sets_of_a_window_cannot_be() {
    check_refused(
        "SELECT ward, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         GROUP BY GROUPING SETS ((window_start, window_end, ward), (ward))",
        expect![[r#"
            SQL-0020 a set of the GROUP BY leaves out window_start: GROUPING SETS, ROLLUP and CUBE group by the window in every set, as in GROUP BY window_start, window_end, ROLLUP (a, b)
        "#]],
    );
    check_refused(
        "SELECT patient_id, count(*) AS n FROM TABLE(SESSION(TABLE vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         GROUP BY window_start, window_end, ROLLUP (patient_id)",
        expect![[r#"
            SQL-0020 GROUPING SETS, ROLLUP and CUBE of SESSION windows are not supported: each key has sessions of its own, so write one query for each set
        "#]],
    );
}

#[test]
fn groups_that_change_are_told_apart_by_their_keys_where_these_are_never_null() {
    check_told(
        "SELECT patient_id, count(*) AS n, max(hr) AS hr FROM vitals GROUP BY ROLLUP (patient_id)",
        WARDS,
        expect![[r#"
        p1 | 1 | 80.0
        - | 1 | 80.0
        p1 | 2 | 90.0
        - | 2 | 90.0
        p2 | 1 | 60.0
        - | 3 | 90.0
        p1 | 3 | 100.0
        - | 4 | 100.0
        p2 | 2 | 70.0
        - | 5 | 100.0
        p1 | 4 | 100.0
        - | 6 | 100.0
        p2 | 3 | 75.0
        - | 7 | 100.0
    "#]],
    );
    check_no(
        "SELECT ward, count(*) AS n FROM vitals GROUP BY ROLLUP (ward)",
        expect![[r#"
        SQL-0006 the results change, and the SELECT list does not have grouping_id(ward), which tells them apart: add it to the SELECT list
    "#]],
    );
    check_no(
        "SELECT ward, acvpu, grouping(ward) AS g, count(*) AS n FROM vitals GROUP BY CUBE (ward, acvpu)",
        expect![[r#"
        SQL-0006 the results change, and the SELECT list does not have grouping_id(ward, acvpu), which tells them apart: add it to the SELECT list
    "#]],
    );
}

#[test]
fn groups_that_change_are_told_apart_by_what_the_select_list_says_of_their_set() {
    check_told(
        "SELECT ward, grouping_id(ward) AS g, count(*) AS n FROM vitals GROUP BY ROLLUP (ward) HAVING max(hr) < 100",
        WARDS,
        expect![[r#"
            a | 0 | 1
            - | 1 | 1
            - | 0 | 1
            - | 1 | 2
            a | 0 | 2
            - | 1 | 3
            - - | 1
            - | 0 | 2
            a | 0 | 3
        "#]],
    );
    // Each set as the query by its keys alone, whichever way its number is asked for.
    for number in ["grouping_id(ward, o2)", "grouping(ward) AS g1, grouping(o2)", "grouping_id(o2, ward) * 2 + 1"] {
        let left = |sql: &str| {
            let plan = continuous(sql).unwrap_or_else(|e| panic!("{}", e.render(sql)));
            let left = told(&plan, WARDS, Cutting::Rows).1;
            for cutting in [Cutting::Whole, Cutting::SavedAtEveryRow] {
                assert_eq!(told(&plan, WARDS, cutting).1, left, "{cutting:?} of {sql}");
            }
            left
        };
        let found = left(&format!(
            "SELECT ward, o2, {number} AS g, count(*) AS n, min(hr) AS hr FROM vitals GROUP BY CUBE (ward, o2) HAVING max(hr) < 100"
        ));
        let mut expected: BTreeMap<String, usize> = BTreeMap::new();
        for (columns, by) in [("ward, o2", "GROUP BY ward, o2"), ("ward, '-' AS o2", "GROUP BY ward"), ("'-' AS ward, o2", "GROUP BY o2")] {
            let plan = left(&format!("SELECT {columns}, count(*) AS n, min(hr) AS hr FROM vitals {by} HAVING max(hr) < 100"));
            for line in plan.into_values() {
                *expected.entry(line).or_default() += 1;
            }
        }
        let mut rows: BTreeMap<String, usize> = BTreeMap::new();
        for line in found.into_values() {
            let cells: Vec<&str> = line.split(" | ").collect();
            let at = cells.len() - 2;
            *rows.entry([&cells[..2], &cells[at..]].concat().join(" | ")).or_default() += 1;
        }
        // All rows together pass no condition on max(hr): 100 is among them.
        assert_eq!(rows, expected, "{number}");
    }
}

#[test]
fn windows_that_speak_early_have_sets_too() {
    check_told(
        "SELECT ward, grouping(ward) AS g, window_start, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         GROUP BY window_start, window_end, ROLLUP (ward) EMIT ON UPDATE",
        WARDS,
        expect![[r#"
            - | 1 | 00:00:00 | 1
            a | 0 | 00:00:00 | 1
            - | 1 | 00:00:00 | 2
            - | 0 | 00:00:00 | 1
            - | 1 | 00:00:00 | 3
            a | 0 | 00:00:00 | 2
            - | 1 | 00:00:10 | 1
            b | 0 | 00:00:10 | 1
            - | 1 | 00:00:10 | 2
            - | 0 | 00:00:10 | 1
            Late 5
            - | 1 | 00:00:20 | 1
            b | 0 | 00:00:20 | 1
        "#]],
    );
    check_told(
        "SELECT ward, grouping(ward) AS g, window_start, count(*) AS n FROM TABLE(TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         GROUP BY window_start, window_end, ROLLUP (ward) EMIT ON WINDOW CLOSE WITH GRACE INTERVAL '10' SECOND",
        WARDS,
        expect![[r#"
            - | 0 | 00:00:00 | 1
            - | 1 | 00:00:00 | 3
            a | 0 | 00:00:00 | 2
            - | 0 | 00:00:10 | 1
            - | 1 | 00:00:10 | 2
            b | 0 | 00:00:10 | 1
            - | 1 | 00:00:00 | 4
            a | 0 | 00:00:00 | 3
        "#]],
    );
}
