//! Totals of integers, decimals and durations, and how a result is read from them.

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, Float64Array, PrimitiveArray, PrimitiveBuilder};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Int64Type, TimeUnit, UInt64Type, i256,
};
use datafusion::common::cast::as_int64_array;
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::Accumulator;
use std::fmt::{self, Debug};
use std::marker::PhantomData;
use std::sync::Arc;

/// A number that totals are kept in: `i128` or `i256`.
pub(super) trait Total: ArrowNativeTypeOp + Debug + Send + Sync {
    /// The decimal type whose values it is.
    type Decimal: ArrowPrimitiveType<Native = Self>;

    /// As the widest number.
    fn widest(self) -> i256;

    /// As a float, rounded once.
    fn float(self) -> f64;
}

impl Total for i128 {
    type Decimal = Decimal128Type;

    fn widest(self) -> i256 {
        i256::from_i128(self)
    }

    fn float(self) -> f64 {
        self as f64
    }
}

impl Total for i256 {
    type Decimal = Decimal256Type;

    fn widest(self) -> i256 {
        self
    }

    fn float(self) -> f64 {
        self.to_i128().map_or_else(|| self.to_string().parse().unwrap_or(f64::NAN), |value| value as f64)
    }
}

/// An argument that fits a total.
pub(super) trait Widen<T>: Copy {
    /// The same number.
    fn widen(self) -> T;
}

macro_rules! widen_to_i128 {
    ($($native:ty),*) => {
        $(impl Widen<i128> for $native {
            #[inline]
            fn widen(self) -> i128 {
                i128::from(self)
            }
        })*
    };
}

widen_to_i128!(i32, i64, u64, i128);

impl Widen<i256> for i128 {
    #[inline]
    fn widen(self) -> i256 {
        i256::from_i128(self)
    }
}

impl Widen<i256> for i256 {
    #[inline]
    fn widen(self) -> i256 {
        self
    }
}

/// How a result is read from a total and a count.
#[derive(Clone, Debug)]
pub(super) enum Output {
    /// The total in a type with fewer digits.
    Sum(DataType),
    /// Total / count as a float.
    Ratio,
    /// Total * 10^`scale_up` / count, rounded towards zero as DataFusion does, in a duration or decimal type.
    Quotient {
        /// The result's type.
        result: DataType,
        /// Digits that the result has more than the argument.
        scale_up: u32,
    },
}

impl Output {
    /// The output of `avg` or `sum` of this argument.
    pub(super) fn new(avg: bool, argument: &DataType, result: &DataType) -> Result<Self> {
        let scale = |data_type: &DataType| match data_type {
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale) => *scale,
            _ => 0,
        };
        if !avg {
            return Ok(Output::Sum(result.clone()));
        }
        if result == &DataType::Float64 {
            return Ok(Output::Ratio);
        }
        match u32::try_from(scale(result) - scale(argument)) {
            Ok(scale_up) => Ok(Output::Quotient { result: result.clone(), scale_up }),
            Err(_) => internal_err!("avg of {argument} has fewer digits than its argument: {result}"),
        }
    }

    /// The results of groups with these totals and counts of values. A group without values is NULL.
    ///
    /// # Errors
    /// If a result does not fit its type.
    pub(super) fn evaluate<T: Total>(&self, name: &str, totals: &[T], counts: &[i64]) -> Result<ArrayRef> {
        let pairs = || totals.iter().copied().zip(counts.iter().copied());
        match self {
            Output::Ratio => {
                let ratios = pairs().map(|(total, count)| (count > 0).then(|| total.float() / count as f64));
                Ok(Arc::new(Float64Array::from_iter(ratios)))
            }
            Output::Sum(result) => narrow(name, result, pairs().map(|(total, count)| (count > 0).then_some(Some(total.widest())))),
            Output::Quotient { result, scale_up } => {
                let factor = i256::from_i128(10).wrapping_pow(*scale_up);
                let quotient = |total: T, count| total.widest().checked_mul(factor)?.checked_div(i256::from_i128(i128::from(count)));
                narrow(name, result, pairs().map(|(total, count)| (count > 0).then(|| quotient(total, count))))
            }
        }
    }
}

