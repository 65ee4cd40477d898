//! Changes as rows: each with its epoch and what happened.
//!
//! `+I` a row came, `-D` a row went, `-U` and `+U` the old and the new row of a key. A change of weight n is n rows. The
//! columns `epoch` and `op` come first in every format; in a change log for people they are the head of the line:
//!
//! ```text
//! +I 12 | streaming | 1
//! ```

use super::cells::CellFormatter;
use crate::terminal::escape;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use millstream_types::row_key::RowKeyEncoder;
use millstream_types::{Epoch, Weights};
use std::collections::HashMap;
use std::sync::Arc;

/// The schema of a change log over rows of `schema`.
pub(crate) fn log_schema(schema: &Schema) -> SchemaRef {
    let head = [Field::new("epoch", DataType::Int64, false), Field::new("op", DataType::Utf8, false)];
    Arc::new(Schema::new(head.into_iter().map(Arc::new).chain(schema.fields().iter().cloned()).collect::<Vec<_>>()))
}

/// The changes of one epoch as rows with `epoch` and `op`. `key` gives the columns that identify a row, where the query
/// has such: a retraction and an insertion of one key are then an update.
///
/// # Errors
/// When a key cannot be encoded (none of SQL's types).
pub(crate) fn log_rows(epoch: Epoch, batch: &RecordBatch, weights: &Weights, key: &[usize]) -> Result<RecordBatch, ArrowError> {
    let updated = updated_rows(batch, weights, key)?;
    let mut indices: Vec<u32> = Vec::with_capacity(batch.num_rows());
    let mut ops: Vec<&'static str> = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let weight = weights.value(row);
        let op = match (weight > 0, updated.get(row).copied().unwrap_or(false)) {
            (true, false) => "+I",
            (true, true) => "+U",
            (false, false) => "-D",
            (false, true) => "-U",
        };
        for _ in 0..weight.unsigned_abs() {
            indices.push(u32::try_from(row).map_err(|_| ArrowError::InvalidArgumentError("a batch has more than 2^32 rows".into()))?);
            ops.push(op);
        }
    }
    let rows = take_record_batch(batch, &UInt32Array::from(indices))?;
    let number = i64::try_from(epoch.0).unwrap_or(i64::MAX);
    let epochs: ArrayRef = Arc::new(Int64Array::from_value(number, ops.len()));
    let ops: ArrayRef = Arc::new(StringArray::from(ops));
    let columns = [epochs, ops].into_iter().chain(rows.columns().iter().cloned()).collect();
    RecordBatch::try_new(log_schema(&batch.schema()), columns)
}

/// Per row: its key is both retracted and inserted. Empty when there is no key.
fn updated_rows(batch: &RecordBatch, weights: &Weights, key: &[usize]) -> Result<Vec<bool>, ArrowError> {
    if key.is_empty() || matches!(weights, Weights::Ones) {
        return Ok(Vec::new());
    }
    let columns: Vec<ArrayRef> = key.iter().map(|&index| Arc::clone(batch.column(index))).collect();
    let encoder = RowKeyEncoder::new(columns.iter().map(|column| column.data_type().clone()))?;
    let keys = encoder.encode(&columns)?;
    let mut signs: HashMap<Vec<u8>, (bool, bool)> = HashMap::new();
    for row in 0..batch.num_rows() {
        let sign = signs.entry(keys.row(row).as_ref().to_vec()).or_default();
        if weights.value(row) > 0 {
            sign.0 = true;
        } else {
            sign.1 = true;
        }
    }
    Ok((0..batch.num_rows()).map(|row| signs.get(keys.row(row).as_ref()) == Some(&(true, true))).collect())
}

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
    use arrow::array::StringViewArray;

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
