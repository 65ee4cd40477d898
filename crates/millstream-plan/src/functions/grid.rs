//! Grids: time cut into windows that follow each other without gaps.
//!
//! A grid is a step, an offset and a zone. Window `i` is `[start(i), start(i + 1))`. Steps of a fixed length count from
//! 1970-01-01T00:00 of the zone (of UTC without one), so they need one division per row. Months, and days in a zone whose clocks
//! change, follow the calendar of the zone.

use super::calendar::{DAY_MICROS, Span, Zone, add, month_number, month_start};
use datafusion::common::{Result, exec_err};

/// Time cut into windows.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    step: Step,
    zone: Option<Zone>,
}

/// The distance between window starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The same number of microseconds everywhere; window 0 begins at `origin`.
    Fixed {
        /// Length.
        micros: i64,
        /// Start of window 0.
        origin: i64,
    },
    /// Local days; windows begin `offset` microseconds after midnight.
    Days {
        /// How many.
        count: i64,
        /// Microseconds.
        offset: i64,
    },
    /// Calendar months; windows begin `offset` microseconds after the first of the month.
    Months {
        /// How many.
        count: i64,
        /// Microseconds.
        offset: i64,
    },
}

impl Grid {
    /// A grid of windows of length `step`.
    ///
    /// # Errors
    /// If the step is not positive, mixes months or local days with other units, or the offset contains months.
    pub fn new(step: Span, offset: Span, zone: Option<Zone>) -> Result<Self> {
        if step.months < 0 || step.days < 0 || step.micros < 0 || step == Span::ZERO {
            return exec_err!("the length of a window must be positive");
        }
        let Some(offset) =
            offset.days.checked_mul(DAY_MICROS).filter(|_| offset.months == 0).and_then(|days| days.checked_add(offset.micros))
        else {
            return exec_err!("the offset of a window must be days or shorter units");
        };
        let step = match (step.fixed(zone), step) {
            (Some(micros), _) => {
                let origin = zone.map_or(Ok(0), |zone| zone.to_instant(0))?;
                Step::Fixed { micros, origin: origin.wrapping_add(offset) }
            }
            (None, Span { months: 0, days: count, micros: 0 }) => Step::Days { count, offset },
            (None, Span { months: count, days: 0, micros: 0 }) => Step::Months { count, offset },
            _ => return exec_err!("the length of a calendar window must be whole months or whole days, not a mixture"),
        };
        Ok(Self { step, zone })
    }

    /// How windows are found; fixed steps have a fast path in the functions.
    pub fn step(&self) -> Step {
        self.step
    }

    /// Number of the window that contains an instant.
    ///
    /// # Errors
    /// If the instant is outside of the calendar.
    pub fn index(&self, instant: i64) -> Result<i64> {
        let mut index = match self.step {
            Step::Fixed { micros, origin } => return Ok(instant.wrapping_sub(origin).div_euclid(micros)),
            Step::Days { count, offset } => (self.naive(instant)? - offset).div_euclid(DAY_MICROS).div_euclid(count),
            Step::Months { count, offset } => month_number(self.naive(instant)? - offset)?.div_euclid(count),
        };
        // Around a clock change local time runs twice or jumps; windows are intervals of instants all the same.
        while self.start(index)? > instant {
            index -= 1;
        }
        while self.start(index + 1)? <= instant {
            index += 1;
        }
        Ok(index)
    }

    /// The instant at which a window begins.
    ///
    /// # Errors
    /// If it is outside of the calendar.
    pub fn start(&self, index: i64) -> Result<i64> {
        match self.step {
            Step::Fixed { micros, origin } => match index.checked_mul(micros).and_then(|start| start.checked_add(origin)) {
                Some(start) => Ok(start),
                None => exec_err!("a window reaches outside of the calendar"),
            },
            Step::Days { count, offset } => self.instant(index * count * DAY_MICROS + offset),
            Step::Months { count, offset } => self.instant(month_start(index * count)? + offset),
        }
    }

    fn naive(&self, instant: i64) -> Result<i64> {
        self.zone.map_or(Ok(instant), |zone| zone.to_naive(instant))
    }

    fn instant(&self, naive: i64) -> Result<i64> {
        self.zone.map_or(Ok(naive), |zone| zone.to_instant(naive))
    }
}

/// The end of a window that begins at `start`, `times` spans later.
///
/// # Errors
/// If it is outside of the calendar.
pub fn end_after(start: i64, size: Span, times: i64, zone: Option<Zone>) -> Result<i64> {
    if let Some(micros) = size.fixed(zone) {
        return match micros.checked_mul(times).and_then(|length| start.checked_add(length)) {
            Some(end) => Ok(end),
            None => exec_err!("a window reaches outside of the calendar"),
        };
    }
    match zone {
        None => add(start, size, times),
        Some(zone) => zone.to_instant(add(zone.to_window_naive(start)?, size, times)?),
    }
}
