//! A statement carried out: by the engine, by the catalog, by what the session has (cursors, prepared statements), or by the connection
//! itself (COPY).

use super::catalog::CatalogQuery;
use super::connection::{Connection, Ended};
use super::copy::{CopyIn, CopyOptions, copied};
use super::names::{make_distinct, without_database};
use super::values::types::columns;
use crate::aside::aside;
use crate::cursors::Fetched;
use crate::error::{RequestError, codes};
use crate::rows::RowSource;
use crate::service::Service;
use millstream_engine::catalog::resolve::{fold, object_name};
use millstream_engine::{BoundValue, EngineError, Output, StatementResult};
use millstream_sql::Statement;
use millstream_sql::statement::{Copy, CopyTarget, DeclareCursor, Emit, QueryStatement};
use std::sync::Arc;

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
        Statement::Update(statement) | Statement::Delete(statement) => without_database(&mut **statement),
        statement => statement.query_mut().into_iter().for_each(|query| without_database(query)),
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
                Ok(parsed) => self.run_and_send(parsed).await,
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
    async fn run_and_send(&mut self, parsed: Parsed) -> Result<(), Ended> {
        match self.execute(parsed).await? {
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
            Outcome::CopyOut(source, options) => self.copy_out(source, options).await?,
            Outcome::CopyIn(copy) => self.copy_in(copy).await?,
            Outcome::Rows(..) => return Err(EngineError::Internal("rows are sent by the protocol that asked for them".into()).into()),
        }
        Ok(())
    }

    /// Carries a statement out up to its first row.
    pub(super) async fn execute(&mut self, parsed: Parsed) -> Result<Outcome, Ended> {
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
            Statement::Fetch(fetch) => {
                let cursors = Arc::clone(&self.cursors);
                match self.guarded(cursors.fetch(&fetch)).await? {
                    Fetched::Rows(rows) => Ok(Outcome::Rows(rows, "FETCH")),
                    Fetched::Moved(rows) => Ok(Outcome::Done(format!("MOVE {rows}"))),
                }
            }
            Statement::CloseCursor(name) => {
                self.cursors.close(name.as_ref())?;
                Ok(Outcome::Done("CLOSE CURSOR".into()))
            }
            Statement::Prepare(prepare) => self.prepare_statement(&prepare).await,
            Statement::Execute(execute) => {
                let parsed = self.statements.execute(&execute)?;
                Box::pin(self.execute(parsed)).await
            }
            Statement::Deallocate(deallocate) => Ok(Outcome::Done(self.statements.deallocate(&deallocate)?.into())),
            statement => {
                self.check_set(&statement)?;
                let ends = matches!(statement, Statement::Commit | Statement::Rollback);
                let discards = matches!(statement, Statement::Other(_)) && statement.to_string().eq_ignore_ascii_case("DISCARD ALL");
                let (session, asked) = (self.session.clone(), statement.clone());
                let result = self.guarded(aside(async move { session.execute_parsed(asked).await })).await;
                if ends {
                    // What a transaction has ends with it, however it ends.
                    self.portals.clear();
                    self.cursors.end_transaction();
                }
                let result = result?;
                self.notices(&result.notices);
                if discards {
                    self.statements.clear();
                    self.portals.clear();
                    self.cursors.clear();
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
        let statement = copied(copy)?;
        let session = self.session.clone();
        let result = self.guarded(aside(async move { session.execute_parsed(statement).await })).await?;
        self.notices(&result.notices);
        match RowSource::of_output(result.output) {
            Some(rows) => Ok(Outcome::CopyOut(rows, options)),
            None => Err(EngineError::Internal("a query without rows".into()).into()),
        }
    }

    async fn declare_cursor(&mut self, declare: DeclareCursor) -> Result<Outcome, Ended> {
        let name = fold(&declare.name);
        if self.portals.contains_key(&name) {
            return Err(RequestError::new(codes::DUPLICATE_CURSOR, format!("portal \"{name}\" exists already"), "Close it first.").into());
        }
        let (cursors, session) = (Arc::clone(&self.cursors), self.session.clone());
        let notices = self.guarded(cursors.declare(&session, declare)).await?;
        self.notices(&notices);
        Ok(Outcome::Done("DECLARE CURSOR".into()))
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
