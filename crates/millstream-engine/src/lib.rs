//! The Millstream engine: catalog, pipeline, epochs, recovery, sessions.
//!
//! [`Engine`] is the entrance. It owns one pipeline: a task that assembles epochs from sources, steps continuous queries, stages
//! sinks, commits, and publishes (see [`pipeline`]). Statements come through a [`Session`]; batch queries run on
//! DataFusion over a consistent snapshot, continuous ones are planned by `millstream-plan` and run by `millstream-dataflow`.
//!
//! The crate knows neither wire protocols nor terminals.

pub mod access;
pub mod catalog;
pub mod change_log;
mod change_queue;
pub mod context;
pub mod dead_letters;
pub mod edge;
pub mod engine;
pub mod error;
mod file_relation;
mod guard;
pub mod inserts;
pub mod memory;
pub mod metrics;
pub mod notice;
pub mod pipeline;
pub mod progress;
mod reach;
mod readers;
pub mod result;
pub mod session;
pub mod settings;
mod spans;
pub mod sql_types;
pub mod statements;
mod stopwatch;
mod stream_scan;
pub mod subscription;
pub mod system_tables;

pub use engine::{CatalogEntry, Engine, EngineBuilder, MemorySource, PipelineFile, Pushed};
pub use error::EngineError;
pub use millstream_plan::process;
pub use notice::{LateNotices, Notice, Severity};
pub use pipeline::EventTimeReplay;
pub use pipeline::command::Stop;
pub use pipeline::log_replay::{LoggedEpoch, LoggedEpochs};
pub use pipeline::sink_places::SinkPlaces;
pub use progress::{EpochProgress, PhaseTimes, Progress, RunReport};
pub use readers::Readers;
pub use result::{Output, Rows, StatementResult};
pub use session::{BoundValue, Described, ScriptFailure, ScriptPosition, Session, SessionUser};
pub use settings::{SettingInfo, Trigger};
pub use stopwatch::{Stopwatch, SystemClock};
pub use subscription::{Change, Subscription};
