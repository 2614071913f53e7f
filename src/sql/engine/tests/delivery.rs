//! Delivery at least once: results are seen ahead of their commit, and after a crash the last of them once more, in order, none lost.

use rand::{Rng, SeedableRng};
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::sql::engine::Outcome;
use crate::time::Timestamp;

pub(super) const WARD: &str =
    "CREATE STREAM w (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
    WITH ('topic' = 'w', 'partitions' = '2', 'key' = 'p', 'late.topic' = 'w.late', 'watermark.idle-timeout' = '1h');";

pub(super) const QUERIES: [(&str, &str); 5] = [
    ("plain", "SELECT p, x, ts FROM w WHERE x % 4 <> 0"),
    (
        "windows",
        "SELECT p, window_start, count(*) AS n, sum(x) AS s FROM TABLE(HOP(TABLE w, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '4' SECOND)) \
         GROUP BY p, window_start, window_end",
    ),
    ("frames", "SELECT p, x, ts, sum(x) OVER (PARTITION BY p ORDER BY ts ROWS 2 PRECEDING) AS s FROM w"),
    (
        "sessions",
        "SELECT p, window_start, count(*) AS n FROM TABLE(SESSION(TABLE w PARTITION BY p, DESCRIPTOR(ts), INTERVAL '1' SECOND)) \
         GROUP BY p, window_start, window_end",
    ),
    (
        "merged",
        "SELECT window_start, count(*) AS n, sum(x) AS s FROM TABLE(TUMBLE(TABLE w, DESCRIPTOR(ts), INTERVAL '2' SECOND)) \
         GROUP BY window_start, window_end",
    ),
];

/// What a topic holds, by key, each key's values in order.
pub(super) async fn by_key(bench: &Bench, name: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for partition in 0..bench.bus.partitions(&topic(name)).await.unwrap().unwrap_or(0) {
        let mut reader = bench.bus.open(&TopicPartition::new(topic(name), PartitionId(partition)), Offset::ZERO).await.unwrap();
        loop {
            let batches = reader.poll(1 << 20).await.unwrap();
            if batches.is_empty() {
                break;
            }
            for batch in batches {
                for record in batch.records().unwrap().iter().map(Result::unwrap) {
                    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
                    found.entry(text(record.key)).or_default().push(text(record.value));
                }
            }
        }
    }
    found
}

/// How often `found` goes back in `expected` and says again what stands there; an error where it does anything else, or does not come
/// to the end.
fn repeats(expected: &[String], found: &[String]) -> Result<usize, String> {
    let (mut at, mut back) = (0, 0);
    for value in found {
        if expected.get(at) != Some(value) {
            let place = expected.iter().position(|one| one == value).ok_or_else(|| format!("{value} is not to be found"))?;
            if place > at {
                return Err(format!("{value} comes before {}", expected[at]));
            }
            (at, back) = (place, back + 1);
        }
        at += 1;
    }
    if at < expected.len() { Err(format!("{} does not come", expected[at])) } else { Ok(back) }
}

#[test]
fn what_is_said_again_is_told_from_what_is_lost_or_out_of_order() {
    let is = |expected: &str, found: &str| {
        let of = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        repeats(&of(expected), &of(found)).ok()
    };
    assert_eq!(is("abcd", "abcd"), Some(0));
    assert_eq!(is("abcd", "abbcbcd"), Some(2));
    assert_eq!(is("abcd", "abcdcd"), Some(1));
    for wrong in ["abd", "abc", "acbd", "abcdc", "abxcd", "aabd"] {
        assert_eq!(is("abcd", wrong), None, "{wrong}");
    }
}

