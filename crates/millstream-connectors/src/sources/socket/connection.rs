//! The tasks that hold connections: one client that keeps reconnecting, or a server with a task per connection.

use crate::formats::SplitOptions;
use crate::sources::received::{ExpectedHeader, LineBuffer, LineReceiver};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const READ_BYTES: usize = 64 << 10;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What every connection of a source needs.
#[derive(Debug, Clone)]
pub(super) struct Receiving {
    pub(super) stream: Arc<str>,
    pub(super) buffer: Arc<LineBuffer>,
    pub(super) split: SplitOptions,
    pub(super) expected: Option<ExpectedHeader>,
    pub(super) bounded: bool,
}

/// Connects again and again, for ever or until the peer of a bounded stream ends.
pub(super) async fn run_client(receiving: Receiving, address: String) {
    let mut delay = FIRST_DELAY;
    loop {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(&address)).await {
            Ok(Ok(socket)) => {
                tracing::info!(stream = %receiving.stream, peer = %address, "connected");
                let end = receiving.receive(socket, "", &address).await;
                if end.received {
                    delay = FIRST_DELAY;
                }
                if receiving.bounded && end.properly {
                    receiving.buffer.end();
                    return;
                }
                tracing::warn!(stream = %receiving.stream, peer = %address, delay_ms = millis(delay), "connection closed, connecting again");
            }
            Ok(Err(error)) => {
                let delay_ms = millis(delay);
                tracing::warn!(stream = %receiving.stream, peer = %address, %error, delay_ms, "connection refused, connecting again");
            }
            Err(_) => {
                tracing::warn!(stream = %receiving.stream, peer = %address, delay_ms = millis(delay), "connection timed out, connecting again");
            }
        }
        sleep(delay).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

fn millis(delay: Duration) -> u64 {
    u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)
}

/// Accepts connections; each is a partition named by its number.
pub(super) async fn run_server(receiving: Receiving, listener: TcpListener, first_connection: u64, max_connections: usize) {
    let mut connections: JoinSet<()> = JoinSet::new();
    let mut number = first_connection;
    loop {
        if connections.len() >= max_connections {
            let _ = connections.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    let (receiving, partition, peer) = (receiving.clone(), number.to_string(), peer.to_string());
                    number += 1;
                    receiving.buffer.start_partition(&partition, 0);
                    tracing::info!(stream = %receiving.stream, %peer, %partition, "connected");
                    connections.spawn(async move {
                        receiving.receive(socket, &partition, &peer).await;
                        receiving.buffer.close_partition(&partition);
                        tracing::info!(stream = %receiving.stream, %peer, %partition, "connection closed");
                    });
                }
                // Out of file descriptors, or the peer gave up before it was accepted.
                Err(error) => {
                    tracing::warn!(stream = %receiving.stream, %error, "connection not accepted");
                    sleep(FIRST_DELAY).await;
                }
            },
            Some(_) = connections.join_next() => {
                if receiving.bounded && connections.is_empty() {
                    receiving.buffer.end();
                    return;
                }
            }
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy)]
struct End {
    properly: bool,
    received: bool,
}

impl Receiving {
    async fn receive(&self, mut socket: TcpStream, partition: &str, peer: &str) -> End {
        let mut receiver = LineReceiver::new(&self.buffer, partition, peer, self.split, self.expected.clone());
        let mut chunk = vec![0; READ_BYTES];
        let mut received = false;
        loop {
            match socket.read(&mut chunk).await {
                Ok(0) => {
                    receiver.finish();
                    return End { properly: true, received };
                }
                Ok(bytes) => {
                    received = true;
                    receiver.receive(&chunk[..bytes]).await;
                }
                Err(error) => {
                    let partial_line = receiver.has_partial();
                    tracing::warn!(stream = %self.stream, %peer, %error, partial_line, "connection broke");
                    return End { properly: false, received };
                }
            }
        }
    }
}
