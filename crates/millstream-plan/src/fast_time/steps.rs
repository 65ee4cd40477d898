//! How long the result of a function of time stays the same.
//!
//! `to_char(ts, '%Y-%m-%d')`, `date_part('hour', ts)` and `date_trunc('minute', ts)` give one result for all times of a day, an hour, a
//! minute. With a time zone nothing is said beyond the second: its offset may change at any one.

use arrow::compute::kernels::cast_utils::IntervalUnit;
use chrono::format::{Fixed, Item, Numeric, StrftimeItems};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::PhysicalExpr;
use std::str::FromStr;
use std::sync::Arc;

pub(super) const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The argument of `call` that is a time, and for how many microseconds, counted from 1970 by the clock of the time's zone, its result
/// does not change. `None` if there is more to it.
pub(super) fn constant_for(call: &ScalarFunctionExpr) -> Option<(usize, i64)> {
    let [first, second] = call.args() else { return None };
    match call.fun().name() {
        "to_char" => Some((0, of_format(text(second)?)?)),
        "date_part" => Some((1, of_part(text(first)?)?)),
        "date_trunc" => Some((1, of_unit(text(first)?)?)),
        _ => None,
    }
}

fn text(expr: &Arc<dyn PhysicalExpr>) -> Option<&str> {
    expr.downcast_ref::<Literal>()?.value().try_as_str().flatten()
}

/// The finest item of a format.
fn of_format(format: &str) -> Option<i64> {
    let steps = StrftimeItems::new(format).map(|item| match item {
        Item::Literal(_) | Item::OwnedLiteral(_) | Item::Space(_) | Item::OwnedSpace(_) => Some(DAY),
        Item::Numeric(numeric, _) => match numeric {
            Numeric::Year
            | Numeric::YearDiv100
            | Numeric::YearMod100
            | Numeric::IsoYear
            | Numeric::IsoYearDiv100
            | Numeric::IsoYearMod100
            | Numeric::Quarter
            | Numeric::Month
            | Numeric::Day
            | Numeric::WeekFromSun
            | Numeric::WeekFromMon
            | Numeric::IsoWeek
            | Numeric::NumDaysFromSun
            | Numeric::WeekdayFromMon
            | Numeric::Ordinal => Some(DAY),
            Numeric::Hour | Numeric::Hour12 => Some(HOUR),
            Numeric::Minute => Some(MINUTE),
            Numeric::Second | Numeric::Timestamp => Some(SECOND),
            _ => None,
        },
        Item::Fixed(fixed) => match fixed {
            Fixed::ShortMonthName | Fixed::LongMonthName | Fixed::ShortWeekdayName | Fixed::LongWeekdayName => Some(DAY),
            Fixed::LowerAmPm | Fixed::UpperAmPm => Some(HOUR),
            _ => None,
        },
        Item::Error => None,
    });
    steps.reduce(|a, b| Some(a?.min(b?)))?
}

fn of_part(part: &str) -> Option<i64> {
    match IntervalUnit::from_str(part).ok() {
        Some(IntervalUnit::Year | IntervalUnit::Month | IntervalUnit::Week | IntervalUnit::Day) => Some(DAY),
        Some(IntervalUnit::Hour) => Some(HOUR),
        Some(IntervalUnit::Minute) => Some(MINUTE),
        Some(_) => None,
        None => matches!(&*part.to_ascii_lowercase(), "isoyear" | "quarter" | "qtr" | "doy" | "dow" | "isodow").then_some(DAY),
    }
}

fn of_unit(unit: &str) -> Option<i64> {
    match &*unit.to_ascii_lowercase() {
        "year" | "quarter" | "month" | "week" | "day" => Some(DAY),
        "hour" => Some(HOUR),
        "minute" => Some(MINUTE),
        "second" => Some(SECOND),
        _ => None,
    }
}
