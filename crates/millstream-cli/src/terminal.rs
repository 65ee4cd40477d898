//! What the standard streams are: a terminal or not, how wide, in colour or not; and text that is safe to show there.

use std::borrow::Cow;
use std::io::IsTerminal;
use unicode_width::UnicodeWidthChar;

/// Facts about the terminal that decide how results are shown. Taken once per statement, since windows are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Standard output is a terminal.
    pub(crate) is_terminal: bool,
    /// Columns of the window; `None` when output is not a terminal.
    pub(crate) width: Option<usize>,
    /// Lines of the window; `None` when output is not a terminal.
    pub(crate) height: Option<usize>,
    /// Colours are wanted: a terminal, `NO_COLOR` unset or empty, `TERM` not `dumb`.
    pub(crate) color: bool,
}

impl Terminal {
    /// Standard output as it is now.
    pub(crate) fn stdout() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        if !is_terminal {
            return Self { is_terminal, width: None, height: None, color: false };
        }
        let (width, height) =
            terminal_size::terminal_size().map_or((80, 24), |(width, height)| (usize::from(width.0), usize::from(height.0)));
        Self { is_terminal, width: Some(width.max(20)), height: Some(height.max(5)), color: color_wanted() }
    }
}

/// Whether standard error is a terminal: decides between a progress bar and progress lines.
pub(crate) fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether messages on standard error are coloured.
pub(crate) fn stderr_color() -> bool {
    stderr_is_terminal() && color_wanted()
}

fn color_wanted() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    !no_color && !dumb
}

/// Whether a character must not reach a terminal as it is: control characters (they move the cursor, change the title,
/// answer back) and the invisible ones that reorder text.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The text with every unsafe character written as an escape (`\n`, `\t`, `\x1b`, `\u{202e}`).
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    escape_except(text, None)
}

/// Like [`escape`], but line breaks stay: for multi-line cells, CSV fields and messages.
pub(crate) fn escape_keeping_lines(text: &str) -> Cow<'_, str> {
    escape_except(text, Some('\n'))
}

fn escape_except(text: &str, kept: Option<char>) -> Cow<'_, str> {
    if !text.chars().any(|c| is_unsafe(c) && Some(c) != kept) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            _ if Some(c) == kept => escaped.push(c),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            _ if is_unsafe(c) && (c as u32) < 0x100 => escaped.push_str(&format!("\\x{:02x}", c as u32)),
            _ if is_unsafe(c) => escaped.push_str(&format!("\\u{{{:x}}}", c as u32)),
            _ => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Columns a text takes on a terminal (wide characters take two).
pub(crate) fn display_width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// The text cut to `width` columns, with `…` as its last column where something was cut.
pub(crate) fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if display_width(text) <= width {
        return Cow::Borrowed(text);
    }
    if width == 0 {
        return Cow::Borrowed("");
    }
    let mut used = 0;
    let mut end = 0;
    for (index, c) in text.char_indices() {
        let columns = c.width().unwrap_or(0);
        if used + columns > width - 1 {
            break;
        }
        used += columns;
        end = index + c.len_utf8();
    }
    Cow::Owned(format!("{}…", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape("plain äöü 你好"), "plain äöü 你好");
        assert_eq!(escape("a\x1b[31mb\nc\u{202e}d\u{9b}"), "a\\x1b[31mb\\nc\\u{202e}d\\x9b");
        assert_eq!(escape_keeping_lines("a\nb\rc"), "a\nb\\rc");
        assert_eq!(escape_keeping_lines("a\0b\n"), "a\\x00b\n");
        assert_eq!(escape("\0"), "\\x00");
    }

    #[test]
    fn cutting_respects_wide_characters() {
        assert_eq!(cut("hello", 5), "hello");
        assert_eq!(cut("hello!", 5), "hell…");
        assert_eq!(cut("你好吗", 5), "你好…");
        assert_eq!(cut("你好吗", 4), "你…");
        assert_eq!(display_width(&cut("你好吗", 4)), 3);
        assert_eq!(cut("abc", 0), "");
    }
}
