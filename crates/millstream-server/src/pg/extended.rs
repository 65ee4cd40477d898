//! The extended protocol: prepared statements, their parameters, and portals that are run in parts. Cursors and statements of SQL have
//! names beside them.

use super::connection::{Connection, Ended};
use super::execute::{Outcome, Parsed, parse};
use super::values::parameter::literal;
use super::values::types::{Column, columns, data_type, parameter_type};
use super::wire::Target;
use crate::aside::aside;
use crate::error::{RequestError, codes};
use crate::prepared::{Prepared, bound};
use crate::rows::RowSource;
use arrow::datatypes::DataType;
use bytes::Bytes;
use millstream_engine::catalog::resolve::fold;
use millstream_engine::{BoundValue, Described};
use millstream_sql::Statement;
use millstream_sql::statement::{Emit, Prepare, QueryStatement};
use postgres_types::Type;
use sqlparser::ast::Expr;
use std::sync::Arc;

/// What the protocol keeps with a prepared statement.
#[derive(Debug)]
pub(super) struct Sent {
    /// The types that values are sent as.
    kinds: Vec<Type>,
    /// The columns of its rows, if it gives any.
    columns: Option<Vec<Column>>,
}

/// A statement with its values, to be run.
pub(super) struct Portal {
    state: State,
    columns: Option<Vec<Column>>,
    formats: Vec<i16>,
}

