//! The Apache Kafka cluster a node runs on instead of its own broker: `kafka.brokers` and what belongs to it.
//!
//! Always: a setting of the client that librdkafka does not know, or that exactly-once rests on, is refused here, with where it was
//! written; a secret's value is never shown. Called by `config`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ConfigError, Origin, distance};
use crate::bus::KafkaTerms;
use crate::bus::kafka::properties::{read_file, read_property};
use crate::bus::kafka::{COMMON_PROPERTIES, is_secret, refused_property};
use crate::time::parse_duration;

type Values = BTreeMap<String, (String, Origin)>;

/// The prefix of settings that are the Kafka client's own.
pub(super) const CLIENT: &str = "kafka.client.";

/// Whether a key is of this part, whatever it names.
pub(super) fn is_key(key: &str) -> bool {
    key.strip_prefix(CLIENT).is_some_and(|property| !property.is_empty())
}

/// What `VITALSQL_KAFKA_CLIENT_SECURITY_PROTOCOL` names, given in lower case without its first word.
pub(super) fn key_of_variable(lower: &str) -> Option<String> {
    lower.strip_prefix("kafka_client_").map(|property| format!("{CLIENT}{}", property.replace('_', ".")))
}

/// Reads everything of this part; `None` where the node runs on its own broker.
pub(super) fn read(values: &Values) -> Result<Option<KafkaTerms>, ConfigError> {
    let text = |key: &str| values.get(key).map_or("", |(value, _)| value.trim());
    let brokers: Vec<&str> = text("kafka.brokers").split(',').map(str::trim).filter(|one| !one.is_empty()).collect();
    let wrong = |key: &str, why: String| {
        let (value, origin) = values.get(key).cloned().unwrap_or((String::new(), Origin::Default));
        // Whatever it is meant to be: a misspelt password is one, too.
        let value = if is_key(key) { "***".to_owned() } else { value };
        ConfigError::Value { key: key.to_owned(), value, origin, why }
    };
    if brokers.is_empty() {
        let stray = values.iter().find(|(key, (value, origin))| {
            *origin != Origin::Default
                && !value.is_empty()
                && (is_key(key)
                    || ["kafka.client_file", "kafka.application_id", "kafka.process", "kafka.session_timeout"].contains(&key.as_str()))
        });
        return match stray {
            Some((key, _)) => Err(wrong(key, "it is about a Kafka cluster, and kafka.brokers (--brokers) names none".to_owned())),
            None => Ok(None),
        };
    }
    for key in values.keys().filter(|key| *key == "kafka.listen" || key.starts_with("kafka.listeners.") || key.starts_with("kafka.users."))
    {
        if values[key].1 != Origin::Default {
            return Err(wrong(
                key,
                "a node on a Kafka cluster (kafka.brokers) opens no Kafka listener of its own: clients talk to the cluster".to_owned(),
            ));
        }
    }
    if let Some(bad) =
        brokers.iter().find(|one| one.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()))
    {
        return Err(wrong("kafka.brokers", format!("\"{bad}\" is not HOST:PORT")));
    }
    let replication_factor = match text("kafka.replication_factor").parse::<i32>() {
        Ok(factor) if factor == -1 || (1..=100).contains(&factor) => factor,
        _ => return Err(wrong("kafka.replication_factor", "expected a number from 1 on, or -1 for the cluster's own".to_owned())),
    };
    let mut client = BTreeMap::new();
    let file = text("kafka.client_file");
    if !file.is_empty() {
        for (property, value) in read_file(file).map_err(|why| wrong("kafka.client_file", why))?.0 {
            check(&property).map_err(|why| wrong("kafka.client_file", format!("setting {property}: {why}")))?;
            client.insert(property, value);
        }
    }
    for (key, (value, _)) in values {
        let Some(property) = key.strip_prefix(CLIENT) else { continue };
        let (property, value) = read_property(&format!("{property}={value}")).map_err(|why| wrong(key, why))?;
        check(&property).map_err(|why| wrong(key, why))?;
        client.insert(property, value);
    }
    let application_id = text("kafka.application_id").to_owned();
    let process = text("kafka.process").to_owned();
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if process.len() > 100 || !process.chars().all(fits) {
        return Err(wrong("kafka.process", "expected at most 100 letters, digits, dots, dashes and underscores".to_owned()));
    }
    let session_timeout = parse_duration(text("kafka.session_timeout")).map_err(|why| wrong("kafka.session_timeout", why.to_string()))?;
    if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&session_timeout) {
        return Err(wrong("kafka.session_timeout", "expected 1s to 5m".to_owned()));
    }
    // The lanes that tasks take are shared out; a query with more tasks makes more of them.
    let lanes = text("kafka.default_partitions").parse().unwrap_or(1);
    let shown = process.clone();
    Ok(Some(KafkaTerms { brokers: brokers.join(","), application_id, process, shown, session_timeout, lanes, replication_factor, client }))
}

