//! `GET /metrics`: figures in Prometheus' text form, from the progress registry.

use super::failure::Failure;
use super::reader_of;
use crate::error::RequestError;
use crate::service::Service;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use millstream_engine::progress::{DURATION_BUCKETS, DurationHistogram};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Metrics as they are written: each name once, with its help and type before its values.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP millstream_{name} {help}\n# TYPE millstream_{name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.0, "millstream_{name}");
        for (index, (label, value)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"{}\"", escaped(value));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.head(name, kind, help);
        self.value(name, &[], value);
    }

    /// One metric with a value for each of several things.
    fn each<'a>(&mut self, name: &str, kind: &str, help: &str, label: &str, values: impl IntoIterator<Item = (&'a str, f64)>) {
        self.head(name, kind, help);
        for (of, value) in values {
            self.value(name, &[(label, of)], value);
        }
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &DurationHistogram) {
        let mut sum = 0;
        for (bound, count) in DURATION_BUCKETS.iter().zip(&histogram.counts) {
            sum += count;
            let bound = bound.to_string();
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.value(&format!("{name}_bucket"), &labels, sum as f64);
        }
        let all: Vec<(&str, &str)> = labels.iter().copied().chain([("le", "+Inf")]).collect();
        self.value(&format!("{name}_bucket"), &all, histogram.count as f64);
        self.value(&format!("{name}_sum"), labels, histogram.seconds);
        self.value(&format!("{name}_count"), labels, histogram.count as f64);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Figures of the pipeline and of the server.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "Prometheus' text form", body = String, content_type = "text/plain")),
    security(("token" = []), ("password" = []))
)]
pub(super) async fn metrics(State(service): State<Arc<Service>>, headers: HeaderMap) -> Result<Response, Failure> {
    reader_of(&service, &headers, "epochs")?;
    let page = page(&service).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response())
}

async fn page(service: &Service) -> Result<String, RequestError> {
    let engine = &service.engine;
    let progress = engine.progress();
    let report = engine.report().await?;
    let figures = engine.figures().await?;
    let durations = progress.durations();
    let mut page = Page::default();
    page.head("build_info", "gauge", "Which build this is.");
    page.value("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    page.single("completed_epochs_total", "counter", "Epochs committed since the start.", report.epochs as f64);
    page.single("committed_epoch", "gauge", "The newest committed epoch.", engine.epoch().0 as f64);
    page.head("epoch_duration_seconds", "histogram", "Time of epochs, in all and by phase.");
    for (phase, histogram) in &durations {
        page.histogram("epoch_duration_seconds", &[("phase", phase)], histogram);
    }
    let streams = &figures.streams;
    let of_streams = |get: fn(&millstream_engine::pipeline::snapshot::StreamFigures) -> f64| {
        streams.iter().map(move |stream| (stream.name.as_str(), get(stream))).collect::<Vec<_>>()
    };
    let rows = of_streams(|stream| stream.totals.rows_in as f64);
    page.each("source_rows_total", "counter", "Rows read from a stream.", "stream", rows);
    let bad = of_streams(|stream| stream.totals.rows_bad as f64);
    page.each("source_bad_rows_total", "counter", "Rows of a stream that could not be decoded.", "stream", bad);
    let late = of_streams(|stream| stream.totals.rows_late as f64);
    page.each("source_late_rows_total", "counter", "Rows of a stream below its watermark.", "stream", late);
    let bytes = of_streams(|stream| stream.totals.bytes as f64);
    page.each("source_bytes_total", "counter", "Encoded bytes read from a stream.", "stream", bytes);
    let now = engine.clock().now();
    let lag = streams.iter().filter(|stream| !stream.ended).filter_map(|stream| {
        let seconds = now.0.checked_sub(stream.watermark.0)? as f64 / 1e6;
        (stream.watermark != millstream_types::EventTime::MIN).then_some((stream.name.as_str(), seconds))
    });
    page.each(
        "source_watermark_lag_seconds",
        "gauge",
        "How far a stream's watermark is behind the clock.",
        "stream",
        lag.collect::<Vec<_>>(),
    );
    page.single("sink_rows_total", "counter", "Rows added to sinks.", report.rows_out as f64);
    page.single("sink_files_total", "counter", "Files of sinks that became visible.", report.files_out as f64);
    let buffered = figures.sinks.iter().map(|(name, _, rows)| (name.as_str(), *rows as f64));
    page.each("sink_buffered_rows", "gauge", "Committed rows of a sink that wait for a file.", "sink", buffered.collect::<Vec<_>>());
    page.single("state_rows", "gauge", "Rows of operator state and views.", figures.state.0 as f64);
    page.single("operator_state_bytes", "gauge", "Bytes of operator state and views.", figures.state.1 as f64);
    let failed = figures.queries.iter().map(|(name, failure)| (name.as_str(), f64::from(u8::from(failure.is_some()))));
    page.each("query_failed", "gauge", "1 for a query that has failed.", "query", failed.collect::<Vec<_>>());
    if let Some(checkpoint) = progress.checkpoints().last() {
        page.single("checkpoint_bytes", "gauge", "Bytes of the newest checkpoint.", checkpoint.bytes as f64);
        page.single("checkpoint_duration_seconds", "gauge", "How long the newest checkpoint took.", checkpoint.elapsed.as_secs_f64());
    }
    page.single("pipeline_running", "gauge", "1 while the pipeline takes statements.", f64::from(u8::from(!engine.has_stopped())));
    page.single("memory_peak_bytes", "gauge", "Largest resident set of the process.", report.peak_memory_bytes as f64);
    page.single("cpu_seconds_total", "counter", "CPU time of the process.", report.cpu_seconds);
    let own = &service.figures;
    page.single("pg_connections", "gauge", "Connections over the PostgreSQL protocol.", own.pg_connections.load(Ordering::Relaxed) as f64);
    page.single(
        "pg_statements_total",
        "counter",
        "Statements over the PostgreSQL protocol.",
        own.pg_statements.load(Ordering::Relaxed) as f64,
    );
    let failed = own.failed_statements.load(Ordering::Relaxed) as f64;
    page.single("pg_failed_statements_total", "counter", "Statements over the PostgreSQL protocol that failed.", failed);
    page.single("http_requests_total", "counter", "Requests over HTTP.", own.http_requests.load(Ordering::Relaxed) as f64);
    let requests = own.flight_requests.load(Ordering::Relaxed) as f64;
    page.single("flight_requests_total", "counter", "Requests over Arrow Flight SQL.", requests);
    let statements = own.flight_statements.load(Ordering::Relaxed) as f64;
    page.single("flight_statements_total", "counter", "Statements over Arrow Flight SQL.", statements);
    Ok(page.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative() {
        let mut page = Page::default();
        let mut histogram = DurationHistogram::default();
        histogram.add(std::time::Duration::from_micros(300));
        histogram.add(std::time::Duration::from_secs(1_000));
        page.histogram("x_seconds", &[("phase", "a\"b")], &histogram);
        let lines: Vec<&str> = page.0.lines().collect();
        assert_eq!(lines[0], "millstream_x_seconds_bucket{phase=\"a\\\"b\",le=\"0.0001\"} 0");
        assert_eq!(lines[1], "millstream_x_seconds_bucket{phase=\"a\\\"b\",le=\"0.0005\"} 1");
        assert_eq!(lines[lines.len() - 3], "millstream_x_seconds_bucket{phase=\"a\\\"b\",le=\"+Inf\"} 2");
        assert_eq!(lines[lines.len() - 1], "millstream_x_seconds_count{phase=\"a\\\"b\"} 2");
    }
}
