//! Progress of long work: a bar on a terminal, else a line every few seconds, both on standard error.
//!
//! ```text
//! ▕██████████▏ 42% 1.20M rows  850k rows/s  event time 2015-07-15T00:01:40Z  12 s left
//! ```
//! How much there is to do is estimated from the sizes of the input files, so the share is one of bytes; without files to
//! look at there is no share and no time left, and rows and event time tell alone.

use crate::message;
use crate::numbers;
use crate::terminal;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use millstream_engine::{CatalogEntry, Engine, EpochProgress, Stopwatch};
use millstream_sql::Statement;
use millstream_types::EventTime;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// How often a line is written when there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// How often the bar moves.
const BAR_INTERVAL: Duration = Duration::from_millis(200);

/// What is known so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Rows read.
    pub(crate) rows: u64,
    /// Encoded bytes read.
    pub(crate) bytes: u64,
    /// Watermarks.
    pub(crate) watermarks: BTreeMap<String, EventTime>,
}

impl Tally {
    fn add(&mut self, epoch: &EpochProgress) {
        for source in &epoch.sources {
            self.rows += source.rows_in;
            self.bytes += source.bytes;
            self.watermarks.insert(source.stream.clone(), source.watermark);
        }
    }

    /// The event time that all streams have reached.
    pub(crate) fn event_time(&self) -> Option<EventTime> {
        let reached = self.watermarks.values().filter(|time| **time != EventTime::MIN && **time != EventTime::MAX).min();
        reached.copied()
    }

    /// Share of the input that is read, where its size is known.
    fn share(&self, total_bytes: Option<u64>) -> Option<f64> {
        let total = total_bytes.filter(|total| *total > 0)?;
        Some((self.bytes as f64 / total as f64).min(1.0))
    }

    /// The tally as one line, without the share.
    pub(crate) fn line(&self, elapsed: Duration, total_bytes: Option<u64>) -> String {
        let mut parts = vec![format!("{} rows", numbers::short(self.rows as f64))];
        parts.extend(numbers::rate(self.rows, elapsed));
        parts.extend(self.event_time().map(|time| format!("event time {time}")));
        if let Some(share) = self.share(total_bytes).filter(|share| *share > 0.01 && *share < 1.0) {
            let left = elapsed.mul_f64((1.0 - share) / share);
            parts.push(format!("{} left", numbers::duration(Duration::from_secs(left.as_secs().max(1)))));
        }
        parts.join("  ")
    }
}

/// Follows the engine until the call is dropped.
pub(crate) async fn follow(engine: &Engine, total_bytes: Option<u64>) {
    let watch = Stopwatch::start();
    let mut epochs = engine.progress().subscribe();
    let mut tally = Tally::default();
    let mut display = Display::new(total_bytes);
    let mut ticks = tokio::time::interval(if terminal::stderr_is_terminal() { BAR_INTERVAL } else { LINE_INTERVAL });
    // The first tick is at once: nothing has happened yet.
    ticks.tick().await;
    loop {
        tokio::select! {
            epoch = epochs.recv() => match epoch {
                Ok(epoch) => tally.add(&epoch),
                Err(RecvError::Lagged(_)) => {
                    let report = engine.progress().report();
                    (tally.rows, tally.bytes) = (report.rows_in, report.bytes_in);
                }
                Err(RecvError::Closed) => return,
            },
            _ = ticks.tick() => display.show(&tally, watch.elapsed(), total_bytes),
        }
    }
}

enum Display {
    Bar(ProgressBar),
    Lines,
}

impl Display {
    fn new(total_bytes: Option<u64>) -> Self {
        if !terminal::stderr_is_terminal() {
            return Display::Lines;
        }
        let bar = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::hidden());
        let template = if total_bytes.is_some_and(|total| total > 0) { "▕{bar:20}▏ {percent:>3}% {msg}" } else { "{spinner} {msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        Display::Bar(message::bars().add(bar))
    }

    fn show(&mut self, tally: &Tally, elapsed: Duration, total_bytes: Option<u64>) {
        let line = tally.line(elapsed, total_bytes);
        match self {
            Display::Bar(bar) => {
                bar.set_message(line);
                match total_bytes {
                    Some(total) => bar.set_position(tally.bytes.min(total)),
                    None => bar.tick(),
                }
            }
            Display::Lines => {
                let share = tally.share(total_bytes).map_or(String::new(), |share| format!("{:.0}%  ", share * 100.0));
                message::line(&format!("progress: {share}{line}"));
            }
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Display::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Bytes of the local files that the streams of a catalog read; `None` when one reads something else.
pub(crate) fn input_bytes(catalog: &[CatalogEntry], overrides: &[(String, String, String)]) -> Option<u64> {
    let mut total = 0;
    for entry in catalog.iter().filter(|entry| entry.kind == "stream") {
        let Ok(Statement::CreateStream(stream)) = millstream_sql::parse_statement(&entry.sql) else { return None };
        if stream.as_select.is_some() {
            continue;
        }
        let option = |name: &str| {
            let given =
                overrides.iter().rev().find(|(object, option, _)| *object == entry.name && option == name).map(|(_, _, value)| value);
            given.or_else(|| stream.options.iter().find(|(option, _)| option == name).map(|(_, value)| value)).map(String::as_str)
        };
        if !matches!(option("connector"), Some("files" | "filesystem")) {
            return None;
        }
        let path = option("path")?;
        if path.contains("://") || path.contains(['*', '?', '[']) {
            return None;
        }
        total += directory_bytes(Path::new(path))?;
    }
    Some(total)
}

/// Bytes of a file, or of the files of a directory.
fn directory_bytes(path: &Path) -> Option<u64> {
    let metadata = std::fs::metadata(path).ok()?;
    if metadata.is_file() {
        return Some(metadata.len());
    }
    let mut total = 0;
    let mut waiting: Vec<PathBuf> = vec![path.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).ok()? {
            let entry = entry.ok()?;
            if entry.file_name().to_string_lossy().starts_with(['.', '_']) {
                continue;
            }
            let metadata = entry.metadata().ok()?;
            if metadata.is_dir() { waiting.push(entry.path()) } else { total += metadata.len() }
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_rows_rate_event_time_and_time_left() {
        let watermarks = [("a".to_string(), EventTime(1_000_000)), ("b".to_string(), EventTime::MAX)].into();
        let tally = Tally { rows: 1_200_000, bytes: 50, watermarks };
        assert_eq!(tally.line(Duration::from_secs(10), Some(100)), "1.20M rows  120k rows/s  event time 1970-01-01T00:00:01Z  10 s left");
        assert_eq!(Tally::default().line(Duration::ZERO, None), "0 rows");
    }

    #[test]
    fn hidden_files_do_not_count() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), "12345").unwrap();
        std::fs::write(directory.path().join("_b"), "12345").unwrap();
        assert_eq!(directory_bytes(directory.path()), Some(5));
        assert_eq!(directory_bytes(&directory.path().join("missing")), None);
    }
}
