//! Spans and metrics for a collector of OpenTelemetry, in builds with the feature `otel`.
//!
//! A service exports where the environment or the configuration file names a collector. There is one export per process, as there is one
//! log, and it ends with the process: what is left is sent then, if the collector takes it in time. Without the feature a configuration
//! file that names a collector is refused, rather than left without effect.

use crate::failure::Failure;
use crate::settings::Settings;
use millstream_engine::Engine;
use millstream_server::ServerMetrics;
use tracing_subscriber::{Layer, Registry};

/// What gives spans to the export.
pub(crate) type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

#[cfg(feature = "otel")]
pub(crate) use export::{observe, start, stop};

/// Begins to export, if something says where to.
///
/// # Errors
/// When something does: this build exports nothing.
#[cfg(not(feature = "otel"))]
pub(crate) fn start(settings: &Settings) -> Result<Option<SpanLayer>, Failure> {
    let otel = &settings.otel;
    let given = [("otel.endpoint", &otel.endpoint), ("otel.filter", &otel.filter), ("otel.service_name", &otel.service_name)];
    match given.iter().find(|(_, value)| value.is_some()) {
        None => Ok(None),
        Some((name, _)) => Err(Failure::usage(format!(
            "setting \"{name}\" needs a build with OpenTelemetry\nhint: cargo build --release --features otel makes one."
        ))),
    }
}

/// Exports the metrics of a pipeline from now on.
#[cfg(not(feature = "otel"))]
pub(crate) async fn observe(_: &Engine, _: Option<ServerMetrics>) {}

/// Sends what is left, and ends the export.
#[cfg(not(feature = "otel"))]
pub(crate) async fn stop() {}

#[cfg(feature = "otel")]
mod export {
    use super::{Engine, Failure, ServerMetrics, Settings, SpanLayer};
    use millstream_engine::EngineError;
    use millstream_engine::metrics::{Metric, MetricKind};
    use millstream_engine::progress::{DURATION_BUCKETS, EPOCH_DURATION, EpochProgress, PhaseTimes};
    use millstream_telemetry::{Durations, Figure, FigureKind, Figures, Options, Telemetry};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::Duration;
    use tokio::runtime::Handle;
    use tokio::sync::broadcast::error::RecvError;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::{Layer, Registry};

    /// How long the end of the process waits for a collector.
    const STOP: Duration = Duration::from_secs(3);
    /// How long an export waits for a pipeline that is in the middle of an epoch.
    const READ: Duration = Duration::from_secs(5);
    /// Our own spans; those of the exporter's connections would be exported in turn.
    const FILTER: &str = "millstream=info";

    /// The one export of the process.
    static EXPORT: Mutex<Option<Telemetry>> = Mutex::new(None);

    pub(crate) fn start(settings: &Settings) -> Result<Option<SpanLayer>, Failure> {
        let usage = |error: millstream_telemetry::TelemetryError| Failure::usage(error.message);
        let otel = &settings.otel;
        let name = otel.service_name.as_deref().unwrap_or("millstream");
        let env = |name: &str| std::env::var(name).ok();
        let Some(options) = Options::from_env(env, otel.endpoint.as_deref(), name, env!("CARGO_PKG_VERSION")).map_err(usage)? else {
            return Ok(None);
        };
        let filter = otel.filter.as_deref().unwrap_or(FILTER);
        let filter = filter.parse::<Targets>().map_err(|error| {
            Failure::usage(format!("setting \"otel.filter\" is '{filter}', which is no filter: {error}\nhint: millstream=info is one."))
        })?;
        let telemetry = Telemetry::start(&options).map_err(usage)?;
        let layer = telemetry.layer::<Registry>().map(|layer| layer.with_filter(filter).boxed());
        *EXPORT.lock().unwrap_or_else(PoisonError::into_inner) = Some(telemetry);
        Ok(layer)
    }

    pub(crate) async fn observe(engine: &Engine, server: Option<ServerMetrics>) {
        let wants_metrics = EXPORT.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(Telemetry::has_metrics);
        if !wants_metrics {
            return;
        }
        let source = Source { engine: engine.clone(), server, runtime: Handle::current() };
        let known = match source.metrics().await {
            Ok(metrics) => metrics.into_iter().map(figure).collect::<Vec<_>>(),
            Err(error) => return tracing::warn!(%error, "metrics are not exported"),
        };
        let export = EXPORT.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(telemetry) = export.as_ref() else { return };
        telemetry.observe(&known, Arc::new(source));
        if let Some(durations) = telemetry.durations("epoch_duration_seconds", EPOCH_DURATION, &DURATION_BUCKETS) {
            tokio::spawn(follow(engine.clone(), durations));
        }
    }

    pub(crate) async fn stop() {
        let export = EXPORT.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(telemetry) = export {
            telemetry.stop(STOP).await;
        }
    }

    /// Counts how long each epoch takes.
    async fn follow(engine: Engine, durations: Durations) {
        let mut epochs = engine.progress().subscribe();
        loop {
            match epochs.recv().await {
                Ok(epoch) => count(&epoch, &durations),
                Err(RecvError::Lagged(epochs)) => tracing::warn!(epochs, "durations of epochs were not exported"),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn count(epoch: &EpochProgress, durations: &Durations) {
        let PhaseTimes { plan, read, dataflow, sink, commit, publish } = epoch.phases;
        let phases = [("plan", plan), ("read", read), ("dataflow", dataflow), ("sink", sink), ("commit", commit), ("publish", publish)];
        for (phase, time) in phases.into_iter().chain([("total", epoch.total)]) {
            durations.record(time.as_secs_f64(), ("phase", phase));
        }
    }

    /// Where metrics come from.
    struct Source {
        engine: Engine,
        server: Option<ServerMetrics>,
        runtime: Handle,
    }

    impl Source {
        async fn metrics(&self) -> Result<Vec<Metric>, EngineError> {
            match &self.server {
                Some(server) => server.read().await,
                None => millstream_engine::metrics::metrics(&self.engine).await,
            }
        }
    }

    impl Figures for Source {
        fn read(&self) -> Vec<Figure> {
            match self.runtime.block_on(async { tokio::time::timeout(READ, self.metrics()).await }) {
                Ok(Ok(metrics)) => metrics.into_iter().map(figure).collect(),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "there are no metrics any more");
                    Vec::new()
                }
                Err(_) => {
                    tracing::warn!("metrics were not exported: an epoch takes too long");
                    Vec::new()
                }
            }
        }
    }

    fn figure(metric: Metric) -> Figure {
        let kind = match metric.kind {
            MetricKind::Counter => FigureKind::Counter,
            MetricKind::Gauge => FigureKind::Gauge,
        };
        Figure { name: metric.name, help: metric.help, kind, values: metric.values }
    }
}
