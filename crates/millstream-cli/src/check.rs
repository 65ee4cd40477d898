//! `millstream check`: everything of a file that can be known without running it.
//!
//! Each statement is parsed and planned in an engine in memory whose clock never starts. A continuous query is shown as
//! EXPLAIN INCREMENTAL shows it, with its state and what bounds it. Files may be opened to infer columns; rows are not read. Sinks
//! are made in a temporary directory, so that their options and modes are checked and their real directories stay untouched.

use crate::args::{CheckArgs, GlobalArgs};
use crate::engine_setup;
use crate::failure::{DONE, FAILED, Failure};
use crate::message;
use crate::pipeline_file;
use crate::present::Presenter;
use crate::script::rendered;
use crate::settings::Settings;
use crate::terminal::escape_keeping_lines;
use anyhow::Context;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use millstream_engine::{EngineError, Session};
use millstream_sql::Statement;
use millstream_sql::statement::{Emit, Explain, ExplainMode};

/// Checks a pipeline file. All statements are looked at, also after a wrong one, so that one run shows all mistakes.
///
/// # Errors
/// When the file cannot be read, or is wrong.
pub(crate) async fn check(args: CheckArgs, global: &GlobalArgs, settings: &Settings) -> anyhow::Result<u8> {
    let script = pipeline_file::read(&args.file, &args.variables, &args.set)?;
    let presenter = Presenter::new(settings, global.format, global.quiet, false);
    let mut builder = engine_setup::builder(settings).manual();
    for (object, option, value) in &args.set {
        builder = builder.stream_option(object, option, value);
    }
    let scratch = tempfile::tempdir().context("making a temporary directory")?;
    for sink in sinks_with_path(&script.text) {
        let path = scratch.path().join(&sink).display().to_string();
        builder = builder.stream_option(sink, "path", path);
    }
    let engine = engine_setup::build(builder).await?;
    let session = engine.session();
    let name = script.name.as_deref();
    let (mut statements, mut mistakes) = (0usize, 0usize);
    let mut out = String::new();
    for parsed in millstream_sql::parse_script(&script.text) {
        statements += 1;
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                // What follows a statement that does not parse cannot be told apart from it.
                crate::present::print_error(&error.render(&script.text, name));
                mistakes += 1;
                break;
            }
        };
        match statement(&session, &parsed.statement).await {
            Ok((plan, notices)) => {
                for notice in &notices {
                    presenter.notice(notice);
                }
                if let Some(plan) = plan {
                    out.push_str(&format!("-- line {}: {}\n{}\n\n", parsed.first_line, headline(parsed.text), plan.trim_end()));
                }
            }
            Err(error) => {
                crate::present::print_error(&rendered(&error, parsed.text, name, parsed.first_line));
                mistakes += 1;
            }
        }
    }
    {
        use std::io::Write;
        let text = if presenter.style.escape { escape_keeping_lines(&out).into_owned() } else { out };
        std::io::stdout().lock().write_all(text.as_bytes())?;
    }
    engine.stop(millstream_engine::Stop::Now).await?;
    if mistakes > 0 {
        return Err(Failure {
            code: FAILED,
            message: format!("{mistakes} of {statements} statements of \"{}\" are wrong", args.file.display()),
        }
        .into());
    }
    if !global.quiet {
        message::line(&format!("{statements} statements are right"));
    }
    Ok(DONE)
}

/// `EXPLAIN statement`; its places are those of the statement.
fn explain(mode: ExplainMode, statement: &Statement) -> Statement {
    Statement::Explain(Explain { mode, statement: Box::new(statement.clone()) })
}

/// Names of the sinks of a script that write to a path.
fn sinks_with_path(script: &str) -> Vec<String> {
    let sinks = millstream_sql::parse_script(script).map_while(Result::ok).filter_map(|parsed| match parsed.statement {
        Statement::CreateSink(sink) if sink.options.iter().any(|(option, _)| option == "path") => Some(sink.name.to_string()),
        _ => None,
    });
    sinks.collect()
}

/// Plans one statement; gives the plan of a continuous query. Definitions take effect, so that later statements find them.
async fn statement(session: &Session, statement: &Statement) -> Result<(Option<String>, Vec<millstream_engine::Notice>), EngineError> {
    let continuous = match statement {
        Statement::CreateMaterializedView(_) => true,
        Statement::CreateSink(sink) => sink.source.is_some(),
        Statement::InsertInto(insert) if !insert.is_values() => {
            let target = insert.target.to_string();
            session.engine().catalog().iter().any(|entry| entry.kind == "sink" && entry.name == target)
        }
        Statement::Query(query) => query.emit != Emit::None,
        _ => false,
    };
    let plan = if continuous {
        Some(first_column(&session.execute_parsed(explain(ExplainMode::Incremental, statement)).await?.collect().await?))
    } else {
        None
    };
    match statement {
        // Reads and writes of rows are planned only.
        Statement::Query(query) if query.emit == Emit::None => {
            session.execute_parsed(explain(ExplainMode::Logical, statement)).await?;
            Ok((None, Vec::new()))
        }
        Statement::Copy(_) | Statement::Query(_) | Statement::Subscribe(_) | Statement::Explain(_) => Ok((plan, Vec::new())),
        Statement::InsertInto(_) if !continuous => Ok((plan, Vec::new())),
        definition => {
            let result = session.execute_parsed(definition.clone()).await?;
            Ok((plan, result.notices))
        }
    }
}

/// The texts of the first column, one per line.
fn first_column(batches: &[RecordBatch]) -> String {
    let mut text = String::new();
    for batch in batches {
        let Ok(lines) = cast(batch.column(0), &DataType::Utf8) else { continue };
        for line in lines.as_string::<i32>().iter().flatten() {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// A statement in one line.
fn headline(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    crate::terminal::cut(&words.join(" "), 80).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_that_write_files_are_found() {
        let script = "CREATE SINK a WITH (connector = 'console'); CREATE SINK b WITH (connector = 'csv', path = 'x'); SELEC";
        assert_eq!(sinks_with_path(script), ["b"]);
    }

    #[test]
    fn headlines_are_one_line() {
        assert_eq!(headline("CREATE VIEW v\n  AS SELECT 1"), "CREATE VIEW v AS SELECT 1");
    }
}