fn check(property: &str) -> Result<(), String> {
    if let Some(why) = refused_property(property) {
        return Err(why.to_owned());
    }
    if crate::bus::kafka::is_property(property) {
        return Ok(());
    }
    let near =
        COMMON_PROPERTIES.iter().min_by_key(|known| distance(known, property)).filter(|k| distance(k, property) <= 1 + property.len() / 3);
    let suggestion = near.map(|known| format!("; did you mean \"{known}\"?")).unwrap_or_default();
    Err(format!("the Kafka client has no such setting{suggestion}"))
}

/// What may be shown of the settings.
pub(super) fn masked(mut values: Values) -> Values {
    for (key, (value, _)) in &mut values {
        if is_key(key) && is_secret(key) {
            "***".clone_into(value);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::super::tests::resolve;

    fn refusal(flags: &[(&str, &str)], file: &str) -> String {
        resolve(flags, &[], file).expect_err("refused").to_string()
    }

    #[test]
    fn a_cluster_is_named_in_the_file_the_environment_or_a_flag() {
        let file = "[kafka]\nbrokers = [\"k1:9092\", \"k2:9092\"]\napplication_id = \"ward\"\n[kafka.client]\nsecurity.protocol = \"SASL_PLAINTEXT\"";
        let env = [("VITALSQL_KAFKA_CLIENT_SASL_MECHANISM", "PLAIN"), ("VITALSQL_KAFKA_CLIENT_SASL_PASSWORD", "hunter2")];
        let config = resolve(&[("kafka.client.sasl.username", "me")], &env, file).expect("resolves");
        let terms = config.kafka_cluster.expect("a cluster");
        assert_eq!((terms.brokers.as_str(), terms.application_id.as_str(), terms.replication_factor), ("k1:9092,k2:9092", "ward", -1));
        let client: Vec<_> = terms.client.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(client, ["sasl.mechanism=PLAIN", "sasl.password=hunter2", "sasl.username=me", "security.protocol=SASL_PLAINTEXT"]);
        assert_eq!(config.origins["kafka.client.sasl.password"].0, "***");
        assert_eq!(config.commit_interval, std::time::Duration::from_millis(500));
        assert!(resolve(&[], &[], "").expect("resolves").kafka_cluster.is_none());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let on = ("kafka.brokers", "k1:9092");
        assert!(refusal(&[on, ("kafka.client.sasl.pasword", "hunter2")], "").contains("did you mean \"sasl.password\"?"));
        assert!(!refusal(&[on, ("kafka.client.sasl.pasword", "hunter2")], "").contains("hunter2"));
        assert!(refusal(&[on, ("kafka.client.isolation.level", "x")], "").contains("exactly-once"));
        assert!(refusal(&[on, ("kafka.listen", "127.0.0.1:1")], "").contains("no Kafka listener"));
        assert!(refusal(&[("kafka.brokers", "k1")], "").contains("HOST:PORT"));
        assert!(refusal(&[("kafka.application_id", "ward")], "").contains("kafka.brokers"));
        assert!(refusal(&[on, ("kafka.replication_factor", "0")], "").contains("-1"));
        assert!(refusal(&[on, ("kafka.process", "bed 1")], "").contains("letters"));
        assert!(refusal(&[on, ("kafka.session_timeout", "500ms")], "").contains("1s"));
        assert!(refusal(&[("kafka.process", "a")], "").contains("kafka.brokers"));
    }
}
