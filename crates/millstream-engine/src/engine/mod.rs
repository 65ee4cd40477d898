//! The engine: what a program embeds. Cheap to clone; two engines in one process are independent.

mod builder;
mod memory_source;
mod pipeline_file;

pub use builder::EngineBuilder;
pub use memory_source::{MemorySource, Pushed};
pub use pipeline_file::PipelineFile;

use crate::access::{UserDef, UserOrigin};
use crate::catalog::object::{ObjectKind, StreamShape};
use crate::error::{EngineError, Result};
use crate::notice::Notice;
use crate::pipeline::Shared;
use crate::pipeline::command::{Answer, Command, Stop};
use crate::pipeline::live::LiveRequest;
use crate::pipeline::log_replay::LoggedEpoch;
use crate::pipeline::snapshot::{Snapshot, SnapshotRequest};
use crate::progress::{Progress, RunReport};
use crate::readers::Readers;
use crate::result::StatementResult;
use crate::session::{Session, SessionUser};
use crate::settings::Trigger;
use crate::subscription::Subscription;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use millstream_connectors::sinks::callback::Callback;
use millstream_sql::Statement;
use millstream_sql::statement::QueryStatement;
use millstream_types::{Clock, Epoch};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// An engine: one catalog, one pipeline.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    manual: bool,
    readers: Readers,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("epoch", &self.inner.shared.committed.borrow().epoch).finish_non_exhaustive()
    }
}

impl Engine {
    /// How to build an engine.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// An engine over a DataFusion session: its tables are at-rest tables of the catalog, and its functions, object stores and memory
    /// limit are those of all queries. Tables of the default schema are adopted, as they are registered now; the program registers
    /// them again with every start. A continuous query reads a table once and keeps its content, until `REFRESH TABLE`.
    ///
    /// ```
    /// use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    /// use datafusion::prelude::SessionContext;
    /// use std::sync::Arc;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let context = SessionContext::new();
    /// let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    /// let colours: ArrayRef = Arc::new(StringArray::from(vec!["red", "blue"]));
    /// let rows = RecordBatch::try_from_iter([("id", ids), ("colour", colours)])?;
    /// context.register_batch("colours", rows)?;
    ///
    /// let engine = millstream_engine::Engine::from_session(context).manual().build().await?;
    /// engine.sql("CREATE STREAM sales (id BIGINT)").await?;
    /// engine.sql("CREATE MATERIALIZED VIEW named AS SELECT c.colour, count(*) AS n FROM sales s JOIN colours c USING (id) GROUP BY c.colour").await?;
    /// engine.sql("INSERT INTO sales VALUES (2), (2), (3)").await?;
    /// let rows = engine.sql("SELECT * FROM named").await?.collect().await?;
    /// assert_eq!(arrow::util::pretty::pretty_format_batches(&rows)?.to_string(), "\
    /// +--------+---+
    /// | colour | n |
    /// +--------+---+
    /// | blue   | 2 |
    /// +--------+---+");
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn from_session(context: SessionContext) -> EngineBuilder {
        Self::builder().session_context(context)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Where statements that read are carried out.
    pub fn readers(&self) -> &Readers {
        &self.inner.readers
    }

    /// Asks the pipeline's task something and waits for the answer.
    pub(crate) async fn request<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T> {
        let (answer, receiver) = oneshot::channel();
        if self.inner.commands.send(command(answer)).await.is_ok()
            && let Ok(answer) = receiver.await
        {
            return answer;
        }
        // An answer is dropped when its command fails fatally, which is before the failure is published.
        let mut committed = self.inner.shared.committed.subscribe();
        tokio::select! {
            _ = committed.wait_for(|committed| committed.stopped.is_some()) => {}
            () = self.inner.commands.closed() => {}
        }
        Err(self.stopped())
    }

    fn stopped(&self) -> EngineError {
        self.inner.shared.committed.borrow().stopped_error().unwrap_or(EngineError::Stopped(None))
    }

    pub(crate) async fn ddl(&self, statements: Vec<Statement>) -> Result<Vec<Notice>> {
        let starts = statements.iter().any(|statement| {
            matches!(statement, Statement::CreateMaterializedView(_) | Statement::CreateSink(_) | Statement::InsertInto(_))
        });
        let done = self.request(|answer| Command::Ddl { statements, answer }).await?;
        let notices = done.map_err(|failed| failed.error)?;
        if starts && !self.inner.manual && self.inner.shared.auto_start() {
            self.start().await?;
        }
        Ok(notices)
    }

    /// A session with its own settings.
    pub fn session(&self) -> Session {
        Session::new(self.clone(), SessionUser::Owner)
    }

    /// A session of somebody else, who may do less than the program.
    pub fn session_of(&self, user: SessionUser) -> Session {
        Session::new(self.clone(), user)
    }

    /// Makes users known who are not part of the catalog, in place of those brought before. They have every privilege that their role
    /// can use. Sessions of users who are not among them any more may do nothing from now on.
    pub fn bring_users(&self, users: impl IntoIterator<Item = UserDef>) {
        let users: BTreeMap<String, UserDef> = users.into_iter().map(|user| (user.name.clone(), user)).collect();
        let shared = &self.inner.shared;
        let before = std::mem::replace(&mut *shared.brought_users.write(), users.clone());
        if before != users {
            // Who comes hides the user of that name in the catalog, who is somebody else.
            let others = |name: &&String| before.contains_key(*name) != users.contains_key(*name);
            shared.access_watch.changed(before.keys().chain(users.keys()).filter(others).cloned());
        }
    }

    /// The user with this name, as they are now.
    pub fn user(&self, name: &str) -> Option<(UserDef, UserOrigin)> {
        if let Some(user) = self.inner.shared.brought_users.read().get(name) {
            return Some((user.clone(), UserOrigin::Brought));
        }
        self.inner.shared.catalog.read().access.user(name).map(|user| (user.clone(), UserOrigin::Catalog))
    }

    /// All users, by name.
    pub fn users(&self) -> Vec<(UserDef, UserOrigin)> {
        let brought = self.inner.shared.brought_users.read().clone();
        let catalog = self.inner.shared.catalog.read().clone();
        let own = catalog.access.users().filter(|user| !brought.contains_key(&user.name));
        let mut users: Vec<(UserDef, UserOrigin)> = own.map(|user| (user.clone(), UserOrigin::Catalog)).collect();
        users.extend(brought.into_values().map(|user| (user, UserOrigin::Brought)));
        users.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        users
    }

    /// Whether there are users: who is none of them may do nothing then.
    pub fn has_users(&self) -> bool {
        !self.inner.shared.brought_users.read().is_empty() || self.inner.shared.catalog.read().access.users().next().is_some()
    }

    /// Carries out one statement in a session of its own.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub async fn sql(&self, statement: &str) -> Result<StatementResult> {
        self.session().execute(statement).await
    }

