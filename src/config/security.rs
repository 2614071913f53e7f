//! The Kafka door's listeners and who may come in: `kafka.listeners.NAME.*`, `kafka.users.NAME.*` and what belongs to
//! them.
//!
//! Always: a listener beyond loopback asks who a client is, unless the operator says `insecure`; a password is named by the
//! file it is in, never written into the configuration. Called by `config`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{ConfigError, Origin, parse_address};
use crate::broker::security::PrincipalRules;
use crate::server::{ClientCertificates, Mechanism, Protocol, TlsFiles};
use crate::time::parse_duration;

/// What may be said of a listener, and what it means.
pub const LISTENER_KEYS: &[(&str, &str)] = &[
    ("address", "where it listens"),
    ("protocol", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"),
    ("advertised", "HOST:PORT that clients are told, where it is not what they dialled"),
    ("certificate", "the certificate and those that lead to it, in PEM"),
    ("key", "the certificate's key, in PEM"),
    ("client_certificates", "none, requested or required"),
    ("client_authorities", "who may sign clients' certificates, in PEM"),
    ("principal_mapping_rules", "how a subject becomes a name, as Kafka's ssl.principal.mapping.rules"),
    ("mechanisms", "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; without PLAIN where there is no TLS"),
    ("plain_without_tls", "true offers PLAIN although passwords can be read on the way"),
    ("max_reauth", "clients authenticate again after so long; empty for never"),
];

/// One listener.
#[derive(Clone, Debug)]
pub struct KafkaListener {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What is spoken at it.
    pub protocol: Protocol,
    /// What clients are told to connect to.
    pub advertised: Option<(String, u16)>,
    /// With TLS.
    pub tls: Option<TlsFiles>,
    /// With SASL: the ways to authenticate.
    pub mechanisms: Vec<Mechanism>,
    /// With SASL: after so long clients authenticate again.
    pub max_reauth: Option<Duration>,
}

impl KafkaListener {
    /// Whether it knows of everyone who they are.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        self.protocol.has_sasl() || self.tls.as_ref().is_some_and(|tls| tls.clients == ClientCertificates::Required)
    }
}

/// Who may come in and what they may do.
#[derive(Clone, Debug, Default)]
pub struct KafkaSecurity {
    /// Listeners beside `kafka.listen`.
    pub listeners: Vec<KafkaListener>,
    /// Who may do everything, as access rules name them.
    pub super_users: BTreeSet<String>,
    /// Whether everyone may do what no access rule is about.
    pub allow_everyone: bool,
    /// Users that are made at the start unless they are there, and the files their passwords are in.
    pub users: BTreeMap<String, PathBuf>,
}

type Values = BTreeMap<String, (String, Origin)>;

/// Whether a key is of this part, whatever names are in it.
pub(super) fn is_key(key: &str) -> bool {
    let parts: Vec<&str> = key.split('.').collect();
    match parts.as_slice() {
        ["kafka", "listeners", name, part] => !name.is_empty() && LISTENER_KEYS.iter().any(|(known, _)| known == part),
        ["kafka", "users", name, "password_file"] => !name.is_empty(),
        _ => false,
    }
}

/// Reads everything of this part.
pub(super) fn read(values: &Values, insecure: bool) -> Result<KafkaSecurity, ConfigError> {
    let names: BTreeSet<&str> = values.keys().filter_map(|key| Some(key.strip_prefix("kafka.listeners.")?.rsplit_once('.')?.0)).collect();
    let mut listeners = Vec::with_capacity(names.len());
    for name in names {
        listeners.push(Listener { values, name }.read(insecure)?);
    }
    let mut users = BTreeMap::new();
    for (key, (value, _)) in values {
        if let Some(name) = key.strip_prefix("kafka.users.").and_then(|rest| rest.strip_suffix(".password_file")) {
            users.insert(name.to_owned(), PathBuf::from(value));
        }
    }
    let text = |key: &str| values.get(key).map_or("", |(value, _)| value.trim());
    let super_users: BTreeSet<String> = words(text("kafka.super_users")).collect();
    if let Some(bad) = super_users.iter().find(|one| !one.contains(':')) {
        return Err(wrong(values, "kafka.super_users", format!("\"{bad}\" is not a principal as in User:admin")));
    }
    const EVERYONE: &str = "kafka.allow_everyone_if_no_acl_found";
    let allow_everyone = match text(EVERYONE) {
        // Where someone has to say who they are, it is for access rules to say what they may do.
        "auto" => insecure || !listeners.iter().any(KafkaListener::authenticates),
        "true" => true,
        "false" => false,
        _ => return Err(wrong(values, EVERYONE, "expected auto, true or false".to_owned())),
    };
    Ok(KafkaSecurity { listeners, super_users, allow_everyone, users })
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split([',', ';']).map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned)
}

