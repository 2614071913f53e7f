//! A windowed aggregate in two phases, with everything around it: the same rows as one task over all partitions gives, whatever happens.

use rand::{Rng, SeedableRng};

use super::delivery::{by_key, threads};
use super::replace::{read_all, run};
use super::*;
use crate::sql::engine::Outcome;
use crate::sql::error::Code;
use crate::stream::SpillSpace;
use crate::time::Timestamp;

/// A stream over three partitions in which the beds of a ward lie anywhere.
const BEDS: &str =
    "CREATE STREAM b (ward VARCHAR, bed BIGINT, x DOUBLE, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
    WITH ('topic' = 'b', 'partitions' = '3', 'watermark.idle-timeout' = 'none', 'late.topic' = 'b.late');";

const QUERIES: [(&str, &str); 6] = [
    (
        "wards",
        "SELECT ward, window_start, window_end, sum(x) AS total, avg(x) AS mean, count(*) AS n, min(bed) AS first
         FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY ward, window_start, window_end HAVING count(*) > 1",
    ),
    (
        "beds",
        "SELECT ward, bed, window_end, max(x) - min(x) AS spread, count(x) FILTER (WHERE x > 3) AS n
         FROM TABLE(HOP(TABLE b, DESCRIPTOR(ts), INTERVAL '4' SECOND, INTERVAL '10' SECOND)) WHERE bed <> 3 GROUP BY ward, bed, window_start, window_end",
    ),
    (
        "house",
        "SELECT window_start, window_end, sum(x) AS total, bool_or(x > 8) AS high
         FROM TABLE(CUMULATE(TABLE b, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '20' SECOND)) GROUP BY window_start, window_end",
    ),
    (
        "distinct",
        "SELECT bed % 2 AS side, window_end FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         GROUP BY bed % 2, window_start, window_end",
    ),
    (
        "sets",
        "SELECT ward, bed, window_end, grouping(bed) AS whole, sum(x) AS total, count(*) AS n
         FROM TABLE(HOP(TABLE b, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND)) GROUP BY ward, ROLLUP (bed), window_start, window_end",
    ),
    (
        "coarse",
        "SELECT bed, ward, window_end, count(*) AS n FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(ts), INTERVAL '5' SECOND))
         GROUP BY bed, ward, window_start, window_end",
    ),
];

/// The key of these results is less than their group, and their topic has other partitions than the input.
fn coarse(suffix: &str) -> String {
    format!(
        "CREATE STREAM coarse_{suffix} (ward VARCHAR, bed BIGINT, window_end TIMESTAMP(3), n BIGINT)
         WITH ('topic' = 'coarse_{suffix}', 'partitions' = '2', 'key' = 'ward');"
    )
}

fn create(suffix: &str, with: &str) -> String {
    let query = |(name, select)| format!("CREATE QUERY {name}_{suffix} WITH ({with}) AS INSERT INTO {name}_{suffix} {select};");
    coarse(suffix) + &QUERIES.map(query).concat()
}

/// The results of a query that have a record key, each partition's in order.
async fn in_order(bench: &Bench, name: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for partition in 0..bench.bus.partitions(&topic(name)).await.unwrap().unwrap_or(0) {
        let mut reader = bench.bus.open(&TopicPartition::new(topic(name), PartitionId(partition)), Offset::ZERO).await.unwrap();
        let mut of_partition = Vec::new();
        loop {
            let batches = reader.poll(1 << 20).await.unwrap();
            if batches.is_empty() {
                break;
            }
            for batch in batches {
                let records = batch.records().unwrap();
                let keyed = records.iter().map(Result::unwrap).filter(|record| record.key.is_some());
                of_partition.extend(keyed.map(|record| String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned()));
            }
        }
        found.push(of_partition);
    }
    found
}

/// An engine over a broker; with some seeds what state can be on the disk is put there.
async fn engine(broker: Arc<Broker>, runtime: &tokio::runtime::Runtime, spilling: Option<&std::path::Path>) -> Bench {
    let bus = Arc::new(EmbeddedBus::new(Arc::clone(&broker)));
    let spilling = spilling.map(|dir| Spilling { space: SpillSpace::open(&dir.join("state"), 1 << 30, 0).unwrap(), above: 0 });
    Bench::opened(broker, bus, runtime.handle().clone(), None, spilling, Clock::system()).await
}

