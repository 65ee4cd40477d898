//! Whether the server lives, whether it is ready, and which one it is.

use super::failure::Failure;
use crate::error::RequestError;
use crate::service::Service;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// What the server says about itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `live`, `ready`, `stopping` or `stopped`.
    state: &'static str,
}

/// Which server this is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Version {
    /// Its version.
    version: &'static str,
}

/// The process answers.
#[utoipa::path(get, path = "/health/live", responses((status = 200, body = Health)))]
pub(super) async fn live() -> Json<Health> {
    Json(Health { state: "live" })
}

/// The pipeline takes statements.
#[utoipa::path(get, path = "/health/ready", responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(super) async fn ready(State(service): State<Arc<Service>>) -> Response {
    let state = match (service.stopping.is_cancelled(), service.engine.has_stopped()) {
        (true, _) => "stopping",
        (_, true) => "stopped",
        _ => return Json(Health { state: "ready" }).into_response(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(Health { state })).into_response()
}

/// The version of the server.
#[utoipa::path(get, path = "/version", responses((status = 200, body = Version)))]
pub(super) async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION") })
}

/// A path that is none.
pub(super) async fn nowhere() -> Response {
    let error = RequestError::new("42P01", "there is nothing at this path", "GET /api/v1/openapi.json lists what there is.");
    Failure::from(error).into_response()
}
