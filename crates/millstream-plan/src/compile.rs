//! Physical expressions: the one way from a logical expression of a plan to something that evaluates batches.
//!
//! Integer, decimal and timestamp arithmetic is checked: an overflow is an error, not a wrapped value. DataFusion's planner never
//! asks for that, so [`compile`] and, for whole plans, the rule [`CheckedArithmetic`] rewrite the expressions it made. Rounding and
//! shifting timestamps by fixed lengths gets a quick form on the way ([`crate::fast_time`]).

use crate::error::Result;
use crate::fast_time;
use arrow::array::{ArrayRef, BooleanArray};
use arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr, create_physical_expr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, PhysicalGroupBy};
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use std::sync::Arc;

/// Compiles `expr`, whose columns are resolved against `schema`, with checked arithmetic.
///
/// The expression comes from an analyzed plan: types are coerced already, nothing is simplified here.
///
/// # Errors
/// A column that `schema` does not have, a subquery, an expression DataFusion cannot evaluate.
pub fn compile(expr: &Expr, schema: &DFSchema, state: &SessionState) -> Result<Arc<dyn PhysicalExpr>> {
    let physical = create_physical_expr(expr, schema, state.execution_props(), &PhysicalPlanningContext::default())?;
    Ok(with_checked_arithmetic(physical)?)
}

/// Compiles a list of expressions over one schema.
///
/// # Errors
/// As [`compile`].
pub fn compile_all(exprs: &[Expr], schema: &DFSchema, state: &SessionState) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
    exprs.iter().map(|expr| compile(expr, schema, state)).collect()
}

/// Evaluates an expression to one value per row of `batch`.
///
/// # Errors
/// What the evaluation reports: overflow, failing casts.
pub fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    Ok(expr.evaluate(batch)?.into_array(batch.num_rows())?)
}

/// Evaluates a predicate; NULL counts as false in filters, so callers use the values and the null mask together.
///
/// # Errors
/// As [`evaluate`]; an expression that is not boolean.
pub fn evaluate_predicate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<BooleanArray> {
    Ok(as_boolean_array(&evaluate(expr, batch)?)?.clone())
}

/// Makes `+`, `-` and `*` in an expression report overflow.
///
/// # Errors
/// Only if rebuilding the expression fails.
pub fn with_checked_arithmetic(expr: Arc<dyn PhysicalExpr>) -> datafusion::common::Result<Arc<dyn PhysicalExpr>> {
    Ok(checked(expr)?.data)
}

fn checked(expr: Arc<dyn PhysicalExpr>) -> datafusion::common::Result<Transformed<Arc<dyn PhysicalExpr>>> {
    expr.transform_up(|node| {
        let rewritten = match node.downcast_ref::<BinaryExpr>() {
            Some(binary) if matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) => {
                let checked = binary.clone().with_fail_on_overflow(true);
                if &checked == binary { None } else { Some(Arc::new(checked) as Arc<dyn PhysicalExpr>) }
            }
            _ => None,
        };
        let quick = fast_time::quick(rewritten.as_ref().unwrap_or(&node));
        Ok(match quick.or(rewritten) {
            Some(rewritten) => Transformed::yes(rewritten),
            None => Transformed::no(node),
        })
    })
}

/// The physical rule that gives whole plans checked arithmetic: projections, filters, aggregates, join conditions, sort keys.
#[derive(Debug, Default)]
pub struct CheckedArithmetic;

impl CheckedArithmetic {
    /// The rule's name.
    pub const NAME: &'static str = "checked_arithmetic";
}

