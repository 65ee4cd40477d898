//! Dividing the rows of a change among threads.

use millstream_types::delta::{Delta, DeltaBatch, Weights, num_rows};

/// A thread is not worth waking for fewer rows.
const PIECE_ROWS: usize = 8_192;

/// The rows in order, cut into at most `pieces` runs of about equal size; fewer where there are few rows, and never none.
pub(crate) fn divided(delta: &[DeltaBatch], pieces: usize) -> Vec<Delta> {
    let rows = num_rows(delta);
    let pieces = pieces.min(rows / PIECE_ROWS).max(1);
    if pieces == 1 {
        return vec![delta.to_vec()];
    }
    let size = rows.div_ceil(pieces);
    let mut result: Vec<Delta> = vec![vec![]];
    let mut space = size;
    for part in delta {
        let mut from = 0;
        while from < part.num_rows() {
            if space == 0 {
                result.push(vec![]);
                space = size;
            }
            let length = space.min(part.num_rows() - from);
            result.last_mut().into_iter().for_each(|piece| piece.push(slice(part, from, length)));
            from += length;
            space -= length;
        }
    }
    result
}

fn slice(part: &DeltaBatch, from: usize, length: usize) -> DeltaBatch {
    let weights = match &part.weights {
        Weights::Ones => Weights::Ones,
        Weights::I64(weights) => Weights::I64(weights.slice(from, length)),
    };
    DeltaBatch { batch: part.batch.slice(from, length), weights }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use std::sync::Arc;

    fn part(values: std::ops::Range<i64>) -> DeltaBatch {
        let column = Int64Array::from_iter_values(values);
        let batch = RecordBatch::try_from_iter([("v", Arc::new(column.clone()) as ArrayRef)]).expect("one column");
        DeltaBatch::weighted(batch, column)
    }

    #[test]
    fn pieces_are_even_and_keep_order_and_weights() {
        let pieces = divided(&[part(0..10_000), part(10_000..10_001), part(10_001..40_000)], 3);
        assert_eq!(pieces.iter().map(|piece| num_rows(piece)).collect::<Vec<_>>(), [13_334, 13_334, 13_332]);
        let mut expected = 0;
        for part in pieces.iter().flatten() {
            for (row, value) in part.batch.column(0).as_primitive::<Int64Type>().values().iter().enumerate() {
                assert_eq!((*value, part.weights.value(row)), (expected, expected));
                expected += 1;
            }
        }
        assert_eq!(expected, 40_000);
    }

    #[test]
    fn few_rows_stay_together() {
        assert_eq!(divided(&[part(0..100)], 4).len(), 1);
        assert_eq!(divided(&[], 4).len(), 1);
    }
}
