//! A stream's definition as its source is read, and as it is fed.
//!
//! ```sql
//! CREATE STREAM s (id BIGINT NOT NULL, at TIMESTAMP, twice BIGINT AS id * 2, file VARCHAR METADATA FROM 'name',
//!     PRIMARY KEY (id), WATERMARK FOR at AS at - INTERVAL '5 seconds')
//!     WITH (connector = 'files', path = 'p', op_column = 'op');
//! -- read:
//! CREATE STREAM s (id BIGINT, at TIMESTAMP, file VARCHAR METADATA FROM 'name', op VARCHAR) WITH (connector = 'files', path = 'p');
//! -- fed:
//! CREATE STREAM s (id BIGINT NOT NULL, at TIMESTAMP, twice BIGINT AS id * 2, file VARCHAR,
//!     PRIMARY KEY (id), WATERMARK FOR at AS at - INTERVAL '5 seconds')
//!     WITH (op_column = 'op', connector = 'memory', retention = 'all', ...);
//! ```
//! What a source tells (columns that were not declared, metadata) was read with the rows and is fed with them. Event times are
//! not compared with a clock, since the clock of a comparison is made up.

use crate::output::cells::sql_type;
use crate::repoint::SetOption;
use arrow::datatypes::{DataType, Field, Schema};
use millstream_connectors::registry;
use millstream_engine::catalog::resolve::{fold, object_name};
use millstream_engine::statements::stream_options::ENGINE_OPTIONS;
use millstream_sql::Statement;
use millstream_sql::statement::{ColumnDef, ColumnKind, CreateStream};
use sqlparser::ast::{Expr, Ident};
use std::collections::BTreeSet;

/// The op column of streams that get deletions.
pub(super) const OP_COLUMN: &str = "__op";

/// Options that say what the engine does with rows, and so belong to the stream that is fed.
const FED: [&str; 5] = ["idle_timeout", "on_error", "on_late", "op_column", "verify"];
/// Puts what `--set` says into the definition. A replaced connector has its own options already.
pub(super) fn replace_options(stream: &mut CreateStream, set: &[SetOption]) {
    let name = stream.name.to_string();
    for (_, option, value) in set.iter().filter(|(object, _, _)| *object == name) {
        stream.options.retain(|(existing, _)| existing != option);
        stream.options.push((option.clone(), value.clone()));
    }
}

/// An option's value.
pub(super) fn option<'a>(stream: &'a CreateStream, name: &str) -> Option<&'a str> {
    stream.options.iter().find(|(option, _)| option == name).map(|(_, value)| value.as_str())
}

/// Where the rows come from.
pub(super) fn connector(stream: &CreateStream) -> &str {
    option(stream, "connector").unwrap_or(registry::DEFAULT_SOURCE)
}

/// The stream as its source has it: rows as they come, changes with their op as a column.
pub(super) fn read(stream: &CreateStream) -> CreateStream {
    let mut read = stream.clone();
    read.watermark = None;
    read.primary_key.clear();
    read.append_only = false;
    read.columns.retain(|column| !matches!(column.kind, ColumnKind::Computed(_)));
    if let Some(op) = option(stream, "op_column") {
        // A deletion by key leaves the other columns out.
        read.columns.iter_mut().for_each(|column| column.not_null = false);
        let declares = read.columns.iter().any(|column| matches!(column.kind, ColumnKind::Physical));
        if declares && !read.columns.iter().any(|column| fold(&column.name) == op) {
            read.columns.push(column(&Field::new(op, DataType::Utf8View, true)));
        }
    }
    // While a source is read as a whole only what becomes of bad rows matters.
    read.options.retain(|(option, _)| option == "on_error" || !ENGINE_OPTIONS.contains(&option.as_str()));
    if connector(stream) == registry::DEFAULT_SOURCE {
        read.options.push(("retention".into(), "all".into()));
    }
    read
}

