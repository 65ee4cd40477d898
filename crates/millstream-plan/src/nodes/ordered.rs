//! `LIMIT`, `OFFSET`, `ORDER BY ... LIMIT`: a top-n (`top_n.rs`), or recomputed, with the same total order.
//!
//! It is recomputed where its input is, so that both are one plan, and where its places are no constants.
//!
//! Rows that the ORDER BY does not distinguish are ordered by their remaining columns, so that the choice does not depend on how
//! rows arrived. Without ORDER BY that is the whole order. Columns that cannot be sorted (lists, maps) are left out, with a note.

use crate::error::Result;
use crate::translate::{Part, Translator};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::expr::Sort as SortExpr;
use datafusion::logical_expr::{Expr, FetchType, Limit, LogicalPlan, SkipType, Sort, lit};
use std::sync::Arc;

const REASON: &str = "LIMIT is recomputed";

impl Translator<'_> {
    /// Translates a limit, or a sort with one.
    pub(crate) fn ordered(&mut self, plan: &LogicalPlan) -> Result<Part> {
        if let Some(node) = self.limit_node(plan)? {
            return Ok(Part::Node(node));
        }
        match plan {
            LogicalPlan::Limit(limit) => {
                let (input, complete) = totally_ordered(&limit.input, rows_needed(limit)?)?;
                self.chosen(&cut(input, limit)?, complete)
            }
            _ => {
                let (sort, complete) = totally_ordered(plan, None)?;
                self.chosen(&sort, complete)
            }
        }
    }

    /// A plan cut to `fetch` rows.
    pub(crate) fn limited(&mut self, input: LogicalPlan, fetch: Option<usize>) -> Result<Part> {
        let fetch = fetch.and_then(|count| i64::try_from(count).ok()).map(|count| Box::new(lit(count)));
        self.ordered(&LogicalPlan::Limit(Limit { skip: None, fetch, input: Arc::new(input) }))
    }

    fn chosen(&mut self, plan: &LogicalPlan, complete: bool) -> Result<Part> {
        let part = self.keep_order(plan)?;
        Ok(if complete { part } else { Self::note(part, "LIMIT chooses freely between rows that differ in unsortable columns only") })
    }

    /// A sort, and the limit and what else lies over it, as a fragment: anywhere else the order of rows means nothing.
    fn keep_order(&mut self, plan: &LogicalPlan) -> Result<Part> {
        let child = match plan {
            LogicalPlan::Projection(projection) => self.keep_order(&projection.input)?,
            LogicalPlan::SubqueryAlias(alias) => self.keep_order(&alias.input)?,
            LogicalPlan::Limit(limit) => self.keep_order(&limit.input)?,
            LogicalPlan::Sort(sort) => self.translate(&sort.input, None)?,
            other => return self.translate(other, None),
        };
        self.fragment(plan, vec![child], Some(REASON.into()))
    }
}

/// A plan cut by a limit directly above the sort in it: DataFusion takes the order of a limit whose input does not show its order any more
/// for none, and sorts below the limit for whoever wants another one above it.
fn cut(plan: LogicalPlan, limit: &Limit) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) if contains_sort(&plan) => {
            Ok(plan.map_children(|child| Ok(Transformed::yes(cut(child, limit)?)))?.data)
        }
        other => Ok(LogicalPlan::Limit(Limit { input: Arc::new(other), ..limit.clone() })),
    }
}

/// How many rows of its ordered input a limit looks at, where that is known.
fn rows_needed(limit: &Limit) -> Result<Option<usize>> {
    Ok(match (limit.get_skip_type()?, limit.get_fetch_type()?) {
        (SkipType::Literal(skip), FetchType::Literal(Some(fetch))) => skip.checked_add(fetch),
        _ => None,
    })
}

/// The plan with a total order, and whether the order is total. The sort is told how many rows are needed: DataFusion removes a
/// sort whose order nobody but a limit above an unordered parent asks for, unless the sort itself cuts.
fn totally_ordered(plan: &LogicalPlan, needed: Option<usize>) -> Result<(LogicalPlan, bool)> {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) if contains_sort(plan) => {
            let mut complete = true;
            let ordered = plan.clone().map_children(|child| {
                let (child, total) = totally_ordered(&child, needed)?;
                complete &= total;
                Ok(Transformed::yes(child))
            })?;
            Ok((ordered.data, complete))
        }
        LogicalPlan::Sort(sort) => {
            let (expr, complete) = total_keys(sort.expr.clone(), sort.input.schema());
            let fetch = match (sort.fetch, needed) {
                (Some(own), Some(needed)) => Some(own.min(needed)),
                (own, needed) => own.or(needed),
            };
            Ok((LogicalPlan::Sort(Sort { expr, fetch, input: Arc::clone(&sort.input) }), complete))
        }
        other => {
            let (expr, complete) = total_keys(vec![], other.schema());
            let sorted = LogicalPlan::Sort(Sort { expr, input: Arc::new(other.clone()), fetch: needed });
            Ok((if matches!(&sorted, LogicalPlan::Sort(sort) if sort.expr.is_empty()) { other.clone() } else { sorted }, complete))
        }
    }
}

/// Whether the order of a plan's rows comes from a sort in it.
pub(super) fn contains_sort(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => contains_sort(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => contains_sort(&alias.input),
        LogicalPlan::Sort(_) => true,
        _ => false,
    }
}

fn total_keys(mut keys: Vec<SortExpr>, schema: &DFSchema) -> (Vec<SortExpr>, bool) {
    let mut complete = true;
    for index in 0..schema.fields().len() {
        let column = Expr::Column(Column::from(schema.qualified_field(index)));
        if keys.iter().any(|key| key.expr == column) {
            continue;
        }
        if is_sortable(schema.field(index).data_type()) {
            keys.push(SortExpr::new(column, true, false));
        } else {
            complete = false;
        }
    }
    (keys, complete)
}

/// Whether DataFusion can sort by a type.
pub(crate) fn is_sortable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_sortable(value),
        other => !other.is_nested() && !matches!(other, DataType::RunEndEncoded(..)),
    }
}
