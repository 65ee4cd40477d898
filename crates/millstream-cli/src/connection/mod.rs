//! What statements are carried out by: the engine of this process, or a server (`--connect`).
//!
//! Both give the same [`StatementResult`], so that rows, changes and errors are shown alike. With a server the text goes as it is: it is
//! the server's dialect that counts, and `pg_catalog` is there too.

mod address;
mod changes;
mod remote;

pub(crate) use address::Address;
pub(crate) use remote::Remote;

use crate::failure::Failure;
use crate::script;
use arrow::datatypes::SchemaRef;
use millstream_engine::{Engine, EngineError, Output, Session, StatementResult};
use millstream_sql::statement::Emit;
use millstream_sql::{ScriptError, Statement};
use std::collections::BTreeSet;

/// What statements are carried out by.
#[derive(Clone)]
pub(crate) enum Connection {
    /// The engine of this process.
    Local(Session),
    /// A server.
    Remote(Remote),
}

/// A statement of a script, as it is carried out.
pub(crate) struct Read<'a> {
    /// Its text, without the `;`.
    pub(crate) text: &'a str,
    /// The line on which it starts, from 1.
    pub(crate) first_line: u64,
    /// What it says; a server finds that out by itself, also for what is not of this program's dialect.
    pub(crate) statement: Option<Statement>,
}

/// A relation as `\d` lists it.
pub(crate) struct Listed {
    /// Its name.
    pub(crate) name: String,
    /// `stream`, `table`, `view`, `materialized view` or `sink`.
    pub(crate) kind: String,
    /// Its columns.
    pub(crate) schema: SchemaRef,
}

impl Read<'_> {
    /// Its rows go on until it is cancelled.
    pub(crate) fn is_endless(&self) -> bool {
        match &self.statement {
            Some(Statement::Query(query)) => query.emit != Emit::None,
            Some(Statement::Subscribe(_)) => true,
            _ => false,
        }
    }
}

impl Connection {
    /// The statements of a script, up to one that is none.
    pub(crate) fn read<'a>(&self, text: &'a str) -> Vec<Result<Read<'a>, ScriptError>> {
        match self {
            Connection::Local(_) => millstream_sql::parse_script(text)
                .map(|parsed| {
                    parsed.map(|parsed| Read { text: parsed.text, first_line: parsed.first_line, statement: Some(parsed.statement) })
                })
                .collect(),
            Connection::Remote(_) => {
                let split = millstream_sql::split::split(text);
                let count = split.statements.len();
                let statements = split.statements.into_iter().map(|statement| {
                    let parsed = millstream_sql::parse_statement(statement.text).ok();
                    Ok(Read { text: statement.text, first_line: statement.start.line, statement: parsed })
                });
                statements.chain(split.error.map(|error| Err(ScriptError { error, statement_index: count }))).collect()
            }
        }
    }

    /// Carries out a statement; dropping the call, or what it gives, cancels it.
    ///
    /// # Errors
    /// The statement's, or that the server cannot be reached.
    pub(crate) async fn execute(&self, read: Read<'_>) -> Result<StatementResult, EngineError> {
        match (self, read.statement) {
            (Connection::Local(session), Some(statement)) => script::execute_aside(session, statement).await,
            (Connection::Local(session), None) => session.execute(read.text).await,
            (Connection::Remote(remote), _) => remote.execute(read.text).await,
        }
    }

    /// The engine, if it is in this process.
    pub(crate) fn engine(&self) -> Option<&Engine> {
        match self {
            Connection::Local(session) => Some(session.engine()),
            Connection::Remote(_) => None,
        }
    }

    /// Everything in the catalog.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub(crate) async fn catalog(&self) -> Result<Vec<Listed>, EngineError> {
        match self {
            Connection::Local(session) => {
                let entries = session.engine().catalog().into_iter();
                Ok(entries.map(|entry| Listed { name: entry.name, kind: entry.kind.into(), schema: entry.schema }).collect())
            }
            Connection::Remote(remote) => remote.catalog().await,
        }
    }

    /// The statement that made a relation, or all of them, in the order they were made in.
    ///
    /// # Errors
    /// When there is none of this name, or the server cannot be reached.
    pub(crate) async fn definitions(&self, name: Option<&str>) -> Result<Vec<String>, Failure> {
        let entries = self.catalog().await.map_err(|error| failed(&error))?;
        if let Some(name) = name
            && !entries.iter().any(|entry| entry.name == name)
        {
            let near = millstream_types::suggest::nearest(name, entries.iter().map(|entry| entry.name.as_str()));
            let hint = near.map_or(String::new(), |near| format!("\nhint: Did you mean \"{near}\"?"));
            return Err(Failure::failed(format!("relation \"{name}\" does not exist{hint}")));
        }
        let mut texts = Vec::new();
        match self {
            Connection::Local(session) => {
                let entries = session.engine().catalog().into_iter();
                texts.extend(entries.filter(|entry| name.is_none_or(|name| entry.name == name)).map(|entry| entry.sql));
            }
            Connection::Remote(remote) => {
                for entry in entries.iter().filter(|entry| name.is_none_or(|name| entry.name == name)) {
                    let quoted = entry.name.replace('"', "\"\"");
                    let shown = remote.execute(&format!("SHOW CREATE \"{quoted}\"")).await.map_err(|error| failed(&error))?;
                    texts.extend(first_column(shown).await.map_err(|error| failed(&error))?);
                }
            }
        }
        Ok(texts)
    }

    /// The names of all functions.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub(crate) async fn functions(&self) -> Result<BTreeSet<String>, EngineError> {
        match self {
            Connection::Local(session) => {
                let state = session.engine().session_context().state();
                let names =
                    state.scalar_functions().keys().chain(state.aggregate_functions().keys()).chain(state.window_functions().keys());
                Ok(names.cloned().collect())
            }
            Connection::Remote(remote) => Ok(first_column(remote.execute("SHOW FUNCTIONS").await?).await?.into_iter().collect()),
        }
    }

    /// The names of all options, with what they are for.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub(crate) async fn settings(&self) -> Result<Vec<(String, String)>, EngineError> {
        match self {
            Connection::Local(session) => {
                Ok(session.settings().into_iter().map(|setting| (setting.name.to_string(), setting.doc.to_string())).collect())
            }
            Connection::Remote(remote) => {
                let names = first_column(remote.execute("SHOW ALL").await?).await?;
                Ok(names.into_iter().map(|name| (name, String::new())).collect())
            }
        }
    }
}

/// An error outside any statement of the user's.
pub(crate) fn failed(error: &EngineError) -> Failure {
    Failure::failed(crate::engine_setup::with_hint(error))
}

/// The texts of a result's first column.
async fn first_column(result: StatementResult) -> Result<Vec<String>, EngineError> {
    let Output::Rows(rows) = result.output else { return Ok(Vec::new()) };
    let mut texts = Vec::new();
    for batch in rows.collect().await? {
        let column = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8)?;
        texts.extend(arrow::array::AsArray::as_string::<i32>(column.as_ref()).iter().flatten().map(str::to_string));
    }
    Ok(texts)
}
