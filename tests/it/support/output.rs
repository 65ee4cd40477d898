//! Rows as text: `a|b|c`, NULL as `NULL`, an empty string as `(empty)`.

use arrow::array::{Array, RecordBatch};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// One line per row.
///
/// # Errors
/// When a type has no text form.
pub(crate) fn rows(batches: &[RecordBatch]) -> Result<Vec<String>, ArrowError> {
    let options = FormatOptions::new().with_null("NULL").with_display_error(false);
    let mut lines = Vec::new();
    for batch in batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).map(|formatter| (column, formatter)))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(columns.len());
            for (column, formatter) in &columns {
                let text = formatter.value(row).try_to_string()?;
                cells.push(cell(text, column.is_null(row)));
            }
            lines.push(cells.join("|"));
        }
    }
    Ok(lines)
}

/// Keeps a value on one line and an empty one visible.
fn cell(text: String, null: bool) -> String {
    match text.as_str() {
        "" if !null => "(empty)".to_string(),
        _ => text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('|', "\\|"),
    }
}

/// The lines in order of their text.
pub(crate) fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// What differs between two lists of lines, for a person: ` ` both, `-` expected only, `+` found only.
pub(crate) fn difference(expected: &[String], found: &[String]) -> String {
    // Longest common subsequence: the lists of a test are short.
    let (n, m) = (expected.len(), found.len());
    let mut length = vec![vec![0usize; m + 1]; n + 1];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            length[i][j] = if expected[i] == found[j] { length[i + 1][j + 1] + 1 } else { length[i + 1][j].max(length[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < n || j < m {
        if i < n && j < m && expected[i] == found[j] {
            text += &format!("    {}\n", expected[i]);
            (i, j) = (i + 1, j + 1);
        } else if i < n && (j == m || length[i + 1][j] >= length[i][j + 1]) {
            text += &format!("  - {}\n", expected[i]);
            i += 1;
        } else {
            text += &format!("  + {}\n", found[j]);
            j += 1;
        }
    }
    text
}
