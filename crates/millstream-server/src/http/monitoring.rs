//! What the pipeline does, as resources: the system tables by name, and Spark's monitoring resources by theirs, so that tooling ports.
//!
//! | `GET /api/v1/pipelines..` | |
//! | --- | --- |
//! | (nothing) | the pipelines; an engine has one, `main` |
//! | `/main/{queries, epochs, sources, sinks, operators, checkpoints, errors}` | `SELECT * FROM millstream.<that>`, in the form of `Accept` |
//! | `/main/statistics` | counts and averages over the retained epochs |
//! | `/main/receivers`, `/main/receivers/{stream}` | streams |
//! | `/main/batches`, `/main/batches/{epoch}` | retained epochs, newest first |
//! | `/main/batches/{epoch}/operations`, `../operations/{sink}` | what an epoch did to sinks |
//!
//! Times are milliseconds, as with Spark. Who asks needs SELECT on the system table that has the same: `epochs` for statistics and
//! batches,
//! `sources` for receivers, `sinks` for operations.

use super::body::Form;
use super::failure::{ErrorBody, Failure};
use super::sql::{answer, within};
use super::{counted, reader_of, user};
use crate::aside::aside;
use crate::error::RequestError;
use crate::rows::RowSource;
use crate::service::Service;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use millstream_engine::pipeline::snapshot::StreamFigures;
use millstream_engine::{EpochProgress, Output, Session};
use millstream_types::EventTime;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The one pipeline of an engine.
const PIPELINE: &str = "main";
/// System tables that are resources.
const TABLES: [&str; 7] = ["checkpoints", "epochs", "errors", "operators", "queries", "sinks", "sources"];

/// A pipeline.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PipelineInfo {
    /// Its name.
    name: &'static str,
    /// `running`, or `stopped`.
    state: &'static str,
    /// The newest committed epoch.
    epoch: u64,
    /// Continuous queries.
    queries: usize,
    /// Those that have failed.
    failed_queries: usize,
}

/// Counts and averages, as Spark's streaming statistics.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statistics {
    /// When the server was started.
    start_time: String,
    /// The trigger interval; `null` where epochs do not start by the clock.
    batch_duration: Option<u64>,
    /// Streams.
    num_receivers: usize,
    /// Streams that have not ended.
    num_active_receivers: usize,
    /// Streams that have ended.
    num_inactive_receivers: usize,
    /// Epochs since the start.
    num_total_completed_batches: u64,
    /// Epochs that are known one by one.
    num_retained_completed_batches: usize,
    /// Rows that queries got since the start.
    num_processed_records: u64,
    /// Rows read since the start.
    num_received_records: u64,
    /// Rows read per second, over the retained epochs.
    avg_input_rate: Option<f64>,
    /// Time of an epoch, over the retained epochs.
    avg_processing_time: Option<f64>,
}

/// A stream, as Spark's receivers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Receiver {
    /// The stream.
    stream_name: String,
    /// Its connector.
    connector: String,
    /// It has not ended.
    is_active: bool,
    /// Rows read since the pipeline began.
    num_records: u64,
    /// Those that could not be decoded.
    num_bad_records: u64,
    /// Those below the watermark.
    num_late_records: u64,
    /// The watermark.
    watermark: Option<String>,
    /// Rows per second that epochs may take, where that is limited.
    rate_limit: Option<f64>,
}

/// An epoch, as Spark's batches.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Batch {
    /// Its number.
    batch_id: u64,
    /// The reading of its clock.
    batch_time: Option<String>,
    /// Retained epochs are committed ones.
    status: &'static str,
    /// Rows read.
    input_size: u64,
    /// Rows that queries got.
    processed_size: u64,
    /// Its time.
    processing_time: f64,
    /// The time by phase.
    #[schema(value_type = Object)]
    phases: serde_json::Value,
    /// The sinks that got something.
    operations: Vec<Operation>,
}

