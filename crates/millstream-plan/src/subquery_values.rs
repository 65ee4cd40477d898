//! `x IN (query)` and `EXISTS (query)` as values: in select lists, in arguments of aggregates, and where NULL is not the same as false.
//!
//! ```text
//!   SELECT id, EXISTS (query) FROM t           Projection: id, mark
//!                                        ->      LeftMark Join: t, query
//!   x IN (query)                         ->    CASE WHEN EXISTS (query has x) THEN true
//!                                                   WHEN x IS NULL AND EXISTS (query) OR EXISTS (query has NULL) THEN NULL
//!                                                   ELSE false END
//! ```
//! DataFusion turns both into joins where they are conditions of WHERE; elsewhere it has no plan for them. A mark says whether there is a
//! match, which is all that a condition needs to know of `a OR x IN (query)`; of `a OR x NOT IN (query)` it is not, and DataFusion takes
//! NULL for false there and keeps the row.
//!
//! Neither depends on the order of the query's rows, nor EXISTS on how many more than one there are: ORDER BY and LIMIT, which a join
//! could not have, are left out. An aggregate without GROUP BY has a row whatever it reads.

use crate::one_row_queries::has_one_row;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue, Spans, plan_err};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, FetchType, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Projection, SkipType, Sort, Subquery,
    lit, when,
};
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{AnalyzerRule, OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// Says `IN` by `EXISTS` where its value may be NULL and that matters. It must run before types are coerced.
#[derive(Debug, Default)]
pub struct ExactMembership;

impl AnalyzerRule for ExactMembership {
    fn name(&self) -> &str {
        "exact_membership"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node.map_expressions(simplified)?.data {
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let predicate = exact_condition(predicate, input.schema(), true)?;
                Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, input)?)))
            }
            node if has_values(&node) => exact_values(node),
            other => Ok(Transformed::no(other)),
        })
        .data()
    }
}

/// A node whose expressions have the values of the standard.
fn exact_values(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let Some(schema) = node.inputs().first().map(|input| Arc::clone(input.schema())) else { return Ok(Transformed::no(node)) };
    with_columns_of(node, |node| node.map_expressions(|expr| exact(expr, &schema)))
}

/// EXISTS and IN with queries that lack what their values do not depend on.
fn simplified(expr: Expr) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::Exists(Exists { subquery, negated }) => {
            if has_one_row(&subquery.subquery) {
                return Ok(Transformed::yes(lit(!negated)));
            }
            refuse_windows(&subquery.subquery)?;
            let query = unordered(Arc::clone(&subquery.subquery), true)?;
            if !subquery.outer_ref_columns.is_empty() && skips_rows(&query)? {
                return plan_err!("EXISTS with OFFSET over rows that depend on the row outside cannot be computed as a join");
            }
            Ok(Transformed::yes(Expr::Exists(Exists::new(subquery.with_plan(query), negated))))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            refuse_windows(&subquery.subquery)?;
            let query = unordered(Arc::clone(&subquery.subquery), false)?;
            Ok(Transformed::yes(Expr::InSubquery(InSubquery::new(expr, subquery.with_plan(query), negated))))
        }
        Expr::ScalarSubquery(query) => {
            refuse_windows(&query.subquery)?;
            Ok(Transformed::no(Expr::ScalarSubquery(query)))
        }
        other => Ok(Transformed::no(other)),
    })
}

