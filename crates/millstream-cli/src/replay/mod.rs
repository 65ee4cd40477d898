//! `millstream replay`: a pipeline file over history, with a clock that follows event time.
//!
//! Nothing in the SQL changes. Streams are re-pointed with `--set`, for instance from a socket to a directory of Parquet;
//! `--from` and `--to` bound the event times that count. In the order of event time (the default where every stream has a
//! column for it) the history of each stream is sorted once, beside the state directory, and an epoch takes one slice of
//! event time of all of them, so that rows of different streams meet as they met in life; the epoch clock is the end of the
//! slice and nothing is late. In the order of arrival the epoch clock is the largest watermark reached. Either way
//! processing time in a replay does not depend on when it is run. At `--speed 60x` an epoch waits until its event time
//! is due; with `max` it does not. At the end the windows that are still open are closed when the whole history was
//! read, or `--close-windows` says so. A second run on the same state directory goes on where the first one stopped.

mod bounds;
mod clock;

use crate::args::{GlobalArgs, ReplayArgs, ReplayOrder, Speed};
use crate::engine_setup;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::message;
use crate::numbers;
use crate::pipeline_file;
use crate::present::Presenter;
use crate::progress;
use crate::run::{finish, with_progress};
use crate::script::Script;
use crate::settings::Settings;
use crate::telemetry;
use clock::{Pace, ReplayClock};
use millstream_connectors::sources::history::HistoryOptions;
use millstream_engine::{Engine, EngineError, EventTimeReplay, LoggedEpochs};
use millstream_sql::Statement;
use millstream_sql::statement::ColumnKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Runs a replay.
///
/// # Errors
/// A usage error when a stream has no history, a script failure for the file, or the error that stopped the pipeline.
pub(crate) async fn replay(mut args: ReplayArgs, global: &GlobalArgs, settings: &Settings) -> anyhow::Result<u8> {
    if let (Some(_), Some(ReplayOrder::EventTime | ReplayOrder::Arrival)) = (&args.log_of, args.order) {
        return Err(Failure::usage("--log-of goes with --order log only").into());
    }
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from >= to
    {
        return Err(Failure::usage(format!(
            "--from {from} is not before --to {to}\nhint: --to is the first event time that does not count."
        ))
        .into());
    }
    if args.log_of.is_some() {
        return replay_log(args, global, settings).await;
    }
    let mut script = pipeline_file::read(&args.pipeline.file, &args.pipeline.variables, &args.pipeline.set)?;
    let mut presenter = Presenter::new(settings, global.format, global.quiet, false);
    let closes = args.close_windows || args.to.is_none();
    prepare_streams(&script, &mut args, closes)?;
    let order = args.order.unwrap_or_else(|| default_order(&script));
    if order == ReplayOrder::Arrival && (args.from.is_some() || args.to.is_some()) {
        script.text = bounds::bounded_script(&script, args.from, args.to, &mut args.pipeline.set)?;
    }
    let default_dir = pipeline_file::default_state_dir(&args.pipeline.file).with_extension("replay");
    let clock = Arc::new(ReplayClock::new(args.from));
    let spool = Spool::beside(&args, &default_dir);
    let mut builder = pipeline_file::builder(&args.pipeline, settings, Some(default_dir), global.quiet);
    if order == ReplayOrder::EventTime {
        let options = HistoryOptions { directory: spool.directory.clone(), from: args.from, to: args.to, closes };
        builder = builder.event_time_replay(EventTimeReplay { slice: args.slice, options });
        if presenter.talkative {
            message::line(&format!("replaying in the order of event time, {} at a time", numbers::duration(args.slice)));
        }
    }
    let mut interrupts = Interrupts::watch()?;
    let engine = engine_setup::build(builder.manual().clock(Arc::clone(&clock) as Arc<dyn millstream_types::Clock>)).await?;
    telemetry::observe(&engine, None).await;
    let file = pipeline_file::apply(&engine, &script, &presenter).await?;
    let shows_progress = !args.pipeline.no_progress && !global.quiet;
    // Sorted rows are not as many bytes as the files they come from.
    let total_bytes = match order {
        ReplayOrder::EventTime => None,
        ReplayOrder::Arrival | ReplayOrder::Log => progress::input_bytes(&engine.catalog(), &args.pipeline.set),
    };
    let work = drive(&engine, &clock, order, Pace::new(args.speed));
    let outcome = with_progress(&engine, shows_progress, total_bytes, work, &mut interrupts, false).await;
    let finished = finish(&engine, outcome, file, &mut presenter, args.pipeline.report.as_deref(), &mut interrupts).await;
    spool.remove_temporary();
    finished
}

