//! SASL at the start of a connection, and again when a session has lasted long enough.
//!
//! Always: before a client has said who it is, nothing but ApiVersions, SaslHandshake and SaslAuthenticate is served, and
//! anything else closes the connection; what fails is answered late, in the same words whether the user exists or not, and
//! then the connection is closed; a session that is renewed stays the same user's. The order of messages and the codes are
//! those of Apache Kafka 4.3. Called by `connection`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::Semaphore;

use super::dispatch::Caller;
use super::listener::note;
use crate::broker::security::{Principal, ScramExchange, ScramMechanism, Security};
use crate::wire::{
    ApiKey, FailureReason, Request, RequestHeader, Response, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeResponse,
    decode_request, encode_response_chunks, error_code, unsupported_api_versions,
};

/// How late a failure is answered.
const FAILURE_DELAY: Duration = Duration::from_millis(100);
/// Passwords that are checked at the same time: each takes a thread for a while.
static HASHING: Semaphore = Semaphore::const_new(2);

/// A way to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The password as it is.
    Plain,
    /// A proof of the password.
    Scram(ScramMechanism),
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Scram(ScramMechanism::Sha256), Self::Scram(ScramMechanism::Sha512)];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(scram) => scram.name(),
        }
    }
}

impl std::str::FromStr for Mechanism {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|one| one.name() == text).ok_or(())
    }
}

/// What a listener offers.
#[derive(Clone, Debug)]
pub struct SaslTerms {
    /// The ways to authenticate.
    pub mechanisms: Vec<Mechanism>,
    /// After so long a client has to authenticate again; `None` for never.
    pub max_reauth: Option<Duration>,
}

/// A session that has begun.
#[derive(Clone, Debug)]
pub(super) struct Session {
    principal: Principal,
    mechanism: Mechanism,
    expires: Option<Instant>,
}

impl Session {
    /// Whether the client should have authenticated again.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| now > expires)
    }

    /// Whether it can be renewed.
    pub(super) const fn is_renewable(&self) -> bool {
        self.expires.is_some()
    }

    pub(super) const fn principal(&self) -> &Principal {
        &self.principal
    }
}

/// What happens next.
pub(super) enum Step {
    /// The client is told this, and goes on.
    Answer(Vec<Bytes>),
    /// The client is told this and is in.
    Done(Vec<Bytes>, Session),
    /// The client is told this, if anything, and the connection is closed.
    Failed(Option<Vec<Bytes>>, String),
}

enum State {
    /// ApiVersions or SaslHandshake comes next.
    Start,
    /// SaslHandshake comes next.
    Handshake,
    /// A message of the mechanism comes next; `raw` without a header of Kafka.
    First { mechanism: Mechanism, raw: bool },
    /// The last message of SCRAM comes next.
    Last { mechanism: ScramMechanism, raw: bool, exchange: Box<ScramExchange> },
}

/// An authentication that is going on.
pub(super) struct Authentication {
    state: State,
    /// The session that is to be renewed.
    before: Option<Session>,
}

/// What came of a message of a mechanism.
enum Outcome {
    More(State, Vec<u8>),
    In { user: String, mechanism: Mechanism, last: Vec<u8> },
    Out { user: Option<String>, mechanism: Mechanism },
}

impl Authentication {
    pub(super) const fn new() -> Self {
        Self { state: State::Start, before: None }
    }

    /// Begins again, within a session.
    pub(super) const fn again(session: Session) -> Self {
        Self { state: State::Handshake, before: Some(session) }
    }