/// DataFusion takes conditions on the row outside from below window functions, which would see the rows of all rows outside then.
fn refuse_windows(query: &LogicalPlan) -> Result<()> {
    query.apply(|node| match node {
        LogicalPlan::Window(window) if !window.input.all_out_ref_exprs().is_empty() => {
            plan_err!("a window function over rows that depend on the row outside cannot be computed as a join")
        }
        _ => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(())
}

/// A query without its ORDER BY; where only its being empty matters also without its LIMIT.
fn unordered(query: Arc<LogicalPlan>, any_row: bool) -> Result<Arc<LogicalPlan>> {
    match query.as_ref() {
        LogicalPlan::Sort(Sort { input, fetch, .. }) if fetch.is_none_or(|fetch| any_row && fetch > 0) => {
            unordered(Arc::clone(input), any_row)
        }
        LogicalPlan::Limit(limit) if any_row => match (limit.get_skip_type()?, limit.get_fetch_type()?) {
            (SkipType::Literal(0), FetchType::Literal(Some(1..) | None)) => unordered(Arc::clone(&limit.input), any_row),
            _ => Ok(query),
        },
        LogicalPlan::Projection(Projection { expr, input, schema, .. }) => {
            let input = unordered(Arc::clone(input), any_row)?;
            Ok(Arc::new(LogicalPlan::Projection(Projection::try_new_with_schema(expr.clone(), input, Arc::clone(schema))?)))
        }
        _ => Ok(query),
    }
}

/// Whether an OFFSET stands where DataFusion takes a LIMIT away.
fn skips_rows(query: &LogicalPlan) -> Result<bool> {
    match query {
        LogicalPlan::Limit(limit) => Ok(!matches!(limit.get_skip_type()?, SkipType::Literal(0)) || skips_rows(&limit.input)?),
        LogicalPlan::Projection(projection) => skips_rows(&projection.input),
        LogicalPlan::Sort(sort) => skips_rows(&sort.input),
        LogicalPlan::SubqueryAlias(alias) => skips_rows(&alias.input),
        _ => Ok(false),
    }
}

/// A condition, which may take NULL for false. Each of its conjuncts may be an `IN` or `NOT IN`, which become joins as they are.
fn exact_condition(expr: Expr, schema: &DFSchema, is_conjunct: bool) -> Result<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let is_conjunct = is_conjunct && op == Operator::And;
            let left = exact_condition(*left, schema, is_conjunct)?;
            let right = exact_condition(*right, schema, is_conjunct)?;
            Ok(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) }))
        }
        Expr::InSubquery(InSubquery { negated, .. }) if is_conjunct || !negated => Ok(expr),
        Expr::Not(inner) if is_conjunct && matches!(*inner, Expr::InSubquery(_)) => Ok(Expr::Not(inner)),
        other => exact(other, schema).data(),
    }
}

fn exact(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::InSubquery(membership) => exact_membership(membership, schema),
        other => Ok(Transformed::no(other)),
    })
}

fn exact_membership(membership: InSubquery, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let has_query = |expr: &Expr| Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::OuterReferenceColumn(..)));
    // What lies deeper than one level has no join.
    if membership.expr.exists(has_query)? {
        return Ok(Transformed::no(Expr::InSubquery(membership)));
    }
    let InSubquery { expr: value, subquery: Subquery { subquery: query, outer_ref_columns, .. }, negated } = membership;
    let Some((qualifier, field)) = query.schema().iter().next() else { return plan_err!("IN needs a query with one column") };
    let element = Expr::Column(Column::new(qualifier.cloned(), field.name()));
    let value_is_null = if value.nullable(schema)? { Some(value.as_ref().clone().is_null()) } else { None };
    let element_is_null = field.is_nullable().then(|| element.clone().is_null());
    let mut outer_columns = outer_ref_columns.clone();
    let outer_value = value.transform_up(|expr| match expr {
        Expr::Column(column) => {
            let outer = Expr::OuterReferenceColumn(Arc::clone(schema.field_from_column(&column)?), column);
            outer_columns.push(outer.clone());
            Ok(Transformed::yes(outer))
        }
        other => Ok(Transformed::no(other)),
    });
    let matches = exists(filtered(&query, element.eq(outer_value.data()?))?, outer_columns);
    // Whether the query has rows: one number for all rows, if it is the same query for all.
    let any = |query: LogicalPlan| -> Result<Expr> {
        if !outer_ref_columns.is_empty() {
            return Ok(exists(query, outer_ref_columns.clone()));
        }
        let number = LogicalPlanBuilder::from(query).aggregate(Vec::<Expr>::new(), [count(lit(1))])?.build()?;
        Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(number), outer_ref_columns: vec![], spans: Spans::new() }).gt(lit(0)))
    };
    let nothing_compares = value_is_null.map(|is_null| Ok(is_null.and(any(query.as_ref().clone())?)));
    let one_does_not = element_is_null.map(|is_null| any(filtered(&query, is_null)?));
    let unknown: Vec<Expr> = nothing_compares.into_iter().chain(one_does_not).collect::<Result<_>>()?;
    let exact = match unknown.into_iter().reduce(Expr::or) {
        Some(unknown) => when(matches, lit(true)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(false))?,
        None => matches,
    };
    Ok(Transformed::yes(if negated { Expr::Not(Box::new(exact)) } else { exact }))
}

