//! What a stateful function is, and where functions are found by name.

use super::call::KeyCall;
use crate::error::{PlanError, Result};
use arrow::datatypes::{Fields, IntervalMonthDayNanoType, IntervalUnit, Schema, SchemaRef};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a function reports when it cannot go on. The epoch fails with it, the name of the function and the key.
pub type FunctionError = Box<dyn std::error::Error + Send + Sync>;

/// Names of arguments that PROCESS itself reads.
pub(super) const RESERVED: [&str; 3] = ["initial", "result", "state_ttl"];

/// A function that is called key by key: `FROM PROCESS(name, TABLE t PARTITION BY (key) ..)`.
///
/// ```text
///   declare ── once per query, at CREATE and at every start of the engine
///      │
///   call ──── per epoch and key with rows; once more per due timer; once more before state_ttl drops the state
/// ```
/// Calls come from the task that runs the query, one after the other, in the order of the keys; they must not block. The result of a
/// call must follow from the call alone: an epoch that is run again after a crash has to give the same rows. When a call fails, the
/// epoch fails and nothing of it is kept.
pub trait StatefulFunction: Send + Sync {
    /// Names of the arguments it knows, in lower case. Others are refused.
    fn arguments(&self) -> &[&str] {
        &[]
    }

    /// What it keeps and returns for rows with these columns.
    ///
    /// # Errors
    /// When the columns or the arguments are not as the function needs them: the statement is refused with the message.
    fn declare(&self, input: &Schema, arguments: &Arguments) -> std::result::Result<Declaration, FunctionError>;

    /// Takes the rows of a key, or a time-out of it.
    ///
    /// # Errors
    /// When the function cannot go on; the epoch fails.
    fn call(&self, call: &mut KeyCall<'_>) -> std::result::Result<(), FunctionError>;
}

/// The columns of a function's state and of its rows, and the timers it sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Columns of the one row of state per key.
    pub(crate) state: SchemaRef,
    /// Columns of the rows it returns. PROCESS puts the key columns before them.
    pub(crate) output: SchemaRef,
    pub(crate) event_timer: bool,
    pub(crate) clock_timer: bool,
}

impl Declaration {
    /// State and rows with these columns.
    pub fn new(state: impl Into<Fields>, output: impl Into<Fields>) -> Self {
        let schema = |fields: Fields| Arc::new(Schema::new(fields));
        Self { state: schema(state.into()), output: schema(output.into()), event_timer: false, clock_timer: false }
    }

    /// The function sets timers in event time. The input must have a column with a watermark then.
    #[must_use]
    pub fn with_event_timer(self) -> Self {
        Self { event_timer: true, ..self }
    }

    /// The function sets timers by the epoch clock. Epochs run for the clock alone then.
    #[must_use]
    pub fn with_clock_timer(self) -> Self {
        Self { clock_timer: true, ..self }
    }

    /// Columns of the state.
    pub fn state(&self) -> &SchemaRef {
        &self.state
    }

    /// Columns of the rows it returns, without the key.
    pub fn output(&self) -> &SchemaRef {
        &self.output
    }

    /// Whether it sets timers in event time.
    pub fn has_event_timer(&self) -> bool {
        self.event_timer
    }

    /// Whether it sets timers by the epoch clock.
    pub fn has_clock_timer(&self) -> bool {
        self.clock_timer
    }
}

/// The named arguments of a PROCESS: constants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    values: BTreeMap<String, ScalarValue>,
}

impl Arguments {
    /// Arguments by name, in lower case.
    pub fn new(values: impl IntoIterator<Item = (String, ScalarValue)>) -> Self {
        Self { values: values.into_iter().collect() }
    }

    /// The value of an argument, if it was given.
    pub fn get(&self, name: &str) -> Option<&ScalarValue> {
        self.values.get(name)
    }

    /// An argument as an integer.
    ///
    /// # Errors
    /// When it is no integer.
    pub fn int64(&self, name: &str) -> std::result::Result<Option<i64>, FunctionError> {
        match self.cast(name, &DataType::Int64, "an integer")? {
            Some(ScalarValue::Int64(value)) => Ok(value),
            _ => Ok(None),
        }
    }

    /// An argument as a floating-point number.
    ///
    /// # Errors
    /// When it is no number.
    pub fn float64(&self, name: &str) -> std::result::Result<Option<f64>, FunctionError> {
        match self.cast(name, &DataType::Float64, "a number")? {
            Some(ScalarValue::Float64(value)) => Ok(value),
            _ => Ok(None),
        }
    }

