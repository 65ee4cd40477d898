//! `GET /api/v1/openapi.json`: the description of this interface, made from its code.

use super::{failure, health, ingest, metrics, monitoring, sql, subscribe};
use axum::Json;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(title = "Millstream", description = "SQL over micro-batches: statements, subscriptions, rows in."),
    paths(
        sql::sql,
        subscribe::subscribe,
        ingest::rows,
        monitoring::pipelines,
        monitoring::table,
        monitoring::statistics,
        monitoring::receivers,
        monitoring::receiver,
        monitoring::batches,
        monitoring::batch,
        monitoring::operations,
        monitoring::operation,
        metrics::metrics,
        health::live,
        health::ready,
        health::version
    ),
    components(schemas(failure::ErrorBody, failure::ErrorDetail, sql::SqlRequest, sql::Done, sql::Told, ingest::Inserted)),
    modifiers(&Token)
)]
struct Document;

/// Requests carry a token, or name and password.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        let basic = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Basic).build());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", bearer);
        components.add_security_scheme("password", basic);
    }
}

/// The document.
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
