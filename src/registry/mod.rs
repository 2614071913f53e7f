//! Confluent's schema registry over HTTP: schemas by their id, and ids for the schemas that sinks write with.
//!
//! Owns what it has been told: a schema never changes under its id, so it is asked for once. Always: an answer is read
//! up to a limit, a request ends within its time-out and a question, with all that a schema leans on, within another; what
//! is not there is not asked for again for a while; every error names the registry and what was asked for. A registry that
//! cannot be reached is an error to try again after, an id that it does not have is a fact about the record. Called by
//! `format` and by the engine.

mod answer;
#[cfg(test)]
pub mod double;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use answer::{Answer, Stored, Versioned};

/// The longest answer that is read, and how long a schema may be with all that it leans on.
const MAX_ANSWER: u64 = 2 << 20;
/// How long a request may take, connecting included, and how long a question may that takes several.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 10 });
const WHOLE_PATIENCE: Duration = Duration::from_secs(30);
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// How long an id that is not there is not asked for again.
const MISSING_FOR: Duration = Duration::from_secs(60);
/// So many schemas are kept of so many bytes, and so many ids that are not there.
const MAX_KNOWN: usize = 1_024;
const MAX_KNOWN_BYTES: usize = 64 << 20;
/// So many other schemas may a schema lean on.
const MAX_REFERENCES: usize = 64;

/// In which language a schema is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaKind {
    /// Avro.
    Avro,
    /// Protocol Buffers.
    Protobuf,
    /// JSON Schema.
    Json,
}

impl SchemaKind {
    /// Its name in the registry's API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Protobuf => "PROTOBUF",
            Self::Json => "JSON",
        }
    }
}

/// A schema as the registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Its language.
    pub kind: SchemaKind,
    /// Its text.
    pub text: String,
    /// What it leans on, by the name it uses for it; each behind what itself leans on.
    pub references: Vec<(String, String)>,
}

/// What is known of an id.
#[derive(Clone, Debug)]
pub enum Known {
    /// The schema.
    Schema(Arc<Schema>),
    /// The registry does not have it.
    Missing,
}

/// Why the registry did not answer as was hoped.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegistryError {
    /// Ask again later.
    #[error("could not ask the schema registry {url} for {what}: {why}")]
    Unreachable {
        /// Which registry.
        url: String,
        /// What was asked for.
        what: String,
        /// What went wrong.
        why: String,
    },
    /// It has answered, and asking again gives the same.
    #[error("the schema registry {url} refuses {what}: {why} (status {status})")]
    Refused {
        /// Which registry.
        url: String,
        /// What was asked for.
        what: String,
        /// Its status.
        status: u16,
        /// What it says.
        why: String,
    },
    /// It has answered something that is no answer.
    #[error("the schema registry {url} gives no usable answer for {what}: {why}")]
    Unusable {
        /// Which registry.
        url: String,
        /// What was asked for.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The address cannot be one.
    #[error(
        "\"{0}\" is no address of a schema registry: write http:// or https://, a host and, where it has one, a path; it has no user, password or query"
    )]
    Address(String),
}

impl RegistryError {
    /// Whether the same question may be answered later.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::Unusable { .. } | Self::Address(_) => false,
        }
    }
}

/// One schema registry, and what it has said.
#[derive(Debug)]
pub struct Registry {
    url: String,
    agent: ureq::Agent,
    known: Mutex<Kept>,
    missing: Mutex<HashMap<u32, Instant>>,
    registered: Mutex<BTreeMap<(String, SchemaKind, String), u32>>,
}

/// The schemas that are known.
#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<u32, Arc<Schema>>,
    bytes: usize,
}

impl Kept {
    /// Keeps a schema. What is full starts again: what is gone is asked for once more.
    fn keep(&mut self, id: u32, schema: Schema) {
        let bytes = schema.bytes();
        if self.by_id.len() >= MAX_KNOWN || self.bytes + bytes > MAX_KNOWN_BYTES {
            *self = Self::default();
        }
        self.bytes += bytes;
        self.by_id.insert(id, Arc::new(schema));
    }
}

