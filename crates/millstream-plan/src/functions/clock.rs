//! `now()` and its relatives: the clock of the epoch, not of the machine.
//!
//! In a continuous query they read the [`EpochClock`], which the engine sets once per epoch from the recorded clock, so that a
//! replay sees the same values. In a one-off query the planner folds them to the query's start time. `now()` and
//! `current_timestamp` are `Timestamp(µs, "UTC")`.

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use chrono::{DateTime, Utc};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use millstream_types::EventTime;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::calendar::DAY_MICROS;

/// The clock reading of the current epoch, shared by all expressions of a pipeline.
#[derive(Debug)]
pub struct EpochClock(AtomicI64);

impl EpochClock {
    /// A clock that stands at `time`.
    pub fn new(time: EventTime) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(time.0)))
    }

    /// Moves the clock to the reading of an epoch. Nothing may be evaluated meanwhile.
    pub fn set(&self, time: EventTime) {
        self.0.store(time.0, Ordering::SeqCst);
    }

    /// The reading.
    pub fn time(&self) -> EventTime {
        EventTime(self.0.load(Ordering::SeqCst))
    }
}

/// `now()`, also `current_timestamp`.
pub fn now(clock: Arc<EpochClock>) -> ScalarUDF {
    ClockFunction::new(Reading::Now, clock).into()
}

/// `current_date`, also `today`: the UTC day.
pub fn current_date(clock: Arc<EpochClock>) -> ScalarUDF {
    ClockFunction::new(Reading::Date, clock).into()
}

/// `current_time`: the UTC time of day.
pub fn current_time(clock: Arc<EpochClock>) -> ScalarUDF {
    ClockFunction::new(Reading::TimeOfDay, clock).into()
}

/// `proctime()`, which has a meaning only in the definition of a stream.
pub fn proctime() -> ScalarUDF {
    Proctime { signature: Signature::nullary(Volatility::Stable) }.into()
}

/// What a clock function reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reading {
    /// The instant.
    Now,
    /// The UTC day.
    Date,
    /// The UTC time of day.
    TimeOfDay,
}

/// What the function reads, if it is a clock function.
pub(crate) fn reading(function: &ScalarUDF) -> Option<Reading> {
    function.inner().downcast_ref::<ClockFunction>().map(|function| function.reading)
}

impl Reading {
    fn at(self, micros: i64) -> ScalarValue {
        match self {
            Reading::Now => ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())),
            Reading::Date => ScalarValue::Date32(i32::try_from(micros.div_euclid(DAY_MICROS)).ok()),
            Reading::TimeOfDay => ScalarValue::Time64Nanosecond(Some(micros.rem_euclid(DAY_MICROS) * 1_000)),
        }
    }
}

#[derive(Debug)]
struct ClockFunction {
    reading: Reading,
    clock: Arc<EpochClock>,
    signature: Signature,
    aliases: Vec<String>,
    /// While a plan is optimized the function has no value: the optimizer evaluates what it can, also stable functions.
    frozen: bool,
}

/// The same call whose function has no value (`frozen`), or has one again; `None` if it is not a clock function.
pub(crate) fn with_frozen(function: &ScalarUDF, frozen: bool) -> Option<ScalarUDF> {
    let clock_function = function.inner().downcast_ref::<ClockFunction>()?;
    Some(ClockFunction { frozen, ..ClockFunction::new(clock_function.reading, Arc::clone(&clock_function.clock)) }.into())
}

impl ClockFunction {
    fn new(reading: Reading, clock: Arc<EpochClock>) -> Self {
        let aliases = match reading {
            Reading::Now => vec!["current_timestamp".to_string()],
            Reading::Date => vec!["today".to_string()],
            Reading::TimeOfDay => vec![],
        };
        Self { reading, clock, signature: Signature::nullary(Volatility::Stable), aliases, frozen: false }
    }
}

impl PartialEq for ClockFunction {
    fn eq(&self, other: &Self) -> bool {
        self.reading == other.reading && Arc::ptr_eq(&self.clock, &other.clock)
    }
}

impl Eq for ClockFunction {}

impl Hash for ClockFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.reading.hash(state);
    }
}

impl ScalarUDFImpl for ClockFunction {
    fn name(&self) -> &str {
        match self.reading {
            Reading::Now => "now",
            Reading::Date => "current_date",
            Reading::TimeOfDay => "current_time",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.reading {
            Reading::Now => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Reading::Date => DataType::Date32,
            Reading::TimeOfDay => DataType::Time64(TimeUnit::Nanosecond),
        })
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), self.return_type(&[])?, false)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.clock.time() {
            _ if self.frozen => exec_err!("{}() has no value while a query is planned", self.name()),
            EventTime::MIN => exec_err!("{}() was called before the first epoch", self.name()),
            EventTime(micros) => Ok(ColumnarValue::Scalar(self.reading.at(micros))),
        }
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let start: Option<DateTime<Utc>> = info.query_execution_start_time();
        Ok(match start {
            Some(start) => ExprSimplifyResult::Simplified(Expr::Literal(self.reading.at(start.timestamp_micros()), None)),
            None => ExprSimplifyResult::Original(args),
        })
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Proctime {
    signature: Signature,
}

impl ScalarUDFImpl for Proctime {
    fn name(&self) -> &str {
        "proctime"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!(
            "PROCTIME() is set once, where a row arrives: define a column `arrived AS PROCTIME()` in CREATE STREAM and select it, \
             or use now() for the clock of the epoch"
        )
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("PROCTIME() is only a computed column of a stream")
    }
}
