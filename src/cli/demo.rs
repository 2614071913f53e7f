//! `vitalsql demo`: a node with a simulated ward, the shipped queries and the live page.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::serve::{Signals, drain, server_runtime};
use super::{CommandResult, Failure, output};
use crate::config::{Config, parse_address};
use crate::ingest::simulator::{Ward, WardOptions};
use crate::node::{Node, NodeOptions, QueryFile};
use crate::time::{Clock, Timestamp, parse_duration};

/// How much of the ward's past is written before it is ready.
const HISTORY_S: i64 = 15 * 60;

/// The shipped queries, in the order they are applied.
const SHIPPED: &[(&str, &str)] = &[
    ("00_streams.sql", include_str!("../../queries/00_streams.sql")),
    ("alarm_burden.sql", include_str!("../../queries/alarm_burden.sql")),
    ("data_quality_hourly.sql", include_str!("../../queries/data_quality_hourly.sql")),
    ("desaturation_tachycardia.sql", include_str!("../../queries/desaturation_tachycardia.sql")),
    ("fever.sql", include_str!("../../queries/fever.sql")),
    ("hypotension_burden.sql", include_str!("../../queries/hypotension_burden.sql")),
    ("hypotension_map65.sql", include_str!("../../queries/hypotension_map65.sql")),
    ("missing_signal.sql", include_str!("../../queries/missing_signal.sql")),
    ("news2_rolling.sql", include_str!("../../queries/news2_rolling.sql")),
    ("shock_index_trend.sql", include_str!("../../queries/shock_index_trend.sql")),
    ("spo2_low_sustained.sql", include_str!("../../queries/spo2_low_sustained.sql")),
    ("sustained_tachycardia.sql", include_str!("../../queries/sustained_tachycardia.sql")),
    ("vitals_1m.sql", include_str!("../../queries/vitals_1m.sql")),
    ("ward_occupancy.sql", include_str!("../../queries/ward_occupancy.sql")),
];

/// A simulated ward.
#[derive(Args)]
#[command(after_help = "Examples:\n  vitalsql demo\n  vitalsql demo --data-dir ward --beds 48 --speed 10 --for 5m\n\n\
                        Without --data-dir the data lie in a temporary folder that is removed at the end.")]
pub struct Arguments {
    /// Keep the data here; a second start goes on where the first ended.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The same seed gives the same ward.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// How many beds.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=2000))]
    beds: u16,
    /// How many times as fast as life the ward and the node's clock run.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Stop after this long.
    #[arg(long = "for", value_name = "DUR")]
    duration: Option<String>,
    /// Address of the Kafka listener.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9092")]
    kafka: String,
    /// Address of the page, /metrics and the API.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    http: String,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    output::start_logging("warn");
    if !(arguments.speed.is_finite() && arguments.speed > 0.0 && arguments.speed <= 1000.0) {
        return Err(Failure::usage("--speed: write a number above 0 and up to 1000"));
    }
    let length = arguments.duration.as_deref().map(parse_duration).transpose().map_err(|e| Failure::usage(e.to_string()))?;
    for (flag, address) in [("--kafka", &arguments.kafka), ("--http", &arguments.http)] {
        parse_address(address).ok_or_else(|| Failure::usage(format!("{flag} {address}: write ADDRESS:PORT, as in 127.0.0.1:19092")))?;
    }
    // Removed when it is dropped, at the very end.
    let temporary = match &arguments.data_dir {
        Some(_) => None,
        None => Some(TemporaryDir::new()?),
    };
    let data_dir = arguments.data_dir.clone().or_else(|| temporary.as_ref().map(|t| t.0.clone())).expect("one of the two");
    let flags = [
        ("data_dir", data_dir.to_string_lossy().into_owned()),
        ("kafka.listen", arguments.kafka.clone()),
        ("http.listen", arguments.http.clone()),
    ];
    let config = Config::resolve(&flags, std::env::vars(), None).map_err(|e| Failure::usage(e.to_string()))?;
    let runtime = server_runtime()?;
    runtime.block_on(async {
        let mut signals = Signals::hear()?;
        let clock = Clock::running(arguments.speed);
        let mut options = NodeOptions::new(config, clock);
        options.queries = SHIPPED.iter().map(|(name, text)| QueryFile { name: (*name).to_owned(), text: (*text).to_owned() }).collect();
        let node = Node::start(options).await.map_err(|e| Failure::new(e.to_string()))?;
        let origin = Timestamp(clock.now().0.div_euclid(1000) * 1000);
        let ward = Ward::new(&WardOptions { seed: arguments.seed, beds: usize::from(arguments.beds), origin, scripted: true });
        let mut ward = LiveWard { ward, node: &node, next: origin.plus(-HISTORY_S * 1000) };
        if node.has_readings().await {
            // A second start: what was is there. The ward goes on from now, as it would have.
            ward.skip_to(origin);
        } else {
            ward.play_to(origin).await?;
        }
        welcome(&node, arguments, &data_dir, temporary.is_some());
        let mut heard = node.alert_changes();
        let live = async {
            loop {
                let now = clock.now();
                ward.play_to(now).await?;
                let wait = clock.real(Duration::from_millis(ward.next.since(now).max(1) as u64));
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    change = heard.recv() => if let Ok(alert) = change {
                        announce(&node, &alert, origin);
                    },
                }
            }
        };
        let time_is_up = async {
            match length {
                Some(length) => tokio::time::sleep(length).await,
                None => std::future::pending().await,
            }
        };
        let ended: CommandResult = tokio::select! {
            failed = live => failed,
            () = signals.stop() => Ok(()),
            () = time_is_up => Ok(()),
            reason = node.failed() => Err(Failure::new(reason)),
        };
        drain(node, &mut signals).await?;
        ended
    })
}

