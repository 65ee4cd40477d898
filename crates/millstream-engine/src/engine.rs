//! The engine: what a program embeds. Cheap to clone; two engines in one process are independent.

use crate::catalog::object::ObjectKind;
use crate::context::base_state;
use crate::error::{EngineError, Result};
use crate::notice::Notice;
use crate::pipeline::command::{Answer, Command, Stop};
use crate::pipeline::log_replay::{LoggedEpoch, LoggedEpochs};
use crate::pipeline::snapshot::SnapshotRequest;
use crate::pipeline::{Committed, Durability, EventTimeReplay, Pipeline, PipelineOptions, Shared};
use crate::progress::{Progress, RunReport};
use crate::result::StatementResult;
use crate::session::{ScriptFailure, ScriptPosition, Session, script_failure};
use crate::settings::{Settings, Trigger};
use crate::statements::given_options::GivenOptions;
use crate::stopwatch::SystemClock;
use crate::subscription::Subscription;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use millstream_connectors::sinks::callback::Callback;
use millstream_connectors::source::Push;
use millstream_plan::functions::EpochClock;
use millstream_sql::{Statement, parse_script};
use millstream_state::{InstanceInfo, Log, LogOptions, OpenOptions, StateDir};
use millstream_types::{Clock, Epoch, EventTime, Offset};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Commands that may wait for the pipeline's task.
const COMMANDS: usize = 256;

/// An engine: one catalog, one pipeline.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    manual: bool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("epoch", &self.inner.shared.committed.borrow().epoch).finish_non_exhaustive()
    }
}

/// How to build an [`Engine`].
pub struct EngineBuilder {
    state_dir: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    manual: bool,
    settings: Vec<(String, String)>,
    given: GivenOptions,
    history: Option<EventTimeReplay>,
    logged: Option<LoggedEpochs>,
    takeover: bool,
    adopted: Option<SessionContext>,
    console: Option<Arc<Mutex<dyn std::io::Write + Send>>>,
}

impl std::fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineBuilder").field("state_dir", &self.state_dir).field("manual", &self.manual).finish_non_exhaustive()
    }
}

impl Default for EngineBuilder {
    fn default() -> Self {
        Self {
            state_dir: None,
            clock: Arc::new(SystemClock),
            manual: false,
            settings: Vec::new(),
            given: GivenOptions::default(),
            history: None,
            logged: None,
            takeover: false,
            adopted: None,
            console: None,
        }
    }
}

