//! Rows of two engines, compared as multisets.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Sums of floats that are not exact may differ by this share.
const RELATIVE_TOLERANCE: f64 = 1e-9;

/// One value of a result.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Null,
    /// Everything but floats: equal as text.
    Text(String),
    Float(f64),
}

/// One row of a result.
pub(super) type Cells = Vec<Cell>;

impl Cell {
    fn same(&self, other: &Cell) -> bool {
        match (self, other) {
            (Cell::Float(a), Cell::Float(b)) => {
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= RELATIVE_TOLERANCE * a.abs().max(b.abs())
            }
            (Cell::Text(a), Cell::Text(b)) => a == b,
            (Cell::Null, Cell::Null) => true,
            _ => false,
        }
    }

    fn order(&self, other: &Cell) -> Ordering {
        let rank = |cell: &Cell| match cell {
            Cell::Null => 0,
            Cell::Text(_) => 1,
            Cell::Float(_) => 2,
        };
        match (self, other) {
            (Cell::Text(a), Cell::Text(b)) => a.cmp(b),
            // NaN last, one zero.
            (Cell::Float(a), Cell::Float(b)) => {
                a.is_nan().cmp(&b.is_nan()).then_with(|| (a + 0.0).partial_cmp(&(b + 0.0)).unwrap_or(Ordering::Equal))
            }
            _ => rank(self).cmp(&rank(other)),
        }
    }

    /// Whether it is NULL.
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Cell::Null)
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Null => f.write_str("NULL"),
            Cell::Text(text) if text.is_empty() => f.write_str("(empty)"),
            Cell::Text(text) => f.write_str(text),
            Cell::Float(value) if value.is_nan() => f.write_str("NaN"),
            // One zero.
            Cell::Float(value) => write!(f, "{:?}", value + 0.0),
        }
    }
}

/// The rows of batches.
pub(super) fn cells(batches: &[RecordBatch]) -> Vec<Cells> {
    let options = FormatOptions::new();
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cell = |column: &dyn Array| {
                if column.is_null(row) {
                    return Cell::Null;
                }
                match column.data_type() {
                    DataType::Float64 => Cell::Float(column.as_primitive::<Float64Type>().value(row)),
                    DataType::Float32 => Cell::Float(f64::from(column.as_primitive::<Float32Type>().value(row))),
                    _ => {
                        let formatter = ArrayFormatter::try_new(column, &options).expect("every SQL type has a text form");
                        Cell::Text(formatter.value(row).to_string())
                    }
                }
            };
            rows.push(batch.columns().iter().map(|column| cell(column.as_ref())).collect());
        }
    }
    rows
}

/// Rows in one order, texts before floats, so that floats that differ in their last digits still meet their like.
pub(super) fn sorted(mut rows: Vec<Cells>) -> Vec<Cells> {
    rows.sort_by(order);
    rows
}

/// The order of [`sorted`].
pub(super) fn order(a: &Cells, b: &Cells) -> Ordering {
    let pick = |float: bool| {
        a.iter()
            .zip(b)
            .filter(move |(a, b)| (matches!(a, Cell::Float(_)) && matches!(b, Cell::Float(_))) == float)
            .map(|(a, b)| a.order(b))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    };
    pick(false).then_with(|| pick(true))
}

/// Whether two rows are equal.
pub(super) fn same_row(a: &Cells, b: &Cells) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b))
}

/// Whether two results are equal as multisets.
pub(super) fn same(a: &[Cells], b: &[Cells]) -> bool {
    a.len() == b.len() && sorted(a.to_vec()).iter().zip(&sorted(b.to_vec())).all(|(a, b)| same_row(a, b))
}

/// Rows as lines.
pub(super) fn lines(rows: &[Cells]) -> Vec<String> {
    sorted(rows.to_vec()).iter().map(|row| row.iter().map(ToString::to_string).collect::<Vec<_>>().join("|")).collect()
}

/// Distinct rows.
pub(super) fn distinct(rows: &[Cells]) -> Vec<Cells> {
    let mut seen = BTreeSet::new();
    rows.iter().filter(|row| seen.insert(lines(&[(*row).clone()]))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Cell {
        Cell::Text(value.into())
    }

    #[test]
    fn multiplicities_count_and_last_digits_do_not() {
        let a = vec![vec![text("x"), Cell::Float(1.0)], vec![text("x"), Cell::Float(2.0)]];
        let b = vec![vec![text("x"), Cell::Float(2.0 + 1e-12)], vec![text("x"), Cell::Float(1.0)]];
        assert!(same(&a, &b));
        assert!(!same(&a, &a[..1]));
        assert!(!same(&[a[0].clone(), a[0].clone()], &a));
        assert!(same(&[vec![Cell::Float(0.0), Cell::Float(f64::NAN)]], &[vec![Cell::Float(-0.0), Cell::Float(-f64::NAN)]]));
        assert!(!same(&[vec![Cell::Null]], &[vec![text("NULL")]]));
    }
}
