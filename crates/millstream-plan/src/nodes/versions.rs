//! Versions: rows that know the time of the next row of their key, as the rewrite of an ASOF join makes them.
//!
//! ```text
//!   ts    lead(ts) OVER (PARTITION BY k ORDER BY ts) AS __next_1
//!   10    20      ◀─ watermark 25: no row can come between them any more
//!   20    30      ◀─ may become 20 ─▶ 27, and 27 ─▶ 30
//!   30    NULL
//! ```
//! Where the input is append-only and its time has a bound, rows come above the bound only. So what was before the last row of a key below
//! the bound is final: [`Op::TouchedKeys`] forgets it. And a join in which a version holds from its time to the next gives the same
//! result for all left rows with a time below the bound, so these are forgotten there, and versions that end below the bound of
//! the left times are, too.
//!
//! The join may forget left rows because nobody sees the time of the next row, which changes once more when the next row comes: the
//! name of the column is that of the rewrite, which leaves it out of every `*`.

use crate::bound::Bound;
use crate::canonical::{as_column, column_at, columns_of};
use crate::graph::{Node, NodeId, Op, Versions};
use crate::nodes::join::{Conditions, order_conditions};
use crate::nodes::window::call_of;
use crate::translate::Translator;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, Window, WindowFunctionDefinition, when};
use std::sync::Arc;

/// How the rewrite of ASOF joins calls the column with the time of the next row.
const NEXT: &str = "__next_";

/// Where a column of a plan comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The input.
    Input(usize),
    /// The window function.
    Next,
}

/// The versions that a plan over `input` makes, if that is all it does.
pub(crate) fn versions_of(plan: &LogicalPlan, input: &Node) -> Option<Versions> {
    let window = window_of(plan)?;
    let [expr] = window.window_expr.as_slice() else { return None };
    let call = call_of(expr)?;
    let is_lead = matches!(&call.fun, WindowFunctionDefinition::WindowUDF(function) if function.name() == "lead");
    let ([time], Some(order)) = (call.params.args.as_slice(), call.params.order_by.first()) else { return None };
    if !is_lead || !input.properties.append_only || order.expr != *time || !order.asc || call.params.null_treatment.is_some() {
        return None;
    }
    // Filters below would hide rows of the input that count as the last of their key.
    let Source::Input(time) = source(&window.input, as_column(time, window.input.schema())?, false)? else { return None };
    let bound = input.properties.bounds[time].clone()?;
    let column = |wanted: Source| (0..plan.schema().fields().len()).find(|column| source(plan, *column, true) == Some(wanted));
    let next = column(Source::Next).filter(|column| plan.schema().field(*column).name().starts_with(NEXT))?;
    Some(Versions { input_time: time, bound, time: column(Source::Input(time))?, next })
}

/// The window below filters and projections.
fn window_of(plan: &LogicalPlan) -> Option<&Window> {
    match plan {
        LogicalPlan::Window(window) => Some(window),
        LogicalPlan::Filter(filter) => window_of(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => window_of(&alias.input),
        LogicalPlan::Projection(projection) => window_of(&projection.input),
        _ => None,
    }
}

fn source(plan: &LogicalPlan, column: usize, filters: bool) -> Option<Source> {
    match plan {
        LogicalPlan::Extension(_) => Some(Source::Input(column)),
        LogicalPlan::SubqueryAlias(alias) => source(&alias.input, column, filters),
        LogicalPlan::Filter(filter) if filters => source(&filter.input, column, filters),
        LogicalPlan::Projection(projection) => {
            let expr = projection.expr.get(column)?.clone().unalias_nested().data;
            source(&projection.input, as_column(&expr, projection.input.schema())?, filters)
        }
        LogicalPlan::Window(window) if column < window.input.schema().fields().len() => source(&window.input, column, false),
        LogicalPlan::Window(_) => Some(Source::Next),
        _ => None,
    }
}

/// The condition under which a version on the right is the one of a left row.
pub(super) struct Holds {
    /// The time of a left row.
    pub(super) left_time: Expr,
    /// The bound above which rows come on the right.
    pub(super) bound: Arc<Bound>,
    /// When a version ends, over the right side; never for the last one. `None` where its type has no end.
    pub(super) until: Option<Expr>,
}

impl Translator<'_> {
    /// The versions that a node hands on.
    fn handed_on(&self, node: NodeId) -> Option<Versions> {
        let node = self.get(node);
        match &node.op {
            Op::TouchedKeys { versions, .. } => versions.clone(),
            Op::Map { exprs: None, .. } => self.handed_on(node.inputs[0]),
            Op::Map { exprs: Some(exprs), .. } => {
                let versions = self.handed_on(node.inputs[0])?;
                let below = &self.get(node.inputs[0]).df_schema;
                let place = |column: usize| exprs.iter().position(|expr| as_column(expr, below) == Some(column));
                Some(Versions { time: place(versions.time)?, next: place(versions.next)?, ..versions })
            }
            _ => None,
        }
    }

    /// What a join with versions on its right may forget: its condition is that a left time lies between a version's time and the next.
    pub(super) fn holds(&self, left: NodeId, right: NodeId, conditions: &Conditions) -> Option<Holds> {
        let versions = self.handed_on(right)?;
        let filter = conditions.filter.as_ref()?;
        let (left, right) = (self.get(left), self.get(right));
        let width = left.schema.fields().len();
        let schema: &DFSchema = &conditions.filter_schema;
        let is = |expr: &Expr, column: usize| as_column(expr, schema) == Some(width + column);
        let left_place = order_conditions(filter).into_iter().find_map(|(greater, least)| {
            let place = as_column(&greater, schema).filter(|place| *place < width)?;
            is(&least, versions.time).then_some(place)
        })?;
        let ends = |conjunct: &Expr| {
            matches!(conjunct, Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }))
                && columns_of(conjunct, schema).is_ok_and(|columns| columns.into_iter().eq([left_place, width + versions.next]))
        };
        if !split_conjunction(filter).into_iter().any(ends) {
            return None;
        }
        let next = column_at(&right.df_schema, versions.next);
        let end = match right.schema.field(versions.next).data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, zone) => Some(ScalarValue::TimestampMicrosecond(Some(i64::MAX), zone.clone())),
            _ => None,
        };
        let until = end.and_then(|end| when(next.clone().is_null(), Expr::Literal(end, None)).otherwise(next).ok());
        Some(Holds { left_time: column_at(&left.df_schema, left_place), bound: versions.bound, until })
    }
}
