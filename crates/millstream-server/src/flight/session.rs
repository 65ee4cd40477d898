//! Sessions: what each has, and the handles that clients name prepared statements and results by.
//!
//! A request belongs to the session of its token, if a handshake gave it that token, else to the session that its connection has for
//! the user. Sessions of tokens end by `CloseSession` or after [`IDLE`]; those of connections end with the connection. A handle is
//! random, and good for whoever is the user of its session, over whatever connection: gRPC clients open new ones as they see fit.
//!
//! **Limits**: as many sessions of tokens as there may be connections, of which the one that was idle longest gives way, since not every
//! client closes its own; per session a number of prepared statements and of results that
//! nobody has fetched, and the bytes of their texts. Of results the oldest are forgotten, prepared statements are refused.

use super::prepared::Prepared;
use super::statement::Work;
use crate::admission::UserConnection;
use crate::config::Limits;
use crate::cursors::Cursors;
use crate::error::{RequestError, codes};
use crate::prepared::Statements;
use crate::service::Service;
use crate::users::User;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use millstream_engine::Session;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long the session of a token stays without a request.
const IDLE: Duration = Duration::from_secs(3_600);
/// Results of one session that wait to be fetched.
const WAITING_MAX: usize = 1_000;
/// What a session's tokens begin with.
const TOKEN_PREFIX: &str = "mss_";

/// A name for something of a session that nobody can guess.
pub(super) type Handle = Arc<str>;

/// All sessions of the protocol.
#[derive(Default)]
pub(super) struct Sessions {
    inner: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    by_token: HashMap<String, Arc<FlightSession>>,
    by_handle: HashMap<Handle, Weak<FlightSession>>,
}

/// What one client keeps at the server.
pub(super) struct FlightSession {
    /// The session of the engine.
    pub(super) session: Session,
    /// Whose it is.
    pub(super) user: User,
    /// The cursors that it has declared.
    pub(super) cursors: Cursors,
    /// What it has prepared by name.
    pub(super) statements: Statements<()>,
    limits: Limits,
    sessions: Weak<Sessions>,
    state: Mutex<State>,
    /// Its place among the connections of its user, while a connection that has asked in it is open.
    counted: Mutex<Weak<UserConnection>>,
}

struct State {
    used: Instant,
    prepared: HashMap<Handle, Arc<Prepared>>,
    results: HashMap<Handle, Fetch>,
    /// The handles of results that wait, the oldest first.
    waiting: VecDeque<Handle>,
    /// The texts of what is prepared, and of what waits.
    prepared_bytes: usize,
    waiting_bytes: usize,
}

/// A result on its way.
enum Fetch {
    Waiting(Work),
    Running(CancellationToken),
}

/// What one connection has of sessions.
#[derive(Default)]
pub(super) struct ConnectionSessions {
    /// Its own, by the user's name.
    by_user: Mutex<HashMap<String, Arc<FlightSession>>>,
    /// What it has asked in, which count among their users' connections as long as one that has asked in them is open.
    held: Mutex<Vec<(Weak<FlightSession>, Arc<UserConnection>)>>,
}

impl ConnectionSessions {
    /// Something is asked in a session over this connection.
    ///
    /// # Errors
    /// When its user has as many connections as they may.
    pub(super) fn hold(&self, service: &Service, session: &Arc<FlightSession>) -> Result<(), RequestError> {
        let mut held = self.held.lock();
        held.retain(|(_, counted)| counted.is_counted());
        if !held.iter().any(|(of, _)| of.as_ptr() == Arc::as_ptr(session)) {
            held.push((Arc::downgrade(session), session.counted(service)?));
        }
        Ok(())
    }
}

impl Sessions {
    /// A session that others than its token's owner cannot name, and its token.
    ///
    /// # Errors
    /// When there are as many already as there may be, and all of them are at work.
    pub(super) fn open(
        self: &Arc<Self>,
        session: Session,
        user: User,
        limits: Limits,
    ) -> Result<(String, Arc<FlightSession>), RequestError> {
        let token = format!("{TOKEN_PREFIX}{}", name());
        let opened = Arc::new(FlightSession::new(session, user, limits, Arc::downgrade(self)));
        let mut ended = Vec::new();
        let mut registry = self.inner.lock();
        registry.by_token.retain(|_, session| {
            let stays = !session.is_idle();
            if !stays {
                ended.push(Arc::clone(session));
            }
            stays
        });
        if registry.by_token.len() >= limits.connections {
            let idle = registry.by_token.iter().filter_map(|(token, session)| Some((session.idle_since()?, token.clone())));
            let Some((_, token)) = idle.min() else {
                return Err(RequestError::new(
                    codes::TOO_MANY_CONNECTIONS,
                    format!("the server has {} sessions already", limits.connections),
                    "Close some, or try again later.",
                ));
            };
            ended.extend(registry.by_token.remove(&token));
        }
        registry.by_token.insert(token.clone(), Arc::clone(&opened));
        // A session that ends takes its handles out of the registry: not while that is locked.
        drop(registry);
        drop(ended);
        Ok((token, opened))
    }

