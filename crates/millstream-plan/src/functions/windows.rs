//! The functions that window table functions are rewritten to.
//!
//! ```text
//! tumble_start(ts, size [, offset [, zone]])            start of the window that contains ts
//! hop_starts(ts, slide, size [, offset [, zone]])       starts of all windows that contain ts, ascending
//! cumulate_ends(ts, step, size [, offset [, zone]])     ends of all windows of ts's span that end after ts, ascending
//! window_end(start, size [, zone])                      end of a window, exclusive
//! ```
//! A hop window starts at a multiple of `slide` and is `size` long; with `slide > size` a row may be in none. Cumulating windows
//! share the start of the tumbling window of `size` and end every `step`, at the latest with it.
//!
//! **In**: `ts: Timestamp(µs)` with or without zone, everything else constant. **Out**: the type of `ts`, or a list of it; NULL
//! gives NULL. **Watermark**: all are monotone in `ts`; lists in their first element. **Errors**: lengths that are not positive,
//! unknown zones, times outside of the calendar.
//!
//! Fixed lengths cost a division or two per row. Months, and days in a zone whose clocks change, go through the calendar with a
//! one-window cache, because neighbouring rows mostly share a window.

use super::calendar::{Span, Zone};
use super::grid::{Grid, Step, end_after};
use arrow::array::{Array, ArrayRef, ListArray, PrimitiveArray, TimestampMicrosecondArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use datafusion::common::cast::as_timestamp_microsecond_array;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::any::Any;
use std::sync::Arc;

/// A row may not be in more windows than this: a typing error in `slide` should not fill the memory.
const WINDOWS_PER_ROW_MAX: i64 = 100_000;

/// `tumble_start(ts, size [, offset [, zone]])`.
pub fn tumble_start() -> ScalarUDF {
    WindowFunction::new(Kind::TumbleStart).into()
}

/// `hop_starts(ts, slide, size [, offset [, zone]])`.
pub fn hop_starts() -> ScalarUDF {
    WindowFunction::new(Kind::HopStarts).into()
}

/// The earliest hop window that ends after `ts`, as a list of one. Unlike the first of `hop_starts` it exists even where `ts` falls
/// between windows, so watermarks are sent through it.
pub fn first_open_hop() -> ScalarUDF {
    WindowFunction::new(Kind::FirstOpenHop).into()
}

/// `cumulate_ends(ts, step, size [, offset [, zone]])`.
pub fn cumulate_ends() -> ScalarUDF {
    WindowFunction::new(Kind::CumulateEnds).into()
}

/// The *pane* of a row in a call of `hop_starts` or `cumulate_ends`: all rows between two neighbouring borders of windows belong to
/// the same windows, so the call gives the same list for the start of the pane as for the time itself. `None` where borders
/// follow a calendar, or where a row is in one window at most.
pub fn pane(call: &ScalarFunction) -> Option<ScalarFunction> {
    let function = (call.func.inner().as_ref() as &dyn Any).downcast_ref::<WindowFunction>()?;
    if !matches!(function.kind, Kind::HopStarts | Kind::CumulateEnds) {
        return None;
    }
    let args = call.args.iter().enumerate().map(|(index, arg)| match arg {
        Expr::Literal(value, _) => Some(ColumnarValue::Scalar(value.clone())),
        // The time; it is not looked at.
        _ => (index == 0).then_some(ColumnarValue::Scalar(ScalarValue::Null)),
    });
    let parameters = Parameters::parse(function.kind, &args.collect::<Option<Vec<_>>>()?).ok()?;
    let [step, size] = parameters.lengths.map(|length| length.fixed(parameters.zone));
    let (step, size) = (step.filter(|step| *step > 0)?, size?);
    if size <= step {
        return None;
    }
    let width = IntervalMonthDayNano::new(0, 0, gcd(size, step).checked_mul(1_000)?);
    let [time, _, _, rest @ ..] = call.args.as_slice() else { return None };
    let mut args = vec![time.clone(), Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(width)), None)];
    args.extend_from_slice(rest);
    Some(ScalarFunction::new_udf(Arc::new(tumble_start()), args))
}

