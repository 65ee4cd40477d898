//! Figures as observable instruments, read together for each export.
//!
//! Names follow OpenTelemetry (`millstream.source_rows`, unit `s` or `By`) such that a collector which writes them for Prometheus gives the
//! very names of `/metrics` (`millstream_source_rows_total`).
//!
//! Each instrument is asked for its values by itself. All values of an export are from one reading all the same: it is made anew when an
//! instrument asks a second time.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use parking_lot::Mutex;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What values are told apart by.
pub type Labels = Vec<(&'static str, String)>;

/// Something that is counted or measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Its name, as `/metrics` has it without `millstream_`.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Whether it can fall.
    pub kind: FigureKind,
    /// Its values.
    pub values: Vec<(Labels, f64)>,
}

/// Whether a figure can fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FigureKind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
}

/// Where figures come from.
pub trait Figures: Send + Sync + 'static {
    /// All of them, as they are now. Called by the thread of the exporter, which may wait for them; none if they cannot be had.
    fn read(&self) -> Vec<Figure>;
}

/// The figures of one export.
pub(crate) struct Observed {
    figures: Arc<dyn Figures>,
    reading: Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    by_name: HashMap<&'static str, Vec<(Labels, f64)>>,
    /// The instruments that have had their values. Empty before the first reading.
    asked: HashSet<&'static str>,
}

impl Observed {
    pub(crate) fn new(figures: Arc<dyn Figures>) -> Self {
        Self { figures, reading: Mutex::default() }
    }

    fn values(&self, name: &'static str) -> Vec<(Labels, f64)> {
        let mut reading = self.reading.lock();
        if reading.asked.is_empty() || reading.asked.contains(name) {
            reading.by_name = self.figures.read().into_iter().map(|figure| (figure.name, figure.values)).collect();
            reading.asked.clear();
        }
        reading.asked.insert(name);
        reading.by_name.get(name).cloned().unwrap_or_default()
    }

    fn observe(&self, name: &'static str, instrument: &dyn AsyncInstrument<f64>) {
        for (labels, value) in self.values(name) {
            let labels: Vec<KeyValue> = labels.into_iter().map(|(label, value)| KeyValue::new(label, value)).collect();
            instrument.observe(value, &labels);
        }
    }
}

/// Makes the instrument of a figure.
pub(crate) fn register(meter: &Meter, figure: &Figure, observed: &Arc<Observed>) {
    let (source, observed) = (figure.name, Arc::clone(observed));
    let (name, unit) = instrument(source, figure.kind);
    let unit = unit.unwrap_or_default();
    match figure.kind {
        FigureKind::Counter => {
            let counter = meter.f64_observable_counter(name).with_description(figure.help).with_unit(unit);
            counter.with_callback(move |instrument| observed.observe(source, instrument)).build();
        }
        FigureKind::Gauge => {
            let gauge = meter.f64_observable_gauge(name).with_description(figure.help).with_unit(unit);
            gauge.with_callback(move |instrument| observed.observe(source, instrument)).build();
        }
    }
}

/// The name of an instrument, and its unit.
pub(crate) fn instrument(name: &'static str, kind: FigureKind) -> (Cow<'static, str>, Option<&'static str>) {
    let name = match kind {
        FigureKind::Counter => name.strip_suffix("_total").unwrap_or(name),
        FigureKind::Gauge => name,
    };
    let (name, unit) = match (name.strip_suffix("_seconds"), name.strip_suffix("_bytes")) {
        (Some(name), _) => (name, Some("s")),
        (_, Some(name)) => (name, Some("By")),
        _ => (name, None),
    };
    (format!("millstream.{name}").into(), unit)
}
