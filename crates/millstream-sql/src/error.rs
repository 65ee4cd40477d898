//! Errors in SQL text: what is wrong, where, and what to write instead.
//!
//! A [`SqlError`] points into the text it was found in by line and column, both counted from 1 and columns in
//! characters. [`SqlError::render`] prints it the way a compiler does:
//!
//! ```text
//! expected an expression, found "FROM"
//!   --> pipeline.sql:3:8
//!    |
//!  3 | SELECT FROM bids
//!    |        ^^^^
//!    = hint: ...
//! ```

use std::fmt::Write as _;

use datafusion::error::DataFusionError;
use millstream_types::{Classified, ErrorKind};
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Location, Span, TokenizerError};

/// A place in a text: line and column (in characters), both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: u64,
    /// The column in characters, from 1.
    pub column: u64,
}

impl Position {
    /// The position of a sqlparser location; `None` for the empty one of nodes that are not from a text.
    pub fn from_location(location: Location) -> Option<Self> {
        (location.line > 0 && location.column > 0).then_some(Position { line: location.line, column: location.column })
    }
}

/// A statement that is not valid, or that asks for something that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    /// What is wrong: one line, lower case, no full stop.
    pub message: String,
    /// What to do, as sentences.
    pub hint: Option<String>,
    /// Where it is wrong, within the text that was parsed.
    pub start: Option<Position>,
    /// The end of the wrong part, exclusive.
    pub end: Option<Position>,
}

/// The result of everything that reads SQL text.
pub type Result<T, E = SqlError> = std::result::Result<T, E>;

impl SqlError {
    /// An error without a place.
    pub fn new(message: impl Into<String>) -> Self {
        SqlError { message: message.into(), hint: None, start: None, end: None }
    }

    /// The same error with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error at `span`, unless the span is empty or the error has a place already.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        if self.start.is_none() {
            self.start = Position::from_location(span.start);
            self.end = self.start.and(Position::from_location(span.end));
        }
        self
    }

    /// The same error for a text in which the parsed one starts at `origin`.
    #[must_use]
    pub fn shifted(mut self, origin: Position) -> Self {
        let shift = |position: Position| Position {
            line: position.line + origin.line - 1,
            column: if position.line == 1 { position.column + origin.column - 1 } else { position.column },
        };
        self.start = self.start.map(shift);
        self.end = self.end.map(shift);
        self
    }

    /// An error of sqlparser. `end` is the end of the text, which is where an unexpected end is reported.
    pub fn from_parser(error: ParserError, end: Location) -> Self {
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
            ParserError::RecursionLimitExceeded => return SqlError::new("the statement is nested too deeply"),
        };
        let (text, location) = cut_location(&text);
        let mut error = SqlError::new(humanized(text));
        error.start = location.or_else(|| text.ends_with("found: EOF").then(|| Position::from_location(end)).flatten());
        if let (Some(start), Some(found)) = (location, text.rsplit_once("found: ").map(|(_, found)| found)) {
            let width = found.chars().take_while(|c| *c != '\n').count() as u64;
            error.end = Some(Position { line: start.line, column: start.column + width.max(1) });
        }
        error
    }

    /// An error of sqlparser's tokenizer.
    pub fn from_tokenizer(error: &TokenizerError) -> Self {
        let mut result = SqlError::new(lower_first(&error.message));
        result.start = Position::from_location(error.location);
        result
    }

    /// An error of DataFusion's parser, which mostly wraps one of sqlparser's.
    pub fn from_datafusion(error: DataFusionError, end: Location) -> Self {
        match error {
            DataFusionError::SQL(error, _) => SqlError::from_parser(*error, end),
            DataFusionError::Diagnostic(_, inner) => SqlError::from_datafusion(*inner, end),
            other => {
                let text = other.strip_backtrace();
                SqlError::new(lower_first(text.lines().next().unwrap_or("invalid statement")))
            }
        }
    }

    /// The error as text for people. `source` is the text that was parsed, `source_name` where it comes from, and
    /// `first_line` the line of `source_name` on which `source` begins.
    pub fn render(&self, source: &str, source_name: Option<&str>, first_line: u64) -> String {
        let source = &crate::secrets::without_passwords(source);
        let mut out = self.message.clone();
        let mut margin = String::from("  ");
        if let Some(start) = self.start {
            let line_number = (first_line.max(1) + start.line - 1).to_string();
            let line = source.split('\n').nth(start.line as usize - 1).unwrap_or("").trim_end_matches('\r');
            let length = line.chars().count() as u64;
            let column = start.column.min(length + 1);
            let end = match self.end {
                Some(end) if end.line == start.line => end.column.min(length + 1),
                Some(end) if end.line > start.line => length + 1,
                _ => column + token_width(line.chars().skip(column as usize - 1)),
            };
            // A tab stays a tab, so that the caret stands below its character whatever the tab width.
            let indent: String = line.chars().take(column as usize - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let carets = "^".repeat(end.saturating_sub(column).max(1) as usize);
            margin = " ".repeat(line_number.len() + 2);
            let place = source_name.map_or_else(|| format!("line {line_number}:{column}"), |name| format!("{name}:{line_number}:{column}"));
            // Writing to a string does not fail.
            let _ = write!(out, "\n  --> {place}\n{margin}|\n {line_number} | {line}\n{margin}| {indent}{carets}");
        }
        if let Some(hint) = &self.hint {
            for (index, line) in hint.lines().enumerate() {
                let _ = if index == 0 { write!(out, "\n{margin}= hint: {line}") } else { write!(out, "\n{margin}        {line}") };
            }
        }
        out
    }
}

