//! A server over Arrow Flight SQL: results come as the same Arrow batches that an engine in this process gives.
//!
//! A statement is asked for (GetFlightInfo), which carries out what is no query, and its rows are fetched (DoGet); leaving either call
//! cancels it at the server.

use super::Listed;
use super::address::Address;
use super::changes;
use crate::failure::Failure;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandGetTables, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightDescriptor, FlightInfo, HandshakeRequest, IpcMessage};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use millstream_engine::{EngineError, Notice, Output, Rows, StatementResult};
use millstream_sql::{Position, SqlError};
use millstream_types::Epoch;
use prost::Message;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

/// How long a server may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The trailer in which the server says what went wrong.
const ERROR: &str = "millstream-error-bin";

/// The rows of a result as they come.
type Batches = BoxStream<'static, Result<RecordBatch, EngineError>>;

/// A server.
#[derive(Clone)]
pub(crate) struct Remote {
    client: FlightServiceClient<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
    /// Where it is, for messages.
    address: Arc<str>,
}

/// What the first message of a result says beside the columns.
#[derive(Debug, Default, Deserialize)]
struct Told {
    #[serde(default)]
    tag: String,
    #[serde(default)]
    notices: Vec<ToldNotice>,
    epoch: Option<u64>,
    changes: Option<ToldChanges>,
}

#[derive(Debug, Deserialize)]
struct ToldNotice {
    severity: String,
    message: String,
    #[serde(default)]
    hint: String,
}

#[derive(Debug, Deserialize)]
struct ToldChanges {
    epoch: u64,
    append_only: bool,
}

/// What went wrong, as the server says it.
#[derive(Debug, Deserialize)]
struct ToldError {
    error: ToldDetail,
}

#[derive(Debug, Deserialize)]
struct ToldDetail {
    message: String,
    hint: Option<String>,
    line: Option<u64>,
    column: Option<u64>,
}

