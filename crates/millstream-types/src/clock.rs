//! The clock that is passed in: engine code never asks the operating system for the time itself.

use crate::EventTime;
use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Where the wall-clock time comes from. Tests and replay inject their own.
pub trait Clock: Debug + Send + Sync {
    /// The current time.
    fn now(&self) -> EventTime;
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: EventTime) -> Self {
        Self(AtomicI64::new(start.0))
    }

    /// Moves the clock forward by `step`.
    pub fn advance(&self, step: Duration) {
        self.0.fetch_add(i64::try_from(step.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Sets the clock; it never moves backwards.
    pub fn advance_to(&self, time: EventTime) {
        self.0.fetch_max(time.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> EventTime {
        EventTime(self.0.load(Ordering::SeqCst))
    }
}
