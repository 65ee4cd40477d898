//! Scalar, aggregate and window functions that Millstream adds to DataFusion's, or puts in their place.
//!
//! | function | why |
//! | --- | --- |
//! | `tumble_start`, `hop_starts`, `cumulate_ends`, `window_end` | windows; window table functions are rewritten to them |
//! | `session_start`, `session_end` | session windows, likewise |
//! | `now`, `current_timestamp`, `current_date`, `current_time` | read the epoch clock, in microseconds |
//! | `proctime` | refused outside stream definitions |
//! | `to_timestamp` | microseconds |
//! | `sum`, `avg` | exact and checked, so that no order of rows changes the answer; additive state, so that rows can be taken back |

pub mod calendar;
pub mod clock;
pub mod grid;
pub mod session_window;
pub mod sum;
pub mod to_timestamp;
pub mod windows;

pub use clock::EpochClock;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{AggregateUDF, Expr, ExprSchemable, ScalarUDF, WindowUDF};
use std::sync::Arc;

/// All scalar functions, sorted by name. `clock` is what `now()` reads.
pub fn all_scalar_functions(clock: Arc<EpochClock>) -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(windows::cumulate_ends()),
        Arc::new(clock::current_date(Arc::clone(&clock))),
        Arc::new(clock::current_time(Arc::clone(&clock))),
        Arc::new(windows::hop_starts()),
        Arc::new(clock::now(clock)),
        Arc::new(clock::proctime()),
        Arc::new(to_timestamp::to_timestamp()),
        Arc::new(windows::tumble_start()),
        Arc::new(windows::window_end()),
    ]
}

/// All aggregate functions, sorted by name.
pub fn all_aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    vec![Arc::new(sum::avg()), Arc::new(sum::sum())]
}

/// All window functions, sorted by name.
pub fn all_window_functions() -> Vec<Arc<WindowUDF>> {
    vec![Arc::new(session_window::session_end()), Arc::new(session_window::session_start())]
}

/// Puts all functions into a session, in place of those with the same names.
///
/// # Errors
/// If the session's registry refuses a function.
pub fn register(state: &mut SessionState, clock: Arc<EpochClock>) -> datafusion::common::Result<()> {
    for function in all_scalar_functions(clock) {
        state.register_udf(function)?;
    }
    for function in all_aggregate_functions() {
        state.register_udaf(function)?;
    }
    for function in all_window_functions() {
        state.register_udwf(function)?;
    }
    Ok(())
}

/// Whether the state of an aggregate call is a row of numbers that can be subtracted: then rows can be taken back from it at the
/// cost of the rows alone. True for `count`, `sum` and `avg` of numbers and durations, with or without `FILTER`; false with
/// `DISTINCT` or `ORDER BY`. `schema` is the schema of the aggregate's input.
pub fn additive_aggregate(expr: &Expr, schema: &DFSchema) -> bool {
    let Expr::AggregateFunction(call) = expr else { return false };
    if call.params.distinct || !call.params.order_by.is_empty() {
        return false;
    }
    if call.func.name() == "count" {
        return true;
    }
    let argument = call.params.args.first().and_then(|arg| arg.get_type(schema).ok());
    sum::is_ours(&call.func) && argument.is_some_and(|data_type| sum::is_additive(&data_type))
}

/// Whether an aggregate call is a total or average of floats, which rounds.
pub fn is_float_sum(expr: &Expr, schema: &DFSchema) -> bool {
    let Expr::AggregateFunction(call) = expr else { return false };
    let argument = call.params.args.first().and_then(|argument| argument.get_type(schema).ok());
    sum::is_ours(&call.func) && argument.is_some_and(|data_type| data_type.is_floating())
}

/// Whether an aggregate call is the smallest or largest of values that have an order: then rows can be taken back from it at the cost of
/// a search among its values. False for floats, whose NaN have no place in it, and for nested types. `schema` is the schema of the
/// aggregate's input.
pub fn extreme_aggregate(expr: &Expr, schema: &DFSchema) -> bool {
    let Expr::AggregateFunction(call) = expr else { return false };
    let ordered = |data_type: DataType| !data_type.is_nested() && !data_type.is_floating();
    matches!(call.func.name(), "min" | "max")
        && !call.params.distinct
        && call.params.order_by.is_empty()
        && call.params.args.first().and_then(|argument| argument.get_type(schema).ok()).is_some_and(ordered)
}

/// The same aggregate call without DISTINCT, if it gives the same over the values that are there, each once: `count`, `sum` and `avg` of
/// values that are told apart as DataFusion does it. `schema` is the schema of the aggregate's input.
pub fn without_distinct(expr: &Expr, schema: &DFSchema) -> Option<AggregateFunction> {
    let Expr::AggregateFunction(call) = expr else { return None };
    let [argument] = call.params.args.as_slice() else { return None };
    let told_apart = |data_type: DataType| !data_type.is_nested() && !data_type.is_floating();
    let known = call.params.distinct && call.params.order_by.is_empty() && matches!(call.func.name(), "count" | "sum" | "avg");
    if !known || !argument.get_type(schema).is_ok_and(told_apart) {
        return None;
    }
    let mut plain = call.clone();
    plain.params.distinct = false;
    Some(plain)
}

/// Whether rows can be taken back from an aggregate call with DISTINCT at the cost of the rows alone.
pub fn distinct_aggregate(expr: &Expr, schema: &DFSchema) -> bool {
    without_distinct(expr, schema).is_some_and(|plain| additive_aggregate(&Expr::AggregateFunction(plain), schema))
}
