//! The pipeline: one task that owns sources, queries, sinks and the log, and runs one epoch after the other.
//!
//! ```text
//!   assemble (sources, edge)  ──►  step queries in order  ──►  stage + prepare sinks  ──►  COMMIT  ──►  publish, deliver, acknowledge
//!        └─ of epoch k+1 runs while epoch k is processed, or, if its rows are at hand,        │     └─ checkpoint when due
//!           while epoch k is synced ◄─────────────────────────────────────────────────────┘
//! ```
//!
//! Everybody else talks to it by [`Command`]s, which are carried out between epochs; so a statement never sees half an epoch.
//! Recovery uses the same functions before the task is started.

pub mod accepted;
pub mod at_rest;
pub mod backfill;
pub mod change_history;
pub mod checkpoint;
pub mod command;
pub mod ddl;
pub mod derived;
pub mod epoch;
pub mod held;
pub mod history;
pub mod live;
pub mod log_replay;
pub mod planning;
pub mod pressure;
pub mod published;
pub mod query;
pub mod record;
pub mod recovery;
mod reload;
pub mod resume;
pub mod retained;
pub mod sink_places;
pub mod sinks;
pub mod snapshot;
pub mod sources;
mod unsynced;

use crate::access::{AccessWatch, UserDef};
use crate::catalog::Catalog;
use crate::catalog::object::{StreamDef, TableDef};
use crate::dead_letters::DeadLetters;
use crate::error::{EngineError, Result};
use crate::guard::guarded;
use crate::inserts::Inserts;
use crate::memory::EngineMemory;
use crate::progress::Progress;
use crate::session::plan_cache::PlanCache;
use crate::session::prepare::Descriptions;
use crate::settings::{Settings, Trigger};
use crate::statements::given_options::GivenOptions;
use crate::stopwatch::Stopwatch;
use arrow::datatypes::SchemaRef;
use command::{Basis, Command, Stop, TableChange};
use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use derived::DerivedPlan;
use live::LiveQuery;
use millstream_connectors::source::Reader;
use millstream_connectors::sources::history::HistoryOptions;
use millstream_dataflow::{Dataflow, SharedArrangements, ViewStore};
use millstream_plan::functions::EpochClock;
use millstream_plan::process::StatefulFunctions;
use millstream_state::{Log, StateDir};
use millstream_types::{Clock, Delta, DeltaBatch, Epoch, EventTime};
use parking_lot::RwLock;
use pressure::{Beginnings, Pressure};
use published::Published;
use query::QueryState;
use record::{CatalogChange, HistoryEntry, StreamTotals};
use retained::RetainedRows;
use sinks::SinkState;
use sources::{Assembled, Sources};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use unsynced::Unsynced;

/// What everybody may look at without asking the pipeline's task.
#[derive(Debug)]
pub struct Shared {
    /// The catalog after the newest committed statement.
    pub catalog: RwLock<Arc<Catalog>>,
    /// Content of relations, for those who read.
    pub published: Published,
    /// Pipeline options in force.
    pub settings: RwLock<Settings>,
    /// The progress registry.
    pub progress: Progress,
    /// Refused rows.
    pub dead_letters: RwLock<DeadLetters>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The session all queries are planned with.
    pub base: SessionState,
    /// The same session for statements that read.
    pub reading: SessionState,
    /// That one without functions: what it takes to carry out what is planned.
    pub executing: SessionState,
    /// Plans of queries that were asked before.
    pub plans: PlanCache,
    /// What statements take and give.
    pub descriptions: Descriptions,
    /// What the memory of all of it is taken from.
    pub memory: EngineMemory,
    /// Functions that PROCESS calls.
    pub stateful_functions: StatefulFunctions,
    /// The clock reading that `now()` gives in continuous queries.
    pub epoch_clock: Arc<EpochClock>,
    /// Inserts that were carried out.
    pub inserts: Arc<Inserts>,
    /// Push handles of memory streams.
    pub pushers: RwLock<BTreeMap<String, Arc<dyn millstream_connectors::source::Push>>>,
    /// Committed offsets of streams: how far pushed rows are durable.
    pub committed: tokio::sync::watch::Sender<Committed>,
    /// Users that the program brings, by name.
    pub brought_users: RwLock<BTreeMap<String, UserDef>>,
    /// Tells when users or privileges have changed.
    pub access_watch: AccessWatch,
    /// `PAUSE PIPELINE`: no new input is taken.
    pub paused: AtomicBool,
}

