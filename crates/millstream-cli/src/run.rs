//! `millstream run`: a pipeline file until its streams end, it is stopped or it fails.
//!
//! The first SIGINT or SIGTERM finishes the running epoch, writes what is buffered, makes a checkpoint and ends: with 0 a service, for
//! which
//! that is a clean stop, with 130 or 143 work that has an end and has not reached it. A second one ends the process at once; the next start
//! recovers.

use crate::args::{GlobalArgs, RunArgs};
use crate::engine_setup;
use crate::failure::{DONE, Failure, is_closed_pipe};
use crate::interrupt::{Interrupt, Interrupts};
use crate::message;
use crate::numbers;
use crate::pipeline_file;
use crate::present::Presenter;
use crate::progress;
use crate::script;
use crate::settings::Settings;
use crate::telemetry;
use millstream_engine::{Engine, EngineError, PipelineFile, Stop, Trigger};
use millstream_sql::Statement;
use std::future::Future;
use std::time::Duration;

/// Runs a pipeline file.
///
/// # Errors
/// A script failure for the file, or the error that stopped the pipeline.
pub(crate) async fn run(args: RunArgs, global: &GlobalArgs, settings: &Settings) -> anyhow::Result<u8> {
    let script = pipeline_file::read(&args.pipeline.file, &args.pipeline.variables, &args.pipeline.set)?;
    let mut presenter = Presenter::new(settings, global.format, global.quiet, false);
    let default_dir = Some(pipeline_file::default_state_dir(&args.pipeline.file));
    let mut builder = pipeline_file::builder(&args.pipeline, settings, default_dir, global.quiet);
    if let Some(trigger) = &args.trigger {
        builder = builder.option("trigger", trigger);
    }
    let mut interrupts = Interrupts::watch()?;
    let engine = engine_setup::build(builder).await?;
    let file = pipeline_file::apply(&engine, &script, &presenter).await?;
    telemetry::observe(&engine, None).await;
    let trigger = script::trigger(&engine).unwrap_or_default();
    let drains = matches!(trigger, Trigger::Available | Trigger::Once);
    if !drains {
        refuse_queries_that_never_run(&engine, &file)?;
    }
    let shows_progress = args.pipeline.progress || drains && !args.pipeline.no_progress && !global.quiet;
    let total_bytes = if drains { progress::input_bytes(&engine.catalog(), &args.pipeline.set) } else { None };
    let work = drive(&engine, trigger);
    let outcome = with_progress(&engine, shows_progress, total_bytes, work, &mut interrupts, !drains).await;
    finish(&engine, outcome, file, &mut presenter, args.pipeline.report.as_deref(), &mut interrupts).await
}

/// How the work ended.
pub(crate) enum Outcome {
    /// The input is processed, or the streams have ended.
    Done,
    /// Someone stopped the pipeline with a statement.
    Stopped,
    /// A signal came, before the work that has an end was done.
    Interrupted(Interrupt),
    /// A signal came to a service, which has no other end.
    Ended,
    /// The pipeline failed.
    Failed(EngineError),
}

/// Runs the pipeline as its trigger says.
async fn drive(engine: &Engine, trigger: Trigger) -> Result<(), EngineError> {
    match trigger {
        Trigger::Available => engine.drain().await,
        Trigger::Once => engine.drain_once().await,
        Trigger::Interval(_) => {
            engine.start().await?;
            engine.await_termination().await
        }
    }
}

