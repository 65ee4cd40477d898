//! SCRAM-SHA-256: a client proves that it knows a password without sending it, and the server that it knew it once.
//!
//! ```text
//!   client-first    n,,n=user,r=<client nonce>
//!   server-first    r=<client nonce><server nonce>,s=<salt>,i=<iterations>
//!   client-final    c=<channel binding>,r=<both nonces>,p=<proof>
//!   server-final    v=<signature>
//! ```
//! A name that does not exist gets the same questions, with a salt that stays the same for the name, and fails at the end: answers tell
//! nobody which names there are. **Reference**: RFC 5802, RFC 7677; PostgreSQL documentation, "SASL Authentication".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::hmac::{self, HMAC_SHA256};
use ring::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::num::NonZeroU32;

/// The name of the mechanism.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";

const ITERATIONS: u32 = 4_096;
const SALT_BYTES: usize = 16;
/// Iterations that an entry of the users file may ask a client for.
const ITERATIONS_MAX: u32 = 1_000_000;

/// What a password can be checked with, but not guessed from without trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verifier {
    salt: Vec<u8>,
    iterations: u32,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl Verifier {
    /// A verifier of a password, with a new salt.
    pub(crate) fn of(password: &str) -> Self {
        Self::with_salt(password, random::<SALT_BYTES>().to_vec(), ITERATIONS)
    }

    fn with_salt(password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        let salted = salted_password(password, &salt, iterations);
        let client_key = keyed(&salted, b"Client Key");
        Self { stored_key: digest(&SHA256, &client_key).as_ref().to_vec(), server_key: keyed(&salted, b"Server Key"), salt, iterations }
    }

    /// Whether a password that was sent as it is is the one.
    pub(crate) fn accepts(&self, password: &str) -> bool {
        let client_key = keyed(&salted_password(password, &self.salt, self.iterations), b"Client Key");
        same(digest(&SHA256, &client_key).as_ref(), &self.stored_key)
    }

    /// What a name without a password is asked with. The same name gets the same salt as long as the server runs.
    pub(crate) fn decoy(name: &str, secret: &[u8]) -> Self {
        let mut salt = keyed(secret, name.as_bytes());
        salt.truncate(SALT_BYTES);
        let unknown = random::<32>().to_vec();
        Self { salt, iterations: ITERATIONS, stored_key: unknown.clone(), server_key: unknown }
    }

    /// Reads the form PostgreSQL keeps verifiers in.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|iterations| (1..=ITERATIONS_MAX).contains(iterations))?;
        let key = |text: &str| STANDARD.decode(text).ok().filter(|key| key.len() == 32);
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Self { salt, iterations, stored_key: key(stored_key)?, server_key: key(server_key)? })
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = |bytes: &[u8]| STANDARD.encode(bytes);
        let (stored, server) = (encoded(&self.stored_key), encoded(&self.server_key));
        write!(f, "SCRAM-SHA-256${}:{}${stored}:{server}", self.iterations, encoded(&self.salt))
    }
}

/// Why a client is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// What it sent is no step of the exchange.
    Malformed,
    /// The password is wrong.
    WrongPassword,
}

/// An exchange that waits for the client's proof.
#[derive(Debug)]
pub(crate) struct Exchange {
    verifier: Verifier,
    client_first_bare: String,
    server_first: String,
    nonce: String,
    /// What the client must repeat as its channel binding.
    binding: String,
}

impl Exchange {
    /// Takes the client's first message and asks for its proof.
    ///
    /// # Errors
    /// When it is none, or asks for channel binding, which is not offered.
    pub(crate) fn begin(client_first: &[u8], verifier: Verifier) -> Result<(Self, Vec<u8>), Refused> {
        Self::begin_with(client_first, verifier, &STANDARD.encode(random::<18>()))
    }

