//! `GET /metrics`: figures in Prometheus' text form, from the progress registry.

use super::failure::Failure;
use super::reader_of;
use crate::error::RequestError;
use crate::service::Service;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use millstream_engine::EngineError;
use millstream_engine::metrics::{Metric, MetricKind};
use millstream_engine::progress::{DURATION_BUCKETS, DurationHistogram, EPOCH_DURATION};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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

    fn metric(&mut self, metric: &Metric) {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        self.head(metric.name, kind, metric.help);
        for (labels, value) in &metric.values {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(label, value)| (*label, value.as_str())).collect();
            self.value(metric.name, &labels, *value);
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
    let mut page = Page::default();
    page.head("build_info", "gauge", "Which build this is.");
    page.value("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    page.head("epoch_duration_seconds", "histogram", EPOCH_DURATION);
    for (phase, histogram) in &service.engine.progress().durations() {
        page.histogram("epoch_duration_seconds", &[("phase", phase)], histogram);
    }
    all(service).await?.iter().for_each(|metric| page.metric(metric));
    Ok(page.0)
}

/// The metrics of the pipeline and of the server.
///
/// # Errors
/// When the pipeline has stopped.
pub(crate) async fn all(service: &Service) -> Result<Vec<Metric>, EngineError> {
    use MetricKind::{Counter, Gauge};
    let mut metrics = millstream_engine::metrics::metrics(&service.engine).await?;
    let own = &service.figures;
    let size = |counter: &AtomicUsize| counter.load(Ordering::Relaxed) as f64;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    metrics.extend([
        Metric::single("pg_connections", Gauge, "Connections over the PostgreSQL protocol.", size(&own.pg_connections)),
        Metric::single("http_connections", Gauge, "Connections over HTTP.", size(&own.http_connections)),
        Metric::single("flight_connections", Gauge, "Connections over Arrow Flight SQL.", size(&own.flight_connections)),
        Metric::single(
            "refused_connections_total",
            Counter,
            "Connections and requests refused because there were as many as may be.",
            count(&service.admission.refused),
        ),
        Metric::single("pg_statements_total", Counter, "Statements over the PostgreSQL protocol.", count(&own.pg_statements)),
        Metric::single(
            "pg_failed_statements_total",
            Counter,
            "Statements over the PostgreSQL protocol that failed.",
            count(&own.failed_statements),
        ),
        Metric::single("http_requests_total", Counter, "Requests over HTTP.", count(&own.http_requests)),
        Metric::single("flight_requests_total", Counter, "Requests over Arrow Flight SQL.", count(&own.flight_requests)),
        Metric::single("flight_statements_total", Counter, "Statements over Arrow Flight SQL.", count(&own.flight_statements)),
    ]);
    Ok(metrics)
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
