//! Groups of results that change, against what the rows come to when they are all there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::updates::{check_no, check_told, continuous, told};
use super::*;

/// What is left of a query's results, the same under every cut, each line once for each of its keys.
fn left(sql: &str, script: &str) -> Vec<String> {
    let plan = continuous(sql).unwrap_or_else(|e| panic!("{}", e.render(sql)));
    let rows = told(&plan, script, Cutting::Rows).1;
    for cutting in [Cutting::Whole, Cutting::SavedAtEveryRow] {
        assert_eq!(told(&plan, script, cutting).1, rows, "{cutting:?} of {sql}");
    }
    rows.into_values().collect()
}

/// Readings of a few patients in wards that they change, over two partitions.
fn script(seed: u64) -> String {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mut text = String::new();
    for second in 0..60 {
        let partition = chance.random_range(0..2);
        let (patient, ward) = (chance.random_range(0..6) * 2 + partition, chance.random_range(0..3));
        let (n, hr) = (chance.random_range(0..9), f64::from(chance.random_range(100..2000_i32)) / 16.0);
        writeln!(text, "@{partition} p{patient} {second} ward=w{ward} n={n} hr={hr}").unwrap();
    }
    text
}

/// The rows of a script: patient, ward, n, hr.
fn rows(script: &str) -> Vec<(String, String, i64, f64)> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |at: usize| words[at].split_once('=').unwrap().1.to_owned();
        (words[1].to_owned(), value(3), value(4).parse().unwrap(), value(5).parse().unwrap())
    };
    script.lines().map(line).collect()
}

#[test]
fn an_average_of_greatest_values_is_that_of_the_rows_that_hold() {
    for seed in 0..4 {
        let script = script(seed);
        let mut most: BTreeMap<(String, String), f64> = BTreeMap::new();
        for (patient, ward, _, hr) in rows(&script) {
            let of = most.entry((patient, ward)).or_insert(f64::MIN);
            *of = of.max(hr);
        }
        let mut expected: BTreeMap<String, (f64, u32)> = BTreeMap::new();
        for ((_, ward), hr) in most.iter().filter(|(_, hr)| **hr < 120.0) {
            let of = expected.entry(ward.clone()).or_default();
            *of = (of.0 + hr, of.1 + 1);
        }
        let expected: Vec<String> = expected.iter().map(|(ward, (sum, n))| format!("{ward} | {:?} | {n}", sum / f64::from(*n))).collect();
        let sql = "SELECT ward, avg(most) AS mean, count(*) AS n FROM
            (SELECT patient_id, ward, max(hr) AS most FROM vitals GROUP BY patient_id, ward HAVING max(hr) < 120) GROUP BY ward";
        assert_eq!(left(sql, &script), expected, "seed {seed}");
    }
}

#[test]
fn counts_of_counts_and_a_group_of_groups_of_groups() {
    for seed in 4..8 {
        let script = script(seed);
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        rows(&script).into_iter().for_each(|(patient, ..)| *counts.entry(patient).or_default() += 1);
        let mut alike: BTreeMap<i64, i64> = BTreeMap::new();
        counts.values().for_each(|n| *alike.entry(*n).or_default() += 1);
        let expected: Vec<String> = alike.iter().map(|(n, patients)| format!("{n} | {patients}")).collect();
        let by_count = "SELECT c, count(*) AS patients FROM (SELECT patient_id, count(*) AS c FROM vitals GROUP BY patient_id) GROUP BY c";
        let mut found = left(by_count, &script);
        found.sort_by_key(|line| line.split(' ').next().unwrap().parse::<i64>().unwrap());
        assert_eq!(found, expected, "seed {seed}");
        let sql = format!("SELECT max(patients) AS m, count(*) AS n, sum(c) AS s FROM ({by_count})");
        let expected = format!("{} | {} | {}", alike.values().max().unwrap(), alike.len(), alike.keys().sum::<i64>());
        assert_eq!(left(&sql, &script), [expected], "seed {seed}");
    }
}

