//! Rows into tables and memory streams, answered when they are committed.
//!
//! A client names the target by `CommandStatementIngest`, as ADBC does, or by a descriptor whose path ends with its name. All rows of a
//! request are one epoch's, or none are taken. Columns are found by name; those that the rows do not have are NULL. What the request
//! wants done with the table itself is done after its rows have been looked at:
//!
//! | the table | `if_not_exist`, `if_exists` | |
//! | --- | --- | --- |
//! | is not there | create | `CREATE TABLE` with the columns of the rows (admin) |
//! | | fail | an error |
//! | is there | append | rows are added |
//! | | replace | `CREATE OR REPLACE TABLE` (admin), then rows are added |
//! | | fail | an error |
//!
//! With the header or option `idempotency-key` rows that are sent again add nothing.

use super::incoming::Received;
use super::metadata::{CATALOG, SCHEMA};
use super::parameters::sent_as;
use super::session::FlightSession;
use super::statement::within;
use crate::aside::aside;
use crate::error::{RequestError, codes};
use crate::ingestion;
use crate::service::Service;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow_flight::FlightDescriptor;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use millstream_connectors::formats::all_or_nothing::exact_batches;
use millstream_engine::sql_types::sql_type;
use std::sync::Arc;

/// The option, and the header, that makes a repeated request harmless.
pub(super) const KEY: &str = "idempotency-key";

/// Where rows go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    name: String,
    if_missing: IfMissing,
    if_there: IfThere,
    key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IfMissing {
    Fail,
    Create,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IfThere {
    Append,
    Replace,
    Fail,
}

impl Target {
    /// What a command says. `key` is the request's header.
    ///
    /// # Errors
    /// When it asks for what there is not: temporary tables, other catalogs, transactions, options nobody knows.
    pub(super) fn of_command(command: CommandStatementIngest, key: Option<String>) -> Result<Self, RequestError> {
        if command.temporary {
            return Err(RequestError::new(codes::NOT_SUPPORTED, "there are no temporary tables", "Ingest into a table of its own."));
        }
        if command.transaction_id.is_some() {
            return Err(no_transaction());
        }
        for (what, given, is) in [("catalog", command.catalog, CATALOG), ("schema", command.schema, SCHEMA)] {
            if let Some(given) = given.filter(|given| !given.is_empty() && given != is) {
                return Err(RequestError::new("3F000", format!("{what} \"{given}\" takes no rows"), format!("The {what} is \"{is}\".")));
            }
        }
        let mut key = key;
        for (name, value) in command.options {
            match name.as_str() {
                KEY => key = Some(value),
                _ => {
                    let message = format!("unknown option \"{name}\" of an ingestion");
                    return Err(RequestError::new("22023", message, format!("The only one is \"{KEY}\".")));
                }
            }
        }
        let options = command.table_definition_options.unwrap_or_default();
        let if_missing = match options.if_not_exist() {
            TableNotExistOption::Create => IfMissing::Create,
            TableNotExistOption::Fail | TableNotExistOption::Unspecified => IfMissing::Fail,
        };
        let if_there = match options.if_exists() {
            TableExistsOption::Fail => IfThere::Fail,
            TableExistsOption::Replace => IfThere::Replace,
            TableExistsOption::Append | TableExistsOption::Unspecified => IfThere::Append,
        };
        Self { name: command.table, if_missing, if_there, key }.checked()
    }

    /// What a descriptor with a path says: `name`, or `millstream`, `public`, `name`.
    ///
    /// # Errors
    /// When the path is no name of a relation.
    pub(super) fn of_path(descriptor: &FlightDescriptor, key: Option<String>) -> Result<Self, RequestError> {
        let name = path_name(descriptor)?.to_string();
        Self { name, if_missing: IfMissing::Fail, if_there: IfThere::Append, key }.checked()
    }

    fn checked(self) -> Result<Self, RequestError> {
        if self.name.is_empty() {
            return Err(RequestError::new(codes::SYNTAX, "the ingestion names no table", ""));
        }
        if let Some(key) = &self.key {
            ingestion::key(key.as_bytes())?;
        }
        Ok(self)
    }
}

/// The relation that the path of a descriptor names.
///
/// # Errors
/// When it is none.
pub(super) fn path_name(descriptor: &FlightDescriptor) -> Result<&str, RequestError> {
    match descriptor.path.as_slice() {
        [name] => Ok(name),
        [schema, name] if schema == SCHEMA => Ok(name),
        [catalog, schema, name] if catalog == CATALOG && schema == SCHEMA => Ok(name),
        path => Err(RequestError::new(
            "42602",
            format!("a path of {} parts names no relation", path.len()),
            format!("A path is the name of a table or stream; \"{CATALOG}\" and \"{SCHEMA}\" may stand before it."),
        )),
    }
}

/// A name as SQL writes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Inserts rows, and gives how many there were.
///
/// # Errors
/// As for INSERT.
pub(super) async fn insert(
    service: &Arc<Service>,
    session: &FlightSession,
    target: Target,
    received: Received,
) -> Result<i64, RequestError> {
    let Some(schema) = received.schema else {
        return Err(RequestError::new(
            codes::PROTOCOL,
            "no schema came before the end of the rows",
            "Send a schema, then its record batches.",
        ));
    };
    let Target { name, if_missing, if_there, key } = target;
    // What fits is found out also where there are no rows.
    let batches = match received.batches {
        batches if batches.is_empty() => vec![RecordBatch::new_empty(Arc::clone(&schema))],
        batches => batches,
    };
    let exact =
        |batches: &[RecordBatch], wanted: &Schema| exact_batches(batches, wanted).map_err(|refusal| ingestion::refused(&refusal, wanted));
    let is_there = service.engine.catalog().iter().any(|entry| entry.name == name);
    match (is_there, if_there, if_missing) {
        (true, IfThere::Fail, _) => {
            return Err(RequestError::new("42P07", format!("relation {} exists already", quoted(&name)), "Append to it, or replace it."));
        }
        (true, IfThere::Replace, _) => {
            exact(&batches, &defined(&schema))?;
            define(service, session, "CREATE OR REPLACE TABLE", &name, &schema).await?;
        }
        (false, _, IfMissing::Create) => {
            exact(&batches, &defined(&schema))?;
            define(service, session, "CREATE TABLE", &name, &schema).await?;
        }
        (true, IfThere::Append, _) | (false, _, IfMissing::Fail) => {}
    }
    let batches = exact(&batches, session.session.insert_schema(&name)?.as_ref())?;
    let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let engine = session.session.clone();
    within(service, session, aside(async move { engine.insert_rows(&name, batches, key.as_deref()).await })).await?;
    Ok(i64::try_from(count).unwrap_or(i64::MAX))
}

/// The columns of a table that is made for rows.
fn defined(schema: &Schema) -> Schema {
    let field = |field: &FieldRef| {
        let data_type = sent_as(field.data_type()).unwrap_or(DataType::Utf8);
        Field::new(field.name(), data_type, field.is_nullable())
    };
    Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())
}

