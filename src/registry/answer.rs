//! What a registry answers, read with limits.

use serde::Deserialize;

use super::{MAX_ANSWER, SchemaKind};

/// An error's text is told up to so many letters.
const MAX_MESSAGE: usize = 300;

/// A status and a body.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

#[derive(Deserialize)]
struct Failure {
    error_code: Option<u32>,
    message: Option<String>,
}

impl Answer {
    pub(super) fn read(sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Self, String> {
        let mut response = sent.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(|e| e.to_string())?;
        Ok(Self { status, body })
    }

    fn failure(&self) -> Option<Failure> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether the registry itself says that a schema, subject or version is not there. Another server's 404 is not that.
    pub(super) fn is_missing(&self) -> bool {
        self.status == 404 && self.failure().and_then(|f| f.error_code).is_some_and(|code| matches!(code, 40401..=40403))
    }

    /// What an error says, in one line of letters.
    pub(super) fn message(&self) -> String {
        let Some(text) = self.failure().and_then(|f| f.message) else { return "it does not say why".to_owned() };
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE).collect()
    }
}

/// A schema as it is kept.
#[derive(Deserialize)]
pub(super) struct Stored {
    pub(super) schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    pub(super) references: Vec<Reference>,
}

impl Stored {
    pub(super) fn kind(&self) -> Result<SchemaKind, String> {
        match self.kind.as_deref() {
            None | Some("AVRO") => Ok(SchemaKind::Avro),
            Some("PROTOBUF") => Ok(SchemaKind::Protobuf),
            Some("JSON") => Ok(SchemaKind::Json),
            Some(_) => Err("its schemaType is none of AVRO, PROTOBUF, JSON".to_owned()),
        }
    }
}

/// Another schema that one leans on.
#[derive(Deserialize)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) version: u32,
}

/// The answer to a schema that was registered.
#[derive(Deserialize)]
pub(super) struct Versioned {
    pub(super) id: u32,
}