/// How far the pipeline has committed.
#[derive(Debug, Clone, Default)]
pub struct Committed {
    /// Newest committed epoch.
    pub epoch: Epoch,
    /// Row offset after the newest committed row, by stream with one partition.
    pub offsets: BTreeMap<String, millstream_types::Offset>,
    /// The pipeline has stopped, with the error that stopped it, if any.
    pub stopped: Option<Option<EngineError>>,
}

impl Committed {
    /// The error for whoever waits for more, if the pipeline has stopped.
    pub(crate) fn stopped_error(&self) -> Option<EngineError> {
        self.stopped.as_ref().map(|error| EngineError::Stopped(error.as_ref().map(ToString::to_string)))
    }
}

/// A stream as queries and readers of history see it.
#[derive(Debug, Clone)]
pub struct StreamRuntime {
    /// The definition.
    pub def: Arc<StreamDef>,
    /// Rates of a push source.
    pub pressure: Option<Pressure>,
    /// Reads ranges again; `None` for derived streams.
    pub reader: Option<Arc<dyn Reader>>,
    /// The query of a derived stream.
    pub derived: Option<DerivedPlan>,
    /// The source gives the same rows again.
    pub replayable: bool,
    /// Epochs whose ranges can be read again.
    pub history: Vec<Arc<HistoryEntry>>,
    /// Full segments of it that the newest checkpoint holds.
    pub history_segments_kept: usize,
    /// Rows of a source that cannot replay, newest last.
    pub retained: RetainedRows,
    /// Rows have been dropped from `retained`.
    pub retention_cut: bool,
    /// Watermark after the newest epoch, and whether the stream has ended.
    pub watermark: (EventTime, bool),
    /// The same after the epoch before.
    pub watermark_before: (EventTime, bool),
    /// Row counts since the pipeline began.
    pub totals: StreamTotals,
}

/// A table of inserted rows.
#[derive(Debug)]
pub struct TableState {
    /// The definition.
    pub def: Arc<TableDef>,
    /// Its rows.
    pub rows: ViewStore,
    /// The epoch of its newest change.
    pub changed: Epoch,
}

impl TableState {
    /// Whether what a change was computed from is still so.
    fn is_basis(&self, change: &TableChange) -> Result<bool> {
        match change.based_on {
            Basis::Nothing => Ok(true),
            Basis::Rows => self.rows.holds_retracted(&change.changes).map_err(|error| EngineError::Dataflow(Arc::new(error))),
            Basis::Content(epoch) => Ok(self.changed <= epoch),
        }
    }

    /// Refuses a change after which two rows would have the same key.
    fn refuse_duplicates(&self, changes: &Delta) -> Result<()> {
        let Some((part, row)) = self.rows.duplicate(changes).map_err(|error| EngineError::Dataflow(Arc::new(error)))? else {
            return Ok(());
        };
        let values = self.def.key.iter().map(|column| {
            let index = self.def.schema.index_of(column)?;
            arrow::util::display::array_value_to_string(changes[part].batch.column(index), row)
        });
        let values = values.collect::<Result<Vec<_>, _>>()?;
        Err(repeated_key(&self.def, &values))
    }
}

/// The error of rows that have a key which is there already.
pub(crate) fn repeated_key(def: &TableDef, values: &[String]) -> EngineError {
    EngineError::invalid(
        format!("table \"{}\" already has a row with the key ({}) = ({})", def.name, def.key.join(", "), values.join(", ")),
        "Keys are unique; nothing was changed.",
    )
}

