//! Stories at listeners that ask who a client is: SCRAM, sessions that end, certificates that change.
//!
//! The keys in `testdata` were made for these tests and open nothing else; the certificates hold from 2000 to 2100.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use ring::{digest, hmac, pbkdf2};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{ClientCertificates, Limits, ListenerTerms, Mechanism, SaslTerms, Server, Tls, TlsFiles};
use crate::broker::security::{PrincipalRules, QuotaEntity, QuotaKey};
use crate::broker::{Broker, TestDisk};
use crate::wire::*;

struct Door {
    server: Server,
    broker: Arc<Broker>,
    _stop: DropGuard,
}

impl Door {
    async fn open(terms: ListenerTerms) -> Self {
        let broker = TestDisk::default().broker().await;
        broker.security().introduce("alice", "pencil").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let server = Server::open(vec![(listener, terms)], &broker, &stop, Limits::default());
        Self { server, broker, _stop: stop.drop_guard() }
    }

    async fn client(&self) -> Client<TcpStream> {
        Client(TcpStream::connect(self.server.address()).await.unwrap())
    }
}

struct Client<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn ask(&mut self, version: i16, request: impl Into<Request>) -> Option<Response> {
        let request = request.into();
        let key = request.key();
        let header = RequestHeader { api_key: key.code(), api_version: version, correlation_id: 1, client_id: Some("c".to_owned()) };
        self.0.write_all(&encode_request(&header, &request)).await.ok()?;
        self.0.flush().await.ok()?;
        let frame = self.frame().await?;
        Some(decode_response(key, version, frame).unwrap().1)
    }

    async fn frame(&mut self) -> Option<Bytes> {
        let length = self.0.read_i32().await.ok()?;
        let mut frame = BytesMut::zeroed(usize::try_from(length).unwrap());
        self.0.read_exact(&mut frame).await.ok()?;
        Some(frame.freeze())
    }

    async fn handshake(&mut self, mechanism: &str) -> SaslHandshakeResponse {
        let asked = SaslHandshakeRequest { mechanism: mechanism.to_owned() };
        let Some(Response::SaslHandshake(told)) = self.ask(1, asked).await else { panic!("no answer") };
        told
    }

    async fn message(&mut self, text: &str) -> SaslAuthenticateResponse {
        let asked = SaslAuthenticateRequest { auth_bytes: Bytes::copy_from_slice(text.as_bytes()) };
        let Some(Response::SaslAuthenticate(told)) = self.ask(2, asked).await else { panic!("no answer") };
        told
    }

    /// SCRAM-SHA-256, as a client does it.
    async fn scram(&mut self, user: &str, password: &str) -> SaslAuthenticateResponse {
        assert_eq!(self.handshake("SCRAM-SHA-256").await.error_code, error_code::NONE);
        let bare = format!("n={user},r=abc");
        let first = String::from_utf8(self.message(&format!("n,,{bare}")).await.auth_bytes.to_vec()).unwrap();
        let field = |name: &str| first.split(',').find_map(|f| f.strip_prefix(name)).unwrap().to_owned();
        let iterations: NonZeroU32 = field("i=").parse().unwrap();
        let salt = BASE64.decode(field("s=")).unwrap();
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let last = format!("c=biws,r={}", field("r="));
        let signature = sign(stored_key.as_ref(), format!("{bare},{first},{last}").as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        self.message(&format!("{last},p={}", BASE64.encode(proof))).await
    }

    /// Whether anything is served.
    async fn is_served(&mut self) -> bool {
        self.ask(1, ListGroupsRequest::default()).await.is_some()
    }
}

fn sasl(max_reauth: Option<Duration>) -> ListenerTerms {
    ListenerTerms { sasl: Some(SaslTerms { mechanisms: Mechanism::ALL.to_vec(), max_reauth }), ..ListenerTerms::plaintext() }
}

