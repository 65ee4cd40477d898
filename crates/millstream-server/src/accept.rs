//! Connections as they come, for every protocol.

use crate::service::Service;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How long after a failed accept (no more file descriptors, say) the next one is tried.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The next connection; `None` when the server stops. Meanwhile connections that have ended are taken out of `connections`.
pub(crate) async fn next(service: &Service, listener: &TcpListener, connections: &mut JoinSet<()>) -> Option<TcpStream> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = service.stopping.cancelled() => return None,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                // Answers are small and awaited.
                let _ = stream.set_nodelay(true);
                return Some(stream);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
