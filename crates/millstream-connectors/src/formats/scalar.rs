//! Strict parsing of single values: text to exactly the declared type, or a [`Misfit`].
//!
//! Nothing is rounded, trimmed or clamped: `9.5` is no BIGINT, `300` no TINYINT, `1.234` no DECIMAL(9, 2) and
//! `2024-02-30` no DATE. DOUBLE and REAL take the nearest value of a decimal literal, as every SQL engine does,
//! but a finite literal that overflows to infinity is refused.

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit, i256};

/// Why a value does not fit its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// It is not of the form the type needs.
    Form,
    /// The type cannot hold so large a value.
    Range,
    /// More decimal places than the type keeps.
    Scale,
    /// NULL in a column that is declared NOT NULL.
    Null,
}

impl Misfit {
    /// The reason as people read it; `value` is quoted and cut.
    pub(crate) fn reason(self, column: &str, value: &str, data_type: &DataType) -> String {
        let shown = shorten(value);
        let name = sql_type(data_type);
        match self {
            Misfit::Form => format!("column \"{column}\": '{shown}' is not a valid {name}"),
            Misfit::Range => format!("column \"{column}\": '{shown}' is out of range for {name}"),
            Misfit::Scale => format!("column \"{column}\": '{shown}' has more decimal places than {name} keeps"),
            Misfit::Null => format!("column \"{column}\": NULL in a NOT NULL column of type {name}"),
        }
    }
}

/// At most 80 characters of a value.
pub(crate) fn shorten(value: &str) -> String {
    match value.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.to_string(),
    }
}

/// The SQL name of a type, for messages.
pub fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INTEGER".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt8 => "TINYINT UNSIGNED".into(),
        DataType::UInt16 => "SMALLINT UNSIGNED".into(),
        DataType::UInt32 => "INTEGER UNSIGNED".into(),
        DataType::UInt64 => "BIGINT UNSIGNED".into(),
        DataType::Float16 | DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "BYTEA".into(),
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".into(),
        DataType::Dictionary(_, value) => sql_type(value),
        DataType::Time64(_) | DataType::Time32(_) => "TIME".into(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP".into(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "TIMESTAMP WITH TIME ZONE".into(),
        DataType::Timestamp(unit, zone) => {
            let digits = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            };
            format!("TIMESTAMP({digits}){}", if zone.is_some() { " WITH TIME ZONE" } else { "" })
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => format!("{}[]", sql_type(item.data_type())),
        DataType::Struct(fields) => {
            let parts: Vec<_> = fields.iter().map(|field| format!("{} {}", field.name(), sql_type(field.data_type()))).collect();
            format!("STRUCT<{}>", parts.join(", "))
        }
        other => other.to_string(),
    }
}

/// A sign and digits, nothing else.
pub(crate) fn parse_integer(text: &[u8]) -> Result<i128, Misfit> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return Err(Misfit::Form);
    }
    // Eighteen digits always fit an i64, which is the fast case.
    if digits.len() <= 18 {
        let mut value = 0_i64;
        for byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return Err(Misfit::Form);
            }
            value = value * 10 + i64::from(digit);
        }
        return Ok(i128::from(if negative { -value } else { value }));
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Misfit::Form);
    }
    let mut value = 0_i128;
    for byte in digits {
        value = value.checked_mul(10).and_then(|v| v.checked_add(i128::from(byte - b'0'))).ok_or(Misfit::Range)?;
    }
    Ok(if negative { -value } else { value })
}

/// `true` or `false` (also `t`, `f`), in any case.
pub(crate) fn parse_boolean(text: &str) -> Result<bool, Misfit> {
    if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("t") {
        Ok(true)
    } else if text.eq_ignore_ascii_case("false") || text.eq_ignore_ascii_case("f") {
        Ok(false)
    } else {
        Err(Misfit::Form)
    }
}

/// A decimal literal, or `NaN`, `Infinity`, `-Infinity` where `special` allows them.
pub(crate) fn parse_f64(text: &str, special: bool) -> Result<f64, Misfit> {
    check_float_form(text, special)?;
    let value: f64 = text.parse().map_err(|_| Misfit::Form)?;
    if value.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) { Err(Misfit::Range) } else { Ok(value) }
}

/// As [`parse_f64`], for REAL.
pub(crate) fn parse_f32(text: &str, special: bool) -> Result<f32, Misfit> {
    check_float_form(text, special)?;
    let value: f32 = text.parse().map_err(|_| Misfit::Form)?;
    if value.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) { Err(Misfit::Range) } else { Ok(value) }
}