    /// Starts the clock.
    ///
    /// # Errors
    /// When there is no sink and no materialized view.
    pub async fn start(&self) -> Result<()> {
        if let Ok(Trigger::Available | Trigger::Once) = self.inner.shared.settings.read().trigger() {
            return Ok(());
        }
        self.request(|answer| Command::Start { answer }).await
    }

    /// Runs one epoch now, if there is something to do.
    ///
    /// # Errors
    /// When the epoch fails; the pipeline has stopped then.
    pub async fn run_epoch(&self) -> Result<Option<Epoch>> {
        self.request(|answer| Command::RunEpoch { answer }).await
    }

    /// Runs an epoch of another log as it was. `None`: the pipeline's own statements have made it already.
    ///
    /// # Errors
    /// When the epoch fails, or does not follow the one before; the pipeline has stopped then.
    pub async fn run_logged_epoch(&self, logged: LoggedEpoch) -> Result<Option<Epoch>> {
        self.request(|answer| Command::RunLogged { logged: Box::new(logged), answer }).await
    }

    /// Processes everything that is there now, in normal epochs, rolls files and makes a checkpoint.
    ///
    /// # Errors
    /// When an epoch fails; the pipeline has stopped then.
    pub async fn drain(&self) -> Result<()> {
        self.request(|answer| Command::Drain { once: false, answer }).await
    }

    /// As [`Engine::drain`], in one epoch.
    ///
    /// # Errors
    /// When the epoch fails.
    pub async fn drain_once(&self) -> Result<()> {
        self.request(|answer| Command::Drain { once: true, answer }).await
    }

    /// Waits until everything that sources have now is committed.
    ///
    /// # Errors
    /// When an epoch fails.
    pub async fn wait_idle(&self) -> Result<()> {
        self.request(|answer| Command::WaitIdle { answer }).await
    }

    /// Rolls files and makes a checkpoint; gives its epoch.
    ///
    /// # Errors
    /// When state cannot be written.
    pub async fn checkpoint(&self) -> Result<Epoch> {
        self.request(|answer| Command::Checkpoint { answer }).await
    }

    /// Stops.
    ///
    /// # Errors
    /// When what was to be finished failed.
    pub async fn stop(&self, how: Stop) -> Result<()> {
        self.request(|answer| Command::Stop { how, answer }).await
    }

