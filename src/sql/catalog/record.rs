//! The catalogue's durable form: one record an entry on topic `__catalog`, the newest of a key being what holds.
//!
//! The key is the kind and the name (`query:spo2_1m`), the value JSON: the text as the user wrote it (a printed AST
//! does not always parse again), the version, when it was created, whether it is paused. No value means dropped.

use serde::{Deserialize, Serialize};

use super::Entry;
use super::savepoint::{OriginDef, SavepointDef};
use crate::sql::error::SqlError;
use crate::sql::statement::Kind;
use crate::time::Timestamp;

/// The topic that holds the catalogue.
pub const CATALOG_TOPIC: &str = "__catalog";

/// One record of [`CATALOG_TOPIC`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogRecord {
    /// The record's key.
    pub key: Vec<u8>,
    /// The record's value; `None` where the entry was dropped.
    pub value: Option<Vec<u8>>,
}

/// Why a record of the catalogue cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The key is not one of ours.
    #[error("\"{0}\" is not a key of the catalogue")]
    Key(String),
    /// The value is not one of ours.
    #[error("a record of the catalogue cannot be read: {0}")]
    Value(String),
    /// The statement cannot be parsed any more.
    #[error("the statement of \"{name}\" cannot be read: {error}")]
    Statement {
        /// Whose.
        name: String,
        /// What is wrong with it.
        error: Box<SqlError>,
    },
    /// The statement creates something else.
    #[error("the statement of \"{name}\" creates something else")]
    Mismatch {
        /// Whose.
        name: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Stored {
    kind: String,
    name: String,
    version: u64,
    created: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    view: Option<ViewDef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    savepoint: Option<SavepointDef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<OriginDef>,
}

/// What a view's statement does not say by itself: what its results were found to be when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewDef {
    /// The CREATE STREAM of its results.
    pub results: String,
    /// Where rows take the place of earlier ones: the columns that tell them apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<String>>,
}

/// What a value says.
pub(super) struct Read {
    pub version: u64,
    pub created: Timestamp,
    pub paused: bool,
    pub text: String,
    pub view: Option<ViewDef>,
    pub savepoint: Option<SavepointDef>,
    pub origin: Option<OriginDef>,
}

impl CatalogRecord {
    /// The record of an entry.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let stored = Stored {
            kind: entry.kind.word().to_owned(),
            name: entry.name.clone(),
            version: entry.version,
            created: entry.created.to_string(),
            paused: entry.paused,
            text: entry.text.clone(),
            view: entry.view.as_deref().cloned(),
            savepoint: entry.savepoint.as_deref().cloned(),
            origin: entry.origin.as_deref().cloned(),
        };
        let value = serde_json::to_vec(&stored).expect("text and numbers become JSON");
        Self { key: key(entry), value: Some(value) }
    }

    /// The record that says an entry was dropped.
    #[must_use]
    pub fn tombstone(entry: &Entry) -> Self {
        Self { key: key(entry), value: None }
    }
}

fn key(entry: &Entry) -> Vec<u8> {
    format!("{}:{}", entry.kind.key_word(), entry.name).into_bytes()
}

pub(super) fn read_key(key: &[u8]) -> Result<(Kind, String), RecordError> {
    let text = String::from_utf8_lossy(key);
    let parts = text.split_once(':').and_then(|(kind, name)| {
        let views = [Kind::View, Kind::PlainView];
        let kinds = [Kind::Stream, Kind::Table, Kind::Query, Kind::Alert, Kind::Function, Kind::Savepoint];
        let kind = kinds.into_iter().chain(views).find(|k| k.key_word() == kind)?;
        (!name.is_empty()).then(|| (kind, name.to_owned()))
    });
    parts.ok_or_else(|| RecordError::Key(text.chars().take(200).collect()))
}

pub(super) fn read_value(value: &[u8]) -> Result<Read, RecordError> {
    let stored: Stored = serde_json::from_slice(value).map_err(|e| RecordError::Value(e.to_string()))?;
    let created = Timestamp::parse(&stored.created).ok_or_else(|| RecordError::Value(format!("\"{}\" is not a time", stored.created)))?;
    let Stored { version, paused, text, view, savepoint, origin, .. } = stored;
    Ok(Read { version, created, paused, text, view, savepoint, origin })
}
