//! `to_timestamp(value [, format ...])` in microseconds.
//!
//! Strings go through DataFusion's `to_timestamp_micros`; numbers are seconds since 1970, as in DataFusion and PostgreSQL, and
//! keep a fraction down to the microsecond.

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, TimeUnit};
use datafusion::common::cast::{as_decimal128_array, as_float64_array};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err};
use datafusion::functions::datetime::to_timestamp::ToTimestampMicrosFunc;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};
use std::sync::Arc;

/// `to_timestamp` in microseconds.
pub fn to_timestamp() -> ScalarUDF {
    ToTimestamp { inner: ToTimestampMicrosFunc::default() }.into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToTimestamp {
    inner: ToTimestampMicrosFunc,
}

impl ScalarUDFImpl for ToTimestamp {
    fn name(&self) -> &str {
        "to_timestamp"
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        Some(Self { inner: ToTimestampMicrosFunc::new_with_config(config) }.into())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(value) = args.args.first() else {
            return exec_err!("to_timestamp needs a value");
        };
        if !value.data_type().is_numeric() {
            return self.inner.invoke_with_args(args);
        }
        let result_type = args.return_field.data_type();
        match value {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(seconds(array, result_type)?)),
            ColumnarValue::Scalar(scalar) => {
                let result = seconds(&scalar.to_array()?, result_type)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?))
            }
        }
    }
}

/// Numbers of seconds as timestamps.
fn seconds(values: &ArrayRef, result_type: &DataType) -> Result<ArrayRef> {
    let checked = CastOptions { safe: false, ..CastOptions::default() };
    let out_of_range = || DataFusionError::Execution("a number of seconds lies outside of the range of timestamps".into());
    let micros: TimestampMicrosecondArray = match values.data_type() {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let floats = cast_with_options(values, &DataType::Float64, &checked)?;
            as_float64_array(&floats)?.try_unary::<_, _, DataFusionError>(
                |value: <Float64Type as arrow::datatypes::ArrowPrimitiveType>::Native| {
                    let micros = (value * 1e6).round();
                    // The bounds are exact powers of two, so the comparison is exact too.
                    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&micros) {
                        Ok(micros as i64)
                    } else {
                        Err(out_of_range())
                    }
                },
            )?
        }
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            let decimals = cast_with_options(values, &DataType::Decimal128(38, 6), &checked)?;
            as_decimal128_array(&decimals)?.try_unary::<_, _, DataFusionError>(
                |value: <Decimal128Type as arrow::datatypes::ArrowPrimitiveType>::Native| i64::try_from(value).map_err(|_| out_of_range()),
            )?
        }
        _ => {
            let integers = cast_with_options(values, &DataType::Int64, &checked)?;
            let seconds = cast_with_options(&integers, &DataType::Timestamp(TimeUnit::Second, None), &checked)?;
            let micros = cast_with_options(&seconds, &DataType::Timestamp(TimeUnit::Microsecond, None), &checked)?;
            datafusion::common::cast::as_timestamp_microsecond_array(&micros)?.clone()
        }
    };
    Ok(Arc::new(micros.with_data_type(result_type.clone())))
}
