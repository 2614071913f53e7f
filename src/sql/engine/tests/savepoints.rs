//! Savepoints: what begins from one goes on as what it was taken of, whatever happens meanwhile; and what is refused.

use rand::{Rng, SeedableRng};

use super::delivery::{QUERIES, WARD, by_key, threads};
use super::replace::{BEGIN, PLANS, query, read_all, reading, run, seeds, whole};
use super::watched::{Watch, Watched};
use super::*;
use crate::bus::checkpoint_topic;
use crate::sql::engine::Outcome;
use crate::sql::error::{Code, SqlError};
use crate::sql::statement::Name;
use crate::time::Timestamp;

const STREAM: &str = "CREATE STREAM v (p VARCHAR NOT NULL, x BIGINT, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
    WITH ('topic' = 'v', 'partitions' = '2', 'key' = 'p', 'watermark.idle-timeout' = 'none');
    CREATE STREAM o (plan VARCHAR, p VARCHAR, window_start TIMESTAMP(3), window_end TIMESTAMP(3), n BIGINT) WITH ('topic' = 'o', 'partitions' = '1');";

/// The watermarks of the two partitions where a savepoint was taken.
fn marks(bench: &Bench, savepoint: &str) -> [i64; 2] {
    let catalog = bench.engine.catalog.read();
    let (_, def) = catalog.savepoint(&Name::new(savepoint)).unwrap();
    [0, 1]
        .map(|partition| def.places.iter().find(|place| place.partition == partition).and_then(|place| place.watermark).unwrap_or(i64::MIN))
}

/// The rows of a plan whose windows close behind the one and up to the other watermarks.
async fn closed_between(bench: &Bench, at: usize, tag: usize, from: [i64; 2], to: [i64; 2]) -> Vec<String> {
    let (_, is_merged, has_its_end) = PLANS[at];
    let mut rows = whole(bench, at, tag).await;
    rows.retain(|(_, p, end)| {
        let partition = usize::from(p.as_ref().is_some_and(|p| p.as_str() >= "c"));
        let mark = |of: [i64; 2]| if is_merged { of[0].min(of[1]) } else { of[partition] };
        let closed = |at: i64| if has_its_end { at > *end } else { at >= *end };
        !closed(mark(from)) && closed(mark(to))
    });
    rows.into_iter().map(|(row, _, _)| row).collect()
}

