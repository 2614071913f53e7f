//! Results are a function of the rows alone: never of how they were cut into batches or where a task was restored.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// Readings with ties in time, NULLs, disorder and late ones, over two partitions.
fn any_readings(seed: u64) -> String {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mut now = 0;
    let mut script = String::new();
    for _ in 0..60 {
        now += chance.random_range(0..3);
        let patient = chance.random_range(0..4);
        let at = now - chance.random_range(0..8);
        let _ = write!(script, "@{} p{patient} {at}", patient % 2);
        for (name, most) in [("hr", 200), ("spo2", 100), ("n", 5)] {
            if chance.random_range(0..4) > 0 {
                let _ = write!(script, " {name}={}", chance.random_range(0..most));
            }
        }
        if chance.random_bool(0.7) {
            let _ = write!(script, " ward={} o2={}", ["a", "b", "c"][chance.random_range(0..3)], chance.random_bool(0.5));
        }
        script.push('\n');
    }
    script
}

#[test]
fn no_aggregate_depends_on_how_rows_were_cut_or_where_it_was_restored() {
    let exact = "count(*) AS a1, count(hr) AS a2, sum(hr) AS a3, avg(hr) AS a4, min(hr) AS a5, max(ward) AS a6, median(hr) AS a7, sum(n) AS a8, avg(n) AS a9,
        first_value(hr ORDER BY ts) AS b1, last_value(hr ORDER BY ts) AS b2, last_value(ward ORDER BY ts, hr DESC) AS b3, first_value(o2) AS b4, last_value(n) AS b5,
        count(DISTINCT ward) AS c1, count(DISTINCT n) AS c2, sum(DISTINCT n) AS c3, approx_distinct(ward) AS c4, approx_percentile_cont(hr, 0.9) AS c5, approx_median(hr) AS c6,
        bool_and(o2) AS d1, bool_or(o2) AS d2, array_agg(hr) AS d3, array_agg(hr ORDER BY ts) AS d4, string_agg(ward, ',' ORDER BY ts) AS d5, percentile_cont(hr, 0.25) AS d6,
        min(ts) AS e1, max(ts) AS e2, bit_or(n) AS e3, count(*) FILTER (WHERE spo2 < 50) AS e4, any_value(ward) AS e5, nth_value(hr, 2) AS e6";
    let near = "stddev(hr) AS f1, var_pop(hr) AS f2, corr(hr, spo2) AS f3, regr_slope(hr, spo2) AS f4, covar_samp(hr, spo2) AS f5";
    let windows = [
        "TUMBLE(TABLE vitals, DESCRIPTOR(ts), INTERVAL '10' SECOND)",
        "HOP(TABLE vitals, DESCRIPTOR(ts), INTERVAL '4' SECOND, INTERVAL '10' SECOND)",
    ];
    for (window, key) in windows.iter().flat_map(|w| [(w, "patient_id"), (w, "ward")]) {
        let of = |list: &str| {
            planned(&format!("SELECT {key} AS k, window_end, {list} FROM TABLE({window}) GROUP BY {key}, window_start, window_end"))
                .unwrap()
        };
        let (exact, near) = (of(exact), of(near));
        for seed in 0..2 {
            let script = any_readings(seed);
            let whole = run(&exact, &script, Cutting::Whole);
            for cutting in [Cutting::Rows, Cutting::SavedAtEveryRow] {
                assert_eq!(run(&exact, &script, cutting), whole, "seed {seed}, {cutting:?}, {window} by {key}");
            }
            let whole = run(&near, &script, Cutting::Whole);
            for cutting in [Cutting::Rows, Cutting::SavedAtEveryRow] {
                check_near(&run(&near, &script, cutting), &whole, &format!("seed {seed}, {cutting:?}, {window} by {key}"));
            }
        }
    }
}

/// Equal but for the last bits of numbers.
fn check_near(got: &str, wanted: &str, what: &str) {
    assert_eq!(got.lines().count(), wanted.lines().count(), "{what}");
    for (got, wanted) in got.lines().zip(wanted.lines()) {
        for (a, b) in got.split(" | ").zip(wanted.split(" | ")) {
            let near = match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * b.abs().max(1.0),
                _ => a == b,
            };
            assert!(near, "{what}: {got} for {wanted}");
        }
    }
}
