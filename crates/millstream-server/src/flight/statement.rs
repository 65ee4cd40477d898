//! Statements: what gives rows runs when its result is fetched, everything else when it is asked for.
//!
//! ```text
//!   GetSchema(statement)      ──► columns                    nothing happens
//!   GetFlightInfo(statement)  ──► columns, and a ticket      carried out, unless it waits for who takes its rows
//!   DoGet(ticket)             ──► the rows                   once per ticket
//! ```
//! Drivers that want no rows do not fetch them, or leave in the middle: that must not keep a table from being made. A FETCH waits, so
//! that its rows are out of the cursor when somebody takes them; an EXECUTE does as the statement that it names.
//!
//! `COPY .. TO STDOUT` gives the rows of its query, which is what this protocol is there to copy. Where a form is asked for, with FORMAT
//! or another option, it gives the parts of the copy in that form instead: see [`RowSource::of_copy`]. The rows of `COPY .. FROM STDIN`
//! are those that are bound to it: see `prepared.rs`.
//!
//! **Out**: batches with exactly the columns that were told before. The first message, which has the schema, comes when the statement
//! has been carried out up to its first row, and has JSON as its `app_metadata`: `tag` (`INSERT 3`), `notices`, the `epoch` that was
//! read, and for changes `changes` with the epoch they begin after. A statement without rows gives no columns and no batch.

use super::failure::{in_stream, status};
use super::session::{FlightSession, RunningFetch};
use crate::aside::aside;
use crate::cursors::Fetched;
use crate::error::{RequestError, codes};
use crate::pg::copy::{Format, copied, named_form};
use crate::pg::{Parsed, parse};
use crate::prepared::Prepared;
use crate::rows::{RowSource, copy_schema};
use crate::service::Service;
use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use futures::{Stream, StreamExt};
use millstream_engine::catalog::resolve::{fold, object_name};
use millstream_engine::notice::Severity;
use millstream_engine::{Described, Notice, Output};
use millstream_sql::Statement;
use millstream_sql::statement::{CopyFrom, CopyTarget};
use serde::Serialize;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Sleep;
use tonic::Status;

/// Rows of a batch that is sent.
const BATCH_ROWS: usize = 65_536;

/// Messages on their way to a client.
pub(super) type Messages = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// What is carried out when a result is fetched.
#[derive(Debug)]
pub(super) struct Work {
    /// The statements, whose rows come one after the other; they have the same columns.
    pub(super) statements: VecDeque<Parsed>,
    /// The columns that were told.
    pub(super) schema: SchemaRef,
    /// Bytes of their texts.
    pub(super) bytes: usize,
    /// What came of them, where they have been carried out already.
    pub(super) done: Option<Done>,
}

/// What came of statements that have been carried out.
#[derive(Debug)]
pub(super) struct Done {
    told: Vec<u8>,
    rows: Vec<RecordBatch>,
}

/// What the first message of a result says beside the columns.
#[derive(Debug, Serialize)]
struct Told {
    tag: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<ToldNotice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<ToldChanges>,
}

