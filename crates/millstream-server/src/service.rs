//! What all protocols share: the engine, who may do what, and the end of the server.

use crate::Config;
use crate::config::Limits;
use crate::error::{RequestError, ServerError, codes};
use crate::pg::catalog::PgCatalog;
use crate::users::{User, Users};
use millstream_engine::access::{Verifier, random};
use millstream_engine::{Engine, EngineError, Session};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio_util::sync::CancellationToken;

/// What all connections share.
pub(crate) struct Service {
    pub(crate) engine: Engine,
    pub(crate) users: Users,
    pub(crate) limits: Limits,
    pub(crate) catalog: PgCatalog,
    /// All addresses are loopback ones, and nobody has said that strangers are welcome.
    pub(crate) is_local: bool,
    /// No new work from now on.
    pub(crate) stopping: CancellationToken,
    /// The end, also of what runs.
    pub(crate) stopped: CancellationToken,
    pub(crate) figures: Figures,
    /// What salts for names that do not exist are made from.
    pub(crate) decoy_secret: [u8; 32],
}

/// Counts for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) pg_connections: AtomicUsize,
    pub(crate) http_requests: AtomicU64,
    pub(crate) pg_statements: AtomicU64,
    pub(crate) failed_statements: AtomicU64,
}

impl Service {
    pub(crate) fn new(engine: Engine, config: &Config) -> Result<Arc<Self>, ServerError> {
        let catalog = PgCatalog::new(&engine)
            .map_err(|error: EngineError| ServerError::configuration(format!("cannot set up pg_catalog: {error}"), ""))?;
        let users = Users::new(&config.users)?;
        engine.bring_users(users.defs());
        Ok(Arc::new(Self {
            users,
            limits: config.limits,
            catalog,
            is_local: !config.insecure,
            engine,
            stopping: CancellationToken::new(),
            stopped: CancellationToken::new(),
            figures: Figures::default(),
            decoy_secret: random(),
        }))
    }

    /// The user of a bearer token; without users everybody.
    ///
    /// # Errors
    /// When there are users and the token is none of theirs.
    pub(crate) fn bearer(&self, token: Option<&str>) -> Result<User, RequestError> {
        if !self.engine.has_users() {
            return Ok(User::anybody("anonymous"));
        }
        match token.and_then(|token| self.users.with_token(token)) {
            Some(user) => Ok(user),
            None => Err(RequestError::new(
                codes::BAD_AUTHORIZATION,
                "this takes a user",
                "Send a token of the users file (Authorization: Bearer ..), or name and password (Authorization: Basic .., curl -u name).",
            )),
        }
    }

    /// The user who has this password; without users everybody.
    ///
    /// # Errors
    /// When there are users and the password is not this one's.
    pub(crate) fn with_password(&self, name: &str, password: &str) -> Result<User, RequestError> {
        if !self.engine.has_users() {
            return Ok(User::anybody(name));
        }
        // A name that does not exist takes as long as one that does.
        let known = self.engine.user(name).and_then(|(user, _)| user.password);
        let is_known = known.is_some();
        if known.unwrap_or_else(|| Verifier::decoy(name, &self.decoy_secret)).accepts(password) && is_known {
            return Ok(User::named(name));
        }
        Err(RequestError::new(codes::BAD_PASSWORD, format!("password authentication failed for user \"{name}\""), ""))
    }

    /// A session of a client. The engine looks at what it may do with every statement.
    pub(crate) fn session(&self, user: &User) -> Session {
        self.engine.session_of(user.session.clone())
    }
}

/// One more of something, until it is dropped.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(crate) fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
