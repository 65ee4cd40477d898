//! State that can be taken back: count, sum and average over input with retractions.
//!
//! ```text
//!   new state = old state + state of the inserted rows - state of the rows taken back        column by column
//! ```
//! Every state column of these functions adds up over rows: totals, and beside them counts of values, of NaN and of infinities,
//! so that NULL and special floats need no value that cannot be subtracted. Integers and decimals wrap, which makes the order irrelevant.
//! A float total is as exact as adding and subtracting is; it starts again from zero when its last value leaves.

use super::call::{Arguments, Call};
use crate::error::{DataflowError, Result};
use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, BooleanArray, PrimitiveArray, Scalar, UInt32Array, downcast_primitive};
use arrow::compute::kernels::zip::zip;
use arrow::compute::take;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Int64Type};
use std::sync::Arc;

/// Refuses calls whose state cannot be subtracted.
pub(crate) fn check(call: &Call) -> Result<()> {
    let number = |data_type: &DataType| data_type.is_numeric() || matches!(data_type, DataType::Duration(_));
    if !call.is_sum() || !call.state_types.iter().all(number) {
        return Err(DataflowError::internal(format!("{} cannot take rows back", call.function())));
    }
    Ok(())
}

/// The state of rows alone. Row `i` of a part belongs to group `groups[i]` of `count`.
pub(crate) fn contribution(call: &Call, parts: &[(Arguments, &[usize])], count: usize) -> Result<Vec<ArrayRef>> {
    let mut accumulator = call.accumulator()?;
    for (arguments, groups) in parts {
        call.update(accumulator.as_mut(), arguments, groups, count)?;
    }
    call.state(accumulator.as_mut(), count)
}

/// Old states spread over all touched groups: `rows[group]` is the state's row or `None`.
pub(crate) fn spread(columns: &[ArrayRef], rows: &[Option<u32>]) -> Result<Vec<ArrayRef>> {
    let indices = UInt32Array::from(rows.to_vec());
    columns.iter().map(|column| Ok(take(column, &indices, None)?)).collect()
}

/// The new state of a call: `old + plus - minus`. Absent parts and NULL are zero.
pub(crate) fn combine(
    call: &Call,
    old: Option<&[ArrayRef]>,
    plus: Option<&[ArrayRef]>,
    minus: Option<&[ArrayRef]>,
    count: usize,
) -> Result<Vec<ArrayRef>> {
    let mut columns = Vec::with_capacity(call.state_types.len());
    for (index, data_type) in call.state_types.iter().enumerate() {
        let parts = [old, plus, minus].map(|part| part.map(|columns| &columns[index]));
        columns.push(sum(data_type, parts, count)?);
    }
    if !call.state_types.iter().any(DataType::is_floating) {
        return Ok(columns);
    }
    // What rounding has left in a total without values goes: all counts are zero.
    let counts: Vec<&[i64]> =
        columns.iter().filter_map(|column| column.as_primitive_opt::<Int64Type>()).map(|column| column.values().as_ref()).collect();
    let empty = BooleanArray::from_iter((0..count).map(|row| Some(counts.iter().all(|counts| counts[row] == 0))));
    if empty.true_count() > 0 {
        columns = columns
            .iter()
            .zip(&call.empty_state)
            .map(|(column, nothing)| zip(&empty, &Scalar::new(Arc::clone(nothing)), column))
            .collect::<std::result::Result<_, _>>()?;
    }
    Ok(columns)
}

fn sum(data_type: &DataType, parts: [Option<&ArrayRef>; 3], count: usize) -> Result<ArrayRef> {
    fn add<T: ArrowPrimitiveType>(data_type: &DataType, parts: [Option<&ArrayRef>; 3], count: usize) -> ArrayRef {
        let [old, plus, minus] = parts.map(|part| part.map(|part| part.as_primitive::<T>()));
        let value = |part: Option<&PrimitiveArray<T>>, row: usize| match part {
            Some(part) if part.is_valid(row) => part.value(row),
            _ => T::Native::ZERO,
        };
        let sums = (0..count).map(|row| value(old, row).add_wrapping(value(plus, row)).sub_wrapping(value(minus, row)));
        Arc::new(PrimitiveArray::<T>::from_iter_values(sums).with_data_type(data_type.clone()))
    }
    macro_rules! helper {
        ($t:ty, $data_type:ident) => {
            Ok(add::<$t>($data_type, parts, count))
        };
    }
    downcast_primitive! {
        data_type => (helper, data_type),
        other => Err(DataflowError::internal(format!("a state column of type {other} cannot be added up")))
    }
}
