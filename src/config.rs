//! Configuration: flag over environment over file over default.
//!
//! One table, [`SETTINGS`], names every setting, its default and what it does; the file's keys, the
//! environment's names (`kafka.listen` is `VITALSQL_KAFKA_LISTEN`) and the documentation come from it.
//! Always: an unknown key is an error with a suggestion, wherever it was written; nothing is ignored.

mod cluster;
mod http;
mod security;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use http::{HttpSecurity, TOKEN_KEYS};
pub use security::{KafkaListener, KafkaSecurity, LISTENER_KEYS};

use crate::bus::KafkaTerms;
use crate::stream::Delivery;
use crate::time::parse_duration;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its dotted key in `vitalsql.toml`.
    pub key: &'static str,
    /// What it is when nobody says anything.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

const fn setting(key: &'static str, default: &'static str, doc: &'static str) -> Setting {
    Setting { key, default, doc }
}

/// Every setting. `notify.webhook.NAME.url` and `.bearer_token_file` come on top, for any NAME, and so do
/// `kafka.users.NAME.password_file`, `kafka.listeners.NAME.PART` with the parts of [`LISTENER_KEYS`], `http.tokens.NAME.PART`
/// with those of [`TOKEN_KEYS`], and `kafka.client.PROPERTY` with any property of the Kafka client.
pub const SETTINGS: &[Setting] = &[
    setting("data_dir", "vitalsql-data", "where everything durable lives"),
    setting("queries.dir", "", "a folder of .sql files applied in order of name at start; empty for none"),
    setting("kafka.listen", "127.0.0.1:9092", "address of the Kafka listener"),
    setting("kafka.auto_create_topics", "true", "make a topic when a client first names it"),
    setting("kafka.default_partitions", "4", "partitions of a topic made without a count"),
    setting("kafka.max_connections", "10000", "further connections are refused"),
    setting("kafka.max_connections_per_ip", "10000", "further connections from one address are refused"),
    setting(
        "kafka.request_memory",
        "536870912",
        "bytes of requests that are read or served at a time, over all connections, and as many of answers that wait to be read",
    ),
    setting("kafka.super_users", "", "who may do everything, as in User:admin,User:backup"),
    setting(
        "kafka.allow_everyone_if_no_acl_found",
        "auto",
        "whether everyone may do what no access rule is about; auto: unless a listener authenticates",
    ),
    setting("kafka.group_initial_rebalance_delay", "500ms", "how long a new consumer group waits for company"),
    setting("kafka.group_min_session_timeout", "6s", "the shortest session that a member of a consumer group may ask for"),
    setting("kafka.brokers", "", "brokers of an Apache Kafka cluster to run on, as in k1:9092,k2:9092; empty for the node's own broker"),
    setting("kafka.application_id", "vitalsql", "names this application on the cluster; processes with the same one share its work"),
    setting(
        "kafka.process",
        "",
        "names this process among those of its application, over restarts; empty for a name that is kept in the data directory",
    ),
    setting("kafka.session_timeout", "10s", "how long a process on a cluster may be silent until others of its application run its tasks"),
    setting("kafka.replication_factor", "-1", "how often topics made on the cluster are kept; -1 for the cluster's own default"),
    setting(
        "kafka.client_file",
        "",
        "a file of settings of the Kafka client (security.protocol=..), as the Java tools and librdkafka read them",
    ),
    setting("http.listen", "127.0.0.1:8080", "address of the API, /metrics and the page"),
    setting("http.certificate", "", "the HTTP door's certificate and those that lead to it, in PEM; empty for no TLS"),
    setting("http.key", "", "the certificate's key, in PEM"),
    setting("engine.threads", "2", "threads that run queries"),
    setting(
        "engine.commit_interval",
        "100ms",
        "a commit without output, or of a query that is behind, waits this long for company; on a Kafka cluster 500ms unless it is set",
    ),
    setting("engine.snapshot_interval", "30s", "a busy query snapshots its state at least this often"),
    setting(
        "engine.state_max",
        "1073741824",
        "bytes of state that a query may hold which does not say how many with 'state.max'; one that needs more stops and says so; 0 for any",
    ),
    setting(
        "engine.state_memory",
        "536870912",
        "above so many bytes of a query's state in memory, or three quarters of what it may hold if that is less, what has not been worked \
         on of late goes to the disk and comes back when it is needed: of windows, sessions, groups and joins within a range of time; what \
         other operators hold stays in memory; 0 for none",
    ),
    setting(
        "engine.state_disk",
        "4294967296",
        "bytes that the state of all queries together may take on the disk, under data_dir, as long as twice log.min_free_bytes stay free \
         there; what there is no room for stays in memory; 0 for none",
    ),
    setting(
        "engine.delivery",
        "exactly_once",
        "of queries and alerts that do not say it with 'delivery': exactly_once, or at_least_once, which is seen sooner and after a crash \
         in part once more; results that change and views are kept exactly once",
    ),
    setting("sql.memory", "268435456", "bytes that SELECTs over stored data may hold together; one that needs more fails"),
    setting("sql.spill_bytes", "0", "bytes that they may put on the disk instead, under data_dir; 0 for none"),
    setting("log.segment_bytes", "1073741824", "default segment.bytes of a topic"),
    setting("log.cache_bytes", "33554432", "recent records kept in memory for readers, over all partitions"),
    setting("log.min_free_bytes", "268435456", "below this much free disk, writes are refused (retriable) and reads go on"),
    setting("insecure", "false", "allow listeners beyond loopback at which nobody has to say who they are"),
];

