//! A query through the engine: file by file, durable, into a Parquet sink.

use super::data::{Input, declared_columns};
use super::queries::{OutputMode, Query};
use crate::engine_setup;
use crate::settings::Settings;
use millstream_connectors::sources::nexmark::NexmarkTable;
use millstream_engine::{Engine, RunReport, Stop, Stopwatch};
use std::path::Path;

/// The engine does not take a statement of the query's pipeline.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// From the first epoch to the last file made visible.
    pub(crate) seconds: f64,
    /// The engine's own figures.
    pub(crate) report: RunReport,
    /// How the result was written.
    pub(crate) output: OutputMode,
}

/// Runs the query over the whole input.
///
/// # Errors
/// [`Refused`] when the engine does not take the query; whatever made it fail.
pub(crate) async fn run(query: &Query, input: &Input, sink: &Path, state_dir: &Path, settings: &Settings) -> anyhow::Result<Measured> {
    let engine = engine_setup::build(engine_setup::builder(settings).state_dir(state_dir).option("trigger", "available")).await?;
    for statement in sources(query, input) {
        execute(&engine, &statement).await?;
    }
    let output = match execute(&engine, &sink_statement(query, query.output, sink)).await {
        Ok(()) => query.output,
        // A query that the planner cannot prove to append, or whose windows it cannot follow, writes every change instead; the
        // table says so.
        Err(refusal) => match execute(&engine, &sink_statement(query, OutputMode::Changelog, sink)).await {
            Ok(()) => OutputMode::Changelog,
            Err(_) => return Err(refusal),
        },
    };
    let watch = Stopwatch::start();
    engine.drain().await?;
    // Bounded streams end: windows that are still open close, and files are rolled.
    engine.stop(Stop::Finish).await?;
    let seconds = watch.elapsed().as_secs_f64();
    Ok(Measured { seconds, report: engine.report().await?, output })
}

async fn execute(engine: &Engine, statement: &str) -> anyhow::Result<()> {
    match engine.sql(statement).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Refused(error.render(statement, None, 1)).into()),
    }
}

/// The streams and tables a query reads.
fn sources(query: &Query, input: &Input) -> Vec<String> {
    let tables = NexmarkTable::ALL.into_iter().filter(|table| query.reads(table.name()));
    let mut statements: Vec<String> = tables.map(|table| stream(table, input)).collect();
    if query.reads("side_input") {
        statements.push(format!("CREATE EXTERNAL TABLE side_input STORED AS PARQUET LOCATION '{}/'", text(&input.table("side_input"))));
    }
    statements
}

/// The sink that the query's result goes to.
fn sink_statement(query: &Query, output: OutputMode, sink: &Path) -> String {
    let (mode, emit) = match output {
        OutputMode::Append => ("append", ""),
        OutputMode::Final => ("append", " EMIT ON WINDOW CLOSE"),
        OutputMode::Changelog => ("changelog", ""),
    };
    format!(
        "CREATE SINK result AS {}{emit} \
         WITH (connector = 'parquet', path = '{}', mode = '{mode}', compression = 'zstd', compression_level = '1')",
        query.sql(),
        text(sink)
    )
}

/// A stream over the files of a table, in step with the others: one file of each per epoch.
fn stream(table: NexmarkTable, input: &Input) -> String {
    format!(
        "CREATE STREAM {} ({}) WITH (connector = 'files', path = '{}', format = 'parquet', order = 'name', \
         max_files_per_epoch = '1', bounded = 'true')",
        table.name(),
        declared_columns(table, true),
        text(&input.table(table.name()))
    )
}

fn text(path: &Path) -> String {
    path.display().to_string().replace('\'', "''")
}

#[cfg(test)]
mod tests {
    use super::super::queries::ALL;
    use super::*;

    #[test]
    fn pipelines_parse() {
        let input = Input { dir: "/data".into(), events: 100 };
        for query in ALL {
            let sink = sink_statement(query, query.output, Path::new("/out"));
            for statement in sources(query, &input).into_iter().chain([sink]) {
                millstream_sql::parse_statement(&statement).unwrap_or_else(|error| panic!("{}", error.render(&statement, None, 1)));
            }
        }
    }
}
