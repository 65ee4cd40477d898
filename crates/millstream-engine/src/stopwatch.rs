//! The engine's only contact with the operating system's clocks.
//!
//! Everything else gets time as an [`EventTime`] of an injected [`Clock`]; durations for the progress registry come from
//! [`Stopwatch`].

use millstream_types::{Clock, EventTime};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads the operating system's wall clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> EventTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        EventTime(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// Measures how long something takes, for monitoring and to space checkpoints: no result depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    #[allow(clippy::disallowed_methods, reason = "the one place that measures durations")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Time since the start or the last lap; starts the next lap.
    #[allow(clippy::disallowed_methods, reason = "the one place that measures durations")]
    pub fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let lap = now - self.0;
        self.0 = now;
        lap
    }
}
