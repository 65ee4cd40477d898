//! Cuts a script into statements, with sqlparser's tokenizer and never by looking for `;` in the text.
//!
//! A `;` inside a string, a quoted identifier, a comment or a dollar quote ends nothing. Statements before a place that
//! cannot be cut into tokens are found all the same, so that a shell runs them first.

use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, TokenizerError};

use crate::dialect::DIALECT;
use crate::error::{Position, SqlError};

/// One statement of a script, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementText<'a> {
    /// The statement from its first to its last token, without the `;`. Comments before it are left out.
    pub text: &'a str,
    /// Where the statement starts in the script.
    pub start: Position,
    /// The byte at which it starts.
    pub offset: usize,
    /// True if a `;` ends it; only the last statement of a script may lack one.
    pub is_terminated: bool,
}

/// The statements of a script, and the error that ended the search, if one did.
#[derive(Clone, Debug)]
pub struct Split<'a> {
    /// The statements that could be cut off.
    pub statements: Vec<StatementText<'a>>,
    /// Why the rest could not be cut into tokens; the place counts within the script.
    pub error: Option<SqlError>,
}

/// Cuts `script` into its statements. Empty statements are left out.
pub fn split(script: &str) -> Split<'_> {
    let (tokens, error) = tokens_of(script);
    let offsets = LineOffsets::new(script);
    let mut statements = Vec::new();
    let mut open: Option<(&TokenWithSpan, &TokenWithSpan)> = None;
    let cut = |first: &TokenWithSpan, last: &TokenWithSpan, is_terminated: bool| {
        let offset = offsets.byte(first.span.start);
        let start = Position { line: first.span.start.line, column: first.span.start.column };
        StatementText { text: &script[offset..offsets.byte(last.span.end)], start, offset, is_terminated }
    };
    for token in &tokens {
        match (&token.token, open) {
            (Token::Whitespace(_), _) => {}
            (Token::SemiColon, Some((first, last))) => {
                statements.push(cut(first, last, true));
                open = None;
            }
            (Token::SemiColon, None) => {}
            (_, Some((first, _))) => open = Some((first, token)),
            (_, None) => open = Some((token, token)),
        }
    }
    if let (Some((first, last)), None) = (open, &error) {
        statements.push(cut(first, last, false));
    }
    Split { statements, error: error.map(|error| SqlError::from_tokenizer(&error)) }
}

/// True if a shell may run `text` as it stands: nothing but comments, or ended by a `;` outside quotes and comments, or
/// wrong in a way that more text does not mend.
pub fn is_complete(text: &str) -> bool {
    let (tokens, error) = tokens_of(text);
    match error {
        Some(error) => !is_unterminated(&error),
        None => {
            let last = tokens.iter().rev().find(|token| !matches!(token.token, Token::Whitespace(_)));
            last.is_none_or(|token| token.token == Token::SemiColon)
        }
    }
}

/// The tokens up to the first one that is none.
fn tokens_of(text: &str) -> (Vec<TokenWithSpan>, Option<TokenizerError>) {
    let mut tokens = Vec::new();
    let error = Tokenizer::new(&DIALECT, text).tokenize_with_location_into_buf(&mut tokens).err();
    (tokens, error)
}

/// True if the error is a quote or a comment that the text ends in.
fn is_unterminated(error: &TokenizerError) -> bool {
    ["Unterminated", "before EOF", "Unexpected EOF"].iter().any(|part| error.message.contains(part))
}

/// Byte offsets of the lines of a text, to turn the tokenizer's places into bytes.
pub(crate) struct LineOffsets<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> LineOffsets<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let line_starts = std::iter::once(0).chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1)).collect();
        LineOffsets { text, line_starts }
    }

    /// The byte of `location`; places beyond the text give its end.
    pub(crate) fn byte(&self, location: Location) -> usize {
        let line = usize::try_from(location.line.max(1) - 1).unwrap_or(usize::MAX);
        let Some(&start) = self.line_starts.get(line) else { return self.text.len() };
        let column = usize::try_from(location.column.max(1) - 1).unwrap_or(usize::MAX);
        self.text[start..].char_indices().nth(column).map_or(self.text.len(), |(byte, _)| start + byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(script: &str) -> Vec<&str> {
        split(script).statements.iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn cuts_at_semicolons_outside_quotes() {
        assert_eq!(texts("SELECT 1; SELECT 2"), ["SELECT 1", "SELECT 2"]);
        assert_eq!(
            texts("SELECT ';', \";\" -- ; \n /* ; /* ; */ ; */ ;;  ; SELECT $$;$$, $a$;$a$;"),
            ["SELECT ';', \";\"", "SELECT $$;$$, $a$;$a$"]
        );
        assert_eq!(texts("  -- nothing\n"), Vec::<&str>::new());
        assert_eq!(texts("SELECT 'é;';\r\n\r\nSELECT 'ü' ;\n"), ["SELECT 'é;'", "SELECT 'ü'"]);
    }

    #[test]
    fn knows_where_a_statement_starts() {
        let script = "-- head\nSELECT 'ä'; SELECT\n 2;\n\n  SELECT 3";
        let split = split(script);
        let places: Vec<_> = split.statements.iter().map(|s| (s.start.line, s.start.column, &script[s.offset..s.offset + 6])).collect();
        assert_eq!(places, [(2, 1, "SELECT"), (2, 13, "SELECT"), (5, 3, "SELECT")]);
        assert_eq!(split.statements.iter().map(|s| s.is_terminated).collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn keeps_the_statements_before_a_broken_one() {
        let split = split("SELECT 1;\nSELECT 'abc;\nSELECT 2;");
        assert_eq!(split.statements.len(), 1);
        let error = split.error.expect("an unterminated string");
        assert_eq!((error.message.as_str(), error.start), ("unterminated string literal", Some(Position { line: 2, column: 8 })));
    }

    #[test]
    fn completeness() {
        for text in ["", "  ", "-- x", "SELECT 1;", "SELECT 1; -- done", "SELECT ';';"] {
            assert!(is_complete(text), "{text}");
        }
        for text in ["SELECT 1", "SELECT ';", "SELECT \"a;", "SELECT $$;", "SELECT $a$ $$;", "/* ;", "SELECT 1; SELECT", "SELECT 1 -- ;"] {
            assert!(!is_complete(text), "{text}");
        }
    }
}
