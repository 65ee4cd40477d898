//! Arrow Flight SQL: results, parameters and ingested rows as Arrow batches over gRPC.
//!
//! ```text
//!   Handshake       name and password ─► token          auth.rs
//!   GetFlightInfo   statement ─► columns, ticket        statement.rs, prepared.rs, metadata.rs
//!   DoGet           ticket ─► rows, or changes that go on
//!   DoPut           updates, parameters, ingestion      incoming.rs, parameters.rs, ingest.rs
//!   DoAction        prepared statements, cancel, ..     actions.rs
//! ```
//! A subscription is a DoGet that does not end: the batches of an epoch come when it is committed, `epoch` and `op` before the query's
//! columns. It ends when the client cancels it; a client that reads too slowly is cut off with an error. Sessions are in `session.rs`.
//!
//! Browsers cannot reach the port without TLS, since they do not speak HTTP/2 there; with TLS there are users, or the operator said that
//! strangers are welcome. **Reference**: Arrow Flight RPC and Arrow Flight SQL.

mod actions;
mod auth;
mod failure;
mod incoming;
mod ingest;
mod metadata;
mod parameters;
mod prepared;
mod rpc;
mod session;
mod statement;
#[cfg(test)]
mod tests;

use crate::accept::{self, Connection};
use crate::admission::Place;
use crate::aside::aside;
use crate::error::{RequestError, codes};
use crate::ingestion;
use crate::service::{Counted, Service};
use crate::tls::Tls;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::flight_service_server::FlightServiceServer;
use arrow_flight::sql::{
    Any, Command, CommandPreparedStatementQuery, CommandStatementQuery, DoPutPreparedStatementResult, DoPutUpdateResult, ProstMessageExt,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, Result as ActionResult, SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use metadata::Facts;
use prost::Message;
use session::{ConnectionSessions, FlightSession, Sessions};
use statement::{Messages, Work, carry_out, describe, failed, fetch, read};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// How long a client may take for a TLS handshake, and to answer that it is still there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's headers at most.
const HEAD_BYTES: u32 = 64 * 1024;
/// Requests of one connection at a time.
const STREAMS: u32 = 256;
/// The kind of a descriptor that is a path.
const PATH: i32 = 1;

type Sent<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = BoxFuture<'static, Result<Response<T>, Status>>;

/// Accepts connections until the server stops, and returns when the last one has ended.
pub(crate) async fn serve(service: Arc<Service>, listener: TcpListener, tls: Option<Tls>) {
    let facts = match Facts::new() {
        Ok(facts) => Arc::new(facts),
        Err(error) => return tracing::error!(%error, "Arrow Flight SQL is not served"),
    };
    let sessions = Arc::new(Sessions::default());
    let of_flight = Arc::clone(&service);
    let talk = move |connection, place| {
        let flight = Flight {
            service: Arc::clone(&of_flight),
            sessions: Arc::clone(&sessions),
            facts: Arc::clone(&facts),
            connection: Arc::new(ConnectionSessions::default()),
            place,
        };
        requests(flight, connection)
    };
    accept::serve(&service, listener, tls, ANSWER_TIMEOUT, talk).await;
}

async fn requests(flight: Flight, stream: Connection) {
    let service = Arc::clone(&flight.service);
    let _counted = Counted::new(&service.figures.flight_connections);
    let mut builder = Builder::new(TokioExecutor::new()).http2_only();
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(ANSWER_TIMEOUT).keep_alive_timeout(ANSWER_TIMEOUT);
    http2.max_header_list_size(HEAD_BYTES).max_concurrent_streams(STREAMS);
    let grpc = FlightServiceServer::new(flight).max_decoding_message_size(service.limits.message_bytes);
    let connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(grpc)));
    accept::carry_on(&service, connection, |connection| connection.graceful_shutdown()).await;
}

/// What a descriptor asks for.
enum Asked {
    /// Statements, in a session.
    Work(Arc<FlightSession>, Work),
    /// Something of the catalog, with these columns.
    Listing(SchemaRef),
}

/// The protocol, as one connection speaks it.
#[derive(Clone)]
struct Flight {
    service: Arc<Service>,
    sessions: Arc<Sessions>,
    facts: Arc<Facts>,
    connection: Arc<ConnectionSessions>,
    place: Arc<Place>,
}

