//! `EXCEPT ALL` and `INTERSECT ALL` with the standard's multiplicities.
//!
//! A row that is m times on the left and n times on the right is max(m - n, 0) times in the difference and min(m, n) times in the
//! intersection. DataFusion plans an anti or a semi join on all columns, which asks only whether n is 0. So equal rows are numbered
//! on both sides, and the join compares the numbers, too: the third of a kind is left if the right side has no third.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::logical_plan::Join;
use datafusion::logical_expr::{Expr, ExprFunctionExt, JoinType, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;
use std::sync::Arc;

/// The name of the right side in what the parser hands over.
const MULTISET: &str = "__multiset";

/// Mends the joins whose right side is marked. It must run before types are coerced.
#[derive(Debug, Default)]
pub struct Multisets;

impl AnalyzerRule for Multisets {
    fn name(&self) -> &str {
        "multisets"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Join(join) if is_marked(&join) => Ok(Transformed::yes(mended(join)?)),
            other => Ok(Transformed::no(other)),
        })
        .data()
    }
}

fn is_marked(join: &Join) -> bool {
    let mut side = join.right.as_ref();
    // The builder renames sides whose columns would clash.
    while let LogicalPlan::SubqueryAlias(alias) = side {
        if alias.alias.table() == MULTISET {
            return matches!(join.join_type, JoinType::LeftAnti | JoinType::LeftSemi);
        }
        side = alias.input.as_ref();
    }
    match side {
        LogicalPlan::Projection(projection) => {
            matches!(projection.input.as_ref(), LogicalPlan::SubqueryAlias(alias) if alias.alias.table() == MULTISET)
        }
        _ => false,
    }
}

fn mended(join: Join) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = join.left.schema().columns().into_iter().map(Expr::Column).collect();
    let (left, left_number) = numbered(Arc::unwrap_or_clone(join.left), "__nth_left")?;
    let (right, right_number) = numbered(Arc::unwrap_or_clone(join.right), "__nth_right")?;
    let mut on = join.on;
    on.push((left_number, right_number));
    let joined = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        join.filter,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(columns)?.build()
}

/// The rows with the number of each among its equals.
fn numbered(plan: LogicalPlan, name: &str) -> Result<(LogicalPlan, Expr)> {
    let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let number = row_number().partition_by(columns.clone()).build()?;
    let windowed = LogicalPlanBuilder::from(plan).window([number.clone()])?;
    let number = Expr::Column(Column::from_name(number.schema_name().to_string())).alias(name);
    let plan = windowed.project(columns.into_iter().chain([number]))?.build()?;
    Ok((plan, Expr::Column(Column::from_name(name))))
}
