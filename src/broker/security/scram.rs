//! SCRAM (RFC 5802, RFC 7677) as a broker speaks it, and what is kept of a password for it. Pure.
//!
//! Always: a password is not kept, only what checks one; comparing takes the same time whatever differs; a user who
//! does not exist is led through the same exchange as one who does. Called by `security`.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// The fewest iterations that are taken (Kafka's rule).
pub const MIN_ITERATIONS: i32 = 4096;
/// The most iterations that are taken (Kafka's rule).
pub const MAX_ITERATIONS: i32 = 16_384;

/// Which hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256 = 1,
    /// SCRAM-SHA-512.
    Sha512 = 2,
}

impl ScramMechanism {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Its name in SASL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// Kafka's number for it.
    #[must_use]
    pub const fn code(self) -> i8 {
        self as i8
    }

    /// What Kafka's number stands for.
    #[must_use]
    pub fn from_code(code: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.code() == code)
    }

    const fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    const fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    const fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    fn sign(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(self.hmac(), key), text).as_ref().to_vec()
    }

    fn hash(self, bytes: &[u8]) -> Vec<u8> {
        digest::digest(self.digest(), bytes).as_ref().to_vec()
    }

    /// What a password becomes under a salt.
    fn salted(self, password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let mut salted = vec![0; self.digest().output_len()];
        pbkdf2::derive(self.pbkdf2(), iterations, salt, password, &mut salted);
        salted
    }
}

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
    iterations: NonZeroU32,
}

impl fmt::Debug for Credential {
    /// Nothing of it is for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({} iterations)", self.iterations)
    }
}

impl Credential {
    /// From a password. Takes a millisecond or more: not on a thread that others wait for.
    #[must_use]
    pub fn from_password(mechanism: ScramMechanism, password: &str, salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        let salted = mechanism.salted(password.as_bytes(), &salt, iterations);
        Self::from_salted(mechanism, &salted, salt, iterations)
    }

    /// From what a client has made of a password.
    #[must_use]
    pub fn from_salted(mechanism: ScramMechanism, salted_password: &[u8], salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        let client_key = mechanism.sign(salted_password, b"Client Key");
        let server_key = mechanism.sign(salted_password, b"Server Key");
        Self { salt, stored_key: mechanism.hash(&client_key), server_key, iterations }
    }

    /// What a user who does not exist is led through the exchange with: nothing proves it, and it is the same at each
    /// attempt, as a real one would be.
    #[must_use]
    pub fn decoy(mechanism: ScramMechanism, secret: &[u8], user: &str, iterations: NonZeroU32) -> Self {
        let salt = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), user.as_bytes()).as_ref()[..20].to_vec();
        Self { salt, stored_key: Vec::new(), server_key: vec![0; mechanism.digest().output_len()], iterations }
    }

    /// How often the hash was repeated.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.iterations.get()
    }

    /// Whether this is the password. Takes a millisecond or more, as long for a decoy.
    #[must_use]
    pub fn verify(&self, mechanism: ScramMechanism, password: &[u8]) -> bool {
        let salted = mechanism.salted(password, &self.salt, self.iterations);
        let client_key = mechanism.sign(&salted, b"Client Key");
        mechanism.hash(&client_key).ct_eq(&self.stored_key).into()
    }
}

/// Why an exchange cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The client's message is not one of this exchange.
    #[error("a message that is not SCRAM")]
    Malformed,
    /// The client wants something that is not offered: to bind the channel, to act for another, a token.
    #[error("something that is not offered was asked for")]
    Unsupported,
    /// The proof is wrong, or there is no such user.
    #[error("invalid credentials")]
    Invalid,
}

/// An exchange that has had its first message.
pub struct ScramExchange {
    mechanism: ScramMechanism,
    user: String,
    credential: Credential,
    known: bool,
    nonce: String,
    gs2: String,
    /// `client-first-message-bare,server-first-message`: what both sign.
    signed: String,
}

/// The client's first message, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct First<'a> {
    gs2: &'a str,
    bare: &'a str,
    user: String,
    nonce: &'a str,
}

