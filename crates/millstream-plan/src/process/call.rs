//! One call of a stateful function: what it sees of a key, and what it does to it.

use super::function::{Arguments, Declaration, FunctionError};
use arrow::datatypes::{Field, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use millstream_types::EventTime;

/// Why a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The key has rows in this epoch.
    Rows,
    /// The watermark has passed the key's timer in event time, which stood at this time.
    EventTimer(EventTime),
    /// The epoch clock has reached the key's timer, which stood at this time.
    ClockTimer(EventTime),
    /// Nothing has touched the key for as long as `state_ttl` says. Its state is removed after the call.
    Expired,
}

/// The time of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The epoch clock.
    pub clock: EventTime,
    /// The watermark of the input at the end of the epoch; `None` before there is one, [`EventTime::MAX`] when the input has ended.
    pub watermark: Option<EventTime>,
}

/// What is kept for a key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyState {
    /// The row of state, with the declared columns; `None` if there is none.
    pub row: Option<Vec<ScalarValue>>,
    /// When the function wants to be called in event time.
    pub event_timer: Option<EventTime>,
    /// When it wants to be called by the epoch clock.
    pub clock_timer: Option<EventTime>,
}

/// The rows that calls return, in order.
#[derive(Clone, Debug, Default)]
pub struct Emitted {
    /// Values by column, row after row, since the last batch.
    rows: Vec<Vec<ScalarValue>>,
    batches: Vec<RecordBatch>,
    count: usize,
}

impl Emitted {
    /// How many rows there are.
    pub fn num_rows(&self) -> usize {
        self.count
    }

    /// The rows as batches of `schema`.
    ///
    /// # Errors
    /// When values do not form columns, which their types rule out.
    pub fn into_batches(mut self, schema: &SchemaRef) -> datafusion::common::Result<Vec<RecordBatch>> {
        self.seal(schema)?;
        Ok(self.batches)
    }

    fn seal(&mut self, schema: &SchemaRef) -> datafusion::common::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        if !rows.is_empty() {
            self.batches.push(rows_to_batch(schema, rows)?);
        }
        Ok(())
    }
}

/// Rows of values as a batch; the values have the types of `schema`.
pub(super) fn rows_to_batch(schema: &SchemaRef, rows: Vec<Vec<ScalarValue>>) -> datafusion::common::Result<RecordBatch> {
    let count = rows.len();
    let mut columns: Vec<Vec<ScalarValue>> = schema.fields().iter().map(|_| Vec::with_capacity(count)).collect();
    for row in rows {
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    let arrays = columns.into_iter().map(ScalarValue::iter_to_array).collect::<datafusion::common::Result<Vec<_>>>()?;
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(SchemaRef::clone(schema), arrays, &options)?)
}

/// A call of a stateful function: the key, its new rows, its state.
#[derive(Debug)]
pub struct KeyCall<'a> {
    declaration: &'a Declaration,
    arguments: &'a Arguments,
    moment: Moment,
    cause: Cause,
    key: &'a [ScalarValue],
    rows: RecordBatch,
    state: &'a mut KeyState,
    emitted: &'a mut Emitted,
    changed: bool,
}

impl<'a> KeyCall<'a> {
    /// A call with `rows` of the key (none, unless `cause` is [`Cause::Rows`]). A test of a function can make one, too.
    #[expect(clippy::too_many_arguments, reason = "it is what a call consists of")]
    pub fn new(
        declaration: &'a Declaration,
        arguments: &'a Arguments,
        moment: Moment,
        cause: Cause,
        key: &'a [ScalarValue],
        rows: RecordBatch,
        state: &'a mut KeyState,
        emitted: &'a mut Emitted,
    ) -> Self {
        Self { declaration, arguments, moment, cause, key, rows, state, emitted, changed: false }
    }

    /// Why it is called.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The values of PARTITION BY; none without that clause.
    pub fn key(&self) -> &[ScalarValue] {
        self.key
    }

    /// The new rows of the key in the order of ORDER BY; rows that tie, and all without that clause, in the order in which they came.
    /// All columns of the relation are there. Empty when a timer or `state_ttl` is the cause.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// The named arguments.
    pub fn arguments(&self) -> &Arguments {
        self.arguments
    }

    /// The epoch clock.
    pub fn clock(&self) -> EventTime {
        self.moment.clock
    }

    /// The watermark of the input at the end of the epoch, where the input has one.
    pub fn watermark(&self) -> Option<EventTime> {
        self.moment.watermark
    }

    /// The state of the key, by column; `None` if it has none.
    pub fn state(&self) -> Option<&[ScalarValue]> {
        self.state.row.as_deref()
    }

    /// Replaces the state of the key.
    ///
    /// # Errors
    /// When the values do not fit the declared columns, or the state is about to expire.
    pub fn update(&mut self, values: impl IntoIterator<Item = ScalarValue>) -> Result<(), FunctionError> {
        if self.cause == Cause::Expired {
            return Err("state that expires cannot be updated".into());
        }
        self.state.row = Some(fitted(values, self.declaration.state(), "state")?);
        self.changed = true;
        Ok(())
    }

    /// Removes the state of the key, and its timers.
    pub fn remove(&mut self) {
        *self.state = KeyState::default();
        self.changed = true;
    }

    /// Asks to be called when the watermark has passed `time`: when it is greater. It replaces the timer that the key has; `None` removes
    /// it. A key without state at the end of a call has no timers.
    ///
    /// # Errors
    /// When the function has not declared such timers.
    pub fn wake_at_event_time(&mut self, time: impl Into<Option<EventTime>>) -> Result<(), FunctionError> {
        if !self.declaration.event_timer {
            return Err("it sets a timer in event time, which its declaration does not name (Declaration::with_event_timer)".into());
        }
        self.state.event_timer = time.into();
        Ok(())
    }

