//! HTTP.
//!
//! | | |
//! | --- | --- |
//! | `POST /api/v1/sql` | one statement; JSON, NDJSON, CSV or Arrow by `Accept` (`sql.rs`, `body.rs`) |
//! | `GET /api/v1/subscribe?query=..` | changes as server-sent events (`subscribe.rs`) |
//! | `POST /api/v1/streams/{name}/rows` | rows into a stream or table (`ingest.rs`) |
//! | `GET /api/v1/pipelines..` | what the pipeline does (`monitoring.rs`) |
//! | `GET /metrics` | figures for Prometheus (`metrics.rs`) |
//! | `GET /health/live`, `/health/ready`, `/version`, `/api/v1/openapi.json` | without a token (`health.rs`, `openapi.rs`) |
//!
//! Where there are no users, requests must name the server by a loopback address: a page of the web that a browser shows must not
//! reach it under a name of its own. Statements come in a body whose type browsers do not send across origins unasked.

mod arrow_body;
mod body;
mod failure;
mod health;
pub(crate) mod ingest;
pub(crate) mod metrics;
mod monitoring;
mod openapi;
mod sql;
mod subscribe;

use crate::accept::{self, Connection};
use crate::admission::{Place, UserConnection};
use crate::error::{RequestError, codes};
use crate::service::{Counted, Service};
use crate::tls::Tls;
use crate::users::User;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
pub(crate) use failure::ErrorBody;
use failure::Failure;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use millstream_engine::Session;
use millstream_engine::catalog::resolve::SYSTEM_SCHEMA;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::codegen::Service as Tower;

/// How long a client may take for a TLS handshake, and for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head at most.
const HEAD_BYTES: usize = 64 * 1024;

/// Accepts connections until the server stops, and returns when the last one has ended.
pub(crate) async fn serve(service: Arc<Service>, listener: TcpListener, tls: Option<Tls>) {
    let (talking, shared) = (Arc::clone(&service), router(Arc::clone(&service)));
    let talk = move |connection, place| {
        let (service, router) = (Arc::clone(&talking), shared.clone());
        async move {
            let _counted = Counted::new(&service.figures.http_connections);
            requests(&service, Placed { router, place }, connection).await;
        }
    };
    accept::serve(&service, listener, tls, HEAD_TIMEOUT, talk).await;
}

/// The routes, as one connection has them.
#[derive(Clone)]
struct Placed {
    router: Router,
    place: Arc<Place>,
}

impl<B> Tower<axum::http::Request<B>> for Placed
where
    Router: Tower<axum::http::Request<B>>,
{
    type Response = <Router as Tower<axum::http::Request<B>>>::Response;
    type Error = <Router as Tower<axum::http::Request<B>>>::Error;
    type Future = <Router as Tower<axum::http::Request<B>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.router.poll_ready(context)
    }

    fn call(&mut self, mut request: axum::http::Request<B>) -> Self::Future {
        request.extensions_mut().insert(Arc::clone(&self.place));
        self.router.call(request)
    }
}

async fn requests(service: &Service, routes: Placed, stream: Connection) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT).max_header_list_size(HEAD_BYTES as u32);
    let connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)));
    accept::carry_on(service, connection, |connection| connection.graceful_shutdown()).await;
}

fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/api/v1/sql", post(sql::sql))
        .route("/api/v1/subscribe", get(subscribe::subscribe))
        .route("/api/v1/streams/{name}/rows", post(ingest::rows))
        .route("/api/v1/pipelines", get(monitoring::pipelines))
        .route("/api/v1/pipelines/{pipeline}/statistics", get(monitoring::statistics))
        .route("/api/v1/pipelines/{pipeline}/receivers", get(monitoring::receivers))
        .route("/api/v1/pipelines/{pipeline}/receivers/{stream}", get(monitoring::receiver))
        .route("/api/v1/pipelines/{pipeline}/batches", get(monitoring::batches))
        .route("/api/v1/pipelines/{pipeline}/batches/{epoch}", get(monitoring::batch))
        .route("/api/v1/pipelines/{pipeline}/batches/{epoch}/operations", get(monitoring::operations))
        .route("/api/v1/pipelines/{pipeline}/batches/{epoch}/operations/{sink}", get(monitoring::operation))
        .route("/api/v1/pipelines/{pipeline}/{table}", get(monitoring::table))
        .route("/metrics", get(metrics::metrics))
        .layer(DefaultBodyLimit::max(service.limits.body_bytes))
        .route("/api/v1/openapi.json", get(openapi::document))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/version", get(health::version))
        .fallback(health::nowhere)
        .layer(from_fn_with_state(Arc::clone(&service), checked))
        .with_state(service)
}

/// What holds for every request.
async fn checked(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    service.figures.http_requests.fetch_add(1, Ordering::Relaxed);
    let place = request.extensions().get::<Arc<Place>>();
    if let Some(Err(error)) = place.filter(|_| !request.uri().path().starts_with("/health/")).map(|place| place.take()) {
        let mut response = Failure::from(error).into_response();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    if !service.engine.has_users() && service.is_local && !names_loopback(&request) {
        let error = RequestError::new(
            codes::NO_PRIVILEGE,
            "without users this server answers to a loopback address or \"localhost\" only",
            "Use http://127.0.0.1 and the port, or give the server users.",
        );
        return Failure::from(error).into_response();
    }
    next.run(request).await
}

/// Whether the request names a host that is this machine for everybody.
fn names_loopback(request: &Request) -> bool {
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = request.uri().host().or(header) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Who asks.
///
/// # Errors
/// When there are users and the request has neither a token nor the password of one.
fn user(service: &Service, headers: &HeaderMap) -> Result<User, Failure> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match value.and_then(|value| value.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(service.bearer(Some(token.trim()))?),
        Some((scheme, encoded)) if scheme.eq_ignore_ascii_case("basic") => {
            let decoded = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            match decoded.as_deref().and_then(|text| text.split_once(':')) {
                Some((name, password)) => Ok(service.with_password(name, password)?),
                None => Err(RequestError::new(codes::BAD_AUTHORIZATION, "the header Authorization is no name and password", "").into()),
            }
        }
        _ => Ok(service.bearer(None)?),
    }
}

/// Who asks for something that counts as one of a user's connections until the answer is sent.
///
/// # Errors
/// As [`user`], and when the user has as many as they may.
fn counted(service: &Service, headers: &HeaderMap) -> Result<(User, UserConnection), Failure> {
    let user = user(service, headers)?;
    let counted = service.count(&user).map_err(Failure::too_many)?;
    Ok((user, counted))
}

/// The session of who asks, who must be allowed to read a system table.
///
/// # Errors
/// As [`user`], and when it may not.
fn reader_of(service: &Service, headers: &HeaderMap, table: &str) -> Result<Session, Failure> {
    let session = service.session(&user(service, headers)?);
    let read = millstream_sql::parse_statement(&format!("SELECT * FROM {SYSTEM_SCHEMA}.{table}"))?;
    session.authorize(&read)?;
    Ok(session)
}

/// The media type of a header, without its parameters, in lower case.
fn media_type(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        let loopback = |host: &str| {
            let request = axum::http::Request::builder().uri("/x").header("host", host).body(axum::body::Body::empty()).unwrap();
            names_loopback(&request)
        };
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:80", "[::1]:8080"] {
            assert!(loopback(host), "{host}");
        }
        for host in ["example.org", "127.0.0.1.example.org", "10.0.0.1:80", "", "localhost.evil"] {
            assert!(!loopback(host), "{host}");
        }
    }
}
