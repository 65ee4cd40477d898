//! How fast a source may be read: a PID estimator after Spark Streaming, and a fixed limit.
//!
//! ```text
//!   processing rate = rows / processing delay
//!   error           = latest rate - processing rate                          now
//!   historical      = scheduling delay * processing rate / batch interval    rows that wait, per interval
//!   d error         = (error - latest error) / (time - latest time)          the trend
//!   rate            = max(latest rate - Kp * error - Ki * historical - Kd * d error, minimum)
//! ```
//! The first observation only notes the processing rate; an epoch without rows, without processing time or that does
//! not lie after the previous one changes nothing. So the source is read as fast as its rows were processed last, less a
//! fifth of what waits. Both types are pure: times are passed in, nothing is measured here.
//!
//! **Reference**: `PIDRateEstimator` of Apache Spark Streaming (SPARK-7398).

use millstream_types::EventTime;
use std::time::Duration;

/// The weights of the estimator's three terms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PidWeights {
    /// Kp: how strongly the rate follows the latest processing rate.
    pub proportional: f64,
    /// Ki: which share of the waiting rows is worked off per interval.
    pub integral: f64,
    /// Kd: how strongly the rate reacts to the trend.
    pub derivative: f64,
}

impl Default for PidWeights {
    fn default() -> Self {
        Self { proportional: 1.0, integral: 0.2, derivative: 0.0 }
    }
}

/// The lowest rate the estimator ever returns, in rows per second, unless told otherwise.
pub const DEFAULT_MINIMUM_RATE: f64 = 100.0;

/// What was measured of one epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochObservation {
    /// When processing ended.
    pub time: EventTime,
    /// Rows taken from the source.
    pub rows: u64,
    /// How long processing took.
    pub processing_delay: Duration,
    /// How long the epoch waited before it started.
    pub scheduling_delay: Duration,
}

/// Estimates the rate at which a source should be read, in rows per second.
#[derive(Debug, Clone)]
pub struct PidRateEstimator {
    interval: Duration,
    weights: PidWeights,
    minimum_rate: f64,
    latest: Option<Latest>,
}

#[derive(Debug, Clone, Copy)]
struct Latest {
    time: EventTime,
    rate: f64,
    error: f64,
}

impl PidRateEstimator {
    /// An estimator for epochs that start every `interval`. An interval of zero is taken as a millisecond.
    pub fn new(interval: Duration, weights: PidWeights, minimum_rate: f64) -> Self {
        Self { interval: interval.max(Duration::from_millis(1)), weights, minimum_rate, latest: None }
    }

    /// Epochs start every `interval` from now on; one of zero is taken as a millisecond.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval.max(Duration::from_millis(1));
    }

    /// Takes an observation into account. The new rate in rows per second, or `None` where nothing can be concluded.
    pub fn update(&mut self, observation: EpochObservation) -> Option<f64> {
        let EpochObservation { time, rows, processing_delay, scheduling_delay } = observation;
        if rows == 0 || processing_delay.is_zero() || self.latest.is_some_and(|latest| time <= latest.time) {
            return None;
        }
        let processing_rate = rows as f64 / processing_delay.as_secs_f64();
        let Some(latest) = self.latest else {
            self.latest = Some(Latest { time, rate: processing_rate, error: 0.0 });
            return None;
        };
        let seconds_since = time.0.saturating_sub(latest.time.0) as f64 / 1e6;
        let error = latest.rate - processing_rate;
        let historical = scheduling_delay.as_secs_f64() * processing_rate / self.interval.as_secs_f64();
        let trend = (error - latest.error) / seconds_since;
        let PidWeights { proportional, integral, derivative } = self.weights;
        let rate = (latest.rate - proportional * error - integral * historical - derivative * trend).max(self.minimum_rate);
        self.latest = Some(Latest { time, rate, error });
        Some(rate)
    }

    /// The rate in force: what [`update`](Self::update) returned last, or the first processing rate.
    pub fn rate(&self) -> Option<f64> {
        self.latest.map(|latest| latest.rate)
    }
}

impl Default for PidRateEstimator {
    /// Default weights and minimum, for epochs of one second.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), PidWeights::default(), DEFAULT_MINIMUM_RATE)
    }
}

/// The smaller of a fixed and an estimated rate, where there is either.
pub fn effective_rate(fixed: Option<f64>, estimated: Option<f64>) -> Option<f64> {
    match (fixed, estimated) {
        (Some(fixed), Some(estimated)) => Some(fixed.min(estimated)),
        (rate, None) | (None, rate) => rate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line per epoch: seconds, rows, processing and scheduling delay in ms, the expected rate.
    type Line = (i64, u64, u64, u64, Option<f64>);

    fn check(weights: PidWeights, lines: &[Line]) {
        let mut estimator = PidRateEstimator::new(Duration::from_secs(1), weights, DEFAULT_MINIMUM_RATE);
        for (index, &(second, rows, processing, scheduling, expected)) in lines.iter().enumerate() {
            let rate = estimator.update(EpochObservation {
                time: EventTime(second * 1_000_000),
                rows,
                processing_delay: Duration::from_millis(processing),
                scheduling_delay: Duration::from_millis(scheduling),
            });
            match (rate, expected) {
                (None, None) => {}
                (Some(rate), Some(expected)) => assert!((rate - expected).abs() < 1e-6, "line {index}: {rate} is not {expected}"),
                _ => panic!("line {index}: {rate:?} is not {expected:?}"),
            }
        }
    }

    #[test]
    fn default_weights_follow_the_formula() {
        check(
            PidWeights::default(),
            &[
                (1, 0, 100, 0, None),                  // no rows
                (1, 500, 0, 0, None),                  // no processing time
                (1, 1_000, 500, 0, None),              // the first one only notes 2,000 rows/s
                (1, 1_000, 100, 0, None),              // time has not advanced
                (2, 1_000, 500, 0, Some(2_000.0)),     // nothing changed
                (3, 2_000, 2_000, 0, Some(1_000.0)),   // half as fast: 2000 - (2000 - 1000)
                (4, 1_000, 1_000, 1_000, Some(800.0)), // 1000 - 0 - 0.2 * (1 * 1000 / 1)
                (5, 800, 100, 500, Some(7_200.0)),     // 800 - (800 - 8000) - 0.2 * (0.5 * 8000)
                (6, 10, 1_000, 5_000, Some(100.0)),    // never below the minimum
            ],
        );
    }

    #[test]
    fn derivative_dampens_the_trend() {
        check(
            PidWeights { proportional: 1.0, integral: 0.0, derivative: 0.5 },
            &[
                (1, 1_000, 1_000, 0, None),
                (3, 500, 1_000, 0, Some(375.0)),  // error 500, trend 250 per second: 1000 - 500 - 125
                (5, 500, 1_000, 0, Some(656.25)), // error -125, trend -312.5: 375 + 125 + 156.25
            ],
        );
    }

    #[test]
    fn fixed_limits_cap_the_estimate() {
        assert_eq!(effective_rate(Some(50.0), Some(80.0)), Some(50.0));
        assert_eq!(effective_rate(None, Some(80.0)), Some(80.0));
        assert_eq!(effective_rate(None, None), None);
    }
}
