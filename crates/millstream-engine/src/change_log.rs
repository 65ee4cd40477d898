//! Changes as rows: each with its epoch and what happened.
//!
//! `+I` a row came, `-D` a row went, `-U` and `+U` the old and the new row of a key, `=` everything of the epoch has come. A change of
//! weight n is n rows. The columns `epoch` and `op` come first:
//!
//! ```text
//!  epoch | op | word      | n
//!     12 | +I | streaming | 1
//!     12 | =  | NULL      | NULL
//! ```

use crate::subscription::Change;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use millstream_types::row_key::RowKeyEncoder;
use millstream_types::{Epoch, Weights};
use std::collections::HashMap;
use std::sync::Arc;

/// The schema of a change log over rows of `schema`. Its columns may be NULL: a mark of progress has none.
pub fn log_schema(schema: &Schema) -> SchemaRef {
    let head = [Field::new("epoch", DataType::Int64, false), Field::new("op", DataType::Utf8, false)];
    let columns = schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    Arc::new(Schema::new(head.into_iter().map(Arc::new).chain(columns).collect::<Vec<_>>()))
}

impl Change {
    /// The change as rows of a change log; a mark of progress is one row.
    ///
    /// # Errors
    /// When a batch is too large to be indexed.
    pub fn log_rows(&self) -> Result<RecordBatch, ArrowError> {
        match self.progress {
            true => progress_row(self.epoch, &self.batch.schema()),
            false => log_rows(self.epoch, &self.batch, &self.weights, &[]),
        }
    }
}

/// The mark that everything of an epoch has come.
fn progress_row(epoch: Epoch, schema: &Schema) -> Result<RecordBatch, ArrowError> {
    let head: [ArrayRef; 2] = [Arc::new(Int64Array::from(vec![number(epoch)])), Arc::new(StringArray::from(vec!["="]))];
    let nulls = schema.fields().iter().map(|field| new_null_array(field.data_type(), 1));
    RecordBatch::try_new(log_schema(schema), head.into_iter().chain(nulls).collect())
}

fn number(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}

/// The changes of one epoch as rows with `epoch` and `op`. `key` gives the columns that identify a row, where the query
/// has such: a retraction and an insertion of one key are then an update.
///
/// # Errors
/// When a key cannot be encoded (none of SQL's types).
pub fn log_rows(epoch: Epoch, batch: &RecordBatch, weights: &Weights, key: &[usize]) -> Result<RecordBatch, ArrowError> {
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
    let epochs: ArrayRef = Arc::new(Int64Array::from_value(number(epoch), ops.len()));
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
