//! The curated optimizer for continuous queries.
//!
//! DataFusion's rules run on the user's plan, which knows nothing of weights. They differ from a batch session in this:
//!
//! - no query start time, so that `now()` stays in the plan and reads the epoch clock;
//! - `filter_null_join_keys` on: rows that can never match do not enter join state;
//! - `push_down_limit` off: it moves "any n rows" into scans and below joins, where each run would choose others;
//! - `single_distinct_aggregation_to_group_by` not beside `min` and `max`, which it puts over an aggregate whose rows are taken back,
//!   and not beside sums of decimals, whose type it widens twice (a batch session needs that too: [`mended_rules`]), nor where it would
//!   come between SESSION and its GROUP BY;
//! - a query of one row inside an expression becomes a join ([`OneRowQueries`]), which follows the changes of both sides;
//! - constants are folded with overflow checks ([`CheckedConstants`]).

use crate::compile::with_checked_arithmetic;
use crate::error::Result;
use crate::functions::clock::with_frozen;
use crate::nodes::groups_sessions;
use crate::one_row_queries::OneRowQueries;
use crate::subquery_values::MarkedSubqueries;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue, not_impl_err};
use datafusion::execution::context::ExecutionProps;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr::{ScalarFunction, Sort as SortExpr};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::ColumnarValue;
use std::sync::Arc;

const SINGLE_DISTINCT: &str = "single_distinct_aggregation_to_group_by";

/// The session under which continuous queries are analyzed, optimized and compiled: `base` with the curated rules, without a start
/// time, with a fresh alias generator, so that the same statement always gives the same plan.
pub fn session_state_for_continuous(base: &SessionState) -> SessionState {
    let mut config = base.config().clone().with_create_default_catalog_and_schema(false);
    config.options_mut().optimizer.filter_null_join_keys = true;
    let mut props = ExecutionProps::new();
    props.config_options = Some(Arc::clone(config.options()));
    props.var_providers = base.execution_props().var_providers.clone();
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![Arc::new(CheckedConstants), Arc::new(OneRowQueries)];
    for rule in base.optimizers() {
        match rule.name() {
            "push_down_limit" | CheckedConstants::NAME => {}
            SINGLE_DISTINCT => rules.push(Arc::new(DistinctToGroupBy(Arc::clone(rule)))),
            _ => rules.push(Arc::clone(rule)),
        }
    }
    SessionStateBuilder::new_from_existing(base.clone()).with_config(config).with_execution_props(props).with_optimizer_rules(rules).build()
}

/// The same session without the rule that computes `count(DISTINCT x)` by an aggregate over another one: under `state_ttl` the groups
/// of the query are to go, not those of that other one.
pub fn with_whole_groups(state: &SessionState) -> SessionState {
    let rules = state.optimizers().iter().filter(|rule| rule.name() != SINGLE_DISTINCT).cloned().collect();
    SessionStateBuilder::new_from_existing(state.clone()).with_optimizer_rules(rules).build()
}

/// DataFusion's optimizer rules for a batch session, less what makes valid queries fail, with constants computed as everything else is.
pub fn mended_rules(rules: &[Arc<dyn OptimizerRule + Send + Sync>]) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mend = |rule: &Arc<dyn OptimizerRule + Send + Sync>| -> Arc<dyn OptimizerRule + Send + Sync> {
        match rule.name() {
            SINGLE_DISTINCT => Arc::new(DistinctToGroupBy(Arc::clone(rule))),
            _ => Arc::clone(rule),
        }
    };
    let first: [Arc<dyn OptimizerRule + Send + Sync>; 3] =
        [Arc::new(CheckedConstants), Arc::new(DistinctSortKeys), Arc::new(MarkedSubqueries)];
    first.into_iter().chain(rules.iter().map(mend)).collect()
}

/// Takes repeated keys out of the ORDER BY of aggregate calls, where they mean nothing: DataFusion 55.2 panics on
/// `first_value(x ORDER BY a, a)`.
#[derive(Debug)]
struct DistinctSortKeys;

impl OptimizerRule for DistinctSortKeys {
    fn name(&self) -> &str {
        "distinct_sort_keys"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> datafusion::common::Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(_) = &plan else { return Ok(Transformed::no(plan)) };
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| {
                let Expr::AggregateFunction(call) = &expr else { return Ok(Transformed::no(expr)) };
                let mut keys: Vec<SortExpr> = vec![];
                for key in &call.params.order_by {
                    if !keys.iter().any(|known| known.expr == key.expr) {
                        keys.push(key.clone());
                    }
                }
                if keys.len() == call.params.order_by.len() {
                    return Ok(Transformed::no(expr));
                }
                let mut call = call.clone();
                call.params.order_by = keys;
                Ok(Transformed::yes(Expr::AggregateFunction(call)))
            })?;
            Ok(if rewritten.transformed { rewritten.update_data(|expr| name.restore(expr)) } else { rewritten })
        })
    }
}