/// The default of `engine.commit_interval` on a Kafka cluster, where a transaction costs the brokers more than a sync.
const CLUSTER_COMMIT_INTERVAL: Duration = Duration::from_millis(500);

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The file.
    File(PathBuf),
    /// The environment variable of this name.
    Environment(String),
    /// A flag on the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// What is wrong with the configuration, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read {}: {why}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system or the TOML parser said.
        why: String,
    },
    /// Nobody knows this key.
    #[error("unknown setting \"{key}\" ({origin}){}", suggestion.as_ref().map(|s| format!("; did you mean \"{s}\"?")).unwrap_or_default())]
    Unknown {
        /// As it was written.
        key: String,
        /// Where.
        origin: Origin,
        /// The nearest known key.
        suggestion: Option<String>,
    },
    /// The value does not fit.
    #[error("setting \"{key}\" = \"{value}\" ({origin}): {why}")]
    Value {
        /// The key.
        key: String,
        /// As it was written.
        value: String,
        /// Where.
        origin: Origin,
        /// What would fit.
        why: String,
    },
}

/// A webhook that rules may name as `webhook:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where notices are posted.
    pub url: String,
    /// A file whose content is sent as bearer token.
    pub bearer_token_file: Option<PathBuf>,
}

/// The whole configuration, typed.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything durable lives.
    pub data_dir: PathBuf,
    /// A folder of query files applied at start.
    pub queries_dir: Option<PathBuf>,
    /// The Kafka listener.
    pub kafka_listen: SocketAddr,
    /// Whether clients make topics by naming them.
    pub auto_create_topics: bool,
    /// Partitions of a topic made without a count.
    pub default_partitions: i32,
    /// Connections beyond this are refused.
    pub max_connections: usize,
    /// Connections from one address beyond this are refused.
    pub max_connections_per_ip: usize,
    /// Bytes of large requests that are read or served at a time.
    pub request_memory: usize,
    /// Listeners beside `kafka_listen`, users and rights.
    pub kafka_security: KafkaSecurity,
    /// The Kafka cluster the engine runs on; its own broker where there is none.
    pub kafka_cluster: Option<KafkaTerms>,
    /// How long a new group waits for company.
    pub group_initial_rebalance_delay: Duration,
    /// The shortest session that a member of a consumer group may ask for.
    pub group_min_session_timeout: Duration,
    /// The HTTP listener.
    pub http_listen: SocketAddr,
    /// Who may come in there.
    pub http_security: HttpSecurity,
    /// Threads that run queries.
    pub engine_threads: usize,
    /// How long a commit without output waits.
    pub commit_interval: Duration,
    /// How often a busy query snapshots its state.
    pub snapshot_interval: Duration,
    /// Bytes of state that a query may hold which does not say how many; 0 for any.
    pub state_max: u64,
    /// Bytes of a query's state in memory above which some of it goes to the disk; 0 for none.
    pub state_memory: u64,
    /// Bytes of state that all queries together may have on the disk.
    pub state_disk: u64,
    /// How often the results of queries and alerts may be written that do not say it.
    pub delivery: Delivery,
    /// Bytes that SELECTs over stored data may hold together.
    pub select_memory: usize,
    /// Bytes that they may put on the disk instead.
    pub spill_bytes: u64,
    /// Default `segment.bytes`.
    pub segment_bytes: u64,
    /// The tail cache's budget.
    pub cache_bytes: u64,
    /// The disk guard's line.
    pub min_free_bytes: u64,
    /// Whether listeners beyond loopback are allowed.
    pub insecure: bool,
    /// The webhooks, by name.
    pub webhooks: BTreeMap<String, Webhook>,
    /// Every setting as text, with where it came from: for `config show`.
    pub origins: BTreeMap<String, (String, Origin)>,
}