    /// Returns when the pipeline has stopped, or all streams have ended and everything is committed.
    ///
    /// # Errors
    /// The error that stopped the pipeline.
    pub async fn await_termination(&self) -> Result<()> {
        let mut committed = self.inner.shared.committed.subscribe();
        loop {
            if let Some(stopped) = &committed.borrow_and_update().stopped {
                return stopped.clone().map_or(Ok(()), Err);
            }
            if self.inner.shared.progress.ended() {
                return Ok(());
            }
            if committed.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Returns when the pipeline has stopped; its end of input is none.
    ///
    /// # Errors
    /// The error that stopped it.
    pub async fn await_stop(&self) -> Result<()> {
        let mut committed = self.inner.shared.committed.subscribe();
        loop {
            if let Some(stopped) = &committed.borrow_and_update().stopped {
                return stopped.clone().map_or(Ok(()), Err);
            }
            if committed.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Follows the changes of a query, beginning with the rows it has now. It may have an EMIT clause.
    ///
    /// # Errors
    /// When the query cannot be planned.
    pub async fn subscribe(&self, query: &str) -> Result<Subscription> {
        let Statement::Query(QueryStatement { query, emit }) = millstream_sql::parse_statement(query)? else {
            return Err(EngineError::invalid("only queries have changes to follow", "Write SELECT .. with or without an EMIT clause."));
        };
        let request = LiveRequest { progress: true, ..LiveRequest::new(query, emit) };
        self.request(|answer| Command::Subscribe { request, answer }).await
    }

    /// Registers what a sink with `connector = 'callback'` calls after each commit. Before the sink is created.
    ///
    /// # Errors
    /// When the pipeline has stopped.
    pub async fn on_epoch(&self, sink: &str, callback: Callback) -> Result<()> {
        let sink = sink.to_string();
        self.request(|answer| Command::Callback { sink, callback, answer }).await
    }

    /// The progress registry.
    pub fn progress(&self) -> &Progress {
        &self.inner.shared.progress
    }

    /// Everything since the engine was built, with state, CPU and memory figures.
    ///
    /// # Errors
    /// When the pipeline's task is gone.
    pub async fn report(&self) -> Result<RunReport> {
        Ok(self.report_with(&self.figures().await?))
    }

    /// As [`Engine::report`], with figures that are there.
    pub(crate) fn report_with(&self, figures: &Snapshot) -> RunReport {
        let mut report = self.progress().report();
        (report.state_rows, report.state_bytes) = figures.state;
        if let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF) {
            let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            report.cpu_seconds = seconds(usage.user_time()) + seconds(usage.system_time());
            report.peak_memory_bytes = u64::try_from(usage.max_rss()).unwrap_or(0) * 1024;
        }
        report
    }

    /// Figures of streams, sinks, queries and operators after the newest epoch, without the content of relations.
    ///
    /// # Errors
    /// When the pipeline's task is gone.
    pub async fn figures(&self) -> Result<Snapshot> {
        let request = SnapshotRequest { figures: true, ..SnapshotRequest::default() };
        self.request(|answer| Command::Snapshot { request, answer }).await
    }

    /// Whether the pipeline has stopped.
    pub fn has_stopped(&self) -> bool {
        self.inner.shared.committed.borrow().stopped.is_some()
    }

    /// Names, kinds and columns of everything in the catalog, for completion and `\d`.
    pub fn catalog(&self) -> Vec<CatalogEntry> {
        let catalog = self.inner.shared.catalog.read().clone();
        let entry = |object: &Arc<crate::catalog::object::Object>| {
            let schema = match &object.kind {
                ObjectKind::Stream(def) => def.schema(),
                ObjectKind::Table(def) => Arc::clone(&def.schema),
                ObjectKind::ExternalTable(def) => Arc::clone(&def.schema),
                ObjectKind::MaterializedView(def) => Arc::clone(&def.schema),
                ObjectKind::Sink(def) => def.queries.first().map_or_else(|| Arc::new(Schema::empty()), |query| Arc::clone(&query.schema)),
                ObjectKind::View(_) => Arc::new(Schema::empty()),
            };
            let key = match &object.kind {
                ObjectKind::Table(def) => def.key.clone(),
                ObjectKind::Stream(def) => match &def.shape {
                    StreamShape::Upsert { key, .. } => key.clone(),
                    StreamShape::Append | StreamShape::Bag { .. } => Vec::new(),
                },
                _ => Vec::new(),
            };
            CatalogEntry { name: object.name.clone(), kind: object.kind.word(), schema, key, sql: object.sql.clone() }
        };
        catalog.objects().iter().map(entry).collect()
    }

    /// The clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.inner.shared.clock)
    }

    /// A DataFusion session with the same functions, types and checks, for batch queries beside the engine.
    pub fn session_context(&self) -> SessionContext {
        SessionContext::new_with_state(self.inner.shared.reading.clone())
    }

    /// The newest committed epoch.
    pub fn epoch(&self) -> Epoch {
        self.inner.shared.committed.borrow().epoch
    }
}

impl Shared {
    /// Whether the first query starts the clock by itself.
    fn auto_start(&self) -> bool {
        matches!(self.settings.read().trigger(), Ok(Trigger::Interval(_)))
    }
}

/// An object of the catalog.
#[derive(Debug, Clone)]
pub struct CatalogEntry {
    /// Its name.
    pub name: String,
    /// `stream`, `table`, `view`, `materialized view` or `sink`.
    pub kind: &'static str,
    /// Its columns; none for lazy views.
    pub schema: SchemaRef,
    /// The columns of its primary key; none without one.
    pub key: Vec<String>,
    /// The statement that made it.
    pub sql: String,
}
