//! Who a request is from.
//!
//! | the header `authorization` | |
//! | --- | --- |
//! | `Bearer <token of the users file>` | the token's user, in the session of the connection |
//! | `Bearer <token of a handshake>` | the session that the handshake opened |
//! | `Basic <name:password>` | for `Handshake` only, which answers with a token for what follows |
//!
//! Without users everybody may do everything, and a handshake takes any name. A name that does not exist takes as long to refuse as a wrong
//! password. **Reference**: Arrow Flight, "Authentication".

use super::session::{ConnectionSessions, FlightSession, Sessions};
use crate::error::{RequestError, codes};
use crate::service::Service;
use crate::users::User;
use arrow_flight::BasicAuth;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use prost::Message;
use std::sync::Arc;
use tonic::metadata::MetadataMap;

/// Bytes of a name or password.
const CREDENTIAL_MAX: usize = 1_024;

/// What a header says after a scheme.
fn after<'a>(headers: &'a MetadataMap, scheme: &str) -> Option<&'a str> {
    let (name, value) = headers.get("authorization")?.to_str().ok()?.split_once(' ')?;
    name.eq_ignore_ascii_case(scheme).then_some(value.trim())
}

/// The session that a request belongs to.
///
/// # Errors
/// When there are users and the request has no token of theirs.
pub(super) fn session(
    service: &Arc<Service>,
    sessions: &Arc<Sessions>,
    connection: &ConnectionSessions,
    headers: &MetadataMap,
) -> Result<Arc<FlightSession>, RequestError> {
    let token = after(headers, "bearer");
    if let Some(session) = token.and_then(|token| sessions.with_token(token)) {
        session.session.check_user()?;
        return Ok(session);
    }
    let user = service.bearer(token).map_err(|error| {
        let hint = "Do the handshake with name and password, or send `authorization: Bearer <token>` with a token of the users file.";
        RequestError { hint: Some(hint.into()), ..error }
    })?;
    let session = service.session(&user);
    Ok(sessions.of_connection(connection, user, service.limits, || session))
}

/// The user that a handshake is from. `payload` is its first message's.
///
/// # Errors
/// When the name or the password is wrong.
pub(super) fn handshake(service: &Service, headers: &MetadataMap, payload: &[u8]) -> Result<User, RequestError> {
    if let Some(token) = after(headers, "bearer") {
        return service.bearer(Some(token));
    }
    let (name, password) = match credentials(headers, payload)? {
        Some(credentials) => credentials,
        None if !service.engine.has_users() => return Ok(User::anybody("anonymous")),
        None => {
            let hint = "Send `authorization: Basic <base64 of name:password>`.";
            return Err(RequestError::new(codes::BAD_AUTHORIZATION, "the handshake has no name and password", hint));
        }
    };
    service.with_password(&name, &password)
}

/// Name and password, from the header or, as older clients do it, from the message.
fn credentials(headers: &MetadataMap, payload: &[u8]) -> Result<Option<(String, String)>, RequestError> {
    let malformed = || RequestError::new(codes::PROTOCOL, "malformed name and password", "");
    let found = match after(headers, "basic") {
        Some(encoded) => {
            let text = STANDARD_NO_PAD
                .decode(encoded.trim_end_matches('='))
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(malformed)?;
            let (name, password) = text.split_once(':').ok_or_else(malformed)?;
            (name.to_string(), password.to_string())
        }
        None if payload.is_empty() => return Ok(None),
        None => {
            let BasicAuth { username, password } = BasicAuth::decode(payload).map_err(|_| malformed())?;
            (username, password)
        }
    };
    if found.0.is_empty() || found.0.len() > CREDENTIAL_MAX || found.1.len() > CREDENTIAL_MAX {
        return Err(malformed());
    }
    Ok(Some(found))
}