impl Config {
    /// Resolves the settings. `flags` are the settings given on the command line; `environment` is all of
    /// it, of which only `VITALSQL_*` is looked at; `file` is the file to read: an explicit one must exist,
    /// the default one (`vitalsql.toml` in the working folder) may be absent.
    pub fn resolve(
        flags: &[(&str, String)],
        environment: impl Iterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let mut values: BTreeMap<String, (String, Origin)> = BTreeMap::new();
        for s in SETTINGS {
            values.insert(s.key.to_owned(), (s.default.to_owned(), Origin::Default));
        }
        let default_file = Path::new("vitalsql.toml");
        if let Some(path) = file.or_else(|| default_file.exists().then_some(default_file)) {
            let unreadable = |why: String| ConfigError::Unreadable { path: path.to_owned(), why };
            let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
            let table: toml::Table = text.parse().map_err(|e: toml::de::Error| unreadable(e.to_string()))?;
            let mut flat = Vec::new();
            flatten("", &table, &mut flat);
            for (key, value) in flat {
                set(&mut values, &key, value, Origin::File(path.to_owned()))?;
            }
        }
        for (name, value) in environment {
            // VITALSQL_LOG and VITALSQL_URL belong to the command line, not to the node.
            if let Some(rest) = name
                .strip_prefix("VITALSQL_")
                .filter(|rest| !matches!(*rest, "LOG" | "URL" | "CONFIG" | "KAFKA" | "KAFKA_CONFIG" | "TOKEN" | "CA"))
            {
                let key = key_of_variable(rest);
                set(&mut values, &key, value, Origin::Environment(name.clone()))?;
            }
        }
        for (key, value) in flags {
            set(&mut values, key, value.clone(), Origin::Flag)?;
        }
        Self::typed(values)
    }

    fn typed(values: BTreeMap<String, (String, Origin)>) -> Result<Self, ConfigError> {
        let read = Reading(&values);
        let config = Self {
            data_dir: PathBuf::from(read.text("data_dir")),
            queries_dir: Some(read.text("queries.dir")).filter(|t| !t.is_empty()).map(PathBuf::from),
            kafka_listen: read.address("kafka.listen")?,
            auto_create_topics: read.parsed("kafka.auto_create_topics", "true or false")?,
            default_partitions: read.within("kafka.default_partitions", 1, 10_000)? as i32,
            max_connections: read.within("kafka.max_connections", 1, 1_000_000)? as usize,
            max_connections_per_ip: read.within("kafka.max_connections_per_ip", 1, 1_000_000)? as usize,
            request_memory: read.within("kafka.request_memory", 100 << 20, 1 << 40)? as usize,
            kafka_security: KafkaSecurity::default(),
            kafka_cluster: cluster::read(&values)?,
            group_initial_rebalance_delay: read.duration("kafka.group_initial_rebalance_delay")?,
            group_min_session_timeout: read.duration("kafka.group_min_session_timeout")?,
            http_listen: read.address("http.listen")?,
            http_security: HttpSecurity::default(),
            engine_threads: read.within("engine.threads", 1, 256)? as usize,
            commit_interval: read.duration("engine.commit_interval")?,
            snapshot_interval: read.duration("engine.snapshot_interval")?,
            state_max: read.within("engine.state_max", 0, 1 << 50)?,
            state_memory: read.within("engine.state_memory", 0, 1 << 50)?,
            state_disk: read.within("engine.state_disk", 0, 1 << 50)?,
            delivery: Delivery::of(read.text("engine.delivery").trim())
                .ok_or_else(|| read.wrong("engine.delivery", "expected exactly_once or at_least_once".to_owned()))?,
            select_memory: read.within("sql.memory", 16 << 20, 1 << 40)? as usize,
            spill_bytes: read.within("sql.spill_bytes", 0, 1 << 50)?,
            segment_bytes: read.within("log.segment_bytes", 1 << 14, 1 << 40)?,
            cache_bytes: read.within("log.cache_bytes", 1 << 20, 1 << 40)?,
            min_free_bytes: read.within("log.min_free_bytes", 0, 1 << 50)?,
            insecure: read.parsed("insecure", "true or false")?,
            webhooks: webhooks(&values)?,
            origins: BTreeMap::new(),
        };
        if !config.kafka_listen.ip().is_loopback() && !config.insecure {
            let why = "beyond loopback there would be no authentication; listen on 127.0.0.1 and add a listener that asks who a client is \
                       (kafka.listeners.NAME), or say insecure = true (--insecure)";
            return Err(read.wrong("kafka.listen", why.to_owned()));
        }
        let kafka_security = security::read(&values, config.insecure)?;
        let http_security = http::read(&values, config.http_listen, config.insecure)?;
        let mut commit_interval = config.commit_interval;
        if config.kafka_cluster.is_some() && values["engine.commit_interval"].1 == Origin::Default {
            commit_interval = CLUSTER_COMMIT_INTERVAL;
        }
        Ok(Self { origins: cluster::masked(values), kafka_security, http_security, commit_interval, ..config })
    }
}

