//! Ctrl-C and SIGTERM as events. While someone waits for them they do not end the process.

use std::future::Future;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that asks to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// SIGINT: Ctrl-C.
    Int,
    /// SIGTERM.
    Term,
}

impl Interrupt {
    /// The exit code of a program that was ended by it.
    pub(crate) fn code(self) -> u8 {
        match self {
            Interrupt::Int => crate::failure::INTERRUPTED,
            Interrupt::Term => crate::failure::TERMINATED,
        }
    }
}

/// The signals from now on: one that came before is not seen.
#[derive(Debug)]
pub(crate) struct Interrupts {
    int: Signal,
    term: Signal,
}

impl Interrupts {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the operating system refuses the handler.
    pub(crate) fn watch() -> std::io::Result<Self> {
        Ok(Self { int: signal(SignalKind::interrupt())?, term: signal(SignalKind::terminate())? })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Interrupt {
        tokio::select! {
            _ = self.int.recv() => Interrupt::Int,
            _ = self.term.recv() => Interrupt::Term,
        }
    }
}

/// Runs `work` until it is done or a signal comes; the work is then dropped where it stands.
///
/// # Errors
/// The signal, or that signals cannot be watched.
pub(crate) async fn interruptible<T>(work: impl Future<Output = T>) -> std::io::Result<Result<T, Interrupt>> {
    let mut interrupts = Interrupts::watch()?;
    tokio::select! {
        biased;
        interrupt = interrupts.next() => Ok(Err(interrupt)),
        done = work => Ok(Ok(done)),
    }
}
