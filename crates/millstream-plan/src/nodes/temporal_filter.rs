//! Conditions on the clock that turn once per row ([`turning`]): rows enter and leave at instants that are known when they come
//! ([`Op::TemporalFilter`]). A condition of an inner join is taken as a filter above it. Everything else that reads `now()` is recomputed.
//!
//! **Bounds** do not pass: a row that enters or leaves later is a change below them.

use crate::canonical::{all_columns, canonical_texts, reads_clock, rebase};
use crate::error::Result;
use crate::graph::{NodeId, Op, Properties, Strategy};
use crate::nodes::map::substitute;
use crate::temporal::{Turn, turning};
use crate::translate::{NewNode, Translator};
use datafusion::common::{DFSchema, JoinType};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, Projection};
use std::sync::Arc;

/// Takes the conditions that turn at most once out of others, part by part.
pub(super) fn timed(conditions: Vec<Expr>, schema: &DFSchema) -> (Vec<(Expr, Turn)>, Vec<Expr>) {
    let (mut timed, mut others) = (vec![], vec![]);
    for condition in conditions {
        match turning(&condition, schema) {
            Some(parts) => timed.extend(parts),
            None => others.push(condition),
        }
    }
    (timed, others)
}

/// An inner join whose conditions on the clock stand in a filter above it; `None` if that cannot be, or if there are none.
pub(super) fn clock_above(join: &Join) -> Result<Option<Filter>> {
    if join.join_type != JoinType::Inner || join.on.iter().any(|(left, right)| reads_clock(left) || reads_clock(right)) {
        return Ok(None);
    }
    let Some(filter) = &join.filter else { return Ok(None) };
    let (clocked, rest): (Vec<Expr>, Vec<Expr>) = split_conjunction_owned(filter.clone()).into_iter().partition(reads_clock);
    if clocked.is_empty() || clocked.iter().any(|condition| turning(condition, &join.schema).is_none()) {
        return Ok(None);
    }
    let Some(predicate) = conjunction(clocked) else { return Ok(None) };
    let below = LogicalPlan::Join(Join { filter: conjunction(rest), ..join.clone() });
    Ok(Some(Filter::try_new(predicate, Arc::new(below))?))
}

/// A projection over a filter whose conditions find `now()` in a column of a projection below, where the optimizer computes what occurs
/// twice: the same with `now()` in the conditions. `None` if there is nothing to move.
pub(super) fn clock_inside(projection: &Projection) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Filter(filter) = projection.input.as_ref() else { return Ok(None) };
    let LogicalPlan::Projection(below) = filter.input.as_ref() else { return Ok(None) };
    let moves = |expr: &Expr| reads_clock(expr) && expr.column_refs().is_empty();
    if !below.expr.iter().any(moves) {
        return Ok(None);
    }
    let columns = all_columns(&below.schema).into_iter().zip(&below.expr);
    let replacements: Vec<Expr> =
        columns.map(|(column, expr)| if moves(expr) { expr.clone().unalias_nested().data } else { column }).collect();
    let kept = below.expr.iter().filter(|expr| !moves(expr)).cloned().collect();
    let input = LogicalPlan::Projection(Projection::try_new(kept, Arc::clone(&below.input))?);
    let predicate = substitute(&filter.predicate, &below.schema, &replacements)?;
    let filter = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?);
    let exprs = projection.expr.iter().map(|expr| substitute(expr, &below.schema, &replacements)).collect::<Result<Vec<_>>>()?;
    Ok(Some(LogicalPlan::Projection(Projection::try_new_with_schema(exprs, Arc::new(filter), Arc::clone(&projection.schema))?)))
}

impl Translator<'_> {
    /// Keeps the rows of `input` while conditions over `from` are true.
    pub(super) fn temporal_filter(&mut self, input: NodeId, conditions: Vec<(Expr, Turn)>, from: &DFSchema) -> Result<NodeId> {
        if conditions.is_empty() {
            return Ok(input);
        }
        let to = Arc::clone(&self.get(input).df_schema);
        let (mut rising, mut falling, mut still) = (vec![], vec![], vec![]);
        for (condition, turn) in conditions {
            let condition = rebase(&condition, from, &to)?;
            match turn {
                Turn::Still => still.push(condition),
                Turn::Rises => rising.push(condition),
                Turn::Falls => falling.push(condition),
            }
        }
        let input = self.map(input, still, None, &to)?;
        let below = self.get(input);
        let schema = Arc::clone(&below.df_schema);
        let properties = Properties {
            append_only: below.properties.append_only && falling.is_empty(),
            bounds: vec![None; schema.fields().len()],
            keys: below.properties.keys.clone(),
            clock_dependent: true,
            nondeterminism: None,
        };
        let text = format!("from {} until {}", canonical_texts(&rising, &schema)?, canonical_texts(&falling, &schema)?);
        Ok(self.push(NewNode {
            op: Op::TemporalFilter { rising, falling },
            inputs: vec![input],
            df_schema: schema,
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        }))
    }
}
