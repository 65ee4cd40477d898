//! Connections as they come, for every protocol; and to their end, for those that speak TLS from the first byte.

use crate::admission::Place;
use crate::service::Service;
use crate::tls::Tls;
use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// A client's connection, plain or encrypted.
pub(crate) type Connection = Either<TcpStream, TlsStream<TcpStream>>;

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

/// Accepts connections until the server stops, talks to each, and returns when the last one has ended. A TLS handshake may take as
/// long as `patience`. Who has no place is talked to all the same, to be told.
pub(crate) async fn serve<T: Future<Output = ()> + Send + 'static>(
    service: &Arc<Service>,
    listener: TcpListener,
    tls: Option<Tls>,
    patience: Duration,
    talk: impl Fn(Connection, Arc<Place>) -> T + Clone + Send + 'static,
) {
    let mut connections = JoinSet::new();
    while let Some(stream) = next(service, &listener, &mut connections).await {
        let Some(place) = service.admission.enter() else { continue };
        let (talk, acceptor) = (talk.clone(), tls.as_ref().map(Tls::acceptor));
        connections.spawn(async move {
            if let Some(connection) = opened(stream, acceptor, patience).await {
                talk(connection, place).await;
            }
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn opened(stream: TcpStream, acceptor: Option<TlsAcceptor>, patience: Duration) -> Option<Connection> {
    let Some(acceptor) = acceptor else { return Some(Either::Left(stream)) };
    match tokio::time::timeout(patience, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(Either::Right(stream)),
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
    None
}

/// Carries a connection on to its end. When the server stops, `finish` lets it end after the requests that run.
pub(crate) async fn carry_on<C, E: Display>(service: &Service, mut connection: Pin<&mut C>, finish: impl FnOnce(Pin<&mut C>))
where
    C: Future<Output = Result<(), E>>,
{
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = service.stopping.cancelled() => {
            finish(connection.as_mut());
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = service.stopped.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