impl EngineBuilder {
    /// Keeps everything durable under this directory; without it the engine runs in memory.
    #[must_use]
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(path.into());
        self
    }

    /// When epochs start.
    #[must_use]
    pub fn trigger(self, trigger: Trigger) -> Self {
        let text = trigger.to_string();
        self.option("trigger", text)
    }

    /// The clock; the system's unless told.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Epochs run only by [`Engine::run_epoch`].
    #[must_use]
    pub fn manual(mut self) -> Self {
        self.manual = true;
        self
    }

    /// Sets a pipeline option, as `SET name = value` does.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Replaces an option of a stream or sink that a pipeline file defines, for instance its path.
    #[must_use]
    pub fn stream_option(mut self, object: impl Into<String>, option: impl Into<String>, value: impl Into<String>) -> Self {
        self.given.overrides.insert((object.into(), option.into()), value.into());
        self
    }

    /// What `${NAME}` in the options of streams, sinks and tables stands for. Without it no name is known.
    #[must_use]
    pub fn environment(mut self, lookup: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        self.given.environment = Arc::new(lookup);
        self
    }

    /// Hands the history of all streams out in the order of event time, an epoch for each slice that has rows.
    #[must_use]
    pub fn event_time_replay(mut self, replay: EventTimeReplay) -> Self {
        self.history = Some(replay);
        self
    }

    /// Sources count what a log took as taken; its epochs are run by [`Engine::run_logged_epoch`].
    #[must_use]
    pub fn log_replay(mut self, logged: LoggedEpochs) -> Self {
        self.logged = Some(logged);
        self
    }

    /// Takes the state directory from an instance that is live on it.
    #[must_use]
    pub fn takeover(mut self, takeover: bool) -> Self {
        self.takeover = takeover;
        self
    }

    /// Adopts the functions registered with a DataFusion session.
    #[must_use]
    pub fn session_context(mut self, context: SessionContext) -> Self {
        self.adopted = Some(context);
        self
    }

    /// Where console sinks write; standard output unless told.
    #[must_use]
    pub fn console(mut self, console: Arc<Mutex<dyn std::io::Write + Send>>) -> Self {
        self.console = Some(console);
        self
    }

    /// Builds the engine; with a state directory, recovers what was committed there.
    ///
    /// # Errors
    /// When an option is illegal, or the state directory is in use, damaged or of a newer format.
    pub async fn build(self) -> Result<Engine> {
        let mut settings = Settings::default();
        for (name, value) in &self.settings {
            settings.set(name, value)?;
        }
        let epoch_clock = EpochClock::new(EventTime(0));
        let base = base_state(&epoch_clock, self.adopted.as_ref())?;
        let durability = match self.state_dir {
            None => None,
            Some(path) => {
                let host = nix::sys::utsname::uname().map(|info| info.nodename().to_string_lossy().into_owned()).unwrap_or_default();
                let instance = InstanceInfo { host, pid: std::process::id(), started: self.clock.now() };
                let dir = StateDir::open(path, OpenOptions { takeover: self.takeover, instance })?;
                let log = Log::open(&dir, LogOptions::default())?;
                Some(Durability { dir, log, checkpoints: VecDeque::new(), last_checkpoint: EventTime::MIN, bytes_since: 0 })
            }
        };
        let shared = Arc::new(Shared {
            catalog: RwLock::default(),
            settings: RwLock::new(settings),
            progress: Progress::default(),
            dead_letters: RwLock::default(),
            clock: self.clock,
            base,
            epoch_clock,
            pushers: RwLock::default(),
            committed: watch::channel(Committed::default()).0,
            paused: false.into(),
        });
        let mut pipeline = Pipeline::new(PipelineOptions {
            shared: Arc::clone(&shared),
            durability,
            manual: self.manual,
            given: self.given,
            history: self.history,
            console: self.console,
        });
        pipeline.recover().await?;
        if let Some(logged) = &self.logged {
            pipeline.expect_ranges(logged.ranges()?);
        }
        let (commands, receiver) = mpsc::channel(COMMANDS);
        tokio::spawn(pipeline.run(receiver));
        Ok(Engine { inner: Arc::new(Inner { shared, commands, manual: self.manual }) })
    }
}

impl Engine {
    /// How to build an engine.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Asks the pipeline's task something and waits for the answer.
    pub(crate) async fn request<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T> {
        let (answer, receiver) = oneshot::channel();
        self.inner.commands.send(command(answer)).await.map_err(|_| self.stopped())?;
        receiver.await.map_err(|_| self.stopped())?
    }

    fn stopped(&self) -> EngineError {
        match &self.inner.shared.committed.borrow().stopped {
            Some(Some(error)) => EngineError::Stopped(Some(error.to_string())),
            _ => EngineError::Stopped(None),
        }
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
        Session::new(self.clone())
    }

