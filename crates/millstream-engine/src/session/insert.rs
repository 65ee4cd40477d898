//! `INSERT INTO`: rows for a table or a memory stream, or a continuous query for a sink.

use super::Session;
use super::change::fitting;
use crate::catalog::object::ObjectKind;
use crate::catalog::resolve::object_name;
use crate::error::{EngineError, Result};
use crate::result::StatementResult;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::prelude::DataFrame;
use millstream_sql::Statement;
use millstream_sql::statement::InsertInto;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Session {
    /// `INSERT INTO`: rows for a table or memory stream, or a continuous query for a sink.
    pub(crate) async fn insert(&self, insert: InsertInto, file_insert: Option<(u64, u64)>) -> Result<StatementResult> {
        let name = object_name(&insert.target);
        let shared = self.engine.shared();
        let catalog = shared.catalog.read().clone();
        let object = Arc::clone(catalog.require(&name)?);
        if let ObjectKind::Table(_) = &object.kind {
            return self.change(&Statement::InsertInto(insert), file_insert).await;
        }
        self.refuse_in_transaction()?;
        let schema = match &object.kind {
            ObjectKind::Sink(_) => {
                let notices = self.engine.ddl(vec![Statement::InsertInto(insert)]).await?;
                return Ok(StatementResult::done("INSERT", notices));
            }
            ObjectKind::Stream(def) if def.connector == "memory" => self.engine.memory_schema(&name)?,
            other => {
                return Err(EngineError::invalid(
                    format!("cannot INSERT INTO {} \"{name}\"", other.word()),
                    "Rows can be inserted into tables and memory streams, continuous queries into sinks.",
                ));
            }
        };
        if shared.paused.load(Ordering::Acquire) {
            return Err(EngineError::invalid(
                format!("cannot INSERT INTO \"{name}\" while the pipeline is paused"),
                "RESUME PIPELINE lets it go on.",
            ));
        }
        let rows = self.rows_for(&insert, &name, &schema).await?;
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        self.engine.memory_source(&name)?.insert(arrow::compute::concat_batches(&schema, &rows)?, file_insert).await?;
        Ok(StatementResult::done(format!("INSERT {count}"), Vec::new()))
    }

    /// The rows of an INSERT with the columns of its target; columns not named are NULL.
    pub(super) async fn rows_for(&self, insert: &InsertInto, target: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let resolved = self.plan(&insert.source).await?;
        let columns: Vec<String> = if insert.columns.is_empty() {
            schema.fields().iter().map(|field| field.name().clone()).collect()
        } else {
            insert.columns.iter().map(crate::catalog::resolve::fold).collect()
        };
        let given = resolved.plan.schema().fields().len();
        if given != columns.len() {
            return Err(EngineError::invalid(
                format!("INSERT INTO \"{target}\" gives {given} values for {} columns", columns.len()),
                format!("The columns are ({}).", columns.join(", ")),
            ));
        }
        if let Some(unknown) = columns.iter().find(|column| schema.index_of(column).is_err()) {
            return Err(EngineError::invalid(format!("\"{target}\" has no column \"{unknown}\""), ""));
        }
        let frame = DataFrame::new(resolved.state, resolved.plan);
        let source: Vec<RecordBatch> = frame.collect().await?;
        let mut rows = Vec::with_capacity(source.len());
        for batch in source {
            let mut arrays: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
            for field in schema.fields() {
                let array = match columns.iter().position(|column| column == field.name()) {
                    Some(index) => Arc::clone(batch.column(index)),
                    None => arrow::array::new_null_array(field.data_type(), batch.num_rows()),
                };
                arrays.push(fitting(&array, field, target)?);
            }
            rows.push(RecordBatch::try_new(Arc::clone(schema), arrays)?);
        }
        Ok(rows)
    }
}
