//! `price > (SELECT avg(price) FROM bids)`: a query inside an expression becomes a join, where it always has one row.
//!
//! ```text
//!   Filter: price > (query)            Projection: the columns of bids
//!     bids                     ->        Filter: price > __one_row_1
//!                                          Join: bids, SELECT avg(price) AS __one_row_1 FROM bids
//! ```
//! Aggregates without GROUP BY have one row whatever they read, so that the join neither adds nor loses a row. The join then is
//! maintained from the changes of both sides: a change of the row costs all rows on the left, and nothing else does. Other queries in
//! expressions may have no row or too many, and stay.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// Rewrites filters and projections.
#[derive(Debug, Default)]
pub(crate) struct OneRowQueries;

impl OptimizerRule for OneRowQueries {
    fn name(&self) -> &str {
        "one_row_queries"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Filter(filter) => {
                let (predicate, queries) = taken_out(filter.predicate.clone(), config)?;
                if queries.is_empty() {
                    return Ok(Transformed::no(LogicalPlan::Filter(filter)));
                }
                let columns: Vec<Expr> = filter.input.schema().columns().into_iter().map(Expr::Column).collect();
                let joined = joined(Arc::unwrap_or_clone(filter.input), queries)?;
                Ok(Transformed::yes(joined.filter(predicate)?.project(columns)?.build()?))
            }
            LogicalPlan::Projection(projection) => {
                let mut queries = Vec::new();
                let mut exprs = Vec::with_capacity(projection.expr.len());
                for (expr, (qualifier, field)) in projection.expr.iter().zip(projection.schema.iter()) {
                    let (rewritten, found) = taken_out(expr.clone(), config)?;
                    // The column keeps its name.
                    exprs.push(if found.is_empty() { rewritten } else { rewritten.alias_qualified(qualifier.cloned(), field.name()) });
                    queries.extend(found);
                }
                if queries.is_empty() {
                    return Ok(Transformed::no(LogicalPlan::Projection(projection)));
                }
                let joined = joined(Arc::unwrap_or_clone(projection.input), queries)?;
                Ok(Transformed::yes(joined.project(exprs)?.build()?))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

/// A query whose value is read from a column of this name.
struct Named {
    query: Subquery,
    name: String,
}

/// The expression with columns in place of its queries of one row.
fn taken_out(expr: Expr, config: &dyn OptimizerConfig) -> Result<(Expr, Vec<Named>)> {
    let mut queries = Vec::new();
    let rewritten = expr.transform_up(|expr| match expr {
        Expr::ScalarSubquery(query) if query.outer_ref_columns.is_empty() && has_one_row(&query.subquery) => {
            let name = config.alias_generator().next("__one_row");
            queries.push(Named { query, name: name.clone() });
            Ok(Transformed::yes(Expr::Column(Column::from_name(name))))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok((rewritten.data, queries))
}

/// Whether a query has one row whatever it reads.
pub(crate) fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(projection) => has_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => has_one_row(&alias.input),
        _ => false,
    }
}

/// The input beside the rows of the queries.
fn joined(input: LogicalPlan, queries: Vec<Named>) -> Result<LogicalPlanBuilder> {
    let mut builder = LogicalPlanBuilder::from(input);
    for Named { query, name } in queries {
        let plan = Arc::unwrap_or_clone(query.subquery);
        let value = Expr::Column(plan.schema().columns().swap_remove(0)).alias(name);
        builder = builder.cross_join(LogicalPlanBuilder::from(plan).project([value])?.build()?)?;
    }
    Ok(builder)
}
