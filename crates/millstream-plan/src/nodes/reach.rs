//! Window functions that see a fixed number of rows on both sides: a row that comes behind all others of its partition changes the
//! results of so many rows before it, and of no others.
//!
//! ```sql
//! SELECT ts, lead(ts) OVER w - ts AS pause, avg(price) OVER (w ROWS BETWEEN 2 PRECEDING AND 2 FOLLOWING) AS smooth FROM bids
//! WINDOW w AS (PARTITION BY auction ORDER BY ts, id)
//! ```
//! ```text
//!   stored  ─ ─ ─ b b a a    +   ● ● new rows      a: their results change     b: what decides those of a
//! ```
//! That is so for `lag`, `lead`, and for aggregates, `first_value`, `last_value` and `nth_value` over frames of ROWS with both ends.
//! All calls share partition and order. Exact types only, as in `tail.rs`, which takes the plans that look back only.

use crate::canonical::{has_subquery, is_volatile, reads_clock};
use crate::graph::{FragmentKey, Node, Reach};
use crate::nodes::tail::{BACK_MAX, Partition, partition_of};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition};
use std::sync::Arc;

/// How far the calls of a plan over `input`, which is local to `keys`, see; `None` if that is not fixed.
pub(super) fn reach_of(plan: &LogicalPlan, input: &Node, keys: &[FragmentKey]) -> Option<Reach> {
    let Partition { calls, outputs, of_input, order } = partition_of(plan, input, keys)?;
    let (mut back, mut ahead) = (0, 0);
    for call in &calls {
        // By a shorter order rows could tie.
        if call.params.order_by.len() != order.len() {
            return None;
        }
        let (before, behind) = reach(call, &of_input)?;
        back = back.max(before);
        ahead = ahead.max(behind);
    }
    let is_plain = |expr: &Expr| !is_volatile(expr) && !reads_clock(expr) && !has_subquery(expr);
    let plain = order.iter().map(|key| &key.expr).chain(&outputs).all(is_plain);
    (plain && ahead > 0).then(|| Reach { input: Arc::new(of_input), order, back, ahead })
}

/// How many rows before and behind a row a call sees.
fn reach(call: &WindowFunction, schema: &DFSchema) -> Option<(u64, u64)> {
    let params = &call.params;
    if params.filter.is_some() || params.null_treatment.is_some() || params.distinct {
        return None;
    }
    let is_exact = |expr: &Expr| expr.get_type(schema).is_ok_and(|data_type| !data_type.is_floating() && !data_type.is_nested());
    if !params.args.iter().all(is_exact) || params.args.iter().any(|arg| is_volatile(arg) || reads_clock(arg) || has_subquery(arg)) {
        return None;
    }
    let in_frame = || frame(call);
    match &call.fun {
        WindowFunctionDefinition::WindowUDF(function) => match (function.name(), params.args.as_slice()) {
            ("lag", [_, rest @ ..]) => Some((offset(rest)?, 0)),
            ("lead", [_, rest @ ..]) => Some((0, offset(rest)?)),
            ("first_value" | "last_value", [_]) | ("nth_value", [_, Expr::Literal(..)]) => in_frame(),
            _ => None,
        },
        WindowFunctionDefinition::AggregateUDF(function) => {
            matches!(function.name(), "count" | "sum" | "avg" | "min" | "max" | "bool_and" | "bool_or").then(in_frame)?
        }
    }
}

/// The offset of `lag` and `lead`; a value in place of rows that are not there may follow it.
fn offset(rest: &[Expr]) -> Option<u64> {
    let offset = match rest {
        [] => 1,
        [Expr::Literal(ScalarValue::Int64(Some(offset)), _)] | [Expr::Literal(ScalarValue::Int64(Some(offset)), _), Expr::Literal(..)] => {
            u64::try_from(*offset).ok()?
        }
        _ => return None,
    };
    (1..=BACK_MAX).contains(&offset).then_some(offset)
}

/// How far a frame of ROWS goes in both directions.
fn frame(call: &WindowFunction) -> Option<(u64, u64)> {
    let frame = &call.params.window_frame;
    // A frame may lie before its row, or behind it, as a whole.
    let side = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => Some((0, 0)),
        WindowFrameBound::Preceding(ScalarValue::UInt64(Some(rows))) => Some((*rows, 0)),
        WindowFrameBound::Following(ScalarValue::UInt64(Some(rows))) => Some((0, *rows)),
        _ => None,
    };
    let ((back, ahead), (less_back, more_ahead)) = (side(&frame.start_bound)?, side(&frame.end_bound)?);
    let (back, ahead) = (back.max(less_back), ahead.max(more_ahead));
    (frame.units == WindowFrameUnits::Rows && back <= BACK_MAX && ahead <= BACK_MAX).then_some((back, ahead))
}
