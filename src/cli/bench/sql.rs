//! `bench sql`: what windows, sessions and frames take, what state they hold, and what more readings, partitions and patients cost.
//!
//! Each topic is filled first, in a node of its own, and the node left to come to rest. Measured is from CREATE QUERY until what follows
//! from the last reading is committed; a reading of a much later time in each partition closes every window. Exactly once, the
//! results into a topic, every commit on the disk. A line of JSON each, the median of the rounds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::super::{CommandResult, Failure, output};
use super::{report, with_node};
use crate::bus::partition_for_key;
use crate::metrics::process;
use crate::node::Node;
use crate::sql::QueryStatus;
use crate::time::{Clock, Timestamp};

/// How long a query may take.
const LIMIT: Duration = Duration::from_secs(600);
/// Nothing is left over from filling a topic when this long has taken less than [`REST_CPU`] seconds of CPU.
const REST: Duration = Duration::from_millis(300);
const REST_CPU: f64 = 0.02;

/// More than lie between two snapshots, which are 64 MiB of records apart.
const SNAPSHOT_READINGS: u64 = 500_000;

#[derive(Args)]
pub(super) struct Sql {
    /// How many readings a topic.
    #[arg(long, default_value_t = 3_000_000)]
    readings: u64,
    /// How many patients, where their number is not what is looked at.
    #[arg(long, default_value_t = 1000)]
    patients: u64,
    /// How many patients the state is measured with, and the most of those that cost is.
    #[arg(long, default_value_t = 1_000_000)]
    most_patients: u64,
    /// Runs of each query, of which the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A tenth of it: shows that it works, its figures say little.
    #[arg(long)]
    quick: bool,
    /// One part of it only.
    #[arg(long, value_enum)]
    only: Option<Part>,
}

/// What is looked at.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Windows, sessions and frames.
    Query,
    /// What more readings cost.
    Readings,
    /// What more partitions cost.
    Partitions,
    /// What more patients cost.
    Patients,
    /// What more queries over one topic cost.
    Queries,
    /// What a patient's open window holds.
    State,
}

/// A query that is measured.
struct Measured {
    name: &'static str,
    select: &'static str,
}

/// How many queries one topic has to serve.
const MANY: usize = 30;

/// Three vitals of a patient, and how many readings there were.
macro_rules! statistics {
    ($from:literal) => {
        concat!(
            "SELECT patient_id, window_start, window_end, avg(heart_rate) AS avg_hr, min(heart_rate) AS min_hr, max(heart_rate) AS max_hr, ",
            "avg(spo2) AS avg_spo2, min(spo2) AS min_spo2, max(spo2) AS max_spo2, avg(map) AS avg_map, min(map) AS min_map, max(map) AS max_map, ",
            "count(*) AS n FROM TABLE(",
            $from,
            ") GROUP BY patient_id, window_start, window_end"
        )
    };
}

const TUMBLE: Measured =
    Measured { name: "tumble", select: statistics!("TUMBLE(TABLE bench_vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)") };
const QUERIES: [Measured; 5] = [
    TUMBLE,
    Measured { name: "hop", select: statistics!("HOP(TABLE bench_vitals, DESCRIPTOR(ts), INTERVAL '30' SECOND, INTERVAL '5' MINUTE)") },
    Measured {
        name: "session",
        select: statistics!("SESSION(TABLE bench_vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '30' SECOND)"),
    },
    Measured {
        name: "over",
        select: "SELECT patient_id, ts, avg(heart_rate) OVER w AS avg_hr, avg(spo2) OVER w AS avg_spo2, avg(map) OVER w AS avg_map, count(*) OVER w AS n \
                 FROM bench_vitals WINDOW w AS (PARTITION BY patient_id ORDER BY ts RANGE BETWEEN INTERVAL '5' MINUTE PRECEDING AND CURRENT ROW)",
    },
    Measured {
        name: "over, few results leave",
        select: "SELECT * FROM (SELECT patient_id, ts, heart_rate, avg(heart_rate) OVER w AS avg_hr, avg(spo2) OVER w AS avg_spo2, avg(map) OVER w AS avg_map, \
                 count(*) OVER w AS n FROM bench_vitals \
                 WINDOW w AS (PARTITION BY patient_id ORDER BY ts RANGE BETWEEN INTERVAL '5' MINUTE PRECEDING AND CURRENT ROW)) \
                 WHERE heart_rate > avg_hr * 1.3",
    },
];