impl Remote {
    /// Connects, and says who we are: with a token, or with name and password.
    ///
    /// # Errors
    /// When nobody answers there, or does not let us in.
    pub(crate) async fn connect(address: &Address, token: Option<String>) -> Result<Self, Failure> {
        let scheme = if address.tls { "https" } else { "http" };
        let place = format!("{scheme}://{address}");
        let unreachable = |error: &dyn std::error::Error| {
            let mut causes = error.to_string();
            let mut cause = error.source();
            while let Some(source) = cause {
                causes = source.to_string();
                cause = source.source();
            }
            let hint = "Is `millstream serve` running there, and does it speak Arrow Flight SQL (--flight) at this port?";
            Failure::failed(format!("cannot connect to {address}: {causes}\nhint: {hint}"))
        };
        let mut endpoint = Endpoint::from_shared(place)
            .map_err(|error| Failure::usage(format!("\"{address}\" is no address: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_while_idle(true);
        if address.tls {
            let mut tls = ClientTlsConfig::new();
            tls = match &address.ca {
                None => tls.with_native_roots(),
                Some(file) => {
                    let pem = std::fs::read(file)
                        .map_err(|error| Failure::usage(format!("cannot read the certificates \"{}\": {error}", file.display())))?;
                    tls.ca_certificate(Certificate::from_pem(pem))
                }
            };
            endpoint = endpoint.tls_config(tls).map_err(|error| unreachable(&error))?;
        }
        let channel = endpoint.connect().await.map_err(|error| unreachable(&error))?;
        let client = FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut remote = Self { client, authorization: None, address: address.to_string().into() };
        match (token, &address.user) {
            (Some(token), _) => remote.authorization = Some(header(&format!("Bearer {token}"))?),
            (None, Some(user)) => {
                let greeted = remote.handshake(user, address.password.as_deref().unwrap_or_default()).await;
                greeted.map_err(|error| refused(&error, address))?;
            }
            (None, None) => {}
        }
        // Whether we are let in is found out here, and not by the first statement.
        match remote.execute("SHOW server_version").await {
            Ok(_) => Ok(remote),
            Err(error) => Err(refused(&error, address)),
        }
    }

    async fn handshake(&mut self, user: &str, password: &str) -> Result<(), EngineError> {
        let mut request = Request::new(futures::stream::iter([HandshakeRequest::default()]));
        let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let basic: MetadataValue<Ascii> = basic.parse().map_err(|_| EngineError::Internal("base64 that is no header".into()))?;
        request.metadata_mut().insert("authorization", basic);
        let response = self.client.clone().handshake(request).await.map_err(|status| self.error(&status))?;
        self.authorization = response.metadata().get("authorization").cloned();
        Ok(())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    /// Carries out one statement.
    ///
    /// # Errors
    /// The statement's, with its place, or that the server is gone.
    pub(super) async fn execute(&self, text: &str) -> Result<StatementResult, EngineError> {
        let command = CommandStatementQuery { query: text.to_string(), transaction_id: None };
        let (schema, told, batches) = self.fetch(command.as_any().encode_to_vec()).await?;
        let notices = told.notices.into_iter().map(|notice| match notice.severity.as_str() {
            "warning" => Notice::warning(notice.message, notice.hint),
            _ => Notice::info(notice.message, notice.hint),
        });
        let output = match told.changes {
            Some(ToldChanges { epoch, append_only }) => {
                Output::Changes(changes::subscription(&schema, append_only, Epoch(epoch), batches)?)
            }
            None if schema.fields().is_empty() => {
                let _: Vec<RecordBatch> = batches.try_collect().await?;
                Output::None
            }
            None => Output::Rows(Rows::of_stream(schema, batches)),
        };
        Ok(StatementResult { tag: told.tag, notices: notices.collect(), epoch: told.epoch.map(Epoch), output })
    }

    /// Asks for a result and begins to fetch it.
    async fn fetch(&self, command: Vec<u8>) -> Result<(SchemaRef, Told, Batches), EngineError> {
        let mut client = self.client.clone();
        let descriptor = FlightDescriptor::new_cmd(command);
        let info: FlightInfo = client.get_flight_info(self.request(descriptor)).await.map_err(|status| self.error(&status))?.into_inner();
        let ticket = info.endpoint.into_iter().find_map(|endpoint| endpoint.ticket);
        let ticket = ticket.ok_or_else(|| EngineError::Internal("the server gives a result without a ticket".into()))?;
        let messages = client.do_get(self.request(ticket)).await.map_err(|status| self.error(&status))?.into_inner();
        let mut decoder = FlightDataDecoder::new(messages.map_err(FlightError::from));
        let first = decoder.next().await.transpose().map_err(|error| self.flight_error(error))?;
        let Some(first) = first else { return Err(EngineError::Internal("the server gives a result without columns".into())) };
        let told = match first.app_metadata() {
            metadata if metadata.is_empty() => Told::default(),
            metadata => serde_json::from_slice(&metadata)
                .map_err(|error| EngineError::Internal(format!("the server says what nobody understands: {error}")))?,
        };
        let DecodedPayload::Schema(schema) = first.payload else {
            return Err(EngineError::Internal("the server gives rows before their columns".into()));
        };
        let remote = self.clone();
        let batches = decoder.filter_map(move |decoded| {
            let batch = match decoded {
                Ok(decoded) => match decoded.payload {
                    DecodedPayload::RecordBatch(batch) => Some(Ok(batch)),
                    DecodedPayload::None | DecodedPayload::Schema(_) => None,
                },
                Err(error) => Some(Err(remote.flight_error(error))),
            };
            futures::future::ready(batch)
        });
        Ok((schema, told, batches.boxed()))
    }

    /// Everything in the catalog of the server.
    ///
    /// # Errors
    /// When the server is gone.
    pub(super) async fn catalog(&self) -> Result<Vec<Listed>, EngineError> {
        let command =
            CommandGetTables { db_schema_filter_pattern: Some("public".into()), include_schema: true, ..CommandGetTables::default() };
        let (_, _, batches) = self.fetch(command.as_any().encode_to_vec()).await?;
        let batches: Vec<RecordBatch> = batches.try_collect().await?;
        let mut listed = Vec::new();
        for batch in &batches {
            let text = |name: &str| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            let schemas = batch.column_by_name("table_schema").and_then(|column| column.as_binary_opt::<i32>());
            let (Some(names), Some(kinds), Some(schemas)) = (text("table_name"), text("table_type"), schemas) else {
                return Err(EngineError::Internal("the server lists its tables in an unknown form".into()));
            };
            for ((name, kind), schema) in names.iter().zip(kinds).zip(schemas) {
                let schema = schema.and_then(|bytes| Schema::try_from(IpcMessage(bytes.to_vec().into())).ok());
                listed.push(Listed {
                    name: name.unwrap_or_default().to_string(),
                    kind: kind.unwrap_or_default().to_lowercase(),
                    schema: Arc::new(schema.unwrap_or_else(Schema::empty)),
                });
            }
        }
        Ok(listed)
    }

    fn flight_error(&self, error: FlightError) -> EngineError {
        match error {
            FlightError::Tonic(status) => self.error(&status),
            error => EngineError::Internal(format!("the server's rows cannot be read: {error}")),
        }
    }

    /// What a status says, with the place in the statement.
    fn error(&self, status: &Status) -> EngineError {
        let told = status.metadata().get_bin(ERROR).and_then(|json| json.to_bytes().ok());
        let told = told.and_then(|json| serde_json::from_slice::<ToldError>(&json).ok());
        let error = match told {
            Some(ToldError { error: ToldDetail { message, hint, line, column } }) => {
                let start = line.zip(column).map(|(line, column)| Position { line, column });
                SqlError { message, hint, start, end: None }
            }
            None => SqlError::new(format!("the connection to {} broke: {}", self.address, status.message()))
                .with_hint("Run the statement again once the server is there; what was committed is kept."),
        };
        EngineError::from(error)
    }
}

/// Why we are not let in, with what to do about it here.
fn refused(error: &EngineError, address: &Address) -> Failure {
    let text = error.to_string();
    let hint = if text.starts_with("the connection to ") && !address.tls {
        "Does the server want TLS? Write flight+tls://.."
    } else if text.contains("takes a user") {
        "Say who you are: flight://user@host, or a token in MILLSTREAM_TOKEN."
    } else {
        return super::failed(error);
    };
    Failure::failed(format!("{text}\nhint: {hint}"))
}

fn header(text: &str) -> Result<MetadataValue<Ascii>, Failure> {
    text.parse().map_err(|_| Failure::usage("the token has characters that no token has"))
}
