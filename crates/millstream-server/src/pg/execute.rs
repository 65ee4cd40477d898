//! A statement carried out: by the engine, by the catalog, or by the connection itself (cursors, COPY, prepared statements).

use super::catalog::CatalogQuery;
use super::connection::{Connection, Ended};
use super::copy::{CopyIn, CopyOptions};
use super::extended::Portal;
use super::names::{make_distinct, without_database};
use super::values::types::columns;
use crate::aside::aside;
use crate::error::{RequestError, codes};
use crate::rows::{Present, RowSource};
use crate::service::Service;
use arrow::array::RecordBatch;
use millstream_engine::catalog::resolve::{fold, object_name};
use millstream_engine::{BoundValue, EngineError, Output, StatementResult};
use millstream_sql::Statement;
use millstream_sql::statement::{Copy, CopySource, CopyTarget, DeclareCursor, Emit, Fetch, QueryStatement};
use sqlparser::ast;
use std::sync::Arc;
use std::time::Duration;

/// A statement that has been read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Parsed {
    /// Nothing but blanks and comments.
    Empty,
    /// A statement of the dialect.
    Engine(Box<Statement>),
    /// A query over `pg_catalog` or `information_schema`.
    Catalog(Box<CatalogQuery>),
}

/// What a statement gives.
pub(super) enum Outcome {
    /// It was none.
    Empty,
    /// The words that say it is done.
    Done(String),
    /// Rows, and the first word of what says they were all.
    Rows(RowSource, &'static str),
    /// Rows to be sent as a copy.
    CopyOut(RowSource, CopyOptions),
    /// Rows to be taken.
    CopyIn(CopyIn),
}

/// Reads a statement.
///
/// # Errors
/// When it is none.
pub(crate) fn parse(service: &Service, text: &str) -> Result<Parsed, RequestError> {
    millstream_sql::depth::check_text(text)?;
    if let Some(query) = service.catalog.recognize(text) {
        return Ok(Parsed::Catalog(Box::new(query)));
    }
    let mut statement = millstream_sql::parse_statement(text)?;
    match &mut statement {
        Statement::Update(statement) | Statement::Delete(statement) => without_database(statement.as_mut()),
        statement => statement.query_mut().into_iter().for_each(without_database),
    }
    if let Statement::Query(QueryStatement { query, emit: Emit::None }) = &mut statement {
        make_distinct(query);
    }
    Ok(Parsed::Engine(Box::new(statement)))
}

impl Connection {
    /// The simple protocol: statements one after the other, until one fails.
    pub(super) async fn simple_query(&mut self, text: &str) -> Result<(), Ended> {
        let script = millstream_sql::split::split(text);
        if script.statements.is_empty() && script.error.is_none() {
            self.writer.answers.empty_query();
            return Ok(());
        }
        for statement in &script.statements {
            self.begin_statement();
            let fits = self.service.check_length(&self.session, statement.text);
            let carried_out = match fits.and_then(|()| parse(&self.service, statement.text)) {
                Ok(parsed) => self.run_and_send(parsed, statement.text).await,
                Err(error) => Err(Ended::Failed(error)),
            };
            match carried_out {
                Ok(()) => {}
                Err(Ended::Failed(error)) => {
                    let position = error.position(text, statement.offset);
                    self.failed(&error, position);
                    return Ok(());
                }
                Err(ended) => return Err(ended),
            }
        }
        if let Some(error) = script.error {
            let error = RequestError::from(error);
            let position = error.position(text, 0);
            self.failed(&error, position);
        }
        Ok(())
    }

    /// Carries a statement out and sends everything it gives, as text.
    async fn run_and_send(&mut self, parsed: Parsed, text: &str) -> Result<(), Ended> {
        match self.execute(parsed, text).await? {
            Outcome::Rows(mut source, tag) => {
                self.row_description(&columns(&source.schema()), &[]);
                let (sent, _) = self.send_rows(&mut source, &[], None).await?;
                self.writer.answers.command_complete(&format!("{tag} {sent}"));
                Ok(())
            }
            other => self.send_outcome(other).await,
        }
    }

    /// Sends what is the same in both protocols.
    pub(super) async fn send_outcome(&mut self, outcome: Outcome) -> Result<(), Ended> {
        match outcome {
            Outcome::Empty => self.writer.answers.empty_query(),
            Outcome::Done(tag) => self.writer.answers.command_complete(&tag),
            Outcome::CopyOut(source, options) => self.copy_out(source, &options).await?,
            Outcome::CopyIn(copy) => self.copy_in(copy).await?,
            Outcome::Rows(..) => return Err(EngineError::Internal("rows are sent by the protocol that asked for them".into()).into()),
        }
        Ok(())
    }