/// What an epoch did to a sink, as Spark's output operations.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Operation {
    /// The sink.
    name: String,
    /// Rows added.
    num_records: u64,
    /// Files that became visible.
    num_files: u64,
    /// Rows that wait for a file.
    buffered_records: u64,
}

/// The pipelines.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines",
    responses((status = 200, body = Vec<PipelineInfo>), (status = 401, description = "no user", body = ErrorBody)),
    security(("token" = []), ("password" = []))
)]
pub(super) async fn pipelines(State(service): State<Arc<Service>>, headers: HeaderMap) -> Result<Json<Vec<PipelineInfo>>, Failure> {
    // Names of queries are no secret to users; what is in them is not told here.
    user(&service, &headers)?;
    let figures = service.engine.figures().await.map_err(RequestError::from)?;
    Ok(Json(vec![PipelineInfo {
        name: PIPELINE,
        state: if service.engine.has_stopped() { "stopped" } else { "running" },
        epoch: service.engine.epoch().0,
        queries: figures.queries.len(),
        failed_queries: figures.queries.iter().filter(|(_, failure)| failure.is_some()).count(),
    }]))
}

/// A system table.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{pipeline}/{table}",
    params(
        ("pipeline" = String, Path, description = "`main`"),
        ("table" = String, Path, description = "queries, epochs, sources, sinks, operators, checkpoints or errors"),
    ),
    responses(
        (status = 200, description = "the rows of `millstream.<table>`, by `Accept`"),
        (status = 403, description = "the user may not read it", body = ErrorBody),
        (status = 404, description = "there is no such pipeline or table", body = ErrorBody),
    ),
    security(("token" = []), ("password" = []))
)]
pub(super) async fn table(
    State(service): State<Arc<Service>>,
    Path((pipeline, table)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let (user, counted) = counted(&service, &headers)?;
    let session = service.session(&user);
    named(&pipeline)?;
    if !TABLES.contains(&table.as_str()) {
        return Err(missing(format!("a pipeline has no \"{table}\""), &format!("It has {}.", TABLES.join(", "))).into());
    }
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let form = Form::accepted(accept).unwrap_or(Form::Json);
    let limit = service.time_limit(&session);
    let result = within(limit, aside(async move { session.execute(&format!("SELECT * FROM millstream.{table}")).await })).await?;
    match result.output {
        Output::Rows(rows) => answer(limit, form, result.epoch.map(|epoch| epoch.0), RowSource::of_rows(rows), counted).await,
        _ => Err(missing("the table has no rows to give".into(), "").into()),
    }
}

/// Counts and averages.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{pipeline}/statistics",
    params(("pipeline" = String, Path, description = "`main`")),
    responses((status = 200, body = Statistics), (status = 403, description = "the user may not read `epochs`", body = ErrorBody)),
    security(("token" = []), ("password" = []))
)]
pub(super) async fn statistics(
    State(service): State<Arc<Service>>,
    Path(pipeline): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Statistics>, Failure> {
    let session = seeing(&service, &headers, &pipeline, "epochs")?;
    let figures = service.engine.figures().await.map_err(RequestError::from)?;
    let report = service.engine.progress().report();
    let epochs = service.engine.progress().history();
    let active = figures.streams.iter().filter(|stream| !stream.ended).count();
    let trigger = session.settings().into_iter().find(|setting| setting.name == "trigger").map(|setting| setting.value);
    let interval = trigger.and_then(|text| millstream_types::options::parse_duration(&text));
    Ok(Json(Statistics {
        start_time: service.started.to_string(),
        batch_duration: interval.and_then(|interval| u64::try_from(interval.as_millis()).ok()),
        num_receivers: figures.streams.len(),
        num_active_receivers: active,
        num_inactive_receivers: figures.streams.len() - active,
        num_total_completed_batches: report.epochs,
        num_retained_completed_batches: epochs.len(),
        num_processed_records: report.rows_used,
        num_received_records: report.rows_in,
        avg_input_rate: input_rate(&epochs),
        avg_processing_time: (!epochs.is_empty())
            .then(|| epochs.iter().map(|epoch| epoch.total.as_secs_f64()).sum::<f64>() * 1e3 / epochs.len() as f64),
    }))
}

/// Rows per second between the clocks of the first epoch and the last.
fn input_rate(epochs: &[Arc<EpochProgress>]) -> Option<f64> {
    let (first, last) = (epochs.first()?, epochs.last()?);
    let seconds = last.clock.0.checked_sub(first.clock.0).filter(|span| *span > 0)? as f64 / 1e6;
    // Rows of the first epoch came before its clock.
    Some(epochs.iter().skip(1).map(|epoch| rows_in(epoch)).sum::<u64>() as f64 / seconds)
}

fn rows_in(epoch: &EpochProgress) -> u64 {
    epoch.sources.iter().map(|source| source.rows_in).sum()
}

/// Streams.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{pipeline}/receivers",
    params(("pipeline" = String, Path, description = "`main`")),
    responses((status = 200, body = Vec<Receiver>), (status = 403, description = "the user may not read `sources`", body = ErrorBody)),
    security(("token" = []), ("password" = []))
)]
pub(super) async fn receivers(
    State(service): State<Arc<Service>>,
    Path(pipeline): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Vec<Receiver>>, Failure> {
    seeing(&service, &headers, &pipeline, "sources")?;
    let figures = service.engine.figures().await.map_err(RequestError::from)?;
    Ok(Json(figures.streams.iter().map(of_stream).collect()))
}

/// One stream.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{pipeline}/receivers/{stream}",
    params(("pipeline" = String, Path, description = "`main`"), ("stream" = String, Path, description = "the stream")),
    responses((status = 200, body = Receiver), (status = 404, description = "there is no such stream", body = ErrorBody)),
    security(("token" = []), ("password" = []))
)]
pub(super) async fn receiver(
    State(service): State<Arc<Service>>,
    Path((pipeline, stream)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Receiver>, Failure> {
    seeing(&service, &headers, &pipeline, "sources")?;
    let figures = service.engine.figures().await.map_err(RequestError::from)?;
    let found = figures.streams.iter().find(|other| other.name == stream).map(of_stream);
    Ok(Json(found.ok_or_else(|| missing(format!("there is no stream \"{stream}\""), ""))?))
}

fn of_stream(stream: &StreamFigures) -> Receiver {
    Receiver {
        stream_name: stream.name.clone(),
        connector: stream.connector.clone(),
        is_active: !stream.ended,
        num_records: stream.totals.rows_in,
        num_bad_records: stream.totals.rows_bad,
        num_late_records: stream.totals.rows_late,
        watermark: time(stream.watermark),
        rate_limit: stream.rate_limit,
    }
}

/// A time that is one.
fn time(time: EventTime) -> Option<String> {
    (time != EventTime::MIN && time != EventTime::MAX).then(|| time.to_string())
}

/// The retained epochs.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{pipeline}/batches",
    params(("pipeline" = String, Path, description = "`main`")),
    responses((status = 200, body = Vec<Batch>), (status = 403, description = "the user may not read `epochs`", body = ErrorBody)),
    security(("token" = []), ("password" = []))
)]
pub(super) async fn batches(
    State(service): State<Arc<Service>>,
    Path(pipeline): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Vec<Batch>>, Failure> {
    seeing(&service, &headers, &pipeline, "epochs")?;
    Ok(Json(service.engine.progress().history().iter().rev().map(|epoch| of_epoch(epoch)).collect()))
}

/// One epoch.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{pipeline}/batches/{epoch}",
    params(("pipeline" = String, Path, description = "`main`"), ("epoch" = u64, Path, description = "its number")),
    responses((status = 200, body = Batch), (status = 404, description = "it is not retained", body = ErrorBody)),
    security(("token" = []), ("password" = []))
)]
pub(super) async fn batch(
    State(service): State<Arc<Service>>,
    Path((pipeline, epoch)): Path<(String, u64)>,
    headers: HeaderMap,
) -> Result<Json<Batch>, Failure> {
    seeing(&service, &headers, &pipeline, "epochs")?;
    Ok(Json(of_epoch(retained(&service, epoch)?.as_ref())))
}

