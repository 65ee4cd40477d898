//! Row-wise work on a large delta by several threads. Small deltas stay on the calling thread: a thread costs as much as some
//! thousand rows.

use crate::error::{DataflowError, Result};
use millstream_types::delta::{Delta, DeltaBatch, Weights, num_rows};

/// A further thread takes part for each of so many rows.
const ROWS_PER_THREAD: usize = 16_384;

/// Applies `work`, which treats every row alone, to all parts, of which large ones are divided; the output keeps the order of the
/// input. Parts without rows are left out.
///
/// # Errors
/// The first one in the order of the rows.
pub(crate) fn map_parts(delta: &[DeltaBatch], work: impl Fn(&DeltaBatch) -> Result<DeltaBatch> + Sync) -> Result<Delta> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(num_rows(delta) / ROWS_PER_THREAD);
    let run = |parts: &[DeltaBatch]| -> Result<Delta> {
        let mut output = Vec::with_capacity(parts.len());
        for part in parts.iter().filter(|part| part.num_rows() > 0) {
            output.push(work(part)?);
        }
        output.retain(|part| part.num_rows() > 0);
        Ok(output)
    };
    if threads < 2 {
        return run(delta);
    }
    let shares = divide(delta, threads);
    let results: Vec<Result<Delta>> = std::thread::scope(|scope| {
        let others: Vec<_> = shares[1..].iter().map(|share| scope.spawn(|| run(share))).collect();
        let first = run(&shares[0]);
        let joined = others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|_| Err(DataflowError::internal("a thread that evaluated expressions ended early"))));
        std::iter::once(first).chain(joined).collect()
    });
    let mut output = Vec::new();
    for result in results {
        output.extend(result?);
    }
    Ok(output)
}

/// Consecutive shares with about as many rows each.
fn divide(delta: &[DeltaBatch], shares: usize) -> Vec<Vec<DeltaBatch>> {
    let share_rows = num_rows(delta).div_ceil(shares);
    let mut divided = vec![Vec::new(); shares];
    let mut taken = 0;
    for part in delta {
        let mut start = 0;
        while start < part.num_rows() {
            let share = (taken / share_rows).min(shares - 1);
            let rows = ((share + 1) * share_rows - taken).min(part.num_rows() - start);
            divided[share].push(slice(part, start, rows));
            start += rows;
            taken += rows;
        }
    }
    divided
}

fn slice(part: &DeltaBatch, start: usize, rows: usize) -> DeltaBatch {
    let weights = match &part.weights {
        Weights::Ones => Weights::Ones,
        Weights::I64(weights) => Weights::I64(weights.slice(start, rows)),
    };
    DeltaBatch { batch: part.batch.slice(start, rows), weights }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use std::sync::Arc;

    fn part(values: std::ops::Range<i64>, weighted: bool) -> DeltaBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values.clone()));
        let batch = RecordBatch::try_from_iter([("v", column)]).unwrap();
        match weighted {
            true => DeltaBatch::weighted(batch, Int64Array::from_iter_values(values.map(|value| value % 3 - 1))),
            false => DeltaBatch::insertions(batch),
        }
    }

    #[test]
    fn rows_weights_and_order_are_kept() {
        let rows = |delta: &[DeltaBatch]| -> Vec<(i64, i64)> {
            let of = |part: &DeltaBatch| -> Vec<(i64, i64)> {
                let values = part.batch.column(0).as_primitive::<Int64Type>().clone();
                (0..part.num_rows()).map(|row| (values.value(row), part.weights.value(row))).collect()
            };
            delta.iter().flat_map(of).collect()
        };
        for sizes in [vec![10], vec![0, 70_000, 1], vec![30_000, 5, 40_000, 1_000]] {
            let mut from = 0;
            let delta: Vec<DeltaBatch> = sizes
                .iter()
                .enumerate()
                .map(|(index, size)| {
                    from += size;
                    part(from - size..from, index % 2 == 1)
                })
                .collect();
            let output = map_parts(&delta, |part| Ok(part.clone())).unwrap();
            assert_eq!(rows(&output), rows(&delta), "{sizes:?}");
            assert!(output.iter().all(|part| part.num_rows() > 0));
            for shares in 1..5 {
                assert_eq!(rows(&divide(&delta, shares).concat()), rows(&delta), "{sizes:?} in {shares}");
            }
        }
    }

    #[test]
    fn an_error_of_any_share_is_reported() {
        let delta = [part(0..100_000, false)];
        let failing = map_parts(&delta, |part| match part.batch.column(0).as_primitive::<Int64Type>().values().contains(&99_999) {
            true => Err(DataflowError::internal("the last row")),
            false => Ok(part.clone()),
        });
        assert!(failing.unwrap_err().to_string().contains("the last row"));
    }
}
