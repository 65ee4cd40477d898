//! Points in time: microseconds since 1970-01-01T00:00:00Z, the engine's only time unit.

use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// A point in time in microseconds since the Unix epoch, UTC. Event times, watermarks and epoch clocks share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventTime(pub i64);

impl EventTime {
    /// Before every event: the watermark of a stream that has not seen a row.
    pub const MIN: EventTime = EventTime(i64::MIN);
    /// After every event: the watermark of a stream that has ended.
    pub const MAX: EventTime = EventTime(i64::MAX);

    /// The time `delay` before this one; [`MIN`](Self::MIN) and [`MAX`](Self::MAX) stay what they are.
    #[must_use]
    pub fn minus(self, delay: Duration) -> EventTime {
        if self == Self::MIN || self == Self::MAX {
            return self;
        }
        EventTime(self.0.saturating_sub(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time `delay` after this one; [`MIN`](Self::MIN) and [`MAX`](Self::MAX) stay what they are.
    #[must_use]
    pub fn plus(self, delay: Duration) -> EventTime {
        if self == Self::MIN || self == Self::MAX {
            return self;
        }
        EventTime(self.0.saturating_add(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for EventTime {
    /// RFC 3339 with microseconds where they are not zero; `-infinity` and `infinity` for the two ends.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MIN => f.write_str("-infinity"),
            Self::MAX => f.write_str("infinity"),
            EventTime(micros) => match arrow::temporal_conversions::timestamp_us_to_datetime(micros) {
                Some(time) => write!(f, "{}Z", time.format("%Y-%m-%dT%H:%M:%S%.f")),
                None => write!(f, "{micros}us"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_as_rfc_3339() {
        assert_eq!(EventTime(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(EventTime(1_500_000).to_string(), "1970-01-01T00:00:01.500Z");
        assert_eq!(EventTime::MAX.minus(Duration::from_secs(1)).to_string(), "infinity");
    }
}
