//! Conditions that the clock turns: `ts > now() - INTERVAL '1 hour'` is true of a row until an instant, and false from then on.
//!
//! ```text
//!   ts > now() - INTERVAL '1 hour'       ───────true───────┐___false___          falls
//!   starts_at <= now()                   ___false___┌───────true───────          rises
//!                                                   the clock ─▶
//! ```
//! What counts as such a condition is a closed list, because a wrong answer would show rows at the wrong time: comparisons, AND, OR and NOT
//! over expressions that grow or shrink with the clock whatever the row holds. NULL lies between false and true and changes nothing:
//! a condition that grows goes from false over NULL to true. Months are refused (`now() - INTERVAL '1 month'` stands still, and even
//! goes back, where one month is longer than the next), and so are days in zones whose clocks change.

use crate::canonical::{has_subquery, is_volatile, reads_clock};
use crate::error::Result;
use crate::functions::clock::{Reading, reading};
use crate::watermark::has_even_days;
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{Between, ScalarFunction};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, cast};
use std::sync::Arc;

/// Name of the column that stands for the clock.
const CLOCK: &str = "__clock";

/// How a value changes while the clock goes on and the row stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Not at all.
    Still,
    /// It never shrinks; of a condition: it may become true.
    Rises,
    /// It never grows; of a condition: it may become false.
    Falls,
}

/// A conjunction as conditions that turn at most once each; `None` if it does not consist of such.
pub(crate) fn turning(condition: &Expr, schema: &DFSchema) -> Option<Vec<(Expr, Turn)>> {
    let compared = |left: &Expr, op, right: &Expr| Expr::BinaryExpr(BinaryExpr::new(Box::new(left.clone()), op, Box::new(right.clone())));
    let mut found = vec![];
    for part in split_conjunction_owned(condition.clone()) {
        let halves = match &part {
            Expr::Between(Between { expr, negated: false, low, high }) => {
                vec![compared(expr, Operator::GtEq, low), compared(expr, Operator::LtEq, high)]
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
                vec![compared(left, Operator::GtEq, right), compared(left, Operator::LtEq, right)]
            }
            _ => vec![part],
        };
        for half in halves {
            let turn = turn(&half, schema)?;
            found.push((half, turn));
        }
    }
    Some(found)
}

/// The expressions with a column, the last one of the schema that comes with them, in the place of the clock: `Timestamp(µs, "UTC")`.
///
/// # Errors
/// If the schema has such a column already.
pub fn over_clock(exprs: &[Expr], schema: &DFSchema) -> Result<(Vec<Expr>, DFSchema)> {
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut fields: Vec<_> = schema.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
    fields.push((None, Arc::new(Field::new(CLOCK, instant, false))));
    let with_clock = DFSchema::new_with_metadata(fields, schema.metadata().clone())?;
    let clock = || Expr::Column(Column::new_unqualified(CLOCK));
    let replace = |expr: &Expr| {
        let replaced = expr.clone().transform_up(|node| {
            let Expr::ScalarFunction(call) = &node else { return Ok(Transformed::no(node)) };
            Ok(match reading(&call.func) {
                Some(Reading::Now) => Transformed::yes(clock()),
                Some(Reading::Date) => Transformed::yes(cast(clock(), DataType::Date32)),
                Some(Reading::TimeOfDay) | None => Transformed::no(node),
            })
        });
        Ok(replaced.data()?)
    };
    Ok((exprs.iter().map(replace).collect::<Result<_>>()?, with_clock))
}

fn turn(expr: &Expr, schema: &DFSchema) -> Option<Turn> {
    if !reads_clock(expr) {
        return (!is_volatile(expr) && !has_subquery(expr)).then_some(Turn::Still);
    }
    match expr {
        Expr::Alias(alias) => turn(&alias.expr, schema),
        Expr::Not(inner) => Some(turn(inner, schema)?.reversed()),
        Expr::Cast(to) => {
            let input = turn(&to.expr, schema)?;
            keeps_order(&to.expr.get_type(schema).ok()?, to.field.data_type()).then_some(input)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (a, b) = (turn(left, schema)?, turn(right, schema)?);
            match op {
                Operator::And | Operator::Or => a.with(b),
                Operator::Gt | Operator::GtEq => a.with(b.reversed()),
                Operator::Lt | Operator::LtEq => a.reversed().with(b),
                Operator::Plus if shifts(left, right, schema)? || shifts(right, left, schema)? => a.with(b),
                Operator::Minus if shifts(left, right, schema)? || is_difference(left, right, schema)? => a.with(b.reversed()),
                Operator::Multiply | Operator::Divide if is_positive(right) => Some(a),
                _ => None,
            }
        }
        Expr::ScalarFunction(call) => function_turn(call, schema),
        _ => None,
    }
}

