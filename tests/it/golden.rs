//! Golden cases: queries whose input and results others have published (or that follow from a published rule), as files
//! in `tests/sql`, each run streamed in several ways and as SELECT over what is stored.
//!
//! Streamed, a case is fed whole; a row a commit; its partitions in the other order; three times cut, interleaved,
//! restarted and crashed by a seeded chance, the last time with its state on the disk as far as it can be; and so twice more, where it
//! has several partitions, with its aggregate in two phases. Each must write the same. A case may say that it needs what the engine does
//! not have yet: then CREATE must refuse it, and the run fails as soon as it does not, so that the case is let in.
//! `GOLDEN=<part of a name> cargo test golden -- --nocapture` runs some and prints the counts.

mod bench;
mod case;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use self::bench::{Bench, OUT, QUERY, VIEW};
use self::case::{Case, History, InputRow, Step, differ};

/// How long results may stay away once everything is read.
const PATIENCE: Duration = Duration::from_secs(2);
/// Cases that are run at once.
const AT_ONCE: usize = 4;

/// How the rows of a step are given to the engine.
#[derive(Clone, Copy, Debug)]
enum Feeding {
    /// One batch a partition.
    Whole,
    /// One row a batch (of many rows, a few), each committed before the next.
    RowByRow,
    /// One batch a partition, the last partition first.
    Backwards,
    /// Cut, interleaved, restarted and crashed by chance.
    ByChance(u64),
    /// The same, and what state can be on the disk is put there all the time.
    Spilled(u64),
    /// Cut by chance, the query in two phases where it can be (`'repartition' = 'auto'`).
    InPhases(u64),
    /// The same, with its state on the disk.
    SpilledInPhases(u64),
}

const FEEDINGS: [Feeding; 8] = [
    Feeding::Whole,
    Feeding::RowByRow,
    Feeding::Backwards,
    Feeding::ByChance(1),
    Feeding::ByChance(2),
    Feeding::Spilled(3),
    Feeding::InPhases(4),
    Feeding::SpilledInPhases(5),
];

impl Feeding {
    /// What chance begins with.
    const fn seed(self) -> u64 {
        match self {
            Self::ByChance(seed) | Self::Spilled(seed) | Self::InPhases(seed) | Self::SpilledInPhases(seed) => seed,
            Self::Whole | Self::RowByRow | Self::Backwards => 0,
        }
    }

    /// Whether state lies on the disk.
    const fn spills(self) -> bool {
        matches!(self, Self::Spilled(_) | Self::SpilledInPhases(_))
    }

    /// Whether an aggregate over several partitions has two phases.
    const fn has_phases(self) -> bool {
        matches!(self, Self::InPhases(_) | Self::SpilledInPhases(_))
    }
}

/// What became of a case.
#[derive(Debug)]
enum Verdict {
    Passed {
        history: bool,
    },
    /// With the first line of the refusal.
    Waiting(String),
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql")
}

/// The names of the cases, in order.
fn names() -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("tests/sql can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "golden") {
                let inside = path.strip_prefix(root()).expect("under tests/sql").with_extension("");
                found.push(inside.to_str().expect("names are text").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The rows of a table in the README, under a heading.
fn not_applicable() -> usize {
    let readme = fs::read_to_string(root().join("README.md")).expect("tests/sql/README.md");
    let table = readme.split("## What does not apply").nth(1).expect("the README says what does not apply");
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    rows.count()
}

/// A partition of a stream, and the rows it is still to get.
struct Queue<'a> {
    stream: &'a str,
    partition: i32,
    rows: VecDeque<&'a InputRow>,
}

impl Queue<'_> {
    fn take(&mut self, count: usize) -> Vec<InputRow> {
        self.rows.drain(..count.min(self.rows.len())).cloned().collect()
    }
}

/// Feeds the rows between two expectations. Answers the bench, which a restart replaces.
async fn feed(mut bench: Bench, mut queues: Vec<Queue<'_>>, how: Feeding, chance: &mut StdRng) -> Result<Bench, String> {
    match how {
        Feeding::Whole | Feeding::Backwards => {
            if matches!(how, Feeding::Backwards) {
                queues.reverse();
            }
            for queue in &mut queues {
                let rows = queue.take(usize::MAX);
                bench.write(queue.stream, queue.partition, &rows).await?;
            }
        }
        Feeding::RowByRow => {
            // Of many rows a few at once: what a commit can cut is cut often enough.
            let at_once = 1 + queues.iter().map(|q| q.rows.len()).sum::<usize>() / 64;
            while queues.iter().any(|q| !q.rows.is_empty()) {
                for queue in queues.iter_mut().filter(|q| !q.rows.is_empty()) {
                    let rows = queue.take(at_once);
                    bench.write(queue.stream, queue.partition, &rows).await?;
                    bench.settle().await?;
                }
            }
        }
        Feeding::ByChance(_) | Feeding::Spilled(_) | Feeding::InPhases(_) | Feeding::SpilledInPhases(_) => {
            let total: usize = queues.iter().map(|q| q.rows.len()).sum();
            let (stops_at, cut_at) = (chance.random_range(0..=total), chance.random_range(0..=total));
            let (mut given, mut stopped, mut cut) = (0, false, false);
            loop {
                queues.retain(|q| !q.rows.is_empty());
                if queues.is_empty() {
                    break;
                }
                let place = chance.random_range(0..queues.len());
                let rows = queues[place].take(chance.random_range(1..=5));
                bench.write(queues[place].stream, queues[place].partition, &rows).await?;
                given += rows.len();
                if chance.random_bool(0.4) {
                    bench.settle().await?;
                }
                if !stopped && given >= stops_at {
                    stopped = true;
                    bench = bench.restart().await;
                }
                if !cut && given >= cut_at {
                    cut = true;
                    bench = bench.crash().await;
                }
            }
        }
    }
    bench.settle().await?;
    Ok(bench)
}

