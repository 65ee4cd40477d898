//! `CREATE STREAM`: columns, event time, shape and options of a stream.

use super::given_options::GivenOptions;
use super::{arrow_type, stream_options};
use crate::catalog::object::{ColumnOrigin, DerivedDef, EPOCH_COLUMN, EPOCH_TIME_COLUMN, StreamColumn, StreamDef, StreamShape};
use crate::catalog::resolve::{fold, object_name};
use crate::edge;
use crate::error::{EngineError, Result};
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use datafusion::execution::SessionState;
use datafusion::logical_expr::ExprSchemable;
use millstream_connectors::registry;
use millstream_sql::SqlError;
use millstream_sql::statement::{ColumnKind, CreateStream};
use millstream_types::Options;
use millstream_types::suggest::nearest;
use sqlparser::ast;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The definition a statement describes. `given` are options from outside; `derived` the columns of the query of a
/// derived stream.
///
/// # Errors
/// When something in the statement does not fit together.
pub async fn define(
    statement: &CreateStream,
    given: &GivenOptions,
    derived: Option<(String, SchemaRef)>,
    state: &SessionState,
) -> Result<StreamDef> {
    let name = object_name(&statement.name);
    let owner = format!("stream \"{name}\"");
    let mut options = given.of(&name, &owner, &statement.options)?;
    let connector = match &derived {
        Some(_) => "derived".to_string(),
        None => options.remove("connector").unwrap_or_else(|| "memory".to_string()),
    };
    let key: Vec<String> = statement.primary_key.iter().map(fold).collect();
    let (engine_options, shape, connector_options) = stream_options::take(&owner, &connector, key, statement.append_only, options)?;
    let mut columns = Vec::with_capacity(statement.columns.len());
    for column in &statement.columns {
        let defined = column_of(column, &connector, &owner, state)?;
        if defined.origin == ColumnOrigin::Proctime && matches!(shape, StreamShape::Bag { verify: false, .. }) {
            return Err(SqlError::new(format!(
                "column \"{}\" of {owner} says when a row came, which nobody knows when it leaves",
                column.name.value
            ))
            .with_hint("With verify = 'false' the rows are not kept. Leave that out, or the column.")
            .at(column.name.span)
            .into());
        }
        columns.push(defined);
    }
    if let Some((_, schema)) = &derived {
        let given: BTreeSet<&str> = columns.iter().map(|column| column.field.name().as_str()).collect();
        let from_query: Vec<StreamColumn> = schema
            .fields()
            .iter()
            .filter(|field| !given.contains(field.name().as_str()))
            .map(|field| StreamColumn { field: field.as_ref().clone(), origin: ColumnOrigin::Physical })
            .collect();
        columns.splice(0..0, from_query);
    } else if !columns.iter().any(|column| column.origin == ColumnOrigin::Physical) && (columns.is_empty() || infers(&connector)) {
        let inferred = registry::infer_schema(&connector, &Options::new(&owner, connector_options.clone()).within(crate::reach::of(state)))
            .await
            .map_err(|error| EngineError::connector(&owner, error))?;
        let inferred = inferred.fields().iter().map(|field| StreamColumn { field: field.as_ref().clone(), origin: ColumnOrigin::Physical });
        columns.splice(0..0, inferred);
    }
    let mut def = StreamDef {
        name,
        columns,
        watermark: statement.watermark.as_ref().map(|watermark| (fold(&watermark.column), watermark.delay)),
        shape,
        connector,
        connector_options,
        options: engine_options,
        derived: match (derived, &statement.as_select) {
            (Some((base, _)), Some(query)) => Some(Arc::new(DerivedDef { base, query: query.clone() })),
            _ => None,
        },
    };
    type_computed_columns(&mut def, state)?;
    check(&def)?;
    Ok(def)
}

/// Whether the connector can tell the columns of its input.
fn infers(connector: &str) -> bool {
    registry::source_kind(connector).is_ok_and(|kind| kind.infer.is_some())
}

