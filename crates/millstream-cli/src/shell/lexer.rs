//! A forgiving view of half-written SQL: what highlighting and completion need, nothing more.
//!
//! Unlike the dialect's tokenizer it never fails: an unterminated string or comment simply reaches to the end.

use std::ops::Range;

/// What a piece of the line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A keyword, a name, a function.
    Word,
    /// A double-quoted name.
    QuotedName,
    /// A string, dollar-quoted ones too.
    Text,
    /// A number.
    Number,
    /// A comment.
    Comment,
    /// Blanks.
    Space,
    /// One character of anything else.
    Symbol,
}

/// A piece and where it is, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its place.
    pub(crate) range: Range<usize>,
    /// It reaches to the end of the input because its end is missing.
    pub(crate) is_open: bool,
}

/// Cuts the whole text into pieces.
pub(crate) fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut position = 0;
    while let Some(c) = text[position..].chars().next() {
        let rest = &text[position..];
        let (kind, length, is_open) = if c.is_whitespace() {
            (Kind::Space, run(rest, char::is_whitespace), false)
        } else if rest.starts_with("--") {
            let length = rest.find('\n').unwrap_or(rest.len());
            (Kind::Comment, length, length == rest.len())
        } else if rest.starts_with("/*") {
            closed(Kind::Comment, rest, 2, "*/")
        } else if c == '\'' {
            closed(Kind::Text, rest, 1, "'")
        } else if c == '"' {
            closed(Kind::QuotedName, rest, 1, "\"")
        } else if let Some(tag) = dollar_tag(rest) {
            closed(Kind::Text, rest, tag, &rest[..tag])
        } else if c.is_ascii_digit() {
            (Kind::Number, run(rest, |c| c.is_ascii_alphanumeric() || c == '.' || c == '_'), false)
        } else if c.is_alphabetic() || c == '_' {
            (Kind::Word, run(rest, |c| c.is_alphanumeric() || c == '_' || c == '$'), false)
        } else {
            (Kind::Symbol, c.len_utf8(), false)
        };
        pieces.push(Piece { kind, range: position..position + length, is_open });
        position += length;
    }
    pieces
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

fn closed(kind: Kind, text: &str, start: usize, end: &str) -> (Kind, usize, bool) {
    match text[start..].find(end) {
        Some(found) => (kind, start + found + end.len(), false),
        None => (kind, text.len(), true),
    }
}

/// Length of the `$tag$` that the text starts with.
fn dollar_tag(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('$')?;
    let end = run(inner, |c| c.is_alphanumeric() || c == '_');
    inner[end..].starts_with('$').then_some(end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_text() {
        for text in ["SELECT a, 'x''y', 1.5e3 -- c\n/* d */ \"q\" $$z$$", "'open", "/* open", "\"", "$", "ä ≥ 你", ""] {
            let pieces = pieces(text);
            let covered: String = pieces.iter().map(|piece| &text[piece.range.clone()]).collect();
            assert_eq!(covered, text);
        }
        assert!(pieces("'open").last().unwrap().is_open);
        assert!(!pieces("'done'").last().unwrap().is_open);
    }
}
