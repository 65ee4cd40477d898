//! From parsed statements to definitions: everything that can be decided without the pipeline.

pub mod create_sink;
pub mod create_stream;
pub mod create_table;
pub mod given_options;
pub mod stream_options;

use crate::error::Result;
use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use sqlparser::ast;

/// The Arrow type of a SQL type, as the session's type planner and DataFusion see it.
///
/// # Errors
/// When there is no such type.
pub fn arrow_type(sql_type: &ast::DataType, state: &SessionState) -> Result<DataType> {
    let sql = format!("CAST(NULL AS {sql_type})");
    let schema = DFSchema::empty();
    let expr = state.create_logical_expr(&sql, &schema)?;
    Ok(datafusion::logical_expr::ExprSchemable::get_type(&expr, &schema)?)
}
