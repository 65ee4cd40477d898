//! Export of spans and metrics by OpenTelemetry: OTLP over gRPC, behind the feature `otel`.
//!
//! ```text
//!   tracing ── layer ──► queue ──► thread of the exporter ──┐
//!   (engine, sessions)   bounded                            ├─► collector
//!   progress registry ◄── read by observable instruments ───┘
//! ```
//! **Promise**: nobody waits for a collector. Spans that find their queue full are dropped, figures are read by the exporter's own thread,
//! and the end waits for the last of both only as long as it is told to. A collector that cannot be reached is an error in the log.
//!
//! The crate knows neither engine nor server: it is given spans by `tracing` and figures by `Figures`. It reads the standard variables of
//! the environment (`OTEL_..`), of which `Options::from_env` lists those that decide whether anything is exported.
//!
//! **Reference**: OpenTelemetry specification, "Environment variables" and "Protocol exporter".

#![cfg(feature = "otel")]

mod figures;
mod options;
#[cfg(test)]
mod tests;

pub use figures::{Figure, FigureKind, Figures, Labels};
pub use options::{Options, TelemetryError};

use figures::Observed;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, MeterProvider};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::Arc;
use std::time::Duration;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

/// What spans and figures are exported under.
const SCOPE: &str = "millstream";

/// A running export.
#[derive(Debug)]
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
}

impl Telemetry {
    /// Begins to export. Must be called where a runtime of tokio runs, which carries the connections.
    ///
    /// # Errors
    /// When the address of the collector is none.
    pub fn start(options: &Options) -> Result<Self, TelemetryError> {
        let mut resource = Resource::builder();
        if let Some(name) = &options.service_name {
            resource = resource.with_service_name(name.clone());
        }
        let resource = resource.with_attribute(KeyValue::new("service.version", options.version)).build();
        let spans = options.spans.as_ref().map(|to| {
            let exporter = SpanExporter::builder().with_tonic();
            let exporter = to.endpoint.iter().fold(exporter, |exporter, endpoint| exporter.with_endpoint(endpoint));
            let exporter = exporter.build().map_err(wrong)?;
            Ok::<_, TelemetryError>(SdkTracerProvider::builder().with_resource(resource.clone()).with_batch_exporter(exporter).build())
        });
        let metrics = options.metrics.as_ref().map(|to| {
            let exporter = MetricExporter::builder().with_tonic();
            let exporter = to.endpoint.iter().fold(exporter, |exporter, endpoint| exporter.with_endpoint(endpoint));
            let exporter = exporter.build().map_err(wrong)?;
            Ok::<_, TelemetryError>(SdkMeterProvider::builder().with_resource(resource.clone()).with_periodic_exporter(exporter).build())
        });
        Ok(Self { spans: spans.transpose()?, metrics: metrics.transpose()? })
    }

    /// What gives spans to the export; `None` where none are wanted.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> Option<impl Layer<S> + use<S>> {
        let tracer = self.spans.as_ref()?.tracer(SCOPE);
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        Some(layer.with_location(false).with_threads(false).with_tracked_inactivity(false))
    }

    /// Whether metrics are exported.
    pub fn has_metrics(&self) -> bool {
        self.metrics.is_some()
    }

    /// Exports figures from now on. `known` are those that there are; their values are read anew for each export.
    pub fn observe(&self, known: &[Figure], figures: Arc<dyn Figures>) {
        let Some(metrics) = &self.metrics else { return };
        let meter = metrics.meter(SCOPE);
        let observed = Arc::new(Observed::new(figures));
        known.iter().for_each(|figure| figures::register(&meter, figure, &observed));
    }

    /// A distribution of durations in seconds; `None` where no metrics are exported.
    pub fn durations(&self, name: &'static str, help: &'static str, bounds: &[f64]) -> Option<Durations> {
        let meter = self.metrics.as_ref()?.meter(SCOPE);
        let (name, unit) = figures::instrument(name, FigureKind::Gauge);
        let histogram = meter.f64_histogram(name).with_description(help).with_boundaries(bounds.to_vec());
        Some(Durations(histogram.with_unit(unit.unwrap_or_default()).build()))
    }

    /// Sends what is left, and ends the export. Whatever the collector does, it takes no longer than `limit`.
    pub async fn stop(self, limit: Duration) {
        let Self { spans, metrics } = self;
        // Waits for threads: not on one that carries connections.
        let stopped = tokio::task::spawn_blocking(move || {
            let spans = spans.map(|spans| spans.shutdown_with_timeout(limit));
            let metrics = metrics.map(|metrics| metrics.shutdown_with_timeout(limit));
            [spans, metrics]
        });
        match tokio::time::timeout(limit, stopped).await {
            Ok(Ok(ended)) => ended.into_iter().flatten().filter_map(Result::err).for_each(|error| {
                tracing::warn!(%error, "the last spans or metrics were not exported");
            }),
            Ok(Err(error)) => tracing::warn!(%error, "the export ended badly"),
            Err(_) => tracing::warn!("the last spans or metrics were not exported in time"),
        }
    }
}

/// A distribution of durations.
#[derive(Debug, Clone)]
pub struct Durations(Histogram<f64>);

impl Durations {
    /// Counts one.
    pub fn record(&self, seconds: f64, label: (&'static str, &'static str)) {
        self.0.record(seconds, &[KeyValue::new(label.0, label.1)]);
    }
}

fn wrong(error: ExporterBuildError) -> TelemetryError {
    TelemetryError { message: format!("spans and metrics cannot be exported: {error}") }
}
