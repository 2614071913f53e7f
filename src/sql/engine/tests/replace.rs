//! A query that is replaced: where it goes on, with which state, and that nothing is lost or said twice.

use rand::{Rng, SeedableRng};

use super::*;
use crate::sql::engine::Outcome;
use crate::sql::error::{Code, SqlError};

const STREAM: &str = "CREATE STREAM v (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
    WITH ('topic' = 'v', 'partitions' = '2', 'key' = 'p', 'watermark.idle-timeout' = 'none');
    CREATE STREAM o (plan VARCHAR, p VARCHAR, window_start TIMESTAMP(3), window_end TIMESTAMP(3), n BIGINT) WITH ('topic' = 'o', 'partitions' = '1');";
pub(super) const BEGIN: i64 = 1_767_225_600_000;

pub(super) async fn run(bench: &Bench, text: &str) -> Result<String, SqlError> {
    let mut said = String::new();
    for parsed in parse_script(text)? {
        if let Outcome::Done(text) = bench.engine.run(parsed).await? {
            said = text;
        }
    }
    Ok(said)
}

/// Waits until everything that is written has been read, and its results are committed.
pub(super) async fn read_all(bench: &Bench) {
    let begun = Instant::now();
    loop {
        let statuses = bench.engine.statuses().await;
        if statuses.iter().all(|s| s.lag == Some(0) && s.state == QueryState::Running) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{statuses:?}");
        tokio::task::yield_now().await;
    }
}

pub(super) fn reading(p: &str, x: i64, second: i64) -> String {
    format!("{{\"p\":\"{p}\",\"x\":{x},\"ts\":{}}}", BEGIN + second * 1000)
}

/// The values of the column n, in order, once there are so many rows.
pub(super) async fn counts(bench: &Bench, wanted: usize) -> Vec<i64> {
    let rows = bench.values("o", wanted).await;
    assert_eq!(rows.len(), wanted, "{rows:?}");
    let mut all: Vec<i64> = rows.iter().map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap()["n"].as_i64().unwrap()).collect();
    all.sort_unstable();
    all
}

pub(super) fn query(plan: &str, select: &str) -> String {
    format!("CREATE OR REPLACE QUERY q AS INSERT INTO o SELECT '{plan}' AS plan, {select};")
}

const MINUTE: &str = "p, window_start, window_end, sum(x) AS n FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
    GROUP BY p, window_start, window_end";

#[tokio::test]
async fn another_select_list_goes_on_with_the_state_and_another_aggregate_makes_it_again() {
    let bench = Bench::new(&format!("{STREAM} {}", query("first", MINUTE))).await;
    bench.write_keyed("v", 0, &[reading("a", 1, 0), reading("a", 2, 70), reading("a", 4, 80)]).await;
    assert_eq!(counts(&bench, 1).await, [1]);
    read_all(&bench).await;
    let said = run(&bench, &query("second", &format!("{MINUTE} HAVING sum(x) > 5"))).await.unwrap();
    assert!(said.ends_with("it goes on where it was"), "{said}");
    bench.write_keyed("v", 0, &[reading("a", 8, 110), reading("a", 16, 130)]).await;
    assert_eq!(counts(&bench, 2).await, [1, 14]);
    read_all(&bench).await;
    let said = run(&bench, &query("third", &MINUTE.replace("sum(x)", "max(x)"))).await.unwrap();
    assert!(said.contains("its state made again from 5 records"), "{said}");
    bench.write_keyed("v", 0, &[reading("a", 3, 140), reading("a", 1, 190)]).await;
    assert_eq!(counts(&bench, 3).await, [1, 14, 16]);
    read_all(&bench).await;
    // What the condition had kept out counts for the windows that are open.
    run(&bench, &query("fourth", &MINUTE.replace("GROUP", "WHERE x > 2 GROUP"))).await.unwrap();
    bench.write_keyed("v", 0, &[reading("a", 7, 200), reading("a", 2, 300)]).await;
    assert_eq!(counts(&bench, 4).await, [1, 7, 14, 16]);
    bench.engine.close().await;
}