/// Reads typed values out of the resolved texts.
struct Reading<'a>(&'a BTreeMap<String, (String, Origin)>);

impl Reading<'_> {
    fn text(&self, key: &str) -> &str {
        &self.0[key].0
    }

    fn wrong(&self, key: &str, why: String) -> ConfigError {
        let (value, origin) = self.0[key].clone();
        ConfigError::Value { key: key.to_owned(), value, origin, why }
    }

    fn parsed<T: std::str::FromStr>(&self, key: &str, what: &str) -> Result<T, ConfigError> {
        self.text(key).trim().parse().map_err(|_| self.wrong(key, format!("expected {what}")))
    }

    fn within(&self, key: &str, least: u64, most: u64) -> Result<u64, ConfigError> {
        let what = format!("expected a whole number from {least} to {most}");
        let value: u64 = self.parsed(key, "a whole number")?;
        if (least..=most).contains(&value) { Ok(value) } else { Err(self.wrong(key, what)) }
    }

    fn duration(&self, key: &str) -> Result<Duration, ConfigError> {
        parse_duration(self.text(key)).map_err(|e| self.wrong(key, e.to_string()))
    }

    fn address(&self, key: &str) -> Result<SocketAddr, ConfigError> {
        parse_address(self.text(key)).ok_or_else(|| self.wrong(key, "expected ADDRESS:PORT, as in 127.0.0.1:9092".to_owned()))
    }
}

/// Reads `127.0.0.1:9092`, `[::1]:9092`, `localhost:9092` or `:9092` (which means loopback).
#[must_use]
pub fn parse_address(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    matches!(host, "" | "localhost").then(|| SocketAddr::from(([127, 0, 0, 1], port)))
}

fn webhooks(values: &BTreeMap<String, (String, Origin)>) -> Result<BTreeMap<String, Webhook>, ConfigError> {
    let mut found: BTreeMap<String, Webhook> = BTreeMap::new();
    for (key, (value, _)) in values {
        let Some((name, part)) = key.strip_prefix("notify.webhook.").and_then(|rest| rest.rsplit_once('.')) else { continue };
        let hook = found.entry(name.to_owned()).or_insert_with(|| Webhook { url: String::new(), bearer_token_file: None });
        match part {
            "url" => hook.url.clone_from(value),
            _ => hook.bearer_token_file = Some(PathBuf::from(value)),
        }
    }
    for (name, hook) in &found {
        if !(hook.url.starts_with("http://") || hook.url.starts_with("https://")) {
            let key = format!("notify.webhook.{name}.url");
            let origin = values.get(&key).map_or(Origin::Default, |(_, origin)| origin.clone());
            return Err(ConfigError::Value {
                key,
                value: hook.url.clone(),
                origin,
                why: "expected an http:// or https:// address".to_owned(),
            });
        }
    }
    Ok(found)
}

fn is_webhook_key(key: &str) -> bool {
    let parts: Vec<&str> = key.split('.').collect();
    matches!(parts.as_slice(), ["notify", "webhook", name, "url" | "bearer_token_file"] if !name.is_empty())
}

