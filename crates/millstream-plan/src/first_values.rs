//! `(SELECT price FROM bids b WHERE b.auction = a.id ORDER BY time DESC LIMIT 1)`: the first value of an order, for each row outside.
//!
//! ```text
//!   Limit: 1                             Projection: first_value(price ORDER BY time DESC, price)
//!     Sort: time DESC             ->       Aggregate: first_value(..)
//!       Filter: auction = outer(id)          Filter: auction = outer(id)
//! ```
//! A join has no LIMIT for each row, but an aggregate becomes one: it has a value per `auction`, NULL where there is no row, as the query
//! has. Among rows that the order does not distinguish the least value is taken, so the answer does not depend on how they arrived.
//!
//! DataFusion takes the conditions on the row outside out of the query, from below whatever is there, and groups by their columns. That is
//! right only where they stand directly below the order, and where columns are equal to something of the row outside; other queries
//! are left as they are, and refused.

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, FetchType, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Projection, SkipType, Sort, SortExpr,
    SubqueryAlias,
};
use datafusion::optimizer::AnalyzerRule;
use std::sync::Arc;

/// The name of the value in its query: none that a column has.
const FIRST: &str = "__first_value";

/// Rewrites scalar queries that depend on the row outside and take the first row of an order.
#[derive(Debug, Default)]
pub struct FirstValues;

impl AnalyzerRule for FirstValues {
    fn name(&self) -> &str {
        "first_values"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut changed = false;
        plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            let node = node.map_expressions(|expr| {
                let name = names.save(&expr);
                let rewritten = expr.transform_up(|expr| match expr {
                    Expr::ScalarSubquery(query) if !query.outer_ref_columns.is_empty() => match first_value(&query.subquery)? {
                        Some(plan) => Ok(Transformed::yes(Expr::ScalarSubquery(query.with_plan(Arc::new(plan))))),
                        None => Ok(Transformed::no(Expr::ScalarSubquery(query))),
                    },
                    other => Ok(Transformed::no(other)),
                })?;
                changed |= rewritten.transformed;
                Ok(if rewritten.transformed { rewritten.update_data(|expr| name.restore(expr)) } else { rewritten })
            })?;
            // The value may be NULL, and so may what is made of it above.
            if changed { Ok(Transformed::yes(node.data.recompute_schema()?)) } else { Ok(node) }
        })
        .data()
    }
}

/// The query as an aggregate, if it takes one row and may become one.
fn first_value(query: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Limit(limit) = query else { return Ok(None) };
    let (SkipType::Literal(0), FetchType::Literal(Some(1))) = (limit.get_skip_type()?, limit.get_fetch_type()?) else { return Ok(None) };
    // The value is computed below the order or above it.
    let (value, ordered) = match limit.input.as_ref() {
        LogicalPlan::Projection(Projection { expr, input, .. }) if matches!(input.as_ref(), LogicalPlan::Sort(_)) => {
            let [value] = expr.as_slice() else { return Ok(None) };
            (value.clone().unalias(), input)
        }
        other => (Expr::Column(other.schema().columns().swap_remove(0)), &limit.input),
    };
    let (mut order, rows): (Vec<SortExpr>, _) = match ordered.as_ref() {
        LogicalPlan::Sort(Sort { expr, input, fetch: None }) => (expr.clone(), input),
        _ => (vec![], ordered),
    };
    order.push(value.clone().sort(true, false));
    if !depends_by_equality(rows)? || order.iter().any(|key| !is_of_the_row(&key.expr)) {
        return Ok(None);
    }
    let first = AggregateFunction::new_udf(first_value_udaf(), vec![value], false, None, order, None);
    let plan = LogicalPlanBuilder::from(Arc::clone(rows)).aggregate(Vec::<Expr>::new(), [Expr::AggregateFunction(first)])?;
    let first = Expr::Column(plan.schema().columns().swap_remove(0));
    Ok(Some(plan.project([first.alias(FIRST)])?.build()?))
}

/// Whether rows depend on the row outside by conditions alone that stand above everything else, and say that a column equals something.
fn depends_by_equality(rows: &LogicalPlan) -> Result<bool> {
    if rows.all_out_ref_exprs().is_empty() {
        return Ok(true);
    }
    match rows {
        LogicalPlan::Projection(Projection { expr, input, .. }) => Ok(expr.iter().all(is_of_the_row) && depends_by_equality(input)?),
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => depends_by_equality(input),
        LogicalPlan::Filter(Filter { predicate, input, .. }) => {
            for condition in split_conjunction(predicate) {
                if condition.contains_outer() && !is_equality(condition, input)? {
                    return Ok(false);
                }
            }
            depends_by_equality(input)
        }
        _ => Ok(false),
    }
}

/// `column = something outside`, of types between which no two values become one.
fn is_equality(condition: &Expr, input: &LogicalPlan) -> Result<bool> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return Ok(false) };
    let (column, outside) = if matches!(left.as_ref(), Expr::Column(_)) { (left, right) } else { (right, left) };
    if !matches!(column.as_ref(), Expr::Column(_)) || !outside.column_refs().is_empty() {
        return Ok(false);
    }
    let (inner, outer) = (column.get_type(input.schema())?, outside.get_type(input.schema())?);
    Ok(inner == outer || inner.is_integer() && outer.is_integer() || inner.is_string() && outer.is_string())
}

/// Whether an expression needs nothing but the row it is computed of.
fn is_of_the_row(expr: &Expr) -> bool {
    let needs_more = |expr: &Expr| {
        Ok(matches!(
            expr,
            Expr::OuterReferenceColumn(..) | Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)
        ))
    };
    !expr.exists(needs_more).unwrap_or(true)
}
