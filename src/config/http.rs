//! Who may come in at the HTTP door: `http.tokens.NAME.*`, `http.certificate`, `http.key`.
//!
//! Always: a token is named by its hash, never written into the configuration; beyond loopback the door asks for a token,
//! unless the operator says `insecure`. Called by `config`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{ConfigError, Origin};
use crate::broker::security::PrincipalRules;
use crate::http::{Token, Tokens};
use crate::server::{ClientCertificates, TlsFiles};

/// What may be said of a token, and what it means.
pub const TOKEN_KEYS: &[(&str, &str)] = &[
    ("sha256", "the SHA-256 of the token, in hexadecimal digits, as vitalsql token prints it"),
    ("principal", "who its bearer is, as access rules name them; User:NAME where it is not said"),
];

/// Who may come in at the HTTP door.
#[derive(Clone, Debug, Default)]
pub struct HttpSecurity {
    /// The tokens that open it; where there are none, nobody is asked who they are.
    pub tokens: Tokens,
    /// With TLS.
    pub tls: Option<TlsFiles>,
}

type Values = BTreeMap<String, (String, Origin)>;

/// Whether a key is of this part, whatever names are in it.
pub(super) fn is_key(key: &str) -> bool {
    let parts: Vec<&str> = key.split('.').collect();
    matches!(parts.as_slice(), ["http", "tokens", name, part] if !name.is_empty() && TOKEN_KEYS.iter().any(|(known, _)| known == part))
}

fn wrong(values: &Values, key: &str, why: &str) -> ConfigError {
    let (value, origin) = values.get(key).cloned().unwrap_or((String::new(), Origin::Default));
    // What stands where a hash should be may be the token.
    let value = if key.ends_with(".sha256") && !value.is_empty() { "..".to_owned() } else { value };
    ConfigError::Value { key: key.to_owned(), value, origin, why: why.to_owned() }
}

/// 32 bytes in hexadecimal digits.
fn read_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.trim();
    let digits = digits.strip_prefix("sha256:").unwrap_or(digits);
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (place, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(hash)
}

/// Reads everything of this part.
pub(super) fn read(values: &Values, listen: SocketAddr, insecure: bool) -> Result<HttpSecurity, ConfigError> {
    let mut tokens = Tokens::new();
    for key in values.keys() {
        let Some((name, _)) = key.strip_prefix("http.tokens.").and_then(|rest| rest.rsplit_once('.')) else { continue };
        if tokens.contains_key(name) {
            continue;
        }
        let of = |part: &str| format!("http.tokens.{name}.{part}");
        let text = |key: &str| values.get(key).map(|(value, _)| value.trim()).filter(|value| !value.is_empty());
        let hash = text(&of("sha256")).and_then(read_hash);
        let sha256 = hash.ok_or_else(|| wrong(values, &of("sha256"), "expected 64 hexadecimal digits, as vitalsql token prints them"))?;
        let principal = text(&of("principal")).map_or_else(|| format!("User:{name}"), str::to_owned);
        if principal.strip_prefix("User:").is_none_or(str::is_empty) {
            return Err(wrong(values, &of("principal"), "expected a principal as in User:grafana"));
        }
        tokens.insert(name.to_owned(), Token { sha256, principal });
    }
    if tokens.is_empty() && !listen.ip().is_loopback() && !insecure {
        let why = "beyond loopback the HTTP door asks for a token: http.tokens.NAME.sha256 (vitalsql token NAME makes one); or say \
                   insecure = true (--insecure)";
        return Err(wrong(values, "http.listen", why));
    }
    let path = |key: &str| values.get(key).map(|(value, _)| value.trim()).filter(|value| !value.is_empty()).map(PathBuf::from);
    let tls = match (path("http.certificate"), path("http.key")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            let rules = PrincipalRules::parse("").map_err(|why| wrong(values, "http.certificate", &why))?;
            Some(TlsFiles { certificate, key, client_authorities: None, clients: ClientCertificates::None, rules })
        }
        (Some(_), None) => return Err(wrong(values, "http.key", "a certificate needs its key")),
        (None, Some(_)) => return Err(wrong(values, "http.certificate", "a key needs its certificate")),
    };
    Ok(HttpSecurity { tokens, tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(listen: &str, pairs: &[(&str, &str)], insecure: bool) -> Result<HttpSecurity, String> {
        assert!(pairs.iter().all(|(key, _)| is_key(key) || ["http.certificate", "http.key"].contains(key)));
        let values = pairs.iter().map(|(k, v)| ((*k).to_owned(), ((*v).to_owned(), Origin::Flag))).collect();
        read(&values, listen.parse().unwrap(), insecure).map_err(|e| e.to_string())
    }

    #[test]
    fn beyond_loopback_the_door_asks_for_a_token() {
        assert!(check("127.0.0.1:1", &[], false).unwrap().tokens.is_empty());
        assert!(check("0.0.0.0:1", &[], false).unwrap_err().contains("http.tokens"));
        assert!(check("0.0.0.0:1", &[], true).is_ok());
        let found = check("0.0.0.0:1", &[("http.tokens.grafana.sha256", HASH)], false).unwrap();
        assert_eq!(found.tokens["grafana"].principal, "User:grafana");
        let named = [("http.tokens.x.sha256", HASH), ("http.tokens.x.principal", "User:alice")];
        assert_eq!(check("127.0.0.1:1", &named, false).unwrap().tokens["x"].principal, "User:alice");
    }

    #[test]
    fn what_does_not_fit_is_told_without_the_secret() {
        let told = check("127.0.0.1:1", &[("http.tokens.x.sha256", "vsql_secret")], false).unwrap_err();
        assert!(told.contains("http.tokens.x.sha256") && !told.contains("secret"), "{told}");
        let named = [("http.tokens.x.sha256", HASH), ("http.tokens.x.principal", "alice")];
        assert!(check("127.0.0.1:1", &named, false).unwrap_err().contains("User:grafana"));
        assert!(check("127.0.0.1:1", &[("http.tokens.x.principal", "User:x")], false).unwrap_err().contains("sha256"));
        assert!(check("127.0.0.1:1", &[("http.certificate", "c.pem")], false).unwrap_err().contains("http.key"));
        assert!(!is_key("http.tokens.x.token") && !is_key("http.tokens.x"));
    }
}
