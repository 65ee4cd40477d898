//! Where two results differ as multisets of rows.

use crate::canonical::Canonical;
use crate::output::cells::CellFormatter;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type};
use std::collections::BTreeMap;

/// How far rounded floating-point values may lie apart: sums that differ in their last bits may be rounded to neighbours.
const TOLERANCE: f64 = 2e-11;

/// A row that one result has more often than the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DifferingRow {
    /// Its values.
    pub(super) text: String,
    /// How often the batch has it.
    pub(super) expected: u64,
    /// How often the view has it.
    pub(super) found: u64,
}

/// A row of a result, and how often it is there more than in the other.
#[derive(Debug)]
struct Leftover<'a> {
    part: &'a Part,
    row: usize,
    surplus: u64,
}

/// A batch with its comparable columns.
#[derive(Debug)]
struct Part {
    batch: RecordBatch,
    columns: Vec<ArrayRef>,
    keys: arrow::row::Rows,
}

/// Counts of a row in both results, and where it stands.
#[derive(Debug)]
struct Counted<'a> {
    expected: u64,
    found: u64,
    part: &'a Part,
    row: usize,
}

/// The rows in which `found` differs from `expected`, sorted; none when they are equal.
///
/// # Errors
/// When the results have other columns.
pub(super) fn difference(expected: &[RecordBatch], found: &[RecordBatch]) -> anyhow::Result<Vec<DifferingRow>> {
    let Some(first) = expected.first().or(found.first()) else { return Ok(Vec::new()) };
    let canonical = Canonical::new(&first.schema())?;
    let parts = |batches: &[RecordBatch]| -> anyhow::Result<Vec<Part>> {
        let part = |batch: &RecordBatch| {
            let columns = canonical.columns(batch.columns())?;
            Ok(Part { batch: batch.clone(), keys: canonical.encode(&columns)?, columns })
        };
        batches.iter().map(part).collect()
    };
    let (expected, found) = (parts(expected)?, parts(found)?);
    let mut counted: BTreeMap<&[u8], Counted<'_>> = BTreeMap::new();
    for (is_expected, parts) in [(true, &expected), (false, &found)] {
        for part in parts {
            for row in 0..part.batch.num_rows() {
                let counts = counted.entry(part.keys.row(row).data()).or_insert(Counted { expected: 0, found: 0, part, row });
                *(if is_expected { &mut counts.expected } else { &mut counts.found }) += 1;
            }
        }
    }
    counted.retain(|_, counts| counts.expected != counts.found);
    let (mut missing, mut extra) = (leftovers(&counted, true), leftovers(&counted, false));
    pair_neighbours(&mut missing, &mut extra)?;
    let mut rows = Vec::new();
    for leftover in missing.iter().chain(&extra).filter(|leftover| leftover.surplus > 0) {
        let counts = &counted[leftover.part.keys.row(leftover.row).data()];
        rows.push(DifferingRow { text: text(leftover.part, leftover.row, |_| true)?, expected: counts.expected, found: counts.found });
    }
    rows.sort();
    Ok(rows)
}

/// The rows that the expected result has more often, or those of the other one.
fn leftovers<'a>(counted: &BTreeMap<&[u8], Counted<'a>>, missing: bool) -> Vec<Leftover<'a>> {
    let surplus = |counts: &Counted<'_>| match missing {
        true => counts.expected.saturating_sub(counts.found),
        false => counts.found.saturating_sub(counts.expected),
    };
    let mut leftovers = Vec::new();
    for counts in counted.values().filter(|counts| surplus(counts) > 0) {
        leftovers.push(Leftover { part: counts.part, row: counts.row, surplus: surplus(counts) });
    }
    leftovers
}

/// Takes away rows that differ in the last digits of floating-point values only.
fn pair_neighbours(missing: &mut [Leftover<'_>], extra: &mut [Leftover<'_>]) -> anyhow::Result<()> {
    if !missing.first().is_some_and(|leftover| leftover.part.columns.iter().any(is_float)) {
        return Ok(());
    }
    let mut alike: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, found) in extra.iter().enumerate() {
        alike.entry(text(found.part, found.row, |column| !is_float(column))?).or_default().push(index);
    }
    for expected in missing {
        let Some(candidates) = alike.get(&text(expected.part, expected.row, |column| !is_float(column))?) else { continue };
        for &index in candidates {
            let found = &mut extra[index];
            if expected.surplus > 0 && found.surplus > 0 && are_neighbours(expected, found) {
                let pairs = expected.surplus.min(found.surplus);
                expected.surplus -= pairs;
                found.surplus -= pairs;
            }
        }
    }
    Ok(())
}

fn is_float(column: &ArrayRef) -> bool {
    column.data_type() == &DataType::Float64
}

fn are_neighbours(a: &Leftover<'_>, b: &Leftover<'_>) -> bool {
    a.part.columns.iter().zip(&b.part.columns).all(|(left, right)| {
        if !is_float(left) || left.is_null(a.row) || right.is_null(b.row) {
            return left.slice(a.row, 1).as_ref() == right.slice(b.row, 1).as_ref();
        }
        let (left, right) = (left.as_primitive::<Float64Type>().value(a.row), right.as_primitive::<Float64Type>().value(b.row));
        left == right || left.is_nan() && right.is_nan() || (left - right).abs() <= TOLERANCE * left.abs().max(right.abs())
    })
}

/// The values of the columns that are wanted.
fn text(part: &Part, row: usize, wanted: impl Fn(&ArrayRef) -> bool) -> anyhow::Result<String> {
    let cells = CellFormatter::new(&part.batch)?.row(row)?;
    let wanted = cells.into_iter().zip(&part.columns).filter(|(_, column)| wanted(column)).map(|(cell, _)| cell);
    Ok(wanted.map(|cell| cell.unwrap_or_else(|| "NULL".into())).collect::<Vec<_>>().join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array};
    use std::sync::Arc;

    fn batch(rows: &[(i64, f64)]) -> RecordBatch {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
        let values: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.1)));
        RecordBatch::try_from_iter([("k", keys), ("v", values)]).unwrap()
    }

    fn differing(expected: &[(i64, f64)], found: &[(i64, f64)]) -> Vec<(String, u64, u64)> {
        let rows = difference(&[batch(expected)], &[batch(found)]).unwrap();
        rows.into_iter().map(|row| (row.text, row.expected, row.found)).collect()
    }

    #[test]
    fn multiplicities_count_and_order_does_not() {
        assert!(differing(&[(1, 0.5), (2, 1.0), (2, 1.0)], &[(2, 1.0), (1, 0.5), (2, 1.0)]).is_empty());
        assert_eq!(differing(&[(1, 0.5), (1, 0.5)], &[(1, 0.5), (3, 0.0)]), [("1|0.5".into(), 2, 1), ("3|0.0".into(), 0, 1)]);
        assert!(difference(&[], &[batch(&[])]).unwrap().is_empty());
    }

    #[test]
    fn values_that_are_rounded_to_neighbours_are_the_same() {
        let middle: f64 = 1.000_000_000_005;
        let (low, high) = (middle.next_down().next_down(), middle.next_up().next_up());
        assert!(differing(&[(1, low)], &[(1, high)]).is_empty());
        assert_eq!(differing(&[(1, low)], &[(2, high)]).len(), 2);
        assert_eq!(differing(&[(1, 1.0)], &[(1, 1.000_000_1)]).len(), 2);
    }
}
