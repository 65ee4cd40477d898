//! The window functions that SESSION is rewritten to: the definition of a session, for batches and for what is recomputed.
//!
//! ```text
//! session_start(ts, gap) OVER (PARTITION BY key ORDER BY ts)      time of the first row of the row's session
//! session_end(ts, gap) OVER (PARTITION BY key ORDER BY ts)        time of its last row, plus gap
//!
//!   gap 10 s     rows of a key   |  |     |            |
//!                                12 15    25           36           25 - 15 is no more than the gap, 36 - 25 is
//!                sessions        [------------------)  [---------)
//!                                12                 35 36        46
//! ```
//! **In**: `ts: Timestamp(µs)` with or without zone, in ascending order; `gap` a constant interval without months. **Out**: the type of
//! `ts`; a NULL time is in no session and gives NULL. **Errors**: a gap that is not positive or has months; an end beyond the calendar.
//!
//! Where an aggregate groups by key and session, the planner does not run these functions but an operator that maintains the sessions; it
//! knows them by [`is_session_function`].

use arrow::array::{Array, ArrayRef, PrimitiveBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use datafusion::common::cast::{as_interval_mdn_array, as_timestamp_microsecond_array};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl};
use datafusion::physical_plan::PhysicalExpr;
use std::sync::Arc;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// `session_start(ts, gap)`.
pub fn session_start() -> WindowUDF {
    SessionFunction::new(Edge::Start).into()
}

/// `session_end(ts, gap)`.
pub fn session_end() -> WindowUDF {
    SessionFunction::new(Edge::End).into()
}

/// Which edge of the session a window function gives, if it is one of these.
pub fn is_session_function(function: &WindowUDF) -> Option<Edge> {
    function.inner().downcast_ref::<SessionFunction>().map(|function| function.edge)
}

/// The gap in microseconds.
///
/// # Errors
/// If it is not positive, has months, or is out of range.
pub fn gap_micros(gap: IntervalMonthDayNano) -> Result<i64> {
    let days = i64::from(gap.days).checked_mul(MICROS_PER_DAY);
    let micros = days.and_then(|days| days.checked_add(gap.nanoseconds / 1_000));
    match micros {
        Some(micros) if micros > 0 && gap.months == 0 => Ok(micros),
        _ => exec_err!("the gap of a session must be a positive length without months"),
    }
}

/// The end of a session whose last row has this time.
///
/// # Errors
/// If it is out of range.
pub fn end_of(last: i64, gap: i64) -> Result<i64> {
    match last.checked_add(gap) {
        Some(end) => Ok(end),
        None => exec_err!("the end of a session lies beyond the range of timestamps"),
    }
}

/// One of the two ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Edge {
    /// `window_start`.
    Start,
    /// `window_end`.
    End,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SessionFunction {
    edge: Edge,
    signature: Signature,
}

