//! Interval literals: `INTERVAL '10 seconds'`, `INTERVAL '10' SECOND`, `'1 hour 30 minutes'`, `'5m'`.
//!
//! A [`WindowLength`] keeps months, days and microseconds apart, since only the last is the same length everywhere: a
//! month has 28 to 31 days, and in a time zone with summer time a day has 23 to 25 hours.

use std::time::Duration;

use sqlparser::ast::{DateTimeField, Expr, Interval, Spanned, UnaryOperator, Value};

use crate::error::{Result, SqlError};

const MICROS_PER_MILLI: i64 = 1_000;
const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_MINUTE: i64 = 60 * MICROS_PER_SECOND;
const MICROS_PER_HOUR: i64 = 60 * MICROS_PER_MINUTE;
const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

const INTERVAL_HINT: &str = "Write an interval such as INTERVAL '10 seconds', INTERVAL '1 hour 30 minutes' or INTERVAL '1 month'.";

/// A length of time: months, days and microseconds, each counted on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WindowLength {
    /// Calendar months.
    pub months: i32,
    /// Calendar days.
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
}

impl WindowLength {
    /// The length in microseconds where a day has 24 hours (UTC); `None` with months or beyond the range.
    pub fn fixed_micros(&self) -> Option<i64> {
        if self.months != 0 {
            return None;
        }
        i64::from(self.days).checked_mul(MICROS_PER_DAY)?.checked_add(self.micros)
    }

    /// The length as a duration; `None` with months or where it is negative.
    pub fn to_duration(&self) -> Option<Duration> {
        self.fixed_micros().and_then(|micros| u64::try_from(micros).ok()).map(Duration::from_micros)
    }

    /// True if no part is negative and one is not zero.
    pub fn is_positive(&self) -> bool {
        self.months >= 0 && self.days >= 0 && self.micros >= 0 && *self != WindowLength::default()
    }

    /// The canonical literal: `INTERVAL '10 seconds'`.
    pub fn to_sql(&self) -> String {
        let mut parts = Vec::new();
        let mut push = |count: i64, unit: &str| {
            if count != 0 {
                parts.push(format!("{count} {unit}{}", if count == 1 { "" } else { "s" }));
            }
        };
        push(i64::from(self.months), "month");
        push(i64::from(self.days), "day");
        let units = [
            (MICROS_PER_HOUR, "hour"),
            (MICROS_PER_MINUTE, "minute"),
            (MICROS_PER_SECOND, "second"),
            (MICROS_PER_MILLI, "millisecond"),
            (1, "microsecond"),
        ];
        // One unit, the largest that divides the length, so that 90 seconds stay 90 seconds.
        if let Some((size, unit)) = units.into_iter().find(|(size, _)| self.micros % size == 0) {
            push(self.micros / size, unit);
        }
        if parts.is_empty() {
            parts.push("0 seconds".to_owned());
        }
        format!("INTERVAL '{}'", parts.join(" "))
    }

    fn checked_add(self, other: WindowLength) -> Option<WindowLength> {
        Some(WindowLength {
            months: self.months.checked_add(other.months)?,
            days: self.days.checked_add(other.days)?,
            micros: self.micros.checked_add(other.micros)?,
        })
    }

    fn checked_neg(self) -> Option<WindowLength> {
        Some(WindowLength { months: self.months.checked_neg()?, days: self.days.checked_neg()?, micros: self.micros.checked_neg()? })
    }
}

/// Reads an interval expression: an `INTERVAL` literal or a plain string such as `'10 seconds'`.
///
/// # Errors
/// Anything else, with the place of the expression.
pub fn parse_interval(expr: &Expr) -> Result<WindowLength> {
    let result = match expr {
        Expr::Interval(interval) => parse_interval_literal(interval),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => parse_interval_text(text, None),
            _ => Err(not_an_interval(&expr.to_string())),
        },
        Expr::Nested(inner) => return parse_interval(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } => {
            parse_interval(inner).and_then(|length| length.checked_neg().ok_or_else(out_of_range))
        }
        _ => Err(not_an_interval(&expr.to_string())),
    };
    result.map_err(|error| error.at(expr.span()))
}

/// Reads an interval that is a fixed, non-negative length, as delays and periods are.
///
/// # Errors
/// As [`parse_interval`]; also months, and a negative length.
pub fn parse_duration(expr: &Expr) -> Result<Duration> {
    let length = parse_interval(expr)?;
    length.to_duration().ok_or_else(|| {
        let reason = if length.months != 0 { "has no fixed length" } else { "is negative" };
        SqlError::new(format!("the interval {} {reason}", length.to_sql().trim_start_matches("INTERVAL ")))
            .with_hint("Write a length in days or smaller units, for example INTERVAL '30 days'.")
            .at(expr.span())
    })
}