/// A continuous query's or live query's callbacks registered by the embedding program, by sink name.
pub type Callbacks = BTreeMap<String, millstream_connectors::sinks::callback::Callback>;

/// The durable side of a pipeline; absent in memory.
#[derive(Debug)]
pub struct Durability {
    /// The state directory.
    pub dir: StateDir,
    /// The log.
    pub log: Log,
    /// Epoch of the newest checkpoint and of the one before.
    pub checkpoints: VecDeque<Epoch>,
    /// Clock of the newest checkpoint.
    pub last_checkpoint: EventTime,
    /// Input bytes since then.
    pub bytes_since: u64,
    /// What it took to fill back the queries that are not in the newest checkpoint.
    pub filling_back: Duration,
    /// How long none is due by itself.
    pub pause: checkpoint::Pause,
}

/// The pipeline. See the module's documentation.
pub struct Pipeline {
    shared: Arc<Shared>,
    catalog: Catalog,
    settings: Settings,
    given: GivenOptions,
    history: Option<EventTimeReplay>,
    sources: Option<Box<Sources>>,
    streams: BTreeMap<String, StreamRuntime>,
    tables: BTreeMap<String, TableState>,
    queries: Vec<QueryState>,
    /// Rows that joins of several queries keep together.
    arrangements: SharedArrangements,
    sinks: BTreeMap<String, SinkState>,
    live: Vec<LiveQuery>,
    next_live: u64,
    pinned: HashMap<String, Arc<dyn TableProvider>>,
    /// Clock at which the content of an at-rest table was last looked at.
    refreshed: HashMap<String, EventTime>,
    /// Versions of at-rest tables that are being read.
    reading: BTreeMap<String, reload::Reading>,
    durability: Option<Durability>,
    pipeline_id: String,
    epoch: Epoch,
    clock: EventTime,
    prefetch: Option<JoinHandle<(Box<Sources>, Result<Assembled>)>>,
    /// The next epoch, read ahead.
    ready: Option<Result<Assembled>>,
    /// Epochs whose records are not durable yet.
    unsynced: Unsynced,
    /// The next epoch can begin at once and nothing of it is read yet.
    at_hand: bool,
    wake: Arc<Notify>,
    wakers: BTreeMap<String, JoinHandle<()>>,
    running: bool,
    manual: bool,
    backlog: bool,
    next_due: Option<EventTime>,
    /// The clock of the epoch that a statement is about to make: what it fills back sees the clock that the epoch is committed with.
    statement_clock: Option<EventTime>,
    last_start: Stopwatch,
    beginnings: Beginnings,
    all_ended: bool,
    draining: Option<Draining>,
    waiting_idle: Vec<oneshot::Sender<Result<()>>>,
    pending_catalog: Vec<CatalogChange>,
    unacknowledged: Vec<(String, Vec<millstream_types::PartitionRange>)>,
    pinned_blobs: BTreeMap<String, serde_json::Value>,
    named_blobs: at_rest::NamedBlobs,
    recovery: Option<recovery::Recovery>,
    callbacks: Callbacks,
    console: Option<Arc<parking_lot::Mutex<dyn std::io::Write + Send>>>,
}

/// `available` or `once` in progress.
struct Draining {
    once: bool,
    done: Option<oneshot::Sender<Result<()>>>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("epoch", &self.epoch).field("running", &self.running).finish_non_exhaustive()
    }
}

/// How history is handed out in the order of event time.
#[derive(Debug, Clone)]
pub struct EventTimeReplay {
    /// How much event time an epoch takes, of every stream the same.
    pub slice: Duration,
    /// What counts, and where the sorted history is kept.
    pub options: HistoryOptions,
}

