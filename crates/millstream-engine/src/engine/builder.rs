//! How an engine is built: options first, then recovery, then the pipeline's task.

use super::{Engine, Inner};
use crate::access::AccessWatch;
use crate::context::{adopted_tables, base_state, executing};
use crate::dead_letters::DeadLetters;
use crate::error::Result;
use crate::memory::EngineMemory;
use crate::pipeline::log_replay::LoggedEpochs;
use crate::pipeline::published::Published;
use crate::pipeline::{Committed, Durability, EventTimeReplay, Pipeline, PipelineOptions, Shared};
use crate::progress::Progress;
use crate::reach::held;
use crate::readers::Readers;
use crate::session::plan_cache::PlanCache;
use crate::session::prepare::Descriptions;
use crate::settings::{Settings, Trigger};
use crate::statements::given_options::GivenOptions;
use crate::stopwatch::SystemClock;
use datafusion::prelude::SessionContext;
use millstream_plan::functions::EpochClock;
use millstream_plan::process::{StatefulFunction, StatefulFunctions};
use millstream_state::{InstanceInfo, Log, LogOptions, OpenOptions, StateDir};
use millstream_types::{Clock, EventTime, Reach};
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Commands that may wait for the pipeline's task.
const COMMANDS: usize = 256;

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
    stateful_functions: Vec<(String, Arc<dyn StatefulFunction>)>,
    readers: Readers,
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
            stateful_functions: Vec::new(),
            readers: Readers::default(),
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

    /// Holds statements to some directories and hosts; they reach everything that the process does without it.
    #[must_use]
    pub fn reach(mut self, reach: Reach) -> Self {
        self.given.reach = reach;
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

    /// Adopts what is registered with a DataFusion session; see [`Engine::from_session`].
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

    /// Makes a stateful function known to SQL: `FROM PROCESS(name, TABLE t PARTITION BY (key) ..)`. It must be there whenever the engine is
    /// started on a state directory with queries that call it.
    #[must_use]
    pub fn stateful_function(mut self, name: impl Into<String>, function: impl StatefulFunction + 'static) -> Self {
        self.stateful_functions.push((name.into(), Arc::new(function)));
        self
    }

    /// Carries out statements that read on the threads of this runtime, which others rank above or below as they like; without it where
    /// their session runs.
    #[must_use]
    pub fn readers(mut self, runtime: tokio::runtime::Handle) -> Self {
        self.readers = Readers::on(runtime);
        self
    }

    /// Builds the engine; with a state directory, recovers what was committed there.
    ///
    /// # Errors
    /// When an option is illegal, or the state directory is in use, damaged or of a newer format.
    pub async fn build(self) -> Result<Engine> {
        let mut settings = Settings::default();
        for (name, value) in &self.settings {
            settings.give(name, value)?;
        }
        let epoch_clock = EpochClock::new(EventTime::MIN);
        let mut functions = StatefulFunctions::default();
        for (name, function) in self.stateful_functions {
            functions.register(&name, function)?;
        }
        let base = base_state(&epoch_clock, self.adopted.as_ref(), functions.clone())?;
        let base = held(base, &self.given.reach)?;
        let memory = EngineMemory::new(Arc::clone(&base.runtime_env().memory_pool), settings.memory_limit()?);
        let (base, reading) = (memory.charge(base.clone())?, memory.charge_reading(base)?);
        let adopted = match &self.adopted {
            Some(context) => adopted_tables(context).await?,
            None => Vec::new(),
        };
        let durability = match self.state_dir {
            None => None,
            Some(path) => {
                let host = nix::sys::utsname::uname().map(|info| info.nodename().to_string_lossy().into_owned()).unwrap_or_default();
                let instance = InstanceInfo { host, pid: std::process::id(), started: self.clock.now() };
                let dir = StateDir::open(path, OpenOptions { takeover: self.takeover, instance })?;
                let log = Log::open(&dir, LogOptions::default())?;
                Some(Durability {
                    dir,
                    log,
                    checkpoints: VecDeque::new(),
                    last_checkpoint: EventTime::MIN,
                    bytes_since: 0,
                    filling_back: Default::default(),
                    pause: Default::default(),
                })
            }
        };
        let shared = Arc::new(Shared {
            catalog: RwLock::default(),
            published: Published::default(),
            settings: RwLock::new(settings),
            progress: Progress::default(),
            dead_letters: RwLock::new(DeadLetters::new(durability.as_ref().map(|durability| durability.dir.dead_letters()))),
            clock: self.clock,
            base,
            executing: executing(&reading),
            reading,
            plans: PlanCache::default(),
            descriptions: Descriptions::default(),
            memory,
            stateful_functions: functions,
            epoch_clock,
            inserts: Default::default(),
            pushers: RwLock::default(),
            committed: watch::channel(Committed::default()).0,
            brought_users: RwLock::default(),
            access_watch: AccessWatch::default(),
            paused: false.into(),
        });
        let mut pipeline = Pipeline::new(PipelineOptions {
            shared: Arc::clone(&shared),
            durability,
            manual: self.manual,
            given: self.given,
            history: self.history,
            console: self.console,
            adopted,
        });
        pipeline.recover().await?;
        if let Some(logged) = &self.logged {
            pipeline.expect_ranges(logged.ranges()?);
        }
        let (commands, receiver) = mpsc::channel(COMMANDS);
        tokio::spawn(pipeline.run(receiver));
        Ok(Engine { inner: Arc::new(Inner { shared, commands, manual: self.manual, readers: self.readers }) })
    }
}
