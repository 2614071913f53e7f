//! What the settings ask for, opened: the broker over its log, listeners, files with queries, and room on the disk for SELECTs and state.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{NodeError, QueryFile, inside};
use crate::broker::security::SecurityTerms;
use crate::broker::{Broker, BrokerConfig};
use crate::config::{Config, KafkaListener};
use crate::log::{Log, LogConfig, RealDisk};
use crate::server::{ListenerTerms, SaslTerms, Tls};
use crate::sql::{Spill, Workspace};
use crate::stream::{SpillSpace, Spilling};
use crate::time::Clock;

/// Topics that VitalSQL makes keep thirty days, counted from when a record was received.
pub(super) fn engine_topic_configs() -> BTreeMap<String, String> {
    BTreeMap::from([("retention.ms".to_owned(), "2592000000".to_owned())])
}

/// What SELECTs work in. Where nothing can be put on the disk they do without.
pub(super) fn workspace(config: &Config) -> Result<Workspace, NodeError> {
    let spill = (config.spill_bytes > 0).then(|| Spill { dir: config.data_dir.join("spill"), bytes: config.spill_bytes });
    let opened = Workspace::open(config.select_memory, spill.as_ref()).or_else(|error| {
        tracing::warn!(%error, "SELECTs have no room on the disk: what needs more than sql.memory fails");
        Workspace::open(config.select_memory, None)
    });
    opened.map_err(|e| inside("could not set memory for SELECTs aside")(e.to_string()))
}

/// Room on the disk for the state of queries, where they are given some.
pub(super) fn spilling(config: &Config) -> Option<Spilling> {
    // An earlier process may have had some, and this one needs none of it.
    let opened = SpillSpace::open(&config.data_dir.join("spilled-state"), config.state_disk, config.min_free_bytes.saturating_mul(2));
    let is_asked_for = config.state_memory > 0 && config.state_disk > 0;
    match opened {
        Ok(space) => is_asked_for.then_some(Spilling { space, above: config.state_memory }),
        Err(error) => {
            tracing::warn!(%error, "the state of queries has no room on the disk: it stays in memory");
            None
        }
    }
}

/// The files with queries: those that were handed over, then those of the folder, by name.
pub(super) fn query_files(config: &Config, mut files: Vec<QueryFile>) -> Result<Vec<QueryFile>, NodeError> {
    let Some(dir) = &config.queries_dir else { return Ok(files) };
    let unreadable = |path: &std::path::Path, e: std::io::Error| NodeError::Data { dir: path.to_owned(), why: e.to_string() };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir).map_err(|e| unreadable(dir, e))?.flatten().map(|e| e.path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "sql"));
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|e| unreadable(&path, e))?;
        files.push(QueryFile { name: path.display().to_string(), text });
    }
    Ok(files)
}

/// The node's own broker over its log, with the users that the settings name.
pub(super) async fn open_broker(config: &Config, clock: Clock) -> Result<Arc<Broker>, NodeError> {
    let data = |why: String| NodeError::Data { dir: config.data_dir.clone(), why };
    let log_config = LogConfig { cache_bytes: config.cache_bytes as usize, min_free_bytes: config.min_free_bytes, ..LogConfig::default() };
    let dir = config.data_dir.clone();
    // Recovery reads files: not on a network thread.
    let log = tokio::task::spawn_blocking(move || {
        RealDisk::open(&dir).map_err(|e| e.to_string()).and_then(|disk| Log::open(Arc::new(disk), log_config).map_err(|e| e.to_string()))
    })
    .await
    .map_err(|e| data(e.to_string()))?
    .map_err(data)?;
    let broker_config = BrokerConfig {
        auto_create_topics: config.auto_create_topics,
        default_partitions: config.default_partitions,
        group_initial_rebalance_delay: config.group_initial_rebalance_delay,
        group_session_timeout: (config.group_min_session_timeout, BrokerConfig::default().group_session_timeout.1),
        segment_bytes: config.segment_bytes,
        max_reauth: config.kafka_security.listeners.iter().filter_map(|listener| listener.max_reauth).min(),
        security: SecurityTerms {
            super_users: config.kafka_security.super_users.clone(),
            allow_everyone: config.kafka_security.allow_everyone,
        },
        ..BrokerConfig::default()
    };
    let broker = Broker::open(log, broker_config, clock).await.map_err(|e| inside("could not open the broker")(e.to_string()))?;
    for (user, path) in &config.kafka_security.users {
        let failed = |why: String| inside("could not make a user of the configuration")(format!("{user}: {why}"));
        let password = std::fs::read_to_string(path).map_err(|e| failed(format!("{}: {e}", path.display())))?;
        let password = password.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(failed(format!("{} is empty", path.display())));
        }
        if broker.security().introduce(user, password).await.map_err(|e| failed(e.to_string()))? {
            tracing::info!(%user, "user made");
        }
    }
    Ok(broker)
}

/// What holds at a listener, its files read.
pub(super) fn listener_terms(listener: &KafkaListener) -> Result<ListenerTerms, NodeError> {
    let name = &listener.name;
    let tls = listener.tls.clone().map(Tls::open).transpose();
    let tls = tls.map_err(|why| inside("could not read certificates")(format!("listener {name}: {why}")))?;
    let sasl = listener.protocol.has_sasl().then(|| SaslTerms { mechanisms: listener.mechanisms.clone(), max_reauth: listener.max_reauth });
    Ok(ListenerTerms { name: name.clone(), advertised: listener.advertised.clone(), tls, sasl })
}
