//! Who asks at the HTTP door, and what they may: tokens, and the access rules of the Kafka door.
//!
//! A token is a principal, as a user of the Kafka door is one, and the same access rules say what it may. Always: where there
//! are tokens, nothing but the probes is answered without one; where there are none, a visitor is `User:ANONYMOUS`, as a
//! client of a Kafka listener is that asks nothing; of a token only its SHA-256 is kept (it has 256 bits of chance in it, so
//! a slow hash would add nothing), compared in the same time whatever differs. What a browser sends on behalf of another
//! site is refused. Called by the router before any handler.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::listener::Remote;
use super::{ApiError, App};
use crate::alerts::ALERTS_TOPIC;
use crate::broker::security::{Asking, AuditEvent, CLUSTER, Operation, Principal, ResourceType, Security};
use crate::sql::{Engine, Explain, Statement};

/// The topic whose readings the board shows.
const VITALS_TOPIC: &str = "vitals";

/// A token, of which only the hash is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The SHA-256 of what its bearer shows.
    pub sha256: [u8; 32],
    /// Who its bearer is, as access rules name them: `User:grafana`.
    pub principal: String,
}

/// The tokens that open the door, by name.
pub type Tokens = BTreeMap<String, Token>;

/// Who bears what was shown.
fn bearer<'a>(tokens: &'a Tokens, shown: &str) -> Option<&'a Token> {
    let hash: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
    let mut found = None;
    for token in tokens.values() {
        // All of them are looked at, whichever fits.
        if bool::from(token.sha256.ct_eq(&hash)) {
            found = Some(token);
        }
    }
    found
}

