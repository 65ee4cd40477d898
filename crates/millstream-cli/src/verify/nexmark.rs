//! `millstream verify nexmark`: the queries of the benchmark over its events, each in a pipeline of its own.

use super::input;
use super::pipeline::Pipeline;
use super::report::Report;
use super::verify_pipeline;
use crate::args::VerifyNexmarkArgs;
use crate::bench::nexmark::data::{declared_columns, write_side_input};
use crate::bench::nexmark::queries::{OutputMode, Query, chosen};
use crate::script::Script;
use crate::settings::Settings;
use anyhow::Context;
use millstream_connectors::sources::nexmark::NexmarkTable;
use std::path::Path;

/// Slow enough for a few hundred events to fill some windows of ten seconds.
const EVENTS_PER_SECOND: u64 = 10;

/// Compares the queries.
///
/// # Errors
/// A usage error for an unknown query; when the data cannot be made.
pub(super) async fn verify(args: &VerifyNexmarkArgs, report: &mut Report, settings: &Settings) -> anyhow::Result<()> {
    let queries = chosen(&args.queries)?;
    let directory = tempfile::tempdir().context("making a temporary directory")?;
    write_side_input(directory.path())?;
    let width = queries.iter().map(|query| query.name.len()).max().unwrap_or(0);
    for query in queries {
        let tables: Vec<NexmarkTable> = NexmarkTable::ALL.into_iter().filter(|table| query.reads(table.name())).collect();
        let text = script(query, &tables, args.events, directory.path());
        let pipeline = Pipeline::new(&Script { text, name: None }, &[])?;
        let inputs = input::read(&pipeline, args.feeding.deletions, args.feeding.rows_max, settings).await?;
        verify_pipeline(&pipeline, &inputs, &args.feeding, report, settings, width).await?;
    }
    Ok(())
}

/// The query's streams, the table at rest where it reads it, and a view.
fn script(query: &Query, tables: &[NexmarkTable], events: u64, directory: &Path) -> String {
    let stream = |table: &NexmarkTable| {
        format!(
            "CREATE STREAM {name} ({}) \
             WITH (connector = 'nexmark', table = '{name}', event_limit = '{events}', events_per_second = '{EVENTS_PER_SECOND}');\n",
            declared_columns(*table, query.sql().contains("arrived")),
            name = table.name()
        )
    };
    let mut text: String = tables.iter().map(stream).collect();
    if query.reads("side_input") {
        let path = directory.join("side_input").display().to_string().replace('\'', "''");
        text.push_str(&format!("CREATE EXTERNAL TABLE side_input STORED AS PARQUET LOCATION '{path}/';\n"));
    }
    // Not what is appended, but what is final: the difference is in when rows come.
    let emit = if query.output == OutputMode::Final { "\nEMIT ON WINDOW CLOSE" } else { "" };
    text.push_str(&format!("CREATE MATERIALIZED VIEW {} AS\n{}{emit};\n", query.name, query.sql()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::nexmark::queries::ALL;

    #[test]
    fn every_query_is_a_pipeline() {
        for query in ALL {
            let text = script(query, &NexmarkTable::ALL, 100, Path::new("/data"));
            let pipeline = Pipeline::new(&Script { text, name: None }, &[]).unwrap();
            assert_eq!((pipeline.checked.len(), pipeline.sources().count()), (1, 3), "{}", query.name);
            assert!(pipeline.checked[0].skipped.is_none(), "{}", query.name);
        }
    }
}