    /// The session of a token that a handshake gave out.
    pub(super) fn with_token(&self, token: &str) -> Option<Arc<FlightSession>> {
        let session = self.inner.lock().by_token.get(token).cloned()?;
        if session.is_idle() {
            let ended = self.inner.lock().by_token.remove(token);
            drop(ended);
            return None;
        }
        session.touch();
        Some(session)
    }

    /// The session that a connection has for a user; a new one the first time.
    pub(super) fn of_connection(
        self: &Arc<Self>,
        connection: &ConnectionSessions,
        user: User,
        limits: Limits,
        open: impl FnOnce() -> Session,
    ) -> Arc<FlightSession> {
        let mut sessions = connection.by_user.lock();
        match sessions.get(&user.name) {
            // One whose user is gone is not that of another user of the same name.
            Some(session) if session.user == user && session.session.check_user().is_ok() => Arc::clone(session),
            _ => {
                let session = Arc::new(FlightSession::new(open(), user.clone(), limits, Arc::downgrade(self)));
                sessions.insert(user.name, Arc::clone(&session));
                session
            }
        }
    }

    /// The session that a handle is of, if `user` is its user.
    ///
    /// # Errors
    /// When there is no such handle.
    pub(super) fn of_handle(&self, handle: &[u8], user: &User) -> Result<(Handle, Arc<FlightSession>), RequestError> {
        let text = std::str::from_utf8(handle).unwrap_or_default();
        let registry = self.inner.lock();
        let found = registry.by_handle.get_key_value(text).and_then(|(handle, session)| Some((Arc::clone(handle), session.upgrade()?)));
        drop(registry);
        found.filter(|(_, session)| session.user == *user).ok_or_else(no_handle)
    }

    /// Ends a session: its token is worth nothing any more.
    pub(super) fn close(&self, connection: &ConnectionSessions, session: &Arc<FlightSession>) {
        let mut ended = Vec::new();
        self.inner.lock().by_token.retain(|_, other| {
            let stays = !Arc::ptr_eq(other, session);
            if !stays {
                ended.push(Arc::clone(other));
            }
            stays
        });
        connection.by_user.lock().retain(|_, other| !Arc::ptr_eq(other, session));
        session.clear();
    }
}

impl FlightSession {
    fn new(session: Session, user: User, limits: Limits, sessions: Weak<Sessions>) -> Self {
        let state = State {
            used: Instant::now(),
            prepared: HashMap::new(),
            results: HashMap::new(),
            waiting: VecDeque::new(),
            prepared_bytes: 0,
            waiting_bytes: 0,
        };
        Self {
            session,
            user,
            cursors: Cursors::new(limits.prepared),
            statements: Statements::new(limits.prepared),
            limits,
            sessions,
            state: Mutex::new(state),
            counted: Mutex::default(),
        }
    }

    /// Its place among the connections of its user.
    fn counted(&self, service: &Service) -> Result<Arc<UserConnection>, RequestError> {
        let mut counted = self.counted.lock();
        if let Some(counted) = counted.upgrade().filter(|counted| counted.is_counted()) {
            return Ok(counted);
        }
        let new = Arc::new(service.count(&self.user)?);
        *counted = Arc::downgrade(&new);
        Ok(new)
    }

    fn is_idle(&self) -> bool {
        self.idle_since().is_some_and(|since| since.elapsed() > IDLE)
    }

