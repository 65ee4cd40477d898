//! `INSERT INTO`: rows for a table or a memory stream, or a continuous query for a sink.

use super::Session;
use crate::catalog::object::ObjectKind;
use crate::catalog::resolve::object_name;
use crate::error::{EngineError, Result};
use crate::pipeline::command::Command;
use crate::result::StatementResult;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::prelude::DataFrame;
use millstream_sql::Statement;
use millstream_sql::statement::InsertInto;
use millstream_types::{Delta, DeltaBatch, delta};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Session {
    /// `INSERT INTO`: rows for a table or memory stream, or a continuous query for a sink.
    pub(crate) async fn insert(&self, insert: InsertInto, file_insert: Option<(u64, u64)>) -> Result<StatementResult> {
        let name = object_name(&insert.target);
        let shared = self.engine.shared();
        let catalog = shared.catalog.read().clone();
        let object = Arc::clone(catalog.require(&name)?);
        let (schema, key) = match &object.kind {
            ObjectKind::Sink(_) => {
                let notices = self.engine.ddl(vec![Statement::InsertInto(insert)]).await?;
                return Ok(StatementResult::done("INSERT", notices));
            }
            ObjectKind::Table(def) => (Arc::clone(&def.schema), def.key.clone()),
            ObjectKind::Stream(def) if def.connector == "memory" => (self.engine.memory_schema(&name)?, Vec::new()),
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
        let tag = format!("INSERT {count}");
        if let ObjectKind::Stream(_) = &object.kind {
            let source = self.engine.memory_source(&name)?;
            source.insert(arrow::compute::concat_batches(&schema, &rows)?).await?;
            return Ok(StatementResult::done(tag, Vec::new()));
        }
        if !key.is_empty() {
            self.check_keys(&name, &key, &schema, &rows).await?;
        }
        let changes: Delta = rows.into_iter().filter(|batch| batch.num_rows() > 0).map(DeltaBatch::insertions).collect();
        if delta::num_rows(&changes) > 0 || file_insert.is_some() {
            self.engine.request(|answer| Command::Insert { table: name, changes, file_insert, answer }).await?;
        }
        Ok(StatementResult::done(tag, Vec::new()))
    }

    /// The rows of an INSERT with the columns of its target; columns not named are NULL.
    async fn rows_for(&self, insert: &InsertInto, target: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
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
                    Some(index) => strict_cast(batch.column(index), field, target)?,
                    None => arrow::array::new_null_array(field.data_type(), batch.num_rows()),
                };
                if !field.is_nullable() && array.null_count() > 0 {
                    return Err(EngineError::invalid(format!("column \"{}\" of \"{target}\" must not be NULL", field.name()), ""));
                }
                arrays.push(array);
            }
            rows.push(RecordBatch::try_new(Arc::clone(schema), arrays)?);
        }
        Ok(rows)
    }

    async fn check_keys(&self, table: &str, key: &[String], schema: &SchemaRef, rows: &[RecordBatch]) -> Result<()> {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let query = millstream_sql::parse_query(&format!(
            "SELECT {} FROM {}",
            key.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "),
            quoted(table)
        ))?;
        let resolved = self.plan(&query).await?;
        let existing = DataFrame::new(resolved.state, resolved.plan).collect().await?;
        let indices = key.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let encoder = millstream_types::row_key::RowKeyEncoder::new(indices.iter().map(|&index| schema.field(index).data_type().clone()))?;
        let mut seen = std::collections::HashSet::new();
        for batch in &existing {
            let encoded = encoder.encode(batch.columns())?;
            seen.extend(encoded.iter().map(|row| row.owned()));
        }
        for batch in rows {
            let columns: Vec<ArrayRef> = indices.iter().map(|&index| Arc::clone(batch.column(index))).collect();
            let encoded = encoder.encode(&columns)?;
            for (index, row) in encoded.iter().enumerate() {
                if !seen.insert(row.owned()) {
                    let values = columns.iter().map(|column| arrow::util::display::array_value_to_string(column, index)).collect::<Result<
                        Vec<_>,
                        _,
                    >>(
                    )?;
                    return Err(EngineError::invalid(
                        format!("table \"{table}\" already has a row with the key ({}) = ({})", key.join(", "), values.join(", ")),
                        "Keys are unique; nothing was inserted.",
                    ));
                }
            }
        }
        Ok(())
    }
}

/// A cast for INSERT: what does not fit exactly is an error, not NULL and not rounded.
fn strict_cast(array: &ArrayRef, field: &arrow::datatypes::Field, target: &str) -> Result<ArrayRef> {
    if array.data_type() == field.data_type() {
        return Ok(Arc::clone(array));
    }
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    let cast = arrow::compute::cast_with_options(array, field.data_type(), &options).map_err(|error| {
        EngineError::invalid(format!("a value for column \"{}\" of \"{target}\" does not fit: {error}", field.name()), "")
    })?;
    if array.data_type().is_numeric() && field.data_type().is_integer() && !array.data_type().is_integer() {
        let back = arrow::compute::cast_with_options(&cast, array.data_type(), &options)?;
        let same = arrow::compute::kernels::cmp::not_distinct(&back, array)?;
        if same.false_count() > 0 {
            return Err(EngineError::invalid(
                format!("a value for column \"{}\" of \"{target}\" is not a whole number", field.name()),
                "Round it with round() or CAST it.",
            ));
        }
    }
    Ok(cast)
}