fn column_of(column: &millstream_sql::statement::ColumnDef, connector: &str, owner: &str, state: &SessionState) -> Result<StreamColumn> {
    let name = fold(&column.name);
    let declared = column.data_type.as_ref().map(|sql_type| arrow_type(sql_type, state)).transpose()?;
    let (data_type, origin) = match &column.kind {
        ColumnKind::Physical => {
            let Some(data_type) = declared else {
                return Err(EngineError::invalid(format!("column \"{name}\" of {owner} has no type"), "Write for example name VARCHAR."));
            };
            (data_type, ColumnOrigin::Physical)
        }
        ColumnKind::Computed(expr) if is_proctime(expr) => {
            (declared.unwrap_or(DataType::Timestamp(TimeUnit::Microsecond, None)), ColumnOrigin::Proctime)
        }
        ColumnKind::Computed(expr) => (declared.unwrap_or(DataType::Null), ColumnOrigin::Computed(expr.clone())),
        ColumnKind::Metadata(key) => {
            let known = registry::metadata_type(connector, key).map_err(|error| EngineError::connector(owner, error))?;
            if let Some(declared) = &declared {
                let text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
                if *declared != known && !(text(declared) && text(&known)) {
                    return Err(EngineError::invalid(
                        format!("metadata column \"{name}\" of {owner} is declared {declared}, but \"{key}\" is {known}"),
                        "Declare that type, or leave the type out.",
                    ));
                }
            }
            (known, ColumnOrigin::Metadata(key.clone()))
        }
    };
    Ok(StreamColumn { field: Field::new(name, data_type, !column.not_null), origin })
}

/// `PROCTIME()`.
fn is_proctime(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Function(function) => object_name(&function.name) == "proctime",
        _ => false,
    }
}

/// Gives computed columns without a declared type the type of their expression, and checks the others.
fn type_computed_columns(def: &mut StreamDef, state: &SessionState) -> Result<()> {
    let mut types = Vec::new();
    for (index, column) in def.columns.iter().enumerate() {
        if let ColumnOrigin::Computed(expr) = &column.origin {
            let (logical, schema) = edge::plan_computed(def, expr, state)?;
            types.push((index, logical.get_type(&schema)?));
        }
    }
    for (index, data_type) in types {
        let field = &def.columns[index].field;
        if *field.data_type() == DataType::Null {
            let data_type = if data_type == DataType::Utf8 { DataType::Utf8View } else { data_type };
            def.columns[index].field = field.clone().with_data_type(data_type);
        }
    }
    Ok(())
}

fn check(def: &StreamDef) -> Result<()> {
    let mut seen = BTreeSet::new();
    for column in &def.columns {
        let name = column.field.name();
        if name == EPOCH_COLUMN || name == EPOCH_TIME_COLUMN {
            return Err(EngineError::invalid(
                format!("column \"{name}\" of stream \"{}\" is the name of a hidden column", def.name),
                "Choose another name.",
            ));
        }
        if !seen.insert(name) {
            return Err(EngineError::invalid(format!("stream \"{}\" has two columns \"{name}\"", def.name), "Rename one of them."));
        }
    }
    let names = || def.columns.iter().map(|column| column.field.name().as_str());
    let unknown = |name: &str, role: &str| {
        let hint = match nearest(name, names()) {
            Some(near) => format!("Did you mean \"{near}\"?"),
            None => format!("Its columns are {}.", names().collect::<Vec<_>>().join(", ")),
        };
        EngineError::invalid(format!("{role} \"{name}\" of stream \"{}\" does not exist", def.name), hint)
    };
    if let Some((column, _)) = &def.watermark {
        let Some(found) = def.columns.iter().find(|candidate| candidate.field.name() == column) else {
            return Err(unknown(column, "watermark column"));
        };
        if !matches!(found.field.data_type(), DataType::Timestamp(..)) {
            return Err(EngineError::invalid(
                format!("watermark column \"{column}\" of stream \"{}\" has type {}, not a timestamp", def.name, found.field.data_type()),
                "Make it one in the stream's definition, for example ts TIMESTAMP AS to_timestamp_micros(raw_ts).",
            ));
        }
    }
    if matches!(def.shape, StreamShape::Bag { .. }) && def.columns.iter().all(|column| column.origin == ColumnOrigin::Proctime) {
        return Err(EngineError::invalid(
            format!("stream \"{}\" has no column by which a row that leaves is found", def.name),
            "Declare the columns of its rows.",
        ));
    }
    if let StreamShape::Upsert { key, .. } = &def.shape
        && let Some(missing) = key.iter().find(|key| !names().any(|name| name == key.as_str()))
    {
        return Err(unknown(missing, "key column"));
    }
    Ok(())
}