impl PhysicalOptimizerRule for CheckedArithmetic {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let plan = plan.transform_up(|node| {
            Ok(match check_node(&node)? {
                Some(checked) => Transformed::yes(checked),
                None => Transformed::no(node),
            })
        })?;
        Ok(plan.data)
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The node with checked expressions, or `None` if it has no arithmetic.
fn check_node(node: &Arc<dyn ExecutionPlan>) -> datafusion::common::Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        let mut rewrite = Rewrite::default();
        let exprs = projection
            .expr()
            .iter()
            .map(|item| Ok(ProjectionExpr { expr: rewrite.expr(&item.expr)?, alias: item.alias.clone() }))
            .collect::<datafusion::common::Result<Vec<_>>>()?;
        return rewrite.done(|| Ok(Arc::new(ProjectionExec::try_new(exprs, Arc::clone(projection.input()))?) as _));
    }
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        let mut rewrite = Rewrite::default();
        let predicate = rewrite.expr(filter.predicate())?;
        return rewrite.done(|| Ok(Arc::new(FilterExecBuilder::from(filter).with_predicate(predicate).build()?) as _));
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        return check_aggregate(aggregate);
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let mut rewrite = Rewrite::default();
        let on = join
            .on()
            .iter()
            .map(|(left, right)| Ok((rewrite.expr(left)?, rewrite.expr(right)?)))
            .collect::<datafusion::common::Result<Vec<_>>>()?;
        let filter = rewrite.filter(join.filter())?;
        return rewrite.done(|| Ok(Arc::new(join.builder().with_on(on).with_filter(filter).build()?) as _));
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let mut rewrite = Rewrite::default();
        let filter = rewrite.filter(join.filter())?;
        let projection = join.projection().as_ref().map(|columns| columns.to_vec());
        return rewrite.done(|| {
            let (left, right) = (Arc::clone(join.left()), Arc::clone(join.right()));
            Ok(Arc::new(NestedLoopJoinExec::try_new(left, right, filter, join.join_type(), projection)?) as _)
        });
    }
    if let Some(sort) = node.downcast_ref::<SortExec>() {
        let mut rewrite = Rewrite::default();
        let keys = sort
            .expr()
            .iter()
            .map(|key| Ok(PhysicalSortExpr { expr: rewrite.expr(&key.expr)?, options: key.options }))
            .collect::<datafusion::common::Result<Vec<_>>>()?;
        let Some(keys) = LexOrdering::new(keys) else { return Ok(None) };
        return rewrite.done(|| {
            let checked = SortExec::new(keys, Arc::clone(sort.input()))
                .with_preserve_partitioning(sort.preserve_partitioning())
                .with_fetch(sort.fetch());
            Ok(Arc::new(checked) as _)
        });
    }
    Ok(None)
}

fn check_aggregate(aggregate: &AggregateExec) -> datafusion::common::Result<Option<Arc<dyn ExecutionPlan>>> {
    let mut rewrite = Rewrite::default();
    let group = aggregate.group_expr();
    let mut named = |exprs: &[(Arc<dyn PhysicalExpr>, String)]| {
        exprs.iter().map(|(expr, name)| Ok((rewrite.expr(expr)?, name.clone()))).collect::<datafusion::common::Result<Vec<_>>>()
    };
    let (keys, null_keys) = (named(group.expr())?, named(group.null_expr())?);
    let calls = aggregate.aggr_expr().iter().map(|call| rewrite.call(call)).collect::<datafusion::common::Result<Vec<_>>>()?;
    let filters = aggregate
        .filter_expr()
        .iter()
        .map(|filter| filter.as_ref().map(|expr| rewrite.expr(expr)).transpose())
        .collect::<datafusion::common::Result<Vec<_>>>()?;
    rewrite.done(|| {
        let group = PhysicalGroupBy::new(keys, null_keys, group.groups().to_vec(), group.has_grouping_set());
        let input = Arc::clone(aggregate.input());
        Ok(Arc::new(AggregateExec::try_new(*aggregate.mode(), group, calls, filters, input, aggregate.input_schema())?) as _)
    })
}

/// Rewrites expressions and remembers whether any changed.
#[derive(Default)]
struct Rewrite {
    changed: bool,
}

impl Rewrite {
    fn expr(&mut self, expr: &Arc<dyn PhysicalExpr>) -> datafusion::common::Result<Arc<dyn PhysicalExpr>> {
        let result = checked(Arc::clone(expr))?;
        self.changed |= result.transformed;
        Ok(result.data)
    }

    fn filter(&mut self, filter: Option<&JoinFilter>) -> datafusion::common::Result<Option<JoinFilter>> {
        filter
            .map(|filter| {
                let expr = self.expr(filter.expression())?;
                Ok(JoinFilter::new(expr, filter.column_indices().to_vec(), Arc::clone(filter.schema())))
            })
            .transpose()
    }

    fn call(&mut self, call: &Arc<AggregateFunctionExpr>) -> datafusion::common::Result<Arc<AggregateFunctionExpr>> {
        let mut rewrite = Rewrite::default();
        let all = call.all_expressions();
        let args = all.args.iter().map(|expr| rewrite.expr(expr)).collect::<datafusion::common::Result<Vec<_>>>()?;
        let order = all.order_by_exprs.iter().map(|expr| rewrite.expr(expr)).collect::<datafusion::common::Result<Vec<_>>>()?;
        if !rewrite.changed || call.is_reversed() {
            return Ok(Arc::clone(call));
        }
        Ok(match call.with_new_expressions(args, order) {
            Some(new) => {
                self.changed = true;
                Arc::new(new)
            }
            None => Arc::clone(call),
        })
    }

    fn done(
        self,
        build: impl FnOnce() -> datafusion::common::Result<Arc<dyn ExecutionPlan>>,
    ) -> datafusion::common::Result<Option<Arc<dyn ExecutionPlan>>> {
        if self.changed { build().map(Some) } else { Ok(None) }
    }
}
