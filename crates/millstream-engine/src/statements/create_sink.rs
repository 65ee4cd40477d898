//! `CREATE SINK`: where it writes and how it takes changes.

use super::given_options::GivenOptions;
use crate::catalog::object::SinkDef;
use crate::catalog::resolve::{fold, object_name};
use crate::error::{EngineError, Result};
use crate::pipeline::planning::state_ttl_option;
use millstream_connectors::sink::SinkMode;
use millstream_sql::statement::CreateSink;
use millstream_types::Options;

/// The definition a statement describes, without its queries.
///
/// # Errors
/// When the connector is missing or the mode is not known.
pub fn define(statement: &CreateSink, given: &GivenOptions) -> Result<SinkDef> {
    let name = object_name(&statement.name);
    let mut options = given.of(&name, &format!("sink \"{name}\""), &statement.options)?;
    let Some(connector) = options.remove("connector") else {
        return Err(EngineError::invalid(
            format!("sink \"{name}\" has no connector"),
            "Add for example WITH (connector = 'parquet', path = 'out/').",
        ));
    };
    // `type = 'append-only'` is how others spell the mode.
    let mode = options.remove("mode").or_else(|| options.remove("type"));
    let mode = match mode.as_deref().map(str::to_lowercase).as_deref() {
        Some("append" | "append-only") => SinkMode::Append,
        Some("upsert" | "update") => SinkMode::Upsert,
        Some("changelog") => SinkMode::Changelog,
        Some("complete") => SinkMode::Complete,
        Some(other) => {
            return Err(EngineError::invalid(
                format!("mode of sink \"{name}\" is '{other}'"),
                "Choose one of 'append', 'upsert', 'changelog', 'complete'.",
            ));
        }
        None if matches!(connector.as_str(), "console" | "print" | "blackhole" | "callback") => SinkMode::Changelog,
        None => SinkMode::Append,
    };
    let ttl = options.remove("state_ttl").map(|ttl| ("state_ttl".to_string(), ttl));
    let state_ttl = state_ttl_option(&mut Options::new(format!("sink \"{name}\""), ttl))?;
    let order_by = statement
        .order_by
        .iter()
        .map(|item| match &item.expr {
            sqlparser::ast::Expr::Identifier(ident) => Ok((fold(ident), item.options.asc == Some(false))),
            other => Err(EngineError::invalid(format!("ORDER BY of sink \"{name}\" is {other}, not a column"), "")),
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(SinkDef {
        name,
        connector,
        mode,
        state_ttl,
        options,
        partition_by: statement.partition_by.iter().map(fold).collect(),
        order_by,
        key: statement.primary_key.iter().map(fold).collect(),
        columns: statement.columns.iter().map(|column| fold(&column.name)).collect(),
        queries: Vec::new(),
    })
}