    /// Carries a statement out up to its first row. `text` is its text, for what is prepared from it.
    pub(super) async fn execute(&mut self, parsed: Parsed, text: &str) -> Result<Outcome, Ended> {
        let statement = match parsed {
            Parsed::Empty => return Ok(Outcome::Empty),
            Parsed::Catalog(query) => {
                self.session.check_user()?;
                let service = Arc::clone(&self.service);
                let rows = self.guarded(aside(async move { service.catalog.run(&query).await })).await?;
                return Ok(Outcome::Rows(RowSource::of_stream(rows), "SELECT"));
            }
            Parsed::Engine(statement) => *statement,
        };
        self.session.authorize(&statement)?;
        match statement {
            Statement::Copy(copy) if copy.target == CopyTarget::Stdout => self.begin_copy_out(copy).await,
            Statement::CopyFrom(copy) => {
                let target = object_name(&copy.target);
                let schema = self.session.insert_schema(&target)?;
                Ok(Outcome::CopyIn(CopyIn::new(target, &schema, &copy, self.service.limits.copy_bytes)?))
            }
            Statement::DeclareCursor(declare) => self.declare_cursor(declare).await,
            Statement::Fetch(fetch) => self.fetch(&fetch).await,
            Statement::CloseCursor(name) => {
                match name.as_ref().map(fold) {
                    None => self.portals.retain(|_, portal| !portal.is_cursor()),
                    Some(name) => drop(self.portals.remove(&name).ok_or_else(|| no_cursor(&name))?),
                }
                Ok(Outcome::Done("CLOSE CURSOR".into()))
            }
            Statement::Prepare(prepare) => self.prepare_statement(&prepare, text).await,
            Statement::Execute(execute) => self.execute_prepared(&execute).await,
            Statement::Deallocate(deallocate) => {
                let ast::Statement::Deallocate { name, .. } = deallocate.as_ref() else {
                    return Err(EngineError::Internal("a DEALLOCATE that is none".into()).into());
                };
                let name = fold(name);
                if name == "all" {
                    self.statements.clear();
                    return Ok(Outcome::Done("DEALLOCATE ALL".into()));
                }
                match self.statements.remove(&name) {
                    Some(_) => Ok(Outcome::Done("DEALLOCATE".into())),
                    None => Err(no_statement(&name).into()),
                }
            }
            statement => {
                self.check_set(&statement)?;
                let ends = matches!(statement, Statement::Commit | Statement::Rollback);
                let discards = statement.to_string().eq_ignore_ascii_case("DISCARD ALL");
                let (session, asked) = (self.session.clone(), statement.clone());
                let result = self.guarded(aside(async move { session.execute_parsed(asked).await })).await;
                if ends {
                    // Cursors of a transaction end with it, however it ends.
                    self.portals.retain(|_, portal| portal.holds());
                }
                let result = result?;
                self.notices(&result.notices);
                if discards {
                    self.statements.clear();
                    self.portals.clear();
                }
                self.tell_setting(&statement);
                Ok(outcome(result))
            }
        }
    }

    /// Carries out a query with values for its parameters, up to its first row.
    pub(super) async fn execute_query(&mut self, query: Statement, values: Vec<BoundValue>) -> Result<Outcome, Ended> {
        let session = self.session.clone();
        let result = self.guarded(aside(async move { session.execute_bound(query, &values).await })).await?;
        self.notices(&result.notices);
        Ok(outcome(result))
    }

    /// A setting whose value the protocol depends on.
    fn check_set(&self, statement: &Statement) -> Result<(), RequestError> {
        let Statement::Set(set) = statement else { return Ok(()) };
        let utf8 = ["utf8", "utf-8", "unicode", "default", "sql_ascii"];
        if set.name == "client_encoding" && !utf8.contains(&set.value.to_lowercase().as_str()) {
            return Err(RequestError::new("22023", format!("client_encoding cannot be \"{}\"", set.value), "Everything is sent in UTF8."));
        }
        Ok(())
    }

    /// Clients keep the values of some settings.
    fn tell_setting(&mut self, statement: &Statement) {
        let Statement::Set(set) = statement else { return };
        let reported = match set.name.as_str() {
            "application_name" => "application_name",
            "timezone" => "TimeZone",
            _ => return,
        };
        self.writer.answers.parameter_status(reported, &set.value);
    }

    async fn begin_copy_out(&mut self, copy: Copy) -> Result<Outcome, Ended> {
        let options = CopyOptions::new(copy.format.as_deref(), &copy.options, true)?;
        let statement = match copy.source {
            CopySource::Query(query) => Statement::Query(QueryStatement { query, emit: Emit::None }),
            CopySource::Relation(name) => millstream_sql::parse_statement(&format!("SELECT * FROM {name}"))?,
            CopySource::Subscribe(subscribe) => Statement::Subscribe(subscribe),
        };
        Ok(Outcome::CopyOut(self.rows_of(statement).await?, options))
    }

