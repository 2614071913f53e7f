//! `vitalsql serve`: a node, until it is told to stop.

use std::path::PathBuf;

use clap::Args;

use super::{CommandResult, Failure, output};
use crate::config::Config;
use crate::node::{Node, NodeOptions};
use crate::time::Clock;

/// A node.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  vitalsql serve\n  vitalsql serve --data-dir /var/lib/vitalsql --queries ./queries\n  vitalsql serve --config vitalsql.toml --kafka 127.0.0.1:19092\n\n\
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
    /// Address of the API, /metrics and the page.
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// A folder of .sql files applied at start.
    #[arg(long, value_name = "DIR")]
    queries: Option<PathBuf>,
    /// Allow listeners beyond loopback, although nobody has to say who they are.
    #[arg(long)]
    insecure: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    output::start_logging("info,datafusion=warn");
    let mut flags: Vec<(&str, String)> = Vec::new();
    let path = |p: &PathBuf| p.to_string_lossy().into_owned();
    flags.extend(arguments.data_dir.as_ref().map(|p| ("data_dir", path(p))));
    flags.extend(arguments.kafka.clone().map(|a| ("kafka.listen", a)));
    flags.extend(arguments.http.clone().map(|a| ("http.listen", a)));
    flags.extend(arguments.queries.as_ref().map(|p| ("queries.dir", path(p))));
    flags.extend(arguments.insecure.then(|| ("insecure", "true".to_owned())));
    let config = Config::resolve(&flags, std::env::vars(), arguments.config.as_deref()).map_err(|e| Failure::usage(e.to_string()))?;
    let runtime = server_runtime()?;
    let scheme = if config.http_security.tls.is_some() { "https" } else { "http" };
    let more: String = config
        .kafka_security
        .listeners
        .iter()
        .map(|at| format!("\n  Kafka  {} ({}, {})", at.address, at.name, at.protocol.name()))
        .collect();
    runtime.block_on(async {
        let node = Node::start(NodeOptions::new(config, Clock::system())).await.map_err(|e| Failure::new(e.to_string()))?;
        output::say(&format!(
            "vitalsql {} ready in {:.1} s. Not a medical device.\n  Kafka  {}{more}\n  HTTP   {scheme}://{}  (page, /metrics, /readyz, /api/v1)",
            env!("CARGO_PKG_VERSION"),
            node.ready_after().as_secs_f64(),
            node.kafka_address(),
            node.http_address(),
        ));
        let stopped = tokio::select! {
            () = asked_to_stop() => Ok(()),
            reason = node.failed() => Err(Failure::new(reason)),
        };
        drain(node).await?;
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

/// Completes on SIGTERM or Ctrl-C.
pub async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// Stops the node; a second signal ends at once.
pub async fn drain(node: Node) -> CommandResult {
    output::say("stopping: last commits, snapshots, log (again to end at once)");
    tokio::select! {
        stopped = node.stop() => stopped.map_err(|e| Failure::new(e.to_string())),
        () = asked_to_stop() => interrupted(),
    }
}

/// Somebody does not want to wait: what was acknowledged is durable in any case.
#[allow(clippy::exit, reason = "a second signal asks for just this")]
fn interrupted() -> CommandResult {
    std::process::exit(130)
}