impl Classified for SqlError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// An error in a script: its positions count within the whole script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ScriptError {
    /// The error, with positions in the script.
    pub error: SqlError,
    /// The number of the statement in the script, from 0.
    pub statement_index: usize,
}

impl ScriptError {
    /// The error as text for people; `script` is the whole script.
    pub fn render(&self, script: &str, source_name: Option<&str>) -> String {
        self.error.render(script, source_name, 1)
    }
}

impl Classified for ScriptError {
    fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    fn hint(&self) -> Option<String> {
        self.error.hint.clone()
    }
}

/// Characters of the word, number or quoted text that begins here; one of anything else.
fn token_width(mut rest: impl Iterator<Item = char>) -> u64 {
    let is_word = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '$');
    match rest.next() {
        Some(quote @ ('"' | '\'')) => rest.position(|c| c == quote).map_or(1, |inner| inner as u64 + 2),
        Some(first) if is_word(&first) => 1 + rest.take_while(is_word).count() as u64,
        _ => 1,
    }
}

/// Cuts sqlparser's ` at Line: 1, Column: 5` off a message.
fn cut_location(text: &str) -> (&str, Option<Position>) {
    let parsed = text.rsplit_once(" at Line: ").and_then(|(head, location)| {
        let (line, column) = location.split_once(", Column: ")?;
        let position = Position { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? };
        Some((head, Some(position)))
    });
    parsed.unwrap_or((text, None))
}

/// `Expected: X, found: Y` in our words.
fn humanized(text: &str) -> String {
    let Some((expected, found)) = text.strip_prefix("Expected: ").and_then(|rest| rest.rsplit_once(", found: ")) else {
        return lower_first(text);
    };
    let expected = expected.strip_prefix("expected ").unwrap_or(expected);
    let plain = expected.chars().any(char::is_alphanumeric);
    let expected = if plain { lower_first(expected) } else { format!("\"{expected}\"") };
    match found {
        "EOF" => format!("expected {expected}, found the end of the statement"),
        found => format!("expected {expected}, found \"{}\"", found.lines().next().unwrap_or("")),
    }
}

/// The text with a lower-case first letter, unless its first word is written in capitals.
pub(crate) fn lower_first(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_place_and_carets() {
        let mut error = SqlError::new("column \"pric\" is not known").with_hint("Did you mean \"price\"?\nOr \"prize\"?");
        error.start = Some(Position { line: 2, column: 8 });
        error.end = Some(Position { line: 2, column: 12 });
        assert_eq!(
            error.render("SELECT a,\n\tsum(, pric)\nFROM t", Some("x.sql"), 10),
            "column \"pric\" is not known\n  --> x.sql:11:8\n    |\n 11 | \tsum(, pric)\n    | \t      ^^^^\n\
             \x20   = hint: Did you mean \"price\"?\n            Or \"prize\"?"
        );
        assert_eq!(SqlError::new("no").render("x", None, 1), "no", "an error without a place prints its message alone");
    }

    #[test]
    fn a_place_without_an_end_covers_its_token() {
        let shown = |text: &str, column| {
            let error = SqlError { start: Some(Position { line: 1, column }), ..SqlError::new("no") };
            error.render(text, None, 1).lines().last().unwrap_or_default().matches('^').count()
        };
        assert_eq!((shown("SELECT nosuch FROM t", 8), shown("SELECT \"no such\"", 8), shown("SELECT 'open", 8)), (6, 9, 1));
        assert_eq!((shown("SELECT 12 + 3", 8), shown("SELECT 12 + 3", 11), shown("SELECT", 7)), (2, 1, 1));
    }

    #[test]
    fn a_place_beyond_the_text_stays_on_it() {
        let mut error = SqlError::new("no");
        error.start = Some(Position { line: 9, column: 99 });
        assert_eq!(error.render("abc", None, 1), "no\n  --> line 9:1\n   |\n 9 | \n   | ^");
    }

    #[test]
    fn reads_the_messages_of_sqlparser() {
        let end = Location::new(4, 2);
        let error =
            SqlError::from_parser(ParserError::ParserError("Expected: an expression, found: FROM at Line: 1, Column: 8".into()), end);
        assert_eq!(error.message, "expected an expression, found \"FROM\"");
        assert_eq!((error.start, error.end), (Some(Position { line: 1, column: 8 }), Some(Position { line: 1, column: 12 })));
        let error = SqlError::from_parser(ParserError::ParserError("Expected: ), found: EOF".into()), end);
        assert_eq!(error.message, "expected \")\", found the end of the statement");
        assert_eq!(error.start, Some(Position { line: 4, column: 2 }));
    }

    #[test]
    fn shifts_only_the_first_line_sideways() {
        let mut error = SqlError::new("no");
        error.start = Some(Position { line: 1, column: 2 });
        error.end = Some(Position { line: 2, column: 3 });
        let shifted = error.shifted(Position { line: 7, column: 10 });
        assert_eq!(shifted.start, Some(Position { line: 7, column: 11 }));
        assert_eq!(shifted.end, Some(Position { line: 8, column: 3 }));
    }
}
