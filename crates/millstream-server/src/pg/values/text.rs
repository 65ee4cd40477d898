//! Times, numbers and bytes in PostgreSQL's text form (datestyle ISO, intervalstyle postgres, bytea_output hex).

use millstream_sql::literal::civil_from_days;
use std::fmt::Write;

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// A date, by its days since 1970-01-01.
pub(crate) fn date(days: i64, out: &mut String) {
    let (year, month, day) = civil_from_days(days);
    // There is no year 0: the one before 1 is 1 BC.
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let _ = write!(out, "{year:04}-{month:02}-{day:02}{era}");
}

/// A time of day, by its microseconds since midnight.
pub(crate) fn time(microseconds: i64, out: &mut String) {
    let seconds = microseconds / 1_000_000;
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    fraction(microseconds % 1_000_000, out);
}

/// A timestamp, by its microseconds since 1970-01-01; `utc` adds the offset of UTC.
pub(crate) fn timestamp(microseconds: i64, utc: bool, out: &mut String) {
    let mut day = String::new();
    date(microseconds.div_euclid(DAY), &mut day);
    let (day, era) = match day.strip_suffix(" BC") {
        Some(day) => (day, " BC"),
        None => (day.as_str(), ""),
    };
    out.push_str(day);
    out.push(' ');
    time(microseconds.rem_euclid(DAY), out);
    if utc {
        out.push_str("+00");
    }
    out.push_str(era);
}

/// An interval of months, days and microseconds.
pub(crate) fn interval(months: i32, days: i32, microseconds: i64, out: &mut String) {
    let start = out.len();
    // PostgreSQL writes a plus before what is positive after something negative.
    let mut negative_before = false;
    let mut part = |value: i64, unit: &str, out: &mut String| {
        if value == 0 {
            return;
        }
        let space = if out.len() > start { " " } else { "" };
        let plus = if negative_before && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        let _ = write!(out, "{space}{plus}{value} {unit}{plural}");
        negative_before = value < 0;
    };
    part(i64::from(months / 12), "year", out);
    part(i64::from(months % 12), "mon", out);
    part(i64::from(days), "day", out);
    if microseconds == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.push(' ');
    }
    let magnitude = microseconds.unsigned_abs();
    if microseconds < 0 {
        out.push('-');
    } else if negative_before {
        out.push('+');
    }
    let seconds = magnitude / 1_000_000;
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    fraction(i64::try_from(magnitude % 1_000_000).unwrap_or(0), out);
}

/// `.5`, without zeros at the end; nothing for a whole second.
fn fraction(microseconds: i64, out: &mut String) {
    if microseconds != 0 {
        let digits = format!("{microseconds:06}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
}

/// A floating-point number in the fewest digits that read as the same number. `text` is Rust's.
pub(crate) fn float(text: &str, out: &mut String) {
    match text {
        "NaN" => out.push_str("NaN"),
        "inf" => out.push_str("Infinity"),
        "-inf" => out.push_str("-Infinity"),
        text => match text.split_once('e') {
            None => out.push_str(text.strip_suffix(".0").unwrap_or(text)),
            Some((digits, exponent)) => {
                let sign = if exponent.starts_with('-') { "-" } else { "+" };
                let _ = write!(out, "{}e{sign}{:0>2}", digits.strip_suffix(".0").unwrap_or(digits), exponent.trim_start_matches('-'));
            }
        },
    }
}

/// Bytes as `\x` and hexadecimal digits.
pub(crate) fn bytea(bytes: &[u8], out: &mut String) {
    out.push_str("\\x");
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn times_look_like_those_of_postgresql() {
        assert_eq!(written(|out| date(0, out)), "1970-01-01");
        assert_eq!(written(|out| date(19_782, out)), "2024-02-29");
        assert_eq!(written(|out| date(-719_163, out)), "0001-12-31 BC");
        assert_eq!(written(|out| date(2_932_897, out)), "10000-01-01");
        assert_eq!(written(|out| timestamp(-1, false, out)), "1969-12-31 23:59:59.999999");
        assert_eq!(written(|out| timestamp(1_500_000, true, out)), "1970-01-01 00:00:01.5+00");
        assert_eq!(written(|out| interval(14, 3, 14_706_000_000, out)), "1 year 2 mons 3 days 04:05:06");
        assert_eq!(written(|out| interval(-1, 0, 1_000_000, out)), "-1 mons +00:00:01");
        assert_eq!(written(|out| interval(0, 0, -1_500_000, out)), "-00:00:01.5");
        assert_eq!(written(|out| interval(0, 0, 0, out)), "00:00:00");
    }

    #[test]
    fn floats_are_short_and_exact() {
        for (value, expected) in [(1.0, "1"), (0.1, "0.1"), (-2.5, "-2.5"), (1e300, "1e+300"), (1e-7, "1e-07"), (f64::NAN, "NaN")] {
            assert_eq!(written(|out| float(&format!("{value:?}"), out)), expected);
        }
        assert_eq!(written(|out| float(&format!("{:?}", f64::NEG_INFINITY), out)), "-Infinity");
        assert_eq!(written(|out| float(&format!("{:?}", 0.1_f32), out)), "0.1");
        assert_eq!(written(|out| bytea(b"\x00\xffa", out)), "\\x00ff61");
    }
}
