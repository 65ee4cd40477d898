//! Actions: what a client asks for beside statements and rows.
//!
//! | action | |
//! | --- | --- |
//! | `CreatePreparedStatement`, `ClosePreparedStatement` | prepared statements |
//! | `CancelFlightInfo`, `CancelQuery` | ends a result that runs, or forgets one that was not fetched |
//! | `SetSessionOptions`, `GetSessionOptions` | the settings that `SET` has for a session |
//! | `CloseSession` | ends the session; its token is worth nothing afterwards |
//!
//! **Reference**: Arrow Flight SQL, Flight.proto (session options).

use super::session::{ConnectionSessions, FlightSession, Sessions};
use super::statement::within;
use crate::aside::aside;
use crate::error::{RequestError, codes};
use crate::service::Service;
use arrow::datatypes::Schema;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, Any, Command, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo, IpcMessage, SchemaAsIpc,
};
use bytes::Bytes;
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;

/// The actions, with what they do.
const ACTIONS: [(&str, &str); 7] = [
    ("CreatePreparedStatement", "Prepares a statement: ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult"),
    ("ClosePreparedStatement", "Forgets a prepared statement: ActionClosePreparedStatementRequest"),
    ("CancelFlightInfo", "Ends a result: CancelFlightInfoRequest, CancelFlightInfoResult"),
    ("CancelQuery", "Ends a result: ActionCancelQueryRequest, ActionCancelQueryResult"),
    ("SetSessionOptions", "Sets what SET sets for a session: SetSessionOptionsRequest, SetSessionOptionsResult"),
    ("GetSessionOptions", "Gives the settings of the session: GetSessionOptionsRequest, GetSessionOptionsResult"),
    ("CloseSession", "Ends the session: CloseSessionRequest, CloseSessionResult"),
];

/// The settings that clients ask for.
const OPTIONS: [&str; 4] = ["application_name", "search_path", "statement_timeout", "timezone"];

// The messages of session options, which `arrow-flight` does not have.

