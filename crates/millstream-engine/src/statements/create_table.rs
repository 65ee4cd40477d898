//! `CREATE TABLE`: a table of inserted rows.

use super::arrow_type;
use crate::catalog::object::TableDef;
use crate::catalog::resolve::{fold, object_name};
use crate::error::{EngineError, Result};
use arrow::datatypes::{Field, Schema};
use datafusion::execution::SessionState;
use millstream_sql::statement::{ColumnKind, CreateTable};
use millstream_types::Options;
use std::sync::Arc;

/// The definition a statement describes.
///
/// # Errors
/// When a column has no type, or the key names a column that does not exist.
pub fn define(statement: &CreateTable, state: &SessionState) -> Result<TableDef> {
    let name = object_name(&statement.name);
    Options::new(format!("table \"{name}\""), statement.options.clone()).finish()?;
    let mut fields = Vec::new();
    let key: Vec<String> = statement.primary_key.iter().map(fold).collect();
    for column in &statement.columns {
        let column_name = fold(&column.name);
        if column.kind != ColumnKind::Physical {
            return Err(EngineError::invalid(
                format!("column \"{column_name}\" of table \"{name}\" is computed or metadata"),
                "Only streams have such columns.",
            ));
        }
        let Some(data_type) = &column.data_type else {
            return Err(EngineError::invalid(format!("column \"{column_name}\" of table \"{name}\" has no type"), ""));
        };
        let nullable = !column.not_null && !key.contains(&column_name);
        fields.push(Field::new(column_name, arrow_type(data_type, state)?, nullable));
    }
    if let Some(missing) = key.iter().find(|key| !fields.iter().any(|field| field.name() == key.as_str())) {
        return Err(EngineError::invalid(format!("key column \"{missing}\" of table \"{name}\" does not exist"), ""));
    }
    if fields.is_empty() {
        return Err(EngineError::invalid(format!("table \"{name}\" has no columns"), "Write for example CREATE TABLE t (id BIGINT)."));
    }
    Ok(TableDef { name, schema: Arc::new(Schema::new(fields)), key })
}
