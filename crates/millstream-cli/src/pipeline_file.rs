//! What `run`, `replay` and `check` share: reading a pipeline file, where its state lives, and setting it up.

use crate::args::PipelineArgs;
use crate::engine_setup;
use crate::failure::Failure;
use crate::message;
use crate::present::Presenter;
use crate::repoint::{SetOption, repointed};
use crate::script::{Script, rendered};
use crate::settings::Settings;
use anyhow::Context;
use millstream_engine::{Engine, EngineBuilder, EngineError, PipelineFile, RunReport, ScriptFailure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Reads a pipeline file with its variables and options replaced.
///
/// # Errors
/// When it cannot be read, or an option is set of something it does not define.
pub(crate) fn read(file: &Path, variables: &[(String, String)], set: &[SetOption]) -> anyhow::Result<Script> {
    let mut script = Script::read(file)?;
    let variables: BTreeMap<String, String> = variables.iter().cloned().collect();
    script.text = millstream_sql::variables::substitute(&script.text, &variables);
    script.text = repointed(&script, set)?;
    Ok(script)
}

/// Where the state of a pipeline lives when nothing is said: `.millstream/<file stem>` beside the file.
pub(crate) fn default_state_dir(file: &Path) -> PathBuf {
    let stem = file.file_stem().map_or_else(|| "pipeline".into(), |stem| stem.to_string_lossy().into_owned());
    file.parent().unwrap_or(Path::new("")).join(".millstream").join(stem)
}

/// A builder with the state directory, the settings and the replaced options of a run. `state_dir` is where state goes
/// when the flags do not say; `None` keeps nothing.
pub(crate) fn builder(args: &PipelineArgs, settings: &Settings, state_dir: Option<PathBuf>, quiet: bool) -> EngineBuilder {
    let mut builder = engine_setup::builder(settings).takeover(args.takeover);
    match (&args.state_dir, state_dir) {
        _ if args.in_memory => {}
        (Some(dir), _) => builder = builder.state_dir(dir),
        (None, Some(dir)) => {
            if !quiet {
                message::line(&format!("notice: state is kept in \"{}\" (--state-dir or --in-memory chooses)", dir.display()));
            }
            builder = builder.state_dir(dir);
        }
        (None, None) => {}
    }
    for (object, option, value) in &args.set {
        builder = builder.stream_option(object, option, value);
    }
    builder
}

/// Sets up the pipeline: what the file says is created, or found as it is.
///
/// # Errors
/// A script failure that names file and line.
pub(crate) async fn apply(engine: &Engine, script: &Script, presenter: &Presenter) -> Result<PipelineFile, Failure> {
    told(engine.apply_pipeline_file(&script.text, script.name.as_deref()).await, presenter)
}

/// As [`apply`], beside what clients of a server have made.
///
/// # Errors
/// As [`apply`].
pub(crate) async fn apply_shared(engine: &Engine, script: &Script, presenter: &Presenter) -> Result<PipelineFile, Failure> {
    told(engine.apply_shared_pipeline_file(&script.text, script.name.as_deref()).await, presenter)
}

fn told(applied: Result<PipelineFile, ScriptFailure>, presenter: &Presenter) -> Result<PipelineFile, Failure> {
    let file = applied.map_err(|failure| Failure::script(rendered_failure(&failure)))?;
    for notice in &file.notices {
        presenter.notice(notice);
    }
    Ok(file)
}

/// A script failure as a person reads it.
pub(crate) fn rendered_failure(failure: &ScriptFailure) -> String {
    rendered(&failure.error, &failure.position.text, failure.position.name.as_deref(), failure.position.line)
}

/// Runs the queries of a pipeline file after its input has been processed.
///
/// # Errors
/// A script failure that names file and line.
pub(crate) async fn run_queries(engine: &Engine, file: PipelineFile, presenter: &mut Presenter) -> anyhow::Result<()> {
    let session = engine.session();
    for (position, statement) in file.queries {
        let shown = match session.execute_parsed(statement).await {
            // Rows are computed while they are shown.
            Ok(result) => presenter.show(result).await.map(|_| ()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = shown {
            return Err(match error.downcast::<EngineError>() {
                Ok(error) => Failure::script(rendered_failure(&ScriptFailure { position, error })).into(),
                Err(error) => error,
            });
        }
    }
    Ok(())
}

/// What `--report` writes.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    run: RunReport,
    /// What the run has failed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Writes the report of a run, and what it has failed with.
///
/// # Errors
/// When the file cannot be written.
pub(crate) async fn write_report(engine: &Engine, path: &Path, failed: Option<&anyhow::Error>) -> anyhow::Result<()> {
    let report = Report { run: engine.report().await?, error: failed.map(|error| format!("{error:#}")) };
    let text = serde_json::to_string_pretty(&report)?;
    std::fs::write(path, text + "\n").with_context(|| format!("writing the report \"{}\"", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_lives_beside_the_file() {
        assert_eq!(default_state_dir(Path::new("a/b/p.sql")), Path::new("a/b/.millstream/p"));
        assert_eq!(default_state_dir(Path::new("p.sql")), Path::new(".millstream/p"));
    }
}
