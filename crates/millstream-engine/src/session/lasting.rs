//! What goes on after its statement has begun, and must not outlast the rights it began with: subscriptions and connections.
//!
//! Rights are looked at again when users or privileges have changed, and by nothing else: an epoch costs a comparison of numbers. What
//! they are is decided where every statement is ([`Session::authorize`]), so that a subscription ends exactly where it could not begin.

use super::{Session, SessionUser};
use crate::error::{EngineError, Result};
use crate::subscription::LastingRight;
use millstream_sql::Statement;
use millstream_sql::statement::Emit;
use std::future::pending;
use tokio::sync::watch;

/// The right to follow what a statement names.
#[derive(Debug)]
struct RightToFollow {
    session: Session,
    statement: Statement,
}

impl LastingRight for RightToFollow {
    fn changes(&self) -> watch::Receiver<u64> {
        self.session.engine.shared().access_watch.subscribe()
    }

    fn check(&self) -> Result<()> {
        self.session.authorize(&self.statement)
    }
}

impl Session {
    /// The right that a subscription takes; `None` where it cannot be lost, and for other statements.
    pub(super) fn right_to_follow(&self, statement: &Statement) -> Option<Box<dyn LastingRight>> {
        let follows = match statement {
            Statement::Query(query) => query.emit != Emit::None,
            Statement::Subscribe(_) => true,
            _ => false,
        };
        if !follows || self.user == SessionUser::Owner {
            return None;
        }
        Some(Box::new(RightToFollow { session: self.clone(), statement: statement.clone() }))
    }

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
