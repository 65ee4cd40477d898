//! The same totals for many groups at once: vectors indexed by group, tight loops over primitive values.

use super::exact::{Output, Total, Widen, totals};
use super::float::{FloatColumns, FloatTotal};
use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, BooleanArray, Float64Array, Int64Array, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float64Type};
use datafusion::common::cast::as_int64_array;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use std::marker::PhantomData;
use std::sync::Arc;

/// Totals of integers, decimals or durations.
pub(super) struct ExactGroups<I: ArrowPrimitiveType, T: ArrowPrimitiveType> {
    name: String,
    total_type: DataType,
    output: Output,
    totals: Vec<T::Native>,
    counts: Vec<i64>,
    input: PhantomData<fn() -> I>,
}

impl<I, T> ExactGroups<I, T>
where
    I: ArrowPrimitiveType,
    T: ArrowPrimitiveType,
    T::Native: Total<Decimal = T>,
{
    pub(super) fn new(name: &str, total_type: &DataType, output: Output) -> Self {
        let (name, total_type) = (name.to_string(), total_type.clone());
        Self { name, total_type, output, totals: vec![], counts: vec![], input: PhantomData }
    }

    fn resize(&mut self, total_num_groups: usize) {
        self.totals.resize(total_num_groups, T::Native::ZERO);
        self.counts.resize(total_num_groups, 0);
    }

    fn columns(&self, totals: Vec<T::Native>, counts: Vec<i64>) -> Vec<ArrayRef> {
        let totals = PrimitiveArray::<T>::new(totals.into(), None).with_data_type(self.total_type.clone());
        vec![Arc::new(totals), Arc::new(Int64Array::from(counts))]
    }
}

impl<I, T> GroupsAccumulator for ExactGroups<I, T>
where
    I: ArrowPrimitiveType,
    T: ArrowPrimitiveType,
    I::Native: Widen<T::Native>,
    T::Native: Total<Decimal = T>,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.resize(total_num_groups);
        let (sums, counts) = (&mut self.totals, &mut self.counts);
        for_each(primitive::<I>(values)?, group_indices, opt_filter, |group, value| {
            sums[group] = sums[group].add_wrapping(value.widen());
            counts[group] += 1;
        });
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (totals, counts) = (emit_to.take_needed(&mut self.totals), emit_to.take_needed(&mut self.counts));
        self.output.evaluate(&self.name, &totals, &counts)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (totals, counts) = (emit_to.take_needed(&mut self.totals), emit_to.take_needed(&mut self.counts));
        Ok(self.columns(totals, counts))
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.resize(total_num_groups);
        let (sums, counts) = (totals::<T>(states)?.values(), as_int64_array(&states[1])?.values());
        for ((group, sum), count) in group_indices.iter().zip(sums.iter()).zip(counts.iter()) {
            self.totals[*group] = self.totals[*group].add_wrapping(*sum);
            self.counts[*group] += count;
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = primitive::<I>(values)?;
        let (mut sums, mut counts) = (vec![T::Native::ZERO; values.len()], vec![0; values.len()]);
        let rows: Vec<usize> = (0..values.len()).collect();
        for_each(values, &rows, opt_filter, |row, value| {
            sums[row] = value.widen();
            counts[row] = 1;
        });
        Ok(self.columns(sums, counts))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.totals.capacity() * size_of::<T::Native>() + self.counts.capacity() * size_of::<i64>()
    }
}

/// Totals of floats.
pub(super) struct FloatGroups {
    avg: bool,
    groups: Vec<FloatTotal>,
}

impl FloatGroups {
    pub(super) fn new(avg: bool) -> Self {
        Self { avg, groups: vec![] }
    }
}

fn float_columns(groups: &[FloatTotal]) -> Vec<ArrayRef> {
    let counts = |of: fn(&FloatTotal) -> i64| Arc::new(Int64Array::from_iter_values(groups.iter().map(of))) as ArrayRef;
    vec![
        Arc::new(Float64Array::from_iter_values(groups.iter().map(|group| group.total))),
        counts(|group| group.count),
        counts(|group| group.nan),
        counts(|group| group.infinity),
        counts(|group| group.negative_infinity),
    ]
}

impl GroupsAccumulator for FloatGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize(total_num_groups, FloatTotal::default());
        let groups = &mut self.groups;
        for_each(primitive::<Float64Type>(values)?, group_indices, opt_filter, |group, value| groups[group].add(value, 1));
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = emit_to.take_needed(&mut self.groups);
        Ok(Arc::new(Float64Array::from_iter(groups.iter().map(|group| group.result(self.avg)))))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(float_columns(&emit_to.take_needed(&mut self.groups)))
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.groups.resize(total_num_groups, FloatTotal::default());
        let columns = FloatColumns::new(states)?;
        group_indices.iter().enumerate().for_each(|(row, group)| self.groups[*group].merge(&columns, row));
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = primitive::<Float64Type>(values)?;
        let mut groups = vec![FloatTotal::default(); values.len()];
        let rows: Vec<usize> = (0..values.len()).collect();
        for_each(values, &rows, opt_filter, |row, value| groups[row].add(value, 1));
        Ok(float_columns(&groups))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.groups.capacity() * size_of::<FloatTotal>()
    }
}

fn primitive<I: ArrowPrimitiveType>(values: &[ArrayRef]) -> Result<&PrimitiveArray<I>> {
    match values[0].as_primitive_opt() {
        Some(values) => Ok(values),
        None => internal_err!("sum or avg got {} instead of its argument", values[0].data_type()),
    }
}

/// Calls `f(group, value)` for rows that the filter keeps and whose value is not NULL.
#[inline]
fn for_each<I: ArrowPrimitiveType>(
    values: &PrimitiveArray<I>,
    group_indices: &[usize],
    opt_filter: Option<&BooleanArray>,
    mut f: impl FnMut(usize, I::Native),
) {
    let kept = opt_filter.map(|filter| {
        let kept = NullBuffer::new(filter.values().clone());
        NullBuffer::union(Some(&kept), filter.nulls()).unwrap_or(kept)
    });
    match NullBuffer::union(kept.as_ref(), values.nulls()) {
        None => group_indices.iter().zip(values.values().iter()).for_each(|(group, value)| f(*group, *value)),
        Some(valid) => {
            let values = values.values();
            valid.valid_indices().for_each(|row| f(group_indices[row], values[row]));
        }
    }
}