pub(super) fn threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn run(bench: &Bench, script: &str) {
    for parsed in parse_script(script).unwrap() {
        if let Err(error) = bench.engine.run(parsed).await {
            panic!("{}", error.render(script));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_power_is_cut_the_last_results_come_again_in_order_and_none_is_lost() {
    let seeds = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let mut said_again = BTreeMap::new();
    for seed in 0..seeds {
        let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut disk = TestDisk::default();
        let mut runtime = threads();
        let mut bench = Bench::on(disk.broker().await, runtime.handle().clone()).await;
        // Commits that are far apart, and such that come with nearly every row.
        let interval = ["1h", "20ms", "1ms"][chance.random_range(0..3_usize)];
        let create = |suffix: &str, with: &str| {
            QUERIES
                .map(|(name, select)| {
                    // Where partitions are merged, time moves on with a commit.
                    let with = if name == "merged" { with.replace("1h", "20ms") } else { with.to_owned() };
                    format!("CREATE QUERY {name}_{suffix} WITH ({with}) AS INSERT INTO {name}_{suffix} {select};")
                })
                .concat()
        };
        run(&bench, WARD).await;
        run(&bench, &create("again", &format!("'delivery' = 'at_least_once', 'commit.interval' = '{interval}'"))).await;
        let (mut now, mut sent, mut crashes) = (0, 0, 0);
        let time = |ms: i64| Timestamp(1_767_225_600_000 + ms).to_string();
        for _ in 0..40 {
            now += chance.random_range(0..900);
            let partition = chance.random_range(0..2);
            let rows: Vec<String> = (0..chance.random_range(1..6))
                .map(|_| {
                    sent += 1;
                    let p = [["ann", "bob"], ["cleo", "dan"]][partition as usize][chance.random_range(0..2_usize)];
                    format!(r#"{{"p":"{p}","x":{sent},"ts":"{}"}}"#, time(now - chance.random_range(0..3_500)))
                })
                .collect();
            let plain = by_key(&bench, "plain_again").await.values().map(Vec::len).sum::<usize>();
            bench.write_keyed("w", partition, &rows).await;
            if chance.random_bool(0.15) {
                // Some of what follows from these rows has been seen, or nothing yet.
                if chance.random_bool(0.8) && (rows.len() > 1 || sent % 4 != 0) {
                    bench.values("plain_again", plain + 1).await;
                }
                let mut seen = Vec::new();
                for (name, _) in QUERIES {
                    seen.push(by_key(&bench, &format!("{name}_again")).await);
                }
                disk = disk.crash();
                runtime.shutdown_background();
                crashes += 1;
                runtime = threads();
                bench = Bench::on(disk.broker().await, runtime.handle().clone()).await;
                for ((name, _), seen) in QUERIES.iter().zip(seen) {
                    let there = by_key(&bench, &format!("{name}_again")).await;
                    for (key, values) in seen {
                        assert!(there[&key].starts_with(&values), "seed {seed}: {name} has lost what was seen of {key}");
                    }
                }
                // One more row, so that there is something to wait for.
                sent += 4 - sent % 4 + 1;
                let row = format!(r#"{{"p":"ann","x":{sent},"ts":"{}"}}"#, time(now));
                bench.write_keyed("w", 0, &[row]).await;
            }
        }
        for (partition, p) in [(0, "ann"), (1, "cleo")] {
            bench.write_keyed("w", partition, &[format!(r#"{{"p":"{p}","x":0,"ts":"{}"}}"#, time(now + 60_000))]).await;
        }
        // The undisturbed run: the same queries, exactly once, over the same rows.
        run(&bench, &create("once", "'delivery' = 'exactly_once'")).await;
        let begun = Instant::now();
        'queries: for (name, _) in QUERIES {
            loop {
                let statuses = bench.engine.statuses().await;
                let once = statuses.iter().find(|q| q.name == format!("{name}_once")).unwrap();
                let (expected, found) = (by_key(&bench, &format!("{name}_once")).await, by_key(&bench, &format!("{name}_again")).await);
                let verdict = (once.lag == Some(0) && once.state == QueryState::Running).then(|| {
                    let keys: Vec<&String> = expected.keys().chain(found.keys()).collect();
                    keys.into_iter()
                        .map(|key| {
                            let of = |all: &BTreeMap<String, Vec<String>>| all.get(key).cloned().unwrap_or_default();
                            repeats(&of(&expected), &of(&found)).map_err(|why| format!("of {key}: {why}"))
                        })
                        .collect::<Result<Vec<usize>, String>>()
                });
                match verdict {
                    Some(Ok(back)) => {
                        assert!(!expected.is_empty(), "{name} says nothing");
                        assert!(
                            back.iter().all(|back| *back <= crashes),
                            "seed {seed}: {name} goes back {back:?} times in {crashes} crashes"
                        );
                        *said_again.entry(name).or_insert(0) += back.into_iter().sum::<usize>();
                        continue 'queries;
                    }
                    verdict => assert!(begun.elapsed() < DEADLINE, "seed {seed}, {name}: {verdict:?}"),
                }
                tokio::task::yield_now().await;
            }
        }
        bench.engine.close().await;
        runtime.shutdown_background();
    }
    // It would all hold if nothing ever left ahead of its commit.
    for name in ["plain", "windows", "frames", "sessions"] {
        assert!(said_again[name] > 0, "{said_again:?}");
    }
    assert_eq!(said_again["merged"], 0, "what several partitions give leaves with its commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_seen_before_their_commit_unless_the_clock_had_a_say() {
    let bench = Bench::new(&format!(
        "{CLOCKED} CREATE QUERY q WITH ('delivery' = 'at_least_once', 'commit.interval' = '1h') AS INSERT INTO o SELECT p, x FROM c;"
    ))
    .await;
    let commits = async || bench.engine.statuses().await.into_iter().find(|q| q.name == "q").unwrap().counts.commits;
    for n in 1..=3 {
        bench.write("c", 0, &[&ahead("a", 0)]).await;
        assert_eq!(bench.values("o", n).await.len(), n);
        assert_eq!(commits().await, 0);
    }
    // Who begins again before the commit may find that the hour has come: it is noted first.
    bench.write("c", 0, &[&ahead("a", 3600)]).await;
    assert_eq!(bench.values("o", 4).await.len(), 4);
    let begun = Instant::now();
    while commits().await == 0 {
        assert!(begun.elapsed() < DEADLINE, "a decision of the clock is committed");
        tokio::task::yield_now().await;
    }
    // Nothing comes again where it is stopped in good order.
    bench.engine.close().await;
    let again = Bench::over(Arc::clone(&bench.broker)).await;
    again.write("c", 0, &[&ahead("b", 0)]).await;
    assert_eq!(again.values("o", 5).await.iter().filter(|row| row.contains("\"b\"")).count(), 1);
    again.engine.close().await;
    assert_eq!(again.values("o", 5).await.len(), 5);
}

async fn refusal(bench: &Bench, script: &str) -> String {
    let parsed = parse_script(script).unwrap().remove(0);
    bench.engine.run(parsed).await.err().map_or_else(|| panic!("{script} is taken"), |error| error.render(script))
}

async fn shown(bench: &Bench, sql: &str) -> String {
    let Ok(Outcome::Rows { batches, .. }) = bench.engine.run(parse_script(sql).unwrap().remove(0)).await else { panic!("{sql}") };
    arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivery_is_kept_shown_replaced_and_refused_where_rows_stay() {
    let bench = Bench::new(WARD).await;
    let changing = "CREATE QUERY q WITH ('delivery' = 'at_least_once', 'state.ttl' = 'none') AS INSERT INTO o SELECT p, count(*) AS n FROM w GROUP BY p;";
    let refused = refusal(&bench, changing).await;
    for part in [
        "error[SQL-0004]: option 'delivery' cannot be 'at_least_once' here: these results change, and one that is written again would take",
        "1 | CREATE QUERY q WITH (",
        "^^^ leave it out: what has changed is told with each commit, and 'commit.interval' says how soon that is",
    ] {
        assert!(refused.contains(part), "{part} is not in\n{refused}");
    }
    assert_eq!(bench.bus.partitions(&topic("o")).await.unwrap(), None, "nothing is left behind");
    let view = refusal(&bench, "CREATE MATERIALIZED VIEW v WITH ('delivery' = 'at_least_once') AS SELECT p, x FROM w;").await;
    assert!(view.contains("a view's rows are kept"), "{view}");
    let create = |with: &str| format!("CREATE OR REPLACE QUERY q WITH ('delivery' = '{with}') AS INSERT INTO o SELECT p, x FROM w;");
    let row = |x: i64| format!(r#"{{"p":"ann","x":{x},"ts":"2026-01-01T00:00:00Z"}}"#);
    for (n, with) in [(1, "exactly_once"), (2, "at_least_once"), (3, "exactly_once"), (4, "at_least_once")] {
        run(&bench, &create(with)).await;
        bench.write_keyed("w", 0, &[row(n)]).await;
        bench.values("o", n as usize).await;
        let explained = shown(&bench, "EXPLAIN QUERY q").await;
        assert!(explained.contains(&format!("delivery {with}")), "{explained}");
        let created = shown(&bench, "SHOW CREATE QUERY q").await;
        assert!(created.contains(&format!("'delivery' = '{with}'")), "{created}");
    }
    bench.engine.close().await;
    let again = Bench::over(Arc::clone(&bench.broker)).await;
    let explained = shown(&again, "EXPLAIN QUERY q").await;
    assert!(explained.contains("delivery at_least_once (results leave ahead of their commit)"), "{explained}");
    assert_eq!(again.values("o", 4).await, [1, 2, 3, 4].map(|x| format!(r#"{{"p":"ann","x":{x}}}"#)));
    run(&again, "CREATE QUERY m WITH ('delivery' = 'at_least_once') AS INSERT INTO mo SELECT count(*) AS n, window_end FROM TABLE(TUMBLE(TABLE w, DESCRIPTOR(ts), INTERVAL '2' SECOND)) GROUP BY window_start, window_end;").await;
    let explained = shown(&again, "EXPLAIN QUERY m").await;
    assert!(explained.contains("results leave with their commit all the same"), "{explained}");
}
