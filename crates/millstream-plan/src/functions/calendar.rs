//! Calendar arithmetic in a time zone: local days and months, and the instants at which they begin.
//!
//! An instant is microseconds since the Unix epoch; a *naive* value is what a wall clock in the zone shows, counted the same way.
//!
//! A local time that a clock change skips means the end of the gap; one that occurs twice means its first occurrence. So every
//! local day begins exactly once, whatever the zone does at midnight.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, TimeDelta, TimeZone};
use chrono_tz::Tz;
use datafusion::common::{Result, exec_err};

/// Microseconds of a day.
pub const DAY_MICROS: i64 = 86_400_000_000;

/// A time zone as users write it: a name of the IANA database or an offset `+hh:mm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// A named zone.
    Named(Tz),
    /// A fixed offset from UTC in microseconds.
    Offset(i64),
}

impl Zone {
    /// Parses a zone.
    ///
    /// # Errors
    /// If the name is unknown.
    pub fn parse(name: &str) -> Result<Self> {
        if let Ok(zone) = name.parse::<Tz>() {
            return Ok(Zone::Named(zone));
        }
        match parse_offset(name) {
            Some(offset) => Ok(Zone::Offset(offset)),
            None => exec_err!("unknown time zone \"{name}\"; write a name such as 'Europe/Berlin' or an offset such as '+02:00'"),
        }
    }

    /// Whether all days of the zone are 24 hours and begin with UTC days.
    pub fn is_utc(&self) -> bool {
        matches!(self, Zone::Named(Tz::UTC | Tz::Etc__UTC | Tz::GMT | Tz::Etc__GMT) | Zone::Offset(0))
    }

    /// What a wall clock in the zone shows at an instant.
    ///
    /// # Errors
    /// If the instant is outside of the calendar.
    pub fn to_naive(&self, instant: i64) -> Result<i64> {
        match self {
            Zone::Offset(offset) => in_range(instant.checked_add(*offset)),
            Zone::Named(zone) => Ok(zone.from_utc_datetime(&datetime(instant)?).naive_local().and_utc().timestamp_micros()),
        }
    }

    /// The instant at which a wall clock in the zone first shows a naive time, or at which a gap that skips it ends.
    ///
    /// # Errors
    /// If the time is outside of the calendar.
    pub fn to_instant(&self, naive: i64) -> Result<i64> {
        let zone = match self {
            Zone::Offset(offset) => return in_range(naive.checked_sub(*offset)),
            Zone::Named(zone) => zone,
        };
        let local = datetime(naive)?;
        if let Some(first) = zone.from_local_datetime(&local).earliest() {
            return Ok(first.timestamp_micros());
        }
        // In a gap. Both offsets around it are known from the instants a day before and after, which lie outside of it; with the
        // offset before the gap the naive time maps to an instant after its end, with the one after to an instant before its start.
        // The end of the gap is found between the two by bisection over whole seconds, the unit of zone changes.
        let before = self.offset_at(naive.saturating_sub(2 * DAY_MICROS))?;
        let after = self.offset_at(naive.saturating_add(2 * DAY_MICROS))?;
        let (mut low, mut high) =
            ((naive - after.max(before)).div_euclid(1_000_000), (naive - after.min(before)).div_euclid(1_000_000) + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.to_naive(middle * 1_000_000)? > naive { high = middle } else { low = middle }
        }
        Ok(high * 1_000_000)
    }

    /// The naive time that `instant` stands for as the beginning of a window: midnight where a gap swallowed it.
    ///
    /// # Errors
    /// If the instant is outside of the calendar.
    pub fn to_window_naive(&self, instant: i64) -> Result<i64> {
        let naive = self.to_naive(instant)?;
        let gap_start = self.to_naive(instant - 1)? + 1;
        if gap_start >= naive {
            return Ok(naive);
        }
        let midnight = naive.div_euclid(DAY_MICROS) * DAY_MICROS;
        Ok(midnight.max(gap_start))
    }

    fn offset_at(&self, instant: i64) -> Result<i64> {
        Ok(self.to_naive(instant)? - instant)
    }
}

/// A length of time by the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whole months.
    pub months: i64,
    /// Local days.
    pub days: i64,
    /// Microseconds.
    pub micros: i64,
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span { months: 0, days: 0, micros: 0 };

    /// Its length in microseconds if that is the same everywhere in a zone: months never are, days only without clock changes.
    pub fn fixed(&self, zone: Option<Zone>) -> Option<i64> {
        if self.months != 0 || (self.days != 0 && zone.is_some_and(|zone| matches!(zone, Zone::Named(_)) && !zone.is_utc())) {
            return None;
        }
        self.days.checked_mul(DAY_MICROS)?.checked_add(self.micros)
    }
}

