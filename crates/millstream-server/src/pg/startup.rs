//! The beginning of a connection: encryption, who it is, and what the client should know of the server.
//!
//! **Errors**: whatever is wrong ends the connection, with a message where the client understands one. A client that does not finish
//! within [`STARTUP_TIMEOUT`] is cut off.

use super::cancel::Cancels;
use super::catalog::server_version;
use super::connection::Connection;
use super::socket::{Broken, Channel, Reader, Writer, opening, send};
use super::wire::{Answers, Message, Opening, STARTUP_MAX};
use crate::admission::Place;
use crate::error::{RequestError, codes};
use crate::scram::{Exchange, MECHANISM, Refused};
use crate::service::Service;
use crate::users::User;
use bytes::{Buf, BytesMut};
use millstream_engine::access::Verifier;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

/// How long a client may take until its session begins.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that has said what it wants.
struct Greeted {
    stream: Box<dyn Channel>,
    buffer: BytesMut,
    version: (u16, u16),
    parameters: BTreeMap<String, String>,
}

/// Serves a connection from its first byte to its last.
///
/// # Errors
/// When the client is gone, sends what is no message, or does not read.
pub(crate) async fn serve(
    service: &Arc<Service>,
    cancels: &Arc<Cancels>,
    stream: Box<dyn Channel>,
    acceptor: Option<TlsAcceptor>,
    place: &Place,
) -> Result<(), Broken> {
    let begin = async {
        let Some(greeted) = greet(service, cancels, stream, acceptor).await? else { return Ok(None) };
        begin(service, cancels, greeted, place).await
    };
    let connection = tokio::select! {
        begun = tokio::time::timeout(STARTUP_TIMEOUT, begin) => match begun {
            Err(_) => return Err(Broken::Slow),
            Ok(begun) => begun?,
        },
        () = service.stopping.cancelled() => return Ok(()),
    };
    match connection {
        Some(connection) => connection.run().await,
        None => Ok(()),
    }
}

/// Everything before the session: encryption, and requests to cancel.
async fn greet(
    service: &Service,
    cancels: &Arc<Cancels>,
    mut stream: Box<dyn Channel>,
    mut acceptor: Option<TlsAcceptor>,
) -> Result<Option<Greeted>, Broken> {
    let offers_tls = acceptor.is_some();
    let mut encrypted = false;
    let mut buffer = BytesMut::new();
    // A client asks for each kind of encryption once at most.
    for _ in 0..4 {
        let mut answers = Answers::default();
        match opening(&mut stream, &mut buffer).await? {
            Opening::Ssl => match acceptor.take() {
                Some(acceptor) => {
                    // What came before the handshake was not encrypted and must not be taken as if it were.
                    if !buffer.is_empty() {
                        return Ok(None);
                    }
                    answers.encryption(true);
                    send(&mut stream, &mut answers).await?;
                    stream = Box::new(acceptor.accept(stream).await?);
                    encrypted = true;
                }
                None => {
                    answers.encryption(false);
                    send(&mut stream, &mut answers).await?;
                }
            },
            Opening::Gss => {
                answers.encryption(false);
                send(&mut stream, &mut answers).await?;
            }
            Opening::Cancel { process, secret } => {
                cancels.cancel(process, secret);
                return Ok(None);
            }
            Opening::Startup { version, parameters } => {
                if offers_tls && !encrypted && service.engine.has_users() {
                    let error = RequestError::new(
                        codes::BAD_AUTHORIZATION,
                        "this server takes encrypted connections only",
                        "Connect with sslmode=require.",
                    );
                    refuse(&mut stream, &error).await?;
                    return Ok(None);
                }
                return Ok(Some(Greeted { stream, buffer, version, parameters }));
            }
        }
    }
    Ok(None)
}