fn at(ms: i64) -> Timestamp {
    Timestamp(1_767_225_600_000 + ms)
}

fn row(ward: &str, bed: i64, x: f64, ms: i64) -> String {
    let ward = if ward.is_empty() { "null".to_owned() } else { format!("\"{ward}\"") };
    format!(r#"{{"ward":{ward},"bed":{bed},"x":{x},"ts":"{}"}}"#, at(ms))
}

async fn write(bench: &Bench, partition: i32, rows: &[String]) {
    bench.write("b", partition, &rows.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// A statement's rows as text.
async fn answer(bench: &Bench, text: &str) -> String {
    let parsed = parse_script(text).unwrap().remove(0);
    match bench.engine.run(parsed).await.unwrap_or_else(|e| panic!("{}", e.render(text))) {
        Outcome::Rows { batches, .. } => arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string(),
        _ => panic!("{text} answers no rows"),
    }
}

/// The records of the topics between the phases: where each partition begins and ends; none where there are none.
async fn between(bench: &Bench, name: &str) -> Vec<(i64, i64)> {
    let mut all = Vec::new();
    for partition in 0..bench.bus.partitions(&topic(name)).await.unwrap().unwrap_or(0) {
        let bounds = bench.bus.bounds(&TopicPartition::new(topic(name), PartitionId(partition))).await.unwrap();
        all.push((bounds.start.0, bounds.end.0));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_cut_stopped_or_paused_two_phases_give_what_one_task_gives() {
    let seeds = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    for seed in 0..seeds {
        let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut disk = TestDisk::default();
        let mut runtime = threads();
        let dir = tempfile::tempdir().unwrap();
        let spilling = (seed % 2 == 1).then(|| dir.path());
        let mut bench = engine(disk.broker().await, &runtime, spilling).await;
        let interval = ["50ms", "1ms"][chance.random_range(0..2_usize)];
        run(&bench, BEDS).await.unwrap();
        run(&bench, &create("two", &format!("'repartition' = 'topic', 'commit.interval' = '{interval}'"))).await.unwrap();
        let mut now = 0;
        for _ in 0..30 {
            now += chance.random_range(0..1500);
            let partition = chance.random_range(0..3);
            let rows: Vec<String> = (0..chance.random_range(1..8))
                .map(|_| {
                    now += chance.random_range(0..300);
                    let (ward, x) = (["icu", "er", "", "\u{e9}t\u{e9}"][chance.random_range(0..4_usize)], chance.random_range(0..100));
                    // Some are late for some of their windows, some for all.
                    row(ward, chance.random_range(0..5), f64::from(x) / 10.0, now - chance.random_range(0..9000))
                })
                .collect();
            write(&bench, partition, &rows).await;
            match chance.random_range(0..12) {
                0 => {
                    disk = disk.crash();
                    runtime.shutdown_background();
                    runtime = threads();
                    bench = engine(disk.broker().await, &runtime, spilling).await;
                }
                1 => {
                    bench.engine.close().await;
                    bench = engine(Arc::clone(&bench.broker), &runtime, spilling).await;
                }
                2 => run(&bench, "PAUSE QUERY wards_two; PAUSE QUERY beds_two;").await.map(drop).unwrap(),
                3 | 4 => run(&bench, "RESUME QUERY wards_two; RESUME QUERY beds_two;").await.map(drop).unwrap(),
                5 => {
                    run(&bench, "RESUME QUERY wards_two; RESUME QUERY beds_two;").await.unwrap();
                    read_all(&bench).await;
                }
                _ => {}
            }
        }
        run(&bench, "RESUME QUERY wards_two; RESUME QUERY beds_two;").await.unwrap();
        for partition in 0..3 {
            write(&bench, partition, &[row("end", 0, 0.0, now + 60_000)]).await;
        }
        run(&bench, &create("one", "'commit.interval' = '20ms'")).await.unwrap();
        read_all(&bench).await;
        for (name, _) in QUERIES {
            let (two, one) = (by_key(&bench, &format!("{name}_two")).await, by_key(&bench, &format!("{name}_one")).await);
            assert!(!one.is_empty(), "seed {seed}: {name}");
            assert_eq!(two, one, "seed {seed}: {name}");
            let (two, one) = (in_order(&bench, &format!("{name}_two")).await, in_order(&bench, &format!("{name}_one")).await);
            assert_eq!(two, one, "seed {seed}: {name}, by partition");
        }
        let late = bench.values("b.late", 1).await;
        let mut each = BTreeMap::<&str, usize>::new();
        late.iter().for_each(|row| *each.entry(row).or_default() += 1);
        assert!(each.values().all(|count| count % 2 == 0), "seed {seed}: what is late for the one is late for the other: {each:?}");
        bench.engine.close().await;
        runtime.shutdown_background();
    }
}

/// Partition 0 goes on, at this time, until there are so many results.
async fn speak_until(bench: &Bench, ms: i64, wanted: usize) {
    let begun = Instant::now();
    while bench.values("o", 0).await.len() < wanted {
        write(bench, 0, &[row("er", 2, 1.0, ms)]).await;
        assert!(begun.elapsed() < DEADLINE, "{:?}", bench.engine.statuses().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_closes_windows_of_silent_and_empty_partitions_and_what_those_bring_then_is_late() {
    // One partition speaks, one has spoken, one never does.
    let idle = BEDS.replace("'none'", "'50ms'");
    let select = "ward, window_end, count(*) AS n FROM TABLE(HOP(TABLE b, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND))
        GROUP BY ward, window_start, window_end";
    let query = |emit: &str| format!("CREATE QUERY q WITH ('repartition' = 'topic') AS INSERT INTO o SELECT {select} {emit};");
    let bench = Bench::new(&format!("{idle} {}", query(""))).await;
    write(&bench, 1, &[row("icu", 1, 1.0, 1000), row("icu", 1, 1.0, 3000)]).await;
    write(&bench, 0, &[row("icu", 2, 1.0, 2000)]).await;
    speak_until(&bench, 31_000, 2).await;
    let both = r#"{"ward":"icu","window_end":"2026-01-01T00:00:10Z","n":3}"#.to_owned();
    assert!(bench.values("o", 2).await.contains(&both));
    // Partition 1 has closed them too, whatever its own rows say: they are late there, with all that a late row has.
    write(&bench, 1, &[row("icu", 7, 1.0, 4000)]).await;
    assert_eq!(bench.values("b.late", 1).await, [row("icu", 7, 1.0, 4000)]);
    write(&bench, 1, &[row("icu", 7, 1.0, 33_000)]).await;
    speak_until(&bench, 60_000, 6).await;
    let end = r#"{"ward":"icu","window_end":"2026-01-01T00:00:40Z","n":1}"#.to_owned();
    assert!(bench.values("o", 6).await.contains(&end));
    let all = bench.values("o", 6).await;
    // What is decided is not decided again otherwise.
    bench.engine.close().await;
    let bench = Bench::over(Arc::clone(&bench.broker)).await;
    read_all(&bench).await;
    assert_eq!(bench.values("o", 6).await, all);
    bench.engine.close().await;

    let bench = Bench::new(&format!("{BEDS} {}", query("EMIT ON WINDOW CLOSE TIMEOUT INTERVAL '1' SECOND"))).await;
    write(&bench, 2, &[row("icu", 1, 1.0, 1000)]).await;
    let ends = [5, 10].map(|second| format!(r#"{{"ward":"icu","window_end":"2026-01-01T00:00:{second:02}Z","n":1}}"#));
    assert_eq!(bench.values("o", 2).await, ends);
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_in_two_phases_is_one_query_to_whoever_looks_and_leaves_nothing_behind() {
    let bench = Bench::new(&format!("{BEDS} {}", create("two", "'repartition' = 'topic'"))).await;
    for partition in 0..3 {
        write(&bench, partition, &[row("icu", 1, 2.0, 1000), row("icu", 1, 2.0, 2000), row("er", 2, 1.0, 50_000)]).await;
        write(&bench, partition, &[row("er", 2, 1.0, 3000)]).await;
    }
    bench.values("wards_two", 1).await;
    read_all(&bench).await;
    let status = bench.engine.statuses().await.into_iter().find(|q| q.name == "wards_two").unwrap();
    assert_eq!((status.counts.rows_in, status.counts.rows_out, status.counts.late, status.tasks), (12, 1, 3, 6));
    assert_eq!(status.inputs.len(), 3);
    let (places, kinds): (Vec<usize>, Vec<&str>) =
        status.operators.iter().map(|of| of.name.split_once('-').unwrap()).map(|(at, kind)| (at.parse::<usize>().unwrap(), kind)).unzip();
    assert_eq!(places, (0..places.len()).collect::<Vec<_>>());
    let kinds = kinds.join(" ");
    assert!(kinds.starts_with("source ") && kinds.contains("collect sink source combine ") && kinds.ends_with(" sink"), "{kinds}");
    let plan = answer(&bench, "EXPLAIN QUERY wards_two").await;
    assert!(plan.contains("b (one task a partition, then by group)"), "{plan}");
    assert!(
        plan.contains("tasks    3 by partition, which aggregate what is theirs; behind topic __parts.query.wards_two, 3 by group"),
        "{plan}"
    );
    for (name, groups) in [("house", 1), ("sets", 3), ("coarse", 2)] {
        let plan = answer(&bench, &format!("EXPLAIN QUERY {name}_two")).await;
        assert!(plan.contains(&format!("behind topic __parts.query.{name}_two, {groups} by group")), "{plan}");
    }
    let why = answer(&bench, "WHY QUERY wards_two").await;
    assert!(why.contains("it merges its partitions, and waits for partition"), "{why}");
    // What stands in a snapshot is let go of.
    run(&bench, "PAUSE QUERY wards_two;").await.unwrap();
    let parts = between(&bench, "__parts.query.wards_two").await;
    assert!(parts.len() == 3 && parts.iter().all(|(start, end)| start == end && *end > 0), "{parts:?}");
    run(&bench, &QUERIES.map(|(name, _)| format!("DROP QUERY {name}_two;")).concat()).await.unwrap();
    for (name, _) in QUERIES {
        for left in ["__parts.query", "__peers.query", "__checkpoint.query-parts", "__checkpoint.query-groups"] {
            assert_eq!(between(&bench, &format!("{left}.{name}_two")).await, []);
        }
    }
    // A new one of the same name begins anew.
    run(
        &bench,
        "CREATE QUERY wards_two WITH ('repartition' = 'auto') AS INSERT INTO again SELECT ward, window_end, count(*) AS n
        FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY ward, window_start, window_end;",
    )
    .await
    .unwrap();
    assert_eq!(bench.values("again", 1).await, [r#"{"ward":"icu","window_end":"2026-01-01T00:00:10Z","n":6}"#]);
    assert_eq!(between(&bench, "__parts.query.wards_two").await.len(), 3);
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_savepoint_is_made_of_a_query_in_two_phases_and_none_begins_from_one() {
    let bench = Bench::new(BEDS).await;
    let query = |name: &str, with: &str| {
        format!(
            "CREATE QUERY {name} WITH ({with}) AS INSERT INTO o_{name} SELECT ward, window_end, count(*) AS n
             FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY ward, window_start, window_end;"
        )
    };
    run(&bench, &(query("one", "'start' = 'earliest'") + &query("two", "'repartition' = 'topic'"))).await.unwrap();
    write(&bench, 0, &[row("icu", 1, 2.0, 1000)]).await;
    read_all(&bench).await;
    run(&bench, "CREATE SAVEPOINT s FOR QUERY one;").await.unwrap();
    let lies = "part of what it has gathered lies in topic __parts.query.two, which no savepoint holds";
    for statement in ["CREATE SAVEPOINT t FOR QUERY two;", "RESTORE QUERY two FROM SAVEPOINT s;"] {
        let error = run(&bench, statement).await.unwrap_err();
        assert!(error.code == Code::BadDefinition && error.message.contains(lies), "{error:?}");
    }
    let error = run(&bench, &query("three", "'repartition' = 'topic', 'start' = 'savepoint:s'")).await.unwrap_err();
    assert!(
        error.code == Code::BadOption && error.message.contains("it begins from a savepoint, which holds the state of one task"),
        "{error:?}"
    );
    // One that may run either way runs as what the savepoint is of.
    run(&bench, &query("three", "'repartition' = 'auto', 'start' = 'savepoint:s'")).await.unwrap();
    let plan = answer(&bench, "EXPLAIN QUERY three").await;
    assert!(plan.contains("tasks    1 over all 3 partitions; not in two phases, because it begins from a savepoint"), "{plan}");
    for partition in 0..3 {
        write(&bench, partition, &[row("er", 2, 1.0, 50_000)]).await;
    }
    let window = [r#"{"ward":"icu","window_end":"2026-01-01T00:00:10Z","n":1}"#];
    for name in ["o_one", "o_two", "o_three"] {
        assert_eq!(bench.values(name, 1).await, window, "{name}");
    }
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_phases_cannot_do_is_refused_or_done_by_one_task_and_the_reason_is_said() {
    let bench = Bench::new(BEDS).await;
    let query = |with: &str, select: &str, key: &str| {
        format!(
            "CREATE OR REPLACE QUERY q WITH ('repartition' = '{with}') AS INSERT INTO o_{with} SELECT {select}
             FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY {key} window_start, window_end;"
        )
    };
    for (select, key, why) in [
        ("window_end, array_agg(x) AS n", "", "remembers grows with the rows, or goes by their order"),
        ("window_end, count(DISTINCT bed) AS n", "", "remembers grows with the rows, or goes by their order"),
        ("window_end, last_value(x) AS n", "", "remembers grows with the rows, or goes by their order"),
        ("x, window_end, count(*) AS n", "x,", "it groups by x, which is DOUBLE"),
    ] {
        let error = run(&bench, &query("topic", select, key)).await.unwrap_err();
        assert!(
            error.code == Code::BadOption && error.message.contains("cannot be 'topic' here") && error.message.contains(why),
            "{error:?}"
        );
    }
    run(&bench, &query("auto", "window_end, count(DISTINCT bed) AS n", "")).await.unwrap();
    let plan = answer(&bench, "EXPLAIN QUERY q").await;
    assert!(plan.contains("tasks    1 over all 3 partitions; not in two phases, because what count(DISTINCT bed) remembers"), "{plan}");
    run(&bench, &query("merged", "window_end, count(*) AS n", "")).await.unwrap();
    let plan = answer(&bench, "EXPLAIN QUERY q").await;
    assert!(plan.contains("tasks    1 over all 3 partitions; 'repartition' = 'topic' would give it one a partition"), "{plan}");
    let error = run(&bench, &query("topic", "window_end, count(*) AS n", "")).await.unwrap_err();
    assert!(error.code == Code::InUse && error.message.contains("did not run in two phases before"), "{error:?}");
    run(&bench, &query("auto", "window_end, count(*) AS n", "")).await.unwrap();
    let plan = answer(&bench, "EXPLAIN QUERY q").await;
    assert!(plan.contains("tasks    1 over all 3 partitions; not in two phases, because it has run in one task before"), "{plan}");
    run(&bench, "DROP QUERY q").await.unwrap();
    run(&bench, &query("topic", "window_end, count(*) AS n", "")).await.unwrap();
    // What comes behind the aggregate may be another; the aggregate, and how it runs, may not.
    run(&bench, &query("topic", "window_end, count(*) + 1 AS n", "")).await.unwrap();
    let error = run(&bench, &query("topic", "window_end, max(bed) AS n", "")).await.unwrap_err();
    assert!(error.code == Code::InUse && error.message.contains("would go by another plan"), "{error:?}");
    let into = query("topic", "window_end, ward, count(*) AS n", "ward,").replace("QUERY q", "QUERY g").replace("INTO o_topic", "INTO o_g");
    run(&bench, &into).await.unwrap();
    let stream = "CREATE STREAM p (window_end TIMESTAMP(3), ward VARCHAR, n BIGINT) WITH ('topic' = 'p', 'partitions' = '5');";
    run(&bench, stream).await.unwrap();
    let error = run(&bench, &into.replace("INTO o_g", "INTO p")).await.unwrap_err();
    assert!(error.code == Code::InUse && error.message.contains("among 3 tasks, and its results now go to 5 partitions"), "{error:?}");
    run(&bench, "DROP QUERY g").await.unwrap();
    let error = run(&bench, &query("merged", "window_end, count(*) AS n", "")).await.unwrap_err();
    assert!(error.code == Code::InUse && error.message.contains("ran in two phases before"), "{error:?}");
    assert_eq!(bench.engine.statuses().await[0].state, QueryState::Running);
    // A topic that grows: it cannot tell what its new partition brings late.
    bench.broker.create_partitions(&topic("b"), 4).await.unwrap();
    bench.engine.follow_growth().await;
    let error = bench.failure("q").await;
    assert!(error.contains("was started over 3 partitions, and its stream has 4"), "{error}");
    bench.engine.close().await;
}