/// Takes `n,a=authzid,n=user,r=nonce,extensions` apart.
fn read_first(message: &[u8]) -> Result<First<'_>, ScramError> {
    let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
    let mut parts = text.splitn(3, ',');
    let (flag, authorize, bare) = (parts.next(), parts.next(), parts.next());
    let (Some(flag), Some(authorize), Some(bare)) = (flag, authorize, bare) else { return Err(ScramError::Malformed) };
    match flag {
        "n" | "y" => {}
        other if other.starts_with("p=") => return Err(ScramError::Unsupported),
        _ => return Err(ScramError::Malformed),
    }
    let mut fields = bare.split(',');
    let first = fields.next().ok_or(ScramError::Malformed)?;
    if first.starts_with("m=") {
        return Err(ScramError::Unsupported);
    }
    let user = first.strip_prefix("n=").and_then(unescape).filter(|user| !user.is_empty()).ok_or(ScramError::Malformed)?;
    let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).filter(|n| is_nonce(n)).ok_or(ScramError::Malformed)?;
    if fields.any(|field| field.eq_ignore_ascii_case("tokenauth=true")) {
        return Err(ScramError::Unsupported);
    }
    match authorize {
        "" => {}
        other => {
            let other = other.strip_prefix("a=").and_then(unescape).ok_or(ScramError::Malformed)?;
            if other != user && !other.is_empty() {
                return Err(ScramError::Unsupported);
            }
        }
    }
    let gs2 = &text[..text.len() - bare.len()];
    Ok(First { gs2, bare, user, nonce })
}

fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b',')
}