/// How a pipeline is set up.
pub struct PipelineOptions {
    /// Everybody's view.
    pub shared: Arc<Shared>,
    /// The durable side.
    pub durability: Option<Durability>,
    /// Epochs run only when asked for.
    pub manual: bool,
    /// Options from outside.
    pub given: GivenOptions,
    /// Streams hand their history out in the order of event time.
    pub history: Option<EventTimeReplay>,
    /// Where console sinks write; standard output if absent.
    pub console: Option<Arc<parking_lot::Mutex<dyn std::io::Write + Send>>>,
    /// Tables of the program that embeds the engine.
    pub adopted: Vec<crate::catalog::object::Object>,
}

impl Pipeline {
    /// A pipeline with nothing but what the program brings.
    pub fn new(options: PipelineOptions) -> Self {
        let settings = options.shared.settings.read().clone();
        let pipeline_id = match &options.durability {
            Some(durability) => durability.dir.id().to_string(),
            None => passing_id(options.shared.clock.now()),
        };
        let arrangements = SharedArrangements::new(Arc::clone(&options.shared.base.runtime_env().memory_pool));
        let mut catalog = Catalog::default();
        options.adopted.into_iter().for_each(|object| catalog.put(object));
        *options.shared.catalog.write() = Arc::new(catalog.clone());
        Self {
            shared: options.shared,
            catalog,
            settings,
            given: options.given,
            history: options.history,
            sources: Some(Box::default()),
            streams: BTreeMap::new(),
            tables: BTreeMap::new(),
            queries: Vec::new(),
            arrangements,
            sinks: BTreeMap::new(),
            live: Vec::new(),
            next_live: 1,
            pinned: HashMap::new(),
            refreshed: HashMap::new(),
            reading: BTreeMap::new(),
            durability: options.durability,
            pipeline_id,
            epoch: Epoch::ZERO,
            clock: EventTime::MIN,
            prefetch: None,
            ready: None,
            unsynced: Unsynced::default(),
            at_hand: false,
            wake: Arc::new(Notify::new()),
            wakers: BTreeMap::new(),
            running: false,
            manual: options.manual,
            backlog: false,
            next_due: None,
            statement_clock: None,
            last_start: Stopwatch::start(),
            beginnings: Beginnings::default(),
            all_ended: false,
            draining: None,
            waiting_idle: Vec::new(),
            pending_catalog: Vec::new(),
            unacknowledged: Vec::new(),
            pinned_blobs: BTreeMap::new(),
            named_blobs: at_rest::NamedBlobs::default(),
            recovery: None,
            callbacks: Callbacks::new(),
            console: options.console,
        }
    }