    /// Takes what the client sent.
    pub(super) async fn step(&mut self, caller: &mut Caller, terms: &SaslTerms, frame: Bytes) -> Step {
        if let State::First { raw: true, .. } | State::Last { raw: true, .. } = self.state {
            return self.message(caller, terms, None, &frame).await;
        }
        let (header, request) = match decode_request(frame) {
            Ok(decoded) => decoded,
            Err(failure) => {
                return match (failure.header, failure.reason) {
                    (Some(header), FailureReason::UnsupportedVersion { key, .. })
                        if key == ApiKey::ApiVersions.code() && matches!(self.state, State::Start) =>
                    {
                        Step::Answer(vec![unsupported_api_versions(&header)])
                    }
                    (_, reason) => Step::Failed(None, format!("{reason}, before authentication")),
                };
            }
        };
        let key = request.key();
        caller.header = header;
        match (request, &self.state) {
            (Request::ApiVersions(request), State::Start) => {
                let response = super::api_cluster::api_versions(caller, request);
                if response.error_code == error_code::NONE {
                    self.state = State::Handshake;
                }
                Step::Answer(encode_response_chunks(&caller.header, &response.into()))
            }
            (Request::SaslHandshake(request), State::Start | State::Handshake) => self.handshake(caller, terms, &request.mechanism),
            (Request::SaslAuthenticate(SaslAuthenticateRequest { auth_bytes }), State::First { .. } | State::Last { .. }) => {
                let header = caller.header.clone();
                self.message(caller, terms, Some(header), &auth_bytes).await
            }
            _ => Step::Failed(None, format!("{} before authentication", key.name())),
        }
    }

    /// Chooses the mechanism.
    pub(super) fn handshake(&mut self, caller: &Caller, terms: &SaslTerms, name: &str) -> Step {
        let mechanisms = terms.mechanisms.iter().map(|one| one.name().to_owned()).collect();
        let chosen = name.parse::<Mechanism>().ok().filter(|one| terms.mechanisms.contains(one));
        let Some(mechanism) = chosen else {
            let refused = SaslHandshakeResponse { error_code: error_code::UNSUPPORTED_SASL_MECHANISM, mechanisms };
            let chunks = encode_response_chunks(&caller.header, &refused.into());
            return Step::Failed(Some(chunks), "a SASL mechanism that is not offered".to_owned());
        };
        if self.before.as_ref().is_some_and(|session| session.mechanism != mechanism) {
            return Step::Failed(None, "a session is renewed by the mechanism it began with".to_owned());
        }
        // In version 0 the messages that follow are not Kafka requests.
        self.state = State::First { mechanism, raw: caller.header.api_version == 0 };
        let response = SaslHandshakeResponse { error_code: error_code::NONE, mechanisms };
        Step::Answer(encode_response_chunks(&caller.header, &response.into()))
    }

    /// Takes a message of the mechanism.
    async fn message(&mut self, caller: &Caller, terms: &SaslTerms, header: Option<RequestHeader>, message: &[u8]) -> Step {
        let security = caller.gate.security();
        let outcome = match std::mem::replace(&mut self.state, State::Handshake) {
            State::First { mechanism: Mechanism::Plain, .. } => plain(security, message).await,
            State::First { mechanism: Mechanism::Scram(mechanism), raw } => scram_first(security, mechanism, raw, message),
            State::Last { mechanism, exchange, .. } => scram_last(mechanism, &exchange, message),
            State::Start | State::Handshake => return Step::Failed(None, "a SASL message before a handshake".to_owned()),
        };
        match outcome {
            Outcome::More(state, bytes) => {
                self.state = state;
                Step::Answer(answer(header.as_ref(), SaslAuthenticateResponse { auth_bytes: bytes.into(), ..Default::default() }))
            }
            Outcome::In { user, mechanism, last } => {
                let principal = Principal::user(&user);
                if self.before.as_ref().is_some_and(|session| session.principal != principal) {
                    note(caller, "failure", &principal, mechanism.name(), Some("a session stays the same user's".to_owned()));
                    return failed(header.as_ref(), mechanism).await;
                }
                note(caller, "success", &principal, mechanism.name(), None);
                let lifetime = terms.max_reauth.filter(|_| header.as_ref().is_some_and(|h| h.api_version >= 1));
                let session = Session { principal, mechanism, expires: lifetime.map(|lifetime| Instant::now() + lifetime) };
                let response = SaslAuthenticateResponse {
                    auth_bytes: last.into(),
                    session_lifetime_ms: lifetime.map_or(0, |l| i64::try_from(l.as_millis()).unwrap_or(i64::MAX)),
                    ..Default::default()
                };
                Step::Done(answer(header.as_ref(), response), session)
            }
            Outcome::Out { user, mechanism } => {
                let claimed = user.map_or_else(Principal::anonymous, |user| Principal::user(&user));
                note(caller, "failure", &claimed, mechanism.name(), None);
                failed(header.as_ref(), mechanism).await
            }
        }
    }
}

