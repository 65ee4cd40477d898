//! How bounds travel: from the columns of streams through expressions.
//!
//! A bound passes through a monotone expression of one bounded column and constants. What counts as monotone is a closed list,
//! because a wrong answer drops state too early: the column itself, casts between timestamps that keep instants, plus and minus a
//! constant without months, `date_bin`, `date_trunc` in UTC, and the window functions. Arithmetic with days is refused in zones
//! whose clocks change. The functions that return all windows of a row are replaced by the first window that is still open.

use crate::bound::Bound;
use crate::canonical::{columns_of, rebase_with};
use crate::compile::compile;
use crate::functions::windows::first_open_hop;
use crate::graph::Node;
use crate::relation::{Relation, RelationKind};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use std::sync::Arc;

/// The bound of a relation's column.
pub(crate) fn column_bound(relation: &Relation, column: &str, data_type: &DataType) -> Option<Arc<Bound>> {
    let stream = relation.versions_of.clone().unwrap_or_else(|| relation.name.clone());
    let instant = DataType::Timestamp(TimeUnit::Microsecond, None);
    let is = |name: &Option<String>| name.as_deref() == Some(column);
    let (bound, own_type) = match relation.kind {
        RelationKind::View => return relation.column_bounds.get(column).cloned(),
        _ if is(&relation.event_time) => (Bound::Watermark { stream }, instant),
        _ if is(&relation.epoch_column) => (Bound::Epoch { stream }, DataType::Int64),
        _ if relation.clock_columns.iter().any(|name| name == column) => (Bound::Clock { stream }, instant),
        _ => return None,
    };
    let bound = Arc::new(bound);
    Some(if &own_type == data_type { bound } else { Arc::new(Bound::Typed { data_type: data_type.clone(), input: bound }) })
}

/// The bound of an expression over the output of `node`.
pub(crate) fn expression_bound(expr: &Expr, node: &Node, state: &SessionState) -> Option<Arc<Bound>> {
    bound_over(expr, &node.df_schema, &node.properties.bounds, state)
}

/// The bound of an expression over columns with these bounds.
pub(crate) fn bound_over(expr: &Expr, schema: &DFSchema, bounds: &[Option<Arc<Bound>>], state: &SessionState) -> Option<Arc<Bound>> {
    let column = monotone_column(expr, schema)?;
    let input = bounds.get(column)?.clone()?;
    if matches!(expr, Expr::Column(_)) {
        return Some(input);
    }
    let open = first_open(expr.clone())?;
    // Evaluated where no other column is: that is quicker than a row of NULLs, and bounds are read in every epoch.
    let (qualifier, field) = schema.qualified_field(column);
    let field = Arc::new(field.as_ref().clone().with_nullable(true));
    let alone = DFSchema::new_with_metadata(vec![(qualifier.cloned(), field)], Default::default()).ok()?;
    let physical = compile(&open, &alone, state).ok()?;
    // There is only one column, so its place does not matter: bounds of unions are compared by this text.
    let text = rebase_with(&open, |_| Ok(Expr::Column(Column::new_unqualified("@")))).ok()?.to_string();
    Some(Arc::new(Bound::Map { expr: physical, schema: Arc::clone(alone.inner()), text, input }))
}

/// The column that a monotone expression follows, if it is one.
pub(crate) fn monotone_column(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    let columns = columns_of(expr, schema).ok()?;
    let [column] = columns.into_iter().collect::<Vec<_>>()[..] else { return None };
    (order(expr, schema)? != Order::Constant).then_some(column)
}

/// As [`monotone_column`] if different values of the column also give different values of the expression: then a row is final
/// in terms of one exactly when it is in terms of the other.
pub(crate) fn strictly_monotone_column(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    let column = monotone_column(expr, schema)?;
    (order(expr, schema)? == Order::Strict).then_some(column)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Constant,
    Strict,
    Weak,
}