/// Analyzes and optimizes a plan for continuous execution.
///
/// # Errors
/// What DataFusion's analyzer reports: wrong types, unresolved functions.
pub fn optimize(plan: &LogicalPlan, base: &SessionState) -> Result<LogicalPlan> {
    let frozen = freeze_clock(plan.clone(), true)?;
    let optimized = freeze_clock(session_state_for_continuous(base).optimize(&frozen)?, false)?;
    refuse_dependent_queries(&optimized)?;
    Ok(optimized)
}

/// What depends on the row outside and became no join has no plan. DataFusion says so when it plans the whole; here only parts are planned.
fn refuse_dependent_queries(plan: &LogicalPlan) -> datafusion::common::Result<()> {
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| match expr {
                Expr::Exists(_) | Expr::InSubquery(_) | Expr::OuterReferenceColumn(..) => {
                    not_impl_err!("Physical plan does not support logical expression {expr:?}")
                }
                Expr::ScalarSubquery(query) if !query.outer_ref_columns.is_empty() => {
                    not_impl_err!("Physical plan does not support logical expression {expr:?}")
                }
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })
    })?;
    Ok(())
}

/// Keeps `now()` from being folded to the reading of the epoch in which the query is planned, or ends that.
fn freeze_clock(plan: LogicalPlan, frozen: bool) -> Result<LogicalPlan> {
    let changed = plan.transform_up_with_subqueries(|node| {
        node.map_expressions(|expr| {
            expr.transform_up(|expr| {
                let Expr::ScalarFunction(call) = &expr else { return Ok(Transformed::no(expr)) };
                Ok(match with_frozen(&call.func, frozen) {
                    Some(function) => {
                        Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), call.args.clone())))
                    }
                    None => Transformed::no(expr),
                })
            })
        })
    });
    Ok(changed.data()?)
}

/// DataFusion's rewrite of `count(DISTINCT x)` to two aggregates, where the upper one stays incremental.
#[derive(Debug)]
struct DistinctToGroupBy(Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for DistinctToGroupBy {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> datafusion::common::Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Aggregate(aggregate)
                if aggregate.aggr_expr.iter().any(|expr| stays_whole(expr, aggregate.input.schema())) || groups_sessions(aggregate) =>
            {
                Ok(Transformed::no(plan))
            }
            _ => self.0.rewrite(plan, config),
        }
    }
}

/// `min` and `max` would stand over rows that are taken back; a sum of decimals would widen its type twice.
fn stays_whole(expr: &Expr, input: &DFSchema) -> bool {
    let Expr::AggregateFunction(call) = expr else { return false };
    let widens = || expr.get_type(input).is_ok_and(|data_type| data_type.is_decimal());
    !call.params.distinct && (matches!(call.func.name(), "min" | "max") || widens())
}

/// Folds integer arithmetic of literals with overflow checks, before DataFusion folds it without.
#[derive(Debug, Default)]
pub struct CheckedConstants;

impl CheckedConstants {
    /// The rule's name.
    pub const NAME: &'static str = "checked_constants";
}

impl OptimizerRule for CheckedConstants {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> datafusion::common::Result<Transformed<LogicalPlan>> {
        // A column keeps its heading.
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(fold)?.update_data(|expr| name.restore(expr)))
        })
    }
}

fn fold(expr: Expr) -> datafusion::common::Result<Transformed<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus | Operator::Minus | Operator::Multiply, right }) = &expr else {
        return Ok(Transformed::no(expr));
    };
    let integer = |side: &Expr| matches!(side, Expr::Literal(value, _) if value.data_type().is_integer());
    if !integer(left) || !integer(right) {
        return Ok(Transformed::no(expr));
    }
    let schema = DFSchema::empty();
    let props = ExecutionProps::new();
    let physical = create_physical_expr(&expr, &schema, &props, &Default::default())?;
    let physical = with_checked_arithmetic(physical)?;
    let one_row = arrow::record_batch::RecordBatch::try_new_with_options(
        Arc::clone(schema.inner()),
        vec![],
        &arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(1)),
    )?;
    let value = match physical.evaluate(&one_row)? {
        ColumnarValue::Scalar(value) => value,
        ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0)?,
    };
    Ok(Transformed::yes(Expr::Literal(value, None)))
}