/// Runs the epochs of another state directory again.
async fn replay_log(mut args: ReplayArgs, global: &GlobalArgs, settings: &Settings) -> anyhow::Result<u8> {
    let script = pipeline_file::read(&args.pipeline.file, &args.pipeline.variables, &args.pipeline.set)?;
    let mut presenter = Presenter::new(settings, global.format, global.quiet, false);
    let logged =
        LoggedEpochs::open(args.log_of.take().unwrap_or_default()).map_err(|error| Failure::usage(engine_setup::with_hint(&error)))?;
    if args.pipeline.state_dir.is_none() {
        // It is about looking at what happened; nothing goes on from here.
        args.pipeline.in_memory = true;
    }
    let clock = Arc::new(ReplayClock::new(None));
    let builder = pipeline_file::builder(&args.pipeline, settings, None, global.quiet).log_replay(logged.clone());
    let mut interrupts = Interrupts::watch()?;
    let engine = engine_setup::build(builder.manual().clock(Arc::clone(&clock) as Arc<dyn millstream_types::Clock>)).await?;
    telemetry::observe(&engine, None).await;
    let file = pipeline_file::apply(&engine, &script, &presenter).await?;
    let work = async {
        for epoch in logged.iter()? {
            let epoch = epoch?;
            clock.reached(epoch.clock());
            engine.run_logged_epoch(epoch).await?;
        }
        Ok(())
    };
    let shows_progress = !args.pipeline.no_progress && !global.quiet;
    let outcome = with_progress(&engine, shows_progress, None, work, &mut interrupts, false).await;
    finish(&engine, outcome, file, &mut presenter, args.pipeline.report.as_deref(), &mut interrupts).await
}

/// Where sorted history is kept.
struct Spool {
    directory: PathBuf,
    is_temporary: bool,
}

impl Spool {
    /// Beside the state directory, so that a second run goes on in it; somewhere temporary for a replay that keeps nothing.
    fn beside(args: &ReplayArgs, default_dir: &Path) -> Self {
        if args.pipeline.in_memory {
            let name = format!("millstream-replay-{}", std::process::id());
            return Self { directory: std::env::temp_dir().join(name), is_temporary: true };
        }
        let state = args.pipeline.state_dir.as_deref().unwrap_or(default_dir);
        let mut name = state.file_name().map(ToOwned::to_owned).unwrap_or_default();
        name.push(".history");
        Self { directory: state.with_file_name(name), is_temporary: false }
    }

    /// Removes what nobody reads again. Failing to is no failure of the replay.
    fn remove_temporary(&self) {
        if self.is_temporary {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// Event time where every stream has a column for it that its source reads, and rows do not change earlier ones.
fn default_order(script: &Script) -> ReplayOrder {
    for parsed in millstream_sql::parse_script(&script.text) {
        let Ok(parsed) = parsed else { break };
        let Statement::CreateStream(stream) = parsed.statement else { continue };
        if stream.as_select.is_some() {
            continue;
        }
        let changes = !stream.primary_key.is_empty() || stream.options.iter().any(|(option, _)| option == "op_column");
        let has_column = stream.watermark.as_ref().is_some_and(|watermark| {
            let declared = stream.columns.iter().find(|column| column.name.value.eq_ignore_ascii_case(&watermark.column.value));
            declared.is_none_or(|column| matches!(column.kind, ColumnKind::Physical))
        });
        if changes || !has_column {
            return ReplayOrder::Arrival;
        }
    }
    ReplayOrder::EventTime
}

/// Runs epochs until there is nothing left.
async fn drive(engine: &Engine, clock: &ReplayClock, order: ReplayOrder, mut pace: Pace) -> Result<(), EngineError> {
    while engine.run_epoch().await?.is_some() {
        let Some(progress) = engine.progress().latest() else { continue };
        match order {
            ReplayOrder::EventTime => clock.reached(progress.clock),
            ReplayOrder::Arrival | ReplayOrder::Log => progress.sources.iter().for_each(|source| clock.reached(source.watermark)),
        }
        pace.wait(clock.event_time()).await;
    }
    // What a source finds only when it looks again, then files are rolled and a checkpoint is made.
    engine.drain().await
}

/// Every stream must have a history; files end where they end now, if windows are to be closed.
fn prepare_streams(script: &Script, args: &mut ReplayArgs, closes: bool) -> Result<(), Failure> {
    for parsed in millstream_sql::parse_script(&script.text) {
        let Ok(parsed) = parsed else { break };
        let Statement::CreateStream(stream) = parsed.statement else { continue };
        let name = stream.name.to_string();
        let set = args.pipeline.set.iter().rev();
        let given =
            set.filter(|(object, _, _)| *object == name).find(|(_, option, _)| option == "connector").map(|(_, _, value)| value.clone());
        let written = stream.options.iter().find(|(option, _)| option == "connector").map(|(_, value)| value.clone());
        let connector = given.or(written);
        match connector.as_deref() {
            Some("files" | "filesystem") => {
                let bounded = |(object, option, _): &(String, String, String)| *object == name && option == "bounded";
                if !args.pipeline.set.iter().any(bounded) {
                    args.pipeline.set.push((name, "bounded".into(), closes.to_string()));
                }
            }
            Some("socket" | "stdin" | "memory") | None if stream.as_select.is_none() => {
                return Err(Failure::usage(format!(
                    "stream \"{name}\" has no history to replay: it comes from connector '{}'\n\
                     hint: Point it at files: --set {name}.connector=files --set {name}.path=DIR --set {name}.format=parquet.",
                    connector.as_deref().unwrap_or("memory")
                )));
            }
            _ => {}
        }
        if args.speed != Speed::Max && stream.as_select.is_none() && stream.watermark.is_none() {
            let name = stream.name.to_string();
            return Err(Failure::usage(format!(
                "--speed needs event time, and stream \"{name}\" has no WATERMARK\n\
                 hint: Leave out --speed, or declare the stream's event time."
            )));
        }
    }
    Ok(())
}