/// A naive time plus `times` spans: months first, cut at the end of a shorter month, then days, then microseconds.
///
/// # Errors
/// If the result is outside of the calendar.
pub fn add(naive: i64, span: Span, times: i64) -> Result<i64> {
    let shifted = || -> Option<i64> {
        let mut time = DateTime::from_timestamp_micros(naive)?.naive_utc();
        time = shift_months(time, span.months.checked_mul(times)?)?;
        time = shift_days(time, span.days.checked_mul(times)?)?;
        time = time.checked_add_signed(TimeDelta::microseconds(span.micros.checked_mul(times)?))?;
        Some(time.and_utc().timestamp_micros())
    };
    in_range(shifted())
}

/// Months since January 1970 of a naive time.
///
/// # Errors
/// If the time is outside of the calendar.
pub fn month_number(naive: i64) -> Result<i64> {
    let time = datetime(naive)?;
    Ok((i64::from(time.year()) - 1970) * 12 + i64::from(time.month0()))
}

/// The naive time at which a month (counted from January 1970) begins.
///
/// # Errors
/// If the month is outside of the calendar.
pub fn month_start(number: i64) -> Result<i64> {
    let first = || {
        let year = i32::try_from(1970 + number.div_euclid(12)).ok()?;
        let month = u32::try_from(number.rem_euclid(12)).ok()? + 1;
        Some(NaiveDate::from_ymd_opt(year, month, 1)?.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
    };
    in_range(first())
}

fn shift_months(time: NaiveDateTime, months: i64) -> Option<NaiveDateTime> {
    let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    if months < 0 { time.checked_sub_months(count) } else { time.checked_add_months(count) }
}

fn shift_days(time: NaiveDateTime, days: i64) -> Option<NaiveDateTime> {
    let count = Days::new(days.unsigned_abs());
    if days < 0 { time.checked_sub_days(count) } else { time.checked_add_days(count) }
}

fn datetime(micros: i64) -> Result<NaiveDateTime> {
    match DateTime::from_timestamp_micros(micros) {
        Some(time) => Ok(time.naive_utc()),
        None => exec_err!("time {micros} us since 1970 is outside of the calendar"),
    }
}

fn in_range(micros: Option<i64>) -> Result<i64> {
    match micros {
        Some(micros) => Ok(micros),
        None => exec_err!("a window reaches outside of the calendar"),
    }
}

/// `+hh:mm`, `-hhmm`, `+hh` in microseconds.
fn parse_offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(digits.len(), 2 | 4) {
        return None;
    }
    let hours: i64 = digits[..2].parse().ok()?;
    let minutes: i64 = if digits.len() == 4 { digits[2..].parse().ok()? } else { 0 };
    (hours <= 18 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> i64 {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_micros()
    }

    #[test]
    fn gaps_and_folds() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        // 02:30 does not exist on 2024-03-31: clocks go from 02:00 to 03:00 at 01:00 UTC.
        assert_eq!(berlin.to_instant(micros("2024-03-31 02:30")).unwrap(), micros("2024-03-31 01:00"));
        assert_eq!(berlin.to_instant(micros("2024-03-31 03:00")).unwrap(), micros("2024-03-31 01:00"));
        // 02:30 occurs twice on 2024-10-27, first at 00:30 UTC.
        assert_eq!(berlin.to_instant(micros("2024-10-27 02:30")).unwrap(), micros("2024-10-27 00:30"));
        assert_eq!(berlin.to_naive(micros("2024-10-27 01:30")).unwrap(), micros("2024-10-27 02:30"));
    }

    #[test]
    fn midnight_in_a_gap() {
        // Clocks in Sao Paulo went from 00:00 to 01:00 on 2018-11-04, at 03:00 UTC.
        let zone = Zone::parse("America/Sao_Paulo").unwrap();
        let start = zone.to_instant(micros("2018-11-04 00:00")).unwrap();
        assert_eq!(start, micros("2018-11-04 03:00"));
        assert_eq!(zone.to_window_naive(start).unwrap(), micros("2018-11-04 00:00"));
    }

    #[test]
    fn offsets() {
        assert_eq!(Zone::parse("+02:00").unwrap(), Zone::Offset(2 * 3_600_000_000));
        assert_eq!(Zone::parse("-0530").unwrap(), Zone::Offset(-19_800_000_000));
        assert!(Zone::parse("Europe/Berln").is_err());
        assert!(Zone::parse("+1x").is_err());
    }

    #[test]
    fn months() {
        assert_eq!(add(micros("2024-01-31 10:00"), Span { months: 1, days: 0, micros: 0 }, 1).unwrap(), micros("2024-02-29 10:00"));
        assert_eq!(month_number(micros("1969-12-31 23:59")).unwrap(), -1);
        assert_eq!(month_start(-1).unwrap(), micros("1969-12-01 00:00"));
    }
}
