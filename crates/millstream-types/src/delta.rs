//! Weighted batches: the changes of a relation in one epoch.
//!
//! A relation is a Z-set: every row has a signed weight. A [`DeltaBatch`] is a `RecordBatch` with one weight per row
//! *beside* it, never as a column: a plan that DataFusion optimizes would drop or misuse it. Append-only data carries
//! [`Weights::Ones`], for which no array is allocated, filtered or multiplied.

use crate::row_key::{RowKeyEncoder, types_of};
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use hashbrown::HashTable;
use std::sync::Arc;

/// The weights of a batch's rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Weights {
    /// Every row counts once: append-only data.
    Ones,
    /// One weight per row, not null; negative weights take rows away.
    I64(Int64Array),
}

impl Weights {
    /// The weight of row `index`.
    pub fn value(&self, index: usize) -> i64 {
        match self {
            Weights::Ones => 1,
            Weights::I64(weights) => weights.value(index),
        }
    }

    /// The weights as an array of `len` values.
    pub fn to_array(&self, len: usize) -> Int64Array {
        match self {
            Weights::Ones => Int64Array::from_value(1, len),
            Weights::I64(weights) => weights.clone(),
        }
    }
}

/// Rows with weights; the unit operators exchange.
#[derive(Clone, Debug)]
pub struct DeltaBatch {
    /// The rows.
    pub batch: RecordBatch,
    /// One weight per row.
    pub weights: Weights,
}

/// The change of one relation in one epoch. May contain cancelling rows until it is [consolidated](consolidate).
pub type Delta = Vec<DeltaBatch>;

impl DeltaBatch {
    /// Rows that are added once each.
    pub fn insertions(batch: RecordBatch) -> Self {
        Self { batch, weights: Weights::Ones }
    }

    /// Rows with the given weights.
    pub fn weighted(batch: RecordBatch, weights: Int64Array) -> Self {
        debug_assert_eq!(batch.num_rows(), weights.len());
        Self { batch, weights: Weights::I64(weights) }
    }

    /// Number of rows, whatever their weights.
    pub fn num_rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The rows where `mask` is true.
    ///
    /// # Errors
    /// When the mask has another length.
    pub fn filter(&self, mask: &BooleanArray) -> Result<DeltaBatch, ArrowError> {
        let batch = filter_record_batch(&self.batch, mask)?;
        let weights = match &self.weights {
            Weights::Ones => Weights::Ones,
            Weights::I64(weights) => Weights::I64(
                arrow::compute::filter(weights, mask)?.as_any().downcast_ref::<Int64Array>().expect("filter keeps the type").clone(),
            ),
        };
        Ok(DeltaBatch { batch, weights })
    }

    /// The rows at `indices`.
    ///
    /// # Errors
    /// When an index is out of bounds.
    pub fn take(&self, indices: &UInt32Array) -> Result<DeltaBatch, ArrowError> {
        let batch = take_rows(&self.batch, indices)?;
        let weights = match &self.weights {
            Weights::Ones => Weights::Ones,
            Weights::I64(weights) => {
                Weights::I64(take(weights, indices, None)?.as_any().downcast_ref::<Int64Array>().expect("take keeps the type").clone())
            }
        };
        Ok(DeltaBatch { batch, weights })
    }

    /// The same rows with the opposite weights.
    #[must_use]
    pub fn negated(&self) -> DeltaBatch {
        let weights = match &self.weights {
            Weights::Ones => Int64Array::from_value(-1, self.num_rows()),
            Weights::I64(weights) => weights.unary(|weight| -weight),
        };
        DeltaBatch { batch: self.batch.clone(), weights: Weights::I64(weights) }
    }

    /// The same weights beside other columns of as many rows.
    #[must_use]
    pub fn with_batch(&self, batch: RecordBatch) -> DeltaBatch {
        debug_assert_eq!(batch.num_rows(), self.num_rows());
        DeltaBatch { batch, weights: self.weights.clone() }
    }

    /// Every row repeated by its weight: the relation itself, as a batch engine sees it.
    ///
    /// # Errors
    /// When a weight is negative (a row was taken away that never was there).
    pub fn expanded(&self) -> Result<RecordBatch, ArrowError> {
        let Weights::I64(weights) = &self.weights else { return Ok(self.batch.clone()) };
        let mut indices = Vec::with_capacity(weights.len());
        for (index, &weight) in weights.values().iter().enumerate() {
            let count = usize::try_from(weight)
                .map_err(|_| ArrowError::InvalidArgumentError(format!("row {index} has the negative weight {weight}")))?;
            indices.extend(std::iter::repeat_n(index as u32, count));
        }
        take_rows(&self.batch, &UInt32Array::from(indices))
    }
}

/// Number of rows in a delta, whatever their weights.
pub fn num_rows(delta: &[DeltaBatch]) -> usize {
    delta.iter().map(DeltaBatch::num_rows).sum()
}

/// Whether every batch is append-only by construction.
pub fn is_append_only(delta: &[DeltaBatch]) -> bool {
    delta.iter().all(|batch| batch.weights == Weights::Ones)
}