impl Turn {
    fn reversed(self) -> Turn {
        match self {
            Turn::Still => Turn::Still,
            Turn::Rises => Turn::Falls,
            Turn::Falls => Turn::Rises,
        }
    }

    /// Of what grows with both.
    fn with(self, other: Turn) -> Option<Turn> {
        match (self, other) {
            (Turn::Still, turn) | (turn, Turn::Still) => Some(turn),
            (a, b) => (a == b).then_some(a),
        }
    }
}

fn function_turn(call: &ScalarFunction, schema: &DFSchema) -> Option<Turn> {
    if let Some(reading) = reading(&call.func) {
        return (reading != Reading::TimeOfDay).then_some(Turn::Rises);
    }
    let is_literal = |arg: &Expr| matches!(arg, Expr::Literal(..));
    let even_days = |arg: &Expr| arg.get_type(schema).is_ok_and(|data_type| has_even_days(&data_type));
    match (call.func.name(), call.args.as_slice()) {
        ("date_trunc", [unit, moving]) if is_literal(unit) && even_days(moving) => turn(moving, schema),
        ("date_bin", [stride, moving, origin @ ..]) if is_literal(stride) && origin.iter().all(is_literal) => turn(moving, schema),
        ("date_part", [Expr::Literal(part, _), moving]) if is_epoch(part) && even_days(moving) => turn(moving, schema),
        ("to_unixtime", [moving]) if even_days(moving) => turn(moving, schema),
        _ => None,
    }
}

fn is_epoch(part: &ScalarValue) -> bool {
    part.try_as_str().flatten().is_some_and(|part| part.eq_ignore_ascii_case("epoch"))
}

fn is_date(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Date64)
}

/// Whether adding or subtracting `amount` keeps the order of `moving`.
fn shifts(moving: &Expr, amount: &Expr, schema: &DFSchema) -> Option<bool> {
    let (moving_type, amount_type) = (moving.get_type(schema).ok()?, amount.get_type(schema).ok()?);
    let even_days = is_date(&moving_type) || has_even_days(&moving_type);
    Some(match (&moving_type, &amount_type, amount) {
        (a, b, _) if a.is_numeric() && b.is_numeric() => true,
        (a, b, _) if is_date(a) && b.is_integer() => true,
        (DataType::Timestamp(..) | DataType::Date32 | DataType::Date64, DataType::Duration(_), _) => true,
        (_, _, Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _)) => {
            interval.months == 0 && (interval.days == 0 || even_days)
        }
        (_, _, Expr::Literal(ScalarValue::IntervalDayTime(Some(interval)), _)) => interval.days == 0 || even_days,
        _ => false,
    })
}

/// Whether the difference of the two is a length of time.
fn is_difference(left: &Expr, right: &Expr, schema: &DFSchema) -> Option<bool> {
    let is_time = |data_type: &DataType| is_date(data_type) || matches!(data_type, DataType::Timestamp(..));
    Some(is_time(&left.get_type(schema).ok()?) && is_time(&right.get_type(schema).ok()?))
}

fn is_positive(expr: &Expr) -> bool {
    let Expr::Literal(value, _) = expr else { return false };
    let data_type = value.data_type();
    data_type.is_numeric()
        && ScalarValue::new_zero(&data_type).is_ok_and(|zero| value.partial_cmp(&zero).is_some_and(|order| order.is_gt()))
}

/// Whether a cast never turns a greater value into a smaller one.
fn keeps_order(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Duration, Int64, Interval, Timestamp};
    match (from, to) {
        (from, to) if from == to => true,
        // An interval made of a length has neither months nor days.
        (Duration(_), Duration(_) | Interval(_) | Int64) => true,
        // Between zones the instant stays; between a zone and none it is read as local time.
        (Timestamp(_, a), Timestamp(_, b)) => a.is_some() == b.is_some() || (has_even_days(from) && has_even_days(to)),
        (Timestamp(..), Date32) => has_even_days(from),
        (Timestamp(..), Int64) | (Date32, Timestamp(_, None)) => true,
        (from, to) => (from.is_integer() || from.is_floating()) && (to.is_integer() || to.is_floating()),
    }
}