/// Waits for the work or a signal, with progress on standard error.
pub(crate) async fn with_progress(
    engine: &Engine,
    shows_progress: bool,
    total_bytes: Option<u64>,
    work: impl Future<Output = Result<(), EngineError>>,
    interrupts: &mut Interrupts,
    is_service: bool,
) -> Outcome {
    let follow = async {
        if shows_progress {
            progress::follow(engine, total_bytes).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = work => match done {
            Ok(()) => Outcome::Done,
            Err(EngineError::Stopped(None)) => Outcome::Stopped,
            Err(error) => Outcome::Failed(error),
        },
        interrupt = interrupts.next() => if is_service { Outcome::Ended } else { Outcome::Interrupted(interrupt) },
        () = follow => Outcome::Done,
    }
}

/// What comes after the work: the file's queries, a clean stop, the report, also when a query fails.
///
/// # Errors
/// The error that stopped the pipeline, or that of a query.
pub(crate) async fn finish(
    engine: &Engine,
    outcome: Outcome,
    file: PipelineFile,
    presenter: &mut Presenter,
    report: Option<&std::path::Path>,
    interrupts: &mut Interrupts,
) -> anyhow::Result<u8> {
    let code = if let Outcome::Interrupted(interrupt) = &outcome { interrupt.code() } else { DONE };
    let ended = async {
        let done = match outcome {
            Outcome::Failed(error) => Err(Failure::failed(engine_setup::with_hint(&error)).into()),
            outcome => {
                let queries = match outcome {
                    Outcome::Done => pipeline_file::run_queries(engine, file, presenter).await,
                    Outcome::Interrupted(_) | Outcome::Ended if presenter.talkative => {
                        message::line("stopping: the running epoch is finished (again: at once)");
                        Ok(())
                    }
                    _ => Ok(()),
                };
                // A query that fails is no reason to leave the pipeline as it is.
                let stopped = script::stop(engine).await;
                queries.and(stopped)
            }
        };
        if let Some(path) = report {
            let failed = done.as_ref().err().filter(|error| !is_closed_pipe(error));
            let written = pipeline_file::write_report(engine, path, failed).await;
            if done.is_ok() {
                written?;
            }
        }
        done?;
        summary(engine, presenter).await;
        anyhow::Ok(code)
    };
    tokio::select! {
        ended = ended => ended,
        interrupt = interrupts.next() => {
            // The caller leaves the process right after; nothing is waited for.
            let _ = tokio::time::timeout(Duration::from_millis(100), engine.stop(Stop::Now)).await;
            Err(Failure::silent(interrupt.code()).into())
        }
    }
}

/// One line about the run on standard error.
async fn summary(engine: &Engine, presenter: &Presenter) {
    let Ok(report) = engine.report().await else { return };
    if !presenter.talkative || report.epochs == 0 {
        return;
    }
    let mut parts = vec![format!("{} rows in", numbers::grouped(report.rows_in))];
    if report.rows_bad > 0 {
        parts.push(format!("{} bad", numbers::grouped(report.rows_bad)));
    }
    if report.rows_late > 0 {
        parts.push(format!("{} late", numbers::grouped(report.rows_late)));
    }
    parts.push(format!("{} rows out", numbers::grouped(report.rows_out)));
    parts.push(if report.epochs == 1 { "1 epoch".into() } else { format!("{} epochs", numbers::grouped(report.epochs)) });
    let elapsed = Duration::try_from_secs_f64(report.seconds).unwrap_or_default();
    parts.push(numbers::duration(elapsed));
    parts.extend(numbers::rate(report.rows_in, elapsed));
    message::line(&parts.join(", "));
}

/// SELECT and COPY run after the input: refused when there is no end of it.
fn refuse_queries_that_never_run(engine: &Engine, file: &PipelineFile) -> Result<(), Failure> {
    let Some((position, _)) = file.queries.first() else { return Ok(()) };
    let endless = engine.catalog().iter().find(|entry| entry.kind == "stream" && !is_bounded(&entry.sql)).map(|entry| entry.name.clone());
    let Some(endless) = endless else { return Ok(()) };
    let name = position.name.as_deref().unwrap_or("the file");
    Err(Failure::script(format!(
        "{name}, line {}: SELECT and COPY run when the input has been processed, and stream \"{endless}\" has no end\n\
         hint: Run it with --trigger available, or give the stream bounded = 'true'.",
        position.line
    )))
}

/// Whether the statement defines a stream that ends.
fn is_bounded(sql: &str) -> bool {
    let Ok(Statement::CreateStream(stream)) = millstream_sql::parse_statement(sql) else { return false };
    let option = |name: &str| stream.options.iter().find(|(option, _)| option == name).map(|(_, value)| value.to_lowercase());
    let says_so = matches!(option("bounded").as_deref(), Some("true" | "on" | "yes" | "1"));
    // A derived stream ends with the stream it reads, which is checked itself.
    says_so
        || stream.as_select.is_some()
        || option("connector").as_deref() == Some("stdin")
        || option("row_limit").is_some()
        || option("event_limit").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_streams_are_recognised() {
        assert!(is_bounded("CREATE STREAM s (a INT) WITH (connector = 'files', path = 'x', format = 'csv', bounded = 'true')"));
        assert!(is_bounded("CREATE STREAM s (a INT) WITH (connector = 'stdin', format = 'csv')"));
        assert!(!is_bounded("CREATE STREAM s (a INT) WITH (connector = 'files', path = 'x', format = 'csv')"));
    }
}
