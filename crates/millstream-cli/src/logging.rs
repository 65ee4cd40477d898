//! The log: standard error, warnings only unless asked for more.

use crate::args::LogFormat;
use crate::failure::Failure;
use crate::message::LogWriter;
use tracing_subscriber::EnvFilter;

/// Starts logging with a filter such as `info` or `millstream_engine=debug`.
///
/// # Errors
/// When the filter is not one.
pub(crate) fn start(filter: &str, format: LogFormat) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|error| Failure::usage(format!("log filter \"{filter}\" is not valid: {error}")))?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(LogWriter::default).with_ansi(crate::terminal::stderr_color());
    // A second start in one process (tests) keeps the first log.
    let _ = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}