/// How an expression grows with the only column it reads; `None` if that is not known.
fn order(expr: &Expr, schema: &DFSchema) -> Option<Order> {
    match expr {
        Expr::Column(_) => Some(Order::Strict),
        Expr::Literal(..) => Some(Order::Constant),
        Expr::Alias(alias) => order(&alias.expr, schema),
        Expr::Cast(cast) => cast_order(&cast.expr, cast.field.data_type(), schema),
        Expr::TryCast(cast) => cast_order(&cast.expr, cast.field.data_type(), schema),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (left_order, right_order) = (order(left, schema)?, order(right, schema)?);
            match (left_order, op, right_order) {
                (Order::Constant, _, Order::Constant) => Some(Order::Constant),
                (moving, Operator::Plus | Operator::Minus, Order::Constant) => shift_order(left, right, moving, schema),
                (Order::Constant, Operator::Plus, moving) => shift_order(right, left, moving, schema),
                _ => None,
            }
        }
        Expr::ScalarFunction(call) => function_order(call, schema),
        _ => None,
    }
}

/// Adding a constant keeps the order unless days or months of different lengths are involved.
fn shift_order(moving: &Expr, constant: &Expr, order: Order, schema: &DFSchema) -> Option<Order> {
    let moving_type = moving.get_type(schema).ok()?;
    let Expr::Literal(value, _) = constant else { return None };
    let keeps = match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => interval.months == 0 && (interval.days == 0 || has_even_days(&moving_type)),
        ScalarValue::IntervalDayTime(Some(interval)) => interval.days == 0 || has_even_days(&moving_type),
        ScalarValue::DurationSecond(Some(_))
        | ScalarValue::DurationMillisecond(Some(_))
        | ScalarValue::DurationMicrosecond(Some(_))
        | ScalarValue::DurationNanosecond(Some(_)) => true,
        value => value.data_type().is_integer() && !value.is_null() && moving_type.is_integer(),
    };
    keeps.then_some(order)
}

fn cast_order(input: &Expr, to: &DataType, schema: &DFSchema) -> Option<Order> {
    use DataType::{Date32, Int64, Timestamp};
    let input_order = order(input, schema)?;
    if input_order == Order::Constant {
        return Some(Order::Constant);
    }
    let from = input.get_type(schema).ok()?;
    let cast_order = match (&from, to) {
        (from, to) if from == to => Order::Strict,
        (Timestamp(from_unit, from_zone), Timestamp(to_unit, to_zone)) => {
            // Between zones the instant stays; between a zone and none it is read as local time.
            if from_zone.is_some() != to_zone.is_some() && !(has_even_days(&from) && has_even_days(to)) {
                return None;
            }
            if to_unit >= from_unit { Order::Strict } else { Order::Weak }
        }
        (Timestamp(..), Date32) if has_even_days(&from) => Order::Weak,
        (Timestamp(..), Int64) | (Date32, Timestamp(_, None)) => Order::Strict,
        (from, to) if from.is_integer() && to.is_integer() => Order::Strict,
        _ => return None,
    };
    Some(input_order.max(cast_order))
}

fn function_order(call: &ScalarFunction, schema: &DFSchema) -> Option<Order> {
    // The argument that may move; all others are constants.
    let (moving, result) = match call.func.name() {
        "date_bin" => (1, Order::Weak),
        "date_trunc" => (1, Order::Weak),
        "tumble_start" | "hop_starts" | "cumulate_ends" => (0, Order::Weak),
        "window_end" => (0, Order::Strict),
        _ => return None,
    };
    let mut orders = call.args.iter().map(|arg| order(arg, schema)).collect::<Option<Vec<_>>>()?;
    if moving >= orders.len() {
        return None;
    }
    let input = orders.remove(moving);
    if orders.iter().any(|order| *order != Order::Constant) {
        return None;
    }
    if call.func.name() == "date_trunc" && !has_even_days(&call.args[moving].get_type(schema).ok()?) {
        return None;
    }
    Some(if input == Order::Constant { Order::Constant } else { input.max(result) })
}

/// Whether all days of the type have the same length: no zone, or UTC.
pub(crate) fn has_even_days(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(_, None) => true,
        DataType::Timestamp(_, Some(zone)) => matches!(zone.as_ref(), "UTC" | "Etc/UTC" | "Z" | "+00:00" | "+00"),
        _ => false,
    }
}

/// The expression with `hop_starts` replaced by `first_open_hop`, whose only window ends after every time below the watermark.
fn first_open(expr: Expr) -> Option<Expr> {
    let rewritten = expr.transform(|node| match node {
        Expr::ScalarFunction(call) if call.func.name() == "hop_starts" => {
            Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(first_open_hop()), call.args))))
        }
        node => Ok(Transformed::no(node)),
    });
    rewritten.data().ok()
}
