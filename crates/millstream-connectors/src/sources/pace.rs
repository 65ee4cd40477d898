//! How fast a generated stream runs: at a constant rate, along a ramp, or without a limit.
//!
//! ```text
//!   '100'                    100 rows/s
//!   '100..10000 over 60s'    rises evenly from 100 to 10,000 rows/s within a minute, then stays there
//!   'unlimited'              as fast as epochs take rows; event times are a millisecond apart
//! ```
//! Row `n` carries the time at which `n` rows were due, so that no row is ever from the future.

use millstream_types::options::parse_duration;

/// The pace of a generated stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// No limit; `spacing_us` lies between the event times of two rows.
    Unlimited { spacing_us: f64 },
    /// Rows per second.
    Constant(f64),
    /// From one rate to another within so many seconds.
    Ramp { from: f64, to: f64, seconds: f64 },
}

/// What a legal pace looks like, for messages.
pub(crate) const PACE_EXPECTED: &str = "a rate such as '100', '100..10000 over 60s' or 'unlimited'";

impl Pace {
    /// Reads an option's text; `spacing_us` is used where there is no limit.
    pub(crate) fn parse(text: &str, spacing_us: f64) -> Option<Pace> {
        let text = text.trim().to_lowercase();
        if text == "unlimited" {
            return Some(Pace::Unlimited { spacing_us });
        }
        if let Some((rates, over)) = text.split_once(" over ") {
            let (from, to) = rates.split_once("..")?;
            let (from, to) = (rate(from, true)?, rate(to, false)?);
            let seconds = parse_duration(over)?.as_secs_f64();
            return (seconds > 0.0).then_some(Pace::Ramp { from, to, seconds });
        }
        Some(Pace::Constant(rate(&text, false)?))
    }

    /// Rows that are due after so many microseconds.
    pub(crate) fn due(self, elapsed_us: i64) -> u64 {
        let elapsed = elapsed_us.max(0) as f64;
        match self {
            Pace::Unlimited { .. } => u64::MAX,
            Pace::Constant(rate) => (elapsed * rate / 1e6) as u64,
            Pace::Ramp { from, to, seconds } => {
                let elapsed = elapsed / 1e6;
                let rising = elapsed.min(seconds);
                let rows = from * rising + (to - from) * rising * rising / (2.0 * seconds) + to * (elapsed - rising);
                // Rounding of the square root in `time_of` must not hold back a row that is due exactly now.
                (rows + 1e-9) as u64
            }
        }
    }

    /// Microseconds after the start at which `rows` rows are due.
    pub(crate) fn time_of(self, rows: u64) -> i64 {
        let count = rows as f64;
        let micros = match self {
            Pace::Unlimited { spacing_us } => count * spacing_us,
            Pace::Constant(rate) => count * 1e6 / rate,
            Pace::Ramp { from, to, seconds } => {
                let during = (from + to) / 2.0 * seconds;
                let slope = (to - from) / seconds;
                let time = if count >= during {
                    seconds + (count - during) / to
                } else if slope == 0.0 {
                    count / from
                } else {
                    // The positive root of `slope / 2 * t^2 + from * t = count`.
                    ((from * from + 2.0 * slope * count).max(0.0).sqrt() - from) / slope
                };
                time * 1e6
            }
        };
        micros as i64
    }
}

fn rate(text: &str, zero: bool) -> Option<f64> {
    let rate: f64 = text.trim().replace('_', "").parse().ok()?;
    (rate.is_finite() && (rate > 0.0 || (zero && rate == 0.0))).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rates() {
        assert_eq!(Pace::parse("100", 1.0), Some(Pace::Constant(100.0)));
        assert_eq!(Pace::parse("0.5", 1.0), Some(Pace::Constant(0.5)));
        assert_eq!(Pace::parse(" Unlimited", 1.0), Some(Pace::Unlimited { spacing_us: 1.0 }));
        assert_eq!(Pace::parse("100..10000 over 60s", 1.0), Some(Pace::Ramp { from: 100.0, to: 10_000.0, seconds: 60.0 }));
        for wrong in ["0", "-1", "fast", "1..2", "1..0 over 1s", "1..2 over 0s", "inf", "NaN"] {
            assert_eq!(Pace::parse(wrong, 1.0), None, "{wrong}");
        }
    }

    #[test]
    fn rows_due_and_their_times_agree() {
        for pace in [
            Pace::Constant(7.0),
            Pace::Constant(0.1),
            Pace::Ramp { from: 0.0, to: 40.0, seconds: 5.0 },
            Pace::Ramp { from: 40.0, to: 4.0, seconds: 5.0 },
        ] {
            for rows in 0..500 {
                let time = pace.time_of(rows);
                assert!(pace.due(time + 1) >= rows, "{pace:?} {rows}");
                assert!(rows == 0 || pace.due(time - 2) < rows, "{pace:?} {rows}");
            }
        }
        assert_eq!(Pace::Constant(100.0).due(290_000), 29);
        assert_eq!(Pace::Ramp { from: 100.0, to: 10_000.0, seconds: 60.0 }.due(60_000_000), 303_000);
        assert_eq!(Pace::Ramp { from: 100.0, to: 10_000.0, seconds: 60.0 }.due(61_000_000), 313_000);
    }
}
