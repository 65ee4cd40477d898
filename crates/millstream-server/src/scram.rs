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
use millstream_engine::access::{Verifier, keyed, random, same};
use ring::digest::{SHA256, digest};

/// The name of the mechanism.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";

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
        if !same(digest(&SHA256, &client_key).as_ref(), &self.verifier.stored_key) {
            return Err(Refused::WrongPassword);
        }
        let signature = keyed(&self.verifier.server_key, message.as_bytes());
        Ok(format!("v={}", STANDARD.encode(signature)).into_bytes())
    }
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
    }
}
