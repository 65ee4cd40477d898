//! Messages on standard error. They share it with the progress bar, which is taken away while a line is written.

use indicatif::MultiProgress;
use std::io::Write;
use std::sync::OnceLock;

/// The bars on standard error. One per process, since there is one standard error.
static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// The bars on standard error.
pub(crate) fn bars() -> &'static MultiProgress {
    BARS.get_or_init(MultiProgress::new)
}

/// Writes a line to standard error. A closed standard error loses it: there is nobody to tell.
pub(crate) fn line(text: &str) {
    bars().suspend(|| {
        let mut stderr = std::io::stderr().lock();
        let _ = writeln!(stderr, "{}", text.trim_end_matches('\n'));
    });
}

/// Where log lines go: standard error, above the progress bar.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        bars().suspend(|| std::io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
