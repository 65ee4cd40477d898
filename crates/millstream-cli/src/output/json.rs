//! JSON: one array of objects, or one object per line. Numbers are exact, timestamps RFC 3339, NULL is `null`.
//!
//! JSON text escapes control characters below 0x20 itself; the rest is escaped for a terminal as `\uXXXX`, which is
//! still the same JSON.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, WriterBuilder};

/// The rows of a batch, one object per line.
///
/// # Errors
/// When a column has a type JSON cannot carry.
pub(crate) fn lines(batch: &RecordBatch, terminal: bool) -> Result<String, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut bytes);
    writer.write(batch)?;
    writer.finish()?;
    let text = String::from_utf8(bytes).map_err(|error| ArrowError::JsonError(error.to_string()))?;
    Ok(if terminal { escape_for_terminal(&text) } else { text })
}

/// Control and reordering characters of a JSON text as `\uXXXX`; they occur inside strings only, line ends excepted.
fn escape_for_terminal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        let unsafe_here = c != '\n' && crate::terminal::escape(c.encode_utf8(&mut [0; 4])).len() != c.len_utf8();
        if unsafe_here {
            escaped.push_str(&format!("\\u{:04x}", c as u32));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use std::sync::Arc;

    #[test]
    fn objects_are_exact_and_explicit() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int64Array::from(vec![Some(9_007_199_254_740_993), None]))),
            ("s", Arc::new(StringViewArray::from(vec!["a\u{7f}\u{1b}\n", "ä"]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let text = lines(&batch, true).unwrap();
        assert_eq!(text, "{\"n\":9007199254740993,\"s\":\"a\\u007f\\u001b\\n\"}\n{\"n\":null,\"s\":\"ä\"}\n");
    }
}