impl Flight {
    /// The session of a request.
    fn session(&self, headers: &MetadataMap) -> Result<Arc<FlightSession>, RequestError> {
        self.service.figures.flight_requests.fetch_add(1, Ordering::Relaxed);
        self.place.take()?;
        let session = auth::session(&self.service, &self.sessions, &self.connection, headers)?;
        self.connection.hold(&self.service, &session)?;
        Ok(session)
    }

    /// Opens the session of a handshake, and gives its token.
    fn open(&self, headers: &MetadataMap, payload: &[u8]) -> Result<String, RequestError> {
        self.place.take()?;
        let user = auth::handshake(&self.service, headers, payload)?;
        let (token, session) = self.sessions.open(self.service.session(&user), user, self.service.limits)?;
        if let Err(error) = self.connection.hold(&self.service, &session) {
            self.sessions.close(&self.connection, &session);
            return Err(error);
        }
        Ok(token)
    }

    /// The status of a request that failed.
    fn failed(&self, error: RequestError) -> Status {
        failed(&self.service, error)
    }

    /// What a descriptor asks for.
    async fn asked(&self, session: &Arc<FlightSession>, descriptor: &FlightDescriptor) -> Result<Asked, RequestError> {
        if descriptor.r#type == PATH {
            let query = format!("SELECT * FROM {}", ingest::quoted(ingest::path_name(descriptor)?));
            return Ok(Asked::Work(Arc::clone(session), self.statement(session, &query).await?));
        }
        match command(descriptor.cmd.clone())? {
            Command::CommandStatementQuery(CommandStatementQuery { query, transaction_id }) => match transaction_id {
                Some(_) => Err(ingest::no_transaction()),
                None => Ok(Asked::Work(Arc::clone(session), self.statement(session, &query).await?)),
            },
            Command::CommandPreparedStatementQuery(CommandPreparedStatementQuery { prepared_statement_handle }) => {
                let (handle, session) = self.sessions.of_handle(&prepared_statement_handle, &session.user)?;
                let work = session.prepared(&handle)?.work()?;
                Ok(Asked::Work(session, work))
            }
            other => {
                let name = other.type_url().to_string();
                match metadata::rows(&self.service, session, &self.facts, other).await? {
                    Some(rows) => Ok(Asked::Listing(rows.schema())),
                    None => Err(not_served(&name)),
                }
            }
        }
    }

    async fn statement(&self, session: &FlightSession, text: &str) -> Result<Work, RequestError> {
        self.service.check_length(&session.session, text)?;
        let parsed = read(&self.service, text)?;
        let described = describe(&self.service, session, &parsed, Vec::new()).await?;
        if statement::takes_rows(&parsed) {
            return Err(statement::no_rows());
        }
        if !described.parameters.is_empty() {
            let message = format!("the statement takes {} parameters", described.parameters.len());
            return Err(RequestError::new(codes::WRONG_PARAMETERS, message, "Prepare it, and bind them."));
        }
        let schema = described.columns.unwrap_or_else(|| Arc::new(Schema::empty()));
        Ok(Work { statements: VecDeque::from([parsed]), schema, bytes: text.len(), done: None })
    }

    async fn info(&self, session: &Arc<FlightSession>, descriptor: FlightDescriptor) -> Result<FlightInfo, RequestError> {
        let (schema, ticket) = match self.asked(session, &descriptor).await? {
            Asked::Listing(schema) => (schema, descriptor.cmd.clone()),
            Asked::Work(session, work) => {
                let work = carry_out(&self.service, &session, work).await?;
                let schema = SchemaRef::clone(&work.schema);
                let handle = session.keep_work(work);
                let ticket = TicketStatementQuery { statement_handle: Bytes::copy_from_slice(handle.as_bytes()) };
                (schema, ticket.as_any().encode_to_vec().into())
            }
        };
        let info = FlightInfo::new().try_with_schema(&schema)?.with_descriptor(descriptor).with_ordered(true);
        Ok(info.with_endpoint(FlightEndpoint::new().with_ticket(Ticket { ticket })))
    }

    async fn schema(&self, session: &Arc<FlightSession>, descriptor: &FlightDescriptor) -> Result<Bytes, RequestError> {
        match self.asked(session, descriptor).await? {
            Asked::Listing(schema) => actions::encoded(&schema),
            Asked::Work(_, work) => actions::encoded(&work.schema),
        }
    }

    async fn get(&self, session: &Arc<FlightSession>, ticket: Ticket) -> Result<Messages, RequestError> {
        match command(ticket.ticket)? {
            Command::TicketStatementQuery(TicketStatementQuery { statement_handle }) => {
                let (handle, session) = self.sessions.of_handle(&statement_handle, &session.user)?;
                let (work, running) = session.begin(&handle)?;
                fetch(Arc::clone(&self.service), work, running).await
            }
            Command::CommandPreparedStatementQuery(CommandPreparedStatementQuery { prepared_statement_handle }) => {
                let (handle, session) = self.sessions.of_handle(&prepared_statement_handle, &session.user)?;
                let work = carry_out(&self.service, &session, session.prepared(&handle)?.work()?).await?;
                let running = session.unnamed();
                fetch(Arc::clone(&self.service), work, running).await
            }
            other => {
                let name = other.type_url().to_string();
                match metadata::rows(&self.service, session, &self.facts, other).await? {
                    Some(rows) => Ok(statement::batches(rows.schema(), vec![rows])),
                    None => Err(not_served(&name)),
                }
            }
        }
    }

    async fn put(
        &self,
        session: &Arc<FlightSession>,
        key: Option<String>,
        mut messages: Streaming<FlightData>,
    ) -> Result<Bytes, RequestError> {
        let first = messages.message().await.map_err(|status| RequestError::new(codes::PROTOCOL, status.message(), ""))?;
        let Some((descriptor, first)) = first.and_then(|mut first| Some((first.flight_descriptor.take()?, first))) else {
            return Err(RequestError::new(codes::PROTOCOL, "the first message has no descriptor", "It says what the rows are for."));
        };
        let limits = self.service.limits;
        // Taken apart in a task of its own: what is wrong with it in ways nobody thought of costs the request only.
        let received = aside(incoming::receive(futures::stream::iter([Ok(first)]).chain(messages), limits));
        let count = if descriptor.r#type == PATH {
            let target = ingest::Target::of_path(&descriptor, key)?;
            ingest::insert(&self.service, session, target, received.await?).await?
        } else {
            match command(descriptor.cmd)? {
                Command::CommandStatementUpdate(update) => {
                    if update.transaction_id.is_some() {
                        return Err(ingest::no_transaction());
                    }
                    let parsed = read(&self.service, &update.query)?;
                    statement::update(&self.service, session, parsed).await?
                }
                Command::CommandStatementIngest(command) => {
                    let target = ingest::Target::of_command(command, key)?;
                    ingest::insert(&self.service, session, target, received.await?).await?
                }
                Command::CommandPreparedStatementQuery(query) => {
                    let (handle, session) = self.sessions.of_handle(&query.prepared_statement_handle, &session.user)?;
                    let prepared = session.prepared(&handle)?;
                    prepared.bind(&self.service, &session, received.await?.batches).await?;
                    let bound = DoPutPreparedStatementResult { prepared_statement_handle: Some(query.prepared_statement_handle) };
                    return Ok(bound.encode_to_vec().into());
                }
                Command::CommandPreparedStatementUpdate(update) => {
                    let (handle, session) = self.sessions.of_handle(&update.prepared_statement_handle, &session.user)?;
                    let prepared = session.prepared(&handle)?;
                    prepared.update(&self.service, &session, received.await?.batches).await?
                }
                other => return Err(not_served(other.type_url())),
            }
        };
        Ok(DoPutUpdateResult { record_count: count }.encode_to_vec().into())
    }
}