/// `=2C` is a comma and `=3D` an equals sign; others do not stand alone.
fn unescape(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('=') {
        out.push_str(&rest[..at]);
        out.push(match rest.get(at..at + 3)? {
            "=2C" => ',',
            "=3D" => '=',
            _ => return None,
        });
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Some(out)
}

impl ScramExchange {
    /// Takes the client's first message. `find` looks a user up, `decoy` makes up one who does not exist; `nonce` is
    /// fresh chance. Answers the exchange and what the client is told.
    pub fn begin(
        mechanism: ScramMechanism,
        message: &[u8],
        nonce: &str,
        find: impl FnOnce(&str) -> Option<Credential>,
        decoy: impl FnOnce(&str) -> Credential,
    ) -> Result<(Self, Vec<u8>), ScramError> {
        let first = read_first(message)?;
        let found = find(&first.user);
        let known = found.is_some();
        let credential = found.unwrap_or_else(|| decoy(&first.user));
        let nonce = format!("{}{nonce}", first.nonce);
        let answer = format!("r={nonce},s={},i={}", BASE64.encode(&credential.salt), credential.iterations);
        let signed = format!("{},{answer}", first.bare);
        let exchange = Self { mechanism, user: first.user, credential, known, nonce, gs2: first.gs2.to_owned(), signed };
        Ok((exchange, answer.into_bytes()))
    }

    /// Whom the client claims to be.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Takes the client's last message. Answers what the client is told: the proof that we know it too.
    pub fn end(&self, message: &[u8]) -> Result<Vec<u8>, ScramError> {
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut fields = without_proof.split(',');
        let binding = fields.next().and_then(|field| field.strip_prefix("c=")).ok_or(ScramError::Malformed)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if binding != BASE64.encode(&self.gs2) || nonce != self.nonce {
            return Err(ScramError::Malformed);
        }
        let proof = BASE64.decode(proof).map_err(|_| ScramError::Malformed)?;
        let signed = format!("{},{without_proof}", self.signed);
        let signature = self.mechanism.sign(&self.credential.stored_key, signed.as_bytes());
        if proof.len() != signature.len() {
            return Err(ScramError::Malformed);
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let proven: bool = self.mechanism.hash(&client_key).ct_eq(&self.credential.stored_key).into();
        if !(proven && self.known) {
            return Err(ScramError::Invalid);
        }
        let ours = self.mechanism.sign(&self.credential.server_key, signed.as_bytes());
        Ok(format!("v={}", BASE64.encode(ours)).into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn the_example_of_rfc_7677_comes_out_as_printed() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let kept = Credential::from_password(ScramMechanism::Sha256, "pencil", salt, times(4096));
        let (exchange, told) = ScramExchange::begin(
            ScramMechanism::Sha256,
            b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            |user| (user == "user").then_some(kept),
            |_| panic!("the user is known"),
        )
        .unwrap();
        let nonce = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        assert_eq!(String::from_utf8(told).unwrap(), format!("{nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
        let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let last = exchange.end(format!("c=biws,{nonce},p={proof}").as_bytes()).unwrap();
        assert_eq!(String::from_utf8(last).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let wrong = proof.replace('d', "e");
        assert_eq!(exchange.end(format!("c=biws,{nonce},p={wrong}").as_bytes()), Err(ScramError::Invalid));
        for bad in [
            format!("c=eSws,{nonce},p={proof}"),
            format!("c=biws,{nonce}x,p={proof}"),
            format!("c=biws,{nonce}"),
            format!("c=biws,{nonce},p=AAAA"),
            format!("c=biws,{nonce},p=!"),
            String::new(),
        ] {
            assert_eq!(exchange.end(bad.as_bytes()), Err(ScramError::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_user_who_does_not_exist_is_told_the_same_as_one_with_a_wrong_password() {
        let decoy = |user: &str| Credential::decoy(ScramMechanism::Sha512, b"secret", user, times(4096));
        let begin = || ScramExchange::begin(ScramMechanism::Sha512, b"n,,n=nobody,r=abc", "xyz", |_| None, decoy).unwrap();
        let (exchange, told) = begin();
        assert_eq!(told, begin().1, "the salt is the same each time");
        let proof = BASE64.encode([0; 64]);
        assert_eq!(exchange.end(format!("c=biws,r=abcxyz,p={proof}").as_bytes()), Err(ScramError::Invalid));
    }

    #[test]
    fn a_password_is_known_by_what_is_kept_of_it() {
        for mechanism in ScramMechanism::ALL {
            let kept = Credential::from_password(mechanism, "päss word", b"salt".to_vec(), times(4096));
            assert!(kept.verify(mechanism, "päss word".as_bytes()) && !kept.verify(mechanism, b"pass word"));
            assert!(!Credential::decoy(mechanism, b"secret", "alice", times(4096)).verify(mechanism, b""));
            let text = serde_json::to_string(&kept).unwrap();
            assert_eq!(serde_json::from_str::<Credential>(&text).unwrap(), kept);
            assert_eq!(format!("{kept:?}"), "Credential(4096 iterations)");
        }
    }

    #[test]
    fn a_first_message_is_taken_apart_and_what_is_not_offered_is_refused() {
        let first = read_first(b"y,a=a=2Cb=3D,n=a=2Cb=3D,r=xyz,ext=1").unwrap();
        assert_eq!((first.gs2, first.bare), ("y,a=a=2Cb=3D,", "n=a=2Cb=3D,r=xyz,ext=1"));
        assert_eq!((first.user.as_str(), first.nonce), ("a,b=", "xyz"));
        for bad in
            ["", "n", "n,", "n,,", "n,,n=", "n,,n=u", "n,,n=u,r=", "n,,n=u=,r=x", "n,,n=u=2,r=x", "n,,r=x,n=u", "x,,n=u,r=x", "n,b,n=u,r=x"]
        {
            assert_eq!(read_first(bad.as_bytes()), Err(ScramError::Malformed), "{bad}");
        }
        for bad in ["p=tls-unique,,n=u,r=x", "n,,m=x,n=u,r=x", "n,a=other,n=u,r=x", "n,,n=u,r=x,tokenauth=true"] {
            assert_eq!(read_first(bad.as_bytes()), Err(ScramError::Unsupported), "{bad}");
        }
        assert_eq!(read_first(&[0xff, b',', b',']), Err(ScramError::Malformed));
    }
}
