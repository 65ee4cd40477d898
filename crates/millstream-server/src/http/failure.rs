//! Errors as HTTP answers: a status, and JSON with code, message, hint and place.

use crate::error::RequestError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failure(pub(super) RequestError);

impl<E: Into<RequestError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
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
        let status = status(self.0.code);
        let mut response = (status, Json(ErrorBody::from(self.0))).into_response();
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
