//! The log a node computes over: its own, or a Kafka cluster's, which may be slow to answer when the node starts.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{NodeError, inside};
use crate::broker::Broker;
use crate::bus::{Bus, BusError, EmbeddedBus, KafkaBus};
use crate::config::Config;

/// How long a start waits for a cluster that does not answer. Whoever starts it may have started the cluster a moment before.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it is until the cluster is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Opens the log of these settings; `broker` is the node's own.
pub(super) async fn open_bus(config: &Config, broker: &Arc<Broker>, http: SocketAddr) -> Result<Arc<dyn Bus>, NodeError> {
    let Some(mut terms) = config.kafka_cluster.clone() else { return Ok(Arc::new(EmbeddedBus::new(Arc::clone(broker)))) };
    if terms.process.is_empty() {
        terms.process = process_name(&config.data_dir)?;
    }
    terms.shown = format!("{} (http {http}{})", terms.process, host_name().map_or_else(String::new, |host| format!(" on {host}")));
    tracing::info!(brokers = %terms.brokers, application_id = %terms.application_id, process = %terms.process, "joining the application on the Kafka cluster");
    let opened = patiently(may_pass, || KafkaBus::open(terms.clone())).await;
    Ok(Arc::new(opened.map_err(|e| inside("could not open the Kafka cluster")(e.to_string()))?))
}

/// Whether waiting may help.
pub(super) const fn may_pass(error: &BusError) -> bool {
    matches!(error, BusError::Retriable(_))
}

/// Does what may have to wait for the cluster until it is done, or has failed for good, or for too long.
pub(super) async fn patiently<T, E: fmt::Display, F: Future<Output = Result<T, E>>>(
    may_pass: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E> {
    let (begun, mut told) = (Instant::now(), String::new());
    loop {
        match attempt().await {
            Err(error) if may_pass(&error) && begun.elapsed() < PATIENCE => {
                let error = error.to_string();
                if error != told {
                    tracing::warn!(%error, "the start waits for the log; it ends {} s after it began", PATIENCE.as_secs());
                    told = error;
                }
                tokio::time::sleep(AGAIN).await;
            }
            done => return done,
        }
    }
}

/// The name of the process on a cluster: made once, and kept in the data directory, which one process has to itself.
fn process_name(dir: &Path) -> Result<String, NodeError> {
    let path = dir.join("process");
    let failed = |e: std::io::Error| NodeError::Data { dir: dir.to_owned(), why: format!("{}: {e}", path.display()) };
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let name = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
    // A name that is lost in a crash of the machine costs nothing but a session's time.
    std::fs::write(&path, &name).map_err(failed)?;
    Ok(name)
}

/// What the machine calls itself, for people.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
