//! What goes on after its statement has begun, and must not outlast the rights it began with: subscriptions and connections.
//!
//! Rights are looked at again when users or privileges have changed, and by nothing else: an epoch costs a comparison of numbers. What
//! they are is decided where every statement is ([`Session::authorize`]), so that a subscription ends exactly where it could not begin.

use super::{Session, SessionUser};
use crate::error::{EngineError, Result};
use millstream_sql::Statement;
use std::future::pending;
use tokio::sync::watch;

/// The right to go on with a subscription.
#[derive(Debug)]
pub(crate) struct LastingRight {
    session: Session,
    statement: Statement,
    changes: watch::Receiver<u64>,
}

impl LastingRight {
    /// The right that a statement takes from now on; `None` where it cannot be lost. To be made before it is looked at the first time, so
    /// that no change is missed in between.
    pub(super) fn of(session: &Session, statement: &Statement) -> Option<Self> {
        let follows = match statement {
            Statement::Query(query) => query.emit != millstream_sql::statement::Emit::None,
            Statement::Subscribe(_) => true,
            _ => false,
        };
        (follows && session.user != SessionUser::Owner).then(|| Self {
            session: session.clone(),
            statement: statement.clone(),
            changes: session.engine.shared().access_watch.subscribe(),
        })
    }

    /// Looks at it again if something has changed.
    ///
    /// # Errors
    /// When it is lost.
    pub(crate) fn check(&mut self) -> Result<()> {
        if !self.changes.has_changed().unwrap_or(false) {
            return Ok(());
        }
        self.changes.mark_unchanged();
        self.session.authorize(&self.statement)
    }

    /// Returns when it is lost. Whoever stops waiting misses nothing.
    pub(crate) async fn lost(&mut self) -> EngineError {
        loop {
            if let Err(error) = self.check() {
                return error;
            }
            let mut changes = self.changes.clone();
            if changes.changed().await.is_err() {
                // The engine is gone, and with it whatever is followed.
                return pending().await;
            }
        }
    }
}

impl Session {
    /// Whether the session's user may do anything at all.
    ///
    /// # Errors
    /// [`EngineError::Denied`] when there is no such user any more, or the session belongs to none and there are users by now.
    pub fn check_user(&self) -> Result<()> {
        self.rights().map(drop)
    }

    /// Returns when the user of the session is gone; never for sessions without one.
    pub async fn user_gone(&self) -> EngineError {
        let SessionUser::Named(_) = self.user else { return pending().await };
        let mut changes = self.engine.shared().access_watch.subscribe();
        loop {
            if let Err(error) = self.check_user() {
                return error;
            }
            if changes.changed().await.is_err() {
                return pending().await;
            }
        }
    }
}
