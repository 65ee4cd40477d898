//! `sum` and `avg`: exact for integers, decimals and durations, checked when they are read, with state that can be subtracted.
//!
//! | argument | `sum` | `avg` | state columns |
//! | --- | --- | --- | --- |
//! | integers | BIGINT (UInt64 for unsigned) | DOUBLE | total Decimal128(38, 0), count Int64 |
//! | durations | as the argument | as the argument | total Decimal128(38, 0), count Int64 |
//! | decimals | precision + 10 | precision + 4, scale + 4 | total as decimal of 38 or 76 digits, count Int64 |
//! | floats | DOUBLE | DOUBLE | finite total Float64, counts of values, NaN, infinity, -infinity Int64 |
//! | intervals | as DataFusion | - | as DataFusion |
//!
//! DataFusion's own sums wrap around. Totals here are wide enough to hold every intermediate result, and only the final one must
//! fit its type, so that the answer, and whether there is an error, does not depend on the order of rows. Column by column, state
//! of a set minus state of a subset is the state of the rest: that is how rows are taken back. NaN and infinities are counted
//! rather than added, because nothing can be subtracted from them. (Finite floats still round; the last digits depend on order.)

mod distinct;
mod exact;
mod float;
mod groups;

use arrow::datatypes::{
    ArrowPrimitiveType, DECIMAL32_MAX_PRECISION, DECIMAL64_MAX_PRECISION, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType,
    Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Field, FieldRef, Int64Type, TimeUnit, UInt64Type,
};
use datafusion::common::types::{
    NativeType, logical_float64, logical_int8, logical_int16, logical_int32, logical_int64, logical_uint8, logical_uint16, logical_uint32,
    logical_uint64,
};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::functions_aggregate::average::Avg as DataFusionAvg;
use datafusion::functions_aggregate::sum::Sum as DataFusionSum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Coercion, GroupsAccumulator, ReversedUDAF, Signature, TypeSignature, TypeSignatureClass,
    Volatility,
};
use exact::{ExactAccumulator, Output, Widen};
use std::sync::Arc;

/// The `sum` aggregate.
pub fn sum() -> AggregateUDF {
    ExactSum::new(Function::Sum).into()
}

/// The `avg` aggregate, also `mean`.
pub fn avg() -> AggregateUDF {
    ExactSum::new(Function::Avg).into()
}

/// Whether an aggregate function is one of this module.
pub fn is_ours(function: &AggregateUDF) -> bool {
    function.inner().is::<ExactSum>()
}

