//! Functions of timestamps without a look at the calendar for each row.
//!
//! `date_bin(INTERVAL '10 seconds', ts)` and `ts + INTERVAL '10 seconds'` stand in every window query. DataFusion sends each row
//! through the calendar and through nanoseconds, because an interval may hold months; here a length without months and days costs
//! a division or an addition. `to_char(ts, '%Y-%m-%d')` gives one text for all times of a day (`steps.rs`): it is computed once for times
//! of a day that follow each other. Whatever is not plain, such as times outside of the years 1678 to 2261, is left to the original
//! expression, with its result and its errors.

mod steps;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::sort_properties::ExprProperties;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_plan::PhysicalExpr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Microseconds that also have a value in nanoseconds, with room for a length beside them.
const PLAIN: std::ops::RangeInclusive<i64> = -(i64::MAX / 1_000 - MICROS_MAX)..=i64::MAX / 1_000 - MICROS_MAX;
/// The longest length: a year.
const MICROS_MAX: i64 = 366 * 86_400 * 1_000_000;

/// An expression with a quick way for arrays of microseconds.
#[derive(Debug, Eq)]
struct FastTime {
    original: Arc<dyn PhysicalExpr>,
    operation: Operation,
}

impl PartialEq for FastTime {
    fn eq(&self, other: &Self) -> bool {
        self.operation == other.operation && self.original.eq(&other.original)
    }
}

impl Hash for FastTime {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.original.hash(state);
        self.operation.hash(state);
    }
}

/// What is done to the one child that is not constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    /// Adds microseconds.
    Shift { child: usize, micros: i64 },
    /// Rounds down to a multiple since 1970.
    Floor { child: usize, micros: i64 },
    /// Is the same for all times between two such multiples.
    Step { child: usize, micros: i64 },
}

/// The quick form of an expression, where it has one.
pub(crate) fn quick(expr: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
    let operation = match (expr.downcast_ref::<BinaryExpr>(), expr.downcast_ref::<ScalarFunctionExpr>()) {
        (Some(binary), _) => shift(binary)?,
        (_, Some(call)) => floor(call).or_else(|| step(call))?,
        _ => return None,
    };
    Some(Arc::new(FastTime { original: Arc::clone(expr), operation }))
}

fn shift(binary: &BinaryExpr) -> Option<Operation> {
    let sign = match binary.op() {
        Operator::Plus => 1,
        Operator::Minus => -1,
        _ => return None,
    };
    Some(Operation::Shift { child: 0, micros: sign * length(binary.right(), false)? })
}

fn floor(call: &ScalarFunctionExpr) -> Option<Operation> {
    match call.args() {
        [stride, _] if call.name() == "date_bin" => {
            Some(Operation::Floor { child: 1, micros: length(stride, true).filter(|micros| *micros > 0)? })
        }
        _ => None,
    }
}

fn step(call: &ScalarFunctionExpr) -> Option<Operation> {
    steps::constant_for(call).map(|(child, micros)| Operation::Step { child, micros })
}

/// The microseconds of a literal interval that always has the same length. A day has 24 hours when rounding, and follows the zone's
/// clock when adding.
fn length(expr: &Arc<dyn PhysicalExpr>, days_are_fixed: bool) -> Option<i64> {
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = expr.downcast_ref::<Literal>()?.value() else { return None };
    if interval.months != 0 || interval.nanoseconds % 1_000 != 0 || (interval.days != 0 && !days_are_fixed) {
        return None;
    }
    let micros = i64::from(interval.days) * 86_400_000_000 + interval.nanoseconds / 1_000;
    (micros.abs() <= MICROS_MAX).then_some(micros)
}

impl FastTime {
    fn quick(&self, array: &ArrayRef) -> Result<Option<ArrayRef>> {
        let DataType::Timestamp(TimeUnit::Microsecond, zone) = array.data_type() else { return Ok(None) };
        let times: &PrimitiveArray<TimestampMicrosecondType> = array.as_primitive();
        // What lies under a NULL does not matter, but is not worth a look at the mask either.
        if !times.values().iter().all(|time| PLAIN.contains(time)) {
            return Ok(None);
        }
        let result: PrimitiveArray<TimestampMicrosecondType> = match self.operation {
            Operation::Shift { micros, .. } => times.unary(|time| time + micros),
            Operation::Floor { micros, .. } => floors(times, micros),
            Operation::Step { child, micros } => {
                let micros = if zone.is_some() { micros.min(steps::SECOND) } else { micros };
                return self.by_step(times, child, micros);
            }
        };
        Ok(Some(Arc::new(result.with_data_type(array.data_type().clone()))))
    }

