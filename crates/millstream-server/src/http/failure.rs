//! Errors as HTTP answers: a status, and JSON with code, message, hint and place.

use crate::error::{RequestError, codes};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failure {
    error: RequestError,
    /// Where it is not the one that goes with the SQLSTATE.
    status: Option<StatusCode>,
}

impl<E: Into<RequestError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), status: None }
    }
}

impl Failure {
    /// A user has as many connections as they may: it is theirs to wait, not the server's to become better.
    pub(super) fn too_many(error: RequestError) -> Self {
        Self { error, status: Some(StatusCode::TOO_MANY_REQUESTS) }
    }
}

/// The body of an answer to a request that failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// What went wrong.
    pub(crate) error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// The SQLSTATE.
    code: &'static str,
    /// What is wrong.
    message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// The line of the statement, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    /// The column in it, in characters from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u64>,
}

impl From<RequestError> for ErrorBody {
    fn from(error: RequestError) -> Self {
        let (line, column) = error.place.unzip();
        Self { error: ErrorDetail { code: error.code, message: error.message, hint: error.hint, line, column } }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { error, status } = self;
        let (status, code) = (status.unwrap_or_else(|| self::status(error.code)), error.code);
        let mut response = (status, Json(ErrorBody::from(error))).into_response();
        if code == codes::TOO_MANY_CONNECTIONS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer, Basic realm=\"millstream\""));
        }
        response
    }
}

/// The status that goes with a SQLSTATE.
fn status(code: &str) -> StatusCode {
    match code {
        "42P01" => StatusCode::NOT_FOUND,
        "42501" => StatusCode::FORBIDDEN,
        "54000" => StatusCode::PAYLOAD_TOO_LARGE,
        "57014" => StatusCode::REQUEST_TIMEOUT,
        "23505" | "40001" => StatusCode::CONFLICT,
        "0A000" => StatusCode::NOT_IMPLEMENTED,
        code if code.starts_with("28") => StatusCode::UNAUTHORIZED,
        code if code.starts_with("53") || code.starts_with("57") => StatusCode::SERVICE_UNAVAILABLE,
        code if code.starts_with("XX") => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}