#[test]
fn groups_of_the_first_rows_of_a_ranking_and_of_distinct_values() {
    for seed in 8..12 {
        let script = script(seed);
        let mut best: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        rows(&script).into_iter().for_each(|(patient, _, _, hr)| best.entry(patient).or_default().push(hr));
        let (mut low, mut count) = (f64::MAX, 0);
        for values in best.values_mut() {
            values.sort_by(|a, b| b.total_cmp(a));
            values.truncate(2);
            low = values.iter().copied().fold(low, f64::min);
            count += values.len();
        }
        let sql = "SELECT min(hr) AS low, count(*) AS n FROM (
            SELECT patient_id, hr, ROW_NUMBER() OVER (PARTITION BY patient_id ORDER BY hr DESC) AS place FROM vitals) WHERE place <= 2";
        assert_eq!(left(sql, &script), [format!("{low:?} | {count}")], "seed {seed}");
        let mut pairs: Vec<(String, i64)> = rows(&script).into_iter().map(|(_, ward, n, _)| (ward, n)).collect();
        pairs.sort();
        pairs.dedup();
        let sql = "SELECT count(*) AS pairs FROM (SELECT DISTINCT ward, n FROM vitals)";
        assert_eq!(left(sql, &script), [pairs.len().to_string()], "seed {seed}");
    }
}

#[test]
fn what_is_told_of_groups_whose_rows_move_fail_and_are_let_go() {
    check_told(
        "SELECT top, count(*) AS patients, sum(100 / (n - 1)) AS s FROM
            (SELECT patient_id, max(n) AS n, max(hr) > 85 AS top FROM vitals GROUP BY patient_id) GROUP BY top TTL 60",
        "p1 1 hr=80 n=2
         p2 2 hr=80 n=3
         p1 3 hr=90 n=2
         p2 4 hr=95 n=1
         p3 5 hr=20 n=1
         p3 6 hr=20 n=5
         p4 200 hr=50 n=2",
        expect![[r#"
            false | 1 | 100
            false | 2 | 150
            false | 1 | 50
            true | 1 | 100
            true | 2 | 150
            - false
            failed: could not evaluate CAST(100 / (CAST(n AS Int64) - 1) AS Decimal128(20, 0)): division by zero
            false | 1 | 25
            false | 1 | 100
            - true
        "#]],
    );
    check_plan_of(
        "SELECT ward, avg(most) AS mean FROM (SELECT patient_id, ward, max(hr) AS most FROM vitals GROUP BY patient_id, ward) GROUP BY ward",
        expect![[r#"
            stream   vitals (one task over all partitions): patient_id, ward, hr
            columns  patient_id, ward, hr
            update   by [patient_id, ward]: max(hr)
            columns  ward, max(hr) AS most
            regroup  by [ward], of what holds: avg(most)
            columns  ward, avg(most) AS mean
            key      ward
        "#]],
    );
}

#[allow(clippy::needless_pass_by_value, reason = "expect! reads best as a value")]
fn check_plan_of(sql: &str, expected: Expect) {
    let plan = continuous(sql).unwrap_or_else(|e| panic!("{}", e.render(sql)));
    expected.assert_eq(&plan.explain());
}

#[test]
fn what_cannot_stand_above_results_that_change() {
    check_no(
        "SELECT count(*) AS n, lag(n) OVER (ORDER BY n) AS l FROM (SELECT patient_id, count(*) AS n FROM vitals GROUP BY patient_id) GROUP BY n",
        expect![[r#"
            SQL-0021 GROUP BY without a window below another clause is not supported over a stream: add window_start, window_end or the event time to the GROUP BY, or write it into a table that another query joins
        "#]],
    );
    check_no(
        "SELECT c, count(*) AS n FROM (SELECT patient_id, count(*) AS c FROM vitals GROUP BY patient_id) GROUP BY ROLLUP (c)",
        expect![[r#"
            SQL-0021 GROUPING SETS, ROLLUP and CUBE over results that change is not supported over a stream: write one query for each
        "#]],
    );
    check_no(
        "SELECT n, count(*) AS c FROM (SELECT patient_id, count(*) AS n FROM vitals GROUP BY patient_id) GROUP BY n EMIT ON WINDOW CLOSE",
        expect![[r#"
            SQL-0021 GROUP BY without a window below another clause is not supported over a stream: add window_start, window_end or the event time to the GROUP BY, or write it into a table that another query joins
        "#]],
    );
}