/// The command that a descriptor or a ticket has.
fn command(bytes: Bytes) -> Result<Command, RequestError> {
    let any = Any::decode(bytes).map_err(|_| RequestError::new(codes::PROTOCOL, "the request is no command of Arrow Flight SQL", ""))?;
    Command::try_from(any).map_err(|error| RequestError::new(codes::PROTOCOL, format!("the request is malformed: {error}"), ""))
}

fn not_served(type_url: &str) -> RequestError {
    let name: String = type_url.rsplit('.').next().unwrap_or_default().chars().take(100).collect();
    let hint = if name.contains("Substrait") { "Send SQL." } else { "" };
    RequestError::new(codes::NOT_SUPPORTED, format!("the command \"{name}\" is not served here"), hint)
}

fn one<T: Send + 'static>(item: Option<T>) -> Sent<T> {
    Box::pin(futures::stream::iter(item.map(Ok)))
}

/// The calls of the protocol; `rpc.rs` hands them on.
impl Flight {
    fn handshake(self, request: Request<Streaming<HandshakeRequest>>) -> Answer<Sent<HandshakeResponse>> {
        Box::pin(async move {
            let (headers, _, mut messages) = request.into_parts();
            let payload = match tokio::time::timeout(ANSWER_TIMEOUT, messages.message()).await {
                Ok(message) => message?.map(|message| message.payload).unwrap_or_default(),
                Err(_) => return Err(Status::deadline_exceeded("the handshake took too long")),
            };
            let token = self.open(&headers, &payload).map_err(|error| self.failed(error))?;
            let mut response = Response::new(one(Some(HandshakeResponse { protocol_version: 0, payload: token.clone().into() })));
            let header = format!("Bearer {token}").parse().map_err(|_| Status::internal("a token that is no header"))?;
            response.metadata_mut().insert("authorization", header);
            Ok(response)
        })
    }

