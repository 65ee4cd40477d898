//! Ctrl-C and SIGTERM as events. While someone waits for them they do not end the process.

use futures::Stream;
use futures::StreamExt;
use std::future::Future;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

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

/// Runs `work` in a task of its own, which is aborted when the call is dropped. Work that computes for long without a pause
/// would otherwise keep its caller from noticing a signal.
pub(crate) async fn aside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let mut tasks = JoinSet::new();
    tasks.spawn(work);
    match tasks.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The task is cancelled only with this call, or when the process ends.
        Some(Err(_)) | None => std::future::pending().await,
    }
}

/// A stream that is computed [`aside`]; dropping it ends the computation at its next pause.
pub(crate) struct AsideStream<T> {
    items: mpsc::Receiver<T>,
    _task: JoinSet<()>,
}

impl<T: Send + 'static> AsideStream<T> {
    /// Starts to compute `stream`, a few items ahead.
    pub(crate) fn new(stream: impl Stream<Item = T> + Send + 'static) -> Self {
        let (sender, items) = mpsc::channel(4);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(item) = stream.next().await {
                if sender.send(item).await.is_err() {
                    return;
                }
            }
        });
        Self { items, _task: task }
    }

    /// The next item.
    pub(crate) async fn next(&mut self) -> Option<T> {
        self.items.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn items_arrive_in_order() {
        let mut stream = AsideStream::new(futures::stream::iter(0..100));
        let mut items = Vec::new();
        while let Some(item) = stream.next().await {
            items.push(item);
        }
        assert_eq!(items, (0..100).collect::<Vec<_>>());
        assert_eq!(aside(async { 7 }).await, 7);
    }
}
