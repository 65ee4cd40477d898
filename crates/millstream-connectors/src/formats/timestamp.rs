//! How timestamps are written in text: the option `timestamp_format`.
//!
//! `iso` (default) takes ISO 8601 with offsets converted to UTC; `epoch_s`, `epoch_ms`, `epoch_us` take numbers, also with a
//! fraction that the column can hold; anything else is a strftime pattern such as `%d/%b/%Y:%H:%M:%S %z`. A time without
//! an offset is UTC. Without an `epoch_` format a number is refused, since it could mean three things.

use super::scalar::{Misfit, parse_decimal, parse_iso_timestamp, to_unit};
use arrow::datatypes::TimeUnit;
use chrono::format::{Item, Parsed, StrftimeItems, parse};

/// See the module documentation.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum TimestampFormat {
    /// ISO 8601 text.
    #[default]
    Iso,
    /// A number of seconds, milliseconds or microseconds since 1970: the decimal places of one second.
    Epoch(u8),
    /// A parsed strftime pattern.
    Pattern(Vec<Item<'static>>),
}

impl TimestampFormat {
    /// Parses the option's value; `None` when a pattern is malformed.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "iso" => Some(Self::Iso),
            "epoch_s" => Some(Self::Epoch(0)),
            "epoch_ms" => Some(Self::Epoch(3)),
            "epoch_us" => Some(Self::Epoch(6)),
            pattern if pattern.contains('%') => StrftimeItems::new(pattern).parse_to_owned().ok().map(Self::Pattern),
            _ => None,
        }
    }

    /// Whether values are numbers.
    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Self::Epoch(_))
    }

    /// A value as a count of `unit` since 1970; exact or refused.
    pub(crate) fn value(&self, text: &str, unit: TimeUnit) -> Result<i64, Misfit> {
        match self {
            Self::Iso => {
                let (seconds, nanos) = parse_iso_timestamp(text.as_bytes())?;
                to_unit(seconds, nanos, unit)
            }
            Self::Epoch(digits) => {
                let unit_digits = match unit {
                    TimeUnit::Second => 0,
                    TimeUnit::Millisecond => 3,
                    TimeUnit::Microsecond => 6,
                    TimeUnit::Nanosecond => 9,
                };
                let value = parse_decimal(text.as_bytes(), 38, unit_digits - *digits as i8)?;
                i64::try_from(value).map_err(|_| Misfit::Range)
            }
            Self::Pattern(items) => {
                let mut parsed = Parsed::new();
                parse(&mut parsed, text, items.iter()).map_err(|_| Misfit::Form)?;
                let time = match parsed.offset() {
                    Some(offset) => parsed.to_naive_datetime_with_offset(offset).map(|time| time.and_utc().timestamp() - i64::from(offset)),
                    None => parsed
                        .to_naive_datetime_with_offset(0)
                        .or_else(|error| match parsed.hour_mod_12().is_none() && parsed.minute().is_none() {
                            true => parsed.to_naive_date().map(|date| date.and_time(chrono::NaiveTime::MIN)),
                            false => Err(error),
                        })
                        .map(|time| time.and_utc().timestamp()),
                };
                to_unit(time.map_err(|_| Misfit::Form)?, parsed.nanosecond().unwrap_or(0), unit)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(format: &str, text: &str) -> Result<i64, Misfit> {
        TimestampFormat::parse(format).expect("a legal format").value(text, TimeUnit::Microsecond)
    }

    #[test]
    fn reads_iso_with_offsets() {
        assert_eq!(micros("iso", "1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(micros("iso", "2024-05-01 12:00:00.5+02:00"), Ok(1_714_557_600_500_000));
        assert_eq!(micros("iso", "2024-05-01T10:00"), Ok(1_714_557_600_000_000));
        assert_eq!(micros("iso", "2024-02-29"), Ok(1_709_164_800_000_000));
        assert_eq!(micros("iso", "2023-02-29"), Err(Misfit::Form));
        assert_eq!(micros("iso", "2024-05-01T10:00:00.1234567"), Err(Misfit::Scale));
        assert_eq!(micros("iso", "2024-05-01T10:00:00.123456000"), Ok(1_714_557_600_123_456));
        assert_eq!(micros("iso", "1714557600"), Err(Misfit::Form));
        assert_eq!(micros("iso", "1969-12-31T23:59:59.999999"), Ok(-1));
    }

    #[test]
    fn reads_epochs_and_patterns() {
        assert_eq!(micros("epoch_s", "1.5"), Ok(1_500_000));
        assert_eq!(micros("epoch_ms", "1714557600123"), Ok(1_714_557_600_123_000));
        assert_eq!(micros("epoch_us", "-7"), Ok(-7));
        assert_eq!(micros("epoch_us", "7.5"), Err(Misfit::Scale));
        assert_eq!(micros("%d/%b/%Y:%H:%M:%S %z", "01/May/2024:12:00:00 +0200"), Ok(1_714_557_600_000_000));
        assert_eq!(micros("%d.%m.%Y", "02.01.1970"), Ok(86_400_000_000));
        assert_eq!(TimestampFormat::parse("%Q"), None);
        assert_eq!(TimestampFormat::parse("unix"), None);
    }
}
