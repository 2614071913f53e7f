//! TLS of a listener: versions 1.2 and 1.3 by rustls, from PEM files that may change while the node runs.
//!
//! Always: a file that cannot be read leaves what was read before in use, and says so; a client certificate is verified
//! before its subject is looked at. Called by `listener`; made by `node`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::subject;
use crate::broker::security::{Principal, PrincipalRules};

/// The files are looked at no more often than this.
const LOOK: Duration = Duration::from_secs(1);

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    None,
    /// They may.
    Requested,
    /// They must.
    Required,
}

impl std::str::FromStr for ClientCertificates {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "none" => Ok(Self::None),
            "requested" => Ok(Self::Requested),
            "required" => Ok(Self::Required),
            _ => Err(()),
        }
    }
}

/// What TLS is made from.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate and those that lead to it, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
    /// Who may sign clients' certificates, in PEM.
    pub client_authorities: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub clients: ClientCertificates,
    /// How a subject becomes a name.
    pub rules: PrincipalRules,
}

/// When each file last changed.
type Stamps = Vec<Option<SystemTime>>;

/// TLS with the files as they are now.
pub struct Tls {
    files: TlsFiles,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    stamps: Stamps,
    looked: Instant,
}

impl Tls {
    /// Reads the files. The error says which one is wrong. Blocks.
    pub fn open(files: TlsFiles) -> Result<Self, String> {
        let (stamps, config) = (stamps(&files), read(&files)?);
        let current = Current { config, stamps, looked: Instant::now() };
        Ok(Self { files, current: Mutex::new(current) })
    }

    /// Whether clients can be known by their certificates.
    #[must_use]
    pub fn knows_clients(&self) -> bool {
        self.files.clients != ClientCertificates::None
    }

    /// Whether nobody comes in without a certificate.
    #[must_use]
    pub fn requires_clients(&self) -> bool {
        self.files.clients == ClientCertificates::Required
    }

    /// The files are looked at with the next client.
    #[cfg(test)]
    pub(super) fn look_again(&self) {
        let mut current = self.current.lock();
        current.looked = Instant::now().checked_sub(LOOK).expect("the machine has run for longer");
        current.stamps.clear();
    }

    /// The configuration to meet a client with, read again where a file has changed.
    fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock();
        if current.looked.elapsed() >= LOOK {
            current.looked = Instant::now();
            let now = stamps(&self.files);
            if now != current.stamps {
                current.stamps = now;
                match read(&self.files) {
                    Ok(config) => {
                        current.config = config;
                        tracing::info!(certificate = %self.files.certificate.display(), "certificates read again");
                    }
                    Err(error) => tracing::error!(%error, "certificates stay as they were"),
                }
            }
        }
        Arc::clone(&current.config)
    }

    /// Meets a client.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> std::io::Result<TlsStream<S>> {
        TlsAcceptor::from(self.config()).accept(stream).await
    }

    /// Whom a client's certificate names: nobody where it has shown none, an error where no rule fits it.
    pub(super) fn principal<S>(&self, stream: &TlsStream<S>) -> Result<Option<Principal>, &'static str> {
        let Some(certificate) = stream.get_ref().1.peer_certificates().and_then(|all| all.first()) else { return Ok(None) };
        let subject = subject::of_certificate(certificate).ok_or("the client's certificate has no subject that can be read")?;
        let name = self.files.rules.apply(&subject).ok_or("no rule for principals fits the subject of the client's certificate")?;
        Ok(Some(Principal::user(&name)))
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    let all = [Some(&files.certificate), Some(&files.key), files.client_authorities.as_ref()];
    all.into_iter().map(|path| std::fs::metadata(path?).and_then(|m| m.modified()).ok()).collect()
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| wrong(&files.key, &e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| e.to_string())?;
    let builder = match (files.clients, &files.client_authorities) {
        (ClientCertificates::None, _) => builder.with_no_client_auth(),
        (_, None) => return Err("client certificates are verified against certificates of authorities; name a file of them".to_owned()),
        (clients, Some(path)) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|e| wrong(path, &e))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if clients == ClientCertificates::Requested { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|e| wrong(path, &e))?)
        }
    };
    let config = builder.with_single_cert(chain, key).map_err(|e| wrong(&files.certificate, &e))?;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|e| wrong(&e))?.collect();
    let all = all.map_err(|e| wrong(&e))?;
    if all.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(all) }
}