/// Whether `sum` and `avg` of this type have state that can be subtracted.
pub fn is_additive(argument: &DataType) -> bool {
    argument.is_numeric() || matches!(argument, DataType::Duration(_))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Function {
    Sum,
    Avg,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactSum {
    function: Function,
    signature: Signature,
    aliases: Vec<String>,
}

impl ExactSum {
    fn new(function: Function) -> Self {
        let exact = |class| TypeSignature::Coercible(vec![Coercion::new_exact(class)]);
        let integer = |to: NativeType, native, narrower| {
            TypeSignature::Coercible(vec![Coercion::new_implicit(TypeSignatureClass::Native(native), narrower, to)])
        };
        let mut types = vec![
            exact(TypeSignatureClass::Decimal),
            integer(
                NativeType::UInt64,
                logical_uint64(),
                vec![
                    TypeSignatureClass::Native(logical_uint8()),
                    TypeSignatureClass::Native(logical_uint16()),
                    TypeSignatureClass::Native(logical_uint32()),
                ],
            ),
            integer(
                NativeType::Int64,
                logical_int64(),
                vec![
                    TypeSignatureClass::Native(logical_int8()),
                    TypeSignatureClass::Native(logical_int16()),
                    TypeSignatureClass::Native(logical_int32()),
                ],
            ),
            integer(NativeType::Float64, logical_float64(), vec![TypeSignatureClass::Float]),
            exact(TypeSignatureClass::Duration),
        ];
        if function == Function::Sum {
            types.push(exact(TypeSignatureClass::Interval));
        }
        let aliases = if function == Function::Avg { vec!["mean".to_string()] } else { vec![] };
        Self { function, signature: Signature::one_of(types, Volatility::Immutable), aliases }
    }

    /// DataFusion's function of the same name, for what is not done here.
    fn original(&self) -> Box<dyn AggregateUDFImpl> {
        match self.function {
            Function::Sum => Box::new(DataFusionSum::new()),
            Function::Avg => Box::new(DataFusionAvg::new()),
        }
    }

    fn output(&self, argument: &DataType, result: &DataType) -> Result<Output> {
        Output::new(self.function == Function::Avg, argument, result)
    }
}

/// Calls `$generic::<Input, Total>($args)` for the argument type: `Total` is the decimal type totals are kept in.
macro_rules! with_types {
    ($argument:expr, $generic:ident, $($arg:expr),*) => {
        match $argument {
            DataType::Int64 => $generic::<Int64Type, Decimal128Type>($($arg),*),
            DataType::UInt64 => $generic::<UInt64Type, Decimal128Type>($($arg),*),
            DataType::Duration(TimeUnit::Second) => $generic::<DurationSecondType, Decimal128Type>($($arg),*),
            DataType::Duration(TimeUnit::Millisecond) => $generic::<DurationMillisecondType, Decimal128Type>($($arg),*),
            DataType::Duration(TimeUnit::Microsecond) => $generic::<DurationMicrosecondType, Decimal128Type>($($arg),*),
            DataType::Duration(TimeUnit::Nanosecond) => $generic::<DurationNanosecondType, Decimal128Type>($($arg),*),
            DataType::Decimal32(..) => $generic::<Decimal32Type, Decimal128Type>($($arg),*),
            DataType::Decimal64(..) => $generic::<Decimal64Type, Decimal128Type>($($arg),*),
            DataType::Decimal128(precision, _) if *precision <= NARROW_PRECISION_MAX => {
                $generic::<Decimal128Type, Decimal128Type>($($arg),*)
            }
            DataType::Decimal128(..) => $generic::<Decimal128Type, Decimal256Type>($($arg),*),
            DataType::Decimal256(..) => $generic::<Decimal256Type, Decimal256Type>($($arg),*),
            other => exec_err!("sum and avg of {other} are not supported"),
        }
    };
}

/// 10^10 rows of so many digits fit a total of 38 digits; wider decimals are added up with 76.
const NARROW_PRECISION_MAX: u8 = 28;

/// The type of the total of exact arguments.
fn total_type(argument: &DataType) -> DataType {
    match argument {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale),
        DataType::Decimal128(precision, scale) if *precision <= NARROW_PRECISION_MAX => {
            DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale)
        }
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale),
        _ => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
    }
}

fn exact_accumulator<I, T>(name: &str, total: &DataType, output: Output) -> Result<Box<dyn Accumulator>>
where
    I: ArrowPrimitiveType,
    T: ArrowPrimitiveType,
    I::Native: Widen<T::Native>,
    T::Native: exact::Total<Decimal = T>,
{
    Ok(Box::new(ExactAccumulator::<I, T>::new(name, total, output)))
}

fn exact_groups<I, T>(name: &str, total: &DataType, output: Output) -> Result<Box<dyn GroupsAccumulator>>
where
    I: ArrowPrimitiveType,
    T: ArrowPrimitiveType,
    I::Native: Widen<T::Native>,
    T::Native: exact::Total<Decimal = T>,
{
    Ok(Box::new(groups::ExactGroups::<I, T>::new(name, total, output)))
}

