//! The clock of a replay, and how fast it is allowed to run.

use crate::args::Speed;
use millstream_engine::Stopwatch;
use millstream_types::{Clock, EventTime, ManualClock};
use std::time::Duration;

/// A clock that stands at the largest watermark reached.
#[derive(Debug)]
pub(crate) struct ReplayClock(ManualClock);

impl ReplayClock {
    /// A clock that stands at `start`, or at 1970 until event time is known.
    pub(crate) fn new(start: Option<EventTime>) -> Self {
        Self(ManualClock::new(start.unwrap_or(EventTime(0))))
    }

    /// Moves to a watermark; those without a time do not count.
    pub(crate) fn reached(&self, watermark: EventTime) {
        if watermark != EventTime::MIN && watermark != EventTime::MAX {
            self.0.advance_to(watermark);
        }
    }

    /// Where it stands.
    pub(crate) fn event_time(&self) -> EventTime {
        self.0.now()
    }
}

impl Clock for ReplayClock {
    fn now(&self) -> EventTime {
        self.0.now()
    }
}

/// Holds epochs back until their event time is due.
#[derive(Debug)]
pub(crate) struct Pace {
    speed: Speed,
    watch: Stopwatch,
    first: Option<EventTime>,
}

impl Pace {
    /// A pace that begins with the first event time it sees.
    pub(crate) fn new(speed: Speed) -> Self {
        Self { speed, watch: Stopwatch::start(), first: None }
    }

    /// Waits until `reached` is due.
    pub(crate) async fn wait(&mut self, reached: EventTime) {
        let Speed::Factor(factor) = self.speed else { return };
        let Some(first) = self.first else {
            self.first = Some(reached);
            self.watch = Stopwatch::start();
            return;
        };
        let due = due_after(first, reached, factor);
        tokio::time::sleep(due.saturating_sub(self.watch.elapsed())).await;
    }
}

/// How long after the start an event time is due.
fn due_after(first: EventTime, reached: EventTime, factor: f64) -> Duration {
    let passed = Duration::from_micros(u64::try_from(reached.0.saturating_sub(first.0)).unwrap_or(0));
    Duration::try_from_secs_f64(passed.as_secs_f64() / factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_times_as_fast_takes_a_sixtieth() {
        assert_eq!(due_after(EventTime(0), EventTime(60_000_000), 60.0), Duration::from_secs(1));
        assert_eq!(due_after(EventTime(10), EventTime(0), 1.0), Duration::ZERO);
    }

    #[test]
    fn the_clock_follows_watermarks_and_never_goes_back() {
        let clock = ReplayClock::new(None);
        clock.reached(EventTime(100));
        clock.reached(EventTime(50));
        clock.reached(EventTime::MAX);
        assert_eq!(clock.now(), EventTime(100));
    }
}
