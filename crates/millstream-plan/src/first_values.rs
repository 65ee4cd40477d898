//! `(SELECT price FROM bids b WHERE b.auction = a.id ORDER BY time DESC LIMIT 1)`: the first value of an order, for each row outside.
//!
//! ```text
//!   Limit: 1                             Projection: first_value(price ORDER BY time DESC, price)
//!     Sort: time DESC             ->       Aggregate: first_value(..)
//!       Filter: auction = outer(id)          Filter: auction = outer(id)
//! ```
//! A join has no LIMIT for each row, but an aggregate becomes one: it has a value per `auction`, NULL where there is no row, as the query
//! has. Among rows that the order does not distinguish the least value is taken, so the answer does not depend on how they arrived.

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, FetchType, LogicalPlan, LogicalPlanBuilder, Projection, SkipType, Sort, SortExpr};
use datafusion::optimizer::AnalyzerRule;
use std::sync::Arc;

/// Rewrites scalar queries that depend on the row outside and take the first row of an order.
#[derive(Debug, Default)]
pub struct FirstValues;

impl AnalyzerRule for FirstValues {
    fn name(&self) -> &str {
        "first_values"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            node.map_expressions(|expr| {
                expr.transform_up(|expr| match expr {
                    Expr::ScalarSubquery(query) if !query.outer_ref_columns.is_empty() => match first_value(&query.subquery)? {
                        Some(plan) => Ok(Transformed::yes(Expr::ScalarSubquery(query.with_plan(Arc::new(plan))))),
                        None => Ok(Transformed::no(Expr::ScalarSubquery(query))),
                    },
                    other => Ok(Transformed::no(other)),
                })
            })
        })
        .data()
    }
}

/// The query as an aggregate, if it takes one row.
fn first_value(query: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Limit(limit) = query else { return Ok(None) };
    let (SkipType::Literal(0), FetchType::Literal(Some(1))) = (limit.get_skip_type()?, limit.get_fetch_type()?) else { return Ok(None) };
    let Some((qualifier, field)) = query.schema().iter().next() else { return Ok(None) };
    // The value is computed below the order or above it.
    let (value, ordered) = match limit.input.as_ref() {
        LogicalPlan::Projection(Projection { expr, input, .. }) => match expr.as_slice() {
            [value] => (value.clone().unalias(), input),
            _ => return Ok(None),
        },
        other => (Expr::Column(other.schema().columns().swap_remove(0)), &limit.input),
    };
    let (mut order, rows): (Vec<SortExpr>, _) = match ordered.as_ref() {
        LogicalPlan::Sort(Sort { expr, input, fetch: None }) => (expr.clone(), input),
        _ => (vec![], ordered),
    };
    order.push(value.clone().sort(true, false));
    let first = AggregateFunction::new_udf(first_value_udaf(), vec![value], false, None, order, None);
    let plan = LogicalPlanBuilder::from(Arc::clone(rows)).aggregate(Vec::<Expr>::new(), [Expr::AggregateFunction(first)])?;
    let first = Expr::Column(plan.schema().columns().swap_remove(0));
    Ok(Some(plan.project([first.alias_qualified(qualifier.cloned(), field.name())])?.build()?))
}
