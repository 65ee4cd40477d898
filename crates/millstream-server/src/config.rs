//! How a server is set up: addresses, users, TLS, limits.

use crate::error::ServerError;
use crate::users::UserEntry;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where the PostgreSQL protocol is spoken; nowhere without.
    pub pg: Option<SocketAddr>,
    /// Where HTTP is spoken; nowhere without.
    pub http: Option<SocketAddr>,
    /// Where Arrow Flight SQL is spoken; nowhere without.
    pub flight: Option<SocketAddr>,
    /// Who may connect, beside users of the catalog; without any users everybody may do everything.
    pub users: Vec<UserEntry>,
    /// Certificate and key for TLS.
    pub tls: Option<TlsFiles>,
    /// Listen on any address without users or without TLS.
    pub insecure: bool,
    /// What a client may ask for.
    pub limits: Limits,
}

/// The files of a certificate chain and its private key, in PEM form. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates, the server's own first.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// What clients may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, of all protocols together.
    pub connections: usize,
    /// Bytes of a statement or another message of the PostgreSQL protocol or of Arrow Flight SQL.
    pub message_bytes: usize,
    /// Bytes of an HTTP request.
    pub body_bytes: usize,
    /// Bytes of all rows of one COPY FROM STDIN, or of one ingestion over Arrow Flight SQL.
    pub copy_bytes: usize,
    /// Prepared statements, and likewise portals, of one connection or session.
    pub prepared: usize,
    /// How long a statement may run that says nothing else; zero for any time.
    pub statement_timeout: Duration,
    /// Bytes of memory that one statement may take while it computes; `None` for what the engine has for reading.
    pub memory: Option<u64>,
    /// Rows that one query may give; `None` for any number.
    pub rows: Option<u64>,
    /// How long a stopping server waits for statements that run.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_000,
            message_bytes: 64 * 1024 * 1024,
            body_bytes: 64 * 1024 * 1024,
            copy_bytes: 1024 * 1024 * 1024,
            prepared: 10_000,
            statement_timeout: Duration::ZERO,
            memory: None,
            rows: None,
            grace: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Refuses what would let strangers in. `has_users`: of this configuration or of the catalog.
    ///
    /// # Errors
    /// An address that others reach, without users or without TLS.
    pub(crate) fn check(&self, has_users: bool) -> Result<(), ServerError> {
        if self.pg.is_none() && self.http.is_none() && self.flight.is_none() {
            return Err(ServerError::configuration("the server has no address", "Give it one: --pg 127.0.0.1:6543."));
        }
        for address in [self.pg, self.http, self.flight].into_iter().flatten() {
            if address.ip().is_loopback() || self.insecure || (has_users && self.tls.is_some()) {
                continue;
            }
            let missing = match (!has_users, self.tls.is_none()) {
                (true, true) => "users and TLS",
                (true, false) => "users",
                _ => "TLS",
            };
            return Err(ServerError::configuration(
                format!("{address} can be reached from outside, but the server has no {missing}"),
                "Give it users (CREATE USER, or --users FILE), --tls-cert FILE and --tls-key FILE; --insecure serves whoever comes.",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    #[test]
    fn strangers_are_not_let_in_by_accident() {
        let check = |address: &str, change: fn(&mut Config)| {
            let mut config = Config { pg: Some(address.parse().unwrap()), ..Config::default() };
            change(&mut config);
            config.check(!config.users.is_empty()).map_err(|error| error.to_string())
        };
        let user = |config: &mut Config| config.users.push(UserEntry::new("ada", Role::Admin));
        assert_eq!(check("127.0.0.1:1", |_| {}), Ok(()));
        assert_eq!(check("[::1]:1", |_| {}), Ok(()));
        assert_eq!(check("0.0.0.0:1", |_| {}).unwrap_err(), "0.0.0.0:1 can be reached from outside, but the server has no users and TLS");
        assert_eq!(check("10.0.0.1:1", user).unwrap_err(), "10.0.0.1:1 can be reached from outside, but the server has no TLS");
        assert_eq!(check("0.0.0.0:1", |config| config.insecure = true), Ok(()));
        assert!(Config::default().check(false).is_err());
    }
}