fn distinct_accumulator<I, T>(name: &str, argument: &DataType, output: Output) -> Result<Box<dyn Accumulator>>
where
    I: ArrowPrimitiveType,
    T: ArrowPrimitiveType,
    I::Native: Widen<T::Native> + std::hash::Hash + Eq + Ord,
    T::Native: exact::Total<Decimal = T>,
{
    Ok(Box::new(distinct::DistinctAccumulator::<I, T>::new(name, argument, output)))
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        match self.function {
            Function::Sum => "sum",
            Function::Avg => "avg",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let widened = |precision: u8, scale: i8, max: u8| match self.function {
            Function::Sum => (max.min(precision + 10), scale),
            Function::Avg => (max.min(precision + 4), i8::try_from(max).unwrap_or(i8::MAX).min(scale + 4)),
        };
        Ok(match (self.function, types) {
            (_, [DataType::Decimal32(precision, scale)]) => {
                let (precision, scale) = widened(*precision, *scale, DECIMAL32_MAX_PRECISION);
                DataType::Decimal32(precision, scale)
            }
            (_, [DataType::Decimal64(precision, scale)]) => {
                let (precision, scale) = widened(*precision, *scale, DECIMAL64_MAX_PRECISION);
                DataType::Decimal64(precision, scale)
            }
            (_, [DataType::Decimal128(precision, scale)]) => {
                let (precision, scale) = widened(*precision, *scale, DECIMAL128_MAX_PRECISION);
                DataType::Decimal128(precision, scale)
            }
            (_, [DataType::Decimal256(precision, scale)]) => {
                let (precision, scale) = widened(*precision, *scale, DECIMAL256_MAX_PRECISION);
                DataType::Decimal256(precision, scale)
            }
            (_, [duration @ DataType::Duration(_)]) | (Function::Sum, [duration @ DataType::Interval(_)]) => duration.clone(),
            (Function::Avg, [DataType::Int64 | DataType::UInt64 | DataType::Float64]) => DataType::Float64,
            (Function::Sum, [number @ (DataType::Int64 | DataType::UInt64 | DataType::Float64)]) => number.clone(),
            (_, types) => return plan_err!("{} is not defined for {types:?}", self.name()),
        })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let argument = args.expr_fields[0].data_type();
        match (argument, args.is_distinct) {
            (DataType::Interval(_), _) | (DataType::Float64, true) => self.original().accumulator(args),
            (DataType::Float64, false) => Ok(Box::new(float::FloatAccumulator::new(self.function == Function::Avg))),
            (_, true) => {
                with_types!(argument, distinct_accumulator, args.name, argument, self.output(argument, args.return_type())?)
            }
            (_, false) => {
                with_types!(argument, exact_accumulator, args.name, &total_type(argument), self.output(argument, args.return_type())?)
            }
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match (args.expr_fields[0].data_type(), args.is_distinct) {
            (DataType::Interval(_), _) | (DataType::Float64, true) => self.original().create_sliding_accumulator(args),
            _ => self.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let argument = args.input_fields[0].data_type();
        let field = |name: &str, data_type: DataType| Arc::new(Field::new(format_state_name(args.name, name), data_type, false));
        Ok(match (argument, args.is_distinct) {
            (DataType::Interval(_), _) | (DataType::Float64, true) => return self.original().state_fields(args),
            (DataType::Float64, false) => vec![
                field("total", DataType::Float64),
                field("count", DataType::Int64),
                field("nan", DataType::Int64),
                field("infinity", DataType::Int64),
                field("negative_infinity", DataType::Int64),
            ],
            (_, true) => vec![field("values", DataType::new_list(argument.clone(), true))],
            (_, false) => vec![field("total", total_type(argument)), field("count", DataType::Int64)],
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        let argument = args.expr_fields[0].data_type();
        !args.is_distinct && (is_additive(argument) || self.original().groups_accumulator_supported(args))
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let argument = args.expr_fields[0].data_type();
        match argument {
            DataType::Interval(_) => self.original().create_groups_accumulator(args),
            DataType::Float64 => Ok(Box::new(groups::FloatGroups::new(self.function == Function::Avg))),
            _ => with_types!(argument, exact_groups, args.name, &total_type(argument), self.output(argument, args.return_type())?),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

#[cfg(test)]
mod tests;
