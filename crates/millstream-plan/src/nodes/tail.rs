//! Window functions that look back only: what a row that stands behind all others of its partition gets follows from the end of the
//! partition, and changes no other row.
//!
//! ```sql
//! SELECT ts, sum(price) OVER w AS total, lag(price) OVER w AS before, row_number() OVER w AS place FROM bids
//! WINDOW w AS (PARTITION BY auction ORDER BY ts)
//! ```
//! ```text
//!   stored  ─ ─ ─ ─ ─ ●  last row: its place, the running total, the last values     +   ● ● new rows   ─▶ their results
//! ```
//! That is so for `row_number`, `rank`, `dense_rank`, `lag`, `first_value`, and for aggregates from the first row of the partition, or
//! from `n` rows back, to the current one. All calls of the plan are such, share the partition, and one order begins with those of all
//! others. Exact types only: the last digits of a sum of floats depend on how it was cut.

use crate::canonical::{all_columns, as_column, has_subquery, is_volatile, reads_clock};
use crate::graph::{FragmentKey, Node, Ranking, Tail, TailCall, TailFunction};
use crate::nodes::map::substitute;
use crate::nodes::window::call_of;
use arrow::datatypes::Field;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rows that are looked back at by number: more than these are not worth the copy.
pub(super) const BACK_MAX: u64 = 1_000;

/// The calls of a plan, over the columns of its input.
#[derive(Default)]
struct Calls {
    calls: Vec<WindowFunction>,
}

/// What the calls of a plan over `input`, which is local to `keys`, need of the end of a partition; `None` if that is not enough.
pub(super) fn tail_of(plan: &LogicalPlan, input: &Node, keys: &[FragmentKey]) -> Option<Tail> {
    let Partition { calls: found, outputs, of_input, order } = partition_of(plan, input, keys)?;
    let calls = found.iter().map(|call| tail_call(call, &of_input)).collect::<Option<Vec<_>>>()?;
    let mut fields: Vec<_> = of_input.fields().iter().map(|field| (None, Arc::clone(field))).collect();
    fields
        .extend(calls.iter().enumerate().map(|(index, call)| (None, Arc::new(Field::new(call_name(index), call.data_type.clone(), true)))));
    let with_calls = DFSchema::new_with_metadata(fields, Default::default()).ok()?;
    let is_plain = |expr: &Expr| !is_volatile(expr) && !reads_clock(expr) && !has_subquery(expr);
    let exprs = order.iter().map(|key| &key.expr).chain(&outputs);
    exprs.into_iter().all(is_plain).then(|| Tail {
        input: Arc::new(of_input),
        order: order.clone(),
        calls,
        with_calls: Arc::new(with_calls),
        outputs,
    })
}

/// What a plan of nothing but window functions computes.
pub(super) struct Partition {
    /// The calls, over `of_input`.
    pub(super) calls: Vec<WindowFunction>,
    /// The columns of the plan, over those of the input and one per call.
    pub(super) outputs: Vec<Expr>,
    /// The columns of the input, named by their places.
    pub(super) of_input: DFSchema,
    /// The longest ORDER BY; those of all calls begin it.
    pub(super) order: Vec<SortExpr>,
}

/// The calls of a plan over `input` if it is nothing but window functions over one partition, by `keys`, in one order.
pub(super) fn partition_of(plan: &LogicalPlan, input: &Node, keys: &[FragmentKey]) -> Option<Partition> {
    let mut found = Calls::default();
    let outputs = found.columns(plan, input)?;
    let of_input = positional(input);
    let keys: BTreeSet<usize> = keys.iter().map(|key| as_column(&key.expr, &input.df_schema)).collect::<Option<_>>()?;
    let mut order: &[SortExpr] = &[];
    for call in &found.calls {
        let partition = call.params.partition_by.iter().map(|expr| as_column(expr, &of_input)).collect::<Option<BTreeSet<usize>>>()?;
        if partition != keys {
            return None;
        }
        if call.params.order_by.len() > order.len() {
            order = &call.params.order_by;
        }
    }
    let follows = |call: &WindowFunction| !call.params.order_by.is_empty() && order.starts_with(&call.params.order_by);
    if found.calls.is_empty() || !found.calls.iter().all(follows) {
        return None;
    }
    let order = order.to_vec();
    Some(Partition { calls: found.calls, outputs, of_input, order })
}

impl Calls {
    /// The columns of a plan, over those of the input and one per call. Calls are over the input alone.
    fn columns(&mut self, plan: &LogicalPlan, input: &Node) -> Option<Vec<Expr>> {
        match plan {
            LogicalPlan::Extension(_) => Some(all_columns(&positional(input))),
            LogicalPlan::SubqueryAlias(alias) => self.columns(&alias.input, input),
            LogicalPlan::Projection(projection) => {
                let below = self.columns(&projection.input, input)?;
                let schema = projection.input.schema();
                projection.expr.iter().map(|expr| substitute(&expr.clone().unalias_nested().data, schema, &below).ok()).collect()
            }
            LogicalPlan::Window(window) => {
                let mut columns = self.columns(&window.input, input)?;
                let below = columns.clone();
                for expr in &window.window_expr {
                    let moved = substitute(&Expr::WindowFunction(Box::new(call_of(expr)?.clone())), window.input.schema(), &below).ok()?;
                    let Expr::WindowFunction(call) = moved else { return None };
                    let of_calls = |expr: &Expr| expr.column_refs().into_iter().any(|column| column.name.starts_with(CALL));
                    let params = &call.params;
                    if params.args.iter().chain(&params.partition_by).chain(params.order_by.iter().map(|key| &key.expr)).any(of_calls) {
                        return None;
                    }
                    columns.push(Expr::Column(Column::new_unqualified(call_name(self.calls.len()))));
                    self.calls.push(*call);
                }
                Some(columns)
            }
            _ => None,
        }
    }
}

