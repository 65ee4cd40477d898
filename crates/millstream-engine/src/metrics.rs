//! What the progress registry knows of a pipeline, as metrics: for `/metrics` and for OpenTelemetry, so that both say the same.
//!
//! Names are Prometheus' without the prefix `millstream_`: `_total` at the end of what only rises, base units. Distributions of durations
//! are in the registry itself ([`Progress::durations`](crate::progress::Progress::durations)).

use crate::engine::Engine;
use crate::error::Result;
use crate::pipeline::snapshot::StreamFigures;
use millstream_types::EventTime;
use std::collections::BTreeMap;

/// Whether a metric can fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
}

/// Something that is counted or measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Whether it can fall.
    pub kind: MetricKind,
    /// What it is.
    pub help: &'static str,
    /// Its values, each with the labels that tell it from the others.
    pub values: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Metric {
    /// A metric with one value.
    pub fn single(name: &'static str, kind: MetricKind, help: &'static str, value: f64) -> Self {
        Self { name, kind, help, values: vec![(Vec::new(), value)] }
    }

    /// A metric with a value for each of several things.
    pub fn each(
        name: &'static str,
        kind: MetricKind,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, f64)>,
    ) -> Self {
        let values = values.into_iter().map(|(of, value)| (vec![(label, of)], value)).collect();
        Self { name, kind, help, values }
    }
}

/// The metrics of a pipeline, as they are now. Which there are never changes; one may be without a value.
///
/// # Errors
/// When the pipeline has stopped.
pub async fn metrics(engine: &Engine) -> Result<Vec<Metric>> {
    use MetricKind::{Counter, Gauge};
    let figures = engine.figures().await?;
    let report = engine.report_with(&figures);
    let streams = &figures.streams;
    let of_streams = |get: fn(&StreamFigures) -> f64| streams.iter().map(move |stream| (stream.name.clone(), get(stream)));
    let now = engine.clock().now();
    let lag = streams.iter().filter(|stream| !stream.ended && stream.watermark != EventTime::MIN).filter_map(|stream| {
        let micros = now.0.checked_sub(stream.watermark.0)?;
        Some((stream.name.clone(), micros as f64 / 1e6))
    });
    let limits = streams.iter().filter_map(|stream| Some((stream.name.clone(), stream.rate_limit?)));
    let mut state: BTreeMap<&str, u64> = BTreeMap::new();
    figures.operators.iter().for_each(|operator| *state.entry(&operator.query).or_default() += operator.state_bytes);
    let state = state.into_iter().map(|(query, bytes)| (query.to_string(), bytes as f64));
    let memory = engine.shared().base.runtime_env().memory_pool.reserved();
    let buffered = figures.sinks.iter().map(|(name, _, rows)| (name.clone(), *rows as f64));
    let failed = figures.queries.iter().map(|(name, failure)| (name.clone(), f64::from(u8::from(failure.is_some()))));
    let checkpoint = engine.progress().checkpoints().pop();
    let of_checkpoint = |name, help, value: Option<f64>| Metric {
        values: value.into_iter().map(|value| (Vec::new(), value)).collect(),
        ..Metric::single(name, Gauge, help, 0.0)
    };
    Ok(vec![
        Metric::single("completed_epochs_total", Counter, "Epochs committed since the start.", report.epochs as f64),
        Metric::single("committed_epoch", Gauge, "The newest committed epoch.", engine.epoch().0 as f64),
        Metric::each("source_rows_total", Counter, "Rows read from a stream.", "stream", of_streams(|stream| stream.totals.rows_in as f64)),
        Metric::each(
            "source_bad_rows_total",
            Counter,
            "Rows of a stream that could not be decoded.",
            "stream",
            of_streams(|stream| stream.totals.rows_bad as f64),
        ),
        Metric::each(
            "source_late_rows_total",
            Counter,
            "Rows of a stream below its watermark.",
            "stream",
            of_streams(|stream| stream.totals.rows_late as f64),
        ),
        Metric::each(
            "source_bytes_total",
            Counter,
            "Encoded bytes read from a stream.",
            "stream",
            of_streams(|stream| stream.totals.bytes as f64),
        ),
        Metric::each("source_watermark_lag_seconds", Gauge, "How far a stream's watermark is behind the clock.", "stream", lag),
        Metric::each("source_rate_limit_rows", Gauge, "Rows per second that a stream may take, where that is limited.", "stream", limits),
        Metric::single("sink_rows_total", Counter, "Rows added to sinks.", report.rows_out as f64),
        Metric::single("sink_files_total", Counter, "Files of sinks that became visible.", report.files_out as f64),
        Metric::each("sink_buffered_rows", Gauge, "Committed rows of a sink that wait for a file.", "sink", buffered),
        Metric::single("state_rows", Gauge, "Rows of operator state and views.", figures.state.0 as f64),
        Metric::single("operator_state_bytes", Gauge, "Bytes of operator state and views.", figures.state.1 as f64),
        Metric::each("query_state_bytes", Gauge, "Bytes of the state of a query's operators.", "query", state),
        Metric::each("query_failed", Gauge, "1 for a query that has failed.", "query", failed),
        of_checkpoint("checkpoint_bytes", "Bytes of the newest checkpoint.", checkpoint.as_ref().map(|checkpoint| checkpoint.bytes as f64)),
        of_checkpoint(
            "checkpoint_duration_seconds",
            "How long the newest checkpoint took.",
            checkpoint.as_ref().map(|checkpoint| checkpoint.elapsed.as_secs_f64()),
        ),
        Metric::single("pipeline_running", Gauge, "1 while the pipeline takes statements.", f64::from(u8::from(!engine.has_stopped()))),
        Metric::single("memory_used_bytes", Gauge, "Memory of `memory_limit` that is taken.", memory as f64),
        Metric::single("memory_peak_bytes", Gauge, "Largest resident set of the process.", report.peak_memory_bytes as f64),
        Metric::single("cpu_seconds_total", Counter, "CPU time of the process.", report.cpu_seconds),
    ])
}
