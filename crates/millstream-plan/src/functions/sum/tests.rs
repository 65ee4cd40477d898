//! The aggregates against plain arithmetic: NULLs, filters, retraction, overflow, special floats.

use super::*;
use arrow::array::{Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, UInt64Array};
use arrow::compute::kernels::numeric::sub;
use arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::col;

fn call(function: AggregateUDF, argument: DataType, distinct: bool) -> AggregateFunctionExpr {
    let schema = Arc::new(Schema::new(vec![Field::new("x", argument, true)]));
    let args = vec![col("x", &schema).unwrap()];
    let name = format!("{}(x)", function.name());
    AggregateExprBuilder::new(Arc::new(function), args).schema(schema).alias(name).with_distinct(distinct).build().unwrap()
}

fn of(function: AggregateUDF, values: &ArrayRef) -> Result<ScalarValue> {
    let mut accumulator = call(function, values.data_type().clone(), false).create_accumulator()?;
    accumulator.update_batch(std::slice::from_ref(values))?;
    accumulator.evaluate()
}

fn longs(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

#[test]
fn integers() {
    let values = longs(&[Some(5), None, Some(-2), Some(4)]);
    assert_eq!(of(sum(), &values).unwrap(), ScalarValue::Int64(Some(7)));
    assert_eq!(of(avg(), &values).unwrap(), ScalarValue::Float64(Some(7.0 / 3.0)));
    assert_eq!(of(sum(), &longs(&[None])).unwrap(), ScalarValue::Int64(None));
    assert_eq!(of(avg(), &longs(&[])).unwrap(), ScalarValue::Float64(None));
    let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX - 1, 1]));
    assert_eq!(of(sum(), &unsigned).unwrap(), ScalarValue::UInt64(Some(u64::MAX)));
}

#[test]
fn overflow_depends_on_the_result_only() {
    let fits = longs(&[Some(i64::MAX), Some(i64::MAX), Some(-i64::MAX)]);
    assert_eq!(of(sum(), &fits).unwrap(), ScalarValue::Int64(Some(i64::MAX)));
    let error = of(sum(), &longs(&[Some(i64::MAX), Some(1)])).unwrap_err();
    assert!(error.to_string().contains("integer overflow in sum(x)"), "{error}");
    assert_eq!(of(avg(), &longs(&[Some(i64::MAX), Some(i64::MAX)])).unwrap(), ScalarValue::Float64(Some(i64::MAX as f64)));
}

#[test]
fn decimals() {
    let values: ArrayRef = Arc::new(Decimal128Array::from(vec![Some(150), None, Some(-25)]).with_precision_and_scale(10, 2).unwrap());
    assert_eq!(of(sum(), &values).unwrap(), ScalarValue::Decimal128(Some(125), 20, 2));
    // 1.25 / 2 = 0.625
    assert_eq!(of(avg(), &values).unwrap(), ScalarValue::Decimal128(Some(625_000), 14, 6));
    let largest = 10_i128.pow(38) - 1;
    let wide: ArrayRef = Arc::new(Decimal128Array::from(vec![largest, largest, -largest]).with_precision_and_scale(38, 0).unwrap());
    assert_eq!(of(sum(), &wide).unwrap(), ScalarValue::Decimal128(Some(largest), 38, 0));
    let too_large: ArrayRef = Arc::new(Decimal128Array::from(vec![largest, 1]).with_precision_and_scale(38, 0).unwrap());
    assert!(of(sum(), &too_large).is_err());
}

#[test]
fn floats_take_back_specials() {
    let call = call(sum(), DataType::Float64, false);
    let mut accumulator = call.create_sliding_accumulator().unwrap();
    let array = |values: &[f64]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
    accumulator.update_batch(&[array(&[1.0, f64::NAN, f64::INFINITY])]).unwrap();
    assert!(matches!(accumulator.evaluate().unwrap(), ScalarValue::Float64(Some(value)) if value.is_nan()));
    accumulator.retract_batch(&[array(&[f64::NAN])]).unwrap();
    assert_eq!(accumulator.evaluate().unwrap(), ScalarValue::Float64(Some(f64::INFINITY)));
    accumulator.update_batch(&[array(&[f64::NEG_INFINITY])]).unwrap();
    assert!(matches!(accumulator.evaluate().unwrap(), ScalarValue::Float64(Some(value)) if value.is_nan()));
    accumulator.retract_batch(&[array(&[f64::INFINITY, f64::NEG_INFINITY])]).unwrap();
    assert_eq!(accumulator.evaluate().unwrap(), ScalarValue::Float64(Some(1.0)));
}

#[test]
fn groups_with_filter_and_nulls() {
    let call = call(sum(), DataType::Int64, false);
    let mut groups = call.create_groups_accumulator().unwrap();
    let filter = BooleanArray::from(vec![Some(true), Some(false), None, Some(true), Some(true)]);
    let values = longs(&[Some(1), Some(2), Some(3), None, Some(5)]);
    groups.update_batch(&[values], &[0, 0, 1, 1, 2], Some(&filter), 4).unwrap();
    let result = groups.evaluate(EmitTo::All).unwrap();
    assert_eq!(result.as_ref(), &Int64Array::from(vec![Some(1), None, Some(5), None]));
}

#[test]
fn state_is_additive() {
    for function in [sum(), avg()] {
        for argument in [DataType::Int64, DataType::Float64, DataType::Decimal128(12, 3), DataType::Decimal128(30, 3)] {
            let call = call(function.clone(), argument.clone(), false);
            let state = |values: &[Option<i64>]| {
                let values = arrow::compute::cast(&longs(values), &argument).unwrap();
                let mut groups = call.create_groups_accumulator().unwrap();
                groups.update_batch(&[values], &[0; 4], None, 1).unwrap();
                groups.state(EmitTo::All).unwrap()
            };
            let all = state(&[Some(7), Some(-3), None, Some(11)]);
            let taken_back = state(&[Some(-3), None, Some(11), None]);
            let fields = call.state_fields().unwrap();
            let rest: Vec<ArrayRef> = all
                .iter()
                .zip(&taken_back)
                .zip(&fields)
                .map(|((a, b), field)| arrow::compute::cast(&sub(a, b).unwrap(), field.data_type()).unwrap())
                .collect();
            for (column, field) in rest.iter().zip(&fields) {
                assert_eq!(column.data_type(), field.data_type());
            }
            let mut merged = call.create_groups_accumulator().unwrap();
            merged.merge_batch(&rest, &[0], 1).unwrap();
            let result = arrow::compute::cast(&merged.evaluate(EmitTo::All).unwrap(), &DataType::Int64).unwrap();
            assert_eq!(result.as_ref(), &Int64Array::from(vec![7]), "{} of {argument}", function.name());
        }
    }
}

#[test]
fn distinct_values() {
    for (function, expected) in [(sum(), ScalarValue::Int64(Some(7))), (avg(), ScalarValue::Float64(Some(3.5)))] {
        let call = call(function, DataType::Int64, true);
        let mut part = call.create_accumulator().unwrap();
        part.update_batch(&[longs(&[Some(3), Some(3), None])]).unwrap();
        let state: Vec<ArrayRef> = part.state().unwrap().iter().map(|value| value.to_array().unwrap()).collect();
        let mut whole = call.create_accumulator().unwrap();
        whole.update_batch(&[longs(&[Some(4), Some(3)])]).unwrap();
        whole.merge_batch(&state).unwrap();
        assert_eq!(whole.evaluate().unwrap(), expected);
    }
}