    fn begin_with(client_first: &[u8], verifier: Verifier, nonce: &str) -> Result<(Self, Vec<u8>), Refused> {
        let text = std::str::from_utf8(client_first).map_err(|_| Refused::Malformed)?;
        // `n,authzid,`: no channel binding; `y`: the client could, but thinks the server cannot.
        let mut parts = text.splitn(3, ',');
        let (Some(flag @ ("n" | "y")), Some(identity), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Refused::Malformed);
        };
        let client_nonce = bare.split(',').find_map(|part| part.strip_prefix("r=")).filter(|nonce| !nonce.is_empty());
        let client_nonce = client_nonce.ok_or(Refused::Malformed)?;
        let nonce = format!("{client_nonce}{nonce}");
        let server_first = format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let binding = STANDARD.encode(format!("{flag},{identity},"));
        let exchange = Self { verifier, client_first_bare: bare.to_string(), server_first: server_first.clone(), nonce, binding };
        Ok((exchange, server_first.into_bytes()))
    }

    /// Takes the client's proof and gives the server's.
    ///
    /// # Errors
    /// When the password is wrong.
    pub(crate) fn finish(self, client_final: &[u8]) -> Result<Vec<u8>, Refused> {
        let text = std::str::from_utf8(client_final).map_err(|_| Refused::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Refused::Malformed)?;
        let part = |key: &str| without_proof.split(',').find_map(|part| part.strip_prefix(key));
        if part("c=") != Some(self.binding.as_str()) || part("r=") != Some(self.nonce.as_str()) {
            return Err(Refused::Malformed);
        }
        let proof = STANDARD.decode(proof).map_err(|_| Refused::Malformed)?;
        let message = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let signature = keyed(&self.verifier.stored_key, message.as_bytes());
        if proof.len() != signature.len() {
            return Err(Refused::WrongPassword);
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let stored = digest(&SHA256, &client_key);
        if !same(stored.as_ref(), &self.verifier.stored_key) {
            return Err(Refused::WrongPassword);
        }
        let signature = keyed(&self.verifier.server_key, message.as_bytes());
        Ok(format!("v={}", STANDARD.encode(signature)).into_bytes())
    }
}

/// Bytes that nobody can foresee.
///
/// # Panics
/// When the operating system has none, which it never says on Linux once it is up.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system has random bytes");
    bytes
}

/// Each byte is looked at, whatever the ones before were.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

fn keyed(key: &[u8], message: &[u8]) -> Vec<u8> {
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

    /// The exchange of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_standard() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::with_salt("pencil", salt, 4096);
        assert_eq!(Verifier::parse(&verifier.to_string()), Some(verifier.clone()));
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let (exchange, asked) = Exchange::begin_with(first, verifier.clone(), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
        assert_eq!(asked, b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(exchange.finish(last).unwrap(), b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let (exchange, _) = Exchange::begin_with(first, Verifier::of("other"), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
        assert_eq!(exchange.finish(last), Err(Refused::WrongPassword));
        assert!(Verifier::of("pencil").accepts("pencil") && !Verifier::of("pencil").accepts("Pencil"));
        assert!(!Verifier::decoy("a", b"k").accepts("pencil"));
    }

    #[test]
    fn what_is_no_step_is_refused() {
        for first in [&b""[..], b"n", b"n,,", b"n,,n=user", b"p=tls-unique,,n=u,r=x", b"\xff", b"n,,n=u,r="] {
            assert!(Exchange::begin(first, Verifier::of("x")).is_err(), "{first:?}");
        }
        for last in [&b""[..], b"c=biws,r=x,p=AA==", b"p=", b"c=biws,p=AA==", b"\xff,p="] {
            let (exchange, _) = Exchange::begin(b"n,,n=u,r=x", Verifier::of("x")).unwrap();
            assert!(exchange.finish(last).is_err(), "{last:?}");
        }
        for verifier in ["", "secret", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:AA==$AA==:AA=="] {
            assert_eq!(Verifier::parse(verifier), None);
        }
        let (first, second) = (Verifier::decoy("a", b"k"), Verifier::decoy("a", b"k"));
        assert_eq!(first.salt, second.salt);
    }
}