    /// Carries out one statement in a session of its own.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub async fn sql(&self, statement: &str) -> Result<StatementResult> {
        self.session().execute(statement).await
    }

    /// Carries out a pipeline file. Its statements are declarative: what the catalog has already, word for word, is skipped;
    /// what is new is added, all of it in one epoch; what differs is refused. `INSERT ... VALUES` runs once in the life
    /// of a state directory.
    /// SELECT, COPY and SHOW statements are handed back, to be run after the input has been processed.
    ///
    /// # Errors
    /// At the first statement that does not parse or fit; nothing of the file has taken effect then.
    pub async fn apply_pipeline_file(&self, text: &str, name: Option<&str>) -> Result<PipelineFile, ScriptFailure> {
        let mut definitions: Vec<(ScriptPosition, Statement)> = Vec::new();
        let mut inserts: Vec<(u64, ScriptPosition, Statement)> = Vec::new();
        let mut queries = Vec::new();
        for (position, parsed) in parse_script(text).enumerate() {
            let parsed = parsed.map_err(|error| script_failure(text, name, error))?;
            let place = ScriptPosition { name: name.map(str::to_string), line: parsed.first_line, text: parsed.text.to_string() };
            match parsed.statement {
                Statement::InsertInto(insert) if insert.is_values() || !self.targets_sink(&insert, &definitions) => {
                    inserts.push((position as u64, place, Statement::InsertInto(insert)));
                }
                statement @ (Statement::Query(_)
                | Statement::Copy(_)
                | Statement::Show(_)
                | Statement::Describe(_)
                | Statement::Explain(_)
                | Statement::ShowCreate(_)) => queries.push((place, statement)),
                statement => definitions.push((place, statement)),
            }
        }
        let mut notices = Vec::new();
        let new = self.new_definitions(&definitions)?;
        if !new.is_empty() {
            // They take effect together or not at all.
            let statements: Vec<Statement> = new.iter().map(|(_, statement)| statement.clone()).collect();
            let (index, error) = match self.request(|answer| Command::Ddl { statements, answer }).await {
                Ok(Ok(more)) => {
                    notices.extend(more);
                    (0, None)
                }
                Ok(Err(failed)) => (failed.index, Some(failed.error)),
                // The epoch that makes them take effect failed, not one of them.
                Err(error) => (0, Some(error)),
            };
            if let Some(error) = error {
                return Err(ScriptFailure { position: new[index].0.clone(), error });
            }
        }
        for (position, place, statement) in inserts {
            let hash = xxhash_rust::xxh3::xxh3_64(statement.canonical_text().as_bytes());
            if self.inner.shared.catalog.read().applied_inserts.contains(&(position, hash)) {
                continue;
            }
            let Statement::InsertInto(insert) = statement else { continue };
            let result = self.session().insert(insert, Some((position, hash))).await;
            let result = result.map_err(|error| ScriptFailure { position: place, error })?;
            notices.extend(result.notices);
        }
        Ok(PipelineFile { notices, queries, added: new.len() })
    }

    fn targets_sink(&self, insert: &millstream_sql::statement::InsertInto, definitions: &[(ScriptPosition, Statement)]) -> bool {
        let name = crate::catalog::resolve::object_name(&insert.target);
        let defined = definitions.iter().any(
            |(_, statement)| matches!(statement, Statement::CreateSink(sink) if crate::catalog::resolve::object_name(&sink.name) == name),
        );
        let known = self.inner.shared.catalog.read().get(&name).is_some_and(|object| matches!(object.kind, ObjectKind::Sink(_)));
        defined || known
    }

    /// The definitions of a file that the catalog does not have yet.
    fn new_definitions(&self, definitions: &[(ScriptPosition, Statement)]) -> Result<Vec<(ScriptPosition, Statement)>, ScriptFailure> {
        let catalog = self.inner.shared.catalog.read().clone();
        let fail = |position: &ScriptPosition, error| ScriptFailure { position: position.clone(), error };
        let mut new = Vec::new();
        let mut attached: BTreeMap<String, usize> = BTreeMap::new();
        let mut named = std::collections::BTreeSet::new();
        for (position, statement) in definitions {
            let Some(name) = defined_name(statement) else {
                match statement {
                    // An INSERT INTO a sink that is known already is matched by its place among the sink's queries.
                    Statement::InsertInto(insert) => {
                        let sink = crate::catalog::resolve::object_name(&insert.target);
                        let nth = attached.entry(sink.clone()).or_default();
                        *nth += 1;
                        let known = catalog.get(&sink).and_then(|object| match &object.kind {
                            ObjectKind::Sink(def) => {
                                def.queries.iter().filter_map(|query| query.insert_sql.as_ref()).nth(*nth - 1).cloned()
                            }
                            _ => None,
                        });
                        match known {
                            None => new.push((position.clone(), statement.clone())),
                            Some(sql) if same_insert(&sql, statement) => {}
                            Some(sql) => return Err(fail(position, differs(&format!("query {nth} of sink \"{sink}\""), &sql, statement))),
                        }
                    }
                    Statement::Set(set) => {
                        let now = self.inner.shared.settings.read().get(&set.name);
                        if now.as_deref() != Some(set.value.as_str()) {
                            new.push((position.clone(), statement.clone()));
                        }
                    }
                    other => {
                        let message = format!("a pipeline file cannot hold this statement: {other}");
                        let hint = "It describes what should exist; use the shell for single actions.";
                        return Err(fail(position, EngineError::invalid(message, hint)));
                    }
                }
                continue;
            };
            named.insert(name.clone());
            match catalog.get(&name) {
                None => new.push((position.clone(), statement.clone())),
                Some(object) if object.sql == statement.canonical_text() => {}
                Some(object) => return Err(fail(position, differs(&format!("{} \"{name}\"", object.kind.word()), &object.sql, statement))),
            }
        }
        if let Some(object) = catalog.objects().iter().find(|object| !named.contains(&object.name)) {
            let position = definitions.first().map(|(position, _)| position.clone());
            let position = position.unwrap_or(ScriptPosition { name: None, line: 1, text: String::new() });
            let message = format!("the state directory has the {} \"{}\", which the file does not define", object.kind.word(), object.name);
            let hint = "Put its definition back, or use another state directory.";
            return Err(fail(&position, EngineError::invalid(message, hint)));
        }
        Ok(new)
    }

    /// The handle that pushes rows into a memory stream.
    ///
    /// # Errors
    /// When there is no such stream, or another connector feeds it.
    pub fn memory_source(&self, stream: &str) -> Result<MemorySource> {
        let schema = self.memory_schema(stream)?;
        let pusher = self.inner.shared.pushers.read().get(stream).cloned();
        let pusher = pusher.ok_or_else(|| EngineError::invalid(format!("stream \"{stream}\" is not a memory stream"), ""))?;
        Ok(MemorySource { engine: self.clone(), stream: stream.to_string(), schema, pusher })
    }

    /// The columns rows of a memory stream have when they are pushed: declared columns, and the op column if it is none of them.
    pub(crate) fn memory_schema(&self, stream: &str) -> Result<SchemaRef> {
        let catalog = self.inner.shared.catalog.read().clone();
        let def = catalog.stream(stream)?;
        if def.connector != "memory" {
            return Err(EngineError::invalid(
                format!("stream \"{stream}\" is fed by connector '{}', not by pushes", def.connector),
                "Create it WITH (connector = 'memory').",
            ));
        }
        Ok(Arc::new(Schema::new(crate::edge::decode_fields(def))))
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

    /// Follows the changes of a query, beginning with the rows it has now.
    ///
    /// # Errors
    /// When the query cannot be planned.
    pub async fn subscribe(&self, query: &str) -> Result<Subscription> {
        let query = millstream_sql::parse_query(query)?;
        let request =
            crate::pipeline::live::LiveRequest { query, on_close: false, snapshot: true, progress: true, limit: None, up_to: None };
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
        let mut report = self.progress().report();
        let request = SnapshotRequest { figures: true, ..SnapshotRequest::default() };
        let snapshot = self.request(|answer| Command::Snapshot { request, answer }).await?;
        (report.state_rows, report.state_bytes) = snapshot.state;
        if let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF) {
            let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            report.cpu_seconds = seconds(usage.user_time()) + seconds(usage.system_time());
            report.peak_memory_bytes = u64::try_from(usage.max_rss()).unwrap_or(0) * 1024;
        }
        Ok(report)
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
            CatalogEntry { name: object.name.clone(), kind: object.kind.word(), schema, sql: object.sql.clone() }
        };
        catalog.objects().iter().map(entry).collect()
    }

    /// The clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.inner.shared.clock)
    }

    /// A DataFusion session with the same functions, types and checks, for batch queries beside the engine.
    pub fn session_context(&self) -> SessionContext {
        SessionContext::new_with_state(self.inner.shared.base.clone())
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

/// What [`Engine::apply_pipeline_file`] did, and what is left to run.
#[derive(Debug)]
pub struct PipelineFile {
    /// What the statements had to tell.
    pub notices: Vec<Notice>,
    /// SELECT, COPY, SHOW, DESCRIBE and EXPLAIN statements, in order.
    pub queries: Vec<(ScriptPosition, Statement)>,
    /// Number of statements that were new.
    pub added: usize,
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
    /// The statement that made it.
    pub sql: String,
}

/// The entrance of a memory stream.
#[derive(Debug, Clone)]
pub struct MemorySource {
    engine: Engine,
    stream: String,
    schema: SchemaRef,
    pusher: Arc<dyn Push>,
}

impl MemorySource {
    /// The columns of pushed rows.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Queues rows as one epoch's input; waits while the stream's buffer is full.
    ///
    /// # Errors
    /// When the columns differ or the stream has ended.
    pub async fn push(&self, rows: RecordBatch) -> Result<Pushed> {
        let end = self.pusher.push(rows).await.map_err(|error| EngineError::connector(format!("stream \"{}\"", self.stream), error))?;
        Ok(Pushed { engine: self.engine.clone(), stream: self.stream.clone(), end })
    }

    /// As [`MemorySource::push`], and has the rows committed at once, whether or not the clock runs. Where a rate limit holds them
    /// back, waits as long as the clock runs.
    pub(crate) async fn insert(&self, rows: RecordBatch, file_insert: Option<(u64, u64)>) -> Result<()> {
        let pushed = self.push(rows).await?;
        let (stream, end) = (self.stream.clone(), pushed.end);
        match self.engine.request(|answer| Command::Take { stream, end, file_insert, answer }).await? {
            true => pushed.committed().await.map(drop),
            false => Ok(()),
        }
    }

    /// Ends the stream after the queued rows.
    pub fn end(&self) {
        self.pusher.end();
    }
}

/// Rows that were queued.
#[derive(Debug)]
#[must_use = "rows are durable when `committed` returns"]
pub struct Pushed {
    engine: Engine,
    stream: String,
    end: Offset,
}

impl Pushed {
    /// Waits until the rows are committed; gives the newest committed epoch.
    ///
    /// # Errors
    /// When the pipeline stops before.
    pub async fn committed(self) -> Result<Epoch> {
        let mut committed = self.engine.inner.shared.committed.subscribe();
        loop {
            {
                let state = committed.borrow_and_update();
                if state.offsets.get(&self.stream).is_some_and(|offset| *offset >= self.end) {
                    return Ok(state.epoch);
                }
                if let Some(stopped) = &state.stopped {
                    return Err(EngineError::Stopped(stopped.as_ref().map(ToString::to_string)));
                }
            }
            committed.changed().await.map_err(|_| EngineError::Stopped(None))?;
        }
    }
}

/// The name a statement defines.
fn defined_name(statement: &Statement) -> Option<String> {
    let name = match statement {
        Statement::CreateStream(create) => &create.name,
        Statement::CreateTable(create) => &create.name,
        Statement::CreateExternalTable(create) => &create.definition.name,
        Statement::CreateView(create) => &create.name,
        Statement::CreateMaterializedView(create) => &create.name,
        Statement::CreateSink(create) => &create.name,
        _ => return None,
    };
    Some(crate::catalog::resolve::object_name(name))
}

/// Whether a stored INSERT INTO, which carries its query's name, says the same as one of a file, which may not.
fn same_insert(stored: &str, statement: &Statement) -> bool {
    let (Ok(Statement::InsertInto(mut stored)), Statement::InsertInto(given)) = (millstream_sql::parse_statement(stored), statement) else {
        return false;
    };
    if given.query_name.is_none() {
        stored.query_name = None;
    }
    Statement::InsertInto(stored).canonical_text() == statement.canonical_text()
}

fn differs(what: &str, stored: &str, statement: &Statement) -> EngineError {
    EngineError::invalid(
        format!("{what} differs from its definition in the state directory"),
        format!("There it is:\n  {stored}\nThe file says:\n  {statement}\nPut the definition back, or use another state directory."),
    )
}