fn set(values: &mut BTreeMap<String, (String, Origin)>, key: &str, value: String, origin: Origin) -> Result<(), ConfigError> {
    if !values.contains_key(key) && !is_webhook_key(key) && !security::is_key(key) && !http::is_key(key) && !cluster::is_key(key) {
        let suggestion = SETTINGS.iter().map(|s| s.key).min_by_key(|k| distance(k, key)).filter(|k| distance(k, key) <= 1 + key.len() / 3);
        return Err(ConfigError::Unknown { key: key.to_owned(), origin, suggestion: suggestion.map(str::to_owned) });
    }
    values.insert(key.to_owned(), (value, origin));
    Ok(())
}

/// `KAFKA_AUTO_CREATE_TOPICS` to `kafka.auto_create_topics`: whichever known key spells so.
fn key_of_variable(rest: &str) -> String {
    let lower = rest.to_lowercase();
    if let Some(hook) = lower.strip_prefix("notify_webhook_") {
        for part in ["url", "bearer_token_file"] {
            if let Some(name) = hook.strip_suffix(&format!("_{part}")) {
                return format!("notify.webhook.{name}.{part}");
            }
        }
    }
    let known = SETTINGS.iter().map(|s| s.key).find(|k| k.replace('.', "_") == lower).map(str::to_owned);
    known.or_else(|| cluster::key_of_variable(&lower)).unwrap_or(lower)
}

fn flatten(prefix: &str, table: &toml::Table, into: &mut Vec<(String, String)>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, into),
            toml::Value::String(text) => into.push((key, text.clone())),
            // A list of texts is what the same texts are with commas between them.
            toml::Value::Array(all) if all.iter().all(toml::Value::is_str) => {
                into.push((key, all.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(",")));
            }
            other => into.push((key, other.to_string())),
        }
    }
}

/// Levenshtein's distance, for suggestions.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn resolve(flags: &[(&str, &str)], env: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("vitalsql.toml");
        std::fs::write(&path, file).expect("written");
        let flags: Vec<(&str, String)> = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        Config::resolve(&flags, env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())), Some(&path))
    }

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let file = "[kafka]\nlisten = \"127.0.0.1:1\"\ndefault_partitions = 7\n[http]\nlisten = \":3\"";
        let env = [("VITALSQL_KAFKA_LISTEN", "127.0.0.1:2"), ("VITALSQL_HTTP_LISTEN", "localhost:4"), ("PATH", "x")];
        let config = resolve(&[("http.listen", "127.0.0.1:5")], &env, file).expect("resolves");
        assert_eq!(config.kafka_listen.port(), 2);
        assert_eq!(config.http_listen.port(), 5);
        assert_eq!(config.default_partitions, 7);
        assert_eq!(config.commit_interval, Duration::from_millis(100));
        assert_eq!(config.origins["http.listen"].1, Origin::Flag);
    }

    #[test]
    fn results_are_written_once_unless_it_is_said_that_they_may_be_written_again() {
        assert_eq!(resolve(&[], &[], "").expect("resolves").delivery, Delivery::ExactlyOnce);
        let config = resolve(&[], &[("VITALSQL_ENGINE_DELIVERY", "at_least_once")], "").expect("resolves");
        assert_eq!(config.delivery, Delivery::AtLeastOnce);
        let error = resolve(&[], &[], "[engine]\ndelivery = \"at-least-once\"").expect_err("refused").to_string();
        assert!(error.contains("expected exactly_once or at_least_once"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_an_error_with_a_suggestion() {
        let error = resolve(&[], &[], "[kafka]\nlissten = \"x\"").expect_err("refused").to_string();
        assert!(error.contains("did you mean \"kafka.listen\"?"), "{error}");
        let error = resolve(&[], &[("VITALSQL_KAFKA_LISTN", "x")], "").expect_err("refused").to_string();
        assert!(error.contains("VITALSQL_KAFKA_LISTN"), "{error}");
    }

    #[test]
    fn a_listener_beyond_loopback_must_be_asked_for() {
        assert!(resolve(&[("kafka.listen", "0.0.0.0:9092")], &[], "").is_err());
        assert!(resolve(&[("kafka.listen", "0.0.0.0:9092"), ("insecure", "true")], &[], "").is_ok());
    }

    #[test]
    fn webhooks_have_names_of_their_own() {
        let config = resolve(&[], &[], "[notify.webhook.ward]\nurl = \"http://127.0.0.1:1/x\"").expect("resolves");
        assert_eq!(config.webhooks["ward"].url, "http://127.0.0.1:1/x");
        assert!(resolve(&[], &[], "[notify.webhook.ward]\nurl = \"ward\"").is_err());
    }
}
