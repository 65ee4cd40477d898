//! Change logs for people: `epoch` and `op` are the head of the line.
//!
//! ```text
//! +I 12 | streaming | 1
//! ```

use super::cells::CellFormatter;
use crate::terminal::escape;
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
pub(crate) use millstream_engine::change_log::log_rows;

/// Rows of a change log as lines for people.
///
/// # Errors
/// When a value cannot be shown.
pub(crate) fn lines(log: &RecordBatch, null: &str) -> Result<String, ArrowError> {
    let formatter = CellFormatter::new(log)?;
    let mut text = String::new();
    for row in 0..log.num_rows() {
        let mut cells = formatter.row(row)?.into_iter();
        let epoch = cells.next().flatten().unwrap_or_default();
        let op = cells.next().flatten().unwrap_or_default();
        text.push_str(&format!("{op} {epoch}"));
        for cell in cells {
            text.push_str(" | ");
            text.push_str(&cell.as_deref().map_or(null.into(), escape));
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use millstream_types::{Epoch, Weights};
    use std::sync::Arc;

    fn batch() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("word", Arc::new(StringViewArray::from(vec![Some("a"), Some("b"), Some("a"), None]))),
            ("n", Arc::new(Int64Array::from(vec![1, 5, 2, 7]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn a_weight_of_n_is_n_rows() {
        let weights = Weights::I64(vec![-1, -2, 1, 1].into());
        let log = log_rows(Epoch(12), &batch(), &weights, &[]).unwrap();
        assert_eq!(lines(&log, "NULL").unwrap(), "-D 12 | a | 1\n-D 12 | b | 5\n-D 12 | b | 5\n+I 12 | a | 2\n+I 12 | NULL | 7\n");
    }

    #[test]
    fn a_key_turns_pairs_into_updates() {
        let weights = Weights::I64(vec![-1, -1, 1, 1].into());
        let log = log_rows(Epoch(3), &batch(), &weights, &[0]).unwrap();
        assert_eq!(lines(&log, "∅").unwrap(), "-U 3 | a | 1\n-D 3 | b | 5\n+U 3 | a | 2\n+I 3 | ∅ | 7\n");
        let inserts = log_rows(Epoch(3), &batch(), &Weights::Ones, &[0]).unwrap();
        assert!(lines(&inserts, "").unwrap().starts_with("+I 3 | a | 1\n+I 3 | b | 5\n"));
    }
}
