//! Counts, rates, sizes and durations for people.

use std::time::Duration;

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with three significant digits: `999`, `12.3k`, `4.56M`.
pub(crate) fn short(count: f64) -> String {
    let (value, unit) = match count.abs() {
        x if x >= 999.5e6 => (count / 1e9, "G"),
        x if x >= 999.5e3 => (count / 1e6, "M"),
        x if x >= 999.5 => (count / 1e3, "k"),
        _ => (count, ""),
    };
    let digits = match value.abs() {
        x if unit.is_empty() && x.fract() == 0.0 => 0,
        x if x >= 99.95 => 0,
        x if x >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$}{unit}")
}

/// Rows per second; empty when the time is too short to say.
pub(crate) fn rate(rows: u64, elapsed: Duration) -> Option<String> {
    let seconds = elapsed.as_secs_f64();
    (seconds > 1e-6).then(|| format!("{} rows/s", short(rows as f64 / seconds)))
}

/// `740 µs`, `12.3 ms`, `4.56 s`, `3 min 12 s`, `2 h 5 min`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.000_999_5 {
        return format!("{} µs", duration.as_micros());
    }
    if seconds < 0.999_5 {
        return format!("{} ms", short(seconds * 1e3));
    }
    if seconds < 59.95 {
        return format!("{} s", short(seconds));
    }
    let whole = duration.as_secs();
    if whole < 3600 { format!("{} min {} s", whole / 60, whole % 60) } else { format!("{} h {} min", whole / 3600, whole / 60 % 60) }
}

/// `512 B`, `12.3 kB`, `4.56 MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let text = short(bytes as f64);
    let (number, unit) = text.split_at(text.len() - 1);
    format!("{number} {unit}B")
}

/// `1 row`, `3 rows`.
pub(crate) fn rows(count: usize) -> String {
    if count == 1 { "1 row".into() } else { format!("{} rows", grouped(count as u64)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([grouped(0), grouped(999), grouped(1000), grouped(1234567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([short(0.0), short(999.0), short(1000.0), short(12_345.0), short(4.56e6)], ["0", "999", "1.00k", "12.3k", "4.56M"]);
        assert_eq!(bytes(4_560_000), "4.56 MB");
        assert_eq!([bytes(12), bytes(12_300)], ["12 B", "12.3 kB"]);
        assert_eq!([rows(1), rows(1200)], ["1 row", "1,200 rows"]);
    }

    #[test]
    fn durations_pick_their_unit() {
        let text = |micros| duration(Duration::from_micros(micros));
        assert_eq!([text(740), text(12_300), text(4_560_000), text(192_000_000)], ["740 µs", "12.3 ms", "4.56 s", "3 min 12 s"]);
        assert_eq!(text(7_500_000_000), "2 h 5 min");
        assert_eq!(rate(1_000_000, Duration::from_millis(500)).as_deref(), Some("2.00M rows/s"));
        assert_eq!(rate(1, Duration::ZERO), None);
    }
}