struct LiveWard<'a> {
    ward: Ward,
    node: &'a Node,
    next: Timestamp,
}

impl LiveWard<'_> {
    /// Writes every second up to (not including) `to`.
    async fn play_to(&mut self, to: Timestamp) -> CommandResult {
        while self.next < to {
            let mut readings = Vec::new();
            let mut truth = Vec::new();
            // A minute at a time, so that history goes in large batches.
            for _ in 0..60 {
                if self.next >= to {
                    break;
                }
                let second = self.ward.tick(self.next);
                readings.extend(second.readings.into_iter().map(|s| (self.next, s.patient_id, s.body)));
                truth.extend(second.truth.into_iter().map(|s| (self.next, s.patient_id, s.body)));
                self.next = self.next.plus(1000);
            }
            self.node.write_simulated("vitals", readings).await.map_err(|e| Failure::new(e.to_string()))?;
            self.node.write_simulated("sim.truth", truth).await.map_err(|e| Failure::new(e.to_string()))?;
        }
        Ok(())
    }

    fn skip_to(&mut self, to: Timestamp) {
        while self.next < to {
            let _ = self.ward.tick(self.next);
            self.next = self.next.plus(1000);
        }
    }
}

fn welcome(node: &Node, arguments: &Arguments, data_dir: &std::path::Path, temporary: bool) {
    let keep = if temporary { " (temporary, removed at the end; keep it with --data-dir DIR)".to_owned() } else { String::new() };
    output::say(&format!(
        "vitalsql {} demo: a simulated ward of {} beds, seed {}                NOT A MEDICAL DEVICE\n  \
         data     {}{keep}\n  Kafka    {}\n  page     http://{}\n  metrics  http://{}/metrics\n  \
         ready in {:.1} s: {} queries and alerts run.\n  next:    open the page; in another terminal\n           \
         vitalsql sql -c \"SHOW QUERIES\"\n           vitalsql sql -c \"SELECT bed, heart_rate, spo2, ts FROM vitals EMIT CHANGES\" --limit 10\n           \
         vitalsql consume alerts --from-start --limit 5\n           vitalsql alerts list",
        env!("CARGO_PKG_VERSION"),
        arguments.beds,
        arguments.seed,
        data_dir.display(),
        node.kafka(),
        node.http_address(),
        node.http_address(),
        node.ready_after().as_secs_f64(),
        node.running_queries(),
    ));
}

/// One line an alert: the bed and the rule, no patient.
fn announce(node: &Node, alert: &crate::alerts::AlertRecord, origin: Timestamp) {
    use crate::alerts::{AlertState, Priority};
    if alert.stale {
        return;
    }
    let symbol = match alert.priority {
        Priority::High => "***",
        Priority::Medium => "** ",
        Priority::Low => "*  ",
    };
    let word = match alert.state {
        AlertState::Active => "ALERT",
        AlertState::Acknowledged => "seen ",
        AlertState::Resolved => "over ",
    };
    let seconds = Timestamp::parse(&alert.recorded_at).map_or(0, |at| at.since(origin) / 1000).max(0);
    // A silence has no reading that could name the bed.
    let named = alert.columns.get("bed").and_then(serde_json::Value::as_str).map(str::to_owned);
    let bed = named.or_else(|| node.bed_of(&alert.subject)).unwrap_or_default();
    let value = alert.value.map(|v| format!("  value {v}")).unwrap_or_default();
    output::say(&format!("  {:02}:{:02}  {word} {symbol} {bed}  {}{value}", seconds / 60, seconds % 60, alert.rule));
}

/// A folder of our own under the system's temporary one, removed when dropped.
struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("vitalsql-demo-{}-{}", std::process::id(), uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        // What is left behind is only a temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
