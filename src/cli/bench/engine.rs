//! `bench window` and `bench over`: one query over readings that are already in their topic.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::super::{CommandResult, Failure, output};
use super::report;
use crate::metrics::process;
use crate::node::Node;
use crate::time::Clock;

#[derive(Args)]
pub(super) struct Window {
    /// How many readings.
    #[arg(long, default_value_t = 3_000_000)]
    readings: u64,
    /// How many patients.
    #[arg(long, default_value_t = 1000)]
    patients: u64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 4)]
    partitions: i32,
}

/// A query over the readings that is measured.
pub(super) struct Measured {
    name: &'static str,
    what: &'static str,
    select: &'static str,
}

pub(super) const WINDOWS: Measured = Measured {
    name: "window",
    what: "into 1-minute windows",
    select: "SELECT patient_id, window_start, window_end, avg(heart_rate) AS hr_avg, min(heart_rate) AS hr_min, max(heart_rate) AS hr_max, count(heart_rate) AS hr_n, \
             avg(spo2) AS spo2_avg, min(spo2) AS spo2_min, max(spo2) AS spo2_max, count(spo2) AS spo2_n, \
             avg(resp_rate) AS rr_avg, min(resp_rate) AS rr_min, max(resp_rate) AS rr_max, count(resp_rate) AS rr_n \
             FROM TABLE(TUMBLE(TABLE bench_vitals, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY patient_id, window_start, window_end EMIT ON WINDOW CLOSE",
};

/// Every reading is framed, and those far from their frame leave: what is measured is the frames, not the writing of results.
pub(super) const FRAMES: Measured = Measured {
    name: "over",
    what: "each with the 5 minutes before it",
    select: "SELECT * FROM (SELECT patient_id, ts, heart_rate, avg(heart_rate) OVER w AS hr_avg, min(heart_rate) OVER w AS hr_min, \
             max(heart_rate) OVER w AS hr_max, count(heart_rate) OVER w AS hr_n, stddev(heart_rate) OVER w AS hr_sd FROM bench_vitals \
             WINDOW w AS (PARTITION BY patient_id ORDER BY ts RANGE BETWEEN INTERVAL '5' MINUTE PRECEDING AND CURRENT ROW)) \
             WHERE heart_rate > hr_avg + 3 * hr_sd",
};

pub(super) fn run(node: &Arc<Node>, runtime: &tokio::runtime::Runtime, window: &Window, of: &Measured) -> CommandResult {
    let sql = |text: String| runtime.block_on(node.execute(&text)).map_err(|e| Failure::new(e.to_string()));
    sql(format!(
        "CREATE STREAM bench_vitals (patient_id VARCHAR NOT NULL, heart_rate DOUBLE, spo2 DOUBLE, resp_rate DOUBLE, ts TIMESTAMP(3) NOT NULL, \
         WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH ('partitions' = '{}', 'key' = 'patient_id')",
        window.partitions
    ))?;
    // Readings of a second are spread over the patients; the times run as fast as the patients are many.
    let start = Clock::system().now().0 - (window.readings / window.patients) as i64 * 1000 - 60_000;
    let mut readings = Vec::new();
    for n in 0..window.readings {
        let (patient, second) = (n % window.patients, (n / window.patients) as i64);
        let body = format!(
            "{{\"patient_id\":\"p{patient}\",\"ward\":\"icu-1\",\"ts\":{},\"heart_rate\":{}.5,\"spo2\":{},\"resp_rate\":{},\"sbp\":120,\"dbp\":80,\"temp_c\":36.9}}",
            start + second * 1000,
            60 + (n * 7) % 60,
            90 + (n * 3) % 11,
            10 + (n * 5) % 15,
        );
        readings.push((crate::time::Timestamp(start), format!("p{patient}"), body.into_bytes()));
        if readings.len() == 20_000 || n + 1 == window.readings {
            runtime
                .block_on(node.write_simulated("bench_vitals", std::mem::take(&mut readings)))
                .map_err(|e| Failure::new(e.to_string()))?;
        }
    }
    let (begun, before) = (Instant::now(), process().cpu_seconds);
    sql(format!("CREATE QUERY bench_results WITH ('delivery' = 'exactly_once') AS INSERT INTO bench_results {}", of.select))?;
    loop {
        let read = runtime.block_on(node.rows_read("bench_results"));
        if read >= window.readings {
            break;
        }
        if begun.elapsed() > Duration::from_secs(300) {
            return Err(Failure::new(format!("only {read} of {} readings were read in five minutes", window.readings)));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), process().cpu_seconds - before);
    output::say(&format!(
        "{} readings of {} patients {}, exactly once: {:.0} a CPU second, {:.0} a second",
        window.readings,
        window.patients,
        of.what,
        window.readings as f64 / cpu,
        window.readings as f64 / seconds
    ));
    report(
        &json!({ "bench": of.name, "readings": window.readings, "patients": window.patients, "seconds": seconds, "cpu_seconds": cpu, "per_cpu_second": window.readings as f64 / cpu, "per_second": window.readings as f64 / seconds }),
    )
}
