//! The query service: one engine, spoken to over the PostgreSQL protocol, Arrow Flight SQL and HTTP.
//!
//! ```text
//!   psql, drivers ──► pg/      ┐                          ┌─ snapshots ── between two epochs
//!   ADBC, pyarrow ──► flight/  ┼─► sessions of the engine ┼─ changes of tables, one epoch each
//!   curl, browsers ─► http/    ┘                          └─ subscriptions
//! ```
//! Each connection is a task with a session of its own over the shared catalog; a query runs in a task beside it, so that a request
//! to cancel and the client's end are seen whatever it computes. What goes wrong in a connection ends that connection at most. The
//! crate knows the protocols and who may do what; how a statement is carried out is `millstream-engine`'s.
//!
//! | folder | for |
//! | --- | --- |
//! | `pg/` | the PostgreSQL protocol: simple and extended queries, COPY, `pg_catalog` |
//! | `http/` | SQL, subscriptions as server-sent events, ingestion, metrics |
//! | `flight/` | Arrow Flight SQL: results, parameters and ingested rows as Arrow batches |
//! | `cursors.rs`, `prepared.rs` | what a session has by its name, whatever its protocol |
//! | `rows.rs`, `aside.rs`, `ingestion.rs` | what all take from the engine and give to it, and how they wait for it |
//! | `users.rs`, `scram.rs`, `tls.rs`, `admission.rs` | who may connect and do what, and how many at a time |

mod accept;
mod admission;
mod aside;
mod config;
#[cfg(test)]
mod connection_tests;
mod cursors;
#[cfg(test)]
mod ending_tests;
mod error;
mod flight;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod ingestion;
mod pg;
mod prepared;
mod rows;
mod scram;
mod service;
#[cfg(test)]
mod tests;
mod tls;
mod users;

pub use config::{Config, Limits, TlsFiles};
pub use error::ServerError;
pub use millstream_types::Role;
pub use users::{UserEntry, new_token};

use millstream_engine::metrics::Metric;
use millstream_engine::{Engine, EngineError};
use service::Service;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A running server.
pub struct Server {
    service: Arc<Service>,
    pg: Option<SocketAddr>,
    http: Option<SocketAddr>,
    flight: Option<SocketAddr>,
    listeners: JoinSet<()>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("pg", &self.pg).field("http", &self.http).field("flight", &self.flight).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on the configured addresses and serves until [`Server::stop`].
    ///
    /// # Errors
    /// When the configuration is not safe or not right, or an address is taken.
    pub async fn start(engine: Engine, config: Config) -> Result<Self, ServerError> {
        let service = Service::new(engine, &config)?;
        config.check(service.engine.has_users())?;
        let mut server = Self { service: Arc::clone(&service), pg: None, http: None, flight: None, listeners: JoinSet::new() };
        if let Some(address) = config.pg {
            let tls = config.tls.clone().map(|files| tls::Tls::new(files, &["postgresql"])).transpose()?;
            let (listener, address) = listen(address).await?;
            server.pg = Some(address);
            server.listeners.spawn(pg::serve(Arc::clone(&service), listener, tls));
        }
        if let Some(address) = config.http {
            let tls = config.tls.clone().map(|files| tls::Tls::new(files, &["h2", "http/1.1"])).transpose()?;
            let (listener, address) = listen(address).await?;
            server.http = Some(address);
            server.listeners.spawn(http::serve(Arc::clone(&service), listener, tls));
        }
        if let Some(address) = config.flight {
            let tls = config.tls.clone().map(|files| tls::Tls::new(files, &["h2"])).transpose()?;
            let (listener, address) = listen(address).await?;
            server.flight = Some(address);
            server.listeners.spawn(flight::serve(Arc::clone(&service), listener, tls));
        }
        Ok(server)
    }

    /// Where the PostgreSQL protocol is spoken.
    pub fn pg_address(&self) -> Option<SocketAddr> {
        self.pg
    }

    /// Where HTTP is spoken.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Where Arrow Flight SQL is spoken.
    pub fn flight_address(&self) -> Option<SocketAddr> {
        self.flight
    }

    /// What `/metrics` tells, again and again, also when the server has stopped.
    pub fn metrics(&self) -> ServerMetrics {
        ServerMetrics(Arc::clone(&self.service))
    }

    /// Takes other users of the users file in place of those before, from the next statement on. What is open of users who are gone ends.
    ///
    /// # Errors
    /// When an entry is wrong; the users stay then.
    pub fn bring_users(&self, entries: &[UserEntry]) -> Result<(), ServerError> {
        self.service.bring_users(entries)
    }

    /// Stops: takes no new work, gives what runs the configured time, and ends the rest.
    pub async fn stop(mut self) {
        self.service.stopping.cancel();
        let ended = async { while self.listeners.join_next().await.is_some() {} };
        if tokio::time::timeout(self.service.limits.grace, ended).await.is_err() {
            self.service.stopped.cancel();
            // Connections end at once now, except for the farewell they send.
            let ended = async { while self.listeners.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), ended).await;
        }
    }
}

/// The metrics of a pipeline and its server.
#[derive(Clone)]
pub struct ServerMetrics(Arc<Service>);

impl std::fmt::Debug for ServerMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerMetrics").finish_non_exhaustive()
    }
}

impl ServerMetrics {
    /// The metrics as they are now.
    ///
    /// # Errors
    /// When the pipeline has stopped.
    pub async fn read(&self) -> Result<Vec<Metric>, EngineError> {
        http::metrics::all(&self.0).await
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let bound = match TcpListener::bind(address).await {
        Ok(listener) => listener.local_addr().map(|address| (listener, address)),
        Err(error) => Err(error),
    };
    bound.map_err(|source| ServerError::Listen { address, source })
}