    /// An argument as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.try_as_str().flatten()
    }

    /// An argument as a length of time, in microseconds.
    ///
    /// # Errors
    /// When it is no interval of days and shorter units.
    pub fn micros(&self, name: &str) -> std::result::Result<Option<i64>, FunctionError> {
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        match self.cast(name, &interval, "an interval")? {
            Some(ScalarValue::IntervalMonthDayNano(Some(value))) => {
                let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
                if months != 0 {
                    return Err(format!("argument \"{name}\" has months, whose length is not fixed").into());
                }
                Ok(Some(i64::from(days) * 86_400_000_000 + nanos / 1_000))
            }
            _ => Ok(None),
        }
    }

    fn cast(&self, name: &str, data_type: &DataType, what: &str) -> std::result::Result<Option<ScalarValue>, FunctionError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let cast = value.cast_to(data_type).ok().filter(|cast| cast.is_null() == value.is_null());
        // A fraction is no integer, although it can be cast to one.
        let exact = cast.filter(|cast| !data_type.is_integer() || cast.cast_to(&value.data_type()).is_ok_and(|back| back == *value));
        exact.map(Some).ok_or_else(|| format!("argument \"{name}\" is {value}, not {what}").into())
    }

    /// `name => value` pairs.
    pub(crate) fn describe(&self) -> String {
        let written = |(name, value): (&String, &ScalarValue)| match value.try_as_str().flatten() {
            Some(text) => format!("{name} => '{}'", text.replace('\'', "''")),
            None => format!("{name} => {value}"),
        };
        self.values.iter().map(written).collect::<Vec<_>>().join(", ")
    }
}

/// Functions by name.
#[derive(Clone, Default)]
pub struct StatefulFunctions {
    functions: BTreeMap<String, Arc<dyn StatefulFunction>>,
}

impl std::fmt::Debug for StatefulFunctions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.functions.keys()).finish()
    }
}

impl StatefulFunctions {
    /// Adds a function. SQL knows it by this name, in any case.
    ///
    /// # Errors
    /// When the name is taken, or an argument has a name that PROCESS itself reads.
    pub fn register(&mut self, name: &str, function: Arc<dyn StatefulFunction>) -> Result<()> {
        if let Some(reserved) = function.arguments().iter().find(|argument| RESERVED.contains(argument)) {
            let problem = format!("its argument \"{reserved}\" is one that PROCESS itself reads");
            return Err(PlanError::Process { function: name.into(), problem, remedy: "Give the argument another name.".into() });
        }
        let known = self.functions.insert(name.to_lowercase(), function);
        match known {
            None => Ok(()),
            Some(_) => {
                let problem = "there is a function of this name already".into();
                Err(PlanError::Process { function: name.into(), problem, remedy: "Register it under another name.".into() })
            }
        }
    }

    /// The function of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn StatefulFunction>> {
        self.functions.get(&name.to_lowercase())
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(value: ScalarValue) -> Arguments {
        Arguments::new([("x".to_string(), value)])
    }

    #[test]
    fn arguments_are_read_exactly() {
        assert_eq!(arguments(ScalarValue::Int64(Some(3))).int64("x").unwrap(), Some(3));
        assert_eq!(arguments(ScalarValue::Decimal128(Some(30), 2, 1)).int64("x").unwrap(), Some(3));
        assert_eq!(arguments(ScalarValue::Decimal128(Some(35), 2, 1)).float64("x").unwrap(), Some(3.5));
        let error = arguments(ScalarValue::Decimal128(Some(35), 2, 1)).int64("x").unwrap_err();
        assert_eq!(error.to_string(), "argument \"x\" is 3.5, not an integer");
        assert!(arguments(ScalarValue::from("abc")).float64("x").is_err());
        assert_eq!(arguments(ScalarValue::from("abc")).text("x"), Some("abc"));
        assert_eq!(Arguments::default().int64("x").unwrap(), None);
        let interval = ScalarValue::new_interval_mdn(0, 1, 5_000_000);
        assert_eq!(arguments(interval).micros("x").unwrap(), Some(86_400_005_000));
        assert!(arguments(ScalarValue::new_interval_mdn(1, 0, 0)).micros("x").is_err());
    }
}