fn exists(query: LogicalPlan, outer_ref_columns: Vec<Expr>) -> Expr {
    Expr::Exists(Exists::new(Subquery { subquery: Arc::new(query), outer_ref_columns, spans: Spans::new() }, false))
}

fn filtered(query: &Arc<LogicalPlan>, predicate: Expr) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::clone(query))?))
}

/// Turns `EXISTS` in select lists, aggregates and window functions into joins that mark the rows of the input.
#[derive(Debug, Default)]
pub(crate) struct MarkedSubqueries;

impl OptimizerRule for MarkedSubqueries {
    fn name(&self) -> &str {
        "marked_subqueries"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        // Every plan comes along here several times, and almost none has what is looked for.
        if !has_values(&plan) || !has_exists(&plan)? {
            return Ok(Transformed::no(plan));
        }
        with_columns_of(plan, |plan| {
            let Some(mut input) = plan.inputs().first().map(|input| (*input).clone()) else { return Ok(Transformed::no(plan)) };
            let marked = plan.map_expressions(|expr| {
                expr.transform_up(|expr| match expr {
                    Expr::Exists(query) => marked(&mut input, query, config),
                    other => Ok(Transformed::no(other)),
                })
            })?;
            match marked.transformed {
                true => Ok(Transformed::yes(marked.data.with_new_exprs(marked.data.expressions(), vec![input])?)),
                false => Ok(marked),
            }
        })
    }
}

/// Whether the expressions of a node are values, not conditions.
fn has_values(node: &LogicalPlan) -> bool {
    matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_))
}

fn has_exists(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= expr.exists(|expr| Ok(matches!(expr, Expr::Exists(_))))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// The column that says whether the query has rows; the input becomes the join that has it.
fn marked(input: &mut LogicalPlan, query: Exists, config: &dyn OptimizerConfig) -> Result<Transformed<Expr>> {
    // As a part of a condition DataFusion marks it.
    let condition = Filter::try_new(Expr::Exists(query).is_true(), Arc::new(input.clone()))?;
    let mut plan = DecorrelatePredicateSubquery::new().rewrite(LogicalPlan::Filter(condition), config)?.data;
    if let LogicalPlan::Projection(columns) = plan {
        plan = Arc::unwrap_or_clone(columns.input);
    }
    match plan {
        LogicalPlan::Filter(Filter { predicate: Expr::IsTrue(mark), input: join, .. }) if !matches!(*mark, Expr::Exists(_)) => {
            *input = Arc::unwrap_or_clone(join);
            Ok(Transformed::yes(*mark))
        }
        _ => plan_err!("this correlated EXISTS or IN cannot be computed as a join"),
    }
}

/// What `change` makes of a plan, with the names of the columns that it had.
fn with_columns_of(
    plan: LogicalPlan,
    change: impl FnOnce(LogicalPlan) -> Result<Transformed<LogicalPlan>>,
) -> Result<Transformed<LogicalPlan>> {
    let schema = Arc::clone(plan.schema());
    // Where the columns are that the input has in addition: window functions stand behind all columns of the input.
    let first_added = if let LogicalPlan::Window(window) = &plan { window.input.schema().fields().len() } else { schema.fields().len() };
    let changed = change(plan)?;
    if !changed.transformed {
        return Ok(changed);
    }
    let plan = changed.data.recompute_schema()?;
    let mut columns = plan.schema().columns();
    columns.drain(first_added..first_added + columns.len() - schema.fields().len());
    let names = columns.into_iter().zip(schema.iter());
    let names: Vec<Expr> =
        names.map(|(column, (qualifier, field))| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name())).collect();
    Ok(Transformed::yes(LogicalPlanBuilder::from(plan).project(names)?.build()?))
}
