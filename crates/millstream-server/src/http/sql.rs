//! `POST /api/v1/sql`: one statement, its rows in the form that `Accept` names.
//!
//! The body is the statement (`Content-Type: application/sql`) or `{"query": "..", "parameters": [..]}` (`application/json`), whose
//! parameters take the place of `$1`, `$2` and so on. Each request is a session of its own: what spans several statements (transactions,
//! settings of a session, cursors, PREPARE) has no place here. `COPY .. TO STDOUT` gives rows in the form that `Accept` names or, where it
//! names one itself, in that.

use super::body::{Form, stream};
use super::failure::{ErrorBody, Failure};
use super::{counted, media_type};
use crate::admission::UserConnection;
use crate::aside::aside;
use crate::error::{RequestError, codes};
use crate::pg::copy::{CopyOptions, Format, copied, named_form};
use crate::rows::{Copied, RowSource};
use crate::service::Service;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use millstream_engine::catalog::resolve::object_name;
use millstream_engine::{EngineError, Output, StatementResult};
use millstream_sql::statement::CopyTarget;
use millstream_sql::{Statement, parse_expression, parse_statement};
use serde::{Deserialize, Serialize};
use sqlparser::ast::{Expr, Value};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// A statement with its parameters.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SqlRequest {
    /// The statement.
    query: String,
    /// The values of `$1`, `$2` and so on: texts, numbers, true, false or null.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    parameters: Vec<serde_json::Value>,
}

/// The answer to a statement that gives no rows.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    /// What was done: `CREATE STREAM`, `INSERT 3`.
    done: String,
    /// What the statement has to tell although it succeeded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<Told>,
}

/// A notice.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Told {
    /// What is so.
    message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Carries out one statement.
#[utoipa::path(
    post,
    path = "/api/v1/sql",
    request_body(content((SqlRequest = "application/json"), (String = "application/sql"))),
    responses(
        (status = 200, description = "rows by `Accept` (JSON, NDJSON, CSV, Arrow stream), or what was done", body = Done),
        (status = 400, description = "the statement is wrong", body = ErrorBody),
        (status = 401, description = "no user", body = ErrorBody),
        (status = 403, description = "the user may not do this", body = ErrorBody),
        (status = 429, description = "the user has as many connections as they may", body = ErrorBody),
        (status = 503, description = "the server has as many connections as it may, or stops", body = ErrorBody),
    ),
    security(("token" = []), ("password" = []))
)]
pub(super) async fn sql(State(service): State<Arc<Service>>, headers: HeaderMap, body: Bytes) -> Result<Response, Failure> {
    let (user, counted) = counted(&service, &headers)?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let Some(form) = Form::accepted(accept) else {
        let forms = "Choose application/json, application/x-ndjson, text/csv or application/vnd.apache.arrow.stream.";
        return Err(RequestError::new("22023", format!("rows cannot be given as {}", accept.unwrap_or_default()), forms).into());
    };
    let (text, parameters) = request(&headers, &body)?;
    let session = service.session(&user);
    let limit = service.time_limit(&session);
    service.check_length(&session, &text)?;
    millstream_sql::depth::check_text(&text)?;
    if let Some(query) = service.catalog.recognize(&text) {
        let query = query.bound(&parameters)?;
        let of_catalog = Arc::clone(&service);
        let rows = within(limit, aside(async move { of_catalog.catalog.run(&query).await })).await?;
        return answer(limit, form, None, RowSource::of_stream(rows), counted).await;
    }
    let mut statement = parse_statement(&text)?;
    let wanted = statement.parameter_count()?;
    if wanted != parameters.len() {
        let message = format!("the statement takes {wanted} parameters, not {}", parameters.len());
        return Err(RequestError::new(codes::SYNTAX, message, "").into());
    }
    statement.replace_parameters(&mut |index| parameters.get(index).cloned())?;
    if let Some(hint) = hint_for_session(&statement) {
        return Err(RequestError::new(codes::NOT_SUPPORTED, "each request is a session of its own", hint).into());
    }
    if let Statement::CopyFrom(copy) = &statement {
        let hint = format!("POST /api/v1/streams/{}/rows takes rows.", object_name(&copy.target));
        return Err(RequestError::new(codes::NOT_SUPPORTED, "COPY FROM STDIN has no rows here", hint).into());
    }
    let mut copy_options = None;
    if let Statement::Copy(copy) = &statement
        && copy.target == CopyTarget::Stdout
    {
        session.authorize(&statement)?;
        copy_options = named_form(copy)?;
        statement = copied(copy.clone())?;
    }
    let result = within(limit, aside(async move { session.execute_parsed(statement).await })).await?;
    let StatementResult { tag, notices, epoch, output } = result;
    if let Some(options) = copy_options {
        return match RowSource::of_output(output) {
            Some(rows) => copy_answer(limit, rows, options, counted).await,
            None => Err(EngineError::Internal("a query without rows".into()).into()),
        };
    }
    match output {
        Output::Rows(rows) => answer(limit, form, epoch.map(|epoch| epoch.0), RowSource::of_rows(rows), counted).await,
        Output::Changes(subscription) if form == Form::Ndjson => {
            let parts = stream(form, None, None, RowSource::of_changes(subscription))?;
            let body = Body::from_stream(parts.map(move |part| counted.pass(part)));
            Ok(([(header::CONTENT_TYPE, form.media_type())], body).into_response())
        }
        Output::Changes(_) => {
            let hint = "GET /api/v1/subscribe?query=.. gives them as server-sent events, and Accept: application/x-ndjson as lines.";
            Err(RequestError::new(codes::NOT_SUPPORTED, "changes go on and have no end that this form could be given with", hint).into())
        }
        Output::None => {
            let notices = notices.into_iter().map(|notice| Told { message: notice.message, hint: notice.hint }).collect();
            Ok(Json(Done { done: tag, notices }).into_response())
        }
    }
}