enum State {
    /// Not run yet: with the values in the places of its parameters.
    Bound(Parsed, String),
    /// A query that is not run yet, and the values of its parameters.
    Query(Box<Statement>, Vec<BoundValue>, String),
    /// Rows are left, perhaps.
    Running(RowSource, &'static str),
    /// All rows were sent.
    Finished(&'static str),
}

impl Connection {
    pub(super) async fn parse_message(&mut self, name: String, text: String, types: &[u32]) -> Result<(), Ended> {
        if !name.is_empty() {
            self.statements.check_new(&name)?;
        }
        self.begin_statement();
        self.service.check_length(&self.session, &text)?;
        let kinds: Vec<Option<Type>> = types.iter().map(|oid| Type::from_oid(*oid).filter(|kind| *kind != Type::UNKNOWN)).collect();
        let prepared = self.prepared(text.clone(), &kinds).await.map_err(|ended| placed(ended, &text))?;
        self.statements.keep(name, prepared)?;
        self.writer.answers.parse_complete();
        Ok(())
    }

    /// Reads a statement and finds out what it takes and gives.
    async fn prepared(&mut self, text: String, kinds: &[Option<Type>]) -> Result<Prepared<Sent>, Ended> {
        let script = millstream_sql::split::split(&text);
        if let Some(error) = script.error {
            return Err(error.into());
        }
        let parsed = match script.statements.as_slice() {
            [] => Parsed::Empty,
            [statement] => parse(&self.service, &text[..statement.offset + statement.text.len()])?,
            _ => {
                let message = "cannot insert multiple commands into a prepared statement";
                return Err(RequestError::new(codes::SYNTAX, message, "Send them one by one.").into());
            }
        };
        let mut given: Vec<Option<DataType>> = kinds.iter().map(|kind| kind.as_ref().and_then(parameter_type)).collect();
        if let Parsed::Engine(statement) = &parsed {
            self.give_numeric_types(statement, kinds, &mut given).await?;
        }
        let described = match &parsed {
            Parsed::Empty => Described { parameters: Vec::new(), columns: None },
            Parsed::Catalog(query) => {
                let (service, query) = (Arc::clone(&self.service), query.clone());
                let (parameters, columns) = self.guarded(aside(async move { service.catalog.describe(&query, &given).await })).await?;
                let mut sent: Vec<Type> = parameters.iter().enumerate().map(|(index, wanted)| kind_of(kinds, index, wanted)).collect();
                sent.iter_mut().filter(|kind| **kind == Type::INT4_ARRAY).for_each(|kind| *kind = Type::OID_ARRAY);
                // Lists of numbers are lists of object identifiers there, which drivers have built in.
                let sent = Sent { kinds: sent, columns: Some(columns_of_catalog(&columns)) };
                return Ok(Prepared { text, parsed, described: Described { parameters, columns: Some(columns) }, wire: sent });
            }
            Parsed::Engine(statement) => match statement.as_ref() {
                Statement::Fetch(fetch) => Described { parameters: Vec::new(), columns: self.cursors.describe(fetch)? },
                Statement::Execute(execute) => {
                    let (described, executed) = self.statements.describe(execute)?;
                    let columns = executed.wire.columns.clone();
                    let kinds = described.parameters.iter().enumerate().map(|(index, wanted)| kind_of(kinds, index, wanted)).collect();
                    return Ok(Prepared { text, parsed, described, wire: Sent { kinds, columns } });
                }
                statement => self.describe_engine(statement, given).await?,
            },
        };
        let wire = Sent {
            kinds: described.parameters.iter().enumerate().map(|(index, wanted)| kind_of(kinds, index, wanted)).collect(),
            columns: described.columns.as_ref().map(|schema| columns(schema)),
        };
        Ok(Prepared { text, parsed, described, wire })
    }

    /// A `numeric` is what its place makes of it; where nothing does, it has ten decimal places.
    async fn give_numeric_types(
        &mut self,
        statement: &Statement,
        kinds: &[Option<Type>],
        given: &mut [Option<DataType>],
    ) -> Result<(), Ended> {
        if !kinds.contains(&Some(Type::NUMERIC)) || matches!(statement, Statement::Fetch(_) | Statement::Execute(_)) {
            return Ok(());
        }
        let inferred = self.describe_engine(statement, given.to_vec()).await?.parameters;
        for (index, kind) in kinds.iter().enumerate() {
            if *kind == Some(Type::NUMERIC) && inferred.get(index) == Some(&DataType::Utf8) {
                given[index] = Some(DataType::Decimal128(38, 10));
            }
        }
        Ok(())
    }

    async fn describe_engine(&mut self, statement: &Statement, given: Vec<Option<DataType>>) -> Result<Described, Ended> {
        let (session, statement) = (self.session.clone(), statement.clone());
        self.guarded(aside(async move { session.describe_statement(&statement, &given).await })).await
    }

    pub(super) async fn bind_message(
        &mut self,
        name: String,
        statement: &str,
        formats: &[i16],
        values: &[Option<Bytes>],
        result_formats: Vec<i16>,
    ) -> Result<(), Ended> {
        let prepared = self.statements.get(statement)?;
        if let Some(format) = formats.iter().chain(&result_formats).find(|format| !matches!(format, 0 | 1)) {
            return Err(RequestError::new(codes::PROTOCOL, format!("unsupported format code: {format}"), "").into());
        }
        let types = &prepared.described.parameters;
        if values.len() != types.len() {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement \"{statement}\" requires {}",
                values.len(),
                types.len()
            );
            return Err(RequestError::new(codes::WRONG_PARAMETERS, message, "").into());
        }
        if formats.len() > 1 && formats.len() != values.len() {
            let message = format!("bind message has {} parameter formats but {} parameters", formats.len(), values.len());
            return Err(RequestError::new(codes::PROTOCOL, message, "").into());
        }
        if !name.is_empty() && (self.portals.contains_key(&name) || self.cursors.has(&name)) {
            let message = format!("portal \"{name}\" exists already");
            return Err(RequestError::new(codes::DUPLICATE_CURSOR, message, "Close it first.").into());
        }
        self.check_portals()?;
        let mut literals = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let binary = super::connection::is_binary(formats, index);
            let literal = literal(value.as_ref(), binary, &prepared.wire.kinds[index], &types[index]);
            literals.push(literal.map_err(|error| RequestError::new(codes::BAD_VALUE, format!("parameter ${}: {error}", index + 1), ""))?);
        }
        let state = match &prepared.parsed {
            Parsed::Engine(statement) if matches!(**statement, Statement::Query(QueryStatement { emit: Emit::None, .. })) => {
                State::Query(statement.clone(), bound_values(literals, &prepared), prepared.text.clone())
            }
            parsed => State::Bound(bound(parsed, &literals)?, prepared.text.clone()),
        };
        self.portals.insert(name, Portal { state, columns: prepared.wire.columns.clone(), formats: result_formats });
        self.writer.answers.bind_complete();
        Ok(())
    }

    fn check_portals(&self) -> Result<(), RequestError> {
        let most = self.service.limits.prepared;
        if self.portals.len() < most {
            return Ok(());
        }
        Err(RequestError::new(
            codes::TOO_LARGE,
            format!("the connection has {most} portals already"),
            "Close those that are not used any more.",
        ))
    }