/// A response, or where there was no request the bytes alone.
fn answer(header: Option<&RequestHeader>, response: SaslAuthenticateResponse) -> Vec<Bytes> {
    match header {
        Some(header) => encode_response_chunks(header, &Response::from(response)),
        None => {
            let mut frame = BytesMut::with_capacity(4 + response.auth_bytes.len());
            frame.put_u32(u32::try_from(response.auth_bytes.len()).expect("a SASL message of ours is short"));
            frame.put_slice(&response.auth_bytes);
            vec![frame.freeze()]
        }
    }
}

async fn failed(header: Option<&RequestHeader>, mechanism: Mechanism) -> Step {
    tokio::time::sleep(FAILURE_DELAY).await;
    let error_message = match mechanism {
        Mechanism::Plain => "Authentication failed: Invalid username or password".to_owned(),
        Mechanism::Scram(scram) => {
            format!("Authentication failed during authentication due to invalid credentials with SASL mechanism {}", scram.name())
        }
    };
    let response = SaslAuthenticateResponse {
        error_code: error_code::SASL_AUTHENTICATION_FAILED,
        error_message: Some(error_message),
        ..Default::default()
    };
    let told = header.map(|header| answer(Some(header), response));
    Step::Failed(told, format!("authentication by {} failed", mechanism.name()))
}

/// Takes `authzid NUL authcid NUL password` apart.
fn read_plain(message: &[u8]) -> Option<(&str, &[u8])> {
    let mut parts = message.splitn(3, |byte| *byte == 0);
    let (authorize, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let is_good = !user.is_empty() && !password.is_empty() && !password.contains(&0) && (authorize.is_empty() || authorize == user);
    Some((std::str::from_utf8(user).ok().filter(|_| is_good)?, password))
}

async fn plain(security: &Arc<Security>, message: &[u8]) -> Outcome {
    let mechanism = Mechanism::Plain;
    let Some((user, password)) = read_plain(message) else { return Outcome::Out { user: None, mechanism } };
    let found = ScramMechanism::ALL.into_iter().find_map(|scram| Some((scram, security.credential(user, scram)?)));
    let (scram, credential) = found.unwrap_or_else(|| (ScramMechanism::Sha256, security.decoy(user, ScramMechanism::Sha256)));
    let password = password.to_vec();
    let _turn = HASHING.acquire().await;
    let verified = tokio::task::spawn_blocking(move || credential.verify(scram, &password)).await;
    let user = user.to_owned();
    if verified.unwrap_or(false) { Outcome::In { user, mechanism, last: Vec::new() } } else { Outcome::Out { user: Some(user), mechanism } }
}

fn scram_first(security: &Security, mechanism: ScramMechanism, raw: bool, message: &[u8]) -> Outcome {
    let nonce = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let find = |user: &str| security.credential(user, mechanism);
    match ScramExchange::begin(mechanism, message, &nonce, find, |user| security.decoy(user, mechanism)) {
        Ok((exchange, told)) => Outcome::More(State::Last { mechanism, raw, exchange: Box::new(exchange) }, told),
        Err(_) => Outcome::Out { user: None, mechanism: Mechanism::Scram(mechanism) },
    }
}

fn scram_last(mechanism: ScramMechanism, exchange: &ScramExchange, message: &[u8]) -> Outcome {
    let user = exchange.user().to_owned();
    let mechanism = Mechanism::Scram(mechanism);
    match exchange.end(message) {
        Ok(last) => Outcome::In { user, mechanism, last },
        Err(_) => Outcome::Out { user: Some(user), mechanism },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_message_names_one_user_and_a_password() {
        assert_eq!(read_plain(b"\0alice\0secret"), Some(("alice", &b"secret"[..])));
        assert_eq!(read_plain(b"alice\0alice\0secret"), Some(("alice", &b"secret"[..])));
        for bad in
            [&b""[..], b"\0", b"\0alice", b"\0alice\0", b"\0\0secret", b"bob\0alice\0secret", b"\0alice\0se\0cret", b"\0\xff\0secret"]
        {
            assert_eq!(read_plain(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_mechanism_goes_by_its_name() {
        for mechanism in Mechanism::ALL {
            assert_eq!(mechanism.name().parse(), Ok(mechanism));
        }
        assert!("GSSAPI".parse::<Mechanism>().is_err());
    }
}
