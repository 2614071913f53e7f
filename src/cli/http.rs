//! The command line as an HTTP client: where the node is, and what opens its door.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ureq::RequestBuilder;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::Failure;

/// The node's HTTP door.
#[derive(Args, Clone, Debug)]
pub struct Door {
    /// The node's HTTP address.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080",
        env = "VITALSQL_URL",
        help_heading = "Connection",
        global = true
    )]
    url: String,
    /// A file with the token that opens the door, where it asks for one; without the file, VITALSQL_TOKEN in the environment.
    #[arg(long, value_name = "FILE", help_heading = "Connection", global = true)]
    token_file: Option<PathBuf>,
    /// Certificates in PEM of those who may sign the node's, where the system does not know them.
    #[arg(long, value_name = "FILE", env = "VITALSQL_CA", help_heading = "Connection", global = true)]
    ca: Option<PathBuf>,
}

/// How to ask the node.
pub struct Client {
    agent: ureq::Agent,
    url: String,
    token: Option<String>,
}

impl Door {
    /// A client for it, whose answers may take so long.
    pub fn client(&self, timeout: Option<Duration>) -> Result<Client, Failure> {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_body(timeout);
        if let Some(path) = &self.ca {
            let wrong = |why: String| Failure::usage(format!("{}: {why}", path.display()));
            let text = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
            let mut roots: Vec<Certificate<'static>> = Vec::new();
            for item in parse_pem(&text) {
                if let PemItem::Certificate(certificate) = item.map_err(|e| wrong(e.to_string()))? {
                    roots.push(certificate);
                }
            }
            if roots.is_empty() {
                return Err(wrong("there is no certificate in it".to_owned()));
            }
            config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build());
        }
        let token = match &self.token_file {
            None => std::env::var("VITALSQL_TOKEN").ok(),
            Some(path) => {
                Some(std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("could not read {}: {e}", path.display())))?)
            }
        };
        Ok(Client {
            agent: ureq::Agent::new_with_config(config.build()),
            url: self.url.trim_end_matches('/').to_owned(),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
        })
    }
}

impl Client {
    /// The node's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for something.
    pub fn get(&self, path: &str) -> RequestBuilder<ureq::typestate::WithoutBody> {
        self.with_token(self.agent.get(format!("{}{path}", self.url)))
    }

    /// Sends something.
    pub fn post(&self, path: &str) -> RequestBuilder<ureq::typestate::WithBody> {
        self.with_token(self.agent.post(format!("{}{path}", self.url)))
    }

    fn with_token<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }
}