    /// The rows of a query or a subscription.
    pub(super) async fn rows_of(&mut self, statement: Statement) -> Result<RowSource, Ended> {
        let session = self.session.clone();
        let result = self.guarded(aside(async move { session.execute_parsed(statement).await })).await?;
        self.notices(&result.notices);
        match result.output {
            Output::Rows(rows) => Ok(RowSource::of_rows(rows)),
            Output::Changes(subscription) => Ok(RowSource::of_changes(subscription)),
            Output::None => Err(EngineError::Internal("a query without rows".into()).into()),
        }
    }

    async fn declare_cursor(&mut self, declare: DeclareCursor) -> Result<Outcome, Ended> {
        let name = fold(&declare.name);
        if self.portals.contains_key(&name) {
            return Err(RequestError::new(codes::DUPLICATE_CURSOR, format!("cursor \"{name}\" exists already"), "CLOSE it first.").into());
        }
        self.check_portals()?;
        let source = self.rows_of(*declare.statement).await?;
        // Outside a transaction there is nothing that would end it.
        let hold = declare.hold || !self.session.in_transaction();
        self.portals.insert(name, Portal::cursor(source, hold));
        Ok(Outcome::Done("DECLARE CURSOR".into()))
    }

    async fn fetch(&mut self, fetch: &Fetch) -> Result<Outcome, Ended> {
        let name = fold(&fetch.cursor);
        let portal = self.portals.get_mut(&name).ok_or_else(|| no_cursor(&name))?;
        let Some(mut source) = portal.take_source() else {
            return Err(no_cursor(&name).into());
        };
        let schema = source.schema();
        let most = fetch.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
        if fetch.count.is_none() && !source.follows() {
            // All that are left; they need not be there at once.
            portal.put_source(RowSource::of_batches(schema, Vec::new()));
            return Ok(Outcome::Rows(source, "FETCH"));
        }
        let fetched = self.fetch_from(&mut source, most, fetch.timeout).await;
        if matches!(&fetched, Err(Ended::Failed(error)) if error.code != codes::CANCELED) {
            // There is no more to come, which must not look like its end.
            self.portals.remove(&name);
        } else if let Some(portal) = self.portals.get_mut(&name) {
            portal.put_source(source);
        }
        Ok(Outcome::Rows(RowSource::of_batches(schema, fetched?), "FETCH"))
    }

    /// Takes so many rows; of a subscription what is there, or what comes within the time.
    async fn fetch_from(&mut self, source: &mut RowSource, most: usize, timeout: Option<Duration>) -> Result<Vec<RecordBatch>, Ended> {
        let mut batches = Vec::new();
        let mut count = 0;
        let mut time = std::pin::pin!(tokio::time::sleep(timeout.unwrap_or_default()));
        while count < most {
            let next = if !source.follows() {
                self.guarded(source.next(most - count)).await?
            } else {
                match source.present(most - count)? {
                    Present::Rows(rows) => Some(rows),
                    Present::End => None,
                    Present::Nothing if timeout.is_none() => None,
                    Present::Nothing => {
                        let wait = async {
                            tokio::select! {
                                next = source.next(most - count) => next,
                                () = &mut time => Ok(None),
                            }
                        };
                        self.guarded(wait).await?
                    }
                }
            };
            let Some(rows) = next else { break };
            count += rows.num_rows();
            batches.push(rows);
        }
        Ok(batches)
    }
}

/// What a statement of the engine gives.
fn outcome(result: StatementResult) -> Outcome {
    match result.output {
        Output::Rows(rows) => Outcome::Rows(RowSource::of_rows(rows), "SELECT"),
        Output::Changes(subscription) => Outcome::Rows(RowSource::of_changes(subscription), "SELECT"),
        // Clients expect the number of an object that no row has any more.
        Output::None => Outcome::Done(match result.tag.strip_prefix("INSERT ") {
            Some(rows) => format!("INSERT 0 {rows}"),
            None => result.tag,
        }),
    }
}

pub(super) fn no_cursor(name: &str) -> RequestError {
    RequestError::new(
        codes::NO_CURSOR,
        format!("cursor \"{name}\" does not exist"),
        "DECLARE it first; a transaction's cursors end with it.",
    )
}

pub(super) fn no_statement(name: &str) -> RequestError {
    RequestError::new(codes::NO_STATEMENT, format!("prepared statement \"{name}\" does not exist"), "")
}
