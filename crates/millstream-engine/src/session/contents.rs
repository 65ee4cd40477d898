//! What names mean in a batch query: the content of a snapshot; or nothing yet, to find out which names a query reads.

use crate::catalog::object::{ObjectKind, Shown};
use crate::catalog::resolve::{Contents, Placeholder};
use crate::error::{EngineError, Result};
use crate::pipeline::Shared;
use crate::pipeline::snapshot::{Content, Snapshot};
use crate::{file_relation, stream_scan, system_tables};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::datasource::{MemTable, ViewTable};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::{CsvReadOptions, DataFrame, JsonReadOptions, ParquetReadOptions, SessionContext};
use std::sync::Arc;

/// Relations of a batch query: the content of a snapshot.
pub(super) struct BatchContents<'a> {
    pub(super) shared: &'a Shared,
    pub(super) snapshot: &'a Snapshot,
}

#[async_trait]
impl Contents for BatchContents<'_> {
    async fn provider(&self, name: &str, kind: &ObjectKind, shown: Shown) -> Result<Arc<dyn TableProvider>> {
        if let ObjectKind::ExternalTable(def) = kind
            && !self.snapshot.relations.contains_key(name)
        {
            return Ok(Arc::clone(&def.provider));
        }
        let base = &self.shared.base;
        match self.snapshot.relations.get(name) {
            Some(Content::Rows(schema, rows)) => Ok(Arc::new(MemTable::try_new(Arc::clone(schema), vec![rows.to_vec()])?)),
            Some(Content::Stream(rows)) => stream_scan::provider(rows.as_ref().clone(), shown, base, false),
            Some(Content::UntouchedStream(rows)) => {
                stream_scan::provider(rows.untouched(base, &self.shared.clock).await?, shown, base, true)
            }
            Some(Content::Sink { schema, format, files, buffered }) => sink_rows(base, name, schema, format, files, buffered).await,
            None => match kind {
                ObjectKind::Sink(_) => {
                    Err(EngineError::invalid(format!("sink \"{name}\" has no query yet"), "INSERT INTO it ... SELECT first."))
                }
                _ => Err(EngineError::invalid(format!("\"{name}\" cannot be read"), "")),
            },
        }
    }

    async fn files(&self, path: &str) -> Result<Arc<dyn TableProvider>> {
        file_relation::provider(path, &self.shared.base, &self.shared.clock).await
    }

    fn system_table(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        system_tables::provider(name, self.shared, self.snapshot)
    }
}

/// A file sink: its committed files, and rows that are in none yet.
async fn sink_rows(
    base: &SessionState,
    name: &str,
    schema: &SchemaRef,
    format: &str,
    files: &[String],
    buffered: &[RecordBatch],
) -> Result<Arc<dyn TableProvider>> {
    let context = SessionContext::new_with_state(base.clone());
    let schema = buffered.first().map_or_else(|| Arc::clone(schema), RecordBatch::schema);
    let waiting = context.read_table(Arc::new(MemTable::try_new(Arc::clone(&schema), vec![buffered.to_vec()])?))?;
    if files.is_empty() {
        return Ok(Arc::new(ViewTable::new(waiting.into_unoptimized_plan(), None)));
    }
    let paths: Vec<String> = files.to_vec();
    let written: DataFrame = match format {
        "parquet" => context.read_parquet(paths, ParquetReadOptions::default()).await?,
        "csv" => context.read_csv(paths, CsvReadOptions::default().schema(&schema)).await?,
        "json" => context.read_json(paths, JsonReadOptions::default().schema(&schema)).await?,
        "arrow" => context.read_arrow(paths, Default::default()).await?,
        other => {
            return Err(EngineError::invalid(
                format!("sink \"{name}\" writes {other} files, which SELECT cannot read"),
                "Read the view that feeds it instead.",
            ));
        }
    };
    if buffered.is_empty() {
        return Ok(Arc::new(ViewTable::new(written.into_unoptimized_plan(), None)));
    }
    let written = written.into_unoptimized_plan();
    let both = LogicalPlanBuilder::from(written).union(waiting.into_unoptimized_plan())?.build()?;
    Ok(Arc::new(ViewTable::new(both, None)))
}

/// Relations without content: to find out which ones a query reads.
pub(super) struct NamesOnly<'a> {
    pub(super) shared: &'a Shared,
}

#[async_trait]
impl Contents for NamesOnly<'_> {
    async fn provider(&self, _name: &str, kind: &ObjectKind, shown: Shown) -> Result<Arc<dyn TableProvider>> {
        Ok(match kind {
            ObjectKind::Stream(def) => Arc::new(Placeholder::new(def.shown(shown))),
            ObjectKind::Table(def) => Arc::new(Placeholder::new(Arc::clone(&def.schema))),
            ObjectKind::MaterializedView(def) => Arc::new(Placeholder::new(Arc::clone(&def.schema))),
            ObjectKind::ExternalTable(def) => Arc::clone(&def.provider),
            ObjectKind::Sink(def) => match def.queries.first() {
                Some(query) => Arc::new(Placeholder::new(Arc::clone(&query.schema))),
                None => Arc::new(Placeholder::new(Arc::new(arrow::datatypes::Schema::empty()))),
            },
            ObjectKind::View(_) => return Err(EngineError::Internal("views are expanded by the resolver".into())),
        })
    }

    async fn files(&self, path: &str) -> Result<Arc<dyn TableProvider>> {
        file_relation::provider(path, &self.shared.base, &self.shared.clock).await
    }

    fn system_table(&self, _name: &str) -> Option<Arc<dyn TableProvider>> {
        None
    }
}