/// All batches of a delta as one.
///
/// # Errors
/// When the schemas differ.
pub fn concat(schema: &SchemaRef, delta: &[DeltaBatch]) -> Result<DeltaBatch, ArrowError> {
    if let [single] = delta {
        return Ok(single.clone());
    }
    let batch = concat_batches(schema, delta.iter().map(|part| &part.batch))?;
    if is_append_only(delta) {
        return Ok(DeltaBatch::insertions(batch));
    }
    let mut weights = Vec::with_capacity(batch.num_rows());
    for part in delta {
        match &part.weights {
            Weights::Ones => weights.extend(std::iter::repeat_n(1, part.num_rows())),
            Weights::I64(values) => weights.extend_from_slice(values.values()),
        }
    }
    Ok(DeltaBatch::weighted(batch, weights.into()))
}

/// Adds up the weights of equal rows and drops those that cancel. The first occurrence of a row stands for it, so the
/// order of what is left follows the input. Retractions (negative weights) come first.
///
/// # Errors
/// When a sum of weights overflows 64 bits or the schemas differ.
pub fn consolidate(schema: &SchemaRef, delta: &[DeltaBatch]) -> Result<Delta, ArrowError> {
    if delta.is_empty() || is_append_only(delta) {
        return Ok(delta.to_vec());
    }
    let all = concat(schema, delta)?;
    let weights = all.weights.to_array(all.num_rows());
    let encoder = RowKeyEncoder::new(types_of(schema.fields()))?;
    let columns: Vec<ArrayRef> = all.batch.columns().to_vec();
    let (first, sums) = if columns.is_empty() {
        // Rows without columns are all equal.
        (vec![0u32], vec![weights.values().iter().sum::<i64>()])
    } else {
        let rows = encoder.encode(&columns)?;
        let mut table: HashTable<(u64, u32)> = HashTable::with_capacity(all.num_rows());
        let mut first: Vec<u32> = Vec::with_capacity(all.num_rows());
        let mut sums: Vec<i64> = Vec::with_capacity(all.num_rows());
        for (index, row) in rows.iter().enumerate() {
            let hash = xxhash_rust::xxh3::xxh3_64(row.as_ref());
            let entry =
                table.entry(hash, |(other, group)| *other == hash && rows.row(first[*group as usize] as usize) == row, |(hash, _)| *hash);
            let weight = weights.value(index);
            match entry {
                hashbrown::hash_table::Entry::Occupied(found) => {
                    let sum = &mut sums[found.get().1 as usize];
                    *sum = sum
                        .checked_add(weight)
                        .ok_or_else(|| ArrowError::ArithmeticOverflow("the multiplicity of a row exceeds 64 bits".into()))?;
                }
                hashbrown::hash_table::Entry::Vacant(vacant) => {
                    vacant.insert((hash, first.len() as u32));
                    first.push(index as u32);
                    sums.push(weight);
                }
            }
        }
        (first, sums)
    };
    let mut kept: Vec<(u32, i64)> = first.into_iter().zip(sums).filter(|(_, sum)| *sum != 0).collect();
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    kept.sort_by_key(|(_, sum)| *sum > 0);
    let indices = UInt32Array::from_iter_values(kept.iter().map(|(index, _)| *index));
    let batch = take_rows(&all.batch, &indices)?;
    let weights = if kept.iter().all(|(_, sum)| *sum == 1) {
        Weights::Ones
    } else {
        Weights::I64(Int64Array::from_iter_values(kept.iter().map(|(_, sum)| *sum)))
    };
    Ok(vec![DeltaBatch { batch, weights }])
}

/// The rows at `indices`; works for batches without columns too, unlike arrow's `take_record_batch`.
fn take_rows(batch: &RecordBatch, indices: &UInt32Array) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| take(column, indices, None)).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

/// An empty batch of a schema, for operators that must hand out something.
pub fn empty_batch(schema: &SchemaRef) -> RecordBatch {
    RecordBatch::new_empty(Arc::clone(schema))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};

    fn batch(values: &[i32]) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int32Array::from(values.to_vec()))]).unwrap()
    }

    #[test]
    fn consolidation_cancels_and_puts_retractions_first() {
        let delta =
            vec![DeltaBatch::insertions(batch(&[1, 2, 3, 3])), DeltaBatch::weighted(batch(&[2, 4]), Int64Array::from(vec![-1, -2]))];
        let result = consolidate(&delta[0].batch.schema(), &delta).unwrap();
        assert_eq!(result.len(), 1);
        assert_eq!(result[0].batch.column(0).as_primitive::<Int32Type>().values(), &[4, 1, 3]);
        assert_eq!(result[0].weights, Weights::I64(Int64Array::from(vec![-2, 1, 2])));
    }

    #[test]
    fn expansion_repeats_rows_and_refuses_negative_weights() {
        let delta = DeltaBatch::weighted(batch(&[7, 8, 9]), Int64Array::from(vec![2, 0, 1]));
        assert_eq!(delta.expanded().unwrap().column(0).as_primitive::<Int32Type>().values(), &[7, 7, 9]);
        assert!(delta.negated().expanded().is_err());
    }
}