/// Four aggregates of each patient and minute.
const STATE: Measured = Measured {
    name: "tumble, four aggregates",
    select: "SELECT patient_id, window_start, window_end, avg(heart_rate) AS avg_hr, min(heart_rate) AS min_hr, max(heart_rate) AS max_hr, \
             count(heart_rate) AS n FROM TABLE(TUMBLE(TABLE bench_vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end",
};

/// What wards ask of a vital: statistics of short and long windows, a moving one, stays in its range, and the few readings outside of it.
fn of_many(number: usize) -> String {
    let vital = ["heart_rate", "spo2", "map", "resp_rate", "sbp", "dbp"][number / 5 % 6];
    let window = match number % 5 {
        0 => "TUMBLE(TABLE bench_vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
        1 => "TUMBLE(TABLE bench_vitals, DESCRIPTOR(ts), INTERVAL '15' MINUTE)",
        2 => "HOP(TABLE bench_vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)",
        3 => "SESSION(TABLE bench_vitals PARTITION BY patient_id, DESCRIPTOR(ts), INTERVAL '30' SECOND)",
        _ => return format!("SELECT patient_id, ts, {vital} FROM bench_vitals WHERE {vital} > 1000"),
    };
    format!(
        "SELECT patient_id, window_start, window_end, avg({vital}) AS mean, min({vital}) AS least, max({vital}) AS most, count({vital}) AS n \
         FROM TABLE({window}) GROUP BY patient_id, window_start, window_end"
    )
}

/// Readings in a topic.
#[derive(Clone, Copy)]
struct Filled {
    readings: u64,
    patients: u64,
    partitions: i32,
    /// Between two readings of a patient.
    interval_ms: i64,
    /// Whether readings follow that close every window.
    closed: bool,
}

/// What one run took.
struct Took {
    seconds: f64,
    cpu: f64,
    /// Of the query, or of the last of several.
    status: QueryStatus,
}

/// Runs all of it.
pub(super) fn run(sql: &Sql) -> CommandResult {
    let less = if sql.quick { 10 } else { 1 };
    let readings = (sql.readings / less).max(1);
    let most = (sql.most_patients / less).max(1);
    let rounds = if sql.quick { 1 } else { sql.rounds.max(1) };
    let usual = Filled { readings, patients: sql.patients, partitions: 1, interval_ms: 1000, closed: true };
    let wanted = |part| sql.only.is_none_or(|only| only == part);
    if wanted(Part::Query) {
        on_topic(usual, |bench| QUERIES.iter().try_for_each(|query| bench.measured("query", query, rounds)))?;
    }
    for part in [8, 4, 2, 1].into_iter().filter(|_| wanted(Part::Readings)) {
        on_topic(Filled { readings: (readings / part).max(1), ..usual }, |bench| bench.measured("readings", &TUMBLE, rounds))?;
    }
    for partitions in [1, 4, 16, 64].into_iter().filter(|_| wanted(Part::Partitions)) {
        on_topic(Filled { partitions, ..usual }, |bench| bench.measured("partitions", &TUMBLE, rounds))?;
    }
    // Three readings of each patient a window, however many patients: what differs is their number alone.
    for patients in [1000, 10_000, 100_000, 1_000_000].into_iter().filter(|patients| wanted(Part::Patients) && *patients <= most) {
        let readings = (readings / (3 * patients)).max(1) * 3 * patients;
        on_topic(Filled { readings, patients, interval_ms: 20_000, ..usual }, |bench| bench.measured("patients", &TUMBLE, rounds))?;
    }
    if wanted(Part::Queries) {
        on_topic(usual, |bench| bench.many(rounds))?;
    }
    if wanted(Part::State) {
        // Every patient in one window, which stays open; then they go on, until a snapshot has been taken with all of them in it.
        let readings = (1 + SNAPSHOT_READINGS.div_ceil(most)) * most;
        on_topic(Filled { readings, patients: most, partitions: 1, interval_ms: 1000, closed: false }, |bench| bench.state())?;
    }
    Ok(())
}

/// Does `work` with a topic of a node of its own.
fn on_topic(filled: Filled, work: impl FnOnce(&Bench<'_>) -> CommandResult) -> CommandResult {
    with_node(|node, runtime| {
        let bench = Bench { node, runtime, filled };
        bench.fill()?;
        bench.rest();
        work(&bench)
    })
}

struct Bench<'a> {
    node: &'a Arc<Node>,
    runtime: &'a Runtime,
    filled: Filled,
}

