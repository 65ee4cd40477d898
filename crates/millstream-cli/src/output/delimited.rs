//! CSV and TSV.
//!
//! CSV follows RFC 4180 with `\n` line ends; NULL is an empty field and an empty text is `""`, so that the two stay
//! apart. TSV has the escapes of PostgreSQL's COPY text format: `\t`, `\n`, `\r`, `\\`, and `\N` for NULL.

use super::cells::CellFormatter;
use crate::terminal::escape_keeping_lines;
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use std::borrow::Cow;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delimiter {
    /// CSV.
    Comma,
    /// TSV.
    Tab,
}

/// One record with its line end. Control characters are escaped for a terminal.
pub(crate) fn record<'a>(delimiter: Delimiter, fields: impl IntoIterator<Item = Option<&'a str>>, terminal: bool) -> String {
    let mut line = String::new();
    for (index, field) in fields.into_iter().enumerate() {
        if index > 0 {
            line.push(if delimiter == Delimiter::Comma { ',' } else { '\t' });
        }
        match (delimiter, field) {
            (Delimiter::Comma, None) => {}
            (Delimiter::Comma, Some(text)) => push_csv(&mut line, &safe(text, terminal)),
            (Delimiter::Tab, None) => line.push_str("\\N"),
            (Delimiter::Tab, Some(text)) => push_tsv(&mut line, text, terminal),
        }
    }
    line.push('\n');
    line
}

/// The rows of a batch as records, each after the `prefix` fields that belong to it.
///
/// # Errors
/// When a value cannot be shown.
pub(crate) fn rows(
    delimiter: Delimiter,
    batch: &RecordBatch,
    terminal: bool,
    prefix: impl Fn(usize) -> Vec<String>,
) -> Result<String, ArrowError> {
    let formatter = CellFormatter::new(batch)?;
    let mut text = String::new();
    for index in 0..batch.num_rows() {
        let prefix = prefix(index);
        let row = formatter.row(index)?;
        let fields = prefix.iter().map(|field| Some(field.as_str())).chain(row.iter().map(Option::as_deref));
        text.push_str(&record(delimiter, fields, terminal));
    }
    Ok(text)
}

fn safe(text: &str, terminal: bool) -> Cow<'_, str> {
    if terminal { escape_keeping_lines(text) } else { Cow::Borrowed(text) }
}

fn push_csv(line: &mut String, text: &str) {
    let quoted = text.is_empty() || text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ');
    if !quoted {
        line.push_str(text);
        return;
    }
    line.push('"');
    line.push_str(&text.replace('"', "\"\""));
    line.push('"');
}

fn push_tsv(line: &mut String, text: &str, terminal: bool) {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            other => escaped.push(other),
        }
    }
    line.push_str(&safe(&escaped, terminal));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_quotes_what_needs_quotes() {
        let fields = [Some("a"), Some("b,c"), Some("say \"hi\""), Some(""), None, Some("two\nlines"), Some(" x")];
        assert_eq!(record(Delimiter::Comma, fields, false), "a,\"b,c\",\"say \"\"hi\"\"\",\"\",,\"two\nlines\",\" x\"\n");
    }

    #[test]
    fn tsv_escapes_like_copy() {
        assert_eq!(record(Delimiter::Tab, [Some("a\tb\\c\n"), None, Some("")], false), "a\\tb\\\\c\\n\t\\N\t\n");
    }

    #[test]
    fn only_a_terminal_gets_escapes() {
        assert_eq!(record(Delimiter::Comma, [Some("\x1b[1m")], false), "\x1b[1m\n");
        assert_eq!(record(Delimiter::Comma, [Some("\x1b[1m")], true), "\\x1b[1m\n");
    }
}