/// What an epoch did to sinks.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{pipeline}/batches/{epoch}/operations",
    params(("pipeline" = String, Path, description = "`main`"), ("epoch" = u64, Path, description = "its number")),
    responses((status = 200, body = Vec<Operation>), (status = 404, description = "it is not retained", body = ErrorBody)),
    security(("token" = []), ("password" = []))
)]
pub(super) async fn operations(
    State(service): State<Arc<Service>>,
    Path((pipeline, epoch)): Path<(String, u64)>,
    headers: HeaderMap,
) -> Result<Json<Vec<Operation>>, Failure> {
    seeing(&service, &headers, &pipeline, "sinks")?;
    Ok(Json(of_epoch(retained(&service, epoch)?.as_ref()).operations))
}

/// What an epoch did to one sink.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{pipeline}/batches/{epoch}/operations/{sink}",
    params(
        ("pipeline" = String, Path, description = "`main`"),
        ("epoch" = u64, Path, description = "its number"),
        ("sink" = String, Path, description = "the sink"),
    ),
    responses((status = 200, body = Operation), (status = 404, description = "there is no such epoch or sink", body = ErrorBody)),
    security(("token" = []), ("password" = []))
)]
pub(super) async fn operation(
    State(service): State<Arc<Service>>,
    Path((pipeline, epoch, sink)): Path<(String, u64, String)>,
    headers: HeaderMap,
) -> Result<Json<Operation>, Failure> {
    seeing(&service, &headers, &pipeline, "sinks")?;
    let operations = of_epoch(retained(&service, epoch)?.as_ref()).operations;
    let found = operations.into_iter().find(|operation| operation.name == sink);
    Ok(Json(found.ok_or_else(|| missing(format!("epoch {epoch} did nothing to a sink \"{sink}\""), ""))?))
}