impl Bench<'_> {
    fn sql(&self, text: &str) -> CommandResult {
        self.runtime.block_on(self.node.execute(text)).map(|_| ()).map_err(|e| Failure::new(e.to_string()))
    }

    fn write(&self, records: Vec<(Timestamp, String, Vec<u8>)>) -> CommandResult {
        self.runtime.block_on(self.node.write_simulated("bench_vitals", records)).map_err(|e| Failure::new(e.to_string()))
    }

    /// How many records there are for a query to read.
    fn records(&self) -> u64 {
        self.filled.readings + if self.filled.closed { self.filled.partitions as u64 } else { 0 }
    }

    fn fill(&self) -> CommandResult {
        let Filled { readings, patients, partitions, interval_ms, closed } = self.filled;
        self.sql(&format!(
            "CREATE STREAM bench_vitals (patient_id VARCHAR NOT NULL, heart_rate DOUBLE, resp_rate DOUBLE, spo2 DOUBLE, sbp DOUBLE, dbp DOUBLE, map DOUBLE, \
             temp_c DOUBLE, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH ('partitions' = '{partitions}', 'key' = 'patient_id')"
        ))?;
        // From a full minute on, and all of it over: what is ahead of the clock would not move the watermark.
        let span = readings.div_ceil(patients) as i64 * interval_ms;
        let later = span + 3_600_000;
        let start = (Clock::system().now().0 - later - 60_000) / 60_000 * 60_000;
        let mut records = Vec::new();
        for n in 0..readings {
            let (patient, turn) = (n % patients, (n / patients) as i64);
            let key = format!("p{patient:06}");
            let (heart_rate, mean) = (60 + (n * 7) % 60, 70 + (n * 11) % 40);
            let body = format!(
                "{{\"patient_id\":\"{key}\",\"ward\":\"icu-1\",\"ts\":{},\"heart_rate\":{heart_rate}.5,\"resp_rate\":{}.2,\"spo2\":{}.0,\"sbp\":{}.0,\"dbp\":{}.0,\"map\":{mean}.3,\"temp_c\":36.91}}",
                start + turn * interval_ms,
                10 + (n * 5) % 15,
                90 + (n * 3) % 11,
                mean + 30,
                mean - 15,
            );
            records.push((Timestamp(start), key, body.into_bytes()));
            if records.len() == 20_000 || n + 1 == readings {
                self.write(std::mem::take(&mut records))?;
            }
        }
        if closed {
            let key_in = |partition: i32| {
                (0..).map(|n| format!("closer-{n}")).find(|key| partition_for_key(key.as_bytes(), partitions).0 == partition)
            };
            let closers = (0..partitions).filter_map(key_in).map(|key| {
                let body = format!("{{\"patient_id\":\"{key}\",\"ts\":{}}}", start + later);
                (Timestamp(start), key, body.into_bytes())
            });
            self.write(closers.collect())?;
        }
        Ok(())
    }

    /// Waits until nothing is being done any more, so that a query is not charged for what was before it.
    fn rest(&self) {
        let begun = Instant::now();
        loop {
            let before = process().cpu_seconds;
            std::thread::sleep(REST);
            if process().cpu_seconds - before <= REST_CPU || begun.elapsed() > LIMIT {
                return;
            }
        }
    }

    /// One run of a query, to its end; it and its stream of results are gone afterwards.
    fn once(&self, query: &Measured) -> Result<Took, Failure> {
        self.together(&[query.select.to_owned()])
    }

    /// One run of several queries side by side.
    fn together(&self, selects: &[String]) -> Result<Took, Failure> {
        let (begun, before) = (Instant::now(), process().cpu_seconds);
        let names: Vec<_> = (0..selects.len()).map(|n| format!("bench_results_{n}")).collect();
        for (name, select) in names.iter().zip(selects) {
            self.sql(&format!("CREATE QUERY {name} WITH ('delivery' = 'exactly_once') AS INSERT INTO {name} {select}"))?;
        }
        let mut last = None;
        for name in &names {
            last = Some(self.finished(name, begun)?);
        }
        let status = last.ok_or_else(|| Failure::new("there is no query"))?;
        let took = Took { seconds: begun.elapsed().as_secs_f64(), cpu: process().cpu_seconds - before, status };
        for name in &names {
            self.sql(&format!("DROP QUERY {name}; DROP STREAM {name}"))?;
        }
        self.rest();
        Ok(took)
    }

    /// Waits until a query has read and committed everything.
    fn finished(&self, name: &str, begun: Instant) -> Result<QueryStatus, Failure> {
        loop {
            let status = self.runtime.block_on(self.node.query_status(name));
            let status = status.ok_or_else(|| Failure::new("the query is gone"))?;
            if let Some(error) = status.error {
                return Err(Failure::new(format!("the query failed: {error}")));
            }
            if status.counts.rows_in >= self.records() && status.lag == Some(0) {
                return Ok(status);
            }
            if begun.elapsed() > LIMIT {
                let read = status.counts.rows_in;
                return Err(Failure::new(format!("only {read} of {} readings were read in {} s", self.records(), LIMIT.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What `part` looks at, as a line of JSON and a sentence.
    fn measured(&self, part: &str, query: &Measured, rounds: usize) -> CommandResult {
        let mut runs = (0..rounds).map(|_| self.once(query)).collect::<Result<Vec<_>, _>>()?;
        runs.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
        let took = &runs[rounds / 2];
        let Filled { readings, patients, partitions, .. } = self.filled;
        // The clock of CPU time ticks a hundred times a second.
        let (per_cpu, per) = (readings as f64 / took.cpu.max(0.01), readings as f64 / took.seconds);
        output::say(&format!(
            "{}: {readings} readings of {patients} patients in {partitions} partition(s), {} results: {per_cpu:.0} a CPU second, {per:.0} a second",
            query.name, took.status.counts.rows_out
        ));
        let figures = json!({ "seconds": took.seconds, "cpu_seconds": took.cpu, "per_cpu_second": per_cpu, "per_second": per });
        self.line(part, query.name, &took.status, figures)
    }

    /// What many queries over the one topic cost beside one of them: the mean of the five kinds there are.
    fn many(&self, rounds: usize) -> CommandResult {
        let median = |selects: &[String]| {
            let mut runs = (0..rounds).map(|_| self.together(selects)).collect::<Result<Vec<_>, _>>()?;
            runs.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
            Ok::<_, Failure>(runs.swap_remove(rounds / 2))
        };
        let mut one = 0.0;
        for kind in 0..5 {
            one += median(&[of_many(kind)])?.cpu / 5.0;
        }
        for queries in [3, 10, MANY] {
            let took = median(&(0..queries).map(of_many).collect::<Vec<_>>())?;
            let times = took.cpu / one.max(0.01);
            output::say(&format!("{queries} queries over one topic: {:.2} s of CPU, {times:.1} times one of them ({one:.2} s)", took.cpu));
            let per = self.filled.readings as f64;
            let figures = json!({
                "seconds": took.seconds, "cpu_seconds": took.cpu, "per_cpu_second": per / took.cpu.max(0.01), "per_second": per / took.seconds,
                "queries": queries, "one_cpu_seconds": one, "times_one": times,
            });
            self.line("queries", &format!("{queries} queries, {times:.1} times one of them"), &took.status, figures)?;
        }
        Ok(())
    }

    /// What a query holds of each patient in one window.
    fn state(&self) -> CommandResult {
        let resident = process().resident_bytes;
        let took = self.once(&STATE)?;
        let (patients, held) = (self.filled.patients, took.status.counts.state_bytes);
        let each = held as f64 / patients as f64;
        output::say(&format!("{}: {held} bytes of state for {patients} patients in a window, {each:.0} each", STATE.name));
        let per = self.filled.readings as f64;
        let figures = json!({
            "seconds": took.seconds, "cpu_seconds": took.cpu, "per_cpu_second": per / took.cpu.max(0.01), "per_second": per / took.seconds,
            "state_bytes": held, "state_bytes_per_key_window": each, "resident_bytes_before": resident, "resident_bytes_after": process().resident_bytes,
        });
        self.line("state", STATE.name, &took.status, figures)
    }

    fn line(&self, part: &str, query: &str, status: &QueryStatus, figures: Value) -> CommandResult {
        let Filled { readings, patients, partitions, .. } = self.filled;
        let mut line = json!({
            "bench": "sql", "part": part, "query": query, "readings": readings, "patients": patients, "partitions": partitions,
            "results": status.counts.rows_out, "late": status.counts.late,
        });
        if let (Some(line), Value::Object(figures)) = (line.as_object_mut(), figures) {
            line.extend(figures);
        }
        report(&line)
    }
}
