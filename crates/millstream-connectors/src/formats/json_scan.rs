//! A strict, allocation-free scanner of one JSON text (RFC 8259) that keeps numbers as they are written.
//!
//! Numbers stay text, so that a BIGINT of 19 digits or a DECIMAL is read exactly and `9.5` is told from `9`. Depth is bounded, control
//! characters in strings, lone surrogates, leading zeros and trailing text are refused.

use super::NESTING_MAX;
use std::borrow::Cow;

/// Where and why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Byte offset in the text.
    pub at: usize,
    /// What was wrong.
    pub what: &'static str,
}

/// A position in a JSON text.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// The text between two positions.
    pub(crate) fn slice(&self, start: usize, end: usize) -> &'a str {
        &self.text[start..end]
    }

    fn error<T>(&self, what: &'static str) -> Result<T, SyntaxError> {
        Err(SyntaxError { at: self.position, what })
    }

    /// The next byte that is not white space.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.position) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.position += 1;
        }
        None
    }

    /// Takes `byte` if it comes next.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.position += usize::from(found);
        found
    }

    /// Takes `byte`, which must come next.
    #[inline]
    pub(crate) fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), SyntaxError> {
        if self.take(byte) { Ok(()) } else { self.error(what) }
    }

    /// Takes `null`, `true` or `false`.
    pub(crate) fn literal(&mut self) -> Result<&'a str, SyntaxError> {
        self.peek();
        let rest = &self.text[self.position..];
        match ["null", "true", "false"].into_iter().find(|word| rest.starts_with(word)) {
            Some(word) => {
                self.position += word.len();
                Ok(&rest[..word.len()])
            }
            None => self.error("expected a value"),
        }
    }

    /// Takes a number as it is written.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<&'a str, SyntaxError> {
        self.peek();
        let bytes = self.text.as_bytes();
        let start = self.position;
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut end = start + usize::from(bytes.get(start) == Some(&b'-'));
        let whole = digits(end);
        if whole == 0 || whole > 1 && bytes[end] == b'0' {
            return self.error("expected a number");
        }
        end += whole;
        if bytes.get(end) == Some(&b'.') {
            let fraction = digits(end + 1);
            if fraction == 0 {
                return self.error("expected digits after the decimal point");
            }
            end += 1 + fraction;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            end += 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end.min(bytes.len()));
            if exponent == 0 {
                return self.error("expected digits in the exponent");
            }
            end += exponent;
        }
        self.position = end;
        Ok(&self.text[start..end])
    }

    /// Takes a string and resolves its escapes; borrowed when there are none.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        self.expect(b'"', "expected a string")?;
        let bytes = self.text.as_bytes();
        let start = self.position;
        let mut end = start;
        loop {
            match bytes.get(end) {
                Some(b'"') => {
                    self.position = end + 1;
                    return Ok(Cow::Borrowed(&self.text[start..end]));
                }
                Some(b'\\') => return self.escaped_string(start, end),
                Some(byte) if *byte >= 0x20 => end += 1,
                Some(_) => {
                    self.position = end;
                    return self.error("control character in a string");
                }
                None => {
                    self.position = end;
                    return self.error("a string has no end");
                }
            }
        }
    }

    fn escaped_string(&mut self, start: usize, first_escape: usize) -> Result<Cow<'a, str>, SyntaxError> {
        let bytes = self.text.as_bytes();
        let mut text = self.text[start..first_escape].to_string();
        self.position = first_escape;
        loop {
            let run = bytes[self.position..].iter().take_while(|byte| **byte >= 0x20 && !matches!(byte, b'"' | b'\\')).count();
            text.push_str(&self.text[self.position..self.position + run]);
            self.position += run;
            match bytes.get(self.position) {
                Some(b'"') => {
                    self.position += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => {
                    let escape = bytes.get(self.position + 1).copied();
                    let plain = match escape {
                        Some(byte @ (b'"' | b'\\' | b'/')) => byte as char,
                        Some(b'b') => '\u{8}',
                        Some(b'f') => '\u{c}',
                        Some(b'n') => '\n',
                        Some(b'r') => '\r',
                        Some(b't') => '\t',
                        Some(b'u') => {
                            text.push(self.unicode_escape()?);
                            continue;
                        }
                        _ => return self.error("unknown escape in a string"),
                    };
                    text.push(plain);
                    self.position += 2;
                }
                Some(_) => return self.error("control character in a string"),
                None => return self.error("a string has no end"),
            }
        }
    }

    fn unicode_escape(&mut self) -> Result<char, SyntaxError> {
        let unit = |scanner: &Self, at: usize| {
            let bytes = scanner.text.as_bytes();
            let digits = bytes.get(at..at + 6).filter(|part| part.starts_with(b"\\u") && part[2..].iter().all(u8::is_ascii_hexdigit));
            digits.and_then(|part| u32::from_str_radix(std::str::from_utf8(&part[2..]).ok()?, 16).ok())
        };
        let Some(high) = unit(self, self.position) else { return self.error("malformed \\u escape") };
        let code = match high {
            0xD800..=0xDBFF => match unit(self, self.position + 6) {
                Some(low @ 0xDC00..=0xDFFF) => {
                    self.position += 6;
                    0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00)
                }
                _ => return self.error("lone surrogate in a string"),
            },
            _ => high,
        };
        let Some(character) = char::from_u32(code) else { return self.error("lone surrogate in a string") };
        self.position += 6;
        Ok(character)
    }

    /// Passes over a value, checking it.
    pub(crate) fn skip_value(&mut self, depth: usize) -> Result<(), SyntaxError> {
        if depth > NESTING_MAX {
            return self.error("nested more than 64 deep");
        }
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => {
                self.position += 1;
                if self.take(b'}') {
                    return Ok(());
                }
                loop {
                    self.string()?;
                    self.expect(b':', "expected a colon")?;
                    self.skip_value(depth + 1)?;
                    if !self.take(b',') {
                        return self.expect(b'}', "expected a comma or a closing brace");
                    }
                }
            }
            Some(b'[') => {
                self.position += 1;
                if self.take(b']') {
                    return Ok(());
                }
                loop {
                    self.skip_value(depth + 1)?;
                    if !self.take(b',') {
                        return self.expect(b']', "expected a comma or a closing bracket");
                    }
                }
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            _ => self.literal().map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid(text: &str) -> bool {
        let mut scanner = Scanner::new(text);
        scanner.skip_value(1).is_ok() && scanner.peek().is_none()
    }

    #[test]
    fn agrees_with_serde_json() {
        let texts = [
            "1",
            "-0.5e+3",
            "01",
            "1.",
            "-",
            "\"a\\u00e9\\n\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\"\\x\"",
            "{\"a\":[1,2,{}]}",
            "[1,]",
            "{,}",
            "{\"a\"}",
            "nul",
            "true",
            "[null, false]",
            "\"tab\there\"",
            "{\"a\":1}x",
            "",
            " [ ] ",
            "1e",
            "\"",
            "[",
            "{\"a\":",
        ];
        for text in texts {
            let expected = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(valid(text), expected, "{text}");
        }
    }

    #[test]
    fn resolves_escapes_and_bounds_depth() {
        assert_eq!(Scanner::new(r#""a\u00e9\ud83d\ude00\n\"""#).string().unwrap(), "aé😀\n\"");
        let deep = "[".repeat(100_000);
        assert_eq!(Scanner::new(&deep).skip_value(1).unwrap_err().what, "nested more than 64 deep");
    }
}