fn of_epoch(epoch: &EpochProgress) -> Batch {
    let operations = epoch.sinks.iter().map(|sink| Operation {
        name: sink.sink.clone(),
        num_records: sink.rows,
        num_files: sink.files,
        buffered_records: sink.buffered_rows,
    });
    Batch {
        batch_id: epoch.epoch.0,
        batch_time: time(epoch.clock),
        status: "COMPLETED",
        input_size: rows_in(epoch),
        processed_size: epoch.sources.iter().map(|source| source.rows_used).sum(),
        processing_time: epoch.total.as_secs_f64() * 1e3,
        phases: serde_json::to_value(epoch.phases).unwrap_or_default(),
        operations: operations.collect(),
    }
}

fn retained(service: &Service, number: u64) -> Result<Arc<EpochProgress>, RequestError> {
    let found = service.engine.progress().history().into_iter().find(|epoch| epoch.epoch.0 == number);
    found.ok_or_else(|| missing(format!("epoch {number} is not retained"), "Only the newest epochs since the start are known one by one."))
}

fn missing(message: String, hint: &str) -> RequestError {
    RequestError::new("42P01", message, hint)
}

fn named(pipeline: &str) -> Result<(), RequestError> {
    match pipeline {
        PIPELINE => Ok(()),
        other => Err(missing(format!("there is no pipeline \"{other}\""), "The pipeline is called main.")),
    }
}

/// The session of who asks, who must be allowed to read a system table.
fn seeing(service: &Service, headers: &HeaderMap, pipeline: &str, table: &str) -> Result<Session, Failure> {
    let session = reader_of(service, headers, table)?;
    named(pipeline)?;
    Ok(session)
}