    /// When it was used last; `None` while a result is fetched.
    fn idle_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (!state.results.values().any(|fetch| matches!(fetch, Fetch::Running(_)))).then_some(state.used)
    }

    fn touch(&self) {
        self.state.lock().used = Instant::now();
    }

    fn register(self: &Arc<Self>) -> Handle {
        let handle: Handle = name().into();
        if let Some(sessions) = self.sessions.upgrade() {
            sessions.inner.lock().by_handle.insert(Arc::clone(&handle), Arc::downgrade(self));
        }
        handle
    }

    fn forget(&self, handles: &[Handle]) {
        if let Some(sessions) = self.sessions.upgrade() {
            let mut registry = sessions.inner.lock();
            for handle in handles {
                registry.by_handle.remove(handle);
            }
        }
    }

    /// Keeps a prepared statement.
    ///
    /// # Errors
    /// When the session has as many as it may.
    pub(super) fn keep_prepared(self: &Arc<Self>, prepared: Prepared) -> Result<Handle, RequestError> {
        let handle = self.register();
        let mut state = self.state.lock();
        let bytes = state.prepared_bytes + prepared.bytes();
        if state.prepared.len() >= self.limits.prepared || bytes > self.limits.message_bytes {
            drop(state);
            self.forget(&[handle]);
            let message = "the session has as many prepared statements as it may";
            return Err(RequestError::new(codes::TOO_LARGE, message, "Close those that are not used any more."));
        }
        state.prepared_bytes = bytes;
        state.prepared.insert(Arc::clone(&handle), Arc::new(prepared));
        Ok(handle)
    }

    /// A prepared statement.
    ///
    /// # Errors
    /// When the handle is not that of one.
    pub(super) fn prepared(&self, handle: &str) -> Result<Arc<Prepared>, RequestError> {
        self.state.lock().prepared.get(handle).cloned().ok_or_else(no_handle)
    }

    /// Forgets a prepared statement.
    pub(super) fn close_prepared(&self, handle: &Handle) {
        let mut state = self.state.lock();
        if let Some(prepared) = state.prepared.remove(handle) {
            state.prepared_bytes -= prepared.bytes();
        }
        drop(state);
        self.forget(std::slice::from_ref(handle));
    }

    /// Keeps what is to be carried out when its result is fetched.
    pub(super) fn keep_work(self: &Arc<Self>, work: Work) -> Handle {
        let handle = self.register();
        let mut forgotten = Vec::new();
        let mut state = self.state.lock();
        state.waiting_bytes += work.bytes;
        state.results.insert(Arc::clone(&handle), Fetch::Waiting(work));
        while state.waiting.len() >= WAITING_MAX || (state.waiting_bytes > self.limits.message_bytes && !state.waiting.is_empty()) {
            let Some(oldest) = state.waiting.pop_front() else { break };
            if let Some(Fetch::Waiting(work)) = state.results.remove(&oldest) {
                state.waiting_bytes -= work.bytes;
            }
            forgotten.push(oldest);
        }
        state.waiting.push_back(Arc::clone(&handle));
        drop(state);
        self.forget(&forgotten);
        handle
    }

    /// Takes what a handle of a result stands for, once.
    ///
    /// # Errors
    /// When the handle is not that of a result, or the result was fetched before.
    pub(super) fn begin(self: &Arc<Self>, handle: &Handle) -> Result<(Work, RunningFetch), RequestError> {
        let canceled = CancellationToken::new();
        let mut state = self.state.lock();
        state.used = Instant::now();
        match state.results.remove(handle) {
            Some(Fetch::Waiting(work)) => {
                state.waiting.retain(|other| other != handle);
                state.waiting_bytes -= work.bytes;
                state.results.insert(Arc::clone(handle), Fetch::Running(canceled.clone()));
                drop(state);
                Ok((work, RunningFetch { session: Arc::clone(self), handle: Some(Arc::clone(handle)), canceled }))
            }
            Some(running) => {
                state.results.insert(Arc::clone(handle), running);
                Err(no_handle())
            }
            None => Err(no_handle()),
        }
    }

    /// What runs without a handle of its own.
    pub(super) fn unnamed(self: &Arc<Self>) -> RunningFetch {
        RunningFetch { session: Arc::clone(self), handle: None, canceled: CancellationToken::new() }
    }

    /// Ends what a handle of a result stands for. `false`: it is over.
    pub(super) fn cancel(&self, handle: &Handle) -> bool {
        let mut state = self.state.lock();
        match state.results.get(handle) {
            Some(Fetch::Running(canceled)) => {
                canceled.cancel();
                true
            }
            Some(Fetch::Waiting(work)) => {
                state.waiting_bytes -= work.bytes;
                state.results.remove(handle);
                state.waiting.retain(|other| other != handle);
                drop(state);
                self.forget(std::slice::from_ref(handle));
                true
            }
            None => false,
        }
    }

    /// Forgets everything, and ends what runs.
    fn clear(&self) {
        let mut state = self.state.lock();
        let mut handles: Vec<Handle> = state.prepared.drain().map(|(handle, _)| handle).collect();
        for (handle, fetch) in state.results.drain() {
            if let Fetch::Running(canceled) = fetch {
                canceled.cancel();
            }
            handles.push(handle);
        }
        state.waiting.clear();
        (state.prepared_bytes, state.waiting_bytes) = (0, 0);
        drop(state);
        self.cursors.clear();
        self.statements.clear();
        if let Some(counted) = self.counted.lock().upgrade() {
            counted.release();
        }
        self.forget(&handles);
    }
}

