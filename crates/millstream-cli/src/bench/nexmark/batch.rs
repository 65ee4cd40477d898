//! The same query as one DataFusion batch over all files, into one Parquet file.

use super::data::Input;
use super::queries::Query;
use crate::engine_setup;
use crate::settings::Settings;
use anyhow::Context;
use datafusion::common::config::TableParquetOptions;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use millstream_connectors::sources::nexmark::NexmarkTable;
use millstream_engine::Stopwatch;
use millstream_sql::{RewriteContext, VersionTime, rewrite_query};
use std::path::Path;
use std::sync::Arc;

/// Runs the query; gives the seconds from finding the files, as the engine has to, to the finished file.
///
/// # Errors
/// When the query is refused or fails.
pub(crate) async fn run(query: &Query, input: &Input, file: &Path, settings: &Settings) -> anyhow::Result<f64> {
    // The session of an engine has the same functions and types; how expressions are computed is DataFusion's way, without the engine's
    // checks and quick forms. Memory is its own to take: what its operators say they use is several times what they do, and the limit of
    // a pipeline would stop queries that fit.
    let engine = engine_setup::build(engine_setup::builder(settings).manual()).await?;
    let state = SessionStateBuilder::new_from_existing(engine.session_context().state())
        .with_physical_optimizer_rules(PhysicalOptimizer::new().rules)
        .with_runtime_env(Arc::new(RuntimeEnv::default()));
    let context = SessionContext::new_with_state(state.build());
    let sql = plain_sql(query)?;
    let watch = Stopwatch::start();
    let tables = NexmarkTable::ALL.map(NexmarkTable::name).into_iter().chain(["side_input"]);
    for table in tables.filter(|table| query.reads(table)) {
        register(&context, table, input).await?;
    }
    let frame = context.sql(&sql).await.with_context(|| sql.clone())?;
    let options = DataFrameWriteOptions::new().with_single_file_output(true);
    frame.write_parquet(&file.display().to_string(), options, Some(parquet_options())).await?;
    Ok(watch.elapsed().as_secs_f64())
}

/// The files of a table, whose footers are read here and kept for the query. `arrived` exists in streams only: no query with a batch form
/// reads it.
async fn register(context: &SessionContext, table: &str, input: &Input) -> anyhow::Result<()> {
    let path = format!("{}/", input.table(table).display());
    context.register_parquet(table, &path, ParquetReadOptions::default()).await?;
    Ok(())
}

/// The query in SQL that DataFusion plans: window functions of the dialect are rewritten as the engine does.
fn plain_sql(query: &Query) -> anyhow::Result<String> {
    let sql = query.sql();
    let mut parsed = millstream_sql::parse_query(&sql).map_err(|error| anyhow::anyhow!(error.render(&sql, None, 1)))?;
    let context = RewriteContext { is_stream: &|_| false, shows_hidden_columns: false, version_time: &|_| VersionTime::Unknown };
    rewrite_query(&mut parsed, &context).map_err(|error| anyhow::anyhow!(error.render(&sql, None, 1)))?;
    Ok(parsed.to_string())
}

/// The settings of our Parquet sink.
fn parquet_options() -> TableParquetOptions {
    let mut options = TableParquetOptions::default();
    options.global.compression = Some("zstd(1)".into());
    options.global.dictionary_enabled = Some(true);
    options.global.statistics_enabled = Some("page".into());
    options
}

#[cfg(test)]
mod tests {
    use super::super::queries::ALL;
    use super::*;

    #[test]
    fn queries_with_a_batch_form_become_plain_sql() {
        for query in ALL.iter().filter(|query| query.has_batch_form) {
            let sql = plain_sql(query).unwrap_or_else(|error| panic!("{}: {error}", query.name));
            assert!(["TUMBLE(", "HOP(", "SESSION("].iter().all(|call| !sql.contains(call)), "{}: {sql}", query.name);
        }
    }
}
