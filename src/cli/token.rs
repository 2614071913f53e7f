//! `vitalsql token`: makes a token for the HTTP door.

use std::fmt::Write as _;
use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use super::{CommandResult, Failure, output};

/// A token.
#[derive(Args)]
#[command(after_help = "Examples:\n  vitalsql token grafana > grafana.token       what to write into vitalsql.toml is told beside it\n  \
                        vitalsql sql --token-file grafana.token -c \"SHOW STREAMS\"\n  \
                        curl -H \"Authorization: Bearer $(cat grafana.token)\" http://127.0.0.1:8080/metrics\n\n\
                        The token itself is kept nowhere: the node knows only its hash.")]
pub struct Arguments {
    /// What the token is called in the configuration.
    name: String,
    /// Who its bearer is, as access rules name them; User:NAME where it is not said.
    #[arg(long, value_name = "User:NAME")]
    principal: Option<String>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    let name = &arguments.name;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        return Err(Failure::usage("a token's name is made of a-z A-Z 0-9 - _"));
    }
    let principal = arguments.principal.clone().unwrap_or_else(|| format!("User:{name}"));
    if principal.strip_prefix("User:").is_none_or(str::is_empty) || principal.contains(['"', '\\']) {
        return Err(Failure::usage("a principal is written as in User:grafana"));
    }
    let mut chance = [0; 32];
    SystemRandom::new().fill(&mut chance).map_err(|_| Failure::new("the system gives no random numbers"))?;
    let token = format!("vsql_{}", URL_SAFE_NO_PAD.encode(chance));
    let hash = Sha256::digest(token.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    writeln!(std::io::stdout().lock(), "{token}")?;
    output::say(&format!("[http.tokens.{name}]\nsha256 = \"{hash}\"\nprincipal = \"{principal}\""));
    Ok(())
}