async fn define(service: &Arc<Service>, session: &FlightSession, verb: &str, name: &str, schema: &Schema) -> Result<(), RequestError> {
    let column = |field: &FieldRef| {
        let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
        format!("{} {}{not_null}", quoted(field.name()), sql_type(field.data_type()))
    };
    let columns: Vec<String> = defined(schema).fields().iter().map(column).collect();
    let text = format!("{verb} {} ({})", quoted(name), columns.join(", "));
    let statement = millstream_sql::parse_statement(&text).map_err(|error| {
        let error = RequestError::from(error);
        let message = format!("no table can be made for these columns: {}", error.message);
        RequestError::new(error.code, message, "CREATE the table yourself, and append to it.")
    })?;
    let engine = session.session.clone();
    within(service, session, aside(async move { engine.execute_parsed(statement).await })).await?;
    Ok(())
}

/// The error of a request that names a transaction.
pub(super) fn no_transaction() -> RequestError {
    RequestError::new(
        codes::NOT_SUPPORTED,
        "transactions are not named by requests",
        "Send BEGIN and COMMIT as statements of one session; they hold for everything in between.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_commands_name_relations() {
        let path = |parts: &[&str]| {
            let descriptor = FlightDescriptor::new_path(parts.iter().map(ToString::to_string).collect());
            Target::of_path(&descriptor, None).map(|target| target.name).map_err(|error| error.message)
        };
        assert_eq!(path(&["t"]), Ok("t".into()));
        assert_eq!(path(&["millstream", "public", "t"]), Ok("t".into()));
        for wrong in [&["..", "..", "etc"][..], &["a", "b"], &[], &[""], &["millstream", "public", ""], &["a", "b", "c", "d"]] {
            assert!(path(wrong).is_err(), "{wrong:?}");
        }
        let command = |change: fn(&mut CommandStatementIngest)| {
            let mut command = CommandStatementIngest { table: "t".into(), ..CommandStatementIngest::default() };
            change(&mut command);
            Target::of_command(command, None).map_err(|error| error.message)
        };
        assert_eq!(command(|_| {}).unwrap().if_missing, IfMissing::Fail);
        assert_eq!(command(|command| command.temporary = true).unwrap_err(), "there are no temporary tables");
        assert_eq!(command(|command| command.schema = Some("x".into())).unwrap_err(), "schema \"x\" takes no rows");
        assert!(command(|command| drop(command.options.insert("x".into(), "y".into()))).is_err());
        assert!(command(|command| drop(command.options.insert(KEY.into(), String::new()))).is_err());
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