fn parse_interval_literal(interval: &Interval) -> Result<WindowLength> {
    if interval.last_field.is_some() {
        return Err(SqlError::new(format!("the interval {interval} uses TO")).with_hint(INTERVAL_HINT));
    }
    let unit = interval.leading_field.as_ref().map(DateTimeField::to_string);
    let (negative, value) = match interval.value.as_ref() {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => (true, expr.as_ref()),
        value => (false, value),
    };
    let length = match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => parse_interval_text(text, unit.as_deref()),
            Value::Number(number, _) => parse_interval_text(number, unit.as_deref()),
            _ => Err(not_an_interval(&interval.to_string())),
        },
        _ => Err(not_an_interval(&interval.to_string())),
    }?;
    if negative { length.checked_neg().ok_or_else(out_of_range) } else { Ok(length) }
}

/// Reads the text of an interval. `unit` is the field after the literal, for numbers without a unit.
///
/// # Errors
/// A text that is no interval, an unknown unit, a length out of range.
pub fn parse_interval_text(text: &str, unit: Option<&str>) -> Result<WindowLength> {
    let mut rest = text.trim();
    let mut total = WindowLength::default();
    if rest.is_empty() {
        return Err(not_an_interval(&format!("'{text}'")));
    }
    while !rest.is_empty() {
        let (negative, unsigned) = match rest.strip_prefix('-') {
            Some(unsigned) => (true, unsigned),
            None => (false, rest.strip_prefix('+').unwrap_or(rest)),
        };
        let number_end = unsigned.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')).unwrap_or(unsigned.len());
        let (number, after) = unsigned.split_at(number_end);
        if number.is_empty() {
            return Err(not_an_interval(&format!("'{text}'")));
        }
        let after = after.trim_start();
        let part = if number.contains(':') {
            rest = after;
            clock_length(number).ok_or_else(|| not_an_interval(&format!("'{text}'")))?
        } else {
            let word_end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
            let (word, tail) = after.split_at(word_end);
            rest = tail.trim_start_matches([' ', '\t', '\n', ',']);
            let word = match (word, unit) {
                ("", Some(unit)) => unit,
                ("", None) => {
                    return Err(SqlError::new(format!("the interval '{text}' names no unit")).with_hint(INTERVAL_HINT));
                }
                (word, _) => word,
            };
            unit_length(number, word, text)?
        };
        let part = if negative { part.checked_neg().ok_or_else(out_of_range)? } else { part };
        total = total.checked_add(part).ok_or_else(out_of_range)?;
    }
    Ok(total)
}

/// `HH:MM` and `HH:MM:SS[.ffffff]`.
fn clock_length(text: &str) -> Option<WindowLength> {
    let mut parts = text.split(':');
    let hours: i64 = parts.next()?.parse().ok()?;
    let minutes: i64 = parts.next()?.parse().ok()?;
    let seconds = parts.next().map_or(Some(0), |seconds| scaled(seconds, MICROS_PER_SECOND))?;
    if parts.next().is_some() || minutes >= 60 || seconds >= MICROS_PER_MINUTE {
        return None;
    }
    let micros = hours.checked_mul(MICROS_PER_HOUR)?.checked_add(minutes * MICROS_PER_MINUTE)?.checked_add(seconds)?;
    Some(WindowLength { micros, ..WindowLength::default() })
}

fn unit_length(number: &str, unit: &str, text: &str) -> Result<WindowLength> {
    let invalid = || not_an_interval(&format!("'{text}'"));
    let whole = || -> Result<i32> {
        if number.contains('.') {
            return Err(SqlError::new(format!("the interval '{text}' has a fraction of a calendar unit")).with_hint(INTERVAL_HINT));
        }
        number.parse::<i32>().map_err(|_| out_of_range())
    };
    let months = |factor: i32| -> Result<WindowLength> {
        Ok(WindowLength { months: whole()?.checked_mul(factor).ok_or_else(out_of_range)?, ..WindowLength::default() })
    };
    let days = |factor: i32| -> Result<WindowLength> {
        Ok(WindowLength { days: whole()?.checked_mul(factor).ok_or_else(out_of_range)?, ..WindowLength::default() })
    };
    let micros = |factor: i64| -> Result<WindowLength> {
        if number.matches('.').count() > 1 || number == "." {
            return Err(invalid());
        }
        Ok(WindowLength { micros: scaled(number, factor).ok_or_else(out_of_range)?, ..WindowLength::default() })
    };
    match unit.to_lowercase().as_str() {
        "us" | "usec" | "usecs" | "microsecond" | "microseconds" => micros(1),
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => micros(MICROS_PER_MILLI),
        "s" | "sec" | "secs" | "second" | "seconds" => micros(MICROS_PER_SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => micros(MICROS_PER_MINUTE),
        "h" | "hr" | "hrs" | "hour" | "hours" => micros(MICROS_PER_HOUR),
        "d" | "day" | "days" => days(1),
        "w" | "week" | "weeks" => days(7),
        "mon" | "mons" | "month" | "months" => months(1),
        "quarter" | "quarters" => months(3),
        "y" | "yr" | "year" | "years" => months(12),
        other => {
            let known = ["microseconds", "milliseconds", "seconds", "minutes", "hours", "days", "weeks", "months", "years"];
            let hint = millstream_types::suggest::nearest(other, known)
                .map_or_else(|| format!("Units are {}.", known.join(", ")), |near| format!("Did you mean \"{near}\"?"));
            Err(SqlError::new(format!("the interval '{text}' has the unknown unit \"{unit}\"")).with_hint(hint))
        }
    }
}

/// `number * factor` without rounding away more than what lies below one; `None` when out of range or no number.
fn scaled(number: &str, factor: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut result = whole.checked_mul(factor)?;
    if !fraction.is_empty() {
        // Twelve digits are below a microsecond of any unit here.
        let digits: String = fraction.chars().take(12).collect();
        let value: i128 = digits.parse().ok()?;
        let part = value * i128::from(factor) / 10_i128.pow(u32::try_from(digits.len()).ok()?);
        result = result.checked_add(i64::try_from(part).ok()?)?;
    }
    Some(result)
}

/// Reads `2000-01-31`, `2000-01-31 12:30` and `2000-01-31T12:30:00.5Z` as microseconds since 1970-01-01; `None` for
/// anything else.
pub(crate) fn parse_timestamp(text: &str) -> Option<i64> {
    let text = text.trim().trim_end_matches(['Z', 'z']);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 || !date.chars().all(|c| c.is_ascii_digit() || c == '-') {
        return None;
    }
    let (year, month, day): (i64, i64, i64) = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    let days = days_from_civil(year, month, day);
    if civil_from_days(days) != (year, month, day) {
        return None;
    }
    let clock = clock_length(time)?;
    (clock.micros < MICROS_PER_DAY).then_some(days * MICROS_PER_DAY + clock.micros)
}

/// Days since 1970-01-01 of a date of the Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a number of days since 1970-01-01 in the proleptic Gregorian calendar; the year before 1 is 0.
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * month_index + 2) / 5 + 1)
}