/// What to do instead of a statement that needs those before it; `None` for others.
fn hint_for_session(statement: &Statement) -> Option<&'static str> {
    match statement {
        Statement::Begin | Statement::Commit | Statement::Rollback => {
            Some("A transaction needs a connection over the PostgreSQL protocol or Arrow Flight SQL.")
        }
        Statement::DeclareCursor(_) | Statement::Fetch(_) | Statement::CloseCursor(_) => Some(
            "A cursor needs a connection over the PostgreSQL protocol or Arrow Flight SQL. Rows are sent here as they are computed, and \
             GET /api/v1/subscribe?query=.. sends changes.",
        ),
        Statement::Prepare(_) | Statement::Execute(_) | Statement::Deallocate(_) => {
            Some("Send the statement itself with the values of $1, $2: {\"query\": .., \"parameters\": [..]}.")
        }
        _ => None,
    }
}

/// A copy in its own form as an answer. The first rows are waited for: what fails at once has a status that says so.
async fn copy_answer(limit: Option<Duration>, rows: RowSource, options: CopyOptions, counted: UserConnection) -> Result<Response, Failure> {
    let media_type = match options.format {
        Format::Text => "text/plain; charset=utf-8",
        Format::Csv { .. } => "text/csv; charset=utf-8",
        Format::Binary => "application/octet-stream",
    };
    let follows = rows.follows();
    let mut copied = Copied::new(rows, options);
    let mut head = copied.parts().await?.unwrap_or_default();
    // Changes may be long in coming.
    if !follows {
        head.extend(within(limit, copied.parts()).await?.unwrap_or_default());
    }
    let rest = futures::stream::unfold(Some(copied), |copied| async move {
        let mut copied = copied?;
        match copied.parts().await {
            Ok(Some(parts)) => Some((Ok(Bytes::from(parts.concat())), Some(copied))),
            Ok(None) => None,
            // A copy that has begun can only break off.
            Err(error) => Some((Err(io::Error::other(error.message)), None)),
        }
    });
    let body = futures::stream::iter([Ok(Bytes::from(head.concat()))]).chain(rest).map(move |part| counted.pass(part));
    Ok(([(header::CONTENT_TYPE, media_type)], Body::from_stream(body)).into_response())
}

/// The statement and its parameters.
fn request(headers: &HeaderMap, body: &[u8]) -> Result<(String, Vec<Expr>), RequestError> {
    match media_type(headers, header::CONTENT_TYPE).as_deref() {
        Some("application/sql") => match std::str::from_utf8(body) {
            Ok(text) => Ok((text.to_string(), Vec::new())),
            Err(_) => Err(RequestError::new(codes::BAD_VALUE, "the statement is no valid UTF-8", "")),
        },
        Some("application/json") => {
            let wrong = |error: serde_json::Error| {
                RequestError::new(codes::BAD_VALUE, format!("the body is no request: {error}"), "Send {\"query\": \"SELECT ..\"}.")
            };
            let request: SqlRequest = serde_json::from_slice(body).map_err(wrong)?;
            let parameters = request.parameters.into_iter().map(literal).collect::<Result<_, _>>()?;
            Ok((request.query, parameters))
        }
        _ => Err(RequestError::new(
            "22023",
            "a statement comes as application/sql or application/json",
            "curl -H 'Content-Type: application/sql' -d 'SELECT 1' ..",
        )),
    }
}

fn literal(value: serde_json::Value) -> Result<Expr, RequestError> {
    match value {
        serde_json::Value::Null => Ok(Expr::value(Value::Null)),
        serde_json::Value::Bool(value) => Ok(Expr::value(Value::Boolean(value))),
        serde_json::Value::String(text) => Ok(Expr::value(Value::SingleQuotedString(text))),
        // A number of JSON is one of SQL.
        serde_json::Value::Number(number) => Ok(parse_expression(&number.to_string())?),
        _ => Err(RequestError::new(codes::BAD_VALUE, "a parameter is a text, a number, true, false or null", "")),
    }
}

/// Waits for work as long as a statement may take.
pub(super) async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, impl Into<RequestError>>>,
) -> Result<T, RequestError> {
    let Some(limit) = limit else { return work.await.map_err(Into::into) };
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(RequestError::new(codes::CANCELED, "canceling statement due to statement timeout", "")),
    }
}

/// Rows as an answer. The first are waited for: what fails at once has a status that says so.
pub(super) async fn answer(
    limit: Option<Duration>,
    form: Form,
    epoch: Option<u64>,
    mut source: RowSource,
    counted: UserConnection,
) -> Result<Response, Failure> {
    let first = within(limit, source.next(usize::MAX)).await?;
    let body = Body::from_stream(stream(form, epoch, first, source)?.map(move |part| counted.pass(part)));
    let mut response = ([(header::CONTENT_TYPE, form.media_type())], body).into_response();
    if let Some(epoch) = epoch {
        response.headers_mut().insert("millstream-epoch", HeaderValue::from(epoch));
    }
    Ok(response)
}
