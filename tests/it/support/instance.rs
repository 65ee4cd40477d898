//! One engine under test: in memory or on a state directory, with epochs run by hand and a clock that stands still.

use super::output;
use arrow::array::RecordBatch;
use futures::FutureExt;
use millstream::{Change, Engine, EngineError, Epoch, EventTime, ManualClock, Session, SessionUser, Stop, Subscription};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// 2000-01-01T00:00:00Z, where the clock of every test starts.
pub(crate) const START: EventTime = EventTime(946_684_800_000_000);

/// A step that takes longer hangs.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// An engine and what outlives it: its clock and its state directory.
pub(crate) struct Instance {
    clock: Arc<ManualClock>,
    state_dir: Option<PathBuf>,
    engine: Engine,
    session: Session,
    user: SessionUser,
    console: Arc<Mutex<Vec<u8>>>,
    subscriptions: BTreeMap<String, Watched>,
}

/// A subscription, and the changes it brought that nobody has asked for yet.
struct Watched {
    query: String,
    subscription: Subscription,
    /// The snapshot at the start is not a change; after a restart it repeats what was seen.
    in_snapshot: bool,
    pending: Vec<String>,
}

impl Instance {
    /// Starts an engine; in memory without a state directory.
    pub(crate) async fn start(state_dir: Option<&Path>) -> Result<Self, EngineError> {
        let clock = Arc::new(ManualClock::new(START));
        let console = Arc::default();
        let engine = build(&clock, &console, state_dir).await?;
        let session = engine.session();
        Ok(Self {
            clock,
            state_dir: state_dir.map(Path::to_path_buf),
            engine,
            session,
            user: SessionUser::Owner,
            console,
            subscriptions: BTreeMap::new(),
        })
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The session that statements run in.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// What follows is run by this user; by the program itself without a name.
    pub(crate) fn become_user(&mut self, name: &str) {
        self.user = if name.is_empty() { SessionUser::Owner } else { SessionUser::Named(name.into()) };
        self.session = self.engine.session_of(self.user.clone());
    }

    /// Moves the clock.
    pub(crate) fn advance(&self, step: Duration) {
        self.clock.advance(step);
    }

    /// Runs one statement and collects its rows.
    pub(crate) async fn rows(&self, sql: &str) -> Result<Vec<RecordBatch>, EngineError> {
        within(async { self.session.execute(sql).await?.collect().await }).await
    }

    /// Runs one query and writes its rows down.
    pub(crate) async fn lines(&self, sql: &str) -> Result<Vec<String>, EngineError> {
        let batches = self.rows(sql).await?;
        Ok(output::rows(&batches).expect("every SQL type has a text form"))
    }

    /// Pushes one batch to a memory stream.
    pub(crate) async fn push(&self, stream: &str, batch: RecordBatch) -> Result<(), EngineError> {
        let source = self.engine.memory_source(stream)?;
        within(source.push(batch)).await.map(drop)
    }

    /// Assembles and commits one epoch.
    pub(crate) async fn epoch(&mut self) -> Result<Option<Epoch>, EngineError> {
        let epoch = within(self.engine.run_epoch()).await?;
        if epoch.is_some() {
            self.collect_changes().await?;
        }
        Ok(epoch)
    }

    /// Processes what is there.
    pub(crate) async fn drain(&mut self) -> Result<(), EngineError> {
        within(self.engine.drain()).await?;
        self.collect_changes().await
    }

    /// Opens a subscription whose changes [`Instance::changes`] hands out.
    pub(crate) async fn subscribe(&mut self, name: &str, query: &str) -> Result<(), EngineError> {
        let subscription = within(self.engine.subscribe(query)).await?;
        let mut watched = Watched { query: query.to_string(), subscription, in_snapshot: true, pending: Vec::new() };
        watched.collect().await?;
        self.subscriptions.insert(name.to_string(), watched);
        Ok(())
    }

    /// The changes since the last call: `+I|...` and `-D|...`, in order of epoch, sorted within one.
    pub(crate) async fn changes(&mut self, name: &str) -> Result<Option<Vec<String>>, EngineError> {
        // Statements commit epochs of their own.
        self.collect_changes().await?;
        Ok(self.subscriptions.get_mut(name).map(|watched| std::mem::take(&mut watched.pending)))
    }

    /// What console sinks printed since the last call.
    pub(crate) fn console(&self) -> Vec<String> {
        String::from_utf8_lossy(&std::mem::take(&mut *self.console.lock())).lines().map(str::to_string).collect()
    }

    async fn collect_changes(&mut self) -> Result<(), EngineError> {
        for watched in self.subscriptions.values_mut() {
            watched.collect().await?;
        }
        Ok(())
    }

    /// Stops the engine in an orderly way.
    pub(crate) async fn stop(&self) -> Result<(), EngineError> {
        within(self.engine.stop(Stop::Finish)).await?;
        within(self.engine.stop(Stop::Finish)).await
    }

    /// Stops the engine and starts it again on the same state directory.
    pub(crate) async fn restart(&mut self) -> Result<(), EngineError> {
        self.stop().await?;
        self.reopen().await
    }

    /// Drops the engine without a word to it, and starts another on the same state directory.
    pub(crate) async fn crash(&mut self) -> Result<(), EngineError> {
        within(self.engine.stop(Stop::Now)).await?;
        within(self.engine.stop(Stop::Now)).await?;
        self.reopen().await
    }

    async fn reopen(&mut self) -> Result<(), EngineError> {
        let state_dir = self.state_dir.as_deref().expect("only a durable engine can be started again");
        self.engine = within(build(&self.clock, &self.console, Some(state_dir))).await?;
        self.session = self.engine.session_of(self.user.clone());
        for watched in self.subscriptions.values_mut() {
            watched.subscription = within(self.engine.subscribe(&watched.query)).await?;
            watched.in_snapshot = true;
            watched.collect().await?;
        }
        Ok(())
    }
}

impl Watched {
    /// Takes what the subscription has to say up to now.
    async fn collect(&mut self) -> Result<(), EngineError> {
        // Everything of a committed epoch is queued when `run_epoch` returns.
        while let Some(Some(change)) = self.subscription.next().now_or_never() {
            let change = change?;
            if change.snapshot || (change.progress && self.in_snapshot) {
                self.in_snapshot = !change.progress;
                continue;
            }
            self.pending.extend(change_lines(&change));
        }
        Ok(())
    }
}

/// The rows of a change, repeated by their weights, retractions first.
fn change_lines(change: &Change) -> Vec<String> {
    let rows = output::rows(std::slice::from_ref(&change.batch)).expect("every SQL type has a text form");
    let mut lines = Vec::new();
    for (index, row) in rows.into_iter().enumerate() {
        let weight = change.weights.value(index);
        let op = if weight > 0 { "+I" } else { "-D" };
        lines.extend(std::iter::repeat_n((weight > 0, format!("{op}|{row}")), weight.unsigned_abs() as usize));
    }
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

async fn build(clock: &Arc<ManualClock>, console: &Arc<Mutex<Vec<u8>>>, state_dir: Option<&Path>) -> Result<Engine, EngineError> {
    let clock = Arc::clone(clock) as Arc<dyn millstream::Clock>;
    let mut builder = Engine::builder().clock(clock).manual().console(Arc::clone(console) as Arc<Mutex<dyn std::io::Write + Send>>);
    builder = super::stateful::register(builder).environment(|name| (name == "TEST_FOLDER").then(|| "in".to_string()));
    if let Some(dir) = state_dir {
        builder = builder.state_dir(dir);
    }
    builder.build().await
}

/// Panics where a step hangs: the test would otherwise say nothing at all.
pub(crate) async fn within<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(STEP_LIMIT, step).await.expect("a step of the test hangs")
}
