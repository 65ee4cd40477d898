//! Weights become `op` values.
//!
//! ```text
//!   with a key, per key:   old -1, new +1   ─►  -U old, +U new          without a key:   -1 ─► -D,   +1 ─► +I
//!                          old -1           ─►  -D old                  all -D come before all +I
//!                          new +1           ─►  +I new                  a weight of n is n rows
//! ```
//! Keys stay in the order in which they first appear, retractions of a key before its insertions.

use super::arrow_error;
use super::layout::{Layout, rows_of};
use crate::error::Result;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Schema;
use millstream_types::row_key::{RowKeyEncoder, types_of};
use millstream_types::{DeltaBatch, Epoch, Weights, delta};
use std::collections::HashMap;
use std::sync::Arc;

const INSERT: &str = "+I";
const DELETE: &str = "-D";
const UPDATE_BEFORE: &str = "-U";
const UPDATE_AFTER: &str = "+U";

/// The rows of a changelog file for the changes of one epoch.
pub(crate) fn rows(layout: &Layout, epoch: Epoch, changes: &[DeltaBatch]) -> Result<Vec<RecordBatch>> {
    if delta::is_append_only(changes) {
        return changes.iter().map(|change| with_ops(layout, epoch, &change.batch, vec![INSERT; change.num_rows()])).collect();
    }
    let query = Arc::new(Schema::new(layout.output.fields()[..layout.output.fields().len() - 2].to_vec()));
    let changes: Vec<DeltaBatch> = changes
        .iter()
        .map(|change| Ok(change.with_batch(rows_of(&query, change.batch.columns().to_vec(), change.num_rows())?)))
        .collect::<Result<_>>()?;
    let all = delta::concat(&query, &changes).map_err(arrow_error("merging the changes of an epoch failed"))?;
    let (indices, ops) = match layout.key.is_empty() {
        true => without_key(&all.weights, all.num_rows()),
        false => with_key(&keys(layout, &all)?, &all.weights),
    };
    let batch =
        take_record_batch(&all.batch, &UInt32Array::from(indices)).map_err(arrow_error("ordering the changes of an epoch failed"))?;
    Ok(vec![with_ops(layout, epoch, &batch, ops)?])
}

fn with_ops(layout: &Layout, epoch: Epoch, batch: &RecordBatch, ops: Vec<&str>) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    columns.push(Arc::new(StringViewArray::from_iter_values(ops)));
    columns.push(Arc::new(Int64Array::from_value(i64::try_from(epoch.0).unwrap_or(i64::MAX), rows)));
    rows_of(&layout.output, columns, rows)
}

/// The number of each row's key, in the order of first appearance.
fn keys(layout: &Layout, all: &DeltaBatch) -> Result<Vec<usize>> {
    let columns: Vec<ArrayRef> = layout.key.iter().map(|column| Arc::clone(all.batch.column(*column))).collect();
    let fields = layout.key.iter().map(|column| &layout.output.fields()[*column]);
    let failed = || arrow_error("encoding the keys of changes failed");
    let rows = RowKeyEncoder::new(types_of(fields)).map_err(failed())?.encode(&columns).map_err(failed())?;
    let mut numbers: HashMap<Vec<u8>, usize> = HashMap::with_capacity(rows.num_rows());
    Ok(rows
        .iter()
        .map(|row| {
            let next = numbers.len();
            *numbers.entry(row.as_ref().to_vec()).or_insert(next)
        })
        .collect())
}

fn without_key(weights: &Weights, rows: usize) -> (Vec<u32>, Vec<&'static str>) {
    let (mut indices, mut ops) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    for (retractions, op) in [(true, DELETE), (false, INSERT)] {
        for row in 0..rows {
            let weight = weights.value(row);
            if (weight < 0) == retractions {
                repeat(&mut indices, &mut ops, row, weight.unsigned_abs(), op);
            }
        }
    }
    (indices, ops)
}

fn with_key(keys: &[usize], weights: &Weights) -> (Vec<u32>, Vec<&'static str>) {
    let count = keys.iter().max().map_or(0, |last| last + 1);
    // Rows of each key: a linked list per key, so that nothing is allocated per key.
    let mut heads: Vec<Option<usize>> = vec![None; count];
    let mut tails: Vec<usize> = vec![0; count];
    let mut next: Vec<Option<usize>> = vec![None; keys.len()];
    for (row, &key) in keys.iter().enumerate() {
        match heads[key] {
            None => heads[key] = Some(row),
            Some(_) => next[tails[key]] = Some(row),
        }
        tails[key] = row;
    }
    let (mut indices, mut ops) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
    for head in heads {
        let members = || std::iter::successors(head, |row| next[*row]);
        let total = |negative: bool| -> u64 {
            members().map(|row| weights.value(row)).filter(|weight| (*weight < 0) == negative).map(i64::unsigned_abs).sum()
        };
        // As many retractions as have an insertion to go with them are updates.
        let updates = total(true).min(total(false));
        for (negative, update, other) in [(true, UPDATE_BEFORE, DELETE), (false, UPDATE_AFTER, INSERT)] {
            let mut left = updates;
            for row in members() {
                let weight = weights.value(row);
                if (weight < 0) != negative {
                    continue;
                }
                let paired = left.min(weight.unsigned_abs());
                left -= paired;
                repeat(&mut indices, &mut ops, row, paired, update);
                repeat(&mut indices, &mut ops, row, weight.unsigned_abs() - paired, other);
            }
        }
    }
    (indices, ops)
}

fn repeat(indices: &mut Vec<u32>, ops: &mut Vec<&'static str>, row: usize, count: u64, op: &'static str) {
    for _ in 0..count {
        indices.push(row as u32);
        ops.push(op);
    }
}
