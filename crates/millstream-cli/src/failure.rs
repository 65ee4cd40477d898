//! How the program ends: exit codes, and the one place that prints an error.

use std::fmt;
use std::io::ErrorKind;

/// Everything was done.
pub(crate) const DONE: u8 = 0;
/// A query or the pipeline failed.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage or configuration.
pub(crate) const USAGE: u8 = 2;
/// A script failed part-way.
pub(crate) const SCRIPT: u8 = 3;
/// Interrupted (SIGINT).
pub(crate) const INTERRUPTED: u8 = 130;
/// Terminated (SIGTERM).
pub(crate) const TERMINATED: u8 = 143;

/// An error with its exit code. Errors without one end with [`FAILED`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// What is printed after `error: `; empty when everything was said.
    pub(crate) message: String,
}

impl Failure {
    /// Wrong usage or configuration.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    /// A query or the pipeline failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into() }
    }

    /// A script failed part-way; the message names file and line.
    pub(crate) fn script(message: impl Into<String>) -> Self {
        Self { code: SCRIPT, message: message.into() }
    }

    /// Ends with this code without a message.
    pub(crate) fn silent(code: u8) -> Self {
        Self { code, message: String::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Whether an error says that nobody reads our output any more: then the program ends quietly.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe))
}

/// Prints an error to standard error and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> u8 {
    if is_closed_pipe(error) {
        return DONE;
    }
    if let Some(failure) = error.downcast_ref::<Failure>() {
        if !failure.message.is_empty() {
            print_error(&failure.message);
        }
        return failure.code;
    }
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    print_error(&causes.join(": "));
    FAILED
}

/// Prints a message as an error; a rendered error (with its own head) stays as it is.
pub(crate) fn print_error(message: &str) {
    let message = message.trim_end();
    let text = if message.starts_with("error") { message.to_string() } else { format!("error: {message}") };
    crate::message::line(&if crate::terminal::stderr_color() { text.replacen("error", "\x1b[1;31merror\x1b[0m", 1) } else { text });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_the_error() {
        let broken = anyhow::Error::from(std::io::Error::from(ErrorKind::BrokenPipe)).context("writing rows");
        assert!(is_closed_pipe(&broken));
        assert_eq!(report(&broken), DONE);
        assert_eq!(report(&anyhow::Error::from(Failure::silent(INTERRUPTED))), INTERRUPTED);
    }
}