fn check_float_form(text: &str, special: bool) -> Result<(), Misfit> {
    let body = text.strip_prefix('-').unwrap_or(text);
    match body.as_bytes().first() {
        Some(byte) if byte.is_ascii_digit() => Ok(()),
        Some(b'.') if special => Ok(()),
        Some(_) if special && ["nan", "inf", "infinity"].iter().any(|word| body.eq_ignore_ascii_case(word)) => Ok(()),
        _ => Err(Misfit::Form),
    }
}

/// A decimal literal, optionally with an exponent, as an integer count of `10^-scale`; exact or refused.
pub(crate) fn parse_decimal(text: &[u8], precision: u8, scale: i8) -> Result<i128, Misfit> {
    let append = |value: i128, digit: u8| value.checked_mul(10)?.checked_add(i128::from(digit));
    let (negative, value) = decimal_digits(text, scale, 0, append)?;
    if value >= 10_i128.pow(u32::from(precision.min(38))) {
        return Err(Misfit::Range);
    }
    Ok(if negative { -value } else { value })
}

/// As [`parse_decimal`], for more than 38 digits.
pub(crate) fn parse_wide_decimal(text: &[u8], precision: u8, scale: i8) -> Result<i256, Misfit> {
    let append = |value: i256, digit: u8| value.checked_mul(i256::from_i128(10))?.checked_add(i256::from_i128(i128::from(digit)));
    let (negative, value) = decimal_digits(text, scale, i256::ZERO, append)?;
    let end = (0..precision).try_fold(i256::ONE, |end, _| end.checked_mul(i256::from_i128(10)));
    if end.is_some_and(|end| value >= end) {
        return Err(Misfit::Range);
    }
    Ok(if negative { -value } else { value })
}

/// The digits of a decimal literal in units of `10^-scale`, put together by `append`, and whether a minus stands before them.
fn decimal_digits<N: Copy + PartialEq>(text: &[u8], scale: i8, zero: N, append: impl Fn(N, u8) -> Option<N>) -> Result<(bool, N), Misfit> {
    let (negative, body) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let (mantissa, exponent) = match body.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => {
            let digits = &body[at + 1..];
            let digits = digits.strip_prefix(b"+").unwrap_or(digits);
            let exponent = parse_integer(digits)?;
            (&body[..at], i64::try_from(exponent).ok().filter(|e| e.abs() <= 10_000).ok_or(Misfit::Range)?)
        }
        None => (body, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &[][..]),
    };
    if whole.is_empty() && fraction.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(Misfit::Form);
    }
    let mut value = zero;
    // Power of ten of the digit that comes next, in units of the column's scale.
    let mut place = whole.len() as i64 - 1 + exponent + i64::from(scale);
    for byte in whole.iter().chain(fraction) {
        if place >= 0 {
            value = append(value, byte - b'0').ok_or(Misfit::Range)?;
        } else if *byte != b'0' {
            return Err(Misfit::Scale);
        }
        place -= 1;
    }
    while place >= 0 && value != zero {
        value = append(value, 0).ok_or(Misfit::Range)?;
        place -= 1;
    }
    Ok((negative, value))
}