/// Authentication, and the settings a client should know.
async fn begin(service: &Arc<Service>, cancels: &Arc<Cancels>, greeted: Greeted, place: &Place) -> Result<Option<Connection>, Broken> {
    let Greeted { mut stream, buffer, version, parameters } = greeted;
    if version.0 != 3 {
        let message = format!("unsupported frontend protocol {}.{}: server supports 3.0", version.0, version.1);
        refuse(&mut stream, &RequestError::new(codes::NOT_SUPPORTED, message, "")).await?;
        return Ok(None);
    }
    if let Err(error) = place.take() {
        refuse(&mut stream, &error).await?;
        return Ok(None);
    }
    let Some(name) = parameters.get("user").filter(|name| !name.is_empty()) else {
        refuse(&mut stream, &RequestError::new(codes::BAD_AUTHORIZATION, "no user name was given", "")).await?;
        return Ok(None);
    };
    let (read, write) = tokio::io::split(stream);
    let (mut reader, mut writer) = (Reader::new(read, buffer), Writer::new(write));
    let unknown: Vec<&str> = parameters.keys().map(String::as_str).filter(|name| name.starts_with("_pq_.")).collect();
    if version.1 > 0 || !unknown.is_empty() {
        writer.answers.negotiate_version(0, &unknown);
    }
    let authenticated = authenticate(service, name, &mut reader, &mut writer).await?;
    let admitted = authenticated.and_then(|user| service.count(&user).map(|counted| (user, counted)));
    let (user, counted) = match admitted {
        Ok(admitted) => admitted,
        Err(error) => {
            report(&mut writer.answers, b'E', "FATAL", &error, None);
            writer.flush().await?;
            writer.close().await;
            return Ok(None);
        }
    };
    writer.answers.authentication(0, &[]);
    let session = service.session(&user);
    let application = parameters.get("application_name").cloned().unwrap_or_default();
    let version = server_version();
    let statuses: [(&str, &str); 12] = [
        ("server_version", &version),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, YMD"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
        ("session_authorization", name),
        ("application_name", &application),
    ];
    for (name, value) in statuses {
        writer.answers.parameter_status(name, value);
    }
    // Settings of the startup message are those of SET; what is not known is the client's own business.
    for (name, value) in parameters.iter().filter(|(name, _)| millstream_engine::session::is_client_setting(name)) {
        let set = millstream_sql::Statement::Set(millstream_sql::statement::Set { name: name.to_lowercase(), value: value.clone() });
        let _ = session.execute_parsed(set).await;
    }
    let registered = cancels.register();
    writer.answers.backend_key(registered.number, registered.secret);
    Ok(Some(Connection::new(Arc::clone(service), session, counted, registered, reader, writer)))
}

/// Finds out that the client is who it says.
async fn authenticate(
    service: &Service,
    name: &str,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<Result<User, RequestError>, Broken> {
    if !service.engine.has_users() {
        return Ok(Ok(User::anybody(name)));
    }
    let wrong = || Ok(Err(RequestError::new(codes::BAD_PASSWORD, format!("password authentication failed for user \"{name}\""), "")));
    let malformed = || Ok(Err(RequestError::new(codes::PROTOCOL, "malformed SASL message", "")));
    let known = service.engine.user(name).and_then(|(user, _)| user.password);
    let (user, verifier) = match known {
        Some(verifier) => (Some(User::named(name)), verifier),
        None => (None, Verifier::decoy(name, &service.decoy_secret)),
    };
    writer.answers.authentication(10, format!("{MECHANISM}\0\0").as_bytes());
    writer.flush().await?;
    let Message::Password(mut first) = reader.message(STARTUP_MAX).await? else { return malformed() };
    let Some(end) = first.iter().position(|byte| *byte == 0) else { return malformed() };
    if &first.split_to(end)[..] != MECHANISM.as_bytes() || first.len() < 5 {
        return malformed();
    }
    first.advance(1);
    if usize::try_from(first.get_i32()).ok() != Some(first.len()) {
        return malformed();
    }
    let (exchange, question) = match Exchange::begin(&first, verifier) {
        Ok(begun) => begun,
        Err(_) => return malformed(),
    };
    writer.answers.authentication(11, &question);
    writer.flush().await?;
    let Message::Password(last) = reader.message(STARTUP_MAX).await? else { return malformed() };
    match (exchange.finish(&last), user) {
        (Ok(proof), Some(user)) => {
            writer.answers.authentication(12, &proof);
            Ok(Ok(user))
        }
        (Err(Refused::Malformed), _) => malformed(),
        _ => wrong(),
    }
}

async fn refuse(stream: &mut Box<dyn Channel>, error: &RequestError) -> Result<(), Broken> {
    let mut answers = Answers::default();
    report(&mut answers, b'E', "FATAL", error, None);
    send(stream, &mut answers).await
}

/// Writes an error (`E`) or a notice (`N`).
pub(crate) fn report(answers: &mut Answers, kind: u8, severity: &str, error: &RequestError, position: Option<usize>) {
    let position = position.map(|position| position.to_string());
    let mut fields = vec![(b'S', severity), (b'V', severity), (b'C', error.code), (b'M', error.message.as_str())];
    fields.extend(error.hint.as_deref().map(|hint| (b'H', hint)));
    fields.extend(position.as_deref().map(|position| (b'P', position)));
    answers.report(kind, &fields);
}
