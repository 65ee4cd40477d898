//! Back-pressure: a push source whose rows come faster than epochs take them is read at the rate at which rows are processed.
//!
//! ```text
//!   epoch ends ─► rows, processing time, scheduling delay ─► PID estimator of each push source ─► rows that the next epochs may take
//! ```
//! Off unless `SET backpressure = 'true'` or the stream's option says so; a fixed `max_rows_per_second` caps the estimate. What is not
//! taken waits at the source, which stops reading from its peer when its buffer is full. **Processing time** is the time from the
//! beginning of an epoch, reading included, to its end; what was read beside the epoch before takes none. **Scheduling delay** is
//! how long after its trigger an epoch starts for which rows were waiting. Both are read from the injected clock: with one that
//! stands still nothing is ever held back. The cut into epochs that comes of it is in the commit records, so that recovery needs
//! no estimate.

use super::record::CommitRecord;
use super::{Pipeline, StreamRuntime};
use crate::settings::Trigger;
use millstream_connectors::sources::rate::{EpochObservation, PidRateEstimator, effective_rate};
use millstream_types::EventTime;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The estimator of one stream, shared by who feeds it and who is slowed down by it.
#[derive(Debug, Clone, Default)]
pub struct Pressure(Arc<Mutex<PidRateEstimator>>);

impl Pressure {
    /// Rows per second that can be processed, once that is known.
    pub fn rate(&self) -> Option<f64> {
        self.0.lock().rate()
    }

    fn observe(&self, interval: Duration, observation: EpochObservation) {
        let mut estimator = self.0.lock();
        estimator.set_interval(interval);
        estimator.update(observation);
    }
}

/// When epochs began, by the injected clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Beginnings {
    last: Option<EventTime>,
    /// The last epoch left rows behind.
    left_over: bool,
}

impl Beginnings {
    /// An epoch begins: how long it has been waited for.
    pub(super) fn begin(&mut self, now: EventTime, interval: Duration, left_over: bool) -> Duration {
        let due = self.last.filter(|_| self.left_over).map(|last| last.plus(interval));
        *self = Self { last: Some(now), left_over };
        due.map_or(Duration::ZERO, |due| between(due, now))
    }
}

fn between(start: EventTime, end: EventTime) -> Duration {
    Duration::from_micros(u64::try_from(end.0.saturating_sub(start.0)).unwrap_or(0))
}

impl StreamRuntime {
    /// Rows per second that epochs may take of the stream now; `backpressure`: the pipeline's setting.
    pub fn rate_limit(&self, backpressure: bool) -> Option<f64> {
        let fixed = self.def.options.max_rows_per_second.map(|rate| rate as f64);
        let slowed = self.def.options.backpressure.unwrap_or(backpressure);
        effective_rate(fixed, self.pressure.as_ref().filter(|_| slowed).and_then(Pressure::rate))
    }
}

impl Pipeline {
    /// The distance between epochs when nothing waits.
    pub(super) fn interval(&self) -> Duration {
        match self.settings.trigger() {
            Ok(Trigger::Interval(interval)) => interval,
            _ => Duration::ZERO,
        }
    }

    /// An epoch is over: tells the estimators. `began`: when, and how long it had waited, where they should know.
    pub(super) fn relieve(&self, began: Option<(EventTime, Duration)>, epoch: &CommitRecord) {
        let Some((begun, scheduling_delay)) = began else { return };
        let time = self.shared.clock.now();
        let processing_delay = between(begun, time);
        for (name, stream) in &self.streams {
            if let Some(pressure) = &stream.pressure {
                let rows = epoch.streams.get(name).map_or(0, |stream| stream.rows_in);
                let observation = EpochObservation { time, rows, processing_delay, scheduling_delay };
                pressure.observe(self.interval(), observation);
            }
        }
    }
}
