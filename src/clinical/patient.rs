//! A patient's id that does not show itself.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// A patient's id. Prints as a short tag, so that it cannot reach a log or an error by accident.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PatientId(String);

impl PatientId {
    /// Takes an id.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id itself. Only alerts and query results may ask for it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// A short tag: tells patients apart on a screen without saying who they are.
    #[must_use]
    pub fn tag(&self) -> String {
        let digest = Sha256::digest(self.0.as_bytes());
        format!("{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2])
    }

    /// A pseudonym that only the holder of the key can link to the id: `PSN` and twenty hexadecimal digits of
    /// HMAC-SHA256. Eighty bits: among ten million patients, two share one with a chance of about 1 in 20 billion.
    #[must_use]
    pub fn pseudonym(&self, key: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(self.0.as_bytes());
        let digest = mac.finalize().into_bytes();
        digest.iter().take(10).fold("PSN".to_owned(), |mut text, byte| {
            use fmt::Write;
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl fmt::Debug for PatientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "patient {}", self.tag())
    }
}

impl fmt::Display for PatientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_does_not_print_itself_and_a_pseudonym_needs_its_key() {
        let id = PatientId::new("MRN-4711");
        assert!(!format!("{id} {id:?}").contains("4711"));
        assert_eq!(id.pseudonym(b"k"), id.pseudonym(b"k"));
        assert_ne!(id.pseudonym(b"k"), id.pseudonym(b"l"));
        assert_eq!(id.pseudonym(b"k").len(), 23);
    }
}
