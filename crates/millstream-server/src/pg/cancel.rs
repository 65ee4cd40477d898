//! Requests to cancel: they come over connections of their own and name another by number and secret.

use millstream_engine::access::random;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// All connections that may be asked to cancel.
#[derive(Debug, Default)]
pub(crate) struct Cancels {
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    last: i32,
    by_number: HashMap<i32, (i32, Arc<Running>)>,
}

/// What a connection does now.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<Option<CancellationToken>>);

impl Running {
    /// A statement begins; the token tells when it is to end.
    pub(crate) fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.0.lock() = Some(token.clone());
        token
    }

    /// It has ended: what asks to cancel it now comes too late.
    pub(crate) fn end(&self) {
        *self.0.lock() = None;
    }
}

/// The place of a connection among [`Cancels`].
#[derive(Debug)]
pub(crate) struct Registered {
    cancels: Arc<Cancels>,
    /// The number that clients know the connection by.
    pub(crate) number: i32,
    /// What only its client knows.
    pub(crate) secret: i32,
    /// What it does.
    pub(crate) running: Arc<Running>,
}

impl Cancels {
    /// A place for a new connection.
    pub(crate) fn register(self: &Arc<Self>) -> Registered {
        let secret = i32::from_be_bytes(random());
        let running = Arc::new(Running::default());
        let mut connections = self.connections.lock();
        let number = loop {
            connections.last = connections.last.checked_add(1).unwrap_or(1);
            if !connections.by_number.contains_key(&connections.last) {
                break connections.last;
            }
        };
        connections.by_number.insert(number, (secret, Arc::clone(&running)));
        Registered { cancels: Arc::clone(self), number, secret, running }
    }

    /// Cancels what a connection does, if the secret is right. Nobody is told whether it was.
    pub(crate) fn cancel(&self, number: i32, secret: i32) {
        let running = match self.connections.lock().by_number.get(&number) {
            Some((known, running)) if *known == secret => Arc::clone(running),
            _ => return,
        };
        if let Some(token) = running.0.lock().as_ref() {
            token.cancel();
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.cancels.connections.lock().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_cancels_only_what_runs() {
        let cancels = Arc::new(Cancels::default());
        let (one, other) = (cancels.register(), cancels.register());
        let token = one.running.begin();
        let others = other.running.begin();
        cancels.cancel(one.number, one.secret.wrapping_add(1));
        cancels.cancel(99, one.secret);
        assert!(!token.is_cancelled());
        cancels.cancel(one.number, one.secret);
        assert!(token.is_cancelled() && !others.is_cancelled());
        one.running.end();
        cancels.cancel(one.number, one.secret);
        assert!(!one.running.begin().is_cancelled());
        drop(other);
        assert_eq!(cancels.connections.lock().by_number.len(), 1);
    }
}
