//! Errors as gRPC has them: a code, and a message with everything a person needs, since most clients show nothing else.
//!
//! ```text
//!   NOT_FOUND   relation "sale" does not exist
//!               at line 2, column 6
//!               hint: Did you mean "sales"?
//!               SQLSTATE: 42P01
//! ```
//! The same as JSON, in the form that HTTP has, stands in the trailer `millstream-error-bin`.

use crate::error::{RequestError, codes};
use crate::http::ErrorBody;
use arrow_flight::error::FlightError;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// The trailer with code, message, hint and place.
const TRAILER: &str = "millstream-error-bin";
/// Bytes of a message and of a hint: trailers are headers, of which many clients take 8 KB.
const TEXT_MAX: usize = 1_200;

/// The status that tells an error.
pub(super) fn status(error: RequestError) -> Status {
    let RequestError { code, message, hint, place } = error;
    let (message, hint) = (cut(message), hint.map(cut));
    let mut text = message.clone();
    if let Some((line, column)) = place {
        text.push_str(&format!("\nat line {line}, column {column}"));
    }
    if let Some(hint) = &hint {
        text.push_str(&format!("\nhint: {hint}"));
    }
    text.push_str(&format!("\nSQLSTATE: {code}"));
    let kind = kind(code, &message);
    let mut trailers = MetadataMap::new();
    if let Ok(body) = serde_json::to_vec(&ErrorBody::from(RequestError { code, message, hint, place })) {
        trailers.insert_bin(TRAILER, MetadataValue::from_bytes(&body));
    }
    Status::with_metadata(kind, text, trailers)
}

/// The gRPC code that goes with a SQLSTATE.
fn kind(code: &str, message: &str) -> Code {
    match code {
        "42P01" | codes::NO_STATEMENT | codes::NO_CURSOR => Code::NotFound,
        codes::NO_PRIVILEGE => Code::PermissionDenied,
        codes::TOO_LARGE => Code::ResourceExhausted,
        codes::CANCELED if message.contains("timeout") => Code::DeadlineExceeded,
        codes::CANCELED => Code::Cancelled,
        "23505" | "42P07" => Code::AlreadyExists,
        "40001" => Code::Aborted,
        codes::NOT_SUPPORTED => Code::Unimplemented,
        "XX001" => Code::DataLoss,
        code if code.starts_with("28") => Code::Unauthenticated,
        code if code.starts_with("53") => Code::ResourceExhausted,
        code if code.starts_with("57") => Code::Unavailable,
        code if code.starts_with("25") || code.starts_with("55") => Code::FailedPrecondition,
        code if code.starts_with("XX") => Code::Internal,
        _ => Code::InvalidArgument,
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        text.push('…');
    }
    text
}

/// An error while rows are sent.
pub(super) fn in_stream(error: RequestError) -> FlightError {
    FlightError::from(status(error))
}

/// What is wrong with what a client sent as Arrow.
pub(super) fn of_input(error: FlightError) -> RequestError {
    match error {
        // What went wrong with the connection, or was refused on the way in.
        FlightError::Tonic(status) => RequestError::new(codes::PROTOCOL, status.message(), ""),
        FlightError::Arrow(error) => RequestError::new(codes::BAD_VALUE, format!("the rows cannot be read: {error}"), ""),
        error => {
            RequestError::new(codes::BAD_VALUE, format!("the rows cannot be read: {error}"), "Send a schema, then its record batches.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_everything() {
        let mut error = RequestError::new("42P01", "relation \"sale\" does not exist", "Did you mean \"sales\"?");
        error.place = Some((2, 6));
        let status = status(error);
        assert_eq!(status.code(), Code::NotFound);
        let text = "relation \"sale\" does not exist\nat line 2, column 6\nhint: Did you mean \"sales\"?\nSQLSTATE: 42P01";
        assert_eq!(status.message(), text);
        let json = status.metadata().get_bin(TRAILER).unwrap().to_bytes().unwrap();
        let expected = r#"{"error":{"code":"42P01","message":"relation \"sale\" does not exist","hint":"Did you mean \"sales\"?","line":2,"column":6}}"#;
        assert_eq!(json, expected.as_bytes());
    }

    #[test]
    fn long_messages_are_cut_where_a_character_ends() {
        let status = status(RequestError::new(codes::SYNTAX, "é".repeat(10_000), ""));
        assert!(status.message().len() < 1_300);
    }
}
