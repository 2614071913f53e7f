//! `vitalsql serve`: a node, until it is told to stop.

use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CommandResult, Failure, output};
use crate::bus::kafka::properties::{Property, read_property};
use crate::config::Config;
use crate::node::{Node, NodeOptions};
use crate::time::{Clock, Timestamp};

/// A node.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  vitalsql serve\n  vitalsql serve --data-dir /var/lib/vitalsql --queries ./queries\n  vitalsql serve --config vitalsql.toml --kafka 127.0.0.1:19092\n  vitalsql serve --brokers k1:9092,k2:9092 --application-id ward --kafka-config-file client.properties\n\n\
                        A flag wins over VITALSQL_* in the environment, that over vitalsql.toml, that over the default.\n\
                        SIGTERM and Ctrl-C drain and exit 0; a second one ends at once."
)]
pub struct Arguments {
    /// The configuration file; vitalsql.toml in the working folder where there is one.
    #[arg(long, value_name = "FILE", env = "VITALSQL_CONFIG")]
    config: Option<PathBuf>,
    /// Where everything durable lives.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the Kafka listener.
    #[arg(long, value_name = "ADDR")]
    kafka: Option<String>,
    /// Run on this Apache Kafka cluster instead of the node's own broker: the addresses of some of its brokers.
    #[arg(long, value_name = "ADDR,..", visible_alias = "bootstrap", help_heading = "Apache Kafka")]
    brokers: Option<String>,
    /// Names this application on the cluster. Processes with the same one share its work.
    #[arg(long, value_name = "NAME", help_heading = "Apache Kafka")]
    application_id: Option<String>,
    /// Names this process among those of its application, over restarts; by default a name that is kept in the data directory.
    #[arg(long, value_name = "NAME", help_heading = "Apache Kafka")]
    process: Option<String>,
    /// A setting of the Kafka client, as in security.protocol=SASL_SSL; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = read_property, help_heading = "Apache Kafka")]
    kafka_config: Vec<Property>,
    /// A file of such settings, one a line, as the Java tools and librdkafka read them.
    #[arg(long, value_name = "FILE", help_heading = "Apache Kafka")]
    kafka_config_file: Option<PathBuf>,
    /// Address of the API, /metrics and the page.
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// A folder of .sql files applied at start.
    #[arg(long, value_name = "DIR")]
    queries: Option<PathBuf>,
    /// Allow listeners beyond loopback, although nobody has to say who they are.
    #[arg(long)]
    insecure: bool,
    /// How many times as fast as the machine's the node's clock runs: a day of readings in minutes.
    #[arg(long, value_name = "N", help_heading = "Rehearsal")]
    speed: Option<f64>,
    /// What the node's clock shows at the start, as in 2026-01-31T08:00:00Z; the machine's time where it is not said.
    #[arg(long, value_name = "TIME", help_heading = "Rehearsal")]
    clock: Option<String>,
}

