//! `-c`, `-f` and standard input: statements one after the other, results to standard output.
//!
//! Before a statement reads (SELECT, COPY) and at the end, streams get time to come to rest, so that a script which makes
//! a view over files and selects from it sees their rows. A stream that never rests is waited for a while only.

use crate::connection::Connection;
use crate::failure::Failure;
use crate::interrupt::{Interrupt, aside, interruptible};
use crate::message;
use crate::present::Presenter;
use anyhow::Context;
use millstream_engine::{Engine, EngineError, Session, StatementResult, Stop};
use millstream_sql::Statement;
use millstream_sql::statement::Emit;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// How long a script waits for streams to come to rest.
const REST_MAX: Duration = Duration::from_secs(30);

/// A script and what it is called in messages.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// The statements.
    pub(crate) text: String,
    /// The file; `None` for statements of the command line.
    pub(crate) name: Option<String>,
}

impl Script {
    /// Reads a file; `-` is standard input.
    ///
    /// # Errors
    /// When it cannot be read or is no UTF-8.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text).context("reading standard input")?;
            return Ok(Self { text, name: Some("standard input".into()) });
        }
        let text = std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("cannot read \"{}\": {error}", path.display())))?;
        Ok(Self { text, name: Some(path.display().to_string()) })
    }
}

/// The error of a statement as a person reads it. `first_line` is the line of the file on which `text` starts.
pub(crate) fn rendered(error: &EngineError, text: &str, name: Option<&str>, first_line: u64) -> String {
    error.render(text, name, first_line)
}

/// Executes the statements until one fails. `Err(interrupt)` when a signal ended it.
///
/// # Errors
/// A [`Failure`] with the rendered message when a statement fails.
pub(crate) async fn execute(connection: &Connection, presenter: &mut Presenter, script: &Script) -> anyhow::Result<Result<(), Interrupt>> {
    let code = if script.name.is_some() { crate::failure::SCRIPT } else { crate::failure::FAILED };
    let name = script.name.as_deref();
    for read in connection.read(&script.text) {
        let read = read.map_err(|error| Failure { code, message: error.render(&script.text, name) })?;
        let (text, line) = (read.text, read.first_line);
        let reads = read.statement.as_ref().is_some_and(is_snapshot);
        let work = async {
            if let Some(engine) = connection.engine().filter(|_| reads) {
                rest(engine).await?;
            }
            match connection.execute(read).await {
                Ok(result) => presenter.show(result).await.map(|_| ()),
                Err(error) => Err(error.into()),
            }
        };
        match interruptible(work).await? {
            Err(interrupt) => return Ok(Err(interrupt)),
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return Err(match error.downcast_ref::<EngineError>() {
                    Some(engine) => Failure { code, message: rendered(engine, text, name, line) }.into(),
                    None => error,
                });
            }
        }
    }
    Ok(Ok(()))
}

/// Executes a statement so that it can be cancelled whatever it does.
///
/// # Errors
/// As the session's.
pub(crate) async fn execute_aside(session: &Session, statement: Statement) -> Result<StatementResult, EngineError> {
    let session = session.clone();
    aside(async move { session.execute_parsed(statement).await }).await
}

/// Executes a script as a whole program: then lets streams come to rest and stops the engine.
///
/// # Errors
/// As [`execute`], or when the engine cannot be stopped cleanly.
pub(crate) async fn run(engine: &Engine, presenter: &mut Presenter, script: &Script) -> anyhow::Result<u8> {
    let executed = execute(&Connection::Local(engine.session()), presenter, script).await?;
    let rested = match executed {
        Ok(()) => interruptible(rest(engine)).await?.map(|_| ()),
        Err(interrupt) => Err(interrupt),
    };
    stop(engine).await?;
    Ok(match rested {
        Ok(()) => crate::failure::DONE,
        Err(interrupt) => interrupt.code(),
    })
}

/// Executes a script at a server, as a whole program.
///
/// # Errors
/// As [`execute`].
pub(crate) async fn run_at(connection: &Connection, presenter: &mut Presenter, script: &Script) -> anyhow::Result<u8> {
    Ok(match execute(connection, presenter, script).await? {
        Ok(()) => crate::failure::DONE,
        Err(interrupt) => interrupt.code(),
    })
}

/// Finishes the running epoch, writes what is buffered and stops.
///
/// # Errors
/// The error that stopped the pipeline before.
pub(crate) async fn stop(engine: &Engine) -> anyhow::Result<()> {
    match engine.stop(Stop::Finish).await {
        Ok(()) | Err(EngineError::Stopped(None)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a statement reads the present content of relations.
fn is_snapshot(statement: &Statement) -> bool {
    match statement {
        Statement::Query(query) => query.emit == Emit::None,
        Statement::Copy(_) => true,
        _ => false,
    }
}

/// Waits until everything that sources have is committed; not longer than [`REST_MAX`].
async fn rest(engine: &Engine) -> anyhow::Result<()> {
    let has_queries = engine.catalog().iter().any(|entry| matches!(entry.kind, "materialized view" | "sink"));
    let is_interval = !matches!(trigger(engine), Some(millstream_engine::Trigger::Available | millstream_engine::Trigger::Once));
    if !(has_queries && is_interval) {
        return Ok(());
    }
    match tokio::time::timeout(REST_MAX, engine.wait_idle()).await {
        Ok(Ok(()) | Err(EngineError::Stopped(None))) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => {
            message::line("notice: the streams do not come to rest; this is the answer after the newest epoch");
            Ok(())
        }
    }
}

/// The trigger in force.
pub(crate) fn trigger(engine: &Engine) -> Option<millstream_engine::Trigger> {
    let settings = engine.session().settings();
    settings.iter().find(|setting| setting.name == "trigger").and_then(|setting| setting.value.parse().ok())
}