#[tokio::test]
async fn who_proves_a_password_comes_in_and_who_does_not_is_not_told_what_is_wrong() {
    let door = Door::open(sasl(None)).await;
    let mut client = door.client().await;
    let told = client.scram("alice", "pencil").await;
    assert_eq!((told.error_code, told.session_lifetime_ms), (0, 0));
    assert!(told.auth_bytes.starts_with(b"v=") && client.is_served().await);
    let mut answers = Vec::new();
    for user in ["alice", "nobody"] {
        let mut client = door.client().await;
        answers.push(client.scram(user, "wrong").await);
        assert!(!client.is_served().await, "the connection is closed");
        let mut client = door.client().await;
        client.handshake("PLAIN").await;
        answers.push(client.message(&format!("\0{user}\0wrong")).await);
        assert!(!client.is_served().await);
    }
    assert_eq!(answers[0].error_code, error_code::SASL_AUTHENTICATION_FAILED);
    assert!(answers[0] == answers[2] && answers[1] == answers[3], "{answers:?}");
}

#[tokio::test]
async fn a_mechanism_that_is_not_offered_is_told_which_are() {
    let door = Door::open(sasl(None)).await;
    let mut client = door.client().await;
    let told = client.handshake("GSSAPI").await;
    assert_eq!(told.error_code, error_code::UNSUPPORTED_SASL_MECHANISM);
    assert_eq!(told.mechanisms, ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]);
    assert!(!client.is_served().await);
    // An old client sends what follows without a header of Kafka.
    let mut client = door.client().await;
    assert!(client.ask(0, SaslHandshakeRequest { mechanism: "PLAIN".to_owned() }).await.is_some());
    client.0.write_all(b"\0\0\0\x0d\0alice\0pencil").await.unwrap();
    assert_eq!(client.frame().await.unwrap(), Bytes::new());
    assert!(client.is_served().await);
}

#[tokio::test]
async fn a_session_is_renewed_by_the_same_user_or_ends() {
    let lasts = Duration::from_millis(1);
    let door = Door::open(sasl(Some(Duration::from_secs(3600)))).await;
    let mut client = door.client().await;
    assert_eq!(client.scram("alice", "pencil").await.session_lifetime_ms, 3_600_000);
    assert!(client.is_served().await);
    assert_eq!(client.scram("alice", "pencil").await.error_code, error_code::NONE, "again");
    assert!(client.is_served().await);
    door.broker.security().introduce("bob", "paper").await.unwrap();
    assert_eq!(client.scram("bob", "paper").await.error_code, error_code::SASL_AUTHENTICATION_FAILED);
    assert!(!client.is_served().await);

    let door = Door::open(sasl(Some(lasts))).await;
    let mut client = door.client().await;
    client.scram("alice", "pencil").await;
    // The session is over when the next request can have come.
    while client.is_served().await {}
    let mut client = door.client().await;
    client.scram("alice", "pencil").await;
    assert_eq!(client.scram("alice", "pencil").await.error_code, error_code::NONE, "one that is over can be renewed");
}

#[tokio::test]
async fn where_nothing_is_asked_sasl_is_out_of_place() {
    let door = Door::open(ListenerTerms::plaintext()).await;
    let mut client = door.client().await;
    assert_eq!(client.handshake("PLAIN").await.error_code, error_code::ILLEGAL_SASL_STATE);
    assert_eq!(client.message("\0alice\0pencil").await.error_code, error_code::ILLEGAL_SASL_STATE);
    assert!(client.is_served().await);
}

#[tokio::test]
async fn who_takes_more_than_its_limit_is_told_for_how_long_it_is_not_heard() {
    let door = Door::open(sasl(None)).await;
    let security = door.broker.security();
    let user = crate::broker::security::EntityName::Named("alice".to_owned());
    let entity = QuotaEntity { user: Some(user), ..QuotaEntity::default() };
    // Requests cost next to nothing, and the limit is less: the first one is over it.
    security.alter_quotas(vec![(entity, [(QuotaKey::RequestPercentage, 1e-9)].into())]).await.unwrap();
    let mut client = door.client().await;
    client.scram("alice", "pencil").await;
    let Some(Response::ListGroups(told)) = client.ask(1, ListGroupsRequest::default()).await else { panic!() };
    assert!(told.throttle_time_ms > 0);
    let muted = tokio::time::timeout(Duration::from_millis(200), client.is_served()).await;
    assert!(muted.is_err(), "it is not heard");
}