fn not_an_interval(text: &str) -> SqlError {
    SqlError::new(format!("{text} is not an interval")).with_hint(INTERVAL_HINT)
}

fn out_of_range() -> SqlError {
    SqlError::new("the interval is out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        parse_interval_text(text, None).map_or_else(|error| error.message, |length| length.to_sql())
    }

    #[test]
    fn texts() {
        for (text, expected) in [
            ("10 seconds", "INTERVAL '10 seconds'"),
            ("10s", "INTERVAL '10 seconds'"),
            ("60 seconds", "INTERVAL '1 minute'"),
            ("90 SECONDS", "INTERVAL '90 seconds'"),
            ("1.5 seconds", "INTERVAL '1500 milliseconds'"),
            ("1 hour 30 minutes", "INTERVAL '90 minutes'"),
            ("1 day 02:30:00.25", "INTERVAL '1 day 9000250 milliseconds'"),
            ("1 year 2 mons", "INTERVAL '14 months'"),
            ("2 weeks, 1 day", "INTERVAL '15 days'"),
            ("-5 minutes", "INTERVAL '-5 minutes'"),
            ("0 seconds", "INTERVAL '0 seconds'"),
            ("10 sekonds", "the interval '10 sekonds' has the unknown unit \"sekonds\""),
            ("10", "the interval '10' names no unit"),
            ("ten seconds", "'ten seconds' is not an interval"),
            ("", "'' is not an interval"),
            ("1.5 months", "the interval '1.5 months' has a fraction of a calendar unit"),
            ("1..5 seconds", "'1..5 seconds' is not an interval"),
            ("99999999999999999999 seconds", "the interval is out of range"),
            ("9999999999 hours 99999999999999 hours", "the interval is out of range"),
            ("1:99", "'1:99' is not an interval"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn timestamps() {
        for (text, micros) in [
            ("1970-01-01", Some(0)),
            ("1970-01-01 00:00:05", Some(5_000_000)),
            ("2000-02-29T12:30:00.25Z", Some(951_827_400_250_000)),
            ("1969-12-31 23:59:59.999999", Some(-1)),
            ("2001-02-29", None),
            ("2001-02-28 24:00:00", None),
            ("10 seconds", None),
            ("2001-2", None),
        ] {
            assert_eq!(parse_timestamp(text), micros, "{text}");
        }
    }

    #[test]
    fn expressions() {
        let read = |sql: &str| parse_interval(&crate::parse_expression(sql).expect("expression")).map(|length| length.to_sql());
        assert_eq!(read("INTERVAL '10' SECOND"), Ok("INTERVAL '10 seconds'".to_owned()));
        assert_eq!(read("INTERVAL 5 MINUTES"), Ok("INTERVAL '5 minutes'".to_owned()));
        assert_eq!(read("INTERVAL '-1' DAY"), Ok("INTERVAL '-1 days'".to_owned()));
        assert_eq!(read("'10 seconds'"), Ok("INTERVAL '10 seconds'".to_owned()));
        assert_eq!(read("ts").expect_err("no interval").message, "ts is not an interval");
        let error = parse_duration(&crate::parse_expression("INTERVAL '1 month'").expect("expression")).expect_err("no fixed length");
        assert_eq!(error.message, "the interval '1 month' has no fixed length");
    }
}