    /// Asks to be called when the epoch clock has reached `time`. It replaces the timer that the key has; `None` removes it. A key
    /// without state at the end of a call has no timers.
    ///
    /// # Errors
    /// When the function has not declared such timers.
    pub fn wake_at_clock(&mut self, time: impl Into<Option<EventTime>>) -> Result<(), FunctionError> {
        if !self.declaration.clock_timer {
            return Err("it sets a timer by the clock, which its declaration does not name (Declaration::with_clock_timer)".into());
        }
        self.state.clock_timer = time.into();
        Ok(())
    }

    /// Returns a row.
    ///
    /// # Errors
    /// When the values do not fit the declared columns.
    pub fn emit(&mut self, values: impl IntoIterator<Item = ScalarValue>) -> Result<(), FunctionError> {
        let row = fitted(values, self.declaration.output(), "row")?;
        self.emitted.rows.push(row);
        self.emitted.count += 1;
        Ok(())
    }

    /// Returns rows with the declared columns.
    ///
    /// # Errors
    /// When the columns are others.
    pub fn emit_batch(&mut self, batch: RecordBatch) -> Result<(), FunctionError> {
        let schema = self.declaration.output();
        let rows = batch.num_rows();
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(SchemaRef::clone(schema), batch.columns().to_vec(), &options)
            .map_err(|error| format!("a batch that it returns does not have the declared columns: {error}"))?;
        self.emitted.seal(schema)?;
        self.emitted.batches.push(batch);
        self.emitted.count += rows;
        Ok(())
    }

    /// Whether the state was replaced or removed.
    pub fn has_changed_state(&self) -> bool {
        self.changed
    }
}

/// The values with the types of the columns.
fn fitted(values: impl IntoIterator<Item = ScalarValue>, schema: &SchemaRef, what: &str) -> Result<Vec<ScalarValue>, FunctionError> {
    let values: Vec<ScalarValue> = values.into_iter().collect();
    if values.len() != schema.fields().len() {
        return Err(format!("its {what} has {} values, {} columns are declared", values.len(), schema.fields().len()).into());
    }
    let fit = |(value, field): (ScalarValue, &std::sync::Arc<Field>)| -> Result<ScalarValue, FunctionError> {
        if value.is_null() && !field.is_nullable() {
            return Err(format!("column \"{}\" of its {what} is NULL, which its declaration rules out", field.name()).into());
        }
        if value.data_type() == *field.data_type() {
            return Ok(value);
        }
        let cast = value.cast_to(field.data_type()).ok().filter(|cast| cast.is_null() == value.is_null());
        cast.ok_or_else(|| {
            format!("column \"{}\" of its {what} is {value} ({}), declared is {}", field.name(), value.data_type(), field.data_type())
                .into()
        })
    };
    values.into_iter().zip(schema.fields()).map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Int64Type, Schema};
    use std::sync::Arc;

    fn check(cause: Cause, run: impl FnOnce(&mut KeyCall<'_>) -> Result<(), FunctionError>) -> (KeyState, Result<Vec<i64>, String>) {
        let declaration = Declaration::new(vec![Field::new("n", DataType::Int64, false)], vec![Field::new("n", DataType::Int64, false)]);
        let (arguments, mut state, mut emitted) = (Arguments::default(), KeyState::default(), Emitted::default());
        let moment = Moment { clock: EventTime(0), watermark: None };
        let rows = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let mut call = KeyCall::new(&declaration, &arguments, moment, cause, &[], rows, &mut state, &mut emitted);
        let result = run(&mut call);
        let batches = emitted.into_batches(declaration.output()).unwrap();
        let values = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        (state, result.map(|()| values).map_err(|error| error.to_string()))
    }

    #[test]
    fn rows_and_batches_keep_their_order() {
        let (state, emitted) = check(Cause::Rows, |call| {
            call.emit([ScalarValue::from(1_i64)])?;
            call.emit([ScalarValue::from(2_i32)])?;
            let column: ArrayRef = Arc::new(Int64Array::from(vec![3, 4]));
            call.emit_batch(RecordBatch::try_from_iter([("other", column)])?)?;
            call.emit([ScalarValue::from("5")])?;
            call.update([ScalarValue::from(7_i64)])
        });
        assert_eq!(emitted, Ok(vec![1, 2, 3, 4, 5]));
        assert_eq!(state.row, Some(vec![ScalarValue::Int64(Some(7))]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |cause, run: fn(&mut KeyCall<'_>) -> Result<(), FunctionError>| check(cause, run).1.unwrap_err();
        assert_eq!(refused(Cause::Rows, |call| call.emit([])), "its row has 0 values, 1 columns are declared");
        let null = refused(Cause::Rows, |call| call.update([ScalarValue::Int64(None)]));
        assert_eq!(null, "column \"n\" of its state is NULL, which its declaration rules out");
        let text = refused(Cause::Rows, |call| call.emit([ScalarValue::from("many")]));
        assert_eq!(text, "column \"n\" of its row is many (Utf8), declared is Int64");
        assert_eq!(refused(Cause::Expired, |call| call.update([ScalarValue::from(1_i64)])), "state that expires cannot be updated");
        assert!(refused(Cause::Rows, |call| call.wake_at_clock(EventTime(1))).contains("with_clock_timer"));
        assert!(refused(Cause::Rows, |call| call.wake_at_event_time(EventTime(1))).contains("with_event_timer"));
    }
}