#[derive(Clone, PartialEq, prost::Message)]
struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SessionOptionValue {
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    option_value: Option<OptionValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum OptionValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Texts(Texts),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Texts {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, OptionError>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OptionError {
    #[prost(int32, tag = "1")]
    value: i32,
}

/// The name of an option is none that there is.
const INVALID_NAME: i32 = 1;
/// The value is none that it can have.
const INVALID_VALUE: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CloseSessionResult {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The session is closed.
const CLOSED: i32 = 1;

/// What every action is, for clients that ask.
pub(super) fn list() -> Vec<ActionType> {
    ACTIONS.iter().map(|(name, about)| ActionType { r#type: (*name).into(), description: (*about).into() }).collect()
}

/// Carries out an action, and gives the body of its result if it has one.
///
/// # Errors
/// When there is none of this name, its body is none, or it fails.
pub(super) async fn act(
    service: &Arc<Service>,
    sessions: &Arc<Sessions>,
    connection: &ConnectionSessions,
    session: &Arc<FlightSession>,
    action: Action,
) -> Result<Option<Bytes>, RequestError> {
    let Action { r#type: name, body } = action;
    let result = match name.as_str() {
        "CreatePreparedStatement" => {
            let request: ActionCreatePreparedStatementRequest = unpacked(&name, &body)?;
            create_prepared(service, session, request).await?.as_any().encode_to_vec()
        }
        "ClosePreparedStatement" => {
            let request: ActionClosePreparedStatementRequest = unpacked(&name, &body)?;
            // One that is not there is closed already.
            if let Ok((handle, session)) = sessions.of_handle(&request.prepared_statement_handle, &session.user) {
                session.close_prepared(&handle);
            }
            return Ok(None);
        }
        "CancelFlightInfo" => {
            let request: CancelFlightInfoRequest = decoded(&name, &body)?;
            let status = canceled(sessions, session, request.info.unwrap_or_default());
            CancelFlightInfoResult { status: status as i32 }.encode_to_vec()
        }
        "CancelQuery" => {
            let request: ActionCancelQueryRequest = unpacked(&name, &body)?;
            let status = canceled(sessions, session, decoded(&name, &request.info)?);
            ActionCancelQueryResult { result: status as i32 }.as_any().encode_to_vec()
        }
        "SetSessionOptions" => set_options(service, session, decoded(&name, &body)?).await.encode_to_vec(),
        "GetSessionOptions" => {
            let text = |value| SessionOptionValue { option_value: Some(OptionValue::Text(value)) };
            let set = OPTIONS.iter().filter_map(|name| Some(((*name).to_string(), text(session.session.variable(name)?))));
            GetSessionOptionsResult { session_options: set.collect() }.encode_to_vec()
        }
        "CloseSession" => {
            sessions.close(connection, session);
            CloseSessionResult { status: CLOSED }.encode_to_vec()
        }
        _ => {
            let names: Vec<&str> = ACTIONS.iter().map(|(name, _)| *name).collect();
            let known = format!("There are {}.", names.join(", "));
            let hint = match name.as_str() {
                "BeginTransaction" | "EndTransaction" => "Send BEGIN and COMMIT as statements of one session.",
                "BeginSavepoint" | "EndSavepoint" => "Send SAVEPOINT and ROLLBACK TO SAVEPOINT as statements of one session.",
                _ => &known,
            };
            let shown: String = name.chars().take(100).collect();
            return Err(RequestError::new(codes::NOT_SUPPORTED, format!("there is no action \"{shown}\""), hint));
        }
    };
    Ok(Some(result.into()))
}

/// A message of Arrow Flight SQL, as actions have it.
fn unpacked<M: ProstMessageExt>(name: &str, body: &Bytes) -> Result<M, RequestError> {
    let any: Any = decoded(name, body)?;
    any.unpack().ok().flatten().ok_or_else(|| malformed(name))
}

fn decoded<M: Message + Default>(name: &str, body: &Bytes) -> Result<M, RequestError> {
    M::decode(body.clone()).map_err(|_| malformed(name))
}

fn malformed(name: &str) -> RequestError {
    RequestError::new(codes::PROTOCOL, format!("malformed body of the action {name}"), "")
}

async fn create_prepared(
    service: &Arc<Service>,
    session: &Arc<FlightSession>,
    request: ActionCreatePreparedStatementRequest,
) -> Result<ActionCreatePreparedStatementResult, RequestError> {
    if request.transaction_id.is_some() {
        return Err(super::ingest::no_transaction());
    }
    let prepared = super::prepared::Prepared::new(service, session, request.query).await?;
    // A statement without rows has no columns at all, which is how clients tell an update.
    let dataset_schema = match prepared.columns() {
        Some(schema) => encoded(&schema)?,
        None => Bytes::new(),
    };
    let parameter_schema = encoded(&prepared.parameters())?;
    let handle = session.keep_prepared(prepared)?;
    Ok(ActionCreatePreparedStatementResult {
        prepared_statement_handle: Bytes::copy_from_slice(handle.as_bytes()),
        dataset_schema,
        parameter_schema,
    })
}

/// A schema as one message of Arrow IPC.
///
/// # Errors
/// When it cannot be encoded.
pub(super) fn encoded(schema: &Schema) -> Result<Bytes, RequestError> {
    let options = IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &options).try_into()?;
    Ok(bytes)
}

fn canceled(sessions: &Sessions, session: &FlightSession, info: FlightInfo) -> CancelStatus {
    let mut any = false;
    for ticket in info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket) {
        let command = Any::decode(ticket.ticket).ok().and_then(|any| Command::try_from(any).ok());
        let Some(Command::TicketStatementQuery(ticket)) = command else { continue };
        if let Ok((handle, of_handle)) = sessions.of_handle(&ticket.statement_handle, &session.user) {
            any |= of_handle.cancel(&handle);
        }
    }
    if any { CancelStatus::Cancelled } else { CancelStatus::NotCancellable }
}

async fn set_options(service: &Arc<Service>, session: &FlightSession, request: SetSessionOptionsRequest) -> SetSessionOptionsResult {
    let mut errors = HashMap::new();
    for (name, value) in request.session_options {
        if name == "catalog" || name == "schema" {
            // There is one of each.
            let only = if name == "catalog" { super::metadata::CATALOG } else { super::metadata::SCHEMA };
            match value.option_value {
                None => {}
                Some(OptionValue::Text(value)) if value == only => {}
                Some(_) => drop(errors.insert(name, OptionError { value: INVALID_VALUE })),
            }
            continue;
        }
        let lower = name.to_lowercase();
        if !millstream_engine::session::is_client_setting(&lower) {
            errors.insert(name, OptionError { value: INVALID_NAME });
            continue;
        }
        let text = match value.option_value {
            None => None,
            Some(OptionValue::Text(text)) => Some(text),
            Some(OptionValue::Bool(value)) => Some(value.to_string()),
            Some(OptionValue::Int(value)) => Some(value.to_string()),
            Some(OptionValue::Double(value)) => Some(value.to_string()),
            Some(OptionValue::Texts(texts)) => Some(texts.values.join(", ")),
        };
        let statement = match text {
            Some(value) => millstream_sql::Statement::Set(millstream_sql::statement::Set { name: lower, value }),
            None => millstream_sql::Statement::Reset(Some(lower)),
        };
        let engine = session.session.clone();
        let set = within(service, session, aside(async move { engine.execute_parsed(statement).await })).await;
        if set.is_err() {
            errors.insert(name, OptionError { value: INVALID_VALUE });
        }
    }
    SetSessionOptionsResult { errors }
}