/// The token in `Authorization: Bearer TOKEN`, or, for browsers, which ask their user for a name and a password, the
/// password of `Basic`.
fn shown(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64.decode(rest.trim()).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// Whether a host as a header names it is this machine or an address: a name could be another site's, pointed here.
fn is_address(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Why a request that a browser may have sent for another site is not served.
fn foreign(headers: &HeaderMap, any_host: bool) -> Option<&'static str> {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or_default());
    let host = text(header::HOST).unwrap_or_default();
    if let Some(origin) = text(header::ORIGIN)
        && origin.split_once("://").is_none_or(|(_, of)| !of.eq_ignore_ascii_case(host))
    {
        return Some("this request was made by a page of another site");
    }
    (!any_host && !host.is_empty() && !is_address(host))
        .then_some("without tokens this door is reached by an address or as localhost, not by a name")
}

/// Who asks.
#[derive(Clone)]
pub struct Visitor {
    principal: Principal,
    host: String,
    security: Arc<Security>,
}

/// Something that a statement does.
#[derive(Debug, PartialEq, Eq)]
enum Need<'a> {
    /// Read a stream or table.
    Read(&'a str),
    /// Write one.
    Write(&'a str),
    /// See what there is.
    See,
    /// Read a topic.
    Look(&'a str),
    /// Change what there is; queries run with the node's own rights.
    Change,
}

/// What a statement does.
fn needs(statement: &Statement) -> Vec<Need<'_>> {
    match statement {
        Statement::Select(select) | Statement::Explain(Explain::Select { select, .. }) => {
            select.reads.iter().map(|name| Need::Read(&name.text)).collect()
        }
        Statement::Subscribe(subscribe) => vec![Need::Read(&subscribe.view.text)],
        Statement::Insert(insert) => vec![Need::Write(&insert.into.text)],
        Statement::Show(_)
        | Statement::Describe(_)
        | Statement::DescribeSavepoint(_)
        | Statement::Explain(Explain::Query { .. })
        | Statement::WhyQuery(_) => vec![Need::See],
        Statement::CreateLike(like) => vec![Need::Change, Need::Look(like.topic.as_str())],
        Statement::CreateStream(_)
        | Statement::CreateTable(_)
        | Statement::CreateQuery(_)
        | Statement::CreateView(_)
        | Statement::CreateAlert(_)
        | Statement::CreatePlainView(_)
        | Statement::CreateFunction(_)
        | Statement::CreateSavepoint(_)
        | Statement::Pause(..)
        | Statement::Resume(..)
        | Statement::Restore(_)
        | Statement::Drop(_) => vec![Need::Change],
    }
}

impl Visitor {
    fn sees(&self, operation: Operation, resource: ResourceType, name: &str) -> bool {
        self.security.allows(Asking { principal: self.principal.as_str(), host: &self.host }, operation, resource, name)
    }

    /// Whether something may be done. That it may not goes into the audit trail.
    pub fn may(&self, operation: Operation, resource: ResourceType, name: &str) -> Result<(), ApiError> {
        if self.security.is_unlimited(self.principal.as_str()) || self.sees(operation, resource, name) {
            return Ok(());
        }
        let what = vec![
            ("operation", format!("{operation:?}")),
            ("resource", format!("{resource:?}")),
            ("name", name.to_owned()),
            ("listener", "HTTP".to_owned()),
        ];
        self.security.note(self.event("authorization", "denied", what));
        let why = format!("{} may not {operation:?} {resource:?} \"{name}\"", self.principal);
        Err(ApiError::new(StatusCode::FORBIDDEN, "HTTP-0403", why))
    }

    fn topic(&self, operation: Operation, name: &str) -> Result<(), ApiError> {
        self.may(operation, ResourceType::Topic, name)
    }

    fn cluster(&self, operation: Operation) -> Result<(), ApiError> {
        self.may(operation, ResourceType::Cluster, CLUSTER)
    }

    /// Whether a statement may be run. A stream that is not there is no secret to who may see what is.
    pub fn may_run(&self, engine: &Engine, statement: &Statement) -> Result<(), ApiError> {
        if self.security.is_unlimited(self.principal.as_str()) {
            return Ok(());
        }
        for need in needs(statement) {
            let (operation, relation) = match need {
                Need::See => {
                    self.cluster(Operation::Describe)?;
                    continue;
                }
                Need::Change => {
                    self.cluster(Operation::Alter)?;
                    continue;
                }
                Need::Look(topic) => {
                    self.topic(Operation::Read, topic)?;
                    continue;
                }
                Need::Read(relation) => (Operation::Read, relation),
                Need::Write(relation) => (Operation::Write, relation),
            };
            let topics = match operation {
                Operation::Read => engine.topics_read(relation),
                _ => engine.topic_behind(relation).map(|topic| vec![topic]),
            };
            match topics {
                Some(topics) => topics.iter().try_for_each(|topic| self.topic(operation, topic.as_str()))?,
                None => self.cluster(Operation::Describe)?,
            }
        }
        Ok(())
    }

    /// Whether an address may be asked.
    fn may_visit(&self, path: &str) -> Result<(), ApiError> {
        match path {
            "/metrics" | "/api/v1/queries" | "/api/v1/topics" => self.cluster(Operation::Describe),
            "/api/v1/ward" => self.topic(Operation::Read, VITALS_TOPIC),
            "/api/v1/alerts" => self.topic(Operation::Read, ALERTS_TOPIC),
            "/api/v1/alerts/{id}/ack" => self.topic(Operation::Write, ALERTS_TOPIC),
            "/api/v1/events" => {
                self.topic(Operation::Read, VITALS_TOPIC)?;
                self.topic(Operation::Read, ALERTS_TOPIC)?;
                self.cluster(Operation::Describe)
            }
            // The page is the same for everyone, and each statement of SQL is judged by itself.
            _ => Ok(()),
        }
    }

    fn event(&self, kind: &'static str, outcome: &'static str, what: Vec<(&'static str, String)>) -> AuditEvent {
        AuditEvent { kind, outcome, principal: self.principal.as_str().to_owned(), host: self.host.clone(), what }
    }
}

/// Lets a request in, or says why not.
pub async fn admit(
    State(app): State<Arc<App>>,
    remote: Option<Extension<Remote>>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = path.as_ref().map_or("", MatchedPath::as_str);
    if matches!(path, "/livez" | "/readyz" | "/healthz") {
        return next.run(request).await;
    }
    let tokens = &app.access.tokens;
    if let Some(why) = foreign(request.headers(), app.access.any_host || !tokens.is_empty()) {
        return ApiError::new(StatusCode::FORBIDDEN, "HTTP-0403", why).into_response();
    }
    let host = remote.map_or_else(String::new, |Extension(Remote(address))| address.ip().to_canonical().to_string());
    let mut visitor = Visitor { principal: Principal::anonymous(), host, security: Arc::clone(&app.access.security) };
    if !tokens.is_empty() {
        let shown = shown(request.headers());
        match shown.as_deref().map(|shown| bearer(tokens, shown)) {
            Some(Some(token)) => visitor.principal = Principal::user(token.principal.trim_start_matches("User:")),
            refused => {
                if refused.is_some() {
                    let what = vec![("mechanism", "token".to_owned()), ("listener", "HTTP".to_owned())];
                    visitor.security.note(visitor.event("authentication", "failure", what));
                }
                let why = "this node wants a token: header Authorization: Bearer TOKEN; in a browser, any name and the token as password";
                let mut response = ApiError::new(StatusCode::UNAUTHORIZED, "HTTP-0401", why).into_response();
                let ask = header::HeaderValue::from_static("Bearer realm=\"vitalsql\", Basic realm=\"vitalsql\", charset=\"UTF-8\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
                return response;
            }
        }
    }
    if let Err(refused) = visitor.may_visit(path) {
        return refused.into_response();
    }
    request.extensions_mut().insert(visitor);
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse_statement;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a header"))).collect()
    }

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let token = |text: &str| Token { sha256: Sha256::digest(text.as_bytes()).into(), principal: format!("User:{text}") };
        let tokens: Tokens = [("one".to_owned(), token("a")), ("two".to_owned(), token("b"))].into();
        assert_eq!(bearer(&tokens, "b").map(|t| t.principal.as_str()), Some("User:b"));
        for wrong in ["", "c", "ab"] {
            assert_eq!(bearer(&tokens, wrong), None);
        }
    }

    #[test]
    fn a_token_is_shown_as_bearer_or_as_a_browsers_password() {
        let of = |value: &str| shown(&headers(&[(header::AUTHORIZATION, value)]));
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(of(&format!("Basic {}", BASE64.encode("me:abc"))).as_deref(), Some("abc"));
        for none in ["abc", "Digest abc", "Basic ?", &format!("Basic {}", BASE64.encode("abc"))] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(shown(&HeaderMap::new()), None);
    }

    #[test]
    fn another_site_asks_in_vain() {
        for (host, origin, any_host, served) in [
            ("127.0.0.1:8080", None, false, true),
            ("localhost:8080", Some("http://localhost:8080"), false, true),
            ("[::1]:8080", None, false, true),
            ("127.0.0.1:8080", Some("http://evil.example"), false, false),
            ("127.0.0.1:8080", Some("null"), false, false),
            ("127.0.0.1:8080", Some("http://localhost:8080"), true, false),
            ("evil.example:8080", None, false, false),
            ("ward.example", Some("https://ward.example"), true, true),
        ] {
            let mut pairs = vec![(header::HOST, host)];
            pairs.extend(origin.map(|origin| (header::ORIGIN, origin)));
            assert_eq!(foreign(&headers(&pairs), any_host).is_none(), served, "{host} {origin:?}");
        }
    }

    #[test]
    fn a_statement_needs_what_it_reads_and_changes() {
        let check = |text: &str, expected: &[Need<'_>]| {
            let parsed = parse_statement(text).expect("a statement");
            assert_eq!(needs(&parsed.statement), expected, "{text}");
        };
        check("SELECT 1", &[]);
        check("SELECT * FROM vitals JOIN (SELECT * FROM beds) b ON true", &[Need::Read("vitals"), Need::Read("beds")]);
        check("EXPLAIN SELECT * FROM vitals", &[Need::Read("vitals")]);
        check("INSERT INTO beds VALUES (1)", &[Need::Write("beds")]);
        check("SHOW QUERIES", &[Need::See]);
        check("DROP QUERY q", &[Need::Change]);
    }
}
