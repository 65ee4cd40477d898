//! `CREATE STREAM`, its synonyms, and `CREATE TABLE`.
//!
//! | written | is |
//! |---|---|
//! | `CREATE SOURCE`, `CREATE TABLE .. WITH (connector = ..)`, `CREATE STREAMING TABLE (..)` | `CREATE STREAM` |
//! | `CREATE STREAMING TABLE .. AS SELECT` | `CREATE MATERIALIZED VIEW` |
//! | `CREATE TABLE` without a connector | a table kept by INSERT |

use sqlparser::ast::ObjectName;

use super::StatementParser;
use super::columns::Elements;
use crate::error::{Result, SqlError};
use crate::statement::{ColumnKind, CreateMaterializedView, CreateStream, CreateTable, Emit, OptionList, Statement};
use crate::tokens::QueryEnd;

use sqlparser::ast::Query;

/// A stream or table as written, before it is known which of the two it is.
struct Definition {
    if_not_exists: bool,
    name: ObjectName,
    elements: Elements,
    options: OptionList,
    as_select: Option<Box<Query>>,
    emit: Emit,
}

impl StatementParser<'_> {
    fn definition(&mut self) -> Result<Definition> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        let mut elements = self.elements()?;
        let mut options = OptionList::new();
        let mut as_select = None;
        let mut emit = Emit::None;
        loop {
            if self.is("with") && options.is_empty() {
                options = self.with_options()?;
            } else if self.eat(&["append", "only"]) {
                elements.append_only = true;
            } else if self.eat(&["comment"]) {
                self.string()?;
            } else if as_select.is_none() && self.eat(&["as"]) {
                as_select = Some(self.query(QueryEnd::Options)?);
                emit = self.emit()?;
            } else if self.at_statement_end() {
                return Ok(Definition { if_not_exists, name, elements, options, as_select, emit });
            } else {
                return Err(self.unexpected("WITH (options), AS query or the end of the statement"));
            }
        }
    }

    pub(super) fn create_stream(&mut self, or_replace: bool) -> Result<Statement> {
        let definition = self.definition()?;
        stream(or_replace, definition)
    }

    pub(super) fn create_streaming_table(&mut self, or_replace: bool) -> Result<Statement> {
        let definition = self.definition()?;
        match definition {
            Definition { if_not_exists, name, elements, options, as_select: Some(query), emit }
                if elements.columns.is_empty() && elements.watermark.is_none() =>
            {
                let columns = Vec::new();
                Ok(Statement::CreateMaterializedView(CreateMaterializedView {
                    or_replace,
                    if_not_exists,
                    name,
                    columns,
                    options,
                    query,
                    emit,
                }))
            }
            definition => stream(or_replace, definition),
        }
    }

    pub(super) fn create_table(&mut self, or_replace: bool) -> Result<Statement> {
        let definition = self.definition()?;
        if definition.options.iter().any(|(key, _)| key == "connector") {
            return stream(or_replace, definition);
        }
        let Definition { if_not_exists, name, elements, options, as_select, emit } = definition;
        if let Some(span) = elements.watermark_span {
            return Err(SqlError::new(format!("table {name} has a watermark but no connector"))
                .with_hint(format!("Event time belongs to streams: `CREATE STREAM {name} (...) WITH (connector = '...')`."))
                .at(span));
        }
        if emit != Emit::None {
            return Err(SqlError::new(format!("table {name} is one snapshot of its query and takes no EMIT"))
                .with_hint(format!("Write `CREATE MATERIALIZED VIEW {name} AS SELECT ...` for a result that is kept up to date.")));
        }
        if let Some(column) = elements.columns.iter().find(|column| matches!(column.kind, ColumnKind::Metadata(_))) {
            return Err(SqlError::new(format!("column \"{}\" of table {name} is METADATA, which only a connector has", column.name.value))
                .with_hint(format!("Write `CREATE STREAM {name} (...) WITH (connector = '...')`."))
                .at(column.name.span));
        }
        if elements.columns.is_empty() && as_select.is_none() {
            return Err(SqlError::new(format!("table {name} has no columns")).with_hint("Write `CREATE TABLE t (a BIGINT, ...)`."));
        }
        check_types(&elements)?;
        let Elements { columns, primary_key, .. } = elements;
        Ok(Statement::CreateTable(CreateTable { or_replace, if_not_exists, name, columns, primary_key, options, as_select }))
    }
}

fn stream(or_replace: bool, definition: Definition) -> Result<Statement> {
    let Definition { if_not_exists, name, elements, options, as_select, emit } = definition;
    if !matches!(emit, Emit::None | Emit::Changes { limit: None }) {
        return Err(SqlError::new(format!("stream {name} passes rows on as they come and takes no EMIT"))
            .with_hint(format!("Write `CREATE MATERIALIZED VIEW {name} AS SELECT ... EMIT ...`.")));
    }
    if elements.append_only && !elements.primary_key.is_empty() {
        return Err(SqlError::new(format!("stream {name} has both PRIMARY KEY and APPEND ONLY"))
            .with_hint("A key makes an upsert stream, whose rows replace each other. Keep one of the two."));
    }
    if as_select.is_none() {
        check_types(&elements)?;
    }
    let Elements { columns, watermark, primary_key, append_only, .. } = elements;
    Ok(Statement::CreateStream(CreateStream {
        or_replace,
        if_not_exists,
        name,
        columns,
        watermark,
        primary_key,
        append_only,
        options,
        as_select,
    }))
}

/// Every column that is not computed has a type.
fn check_types(elements: &Elements) -> Result<()> {
    match elements.columns.iter().find(|column| column.data_type.is_none() && !matches!(column.kind, ColumnKind::Computed(_))) {
        Some(column) => Err(SqlError::new(format!("column \"{}\" has no type", column.name.value))
            .with_hint(format!("Write `{} VARCHAR`, for example.", column.name))
            .at(column.name.span)),
        None => Ok(()),
    }
}