fn gcd(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// `window_end(start, size [, zone])`.
pub fn window_end() -> ScalarUDF {
    WindowFunction::new(Kind::WindowEnd).into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    TumbleStart,
    HopStarts,
    FirstOpenHop,
    CumulateEnds,
    WindowEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parameter {
    Time,
    Length,
    Offset,
    Zone,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::TumbleStart => "tumble_start",
            Kind::HopStarts => "hop_starts",
            Kind::FirstOpenHop => "first_open_hop",
            Kind::CumulateEnds => "cumulate_ends",
            Kind::WindowEnd => "window_end",
        }
    }

    fn parameters(self) -> &'static [Parameter] {
        use Parameter::{Length, Offset, Time, Zone};
        match self {
            Kind::TumbleStart => &[Time, Length, Offset, Zone],
            Kind::HopStarts | Kind::FirstOpenHop | Kind::CumulateEnds => &[Time, Length, Length, Offset, Zone],
            Kind::WindowEnd => &[Time, Length, Zone],
        }
    }

    fn syntax(self) -> &'static str {
        match self {
            Kind::TumbleStart => "tumble_start(ts, size [, offset [, zone]])",
            Kind::HopStarts | Kind::FirstOpenHop => "hop_starts(ts, slide, size [, offset [, zone]])",
            Kind::CumulateEnds => "cumulate_ends(ts, step, size [, offset [, zone]])",
            Kind::WindowEnd => "window_end(start, size [, zone])",
        }
    }

    fn returns_list(self) -> bool {
        matches!(self, Kind::HopStarts | Kind::FirstOpenHop | Kind::CumulateEnds)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowFunction {
    kind: Kind,
    signature: Signature,
}

impl WindowFunction {
    fn new(kind: Kind) -> Self {
        Self { kind, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for WindowFunction {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let parameters = self.kind.parameters();
        let required = parameters.iter().filter(|parameter| matches!(parameter, Parameter::Time | Parameter::Length)).count();
        if types.len() < required || types.len() > parameters.len() {
            return plan_err!("{} takes other arguments: {}", self.name(), self.kind.syntax());
        }
        parameters.iter().zip(types).map(|(parameter, data_type)| coerce(self.kind, *parameter, data_type)).collect()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let Some(time) = types.first() else {
            return plan_err!("{} takes other arguments: {}", self.name(), self.kind.syntax());
        };
        Ok(if self.kind.returns_list() { DataType::new_list(time.clone(), true) } else { time.clone() })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types = args.arg_fields.iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        let nullable = args.arg_fields.first().is_none_or(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let parameters = Parameters::parse(self.kind, &args.args)?;
        let Some(time) = args.args.first() else {
            return exec_err!("{} takes other arguments: {}", self.name(), self.kind.syntax());
        };
        match time {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(parameters.evaluate(self.kind, array)?)),
            ColumnarValue::Scalar(scalar) => {
                let result = parameters.evaluate(self.kind, &scalar.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?))
            }
        }
    }
}

fn coerce(kind: Kind, parameter: Parameter, data_type: &DataType) -> Result<DataType> {
    use DataType::{Date32, Date64, Duration, Interval, LargeUtf8, Null, Timestamp, Utf8, Utf8View};
    match (parameter, data_type) {
        (Parameter::Time, Timestamp(_, zone)) => Ok(Timestamp(TimeUnit::Microsecond, zone.clone())),
        (Parameter::Time, Date32 | Date64 | Null) => Ok(Timestamp(TimeUnit::Microsecond, None)),
        (Parameter::Length | Parameter::Offset, Interval(_) | Duration(_) | Utf8 | Utf8View | LargeUtf8 | Null) => {
            Ok(Interval(IntervalUnit::MonthDayNano))
        }
        (Parameter::Zone, Utf8 | Utf8View | LargeUtf8 | Null) => Ok(Utf8),
        (Parameter::Time, other) => plan_err!("the time column of {} has type {other}, not a timestamp", kind.name()),
        (Parameter::Length | Parameter::Offset, other) => {
            plan_err!("{} needs an interval such as INTERVAL '10 seconds', not {other}: {}", kind.name(), kind.syntax())
        }
        (Parameter::Zone, other) => plan_err!("{} needs the name of a time zone, not {other}: {}", kind.name(), kind.syntax()),
    }
}

/// The constant arguments.
struct Parameters {
    lengths: [Span; 2],
    offset: Span,
    zone: Option<Zone>,
}

impl Parameters {
    fn parse(kind: Kind, args: &[ColumnarValue]) -> Result<Self> {
        let mut result = Self { lengths: [Span::ZERO; 2], offset: Span::ZERO, zone: None };
        let mut length_count = 0;
        for (parameter, arg) in kind.parameters().iter().zip(args) {
            if *parameter == Parameter::Time {
                continue;
            }
            let value = match arg {
                ColumnarValue::Scalar(value) => value.clone(),
                ColumnarValue::Array(array) if array.len() == 1 => ScalarValue::try_from_array(array, 0)?,
                ColumnarValue::Array(_) => return exec_err!("the windows of {} must be constants: {}", kind.name(), kind.syntax()),
            };
            match parameter {
                Parameter::Length => {
                    let Some(span) = span(&value)? else {
                        return exec_err!("a window length of {} is NULL: {}", kind.name(), kind.syntax());
                    };
                    result.lengths[length_count] = span;
                    length_count += 1;
                }
                Parameter::Offset => result.offset = span(&value)?.unwrap_or(Span::ZERO),
                Parameter::Zone => result.zone = zone(&value)?,
                Parameter::Time => {}
            }
        }
        Ok(result)
    }

    fn evaluate(&self, kind: Kind, time: &ArrayRef) -> Result<ArrayRef> {
        let time = as_timestamp_microsecond_array(time)?;
        match kind {
            Kind::TumbleStart => self.tumble_start(time),
            Kind::WindowEnd => self.window_end(time),
            Kind::HopStarts => self.hop_starts(time),
            Kind::FirstOpenHop => self.first_open_hop(time),
            Kind::CumulateEnds => self.cumulate_ends(time),
        }
    }

    fn grid(&self, step: Span) -> Result<Grid> {
        Grid::new(step, self.offset, self.zone)
    }

    fn tumble_start(&self, time: &TimestampMicrosecondArray) -> Result<ArrayRef> {
        let grid = self.grid(self.lengths[0])?;
        if let Step::Fixed { micros, origin } = grid.step() {
            let start = |ts: i64| ts.wrapping_sub(ts.wrapping_sub(origin).rem_euclid(micros));
            return Ok(with_type_of(time, time.unary(start)));
        }
        let mut cache = CachedWindow::new(grid);
        map_valid(time, |ts| Ok(cache.find(ts)?.0))
    }

    fn window_end(&self, start: &TimestampMicrosecondArray) -> Result<ArrayRef> {
        let size = self.lengths[0];
        self.grid(size)?;
        if let Some(micros) = size.fixed(self.zone) {
            return Ok(with_type_of(start, start.unary(|start: i64| start.wrapping_add(micros))));
        }
        let mut last = None;
        map_valid(start, |start| match last {
            Some((known, end)) if known == start => Ok(end),
            _ => {
                let end = end_after(start, size, 1, self.zone)?;
                last = Some((start, end));
                Ok(end)
            }
        })
    }

    fn hop_starts(&self, time: &TimestampMicrosecondArray) -> Result<ArrayRef> {
        let [slide, size] = self.lengths;
        let grid = self.grid(slide)?;
        self.grid(size)?;
        if let (Step::Fixed { micros: slide, origin }, Some(size)) = (grid.step(), size.fixed(self.zone)) {
            if size / slide > WINDOWS_PER_ROW_MAX {
                return too_many_windows();
            }
            let mut values = Vec::with_capacity(time.len() * usize::try_from(size / slide + 1).unwrap_or(1));
            return lists(
                time,
                |ts, values| {
                    let from_origin = ts.wrapping_sub(origin);
                    let last = ts.wrapping_sub(from_origin.rem_euclid(slide));
                    // The window that would end at or before `ts` and is nearest to it; the next one is the first.
                    let before = from_origin.wrapping_sub(size);
                    let mut start = ts.wrapping_sub(size).wrapping_sub(before.rem_euclid(slide)).wrapping_add(slide);
                    while start <= last {
                        values.push(start);
                        start += slide;
                    }
                    Ok(())
                },
                &mut values,
            );
        }
        lists(
            time,
            |ts, values| {
                let from = values.len();
                let mut index = grid.index(ts)?;
                loop {
                    let start = grid.start(index)?;
                    if end_after(start, size, 1, self.zone)? <= ts {
                        break;
                    }
                    values.push(start);
                    if (values.len() - from) as i64 > WINDOWS_PER_ROW_MAX {
                        return too_many_windows();
                    }
                    index -= 1;
                }
                values[from..].reverse();
                Ok(())
            },
            &mut Vec::new(),
        )
    }

    fn first_open_hop(&self, time: &TimestampMicrosecondArray) -> Result<ArrayRef> {
        let [slide, size] = self.lengths;
        let grid = self.grid(slide)?;
        if let (Step::Fixed { micros: slide, origin }, Some(size)) = (grid.step(), size.fixed(self.zone)) {
            return lists(
                time,
                |ts, values| {
                    let before = ts.wrapping_sub(size).wrapping_sub(origin);
                    values.push(ts.wrapping_sub(size).wrapping_sub(before.rem_euclid(slide)).wrapping_add(slide));
                    Ok(())
                },
                &mut Vec::new(),
            );
        }
        lists(
            time,
            |ts, values| {
                let mut index = grid.index(ts)? + 1;
                while end_after(grid.start(index - 1)?, size, 1, self.zone)? > ts {
                    index -= 1;
                }
                values.push(grid.start(index)?);
                Ok(())
            },
            &mut Vec::new(),
        )
    }

    fn cumulate_ends(&self, time: &TimestampMicrosecondArray) -> Result<ArrayRef> {
        let [step, size] = self.lengths;
        let grid = self.grid(size)?;
        self.grid(step)?;
        if let (Step::Fixed { micros: size, origin }, Some(step)) = (grid.step(), step.fixed(self.zone)) {
            if size % step != 0 {
                return exec_err!("the size of cumulating windows must be a multiple of their step");
            }
            if size / step > WINDOWS_PER_ROW_MAX {
                return too_many_windows();
            }
            return lists(
                time,
                |ts, values| {
                    let passed = ts.wrapping_sub(origin).rem_euclid(size);
                    let start = ts.wrapping_sub(passed);
                    let last = start.wrapping_add(size);
                    let mut end = start.wrapping_add((passed / step + 1) * step);
                    while end <= last {
                        values.push(end);
                        end += step;
                    }
                    Ok(())
                },
                &mut Vec::new(),
            );
        }
        let mut cache = CachedWindow::new(grid);
        lists(
            time,
            |ts, values| {
                let (start, last) = cache.find(ts)?;
                for times in 1..=WINDOWS_PER_ROW_MAX {
                    let end = end_after(start, step, times, self.zone)?.min(last);
                    if end > ts {
                        values.push(end);
                    }
                    if end >= last {
                        return Ok(());
                    }
                }
                too_many_windows()
            },
            &mut Vec::new(),
        )
    }
}

/// Remembers the window of the last row.
struct CachedWindow {
    grid: Grid,
    window: Option<(i64, i64)>,
}

impl CachedWindow {
    fn new(grid: Grid) -> Self {
        Self { grid, window: None }
    }

    fn find(&mut self, ts: i64) -> Result<(i64, i64)> {
        if let Some((start, end)) = self.window
            && start <= ts
            && ts < end
        {
            return Ok((start, end));
        }
        let index = self.grid.index(ts)?;
        let window = (self.grid.start(index)?, self.grid.start(index + 1)?);
        self.window = Some(window);
        Ok(window)
    }
}

fn map_valid(time: &TimestampMicrosecondArray, mut f: impl FnMut(i64) -> Result<i64>) -> Result<ArrayRef> {
    let values = time.iter().map(|ts| ts.map(&mut f).transpose()).collect::<Result<TimestampMicrosecondArray>>()?;
    Ok(with_type_of(time, values))
}

fn with_type_of(time: &TimestampMicrosecondArray, result: PrimitiveArray<TimestampMicrosecondType>) -> ArrayRef {
    Arc::new(result.with_data_type(time.data_type().clone()))
}

/// A list per row, filled by `fill`; NULL for NULL. `values` brings its capacity along.
fn lists(
    time: &TimestampMicrosecondArray,
    mut fill: impl FnMut(i64, &mut Vec<i64>) -> Result<()>,
    values: &mut Vec<i64>,
) -> Result<ArrayRef> {
    let mut offsets = Vec::with_capacity(time.len() + 1);
    offsets.push(0_i32);
    for row in 0..time.len() {
        if time.is_valid(row) {
            fill(time.value(row), values)?;
        }
        match i32::try_from(values.len()) {
            Ok(offset) => offsets.push(offset),
            Err(_) => return too_many_windows(),
        }
    }
    let values = TimestampMicrosecondArray::from(std::mem::take(values)).with_data_type(time.data_type().clone());
    let field = Arc::new(Field::new_list_field(time.data_type().clone(), true));
    let nulls: Option<NullBuffer> = time.nulls().cloned();
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::new(offsets.into()), Arc::new(values), nulls)?))
}

fn too_many_windows<T>() -> Result<T> {
    exec_err!("a row would be in more than {WINDOWS_PER_ROW_MAX} windows: the slide or step is too small for the size")
}

fn span(value: &ScalarValue) -> Result<Option<Span>> {
    let (months, days, nanos) = match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => (interval.months, interval.days, interval.nanoseconds),
        value if value.is_null() => return Ok(None),
        other => return exec_err!("{other} is not an interval"),
    };
    if nanos % 1_000 != 0 {
        return exec_err!("a window length of {nanos} ns is finer than a microsecond");
    }
    Ok(Some(Span { months: i64::from(months), days: i64::from(days), micros: nanos / 1_000 }))
}

fn zone(value: &ScalarValue) -> Result<Option<Zone>> {
    match value.try_as_str() {
        Some(Some(name)) => Zone::parse(name).map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
