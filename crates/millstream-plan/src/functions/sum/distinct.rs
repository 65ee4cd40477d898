//! `sum(DISTINCT x)` and `avg(DISTINCT x)`: each value is kept with the number of its occurrences, so that windows can slide.

use super::exact::{Output, Total, Widen};
use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, PrimitiveArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType};
use datafusion::common::cast::as_list_array;
use datafusion::common::{HashMap, Result, ScalarValue, internal_err};
use datafusion::logical_expr::Accumulator;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

/// The values of one group.
pub(super) struct DistinctAccumulator<I: ArrowPrimitiveType, T> {
    name: String,
    argument: DataType,
    output: Output,
    occurrences: HashMap<I::Native, i64>,
    total: PhantomData<fn() -> T>,
}

impl<I: ArrowPrimitiveType, T> DistinctAccumulator<I, T>
where
    I::Native: Hash + Eq + Ord,
{
    pub(super) fn new(name: &str, argument: &DataType, output: Output) -> Self {
        Self { name: name.into(), argument: argument.clone(), output, occurrences: HashMap::default(), total: PhantomData }
    }

    fn add_all(&mut self, values: &ArrayRef, weight: i64) -> Result<()> {
        let Some(values) = values.as_primitive_opt::<I>() else {
            return internal_err!("sum or avg got {} instead of its argument", values.data_type());
        };
        for value in values.iter().flatten() {
            let count = self.occurrences.entry(value).or_insert(0);
            *count += weight;
            if *count == 0 {
                self.occurrences.remove(&value);
            }
        }
        Ok(())
    }

    /// In ascending order, so that equal groups have equal state.
    fn values(&self) -> PrimitiveArray<I> {
        let mut values: Vec<I::Native> = self.occurrences.keys().copied().collect();
        values.sort_unstable();
        PrimitiveArray::<I>::from_iter_values(values).with_data_type(self.argument.clone())
    }
}

impl<I: ArrowPrimitiveType, T> fmt::Debug for DistinctAccumulator<I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistinctAccumulator").field("name", &self.name).field("values", &self.occurrences.len()).finish()
    }
}

impl<I, T> Accumulator for DistinctAccumulator<I, T>
where
    I: ArrowPrimitiveType,
    T: ArrowPrimitiveType,
    I::Native: Widen<T::Native> + Hash + Eq + Ord,
    T::Native: Total<Decimal = T>,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add_all(&values[0], 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add_all(&values[0], -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let total = self.occurrences.keys().fold(T::Native::ZERO, |total, value| total.add_wrapping(value.widen()));
        let count = self.occurrences.len() as i64;
        ScalarValue::try_from_array(&self.output.evaluate(&self.name, &[total], &[count])?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = self.values();
        let scalars = (0..values.len()).map(|row| ScalarValue::try_from_array(&values, row)).collect::<Result<Vec<_>>>()?;
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&scalars, &self.argument))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        as_list_array(&states[0])?.iter().flatten().try_for_each(|values| self.add_all(&values, 1))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.occurrences.capacity() * size_of::<(I::Native, i64)>()
    }
}