fn wrong(values: &Values, key: &str, why: String) -> ConfigError {
    let (value, origin) = values.get(key).cloned().unwrap_or((String::new(), Origin::Default));
    ConfigError::Value { key: key.to_owned(), value, origin, why }
}

/// One listener's values.
struct Listener<'a> {
    values: &'a Values,
    name: &'a str,
}

impl Listener<'_> {
    fn key(&self, part: &str) -> String {
        format!("kafka.listeners.{}.{part}", self.name)
    }

    fn text(&self, part: &str) -> Option<&str> {
        self.values.get(&self.key(part)).map(|(value, _)| value.trim()).filter(|value| !value.is_empty())
    }

    fn wrong(&self, part: &str, why: impl Into<String>) -> ConfigError {
        wrong(self.values, &self.key(part), why.into())
    }

    fn path(&self, part: &str) -> Option<PathBuf> {
        self.text(part).map(PathBuf::from)
    }

    fn read(&self, insecure: bool) -> Result<KafkaListener, ConfigError> {
        let address = self.text("address").and_then(parse_address);
        let address = address.ok_or_else(|| self.wrong("address", "expected ADDRESS:PORT, as in 0.0.0.0:9093"))?;
        let protocol = self.text("protocol").unwrap_or("PLAINTEXT").parse::<Protocol>();
        let protocol = protocol.map_err(|()| self.wrong("protocol", "expected PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"))?;
        let advertised = match self.text("advertised") {
            None => None,
            Some(text) => {
                let found = text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
                Some(found.filter(|(host, _)| !host.is_empty()).ok_or_else(|| self.wrong("advertised", "expected HOST:PORT"))?)
            }
        };
        let tls = if protocol.has_tls() { Some(self.tls()?) } else { None };
        let mechanisms = if protocol.has_sasl() { self.mechanisms(protocol)? } else { Vec::new() };
        let max_reauth = match self.text("max_reauth") {
            None => None,
            Some(text) => Some(parse_duration(text).map_err(|e| self.wrong("max_reauth", e.to_string()))?),
        };
        let listener = KafkaListener { name: self.name.to_owned(), address, protocol, advertised, tls, mechanisms, max_reauth };
        if !address.ip().is_loopback() && !listener.authenticates() && !insecure {
            let why = "beyond loopback a listener asks who a client is: protocol SASL_SSL, SASL_PLAINTEXT, or SSL with client_certificates = \
                       \"required\"; or say insecure = true (--insecure)";
            return Err(self.wrong("address", why));
        }
        Ok(listener)
    }

    fn tls(&self) -> Result<TlsFiles, ConfigError> {
        let named = |part: &str| self.path(part).ok_or_else(|| self.wrong(part, format!("a listener with TLS needs a {part}")));
        let clients = self.text("client_certificates").unwrap_or("none").parse::<ClientCertificates>();
        let clients = clients.map_err(|()| self.wrong("client_certificates", "expected none, requested or required"))?;
        let rules = PrincipalRules::parse(self.text("principal_mapping_rules").unwrap_or_default());
        let rules = rules.map_err(|why| self.wrong("principal_mapping_rules", why))?;
        let client_authorities = self.path("client_authorities");
        if clients != ClientCertificates::None && client_authorities.is_none() {
            return Err(self.wrong("client_authorities", "clients' certificates need a file of those who may sign them"));
        }
        Ok(TlsFiles { certificate: named("certificate")?, key: named("key")?, client_authorities, clients, rules })
    }

    fn mechanisms(&self, protocol: Protocol) -> Result<Vec<Mechanism>, ConfigError> {
        let plain_is_safe = protocol.has_tls() || self.text("plain_without_tls") == Some("true");
        let Some(text) = self.text("mechanisms") else {
            return Ok(Mechanism::ALL.into_iter().filter(|one| *one != Mechanism::Plain || plain_is_safe).collect());
        };
        let parsed: Result<Vec<Mechanism>, ()> = words(text).map(|word| word.parse()).collect();
        let mechanisms = parsed.ok().filter(|all| !all.is_empty());
        let mechanisms = mechanisms.ok_or_else(|| self.wrong("mechanisms", "expected some of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"))?;
        if mechanisms.contains(&Mechanism::Plain) && !plain_is_safe {
            let why = "PLAIN without TLS shows passwords to everyone on the way; use SCRAM or SASL_SSL, or say plain_without_tls = true";
            return Err(self.wrong("mechanisms", why));
        }
        Ok(mechanisms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        let defaults = [("kafka.super_users", ""), ("kafka.allow_everyone_if_no_acl_found", "auto")];
        defaults.iter().chain(pairs).map(|(k, v)| ((*k).to_owned(), ((*v).to_owned(), Origin::Flag))).collect()
    }

    const TLS: [(&str, &str); 2] = [("kafka.listeners.x.certificate", "c.pem"), ("kafka.listeners.x.key", "k.pem")];

    fn check(pairs: &[(&str, &str)], tls: bool) -> Result<KafkaSecurity, String> {
        let mut all: Vec<_> = pairs.to_vec();
        all.extend(TLS.into_iter().filter(|_| tls));
        assert!(all.iter().all(|(key, _)| is_key(key) || key.starts_with("kafka.super") || key.starts_with("kafka.allow")));
        read(&values(&all), false).map_err(|e| e.to_string())
    }

    #[test]
    fn a_listener_beyond_loopback_asks_who_a_client_is() {
        let at = ("kafka.listeners.x.address", "0.0.0.0:9093");
        let protocol = |p: &'static str| ("kafka.listeners.x.protocol", p);
        assert!(check(&[at], false).unwrap_err().contains("insecure"));
        assert!(check(&[at, protocol("SSL")], true).unwrap_err().contains("insecure"));
        let found = check(&[at, protocol("SASL_SSL")], true).unwrap();
        assert!(!found.allow_everyone && found.listeners[0].mechanisms.len() == 3);
        let found = check(&[at, protocol("SASL_PLAINTEXT")], false).unwrap();
        assert!(!found.listeners[0].mechanisms.contains(&Mechanism::Plain), "no password is shown");
        let certificates =
            [("kafka.listeners.x.client_certificates", "required"), ("kafka.listeners.x.client_authorities", "a.pem"), at, protocol("SSL")];
        assert!(check(&certificates, true).unwrap().listeners[0].authenticates());
        assert!(read(&values(&[at]), true).unwrap().allow_everyone);
    }

    #[test]
    fn plain_without_tls_must_be_asked_for() {
        let base = [
            ("kafka.listeners.x.address", "127.0.0.1:9093"),
            ("kafka.listeners.x.protocol", "SASL_PLAINTEXT"),
            ("kafka.listeners.x.mechanisms", "PLAIN,SCRAM-SHA-256"),
        ];
        assert!(check(&base, false).unwrap_err().contains("PLAIN without TLS"));
        let asked = [&base[..], &[("kafka.listeners.x.plain_without_tls", "true")]].concat();
        assert_eq!(check(&asked, false).unwrap().listeners[0].mechanisms.len(), 2);
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_key() {
        let at = ("kafka.listeners.x.address", "127.0.0.1:1");
        for (pairs, key) in [
            (&[("kafka.listeners.x.protocol", "SSL")][..], "address"),
            (&[at, ("kafka.listeners.x.protocol", "TLS")], "protocol"),
            (&[at, ("kafka.listeners.x.protocol", "SSL")], "certificate"),
            (&[at, ("kafka.listeners.x.advertised", "host")], "advertised"),
            (&[at, ("kafka.listeners.x.protocol", "SASL_PLAINTEXT"), ("kafka.listeners.x.mechanisms", "GSSAPI")], "mechanisms"),
            (&[at, ("kafka.listeners.x.max_reauth", "soon")], "max_reauth"),
            (&[("kafka.super_users", "admin")], "super_users"),
            (&[("kafka.allow_everyone_if_no_acl_found", "perhaps")], "allow_everyone"),
        ] {
            let told = check(pairs, false).unwrap_err();
            assert!(told.contains(key), "{told}");
        }
        assert!(!is_key("kafka.listeners.x.adress") && !is_key("kafka.users.x.password") && is_key("kafka.users.a.password_file"));
    }
}