const AUTHORITY: &[u8] = include_bytes!("testdata/authority.pem");
const SERVER: Pair = (include_bytes!("testdata/server.pem"), include_bytes!("testdata/server.key"));
const OTHER: Pair = (include_bytes!("testdata/other.pem"), include_bytes!("testdata/other.key"));
const CLIENT: Pair = (include_bytes!("testdata/client.pem"), include_bytes!("testdata/client.key"));

/// A certificate and its key.
type Pair = (&'static [u8], &'static [u8]);

/// Puts what a listener shows into a folder.
fn put(dir: &Path, (certificate, key): Pair) {
    for (name, bytes) in [("authority.pem", AUTHORITY), ("server.pem", certificate), ("server.key", key)] {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
}

fn tls_files(dir: &Path, clients: ClientCertificates) -> TlsFiles {
    put(dir, SERVER);
    TlsFiles {
        certificate: dir.join("server.pem"),
        key: dir.join("server.key"),
        client_authorities: Some(dir.join("authority.pem")),
        clients,
        rules: PrincipalRules::parse("RULE:CN=([^,]*),.*/$1/L").unwrap(),
    }
}

async fn dial(door: &Door, shown: Option<Pair>) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(AUTHORITY).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key).unwrap()).unwrap()
        }
    };
    let stream = TcpStream::connect(door.server.address()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    Ok(Client(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

#[tokio::test]
async fn a_certificate_says_who_a_client_is_and_none_closes_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let tls = Tls::open(tls_files(dir.path(), ClientCertificates::Required)).unwrap();
    let terms = ListenerTerms { tls: Some(tls), ..ListenerTerms::plaintext() };
    assert!(terms.authenticates());
    let door = Door::open(terms).await;
    let deny = crate::broker::security::Acl {
        resource: crate::broker::security::ResourceType::Cluster,
        pattern: crate::broker::security::Pattern::Literal,
        name: crate::broker::security::CLUSTER.to_owned(),
        principal: "User:alice".to_owned(),
        host: "*".to_owned(),
        operation: crate::broker::security::Operation::Describe,
        permission: crate::broker::security::Permission::Deny,
    };
    door.broker.security().create_acls(vec![deny]).await.unwrap();
    let mut client = dial(&door, Some(CLIENT)).await.unwrap();
    let Some(Response::DescribeAcls(told)) = client.ask(3, DescribeAclsRequest::default()).await else { panic!() };
    assert_eq!(told.error_code, error_code::CLUSTER_AUTHORIZATION_FAILED, "the rule about alice is about this client");
    // TLS 1.3 tells a client without a certificate only after the handshake.
    let served = match dial(&door, None).await {
        Ok(mut client) => client.is_served().await,
        Err(_) => false,
    };
    assert!(!served);
    // No rule fits the subject of this one.
    let served = match dial(&door, Some(SERVER)).await {
        Ok(mut client) => client.is_served().await,
        Err(_) => false,
    };
    assert!(!served);
    // Who does not speak TLS is not answered.
    assert!(!door.client().await.is_served().await);
}

#[tokio::test]
async fn a_certificate_that_was_replaced_is_shown_to_the_next_client() {
    let dir = tempfile::tempdir().unwrap();
    let tls = Tls::open(tls_files(dir.path(), ClientCertificates::None)).unwrap();
    let door = Door::open(ListenerTerms { tls: Some(tls), ..ListenerTerms::plaintext() }).await;
    let shown = async || {
        let mut client = dial(&door, None).await.unwrap();
        assert!(client.is_served().await);
        client.0.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown().await;
    // A file that is no certificate leaves the one before in use.
    std::fs::write(dir.path().join("server.pem"), "no certificate").unwrap();
    door.look_again();
    assert_eq!(shown().await, first);
    put(dir.path(), OTHER);
    door.look_again();
    assert_ne!(shown().await, first);
}

impl Door {
    /// The files are looked at with the next client, however short ago they were.
    fn look_again(&self) {
        let tls = self.server.listeners[0].tls.as_ref().expect("it has TLS");
        tls.look_again();
    }
}
