//! The PostgreSQL protocol.
//!
//! | file | for |
//! | --- | --- |
//! | `wire.rs`, `socket.rs` | bytes and messages; a connection's two directions |
//! | `startup.rs`, `cancel.rs` | TLS, authentication, requests to cancel |
//! | `connection.rs`, `extended.rs` | a session: its messages, prepared statements and portals |
//! | `execute.rs` | a statement carried out |
//! | `copy/` | COPY in both directions |
//! | `catalog/` | `pg_catalog` and `information_schema` |
//! | `names.rs` | columns of a result that have the same name |
//! | `values/` | values as PostgreSQL writes them |

pub(crate) mod cancel;
pub(crate) mod catalog;
mod connection;
pub(crate) mod copy;
mod execute;
mod extended;
mod names;
mod socket;
mod startup;
pub(crate) mod values;
pub(crate) mod wire;

pub(crate) use catalog::DATABASE;
pub(crate) use execute::{Parsed, parse};
pub(crate) use values::parameter::{cast, text_literal};

use crate::accept;
use crate::service::{Counted, Service};
use crate::tls::Tls;
use cancel::Cancels;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Accepts connections until the server stops, and returns when the last one has ended.
pub(crate) async fn serve(service: Arc<Service>, listener: TcpListener, tls: Option<Tls>) {
    let cancels = Arc::new(Cancels::default());
    let mut connections = JoinSet::new();
    while let Some(stream) = accept::next(&service, &listener, &mut connections).await {
        let Some(place) = service.admission.enter() else { continue };
        let (service, cancels) = (Arc::clone(&service), Arc::clone(&cancels));
        let acceptor = tls.as_ref().map(Tls::acceptor);
        connections.spawn(async move {
            let _counted = Counted::new(&service.figures.pg_connections);
            if let Err(error) = startup::serve(&service, &cancels, Box::new(stream), acceptor, &place).await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