impl SessionFunction {
    fn new(edge: Edge) -> Self {
        Self { edge, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl WindowUDFImpl for SessionFunction {
    fn name(&self) -> &str {
        match self.edge {
            Edge::Start => "session_start",
            Edge::End => "session_end",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        use DataType::{Date32, Date64, Duration, Interval, LargeUtf8, Timestamp, Utf8, Utf8View};
        let [time, gap] = types else {
            return plan_err!("{0} takes a time and a gap: {0}(ts, gap)", self.name());
        };
        let time = match time {
            Timestamp(_, zone) => Timestamp(TimeUnit::Microsecond, zone.clone()),
            Date32 | Date64 | DataType::Null => Timestamp(TimeUnit::Microsecond, None),
            other => return plan_err!("the time column of SESSION has type {other}, not a timestamp"),
        };
        match gap {
            Interval(_) | Duration(_) | Utf8 | Utf8View | LargeUtf8 => Ok(vec![time, Interval(IntervalUnit::MonthDayNano)]),
            other => plan_err!("the gap of SESSION has type {other}, not an interval such as INTERVAL '10 minutes'"),
        }
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Sessions { edge: self.edge }))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let Some(time) = args.get_input_field(0) else {
            return plan_err!("{0} takes a time and a gap: {0}(ts, gap)", self.name());
        };
        Ok(Arc::new(Field::new(args.name(), time.data_type().clone(), time.is_nullable())))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::Unknown
    }
}

/// Evaluates all sessions of a key at once.
#[derive(Debug)]
struct Sessions {
    edge: Edge,
}

impl PartitionEvaluator for Sessions {
    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        let [times, gaps] = values else {
            return exec_err!("a session function takes a time and a gap");
        };
        let times = as_timestamp_microsecond_array(times)?;
        let mut result = PrimitiveBuilder::<TimestampMicrosecondType>::with_capacity(num_rows).with_data_type(times.data_type().clone());
        if num_rows == 0 {
            return Ok(Arc::new(result.finish()));
        }
        let gaps = as_interval_mdn_array(gaps)?;
        if gaps.is_null(0) {
            return exec_err!("the gap of a session is NULL");
        }
        let gap = gap_micros(gaps.value(0))?;
        // NULL comes first or last, whatever the ORDER BY says; it is in no session.
        let mut row = 0;
        while row < num_rows {
            if times.is_null(row) {
                result.append_null();
                row += 1;
                continue;
            }
            let first = row;
            while row + 1 < num_rows && times.is_valid(row + 1) && end_of(times.value(row), gap)? >= times.value(row + 1) {
                row += 1;
            }
            let value = match self.edge {
                Edge::Start => times.value(first),
                Edge::End => end_of(times.value(row), gap)?,
            };
            row += 1;
            result.append_value_n(value, row - first);
        }
        Ok(Arc::new(result.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, IntervalMonthDayNanoArray, TimestampMicrosecondArray};

    fn evaluate(edge: Edge, times: &[Option<i64>], gap: IntervalMonthDayNano) -> Result<Vec<Option<i64>>> {
        let rows = times.len();
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC"));
        let gaps: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![gap; rows]));
        let result = Sessions { edge }.evaluate_all(&[Arc::clone(&times), gaps], rows)?;
        assert_eq!(result.data_type(), times.data_type());
        Ok(result.as_primitive::<TimestampMicrosecondType>().iter().collect())
    }

    fn micros(micros: i64) -> IntervalMonthDayNano {
        IntervalMonthDayNano::new(0, 0, micros * 1_000)
    }

    #[test]
    fn a_distance_of_more_than_the_gap_starts_a_session() {
        let times = [Some(12), Some(15), Some(25), Some(36), None];
        assert_eq!(evaluate(Edge::Start, &times, micros(10)).unwrap(), [Some(12), Some(12), Some(12), Some(36), None]);
        assert_eq!(evaluate(Edge::End, &times, micros(10)).unwrap(), [Some(35), Some(35), Some(35), Some(46), None]);
        assert_eq!(evaluate(Edge::Start, &[Some(-5), Some(-5)], micros(1)).unwrap(), [Some(-5), Some(-5)]);
        assert_eq!(evaluate(Edge::End, &[], micros(1)).unwrap(), []);
    }

    #[test]
    fn gaps_and_ends_are_checked() {
        for gap in [micros(0), micros(-1), IntervalMonthDayNano::new(1, 0, 0), IntervalMonthDayNano::new(0, i32::MAX, i64::MIN)] {
            assert!(evaluate(Edge::Start, &[Some(1)], gap).is_err() || gap_micros(gap).is_ok(), "{gap:?}");
        }
        assert_eq!(gap_micros(IntervalMonthDayNano::new(0, 1, 1_000)).unwrap(), MICROS_PER_DAY + 1);
        let error = evaluate(Edge::End, &[Some(i64::MAX)], micros(1)).unwrap_err();
        assert!(error.to_string().contains("beyond the range"), "{error}");
    }

    #[test]
    fn types_are_checked() {
        let function = session_end();
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let millis = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        assert_eq!(function.coerce_types(&[millis, DataType::Utf8]).unwrap(), [utc.clone(), interval.clone()]);
        let error = function.coerce_types(&[DataType::Int64, interval]).unwrap_err();
        assert!(error.to_string().contains("has type Int64, not a timestamp"), "{error}");
        assert!(function.coerce_types(&[utc]).is_err());
        assert_eq!(is_session_function(&function), Some(Edge::End));
    }
}