    pub(super) fn describe_message(&mut self, target: Target, name: &str) -> Result<(), Ended> {
        let (columns, formats) = match target {
            Target::Statement => {
                let prepared = self.statements.get(name)?;
                let oids: Vec<u32> = prepared.wire.kinds.iter().map(Type::oid).collect();
                self.writer.answers.parameters(&oids);
                (prepared.wire.columns.clone(), Vec::new())
            }
            Target::Portal => match (self.portals.get(name), self.cursors.columns(name)) {
                (Some(portal), _) => (portal.columns.clone(), portal.formats.clone()),
                // Drivers ask for a cursor's columns before they fetch.
                (None, Some(schema)) => (Some(columns(&schema)), Vec::new()),
                (None, None) => return Err(no_portal(name).into()),
            },
        };
        match columns {
            Some(columns) => self.row_description(&columns, &formats),
            None => self.writer.answers.no_data(),
        }
        Ok(())
    }

    pub(super) async fn execute_message(&mut self, name: &str, rows_max: u32) -> Result<(), Ended> {
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let state = std::mem::replace(&mut portal.state, State::Finished("SELECT"));
        let formats = portal.formats.clone();
        self.begin_statement();
        let outcome = match state {
            State::Finished(tag) => {
                self.writer.answers.command_complete(&format!("{tag} 0"));
                return Ok(());
            }
            State::Running(source, tag) => Outcome::Rows(source, tag),
            State::Bound(parsed, text) => self.execute(parsed).await.map_err(|ended| placed(ended, &text))?,
            State::Query(query, values, text) => self.execute_query(*query, values).await.map_err(|ended| placed(ended, &text))?,
        };
        let (mut source, tag) = match outcome {
            Outcome::Rows(source, tag) => (source, tag),
            other => return self.send_outcome(other).await,
        };
        let most = (rows_max > 0).then_some(u64::from(rows_max));
        let (sent, more) = self.send_rows(&mut source, &formats, most).await?;
        let state = if more { State::Running(source, tag) } else { State::Finished(tag) };
        if let Some(portal) = self.portals.get_mut(name) {
            portal.state = state;
        }
        match more {
            true => self.writer.answers.portal_suspended(),
            false => self.writer.answers.command_complete(&format!("{tag} {sent}")),
        }
        Ok(())
    }

    pub(super) fn close_message(&mut self, target: Target, name: &str) {
        match target {
            Target::Statement => {
                self.statements.remove(name);
            }
            Target::Portal => {
                if self.portals.remove(name).is_none() {
                    self.cursors.remove(name);
                }
            }
        }
        self.writer.answers.close_complete();
    }

    /// `PREPARE name AS statement`.
    pub(super) async fn prepare_statement(&mut self, prepare: &Prepare) -> Result<Outcome, Ended> {
        let name = fold(&prepare.name);
        self.statements.check_new(&name)?;
        let prepared = self.prepared(prepare.statement.canonical_text(), &[]).await?;
        self.statements.keep(name, prepared)?;
        Ok(Outcome::Done("PREPARE".into()))
    }
}

/// The type a value is sent as: the client's, else the one the statement takes.
fn kind_of(kinds: &[Option<Type>], index: usize, wanted: &DataType) -> Type {
    kinds.get(index).cloned().flatten().unwrap_or_else(|| data_type(wanted))
}

fn columns_of_catalog(schema: &arrow::datatypes::Schema) -> Vec<Column> {
    let mut columns = columns(schema);
    for column in columns.iter_mut().filter(|column| column.kind == Type::INT4_ARRAY) {
        column.kind = Type::OID_ARRAY;
    }
    columns
}

/// Values with the types that their literals have.
fn bound_values(literals: Vec<Expr>, prepared: &Prepared<Sent>) -> Vec<BoundValue> {
    let kinds = prepared.wire.kinds.iter().zip(&prepared.described.parameters);
    let types = kinds.map(|(kind, wanted)| parameter_type(kind).unwrap_or_else(|| wanted.clone()));
    literals.into_iter().zip(types).map(|(literal, data_type)| BoundValue { literal, data_type }).collect()
}

/// A failure with its place in the text, where it has one.
fn placed(ended: Ended, text: &str) -> Ended {
    match ended {
        Ended::Failed(error) => match error.position(text, 0) {
            Some(position) => Ended::Placed(error, position),
            None => Ended::Failed(error),
        },
        other => other,
    }
}

fn no_portal(name: &str) -> RequestError {
    RequestError::new(codes::NO_CURSOR, format!("portal \"{name}\" does not exist"), "")
}
