//! Window functions: run again for the partitions that a change touches.
//!
//! Where rows tie in the ORDER BY and the answer depends on which comes first, the remaining columns decide, so that it does not depend
//! on how rows arrived. That is done where it changes nothing else: `rank` and frames by value (RANGE, GROUPS) treat ties alike, and more
//! columns in their ORDER BY would end that.

use crate::canonical::{all_columns, as_column, column_at, is_volatile, needs_of};
use crate::error::Result;
use crate::nodes::aggregate::is_order_sensitive;
use crate::nodes::keyed::{Partition, by_columns};
use crate::nodes::ordered::is_sortable;
use crate::translate::{Part, Translator};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::logical_expr::expr::{NullTreatment, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Window, WindowFrameUnits, WindowFunctionDefinition};
use std::sync::Arc;

const TIES: &str = "window functions choose freely between rows that their ORDER BY does not distinguish";

/// What a call does with rows that its ORDER BY does not distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ties {
    /// Treats them alike.
    Alike,
    /// Takes them in any order; a longer ORDER BY only settles in which.
    Any,
    /// Takes them in any order; a longer ORDER BY would mean something else.
    Free,
}

impl Translator<'_> {
    /// Translates a window node.
    pub(crate) fn window(&mut self, plan: &LogicalPlan, window: &Window, demand: Option<usize>) -> Result<Part> {
        let needs = needs_of(plan);
        if needs.clock {
            return self.fallback(plan, "now() changes with the clock");
        }
        if needs.subquery {
            return self.fallback(plan, "an expression contains a query");
        }
        if let Some(plan) = with_key_columns(window)? {
            return self.translate(&plan, demand);
        }
        let partition = common_columns(window);
        let demand = demand.filter(|column| partition.contains(column));
        let child = self.translate(&window.input, demand)?;
        let ends = self.session_ends(window, &child)?;
        let (breakers, total) = tie_breakers(window, &self.unique_of(&child));
        let ties: Vec<Ties> = window.window_expr.iter().map(ties).collect();
        let is_free = ties.iter().any(|ties| *ties == Ties::Free || (*ties == Ties::Any && !total));
        let part = if breakers.is_empty() || !ties.contains(&Ties::Any) {
            self.partitioned(plan, child, &partition, demand)?
        } else {
            self.settled(window, child, &ties, &breakers, &partition, demand)?
        };
        let part = if is_free { Self::note(part, TIES) } else { part };
        Ok(part.with_bounds(ends))
    }

    fn partitioned(&mut self, plan: &LogicalPlan, child: Part, partition: &[usize], demand: Option<usize>) -> Result<Part> {
        let by = match plan.inputs().first() {
            Some(input) => by_columns(input.schema(), partition),
            None => vec![],
        };
        if !by.is_empty() {
            return self.by_key(plan, child, Partition { by, unique: None, demand }, "window functions read whole partitions");
        }
        self.by_no_key(plan, child, "window functions without PARTITION BY read all rows")
    }

    /// A window node with a longer ORDER BY for the calls that need it. Calls that treat ties alike come above them in a node of their
    /// own, which finds the rows in the order it wants.
    fn settled(
        &mut self,
        window: &Window,
        child: Part,
        ties: &[Ties],
        breakers: &[SortExpr],
        partition: &[usize],
        demand: Option<usize>,
    ) -> Result<Part> {
        let (lower, upper): (Vec<usize>, Vec<usize>) = (0..ties.len()).partition(|index| ties[*index] == Ties::Any);
        let extended = |index: &usize| with_call(&window.window_expr[*index], |call| call.params.order_by.extend(breakers.iter().cloned()));
        let inner = Window::try_new(lower.iter().map(extended).collect(), Arc::clone(&window.input))?;
        let inner = LogicalPlan::Window(inner);
        let part = self.partitioned(&inner, child, partition, demand)?;
        if upper.is_empty() {
            return Ok(part);
        }
        let outer = Window::try_new(upper.iter().map(|index| window.window_expr[*index].clone()).collect(), Arc::new(inner))?;
        let outer = LogicalPlan::Window(outer);
        let part = self.partitioned(&outer, part, partition, demand)?;
        let width = window.input.schema().fields().len();
        let place = |index: usize| width + lower.iter().chain(&upper).position(|call| *call == index).unwrap_or_default();
        let projection = picked(outer, (0..width).chain((0..ties.len()).map(place)), &window.schema)?;
        self.project(&LogicalPlan::Projection(projection.clone()), &projection, part, demand)
    }
}

/// A projection to columns of the input.
fn picked(input: LogicalPlan, columns: impl Iterator<Item = usize>, schema: &DFSchemaRef) -> Result<Projection> {
    let exprs = columns.map(|column| column_at(input.schema(), column)).collect();
    Ok(Projection::try_new_with_schema(exprs, Arc::new(input), Arc::clone(schema))?)
}

pub(super) fn call_of(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => call_of(&alias.expr),
        Expr::WindowFunction(call) => Some(call),
        _ => None,
    }
}

