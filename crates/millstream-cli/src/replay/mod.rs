//! `millstream replay`: a pipeline file over history, with a clock that follows event time.
//!
//! Nothing in the SQL changes. Streams are re-pointed with `--set`, for instance from a socket to a directory of Parquet;
//! `--from` and `--to` bound the event times that count. The epoch clock is the largest watermark reached, so that
//! processing time in a replay does not depend on when it is run. At `--speed 60x` an epoch waits until its event time
//! is due; with `max` it does not. At the end the windows that are still open are closed when the whole history was
//! read, or `--close-windows` says so. A second run on the same state directory goes on where the first one stopped.

mod bounds;
mod clock;

use crate::args::{GlobalArgs, ReplayArgs, Speed};
use crate::engine_setup;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::pipeline_file;
use crate::present::Presenter;
use crate::progress;
use crate::run::{finish, with_progress};
use crate::script::Script;
use crate::settings::Settings;
use clock::{Pace, ReplayClock};
use millstream_engine::{Engine, EngineError};
use millstream_sql::Statement;
use std::sync::Arc;

/// Runs a replay.
///
/// # Errors
/// A usage error when a stream has no history, a script failure for the file, or the error that stopped the pipeline.
pub(crate) async fn replay(mut args: ReplayArgs, global: &GlobalArgs, settings: &Settings) -> anyhow::Result<u8> {
    let mut script = pipeline_file::read(&args.pipeline.file, &args.pipeline.variables, &args.pipeline.set)?;
    let mut presenter = Presenter::new(settings, global.format, global.quiet, false);
    let closes = args.close_windows || args.to.is_none();
    prepare_streams(&script, &mut args, closes)?;
    if args.from.is_some() || args.to.is_some() {
        script.text = bounds::bounded_script(&script, args.from, args.to, &mut args.pipeline.set)?;
    }
    let default_dir = pipeline_file::default_state_dir(&args.pipeline.file).with_extension("replay");
    let clock = Arc::new(ReplayClock::new(args.from));
    let builder = pipeline_file::builder(&args.pipeline, settings, Some(default_dir), global.quiet);
    let mut interrupts = Interrupts::watch()?;
    let engine = engine_setup::build(builder.manual().clock(Arc::clone(&clock) as Arc<dyn millstream_types::Clock>)).await?;
    let file = pipeline_file::apply(&engine, &script, &presenter).await?;
    let shows_progress = !args.pipeline.no_progress && !global.quiet;
    let total_bytes = progress::input_bytes(&engine.catalog(), &args.pipeline.set);
    let work = drive(&engine, &clock, Pace::new(args.speed));
    let outcome = with_progress(&engine, shows_progress, total_bytes, work, &mut interrupts).await;
    finish(&engine, outcome, file, &mut presenter, args.pipeline.report.as_deref(), &mut interrupts).await
}

/// Runs epochs until there is nothing left.
async fn drive(engine: &Engine, clock: &ReplayClock, mut pace: Pace) -> Result<(), EngineError> {
    while engine.run_epoch().await?.is_some() {
        let Some(progress) = engine.progress().latest() else { continue };
        for source in &progress.sources {
            clock.reached(source.watermark);
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