/// The names of all savepoints, in order.
async fn names(bench: &Bench) -> Vec<String> {
    use arrow::array::AsArray;
    let parsed = parse_script("SHOW SAVEPOINTS").unwrap().remove(0);
    let Ok(Outcome::Rows { batches, .. }) = bench.engine.run(parsed).await else { panic!("no rows") };
    batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The topics of savepoints that are there.
fn topics(bench: &Bench) -> Vec<String> {
    let is_one = |name: &String| name.starts_with("__checkpoint.savepoint.");
    let mut names: Vec<String> = bench.broker.topics().iter().map(|topic| topic.name().to_string()).filter(is_one).collect();
    names.sort();
    names
}

/// Every topic of a savepoint is that of one that is there, and the other way round.
fn nothing_is_left(bench: &Bench) {
    let catalog = bench.engine.catalog.read();
    let mut expected: Vec<String> = catalog.savepoints().map(|(_, def)| checkpoint_topic(&def.owner).to_string()).collect();
    expected.sort();
    assert_eq!((topics(bench), catalog.torn_savepoints().len()), (expected, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_savepoint_each_window_comes_that_was_open_there_whatever_crashes() {
    for seed in 0..seeds(6) {
        let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut disk = TestDisk::default();
        let mut runtime = threads();
        let mut bench = Bench::on(disk.broker().await, runtime.handle().clone()).await;
        run(&bench, STREAM).await.unwrap();
        let at = chance.random_range(0..PLANS.len());
        run(&bench, &query("plan0", PLANS[at].0)).await.unwrap();
        let (mut time, mut last, mut taken) = (0, [i64::MIN; 2], Vec::new());
        for step in 0..20 {
            let partition = chance.random_range(0..2usize);
            let rows: Vec<String> = (0..chance.random_range(1..12))
                .map(|_| {
                    time += chance.random_range(0..3);
                    let second = (time - chance.random_range(0..5)).max(0);
                    last[partition] = last[partition].max(BEGIN + second * 1000 - 2000);
                    let p = ["a", "b", "c", "d"][partition * 2 + chance.random_range(0..2usize)];
                    reading(p, chance.random_range(1..9), second)
                })
                .collect();
            bench.write_keyed("v", partition as i32, &rows).await;
            match chance.random_range(0..10) {
                0..3 => {
                    // Whatever the tasks have come to by now.
                    let name = format!("s{step:02}");
                    let said = run(&bench, &format!("CREATE SAVEPOINT {name} FOR QUERY q;")).await.unwrap();
                    assert!(said.starts_with(&format!("created savepoint \"{name}\" at v 0:")), "{said}");
                    taken.push((name.clone(), marks(&bench, &name)));
                }
                3 => {
                    disk = disk.crash();
                    runtime.shutdown_background();
                    runtime = threads();
                    bench = Bench::on(disk.broker().await, runtime.handle().clone()).await;
                }
                4 => drop(run(&bench, "PAUSE QUERY q; RESUME QUERY q;").await.unwrap()),
                5 => read_all(&bench).await,
                _ => {}
            }
            assert_eq!(names(&bench).await, taken.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), "seed {seed}");
        }
        if taken.is_empty() {
            run(&bench, "CREATE SAVEPOINT s99 FOR QUERY q").await.unwrap();
            taken.push(("s99".to_owned(), marks(&bench, "s99")));
        }
        read_all(&bench).await;
        nothing_is_left(&bench);
        let whole_run = closed_between(&bench, at, 0, [i64::MIN; 2], last).await;
        assert_eq!(bench.values("o", whole_run.len()).await, whole_run, "seed {seed}, plan {at}");
        // Others begin from it; one of them by a statement whose process dies at once.
        let (name, from) = taken[chance.random_range(0..taken.len())].clone();
        let other = |name: &str, savepoint: &str| {
            let select = PLANS[at].0;
            format!("CREATE QUERY {name} WITH ('start' = 'savepoint:{savepoint}') AS INSERT INTO {name} SELECT 'plan0' AS plan, {select};")
        };
        let said = run(&bench, &other("b", &name)).await.unwrap();
        assert_eq!(said, format!("created query \"b\"; it begins from savepoint \"{name}\""));
        if chance.random_bool(0.5) {
            disk = disk.crash();
            runtime.shutdown_background();
            runtime = threads();
            bench = Bench::on(disk.broker().await, runtime.handle().clone()).await;
        }
        let expected = closed_between(&bench, at, 0, from, last).await;
        read_all(&bench).await;
        assert_eq!(bench.values("b", expected.len()).await, expected, "seed {seed}, plan {at}, {name}");
        // It goes back itself, and says the same again.
        let (name, from) = taken[chance.random_range(0..taken.len())].clone();
        let again = closed_between(&bench, at, 0, from, last).await;
        let said = run(&bench, &format!("RESTORE QUERY q FROM SAVEPOINT {name}")).await.unwrap();
        assert_eq!(said, format!("restored query \"q\" (version 2); it begins from savepoint \"{name}\""));
        read_all(&bench).await;
        let mut twice = [whole_run, again].concat();
        twice.sort();
        assert_eq!(bench.values("o", twice.len()).await, twice, "seed {seed}, plan {at}, back to {name}");
        // They stand on their own by now, and so does what is taken of one that is gone.
        for (name, _) in &taken {
            run(&bench, &format!("DROP SAVEPOINT {name}")).await.unwrap();
        }
        assert!(topics(&bench).is_empty());
        run(&bench, "CREATE SAVEPOINT last FOR QUERY b; DROP QUERY b; DROP STREAM b;").await.unwrap();
        run(&bench, &other("c", "last")).await.unwrap();
        let end = (time + 100) * 1000;
        for (partition, p) in [(0, "a"), (1, "c")] {
            bench.write_keyed("v", partition, &[reading(p, 1, end / 1000)]).await;
        }
        read_all(&bench).await;
        let expected = closed_between(&bench, at, 0, last, [BEGIN + end - 2000; 2]).await;
        assert_eq!(bench.values("c", expected.len()).await, expected, "seed {seed}, plan {at}");
        bench.engine.close().await;
        runtime.shutdown_background();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_query_keeps_it_goes_on_with_from_its_savepoint() {
    let more = [
        ("lag", "SELECT p, x, ts, LAG(x) OVER (PARTITION BY p ORDER BY ts) AS was FROM w"),
        ("nearby", "SELECT a.p, a.x, b.x AS y FROM w a JOIN w b ON a.p = b.p AND b.ts BETWEEN a.ts - INTERVAL '1' SECOND AND a.ts"),
        ("newest", "SELECT p, x, ts FROM w QUALIFY ROW_NUMBER() OVER (PARTITION BY p, ts ORDER BY ts) = 1"),
        ("totals", "SELECT p, count(*) AS n, sum(x) AS s FROM w GROUP BY p"),
        (
            "rises",
            "SELECT * FROM w MATCH_RECOGNIZE (PARTITION BY p ORDER BY ts MEASURES FIRST(a.x) AS low, LAST(b.x) AS high ONE ROW PER MATCH \
             AFTER MATCH SKIP PAST LAST ROW PATTERN (a b+) DEFINE b AS b.x > PREV(b.x))",
        ),
    ];
    let queries = [QUERIES.as_slice(), more.as_slice()].concat();
    for seed in 0..seeds(2) {
        let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let bench = Bench::new(WARD).await;
        let create = |suffix: &str, start: &str| {
            let one = |(name, select): &(&str, &str)| {
                let start = start.replace("NAME", name);
                format!("CREATE QUERY {name}_{suffix} WITH ('start' = '{start}') AS INSERT INTO {name}_{suffix} {select};")
            };
            queries.iter().map(one).collect::<String>()
        };
        run(&bench, &create("one", "earliest")).await.unwrap();
        let mut now = 0;
        let mut counts = Vec::new();
        for round in 0..20 {
            now += chance.random_range(0..900);
            let partition = chance.random_range(0..2);
            let rows: Vec<String> = (0..chance.random_range(1..8))
                .map(|_| {
                    let p = [["ann", "bob"], ["cleo", "dan"]][partition as usize][chance.random_range(0..2_usize)];
                    let ts = Timestamp(BEGIN + now - chance.random_range(0..3_500));
                    format!(r#"{{"p":"{p}","x":{},"ts":"{ts}"}}"#, chance.random_range(1..50))
                })
                .collect();
            bench.write_keyed("w", partition, &rows).await;
            if round == 12 {
                read_all(&bench).await;
                for (name, _) in &queries {
                    run(&bench, &format!("CREATE SAVEPOINT {name} FOR QUERY {name}_one;")).await.unwrap();
                    counts.push(by_key(&bench, &format!("{name}_one")).await);
                }
            }
        }
        read_all(&bench).await;
        run(&bench, &create("two", "savepoint:NAME")).await.unwrap();
        for (partition, p) in [(0, "ann"), (1, "cleo")] {
            let ts = Timestamp(BEGIN + now + 60_000);
            bench.write_keyed("w", partition, &[format!(r#"{{"p":"{p}","x":0,"ts":"{ts}"}}"#)]).await;
        }
        read_all(&bench).await;
        for ((name, _), before) in queries.iter().zip(&counts) {
            let (one, two) = (by_key(&bench, &format!("{name}_one")).await, by_key(&bench, &format!("{name}_two")).await);
            for (key, values) in &one {
                let said = before.get(key).map_or(0, Vec::len);
                let found = two.get(key).map_or(&[][..], Vec::as_slice);
                if *name == "totals" {
                    // How often they are told is a matter of commits.
                    assert!(values.len() == said || values.last() == found.last(), "seed {seed}: {name} of {key}: {values:?}, {found:?}");
                } else {
                    assert_eq!(found, &values[said..], "seed {seed}: {name} of {key}");
                }
            }
            assert!(two.keys().all(|key| one.contains_key(key)), "{name}");
            assert!(!two.is_empty(), "{name} says nothing");
        }
        bench.engine.close().await;
    }
}

/// Keeps the disk as it is after each thing that is done to the log, as if the power were cut there.
struct Cutting {
    disk: TestDisk,
    cuts: parking_lot::Mutex<Vec<TestDisk>>,
}

impl Watch for Cutting {
    fn is_done(&self) {
        self.cuts.lock().push(self.disk.crash());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_the_power_is_cut_a_savepoint_is_there_whole_or_not_at_all() {
    let disk = TestDisk::default();
    let runtime = threads();
    let broker = disk.broker().await;
    let cutting = Arc::new(Cutting { disk, cuts: parking_lot::Mutex::default() });
    let log = Arc::new(Watched { log: EmbeddedBus::new(Arc::clone(&broker)), by: Arc::clone(&cutting) });
    let bench = Bench::through(broker, log, runtime.handle().clone(), None, Clock::system()).await;
    run(&bench, STREAM).await.unwrap();
    run(&bench, &query("plan0", PLANS[0].0)).await.unwrap();
    let rows: Vec<String> = (0..200).map(|second| reading("a", 1, second)).collect();
    bench.write_keyed("v", 0, &rows).await;
    bench.write_keyed("v", 1, &[reading("c", 1, 15)]).await;
    read_all(&bench).await;
    let begin = format!("CREATE QUERY b WITH ('start' = 'savepoint:s') AS INSERT INTO b SELECT 'plan0' AS plan, {};", PLANS[0].0);
    cutting.cuts.lock().clear();
    for text in ["CREATE SAVEPOINT s FOR QUERY q", &begin, "DROP SAVEPOINT s"] {
        run(&bench, text).await.unwrap();
    }
    let cuts = std::mem::take(&mut *cutting.cuts.lock());
    bench.engine.close().await;
    runtime.shutdown_background();
    let mut seen = [0, 0];
    for (at, cut) in cuts.into_iter().enumerate() {
        let runtime = threads();
        let bench = Bench::on(cut.broker().await, runtime.handle().clone()).await;
        nothing_is_left(&bench);
        let is_there = names(&bench).await == ["s"];
        seen[usize::from(is_there)] += 1;
        let begins = bench.engine.statuses().await.iter().any(|status| status.name == "b");
        if !begins && let Err(error) = run(&bench, &begin).await {
            assert!(!is_there && error.message == "there is no savepoint \"s\"", "cut {at}: {error:?}");
        }
        if begins || is_there {
            bench.write_keyed("v", 1, &[reading("c", 5, 16), reading("c", 7, 40)]).await;
            read_all(&bench).await;
            let found = bench.values("b", 1).await;
            assert!(found.len() == 1 && found[0].contains(r#""n":6"#), "cut {at}: {found:?}");
        }
        read_all(&bench).await;
        run(&bench, "CREATE SAVEPOINT IF NOT EXISTS s FOR QUERY q; DROP SAVEPOINT s;").await.unwrap();
        nothing_is_left(&bench);
        bench.engine.close().await;
        runtime.shutdown_background();
    }
    assert!(seen[0] > 5 && seen[1] > 2, "{seen:?}");
}

async fn refused(bench: &Bench, text: &str) -> SqlError {
    run(bench, text).await.expect_err(text)
}

#[tokio::test]
async fn what_a_savepoint_cannot_be_used_for_is_refused_and_says_why() {
    let bench = Bench::new(&format!("{STREAM} {}", query("first", PLANS[0].0))).await;
    bench.write_keyed("v", 0, &[reading("a", 1, 0), reading("a", 2, 12)]).await;
    read_all(&bench).await;
    let error = refused(&bench, "CREATE SAVEPOINT s FOR QUERY r").await;
    assert_eq!((error.code, error.message.as_str()), (Code::NoSuchName, "there is no query \"r\""));
    run(&bench, "CREATE SAVEPOINT s FOR QUERY q").await.unwrap();
    let error = refused(&bench, "CREATE SAVEPOINT s FOR QUERY q").await;
    assert_eq!((error.code, error.message.as_str()), (Code::NameTaken, "there is already a savepoint \"s\""));
    let said = run(&bench, "CREATE SAVEPOINT IF NOT EXISTS s FOR QUERY q").await.unwrap();
    assert_eq!(said, "savepoint \"s\" is unchanged");
    bench.engine.apply("CREATE SAVEPOINT s FOR QUERY q").await.unwrap();
    let error = refused(&bench, "DROP SAVEPOINT before").await;
    assert_eq!((error.code, error.hint.as_deref()), (Code::NoSuchName, Some("SHOW SAVEPOINTS lists what there is")));
    assert_eq!(run(&bench, "DROP SAVEPOINT IF EXISTS t").await.unwrap(), "there was nothing to drop");
    let from = |name: &str, with: &str, plan: usize| {
        format!("CREATE QUERY {name} WITH ('start' = 'savepoint:{with}) AS INSERT INTO o SELECT 'x' AS plan, {};", PLANS[plan].0)
    };
    let error = refused(&bench, &from("b", "before'", 0)).await;
    assert_eq!((error.code, error.message.as_str()), (Code::NoSuchName, "there is no savepoint \"before\""));
    assert!(error.place.is_some() && error.hint.as_deref() == Some("SHOW SAVEPOINTS lists what there is"), "{error:?}");
    for name in ["before", "s"] {
        let text = format!("CREATE QUERY z WITH ('start' = 'savepoint:{name}') AS INSERT INTO fresh SELECT DISTINCT p FROM v");
        refused(&bench, &text).await;
    }
    assert!(bench.engine.topic_behind("fresh").is_none(), "a stream is not left behind");
    // Another plan, until it is said that its state may be made again.
    let error = refused(&bench, &from("b", "s'", 3)).await;
    assert!(error.code == Code::BadDefinition && error.message.ends_with("it is of another plan"), "{error:?}");
    assert!(error.notes.iter().any(|note| note.starts_with("only in the savepoint: ")), "{error:?}");
    assert!(error.hint.as_ref().unwrap().contains("'savepoint.state' = 'remade'"), "{error:?}");
    let said = run(&bench, &from("b", "s', 'savepoint.state' = 'remade'", 3)).await.unwrap();
    assert!(said.ends_with("it begins from savepoint \"s\", its state made again from 2 records"), "{said}");
    let merged = run(&bench, &from("m", "S', 'savepoint.state' = 'remade'", 2)).await.unwrap();
    assert!(merged.ends_with("its state made again from 2 records"), "{merged}");
    for (text, why) in [
        ("CREATE MATERIALIZED VIEW w WITH ('start' = 'savepoint:s') AS SELECT p FROM v", "a view cannot begin from a savepoint"),
        ("CREATE QUERY z WITH ('savepoint.state' = 'kept') AS INSERT INTO o SELECT p FROM v", "says nothing without a savepoint"),
        ("CREATE QUERY z WITH ('start' = 'savepoint:') AS INSERT INTO o SELECT p FROM v", "option 'start' cannot be 'savepoint:'"),
    ] {
        let error = refused(&bench, text).await;
        assert!(error.code == Code::BadOption && error.message.contains(why), "{error:?}");
    }
    // Its records are gone, or its topic.
    bench.write_keyed("v", 0, &[reading("a", 3, 13), reading("a", 4, 14)]).await;
    read_all(&bench).await;
    bench.bus.trim(&TopicPartition::new(topic("v"), PartitionId(0)), Offset(3)).await.unwrap();
    let error = refused(&bench, &from("c", "s'", 0)).await;
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::Execution, "savepoint \"s\" cannot be begun from: what lies behind it is gone")
    );
    assert_eq!(error.notes, ["v-0 begins at offset 3 by now, and the savepoint stands at 2"]);
    assert!(refused(&bench, "RESTORE QUERY q FROM SAVEPOINT s").await.message.contains("what lies behind it is gone"));
    assert!(bench.engine.statuses().await.iter().all(|status| status.state == QueryState::Running && status.name != "c"));
    // A savepoint of a query with more partitions than there were.
    run(&bench, "CREATE SAVEPOINT t FOR QUERY q").await.unwrap();
    bench.broker.create_partitions(&topic("v"), 3).await.unwrap();
    let error = refused(&bench, &from("c", "t'", 0)).await;
    assert!(error.code == Code::Execution && error.message.contains("\"v\" has 3 partitions and had 2"), "{error:?}");
    bench.engine.close().await;
}

#[tokio::test]
async fn a_paused_query_is_saved_as_it_stands_and_one_that_has_still_to_begin_is_not() {
    let bench = Bench::new(&format!("{STREAM} {}", query("first", PLANS[0].0))).await;
    bench.write_keyed("v", 0, &[reading("a", 1, 0), reading("a", 2, 5)]).await;
    read_all(&bench).await;
    run(&bench, "PAUSE QUERY q; CREATE SAVEPOINT s FOR QUERY q;").await.unwrap();
    let now = query("now", PLANS[0].0).replace("QUERY q AS", "QUERY q WITH ('start' = 'savepoint:s') AS");
    let said = run(&bench, &now).await.unwrap();
    assert!(said.ends_with("RESUME QUERY q lets it begin from savepoint \"s\""), "{said}");
    let error = refused(&bench, "DROP SAVEPOINT s").await;
    assert_eq!((error.code, error.message.as_str()), (Code::InUse, "query \"q\" has still to begin from savepoint \"s\""));
    let error = refused(&bench, "CREATE SAVEPOINT t FOR QUERY q").await;
    assert_eq!(error.message, "query \"q\" is not ready for a savepoint");
    assert_eq!(names(&bench).await, ["s"]);
    nothing_is_left(&bench);
    run(&bench, "RESUME QUERY q").await.unwrap();
    bench.write_keyed("v", 0, &[reading("a", 4, 13)]).await;
    assert!(bench.values("o", 1).await[0].contains(r#""n":3"#));
    read_all(&bench).await;
    // Who changes the statement of one that has begun goes on, also when the savepoint is gone.
    run(&bench, "CREATE SAVEPOINT t FOR QUERY q").await.unwrap();
    let said = run(&bench, &now.replace("'now'", "'then'")).await.unwrap();
    assert!(said.ends_with("it goes on where it was"), "{said}");
    run(&bench, "DROP SAVEPOINT s").await.unwrap();
    let said = run(&bench, &now.replace("'now'", "'later'")).await.unwrap();
    assert!(said.ends_with("it goes on where it was"), "{said}");
    // Another savepoint takes it there.
    let said = run(&bench, &now.replace("savepoint:s", "savepoint:t")).await.unwrap();
    assert!(said.ends_with("it begins from savepoint \"t\""), "{said}");
    read_all(&bench).await;
    bench.engine.close().await;
    let bench = Bench::over(Arc::clone(&bench.broker)).await;
    bench.write_keyed("v", 0, &[reading("a", 8, 23)]).await;
    assert_eq!(bench.values("o", 2).await.len(), 2);
    bench.engine.close().await;
}

#[tokio::test]
async fn what_is_saved_is_shown() {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, UInt64Type};
    let view = "CREATE MATERIALIZED VIEW Totals AS SELECT p, count(*) AS n FROM v GROUP BY p;";
    let bench = Bench::new(&format!("{STREAM} {view}")).await;
    bench.write_keyed("v", 0, &[reading("a", 1, 0), reading("a", 2, 5)]).await;
    read_all(&bench).await;
    run(&bench, "CREATE SAVEPOINT s FOR VIEW totals").await.unwrap();
    bench.write_keyed("v", 0, &[reading("a", 4, 6)]).await;
    let rows = async |text: &str| {
        let parsed = parse_script(text).unwrap().remove(0);
        let Ok(Outcome::Rows { mut batches, .. }) = bench.engine.run(parsed).await else { panic!("no rows") };
        batches.remove(0)
    };
    let shown = rows("SHOW SAVEPOINTS").await;
    let text = |name: &str| shown.column_by_name(name).unwrap().as_string::<i32>().value(0).to_owned();
    assert_eq!((text("name"), text("of"), text("positions")), ("s".to_owned(), "view totals".to_owned(), "v 0:2 1:0".to_owned()));
    assert!(shown.column_by_name("bytes").unwrap().as_primitive::<UInt64Type>().value(0) > 100);
    let shown = rows("DESCRIBE SAVEPOINT s").await;
    let numbers = |name: &str| shown.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
    assert_eq!((numbers("position"), numbers("behind")), (vec![2, 0], vec![1, 0]));
    let shown = rows("SHOW CREATE SAVEPOINT s").await;
    assert_eq!(shown.column(0).as_string::<i32>().value(0), view.trim_end_matches(';'));
    // A query goes on with the view's state.
    run(&bench, "CREATE QUERY q WITH ('start' = 'savepoint:s') AS INSERT INTO later SELECT p, count(*) AS n FROM v GROUP BY p")
        .await
        .unwrap();
    assert_eq!(bench.values("later", 1).await, [r#"{"p":"a","n":3}"#]);
    bench.engine.close().await;
}