#[tokio::test]
async fn a_query_over_another_stream_begins_there_and_one_over_the_same_topic_goes_on() {
    let other = STREAM.split(';').next().unwrap().replace("STREAM v", "STREAM w").replace("'topic' = 'v'", "'topic' = 'w'");
    let same = STREAM.split(';').next().unwrap().replace("STREAM v", "STREAM u");
    let bench = Bench::new(&format!("{STREAM} {other}; {same};")).await;
    bench.write_keyed("w", 0, &[reading("b", 100, 0), reading("b", 200, 1)]).await;
    bench.write_keyed("v", 0, &[reading("a", 1, 0), reading("a", 2, 1), reading("a", 3, 2)]).await;
    let plain = "p, ts AS window_start, ts AS window_end, x AS n FROM v";
    run(&bench, &query("v", plain)).await.unwrap();
    assert_eq!(counts(&bench, 3).await, [1, 2, 3]);
    read_all(&bench).await;
    run(&bench, &query("u", &plain.replace("FROM v", "FROM u"))).await.unwrap();
    bench.write_keyed("v", 0, &[reading("a", 4, 3)]).await;
    assert_eq!(counts(&bench, 4).await, [1, 2, 3, 4]);
    read_all(&bench).await;
    run(&bench, &query("w", &plain.replace("FROM v", "FROM w"))).await.unwrap();
    assert_eq!(counts(&bench, 6).await, [1, 2, 3, 4, 100, 200]);
    bench.engine.close().await;
    let bench = Bench::over(Arc::clone(&bench.broker)).await;
    bench.write_keyed("w", 1, &[reading("c", 300, 0)]).await;
    assert_eq!(counts(&bench, 7).await, [1, 2, 3, 4, 100, 200, 300]);
    bench.engine.close().await;
}