    fn list_flights(self, _: Request<Criteria>) -> Answer<Sent<FlightInfo>> {
        let hint = "CommandGetTables lists what there is; a path with a relation's name is a flight.";
        self.refused("flights are not listed", hint)
    }

    fn get_flight_info(self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        Box::pin(async move {
            let (headers, _, descriptor) = request.into_parts();
            let info = async { self.info(&self.session(&headers)?, descriptor).await }.await;
            info.map(Response::new).map_err(|error| self.failed(error))
        })
    }

    fn poll_flight_info(self, _: Request<FlightDescriptor>) -> Answer<PollInfo> {
        self.refused("results are not polled for", "GetFlightInfo answers at once.")
    }

    fn get_schema(self, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        Box::pin(async move {
            let (headers, _, descriptor) = request.into_parts();
            let schema = async { self.schema(&self.session(&headers)?, &descriptor).await }.await;
            schema.map(|schema| Response::new(SchemaResult { schema })).map_err(|error| self.failed(error))
        })
    }

    fn do_get(self, request: Request<Ticket>) -> Answer<Messages> {
        Box::pin(async move {
            let (headers, _, ticket) = request.into_parts();
            let rows = async { self.get(&self.session(&headers)?, ticket).await }.await;
            rows.map(Response::new).map_err(|error| self.failed(error))
        })
    }

    fn do_put(self, request: Request<Streaming<FlightData>>) -> Answer<Sent<PutResult>> {
        Box::pin(async move {
            let (headers, _, messages) = request.into_parts();
            let done = async {
                let key = headers.get(ingest::KEY).map(|key| ingestion::key(key.as_bytes())).transpose()?;
                self.put(&self.session(&headers)?, key, messages).await
            };
            let done = done.await;
            let app_metadata = done.map_err(|error| self.failed(error))?;
            Ok(Response::new(one(Some(PutResult { app_metadata }))))
        })
    }

    fn do_exchange(self, _: Request<Streaming<FlightData>>) -> Answer<Messages> {
        self.refused("DoExchange is not served here", "Use DoGet and DoPut.")
    }

    fn do_action(self, request: Request<Action>) -> Answer<Sent<ActionResult>> {
        Box::pin(async move {
            let (headers, _, action) = request.into_parts();
            let done = async {
                let session = self.session(&headers)?;
                actions::act(&self.service, &self.sessions, &self.connection, &session, action).await
            };
            let body = done.await.map_err(|error| self.failed(error))?;
            Ok(Response::new(one(body.map(|body| ActionResult { body }))))
        })
    }

    fn list_actions(self, request: Request<Empty>) -> Answer<Sent<ActionType>> {
        let listed = self.session(request.metadata()).map_err(|error| self.failed(error));
        let listed = listed.map(|_| Response::new(Box::pin(futures::stream::iter(actions::list().into_iter().map(Ok))) as Sent<_>));
        Box::pin(futures::future::ready(listed))
    }

    /// The answer to a call that is not served.
    fn refused<T: Send + 'static>(self, problem: &str, hint: &str) -> Answer<T> {
        Box::pin(futures::future::ready(Err(self.failed(RequestError::new(codes::NOT_SUPPORTED, problem, hint)))))
    }
}