#[derive(Debug, Serialize)]
struct ToldNotice {
    severity: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct ToldChanges {
    /// The epoch whose rows come first.
    epoch: u64,
    append_only: bool,
}

/// What a statement gave.
struct Outcome {
    told: Told,
    source: Option<RowSource>,
}

/// Reads one statement.
///
/// # Errors
/// When it is none.
pub(super) fn read(service: &Service, text: &str) -> Result<Parsed, RequestError> {
    if text.len() > service.limits.message_bytes {
        return Err(RequestError::new(codes::TOO_LARGE, "the statement is too long", ""));
    }
    parse(service, text)
}

/// What a statement takes and gives. `given` are the types of parameters that the client sends.
///
/// # Errors
/// When the user may not carry it out, or it would fail already for what it names.
pub(super) async fn describe(
    service: &Arc<Service>,
    session: &FlightSession,
    parsed: &Parsed,
    given: Vec<Option<DataType>>,
) -> Result<Described, RequestError> {
    let described = match parsed {
        Parsed::Empty => Described { parameters: Vec::new(), columns: None },
        Parsed::Catalog(query) => {
            let (of_catalog, query) = (Arc::clone(service), query.clone());
            let work = aside(async move { of_catalog.catalog.describe(&query, &given).await });
            let (parameters, columns) = within(service, session, work).await?;
            Described { parameters, columns: Some(columns) }
        }
        Parsed::Engine(statement) => {
            session.session.authorize(statement)?;
            describe_of_session(service, session, statement, given).await?
        }
    };
    let parameters = described.parameters.into_iter().map(|data_type| without_views(&data_type)).collect();
    Ok(Described { parameters, columns: described.columns.map(|schema| plain(&schema)) })
}

/// What a statement of the dialect takes and gives.
async fn describe_of_session(
    service: &Arc<Service>,
    session: &FlightSession,
    statement: &Statement,
    given: Vec<Option<DataType>>,
) -> Result<Described, RequestError> {
    let (subject, columns) = match statement {
        Statement::Fetch(fetch) => return Ok(Described { parameters: Vec::new(), columns: session.cursors.describe(fetch)? }),
        Statement::Execute(execute) => return Ok(session.statements.describe(execute)?.0),
        Statement::CopyFrom(copy) => {
            let columns = copied_columns(session, copy)?;
            let types = columns.fields().iter().map(|field| field.data_type().clone());
            return Ok(Described { parameters: types.collect(), columns: None });
        }
        Statement::Copy(copy) if copy.target == CopyTarget::Stdout => {
            let options = named_form(copy)?;
            (copied(copy.clone())?, options.map(|options| copy_schema(options.format == Format::Binary)))
        }
        other => (other.clone(), None),
    };
    let engine = session.session.clone();
    let described = within(service, session, aside(async move { engine.describe_statement(&subject, &given).await })).await?;
    Ok(Described { columns: columns.or(described.columns), ..described })
}

/// Whether a statement takes rows, as what is bound to it.
pub(super) fn takes_rows(parsed: &Parsed) -> bool {
    matches!(parsed, Parsed::Engine(statement) if matches!(statement.as_ref(), Statement::CopyFrom(_)))
}

/// A COPY from the client that comes without rows.
pub(super) fn no_rows() -> RequestError {
    let hint =
        "Ingest them (adbc_ingest of ADBC, or DoPut with the name as its path), or bind them to the COPY, as executemany of ADBC does.";
    RequestError::new(codes::NOT_SUPPORTED, "COPY FROM STDIN has no rows", hint)
}

/// The columns that the rows of a COPY from the client have.
///
/// # Errors
/// When the target cannot take rows, has no such column, or the COPY has options.
pub(super) fn copied_columns(session: &FlightSession, copy: &CopyFrom) -> Result<SchemaRef, RequestError> {
    let target = object_name(&copy.target);
    let schema = session.session.insert_schema(&target)?;
    if let Some((key, _)) = copy.options.first() {
        let message = format!("COPY FROM STDIN takes Arrow batches here, and no option \"{key}\"");
        return Err(RequestError::new(codes::NOT_SUPPORTED, message, "Leave the options out, and bind the rows."));
    }
    if copy.columns.is_empty() {
        return Ok(schema);
    }
    let field = |column: &sqlparser::ast::Ident| {
        let name = fold(column);
        let missing = || RequestError::new("42703", format!("\"{target}\" has no column \"{name}\""), "");
        schema.field_with_name(&name).cloned().map_err(|_| missing())
    };
    Ok(Arc::new(Schema::new(copy.columns.iter().map(field).collect::<Result<Vec<_>, _>>()?)))
}

/// A type of a parameter as clients are asked for it: any kind of text is taken, and views are what the fewest of them can send.
fn without_views(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

/// Columns as clients are told them, before and with the rows: what differs between a plan and its rows is left out.
fn plain(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Carries out a statement up to its first row.
async fn run(service: &Arc<Service>, session: &FlightSession, parsed: Parsed) -> Result<Outcome, RequestError> {
    service.figures.flight_statements.fetch_add(1, Ordering::Relaxed);
    let done = |tag: &str| Told { tag: tag.into(), notices: Vec::new(), epoch: None, changes: None };
    let statement = match parsed {
        Parsed::Empty => return Ok(Outcome { told: done(""), source: None }),
        Parsed::Catalog(query) => {
            let of_catalog = Arc::clone(service);
            let rows = within(service, session, aside(async move { of_catalog.catalog.run(&query).await })).await?;
            return Ok(Outcome { told: done("SELECT"), source: Some(RowSource::of_stream(rows)) });
        }
        Parsed::Engine(statement) => *statement,
    };
    session.session.authorize(&statement)?;
    let mut form = None;
    let statement = match statement {
        Statement::DeclareCursor(declare) => {
            let notices = within(service, session, session.cursors.declare(&session.session, declare)).await?;
            let told = Told { notices: notices.into_iter().map(told).collect(), ..done("DECLARE CURSOR") };
            return Ok(Outcome { told, source: None });
        }
        Statement::Fetch(fetch) => {
            return Ok(match within(service, session, session.cursors.fetch(&fetch)).await? {
                Fetched::Rows(rows) => Outcome { told: done("FETCH"), source: Some(rows) },
                Fetched::Moved(rows) => Outcome { told: done(&format!("MOVE {rows}")), source: None },
            });
        }
        Statement::CloseCursor(name) => {
            session.cursors.close(name.as_ref())?;
            return Ok(Outcome { told: done("CLOSE CURSOR"), source: None });
        }
        Statement::Prepare(prepare) => {
            let name = fold(&prepare.name);
            session.statements.check_new(&name)?;
            let text = prepare.statement.canonical_text();
            let parsed = read(service, &text)?;
            let described = Box::pin(describe(service, session, &parsed, Vec::new())).await?;
            session.statements.keep(name, Prepared { text, parsed, described, wire: () })?;
            return Ok(Outcome { told: done("PREPARE"), source: None });
        }
        Statement::Execute(execute) => {
            let parsed = session.statements.execute(&execute)?;
            return Box::pin(run(service, session, parsed)).await;
        }
        Statement::Deallocate(deallocate) => {
            return Ok(Outcome { told: done(session.statements.deallocate(&deallocate)?), source: None });
        }
        Statement::CopyFrom(_) => return Err(no_rows()),
        Statement::Copy(copy) if copy.target == CopyTarget::Stdout => {
            form = named_form(&copy)?;
            copied(copy)?
        }
        other => other,
    };
    let ends = matches!(statement, Statement::Commit | Statement::Rollback);
    let discards = matches!(statement, Statement::Other(_)) && statement.to_string().eq_ignore_ascii_case("DISCARD ALL");
    let engine = session.session.clone();
    let result = within(service, session, aside(async move { engine.execute_parsed(statement).await })).await;
    if ends {
        // Cursors of a transaction end with it, however it ends.
        session.cursors.end_transaction();
    }
    let result = result?;
    if discards {
        session.cursors.clear();
        session.statements.clear();
    }
    let mut told = Told { notices: result.notices.into_iter().map(told).collect(), epoch: result.epoch.map(|epoch| epoch.0), ..done("") };
    told.tag = result.tag;
    let source = match result.output {
        Output::None => None,
        Output::Rows(rows) => Some(RowSource::of_rows(rows)),
        Output::Changes(subscription) => {
            told.changes = Some(ToldChanges { epoch: subscription.epoch().0, append_only: subscription.append_only() });
            Some(RowSource::of_changes(subscription))
        }
    };
    let source = match (source, form) {
        (Some(rows), Some(form)) => {
            // What comes are lines then, and no changes that a client could take as such.
            told.changes = None;
            Some(RowSource::of_copy(rows, form))
        }
        (source, _) => source,
    };
    Ok(Outcome { told, source })
}

fn told(notice: Notice) -> ToldNotice {
    let severity = match notice.severity {
        Severity::Notice => "notice",
        Severity::Warning => "warning",
    };
    ToldNotice { severity, message: notice.message, hint: notice.hint }
}

/// Carries out a statement to its end, without its rows, and gives how many it changed; -1 where it does not change rows.
///
/// # Errors
/// When it fails, or has no end.
pub(super) async fn update(service: &Arc<Service>, session: &FlightSession, parsed: Parsed) -> Result<i64, RequestError> {
    let Outcome { told, source } = run(service, session, parsed).await?;
    if let Some(mut source) = source {
        if source.follows() {
            let hint = "Ask for its rows: GetFlightInfo with CommandStatementQuery, then DoGet.";
            return Err(RequestError::new(codes::NOT_SUPPORTED, "changes go on, and are no update", hint));
        }
        within(service, session, async {
            while source.next(BATCH_ROWS).await?.is_some() {}
            Ok::<(), RequestError>(())
        })
        .await?;
        return Ok(-1);
    }
    Ok(told.tag.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(-1))
}

/// Carries out what does not wait until its result is fetched.
///
/// # Errors
/// When it fails.
pub(super) async fn carry_out(service: &Arc<Service>, session: &FlightSession, mut work: Work) -> Result<Work, RequestError> {
    for parsed in &mut work.statements {
        if let Parsed::Engine(statement) = &*parsed
            && let Statement::Execute(execute) = statement.as_ref()
        {
            *parsed = session.statements.execute(execute)?;
        }
    }
    if work.done.is_some() || work.statements.iter().all(waits) {
        return Ok(work);
    }
    let mut done = Done { told: Vec::new(), rows: Vec::new() };
    while let Some(parsed) = work.statements.pop_front() {
        let Outcome { told, source } = run(service, session, parsed).await?;
        if let Some(mut source) = source {
            let schema = SchemaRef::clone(&work.schema);
            let rows = within(service, session, async move {
                let mut rows = Vec::new();
                while let Some(batch) = source.next(BATCH_ROWS).await? {
                    rows.push(as_told(&batch, &schema)?);
                }
                Ok::<_, RequestError>(rows)
            });
            done.rows.extend(rows.await?);
        }
        done.told = serde_json::to_vec(&told).unwrap_or_default();
    }
    work.done = Some(done);
    Ok(work)
}

/// Whether a statement waits for who fetches its rows: it changes nothing but the cursor that they come from.
fn waits(parsed: &Parsed) -> bool {
    match parsed {
        Parsed::Empty => false,
        Parsed::Catalog(_) => true,
        Parsed::Engine(statement) => match statement.as_ref() {
            Statement::Query(_)
            | Statement::Subscribe(_)
            | Statement::Show(_)
            | Statement::ShowCreate(_)
            | Statement::Describe(_)
            | Statement::Explain(_) => true,
            Statement::Fetch(fetch) => !fetch.moves,
            Statement::Copy(copy) => copy.target == CopyTarget::Stdout,
            _ => false,
        },
    }
}

/// Carries out what a ticket stands for, and sends its rows.
///
/// # Errors
/// When it fails before its first row.
pub(super) async fn fetch(service: Arc<Service>, mut work: Work, running: RunningFetch) -> Result<Messages, RequestError> {
    if let Some(Done { told, rows }) = work.done.take() {
        let rows = futures::stream::iter(rows.into_iter().map(Ok));
        let encoder = FlightDataEncoderBuilder::new().with_schema(work.schema).with_metadata(told.into()).build(rows);
        return Ok(Box::pin(encoder.map(|message| message.map_err(Status::from))));
    }
    let first = work.statements.pop_front().unwrap_or(Parsed::Empty);
    let outcome = tokio::select! {
        outcome = run(&service, &running.session, first) => outcome?,
        () = running.canceled.cancelled() => return Err(canceled()),
        () = service.stopped.cancelled() => return Err(stopped()),
    };
    let metadata = serde_json::to_vec(&outcome.told).unwrap_or_default();
    let limit = allowed(&service, &running.session);
    let deadline = limit.map(|limit| Box::pin(tokio::time::sleep(limit)));
    let schema = SchemaRef::clone(&work.schema);
    let sending = Sending { service, running, work, source: outcome.source, deadline, ended: false };
    let rows = futures::stream::unfold(sending, |mut sending| async move {
        if sending.ended {
            return None;
        }
        match sending.next().await {
            Ok(None) => None,
            Ok(Some(batch)) => Some((Ok(batch), sending)),
            Err(error) => {
                sending.service.figures.failed_statements.fetch_add(1, Ordering::Relaxed);
                sending.ended = true;
                Some((Err(in_stream(error)), sending))
            }
        }
    });
    let encoder = FlightDataEncoderBuilder::new().with_schema(schema).with_metadata(metadata.into()).build(rows);
    Ok(Box::pin(encoder.map(|message| message.map_err(Status::from))))
}

/// Rows that are there, as messages.
pub(super) fn batches(schema: SchemaRef, batches: Vec<RecordBatch>) -> Messages {
    let rows = futures::stream::iter(batches.into_iter().map(Ok));
    let encoder = FlightDataEncoderBuilder::new().with_schema(schema).build(rows);
    Box::pin(encoder.map(|message| message.map_err(Status::from)))
}

/// Rows on their way to a client.
struct Sending {
    service: Arc<Service>,
    running: RunningFetch,
    work: Work,
    source: Option<RowSource>,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Sending {
    /// The next rows; `None` at the end.
    async fn next(&mut self) -> Result<Option<RecordBatch>, RequestError> {
        loop {
            let Some(source) = &mut self.source else {
                let Some(parsed) = self.work.statements.pop_front() else { return Ok(None) };
                let carried_out = tokio::select! {
                    outcome = run(&self.service, &self.running.session, parsed) => outcome?,
                    () = self.running.canceled.cancelled() => return Err(canceled()),
                    () = self.service.stopped.cancelled() => return Err(stopped()),
                };
                self.source = carried_out.source;
                continue;
            };
            // Changes come as long as the pipeline runs: no time limit is meant for that, and a server that stops does not wait for them.
            let follows = source.follows();
            let stop = if follows { &self.service.stopping } else { &self.service.stopped };
            let expired = async {
                match &mut self.deadline {
                    Some(deadline) if !follows => deadline.as_mut().await,
                    _ => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                biased;
                () = self.running.canceled.cancelled() => return Err(canceled()),
                () = stop.cancelled() => return Err(stopped()),
                next = source.next(BATCH_ROWS) => next?,
                () = expired => return Err(too_long()),
            };
            match next {
                Some(batch) => return as_told(&batch, &self.work.schema).map(Some),
                None => self.source = None,
            }
        }
    }
}

/// A batch with the columns that were told.
fn as_told(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, RequestError> {
    if batch.num_columns() != schema.fields().len() {
        return Err(RequestError::new("XX000", "the rows have other columns than were told", "Ask for the result again."));
    }
    let fitted = batch.columns().iter().zip(schema.fields()).map(|(column, field)| match column.data_type() == field.data_type() {
        true => Ok(Arc::clone(column)),
        false => cast(column, field.data_type()),
    });
    let columns = fitted.collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(SchemaRef::clone(schema), columns, &options)?)
}

/// How long a statement of a session may take.
fn allowed(service: &Service, session: &FlightSession) -> Option<Duration> {
    service.time_limit(&session.session)
}

/// Waits for work as long as a statement may take.
///
/// # Errors
/// The work's, or that it took too long.
pub(super) async fn within<T>(
    service: &Service,
    session: &FlightSession,
    work: impl Future<Output = Result<T, impl Into<RequestError>>>,
) -> Result<T, RequestError> {
    match allowed(service, session) {
        None => work.await.map_err(Into::into),
        Some(limit) => tokio::time::timeout(limit, work).await.map_err(|_| too_long())?.map_err(Into::into),
    }
}

fn too_long() -> RequestError {
    let hint = "SET statement_timeout gives it more time, up to the server's own limit.";
    RequestError::new(codes::CANCELED, "canceling statement due to statement timeout", hint)
}

fn canceled() -> RequestError {
    RequestError::new(codes::CANCELED, "canceling statement due to user request", "")
}

fn stopped() -> RequestError {
    RequestError::new(codes::SHUTDOWN, "terminating connection due to administrator command", "")
}

/// A failed request, counted.
pub(super) fn failed(service: &Service, error: RequestError) -> Status {
    service.figures.failed_statements.fetch_add(1, Ordering::Relaxed);
    status(error)
}
