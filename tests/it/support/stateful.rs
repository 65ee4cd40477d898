//! Stateful functions that the scripts call.
//!
//! | function | keeps | returns | calls it once more |
//! |---|---|---|---|
//! | `running_total(column => 'amount', limit => n)` | `total`, `n` | both after each row; a total of `limit` or more starts anew | when expired: `total` negated |
//! | `visits(gap => INTERVAL ..)` | `started`, `ended`, `n` | a visit when nothing came for `gap` of event time | timer in event time |
//! | `silence(after => INTERVAL ..)` | `n` | how often in a row nothing came for `after` | timer by the clock, again and again |

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use millstream::EngineBuilder;
use millstream::EventTime;
use millstream::stateful::{Arguments, Cause, Declaration, FunctionError, KeyCall, ScalarValue, StatefulFunction};

type Result<T> = std::result::Result<T, FunctionError>;

/// Registers all of them.
pub(crate) fn register(builder: EngineBuilder) -> EngineBuilder {
    builder.stateful_function("running_total", RunningTotal).stateful_function("visits", Visits).stateful_function("silence", Silence)
}

fn integers(rows: &RecordBatch, column: &str) -> Result<Vec<Option<i64>>> {
    let column = rows.column_by_name(column).ok_or_else(|| format!("the relation has no column \"{column}\""))?;
    Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().iter().collect())
}

fn state_integer(call: &KeyCall<'_>, column: usize) -> i64 {
    match call.state().map(|state| &state[column]) {
        Some(ScalarValue::Int64(Some(value)) | ScalarValue::TimestampMicrosecond(Some(value), _)) => *value,
        _ => 0,
    }
}

struct RunningTotal;

impl StatefulFunction for RunningTotal {
    fn arguments(&self) -> &[&str] {
        &["column", "limit"]
    }

    fn declare(&self, input: &Schema, arguments: &Arguments) -> Result<Declaration> {
        let column = arguments.text("column").unwrap_or("amount");
        let field = input.field_with_name(column).map_err(|_| format!("the relation has no column \"{column}\""))?;
        if !field.data_type().is_integer() {
            return Err(format!("column \"{column}\" is {}, not an integer", field.data_type()).into());
        }
        arguments.int64("limit")?;
        let columns = || vec![Field::new("total", DataType::Int64, false), Field::new("n", DataType::Int64, false)];
        Ok(Declaration::new(columns(), columns()))
    }

    fn call(&self, call: &mut KeyCall<'_>) -> Result<()> {
        let row = |total: i64, n: i64| [ScalarValue::from(total), ScalarValue::from(n)];
        let (mut total, mut n) = (state_integer(call, 0), state_integer(call, 1));
        if call.cause() == Cause::Expired {
            return call.emit(row(-total, n));
        }
        let column = call.arguments().text("column").unwrap_or("amount").to_string();
        let limit = call.arguments().int64("limit")?;
        for amount in integers(call.rows(), &column)?.into_iter().flatten() {
            if amount < 0 {
                return Err(format!("{column} {amount} is negative").into());
            }
            total += amount;
            n += 1;
            call.emit(row(total, n))?;
            if limit.is_some_and(|limit| total >= limit) {
                (total, n) = (0, 0);
            }
        }
        if n == 0 {
            call.remove();
            return Ok(());
        }
        call.update(row(total, n))
    }
}

struct Visits;

impl StatefulFunction for Visits {
    fn arguments(&self) -> &[&str] {
        &["gap"]
    }

    fn declare(&self, input: &Schema, arguments: &Arguments) -> Result<Declaration> {
        input.field_with_name("ts").map_err(|_| "the relation has no column \"ts\"")?;
        arguments.micros("gap")?.ok_or("argument \"gap\" is missing")?;
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let columns =
            vec![Field::new("started", time.clone(), false), Field::new("ended", time, false), Field::new("n", DataType::Int64, false)];
        Ok(Declaration::new(columns.clone(), columns).with_event_timer())
    }

    fn call(&self, call: &mut KeyCall<'_>) -> Result<()> {
        let gap = call.arguments().micros("gap")?.ok_or("argument \"gap\" is missing")?;
        let row = |start: i64, end: i64, n: i64| {
            [ScalarValue::TimestampMicrosecond(Some(start), None), ScalarValue::TimestampMicrosecond(Some(end), None), ScalarValue::from(n)]
        };
        let (mut start, mut end, mut n) = (state_integer(call, 0), state_integer(call, 1), state_integer(call, 2));
        if let Cause::EventTimer(_) = call.cause() {
            call.emit(row(start, end, n))?;
            call.remove();
            return Ok(());
        }
        for time in integers(call.rows(), "ts")?.into_iter().flatten() {
            if n > 0 && time - end > gap {
                call.emit(row(start, end, n))?;
                n = 0;
            }
            if n == 0 {
                start = time;
            }
            (end, n) = (time, n + 1);
        }
        if n == 0 {
            return Ok(());
        }
        call.update(row(start, end, n))?;
        call.wake_at_event_time(EventTime(end + gap))
    }
}

struct Silence;

impl StatefulFunction for Silence {
    fn arguments(&self) -> &[&str] {
        &["after"]
    }

    fn declare(&self, _: &Schema, arguments: &Arguments) -> Result<Declaration> {
        arguments.micros("after")?.ok_or("argument \"after\" is missing")?;
        let column = || vec![Field::new("silent", DataType::Int64, false)];
        Ok(Declaration::new(column(), column()).with_clock_timer())
    }

    fn call(&self, call: &mut KeyCall<'_>) -> Result<()> {
        let after = call.arguments().micros("after")?.ok_or("argument \"after\" is missing")?;
        let mut silent = 0;
        if let Cause::ClockTimer(_) = call.cause() {
            silent = state_integer(call, 0) + 1;
            call.emit([ScalarValue::from(silent)])?;
        }
        call.update([ScalarValue::from(silent)])?;
        call.wake_at_clock(EventTime(call.clock().0 + after))
    }
}