impl Schema {
    /// How long it is, with what it leans on.
    fn bytes(&self) -> usize {
        self.text.len() + self.references.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>()
    }
}

impl Registry {
    /// The registry at `url`. Nothing is asked yet.
    pub fn new(url: &str) -> Result<Self, RegistryError> {
        let bad = || RegistryError::Address(without_password(url));
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).ok_or_else(bad)?;
        if rest.is_empty() || rest.starts_with('/') || rest.contains(['?', '#', '@', ' ']) || url.parse::<ureq::http::Uri>().is_err() {
            return Err(bad());
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_PATIENCE))
            .timeout_global(Some(PATIENCE));
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            agent: ureq::Agent::new_with_config(config.build()),
            known: Mutex::default(),
            missing: Mutex::default(),
            registered: Mutex::default(),
        })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What is known of an id without asking; `None`: nothing.
    #[must_use]
    pub fn known(&self, id: u32) -> Option<Known> {
        if let Some(schema) = self.known.lock().by_id.get(&id) {
            return Some(Known::Schema(Arc::clone(schema)));
        }
        let asked = self.missing.lock().get(&id).copied()?;
        (asked.elapsed() < MISSING_FOR).then_some(Known::Missing)
    }

    /// Asks for an id, which is known then.
    pub async fn fetch(self: &Arc<Self>, id: u32) -> Result<(), RegistryError> {
        let found = self.blocking(move |me| me.schema_of(id)).await?;
        match found {
            Some(schema) => self.known.lock().keep(id, schema),
            None => {
                let mut missing = self.missing.lock();
                if missing.len() >= MAX_KNOWN {
                    missing.clear();
                }
                missing.insert(id, Instant::now());
            }
        }
        Ok(())
    }

    /// The id of a schema under a subject, registered there where it is not yet.
    pub async fn register(self: &Arc<Self>, subject: &str, kind: SchemaKind, text: &str) -> Result<u32, RegistryError> {
        let key = (subject.to_owned(), kind, text.to_owned());
        if let Some(id) = self.registered.lock().get(&key) {
            return Ok(*id);
        }
        let asked = key.clone();
        let id = self.blocking(move |me| me.id_of(&asked.0, asked.1, &asked.2)).await?;
        self.registered.lock().insert(key, id);
        Ok(id)
    }

    /// The last schema of a subject; `None` where it has none.
    pub async fn latest(self: &Arc<Self>, subject: &str) -> Result<Option<Schema>, RegistryError> {
        let subject = subject.to_owned();
        self.blocking(move |me| me.version_of(&subject, "latest")).await
    }

    /// What a test knows without asking.
    #[cfg(test)]
    pub fn learn(&self, id: u32, schema: Schema) {
        self.known.lock().keep(id, schema);
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl FnOnce(&Self) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let me = Arc::clone(self);
        match tokio::task::spawn_blocking(move || ask(&me)).await {
            Ok(answer) => answer,
            Err(error) => Err(RegistryError::Unreachable { url: self.url.clone(), what: "a schema".to_owned(), why: error.to_string() }),
        }
    }

    fn schema_of(&self, id: u32) -> Result<Option<Schema>, RegistryError> {
        let (what, until) = (format!("schema {id}"), Instant::now() + WHOLE_PATIENCE);
        let answer: Option<Stored> = self.get(&what, &format!("/schemas/ids/{id}"), until)?;
        answer.map(|stored| self.with_references(&what, stored, until)).transpose()
    }

    fn version_of(&self, subject: &str, version: &str) -> Result<Option<Schema>, RegistryError> {
        let (what, until) = (format!("version {version} of subject \"{subject}\""), Instant::now() + WHOLE_PATIENCE);
        let answer: Option<Stored> = self.get(&what, &format!("/subjects/{}/versions/{version}", escaped(subject)), until)?;
        answer.map(|stored| self.with_references(&what, stored, until)).transpose()
    }

    fn id_of(&self, subject: &str, kind: SchemaKind, text: &str) -> Result<u32, RegistryError> {
        let what = format!("a schema for subject \"{subject}\"");
        // Avro is the API's default, and old registries know no other word.
        let body = match kind {
            SchemaKind::Avro => serde_json::json!({ "schema": text }),
            kind => serde_json::json!({ "schema": text, "schemaType": kind.word() }),
        };
        let path = format!("{}/subjects/{}/versions", self.url, escaped(subject));
        let request = self.agent.post(path).content_type("application/vnd.schemaregistry.v1+json");
        let answer = Answer::read(request.send(body.to_string().as_bytes())).map_err(|why| self.unreachable(&what, why))?;
        let Versioned { id } = self.good(&what, &answer)?;
        Ok(id)
    }

    /// What stands at a path; `None` where the registry says that it is not there.
    fn get<T: serde::de::DeserializeOwned>(&self, what: &str, path: &str, until: Instant) -> Result<Option<T>, RegistryError> {
        let left = until.saturating_duration_since(Instant::now()).min(PATIENCE);
        if left.is_zero() {
            return Err(self.unreachable(what, format!("it took longer than {} s to tell all that it leans on", WHOLE_PATIENCE.as_secs())));
        }
        let request = self.agent.get(format!("{}{path}", self.url)).header("accept", "application/vnd.schemaregistry.v1+json");
        let request = request.config().timeout_global(Some(left)).build();
        let answer = Answer::read(request.call()).map_err(|why| self.unreachable(what, why))?;
        if answer.is_missing() { Ok(None) } else { self.good(what, &answer).map(Some) }
    }

    fn good<T: serde::de::DeserializeOwned>(&self, what: &str, answer: &Answer) -> Result<T, RegistryError> {
        let (url, what) = (self.url.clone(), what.to_owned());
        if answer.status != 200 {
            return Err(RegistryError::Refused { url, what, status: answer.status, why: answer.message() });
        }
        serde_json::from_slice(&answer.body).map_err(|e| RegistryError::Unusable { url, what, why: e.to_string() })
    }

    fn unreachable(&self, what: &str, why: String) -> RegistryError {
        RegistryError::Unreachable { url: self.url.clone(), what: what.to_owned(), why }
    }

    /// A schema with all that it leans on, however far.
    fn with_references(&self, what: &str, stored: Stored, until: Instant) -> Result<Schema, RegistryError> {
        let unusable = |why: String| RegistryError::Unusable { url: self.url.clone(), what: what.to_owned(), why };
        let kind = stored.kind().map_err(&unusable)?;
        let mut whole = Schema { kind, text: stored.schema, references: Vec::new() };
        let (mut bytes, mut begun) = (whole.text.len() as u64, BTreeSet::new());
        // What is still to be read, and, behind what it leans on, what then is complete.
        let mut todo: Vec<Result<answer::Reference, (String, String)>> = stored.references.into_iter().rev().map(Ok).collect();
        while let Some(next) = todo.pop() {
            let reference = match next {
                Ok(reference) => reference,
                Err(complete) => {
                    whole.references.push(complete);
                    continue;
                }
            };
            if !begun.insert(reference.name.clone()) {
                continue;
            }
            if begun.len() > MAX_REFERENCES {
                return Err(unusable(format!("it leans on more than {MAX_REFERENCES} others")));
            }
            let path = format!("/subjects/{}/versions/{}", escaped(&reference.subject), reference.version);
            let inner: Option<Stored> = self.get(what, &path, until)?;
            let Some(inner) = inner else {
                return Err(unusable(format!("version {} of subject \"{}\" is not there", reference.version, reference.subject)));
            };
            bytes += inner.schema.len() as u64;
            if bytes > MAX_ANSWER {
                return Err(unusable(format!("it and what it leans on are longer than {MAX_ANSWER} bytes")));
            }
            todo.push(Err((reference.name, inner.schema)));
            todo.extend(inner.references.into_iter().rev().map(Ok));
        }
        Ok(whole)
    }
}

/// An address as it may be shown.
fn without_password(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}://***@{host}")
        }
        None => url.to_owned(),
    }
}

/// A subject as a part of a path.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