/// Puts numbers into an array of the result's type. Outer `None`: NULL; inner `None`: does not fit anything.
fn narrow(name: &str, result: &DataType, values: impl ExactSizeIterator<Item = Option<Option<i256>>>) -> Result<ArrayRef> {
    macro_rules! into {
        ($arrow_type:ty, $fit:expr) => {{
            let fit = $fit;
            let mut builder = PrimitiveBuilder::<$arrow_type>::with_capacity(values.len()).with_data_type(result.clone());
            for value in values {
                match value {
                    None => builder.append_null(),
                    Some(value) => match value.and_then(&fit) {
                        Some(value) => builder.append_value(value),
                        None => return overflow(name, result),
                    },
                }
            }
            Ok(Arc::new(builder.finish()) as ArrayRef)
        }};
    }
    let long = |value: i256| value.to_i128().and_then(|value| i64::try_from(value).ok());
    match result {
        DataType::Int64 => into!(Int64Type, long),
        DataType::UInt64 => into!(UInt64Type, |value: i256| value.to_i128().and_then(|value| u64::try_from(value).ok())),
        DataType::Duration(TimeUnit::Second) => into!(DurationSecondType, long),
        DataType::Duration(TimeUnit::Millisecond) => into!(DurationMillisecondType, long),
        DataType::Duration(TimeUnit::Microsecond) => into!(DurationMicrosecondType, long),
        DataType::Duration(TimeUnit::Nanosecond) => into!(DurationNanosecondType, long),
        DataType::Decimal32(precision, scale) => into!(Decimal32Type, |value: i256| {
            let value = value.to_i128().and_then(|value| i32::try_from(value).ok())?;
            Decimal32Type::validate_decimal_precision(value, *precision, *scale).is_ok().then_some(value)
        }),
        DataType::Decimal64(precision, scale) => into!(Decimal64Type, |value: i256| {
            let value = long(value)?;
            Decimal64Type::validate_decimal_precision(value, *precision, *scale).is_ok().then_some(value)
        }),
        DataType::Decimal128(precision, scale) => into!(Decimal128Type, |value: i256| {
            let value = value.to_i128()?;
            Decimal128Type::validate_decimal_precision(value, *precision, *scale).is_ok().then_some(value)
        }),
        DataType::Decimal256(precision, scale) => into!(Decimal256Type, |value: i256| {
            Decimal256Type::validate_decimal_precision(value, *precision, *scale).is_ok().then_some(value)
        }),
        other => internal_err!("{name} has the type {other}"),
    }
}

fn overflow<T>(name: &str, result: &DataType) -> Result<T> {
    // Aggregates over whole windows get the full text of the call as their name.
    let kind = if matches!(result, DataType::Int64 | DataType::UInt64) { "integer" } else { "numeric" };
    exec_err!("{kind} overflow in {name}: the result does not fit {result}")
}

/// One total: for windows, and for groups where DataFusion has no other way.
pub(super) struct ExactAccumulator<I: ArrowPrimitiveType, T: ArrowPrimitiveType> {
    name: String,
    total_type: DataType,
    output: Output,
    total: T::Native,
    count: i64,
    input: PhantomData<fn() -> I>,
}

impl<I, T> ExactAccumulator<I, T>
where
    I: ArrowPrimitiveType,
    T: ArrowPrimitiveType,
    T::Native: Total<Decimal = T>,
{
    pub(super) fn new(name: &str, total_type: &DataType, output: Output) -> Self {
        Self { name: name.into(), total_type: total_type.clone(), output, total: T::Native::ZERO, count: 0, input: PhantomData }
    }
}

impl<I: ArrowPrimitiveType, T: ArrowPrimitiveType> fmt::Debug for ExactAccumulator<I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExactAccumulator").field("name", &self.name).field("count", &self.count).finish_non_exhaustive()
    }
}

/// The totals in state columns.
pub(super) fn totals<T: ArrowPrimitiveType>(states: &[ArrayRef]) -> Result<&PrimitiveArray<T>> {
    match states[0].as_primitive_opt() {
        Some(totals) => Ok(totals),
        None => internal_err!("sum or avg got {} instead of its total", states[0].data_type()),
    }
}

/// Total and count of the values that are not NULL.
fn add_up<I, T>(values: &[ArrayRef]) -> Result<(T::Native, i64)>
where
    I: ArrowPrimitiveType,
    T: ArrowPrimitiveType,
    I::Native: Widen<T::Native>,
    T::Native: Total,
{
    let values: &PrimitiveArray<I> = values[0]
        .as_primitive_opt()
        .ok_or_else(|| DataFusionError::Internal(format!("sum or avg got {} instead of its argument", values[0].data_type())))?;
    let mut total = T::Native::ZERO;
    match values.nulls() {
        None => values.values().iter().for_each(|value| total = total.add_wrapping(value.widen())),
        Some(_) => values.iter().flatten().for_each(|value| total = total.add_wrapping(value.widen())),
    }
    Ok((total, (values.len() - values.null_count()) as i64))
}

impl<I, T> Accumulator for ExactAccumulator<I, T>
where
    I: ArrowPrimitiveType,
    T: ArrowPrimitiveType,
    I::Native: Widen<T::Native>,
    T::Native: Total<Decimal = T>,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (total, count) = add_up::<I, T>(values)?;
        self.total = self.total.add_wrapping(total);
        self.count += count;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (total, count) = add_up::<I, T>(values)?;
        self.total = self.total.sub_wrapping(total);
        self.count -= count;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.output.evaluate(&self.name, &[self.total], &[self.count])?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let total = PrimitiveArray::<T>::from_iter_values([self.total]).with_data_type(self.total_type.clone());
        Ok(vec![ScalarValue::try_from_array(&total, 0)?, ScalarValue::Int64(Some(self.count))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for total in totals::<T>(states)?.iter().flatten() {
            self.total = self.total.add_wrapping(total);
        }
        self.count += as_int64_array(&states[1])?.iter().flatten().sum::<i64>();
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.name.capacity()
    }
}
