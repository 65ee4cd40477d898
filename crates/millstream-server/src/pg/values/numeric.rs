//! `numeric`: decimal numbers as text, and in PostgreSQL's binary form of digits to the base 10,000.
//!
//! ```text
//!   digits u16 | weight i16 | sign u16 | display scale u16 | digits ..      123.4 = [1, 0 | 0 | 0 | 1 | 123, 4000]
//! ```

use bytes::{Buf, BufMut, BytesMut};

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// Writes the decimal number `unscaled / 10^scale` in its binary form. `unscaled` is the digits of the number with its sign.
pub(crate) fn write_binary(unscaled: &str, scale: i8, out: &mut BytesMut) {
    let (negative, digits) = match unscaled.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, unscaled),
    };
    let mut digits = digits.to_string();
    // A negative scale stands for zeros at the end.
    let scale = match usize::try_from(scale) {
        Ok(scale) => scale,
        Err(_) => {
            digits.push_str(&"0".repeat(usize::from(scale.unsigned_abs())));
            0
        }
    };
    if digits.len() <= scale {
        digits = format!("{}{digits}", "0".repeat(scale + 1 - digits.len()));
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    // Both sides are cut into groups of four digits from the point.
    let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let fraction = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let group = |text: &str| text.bytes().fold(0_u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let all: Vec<u16> =
        whole.as_bytes().chunks(4).chain(fraction.as_bytes().chunks(4)).map(|four| group(&String::from_utf8_lossy(four))).collect();
    let leading = all.iter().take_while(|group| **group == 0).count();
    let weight = i16::try_from(whole.len() / 4).unwrap_or(i16::MAX) - 1 - i16::try_from(leading).unwrap_or(i16::MAX);
    let trailing = all.iter().rev().take_while(|group| **group == 0).count();
    let significant = all.get(leading..all.len().saturating_sub(trailing)).unwrap_or_default();
    out.put_u16(u16::try_from(significant.len()).unwrap_or(u16::MAX));
    out.put_i16(if significant.is_empty() { 0 } else { weight });
    out.put_u16(if negative && !significant.is_empty() { NEGATIVE } else { 0 });
    out.put_u16(u16::try_from(scale).unwrap_or(u16::MAX));
    significant.iter().for_each(|group| out.put_u16(*group));
}

/// Reads the binary form as text; `None` when it is none.
pub(crate) fn read_binary(mut body: &[u8]) -> Option<String> {
    if body.len() < 8 {
        return None;
    }
    let count = usize::from(body.get_u16());
    let weight = body.get_i16();
    let sign = body.get_u16();
    let scale = usize::from(body.get_u16());
    match sign {
        0 | NEGATIVE => {}
        NAN => return Some("NaN".into()),
        INFINITY => return Some("Infinity".into()),
        NEGATIVE_INFINITY => return Some("-Infinity".into()),
        _ => return None,
    }
    // PostgreSQL's own bounds; a few bytes must not become a text of any length.
    if body.len() != count * 2 || scale > 16_383 || i32::from(weight).unsigned_abs() > 32_768 / 4 {
        return None;
    }
    let groups: Vec<u16> = (0..count).map(|_| body.get_u16()).collect();
    if groups.iter().any(|group| *group > 9_999) {
        return None;
    }
    let at = |position: i32| usize::try_from(i32::from(weight) - position).ok().and_then(|index| groups.get(index)).copied().unwrap_or(0);
    let mut text = String::new();
    for position in (0..=i32::from(weight).max(0)).rev() {
        text.push_str(&format!("{:04}", at(position)));
    }
    let mut text = match text.trim_start_matches('0') {
        "" => "0".to_string(),
        whole => whole.to_string(),
    };
    if scale > 0 {
        let mut fraction = String::new();
        let mut position = -1;
        while fraction.len() < scale {
            fraction.push_str(&format!("{:04}", at(position)));
            position -= 1;
        }
        text.push('.');
        text.push_str(&fraction[..scale]);
    }
    Some(if sign == NEGATIVE { format!("-{text}") } else { text })
}

/// The decimal number `unscaled / 10^scale` as text.
pub(crate) fn text(unscaled: &str, scale: i8) -> String {
    let (sign, digits) = match unscaled.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", unscaled),
    };
    match usize::try_from(scale) {
        Err(_) => format!("{unscaled}{}", if digits == "0" { String::new() } else { "0".repeat(usize::from(scale.unsigned_abs())) }),
        Ok(0) => unscaled.to_string(),
        Ok(scale) if digits.len() > scale => {
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            format!("{sign}{whole}.{fraction}")
        }
        Ok(scale) => format!("{sign}0.{}{digits}", "0".repeat(scale - digits.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_and_text_agree() {
        for (unscaled, scale, expected) in [
            ("0", 0, "0"),
            ("0", 2, "0.00"),
            ("1234", 1, "123.4"),
            ("-1234", 1, "-123.4"),
            ("5", 3, "0.005"),
            ("10000", 0, "10000"),
            ("100000000", 0, "100000000"),
            ("1", 20, "0.00000000000000000001"),
            ("12", -3, "12000"),
            ("99999999999999999999999999999999999999", 10, "9999999999999999999999999999.9999999999"),
            ("-170141183460469231731687303715884105728", 0, "-170141183460469231731687303715884105728"),
        ] {
            assert_eq!(text(unscaled, scale), expected);
            let mut out = BytesMut::new();
            write_binary(unscaled, scale, &mut out);
            assert_eq!(read_binary(&out).as_deref(), Some(expected), "{out:?}");
        }
    }

    #[test]
    fn the_form_is_that_of_postgresql() {
        let mut out = BytesMut::new();
        write_binary("1234", 1, &mut out);
        assert_eq!(&out[..], &[0, 2, 0, 0, 0, 0, 0, 1, 0, 123, 0x0f, 0xa0]);
        assert_eq!(read_binary(&[0, 1, 0, 0, 0, 0, 0]), None);
        assert_eq!(read_binary(&[0, 1, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), None, "a digit is below 10,000");
        assert_eq!(read_binary(&[0, 0, 0x7f, 0xff, 0, 0, 0, 0]), None, "no text of 130,000 zeros");
        assert_eq!(read_binary(&[0, 0, 0, 0, 0xc0, 0, 0, 0]).as_deref(), Some("NaN"));
    }
}