fn two_digits(text: &[u8]) -> Option<u32> {
    match text {
        [high, low] if high.is_ascii_digit() && low.is_ascii_digit() => Some(u32::from(high - b'0') * 10 + u32::from(low - b'0')),
        _ => None,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (i64::from(month) + if month > 2 { -3 } else { 9 }) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// `YYYY-MM-DD` as days since 1970-01-01.
pub(crate) fn parse_date(text: &[u8]) -> Result<i32, Misfit> {
    if text.len() != 10 || text[4] != b'-' || text[7] != b'-' {
        return Err(Misfit::Form);
    }
    let (century, years) = (two_digits(&text[..2]).ok_or(Misfit::Form)?, two_digits(&text[2..4]).ok_or(Misfit::Form)?);
    let (month, day) = (two_digits(&text[5..7]).ok_or(Misfit::Form)?, two_digits(&text[8..]).ok_or(Misfit::Form)?);
    let year = century * 100 + years;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return Err(Misfit::Form),
    };
    if day == 0 || day > month_days {
        return Err(Misfit::Form);
    }
    Ok(days_from_civil(i64::from(year), month, day) as i32)
}

/// `HH:MM[:SS[.fraction]]` at the front of `text`: seconds and nanoseconds of the day, and what follows.
fn time_prefix(text: &[u8]) -> Result<(u32, u32, &[u8]), Misfit> {
    if text.len() < 5 || text[2] != b':' {
        return Err(Misfit::Form);
    }
    let (hour, minute) = (two_digits(&text[..2]).ok_or(Misfit::Form)?, two_digits(&text[3..5]).ok_or(Misfit::Form)?);
    let mut rest = &text[5..];
    let (mut second, mut nanos) = (0, 0_u32);
    if rest.first() == Some(&b':') {
        second = rest.get(1..3).and_then(two_digits).ok_or(Misfit::Form)?;
        rest = &rest[3..];
        if rest.first() == Some(&b'.') {
            let digits = rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return Err(Misfit::Form);
            }
            let mut unit = 100_000_000;
            for byte in &rest[1..=digits] {
                let digit = u32::from(byte - b'0');
                if unit == 0 && digit != 0 {
                    return Err(Misfit::Scale);
                }
                nanos += digit * unit;
                unit /= 10;
            }
            rest = &rest[digits + 1..];
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err(Misfit::Form);
    }
    Ok((hour * 3600 + minute * 60 + second, nanos, rest))
}

/// `HH:MM[:SS[.fraction]]` as nanoseconds of the day.
pub(crate) fn parse_time(text: &[u8]) -> Result<i64, Misfit> {
    match time_prefix(text)? {
        (seconds, nanos, []) => Ok(i64::from(seconds) * 1_000_000_000 + i64::from(nanos)),
        _ => Err(Misfit::Form),
    }
}

/// ISO 8601 / RFC 3339: `2024-05-01T12:00:00.5+02:00`, with `T` or a blank, seconds and offset optional; a date alone is
/// midnight. Seconds since 1970 in UTC, and nanoseconds.
pub(crate) fn parse_iso_timestamp(text: &[u8]) -> Result<(i64, u32), Misfit> {
    let days = i64::from(parse_date(text.get(..10).ok_or(Misfit::Form)?)?);
    let Some(separator) = text.get(10) else { return Ok((days * 86_400, 0)) };
    if !matches!(separator, b'T' | b't' | b' ') {
        return Err(Misfit::Form);
    }
    let (seconds, nanos, zone) = time_prefix(&text[11..])?;
    let offset = match zone {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let (hours, minutes) = match rest.len() {
                2 => (two_digits(rest), Some(0)),
                4 => (two_digits(&rest[..2]), two_digits(&rest[2..])),
                5 if rest[2] == b':' => (two_digits(&rest[..2]), two_digits(&rest[3..])),
                _ => return Err(Misfit::Form),
            };
            let (hours, minutes) = (hours.ok_or(Misfit::Form)?, minutes.ok_or(Misfit::Form)?);
            if hours > 23 || minutes > 59 {
                return Err(Misfit::Form);
            }
            let seconds = i64::from(hours * 3600 + minutes * 60);
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return Err(Misfit::Form),
    };
    Ok((days * 86_400 + i64::from(seconds) - offset, nanos))
}

/// Seconds and nanoseconds as a count of `unit`; exact or refused.
pub(crate) fn to_unit(seconds: i64, nanos: u32, unit: TimeUnit) -> Result<i64, Misfit> {
    let (per_second, nanos_per_unit) = match unit {
        TimeUnit::Second => (1, 1_000_000_000),
        TimeUnit::Millisecond => (1_000, 1_000_000),
        TimeUnit::Microsecond => (1_000_000, 1_000),
        TimeUnit::Nanosecond => (1_000_000_000, 1),
    };
    if !nanos.is_multiple_of(nanos_per_unit) {
        return Err(Misfit::Scale);
    }
    seconds.checked_mul(per_second).and_then(|value| value.checked_add(i64::from(nanos / nanos_per_unit))).ok_or(Misfit::Range)
}

/// `1 day 2 hours`, `1 mons 3.5 secs`: months, days and nanoseconds; exact or refused.
pub(crate) fn parse_interval(text: &str) -> Result<IntervalMonthDayNano, Misfit> {
    let fraction = |part: &str| part.bytes().take_while(u8::is_ascii_digit).count();
    // Arrow's parser cuts what is below a nanosecond.
    if text.split('.').skip(1).any(|part| fraction(part) > 9) {
        return Err(Misfit::Scale);
    }
    parse_interval_month_day_nano(text).map_err(|_| Misfit::Form)
}

/// Hex digits, optionally after `\x` as PostgreSQL writes them.
pub(crate) fn parse_hex(text: &[u8]) -> Result<Vec<u8>, Misfit> {
    let digits = text.strip_prefix(b"\\x").unwrap_or(text);
    if !digits.len().is_multiple_of(2) {
        return Err(Misfit::Form);
    }
    let nibble = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8).ok_or(Misfit::Form);
    digits.chunks_exact(2).map(|pair| Ok(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}
