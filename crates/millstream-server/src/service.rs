//! What all protocols share: the engine, who may do what, and the end of the server.

use crate::Config;
use crate::admission::{Admission, UserConnection};
use crate::config::Limits;
use crate::error::{RequestError, ServerError, codes};
use crate::pg::catalog::PgCatalog;
use crate::users::{User, UserEntry, Users};
use millstream_engine::access::{UserLimits, Verifier, random};
use millstream_engine::{Engine, EngineError, Session};
use millstream_types::EventTime;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What all connections share.
pub(crate) struct Service {
    pub(crate) engine: Engine,
    users: RwLock<Users>,
    pub(crate) limits: Limits,
    pub(crate) catalog: PgCatalog,
    /// All addresses are loopback ones, and nobody has said that strangers are welcome.
    pub(crate) is_local: bool,
    /// No new work from now on.
    pub(crate) stopping: CancellationToken,
    /// The end, also of what runs.
    pub(crate) stopped: CancellationToken,
    pub(crate) figures: Figures,
    /// When the server was made.
    pub(crate) started: EventTime,
    pub(crate) admission: Arc<Admission>,
    /// What salts for names that do not exist are made from.
    pub(crate) decoy_secret: [u8; 32],
}

/// Counts for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) pg_connections: AtomicUsize,
    pub(crate) http_connections: AtomicUsize,
    pub(crate) flight_connections: AtomicUsize,
    pub(crate) http_requests: AtomicU64,
    pub(crate) flight_requests: AtomicU64,
    pub(crate) flight_statements: AtomicU64,
    pub(crate) pg_statements: AtomicU64,
    pub(crate) failed_statements: AtomicU64,
}

impl Service {
    pub(crate) fn new(engine: Engine, config: &Config) -> Result<Arc<Self>, ServerError> {
        let users = Users::new(&config.users)?;
        engine.bring_users(users.defs());
        let catalog = PgCatalog::new(&engine)
            .map_err(|error: EngineError| ServerError::configuration(format!("cannot set up pg_catalog: {error}"), ""))?;
        Ok(Arc::new(Self {
            users: RwLock::new(users),
            limits: config.limits,
            catalog,
            is_local: !config.insecure,
            stopping: CancellationToken::new(),
            stopped: CancellationToken::new(),
            figures: Figures::default(),
            started: engine.clock().now(),
            engine,
            admission: Admission::new(config.limits.connections),
            decoy_secret: random(),
        }))
    }

    /// Takes other users of the users file in place of those before. Sessions of users who are gone may do nothing from now on.
    ///
    /// # Errors
    /// When an entry is wrong; the users stay then.
    pub(crate) fn bring_users(&self, entries: &[UserEntry]) -> Result<(), ServerError> {
        let users = Users::new(entries)?;
        let mut current = self.users.write();
        self.engine.bring_users(users.defs());
        *current = users;
        Ok(())
    }

    /// The user of a bearer token; without users everybody.
    ///
    /// # Errors
    /// When there are users and the token is none of theirs.
    pub(crate) fn bearer(&self, token: Option<&str>) -> Result<User, RequestError> {
        if !self.engine.has_users() {
            return Ok(User::anybody("anonymous"));
        }
        match token.and_then(|token| self.users.read().with_token(token)) {
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
        let limits = UserLimits { memory: self.limits.memory, rows: self.limits.rows, ..UserLimits::default() };
        self.engine.session_of(user.session.clone()).within(limits)
    }

    /// How long a statement may run: as the client asks, within the limits of the server and of the user.
    pub(crate) fn time_limit(&self, session: &Session) -> Option<Duration> {
        let wanted = session.variable("statement_timeout").and_then(|text| timeout(&text)).unwrap_or_default();
        let limits = [wanted, self.limits.statement_timeout, session.limits().statement_timeout.unwrap_or_default()];
        limits.into_iter().filter(|duration| !duration.is_zero()).min()
    }

    /// Refuses a statement whose text is longer than its user's may be.
    ///
    /// # Errors
    /// When it is.
    pub(crate) fn check_length(&self, session: &Session, text: &str) -> Result<(), RequestError> {
        match session.limits().statement_bytes {
            Some(most) if text.len() as u64 > most => Err(RequestError::new(
                codes::TOO_LARGE,
                format!("the statement has {} bytes, more than the {most} that the user may send", text.len()),
                "Send rows with COPY or as parameters.",
            )),
            _ => Ok(()),
        }
    }

    /// Counts a connection, a request or a session of a user until it is dropped.
    ///
    /// # Errors
    /// When the user has as many as they may.
    pub(crate) fn count(&self, user: &User) -> Result<UserConnection, RequestError> {
        let most = self.engine.user(&user.name).and_then(|(user, _)| user.limits.connections);
        self.admission.count(&user.name, most)
    }
}

/// `statement_timeout` as PostgreSQL takes it: milliseconds, or a number with a unit.
fn timeout(text: &str) -> Option<Duration> {
    match text.trim().parse::<u64>() {
        Ok(milliseconds) => Some(Duration::from_millis(milliseconds)),
        Err(_) => millstream_types::options::parse_duration(text),
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