    /// Computes one result for all times that follow each other within a step. `None` where that would not be much fewer.
    fn by_step(&self, times: &PrimitiveArray<TimestampMicrosecondType>, child: usize, micros: i64) -> Result<Option<ArrayRef>> {
        let mut firsts = vec![];
        let mut places = Vec::with_capacity(times.len());
        // Where the step of the row before begins; its time may be NULL.
        let mut step: Option<i64> = None;
        for (row, time) in times.iter().enumerate() {
            let same = match (step, time) {
                (Some(start), Some(time)) => (start..start + micros).contains(&time),
                (None, None) => row > 0,
                _ => false,
            };
            if !same {
                step = time.map(|time| time - time.rem_euclid(micros));
                firsts.push(row as u32);
            }
            places.push(firsts.len() as u32 - 1);
        }
        if firsts.len() > times.len() / 4 {
            return Ok(None);
        }
        let few = take(times, &UInt32Array::from(firsts), None)?;
        let rows = few.len();
        let schema = Arc::new(Schema::new(vec![Field::new("time", few.data_type().clone(), true)]));
        let mut children: Vec<_> = self.original.children().into_iter().cloned().collect();
        children[child] = Arc::new(Column::new("time", 0));
        let original = Arc::clone(&self.original).with_new_children(children)?;
        let results = original.evaluate(&RecordBatch::try_new(schema, vec![few])?)?.into_array(rows)?;
        Ok(Some(take(&results, &UInt32Array::from(places), None)?))
    }
}

/// Each time rounded down to a multiple of `micros`. Times that follow each other mostly have the same floor, and need no division then.
fn floors(times: &PrimitiveArray<TimestampMicrosecondType>, micros: i64) -> PrimitiveArray<TimestampMicrosecondType> {
    let mut floor = 0;
    let floors = times.values().iter().map(|time| {
        if !(floor..floor + micros).contains(time) {
            floor = time - time.rem_euclid(micros);
        }
        floor
    });
    PrimitiveArray::new(floors.collect(), times.nulls().cloned())
}

impl fmt::Display for FastTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.original.fmt(f)
    }
}

impl PhysicalExpr for FastTime {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.original.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.original.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.original.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let (Operation::Shift { child, .. } | Operation::Floor { child, .. } | Operation::Step { child, .. }) = self.operation;
        if let Some(input) = self.original.children().get(child)
            && let ColumnarValue::Array(array) = input.evaluate(batch)?
            && let Some(result) = self.quick(&array)?
        {
            return Ok(ColumnarValue::Array(result));
        }
        self.original.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.original.children()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let original = Arc::clone(&self.original).with_new_children(children)?;
        Ok(Arc::new(FastTime { original, operation: self.operation }))
    }

    fn get_properties(&self, children: &[ExprProperties]) -> Result<ExprProperties> {
        self.original.get_properties(children)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.original.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use crate::compile::{evaluate, with_checked_arithmetic};
    use arrow::array::{Array, RecordBatch, TimestampMicrosecondArray};
    use datafusion::common::DFSchema;
    use datafusion::prelude::SessionContext;
    use std::sync::Arc;

    #[test]
    fn the_quick_way_gives_what_the_original_gives() {
        let (minute, hour) = (Some(59_800_000), Some(3_599_800_000));
        let times = [Some(0), Some(-1), minute, hour, Some(1_436_918_400_123_456), Some(-9_999_999), None, Some(-86_400_000_000)];
        // Steps are worth their while where several times follow each other in one; some of these cross a day, a minute, an hour.
        let times: Vec<Option<i64>> = times.iter().flat_map(|time| (0..9).map(move |i| time.map(|time| time + i * 70_000))).collect();
        let context = SessionContext::new();
        for zone in [None, Some("Europe/Berlin")] {
            let array = TimestampMicrosecondArray::from(times.clone()).with_timezone_opt(zone);
            let batch = RecordBatch::try_from_iter([("ts", Arc::new(array) as _)]).unwrap();
            let schema = DFSchema::try_from(batch.schema()).unwrap();
            for sql in [
                "date_bin(INTERVAL '10 seconds', ts)",
                "date_bin(INTERVAL '7 days', ts)",
                "ts + INTERVAL '10 seconds'",
                "ts - INTERVAL '90 minutes 1 microsecond'",
                "ts + INTERVAL '1 day'",
                "ts + INTERVAL '1 month'",
                "date_bin(INTERVAL '10 seconds', ts + INTERVAL '3 seconds') + INTERVAL '10 seconds'",
                "to_char(ts, '%Y-%m-%d')",
                "to_char(ts, '%A %d %B %H:%M:%S')",
                "to_char(ts, '%s')",
                "to_char(ts, '%H o''clock')",
                "to_char(ts, '%H:%M')",
                "to_char(ts, '%H:%M:%S%.6f')",
                "to_char(ts, 'always the same')",
                "date_part('dow', ts)",
                "date_part('hour', ts)",
                "date_part('second', ts)",
                "date_part('epoch', ts)",
                "date_trunc('quarter', ts)",
                "date_trunc('minute', ts + INTERVAL '1 hour')",
                "date_trunc('millisecond', ts)",
            ] {
                let expr = context.parse_sql_expr(sql, &schema).unwrap();
                let plain = context.create_physical_expr(expr, &schema).unwrap();
                let ours = evaluate(&with_checked_arithmetic(Arc::clone(&plain)).unwrap(), &batch).unwrap();
                let theirs = plain.evaluate(&batch).unwrap().into_array(batch.num_rows()).unwrap();
                assert_eq!(ours.to_data(), theirs.to_data(), "{sql} with zone {zone:?}");
            }
        }
    }
}