impl Arguments {
    /// The clock the node goes by.
    fn clock(&self) -> Result<Clock, Failure> {
        let speed = self.speed.unwrap_or(1.0);
        if !(speed.is_finite() && speed > 0.0 && speed <= 1000.0) {
            return Err(Failure::usage("--speed: write a number above 0 and up to 1000"));
        }
        let Some(text) = &self.clock else { return Ok(Clock::running(speed)) };
        let at =
            Timestamp::parse(text).ok_or_else(|| Failure::usage(format!("--clock {text}: write a time, as in 2026-01-31T08:00:00Z")))?;
        Ok(Clock::running(speed).starting_at(at))
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    output::start_logging("info,datafusion=warn");
    let mut flags: Vec<(&str, String)> = Vec::new();
    let path = |p: &PathBuf| p.to_string_lossy().into_owned();
    flags.extend(arguments.data_dir.as_ref().map(|p| ("data_dir", path(p))));
    flags.extend(arguments.kafka.clone().map(|a| ("kafka.listen", a)));
    flags.extend(arguments.brokers.clone().map(|a| ("kafka.brokers", a)));
    flags.extend(arguments.application_id.clone().map(|a| ("kafka.application_id", a)));
    flags.extend(arguments.process.clone().map(|a| ("kafka.process", a)));
    flags.extend(arguments.kafka_config_file.as_ref().map(|p| ("kafka.client_file", path(p))));
    let client: Vec<(String, &String)> = arguments.kafka_config.iter().map(|(key, value)| (format!("kafka.client.{key}"), value)).collect();
    flags.extend(client.iter().map(|(key, value)| (key.as_str(), (*value).clone())));
    flags.extend(arguments.http.clone().map(|a| ("http.listen", a)));
    flags.extend(arguments.queries.as_ref().map(|p| ("queries.dir", path(p))));
    flags.extend(arguments.insecure.then(|| ("insecure", "true".to_owned())));
    let config = Config::resolve(&flags, std::env::vars(), arguments.config.as_deref()).map_err(|e| Failure::usage(e.to_string()))?;
    let clock = arguments.clock()?;
    let runtime = server_runtime()?;
    let scheme = if config.http_security.tls.is_some() { "https" } else { "http" };
    let more: String = config
        .kafka_security
        .listeners
        .iter()
        .map(|at| format!("\n  Kafka  {} ({}, {})", at.address, at.name, at.protocol.name()))
        .collect();
    runtime.block_on(async {
        let mut signals = Signals::hear()?;
        let mut start = Box::pin(Node::start(NodeOptions::new(config, clock)));
        let mut is_asked = false;
        let started = tokio::select! {
            started = &mut start => started,
            () = signals.stop() => {
                is_asked = true;
                output::say("stopping as soon as the start is done (again to end at once)");
                tokio::select! {
                    started = &mut start => started,
                    () = signals.stop() => return interrupted(),
                }
            }
        };
        let node = started.map_err(|e| Failure::new(e.to_string()))?;
        output::say(&format!(
            "vitalsql {} ready in {:.1} s. Not a medical device.\n  Kafka  {}{more}\n  HTTP   {scheme}://{}  (page, /metrics, /readyz, /api/v1)",
            env!("CARGO_PKG_VERSION"),
            node.ready_after().as_secs_f64(),
            node.kafka(),
            node.http_address(),
        ));
        if arguments.speed.is_some() || arguments.clock.is_some() {
            output::say(&format!("a rehearsal: the node's clock shows {} and runs {} times as fast as the machine's", clock.now(), clock.speed()));
        }
        let stopped = tokio::select! {
            () = signals.stop(), if !is_asked => Ok(()),
            reason = node.failed(), if !is_asked => Err(Failure::new(reason)),
            else => Ok(()),
        };
        drain(node, &mut signals).await?;
        stopped
    })
}

/// The runtime of the node's doors. Queries have one of their own.
pub fn server_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("vitalsql-net")
        .enable_all()
        .build()
        .map_err(|e| Failure::new(e.to_string()))
}

/// SIGTERM and Ctrl-C, heard from when this is made: one that comes while a node starts neither kills it nor is lost.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on.
    pub fn hear() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|e| Failure::new(format!("could not listen for signals: {e}")));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    /// Completes when somebody wants the process to stop; each signal once.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Stops the node; a second signal ends at once.
pub async fn drain(node: Node, signals: &mut Signals) -> CommandResult {
    output::say("stopping: last commits, snapshots, log (again to end at once)");
    tokio::select! {
        stopped = node.stop() => stopped.map_err(|e| Failure::new(e.to_string())),
        () = signals.stop() => interrupted(),
    }
}

/// Somebody does not want to wait: what was acknowledged is durable in any case.
#[allow(clippy::exit, reason = "a second signal asks for just this")]
fn interrupted() -> CommandResult {
    std::process::exit(130)
}
