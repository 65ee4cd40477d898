//! A relation in a plan that is used again and again: its rows are those of the snapshot that the plan is carried out over.

use crate::catalog::object::{ObjectKind, Shown};
use crate::catalog::resolve::Contents;
use crate::error::{EngineError, Result};
use crate::pipeline::snapshot::{Content, Snapshot};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::{MemTable, TableType};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use std::sync::Arc;

/// A table, materialized view or tracked table. The snapshot is an extension of the session that plans its scan.
#[derive(Debug)]
pub(super) struct SnapshotTable {
    name: String,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let snapshot = state.config().get_extension::<Snapshot>();
        match snapshot.as_ref().and_then(|snapshot| snapshot.relations.get(&self.name)) {
            Some(Content::Rows(schema, rows)) => {
                MemTable::try_new(Arc::clone(schema), vec![rows.to_vec()])?.scan(state, projection, filters, limit).await
            }
            _ => datafusion::common::plan_err!("\"{}\" is gone", self.name),
        }
    }
}

/// Relations whose content comes later.
pub(super) struct SnapshotTables;

#[async_trait]
impl Contents for SnapshotTables {
    async fn provider(&self, name: &str, kind: &ObjectKind, _shown: Shown) -> Result<Arc<dyn TableProvider>> {
        let schema = match kind {
            ObjectKind::Table(def) => &def.schema,
            ObjectKind::MaterializedView(def) => &def.schema,
            ObjectKind::ExternalTable(def) => &def.schema,
            _ => return Err(EngineError::Internal(format!("\"{name}\" is no part of a snapshot's rows"))),
        };
        Ok(Arc::new(SnapshotTable { name: name.to_string(), schema: Arc::clone(schema) }))
    }

    async fn files(&self, path: &str) -> Result<Arc<dyn TableProvider>> {
        Err(EngineError::Internal(format!("the file {path} is no part of a snapshot's rows")))
    }

    fn system_table(&self, _name: &str) -> Option<Arc<dyn TableProvider>> {
        None
    }
}
