//! SCRAM-SHA-256 verifiers: what a password can be checked with, but not guessed from without trying.
//!
//! They are written as PostgreSQL writes them, `SCRAM-SHA-256$4096:salt$stored:server`, and shown by no `Debug`.
//! **Reference**: RFC 5802, section 3; RFC 7677.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::hmac::{self, HMAC_SHA256};
use ring::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;

const ITERATIONS: u32 = 4_096;
const SALT_BYTES: usize = 16;
/// Iterations that a verifier from outside may ask a client for.
const ITERATIONS_MAX: u32 = 1_000_000;

/// What a password can be checked with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Verifier {
    /// Random bytes, so that equal passwords have different verifiers.
    pub salt: Vec<u8>,
    /// How often the password is hashed.
    pub iterations: u32,
    /// What the client's proof is checked with.
    pub stored_key: Vec<u8>,
    /// What the server proves itself with.
    pub server_key: Vec<u8>,
}

impl Verifier {
    /// A verifier of a password, with a new salt.
    pub fn of(password: &str) -> Self {
        Self::with_salt(password, random::<SALT_BYTES>().to_vec(), ITERATIONS)
    }

    /// A verifier of a password with a salt that is known.
    pub fn with_salt(password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        let salted = salted_password(password, &salt, iterations);
        let client_key = keyed(&salted, b"Client Key");
        Self { stored_key: digest(&SHA256, &client_key).as_ref().to_vec(), server_key: keyed(&salted, b"Server Key"), salt, iterations }
    }

    /// What a name without a password is asked with. The same name and secret get the same salt.
    pub fn decoy(name: &str, secret: &[u8]) -> Self {
        let mut salt = keyed(secret, name.as_bytes());
        salt.truncate(SALT_BYTES);
        let unknown = random::<32>().to_vec();
        Self { salt, iterations: ITERATIONS, stored_key: unknown.clone(), server_key: unknown }
    }

    /// Reads the form PostgreSQL keeps verifiers in.
    pub fn parse(text: &str) -> Option<Self> {
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|iterations| (1..=ITERATIONS_MAX).contains(iterations))?;
        let key = |text: &str| STANDARD.decode(text).ok().filter(|key| key.len() == 32);
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Self { salt, iterations, stored_key: key(stored_key)?, server_key: key(server_key)? })
    }

    /// Whether this is the password.
    pub fn accepts(&self, password: &str) -> bool {
        let other = Self::with_salt(password, self.salt.clone(), self.iterations);
        same(&other.stored_key, &self.stored_key)
    }
}

/// Whether two keys are equal; how long that takes does not depend on where they differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = |bytes: &[u8]| STANDARD.encode(bytes);
        let (stored, server) = (encoded(&self.stored_key), encoded(&self.server_key));
        write!(f, "SCRAM-SHA-256${}:{}${stored}:{server}", self.iterations, encoded(&self.salt))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(***)")
    }
}

impl From<Verifier> for String {
    fn from(verifier: Verifier) -> Self {
        verifier.to_string()
    }
}

impl TryFrom<String> for Verifier {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not a SCRAM-SHA-256 verifier")
    }
}

/// Bytes that nobody can foresee.
///
/// # Panics
/// When the operating system has none, which it never says on Linux once it is up.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system has random bytes");
    bytes
}

/// HMAC-SHA-256.
pub fn keyed(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(HMAC_SHA256, key), message).as_ref().to_vec()
}

fn salted_password(password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
    let mut salted = vec![0; 32];
    pbkdf2::derive(PBKDF2_HMAC_SHA256, NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN), salt, password.as_bytes(), &mut salted);
    salted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_not_shown() {
        let verifier = Verifier::of("pencil");
        assert!(verifier.accepts("pencil") && !verifier.accepts("Pencil"));
        assert_eq!(Verifier::parse(&verifier.to_string()), Some(verifier.clone()));
        assert_ne!(verifier, Verifier::of("pencil"), "each has a salt of its own");
        assert_eq!(format!("{verifier:?}"), "Verifier(***)");
        for wrong in ["", "secret", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:AA==$AA==:AA=="] {
            assert_eq!(Verifier::parse(wrong), None);
        }
        assert_eq!(Verifier::decoy("a", b"k").salt, Verifier::decoy("a", b"k").salt);
    }
}