impl Drop for FlightSession {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A result that is being fetched, until it is dropped.
pub(super) struct RunningFetch {
    pub(super) session: Arc<FlightSession>,
    handle: Option<Handle>,
    /// Tells when it is to end.
    pub(super) canceled: CancellationToken,
}

impl Drop for RunningFetch {
    fn drop(&mut self) {
        let mut state = self.session.state.lock();
        state.used = Instant::now();
        if let Some(handle) = self.handle.take() {
            state.results.remove(&handle);
            drop(state);
            self.session.forget(&[handle]);
        }
    }
}

fn name() -> String {
    URL_SAFE_NO_PAD.encode(millstream_engine::access::random::<24>())
}

fn no_handle() -> RequestError {
    RequestError::new(
        codes::NO_STATEMENT,
        "there is nothing of this handle: it was closed, its result was fetched, or its session is over",
        "Prepare the statement, or ask for its result, again.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::Engine;

    fn work(bytes: usize) -> Work {
        Work { statements: VecDeque::new(), schema: Arc::new(arrow::datatypes::Schema::empty()), bytes, done: None }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn handles_are_good_once_and_for_their_user_only() {
        let engine = Engine::builder().manual().build().await.unwrap();
        let sessions = Arc::new(Sessions::default());
        let (ada, bob) = (User::anybody("ada"), User::anybody("bob"));
        let limits = Limits { connections: 1, message_bytes: 100, ..Limits::default() };
        let first = sessions.open(engine.session(), ada.clone(), limits).unwrap().0;
        let token = sessions.open(engine.session(), ada.clone(), limits).unwrap().0;
        assert!(sessions.with_token(&first).is_none(), "the idle one gave way");
        let session = sessions.with_token(&token).unwrap();
        let handle = session.keep_work(work(1));
        assert!(sessions.of_handle(handle.as_bytes(), &bob).is_err());
        assert!(sessions.of_handle(b"\xff", &ada).is_err());
        let (handle, found) = sessions.of_handle(handle.as_bytes(), &ada).unwrap();
        let (_, running) = found.begin(&handle).unwrap();
        assert!(found.begin(&handle).is_err(), "fetched twice");
        assert!(sessions.open(engine.session(), ada.clone(), limits).is_err(), "the only one is at work");
        assert!(found.cancel(&handle) && running.canceled.is_cancelled());
        drop(running);
        assert!(sessions.of_handle(handle.as_bytes(), &ada).is_err());

        let first = session.keep_work(work(60));
        let second = session.keep_work(work(60));
        assert!(session.begin(&first).is_err(), "the oldest is forgotten");
        assert!(session.begin(&second).is_ok());
        session.keep_work(work(1));
        sessions.close(&ConnectionSessions::default(), &session);
        assert!(sessions.with_token(&token).is_none());
        assert!(sessions.inner.lock().by_handle.is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_connection_has_a_session_for_each_user() {
        let engine = Engine::builder().manual().build().await.unwrap();
        let (sessions, connection) = (Arc::new(Sessions::default()), ConnectionSessions::default());
        let of = |name: &str| sessions.of_connection(&connection, User::anybody(name), Limits::default(), || engine.session());
        assert!(Arc::ptr_eq(&of("ada"), &of("ada")) && !Arc::ptr_eq(&of("ada"), &of("bob")));
        of("ada").keep_work(work(1));
        drop(connection);
        assert!(sessions.inner.lock().by_handle.is_empty(), "they end with the connection");
    }
}
