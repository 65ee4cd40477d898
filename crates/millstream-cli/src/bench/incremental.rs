//! A query through the engine: file by file, durable, into a Parquet sink.

use super::data::Input;
use super::queries::{OutputMode, Query};
use crate::engine_setup;
use crate::settings::Settings;
use anyhow::Context;
use millstream_connectors::sources::nexmark::NexmarkTable;
use millstream_engine::{Engine, RunReport, Stop, Stopwatch};
use std::path::Path;

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// From the first epoch to the last file made visible.
    pub(crate) seconds: f64,
    /// The engine's own figures.
    pub(crate) report: RunReport,
}

/// Runs the query over the whole input.
///
/// # Errors
/// When the query is refused or fails.
pub(crate) async fn run(query: &Query, input: &Input, sink: &Path, state_dir: &Path, settings: &Settings) -> anyhow::Result<Measured> {
    let engine = engine_setup::build(engine_setup::builder(settings).state_dir(state_dir).option("trigger", "available")).await?;
    for statement in statements(query, input, sink) {
        execute(&engine, &statement).await?;
    }
    let watch = Stopwatch::start();
    engine.drain().await?;
    // Bounded streams end: windows that are still open close, and files are rolled.
    engine.stop(Stop::Finish).await?;
    let seconds = watch.elapsed().as_secs_f64();
    Ok(Measured { seconds, report: engine.report().await? })
}

async fn execute(engine: &Engine, statement: &str) -> anyhow::Result<()> {
    match engine.sql(statement).await {
        Ok(_) => Ok(()),
        Err(error) => Err(anyhow::anyhow!(error.render(statement, None, 1))).context("setting up the query"),
    }
}

/// The pipeline of a query.
fn statements(query: &Query, input: &Input, sink: &Path) -> Vec<String> {
    let mut statements = Vec::new();
    for table in NexmarkTable::ALL.into_iter().filter(|table| query.reads(table.name())) {
        statements.push(stream(table, input));
    }
    if query.reads("side_input") {
        statements.push(format!("CREATE EXTERNAL TABLE side_input STORED AS PARQUET LOCATION '{}/'", text(&input.table("side_input"))));
    }
    let mode = match query.output {
        OutputMode::Append | OutputMode::Final => "append",
        OutputMode::Changelog => "changelog",
    };
    let emit = if query.output == OutputMode::Final { " EMIT ON WINDOW CLOSE" } else { "" };
    statements.push(format!(
        "CREATE SINK result AS {}{emit} WITH (connector = 'parquet', path = '{}', mode = '{mode}', compression = 'zstd', compression_level = '1')",
        query.sql(),
        text(sink)
    ));
    statements
}

/// A stream over the files of a table, in step with the others: one file of each per epoch.
fn stream(table: NexmarkTable, input: &Input) -> String {
    let schema = millstream_connectors::sources::nexmark::schema_of(table);
    let mut columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| format!("{} {} NOT NULL", field.name(), crate::output::cells::sql_type(field.data_type())))
        .collect();
    columns.push("arrived AS PROCTIME()".into());
    columns.push("WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'".into());
    format!(
        "CREATE STREAM {} ({}) WITH (connector = 'files', path = '{}', format = 'parquet', order = 'name', max_files_per_epoch = '1', bounded = 'true')",
        table.name(),
        columns.join(", "),
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
            for statement in statements(query, &input, Path::new("/out")) {
                millstream_sql::parse_statement(&statement).unwrap_or_else(|error| panic!("{}", error.render(&statement, None, 1)));
            }
        }
    }
}