const CALL: &str = "__call";

fn call_name(index: usize) -> String {
    format!("{CALL}{index}")
}

/// The columns of a node, named by their places.
fn positional(node: &Node) -> DFSchema {
    let named = |(index, field): (usize, &Arc<Field>)| (None, Arc::new(field.as_ref().clone().with_name(crate::term_column(index))));
    let fields = node.schema.fields().iter().enumerate().map(named).collect();
    // Names of places are different.
    DFSchema::new_with_metadata(fields, Default::default()).unwrap_or_else(|_| DFSchema::empty())
}

fn tail_call(call: &WindowFunction, schema: &DFSchema) -> Option<TailCall> {
    let params = &call.params;
    if params.filter.is_some() || params.null_treatment.is_some() || params.distinct {
        return None;
    }
    if params.args.iter().any(|arg| is_volatile(arg) || reads_clock(arg) || has_subquery(arg)) {
        return None;
    }
    let order = params.order_by.len();
    let data_type = Expr::WindowFunction(Box::new(call.clone())).get_type(schema).ok()?;
    let from_start = from_start(&params.window_frame);
    let is_exact = |expr: &Expr| expr.get_type(schema).is_ok_and(|data_type| !data_type.is_floating() && !data_type.is_nested());
    let order_is_exact = || params.order_by.iter().all(|key| is_exact(&key.expr));
    let function = match &call.fun {
        WindowFunctionDefinition::WindowUDF(function) => match (function.name(), params.args.as_slice()) {
            ("row_number", []) => TailFunction::Ranking(Ranking::RowNumber),
            ("rank", []) if order_is_exact() => TailFunction::Ranking(Ranking::Rank),
            ("dense_rank", []) if order_is_exact() => TailFunction::Ranking(Ranking::DenseRank),
            ("lag", [value, rest @ ..]) => {
                let back = match rest {
                    [] => 1,
                    [Expr::Literal(ScalarValue::Int64(Some(back)), _)] => u64::try_from(*back).ok()?,
                    _ => return None,
                };
                if !(1..=BACK_MAX).contains(&back) || value.get_type(schema).ok()? != data_type {
                    return None;
                }
                TailFunction::Lag { value: value.clone(), back }
            }
            ("first_value", [value]) if from_start.is_some() => TailFunction::First { value: value.clone() },
            _ => return None,
        },
        WindowFunctionDefinition::AggregateUDF(function) => {
            if !matches!(function.name(), "count" | "sum" | "avg" | "min" | "max" | "bool_and" | "bool_or")
                || !params.args.iter().all(is_exact)
            {
                return None;
            }
            let (by_value, back) = match (from_start, rows_back(&params.window_frame)) {
                (Some(by_value), _) => (by_value, None),
                (None, Some(back)) => (false, Some(back)),
                (None, None) => return None,
            };
            if by_value && !order_is_exact() {
                return None;
            }
            let aggregate = AggregateFunction::new_udf(Arc::clone(function), params.args.clone(), false, None, vec![], None);
            TailFunction::Aggregate { call: Expr::AggregateFunction(aggregate), by_value, back }
        }
    };
    Some(TailCall { function, order, data_type })
}

/// Whether a frame goes from the first row of the partition to the current one, and then, whether it takes in what ties with it.
fn from_start(frame: &WindowFrame) -> Option<bool> {
    let by_value = frame.units != WindowFrameUnits::Rows;
    (frame.start_bound.is_unbounded() && ends_here(frame)).then_some(by_value)
}

/// How many rows a frame by place goes back, if it ends with the current one.
fn rows_back(frame: &WindowFrame) -> Option<u64> {
    let WindowFrameBound::Preceding(ScalarValue::UInt64(Some(back))) = &frame.start_bound else {
        let here = matches!(frame.start_bound, WindowFrameBound::CurrentRow) && frame.units == WindowFrameUnits::Rows && ends_here(frame);
        return here.then_some(0);
    };
    (frame.units == WindowFrameUnits::Rows && ends_here(frame) && *back <= BACK_MAX).then_some(*back)
}

fn ends_here(frame: &WindowFrame) -> bool {
    matches!(frame.end_bound, WindowFrameBound::CurrentRow)
}

impl Tail {
    /// How many rows before a new one are looked at.
    pub fn back(&self) -> u64 {
        let back = |call: &TailCall| match &call.function {
            TailFunction::Lag { back, .. } => *back,
            TailFunction::Aggregate { back, .. } => back.unwrap_or(0),
            TailFunction::Ranking(_) | TailFunction::First { .. } => 0,
        };
        self.calls.iter().map(back).max().unwrap_or(0)
    }
}

impl TailCall {
    /// Whether a new row that ties with the last one, by the order of the call, changes what the last one has.
    pub fn changes_ties(&self) -> bool {
        matches!(self.function, TailFunction::Aggregate { by_value: true, .. })
    }
}
