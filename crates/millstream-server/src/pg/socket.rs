//! A connection's two directions: messages in, answers out.
//!
//! Reading keeps what has come in a buffer that grows with the bytes that arrive, never with a length that is only claimed. Writing
//! gathers answers and hands them over in large pieces; a client that takes none of them for [`WRITE_TIMEOUT`] is cut off.

use super::wire::{self, Answers, Message, Opening, WireError};
use bytes::BytesMut;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

/// How long a client may take nothing of what it is sent.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers that are gathered before they are handed over.
const WRITE_SIZE: usize = 64 * 1024;

/// A connection that bytes go over, encrypted or not.
pub(crate) trait Channel: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Channel for T {}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The client is gone.
    #[error("the client is gone")]
    Gone,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client sent what is no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The client does not read.
    #[error("the client did not read for {} seconds", WRITE_TIMEOUT.as_secs())]
    Slow,
}

/// The direction from the client.
pub(crate) struct Reader {
    stream: ReadHalf<Box<dyn Channel>>,
    buffer: BytesMut,
    ended: bool,
}

impl Reader {
    /// Reads from here on; `buffer` has come already.
    pub(crate) fn new(stream: ReadHalf<Box<dyn Channel>>, buffer: BytesMut) -> Self {
        Self { stream, buffer, ended: false }
    }

    /// The next message; what has come of one is kept when the call is dropped.
    ///
    /// # Errors
    /// When the client is gone, or sent none.
    pub(crate) async fn message(&mut self, size_max: usize) -> Result<Message, Broken> {
        loop {
            if let Some(message) = wire::take_message(&mut self.buffer, size_max)? {
                return Ok(message);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), Broken> {
        if self.ended {
            return Err(Broken::Gone);
        }
        self.buffer.reserve(8 * 1024);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => {
                self.ended = true;
                Err(Broken::Gone)
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns when the client is gone. Clients may send further messages while they wait; they are kept, up to a bound.
    pub(crate) async fn gone(&mut self) {
        const AHEAD_MAX: usize = 1024 * 1024;
        while self.buffer.len() < AHEAD_MAX {
            if self.more().await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

/// The direction to the client.
pub(crate) struct Writer {
    stream: WriteHalf<Box<dyn Channel>>,
    /// Answers that are not handed over yet.
    pub(crate) answers: Answers,
}

impl Writer {
    /// Writes to here.
    pub(crate) fn new(stream: WriteHalf<Box<dyn Channel>>) -> Self {
        Self { stream, answers: Answers::default() }
    }

    /// Hands answers over if there are many.
    ///
    /// # Errors
    /// As [`Writer::flush`].
    pub(crate) async fn flush_if_large(&mut self) -> Result<(), Broken> {
        if self.answers.buffer.len() < WRITE_SIZE { Ok(()) } else { self.flush().await }
    }

    /// Hands all answers over.
    ///
    /// # Errors
    /// When the client is gone or does not read.
    pub(crate) async fn flush(&mut self) -> Result<(), Broken> {
        while !self.answers.buffer.is_empty() {
            match tokio::time::timeout(WRITE_TIMEOUT, self.stream.write_buf(&mut self.answers.buffer)).await {
                Err(_) => return Err(Broken::Slow),
                Ok(Ok(0)) => return Err(Broken::Gone),
                Ok(written) => drop(written?),
            }
        }
        match tokio::time::timeout(WRITE_TIMEOUT, self.stream.flush()).await {
            Err(_) => Err(Broken::Slow),
            Ok(flushed) => Ok(flushed?),
        }
    }

    /// Ends the connection in good order.
    pub(crate) async fn close(&mut self) {
        // Whether the client still listens does not matter any more.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.shutdown()).await;
    }
}

/// Reads the first message.
///
/// # Errors
/// When the client is gone, or sent none.
pub(crate) async fn opening(stream: &mut Box<dyn Channel>, buffer: &mut BytesMut) -> Result<Opening, Broken> {
    loop {
        if let Some(opening) = wire::take_opening(buffer)? {
            return Ok(opening);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(Broken::Gone);
        }
    }
}

/// Writes answers before a session begins.
///
/// # Errors
/// When the client is gone.
pub(crate) async fn send(stream: &mut Box<dyn Channel>, answers: &mut Answers) -> Result<(), Broken> {
    match tokio::time::timeout(WRITE_TIMEOUT, stream.write_all_buf(&mut answers.buffer)).await {
        Err(_) => return Err(Broken::Slow),
        Ok(written) => written?,
    }
    Ok(stream.flush().await?)
}