#[tokio::test]
async fn results_that_change_are_all_told_again_under_the_new_plan() {
    let updating = |of: &str| format!("CREATE OR REPLACE QUERY q AS INSERT INTO u SELECT p, {of} AS n FROM v GROUP BY p;");
    let bench = Bench::new(&format!("{STREAM} {}", updating("sum(x)"))).await;
    bench.write_keyed("v", 0, &[reading("a", 1, 0), reading("b", 5, 0), reading("a", 3, 1)]).await;
    bench.values("u", 2).await;
    read_all(&bench).await;
    let before = bench.values("u", 2).await.len();
    let said = run(&bench, &updating("max(x)")).await.unwrap();
    assert!(said.ends_with("; all its results are told again, and a key that it no longer has keeps its last row in \"u\""), "{said}");
    let told = bench.values("u", before + 2).await;
    assert!(told.contains(&r#"{"p":"a","n":3}"#.to_owned()) && told.contains(&r#"{"p":"b","n":5}"#.to_owned()), "{told:?}");
    bench.engine.close().await;
}

#[tokio::test]
async fn after_its_topic_has_grown_a_query_that_keeps_keys_is_not_replaced_and_the_one_before_stands() {
    let bench = Bench::new(&format!("{STREAM} {}", query("first", MINUTE))).await;
    bench.write_keyed("v", 0, &[reading("a", 1, 0)]).await;
    read_all(&bench).await;
    bench.broker.create_partitions(&topic("v"), 3).await.unwrap();
    let error = run(&bench, &query("second", MINUTE)).await.unwrap_err();
    assert!(error.code == Code::Execution && error.message.contains("had 2"), "{error:?}");
    assert_eq!(bench.engine.statuses().await[0].version, 1);
    bench.engine.close().await;
}

/// How many walks: more where `SEEDS` says so.
pub(super) fn seeds(usual: u64) -> u64 {
    std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[tokio::test]
async fn no_more_is_read_again_than_the_windows_need_also_of_a_query_that_was_paused() {
    let bench = Bench::new(&format!("{STREAM} {}", query("first", MINUTE))).await;
    for day in 0..10 {
        let rows: Vec<String> = (0..24).map(|hour| reading("a", 1 + hour, (day * 24 + hour) * 3600)).collect();
        bench.write_keyed("v", 0, &rows).await;
        run(&bench, "PAUSE QUERY q; RESUME QUERY q;").await.unwrap();
        read_all(&bench).await;
    }
    run(&bench, "PAUSE QUERY q;").await.unwrap();
    let status = &bench.engine.statuses().await[0];
    assert_eq!((status.state, bench.values("o", 239).await.len()), (QueryState::Paused, 239));
    bench.write_keyed("v", 0, &[reading("a", 100, 239 * 3600 + 1), reading("a", 1, 241 * 3600)]).await;
    let said = run(&bench, &query("second", &MINUTE.replace("sum(x)", "max(x)"))).await.unwrap();
    assert!(said.ends_with("RESUME QUERY q starts it where it was"), "{said}");
    run(&bench, "RESUME QUERY q;").await.unwrap();
    read_all(&bench).await;
    let refill = bench.engine.statuses().await[0].refill;
    assert!((48..120).contains(&refill.records) && refill.read == refill.records, "of 240 records those of two days and a bit: {refill:?}");
    assert_eq!(*counts(&bench, 240).await.last().unwrap(), 100);
    bench.engine.close().await;
}

/// Plans for the walk below: the SELECT behind the word that says which, whether it merges the partitions, and
/// whether its windows include their end.
pub(super) const PLANS: [(&str, bool, bool); 6] = [
    (
        "p, window_start, window_end, sum(x) AS n FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY p, window_start, window_end",
        false,
        false,
    ),
    (
        "p, window_start, window_end, count(*) AS n FROM TABLE(HOP(TABLE v, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '20' SECOND)) WHERE x > 3 GROUP BY p, window_start, window_end",
        false,
        false,
    ),
    (
        "CAST(NULL AS VARCHAR) AS p, window_start, window_end, sum(x) AS n FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end",
        true,
        false,
    ),
    (
        "p, window_start, window_end, max(x) AS n FROM TABLE(SESSION(TABLE v PARTITION BY p, DESCRIPTOR(ts), INTERVAL '4' SECOND)) GROUP BY p, window_start, window_end",
        false,
        true,
    ),
    (
        "CAST(NULL AS VARCHAR) AS p, window_start, window_end, count(DISTINCT p) AS n FROM TABLE(HOP(TABLE v, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '30' SECOND)) GROUP BY window_start, window_end",
        true,
        false,
    ),
    (
        "p, window_start, window_end, sum(x) + 1 AS n FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY p, window_start, window_end HAVING sum(x) > 4",
        false,
        false,
    ),
];

/// The rows of a plan over all that is stored, each with its key and end.
pub(super) async fn whole(bench: &Bench, at: usize, tag: usize) -> Vec<(String, Option<String>, i64)> {
    let rows = stored(&bench.engine, &format!("SELECT 'plan{tag}' AS plan, {}", PLANS[at].0)).await;
    rows.into_iter()
        .map(|row| {
            let value: serde_json::Value = serde_json::from_str(&row).unwrap();
            let end = chrono::DateTime::parse_from_rfc3339(value["window_end"].as_str().unwrap()).unwrap().timestamp_millis();
            (row, value["p"].as_str().map(str::to_owned), end)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_takes_whose_place_each_window_is_told_once_and_whole_by_the_plan_in_whose_time_it_closed() {
    for seed in 0..seeds(4) {
        let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut bench = Bench::new(STREAM).await;
        let mut time = 0;
        let mut marks = [i64::MIN; 2];
        // Which plan held, and the watermarks of the partitions at its end.
        let mut held: Vec<(usize, [i64; 2])> = Vec::new();
        for tag in 0..7 {
            let at = chance.random_range(0..PLANS.len());
            run(&bench, &query(&format!("plan{tag}"), PLANS[at].0)).await.unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
            for _ in 0..chance.random_range(1..4) {
                let partition = chance.random_range(0..2usize);
                let rows: Vec<String> = (0..chance.random_range(1..12))
                    .map(|_| {
                        time += chance.random_range(0..3);
                        let second = (time - chance.random_range(0..5)).max(0);
                        marks[partition] = marks[partition].max(BEGIN + second * 1000 - 2000);
                        let p = ["a", "b", "c", "d"][partition * 2 + chance.random_range(0..2usize)];
                        reading(p, chance.random_range(1..9), second)
                    })
                    .collect();
                bench.write_keyed("v", partition as i32, &rows).await;
            }
            read_all(&bench).await;
            if chance.random_bool(0.3) {
                bench.engine.close().await;
                bench = Bench::over(Arc::clone(&bench.broker)).await;
                read_all(&bench).await;
            }
            held.push((at, marks));
        }
        bench.engine.close().await;
        let mut expected = Vec::new();
        let mut from = [i64::MIN; 2];
        for (tag, (at, to)) in held.iter().enumerate() {
            let (_, is_merged, has_its_end) = PLANS[*at];
            for (row, p, end) in whole(&bench, *at, tag).await {
                let partition = usize::from(p.is_some_and(|p| p.as_str() >= "c"));
                let mark = |of: [i64; 2]| if is_merged { of[0].min(of[1]) } else { of[partition] };
                let closed = |at: i64| if has_its_end { at > end } else { at >= end };
                if !closed(mark(from)) && closed(mark(*to)) {
                    expected.push(row);
                }
            }
            from = *to;
        }
        expected.sort();
        let plans: Vec<usize> = held.iter().map(|(at, _)| *at).collect();
        assert_eq!(bench.values("o", 0).await, expected, "seed {seed}, plans {plans:?}");
    }
}

#[tokio::test]
async fn a_reading_that_was_ahead_of_the_clock_moves_no_time_when_the_state_is_made_again() {
    let stream = STREAM.replace("'watermark.idle-timeout' = 'none'", "'watermark.idle-timeout' = 'none', 'watermark.max-future' = '1h'");
    let tumble = "TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '10' MINUTE)";
    let session = "SESSION(TABLE v PARTITION BY p, DESCRIPTOR(ts), INTERVAL '7' MINUTE)";
    for (frame, before, after) in [(tumble, vec![3], vec![3, 12]), (session, vec![], vec![15])] {
        let begin = Clock::system().now().0.div_euclid(600_000) * 600_000;
        let at = |p: &str, x: i64, minute: i64| format!("{{\"p\":\"{p}\",\"x\":{x},\"ts\":{}}}", begin + minute * 60_000);
        let select = |aggregate: &str| {
            format!("p, window_start, window_end, {aggregate} AS n FROM TABLE({frame}) GROUP BY p, window_start, window_end")
        };
        let bench = Bench::new(&format!("{stream} {}", query("first", &select("sum(x)")))).await;
        // One device is more than an hour ahead of the clock, and less than an hour ahead of the others' last reading.
        bench.write_keyed("v", 0, &[at("a", 1, 31), at("fast", 1, 75), at("a", 2, 36), at("a", 4, 42)]).await;
        read_all(&bench).await;
        assert_eq!(bench.engine.statuses().await[0].counts.ahead, 1);
        assert_eq!(counts(&bench, before.len()).await, before);
        let said = run(&bench, &query("second", &select("sum(x) + 0 * min(x)"))).await.unwrap();
        assert!(said.contains("its state made again from 4 records"), "{said}");
        bench.write_keyed("v", 0, &[at("a", 8, 47), at("a", 0, 58)]).await;
        assert_eq!(counts(&bench, after.len()).await, after, "{frame}");
        assert_eq!(bench.engine.statuses().await[0].counts.late, 0);
        bench.engine.close().await;
    }
}

/// The same results by two plans whose states do not fit each other.
const SAME: [(&str, &str, &str); 3] = [
    (
        "sessions",
        "SELECT p, window_start, window_end, sum(x) AS n FROM TABLE(SESSION(TABLE v PARTITION BY p, DESCRIPTOR(ts), INTERVAL '8' SECOND)) GROUP BY p, window_start, window_end",
        "SELECT p, window_start, window_end, sum(x) + 0 * min(x) AS n FROM TABLE(SESSION(TABLE v PARTITION BY p, DESCRIPTOR(ts), INTERVAL '8' SECOND)) GROUP BY p, window_start, window_end",
    ),
    (
        "pairs",
        "SELECT a.p, a.x, b.x AS y FROM v a JOIN v b ON a.p = b.p AND b.ts BETWEEN a.ts - INTERVAL '20' SECOND AND a.ts",
        "SELECT a.p, a.x, b.x AS y FROM v a JOIN v b ON a.p = b.p AND b.x > 0 AND b.ts BETWEEN a.ts - INTERVAL '20' SECOND AND a.ts",
    ),
    (
        "frames",
        "SELECT p, x, sum(x) OVER (PARTITION BY p ORDER BY ts ROWS 5 PRECEDING) AS n FROM v",
        "SELECT p, x, sum(x) OVER (PARTITION BY p ORDER BY ts ROWS 5 PRECEDING) + 0 * count(x) OVER (PARTITION BY p ORDER BY ts ROWS 5 PRECEDING) AS n FROM v",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_devices_that_are_fast_a_query_that_is_replaced_says_what_one_says_that_has_always_run() {
    use std::sync::atomic::{AtomicI64, Ordering};
    for seed in 0..seeds(3) {
        let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let hands: &'static [AtomicI64; 2] = Box::leak(Box::new([AtomicI64::new(BEGIN), AtomicI64::new(0)]));
        let bench = Bench::by(TestDisk::default().broker().await, Clock::by_hand(hands)).await;
        run(&bench, STREAM).await.unwrap();
        let create = |name: &str, into: &str, select: &str| format!("CREATE OR REPLACE QUERY {name} AS INSERT INTO {into} {select};");
        for (name, one, _) in SAME {
            run(&bench, &create(&format!("{name}_always"), &format!("{name}_always"), one)).await.unwrap();
            run(&bench, &create(name, name, one)).await.unwrap();
        }
        let mut is_other = [false; SAME.len()];
        let mut x = 0;
        for _ in 0..40 {
            let now = hands[0].fetch_add(chance.random_range(0..6_000), Ordering::Relaxed) - BEGIN;
            let partition = chance.random_range(0..2usize);
            let rows: Vec<String> = (0..chance.random_range(1..6))
                .map(|_| {
                    x += 1;
                    let p = ["a", "b", "c", "d"][partition * 2 + chance.random_range(0..2usize)];
                    // Most are a little late; some come from a device that is fast, by too little to be told from the others soon after.
                    let ahead = if chance.random_bool(0.2) { chance.random_range(12_000..70_000) } else { -chance.random_range(0..4_000) };
                    format!("{{\"p\":\"{p}\",\"x\":{x},\"ts\":{}}}", BEGIN + now + ahead)
                })
                .collect();
            bench.write_keyed("v", partition as i32, &rows).await;
            // All of them hear the clock say the same of these rows.
            read_all(&bench).await;
            let at = chance.random_range(0..SAME.len());
            if chance.random_bool(0.3) {
                is_other[at] ^= true;
                let (name, one, other) = SAME[at];
                run(&bench, &create(name, name, if is_other[at] { other } else { one })).await.unwrap();
                read_all(&bench).await;
            }
        }
        let end = hands[0].fetch_add(3_600_000, Ordering::Relaxed) + 3_600_000 - BEGIN;
        for (partition, p) in [(0, "a"), (1, "c")] {
            bench.write_keyed("v", partition, &[reading(p, 1, end / 1000)]).await;
        }
        read_all(&bench).await;
        for (name, ..) in SAME {
            let always = bench.values(&format!("{name}_always"), 1).await;
            assert!(always.len() > 8, "{name}: {always:?}");
            assert_eq!(bench.values(name, always.len()).await, always, "seed {seed}: {name}");
        }
        let ahead: u64 = bench.engine.statuses().await.iter().map(|status| status.counts.ahead).sum();
        assert!(ahead > 20, "{ahead}");
        bench.engine.close().await;
    }
}
