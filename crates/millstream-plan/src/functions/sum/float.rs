//! Totals of floats: finite values are added, NaN and infinities counted, so that each can be taken back.

use arrow::array::{Array, ArrayRef};
use datafusion::common::cast::{as_float64_array, as_int64_array};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Accumulator;

/// The state of one group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FloatTotal {
    /// Sum of the finite values.
    pub(super) total: f64,
    /// Number of values.
    pub(super) count: i64,
    /// Number of NaN among them.
    pub(super) nan: i64,
    /// Number of infinities among them.
    pub(super) infinity: i64,
    /// Number of negative infinities among them.
    pub(super) negative_infinity: i64,
}

impl FloatTotal {
    /// Adds `weight` (1 or -1) times a value.
    #[inline]
    pub(super) fn add(&mut self, value: f64, weight: i64) {
        self.count += weight;
        if value.is_finite() {
            self.total += if weight < 0 { -value } else { value };
        } else if value.is_nan() {
            self.nan += weight;
        } else if value > 0.0 {
            self.infinity += weight;
        } else {
            self.negative_infinity += weight;
        }
    }

    /// The sum, or the mean; `None` without values.
    pub(super) fn result(&self, avg: bool) -> Option<f64> {
        if self.count <= 0 {
            return None;
        }
        let sum = match (self.nan > 0, self.infinity > 0, self.negative_infinity > 0) {
            (true, _, _) | (_, true, true) => f64::NAN,
            (_, true, _) => f64::INFINITY,
            (_, _, true) => f64::NEG_INFINITY,
            _ => self.total,
        };
        Some(if avg { sum / self.count as f64 } else { sum })
    }

    /// Adds state columns at one row.
    pub(super) fn merge(&mut self, columns: &FloatColumns, row: usize) {
        self.total += columns.total[row];
        self.count += columns.count[row];
        self.nan += columns.nan[row];
        self.infinity += columns.infinity[row];
        self.negative_infinity += columns.negative_infinity[row];
    }
}

/// State columns.
pub(super) struct FloatColumns<'a> {
    total: &'a [f64],
    count: &'a [i64],
    nan: &'a [i64],
    infinity: &'a [i64],
    negative_infinity: &'a [i64],
}

impl<'a> FloatColumns<'a> {
    /// The columns, which have no NULLs.
    pub(super) fn new(states: &'a [ArrayRef]) -> Result<Self> {
        Ok(Self {
            total: as_float64_array(&states[0])?.values(),
            count: as_int64_array(&states[1])?.values(),
            nan: as_int64_array(&states[2])?.values(),
            infinity: as_int64_array(&states[3])?.values(),
            negative_infinity: as_int64_array(&states[4])?.values(),
        })
    }
}

/// One total.
#[derive(Debug)]
pub(super) struct FloatAccumulator {
    avg: bool,
    state: FloatTotal,
}

impl FloatAccumulator {
    pub(super) fn new(avg: bool) -> Self {
        Self { avg, state: FloatTotal::default() }
    }

    fn add_all(&mut self, values: &[ArrayRef], weight: i64) -> Result<()> {
        as_float64_array(&values[0])?.iter().flatten().for_each(|value| self.state.add(value, weight));
        Ok(())
    }
}

impl Accumulator for FloatAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add_all(values, 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add_all(values, -1)?;
        if self.state.count == 0 {
            // An empty window has no rounding error.
            self.state.total = 0.0;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.state.result(self.avg)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let FloatTotal { total, count, nan, infinity, negative_infinity } = self.state;
        let counts = [count, nan, infinity, negative_infinity].map(|count| ScalarValue::Int64(Some(count)));
        Ok(std::iter::once(ScalarValue::Float64(Some(total))).chain(counts).collect())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let columns = FloatColumns::new(states)?;
        (0..states[0].len()).for_each(|row| self.state.merge(&columns, row));
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