/// The expression with another call under the same name.
fn with_call(expr: &Expr, change: impl FnOnce(&mut WindowFunction)) -> Expr {
    let Some(call) = call_of(expr) else { return expr.clone() };
    let mut call = call.clone();
    change(&mut call);
    Expr::WindowFunction(Box::new(call)).alias(expr.schema_name().to_string())
}

/// The expressions by which all calls partition.
fn common_partition(window: &Window) -> Vec<&Expr> {
    let mut partitions = window.window_expr.iter().map(|expr| call_of(expr).map_or(&[][..], |call| call.params.partition_by.as_slice()));
    let first = partitions.next().unwrap_or_default();
    let others: Vec<&[Expr]> = partitions.collect();
    first.iter().filter(|expr| others.iter().all(|partition| partition.contains(expr))).collect()
}

fn common_columns(window: &Window) -> Vec<usize> {
    common_partition(window).into_iter().filter_map(|expr| as_column(expr, window.input.schema())).collect()
}

/// The same with the expressions of PARTITION BY as columns of the input; `None` if they are columns already.
fn with_key_columns(window: &Window) -> Result<Option<LogicalPlan>> {
    let schema = window.input.schema();
    let is_computed = |expr: &&Expr| as_column(expr, schema).is_none() && !expr.column_refs().is_empty() && !is_volatile(expr);
    let computed: Vec<&Expr> = common_partition(window).into_iter().filter(is_computed).collect();
    if computed.is_empty() {
        return Ok(None);
    }
    let named = |(index, expr): (usize, &&Expr)| (*expr).clone().alias(format!("__partition_{index}"));
    let exprs = all_columns(schema).into_iter().chain(computed.iter().enumerate().map(named)).collect();
    let input = LogicalPlan::Projection(Projection::try_new(exprs, Arc::clone(&window.input))?);
    let width = schema.fields().len();
    let column = |expr: &Expr| computed.iter().position(|known| *known == expr).map(|index| column_at(input.schema(), width + index));
    let replaced = |expr: &Expr| {
        with_call(expr, |call| {
            for key in &mut call.params.partition_by {
                if let Some(column) = column(key) {
                    *key = column;
                }
            }
        })
    };
    let calls: Vec<Expr> = window.window_expr.iter().map(replaced).collect();
    let (first, last) = (width + computed.len(), width + computed.len() + calls.len());
    let inner = LogicalPlan::Window(Window::try_new(calls, Arc::new(input.clone()))?);
    Ok(Some(LogicalPlan::Projection(picked(inner, (0..width).chain(first..last), &window.schema)?)))
}

fn ties(expr: &Expr) -> Ties {
    let Some(call) = call_of(expr) else { return Ties::Free };
    let frame = &call.params.window_frame;
    let whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
    let by_place = frame.units == WindowFrameUnits::Rows;
    match &call.fun {
        WindowFunctionDefinition::WindowUDF(function) => match function.name() {
            "rank" | "dense_rank" | "percent_rank" | "cume_dist" | "session_start" | "session_end" => Ties::Alike,
            "row_number" | "ntile" | "lag" | "lead" => Ties::Any,
            "first_value" | "last_value" | "nth_value" if by_place || whole => Ties::Any,
            // Where the frame ends does not matter.
            "first_value" if frame.start_bound.is_unbounded() && call.params.null_treatment != Some(NullTreatment::IgnoreNulls) => {
                Ties::Any
            }
            _ => Ties::Free,
        },
        WindowFunctionDefinition::AggregateUDF(function) => match (whole, is_order_sensitive(function.name())) {
            (true, false) => Ties::Alike,
            (true, true) => Ties::Any,
            (false, _) if by_place => Ties::Any,
            (false, false) => Ties::Alike,
            (false, true) => Ties::Free,
        },
    }
}

/// What to add to the ORDER BY so that it is total, and whether it is then: the shortest set of columns that identifies a row, or
/// all columns that can be sorted.
fn tie_breakers(window: &Window, unique: &[Vec<usize>]) -> (Vec<SortExpr>, bool) {
    let schema: &DFSchema = window.input.schema();
    let Some(call) = window.window_expr.first().and_then(call_of) else { return (vec![], false) };
    let ordered = call.params.order_by.iter().map(|key| &key.expr).chain(&call.params.partition_by);
    let known: Vec<usize> = ordered.filter_map(|expr| as_column(expr, schema)).collect();
    let rest = |columns: &mut dyn Iterator<Item = usize>| -> Vec<usize> { columns.filter(|column| !known.contains(column)).collect() };
    let sortable = |column: &usize| is_sortable(schema.field(*column).data_type());
    let sets = unique.iter().map(|set| rest(&mut set.iter().copied())).filter(|set| set.iter().all(sortable));
    let (columns, total) = match sets.min_by_key(Vec::len) {
        Some(set) => (set, true),
        None => {
            let all = rest(&mut (0..schema.fields().len()));
            let total = all.iter().all(sortable);
            (all.into_iter().filter(sortable).collect(), total)
        }
    };
    (columns.into_iter().map(|column| SortExpr::new(column_at(schema, column), true, false)).collect(), total)
}