    /// Runs until it is stopped or fails. The last state is published in [`Shared::committed`].
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        // Whoever waits must learn that nothing goes on any more, whatever the reason.
        let mut outcome = guarded("an epoch or a definition", Box::pin(self.run_loop(&mut commands))).await;
        // A later epoch may have failed: these have not.
        if let Err(error) = self.sync_waiting().await {
            outcome = outcome.and(Err(error));
        }
        for (_, waker) in std::mem::take(&mut self.wakers) {
            waker.abort();
        }
        for (_, reading) in std::mem::take(&mut self.reading) {
            reading.abort();
        }
        if let Err(error) = &outcome {
            // Whoever waits for the pipeline gets the error and shows it; a second copy in the log would look like a second failure.
            tracing::debug!(%error, "pipeline stopped");
            self.shared.progress.failed(error.to_string());
        }
        let error = outcome.err();
        if let Some(draining) = self.draining.take().and_then(|draining| draining.done) {
            let _ = draining.send(error.clone().map_or(Ok(()), Err));
        }
        for waiter in self.waiting_idle.drain(..) {
            let _ = waiter.send(error.clone().map_or(Ok(()), Err));
        }
        self.finish_live();
        let stopped = error.clone();
        // Readers may still look at views after a clean stop or a failure; nothing is processed any more.
        self.shared.committed.send_modify(|committed| committed.stopped = Some(stopped));
        self.release();
        while let Some(command) = commands.recv().await {
            self.answer_stopped(command, error.as_ref()).await;
        }
    }

    async fn run_loop(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<()> {
        loop {
            // Commands first: they are rare, and a backlog must not starve them.
            match commands.try_recv() {
                Ok(command) => {
                    self.sync_waiting().await?;
                    if self.handle(command).await? {
                        return Ok(());
                    }
                    continue;
                }
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    return self.stop(Stop::Now).await;
                }
                Err(mpsc::error::TryRecvError::Empty) => {}
            }
            let due = if self.may_run() { self.time_until_due() } else { None };
            if due == Some(Duration::ZERO) {
                if self.tick().await? {
                    return Ok(());
                }
                continue;
            }
            self.sync_waiting().await?;
            let wake = Arc::clone(&self.wake);
            let may_run = self.may_run();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => if self.handle(command).await? { return Ok(()) },
                    None => return self.stop(Stop::Now).await,
                },
                () = wake.notified(), if may_run => { self.backlog = true; }
                () = sleep_opt(due), if due.is_some() => { self.backlog = true; }
            }
        }
    }

    /// Closes the log and gives the state directory free.
    fn release(&mut self) {
        if let Some(durability) = self.durability.take()
            && let Err(error) = durability.log.close()
        {
            tracing::warn!(%error, "closing the log failed");
        }
    }

    fn may_run(&self) -> bool {
        self.running && !self.manual && !self.shared.paused.load(Ordering::Acquire)
    }

    /// How long until the next epoch should be tried; `None`: not before something happens.
    fn time_until_due(&self) -> Option<Duration> {
        let interval = match self.settings.trigger() {
            Ok(Trigger::Interval(interval)) if self.draining.is_none() => interval,
            _ => Duration::ZERO,
        };
        if self.ready.is_some() || self.prefetch.is_some() || self.at_hand || self.draining.is_some() {
            return Some(Duration::ZERO);
        }
        if self.backlog {
            return Some(interval.saturating_sub(self.last_start.elapsed()));
        }
        let due = [self.next_due, self.instant_due()].into_iter().flatten().min()?;
        let now = self.shared.clock.now();
        let wait = Duration::from_micros(u64::try_from(due.0.saturating_sub(now.0)).unwrap_or(0));
        Some(wait.max(interval.saturating_sub(self.last_start.elapsed())).max(Duration::from_micros(100)))
    }

    /// One attempt at an epoch. `true`: the pipeline is done.
    async fn tick(&mut self) -> Result<bool> {
        self.backlog = false;
        self.at_hand = false;
        self.last_start = Stopwatch::start();
        let ran = self.try_epoch(false).await?;
        // Whoever waits for idleness or for the end is answered by the next attempt that finds nothing.
        let waits = !self.waiting_idle.is_empty() || self.all_ended && !self.shared.progress.ended();
        self.backlog |= ran.is_some() && waits;
        if ran.is_none() {
            self.sync_waiting().await?;
            for waiter in self.waiting_idle.drain(..) {
                let _ = waiter.send(Ok(()));
            }
            if let Some(draining) = self.draining.take() {
                self.finish_drain(draining).await?;
                return Ok(false);
            }
        }
        if self.all_ended && ran.is_none() {
            self.end_live();
        }
        if self.all_ended && self.draining.is_none() && ran.is_none() && !self.shared.progress.ended() {
            // Every stream has ended: what is buffered becomes visible, and await_termination returns.
            self.roll_and_checkpoint().await?;
            self.shared.progress.set_ended();
            self.shared.committed.send_modify(|_| {});
        }
        Ok(false)
    }

    async fn finish_drain(&mut self, draining: Draining) -> Result<()> {
        let finished = self.roll_and_checkpoint().await;
        if let Some(done) = draining.done {
            let _ = done.send(finished.clone());
        }
        finished
    }

    /// Rolls all sinks, commits and makes a checkpoint.
    async fn roll_and_checkpoint(&mut self) -> Result<()> {
        self.settle().await?;
        self.sync_waiting().await?;
        if self.sinks.values().any(SinkState::has_buffered) {
            self.run_epoch_with(epoch::EpochWork { roll: true, ..epoch::EpochWork::default() }).await?;
        }
        self.checkpoint().await
    }

    /// Tries to run an epoch from what sources have, or because a timer is due. `None`: nothing to do.
    async fn try_epoch(&mut self, once: bool) -> Result<Option<Epoch>> {
        // Left by a statement that failed.
        self.statement_clock = None;
        if !self.manual {
            self.read_versions(self.shared.clock.now());
        }
        let begun = self.shared.clock.now();
        let draining = self.draining.as_ref().is_some_and(|draining| !draining.once) || once;
        let unbounded = once || self.draining.as_ref().is_some_and(|draining| draining.once);
        let assembled = match self.take_ready().await? {
            Some(assembled) => assembled,
            None => {
                let request = self.assemble_request(draining || unbounded, unbounded);
                let mut sources = self.sources.take().ok_or_else(|| EngineError::Internal("sources are away".into()))?;
                let assembled = sources.assemble(request).await;
                self.sources = Some(sources);
                assembled?
            }
        };
        self.next_due = self.earliest_due(assembled.next_due);
        self.all_ended = assembled.all_ended;
        self.backlog |= assembled.more;
        self.at_hand = assembled.more && assembled.at_hand;
        let roll_due = self.roll_due();
        let clock = assembled.clock.unwrap_or(self.clock);
        let tables = self.tracked_changes(clock).await?;
        if assembled.is_empty() && tables.is_empty() && !roll_due && !self.clock_due(clock) {
            return Ok(None);
        }
        self.refresh_due(clock).await?;
        let more = assembled.more && !self.manual && !unbounded;
        let mut next = more.then(|| self.next_request(draining, self.clock_of(assembled.clock)));
        // To be woken up by another thread takes longer than to take up what is decoded, so that this waits for the commit.
        if !assembled.at_hand
            && let Some(request) = next.take()
        {
            self.start_prefetch(request);
        }
        let scheduling_delay = self.beginnings.begin(begun, self.interval(), assembled.more);
        let began = Some((begun, scheduling_delay));
        let work = epoch::EpochWork { assembled: Some(assembled), tables, more, next, began, ..epoch::EpochWork::default() };
        self.run_epoch_with(work).await.map(Some)
    }

    fn assemble_request(&self, draining: bool, unbounded: bool) -> sources::AssembleRequest {
        let ahead = u64::from(self.prefetching());
        let clock = self.next_clock();
        sources::AssembleRequest {
            epoch: Epoch(self.epoch.0 + 1 + ahead),
            clock,
            draining,
            unbounded,
            states: self.checkpoint_due(clock),
            slice: self.history.as_ref().map(|history| history.slice),
            until: None,
            interval: self.interval(),
            backpressure: self.settings.backpressure().unwrap_or(false),
        }
    }

    fn prefetching(&self) -> bool {
        self.prefetch.is_some() || self.ready.is_some()
    }

    /// The clock of the next epoch: later than every one before.
    fn next_clock(&self) -> EventTime {
        let now = self.shared.clock.now();
        if self.clock == EventTime::MIN { now } else { now.max(EventTime(self.clock.0 + 1_000)) }
    }

    /// The clock of the epoch that the statement in hand makes.
    fn statement_clock(&self) -> EventTime {
        self.statement_clock.unwrap_or_else(|| self.next_clock())
    }

    /// The clock that the next epoch commits with, given the one it was assembled under.
    fn clock_of(&self, assembled: Option<EventTime>) -> EventTime {
        match assembled {
            Some(clock) if self.clock == EventTime::MIN => clock,
            Some(clock) => clock.max(EventTime(self.clock.0 + 1_000)),
            None => self.statement_clock(),
        }
    }

    /// What the epoch after the one that is about to run with this clock is assembled under.
    fn next_request(&self, draining: bool, running: EventTime) -> sources::AssembleRequest {
        let request = self.assemble_request(draining, false);
        // Rows carry this clock: it must be the one that the epoch is committed with.
        let clock = request.clock.max(EventTime(running.0 + 1_000));
        sources::AssembleRequest { epoch: Epoch(self.epoch.0 + 2), clock, ..request }
    }

    /// Assembles the next epoch on a thread of its own.
    fn start_prefetch(&mut self, request: sources::AssembleRequest) {
        let Some(mut sources) = self.sources.take() else { return };
        let runtime = tokio::runtime::Handle::current();
        // Not a task beside this one: it would wait on this very thread for the epoch that runs now.
        self.prefetch = Some(tokio::task::spawn_blocking(move || {
            let assembled = runtime.block_on(sources.assemble(request));
            (sources, assembled)
        }));
    }

    /// Waits for a prefetch, so that the sources are here and no assembled epoch is unknown.
    async fn join_prefetch(&mut self) -> Result<()> {
        if self.prefetch.as_ref().is_some_and(|prefetch| !prefetch.is_finished()) {
            self.sync_waiting().await?;
        }
        if let Some(prefetch) = self.prefetch.take() {
            let (sources, assembled) = prefetch.await.map_err(|error| EngineError::Internal(format!("reading ahead failed: {error}")))?;
            self.sources = Some(sources);
            self.ready = Some(assembled);
        }
        Ok(())
    }

    async fn take_ready(&mut self) -> Result<Option<Assembled>> {
        self.join_prefetch().await?;
        let Some(assembled) = self.ready.take().transpose()? else { return Ok(None) };
        if assembled.is_empty() {
            self.backlog |= assembled.more;
            return Ok(None);
        }
        // Whoever runs an epoch of its own settles what was read ahead first, so that rows carry the number they are committed under.
        if assembled.epoch != self.epoch.next() {
            return Err(EngineError::Internal(format!("rows of epoch {} were read ahead of epoch {}", assembled.epoch, self.epoch.next())));
        }
        Ok(Some(assembled))
    }

    /// Processes what was read ahead, so that positions are exact and statements see a settled state.
    async fn settle(&mut self) -> Result<()> {
        self.join_prefetch().await?;
        if let Some(assembled) = self.take_ready().await? {
            self.backlog |= assembled.more;
            self.run_epoch_with(epoch::EpochWork { assembled: Some(assembled), ..epoch::EpochWork::default() }).await?;
        }
        Ok(())
    }

    /// A query that depends on the clock alone is due, or one that holds changes.
    fn clock_due(&self, clock: EventTime) -> bool {
        if [self.release_due(), self.instant_due()].into_iter().flatten().any(|due| due <= clock) {
            return true;
        }
        if !self.queries.iter().any(|query| query.clock_dependent && query.failed.is_none())
            && !self.live.iter().any(LiveQuery::clock_dependent)
        {
            return false;
        }
        let resolution = self.settings.clock_resolution().unwrap_or(Duration::from_secs(1));
        self.clock == EventTime::MIN || self.clock.plus(resolution) <= clock
    }

    /// When a query that knows the next instant at which its result changes is to be brought up to date; not more often than those that
    /// depend on the clock otherwise.
    fn instant_due(&self) -> Option<EventTime> {
        let queries = self.queries.iter().filter(|query| query.failed.is_none()).map(|query| &query.dataflow);
        let next = queries.chain(self.live.iter().map(LiveQuery::dataflow)).filter_map(Dataflow::next_due).min()?;
        let resolution = self.settings.clock_resolution().unwrap_or(Duration::from_secs(1));
        Some(if self.clock == EventTime::MIN { next } else { next.max(self.clock.plus(resolution)) })
    }

    /// When changes held by EMIT PERIODIC are to be handed out next.
    fn release_due(&self) -> Option<EventTime> {
        let running = self.queries.iter().filter(|query| query.failed.is_none());
        let views = running.filter_map(|query| query.held.due(query.def.period?));
        views.chain(self.live.iter().filter_map(LiveQuery::release_due)).min()
    }

    fn roll_due(&self) -> bool {
        let now = self.shared.clock.now();
        self.sinks.values().filter_map(SinkState::next_roll).any(|due| due <= now)
    }

    fn earliest_due(&self, source: Option<EventTime>) -> Option<EventTime> {
        let roll = self.sinks.values().filter_map(SinkState::next_roll).min();
        let clock = self.queries.iter().any(|query| query.clock_dependent && query.failed.is_none())
            || self.live.iter().any(LiveQuery::clock_dependent);
        let resolution = self.settings.clock_resolution().unwrap_or(Duration::from_secs(1));
        let clock = clock.then(|| self.shared.clock.now().max(self.clock).plus(resolution));
        let idle = self
            .streams
            .values()
            .filter(|stream| !stream.watermark.1)
            .filter_map(|stream| stream.def.options.idle_timeout)
            .min()
            .map(|timeout| self.shared.clock.now().plus(timeout));
        let track = self.track_due().map(|due| due.max(self.shared.clock.now()));
        let reading = self.reading_due().map(|due| due.max(self.shared.clock.now()));
        [source, roll, clock, idle, track, reading, self.release_due()].into_iter().flatten().min()
    }

    /// Publishes the catalog and settings to everybody.
    fn publish_catalog(&self) {
        let catalog = Arc::new(self.catalog.clone());
        let before = std::mem::replace(&mut *self.shared.catalog.write(), Arc::clone(&catalog));
        if !Arc::ptr_eq(&before.access, &catalog.access) {
            let gone = before.access.users().filter(|user| catalog.access.user(&user.name).is_none());
            self.shared.access_watch.changed(gone.map(|user| user.name.clone()));
        }
        *self.shared.settings.write() = self.settings.clone();
        if let Ok(limit) = self.settings.memory_limit() {
            self.shared.memory.set_limit(limit);
        }
    }

    /// An empty store of rows whose memory is taken from the engine's pool.
    fn store(&self, name: &str, schema: &SchemaRef, append_only: bool) -> Result<ViewStore> {
        self.keyed_store(name, schema, append_only, None)
    }

    fn keyed_store(&self, name: &str, schema: &SchemaRef, append_only: bool, key: Option<Vec<usize>>) -> Result<ViewStore> {
        let pool = Arc::clone(&self.shared.base.runtime_env().memory_pool);
        Ok(ViewStore::new(name, Arc::clone(schema), append_only, key)?.charged_to(&pool))
    }

    /// An empty store of the rows of a table, found by its key if it has one.
    fn table_store(&self, def: &TableDef) -> Result<ViewStore> {
        let key = def.key.iter().map(|column| def.schema.index_of(column)).collect::<Result<Vec<usize>, _>>()?;
        self.keyed_store(&def.name, &def.schema, false, Some(key))
    }

    /// Every pipeline row a table's name stands for, as a delta of insertions.
    fn snapshot_delta(&mut self, name: &str) -> Result<Option<Delta>> {
        if let Some(table) = self.tables.get_mut(name) {
            return Ok(Some(table.rows.snapshot()?.iter().cloned().map(DeltaBatch::insertions).collect()));
        }
        for query in &mut self.queries {
            if query.def.name == name
                && let query::Target::View(store) = &mut query.target
            {
                return Ok(Some(store.snapshot()?.iter().cloned().map(DeltaBatch::insertions).collect()));
            }
        }
        Ok(None)
    }
}

/// What a pipeline in memory is called in the files of its sinks: nothing of it is found again, so every one is another one.
fn passing_id(now: EventTime) -> String {
    static PIPELINES: AtomicU64 = AtomicU64::new(0);
    let seed = format!("{now} {} {}", std::process::id(), PIPELINES.fetch_add(1, Ordering::Relaxed));
    format!("{:08x}", xxhash_rust::xxh3::xxh3_64(seed.as_bytes()) as u32)
}

async fn sleep_opt(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
