//! The log: standard error, warnings only unless asked for more.

use crate::args::LogFormat;
use crate::failure::Failure;
use crate::message::LogWriter;
use crate::telemetry::SpanLayer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Starts logging with a filter such as `info` or `millstream_engine=debug`. Spans go to `spans`, too, whatever is logged.
///
/// # Errors
/// When the filter is not one.
pub(crate) fn start(filter: &str, format: LogFormat, spans: Option<SpanLayer>) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|error| Failure::usage(format!("log filter \"{filter}\" is not valid: {error}")))?;
    let log = tracing_subscriber::fmt::layer().with_writer(LogWriter::default).with_ansi(crate::terminal::stderr_color());
    let log = match format {
        LogFormat::Text => log.with_target(false).boxed(),
        LogFormat::Json => log.json().boxed(),
    };
    // A second start in one process (tests) keeps the first log.
    let _ = tracing_subscriber::registry().with(spans).with(log.with_filter(filter)).try_init();
    Ok(())
}