/// The stream as it is fed with rows of `schema`; `deletes`: they carry an op of our own.
pub(super) fn fed(stream: &CreateStream, schema: &Schema, deletes: bool) -> CreateStream {
    let mut fed = stream.clone();
    let declared: BTreeSet<String> = stream.columns.iter().map(|column| fold(&column.name)).collect();
    let op = option(stream, "op_column");
    let is_declared = |column: &ColumnDef| matches!(column.kind, ColumnKind::Physical);
    if !stream.columns.iter().any(is_declared) {
        // The source told them. An op that it told is a column of the stream.
        let told = schema.fields().iter().filter(|field| !declared.contains(field.name()));
        fed.columns.splice(0..0, told.map(|field| column(field)));
    }
    for column in &mut fed.columns {
        if matches!(column.kind, ColumnKind::Metadata(_)) {
            let name = fold(&column.name);
            column.kind = ColumnKind::Physical;
            column.data_type = schema.field_with_name(&name).ok().and_then(|field| column_type(field.data_type()));
        }
    }
    fed.options.retain(|(option, _)| FED.contains(&option.as_str()));
    for (option, value) in [("connector", "memory"), ("retention", "all"), ("max_bad_rows", "18446744073709551615")] {
        fed.options.push((option.into(), value.into()));
    }
    if deletes && op.is_none() {
        fed.append_only = false;
        fed.options.push(("op_column".into(), OP_COLUMN.into()));
    }
    fed
}

fn column(field: &Field) -> ColumnDef {
    ColumnDef {
        name: Ident::with_quote('"', field.name()),
        data_type: column_type(field.data_type()),
        not_null: !field.is_nullable(),
        kind: ColumnKind::Physical,
    }
}

/// The type as SQL declares it.
fn column_type(data_type: &DataType) -> Option<sqlparser::ast::DataType> {
    let declared = millstream_sql::parse_statement(&format!("CREATE STREAM s (c {})", sql_type(data_type)));
    match declared {
        Ok(Statement::CreateStream(stream)) => stream.columns.into_iter().next()?.data_type,
        _ => None,
    }
}

/// The columns that name a row of a keyed stream.
pub(super) fn key(stream: &CreateStream) -> Vec<String> {
    stream.primary_key.iter().map(fold).collect()
}

/// Whether rows carry the time of their arrival, so that a later change cannot name an earlier row.
pub(super) fn has_arrival(stream: &CreateStream) -> bool {
    let is_arrival = |expr: &Expr| matches!(expr, Expr::Function(function) if object_name(&function.name) == "proctime");
    stream.columns.iter().any(|column| matches!(&column.kind, ColumnKind::Computed(expr) if is_arrival(expr)))
}

/// The stream's name in the catalog.
pub(super) fn name(stream: &CreateStream) -> String {
    object_name(&stream.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(text: &str) -> CreateStream {
        match millstream_sql::parse_statement(text).unwrap() {
            Statement::CreateStream(stream) => stream,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn changes_are_read_as_rows_and_fed_as_changes() {
        let declared = stream(
            "CREATE STREAM s (id BIGINT NOT NULL, at TIMESTAMP, twice BIGINT AS id * 2, file VARCHAR METADATA FROM 'name', \
             PRIMARY KEY (id), WATERMARK FOR at) WITH (connector = 'files', path = 'p', op_column = 'op', max_files_per_epoch = '1')",
        );
        assert_eq!(
            read(&declared).to_string(),
            "CREATE STREAM s (id BIGINT, at TIMESTAMP, file VARCHAR METADATA FROM 'name', \"op\" VARCHAR) \
             WITH (connector = 'files', path = 'p')"
        );
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let schema = Schema::new(vec![field("id", DataType::Int64), field("file", DataType::Utf8View), field("op", DataType::Utf8View)]);
        let text = fed(&declared, &schema, false).to_string();
        assert!(text.starts_with("CREATE STREAM s (id BIGINT NOT NULL, at TIMESTAMP, twice BIGINT AS id * 2, file VARCHAR, "), "{text}");
        assert!(text.contains("WATERMARK FOR at AS at, PRIMARY KEY (id)) WITH (op_column = 'op', connector = 'memory'"), "{text}");
    }

    #[test]
    fn columns_that_the_source_tells_are_declared() {
        let told = stream("CREATE STREAM bid (n BIGINT METADATA FROM 'n') WITH (connector = 'nexmark', table = 'bid')");
        let schema = Schema::new(vec![Field::new("Price", DataType::Int64, false), Field::new("n", DataType::Int64, true)]);
        let text = fed(&told, &schema, true).to_string();
        assert!(text.starts_with("CREATE STREAM bid (\"Price\" BIGINT NOT NULL, n BIGINT)"), "{text}");
        assert!(text.contains("op_column = '__op'"), "{text}");
    }

    #[test]
    fn options_are_replaced() {
        let mut declared = stream("CREATE STREAM s (a INT) WITH (connector = 'files', path = 'p')");
        replace_options(&mut declared, &[("s".into(), "path".into(), "q".into()), ("t".into(), "path".into(), "r".into())]);
        assert_eq!(option(&declared, "path"), Some("q"));
    }
}