/// The output, as a case speaks of it: what a view holds, every row, or the last of each key.
async fn found(bench: &Bench, view: bool, last_only: bool) -> Result<Vec<Value>, String> {
    if view {
        return bench.select(&format!("SELECT * FROM {VIEW}")).await;
    }
    let written = bench.written().await?;
    if !last_only {
        return written.into_iter().map(|w| w.value.ok_or_else(|| "a key was deleted".to_owned())).collect();
    }
    let mut last: BTreeMap<Option<Vec<u8>>, Option<Value>> = BTreeMap::new();
    for record in written {
        last.insert(record.key, record.value);
    }
    Ok(last.into_values().flatten().collect())
}

/// Compares until it is right or patience is over.
async fn expect(bench: &Bench, case: &Case, expected: &[Value], last_only: bool) -> Result<(), String> {
    let begun = Instant::now();
    let order = case.order.as_deref().filter(|_| !last_only && !case.view);
    loop {
        let have = found(bench, case.view, last_only).await?;
        match differ(expected, &have, order) {
            None => return Ok(()),
            Some(why) if begun.elapsed() > PATIENCE => return Err(why),
            Some(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn streamed(case: &Case, how: Feeding) -> Result<(), String> {
    let mut chance = StdRng::seed_from_u64(how.seed());
    let mut bench = if how.spills() { Bench::spilling().await } else { Bench::new().await };
    bench.run(&case.statements).await?;
    bench.run(&create(case, how.has_phases().then_some("'repartition' = 'auto'"))).await?;
    let mut expected: Vec<Value> = Vec::new();
    let mut waiting: Vec<Queue<'_>> = Vec::new();
    for step in &case.steps {
        let last_only = match step {
            Step::Rows { stream, partition, rows } => {
                match waiting.iter_mut().find(|q| q.stream == stream && q.partition == *partition) {
                    Some(queue) => queue.rows.extend(rows),
                    None => waiting.push(Queue { stream, partition: *partition, rows: rows.iter().collect() }),
                }
                continue;
            }
            Step::Writes(rows) => {
                expected.extend(rows.iter().cloned());
                false
            }
            Step::Leaves(rows) => {
                expected = rows.clone();
                true
            }
        };
        bench = feed(bench, std::mem::take(&mut waiting), how, &mut chance).await?;
        expect(&bench, case, &expected, last_only).await?;
    }
    if matches!(how, Feeding::Whole) {
        let (late, failed) = bench.late_and_failed().await;
        if failed > 0 || bench.bad_records() > 0 {
            return Err(format!("{failed} rows failed and {} records were no rows", bench.bad_records()));
        }
        if let Some(expected) = case.late.filter(|expected| *expected != late) {
            return Err(format!("{late} rows were late, and {expected} are expected to be"));
        }
    }
    // Nothing more comes with the last commit, and nothing with the first after a start.
    bench = bench.restart().await;
    bench.settle().await?;
    expect(&bench, case, &expected, matches!(case.steps.last(), Some(Step::Leaves(_)))).await?;
    bench.close().await;
    Ok(())
}

/// The same query over what is stored, once the input has ended.
async fn history(case: &Case) -> Result<(), String> {
    let bench = Bench::new().await;
    bench.run(&case.statements).await?;
    let mut expected: Vec<Value> = Vec::new();
    for step in &case.steps {
        match step {
            Step::Rows { stream, partition, rows } => bench.write(stream, *partition, rows).await?,
            Step::Writes(rows) => expected.extend(rows.iter().cloned()),
            Step::Leaves(rows) => expected = rows.clone(),
        }
    }
    expected.extend(case.end_adds.iter().cloned());
    bench.settle().await?;
    let have = bench.select(&case.query).await?;
    let leaves = matches!(case.steps.last(), Some(Step::Leaves(_)));
    let verdict = differ(&expected, &have, case.order.as_deref().filter(|_| !leaves));
    bench.close().await;
    verdict.map_or(Ok(()), Err)
}

fn create(case: &Case, more: Option<&str>) -> String {
    let options: Vec<&str> = case.with.as_deref().into_iter().chain(more).collect();
    let with = if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
    let made = if case.view {
        format!("CREATE MATERIALIZED VIEW {VIEW}{with} AS")
    } else {
        format!("CREATE QUERY {QUERY}{with} AS INSERT INTO {OUT}")
    };
    format!("{made} {}\n{};", case.query, case.emit)
}

/// Whether the engine takes what a case needs.
async fn refused(case: &Case) -> Result<Option<String>, String> {
    let bench = Bench::new().await;
    let made = match bench.run(&case.statements).await {
        Ok(()) => bench.run(&create(case, None)).await,
        refused => refused,
    };
    bench.close().await;
    Ok(made.err())
}

async fn judge(case: &Case) -> Result<Verdict, String> {
    if !case.refused.is_empty() {
        let why = refused(case).await?.ok_or("CREATE takes it, and it must be refused")?;
        let silent = case.refused.iter().find(|part| !why.contains(part.as_str()));
        return silent.map_or(Ok(Verdict::Passed { history: false }), |part| Err(format!("the refusal does not say \"{part}\":\n{why}")));
    }
    let with_history = match &case.history {
        History::Same => {
            history(case).await.map_err(|why| format!("SELECT over what is stored: {why}"))?;
            true
        }
        History::Needs(features) => match history(case).await {
            Ok(()) => return Err(format!("SELECT over what is stored gives it: \"# History needs: {}\" can go", features.join(", "))),
            Err(_) => false,
        },
        History::Not(_) => false,
    };
    if !case.needs.is_empty() {
        return match refused(case).await? {
            Some(why) => Ok(Verdict::Waiting(why.lines().next().unwrap_or_default().to_owned())),
            None => {
                let how = match streamed(case, Feeding::Whole).await {
                    Ok(()) => "and is right".to_owned(),
                    Err(why) => format!("and is wrong: {why}"),
                };
                Err(format!("CREATE takes what it waits for ({}), {how}; take \"# Needs\" out", case.needs.join(", ")))
            }
        };
    }
    if let Some(why) = &case.not_streamed {
        return match refused(case).await? {
            Some(_) => Ok(Verdict::Passed { history: with_history }),
            None => Err(format!("CREATE takes it, and it should not run as a continuous query: {why}")),
        };
    }
    for how in FEEDINGS {
        if how.has_phases() && !case.has_partitions() {
            continue;
        }
        streamed(case, how).await.map_err(|why| format!("streamed {how:?}: {why}"))?;
    }
    Ok(Verdict::Passed { history: with_history })
}

#[test]
fn every_golden_case_gives_what_was_published_however_it_is_fed() {
    let wanted = std::env::var("GOLDEN").unwrap_or_default();
    let names: Vec<String> = names().into_iter().filter(|name| name.contains(&wanted)).collect();
    assert!(!names.is_empty(), "no case has {wanted:?} in its name");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let verdicts = runtime.block_on(async {
        let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
        let runs = names.into_iter().map(|name| {
            let gate = std::sync::Arc::clone(&gate);
            tokio::spawn(async move {
                let _one = gate.acquire().await.expect("the gate stays open");
                let begun = Instant::now();
                let verdict = match Case::load(&root(), &name) {
                    Ok(case) => judge(&case).await.map(|verdict| (verdict, case.needs)),
                    Err(why) => Err(why),
                };
                let said = match &verdict {
                    Ok((Verdict::Passed { .. }, _)) => "passed",
                    Ok((Verdict::Waiting(why), _)) => why.as_str(),
                    Err(_) => "WRONG",
                };
                eprintln!("{name}: {said} ({} ms)", begun.elapsed().as_millis());
                (name, verdict)
            })
        });
        futures::future::join_all(runs.collect::<Vec<_>>()).await
    });
    let (mut passed, mut with_history, mut wrong) = (0, 0, Vec::new());
    let mut waiting: BTreeMap<String, usize> = BTreeMap::new();
    for verdict in verdicts {
        match verdict.expect("a case does not panic") {
            (_, Ok((Verdict::Passed { history }, _))) => {
                passed += 1;
                with_history += usize::from(history);
            }
            (_, Ok((Verdict::Waiting(_), needs))) => *waiting.entry(needs.join(" and ")).or_default() += 1,
            (name, Err(why)) => wrong.push(format!("{name}.golden\n    {why}")),
        }
    }
    let waits: Vec<String> = waiting.iter().map(|(feature, count)| format!("{count} for {feature}")).collect();
    eprintln!(
        "golden: {passed} passed ({with_history} of them also as SELECT over what is stored), {} waiting ({}), {} not applicable, {} wrong",
        waiting.values().sum::<usize>(),
        waits.join(", "),
        not_applicable(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{} golden cases are not met:\n{}", wrong.len(), wrong.join("\n"));
}
